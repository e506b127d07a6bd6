//! Remote operation: sessions, what was asked in them, and what came of it. All of it from format 4 on.
//!
//! A session is the right of a booking's buyer to operate the machine of one operation, inside the booking's own
//! window there. Nothing here moves a machine: what is asked is put on record with a number, the plant's agent
//! decides whether the machine is asked, and what came of it is put on record beside it. So a session is one audit,
//! and both sides read the same.
//!
//! A session's number grows over the whole alliance, and is its **fencing epoch**: an agent that has seen a higher one
//! for a machine heeds no lower one. There is at most one open session a machine.
//!
//! A session ends by itself when its ground is gone: the window is over, the operation is done or has moved, the
//! booking is cancelled.

use crate::booking::{Booking, Status};
use crate::command::{Caller, Reply};
use crate::format::Format;
use crate::id::{BookingId, MachineId, PlantId, PrincipalId, SessionId};
use crate::program::{PROGRAM_BYTES_MAX, Sha256, file_name};
use crate::refusal::{Reason, Refusal, text, within};
use crate::registry::Role;
use crate::state::State;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Most sessions of one booking that are known, open or not; no more are opened.
pub const SESSIONS_MAX: usize = 64;
/// Most commands of a session, but for those that only make safe.
pub const COMMANDS_MAX: usize = 200;
/// Commands that only make safe, and are taken beyond [`COMMANDS_MAX`].
pub const COMMANDS_SAFE_EXTRA: usize = 56;
/// A command is good for so long at most, seconds.
pub const VALID_MAX_S: i64 = 30;
/// Longest name of a program, characters.
pub const PROGRAM_LENGTH_MAX: usize = 200;
/// Longest account of an outcome, characters.
pub const WORDS_LENGTH_MAX: usize = 500;
/// Most interlocks of an outcome that are kept.
pub const INTERLOCKS_MAX: usize = 16;
/// A plant agrees for so long at most, seconds.
pub const CONSENT_MAX_S: i64 = 8 * 3600;
/// Session numbers that a restored alliance leaves out: agents know higher ones than a backup does.
pub const SESSIONS_SKIPPED: u64 = 1_000_000;

/// What can be asked of a machine and its plant. Nothing else is ever sent to one: no jog, no override, no cycle start, no reset of
/// an emergency stop, no variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Put the operation's job on the machine's list.
    Store,
    /// Replace the job while it has not begun.
    Update,
    /// Take the job off the list before it has begun.
    Cancel,
    /// Take the job off the list after it is over.
    Clear,
    /// Allow the job to start; the machine decides when it moves.
    Start,
    /// Let the interrupted job go on.
    Resume,
    /// Interrupt the job.
    Pause,
    /// Take the permission to start back.
    RevokeStart,
    /// End the job in order.
    Stop,
    /// Break the job off at once.
    Abort,
    /// Put an uploaded program into the plant's quarantine.
    Put,
    /// Let a program out of quarantine, to where the machine reads its programs.
    Release,
    /// Throw a program out of quarantine.
    Discard,
    /// Agree that the machine moves for the session's operation, for a while.
    Consent,
    /// Agree no more.
    Withdraw,
}

/// Who may ask something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The session's holder.
    Holder,
    /// The member whose plant it is.
    Plant,
}

/// What has to be named beside a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// A program that the machine knows, or none; and what its content hashes to, or not.
    Job,
    /// A program's file, what its content hashes to, and its length.
    Content,
    /// A program's file, and what its content hashes to.
    Sealed,
    /// For how long.
    Span,
}

