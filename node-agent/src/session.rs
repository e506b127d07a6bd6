//! The stream to the coordinator: says Hello, sends the outbox's events in order, keeps dispatch lists.
//!
//! One task. It tries the coordinators in turn, follows a NOT_LEADER refusal to the leader it names, and
//! falls back with jitter. On a Welcome it sends from the number after the last one that the coordinator
//! has applied; at most [`WINDOW_EVENTS`] are on their way unacknowledged. Nothing here remembers what was
//! sent beyond one connection: the outbox and the coordinator's Welcome are the only truth, which is what
//! makes an event arrive once, in order, through restarts of either side. Where the Welcome knows less than
//! was acknowledged, the coordinator has forgotten: a new outbox goes on with what was not.
//!
//! Refusals that retrying cannot cure soon (another agent is connected, the clock is off, the plant is
//! unknown) are logged and shown in the health report, and retried slowly.

use crate::chance::Backoff;
use crate::clock::Clock;
use crate::dispatch::Dispatch;
use crate::ground::Ground;
use crate::health::{Health, Line};
use crate::outbox::{self, Outbox, OutboxError};
use crate::remote;
use crate::remote::program::Sha256;
use crate::remote::quarantine::{Part, Supply};
use futures::future::BoxFuture;
use millpool_proto::v1 as wire;
use millpool_proto::v1::agent_message::Body as Up;
use millpool_proto::v1::agent_service_client::AgentServiceClient;
use millpool_proto::v1::coordinator_message::Body as Down;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt;

/// Events in one message, at most; the contract's number.
pub const BATCH_EVENTS_MAX: usize = 256;
/// Events sent and not yet acknowledged, at most.
pub const WINDOW_EVENTS: u64 = 1024;
/// Messages that wait for the network.
const SENDING_MAX: usize = 8;
/// NOT_LEADER refusals followed at once, before the agent falls back.
const REDIRECTS_MAX: u32 = 4;
/// A sign of life is sent this often while a machine is operated remotely.
const BRISK: Duration = Duration::from_secs(1);
/// Signs of life that are remembered, to tell how old what comes is.
const BEATS_MAX: usize = 64;
/// Longest delay that a coordinator may ask for.
const RETRY_ASKED_MAX: Duration = Duration::from_secs(60);

/// Reasons that a retry does not cure soon.
const SLOW_REASONS: &[&str] =
    &["AGENT_ALREADY_CONNECTED", "CLOCK_SKEW", "PLANT_UNKNOWN", "MACHINE_UNKNOWN", "OUTBOX_BEHIND"];

/// Deadlines and delays. The defaults are the contract's; tests hurry.
#[derive(Clone, Debug)]
pub struct Timing {
    /// A sign of life is sent this often.
    pub heartbeat: Duration,
    /// Without a sign of life for so long the line counts as cut.
    pub silence: Duration,
    /// A connection and a Welcome must each come within this.
    pub connect: Duration,
    /// First delay after a failure.
    pub retry_first: Duration,
    /// Longest delay after a failure.
    pub retry_max: Duration,
    /// Delay after a refusal that a retry does not cure soon.
    pub retry_slow: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            silence: Duration::from_secs(15),
            connect: Duration::from_secs(5),
            retry_first: Duration::from_millis(200),
            retry_max: Duration::from_secs(5),
            retry_slow: Duration::from_secs(20),
        }
    }
}

