//! What clients may send that cannot be: each is refused with a reason, the field, its value and what would
//! be accepted; the node goes on, and its state is what it was.

use crate::harness::*;
use millpool_alliance::registry::Role;
use millpool_proto::v1;
use millpool_scheduler::api::TABLE;
use std::collections::BTreeMap;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

/// What came of the table so far.
#[derive(Default)]
struct Table {
    tried: usize,
    wrong: Vec<String>,
}

impl Table {
    /// `answer` must be a refusal with this code, reason and field; `-` is no field.
    fn refuses<T>(&mut self, what: &str, answer: Result<Response<T>, Status>, expected: (Code, &str, &str)) {
        self.tried += 1;
        let Err(status) = answer else {
            return self.wrong.push(format!("{what}: accepted, not refused with {expected:?}"));
        };
        let says = said(&status);
        let (code, reason, field) = expected;
        let field = if field == "-" { "" } else { field };
        if (says.code, says.reason.as_str(), says.field.as_str()) != (code, reason, field) {
            return self.wrong.push(format!("{what}: {says:?} {:?}, not {expected:?}", status.message()));
        }
        let details = status.get_error_details();
        let domain = details.error_info().map(|i| i.domain.clone()).unwrap_or_default();
        let complete = field.is_empty() || !says.accepted.is_empty();
        let violations = match code {
            Code::InvalidArgument => details.bad_request().map_or(0, |b| b.field_violations.len()),
            Code::FailedPrecondition => details.precondition_failure().map_or(0, |p| p.violations.len()),
            _ => 1,
        };
        if domain != "millpool" || !complete || violations == 0 || status.message().is_empty() {
            self.wrong.push(format!("{what}: incomplete: {status:?}"));
        }
    }
}

const INVALID: (Code, &str) = (Code::InvalidArgument, "INVALID_FIELD");
const UNKNOWN: (Code, &str) = (Code::NotFound, "UNKNOWN_ID");
const FAILED: Code = Code::FailedPrecondition;

