//! Each rule of booking and planning, and each refusal, as a sentence.

#![allow(clippy::result_large_err, reason = "as in the crate itself")]

mod scenes;

use millpool_alliance::booking::Status;
use millpool_alliance::eligibility::obstacles;
use millpool_alliance::refusal::Reason;
use millpool_alliance::registry::{Changeover, Machine, MachineClass::*, Plant, SETUP_FAMILIES_MAX, Size};
use millpool_alliance::*;
use scenes::build::*;

const EIGHT: i64 = MONDAY + 8 * HOUR;

/// An order of one hour in family a on a mill.
fn hour() -> Order {
    order(vec![operation(Mill, "a", 60)])
}

fn reason<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Reason {
    result.expect_err("refused").reason
}

// Eligibility.

#[test]
fn a_machine_that_lacks_one_requirement_is_refused_by_its_name() {
    let able = machine("m1", "ya-1", Mill);
    let lacking = |machine: Machine, order: &Order| eligibility::unmet(order, &order.route[0], &machine);
    let plain = hour();
    let asking = |ask: &dyn Fn(&mut Order)| {
        let mut order = hour();
        ask(&mut order);
        order
    };
    let cases = [
        ("class", Machine { class: Lathe, ..able.clone() }, plain.clone()),
        ("axes_min", able.clone(), asking(&|o| o.route[0].axes_min = 5)),
        ("size", able.clone(), asking(&|o| o.size = Size { x_mm: 501, y_mm: 1, z_mm: 1 })),
        ("mass_g", able.clone(), asking(&|o| o.mass_g = 100_001)),
        ("tolerance_um", able.clone(), asking(&|o| o.route[0].tolerance_um = 9)),
        ("material", able.clone(), asking(&|o| o.material = "titanium".into())),
        ("certificates", able.clone(), asking(&|o| o.route[0].certificates = names(&["as-9100"]))),
        ("setup_family", able.clone(), asking(&|o| o.route[0].setup_family = "z".into())),
        ("excluded_plants", able.clone(), asking(&|o| o.excluded_plants = [PlantId::trusted("ya-1")].into())),
    ];
    assert_eq!(lacking(able, &plain), None);
    for (name, machine, order) in cases {
        let id = machine.id.to_string();
        assert_eq!(lacking(machine.clone(), &order), Some(name));
        let mut alliance = Alliance::with(vec![machine]);
        let refusal = alliance.try_book(order, &[(&id, EIGHT)]).expect_err("refused");
        assert_eq!(refusal.reason, Reason::PlacementConflict);
        assert!(refusal.message.contains(name), "{refusal}");
    }
}

#[test]
fn a_workpiece_may_be_turned_to_fit() {
    let mut alliance = Alliance::with(vec![Machine {
        envelope: Size { x_mm: 100, y_mm: 200, z_mm: 900 },
        ..machine("m1", "ya-1", Mill)
    }]);
    let long = Order { size: Size { x_mm: 900, y_mm: 100, z_mm: 200 }, ..hour() };
    alliance.book(long, &[("m1", EIGHT)]);
}

