//! Reads machines through MQTT: Sparkplug B edge nodes, and single topics of any other kind by mapping.
//!
//! - [`payload`]: what a message carries. [`host`]: what an edge node's messages mean, in their order.
//! - [`signals`]: what a machine's metrics amount to. [`watch`]: a machine's history from their values.
//! - [`broker`]: the line to a broker.
//!
//! [`run`] serves all machines behind one broker over one connection. It subscribes to their edge nodes,
//! asks each for a rebirth, because births are not kept for those who come late, and takes messages in as
//! they come. A machine that was seen and is in doubt is given [`PATIENCE`] for a birth; after that its state
//! is unknown. Whatever was missed meanwhile is a hole in the evidence.
//!
//! Retained messages are not asked for: what is kept by a broker says nothing of now. The agent is no primary
//! host, so it neither publishes nor needs a STATE.
//!
//! **Nothing is written to a machine.** All that is ever published here is the request for a rebirth, to the edge
//! node (NCMD, `Node Control/Rebirth`). What a plant has published of itself is [`crate::publish`]'s.

pub mod broker;
pub mod host;
pub mod payload;
pub mod signals;
pub mod watch;

pub use broker::{Broker, Tls, Trouble};
pub use signals::Signal;

use super::history::Rules;
use super::mapping::SignalTable;
use super::shop::{Post, Shop, Sight};
use super::word::Said;
use super::{Happened, Running, Time, cut};
use crate::chance::{Backoff, Chance};
use crate::outbox::OutboxError;
use broker::{Connection, Opening};
use host::{NAMESPACE, News, Node, Place, Seen, Topic, What};
use payload::Payload;
use rumqttc::{Event, Packet, Publish};
use signals::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use watch::Watch;

/// First and longest delay between attempts.
pub const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Delay after what a retry does not cure soon: certificates, passwords, rights.
pub const RETRY_SLOW: Duration = Duration::from_secs(30);
/// A machine that is in doubt for so long is lost.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// A broker answers a sign of life within this time, or nothing is known of what time has brought.
const HEARD_WITHIN: Duration = Duration::from_secs(broker::KEEP_ALIVE_S as u64 * 3 / 2);
/// Time passes at least this often: progress, downtime, patience.
const TICK: Duration = Duration::from_secs(1);
/// An edge node's clock that is further off than this is not believed, ms.
const CLOCK_OFF_MAX_MS: i64 = 60_000;
/// Longest topic that is named, bytes.
const TOPIC_BYTES_MAX: usize = 200;
/// Topics that are named in the log once each; more are only counted.
const STRANGE_MAX: usize = 64;
/// What a signal's source begins with where it is a topic outside Sparkplug.
pub const TOPIC: &str = "topic:";

/// Where a machine is found on a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The Sparkplug group.
    pub group: String,
    /// The edge node.
    pub node: String,
    /// The device behind it; none where the metrics are the node's own.
    pub device: Option<String>,
}

/// How one machine is read.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineOptions {
    /// Where it is; none where every signal is a topic outside Sparkplug.
    pub address: Option<Address>,
    /// Whose time stamps events carry.
    pub time: Time,
    /// The metric of each signal, or its topic after [`TOPIC`].
    pub signals: BTreeMap<Signal, SignalTable>,
    /// How its history is told.
    pub rules: Rules,
}

/// A machine behind a broker.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Its broker.
    pub broker: Broker,
    /// Itself.
    pub machine: MachineOptions,
}

/// Watches the machines behind one broker until `stop`.
pub fn run(
    broker: Broker,
    machines: Vec<(String, MachineOptions)>,
    shop: Shop,
    stop: CancellationToken,
) -> Running {
    Box::pin(async move {
        let mut line = Line::new(broker, machines, shop);
        let mut backoff = Backoff::new(RETRY.0, RETRY.1, Chance::from_system());
        // A restart is a time in which nothing was seen.
        line.lose_all("the agent was started").await?;
        loop {
            let trouble = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                trouble = line.read(&mut backoff) => trouble,
            };
            let delay = match &trouble {
                Trouble::Outbox(error) => return Err(error.clone()),
                trouble if trouble.is_slow() => backoff.jittered(RETRY_SLOW),
                _ => backoff.delay(),
            };
            line.give_up(&trouble);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                waited = line.wait(delay) => waited?,
            }
        }
    })
}

/// How far a machine's reading is.
#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// A birth, or a topic's value, is awaited.
    Awaited {
        /// Since when.
        since: Instant,
        /// Why something may have been missed, if so.
        missed: Option<String>,
    },
    /// It is watched.
    Watching,
}

