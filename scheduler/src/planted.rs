//! Known bugs, to prove that the simulation finds them. They can be planted with the feature `planted` only; in every
//! other build [`planted`] is constantly false, and nothing of it is left in the program.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A write is answered once it is on its way.
    AnsweredBeforeCommit,
    /// A state that comes from a snapshot does not know which requests are done: repeated, they are applied twice.
    AnswersForgotten,
    /// A read that is to be fresh is answered from what this node knows.
    ReadsStale,
    /// Watchers are not told that a snapshot has taken changes away.
    WatchGapHidden,
    /// An optimised plan is changed for the worse before it is committed.
    PlanSpoilt,
    /// The format is raised before every member understands it.
    FormatRaisedEarly,
    /// A plant that is heard again goes on to count as silent.
    SilenceForever,
}

/// Whether `bug` is planted: never, but in the simulation.
#[cfg(not(feature = "planted"))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use garden::plant;
#[cfg(feature = "planted")]
pub(crate) use garden::planted;

#[cfg(feature = "planted")]
mod garden {
    use super::Bug;
    use std::cell::RefCell;

    thread_local! {
        static PLANTED: RefCell<Vec<Bug>> = const { RefCell::new(Vec::new()) };
    }

    /// Plants these bugs, and no other, for this thread.
    pub fn plant(bugs: &[Bug]) {
        PLANTED.set(bugs.to_vec());
    }

    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.with_borrow(|planted| planted.contains(&bug))
    }
}