#[test]
fn obstacles_name_the_requirement_that_excludes_most_and_the_best_there_is() {
    let fine = Machine { tolerance_um: 2, ..machine("m1", "ya-1", Mill) };
    let coarse = machine("m2", "ya-1", Mill);
    let lathe = machine("m3", "ya-1", Lathe);
    let mut asked = hour();
    asked.route[0].tolerance_um = 1;
    asked.route[0].axes_min = 3;
    asked.mass_g = 100_001;
    let machines = [fine, Machine { mass_max_g: 200_000, ..coarse }, lathe];
    let found = obstacles(&asked, 0, machines.iter());
    let told: Vec<String> = found
        .iter()
        .map(|o| {
            format!(
                "{}: asked {}, best {}, excludes {} of {}",
                o.requirement, o.asked, o.available, o.excluded, o.of_class
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "tolerance_um: asked at most 1, best 2, excludes 2 of 2",
            "mass_g: asked 100001, best 200000, excludes 1 of 2"
        ]
    );
    let cmm = order(vec![operation(Cmm, "a", 1)]);
    assert_eq!(obstacles(&cmm, 0, machines.iter())[0].requirement, "class");
}

// Price and carbon.

#[test]
fn price_and_carbon_are_what_a_hand_reckons() {
    // m1 in ya-1 at 360 CNY/h processing, 180 CNY/h setup, speed 1000.
    // m2 in ya-2, 3 km east and 4 km north: 5 km as the crow flies.
    let mut alliance = Alliance::mills(&["m1"]);
    alliance.plant(Plant { east_m: 3000, north_m: 4000, ..plant("ya-2", "ya") });
    let fast = Machine { speed_permille: 2000, ..machine("m2", "ya-2", Mill) };
    alliance.lend(fast, &[(EIGHT, MONDAY + 9 * DAY)]);
    let mut asked = order(vec![operation(Mill, "a", 10), operation(Mill, "b", 10)]);
    asked.quantity = 3;
    asked.route[0].setup_s = 600;
    let (price, carbon) =
        alliance.state.price(&asked, &[machine_id("m1"), machine_id("m2")]).expect("a price");
    // Processing: 3 x 10 min at 36,000 fen/h = 18,000; on m2 at double speed 15 min = 9,000.
    assert_eq!(price.processing_fen, 27_000);
    // Setup at 18,000 fen/h, each with the longest changeover of 30 min: 40 min = 12,000; 30 min = 9,000.
    assert_eq!(price.setup_fen, 21_000);
    // Transport: 3,000 + 5 km x 350.
    assert_eq!(price.transport_fen, 4_750);
    assert_eq!(price.total_fen(), 52_750);
    // Energy, rounded up each: m1 30 min at 10 kW + 40 min at 1 kW = 5,000 + 666.7 -> 5,667 Wh;
    // m2 15 min at 10 kW + 30 min at 1 kW = 3,000 Wh.
    assert_eq!(carbon.energy_wh, 8_667);
    // At 522,700 mg/kWh (2022): 2,962.1 -> 2,963 g, and 1,568.1 -> 1,569 g. Transport 5 x 250 g.
    assert_eq!((carbon.machine_g, carbon.transport_g), (4_532, 1_250));
    assert_eq!(carbon.grid_factors, ["CN-CQ/2022"]);
    // The trip takes 1,800 s + 5 x 90 s = 2,250 s, rounded up to 38 minutes.
    assert_eq!(alliance.state.trip(&machine_id("m1"), &machine_id("m2")).seconds, 38 * MINUTE);
}

// Placement.

#[test]
fn two_operations_never_share_a_machines_time() {
    let mut alliance = Alliance::mills(&["m1"]);
    alliance.book_mill("a", 60, "m1", EIGHT);
    assert_eq!(reason(alliance.try_book(hour(), &[("m1", EIGHT + 59 * MINUTE)])), Reason::PlacementConflict);
    alliance.book_mill("a", 60, "m1", EIGHT + HOUR);
}

#[test]
fn work_starts_on_a_whole_minute_inside_an_open_window() {
    let mut alliance = Alliance::mills(&["m1"]);
    for start in [EIGHT + 1, EIGHT - HOUR, MONDAY + 10 * DAY - 59 * MINUTE] {
        assert_eq!(reason(alliance.try_book(hour(), &[("m1", start)])), Reason::PlacementConflict, "{start}");
    }
}

#[test]
fn a_splittable_operation_pauses_while_the_machine_is_closed_and_another_may_not() {
    let mut alliance = Alliance::mills(&[]);
    alliance
        .lend(machine("m1", "ya-1", Mill), &[(EIGHT, EIGHT + HOUR), (EIGHT + 3 * HOUR, EIGHT + 9 * HOUR)]);
    let mut long = order(vec![operation(Mill, "a", 90)]);
    assert_eq!(reason(alliance.try_book(long.clone(), &[("m1", EIGHT)])), Reason::PlacementConflict);
    long.route[0].splittable = true;
    let id = alliance.book(long, &[("m1", EIGHT)]);
    assert_eq!(alliance.place(&id, 0), Some(("m1".into(), EIGHT, EIGHT + 3 * HOUR + 30 * MINUTE)));
}

#[test]
fn a_changeover_stands_before_the_work_and_lengthens_the_follower() {
    let mut alliance = Alliance::mills(&["m1"]);
    let a = alliance.book_mill("a", 60, "m1", EIGHT);
    let late = alliance.book_mill("a", 60, "m1", EIGHT + 4 * HOUR);
    assert_eq!(alliance.place(&a, 0).expect("placed").2, EIGHT + HOUR, "nothing is set up at first");
    assert_eq!(alliance.place(&late, 0).expect("placed").2, EIGHT + 5 * HOUR);
    // A b in between takes half an hour to set up, and so does the a after it, which is promised sooner.
    let refusal = alliance.try_book(order(vec![operation(Mill, "b", 60)]), &[("m1", EIGHT + 2 * HOUR)]);
    assert_eq!(reason(refusal), Reason::PromiseWorsened);
}

#[test]
fn a_follower_with_slack_gives_way_to_a_changeover() {
    let mut alliance = Alliance::mills(&["m1"]);
    alliance.book_mill("a", 60, "m1", EIGHT);
    let cheap = terms(Objective::Cheapest);
    let late = alliance.try_book_on(hour(), cheap, &[("m1", EIGHT + 4 * HOUR)], 0).expect("booked");
    alliance.book_mill("b", 60, "m1", EIGHT + 2 * HOUR);
    assert_eq!(alliance.place(&late, 0).expect("placed").2, EIGHT + 5 * HOUR + 30 * MINUTE);
}

#[test]
fn a_part_travels_before_its_next_operation() {
    let mut alliance = Alliance::mills(&["m1"]);
    alliance.plant(Plant { east_m: 10_000, ..plant("ya-2", "ya") });
    alliance.lend(machine("m2", "ya-2", Mill), &[(EIGHT, MONDAY + 9 * DAY)]);
    let two = || order(vec![operation(Mill, "a", 60), operation(Mill, "a", 60)]);
    // An hour's work, then 1,800 s + 10 x 90 s on the road.
    let arrives = EIGHT + HOUR + 45 * MINUTE;
    assert_eq!(
        reason(alliance.try_book(two(), &[("m1", EIGHT), ("m2", arrives - 60)])),
        Reason::PlacementConflict
    );
    alliance.book(two(), &[("m1", EIGHT), ("m2", arrives)]);
}

#[test]
fn work_waits_for_its_release_and_the_notice_of_its_machine() {
    let mut alliance = Alliance::mills(&["m1"]);
    let released = Order { release: EIGHT + HOUR, ..hour() };
    assert_eq!(reason(alliance.try_book(released.clone(), &[("m1", EIGHT)])), Reason::PlacementConflict);
    alliance.book(released, &[("m1", EIGHT + HOUR)]);
    let mut offer = offer("o2", "m1", &[(EIGHT, MONDAY + 20 * DAY)]);
    offer.notice_s = DAY;
    alliance.ok(operator(), Command::CreateOffer(offer));
    assert_eq!(reason(alliance.try_book(hour(), &[("m1", EIGHT + 3 * HOUR)])), Reason::PlacementConflict);
    alliance.book(hour(), &[("m1", MONDAY + DAY + HOUR)]);
}

#[test]
fn a_placement_names_a_machine_for_each_operation_and_each_exists() {
    let mut alliance = Alliance::mills(&["m1"]);
    assert_eq!(reason(alliance.try_book(hour(), &[])), Reason::PlacementConflict);
    assert_eq!(reason(alliance.try_book(hour(), &[("m7", EIGHT)])), Reason::UnknownId);
}

// Promises.

#[test]
fn the_fastest_option_promises_its_completion_and_others_the_due_date() {
    let mut alliance = Alliance::mills(&["m1"]);
    let fast = alliance.book(hour(), &[("m1", EIGHT)]);
    let cheap =
        alliance.try_book_on(hour(), terms(Objective::Cheapest), &[("m1", EIGHT + HOUR)], 0).expect("booked");
    assert_eq!(alliance.booking(&fast).promise.by, EIGHT + HOUR);
    assert_eq!(alliance.booking(&cheap).promise.by, MONDAY + 7 * DAY);
}

#[test]
fn no_promise_is_later_than_the_deadline_or_the_terms() {
    let mut alliance = Alliance::mills(&["m1"]);
    let strict = Order { due: EIGHT + 2 * HOUR, deadline: Some(EIGHT + 2 * HOUR), ..hour() };
    let cheap = terms(Objective::Cheapest);
    let id = alliance.try_book_on(strict.clone(), cheap.clone(), &[("m1", EIGHT)], 0).expect("booked");
    assert_eq!(alliance.booking(&id).promise.by, EIGHT + 2 * HOUR);
    let soon = Terms { promised_by: Some(EIGHT + 3 * HOUR), ..cheap };
    let id = alliance.try_book_on(hour(), soon.clone(), &[("m1", EIGHT + HOUR)], 0).expect("booked");
    assert_eq!(alliance.booking(&id).promise.by, EIGHT + 3 * HOUR);
    let late = alliance.try_book_on(hour(), soon, &[("m1", EIGHT + 5 * HOUR)], 0);
    assert_eq!(reason(late), Reason::LaterThanTerms);
    assert_eq!(reason(alliance.try_book(strict, &[("m1", EIGHT + 5 * HOUR)])), Reason::LaterThanTerms);
}

#[test]
fn nothing_is_booked_above_the_budget_or_the_terms() {
    // An hour and the longest changeover of half an hour: 36,000 + 9,000 fen.
    let mut alliance = Alliance::mills(&["m1"]);
    let poor = Order { budget_fen: Some(44_999), ..hour() };
    assert_eq!(reason(alliance.try_book(poor, &[("m1", EIGHT)])), Reason::PriceAboveTerms);
    let mean = Terms { price_max_fen: Some(44_999), ..terms(Objective::Fastest) };
    assert_eq!(reason(alliance.try_book_on(hour(), mean, &[("m1", EIGHT)], 0)), Reason::PriceAboveTerms);
    let id = alliance.book(Order { budget_fen: Some(45_000), ..hour() }, &[("m1", EIGHT)]);
    assert_eq!(alliance.booking(&id).promise.price.total_fen(), 45_000);
}

// Orders that cannot be.

#[test]
fn an_order_that_nobody_could_make_is_refused_by_field() {
    let mut alliance = Alliance::mills(&["m1"]);
    let with = |change: &dyn Fn(&mut Order)| {
        let mut order = hour();
        change(&mut order);
        order
    };
    let cases = [
        ("order.quantity", with(&|o| o.quantity = 0)),
        ("order.quantity", with(&|o| o.quantity = i64::MAX)),
        ("order.mass_g", with(&|o| o.mass_g = u64::MAX)),
        ("order.size.z_mm", with(&|o| o.size.z_mm = 0)),
        ("order.due_s", with(&|o| o.due = MONDAY)),
        ("order.due_s", with(&|o| o.due = i64::MAX)),
        ("order.due_s", with(&|o| (o.release, o.due) = (EIGHT, EIGHT))),
        ("order.release_s", with(&|o| o.release = i64::MIN)),
        ("order.deadline_s", with(&|o| o.deadline = Some(o.due - 1))),
        ("order.deadline_s", with(&|o| o.deadline = Some(i64::MAX))),
        ("order.budget_fen", with(&|o| o.budget_fen = Some(0))),
        ("order.route (count)", with(&|o| o.route.clear())),
        ("order.route[0].setup_s", with(&|o| o.route[0].setup_s = -1)),
        ("order.route[0].run_s_per_piece", with(&|o| o.route[0].run_s_per_piece = i64::MAX)),
        ("order.route[0].run_s_per_piece times quantity plus setup_s", with(&|o| o.quantity = 1_000_000)),
        ("order.material", with(&|o| o.material = "two\nlines".into())),
    ];
    for (field, order) in cases {
        let refusal = alliance.try_book(order, &[("m1", EIGHT)]).expect_err(field);
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidField, field));
    }
}

