//! Sessions of remote operation, and what is asked in them.

use super::registry::machine_state;
use super::{narrow, required, unknown_enum};
use millpool_alliance::booking::Progress;
use millpool_alliance::command::Caller;
use millpool_alliance::program::Sha256;
use millpool_alliance::registry::Role;
use millpool_alliance::remote::{
    Asked, Closed, Interlock, Outcome, RemoteCommand, Session, TakenBack, Verb, Verdict,
};
use millpool_alliance::{BookingId, MachineId, PlantId, PrincipalId, Reason, Refusal, SessionId, State};
use millpool_proto::v1;

/// Every verb as it is on the wire.
const VERBS: [(Verb, v1::RemoteVerb); 15] = [
    (Verb::Store, v1::RemoteVerb::Store),
    (Verb::Update, v1::RemoteVerb::Update),
    (Verb::Cancel, v1::RemoteVerb::Cancel),
    (Verb::Clear, v1::RemoteVerb::Clear),
    (Verb::Start, v1::RemoteVerb::Start),
    (Verb::Resume, v1::RemoteVerb::Resume),
    (Verb::Pause, v1::RemoteVerb::Pause),
    (Verb::RevokeStart, v1::RemoteVerb::RevokeStart),
    (Verb::Stop, v1::RemoteVerb::Stop),
    (Verb::Abort, v1::RemoteVerb::Abort),
    (Verb::Put, v1::RemoteVerb::Put),
    (Verb::Release, v1::RemoteVerb::Release),
    (Verb::Discard, v1::RemoteVerb::Discard),
    (Verb::Consent, v1::RemoteVerb::Consent),
    (Verb::Withdraw, v1::RemoteVerb::Withdraw),
];

const ROLES: [(Role, &str); 5] = [
    (Role::Buyer, "buyer"),
    (Role::Member, "member"),
    (Role::Agent, "agent"),
    (Role::Operator, "operator"),
    (Role::Auditor, "auditor"),
];

/// A verb on the wire.
pub fn verb(verb: Verb) -> v1::RemoteVerb {
    VERBS.iter().find(|(own, _)| *own == verb).map_or(v1::RemoteVerb::Unspecified, |(_, wire)| *wire)
}

/// Reads a verb.
pub fn read_verb(value: i32) -> Result<Verb, Refusal> {
    let found = VERBS.iter().find(|(_, wire)| i32::from(*wire) == value);
    found.map(|(verb, _)| *verb).ok_or_else(|| {
        let accepted = VERBS.map(|(verb, _)| format!("{verb:?}").to_lowercase()).join(", ");
        unknown_enum("verb", value, &accepted)
    })
}

/// A session with all that was asked in it.
pub fn session(s: &Session) -> v1::Session {
    let commands = s.commands.iter().zip(1..).map(|(c, nonce)| command(c, nonce));
    v1::Session { commands: commands.collect(), ..session_alone(s) }
}

/// A session without what was asked in it.
pub fn session_alone(s: &Session) -> v1::Session {
    v1::Session {
        id: s.id.to_string(),
        booking_id: s.booking.to_string(),
        operation: s.operation,
        machine_id: s.machine.to_string(),
        plant_id: s.plant.to_string(),
        holder: s.holder.to_string(),
        opened_at_s: s.opened_at,
        closes_at_s: s.closes_at,
        closed_at_s: s.closed.as_ref().map_or(0, |closed| closed.at),
        closed_because: s.closed.as_ref().map(|closed| closed.because.clone()).unwrap_or_default(),
        commands: Vec::new(),
    }
}

/// A session as the plant's agent has to know it.
pub fn agents_session(s: &Session) -> v1::RemoteSession {
    v1::RemoteSession {
        epoch: s.id.number(),
        machine_id: s.machine.to_string(),
        booking_id: s.booking.to_string(),
        operation: s.operation,
        holder: s.holder.to_string(),
        closes_at_s: s.closes_at,
    }
}

/// A command, by its number.
pub fn command(c: &RemoteCommand, nonce: u32) -> v1::RemoteCommand {
    let role = ROLES.iter().find(|(role, _)| *role == c.by.role).map_or("", |(_, name)| name);
    v1::RemoteCommand {
        nonce,
        verb: verb(c.verb).into(),
        by: format!("{role}:{}", c.by.id),
        asked_at_s: c.asked_at,
        valid_s: narrow(c.valid_s),
        program: c.program.clone(),
        outcome: c.outcome.as_ref().map(outcome),
        program_sha256: written(c.sha256),
        program_bytes: c.bytes,
        consent_s: narrow(c.consent_s),
        taken_back: c.taken_back.as_ref().map(|t| v1::RemoteTakenBack { at_s: t.at, words: t.words.clone() }),
    }
}

fn written(sha256: Option<Sha256>) -> String {
    sha256.map(|sha256| sha256.to_string()).unwrap_or_default()
}

fn read_sha256(text: &str) -> Result<Option<Sha256>, Refusal> {
    if text.is_empty() { Ok(None) } else { Sha256::parse("program_sha256", text).map(Some) }
}

