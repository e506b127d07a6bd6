//! What plants report and what it does to the plan, as sentences.

mod scenes;

use millpool_alliance::booking::{DisturbanceKind, Progress, Status};
use millpool_alliance::command::{Event, Happening};
use millpool_alliance::line::MachineState;
use millpool_alliance::refusal::Reason;
use millpool_alliance::registry::{MachineClass::*, Plant};
use millpool_alliance::*;
use scenes::build::*;

const EIGHT: i64 = MONDAY + 8 * HOUR;
const NINE: i64 = EIGHT + HOUR;
const TEN: i64 = NINE + HOUR;

/// Mills m1 and m2, with an hour in family a from eight and another from nine on m1.
fn two_in_a_row() -> (Alliance, BookingId, BookingId) {
    let mut alliance = Alliance::mills(&["m1", "m2"]);
    let first = alliance.book_mill("a", 60, "m1", EIGHT);
    let second = alliance.book_mill("a", 60, "m1", NINE);
    (alliance, first, second)
}

/// One booking of an hour on m1 from eight and an hour on m2 from nine.
fn one_after_another() -> (Alliance, BookingId) {
    let mut alliance = Alliance::mills(&["m1", "m2"]);
    let route = order(vec![operation(Mill, "a", 60), operation(Mill, "a", 60)]);
    let id = alliance.book(route, &[("m1", EIGHT), ("m2", NINE)]);
    (alliance, id)
}

fn causes(alliance: &Alliance, id: &BookingId) -> Vec<DisturbanceKind> {
    alliance.booking(id).disturbances.iter().map(|d| d.kind).collect()
}

fn at(alliance: &mut Alliance, now: i64, machine: &str, what: Happening) {
    alliance.now = now;
    assert_eq!(alliance.happens(machine, what), None);
}

#[test]
fn work_as_planned_completes_its_booking_and_disturbs_nobody() {
    let (mut alliance, first, second) = two_in_a_row();
    at(&mut alliance, EIGHT, "m1", started(&first, 0));
    at(&mut alliance, NINE, "m1", finished(&first, 0));
    assert_eq!(alliance.booking(&first).status, Status::Completed);
    assert_eq!(alliance.place(&second, 0), Some(("m1".into(), NINE, TEN)));
    assert_eq!((causes(&alliance, &first), causes(&alliance, &second)), (vec![], vec![]));
}

#[test]
fn a_late_start_displaces_the_follower_and_is_on_record() {
    let (mut alliance, first, second) = two_in_a_row();
    at(&mut alliance, EIGHT + 30 * MINUTE, "m1", started(&first, 0));
    assert_eq!(alliance.place(&first, 0).expect("in hand").2, NINE + 30 * MINUTE);
    assert_eq!(causes(&alliance, &first), [DisturbanceKind::LatePart]);
    assert_eq!(alliance.place(&second, 0), None);
    assert!(alliance.booking(&second).at_risk());
}

#[test]
fn displaced_work_is_placed_anew_by_a_repair_even_late() {
    let (mut alliance, first, second) = two_in_a_row();
    at(&mut alliance, EIGHT + 30 * MINUTE, "m1", started(&first, 0));
    alliance
        .plan(PlanKind::Repair, vec![move_to(&second.to_string(), 0, "m1", NINE + 30 * MINUTE)])
        .expect("repaired");
    assert_eq!(alliance.booking(&second).lateness_s(), Some(30 * MINUTE));
    // From there it is not made later still.
    let later = alliance.plan(PlanKind::Repair, vec![move_to(&second.to_string(), 0, "m1", TEN)]);
    assert_eq!(later.expect_err("refused").reason, Reason::PromiseWorsened);
}

#[test]
fn work_begun_hours_early_takes_only_the_time_that_it_needs() {
    let (mut alliance, first, _) = two_in_a_row();
    let evening = alliance.book_mill("a", 60, "m1", EIGHT + 10 * HOUR);
    at(&mut alliance, TEN, "m1", started(&evening, 0));
    assert_eq!(alliance.place(&evening, 0), Some(("m1".into(), TEN, TEN + HOUR)));
    assert_eq!(alliance.place(&first, 0), Some(("m1".into(), EIGHT, NINE)));
}