#[test]
fn a_start_at_the_end_of_time_is_refused_and_stops_nobody() {
    let mut alliance = Alliance::mills(&["m1"]);
    for start in [i64::MAX, i64::MAX - 59, i64::MIN, -1] {
        assert_eq!(reason(alliance.try_book(hour(), &[("m1", start)])), Reason::InvalidField);
    }
    let booked = alliance.book(hour(), &[("m1", EIGHT)]);
    let moved = alliance.plan(PlanKind::Repair, vec![move_to(&booked.to_string(), 0, "m1", i64::MAX)]);
    assert_eq!(reason(moved), Reason::InvalidField);
}

#[test]
fn a_clock_at_the_end_of_time_stops_nobody() {
    let mut alliance = Alliance::mills(&["m1"]);
    let id = alliance.hold(hour(), &[("m1", EIGHT)], HOUR);
    alliance.tick(i64::MAX);
    assert_eq!(alliance.booking(&id).status, Status::Expired);
    alliance.tick(i64::MIN);
    assert_eq!(alliance.state.now(), window::LATEST);
    assert_eq!(reason(alliance.try_book(hour(), &[("m1", EIGHT)])), Reason::InvalidField);
}

// Holds.

#[test]
fn a_hold_keeps_its_time_until_it_expires() {
    let mut alliance = Alliance::mills(&["m1"]);
    let held = alliance.hold(hour(), &[("m1", EIGHT)], HOUR);
    assert_eq!(reason(alliance.try_book(hour(), &[("m1", EIGHT)])), Reason::PlacementConflict);
    alliance.tick(MONDAY + HOUR - 1);
    assert_eq!(alliance.booking(&held).status, Status::Held);
    alliance.tick(MONDAY + HOUR);
    assert_eq!(alliance.booking(&held).status, Status::Expired);
    assert_eq!(reason(alliance.try_do(buyer("bo"), Command::Confirm { booking: held })), Reason::HoldExpired);
    alliance.book(hour(), &[("m1", EIGHT)]);
}

