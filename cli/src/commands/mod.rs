//! The commands, one file a story: its flags, what it asks of the coordinators, and how it shows the
//! answer.

pub mod backup;
pub mod booking;
pub mod explain;
pub mod kpi;
pub mod machines;
pub mod members;
pub mod offers;
pub mod operate;
pub mod pages;
pub mod plan;
pub mod put;
pub mod quote;
pub mod remote;
pub mod status;
pub mod watch;

use crate::client::Client;
use crate::connection::{ConnectionArgs, Environment};
use crate::failure::Failure;
use crate::json;
use crate::output::Output;
use prost::Message;
use serde_json::Value;
use std::path::Path;

/// Most items that are asked for at a time; the contract's limit.
pub const LIST_PAGE: u32 = 1000;

/// What a command works at: the way to the coordinators, and where its answers go.
pub struct Desk<'a> {
    /// Which cluster, as whom.
    pub connection: ConnectionArgs,
    /// What the environment says besides.
    pub environment: Environment,
    /// Where answers go.
    pub output: Output<'a>,
    /// The words that were typed.
    pub invocation: Vec<String>,
}

impl Desk<'_> {
    /// A client, not yet connected.
    pub fn client(&self) -> Result<Client, Failure> {
        self.connection.client(&self.environment)
    }
}

/// Puts a drawing into the file that `--svg` names, and says so; '-' is standard output.
fn save(path: &Path, drawn: &str, what: &str, output: &mut Output) -> Result<(), Failure> {
    if path.as_os_str() == "-" {
        return Ok(output.answers.write_all(drawn.as_bytes())?);
    }
    std::fs::write(path, drawn).map_err(|error| format!("--svg {}: {error}", path.display()))?;
    Ok(output.line(format!("{}: {what}", path.display()))?)
}

/// A message as JSON. `name` is its name in the contract.
fn json_of<M: Message>(name: &str, message: &M) -> Result<Value, Failure> {
    Ok(json::show(name, message)?)
}
