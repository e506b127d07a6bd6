//! The client of the coordinators' public API: what the `millpool` command, the load generator and
//! the demo speak through.
//!
//! A [`Client`] knows a list of endpoints and prefers one of them. A call goes to the preferred
//! endpoint; when that one cannot serve it, everybody moves on to the next. Retrying is safe because
//! every intent carries one request id through all its attempts ([`retry`]); what comes back is the
//! answer or one [`ClientError`] that says what was tried and why it failed ([`error`]). Watches
//! survive the death of the node that served them ([`watch`]); a backup is checked as it comes ([`backup`]).
//!
//! Not here: what a person types or reads. Nothing in this module prints, or reads a file or the
//! environment.

pub mod backup;
pub mod error;
pub mod retry;
mod rpc;
pub mod watch;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

pub use error::{ClientError, ErrorKind};
pub use rpc::Write;
pub use watch::{Watch, WatchEvent};

/// Most endpoints that a client accepts.
pub const ENDPOINTS_MAX: usize = 64;

/// Largest answer that a client reads, bytes: a plan of a hundred thousand assignments fits.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where a client sends a token.
const TOKEN_ACCEPTED: &str = "with a token: TLS (--ca FILE or MILLPOOL_CA), or an endpoint on this host \
                              (localhost, 127.0.0.1, [::1]); else the token would cross the network in clear";

/// How a client finds the coordinators and how long it tries.
#[derive(Clone)]
pub struct ClientOptions {
    /// Coordinators' public listeners, `host:port`, in order of preference.
    pub endpoints: Vec<String>,
    /// TLS; plain text without it.
    pub tls: Option<TlsOptions>,
    /// Bearer token sent with every call; without TLS to loopback addresses only.
    pub token: Option<String>,
    /// The longest that one attempt waits for its answer.
    pub attempt_timeout: Duration,
    /// The longest that a call waits over all its attempts.
    pub deadline: Duration,
    /// Most attempts at one call; 1 never retries. The deadline counts too.
    pub attempts_max: u32,
    /// Pause before the second attempt, before jitter; it doubles from there.
    pub backoff_min: Duration,
    /// Longest pause between attempts, before jitter.
    pub backoff_max: Duration,
    /// A watch that hears nothing for this long is taken to be cut. Coordinators speak at least every
    /// 15 seconds.
    pub watch_silence_max: Duration,
    /// Seed of request ids and jitter, for runs that must replay; the operating system's randomness
    /// without it.
    pub seed: Option<u64>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            tls: None,
            token: None,
            attempt_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(30),
            attempts_max: u32::MAX,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            watch_silence_max: Duration::from_secs(40),
            seed: None,
        }
    }
}

/// TLS towards the coordinators.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// Certificates that are trusted, PEM.
    pub ca_pem: Vec<u8>,
    /// Name that the coordinators' certificates carry, where it is not the endpoint's host.
    pub server_name: Option<String>,
}

/// A client of a cluster of coordinators. Clones share connections and preference, and cost nothing.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// What all clones of a client share.
struct Shared {
    /// Where to connect and for how long to try.
    options: ClientOptions,
    /// One channel an endpoint; each connects on first use and again after a cut.
    channels: Vec<Channel>,
    /// Index of the endpoint that calls go to.
    preferred: AtomicUsize,
    /// The `authorization` header, made once.
    authorization: Option<MetadataValue<Ascii>>,
    /// Where request ids and jitter come from.
    random: Mutex<StdRng>,
}

