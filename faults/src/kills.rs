//! kill -9: of one node, and of all at once, round after round under load.

use crate::args::Plant;
use crate::stage::{Account, Run, Stage};
use millpool_demo::cluster::NODES;
use rand::RngExt as _;
use std::time::{Duration, Instant};

/// One node dies at a time, six in ten times the leader, and comes back after a while.
pub(crate) async fn one(run: &Run) -> anyhow::Result<Account> {
    let mut stage = Stage::busy(run).await?;
    let mut random = run.random();
    for _ in 0..run.rounds {
        let victim = match random.random_range(0..10) {
            0..6 => stage.leader().await?,
            _ => random.random_range(0..NODES),
        };
        let dead_ms = random.random_range(50..2500);
        round(run, &mut stage, &[victim], dead_ms).await?;
        // The next death finds the cluster at any moment of its work.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..800))).await;
    }
    stage.finish().await
}

/// All nodes die within a moment, and come back.
pub(crate) async fn all(run: &Run) -> anyhow::Result<Account> {
    let mut stage = Stage::busy(run).await?;
    let mut random = run.random();
    for _ in 0..run.rounds {
        let dead_ms = random.random_range(0..1000);
        round(run, &mut stage, &[0, 1, 2], dead_ms).await?;
        tokio::time::sleep(Duration::from_millis(random.random_range(300..1500))).await;
    }
    stage.finish().await
}

async fn round(run: &Run, stage: &mut Stage, victims: &[usize], dead_ms: u64) -> anyhow::Result<()> {
    stage.check_alive()?;
    let began = Instant::now();
    for index in victims {
        stage.cluster.kill_node(*index).await?;
    }
    tokio::time::sleep(Duration::from_millis(dead_ms)).await;
    if run.plants(Plant::Deaf) {
        for index in (0..NODES).filter(|index| !victims.contains(index)) {
            stage.cluster.kill_node(index).await?;
        }
        stage.cluster.start_node(victims[0])?;
    } else {
        for index in victims {
            stage.cluster.start_node(*index)?;
        }
    }
    stage.recovers(began, Instant::now()).await
}
