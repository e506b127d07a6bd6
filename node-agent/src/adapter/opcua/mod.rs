//! Reads machines through OPC UA: the machine-tool model where it is there, a vendor's nodes by mapping.
//!
//! - [`session`]: the line: security, one session, its end. [`pki`]: certificates.
//! - [`space`]: the address space, by name. [`discover`]: what a server offers, and what it lacks.
//! - [`jobs`]: ISA-95 job control. [`operate`]: what is asked of it from afar.
//! - [`signals`]: what variables amount to. [`watch`]: a machine's history from their values.
//!
//! [`run`] serves all machines behind one server over one session, because many controls allow no second.
//! It finds the machines, subscribes, and takes values in as they come. A line that breaks is given a
//! moment to come back, with what the server kept meanwhile; after that, or after a restart of the server,
//! or a silence of three signs of life, everything is found and read anew, and what lies between is a hole
//! in the evidence.
//!
//! Structures that are not known stay bytes: nothing a server can send breaks the line.

pub mod discover;
pub mod jobs;
pub mod operate;
pub mod pki;
pub mod session;
pub mod signals;
pub mod space;
pub mod watch;

pub use super::{Identity, Password};
pub use signals::Signal;

use super::history::Rules;
use super::mapping::SignalTable;
use super::shop::{Call, Post, Shop, Sight};
use super::word::Said;
use super::{Happened, Running, Time, cut};
use crate::chance::{Backoff, Chance};
use crate::outbox::OutboxError;
use crate::remote::{Answer, Bid};
use discover::Found;
use jobs::JobControl;
use opcua_types::{AttributeId, DataValue, DateTime, ReadValueId, VariableId, Variant};
use pki::Pki;
use session::{News, Open};
use signals::Value;
use space::Space;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use watch::{Seen, Watch};

/// How often a secure channel's keys are renewed, unless a test says otherwise.
pub const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// What a check of a trusted certificate may find, by its status code.
const CERTIFICATE_WRONGS: [(&str, &str); 3] = [
    ("BadCertificateHostNameInvalid", "does not name the address"),
    ("BadCertificateTimeInvalid", "is out of date"),
    ("BadCertificateUriInvalid", "names another application"),
];
/// First and longest delay between attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Delay after what a retry does not cure soon: certificates, a machine or node that is not there.
const RETRY_SLOW: Duration = Duration::from_secs(30);
/// A variable that has not told its first value by then is taken for one that has none.
const FIRST_VALUES_MAX: Duration = Duration::from_secs(5);
/// Time passes at least this often: progress, downtime.
const TICK: Duration = Duration::from_secs(1);
/// A server's clock that is further off than this is not believed, ms.
const CLOCK_OFF_MAX_MS: i64 = 60_000;
/// A line that is silent for less than this is not lost.
const SILENCE_LEAST: Duration = Duration::from_secs(6);
/// Longest text that is taken from a value, bytes.
const TEXT_BYTES_MAX: usize = 4_096;

/// How messages are secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all: for a control that can do nothing else, on a network of its own.
    None,
    /// Signed and encrypted, Basic256Sha256.
    Basic256Sha256 {
        /// A certificate among the trusted ones is enough; its names and dates are not looked at.
        pinned: bool,
    },
}

/// A server, and how it is spoken to. Machines behind equal ones share a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// E.g. `opc.tcp://10.1.2.3:4840`.
    pub url: String,
    /// How messages are secured.
    pub security: Security,
    /// As whom.
    pub identity: Identity,
    /// Values are sampled and sent this often.
    pub interval: Duration,
    /// The secure channel's keys are renewed this often.
    pub channel_lifetime: Duration,
}

/// How one machine is read.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineOptions {
    /// Its browse name among the server's machines, or `nsu=URI;...`; may be left out where there is but one.
    pub machine: Option<String>,
    /// Whose time stamps events carry.
    pub time: Time,
    /// Nodes of signals that the companion specifications do not have, or that are elsewhere.
    pub signals: BTreeMap<Signal, SignalTable>,
    /// How its history is told.
    pub rules: Rules,
}

/// A machine behind a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Its server.
    pub server: Server,
    /// Itself.
    pub machine: MachineOptions,
}

