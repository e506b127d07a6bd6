//! Too much work for the open time of some machines between two ticks: a proof that promises clash, and one
//! that people understand.
//!
//! Counted is the work that has to be done wholly between the ticks, on those machines, by the bounds of
//! `windows`, with the least changeover there is. So what is overloaded is so in any company.

use std::collections::BTreeSet;

use super::Limits;
use crate::windows::windows;
use crate::{Instance, Job, Tick};

/// Machine sets looked at in one search.
const SETS_MAX: usize = 128;

/// Operations up to which room for whole pieces is counted, span by span.
const PIECES_MAX: usize = 32;

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// Open time.
    Time {
        /// How much of it is needed, in open ticks, changeovers at their least.
        needed: Tick,
        /// How long the machines are open together.
        open: Tick,
    },
    /// Windows for operations that may not pause.
    Room {
        /// How many of them there are.
        pieces: usize,
        /// How long each of them takes at least.
        least: Tick,
        /// How many the windows hold.
        room: usize,
    },
}

/// Work that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overload {
    /// Indices of the machines that alone can do it.
    pub machines: Vec<usize>,
    /// It cannot begin before.
    pub from: Tick,
    /// It has to be done by then.
    pub until: Tick,
    /// What there is too little of in between.
    pub short: Short,
    /// Whose work it is.
    pub(super) jobs: BTreeSet<usize>,
}

/// An operation's demand.
struct Demand {
    job: usize,
    machines: BTreeSet<usize>,
    from: Tick,
    until: Tick,
    work: Tick,
    splittable: bool,
}

/// The overload that concerns the fewest jobs, if there is one.
pub(super) fn find(instance: &Instance, limits: &Limits<'_>) -> Option<Overload> {
    let jobs = instance.jobs.iter().enumerate().take_while(|_| !limits.spent());
    let demands: Vec<Demand> = jobs.flat_map(|(j, job)| demands(instance, j, job)).collect();
    let mut best: Option<Overload> = None;
    for machines in machine_sets(&demands) {
        if limits.spent() {
            break;
        }
        let within: Vec<&Demand> = demands.iter().filter(|d| d.machines.is_subset(&machines)).collect();
        let crowded = crowded(instance, &machines, &within, limits);
        for found in [overload_on(instance, &machines, within, limits), crowded].into_iter().flatten() {
            if best.as_ref().is_none_or(|best| found.jobs.len() < best.jobs.len()) {
                best = Some(found);
            }
        }
    }
    best
}

/// What each operation asks for. One without a machine is no demand; its job fails alone.
fn demands(instance: &Instance, j: usize, job: &Job) -> Vec<Demand> {
    let latest = job.deadline.unwrap_or(instance.horizon).min(instance.horizon);
    let windows = windows(&instance.shop, job, latest);
    let mut demands = Vec::new();
    for (op, windows) in job.ops.iter().zip(&windows) {
        let mut demand = Demand {
            job: j,
            machines: BTreeSet::new(),
            from: Tick::MAX,
            until: 0,
            work: Tick::MAX,
            splittable: op.splittable,
        };
        for (mode, window) in op.modes.iter().zip(windows) {
            let Some(window) = window else { continue };
            let setup = instance.shop.least_setup(mode.machine, op.family);
            demand.machines.insert(mode.machine);
            demand.from = demand.from.min(window.start);
            demand.until = demand.until.max(window.latest_end);
            demand.work = demand.work.min(mode.duration + setup);
        }
        if !demand.machines.is_empty() {
            demands.push(demand);
        }
    }
    demands
}

/// The machine sets of the demands, unions of two of them, and all together.
fn machine_sets(demands: &[Demand]) -> Vec<BTreeSet<usize>> {
    let distinct: BTreeSet<&BTreeSet<usize>> = demands.iter().map(|d| &d.machines).collect();
    let mut sets: Vec<BTreeSet<usize>> = distinct.iter().map(|&set| set.clone()).collect();
    let pairs =
        distinct.iter().enumerate().flat_map(|(i, a)| distinct.iter().skip(i + 1).map(move |b| (a, b)));
    sets.extend(pairs.take(SETS_MAX).map(|(a, b)| a.union(b).copied().collect()));
    sets.push(demands.iter().flat_map(|d| d.machines.iter().copied()).collect());
    sets.dedup();
    sets.truncate(SETS_MAX);
    sets
}

