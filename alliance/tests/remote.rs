//! Remote operation, as the alliance keeps it: who may open a session and ask what, what ends one, and the record.

#![allow(clippy::unwrap_used)]

mod scenes;

use millpool_alliance::command::{Happening, Move};
use millpool_alliance::program::{PROGRAM_BYTES_MAX, Sha256};
use millpool_alliance::registry::{MachineClass, Role};
use millpool_alliance::remote::{
    Asked, COMMANDS_MAX, COMMANDS_SAFE_EXTRA, CONSENT_MAX_S, Interlock, Outcome, SESSIONS_MAX, Session, Side,
    Takes, VALID_MAX_S, Verb, Verdict,
};
use millpool_alliance::{
    BookingId, Caller, Command, Format, Objective, PlanKind, PrincipalId, Reason, Refusal, Reply, SessionId,
    State,
};
use scenes::build::*;

const EIGHT: i64 = MONDAY + 8 * HOUR;

/// Two mills, and an hour's booking on the first from eight on; it is eight.
fn scene() -> (Alliance, BookingId) {
    let mut alliance = Alliance::mills(&["m1", "m2"]);
    alliance.ok(operator(), Command::RaiseFormat { to: Format::NEWEST });
    let booking = alliance.book_mill("a", 60, "m1", EIGHT);
    alliance.tick(EIGHT);
    (alliance, booking)
}

fn member() -> Caller {
    Caller { role: Role::Member, id: PrincipalId::trusted("ya") }
}

fn open(alliance: &mut Alliance, booking: BookingId) -> Result<SessionId, Refusal> {
    match alliance.try_do(buyer("bo"), Command::OpenSession { booking, operation: 0 })? {
        Reply::Remote(session, 0) => Ok(session),
        other => panic!("a session, not {other:?}"),
    }
}

fn asked(session: SessionId, verb: Verb) -> Command {
    Command::Operate(fit(session, verb))
}

/// A verb with what goes with it.
fn fit(session: SessionId, verb: Verb) -> Asked {
    let plain = Asked::plain(session, verb, 5);
    let (program, sha256) = ("P1.nc".to_owned(), Some(Sha256([7; 32])));
    match verb.takes() {
        Takes::Nothing => plain,
        Takes::Job => Asked { program, ..plain },
        Takes::Content => Asked { program, sha256, bytes: 4096, ..plain },
        Takes::Sealed => Asked { program, sha256, ..plain },
        Takes::Span => Asked { consent_s: 600, ..plain },
    }
}

fn session(alliance: &Alliance, id: SessionId) -> Session {
    Session::clone(alliance.state.sessions().get(&id).unwrap())
}

fn why_closed(alliance: &Alliance, id: SessionId) -> String {
    session(alliance, id).closed.map(|closed| closed.because).unwrap_or_default()
}

fn outcome(verdict: Verdict) -> Outcome {
    Outcome {
        verdict,
        at: EIGHT,
        words: "done\n(return status 1)".to_owned(),
        consent: "anna".to_owned(),
        interlocks: (0..20)
            .map(|n| Interlock { name: format!("lock {n}"), holds: true, seen: "closed".to_owned() })
            .collect(),
        return_status: 1,
    }
}

#[test]
fn a_session_is_opened_by_the_buyer_inside_the_window_alone() {
    let (mut alliance, booking) = scene();
    let ask = Command::OpenSession { booking, operation: 0 };
    for stranger in [buyer("bi"), member(), operator()] {
        assert_eq!(alliance.refused(stranger, ask.clone()).reason, Reason::UnknownId);
    }
    let beyond = alliance.refused(buyer("bo"), Command::OpenSession { booking, operation: 1 });
    assert_eq!((beyond.field.as_str(), beyond.accepted.as_str()), ("operation", "0 to 0"));
    let id = open(&mut alliance, booking).unwrap();
    let opened = session(&alliance, id);
    assert_eq!((opened.machine.as_str(), opened.plant.as_str()), ("m1", "ya-1"));
    assert_eq!((opened.opened_at, opened.closes_at, id.to_string()), (EIGHT, EIGHT + HOUR, "s000001".into()));
    assert_eq!(alliance.state.next_due(), Some(EIGHT + HOUR));

    let later = alliance.book_mill("a", 60, "m2", EIGHT + 5 * HOUR);
    let early = open(&mut alliance, later).unwrap_err();
    assert!(early.message.contains("the window of operation 0"), "{early}");
    let held =
        alliance.hold(order(vec![operation(MachineClass::Mill, "a", 5)]), &[("m2", EIGHT + HOUR)], 7200);
    alliance.tick(EIGHT + HOUR);
    assert!(open(&mut alliance, held).unwrap_err().message.contains("not confirmed"));
}

