//! What the rest of the coordinator holds: proposals, reads, changes, and where things stand.

use super::agreement::Hashes;
use super::disk::Offload;
use super::error::{ForwardFailed, LinearizeError, ProposeError, StopReason, WaitError};
use super::log::WriterEnd;
use super::machine::Machine;
use super::network::Peers;
use super::service::{Forward, Identity, Inner as ServiceInner, PeerApi};
use super::stop::Stop;
use super::subscription::{Change, Subscription};
use super::types::{
    Addresses, Answer, Command, LeaderHint, NodeId, Permits, Responder, Revision, Term, Types,
};
use super::view::{Shared, Snapshot, View};
use super::{Options, StateMachine, limits};
use bytes::Bytes;
use millpool_proto::v1::peer_service_server::PeerServiceServer;
use millpool_proto::v1::{ForwardRequest, ForwardResponse};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResponse;
use openraft::{Raft, ReadPolicy, ServerState};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

/// A proposal that was committed and applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed<R> {
    /// Where in the log.
    pub revision: Revision,
    /// What the state machine answered.
    pub reply: R,
}

/// Who leads, as far as this node knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: Term,
    /// The leader, if one is known.
    pub leader: Option<LeaderHint>,
    /// This node leads, and has applied everything of former terms: it may serve.
    pub is_ready: bool,
}

/// A member, and how far its log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerLag {
    /// Who.
    pub node_id: NodeId,
    /// Where.
    pub addresses: Addresses,
    /// Votes; a learner does not.
    pub voter: bool,
    /// The last entry known to be on its disk; only the leader knows of others.
    pub matched_index: Option<u64>,
}

/// Where this node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The term.
    pub term: Term,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// The last entry in this node's log.
    pub last_log_index: u64,
    /// The last entry applied here.
    pub applied_index: u64,
    /// The last entry in this node's newest snapshot; 0 without one.
    pub snapshot_index: u64,
    /// The last entry that this node's log has dropped; 0 for none.
    pub purged_index: u64,
    /// The members by id.
    pub members: Vec<PeerLag>,
    /// The newest revision whose hash was taken here, and the hash.
    pub hash: Option<(Revision, u64)>,
}

/// The consensus room, from outside. Cheap to clone.
pub struct Handle<S: StateMachine>(pub(super) Arc<Inner<S>>);

impl<S: StateMachine> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Where a reader waits for its revision.
pub(super) type Reader = oneshot::Sender<Result<Revision, LinearizeError>>;

pub(super) struct Inner<S: StateMachine> {
    pub(super) options: Options,
    pub(super) store_id: u64,
    pub(super) offload: Offload,
    pub(super) raft: Raft<Types, Machine<S>>,
    pub(super) peers: Peers,
    pub(super) stop: Stop,
    pub(super) hashes: Hashes,
    pub(super) shared: Shared<S>,
    /// The last entry applied.
    pub(super) applied: watch::Receiver<Revision>,
    /// The term of the last entry applied.
    pub(super) applied_term: watch::Receiver<Term>,
    /// Weak: subscriptions end with the machine, not with the last handle.
    pub(super) changes: broadcast::WeakSender<Change<S::Event>>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) bytes: Arc<Semaphore>,
    pub(super) forward: Arc<dyn Forward>,
    pub(super) readers: mpsc::Sender<Reader>,
    pub(super) writer_end: Mutex<Option<WriterEnd>>,
}

