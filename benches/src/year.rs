//! A year of an alliance: many bookings are known, and most of them are over. What a snapshot of all that costs whoever
//! books meanwhile, and how long a node takes to start on it.

use crate::args::Args;
use crate::closed;
use crate::report::{Measured, Results, median};
use crate::sample::Sample;
use crate::stage::Stage;
use anyhow::Context as _;
use millpool_demo::cluster::NODES;
use millpool_demo::small::Orders;
use millpool_proto::v1::{CancelBookingRequest, TakeSnapshotRequest};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Clients that fill the year.
const FILLING: usize = 64;
/// Clients at which the writes are measured.
const CLIENTS: usize = 16;
/// Of so many bookings all but one are over, so that the pool does not fill up.
const OPEN_ONE_OF: u64 = 40;
/// How often a node is started, and writes are measured with and without snapshots.
const REPEATS: usize = 3;
/// How long a node may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Fills the year with so many bookings, and measures.
pub(crate) async fn run(
    stage: &mut Stage,
    args: &Args,
    bookings: u64,
    results: &mut Results,
) -> anyhow::Result<()> {
    stage.forget_soon().await?;
    fill(stage, args, bookings).await?;
    let (mut calm, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let quiet = closed::book(stage, args, CLIENTS).await?;
        let beside = with_snapshots(stage, args).await?;
        results.add("book", CLIENTS, Measured::closed(&quiet));
        results.add("book, beside snapshots", CLIENTS, Measured::closed(&beside));
        calm.push(quiet.ms(0.99));
        busy.push(beside.ms(0.99));
    }
    let (calm, busy) = (median(calm), median(busy));
    results.note(format!(
        "{bookings} bookings known: p99 of a booking {calm:.1} ms, beside one snapshot after the other {busy:.1} ms \
         ({:.2} times)",
        busy / calm
    ));
    starts(stage, results).await?;
    let mib: Vec<String> = stage.resident_bytes().iter().map(|bytes| format!("{}", bytes >> 20)).collect();
    results.note(format!("resident memory of the nodes: {} MiB", mib.join(", ")));
    Ok(())
}

/// Books, and gives up most of it.
async fn fill(stage: &Stage, args: &Args, bookings: u64) -> anyhow::Result<()> {
    let made = AtomicU64::new(0);
    let run = format!("year-{}", std::process::id());
    let start_s = stage.alliance.blueprint.start_s;
    let fillers = stage.buyers(FILLING)?.into_iter().enumerate().map(|(number, (_, client))| {
        let mut orders = Orders::new(args.seed ^ 0x7965, number, start_s, &run);
        let made = &made;
        async move {
            while made.load(Ordering::Relaxed) < bookings {
                let Ok(answer) = client.book(orders.request()).await else { continue };
                let count = made.fetch_add(1, Ordering::Relaxed) + 1;
                if count.is_multiple_of(20_000) {
                    eprintln!("{count} of {bookings} bookings made");
                }
                if !count.is_multiple_of(OPEN_ONE_OF) {
                    let booking_id = answer.booking.map(|booking| booking.id).unwrap_or_default();
                    let over = CancelBookingRequest { booking_id, ..CancelBookingRequest::default() };
                    drop(client.cancel_booking(over).await);
                }
            }
        }
    });
    futures::future::join_all(fillers).await;
    Ok(())
}

/// Bookings while the leader writes one snapshot after the other.
async fn with_snapshots(stage: &Stage, args: &Args) -> anyhow::Result<Sample> {
    let operator = stage.client("operator:load", 0)?.with_patience(PATIENCE, PATIENCE);
    let snapshots = async {
        loop {
            if let Err(error) = operator.take_snapshot(TakeSnapshotRequest {}).await {
                return anyhow::Error::from(error);
            }
        }
    };
    tokio::select! {
        sample = closed::book(stage, args, CLIENTS) => sample,
        error = snapshots => Err(error).context("taking a snapshot"),
    }
}

/// How long a follower takes from its start to knowing what the others know, and all nodes until they serve.
async fn starts(stage: &mut Stage, results: &mut Results) -> anyhow::Result<()> {
    let mut took = Vec::new();
    for _ in 0..REPEATS {
        let cluster = stage.cluster()?;
        let leader = cluster.wait_for_leader(PATIENCE).await?;
        let follower = (leader + 1) % NODES;
        cluster.kill_node(follower).await?;
        let began = Instant::now();
        cluster.start_node(follower)?;
        cluster.wait_until_level(PATIENCE).await?;
        took.push(began.elapsed().as_secs_f64());
    }
    let one = median(took);
    let cluster = stage.cluster()?;
    for index in 0..NODES {
        cluster.kill_node(index).await?;
    }
    let began = Instant::now();
    for index in 0..NODES {
        cluster.start_node(index)?;
    }
    cluster.wait_for_leader(PATIENCE).await?;
    let mut orders =
        Orders::new(11, 0, stage.alliance.blueprint.start_s, &format!("again-{}", std::process::id()));
    stage.client("buyer:load-0", 0)?.book(orders.request()).await?;
    let all = began.elapsed().as_secs_f64();
    results.note(format!(
        "killed and started again: one node is level after {one:.1} s, all three have booked after {all:.1} s"
    ));
    Ok(())
}
