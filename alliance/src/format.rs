//! In which format the alliance's entries and snapshots are written.
//!
//! Coordinators of two versions work side by side while a cluster is upgraded, and the older one stops at what it does
//! not understand. So a cluster writes the format that its state names, and goes to the next one by an entry of the
//! log, which the leader writes once every member understands it.

use crate::command::Reply;
use crate::refusal::{Reason, Refusal};
use crate::state::State;

/// A format of entries and snapshots. Each understands all before it.
///
/// - 1: the first;
/// - 2: the format itself is part of the state and raised by an entry; a state knows what it was restored from;
/// - 3: what is over is forgotten after a while ([`crate::retention`]), and of remembered answers that expire together
///   the first that was given goes first;
/// - 4: remote operation ([`crate::remote`]);
/// - 5: the machines' time is counted ([`crate::account`]);
/// - 6: programs come to a plant by a session, and so does its consent ([`crate::program`]); what an agent takes back by
///   itself is on record;
/// - 7: a plant that is not heard is known as such ([`crate::silence`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Format(u32);

impl Format {
    /// In which every alliance begins.
    pub const FIRST: Format = Format(1);
    /// The newest that this version knows.
    pub const NEWEST: Format = Format(7);
    /// From which on what is over is forgotten, and answers in their order.
    pub const FORGETTING: Format = Format(3);
    /// From which on machines are operated remotely.
    pub const REMOTE: Format = Format(4);
    /// From which on the machines' time is counted.
    pub const TALLIED: Format = Format(5);
    /// From which on programs and consent come by a session.
    pub const PROGRAMS: Format = Format(6);
    /// From which on silent plants are known.
    pub const SILENCES: Format = Format(7);

    /// The format of this number, if this version knows it.
    pub fn of(number: u32) -> Option<Format> {
        Some(Format(number)).filter(|format| (Self::FIRST..=Self::NEWEST).contains(format))
    }

    /// Its number, as it stands in entries and snapshots.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl Default for Format {
    fn default() -> Self {
        Self::FIRST
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl State {
    /// The format in which the cluster writes.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Goes on to a newer format. It never goes back: what is written could not be read.
    pub(crate) fn raise_format(&mut self, to: Format) -> Result<Reply, Refusal> {
        if to <= self.format {
            let accepted = format!("a format above {}, which the cluster writes", self.format);
            return Err(Refusal::invalid(Reason::InvalidField, "format", to, &accepted));
        }
        self.go_on_in(to);
        Ok(Reply::Done)
    }

    /// What a newer format keeps begins with it.
    pub(crate) fn go_on_in(&mut self, format: Format) {
        self.format = format;
        if format >= Format::TALLIED {
            self.open_accounts();
        }
    }
}
