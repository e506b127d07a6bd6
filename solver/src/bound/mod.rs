//! A lower bound on the cost of any plan, by pricing machine time.
//!
//! Machine time is cut into buckets. Instead of forbidding that a bucket is used beyond its open ticks, its use
//! is charged for, and offering it is paid for: every open tick of an occupation costs the bucket's price, and
//! the machine earns it. For any prices, the sum over jobs of what each costs by itself at best, kept or
//! rejected (`job`), less the sum over machines of what each earns at most (`machine`), is a bound (Lagrangian
//! relaxation; budgets are not looked at, which errs downward). Prices follow the overload, by subgradient
//! steps along a smoothed direction.
//!
//! At first a machine offers all its open time to everybody, and changeovers are relaxed to nothing. Once that
//! has been priced, [`Bound::refine`] has machines change over, in one of two ways. In a small instance every
//! operation pays a toll as well, which the machine earns by packing whole operations and the changeovers between
//! them into its windows (`packing`). In a larger one each setup family gets prices of its own: a machine then offers
//! its time to the one family that it is set up for, and changes over at the cost and in the time that it takes
//! (`machine`), which proves less in the end and much more in the same time.
//!
//! Prices are multiples of 1/16 fen and all sums stay below 2^48, so the floating-point arithmetic here is
//! exact; the bound is rounded down once, at the end.

mod job;
mod machine;
mod packing;

use crate::{Fen, Instance, Job, Prices, Tick};
pub(crate) use job::Choice;
use job::Scratch;
use machine::Path;
use packing::Packing;

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
/// Passes without improvement until the step is shortened: a sixtieth of all that are expected, within these, before
/// and after refining.
const PATIENCE: (f64, f64) = (4.0, 6.0);
const PATIENCE_REFINED: (f64, f64) = (4.0, 20.0);
const PATIENCE_SHARE: f64 = 1.0 / 60.0;
/// By how much it is shortened, before and after refining.
const SHORTER: f64 = 0.6;
const SHORTER_REFINED: f64 = 0.7;
/// Once steps are shorter than this, machines change over.
const REFINE_BELOW: f64 = 0.05;
/// The step's length once machines change over.
const THETA_REFINED: f64 = 0.2;
/// Steps do not get shorter than this.
const THETA_MIN: f64 = 0.001;
/// Operations are packed whole where there are at most so many tolls.
const PACKED_MAX: usize = 12_000;
/// Share of the newest overload in the direction of a step.
const FRESH: f64 = 0.4;

/// Machines whose offers are reckoned between two looks at the clock.
const MACHINES_PER_LOOK: usize = 8;
/// More families than this on a machine are not told apart.
const FAMILIES_MAX: usize = 16;

/// One machine's prices among all.
#[derive(Clone, Debug, Default)]
struct Line {
    /// The families that are priced apart on it; one for all, where they are not.
    families: Vec<usize>,
    /// By family of its setup matrix: which of these.
    class: Vec<u8>,
    /// By class: the shortest work there is of it, or `None` where some may pause while the machine is closed.
    shortest: Vec<Option<Tick>>,
    /// By class: price of open time before each tick; laid out in its first pass, as it takes long for many.
    paid: Vec<Vec<f64>>,
    /// Index of its first price; each class has `buckets`.
    first: usize,
}

/// What no plan goes below, and the prices that prove it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proof {
    pub(crate) bound: Fen,
    pub(crate) prices: Prices,
}