/// Why the line was given up.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The server, or the way to it, said so.
    #[error("{0}")]
    Service(#[from] opcua_types::Error),
    /// The session could not be opened, or is over.
    #[error("{0}")]
    Refused(String),
    /// No answer.
    #[error("no answer within {0:?}")]
    TooLate(Duration),
    /// Nothing was published for too long.
    #[error("the server has published nothing for {0:?}")]
    Silent(Duration),
    /// The server does not offer the wanted security.
    #[error("the server does not offer {wanted}; it offers {there}")]
    Endpoint {
        /// What the config says.
        wanted: String,
        /// What is on offer.
        there: String,
    },
    /// The server's certificate is not trusted yet.
    #[error(
        "the server's certificate is not trusted ({why}); compare the one in {rejected} with the server's own, and \
         move it to {trusted}"
    )]
    Untrusted {
        /// What the check said.
        why: String,
        /// Where it was put.
        rejected: String,
        /// Where it belongs.
        trusted: String,
    },
    /// The server's certificate is trusted, and is for something else.
    #[error(
        "the server's certificate is trusted, but {why}: have one made that is valid and names the address in the url, \
         or set pinned_certificate = true"
    )]
    Certificate {
        /// What the check said.
        why: String,
    },
    /// The machine is not there.
    #[error("machine {wanted:?} is not there; the server has {there}")]
    Machine {
        /// What the config names.
        wanted: String,
        /// What is there.
        there: String,
    },
    /// A mapping cannot be used, or one is needed.
    #[error("{0}")]
    Mapping(String),
    /// The server does what it must not.
    #[error("the server cannot be used: {0}")]
    Unusable(String),
    /// Events can be kept no more.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

impl Trouble {
    /// Whether somebody has to do something before another attempt can go better.
    fn is_slow(&self) -> bool {
        matches!(
            self,
            Self::Endpoint { .. }
                | Self::Untrusted { .. }
                | Self::Certificate { .. }
                | Self::Machine { .. }
                | Self::Mapping(_)
        )
    }
}

/// Watches the machines behind one server until `stop`.
pub fn run(
    server: Server,
    machines: Vec<(String, MachineOptions)>,
    pki: Pki,
    shop: Shop,
    stop: CancellationToken,
) -> Running {
    Box::pin(async move {
        let now = Instant::now();
        let machines = machines.into_iter().map(|(id, options)| {
            let memory = shop.outbox.mark(&id);
            let post = Post::new(id, Watch::new(options.rules, memory.as_deref()));
            Machine { post, options, control: None, variables: 0..0, phase: Phase::Missing { again: now } }
        });
        let mut line = Line {
            server,
            pki,
            machines: machines.collect(),
            shop,
            namespaces: Vec::new(),
            next_handle: 1,
            heard: now,
            silence: SILENCE_LEAST,
        };
        let mut backoff = Backoff::new(RETRY.0, RETRY.1, Chance::from_system());
        // A restart is a time in which nothing was seen.
        line.lose("the agent was started").await?;
        loop {
            let trouble = line.follow(&stop, &mut backoff).await;
            if stop.is_cancelled() {
                return Ok(());
            }
            let delay = match &trouble {
                Trouble::Outbox(error) => return Err(error.clone()),
                trouble if trouble.is_slow() => backoff.jittered(RETRY_SLOW),
                _ => backoff.delay(),
            };
            line.give_up(&trouble);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                lost = line.wait(delay) => lost?,
            }
        }
    })
}

/// How far a machine's reading is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// It is not found; looked for again then.
    Missing { again: Instant },
    /// Its variables' first values come in; those that have not come by then do not.
    Gathering { until: Instant },
    /// It is watched.
    Watching,
}

/// One machine on the line.
struct Machine {
    post: Post<Watch>,
    options: MachineOptions,
    /// Its job control, where it has one of version 2.
    control: Option<JobControl>,
    /// The handles of its variables.
    variables: std::ops::Range<u32>,
    phase: Phase,
}

/// One server's line.
struct Line {
    server: Server,
    pki: Pki,
    machines: Vec<Machine>,
    shop: Shop,
    /// The server's namespaces, by index.
    namespaces: Vec<String>,
    /// The next variable's handle; none is given twice.
    next_handle: u32,
    /// When the server last published.
    heard: Instant,
    /// After what silence it is lost.
    silence: Duration,
}

impl Line {
    /// Opens a session and reads until something goes wrong, or `stop`.
    async fn follow(&mut self, stop: &CancellationToken, backoff: &mut Backoff) -> Trouble {
        let opened = tokio::select! {
            () = stop.cancelled() => return Trouble::Refused("stopped".to_owned()),
            opened = Open::connect(&self.server, &self.pki) => opened,
        };
        let mut open = match opened {
            Ok(open) => open,
            Err(trouble) => return self.explain(trouble),
        };
        let trouble = tokio::select! {
            () = stop.cancelled() => Trouble::Refused("stopped".to_owned()),
            trouble = self.read(&mut open, backoff) => trouble,
        };
        open.close().await;
        trouble
    }

