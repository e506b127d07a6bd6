//! Arrivals at a rate, whoever still waits. The clock starts when a request was meant to be sent, so that
//! a stall is seen by everyone who would have come during it.

use crate::args::Args;
use crate::report::{Measured, Results};
use crate::sample::{Done, Sample};
use crate::stage::Stage;
use millpool_cli::client::Client;
use millpool_demo::small::Orders;
use millpool_proto::v1::{BookRequest, CancelBookingRequest};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Clients that share the arrivals.
pub(crate) const CLIENTS: usize = 64;
/// Requests on their way at once; who arrives then is turned away and counted.
const AT_ONCE_MAX: usize = 4096;

/// Bookings that arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrivals {
    /// So many a second.
    pub(crate) rate: u32,
    /// Each is tried at most so often.
    pub(crate) attempts_max: u32,
    /// What was booked is cancelled at once, so that the pool does not fill up.
    pub(crate) cancelled: bool,
    /// Before what is measured.
    pub(crate) warm_up: Duration,
    /// How long it is measured.
    pub(crate) measured: Duration,
}

impl Arrivals {
    /// As the command line says, patiently, and kept.
    pub(crate) fn of(args: &Args, rate: u32) -> Self {
        let (warm_up, measured) = (Duration::from_secs(args.warm_up), Duration::from_secs(args.seconds));
        Self { rate, attempts_max: u32::MAX, cancelled: false, warm_up, measured }
    }
}

/// Measures bookings at a rate.
pub(crate) async fn run(stage: &Stage, args: &Args, rate: u32, results: &mut Results) -> anyhow::Result<()> {
    let sample = arrive(stage, args, Arrivals::of(args, rate)).await?;
    results.add(&format!("book, {rate}/s arriving"), CLIENTS, Measured::open(&sample));
    Ok(())
}

/// Lets bookings arrive.
pub(crate) async fn arrive(stage: &Stage, args: &Args, arrivals: Arrivals) -> anyhow::Result<Sample> {
    // No request id may come twice: it would be answered with what was booked under it before.
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let buyers = stage.buyers(CLIENTS)?.into_iter();
    let clients: Vec<Client> =
        buyers.map(|(_, client)| client.with_attempts(arrivals.attempts_max)).collect::<Result<_, _>>()?;
    let run = format!("open-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let start_s = stage.alliance.blueprint.start_s;
    let mut orders: Vec<Orders> =
        (0..CLIENTS).map(|number| Orders::new(args.seed ^ 0x6f70, number, start_s, &run)).collect();
    let began = Instant::now();
    let from = began + arrivals.warm_up;
    let count = (f64::from(arrivals.rate) * (arrivals.warm_up + arrivals.measured).as_secs_f64()) as u64;
    let mut sample = Sample::new()?;
    let mut on_their_way = JoinSet::new();
    for arrival in 0..count {
        let meant = began + Duration::from_secs_f64(arrival as f64 / f64::from(arrivals.rate));
        tokio::time::sleep_until(meant.into()).await;
        while let Some(Ok(ended)) = on_their_way.try_join_next() {
            take(&mut sample, from, ended);
        }
        if on_their_way.len() >= AT_ONCE_MAX {
            take(&mut sample, from, (meant, Duration::ZERO, Done::Unanswered("TurnedAway".to_owned())));
            continue;
        }
        let number = arrival as usize % CLIENTS;
        let (client, request) = (clients[number].clone(), orders[number].request());
        on_their_way.spawn(book(client, request, meant, arrivals.cancelled));
    }
    sample.elapsed = from.elapsed();
    while let Some(ended) = on_their_way.join_next().await {
        take(&mut sample, from, ended?);
    }
    Ok(sample)
}

async fn book(
    client: Client,
    request: BookRequest,
    meant: Instant,
    cancelled: bool,
) -> (Instant, Duration, Done) {
    let answer = client.book(request).await;
    let took = meant.elapsed();
    match answer {
        Ok(answer) => {
            if cancelled {
                let booking_id = answer.booking.map(|booking| booking.id).unwrap_or_default();
                drop(client.cancel_booking(CancelBookingRequest { booking_id, ..Default::default() }).await);
            }
            (meant, took, Done::Well)
        }
        Err(error) => (meant, took, Done::from_error(&error)),
    }
}

fn take(sample: &mut Sample, from: Instant, (meant, took, done): (Instant, Duration, Done)) {
    if meant >= from {
        sample.count(took, done);
    }
}
