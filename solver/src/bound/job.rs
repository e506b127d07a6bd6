//! One job by itself at given prices, exactly: a dynamic program over time cells of `grain` ticks.
//!
//! An operation that begins inside a cell is let begin at the cell's start for all that follows, and pays the
//! least that any start in the cell would pay. At grain 1 nothing is lost; a coarser grain errs downward, and is
//! what makes large instances quick.

use super::{BUCKET, Bound, PRICE_STEP};
use crate::{Fen, Instance, Job, Op, Tick};

/// Buffers of one job's dynamic program.
#[derive(Default)]
pub(super) struct Scratch {
    /// By operation and mode: least cost by start cell (by end cell where splittable).
    tables: Vec<Vec<Vec<f64>>>,
    arrive: Vec<f64>,
}

/// The chain that a job would choose at the prices: mode and start by operation, starts rounded down to cells.
pub(crate) type Choice = Vec<(usize, Tick)>;

impl Bound<'_> {
    pub(super) fn use_up(&mut self, j: usize, choice: &Choice) {
        for (k, (op, &(chosen, start))) in self.instance.jobs[j].ops.iter().zip(choice).enumerate() {
            let mode = &op.modes[chosen];
            if self.is_free(op, mode.machine) {
                continue;
            }
            let calendar = &self.instance.shop.machines[mode.machine].calendar;
            let Some(end) = calendar.finish(start, mode.duration, op.splittable) else { continue };
            if let Some(toll) = self.toll(j, k, chosen) {
                let window = calendar.windows().partition_point(|w| w.1 <= start);
                self.usage[toll + window] += mode.duration as f64;
            }
            let line = &self.lines[mode.machine];
            let first = line.first + usize::from(line.class[op.family]) * self.buckets;
            for b in start / BUCKET..=(end - 1) / BUCKET {
                let (from, to) = (start.max(b * BUCKET), end.min((b + 1) * BUCKET));
                let open = calendar.open_until(to) - calendar.open_until(from);
                self.usage[first + b as usize] += open as f64;
            }
        }
    }

    /// The least that job `j` costs at the prices, at most `out`, and the chain that costs it.
    pub(super) fn cheapest(&mut self, j: usize, out: f64) -> (f64, Choice) {
        let job = &self.instance.jobs[j];
        let last = latest_end(self.instance, job);
        if last <= job.release {
            return (out, Choice::new());
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let span = Span { first: job.release / self.grain, cells: 0, last, grain: self.grain };
        let span = Span { cells: (last / self.grain - span.first + 1) as usize, ..span };
        scratch.tables.resize_with(job.ops.len().max(scratch.tables.len()), Vec::new);
        for k in 0..job.ops.len() {
            let modes = job.ops[k].modes.len();
            let kept = scratch.tables[k].len();
            scratch.tables[k].resize_with(modes.max(kept), Vec::new);
            self.fill(j, k, &span, &mut scratch);
        }
        let value = self.read_off(job, out, &span, &scratch);
        self.scratch = scratch;
        value
    }

    /// Fills the tables of operation `k`.
    fn fill(&self, j: usize, k: usize, span: &Span, scratch: &mut Scratch) {
        let job = &self.instance.jobs[j];
        let op = &job.ops[k];
        let machines = &self.instance.shop.machines;
        let mut here = usize::MAX;
        let mut order: Vec<usize> = (0..op.modes.len()).collect();
        order.sort_by_key(|&i| machines[op.modes[i].machine].plant);
        for i in order {
            let plant = machines[op.modes[i].machine].plant;
            let (before, after) = scratch.tables.split_at_mut(k);
            if plant != here {
                self.arrive(job, k, plant, span, before, &mut scratch.arrive);
                here = plant;
            }
            let table = &mut after[0][i];
            table.clear();
            table.resize(span.cells, f64::INFINITY);
            match op.splittable {
                true => self.extend_splittable(job, k, i, span, &scratch.arrive, table),
                false => self.extend(j, k, i, span, &scratch.arrive, table),
            }
        }
    }

    /// The least cost of being at a plant, ready for operation `k`, by cell.
    fn arrive(
        &self,
        job: &Job,
        k: usize,
        plant: usize,
        span: &Span,
        tables: &[Vec<Vec<f64>>],
        arrive: &mut Vec<f64>,
    ) {
        let shop = &self.instance.shop;
        arrive.clear();
        arrive.resize(span.cells, f64::INFINITY);
        if k == 0 {
            let (time, trip) =
                job.origin.map_or((0, 0), |o| (shop.transport[o][plant], shop.transport_cost[o][plant]));
            let from = ((job.release + time) / span.grain - span.first) as usize;
            if let Some(rest) = arrive.get_mut(from..) {
                rest.fill(trip as f64);
            }
            return;
        }
        for (mode, table) in job.ops[k - 1].modes.iter().zip(&tables[k - 1]) {
            let there = shop.machines[mode.machine].plant;
            let shift = self.shift(&job.ops[k - 1], mode.duration, shop.transport[there][plant]);
            let trip = shop.transport_cost[there][plant] as f64;
            if let Some(rest) = arrive.get_mut(shift..) {
                for (a, cost) in rest.iter_mut().zip(table) {
                    *a = a.min(cost + trip);
                }
            }
        }
        let mut least = f64::INFINITY;
        for a in arrive.iter_mut() {
            least = least.min(*a);
            *a = least;
        }
    }

    /// Whether an operation is not charged. A frozen one begins with a changeover of a length that is not known
    /// here, so that it is not known which ticks its family has to be paid for; to charge for none errs downward.
    /// Where families are not apart, its first ticks are charged, which it takes in any case.
    fn is_free(&self, op: &Op, machine: usize) -> bool {
        op.fixed.is_some() && self.lines[machine].families.len() > 1
    }

    /// The price of a machine's open time before each tick, to a family.
    fn paid(&self, machine: usize, family: usize) -> &[f64] {
        let line = &self.lines[machine];
        &line.paid[usize::from(line.class[family])]
    }

    /// Cells between an operation's table entry and its part's arrival elsewhere.
    fn shift(&self, op: &Op, duration: Tick, transport: Tick) -> usize {
        let worked = if op.splittable { 0 } else { duration };
        ((worked + transport) / self.grain) as usize
    }

    /// The index of the toll of an operation's first window in a mode.
    fn toll(&self, j: usize, k: usize, mode: usize) -> Option<usize> {
        Some(self.first_toll + self.packing.as_ref()?.first(j, k, mode)?)
    }

    fn extend(&self, j: usize, k: usize, i: usize, span: &Span, arrive: &[f64], table: &mut [f64]) {
        let job = &self.instance.jobs[j];
        let tolls = self.toll(j, k, i);
        let op = &job.ops[k];
        let mode = &op.modes[i];
        if op.fixed.is_some_and(|f| f.machine != mode.machine) {
            return;
        }
        let paid = self.paid(mode.machine, op.family);
        let charged = if self.is_free(op, mode.machine) { 0.0 } else { 1.0 };
        let last_op = k + 1 == job.ops.len();
        let from = (span.first * span.grain).max(mode.earliest).max(op.fixed.map_or(0, |f| f.start));
        let to = op.fixed.map_or(span.last - mode.duration, |f| f.start);
        let windows = self.instance.shop.machines[mode.machine].calendar.windows();
        for (w, &(open, close)) in windows.iter().enumerate() {
            let toll = tolls.map_or(0.0, |first| self.prices[first + w] * mode.duration as f64);
            let (first, last) = (open.max(from), (close - mode.duration).min(to));
            let mut s = first;
            while s <= last {
                let cell = s / span.grain;
                let until = ((cell + 1) * span.grain).min(last + 1);
                let here = (cell - span.first) as usize;
                if arrive[here].is_finite() {
                    let (a, b) = (s as usize, until as usize);
                    let d = mode.duration as usize;
                    let ends = paid[a + d..b + d].iter().zip(&paid[a..b]);
                    let price = ends.fold(f64::INFINITY, |least, (e, s)| least.min(e - s)) * charged;
                    let late = if last_op { job.tardiness(s + mode.duration) } else { 0 };
                    let cost = arrive[here] + price + toll + (mode.cost + late) as f64;
                    table[here] = table[here].min(cost);
                }
                s = until;
            }
        }
    }

    fn extend_splittable(
        &self,
        job: &Job,
        k: usize,
        i: usize,
        span: &Span,
        arrive: &[f64],
        table: &mut [f64],
    ) {
        let op = &job.ops[k];
        let mode = &op.modes[i];
        if op.fixed.is_some_and(|f| f.machine != mode.machine) {
            return;
        }
        let paid = self.paid(mode.machine, op.family);
        let charged = if self.is_free(op, mode.machine) { 0.0 } else { 1.0 };
        let last_op = k + 1 == job.ops.len();
        let from = (span.first * span.grain).max(mode.earliest).max(op.fixed.map_or(0, |f| f.start));
        let to = op.fixed.map_or(span.last, |f| f.start);
        let calendar = &self.instance.shop.machines[mode.machine].calendar;
        for &(open, close) in calendar.windows() {
            for s in open.max(from)..close.min(to + 1) {
                let Some(end) = calendar.finish(s, mode.duration, true) else { return };
                if end > span.last {
                    return;
                }
                let (here, there) = (s / span.grain - span.first, end / span.grain - span.first);
                let price = (paid[end as usize] - paid[s as usize]) * charged;
                let late = if last_op { job.tardiness(end) } else { 0 };
                let cost = arrive[here as usize] + price + (mode.cost + late) as f64;
                let entry = &mut table[there as usize];
                *entry = entry.min(cost);
            }
        }
    }

    /// The best entry of the last operation's tables, and the chain behind it.
    fn read_off(&self, job: &Job, out: f64, span: &Span, scratch: &Scratch) -> (f64, Choice) {
        let (mut value, mut k) = (out, job.ops.len() - 1);
        let mut at = None;
        for i in 0..job.ops[k].modes.len() {
            for (cell, &cost) in scratch.tables[k][i].iter().enumerate() {
                if cost < value {
                    (value, at) = (cost, Some((i, cell)));
                }
            }
        }
        let mut choice = Choice::new();
        while let Some((i, cell)) = at {
            let start = self.start_of(&job.ops[k], i, span, cell);
            choice.push((i, start));
            if k == 0 {
                break;
            }
            k -= 1;
            at = self.before(job, k, (i, start / span.grain - span.first), scratch);
        }
        choice.reverse();
        if choice.len() < job.ops.len() {
            choice.clear();
        }
        (value, choice)
    }

    /// A start in the cell that pays the cell's price; any start that fits will do for the direction.
    fn start_of(&self, op: &Op, i: usize, span: &Span, cell: usize) -> Tick {
        let mode = &op.modes[i];
        let calendar = &self.instance.shop.machines[mode.machine].calendar;
        let paid = self.paid(mode.machine, op.family);
        let from = (cell as Tick + span.first) * span.grain;
        if op.splittable {
            // The entry names the end: the latest start whose work ends in the cell.
            let open = calendar.open_until((from + span.grain).min(self.instance.horizon)) - mode.duration;
            let window = calendar.windows().iter().rev().find(|w| calendar.open_until(w.0) <= open);
            return window.map_or(from, |w| w.0 + open - calendar.open_until(w.0));
        }
        let fits = |s: &Tick| calendar.finish(*s, mode.duration, false).is_some();
        let price = |s: &Tick| {
            let d = mode.duration;
            ((paid[(*s + d) as usize] - paid[*s as usize]) / PRICE_STEP) as i64
        };
        (from..from + span.grain).filter(fits).min_by_key(price).unwrap_or(from)
    }

    /// The cheapest entry of operation `k` that still lets the next one begin where it does.
    fn before(&self, job: &Job, k: usize, next: (usize, Tick), scratch: &Scratch) -> Option<(usize, usize)> {
        let shop = &self.instance.shop;
        let plant = shop.machines[job.ops[k + 1].modes[next.0].machine].plant;
        let mut best: (f64, Option<(usize, usize)>) = (f64::INFINITY, None);
        for (i, mode) in job.ops[k].modes.iter().enumerate() {
            let there = shop.machines[mode.machine].plant;
            let shift = self.shift(&job.ops[k], mode.duration, shop.transport[there][plant]);
            let trip = shop.transport_cost[there][plant] as f64;
            let cells = (next.1 + 1 - shift as Tick).max(0) as usize;
            for (cell, cost) in scratch.tables[k][i].iter().take(cells).enumerate() {
                if cost + trip < best.0 {
                    best = (cost + trip, Some((i, cell)));
                }
            }
        }
        best.1
    }
}

/// The cells of one job's program.
struct Span {
    first: Tick,
    cells: usize,
    /// The job ends by this tick or is better rejected.
    last: Tick,
    grain: Tick,
}

/// When a kept job ends at the latest: later breaks its deadline, or costs more than rejecting it.
pub(super) fn latest_end(instance: &Instance, job: &Job) -> Tick {
    let mut last = instance.horizon.min(job.deadline.unwrap_or(Tick::MAX));
    if let Some(out) = job.rejection_cost.filter(|_| job.tardiness_weight > 0) {
        let least: Fen = job.ops.iter().map(|op| op.modes.iter().map(|m| m.cost).min().unwrap_or(0)).sum();
        last = last.min(job.due + (out - least).max(0) / job.tardiness_weight);
    }
    last
}
