//! The peers' service: what this node answers when another coordinator calls.
//!
//! Every request is checked for its address first. What does not fit is refused and changes
//! nothing.

use super::StateMachine;
use super::agreement::Hashes;
use super::error::DecodeError;
use super::format;
use super::limits;
use super::machine::Machine;
use super::snapshot::{self, Body};
use super::types::{LogId, NodeId, Types};
use bytes::BytesMut;
use futures::{Stream, StreamExt as _};
use millpool_proto::log::v1 as log;
use millpool_proto::v1::peer_service_server::{PeerService, PeerServiceServer};
use millpool_proto::v1::{
    self as pb, peer_append_response, peer_snapshot_chunk, peer_transfer_leader_response,
};
use openraft::errors::Fatal;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::{Raft, ReadPolicy, Snapshot};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

/// How long the next chunk of a snapshot may take.
const CHUNK_DEADLINE: Duration = Duration::from_secs(10);
/// Memory set aside for a snapshot before any of it has come.
const SNAPSHOT_RESERVE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What executes the requests that other coordinators pass on: the API room.
#[tonic::async_trait]
pub trait Forward: Send + Sync + 'static {
    /// Executes a request that node `from` received from a client.
    async fn forward(&self, from: NodeId, request: pb::ForwardRequest) -> pb::ForwardResponse;
}

/// Who this node is, for the check of every request.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) cluster_id: String,
    pub(super) node_id: NodeId,
    pub(super) store_id: u64,
    pub(super) format_max: u32,
}

impl Identity {
    /// Refuses what was meant for somebody else; gives the sender.
    fn check(&self, address: Option<&pb::PeerAddress>) -> Result<NodeId, Status> {
        let address = address.ok_or_else(|| Status::invalid_argument("the request has no address"))?;
        let refuse = |why: String| Err(Status::failed_precondition(why));
        if address.cluster_id != self.cluster_id {
            return refuse(format!(
                "the request is for cluster {:?}, this node belongs to cluster {:?}",
                address.cluster_id, self.cluster_id
            ));
        }
        if address.to_node_id != self.node_id {
            return refuse(format!(
                "the request is for node {}, here answers node {}: check the members' addresses",
                address.to_node_id, self.node_id
            ));
        }
        if address.to_store_id != 0 && address.to_store_id != self.store_id {
            return refuse(format!(
                "node {} became a member with another store: its disk was replaced, and what it had promised is \
                 lost; remove it from the cluster and add the new one under an id never used before",
                self.node_id
            ));
        }
        Ok(address.from_node_id)
    }
}

/// The service. Made by [`Handle::peer_service`](super::Handle::peer_service).
pub struct PeerApi<S: StateMachine>(Arc<Inner<S>>);

pub(super) struct Inner<S: StateMachine> {
    pub(super) identity: Identity,
    pub(super) raft: Raft<Types, Machine<S>>,
    pub(super) hashes: Hashes,
    pub(super) snapshot_bytes_max: u64,
    /// One snapshot at a time is held in memory.
    pub(super) receiving: Semaphore,
    pub(super) forward: Arc<dyn Forward>,
}

impl<S: StateMachine> PeerApi<S> {
    pub(super) fn server(inner: Inner<S>) -> PeerServiceServer<Self> {
        PeerServiceServer::new(Self(Arc::new(inner)))
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
    }
}

fn malformed(e: DecodeError) -> Status {
    Status::invalid_argument(e.0)
}

fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("the request lacks {what}"))
}

fn stopped(fatal: impl ToString) -> Status {
    Status::unavailable(format!("this node has stopped: {}", fatal.to_string()))
}

fn read_log_id(id: &Option<log::LogId>) -> Option<LogId> {
    id.as_ref().map(format::read_log_id)
}

fn read_append(request: pb::PeerAppendRequest) -> Result<AppendEntriesRequest<Types>, Status> {
    let entries: Result<Vec<_>, _> = request.entries.into_iter().map(format::read_entry).collect();
    Ok(AppendEntriesRequest {
        vote: format::read_vote(&request.vote.ok_or_else(|| missing("a vote"))?),
        prev_log_id: read_log_id(&request.previous),
        entries: entries.map_err(malformed)?,
        leader_commit: read_log_id(&request.committed),
    })
}

fn append_response(
    result: Result<StreamAppendResult<Types>, Fatal<Types>>,
) -> Result<pb::PeerAppendResponse, Status> {
    use peer_append_response::Result as Outcome;
    let outcome = match result.map_err(stopped)? {
        Ok(last) => Outcome::Matched(pb::PeerAppendMatched {
            last: last.as_ref().map(format::log_id),
            partial: false,
        }),
        Err(StreamAppendError::Conflict(at)) => {
            Outcome::Conflict(pb::PeerAppendConflict { expected: Some(format::log_id(&at)) })
        }
        Err(StreamAppendError::HigherVote(vote)) => Outcome::HigherVote(format::vote(&vote)),
    };
    Ok(pb::PeerAppendResponse { result: Some(outcome) })
}

