//! Buyers who book meanwhile, and a note of everything that they were told.

use millpool_cli::client::{Client, ErrorKind};
use millpool_demo::ledger::{Ledger, Standing};
use millpool_demo::small::Orders;
use millpool_proto::v1::CancelBookingRequest;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Pause of a buyer between two bookings: this is about faults, not about speed.
const THINK: Duration = Duration::from_millis(25);
/// Of so many bookings all but one are cancelled, so that the pool does not fill up.
const KEPT_ONE_OF: u64 = 8;

/// The buyers at work.
pub(crate) struct Load {
    book: Arc<Book>,
    seed: u64,
    start_s: i64,
    stop: watch::Sender<bool>,
    buyers: JoinSet<()>,
}

/// What the buyers share.
#[derive(Default)]
pub(crate) struct Book {
    /// What they were told.
    pub(crate) ledger: Ledger,
    refused: AtomicU64,
    acknowledged: Mutex<Vec<Acknowledged>>,
}

/// A booking's acknowledgement.
struct Acknowledged {
    at: Instant,
    buyer: String,
    booking_id: String,
}

impl Load {
    /// Nobody is at work yet.
    pub(crate) fn new(seed: u64, start_s: i64) -> Self {
        let (stop, _) = watch::channel(false);
        Self { book: Arc::default(), seed, start_s, stop, buyers: JoinSet::new() }
    }

    /// What the buyers were told so far.
    pub(crate) fn book(&self) -> &Book {
        &self.book
    }

    /// Another buyer goes to work, until [`rest`](Self::rest).
    pub(crate) fn add(&mut self, buyer: &str, client: Client) {
        self.stop.send_replace(false);
        let number = self.buyers.len();
        let mut orders =
            Orders::new(self.seed, number, self.start_s, &format!("{buyer}-{}", self.book.count()));
        let (buyer, book, stopped) = (buyer.to_owned(), self.book.clone(), self.stop.subscribe());
        self.buyers.spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                count += 1;
                let request = orders.request();
                match client.book(request.clone()).await {
                    Ok(answer) => {
                        let booking = answer.booking.unwrap_or_default();
                        book.ledger.booked(&buyer, request, &booking);
                        book.acknowledge(&buyer, &booking.id);
                        if count % KEPT_ONE_OF != 0 {
                            cancel(&client, &book.ledger, booking.id).await;
                        }
                    }
                    Err(error) if error.kind == ErrorKind::Refused => {
                        book.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => book.ledger.in_doubt(&buyer, request),
                }
                tokio::time::sleep(THINK).await;
            }
        });
    }

    /// The buyers end what they have begun, and go.
    pub(crate) async fn rest(&mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        while let Some(ended) = self.buyers.join_next().await {
            ended?;
        }
        Ok(())
    }
}

async fn cancel(client: &Client, ledger: &Ledger, booking_id: String) {
    let request = CancelBookingRequest { booking_id: booking_id.clone(), ..CancelBookingRequest::default() };
    match client.cancel_booking(request).await {
        Ok(_) => ledger.now_stands(&booking_id, Standing::Cancelled),
        Err(error) if error.kind == ErrorKind::Refused => {}
        Err(_) => ledger.now_stands(&booking_id, Standing::InDoubt),
    }
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Vec<Acknowledged>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn acknowledge(&self, buyer: &str, booking_id: &str) {
        let (buyer, booking_id) = (buyer.to_owned(), booking_id.to_owned());
        self.pages().push(Acknowledged { at: Instant::now(), buyer, booking_id });
    }

    /// Bookings that were acknowledged.
    pub(crate) fn count(&self) -> usize {
        self.pages().len()
    }

    /// Bookings that were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The booking that was acknowledged last: who made it, and its id.
    pub(crate) fn newest(&self) -> Option<(String, String)> {
        self.pages().last().map(|last| (last.buyer.clone(), last.booking_id.clone()))
    }

    /// When a booking was first acknowledged after an instant.
    pub(crate) fn first_after(&self, instant: Instant) -> Option<Instant> {
        self.pages().iter().map(|one| one.at).filter(|at| *at > instant).min()
    }

    /// How many bookings a buyer had acknowledged after an instant.
    pub(crate) fn of_after(&self, buyer: &str, instant: Instant) -> usize {
        self.pages().iter().filter(|one| one.buyer == buyer && one.at > instant).count()
    }

    /// The longest time without an acknowledgement that touches the time between two instants.
    pub(crate) fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let pages = self.pages();
        let mut times: Vec<Instant> = pages.iter().map(|one| one.at).filter(|at| *at < to).collect();
        times.push(to);
        times.sort_unstable();
        let touching = times.windows(2).filter(|pair| pair[1] >= from);
        touching.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_the_one_around_the_fault() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let book = Book::default();
        for ms in [0, 5000, 5010, 6500, 6510] {
            book.pages().push(Acknowledged { at: at(ms), buyer: "b".into(), booking_id: "x".into() });
        }
        assert_eq!(book.longest_gap(at(5005), at(6515)), Duration::from_millis(1490));
        assert_eq!(book.longest_gap(at(6505), at(9510)), Duration::from_millis(3000));
        assert_eq!(book.first_after(at(5010)), Some(at(6500)));
        assert_eq!((book.of_after("b", at(6500)), book.of_after("c", at(0))), (1, 0));
    }
}
