//! The `millpool` command and the client library that it stands on.
//!
//! - [`client`]: the coordinators' public API for Rust programs: retries, failover, watches, errors.
//! - [`written`] and [`shown`]: how people write and read quantities and times.
//! - [`json`]: the contract's messages as JSON and TOML.
pub mod client;
pub mod json;
pub mod shown;
pub mod written;
