//! An edge node as a host sees it: what its messages mean in the order in which they come. Pure: it is given
//! messages and the time, and answers with what they say of the machines behind the node.
//!
//! A birth gives every metric a name, an alias and a value; data after it may carry aliases only. All
//! messages of a node share a sequence from 0 to 255. So whoever has missed one knows it, and knows nothing
//! else until the next birth, which is asked for:
//!
//! | what comes | what follows |
//! |---|---|
//! | data, or a device's birth or death, before the node's birth | a rebirth is asked |
//! | a sequence number that is not the next one | a message is lost: all is in doubt, a rebirth is asked |
//! | data of a device before its birth, or under an alias that its birth did not give | the device is in doubt, a rebirth is asked |
//! | the node's death, with the session number (`bdSeq`) of its last birth, or either without one | node and devices are gone |
//! | the node's death with another session number | an older session's, overtaken by a birth: nothing |
//! | a birth with the session number of a death that has come | the death has overtaken it: it is believed when it is repeated, and a rebirth is asked |
//!
//! Rebirths are asked for at most once in [`REBIRTH_EVERY`], and ever less often while no birth comes. A value
//! that is marked as historical is passed over: it says nothing of now, and a counter has it included later.
//!
//! Source: Sparkplug 3.0.0, sections 5 (operational behaviour) and 6.4 (payloads).

use super::payload::{Metric, Payload};
use super::signals::{Signal, Value};
use crate::adapter::mapping::SignalTable;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// First word of every topic.
pub const NAMESPACE: &str = "spBv1.0";
/// Metric of an edge node that is written to ask for a rebirth.
pub const REBIRTH: &str = "Node Control/Rebirth";
/// A rebirth is asked of a node at most so often.
pub const REBIRTH_EVERY: Duration = Duration::from_secs(5);
/// The delay doubles so many times while no birth comes: up to five minutes.
const REBIRTH_DOUBLED_MAX: u32 = 6;
/// Names that are shown where one is missing.
const NAMES_SHOWN: usize = 12;

/// What a topic says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic<'a> {
    /// The group.
    pub group: &'a str,
    /// What kind of message.
    pub kind: Kind,
    /// The edge node.
    pub node: &'a str,
    /// The device; none for the node itself.
    pub device: Option<&'a str>,
}

/// Kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// NBIRTH, DBIRTH
    Birth,
    /// NDEATH, DDEATH
    Death,
    /// NDATA, DDATA
    Data,
    /// NCMD, DCMD: somebody's, to the node.
    Command,
}

impl<'a> Topic<'a> {
    /// Takes a topic apart; none where it is not of the scheme.
    pub fn parse(topic: &'a str) -> Option<Self> {
        let mut parts = topic.split('/');
        let (namespace, group, kind, node) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let device = parts.next();
        let (of, kind) = kind.split_at_checked(1)?;
        let kind = match kind {
            "BIRTH" => Kind::Birth,
            "DEATH" => Kind::Death,
            "DATA" => Kind::Data,
            "CMD" => Kind::Command,
            _ => return None,
        };
        let fits = match of {
            "N" => device.is_none(),
            "D" => device.is_some(),
            _ => false,
        };
        let whole = namespace == NAMESPACE && parts.next().is_none();
        (whole && fits).then_some(Self { group, kind, node, device })
    }
}

/// A value of a signal, as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Whose.
    pub signal: Signal,
    /// When it was so, as the node says, ms since the Unix epoch.
    pub at_ms: Option<i64>,
    /// The value.
    pub value: Value,
}

/// What a message says of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    /// Which of the machines behind the node, by the number that it was given.
    pub machine: usize,
    /// What.
    pub what: What,
}

