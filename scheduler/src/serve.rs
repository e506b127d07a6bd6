//! Starting and stopping a coordinator: listeners, the consensus room, the planner, the services.

use crate::api::{self, Access, Core, Forwarded};
use crate::clock::Clock;
use crate::config::{BadSetting, Config, FirstMember, Tls};
use crate::consensus::{
    self, Addresses, Dial, MembershipError, StartError, StopReason, Storage, Transport, limits,
};
use crate::meters;
use crate::planner::{self, Schedule};
use crate::replica::Replica;
use crate::watch::REVISIONS_KEPT;
use crate::{today, upgrade};
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::get;
use futures::Stream;
use futures::future::BoxFuture;
use millpool_alliance::answer::ANSWERS_MAX;
use millpool_alliance::command::Command;
use millpool_alliance::registry::{Principal, Role};
use millpool_alliance::retention::{BOOKINGS_OPEN_MAX, BOOKINGS_OVER_MAX};
use millpool_alliance::{Format, PrincipalId, State};
use millpool_meters::PrometheusHandle;
use millpool_proto::v1::{
    admin_service_server::AdminServiceServer, agent_service_server::AgentServiceServer,
    booking_service_server::BookingServiceServer, capacity_service_server::CapacityServiceServer,
    plan_service_server::PlanServiceServer, remote_service_server::RemoteServiceServer,
};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, Server, ServerTlsConfig};

