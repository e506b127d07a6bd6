//! Re-optimisation: the open work as an instance, the solver's plan as moves.

use super::pool::{Freedom, Pool};
use millpool_alliance::{Booking, BookingId, Move, PlanFigures, State, TICK_S};
use millpool_solver as solver;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The open work of a state as the solver takes it.
pub struct Problem {
    /// Revision of the state that it was made of.
    pub base_revision: u64,
    /// Revision of the plan in it.
    pub plan_revision: u64,
    pool: Pool,
    instance: solver::Instance,
    /// The plan as it stands.
    incumbent: solver::Plan,
    /// What it costs, fen.
    cost_before_fen: i64,
    /// What lateness costs that lies before the solver's first tick, fen: in every plan the same.
    overdue_fen: i64,
    /// Booking and first operation of each job.
    jobs: Vec<(BookingId, usize)>,
}

/// An improved plan.
#[derive(Clone)]
pub struct Improvement {
    /// What moves.
    pub moves: Vec<Move>,
    /// What the solver says.
    pub figures: PlanFigures,
    /// Revision of the plan that it improves.
    pub plan_revision: u64,
}

impl Improvement {
    /// The moves of the first bookings, at most `moves_max`, each booking's all or none.
    pub fn part(mut self, moves_max: usize) -> Improvement {
        if let Some(beyond) = self.moves.get(moves_max).map(|m| m.booking) {
            self.moves.truncate(moves_max);
            self.moves.retain(|m| m.booking != beyond);
        }
        self
    }
}

impl Problem {
    /// The problem of moving what is not frozen. `state` has the clock of the time by which the result will
    /// be committed, so that nothing freezes meanwhile. None if nothing can move.
    pub fn of(state: &State) -> Option<Problem> {
        let pool = Pool::build(state, state.now());
        let (mut cost_before_fen, mut overdue_fen) = (0, 0);
        let mut jobs = Vec::new();
        let mut work = Vec::new();
        let mut incumbent = solver::Plan::default();
        for booking in state.open_bookings() {
            // Work that has lost its place is the repair's; what has kept its place meanwhile stays there, and
            // so does what a plant has passed over for a later step.
            let whole = booking.completes_at().is_some();
            let job = pool.job_of_booking(state, booking, Freedom::Unfrozen).filter(|_| whole);
            let first = job.as_ref().map_or(booking.steps.len(), |(first, _)| *first);
            for kept in pool.kept_steps(state, booking, first) {
                cost_before_fen += kept.cost_fen;
                incumbent.assignments.push(solver::Assignment { job: work.len(), ..kept.assignment });
                jobs.push((booking.id, kept.operation));
                work.push(kept.job);
            }
            let Some((first, job)) = job else { continue };
            add_places(&pool, booking, first, work.len(), &job, &mut incumbent);
            cost_before_fen += state.cost_of(booking, first);
            overdue_fen += pool.overdue(booking.order.due) * job.tardiness_weight;
            jobs.push((booking.id, first));
            work.push(job);
        }
        // Behind the bookings' jobs, so that these keep their indices.
        for kept in pool.tooling() {
            cost_before_fen += kept.cost_fen;
            incumbent.assignments.push(solver::Assignment { job: work.len(), ..kept.assignment });
            work.push(kept.job);
        }
        let movable = work.iter().flat_map(|j| &j.ops).any(|op| op.fixed.is_none());
        let horizon = pool.horizon().max(incumbent.assignments.iter().map(|a| a.end).max().unwrap_or(0));
        let instance = solver::Instance {
            name: format!("plan at revision {}", state.revision()),
            tick_seconds: TICK_S,
            horizon,
            objective: solver::Objective::COST,
            shop: pool.shop.clone(),
            jobs: work,
        };
        let (base_revision, plan_revision) = (state.revision(), state.plan_revision());
        movable.then_some(Problem {
            base_revision,
            plan_revision,
            pool,
            instance,
            incumbent,
            cost_before_fen,
            overdue_fen,
            jobs,
        })
    }

    /// Solves it, from the plan as it stands; None if nothing better was found.
    pub fn solve(
        &self,
        options: &solver::Options,
        progress: impl FnMut(solver::Progress),
    ) -> Result<Option<Improvement>, solver::SolveError> {
        let options = solver::Options { incumbent: Some(self.incumbent.clone()), ..options.clone() };
        let solution = solver::solve(&self.instance, &options, progress).inspect_err(|_| self.accuse())?;
        Ok(self.improvement(&solution))
    }