/// What may be said of a machine.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// It was born: this is how it is now.
    Born(Vec<Seen>),
    /// It was born without what the mapping names.
    Lacks(String),
    /// These are new.
    Said(Vec<Seen>),
    /// Until its next birth nothing is known of it; where there is a reason, something was missed.
    Doubted(Option<&'static str>),
    /// It is gone.
    Died(&'static str),
}

/// A machine behind an edge node.
#[derive(Clone, Debug)]
pub struct Place {
    machine: usize,
    device: Option<String>,
    wanted: Vec<Wanted>,
    birth: Option<Birth>,
}

#[derive(Clone, Debug)]
struct Wanted {
    signal: Signal,
    name: String,
    unit: Option<String>,
}

/// What a birth gave.
#[derive(Clone, Debug, Default)]
struct Birth {
    /// The signals under each alias: of most metrics none.
    aliases: BTreeMap<u64, Vec<Signal>>,
    datatypes: BTreeMap<Signal, u32>,
    /// It has not all that is mapped, and is not read.
    lacking: bool,
}

/// One edge node.
#[derive(Clone, Debug)]
pub struct Node {
    places: Vec<Place>,
    /// The next message's sequence number; none before a birth, after a death, and while in doubt.
    next_seq: Option<u8>,
    /// Session number of the last birth.
    session: Option<u64>,
    /// Session number of the last death.
    died: Option<u64>,
    /// Why a rebirth is to be asked; until there is one.
    wants: Option<&'static str>,
    /// When one was asked last, and how often since the last birth.
    asked: Option<(Instant, u32)>,
}

impl Place {
    /// A machine by its number: a device of the node, or metrics of the node itself.
    pub fn new(machine: usize, device: Option<String>, metrics: Vec<(Signal, SignalTable)>) -> Self {
        let wanted = metrics.into_iter().map(|(signal, table)| Wanted {
            signal,
            name: table.source,
            unit: table.unit,
        });
        Self { machine, device, wanted: wanted.collect(), birth: None }
    }

    fn is(&self, device: Option<&str>) -> bool {
        self.device.as_deref() == device
    }

    fn news(&self, what: What) -> News {
        News { machine: self.machine, what }
    }

    fn born(&mut self, payload: &Payload) -> News {
        let mut birth = Birth::default();
        let mut seen = Vec::new();
        let mut wrong = None;
        for metric in &payload.metrics {
            let signals: Vec<_> = self.wanted.iter().filter(|wanted| wanted.is(metric)).collect();
            for wanted in &signals {
                birth.datatypes.extend(metric.datatype.map(|datatype| (wanted.signal, datatype)));
                seen.push(seen_of(wanted.signal, metric, metric.datatype, payload));
                wrong = wrong.or_else(|| wanted.wrong_unit(metric));
            }
            if let Some(alias) = metric.alias {
                birth.aliases.insert(alias, signals.iter().map(|wanted| wanted.signal).collect());
            }
        }
        let missing = self.wanted.iter().find(|wanted| payload.metric(&wanted.name).is_none());
        wrong = missing.map(|wanted| wanted.missing(payload)).or(wrong);
        birth.lacking = wrong.is_some();
        self.birth = Some(birth);
        self.news(wrong.map_or(What::Born(seen), What::Lacks))
    }

    /// The values that data carry; none where something in them is not known.
    fn read(&self, birth: &Birth, payload: &Payload) -> Option<Vec<Seen>> {
        let mut seen = Vec::new();
        for metric in &payload.metrics {
            let by_alias = metric.alias.and_then(|alias| birth.aliases.get(&alias));
            let by_name =
                || self.wanted.iter().filter(|wanted| wanted.is(metric)).map(|wanted| wanted.signal);
            let signals = match (by_alias, &metric.name) {
                (Some(signals), _) => signals.clone(),
                (None, Some(_)) => by_name().collect(),
                (None, None) => return None,
            };
            if metric.is_historical.unwrap_or(false) {
                continue;
            }
            for signal in signals {
                let datatype = metric.datatype.or(birth.datatypes.get(&signal).copied());
                seen.push(seen_of(signal, metric, datatype, payload));
            }
        }
        Some(seen)
    }
}

impl Wanted {
    fn is(&self, metric: &Metric) -> bool {
        metric.name.as_deref() == Some(&self.name)
    }

    /// What is wrong, where the unit is not the mapping's.
    fn wrong_unit(&self, metric: &Metric) -> Option<String> {
        let wanted = self.unit.as_deref()?;
        let there = metric.property("engUnit").and_then(|unit| unit.text.as_deref()).unwrap_or("no unit");
        let signal = self.signal.name();
        (there != wanted).then(|| {
            format!("{signal} is mapped to {:?}, which is in {there}; the mapping says {wanted:?}", self.name)
        })
    }

    fn missing(&self, payload: &Payload) -> String {
        let mut names: Vec<_> = payload
            .metrics
            .iter()
            .filter_map(|metric| metric.name.as_deref())
            .take(NAMES_SHOWN + 1)
            .collect();
        if names.len() > NAMES_SHOWN {
            names[NAMES_SHOWN] = "...";
        }
        let (signal, names) = (self.signal.name(), names.join(", "));
        format!("{signal} is mapped to {:?}, which the birth does not have; it has {names}", self.name)
    }
}

fn seen_of(signal: Signal, metric: &Metric, datatype: Option<u32>, payload: &Payload) -> Seen {
    let at_ms = metric.timestamp.or(payload.timestamp_ms).and_then(|at_ms| i64::try_from(at_ms).ok());
    Seen { signal, at_ms, value: Value::of(metric, datatype) }
}

impl Node {
    /// An edge node of which nothing is known, with the machines behind it.
    pub fn new(places: Vec<Place>) -> Self {
        Self { places, next_seq: None, session: None, died: None, wants: None, asked: None }
    }

    /// The line to the broker was cut: whatever came meanwhile was missed, so a rebirth is asked.
    pub fn rejoin(&mut self) {
        self.next_seq = None;
        self.places.iter_mut().for_each(|place| place.birth = None);
        self.wants = Some("the agent has joined");
        self.asked = self.asked.map(|(at, _)| (at, 0));
    }

    /// Why a rebirth is to be asked now; it counts as asked. A request may be lost, so it is made again until
    /// a birth comes.
    pub fn ask(&mut self, now: Instant) -> Option<&'static str> {
        let asks = self.asked.map_or(0, |(_, asks)| asks);
        let due = self.asked.is_none_or(|(at, _)| now.saturating_duration_since(at) >= delay(asks));
        let why = self.wants.filter(|_| due)?;
        self.asked = Some((now, asks + 1));
        Some(why)
    }

    /// Takes a message in.
    pub fn take(&mut self, topic: &Topic<'_>, payload: &Payload) -> Vec<News> {
        match (topic.kind, topic.device) {
            (Kind::Command, _) => Vec::new(),
            (Kind::Birth, None) => self.node_born(payload),
            (Kind::Death, None) => self.node_died(payload),
            (kind, device) => match self.follow(payload.seq) {
                Err(news) => news,
                Ok(()) => self.take_next(kind, device, payload),
            },
        }
    }

    fn take_next(&mut self, kind: Kind, device: Option<&str>, payload: &Payload) -> Vec<News> {
        let mut news = Vec::new();
        for place in self.places.iter_mut().filter(|place| place.is(device)) {
            match kind {
                Kind::Birth => news.push(place.born(payload)),
                Kind::Death => {
                    place.birth = None;
                    news.push(place.news(What::Died("the edge node says that the device is gone")));
                }
                Kind::Command => {}
                Kind::Data => match &place.birth {
                    None => self.wants = Some("data of a device before its birth"),
                    Some(birth) if birth.lacking => {}
                    Some(birth) => match place.read(birth, payload) {
                        Some(seen) => news.push(place.news(What::Said(seen))),
                        None => {
                            let why = "data under an alias that no birth gave";
                            self.wants = Some(why);
                            place.birth = None;
                            news.push(place.news(What::Doubted(Some(why))));
                        }
                    },
                },
            }
        }
        news
    }

    fn node_born(&mut self, payload: &Payload) -> Vec<News> {
        let session = session_of(payload);
        if session.is_some() && session == self.died {
            self.died = None;
            return self.doubt("a birth after the death of its session");
        }
        let same = self.next_seq.is_some() && session == self.session;
        let missed = if same { None } else { Some("the edge node began anew") };
        let mut news = self.doubt_all(missed);
        self.session = session;
        self.next_seq = Some(payload.seq.unwrap_or(0) as u8).map(|seq| seq.wrapping_add(1));
        (self.wants, self.asked) = (None, self.asked.map(|(at, _)| (at, 0)));
        let own = self.places.iter_mut().filter(|place| place.is(None));
        news.extend(own.map(|place| place.born(payload)));
        news
    }

    fn node_died(&mut self, payload: &Payload) -> Vec<News> {
        let session = session_of(payload);
        self.died = session.or(self.died);
        if session.is_some() && self.session.is_some() && session != self.session {
            return Vec::new();
        }
        (self.next_seq, self.wants) = (None, None);
        let why = "the edge node is gone";
        let gone = self.places.iter_mut().map(|place| {
            place.birth = None;
            place.news(What::Died(why))
        });
        gone.collect()
    }

    /// Whether the message is the next one of a node that was born; otherwise, what that means. A message
    /// without a number is taken for the next: some writers leave out a 0.
    fn follow(&mut self, seq: Option<u64>) -> Result<(), Vec<News>> {
        let Some(next) = self.next_seq else {
            self.wants = Some("a message before the node's birth");
            return Err(Vec::new());
        };
        if seq.is_some_and(|seq| seq != u64::from(next)) {
            return Err(self.doubt("messages of the edge node were lost"));
        }
        self.next_seq = Some(next.wrapping_add(1));
        Ok(())
    }

    /// Nothing is known until the next birth, which is asked for.
    fn doubt(&mut self, why: &'static str) -> Vec<News> {
        self.next_seq = None;
        self.wants = Some(why);
        self.doubt_all(Some(why))
    }

    fn doubt_all(&mut self, missed: Option<&'static str>) -> Vec<News> {
        let born = self.places.iter_mut().filter(|place| place.birth.is_some());
        let doubted = born.map(|place| {
            place.birth = None;
            place.news(What::Doubted(missed))
        });
        doubted.collect()
    }
}

