//! SIGSTOP, and SIGCONT later: a node that stands still and then goes on as if no time had passed, as a virtual
//! machine does that is moved.

use crate::stage::{Account, Run, Stage};
use millpool_demo::cluster::NODES;
use rand::RngExt as _;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long a thawed node may take for a read that it must not answer from memory.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// The leader stands still: for less than an election takes, or for long. When it goes on it must not answer from
/// what it knew before.
pub(crate) async fn leader(run: &Run) -> anyhow::Result<Account> {
    let mut stage = Stage::busy(run).await?;
    let mut random = run.random();
    let mut answered = 0;
    for round in 0..run.rounds {
        let frozen = stage.leader().await?;
        let is_long = round % 3 != 2;
        let still_ms = if is_long { random.random_range(3000..6000) } else { random.random_range(100..1000) };
        let began = Instant::now();
        stage.cluster.signal_node(frozen, Signal::STOP)?;
        if is_long {
            // The others go on without it.
            stage.answers_after(began + Duration::from_millis(50)).await?;
        }
        tokio::time::sleep(Duration::from_millis(still_ms).saturating_sub(began.elapsed())).await;
        stage.cluster.signal_node(frozen, Signal::CONT)?;
        let thawed = Instant::now();
        answered += usize::from(stage.reads_freshly(frozen, READ_WITHIN).await?);
        stage.recovers(began, thawed).await?;
    }
    stage.account.notes.push(format!("{answered} of {} fresh reads answered by the thawed node", run.rounds));
    stage.finish().await
}

/// All nodes stand still and go on together.
pub(crate) async fn all(run: &Run) -> anyhow::Result<Account> {
    let mut stage = Stage::busy(run).await?;
    let mut random = run.random();
    for _ in 0..run.rounds {
        let began = Instant::now();
        for index in 0..NODES {
            stage.cluster.signal_node(index, Signal::STOP)?;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(500..5000))).await;
        for index in 0..NODES {
            stage.cluster.signal_node(index, Signal::CONT)?;
        }
        stage.recovers(began, Instant::now()).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stage.finish().await
}
