//! What stands between a machine and the outbox.
//!
//! An adapter watches one machine, turns what it sees into events in plant time, and appends them with a
//! mark that says where it stands. It knows nothing of the coordinator; the session knows nothing of
//! machines; the outbox is all that they share.
//!
//! - [`mtconnect`]: reads a machine through its MTConnect agent. Read-only by design.
//! - [`opcua`]: reads machines through OPC UA, the machine-tool model or a vendor's own.
//! - [`sparkplug`]: reads machines through MQTT: Sparkplug B edge nodes, other topics by mapping.
//! - [`manual`]: a machine that reports nothing; people tell what it does, at the console.
//! - [`simulated`]: a machine that follows its dispatch list.
//!
//! They share [`shop`]: what an adapter works with, and its post at a machine. [`mapping`]: where a signal is
//! found. [`history`]: what follows from what is seen. [`job`]: the operation at hand, and downtime. [`word`]:
//! what people say.

pub mod history;
pub mod job;
pub mod manual;
pub mod mapping;
pub mod mtconnect;
pub mod opcua;
pub mod shop;
pub mod simulated;
pub mod sparkplug;
pub mod word;

pub use shop::Shop;

use crate::outbox::OutboxError;
use futures::future::BoxFuture;
use millpool_proto::v1::MachineState;
use millpool_proto::v1::agent_event::What;

/// An adapter at work. Boxed, so that it is compiled where it is written, and not anew in whatever runs it.
pub type Running = BoxFuture<'static, Result<(), OutboxError>>;

/// What a machine draws, W.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Power {
    /// On, doing nothing.
    pub idle_w: u32,
    /// Being set up.
    pub setup_w: u32,
    /// Cutting.
    pub cutting_w: u32,
}

impl Default for Power {
    fn default() -> Self {
        Self { idle_w: 800, setup_w: 1_500, cutting_w: 6_000 }
    }
}

impl Power {
    /// What it draws in a state, W.
    pub fn at(&self, state: MachineState) -> u32 {
        match state {
            MachineState::Producing => self.cutting_w,
            MachineState::Setup => self.setup_w,
            MachineState::Off | MachineState::Unknown => 0,
            _ => self.idle_w,
        }
    }
}

/// Whose time stamps events carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// The data's own.
    Source,
    /// The time at which the agent saw them.
    Arrival,
}

impl Time {
    /// The time of what came now. A clock that is ahead would hold back everything after it.
    pub fn of(self, at_ms: Option<i64>, now_ms: i64) -> i64 {
        match self {
            Self::Source => at_ms.unwrap_or(now_ms).min(now_ms),
            Self::Arrival => now_ms,
        }
    }
}

/// As whom the agent appears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// As nobody.
    Anonymous,
    /// As a user.
    User {
        /// Its name.
        name: String,
        /// Its password.
        password: Password,
    },
}

/// A password, which is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// A password.
    pub fn new(password: &str) -> Self {
        Self(password.to_owned())
    }

    /// As it is.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("...")
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Happened {
    /// When, ms since the Unix epoch.
    pub at_ms: i64,
    /// What.
    pub what: What,
}

/// A text's first bytes, at most so many, and no half character.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