#[test]
fn planned_work_loses_its_place_to_other_work_begun_in_its_time() {
    let (mut alliance, first, second) = two_in_a_row();
    at(&mut alliance, EIGHT + 30 * MINUTE, "m1", started(&second, 0));
    assert_eq!(alliance.place(&first, 0), None);
    assert_eq!(alliance.place(&second, 0).expect("in hand").1, EIGHT + 30 * MINUTE);
}

#[test]
fn work_begun_elsewhere_frees_its_planned_machine() {
    let (mut alliance, first, second) = two_in_a_row();
    at(&mut alliance, EIGHT, "m2", started(&first, 0));
    assert_eq!(alliance.place(&first, 0), Some(("m2".into(), EIGHT, NINE)));
    assert_eq!(alliance.station("m1").line.len(), 1);
    assert_eq!(alliance.place(&second, 0), Some(("m1".into(), NINE, TEN)));
}

#[test]
fn an_overrun_displaces_the_follower_and_the_next_step() {
    let (mut alliance, first, second) = two_in_a_row();
    at(&mut alliance, EIGHT, "m1", started(&first, 0));
    at(&mut alliance, EIGHT + MINUTE, "m1", progress(&first, 0, NINE + MINUTE));
    assert_eq!(causes(&alliance, &second), [], "a minute is within the grace");
    at(&mut alliance, EIGHT + 2 * MINUTE, "m1", progress(&first, 0, NINE + 2 * MINUTE));
    assert_eq!(causes(&alliance, &second), [DisturbanceKind::Overrun]);
    assert_eq!(causes(&alliance, &first), [DisturbanceKind::Overrun]);

    let (mut alliance, id) = one_after_another();
    at(&mut alliance, EIGHT, "m1", started(&id, 0));
    at(&mut alliance, EIGHT, "m1", progress(&id, 0, TEN));
    assert_eq!(alliance.place(&id, 1), None);
    assert_eq!(causes(&alliance, &id), [DisturbanceKind::LatePart]);
}

#[test]
fn an_expected_end_beyond_all_time_is_cut_and_stops_nobody() {
    let (mut alliance, first, _) = two_in_a_row();
    at(&mut alliance, EIGHT, "m1", started(&first, 0));
    for end in [i64::MIN, -1, 0] {
        at(&mut alliance, EIGHT, "m1", progress(&first, 0, end));
        assert_eq!(alliance.place(&first, 0).expect("in hand").2, NINE);
    }
    at(&mut alliance, EIGHT, "m1", progress(&first, 0, i64::MAX));
    assert_eq!(alliance.place(&first, 0).expect("in hand").2, EIGHT + order::OPERATION_MAX_S);
}

#[test]
fn a_finish_without_a_start_is_believed_and_displaces_nobody() {
    let (mut alliance, first, second) = two_in_a_row();
    at(&mut alliance, NINE, "m1", finished(&first, 0));
    assert_eq!(alliance.booking(&first).status, Status::Completed);
    assert_eq!(alliance.place(&first, 0), Some(("m1".into(), EIGHT, NINE)));
    assert_eq!(alliance.place(&second, 0), Some(("m1".into(), NINE, TEN)));
}

#[test]
fn a_late_finish_is_on_record_as_the_cause() {
    let (mut alliance, first, second) = two_in_a_row();
    at(&mut alliance, EIGHT, "m1", started(&first, 0));
    at(&mut alliance, TEN, "m1", finished(&first, 0));
    assert_eq!(alliance.booking(&first).lateness_s(), Some(HOUR));
    assert_eq!(causes(&alliance, &first), [DisturbanceKind::Overrun]);
    assert_eq!(causes(&alliance, &second), [DisturbanceKind::Overrun]);
}

fn times(alliance: &Alliance, id: &BookingId) -> (i64, i64) {
    match alliance.booking(id).steps[0].progress {
        Progress::Finished { started_at, finished_at, .. } => (started_at, finished_at),
        ref other => panic!("finished, not {other:?}"),
    }
}

#[test]
fn an_end_dated_before_its_start_or_after_now_is_when_it_was_heard_of() {
    for dated in [0, i64::MIN, EIGHT - 1, TEN + 1, i64::MAX] {
        let (mut alliance, first, _) = two_in_a_row();
        at(&mut alliance, EIGHT, "m1", started(&first, 0));
        alliance.now = TEN;
        assert_eq!(alliance.happened("m1", dated, finished(&first, 0)), None);
        assert_eq!(times(&alliance, &first), (EIGHT, TEN), "dated {dated}");
        assert_eq!(alliance.booking(&first).lateness_s(), Some(HOUR), "what is late is told late");
    }
}

