//! Placements: the best chains for one job while everything else stands still.
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

use std::collections::BTreeMap;

use crate::front::Front;
use crate::random::Random;
use crate::resource::Span;
use crate::way::Standing;
use crate::{Fen, Fixed, Job, Lines, Occupation, Op, Shop, Tick};

/// What a placement's cost counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// What the plan's cost grows by: modes, setups with the change of the follower's, transport,
    /// tardiness.
    Plan,
    /// What the buyer is charged: the modes' charges and transport.
    Charge,
}

/// One operation's part of a placement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The machine.
    pub machine: usize,
    /// Start of its setup.
    pub start: Tick,
    /// End of its work.
    pub end: Tick,
    /// Its setup.
    pub setup: Tick,
}

/// A job's whole chain: none ends sooner, costs less and emits less.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// When the last operation ends.
    pub completion: Tick,
    /// The cost under the criterion asked for.
    pub cost: Fen,
    /// What the job is charged.
    pub charge: Fen,
    /// What it emits, grams CO2e; setups under [`Cost::Plan`] only, as the cost has them.
    pub carbon: i64,
    /// One step an operation.
    pub steps: Vec<Step>,
}

/// The Pareto-optimal (completion, cost, carbon) placements of one job, earliest first.
pub fn place(shop: &Shop, lines: &Lines, job: &Job, criterion: Cost) -> Vec<Placement> {
    let emits = |mode: &crate::Mode| {
        mode.carbon > 0 || (criterion == Cost::Plan && shop.machines[mode.machine].setup_carbon_per_tick > 0)
    };
    let by_carbon = !shop.transport_carbon.is_empty() || job.ops.iter().flat_map(|op| &op.modes).any(emits);
    placements(&Query { by_carbon, ..Query::new(shop, lines, job, criterion) })
}

/// What a single placement is to be first of all; what else it is decides among equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Done as soon as can be, then cheap.
    Soonest,
    /// As cheap as can be, then soon.
    Cheapest,
    /// As green as can be, then cheap, then soon.
    Greenest,
}

impl Aim {
    /// By what placements compare, where the cost has what they emit in it if that is to count.
    fn of(self, end: Tick, cost: Fen) -> (i64, i64) {
        match self {
            Aim::Soonest => (end, cost),
            Aim::Cheapest | Aim::Greenest => (cost, end),
        }
    }
}

/// The placement of one job that is best by its aim, as [`place`] has it among others, several times faster: what a first
/// chain comes to that looks one operation ahead bounds the search of all.
pub fn place_best(shop: &Shop, lines: &Lines, job: &Job, criterion: Cost, aim: Aim) -> Option<Placement> {
    let mut all = Query::new(shop, lines, job, criterion);
    if aim == Aim::Greenest {
        match all.gram_above_any_cost() {
            Some(weight) => all.fen_per_gram = weight,
            // Numbers so large that they cannot be added up: the front has the greenest, too.
            None => return place(shop, lines, job, criterion).into_iter().min_by_key(|p| (p.carbon, p.cost)),
        }
    }
    let weight = all.fen_per_gram;
    let mut placer = Placer::with_room();
    let first = match job.ops.len() {
        0 | 1 => None,
        _ => placer.best(&Query { narrow: Some(aim), ..all }, aim),
    };
    let bounded = match (aim, first.map(|at| placer.labels[at as usize])) {
        (_, None) => all,
        (Aim::Soonest, Some(first)) => Query { done_by: first.end, ..all },
        (Aim::Cheapest | Aim::Greenest, Some(first)) => Query { limit: first.cost + 1, ..all },
    };
    let best = placer.best(&bounded, aim).map(|at| placer.placement(at));
    best.map(|p| Placement { cost: p.cost - weight * p.carbon, ..p })
}

fn placements(query: &Query<'_>) -> Vec<Placement> {
    let mut placer = Placer::with_room();
    placer.search(query);
    placer.finals.iter().map(|&label| placer.placement(label)).collect()
}

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

/// One call's givens.
pub(crate) struct Query<'a> {
    pub(crate) shop: &'a Shop,
    pub(crate) lines: &'a Lines,
    pub(crate) job: &'a Job,
    pub(crate) criterion: Cost,
    /// Only placements cheaper than this are of interest.
    pub(crate) limit: Fen,
    /// Only placements that are done by then are of interest.
    pub(crate) done_by: Tick,
    /// Whether each operation only goes on from where the one before is placed best.
    pub(crate) narrow: Option<Aim>,
    /// What a gram of what is emitted adds to the cost.
    pub(crate) fen_per_gram: Fen,
    /// Where the operations stood before, and what moving each costs.
    pub(crate) stay: Option<(&'a [Option<Fixed>], Fen)>,
    /// What each tick of the makespan weighs, and the makespan without the job.
    pub(crate) makespan: (Fen, Tick),
    /// Whether a greener placement is of interest that is neither sooner nor cheaper.
    pub(crate) by_carbon: bool,
    /// The plan on the lines, where what stands may make way.
    pub(crate) standing: Option<Standing<'a>>,
}

