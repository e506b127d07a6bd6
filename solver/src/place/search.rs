//! The search for placements of one job.
//!
//! A label-setting shortest path. Layer `k` holds labels for "operations up to `k` are placed": the
//! machine and gap of operation `k`, when it ends, what the chain costs so far. A label is extended
//! to every gap of every machine that may do the next operation, at the earliest start the gap
//! allows and at which whatever else it needs is free: within a gap the setups on both sides are given, so later
//! is never better. A search may also have the gap's followers make way (`way`). Of labels that stand at the same
//! plant, one that is neither earlier nor cheaper is dropped; a quote also keeps what is greener, and a search under a
//! budget what is charged less.
//!
//! One subtlety makes the search exact where a job comes back to a machine: an operation put into
//! the same gap behind its own predecessor sees that one's family, not the plan's. Labels therefore
//! carry a history of the gaps that later operations may come back to, and are compared only with
//! labels of the same history; and an operation that would delay the follower is kept, as pending,
//! where a later operation of the same job may still come between the two.

use super::{Aim, Placement, Query, Step};
use crate::front::Front;
use crate::random::Random;
use crate::resource::Span;
use crate::{Fen, Occupation, Op, Tick};
use std::collections::BTreeMap;

const NO_PARENT: u32 = u32::MAX;
/// Labels that most searches of one job make do with.
const LABELS: usize = 512;
/// A searching placer overlooks one gap in this many, and begins later than it could in as many, so
/// that it does not always choose the same and leaves room for what comes next.
const BLINK_ONE_IN: usize = 40;

#[derive(Clone, Copy, Debug)]
struct Label {
    end: Tick,
    cost: Fen,
    charge: Fen,
    carbon: i64,
    start: Tick,
    setup: Tick,
    machine: u32,
    plant: u32,
    gap: u32,
    parent: u32,
    history: u32,
    /// Gaps whose follower is still delayed.
    pending: u16,
    /// Whether this operation, as the last of the job in its gap, delays the follower.
    delays: bool,
}

/// A label of the layer before, brought to the plant of the machine at hand.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    at: Tick,
    cost: Fen,
    charge: Fen,
    carbon: i64,
    parent: u32,
    history: u32,
    pending: u16,
}

/// What surrounds a gap, as the operation to be put there sees it.
struct Gap {
    index: usize,
    open: Tick,
    close: Tick,
    setup: Tick,
    /// The follower's setup, if there is a follower, minus its setup as the plan has it.
    follower_change: Tick,
    /// Whether the follower may make way.
    yields: bool,
}

/// The search with its buffers, for callers that place many jobs.
#[derive(Debug, Default)]
pub(crate) struct Placer {
    labels: Vec<Label>,
    fresh: Vec<Label>,
    arrivals: Vec<Arrival>,
    front: Front,
    modes: Vec<(u32, u32)>,
    rest_time: Vec<Tick>,
    rest_cost: Vec<Fen>,
    revisited: Vec<bool>,
    /// By arrival: whether the machine at hand has taken it.
    placed: Vec<bool>,
    /// Labels that beat most others: the soonest, the cheapest and the greenest so far that the next one is compared with.
    best: Vec<Label>,
    histories: BTreeMap<(u32, u32, u32, u32), u32>,
    /// Decides which gaps to overlook.
    blinks: Option<Random>,
    /// The last layer's Pareto front.
    pub(crate) finals: Vec<u32>,
}

impl Placer {
    pub(super) fn with_room() -> Placer {
        let (labels, fresh) = (Vec::with_capacity(LABELS), Vec::with_capacity(LABELS));
        Placer { labels, fresh, ..Placer::default() }
    }

    /// Searches, and answers with the placement that is best by an aim.
    pub(super) fn best(&mut self, query: &Query<'_>, aim: Aim) -> Option<u32> {
        self.search(query);
        let by = |&at: &u32| aim.of(self.labels[at as usize].end, self.labels[at as usize].cost);
        self.finals.iter().copied().min_by_key(by)
    }

    /// A placer that overlooks gaps at random.
    pub(crate) fn blinking(seed: u64) -> Placer {
        Placer { blinks: Some(Random::new(!seed)), ..Placer::default() }
    }

