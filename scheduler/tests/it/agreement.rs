//! The planner and the state machine agree to the second and to the fen, though they share no code: what
//! the one proposes the other accepts, at the times, the price and the cost that were said.
//!
//! Random alliances live through random days (`world.rs`). `MILLPOOL_SEEDS` is how many (50 by default),
//! `MILLPOOL_SEED` runs a single one again.

use crate::world::{World, operator};
use millpool_alliance::line::{Phase, Use};
use millpool_alliance::{
    Command, Entry, Move, Objective, Order, PlanFigures, PlanKind, PrincipalId, Reply, State, Terms,
    invariants,
};
use millpool_scheduler::planner::optimise::{Improvement, Problem};
use millpool_scheduler::planner::pool::Pool;
use millpool_scheduler::planner::{quote, repair};
use millpool_solver as solver;
use std::time::Duration;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("MILLPOOL_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("MILLPOOL_SEEDS").unwrap_or(50)).collect(),
    }
}

/// A world with the pool that the planner keeps beside it.
struct Planned {
    seed: u64,
    world: World,
    pool: Pool,
    /// What was tried, to see that the test tests something.
    tally: Tally,
}

#[derive(Default, Debug)]
struct Tally {
    candidates: usize,
    booked: usize,
    repaired: usize,
    rescued: usize,
    unplaced: usize,
    optimised: usize,
    tooling: usize,
    /// Moves that were found before something else was booked, and those of them that were kept.
    found: usize,
    kept: usize,
    moved: usize,
}

impl Planned {
    fn new(seed: u64) -> Planned {
        let world = World::new(seed);
        let pool = Pool::build(&world.state, world.now);
        Planned { seed, world, pool, tally: Tally::default() }
    }

    fn entry(&self, command: Command) -> Entry {
        self.world.entry(operator(), command)
    }

    fn apply(&mut self, command: Command) -> Result<Reply, millpool_alliance::Refusal> {
        let outcome = self.world.apply(self.entry(command));
        for machine in &outcome.changes.machines {
            self.pool.refresh(&self.world.state, machine);
        }
        let broken = invariants::violations(&self.world.state);
        assert_eq!(broken, Vec::<String>::new(), "seed {}", self.seed);
        outcome.result
    }

    /// Every candidate could be booked as it is; one is.
    fn book(&mut self) {
        let (order, terms) = (self.world.order(), self.world.terms());
        let state = self.world.state.as_of(self.world.now);
        let Ok(found) = quote::candidates(&state, &self.pool, &order, &terms) else { return };
        // The pool that was kept is as good as a new one.
        let anew = Pool::build(&state, self.world.now);
        let anew = quote::candidates(&state, &anew, &order, &terms).unwrap();
        let of = |all: &[quote::Candidate]| -> Vec<_> {
            all.iter().map(|c| (c.seats.clone(), c.ends.clone(), c.price)).collect()
        };
        assert_eq!(of(&found), of(&anew), "seed {}", self.seed);
        self.best_is_among(&found, &order, &terms);
        let order = std::sync::Arc::new(order);
        let mut commands = Vec::new();
        for candidate in &found {
            let command = Command::Book {
                buyer: PrincipalId::trusted("bo"),
                order: order.clone(),
                terms: terms.clone(),
                placement: candidate.seats.clone(),
                hold_s: if self.world.rng.chance(20) { 900 } else { 0 },
            };
            let (_, outcome) = self.world.trial(&self.entry(command.clone()));
            let booking = match outcome.result {
                Ok(Reply::Booking(booking)) => booking,
                other => match other {
                    Err(refusal) if refusal.reason == millpool_alliance::Reason::TooManyHolds => continue,
                    other => panic!("seed {}: {candidate:?}: {other:?}", self.seed),
                },
            };
            let places: Vec<_> = booking.steps.iter().map(|s| s.place.clone().unwrap()).collect();
            assert_eq!(
                places.iter().map(|p| p.end).collect::<Vec<_>>(),
                candidate.ends,
                "seed {}",
                self.seed
            );
            let changeovers: Vec<i64> = places.iter().map(|p| p.changeover_s).collect();
            assert_eq!(changeovers, candidate.changeovers_s, "seed {}", self.seed);
            assert_eq!(booking.completes_at(), Some(candidate.completes_at));
            assert_eq!(
                (&booking.promise.price, &booking.promise.carbon),
                (&candidate.price, &candidate.carbon)
            );
            commands.push(command);
            self.tally.candidates += 1;
        }
        if !commands.is_empty() {
            let command = self.world.rng.one(&commands).clone();
            self.apply(command).unwrap_or_else(|e| panic!("seed {}: {e}", self.seed));
            self.tally.booked += 1;
        }
    }