    async fn read(&mut self, open: &mut Open, backoff: &mut Backoff) -> Trouble {
        match self.try_read(open, backoff).await {
            Err(trouble) => trouble,
            Ok(never) => match never {},
        }
    }

    async fn try_read(
        &mut self,
        open: &mut Open,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, Trouble> {
        let now = Instant::now();
        for machine in &mut self.machines {
            machine.phase = Phase::Missing { again: now };
        }
        self.find_missing(open).await?;
        backoff.reset();
        self.heard = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        loop {
            let silent_at = self.heard + self.silence;
            tokio::select! {
                news = open.next() => match news {
                    News::Values(values) => {
                        self.heard = Instant::now();
                        self.take(values).await?;
                    }
                    News::Published => self.heard = Instant::now(),
                    News::Back => tracing::info!(url = self.server.url, "the line to the OPC UA server is back"),
                    News::Over(why) => return Err(Trouble::Refused(why)),
                },
                _ = tick.tick() => {
                    self.pass_time().await?;
                    self.find_missing(open).await?;
                }
                call = self.shop.call() => match call {
                    Call::Said(said) => self.hear(said).await?,
                    Call::Bid(bid) => self.operate(bid, open).await,
                },
                () = tokio::time::sleep_until(silent_at) => return Err(Trouble::Silent(self.silence)),
            }
        }
    }

    /// Looks for the machines that are not found yet, and subscribes to their variables. One that cannot be
    /// found is shown and looked for again later; the others are watched.
    async fn find_missing(&mut self, open: &Open) -> Result<(), Trouble> {
        let now = Instant::now();
        let due = |machine: &Machine| matches!(machine.phase, Phase::Missing { again } if again <= now);
        if !self.machines.iter().any(due) {
            return Ok(());
        }
        let mut space = Space::open(&open.session).await?;
        self.namespaces = space.namespaces().to_vec();
        let believed = self.believes_clock(&space).await?;
        let mut last = None;
        for at in 0..self.machines.len() {
            if !due(&self.machines[at]) {
                continue;
            }
            match discover::find(&mut space, &self.machines[at].options).await {
                Ok(found) => self.begin(at, found, believed, open).await?,
                Err(trouble) if trouble.is_slow() => {
                    let machine = &mut self.machines[at];
                    machine.phase = Phase::Missing { again: now + RETRY_SLOW };
                    // It may have been there a moment ago, before the line broke.
                    machine.post.lose("it is not there", &self.shop).await?;
                    machine.post.show(&trouble, &self.shop);
                    last = Some(trouble);
                }
                Err(trouble) => return Err(trouble),
            }
        }
        let nothing_left = self.machines.iter().all(|machine| matches!(machine.phase, Phase::Missing { .. }));
        last.filter(|_| nothing_left).map_or(Ok(()), Err)
    }

    /// A machine was found: its variables are subscribed to.
    async fn begin(
        &mut self,
        at: usize,
        found: Found,
        clock_believed: bool,
        open: &Open,
    ) -> Result<(), Trouble> {
        let machine = &mut self.machines[at];
        let first = self.next_handle;
        let variables = found.variables.iter().map(|variable| ReadValueId {
            node_id: variable.node.clone(),
            attribute_id: AttributeId::Value as u32,
            ..ReadValueId::default()
        });
        let wanted: Vec<_> = (first..).zip(variables).collect();
        self.next_handle = first + wanted.len() as u32;
        machine.variables = first..self.next_handle;
        machine.begin(found, clock_believed, &self.shop);
        let (silence, refused) = open.subscribe(self.server.interval, wanted).await?;
        self.silence = silence.max(SILENCE_LEAST);
        for (handle, code) in refused {
            let variable = (handle - first) as usize;
            tracing::warn!(machine = machine.post.id, variable, %code, "the server does not watch a variable");
            machine.post.watch.give_up_on(variable);
        }
        machine.phase = Phase::Gathering { until: Instant::now() + FIRST_VALUES_MAX };
        Ok(())
    }

    /// Takes in the values of one response.
    async fn take(&mut self, values: Vec<(u32, DataValue)>) -> Result<(), OutboxError> {
        self.take_list();
        let mut each: BTreeMap<usize, Vec<Seen>> = BTreeMap::new();
        for (handle, value) in values {
            let owner = self.machines.iter().position(|machine| machine.variables.contains(&handle));
            if let Some(at) = owner {
                let variable = (handle - self.machines[at].variables.start) as usize;
                each.entry(at).or_default().push(seen(variable, value, &self.namespaces));
            }
        }
        let now_ms = self.shop.clock.now_ms();
        for (at, seen) in each {
            let machine = &mut self.machines[at];
            metrics::counter!("millpool_agent_observations_total", "machine" => machine.post.id.clone())
                .increment(seen.len() as u64);
            match machine.phase {
                Phase::Missing { .. } => {}
                Phase::Gathering { .. } => {
                    machine.post.watch.gather(seen);
                    if !machine.post.watch.awaits() {
                        self.settle(at).await?;
                    }
                }
                Phase::Watching => {
                    let happened = machine.post.watch.tell(seen, now_ms);
                    self.tell(at, happened).await?;
                }
            }
        }
        Ok(())
    }

    /// A second has passed.
    async fn pass_time(&mut self) -> Result<(), OutboxError> {
        self.take_list();
        let now_ms = self.shop.clock.now_ms();
        for at in 0..self.machines.len() {
            let machine = &mut self.machines[at];
            match machine.phase {
                Phase::Gathering { until } if until <= Instant::now() => self.settle(at).await?,
                // Whoever is not heard does not know what time has brought.
                Phase::Watching if self.heard.elapsed() < self.silence / 2 => {
                    let happened = machine.post.watch.tell(Vec::new(), now_ms);
                    self.tell(at, happened).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A machine's first values are there.
    async fn settle(&mut self, at: usize) -> Result<(), OutboxError> {
        let why = "no line to the OPC UA server, or the server was restarted";
        let machine = &mut self.machines[at];
        machine.phase = Phase::Watching;
        let happened = machine.post.watch.settle(self.shop.clock.now_ms(), why);
        self.tell(at, happened).await
    }

    fn take_list(&mut self) {
        if let Some(kept) = self.shop.new_list() {
            self.machines.iter_mut().for_each(|machine| machine.post.take_list(&kept));
        }
    }

    /// Takes in what a person says of a machine.
    async fn hear(&mut self, said: Said) -> Result<(), OutboxError> {
        self.take_list();
        let Some(at) = self.machines.iter().position(|machine| machine.post.id == said.machine_id) else {
            return Ok(());
        };
        let sight = self.sight(at);
        self.machines[at].post.hear(said, sight, &self.shop).await
    }

    /// Carries a bid out on a machine that is watched.
    async fn operate(&mut self, bid: Bid, open: &Open) {
        let machine = self.machines.iter().find(|machine| machine.post.id == bid.machine_id);
        let watched = machine.filter(|machine| machine.phase == Phase::Watching);
        let Some(machine) = watched else { return refuse(bid, "the machine is not seen at the moment") };
        let Some(control) = &machine.control else {
            return refuse(bid, "the machine has no job control of version 2 (ISA-95)");
        };
        let answer =
            operate::carry_out(&open.session, control, &machine.post.watch, &self.namespaces, &bid).await;
        // Whoever asked may have given up.
        let _ = bid.answer.send(answer);
    }

    /// Puts what happened into the outbox, and shows it.
    async fn tell(&mut self, at: usize, happened: Vec<Happened>) -> Result<(), OutboxError> {
        let sight = self.sight(at);
        self.machines[at].post.tell(happened, sight, &self.shop).await
    }

    fn sight(&self, at: usize) -> Sight {
        let found = !matches!(self.machines[at].phase, Phase::Missing { .. });
        if found && self.heard.elapsed() < self.silence { Sight::Seen } else { Sight::Lost }
    }

    /// Whether the server's clock is near enough to the agent's for its time stamps to be used.
    async fn believes_clock(&self, space: &Space<'_>) -> Result<bool, Trouble> {
        let told = space.read(&VariableId::Server_ServerStatus_CurrentTime.into()).await?;
        let Some(Variant::DateTime(told)) = told else { return Ok(false) };
        let ahead_ms = millis(&told).saturating_sub(self.shop.clock.now_ms());
        metrics::gauge!("millpool_agent_server_clock_ahead_ms", "url" => self.server.url.clone())
            .set(ahead_ms as f64);
        let near = ahead_ms.saturating_abs() <= CLOCK_OFF_MAX_MS;
        if !near && self.machines.iter().any(|machine| machine.options.time == Time::Source) {
            tracing::error!(
                url = self.server.url,
                ahead_ms,
                "the OPC UA server's clock is off; events carry the time at which they arrive"
            );
        }
        Ok(near)
    }

    /// Says more of a trouble, where the server's certificate is its cause.
    fn explain(&self, trouble: Trouble) -> Trouble {
        let words = trouble.to_string();
        if words.contains("ntrusted") || words.contains("rejected directory") {
            let show = |path: std::path::PathBuf| path.display().to_string();
            let (rejected, trusted) = (show(self.pki.rejected()), show(self.pki.trusted()));
            return Trouble::Untrusted { why: words, rejected, trusted };
        }
        match CERTIFICATE_WRONGS.iter().find(|(code, _)| words.contains(code)) {
            Some((_, why)) => Trouble::Certificate { why: (*why).to_owned() },
            None => trouble,
        }
    }

    fn give_up(&self, trouble: &Trouble) {
        tracing::warn!(url = self.server.url, "no line to the OPC UA server");
        self.machines.iter().for_each(|machine| machine.post.show(trouble, &self.shop));
    }

    /// Waits before the next attempt; machines that were not heard of for too long are lost meanwhile.
    async fn wait(&mut self, delay: Duration) -> Result<(), OutboxError> {
        let until = Instant::now() + delay;
        let lost_at = self.heard + self.silence;
        if lost_at <= until {
            self.rest(lost_at).await?;
            self.lose("no line to its OPC UA server").await?;
        }
        self.rest(until).await
    }

    /// Waits, and takes in what is said meanwhile.
    async fn rest(&mut self, until: Instant) -> Result<(), OutboxError> {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                call = self.shop.call() => match call {
                    Call::Said(said) => self.hear(said).await?,
                    Call::Bid(bid) => refuse(bid, "there is no line to the machine's control"),
                },
            }
        }
    }

    /// The machines are not seen any more.
    async fn lose(&mut self, why: &str) -> Result<(), OutboxError> {
        for machine in &mut self.machines {
            machine.post.lose(why, &self.shop).await?;
        }
        Ok(())
    }
}

impl Machine {
    /// It was found. A change of what it can do is told: programs and mappings may rest on it.
    fn begin(&mut self, found: Found, clock_believed: bool, shop: &Shop) {
        let capability = found.capability;
        match self.post.watch.capability() {
            Some(known) if *known != capability => {
                metrics::counter!("millpool_agent_capability_changes_total", "machine" => self.post.id.clone())
                    .increment(1);
                tracing::warn!(
                    machine = self.post.id,
                    was = known.describe(),
                    is = capability.describe(),
                    "what the machine can do has changed"
                );
            }
            Some(_) => {}
            None => tracing::info!(machine = self.post.id, capability = capability.describe(), "found"),
        }
        let words = capability.describe();
        shop.health.machine(&self.post.id, |report| report.capability = words);

        let time = if clock_believed { self.options.time } else { Time::Arrival };
        self.control = found.job_control;
        self.post.watch.begin(capability, found.variables, &self.options.signals, time);
    }
}

fn refuse(bid: Bid, why: &str) {
    // Whoever asked may have given up.
    let _ = bid.answer.send(Answer::not_asked(why));
}

fn seen(variable: usize, value: DataValue, namespaces: &[String]) -> Seen {
    let at = value.source_timestamp.or(value.server_timestamp).filter(|at| !at.is_null());
    let good = value.status.is_none_or(|status| !status.is_bad());
    let overflowed = value.status.is_some_and(|status| status.overflow());
    let at_ms = at.as_ref().map(millis);
    Seen { variable, at_ms, value: understood(value.value.filter(|_| good), namespaces), overflowed }
}

/// What of a value is understood.
fn understood(value: Option<Variant>, namespaces: &[String]) -> Value {
    let Some(value) = value else { return Value::Bad };
    if let Some(number) = value.as_f64() {
        return Value::Number(number);
    }
    match value {
        Variant::Boolean(yes) => Value::Number(f64::from(u8::from(yes))),
        Variant::NodeId(id) => match (space::number(&id), namespaces.get(usize::from(id.namespace))) {
            (Some(number), Some(uri)) => Value::Node(uri.clone(), number),
            _ => Value::Bad,
        },
        Variant::Array(_) => jobs::list(&value, namespaces).map_or(Value::Bad, Value::Jobs),
        Variant::String(_) | Variant::LocalizedText(_) => {
            Value::Text(cut(&space::words(&value), TEXT_BYTES_MAX).to_owned())
        }
        _ => Value::Bad,
    }
}

fn millis(at: &DateTime) -> i64 {
    at.as_chrono().timestamp_millis()
}
