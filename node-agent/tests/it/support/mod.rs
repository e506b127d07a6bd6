//! What the tests share: a coordinator that can be told to misbehave, a cable that can be cut, and an adapter
//! without either.

#![allow(dead_code)]

pub mod counterpart;
pub mod mosquitto;
pub mod plant;

use millpool_meters::PrometheusHandle;
use millpool_node_agent::clock::Clock;
use millpool_node_agent::dispatch::Dispatch;
use millpool_node_agent::ground::Ground;
use millpool_node_agent::health::Health;
use millpool_node_agent::outbox::{Entry, Outbox};
use millpool_node_agent::session::{Options, Session, Timing, Token};
use millpool_proto::v1 as wire;
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::agent_message::Body as Up;
use millpool_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use millpool_proto::v1::coordinator_message::Body as Down;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

/// What the agents of this process count. There is one for all tests.
pub static METERS: LazyLock<PrometheusHandle> =
    LazyLock::new(|| millpool_node_agent::meters::install(None, &[]).unwrap().prometheus);

/// What a coordinator has durably.
#[derive(Default)]
pub struct Durable {
    /// Events of each outbox, in the order of their application.
    pub applied: BTreeMap<String, Vec<wire::AgentEvent>>,
    pub hellos: Vec<wire::Hello>,
    pub tokens: Vec<String>,
    pub kept: Vec<u64>,
    pub heartbeats: u64,
    /// What the agent did wrong.
    pub wrongs: Vec<String>,
    /// Events that came more than once.
    pub repeated: u64,
    /// When each event happened, and when it was applied, wall time.
    pub arrivals: Vec<(i64, i64)>,
}

/// How a coordinator behaves.
#[derive(Clone, Default)]
pub struct Manner {
    /// Refuses as a follower that knows this leader.
    pub leader: Option<String>,
    /// Refuses for this reason.
    pub refuses: Option<(Code, &'static str)>,
    /// Says that it has applied nothing of any outbox.
    pub forgets: bool,
    /// Says nothing after the Welcome, and applies nothing.
    pub silent: bool,
    /// Acknowledges everything twice.
    pub stutters: bool,
    /// Acknowledges what was never sent, once.
    pub overshoots: bool,
    /// Applies, and ends the stream before the acknowledgement, after so many batches.
    pub hangs_up_after: Option<u32>,
    /// Refuses events of this booking's.
    pub dislikes: Option<String>,
    /// Sent to whoever attaches.
    pub list: Option<wire::DispatchList>,
    /// The open sessions of remote operation.
    pub sessions: Vec<wire::RemoteSession>,
    /// Commands that are asked next, once each.
    pub asks: Vec<wire::RemoteAsked>,
    /// What it gives for a program, by the SHA-256 that is asked for.
    pub programs: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone)]
pub struct Coordinator {
    pub durable: Arc<Mutex<Durable>>,
    pub manner: Arc<Mutex<Manner>>,
    pub changed: Arc<watch::Sender<u64>>,
}

type Outgoing = mpsc::Sender<Result<wire::CoordinatorMessage, Status>>;

impl Coordinator {
    pub fn new() -> Self {
        Self { durable: Arc::default(), manner: Arc::default(), changed: Arc::new(watch::Sender::new(0)) }
    }

    /// Serves until the token is cancelled; answers with its address.
    pub async fn serve(&self, stop: &CancellationToken) -> SocketAddr {
        self.serve_at("127.0.0.1:0".parse().unwrap(), stop).await
    }

