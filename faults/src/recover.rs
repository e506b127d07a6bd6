//! The end of a cluster, and how its alliance begins again in another one.

use crate::check::broken;
use crate::operate::join;
use crate::stage::{Account, LEVEL_WITHIN, Run, Stage};
use anyhow::Context as _;
use millpool_cli::client::Client;
use millpool_demo::cluster::NODES;
use millpool_proto::v1::{BackupRequest, GetStatusRequest};
use std::path::Path;
use std::process::Output;
use std::time::Instant;

/// The node that is left where a quorum is lost.
const SURVIVOR: usize = 2;
/// How an operator explains himself.
const REASON: &str = "the machine rooms are gone";

/// A backup is taken while buyers book. Then all nodes are lost with their disks, and the alliance goes on from another
/// one, taken when the buyers were at rest, so that nothing that was acknowledged may be missing.
pub(crate) async fn from_backup(run: &Run) -> anyhow::Result<Account> {
    let mut stage = Stage::busy(run).await?;
    for round in 0..run.rounds {
        let (busy, rest) = (
            run.folder.join(format!("{round}-busy.backup")),
            run.folder.join(format!("{round}-rest.backup")),
        );
        let (began, before) = (Instant::now(), stage.book().count());
        back_up(&stage.operator, &busy).await?;
        let took = began.elapsed();
        stage.answers_after(Instant::now()).await?;
        let unanswered = stage.book().longest_gap(began, began + took);
        let after = stage.book().count();
        stage.load.rest().await?;
        back_up(&stage.operator, &rest).await?;

        lose(&mut stage, &[0, 1, 2]).await?;
        let note =
            format!("backup under load: {took:.0?}, at most {unanswered:.0?} without a booking meanwhile");
        stage.account.notes.push(note);
        // The first backup must do, too: every booking that was acknowledged before it is in it.
        stage.cluster.begin_again(&format!("trial-{round}"))?;
        let told = restore(&stage, &busy).await?;
        let has = bookings(&told)?;
        if has < before {
            return Err(broken(format!(
                "a backup has {has} bookings, and {before} were acknowledged before it"
            )));
        }
        stage
            .account
            .notes
            .push(format!("it has {has} bookings; acknowledged before {before}, after {after}"));
        go_on(&mut stage, &format!("again-{round}"), &rest).await?;
    }
    stage.finish().await
}

/// Two of three nodes are lost with their disks. What the third one has is salvaged, and goes on in a new cluster.
pub(crate) async fn from_one_node(run: &Run) -> anyhow::Result<Account> {
    let mut stage = Stage::busy(run).await?;
    for round in 0..run.rounds {
        stage.load.rest().await?;
        let level = stage.cluster.wait_until_level(LEVEL_WITHIN).await;
        level.map_err(|error| broken(format!("{error:#}")))?;
        let left = run.folder.join(format!("{round}-left.backup"));
        let left = left.to_str().context("a folder's name that is no text")?;
        let running = stage.cluster.perform(SURVIVOR, &["salvage", left]).await?;
        if running.status.success() {
            return Err(broken("a node that runs was salvaged"));
        }
        lose(&mut stage, &[0, 1]).await?;
        stage.cluster.kill_node(SURVIVOR).await?;
        succeeded(stage.cluster.perform(SURVIVOR, &["salvage", left]).await?)?;
        go_on(&mut stage, &format!("again-{round}"), Path::new(left)).await?;
    }
    stage.finish().await
}

/// Nodes die with their disks.
async fn lose(stage: &mut Stage, indexes: &[usize]) -> anyhow::Result<()> {
    stage.check_alive()?;
    for index in indexes {
        stage.cluster.kill_node(*index).await?;
        std::fs::remove_dir_all(stage.cluster.folder(*index)).context("losing a disk")?;
    }
    Ok(())
}

/// The alliance goes on in a cluster of another name, and buyers go back to work. All nodes are dead.
async fn go_on(stage: &mut Stage, cluster_id: &str, backup: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    stage.cluster.begin_again(cluster_id)?;
    restore(stage, backup).await?;
    stage.cluster.start_node(0)?;
    let led = stage.cluster.wait_for_leader(LEVEL_WITHIN).await;
    led.map_err(|error| broken(format!("a restored node does not lead: {error:#}")))?;
    for index in 1..NODES {
        stage.cluster.start_node(index)?;
        join(stage, index).await?;
    }
    let status = stage.operator.get_status(GetStatusRequest {}).await.map_err(|e| broken(e.to_string()))?;
    if status.restorations.last().is_none_or(|last| last.reason != REASON) {
        return Err(broken("nothing says that the alliance was restored"));
    }
    stage.account.notes.push(format!("from a backup to three nodes: {:.1?}", began.elapsed()));
    stage.go_to_work().await?;
    stage.recovers(Instant::now(), Instant::now()).await
}

async fn restore(stage: &Stage, backup: &Path) -> anyhow::Result<String> {
    let backup = backup.to_str().context("a folder's name that is no text")?;
    succeeded(stage.cluster.perform(0, &["restore", backup, "--reason", REASON]).await?)
}

/// What a command said that did what it was told.
fn succeeded(output: Output) -> anyhow::Result<String> {
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(told),
        false => Err(broken(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// "... with 123 bookings, ..."
fn bookings(told: &str) -> anyhow::Result<usize> {
    let before = told.split(" bookings").next().and_then(|text| text.rsplit(' ').next());
    before.and_then(|number| number.parse().ok()).context("a restore does not say how many bookings it has")
}

async fn back_up(operator: &Client, to: &Path) -> anyhow::Result<()> {
    let failed = |error| broken(format!("a backup could not be taken: {error}"));
    let mut file = std::fs::File::create_new(to).context("making a backup's file")?;
    let mut backup = operator.backup(BackupRequest::default()).await.map_err(failed)?;
    while let Some(bytes) = backup.next().await.map_err(failed)? {
        std::io::Write::write_all(&mut file, &bytes)?;
    }
    Ok(())
}
