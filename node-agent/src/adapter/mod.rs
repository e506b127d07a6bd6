//! What stands between a machine and the outbox.
//!
//! An adapter watches one machine, turns what it sees into events in plant time, and appends them with a
//! mark that says where it stands. It knows nothing of the coordinator; the session knows nothing of
//! machines; the outbox is all that they share.
//!
//! - [`mtconnect`]: reads a machine through its MTConnect agent. Read-only by design.
//! - [`opcua`]: reads machines through OPC UA, the machine-tool model or a vendor's own.
//! - [`sparkplug`]: reads machines through MQTT: Sparkplug B edge nodes, other topics by mapping.
//! - [`simulated`]: a machine that follows its dispatch list.
//! - [`mapping`]: where a signal is found. [`history`]: what follows from what an adapter sees; [`job`]: the operation at hand, and downtime.

pub mod history;
pub mod job;
pub mod mapping;
pub mod mtconnect;
pub mod opcua;
pub mod simulated;
pub mod sparkplug;

use crate::clock::Clock;
use crate::dispatch::Kept;
use crate::health::Health;
use crate::outbox::{Entry, Mark, Outbox, OutboxError};
use millpool_proto::v1::AgentEvent;
use millpool_proto::v1::agent_event::What;
use std::sync::Arc;
use tokio::sync::watch;

/// What an adapter is given to work with.
#[derive(Clone)]
pub struct Shop {
    /// The plant's clock.
    pub clock: Clock,
    /// Where its events go.
    pub outbox: Outbox,
    /// The dispatch list as it is on disk.
    pub kept: watch::Receiver<Arc<Kept>>,
    /// Where its state is shown.
    pub health: Health,
}

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

/// Whose time stamps events carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// The data's own.
    Source,
    /// The time at which the agent saw them.
    Arrival,
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

impl Shop {
    /// Puts what happened on a machine into the outbox, together with what its adapter remembers after it.
    pub async fn append(
        &self,
        machine_id: &str,
        happened: Vec<Happened>,
        memory: Vec<u8>,
    ) -> Result<(), OutboxError> {
        let events = happened.into_iter().map(|happened| AgentEvent {
            seq: 0,
            at_ms: happened.at_ms,
            machine_id: machine_id.to_owned(),
            what: Some(happened.what),
        });
        let mark = Mark { key: machine_id.to_owned(), state: memory.into() };
        self.outbox.append(Entry { events: events.collect(), mark: Some(mark) }).await
    }
}

/// A text's first bytes, at most so many, and no half character.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
