//! Publishes the plant's dispatch list and its machines' states on a broker of its own, as a Sparkplug B edge node: for
//! whatever the plant itself has that reads such: its SCADA, a board in the hall.
//!
//! - [`facts`]: what is published. [`edge`]: births, data and deaths in their order.
//!
//! [`run`] stands beside the agent, as the console does: it looks at what the agent says of its machines, and at the list on
//! disk, and tells the broker what is other than it last said. Nothing waits for it: while the broker is slow or away, only the
//! latest is kept, and that is the agent's own. Each connection is a session of its own, with births and a will that says its
//! death.
//!
//! **It is no way to a machine.** The one thing that is heeded is the request for a rebirth. Whatever else is written to the node
//! or to a device is counted, and nothing comes of it.

pub mod edge;
pub mod facts;

use crate::adapter::sparkplug::broker::{self, Connection, KEEP_ALIVE_S, Opening};
use crate::adapter::sparkplug::host::{Kind, NAMESPACE, REBIRTH, Topic};
use crate::adapter::sparkplug::payload::{Content, Metric, Payload};
use crate::adapter::sparkplug::{Broker, RETRY, RETRY_SLOW, Trouble};
use crate::chance::{Backoff, Chance};
use crate::clock::Clock;
use crate::dispatch::Kept;
use crate::health::{Health, Publishing};
use edge::{Edge, Message, Now};
use facts::List;
use futures::future::BoxFuture;
use rumqttc::{AsyncClient, Event, EventLoop, LastWill, Outgoing, Packet, Publish, PublishOptions, QoS};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What has changed is told at most so often.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// Everything is said anew at most so often, however many ask.
pub const BIRTHS_EVERY: Duration = Duration::from_secs(1);
/// Messages that are on their way to the broker.
const UNSENT_MAX: usize = 16;
/// A broker of which nothing has come for so long is asked for a sign of life.
const LIFE_EVERY: Duration = Duration::from_secs(KEEP_ALIVE_S as u64);
/// One of which nothing comes for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(KEEP_ALIVE_S as u64 * 3);
/// How long a stopping agent takes to say that it goes.
pub const LEAVE_MAX: Duration = Duration::from_secs(2);
/// File in the plant's folder with the number of the last session.
const SESSION_FILE: &str = "sparkplug-session";

/// Where it is published, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The broker.
    pub broker: Broker,
    /// The Sparkplug group: the member.
    pub group: String,
    /// The edge node: the site's agent.
    pub node: String,
}

/// What is published of.
pub struct Plant {
    /// Its id.
    pub id: String,
    /// The plant's clock.
    pub clock: Clock,
    /// The machines, each a device.
    pub machines: Vec<String>,
    /// What the agent says of them.
    pub health: Health,
    /// The dispatch list on disk.
    pub kept: watch::Receiver<Arc<Kept>>,
    /// The plant's folder.
    pub data_dir: PathBuf,
}

/// Publishes until `stop`, and says so before it goes.
pub fn run(options: Options, plant: Plant, stop: CancellationToken) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut publisher = Publisher { options, plant, kept: None, lists: BTreeMap::new(), session: None };
        let mut backoff = Backoff::new(RETRY.0, RETRY.1, Chance::from_system());
        publisher.show(false, None);
        loop {
            let trouble = match publisher.publish(&mut backoff, &stop).await {
                Ok(()) => return publisher.show(false, None),
                Err(trouble) => trouble,
            };
            publisher.show(false, Some(&trouble));
            let delay = if trouble.is_slow() { backoff.jittered(RETRY_SLOW) } else { backoff.delay() };
            tokio::select! {
                () = stop.cancelled() => return publisher.show(false, None),
                () = tokio::time::sleep(delay) => {}
            }
        }
    })
}

struct Publisher {
    options: Options,
    plant: Plant,
    /// The list, and each machine's part of it.
    kept: Option<Arc<Kept>>,
    lists: BTreeMap<String, List>,
    /// The last session's number.
    session: Option<u8>,
}