    /// Fills `finals` with the Pareto front of placements cheaper than `limit`, earliest first.
    pub(crate) fn search(&mut self, query: &Query<'_>) {
        self.prepare(query);
        let job = query.job;
        let mut layer = 0..0;
        for k in 0..job.ops.len() {
            self.fresh.clear();
            self.best.clear();
            self.order_modes(query, k);
            let mut here = u32::MAX;
            for i in 0..self.modes.len() {
                let (plant, mode) = self.modes[i];
                if plant != here {
                    self.arrive(query, k, layer.clone(), plant as usize);
                    here = plant;
                    // Before the last operation only labels of the same plant are compared.
                    if k + 1 < job.ops.len() {
                        self.best.clear();
                    }
                }
                self.extend(query, k, mode as usize);
            }
            let last = k + 1 == job.ops.len();
            self.drop_dominated(query, last);
            if let Some(aim) = query.narrow {
                let best = self.fresh.iter().min_by_key(|l| aim.of(l.end, l.cost)).copied();
                self.fresh.clear();
                self.fresh.extend(best);
            }
            layer = self.labels.len()..self.labels.len() + self.fresh.len();
            self.labels.append(&mut self.fresh);
            if layer.is_empty() {
                return;
            }
        }
        self.finals.extend(layer.map(|i| i as u32));
    }

    /// The index of the cheapest placement found, the earliest among equals.
    pub(crate) fn cheapest(&self) -> Option<u32> {
        self.finals
            .iter()
            .copied()
            .min_by_key(|&i| (self.labels[i as usize].cost, self.labels[i as usize].end))
    }

