//! Promises that cannot be kept together: a set of them that is as small as can be shown.
//!
//! Around a job that found no place, the promised and frozen jobs that crowd it most are added until they
//! clash; then each is left out in turn and stays out if the rest still clash. `decide` says whether jobs
//! clash: by proof where one is found, too much work for the open time of some machines (`overload`) or
//! enumeration (`exact`). That they do not is shown by a plan. Where neither comes in time, they are taken to
//! clash, and that is said not to be proven.
//!
//! Jobs that clash alone may go together in company: another's changeover can bring a machine to the family
//! that one of them needs, before it opens for it. So it is tried whether more of them go together, and a
//! clash that stands with every changeover at its least, and hence in any company, is told from one that does
//! not.

mod decide;
mod exact;
mod overload;

use std::cmp::Reverse;
use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use overload::{Overload, Short};

use crate::explain::text::{Clock, Money, listed};
use crate::explain::{Constraint, alone_without};
use crate::state::{Chain, State};
use crate::{Fen, Fixed, Instance, Job, Op, Tick};
use decide::{Proof, Verdict, decide, overloaded, usable};

/// The most that finding a conflict may take.
const TIME_MAX: Duration = Duration::from_secs(5);
/// The same as a share of the solver's time, which is over by then.
const TIME_SHARE: f64 = 0.03;
/// The most jobs looked at around one that found no place.
const JOBS_MAX: usize = 512;
/// How many jobs are tried together where fewer clash alone, but perhaps not in company.
const REFUTING_MAX: usize = 8;
/// The most jobs named of a set that is not proven to clash.
const SHOWN_MAX: usize = 8;

/// What is short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The open time of some machines, whoever else is there.
    OpenTime(Overload),
    /// One job cannot be kept even alone; it could without this one of its own or its machines' terms. For
    /// a deadline that is when it would end, for a budget what it would be charged.
    Alone {
        /// What rules it out; `None`: no single thing.
        constraint: Option<Constraint>,
        /// When it would end at the earliest without.
        completion: Tick,
        /// What it would be charged then.
        charge: Fen,
    },
}

/// Promised or frozen jobs that cannot be kept together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Their indices.
    pub jobs: Vec<usize>,
    /// Their ids.
    pub ids: Vec<String>,
    /// Whether it is certain that no plan of these jobs alone keeps them all. If not, a search found none.
    pub proven: bool,
    /// Whether that is as certain of plans with other jobs beside them. If not, another's changeover might
    /// make room.
    pub in_any_company: bool,
    /// Whether it is certain that the rest can be kept, all others left out, whichever one of them is given up.
    pub minimal: bool,
    /// What is short, where that can be put into one sentence.
    pub shortage: Option<Shortage>,
    /// The ids of the machines that are short.
    pub machines: Vec<String>,
    /// Length of a tick in seconds, for the text.
    pub tick_seconds: i64,
}

impl Display for Conflict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let shown = if self.proven { self.ids.len() } else { SHOWN_MAX };
        let mut ids: Vec<&str> = self.ids.iter().map(String::as_str).take(shown).collect();
        let more = format!("{} more", self.ids.len() - ids.len());
        if self.ids.len() > ids.len() {
            ids.push(&more);
        }
        let clash = match (ids.len(), self.proven) {
            (1, true) if self.in_any_company => "cannot be kept, even alone",
            (1, true) => "cannot be kept alone",
            (1, false) => "found no place",
            (_, true) if self.in_any_company => "cannot be kept together",
            (_, true) => "cannot be kept together without others beside them",
            (_, false) => "were not kept together by any plan that was tried",
        };
        write!(f, "{} {clash}", listed(&ids, "and"))?;
        if self.minimal && ids.len() > 1 {
            write!(f, "; without any one of them the others can")?;
        }
        let clock = Clock { tick_seconds: self.tick_seconds };
        match &self.shortage {
            Some(Shortage::OpenTime(overload)) => self.overload(f, clock, overload),
            Some(Shortage::Alone { constraint, completion, charge }) => {
                let end = clock.at(*completion);
                match constraint {
                    Some(Constraint::Deadline) => {
                        write!(f, ": it ends on {end} at the earliest, after its deadline")
                    }
                    Some(Constraint::Budget) => {
                        write!(f, ": it is charged {} at least, more than its budget", Money(*charge))
                    }
                    Some(Constraint::Release | Constraint::Calendar) => {
                        write!(f, ": from its release on its machines are not open for long enough")
                    }
                    Some(constraint) => write!(f, ": what rules it out is {}", constraint.name()),
                    None => write!(f, ": no single term rules it out"),
                }
            }
            None => Ok(()),
        }
    }
}

