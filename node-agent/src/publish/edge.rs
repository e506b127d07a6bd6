//! The plant as an edge node, as hosts expect one: who is born, what has changed, and the sequence of what is said. Pure: it
//! is shown how everything is now, and answers with the next message until all is said.
//!
//! A birth gives all metrics with name, alias and data type; data after it carries the aliases of what has changed. So whoever
//! was not told in time is told the latest, and nothing piles up.
//!
//! - The node is born first, then every device that is there, then come data.
//! - A device is there while the agent sees its machine, or is told of it. Where the agent has lost sight of it, the device
//!   dies, so that hosts mark what it said last as stale. A machine that says itself that nothing is known of it (a drop-out) is
//!   there: its state is `unknown`.
//! - A rebirth says everything once more, in the same session.
//!
//! Source: Sparkplug 3.0.0, sections 5 (operational behaviour) and 6.4 (payloads).

use super::facts::{self, Values};
use crate::adapter::sparkplug::host::{NAMESPACE, REBIRTH};
use crate::adapter::sparkplug::payload::{BOOLEAN, Content, INT64, Metric, Payload};

/// First alias of the node itself. Some hosts take an alias of 0 for none.
const PLANT_ALIAS: u64 = 1;
/// Aliases of the node, and of each device after it.
const ALIASES: u64 = 1_000;
/// What the session number is called.
const SESSION: &str = "bdSeq";

/// How everything is now.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// When, ms since the Unix epoch.
    pub at_ms: i64,
    /// The plant's values.
    pub plant: Values,
    /// Of each machine, in their order: its values; none where it is away.
    pub machines: Vec<Option<Values>>,
}

/// What is published.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What kind, e.g. `DBIRTH`.
    pub kind: &'static str,
    /// Where.
    pub topic: String,
    /// What it says.
    pub payload: Vec<u8>,
}

/// The edge node in one session.
#[derive(Clone, Debug)]
pub struct Edge {
    group: String,
    node: String,
    session: u8,
    seq: u8,
    /// What was told of the plant; none before the birth.
    plant: Option<Values>,
    devices: Vec<Device>,
}

#[derive(Clone, Debug)]
struct Device {
    id: String,
    /// What was told of it; none before its birth, and after its death.
    told: Option<Values>,
}

impl Edge {
    /// An edge node, not yet born.
    pub fn new(group: &str, node: &str, session: u8, machines: &[String]) -> Self {
        let devices = machines.iter().map(|id| Device { id: id.clone(), told: None });
        let (group, node) = (group.to_owned(), node.to_owned());
        Self { group, node, session, seq: 0, plant: None, devices: devices.collect() }
    }

    /// What the broker says when the node is cut off, or the node itself when it stops.
    pub fn death(&self, now_ms: i64) -> Message {
        let payload = Payload { timestamp_ms: stamp(now_ms), seq: None, metrics: vec![self.session(now_ms)] };
        Message { kind: "NDEATH", topic: self.topic("NDEATH", None), payload: payload.write() }
    }

    /// Everything is to be said anew.
    pub fn bear_again(&mut self) {
        self.plant = None;
        self.devices.iter_mut().for_each(|device| device.told = None);
    }

    /// The next message of what is not told yet: births and deaths first.
    pub fn next(&mut self, now: &Now) -> Option<Message> {
        if self.plant.is_none() {
            self.seq = 0;
            let mut metrics = vec![self.session(now.at_ms), rebirth(now.at_ms)];
            metrics.extend(born(&facts::OF_PLANT, &now.plant, PLANT_ALIAS, now.at_ms));
            self.plant = Some(now.plant.clone());
            return Some(self.say("NBIRTH", None, metrics, now.at_ms));
        }
        let machines = || now.machines.iter().enumerate();
        for (at, values) in machines() {
            let Some(device) = self.devices.get_mut(at) else { continue };
            let (kind, metrics) = match (&device.told, values) {
                (None, Some(values)) => {
                    ("DBIRTH", born(&facts::OF_MACHINE, values, first_alias(at), now.at_ms).collect())
                }
                (Some(_), None) => ("DDEATH", Vec::new()),
                _ => continue,
            };
            device.told.clone_from(values);
            return Some(self.say(kind, Some(at), metrics, now.at_ms));
        }
        if let Some(told) = &mut self.plant {
            let metrics = changed(told, &now.plant, PLANT_ALIAS, now.at_ms);
            if !metrics.is_empty() {
                return Some(self.say("NDATA", None, metrics, now.at_ms));
            }
        }
        for (at, values) in machines() {
            let told = self.devices.get_mut(at).and_then(|device| device.told.as_mut());
            let (Some(told), Some(values)) = (told, values) else { continue };
            let metrics = changed(told, values, first_alias(at), now.at_ms);
            if !metrics.is_empty() {
                return Some(self.say("DDATA", Some(at), metrics, now.at_ms));
            }
        }
        None
    }

