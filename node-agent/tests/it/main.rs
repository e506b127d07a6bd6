//! The agent against coordinators, machines and brokers, some of other makes. One program, so that it is built once.

#![allow(clippy::unwrap_used)]

mod binary;
#[path = "../../../meters/tests/support/collector.rs"]
mod collector;
mod config;
mod console;
mod mtconnect;
mod opcua;
mod outbox;
mod publish;
mod remote;
mod samples;
mod session;
mod simulated;
mod sparkplug;
mod support;