    pub async fn serve_at(&self, address: SocketAddr, stop: &CancellationToken) -> SocketAddr {
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let address = listener.local_addr().unwrap();
        let service = AgentServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        let stop = stop.clone();
        tokio::spawn(
            server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned()),
        );
        address
    }

    pub fn manner(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.manner.lock().unwrap());
    }

    /// Waits until something is so, and fails after ten seconds.
    pub async fn until(&self, what: &str, is: impl Fn(&Durable) -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !is(&self.durable.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
        let wrongs = self.durable.lock().unwrap().wrongs.clone();
        assert!(waited.is_ok(), "not within 10 s: {what}; wrongs: {wrongs:?}");
    }

    /// Every event applied, whatever the outbox.
    pub fn events(&self) -> Vec<wire::AgentEvent> {
        self.durable.lock().unwrap().applied.values().flatten().cloned().collect()
    }

    fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    async fn hear(
        self,
        mut incoming: Streaming<wire::AgentMessage>,
        outgoing: Outgoing,
        outbox_id: String,
        mut echo_ms: i64,
    ) {
        let mut batches = 0;
        let mut beat = tokio::time::interval(Duration::from_millis(100));

        let mut sessions = None;
        loop {
            let message = tokio::select! {
                message = incoming.message() => message,
                _ = beat.tick() => {
                    if !self.manner.lock().unwrap().silent {
                        let heartbeat = Down::Heartbeat(wire::Heartbeat { clock_ms: 0, echo_ms });
                        let mut says = vec![heartbeat];
                        self.manner(|manner| {
                            if sessions.as_ref() != Some(&manner.sessions) {
                                sessions = Some(manner.sessions.clone());
                                let sessions = manner.sessions.clone();
                                says.push(Down::RemoteSessions(wire::RemoteSessions { sessions }));
                            }
                            says.extend(manner.asks.drain(..).map(|asked| {
                                Down::RemoteAsked(wire::RemoteAsked { echo_ms, ..asked })
                            }));
                        });
                        for say in says {
                            if outgoing.send(Ok(down(say))).await.is_err() { return }
                        }
                    }
                    continue;
                }
            };
            let Ok(Some(message)) = message else { return };
            let manner = self.manner.lock().unwrap().clone();
            if manner.silent {
                continue;
            }
            match message.body {
                Some(Up::Events(events)) => {
                    let (seq, refused) = self.apply(&outbox_id, events, &manner);
                    batches += 1;
                    self.touch();
                    if manner.hangs_up_after.is_some_and(|after| batches >= after) {
                        return;
                    }
                    let seq = if manner.overshoots { seq + 1000 } else { seq };
                    self.manner(|manner| manner.overshoots = false);
                    for _ in 0..=u32::from(manner.stutters) {
                        let refused = refused.clone();
                        let applied = Down::EventsApplied(wire::EventsApplied { seq, refused });
                        if outgoing.send(Ok(down(applied))).await.is_err() {
                            return;
                        }
                    }
                }
                Some(Up::DispatchKept(kept)) => self.durable.lock().unwrap().kept.push(kept.revision),
                Some(Up::Heartbeat(beat)) => {
                    echo_ms = beat.clock_ms;
                    self.durable.lock().unwrap().heartbeats += 1;
                }
                Some(Up::Hello(_)) => self.wrong("a second Hello".to_owned()),
                None => self.wrong("an empty message".to_owned()),
            }
            self.touch();
        }
    }

    fn wrong(&self, what: String) {
        self.durable.lock().unwrap().wrongs.push(what);
    }

    /// Applies what is new, and takes note of what is wrong.
    fn apply(
        &self,
        outbox_id: &str,
        events: wire::AgentEvents,
        manner: &Manner,
    ) -> (u64, Vec<wire::RefusedEvent>) {
        let mut durable = self.durable.lock().unwrap();
        let Durable { applied, wrongs, repeated, arrivals, .. } = &mut *durable;
        let applied = applied.entry(outbox_id.to_owned()).or_default();
        let mut refused = Vec::new();
        if events.events.len() > 256 || events.events.is_empty() {
            wrongs.push(format!("a batch of {}", events.events.len()));
        }
        for event in events.events {
            let next = applied.len() as u64 + 1;
            if event.seq > next {
                wrongs.push(format!("event {} where {next} is due", event.seq));
            } else if event.seq < next {
                *repeated += 1;
                if applied[event.seq as usize - 1] != event {
                    wrongs.push(format!("another event {}", event.seq));
                }
            } else {
                if manner.dislikes.is_some() && manner.dislikes == booking(&event) {
                    refused.push(wire::RefusedEvent { seq: event.seq, reason: "not booked here".into() });
                }
                arrivals.push((event.at_ms, Clock::default().now_ms()));
                applied.push(event);
            }
        }
        (applied.len() as u64, refused)
    }
}

pub fn booking(event: &wire::AgentEvent) -> Option<String> {
    match &event.what {
        Some(What::OperationStarted(started)) => Some(started.booking_id.clone()),
        _ => None,
    }
}

fn down(body: Down) -> wire::CoordinatorMessage {
    wire::CoordinatorMessage { body: Some(body) }
}

/// Programs are given in parts of so many bytes.
const PART_BYTES: usize = 10;