#[test]
fn a_former_format_has_no_sessions() {
    let mut alliance = Alliance::mills(&["m1"]);
    let booking = alliance.book_mill("a", 60, "m1", EIGHT);
    alliance.tick(EIGHT);
    let refusal = open(&mut alliance, booking).unwrap_err();
    assert!(refusal.message.contains("every coordinator"), "{refusal}");
}

#[test]
fn each_verb_may_be_asked_by_the_sides_of_its_row_and_nobody_else() {
    let (mut alliance, booking) = scene();
    let id = open(&mut alliance, booking).unwrap();
    for (verb, sides, _) in Verb::TABLE {
        for (caller, side) in [(buyer("bo"), Side::Holder), (member(), Side::Plant)] {
            let answer = alliance.try_do(caller, asked(id, verb));
            match sides.contains(&side) {
                true => {
                    assert!(matches!(answer, Ok(Reply::Remote(_, nonce)) if nonce > 0), "{verb:?} {side:?}")
                }
                false => assert_eq!(answer.unwrap_err().reason, Reason::NotAllowed, "{verb:?} {side:?}"),
            }
        }
        for stranger in [buyer("bi"), Caller { role: Role::Member, id: PrincipalId::trusted("other") }] {
            assert_eq!(alliance.refused(stranger, asked(id, verb)).reason, Reason::UnknownId);
        }
        assert_eq!(alliance.refused(operator(), asked(id, verb)).reason, Reason::NotAllowed);
    }
    let numbers: Vec<_> = (1..=session(&alliance, id).commands.len() as u32).collect();
    assert!(numbers.iter().all(|nonce| session(&alliance, id).command(*nonce).is_some()));
    for verb in [Verb::Abort, Verb::Release, Verb::Consent, Verb::Withdraw] {
        assert_eq!(verb.sides(), [Side::Plant]);
    }
}

#[test]
fn a_former_format_knows_no_programs_and_takes_what_is_taken_back_for_an_outcome() {
    let mut alliance = Alliance::mills(&["m1"]);
    alliance.ok(operator(), Command::RaiseFormat { to: Format::TALLIED });
    let booking = alliance.book_mill("a", 60, "m1", EIGHT);
    alliance.tick(EIGHT);
    let id = open(&mut alliance, booking).unwrap();
    for (verb, sides, _) in Verb::TABLE {
        let caller = if sides.contains(&Side::Holder) { buyer("bo") } else { member() };
        let former =
            !matches!(verb, Verb::Put | Verb::Release | Verb::Discard | Verb::Consent | Verb::Withdraw);
        assert_eq!(alliance.try_do(caller, asked(id, verb)).is_ok(), former, "{verb:?}");
    }
    let sealed = Asked { sha256: Some(Sha256([7; 32])), ..fit(id, Verb::Store) };
    assert!(alliance.refused(buyer("bo"), Command::Operate(sealed)).message.contains("every coordinator"));
    let start =
        session(&alliance, id).commands.iter().position(|c| c.verb == Verb::Start).unwrap() as u32 + 1;
    let back = |taken_back| Happening::Operated {
        session: id,
        nonce: start,
        outcome: outcome(Verdict::Done),
        taken_back,
    };
    assert_eq!(alliance.happens("m1", back(true)), None);
    let known = session(&alliance, id).command(start).unwrap().clone();
    assert!(known.outcome.is_some() && known.taken_back.is_none());
}