fn read_vote_request(request: &pb::PeerVoteRequest) -> Result<VoteRequest<Types>, Status> {
    let vote = format::read_vote(request.vote.as_ref().ok_or_else(|| missing("a vote"))?);
    let mut read = VoteRequest::new(vote, read_log_id(&request.last_log_id));
    read.leadership_transfer = request.leadership_transfer;
    Ok(read)
}

fn vote_response(response: VoteResponse<Types>) -> pb::PeerVoteResponse {
    pb::PeerVoteResponse {
        vote: Some(format::vote(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(format::log_id),
    }
}

/// Why an append stream was cut short by this side.
type Refusal = Arc<Mutex<Option<Status>>>;

impl<S: StateMachine> Inner<S> {
    /// Hands the stream's requests on, until one is refused.
    fn appends(
        self: Arc<Self>,
        requests: Streaming<pb::PeerAppendRequest>,
        refusal: Refusal,
    ) -> impl Stream<Item = AppendEntriesRequest<Types>> + Send + 'static {
        futures::stream::unfold((self, requests, refusal), |(this, mut requests, refusal)| async move {
            let read = match requests.message().await {
                Ok(Some(request)) => {
                    this.identity.check(request.address.as_ref()).and_then(|_| read_append(request))
                }
                Ok(None) => return None,
                Err(status) => Err(status),
            };
            match read {
                Ok(request) => Some((request, (this, requests, refusal))),
                Err(status) => {
                    *refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
                    None
                }
            }
        })
    }

    async fn receive(
        &self,
        mut chunks: Streaming<pb::PeerSnapshotChunk>,
    ) -> Result<(openraft::type_config::alias::VoteOf<Types>, Body), Status> {
        use peer_snapshot_chunk::Part;
        let Some(Part::Start(start)) = next_part(&mut chunks).await? else {
            return Err(missing("the snapshot's start"));
        };
        self.identity.check(start.address.as_ref())?;
        let vote = format::read_vote(&start.vote.ok_or_else(|| missing("a vote"))?);
        let header = start.header.ok_or_else(|| missing("a header"))?;
        if header.body_bytes > self.snapshot_bytes_max {
            return Err(Status::resource_exhausted(format!(
                "the snapshot has {} bytes, this node takes at most {}",
                header.body_bytes, self.snapshot_bytes_max
            )));
        }
        let mut state = BytesMut::with_capacity(header.body_bytes.min(SNAPSHOT_RESERVE_BYTES_MAX) as usize);
        while let Some(part) = next_part(&mut chunks).await? {
            let Part::Body(bytes) = part else { return Err(Status::invalid_argument("a second start")) };
            if (state.len() + bytes.len()) as u64 > header.body_bytes {
                return Err(Status::invalid_argument("the snapshot is longer than its header says"));
            }
            state.extend_from_slice(&bytes);
        }
        let body = Body { header, state: state.freeze() };
        body.verify(&self.identity.cluster_id).map_err(malformed)?;
        Ok((vote, body))
    }
}

async fn next_part(
    chunks: &mut Streaming<pb::PeerSnapshotChunk>,
) -> Result<Option<peer_snapshot_chunk::Part>, Status> {
    let message = tokio::time::timeout(CHUNK_DEADLINE, chunks.message()).await;
    match message.map_err(|_| Status::deadline_exceeded("the snapshot's next chunk did not come"))?? {
        Some(chunk) => chunk.part.map(Some).ok_or_else(|| missing("a part")),
        None => Ok(None),
    }
}

#[tonic::async_trait]
impl<S: StateMachine> PeerService for PeerApi<S> {
    type AppendStreamStream = Pin<Box<dyn Stream<Item = Result<pb::PeerAppendResponse, Status>> + Send>>;

    async fn identify(
        &self,
        request: Request<pb::PeerIdentifyRequest>,
    ) -> Result<Response<pb::PeerIdentifyResponse>, Status> {
        if request.into_inner().address.is_none() {
            return Err(missing("an address"));
        }
        let identity = &self.0.identity;
        Ok(Response::new(pb::PeerIdentifyResponse {
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node_id,
            store_id: identity.store_id,
            format_max: identity.format_max,
            initialized: self.0.raft.is_initialized().await.map_err(stopped)?,
        }))
    }

    async fn append_stream(
        &self,
        request: Request<Streaming<pb::PeerAppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let refusal = Refusal::default();
        let appends = self.0.clone().appends(request.into_inner(), refusal.clone());
        let refused = futures::stream::once(async move {
            refusal.lock().unwrap_or_else(PoisonError::into_inner).take().map(Err)
        });
        let answers = self.0.raft.stream_append(appends).map(append_response);
        Ok(Response::new(answers.chain(refused.filter_map(std::future::ready)).boxed()))
    }

    async fn vote(
        &self,
        request: Request<pb::PeerVoteRequest>,
    ) -> Result<Response<pb::PeerVoteResponse>, Status> {
        let request = request.into_inner();
        self.0.identity.check(request.address.as_ref())?;
        let response = self.0.raft.vote(read_vote_request(&request)?).await.map_err(stopped)?;
        Ok(Response::new(vote_response(response)))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::PeerVoteRequest>,
    ) -> Result<Response<pb::PeerVoteResponse>, Status> {
        let request = request.into_inner();
        self.0.identity.check(request.address.as_ref())?;
        let response = self.0.raft.pre_vote(read_vote_request(&request)?).await.map_err(stopped)?;
        Ok(Response::new(vote_response(response)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::PeerSnapshotChunk>>,
    ) -> Result<Response<pb::PeerSnapshotResponse>, Status> {
        let Ok(_one) = self.0.receiving.try_acquire() else {
            return Err(Status::unavailable("another snapshot is being received"));
        };
        let (vote, body) = self.0.receive(request.into_inner()).await?;
        let meta = snapshot::meta(&body.header).map_err(malformed)?;
        let snapshot = Snapshot { meta, snapshot: body };
        let response = self.0.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(Response::new(pb::PeerSnapshotResponse { vote: Some(format::vote(&response.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::PeerTransferLeaderRequest>,
    ) -> Result<Response<pb::PeerTransferLeaderResponse>, Status> {
        use peer_transfer_leader_response::Result as Outcome;
        let request = request.into_inner();
        self.0.identity.check(request.address.as_ref())?;
        let from = format::read_vote(&request.from_leader.ok_or_else(|| missing("a vote"))?);
        let order = TransferLeaderRequest::new(from, request.to_node_id, read_log_id(&request.last_log_id));
        let outcome = match self.0.raft.handle_transfer_leader(order).await.map_err(stopped)? {
            Ok(()) => Outcome::Accepted(pb::PeerTransferAccepted {}),
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                let (expected, actual) = (Some(format::vote(&expected)), Some(format::vote(&actual)));
                Outcome::VoteChanged(pb::PeerTransferVoteChanged { expected, actual })
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                let (expected, actual) =
                    (expected.as_ref().map(format::log_id), actual.as_ref().map(format::log_id));
                Outcome::LogBehind(pb::PeerTransferLogBehind { expected, actual })
            }
        };
        Ok(Response::new(pb::PeerTransferLeaderResponse { result: Some(outcome) }))
    }

    async fn read_index(
        &self,
        request: Request<pb::PeerReadIndexRequest>,
    ) -> Result<Response<pb::PeerReadIndexResponse>, Status> {
        self.0.identity.check(request.into_inner().address.as_ref())?;
        let read = self.0.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        let read = read.map_err(|e| Status::unavailable(format!("no read index: {e}")))?;
        Ok(Response::new(pb::PeerReadIndexResponse { revision: read.read_log_id().index() }))
    }

    async fn state_hash(
        &self,
        request: Request<pb::PeerStateHashRequest>,
    ) -> Result<Response<pb::PeerStateHashResponse>, Status> {
        use pb::peer_state_hash_response::Result as Outcome;
        let request = request.into_inner();
        self.0.identity.check(request.address.as_ref())?;
        let hash = self.0.hashes.at(request.revision);
        let outcome = hash.map_or(Outcome::Unknown(pb::PeerHashUnknown {}), Outcome::Hash);
        Ok(Response::new(pb::PeerStateHashResponse { result: Some(outcome) }))
    }

    async fn forward(
        &self,
        request: Request<pb::ForwardRequest>,
    ) -> Result<Response<pb::ForwardResponse>, Status> {
        let request = request.into_inner();
        let from = self.0.identity.check(request.address.as_ref())?;
        Ok(Response::new(self.0.forward.forward(from, request).await))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_somebody_else_is_refused() {
        let identity = Identity { cluster_id: "a".into(), node_id: 2, store_id: 7, format_max: 1 };
        let address = |cluster_id: &str, to_node_id, to_store_id| pb::PeerAddress {
            cluster_id: cluster_id.into(),
            from_node_id: 1,
            to_node_id,
            to_store_id,
        };
        assert_eq!(identity.check(Some(&address("a", 2, 7))).unwrap(), 1);
        // Whoever asks for the first time does not know the store yet.
        assert_eq!(identity.check(Some(&address("a", 2, 0))).unwrap(), 1);
        for (cluster_id, node, store, says) in [
            ("b", 2, 7, "belongs to cluster \"a\""),
            ("", 2, 7, "belongs to cluster \"a\""),
            ("a", 3, 7, "here answers node 2"),
            ("a", 2, 8, "its disk was replaced"),
        ] {
            let refused = identity.check(Some(&address(cluster_id, node, store))).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
            assert!(refused.message().contains(says), "{refused}");
        }
        assert_eq!(identity.check(None).unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