impl Publisher {
    /// One session: connects, and tells what is new until `stop`, or until something goes wrong.
    async fn publish(&mut self, backoff: &mut Backoff, stop: &CancellationToken) -> Result<(), Trouble> {
        let Options { broker, group, node } = self.options.clone();
        let commands = format!("{NAMESPACE}/{group}/NCMD/{node}");
        let mut edge = Edge::new(&group, &node, self.next_session().await, &self.plant.machines);
        let Message { topic, payload, .. } = edge.death(self.plant.clock.now_ms());
        let opening = Opening {
            filters: [commands.clone(), format!("{NAMESPACE}/{group}/DCMD/{node}/+")].into(),
            unsent_max: UNSENT_MAX,
            will: Some(LastWill::new(topic, payload, QoS::AtLeastOnce, false, None)),
        };
        let Connection { client, events } = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            opened = broker.connect(opening) => opened?,
        };
        backoff.reset();
        self.show(true, None);
        // A request that comes while another waits is answered with it.
        let (ask, asked) = mpsc::channel(1);
        let taken = Notify::new();
        let patience = async {
            stop.cancelled().await;
            tokio::time::sleep(LEAVE_MAX).await;
        };
        let ear =
            Ear { broker: &broker, plant_id: &self.plant.id.clone(), client: &client, commands: &commands };
        tokio::select! {
            heard = ear.listen(events, &ask, &taken) => heard,
            told = self.speak(&client, &mut edge, asked, &taken, stop) => told,
            () = patience => Ok(()),
        }
    }

    /// Tells what is new, as fast as the broker takes it and no faster; at the end, that the node goes.
    async fn speak(
        &mut self,
        client: &AsyncClient,
        edge: &mut Edge,
        mut asked: mpsc::Receiver<()>,
        taken: &Notify,
        stop: &CancellationToken,
    ) -> Result<(), Trouble> {
        let mut changes = self.plant.health.changes();
        let mut born = Instant::now();
        while !stop.is_cancelled() {
            let now = self.now();
            while let Some(message) = edge.next(&now) {
                tokio::select! {
                    () = stop.cancelled() => break,
                    sent = self.send(client, message, PublishOptions::at_most_once()) => sent?,
                }
            }
            tokio::time::sleep(TELL_EVERY).await;
            let bearable = born.elapsed() >= BIRTHS_EVERY;
            tokio::select! {
                () = stop.cancelled() => {}
                _ = changes.changed() => {}
                _ = self.plant.kept.changed() => {}
                () = tokio::time::sleep_until(born + BIRTHS_EVERY), if !bearable => {}
                Some(()) = asked.recv(), if bearable => {
                    edge.bear_again();
                    born = Instant::now();
                }
            }
        }
        let death = edge.death(self.plant.clock.now_ms());
        self.send(client, death, PublishOptions::at_least_once()).await?;
        taken.notified().await;
        client.disconnect().await.map_err(|error| Trouble::Request(Box::new(error)))?;
        // The line ends when that is on its way.
        std::future::pending().await
    }

    async fn send(&self, client: &AsyncClient, message: Message, how: PublishOptions) -> Result<(), Trouble> {
        let Message { kind, topic, payload } = message;
        let sent = client.publish(topic, payload, how).await;
        sent.map_err(|error| Trouble::Request(Box::new(error)))?;
        metrics::counter!("millpool_agent_published_total", "plant" => self.plant.id.clone(), "kind" => kind)
            .increment(1);
        Ok(())
    }

    /// How everything is now.
    fn now(&mut self) -> Now {
        let report = self.plant.health.report();
        let kept = self.plant.kept.borrow().clone();
        if !self.kept.as_ref().is_some_and(|known| Arc::ptr_eq(known, &kept)) {
            self.lists = facts::lists(kept.list.as_ref(), &self.plant.machines);
        }
        let machine = |id: &String| {
            let (report, list) = (report.machines.get(id)?, self.lists.get(id)?);
            report.there.then(|| facts::of_machine(report, list))
        };
        let machines = self.plant.machines.iter().map(machine).collect();
        let plant = facts::of_plant(&report, kept.revision());
        self.kept = Some(kept);
        Now { at_ms: self.plant.clock.now_ms(), plant, machines }
    }

    /// The next session's number, so that no host takes the last one's death for its own. The last is remembered through
    /// restarts; where it cannot be, hosts still see births.
    async fn next_session(&mut self) -> u8 {
        let path = self.plant.data_dir.join(SESSION_FILE);
        let last = match self.session {
            Some(last) => Some(last),
            None => tokio::fs::read_to_string(&path).await.ok().and_then(|text| text.trim().parse().ok()),
        };
        let next = last.map_or(0, |last: u8| last.wrapping_add(1));
        self.session = Some(next);
        if let Err(error) = tokio::fs::write(&path, next.to_string()).await {
            tracing::warn!(path = %path.display(), %error, "the session's number cannot be remembered");
        }
        next
    }

    fn show(&self, connected: bool, trouble: Option<&Trouble>) {
        let broker = self.options.broker.name();
        metrics::gauge!("millpool_agent_publishing", "plant" => self.plant.id.clone())
            .set(f64::from(u8::from(connected)));
        if let Some(trouble) = trouble {
            tracing::warn!(broker, why = %trouble, "nothing is published");
        } else if connected {
            tracing::info!(broker, group = self.options.group, node = self.options.node, "publishes");
        }
        let trouble = trouble.map(ToString::to_string);
        self.plant.health.set_publishing(Publishing { broker, connected, trouble });
    }
}

