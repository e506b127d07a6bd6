//! What stands between a machine and the outbox.
//!
//! An adapter watches one machine, turns what it sees into events in plant time, and appends them with a
//! mark that says where it stands. It knows nothing of the coordinator; the session knows nothing of
//! machines; the outbox is all that they share.
//!
//! - [`mtconnect`]: reads a machine through its MTConnect agent. Read-only by design.
//! - [`simulated`]: a machine that follows its dispatch list.

pub mod mtconnect;
pub mod simulated;

use crate::clock::Clock;
use crate::dispatch::Kept;
use crate::health::Health;
use crate::outbox::Outbox;
use millpool_proto::v1::MachineState;
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

/// A state's name, as the docs write it.
pub fn state_name(state: MachineState) -> &'static str {
    match state {
        MachineState::Unknown => "unknown",
        MachineState::Off => "off",
        MachineState::Idle => "idle",
        MachineState::Setup => "setup",
        MachineState::Producing => "producing",
        MachineState::Held => "held",
        MachineState::Blocked => "blocked",
        MachineState::Maintenance => "maintenance",
    }
}