impl Verb {
    /// Every verb, who may ask it, and what it takes.
    pub const TABLE: [(Verb, &'static [Side], Takes); 15] = [
        (Verb::Store, &[Side::Holder], Takes::Job),
        (Verb::Update, &[Side::Holder], Takes::Job),
        (Verb::Cancel, &[Side::Holder], Takes::Nothing),
        (Verb::Clear, &[Side::Holder], Takes::Nothing),
        (Verb::Start, &[Side::Holder], Takes::Nothing),
        (Verb::Resume, &[Side::Holder], Takes::Nothing),
        (Verb::Pause, &[Side::Holder, Side::Plant], Takes::Nothing),
        (Verb::RevokeStart, &[Side::Holder, Side::Plant], Takes::Nothing),
        (Verb::Stop, &[Side::Holder, Side::Plant], Takes::Nothing),
        (Verb::Abort, &[Side::Plant], Takes::Nothing),
        (Verb::Put, &[Side::Holder], Takes::Content),
        (Verb::Release, &[Side::Plant], Takes::Sealed),
        (Verb::Discard, &[Side::Holder, Side::Plant], Takes::Sealed),
        (Verb::Consent, &[Side::Plant], Takes::Span),
        (Verb::Withdraw, &[Side::Plant], Takes::Nothing),
    ];

    /// Who may ask it.
    pub fn sides(self) -> &'static [Side] {
        Self::TABLE.iter().find(|(verb, ..)| *verb == self).map_or(&[], |(_, sides, _)| sides)
    }

    /// What it takes.
    pub fn takes(self) -> Takes {
        Self::TABLE.iter().find(|(verb, ..)| *verb == self).map_or(Takes::Nothing, |(.., takes)| *takes)
    }

    /// It can only make the machine do less.
    pub fn makes_safe(self) -> bool {
        matches!(self, Verb::Pause | Verb::RevokeStart | Verb::Stop | Verb::Abort | Verb::Withdraw)
    }

    /// From which format on it can be asked.
    fn since(self) -> Format {
        match self.takes() {
            Takes::Content | Takes::Sealed | Takes::Span => Format::PROGRAMS,
            Takes::Nothing if self == Verb::Withdraw => Format::PROGRAMS,
            Takes::Nothing | Takes::Job => Format::REMOTE,
        }
    }
}

/// The right to operate a machine for a while, and what was done with it. Times in seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// Its number; the fencing epoch.
    pub id: SessionId,
    /// The booking.
    pub booking: BookingId,
    /// Index in the route.
    pub operation: u32,
    /// The machine.
    pub machine: MachineId,
    /// Its plant.
    pub plant: PlantId,
    /// Whose right it is.
    pub holder: PrincipalId,
    /// When it was opened.
    pub opened_at: i64,
    /// When the booking's window there ends, and the session with it.
    pub closes_at: i64,
    /// When and why it ended, if it has.
    pub closed: Option<Closed>,
    /// What was asked, by number.
    pub commands: Vec<RemoteCommand>,
}

/// A session's end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Closed {
    /// When, seconds since the Unix epoch.
    pub at: i64,
    /// In words.
    pub because: String,
}

/// One thing that was asked. Its number in the session, from 1, is its nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCommand {
    /// What.
    pub verb: Verb,
    /// By whom.
    pub by: Caller,
    /// When, seconds since the Unix epoch.
    pub asked_at: i64,
    /// Good for so long, seconds; after that the agent does not ask the machine.
    pub valid_s: i64,
    /// The program, for what is about one; empty for none.
    pub program: String,
    /// What its content hashes to, where that was named.
    pub sha256: Option<Sha256>,
    /// Its length, bytes, for what puts it into quarantine.
    pub bytes: u64,
    /// For how long the plant agrees, seconds.
    pub consent_s: i64,
    /// What came of it, once the agent has told.
    pub outcome: Option<Outcome>,
    /// The permission to start that it gave was taken back by the agent itself.
    pub taken_back: Option<TakenBack>,
}

/// What a former format does not know adds nothing to the hash while it is not there.
impl Hash for RemoteCommand {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { verb, by, asked_at, valid_s, program, sha256, bytes, consent_s, outcome, taken_back } =
            self;
        (verb, by, asked_at, valid_s, program, outcome).hash(state);
        if (sha256, bytes, consent_s, taken_back) != (&None, &0, &0, &None) {
            (sha256, bytes, consent_s, taken_back).hash(state);
        }
    }
}

