//! The binary `millpool`: hands the process's words, streams, clock and environment to the library.

use jiff::{Timestamp, tz::TimeZone};
use millpool_cli::connection::Environment;
use millpool_cli::written::Clock;
use millpool_cli::{Surroundings, run};
use std::io::{IsTerminal as _, stderr, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let around = Surroundings {
        answers: &mut stdout(),
        notices: &mut stderr(),
        clock: Clock { now: Timestamp::now(), zone: TimeZone::system() },
        environment: Environment::read(),
        terminal: stdout().is_terminal().then(terminal_width),
    };
    ExitCode::from(runtime.block_on(run(words, around)))
}

/// Columns of the terminal that answers go to.
fn terminal_width() -> u16 {
    comfy_table::Table::new().width().unwrap_or(100).max(60)
}
