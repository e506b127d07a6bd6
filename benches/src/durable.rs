//! kill -9 of a random node, or of all of them, under booking load, round after round; then every
//! acknowledged booking must be there, once, as it was promised.

use crate::args::Args;
use crate::report::KillLoop;
use crate::small::Orders;
use crate::stage::Stage;
use anyhow::Context as _;
use millpool_cli::client::{Client, ErrorKind};
use millpool_demo::checks::{Fault, agreement, evidence, logs, plan, said};
use millpool_demo::cluster::NODES;
use millpool_demo::ledger::{Ledger, Standing};
use millpool_proto::v1::CancelBookingRequest;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Clients that book meanwhile.
const CLIENTS: usize = 16;
/// Pause of a client between two bookings: the loop is about deaths, not about speed.
const THINK: Duration = Duration::from_millis(25);
/// Of so many bookings all but one are cancelled, so that the pool does not fill up.
const KEPT_ONE_OF: u64 = 8;
/// Every so many rounds the nodes get the time to become level again.
const LEVEL_EVERY: usize = 10;
/// How long a cluster may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Acknowledged requests that are repeated at the end.
const REPEATED_MAX: usize = 2000;

/// What the clients share.
struct Load {
    ledger: Ledger,
    refused: AtomicU64,
}

/// Runs the rounds and the checks.
pub(crate) async fn run(stage: &mut Stage, args: &Args, rounds: usize) -> anyhow::Result<KillLoop> {
    let load = Arc::new(Load { ledger: Ledger::default(), refused: AtomicU64::new(0) });
    let buyers: BTreeMap<String, Client> = stage.buyers(CLIENTS)?.into_iter().collect();
    let (stop, stopped) = watch::channel(false);
    let mut clients = book(stage, args.seed, &buyers, &load, &stopped);
    let mut random = StdRng::seed_from_u64(args.seed);
    let mut killed = 0;
    for round in 1..=rounds {
        let all = args.all_every > 0 && round % args.all_every == 0;
        killed += self::round(stage, &mut random, all).await?;
        if round % LEVEL_EVERY == 0 || round == rounds {
            stage.wait_until_level(PATIENCE).await?;
            eprintln!("round {round} of {rounds}: {} bookings acknowledged", load.ledger.told().len());
        }
    }
    let _ = stop.send(true);
    while let Some(ended) = clients.join_next().await {
        ended.context("a client")?;
    }
    let mut result = check(stage, &load.ledger, &buyers).await?;
    (result.rounds, result.nodes_killed) = (rounds, killed);
    result.refused = load.refused.load(Ordering::Relaxed);
    Ok(result)
}

/// One round: a while of load, a death, a while without the dead, and their return. Answers with how many
/// died.
async fn round(stage: &mut Stage, random: &mut StdRng, all: bool) -> anyhow::Result<usize> {
    let mut pause = async |ms: std::ops::Range<u64>| {
        tokio::time::sleep(Duration::from_millis(random.random_range(ms))).await;
    };
    pause(300..1800).await;
    let first = random.random_range(0..NODES);
    let dead: Vec<usize> = if all { (0..NODES).collect() } else { vec![first] };
    let cluster = stage.cluster()?;
    cluster.check_alive()?;
    for index in &dead {
        cluster.kill_node(*index).await?;
    }
    tokio::time::sleep(Duration::from_millis(random.random_range(50..2500))).await;
    for index in &dead {
        cluster.start_node(*index)?;
    }
    // The next death may come at once, but a majority must be up: a node that only just started counts
    // when it answers.
    for index in &dead {
        let began = std::time::Instant::now();
        while cluster.status(*index).await.is_none() {
            cluster.check_alive()?;
            anyhow::ensure!(
                began.elapsed() < PATIENCE,
                "node {} does not answer after its restart",
                index + 1
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(dead.len())
}

/// Clients that book, keep one in a few, and cancel the others.
fn book(
    stage: &Stage,
    seed: u64,
    buyers: &BTreeMap<String, Client>,
    load: &Arc<Load>,
    stopped: &watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    let run = format!("loop-{}", std::process::id());
    for (number, (buyer, client)) in buyers.iter().enumerate() {
        let mut orders = Orders::new(seed, number, stage.alliance.blueprint.start_s, &run);
        let (buyer, client, load, stopped) = (buyer.clone(), client.clone(), load.clone(), stopped.clone());
        clients.spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                count += 1;
                let request = orders.request();
                match client.book(request.clone()).await {
                    Ok(answer) => {
                        let booking = answer.booking.unwrap_or_default();
                        load.ledger.booked(&buyer, request, &booking);
                        if count % KEPT_ONE_OF != 0 {
                            cancel(&client, &load.ledger, booking.id).await;
                        }
                    }
                    Err(error) if error.kind == ErrorKind::Refused => {
                        load.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => load.ledger.in_doubt(&buyer, request),
                }
                tokio::time::sleep(THINK).await;
            }
        });
    }
    clients
}

async fn cancel(client: &Client, ledger: &Ledger, booking_id: String) {
    let request = CancelBookingRequest { booking_id: booking_id.clone(), ..CancelBookingRequest::default() };
    match client.cancel_booking(request).await {
        Ok(_) => ledger.now_stands(&booking_id, Standing::Cancelled),
        Err(error) if error.kind == ErrorKind::Refused => {}
        Err(_) => ledger.now_stands(&booking_id, Standing::InDoubt),
    }
}

/// Holds everything that was acknowledged against what is there.
async fn check(
    stage: &mut Stage,
    ledger: &Ledger,
    buyers: &BTreeMap<String, Client>,
) -> anyhow::Result<KillLoop> {
    let operator = stage.client("operator:load", 0)?;
    let clients = |buyer: &str| buyers[buyer].clone();
    let doubts = ledger.doubts().len();
    let left = said::settle_doubts(&clients, ledger).await;
    let (mut faults, repeated) = said::repeat(&clients, ledger, REPEATED_MAX).await;
    let evidence = evidence::gather(&operator, stage.alliance.blueprint.start_s).await?;
    faults.extend(said::judge(ledger, &evidence.bookings));
    faults.extend(plan::judge(&stage.alliance, &evidence.policy, &evidence.plan, &evidence.bookings));
    if left > 0 {
        faults.push(Fault::new("every request is answered in the end", format!("{left} are in doubt")));
    }
    if let Err(fault) = agreement::compare(stage.cluster()?, PATIENCE).await {
        faults.push(fault);
    }
    faults.extend(logs::judge(&stage.cluster()?.logs())?);
    Ok(KillLoop {
        acknowledged: ledger.told().len(),
        in_doubt_at_first: doubts,
        repeated,
        bookings: evidence.bookings.len(),
        faults: faults.iter().map(ToString::to_string).collect(),
        ..KillLoop::default()
    })
}
