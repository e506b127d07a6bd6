//! Why a job is refused, late or where it is, and what would help.
//!
//! Everything is said by the placement search itself: the job is taken off the lines, the rest stands
//! still, and the search is run as things are, then with one constraint relaxed at a time (`relax`), then
//! for the smallest change that suffices (`change`). `machines` says of each operation which machines are
//! ruled out and what it waits for; `text` puts it all into sentences.
//!
//! Other jobs are free or busy time here, never names: nothing in an [`Explanation`] tells whose they are.

mod change;
mod machines;
mod relax;
pub(crate) mod text;

pub use change::{Change, Overtime, Relaxation};
pub use machines::{Exclusion, ModeFate, OpExplained, Place, Wait};
pub use relax::{Constraint, Relaxed};

use crate::place::{Placement, Placer};
use crate::solve::chains_of;
use crate::state::State;
use crate::{Fen, Instance, Job, Lines, Malformed, Occupation, Plan, Shop, Step, Tick};
use machines::Stands;
use relax::Case;

/// How a job fares in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not in the plan. A promised job has no price for leaving it out.
    LeftOut {
        /// What leaving it out costs.
        rejection_cost: Option<Fen>,
    },
    /// It ends after it is due.
    Late {
        /// When it ends.
        completion: Tick,
        /// When it was due.
        due: Tick,
    },
    /// It ends by the time it is due.
    InTime {
        /// When it ends.
        completion: Tick,
        /// When it is due.
        due: Tick,
    },
}

/// What one placement comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// When the job ends.
    pub completion: Tick,
    /// What the plan's cost grows by.
    pub cost: Fen,
    /// What counts against the job's budget.
    pub charge: Fen,
}

impl Outcome {
    fn of(placement: &Placement) -> Outcome {
        Outcome { completion: placement.completion, cost: placement.cost, charge: placement.charge }
    }
}

/// The two ends of a front of placements: the earliest and the cheapest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The earliest completion there is.
    pub earliest: Outcome,
    /// The lowest cost there is, the earliest among equals.
    pub cheapest: Outcome,
}

impl Ends {
    fn of(front: &[Placement]) -> Option<Ends> {
        let cheapest = front.iter().min_by_key(|p| (p.cost, p.completion))?;
        Some(Ends { earliest: Outcome::of(front.first()?), cheapest: Outcome::of(cheapest) })
    }
}

/// Why a job is where it is. Its [`std::fmt::Display`] is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The job's own id.
    pub job: String,
    /// How it fares.
    pub verdict: Verdict,
    /// Whether the rest could not stand still without the job: other work relies on the changeover that
    /// it leaves, and is taken to stand all the same.
    pub leant_on: bool,
    /// One entry an operation: its machines, its place, and what it waits for.
    pub ops: Vec<OpExplained>,
    /// What could be had with everything as it is; `None`: no place at all.
    pub as_is: Option<Ends>,
    /// Whether that would do what is wanted: keep a job that was left out, end a late one in time.
    pub as_is_suffices: bool,
    /// What each constraint alone stands for, the most binding first.
    pub relaxed: Vec<Relaxed>,
    /// What would suffice to keep the job, or to end it in time; the one with the cheapest plan first. Empty
    /// where nothing is wanting, or nothing suffices.
    pub relaxations: Vec<Relaxation>,
    /// Length of a tick in seconds, for the text.
    pub tick_seconds: i64,
}

impl Explanation {
    /// The constraint that binds: the one whose absence helps most, if any does.
    pub fn binding(&self) -> Option<&Relaxed> {
        self.relaxed.first().filter(|r| r.helps)
    }
}

/// Why nothing can be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    /// The instance is not one.
    #[error("malformed instance: {0}")]
    Malformed(#[from] Malformed),
    /// There is no such job.
    #[error("job {job} does not exist, there are {jobs}")]
    UnknownJob {
        /// The index asked for.
        job: usize,
        /// How many there are.
        jobs: usize,
    },
}

/// What would be enough, and by when things have to be done to be of use.
#[derive(Clone, Copy, Debug)]
struct Goal {
    /// It must end by then.
    end_max: Tick,
    /// It must cost less than this.
    cost_below: Fen,
}