/// Streams of one client connection at once.
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;
/// Requests of one client connection at once.
const REQUESTS_PER_CONNECTION_MAX: usize = 256;
/// How long open requests may take at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// Why a coordinator could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// A listener's address cannot be had.
    #[error("cannot listen on {address} ({what}): {source}")]
    Listen {
        /// Which listener.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The data folder cannot be used.
    #[error("data folder {folder}: {source}")]
    Data {
        /// Which.
        folder: String,
        /// Why not.
        source: StartError,
    },
    /// A certificate or token file cannot be used.
    #[error("{setting} {file}: {source}")]
    File {
        /// Which setting names it.
        setting: &'static str,
        /// The file.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// A setting is wrong that could not be checked without a look at the disk.
    #[error("{0}")]
    Setting(#[from] BadSetting),
    /// TLS cannot be set up with these certificates.
    #[error("the certificates do not serve: {0}")]
    Tls(String),
    /// The node stopped by itself.
    #[error("{0}")]
    Stopped(StopReason),
}

/// What a coordinator stands on: a folder, sockets and the wall clock, or a simulation's.
pub struct Ground {
    /// How it takes part in its cluster.
    pub options: consensus::Options,
    /// Its disks, and where slow work runs.
    pub storage: Storage,
    /// The way to its peers.
    pub transport: Transport,
    /// The alliance's clock.
    pub clock: Clock,
    /// How the plan is improved in the background.
    pub schedule: Schedule,
    /// How long a plant's agent is away before the plant counts as silent.
    pub silent_after: Duration,
    /// The newest format of log and snapshots that it reads, and so lets its cluster write.
    pub reads: Format,
}

/// Puts a coordinator's parts together. It takes part in its cluster once its peers reach
/// [`peer_service`](consensus::Handle::peer_service).
pub fn assemble(ground: Ground, access: Access) -> BoxFuture<'static, Result<Core, StartError>> {
    Box::pin(async move {
        let Ground { mut options, storage, transport, clock, schedule, silent_after, reads } = ground;
        options.format_max = reads.number();
        let offload = storage.offload;
        let forwarded = Forwarded::default();
        let (state, forward) = (Replica(State::default(), reads), Arc::new(forwarded.clone()));
        let node = consensus::start(options, state, storage, transport, forward).await?;
        let planner = planner::start(node.clone(), clock, schedule, offload);
        tokio::spawn(upgrade::run(node.clone(), planner.clone()));
        let core = Core::new(node, planner, clock, access, silent_after);
        forwarded.begin(core.clone());
        Ok(core)
    })
}

/// Runs a coordinator until `shutdown` resolves, or until it has to stop by itself.
pub fn run(config: Config, shutdown: BoxFuture<'static, ()>) -> BoxFuture<'static, Result<(), Failed>> {
    Box::pin(async move {
        let shown = meters::install(&config)?;
        let recorder = shown.as_ref().map(|shown| shown.prometheus.clone());
        let public = listen("public", config.public_listen).await?;
        let peers = if config.single { None } else { Some(listen("peers", config.peer_listen).await?) };
        let metrics = listen("metrics", config.metrics_listen).await?;
        let clock = match config.clock_scale {
            1 => Clock::wall(),
            scale => Clock::scaled(config.clock_epoch_ms, scale),
        };
        if config.insecure_dev {
            tracing::warn!("INSECURE DEVELOPMENT MODE: no certificates, callers are who they say they are");
        }
        let data = |source| Failed::Data { folder: config.data_dir.display().to_string(), source };
        let storage = Storage::open(&config.data_dir).map_err(|e| data(StartError::Storage(e)))?;
        let ground = Ground {
            options: options(&config).map_err(data)?,
            storage,
            transport: config.tls.as_ref().map_or_else(|| Ok(Transport::plain()), peer_transport)?,
            clock,
            schedule: Schedule {
                every: Duration::from_millis(config.optimise_every_ms),
                time_limit: Duration::from_millis(config.optimise_for_ms),
                threads: config.solver_threads,
                tries: None,
            },
            silent_after: Duration::from_secs(config.silent_after_s),
            reads: config.format_max,
        };
        let core = assemble(ground, Access { insecure_dev: config.insecure_dev }).await.map_err(data)?;
        let node = core.consensus.clone();

        let (stopping, stop) = watch::channel(false);
        let tls = config.tls.as_ref().map(|tls| server_tls(tls, false)).transpose()?;
        let mut tasks = vec![tokio::spawn(serve_public(core.clone(), incoming(public), tls, stop.clone()))];
        if let Some(listener) = peers {
            let tls = config.tls.as_ref().map(|tls| server_tls(tls, true)).transpose()?;
            tasks.push(tokio::spawn(serve_peers(node.clone(), incoming(listener), tls, stop.clone())));
        }
        tasks.push(tokio::spawn(serve_metrics(core.clone(), recorder, metrics, stop.clone())));
        let looked_at = core.clone();
        let showing = shown.map(|shown| shown.begin(Box::new(move || gauges(&looked_at))));
        tokio::spawn(form_cluster(node.clone(), config.initial_cluster.clone()));
        tokio::spawn(first_operator(core, config.clone()));
        tracing::info!(
            node = config.node_id,
            cluster = config.cluster_id,
            public = %config.public_listen,
            metrics = %config.metrics_listen,
            "coordinator started"
        );
        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            reason = node.stop_reason() => Err(Failed::Stopped(reason)),
        };
        tracing::info!("stopping");
        // Leadership goes first, so that clients find the next leader before their requests end here.
        node.shutdown().await;
        stopping.send_replace(true);
        let drained = futures::future::join_all(tasks);
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::info!("open streams are cut");
        }
        if let Some(showing) = showing {
            showing.end().await;
        }
        outcome
    })
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, Failed> {
    TcpListener::bind(address).await.map_err(|source| Failed::Listen { what, address, source })
}

fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// How a node takes part in its cluster.
pub fn options(config: &Config) -> Result<consensus::Options, StartError> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|e| StartError::Core(format!("no randomness: {e}")))?;
    let fresh_store_id = u64::from_le_bytes(random) | 1;
    let mut options = consensus::Options::new(&config.cluster_id, config.node_id, fresh_store_id);
    options.snapshot_every_entries = config.snapshot_every;
    Ok(options)
}

fn read(setting: &'static str, file: &Path) -> Result<Vec<u8>, Failed> {
    std::fs::read(file).map_err(|source| Failed::File { setting, file: file.display().to_string(), source })
}

fn identity(tls: &Tls) -> Result<Identity, Failed> {
    Ok(Identity::from_pem(read("tls_cert", &tls.cert)?, read("tls_key", &tls.key)?))
}

fn server_tls(tls: &Tls, peers: bool) -> Result<ServerTlsConfig, Failed> {
    let config = ServerTlsConfig::new().identity(identity(tls)?);
    Ok(match (&tls.peer_ca, peers) {
        // Only holders of the peers' authority's certificates may speak as coordinators.
        (Some(ca), true) => config.client_ca_root(Certificate::from_pem(read("peer_ca", ca)?)),
        _ => config,
    })
}

fn peer_transport(tls: &Tls) -> Result<Transport, Failed> {
    let mut config = ClientTlsConfig::new().identity(identity(tls)?);
    if let Some(ca) = &tls.peer_ca {
        config = config.ca_certificate(Certificate::from_pem(read("peer_ca", ca)?));
    }
    let dial: Dial = Arc::new(move |endpoint| Ok(endpoint.tls_config(config.clone())?.connect_lazy()));
    Ok(Transport::new("https", dial))
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopping| *stopping).await;
}

