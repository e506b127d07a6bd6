//! The way to the peers: connections, and openraft's network on them.
//!
//! Every connection is made in one place, [`Transport`], so that TLS, or a simulated network, is
//! a matter of the closure given to it. Each peer has three connections: log traffic must not
//! queue behind a snapshot, nor elections behind clients' requests.
//!
//! A deadline that passes drops the connection it passed on: a half-open one would never answer.

use super::error::{ForwardFailed, MembershipError};
use super::format;
use super::lent::{Lender, lend};
use super::limits;
use super::snapshot::Body;
use super::types::{Addresses, LogId, Member, NodeId, Revision, Types, Vote};
use futures::{FutureExt as _, Stream, StreamExt as _};
use millpool_proto::v1::peer_service_client::PeerServiceClient;
use millpool_proto::v1::{
    self as pb, peer_append_response, peer_snapshot_chunk, peer_transfer_leader_response,
};
use openraft::RPCTypes;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error as StdError;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// Makes a channel of an endpoint. Called once for each connection; it must not block.
pub type Dial =
    Arc<dyn Fn(Endpoint) -> Result<Channel, Box<dyn StdError + Send + Sync>> + Send + Sync + 'static>;

/// How peers are reached.
#[derive(Clone)]
pub struct Transport {
    scheme: &'static str,
    dial: Dial,
}

impl Transport {
    /// Plain HTTP/2, for loopback and tests.
    pub fn plain() -> Self {
        Self::new("http", Arc::new(|endpoint| Ok(endpoint.connect_lazy())))
    }

    /// Any other way: the closure may add TLS (with scheme `https`), or dial through a connector
    /// of its own.
    pub fn new(scheme: &'static str, dial: Dial) -> Self {
        Self { scheme, dial }
    }

    fn connect(&self, address: &str) -> Result<Channel, Box<dyn StdError + Send + Sync>> {
        let endpoint = Endpoint::from_shared(format!("{}://{address}", self.scheme))?
            .connect_timeout(limits::CONNECT_DEADLINE)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(limits::KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(limits::KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(limits::PEER_MESSAGE_BYTES_MAX as u32)
            .initial_connection_window_size(2 * limits::PEER_MESSAGE_BYTES_MAX as u32);
        (self.dial)(endpoint)
    }
}

/// Which of a peer's connections a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// Log entries, heartbeats, votes, read indexes.
    Log,
    /// Snapshots.
    Bulk,
    /// Clients' requests.
    Forward,
}

/// This node's view of its peers. Clones share the connections.
#[derive(Clone)]
pub(super) struct Peers(Arc<Inner>);

struct Inner {
    cluster_id: String,
    node_id: NodeId,
    transport: Transport,
    channels: Mutex<BTreeMap<(String, Lane), Channel>>,
    members: watch::Sender<Arc<BTreeMap<NodeId, Member>>>,
    append_stall: Duration,
}

/// A call that brought no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("node {0} is not a member")]
    NoSuchNode(NodeId),
    #[error("cannot be dialled: {0}")]
    Dial(String),
    #[error("no answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
}

impl CallError {
    /// True if the peer certainly did not act on the call.
    fn not_sent(&self) -> bool {
        match self {
            Self::NoSuchNode(_) | Self::Dial(_) => true,
            Self::Deadline(_) => false,
            Self::Status(status) => status.code() == Code::FailedPrecondition || never_connected(status),
        }
    }
}

fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

