//! Who takes part: the first members, and changes of them. Each is an explicit step of an operator's.
//!
//! Invariant: a node id belongs to one store for ever. Before a node becomes a member it is asked who it
//! is, and its store's number goes into the membership; a node that comes back with another store is
//! refused by everybody.

use super::error::MembershipError;
use super::handle::Handle;
use super::types::{Addresses, LeaderHint, Member, NodeId, Revision, Types};
use super::{StateMachine, limits};
use openraft::ChangeMembers;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

/// How often a leader's fate is looked at while leadership moves.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a transfer of leadership may take.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(5);

impl<S: StateMachine> Handle<S> {
    /// Whether this node belongs to a cluster already.
    pub async fn is_initialized(&self) -> Result<bool, MembershipError> {
        let stopped = |_| MembershipError::Stopped(self.0.stop.get().unwrap_or(super::StopReason::Shutdown));
        self.0.raft.is_initialized().await.map_err(stopped)
    }

    /// Forms a new cluster of these members, this node among them. Every one of them must be up and new.
    pub async fn initialize(&self, members: BTreeMap<NodeId, Addresses>) -> Result<(), MembershipError> {
        if self.is_initialized().await? {
            return Err(MembershipError::AlreadyInitialized);
        }
        let mut asked = BTreeMap::new();
        for (node, addresses) in members {
            let store_id = match node == self.node_id() {
                true => self.0.store_id,
                false => self.new_store(node, &addresses).await?,
            };
            asked.insert(node, Member { addresses, store_id });
        }
        match self.0.raft.initialize(asked).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                Err(MembershipError::AlreadyInitialized)
            }
            Err(RaftError::APIError(e)) => Err(MembershipError::Refused(e.to_string())),
            Err(RaftError::Fatal(e)) => Err(MembershipError::Unknown(e.to_string())),
        }
    }

    /// The store of a node that belongs to no cluster yet.
    async fn new_store(&self, node: NodeId, addresses: &Addresses) -> Result<u64, MembershipError> {
        let found = self.0.peers.identify(node, &addresses.peers).await?;
        match found.initialized {
            true => Err(MembershipError::Refused(format!("node {node} belongs to a cluster already"))),
            false => Ok(found.store_id),
        }
    }

    /// The newest format that every member understands; an error if one of them cannot be asked.
    pub async fn understood_by_all(&self) -> Result<u32, MembershipError> {
        let mut least = self.0.options.format_max;
        for member in self.status().members.iter().filter(|member| member.node_id != self.node_id()) {
            let found = self.0.peers.identify(member.node_id, &member.addresses.peers).await?;
            least = least.min(found.format_max.max(1));
        }
        Ok(least)
    }

    /// Adds a node that follows but does not vote, and waits until it has caught up.
    pub async fn add_learner(&self, node: NodeId, addresses: Addresses) -> Result<Revision, MembershipError> {
        let found = self.0.peers.identify(node, &addresses.peers).await?;
        if let Some(known) = self.0.peers.member(node)
            && known.store_id != found.store_id
        {
            return Err(MembershipError::StoreReplaced { node });
        }
        let (format, understood) = (self.look(|view| view.state.format()), found.format_max.max(1));
        if understood < format {
            return Err(MembershipError::TooOld { node, format, understood });
        }
        let member = Member { addresses, store_id: found.store_id };
        self.change(self.0.raft.add_learner(node, member, true)).await
    }

    /// Lets a learner vote.
    pub async fn promote(&self, node: NodeId) -> Result<Revision, MembershipError> {
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([node]));
        self.change(self.0.raft.change_membership(change, true)).await
    }

    /// Removes a member. Its id is not to be used again.
    pub async fn remove(&self, node: NodeId) -> Result<Revision, MembershipError> {
        let status = self.status();
        let voters: Vec<NodeId> = status.members.iter().filter(|m| m.voter).map(|m| m.node_id).collect();
        if !status.members.iter().any(|m| m.node_id == node) {
            return Err(MembershipError::Refused(format!("node {node} is not a member")));
        }
        if voters == [node] {
            return Err(MembershipError::Refused(format!("node {node} is the last voter")));
        }
        let one = BTreeSet::from([node]);
        let change = match voters.contains(&node) {
            true => ChangeMembers::RemoveVoters(one),
            false => ChangeMembers::RemoveNodes(one),
        };
        self.change(self.0.raft.change_membership(change, false)).await
    }

    async fn change<F>(&self, change: F) -> Result<Revision, MembershipError>
    where
        F: Future<
            Output = Result<
                openraft::raft::ClientWriteResponse<Types>,
                RaftError<Types, ClientWriteError<Types>>,
            >,
        >,
    {
        match tokio::time::timeout(limits::MEMBERSHIP_DEADLINE, change).await {
            Ok(Ok(written)) => Ok(written.log_id.index),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(MembershipError::NotLeader { leader: forward.leader_id.and_then(|id| self.hint(id)) })
            }
            Ok(Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(e)))) => {
                Err(MembershipError::Unknown(e.to_string()))
            }
            Ok(Err(RaftError::APIError(e))) => Err(MembershipError::Refused(e.to_string())),
            Ok(Err(RaftError::Fatal(e))) => Err(MembershipError::Unknown(e.to_string())),
            Err(_) => Err(MembershipError::Unknown("the deadline passed".into())),
        }
    }

    /// Hands leadership to a voter, or to the one whose log is furthest. Answers with who leads then.
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, MembershipError> {
        let status = self.status();
        if status.leader != Some(self.node_id()) {
            let leader = status.leader.and_then(|id| self.hint(id));
            return Err(MembershipError::NotLeader { leader });
        }
        let others = status.members.iter().filter(|m| m.voter && m.node_id != self.node_id());
        let chosen = match to {
            Some(node) if node == self.node_id() => return Ok(node),
            Some(node) => others.into_iter().find(|m| m.node_id == node),
            None => others.max_by_key(|m| m.matched_index),
        };
        let Some(chosen) = chosen.map(|m| m.node_id) else {
            return Err(MembershipError::Refused("there is no such other voter".into()));
        };
        let order = self.0.raft.trigger().transfer_leader(chosen).await;
        order.map_err(|e| MembershipError::Unknown(e.to_string()))?;
        let moved = async {
            loop {
                match self.leadership().leader {
                    Some(LeaderHint { node_id, .. }) if node_id != self.node_id() => return node_id,
                    _ => tokio::time::sleep(LOOK_AGAIN).await,
                }
            }
        };
        let moved = tokio::time::timeout(TRANSFER_DEADLINE, moved).await;
        moved.map_err(|_| MembershipError::Unknown(format!("node {chosen} has not taken over yet")))
    }

    /// Writes a snapshot of what is applied now, and answers with the revision that it covers.
    pub async fn trigger_snapshot(&self) -> Result<Revision, MembershipError> {
        let applied = self.revision();
        let covered = || self.status().snapshot_index;
        let written = async {
            while covered() < applied {
                // One that is being written already does not cover all, and swallows the order.
                let order = self.0.raft.trigger().snapshot().await;
                order.map_err(|e| MembershipError::Unknown(e.to_string()))?;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Ok(covered())
        };
        let written = tokio::time::timeout(limits::MEMBERSHIP_DEADLINE, written).await;
        written.unwrap_or_else(|_| Err(MembershipError::Unknown("the snapshot is not written yet".into())))
    }
}
