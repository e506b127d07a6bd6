//! Repair: work that a disturbance has left without a place gets one, in time for its promise if any place
//! is, else as soon as it can be. Work that is late where it stands moves if that makes it in time. Nothing
//! else moves.

use super::pool::{Freedom, Pool};
use millpool_alliance::line::Station;
use millpool_alliance::{Booking, BookingId, MachineId, Move, State};
use millpool_solver as solver;
use std::collections::{BTreeMap, BTreeSet};

/// Whether it is at risk, and something of it can still be moved.
pub fn is_wanting(booking: &Booking) -> bool {
    booking.at_risk() && booking.steps.last().is_some_and(|s| s.is_planned())
}

/// The bookings that a repair may help, the most urgent promise first.
pub fn wanting(state: &State) -> Vec<BookingId> {
    let mut found: Vec<_> =
        state.open_bookings().filter(|b| is_wanting(b)).map(|b| (b.promise.by, b.id)).collect();
    found.sort();
    found.into_iter().map(|(_, id)| id).collect()
}

/// Places for the steps of `booking` from its first displaced one on; where none is displaced, for all that
/// are to come, in time. None if no open time is left.
pub fn moves(state: &State, pool: &mut Pool, booking: &Booking) -> Option<Vec<Move>> {
    // What a plant has passed over for a later step has no place any more between its neighbours.
    let begun = booking.steps.iter().rposition(|s| !s.is_planned()).map_or(0, |last| last + 1);
    let displaced = booking.steps.iter().skip(begun).position(|s| s.place.is_none());
    let from = begun + displaced.unwrap_or(0);
    let in_time = booking.steps.last()?.place.as_ref().is_some_and(|p| p.end <= booking.promise.by);
    if from == booking.steps.len() || (displaced.is_none() && in_time) {
        return None;
    }
    let lifted = lift(state, pool, booking, from);
    let found = match displaced {
        Some(_) => place(state, pool, booking, from, None),
        None => place(state, pool, booking, from, pool.budget_left(state, booking, from)),
    };
    for machine in lifted {
        pool.refresh(state, &machine);
    }
    found
}

/// Takes the planned steps from `from` on out of the pool, so that they can be placed together.
fn lift(state: &State, pool: &mut Pool, booking: &Booking, from: usize) -> BTreeSet<MachineId> {
    let mut lifted: BTreeMap<MachineId, Station> = BTreeMap::new();
    for (k, step) in booking.steps.iter().enumerate().skip(from) {
        let (true, Some(place)) = (step.is_planned(), &step.place) else { continue };
        let Some(station) = state.stations().get(&place.machine) else { continue };
        let station = lifted.entry(place.machine.clone()).or_insert_with(|| Station::clone(station));
        station.vacate(&booking.id, k as u32);
    }
    let machines = lifted.keys().cloned().collect();
    for mut station in lifted.into_values() {
        // As the state does before it seats anything.
        station.prune(state.now());
        station.settle();
        pool.pretend(station);
    }
    machines
}

fn place(
    state: &State,
    pool: &Pool,
    booking: &Booking,
    from: usize,
    budget: Option<i64>,
) -> Option<Vec<Move>> {
    let mut bare = booking.clone();
    for step in bare.steps.iter_mut().skip(from) {
        if step.is_planned() {
            step.place = None;
        }
    }
    let (first, mut job) = pool.job_of_booking(state, &bare, Freedom::All)?;
    // Steps before `from` that are planned keep their places.
    let kept = from.checked_sub(first)?;
    if kept > 0 {
        job = after_kept(state, pool, booking, from, job, kept)?;
    }
    job.deadline = Some(pool.tick(booking.promise.by).max(0));
    job.budget = job.budget.or(budget);
    let search = |job: &solver::Job| solver::place(&pool.shop, &pool.lines, job, solver::Cost::Plan);
    let in_time = search(&job).into_iter().min_by_key(|p| (p.cost, p.completion));
    // Late is better than nowhere, and no better than where it stands.
    let stands = booking.steps[from].place.is_some();
    let chosen = in_time.or_else(|| {
        job.deadline = None;
        (!stands).then(|| search(&job).into_iter().next()).flatten()
    })?;
    let seats = pool.seats(&chosen);
    Some(
        seats
            .into_iter()
            .enumerate()
            .map(|(i, (machine, start))| Move {
                booking: booking.id,
                operation: (from + i) as u32,
                machine,
                start,
            })
            .collect(),
    )
}

/// The rest of a job behind the operations that keep their places: released when the last of them ends, at
/// its plant.
fn after_kept(
    state: &State,
    pool: &Pool,
    booking: &Booking,
    from: usize,
    job: solver::Job,
    kept: usize,
) -> Option<solver::Job> {
    let last = booking.steps[from - 1].place.as_ref()?;
    let plant = state.stations().get(&last.machine)?.machine.plant.clone();
    Some(solver::Job {
        release: pool.tick(last.end).max(0),
        origin: pool.plant(&plant),
        ops: job.ops.into_iter().skip(kept).collect(),
        ..job
    })
}
