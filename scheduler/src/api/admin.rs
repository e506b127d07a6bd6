//! `AdminService`.

use super::answer::{failed, failure, reasons, refused};
use super::stream::{self, Answers};
use super::{Core, access, key, paged};
use crate::consensus::{Addresses, MembershipError};
use crate::planner::Failure;
use crate::wire::{registry as wire, required, snapshot};
use bytes::Bytes;
use millpool_alliance::command::Caller;
use millpool_alliance::registry::Principal;
use millpool_alliance::{Command, PrincipalId, Reason, Refusal, Reply};
use millpool_proto::v1::{self, admin_service_server::AdminService, backup_response::Part};
use tonic::{Code, Request, Response, Status};

pub(super) const ADD_NODE: &str = "/millpool.v1.AdminService/AddNode";
pub(super) const REMOVE_NODE: &str = "/millpool.v1.AdminService/RemoveNode";
pub(super) const TRANSFER_LEADER: &str = "/millpool.v1.AdminService/TransferLeader";
pub(super) const PUT_PRINCIPAL: &str = "/millpool.v1.AdminService/PutPrincipal";
pub(super) const REVOKE_PRINCIPAL: &str = "/millpool.v1.AdminService/RevokePrincipal";
pub(super) const PUT_POLICY: &str = "/millpool.v1.AdminService/PutPolicy";
/// Of those that a leader answers, the ones that carry no request id.
pub(super) const WITHOUT_ID: [&str; 3] = [ADD_NODE, REMOVE_NODE, TRANSFER_LEADER];
/// Bytes of a backup in one message.
const BACKUP_PIECE_BYTES: usize = 512 * 1024;
const GET_STATUS: &str = "/millpool.v1.AdminService/GetStatus";
const TAKE_SNAPSHOT: &str = "/millpool.v1.AdminService/TakeSnapshot";
const BACKUP: &str = "/millpool.v1.AdminService/Backup";
const LIST_PRINCIPALS: &str = "/millpool.v1.AdminService/ListPrincipals";
const GET_POLICY: &str = "/millpool.v1.AdminService/GetPolicy";

#[tonic::async_trait]
impl AdminService for Core {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        self.local(GET_STATUS, request, get_status).await
    }

    async fn add_node(
        &self,
        request: Request<v1::AddNodeRequest>,
    ) -> Result<Response<v1::AddNodeResponse>, Status> {
        self.led(ADD_NODE, request, add_node).await
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        self.led(REMOVE_NODE, request, remove_node).await
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        self.led(TRANSFER_LEADER, request, transfer_leader).await
    }

    async fn take_snapshot(
        &self,
        request: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotResponse>, Status> {
        self.local(TAKE_SNAPSHOT, request, take_snapshot).await
    }

    type BackupStream = Answers<v1::BackupResponse>;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        self.local(BACKUP, request, backup).await
    }

    async fn put_principal(
        &self,
        request: Request<v1::PutPrincipalRequest>,
    ) -> Result<Response<v1::PutPrincipalResponse>, Status> {
        self.led(PUT_PRINCIPAL, request, put_principal).await
    }

    async fn list_principals(
        &self,
        request: Request<v1::ListPrincipalsRequest>,
    ) -> Result<Response<v1::ListPrincipalsResponse>, Status> {
        self.local(LIST_PRINCIPALS, request, list_principals).await
    }

    async fn revoke_principal(
        &self,
        request: Request<v1::RevokePrincipalRequest>,
    ) -> Result<Response<v1::RevokePrincipalResponse>, Status> {
        self.led(REVOKE_PRINCIPAL, request, revoke_principal).await
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        self.local(GET_POLICY, request, get_policy).await
    }

    async fn put_policy(
        &self,
        request: Request<v1::PutPolicyRequest>,
    ) -> Result<Response<v1::PutPolicyResponse>, Status> {
        self.led(PUT_POLICY, request, put_policy).await
    }
}

