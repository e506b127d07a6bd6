//! `millpool-sim`: whole clusters with their clients in one process, on simulated time, network and disks.
//!
//! - [`world`]: what all hosts share; [`node`]: a coordinator and [`plant`]: a plant's agent, both the shipped code;
//!   [`network`]: their sockets;
//! - [`buyer`] and [`operator`]: what clients do, written down in [`history`];
//! - [`storm`]: what breaks; [`run`]: one simulation from its seed; [`check`]: what must hold in the end;
//! - [`many`]: one seed after another; [`bug`]: known bugs, to see them found.
//!
//! A seed gives the same run on every machine that is not starved (docs/guarantees.md). Each has a process of its own.

mod bug;
mod buyer;
mod check;
mod history;
mod many;
mod network;
mod node;
mod operator;
mod plant;
mod run;
mod storm;
mod world;

use bug::Bug;
use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;

/// One of many seeds that takes longer, on the wall, has come to hang.
const SEED_MAX: Duration = Duration::from_secs(120);
/// Simulates clusters under faults, one from each seed, and checks every answer against the log.
///
/// Exit codes: 0 all is well (with --bug: it was found), 1 a seed failed (with --bug: it was not found), 2 usage,
/// 3 a seed did not end.
#[derive(Parser)]
#[command(name = "millpool-sim", version)]
struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// One seed alone, with the tale of what happens
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Says nothing but the outcome, and, of many, which seeds fail and why
    #[arg(long)]
    quiet: bool,
    /// A defect to plant, which a seed must find
    #[arg(long, value_enum)]
    bug: Option<Bug>,
    /// Simulations at once
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    at_once: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None => many::run(&arguments),
    }
}

/// One seed, here.
fn one(seed: u64, arguments: &Arguments) -> ExitCode {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("MILLPOOL_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    if arguments.quiet {
        std::thread::spawn(move || {
            std::thread::sleep(SEED_MAX);
            eprintln!("seed {seed} has not ended after {} s", SEED_MAX.as_secs());
            std::process::exit(3);
        });
    }
    match run::run(seed, arguments.bug, !arguments.quiet) {
        Ok(run::Summary { calls, done, revision, hash, events, silences }) => {
            println!(
                "seed {seed}: {done} of {calls} calls done, {events} events, {silences} silences, revision {revision}, state {hash:016x}"
            );
            ExitCode::SUCCESS
        }
        Err((wrong, world)) => {
            println!("seed {seed} fails:");
            wrong.iter().for_each(|what| println!("  {what}"));
            if arguments.quiet {
                println!("what happened before:");
                let world = world.borrow();
                for (at, what) in world.tale.iter().rev().take(12).rev() {
                    println!("  {:9.3} s  {what}", at.as_secs_f64());
                }
            }
            ExitCode::FAILURE
        }
    }
}
