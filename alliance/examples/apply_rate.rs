//! How many bookings a second one core applies with a full plan, and how much memory the state takes.
//!
//! `cargo run --release -p millpool-alliance --example apply_rate`

#[path = "../tests/scenes/mod.rs"]
mod scenes;

use millpool_alliance::registry::MachineClass::Mill;
use millpool_alliance::*;
use scenes::build::*;
use std::time::Instant;

const MACHINES: i64 = 300;
const PLANNED: i64 = 2_400;
const BOOKINGS: i64 = 200_000;
const MEASURED: i64 = 20_000;

fn apply(state: &mut State, caller: Caller, command: Command) -> Outcome {
    let entry = Entry { at: state.now().max(MONDAY), caller, request: None, command };
    state.apply(state.revision() + 1, &entry)
}

/// The alliance's resident memory, MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Books half an hour in the `n`-th place of the pool: a machine in turn, an hour later each round.
fn book_nth(state: &mut State, n: i64) -> BookingId {
    let (id, start) = (format!("m{}", n % MACHINES), MONDAY + HOUR + n / MACHINES * HOUR);
    let asked = Order { due: MONDAY + 300 * DAY, ..order(vec![operation(Mill, "a", 30)]) };
    let command = book(asked, terms(Objective::Cheapest), &[(&id, start)], 0);
    match apply(state, buyer("bo"), command).result {
        Ok(Reply::Booking(booking)) => booking.id,
        other => panic!("a booking, not {other:?}"),
    }
}

/// Books and cancels, so that the plan stays as full as it is and the history grows. Answers with bookings
/// a second.
fn churn(state: &mut State, count: i64) -> i64 {
    let begun = Instant::now();
    for n in 0..count {
        let booking = book_nth(state, PLANNED + n % MACHINES);
        let cancel = Command::Cancel { booking, reason: String::new() };
        if let Err(refusal) = apply(state, buyer("bo"), cancel).result {
            panic!("{refusal}");
        }
    }
    count * 1000 / (begun.elapsed().as_millis().max(1) as i64)
}

fn main() {
    let ids: Vec<String> = (0..MACHINES).map(|n| format!("m{n}")).collect();
    let mut state = State::default();
    apply(&mut state, operator(), Command::PutPolicy { policy: policy(), expected_revision: 0 });
    apply(&mut state, operator(), Command::PutMember { member: member("ya"), expected_revision: 0 });
    apply(&mut state, operator(), Command::PutPlant { plant: plant("ya-1", "ya"), expected_revision: 0 });
    for id in &ids {
        let machine = machine(id, "ya-1", Mill);
        apply(&mut state, operator(), Command::PutMachine { machine, expected_revision: 0 });
        // Sixty days of two shifts: as many windows as a real offer has.
        let days: Vec<(i64, i64)> =
            (0..60).map(|d| (MONDAY + d * DAY, MONDAY + d * DAY + 23 * HOUR)).collect();
        apply(&mut state, operator(), Command::CreateOffer(offer(&format!("o-{id}"), id, &days)));
    }
    (0..PLANNED).for_each(|n| {
        book_nth(&mut state, n);
    });
    println!("{MACHINES} machines, {PLANNED} bookings in the plan, {} MiB resident", resident_mib());
    let rate = churn(&mut state, MEASURED);
    println!("{rate} bookings/s, each booked and cancelled, over {MEASURED}");
    churn(&mut state, BOOKINGS - MEASURED - PLANNED);
    println!("{} bookings known: {} MiB resident", state.bookings().len(), resident_mib());
    println!("{} bookings/s then", churn(&mut state, MEASURED));
}
