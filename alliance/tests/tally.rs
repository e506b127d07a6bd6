//! What machines did with their time, as sentences.

mod scenes;

use millpool_alliance::account::Counted;
use millpool_alliance::command::{Event, Happening};
use millpool_alliance::line::MachineState::{self, *};
use millpool_alliance::registry::Policy;
use millpool_alliance::tally::{COUNT_MAX, Grain, SHIFTS_KEEP_S, Tally};
use millpool_alliance::*;
use scenes::build::*;

const EIGHT: i64 = MONDAY + 8 * HOUR;
const NINE: i64 = EIGHT + HOUR;
const NOON: i64 = EIGHT + 4 * HOUR;

/// Mill m1, lent from Monday at eight on, and an hour of work booked from then.
fn mill_with_work() -> (Alliance, BookingId) {
    let mut alliance = Alliance::empty();
    alliance.ok(operator(), Command::RaiseFormat { to: Format::NEWEST });
    alliance.ok(operator(), Command::PutMember { member: member("ya"), expected_revision: 0 });
    alliance.plant(plant("ya-1", "ya"));
    let mill = machine("m1", "ya-1", registry::MachineClass::Mill);
    alliance.lend(mill, &[(EIGHT, MONDAY + 60 * DAY)]);
    let booking = alliance.book_mill("a", 60, "m1", EIGHT);
    (alliance, booking)
}

fn change_policy(alliance: &mut Alliance, change: impl Fn(Policy) -> Policy) {
    let known = alliance.state.policy().clone();
    let expected_revision = known.revision;
    alliance.ok(operator(), Command::PutPolicy { policy: change(known), expected_revision });
}

fn at(alliance: &mut Alliance, now: i64, what: Happening) {
    alliance.now = now;
    assert_eq!(alliance.happens("m1", what), None);
}

fn is(alliance: &mut Alliance, now: i64, state: MachineState) {
    at(alliance, now, Happening::State(state));
}

fn of(alliance: &Alliance, grain: Grain) -> Vec<(i64, Tally)> {
    let tallies = alliance.state.tallies_of(&machine_id("m1"), grain, 0, i64::MAX);
    tallies.into_iter().map(|(start, Counted { tally, .. })| (start, tally)).collect()
}

fn whole(alliance: &Alliance) -> Tally {
    let mut whole = Tally::default();
    of(alliance, Grain::Day).iter().for_each(|(_, tally)| whole += tally);
    whole
}

fn in_state(tally: &Tally, state: MachineState) -> i64 {
    tally.seconds_of(|spent| spent.state == state)
}

/// Set up for ten minutes, producing for forty, held for ten, done at nine.
fn an_hours_work(alliance: &mut Alliance, booking: &BookingId) {
    is(alliance, EIGHT, Setup);
    at(alliance, EIGHT, started(booking, 0));
    is(alliance, EIGHT + 10 * MINUTE, Producing);
    is(alliance, EIGHT + 50 * MINUTE, Held);
    at(alliance, NINE, finished(booking, 0));
    is(alliance, NINE, Idle);
}

#[test]
fn every_second_counts_once_by_state_work_and_loan() {
    let (mut alliance, booking) = mill_with_work();
    an_hours_work(&mut alliance, &booking);
    alliance.tick(NOON);
    let shifts = of(&alliance, Grain::Shift);
    assert_eq!(shifts.iter().map(|(start, _)| *start).collect::<Vec<_>>(), [MONDAY, EIGHT]);
    let (night, morning) = (&shifts[0].1, &shifts[1].1);
    assert_eq!((in_state(night, Unknown), night.planned_busy_s(), night.unknown_s()), (8 * HOUR, 0, 0));
    assert_eq!(morning.planned_busy_s(), 4 * HOUR);
    assert_eq!(morning.busy_s(), HOUR);
    assert_eq!((morning.setup_s(), morning.production_s()), (10 * MINUTE, 40 * MINUTE));
    assert_eq!((in_state(morning, Held), in_state(morning, Idle)), (10 * MINUTE, 3 * HOUR));
    assert_eq!((morning.pieces_good, morning.run_planned_s), (1, HOUR));
    let days = of(&alliance, Grain::Day);
    let mut both = night.clone();
    both += morning;
    assert_eq!(days, [(MONDAY, both)]);
}

