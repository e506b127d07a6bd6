//! The smallest change that suffices, of each kind.
//!
//! A change of one number is monotone: more of it only adds placements. So the least amount is read off
//! the front where the front holds it (a later deadline, a higher worth), and bisected for with the search
//! itself where it does not.

use std::collections::BTreeSet;

use super::relax::{Case, Constraint};
use super::{Goal, Outcome, cheapest};
use crate::place::{Placement, Placer};
use crate::{Fen, Tick};

/// How many ways in which others could give up their places are tried.
const WAYS_MAX: usize = 8;

/// Something that would have to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The deadline this much later.
    DeadlineLater(Tick),
    /// This much more budget.
    BudgetMore(Fen),
    /// The release this much earlier.
    ReleaseEarlier(Tick),
    /// Machines that take it this much earlier than they say.
    MachinesEarlier(Tick),
    /// These operations may pause while their machine is closed.
    MayPause(Vec<usize>),
    /// The frozen operations of the job itself may move.
    Thaw,
    /// Machines open over spans in which they are closed.
    Overtime(Vec<Overtime>),
    /// Other work that gives up its place.
    OthersGiveWay {
        /// How many jobs that concerns.
        jobs: usize,
        /// How many of them are promised or frozen.
        promised: usize,
    },
    /// Leaving it out would have to cost this much more before it is taken.
    WorthMore(Fen),
}

/// A span over which a closed machine would have to be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overtime {
    /// Index of the machine.
    pub machine: usize,
    /// Its name.
    pub name: String,
    /// From when.
    pub from: Tick,
    /// Until when.
    pub until: Tick,
}

/// Changes that suffice together, and what they bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relaxation {
    /// What would have to give; more than one only where no single change suffices.
    pub changes: Vec<Change>,
    /// The place that it would bring.
    pub outcome: Outcome,
}

impl Relaxation {
    fn one(change: Change, p: &Placement) -> Relaxation {
        Relaxation { changes: vec![change], outcome: Outcome::of(p) }
    }
}

/// All that would suffice for a goal that is out of reach, the one with the cheapest plan first.
pub(super) fn relaxations(base: &Case<'_>, goal: Goal, placer: &mut Placer) -> Vec<Relaxation> {
    let mut finder = Finder { base, goal, placer };
    let mut found: Vec<Relaxation> = finder.deadline().into_iter().collect();
    found.extend(finder.budget());
    found.extend(finder.release());
    found.extend(finder.machines_earlier());
    found.extend(finder.pausing());
    found.extend(finder.thaw());
    found.extend(finder.overtime());
    found.extend(finder.others_give_way());
    found.extend(finder.worth());
    if found.is_empty() {
        found.extend(finder.terms());
    }
    found.sort_by_key(|r| (r.outcome.cost, r.outcome.completion));
    found
}

struct Finder<'f, 'a> {
    base: &'f Case<'a>,
    goal: Goal,
    placer: &'f mut Placer,
}