impl Goal {
    fn of(verdict: Verdict) -> Goal {
        match verdict {
            Verdict::LeftOut { rejection_cost } => {
                Goal { end_max: Tick::MAX, cost_below: rejection_cost.unwrap_or(Fen::MAX) }
            }
            Verdict::Late { due, .. } => Goal { end_max: due, cost_below: Fen::MAX },
            Verdict::InTime { .. } => Goal { end_max: Tick::MAX, cost_below: Fen::MAX },
        }
    }

    fn is_met(&self, p: &Placement) -> bool {
        p.completion <= self.end_max && p.cost < self.cost_below
    }
}

/// Explains how a job fares in a plan. What of the plan breaks a rule is left out of it, as [`crate::solve`]
/// does with an incumbent. Costs are the instance's in fen, whatever its objective weighs. Takes a few hundred
/// placement searches.
pub fn explain(instance: &Instance, plan: &Plan, job: usize) -> Result<Explanation, Unexplained> {
    instance.check()?;
    let jobs = instance.jobs.len();
    let spec = instance.jobs.get(job).ok_or(Unexplained::UnknownJob { job, jobs })?;
    let state = State::load(instance, chains_of(instance, plan));
    let verdict = verdict(&state, job);
    let Taken { stood, lines, leant_on, place } = take_off(state, job);
    let base = Case::new(instance, &lines, spec);
    let mut placer = Placer::default();
    let front = with_place(base.front(&mut placer), place.as_ref());
    let (goal, as_is) = (Goal::of(verdict), Ends::of(&front));
    let as_is_suffices = front.iter().any(|p| goal.is_met(p));
    let told = place.as_ref().or(cheapest(&front));
    let stands = told.map(|p| Stands { job, steps: &p.steps, lines: &stood });
    let ops = machines::explain_ops(&base, latest(instance, spec, verdict), stands.as_ref());
    let relaxed = relax::each_relaxed(&base, verdict, &front, &mut placer);
    let relaxations = match as_is_suffices {
        true => Vec::new(),
        false => change::relaxations(&base, goal, &mut placer),
    };
    Ok(Explanation {
        job: spec.id.clone(),
        verdict,
        leant_on,
        ops,
        as_is,
        as_is_suffices,
        relaxed,
        relaxations,
        tick_seconds: instance.tick_seconds,
    })
}

/// The placements of a job with nothing else on the lines and one constraint left out.
pub(crate) fn alone_without(instance: &Instance, job: &Job, constraint: Constraint) -> Vec<Placement> {
    let lines = Lines::new(&instance.shop);
    Case::new(instance, &lines, job).without(constraint).front(&mut Placer::default())
}

fn verdict(state: &State<'_>, job: usize) -> Verdict {
    let spec = &state.instance.jobs[job];
    let completion = state.steps_of(job).last().map_or(0, |step| step.end);
    match state.keeps(job) {
        false => Verdict::LeftOut { rejection_cost: spec.rejection_cost },
        true if completion > spec.due => Verdict::Late { completion, due: spec.due },
        true => Verdict::InTime { completion, due: spec.due },
    }
}

/// By when the job has to end for its place to be of use.
fn latest(instance: &Instance, job: &Job, verdict: Verdict) -> Tick {
    match verdict {
        Verdict::Late { due, .. } => due.min(instance.horizon),
        _ => job.deadline.unwrap_or(instance.horizon).min(instance.horizon),
    }
}

fn cheapest(front: &[Placement]) -> Option<&Placement> {
    front.iter().min_by_key(|p| (p.cost, p.completion))
}

/// A plan with one job taken off the lines.
struct Taken {
    /// The lines as they stood.
    stood: Lines,
    /// The lines without the job.
    lines: Lines,
    /// Whether other work cannot really stand without the job.
    leant_on: bool,
    /// The place that the job had, priced as the placer prices it.
    place: Option<Placement>,
}