#[test]
fn a_hold_that_is_confirmed_outlives_its_time() {
    let mut alliance = Alliance::mills(&["m1"]);
    let held = alliance.hold(hour(), &[("m1", EIGHT)], HOUR);
    alliance.ok(buyer("bo"), Command::Confirm { booking: held });
    alliance.tick(MONDAY + DAY);
    assert_eq!(alliance.booking(&held).status, Status::Confirmed);
    assert_eq!(reason(alliance.try_do(buyer("bo"), Command::Confirm { booking: held })), Reason::WrongStatus);
}

#[test]
fn a_hold_whose_start_has_passed_is_not_confirmed() {
    let mut alliance = Alliance::mills(&["m1"]);
    let held = alliance.hold(hour(), &[("m1", EIGHT)], DAY);
    alliance.tick(EIGHT + MINUTE);
    assert_eq!(reason(alliance.try_do(buyer("bo"), Command::Confirm { booking: held })), Reason::HoldExpired);
}

#[test]
fn a_hold_that_a_disturbance_has_made_late_is_not_confirmed_until_it_stands_in_time_again() {
    let mut alliance = Alliance::mills(&["m1", "m2"]);
    let held = alliance.hold(hour(), &[("m1", EIGHT)], DAY);
    let confirm = Command::Confirm { booking: held };
    assert_eq!(alliance.happens("m1", down(EIGHT + 2 * HOUR)), None);
    let without_place = alliance.refused(buyer("bo"), confirm.clone());
    assert_eq!(without_place.reason, Reason::WrongStatus);
    alliance
        .plan(PlanKind::Repair, vec![move_to(&held.to_string(), 0, "m1", EIGHT + 2 * HOUR)])
        .expect("late");
    assert_eq!(alliance.booking(&held).lateness_s(), Some(2 * HOUR));
    let late = alliance.refused(buyer("bo"), confirm.clone());
    assert_eq!((late.reason, &late.message), (Reason::WrongStatus, &without_place.message));
    assert!(late.message.contains("placed anew"), "{late}");
    alliance.plan(PlanKind::Repair, vec![move_to(&held.to_string(), 0, "m2", EIGHT)]).expect("in time");
    alliance.ok(buyer("bo"), confirm);
}