/// A permission to start that the agent took back by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TakenBack {
    /// When, by the agent's clock, seconds since the Unix epoch.
    pub at: i64,
    /// In words: why, and what the machine answered.
    pub words: String,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// In short.
    pub verdict: Verdict,
    /// When, by the agent's clock, seconds since the Unix epoch.
    pub at: i64,
    /// In words: which guard refused, or what the machine answered.
    pub words: String,
    /// By whose consent; empty where none was asked for.
    pub consent: String,
    /// What the interlocks showed; none where they were not looked at.
    pub interlocks: Vec<Interlock>,
    /// What the machine returned; 0 where it was not asked or did not answer.
    pub return_status: u64,
}

/// An outcome in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The agent did not ask the machine.
    Refused,
    /// The machine says that it is done.
    Done,
    /// The machine says no.
    Rejected,
    /// The machine was asked, and has not answered: it may or may not be done.
    Unknown,
}

/// What an interlock showed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interlock {
    /// Its name.
    pub name: String,
    /// Whether it let the command pass.
    pub holds: bool,
    /// What was seen, in words.
    pub seen: String,
}

impl Session {
    /// Whether something can still be asked in it.
    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// A command by its number.
    pub fn command(&self, nonce: u32) -> Option<&RemoteCommand> {
        self.commands.get((nonce as usize).checked_sub(1)?)
    }

    /// Whether there is room for another command.
    fn has_room(&self, verb: Verb) -> bool {
        let extra = if verb.makes_safe() { COMMANDS_SAFE_EXTRA } else { 0 };
        self.commands.len() < COMMANDS_MAX + extra
    }
}

/// What is asked in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The session.
    pub session: SessionId,
    /// What.
    pub verb: Verb,
    /// The program, for what is about one; empty for none.
    pub program: String,
    /// What its content hashes to, where that is named.
    pub sha256: Option<Sha256>,
    /// Its length, bytes, for what puts it into quarantine; 0 otherwise.
    pub bytes: u64,
    /// For how long the plant agrees, seconds; 0 for what is not about that.
    pub consent_s: i64,
    /// Good for so long, seconds.
    pub valid_s: i64,
}

impl Asked {
    /// A verb that takes nothing.
    pub fn plain(session: SessionId, verb: Verb, valid_s: i64) -> Self {
        Asked { session, verb, program: String::new(), sha256: None, bytes: 0, consent_s: 0, valid_s }
    }

    /// Refuses what does not go with the verb.
    fn check(&self) -> Result<(), Refusal> {
        let Asked { verb, program, sha256, bytes, consent_s, valid_s, .. } = self;
        within("valid_s", *valid_s, 1, VALID_MAX_S)?;
        let length = i64::try_from(*bytes).unwrap_or(i64::MAX);
        let wrong = |field: &str, value: String, accepted: &str| {
            Err(Refusal::invalid(Reason::InvalidField, field, value, accepted))
        };
        let takes = verb.takes();
        match takes {
            Takes::Nothing | Takes::Span if !program.is_empty() => {
                return wrong("program", program.clone(), "none, for a verb that is not about one");
            }
            Takes::Job if program.is_empty() && sha256.is_some() => {
                return wrong(
                    "program",
                    program.clone(),
                    "the name of the program, where its SHA-256 is named",
                );
            }
            Takes::Job => text("program", program, 0, PROGRAM_LENGTH_MAX)?,
            Takes::Content | Takes::Sealed => file_name("program", program)?,
            Takes::Nothing | Takes::Span => {}
        }
        match (takes, sha256) {
            (Takes::Content | Takes::Sealed, None) => {
                return wrong(
                    "program_sha256",
                    String::new(),
                    "64 hexadecimal digits, the SHA-256 of the content",
                );
            }
            (Takes::Nothing | Takes::Span, Some(sha256)) => {
                return wrong(
                    "program_sha256",
                    sha256.to_string(),
                    "none, for a verb that is not about a program",
                );
            }
            _ => {}
        }
        let (least, most) = if takes == Takes::Content { (1, PROGRAM_BYTES_MAX as i64) } else { (0, 0) };
        within("program_bytes", length, least, most)?;
        let (least, most) = if takes == Takes::Span { (1, CONSENT_MAX_S) } else { (0, 0) };
        within("consent_s", *consent_s, least, most)
    }
}