/// One machine on the line.
struct Machine {
    post: Post<Watch>,
    options: MachineOptions,
    phase: Phase,
}

/// One broker's line.
struct Line {
    broker: Broker,
    machines: Vec<Machine>,
    /// The edge nodes, by group and name.
    nodes: BTreeMap<(String, String), Node>,
    shop: Shop,
    /// When the broker last sent anything.
    heard: Instant,
    /// Topics that have been named as strange.
    strange: BTreeSet<String>,
}

impl Line {
    fn new(broker: Broker, machines: Vec<(String, MachineOptions)>, shop: Shop) -> Self {
        let now = Instant::now();
        let mut places: BTreeMap<(String, String), Vec<Place>> = BTreeMap::new();
        for (at, (_, options)) in machines.iter().enumerate() {
            if let Some(Address { group, node, device }) = options.address.clone() {
                let metrics = options.signals.iter().filter(|(_, table)| topic(table).is_none());
                let metrics = metrics.map(|(signal, table)| (*signal, table.clone())).collect();
                places.entry((group, node)).or_default().push(Place::new(at, device, metrics));
            }
        }
        let machines = machines.into_iter().map(|(id, options)| {
            let memory = shop.outbox.mark(&id);
            let watch = Watch::new(options.rules, &options.signals, memory.as_deref());
            let names: Vec<_> = options.signals.keys().map(|signal| signal.name()).collect();
            shop.health.machine(&id, |report| report.capability = format!("mapped: {}", names.join(", ")));
            let phase = Phase::Awaited { since: now, missed: None };
            Machine { post: Post::new(id, watch), options, phase }
        });
        let machines = machines.collect();
        let nodes = places.into_iter().map(|(name, places)| (name, Node::new(places))).collect();
        Self { broker, machines, nodes, shop, heard: now, strange: BTreeSet::new() }
    }

    /// Connects, and reads until something goes wrong.
    async fn read(&mut self, backoff: &mut Backoff) -> Trouble {
        match self.try_read(backoff).await {
            Err(trouble) => trouble,
            Ok(never) => match never {},
        }
    }

    async fn try_read(&mut self, backoff: &mut Backoff) -> Result<std::convert::Infallible, Trouble> {
        // Of all nodes rebirths may be asked at once.
        let opening = Opening { filters: self.filters(), unsent_max: self.nodes.len(), will: None };
        let Connection { client, mut events } = self.broker.connect(opening).await?;
        backoff.reset();
        self.heard = Instant::now();
        self.join();
        let mut tick = tokio::time::interval(TICK);
        loop {
            // Dropped half-way through, a poll might lose what it has begun: so it lives on while time passes.
            let event = {
                let mut poll = pin!(events.poll());
                loop {
                    tokio::select! {
                        event = &mut poll => break event,
                        _ = tick.tick() => {
                            self.pass_time().await?;
                            self.ask(&client);
                        }
                        said = self.shop.said() => self.hear(said).await?,
                    }
                }
            };
            let Event::Incoming(packet) = event.map_err(|error| self.broker.explain(error))? else {
                continue;
            };
            self.heard = Instant::now();
            if let Packet::Publish(publish) = packet {
                self.take(publish).await?;
                self.ask(&client);
            }
        }
    }

    /// There is a line to the broker: births are awaited.
    fn join(&mut self) {
        self.nodes.values_mut().for_each(Node::rejoin);
        for machine in &self.machines {
            self.shop.health.machine(&machine.post.id, |report| {
                report.adapter_state = "waiting".to_owned();
                report.trouble = None;
            });
        }
    }

    /// What is subscribed to: all messages of each edge node, because they share a sequence, and topics.
    fn filters(&self) -> BTreeSet<String> {
        let nodes = self.nodes.keys().map(|(group, node)| format!("{NAMESPACE}/{group}/+/{node}/#"));
        let tables = self.machines.iter().flat_map(|machine| machine.options.signals.values());
        nodes.chain(tables.filter_map(|table| topic(table).map(str::to_owned))).collect()
    }

    /// Asks for the rebirths that are due.
    fn ask(&mut self, client: &rumqttc::AsyncClient) {
        let now = Instant::now();
        for ((group, node), state) in &mut self.nodes {
            let Some(why) = state.ask(now) else { continue };
            tracing::info!(broker = self.broker.name(), group, node, why, "asks the edge node for a rebirth");
            metrics::counter!("millpool_agent_rebirths_asked_total", "node" => format!("{group}/{node}"))
                .increment(1);
            let wall_ms = jiff::Timestamp::now().as_millisecond();
            if let Err(error) = broker::ask_rebirth(client, group, node, wall_ms) {
                tracing::warn!(group, node, %error, "a rebirth could not be asked");
            }
        }
    }

