//! Whatever is entered, in whatever order: no rule is broken, no promise worsened without a disturbance,
//! nothing confirmed is lost, a refusal changes nothing, and replicas agree.
//!
//! `MILLPOOL_PROPTEST_CASES` raises the number of sequences.

mod scenes;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use scenes::harness::{KINDS, Tally, quiet_panics, run, sequence};

fn cases() -> u32 {
    std::env::var("MILLPOOL_PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(3000)
}

#[test]
fn no_sequence_of_entries_breaks_a_promise() {
    let config =
        Config { cases: cases(), max_shrink_iters: 20_000, failure_persistence: None, ..Config::default() };
    let sequences = (any::<u32>().no_shrink(), sequence());
    quiet_panics();
    let outcome = TestRunner::new(config)
        .run(&sequences, |(world, steps)| run(world, &steps).map(|_| ()).map_err(TestCaseError::fail));
    let _ = std::panic::take_hook();
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// A harness that never gets through to a rule cannot find it broken.
#[test]
fn sequences_reach_every_kind_of_entry() {
    let mut total = Tally::new();
    let mut runner = TestRunner::deterministic();
    for world in 0..1500 {
        let steps = sequence().new_tree(&mut runner).expect("steps can be drawn").current();
        for (kind, (done, refused)) in run(world, &steps).unwrap_or_else(|story| panic!("{story}")) {
            let count = total.entry(kind).or_default();
            *count = (count.0 + done, count.1 + refused);
        }
    }
    for (_, kind) in KINDS {
        let (done, refused) = total.get(&kind).copied().unwrap_or_default();
        println!("{kind:?}: {done} done, {refused} refused");
        assert!(done >= 5, "{kind:?} was accepted {done} times only: {total:?}");
    }
}
