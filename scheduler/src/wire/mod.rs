//! Between wire and business: protobuf messages to `alliance` types and back, one file a subject.
//!
//! Reading checks form (ids, enumerations, presence) and names the field that is wrong; meaning is checked
//! by `alliance` itself. The same functions serve the API, the log and the snapshots, so that there is one
//! mapping of each type.

pub mod agent;
pub mod booking;
pub mod command;
pub mod registry;
pub mod remote;
pub mod snapshot;
pub mod tally;

use millpool_alliance::{Format, Reason, Refusal};

/// A message that must be there.
pub(crate) fn required<T>(field: &str, value: Option<T>) -> Result<T, Refusal> {
    value.ok_or_else(|| Refusal::invalid(Reason::InvalidField, field, "absent", "a value"))
}

/// An enumeration's number, or a refusal that lists the names.
pub(crate) fn unknown_enum(field: &str, value: i32, accepted: &str) -> Refusal {
    Refusal::invalid(Reason::InvalidField, field, value, accepted)
}

/// The format that `what` says it has, if it is none above `newest`.
fn read_format(what: &str, number: u32, newest: Format) -> Result<Format, Refusal> {
    Format::of(number).filter(|format| *format <= newest).ok_or_else(|| {
        let reason = format!("{what} of format {number}; this node reads formats up to {newest}");
        Refusal::because(Reason::InvalidField, reason)
    })
}

/// 0 on the wire means none.
pub(crate) fn nonzero(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}

/// A non-negative number that fits 32 bits on the wire; more is shown as the most.
pub(crate) fn narrow(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}
