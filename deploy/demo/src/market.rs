//! The buyers: sixteen clients, each another buyer, who ask, book, hold, confirm and cancel.

use anyhow::Context as _;
use hdrhistogram::Histogram;
use millpool_cli::client::{Client, ClientError, ErrorKind};
use millpool_demo::alliance::{BUYERS, Intent, Wish};
use millpool_demo::clock::AllianceClock;
use millpool_demo::cluster::Cluster;
use millpool_demo::ledger::{Ledger, Standing};
use millpool_proto::v1::{
    BookRequest, Booking, CancelBookingRequest, ConfirmBookingRequest, Objective, Option as Choice, Order,
    QuoteRequest, Terms,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a held booking waits before it is confirmed, and a booked one before it is cancelled.
const SECOND_THOUGHTS: Duration = Duration::from_millis(1500);
/// How long capacity is held that is to be confirmed, seconds of the wall clock.
const HOLD_WALL_S: i64 = 60;
/// How long capacity is held that nobody will confirm, seconds of the wall clock.
const FORGOTTEN_WALL_S: i64 = 5;
/// Longest hold that the contract accepts, seconds.
const HOLD_MAX_S: i64 = 86_400;

/// What the buyers saw.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Orders that were asked for.
    pub(crate) asked: u64,
    /// Orders that got a promise.
    pub(crate) promised: u64,
    /// Orders that were refused, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Holds that were confirmed.
    pub(crate) confirmed_holds: u64,
    /// Bookings that were cancelled again.
    pub(crate) cancelled: u64,
    /// Calls that got no answer within their deadline.
    pub(crate) unanswered: u64,
    /// Time of a quote, µs.
    pub(crate) quote_us: Histogram<u64>,
    /// Time of a booking, µs.
    pub(crate) book_us: Histogram<u64>,
    /// When writes were acknowledged.
    pub(crate) acknowledged: Vec<Instant>,
}

/// Everything that buyers share.
pub(crate) struct Market {
    clients: Vec<Client>,
    clock: AllianceClock,
    start_s: i64,
    run: u64,
    /// What they were told.
    pub(crate) ledger: Ledger,
    tally: Mutex<Tally>,
}

/// When a wish is asked for.
pub(crate) struct Appointment {
    /// The instant.
    pub(crate) at: Instant,
    /// Its number, for its request id.
    pub(crate) number: usize,
    /// The wish.
    pub(crate) wish: Wish,
}

impl Market {
    /// Sixteen clients of a cluster. `run` tells the request ids of this run from others'.
    pub(crate) fn open(
        cluster: &Cluster,
        clock: AllianceClock,
        start_s: i64,
        run: u64,
    ) -> anyhow::Result<Arc<Self>> {
        let client = |(prefer, buyer): (usize, &&str)| cluster.client(&format!("buyer:{buyer}"), prefer);
        let clients = BUYERS.iter().enumerate().map(client).collect::<Result<_, _>>()?;
        let histogram = || Histogram::new_with_bounds(1, 120_000_000, 3).context("a histogram");
        let tally = Tally {
            asked: 0,
            promised: 0,
            refused: BTreeMap::new(),
            confirmed_holds: 0,
            cancelled: 0,
            unanswered: 0,
            quote_us: histogram()?,
            book_us: histogram()?,
            acknowledged: Vec::new(),
        };
        Ok(Arc::new(Self {
            clients,
            clock,
            start_s,
            run,
            ledger: Ledger::default(),
            tally: Mutex::new(tally),
        }))
    }

    /// The client of a buyer.
    pub(crate) fn client_of(&self, buyer: &str) -> Client {
        let at = BUYERS.iter().position(|known| *known == buyer).unwrap_or(0);
        self.clients[at].clone()
    }

    /// What was seen so far.
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the buyers; each keeps its own appointments, one after the other, until it has none left or
    /// `stop` says so.
    pub(crate) fn trade(
        self: &Arc<Self>,
        appointments: Vec<Appointment>,
        stop: &watch::Receiver<bool>,
    ) -> JoinSet<()> {
        let mut diaries: BTreeMap<&str, Vec<Appointment>> = BTreeMap::new();
        for appointment in appointments {
            diaries.entry(appointment.wish.buyer).or_default().push(appointment);
        }
        let mut buyers = JoinSet::new();
        for diary in diaries.into_values() {
            let (market, mut stop) = (self.clone(), stop.clone());
            buyers.spawn(async move {
                for appointment in diary {
                    tokio::select! {
                        _ = stop.wait_for(|stopped| *stopped) => return,
                        () = tokio::time::sleep_until(appointment.at.into()) => {}
                    }
                    market.keep(appointment).await;
                }
            });
        }
        buyers
    }

