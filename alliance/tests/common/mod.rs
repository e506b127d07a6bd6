//! What the tests of this crate share: builders of small alliances, and the harness that applies random
//! sequences of entries and holds each against what was promised.

#![allow(dead_code)] // No test uses all of it.

pub mod build;
pub mod harness;
