//! Measures the solver against its marks, and prints Markdown tables: what a quote takes, how soon a plan is repaired,
//! and whether time limit, cancel and memory are kept to from 12 to 3,000 machines.
//!
//! `cargo run --release -p millpool-solver --example marks -- quotes repair scale cancel`

mod alliance;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use alliance::alliance;
use clap::{Parser, ValueEnum};
use millpool_solver::{
    Calendar, Cost, Instance, Lines, Options, Plan, Solution, SolveError, Tick, await_stragglers, place,
    solve,
};

const DAY: Tick = 1440;
const WEEK: i64 = 7;
/// Work asked for, in percent of the open time, as the drawn alliances have it.
const ASKED: i64 = 60;
/// Quotes are asked for on a plan of two weeks, by the jobs that follow when more is asked for.
const ASKED_AFTER: i64 = 100;
/// What a moved operation weighs in a repair.
const STABILITY: i64 = 1_000_000;
/// Machines that fail one after the other, each for the day on which most stands on it.
const FAILURES: usize = 10;

/// Measures the solver against its marks.
#[derive(Parser)]
struct Arguments {
    /// What to measure; everything if nothing is named.
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Sizes of the alliances for `scale` and `cancel`.
    #[arg(long, value_delimiter = ',', default_value = "12,60,300,3000")]
    machines: Vec<usize>,
    /// Time limits for `scale`, in seconds.
    #[arg(long, value_delimiter = ',', default_value = "5,20")]
    seconds: Vec<f64>,
    /// Seconds for the plans that quotes and repairs begin with.
    #[arg(long, default_value_t = 20.0)]
    prepare: f64,
    /// Threads of the solver.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    Quotes,
    Repair,
    Scale,
    Cancel,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let asked = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    if asked(Part::Quotes) {
        quotes(&arguments)?;
    }
    if asked(Part::Repair) {
        repair(&arguments)?;
    }
    // Small ones first: the process's peak memory is then each one's own.
    if asked(Part::Scale) {
        scale(&arguments)?;
    }
    if asked(Part::Cancel) {
        cancel(&arguments)?;
    }
    Ok(())
}