/// What this node knows, without asking the others: also when there is no majority.
async fn get_status(
    core: Core,
    _caller: Caller,
    _request: v1::GetStatusRequest,
) -> Result<v1::GetStatusResponse, Status> {
    let status = core.consensus.status();
    let view = core.consensus.state();
    let state = &view.state.0;
    Ok(v1::GetStatusResponse {
        header: Some(core.header(view.revision)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        leader_id: status.leader.unwrap_or(0),
        nodes: nodes(&core),
        last_log_index: status.last_log_index,
        applied_index: status.applied_index,
        snapshot_index: status.snapshot_index,
        state_hash: state.hash(),
        agents_connected: core.seats.len() as u32,
        counts: Some(v1::Counts {
            members: state.members().len() as u32,
            plants: state.plants().len() as u32,
            machines: state.stations().len() as u32,
            offers: state.offers().values().filter(|o| !o.withdrawn).count() as u32,
            bookings: state.bookings().len() as u32,
            request_ids: state.answers_len() as u32,
        }),
        format: state.format().number(),
        format_max: view.state.1.number(),
        restorations: state.restorations().iter().map(snapshot::restoration).collect(),
    })
}

fn nodes(core: &Core) -> Vec<v1::Node> {
    let status = core.consensus.status();
    status
        .members
        .iter()
        .map(|m| v1::Node {
            id: m.node_id,
            peer_address: m.addresses.peers.clone(),
            public_address: m.addresses.public.clone(),
            voter: m.voter,
            matched_index: m.matched_index.unwrap_or(0),
        })
        .collect()
}

fn membership(error: MembershipError) -> Status {
    match error {
        MembershipError::NotLeader { leader } => failure(Failure::NotLeader { leader }),
        MembershipError::Unknown(_) => {
            failed(Code::DeadlineExceeded, reasons::OUTCOME_UNKNOWN, error.to_string(), &[])
        }
        MembershipError::Stopped(_) => failure(Failure::Stopped),
        other => refused(&Refusal::because(Reason::WrongStatus, other.to_string())),
    }
}

pub(super) async fn add_node(
    core: Core,
    _caller: Caller,
    request: v1::AddNodeRequest,
) -> Result<v1::AddNodeResponse, Status> {
    let node = required("node", request.node).map_err(|r| refused(&r))?;
    if node.id == 0 {
        return Err(refused(&Refusal::invalid(
            Reason::InvalidField,
            "node.id",
            0,
            "1 or more, never used before",
        )));
    }
    for (field, address) in
        [("node.peer_address", &node.peer_address), ("node.public_address", &node.public_address)]
    {
        if !address.contains(':') || address.len() > 255 {
            return Err(refused(&Refusal::invalid(Reason::InvalidField, field, address, "host:port")));
        }
    }
    let addresses = Addresses { peers: node.peer_address, public: node.public_address };
    core.consensus.add_learner(node.id, addresses).await.map_err(membership)?;
    core.consensus.promote(node.id).await.map_err(membership)?;
    Ok(v1::AddNodeResponse { header: Some(core.header(core.consensus.revision())), nodes: nodes(&core) })
}

pub(super) async fn remove_node(
    core: Core,
    _caller: Caller,
    request: v1::RemoveNodeRequest,
) -> Result<v1::RemoveNodeResponse, Status> {
    known_member(&core, request.node_id)?;
    core.consensus.remove(request.node_id).await.map_err(membership)?;
    Ok(v1::RemoveNodeResponse { header: Some(core.header(core.consensus.revision())), nodes: nodes(&core) })
}

pub(super) async fn transfer_leader(
    core: Core,
    _caller: Caller,
    request: v1::TransferLeaderRequest,
) -> Result<v1::TransferLeaderResponse, Status> {
    let to = (request.node_id != 0).then_some(request.node_id);
    to.map_or(Ok(()), |id| known_member(&core, id))?;
    let leader_id = core.consensus.transfer_leader(to).await.map_err(membership)?;
    Ok(v1::TransferLeaderResponse { header: Some(core.header(core.consensus.revision())), leader_id })
}

async fn take_snapshot(
    core: Core,
    _caller: Caller,
    _request: v1::TakeSnapshotRequest,
) -> Result<v1::TakeSnapshotResponse, Status> {
    let snapshot_index = core.consensus.trigger_snapshot().await.map_err(membership)?;
    Ok(v1::TakeSnapshotResponse { header: Some(core.header(core.consensus.revision())), snapshot_index })
}

/// The state as a file, in pieces.
async fn backup(
    core: Core,
    _caller: Caller,
    request: v1::BackupRequest,
) -> Result<Answers<v1::BackupResponse>, Status> {
    let one = core.backups.clone().try_acquire_owned().map_err(|_| failure(Failure::Overloaded))?;
    core.read(request.consistency).await?;
    let (writer, answers) = stream::channel();
    tokio::spawn(async move {
        let (revision, parts) = match core.consensus.backup().await {
            Ok(file) => file,
            Err(error) => return writer.end(Status::internal(error.to_string())).await,
        };
        for part in pieces(core.header(revision), &parts) {
            if writer.send(v1::BackupResponse { part: Some(part) }, revision).await.is_err() {
                return;
            }
        }
        drop(one);
    });
    Ok(answers)
}

/// A file's parts as they travel: what it is, its bytes, its checksum.
fn pieces(header: v1::Header, parts: &[Bytes]) -> impl Iterator<Item = Part> {
    let start = v1::BackupStart { header: Some(header), bytes: parts.iter().map(|p| p.len() as u64).sum() };
    let crc32c = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    let bodies = parts.iter().flat_map(|part| {
        let cut = |at: usize| part.slice(at..part.len().min(at + BACKUP_PIECE_BYTES));
        (0..part.len()).step_by(BACKUP_PIECE_BYTES).map(move |at| Part::Body(cut(at)))
    });
    let end = Part::End(v1::BackupEnd { crc32c });
    std::iter::once(Part::Start(start)).chain(bodies).chain(std::iter::once(end))
}

pub(super) async fn put_principal(
    core: Core,
    caller: Caller,
    request: v1::PutPrincipalRequest,
) -> Result<v1::PutPrincipalResponse, Status> {
    let body = v1::PutPrincipalRequest { request_id: String::new(), ..request.clone() };
    let key = key(PUT_PRINCIPAL, &request.request_id, &body)?;
    let asked = required("principal", request.principal).map_err(|r| refused(&r))?;
    let token = fresh_token()?;
    let hash = access::hash(&token);
    let principal = wire::read_principal(&asked, &hash).map_err(|r| refused(&r))?;
    let outcome = core.execute(caller, key, Command::PutPrincipal(principal)).await?;
    let stored = stored(&outcome.result);
    // A repeated request finds the token of the first time, which nobody can tell any more.
    let mine = stored.as_ref().is_some_and(|p| p.token_sha256 == hash);
    Ok(v1::PutPrincipalResponse {
        header: Some(core.header(outcome.revision)),
        principal: stored.map(wire::principal),
        token: if mine { token } else { String::new() },
    })
}

fn stored(result: &Result<Reply, Refusal>) -> Option<&Principal> {
    match result {
        Ok(Reply::Principal(principal)) => Some(principal),
        _ => None,
    }
}

/// Refuses a node that is not of the cluster.
fn known_member(core: &Core, node_id: u64) -> Result<(), Status> {
    if core.consensus.status().members.iter().any(|member| member.node_id == node_id) {
        return Ok(());
    }
    Err(refused(&Refusal::unknown("node_id", node_id)))
}

/// 256 random bits, as text.
fn fresh_token() -> Result<String, Status> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| Status::internal(format!("no randomness: {e}")))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

