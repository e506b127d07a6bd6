//! A node's disk that is full, or has turned read-only: the node stops and says so, the others go on, and with a
//! sound disk it is back.

use crate::check::broken;
use crate::machine::Need;
use crate::stage::{ANSWERS_WITHIN, Account, Run, Stage};
use crate::volume::{self, Volume};
use millpool_demo::cluster::NODES;
use std::fs;
use std::time::{Duration, Instant};

/// What these scenarios need.
pub(crate) const NEEDS: &[Need] = volume::NEEDS;

/// How long a node may go on whose disk takes nothing more.
const STOPS_WITHIN: Duration = Duration::from_secs(15);
/// What a node says when its disk fails: that it does, and what to do.
const STOPPED: [&str; 2] = ["storage failed", "check the disk, then restart or replace the node"];

/// What befalls a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Full,
    ReadOnly,
}

/// A disk is full: of the leader first, then of the others.
pub(crate) async fn full(run: &Run) -> anyhow::Result<Account> {
    play(run, Trouble::Full).await
}

/// A disk turns read-only: of the leader first, then of the others.
pub(crate) async fn read_only(run: &Run) -> anyhow::Result<Account> {
    play(run, Trouble::ReadOnly).await
}

async fn play(run: &Run, trouble: Trouble) -> anyhow::Result<Account> {
    let mut options = run.options();
    let mut volumes = Vec::new();
    for (index, site) in options.sites.iter_mut().enumerate() {
        let mount = run.folder.join(format!("disk-{}", index + 1));
        volumes.push(Volume::create(&mount)?);
        site.folder = mount.join("data");
    }
    // Dropped in turn: first the nodes, then what they stand on.
    let mut stage = Stage::set_up(run, options).await?;
    stage.go_to_work().await?;
    for round in 0..run.rounds {
        let leader = stage.leader().await?;
        let index = (leader + round) % NODES;
        strike(&mut stage, &mut volumes[index], index, trouble).await?;
    }
    let account = stage.finish().await;
    drop(volumes);
    account
}

async fn strike(
    stage: &mut Stage,
    volume: &mut Volume,
    index: usize,
    trouble: Trouble,
) -> anyhow::Result<()> {
    let log = stage.cluster.log_file(index);
    let said_before = fs::metadata(&log)?.len() as usize;
    let began = Instant::now();
    match trouble {
        Trouble::Full => volume.fill()?,
        Trouble::ReadOnly => volume.turn_read_only()?,
    }
    let ended = stage.cluster.wait_for_end(index, STOPS_WITHIN).await?;
    let said = fs::read_to_string(&log)?.split_off(said_before);
    let Some(ended) = ended else {
        return Err(broken(format!("node {} goes on with its disk {trouble:?}:\n{said}", index + 1)));
    };
    if ended.code() != Some(1) || !STOPPED.iter().all(|part| said.contains(part)) {
        return Err(broken(format!("node {} did not say what is wrong ({ended}):\n{said}", index + 1)));
    }
    let stopped = began.elapsed();
    // The others go on.
    stage.answers_after(Instant::now()).await?;
    refuses_to_start(stage, index, trouble).await?;
    match trouble {
        Trouble::Full => volume.free()?,
        Trouble::ReadOnly => volume.repair()?,
    }
    stage.cluster.start_node(index)?;
    stage.recovers(began, Instant::now()).await?;
    stage.account.notes.push(format!("node {} stopped after {:.2} s", index + 1, stopped.as_secs_f64()));
    Ok(())
}

/// While the trouble lasts, a node that is started says what is wrong with which folder, and ends.
async fn refuses_to_start(stage: &mut Stage, index: usize, trouble: Trouble) -> anyhow::Result<()> {
    let log = stage.cluster.log_file(index);
    let said_before = fs::metadata(&log)?.len() as usize;
    stage.cluster.start_node(index)?;
    let ended = stage.cluster.wait_for_end(index, ANSWERS_WITHIN).await?;
    let said = fs::read_to_string(&log)?.split_off(said_before);
    let reason = match trouble {
        Trouble::Full => "No space left on device",
        Trouble::ReadOnly => "Read-only file system",
    };
    let place = stage.cluster.folder(index).display().to_string();
    let is_clear =
        said.contains(reason) && (said.contains(&place) || STOPPED.iter().all(|part| said.contains(part)));
    match ended {
        Some(ended) if !ended.success() && is_clear && !said.contains("panicked at") => Ok(()),
        ended => {
            let how = format!("node {}, started with its disk {trouble:?}, {ended:?}:\n{said}", index + 1);
            Err(broken(how))
        }
    }
}
