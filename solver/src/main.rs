//! `millpool-solve`: an instance file in, a checked plan with its bound out.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use millpool_solver::{Instance, Options, Plan, Progress, Solution, SolveError, read_instance, solve};

const EXIT_CODES: &str = "\
Exit codes: 0 a plan was found and written; 1 a promised job cannot be kept (the jobs are named, \
nothing is written); 2 the command line is wrong; 3 a file cannot be read, is malformed, or cannot \
be written; 4 the solver failed.";

/// Plans an alliance instance (JSON) or a flexible job shop (.fjs), and proves how good the plan is.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Arguments {
    /// The instance: alliance JSON or flexible job shop text.
    instance: PathBuf,
    /// Wall-clock seconds to spend.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Threads to use.
    #[arg(long, default_value_t = 1)]
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
    /// Print progress to standard error.
    #[arg(long)]
    log: bool,
}

enum Failure {
    Unkeepable(anyhow::Error),
    File(anyhow::Error),
    Solver(anyhow::Error),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (code, error) = match run(&arguments) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Unkeepable(error)) => (1, error),
        Err(Failure::File(error)) => (3, error),
        Err(Failure::Solver(error)) => (4, error),
    };
    eprintln!("millpool-solve: {error:#}");
    ExitCode::from(code)
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let instance = load(&arguments.instance).map_err(Failure::File)?;
    let options = options(arguments, &instance).map_err(Failure::File)?;
    let log = |p: Progress| {
        if arguments.log {
            eprintln!("{:8.2}  {:>16} {:>16}  {}", p.elapsed.as_secs_f64(), p.cost, p.bound, p.found_by);
        }
    };
    let solution = solve(&instance, &options, log).map_err(|error| match error {
        SolveError::Malformed(_) => Failure::File(error.into()),
        SolveError::Unkeepable { .. } => Failure::Unkeepable(error.into()),
        SolveError::Broken(_) => Failure::Solver(error.into()),
    })?;
    write_out(arguments, &instance, &solution).map_err(Failure::File)
}

fn load(path: &Path) -> anyhow::Result<Instance> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or("instance");
    read_instance(name, &text).with_context(|| format!("{} is malformed", path.display()))
}

fn options(arguments: &Arguments, instance: &Instance) -> anyhow::Result<Options> {
    if !arguments.seconds.is_finite() || !(0.0..=1e9).contains(&arguments.seconds) {
        bail!("--seconds {} is not a time to wait for", arguments.seconds);
    }
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
        threads: arguments.threads.max(1),
        seed: arguments.seed,
        incumbent,
        ..Options::default()
    })
}

fn write_out(arguments: &Arguments, instance: &Instance, solution: &Solution) -> anyhow::Result<()> {
    if let Some(path) = &arguments.out {
        let text = solution.plan.write_json(instance);
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
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