impl Peers {
    pub(super) fn new(
        cluster_id: &str,
        node_id: NodeId,
        transport: Transport,
        append_stall: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            cluster_id: cluster_id.to_owned(),
            node_id,
            transport,
            channels: Mutex::default(),
            members: watch::Sender::default(),
            append_stall,
        }))
    }

    pub(super) fn node_id(&self) -> NodeId {
        self.0.node_id
    }

    pub(super) fn cluster_id(&self) -> &str {
        &self.0.cluster_id
    }

    /// Learns who the members are and where.
    pub(super) fn set_members(&self, members: BTreeMap<NodeId, Member>) {
        self.0.members.send_if_modified(|now| {
            let differs = **now != members;
            if differs {
                *now = Arc::new(members);
            }
            differs
        });
    }

    pub(super) fn member(&self, node_id: NodeId) -> Option<Member> {
        self.0.members.borrow().get(&node_id).cloned()
    }

    fn channels(&self) -> MutexGuard<'_, BTreeMap<(String, Lane), Channel>> {
        self.0.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self, address: &str, lane: Lane) -> Result<PeerServiceClient<Channel>, CallError> {
        let mut channels = self.channels();
        let key = (address.to_owned(), lane);
        let channel = match channels.get(&key) {
            Some(channel) => channel.clone(),
            None => {
                let channel =
                    self.0.transport.connect(address).map_err(|e| CallError::Dial(e.to_string()))?;
                channels.insert(key, channel.clone());
                channel
            }
        };
        Ok(PeerServiceClient::new(channel)
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX))
    }

    fn hang_up(&self, address: &str, lane: Lane) {
        self.channels().remove(&(address.to_owned(), lane));
    }

    fn address(&self, node_id: NodeId, store_id: u64) -> Option<pb::PeerAddress> {
        Some(pb::PeerAddress {
            cluster_id: self.0.cluster_id.clone(),
            from_node_id: self.0.node_id,
            to_node_id: node_id,
            to_store_id: store_id,
        })
    }

    /// One call with a deadline, after which the connection is dropped.
    async fn call<T, F>(
        &self,
        rpc: &'static str,
        (address, lane): (&str, Lane),
        deadline: Duration,
        call: impl FnOnce(PeerServiceClient<Channel>) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let outcome = match tokio::time::timeout(deadline, call(self.client(address, lane)?)).await {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => CallError::Status(Box::new(status)),
            Err(_) => {
                self.hang_up(address, lane);
                CallError::Deadline(deadline)
            }
        };
        failed(rpc);
        Err(outcome)
    }

    /// Asks who answers at an address.
    pub(super) async fn identify(
        &self,
        node: NodeId,
        address: &str,
    ) -> Result<pb::PeerIdentifyResponse, MembershipError> {
        let request = pb::PeerIdentifyRequest { address: self.address(node, 0) };
        let found = self
            .call("Identify", (address, Lane::Log), limits::LINEARIZE_DEADLINE, |mut client| async move {
                client.identify(request).await
            })
            .await
            .map_err(|e| MembershipError::Unreachable {
                node,
                address: address.to_owned(),
                reason: e.to_string(),
            })?;
        if found.node_id != node || found.cluster_id != self.0.cluster_id {
            return Err(MembershipError::OtherNode {
                node,
                cluster: self.0.cluster_id.clone(),
                address: address.to_owned(),
                found_node: found.node_id,
                found_cluster: found.cluster_id,
            });
        }
        Ok(found)
    }

    fn require(&self, node: NodeId) -> Result<Member, CallError> {
        self.member(node).ok_or(CallError::NoSuchNode(node))
    }

    /// Asks the leader for a read index.
    pub(super) async fn read_index(&self, node: NodeId) -> Result<Revision, CallError> {
        let member = self.require(node)?;
        let request = pb::PeerReadIndexRequest { address: self.address(node, member.store_id) };
        let target = (member.addresses.peers.as_str(), Lane::Log);
        let call = |mut client: PeerServiceClient<Channel>| async move { client.read_index(request).await };
        Ok(self.call("ReadIndex", target, limits::LINEARIZE_DEADLINE, call).await?.revision)
    }

    /// Asks a node for its state's hash; `None` if it has none at that revision.
    pub(super) async fn state_hash(
        &self,
        node: NodeId,
        revision: Revision,
    ) -> Result<Option<u64>, CallError> {
        let member = self.require(node)?;
        let request = pb::PeerStateHashRequest { address: self.address(node, member.store_id), revision };
        let target = (member.addresses.peers.as_str(), Lane::Log);
        let call = |mut client: PeerServiceClient<Channel>| async move { client.state_hash(request).await };
        let response = self.call("StateHash", target, limits::LINEARIZE_DEADLINE, call).await?;
        Ok(match response.result {
            Some(pb::peer_state_hash_response::Result::Hash(hash)) => Some(hash),
            Some(pb::peer_state_hash_response::Result::Unknown(_)) | None => None,
        })
    }

    /// Passes a client's request on.
    pub(super) async fn forward(
        &self,
        node: NodeId,
        mut request: pb::ForwardRequest,
    ) -> Result<pb::ForwardResponse, ForwardFailed> {
        let member = self.member(node).ok_or(ForwardFailed::NoSuchNode(node))?;
        request.address = self.address(node, member.store_id);
        let deadline = match request.deadline_ms {
            0 => limits::FORWARD_DEADLINE,
            ms => Duration::from_millis(u64::from(ms)),
        };
        let target = (member.addresses.peers.as_str(), Lane::Forward);
        let call = |mut client: PeerServiceClient<Channel>| async move { client.forward(request).await };
        self.call("Forward", target, deadline, call).await.map_err(|e| {
            let reason = e.to_string();
            if e.not_sent() {
                ForwardFailed::NotSent { node, reason }
            } else {
                ForwardFailed::Unknown { node, reason }
            }
        })
    }
}

