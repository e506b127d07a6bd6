//! The command and the client against a cluster that is not one. One program, so that it is built once.

#![allow(clippy::unwrap_used)]

mod chart;
mod client;
mod commands;
mod fake;
mod kpi;
