//! Which machines are ruled out for each operation, and what each operation waits for.
//!
//! Of each mode it is asked what holds whatever the other operations choose: the earliest its part can be
//! there, the latest it may end for the rest to be done, the least that the rest is charged. So a mode that
//! is said to be ruled out is, and one that is said to be usable may still fail in company.

use super::relax::Case;
use crate::{Fen, Lines, Mode, Occupation, Step, Tick};

/// Why a machine cannot be used for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exclusion {
    /// The operation is frozen, on another machine or at another time than would go.
    Frozen,
    /// No open window is long enough for the work.
    NoWindow,
    /// The dearest budget would be spent: machine, trips and the cheapest rest are charged more.
    OverBudget,
    /// No machine for the operation before is of use, so the part never arrives.
    NotReached,
    /// It would end in time, but the machine takes the operation only from a later tick on.
    NotBefore,
    /// Even with nothing else on the lines it would end too late for the rest to be done in time.
    TooLate,
    /// Other work leaves no gap that is long enough, in time.
    Taken,
}

/// What becomes of one mode of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeFate {
    /// Index of the machine.
    pub machine: usize,
    /// Why it cannot be used; `None`: it can, as far as this operation goes.
    pub excluded: Option<Exclusion>,
}

/// Where an operation stands, or would stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The machine's name.
    pub machine: String,
    /// Start of its setup.
    pub start: Tick,
    /// End of its work.
    pub end: Tick,
    /// What the time before its work goes by with.
    pub wait: Wait,
}

/// The time from the end of the operation before (from the release, for the first) to the start of the
/// work, in ticks by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// The part is on its way.
    pub travel: Tick,
    /// The machine takes it only later.
    pub not_before: Tick,
    /// The machine is busy with other work.
    pub occupied: Tick,
    /// The machine is closed.
    pub closed: Tick,
    /// The machine is open and free, but not for long enough.
    pub too_short: Tick,
    /// The machine could have begun already.
    pub unused: Tick,
    /// The changeover, pauses included.
    pub changeover: Tick,
}

impl Wait {
    /// All of it.
    pub fn total(&self) -> Tick {
        let Wait { travel, not_before, occupied, closed, too_short, unused, changeover } = self;
        travel + not_before + occupied + closed + too_short + unused + changeover
    }
}

/// One operation's machines, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpExplained {
    /// One entry a mode, in the instance's order.
    pub modes: Vec<ModeFate>,
    /// Where it stands; for a job that is left out, where it could; `None`: nowhere.
    pub place: Option<Place>,
}

/// What holds of an operation on a machine, whatever the other operations choose.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    /// The latest that it may begin for the rest to be done; `None`: never.
    latest_start: Option<Tick>,
    /// The latest that it may end.
    latest_end: Tick,
    /// The least that it and all that follows is charged.
    charge: Fen,
}

/// What is known once an operation's machines have been judged, by mode: its end and the charges up to it.
type Reached = Vec<Option<(Tick, Fen)>>;

/// Where a job stands or could stand, and the lines as they are then.
pub(super) struct Stands<'a> {
    pub(super) job: usize,
    pub(super) steps: &'a [Step],
    pub(super) lines: &'a Lines,
}

/// Judges every mode of every operation; `latest` is when the job has to end to be of use.
pub(super) fn explain_ops(base: &Case<'_>, latest: Tick, stands: Option<&Stands<'_>>) -> Vec<OpExplained> {
    let bounds = bounds(base, latest);
    let mut alone: Reached = Vec::new();
    let mut among: Reached = Vec::new();
    let mut explained = Vec::new();
    for (k, op) in base.job.ops.iter().enumerate() {
        let (mut next_alone, mut next_among) = (Vec::new(), Vec::new());
        let mut modes = Vec::new();
        for (i, mode) in op.modes.iter().enumerate() {
            let judged = Judged { base, k, mode, bounds: bounds[k][i] };
            let fate = judged.fate(arrival(base, k, mode, &alone), arrival(base, k, mode, &among));
            modes.push(ModeFate { machine: mode.machine, excluded: fate.excluded });
            next_alone.push(fate.alone);
            next_among.push(fate.among);
        }
        (alone, among) = (next_alone, next_among);
        explained.push(OpExplained { modes, place: stands.map(|stands| place(base, k, stands)) });
    }
    explained
}

