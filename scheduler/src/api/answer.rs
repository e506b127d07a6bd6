//! Answers that say no: a refusal or a failure becomes a gRPC status with machine-readable details.
//!
//! Always ErrorInfo (reason, domain, metadata `field`, `value`, `accepted`); BadRequest where a field is at
//! fault; PreconditionFailure with one violation an obstacle; RetryInfo where trying again helps.

use crate::planner::Failure;
use millpool_alliance::{Reason, Refusal};
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, PreconditionViolation, StatusExt as _};

/// The domain of every reason.
pub const DOMAIN: &str = "millpool";

/// A reason that is not the business's, by its name on the wire.
pub mod reasons {
    /// This node does not lead; metadata `leader` has the public address of the one that does.
    pub const NOT_LEADER: &str = "NOT_LEADER";
    /// Nobody leads at the moment.
    pub const NO_LEADER: &str = "NO_LEADER";
    /// More is asked than can be done; try again after the delay.
    pub const OVERLOADED: &str = "OVERLOADED";
    /// It may or may not have been done; repeat it with the same request id.
    pub const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";
    /// The node is going down.
    pub const STOPPING: &str = "STOPPING";
    /// No token, or one that is not good.
    pub const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
    /// The watch's start is no longer kept; metadata `compacted_revision` is the oldest that is.
    pub const COMPACTED: &str = "COMPACTED";
    /// The watcher was too slow; metadata `last_revision` is the last that it was given.
    pub const WATCHER_TOO_SLOW: &str = "WATCHER_TOO_SLOW";
    /// An agent's clock is off.
    pub const CLOCK_SKEW: &str = "CLOCK_SKEW";
    /// A stream's message came out of its order.
    pub const OUT_OF_ORDER: &str = "OUT_OF_ORDER";
}

fn code(reason: Reason) -> Code {
    match reason {
        Reason::InvalidField | Reason::RequestIdReused => Code::InvalidArgument,
        Reason::UnknownId => Code::NotFound,
        Reason::AlreadyExists | Reason::AgentAlreadyConnected => Code::AlreadyExists,
        Reason::NotAllowed => Code::PermissionDenied,
        Reason::TooManyHolds | Reason::TooManyBookings => Code::ResourceExhausted,
        Reason::EventGap => Code::OutOfRange,
        Reason::RevisionMismatch
        | Reason::NoEligibleMachine
        | Reason::NoCapacity
        | Reason::PlacementConflict
        | Reason::PriceAboveTerms
        | Reason::LaterThanTerms
        | Reason::PlanOutdated
        | Reason::PromiseWorsened
        | Reason::FrozenMoved
        | Reason::HoldExpired
        | Reason::WrongStatus
        | Reason::WouldDisturb => Code::FailedPrecondition,
    }
}

/// The status of a refusal.
pub fn refused(refusal: &Refusal) -> Status {
    let code = code(refusal.reason);
    let mut metadata = HashMap::new();
    for (key, value) in
        [("field", &refusal.field), ("value", &refusal.value), ("accepted", &refusal.accepted)]
    {
        if !value.is_empty() {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    let mut details = ErrorDetails::with_error_info(refusal.reason.code(), DOMAIN, metadata);
    if code == Code::InvalidArgument {
        details.add_bad_request_violation(&refusal.field, &refusal.message);
    }
    if code == Code::FailedPrecondition {
        let violations: Vec<PreconditionViolation> = refusal
            .obstacles
            .iter()
            .map(|o| {
                PreconditionViolation::new(
                    o.requirement,
                    format!("operation {}", o.operation),
                    format!(
                        "asked: {}; the best there is: {}; excludes {} of {} machines",
                        o.asked, o.available, o.excluded, o.of_class
                    ),
                )
            })
            .collect();
        if violations.is_empty() {
            details.add_precondition_failure_violation(
                refusal.reason.code(),
                &refusal.field,
                &refusal.message,
            );
        } else {
            details.set_precondition_failure(violations);
        }
    }
    Status::with_error_details(code, &refusal.message, details)
}

/// A status with a reason of this module and what a program needs to know.
pub fn failed(code: Code, reason: &str, message: impl Into<String>, metadata: &[(&str, String)]) -> Status {
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) {
        details.set_retry_info(Some(Duration::from_millis(200)));
    }
    Status::with_error_details(code, message, details)
}

/// The status of a planner's failure.
pub fn failure(failure: Failure) -> Status {
    match failure {
        Failure::Refused(refusal) => refused(&refusal),
        Failure::NotLeader { leader } => {
            let address = leader.map(|hint| hint.addresses.public).unwrap_or_default();
            failed(
                Code::Unavailable,
                reasons::NOT_LEADER,
                format!("this node does not lead; the leader is {address:?}"),
                &[("leader", address)],
            )
        }
        Failure::Overloaded => failed(
            Code::ResourceExhausted,
            reasons::OVERLOADED,
            "more is asked than can be done; try again after the delay",
            &[],
        ),
        Failure::Unknown => failed(
            Code::DeadlineExceeded,
            reasons::OUTCOME_UNKNOWN,
            "it may or may not have been done: repeat it with the same request id",
            &[],
        ),
        Failure::Stopped => failed(Code::Unavailable, reasons::STOPPING, "the node is going down", &[]),
    }
}

/// The reason in a status, if it has one.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}
