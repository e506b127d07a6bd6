//! `RemoteService`: sessions, and what is asked of machines in them.
//!
//! A command is put on record like every write; the session of the plant's agent ([`super::agent`]) passes it on, and
//! what came of it comes back as one of the agent's events. So whoever asks waits for nothing but the state.

use super::answer::refused;
use super::{Core, key, page_of, programs};
use crate::wire::remote as wire;
use millpool_alliance::command::Caller;
use millpool_alliance::remote::{Asked, Session, Verb};
use millpool_alliance::{BookingId, Command, MachineId, Outcome, Reason, Refusal, Reply, SessionId};
use millpool_proto::v1::{self, remote_service_server::RemoteService};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

pub(super) const OPEN: &str = "/millpool.v1.RemoteService/OpenSession";
pub(super) const CLOSE: &str = "/millpool.v1.RemoteService/CloseSession";
pub(super) const OPERATE: &str = "/millpool.v1.RemoteService/Operate";
const GET: &str = "/millpool.v1.RemoteService/GetSession";
const LIST: &str = "/millpool.v1.RemoteService/ListSessions";

/// A command is good for so long if nothing else is asked, seconds.
const VALID_DEFAULT_S: u32 = 5;
/// An outcome is waited for so long beyond the command's time: the machine may be slow to answer.
const ANSWER_GRACE: Duration = Duration::from_secs(3);

#[tonic::async_trait]
impl RemoteService for Core {
    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        self.led(OPEN, request, open).await
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        self.led(CLOSE, request, close).await
    }

    async fn operate(
        &self,
        request: Request<v1::OperateRequest>,
    ) -> Result<Response<v1::OperateResponse>, Status> {
        self.led(OPERATE, request, operate).await
    }

    async fn upload_program(
        &self,
        request: Request<v1::UploadProgramRequest>,
    ) -> Result<Response<v1::UploadProgramResponse>, Status> {
        self.led(programs::UPLOAD, request, programs::upload).await
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        self.local(GET, request, get).await
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        self.local(LIST, request, list).await
    }
}

/// The session in an outcome, and the number of the command that was put on record.
fn told(core: &Core, outcome: &Outcome) -> Result<(v1::Header, Arc<Session>, u32), Status> {
    let state = core.applied();
    match &outcome.result {
        Ok(Reply::Remote(id, nonce)) => {
            let session = state.sessions().get(id).cloned();
            let session = session.ok_or_else(|| refused(&Refusal::unknown("session_id", id)))?;
            Ok((core.header(outcome.revision), session, *nonce))
        }
        _ => Err(Status::internal("a session's command was answered with something else")),
    }
}

pub(super) async fn open(
    core: Core,
    caller: Caller,
    request: v1::OpenSessionRequest,
) -> Result<v1::OpenSessionResponse, Status> {
    let body = v1::OpenSessionRequest { request_id: String::new(), ..request.clone() };
    let key = key(OPEN, &request.request_id, &body)?;
    let booking = BookingId::parse(&request.booking_id).map_err(|refusal| refused(&refusal))?;
    let command = Command::OpenSession { booking, operation: request.operation };
    let (header, session, _) = told(&core, &*core.execute(caller, key, command).await?)?;
    Ok(v1::OpenSessionResponse { header: Some(header), session: Some(wire::session(&session)) })
}

pub(super) async fn close(
    core: Core,
    caller: Caller,
    request: v1::CloseSessionRequest,
) -> Result<v1::CloseSessionResponse, Status> {
    let body = v1::CloseSessionRequest { request_id: String::new(), ..request.clone() };
    let key = key(CLOSE, &request.request_id, &body)?;
    let command = Command::CloseSession { session: read_id(&request.session_id)?, because: request.because };
    let (header, session, _) = told(&core, &*core.execute(caller, key, command).await?)?;
    Ok(v1::CloseSessionResponse { header: Some(header), session: Some(wire::session(&session)) })
}

