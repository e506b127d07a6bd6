//! Known bugs, to prove that the tests find them. Only this crate's own unit tests can plant one; in every
//! other build [`planted`] is constantly false, and nothing of it is left in the program.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
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
    /// An operation may be placed on a machine that cannot do it.
    EligibilityUnchecked,
    /// Parts travel in no time.
    TransportIgnored,
    /// Events that were applied are applied again.
    EventsRepeated,
    /// An outbox begins anew after another has been attached.
    OutboxForgotten,
}

/// Whether `bug` is planted: never, outside of this crate's unit tests.
#[cfg(not(test))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub(crate) use tests::planted;

#[cfg(test)]
mod tests {
    use super::Bug;
    use crate::scenes::harness::{quiet_panics, run, sequence};
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// How many sequences the harness needs to find a bug, and what it says; None after `most`.
    fn hunt(bug: Option<Bug>, most: usize) -> Option<(usize, String)> {
        quiet_panics();
        PLANTED.set(bug);
        let mut runner = TestRunner::deterministic();
        let found = (1..=most).find_map(|n| {
            let steps = sequence().new_tree(&mut runner).expect("steps can be drawn").current();
            let story = run(n as u32, &steps).err()?;
            Some((n, story.lines().take(3).collect::<Vec<_>>().join(" ")))
        });
        PLANTED.set(None);
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
            Bug::EligibilityUnchecked,
            Bug::TransportIgnored,
            Bug::EventsRepeated,
            Bug::OutboxForgotten,
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
