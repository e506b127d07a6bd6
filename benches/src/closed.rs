//! Clients that ask again as soon as they are answered: throughput and latency of bookings, quotes and
//! reads.

use crate::args::Args;
use crate::report::{Measured, Results};
use crate::sample::{Done, Sample};
use crate::stage::Stage;
use anyhow::{Context as _, bail};
use futures::future::join_all;
use millpool_cli::client::Client;
use millpool_demo::small::Orders;
use millpool_proto::v1::{
    CancelBookingRequest, Consistency, GetBookingRequest, ListBookingsRequest, Page, QuoteRequest,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bookings of a measurement that are cancelled at the same time afterwards.
const CANCELLED_AT_ONCE: usize = 32;

/// Clients that make the bookings of a measurement that needs some.
const FILLING: usize = 16;

/// Clients at which the most is got done.
const PEAK_CLIENTS: usize = 64;

/// A booking that a client made, to read and to cancel.
type Made = (Client, String);

/// Measures bookings, quotes and reads at a number of clients, and gives the time back.
pub(crate) async fn run(
    stage: &Stage,
    args: &Args,
    clients: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    let (booked, made) = book_and_keep(stage, args, clients).await?;
    results.add("book", clients, Measured::closed(&booked));
    for (name, serializable) in [("quote", false), ("quote, any node's", true)] {
        let quoted = measure(stage, args, clients, "quote", async |(client, orders)| {
            let consistency = Some(Consistency { serializable, min_revision: 0 });
            done(client.quote(QuoteRequest { order: Some(orders.order()), consistency }).await)
        });
        results.add(name, clients, Measured::closed(&quoted.await?));
    }
    read(stage, args, clients, &made, results).await?;
    cancel(made).await;
    Ok(())
}

/// Measures how many bookings are got done at most.
pub(crate) async fn peak(stage: &Stage, args: &Args, results: &mut Results) -> anyhow::Result<f64> {
    let booked = book(stage, args, PEAK_CLIENTS).await?;
    results.add("book", PEAK_CLIENTS, Measured::closed(&booked));
    Ok(booked.rate())
}

/// Measures bookings alone, and gives the time back.
pub(crate) async fn book(stage: &Stage, args: &Args, clients: usize) -> anyhow::Result<Sample> {
    let (booked, made) = book_and_keep(stage, args, clients).await?;
    cancel(made).await;
    Ok(booked)
}

/// Makes `count` bookings, which stay.
pub(crate) async fn fill(stage: &Stage, args: &Args, count: usize) -> anyhow::Result<()> {
    eprintln!("making {count} bookings");
    let start_s = stage.alliance.blueprint.start_s;
    let run = format!("fill-{}", std::process::id());
    let buyers = stage.buyers(FILLING)?.into_iter().enumerate();
    let fill = buyers.map(|(number, (_, client))| {
        let mut orders = Orders::new(args.seed, number, start_s, &run);
        async move {
            for _ in (number..count).step_by(FILLING) {
                client.book(orders.request()).await.context("making a booking")?;
            }
            anyhow::Ok(())
        }
    });
    join_all(fill).await.into_iter().collect()
}

async fn book_and_keep(stage: &Stage, args: &Args, clients: usize) -> anyhow::Result<(Sample, Vec<Made>)> {
    let made = Mutex::new(Vec::new());
    let booked = measure(stage, args, clients, "book", async |(client, orders)| {
        match client.book(orders.request()).await {
            Ok(answer) => {
                let id = answer.booking.map(|booking| booking.id).unwrap_or_default();
                made.lock().unwrap_or_else(PoisonError::into_inner).push((client.clone(), id));
                Done::Well
            }
            Err(error) => Done::from_error(&error),
        }
    });
    let booked = booked.await?;
    Ok((booked, made.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

async fn read(
    stage: &Stage,
    args: &Args,
    clients: usize,
    made: &[Made],
    results: &mut Results,
) -> anyhow::Result<()> {
    for (name, serializable) in [("read, linearizable", false), ("read, any node's", true)] {
        let turn = AtomicUsize::new(0);
        let sample = measure(stage, args, clients, "read", async |(client, _)| {
            let at = turn.fetch_add(1, Ordering::Relaxed);
            let consistency = Some(Consistency { serializable, min_revision: 0 });
            match made.get(at % made.len().max(1)) {
                // A booking is its buyer's, so its buyer's connection reads it.
                Some((buyer, booking_id)) => {
                    let request = GetBookingRequest { booking_id: booking_id.clone(), consistency };
                    done(buyer.get_booking(request).await)
                }
                None => {
                    let page = Some(Page { size: 1, ..Page::default() });
                    done(client.list_bookings(ListBookingsRequest { page, ..Default::default() }).await)
                }
            }
        });
        results.add(name, clients, Measured::closed(&sample.await?));
    }
    Ok(())
}

fn done<T>(answer: Result<T, millpool_cli::client::ClientError>) -> Done {
    answer.map_or_else(|error| Done::from_error(&error), |_| Done::Well)
}

/// Lets buyers, each with orders of its own, do something over and over.
async fn measure(
    stage: &Stage,
    args: &Args,
    clients: usize,
    what: &str,
    act: impl AsyncFn(&mut (Client, Orders)) -> Done,
) -> anyhow::Result<Sample> {
    // No request id may come twice: it would be answered with what was booked under it before.
    static MEASUREMENTS: AtomicUsize = AtomicUsize::new(0);
    let number = MEASUREMENTS.fetch_add(1, Ordering::Relaxed);
    let run = format!("{what}-{clients}-{}-{number}", std::process::id());
    let start_s = stage.alliance.blueprint.start_s;
    let buyers = stage.buyers(clients)?.into_iter().enumerate();
    let with_orders = |(number, (_, client))| (client, Orders::new(args.seed, number, start_s, &run));
    drive(args, buyers.map(with_orders).collect(), act).await
}

/// Lets every client do something over and over. What begins during the warm-up is not counted.
pub(crate) async fn drive<C>(
    args: &Args,
    clients: Vec<C>,
    act: impl AsyncFn(&mut C) -> Done,
) -> anyhow::Result<Sample> {
    let from = Instant::now() + Duration::from_secs(args.warm_up);
    let until = from + Duration::from_secs(args.seconds);
    let act = &act;
    let loops = clients.into_iter().map(|mut client| async move {
        let mut sample = Sample::new()?;
        while Instant::now() < until {
            let began = Instant::now();
            let done = act(&mut client).await;
            if began >= from {
                sample.count(began.elapsed(), done);
            }
        }
        anyhow::Ok(sample)
    });
    let mut all = Sample::new()?;
    for sample in join_all(loops).await {
        all.add(&sample?);
    }
    // What nobody may ask is refused at little cost: a measurement of that would say nothing.
    if let Some((reason, count)) =
        all.told().find(|(how, _)| ["INVALID_FIELD", "REQUEST_ID_REUSED"].contains(how))
    {
        bail!("{count} requests were refused as {reason}: the generator asks for what it may not");
    }
    all.elapsed = from.elapsed();
    Ok(all)
}

/// Gives the time of a measurement's bookings back to the pool.
async fn cancel(made: Vec<Made>) {
    use futures::StreamExt as _;
    let cancelled = made.into_iter().map(|(client, booking_id)| async move {
        // What cannot be cancelled any more stays; it is little.
        let request = CancelBookingRequest { booking_id, ..CancelBookingRequest::default() };
        drop(client.cancel_booking(request).await);
    });
    futures::stream::iter(cancelled).buffer_unordered(CANCELLED_AT_ONCE).collect::<()>().await;
}
