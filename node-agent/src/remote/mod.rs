//! Remote operation: what may reach a machine, and when.
//!
//! A buyer asks at the coordinator, which puts it on record and passes it on. Here it is decided whether the machine is
//! asked. Three rooms, each of which can only say no:
//!
//! 1. [`guard`]: is it the machine's latest session, open, inside its window, fresh, never seen before, and on the
//!    dispatch list? Pure. What it lets pass is on disk before anything else happens, so that nothing is ever asked
//!    twice, through restarts neither.
//! 2. [`consent`]: does the plant agree, for what makes the machine move? A person for a limited time, or a standing
//!    rule.
//! 3. [`interlock`]: is the machine fit for it now, by telemetry that is read for the purpose? Pure; the adapter reads,
//!    and calls at once or not at all.
//!
//! Whatever has to wait behind a slow control is looked at once more before the call ([`permit`]).
//!
//! A program comes to the plant by the same way ([`quarantine`]): fetched once its command was let pass, held against its
//! SHA-256, and let out by the plant alone. What a job rests on ([`program`]) is looked at before it may start.
//!
//! [`run`] ties them together, and tells what came of each command as an event. When the line to the coordinator or a
//! session is lost, a permission to start that the machine has not used is taken back; a running cut is left alone.
//!
//! **How old is it?** Clocks are not trusted with that. The agent's own signs of life come back with each command
//! ([`Asked::sent`]): it is no older than the last of them that the coordinator had heard.
//!
//! **Safety functions stay in the machine.** Nothing here may be used in their place.

#[cfg(test)]
mod adversary;
pub mod consent;
pub mod guard;
pub mod interlock;
pub mod permit;
pub mod program;
pub mod quarantine;
pub mod run;

use interlock::Interlock;
use millpool_proto::v1::{RemoteAsked, RemoteCommand, RemoteSession, RemoteVerb};
use permit::Permit;
use program::{Pinned, Program, Sha256, Wanted};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What can be asked of a machine. Nothing stores a job and starts it in one: what is stored may be looked at before it
/// is allowed to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verb {
    /// Puts a job on the machine's list.
    Store,
    /// Replaces a stored job that has not begun.
    Update,
    /// Allows a job to start; the machine decides when it moves.
    Start,
    /// Takes that back.
    RevokeStart,
    /// Interrupts a running job.
    Pause,
    /// Lets an interrupted job go on.
    Resume,
    /// Ends a job in order.
    Stop,
    /// Ends a job at once.
    Abort,
    /// Takes a job that has not begun off the list.
    Cancel,
    /// Takes a job that is over off the list.
    Clear,
}

impl Verb {
    /// Every verb, with the name of its method and its number in the contract.
    pub const NAMED: [(Self, &'static str, RemoteVerb); 10] = [
        (Self::Store, "Store", RemoteVerb::Store),
        (Self::Update, "Update", RemoteVerb::Update),
        (Self::Start, "Start", RemoteVerb::Start),
        (Self::RevokeStart, "RevokeStart", RemoteVerb::RevokeStart),
        (Self::Pause, "Pause", RemoteVerb::Pause),
        (Self::Resume, "Resume", RemoteVerb::Resume),
        (Self::Stop, "Stop", RemoteVerb::Stop),
        (Self::Abort, "Abort", RemoteVerb::Abort),
        (Self::Cancel, "Cancel", RemoteVerb::Cancel),
        (Self::Clear, "Clear", RemoteVerb::Clear),
    ];

    /// The name of its method.
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(verb, ..)| *verb == self).map_or("", |(_, name, _)| name)
    }

    /// It lets the machine move.
    pub fn moves(self) -> bool {
        matches!(self, Self::Start | Self::Resume)
    }

    /// It changes on which program its job rests; taken off the list, it rests on none.
    pub fn changes_program(self) -> bool {
        matches!(self, Self::Store | Self::Update | Self::Cancel | Self::Clear)
    }

    /// It can only make the machine do less.
    pub fn makes_safe(self) -> bool {
        matches!(self, Self::Pause | Self::RevokeStart | Self::Stop | Self::Abort)
    }

    fn read(wire: RemoteVerb) -> Option<Self> {
        Self::NAMED.iter().find(|(.., own)| *own == wire).map(|(verb, ..)| *verb)
    }
}

/// What is asked: of a machine, or of its plant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Of the machine; for what puts a job on its list, on which program.
    Machine(Verb, Option<Wanted>),
    /// To put a program of this length, bytes, into quarantine.
    Put(Program, u64),
    /// To let one out, to where the machine reads its programs.
    Release(Program),
    /// To throw one out.
    Discard(Program),
    /// The plant agrees that the machine moves, for so long.
    Consent(Duration),
    /// The plant agrees no more.
    Withdraw,
}

impl Act {
    fn read(command: &RemoteCommand) -> Option<Self> {
        let program = || Program::read(&command.program, &command.program_sha256);
        Some(match command.verb() {
            RemoteVerb::Put => Self::Put(program()?, command.program_bytes),
            RemoteVerb::Release => Self::Release(program()?),
            RemoteVerb::Discard => Self::Discard(program()?),
            RemoteVerb::Consent => Self::Consent(Duration::from_secs(command.consent_s.into())),
            RemoteVerb::Withdraw => Self::Withdraw,
            of_the_machine => {
                let sha256 = match command.program_sha256.as_str() {
                    "" => None,
                    named => Some(Sha256::read(named)?),
                };
                let named = (!command.program.is_empty()).then(|| command.program.clone());
                let wanted = named.map(|name| Wanted { name, sha256 });
                if wanted.is_none() && sha256.is_some() {
                    return None;
                }
                Self::Machine(Verb::read(of_the_machine)?, wanted)
            }
        })
    }