fn server(tls: Option<ServerTlsConfig>) -> Result<Server, tonic::transport::Error> {
    let server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)));
    match tls {
        Some(tls) => server.tls_config(tls),
        None => Ok(server),
    }
}

fn report(what: &str, served: Result<(), tonic::transport::Error>) {
    if let Err(e) = served {
        tracing::error!(what, error = %e, "the listener failed");
    }
}

/// The services of the public API.
pub fn services(core: &Core) -> Routes {
    macro_rules! sized {
        ($service:ident) => {
            $service::new(core.clone()).max_decoding_message_size(api::MESSAGE_BYTES_READ_MAX)
        };
    }
    Routes::new(sized!(BookingServiceServer))
        .add_service(sized!(CapacityServiceServer))
        .add_service(sized!(PlanServiceServer))
        .add_service(sized!(AgentServiceServer))
        .add_service(sized!(RemoteServiceServer))
        .add_service(sized!(AdminServiceServer))
}

/// Serves the public API on what comes in, until told to stop.
pub async fn serve_public<I, IO, E>(
    core: Core,
    incoming: I,
    tls: Option<ServerTlsConfig>,
    stop: watch::Receiver<bool>,
) where
    I: Stream<Item = Result<IO, E>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (health, health_service) = tonic_health::server::health_reporter();
    tokio::spawn(report_health(core.clone(), health));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(millpool_proto::DESCRIPTORS)
        .build_v1()
        .map_err(|e| tracing::error!(error = %e, "reflection is off"))
        .ok();
    let served = async {
        server(tls)?
            .concurrency_limit_per_connection(REQUESTS_PER_CONNECTION_MAX)
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .add_routes(services(&core))
            .add_service(health_service)
            .add_optional_service(reflection)
            .serve_with_incoming_shutdown(incoming, stopped(stop))
            .await
    };
    report("public", served.await);
}