pub(super) async fn operate(
    core: Core,
    caller: Caller,
    request: v1::OperateRequest,
) -> Result<v1::OperateResponse, Status> {
    let body = v1::OperateRequest { request_id: String::new(), ..request.clone() };
    let key = key(OPERATE, &request.request_id, &body)?;
    let valid_s = if request.valid_s == 0 { VALID_DEFAULT_S } else { request.valid_s };
    let asked = wire::read_asked(v1::OperateRequest { valid_s, ..request });
    let asked: Asked = asked.map_err(|refusal| refused(&refusal))?;
    let known = core.applied().answered(&caller, Some(&key)).is_some();
    if !known {
        must_have_program(&core, &asked).map_err(|refusal| refused(&refusal))?;
    }
    let patience = Duration::from_secs(valid_s.into()) + ANSWER_GRACE;
    let outcome = core.execute(caller, key, Command::Operate(asked)).await?;
    let (mut header, mut session, nonce) = told(&core, &outcome)?;
    let deadline = Instant::now() + patience;
    loop {
        let command = session.command(nonce);
        let answered = command.is_some_and(|command| command.outcome.is_some());
        let seen = core.history.newest();
        if answered || Instant::now() >= deadline {
            let command = command.map(|command| wire::command(command, nonce));
            return Ok(v1::OperateResponse { header: Some(header), command });
        }
        // What comes between the look below and the wait is a newer revision than was seen.
        let (revision, found) =
            core.consensus.look(|view| (view.revision, view.state.0.sessions().get(&session.id).cloned()));
        session = found.unwrap_or(session);
        if session.command(nonce).is_some_and(|command| command.outcome.is_some()) {
            header = core.header(revision);
            continue;
        }
        let waited = tokio::time::timeout_at(deadline, core.history.wait_after(seen)).await;
        if waited == Ok(false) {
            return Err(super::answer::failure(crate::planner::Failure::Unknown));
        }
    }
}

/// What is put into quarantine has to be here for the agent to fetch.
fn must_have_program(core: &Core, asked: &Asked) -> Result<(), Refusal> {
    match asked.sha256.filter(|_| asked.verb == Verb::Put) {
        Some(sha256) if !core.programs.has(&asked.session, &sha256, asked.bytes) => {
            let accepted = "that of a program of this length that was uploaded in this session, to its end";
            Err(Refusal::invalid(Reason::WrongStatus, "program_sha256", sha256, accepted))
        }
        _ => Ok(()),
    }
}

fn read_id(id: &str) -> Result<SessionId, Status> {
    SessionId::parse(id).map_err(|refusal| refused(&refusal))
}

async fn get(
    core: Core,
    caller: Caller,
    request: v1::GetSessionRequest,
) -> Result<v1::GetSessionResponse, Status> {
    let view = core.read(request.consistency).await?;
    let id = read_id(&request.session_id)?;
    let session = view.state.0.visible_session(&caller, &id).map_err(|refusal| refused(&refusal))?;
    Ok(v1::GetSessionResponse {
        header: Some(core.header(view.revision)),
        session: Some(wire::session(session)),
        view: wire::view(&view.state.0, session),
    })
}

async fn list(
    core: Core,
    caller: Caller,
    request: v1::ListSessionsRequest,
) -> Result<v1::ListSessionsResponse, Status> {
    let booking = optional(&request.booking_id, BookingId::parse)?;
    let machine = optional(&request.machine_id, MachineId::parse)?;
    let before = match request.page.as_ref().map_or("", |page| &page.token) {
        "" => None,
        token => Some(SessionId::parse(token).map_err(|_| {
            let accepted = "a next_page_token as it was given";
            refused(&Refusal::invalid(Reason::InvalidField, "page.token", token, accepted))
        })?),
    };
    let view = core.read(request.consistency).await?;
    let state = &view.state.0;
    let wanted = |session: &&Arc<Session>| {
        before.is_none_or(|before| session.id < before)
            && booking.is_none_or(|id| session.booking == id)
            && machine.as_ref().is_none_or(|id| session.machine == *id)
            && (!request.open_only || session.is_open())
            && state.visible_session(&caller, &session.id).is_ok()
    };
    let latest_first = state.sessions().values().rev().filter(wanted);
    let (shown, next_page_token) = page_of(latest_first, &request.page, |session| session.id.to_string())?;
    Ok(v1::ListSessionsResponse {
        header: Some(core.header(view.revision)),
        sessions: shown.into_iter().map(|session| wire::session_alone(session)).collect(),
        next_page_token,
    })
}

fn optional<Id>(text: &str, parse: impl Fn(&str) -> Result<Id, Refusal>) -> Result<Option<Id>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some).map_err(|refusal| refused(&refusal))
}
