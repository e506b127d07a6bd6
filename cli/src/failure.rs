//! How a command ends when it does not succeed: what it prints, and its exit code.

use crate::client::{ClientError, ErrorKind};
use crate::output::{Output, Tone};
use std::fmt;
use std::io;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// A coordinator said no, or none could be reached.
    Client(ClientError),
    /// What was typed, or a file that was named, cannot be used.
    Usage(String),
    /// The answer is no, and has been printed.
    Refused,
    /// Nobody knows whether it was done, and that has been printed.
    InDoubt,
    /// An answer could not be written.
    Output(io::Error),
}

/// Exit code of a command that did what it was told.
pub const EXIT_OK: u8 = 0;
/// Exit code of a command that was refused.
pub const EXIT_REFUSED: u8 = 1;
/// Exit code of a command that was not understood; the same as clap's.
pub const EXIT_USAGE: u8 = 2;
/// Exit code where no coordinator could serve, and nothing has happened.
pub const EXIT_UNAVAILABLE: u8 = 3;
/// Exit code where a write may have happened.
pub const EXIT_OUTCOME_UNKNOWN: u8 = 4;

impl Failure {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) => match error.kind {
                ErrorKind::Usage => EXIT_USAGE,
                ErrorKind::Refused => EXIT_REFUSED,
                ErrorKind::Unavailable => EXIT_UNAVAILABLE,
                ErrorKind::OutcomeUnknown => EXIT_OUTCOME_UNKNOWN,
            },
            Self::Usage(_) => EXIT_USAGE,
            Self::Refused => EXIT_REFUSED,
            Self::InDoubt => EXIT_OUTCOME_UNKNOWN,
            Self::Output(_) => EXIT_REFUSED,
        }
    }

    /// Prints it for people, on the stream of notices.
    pub fn print(&self, output: &mut Output) -> io::Result<()> {
        let error = output.paint(Tone::Bad, "error:");
        match self {
            Self::Client(told) => {
                writeln!(output.notices, "{error} {}", headline(told))?;
                let rows = told.rows();
                let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
                for (name, text) in rows {
                    writeln!(output.notices, "  {name:width$}  {text}")?;
                }
                advise(told, output)
            }
            Self::Usage(told) => writeln!(output.notices, "{error} {told}"),
            Self::Refused | Self::InDoubt => Ok(()),
            Self::Output(told) if told.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Self::Output(told) => writeln!(output.notices, "{error} the answer could not be written: {told}"),
        }
    }
}

/// The first line: without the rows that follow it.
fn headline(error: &ClientError) -> String {
    let mut bare = error.clone();
    bare.details.metadata.clear();
    bare.details.fields.clear();
    bare.details.conditions.clear();
    bare.to_string()
}

fn advise(error: &ClientError, output: &mut Output) -> io::Result<()> {
    let id = error.details.request_id.as_deref();
    match (error.kind, id) {
        (ErrorKind::OutcomeUnknown, Some(id)) => writeln!(
            output.notices,
            "Repeat the command with --request-id {id}: it tells what happened, and does nothing twice."
        ),
        (ErrorKind::OutcomeUnknown, None) => {
            writeln!(output.notices, "See 'millpool status' before you repeat it.")
        }
        (ErrorKind::Unavailable, _) => writeln!(
            output.notices,
            "Coordinators are named by --endpoints, MILLPOOL_ENDPOINTS or the configuration file."
        ),
        _ => Ok(()),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Usage(told) => f.write_str(told),
            Self::Refused => f.write_str("refused"),
            Self::InDoubt => f.write_str("it may or may not be done"),
            Self::Output(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<String> for Failure {
    fn from(told: String) -> Self {
        Self::Usage(told)
    }
}
