//! The placement search with one thing relaxed, everything else standing still.
//!
//! "Standing still" is meant to the tick: other work is a span on its machine, with the changeover it
//! begins with. A relaxation changes what the job at hand meets, and gives nothing to others.

use std::borrow::Cow;

use super::{Ends, Verdict};
use crate::place::{Cost, Placement, Placer, Query};
use crate::{Calendar, Fen, Instance, Job, Lines, SetupMatrix, Shop, Tick};

/// What may bind a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Constraint {
    /// Some of the job's own operations are frozen.
    Freeze,
    /// It must end by its deadline.
    Deadline,
    /// It may not be charged more than its budget.
    Budget,
    /// It may not begin before its release.
    Release,
    /// Machines take it only from a certain tick on.
    Earliest,
    /// Operations that may not pause while a machine is closed.
    Pausing,
    /// Machines are closed at times.
    Calendar,
    /// Changeovers take time and money.
    Setup,
    /// The part travels between plants.
    Transport,
    /// Operations need more than a machine: a fixture, an operator.
    Resources,
    /// Work that is neither promised nor frozen stands in the way.
    OptionalWork,
    /// Any other work stands in the way.
    Capacity,
}

impl Constraint {
    /// All of them. Where two help alike, the one that is named first is said to bind; so promises are
    /// blamed only where optional work alone is not in the way.
    pub const ALL: [Constraint; 12] = [
        Constraint::Freeze,
        Constraint::Deadline,
        Constraint::Budget,
        Constraint::Release,
        Constraint::Earliest,
        Constraint::Pausing,
        Constraint::Calendar,
        Constraint::Setup,
        Constraint::Transport,
        Constraint::Resources,
        Constraint::OptionalWork,
        Constraint::Capacity,
    ];
}

/// What could be had without one constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relaxed {
    /// The constraint left out.
    pub constraint: Constraint,
    /// The earliest and the cheapest without it; `None`: no place even so.
    pub ends: Option<Ends>,
    /// Whether that is better than with it.
    pub helps: bool,
}

/// One question to the placer: a shop, what stands on its lines, a job.
#[derive(Clone)]
pub(super) struct Case<'a> {
    pub(super) instance: &'a Instance,
    pub(super) shop: Cow<'a, Shop>,
    pub(super) lines: Cow<'a, Lines>,
    pub(super) job: Cow<'a, Job>,
}

impl<'a> Case<'a> {
    pub(super) fn new(instance: &'a Instance, lines: &'a Lines, job: &'a Job) -> Case<'a> {
        let (shop, lines, job) = (Cow::Borrowed(&instance.shop), Cow::Borrowed(lines), Cow::Borrowed(job));
        Case { instance, shop, lines, job }
    }

    /// The Pareto-optimal placements, earliest first.
    pub(super) fn front(&self, placer: &mut Placer) -> Vec<Placement> {
        self.front_below(placer, Fen::MAX)
    }

    /// Those that cost less than `limit`.
    pub(super) fn front_below(&self, placer: &mut Placer, limit: Fen) -> Vec<Placement> {
        placer.search(&Query { limit, ..Query::new(&self.shop, &self.lines, &self.job, Cost::Plan) });
        placer.finals.iter().map(|&label| placer.placement(label)).collect()
    }

    /// Whether the constraint is one at all for this job.
    fn has(&self, constraint: Constraint) -> bool {
        let job = &self.job;
        let mut modes = job.ops.iter().flat_map(|op| &op.modes);
        match constraint {
            Constraint::Freeze => job.ops.iter().any(|op| op.fixed.is_some()),
            Constraint::Deadline => job.deadline.is_some(),
            Constraint::Budget => job.budget.is_some(),
            Constraint::Release => job.release > 0,
            Constraint::Earliest => modes.any(|mode| mode.earliest > 0),
            Constraint::Pausing => job.ops.iter().any(|op| !op.splittable),
            Constraint::Transport => self.shop.transport.iter().flatten().any(|&t| t > 0),
            Constraint::Resources => self.needs_resources(),
            Constraint::Calendar | Constraint::Setup => true,
            Constraint::OptionalWork | Constraint::Capacity => {
                self.in_the_way().into_iter().any(|m| !self.lines.on(m).is_empty())
            }
        }
    }

    /// The same question without the constraint.
    pub(super) fn without(&self, constraint: Constraint) -> Case<'a> {
        let mut case = self.clone();
        match constraint {
            Constraint::Freeze => case.job.to_mut().ops.iter_mut().for_each(|op| op.fixed = None),
            Constraint::Deadline => case.job.to_mut().deadline = None,
            Constraint::Budget => case.job.to_mut().budget = None,
            Constraint::Release => case.job.to_mut().release = 0,
            Constraint::Earliest => {
                let modes = case.job.to_mut().ops.iter_mut().flat_map(|op| &mut op.modes);
                modes.for_each(|mode| mode.earliest = 0);
            }
            Constraint::Pausing => case.job.to_mut().ops.iter_mut().for_each(|op| op.splittable = true),
            Constraint::Calendar => {
                let always = Calendar::always(self.instance.horizon);
                case.shop.to_mut().machines.iter_mut().for_each(|m| m.calendar.clone_from(&always));
            }
            Constraint::Setup => case.free_setups(),
            Constraint::Transport => {
                case.shop.to_mut().transport.iter_mut().flatten().for_each(|t| *t = 0);
            }
            Constraint::Resources => case.job.to_mut().ops.iter_mut().for_each(|op| op.needs = 0),
            Constraint::OptionalWork => {
                let jobs = &self.instance.jobs;
                case.keep_on_lines(|o| o.fixed || jobs[o.key.job as usize].rejection_cost.is_none());
            }
            Constraint::Capacity => case.keep_on_lines(|_| false),
        }
        case
    }

