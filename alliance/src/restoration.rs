//! An alliance that begins again: from a backup, or from what was left of a cluster that was lost.
//!
//! What happened between the moment that it is taken back to and the loss is gone, and others may still know of it:
//! buyers have bookings' ids, agents and watchers have revisions. So none of them is ever given again.

use crate::format::Format;
use crate::remote::SESSIONS_SKIPPED;
use crate::state::State;

/// Booking ids that a restored alliance leaves out.
pub const BOOKINGS_SKIPPED: u64 = 1_000_000;
/// Revisions that a restored alliance leaves out.
pub const REVISIONS_SKIPPED: u64 = 1_000_000_000;
/// Restorations that are remembered; above it the oldest go first.
pub const RESTORATIONS_MAX: usize = 64;
/// Longest reason, characters.
pub const RESTORATION_REASON_LENGTH_MAX: usize = 500;

/// That an alliance was taken back to an earlier moment, for good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Restoration {
    /// The cluster that it was restored from.
    pub cluster: String,
    /// The revision that it was taken back to: whatever had a later one is gone.
    pub revision: u64,
    /// The alliance's clock at that revision, seconds since the Unix epoch.
    pub state_at: i64,
    /// When it was restored, seconds since the Unix epoch.
    pub at: i64,
    /// Why, in the operator's words.
    pub reason: String,
}

impl State {
    /// What the alliance was restored from, the latest last.
    pub fn restorations(&self) -> &[Restoration] {
        &self.restorations
    }

    /// This state as the beginning of a new cluster, in the newest format.
    pub fn restored(mut self, cluster: &str, at: i64, reason: &str) -> State {
        let restoration = Restoration {
            cluster: cluster.to_owned(),
            revision: self.revision,
            state_at: self.now,
            at,
            reason: reason.to_owned(),
        };
        self.restorations.push(restoration);
        let too_many = self.restorations.len().saturating_sub(RESTORATIONS_MAX);
        self.restorations.drain(..too_many);
        self.revision += REVISIONS_SKIPPED;
        self.bookings_given += BOOKINGS_SKIPPED;
        self.sessions_given += SESSIONS_SKIPPED;
        self.close_all_sessions("the alliance was restored");
        self.go_on_in(Format::NEWEST);
        self.fall_silent();
        self.keep();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Entry};
    use crate::registry::Role;
    use crate::{Caller, PrincipalId};

    fn raise(to: Format) -> Entry {
        let caller = Caller { role: Role::Operator, id: PrincipalId::trusted("operator") };
        Entry { at: 7, caller, request: None, command: Command::RaiseFormat { to } }
    }

    #[test]
    fn a_restored_alliance_gives_nothing_again_and_says_what_it_was() {
        let mut lost = State::default();
        lost.apply(41, &raise(Format::NEWEST));
        lost.bookings_given = 12;
        let (hash, again) = (lost.hash(), lost.clone().restored("old", 99, "the flood"));
        assert_eq!((again.revision(), again.bookings_given), (1_000_000_041, 1_000_012));
        let known = again.restorations();
        assert_eq!(known.len(), 1);
        assert_eq!((known[0].cluster.as_str(), known[0].revision, known[0].state_at), ("old", 41, 7));
        assert_ne!(again.hash(), hash, "who was restored otherwise has another hash");
        let many = (0..100).fold(again, |state, n| state.restored("old", n, "again"));
        assert_eq!(many.restorations().len(), RESTORATIONS_MAX);
        assert_eq!(many.restorations().last().unwrap().at, 99);
    }

    #[test]
    fn the_format_rises_and_never_falls() {
        let mut state = State::default();
        let first = state.hash();
        assert!(state.apply(1, &raise(Format::NEWEST)).result.is_ok());
        assert_eq!(state.format(), Format::NEWEST);
        assert_ne!(state.hash(), first);
        for to in [Format::NEWEST, Format::FIRST] {
            let refusal = state.apply(2, &raise(to)).result.unwrap_err();
            assert_eq!(refusal.field, "format");
        }
        assert_eq!((Format::of(0), Format::of(Format::NEWEST.number() + 1)), (None, None));
    }
}
