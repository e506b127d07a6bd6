//! The scenes that the tests of this crate play in: builders of small alliances, and the harness that
//! applies random sequences of entries and holds each against what was promised.

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::result_large_err, reason = "as in the crate itself")]

pub mod build;
pub mod harness;
