//! The plant's agent: watches the machines, keeps what happened, works through the dispatch list.
//!
//! ```text
//!   machines                                                        coordinators
//!   mtconnect ─┐                                                        ▲
//!   opcua     ─┤                                                        │
//!   sparkplug ─┤                                                        │
//!   manual    ─┤                                                        │
//!   simulated ─┼─ events + mark ─► outbox (disk) ─► session ── Attach ──┘
//!              └◄──── dispatch list (disk) ◄───────────┘
//! ```
//!
//! - [`agent`]: one plant's agent; starts and stops everything below.
//! - [`adapter`]: what stands between a machine and the outbox: [`adapter::mtconnect`], [`adapter::opcua`],
//!   [`adapter::sparkplug`], [`adapter::manual`], [`adapter::simulated`].
//! - [`console`]: the operator's terminal; its words go to the adapters.
//! - [`publish`]: the plant's own list and states on its broker, as a Sparkplug B edge node.
//! - [`remote`]: remote operation: what may reach a machine, and when.
//! - [`samples`]: raw samples of the machines, kept in the plant for its analysts.
//! - [`outbox`]: events on disk, numbered, until the coordinator has applied them.
//! - [`dispatch`]: the dispatch list on disk.
//! - [`session`]: the stream to the coordinator.
//! - [`config`], [`clock`], [`health`], [`http`], [`meters`], [`chance`]: what the name says. [`ground`]: the machine that it
//!   runs on, or a simulation.
//! - [`replay`]: an MTConnect agent that serves a recorded day, for tests and demonstrations; nothing of
//!   the agent uses it.
//!
//! **Invariant:** adapters and the session never speak to each other. Events go through the outbox, work
//! through the dispatch list, and both are on disk first; so a cut line, or a restart of either side,
//! changes when things are told, and not what.
//!
//! **Invariant:** an adapter's memory is a mark in the outbox, written in the same frame as the events that
//! it follows from. There is no other file that says where a machine stands.

pub mod adapter;
pub mod agent;
pub mod chance;
pub mod clock;
pub mod config;
pub mod console;
pub mod dispatch;
pub mod ground;
pub mod health;
pub mod http;
pub mod meters;
pub mod outbox;
pub mod publish;
pub mod remote;
pub mod replay;
pub mod samples;
pub mod session;
