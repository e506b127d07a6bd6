//! The first room: is this command one that may be looked at at all? Pure: it is given the command, what the agent
//! knows, and the time, and says yes or why not.
//!
//! The checks stand in one table, [`CHECKS`], in the order in which they are made. What only makes safe passes more
//! easily: it is heeded after the window's end, and out of its order; but never from a session that is not the
//! machine's latest, and never twice.

use super::{Act, Asked, Verb};
use millpool_proto::v1::{DispatchItem, RemoteSession};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// The line to the coordinator is lost when no sign of life has come back for so long.
pub const LEASE: Duration = Duration::from_secs(6);

/// What the agent knows when a command comes.
pub struct Known<'a> {
    /// Now, by the monotonic clock.
    pub now: Instant,
    /// Now, by the plant's clock, ms since the Unix epoch.
    pub now_ms: i64,
    /// When the agent sent the sign of life that came back last; none while there is no line.
    pub alive: Option<Instant>,
    /// Whether the machine is here, can be commanded, and the plant allows it at all.
    pub commanded: bool,
    /// Whether the plant takes its member's word from afar.
    pub from_afar: bool,
    /// The open sessions, as the coordinator told them last.
    pub sessions: &'a [RemoteSession],
    /// The machine's items on the dispatch list.
    pub items: &'a [DispatchItem],
}

/// What is remembered of a machine, through restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The highest session that asked something.
    epoch: u64,
    /// The commands of it that came.
    nonces: BTreeSet<u32>,
}

/// Why a command is not let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refused {
    /// It is not here, cannot be commanded, or the plant does not allow it.
    #[error(
        "the machine is not remotely operated: its protocol cannot command it, or the plant has not allowed it"
    )]
    Machine,
    /// There is no line, or none that is known to be there.
    #[error("the agent is cut off from the coordinator, or was a moment ago")]
    CutOff,
    /// A higher one has been seen, or it is over.
    #[error("the session is over, or another was opened for the machine since")]
    Session,
    /// It is older than it is good for, or nobody knows how old it is.
    #[error("the command is too old, or its age is not known")]
    Stale,
    /// It was seen before.
    #[error("the command was seen before")]
    Repeated,
    /// A later one was seen.
    #[error("a later command of the session was seen before")]
    OutOfOrder,
    /// The booking's window is over.
    #[error("the booking's window is over")]
    Window,
    /// It is not on the dispatch list, or not yet due.
    #[error("the operation is not on the machine's dispatch list, or not due yet")]
    NotListed,
    /// Only the plant may ask it.
    #[error("only the plant may ask that")]
    NotThePlant,
    /// The plant takes it from nobody but its own people, at its console.
    #[error("this plant agrees, and lets programs out, at its own console only")]
    AtTheConsole,
}

type Check = fn(&Asked, &Known, &Seen) -> bool;

/// Every check, in order: what it refuses with, and whether a command passes. What was seen before is known as such
/// before anything else is said of it: the first of it is answered.
pub const CHECKS: [(Refused, Check); 10] = [
    (Refused::Machine, |_, known, _| known.commanded),
    (Refused::Session, |asked, known, seen| {
        let open = |session: &RemoteSession| {
            session.epoch == asked.epoch
                && session.machine_id == asked.machine_id
                && session.booking_id == asked.booking_id
                && session.operation == asked.operation
                && session.holder == asked.holder
        };
        asked.epoch >= seen.epoch && known.sessions.iter().any(open)
    }),
    (Refused::Repeated, |asked, _, seen| asked.epoch != seen.epoch || !seen.nonces.contains(&asked.nonce)),
    (Refused::CutOff, |_, known, _| known.alive.is_some_and(|alive| known.now - alive <= LEASE)),
    (Refused::Stale, |asked, known, _| asked.deadline().is_some_and(|deadline| known.now <= deadline)),
    (Refused::OutOfOrder, |asked, _, seen| {
        let latest = seen.nonces.last().copied().unwrap_or(0);
        asked.act.makes_safe() || asked.epoch != seen.epoch || asked.nonce >= latest
    }),
    (Refused::Window, |asked, known, _| asked.act.makes_safe() || known.now_ms < asked.closes_at_ms),
    (Refused::NotListed, |asked, known, _| {
        let meant = |item: &DispatchItem| {
            item.booking_id == asked.booking_id
                && item.operation == asked.operation
                && item.machine_id == asked.machine_id
                && item.start_s.saturating_mul(1000) <= known.now_ms
        };
        let after = matches!(asked.act, Act::Machine(Verb::Clear, _) | Act::Discard(_));
        after || asked.act.makes_safe() || known.items.iter().any(meant)
    }),
    (Refused::NotThePlant, |asked, _, _| !asked.act.is_the_plants() || asked.is_by_the_plant()),
    (Refused::AtTheConsole, |asked, known, _| !asked.act.lets_more() || known.from_afar),
];

/// The checks that hold only for a while, and are made once more before the call: it may have had to wait.
const PASSING: [Refused; 6] = [
    Refused::CutOff,
    Refused::Session,
    Refused::Stale,
    Refused::Window,
    Refused::NotListed,
    Refused::Machine,
];

/// Decides, and remembers what it let pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    machines: BTreeMap<String, Seen>,
    /// A check that is left out, to show that it is needed.
    #[cfg(test)]
    #[serde(skip)]
    pub(crate) without: Option<Refused>,
}

impl Guard {
    /// Lets a command pass, or says why not. Either way it counts as seen from here on, if it is of the machine's latest
    /// session: that has to be on disk before the machine is asked, or anybody is told.
    pub fn admit(&mut self, asked: &Asked, known: &Known) -> Result<(), Refused> {
        let nothing = Seen::default();
        let seen = self.machines.get(&asked.machine_id).unwrap_or(&nothing);
        let passed = self.check(asked, known, seen, |_| true);
        if !matches!(passed, Err(Refused::Machine | Refused::Session)) {
            let seen = self.machines.entry(asked.machine_id.clone()).or_default();
            if asked.epoch != seen.epoch {
                *seen = Seen { epoch: asked.epoch, nonces: BTreeSet::new() };
            }
            seen.nonces.insert(asked.nonce);
        }
        passed
    }

    /// Whether what was let pass still may be carried out.
    pub fn still(&self, asked: &Asked, known: &Known) -> Result<(), Refused> {
        self.check(asked, known, &Seen::default(), |check| PASSING.contains(&check))
    }

    fn check(
        &self,
        asked: &Asked,
        known: &Known,
        seen: &Seen,
        made: impl Fn(Refused) -> bool,
    ) -> Result<(), Refused> {
        let mut fails = CHECKS.iter().filter(|(check, passes)| {
            made(*check) && !self.leaves_out(*check) && !passes(asked, known, seen)
        });
        fails.next().map_or(Ok(()), |(refused, _)| Err(*refused))
    }

    #[cfg(test)]
    fn leaves_out(&self, check: Refused) -> bool {
        self.without == Some(check)
    }

    #[cfg(not(test))]
    fn leaves_out(&self, _: Refused) -> bool {
        false
    }
}