#[test]
fn what_the_agent_takes_back_is_on_record_beside_the_command_that_gave_it() {
    let (mut alliance, booking) = scene();
    let id = open(&mut alliance, booking).unwrap();
    alliance.ok(buyer("bo"), asked(id, Verb::Start));
    alliance.ok(buyer("bo"), asked(id, Verb::Pause));
    let back = |nonce, taken_back| Happening::Operated {
        session: id,
        nonce,
        outcome: outcome(Verdict::Done),
        taken_back,
    };
    assert_eq!(alliance.happens("m1", back(1, false)), None);
    alliance.ok(member(), Command::CloseSession { session: id, because: String::new() });
    assert_eq!(alliance.happens("m1", back(1, true)), None);
    let known = session(&alliance, id).command(1).unwrap().clone();
    assert_eq!(known.outcome.unwrap().words, "done (return status 1)");
    assert_eq!(known.taken_back.unwrap().words, "done (return status 1)");
    for nonce in [1, 2] {
        assert!(alliance.happens("m1", back(nonce, true)).unwrap().contains("no permission"), "{nonce}");
    }
}

#[test]
fn each_verb_takes_what_its_row_says_and_nothing_else() {
    let (mut alliance, booking) = scene();
    let id = open(&mut alliance, booking).unwrap();
    let mut ask = |asked: Asked| {
        let holder = asked.verb.sides().contains(&Side::Holder);
        let caller = if holder { buyer("bo") } else { member() };
        alliance.try_do(caller, Command::Operate(asked)).map(|_| ()).map_err(|refusal| refusal.field)
    };
    let wrong = |field: &str| Err(field.to_owned());
    for (verb, _, takes) in Verb::TABLE {
        let right = fit(id, verb);
        assert_eq!(ask(right.clone()), Ok(()), "{verb:?}");
        let about_one = matches!(takes, Takes::Job | Takes::Content | Takes::Sealed);
        let sealed = Asked { sha256: Some(Sha256([1; 32])), ..right.clone() };
        assert_eq!(ask(sealed), if about_one { Ok(()) } else { wrong("program_sha256") }, "{verb:?}");
        if !about_one {
            assert_eq!(ask(Asked { program: "P1".into(), ..right.clone() }), wrong("program"), "{verb:?}");
        }
        if matches!(takes, Takes::Content | Takes::Sealed) {
            assert_eq!(ask(Asked { sha256: None, ..right.clone() }), wrong("program_sha256"), "{verb:?}");
            assert_eq!(ask(Asked { program: "../x".into(), ..right.clone() }), wrong("program"), "{verb:?}");
        }
        let lengths = [right.bytes + PROGRAM_BYTES_MAX, u64::MAX];
        for bytes in lengths {
            assert_eq!(ask(Asked { bytes, ..right.clone() }), wrong("program_bytes"), "{verb:?} {bytes}");
        }
        for consent_s in [-1, CONSENT_MAX_S + 1] {
            assert_eq!(ask(Asked { consent_s, ..right.clone() }), wrong("consent_s"), "{verb:?}");
        }
    }
    let unnamed = Asked { program: String::new(), sha256: Some(Sha256([1; 32])), ..fit(id, Verb::Store) };
    assert_eq!(ask(unnamed), wrong("program"));
    assert_eq!(ask(Asked { bytes: 0, ..fit(id, Verb::Put) }), wrong("program_bytes"));
    assert_eq!(ask(Asked { consent_s: 0, ..fit(id, Verb::Consent) }), wrong("consent_s"));
}

