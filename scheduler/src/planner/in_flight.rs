//! Proposals on their way to the log, and whether they came out as the live state had assumed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Proposals on their way to the log, by the order in which they were sent.
#[derive(Default)]
pub(super) struct InFlight {
    open: Mutex<Open>,
    one_less: Notify,
    /// One of them came out otherwise than the live state assumed.
    pub(super) differs: AtomicBool,
}

#[derive(Default)]
struct Open {
    tickets: BTreeSet<u64>,
    last: u64,
    differences: u64,
}

/// What was on its way at some moment, and how much had come out otherwise than assumed by then.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    last: u64,
    differences: u64,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(self: &Arc<Self>) -> Ticket {
        let mut open = self.lock();
        open.last += 1;
        let number = open.last;
        open.tickets.insert(number);
        Ticket { in_flight: self.clone(), number, as_assumed: false }
    }

    pub(super) fn mark(&self) -> Mark {
        let open = self.lock();
        Mark { last: open.last, differences: open.differences }
    }

    /// Waits until all that was on its way at `mark` has come out. Says whether all of it did as assumed.
    pub(super) async fn came_out(&self, mark: Mark) -> bool {
        loop {
            let one_less = self.one_less.notified();
            {
                let open = self.lock();
                if open.tickets.first().is_none_or(|first| *first > mark.last) {
                    return open.differences == mark.differences;
                }
            }
            one_less.await;
        }
    }
}

/// A proposal's place among those on their way; given up when dropped.
pub(super) struct Ticket {
    in_flight: Arc<InFlight>,
    number: u64,
    pub(super) as_assumed: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.in_flight.lock();
        open.tickets.remove(&self.number);
        if !self.as_assumed {
            open.differences += 1;
            self.in_flight.differs.store(true, Ordering::Release);
        }
        drop(open);
        self.in_flight.one_less.notify_waiters();
    }
}