/// The number of the node's session with the broker.
fn session_of(payload: &Payload) -> Option<u64> {
    payload.metric("bdSeq").and_then(Metric::whole)
}

fn delay(asks: u32) -> Duration {
    REBIRTH_EVERY * (1 << asks.saturating_sub(1).min(REBIRTH_DOUBLED_MAX))
}

#[cfg(test)]
mod tests {
    use super::super::payload::{Content, UINT64};
    use super::*;
    use crate::adapter::mapping::SignalFile;
    use proptest::prelude::*;

    const INT32: u32 = 3;

    fn node() -> Node {
        let table = |source: &str| -> SignalTable { SignalFile::Source(source.to_owned()).into() };
        let place = |machine, device: Option<&str>| {
            let metrics = vec![(Signal::State, table("State")), (Signal::PartCount, table("Parts"))];
            Place::new(machine, device.map(str::to_owned), metrics)
        };
        Node::new(vec![place(0, Some("mill")), place(1, Some("lathe")), place(2, None)])
    }

    fn payload(seq: Option<u64>, metrics: Vec<Metric>) -> Payload {
        Payload { timestamp_ms: Some(7), seq, metrics }
    }

    fn number(name: Option<&str>, alias: Option<u64>, value: u32) -> Metric {
        let name = name.map(str::to_owned);
        Metric { name, alias, content: Some(Content::Int(value)), ..Metric::default() }
    }