    /// What is booked without a quote, for which less is searched, is as good as the best of a quote.
    fn best_is_among(&self, found: &[quote::Candidate], order: &Order, terms: &Terms) {
        let by = |objective, c: &quote::Candidate| match objective {
            Objective::Fastest => (c.completes_at, c.price.total_fen()),
            Objective::Cheapest => (c.price.total_fen(), c.completes_at),
            Objective::Greenest => (c.carbon.total_g(), c.price.total_fen()),
        };
        let state = self.world.state.as_of(self.world.now);
        for objective in [Objective::Fastest, Objective::Cheapest, Objective::Greenest] {
            let best = quote::best(&state, &self.pool, order, &Terms { objective, ..terms.clone() }).unwrap();
            let quoted = found.iter().map(|c| by(objective, c)).min();
            assert_eq!(Some(by(objective, &best)), quoted, "seed {}, {objective:?}", self.seed);
        }
    }

    /// Whatever has lost its place gets one that is accepted, or there is none.
    fn repair(&mut self) {
        for id in repair::wanting(&self.world.state) {
            let state = self.world.state.as_of(self.world.now);
            let booking = state.bookings().get(&id).unwrap().clone();
            let Some(moves) = repair::moves(&state, &mut self.pool, &booking) else {
                self.tally.unplaced += 1;
                continue;
            };
            let command = Command::CommitPlan {
                kind: PlanKind::Repair,
                base_revision: self.world.state.revision(),
                moves: moves.clone(),
                figures: PlanFigures::default(),
            };
            let before = self.told();
            self.apply(command)
                .unwrap_or_else(|e| panic!("seed {}: {id} to {moves:?}: {e}\n{before}", self.seed));
            let now = self.world.state.bookings().get(&id).unwrap();
            let begun = now.steps.iter().rposition(|s| !s.is_planned()).map_or(0, |last| last + 1);
            let placed = now.steps[begun..].iter().all(|s| s.place.is_some());
            assert!(placed, "seed {}: {id} has its places", self.seed);
            let late_before = booking.lateness_s().filter(|late| *late > 0);
            if late_before.is_some() {
                let last = now.steps.last().and_then(|s| s.place.as_ref()).unwrap().end;
                assert!(last <= now.promise.by, "seed {}: {id} moves only to be in time", self.seed);
                self.tally.rescued += 1;
            }
            self.tally.repaired += 1;
        }
    }

    /// What the solver makes of the plan is accepted, costs what it says, and not less than it proves.
    fn optimise(&mut self, time_limit: Duration) {
        let ready_in_s = 120;
        let state = self.world.state.as_of(self.world.now + ready_in_s);
        let Some(problem) = Problem::of(&state) else { return };
        let options = solver::Options { time_limit, threads: 1, seed: self.seed, ..Default::default() };
        let flaws = problem.flaws();
        assert!(flaws.is_empty(), "seed {}: {flaws:#?}\n{}", self.seed, self.told());
        let solved = problem.solve(&options, |_| {});
        let solved = solved.unwrap_or_else(|e| {
            panic!("seed {}: the plan as it stands is one: {e}\n{}", self.seed, self.told())
        });
        let mut improvement =
            solved.unwrap_or_else(|| panic!("seed {}: the plan as it stands is never worse", self.seed));
        if self.world.rng.chance(50) {
            improvement = self.fit(&improvement, options, ready_in_s);
        }
        let f = improvement.figures;
        assert!(f.bound_fen <= f.cost_fen && f.cost_fen <= f.cost_before_fen, "seed {}: {f:?}", self.seed);
        let stood = self.told();
        let before = self.world.state.cost_fen();
        let tooling = self.tooling();
        self.world.now += ready_in_s;
        let command = Command::CommitPlan {
            kind: PlanKind::Optimisation,
            base_revision: self.world.state.revision(),
            moves: improvement.moves.clone(),
            figures: f,
        };
        // A hold may have expired meanwhile; then the plan is another.
        let expired = |s: &State| s.open_bookings().count();
        let mut later = self.world.state.clone();
        later.apply(self.world.revision + 1, &self.entry(Command::Tick));
        if expired(&later) != expired(&self.world.state) {
            return;
        }
        if let Err(refusal) = self.apply(command) {
            panic!("seed {}: {refusal}: {:?}\n{stood}", self.seed, improvement.moves);
        }
        let saved = before - self.world.state.cost_fen();
        let said = f.cost_before_fen - f.cost_fen;
        // A changeover that nothing needs any more goes, and what it cost with it.
        let as_said = if self.tooling() < tooling { saved >= said } else { saved == said };
        assert!(as_said, "seed {}: saved {saved}: {f:?}\n{stood}", self.seed);
        self.tally.optimised += 1;
        self.tally.tooling += tooling;
        self.tally.moved += improvement.moves.len();
    }