#[test]
fn an_end_without_a_start_dated_before_the_booking_is_when_it_was_heard_of() {
    let (mut alliance, first, _) = two_in_a_row();
    alliance.now = TEN;
    assert_eq!(alliance.happened("m1", MONDAY - 1, finished(&first, 0)), None);
    assert_eq!(times(&alliance, &first), (EIGHT, TEN));
}

#[test]
fn a_start_dated_before_the_booking_or_after_now_is_when_it_was_heard_of() {
    for dated in [0, i64::MIN, MONDAY - 1, i64::MAX] {
        let (mut alliance, first, _) = two_in_a_row();
        alliance.now = EIGHT + 30 * MINUTE;
        assert_eq!(alliance.happened("m1", dated, started(&first, 0)), None);
        let place = alliance.place(&first, 0);
        assert_eq!(place, Some(("m1".into(), EIGHT + 30 * MINUTE, NINE + 30 * MINUTE)), "dated {dated}");
    }
}

#[test]
fn a_machine_is_not_free_while_work_on_it_goes_on() {
    let (mut alliance, first, second) = two_in_a_row();
    alliance.now = TEN;
    assert_eq!(alliance.happened("m1", MONDAY, started(&first, 0)), None);
    assert_eq!(alliance.place(&first, 0).expect("in hand").2, TEN, "long over by the plan, and in hand");
    assert_eq!(alliance.place(&second, 0), None);
    at(&mut alliance, TEN + HOUR, "m1", progress(&first, 0, NINE));
    assert_eq!(alliance.place(&first, 0).expect("in hand").2, TEN + HOUR);
    assert_eq!(causes(&alliance, &first), [DisturbanceKind::Overrun; 2], "each time that it is later");
}

#[test]
fn what_is_delivered_late_together_disturbs_nobody() {
    let (mut alliance, first, second) = two_in_a_row();
    alliance.happens("m1", Happening::Up);
    alliance.now = TEN;
    let event = |seq, at, what| Event { seq, at, machine: machine_id("m1"), what };
    let events = vec![
        event(2, EIGHT, started(&first, 0)),
        event(3, EIGHT + 30 * MINUTE, progress(&first, 0, NINE)),
        event(4, NINE, finished(&first, 0)),
        event(5, NINE, started(&second, 0)),
    ];
    let report = Command::Report { plant: PlantId::trusted("ya-1"), outbox: "outbox-ya-1".into(), events };
    assert_eq!(alliance.ok(operator(), report), Reply::Applied(5, vec![]));
    assert_eq!(times(&alliance, &first), (EIGHT, NINE));
    assert_eq!(alliance.place(&second, 0), Some(("m1".into(), NINE, TEN)));
    assert_eq!((causes(&alliance, &first), causes(&alliance, &second)), (vec![], vec![]));
}

#[test]
fn a_state_is_never_since_before_the_one_before_it() {
    let mut alliance = Alliance::mills(&["m1"]);
    at(&mut alliance, NINE, "m1", Happening::State(MachineState::Producing));
    alliance.now = TEN;
    for (dated, since) in [(NINE + 1, NINE + 1), (0, TEN), (i64::MAX, TEN)] {
        assert_eq!(alliance.happened("m1", dated, Happening::State(MachineState::Idle)), None);
        assert_eq!(alliance.station("m1").state_since, since, "dated {dated}");
    }
}

#[test]
fn scrapped_work_waits_for_a_new_place_and_the_machine_stays_set_up() {
    let (mut alliance, first, second) = two_in_a_row();
    at(&mut alliance, EIGHT, "m1", started(&first, 0));
    at(&mut alliance, EIGHT + 30 * MINUTE, "m1", scrapped(&first, 0));
    assert_eq!(alliance.place(&first, 0), None);
    assert_eq!(alliance.booking(&first).steps[0].pieces_scrapped, 1);
    assert_eq!(causes(&alliance, &first), [DisturbanceKind::Scrap]);
    assert_eq!(alliance.place(&second, 0), Some(("m1".into(), NINE, TEN)));
    alliance.ok(buyer("bo"), Command::Cancel { booking: second, reason: "".into() });
    let next = alliance.book_mill("b", 60, "m1", TEN);
    assert_eq!(alliance.place(&next, 0).expect("placed").2, TEN + 90 * MINUTE, "a changeover from a");
}

