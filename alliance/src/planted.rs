//! Known bugs, to prove that the tests find them. Only this crate's own unit tests and the simulation, by the feature
//! `planted`, can plant one; in every other build `planted` is constantly false, and nothing of it is left in the
//! program.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Occupations of a machine may overlap.
    OverlapUnchecked,
    /// A plan may make a booking late.
    PromiseUnchecked,
    /// A plan may move frozen work.
    FrozenUnchecked,
    /// A hold that has run out keeps its time.
    HoldNeverExpires,
    /// A known request id is answered, whatever is asked under it.
    AnyBodyAnswered,
    /// What is taken from a table stays in its digest.
    DigestKeepsTaken,
    /// A refused entry leaves what it has changed in the tables.
    RefusalKeepsRows,
    /// A refused entry leaves what it has changed in the indexes.
    RefusalKeepsIndexes,
    /// An operation may be placed on a machine that cannot do it.
    EligibilityUnchecked,
    /// Parts travel in no time.
    TransportIgnored,
    /// Events that were applied are applied again.
    EventsRepeated,
    /// An outbox begins anew after another has been attached.
    OutboxForgotten,
    /// What is over is known for half of the time that it should be.
    ForgottenTooSoon,
    /// A machine's time is counted again with every report.
    TimeCountedTwice,
}

/// Whether `bug` is planted: never, but for tests.
#[cfg(not(any(test, feature = "planted")))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(any(test, feature = "planted"))]
pub use garden::plant;
#[cfg(any(test, feature = "planted"))]
pub(crate) use garden::planted;

#[cfg(any(test, feature = "planted"))]
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

#[cfg(test)]
mod tests {
    use super::{Bug, plant};
    use crate::scenes::harness::{quiet_panics, run, sequence};
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;

    /// How many sequences the harness needs to find a bug, and what it says; None after `most`.
    fn hunt(bug: Option<Bug>, most: usize) -> Option<(usize, String)> {
        quiet_panics();
        plant(bug.as_slice());
        let mut runner = TestRunner::deterministic();
        let found = (1..=most).find_map(|n| {
            let steps = sequence().new_tree(&mut runner).expect("steps can be drawn").current();
            let story = run(n as u32, &steps).err()?;
            Some((n, story.lines().take(3).collect::<Vec<_>>().join(" ")))
        });
        plant(&[]);
        found
    }

    #[test]
    fn the_harness_finds_every_planted_bug() {
        for bug in [
            Bug::OverlapUnchecked,
            Bug::PromiseUnchecked,
            Bug::FrozenUnchecked,
            Bug::HoldNeverExpires,
            Bug::AnyBodyAnswered,
            Bug::DigestKeepsTaken,
            Bug::RefusalKeepsRows,
            Bug::RefusalKeepsIndexes,
            Bug::EligibilityUnchecked,
            Bug::TransportIgnored,
            Bug::EventsRepeated,
            Bug::OutboxForgotten,
            Bug::ForgottenTooSoon,
            Bug::TimeCountedTwice,
        ] {
            let found = hunt(Some(bug), 2000);
            println!("{bug:?}: {found:?}");
            assert!(found.is_some(), "2000 sequences did not find {bug:?}");
        }
    }

    #[test]
    fn the_harness_finds_nothing_where_nothing_is_planted() {
        assert_eq!(hunt(None, 300), None);
    }
}
