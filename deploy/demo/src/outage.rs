//! The leader's death by SIGKILL while buyers go on, and what it cost them.

use crate::market::Market;
use anyhow::Context as _;
use millpool_demo::cluster::Cluster;
use std::time::{Duration, Instant};

/// How long the others may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the dead node stays dead.
const DEAD_FOR: Duration = Duration::from_secs(2);

/// What the death cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    /// Node that died.
    pub(crate) died: usize,
    /// Node that leads instead.
    pub(crate) leads: usize,
    /// From the last acknowledged write before the death to the first after it; None where the buyers had
    /// nothing to write.
    pub(crate) without_writes: Option<Duration>,
}

/// Kills the leader, waits for the next and for a write under it, and starts the dead node again.
pub(crate) async fn kill_leader(
    cluster: &mut Cluster,
    market: &Market,
    more_to_come: bool,
) -> anyhow::Result<Outage> {
    let died = cluster.wait_for_leader(PATIENCE).await?;
    cluster.kill_node(died).await.context("killing the leader")?;
    let killed = Instant::now();
    let leads = cluster.wait_for_leader(PATIENCE).await.context("after the leader's death")?;
    while more_to_come && gap(market, killed).is_none() && killed.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let without_writes = gap(market, killed);
    tokio::time::sleep(DEAD_FOR).await;
    cluster.start_node(died)?;
    Ok(Outage { died: died + 1, leads: leads + 1, without_writes })
}

/// The time without an acknowledged write around an instant, once there is one after it.
fn gap(market: &Market, killed: Instant) -> Option<Duration> {
    let tally = market.tally();
    let after = tally.acknowledged.iter().filter(|at| **at > killed).min()?;
    let before = tally.acknowledged.iter().filter(|at| **at <= killed).max().copied().unwrap_or(killed);
    Some(*after - before)
}