/// Where the bearer token comes from.
#[derive(Clone, Default)]
pub enum Token {
    /// There is none.
    #[default]
    None,
    /// Given as it is.
    Given(String),
    /// In a file, read again for every connection, so that it can be renewed.
    File(PathBuf),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Given(_) => f.write_str("Given(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Certificates, PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The authority that signed the coordinators' certificates.
    pub ca_pem: Vec<u8>,
    /// The agent's own certificate and key.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
    /// Name in the coordinators' certificates, where it is not the host that is dialled.
    pub domain: Option<String>,
}

/// What a session is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The plant.
    pub plant_id: String,
    /// The agent's name.
    pub agent_id: String,
    /// `host:port` of each coordinator.
    pub coordinators: Vec<String>,
    /// The bearer token.
    pub token: Token,
    /// Certificates; plain text without.
    pub tls: Option<Tls>,
    /// Deadlines and delays.
    pub timing: Timing,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Lost(String),
    #[error("the leader is {0}")]
    Elsewhere(String),
    #[error("{reason}: {why}")]
    Refused { reason: String, why: String },
    #[error("asked to wait {0:?}: {1}")]
    AskedToWait(Duration, String),
    #[error("the coordinator has forgotten what it had acknowledged of this outbox")]
    Forgotten,
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// The session of one plant's agent.
pub struct Session {
    /// What it is made with.
    pub options: Options,
    /// The plant's clock.
    pub clock: Clock,
    /// The way to the coordinators, and chance.
    pub ground: Ground,
    /// Events to send.
    pub outbox: Outbox,
    /// Where lists are kept.
    pub dispatch: Dispatch,
    /// Where its state is shown.
    pub health: Health,
    /// What remote operation has to know of the line.
    pub line: watch::Sender<remote::Line>,
    /// Whence the content of programs comes, while there is a line.
    pub supply: watch::Sender<Option<Arc<dyn Supply>>>,
    /// Where remote commands go.
    pub remote: mpsc::Sender<remote::run::Told>,
}

impl Session {
    /// Runs until `stop`, or until the outbox has stopped.
    pub fn run(self, stop: CancellationToken) -> BoxFuture<'static, Result<(), OutboxError>> {
        Box::pin(async move {
            let timing = self.options.timing.clone();
            let mut backoff = Backoff::new(timing.retry_first, timing.retry_max, self.ground.chance());
            let mut next = 0;
            let mut leader: Option<String> = None;
            let mut redirects = 0;
            loop {
                let turn = &self.options.coordinators[next % self.options.coordinators.len().max(1)];
                let target = leader.take().unwrap_or_else(|| turn.clone());
                let ended = tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    ended = self.attach(&target, &mut backoff) => ended,
                };
                metrics::gauge!("millpool_agent_connected", "plant" => self.options.plant_id.clone()).set(0);
                metrics::counter!("millpool_agent_disconnects_total", "plant" => self.options.plant_id.clone())
                .increment(1);
                let delay = match ended {
                    Ended::Outbox(error) => return Err(error),
                    Ended::Elsewhere(address) if redirects < REDIRECTS_MAX => {
                        redirects += 1;
                        tracing::info!(
                            plant = self.options.plant_id,
                            from = target,
                            to = address,
                            "following to the leader"
                        );
                        leader = Some(address);
                        continue;
                    }
                    ended => self.fall_back(&target, ended, &mut backoff).await?,
                };
                redirects = 0;
                next += 1;
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(delay) => {}
                }
            }
        })
    }

    /// Says why a connection ended, and how long to wait.
    async fn fall_back(
        &self,
        tried: &str,
        ended: Ended,
        backoff: &mut Backoff,
    ) -> Result<Duration, OutboxError> {
        let plant = self.options.plant_id.as_str();
        if let Ended::Refused { reason, why } = ended {
            tracing::error!(
                plant,
                coordinator = tried,
                reason,
                why,
                "refused by the coordinator; retrying slowly, somebody should look"
            );
            self.health.set_line(Line::Refused { by: tried.to_owned(), reason, why });
            return Ok(backoff.jittered(self.options.timing.retry_slow));
        }
        tracing::warn!(plant, coordinator = tried, why = %ended, "no line to the coordinator");
        self.health.set_line(Line::Waiting { tried: tried.to_owned(), why: ended.to_string() });
        match ended {
            Ended::AskedToWait(delay, _) => Ok(backoff.jittered(delay.min(RETRY_ASKED_MAX) * 2)),
            Ended::Forgotten => {
                tracing::error!(
                    plant,
                    "beginning a new outbox with what still holds and what the coordinator has not acknowledged; \
                    what else it had acknowledged and forgotten is not sent again"
                );
                self.outbox.refound().await?;
                Ok(backoff.delay())
            }
            _ => Ok(backoff.delay()),
        }
    }

    /// One connection, from dialling to its end.
    async fn attach(&self, target: &str, backoff: &mut Backoff) -> Ended {
        self.health.set_line(Line::Connecting { to: target.to_owned() });
        match self.greet(target).await {
            Ok((link, welcome)) => {
                backoff.reset();
                let since_ms = self.clock.now_ms();
                tracing::info!(
                    plant = self.options.plant_id,
                    coordinator = target,
                    cluster = welcome.cluster_id,
                    applied = welcome.applied_seq,
                    "attached"
                );
                metrics::gauge!("millpool_agent_connected", "plant" => self.options.plant_id.clone()).set(1);
                let cluster_id = welcome.cluster_id;
                self.health.set_line(Line::Connected { to: target.to_owned(), cluster_id, since_ms });
                let ended = match link.converse().await {
                    Err(ended) => ended,
                    Ok(never) => match never {},
                };
                self.supply.send_replace(None);
                ended
            }
            Err(ended) => ended,
        }
    }

    /// Dials, says Hello, and waits for the Welcome.
    async fn greet(&self, target: &str) -> Result<(Link<'_>, wire::Welcome), Ended> {
        let patience = self.options.timing.connect;
        let channel = tokio::time::timeout(patience, self.ground.connect(self.dial(target)?)).await;
        let channel = channel
            .map_err(|_| Ended::Lost(format!("no connection within {patience:?}")))?
            .map_err(|error| Ended::Lost(chain(&error)))?;
        let (sending, outgoing) = mpsc::channel(SENDING_MAX);
        let status = self.outbox.status();
        let hello = self.hello(&status.borrow());
        let greeted = (hello.clock_ms, Instant::now());
        // The channel is new and has room.
        let _ = sending.try_send(message(Up::Hello(hello)));
        let mut request = Request::new(ReceiverStream::new(outgoing));
        let bearer = self.bearer()?;
        carry(&mut request, bearer.as_ref());
        let mut client = AgentServiceClient::new(channel);
        let programs = Programs { client: client.clone(), bearer };
        let answered = tokio::time::timeout(patience, async {
            let mut incoming = client.attach(request).await.map_err(Box::new)?.into_inner();
            let first = incoming.message().await.map_err(Box::new)?;
            Ok::<_, Box<Status>>((incoming, first))
        });
        let (incoming, first) = answered
            .await
            .map_err(|_| Ended::Lost(format!("no welcome within {patience:?}")))?
            .map_err(|status| classify(&status))?;
        let Some(wire::CoordinatorMessage { body: Some(Down::Welcome(welcome)) }) = first else {
            return Err(Ended::Lost("the coordinator's first message is not a Welcome".to_owned()));
        };
        self.compare(&welcome, &status.borrow())?;
        self.outbox.trim(welcome.applied_seq).await?;
        self.supply.send_replace(Some(Arc::new(programs)));
        let link = Link {
            session: self,
            sending,
            incoming,
            status,
            sent_seq: welcome.applied_seq,
            acked_seq: welcome.applied_seq,
            listed_revision: None,
            heard: Instant::now(),
            beats: VecDeque::from([greeted]),
            brisk: false,
        };
        Ok((link, welcome))
    }

    /// Whether both sides speak of the same outbox.
    fn compare(&self, welcome: &wire::Welcome, status: &outbox::Status) -> Result<(), Ended> {
        if welcome.applied_seq > status.last_seq {
            let why = format!(
                "the coordinator has applied event {}, this outbox has given only {}: the outbox on disk is an \
                 older copy or has lost its end; move its folder away to begin a new one",
                welcome.applied_seq, status.last_seq
            );
            return Err(Ended::Refused { reason: "OUTBOX_BEHIND".to_owned(), why });
        }
        // What was acknowledged is never sent again, also where it is still on disk: another's memory of it
        // may be gone, and what it did is not.
        if welcome.applied_seq < status.acked_seq {
            return Err(Ended::Forgotten);
        }
        Ok(())
    }

    fn hello(&self, status: &outbox::Status) -> wire::Hello {
        let machines = self.health.report().machines.into_keys();
        wire::Hello {
            plant_id: self.options.plant_id.clone(),
            agent_id: self.options.agent_id.clone(),
            outbox_id: status.outbox_id.clone(),
            last_seq: status.last_seq,
            clock_ms: self.clock.now_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machines: machines.map(|machine_id| wire::AgentMachine { machine_id }).collect(),
        }
    }

    fn dial(&self, target: &str) -> Result<Endpoint, Ended> {
        let bare = target.trim_start_matches("http://").trim_start_matches("https://");
        let scheme = if self.options.tls.is_some() { "https" } else { "http" };
        let unusable = |why: String| Ended::Lost(format!("the address {target:?} cannot be used: {why}"));
        let endpoint = Endpoint::from_shared(format!("{scheme}://{bare}"));
        let mut endpoint = endpoint
            .map_err(|error| unusable(chain(&error)))?
            .connect_timeout(self.options.timing.connect)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.options.timing.heartbeat)
            .keep_alive_timeout(self.options.timing.silence)
            .keep_alive_while_idle(true);
        if let Some(tls) = &self.options.tls {
            endpoint = endpoint.tls_config(client_tls(tls)).map_err(|error| unusable(chain(&error)))?;
        }
        Ok(endpoint)
    }

    /// What a request carries to say who asks.
    fn bearer(&self) -> Result<Option<MetadataValue<Ascii>>, Ended> {
        let token = match &self.options.token {
            Token::None => return Ok(None),
            Token::Given(token) => token.clone(),
            Token::File(path) => std::fs::read_to_string(path).map_err(|error| Ended::Refused {
                reason: "TOKEN_UNREADABLE".to_owned(),
                why: format!("{}: {error}", path.display()),
            })?,
        };
        let value = format!("Bearer {}", token.trim()).parse().map_err(|_| Ended::Refused {
            reason: "TOKEN_MALFORMED".to_owned(),
            why: "the token holds characters that a header cannot carry".to_owned(),
        })?;
        Ok(Some(value))
    }
}

