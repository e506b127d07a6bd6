//! The leader killed under load: how long nobody could book.

use crate::stage::Stage;
use anyhow::{Context as _, ensure};
use millpool_demo::small::Orders;
use millpool_proto::v1::CancelBookingRequest;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Clients that book meanwhile.
const CLIENTS: usize = 16;
/// Load before each kill, and after the dead node is back.
const CALM: Duration = Duration::from_secs(2);
/// How long a cluster may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// When bookings were acknowledged.
type Acknowledged = Arc<Mutex<Vec<Instant>>>;

/// Kills the leader `kills` times, and answers with each time without an acknowledged booking, s.
pub(crate) async fn run(stage: &mut Stage, kills: usize) -> anyhow::Result<Vec<f64>> {
    stage.forget_soon().await?;
    let acknowledged = Acknowledged::default();
    let (stop, stopped) = watch::channel(false);
    let mut clients = book(stage, &acknowledged, &stopped)?;
    let mut gaps = Vec::new();
    for kill in 1..=kills {
        tokio::time::sleep(CALM).await;
        let cluster = stage.cluster()?;
        let leader = cluster.wait_for_leader(PATIENCE).await?;
        cluster.kill_node(leader).await?;
        let killed = Instant::now();
        let gap = loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if let Some(gap) = gap(&acknowledged, killed) {
                break gap;
            }
            ensure!(
                killed.elapsed() < PATIENCE,
                "no booking was acknowledged within {PATIENCE:?} of kill {kill}"
            );
        };
        eprintln!(
            "kill {kill} of {kills}: node {} died, {:.3} s without a booking",
            leader + 1,
            gap.as_secs_f64()
        );
        gaps.push(gap.as_secs_f64());
        stage.cluster()?.start_node(leader)?;
        stage.cluster()?.wait_until_level(PATIENCE).await?;
        acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
    let _ = stop.send(true);
    while let Some(ended) = clients.join_next().await {
        ended.context("a client")?;
    }
    Ok(gaps)
}

fn gap(acknowledged: &Acknowledged, killed: Instant) -> Option<Duration> {
    let all = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
    let after = all.iter().filter(|at| **at > killed).min()?;
    let before = all.iter().filter(|at| **at <= killed).max().copied().unwrap_or(killed);
    Some(*after - before)
}

/// Clients that book and cancel, over and over.
fn book(
    stage: &Stage,
    acknowledged: &Acknowledged,
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<JoinSet<()>> {
    let mut clients = JoinSet::new();
    let run = format!("kills-{}", std::process::id());
    for (number, (_, client)) in stage.buyers(CLIENTS)?.into_iter().enumerate() {
        let mut orders = Orders::new(7, number, stage.alliance.blueprint.start_s, &run);
        let (acknowledged, stopped) = (acknowledged.clone(), stopped.clone());
        clients.spawn(async move {
            while !*stopped.borrow() {
                let Ok(answer) = client.book(orders.request()).await else { continue };
                acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                let booking_id = answer.booking.map(|booking| booking.id).unwrap_or_default();
                drop(client.cancel_booking(CancelBookingRequest { booking_id, ..Default::default() }).await);
            }
        });
    }
    Ok(clients)
}
