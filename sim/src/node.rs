//! A coordinator as a host of the simulation: the shipped code on a simulated disk, clock and network.

use crate::network::{self, PEER_PORT, PUBLIC_PORT};
use crate::world::{Shared, clock, name};
use millpool_alliance::Format;
use millpool_scheduler::api::Access;
use millpool_scheduler::config::FirstMember;
use millpool_scheduler::consensus::{Offload, Options, StopReason, Transport};
use millpool_scheduler::planner::Schedule;
use millpool_scheduler::serve::{self, Ground};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The cluster's name.
pub const CLUSTER: &str = "sim";

/// What a seed decides about all nodes.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Entries after which a snapshot is written.
    pub snapshot_every: u64,
    /// Entries kept before it.
    pub log_keep: u64,
    /// Tries of an optimisation; none without.
    pub tries: u64,
    /// The first nodes begin with an older version, and are upgraded when they come back from a crash.
    pub begins_old: bool,
}

/// Where the clients find a node, and where its peers do.
pub fn member(index: usize) -> FirstMember {
    FirstMember {
        node_id: index as u64 + 1,
        peer_address: format!("{}:{PEER_PORT}", name(index)),
        public_address: format!("{}:{PUBLIC_PORT}", name(index)),
    }
}

/// Runs until it stops by itself; a crash just drops it.
pub async fn run(world: Shared, index: usize, setting: Setting) -> turmoil::Result {
    let (disk, first, scale, starts) = {
        let mut world = world.borrow_mut();
        let (first, scale) = (world.first, world.scale);
        let node = &mut world.nodes[index];
        node.starts += 1;
        node.stopped = None;
        let is_old = setting.begins_old && node.starts == 1 && index < first;
        node.reads = if is_old { Format::FIRST } else { Format::NEWEST };
        (node.disk.clone(), first, scale, node.starts)
    };
    let reads = world.borrow().nodes[index].reads;
    let store_id = (index as u64 + 1) << 32 | starts;
    let ground = Ground {
        options: Options {
            snapshot_every_entries: setting.snapshot_every,
            log_keep_entries: setting.log_keep,
            hash_every_entries: 16,
            ..Options::new(CLUSTER, index as u64 + 1, store_id)
        },
        storage: disk.storage(Offload::Inline),
        transport: Transport::new("http", Arc::new(|endpoint| Ok(network::dial(&endpoint)))),
        clock: clock::of(index, scale),
        schedule: Schedule {
            every: Duration::from_millis(2500),
            time_limit: Duration::from_millis(if setting.tries == 0 { 0 } else { 600 }),
            threads: 1,
            tries: Some(setting.tries),
        },
        // Shorter than most of what keeps a plant's agent away.
        silent_after: Duration::from_millis(500),
        reads,
    };
    let core = match serve::assemble(ground, Access { insecure_dev: true }).await {
        Ok(core) => core,
        Err(failed) => {
            let mut world = world.borrow_mut();
            world.wrong.push(format!("{} cannot start: {failed}", name(index)));
            world.nodes[index].stopped = Some("it cannot start".into());
            return Ok(());
        }
    };
    let consensus = core.consensus.clone();
    world.borrow_mut().nodes[index].handle = Some(consensus.clone());
    let (_stopping, stop) = watch::channel(false);
    let (peers, public) = (network::listen(PEER_PORT).await?, network::listen(PUBLIC_PORT).await?);
    tokio::spawn(serve::serve_peers(consensus.clone(), peers, None, stop.clone()));
    tokio::spawn(serve::serve_public(core, public, None, stop));
    if index < first {
        tokio::spawn(serve::form_cluster(consensus.clone(), (0..first).map(member).collect()));
    }
    let reason = consensus.stop_reason().await;
    let mut world = world.borrow_mut();
    // Nothing else is a reason in a storm.
    if !matches!(reason, StopReason::Storage(_)) {
        world.wrong.push(format!("{} has stopped: {reason}", name(index)));
    }
    let node = &mut world.nodes[index];
    node.handle = None;
    node.stopped = Some(reason.to_string());
    Ok(())
}
