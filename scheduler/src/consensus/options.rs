//! What a node is told when it starts.

use super::{NodeId, limits};
use std::time::Duration;

/// How this node takes part in its cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster's name: a peer, and a store, with another one is refused.
    pub cluster_id: String,
    /// This node's id, never used before by another store in this cluster.
    pub node_id: NodeId,
    /// A random number, not 0. It names the store if this start creates it, and is ignored
    /// otherwise.
    pub fresh_store_id: u64,
    /// The newest format of the state machine's entries and snapshots that this node understands.
    pub format_max: u32,
    /// How often the leader says that it is there.
    pub heartbeat_interval: Duration,
    /// A follower that has heard nothing for the leader's lease, and then for a random time between
    /// this and [`election_timeout_max`](Self::election_timeout_max), stands for election.
    pub election_timeout_min: Duration,
    /// See [`election_timeout_min`](Self::election_timeout_min). Also the leader's lease: while a
    /// node has heard from its leader within it, it votes for nobody else. So a dead leader is
    /// replaced after one to two of these.
    pub election_timeout_max: Duration,
    /// How long a follower may take to receive and install a snapshot.
    pub snapshot_timeout: Duration,
    /// Entries after which a new snapshot is written.
    pub snapshot_every_entries: u64,
    /// Entries kept before the snapshot, for followers that are a little behind.
    pub log_keep_entries: u64,
    /// The largest state that this node takes from a peer, in bytes.
    pub snapshot_bytes_max: u64,
    /// Proposals that may be on their way at once; more are answered `Overloaded`.
    pub proposals_in_flight_max: usize,
    /// How long a proposal waits before its outcome is called unknown.
    pub propose_deadline: Duration,
    /// Events kept for a subscriber that is behind.
    pub events_kept: usize,
    /// Entries between two comparisons of the state's hash; 0 for never.
    pub hash_every_entries: u64,
}

impl Options {
    /// Options with every default, for a node of a cluster.
    pub fn new(cluster_id: impl Into<String>, node_id: NodeId, fresh_store_id: u64) -> Self {
        Self {
            cluster_id: cluster_id.into(),
            node_id,
            fresh_store_id,
            format_max: 1,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(300),
            election_timeout_max: Duration::from_millis(600),
            snapshot_timeout: Duration::from_secs(60),
            snapshot_every_entries: 20_000,
            log_keep_entries: 50_000,
            snapshot_bytes_max: limits::SNAPSHOT_BYTES_MAX,
            proposals_in_flight_max: limits::PROPOSALS_IN_FLIGHT_MAX,
            propose_deadline: limits::PROPOSE_DEADLINE,
            events_kept: limits::EVENTS_KEPT,
            hash_every_entries: 4096,
        }
    }
}