    async fn keep(&self, appointment: Appointment) {
        let Appointment { number, wish, .. } = appointment;
        let request_id = format!("demo-{}-{number}", self.run);
        let mut order = wish.order(self.start_s, self.clock.now_s());
        order.reference = format!("{request_id} {}", order.reference);
        self.tally().asked += 1;
        let client = self.client_of(wish.buyer);
        let request = BookRequest { request_id, order: Some(order.clone()), ..BookRequest::default() };
        let request = match wish.intent {
            Intent::Quoted(objective) => match self.quoted(&client, order, objective).await {
                Some(option) => {
                    BookRequest { option: Some(option), terms: Some(terms(objective)), ..request }
                }
                None => return,
            },
            Intent::Direct(objective) => BookRequest { terms: Some(terms(objective)), ..request },
            Intent::HeldAndConfirmed => BookRequest { hold_s: self.hold_s(HOLD_WALL_S), ..request },
            Intent::HeldAndForgotten => BookRequest { hold_s: self.hold_s(FORGOTTEN_WALL_S), ..request },
            Intent::Cancelled => request,
        };
        let Some(booking) = self.book(&client, wish.buyer, request).await else { return };
        match wish.intent {
            Intent::HeldAndConfirmed => self.confirm(&client, &booking).await,
            Intent::Cancelled => self.cancel(&client, &booking).await,
            _ => {}
        }
    }

    fn hold_s(&self, wall_s: i64) -> u32 {
        self.clock.stretch_s(wall_s).min(HOLD_MAX_S) as u32
    }

    /// The option that is best by a measure, if there is any.
    async fn quoted(&self, client: &Client, order: Order, objective: Objective) -> Option<Choice> {
        let began = Instant::now();
        let answer = client.quote(QuoteRequest { order: Some(order), consistency: None }).await;
        let quote = match answer {
            Ok(quote) => quote,
            Err(error) => {
                self.refused(&error);
                return None;
            }
        };
        let mut tally = self.tally();
        tally.quote_us.saturating_record(began.elapsed().as_micros() as u64);
        let best = |option: &&Choice| option.best_for.contains(&objective.into());
        let chosen = quote.options.iter().find(best).or(quote.options.first()).cloned();
        if chosen.is_none() {
            *tally.refused.entry("NO_ELIGIBLE_MACHINE".to_owned()).or_default() += 1;
        }
        chosen
    }

    async fn book(&self, client: &Client, buyer: &str, request: BookRequest) -> Option<Booking> {
        let began = Instant::now();
        match client.book(request.clone()).await {
            Ok(answer) => {
                let booking = answer.booking?;
                self.ledger.booked(buyer, request, &booking);
                let mut tally = self.tally();
                tally.book_us.saturating_record(began.elapsed().as_micros() as u64);
                tally.promised += 1;
                tally.acknowledged.push(Instant::now());
                Some(booking)
            }
            Err(error) => {
                if error.kind != ErrorKind::Refused {
                    self.ledger.in_doubt(buyer, request);
                }
                self.refused(&error);
                None
            }
        }
    }

    fn refused(&self, error: &ClientError) {
        let mut tally = self.tally();
        match error.kind {
            ErrorKind::Refused => *tally.refused.entry(error.reason().to_owned()).or_default() += 1,
            _ => tally.unanswered += 1,
        }
    }

    async fn confirm(&self, client: &Client, booking: &Booking) {
        tokio::time::sleep(SECOND_THOUGHTS).await;
        let request = ConfirmBookingRequest { booking_id: booking.id.clone(), ..Default::default() };
        match client.confirm_booking(request).await {
            Ok(_) => {
                self.ledger.now_stands(&booking.id, Standing::Confirmed);
                let mut tally = self.tally();
                tally.confirmed_holds += 1;
                tally.acknowledged.push(Instant::now());
            }
            Err(error) => self.doubt(&error, booking),
        }
    }

    async fn cancel(&self, client: &Client, booking: &Booking) {
        tokio::time::sleep(SECOND_THOUGHTS).await;
        let reason = "the customer changed the drawing".to_owned();
        let request = CancelBookingRequest { booking_id: booking.id.clone(), reason, ..Default::default() };
        match client.cancel_booking(request).await {
            Ok(_) => {
                self.ledger.now_stands(&booking.id, Standing::Cancelled);
                let mut tally = self.tally();
                tally.cancelled += 1;
                tally.acknowledged.push(Instant::now());
            }
            Err(error) => self.doubt(&error, booking),
        }
    }

    fn doubt(&self, error: &ClientError, booking: &Booking) {
        if error.kind != ErrorKind::Refused {
            self.ledger.now_stands(&booking.id, Standing::InDoubt);
            self.tally().unanswered += 1;
        }
    }
}

fn terms(objective: Objective) -> Terms {
    Terms { objective: objective.into(), ..Terms::default() }
}