#[tonic::async_trait]
impl AgentService for Coordinator {
    async fn fetch_program(
        &self,
        request: Request<wire::FetchProgramRequest>,
    ) -> Result<Response<wire::FetchProgramResponse>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer secret");
        let wire::FetchProgramRequest { program_sha256, offset, .. } = request.into_inner();
        let content = self.manner.lock().unwrap().programs.get(&program_sha256).cloned();
        let content = content.ok_or_else(|| Status::failed_precondition("the content is not here"))?;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let part = rest[..rest.len().min(PART_BYTES)].to_vec().into();
        Ok(Response::new(wire::FetchProgramResponse { part }))
    }

    type AttachStream = ReceiverStream<Result<wire::CoordinatorMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let manner = self.manner.lock().unwrap().clone();
        if let Some(leader) = &manner.leader {
            let details = ErrorDetails::with_error_info(
                "NOT_LEADER",
                "millpool",
                [("leader".to_owned(), leader.clone())],
            );
            return Err(Status::with_error_details(Code::Unavailable, "not the leader", details));
        }
        if let Some((code, reason)) = manner.refuses {
            let details = ErrorDetails::with_error_info(reason, "millpool", []);
            self.durable.lock().unwrap().wrongs.push(format!("refused {reason}"));
            self.touch();
            return Err(Status::with_error_details(code, "no", details));
        }
        let token = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let mut incoming = request.into_inner();
        let Some(wire::AgentMessage { body: Some(Up::Hello(hello)) }) = incoming.message().await? else {
            return Err(Status::invalid_argument("no Hello"));
        };
        let (outbox_id, clock_ms) = (hello.outbox_id.clone(), hello.clock_ms);
        let applied_seq = {
            let mut durable = self.durable.lock().unwrap();
            durable.hellos.push(hello);
            durable.tokens.extend(token);
            let applied = durable.applied.entry(outbox_id.clone()).or_default();
            if manner.forgets { 0 } else { applied.len() as u64 }
        };
        self.touch();
        let (outgoing, stream) = mpsc::channel(64);
        let welcome = wire::Welcome { cluster_id: "test".into(), applied_seq };
        outgoing.try_send(Ok(down(Down::Welcome(welcome)))).unwrap();
        if let Some(list) = manner.list.clone() {
            outgoing.try_send(Ok(down(Down::DispatchList(list)))).unwrap();
        }
        tokio::spawn(self.clone().hear(incoming, outgoing, outbox_id, clock_ms));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// A cable between the agent and a coordinator. Cutting it resets every connection through it.
#[derive(Clone)]
pub struct Cable {
    pub address: SocketAddr,
    cut: Arc<Mutex<CancellationToken>>,
    /// New connections are refused.
    unplugged: Arc<watch::Sender<bool>>,
}

impl Cable {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cable = Self {
            address: listener.local_addr().unwrap(),
            cut: Arc::default(),
            unplugged: Arc::new(watch::Sender::new(false)),
        };
        let own = cable.clone();
        tokio::spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { return };
                if *own.unplugged.borrow() {
                    continue;
                }
                let cut = own.cut.lock().unwrap().clone();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    let mut near = near;
                    tokio::select! {
                        () = cut.cancelled() => {}
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        cable
    }

    pub fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }

    pub fn unplug(&self, unplugged: bool) {
        self.unplugged.send_replace(unplugged);
        self.cut();
    }
}

/// Deadlines for tests in a hurry.
pub fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(100),
        silence: Duration::from_millis(600),
        connect: Duration::from_secs(2),
        retry_first: Duration::from_millis(10),
        retry_max: Duration::from_millis(80),
        retry_slow: Duration::from_millis(300),
    }
}

pub fn session(dir: &Path, outbox: &Outbox, coordinators: &[SocketAddr]) -> (Session, Health, Dispatch) {
    let health = Health::new("plant", "agent");
    let dispatch = Dispatch::open(dir, "plant", &Ground::Machine).unwrap();
    let options = Options {
        plant_id: "plant".into(),
        agent_id: "agent".into(),
        coordinators: coordinators.iter().map(SocketAddr::to_string).collect(),
        token: Token::Given("secret".into()),
        tls: None,
        timing: timing(),
    };
    let session = Session {
        options,
        clock: Clock::default(),
        ground: Ground::Machine,
        outbox: outbox.clone(),
        dispatch: dispatch.clone(),
        health: health.clone(),
        line: watch::channel(Default::default()).0,
        supply: watch::channel(None).0,
        remote: mpsc::channel(1).0,
    };
    (session, health, dispatch)
}

/// An event that can be told from every other.
pub fn numbered(number: u64) -> Entry {
    let started = wire::OperationStarted { booking_id: number.to_string(), operation: 0 };
    let what = Some(What::OperationStarted(started));
    Entry {
        events: vec![wire::AgentEvent { seq: 0, at_ms: number as i64, machine_id: "m".into(), what }],
        mark: None,
    }
}
