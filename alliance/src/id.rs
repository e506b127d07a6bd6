//! Typed ids: a plant's id is not a machine's. Cheap to clone, ordered, at most 40 characters.
//!
//! A booking's is a number, since bookings are what there are many of, and every line and table compares their ids.

use crate::refusal::{Reason, Refusal};
use std::sync::Arc;

/// Longest id, characters.
pub const ID_LENGTH_MAX: usize = 40;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $field:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks that `text` is an id: 1 to 40 lower-case letters, digits and dashes.
            pub fn parse(text: &str) -> Result<Self, Refusal> {
                check($field, text).map(|()| Self(text.into()))
            }

            /// An id that is known to be one: read back from the log, or made by the state machine.
            pub fn trusted(text: &str) -> Self {
                Self(text.into())
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

ids! {
    /// A company of the alliance.
    MemberId, "member_id";
    /// A place where machines stand.
    PlantId, "plant_id";
    /// A machine.
    MachineId, "machine_id";
    /// Windows of a machine, lent.
    OfferId, "offer_id";
    /// Somebody who may call: for a buyer the buyer's id.
    PrincipalId, "principal_id";
}

/// A part order, by the number that the state machine gave it: `b000001` and on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BookingId(u64);

impl BookingId {
    /// The booking given as the `number`-th.
    pub fn numbered(number: u64) -> Self {
        Self(number)
    }

    /// Reads an id as it was given; another way to write the same number is not one.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let number = text.strip_prefix('b').and_then(|digits| digits.parse().ok()).map(Self);
        number.filter(|id| id.to_string() == text).ok_or_else(|| {
            Refusal::invalid(
                Reason::InvalidField,
                "booking_id",
                text,
                "an id as it was given, such as b000001",
            )
        })
    }
}

impl std::fmt::Display for BookingId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b{:06}", self.0)
    }
}

impl std::fmt::Debug for BookingId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// A right to operate a machine remotely, by the number that the state machine gave it: `s000001` and on. Numbers only
/// grow, so that of two sessions of a machine the higher one counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// The session given as the `number`-th.
    pub fn numbered(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Reads an id as it was given; another way to write the same number is not one.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let number = text.strip_prefix('s').and_then(|digits| digits.parse().ok()).map(Self);
        number.filter(|id| id.to_string() == text).ok_or_else(|| {
            Refusal::invalid(
                Reason::InvalidField,
                "session_id",
                text,
                "an id as it was given, such as s000001",
            )
        })
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s{:06}", self.0)
    }
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

fn check(field: &str, text: &str) -> Result<(), Refusal> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > ID_LENGTH_MAX || !text.chars().all(fine) {
        return Err(Refusal::invalid(
            Reason::InvalidField,
            field,
            text,
            "1 to 40 lower-case letters, digits and dashes",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bookings_id_is_read_as_it_was_given_and_no_other_way() {
        for number in [1, 999_999, 1_000_000, u64::MAX] {
            let id = BookingId::numbered(number);
            assert_eq!(BookingId::parse(&id.to_string()), Ok(id));
        }
        assert_eq!(BookingId::numbered(42).to_string(), "b000042");
        assert!(BookingId::numbered(999_999) < BookingId::numbered(1_000_000));
        for other in
            ["", "b", "42", "b42", "b0000042", "b+00042", "B000042", "b000042 ", "b18446744073709551616"]
        {
            let refusal = BookingId::parse(other).unwrap_err();
            assert_eq!((refusal.field.as_str(), refusal.value.as_str()), ("booking_id", other));
        }
    }
}