    /// Something is booked while the solver works, and what it found is fitted to that.
    fn fit(&mut self, found: &Improvement, options: solver::Options, ready_in_s: i64) -> Improvement {
        self.book();
        let state = self.world.state.as_of(self.world.now + ready_in_s);
        let problem = Problem::of(&state).unwrap();
        let options = solver::Options { iterations: Some(0), ..options };
        let fitted = problem.solve_with(&found.moves, &options).unwrap().unwrap();
        let kept = |m: &&Move| found.moves.contains(m);
        self.tally.found += found.moves.len();
        self.tally.kept += fitted.moves.iter().filter(kept).count();
        fitted
    }

    /// The plan as it stands, for people.
    fn told(&self) -> String {
        let mut text = format!("now {}\n", self.world.now);
        for station in self.world.state.stations().values() {
            let windows: Vec<_> = station.open.iter().map(|w| (w.start, w.end)).collect();
            text += &format!("{} set up for {:?}, open {windows:?}\n", station.id(), station.family);
            for o in &station.line {
                let split = if o.splittable { "splittable" } else { "" };
                let (start, end, change, work) = (o.start, o.end, o.changeover_s, o.work_s);
                text += &format!(
                    "  [{start}, {end}) {} {:?} {:?} changeover {change} work {work} {split}\n",
                    o.family, o.phase, o.purpose
                );
            }
        }
        for b in self.world.state.open_bookings() {
            let steps: Vec<_> = b.steps.iter().map(|s| (&s.place, &s.progress)).collect();
            text += &format!("{} {:?} promised by {}: {steps:?}\n", b.id, b.status, b.promise.by);
        }
        text
    }

    /// How many changeovers there are whose work was taken away.
    fn tooling(&self) -> usize {
        let lines = self.world.state.stations().values().flat_map(|s| &s.line);
        lines.filter(|o| o.purpose == Use::Tooling && o.phase == Phase::Planned).count()
    }

    fn happen(&mut self) {
        self.world.happen();
        self.pool.catch_up(&self.world.state);
    }
}

#[test]
fn what_is_quoted_can_be_booked_and_what_is_displaced_is_placed() {
    let mut total = Tally::default();
    for seed in seeds() {
        let mut planned = Planned::new(seed);
        for _ in 0..60 {
            match planned.world.rng.within(0, 9) {
                0..=4 => planned.book(),
                _ => planned.happen(),
            }
            if planned.world.rng.chance(70) {
                planned.repair();
            }
        }
        total.candidates += planned.tally.candidates;
        total.booked += planned.tally.booked;
        total.repaired += planned.tally.repaired;
        total.unplaced += planned.tally.unplaced;
        total.rescued += planned.tally.rescued;
    }
    println!("{total:?}");
    if seeds().len() >= 50 {
        assert!(total.candidates > 300 && total.booked > 250 && total.repaired > 50, "{total:?}");
        assert!(total.rescued > 0, "{total:?}");
    }
}

#[test]
fn an_optimised_plan_is_accepted_and_costs_what_the_solver_says() {
    let mut total = Tally::default();
    for seed in seeds() {
        let mut planned = Planned::new(seed);
        for round in 1..=40 {
            match planned.world.rng.within(0, 9) {
                0..=5 => planned.book(),
                _ => planned.happen(),
            }
            if planned.world.rng.chance(50) {
                planned.repair();
            }
            if round % 10 == 0 {
                planned.optimise(Duration::from_millis(30));
            }
        }
        total.optimised += planned.tally.optimised;
        total.moved += planned.tally.moved;
        total.tooling += planned.tally.tooling;
        total.found += planned.tally.found;
        total.kept += planned.tally.kept;
    }
    println!("{total:?}");
    if seeds().len() >= 50 {
        assert!(total.optimised > 80 && total.moved > 50 && total.tooling > 0, "{total:?}");
        assert!(2 * total.kept > total.found, "{total:?}");
    }
}