impl<S: StateMachine> Handle<S> {
    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        self.0.options.node_id
    }

    /// The cluster's name.
    pub fn cluster_id(&self) -> &str {
        self.0.peers.cluster_id()
    }

    /// Hands an entry to the log. When this returns the entry has its place behind all that were submitted
    /// before it; the future that it gives resolves when the entry is applied. With a `term`, the entry is
    /// appended only by the leader of that very term.
    pub async fn submit(
        &self,
        entry: Bytes,
        term: Option<Term>,
    ) -> Result<impl Future<Output = Result<Committed<S::Reply>, ProposeError>> + Send + use<S>, ProposeError>
    {
        let permits = self.permits(entry.len())?;
        let (outcome, answered) = oneshot::channel();
        let write = self.0.raft.write(Command(entry)).responder(Responder { outcome, _permits: permits });
        let write = match term {
            Some(term) => write.with_leader(term),
            None => write,
        };
        write.await.map_err(|_| ProposeError::Stopped(self.stopped()))?;
        let this = self.clone();
        Ok(async move {
            match tokio::time::timeout(this.0.options.propose_deadline, answered).await {
                Ok(Ok(Ok(written))) => this.committed(written),
                Ok(Ok(Err(error))) => Err(this.unwritten(error)),
                Ok(Err(_)) => Err(unknown("the core ended before it answered")),
                Err(_) => Err(unknown("it was not answered in time")),
            }
        })
    }

    /// Proposes an entry and waits until it is applied.
    pub async fn propose(
        &self,
        entry: Bytes,
        term: Option<Term>,
    ) -> Result<Committed<S::Reply>, ProposeError> {
        self.submit(entry, term).await?.await
    }

    fn permits(&self, bytes: usize) -> Result<Permits, ProposeError> {
        if let Some(reason) = self.0.stop.get() {
            return Err(ProposeError::Stopped(reason));
        }
        if bytes > limits::ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, bytes_max: limits::ENTRY_BYTES_MAX });
        }
        let overloaded = |_| ProposeError::Overloaded { retry_after: Duration::from_millis(100) };
        let slot = self.0.slots.clone().try_acquire_owned().map_err(overloaded)?;
        let bytes = self.0.bytes.clone().try_acquire_many_owned(bytes as u32).map_err(overloaded)?;
        Ok(Permits { _slot: Some(slot), _bytes: Some(bytes) })
    }

    /// Proposals that are on their way, and their bytes.
    pub fn in_flight(&self) -> (usize, usize) {
        let inner = &self.0;
        let proposals = inner.options.proposals_in_flight_max - inner.slots.available_permits();
        (proposals, limits::PROPOSAL_BYTES_IN_FLIGHT_MAX - inner.bytes.available_permits())
    }

    fn committed(&self, written: ClientWriteResponse<Types>) -> Result<Committed<S::Reply>, ProposeError> {
        let Answer(answer) = written.data;
        let reply = answer.and_then(|answer| (answer as Box<dyn std::any::Any>).downcast::<S::Reply>().ok());
        match reply {
            Some(reply) => Ok(Committed { revision: written.log_id.index, reply: *reply }),
            None => Err(unknown("the state machine gave no reply")),
        }
    }

    fn unwritten(&self, error: ClientWriteError<Types>) -> ProposeError {
        match error {
            ClientWriteError::ForwardToLeader(forward) => {
                ProposeError::NotLeader { leader: forward.leader_id.and_then(|id| self.hint(id)) }
            }
            other => unknown(other.to_string()),
        }
    }

    pub(super) fn hint(&self, node_id: NodeId) -> Option<LeaderHint> {
        self.0.peers.member(node_id).map(|member| LeaderHint { node_id, addresses: member.addresses })
    }

    /// A revision that holds every write acknowledged anywhere before this call; it is applied here when
    /// this returns. One round trip to a majority, or to the leader and from there, shared by whoever
    /// asks at the same time.
    pub async fn linearize(&self) -> Result<Revision, LinearizeError> {
        self.check_running()?;
        let (reader, answer) = oneshot::channel();
        let stopped = || LinearizeError::Wait(WaitError::Stopped(self.stopped()));
        let asked = async {
            self.0.readers.send(reader).await.map_err(|_| stopped())?;
            answer.await.map_err(|_| stopped())?
        };
        let revision = tokio::time::timeout(limits::LINEARIZE_DEADLINE, asked).await;
        let revision = revision.map_err(|_| LinearizeError::NoQuorum("no answer in time".into()))??;
        self.wait_applied(revision, limits::LINEARIZE_DEADLINE).await?;
        // A node that has found itself wrong meanwhile must not answer from its state.
        self.check_running()?;
        Ok(revision)
    }

    fn check_running(&self) -> Result<(), WaitError> {
        self.0.stop.get().map_or(Ok(()), |reason| Err(WaitError::Stopped(reason)))
    }

    /// Answers readers in rounds: those who ask while one round is under way share the next.
    pub(super) async fn answer_readers(self, mut readers: mpsc::Receiver<Reader>) {
        let mut round = Vec::new();
        loop {
            let stop = self.0.stop.clone();
            tokio::select! {
                count = readers.recv_many(&mut round, limits::READERS_MAX) => if count == 0 { return },
                _ = stop.wait() => return,
            }
            let answer = tokio::time::timeout(limits::LINEARIZE_DEADLINE, self.read_index()).await;
            let late = |_| Err(LinearizeError::NoQuorum("no answer in time".into()));
            let answer = answer.unwrap_or_else(late);
            for reader in round.drain(..) {
                // A reader may have given up.
                let _ = reader.send(answer.clone());
            }
        }
    }

    async fn read_index(&self) -> Result<Revision, LinearizeError> {
        let leader = self.leader().ok_or(LinearizeError::NoLeader)?;
        if leader == self.node_id() {
            let read = self.0.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
            return Ok(read.map_err(|e| LinearizeError::NoQuorum(e.to_string()))?.read_log_id().index());
        }
        let read = self.0.peers.read_index(leader).await;
        read.map_err(|e| LinearizeError::Leader { leader, reason: e.to_string() })
    }

    /// Waits until a revision is applied here.
    pub async fn wait_applied(&self, revision: Revision, within: Duration) -> Result<(), WaitError> {
        let mut applied = self.0.applied.clone();
        let applied = applied.wait_for(|applied| *applied >= revision);
        match tokio::time::timeout(within, applied).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(WaitError::Stopped(self.stopped())),
            Err(_) => Err(WaitError::Timeout { revision, applied: self.revision() }),
        }
    }

    /// The applied state, as it is now, to be kept for as long as it takes: what is applied after it copies what it
    /// changes. Waits for what is small and is being applied, and for others' questions.
    pub fn state(&self) -> Snapshot<S> {
        self.0.shared.snapshot()
    }

    /// Puts a question to the applied state, as it is now: for what takes microseconds, as nothing is applied meanwhile.
    /// Costs no copy. The question must not ask this handle for the state itself.
    pub fn look<T>(&self, question: impl FnOnce(&View<S>) -> T) -> T {
        self.0.shared.look(question)
    }

    /// The last revision applied.
    pub fn revision(&self) -> Revision {
        self.look(|view| view.revision)
    }

    /// The applied state, and every change after it.
    pub fn subscribe(&self) -> (Snapshot<S>, Subscription<S::Event>) {
        let changes = match self.0.changes.upgrade() {
            Some(changes) => changes.subscribe(),
            // The node has stopped: a channel without a sender says so.
            None => broadcast::channel(1).1,
        };
        // Taken after the receiver: a change is in the state, or it comes, or both.
        let state = self.state();
        let revision = state.revision;
        (state, Subscription::new(changes, revision))
    }

    fn leader(&self) -> Option<NodeId> {
        self.0.raft.server_metrics().borrow_watched().current_leader
    }

    /// Waits until this node knows that somebody else leads than `former`.
    pub async fn succeeded(&self, former: NodeId) {
        let mut server = self.0.raft.server_metrics();
        while server.borrow_watched().current_leader.is_none_or(|leader| leader == former) {
            if server.changed().await.is_err() {
                // This node is going down; its caller ends by itself.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Who leads, as far as this node knows.
    pub fn leadership(&self) -> Leadership {
        let metrics = self.0.raft.server_metrics();
        let now = metrics.borrow_watched();
        let term = now.vote.leader_id.term;
        let leads = now.current_leader == Some(self.node_id()) && now.state == ServerState::Leader;
        Leadership {
            term,
            leader: now.current_leader.and_then(|id| self.hint(id)),
            is_ready: leads && *self.0.applied_term.borrow() == term && self.0.stop.get().is_none(),
        }
    }

    /// Where this node stands.
    pub fn status(&self) -> Status {
        let metrics = self.0.raft.metrics();
        let now = metrics.borrow_watched();
        let membership = now.membership_config.membership();
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        let matched = |id: &NodeId| match &now.replication {
            Some(_) if *id == self.node_id() => now.last_log_index,
            Some(replication) => replication.get(id).copied().flatten().map(|log_id| log_id.index),
            None => None,
        };
        let members = membership
            .nodes()
            .map(|(id, member)| PeerLag {
                node_id: *id,
                addresses: member.addresses.clone(),
                voter: voters.contains(id),
                matched_index: matched(id),
            })
            .collect();
        Status {
            term: now.current_term,
            leader: now.current_leader,
            last_log_index: now.last_log_index.unwrap_or(0),
            applied_index: now.last_applied.map_or(0, |id| id.index),
            snapshot_index: now.snapshot.map_or(0, |id| id.index),
            purged_index: now.purged.map_or(0, |id| id.index),
            members,
            hash: self.0.hashes.newest(),
        }
    }

    /// Passes a client's request on to another member.
    pub async fn forward(
        &self,
        node: NodeId,
        request: ForwardRequest,
    ) -> Result<ForwardResponse, ForwardFailed> {
        self.0.peers.forward(node, request).await
    }

    /// The peers' service, to be served on the peers' listener.
    pub fn peer_service(&self) -> PeerServiceServer<PeerApi<S>> {
        PeerApi::server(ServiceInner {
            identity: Identity {
                cluster_id: self.cluster_id().to_owned(),
                node_id: self.node_id(),
                store_id: self.0.store_id,
                format_max: self.0.options.format_max,
            },
            raft: self.0.raft.clone(),
            hashes: self.0.hashes.clone(),
            snapshot_bytes_max: self.0.options.snapshot_bytes_max,
            receiving: Semaphore::new(1),
            forward: self.0.forward.clone(),
        })
    }

    fn stopped(&self) -> StopReason {
        self.0.stop.get().unwrap_or_else(|| StopReason::Core("it ended".into()))
    }

    /// Waits until the node has stopped, and says why.
    pub async fn stop_reason(&self) -> StopReason {
        self.0.stop.wait().await
    }

    /// Stops: hands leadership on if this node has it and somebody can take it, answers what is pending,
    /// and closes the store.
    pub async fn shutdown(&self) {
        let others = || self.status().members.iter().any(|m| m.voter && m.node_id != self.node_id());
        if self.leadership().is_ready
            && others()
            && let Err(e) = self.transfer_leader(None).await
        {
            tracing::info!("leadership was not handed on: {e}");
        }
        self.0.stop.set(StopReason::Shutdown);
        if let Err(e) = self.0.raft.shutdown().await {
            tracing::warn!("the consensus core ended badly: {e}");
        }
        let end = self.0.writer_end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(end) = end
            && tokio::time::timeout(Duration::from_secs(5), end.wait()).await.is_err()
        {
            tracing::warn!("the log's writer is still busy");
        }
    }
}

fn unknown(reason: impl Into<String>) -> ProposeError {
    ProposeError::Unknown { reason: reason.into() }
}