    fn say(
        &mut self,
        kind: &'static str,
        device: Option<usize>,
        metrics: Vec<Metric>,
        now_ms: i64,
    ) -> Message {
        let payload = Payload { timestamp_ms: stamp(now_ms), seq: Some(self.seq.into()), metrics };
        self.seq = self.seq.wrapping_add(1);
        Message { kind, topic: self.topic(kind, device), payload: payload.write() }
    }

    fn topic(&self, kind: &str, device: Option<usize>) -> String {
        let Self { group, node, .. } = self;
        match device.and_then(|at| self.devices.get(at)) {
            Some(Device { id, .. }) => format!("{NAMESPACE}/{group}/{kind}/{node}/{id}"),
            None => format!("{NAMESPACE}/{group}/{kind}/{node}"),
        }
    }

    fn session(&self, now_ms: i64) -> Metric {
        let session = Metric::named(SESSION, INT64, Content::Long(self.session.into()));
        Metric { timestamp: stamp(now_ms), ..session }
    }
}

/// Whoever asks for a rebirth writes this.
fn rebirth(now_ms: i64) -> Metric {
    Metric { timestamp: stamp(now_ms), ..Metric::named(REBIRTH, BOOLEAN, Content::Boolean(false)) }
}

/// All metrics, with name, alias and data type.
fn born<'a>(
    metrics: &'a [facts::Metric],
    values: &'a [Option<Content>],
    first_alias: u64,
    now_ms: i64,
) -> impl Iterator<Item = Metric> + 'a {
    metrics.iter().zip(values).zip(first_alias..).map(move |((metric, value), alias)| Metric {
        name: Some(metric.name.clone()),
        datatype: Some(metric.datatype),
        ..valued(value, alias, now_ms)
    })
}

/// What has changed, by alias; it counts as told.
fn changed(told: &mut Values, values: &[Option<Content>], first_alias: u64, now_ms: i64) -> Vec<Metric> {
    let each = told.iter_mut().zip(values).zip(first_alias..);
    let others = each.filter(|((told, value), _)| *told != *value);
    let metrics = others.map(|((told, value), alias)| {
        told.clone_from(value);
        valued(value, alias, now_ms)
    });
    metrics.collect()
}

fn valued(value: &Option<Content>, alias: u64, now_ms: i64) -> Metric {
    let is_null = value.is_none().then_some(true);
    Metric {
        alias: Some(alias),
        timestamp: stamp(now_ms),
        is_null,
        content: value.clone(),
        ..Metric::default()
    }
}

/// Aliases are unique in the node, its devices included.
fn first_alias(device: usize) -> u64 {
    (device as u64 + 1) * ALIASES
}

