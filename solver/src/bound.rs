//! A lower bound on the cost of any plan, by pricing machine time.
//!
//! Machine time is cut into buckets. Instead of forbidding that a bucket is used beyond its open
//! ticks, its use is charged for: every open tick of an occupation costs the bucket's price. For any
//! prices, the sum over jobs of what each costs by itself at best, kept or rejected, less the prices
//! of all capacity, is a bound (Lagrangian relaxation). Setups are relaxed to nothing, budgets are
//! not looked at; both err downward. Prices follow the overload, by subgradient steps.
//!
//! A job by itself is solved exactly by dynamic programming over time cells of `grain` ticks: an
//! operation that begins inside a cell is let begin at the cell's start for all that follows, and
//! pays the least that any start in the cell would pay. At grain 1 nothing is lost; a coarser grain
//! errs downward, and is what makes large instances quick.
//!
//! Prices are multiples of 1/16 fen and all sums stay below 2^48, so the floating-point arithmetic
//! here is exact; the bound is rounded down once, at the end.

use crate::{Fen, Instance, Job, Op, Tick};

/// Prices are multiples of this many fen.
const PRICE_STEP: f64 = 1.0 / 16.0;
/// Above this, sums might not be exact any more.
const EXACT_MAX: f64 = (1u64 << 48) as f64;
/// Ticks in a bucket.
const BUCKET: Tick = 15;
/// Ticks in a cell of the dynamic program while prices are sought.
const GRAIN: Tick = 5;
/// Beyond this many machine ticks prices are not kept; the bound is then the jobs' sum alone.
const TABLE_MAX: i64 = 150_000_000;
/// Iterations without improvement until the step is halved.
const PATIENCE: u32 = 4;
/// Share of the newest overload in the direction of a step.
const FRESH: f64 = 0.4;

/// One machine's buckets among all.
#[derive(Clone, Debug, Default)]
struct Line {
    /// Price of open time before each tick.
    paid: Vec<f64>,
    /// Index of its first bucket.
    first: usize,
}

/// The relaxation, between passes.
pub(crate) struct Bound<'a> {
    instance: &'a Instance,
    lines: Vec<Line>,
    capacity: Vec<f64>,
    prices: Vec<f64>,
    best_prices: Vec<f64>,
    usage: Vec<f64>,
    direction: Vec<f64>,
    best: Fen,
    /// The best value of a coarse pass; exact ones prove more and do not steer.
    best_coarse: f64,
    theta: f64,
    stale: u32,
    next_job: usize,
    total: f64,
    grain: Tick,
    scratch: Scratch,
    pub(crate) passes: u64,
}

/// Buffers of one job's dynamic program.
#[derive(Default)]
struct Scratch {
    /// By operation and mode: least cost by start cell (by end cell where splittable).
    tables: Vec<Vec<Vec<f64>>>,
    arrive: Vec<f64>,
}

/// The chain that a job would choose at the prices: machine and start by operation.
type Choice = Vec<(usize, Tick)>;

