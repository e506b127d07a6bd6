//! `millpool-demo`: an alliance of 23 members on this machine, from nothing to a checked result.
//!
//! - [`args`]: the command line. [`run`]: the run from start to verdict.
//! - [`market`]: the buyers. [`outage`]: the leader's death. [`observe`]: what optimisation does meanwhile.
//! - [`screen`]: progress. [`report`]: the closing table.

mod args;
mod market;
mod observe;
mod outage;
mod report;
mod run;
mod screen;

use clap::Parser as _;
use std::process::ExitCode;

/// A promise or an invariant broke.
const EXIT_BROKEN: u8 = 1;
/// The demonstration could not be carried out.
const EXIT_FAILED: u8 = 2;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("millpool-demo: starting the runtime: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    match runtime.block_on(run::run(args)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(EXIT_BROKEN),
        Err(error) => {
            eprintln!("millpool-demo: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