fn failed(rpc: &'static str) {
    metrics::counter!("millpool_peer_rpc_errors_total", "rpc" => rpc).increment(1);
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Link {
        Link { peers: self.clone(), target, addresses: node.addresses.clone(), store_id: node.store_id }
    }
}

/// openraft's way to one peer.
pub(super) struct Link {
    peers: Peers,
    target: NodeId,
    addresses: Addresses,
    store_id: u64,
}

impl Link {
    fn address(&self) -> Option<pb::PeerAddress> {
        self.peers.address(self.target, self.store_id)
    }

    fn rpc_error(&self, action: RPCTypes, error: CallError) -> RPCError<Types> {
        match error {
            CallError::Deadline(timeout) => {
                RPCError::Timeout(Timeout { action, id: self.peers.node_id(), target: self.target, timeout })
            }
            CallError::Status(status) if status.code() == Code::FailedPrecondition => {
                tracing::error!(
                    "node {} at {} refuses: {}",
                    self.target,
                    self.addresses.peers,
                    status.message()
                );
                RPCError::Unreachable(Unreachable::from_string(status.message()))
            }
            CallError::Status(status) if status.code() != Code::Unavailable => {
                RPCError::Network(NetworkError::from_string(status))
            }
            other => RPCError::Unreachable(Unreachable::from_string(other)),
        }
    }

    async fn unary<T, F>(
        &self,
        rpc: &'static str,
        action: RPCTypes,
        option: &RPCOption,
        call: impl FnOnce(PeerServiceClient<Channel>) -> F,
    ) -> Result<T, RPCError<Types>>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let target = (self.addresses.peers.as_str(), Lane::Log);
        self.peers.call(rpc, target, option.soft_ttl(), call).await.map_err(|e| self.rpc_error(action, e))
    }

    fn vote_request(&self, rpc: &VoteRequest<Types>) -> pb::PeerVoteRequest {
        pb::PeerVoteRequest {
            address: self.address(),
            vote: Some(format::vote(&rpc.vote)),
            last_log_id: rpc.last_log_id.as_ref().map(format::log_id),
            leadership_transfer: rpc.leadership_transfer,
        }
    }
}

fn protocol(what: &str) -> RPCError<Types> {
    RPCError::Network(NetworkError::from_string(format!("the peer's answer lacks {what}")))
}

fn read_vote_response(response: pb::PeerVoteResponse) -> Result<VoteResponse<Types>, RPCError<Types>> {
    let vote = response.vote.as_ref().map(format::read_vote).ok_or_else(|| protocol("a vote"))?;
    let last = response.last_log_id.as_ref().map(format::read_log_id);
    Ok(VoteResponse::new(vote, last, response.granted))
}