fn carry<T>(request: &mut Request<T>, bearer: Option<&MetadataValue<Ascii>>) {
    if let Some(bearer) = bearer {
        request.metadata_mut().insert("authorization", bearer.clone());
    }
}

/// The content of programs, from the coordinator that the agent is attached to.
struct Programs {
    client: AgentServiceClient<Channel>,
    bearer: Option<MetadataValue<Ascii>>,
}

impl Supply for Programs {
    fn part(&self, epoch: u64, sha256: Sha256, offset: u64) -> Part<'_> {
        let asked = wire::FetchProgramRequest {
            session_id: format!("s{epoch:06}"),
            program_sha256: sha256.to_string(),
            offset,
        };
        let mut request = Request::new(asked);
        carry(&mut request, self.bearer.as_ref());
        let mut client = self.client.clone();
        Box::pin(async move {
            let answer = client.fetch_program(request).await;
            answer.map(|answer| answer.into_inner().part).map_err(|status| status.message().to_owned())
        })
    }
}

/// One attached connection.
struct Link<'a> {
    session: &'a Session,
    sending: mpsc::Sender<wire::AgentMessage>,
    incoming: Streaming<wire::CoordinatorMessage>,
    status: watch::Receiver<outbox::Status>,
    sent_seq: u64,
    acked_seq: u64,
    listed_revision: Option<u64>,
    heard: Instant,
    /// The last signs of life that were sent: the clock in them, and when.
    beats: VecDeque<(i64, Instant)>,
    /// Signs of life are sent more often, because a machine is operated remotely.
    brisk: bool,
}

