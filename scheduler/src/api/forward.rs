//! Passing a request on to the leader, and executing one that was passed on.

use super::answer::failed;
use super::{Core, access, admin, booking, capacity, plan, programs, reasons, remote};
use crate::consensus::{Forward, NodeId};
use crate::wire::registry;
use millpool_alliance::command::Caller;
use millpool_proto::{state::v1 as state, v1};
use prost::Message;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tonic::{Code, Status};

/// A request of `caller` to `path`, as it travels between coordinators.
pub(super) fn request(caller: &Caller, path: &str, message: &impl Message) -> v1::ForwardRequest {
    v1::ForwardRequest {
        principal: registry::caller(caller).encode_to_vec().into(),
        method: path.to_owned(),
        request: message.encode_to_vec().into(),
        ..v1::ForwardRequest::default()
    }
}

/// The answer, or the error that the client is to see.
pub(super) fn read_response<A: Message + Default>(response: v1::ForwardResponse) -> Result<A, Status> {
    use v1::forward_response::Result as Wire;
    match response.result {
        Some(Wire::Response(bytes)) => A::decode(bytes).map_err(|e| Status::internal(e.to_string())),
        Some(Wire::Error(e)) => Err(Status::with_details(Code::from(e.code), e.message, e.details)),
        None => Err(Status::internal("the leader's answer is empty")),
    }
}

/// Executes what other coordinators pass on. The core comes after the consensus room, which needs this, and goes when
/// that stops, as each has the other.
#[derive(Clone, Default)]
pub struct Forwarded(Arc<Mutex<Option<Core>>>);

impl Forwarded {
    /// From now on requests are executed, until the node stops.
    pub fn begin(self, core: Core) {
        let consensus = core.consensus.clone();
        *self.core() = Some(core);
        tokio::spawn(async move {
            consensus.stop_reason().await;
            *self.core() = None;
        });
    }

    fn core(&self) -> MutexGuard<'_, Option<Core>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Forward for Forwarded {
    async fn forward(&self, _from: NodeId, request: v1::ForwardRequest) -> v1::ForwardResponse {
        use v1::forward_response::Result as Wire;
        let core = self.core().clone();
        let answer = match core {
            Some(core) => execute(core, request).await,
            None => {
                Err(failed(Code::Unavailable, reasons::NO_LEADER, "the node starts, or has stopped", &[]))
            }
        };
        let result = match answer {
            Ok(bytes) => Wire::Response(bytes.into()),
            Err(status) => Wire::Error(v1::ForwardError {
                code: status.code().into(),
                message: status.message().to_owned(),
                details: status.details().to_vec().into(),
            }),
        };
        v1::ForwardResponse { result: Some(result) }
    }
}

async fn execute(core: Core, request: v1::ForwardRequest) -> Result<Vec<u8>, Status> {
    let malformed = |e: String| Status::invalid_argument(format!("the forwarded request: {e}"));
    let caller = state::Caller::decode(request.principal).map_err(|e| malformed(e.to_string()))?;
    let caller = registry::read_caller(&caller).map_err(|e| malformed(e.message))?;
    access::allow(&request.method, &caller)?;
    let bytes = request.request;
    macro_rules! dispatch {
        ($($path:expr => $local:path,)*) => {
            match request.method.as_str() {
                $(path if path == $path => answer(core, caller, bytes, $local).await,)*
                other => Err(Status::unimplemented(format!("{other} is not passed on"))),
            }
        };
    }
    dispatch! {
        booking::QUOTE => booking::quote,
        booking::BOOK => booking::book,
        booking::CONFIRM => booking::confirm,
        booking::CANCEL => booking::cancel,
        capacity::PUT_MEMBER => capacity::put_member,
        capacity::PUT_PLANT => capacity::put_plant,
        capacity::PUT_MACHINE => capacity::put_machine,
        capacity::CREATE_OFFER => capacity::create_offer,
        capacity::WITHDRAW_OFFER => capacity::withdraw_offer,
        plan::EXPLAIN => plan::explain,
        remote::OPEN => remote::open,
        remote::CLOSE => remote::close,
        remote::OPERATE => remote::operate,
        programs::UPLOAD => programs::upload,
        admin::ADD_NODE => admin::add_node,
        admin::REMOVE_NODE => admin::remove_node,
        admin::TRANSFER_LEADER => admin::transfer_leader,
        admin::PUT_PRINCIPAL => admin::put_principal,
        admin::REVOKE_PRINCIPAL => admin::revoke_principal,
        admin::PUT_POLICY => admin::put_policy,
    }
}

async fn answer<Q, A, F, Fut>(
    core: Core,
    caller: Caller,
    bytes: bytes::Bytes,
    local: F,
) -> Result<Vec<u8>, Status>
where
    Q: Message + Default,
    A: Message,
    F: Fn(Core, Caller, Q) -> Fut,
    Fut: Future<Output = Result<A, Status>>,
{
    let message = Q::decode(bytes).map_err(|e| Status::invalid_argument(e.to_string()))?;
    local(core, caller, message).await.map(|answer| answer.encode_to_vec())
}