impl Conflict {
    fn overload(&self, f: &mut Formatter<'_>, clock: Clock, o: &Overload) -> fmt::Result {
        let machines: Vec<&str> = self.machines.iter().map(String::as_str).collect();
        let (from, until) = (clock.at(o.from), clock.at(o.until));
        let on = format!("on {} between {from} and {until}", listed(&machines, "and"));
        match o.short {
            Short::Time { needed, open } => {
                let verb = if machines.len() == 1 { "is" } else { "are together" };
                let (needed, open) = (clock.span(needed), clock.span(open));
                write!(f, ": they need {needed} {on}, which {verb} open for {open}")
            }
            Short::Room { pieces, least, room } => {
                let least = clock.span(least);
                write!(
                    f,
                    ": they need {pieces} times {least} or more without a pause {on}, where there is room for {room}"
                )
            }
        }
    }
}

/// When to stop.
pub(crate) struct Limits<'a> {
    until: Instant,
    cancel: &'a AtomicBool,
}

impl<'a> Limits<'a> {
    /// A share of the time that the solver had, where its time was limited.
    pub(crate) fn after(time_limit: Option<Duration>, cancel: &'a AtomicBool) -> Limits<'a> {
        let time = time_limit.map_or(TIME_MAX, |limit| limit.mul_f64(TIME_SHARE).min(TIME_MAX));
        Limits { until: Instant::now() + time, cancel }
    }

    fn spent(&self) -> bool {
        self.cancel.load(Ordering::Relaxed) || Instant::now() >= self.until
    }
}

/// What came of looking for a conflict.
pub(crate) enum Found {
    /// A conflict.
    Conflict(Conflict),
    /// None: all promised and frozen jobs can be kept, at these places.
    Kept(Vec<Chain>),
}

/// Looks for a smallest conflict around the jobs that a state has found no place for.
pub(crate) fn find(state: &State<'_>, missing: &[usize], limits: &Limits<'_>) -> Found {
    let instance = state.instance;
    let bound: Vec<usize> = (0..instance.jobs.len()).filter(|&j| is_bound(&instance.jobs[j])).collect();
    let mut best: Option<Set> = None;
    for &job in missing {
        let around = around(instance, job, &bound);
        let set = match grown(instance, &around, limits) {
            Grown::Clash(set) => shrunk(instance, set, limits),
            Grown::Kept(chains) if chains.len() == bound.len() => {
                return Found::Kept(spread(instance, &around, chains));
            }
            Grown::Kept(_) | Grown::Open => {
                Set { jobs: vec![job], verdict: Verdict::Unknown, minimal: false }
            }
        };
        let rank =
            |set: &Set| (!set.is_proven_in_any_company(), !set.is_proven(), !set.minimal, set.jobs.len());
        if best.as_ref().is_none_or(|best| rank(&set) < rank(best)) {
            best = Some(set);
        }
        if limits.spent() || best.as_ref().is_some_and(|set| set.is_proven_in_any_company() && set.minimal) {
            break;
        }
    }
    let set = best.unwrap_or(Set { jobs: missing.to_vec(), verdict: Verdict::Unknown, minimal: false });
    Found::Conflict(told(instance, set))
}

/// Promised, or frozen: not to be left out.
fn is_bound(job: &Job) -> bool {
    job.rejection_cost.is_none() || job.ops.iter().any(|op| op.fixed.is_some())
}

/// Jobs, and what is known of them.
struct Set {
    jobs: Vec<usize>,
    verdict: Verdict,
    minimal: bool,
}

impl Set {
    fn is_proven(&self) -> bool {
        matches!(self.verdict, Verdict::Impossible(_))
    }