impl NetBackoff<Types> for Link {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl NetVote<Types> for Link {
    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let request = self.vote_request(&rpc);
        let call = |mut client: PeerServiceClient<Channel>| async move { client.vote(request).await };
        read_vote_response(self.unary("Vote", RPCTypes::Vote, &option, call).await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let request = self.vote_request(&rpc);
        let call = |mut client: PeerServiceClient<Channel>| async move { client.pre_vote(request).await };
        read_vote_response(self.unary("PreVote", RPCTypes::Vote, &option, call).await?)
    }
}

impl NetTransferLeader<Types> for Link {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        use peer_transfer_leader_response::Result as Outcome;
        let request = pb::PeerTransferLeaderRequest {
            address: self.address(),
            from_leader: Some(format::vote(req.from_leader())),
            to_node_id: *req.to_node_id(),
            last_log_id: req.last_log_id().map(format::log_id),
        };
        let call =
            |mut client: PeerServiceClient<Channel>| async move { client.transfer_leader(request).await };
        let response = self.unary("TransferLeader", RPCTypes::TransferLeader, &option, call).await?;
        let vote = |vote: Option<millpool_proto::log::v1::Vote>| vote.as_ref().map(format::read_vote);
        match response.result.ok_or_else(|| protocol("a result"))? {
            Outcome::Accepted(_) => Ok(Ok(())),
            Outcome::VoteChanged(changed) => Ok(Err(TransferLeaderError::VoteChanged {
                expected: vote(changed.expected).ok_or_else(|| protocol("a vote"))?,
                actual: vote(changed.actual).ok_or_else(|| protocol("a vote"))?,
            })),
            Outcome::LogBehind(behind) => Ok(Err(TransferLeaderError::LogNotFlushed {
                expected: behind.expected.as_ref().map(format::read_log_id),
                actual: behind.actual.as_ref().map(format::read_log_id),
            })),
        }
    }
}

/// When the unanswered requests of an append stream were sent.
#[derive(Clone, Default)]
struct Unanswered(Arc<Mutex<VecDeque<Instant>>>);

impl Unanswered {
    fn sent(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(Instant::now());
    }

    fn answered(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    }

    fn oldest(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).front().copied()
    }
}

fn append_request(
    address: Option<pb::PeerAddress>,
    request: AppendEntriesRequest<Types>,
) -> pb::PeerAppendRequest {
    pb::PeerAppendRequest {
        address,
        vote: Some(format::vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(format::log_id),
        entries: request.entries.iter().map(format::entry).collect(),
        committed: request.leader_commit.as_ref().map(format::log_id),
    }
}

fn read_append_response(
    response: pb::PeerAppendResponse,
) -> Result<StreamAppendResult<Types>, RPCError<Types>> {
    use peer_append_response::Result as Outcome;
    match response.result.ok_or_else(|| protocol("a result"))? {
        Outcome::Matched(matched) => Ok(Ok(matched.last.as_ref().map(format::read_log_id))),
        Outcome::Conflict(conflict) => {
            let expected: LogId =
                conflict.expected.as_ref().map(format::read_log_id).ok_or_else(|| protocol("a place"))?;
            Ok(Err(StreamAppendError::Conflict(expected)))
        }
        Outcome::HigherVote(vote) => Ok(Err(StreamAppendError::HigherVote(format::read_vote(&vote)))),
    }
}

impl NetStreamAppend<Types> for Link {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        async move {
            // The first request is taken before anything can fail: its backoff is what keeps a
            // dead peer from being dialled thousands of times a second.
            let Some(first) = input.next().await else {
                return Ok(futures::stream::empty().boxed());
            };
            let deadline = option.soft_ttl().max(self.peers.0.append_stall);
            let unanswered = Unanswered::default();
            let (address, sent) = (self.address(), unanswered.clone());
            // The first counts as sent though the peer hang up before it is.
            unanswered.sent();
            let first = append_request(address.clone(), first);
            let later = input.map(move |request| {
                sent.sent();
                append_request(address.clone(), request)
            });
            let (lent, requests) = lend(futures::stream::iter([first]).chain(later));
            let target = (self.addresses.peers.as_str(), Lane::Log);
            let open =
                |mut client: PeerServiceClient<Channel>| async move { client.append_stream(requests).await };
            let answers = self.peers.call("AppendStream", target, deadline, open).await;
            let answers = answers.map_err(|e| self.rpc_error(RPCTypes::AppendEntries, e))?;
            let answers = Answers { link: self, answers, unanswered, deadline, _lent: lent };
            Ok(futures::stream::unfold(Some(answers), |answers| async move { answers?.next().await }).boxed())
        }
        .boxed()
    }
}

