//! Whatever is entered, in whatever order: no rule is broken, no promise worsened without a disturbance,
//! nothing confirmed is lost, a refusal changes nothing, and replicas agree.
//!
//! `MILLPOOL_PROPTEST_CASES` raises the number of sequences.

mod common;

use common::harness::{KINDS, Step, quiet_panics, run};
use proptest::prelude::*;
use proptest::strategy::Union;
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