/// Backwards over the operations: the latest starts and the least charges, on empty lines, without setups.
fn bounds(base: &Case<'_>, latest: Tick) -> Vec<Vec<Bounds>> {
    let (job, shop) = (&base.job, &base.shop);
    let mut all: Vec<Vec<Bounds>> = vec![Vec::new(); job.ops.len()];
    for (k, op) in job.ops.iter().enumerate().rev() {
        let of_mode = |mode: &Mode| {
            let here = shop.machines[mode.machine].plant;
            let mut bounds = Bounds { latest_end: latest, charge: mode.charge, ..Bounds::default() };
            if let Some(next) = job.ops.get(k + 1) {
                let there = |i: usize| shop.machines[next.modes[i].machine].plant;
                let starts = all[k + 1].iter().enumerate();
                let starts =
                    starts.filter_map(|(i, b)| Some(b.latest_start? - shop.transport[here][there(i)]));
                bounds.latest_end = starts.max().unwrap_or(-1);
                let rest = all[k + 1].iter().enumerate();
                let rest = rest.map(|(i, b)| b.charge + shop.transport_cost[here][there(i)]).min();
                bounds.charge += rest.unwrap_or(0);
            }
            bounds.latest_start = latest_start(base, k, mode, bounds.latest_end);
            bounds
        };
        all[k] = op.modes.iter().map(of_mode).collect();
    }
    all
}

/// The latest start at which the work ends by `end_max`.
fn latest_start(base: &Case<'_>, k: usize, mode: &Mode, end_max: Tick) -> Option<Tick> {
    let calendar = &base.shop.machines[mode.machine].calendar;
    let op = &base.job.ops[k];
    if let Some(fixed) = op.fixed {
        let end = calendar.finish(fixed.start, mode.duration, op.splittable)?;
        return (fixed.machine == mode.machine && end <= end_max).then_some(fixed.start);
    }
    calendar.latest(mode.duration, op.splittable, end_max).map(|(start, _)| start)
}

/// When the part can be at a mode's machine, and what the way there is charged at least.
fn arrival(base: &Case<'_>, k: usize, mode: &Mode, reached: &Reached) -> Option<(Tick, Fen)> {
    let (job, shop) = (&base.job, &base.shop);
    let there = shop.machines[mode.machine].plant;
    if k == 0 {
        let (time, trip) =
            job.origin.map_or((0, 0), |o| (shop.transport[o][there], shop.transport_cost[o][there]));
        return Some((job.release + time, trip));
    }
    let ways = job.ops[k - 1].modes.iter().zip(reached).filter_map(|(before, reached)| {
        let (end, charge) = (*reached)?;
        let here = shop.machines[before.machine].plant;
        Some((end + shop.transport[here][there], charge + shop.transport_cost[here][there]))
    });
    // The earliest and the cheapest may be different ways: both are bounds.
    ways.reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)))
}

/// A mode's fate, with its earliest end and least charge alone on the lines and among what stands there.
struct Fate {
    excluded: Option<Exclusion>,
    alone: Option<(Tick, Fen)>,
    among: Option<(Tick, Fen)>,
}

impl Fate {
    fn excluded(why: Exclusion) -> Fate {
        Fate { excluded: Some(why), alone: None, among: None }
    }
}

struct Judged<'c, 'a> {
    base: &'c Case<'a>,
    k: usize,
    mode: &'c Mode,
    bounds: Bounds,
}

impl Judged<'_, '_> {
    fn fate(&self, alone: Option<(Tick, Fen)>, among: Option<(Tick, Fen)>) -> Fate {
        let (op, mode) = (&self.base.job.ops[self.k], self.mode);
        let calendar = &self.base.shop.machines[mode.machine].calendar;
        if op.fixed.is_some_and(|fixed| fixed.machine != mode.machine) {
            return Fate::excluded(Exclusion::Frozen);
        }
        if calendar.earliest(0, mode.duration, op.splittable, Tick::MAX).is_none() {
            return Fate::excluded(Exclusion::NoWindow);
        }
        let Some((arrives, charge)) = alone else { return Fate::excluded(Exclusion::NotReached) };
        if self.base.job.budget.is_some_and(|budget| charge + self.bounds.charge > budget) {
            return Fate::excluded(Exclusion::OverBudget);
        }
        let fits = |from: Tick| match op.fixed {
            None => calendar.earliest(from, mode.duration, op.splittable, self.bounds.latest_end),
            Some(fixed) => {
                let end = calendar.finish(fixed.start, mode.duration, op.splittable);
                let in_time = end.filter(|&end| end <= self.bounds.latest_end && from <= fixed.start);
                in_time.map(|end| (fixed.start, end))
            }
        };
        let Some((_, end)) = fits(arrives.max(mode.earliest)) else {
            let why = match (fits(arrives), op.fixed) {
                (Some(_), _) => Exclusion::NotBefore,
                (None, Some(_)) => Exclusion::Frozen,
                (None, None) => Exclusion::TooLate,
            };
            return Fate::excluded(why);
        };
        let alone = Some((end, charge + mode.charge));
        let Some((arrives, charge)) = among else {
            return Fate { excluded: Some(Exclusion::NotReached), alone, among: None };
        };
        match self.first_gap(arrives.max(mode.earliest)) {
            Some(end) => Fate { excluded: None, alone, among: Some((end, charge + mode.charge)) },
            None => Fate { excluded: Some(Exclusion::Taken), alone, among: None },
        }
    }