#[test]
fn what_is_heard_late_and_in_order_counts_where_it_belongs() {
    let (mut alliance, booking) = mill_with_work();
    let (mut late, same) = mill_with_work();
    an_hours_work(&mut alliance, &booking);
    late.tick(NOON);
    for (time, what) in [
        (EIGHT, Happening::State(Setup)),
        (EIGHT, started(&same, 0)),
        (EIGHT + 10 * MINUTE, Happening::State(Producing)),
        (EIGHT + 50 * MINUTE, Happening::State(Held)),
        (NINE, finished(&same, 0)),
        (NINE, Happening::State(Idle)),
    ] {
        assert_eq!(late.happened("m1", time, what), None);
    }
    alliance.tick(NOON);
    assert_eq!(of(&late, Grain::Shift), of(&alliance, Grain::Shift));
}

#[test]
fn time_is_cut_where_the_alliances_days_and_shifts_begin() {
    let (mut alliance, _) = mill_with_work();
    change_policy(&mut alliance, |policy| Policy { day_start_s: 16 * HOUR, shift_s: 12 * HOUR, ..policy });
    is(&mut alliance, MONDAY + 15 * HOUR, Producing);
    is(&mut alliance, MONDAY + 17 * HOUR, Idle);
    alliance.tick(MONDAY + 29 * HOUR);
    let producing = |grain| -> Vec<_> {
        let counted = of(&alliance, grain).into_iter();
        counted.map(|(start, tally)| ((start - MONDAY) / HOUR, in_state(&tally, Producing) / HOUR)).collect()
    };
    assert_eq!(producing(Grain::Day), [(-8, 1), (16, 1)]);
    assert_eq!(producing(Grain::Shift), [(-8, 0), (4, 1), (16, 1), (28, 0)]);
}

#[test]
fn what_was_lent_stays_so_when_the_offer_is_taken_back() {
    let (mut alliance, _) = mill_with_work();
    alliance.tick(NOON);
    let offer = OfferId::trusted("o-m1");
    alliance.ok(operator(), Command::WithdrawOffer { offer, accept_disturbance: true });
    alliance.tick(NOON + 2 * HOUR);
    assert_eq!(whole(&alliance).planned_busy_s(), 4 * HOUR);
    // Again from three on: what begins in the past is lent from now.
    alliance.ok(operator(), Command::CreateOffer(offer_again()));
    alliance.tick(NOON + 3 * HOUR);
    is(&mut alliance, NOON + 3 * HOUR, Idle);
    assert_eq!(whole(&alliance).planned_busy_s(), 5 * HOUR);
}

#[test]
fn lent_time_has_no_seam_where_a_machine_fails_and_comes_back_in_the_middle_of_a_minute() {
    let (mut alliance, _) = mill_with_work();
    for n in 0..10 {
        at(&mut alliance, EIGHT + 7 + n * 61, down(NOON));
        at(&mut alliance, EIGHT + 40 + n * 61, Happening::Up);
    }
    alliance.tick(NINE + 13);
    assert_eq!(whole(&alliance).planned_busy_s(), HOUR + 13);
}

fn offer_again() -> offer::Offer {
    offer("o-again", "m1", &[(EIGHT, EIGHT + 20 * DAY)])
}

#[test]
fn maintenance_is_not_planned_time_and_unknown_time_is_no_production() {
    let (mut alliance, booking) = mill_with_work();
    at(&mut alliance, EIGHT, started(&booking, 0));
    is(&mut alliance, NINE, Maintenance);
    alliance.tick(NINE + HOUR);
    let tally = whole(&alliance);
    assert_eq!((tally.planned_busy_s(), tally.unknown_s()), (HOUR, HOUR));
    assert_eq!((tally.busy_s(), tally.busy_besides_s(), tally.production_s()), (HOUR, HOUR, 0));
}

#[test]
fn work_whose_start_was_never_told_was_in_hand_since_it_was_planned() {
    let (mut alliance, booking) = mill_with_work();
    at(&mut alliance, NINE, finished(&booking, 0));
    assert_eq!(whole(&alliance).busy_s(), HOUR);
}