/// Takes the job off the lines. Whoever follows it and then needs a longer changeover begins that in the
/// time that the job leaves, as late as it goes; where it goes nowhere, it is taken to stand as it is.
fn take_off(mut state: State<'_>, job: usize) -> Taken {
    let stood = state.lines.clone();
    if !state.keeps(job) {
        return Taken { lines: stood.clone(), stood, leant_on: false, place: None };
    }
    let steps = state.steps_of(job).to_vec();
    let (alone, emitted) = (state.column_cost(job), carbon(&state, job));
    state.mark();
    let mut removed = Vec::new();
    let leant_on = !(state.lift(job, &mut removed) && removed.len() == 1);
    if leant_on {
        state.undo();
        for step in &steps {
            state
                .lines
                .edit(&state.instance.shop, step.machine, |line| line.retain(|o| o.key.job as usize != job));
        }
    }
    let instance = state.instance;
    let mut lines = state.lines;
    let (saved_fen, saved_g) = restored(&instance.shop, &mut lines, &stood, job);
    let completion = steps.last().map_or(0, |step| step.end);
    let charge = charge(instance, job, &steps);
    let place =
        Some(Placement { completion, cost: alone - saved_fen, charge, carbon: emitted - saved_g, steps });
    Taken { stood, lines, leant_on, place }
}

/// Moves others back towards where they stood, and says what their changeovers cost and emit more without the job.
fn restored(shop: &Shop, lines: &mut Lines, stood: &Lines, job: usize) -> (Fen, i64) {
    let mut saved = (0, 0);
    for (m, machine) in shop.machines.iter().enumerate() {
        if lines.on(m) == stood.on(m) {
            continue;
        }
        let stood = stood.on(m).iter().filter(|o| o.key.job as usize != job);
        for (at, then) in stood.enumerate() {
            let now = lines.on(m)[at];
            saved.0 += (now.setup - then.setup) * machine.setup_cost_per_tick;
            saved.1 += (now.setup - then.setup) * machine.setup_carbon_per_tick;
            if now.start == then.start {
                continue;
            }
            let (work, calendar) = (now.setup + now.work, &machine.calendar);
            let there = calendar.finish(then.start, work, now.splittable).map(|end| (then.start, end));
            let there = there.filter(|back| back.1 <= then.end);
            let latest = calendar.latest(work, now.splittable, then.end);
            // A longer changeover may need more of a resource than is free; then it stays where the search put it.
            lines.release(shop, m, at);
            let free = |back: &(Tick, Tick)| lines.usage().obstacle(shop, &now.span(m), *back).is_none();
            let back = [there, latest].into_iter().flatten().find(free);
            lines.hold(shop, m, at);
            if let Some((start, end)) = back {
                lines.write(shop, m, at, Occupation { start, end, ..now });
            }
        }
    }
    saved
}

/// What a job emits where it stands, its setups included.
fn carbon(state: &State<'_>, job: usize) -> i64 {
    let (spec, shop) = (&state.instance.jobs[job], &state.instance.shop);
    let (mut at, mut grams) = (spec.origin, 0);
    for (op, step) in spec.ops.iter().zip(state.steps_of(job)) {
        let machine = &shop.machines[step.machine];
        grams += at.map_or(0, |here| shop.trip_carbon(here, machine.plant));
        grams += op.mode_on(step.machine).map_or(0, |mode| mode.carbon);
        grams += step.setup * machine.setup_carbon_per_tick;
        at = Some(machine.plant);
    }
    grams
}

/// What counts against the budget of a job with these steps.
fn charge(instance: &Instance, job: usize, steps: &[Step]) -> Fen {
    let (spec, shop) = (&instance.jobs[job], &instance.shop);
    let (mut at, mut charge) = (spec.origin, 0);
    for (op, step) in spec.ops.iter().zip(steps) {
        let there = shop.machines[step.machine].plant;
        charge += at.map_or(0, |here| shop.trip_charge(here, there));
        charge += op.mode_on(step.machine).map_or(0, |mode| mode.charge);
        at = Some(there);
    }
    charge
}

/// A front with one place more: those that none dominates, earliest first.
fn with_place(mut front: Vec<Placement>, place: Option<&Placement>) -> Vec<Placement> {
    front.extend(place.cloned());
    front.sort_by_key(|p| (p.completion, p.cost));
    let mut least = Fen::MAX;
    front.retain(|p| {
        let cheaper = p.cost < least;
        least = least.min(p.cost);
        cheaper
    });
    front
}

#[cfg(test)]
mod tests;
