//! `millpool-solve`: an instance file in, a checked plan with its bound out.

mod explaining;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use millpool_solver::{Instance, Options, Plan, Progress, Solution, SolveError, read_instance, solve};

const EXIT_CODES: &str = "\
Exit codes: 0 a plan was found and written; 1 a promised job cannot be kept (the jobs are named, \
with promises that clash; nothing is written); 2 the command line is wrong; 3 a file cannot be read, is malformed, or cannot \
be written; 4 the solver failed.";

/// Plans an alliance instance (JSON) or a flexible job shop (.fjs), and proves how good the plan is.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Arguments {
    /// The instance: alliance JSON or flexible job shop text.
    instance: PathBuf,
    /// Wall-clock seconds to spend.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Threads to use.
    #[arg(long, default_value_t = 1, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    threads: usize,
    /// Seed of the search.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop after this many search tries; the result is then the same on every run.
    #[arg(long)]
    iterations: Option<u64>,
    /// A plan to start from; what of it no longer holds is repaired.
    #[arg(long)]
    hint: Option<PathBuf>,
    /// Where the plan goes.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where a Gantt chart of the plan goes, as SVG.
    #[arg(long)]
    gantt: Option<PathBuf>,
    /// Weigh each operation that is moved against the hint with this many fen.
    #[arg(long, default_value_t = 0)]
    stability: i64,
    /// Say of this job, by its id, why it is refused, late or where it is, and what would help. With a hint
    /// that is said of the hint, and nothing is solved.
    #[arg(long, value_name = "JOB")]
    explain: Option<String>,
    /// Run at the lowest scheduling priority.
    #[arg(long)]
    idle: bool,
    /// Print progress to standard error.
    #[arg(long)]
    log: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let time = text.parse().ok().filter(|time| (0.0..=1e9).contains(time));
    time.ok_or_else(|| "accepted: a number of seconds from 0 to 1e9".to_owned())
}

enum Failure {
    Arguments(anyhow::Error),
    Unkeepable(anyhow::Error),
    File(anyhow::Error),
    Solver(anyhow::Error),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = run(&arguments);
    millpool_solver::await_stragglers();
    let (code, error) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Unkeepable(error)) => (1, error),
        Err(Failure::Arguments(error)) => (2, error),
        Err(Failure::File(error)) => (3, error),
        Err(Failure::Solver(error)) => (4, error),
    };
    eprintln!("millpool-solve: {error:#}");
    ExitCode::from(code)
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let instance = load(&arguments.instance).map_err(Failure::File)?;
    let options = options(arguments, &instance).map_err(Failure::File)?;
    let asked = arguments.explain.as_ref().map(|id| explaining::job_named(&instance, id)).transpose();
    let asked = asked.map_err(Failure::Arguments)?;
    let explain = |plan: &Plan| match asked {
        Some(job) => explaining::print(&instance, plan, job).map_err(Failure::File),
        None => Ok(()),
    };
    if let (Some(_), Some(hint)) = (asked, &options.incumbent) {
        return explain(hint);
    }
    let mut log = Log::new(arguments, &instance);
    let solution = match solve(&instance, &options, |p| log.line(p)) {
        Ok(solution) => solution,
        Err(error) => {
            if let SolveError::Unkeepable { plan, .. } = &error {
                explain(plan)?;
            }
            return Err(match error {
                SolveError::Malformed(_) => Failure::File(error.into()),
                SolveError::Unkeepable { .. } => Failure::Unkeepable(error.into()),
                SolveError::Broken(_) => Failure::Solver(error.into()),
            });
        }
    };
    write_out(arguments, &instance, &solution).map_err(Failure::File)?;
    explain(&solution.plan)
}

/// The progress log: a line where the incumbent or the bound moves, at most some a second.
struct Log {
    on: bool,
    last: Option<(Duration, i64, i64)>,
}

impl Log {
    const PAUSE: Duration = Duration::from_millis(200);

    fn new(arguments: &Arguments, instance: &Instance) -> Log {
        if arguments.log {
            let ops: usize = instance.jobs.iter().map(|job| job.ops.len()).sum();
            let (machines, jobs) = (instance.shop.machines.len(), instance.jobs.len());
            eprintln!("{}: {machines} machines, {jobs} jobs, {ops} operations", instance.name);
            eprintln!(
                "{:>8} {:>16} {:>16} {:>8} {:>11}  found by",
                "time", "incumbent", "bound", "gap", "tries"
            );
        }
        Log { on: arguments.log, last: None }
    }

    fn line(&mut self, p: Progress) {
        let stands = |&(at, cost, bound): &(Duration, i64, i64)| {
            (cost, bound) == (p.cost, p.bound) || p.elapsed.saturating_sub(at) < Log::PAUSE
        };
        if !self.on || self.last.as_ref().is_some_and(stands) {
            return;
        }
        self.last = Some((p.elapsed, p.cost, p.bound));
        let gap = 100.0 * (p.cost - p.bound) as f64 / p.cost.max(1) as f64;
        let seconds = p.elapsed.as_secs_f64();
        let (cost, bound, tries) = (p.cost, p.bound, p.iterations);
        eprintln!("{seconds:>7.1}s {cost:>16} {bound:>16} {gap:>7.2}% {tries:>11}  {}", p.found_by);
    }
}

fn load(path: &Path) -> anyhow::Result<Instance> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or("instance");
    read_instance(name, &text).with_context(|| format!("{} is malformed", path.display()))
}

fn options(arguments: &Arguments, instance: &Instance) -> anyhow::Result<Options> {
    let incumbent = match &arguments.hint {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let plan = Plan::read_json(instance, &text);
            Some(plan.with_context(|| format!("{} is no plan for {}", path.display(), instance.name))?)
        }
        None => None,
    };
    Ok(Options {
        time_limit: Duration::from_secs_f64(arguments.seconds),
        iterations: arguments.iterations,
        threads: arguments.threads,
        seed: arguments.seed,
        incumbent,
        stability: arguments.stability.clamp(0, millpool_solver::FEN_MAX >> 20),
        idle_priority: arguments.idle,
        ..Options::default()
    })
}

fn write_out(arguments: &Arguments, instance: &Instance, solution: &Solution) -> anyhow::Result<()> {
    if let Some(path) = &arguments.out {
        let text = solution.plan.write_json(instance);
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &arguments.gantt {
        let picture = millpool_solver::gantt(instance, &solution.plan);
        std::fs::write(path, picture).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let line = serde_json::json!({
        "instance": instance.name,
        "objective": solution.cost,
        "bound": solution.bound,
        "gap": (solution.gap() * 1e5).round() / 1e5,
        "seconds": (solution.elapsed.as_secs_f64() * 1e3).round() / 1e3,
        "found_by": solution.found_by,
        "iterations": solution.iterations,
        "accepted": solution.priced.accepted,
        "rejected": solution.plan.rejected.len(),
        "late": solution.priced.late,
    });
    writeln!(std::io::stdout(), "{line}").context("cannot write to standard output")
}