impl<'a> Bound<'a> {
    pub(crate) fn new(instance: &'a Instance) -> Bound<'a> {
        let machines = &instance.shop.machines;
        let table = instance.horizon.saturating_mul(machines.len() as i64);
        let dearest = instance.jobs.iter().map(|job| instance.dearest(job)).max().unwrap_or(0);
        let exact = (dearest as f64) * (instance.jobs.len().max(1) as f64) < EXACT_MAX / 16.0;
        let priced = exact && table <= TABLE_MAX;
        let mut lines = Vec::new();
        let mut capacity = Vec::new();
        for machine in machines.iter().filter(|_| priced) {
            lines.push(Line { paid: vec![0.0; instance.horizon as usize + 1], first: capacity.len() });
            for b in 0..=instance.horizon / BUCKET {
                let calendar = &machine.calendar;
                let open = calendar.open_until((b + 1) * BUCKET) - calendar.open_until(b * BUCKET);
                capacity.push(open as f64);
            }
        }
        let buckets = capacity.len();
        let plain: Fen = instance.jobs.iter().map(|job| cheapest_alone(instance, job)).sum();
        Bound {
            instance,
            lines,
            capacity,
            prices: vec![0.0; buckets],
            best_prices: vec![0.0; buckets],
            usage: vec![0.0; buckets],
            direction: vec![0.0; buckets],
            best: plain,
            best_coarse: f64::NEG_INFINITY,
            theta: 1.0,
            stale: 0,
            next_job: 0,
            total: 0.0,
            grain: GRAIN,
            scratch: Scratch::default(),
            passes: 0,
        }
    }

    /// The best bound proven so far.
    pub(crate) fn best(&self) -> Fen {
        self.best
    }

    /// Whether there is nothing to price, so that the bound stands as it is.
    pub(crate) fn is_plain(&self) -> bool {
        self.lines.is_empty() || self.instance.jobs.is_empty()
    }

    /// Goes on for some jobs of the pass at hand; at its end the bound and the prices are brought up
    /// to date, `incumbent` being the cost of the best plan known. True where the pass has ended.
    pub(crate) fn work(&mut self, jobs: usize, incumbent: Fen) -> bool {
        if self.is_plain() {
            return true;
        }
        if self.next_job == 0 {
            self.begin();
        }
        let last = (self.next_job + jobs).min(self.instance.jobs.len());
        for j in self.next_job..last {
            let out = self.instance.jobs[j].rejection_cost.map_or(f64::INFINITY, |c| c as f64);
            let (value, choice) = self.cheapest(j, out);
            // A promised job that fits nowhere bounds nothing by itself.
            self.total += if value.is_finite() { value } else { 0.0 };
            self.use_up(j, &choice);
        }
        self.next_job = last;
        if last < self.instance.jobs.len() {
            return false;
        }
        self.next_job = 0;
        self.end(incumbent);
        true
    }

    fn begin(&mut self) {
        self.usage.fill(0.0);
        self.total = 0.0;
        for (machine, line) in self.instance.shop.machines.iter().zip(&mut self.lines) {
            let mut sum = 0.0;
            let mut at = 0usize;
            for &(open, close) in machine.calendar.windows() {
                line.paid[at..=open as usize].fill(sum);
                for t in open..close {
                    sum += self.prices[line.first + (t / BUCKET) as usize];
                    line.paid[t as usize + 1] = sum;
                }
                at = close as usize;
            }
            line.paid[at..].fill(sum);
        }
    }

    /// Makes the next pass exact in time, at the best prices so far.
    pub(crate) fn sharpen(&mut self) {
        if self.next_job == 0 && !self.lines.is_empty() {
            self.grain = 1;
            self.prices.clone_from(&self.best_prices);
        }
    }

    fn end(&mut self, incumbent: Fen) {
        self.passes += 1;
        let held: f64 = self.prices.iter().zip(&self.capacity).map(|(p, c)| p * c).sum();
        let value = self.total - held;
        if held < EXACT_MAX && self.total < EXACT_MAX {
            self.best = self.best.max(value.floor() as Fen);
        }
        if std::mem::replace(&mut self.grain, GRAIN) == 1 {
            return;
        }
        if value > self.best_coarse {
            self.best_coarse = value;
            self.best_prices.clone_from(&self.prices);
            self.stale = 0;
        } else {
            self.stale += 1;
            if self.stale >= PATIENCE {
                self.stale = 0;
                self.theta = (self.theta * 0.6).max(0.002);
                self.prices.clone_from(&self.best_prices);
            }
        }
        self.step(value, incumbent);
    }

    fn step(&mut self, value: f64, incumbent: Fen) {
        let mut norm = 0.0;
        for i in 0..self.prices.len() {
            let mut over = self.usage[i] - self.capacity[i];
            if over < 0.0 && self.prices[i] == 0.0 {
                over = 0.0;
            }
            self.direction[i] = FRESH * over + (1.0 - FRESH) * self.direction[i];
            if self.direction[i] < 0.0 && self.prices[i] == 0.0 {
                self.direction[i] = 0.0;
            }
            norm += self.direction[i] * self.direction[i];
        }
        let room = (incumbent as f64 - value).max(1.0);
        let length = self.theta * room / norm.max(1.0);
        for (price, d) in self.prices.iter_mut().zip(&self.direction) {
            let next = (*price + length * d).clamp(0.0, 1e7);
            *price = (next / PRICE_STEP).round() * PRICE_STEP;
        }
    }

    fn use_up(&mut self, j: usize, choice: &Choice) {
        for (op, &(mode, start)) in self.instance.jobs[j].ops.iter().zip(choice) {
            let mode = &op.modes[mode];
            let calendar = &self.instance.shop.machines[mode.machine].calendar;
            let Some(end) = calendar.finish(start, mode.duration, op.splittable) else { continue };
            let first = self.lines[mode.machine].first;
            for b in start / BUCKET..=(end - 1) / BUCKET {
                let (from, to) = (start.max(b * BUCKET), end.min((b + 1) * BUCKET));
                let open = calendar.open_until(to) - calendar.open_until(from);
                self.usage[first + b as usize] += open as f64;
            }
        }
    }

    /// The least that job `j` costs at the prices, at most `out`, and the chain that costs it.
    fn cheapest(&mut self, j: usize, out: f64) -> (f64, Choice) {
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
            self.fill(job, k, &span, &mut scratch);
        }
        let value = self.read_off(job, out, &span, &scratch);
        self.scratch = scratch;
        value
    }

