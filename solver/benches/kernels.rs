//! The solver's kernels, timed: a placement, a try, a tabu move, a check, a pass of the bound.
//!
//! `cargo bench -p millpool-solver --bench kernels`

#![allow(missing_docs)]

#[path = "../examples/alliance/mod.rs"]
mod alliance;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use millpool_solver::{Cost, Lines, Options, bench, place, read_fjs, solve, verify};

/// Nine days of 300 machines, of which some 5,500 operations come into the plan.
const DAYS: i64 = 9;
const ASKED: i64 = 60;
const ASKED_AFTER: i64 = 80;

fn kernels(c: &mut Criterion) {
    let instance = alliance::alliance(300, 1, DAYS, ASKED);
    let asking = alliance::alliance(300, 1, DAYS, ASKED_AFTER).jobs.split_off(instance.jobs.len());
    let hour = Duration::from_secs(3600);
    let options = Options { iterations: Some(20_000), time_limit: hour, ..Options::default() };
    let solution = solve(&instance, &options, |_| ()).expect("a plan");
    let lines = Lines::from_plan(&instance, &solution.plan).expect("a plan that holds");
    let stands = format!("300 machines, {} operations", solution.plan.assignments.len());
    for (name, criterion) in
        [("placement by charge", Cost::Charge), ("placement by the plan's cost", Cost::Plan)]
    {
        let mut jobs = asking.iter().cycle();
        c.bench_function(&format!("{name}, {stands}"), |b| {
            b.iter(|| place(&instance.shop, &lines, jobs.next().unwrap_or(&asking[0]), black_box(criterion)));
        });
    }
    c.bench_function(&format!("verify, {stands}"), |b| {
        b.iter(|| verify(&instance, black_box(&solution.plan)))
    });
    c.bench_function("try, 300 machines", |b| b.iter(bench::tries(&instance)));
    c.bench_function("bound pass, 300 machines", |b| b.iter(bench::passes(&instance, solution.cost)));
    let shop = include_str!("../../benches/solver/fjsp/mk10.fjs");
    let shop = read_fjs("mk10", shop).expect("a shop");
    c.bench_function("tabu move, mk10", |b| b.iter(bench::moves(&shop)));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(4));
    targets = kernels
}
criterion_main!(benches);
