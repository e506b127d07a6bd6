//! Our types, bound to openraft's.
//!
//! One type configuration serves every state machine: a command is bytes, and the reply travels
//! through openraft as an `Any` that the handle takes out again.

use bytes::Bytes;
use openraft::impls::{BoxedErrorSource, InlineBatch, leader_id_std};
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig};
use std::any::Any;
use std::fmt;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// A coordinator's id, unique for ever in its cluster.
pub type NodeId = u64;
/// The index of a log entry; the version of the state that has applied it.
pub type Revision = u64;
/// A leader's reign: each has at most one leader.
pub type Term = u64;

/// Where a coordinator is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// host:port of the peers' listener.
    pub peers: String,
    /// host:port or URL of the public listener; may be empty.
    pub public: String,
}

/// A coordinator as the membership records it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Where it is reached.
    pub addresses: Addresses,
    /// The store that it had when it joined.
    pub store_id: u64,
}

/// Who leads, for a client that came to the wrong node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader.
    pub node_id: NodeId,
    /// Where it is reached.
    pub addresses: Addresses,
}

/// A command of the state machine, in its own encoding.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Command(pub(super) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What apply gives to the proposer: the state machine's reply, or nothing for an entry of
/// openraft's own.
pub(super) struct Answer(pub(super) Option<Box<dyn Any + Send + Sync>>);

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "reply" } else { "no reply" })
    }
}

/// Carries the outcome to the proposer, and its permits back when the core is done with it.
pub(super) struct Responder<T> {
    pub(super) outcome: oneshot::Sender<T>,
    pub(super) _permits: Permits,
}

/// What a proposal holds while it is on its way.
#[derive(Debug, Default)]
pub(super) struct Permits {
    pub(super) _slot: Option<OwnedSemaphorePermit>,
    pub(super) _bytes: Option<OwnedSemaphorePermit>,
}

impl<T: OptionalSend + 'static> openraft::raft::responder::Responder<Types, T> for Responder<T> {
    fn on_complete(self, result: T) {
        // Whoever has an answer finds room for the next proposal.
        drop(self._permits);
        // Nobody listens any more if the proposer's deadline has passed.
        let _ = self.outcome.send(result);
    }
}

/// The binding itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Types;

impl RaftTypeConfig for Types {
    type D = Command;
    type R = Answer;
    type NodeId = NodeId;
    type Node = Member;
    type Term = Term;
    type LeaderId = leader_id_std::LeaderId<Term, NodeId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = Payload;
    type Entry = openraft::Entry<CommittedLeaderId, Payload>;
    type AsyncRuntime = super::runtime::Runtime;
    type Responder<T>
        = Responder<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub(super) type CommittedLeaderId = openraft::vote::leader_id_std::CommittedLeaderId<Term>;
pub(super) type Payload = EntryPayload<Command, NodeId, Member>;
pub(super) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(super) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(super) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(super) type Membership = openraft::Membership<NodeId, Member>;
pub(super) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
