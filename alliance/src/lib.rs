//! The replicated state machine: what the alliance has, what it has promised, and the plan.
//!
//! Pure: no clock, no randomness, no float, no async, no I/O. Time comes in with each entry, and every
//! map is ordered, so that two nodes with the same log have the same [`State::hash`].
//!
//! - [`State::apply`] is the one door for changes: an [`Entry`] in, an [`Outcome`] out.
//! - [`registry`]: members, plants, machines, principals, the policy; [`offer`]: what is lent, and when.
//! - [`order`]: what a buyer asks, and [`eligibility`]: which machines can make it.
//! - [`booking`]: what was promised; [`line`]: the occupations of one machine; [`rules`]: what every
//!   plan must obey, checked here again whoever computed it.
//! - [`price`]: money and carbon, in integers; [`cost`]: what the plan costs the pool;
//! - [`progress`]: what the plants report, and disturbances.
//! - [`tally`]: what machines did with their time, by shift and day; [`account`]: how it is counted. [`silence`]: plants
//!   of which nobody knows it.
//! - [`remote`]: the right to operate a machine from afar, and the record of it. [`program`]: programs that come by it.
//! - [`answer`]: what was answered, so that a repeated request is done once; [`retention`]: what is over, and
//!   how long it is known.
//! - [`mod@format`]: in which format all that is written; [`restoration`]: an alliance that begins again.
//! - [`invariants`]: the whole state held against every rule, for tests and audits.
//!
//! Architecture invariant: this crate imports no other crate of the workspace, and nothing here shares
//! code with the solver. A plan is a claim; `apply` checks it.

#![allow(clippy::result_large_err, reason = "a refusal says why in full, and is the exception")]

#[cfg(test)]
extern crate self as millpool_alliance;

#[cfg(test)]
#[path = "../tests/scenes/mod.rs"]
mod scenes;

pub mod account;
pub mod answer;
pub mod booking;
pub mod command;
pub mod cost;
pub mod digest;
pub mod eligibility;
pub mod format;
pub mod id;
pub mod invariants;
pub mod lending;
pub mod line;
pub mod offer;
pub mod order;
pub mod planted;
pub mod price;
pub mod program;
pub mod progress;
pub mod refusal;
pub mod registry;
pub mod remote;
pub mod restoration;
pub mod retention;
pub mod rules;
pub mod silence;
pub mod state;
pub mod table;
pub mod tally;
mod undo;
pub mod window;

pub use booking::{Booking, Disturbance, DisturbanceKind, Place, Progress, Promise, Status, Step};
pub use command::{Caller, Command, Entry, Move, Outcome, PlanFigures, PlanKind, Reply};
pub use format::Format;
pub use id::{BookingId, MachineId, MemberId, OfferId, PlantId, PrincipalId, SessionId};
pub use order::{Objective, Operation, Order, Terms};
pub use refusal::{Obstacle, Reason, Refusal};
pub use restoration::Restoration;
pub use state::State;
pub use window::{TICK_S, Window, Windows};