impl<'a> Query<'a> {
    /// Every placement that is sooner or cheaper.
    pub(crate) fn new(shop: &'a Shop, lines: &'a Lines, job: &'a Job, criterion: Cost) -> Query<'a> {
        Query {
            shop,
            lines,
            job,
            criterion,
            limit: Fen::MAX,
            done_by: Tick::MAX,
            narrow: None,
            fen_per_gram: 0,
            stay: None,
            makespan: (0, 0),
            by_carbon: false,
            standing: None,
        }
    }

    /// Whether labels are told apart by what they are charged, besides time and cost.
    fn by_charge(&self) -> bool {
        self.job.budget.is_some() && (self.criterion == Cost::Plan || self.fen_per_gram > 0)
    }

    /// Whether what a step costs depends on its machine alone, so that on each the soonest is the best.
    fn pays_by_machine(&self) -> bool {
        self.criterion == Cost::Charge && self.stay.is_none()
    }

    /// Whether labels are told apart by time and cost alone.
    fn is_plain(&self) -> bool {
        !self.by_charge() && !self.by_carbon
    }

    /// A weight of a gram by which what emits less costs less, whatever else it costs; if the numbers allow it.
    fn gram_above_any_cost(&self) -> Option<Fen> {
        let (shop, ops) = (self.shop, &self.job.ops);
        let most = |of: &dyn Fn(&crate::Mode) -> i64| -> i64 {
            ops.iter().map(|op| op.modes.iter().map(of).max().unwrap_or(0)).fold(0, i64::saturating_add)
        };
        let plants = 0..shop.transport.len();
        let trips = |of: &dyn Fn(usize, usize) -> i64| -> i64 {
            let all = plants.clone().flat_map(|from| plants.clone().map(move |to| (from, to)));
            all.map(|(from, to)| of(from, to)).max().unwrap_or(0).saturating_mul(ops.len() as i64)
        };
        if self.criterion == Cost::Plan {
            return None;
        }
        let charge = most(&|mode| mode.charge).saturating_add(trips(&|a, b| shop.trip_charge(a, b)));
        let carbon = most(&|mode| mode.carbon).saturating_add(trips(&|a, b| shop.trip_carbon(a, b)));
        let weight = charge.checked_add(1)?;
        carbon.checked_add(1)?.checked_mul(weight).filter(|most| *most < Fen::MAX / 4).map(|_| weight)
    }

    fn mode_cost(&self, mode: &crate::Mode) -> Fen {
        let cost = match self.criterion {
            Cost::Plan => mode.cost,
            Cost::Charge => mode.charge,
        };
        cost + self.fen_per_gram * mode.carbon
    }

    fn tardiness(&self, end: Tick) -> Fen {
        match self.criterion {
            Cost::Plan => self.job.tardiness(end) + self.makespan.0 * (end - self.makespan.1).max(0),
            Cost::Charge => 0,
        }
    }

    fn trip_cost(&self, from: usize, to: usize) -> Fen {
        let cost = match self.criterion {
            Cost::Plan => self.shop.transport_cost[from][to],
            Cost::Charge => self.shop.trip_charge(from, to),
        };
        cost + self.fen_per_gram * self.shop.trip_carbon(from, to)
    }

    fn setup_carbon(&self, machine: usize) -> i64 {
        match self.criterion {
            Cost::Plan => self.shop.machines[machine].setup_carbon_per_tick,
            Cost::Charge => 0,
        }
    }

    fn setup_rate(&self, machine: usize) -> Fen {
        match self.criterion {
            Cost::Plan => self.shop.machines[machine].setup_cost_per_tick,
            Cost::Charge => 0,
        }
    }

    /// The least that doing `op` adds, anywhere.
    fn least(&self, op: &Op, mode: &crate::Mode) -> Fen {
        let machine = &self.shop.machines[mode.machine];
        let saved = self.shop.setups[machine.setup].least_increment(op.family);
        self.mode_cost(mode) + saved * self.setup_rate(mode.machine)
    }
}

impl Placer {
    fn with_room() -> Placer {
        let (labels, fresh) = (Vec::with_capacity(LABELS), Vec::with_capacity(LABELS));
        Placer { labels, fresh, ..Placer::default() }
    }

