//! What creating and changing things have in common: a file or flags, the revision that the caller has
//! seen, and the request id.
//!
//! Flags change what is there and create what is not. A file is the whole of it: it creates, unless it
//! carries the revision that it replaces.

use super::Desk;
use crate::failure::Failure;
use crate::json;
use clap::Args;
use prost::Message;
use std::path::{Path, PathBuf};

/// Flags of every put.
#[derive(Args, Clone, Debug)]
pub struct PutArgs {
    /// The whole of it as a JSON or TOML file, with the contract's field names ('-' reads JSON from
    /// standard input)
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Replace only this revision [default: the file's, or the one that the flags changed]
    #[arg(long, value_name = "N")]
    pub expected_revision: Option<u64>,
    /// Request id of an earlier try whose outcome is unknown
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

impl PutArgs {
    /// The request id that was named; empty for a fresh one.
    pub fn request_id(&self) -> String {
        self.request_id.clone().unwrap_or_default()
    }

    /// The revision that shall be replaced.
    pub fn expected(&self, seen: u64) -> u64 {
        self.expected_revision.unwrap_or(seen)
    }
}

/// A message of the contract from a file.
pub fn from_file<M: Message + Default>(name: &str, path: &Path, desk: &Desk) -> Result<M, Failure> {
    json::read(name, json::file(path)?, &desk.output.clock)
        .map_err(|told| Failure::Usage(format!("--file {}: {told}", path.display())))
}

/// Sets what a flag says.
pub fn set<T>(to: &mut T, from: &Option<impl Clone + Into<T>>) {
    if let Some(from) = from {
        *to = from.clone().into();
    }
}

/// Sets what a repeated flag says.
pub fn set_all<T: Clone>(to: &mut Vec<T>, from: &[T]) {
    if !from.is_empty() {
        *to = from.to_vec();
    }
}

/// Checks that something new got all that it needs.
pub fn lacks(what: &str, id: &str, flags: &[(&str, bool)]) -> Result<(), Failure> {
    let missing: Vec<&str> = flags.iter().filter_map(|(flag, missing)| missing.then_some(*flag)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::Usage(format!("there is no {what} '{id}' yet; to create it, say {}", missing.join(", "))))
}
