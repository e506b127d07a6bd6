//! `millpool-solve`: an instance file in, a checked plan with its bound out.

mod command;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use command::csv;
use command::explain;
use command::hint::Hint;
use command::log::Log;
use millpool_solver::{Instance, Objective, Options, Part, Plan, Solution, SolveError, read_instance, solve};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

const AFTER_HELP: &str = "\
Ctrl-C (or SIGTERM) ends the search early: the best plan so far is written. A second one ends the command at once.

Standard output ends with one line of JSON (before it stand the explanation that is asked for and what machine time is worth): instance, status (optimal, time limit, iteration limit, cancelled), \
objective, bound, gap, seconds, found_by, iterations, accepted, rejected, late. Everything said on the way goes to \
standard error: the log where it is asked for, a bar where that is a terminal.

Exit codes:
  0  a plan was found and written
  1  a promised job cannot be kept: the jobs are named, with promises that clash; nothing is written
  2  the command line is wrong
  3  a file cannot be read, is malformed, or cannot be written
  4  the solver failed
  5  cancelled by a signal: the best plan so far is written, if every promised job had its place by then";
/// As a shell has it for a command that SIGINT has ended.
const KILLED: i32 = 130;

/// Plans an alliance instance (JSON) or a flexible job shop (.fjs), and proves how good the plan is.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    /// The instance: an alliance as JSON, or a flexible job shop in its text format (.fjs), whose makespan is then
    /// made short.
    instance: PathBuf,
    /// Wall-clock seconds to spend; where they are too few for a first plan, jobs are left out of it.
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
    /// A plan to start from, as --out writes it. What of it does not hold is named and repaired.
    #[arg(long)]
    hint: Option<PathBuf>,
    /// Where the plan goes, as JSON.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where a Gantt chart of the plan goes, as SVG.
    #[arg(long)]
    gantt: Option<PathBuf>,
    /// Where the plan goes as a table (CSV), a row an operation.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// What to minimise instead of what the instance says: measures with their weights, as in
    /// `makespan=10,late=500`. Measures: cost, tardiness and rejection in fen, makespan and setup in ticks, late in
    /// jobs, carbon in grams. What is not named does not count, but for rejections, which weigh 1.
    #[arg(long, value_name = "NAME=WEIGHT,...")]
    objective: Option<Objective>,
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
    /// Do without a part of the solver, to see what it is good for.
    #[arg(long, value_name = "PART", value_parser = part)]
    without: Option<Part>,
    /// Print a log to standard error: a line where a better plan or bound is found, and a summary.
    #[arg(long)]
    log: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let time = text.parse().ok().filter(|time| (0.0..=1e9).contains(time));
    time.ok_or_else(|| "accepted: a number of seconds from 0 to 1e9".to_owned())
}

fn part(text: &str) -> Result<Part, String> {
    match text {
        "search" => Ok(Part::Search),
        "master" => Ok(Part::Master),
        _ => Err("accepted: search, master".to_owned()),
    }
}

enum Failure {
    Arguments(anyhow::Error),
    Unkeepable(anyhow::Error),
    File(anyhow::Error),
    Solver(anyhow::Error),
    Cancelled(anyhow::Error),
}