impl Client {
    /// Makes a client. Nothing is connected yet: that happens with the first call.
    ///
    /// Fails where an endpoint, the CA or the token cannot be understood, and where the token would leave
    /// this host unencrypted.
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        let channels =
            options.endpoints.iter().map(|at| channel(at, &options)).collect::<Result<Vec<_>, _>>()?;
        Self::with_channels(options, channels)
    }

    /// Makes a client over channels that somebody else has made, one for each of `options.endpoints`:
    /// for simulated networks.
    pub fn with_channels(options: ClientOptions, channels: Vec<Channel>) -> Result<Self, ClientError> {
        let count = options.endpoints.len();
        if count == 0 || count > ENDPOINTS_MAX || channels.len() != count {
            let told = options.endpoints.join(",");
            return Err(ClientError::usage("endpoints", &told, "1 to 64 of host:port"));
        }
        let authorization = options.token.as_deref().map(authorization).transpose()?;
        let random = options.seed.map_or_else(rand::make_rng, StdRng::seed_from_u64);
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                channels,
                preferred: AtomicUsize::new(0),
                authorization,
                random: Mutex::new(random),
            }),
        })
    }

    /// A client of one node alone, with this client's credentials and patience: to ask each node what
    /// it knows.
    pub fn at(&self, address: &str) -> Result<Self, ClientError> {
        Self::new(ClientOptions { endpoints: vec![address.to_owned()], ..self.shared.options.clone() })
    }

    /// The same, with connections of its own, and with no more attempts than these at each call.
    pub fn with_attempts(&self, attempts_max: u32) -> Result<Self, ClientError> {
        Self::new(ClientOptions { attempts_max, ..self.shared.options.clone() })
    }

    /// The same connections with other time limits.
    pub fn with_patience(&self, attempt_timeout: Duration, deadline: Duration) -> Self {
        let old = &self.shared;
        let options = ClientOptions { attempt_timeout, deadline, ..old.options.clone() };
        Self {
            shared: Arc::new(Shared {
                options,
                channels: old.channels.clone(),
                preferred: AtomicUsize::new(old.preferred.load(Ordering::Relaxed)),
                authorization: old.authorization.clone(),
                random: Mutex::new(rand::make_rng()),
            }),
        }
    }

    /// The endpoints, as they were given.
    pub fn endpoints(&self) -> &[String] {
        &self.shared.options.endpoints
    }

    /// The endpoint that the next call goes to.
    pub fn preferred_endpoint(&self) -> &str {
        &self.shared.options.endpoints[self.preferred()]
    }

    /// A fresh request id: 128 random bits in hexadecimal. One for each intent.
    pub fn fresh_request_id(&self) -> String {
        format!("{:032x}", self.with_random(|random| random.random::<u128>()))
    }

    fn preferred(&self) -> usize {
        self.shared.preferred.load(Ordering::Relaxed) % self.shared.channels.len()
    }

    /// Leaves an endpoint that cannot serve. Where others have left it before, nothing changes, so that
    /// many tasks that fail at once move on one step, not many.
    fn move_on(&self, from: usize, leader: Option<&str>) {
        let endpoints = &self.shared.options.endpoints;
        let told = leader.and_then(|leader| endpoints.iter().position(|at| at == leader));
        let next = told.filter(|told| *told != from).unwrap_or((from + 1) % endpoints.len());
        let _already_left =
            self.shared.preferred.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn with_random<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.shared.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A request with the headers that every call carries.
    fn request<T>(&self, body: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(body);
        if let Some(authorization) = &self.shared.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.endpoints()).finish_non_exhaustive()
    }
}

/// Whether a `host:port` is on this host, by its name: nothing is looked up.
fn is_loopback(host_port: &str) -> bool {
    let host = host_port.rsplit_once(':').map_or(host_port, |(host, _)| host);
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || literal.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn authorization(token: &str) -> Result<MetadataValue<Ascii>, ClientError> {
    let mut value = MetadataValue::try_from(format!("Bearer {}", token.trim()))
        .map_err(|_| ClientError::usage("token", "(not shown)", "visible ASCII characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A channel that connects on first use.
fn channel(address: &str, options: &ClientOptions) -> Result<Channel, ClientError> {
    let bad = |accepted: &str| ClientError::usage("endpoint", address, accepted);
    let bare = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    if address.starts_with("https://") && options.tls.is_none() {
        return Err(bad("https:// together with a CA"));
    }
    let host_port = bare.unwrap_or(address).trim_end_matches('/');
    if !host_port.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    {
        return Err(bad("host:port"));
    }
    if options.token.is_some() && options.tls.is_none() && !is_loopback(host_port) {
        return Err(bad(TOKEN_ACCEPTED));
    }
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{host_port}"))
        .map_err(|_| bad("host:port"))?
        .connect_timeout(Duration::from_secs(3))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5));
    if let Some(tls) = &options.tls {
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
        if let Some(name) = &tls.server_name {
            config = config.domain_name(name);
        }
        endpoint = endpoint
            .tls_config(config)
            .map_err(|error| ClientError::usage("ca", &error.to_string(), "certificates in PEM"))?;
    }
    Ok(endpoint.connect_lazy())
}