    /// A birth's metrics, with aliases from a number on.
    fn all(alias: u64, session: Option<u64>) -> Vec<Metric> {
        let session = session.map(|session| Metric::named("bdSeq", UINT64, Content::Long(session)));
        let mut state = number(Some("State"), Some(alias), 1);
        state.datatype = Some(INT32);
        let rest =
            [state, number(Some("Parts"), Some(alias + 1), 0), number(Some("Other"), Some(alias + 2), 0)];
        session.into_iter().chain(rest).collect()
    }

    fn take(node: &mut Node, kind: Kind, device: Option<&str>, payload: &Payload) -> Vec<(usize, What)> {
        let topic = Topic { group: "g", kind, node: "n", device };
        node.take(&topic, payload).into_iter().map(|News { machine, what }| (machine, what)).collect()
    }

    fn born(node: &mut Node, session: u64) {
        let news = take(node, Kind::Birth, None, &payload(Some(0), all(0, Some(session))));
        assert!(matches!(news.last(), Some((2, What::Born(_)))), "{news:?}");
        let news = take(node, Kind::Birth, Some("mill"), &payload(Some(1), all(10, None)));
        assert!(matches!(&news[..], [(0, What::Born(seen))] if seen.len() == 2), "{news:?}");
        assert_eq!(node.wants, None);
    }

    fn state(value: f64) -> What {
        What::Said(vec![Seen { signal: Signal::State, at_ms: Some(7), value: Value::Number(value) }])
    }