impl Link<'_> {
    /// Sends and listens until the line is cut.
    async fn converse(mut self) -> Result<std::convert::Infallible, Ended> {
        let timing = self.session.options.timing.clone();
        let mut beat = ticks(timing.heartbeat);
        let mut brisk = false;
        loop {
            if std::mem::replace(&mut brisk, self.brisk) != self.brisk {
                beat = ticks(if brisk { timing.heartbeat.min(BRISK) } else { timing.heartbeat });
            }
            let last_seq = self.status.borrow_and_update().last_seq;
            let may_send = self.sent_seq < last_seq && self.sent_seq - self.acked_seq < WINDOW_EVENTS;
            let sending = self.sending.clone();
            tokio::select! {
                heard = tokio::time::timeout_at(self.heard + timing.silence, self.incoming.message()) => {
                    let heard = heard.map_err(|_| Ended::Lost(format!("no sign of life for {:?}", timing.silence)))?;
                    self.heard = Instant::now();
                    match heard.map_err(|status| classify(&status))? {
                        Some(message) => self.hear(message).await?,
                        None => return Err(Ended::Lost("the coordinator closed the stream".to_owned())),
                    }
                }
                permit = sending.reserve(), if may_send => {
                    let permit = permit.map_err(|_| Ended::Lost("the stream is closed".to_owned()))?;
                    let events = self.next_batch().await?;
                    permit.send(message(Up::Events(wire::AgentEvents { events })));
                }
                _ = beat.tick() => {
                    // No room means that messages wait for the network already; the silence decides.
                    let clock_ms = self.session.clock.now_ms();
                    let beat = wire::Heartbeat { clock_ms, echo_ms: 0 };
                    if self.sending.try_send(message(Up::Heartbeat(beat))).is_ok() {
                        if self.beats.len() == BEATS_MAX {
                            self.beats.pop_front();
                        }
                        self.beats.push_back((clock_ms, Instant::now()));
                    }
                }
                changed = self.status.changed(), if !may_send => {
                    if changed.is_err() {
                        let why = self.status.borrow().failed.clone();
                        let why = why.unwrap_or_else(|| "it was shut down".to_owned());
                        return Err(Ended::Outbox(OutboxError::Stopped(why)));
                    }
                }
            }
        }
    }

    async fn next_batch(&mut self) -> Result<Vec<wire::AgentEvent>, Ended> {
        let room = WINDOW_EVENTS - (self.sent_seq - self.acked_seq);
        let max = BATCH_EVENTS_MAX.min(usize::try_from(room).unwrap_or(BATCH_EVENTS_MAX));
        let events = self.session.outbox.read(self.sent_seq + 1, max).await?;
        let consecutive = events.iter().zip(self.sent_seq + 1..).all(|(event, seq)| event.seq == seq);
        let Some(last) = events.last().filter(|_| consecutive) else {
            return Err(Ended::Lost(format!("the outbox has no event {}", self.sent_seq + 1)));
        };
        self.sent_seq = last.seq;
        let plant = self.session.options.plant_id.clone();
        metrics::counter!("millpool_agent_events_sent_total", "plant" => plant.clone())
            .increment(events.len() as u64);
        let latency = metrics::histogram!("millpool_agent_append_to_send_seconds", "plant" => plant);
        for age in self.session.outbox.take_ages(last.seq) {
            latency.record(age.as_secs_f64());
        }
        Ok(events)
    }

    async fn hear(&mut self, message: wire::CoordinatorMessage) -> Result<(), Ended> {
        match message.body {
            Some(Down::EventsApplied(applied)) => self.applied(applied).await,
            Some(Down::DispatchList(list)) => self.keep(list).await,
            Some(Down::Heartbeat(beat)) => {
                let ahead_ms = self.session.clock.now_ms().saturating_sub(beat.clock_ms);
                let plant = self.session.options.plant_id.clone();
                metrics::gauge!("millpool_agent_clock_ahead_ms", "plant" => plant).set(ahead_ms as f64);
                self.came_back(beat.echo_ms);
                Ok(())
            }
            Some(Down::RemoteSessions(told)) => {
                self.brisk = !told.sessions.is_empty();
                self.session.health.set_sessions(&told.sessions);
                self.session.line.send_modify(|line| line.sessions = told.sessions);
                Ok(())
            }
            Some(Down::RemoteAsked(asked)) => {
                self.ask(asked);
                Ok(())
            }
            Some(Down::Welcome(_)) => Err(Ended::Lost("the coordinator said Welcome twice".to_owned())),
            // A later version's message that this one does not know.
            None => Ok(()),
        }
    }

    /// When the sign of life was sent that the coordinator had heard last. Clocks are not asked for that: where one was
    /// set back, so that two said the same, the earlier counts.
    fn sent(&self, echo_ms: i64) -> Option<Instant> {
        self.beats.iter().find(|(clock_ms, _)| *clock_ms == echo_ms).map(|(_, sent)| *sent)
    }

    fn came_back(&self, echo_ms: i64) {
        if let Some(sent) = self.sent(echo_ms) {
            self.session.line.send_modify(|line| line.alive = line.alive.max(Some(sent)));
        }
    }

    /// Passes a remote command on. Where there is no room it is not passed on, and its time runs out.
    fn ask(&self, asked: wire::RemoteAsked) {
        self.came_back(asked.echo_ms);
        let plant = self.session.options.plant_id.as_str();
        match remote::Asked::read(asked, |echo_ms| self.sent(echo_ms)) {
            Some(asked) => {
                if self.session.remote.try_send(remote::run::Told::Asked(Box::new(asked))).is_err() {
                    tracing::error!(plant, "a remote command found no room, and is not looked at");
                }
            }
            None => tracing::error!(plant, "a remote command cannot be understood, and is not looked at"),
        }
    }

    async fn applied(&mut self, applied: wire::EventsApplied) -> Result<(), Ended> {
        if applied.seq > self.sent_seq {
            let why =
                format!("the coordinator acknowledged {}, only {} was sent", applied.seq, self.sent_seq);
            return Err(Ended::Lost(why));
        }
        let plant = self.session.options.plant_id.as_str();
        for refused in applied.refused {
            tracing::warn!(
                plant,
                seq = refused.seq,
                why = refused.reason,
                "the coordinator refused an event"
            );
            metrics::counter!("millpool_agent_events_refused_total", "plant" => plant.to_owned())
                .increment(1);
            self.session.health.add_refused(format!("{}: {}", refused.seq, refused.reason));
        }
        if applied.seq > self.acked_seq {
            self.acked_seq = applied.seq;
            self.session.outbox.trim(applied.seq).await?;
        }
        Ok(())
    }

    /// Keeps a list and says so. Within one connection revisions only grow; the first list of a connection
    /// is the leader's word whatever its number.
    async fn keep(&mut self, list: wire::DispatchList) -> Result<(), Ended> {
        let revision = list.revision;
        let plant = self.session.options.plant_id.as_str();
        if self.listed_revision.is_some_and(|listed| revision < listed) {
            tracing::warn!(plant, revision, "an older dispatch list came after a newer one; ignored");
            return Ok(());
        }
        if revision < self.session.dispatch.revision() {
            tracing::warn!(
                plant,
                revision,
                kept = self.session.dispatch.revision(),
                "the coordinator's dispatch list is older than the one on disk; the coordinator's stands"
            );
        }
        match self.session.dispatch.keep(list, self.session.clock.now_ms()).await {
            Ok(()) => {
                self.listed_revision = Some(revision);
                self.session.health.set_dispatch(revision, None);
                let kept = message(Up::DispatchKept(wire::DispatchKept { revision }));
                let deadline = self.session.options.timing.silence;
                let sent = tokio::time::timeout(deadline, self.sending.send(kept)).await;
                sent.map_err(|_| Ended::Lost("the coordinator does not read".to_owned()))?
                    .map_err(|_| Ended::Lost("the stream is closed".to_owned()))
            }
            Err(error) => {
                tracing::error!(plant, revision, %error, "the dispatch list cannot be kept; working on from the old one");
                self.session.health.set_dispatch(self.session.dispatch.revision(), Some(error.to_string()));
                Ok(())
            }
        }
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn message(body: Up) -> wire::AgentMessage {
    wire::AgentMessage { body: Some(body) }
}

fn client_tls(tls: &Tls) -> ClientTlsConfig {
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
    if let Some((certificate, key)) = &tls.identity_pem {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    if let Some(domain) = &tls.domain {
        config = config.domain_name(domain);
    }
    config
}

/// What a refusal means for the next attempt.
fn classify(status: &Status) -> Ended {
    let info = status.get_details_error_info();
    let reason = info.as_ref().map(|info| info.reason.clone()).unwrap_or_default();
    if reason == "NOT_LEADER" {
        let in_info = info.and_then(|mut info| info.metadata.remove("leader"));
        let in_headers =
            || status.metadata().get("leader").and_then(|value| value.to_str().ok()).map(str::to_owned);
        if let Some(leader) = in_info.or_else(in_headers).filter(|leader| !leader.is_empty()) {
            return Ended::Elsewhere(leader);
        }
    }
    let why = status.message().to_owned();
    let cureless = matches!(
        status.code(),
        Code::NotFound
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::Unimplemented
    );
    if cureless || SLOW_REASONS.contains(&reason.as_str()) {
        let reason = if reason.is_empty() { format!("{:?}", status.code()) } else { reason };
        return Ended::Refused { reason, why };
    }
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    match retry {
        Some(delay) => Ended::AskedToWait(delay, why),
        None => Ended::Lost(format!("{:?} {reason} {why}", status.code())),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        source = cause.source();
    }
    words
}
