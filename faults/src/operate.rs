//! What operators do while buyers book: restarts, upgrades and replacements, one node after the other.

use crate::check::broken;
use crate::stage::{Account, Run, Stage};
use anyhow::Context as _;
use millpool_demo::cluster::{NODES, Version};
use millpool_demo::setup;
use millpool_proto::v1::{
    AddNodeRequest, GetStatusRequest, RemoveNodeRequest, TakeSnapshotRequest, TransferLeaderRequest,
};
use std::time::{Duration, Instant};

/// Once the last node is upgraded, the cluster goes on to the new format within this.
const RAISED_WITHIN: Duration = Duration::from_secs(15);

/// Every node in turn is asked to stop, and is started again once it has.
pub(crate) async fn rolling_restart(run: &Run) -> anyhow::Result<Account> {
    let mut stage = Stage::busy(run).await?;
    for _ in 0..run.rounds {
        for index in 0..NODES {
            restart(&mut stage, index).await?;
        }
    }
    stage.finish().await
}

async fn restart(stage: &mut Stage, index: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    stage.check_alive()?;
    stage.cluster.terminate_node(index).await.map_err(|error| broken(format!("{error:#}")))?;
    stage.cluster.start_node(index)?;
    stage.recovers(began, Instant::now()).await
}

/// Every node in turn is stopped, and started again in the present version. Each then leads those that are not yet
/// upgraded, and takes a snapshot; only when the last one is upgraded may the format rise.
pub(crate) async fn rolling_upgrade(run: &Run) -> anyhow::Result<Account> {
    let mut stage = {
        let mut options = run.options();
        options.begins = run.args.former.clone().map_or(Version::HeldBack, Version::Binary);
        let mut stage = Stage::set_up(run, options).await?;
        stage.go_to_work().await?;
        stage
    };
    let former = raised(&stage).await?;
    for index in 0..NODES {
        let status = stage.operator.get_status(GetStatusRequest {}).await;
        let status = status.map_err(|error| broken(error.to_string()))?;
        if status.format.max(1) != former {
            return Err(broken("the format rose before the last node was upgraded"));
        }
        stage.cluster.upgrade_node(index);
        restart(&mut stage, index).await?;
        let node_id = stage.cluster.as_member(index).id;
        let lead = stage.operator.transfer_leader(TransferLeaderRequest { node_id }).await;
        lead.map_err(|error| broken(format!("node {node_id} could not be given the lead: {error}")))?;
        stage.operator.take_snapshot(TakeSnapshotRequest {}).await.context("taking a snapshot")?;
    }
    let began = Instant::now();
    let (present, took) = (raised(&stage).await?, began.elapsed());
    let note =
        format!("format {present} instead of {former} was written within {took:.1?} of the last upgrade");
    stage.account.notes.push(note);
    // And on, in the new format, through one more restart of all.
    for index in 0..NODES {
        restart(&mut stage, index).await?;
    }
    stage.finish().await
}

/// The format that the cluster comes to write.
async fn raised(stage: &Stage) -> anyhow::Result<u32> {
    setup::wait_for_format(&stage.operator, RAISED_WITHIN).await.map_err(|error| broken(format!("{error:#}")))
}

/// A node dies with its disk, the leader first; it is removed, and a new one under a new id takes its place.
pub(crate) async fn replace_node(run: &Run) -> anyhow::Result<Account> {
    let mut stage = Stage::busy(run).await?;
    for round in 0..run.rounds {
        let index = if round == 0 { stage.leader().await? } else { round % NODES };
        let began = Instant::now();
        stage.check_alive()?;
        stage.cluster.kill_node(index).await?;
        std::fs::remove_dir_all(stage.cluster.folder(index)).context("losing a disk")?;
        stage.leader().await?;
        let node_id = stage.cluster.replace_node(index)?;
        let removed = stage.operator.remove_node(RemoveNodeRequest { node_id }).await;
        removed.map_err(|error| broken(format!("node {node_id} could not be removed: {error}")))?;
        stage.cluster.start_node(index)?;
        join(&stage, index).await?;
        stage.recovers(began, Instant::now()).await?;
    }
    stage.finish().await
}

/// Adds a node that has just been started.
pub(crate) async fn join(stage: &Stage, index: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    let node = stage.cluster.as_member(index);
    loop {
        let request = AddNodeRequest { node: Some(node.clone()) };
        match stage.operator.add_node(request).await {
            Ok(_) => return Ok(()),
            // It is not up yet.
            Err(error) if began.elapsed() > crate::stage::ANSWERS_WITHIN => {
                return Err(broken(format!("node {} could not be added: {error}", node.id)));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
