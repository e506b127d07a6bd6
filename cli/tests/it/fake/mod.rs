//! A cluster that is not one: several in-process gRPC servers over one shared state, with faults that
//! a test asks for. It keeps the contract's promises about request ids and revisions, and no others.

#![allow(dead_code, clippy::unwrap_used)]

pub mod pool;
pub mod sample;

use millpool_proto::v1::admin_service_server::{AdminService, AdminServiceServer};
use millpool_proto::v1::booking_service_server::{BookingService, BookingServiceServer};
use millpool_proto::v1::capacity_service_server::{CapacityService, CapacityServiceServer};
use millpool_proto::v1::plan_service_server::{PlanService, PlanServiceServer};
use millpool_proto::v1::remote_service_server::{RemoteService, RemoteServiceServer};
use millpool_proto::v1::*;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::service::InterceptorLayer;
use tonic::transport::ServerTlsConfig;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What shall go wrong with the next call of a node.
#[derive(Clone, Debug)]
pub enum Fault {
    /// "I am not the leader."
    Unavailable,
    /// The call is carried out, and its answer lost: the caller hears that nobody knows.
    AnswerLost,
    /// The call is carried out, and the answer never comes.
    Silence,
    /// "Ask again after so many milliseconds."
    Overloaded(u64),
    /// A plain refusal with details.
    Refused,
}

/// What the cluster knows, whichever node is asked.
#[derive(Default)]
pub struct State {
    pub revision: u64,
    pub compacted_revision: u64,
    pub bookings: BTreeMap<String, Booking>,
    /// Bookings as they were after each revision.
    pub history: Vec<(u64, Booking)>,
    pub answers: BTreeMap<String, BookResponse>,
    /// The next backup ends in its middle.
    pub cut_backup: bool,
    /// Every request id of a write, in the order in which nodes heard them.
    pub request_ids_heard: Vec<String>,
    pub options: Vec<Choice>,
    pub obstacles: Vec<Obstacle>,
    pub members: Vec<Member>,
    pub plants: Vec<Plant>,
    pub machines: Vec<Machine>,
    pub offers: Vec<Offer>,
    pub plan: GetPlanResponse,
    pub indicators: Vec<Indicators>,
    pub policy: Policy,
    /// What was uploaded last.
    pub uploaded: Vec<u8>,
    /// One session of remote operation.
    pub session: Session,
    pub principals: Vec<Principal>,
    pub nodes: Vec<Node>,
    pub nodes_added: u32,
    /// The next watch of the present is cut off after its first booking.
    pub cut_present: bool,
    /// The bearer token that callers have to show, where they have to.
    pub token: std::option::Option<String>,
}

// The contract's option, whose name is taken by Rust's own.
pub use millpool_proto::v1::Option as Choice;

/// A cluster.
#[derive(Clone)]
pub struct Cluster {
    pub state: Arc<Mutex<State>>,
    changed: broadcast::Sender<u64>,
}

/// A node of it.
pub struct FakeNode {
    pub address: String,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    calls: Arc<Mutex<Vec<&'static str>>>,
    runtime: std::option::Option<tokio::runtime::Runtime>,
}

