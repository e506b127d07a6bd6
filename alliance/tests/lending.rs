//! What members lend, change and take back, as sentences.

mod scenes;

use millpool_alliance::booking::DisturbanceKind;
use millpool_alliance::offer::Offer;
use millpool_alliance::refusal::Reason;
use millpool_alliance::registry::{Machine, MachineClass::*, Plant, Policy, Principal, Role};
use millpool_alliance::*;
use scenes::build::*;

const EIGHT: i64 = MONDAY + 8 * HOUR;

fn of_member(id: &str) -> Caller {
    Caller { role: Role::Member, id: PrincipalId::trusted(id) }
}

fn withdraw(offer: &str, accept_disturbance: bool) -> Command {
    Command::WithdrawOffer { offer: OfferId::trusted(offer), accept_disturbance }
}

#[test]
fn an_offer_lends_something_that_is_still_to_come() {
    let mut alliance = Alliance::mills(&["m1"]);
    let past = offer("o2", "m1", &[(MONDAY - DAY, MONDAY)]);
    assert_eq!(alliance.refused(operator(), Command::CreateOffer(past)).field, "offer.windows");
    let again = offer("o-m1", "m1", &[(EIGHT, EIGHT + HOUR)]);
    assert_eq!(alliance.refused(operator(), Command::CreateOffer(again)).reason, Reason::AlreadyExists);
}

#[test]
fn an_offer_with_a_time_that_cannot_be_is_refused() {
    let mut alliance = Alliance::mills(&["m1"]);
    let good = || offer("o2", "m1", &[(EIGHT, EIGHT + HOUR)]);
    let inverted = Window::new(EIGHT + HOUR, EIGHT);
    let endless = Window::new(EIGHT, i64::MAX);
    for (field, bad) in [
        ("offer.windows", Offer { windows: vec![inverted], ..good() }),
        ("offer.windows", Offer { windows: vec![endless], ..good() }),
        ("offer.windows", Offer { windows: vec![Window::new(-1, EIGHT)], ..good() }),
        ("offer.except", Offer { except: vec![inverted], ..good() }),
        ("offer.windows", Offer { windows: vec![], ..good() }),
        ("offer.notice_s", Offer { notice_s: i64::MAX, ..good() }),
        ("offer.notice_s", Offer { notice_s: -1, ..good() }),
    ] {
        let mut worked_out = bad.clone();
        assert_eq!(worked_out.expand("Asia/Shanghai").expect_err(field).field, field, "at the edge");
        assert_eq!(alliance.refused(operator(), Command::CreateOffer(bad)).field, field, "in the log");
    }
}

#[test]
fn a_machine_has_a_limited_number_of_offers() {
    let mut alliance = Alliance::mills(&["m1"]);
    let next = |n: i64| Command::CreateOffer(offer(&format!("o{n}"), "m1", &[(EIGHT, EIGHT + HOUR)]));
    for n in 1..lending::OFFERS_STANDING_MAX {
        alliance.ok(operator(), next(n));
    }
    assert_eq!(alliance.refused(operator(), next(99)).field, "offers of the machine (count)");
    alliance.ok(operator(), withdraw("o1", false));
    alliance.ok(operator(), next(99));
}

#[test]
fn a_withdrawal_that_would_disturb_is_told_first_and_done_only_if_accepted() {
    let mut alliance = Alliance::mills(&["m1"]);
    let id = alliance.book_mill("a", 60, "m1", EIGHT);
    let preview = alliance.state.preview_withdraw(&operator(), &OfferId::trusted("o-m1")).expect("told");
    assert_eq!(preview.len(), 1);
    assert_eq!(preview[0].window, Window::new(EIGHT, EIGHT + HOUR));
    assert_eq!(alliance.refused(operator(), withdraw("o-m1", false)).reason, Reason::WouldDisturb);
    let reply = alliance.ok(operator(), withdraw("o-m1", true));
    let Reply::Offer(offer, disturbed) = reply else { panic!("{reply:?}") };
    assert_eq!((offer.id.as_str(), offer.withdrawn, disturbed), ("o-m1", true, preview));
    assert_eq!(alliance.place(&id, 0), None);
    assert!(alliance.booking(&id).at_risk());
    assert_eq!(alliance.booking(&id).disturbances[0].kind, DisturbanceKind::OfferWithdrawn);
    assert_eq!(alliance.refused(operator(), withdraw("o-m1", true)).reason, Reason::WrongStatus);
}

