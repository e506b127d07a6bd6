//! The whole state held against every rule. Slow on purpose: each rule is worked out from the tables
//! alone, not from what `apply` keeps on the side. For tests, simulations and audits.

use crate::account::Counted;
use crate::booking::{Progress, Status};
use crate::eligibility;
use crate::line::{Phase, Station, Use};
use crate::price;
use crate::remote::Session;
use crate::state::State;
use crate::window::TICK_S;
use std::collections::BTreeSet;

/// Every rule that the state breaks, in words; empty when all hold.
pub fn violations(state: &State) -> Vec<String> {
    let mut found = Vec::new();
    for station in state.stations().values() {
        check_line(state, station, &mut found);
    }
    for booking in state.bookings().values() {
        check_booking(state, booking, &mut found);
    }
    for session in state.sessions().values() {
        check_session(state, session, &mut found);
    }
    check_time(state, &mut found);
    for (plant, since) in state.silences().iter() {
        if state.agents().get(plant).is_none() || *since > state.now() {
            found.push(format!("{plant}: is silent since {since}, and has no agent, or that is to come"));
        }
    }
    check_derived(state, &mut found);
    found
}

/// No second is counted twice, and none of those that nobody has lived.
fn check_time(state: &State, found: &mut Vec<String>) {
    for ((machine, grain, start), Counted { end, tally }) in state.tallies().iter().map(|(k, v)| (k, &**v)) {
        let Some(account) = state.accounts().get(machine) else {
            found.push(format!("{machine}: its time is counted, and it has no account"));
            continue;
        };
        let lived = (account.until.min(*end) - account.since.max(*start)).max(0);
        let counted: i64 = tally.seconds().map(|(_, seconds)| seconds).sum();
        if counted > lived || counted > end - start || tally.seconds().any(|(_, seconds)| seconds <= 0) {
            found.push(format!(
                "{machine}: {counted} s are counted of the {grain:?} from {start}, of {lived}"
            ));
        }
    }
    for account in state.accounts().values().filter(|a| a.since > a.until || a.until > state.now()) {
        found.push(format!("{}: its time is counted to {}", account.machine, account.until));
    }
}

/// A session that is open stands on its ground, alone on its machine.
fn check_session(state: &State, session: &Session, found: &mut Vec<String>) {
    let Session { id, booking, operation, machine, closes_at, .. } = session;
    let Some(known) = state.bookings().get(booking) else {
        return found.push(format!("{id}: is of {booking}, which nobody knows"));
    };
    if !session.is_open() {
        return;
    }
    let step = known.steps.get(*operation as usize).filter(|step| !step.is_finished());
    let place = step.and_then(|step| step.place.as_ref());
    let stands = place.is_some_and(|place| place.machine == *machine && place.end == *closes_at);
    if !stands
        || known.status != Status::Confirmed
        || known.buyer != session.holder
        || *closes_at <= state.now()
    {
        found.push(format!("{id}: is open, and its ground is gone"));
    }
    let others = state.sessions().values().filter(|other| other.is_open() && other.machine == *machine);
    if others.count() != 1 {
        found.push(format!("{id}: is not the only open session of {machine}"));
    }
}

/// Occupations do not overlap, planned ones obey the rule, and each is known to its booking.
fn check_line(state: &State, station: &Station, found: &mut Vec<String>) {
    let id = station.id();
    let mut seen = BTreeSet::new();
    let mut family = station.family.as_deref();
    for (at, o) in station.line.iter().enumerate() {
        if o.phase == Phase::Planned {
            if station
                .line
                .iter()
                .enumerate()
                .any(|(k, other)| k != at && o.window().overlaps(&other.window()))
            {
                found.push(format!("{id}: the occupation at {} overlaps another", o.start));
            }
            let changeover_s = station.machine.changeover_s(family, &o.family);
            let end = station.open.finish(o.start, changeover_s + o.work_s, o.splittable);
            if changeover_s != o.changeover_s || end != Some(o.end) || o.start % TICK_S != 0 {
                found.push(format!(
                    "{id}: the occupation at {} ends at {}, by the rule at {end:?}",
                    o.start, o.end
                ));
            }
        }
        if let Use::Work { booking, operation } = &o.purpose {
            if !seen.insert((*booking, *operation)) {
                found.push(format!("{id}: operation {operation} of {booking} stands twice"));
            }
            let step = state.bookings().get(booking).and_then(|b| b.steps.get(*operation as usize));
            let place = step.and_then(|s| s.place.as_ref());
            let known =
                place.is_some_and(|p| p.machine == *id && (o.phase != Phase::Planned || p.start == o.start));
            if !known {
                found.push(format!(
                    "{id}: operation {operation} of {booking} stands here and does not know it"
                ));
            }
        }
        family = Some(&o.family);
    }
}