    /// Takes a message in.
    async fn take(&mut self, publish: Publish) -> Result<(), OutboxError> {
        self.take_list();
        let Publish { topic: name, payload: bytes, retain, .. } = publish;
        let name = String::from_utf8_lossy(&name).into_owned();
        if retain {
            self.ignore("retained", &name, "a broker's memory says nothing of now");
            return Ok(());
        }
        if !name.starts_with(NAMESPACE) {
            return self.take_flat(&name, &bytes).await;
        }
        let Some(topic) = Topic::parse(&name) else {
            self.ignore("topic", &name, "no topic of Sparkplug 3.0");
            return Ok(());
        };
        let Some(node) = self.nodes.get_mut(&(topic.group.to_owned(), topic.node.to_owned())) else {
            return Ok(());
        };
        let payload = match Payload::read(bytes) {
            Ok(payload) => payload,
            Err(unreadable) => {
                self.ignore("payload", &name, &unreadable.to_string());
                return Ok(());
            }
        };
        for News { machine, what } in node.take(&topic, &payload) {
            self.learn(machine, what, &payload).await?;
        }
        Ok(())
    }

    /// Takes what a message says of a machine.
    async fn learn(&mut self, at: usize, what: What, payload: &Payload) -> Result<(), OutboxError> {
        let now_ms = self.shop.clock.now_ms();
        match what {
            What::Born(seen) => {
                let sent_ms = payload.timestamp_ms.and_then(|at_ms| i64::try_from(at_ms).ok());
                let time = self.believed(at, sent_ms, now_ms);
                self.find(at, seen, time, now_ms).await
            }
            What::Said(seen) => {
                self.count(at, seen.len());
                let happened = self.machines[at].post.watch.tell(seen, now_ms);
                self.tell(at, happened).await
            }
            What::Doubted(missed) => {
                self.machines[at].doubt(missed);
                Ok(())
            }
            What::Died(why) => self.lose(at, why).await,
            What::Lacks(words) => {
                self.lose(at, "what is mapped was not there").await?;
                self.machines[at].post.show(&Trouble::Mapping(words), &self.shop);
                Ok(())
            }
        }
    }

    /// A machine is seen, with these values.
    async fn find(&mut self, at: usize, seen: Vec<Seen>, time: Time, now_ms: i64) -> Result<(), OutboxError> {
        self.count(at, seen.len());
        let machine = &mut self.machines[at];
        let missed = match std::mem::replace(&mut machine.phase, Phase::Watching) {
            Phase::Awaited { missed, .. } => missed,
            Phase::Watching => None,
        };
        let happened = machine.post.watch.born(seen, now_ms, missed.as_deref(), time);
        self.tell(at, happened).await
    }