/// The relaxation, between passes.
pub(crate) struct Bound<'a> {
    instance: &'a Instance,
    lines: Vec<Line>,
    /// Buckets of each class.
    buckets: usize,
    /// Open ticks that the machines offer to each class in each bucket.
    offered: Vec<f64>,
    /// What they earn by that.
    earned: f64,
    path: Path,
    packing: Option<Packing>,
    /// Index of the first toll among the prices.
    first_toll: usize,
    prices: Vec<f64>,
    best_prices: Vec<f64>,
    /// What they come to by class and day.
    told: Prices,
    usage: Vec<f64>,
    direction: Vec<f64>,
    best: Fen,
    /// What the makespan adds to every plan's cost at least.
    floor: Fen,
    /// The best value of a coarse pass; exact ones prove more and do not steer.
    best_coarse: f64,
    theta: f64,
    stale: u32,
    next_machine: usize,
    next_job: usize,
    total: f64,
    grain: Tick,
    scratch: Scratch,
    refined: bool,
    pub(crate) passes: u64,
}

impl<'a> Bound<'a> {
    pub(crate) fn new(instance: &'a Instance) -> Bound<'a> {
        let exact = (instance.dearest_job() as f64) * (instance.jobs.len().max(1) as f64) < EXACT_MAX / 16.0;
        let plain: Fen = instance.jobs.iter().map(|job| cheapest_alone(instance, job)).sum();
        let mut bound = Bound {
            instance,
            lines: Vec::new(),
            buckets: (instance.horizon / BUCKET + 1) as usize,
            offered: Vec::new(),
            earned: 0.0,
            path: Path::default(),
            packing: None,
            first_toll: 0,
            prices: Vec::new(),
            best_prices: Vec::new(),
            told: Prices::default(),
            usage: Vec::new(),
            direction: Vec::new(),
            best: plain,
            floor: instance.makespan_floor(),
            best_coarse: f64::NEG_INFINITY,
            theta: 0.3,
            stale: 0,
            next_machine: 0,
            next_job: 0,
            total: 0.0,
            grain: GRAIN,
            scratch: Scratch::default(),
            passes: 0,
            refined: false,
        };
        let one = vec![vec![0]; instance.shop.machines.len()];
        if exact && bound.table(&one) <= TABLE_MAX {
            bound.draw_lines(one);
        }
        bound
    }

    /// Entries that the prices of time take, with so many classes on the machines.
    fn table(&self, families: &[Vec<usize>]) -> i64 {
        let classes: usize = families.iter().map(Vec::len).sum();
        self.instance.horizon.saturating_mul(classes as i64)
    }

    /// Lays out lines with these families apart, every price at nothing.
    fn draw_lines(&mut self, families: Vec<Vec<usize>>) {
        let shop = &self.instance.shop;
        let mut first = 0;
        self.lines.clear();
        for (machine, families) in shop.machines.iter().zip(families) {
            let class = |family| families.iter().position(|&f| f == family).unwrap_or(0) as u8;
            self.lines.push(Line {
                class: (0..shop.setups[machine.setup].families()).map(class).collect(),
                paid: vec![Vec::new(); families.len()],
                shortest: vec![Some(Tick::MAX / 4); families.len()],
                first,
                families,
            });
            first += self.lines.last().map_or(0, |line| line.families.len()) * self.buckets;
        }
        for op in self.instance.jobs.iter().flat_map(|job| &job.ops) {
            for mode in &op.modes {
                let line = &mut self.lines[mode.machine];
                let shortest = &mut line.shortest[usize::from(line.class[op.family])];
                *shortest = shortest.filter(|_| !op.splittable).map(|ticks| ticks.min(mode.duration));
            }
        }
        self.first_toll = first;
        for table in self.tables() {
            *table = vec![0.0; first];
        }
    }

    /// What there is of each price.
    fn tables(&mut self) -> [&mut Vec<f64>; 5] {
        [&mut self.prices, &mut self.best_prices, &mut self.usage, &mut self.offered, &mut self.direction]
    }

    /// Has machines change over from now on. False where they do, or where that is of no use.
    fn refine(&mut self) -> bool {
        if self.refined || self.is_plain() || !self.is_between_passes() {
            return false;
        }
        self.refined = true;
        if !self.pack_whole() && !self.tell_families_apart() {
            return false;
        }
        self.prices.clone_from(&self.best_prices);
        self.theta = THETA_REFINED;
        self.stale = 0;
        true
    }

    /// Has every operation pay a toll for the window that it lies in, at first of nothing. False where there are too
    /// many.
    fn pack_whole(&mut self) -> bool {
        let calendar = |mode: &crate::Mode| &self.instance.shop.machines[mode.machine].calendar;
        let whole = self.instance.jobs.iter().flat_map(|job| &job.ops).filter(|op| !op.splittable);
        let tolls: usize = whole.flat_map(|op| &op.modes).map(|mode| calendar(mode).windows().len()).sum();
        if !(1..=PACKED_MAX).contains(&tolls) {
            return false;
        }
        let packing = Packing::new(self.instance);
        let size = self.first_toll + packing.tolls;
        for table in self.tables() {
            table.resize(size, 0.0);
        }
        self.packing = Some(packing);
        true
    }

    /// Gives the families on each machine prices of their own, which begin as the best for all. False where that
    /// tells nothing apart, or takes too much memory.
    fn tell_families_apart(&mut self) -> bool {
        let families = self.families_in_use();
        if self.table(&families) > TABLE_MAX || families.iter().all(|families| families.len() < 2) {
            return false;
        }
        let (blind, prices) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.best_prices));
        self.draw_lines(families);
        for (line, was) in self.lines.iter().zip(blind) {
            for class in 0..line.families.len() {
                let at = line.first + class * self.buckets;
                self.best_prices[at..at + self.buckets]
                    .copy_from_slice(&prices[was.first..was.first + self.buckets]);
            }
        }
        true
    }

    /// By machine: the families of the operations that it could do, and the one that it begins with.
    fn families_in_use(&self) -> Vec<Vec<usize>> {
        let machines = &self.instance.shop.machines;
        let mut families: Vec<Vec<usize>> =
            machines.iter().map(|machine| machine.initial_family.into_iter().collect()).collect();
        for op in self.instance.jobs.iter().flat_map(|job| &job.ops) {
            op.modes.iter().for_each(|mode| families[mode.machine].push(op.family));
        }
        for families in &mut families {
            families.sort_unstable();
            families.dedup();
            if families.is_empty() || families.len() > FAMILIES_MAX {
                *families = vec![0];
            }
        }
        families
    }

    /// Prices change between passes only.
    fn is_between_passes(&self) -> bool {
        (self.next_machine, self.next_job) == (0, 0)
    }

    /// The best bound proven so far.
    pub(crate) fn best(&self) -> Fen {
        self.best + self.floor
    }

    /// What is proven, and what machine time is worth by that.
    pub(crate) fn into_proof(self) -> Proof {
        Proof { bound: self.best(), prices: self.told }
    }

    /// The prices at hand, weighed by what is offered at them.
    fn prices_by_day(&self) -> Prices {
        let offers = self.lines.iter().enumerate().flat_map(|(m, line)| {
            let size = line.families.len() * self.buckets;
            (0..size).map(move |i| {
                let (tick, at) = ((i % self.buckets) as Tick * BUCKET, line.first + i);
                (m, tick, self.offered[at], self.prices[at])
            })
        });
        Prices::new(self.instance, offers)
    }

    /// Whether there is nothing to price, so that the bound stands as it is.
    pub(crate) fn is_plain(&self) -> bool {
        self.lines.is_empty() || self.instance.jobs.is_empty()
    }

    /// Goes on for some jobs of the pass at hand; at its end the bound and the prices are brought up
    /// to date, `incumbent` being the cost of the best plan known. True where the pass has ended.
    ///
    /// `share` is how much of all the time or passes has gone by. `chosen` is told what each job would have at the
    /// prices.
    pub(crate) fn work(
        &mut self,
        jobs: usize,
        incumbent: Fen,
        share: f64,
        chosen: &mut dyn FnMut(usize, &Choice),
    ) -> bool {
        if self.is_plain() {
            return true;
        }
        if self.next_job == 0 && !self.begin() {
            return false;
        }
        let last = (self.next_job + jobs).min(self.instance.jobs.len());
        for j in self.next_job..last {
            let out = self.instance.jobs[j].rejection_cost.map_or(f64::INFINITY, |c| c as f64);
            let (value, choice) = self.cheapest(j, out);
            // A promised job that fits nowhere bounds nothing by itself.
            self.total += if value.is_finite() { value } else { 0.0 };
            self.use_up(j, &choice);
            chosen(j, &choice);
        }
        self.next_job = last;
        if last < self.instance.jobs.len() {
            return false;
        }
        (self.next_job, self.next_machine) = (0, 0);
        self.end(incumbent, share);
        true
    }

    /// Brings some machines' offers up to the prices; true where all are.
    fn begin(&mut self) -> bool {
        if self.next_machine == 0 {
            self.usage.fill(0.0);
            self.offered.fill(0.0);
            (self.total, self.earned) = (0.0, 0.0);
        }
        let last = (self.next_machine + MACHINES_PER_LOOK).min(self.lines.len());
        for m in self.next_machine..last {
            let line = &mut self.lines[m];
            let calendar = &self.instance.shop.machines[m].calendar;
            let size = line.families.len() * self.buckets;
            let prices = &self.prices[line.first..line.first + size];
            for (paid, prices) in line.paid.iter_mut().zip(prices.chunks_exact(self.buckets)) {
                paid.resize(self.instance.horizon as usize + 1, 0.0);
                let mut sum = 0.0;
                let mut at = 0usize;
                for &(open, close) in calendar.windows() {
                    paid[at..=open as usize].fill(sum);
                    for t in open..close {
                        sum += prices[(t / BUCKET) as usize];
                        paid[t as usize + 1] = sum;
                    }
                    at = close as usize;
                }
                paid[at..].fill(sum);
            }
            let offered = &mut self.offered[line.first..line.first + size];
            self.earned += self.path.dearest(&self.instance.shop, m, line, prices, offered);
            if let Some(packing) = &mut self.packing {
                let (tolls, packed) = (&self.prices[self.first_toll..], &mut self.offered[self.first_toll..]);
                self.earned += packing.dearest(m, self.grain, tolls, packed);
            }
        }
        self.next_machine = last;
        last == self.lines.len()
    }

    /// Makes the next pass exact in time, at the best prices so far.
    pub(crate) fn sharpen(&mut self) {
        if self.is_between_passes() && !self.lines.is_empty() {
            self.grain = 1;
            self.prices.clone_from(&self.best_prices);
        }
    }

    fn end(&mut self, incumbent: Fen, share: f64) {
        self.passes += 1;
        let value = self.total - self.earned;
        if self.earned < EXACT_MAX && self.total < EXACT_MAX {
            self.best = self.best.max(value.floor() as Fen);
        }
        if std::mem::replace(&mut self.grain, GRAIN) == 1 {
            return;
        }
        if value > self.best_coarse {
            self.best_coarse = value;
            self.best_prices.clone_from(&self.prices);
            // A toll is what one operation can bear, and no price of time.
            if self.packing.is_none() {
                self.told = self.prices_by_day();
            }
            self.stale = 0;
        } else {
            self.stale += 1;
            if self.stale >= self.patience(share) {
                self.stale = 0;
                let shorter = if self.refined { SHORTER_REFINED } else { SHORTER };
                self.theta = (self.theta * shorter).max(THETA_MIN);
                // While prices have not spread, none of them is better than some: there is no going back to that.
                if self.best_prices.iter().any(|&price| price > 0.0) {
                    self.prices.clone_from(&self.best_prices);
                }
                if self.theta < REFINE_BELOW && self.refine() {
                    return;
                }
            }
        }
        self.step(value, incumbent);
    }

    /// How many passes without improvement to wait for: the more there is time for, the better it is to take it.
    fn patience(&self, share: f64) -> u32 {
        let expected = self.passes as f64 / share.max(1e-9);
        let (least, most) = if self.refined { PATIENCE_REFINED } else { PATIENCE };
        (expected * PATIENCE_SHARE).clamp(least, most) as u32
    }

    fn step(&mut self, value: f64, incumbent: Fen) {
        let mut norm = 0.0;
        for i in 0..self.prices.len() {
            let mut over = self.usage[i] - self.offered[i];
            if over < 0.0 && self.prices[i] == 0.0 {
                over = 0.0;
            }
            self.direction[i] = FRESH * over + (1.0 - FRESH) * self.direction[i];
            if self.direction[i] < 0.0 && self.prices[i] == 0.0 {
                self.direction[i] = 0.0;
            }
            norm += self.direction[i] * self.direction[i];
        }
        let room = ((incumbent - self.floor) as f64 - value).max(1.0);
        let length = self.theta * room / norm.max(1.0);
        for (price, d) in self.prices.iter_mut().zip(&self.direction) {
            let next = (*price + length * d).clamp(0.0, 1e7);
            *price = (next / PRICE_STEP).round() * PRICE_STEP;
        }
    }
}