impl<'a> Finder<'_, 'a> {
    /// The placements of a case that meet the goal.
    fn meeting(&mut self, case: &Case<'a>) -> Vec<Placement> {
        let mut front = case.front_below(self.placer, self.goal.cost_below);
        front.retain(|p| self.goal.is_met(p));
        front
    }

    fn deadline(&mut self) -> Option<Relaxation> {
        let deadline = self.base.job.deadline?;
        let front = self.meeting(&self.base.without(Constraint::Deadline));
        // The earliest that meets the goal needs the least; with the deadline there, it is the cheapest too.
        let p = front.first().filter(|p| p.completion > deadline)?;
        Some(Relaxation::one(Change::DeadlineLater(p.completion - deadline), p))
    }

    fn budget(&mut self) -> Option<Relaxation> {
        let budget = self.base.job.budget?;
        let free = self.meeting(&self.base.without(Constraint::Budget));
        let enough = free.iter().map(|p| p.charge).min()?;
        let (least, p) = self.least(budget, enough, |case, least| case.job.to_mut().budget = Some(least))?;
        Some(Relaxation::one(Change::BudgetMore(least - budget), &p))
    }

    fn release(&mut self) -> Option<Relaxation> {
        let release = self.base.job.release;
        let (least, p) = self.least(0, release, |case, by| case.job.to_mut().release = release - by)?;
        Some(Relaxation::one(Change::ReleaseEarlier(least), &p))
    }

    fn machines_earlier(&mut self) -> Option<Relaxation> {
        let modes = self.base.job.ops.iter().flat_map(|op| &op.modes);
        let most = modes.map(|mode| mode.earliest).max().unwrap_or(0);
        let (least, p) = self.least(0, most, |case, by| {
            let modes = case.job.to_mut().ops.iter_mut().flat_map(|op| &mut op.modes);
            modes.for_each(|mode| mode.earliest = (mode.earliest - by).max(0));
        })?;
        Some(Relaxation::one(Change::MachinesEarlier(least), &p))
    }

    /// The least amount above `none` and up to `most` that suffices, with the cheapest place it brings.
    /// `give` makes the case such that the amount is given.
    fn least(&mut self, none: i64, most: i64, give: impl Fn(&mut Case<'a>, i64)) -> Option<(i64, Placement)> {
        let mut tried = |amount: i64| {
            let mut case = self.base.clone();
            give(&mut case, amount);
            cheapest(&self.meeting(&case)).cloned()
        };
        if most <= none {
            return None;
        }
        let (mut too_little, mut enough, mut found) = (none, most, tried(most)?);
        while enough - too_little > 1 {
            let middle = too_little + (enough - too_little) / 2;
            match tried(middle) {
                Some(p) => (enough, found) = (middle, p),
                None => too_little = middle,
            }
        }
        Some((enough, found))
    }

    /// Each operation that alone would have to pause; all of them together where one alone is not enough.
    fn pausing(&mut self) -> Vec<Relaxation> {
        let rigid: Vec<usize> =
            (0..self.base.job.ops.len()).filter(|&k| !self.base.job.ops[k].splittable).collect();
        let Some(together) = self.paused(&rigid) else { return Vec::new() };
        let alone: Vec<Relaxation> = rigid.iter().filter_map(|&k| self.paused(&[k])).collect();
        if alone.is_empty() { vec![together] } else { alone }
    }

    fn paused(&mut self, ops: &[usize]) -> Option<Relaxation> {
        let mut case = self.base.clone();
        ops.iter().for_each(|&k| case.job.to_mut().ops[k].splittable = true);
        let front = self.meeting(&case);
        Some(Relaxation::one(Change::MayPause(ops.to_vec()), cheapest(&front)?))
    }

    fn thaw(&mut self) -> Option<Relaxation> {
        self.base.job.ops.iter().find(|op| op.fixed.is_some())?;
        let front = self.meeting(&self.base.without(Constraint::Freeze));
        Some(Relaxation::one(Change::Thaw, cheapest(&front)?))
    }

    /// Of the places that machines without closing times offer, the one that needs the least overtime.
    fn overtime(&mut self) -> Option<Relaxation> {
        let front = self.meeting(&self.base.without(Constraint::Calendar));
        let spans = front.iter().map(|p| (self.closed_spans(p), p));
        let total = |spans: &[Overtime]| spans.iter().map(|s| s.until - s.from).sum::<Tick>();
        let (spans, p) = spans.min_by_key(|(spans, p)| (total(spans), p.cost))?;
        Some(Relaxation::one(Change::Overtime(spans), p))
    }

    /// Where a placement works while its machines are closed.
    fn closed_spans(&self, p: &Placement) -> Vec<Overtime> {
        let mut closed = Vec::new();
        for step in &p.steps {
            let machine = &self.base.shop.machines[step.machine];
            let windows = machine.calendar.windows().iter();
            let mut at = step.start;
            for &(open, close) in
                windows.filter(|w| w.1 > step.start && w.0 < step.end).chain([&(step.end, 0)])
            {
                if open > at {
                    let name = machine.id.clone();
                    closed.push(Overtime { machine: step.machine, name, from: at, until: open });
                }
                at = close;
            }
        }
        closed
    }

    /// The fewest others, promised ones above all, that would have to give up their places. Tried, not assumed: whoever stays changes the changeovers around the new place.
    fn others_give_way(&mut self) -> Option<Relaxation> {
        let front = self.meeting(&self.base.without(Constraint::Capacity));
        let promised = |job: &u32| {
            let job = &self.base.instance.jobs[*job as usize];
            job.rejection_cost.is_none() || job.ops.iter().any(|op| op.fixed.is_some())
        };
        let count = |others: &BTreeSet<u32>| others.iter().filter(|job| promised(job)).count();
        let mut ways: Vec<BTreeSet<u32>> =
            front.iter().flat_map(|p| [0, 1].map(|around| self.in_the_way(p, around))).collect();
        ways.sort_by_key(|others| (count(others), others.len()));
        ways.dedup();
        for others in ways.into_iter().take(WAYS_MAX) {
            let mut case = self.base.clone();
            case.keep_on_lines(|o| !others.contains(&o.key.job));
            let front = self.meeting(&case);
            if let Some(p) = cheapest(&front) {
                let change = Change::OthersGiveWay { jobs: others.len(), promised: count(&others) };
                return Some(Relaxation::one(change, p));
            }
        }
        None
    }

    /// Whose work overlaps a placement, or stands `around` places before or behind it: a neighbour that stays
    /// may ask for a changeover that there is no room for.
    fn in_the_way(&self, p: &Placement, around: usize) -> BTreeSet<u32> {
        let mut others = BTreeSet::new();
        for step in &p.steps {
            let line = self.base.lines.on(step.machine);
            let from = line.partition_point(|o| o.end <= step.start).saturating_sub(around);
            let to = (line.partition_point(|o| o.start < step.end) + around).min(line.len());
            others.extend(line[from..to].iter().map(|o| o.key.job));
        }
        others
    }

    /// How much more leaving it out would have to cost, where there is a place but not at its worth.
    fn worth(&mut self) -> Option<Relaxation> {
        let front = self.base.front(self.placer);
        let p = cheapest(&front).filter(|p| p.cost >= self.goal.cost_below)?;
        Some(Relaxation::one(Change::WorthMore(p.cost + 1 - self.goal.cost_below), p))
    }

    /// What whoever orders it could give, all at once: deadline, budget and worth.
    fn terms(&mut self) -> Option<Relaxation> {
        let job = &self.base.job;
        let front = self.base.without(Constraint::Deadline).without(Constraint::Budget).front(self.placer);
        let p = cheapest(&front).filter(|p| p.completion <= self.goal.end_max)?;
        let mut changes = Vec::new();
        let over = |given: Option<i64>, used: i64| given.map(|g| used.saturating_sub(g)).filter(|&x| x > 0);
        changes.extend(over(job.deadline, p.completion).map(Change::DeadlineLater));
        changes.extend(over(job.budget, p.charge).map(Change::BudgetMore));
        changes.extend(over(Some(self.goal.cost_below), p.cost.saturating_add(1)).map(Change::WorthMore));
        (!changes.is_empty()).then(|| Relaxation { changes, outcome: Outcome::of(p) })
    }
}
