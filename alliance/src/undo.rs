//! How a refused entry leaves no trace: tables and indexes know by themselves what they were, and the figures beside them
//! are set aside before it.

use crate::command::Changes;
use crate::format::Format;
use crate::registry::Policy;
use crate::state::{Optimisation, State};
use crate::table::Undo;
use std::sync::Arc;

/// The figures of a state as an entry found them.
pub(crate) struct Figures {
    format: Format,
    now: i64,
    revision: u64,
    /// Bookings and sessions.
    given: (u64, u64),
    plan_revision: u64,
    policy: Arc<Policy>,
    optimisation: Option<Optimisation>,
}

impl State {
    /// What an entry may change besides tables and indexes.
    pub(crate) fn figures(&self) -> Figures {
        let State {
            format, now, revision, bookings_given, plan_revision, optimisation, sessions_given, ..
        } = *self;
        let given = (bookings_given, sessions_given);
        Figures { format, now, revision, given, plan_revision, policy: self.policy.clone(), optimisation }
    }

    /// What this entry has changed stays.
    pub(crate) fn keep(&mut self) {
        self.undoable().into_iter().for_each(Undo::keep);
    }

    /// What this entry has changed becomes again what it was.
    pub(crate) fn undo(&mut self, found: Figures) {
        self.undoable().into_iter().for_each(Undo::undo);
        let Figures { format, now, revision, given, plan_revision, policy, optimisation } = found;
        (self.format, self.now, self.revision, self.plan_revision) = (format, now, revision, plan_revision);
        (self.bookings_given, self.sessions_given) = given;
        (self.policy, self.optimisation) = (policy, optimisation);
        self.changes = Changes::default();
    }

    /// Every table and index. Whoever adds a field to the state has to say here, or in [`Figures`], how it is undone.
    fn undoable(&mut self) -> [&mut dyn Undo; 21] {
        let State {
            format: _,
            // Changed by no entry.
            restorations: _,
            now: _,
            revision: _,
            bookings_given: _,
            plan_revision: _,
            policy: _,
            optimisation: _,
            members,
            plants,
            stations,
            offers,
            principals,
            bookings,
            agents,
            answers,
            sessions_given: _,
            sessions,
            accounts,
            tallies,
            silences,
            open,
            over,
            of_buyer,
            holds,
            answers_by_expiry,
            sessions_of,
            sessions_by_end,
            open_sessions,
            tokens,
            changes: _,
        } = self;
        [
            members,
            plants,
            stations,
            offers,
            principals,
            bookings,
            agents,
            answers,
            sessions,
            accounts,
            tallies,
            silences,
            open,
            over,
            of_buyer,
            holds,
            answers_by_expiry,
            sessions_of,
            sessions_by_end,
            open_sessions,
            tokens,
        ]
    }
}