    /// No changeover for this job, and none saved or caused for another.
    fn free_setups(&mut self) {
        for matrix in &mut self.shop.to_mut().setups {
            *matrix = SetupMatrix::free(matrix.families());
        }
        for m in self.machines() {
            self.lines.to_mut().edit(&self.shop, m, |line| line.iter_mut().for_each(|o| o.setup = 0));
        }
    }

    fn needs_resources(&self) -> bool {
        self.job.ops.iter().any(|op| op.needs != 0)
    }

    /// The machines on which other work could be in the way: those that the job could use, and every one where it
    /// needs what work elsewhere may hold.
    fn in_the_way(&self) -> Vec<usize> {
        if self.needs_resources() { (0..self.lines.machines()).collect() } else { self.machines() }
    }

    /// Clears the machines on which others could be in the way of all but the work named.
    pub(super) fn keep_on_lines(&mut self, keep: impl Fn(&crate::Occupation) -> bool) {
        for m in self.in_the_way() {
            self.lines.to_mut().edit(&self.shop, m, |line| line.retain(|o| keep(o)));
        }
    }

    /// The machines that the job could use.
    fn machines(&self) -> Vec<usize> {
        let modes = self.job.ops.iter().flat_map(|op| &op.modes);
        let mut machines: Vec<usize> = modes.map(|mode| mode.machine).collect();
        machines.sort_unstable();
        machines.dedup();
        machines
    }
}

/// How bad the best of a front is: no place, then lateness where that is what hurts, then cost.
fn merit(verdict: Verdict, front: &[Placement]) -> (bool, Tick, Fen) {
    let late = |p: &Placement| match verdict {
        Verdict::Late { due, .. } => (p.completion - due).max(0),
        _ => 0,
    };
    let best = front.iter().map(|p| (late(p), p.cost)).min();
    (best.is_none(), best.map_or(0, |b| b.0), best.map_or(0, |b| b.1))
}

/// What could be had without each of the constraints that the job has, the most binding first.
pub(super) fn each_relaxed(
    base: &Case<'_>,
    verdict: Verdict,
    as_is: &[Placement],
    placer: &mut Placer,
) -> Vec<Relaxed> {
    let stands = merit(verdict, as_is);
    let mut ranked = Vec::new();
    for constraint in Constraint::ALL.into_iter().filter(|&c| base.has(c)) {
        let front = base.without(constraint).front(placer);
        let merit = merit(verdict, &front);
        ranked.push((merit, Relaxed { constraint, ends: Ends::of(&front), helps: merit < stands }));
    }
    ranked.sort_by_key(|(merit, relaxed)| (!relaxed.helps, *merit, relaxed.constraint));
    ranked.into_iter().map(|(_, relaxed)| relaxed).collect()
}