impl Failure {
    fn told(self) -> (u8, anyhow::Error) {
        match self {
            Failure::Unkeepable(error) => (1, error),
            Failure::Arguments(error) => (2, error),
            Failure::File(error) => (3, error),
            Failure::Solver(error) => (4, error),
            Failure::Cancelled(error) => (5, error),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let cancel = Arc::default();
    let code = match listen(&cancel).and_then(|()| run(&arguments, &cancel)) {
        Ok(()) if cancel.load(Ordering::Relaxed) => 5,
        Ok(()) => 0,
        Err(failure) => {
            let (code, error) = failure.told();
            eprintln!("millpool-solve: {error:#}");
            code
        }
    };
    // HiGHS cannot be interrupted, and crashes where the process cleans up under its feet. Nobody waits for what it
    // still does, so the process ends without cleaning up: all files are closed, and standard output is flushed.
    low_level::exit(i32::from(code))
}

/// The first signal asks the solver to end, the next ends the process.
fn listen(cancel: &Arc<AtomicBool>) -> Result<(), Failure> {
    let listen = |signal| {
        flag::register_conditional_shutdown(signal, KILLED, cancel.clone())?;
        flag::register(signal, cancel.clone())
    };
    let heard = [SIGINT, SIGTERM].into_iter().try_for_each(|signal| listen(signal).map(|_| ()));
    heard.context("cannot listen for signals").map_err(Failure::Solver)
}

fn run(arguments: &Arguments, cancel: &Arc<AtomicBool>) -> Result<(), Failure> {
    let mut instance = load(&arguments.instance).map_err(Failure::File)?;
    instance.objective = arguments.objective.unwrap_or(instance.objective);
    let options = Options { cancel: cancel.clone(), ..options(arguments, &instance).map_err(Failure::File)? };
    let asked = arguments.explain.as_ref().map(|id| explain::job_named(&instance, id)).transpose();
    let asked = asked.map_err(Failure::Arguments)?;
    let explained = |plan: &Plan| match asked {
        Some(job) => explain::print(&instance, plan, job).map_err(Failure::File),
        None => Ok(()),
    };
    if let (Some(_), Some(hint)) = (asked, &options.incumbent) {
        return explained(hint);
    }
    let mut log = Log::new(arguments.log, options.time_limit);
    log.head(&instance, &options);
    let mut hint = options.incumbent.as_ref().map(|plan| Hint::new(&instance, plan));
    hint.iter().flat_map(Hint::faults).for_each(|line| log.say(&line));
    let solved = solve(&instance, &options, |p| {
        hint.as_mut().and_then(|hint| hint.start(&p)).into_iter().for_each(|line| log.say(&line));
        log.progress(&p);
    });
    log.end();
    if let Err(SolveError::Unkeepable { plan, .. }) = &solved {
        explained(plan)?;
    }
    let solution = solved.map_err(|error| match error {
        SolveError::Malformed(_) => Failure::File(error.into()),
        SolveError::Unkeepable { .. } => Failure::Unkeepable(error.into()),
        SolveError::Cancelled { .. } => Failure::Cancelled(error.into()),
        SolveError::Broken(_) => Failure::Solver(error.into()),
    })?;
    let status = status(&options, &solution);
    log.summary(&instance, &options, &solution, status);
    explained(&solution.plan)?;
    if let Some(job) = asked {
        explain::print_prices(&instance, &solution.prices, job).map_err(Failure::File)?;
    }
    write_out(arguments, &instance, &solution, status).map_err(Failure::File)
}

/// Why the search ended.
fn status(options: &Options, solution: &Solution) -> &'static str {
    if solution.bound == solution.cost {
        "optimal"
    } else if options.cancel.load(Ordering::Relaxed) {
        "cancelled"
    } else if options.iterations.is_some_and(|tries| solution.iterations >= tries) {
        "iteration limit"
    } else {
        "time limit"
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
        without: arguments.without,
        ..Options::default()
    })
}

fn write_out(
    arguments: &Arguments,
    instance: &Instance,
    solution: &Solution,
    status: &str,
) -> anyhow::Result<()> {
    let write = |path: &Option<PathBuf>, text: &dyn Fn() -> String| match path {
        Some(path) => {
            std::fs::write(path, text()).with_context(|| format!("cannot write {}", path.display()))
        }
        None => Ok(()),
    };
    let plan = &solution.plan;
    write(&arguments.out, &|| plan.write_json(instance))?;
    write(&arguments.csv, &|| csv::write(instance, plan))?;
    write(&arguments.gantt, &|| millpool_solver::gantt(instance, plan))?;
    let line = serde_json::json!({
        "instance": instance.name,
        "status": status,
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
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot write to standard output")
}
