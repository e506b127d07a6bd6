//! Why something was not done: a stable reason, and the field, the value and what would be accepted.

use crate::id::BookingId;

/// The reason, a stable name that programs may rely on. [`Reason::code`] is its form on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A field is missing, malformed or out of range.
    InvalidField,
    /// An id that nothing has, or that the caller may not see.
    UnknownId,
    /// Something with this id exists already.
    AlreadyExists,
    /// The object has changed since the caller saw it.
    RevisionMismatch,
    /// The request id was used before for another request.
    RequestIdReused,
    /// The caller's role does not allow this.
    NotAllowed,
    /// No machine of the alliance meets what an operation requires.
    NoEligibleMachine,
    /// Machines could make it, but no time is free within the terms.
    NoCapacity,
    /// The placement asked for breaks a rule: the time has been taken, or the machine cannot do it.
    PlacementConflict,
    /// The price is above the budget or the terms.
    PriceAboveTerms,
    /// It cannot be done by the time that the terms ask for.
    LaterThanTerms,
    /// The plan was computed from a state that has changed since where it matters.
    PlanOutdated,
    /// The plan would worsen a promise without a disturbance.
    PromiseWorsened,
    /// The plan would move frozen work.
    FrozenMoved,
    /// The hold has expired.
    HoldExpired,
    /// The booking is not in a status in which this can be done.
    WrongStatus,
    /// Confirmed work would be disturbed, and that was not accepted.
    WouldDisturb,
    /// The buyer holds as much as it may.
    TooManyHolds,
    /// The alliance has as many open bookings as it may.
    TooManyBookings,
    /// Another agent serves this plant.
    AgentAlreadyConnected,
    /// An agent's events do not follow on those that were applied.
    EventGap,
}

impl Reason {
    /// The reason's name on the wire.
    pub fn code(self) -> &'static str {
        match self {
            Reason::InvalidField => "INVALID_FIELD",
            Reason::UnknownId => "UNKNOWN_ID",
            Reason::AlreadyExists => "ALREADY_EXISTS",
            Reason::RevisionMismatch => "REVISION_MISMATCH",
            Reason::RequestIdReused => "REQUEST_ID_REUSED",
            Reason::NotAllowed => "NOT_ALLOWED",
            Reason::NoEligibleMachine => "NO_ELIGIBLE_MACHINE",
            Reason::NoCapacity => "NO_CAPACITY",
            Reason::PlacementConflict => "PLACEMENT_CONFLICT",
            Reason::PriceAboveTerms => "PRICE_ABOVE_TERMS",
            Reason::LaterThanTerms => "LATER_THAN_TERMS",
            Reason::PlanOutdated => "PLAN_OUTDATED",
            Reason::PromiseWorsened => "PROMISE_WORSENED",
            Reason::FrozenMoved => "FROZEN_MOVED",
            Reason::HoldExpired => "HOLD_EXPIRED",
            Reason::WrongStatus => "WRONG_STATUS",
            Reason::WouldDisturb => "WOULD_DISTURB",
            Reason::TooManyHolds => "TOO_MANY_HOLDS",
            Reason::TooManyBookings => "TOO_MANY_BOOKINGS",
            Reason::AgentAlreadyConnected => "AGENT_ALREADY_CONNECTED",
            Reason::EventGap => "EVENT_GAP",
        }
    }
}

/// For one operation and one requirement: what was asked, the best there is, how many it excludes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Obstacle {
    /// Index in the route, from 0.
    pub operation: u32,
    /// The requirement's field name.
    pub requirement: &'static str,
    /// What the order asks.
    pub asked: String,
    /// The best that machines of the class have.
    pub available: String,
    /// Machines of the class that do not meet it.
    pub excluded: u32,
    /// Machines of the class.
    pub of_class: u32,
}

/// An answer that says no, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}: {message}", reason.code())]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// One sentence for people.
    pub message: String,
    /// The field at fault; empty if none is.
    pub field: String,
    /// Its value.
    pub value: String,
    /// What would be accepted.
    pub accepted: String,
    /// Which requirements exclude which machines, where that is the reason.
    pub obstacles: Vec<Obstacle>,
}

impl Refusal {
    /// A refusal in words.
    pub fn because(reason: Reason, message: impl Into<String>) -> Self {
        Refusal {
            reason,
            message: message.into(),
            field: String::new(),
            value: String::new(),
            accepted: String::new(),
            obstacles: Vec::new(),
        }
    }

    /// A refusal of a field's value.
    pub fn invalid(reason: Reason, field: &str, value: impl ToString, accepted: &str) -> Self {
        let value: String = value.to_string().chars().take(80).collect();
        Refusal {
            message: format!("{field} is {value:?}; accepted: {accepted}"),
            field: field.to_owned(),
            value,
            accepted: accepted.to_owned(),
            ..Refusal::because(reason, "")
        }
    }

    /// An id that nothing has.
    pub fn unknown(field: &str, id: impl ToString) -> Self {
        Refusal::invalid(Reason::UnknownId, field, id, "the id of something that exists and that you may see")
    }

    /// A booking that nobody knows, or that the caller may not know of.
    pub fn unknown_booking(id: &BookingId) -> Self {
        let accepted = "the id of a booking that you may see, and that is not over for longer than the policy's \
                        history_keep_s";
        Refusal::invalid(Reason::UnknownId, "booking_id", id, accepted)
    }
}

/// Refuses `value` unless it lies within `low..=high`.
pub fn within(field: &str, value: i64, low: i64, high: i64) -> Result<(), Refusal> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Refusal::invalid(Reason::InvalidField, field, value, &format!("{low} to {high}")))
}

/// Refuses a text that is longer than `most` characters, or empty where it must not be.
pub fn text(field: &str, value: &str, least: usize, most: usize) -> Result<(), Refusal> {
    let length = value.chars().count();
    if (least..=most).contains(&length) && !value.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Refusal::invalid(
        Reason::InvalidField,
        field,
        value,
        &format!("{least} to {most} characters without control characters"),
    ))
}