#[test]
fn a_withdrawal_that_makes_work_late_disturbs_it_too() {
    let mut alliance = Alliance::mills(&[]);
    alliance.lend(machine("m1", "ya-1", Mill), &[(EIGHT, EIGHT + HOUR), (EIGHT + DAY, EIGHT + DAY + HOUR)]);
    let between = offer("o2", "m1", &[(EIGHT + 2 * HOUR, EIGHT + 3 * HOUR)]);
    alliance.ok(operator(), Command::CreateOffer(between));
    let mut long = order(vec![operation(Mill, "a", 90)]);
    long.route[0].splittable = true;
    let id = alliance.book(long, &[("m1", EIGHT)]);
    assert_eq!(alliance.booking(&id).promise.by, EIGHT + 2 * HOUR + 30 * MINUTE);
    assert_eq!(alliance.refused(operator(), withdraw("o2", false)).reason, Reason::WouldDisturb);
    alliance.ok(operator(), withdraw("o2", true));
    assert_eq!(alliance.place(&id, 0), Some(("m1".into(), EIGHT, EIGHT + DAY + 30 * MINUTE)));
    assert_eq!(alliance.booking(&id).disturbances.len(), 1);
}

#[test]
fn a_member_changes_its_own_things_only() {
    let mut alliance = Alliance::mills(&["m1"]);
    let lent = Command::CreateOffer(offer("o2", "m1", &[(EIGHT, EIGHT + HOUR)]));
    let known = alliance.station("m1").machine.revision;
    let machine = Command::PutMachine { machine: machine("m1", "ya-1", Mill), expected_revision: known };
    for command in [lent, withdraw("o-m1", true), machine] {
        assert_eq!(alliance.refused(of_member("bao"), command.clone()).reason, Reason::UnknownId);
        alliance.ok(of_member("ya"), command);
    }
}

#[test]
fn a_replacement_names_the_revision_that_it_replaces() {
    let mut alliance = Alliance::mills(&["m1"]);
    let put =
        |expected_revision| Command::PutMachine { machine: machine("m1", "ya-1", Mill), expected_revision };
    let known = alliance.station("m1").machine.revision;
    assert_eq!(alliance.refused(operator(), put(0)).reason, Reason::AlreadyExists);
    assert_eq!(alliance.refused(operator(), put(known + 1)).reason, Reason::RevisionMismatch);
    alliance.ok(operator(), put(known));
    let unknown = Command::PutMachine { machine: machine("m2", "ya-1", Mill), expected_revision: 4 };
    assert_eq!(alliance.refused(operator(), unknown).reason, Reason::UnknownId);
}

#[test]
fn a_machine_keeps_what_its_planned_work_needs() {
    let mut alliance = Alliance::mills(&["m1"]);
    alliance.book_mill("a", 60, "m1", EIGHT);
    let known = alliance.station("m1").machine.clone();
    let expected_revision = known.revision;
    for worse in [
        Machine { materials: names(&["aluminium"]), ..Machine::clone(&known) },
        Machine { speed_permille: 999, ..Machine::clone(&known) },
        Machine { rate_fen_per_hour: 36_001, ..Machine::clone(&known) },
    ] {
        let put = Command::PutMachine { machine: worse, expected_revision };
        assert_eq!(alliance.refused(operator(), put).reason, Reason::WouldDisturb);
    }
    let finer = Machine { tolerance_um: 1, ..Machine::clone(&known) };
    alliance.ok(operator(), Command::PutMachine { machine: finer, expected_revision });
}