impl State {
    /// Sessions by number.
    pub fn sessions(&self) -> &crate::table::Table<SessionId, Arc<Session>> {
        &self.sessions
    }

    /// A booking's sessions, by number.
    pub fn sessions_of(&self, booking: &BookingId) -> impl Iterator<Item = &Arc<Session>> {
        let booking = *booking;
        let from = (booking, SessionId::numbered(0));
        self.sessions_of
            .range(from..)
            .take_while(move |(of, _)| *of == booking)
            .filter_map(|(_, id)| self.sessions.get(id))
    }

    /// A plant's open sessions, by machine.
    pub fn open_sessions_of(&self, plant: &PlantId) -> impl Iterator<Item = &Arc<Session>> {
        let open = self.open_sessions.values().filter_map(|id| self.sessions.get(id));
        open.filter(move |session| session.plant == *plant)
    }

    /// A session, if the caller may see it: its holder, the member whose plant it is, operator and auditor.
    pub fn visible_session(&self, caller: &Caller, id: &SessionId) -> Result<&Arc<Session>, Refusal> {
        let session = self.sessions.get(id).filter(|session| {
            matches!(caller.role, Role::Operator | Role::Auditor) || !self.sides(caller, session).is_empty()
        });
        session.ok_or_else(|| Refusal::unknown("session_id", id))
    }

    /// On which sides of a session a caller stands.
    fn sides(&self, caller: &Caller, session: &Session) -> Vec<Side> {
        let is_member =
            self.plants.get(&session.plant).is_some_and(|plant| plant.member.as_str() == caller.id.as_str());
        match caller.role {
            Role::Buyer if caller.id == session.holder => vec![Side::Holder],
            Role::Member if is_member => vec![Side::Plant],
            _ => Vec::new(),
        }
    }

    pub(crate) fn open_session(
        &mut self,
        caller: &Caller,
        id: &BookingId,
        operation: u32,
    ) -> Result<Reply, Refusal> {
        self.must_write(Format::REMOTE)?;
        let booking = self.booking(id)?.clone();
        if caller.role != Role::Buyer || booking.buyer != caller.id {
            return Err(Refusal::unknown_booking(id));
        }
        let (machine, closes_at) = self.ground(&booking, operation)?;
        let count = self.sessions_of(id).count();
        if count >= SESSIONS_MAX {
            let accepted = format!("fewer than {SESSIONS_MAX}");
            return Err(Refusal::invalid(
                Reason::WrongStatus,
                "sessions of the booking (count)",
                count,
                &accepted,
            ));
        }
        if let Some(earlier) = self.open_sessions.get(&machine).copied() {
            self.close(&earlier, "another session was opened for the machine");
        }
        let plant = self.station(&machine)?.machine.plant.clone();
        self.sessions_given += 1;
        let session = Session {
            id: SessionId::numbered(self.sessions_given),
            booking: *id,
            operation,
            machine,
            plant,
            holder: caller.id.clone(),
            opened_at: self.now,
            closes_at,
            closed: None,
            commands: Vec::new(),
        };
        let id = session.id;
        self.put_session(session);
        Ok(Reply::Remote(id, 0))
    }

    pub(crate) fn must_write(&self, format: Format) -> Result<(), Refusal> {
        if self.format >= format {
            return Ok(());
        }
        let what = if format <= Format::REMOTE { "remote operation" } else { "what is asked" };
        let words =
            format!("{what} begins once every coordinator of the cluster is of a version that knows it");
        Err(Refusal::because(Reason::WrongStatus, words))
    }

