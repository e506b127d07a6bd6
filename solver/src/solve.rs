//! `solve`: from an instance to a plan with a bound, anytime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::greedy;
use crate::place::Placer;
use crate::search::Search;
use crate::state::State;
use crate::{Fen, Fixed, Instance, Malformed, Objective, Plan, Priced, verify};

/// How to solve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Wall-clock limit.
    pub time_limit: Duration,
    /// Limit on search tries; with it the result depends on nothing but the instance and the seed.
    pub iterations: Option<u64>,
    /// Threads to use, at least 1.
    pub threads: usize,
    /// Seed of the search.
    pub seed: u64,
    /// A plan to start from. What of it no longer holds is repaired.
    pub incumbent: Option<Plan>,
    /// What moving an operation against the incumbent weighs, in fen.
    pub stability: Fen,
    /// Set from outside to stop early.
    pub cancel: Arc<AtomicBool>,
    /// Run the solver's threads at the lowest scheduling priority.
    pub idle_priority: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            time_limit: Duration::from_secs(10),
            iterations: None,
            threads: 1,
            seed: 1,
            incumbent: None,
            stability: 0,
            cancel: Arc::default(),
            idle_priority: false,
        }
    }
}

/// Where a solve stands.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Time since the start.
    pub elapsed: Duration,
    /// Cost of the best plan so far.
    pub cost: Fen,
    /// The bound so far.
    pub bound: Fen,
    /// Search tries so far.
    pub iterations: u64,
    /// What found the best plan.
    pub found_by: &'static str,
}

/// A plan, what it costs, and how much better any plan could be.
#[derive(Clone, Debug)]
pub struct Solution {
    /// The plan, with its objective and bound filled in.
    pub plan: Plan,
    /// Its cost in parts.
    pub priced: Priced,
    /// Its cost, or its makespan.
    pub cost: Fen,
    /// No plan costs less.
    pub bound: Fen,
    /// What found it.
    pub found_by: &'static str,
    /// Search tries made.
    pub iterations: u64,
    /// Operations that stand elsewhere than in the incumbent.
    pub moved: usize,
    /// Time taken.
    pub elapsed: Duration,
}

impl Solution {
    /// How far the bound lies below the cost, as a share of the cost.
    pub fn gap(&self) -> f64 {
        if self.cost == 0 { 0.0 } else { (self.cost - self.bound) as f64 / self.cost as f64 }
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SolveError {
    /// The instance is not one.
    #[error("malformed instance: {0}")]
    Malformed(#[from] Malformed),
    /// No plan that keeps these promised jobs was found.
    #[error("no plan was found that keeps the promised jobs {}", .jobs.join(", "))]
    Unkeepable {
        /// Their ids.
        jobs: Vec<String>,
        /// The best plan without them: they are in neither of its lists.
        plan: Box<Plan>,
    },
    /// The solver's own plan fails the checker; a defect.
    #[error("the solver made a plan that breaks a rule: {0}")]
    Broken(String),
}

/// Finds a plan and a bound within the options' limits. `progress` is called at each improvement.
pub fn solve(
    instance: &Instance,
    options: &Options,
    mut progress: impl FnMut(Progress),
) -> Result<Solution, SolveError> {
    let started = Instant::now();
    instance.check()?;
    let mut placer = Placer::default();
    let (state, mut found_by) = start(instance, options, &mut placer);
    progress(Progress { elapsed: started.elapsed(), cost: state.cost(), bound: 0, iterations: 0, found_by });
    let mut search = Search::new(state, options.seed);
    let limit = options.time_limit.as_secs_f64().max(1e-9);
    let mut share = 0.0;
    loop {
        match options.iterations {
            Some(n) if search.tries >= n => break,
            Some(n) => share = search.tries as f64 / n as f64,
            None => {}
        }
        if search.tries % 32 == 0 {
            let used = started.elapsed().as_secs_f64() / limit;
            if used >= 1.0 || options.cancel.load(Ordering::Relaxed) {
                break;
            }
            if options.iterations.is_none() {
                share = used;
            }
        }
        if search.attempt(share) {
            found_by = "search";
        }
    }
    let tries = search.tries;
    let mut best = State::load(instance, search.best_chains());
    best.anchor_like(&search.state);
    debug_assert_eq!(best.weight(), search.best_weight(), "the best plan's weight, from scratch");
    finish(instance, options, &best, 0, found_by, tries, started)
}

/// The best of the starting plans.
fn start<'a>(instance: &'a Instance, options: &Options, placer: &mut Placer) -> (State<'a>, &'static str) {
    let order = greedy::insertion_order(instance);
    if let Some(incumbent) = &options.incumbent {
        let mut state = State::load(instance, chains_of(instance, incumbent));
        state.anchor(incumbent, options.stability);
        greedy::insert_all(&mut state, placer, &order);
        return (state, "incumbent");
    }
    let mut inserted = State::load(instance, greedy::frozen_chains(instance));
    greedy::insert_all(&mut inserted, placer, &order);
    if instance.objective == Objective::Makespan {
        return (inserted, "insertion");
    }
    let first_come = State::load(instance, greedy::first_come(instance));
    match first_come.weight() < inserted.weight() {
        true => (first_come, "first come"),
        false => (inserted, "insertion"),
    }
}

/// The places of a plan's whole jobs; frozen operations where they are frozen.
fn chains_of(instance: &Instance, plan: &Plan) -> Vec<Option<Vec<Fixed>>> {
    let mut places: Vec<Vec<Option<Fixed>>> = instance.jobs.iter().map(|job| vec![None; job.ops.len()]).collect();
    for a in &plan.assignments {
        if let Some(place) = places.get_mut(a.job).and_then(|job| job.get_mut(a.op)) {
            let known = instance.jobs[a.job].ops[a.op].mode_on(a.machine).is_some();
            *place = known.then_some(Fixed { machine: a.machine, start: a.start });
        }
    }
    for (job, places) in instance.jobs.iter().zip(&mut places) {
        for (op, place) in job.ops.iter().zip(places) {
            *place = op.fixed.or(*place);
        }
    }
    places.into_iter().map(|chain| chain.into_iter().collect()).collect()
}

fn finish(
    instance: &Instance,
    options: &Options,
    state: &State<'_>,
    bound: Fen,
    found_by: &'static str,
    iterations: u64,
    started: Instant,
) -> Result<Solution, SolveError> {
    let mut plan = state.plan();
    if state.missing() > 0 {
        let (missing, rejected): (Vec<usize>, Vec<usize>) =
            plan.rejected.iter().partition(|&&j| instance.jobs[j].rejection_cost.is_none());
        plan.rejected = rejected;
        let jobs = missing.into_iter().map(|j| instance.jobs[j].id.clone()).collect();
        return Err(SolveError::Unkeepable { jobs, plan: Box::new(plan) });
    }
    let broken = |violations: Vec<crate::Violation>| {
        let first: Vec<String> = violations.iter().take(3).map(ToString::to_string).collect();
        SolveError::Broken(first.join("; "))
    };
    let priced = verify(instance, &plan).map_err(broken)?;
    let cost = priced.objective(instance.objective);
    plan.objective = Some(cost);
    plan.bound = Some(bound.min(cost));
    let moved = if options.incumbent.is_some() { state.moved() as usize } else { 0 };
    let (bound, elapsed) = (bound.min(cost), started.elapsed());
    Ok(Solution { plan, priced, cost, bound, found_by, iterations, moved, elapsed })
}