    /// The end in the first gap from a tick on that holds the operation with its changeover and delays
    /// nobody, in time for the rest.
    fn first_gap(&self, from: Tick) -> Option<Tick> {
        let (shop, op, mode) = (&self.base.shop, &self.base.job.ops[self.k], self.mode);
        let line = self.base.lines.on(mode.machine);
        let calendar = &shop.machines[mode.machine].calendar;
        // Where an operation of the same job may share the gap, its family counts, not the neighbours'.
        let shared = (0..self.base.job.ops.len())
            .any(|k| k != self.k && self.base.job.ops[k].mode_on(mode.machine).is_some());
        let first = line.partition_point(|o| o.start <= from);
        for at in first..=line.len() {
            let before = at.checked_sub(1).map(|i| &line[i]);
            let open = before.map_or(from, |o| o.end.max(from));
            let close = line.get(at).map_or(Tick::MAX, |o| o.start).min(self.bounds.latest_end);
            let change = |o: &Occupation| shop.setup_ticks(mode.machine, Some(op.family), o.family as usize);
            if !shared && line.get(at).is_some_and(|o| change(o) > o.setup) {
                continue;
            }
            let setup = match shared {
                true => 0,
                false => shop.setup_ticks(mode.machine, before.map(|o| o.family as usize), op.family),
            };
            let work = setup + mode.duration;
            let span = match op.fixed {
                None => calendar.earliest(open, work, op.splittable, close),
                Some(fixed) if fixed.start < open => None,
                Some(fixed) => {
                    calendar.finish(fixed.start, work, op.splittable).map(|end| (fixed.start, end))
                }
            };
            if let Some((_, end)) = span.filter(|span| span.1 <= close) {
                return Some(end);
            }
        }
        None
    }
}

/// An operation's place, and the time before its work by cause.
fn place(base: &Case<'_>, k: usize, stands: &Stands<'_>) -> Place {
    let (shop, job, steps) = (&base.shop, &base.job, stands.steps);
    let step = steps[k];
    let machine = &shop.machines[step.machine];
    let (ready, here) = match k.checked_sub(1) {
        Some(i) => (steps[i].end, Some(shop.machines[steps[i].machine].plant)),
        None => (job.release, job.origin),
    };
    let travel = here.map_or(0, |here| shop.transport[here][machine.plant]);
    let op = &job.ops[k];
    let earliest = op.mode_on(step.machine).map_or(0, |mode| mode.earliest);
    let not_before = (earliest - ready - travel).max(0);
    let from = ready + travel + not_before;
    // Own operations occupy the line too, where the job comes back.
    let own = steps.iter().enumerate().filter(|(i, s)| *i != k && s.machine == step.machine);
    let others = stands.lines.on(step.machine).iter().filter(|o| o.key.job as usize != stands.job);
    let line = others.map(|o| (o.start, o.end));
    let mut busy: Vec<(Tick, Tick)> = line.chain(own.map(|(_, s)| (s.start, s.end))).collect();
    busy.sort_unstable();
    let mut wait = Wait { travel, not_before, ..Wait::default() };
    let mut at = from;
    for (start, end) in busy.into_iter().filter(|b| b.1 > from && b.0 < step.start) {
        wait.closed += closed(machine, at, start);
        wait.too_short += open(machine, at, start);
        wait.occupied += end.min(step.start) - start.max(from);
        at = end.max(at);
    }
    wait.closed += closed(machine, at, step.start);
    let free = open(machine, at, step.start);
    let work = op.mode_on(step.machine).map_or(0, |mode| mode.duration) + step.setup;
    let sooner = machine.calendar.earliest(at, work, op.splittable, step.end);
    match sooner.is_some_and(|sooner| sooner.0 < step.start) {
        true => wait.unused += free,
        false => wait.too_short += free,
    }
    let set_up = machine.calendar.finish(step.start, step.setup.max(1), true);
    wait.changeover = if step.setup > 0 { set_up.map_or(0, |end| end - step.start) } else { 0 };
    Place { machine: machine.id.clone(), start: step.start, end: step.end, wait }
}

fn open(machine: &crate::Machine, from: Tick, until: Tick) -> Tick {
    if until <= from {
        return 0;
    }
    machine.calendar.open_until(until) - machine.calendar.open_until(from)
}

fn closed(machine: &crate::Machine, from: Tick, until: Tick) -> Tick {
    (until - from).max(0) - open(machine, from, until)
}