fn options(arguments: &Arguments, seconds: f64) -> Options {
    let time_limit = Duration::from_secs_f64(seconds);
    Options { time_limit, threads: arguments.threads, ..Options::default() }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value below which a share of the sorted times lies.
fn quantile(sorted: &[Duration], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((share * last).round() as usize).map_or(0.0, |&time| millis(time))
}

/// One job after another asks what is possible on a full plan, which stays as it is.
fn quotes(arguments: &Arguments) -> anyhow::Result<()> {
    let instance = alliance(300, 1, 2 * WEEK, ASKED);
    let asking = alliance(300, 1, 2 * WEEK, ASKED_AFTER).jobs.split_off(instance.jobs.len());
    let solution = solve(&instance, &options(arguments, arguments.prepare), |_| ())?;
    let lines = Lines::from_plan(&instance, &solution.plan)?;
    let mut times = Vec::new();
    let (mut answered, mut placements) = (0, 0);
    for job in &asking {
        let began = Instant::now();
        let found = place(&instance.shop, &lines, job, Cost::Charge);
        times.push(began.elapsed());
        answered += usize::from(!found.is_empty());
        placements += found.len();
    }
    times.sort_unstable();
    println!(
        "| machines | operations in the plan | quotes | p50 | p99 | most | with a place | placements each |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    println!(
        "| 300 | {} | {} | {:.2} ms | {:.2} ms | {:.2} ms | {answered} | {:.1} |\n",
        solution.plan.assignments.len(),
        times.len(),
        quantile(&times, 0.5),
        quantile(&times, 0.99),
        quantile(&times, 1.0),
        placements as f64 / answered.max(1) as f64
    );
    Ok(())
}

/// A machine fails for the day on which most stands on it; all that is planned is promised.
fn repair(arguments: &Arguments) -> anyhow::Result<()> {
    let mut instance = alliance(300, 1, WEEK, ASKED);
    let plan = solve(&instance, &options(arguments, arguments.prepare), |_| ())?.plan;
    for j in (0..instance.jobs.len()).filter(|j| plan.rejected.binary_search(j).is_err()) {
        instance.jobs[j].rejection_cost = None;
    }
    println!(
        "| failed machine, day | displaced | all kept that can be after | moved | lost | from scratch: lost | moved |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (machine, day) in busiest(&plan).into_iter().take(FAILURES) {
        let mut failed = instance.clone();
        close(&mut failed, machine, day)?;
        let hit = |a: &&millpool_solver::Assignment| {
            a.machine == machine && a.start < (day + 1) * DAY && a.end > day * DAY
        };
        let displaced = plan.assignments.iter().filter(hit).count();
        let kept = Options { incumbent: Some(plan.clone()), stability: STABILITY, ..options(arguments, 5.0) };
        let mut met: Vec<(usize, Duration)> = Vec::new();
        let repaired = solve(&failed, &kept, |p| {
            if met.last().is_none_or(|last| p.missing < last.0) {
                met.push((p.missing, p.elapsed));
            }
        });
        let (lost, moved) = lost_and_moved(&plan, repaired)?;
        let (afresh, afresh_moved) = lost_and_moved(&plan, solve(&failed, &options(arguments, 5.0), |_| ()))?;
        println!(
            "| {}, {day} | {displaced} | {:.0} ms | {moved} | {lost} | {afresh} | {afresh_moved} |",
            failed.shop.machines[machine].id,
            met.last().map_or(0.0, |last| millis(last.1)),
        );
    }
    println!();
    Ok(())
}

/// Machines and days, those first on which most stands.
fn busiest(plan: &Plan) -> Vec<(usize, Tick)> {
    let mut counts = std::collections::BTreeMap::new();
    for a in &plan.assignments {
        *counts.entry((a.machine, a.start / DAY)).or_insert(0) += 1;
    }
    let mut days: Vec<((usize, Tick), i32)> = counts.into_iter().collect();
    days.sort_by_key(|day| -day.1);
    let mut seen = std::collections::BTreeSet::new();
    days.into_iter().map(|day| day.0).filter(|day| seen.insert(day.0)).collect()
}

fn close(instance: &mut Instance, machine: usize, day: Tick) -> anyhow::Result<()> {
    let (from, until) = (day * DAY, (day + 1) * DAY);
    let calendar = &mut instance.shop.machines[machine].calendar;
    let left = calendar.windows().iter().flat_map(|w| [(w.0, w.1.min(from)), (w.0.max(until), w.1)]);
    *calendar = Calendar::new(left.filter(|w| w.0 < w.1).collect()).map_err(anyhow::Error::msg)?;
    Ok(())
}

/// Promised jobs that a solve has left out, and operations that it has put elsewhere.
fn lost_and_moved(before: &Plan, after: Result<Solution, SolveError>) -> anyhow::Result<(usize, usize)> {
    let (lost, plan) = match after {
        Ok(solution) => (0, solution.plan),
        Err(SolveError::Unkeepable { jobs, plan, .. }) => (jobs.len(), *plan),
        Err(other) => return Err(other.into()),
    };
    let stays: std::collections::BTreeSet<_> =
        plan.assignments.into_iter().map(|a| (a.job, a.op, a.machine, a.start)).collect();
    let moved = before.assignments.iter().filter(|a| !stays.contains(&(a.job, a.op, a.machine, a.start)));
    Ok((lost, moved.count()))
}

/// Whether limits hold, at every size.
fn scale(arguments: &Arguments) -> anyhow::Result<()> {
    println!(
        "| machines | operations | limit | took | over | first plan after | cost | gap | tries/s | peak memory |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for &machines in &arguments.machines {
        let instance = alliance(machines, 1, WEEK, ASKED);
        let operations: usize = instance.jobs.iter().map(|job| job.ops.len()).sum();
        for &seconds in &arguments.seconds {
            let mut first = None;
            let began = Instant::now();
            let solution = solve(&instance, &options(arguments, seconds), |p| {
                first.get_or_insert(p.elapsed);
            })?;
            let took = began.elapsed().as_secs_f64();
            println!(
                "| {machines} | {operations} | {seconds} s | {took:.3} s | {:+.1} % | {:.0} ms | {:.2} M | {:.1} % | {:.0} | {} |",
                100.0 * (took / seconds - 1.0),
                millis(first.unwrap_or_default()),
                solution.cost as f64 / 1e6,
                100.0 * solution.gap(),
                solution.iterations as f64 / took,
                peak_memory(),
            );
            await_stragglers();
        }
    }
    println!();
    Ok(())
}

/// The most memory that this process has had, where the kernel tells.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: Option<u64> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kilobytes.map_or("-".to_owned(), |k| format!("{} MB", k / 1000))
}

/// How soon a solve returns once it is cancelled, at moments from its first to its last.
fn cancel(arguments: &Arguments) -> anyhow::Result<()> {
    println!("| machines | limit | cancelled | returned after, median | most | where |");
    println!("|---|---|---|---|---|---|");
    for &machines in &arguments.machines {
        let instance = alliance(machines, 1, WEEK, ASKED);
        let limit = 4.0;
        // While the first plan is made, then at any time up to the end.
        let early = (0..10).map(|i| 0.04 * f64::from(i));
        let moments: Vec<f64> = early.chain((1..=10).map(|i| 0.395 * f64::from(i))).collect();
        let mut waits: Vec<(Duration, f64)> = Vec::new();
        for &moment in &moments {
            let options = options(arguments, limit);
            let flag = options.cancel.clone();
            let setter = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs_f64(moment));
                let now = Instant::now();
                flag.store(true, Ordering::Relaxed);
                now
            });
            let _ = solve(&instance, &options, |_| ())?;
            let returned = Instant::now();
            let set = setter.join().map_err(|_| anyhow::anyhow!("the cancelling thread failed"))?;
            waits.push((returned.saturating_duration_since(set), moment));
            await_stragglers();
        }
        waits.sort_by_key(|wait| wait.0);
        let times: Vec<Duration> = waits.iter().map(|wait| wait.0).collect();
        println!(
            "| {machines} | {limit} s | {} times | {:.1} ms | {:.1} ms | {:.2} s |",
            times.len(),
            quantile(&times, 0.5),
            quantile(&times, 1.0),
            waits.last().map_or(0.0, |wait| wait.1),
        );
    }
    println!();
    Ok(())
}