/// The line's other end, as it is heard.
struct Ear<'a> {
    broker: &'a Broker,
    plant_id: &'a str,
    client: &'a AsyncClient,
    /// Where the node's commands come.
    commands: &'a str,
}

impl Ear<'_> {
    /// Takes what comes, until the line ends.
    async fn listen(
        &self,
        mut events: EventLoop,
        ask: &mpsc::Sender<()>,
        taken: &Notify,
    ) -> Result<(), Trouble> {
        let mut heard = Instant::now();
        let mut tick = tokio::time::interval(LIFE_EVERY);
        loop {
            // Dropped half-way through, a poll might lose what it has begun: so it lives on while time passes.
            let event = {
                let mut poll = pin!(events.poll());
                loop {
                    tokio::select! {
                        event = &mut poll => break event,
                        _ = tick.tick() => self.await_life(heard.elapsed())?,
                    }
                }
            };
            match event.map_err(|error| self.broker.explain(error))? {
                Event::Incoming(packet) => {
                    heard = Instant::now();
                    match packet {
                        Packet::Publish(publish) => self.take(publish, ask),
                        Packet::PubAck(_) => taken.notify_one(),
                        _ => {}
                    }
                }
                Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
                _ => {}
            }
        }
    }

    /// Nothing has come for so long.
    fn await_life(&self, silence: Duration) -> Result<(), Trouble> {
        if silence >= SILENCE_MAX {
            return Err(Trouble::TooLate(SILENCE_MAX));
        }
        if silence >= LIFE_EVERY {
            // Full: what waits to be sent has the same answer, or none.
            let _ = broker::ask_life(self.client, self.commands);
        }
        Ok(())
    }

    fn take(&self, publish: Publish, ask: &mpsc::Sender<()>) {
        let (rebirth, others) = requests(publish);
        if rebirth {
            // Full: one is on its way.
            let _ = ask.try_send(());
        }
        let plant = self.plant_id.to_owned();
        metrics::counter!("millpool_agent_publish_commands_ignored_total", "plant" => plant)
            .increment(others);
    }
}

/// Whether a rebirth is asked, and how much else that is none of a host's business.
fn requests(publish: Publish) -> (bool, u64) {
    let Ok(topic) = std::str::from_utf8(&publish.topic) else { return (false, 1) };
    let to_node =
        Topic::parse(topic).is_some_and(|topic| topic.kind == Kind::Command && topic.device.is_none());
    let Ok(payload) = Payload::read(publish.payload) else { return (false, 1) };
    let is_rebirth = |metric: &&Metric| to_node && is_rebirth(metric);
    let rebirths = payload.metrics.iter().filter(is_rebirth).count();
    (rebirths > 0, (payload.metrics.len() - rebirths) as u64)
}

fn is_rebirth(metric: &Metric) -> bool {
    metric.name.as_deref() == Some(REBIRTH) && metric.content == Some(Content::Boolean(true))
}