/// The overload of these machines that concerns the fewest jobs, over all spans from a demand's beginning to
/// a demand's end.
fn overload_on(
    instance: &Instance,
    machines: &BTreeSet<usize>,
    mut demands: Vec<&Demand>,
    limits: &Limits<'_>,
) -> Option<Overload> {
    demands.sort_by_key(|d| d.until);
    let open_until = |t: Tick| -> Tick {
        machines.iter().map(|&m| instance.shop.machines[m].calendar.open_until(t)).sum()
    };
    let open_by_end: Vec<Tick> = demands.iter().map(|d| open_until(d.until)).collect();
    let froms: BTreeSet<Tick> = demands.iter().map(|d| d.from).collect();
    let mut best: Option<Overload> = None;
    for from in froms.into_iter().take_while(|_| !limits.spent()) {
        let open_before = open_until(from);
        let mut needed = 0;
        let short = demands.iter().zip(&open_by_end).position(|(d, open_by_end)| {
            needed += if d.from >= from { d.work } else { 0 };
            needed > 0 && needed > open_by_end - open_before
        });
        // Up to the first end that is short; up to later ends there are more jobs still.
        let Some(last) = short else { continue };
        let concerned = demands[..=last].iter().filter(|d| d.from >= from);
        let jobs: BTreeSet<usize> = concerned.map(|d| d.job).collect();
        if !jobs.is_empty() && best.as_ref().is_none_or(|best| jobs.len() < best.jobs.len()) {
            let (until, open) = (demands[last].until, open_by_end[last] - open_before);
            let (machines, short) = (machines.iter().copied().collect(), Short::Time { needed, open });
            best = Some(Overload { machines, from, until, short, jobs });
        }
    }
    best
}

/// The same for operations that may not pause: of pieces of some length or more, a window holds only so many
/// as go into it whole, whatever else its open time adds up to.
fn crowded(
    instance: &Instance,
    machines: &BTreeSet<usize>,
    demands: &[&Demand],
    limits: &Limits<'_>,
) -> Option<Overload> {
    let rigid: Vec<&Demand> = demands.iter().copied().filter(|d| !d.splittable).collect();
    if rigid.len() > PIECES_MAX {
        return None;
    }
    let froms: BTreeSet<Tick> = rigid.iter().map(|d| d.from).collect();
    let untils: BTreeSet<Tick> = rigid.iter().map(|d| d.until).collect();
    let lengths: BTreeSet<Tick> = rigid.iter().map(|d| d.work).collect();
    let spans = froms.iter().flat_map(|&from| untils.iter().map(move |&until| (from, until)));
    let mut best: Option<Overload> = None;
    for (from, until) in spans.filter(|span| span.0 < span.1).take_while(|_| !limits.spent()) {
        for &least in &lengths {
            let whole = |d: &&&Demand| d.from >= from && d.until <= until && d.work >= least;
            let concerned: Vec<&&Demand> = rigid.iter().filter(whole).collect();
            let jobs: BTreeSet<usize> = concerned.iter().map(|d| d.job).collect();
            if jobs.is_empty() || best.as_ref().is_some_and(|best| best.jobs.len() <= jobs.len()) {
                continue;
            }
            let (pieces, room) = (concerned.len(), room(instance, machines, (from, until), least));
            if pieces > room {
                let machines = machines.iter().copied().collect();
                best = Some(Overload {
                    machines,
                    from,
                    until,
                    short: Short::Room { pieces, least, room },
                    jobs,
                });
            }
        }
    }
    best
}

/// How many pieces of a length the machines' windows hold between two ticks.
fn room(instance: &Instance, machines: &BTreeSet<usize>, (from, until): (Tick, Tick), length: Tick) -> usize {
    let windows = machines.iter().flat_map(|&m| instance.shop.machines[m].calendar.windows());
    let pieces = windows.map(|&(open, close)| (close.min(until) - open.max(from)).max(0) / length);
    pieces.sum::<Tick>() as usize
}