#[test]
fn what_is_asked_is_within_its_limits() {
    let (mut alliance, booking) = scene();
    let id = open(&mut alliance, booking).unwrap();
    let mut ask = |verb, program: &str, valid_s| {
        let asked = Asked { program: program.to_owned(), ..Asked::plain(id, verb, valid_s) };
        alliance.try_do(buyer("bo"), Command::Operate(asked)).map_err(|refusal| refusal.field)
    };
    for valid_s in [0, -1, VALID_MAX_S + 1, i64::MAX] {
        assert_eq!(ask(Verb::Pause, "", valid_s), Err("valid_s".to_owned()));
    }
    assert_eq!(ask(Verb::Start, "P1", 5), Err("program".to_owned()));
    assert_eq!(ask(Verb::Store, &"x".repeat(201), 5), Err("program".to_owned()));
    assert!(ask(Verb::Store, "P1", 5).is_ok());
    for _ in 1..COMMANDS_MAX {
        ask(Verb::Clear, "", 5).unwrap();
    }
    assert_eq!(ask(Verb::Clear, "", 5), Err("commands of the session (count)".to_owned()));
    for _ in 0..COMMANDS_SAFE_EXTRA {
        ask(Verb::Pause, "", 5).unwrap();
    }
    assert!(ask(Verb::Pause, "", 5).is_err());
}

#[test]
fn a_session_ends_with_its_ground() {
    // Its window.
    let (mut alliance, booking) = scene();
    let id = open(&mut alliance, booking).unwrap();
    alliance.tick(EIGHT + HOUR);
    assert_eq!(why_closed(&alliance, id), "the booking's window is over");
    assert!(
        alliance
            .refused(buyer("bo"), asked(id, Verb::Pause))
            .message
            .contains("the booking's window is over")
    );
    // The operation, done; a longer one takes the session along.
    let (mut alliance, booking) = scene();
    let id = open(&mut alliance, booking).unwrap();
    alliance.happens("m1", started(&booking, 0));
    alliance.happens("m1", progress(&booking, 0, EIGHT + 2 * HOUR));
    assert_eq!(session(&alliance, id).closes_at, EIGHT + 2 * HOUR);
    alliance.tick(EIGHT + HOUR + MINUTE);
    assert!(session(&alliance, id).is_open());
    alliance.happens("m1", finished(&booking, 0));
    assert!(
        why_closed(&alliance, id).contains("is not confirmed (Completed)"),
        "{}",
        why_closed(&alliance, id)
    );
    // The place: a plan moves it, which it may as nothing has begun and the promise holds.
    let (mut alliance, _) = scene();
    let wanted = order(vec![operation(MachineClass::Mill, "a", 60)]);
    let booking =
        alliance.try_book_on(wanted, terms(Objective::Cheapest), &[("m1", EIGHT + HOUR)], 0).unwrap();
    alliance.tick(EIGHT + HOUR);
    let id = open(&mut alliance, booking).unwrap();
    let machine = machine_id("m2");
    let moves = vec![Move { booking, operation: 0, machine, start: EIGHT + 3 * HOUR }];
    alliance.plan(PlanKind::Repair, moves).unwrap();
    assert!(why_closed(&alliance, id).contains("the window of operation 0"), "{}", why_closed(&alliance, id));
    // The machine.
    let (mut alliance, booking) = scene();
    let id = open(&mut alliance, booking).unwrap();
    alliance.happens("m1", down(0));
    assert!(why_closed(&alliance, id).contains("no place"), "{}", why_closed(&alliance, id));
    // The booking.
    let (mut alliance, booking) = scene();
    let id = open(&mut alliance, booking).unwrap();
    alliance.ok(buyer("bo"), Command::Cancel { booking, reason: String::new() });
    assert!(why_closed(&alliance, id).contains("Cancelled"));
    // Somebody's word.
    let (mut alliance, booking) = scene();
    let id = open(&mut alliance, booking).unwrap();
    let close = Command::CloseSession { session: id, because: "shift ends".to_owned() };
    assert_eq!(alliance.refused(buyer("bi"), close.clone()).reason, Reason::UnknownId);
    alliance.ok(member(), close.clone());
    assert_eq!(why_closed(&alliance, id), "closed by Member ya: shift ends");
    alliance.ok(buyer("bo"), close);
    assert_eq!(why_closed(&alliance, id), "closed by Member ya: shift ends", "the first end stands");
}