    /// Takes the value of a topic outside Sparkplug. A machine that has nothing else is seen by it.
    async fn take_flat(&mut self, name: &str, bytes: &[u8]) -> Result<(), OutboxError> {
        let now_ms = self.shop.clock.now_ms();
        for at in 0..self.machines.len() {
            let machine = &mut self.machines[at];
            let signals = machine.options.signals.iter().filter(|(_, table)| topic(table) == Some(name));
            let value = Value::flat(bytes);
            let seen: Vec<_> = signals
                .map(|(signal, _)| Seen { signal: *signal, at_ms: None, value: value.clone() })
                .collect();
            if seen.is_empty() {
                continue;
            }
            match (&machine.phase, &machine.options.address) {
                (Phase::Watching, _) => {
                    let happened = machine.post.watch.tell(seen, now_ms);
                    self.tell(at, happened).await?;
                }
                (Phase::Awaited { .. }, None) => self.find(at, seen, Time::Arrival, now_ms).await?,
                (Phase::Awaited { .. }, Some(_)) => {
                    seen.into_iter().for_each(|seen| machine.post.watch.hold(seen))
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
            match &self.machines[at].phase {
                // Whoever is not heard does not know what time has brought.
                Phase::Watching if self.heard.elapsed() < HEARD_WITHIN => {
                    let happened = self.machines[at].post.watch.tell(Vec::new(), now_ms);
                    self.tell(at, happened).await?;
                }
                Phase::Awaited { since, .. } if since.elapsed() >= PATIENCE => self.despair(at).await?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A birth was awaited for too long.
    async fn despair(&mut self, at: usize) -> Result<(), OutboxError> {
        let machine = &mut self.machines[at];
        let awaited = machine.awaited();
        self.shop.health.machine(&machine.post.id, |report| {
            report.trouble.get_or_insert(awaited);
        });
        machine.post.lose("it was in doubt for too long", &self.shop).await
    }

    /// A machine is gone.
    async fn lose(&mut self, at: usize, why: &str) -> Result<(), OutboxError> {
        let machine = &mut self.machines[at];
        machine.phase = Phase::Awaited { since: Instant::now(), missed: Some(why.to_owned()) };
        self.shop.health.machine(&machine.post.id, |report| report.trouble = Some(why.to_owned()));
        machine.post.lose(why, &self.shop).await
    }

    async fn lose_all(&mut self, why: &str) -> Result<(), OutboxError> {
        for machine in &mut self.machines {
            machine.post.lose(why, &self.shop).await?;
        }
        Ok(())
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

    /// Puts what happened into the outbox, and shows it.
    async fn tell(&mut self, at: usize, happened: Vec<Happened>) -> Result<(), OutboxError> {
        let sight = self.sight(at);
        self.machines[at].post.tell(happened, sight, &self.shop).await
    }

    fn sight(&self, at: usize) -> Sight {
        if self.machines[at].phase == Phase::Watching { Sight::Seen } else { Sight::Lost }
    }

    /// Whose time stamps a machine's events carry: the edge node's, if its clock is near enough to the agent's.
    fn believed(&self, at: usize, sent_ms: Option<i64>, now_ms: i64) -> Time {
        let machine = &self.machines[at];
        let Some(sent_ms) = sent_ms.filter(|_| machine.options.time == Time::Source) else {
            return Time::Arrival;
        };
        let ahead_ms = sent_ms.saturating_sub(now_ms);
        if ahead_ms.saturating_abs() <= CLOCK_OFF_MAX_MS {
            return Time::Source;
        }
        let id = &machine.post.id;
        tracing::error!(machine = id, ahead_ms, "the edge node's clock is off; events carry their arrival");
        Time::Arrival
    }

    /// Something came that is not taken: it is counted, and a topic is named once.
    fn ignore(&mut self, kind: &'static str, topic: &str, why: &str) {
        metrics::counter!("millpool_agent_mqtt_ignored_total", "broker" => self.broker.name(), "why" => kind)
            .increment(1);
        let topic = cut(topic, TOPIC_BYTES_MAX);
        if self.strange.len() < STRANGE_MAX && self.strange.insert(topic.to_owned()) {
            tracing::warn!(broker = self.broker.name(), topic, why, "a message is not taken");
        }
    }

    fn count(&self, at: usize, observations: usize) {
        metrics::counter!("millpool_agent_observations_total", "machine" => self.machines[at].post.id.clone())
            .increment(observations as u64);
    }

    /// The line was cut, or there is none: what changes from now on is missed.
    fn give_up(&mut self, trouble: &Trouble) {
        for machine in &mut self.machines {
            machine.doubt(Some("no line to the MQTT broker"));
            machine.post.watch.forget();
            machine.post.show(trouble, &self.shop);
        }
    }

    /// Waits before the next attempt; machines that were not heard of for too long are lost meanwhile.
    async fn wait(&mut self, delay: Duration) -> Result<(), OutboxError> {
        let until = Instant::now() + delay;
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep((until - now).min(TICK)) => self.pass_time().await?,
                said = self.shop.said() => self.hear(said).await?,
            }
        }
    }
}

impl Machine {
    /// Until a birth nothing is known of it.
    fn doubt(&mut self, why: Option<&str>) {
        match &mut self.phase {
            Phase::Watching => {
                let missed = why.map(str::to_owned);
                self.phase = Phase::Awaited { since: Instant::now(), missed };
            }
            Phase::Awaited { missed, .. } => *missed = missed.take().or(why.map(str::to_owned)),
        }
    }

    /// What is awaited, in words.
    fn awaited(&self) -> String {
        match &self.options.address {
            Some(Address { group, node, device: Some(device) }) => {
                format!("no birth of {device} has come from the edge node {group}/{node}")
            }
            Some(Address { group, node, device: None }) => {
                format!("no birth has come from the edge node {group}/{node}")
            }
            None => "none of its topics has had a value".to_owned(),
        }
    }
}

/// The topic of a signal that is not Sparkplug's.
pub fn topic(table: &SignalTable) -> Option<&str> {
    table.source.strip_prefix(TOPIC)
}