#[test]
fn a_plant_and_a_machine_stay_while_a_booking_counts_on_where_they_are() {
    let mut alliance = Alliance::mills(&["m1"]);
    alliance.plant(Plant { east_m: 9000, ..plant("ya-2", "ya") });
    alliance.lend(machine("m2", "ya-2", Mill), &[(EIGHT, MONDAY + 9 * DAY)]);
    let two = order(vec![operation(Mill, "a", 60), operation(Mill, "a", 60)]);
    let id = alliance.book(two, &[("m1", EIGHT), ("m2", EIGHT + 2 * HOUR)]);
    alliance.now = EIGHT;
    alliance.happens("m1", started(&id, 0));
    alliance.now = EIGHT + HOUR;
    alliance.happens("m1", finished(&id, 0));
    alliance.tick(EIGHT + HOUR + MINUTE);
    let known = Plant::clone(alliance.state.plants().get(&PlantId::trusted("ya-1")).expect("known"));
    let expected_revision = known.revision;
    let far = Command::PutPlant { plant: Plant { east_m: 90_000, ..known }, expected_revision };
    assert_eq!(alliance.refused(operator(), far).reason, Reason::WouldDisturb);
    let known = Machine::clone(&alliance.station("m1").machine);
    let expected_revision = known.revision;
    let away = Machine { plant: PlantId::trusted("ya-2"), ..known };
    let away = Command::PutMachine { machine: away, expected_revision };
    assert_eq!(alliance.refused(operator(), away).reason, Reason::WouldDisturb);
}

#[test]
fn the_transport_tariff_stays_while_a_booking_is_open() {
    let mut alliance = Alliance::mills(&["m1"]);
    alliance.book_mill("a", 60, "m1", EIGHT);
    let known = alliance.state.policy().clone();
    let expected_revision = known.revision;
    let slower = registry::TransportTariff { base_s: 7200, ..known.transport };
    let policy = Policy { transport: slower, ..known };
    let put = Command::PutPolicy { policy, expected_revision };
    assert_eq!(alliance.refused(operator(), put).reason, Reason::WouldDisturb);
}

#[test]
fn a_token_lets_one_principal_in_until_it_expires_or_is_revoked() {
    let mut alliance = Alliance::empty();
    let principal = |id: &str, token: u8, expires_at| Principal {
        id: PrincipalId::trusted(id),
        role: Role::Buyer,
        token_sha256: [token; 32],
        expires_at,
        revoked: false,
    };
    let good =
        |a: &Alliance, token: u8| a.state.principal_of_token(&[token; 32], a.now).map(|p| p.id.to_string());
    alliance.ok(operator(), Command::PutPrincipal(principal("bo", 1, MONDAY + DAY)));
    assert_eq!(good(&alliance, 1), Some("bo".into()));
    let stolen = Command::PutPrincipal(principal("bi", 1, MONDAY + DAY));
    assert_eq!(alliance.refused(operator(), stolen).reason, Reason::AlreadyExists);
    let expired = Command::PutPrincipal(principal("bi", 2, MONDAY));
    assert_eq!(alliance.refused(operator(), expired).field, "principal.expires_at_s");
    alliance.ok(operator(), Command::PutPrincipal(principal("bo", 3, MONDAY + DAY)));
    assert_eq!((good(&alliance, 1), good(&alliance, 3)), (None, Some("bo".into())));
    alliance.now = MONDAY + DAY;
    assert_eq!(good(&alliance, 3), None, "expired");
    alliance.now = MONDAY;
    alliance.ok(operator(), Command::RevokePrincipal { role: Role::Buyer, id: PrincipalId::trusted("bo") });
    assert_eq!(good(&alliance, 3), None, "revoked");
}
