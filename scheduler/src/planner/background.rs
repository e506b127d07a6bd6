//! Re-optimisation in the background: while this node leads, take the open work, improve it on
//! idle-priority threads, and hand the result back to be checked and committed.

use super::{Failure, Handle, Idle};
use crate::clock::Clock;
use crate::consensus;
use crate::replica::Replica;
use millpool_solver as solver;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often and how long the plan is improved.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Pause between two optimisations.
    pub every: Duration,
    /// Time for one; zero switches them off.
    pub time_limit: Duration,
    /// Solver threads.
    pub threads: usize,
}

/// Runs until the planner is gone.
pub(super) async fn optimise(
    planner: Idle,
    consensus: consensus::Handle<Replica>,
    clock: Clock,
    schedule: Schedule,
) {
    if schedule.time_limit.is_zero() {
        return;
    }
    // The plan's revision that has been optimised: there is no more to be had from it.
    let mut seen = 0;
    loop {
        tokio::time::sleep(schedule.every).await;
        let Some(planner) = planner.handle() else { return };
        let plan_revision = consensus.state().state.0.plan_revision();
        if !consensus.leadership().is_ready || plan_revision == seen {
            continue;
        }
        match round(&planner, &consensus, clock, schedule).await {
            Ok(Round::Done { plan_revision }) => seen = plan_revision,
            Ok(Round::Nothing) => seen = plan_revision,
            Ok(Round::Overtaken) => {}
            Err(failure) => tracing::debug!(%failure, "the optimisation came to nothing"),
        }
    }
}

/// What came of an optimisation.
enum Round {
    /// Committed; the plan of this revision has been optimised.
    Done { plan_revision: u64 },
    /// There is nothing to move, or the solver has nothing to say.
    Nothing,
    /// The plan changed faster than it could be improved.
    Overtaken,
}

/// One optimisation; a result that has been overtaken is computed anew from the new state, in less time.
async fn round(
    planner: &Handle,
    consensus: &consensus::Handle<Replica>,
    clock: Clock,
    schedule: Schedule,
) -> Result<Round, Failure> {
    let mut time_limit = schedule.time_limit;
    for seed in 0..4 {
        let ready_in_s = clock.stretch_s(time_limit.as_secs() as i64 + 2);
        let Some(problem) = planner.problem(ready_in_s).await? else { return Ok(Round::Nothing) };
        let options = solver::Options {
            time_limit,
            threads: schedule.threads,
            seed: problem.base_revision + seed,
            idle_priority: true,
            ..solver::Options::default()
        };
        let Some(improvement) = solve(problem, options, consensus).await else { return Ok(Round::Nothing) };
        let (figures, posed_at) = (improvement.figures, improvement.plan_revision);
        match planner.improve(improvement).await {
            Ok(improved) => {
                metrics::gauge!("millpool_plan_cost_fen").set(figures.cost_fen as f64);
                metrics::gauge!("millpool_plan_bound_fen").set(figures.bound_fen as f64);
                metrics::counter!("millpool_plan_moves_total").increment(improved.moved.into());
                tracing::info!(
                    moved = improved.moved,
                    cost_before_fen = figures.cost_before_fen,
                    cost_fen = figures.cost_fen,
                    bound_fen = figures.bound_fen,
                    took_ms = figures.took_ms,
                    "plan improved"
                );
                // What was booked while the solver worked has its turn next time.
                let plan_revision = if improved.undisturbed { improved.plan_revision } else { posed_at };
                return Ok(Round::Done { plan_revision });
            }
            Err(Failure::Refused(refusal)) => {
                metrics::counter!("millpool_plans_overtaken_total").increment(1);
                tracing::debug!(%refusal, "the improved plan was overtaken");
                time_limit = (time_limit / 2).max(Duration::from_millis(200));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(Round::Overtaken)
}

/// Solves on other threads; stops early when this node no longer leads.
async fn solve(
    problem: super::Problem,
    options: solver::Options,
    consensus: &consensus::Handle<Replica>,
) -> Option<super::Improvement> {
    let cancel = Arc::new(AtomicBool::new(false));
    let options = solver::Options { cancel: cancel.clone(), ..options };
    let mut solving = tokio::task::spawn_blocking(move || problem.solve(&options, |_| {}));
    let mut watch = tokio::time::interval(Duration::from_millis(50));
    let solved = loop {
        tokio::select! {
            solved = &mut solving => break solved,
            _ = watch.tick() => {
                if !consensus.leadership().is_ready {
                    cancel.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    match solved {
        Ok(Ok(improvement)) => improvement.filter(|_| !cancel.load(Ordering::Relaxed)),
        Ok(Err(error)) => {
            metrics::counter!("millpool_solver_errors_total").increment(1);
            tracing::warn!(%error, "the solver found no plan");
            None
        }
        Err(error) => {
            metrics::counter!("millpool_solver_errors_total").increment(1);
            tracing::error!(%error, "the solver's thread failed");
            None
        }
    }
}