    /// The ground on which a session stands: an operation of a confirmed booking that is not finished, inside its
    /// window on its machine. Answers with the machine and the window's end.
    fn ground(&self, booking: &Booking, operation: u32) -> Result<(MachineId, i64), Refusal> {
        let id = &booking.id;
        let wrong = |words: String| Err(Refusal::because(Reason::WrongStatus, words));
        let Some(step) = booking.steps.get(operation as usize) else {
            let accepted = format!("0 to {}", booking.steps.len().saturating_sub(1));
            return Err(Refusal::invalid(Reason::InvalidField, "operation", operation, &accepted));
        };
        if booking.status != Status::Confirmed {
            return wrong(format!("{id} is not confirmed ({:?})", booking.status));
        }
        if step.is_finished() {
            return wrong(format!("operation {operation} of {id} is finished"));
        }
        let Some(place) = &step.place else {
            return wrong(format!("operation {operation} of {id} has no place at the moment"));
        };
        if !(place.start..place.end).contains(&self.now) {
            return wrong(format!(
                "it is {}, and the window of operation {operation} of {id} on {} is from {} to {}, seconds since the \
                 Unix epoch",
                self.now, place.machine, place.start, place.end
            ));
        }
        Ok((place.machine.clone(), place.end))
    }

    pub(crate) fn close_session(
        &mut self,
        caller: &Caller,
        id: &SessionId,
        because: &str,
    ) -> Result<Reply, Refusal> {
        text("because", because, 0, WORDS_LENGTH_MAX)?;
        let session = self.visible_session(caller, id)?;
        if caller.role == Role::Auditor {
            return Err(Refusal::unknown("session_id", id));
        }
        if session.is_open() {
            let because = format!("closed by {:?} {}: {because}", caller.role, caller.id);
            self.close(&id.clone(), because.trim_end_matches(": "));
        }
        Ok(Reply::Remote(*id, 0))
    }

    /// Refuses what does not go with its verb, or what the cluster cannot write yet.
    fn may_ask(&self, asked: &Asked) -> Result<(), Refusal> {
        asked.check()?;
        self.must_write(if asked.sha256.is_some() { Format::PROGRAMS } else { asked.verb.since() })
    }

    /// Puts on record what is asked; the plant's agent decides whether the machine is.
    pub(crate) fn operate(&mut self, caller: &Caller, asked: &Asked) -> Result<Reply, Refusal> {
        self.may_ask(asked)?;
        let Asked { session: id, verb, program, sha256, bytes, consent_s, valid_s } = asked;
        let session = self.visible_session(caller, id)?.clone();
        if !self.sides(caller, &session).iter().any(|side| verb.sides().contains(side)) {
            let sides = verb.sides().iter().map(|side| match side {
                Side::Holder => "the session's holder",
                Side::Plant => "the member whose plant it is",
            });
            let accepted = sides.collect::<Vec<_>>().join(" or ");
            let value = format!("{verb:?} by {:?} {}", caller.role, caller.id).to_lowercase();
            return Err(Refusal::invalid(Reason::NotAllowed, "verb", value, &accepted));
        }
        if let Some(Closed { at, because }) = &session.closed {
            let words = format!("{id} ended at {at}, seconds since the Unix epoch: {because}");
            return Err(Refusal::because(Reason::WrongStatus, words));
        }
        if !session.has_room(*verb) {
            let accepted = format!("fewer than {COMMANDS_MAX}: open another session");
            let count = session.commands.len();
            return Err(Refusal::invalid(
                Reason::WrongStatus,
                "commands of the session (count)",
                count,
                &accepted,
            ));
        }
        let mut session = Session::clone(&session);
        session.commands.push(RemoteCommand {
            verb: *verb,
            by: caller.clone(),
            asked_at: self.now,
            valid_s: *valid_s,
            program: program.clone(),
            sha256: *sha256,
            bytes: *bytes,
            consent_s: *consent_s,
            outcome: None,
            taken_back: None,
        });
        let nonce = session.commands.len() as u32;
        self.put_session(session);
        Ok(Reply::Remote(*id, nonce))
    }

