//! The solver's kernels, timed: a placement, a try, a tabu move, a check, a pass of the bound.
//!
//! `cargo bench -p millpool-solver --bench kernels`

#![allow(missing_docs)]

#[path = "../examples/alliance/mod.rs"]
mod alliance;

use divan::{Bencher, black_box};
use millpool_solver::{Cost, Instance, Job, Lines, Options, Solution, bench, place, read_fjs, solve, verify};
use std::sync::LazyLock;
use std::time::Duration;

/// Nine days of 300 machines, of which some 5,500 operations come into the plan.
const DAYS: i64 = 9;
const ASKED: i64 = 60;
const ASKED_AFTER: i64 = 80;

/// A plan that stands, and what is asked for after it.
struct Scene {
    instance: Instance,
    asking: Vec<Job>,
    solution: Solution,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let instance = alliance::alliance(300, 1, DAYS, ASKED);
    let asking = alliance::alliance(300, 1, DAYS, ASKED_AFTER).jobs.split_off(instance.jobs.len());
    let hour = Duration::from_secs(3600);
    let options = Options { iterations: Some(20_000), time_limit: hour, ..Options::default() };
    let solution = solve(&instance, &options, |_| ()).expect("a plan");
    Scene { instance, asking, solution }
});

fn main() {
    println!("300 machines, {} operations in the plan", SCENE.solution.plan.assignments.len());
    divan::main();
}

fn placement(bencher: Bencher, criterion: Cost) {
    let scene = &*SCENE;
    let lines = Lines::from_plan(&scene.instance, &scene.solution.plan).expect("a plan that holds");
    let mut jobs = scene.asking.iter().cycle();
    bencher.bench_local(|| {
        let job = jobs.next().expect("jobs without end");
        place(&scene.instance.shop, &lines, job, black_box(criterion))
    });
}

#[divan::bench]
fn placement_by_charge(bencher: Bencher) {
    placement(bencher, Cost::Charge);
}

#[divan::bench]
fn placement_by_the_plans_cost(bencher: Bencher) {
    placement(bencher, Cost::Plan);
}

#[divan::bench]
fn check_of_the_plan(bencher: Bencher) {
    bencher.bench(|| verify(&SCENE.instance, black_box(&SCENE.solution.plan)));
}

#[divan::bench]
fn try_of_the_search(bencher: Bencher) {
    bencher.bench_local(bench::tries(&SCENE.instance));
}

#[divan::bench(sample_count = 30)]
fn pass_of_the_bound(bencher: Bencher) {
    bencher.bench_local(bench::passes(&SCENE.instance, SCENE.solution.cost));
}

#[divan::bench]
fn tabu_move_mk10(bencher: Bencher) {
    let shop = include_str!("../../benches/solver/fjsp/mk10.fjs");
    let shop = read_fjs("mk10", shop).expect("a shop");
    bencher.bench_local(bench::moves(&shop));
}