/// What the parties of an open session may know of its machine, and of their own operation.
pub fn view(state: &State, s: &Session) -> Option<v1::SessionView> {
    let station = state.stations().get(&s.machine).filter(|_| s.is_open())?;
    let step = state.bookings().get(&s.booking)?.steps.get(s.operation as usize)?;
    let (known, since) = state.known_state(station);
    let pieces_good = match step.progress {
        Progress::Planned => 0,
        Progress::Running { pieces_good, .. } | Progress::Finished { pieces_good, .. } => pieces_good,
    };
    Some(v1::SessionView {
        machine_state: machine_state(known).into(),
        machine_state_since_s: since,
        machine_down: station.down.is_some(),
        started: !step.is_planned(),
        pieces_good,
        expected_end_s: step.place.as_ref().map_or(0, |place| place.end),
    })
}

/// Reads a session as it was kept.
pub fn read_session(s: v1::Session) -> Result<Session, Refusal> {
    Ok(Session {
        id: SessionId::parse(&s.id)?,
        booking: BookingId::parse(&s.booking_id)?,
        operation: s.operation,
        machine: MachineId::parse(&s.machine_id)?,
        plant: PlantId::parse(&s.plant_id)?,
        holder: PrincipalId::parse(&s.holder)?,
        opened_at: s.opened_at_s,
        closes_at: s.closes_at_s,
        // Nothing ends without a reason.
        closed: (!s.closed_because.is_empty())
            .then_some(Closed { at: s.closed_at_s, because: s.closed_because }),
        commands: s.commands.into_iter().map(read_command).collect::<Result<_, _>>()?,
    })
}

fn read_command(c: v1::RemoteCommand) -> Result<RemoteCommand, Refusal> {
    Ok(RemoteCommand {
        verb: read_verb(c.verb)?,
        by: read_by(&c.by)?,
        asked_at: c.asked_at_s,
        valid_s: c.valid_s.into(),
        program: c.program,
        sha256: read_sha256(&c.program_sha256)?,
        bytes: c.program_bytes,
        consent_s: c.consent_s.into(),
        outcome: c.outcome.map(read_outcome).transpose()?,
        taken_back: c.taken_back.map(|t| TakenBack { at: t.at_s, words: t.words }),
    })
}

fn read_by(by: &str) -> Result<Caller, Refusal> {
    let parts = by.split_once(':');
    let role = parts.and_then(|(role, _)| ROLES.iter().find(|(_, name)| *name == role));
    match (role, parts) {
        (Some((role, _)), Some((_, id))) => Ok(Caller { role: *role, id: PrincipalId::parse(id)? }),
        _ => Err(Refusal::invalid(Reason::InvalidField, "command.by", by, "ROLE:ID")),
    }
}

/// What came of a command, on the wire.
pub fn outcome(o: &Outcome) -> v1::RemoteOutcome {
    let verdict = match o.verdict {
        Verdict::Refused => v1::RemoteVerdict::Refused,
        Verdict::Done => v1::RemoteVerdict::Done,
        Verdict::Rejected => v1::RemoteVerdict::Rejected,
        Verdict::Unknown => v1::RemoteVerdict::Unknown,
    };
    let lock = |i: &Interlock| v1::Interlock { name: i.name.clone(), holds: i.holds, seen: i.seen.clone() };
    v1::RemoteOutcome {
        verdict: verdict.into(),
        at_s: o.at,
        words: o.words.clone(),
        consent: o.consent.clone(),
        interlocks: o.interlocks.iter().map(lock).collect(),
        return_status: o.return_status,
    }
}

/// Reads what came of a command.
pub fn read_outcome(o: v1::RemoteOutcome) -> Result<Outcome, Refusal> {
    let verdict = match v1::RemoteVerdict::try_from(o.verdict) {
        Ok(v1::RemoteVerdict::Refused) => Verdict::Refused,
        Ok(v1::RemoteVerdict::Done) => Verdict::Done,
        Ok(v1::RemoteVerdict::Rejected) => Verdict::Rejected,
        Ok(v1::RemoteVerdict::Unknown) => Verdict::Unknown,
        _ => return Err(unknown_enum("outcome.verdict", o.verdict, "refused, done, rejected or unknown")),
    };
    let lock = |i: v1::Interlock| Interlock { name: i.name, holds: i.holds, seen: i.seen };
    Ok(Outcome {
        verdict,
        at: o.at_s,
        words: o.words,
        consent: o.consent,
        interlocks: o.interlocks.into_iter().map(lock).collect(),
        return_status: o.return_status,
    })
}

/// What is asked, as the log keeps it.
pub fn asked(a: &Asked) -> v1::OperateRequest {
    v1::OperateRequest {
        request_id: String::new(),
        session_id: a.session.to_string(),
        verb: verb(a.verb).into(),
        program: a.program.clone(),
        valid_s: narrow(a.valid_s),
        program_sha256: written(a.sha256),
        program_bytes: a.bytes,
        consent_s: narrow(a.consent_s),
    }
}

/// Reads what is asked.
pub fn read_asked(r: v1::OperateRequest) -> Result<Asked, Refusal> {
    Ok(Asked {
        session: SessionId::parse(&r.session_id)?,
        verb: read_verb(r.verb)?,
        program: r.program,
        sha256: read_sha256(&r.program_sha256)?,
        bytes: r.program_bytes,
        consent_s: r.consent_s.into(),
        valid_s: r.valid_s.into(),
    })
}

/// Reads what an agent tells of a command.
pub fn read_answered(a: v1::RemoteAnswered) -> Result<(SessionId, u32, Outcome), Refusal> {
    let outcome = read_outcome(required("remote_answered.outcome", a.outcome)?)?;
    Ok((SessionId::parse(&a.session_id)?, a.nonce, outcome))
}