    /// What the agent of `plant` tells of a command; or that the permission to start that it gave is `taken_back`, which a
    /// former format takes for its outcome, as it always did.
    pub(crate) fn operated(
        &mut self,
        plant: &PlantId,
        id: &SessionId,
        nonce: u32,
        outcome: &Outcome,
        taken_back: bool,
    ) -> Result<(), Refusal> {
        let session = self.sessions.get(id).filter(|session| session.plant == *plant);
        let mut session = Session::clone(session.ok_or_else(|| Refusal::unknown("session_id", id))?);
        let command = (nonce as usize).checked_sub(1).and_then(|at| session.commands.get_mut(at));
        let command = command.ok_or_else(|| Refusal::unknown("nonce", nonce))?;
        if taken_back && self.format >= Format::PROGRAMS {
            if command.verb != Verb::Start || command.taken_back.is_some() {
                let words = format!("command {nonce} of {id} gave no permission that still stands");
                return Err(Refusal::because(Reason::WrongStatus, words));
            }
            command.taken_back = Some(TakenBack { at: outcome.at, words: told(&outcome.words) });
            self.put_session(session);
            return Ok(());
        }
        if command.outcome.is_some() {
            let words = format!("what came of command {nonce} of {id} is known already");
            return Err(Refusal::because(Reason::WrongStatus, words));
        }
        let mut interlocks = outcome.interlocks.clone();
        interlocks.truncate(INTERLOCKS_MAX);
        for interlock in &mut interlocks {
            interlock.name = told(&interlock.name);
            interlock.seen = told(&interlock.seen);
        }
        command.outcome = Some(Outcome {
            words: told(&outcome.words),
            consent: told(&outcome.consent),
            interlocks,
            ..outcome.clone()
        });
        self.put_session(session);
        Ok(())
    }

    /// A booking has changed: its sessions follow its windows, and end where their ground is gone.
    pub(crate) fn follow_sessions(&mut self, booking: &Booking) {
        let open: Vec<_> =
            self.sessions_of(&booking.id).filter(|session| session.is_open()).cloned().collect();
        for session in open {
            match self.ground(booking, session.operation) {
                Ok((machine, closes_at)) if machine == session.machine => {
                    if closes_at != session.closes_at {
                        self.put_session(Session { closes_at, ..Session::clone(&session) });
                    }
                }
                Ok((machine, _)) => self.close(&session.id, &format!("the operation has moved to {machine}")),
                Err(refusal) => self.close(&session.id, &refusal.message),
            }
        }
    }

    /// Sessions whose windows are over end.
    pub(crate) fn expire_sessions(&mut self) {
        while let Some((closes_at, id)) = self.sessions_by_end.first().copied() {
            if closes_at > self.now {
                break;
            }
            self.close(&id, "the booking's window is over");
        }
    }

    /// Ends every open session, for a reason that has nothing to do with them.
    pub(crate) fn close_all_sessions(&mut self, because: &str) {
        let open: Vec<_> = self.open_sessions.values().copied().collect();
        open.iter().for_each(|id| self.close(id, because));
    }

    /// A booking is forgotten, and with it what was done in its sessions.
    pub(crate) fn forget_sessions(&mut self, booking: &BookingId) {
        let known: Vec<_> = self.sessions_of(booking).map(|session| session.id).collect();
        for id in known {
            self.sessions.take(&id);
            self.sessions_of.take(&(*booking, id));
        }
    }

    fn close(&mut self, id: &SessionId, because: &str) {
        if let Some(session) = self.sessions.get(id) {
            let closed = Some(Closed { at: self.now, because: told(because) });
            self.put_session(Session { closed, ..Session::clone(session) });
        }
    }

    fn put_session(&mut self, session: Session) {
        if let Some(old) = self.sessions.get(&session.id).filter(|old| old.is_open()) {
            self.open_sessions.take(&old.machine);
            self.sessions_by_end.take(&(old.closes_at, old.id));
        }
        self.index_session(&session);
        self.changes.sessions.insert(session.id);
        self.sessions.put(session.id, Arc::new(session));
    }

    /// Puts a session where it is looked for.
    pub(crate) fn index_session(&mut self, session: &Session) {
        self.sessions_of.add((session.booking, session.id));
        if session.is_open() {
            self.open_sessions.put(session.machine.clone(), session.id);
            self.sessions_by_end.add((session.closes_at, session.id));
        }
    }
}

/// What a plant tells, fit to be kept: an outcome is not refused for its wording.
fn told(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_LENGTH_MAX).collect()
}
