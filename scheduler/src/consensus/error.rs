//! What can go wrong, as the callers see it.

use super::types::{LeaderHint, NodeId, Revision};
use std::time::Duration;

/// A state machine met an entry that it does not understand. The node stops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ApplyError(
    /// What was not understood.
    pub String,
);

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(
    /// What was expected, and what was found.
    pub String,
);

/// A node that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option is out of range.
    #[error("bad option: {0}")]
    Options(String),
    /// The store belongs to somebody else.
    #[error(
        "the store belongs to node {found_node} of cluster {found_cluster:?}, but this is node \
         {node} of cluster {cluster:?}: check the data folder and the configured ids"
    )]
    OtherStore {
        /// The configured cluster.
        cluster: String,
        /// The configured node.
        node: NodeId,
        /// The cluster that the store was created for.
        found_cluster: String,
        /// The node that the store was created for.
        found_node: NodeId,
    },
    /// A store that is to be made is there already.
    #[error("{0} is in use already: nothing was changed. Restore into an empty data folder")]
    NotEmpty(
        /// Where.
        String,
    ),
    /// The store could not be opened or read.
    #[error("cannot use the store: {0}")]
    Storage(#[from] std::io::Error),
    /// The consensus core did not come up.
    #[error("cannot start consensus: {0}")]
    Core(String),
}

/// Why a node stopped by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// It was told to.
    #[error("the node was shut down")]
    Shutdown,
    /// An entry could not be understood.
    #[error(
        "entry {revision} cannot be applied: {reason}; this node's version is too old for its \
         cluster, or its log is damaged: upgrade it, or replace it by a new node"
    )]
    Apply {
        /// The entry.
        revision: Revision,
        /// What was not understood.
        reason: String,
    },
    /// The disk failed.
    #[error("storage failed and is not tried again: {0}; check the disk, then restart or replace the node")]
    Storage(String),
    /// This node's state is not the leader's.
    #[error(
        "this node's state at revision {revision} has hash {ours:016x}, the leader's (node \
         {leader}) has {theirs:016x}: this node must not serve; keep its data folder for the \
         investigation and replace the node under a new id"
    )]
    Diverged {
        /// The revision at which they differ.
        revision: Revision,
        /// This node's hash.
        ours: u64,
        /// The leader's hash.
        theirs: u64,
        /// The leader.
        leader: NodeId,
    },
    /// The consensus core stopped.
    #[error("consensus stopped: {0}")]
    Core(String),
}

/// A proposal that was not answered with a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead, or no longer in the term asked for. Nothing was appended.
    #[error("not the leader{}", hint(.leader))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<LeaderHint>,
    },
    /// The entry may or may not be committed, now or later. Retry with the same idempotency key.
    #[error("the proposal's outcome is unknown: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// Too many proposals are on their way. Nothing was appended.
    #[error("too many proposals in flight; retry after {} ms", .retry_after.as_millis())]
    Overloaded {
        /// When a retry makes sense.
        retry_after: Duration,
    },
    /// The entry is larger than the log takes. Nothing was appended.
    #[error("the entry has {bytes} bytes, the log takes at most {bytes_max}")]
    TooLarge {
        /// The entry's length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The node has stopped. Nothing was appended.
    #[error("the node has stopped: {0}")]
    Stopped(StopReason),
}

fn hint(leader: &Option<LeaderHint>) -> String {
    match leader {
        Some(leader) => format!("; node {} at {} leads", leader.node_id, leader.addresses.public),
        None => "; nobody is known to lead".to_owned(),
    }
}

/// A linearizable read that could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinearizeError {
    /// Nobody is known to lead.
    #[error("nobody is known to lead")]
    NoLeader,
    /// A majority did not confirm the leader.
    #[error("a majority did not confirm the leader: {0}")]
    NoQuorum(String),
    /// The leader could not be asked.
    #[error("node {leader} did not give a read index: {reason}")]
    Leader {
        /// The leader asked.
        leader: NodeId,
        /// What it said, or what the network did.
        reason: String,
    },
    /// The state did not catch up in time.
    #[error(transparent)]
    Wait(#[from] WaitError),
}

/// A revision that did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// Not in time.
    #[error("revision {revision} was not applied in time; the state is at {applied}")]
    Timeout {
        /// The revision waited for.
        revision: Revision,
        /// The revision applied.
        applied: Revision,
    },
    /// The node has stopped.
    #[error("the node has stopped: {0}")]
    Stopped(StopReason),
}

/// A change of the cluster that was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Only the leader changes the cluster.
    #[error("not the leader{}", hint(.leader))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<LeaderHint>,
    },
    /// The cluster exists already.
    #[error("this node already belongs to a cluster")]
    AlreadyInitialized,
    /// A node could not be asked who it is.
    #[error("node {node} at {address} does not answer: {reason}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// Where it was sought.
        address: String,
        /// What the network said.
        reason: String,
    },
    /// Somebody else answers at the address.
    #[error(
        "at {address} answers node {found_node} of cluster {found_cluster:?}, not node {node} of \
         cluster {cluster:?}"
    )]
    OtherNode {
        /// The node meant.
        node: NodeId,
        /// The cluster meant.
        cluster: String,
        /// Where it was sought.
        address: String,
        /// The node found.
        found_node: NodeId,
        /// The cluster found.
        found_cluster: String,
    },
    /// The id belonged to a store that is gone.
    #[error(
        "node {node} is a member with another store: its disk was replaced, and what it had \
         promised is lost; remove it and add the new one under an id never used before"
    )]
    StoreReplaced {
        /// The node.
        node: NodeId,
    },
    /// A node does not understand what the cluster writes.
    #[error(
        "node {node} understands formats up to {understood}, the cluster writes {format}: upgrade it first"
    )]
    TooOld {
        /// The node.
        node: NodeId,
        /// What the cluster writes.
        format: u32,
        /// The newest that the node understands.
        understood: u32,
    },
    /// The change makes no sense, or another one is under way.
    #[error("refused: {0}")]
    Refused(String),
    /// Not done in time; it may still happen.
    #[error("not done in time, it may still happen: {0}")]
    Unknown(String),
    /// The node has stopped.
    #[error("the node has stopped: {0}")]
    Stopped(StopReason),
}

/// A forwarded request that brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardFailed {
    /// The node is not a member.
    #[error("node {0} is not a member")]
    NoSuchNode(NodeId),
    /// It was not delivered: a retry is safe.
    #[error("node {node} could not be reached: {reason}")]
    NotSent {
        /// The node.
        node: NodeId,
        /// What the network said.
        reason: String,
    },
    /// It may have been executed.
    #[error("node {node} did not answer, the outcome is unknown: {reason}")]
    Unknown {
        /// The node.
        node: NodeId,
        /// What the network said.
        reason: String,
    },
}