impl Cluster {
    pub fn new(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)), changed: broadcast::channel(64).0 }
    }

    /// Starts a node in a runtime of its own, so that killing it cuts its connections.
    pub fn start(&self, id: u64) -> FakeNode {
        self.start_secured(id, None)
    }

    /// The same with TLS.
    pub fn start_secured(&self, id: u64, tls: std::option::Option<ServerTlsConfig>) -> FakeNode {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (faults, calls) = (Arc::default(), Arc::default());
        let service =
            Service { cluster: self.clone(), id, faults: Arc::clone(&faults), calls: Arc::clone(&calls) };
        let token = self.state.lock().unwrap().token.clone();
        let admit = move |request: Request<()>| {
            let shown = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
            match &token {
                Some(token) if shown != Some(&format!("Bearer {token}")) => {
                    Err(reason(Code::Unauthenticated, "TOKEN_UNKNOWN", "no such token"))
                }
                _ => Ok(request),
            }
        };
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
            let mut server = tonic::transport::Server::builder();
            if let Some(tls) = tls {
                server = server.tls_config(tls).unwrap();
            }
            server
                .layer(InterceptorLayer::new(admit))
                .add_service(BookingServiceServer::new(service.clone()))
                .add_service(CapacityServiceServer::new(service.clone()))
                .add_service(PlanServiceServer::new(service.clone()))
                .add_service(RemoteServiceServer::new(service.clone()))
                .add_service(AdminServiceServer::new(service))
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        self.state.lock().unwrap().nodes.push(Node {
            id,
            peer_address: format!("10.0.0.{id}:7401"),
            public_address: address.clone(),
            voter: true,
            matched_index: 0,
        });
        FakeNode { address, faults, calls, runtime: Some(runtime) }
    }

    /// Changes a booking and wakes the watches.
    pub fn change(&self, booking: Booking) -> u64 {
        let revision = self.state.lock().unwrap().change(booking);
        let _nobody_watches = self.changed.send(revision);
        revision
    }
}

impl State {
    fn change(&mut self, mut booking: Booking) -> u64 {
        self.revision += 1;
        booking.revision = self.revision;
        self.history.push((self.revision, booking.clone()));
        self.bookings.insert(booking.id.clone(), booking);
        self.revision
    }
}

impl FakeNode {
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// The RPCs that this node has heard.
    pub fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }

    /// Ends it, with every connection.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // In a thread of its own: a runtime may not be waited for inside another.
            let ended = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(1)));
            ended.join().unwrap();
        }
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Clone)]
struct Service {
    cluster: Cluster,
    id: u64,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    calls: Arc<Mutex<Vec<&'static str>>>,
}

/// A refusal with every kind of detail that the contract knows.
pub fn refusal() -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(
        "BUDGET_EXCEEDED",
        "millpool",
        [("field", "order.budget_fen"), ("value", "50000"), ("accepted", "at least 61200")]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    details.add_bad_request_violation("order.due_s", "lies in the past");
    details.add_precondition_failure_violation("CAPACITY", "machine dmu50-1", "taken by another booking");
    Status::with_error_details(Code::FailedPrecondition, "no option costs at most 500.00 CNY", details)
}

fn reason(code: Code, reason: &str, message: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "millpool", []);
    Status::with_error_details(code, message, details)
}

impl Service {
    fn header(&self) -> std::option::Option<Header> {
        let revision = self.cluster.state.lock().unwrap().revision;
        Some(Header { cluster_id: "test-pool".to_owned(), node_id: self.id, term: 3, revision })
    }

    /// Notes a call, carries it out as the next fault allows, and answers.
    async fn serve<T>(
        &self,
        rpc: &'static str,
        carry_out: impl FnOnce(&mut State) -> Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        self.calls.lock().unwrap().push(rpc);
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            Some(Fault::Unavailable) => {
                return Err(reason(Code::Unavailable, "NOT_LEADER", "this node does not lead"));
            }
            Some(Fault::Overloaded(ms)) => {
                let mut details = ErrorDetails::new();
                details.set_error_info("OVERLOADED", "millpool", []);
                details.set_retry_info(Some(Duration::from_millis(ms)));
                return Err(Status::with_error_details(Code::ResourceExhausted, "too much at once", details));
            }
            Some(Fault::Refused) => return Err(refusal()),
            Some(Fault::AnswerLost | Fault::Silence) | None => {}
        }
        let answer = carry_out(&mut self.cluster.state.lock().unwrap());
        match fault {
            Some(Fault::AnswerLost) => {
                Err(reason(Code::DeadlineExceeded, "OUTCOME_UNKNOWN", "the write may still be applied"))
            }
            Some(Fault::Silence) => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                answer.map(Response::new)
            }
            _ => answer.map(Response::new),
        }
    }
}