    /// Solves it, with what was found for a former state: as much of that as still goes is taken over.
    pub fn solve_with(
        &self,
        former: &[Move],
        options: &solver::Options,
    ) -> Result<Option<Improvement>, solver::SolveError> {
        let hint = (!former.is_empty()).then(|| self.with(former));
        self.solve(&solver::Options { hint, ..options.clone() }, |_| {})
    }

    fn improvement(&self, solution: &solver::Solution) -> Option<Improvement> {
        let figures = PlanFigures {
            base_revision: self.base_revision,
            cost_before_fen: self.cost_before_fen,
            cost_fen: solution.cost + self.overdue_fen,
            bound_fen: solution.bound + self.overdue_fen,
            // Whoever waits for it measures that.
            took_ms: 0,
        };
        // At the same cost nobody is moved: only the figures are told.
        let better = figures.cost_fen < self.cost_before_fen;
        let moves = if better { self.moves(&solution.plan) } else { Vec::new() };
        (figures.cost_fen <= self.cost_before_fen).then_some(Improvement {
            moves,
            figures,
            plan_revision: self.plan_revision,
        })
    }

    /// The plan as it stands but for `moves`, as far as they are of work that is still to come.
    fn with(&self, moves: &[Move]) -> solver::Plan {
        let to: BTreeMap<_, _> = moves.iter().map(|m| ((&m.booking, m.operation as usize), m)).collect();
        let mut plan = self.incumbent.clone();
        for a in &mut plan.assignments {
            let Some((booking, first)) = self.jobs.get(a.job) else { continue };
            let Some(to) = to.get(&(booking, first + a.op)) else { continue };
            if let Some(machine) = self.pool.index(&to.machine) {
                (a.machine, a.start) = (machine, self.pool.tick(to.start));
            }
        }
        plan
    }

    /// What the solver holds against the plan as it stands: nothing. The plan keeps every rule of the state
    /// machine's; where the solver's checker disagrees, one of the two, or the mapping between them, is wrong.
    pub fn flaws(&self) -> Vec<String> {
        match solver::verify(&self.instance, &self.incumbent) {
            Ok(priced) => {
                let cost = priced.total() + self.overdue_fen;
                let other = (cost != self.cost_before_fen).then_some((cost, self.cost_before_fen));
                other.map(|(cost, before)| format!("it costs {cost} and not {before}")).into_iter().collect()
            }
            Err(violations) => violations.iter().map(ToString::to_string).collect(),
        }
    }

    fn accuse(&self) {
        for flaw in self.flaws().into_iter().take(5) {
            tracing::error!(flaw, instance = self.instance.name, "the solver's view of the plan");
        }
    }

    /// What stands elsewhere in `plan` than in the incumbent.
    fn moves(&self, plan: &solver::Plan) -> Vec<Move> {
        let key = |a: &solver::Assignment| (a.job, a.op);
        let before: BTreeMap<_, _> = self.incumbent.assignments.iter().map(|a| (key(a), a)).collect();
        let stays = |a: &&solver::Assignment| {
            before.get(&key(a)).is_some_and(|b| (b.machine, b.start) == (a.machine, a.start))
        };
        plan.assignments
            .iter()
            .filter(|a| !stays(a))
            .filter_map(|a| {
                let (booking, first) = self.jobs.get(a.job)?;
                Some(Move {
                    booking: *booking,
                    operation: (first + a.op) as u32,
                    machine: self.pool.machine(a.machine).clone(),
                    start: self.pool.second(a.start),
                })
            })
            .collect()
    }
}

fn add_places(
    pool: &Pool,
    booking: &Arc<Booking>,
    first: usize,
    index: usize,
    job: &solver::Job,
    plan: &mut solver::Plan,
) {
    for (op, step) in booking.steps[first..].iter().enumerate() {
        let Some(place) = &step.place else { continue };
        let machine = job.ops[op].modes.iter().find(|m| pool.machine(m.machine) == &place.machine);
        if let Some(mode) = machine {
            plan.assignments.push(solver::Assignment {
                job: index,
                op,
                machine: mode.machine,
                start: pool.tick(place.start),
                end: pool.tick(place.end),
            });
        }
    }
}