#[test]
fn a_buyer_holds_no_more_than_the_policy_allows() {
    let mut alliance = Alliance::mills(&["m1"]);
    let policy = alliance.state.policy().clone();
    let expected_revision = policy.revision;
    let policy = registry::Policy { holds_max_per_buyer: 1, ..policy };
    alliance.ok(operator(), Command::PutPolicy { policy, expected_revision });
    let first = alliance.hold(hour(), &[("m1", EIGHT)], HOUR);
    let second =
        |a: &mut Alliance| a.try_book_on(hour(), terms(Objective::Fastest), &[("m1", EIGHT + HOUR)], HOUR);
    assert_eq!(reason(second(&mut alliance)), Reason::TooManyHolds);
    alliance.ok(buyer("bo"), Command::Confirm { booking: first });
    second(&mut alliance).expect("held");
}

// Cancelling.

#[test]
fn a_cancelled_booking_gives_its_time_back() {
    let mut alliance = Alliance::mills(&["m1"]);
    let id = alliance.book_mill("a", 60, "m1", EIGHT);
    alliance.ok(buyer("bo"), Command::Cancel { booking: id, reason: "".into() });
    assert_eq!(alliance.booking(&id).status, Status::Cancelled);
    assert!(alliance.station("m1").line.is_empty());
}