fn stamp(now_ms: i64) -> Option<u64> {
    u64::try_from(now_ms).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, number: u32) -> Values {
        let mut values = vec![None; count];
        values[0] = Some(Content::Int(number));
        values
    }

    fn now(plant: u32, machines: &[Option<u32>]) -> Now {
        let of_machine = |number: &Option<u32>| number.map(|number| values(facts::OF_MACHINE.len(), number));
        Now {
            at_ms: 1_000,
            plant: values(facts::OF_PLANT.len(), plant),
            machines: machines.iter().map(of_machine).collect(),
        }
    }

    fn edge() -> Edge {
        Edge::new("member", "site", 7, &["mill".to_owned(), "lathe".to_owned()])
    }

    /// All that is said, each as its kind, device and sequence number.
    fn said(edge: &mut Edge, now: &Now) -> Vec<String> {
        let message = |message: Message| {
            let payload = Payload::read(message.payload.into()).unwrap();
            let device = message.topic.split('/').nth(4).unwrap_or("");
            format!("{} {device} {}", message.kind, payload.seq.unwrap())
        };
        std::iter::from_fn(|| edge.next(now)).map(message).collect()
    }

    #[test]
    fn births_and_deaths_come_before_data_and_all_share_one_sequence() {
        let mut edge = edge();
        assert_eq!(said(&mut edge, &now(1, &[Some(1), None])), ["NBIRTH  0", "DBIRTH mill 1"]);
        assert!(said(&mut edge, &now(1, &[Some(1), None])).is_empty(), "nothing is said twice");
        assert_eq!(
            said(&mut edge, &now(2, &[Some(2), Some(1)])),
            ["DBIRTH lathe 2", "NDATA  3", "DDATA mill 4"]
        );
        assert_eq!(said(&mut edge, &now(2, &[None, Some(2)])), ["DDEATH mill 5", "DDATA lathe 6"]);
        assert_eq!(said(&mut edge, &now(2, &[Some(2), Some(2)])), ["DBIRTH mill 7"]);
        edge.bear_again();
        assert_eq!(
            said(&mut edge, &now(2, &[Some(2), Some(2)])),
            ["NBIRTH  0", "DBIRTH mill 1", "DBIRTH lathe 2"]
        );
        for number in 3..=255 {
            assert_eq!(said(&mut edge, &now(2, &[Some(number), Some(2)])), [format!("DDATA mill {number}")]);
        }
        assert_eq!(said(&mut edge, &now(2, &[Some(0), Some(2)])), ["DDATA mill 0"]);
    }

    #[test]
    fn a_birth_names_everything_once_and_data_has_the_aliases_of_what_changed() {
        let mut edge = edge();
        let mut aliases = std::collections::BTreeSet::new();
        for message in std::iter::from_fn(|| edge.next(&now(1, &[Some(1), Some(1)]))) {
            let payload = Payload::read(message.payload.into()).unwrap();
            assert_eq!(payload.timestamp_ms, Some(1_000));
            for metric in &payload.metrics {
                let name = metric.name.as_deref().unwrap();
                assert!(metric.datatype.is_some() && metric.timestamp.is_some(), "{name}");
                assert_eq!(metric.content.is_none(), metric.is_null == Some(true), "{name}");
                // The specification wants these two by name.
                match metric.alias {
                    Some(alias) => assert!(aliases.insert(alias), "{name} has an alias of another"),
                    None => assert!([SESSION, REBIRTH].contains(&name), "{name}"),
                }
            }
        }
        assert_eq!(aliases.len(), facts::OF_PLANT.len() + 2 * facts::OF_MACHINE.len());
        let data = Payload::read(edge.next(&now(1, &[Some(1), Some(2)])).unwrap().payload.into()).unwrap();
        let [metric] = &data.metrics[..] else { panic!("{data:?}") };
        assert_eq!(
            (metric.name.as_ref(), metric.alias, &metric.content),
            (None, Some(2_000), &Some(Content::Int(2)))
        );
        let null = Now { machines: vec![Some(vec![None; facts::OF_MACHINE.len()])], ..now(1, &[]) };
        let data = Payload::read(edge.next(&null).unwrap().payload.into()).unwrap();
        assert_eq!((data.metrics[0].alias, data.metrics[0].is_null), (Some(1_000), Some(true)));
    }

    #[test]
    fn a_death_has_its_births_session_and_no_place_in_the_sequence() {
        let mut edge = edge();
        let birth = Payload::read(edge.next(&now(1, &[])).unwrap().payload.into()).unwrap();
        let death = edge.death(2_000);
        assert_eq!(death.topic, "spBv1.0/member/NDEATH/site");
        let death = Payload::read(death.payload.into()).unwrap();
        let session = |payload: &Payload| payload.metric(SESSION).and_then(Metric::whole);
        assert_eq!((session(&birth), session(&death), death.seq), (Some(7), Some(7), None));
    }
}