    fn is_proven_in_any_company(&self) -> bool {
        self.verdict.in_any_company()
    }
}

enum Grown {
    Clash(Set),
    Kept(Vec<Vec<Fixed>>),
    Open,
}

/// The job, then the bound jobs that may be in its way, the likeliest first: those that have to do most of
/// their work when and where it could run, then those that may be in the way of these, then the rest.
fn around(instance: &Instance, job: usize, bound: &[usize]) -> Vec<usize> {
    let (spec, machines) = (&instance.jobs[job], instance.shop.machines.len());
    let near = usable(machines, [spec]);
    let could = |usable: &[bool], j: usize| {
        instance.jobs[j].ops.iter().flat_map(|op| &op.modes).any(|mode| usable[mode.machine])
    };
    let ring = bound.iter().filter(|&&j| could(&near, j)).map(|&j| &instance.jobs[j]);
    let wide = usable(machines, ring);
    let others = bound.iter().copied().filter(|&j| j != job);
    let mut ranked: Vec<_> = others
        .map(|j| {
            let crowding = crowding(instance, &near, spec, &instance.jobs[j]);
            (Reverse(crowding), !could(&near, j), !could(&wide, j), j)
        })
        .collect();
    ranked.sort_unstable();
    std::iter::once(job).chain(ranked.into_iter().map(|rank| rank.3)).take(JOBS_MAX).collect()
}

/// How much of a job's work on some machines falls into the time that another job has, if it is spread evenly
/// over its own.
fn crowding(instance: &Instance, near: &[bool], spec: &Job, other: &Job) -> i128 {
    let span = |job: &Job| (job.release, job.deadline.unwrap_or(instance.horizon).max(job.release + 1));
    let (has, other_has) = (span(spec), span(other));
    let common = (has.1.min(other_has.1) - has.0.max(other_has.0)).max(0);
    let on_them = |op: &Op| {
        let modes = op.modes.iter().filter(|mode| near[mode.machine]);
        let least = modes.clone().map(|mode| mode.duration).min().unwrap_or(0);
        i128::from(least) * modes.count() as i128 / op.modes.len() as i128
    };
    let work: i128 = other.ops.iter().map(on_them).sum();
    1000 * work * i128::from(common) / i128::from(other_has.1 - other_has.0)
}

/// Twice as many jobs each time, until they clash in any company; else the fewest that clash alone, or that
/// may clash.
fn grown(instance: &Instance, around: &[usize], limits: &Limits<'_>) -> Grown {
    let mut grown = Grown::Open;
    let mut count = 1;
    while !limits.spent() {
        count = count.min(around.len());
        let jobs = around[..count].to_vec();
        let verdict = decide(instance, &jobs, limits);
        let is_known = matches!(&grown, Grown::Clash(set) if set.is_proven());
        let is_last = count == around.len() || (is_known && count >= REFUTING_MAX);
        match verdict {
            // Whatever fewer were thought to do, more of them are kept.
            Verdict::Kept(chains) => grown = Grown::Kept(chains),
            verdict if verdict.in_any_company() => {
                return Grown::Clash(Set { jobs, verdict, minimal: false });
            }
            Verdict::Impossible(_) if is_known => {}
            Verdict::Unknown if matches!(grown, Grown::Clash(_)) => {}
            verdict => grown = Grown::Clash(Set { jobs, verdict, minimal: false }),
        }
        if is_last {
            break;
        }
        if count == 1
            && let Some(overload) = overloaded(instance, around, limits)
        {
            let verdict = Verdict::Impossible(Proof::Overload(overload));
            return Grown::Clash(Set { jobs: around.to_vec(), verdict, minimal: false });
        }
        count *= 2;
    }
    grown
}

/// Leaves jobs out one by one, as long as the rest clash. Again and again until none can go: a job that is
/// left out may take a changeover with it that another needed.
fn shrunk(instance: &Instance, mut set: Set, limits: &Limits<'_>) -> Set {
    narrow(&mut set);
    loop {
        let before = set.jobs.len();
        let mut all_kept = true;
        for job in set.jobs.clone().into_iter().rev() {
            if set.jobs.len() == 1 || !set.jobs.contains(&job) {
                continue;
            }
            let rest: Vec<usize> = set.jobs.iter().copied().filter(|&j| j != job).collect();
            match decide(instance, &rest, limits) {
                Verdict::Kept(_) => {}
                // A proof is not given up for a doubt.
                Verdict::Unknown if set.is_proven() || limits.spent() => all_kept = false,
                verdict => {
                    set = Set { jobs: rest, verdict, minimal: false };
                    narrow(&mut set);
                }
            }
        }
        if set.jobs.len() == before {
            set.minimal = all_kept;
            return set;
        }
        if limits.spent() {
            return set;
        }
    }
}

/// Down to the jobs that an overload concerns: it stands without the others.
fn narrow(set: &mut Set) {
    if let Verdict::Impossible(Proof::Overload(overload)) = &set.verdict {
        set.jobs.retain(|j| overload.jobs.contains(j));
    }
}

/// Chains of some jobs as chains of all.
fn spread(instance: &Instance, jobs: &[usize], chains: Vec<Vec<Fixed>>) -> Vec<Chain> {
    let mut all: Vec<Chain> = vec![None; instance.jobs.len()];
    jobs.iter().zip(chains).for_each(|(&j, chain)| all[j] = Some(chain));
    all
}

fn told(instance: &Instance, mut set: Set) -> Conflict {
    set.jobs.sort_unstable();
    let (proven, in_any_company) = (set.is_proven(), set.is_proven_in_any_company());
    let shortage = match set.verdict {
        Verdict::Impossible(Proof::Overload(overload)) if set.jobs.len() > 1 => {
            Some(Shortage::OpenTime(overload))
        }
        Verdict::Impossible(_) if set.jobs.len() == 1 => Some(alone(instance, &instance.jobs[set.jobs[0]])),
        _ => None,
    };
    let machines = match &shortage {
        Some(Shortage::OpenTime(overload)) => overload.machines.as_slice(),
        _ => &[],
    };
    Conflict {
        ids: set.jobs.iter().map(|&j| instance.jobs[j].id.clone()).collect(),
        machines: machines.iter().map(|&m| instance.shop.machines[m].id.clone()).collect(),
        jobs: set.jobs,
        proven,
        in_any_company,
        minimal: proven && set.minimal,
        shortage,
        tick_seconds: instance.tick_seconds,
    }
}

/// What of its own and its machines' terms rules a job out: the first that it could be kept without.
fn alone(instance: &Instance, job: &Job) -> Shortage {
    let terms = [
        Constraint::Deadline,
        Constraint::Budget,
        Constraint::Pausing,
        Constraint::Earliest,
        Constraint::Freeze,
        Constraint::Setup,
        Constraint::Transport,
        Constraint::Resources,
        Constraint::Release,
        Constraint::Calendar,
    ];
    let ways = terms.into_iter().map(|constraint| (constraint, alone_without(instance, job, constraint)));
    let mut ways = ways.filter(|(_, front)| !front.is_empty());
    let Some((constraint, front)) = ways.next() else {
        return Shortage::Alone { constraint: None, completion: 0, charge: 0 };
    };
    let completion = front.iter().map(|p| p.completion).min().unwrap_or(0);
    let charge = front.iter().map(|p| p.charge).min().unwrap_or(0);
    Shortage::Alone { constraint: Some(constraint), completion, charge }
}

#[cfg(test)]
mod tests;
