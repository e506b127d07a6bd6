//! Whatever is entered, in whatever order: no rule is broken, no promise worsened without a disturbance,
//! nothing confirmed is lost, a refusal changes nothing, and replicas agree.
//!
//! `MILLPOOL_PROPTEST_CASES` raises the number of sequences.

mod common;

use common::harness::{KINDS, Step, Tally, quiet_panics, run};
use proptest::prelude::*;
use proptest::strategy::{Union, ValueTree};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

fn step() -> impl Strategy<Value = Step> {
    let kind = Union::new_weighted(KINDS.iter().map(|(weight, kind)| (*weight, Just(*kind))).collect());
    (kind, any::<u32>().no_shrink()).prop_map(|(kind, dice)| Step { kind, dice })
}

fn cases() -> u32 {
    std::env::var("MILLPOOL_PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(3000)
}

#[test]
fn no_sequence_of_entries_breaks_a_promise() {
    let config =
        Config { cases: cases(), max_shrink_iters: 20_000, failure_persistence: None, ..Config::default() };
    let sequences = (any::<u32>().no_shrink(), prop::collection::vec(step(), 1..60));
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
    let sequence = prop::collection::vec(step(), 40..60);
    for world in 0..300 {
        let steps = sequence.new_tree(&mut runner).expect("steps can be drawn").current();
        for (kind, (done, refused)) in run(world, &steps).unwrap_or_else(|story| panic!("{story}")) {
            let count = total.entry(kind).or_default();
            *count = (count.0 + done, count.1 + refused);
        }
    }
    for (_, kind) in KINDS {
        let (done, refused) = total.get(&kind).copied().unwrap_or_default();
        println!("{kind:?}: {done} done, {refused} refused");
        assert!(done >= 20, "{kind:?} was accepted {done} times only: {total:?}");
    }
}