    /// Fills the tables of operation `k`.
    fn fill(&self, job: &Job, k: usize, span: &Span, scratch: &mut Scratch) {
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
                false => self.extend(job, k, i, span, &scratch.arrive, table),
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

    /// Cells between an operation's table entry and its part's arrival elsewhere.
    fn shift(&self, op: &Op, duration: Tick, transport: Tick) -> usize {
        let worked = if op.splittable { 0 } else { duration };
        ((worked + transport) / self.grain) as usize
    }

    fn extend(&self, job: &Job, k: usize, i: usize, span: &Span, arrive: &[f64], table: &mut [f64]) {
        let op = &job.ops[k];
        let mode = &op.modes[i];
        if op.fixed.is_some_and(|f| f.machine != mode.machine) {
            return;
        }
        let paid = &self.lines[mode.machine].paid;
        let last_op = k + 1 == job.ops.len();
        let from = (span.first * span.grain).max(mode.earliest).max(op.fixed.map_or(0, |f| f.start));
        let to = op.fixed.map_or(span.last - mode.duration, |f| f.start);
        let windows = self.instance.shop.machines[mode.machine].calendar.windows();
        for &(open, close) in windows {
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
                    let price = ends.fold(f64::INFINITY, |least, (e, s)| least.min(e - s));
                    let late = if last_op { job.tardiness(s + mode.duration) } else { 0 };
                    let cost = arrive[here] + price + (mode.cost + late) as f64;
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
        let paid = &self.lines[mode.machine].paid;
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
                let price = paid[end as usize] - paid[s as usize];
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
        let paid = &self.lines[mode.machine].paid;
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
fn latest_end(instance: &Instance, job: &Job) -> Tick {
    let mut last = instance.horizon.min(job.deadline.unwrap_or(Tick::MAX));
    if let Some(out) = job.rejection_cost.filter(|_| job.tardiness_weight > 0) {
        let least: Fen = job.ops.iter().map(|op| op.modes.iter().map(|m| m.cost).min().unwrap_or(0)).sum();
        last = last.min(job.due + (out - least).max(0) / job.tardiness_weight);
    }
    last
}

/// What a job costs at least, with every machine to itself and always open.
fn cheapest_alone(instance: &Instance, job: &Job) -> Fen {
    let least = |f: fn(&crate::Mode) -> i64| -> i64 {
        job.ops.iter().map(|op| op.modes.iter().map(f).min().unwrap_or(0)).sum()
    };
    let kept = least(|m| m.cost) + job.tardiness((job.release + least(|m| m.duration)).min(instance.horizon));
    job.rejection_cost.map_or(kept, |out| out.min(kept))
}
