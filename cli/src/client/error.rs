//! What a failed call says: what was tried, where, how often, and the coordinator's own reason with
//! the field, the value and what would have been accepted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The reason by which a coordinator says that it cannot tell whether a write happened.
pub const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";

/// A call that failed.
#[derive(Clone, Debug)]
pub struct ClientError {
    /// What the caller can make of it.
    pub kind: ErrorKind,
    /// The particulars.
    pub details: Box<ErrorDetails>,
}

/// What a caller can make of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The client was told something that it cannot use; nothing was sent.
    Usage,
    /// A coordinator understood the call and refused it. Trying again changes nothing.
    Refused,
    /// No coordinator could serve the call within the deadline, and a write did not happen.
    Unavailable,
    /// A write may have happened. Repeating it with the same request id tells.
    OutcomeUnknown,
}

/// The particulars of a failure.
#[derive(Clone, Debug)]
pub struct ErrorDetails {
    /// The RPC, e.g. "Book".
    pub rpc: &'static str,
    /// The endpoint of the last attempt.
    pub endpoint: String,
    /// Attempts made, over all endpoints.
    pub attempts: u32,
    /// Time from the first attempt to the failure.
    pub took: Duration,
    /// The request id, where the call had one.
    pub request_id: Option<String>,
    /// The status code of the last attempt.
    pub code: Code,
    /// The coordinator's reason, e.g. "BUDGET_EXCEEDED"; empty where it gave none.
    pub reason: String,
    /// The reason in words.
    pub message: String,
    /// What the coordinator adds to its reason; among it `field`, `value` and `accepted`.
    pub metadata: BTreeMap<String, String>,
    /// Fields of the request that are wrong, and how.
    pub fields: Vec<(String, String)>,
    /// Conditions that did not hold: type, subject, description.
    pub conditions: Vec<Condition>,
    /// When the coordinator would like to be asked again.
    pub retry_after: Option<Duration>,
}

/// A condition that did not hold when a call was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its kind, as the coordinator names it.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// In words.
    pub description: String,
}

impl ClientError {
    /// An error in what the client was told.
    pub fn usage(field: &str, value: &str, accepted: &str) -> Self {
        let mut details = ErrorDetails::none("");
        details.reason = "USAGE".to_owned();
        details.code = Code::InvalidArgument;
        details.message = format!("{field} '{value}' cannot be used");
        for (key, text) in [("field", field), ("value", value), ("accepted", accepted)] {
            details.metadata.insert(key.to_owned(), text.to_owned());
        }
        Self { kind: ErrorKind::Usage, details: Box::new(details) }
    }

    /// The coordinator's reason; empty where it gave none.
    pub fn reason(&self) -> &str {
        &self.details.reason
    }

    /// What the coordinator added to its reason under this key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.details.metadata.get(key).map(String::as_str)
    }

    /// Where a watch was refused because its revision is no longer kept: the oldest that is.
    pub fn compacted_revision(&self) -> Option<u64> {
        if self.details.code != Code::OutOfRange {
            return None;
        }
        self.metadata("compacted_revision").and_then(|revision| revision.parse().ok())
    }

    /// What was wrong, in rows of name and text, for people.
    pub fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        for key in ["field", "value", "accepted"] {
            if let Some(text) = self.metadata(key) {
                rows.push((key.to_owned(), text.to_owned()));
            }
        }
        let (told, said) = (self.metadata("field").unwrap_or_default(), &self.details.message);
        for (field, description) in &self.details.fields {
            if field != told && description != said {
                rows.push((field.clone(), description.clone()));
            }
        }
        for condition in self.details.conditions.iter().filter(|condition| condition.description != *said) {
            rows.push((condition.subject.clone(), condition.description.clone()));
        }
        for (key, text) in &self.details.metadata {
            if !["field", "value", "accepted"].contains(&key.as_str()) {
                rows.push((key.clone(), text.clone()));
            }
        }
        rows
    }
}

impl ErrorDetails {
    pub(crate) fn none(rpc: &'static str) -> Self {
        Self {
            rpc,
            endpoint: String::new(),
            attempts: 0,
            took: Duration::ZERO,
            request_id: None,
            code: Code::Unknown,
            reason: String::new(),
            message: String::new(),
            metadata: BTreeMap::new(),
            fields: Vec::new(),
            conditions: Vec::new(),
            retry_after: None,
        }
    }

    /// What a status says, with google.rpc's details decoded.
    pub(crate) fn read(rpc: &'static str, status: &Status) -> Self {
        let mut details = Self::none(rpc);
        details.code = status.code();
        details.message = spoken(status);
        let told = status.get_error_details();
        if let Some(info) = told.error_info() {
            details.reason.clone_from(&info.reason);
            details.metadata = info.metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        }
        if let Some(bad) = told.bad_request() {
            let violations = &bad.field_violations;
            details.fields = violations.iter().map(|v| (v.field.clone(), v.description.clone())).collect();
        }
        if let Some(failed) = told.precondition_failure() {
            details.conditions = failed
                .violations
                .iter()
                .map(|v| Condition {
                    kind: v.r#type.clone(),
                    subject: v.subject.clone(),
                    description: v.description.clone(),
                })
                .collect();
        }
        details.retry_after = told.retry_info().and_then(|info| info.retry_delay);
        details
    }
}

/// A status's message, and for a broken connection its innermost cause, which is what helps.
fn spoken(status: &Status) -> String {
    let mut cause = std::error::Error::source(status);
    let mut innermost = None;
    while let Some(error) = cause {
        innermost = Some(error.to_string());
        cause = error.source();
    }
    match innermost {
        Some(cause) if !status.message().contains(&cause) => format!("{}: {cause}", status.message()),
        _ => status.message().to_owned(),
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &self.details;
        match self.kind {
            ErrorKind::Usage => write!(f, "{}", details.message)?,
            ErrorKind::Refused => {
                write!(f, "{} was refused by {}: {}", details.rpc, details.endpoint, details.message)?;
            }
            ErrorKind::Unavailable => write!(
                f,
                "{} found no coordinator that could serve it ({}, last {}, {:.1} s): {}",
                details.rpc,
                attempts(details.attempts),
                details.endpoint,
                details.took.as_secs_f64(),
                details.message
            )?,
            ErrorKind::OutcomeUnknown => write!(
                f,
                "{} got no answer ({}, last {}, {:.1} s), and may have happened: {}",
                details.rpc,
                attempts(details.attempts),
                details.endpoint,
                details.took.as_secs_f64(),
                details.message
            )?,
        }
        if !details.reason.is_empty() && self.kind != ErrorKind::Usage {
            write!(f, " [{}]", details.reason)?;
        }
        for (name, text) in self.rows() {
            write!(f, "; {name}: {text}")?;
        }
        Ok(())
    }
}

fn attempts(count: u32) -> String {
    if count == 1 { "1 attempt".to_owned() } else { format!("{count} attempts") }
}

impl std::error::Error for ClientError {}
