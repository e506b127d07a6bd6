//! Arrivals at a rate, whoever still waits. The clock starts when a request was meant to be sent, so that
//! a stall is seen by everyone who would have come during it.

use crate::args::Args;
use crate::report::{Measured, Results};
use crate::sample::{Done, Sample};
use crate::stage::Stage;
use millpool_demo::small::Orders;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Clients that share the arrivals.
const CLIENTS: usize = 64;
/// Requests on their way at once; who arrives then is turned away and counted.
const AT_ONCE_MAX: usize = 4096;

/// Measures bookings at a rate.
pub(crate) async fn run(stage: &Stage, args: &Args, rate: u32, results: &mut Results) -> anyhow::Result<()> {
    let buyers = stage.buyers(CLIENTS)?;
    let run = format!("open-{}", std::process::id());
    let start_s = stage.alliance.blueprint.start_s;
    let mut orders: Vec<Orders> =
        (0..CLIENTS).map(|number| Orders::new(args.seed ^ 0x6f70, number, start_s, &run)).collect();
    let began = Instant::now();
    let from = began + Duration::from_secs(args.warm_up);
    let arrivals = u64::from(rate) * (args.warm_up + args.seconds);
    let mut sample = Sample::new()?;
    let mut on_their_way = JoinSet::new();
    for arrival in 0..arrivals {
        let meant = began + Duration::from_secs_f64(arrival as f64 / f64::from(rate));
        tokio::time::sleep_until(meant.into()).await;
        while let Some(Ok(ended)) = on_their_way.try_join_next() {
            take(&mut sample, from, ended);
        }
        if on_their_way.len() >= AT_ONCE_MAX {
            take(&mut sample, from, (meant, Duration::ZERO, Done::Unanswered("TurnedAway".to_owned())));
            continue;
        }
        let number = arrival as usize % CLIENTS;
        let (client, request) = (buyers[number].1.clone(), orders[number].request());
        on_their_way.spawn(async move {
            let done =
                client.book(request).await.map_or_else(|error| Done::from_error(&error), |_| Done::Well);
            (meant, meant.elapsed(), done)
        });
    }
    sample.elapsed = from.elapsed();
    while let Some(ended) = on_their_way.join_next().await {
        take(&mut sample, from, ended?);
    }
    results.add(&format!("book, {rate}/s arriving"), CLIENTS, Measured::open(&sample));
    Ok(())
}

fn take(sample: &mut Sample, from: Instant, (meant, took, done): (Instant, Duration, Done)) {
    if meant >= from {
        sample.count(took, done);
    }
}
