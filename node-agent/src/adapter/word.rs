//! What a person says about a machine, at the agent's console: for machines that report nothing, and for
//! what no machine reports.

use super::cut;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Longest reason that is taken, characters; the contract's number.
pub const REASON_LENGTH_MAX: usize = 200;
/// Furthest back that something may have happened, ms: a week.
pub const PAST_MAX_MS: i64 = 7 * 24 * 3_600_000;

/// One statement about a machine. Times are plant time, ms since the Unix epoch; now, where none is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case", deny_unknown_fields)]
pub enum Word {
    /// An operation began.
    Start {
        /// Which; the next on the machine's list where none is named.
        operation: Option<Named>,
        /// It is being set up, and cuts from the next `Start` on.
        setup: bool,
        /// When.
        at_ms: Option<i64>,
    },
    /// The operation at hand goes on.
    Count {
        /// Pieces finished well so far.
        good: u32,
        /// When it is expected to end.
        end_ms: Option<i64>,
    },
    /// The operation at hand is done.
    Finish {
        /// Pieces finished well; where it is not said: what was counted, or else all of them.
        good: Option<u32>,
        /// Pieces scrapped.
        scrapped: u32,
        /// What a meter says, Wh.
        energy_wh: Option<u64>,
        /// When.
        at_ms: Option<i64>,
    },
    /// The operation at hand is lost, and has to be done again.
    Scrap {
        /// Pieces scrapped; all of them where it is not said.
        pieces: Option<u32>,
        /// In words.
        reason: String,
        /// When.
        at_ms: Option<i64>,
    },
    /// The machine takes no work.
    Down {
        /// In words.
        reason: String,
        /// When it is expected back; unknown without.
        until_ms: Option<i64>,
    },
    /// The machine takes work again.
    Up,
}

/// An operation, as `BOOKING/OPERATION`, or `BOOKING` where a machine has but one of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The booking.
    pub booking_id: String,
    /// Index in the route, from 0.
    pub operation: Option<u32>,
}

impl std::str::FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (booking_id, operation) = match text.split_once('/') {
            None => (text, None),
            Some((booking_id, operation)) => {
                let number = operation.parse().map_err(|_| {
                    format!("operation = {operation:?}: accepted is its index in the route, from 0")
                })?;
                (booking_id, Some(number))
            }
        };
        if booking_id.is_empty() {
            return Err("accepted is BOOKING/OPERATION, or BOOKING".to_owned());
        }
        Ok(Self { booking_id: booking_id.to_owned(), operation })
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.operation {
            Some(operation) => write!(f, "{}/{operation}", self.booking_id),
            None => f.write_str(&self.booking_id),
        }
    }
}

/// Why a word is not taken in. Nothing has changed by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Something else has to end first.
    #[error("{0} is at hand; finish or scrap it first")]
    AtHand(String),
    /// Nothing is at hand.
    #[error("nothing is at hand on this machine; start it first")]
    NothingAtHand,
    /// Nothing can be started.
    #[error("nothing is on this machine's list that is not over")]
    NothingListed,
    /// Another is meant.
    #[error("operation = {named}: accepted is one on this machine's list: {listed}")]
    NotListed {
        /// As it was named.
        named: String,
        /// What is there.
        listed: String,
    },
    /// A time that cannot be.
    #[error("{field} = {value}: accepted is {accepted}")]
    Field {
        /// Which.
        field: &'static str,
        /// What was said.
        value: String,
        /// What would be taken in.
        accepted: String,
    },
    /// It is not down.
    #[error("the machine is not down, as far as was told")]
    NotDown,
    /// The machine does as its list says.
    #[error("this machine is simulated: it does what its list says, and nobody's word")]
    Simulated,
}

impl WordError {
    /// A field's value that is not taken.
    pub fn field(field: &'static str, value: impl ToString, accepted: impl Into<String>) -> Self {
        Self::Field { field, value: value.to_string(), accepted: accepted.into() }
    }
}

/// A word on its way to a machine's adapter.
#[derive(Debug)]
pub struct Said {
    /// The machine.
    pub machine_id: String,
    /// What.
    pub word: Word,
    /// Answered with what follows, in words, once it is on disk.
    pub answer: oneshot::Sender<Result<String, WordError>>,
}

/// When something happened that was told now; within the last week, not before `earliest_ms`, and not later
/// than now.
pub fn told_time(at_ms: Option<i64>, earliest_ms: i64, now_ms: i64) -> Result<i64, WordError> {
    let Some(at_ms) = at_ms else { return Ok(now_ms) };
    let earliest_ms = earliest_ms.max(now_ms - PAST_MAX_MS);
    if (earliest_ms..=now_ms).contains(&at_ms) {
        return Ok(at_ms);
    }
    Err(WordError::field("at", stamp(at_ms), format!("{} to {}", stamp(earliest_ms), stamp(now_ms))))
}

/// A reason, fit to be sent.
pub fn told_reason(reason: &str) -> Result<String, WordError> {
    let words: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words = words.trim();
    if words.is_empty() || words.chars().count() > REASON_LENGTH_MAX {
        let accepted = format!("1 to {REASON_LENGTH_MAX} characters");
        return Err(WordError::field("reason", format!("{:?}", cut(words, 80)), accepted));
    }
    Ok(words.to_owned())
}

/// A time as people read it, in UTC.
pub fn stamp(at_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_named_by_its_booking_and_index() {
        let named = |text: &str| text.parse::<Named>();
        assert_eq!(named("b-1/2").unwrap().to_string(), "b-1/2");
        assert_eq!(named("b-1").unwrap().operation, None);
        assert!(named("b-1/two").unwrap_err().contains("\"two\""));
        assert!(named("/2").is_err() && named("").is_err());
    }

    #[test]
    fn a_time_is_neither_to_come_nor_long_ago() {
        let now_ms = 1_800_000_000_000;
        assert_eq!(told_time(None, 0, now_ms), Ok(now_ms));
        assert_eq!(told_time(Some(now_ms - 5), 0, now_ms), Ok(now_ms - 5));
        for wrong in [now_ms + 1, now_ms - PAST_MAX_MS - 1, i64::MIN, i64::MAX] {
            assert!(told_time(Some(wrong), 0, now_ms).is_err());
        }
        let error = told_time(Some(now_ms - 3), now_ms - 2, now_ms).unwrap_err().to_string();
        assert!(error.starts_with("at = 2027-01-15T"), "{error}");
    }

    #[test]
    fn a_reason_is_some_words_on_one_line() {
        assert_eq!(told_reason(" spindle\nbearing ").unwrap(), "spindle bearing");
        assert!(told_reason("  ").is_err() && told_reason(&"x".repeat(201)).is_err());
    }
}