/// The answers of an append stream, with a deadline for each.
struct Answers<'s, S> {
    link: &'s Link,
    answers: tonic::Streaming<pb::PeerAppendResponse>,
    unanswered: Unanswered,
    deadline: Duration,
    /// The requests are taken back with the answers.
    _lent: Lender<S>,
}

type Answered<'s, S> = Option<(Result<StreamAppendResult<Types>, RPCError<Types>>, Option<Answers<'s, S>>)>;

impl<'s, S> Answers<'s, S> {
    /// The next answer; nothing follows one that is not a success.
    async fn next(mut self) -> Answered<'s, S> {
        let answer = tokio::select! {
            biased;
            answer = self.answers.message() => answer,
            () = stalled(&self.unanswered, self.deadline) => {
                self.link.peers.hang_up(&self.link.addresses.peers, Lane::Log);
                failed("AppendStream");
                let error = self.link.rpc_error(RPCTypes::AppendEntries, CallError::Deadline(self.deadline));
                return Some((Err(error), None));
            }
        };
        if let Ok(Some(_)) = answer {
            self.unanswered.answered();
        }
        match answer {
            Ok(Some(answer)) => match read_append_response(answer) {
                Ok(Ok(matched)) => Some((Ok(Ok(matched)), Some(self))),
                last => Some((last, None)),
            },
            // An end before all is answered is no success: openraft would take up again what it sent last, which may
            // be an order that it has done long ago.
            Ok(None) if self.unanswered.oldest().is_some() => {
                failed("AppendStream");
                let hung_up = CallError::Status(Box::new(Status::unavailable("the peer hung up")));
                Some((Err(self.link.rpc_error(RPCTypes::AppendEntries, hung_up)), None))
            }
            Ok(None) => None,
            Err(status) => {
                failed("AppendStream");
                let error = self.link.rpc_error(RPCTypes::AppendEntries, CallError::Status(Box::new(status)));
                Some((Err(error), None))
            }
        }
    }
}

/// Returns once a request has waited too long for its answer.
async fn stalled(unanswered: &Unanswered, deadline: Duration) {
    loop {
        let wait_until = match unanswered.oldest() {
            Some(sent) if sent.elapsed() >= deadline => return,
            Some(sent) => sent + deadline,
            // Whatever is sent from now on has the whole deadline.
            None => Instant::now() + deadline,
        };
        tokio::time::sleep_until(wait_until).await;
    }
}

impl NetSnapshot<Types> for Link {
    type SnapshotData = Body;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Body>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let begun = Instant::now();
        let Body { header, state } = snapshot.snapshot;
        let (node, bytes) = (self.target, state.len());
        let start = pb::PeerSnapshotStart {
            address: self.address(),
            vote: Some(format::vote(&vote)),
            header: Some(header),
        };
        let chunks = (0..state.len()).step_by(limits::SNAPSHOT_CHUNK_BYTES).map(move |at| {
            let end = (at + limits::SNAPSHOT_CHUNK_BYTES).min(state.len());
            peer_snapshot_chunk::Part::Body(state.slice(at..end))
        });
        let parts = std::iter::once(peer_snapshot_chunk::Part::Start(start)).chain(chunks);
        let messages = futures::stream::iter(parts.map(|part| pb::PeerSnapshotChunk { part: Some(part) }));
        let target = (self.addresses.peers.as_str(), Lane::Bulk);
        let call =
            |mut client: PeerServiceClient<Channel>| async move { client.install_snapshot(messages).await };
        let sent = self.peers.call("InstallSnapshot", target, option.soft_ttl(), call);
        let response = tokio::select! {
            sent = sent => sent.map_err(|e| self.rpc_error(RPCTypes::InstallSnapshot, e))?,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        let vote = response.vote.as_ref().map(format::read_vote).ok_or_else(|| protocol("a vote"))?;
        metrics::histogram!("millpool_snapshot_send_seconds").record(begun.elapsed().as_secs_f64());
        tracing::info!(node, bytes, seconds = begun.elapsed().as_secs_f64(), "snapshot sent");
        Ok(SnapshotResponse::new(vote))
    }
}
