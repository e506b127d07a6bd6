//! What clients asked, when, and what they were answered.

use millpool_cli::client::{ClientError, ErrorKind};
use millpool_proto::v1;
use std::collections::BTreeSet;
use std::time::Duration;

/// What was asked.
#[derive(Clone, Debug)]
pub enum Call {
    /// Options for an order.
    Quote,
    /// Options for an order on what the answering node knows, but nothing older than a revision.
    QuoteStale {
        /// Not older than this.
        min_revision: u64,
    },
    /// A booking.
    Book {
        /// The request's id.
        request_id: String,
        /// The order's own name, which no other order has.
        reference: String,
    },
    /// A hold made firm.
    Confirm {
        /// The request's id.
        request_id: String,
        /// Which.
        booking: String,
    },
    /// A booking given up.
    Cancel {
        /// The request's id.
        request_id: String,
        /// Which.
        booking: String,
    },
    /// A booking, as fresh as can be.
    Get {
        /// Which.
        booking: String,
    },
    /// A booking as the answering node knows it, but not older than a revision.
    GetStale {
        /// Which.
        booking: String,
        /// Not older than this.
        min_revision: u64,
    },
    /// Something that the operator does about the alliance, or a session of remote operation that is begun or ended.
    Operate {
        /// The request's id.
        request_id: String,
    },
}

impl Call {
    /// The request's id, if it is a write.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Call::Book { request_id, .. }
            | Call::Confirm { request_id, .. }
            | Call::Cancel { request_id, .. }
            | Call::Operate { request_id } => Some(request_id),
            Call::Quote | Call::QuoteStale { .. } | Call::Get { .. } | Call::GetStale { .. } => None,
        }
    }

    /// The booking that it is about, if it names one.
    pub fn booking(&self) -> Option<&str> {
        match self {
            Call::Confirm { booking, .. }
            | Call::Cancel { booking, .. }
            | Call::Get { booking }
            | Call::GetStale { booking, .. } => Some(booking),
            Call::Quote | Call::QuoteStale { .. } | Call::Book { .. } | Call::Operate { .. } => None,
        }
    }
}

/// What was answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It was done, or read, at a revision.
    Done {
        /// The revision.
        revision: u64,
        /// The booking that it is about.
        booking: Option<Box<v1::Booking>>,
    },
    /// It was refused.
    Refused {
        /// The reason.
        reason: String,
    },
    /// It was certainly not done.
    NotDone,
    /// It may have been done.
    Unknown,
}

impl Answer {
    /// What an answer's header and booking, or an error, say.
    pub fn of(answered: Result<(Option<v1::Header>, Option<v1::Booking>), ClientError>) -> Answer {
        match answered {
            Ok((header, booking)) => Answer::Done {
                revision: header.map_or(0, |header| header.revision),
                booking: booking.map(Box::new),
            },
            Err(error) => match error.kind {
                ErrorKind::Usage | ErrorKind::Refused => {
                    Answer::Refused { reason: error.reason().to_owned() }
                }
                ErrorKind::Unavailable => Answer::NotDone,
                ErrorKind::OutcomeUnknown => Answer::Unknown,
            },
        }
    }
}

/// A call from its beginning to its end, in simulated time.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who asked.
    pub who: String,
    /// What.
    pub call: Call,
    /// When.
    pub began: Duration,
    /// When the answer came.
    pub ended: Duration,
    /// The answer.
    pub answer: Answer,
}

impl Operation {
    /// The revision at which it was done or read.
    pub fn revision(&self) -> Option<u64> {
        match self.answer {
            Answer::Done { revision, .. } => Some(revision),
            _ => None,
        }
    }

    /// Whether its answer is to know of everything that was answered before it was asked.
    pub fn is_fresh(&self) -> bool {
        !matches!(self.call, Call::Quote | Call::QuoteStale { .. } | Call::GetStale { .. })
    }
}

/// What a watcher was told of one revision.
#[derive(Clone, Debug)]
pub struct Told {
    /// The revision.
    pub revision: u64,
    /// The bookings that changed.
    pub bookings: Vec<v1::Booking>,
}

/// What a watcher has seen since it began, or began anew.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// Who watched.
    pub who: String,
    /// The bookings that it was shown first, with their revisions.
    pub listed: BTreeSet<(String, u64)>,
    /// The revision of that; everything after it has been told, up to `until`.
    pub after: u64,
    /// See `after`.
    pub until: u64,
    /// In the order in which it came.
    pub told: Vec<Told>,
}

/// Everything.
#[derive(Debug, Default)]
pub struct History {
    /// Calls, in the order of their answers.
    pub operations: Vec<Operation>,
    /// Watches.
    pub watched: Vec<Watched>,
    /// What was asked of machines, by session, as it was answered.
    pub asked: Vec<(String, v1::RemoteCommand)>,
}
