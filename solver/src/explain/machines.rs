//! Which machines are ruled out for each operation, and what each operation waits for.
//!
//! Of each mode it is asked what holds whatever the other operations choose: the earliest its part can be
//! there, the latest it may end for the rest to be done, the least that the rest is charged. So a mode that
//! is said to be ruled out is, and one that is said to be usable may still fail in company.

use super::relax::Case;
use crate::resource::Span;
use crate::windows::{Rest, arrival, earliest_span, rests};
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
    /// There is a gap for it in time, but not while all that it needs besides is there and free.
    Lacking,
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
    /// The machine is open and free for long enough, but something else that the operation needs is taken or away.
    pub lacking: Tick,
    /// The machine could have begun already.
    pub unused: Tick,
    /// The changeover, pauses included.
    pub changeover: Tick,
}

impl Wait {
    /// All of it.
    pub fn total(&self) -> Tick {
        let Wait { travel, not_before, occupied, closed, too_short, lacking, unused, changeover } = self;
        travel + not_before + occupied + closed + too_short + lacking + unused + changeover
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
    let rests = rests(&base.shop, &base.job, latest);
    let mut alone: Reached = Vec::new();
    let mut among: Reached = Vec::new();
    let mut explained = Vec::new();
    for (k, op) in base.job.ops.iter().enumerate() {
        let (mut next_alone, mut next_among) = (Vec::new(), Vec::new());
        let arrival = |machine, before: &Reached| arrival(&base.shop, &base.job, k, machine, before);
        let mut modes = Vec::new();
        for (i, mode) in op.modes.iter().enumerate() {
            let judged = Judged { base, k, mode, rest: rests[k][i] };
            let fate = judged.fate(arrival(mode.machine, &alone), arrival(mode.machine, &among));
            modes.push(ModeFate { machine: mode.machine, excluded: fate.excluded });
            next_alone.push(fate.alone);
            next_among.push(fate.among);
        }
        (alone, among) = (next_alone, next_among);
        explained.push(OpExplained { modes, place: stands.map(|stands| place(base, k, stands)) });
    }
    explained
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
    rest: Rest,
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
        if self.base.job.budget.is_some_and(|budget| charge + self.rest.charge > budget) {
            return Fate::excluded(Exclusion::OverBudget);
        }
        let fits = |from: Tick| earliest_span(&self.base.shop, op, mode, from, self.rest.latest_end);
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
        let from = arrives.max(mode.earliest);
        match self.first_gap(from, op.needs) {
            Some(end) => Fate { excluded: None, alone, among: Some((end, charge + mode.charge)) },
            None => {
                let lacks = op.needs != 0 && self.first_gap(from, 0).is_some();
                let why = if lacks { Exclusion::Lacking } else { Exclusion::Taken };
                Fate { excluded: Some(why), alone, among: None }
            }
        }
    }

    /// The end in the first gap from a tick on that holds the operation with its changeover and delays
    /// nobody, in time for the rest, with these needs.
    fn first_gap(&self, from: Tick, needs: usize) -> Option<Tick> {
        let (shop, op, mode) = (&self.base.shop, &self.base.job.ops[self.k], self.mode);
        let line = self.base.lines.on(mode.machine);
        let usage = self.base.lines.usage();
        // Where an operation of the same job may share the gap, its family counts, not the neighbours'.
        let shared = (0..self.base.job.ops.len())
            .any(|k| k != self.k && self.base.job.ops[k].mode_on(mode.machine).is_some());
        let first = line.partition_point(|o| o.start <= from);
        for at in first..=line.len() {
            let before = at.checked_sub(1).map(|i| &line[i]);
            let open = before.map_or(from, |o| o.end.max(from));
            let close = line.get(at).map_or(Tick::MAX, |o| o.start).min(self.rest.latest_end);
            let change = |o: &Occupation| shop.setup_ticks(mode.machine, Some(op.family), o.family as usize);
            if !shared && line.get(at).is_some_and(|o| change(o) > o.setup) {
                continue;
            }
            let setup = match shared {
                true => 0,
                false => shop.setup_ticks(mode.machine, before.map(|o| o.family as usize), op.family),
            };
            let (machine, work, splittable) = (mode.machine, mode.duration, op.splittable);
            let occupation = Span { machine, needs, setup, work, splittable };
            let span = match op.fixed {
                None => usage.earliest(shop, &occupation, open, close),
                Some(fixed) if fixed.start < open => None,
                Some(fixed) => usage.end_at(shop, &occupation, fixed.start).map(|end| (fixed.start, end)),
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
    let work = op.mode_on(step.machine).map_or(0, |mode| mode.duration);
    let span =
        Span { machine: step.machine, needs: op.needs, setup: step.setup, work, splittable: op.splittable };
    // Whether the machine alone would have let it begin in a gap.
    let fits = |at: Tick, until: Tick| {
        machine
            .calendar
            .earliest(at, span.setup + work, op.splittable, until)
            .is_some_and(|s| s.0 < step.start)
    };
    for (start, end) in busy.into_iter().filter(|b| b.1 > from && b.0 < step.start) {
        wait.closed += closed(machine, at, start);
        match op.needs != 0 && fits(at, start) {
            true => wait.lacking += open(machine, at, start),
            false => wait.too_short += open(machine, at, start),
        }
        wait.occupied += end.min(step.start) - start.max(from);
        at = end.max(at);
    }
    wait.closed += closed(machine, at, step.start);
    let free = open(machine, at, step.start);
    let sooner = base.lines.usage().earliest(shop, &span, at, step.end);
    if sooner.is_some_and(|sooner| sooner.0 < step.start) {
        wait.unused += free;
    } else if fits(at, step.end) {
        wait.lacking += free;
    } else {
        wait.too_short += free;
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