    /// The steps of the chain that ends in `label`, last operation first.
    pub(crate) fn steps_reversed(&self, label: u32) -> impl Iterator<Item = Step> + '_ {
        let step =
            |l: &Label| Step { machine: l.machine as usize, start: l.start, end: l.end, setup: l.setup };
        self.chain(label).map(move |at| step(&self.labels[at as usize]))
    }

    pub(crate) fn placement(&self, label: u32) -> Placement {
        let l = &self.labels[label as usize];
        let mut steps: Vec<Step> = self.steps_reversed(label).collect();
        steps.reverse();
        Placement { completion: l.end, cost: l.cost, charge: l.charge, carbon: l.carbon, steps }
    }

    /// Lower bounds on what the operations after each still need, and which machines may be revisited.
    fn prepare(&mut self, query: &Query<'_>) {
        self.labels.clear();
        self.finals.clear();
        self.histories.clear();
        let ops = &query.job.ops;
        self.rest_time.clear();
        self.rest_cost.clear();
        self.rest_time.resize(ops.len() + 1, 0);
        self.rest_cost.resize(ops.len() + 1, 0);
        for (k, op) in ops.iter().enumerate().rev() {
            let time = op.modes.iter().map(|mode| mode.duration).min().unwrap_or(0);
            let cost = op.modes.iter().map(|mode| query.least(op, mode)).min().unwrap_or(0);
            self.rest_time[k] = self.rest_time[k + 1] + time;
            self.rest_cost[k] = self.rest_cost[k + 1] + cost;
        }
        self.revisited.clear();
        for (k, op) in ops.iter().enumerate() {
            let later = |machine| ops[k + 1..].iter().any(|other| other.mode_on(machine).is_some());
            self.revisited.extend(op.modes.iter().map(|mode| later(mode.machine)));
        }
    }

    fn order_modes(&mut self, query: &Query<'_>, k: usize) {
        self.modes.clear();
        let op = &query.job.ops[k];
        for (i, mode) in op.modes.iter().enumerate() {
            if op.fixed.is_none_or(|f| f.machine == mode.machine) {
                self.modes.push((query.shop.machines[mode.machine].plant as u32, i as u32));
            }
        }
        self.modes.sort_unstable();
    }

    /// Brings the layer's labels to a plant, sorted by time, dominated ones dropped.
    fn arrive(&mut self, query: &Query<'_>, k: usize, layer: std::ops::Range<usize>, plant: usize) {
        let (job, shop) = (query.job, query.shop);
        self.arrivals.clear();
        if k == 0 {
            let by = |table: &dyn Fn(usize) -> i64| job.origin.map_or(0, table);
            self.arrivals.push(Arrival {
                at: job.release + by(&|o| shop.transport[o][plant]),
                cost: by(&|o| query.trip_cost(o, plant)),
                charge: by(&|o| shop.trip_charge(o, plant)),
                carbon: by(&|o| shop.trip_carbon(o, plant)),
                parent: NO_PARENT,
                history: 0,
                pending: 0,
            });
            return;
        }
        for i in layer {
            let label = &self.labels[i];
            let here = label.plant as usize;
            self.arrivals.push(Arrival {
                at: label.end + shop.transport[here][plant],
                cost: label.cost + query.trip_cost(here, plant),
                charge: label.charge + shop.trip_charge(here, plant),
                carbon: label.carbon + shop.trip_carbon(here, plant),
                parent: i as u32,
                history: label.history,
                pending: label.pending,
            });
        }
        self.arrivals.sort_unstable_by_key(|a| (a.at, a.cost, a.charge, a.carbon));
        if self.histories.is_empty() {
            self.front.clear();
            let (by_charge, by_carbon) = (query.by_charge(), query.by_carbon);
            self.arrivals.retain(|a| self.front.admits(a.cost, (by_charge, a.charge), (by_carbon, a.carbon)));
        }
    }

    /// Labels for operation `k` in every gap of one machine.
    fn extend(&mut self, query: &Query<'_>, k: usize, mode_index: usize) {
        let op = &query.job.ops[k];
        let mode = &op.modes[mode_index];
        let line = query.lines.on(mode.machine);
        let Some(first) = self.arrivals.first().map(|a| a.at.max(mode.earliest)) else { return };
        self.placed.clear();
        self.placed.resize(self.arrivals.len(), false);
        if k + 1 == query.job.ops.len() && !self.histories.is_empty() {
            self.overlook_dominated(query, mode.machine);
        }
        let least_cost = self.arrivals.iter().map(|a| a.cost).min().unwrap_or(0) + query.least(op, mode);
        for gap in line.partition_point(|o| o.start <= first)..=line.len() {
            let open = gap.checked_sub(1).map_or(0, |i| line[i].end);
            let close = line.get(gap).map_or(Tick::MAX, |o| o.start);
            let from = open.max(first);
            if self.hopeless(query, k, from + mode.duration, least_cost) {
                return;
            }
            let until = from + mode.duration;
            if close < until && !self.may_yield(query, k, (mode.machine, gap), until, least_cost) {
                continue;
            }
            let Some(delay) = self.blink(mode.duration) else { continue };
            let open = if delay == 0 { open } else { from + delay };
            if self.extend_gap(query, k, mode_index, gap, open) {
                return;
            }
        }
    }

    /// Before the last operation's machine is searched: what another arrival is as good as in all adds nothing there,
    /// unless the job itself stands on that machine already; nor does what still delays a follower elsewhere.
    fn overlook_dominated(&mut self, query: &Query<'_>, machine: usize) {
        let (by_charge, by_carbon) = (query.by_charge(), query.by_carbon);
        self.front.clear();
        for (i, a) in self.arrivals.iter().enumerate() {
            let stands_here =
                self.chain(a.parent).any(|at| self.labels[at as usize].machine as usize == machine);
            if stands_here {
                continue;
            }
            self.placed[i] =
                a.pending > 0 || !self.front.admits(a.cost, (by_charge, a.charge), (by_carbon, a.carbon));
        }
    }

    /// How much later than it could the operation is to begin in the gap at hand; `None`: not there
    /// at all. Only a searching placer blinks.
    fn blink(&mut self, duration: Tick) -> Option<Tick> {
        let Some(random) = &mut self.blinks else { return Some(0) };
        match random.below(BLINK_ONE_IN) {
            0 => None,
            1 => Some(1 + random.below(3 * duration as usize) as Tick),
            _ => Some(0),
        }
    }

    /// Whether ending operation `k` at `end` or later, at `cost` or more, can no longer matter.
    fn hopeless(&self, query: &Query<'_>, k: usize, end: Tick, cost: Fen) -> bool {
        let done = end + self.rest_time[k + 1];
        let total = cost + self.rest_cost[k + 1] + query.tardiness(done);
        total >= query.limit
            || done > query.done_by
            || query.job.deadline.is_some_and(|deadline| done > deadline)
    }

    /// Whether what stands behind a gap could make way until a time, at a cost that leaves hope.
    fn may_yield(
        &self,
        query: &Query<'_>,
        k: usize,
        (machine, gap): (usize, usize),
        until: Tick,
        cost: Fen,
    ) -> bool {
        let follower = query.standing.zip(query.lines.on(machine).get(gap));
        let way = follower.and_then(|(standing, o)| standing.least_way(machine, o, until));
        way.is_some_and(|way| !self.hopeless(query, k, until, cost + way))
    }

    fn gap(&self, query: &Query<'_>, op: &Op, machine: usize, index: usize, own: Option<u32>) -> Gap {
        let line = query.lines.on(machine);
        let before: Option<&Occupation> = index.checked_sub(1).map(|i| &line[i]);
        let family = own.or(before.map(|o| o.family)).map(|f| f as usize);
        let after = line.get(index);
        Gap {
            index,
            open: before.map_or(0, |o| o.end),
            close: after.map_or(Tick::MAX, |o| o.start),
            setup: query.shop.setup_ticks(machine, family, op.family),
            follower_change: after
                .map_or(0, |o| query.shop.setup_ticks(machine, Some(op.family), o.family as usize) - o.setup),
            yields: false,
        }
    }

    /// Labels in one gap. Says whether later gaps of the machine have nothing to add.
    fn extend_gap(
        &mut self,
        query: &Query<'_>,
        k: usize,
        mode_index: usize,
        index: usize,
        open: Tick,
    ) -> bool {
        let op = &query.job.ops[k];
        let machine = op.modes[mode_index].machine;
        let mode_base: usize = query.job.ops[..k].iter().map(|o| o.modes.len()).sum();
        let revisited = self.revisited[mode_base + mode_index];
        let alone = !revisited && self.histories.is_empty() && op.fixed.is_none();
        let yields = alone && query.standing.is_some() && index < query.lines.on(machine).len();
        let gap = Gap { open, yields, ..self.gap(query, op, machine, index, None) };
        if self.histories.is_empty() {
            if gap.follower_change > 0 && !revisited && !gap.yields {
                return false;
            }
            // What a buyer is charged does not depend on the gap: the first that takes an arrival is the best for it.
            let first_is_best = alone && !yields && query.pays_by_machine();
            // Whoever is there when the gap opens starts together: the last of them is the cheapest.
            let ready = self.arrivals.partition_point(|a| a.at <= gap.open);
            let skip = if query.is_plain() { ready.saturating_sub(1) } else { 0 };
            for i in skip..self.arrivals.len() {
                if self.arrivals[i].at >= gap.close {
                    return false;
                }
                if self.placed[i] {
                    continue;
                }
                let fits = self.push(query, k, mode_index, &gap, i, gap.follower_change, revisited, 0);
                self.placed[i] = first_is_best && fits;
            }
            return first_is_best && self.placed[skip..].iter().all(|placed| *placed);
        }
        let first_is_best = k + 1 == query.job.ops.len() && op.fixed.is_none() && query.pays_by_machine();
        for i in 0..self.arrivals.len() {
            if self.arrivals[i].at >= gap.close {
                return false;
            }
            if self.placed[i] {
                continue;
            }
            let fits = match self.own_in(self.arrivals[i].parent, machine, index) {
                None => self.push(query, k, mode_index, &gap, i, gap.follower_change, revisited, 0),
                Some(own) => {
                    let (family, delays, change) = self.own_follower(query, own, machine, index);
                    let behind = self.gap(query, op, machine, index, Some(family));
                    let step = behind.follower_change - change;
                    self.push(query, k, mode_index, &behind, i, step, revisited, u16::from(delays))
                }
            };
            self.placed[i] = first_is_best && fits;
        }
        first_is_best && self.placed.iter().all(|placed| *placed)
    }

    /// The labels of a chain, the last operation's first.
    fn chain(&self, label: u32) -> impl Iterator<Item = u32> + '_ {
        let known = |label: u32| (label != NO_PARENT).then_some(label);
        std::iter::successors(known(label), move |&at| known(self.labels[at as usize].parent))
    }

    /// The job's own latest operation in a gap, in the chain that ends at `label`.
    fn own_in(&self, label: u32, machine: usize, gap: usize) -> Option<u32> {
        let stands_there = |&at: &u32| {
            let l = &self.labels[at as usize];
            (l.machine as usize, l.gap as usize) == (machine, gap)
        };
        self.chain(label).find(stands_there)
    }

    /// The family that own operation leaves, whether it delays the follower, and by how much it has
    /// changed the follower's setup already.
    fn own_follower(&self, query: &Query<'_>, own: u32, machine: usize, gap: usize) -> (u32, bool, Tick) {
        let op = &query.job.ops[self.chain(own).count() - 1];
        let change = self.gap(query, op, machine, gap, None).follower_change;
        (op.family as u32, self.labels[own as usize].delays, change)
    }

    /// Labels of one arrival in one gap. Says whether it fits in, however little that may be worth.
    #[allow(clippy::too_many_arguments)]
    fn push(
        &mut self,
        query: &Query<'_>,
        k: usize,
        mode_index: usize,
        gap: &Gap,
        arrival: usize,
        follower_step: Tick,
        revisited: bool,
        relieved: u16,
    ) -> bool {
        let (op, arrival) = (&query.job.ops[k], self.arrivals[arrival]);
        let mode = &op.modes[mode_index];
        let machine = &query.shop.machines[mode.machine];
        let delays = gap.follower_change > 0;
        if delays && !revisited && !gap.yields {
            return false;
        }
        let from = arrival.at.max(gap.open).max(mode.earliest);
        let (shop, usage) = (query.shop, query.lines.usage());
        let (work, splittable) = (mode.duration, op.splittable);
        let rate = query.setup_rate(mode.machine);
        let cost = arrival.cost + query.mode_cost(mode) + (gap.setup + follower_step) * rate;
        if self.hopeless(query, k, from + work, cost) {
            return true;
        }
        if self.hopeless(query, k, from + gap.setup + work, cost) {
            return false;
        }
        let label = Label {
            end: from + gap.setup + work,
            cost,
            charge: arrival.charge + mode.charge,
            carbon: arrival.carbon
                + mode.carbon
                + (gap.setup + follower_step) * query.setup_carbon(mode.machine),
            start: 0,
            setup: gap.setup,
            machine: mode.machine as u32,
            plant: machine.plant as u32,
            gap: gap.index as u32,
            parent: arrival.parent,
            history: arrival.history,
            pending: arrival.pending + u16::from(delays) - relieved,
            delays,
        };
        let last = k + 1 == query.job.ops.len();
        let comparable = last || (!revisited && label.history == 0);
        if comparable && !gap.yields && query.stay.is_none() && op.fixed.is_none() {
            // Beaten even without a setup and never interrupted: so is every later gap of the machine.
            let tardiness = if last { query.tardiness(from + work) } else { 0 };
            if self.is_beaten(query, &Label { end: from + work, cost: cost + tardiness, ..label }) {
                return true;
            }
        }
        let wanted = Span { machine: mode.machine, needs: op.needs, setup: gap.setup, work, splittable };
        let at = |start| match start >= from {
            true => usage.end_at(shop, &wanted, start).map(|end| (start, end)),
            false => None,
        };
        let latest = match (gap.yields, splittable) {
            (false, _) => gap.close,
            (true, false) => gap.close + gap.setup + work,
            (true, true) => Tick::MAX,
        };
        let span = match op.fixed {
            None => usage.earliest(shop, &wanted, from, latest),
            Some(fixed) => at(fixed.start),
        };
        let stay = query.stay.and_then(|(stays, weight)| stays[k].map(|stay| (stay, weight)));
        let Some((stay, weight)) = stay else {
            return self.file(query, k, label, span, gap, revisited);
        };
        let moved = span.filter(|s| (mode.machine, s.0) != (stay.machine, stay.start));
        let fits = self.file(query, k, Label { cost: label.cost + weight, ..label }, moved, gap, revisited);
        if stay.machine == mode.machine {
            return self.file(query, k, label, at(stay.start), gap, revisited) || fits;
        }
        fits
    }

    /// Files a label with its span; where that needs it, the followers make way.
    fn file(
        &mut self,
        query: &Query<'_>,
        k: usize,
        label: Label,
        span: Option<(Tick, Tick)>,
        gap: &Gap,
        revisited: bool,
    ) -> bool {
        let Some((start, end)) = span else { return false };
        let Some(standing) = query.standing.filter(|_| gap.yields && (label.delays || end > gap.close))
        else {
            return self.push_label(query, k, label, (start, end), gap, revisited);
        };
        let (op, machine) = (&query.job.ops[k], label.machine as usize);
        let cost = label.cost - gap.follower_change * query.setup_rate(machine);
        if start > gap.close || self.hopeless(query, k, end, cost) {
            return false;
        }
        let Some(way) = standing.make_way(machine, gap.index, op.family, end, |_| ()) else { return false };
        let label = Label { cost: cost + way, pending: 0, delays: false, ..label };
        self.push_label(query, k, label, (start, end), &Gap { close: Tick::MAX, ..*gap }, false)
    }

    /// Files a label with its span, if it ends in time and may still matter. Says whether it ends in time.
    fn push_label(
        &mut self,
        query: &Query<'_>,
        k: usize,
        mut label: Label,
        (start, end): (Tick, Tick),
        gap: &Gap,
        revisited: bool,
    ) -> bool {
        if end > gap.close {
            return false;
        }
        (label.start, label.end) = (start, end);
        let over = query.job.budget.is_some_and(|budget| label.charge > budget);
        if over || self.hopeless(query, k, end, label.cost) {
            return true;
        }
        let last = k + 1 == query.job.ops.len();
        if last {
            if label.pending > 0 {
                return false;
            }
            label.cost += query.tardiness(end);
        }
        let comes_back = revisited && self.may_come_back(query, k, label.machine as usize, gap.close - end);
        if label.delays && !comes_back {
            return false;
        }
        if comes_back {
            label.history = self.history(label.history, k, label.machine as usize, gap.index);
        } else if last || label.history == 0 {
            if self.is_beaten(query, &label) {
                return true;
            }
            self.note_best(&label);
        }
        self.fresh.push(label);
        true
    }

    /// Whether a later operation of the job fits in what is left of a gap.
    fn may_come_back(&self, query: &Query<'_>, k: usize, machine: usize, left: Tick) -> bool {
        // Where followers may make way, there may be more room than it seems.
        let later = query.job.ops[k + 1..].iter().filter_map(|op| op.mode_on(machine));
        query.standing.is_some() || later.map(|mode| mode.duration).min().is_some_and(|least| least <= left)
    }

    /// Whether one of the best labels so far is as good in all: most are, and need not be sorted among the others.
    fn is_beaten(&self, query: &Query<'_>, label: &Label) -> bool {
        let (by_charge, by_carbon) = (query.by_charge(), query.by_carbon);
        // Of equals, the one that sorting would put first.
        let whole = |l: &Label| (l.end, l.cost, l.charge, l.carbon);
        self.best.iter().any(|b| {
            b.end <= label.end
                && b.cost <= label.cost
                && (!by_charge || b.charge <= label.charge)
                && (!by_carbon || b.carbon <= label.carbon)
                && whole(b) <= whole(label)
        })
    }

    fn note_best(&mut self, label: &Label) {
        if self.best.is_empty() {
            return self.best.resize(3, *label);
        }
        let keys = |l: &Label| [(l.end, l.cost), (l.cost, l.end), (l.carbon, l.cost)];
        for (at, best) in self.best.iter_mut().enumerate() {
            if keys(label)[at] < keys(best)[at] {
                *best = *label;
            }
        }
    }

    fn history(&mut self, before: u32, k: usize, machine: usize, gap: usize) -> u32 {
        let next = self.histories.len() as u32 + 1;
        *self.histories.entry((before, k as u32, machine as u32, gap as u32)).or_insert(next)
    }

    /// Keeps the fresh labels that none dominates. In the last layer it no longer matters what is charged.
    fn drop_dominated(&mut self, query: &Query<'_>, last: bool) {
        let class = |l: &Label| if last { (0, 0) } else { (l.plant, l.history) };
        let (by_charge, by_carbon) = (query.by_charge() && !last, query.by_carbon);
        self.fresh.sort_unstable_by_key(|l| (class(l), l.end, l.cost, l.charge, l.carbon));
        let mut here = (u32::MAX, u32::MAX);
        self.fresh.retain(|l| {
            if class(l) != here {
                here = class(l);
                self.front.clear();
            }
            self.front.admits(l.cost, (by_charge, l.charge), (by_carbon, l.carbon))
        });
    }
}