type Stream<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl BookingService for Service {
    type WatchBookingsStream = Stream<WatchBookingsResponse>;

    async fn quote(&self, _: Request<QuoteRequest>) -> Result<Response<QuoteResponse>, Status> {
        let header = self.header();
        self.serve("Quote", |state| {
            Ok(QuoteResponse { header, options: state.options.clone(), obstacles: state.obstacles.clone() })
        })
        .await
    }

    async fn book(&self, request: Request<BookRequest>) -> Result<Response<BookResponse>, Status> {
        let (header, request) = (self.header(), request.into_inner());
        self.serve("Book", |state| {
            state.request_ids_heard.push(request.request_id.clone());
            if let Some(answer) = state.answers.get(&request.request_id) {
                return Ok(answer.clone());
            }
            let mut booking = sample::booking(&format!("B{:06}", state.bookings.len() + 1));
            if request.hold_s > 0 {
                booking.status = BookingStatus::Held.into();
                booking.hold_expires_at_s = sample::NOW_S + i64::from(request.hold_s);
            }
            booking.order = request.order;
            state.change(booking.clone());
            let answer = BookResponse { header, booking: Some(booking) };
            state.answers.insert(request.request_id, answer.clone());
            Ok(answer)
        })
        .await
    }

    async fn confirm_booking(
        &self,
        request: Request<ConfirmBookingRequest>,
    ) -> Result<Response<ConfirmBookingResponse>, Status> {
        let (header, request) = (self.header(), request.into_inner());
        self.serve("ConfirmBooking", |state| {
            let booking = state.bookings.get_mut(&request.booking_id).ok_or_else(unknown)?;
            booking.set_status(BookingStatus::Confirmed);
            Ok(ConfirmBookingResponse { header, booking: Some(booking.clone()) })
        })
        .await
    }

    async fn get_booking(
        &self,
        request: Request<GetBookingRequest>,
    ) -> Result<Response<GetBookingResponse>, Status> {
        let (header, request) = (self.header(), request.into_inner());
        self.serve("GetBooking", |state| {
            let booking = state.bookings.get(&request.booking_id).cloned().ok_or_else(unknown)?;
            Ok(GetBookingResponse { header, booking: Some(booking) })
        })
        .await
    }

    async fn list_bookings(
        &self,
        request: Request<ListBookingsRequest>,
    ) -> Result<Response<ListBookingsResponse>, Status> {
        let (header, request) = (self.header(), request.into_inner());
        self.serve("ListBookings", |state| {
            let page = request.page.clone().unwrap_or_default();
            let from = page.token.parse().unwrap_or(0_usize);
            let matching: Vec<Booking> = state
                .bookings
                .values()
                .filter(|booking| request.status == 0 || booking.status == request.status)
                .filter(|booking| !request.at_risk_only || booking.at_risk)
                .cloned()
                .collect();
            let until = (from + page.size as usize).min(matching.len());
            let next = if until < matching.len() { until.to_string() } else { String::new() };
            let bookings = matching[from..until].to_vec();
            Ok(ListBookingsResponse { header, bookings, next_page_token: next })
        })
        .await
    }

    async fn watch_bookings(
        &self,
        request: Request<WatchBookingsRequest>,
    ) -> Result<Response<Self::WatchBookingsStream>, Status> {
        let request = request.into_inner();
        let mut changes = self.cluster.changed.subscribe();
        let header = self.header();
        let ready = self.serve("WatchBookings", |state| {
            if request.start_revision > 0 && request.start_revision <= state.compacted_revision {
                let mut details = ErrorDetails::new();
                let oldest = (state.compacted_revision + 1).to_string();
                details.set_error_info("COMPACTED", "millpool", [("compacted_revision".to_owned(), oldest)]);
                return Err(Status::with_error_details(Code::OutOfRange, "no longer kept", details));
            }
            let mut first = Vec::new();
            if request.start_revision == 0 {
                first.push((state.revision, state.bookings.values().cloned().collect()));
            } else {
                let kept = state.history.iter().filter(|(at, _)| *at >= request.start_revision);
                first.extend(kept.map(|(at, booking)| (*at, vec![booking.clone()])));
            }
            Ok(first)
        });
        let mut first: Vec<(u64, Vec<Booking>)> = ready.await?.into_inner();
        let cut = request.start_revision == 0
            && std::mem::take(&mut self.cluster.state.lock().unwrap().cut_present);
        if cut {
            first[0].1.truncate(1);
        }
        let (sender, receiver) = mpsc::channel(64);
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            let message = |revision: u64, bookings: Vec<Booking>| WatchBookingsResponse {
                header: header.clone().map(|header| Header { revision, ..header }),
                bookings,
                continued: cut,
            };
            let mut last = request.start_revision.saturating_sub(1);
            for (revision, bookings) in first {
                last = last.max(revision);
                sender.send(Ok(message(revision, bookings))).await.ok();
            }
            if cut {
                return;
            }
            while changes.recv().await.is_ok() {
                let new: Vec<(u64, Booking)> = {
                    let state = cluster.state.lock().unwrap();
                    state.history.iter().filter(|(at, _)| *at > last).cloned().collect()
                };
                for (revision, booking) in new {
                    last = revision;
                    sender.send(Ok(message(revision, vec![booking]))).await.ok();
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn cancel_booking(
        &self,
        request: Request<CancelBookingRequest>,
    ) -> Result<Response<CancelBookingResponse>, Status> {
        let (header, request) = (self.header(), request.into_inner());
        self.serve("CancelBooking", |state| {
            let booking = state.bookings.get_mut(&request.booking_id).ok_or_else(unknown)?;
            booking.set_status(BookingStatus::Cancelled);
            Ok(CancelBookingResponse { header, booking: Some(booking.clone()) })
        })
        .await
    }
}

#[tonic::async_trait]
impl RemoteService for Service {
    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        let (header, request) = (self.header(), request.into_inner());
        self.serve("OpenSession", |state| {
            let session = Session { commands: Vec::new(), ..state.session.clone() };
            let known = request.booking_id == session.booking_id;
            known.then_some(OpenSessionResponse { header, session: Some(session) }).ok_or_else(unknown)
        })
        .await
    }

    async fn close_session(
        &self,
        request: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        let (header, request) = (self.header(), request.into_inner());
        self.serve("CloseSession", |state| {
            state.session.closed_at_s = sample::NOW_S;
            state.session.closed_because = format!("closed by Buyer bo: {}", request.because);
            Ok(CloseSessionResponse { header, session: Some(state.session.clone()) })
        })
        .await
    }

    /// A start finds the door open, a resume is not heard of, everything else is done.
    async fn operate(&self, request: Request<OperateRequest>) -> Result<Response<OperateResponse>, Status> {
        let (header, request) = (self.header(), request.into_inner());
        self.serve("Operate", |state| {
            let outcome = match request.verb() {
                RemoteVerb::Resume => None,
                RemoteVerb::Start => {
                    Some(sample::outcome(RemoteVerdict::Refused, "interlock \"door\" is open"))
                }
                RemoteVerb::Stop => Some(sample::outcome(RemoteVerdict::Unknown, "no answer within 5 s")),
                _ => Some(sample::outcome(RemoteVerdict::Done, "done (return status 1)")),
            };
            let command = RemoteCommand {
                nonce: state.session.commands.len() as u32 + 1,
                verb: request.verb,
                by: "buyer:bo".to_owned(),
                asked_at_s: sample::NOW_S,
                valid_s: request.valid_s,
                program: request.program,
                program_sha256: request.program_sha256,
                program_bytes: request.program_bytes,
                consent_s: request.consent_s,
                outcome,
                taken_back: None,
            };
            state.session.commands.push(command.clone());
            Ok(OperateResponse { header, command: Some(command) })
        })
        .await
    }

    async fn upload_program(
        &self,
        request: Request<UploadProgramRequest>,
    ) -> Result<Response<UploadProgramResponse>, Status> {
        let (header, request) = (self.header(), request.into_inner());
        self.serve("UploadProgram", |state| {
            if request.program.is_empty() {
                return Err(Status::invalid_argument("the program has no name"));
            }
            if request.offset == 0 {
                state.uploaded.clear();
            }
            if request.offset as usize != state.uploaded.len() {
                return Err(Status::failed_precondition("that is not what comes next"));
            }
            state.uploaded.extend_from_slice(&request.part);
            let received_bytes = state.uploaded.len() as u64;
            Ok(UploadProgramResponse { header, received_bytes })
        })
        .await
    }

    async fn get_session(
        &self,
        _: Request<GetSessionRequest>,
    ) -> Result<Response<GetSessionResponse>, Status> {
        let header = self.header();
        self.serve("GetSession", |state| {
            let view = (state.session.closed_at_s == 0).then(sample::session_view);
            Ok(GetSessionResponse { header, session: Some(state.session.clone()), view })
        })
        .await
    }

    async fn list_sessions(
        &self,
        _: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let header = self.header();
        self.serve("ListSessions", |state| {
            let sessions = vec![state.session.clone()];
            Ok(ListSessionsResponse { header, sessions, next_page_token: String::new() })
        })
        .await
    }
}

fn unknown() -> Status {
    reason(Code::NotFound, "BOOKING_NOT_FOUND", "there is no such booking")
}

/// Puts a thing in place of the one with the same id.
fn put<T: Clone>(things: &mut Vec<T>, thing: T, same: impl Fn(&T) -> bool) -> T {
    things.retain(|known| !same(known));
    things.push(thing.clone());
    thing
}

#[tonic::async_trait]
impl CapacityService for Service {
    async fn put_member(
        &self,
        request: Request<PutMemberRequest>,
    ) -> Result<Response<PutMemberResponse>, Status> {
        let (header, member) = (self.header(), request.into_inner().member.unwrap());
        self.serve("PutMember", |state| {
            let id = member.id.clone();
            let member = put(&mut state.members, member, |known| known.id == id);
            Ok(PutMemberResponse { header, member: Some(member) })
        })
        .await
    }

    async fn list_members(
        &self,
        _: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        let header = self.header();
        self.serve("ListMembers", |state| {
            let members = state.members.clone();
            Ok(ListMembersResponse { header, members, next_page_token: String::new() })
        })
        .await
    }

    async fn put_plant(
        &self,
        request: Request<PutPlantRequest>,
    ) -> Result<Response<PutPlantResponse>, Status> {
        let (header, plant) = (self.header(), request.into_inner().plant.unwrap());
        self.serve("PutPlant", |state| {
            let id = plant.id.clone();
            let plant = put(&mut state.plants, plant, |known| known.id == id);
            Ok(PutPlantResponse { header, plant: Some(plant) })
        })
        .await
    }

    async fn list_plants(
        &self,
        _: Request<ListPlantsRequest>,
    ) -> Result<Response<ListPlantsResponse>, Status> {
        let header = self.header();
        self.serve("ListPlants", |state| {
            let plants = state.plants.clone();
            Ok(ListPlantsResponse { header, plants, next_page_token: String::new() })
        })
        .await
    }

    async fn put_machine(
        &self,
        request: Request<PutMachineRequest>,
    ) -> Result<Response<PutMachineResponse>, Status> {
        let (header, request) = (self.header(), request.into_inner());
        self.serve("PutMachine", |state| {
            let mut machine = request.machine.unwrap();
            machine.revision = request.expected_revision + 1;
            let id = machine.id.clone();
            let machine = put(&mut state.machines, machine, |known| known.id == id);
            Ok(PutMachineResponse { header, machine: Some(machine) })
        })
        .await
    }

    async fn list_machines(
        &self,
        _: Request<ListMachinesRequest>,
    ) -> Result<Response<ListMachinesResponse>, Status> {
        let header = self.header();
        self.serve("ListMachines", |state| {
            let machines = state.machines.clone();
            Ok(ListMachinesResponse { header, machines, next_page_token: String::new() })
        })
        .await
    }

    async fn create_offer(
        &self,
        request: Request<CreateOfferRequest>,
    ) -> Result<Response<CreateOfferResponse>, Status> {
        let (header, offer) = (self.header(), request.into_inner().offer.unwrap());
        self.serve("CreateOffer", |state| {
            state.offers.push(offer.clone());
            Ok(CreateOfferResponse { header, offer: Some(offer) })
        })
        .await
    }

    async fn list_offers(
        &self,
        _: Request<ListOffersRequest>,
    ) -> Result<Response<ListOffersResponse>, Status> {
        let header = self.header();
        self.serve("ListOffers", |state| {
            let offers = state.offers.clone();
            Ok(ListOffersResponse { header, offers, next_page_token: String::new() })
        })
        .await
    }

    async fn withdraw_offer(
        &self,
        request: Request<WithdrawOfferRequest>,
    ) -> Result<Response<WithdrawOfferResponse>, Status> {
        let (header, request) = (self.header(), request.into_inner());
        self.serve("WithdrawOffer", |state| {
            let offer = state.offers.iter_mut().find(|offer| offer.id == request.offer_id);
            let offer = offer.ok_or_else(unknown)?;
            offer.withdrawn = !request.preview;
            let disturbed = vec![DisturbedOperation {
                booking_id: "B000001".to_owned(),
                operation: 0,
                machine_id: offer.machine_id.clone(),
                window: Some(Window { start_s: sample::NOW_S + 3600, end_s: sample::NOW_S + 9000 }),
            }];
            Ok(WithdrawOfferResponse { header, offer: Some(offer.clone()), disturbed })
        })
        .await
    }
}

#[tonic::async_trait]
impl PlanService for Service {
    type WatchPlanStream = Stream<WatchPlanResponse>;

    async fn get_plan(&self, _: Request<GetPlanRequest>) -> Result<Response<GetPlanResponse>, Status> {
        let header = self.header();
        self.serve("GetPlan", |state| Ok(GetPlanResponse { header, ..state.plan.clone() })).await
    }

    async fn get_indicators(
        &self,
        request: Request<GetIndicatorsRequest>,
    ) -> Result<Response<GetIndicatorsResponse>, Status> {
        let header = self.header();
        self.serve("GetIndicators", |state| {
            let grouped = request.get_ref().group() != IndicatorGroup::All;
            let indicators = state.indicators.iter().filter(|i| i.group_id.is_empty() != grouped);
            Ok(GetIndicatorsResponse { header, indicators: indicators.cloned().collect() })
        })
        .await
    }

    async fn watch_plan(
        &self,
        _: Request<WatchPlanRequest>,
    ) -> Result<Response<Self::WatchPlanStream>, Status> {
        let header = self.header();
        let first =
            self.serve("WatchPlan", |state| Ok(WatchPlanResponse { header, summary: state.plan.summary }));
        let (sender, receiver) = mpsc::channel(1);
        sender.send(Ok(first.await?.into_inner())).await.unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            drop(sender);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn explain(&self, _: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let header = self.header();
        self.serve("Explain", |_| Ok(ExplainResponse { header, ..sample::explanation() })).await
    }
}

#[tonic::async_trait]
impl AdminService for Service {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let (header, id) = (self.header(), self.id);
        self.serve("GetStatus", |state| {
            Ok(GetStatusResponse {
                header,
                version: "0.1.0".to_owned(),
                leader_id: 1,
                nodes: state.nodes.clone(),
                last_log_index: 1240,
                applied_index: 1240 - (id - 1) * 3,
                snapshot_index: 1000,
                state_hash: 0x7f3a_0c11_9d2e_4b58,
                agents_connected: if id == 1 { 4 } else { 0 },
                counts: Some(sample::counts()),
                format: 2,
                format_max: 2,
                restorations: Vec::new(),
            })
        })
        .await
    }

    type BackupStream = ReceiverStream<Result<BackupResponse, Status>>;

    /// A backup in two pieces; one that is to be cut ends after the first.
    async fn backup(&self, _: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        use backup_response::Part;
        let header = self.header();
        let cut = self.serve("Backup", |state| Ok(std::mem::take(&mut state.cut_backup))).await?.into_inner();
        let (to, from) = mpsc::channel(8);
        let whole = b"the whole state";
        let mut parts = vec![
            Part::Start(BackupStart { header, bytes: whole.len() as u64 }),
            Part::Body(whole[..9].to_vec().into()),
        ];
        if !cut {
            parts.push(Part::Body(whole[9..].to_vec().into()));
            parts.push(Part::End(BackupEnd { crc32c: crc32c::crc32c(whole) }));
        }
        for part in parts {
            to.send(Ok(BackupResponse { part: Some(part) })).await.unwrap();
        }
        Ok(Response::new(ReceiverStream::new(from)))
    }

    async fn add_node(&self, request: Request<AddNodeRequest>) -> Result<Response<AddNodeResponse>, Status> {
        let (header, node) = (self.header(), request.into_inner().node.unwrap());
        self.serve("AddNode", |state| {
            state.nodes_added += 1;
            state.nodes.push(node);
            Ok(AddNodeResponse { header, nodes: state.nodes.clone() })
        })
        .await
    }

    async fn remove_node(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        let (header, id) = (self.header(), request.into_inner().node_id);
        self.serve("RemoveNode", |state| {
            state.nodes.retain(|node| node.id != id);
            Ok(RemoveNodeResponse { header, nodes: state.nodes.clone() })
        })
        .await
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let (header, id) = (self.header(), request.into_inner().node_id);
        self.serve("TransferLeader", |_| Ok(TransferLeaderResponse { header, leader_id: id.max(2) })).await
    }

    async fn take_snapshot(
        &self,
        _: Request<TakeSnapshotRequest>,
    ) -> Result<Response<TakeSnapshotResponse>, Status> {
        let header = self.header();
        self.serve("TakeSnapshot", |_| Ok(TakeSnapshotResponse { header, snapshot_index: 1240 })).await
    }

    async fn put_principal(
        &self,
        request: Request<PutPrincipalRequest>,
    ) -> Result<Response<PutPrincipalResponse>, Status> {
        let (header, principal) = (self.header(), request.into_inner().principal);
        self.serve("PutPrincipal", |_| {
            Ok(PutPrincipalResponse { header, principal, token: "mp_5ecret".to_owned() })
        })
        .await
    }

    async fn list_principals(
        &self,
        _: Request<ListPrincipalsRequest>,
    ) -> Result<Response<ListPrincipalsResponse>, Status> {
        let header = self.header();
        self.serve("ListPrincipals", |state| {
            let principals = state.principals.clone();
            Ok(ListPrincipalsResponse { header, principals, next_page_token: String::new() })
        })
        .await
    }

    async fn revoke_principal(
        &self,
        request: Request<RevokePrincipalRequest>,
    ) -> Result<Response<RevokePrincipalResponse>, Status> {
        let (header, request) = (self.header(), request.into_inner());
        self.serve("RevokePrincipal", |_| {
            let (id, role) = (request.id, request.role);
            let principal = Principal { id, role, expires_at_s: sample::NOW_S + 86_400, revoked: true };
            Ok(RevokePrincipalResponse { header, principal: Some(principal) })
        })
        .await
    }

    async fn get_policy(&self, _: Request<GetPolicyRequest>) -> Result<Response<GetPolicyResponse>, Status> {
        let header = self.header();
        self.serve("GetPolicy", |state| Ok(GetPolicyResponse { header, policy: Some(state.policy.clone()) }))
            .await
    }

    async fn put_policy(
        &self,
        request: Request<PutPolicyRequest>,
    ) -> Result<Response<PutPolicyResponse>, Status> {
        let (header, request) = (self.header(), request.into_inner());
        self.serve("PutPolicy", |state| {
            state.policy = request.policy.unwrap();
            state.policy.revision = request.expected_revision + 1;
            Ok(PutPolicyResponse { header, policy: Some(state.policy.clone()) })
        })
        .await
    }
}