/// What a job costs at least, with every machine to itself and always open.
fn cheapest_alone(instance: &Instance, job: &Job) -> Fen {
    let least = |f: fn(&crate::Mode) -> i64| -> i64 {
        job.ops.iter().map(|op| op.modes.iter().map(f).min().unwrap_or(0)).sum()
    };
    let kept = least(|m| m.cost) + job.tardiness((job.release + least(|m| m.duration)).min(instance.horizon));
    job.rejection_cost.map_or(kept, |out| out.min(kept))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Bound;
    use crate::place::Placer;
    use crate::state::State;
    use crate::{Fen, Fixed, Instance, Options, greedy, read_instance, solve, tiny};

    type Way = fn(&mut Bound<'_>) -> bool;
    /// How machines are made to change over.
    const WAYS: [Way; 2] = [|bound| bound.pack_whole(), |bound| bound.tell_families_apart()];

    /// What a way of refining proves from the first pass on; `None` where it does not apply.
    fn proven(instance: &Instance, way: Way, incumbent: Fen) -> Option<Fen> {
        let mut bound = Bound::new(instance);
        if bound.is_plain() || !way(&mut bound) {
            return None;
        }
        bound.refined = true;
        for pass in 0..200 {
            while !bound.work(16, incumbent, f64::from(pass) / 200.0, &mut |_, _| ()) {}
        }
        bound.sharpen();
        while !bound.work(16, incumbent, 1.0, &mut |_, _| ()) {}
        Some(bound.best())
    }

    /// From family 0 to 2 it is far, and what comes between may not be packed: work that may pause, or what the
    /// machine is set up for at first.
    #[test]
    fn a_family_without_packed_work_may_save_others_a_changeover() {
        let job = |family: usize, pauses: bool| {
            format!(
                r#"{{"id": "J{family}", "release": 0, "due": 60, "deadline": null, "tardiness_weight": 0,
                    "rejection_cost": null, "ops": [{{"family": {family}, "splittable": {pauses}, "modes":
                    [{{"machine": 0, "duration": 10, "cost": 0}}], "fixed": null}}]}}"#
            )
        };
        let text = |setup: &str, initial: usize, jobs: &[String]| {
            format!(
                r#"{{"format": "alliance-instance/1", "name": "between", "tick_seconds": 60, "horizon": 60,
                    "plants": ["P"], "transport": [[0]], "transport_cost": [[0]], "setup": {setup},
                    "machines": [{{"id": "M", "class": "mill", "plant": 0, "open": [[0, 60]],
                    "setup_cost_per_tick": 10, "initial_family": {initial}}}], "jobs": [{}]}}"#,
                jobs.join(", ")
            )
        };
        let (zero, one, two) = (job(0, false), job(1, true), job(2, false));
        let pausing = text("[[0, 1, 10], [10, 0, 1], [10, 10, 0]]", 0, &[zero.clone(), one, two.clone()]);
        let initial = text("[[0, 10, 10], [10, 0, 1], [1, 10, 0]]", 1, &[zero, two]);
        for text in [pausing, initial] {
            let instance = read_instance("between", &text).unwrap();
            assert_eq!(tiny::optimum(&instance), 20);
            for way in WAYS {
                let best = proven(&instance, way, 1000);
                assert!(best.is_some_and(|best| (1..=20).contains(&best)), "{best:?}, and a plan costs 20");
            }
        }
    }

    /// In every other instance some operations are frozen where a plan has them, and promised.
    #[test]
    fn neither_way_of_changing_over_proves_more_than_the_optimum() {
        let (mut applied, mut tight, mut frozen) = ([0; 2], [0; 2], 0);
        for seed in 0..300 {
            let mut instance = match seed % 4 {
                0 | 1 => tiny::instance(seed, 3, 2, 24),
                _ => tiny::rich(seed, 3, 2, 24),
            };
            if seed % 2 == 1 {
                let mut state = State::empty(&instance);
                greedy::insert_all(&mut state, &mut Placer::default(), &[0, 1, 2], &|| false);
                let plan = state.plan();
                for a in plan.assignments.iter().skip(seed as usize % 3).step_by(2) {
                    let job = &mut instance.jobs[a.job];
                    job.rejection_cost = None;
                    job.ops[a.op].fixed = Some(Fixed { machine: a.machine, start: a.start });
                    frozen += 1;
                }
            }
            let optimum = tiny::optimum(&instance);
            let instance = instance.weighed().unwrap();
            for (w, way) in WAYS.into_iter().enumerate() {
                // Steps that aim above the optimum, so that nothing but the proof holds them back.
                let Some(best) = proven(&instance, way, 2 * optimum.min(1 << 40) + 100) else { continue };
                assert!(best <= optimum, "seed {seed}, way {w}: bound {best} above optimum {optimum}");
                applied[w] += 1;
                tight[w] += usize::from(best == optimum);
            }
        }
        assert!(applied[0] > 150 && applied[1] > 100 && frozen > 100, "{applied:?} {frozen}");
        assert!(tight.iter().all(|&n| n > 20), "{tight:?} of {applied:?} are tight");
    }

    /// A frozen operation begins with its changeover, so that its work is not where it is frozen.
    #[test]
    fn frozen_work_behind_a_changeover_does_not_lift_the_bound_above_the_plan() {
        let text = r#"{"format": "alliance-instance/1", "name": "frozen", "tick_seconds": 60, "horizon": 120,
            "plants": ["P"], "transport": [[0]], "transport_cost": [[0]], "setup": [[0, 15], [15, 0]],
            "machines": [{"id": "M", "class": "mill", "plant": 0, "open": [[0, 120]], "setup_cost_per_tick": 1,
                "initial_family": 0}],
            "jobs": [{"id": "J", "release": 0, "due": 120, "deadline": null, "tardiness_weight": 0,
                "rejection_cost": null, "ops": [{"family": 1, "splittable": false, "modes":
                [{"machine": 0, "duration": 15, "cost": 15}], "fixed": {"machine": 0, "start": 0}}]}]}"#;
        let instance = read_instance("frozen", text).unwrap();
        for way in WAYS {
            let best = proven(&instance, way, 1000);
            assert!(best.is_some_and(|best| best <= 30), "the only plan costs 30, the bound is {best:?}");
        }
        let options =
            Options { iterations: Some(10), time_limit: Duration::from_secs(60), ..Options::default() };
        assert_eq!(solve(&instance, &options, |_| ()).unwrap().cost, 30);
    }
}
