//! What clients were told: every answer that somebody may rely on, to be held against the state
//! afterwards.

use millpool_proto::v1::{BookRequest, Booking, BookingStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a client was last told of a booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Held until the time, seconds since the Unix epoch.
    Held {
        /// When the hold runs out.
        until_s: i64,
    },
    /// Confirmed, with a promise.
    Confirmed,
    /// Cancelled.
    Cancelled,
    /// A confirmation or cancellation was sent, and nobody knows whether it happened.
    InDoubt,
}

/// A booking that was acknowledged.
#[derive(Clone, Debug)]
pub struct Told {
    /// The request, with its id.
    pub request: BookRequest,
    /// The buyer.
    pub buyer: String,
    /// The booking's id.
    pub booking_id: String,
    /// Promised by, seconds since the Unix epoch.
    pub promised_by_s: i64,
    /// Promised at no more than this, fen.
    pub promised_fen: i64,
    /// What was last said of it.
    pub standing: Standing,
}

/// Everything that was told. Shared by all clients of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    told: Vec<Told>,
    in_doubt: Vec<(String, BookRequest)>,
}

impl Ledger {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A booking was acknowledged.
    pub fn booked(&self, buyer: &str, request: BookRequest, booking: &Booking) {
        let promise = booking.promise.clone().unwrap_or_default();
        let standing = match booking.status() {
            BookingStatus::Held => Standing::Held { until_s: booking.hold_expires_at_s },
            _ => Standing::Confirmed,
        };
        let told = Told {
            request,
            buyer: buyer.to_owned(),
            booking_id: booking.id.clone(),
            promised_by_s: promise.by_s,
            promised_fen: promise.price.map_or(0, |price| price.total_fen),
            standing,
        };
        self.pages().told.push(told);
    }

    /// Something later was said of a booking.
    pub fn now_stands(&self, booking_id: &str, standing: Standing) {
        let mut pages = self.pages();
        if let Some(told) = pages.told.iter_mut().rev().find(|told| told.booking_id == booking_id) {
            told.standing = standing;
        }
    }

    /// A booking got no answer: it may exist, once.
    pub fn in_doubt(&self, buyer: &str, request: BookRequest) {
        self.pages().in_doubt.push((buyer.to_owned(), request));
    }

    /// All that was acknowledged.
    pub fn told(&self) -> Vec<Told> {
        self.pages().told.clone()
    }

    /// All that got no answer: buyer and request.
    pub fn doubts(&self) -> Vec<(String, BookRequest)> {
        self.pages().in_doubt.clone()
    }
}
