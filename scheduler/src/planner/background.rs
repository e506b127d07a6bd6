//! Re-optimisation in the background: while this node leads, take the open work, improve it on
//! idle-priority threads, and hand the result back to be checked and committed.

use super::handle::{Failure, Handle, Idle, Improved};
use super::optimise::{Improvement, Problem};
use crate::clock::Clock;
use crate::consensus::{self, Offload};
use crate::replica::Replica;
use millpool_alliance::PlanFigures;
use millpool_solver as solver;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How often and how long the plan is improved.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Pause between two optimisations.
    pub every: Duration,
    /// Time for one; zero switches them off.
    pub time_limit: Duration,
    /// Solver threads.
    pub threads: usize,
    /// Tries instead of time, for simulations, which are the same on every run.
    pub tries: Option<u64>,
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
        let plan_revision = consensus.look(|view| view.state.0.plan_revision());
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

/// How often a plan that has been overtaken is fitted to what has happened since.
const FITTED_MAX: u32 = 8;
/// Time to fit it and to prove a bound again.
const FIT_LIMIT: Duration = Duration::from_millis(50);
/// Most operations that one entry moves, so that it fits the log whatever their ids.
const MOVES_PER_ENTRY: usize = 2000;
/// Where tries are limited.
const UNLIMITED: Duration = Duration::from_secs(86_400);
/// From a solver's result to its place in the log, at most, or it is overtaken.
const COMMIT_SLACK: Duration = Duration::from_secs(1);

/// One optimisation. While the solver worked, the plan went on: a result that no longer holds is fitted to
/// the plan as it is by then, which takes a moment, so that it is overtaken less the more often it is tried.
async fn round(
    planner: &Handle,
    consensus: &consensus::Handle<Replica>,
    clock: Clock,
    schedule: Schedule,
) -> Result<Round, Failure> {
    let mut time_limit = schedule.time_limit;
    let mut former: Option<Improvement> = None;
    for _ in 0..=FITTED_MAX {
        let ready_in_s = clock.stretch_s(time_limit + COMMIT_SLACK);
        let Some(problem) = planner.problem(ready_in_s).await? else { return Ok(Round::Nothing) };
        let options = solver::Options {
            // Where tries are counted, time must not: the machine may be busy.
            time_limit: if schedule.tries.is_some() { UNLIMITED } else { time_limit },
            threads: schedule.threads,
            seed: problem.base_revision,
            // The search gives way to bookings. To fit is a moment's work, and overtaken if it waits.
            idle_priority: former.is_none() && schedule.tries.is_none(),
            iterations: former.is_some().then_some(0).or(schedule.tries),
            ..solver::Options::default()
        };
        let solved = solve(problem, former.take(), options, consensus, planner.offload, time_limit).await;
        let Some(improvement) = solved else { return Ok(Round::Nothing) };
        if improvement.moves.len() > MOVES_PER_ENTRY {
            // Part of it now: a part alone need not fit, so it is fitted; the rest has its turn next time.
            former = Some(improvement.part(MOVES_PER_ENTRY / 2));
            time_limit = FIT_LIMIT.min(schedule.time_limit);
            continue;
        }
        match planner.improve(improvement.clone()).await {
            Ok(improved) => {
                tell(&improved, improvement.figures);
                // What was booked while the solver worked has its turn next time.
                let posed_at = improvement.plan_revision;
                let plan_revision = if improved.undisturbed { improved.plan_revision } else { posed_at };
                return Ok(Round::Done { plan_revision });
            }
            Err(Failure::Refused(refusal)) => {
                metrics::counter!("millpool_plans_overtaken_total").increment(1);
                tracing::debug!(%refusal, "the improved plan was overtaken");
                former = Some(improvement);
                time_limit = FIT_LIMIT.min(schedule.time_limit);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(Round::Overtaken)
}

fn tell(improved: &Improved, figures: PlanFigures) {
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
}

/// Solves on a thread of its own, where there are threads, as its priority never rises again; stops early when this
/// node no longer leads. Without threads it `lasts` as long as it would with them. None if nothing better was found.
async fn solve(
    problem: Problem,
    former: Option<Improvement>,
    options: solver::Options,
    consensus: &consensus::Handle<Replica>,
    offload: Offload,
    lasts: Duration,
) -> Option<Improvement> {
    let begun = Instant::now();
    let cancel = options.cancel.clone();
    let (answer, mut answered) = oneshot::channel();
    let work = move || {
        let former = former.map_or(Vec::new(), |former| former.moves);
        let _ = answer.send(problem.solve_with(&former, &options));
    };
    let thread = match offload {
        Offload::Inline => {
            // It takes no time by itself, and the plan is to go on meanwhile.
            work();
            tokio::time::sleep(lasts).await;
            None
        }
        Offload::Threads => {
            let thread = std::thread::Builder::new().name("optimiser".into()).spawn(work);
            let failed = |error: &_| tracing::error!(%error, "the optimiser's thread cannot be started");
            Some(thread.inspect_err(failed).ok()?)
        }
    };
    let _search = Search { cancel: cancel.clone(), thread };
    let mut watch = tokio::time::interval(Duration::from_millis(50));
    let solved = loop {
        tokio::select! {
            solved = &mut answered => break solved,
            _ = watch.tick() => {
                if !consensus.leadership().is_ready {
                    cancel.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    let failed = || metrics::counter!("millpool_solver_errors_total").increment(1);
    match solved {
        Ok(Ok(improvement)) => {
            let mut improvement = improvement.filter(|_| !cancel.load(Ordering::Relaxed))?;
            improvement.figures.took_ms = begun.elapsed().as_millis() as u64;
            Some(improvement)
        }
        Ok(Err(error)) => {
            failed();
            tracing::warn!(%error, "the solver found no plan");
            None
        }
        Err(_) => {
            failed();
            tracing::error!("the solver's thread failed");
            None
        }
    }
}

/// A search under way. It notices within some milliseconds that nobody waits for it.
struct Search {
    cancel: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Search {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
        // One that panicked has been reported by its answer's absence.
        drop(self.thread.take().map(JoinHandle::join));
    }
}