#[test]
fn an_end_that_another_machine_of_the_plant_tells_ends_it_where_it_was_in_hand() {
    let (mut alliance, booking) = mill_with_work();
    alliance.lend(machine("m2", "ya-1", registry::MachineClass::Mill), &[(EIGHT, MONDAY + 10 * DAY)]);
    at(&mut alliance, EIGHT, started(&booking, 0));
    alliance.now = NINE;
    assert_eq!(alliance.happens("m2", finished(&booking, 0)), None);
    alliance.tick(NOON);
    let elsewhere = alliance.state.tallies_of(&machine_id("m2"), Grain::Day, 0, i64::MAX);
    assert_eq!(elsewhere[&MONDAY].tally.busy_s(), 0);
    assert_eq!((whole(&alliance).busy_s(), whole(&alliance).pieces_good), (HOUR, 1));
}

#[test]
fn an_end_that_is_told_late_leaves_in_hand_what_was_begun_after_it() {
    let (mut alliance, first) = mill_with_work();
    let second = alliance.book_mill("a", 60, "m1", NINE);
    at(&mut alliance, EIGHT, started(&first, 0));
    at(&mut alliance, NINE, started(&second, 0));
    at(&mut alliance, NINE + 10 * MINUTE, finished(&first, 0));
    is(&mut alliance, NINE + 20 * MINUTE, Producing);
    alliance.tick(NINE + HOUR);
    assert_eq!((whole(&alliance).busy_s(), whole(&alliance).production_s()), (2 * HOUR, 40 * MINUTE));
}

#[test]
fn a_time_that_cannot_be_is_when_it_was_heard_of() {
    let (mut alliance, booking) = mill_with_work();
    alliance.now = NINE;
    assert_eq!(alliance.happened("m1", 0, started(&booking, 0)), None);
    alliance.now = NOON;
    assert_eq!(alliance.happened("m1", 7, finished(&booking, 0)), None);
    alliance.tick(NOON + HOUR);
    assert_eq!(whole(&alliance).busy_s(), NOON - NINE);
}

