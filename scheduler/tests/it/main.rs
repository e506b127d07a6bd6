//! The shipped binary, seen from outside: started as one process or three, spoken to over gRPC.

#![allow(clippy::unwrap_used)] // In a test's helpers an unwrap is an assertion.

mod agents;
mod agreement;
mod bad_input;
#[path = "../../../meters/tests/support/collector.rs"]
mod collector;
mod flow;
mod harness;
mod indicators;
mod kills;
mod process;
mod recovery;
mod remote;
mod upgrade;
mod wire;
mod world;