    /// Searches, and answers with the placement that is best by an aim.
    fn best(&mut self, query: &Query<'_>, aim: Aim) -> Option<u32> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::greedy;
    use crate::state::State;
    use crate::tiny;

    /// Every chain at every tick, one operation after another, judged from the rules alone.
    struct Exhaustive<'a> {
        shop: &'a Shop,
        lines: &'a Lines,
        job: &'a Job,
        criterion: Cost,
        horizon: Tick,
        found: Vec<(Tick, Fen, i64)>,
    }

    impl Exhaustive<'_> {
        fn extend(&mut self, chain: &mut Vec<(usize, Tick)>) {
            let k = chain.len();
            if k == self.job.ops.len() {
                self.found.extend(self.price(chain));
                return;
            }
            let from = chain.last().map_or(0, |c| c.1 + 1);
            for mode in &self.job.ops[k].modes {
                for start in from..self.horizon {
                    chain.push((mode.machine, start));
                    self.extend(chain);
                    chain.pop();
                }
            }
        }

        fn price(&self, chain: &[(usize, Tick)]) -> Option<(Tick, Fen, i64)> {
            let (mut cost, mut charge, mut carbon, mut carbons) = (0, 0, 0, 0);
            let (mut at, mut ready) = (self.job.origin, self.job.release);
            let mut setups = vec![0; chain.len()];
            let mut ends = vec![0; chain.len()];
            for m in 0..self.lines.machines() {
                let growth = self.price_line(m, chain, &mut ends, &mut setups)?;
                cost += growth * self.shop.machines[m].setup_cost_per_tick;
                carbon += growth * self.shop.machines[m].setup_carbon_per_tick;
            }
            for (k, &(m, start)) in chain.iter().enumerate() {
                let (there, mode) = (self.shop.machines[m].plant, self.job.ops[k].mode_on(m)?);
                let trip = |rows: &[Vec<i64>]| at.map_or(0, |p| rows[p][there]);
                let (time, fare) = (trip(&self.shop.transport), trip(&self.shop.transport_cost));
                if start < (ready + time).max(mode.earliest) {
                    return None;
                }
                cost += mode.cost + fare;
                charge += mode.charge + fare;
                carbons += mode.carbon + at.map_or(0, |p| self.shop.trip_carbon(p, there));
                if !self.is_free(chain, k, ends[k], setups[k]) {
                    return None;
                }
                (at, ready) = (Some(there), ends[k]);
            }
            let kept =
                self.job.deadline.is_none_or(|d| ready <= d) && self.job.budget.is_none_or(|b| charge <= b);
            let late = self.job.tardiness(ready);
            kept.then_some(match self.criterion {
                Cost::Plan => (ready, cost + late, carbons + carbon),
                Cost::Charge => (ready, charge, carbons),
            })
        }

        /// Whether every resource has a unit for the operation, tick by tick.
        fn is_free(&self, chain: &[(usize, Tick)], k: usize, end: Tick, setup: Tick) -> bool {
            let (m, start) = chain[k];
            let open = |t: Tick| self.shop.machines[m].calendar.is_open(t);
            let op = &self.job.ops[k];
            self.shop.needs_of(op.needs).iter().all(|need| {
                let mut left = setup;
                let resource = &self.shop.resources[need.resource];
                (start..end).all(|t| {
                    let held = need.during == crate::During::Occupation || left > 0;
                    left -= i64::from(open(t));
                    !held
                        || (self.taken(need.resource, t) < resource.units as usize
                            && (!open(t) || resource.calendar.is_open(t)))
                })
            })
        }

        /// Units of a resource that the lines take at a tick.
        fn taken(&self, resource: usize, t: Tick) -> usize {
            let holds = |m: usize, o: &Occupation| {
                let open = |t: &Tick| self.shop.machines[m].calendar.is_open(*t);
                let worked = (o.start..=t).filter(open).count() as Tick;
                let in_setup = worked < o.setup || (worked == o.setup && open(&t));
                self.shop.needs_of(o.needs as usize).iter().any(|need| {
                    need.resource == resource && (need.during == crate::During::Occupation || in_setup)
                })
            };
            let on = |m: usize| self.lines.on(m).iter().filter(move |o| (o.start..o.end).contains(&t));
            (0..self.lines.machines()).map(|m| on(m).filter(|o| holds(m, o)).count()).sum()
        }

