//! The consensus room: one log, agreed on by a majority of coordinators, applied everywhere in
//! the same order.
//!
//! It is the only place that knows openraft, and it knows nothing of the business: a
//! [`StateMachine`] goes in, a [`Handle`] comes out. A proposal's way through the files:
//!
//! - `handle`: [`Handle::submit`] gives it to the leader's core, in the caller's order;
//! - `log`: it is appended, and fsynced together with whatever else waits ([`disk`] says where);
//! - `network` (with `lent`) and `service`: it goes to the followers, who do the same, and answer;
//! - `machine`: once a majority has it, every node applies it, publishes the new state, tells
//!   the subscribers, and then answers the proposer;
//! - `snapshot`: now and then the state is written out whole, and the log before it is dropped;
//! - `backup`: a state leaves its cluster as a file, and begins another one;
//! - `agreement`: now and then a follower compares its state's hash with the leader's.
//!
//! Around them: `types` binds our types to openraft's, `format` maps both to the protobuf of
//! `millpool.log.v1` and `millpool.v1`, `membership` changes who takes part, `start` puts it
//! together, `runtime` lets a simulation seed its chances, and `limits` names every bound.
//!
//! Invariants. A proposal is acknowledged only after a majority has fsynced it. An fsync that
//! failed is never tried again: the node stops. What a node cannot decode it does not apply: the
//! node stops. Nothing outside this folder names openraft, and nothing of openraft's own encoding
//! reaches a disk or a wire.

mod agreement;
mod backup;
pub mod disk;
mod error;
mod format;
mod handle;
mod lent;
pub mod limits;
mod log;
mod machine;
mod membership;
mod network;
mod options;
mod runtime;
mod service;
mod snapshot;
mod start;
mod stop;
mod subscription;
#[cfg(test)]
mod suite;
mod types;
mod view;

pub use backup::{Salvaged, Taken, backup_file, read_backup, restore, salvage};
pub use disk::{Offload, Storage};
pub use error::{
    ApplyError, DecodeError, ForwardFailed, LinearizeError, MembershipError, ProposeError, StartError,
    StopReason, WaitError,
};
pub use handle::{Committed, Handle, Leadership, PeerLag, Status};
pub use network::{Dial, Transport};
pub use options::Options;
pub use runtime::seed_this_thread;
pub use service::{Forward, PeerApi};
pub use start::start;
pub use subscription::{Change, Lagged, Subscription};
pub use types::{Addresses, LeaderHint, Member, NodeId, Revision, Term};
pub use view::{Snapshot, View};

/// What is logged where nobody says otherwise: of this room's libraries what goes wrong, though not every heartbeat to a
/// node that is down, as its replication tells of it every second and a half.
pub const LOG_DEFAULT: &str = "info,openraft=warn,openraft::core::heartbeat=error,fjall=warn,lsm_tree=warn";

/// What the log drives: the business, as the consensus room sees it.
///
/// A clone must be cheap (persistent maps): one is taken whenever somebody wants to keep what is applied.
pub trait StateMachine: Clone + Send + Sync + 'static {
    /// The answer to the proposer of one entry.
    type Reply: Clone + Send + Sync + 'static;
    /// What one applied entry changed, for subscribers.
    type Event: Clone + Send + Sync + 'static;

    /// Applies a committed entry. It must depend on nothing but `self` and the arguments, since
    /// every node does the same and compares hashes. `revision` is the entry's log index.
    ///
    /// An error is for an entry that this version cannot understand. It stops the node: a refused
    /// command is a reply, not an error.
    fn apply(
        &mut self,
        revision: Revision,
        entry: &[u8],
    ) -> Result<Applied<Self::Reply, Self::Event>, ApplyError>;

    /// The whole state, for a snapshot. The format and its version are the state machine's own.
    fn encode(&self) -> Vec<u8>;

    /// The inverse of [`encode`](Self::encode). `self` is any state of this node's: it knows which formats it reads.
    fn decode(&self, bytes: &[u8]) -> Result<Self, DecodeError>;

    /// The format in which its entries and snapshots are written: a node must understand it to take part.
    fn format(&self) -> u32 {
        1
    }

    /// A hash of the whole state, equal on every node at an equal revision.
    fn hash(&self) -> u64;
}

/// What applying one entry gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied<R, E> {
    /// The answer to the proposer.
    pub reply: R,
    /// What changed; `None` if nothing that a subscriber would want.
    pub event: Option<E>,
}