/// The node is healthy while it knows a leader; a client that asks then goes elsewhere.
async fn report_health(core: Core, health: tonic_health::server::HealthReporter) {
    let mut shown = None;
    loop {
        let serving = core.consensus.leadership().leader.is_some();
        if shown != Some(serving) {
            let status = match serving {
                true => tonic_health::ServingStatus::Serving,
                false => tonic_health::ServingStatus::NotServing,
            };
            health.set_service_status("", status).await;
            health.set_service_status("millpool.v1.BookingService", status).await;
            shown = Some(serving);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Serves the other coordinators on what comes in, until told to stop.
pub async fn serve_peers<I, IO, E>(
    node: consensus::Handle<Replica>,
    incoming: I,
    tls: Option<ServerTlsConfig>,
    stop: watch::Receiver<bool>,
) where
    I: Stream<Item = Result<IO, E>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let served = async {
        server(tls)?
            .add_service(node.peer_service())
            .serve_with_incoming_shutdown(incoming, stopped(stop))
            .await
    };
    report("peers", served.await);
}

async fn serve_metrics(
    core: Core,
    recorder: Option<PrometheusHandle>,
    listener: TcpListener,
    stop: watch::Receiver<bool>,
) {
    let metrics = move |Shared(core): Shared<Core>| async move {
        gauges(&core);
        recorder.map(|r| r.render()).unwrap_or_default()
    };
    let app =
        axum::Router::new().route("/metrics", get(metrics)).route("/health", get(health)).with_state(core);
    let served = axum::serve(listener, app).with_graceful_shutdown(stopped(stop)).await;
    if let Err(e) = served {
        tracing::error!(error = %e, "the metrics listener failed");
    }
}

async fn health(Shared(core): Shared<Core>) -> (StatusCode, String) {
    let leadership = core.consensus.leadership();
    let leader = leadership.leader.map(|l| l.node_id);
    let code = if leader.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = format!(
        "{{\"node\":{},\"leader\":{},\"term\":{},\"revision\":{}}}\n",
        core.consensus.node_id(),
        leader.map_or("null".into(), |id| id.to_string()),
        leadership.term,
        core.consensus.revision()
    );
    (code, text)
}

/// What is bounded, by the name of its meter, and how much of it there can be.
const LIMITS: [(&str, u64); 9] = [
    ("millpool_planner_queue", planner::QUEUE_MAX as u64),
    ("millpool_proposals_in_flight", limits::PROPOSALS_IN_FLIGHT_MAX as u64),
    ("millpool_proposals_in_flight_bytes", limits::PROPOSAL_BYTES_IN_FLIGHT_MAX as u64),
    ("millpool_log_cache_bytes", limits::LOG_CACHE_BYTES_MAX as u64),
    ("millpool_bookings_open", BOOKINGS_OPEN_MAX as u64),
    ("millpool_bookings_over", BOOKINGS_OVER_MAX as u64),
    ("millpool_request_ids", ANSWERS_MAX as u64),
    ("millpool_watch_revisions", REVISIONS_KEPT as u64),
    ("millpool_snapshot_bytes", limits::SNAPSHOT_BYTES_MAX),
];

/// What is cheaper to count when somebody looks than at every change.
fn gauges(core: &Core) {
    let view = core.consensus.state();
    let state = &view.state.0;
    let status = core.consensus.status();
    let (proposals, proposal_bytes) = core.consensus.in_flight();
    for (name, value) in [
        ("millpool_format", state.format().number() as usize),
        ("millpool_machines", state.stations().len()),
        ("millpool_bookings", state.bookings().len()),
        ("millpool_bookings_open", state.open_bookings().count()),
        ("millpool_bookings_over", state.over_len()),
        ("millpool_bookings_at_risk", state.open_bookings().filter(|b| b.at_risk()).count()),
        ("millpool_plants_silent", state.silences().len()),
        ("millpool_request_ids", state.answers_len()),
        ("millpool_proposals_in_flight", proposals),
        ("millpool_proposals_in_flight_bytes", proposal_bytes),
        ("millpool_watch_revisions", core.history.kept()),
        ("millpool_log_entries", status.last_log_index.saturating_sub(status.purged_index) as usize),
    ] {
        metrics::gauge!(name).set(value as f64);
    }
    for (of, limit) in LIMITS {
        metrics::gauge!("millpool_limit", "of" => of).set(limit as f64);
    }
    today::meter(&state.as_of(core.clock.now_s()));
}

/// On an empty data folder: the first of the configured members forms the cluster, once all are up.
pub fn form_cluster(
    node: consensus::Handle<Replica>,
    initial_cluster: Vec<FirstMember>,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let first = initial_cluster.iter().map(|m| m.node_id).min();
        if first != Some(node.node_id()) {
            return;
        }
        let address =
            |m: &FirstMember| Addresses { peers: m.peer_address.clone(), public: m.public_address.clone() };
        let members: BTreeMap<u64, Addresses> =
            initial_cluster.iter().map(|m| (m.node_id, address(m))).collect();
        loop {
            match node.initialize(members.clone()).await {
                Ok(()) => return tracing::info!(members = members.len(), "cluster formed"),
                Err(MembershipError::AlreadyInitialized | MembershipError::Stopped(_)) => return,
                Err(MembershipError::Unreachable { node, address, .. }) => {
                    tracing::info!(node, address, "waiting for the first members");
                }
                Err(e) => tracing::error!(error = %e, "the cluster cannot be formed"),
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    })
}

/// While the alliance has no principal, the token in the configured file makes its bearer an operator.
async fn first_operator(core: Core, config: Config) {
    let Some(file) = config.operator_token_file else { return };
    let read = match std::fs::read_to_string(&file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && config.single => make_token(&file),
        read => read,
    };
    let token = match read {
        Ok(token) => token.trim().to_owned(),
        Err(e) => return tracing::error!(file = %file.display(), error = %e, "operator_token_file"),
    };
    if token.len() < 32 {
        return tracing::error!("operator_token_file: the token has less than 32 characters and is not used");
    }
    let nobody_is_known = || core.consensus.look(|view| view.state.0.principals().is_empty());
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if !core.consensus.leadership().is_ready {
            if nobody_is_known() {
                continue;
            }
            return;
        }
        if !nobody_is_known() {
            return;
        }
        let principal = Principal {
            id: PrincipalId::trusted("operator"),
            role: Role::Operator,
            token_sha256: api::token_hash(&token),
            expires_at: core.clock.now_s() + 10 * 366 * 86_400,
            revoked: false,
        };
        match core.planner.execute(api::operator(), None, Command::PutPrincipal(principal)).await {
            Ok(_) => return tracing::info!("the first operator's token is in force"),
            Err(e) => tracing::warn!(error = %e, "the first operator's token"),
        }
    }
}

/// A new token of 256 random bits, in a file that only this user reads.
fn make_token(file: &Path) -> io::Result<String> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut created = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(created, "{token}")?;
    created.sync_all()?;
    tracing::info!(file = %file.display(), "made the first operator's token");
    Ok(token)
}