    #[test]
    fn topics_are_of_the_scheme_or_none() {
        let parse = |topic| Topic::parse(topic).map(|topic| (topic.kind, topic.node, topic.device));
        assert_eq!(parse("spBv1.0/g/NBIRTH/n"), Some((Kind::Birth, "n", None)));
        assert_eq!(parse("spBv1.0/g/DDATA/n/d"), Some((Kind::Data, "n", Some("d"))));
        for wrong in [
            "",
            "spBv1.0",
            "spBv1.0/STATE/host",
            "spBv1.0/g/NDATA/n/d",
            "spBv1.0/g/DDATA/n",
            "spBv1.0/g/DDATA/n/d/e",
            "spBv1.0/g/XDATA/n/d",
            "spBv1.0/g/NFOO/n",
            "spBv1.0/g/\u{e9}DATA/n",
            "spAv1.0/g/NDATA/n",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn data_by_alias_has_the_name_and_the_data_type_of_the_birth() {
        let mut node = node();
        born(&mut node, 5);
        let data = payload(Some(2), vec![number(None, Some(10), u32::MAX), number(None, Some(12), 9)]);
        assert_eq!(take(&mut node, Kind::Data, Some("mill"), &data), [(0, state(-1.0))]);
        let data = payload(Some(3), vec![number(Some("State"), None, 2)]);
        assert_eq!(take(&mut node, Kind::Data, Some("mill"), &data), [(0, state(2.0))]);
        let late = Metric { is_historical: Some(true), ..number(None, Some(10), 3) };
        let data = payload(Some(4), vec![late]);
        assert_eq!(take(&mut node, Kind::Data, Some("mill"), &data), [(0, What::Said(vec![]))]);
        assert_eq!(node.wants, None);
    }

    #[test]
    fn the_sequence_goes_round_and_a_hole_in_it_is_doubt_until_the_next_birth() {
        let mut node = node();
        born(&mut node, 5);
        for seq in (2..=255).chain(0..=3) {
            let news = take(
                &mut node,
                Kind::Data,
                Some("mill"),
                &payload(Some(seq), vec![number(None, Some(10), 2)]),
            );
            assert_eq!(news, [(0, state(2.0))], "{seq}");
        }
        let data = payload(Some(5), vec![number(None, Some(10), 1)]);
        let missed = What::Doubted(Some("messages of the edge node were lost"));
        assert_eq!(take(&mut node, Kind::Data, Some("mill"), &data), [(0, missed.clone()), (2, missed)]);
        assert!(take(&mut node, Kind::Data, Some("mill"), &payload(Some(6), data.metrics)).is_empty());
        assert!(node.wants.is_some());
        born(&mut node, 5);
    }

    #[test]
    fn a_rebirth_of_the_same_session_misses_nothing_and_another_session_does() {
        let mut node = node();
        born(&mut node, 5);
        for (session, missed) in [(5, None), (6, Some("the edge node began anew"))] {
            let news = take(&mut node, Kind::Birth, None, &payload(Some(0), all(0, Some(session))));
            let doubted = What::Doubted(missed);
            assert_eq!(news[..2], [(0, doubted.clone()), (2, doubted)]);
            let early = payload(Some(1), vec![number(None, Some(10), 2)]);
            assert!(
                take(&mut node, Kind::Data, Some("mill"), &early).is_empty(),
                "the device is not born anew"
            );
            take(&mut node, Kind::Birth, Some("mill"), &payload(Some(2), all(10, None)));
        }
    }

    #[test]
    fn a_death_counts_for_its_own_session_only() {
        let mut node = node();
        born(&mut node, 5);
        let death = |session| payload(None, vec![Metric::named("bdSeq", UINT64, Content::Long(session))]);
        assert!(take(&mut node, Kind::Death, None, &death(4)).is_empty());
        let data = payload(Some(2), vec![number(None, Some(10), 2)]);
        assert_eq!(take(&mut node, Kind::Data, Some("mill"), &data), [(0, state(2.0))]);
        let news = take(&mut node, Kind::Death, None, &death(5));
        assert!(news.len() == 3 && news.iter().all(|(_, what)| matches!(what, What::Died(_))), "{news:?}");
        // A birth that its death has overtaken is believed only when it is repeated.
        let birth = payload(Some(0), all(0, Some(5)));
        assert_eq!(take(&mut node, Kind::Birth, None, &birth), []);
        assert!(node.ask(Instant::now()).is_some());
        born(&mut node, 5);
        assert_eq!(take(&mut node, Kind::Death, None, &payload(None, Vec::new())).len(), 3);
    }

    #[test]
    fn what_is_unknown_or_too_early_makes_the_device_doubtful_and_not_its_neighbours() {
        let mut node = node();
        assert!(take(&mut node, Kind::Data, None, &payload(Some(9), all(0, None))).is_empty());
        assert!(node.wants.is_some());
        born(&mut node, 5);
        let stranger = payload(Some(2), vec![number(None, Some(99), 2)]);
        let news = take(&mut node, Kind::Data, Some("mill"), &stranger);
        assert_eq!(news, [(0, What::Doubted(Some("data under an alias that no birth gave")))]);
        assert!(node.wants.take().is_some());
        let early = payload(Some(3), vec![number(Some("State"), None, 2)]);
        assert!(take(&mut node, Kind::Data, Some("lathe"), &early).is_empty());
        assert!(node.wants.take().is_some());
        let own = payload(Some(4), vec![number(None, Some(0), 2)]);
        assert_eq!(take(&mut node, Kind::Data, None, &own), [(2, state(2.0))]);
        let other = payload(Some(5), vec![number(None, Some(99), 2)]);
        assert!(take(&mut node, Kind::Data, Some("nobody of ours"), &other).is_empty());
        assert_eq!(node.wants, None);
    }

    #[test]
    fn a_birth_without_what_is_mapped_names_what_is_there() {
        let mut node = node();
        let metrics = vec![number(Some("Status"), Some(1), 1), number(Some("Parts"), Some(2), 1)];
        let news = take(&mut node, Kind::Birth, None, &payload(Some(0), metrics));
        let words = "state is mapped to \"State\", which the birth does not have; it has Status, Parts";
        assert_eq!(news, [(2, What::Lacks(words.to_owned()))]);
        assert!(
            take(&mut node, Kind::Data, None, &payload(Some(1), vec![number(None, Some(9), 1)])).is_empty()
        );
        assert_eq!(node.wants, None);
    }

    #[test]
    fn rebirths_are_asked_seldom_and_ever_more_seldom() {
        let mut node = node();
        let start = Instant::now();
        let mut asked = Vec::new();
        node.rejoin();
        for second in 0..1_000 {
            asked.extend(node.ask(start + Duration::from_secs(second)).map(|_| second));
        }
        assert_eq!(asked, [0, 5, 15, 35, 75, 155, 315, 635, 955]);
        node.rejoin();
        assert!(node.ask(start + Duration::from_secs(1_000)).is_some(), "a new line begins anew");
        born(&mut node, 5);
        assert!(node.ask(start + Duration::from_secs(2_000)).is_none());
        node.doubt("test");
        assert!(node.ask(start + Duration::from_secs(1_004)).is_none());
        assert!(node.ask(start + Duration::from_secs(1_005)).is_some());
    }

    fn any_metric() -> impl Strategy<Value = Metric> {
        let name = proptest::option::of(prop_oneof![
            Just("State".to_owned()),
            Just("Parts".to_owned()),
            Just("bdSeq".to_owned()),
            "[a-z]{0,3}"
        ]);
        (name, proptest::option::of(0..4_u64), 0..4_u64, proptest::option::of(0..14_u32), any::<bool>())
            .prop_map(|(name, alias, value, datatype, is_historical)| Metric {
                name,
                alias,
                datatype,
                is_historical: Some(is_historical),
                content: Some(Content::Long(value)),
                ..Metric::default()
            })
    }

    proptest! {
        /// Whatever comes: nothing is said of a machine that was not born, or not since it was in doubt or
        /// died; and a rebirth is asked at most once in five seconds.
        #[test]
        fn nothing_is_said_without_a_birth_and_no_storm_of_rebirths_is_asked(
            messages in proptest::collection::vec(
                (
                    (0..5_u8, 0..4_usize, any::<bool>()),
                    proptest::option::of(0..4_u64),
                    proptest::collection::vec(any_metric(), 0..5),
                    0..4_u64,
                ),
                0..60,
            )
        ) {
            let mut node = node();
            let mut born = [false; 3];
            let (mut now, mut asked_at) = (Instant::now(), None);
            for ((kind, device, whole), seq, metrics, seconds) in messages {
                let kind = [Kind::Birth, Kind::Death, Kind::Data, Kind::Data, Kind::Command][usize::from(kind)];
                let device = [None, Some("mill"), Some("lathe"), Some("other")][device];
                let metrics = if whole && kind == Kind::Birth { all(0, seq) } else { metrics };
                for (machine, what) in take(&mut node, kind, device, &payload(seq, metrics)) {
                    match what {
                        What::Said(_) => prop_assert!(born[machine]),
                        What::Born(_) => born[machine] = true,
                        What::Lacks(_) | What::Doubted(_) | What::Died(_) => born[machine] = false,
                    }
                }
                now += Duration::from_secs(seconds);
                if node.ask(now).is_some() {
                    prop_assert!(asked_at.is_none_or(|at| now - at >= REBIRTH_EVERY));
                    asked_at = Some(now);
                }
            }
        }
    }
}