        /// What the machine's setups grow by in ticks, if nothing overlaps and no follower ends later.
        fn price_line(
            &self,
            m: usize,
            chain: &[(usize, Tick)],
            ends: &mut [Tick],
            setups: &mut [Tick],
        ) -> Option<Tick> {
            let line = self.lines.on(m);
            let own = chain.iter().enumerate().filter(|(_, c)| c.0 == m).map(|(k, c)| (c.1, Some(k), None));
            let old = line.iter().map(|o| (o.start, None, Some(*o)));
            let mut all: Vec<(Tick, Option<usize>, Option<Occupation>)> = own.chain(old).collect();
            all.sort_by_key(|x| x.0);
            let (mut family, mut free, mut growth) = (None, 0, 0);
            for (start, own, old) in all {
                let (next, work, splittable, was) = match (own, old) {
                    (Some(k), _) => {
                        let op = &self.job.ops[k];
                        (op.family, op.mode_on(m)?.duration, op.splittable, 0)
                    }
                    (_, Some(o)) => (o.family as usize, o.work, o.splittable, o.setup),
                    _ => return None,
                };
                let setup = self.shop.setup_ticks(m, family, next);
                let end = self.shop.machines[m].calendar.finish(start, setup + work, splittable)?;
                if start < free || old.is_some_and(|o| end > o.end) {
                    return None;
                }
                // What a follower gives back is not taken within the same placement.
                free = old.map_or(end, |o| o.end);
                if let Some(k) = own {
                    (ends[k], setups[k]) = (end, setup);
                }
                growth += setup - was;
                family = Some(next);
            }
            Some(growth)
        }
    }

    fn front(mut found: Vec<(Tick, Fen, i64)>) -> Vec<(Tick, Fen, i64)> {
        found.sort_unstable();
        found.dedup();
        let beats =
            |a: &(Tick, Fen, i64), b: &(Tick, Fen, i64)| a != b && a.0 <= b.0 && a.1 <= b.1 && a.2 <= b.2;
        let all = found.clone();
        found.retain(|f| !all.iter().any(|other| beats(other, f)));
        found
    }

    #[test]
    fn placements_are_the_exhaustive_pareto_front() {
        let (mut fronts, mut revisits, mut greener) = (0, 0, 0);
        for seed in 0..600 {
            let instance = match seed % 2 {
                0 => tiny::instance(seed, 6, 3, 26),
                _ => tiny::rich(seed, 6, 3, 26),
            };
            let mut state = State::empty(&instance);
            let mut order: Vec<usize> = (1..instance.jobs.len()).collect();
            Random::new(seed).shuffle(&mut order);
            greedy::insert_all(&mut state, &mut Placer::default(), &order, &|| false);
            let (shop, lines, job) = (&instance.shop, &state.lines, &instance.jobs[0]);
            for criterion in [Cost::Plan, Cost::Charge] {
                let mut all = Exhaustive { shop, lines, job, criterion, horizon: 26, found: Vec::new() };
                all.extend(&mut Vec::new());
                let want = front(all.found);
                let placements = place(shop, lines, job, criterion);
                let got: Vec<_> = placements.iter().map(|p| (p.completion, p.cost, p.carbon)).collect();
                assert_eq!(got, want, "seed {seed}, {criterion:?}");
                for aim in [Aim::Soonest, Aim::Cheapest, Aim::Greenest] {
                    let by = |(end, cost, carbon): (Tick, Fen, i64)| match aim {
                        Aim::Soonest => (end, cost, 0),
                        Aim::Cheapest => (cost, end, 0),
                        Aim::Greenest => (carbon, cost, end),
                    };
                    let best = place_best(shop, lines, job, criterion, aim);
                    let best = best.map(|p| by((p.completion, p.cost, p.carbon)));
                    let wanted = want.iter().copied().map(by).min();
                    assert_eq!(best, wanted, "seed {seed}, {criterion:?}, {aim:?}");
                }
                fronts += usize::from(want.len() > 1);
                greener += usize::from(want.windows(2).any(|w| w[1].1 >= w[0].1));
                for p in &placements {
                    revisits +=
                        usize::from((1..p.steps.len()).any(|k| p.steps[k].machine == p.steps[k - 1].machine));
                    lines.clone().insert(shop, 99, job, p).expect("a placement can be carried out");
                }
            }
        }
        assert!(fronts > 100 && revisits > 100 && greener > 50, "{fronts} {revisits} {greener}");
    }
}