#[test]
fn a_machine_has_one_open_session_and_the_later_one_counts() {
    let (mut alliance, booking) = scene();
    let first = open(&mut alliance, booking).unwrap();
    let second = open(&mut alliance, booking).unwrap();
    assert!(second > first);
    assert!(why_closed(&alliance, first).contains("another session"));
    let plant = alliance.station("m1").machine.plant.clone();
    assert_eq!(alliance.state.open_sessions_of(&plant).map(|s| s.id).collect::<Vec<_>>(), [second]);
    for _ in 2..SESSIONS_MAX {
        open(&mut alliance, booking).unwrap();
    }
    assert_eq!(open(&mut alliance, booking).unwrap_err().field, "sessions of the booking (count)");
}

#[test]
fn what_came_of_a_command_is_told_once_and_by_its_plant() {
    let (mut alliance, booking) = scene();
    let id = open(&mut alliance, booking).unwrap();
    alliance.ok(buyer("bo"), asked(id, Verb::Start));
    let tell = |nonce, verdict| Happening::Operated {
        session: id,
        nonce,
        outcome: outcome(verdict),
        taken_back: false,
    };
    for nonce in [0, 2, u32::MAX] {
        assert!(alliance.happens("m1", tell(nonce, Verdict::Done)).unwrap().contains("nonce"));
    }
    let stranger = Happening::Operated {
        session: SessionId::numbered(9),
        nonce: 1,
        outcome: outcome(Verdict::Done),
        taken_back: false,
    };
    assert!(alliance.happens("m1", stranger).unwrap().contains("session_id"));
    // It ended meanwhile; what was done in it is told all the same.
    alliance.ok(member(), Command::CloseSession { session: id, because: String::new() });
    assert_eq!(alliance.happens("m1", tell(1, Verdict::Done)), None);
    let told = session(&alliance, id).command(1).unwrap().outcome.clone().unwrap();
    assert_eq!(
        (told.verdict, told.words.as_str(), told.interlocks.len()),
        (Verdict::Done, "done (return status 1)", 16)
    );
    assert!(alliance.happens("m1", tell(1, Verdict::Refused)).unwrap().contains("known already"));
    assert_eq!(session(&alliance, id).command(1).unwrap().outcome.as_ref().unwrap().verdict, Verdict::Done);
}

#[test]
fn both_sides_read_a_session_and_nobody_else_does() {
    let (mut alliance, booking) = scene();
    let id = open(&mut alliance, booking).unwrap();
    let auditor = Caller { role: Role::Auditor, id: PrincipalId::trusted("aud") };
    let reads = |caller: &Caller| alliance.state.visible_session(caller, &id).is_ok();
    assert!([buyer("bo"), member(), operator(), auditor.clone()].iter().all(reads));
    assert!(!reads(&buyer("bi")) && !reads(&Caller { role: Role::Agent, id: PrincipalId::trusted("ya-1") }));
    let close = Command::CloseSession { session: id, because: String::new() };
    assert_eq!(alliance.refused(auditor, close).reason, Reason::UnknownId, "an auditor reads");
}

#[test]
fn sessions_go_with_their_booking_and_a_restored_alliance_gives_no_number_again() {
    let (mut alliance, booking) = scene();
    let id = open(&mut alliance, booking).unwrap();
    let image = alliance.state.image();
    assert_eq!(State::from_image(image.clone()).hash(), alliance.state.hash());
    let restored = State::from_image(image).restored("old", EIGHT, "the flood");
    assert!(restored.sessions().get(&id).unwrap().closed.as_ref().unwrap().because.contains("restored"));
    let mut again = Alliance::mills(&["m1"]);
    (again.state, again.now, again.revision) = (restored, EIGHT, 2_000_000_000);
    assert!(open(&mut again, booking).unwrap() > SessionId::numbered(1_000_000));

    alliance.happens("m1", finished(&booking, 0));
    let policy = alliance.state.policy().clone();
    let expected_revision = policy.revision;
    let policy = millpool_alliance::registry::Policy { history_keep_s: DAY, ..policy };
    alliance.ok(operator(), Command::PutPolicy { policy, expected_revision });
    alliance.tick(EIGHT + DAY - 1);
    assert!(alliance.state.sessions().get(&id).is_some());
    alliance.tick(EIGHT + DAY);
    assert!(alliance.state.sessions().is_empty());
}