fn at(what: (Code, &'static str), field: &'static str) -> (Code, &'static str, &'static str) {
    (what.0, what.1, field)
}

fn plain() -> v1::Order {
    order(vec![operation("a", 60)])
}

fn with(edit: impl FnOnce(&mut v1::Order)) -> v1::Order {
    let mut order = plain();
    edit(&mut order);
    order
}

fn booked(order: Option<v1::Order>) -> v1::BookRequest {
    v1::BookRequest { request_id: fresh(), order, ..Default::default() }
}

fn confirm(booking_id: &str) -> v1::ConfirmBookingRequest {
    v1::ConfirmBookingRequest { request_id: fresh(), booking_id: booking_id.into() }
}

fn cancel(booking_id: &str, reason: &str) -> v1::CancelBookingRequest {
    v1::CancelBookingRequest { request_id: fresh(), booking_id: booking_id.into(), reason: reason.into() }
}

/// Orders that nobody could make, with the field at fault.
fn orders() -> Vec<(&'static str, v1::Order)> {
    let op = |edit: fn(&mut v1::Operation)| with(|o| edit(&mut o.route[0]));
    let quantity = "order.quantity";
    let run = "order.route[0].run_s_per_piece";
    vec![
        (quantity, with(|o| o.quantity = 0)),
        (quantity, with(|o| o.quantity = u32::MAX)),
        ("order.reference", with(|o| o.reference = "x".repeat(101))),
        ("order.reference", with(|o| o.reference = "a\u{0}b".into())),
        ("order.material", with(|o| o.material.clear())),
        ("order.material", with(|o| o.material = "x".repeat(41))),
        ("order.size", with(|o| o.size = None)),
        ("order.size.x_mm", with(|o| o.size = Some(v1::Size::default()))),
        ("order.size.z_mm", with(|o| o.size = Some(v1::Size { x_mm: 1, y_mm: 1, z_mm: u32::MAX }))),
        ("order.mass_g", with(|o| o.mass_g = 0)),
        ("order.mass_g", with(|o| o.mass_g = u64::MAX)),
        ("order.route (count)", with(|o| o.route.clear())),
        ("order.route (count)", with(|o| o.route = vec![operation("a", 1); 17])),
        ("order.route[0].class", op(|o| o.class = 0)),
        ("order.route[0].class", op(|o| o.class = 4711)),
        ("order.route[0].class", op(|o| o.class = i32::MIN)),
        ("order.route[0].axes_min", op(|o| o.axes_min = u32::MAX)),
        ("order.route[0].tolerance_um", op(|o| o.tolerance_um = u32::MAX)),
        ("order.route[0].setup_family", op(|o| o.setup_family.clear())),
        ("order.route[0].setup_s", op(|o| o.setup_s = u32::MAX)),
        (run, op(|o| o.run_s_per_piece = 0)),
        (run, op(|o| o.run_s_per_piece = u32::MAX)),
        ("order.route[0].run_s_per_piece times quantity plus setup_s", with(|o| o.quantity = 1_000_000)),
        (
            "order.route[0].certificates (count)",
            op(|o| o.certificates = (0..33).map(|i| i.to_string()).collect()),
        ),
        ("order.release_s", with(|o| o.release_s = i64::MAX)),
        ("order.release_s", with(|o| o.release_s = -1)),
        ("order.due_s", with(|o| o.due_s = 0)),
        ("order.due_s", with(|o| o.due_s = i64::MIN)),
        ("order.due_s", with(|o| o.due_s = i64::MAX)),
        ("order.due_s", with(|o| o.due_s = minutes(-10))),
        ("order.due_s", with(|o| o.release_s = o.due_s)),
        ("order.deadline_s", with(|o| o.deadline_s = o.due_s - 1)),
        ("order.deadline_s", with(|o| o.deadline_s = i64::MIN)),
        ("order.deadline_s", with(|o| o.deadline_s = i64::MAX)),
        ("order.budget_fen", with(|o| o.budget_fen = -1)),
        ("order.budget_fen", with(|o| o.budget_fen = i64::MIN)),
        ("order.budget_fen", with(|o| o.budget_fen = i64::MAX)),
        ("plant_id", with(|o| o.excluded_plants = vec!["No Plant!".into()])),
    ]
}

fn machines() -> Vec<(&'static str, v1::Machine)> {
    let with = |edit: fn(&mut v1::Machine)| {
        let mut machine = mill("mill-9", "p-1");
        edit(&mut machine);
        machine
    };
    vec![
        ("machine_id", with(|m| m.id = "Mill 9".into())),
        ("machine_id", with(|m| m.id = "m".repeat(41))),
        ("plant_id", with(|m| m.plant_id.clear())),
        ("machine.name", with(|m| m.name.clear())),
        ("machine.class", with(|m| m.class = 0)),
        ("machine.class", with(|m| m.class = -7)),
        ("machine.power", with(|m| m.power = None)),
        ("machine.power.cutting_w", with(|m| m.power.as_mut().unwrap().cutting_w = u32::MAX)),
        ("machine.envelope", with(|m| m.envelope = None)),
        ("machine.envelope.x_mm", with(|m| m.envelope = Some(v1::Size::default()))),
        ("machine.axes", with(|m| m.axes = 1)),
        ("machine.mass_max_g", with(|m| m.mass_max_g = u64::MAX)),
        ("machine.tolerance_um", with(|m| m.tolerance_um = 0)),
        ("machine.materials (count)", with(|m| m.materials.clear())),
        ("machine.setup_families (count)", with(|m| m.setup_families.clear())),
        ("machine.initial_family", with(|m| m.initial_family = "z".into())),
        ("machine.changeover_default_s", with(|m| m.changeover_default_s = 61)),
        ("machine.changeover_default_s", with(|m| m.changeover_default_s = u32::MAX)),
        ("machine.rate_fen_per_hour", with(|m| m.rate_fen_per_hour = -1)),
        ("machine.rate_fen_per_hour", with(|m| m.rate_fen_per_hour = i64::MAX)),
        ("machine.setup_rate_fen_per_hour", with(|m| m.setup_rate_fen_per_hour = i64::MIN)),
        ("machine.setup_rate_fen_per_hour", with(|m| m.setup_rate_fen_per_hour = 61)),
        ("machine.speed_permille", with(|m| m.speed_permille = 1)),
        ("machine.speed_permille", with(|m| m.speed_permille = u32::MAX)),
    ]
}

fn offers() -> Vec<(&'static str, v1::Offer)> {
    let with = |edit: fn(&mut v1::Offer)| {
        let mut offer = offer("o-9", "mill-1", minutes(60), minutes(120));
        edit(&mut offer);
        offer
    };
    let window = |start_s, end_s| v1::Window { start_s, end_s };
    let mut list = vec![
        ("offer_id", with(|o| o.id.clear())),
        ("machine_id", with(|o| o.machine_id = "Mill".into())),
        ("offer.windows", with(|o| o.windows.clear())),
        ("offer.notice_s", with(|o| o.notice_s = u32::MAX)),
        ("offer.open (count)", with(|o| o.except = o.windows.clone())),
        ("offer.windows (count)", with(|o| o.windows = vec![o.windows[0]; 513])),
        ("offer.windows", with(|o| o.windows = vec![v1::Window { start_s: 60, end_s: 120 }])),
    ];
    for (start, end) in [
        (minutes(120), minutes(60)),
        (minutes(60), minutes(60)),
        (i64::MIN, i64::MAX),
        (0, i64::MAX),
        (i64::MAX, i64::MIN),
        (-60, minutes(60)),
    ] {
        let mut wrong = with(|_| {});
        wrong.windows.push(window(start, end));
        list.push(("offer.windows", wrong.clone()));
        wrong.windows.truncate(1);
        wrong.except.push(window(start, end));
        list.push(("offer.except", wrong));
    }
    let shift = |weekdays: &[u32], start_minute, end_minute| v1::Shift {
        weekdays: weekdays.to_vec(),
        start_minute,
        end_minute,
    };
    for (field, shift, from_s, until_s) in [
        ("offer.shifts.start_minute", shift(&[1], u32::MAX, 60), minutes(0), minutes(10_000)),
        ("offer.shifts.end_minute", shift(&[1], 60, u32::MAX), minutes(0), minutes(10_000)),
        ("offer.shifts.weekdays", shift(&[8], 60, 120), minutes(0), minutes(10_000)),
        ("offer.shifts.weekdays (count)", shift(&[], 60, 120), minutes(0), minutes(10_000)),
        ("offer.until_s", shift(&[1], 60, 120), minutes(0), i64::MAX),
        ("offer.until_s", shift(&[1], 60, 120), i64::MIN, i64::MAX),
        ("offer.until_s", shift(&[1], 60, 120), i64::MAX, i64::MIN),
        ("offer.from_s", shift(&[1], 60, 120), i64::MAX - 1, i64::MAX),
        ("offer.from_s", shift(&[1], 60, 120), i64::MIN, i64::MIN + 1),
    ] {
        list.push((field, v1::Offer { shifts: vec![shift], from_s, until_s, ..with(|o| o.windows.clear()) }));
    }
    list
}

/// The state's hash with its clock standing still: reads let no time pass, so it is the replicated state.
async fn hash(cluster: &Cluster) -> u64 {
    // The format rises once, by itself, and the hash with it.
    let settled = || async { cluster.status(0).await.filter(|status| status.format == status.format_max) };
    eventually("the format to rise", settled).await.state_hash
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_by_name_and_changes_nothing() {
    let cluster = Cluster::start(1).await;
    let op = cluster.operator(0);
    found_alliance(&op).await;
    let (bo, li) = (cluster.client(0, "buyer:bo"), cluster.client(0, "buyer:li"));
    let mine = bo.book(plain()).await.id;
    // Absurd where it does not matter: what the server works out itself is not believed, and an option is
    // only a wish.
    let stated = v1::Offer {
        open: vec![
            v1::Window { start_s: i64::MIN, end_s: i64::MAX },
            v1::Window { start_s: 0, end_s: i64::MAX },
        ],
        withdrawn: true,
        revision: u64::MAX,
        ..offer("o-8", "mill-1", minutes(30), minutes(90))
    };
    let stored = op.capacity().create_offer(create_offer(stated)).await.unwrap().into_inner().offer.unwrap();
    assert_eq!((stored.withdrawn, stored.open.len()), (false, 1));
    for start_s in [i64::MIN, -1, 0, 61, i64::MAX] {
        let seat = v1::Assignment { machine_id: "mill-1".into(), start_s, ..Default::default() };
        let option = v1::Option { assignments: vec![seat], ..Default::default() };
        let request = v1::BookRequest { option: Some(option), ..booked(Some(plain())) };
        assert!(
            bo.booking().book(request).await.unwrap().into_inner().booking.unwrap().completes_at_s > now_s()
        );
    }

    let before = hash(&cluster).await;
    let mut t = Table::default();
    for (field, wrong) in orders() {
        let request = v1::QuoteRequest { order: Some(wrong.clone()), consistency: None };
        t.refuses(&format!("quote, {field}"), bo.booking().quote(request).await, at(INVALID, field));
        let request = booked(Some(wrong.clone()));
        t.refuses(&format!("book, {field}"), bo.booking().book(request).await, at(INVALID, field));
        let request = v1::ExplainRequest { order: Some(wrong), ..Default::default() };
        t.refuses(&format!("explain, {field}"), bo.plan().explain(request).await, at(INVALID, field));
    }
    for (field, machine) in machines() {
        let request = put_machine(machine);
        t.refuses(field, op.capacity().put_machine(request).await, at(INVALID, field));
    }
    for (field, offer) in offers() {
        let request = create_offer(offer.clone());
        t.refuses(&format!("{offer:?}"), op.capacity().create_offer(request).await, at(INVALID, field));
    }
    bookings(&mut t, &bo, &li, &mine).await;
    capacity(&mut t, &cluster).await;
    admin(&mut t, &op).await;
    lists(&mut t, &op).await;

    assert!(t.wrong.is_empty(), "{} of {}:\n{}", t.wrong.len(), t.tried, t.wrong.join("\n"));
    assert!(t.tried > 180, "{}", t.tried);
    assert_eq!(hash(&cluster).await, before, "a refusal has changed the state");
    // It goes on as if nothing had been.
    assert_eq!(bo.get(&mine).await.unwrap().id, mine);
    bo.book(plain()).await;
}

async fn bookings(t: &mut Table, bo: &Client, li: &Client, mine: &str) {
    let mut client = bo.booking();
    t.refuses("no order", client.quote(v1::QuoteRequest::default()).await, at(INVALID, "order"));
    t.refuses("no order", client.book(booked(None)).await, at(INVALID, "order"));
    t.refuses("no order", bo.plan().explain(v1::ExplainRequest::default()).await, at(INVALID, "order"));
    for id in ["", &"x".repeat(65), "a\u{7}"] {
        let request = v1::BookRequest { request_id: id.into(), ..booked(Some(plain())) };
        t.refuses("request id", client.book(request).await, at(INVALID, "request_id"));
    }

    // What nobody can make.
    type Case = (&'static str, &'static str, fn(&mut v1::Order));
    let cases: [Case; 6] = [
        ("order.route[0].tolerance_um", "tolerance_um", |o| o.route[0].tolerance_um = 1),
        ("order.route[0].axes_min", "axes_min", |o| o.route[0].axes_min = 5),
        ("order.route[0].class", "class", |o| o.route[0].class = v1::MachineClass::Grinder.into()),
        ("order.route[0].material", "material", |o| o.material = "adamant".into()),
        ("order.route[0].setup_family", "setup_family", |o| o.route[0].setup_family = "z".into()),
        ("order.route[0].excluded_plants", "excluded_plants", |o| {
            o.excluded_plants = vec!["p-1".into(), "p-2".into()]
        }),
    ];
    for (field, requirement, edit) in cases {
        let wanted = with(edit);
        let nobody = (FAILED, "NO_ELIGIBLE_MACHINE", field);
        t.refuses(field, client.book(booked(Some(wanted.clone()))).await, nobody);
        let quoted = client
            .quote(v1::QuoteRequest { order: Some(wanted), consistency: None })
            .await
            .unwrap()
            .into_inner();
        assert!(quoted.options.is_empty());
        assert_eq!(quoted.obstacles[0].requirement, requirement, "{quoted:?}");
    }

    // Terms that cannot be, or that nothing meets.
    let terms = |edit: fn(&mut v1::Terms)| {
        let mut terms = v1::Terms::default();
        edit(&mut terms);
        v1::BookRequest { terms: Some(terms), ..booked(Some(plain())) }
    };
    for (request, expected) in [
        (terms(|t| t.objective = 4711), at(INVALID, "terms.objective")),
        (terms(|t| t.promised_by_s = -1), at(INVALID, "terms.promised_by_s")),
        (terms(|t| t.promised_by_s = i64::MAX), at(INVALID, "terms.promised_by_s")),
        (terms(|t| t.price_max_fen = i64::MIN), at(INVALID, "terms.price_max_fen")),
        (terms(|t| t.promised_by_s = 1), (FAILED, "LATER_THAN_TERMS", "terms.promised_by_s")),
        (terms(|t| t.price_max_fen = 1), (FAILED, "PRICE_ABOVE_TERMS", "terms.price_max_fen")),
        (booked(Some(with(|o| o.budget_fen = 1))), (FAILED, "PRICE_ABOVE_TERMS", "order.budget_fen")),
        (
            booked(Some(with(|o| (o.due_s, o.deadline_s) = (minutes(40), minutes(40))))),
            (FAILED, "LATER_THAN_TERMS", "order.deadline_s"),
        ),
        (v1::BookRequest { hold_s: u32::MAX, ..booked(Some(plain())) }, at(INVALID, "hold_s")),
        (
            v1::BookRequest { option: Some(v1::Option::default()), ..booked(Some(plain())) },
            at(INVALID, "option.assignments (count)"),
        ),
        (
            v1::BookRequest {
                option: Some(v1::Option { assignments: vec![Default::default()], ..Default::default() }),
                ..booked(Some(plain()))
            },
            at(INVALID, "machine_id"),
        ),
    ] {
        t.refuses(&format!("{request:?}"), client.book(request).await, expected);
    }

    // The same request id with another body: of a booking that was made.
    let first = v1::CancelBookingRequest { request_id: "once".into(), ..cancel("b999999", "") };
    t.refuses("unknown", client.cancel_booking(first).await, at(UNKNOWN, "booking_id"));
    for (id, expected) in [
        ("b999999", at(UNKNOWN, "booking_id")),
        ("B 1", at(INVALID, "booking_id")),
        ("", at(INVALID, "booking_id")),
    ] {
        t.refuses(id, client.confirm_booking(confirm(id)).await, expected);
        t.refuses(id, client.cancel_booking(cancel(id, "")).await, expected);
        let request = v1::GetBookingRequest { booking_id: id.into(), consistency: None };
        t.refuses(id, client.get_booking(request).await, expected);
        if !id.is_empty() {
            let request = v1::ExplainRequest { booking_id: id.into(), order: None };
            t.refuses(id, bo.plan().explain(request).await, expected);
            let request = v1::WatchBookingsRequest { start_revision: 0, booking_id: id.into() };
            t.refuses(id, client.watch_bookings(request).await, expected);
        }
    }
    t.refuses(
        "confirmed",
        client.confirm_booking(confirm(mine)).await,
        (FAILED, "WRONG_STATUS", "booking_id"),
    );
    t.refuses("reason", client.cancel_booking(cancel(mine, &"x".repeat(201))).await, at(INVALID, "reason"));

    // Another buyer's booking does not exist.
    let mut other = li.booking();
    let unknown = at(UNKNOWN, "booking_id");
    t.refuses("another's", other.confirm_booking(confirm(mine)).await, unknown);
    t.refuses("another's", other.cancel_booking(cancel(mine, "")).await, unknown);
    let request = v1::GetBookingRequest { booking_id: mine.into(), consistency: None };
    t.refuses("another's", other.get_booking(request).await, unknown);
    let request = v1::WatchBookingsRequest { start_revision: 0, booking_id: mine.into() };
    t.refuses("another's", other.watch_bookings(request).await, unknown);
    let request = v1::ExplainRequest { booking_id: mine.into(), order: None };
    t.refuses("another's", li.plan().explain(request).await, unknown);
}

async fn capacity(t: &mut Table, cluster: &Cluster) {
    let mut op = cluster.operator(0).capacity();
    let mut beta = cluster.client(0, "member:beta").capacity();
    let member = |id: &str, name: &str, expected_revision| {
        let member = Some(v1::Member { id: id.into(), name: name.into(), revision: 0 });
        v1::PutMemberRequest { request_id: fresh(), member, expected_revision }
    };
    let none = v1::PutMemberRequest { request_id: fresh(), ..Default::default() };
    for (request, expected) in [
        (none, at(INVALID, "member")),
        (member("Ö", "x", 0), at(INVALID, "member_id")),
        (member("new", "", 0), at(INVALID, "member.name")),
        (member("acme", "x", 0), (Code::AlreadyExists, "ALREADY_EXISTS", "member.id")),
        (member("acme", "x", u64::MAX), (FAILED, "REVISION_MISMATCH", "expected_revision")),
        (member("new", "x", 7), at(UNKNOWN, "member.id")),
    ] {
        t.refuses(&format!("{request:?}"), op.put_member(request).await, expected);
    }
    let edited = |edit: fn(&mut v1::Plant)| {
        let mut plant = plant("p-9", "acme", 0);
        edit(&mut plant);
        put_plant(plant)
    };
    for (request, expected) in [
        (edited(|p| p.id = "P".into()), at(INVALID, "plant_id")),
        (edited(|p| p.member_id = "nobody".into()), at(UNKNOWN, "plant.member_id")),
        (edited(|p| p.time_zone = "Mars/Olympus".into()), at(INVALID, "plant.time_zone")),
        (edited(|p| p.east_m = i64::MAX), at(INVALID, "plant.east_m")),
        (edited(|p| p.north_m = i64::MIN), at(INVALID, "plant.north_m")),
        (edited(|p| p.grid_region.clear()), at(INVALID, "plant.grid_region")),
        (edited(|p| p.id = "p-1".into()), (Code::AlreadyExists, "ALREADY_EXISTS", "plant.id")),
    ] {
        t.refuses(&format!("{request:?}"), op.put_plant(request).await, expected);
    }
    let unknown = put_machine(mill("mill-9", "p-9"));
    t.refuses("no such plant", op.put_machine(unknown).await, at(UNKNOWN, "machine.plant_id"));
    let unknown = create_offer(offer("o-9", "mill-9", minutes(60), minutes(120)));
    t.refuses("no such machine", op.create_offer(unknown).await, at(UNKNOWN, "offer.machine_id"));
    let twice = create_offer(offer("o-mill-1", "mill-1", minutes(60), minutes(120)));
    t.refuses("twice", op.create_offer(twice).await, (Code::AlreadyExists, "ALREADY_EXISTS", "offer.id"));
    let withdraw = |offer_id: &str, preview| v1::WithdrawOfferRequest {
        request_id: fresh(),
        offer_id: offer_id.into(),
        preview,
        accept_disturbance: false,
    };
    for preview in [false, true] {
        t.refuses("no offer", op.withdraw_offer(withdraw("o-99", preview)).await, at(UNKNOWN, "offer_id"));
        t.refuses(
            "another's",
            beta.withdraw_offer(withdraw("o-mill-1", preview)).await,
            at(UNKNOWN, "offer_id"),
        );
    }
    // What is another member's does not exist.
    t.refuses("another's", beta.put_plant(edited(|_| {})).await, at(UNKNOWN, "plant.member_id"));
    let request = put_machine(mill("mill-9", "p-1"));
    t.refuses("another's", beta.put_machine(request).await, at(UNKNOWN, "machine.plant_id"));
    let request = create_offer(offer("o-9", "mill-1", minutes(60), minutes(120)));
    t.refuses("another's", beta.create_offer(request).await, at(UNKNOWN, "offer.machine_id"));
}

async fn admin(t: &mut Table, op: &Client) {
    let mut client = op.admin();
    let policy =
        client.get_policy(v1::GetPolicyRequest::default()).await.unwrap().into_inner().policy.unwrap();
    let put = |edit: &dyn Fn(&mut v1::Policy), expected_revision| {
        let mut policy = policy.clone();
        edit(&mut policy);
        v1::PutPolicyRequest { request_id: fresh(), policy: Some(policy), expected_revision }
    };
    let now = policy.revision;
    let tariff = |p: &mut v1::Policy| p.transport.as_mut().unwrap().fen_per_km = i64::MAX;
    for (request, expected) in [
        (put(&|p| p.freeze_s = u32::MAX, now), at(INVALID, "policy.freeze_s")),
        (
            put(&|p| p.tardiness_fen_per_minute = i64::MIN, now),
            at(INVALID, "policy.tardiness_fen_per_minute"),
        ),
        (put(&|p| p.transport = None, now), at(INVALID, "policy.transport")),
        (put(&tariff, now), at(INVALID, "policy.transport.fen_per_km")),
        (put(&|p| p.request_id_keep_s = 0, now), at(INVALID, "policy.request_id_keep_s")),
        (put(&|p| p.history_keep_s = 59, now), at(INVALID, "policy.history_keep_s")),
        (put(&|p| p.history_keep_s = u32::MAX, now), at(INVALID, "policy.history_keep_s")),
        (put(&|p| p.grid_factors = vec![Default::default()], now), at(INVALID, "policy.grid_factors.region")),
        (put(&|_| {}, now + 1), (FAILED, "REVISION_MISMATCH", "expected_revision")),
    ] {
        t.refuses(&format!("{request:?}"), client.put_policy(request).await, expected);
    }
    let principal = |id: &str, role: i32, expires_at_s| v1::PutPrincipalRequest {
        request_id: fresh(),
        principal: Some(v1::Principal { id: id.into(), role, expires_at_s, revoked: false }),
    };
    let later = minutes(1000);
    let none = v1::PutPrincipalRequest { request_id: fresh(), principal: None };
    for (request, expected) in [
        (none, at(INVALID, "principal")),
        (principal("bo", 0, later), at(INVALID, "principal.role")),
        (principal("bo", 99, later), at(INVALID, "principal.role")),
        (principal("", 1, later), at(INVALID, "principal_id")),
        (principal("bo", 1, i64::MIN), at(INVALID, "principal.expires_at_s")),
    ] {
        t.refuses(&format!("{request:?}"), client.put_principal(request).await, expected);
    }
    let request = v1::RevokePrincipalRequest { request_id: fresh(), role: 1, id: "nobody".into() };
    t.refuses("nobody", client.revoke_principal(request).await, at(UNKNOWN, "id"));
    t.refuses("no node", client.add_node(v1::AddNodeRequest { node: None }).await, at(INVALID, "node"));
    let node = |id, peer: &str| v1::AddNodeRequest {
        node: Some(v1::Node {
            id,
            peer_address: peer.into(),
            public_address: "a:1".into(),
            ..Default::default()
        }),
    };
    t.refuses("no port", client.add_node(node(2, "nowhere")).await, at(INVALID, "node.peer_address"));
    t.refuses("no id", client.add_node(node(0, "127.0.0.1:1")).await, at(INVALID, "node.id"));
    let unknown = (Code::NotFound, "UNKNOWN_ID", "node_id");
    t.refuses("no node", client.remove_node(v1::RemoveNodeRequest { node_id: 99 }).await, unknown);
    t.refuses("no node", client.transfer_leader(v1::TransferLeaderRequest { node_id: 99 }).await, unknown);
}

async fn lists(t: &mut Table, op: &Client) {
    let page = |size, token: &str| Some(v1::Page { size, token: token.into() });
    let long = "x".repeat(81);
    for (page, field) in [
        (page(1001, ""), "page.size"),
        (page(u32::MAX, ""), "page.size"),
        (page(10, "a\u{0}"), "page.token"),
        (page(10, &long), "page.token"),
    ] {
        let field = at(INVALID, field);
        let request = v1::ListBookingsRequest { page: page.clone(), ..Default::default() };
        t.refuses("bookings", op.booking().list_bookings(request).await, field);
        let request = v1::ListMembersRequest { page: page.clone(), ..Default::default() };
        t.refuses("members", op.capacity().list_members(request).await, field);
        let request = v1::ListPlantsRequest { page: page.clone(), ..Default::default() };
        t.refuses("plants", op.capacity().list_plants(request).await, field);
        let request = v1::ListMachinesRequest { page: page.clone(), ..Default::default() };
        t.refuses("machines", op.capacity().list_machines(request).await, field);
        let request = v1::ListOffersRequest { page: page.clone(), ..Default::default() };
        t.refuses("offers", op.capacity().list_offers(request).await, field);
        let request = v1::ListPrincipalsRequest { page };
        t.refuses("principals", op.admin().list_principals(request).await, field);
    }
    // A token of another list, and one that is none of any.
    for token in ["p-1", "b1"] {
        let request = v1::ListBookingsRequest { page: page(10, token), ..Default::default() };
        t.refuses("bookings", op.booking().list_bookings(request).await, at(INVALID, "page.token"));
    }
    let request = v1::ListBookingsRequest { status: 99, ..Default::default() };
    t.refuses("status", op.booking().list_bookings(request).await, at(INVALID, "status"));
    let request = v1::ListMachinesRequest { class: 99, ..Default::default() };
    t.refuses("class", op.capacity().list_machines(request).await, at(INVALID, "class"));
    for (from_s, until_s) in [(i64::MAX, i64::MIN), (i64::MAX, 0), (minutes(10), minutes(10))] {
        let request = v1::GetPlanRequest { from_s, until_s, ..Default::default() };
        t.refuses("times", op.plan().get_plan(request).await, at(INVALID, "until_s"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_stands_for_one_request_and_pages_follow_each_other() {
    let cluster = Cluster::start(1).await;
    found_alliance(&cluster.operator(0)).await;
    let bo = cluster.client(0, "buyer:bo");
    let request = booked(Some(plain()));
    let first = bo.booking().book(request.clone()).await.unwrap().into_inner();
    let mut other = request.clone();
    other.order.as_mut().unwrap().quantity = 2;
    let mut t = Table::default();
    let reused = (Code::InvalidArgument, "REQUEST_ID_REUSED", "request_id");
    t.refuses("another body", bo.booking().book(other.clone()).await, reused);
    assert_eq!(t.wrong, Vec::<String>::new());
    // Under another name, or for another call, it is another request.
    let li = cluster.client(0, "buyer:li").booking().book(other).await.unwrap().into_inner();
    assert_ne!(li.booking.unwrap().id, first.booking.as_ref().unwrap().id);

    // Twenty at once under one id are one booking.
    let request = booked(Some(plain()));
    let mut all = Vec::new();
    for _ in 0..20 {
        let (client, request) = (bo.clone(), request.clone());
        all.push(tokio::spawn(async move { client.booking().book(request).await.unwrap().into_inner() }));
    }
    let mut answers = Vec::new();
    for answer in all {
        answers.push(answer.await.unwrap());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "one request, one answer");

    for _ in 0..8 {
        bo.book(order(vec![operation("a", 10)])).await;
    }
    let mut token = String::new();
    let mut seen = Vec::new();
    loop {
        let page = Some(v1::Page { size: 3, token });
        let request = v1::ListBookingsRequest { page, ..Default::default() };
        let answer = bo.booking().list_bookings(request).await.unwrap().into_inner();
        assert!(answer.bookings.len() <= 3);
        seen.extend(answer.bookings.into_iter().map(|b| b.id));
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.is_sorted());

    // More than a message may hold is refused, and what is larger by far before it is read.
    let large = |bytes| booked(Some(with(|o| o.reference = "x".repeat(bytes))));
    let refused = said(&bo.booking().book(large(2 << 20)).await.unwrap_err());
    assert_eq!((refused.reason.as_str(), refused.field.as_str()), ("INVALID_FIELD", "request (bytes)"));
    assert_eq!(refused.accepted, "0 to 1048576");
    let refused = bo.booking().book(large(8 << 20)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    bo.book(plain()).await;
}

/// Calls an RPC with an empty message.
async fn empty(client: &Client, path: &str) -> Result<(), Status> {
    macro_rules! call {
        ($service:ident, $($name:literal => $method:ident,)*) => {
            match path.rsplit('/').next().unwrap_or_default() {
                $($name => return client.$service().$method(tonic::Request::new(Default::default())).await.map(|_| ()),)*
                _ => {}
            }
        };
    }
    call!(booking,
        "Quote" => quote, "Book" => book, "ConfirmBooking" => confirm_booking, "GetBooking" => get_booking,
        "ListBookings" => list_bookings, "WatchBookings" => watch_bookings, "CancelBooking" => cancel_booking,
    );
    call!(capacity,
        "PutMember" => put_member, "ListMembers" => list_members, "PutPlant" => put_plant,
        "ListPlants" => list_plants, "PutMachine" => put_machine, "ListMachines" => list_machines,
        "CreateOffer" => create_offer, "ListOffers" => list_offers, "WithdrawOffer" => withdraw_offer,
    );
    call!(remote,
        "OpenSession" => open_session, "CloseSession" => close_session, "Operate" => operate,
        "GetSession" => get_session, "ListSessions" => list_sessions, "UploadProgram" => upload_program,
    );
    call!(agent, "FetchProgram" => fetch_program,);
    call!(plan, "GetPlan" => get_plan, "WatchPlan" => watch_plan, "Explain" => explain,
        "GetIndicators" => get_indicators,
    );
    call!(admin,
        "GetStatus" => get_status, "AddNode" => add_node, "RemoveNode" => remove_node,
        "TransferLeader" => transfer_leader, "TakeSnapshot" => take_snapshot, "Backup" => backup, "PutPrincipal" => put_principal,
        "ListPrincipals" => list_principals, "RevokePrincipal" => revoke_principal, "GetPolicy" => get_policy,
        "PutPolicy" => put_policy,
    );
    if path.ends_with("/Attach") {
        let nothing = tokio_stream::iter([v1::AgentMessage::default()]);
        return client.agent().attach(nothing).await.map(|_| ());
    }
    panic!("{path} is not tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_admits_the_roles_that_the_table_says_and_no_other() {
    let cluster = Cluster::start(1).await;
    let roles = [Role::Buyer, Role::Member, Role::Agent, Role::Operator, Role::Auditor];
    let mut wrong = BTreeMap::new();
    for (path, admitted) in TABLE {
        for role in roles {
            let name = format!("{role:?}").to_lowercase();
            let client = cluster.client(0, &format!("{name}:x"));
            let answer = empty(&client, path).await;
            let denied = answer.as_ref().err().is_some_and(|status| said(status).reason == "NOT_ALLOWED");
            if denied == admitted.contains(&role) {
                wrong.insert(format!("{name} {path}"), format!("{answer:?}"));
            }
            if let Err(status) = &answer
                && said(status).reason.is_empty()
            {
                wrong.insert(format!("{name} {path}, without a reason"), format!("{status:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for token in ["king:x", "buyer:NOT AN ID", "buyer:"] {
        let refused = cluster.client(0, token).get("b000001").await.unwrap_err();
        assert!(!said(&refused).reason.is_empty(), "{refused:?}");
    }
}
