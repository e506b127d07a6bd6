//! The `millpool` command and the client library that it stands on.
//!
//! Entry points: [`run`] is the whole command, with its streams, clock and environment as parameters,
//! so that tests run it in-process; [`client::Client`] is for programs.
//!
//! - [`client`]: the coordinators' public API for Rust programs: retries, failover, watches, errors.
//! - [`args`]: the command line; [`connection`]: which cluster and as whom.
//! - [`commands`]: one file a command, or a few that tell one story.
//! - [`order`]: an order from flags or a file.
//! - [`written`] and [`shown`]: how people write and read quantities and times.
//! - [`json`]: the contract's messages as JSON and TOML.
//! - [`gantt`]: the plan drawn as SVG; [`spent`]: what machines did with their time; [`drawing`]: what both draw with.
//! - [`output`]: tables, sentences, JSON, colour; [`failure`]: errors and exit codes.
//!
//! **Invariant:** nothing here knows the solver, the replicated state or any other crate than the
//! contract: what the command can do, any client can.

pub mod args;
pub mod client;
pub mod commands;
pub mod connection;
pub mod drawing;
pub mod failure;
pub mod gantt;
pub mod json;
pub mod order;
pub mod output;
pub mod shown;
pub mod spent;
pub mod written;

use args::{Cli, Command};
use clap::{CommandFactory as _, Parser as _};
use commands::Desk;
use connection::Environment;
use failure::{EXIT_OK, EXIT_USAGE, Failure};
use futures::future::LocalBoxFuture;
use jiff::tz::TimeZone;
use output::Output;
use std::io::Write;
use written::Clock;

/// What surrounds a run of the command.
pub struct Surroundings<'a> {
    /// Answers.
    pub answers: &'a mut (dyn Write + Send),
    /// Notices and errors.
    pub notices: &'a mut (dyn Write + Send),
    /// Now and here.
    pub clock: Clock,
    /// What the environment says.
    pub environment: Environment,
    /// Columns of the terminal, where answers go to one.
    pub terminal: Option<u16>,
}

/// Runs the command with these words, the first being its name, and answers with its exit code.
pub fn run(words: Vec<String>, around: Surroundings<'_>) -> LocalBoxFuture<'_, u8> {
    Box::pin(async move {
        let cli = match Cli::try_parse_from(&words) {
            Ok(cli) => cli,
            Err(told) => return print_told(&told, around),
        };
        let (display, mut clock) = (cli.display, around.clock);
        if display.utc {
            clock.zone = TimeZone::UTC;
        }
        let colour = match display.color {
            args::Colour::Always => true,
            args::Colour::Never => false,
            args::Colour::Auto => around.terminal.is_some() && std::env::var_os("NO_COLOR").is_none(),
        };
        let mut desk = Desk {
            connection: cli.connection,
            environment: around.environment,
            output: Output {
                answers: around.answers,
                notices: around.notices,
                json: display.json,
                colour,
                width: around.terminal,
                clock,
            },
            invocation: words,
        };
        let ended = dispatch(&cli.command, &mut desk).await;
        let ended = ended.and_then(|()| desk.output.answers.flush().map_err(Failure::Output));
        match ended {
            Ok(()) => EXIT_OK,
            Err(failure) => {
                // Where notices cannot be written either, the exit code has to do.
                let _unwritten = failure.print(&mut desk.output);
                failure.exit_code()
            }
        }
    })
}

/// Help, the version, or what was wrong with the command line.
fn print_told(told: &clap::Error, around: Surroundings<'_>) -> u8 {
    let text = told.render();
    let styled = around.terminal.is_some();
    let shown = if styled { text.ansi().to_string() } else { text.to_string() };
    let stream = if told.use_stderr() { around.notices } else { around.answers };
    // Where it cannot be written, the exit code has to do.
    let _unwritten = stream.write_all(shown.as_bytes());
    if told.use_stderr() { EXIT_USAGE } else { EXIT_OK }
}

async fn dispatch(command: &Command, desk: &mut Desk<'_>) -> Result<(), Failure> {
    match command {
        Command::Quote(args) => commands::quote::run(args, desk).await,
        Command::Book(args) => commands::booking::book(args, desk).await,
        Command::Confirm(args) => commands::booking::confirm(args, desk).await,
        Command::Show(args) => commands::booking::show(args, desk).await,
        Command::List(args) => commands::booking::list(args, desk).await,
        Command::Cancel(args) => commands::booking::cancel(args, desk).await,
        Command::Explain(args) => commands::explain::run(args, desk).await,
        Command::Remote(command) => commands::remote::run(command, desk).await,
        Command::Watch(args) => commands::watch::run(args, desk).await,
        Command::Plan(args) => commands::plan::run(args, desk).await,
        Command::Kpi(args) => commands::kpi::run(args, desk).await,
        Command::Members(command) => commands::members::members(command, desk).await,
        Command::Plants(command) => commands::members::plants(command, desk).await,
        Command::Machines(command) => commands::machines::run(command, desk).await,
        Command::Offers(command) => commands::offers::run(command, desk).await,
        Command::Status(_) => commands::status::run(desk).await,
        Command::Nodes(command) => commands::operate::nodes(command, desk).await,
        Command::Backup(args) => commands::backup::run(args, desk).await,
        Command::Restore { file } => Err(commands::backup::elsewhere(file.as_deref())),
        Command::Principals(command) => commands::operate::principals(command, desk).await,
        Command::Policy(command) => commands::operate::policy(command, desk).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "millpool", &mut script);
            Ok(desk.output.answers.write_all(&script)?)
        }
    }
}