    /// What is asked of the machine, if it is that.
    pub fn verb(&self) -> Option<Verb> {
        if let Self::Machine(verb, _) = self { Some(*verb) } else { None }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Machine(verb, _) => verb.name(),
            Self::Put(..) => "Put",
            Self::Release(_) => "Release",
            Self::Discard(_) => "Discard",
            Self::Consent(_) => "Consent",
            Self::Withdraw => "Withdraw",
        }
    }

    /// It lets the machine move.
    pub fn moves(&self) -> bool {
        self.verb().is_some_and(Verb::moves)
    }

    /// It can only make the machine do less.
    pub fn makes_safe(&self) -> bool {
        matches!(self, Self::Withdraw) || self.verb().is_some_and(Verb::makes_safe)
    }

    /// By it the plant allows what it did not allow before.
    pub fn lets_more(&self) -> bool {
        matches!(self, Self::Release(_) | Self::Consent(_))
    }

    /// Only the plant may ask it.
    pub fn is_the_plants(&self) -> bool {
        match self {
            Self::Release(_) | Self::Consent(_) | Self::Withdraw => true,
            Self::Machine(verb, _) => *verb == Verb::Abort,
            Self::Put(..) | Self::Discard(_) => false,
        }
    }
}

/// The line to the coordinator, as remote operation has to know it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// When the agent sent the sign of life that came back last; none before the first.
    pub alive: Option<Instant>,
    /// The open sessions, as the coordinator told them last.
    pub sessions: Vec<RemoteSession>,
}

/// A command, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The session's number; the fencing epoch.
    pub epoch: u64,
    /// The command's number in it; the nonce.
    pub nonce: u32,
    /// The machine.
    pub machine_id: String,
    /// The booking.
    pub booking_id: String,
    /// Index in the route.
    pub operation: u32,
    /// Whose session it is.
    pub holder: String,
    /// Who asks: role and id.
    pub by: String,
    /// When the session ends, ms since the Unix epoch.
    pub closes_at_ms: i64,
    /// What.
    pub act: Act,
    /// It is good for so long.
    pub valid: Duration,
    /// When the agent sent the sign of life that the coordinator had last heard when it sent this; none where that
    /// cannot be told. By the agent's monotonic clock.
    pub sent: Option<Instant>,
}

impl Asked {
    /// Reads what came; what lacks something is none. `sent` finds when an echoed sign of life was sent.
    pub fn read(asked: RemoteAsked, sent: impl Fn(i64) -> Option<Instant>) -> Option<Self> {
        let (session, command) = (asked.session?, asked.command?);
        Some(Self {
            epoch: session.epoch,
            nonce: command.nonce,
            act: Act::read(&command)?,
            machine_id: session.machine_id,
            booking_id: session.booking_id,
            operation: session.operation,
            holder: session.holder,
            by: command.by,
            closes_at_ms: session.closes_at_s.saturating_mul(1000),
            valid: Duration::from_secs(command.valid_s.into()),
            sent: sent(asked.echo_ms),
        })
    }

    /// The plant's member asks it.
    pub fn is_by_the_plant(&self) -> bool {
        self.by.starts_with("member:")
    }

    /// Its session and number.
    pub fn id(&self) -> (u64, u32) {
        (self.epoch, self.nonce)
    }

    /// The id of the job that it is about. It cannot name another.
    pub fn job(&self) -> String {
        format!("{}/{}", self.booking_id, self.operation)
    }

    /// Until when it may be carried out.
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.sent? + self.valid)
    }
}

/// What an adapter is asked to do. Whoever has one has been through guard and consent.
#[derive(Debug)]
pub struct Bid {
    /// The session and number of the command; none for what the agent does by itself.
    pub of: Option<(u64, u32)>,
    /// The machine.
    pub machine_id: String,
    /// What.
    pub verb: Verb,
    /// The job that it is about.
    pub job: String,
    /// The program, for what puts a job on the list; empty for none.
    pub program: String,
    /// The program that the job rests on, where it was released here: it has to be that very one.
    pub pinned: Option<Pinned>,
    /// When the operation is planned to begin and end, ms since the Unix epoch, for what puts a job on the list.
    pub planned_ms: Option<(i64, i64)>,
    /// The last look before the machine is asked.
    pub permit: Permit,
    /// What came of it.
    pub answer: oneshot::Sender<Answer>,
}

/// What came of a bid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the interlocks showed; none where they were not looked at.
    pub interlocks: Vec<Interlock>,
    /// And then.
    pub came: Came,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// The machine was not asked, and why.
    NotAsked(String),
    /// The machine answered with a return status: the bits of ISA-95 job control, and what they mean.
    Answered {
        /// Whether it says that it is done.
        done: bool,
        /// The bits.
        status: u64,
        /// In words.
        words: String,
    },
    /// The plant did it, without the machine.
    Done(String),
    /// The machine refused to be asked this.
    Rejected(String),
    /// The machine was asked, and no answer came.
    NoAnswer(String),
}

impl Answer {
    /// The machine was not asked.
    pub fn not_asked(why: impl Into<String>) -> Self {
        Self { interlocks: Vec::new(), came: Came::NotAsked(why.into()) }
    }
}
