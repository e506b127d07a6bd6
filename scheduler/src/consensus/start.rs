//! Putting the room together: the store's identity is checked, what it has is recovered, and openraft is
//! started on it.

use super::agreement::{Agreement, Hashes, Observer};
use super::disk::{Durability, LogDisk, REPLACE, Slot, Storage, Write};
use super::error::{DecodeError, StartError, StopReason};
use super::handle::{Handle, Inner};
use super::log::LogStore;
use super::machine::{Machine, Outlets};
use super::network::{Peers, Transport};
use super::service::Forward;
use super::snapshot::{Body, Snapshots};
use super::stop::Stop;
use super::types::{LogId, NodeId, Types};
use super::view::Shared;
use super::{Options, StateMachine, format, limits};
use bytes::Bytes;
use millpool_proto::log::v1 as pb;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Config, Raft, ServerState, SnapshotPolicy};
use std::io;
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};

/// Starts a node on its storage. `initial` is the state before the first entry; `forward` executes what
/// other coordinators pass on.
pub async fn start<S: StateMachine>(
    options: Options,
    initial: S,
    storage: Storage,
    transport: Transport,
    forward: Arc<dyn Forward>,
) -> Result<Handle<S>, StartError> {
    check(&options)?;
    let store_id = identify(storage.log.as_ref(), &options)?;
    let stop = Stop::new();
    let (log, writer_end) = LogStore::open(storage.log.clone(), storage.offload, stop.clone())?;
    let snapshots =
        Snapshots::new(storage.snapshots.clone(), storage.offload, &options.cluster_id, stop.clone());
    let shared = Shared::new(initial);
    let (revision, applied) = watch::channel(0);
    let (term, applied_term) = watch::channel(0);
    let (changes, _) = broadcast::channel(options.events_kept);
    let (observer, set_aside) = Observer::new(options.hash_every_entries);
    let weak_changes = changes.downgrade();
    let outlets = Outlets { shared: shared.clone(), revision, changes, term, observer, stop: stop.clone() };
    // Read here too, so that damage is reported as what it is.
    let newest = snapshots.newest().await?;
    meets(newest.as_ref(), log.purged(), &snapshots)?;
    let machine = Machine::new(outlets, snapshots);
    let peers = Peers::new(&options.cluster_id, options.node_id, transport, limits::APPEND_STALL);
    let config = Arc::new(config(&options)?);
    let raft = Raft::new(options.node_id, config, peers.clone(), log, machine);
    let raft = raft.await.map_err(|e| match stop.get() {
        Some(reason) => StartError::Core(reason.to_string()),
        None => StartError::Core(e.to_string()),
    })?;
    let hashes = Hashes::default();
    let (readers, waiting) = mpsc::channel(limits::READERS_MAX);
    let handle = Handle(Arc::new(Inner {
        store_id,
        offload: storage.offload,
        raft: raft.clone(),
        peers: peers.clone(),
        stop: stop.clone(),
        hashes: hashes.clone(),
        shared,
        applied,
        applied_term,
        changes: weak_changes,
        slots: Arc::new(Semaphore::new(options.proposals_in_flight_max)),
        bytes: Arc::new(Semaphore::new(limits::PROPOSAL_BYTES_IN_FLIGHT_MAX)),
        forward,
        readers,
        writer_end: Mutex::new(Some(writer_end)),
        options,
    }));
    let (leader, led_by) = watch::channel(None);
    let agreement = Agreement {
        peers: peers.clone(),
        leader: led_by,
        hashes,
        offload: storage.offload,
        stop: stop.clone(),
    };
    tokio::spawn(handle.clone().answer_readers(waiting));
    tokio::spawn(agreement.run(set_aside));
    tokio::spawn(follow(raft.clone(), peers, leader, stop.clone()));
    tokio::spawn(async move {
        // Whatever the reason, a node that has stopped serves nothing more.
        stop.wait().await;
        let _ = raft.shutdown().await;
    });
    Ok(handle)
}

pub(super) fn check(options: &Options) -> Result<(), StartError> {
    let bad = |what: &str| Err(StartError::Options(what.to_owned()));
    if options.node_id == 0 || options.cluster_id.is_empty() {
        return bad("node id and cluster id must be given");
    }
    if options.fresh_store_id == 0 {
        return bad("the fresh store id must not be 0");
    }
    if options.heartbeat_interval * 3 > options.election_timeout_min {
        return bad("an election timeout must be at least three heartbeats");
    }
    if options.election_timeout_min >= options.election_timeout_max {
        return bad("the least election timeout must be below the greatest");
    }
    Ok(())
}