async fn list_principals(
    core: Core,
    _caller: Caller,
    request: v1::ListPrincipalsRequest,
) -> Result<v1::ListPrincipalsResponse, Status> {
    let view = core.read(None).await?;
    let name = |p: &&std::sync::Arc<Principal>| format!("{}/{}", p.role as u8, p.id);
    let (shown, next_page_token) = paged(view.state.0.principals().values(), &request.page, name)?;
    Ok(v1::ListPrincipalsResponse {
        header: Some(core.header(view.revision)),
        principals: shown.into_iter().map(|p| wire::principal(p)).collect(),
        next_page_token,
    })
}

pub(super) async fn revoke_principal(
    core: Core,
    caller: Caller,
    request: v1::RevokePrincipalRequest,
) -> Result<v1::RevokePrincipalResponse, Status> {
    let body = v1::RevokePrincipalRequest { request_id: String::new(), ..request.clone() };
    let key = key(REVOKE_PRINCIPAL, &request.request_id, &body)?;
    let role = wire::read_role(request.role).map_err(|r| refused(&r))?;
    let id = PrincipalId::parse(&request.id).map_err(|r| refused(&r))?;
    let outcome = core.execute(caller, key, Command::RevokePrincipal { role, id }).await?;
    Ok(v1::RevokePrincipalResponse {
        header: Some(core.header(outcome.revision)),
        principal: stored(&outcome.result).map(wire::principal),
    })
}

async fn get_policy(
    core: Core,
    _caller: Caller,
    request: v1::GetPolicyRequest,
) -> Result<v1::GetPolicyResponse, Status> {
    let view = core.read(request.consistency).await?;
    Ok(v1::GetPolicyResponse {
        header: Some(core.header(view.revision)),
        policy: Some(wire::policy(view.state.0.policy())),
    })
}

pub(super) async fn put_policy(
    core: Core,
    caller: Caller,
    request: v1::PutPolicyRequest,
) -> Result<v1::PutPolicyResponse, Status> {
    let body = v1::PutPolicyRequest { request_id: String::new(), ..request.clone() };
    let key = key(PUT_POLICY, &request.request_id, &body)?;
    let policy = required("policy", request.policy).and_then(wire::read_policy).map_err(|r| refused(&r))?;
    let command = Command::PutPolicy { policy, expected_revision: request.expected_revision };
    let outcome = core.execute(caller, key, command).await?;
    let policy = match &outcome.result {
        Ok(Reply::Policy(policy)) => Some(wire::policy(policy)),
        _ => None,
    };
    Ok(v1::PutPolicyResponse { header: Some(core.header(outcome.revision)), policy })
}