#[test]
fn a_breakdown_displaces_what_is_planned_and_prolongs_what_is_in_hand() {
    let (mut alliance, first, second) = two_in_a_row();
    at(&mut alliance, EIGHT, "m1", started(&first, 0));
    at(&mut alliance, EIGHT + 30 * MINUTE, "m1", down(TEN));
    assert_eq!(alliance.place(&first, 0).expect("in hand").2, TEN + 30 * MINUTE);
    assert_eq!(causes(&alliance, &first), [DisturbanceKind::Breakdown]);
    assert_eq!(
        (alliance.place(&second, 0), causes(&alliance, &second)),
        (None, vec![DisturbanceKind::Breakdown])
    );
    // Told again, with another time: half an hour is left to do after that.
    at(&mut alliance, EIGHT + 40 * MINUTE, "m1", down(TEN + HOUR));
    assert_eq!(alliance.place(&first, 0).expect("in hand").2, TEN + 90 * MINUTE);
    at(&mut alliance, EIGHT + 50 * MINUTE, "m1", Happening::Up);
    assert_eq!(alliance.place(&first, 0).expect("in hand").2, NINE + 20 * MINUTE);
    alliance.book_mill("a", 60, "m1", TEN);
}

#[test]
fn a_machine_down_for_nobody_knows_how_long_is_closed_for_eight_hours() {
    let mut alliance = Alliance::mills(&["m1"]);
    for until in [0, i64::MIN, EIGHT - 1] {
        at(&mut alliance, EIGHT, "m1", down(until));
        let until = alliance.station("m1").down.as_ref().expect("down").until;
        assert_eq!(until, EIGHT + progress::DOWN_UNKNOWN_S);
    }
    at(&mut alliance, EIGHT, "m1", down(i64::MAX));
}

#[test]
fn a_breakdown_is_not_refused_for_its_wording() {
    let mut alliance = Alliance::mills(&["m1"]);
    let what = Happening::Down { reason: format!("two\nlines {}", "x".repeat(300)), expected_until: TEN };
    at(&mut alliance, EIGHT, "m1", what);
    let reason = alliance.station("m1").down.as_ref().expect("down").reason.clone();
    assert!(reason.starts_with("two lines x") && reason.len() == 200, "{reason}");
}

#[test]
fn what_is_measured_has_limits() {
    let (mut alliance, first, _) = two_in_a_row();
    let wild = Happening::Finished {
        booking: first,
        operation: 0,
        pieces_good: u32::MAX,
        pieces_scrapped: u32::MAX,
        measured_s: i64::MIN,
        energy_wh: u64::MAX,
        energy_measured: true,
    };
    at(&mut alliance, NINE, "m1", wild);
    let Progress::Finished { measured_s, energy_wh, .. } = alliance.booking(&first).steps[0].progress else {
        panic!("finished");
    };
    assert_eq!((measured_s, energy_wh), (0, progress::ENERGY_MAX_WH));
}

#[test]
fn what_is_not_to_be_done_is_refused_and_the_outbox_goes_on() {
    let (mut alliance, first, _) = two_in_a_row();
    let held = alliance.hold(order(vec![operation(Mill, "a", 60)]), &[("m2", EIGHT)], HOUR);
    let refused = [
        alliance.happens("m2", started(&held, 0)),
        alliance.happens("m1", started(&first, 7)),
        alliance.happens("m1", progress(&first, 0, NINE)),
        alliance.happens("m1", scrapped(&first, 0)),
        alliance.happens("m1", started(&booking_id("b999999"), 0)),
    ];
    assert!(refused.iter().all(Option::is_some), "{refused:?}");
    at(&mut alliance, EIGHT, "m1", started(&first, 0));
    assert!(alliance.happens("m1", started(&first, 0)).is_some_and(|why| why.contains("begun before")));
}