/// Checks whose store this is, or makes it this node's. Answers with the store's number.
fn identify(disk: &dyn LogDisk, options: &Options) -> Result<u64, StartError> {
    if let Some(bytes) = disk.slot(Slot::Identity)? {
        let told = |e: DecodeError| damaged(format!("{} cannot be used: {e}", disk.place()));
        let found: pb::StoreIdentity = format::decode("the store's identity", bytes).map_err(told)?;
        format::check_format("the store", found.format).map_err(told)?;
        if found.cluster_id == options.cluster_id && found.node_id == options.node_id {
            return Ok(found.store_id);
        }
        return Err(StartError::OtherStore {
            cluster: options.cluster_id.clone(),
            node: options.node_id,
            found_cluster: found.cluster_id,
            found_node: found.node_id,
        });
    }
    if disk.last_index()?.is_some() || disk.slot(Slot::Vote)?.is_some() {
        return Err(damaged(format!(
            "{} has entries and no identity: it is damaged. {REPLACE}",
            disk.place()
        )));
    }
    disk.write(vec![Write::Slot(Slot::Identity, identity(options))], Durability::Synced)?;
    Ok(options.fresh_store_id)
}

/// What a new store of this node's says whose it is.
pub(super) fn identity(options: &Options) -> Bytes {
    format::encode(&pb::StoreIdentity {
        format: format::FORMAT,
        cluster_id: options.cluster_id.clone(),
        node_id: options.node_id,
        store_id: options.fresh_store_id,
    })
}

/// A log that begins after the newest snapshot has lost another one: what lies between is nowhere.
pub(super) fn meets(
    newest: Option<&Body>,
    purged: Option<LogId>,
    snapshots: &Snapshots,
) -> Result<(), StartError> {
    let has = newest.and_then(|body| body.header.last_log_id).map(|id| id.index);
    let Some(needs) = purged.map(|id| id.index).filter(|needs| has < Some(*needs)) else {
        return Ok(());
    };
    let found = has.map_or("there is none".to_owned(), |index| format!("the newest is at {index}"));
    Err(damaged(format!(
        "{} lacks a snapshot at entry {needs} or later: {found}. {REPLACE}",
        snapshots.place()
    )))
}

pub(super) fn damaged(what: String) -> StartError {
    StartError::Storage(io::Error::new(io::ErrorKind::InvalidData, what))
}

fn config(options: &Options) -> Result<Config, StartError> {
    let config = Config {
        cluster_name: options.cluster_id.clone(),
        heartbeat_interval: options.heartbeat_interval.as_millis() as u64,
        election_timeout_min: options.election_timeout_min.as_millis() as u64,
        election_timeout_max: options.election_timeout_max.as_millis() as u64,
        install_snapshot_timeout: options.snapshot_timeout.as_millis() as u64,
        max_payload_entries: limits::APPEND_ENTRIES_MAX,
        // Above what a follower can lack while the log still has it.
        replication_lag_threshold: options.snapshot_every_entries + options.log_keep_entries + 1,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_every_entries),
        max_in_snapshot_log_to_keep: options.log_keep_entries,
        purge_batch_size: (options.log_keep_entries / 8).clamp(1, 1024),
        // Room for every proposal that holds a permit, and for the peers' requests.
        api_channel_size: Some(2 * options.proposals_in_flight_max as u64 + 1024),
        backoff: "50ms 100ms 200ms ...1000ms".into(),
        enable_pre_vote: Some(true),
        // A leader that hears from no majority falls silent now and then, so that those who still
        // hear it may elect another.
        quorum_loss_probe_interval: Some(2 * options.election_timeout_max.as_millis() as u64),
        // Replication starts while the leader's own fsync runs: a lone proposal is answered sooner.
        broadcast_submitted_on_append: Some(true),
        // A leader that restarts is elected again, and so commits an entry of its new term before
        // it serves: what it knew to be committed was not synced, and may be older than what it
        // had acknowledged.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|e| StartError::Options(e.to_string()))
}

/// Keeps the peers' addresses and the leader up to date, and notices when the core stops by itself.
async fn follow<S: StateMachine>(
    raft: Raft<Types, Machine<S>>,
    peers: Peers,
    leader: watch::Sender<Option<NodeId>>,
    stop: Stop,
) {
    // These change with terms, leaders and members; the others with every entry.
    let mut server = raft.server_metrics();
    let term = metrics::gauge!("millpool_consensus_term");
    let is_leader = metrics::gauge!("millpool_consensus_is_leader");
    loop {
        {
            let now = server.borrow_and_update();
            let nodes = now.membership_config.membership().nodes();
            peers.set_members(nodes.map(|(id, member)| (*id, member.clone())).collect());
            leader
                .send_if_modified(|known| std::mem::replace(known, now.current_leader) != now.current_leader);
            term.set(now.vote.leader_id.term as f64);
            is_leader.set(f64::from(u8::from(now.state == ServerState::Leader)));
        }
        if server.changed().await.is_err() {
            break;
        }
    }
    // The core has ended. Unless somebody knew better before, it says why.
    is_leader.set(0.0);
    let last = raft.metrics().borrow_watched().running_state.clone();
    stop.set(StopReason::Core(last.err().map_or_else(|| "it ended".into(), |fatal| fatal.to_string())));
}