#[test]
fn what_ends_with_a_shift_is_that_shifts() {
    let (mut alliance, _) = mill_with_work();
    let last = alliance.book_mill("a", 60, "m1", EIGHT + 7 * HOUR);
    at(&mut alliance, EIGHT + 7 * HOUR, started(&last, 0));
    at(&mut alliance, EIGHT + 8 * HOUR, finished(&last, 0));
    let shifts = of(&alliance, Grain::Shift);
    assert_eq!(shifts.iter().map(|(_, tally)| tally.pieces_good).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_shift_that_was_longer_before_holds_what_is_counted_of_it() {
    let (mut alliance, booking) = mill_with_work();
    change_policy(&mut alliance, |policy| Policy { shift_s: DAY, ..policy });
    at(&mut alliance, EIGHT, started(&booking, 0));
    is(&mut alliance, EIGHT + 10 * HOUR, Idle);
    change_policy(&mut alliance, |policy| Policy { shift_s: HOUR, ..policy });
    at(&mut alliance, EIGHT + 11 * HOUR, scrapped(&booking, 0));
    // An end in the first hour of that day is told late.
    assert_eq!(alliance.happened("m1", MONDAY + 30 * MINUTE, finished(&booking, 0)), None);
    for ((_, _, start), counted) in alliance.state.tallies().iter() {
        let seconds: i64 = counted.tally.seconds().map(|(_, seconds)| seconds).sum();
        assert!(seconds <= counted.end - start, "{start}: {counted:?}");
    }
}

/// The plant is not heard since then, or is again.
fn silent(alliance: &mut Alliance, since: Option<i64>) {
    let plant = PlantId::trusted("ya-1");
    assert_eq!(alliance.ok(operator(), Command::NoteSilence { plant, since }), Reply::Done);
}

fn state_now(alliance: &Alliance) -> (MachineState, i64) {
    alliance.state.known_state(alliance.station("m1"))
}

/// How long it was in each state from eight on, minutes.
fn minutes(alliance: &Alliance) -> Vec<(MachineState, i64)> {
    let of = |state| whole(alliance).seconds_of(|spent| spent.lent && spent.state == state) / MINUTE;
    [Unknown, Idle, Producing].map(|state| (state, of(state))).into()
}

#[test]
fn of_a_plant_that_is_not_heard_nobody_knows_until_it_tells() {
    let (mut alliance, _) = mill_with_work();
    is(&mut alliance, EIGHT, Producing);
    alliance.tick(NOON);
    silent(&mut alliance, Some(NINE));
    assert_eq!(state_now(&alliance), (Unknown, NINE));
    assert_eq!(minutes(&alliance), [(Unknown, 180), (Idle, 0), (Producing, 60)]);
    // Another leader does not know since when.
    silent(&mut alliance, Some(NOON));
    assert_eq!(state_now(&alliance), (Unknown, NINE));
    // It was cut off, and has kept what happened.
    let again = attach("outbox-ya-1");
    alliance.ok(operator(), again);
    assert_eq!(alliance.happened("m1", NINE + 30 * MINUTE, Happening::State(Idle)), None);
    silent(&mut alliance, None);
    assert_eq!(state_now(&alliance), (Idle, NINE + 30 * MINUTE));
    assert_eq!(minutes(&alliance), [(Unknown, 0), (Idle, 150), (Producing, 90)]);
    assert_eq!(alliance.state.silences().len(), 0);
}

#[test]
fn what_a_plant_that_begins_anew_does_not_tell_stays_unknown() {
    let (mut alliance, _) = mill_with_work();
    is(&mut alliance, EIGHT, Producing);
    alliance.tick(NOON);
    silent(&mut alliance, Some(NINE));
    alliance.ok(operator(), attach("another"));
    silent(&mut alliance, None);
    assert_eq!(state_now(&alliance), (Unknown, NINE));
    alliance.now = NOON + HOUR;
    let event = Event { seq: 1, at: NOON, machine: machine_id("m1"), what: Happening::State(Idle) };
    let (plant, outbox) = (PlantId::trusted("ya-1"), "another".to_owned());
    alliance.ok(operator(), Command::Report { plant, outbox, events: vec![event] });
    assert_eq!(minutes(&alliance), [(Unknown, 180), (Idle, 60), (Producing, 60)]);
}

#[test]
fn a_restored_alliance_has_heard_of_nobody_since() {
    let (mut alliance, _) = mill_with_work();
    is(&mut alliance, EIGHT, Producing);
    alliance.tick(NINE);
    alliance.state = alliance.state.clone().restored("old", NOON, "a drill");
    assert_eq!(state_now(&alliance), (Unknown, NINE));
    let back = alliance.state.as_of(NOON);
    let tallies = back.tallies_of(&machine_id("m1"), Grain::Day, 0, i64::MAX);
    assert_eq!(tallies[&MONDAY].tally.unknown_s(), 3 * HOUR);
}

#[test]
fn only_of_a_plant_that_has_an_agent_can_silence_be_told() {
    let (mut alliance, _) = mill_with_work();
    let silence = |since| Command::NoteSilence { plant: PlantId::trusted("ya-1"), since };
    assert_eq!(alliance.refused(operator(), silence(Some(EIGHT))).reason, Reason::UnknownId);
    alliance.tick(NINE);
    is(&mut alliance, NINE, Idle);
    silent(&mut alliance, Some(NOON));
    assert_eq!(state_now(&alliance), (Unknown, NINE), "not since a time that is to come");
    let mut older = Alliance::empty();
    assert_eq!(older.refused(operator(), silence(None)).reason, Reason::WrongStatus);
}

fn attach(outbox: &str) -> Command {
    Command::AttachAgent { plant: PlantId::trusted("ya-1"), agent: "agent".into(), outbox: outbox.into() }
}

#[test]
fn no_sum_overflows() {
    let mut sum = Tally::default();
    sum.carbon_g = i64::MAX;
    let more = sum.clone();
    sum += &more;
    assert_eq!(sum.carbon_g, COUNT_MAX);
}

#[test]
fn scrap_counts_and_what_comes_after_it_is_not_in_hand() {
    let (mut alliance, booking) = mill_with_work();
    at(&mut alliance, EIGHT, started(&booking, 0));
    at(&mut alliance, EIGHT + 30 * MINUTE, scrapped(&booking, 0));
    alliance.tick(NOON);
    let tally = whole(&alliance);
    assert_eq!((tally.busy_s(), tally.pieces_scrapped, tally.pieces_good), (30 * MINUTE, 1, 0));
    assert_eq!((tally.run_planned_s, tally.run_planned_good_s), (HOUR, 0));
}

#[test]
fn energy_is_tagged_and_emits_by_the_factor_of_its_time() {
    let (mut alliance, booking) = mill_with_work();
    at(&mut alliance, EIGHT, started(&booking, 0));
    let energy = |energy_measured, done| match done {
        Happening::Finished { booking, operation, pieces_good, pieces_scrapped, measured_s, .. } => {
            let energy_wh = 10_000;
            Happening::Finished {
                booking,
                operation,
                pieces_good,
                pieces_scrapped,
                measured_s,
                energy_wh,
                energy_measured,
            }
        }
        other => other,
    };
    at(&mut alliance, NINE, energy(true, finished(&booking, 0)));
    let emitted = whole(&alliance).carbon_g;
    assert_eq!(emitted, 5_227, "10 kWh at 0.5227 kg/kWh");
    change_policy(&mut alliance, |mut policy| {
        policy.grid_factors.iter_mut().for_each(|factor| factor.mg_per_kwh *= 2);
        policy
    });
    let second = alliance.book_mill("a", 60, "m1", NOON);
    at(&mut alliance, NOON + HOUR, energy(false, finished(&second, 0)));
    let tally = whole(&alliance);
    assert_eq!((tally.energy_measured_wh, tally.energy_modelled_wh), (10_000, 10_000));
    assert_eq!(tally.carbon_g, 3 * emitted);
}

#[test]
fn more_pieces_than_can_be_are_not_believed() {
    let (mut alliance, booking) = mill_with_work();
    let done = Happening::Finished {
        booking,
        operation: 0,
        pieces_good: u32::MAX,
        pieces_scrapped: u32::MAX,
        measured_s: i64::MAX,
        energy_wh: u64::MAX,
        energy_measured: true,
    };
    at(&mut alliance, NINE, done);
    let tally = whole(&alliance);
    assert_eq!((tally.pieces_good, tally.pieces_scrapped), (100, 100));
}

#[test]
fn shifts_are_known_for_weeks_and_days_for_longer() {
    let (mut alliance, _) = mill_with_work();
    for day in 0..50 {
        is(&mut alliance, MONDAY + day * DAY + HOUR, if day % 2 == 0 { Idle } else { Producing });
    }
    let now = alliance.state.now();
    let shifts = of(&alliance, Grain::Shift);
    assert!(shifts[0].0 >= now - SHIFTS_KEEP_S && shifts[0].0 < now - SHIFTS_KEEP_S + DAY, "{:?}", shifts[0]);
    assert_eq!(of(&alliance, Grain::Day).len(), 50);
    // A year of silence comes as one stretch, of which only what is known counts.
    is(&mut alliance, MONDAY + 1000 * DAY, Off);
    assert!(of(&alliance, Grain::Day).len() <= 402);
}

#[test]
fn nothing_is_counted_before_every_coordinator_knows_how() {
    let mut alliance = Alliance::mills(&["m1"]);
    is(&mut alliance, EIGHT, Producing);
    is(&mut alliance, NINE, Idle);
    assert_eq!(of(&alliance, Grain::Day), []);
    let policy = Policy { shift_s: 6 * HOUR, ..alliance.state.policy().clone() };
    let expected_revision = policy.revision;
    let refusal = alliance.refused(operator(), Command::PutPolicy { policy, expected_revision });
    assert_eq!(refusal.field, "policy.shift_s");
    alliance.ok(operator(), Command::RaiseFormat { to: Format::NEWEST });
    is(&mut alliance, NOON, Producing);
    let tally = whole(&alliance);
    assert_eq!(in_state(&tally, Idle), 3 * HOUR, "from the moment on at which the format rose");
    assert_eq!(tally.planned_busy_s(), 3 * HOUR);
}

#[test]
fn a_policy_whose_shifts_make_no_day_is_refused() {
    let (mut alliance, _) = mill_with_work();
    for (field, day_start_s, shift_s) in [
        ("policy.day_start_s", -60, 0),
        ("policy.day_start_s", DAY, 0),
        ("policy.day_start_s", 61, 0),
        ("policy.shift_s", 0, 60),
        ("policy.shift_s", 0, 7 * HOUR),
        ("policy.shift_s", 0, 2 * DAY),
    ] {
        let policy = Policy { day_start_s, shift_s, ..alliance.state.policy().clone() };
        let expected_revision = policy.revision;
        let refusal = alliance.refused(operator(), Command::PutPolicy { policy, expected_revision });
        assert_eq!(refusal.field, field, "{day_start_s} {shift_s}");
    }
}