/// Mill m1 in plant ya-1, and mill m9 in plant ya-2.
fn two_plants() -> Alliance {
    let mut alliance = Alliance::mills(&["m1"]);
    alliance.plant(Plant { east_m: 9000, ..plant("ya-2", "ya") });
    alliance.lend(machine("m9", "ya-2", Mill), &[(EIGHT, MONDAY + 9 * DAY)]);
    alliance
}

#[test]
fn what_never_stood_in_a_plant_does_not_exist_for_its_agent() {
    let mut alliance = two_plants();
    let planned = alliance.book_mill("a", 60, "m1", TEN);
    let in_hand = alliance.book_mill("a", 60, "m1", EIGHT);
    let held = alliance.hold(order(vec![operation(Mill, "a", 60)]), &[("m1", NINE)], HOUR);
    let gone = alliance.book_mill("a", 60, "m1", TEN + HOUR);
    alliance.ok(buyer("bo"), Command::Cancel { booking: gone, reason: String::new() });
    at(&mut alliance, EIGHT, "m1", started(&in_hand, 0));
    let nobodys = booking_id("b999999");
    let told = |alliance: &mut Alliance, id: &BookingId, operation: u32| {
        [started(id, operation), finished(id, operation), progress(id, operation, i64::MAX)]
            .into_iter()
            .chain([scrapped(id, operation)])
            .map(|what| alliance.happens("m9", what).expect("refused").replace(&id.to_string(), "id"))
            .collect::<Vec<_>>()
    };
    let unknown = told(&mut alliance, &nobodys, 0);
    for id in [&planned, &in_hand, &held, &gone] {
        assert_eq!(told(&mut alliance, id, 0), unknown);
        assert_eq!(told(&mut alliance, id, 7), unknown);
    }
    assert!(alliance.booking(&in_hand).disturbances.is_empty());
    assert!(alliance.happens("m1", started(&gone, 0)).is_some_and(|why| why.contains("Cancelled")));
}

#[test]
fn a_plant_that_makes_what_has_moved_away_meanwhile_is_believed() {
    let mut alliance = two_plants();
    let id = alliance.book_mill("a", 60, "m1", TEN);
    alliance.plan(PlanKind::Optimisation, vec![move_to(&id.to_string(), 0, "m9", TEN)]).expect("moved");
    at(&mut alliance, TEN, "m1", started(&id, 0));
    assert_eq!(alliance.place(&id, 0), Some(("m1".into(), TEN, TEN + HOUR)));
    assert!(alliance.station("m9").line.is_empty());
    assert!(alliance.happens("m9", finished(&id, 0)).is_some(), "in hand, it is where it is");
    at(&mut alliance, TEN + HOUR, "m1", finished(&id, 0));
    assert_eq!(alliance.booking(&id).status, Status::Completed);
}

#[test]
fn a_plant_is_believed_about_what_a_disturbance_has_taken_from_it() {
    let mut alliance = two_plants();
    let id = alliance.book_mill("a", 60, "m1", TEN);
    at(&mut alliance, EIGHT, "m1", down(TEN + HOUR));
    assert_eq!(alliance.place(&id, 0), None);
    assert!(alliance.happens("m9", started(&id, 0)).is_some(), "it never stood there");
    at(&mut alliance, TEN, "m1", started(&id, 0));
    assert_eq!(alliance.place(&id, 0).expect("in hand").0, "m1");
}

#[test]
fn a_finish_reported_from_another_machine_of_the_plant_clears_the_right_line() {
    let (mut alliance, first, second) = two_in_a_row();
    at(&mut alliance, EIGHT, "m1", started(&first, 0));
    at(&mut alliance, NINE + 30 * MINUTE, "m2", finished(&first, 0));
    assert_eq!(alliance.place(&second, 0), None, "m1 was taken until half past nine");
}

#[test]
fn work_that_never_ends_does_not_keep_the_line_for_ever() {
    let mut alliance = Alliance::mills(&["m1"]);
    for n in 0..50 {
        let start = EIGHT + n * HOUR;
        let id = alliance.book_mill("a", 60, "m1", start);
        at(&mut alliance, start, "m1", started(&id, 0));
        if n % 2 == 1 {
            at(&mut alliance, start + HOUR, "m1", finished(&id, 0));
        }
    }
    assert!(alliance.station("m1").line.len() < 4, "{:?}", alliance.station("m1").line.len());
}