/// Steps stand where they say, in order, on machines that may; promises are kept or a disturbance is on
/// record.
fn check_booking(state: &State, booking: &crate::Booking, found: &mut Vec<String>) {
    let id = &booking.id;
    if booking.steps.len() != booking.order.route.len() {
        found.push(format!(
            "{id}: {} steps for {} operations",
            booking.steps.len(),
            booking.order.route.len()
        ));
        return;
    }
    let mut arrived: Option<(i64, crate::MachineId)> = None;
    for (k, step) in booking.steps.iter().enumerate() {
        let Some(place) = &step.place else {
            if booking.is_open() && booking.disturbances.is_empty() {
                found.push(format!("{id}: operation {k} has no place and nothing has disturbed it"));
            }
            arrived = None;
            continue;
        };
        if !booking.is_open() && step.is_planned() {
            found.push(format!("{id}: is {:?} and operation {k} still has a place", booking.status));
        }
        check_step(state, booking, k, arrived.take(), found);
        arrived = Some((place.end, place.machine.clone()));
    }
    let all_done = booking.steps.iter().all(|s| s.is_finished());
    if all_done != (booking.status == Status::Completed) {
        found.push(format!("{id}: is {:?}, all operations finished: {all_done}", booking.status));
    }
    let late = booking.lateness_s().is_some_and(|late| late > 0);
    if late && booking.status != Status::Cancelled && booking.disturbances.is_empty() {
        found.push(format!("{id}: completes after its promise and nothing has disturbed it"));
    }
    // Once work has begun, the plant may have begun it on a dearer machine: its own affair, as nobody pays
    // more than was promised.
    if booking.disturbances.is_empty()
        && booking.is_open()
        && booking.steps.iter().all(|s| s.is_planned())
        && state.price_as_placed(booking).is_some_and(|fen| fen > booking.promise.price.total_fen())
    {
        found.push(format!("{id}: costs more than promised and nothing has disturbed it"));
    }
    if (booking.status == Status::Held) != (booking.hold_expires_at != 0) {
        found.push(format!(
            "{id}: is {:?} and its hold expires at {}",
            booking.status, booking.hold_expires_at
        ));
    }
}

fn check_step(
    state: &State,
    booking: &crate::Booking,
    k: usize,
    arrived: Option<(i64, crate::MachineId)>,
    found: &mut Vec<String>,
) {
    let (id, step, wanted) = (&booking.id, &booking.steps[k], &booking.order.route[k]);
    let Some(place) = &step.place else { return };
    let Some(station) = state.stations().get(&place.machine) else {
        found.push(format!("{id}: operation {k} stands on {}, which nobody has", place.machine));
        return;
    };
    match (&step.progress, station.find(id, k as u32).map(|at| &station.line[at])) {
        (Progress::Planned, Some(o)) => {
            if (o.start, o.end, o.changeover_s) != (place.start, place.end, place.changeover_s) {
                found
                    .push(format!("{id}: operation {k} is at {}, its machine says {}", place.start, o.start));
            }
            if o.work_s != price::reckon(wanted, booking.order.quantity, &station.machine).work_s {
                found.push(format!("{id}: operation {k} has the wrong length"));
            }
            if !eligibility::eligible(&booking.order, wanted, &station.machine) {
                found.push(format!("{id}: operation {k} may not run on {}", place.machine));
            }
            if place.start < booking.order.release {
                found.push(format!("{id}: operation {k} starts before its release"));
            }
            if let Some((end, from)) = arrived
                && place.start < end + state.trip(&from, &place.machine).seconds
            {
                found.push(format!("{id}: operation {k} starts before its part arrives"));
            }
        }
        (Progress::Planned, None) => found.push(format!("{id}: operation {k} is planned and stands nowhere")),
        // Work in hand stands nowhere once other work was begun after it: its end was never reported.
        _ => {}
    }
}

/// What is kept on the side equals what the tables say.
fn check_derived(state: &State, found: &mut Vec<String>) {
    let again = State::from_image(state.image());
    for (what, same) in [
        ("open bookings", again.open == state.open),
        ("bookings that are over", again.over == state.over),
        ("bookings by buyer", again.of_buyer == state.of_buyer),
        ("holds", again.holds == state.holds),
        ("answers by expiry", again.answers_by_expiry == state.answers_by_expiry),
        ("tokens", again.tokens == state.tokens),
        ("sessions by booking", again.sessions_of == state.sessions_of),
        ("sessions by end", again.sessions_by_end == state.sessions_by_end),
        ("open sessions", again.open_sessions == state.open_sessions),
        ("digest of sessions", state.sessions().digest() == state.sessions().digest_anew()),
        ("digest of accounts", state.accounts().digest() == state.accounts().digest_anew()),
        ("digest of tallies", state.tallies().digest() == state.tallies().digest_anew()),
        ("hash", again.hash() == state.hash()),
        ("digest of bookings", state.bookings().digest() == state.bookings().digest_anew()),
        ("digest of machines", state.stations().digest() == state.stations().digest_anew()),
    ] {
        if !same {
            found.push(format!("{what}: what is kept differs from what the tables say"));
        }
    }
}