#[test]
fn another_buyers_booking_does_not_exist() {
    let mut alliance = Alliance::mills(&["m1"]);
    let booking = alliance.book_mill("a", 60, "m1", EIGHT);
    let theirs = Command::Cancel { booking, reason: "".into() };
    assert_eq!(alliance.refused(buyer("bi"), theirs.clone()).reason, Reason::UnknownId);
    alliance.ok(operator(), theirs);
}

#[test]
fn work_in_hand_is_not_cancelled_and_what_is_done_keeps_its_place() {
    let mut alliance = Alliance::mills(&["m1"]);
    let two = order(vec![operation(Mill, "a", 60), operation(Mill, "a", 60)]);
    let booking = alliance.book(two, &[("m1", EIGHT), ("m1", EIGHT + HOUR)]);
    let cancel = Command::Cancel { booking, reason: "".into() };
    alliance.now = EIGHT;
    assert_eq!(alliance.happens("m1", started(&booking, 0)), None);
    assert_eq!(alliance.refused(buyer("bo"), cancel.clone()).reason, Reason::WrongStatus);
    alliance.now = EIGHT + HOUR;
    assert_eq!(alliance.happens("m1", finished(&booking, 0)), None);
    alliance.ok(buyer("bo"), cancel);
    assert_eq!(alliance.place(&booking, 0), Some(("m1".into(), EIGHT, EIGHT + HOUR)));
    assert_eq!(alliance.place(&booking, 1), None);
}

#[test]
fn cancelling_leaves_the_changeover_that_its_follower_counts_on() {
    // From a to c takes three hours, over b an hour: no triangle inequality.
    let way =
        |from: &str, to: &str, hours| Changeover { from: from.into(), to: to.into(), seconds: hours * HOUR };
    let changeovers = vec![way("a", "c", 3), way("b", "c", 0), way("a", "b", 1)];
    let mut alliance = Alliance::with(vec![Machine { changeovers, ..machine("m1", "ya-1", Mill) }]);
    alliance.book_mill("a", 60, "m1", EIGHT);
    let between = alliance.book_mill("b", 60, "m1", EIGHT + HOUR);
    let last = alliance.book_mill("c", 60, "m1", EIGHT + 3 * HOUR);
    alliance.ok(buyer("bo"), Command::Cancel { booking: between, reason: "".into() });
    assert_eq!(alliance.place(&last, 0), Some(("m1".into(), EIGHT + 3 * HOUR, EIGHT + 4 * HOUR)));
    let line: Vec<String> =
        alliance.station("m1").line.iter().map(|o| format!("{:?} {}", o.purpose, o.family)).collect();
    assert_eq!(line[1], "Tooling b", "{line:?}");
    // Once nothing counts on it, it goes.
    alliance.ok(buyer("bo"), Command::Cancel { booking: last, reason: "".into() });
    assert_eq!(alliance.station("m1").line.len(), 1);
}

