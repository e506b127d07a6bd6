//! Clients that ask again as soon as they are answered: throughput and latency of bookings, quotes and
//! reads.

use crate::args::Args;
use crate::report::{Measured, Results};
use crate::sample::{Done, Sample};
use crate::stage::Stage;
use futures::future::join_all;
use millpool_cli::client::Client;
use millpool_demo::small::Orders;
use millpool_proto::v1::{
    CancelBookingRequest, Consistency, GetBookingRequest, ListBookingsRequest, Page, QuoteRequest,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bookings of a measurement that are cancelled at the same time afterwards.
const CANCELLED_AT_ONCE: usize = 32;

/// A booking that a client made, to read and to cancel.
type Made = (Client, String);

/// Measures bookings, quotes and reads at a number of clients, and gives the time back.
pub(crate) async fn run(
    stage: &Stage,
    args: &Args,
    clients: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    let made = Arc::new(Mutex::new(Vec::new()));
    let booked = measure(stage, args, clients, "book", |client, orders| {
        let (client, request, made) = (client.clone(), orders.request(), made.clone());
        async move {
            match client.book(request).await {
                Ok(answer) => {
                    let id = answer.booking.map(|booking| booking.id).unwrap_or_default();
                    made.lock().unwrap_or_else(PoisonError::into_inner).push((client, id));
                    Done::Well
                }
                Err(error) => Done::from_error(&error),
            }
        }
    });
    results.add("book", clients, Measured::closed(&booked.await?));
    let quoted = measure(stage, args, clients, "quote", |client, orders| {
        let (client, order) = (client.clone(), Some(orders.order()));
        async move { done(client.quote(QuoteRequest { order }).await) }
    });
    results.add("quote", clients, Measured::closed(&quoted.await?));
    let made = std::mem::take(&mut *made.lock().unwrap_or_else(PoisonError::into_inner));
    read(stage, args, clients, &made, results).await?;
    cancel(made).await;
    Ok(())
}

async fn read(
    stage: &Stage,
    args: &Args,
    clients: usize,
    made: &[Made],
    results: &mut Results,
) -> anyhow::Result<()> {
    for (name, serializable) in [("read, linearizable", false), ("read, any node's", true)] {
        let turn = std::sync::atomic::AtomicUsize::new(0);
        let sample = measure(stage, args, clients, "read", |client, _| {
            let at = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let consistency = Some(Consistency { serializable, min_revision: 0 });
            let found = if made.is_empty() { None } else { Some(made[at % made.len()].clone()) };
            let client = client.clone();
            async move {
                match found {
                    // A booking is its buyer's, so its buyer's connection reads it.
                    Some((buyer, booking_id)) => {
                        done(buyer.get_booking(GetBookingRequest { booking_id, consistency }).await)
                    }
                    None => {
                        let page = Some(Page { size: 1, ..Page::default() });
                        done(client.list_bookings(ListBookingsRequest { page, ..Default::default() }).await)
                    }
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

/// Lets every client do something over and over. What begins during the warm-up is not counted.
async fn measure<F, Fut>(
    stage: &Stage,
    args: &Args,
    clients: usize,
    what: &str,
    act: F,
) -> anyhow::Result<Sample>
where
    F: Fn(&Client, &mut Orders) -> Fut,
    Fut: Future<Output = Done>,
{
    let run = format!("{what}-{clients}-{}", std::process::id());
    let buyers = stage.buyers(clients)?;
    let from = Instant::now() + Duration::from_secs(args.warm_up);
    let until = from + Duration::from_secs(args.seconds);
    let act = &act;
    let loops = buyers.iter().enumerate().map(|(number, (_, client))| {
        let mut orders = Orders::new(args.seed, number, stage.alliance.blueprint.start_s, &run);
        async move {
            let mut sample = Sample::new()?;
            while Instant::now() < until {
                let began = Instant::now();
                let done = act(client, &mut orders).await;
                if began >= from {
                    sample.count(began.elapsed(), done);
                }
            }
            anyhow::Ok(sample)
        }
    });
    let mut all = Sample::new()?;
    for sample in join_all(loops).await {
        all.add(&sample?);
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