#[test]
fn a_booking_is_complete_when_its_last_step_to_end_ends() {
    let (mut alliance, id) = one_after_another();
    at(&mut alliance, EIGHT, "m2", started(&id, 1));
    at(&mut alliance, NINE, "m2", finished(&id, 1));
    at(&mut alliance, NINE, "m1", started(&id, 0));
    at(&mut alliance, TEN + HOUR, "m1", finished(&id, 0));
    assert_eq!(alliance.booking(&id).completes_at(), Some(TEN + HOUR));
    assert_eq!(alliance.booking(&id).lateness_s(), Some(HOUR));
}

#[test]
fn events_are_applied_once_and_in_order() {
    let (mut alliance, first, _) = two_in_a_row();
    at(&mut alliance, EIGHT, "m1", started(&first, 0));
    let report = |seqs: &[u64]| Command::Report {
        plant: PlantId::trusted("ya-1"),
        outbox: "outbox-ya-1".into(),
        events: seqs
            .iter()
            .map(|&seq| Event { seq, at: EIGHT, machine: machine_id("m1"), what: down(TEN) })
            .collect(),
    };
    assert_eq!(alliance.ok(operator(), report(&[1])), Reply::Applied(1, vec![]));
    assert_eq!(alliance.station("m1").down, None, "the first was applied before");
    let gap = alliance.refused(operator(), report(&[2, 4]));
    assert_eq!((gap.reason, gap.accepted.as_str()), (Reason::EventGap, "3, the next in the outbox"));
    assert_eq!(alliance.station("m1").down, None, "a batch with a gap is not applied at all");
    assert_eq!(alliance.ok(operator(), report(&[1, 2])), Reply::Applied(2, vec![]));
    assert!(alliance.station("m1").down.is_some());
}

#[test]
fn an_outbox_that_was_replaced_is_refused() {
    let mut alliance = Alliance::mills(&["m1"]);
    at(&mut alliance, EIGHT, "m1", Happening::Up);
    let attach = |outbox: &str| Command::AttachAgent {
        plant: PlantId::trusted("ya-1"),
        agent: "agent".into(),
        outbox: outbox.into(),
    };
    assert_eq!(alliance.ok(operator(), attach("outbox-ya-1")), Reply::Applied(1, vec![]), "it resumes");
    assert_eq!(alliance.ok(operator(), attach("new")), Reply::Applied(0, vec![]));
    let old =
        Command::Report { plant: PlantId::trusted("ya-1"), outbox: "outbox-ya-1".into(), events: vec![] };
    assert_eq!(alliance.refused(operator(), old).reason, Reason::AgentAlreadyConnected);
}

#[test]
fn an_outbox_that_comes_back_goes_on_where_it_was() {
    let mut alliance = Alliance::mills(&["m1"]);
    let attach = |outbox: &str| Command::AttachAgent {
        plant: PlantId::trusted("ya-1"),
        agent: "agent".into(),
        outbox: outbox.into(),
    };
    let report = |outbox: &str, seq, what| Command::Report {
        plant: PlantId::trusted("ya-1"),
        outbox: outbox.into(),
        events: vec![Event { seq, at: EIGHT, machine: machine_id("m1"), what }],
    };
    alliance.now = EIGHT;
    alliance.ok(operator(), attach("first"));
    alliance.ok(operator(), report("first", 1, down(TEN)));
    alliance.ok(operator(), report("first", 2, Happening::Up));
    for spare in 2..=state::OUTBOXES_MAX {
        let spare = format!("spare-{spare}");
        assert_eq!(alliance.ok(operator(), attach(&spare)), Reply::Applied(0, vec![]));
        alliance.ok(operator(), report(&spare, 1, Happening::State(MachineState::Idle)));
    }
    assert_eq!(alliance.ok(operator(), attach("first")), Reply::Applied(2, vec![]));
    alliance.ok(operator(), report("first", 1, down(TEN)));
    assert_eq!(alliance.station("m1").down, None, "it was applied before");
    // A limited number is remembered: the one that was away longest begins anew.
    for spare in 2..=state::OUTBOXES_MAX + 1 {
        let spare = format!("another-{spare}");
        alliance.ok(operator(), attach(&spare));
        alliance.ok(operator(), report(&spare, 1, Happening::State(MachineState::Idle)));
    }
    assert_eq!(alliance.ok(operator(), attach("first")), Reply::Applied(0, vec![]));
}