#[test]
fn an_alliance_has_a_limited_number_of_setup_families() {
    let mut alliance = Alliance::with(vec![]);
    let families = |from: usize, to: usize| (from..to).map(|n| format!("f{n}")).collect();
    let with = |n: usize, setup_families| Machine {
        setup_families,
        initial_family: None,
        changeovers: vec![],
        ..machine(&format!("m{n}"), "ya-1", Mill)
    };
    let put = |machine| Command::PutMachine { machine, expected_revision: 0 };
    for n in 0..SETUP_FAMILIES_MAX / 32 {
        alliance.ok(operator(), put(with(n, families(32 * n, 32 * n + 32))));
    }
    let refusal =
        alliance.refused(operator(), put(with(99, families(SETUP_FAMILIES_MAX - 1, SETUP_FAMILIES_MAX + 1))));
    assert_eq!((refusal.field.as_str(), refusal.value.as_str()), ("machine.setup_families", "f128"));
    alliance.ok(operator(), put(with(99, families(SETUP_FAMILIES_MAX - 1, SETUP_FAMILIES_MAX))));
}

// Plans.

#[test]
fn an_optimisation_moves_what_is_not_frozen() {
    let mut alliance = Alliance::mills(&["m1", "m2"]);
    let cheap = terms(Objective::Cheapest);
    let id = alliance.try_book_on(hour(), cheap, &[("m1", EIGHT)], 0).expect("booked");
    alliance.plan(PlanKind::Optimisation, vec![move_to("b000001", 0, "m2", EIGHT + HOUR)]).expect("moved");
    assert_eq!(alliance.place(&id, 0), Some(("m2".into(), EIGHT + HOUR, EIGHT + 2 * HOUR)));
    // Frozen are the next two hours: neither out of them nor into them.
    alliance.now = EIGHT - HOUR + 1;
    let out = alliance.plan(PlanKind::Optimisation, vec![move_to("b000001", 0, "m2", EIGHT + 9 * HOUR)]);
    assert_eq!(reason(out), Reason::FrozenMoved);
    alliance.now -= MINUTE;
    let into = alliance.plan(PlanKind::Optimisation, vec![move_to("b000001", 0, "m2", EIGHT)]);
    assert_eq!(reason(into), Reason::FrozenMoved);
    alliance.plan(PlanKind::Repair, vec![move_to("b000001", 0, "m2", EIGHT)]).expect("repair may");
}

#[test]
fn a_plan_makes_no_booking_late_or_dearer() {
    let mut alliance = Alliance::mills(&["m1"]);
    let dear = Machine { rate_fen_per_hour: 36_001, ..machine("m2", "ya-1", Mill) };
    alliance.lend(dear, &[(EIGHT, MONDAY + 9 * DAY)]);
    alliance.book(hour(), &[("m1", EIGHT)]);
    let late = alliance.plan(PlanKind::Optimisation, vec![move_to("b000001", 0, "m1", EIGHT + MINUTE)]);
    assert_eq!(reason(late), Reason::PromiseWorsened);
    let dear = alliance.plan(PlanKind::Optimisation, vec![move_to("b000001", 0, "m2", EIGHT)]);
    assert_eq!(reason(dear), Reason::PromiseWorsened);
}

#[test]
fn a_plan_from_a_state_that_has_changed_since_is_outdated() {
    let mut alliance = Alliance::mills(&["m1", "m2"]);
    alliance.try_book_on(hour(), terms(Objective::Cheapest), &[("m1", EIGHT)], 0).expect("booked");
    let plan = |base_revision, machine| Command::CommitPlan {
        kind: PlanKind::Optimisation,
        base_revision,
        moves: vec![move_to("b000001", 0, machine, EIGHT + 6 * HOUR)],
        figures: PlanFigures::default(),
    };
    let base = alliance.revision;
    alliance.book_mill("a", 60, "m2", EIGHT);
    assert_eq!(alliance.refused(operator(), plan(base, "m2")).reason, Reason::PlanOutdated);
    alliance.ok(operator(), plan(base, "m1"));
    assert_eq!(alliance.refused(operator(), plan(base, "m1")).reason, Reason::PlanOutdated);
}

#[test]
fn a_plan_moves_each_operation_once() {
    let mut alliance = Alliance::mills(&["m1", "m2"]);
    alliance.try_book_on(hour(), terms(Objective::Cheapest), &[("m1", EIGHT)], 0).expect("booked");
    let twice = vec![move_to("b000001", 0, "m1", EIGHT + HOUR), move_to("b000001", 0, "m2", EIGHT + HOUR)];
    assert_eq!(reason(alliance.plan(PlanKind::Optimisation, twice)), Reason::PlacementConflict);
}

#[test]
fn two_bookings_may_change_places_in_one_plan() {
    let mut alliance = Alliance::mills(&["m1"]);
    for start in [EIGHT, EIGHT + HOUR] {
        alliance.try_book_on(hour(), terms(Objective::Cheapest), &[("m1", start)], 0).expect("booked");
    }
    let swap = vec![move_to("b000001", 0, "m1", EIGHT + HOUR), move_to("b000002", 0, "m1", EIGHT)];
    assert_eq!(alliance.plan(PlanKind::Optimisation, swap), Ok(Reply::Plan(2)));
    let optimisation = alliance.state.optimisation().expect("on record");
    assert_eq!((optimisation.moved, optimisation.committed_revision), (2, alliance.revision));
}

// Requests.

#[test]
fn a_repeated_request_gets_the_first_answer_and_another_body_is_refused() {
    let mut alliance = Alliance::mills(&["m1"]);
    let asked = book(hour(), terms(Objective::Fastest), &[("m1", EIGHT)], 0);
    let first = alliance.request("r1", 7, asked.clone());
    let again = alliance.request("r1", 7, asked.clone());
    assert_eq!((again.result.clone(), again.revision), (first.result, first.revision));
    assert!(again.changes.bookings.is_empty());
    let other =
        alliance.request("r1", 8, book(hour(), terms(Objective::Fastest), &[("m1", EIGHT + HOUR)], 0));
    assert_eq!(reason(other.result), Reason::RequestIdReused);
    assert_eq!(alliance.state.bookings().len(), 1);
    // Once it is forgotten, it is a new request.
    alliance.tick(MONDAY + DAY);
    let later = book(hour(), terms(Objective::Fastest), &[("m1", MONDAY + 2 * DAY)], 0);
    alliance.request("r1", 9, later).result.expect("booked");
}

#[test]
fn a_refused_request_is_tried_anew() {
    let mut alliance = Alliance::mills(&["m1"]);
    let held = alliance.hold(hour(), &[("m1", EIGHT)], HOUR);
    let asked = book(hour(), terms(Objective::Fastest), &[("m1", EIGHT)], 0);
    assert_eq!(reason(alliance.request("r1", 7, asked.clone()).result), Reason::PlacementConflict);
    alliance.ok(buyer("bo"), Command::Cancel { booking: held, reason: "".into() });
    alliance.request("r1", 7, asked).result.expect("booked");
}

#[test]
fn a_request_id_has_a_length() {
    let mut alliance = Alliance::mills(&["m1"]);
    for id in ["", &"r".repeat(101)] {
        let asked = book(hour(), terms(Objective::Fastest), &[("m1", EIGHT)], 0);
        assert_eq!(reason(alliance.request(id, 7, asked).result), Reason::InvalidField);
    }
}
