//! What a plant's agent reads: machines' documents, streams and messages, its own outbox, its configuration.

use crate::{Parts, folder, put_bytes};
use bytes::Bytes;
use millpool_node_agent::adapter::mtconnect::document::{self, Document};
use millpool_node_agent::adapter::mtconnect::multipart::Multipart;
use millpool_node_agent::adapter::mtconnect::watch::Watch;
use millpool_node_agent::adapter::mtconnect::{Options, signals};
use millpool_node_agent::adapter::opcua::jobs::{self, Order};
use millpool_node_agent::adapter::shop::Watched as _;
use millpool_node_agent::adapter::sparkplug::host::{Node, Place, Topic, What as Said};
use millpool_node_agent::adapter::sparkplug::payload::{Content, Metric, Payload, UINT64};
use millpool_node_agent::adapter::sparkplug::watch::Watch as SparkplugWatch;
use millpool_node_agent::adapter::{Happened, Time};
use millpool_node_agent::agent::Adapter;
use millpool_node_agent::config::{File, Overrides, resolve};
use millpool_node_agent::outbox::log::Log;
use millpool_node_agent::outbox::record::{Entry, Mark};
use millpool_node_agent::remote::{Act, Asked};
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{AgentEvent, RemoteAsked, RemoteCommand, RemoteSession, StateChanged};
use prost::Message as _;
use std::collections::BTreeMap;

/// A machine's model.
const DEVICES: &str = r#"<?xml version="1.0"?>
<MTConnectDevices xmlns="urn:mtconnect.org:MTConnectDevices:1.3"><Header instanceId="7"/><Devices>
<Device id="d1" name="Mill" uuid="u-1"><Description manufacturer="M" model="X"/><DataItems>
<DataItem id="avail" type="AVAILABILITY" category="EVENT"/></DataItems><Components><Controller id="c1"><DataItems>
<DataItem id="exec" type="EXECUTION" category="EVENT"/><DataItem id="mode" type="CONTROLLER_MODE" category="EVENT"/>
<DataItem id="prog" type="PROGRAM" category="EVENT"/><DataItem id="count" type="PART_COUNT" category="EVENT"/>
<DataItem id="w" type="WATTAGE" category="SAMPLE" units="WATT"/>
<DataItem id="sys" name="system" type="SYSTEM" category="CONDITION"/></DataItems></Controller></Components></Device>
</Devices></MTConnectDevices>"#;

/// What it tells first.
const CURRENT: &str = r#"<MTConnectStreams>
<Header instanceId="7" firstSequence="1" nextSequence="9" creationTime="2020-01-01T00:00:00Z"/><Streams>
<Availability dataItemId="avail" timestamp="2020-01-01T00:00:00Z" sequence="1">AVAILABLE</Availability>
<Execution dataItemId="exec" timestamp="2020-01-01T00:00:01.5Z" sequence="4">READY</Execution>
<ControllerMode dataItemId="mode" timestamp="2020-01-01T00:00:01Z" sequence="5">AUTOMATIC</ControllerMode>
<PartCount dataItemId="count" timestamp="2020-01-01T00:00:01Z" sequence="6">3</PartCount>
<Wattage dataItemId="w" timestamp="2020-01-01T00:00:01Z" sequence="7">4200.5</Wattage>
</Streams></MTConnectStreams>"#;

/// What it tells then.
const SAMPLE: &str = r#"<MTConnectStreams>
<Header instanceId="7" firstSequence="1" nextSequence="14" creationTime="2020-01-01T00:01:00Z"/><Streams>
<Execution dataItemId="exec" timestamp="2020-01-01T00:00:20Z" sequence="9">ACTIVE</Execution>
<Program dataItemId="prog" timestamp="2020-01-01T00:00:20Z" sequence="10">O1 &amp; O2</Program>
<Fault dataItemId="sys" timestamp="2020-01-01T00:00:30Z" sequence="11" nativeCode="70"><![CDATA[FEED < 0]]></Fault>
<PartCount dataItemId="count" timestamp="2020-01-01T00:00:40Z" sequence="12">4</PartCount>
<Execution dataItemId="exec" timestamp="2020-01-01T00:00:50Z" sequence="13">UNAVAILABLE</Execution>
</Streams></MTConnectStreams>"#;

/// A configuration with a bit of everything.
const CONFIG: &str = include_str!("../../node-agent/tests/data/good.toml");

/// When documents arrive, ms since the Unix epoch.
const ARRIVAL_MS: i64 = 1_577_836_900_000;

/// How the agent reads the machine of the configuration above, with signals as the model has them.
fn options() -> Options {
    let file = toml::from_str::<File>(CONFIG).expect("a configuration");
    let config = resolve(file, &Overrides::default()).expect("one that can be used");
    let machines = config.agents.into_iter().flat_map(|agent| agent.machines);
    let read = machines.into_iter().find_map(|machine| match machine.adapter {
        Adapter::Mtconnect(options) => Some(Options { signals: BTreeMap::new(), ..*options }),
        Adapter::Simulated(_) | Adapter::Manual(_) | Adapter::Opcua(_) | Adapter::Sparkplug(_) => None,
    });
    read.expect("a machine that is read by MTConnect")
}

/// A model, what the machine tells first, and what it tells then: a watch takes all of it, and remembers it.
pub fn mtconnect(input: &[u8]) {
    let mut parts = Parts(input);
    let mut next = || String::from_utf8_lossy(parts.bytes()).into_owned();
    let devices = document::devices(&next()).unwrap_or_default();
    let mapped = devices.iter().find_map(|device| signals::resolve(device, &BTreeMap::new(), None).ok());
    let mapping = mapped.unwrap_or_default();
    let options = options();
    let mut watch = Watch::new(options.clone(), None);
    watch.set_mapping(mapping.clone());
    if let Ok(Document::Streams(header, seen)) = document::streams(&next(), |id| mapping.wants(id)) {
        watch.current(header, &seen, ARRIVAL_MS, "it was asked anew");
    }
    for arrival_ms in [ARRIVAL_MS, ARRIVAL_MS + 60_000] {
        if let Ok(Document::Streams(header, seen)) = document::streams(&next(), |id| mapping.wants(id)) {
            watch.sample(header, &seen, arrival_ms);
        }
        watch.history_mut().lose();
    }
    let memory = watch.memory();
    let again = Watch::new(options, Some(&memory));
    assert_eq!(again.memory(), memory, "a watch remembers what it remembered");
}

/// A machine's documents.
pub fn documents() -> Vec<Vec<u8>> {
    let seed = |all: &[&str]| {
        let mut input = Vec::new();
        all.iter().for_each(|document| put_bytes(&mut input, document.as_bytes()));
        input
    };
    let error =
        "<MTConnectError><Errors><Error errorCode=\"OUT_OF_RANGE\">gone</Error></Errors></MTConnectError>";
    vec![
        seed(&[DEVICES, CURRENT, SAMPLE, SAMPLE]),
        seed(&[DEVICES, CURRENT, error]),
        seed(&[DEVICES, SAMPLE]),
    ]
}

/// A content type and a stream, in chunks: the parts are the same however the stream was cut.
pub fn multipart(input: &[u8]) {
    let mut parts = Parts(input);
    let content_type = String::from_utf8_lossy(parts.bytes()).into_owned();
    let step = usize::from(parts.byte()) + 1;
    let Ok(whole) = Multipart::new(&content_type) else { return };
    let stream = parts.0;
    let read = |mut reader: Multipart, step: usize| {
        let mut found: Vec<Bytes> = Vec::new();
        for chunk in stream.chunks(step) {
            reader.feed(chunk);
            loop {
                match reader.part() {
                    Ok(Some(part)) => found.push(part),
                    Ok(None) => break,
                    Err(_) => return None,
                }
            }
        }
        Some(found)
    };
    let at_once = read(whole, stream.len().max(1));
    let in_steps = read(Multipart::new(&content_type).expect("it was one before"), step);
    // In small steps a limit may be passed that was not passed at once, as more was there to be searched.
    if let (Some(at_once), Some(in_steps)) = (at_once, in_steps) {
        assert_eq!(at_once, in_steps, "the parts depend on how the stream was cut");
    }
}

/// Streams as agents send them.
pub fn streams() -> Vec<Vec<u8>> {
    let seed = |content_type: &str, step: u8, stream: &str| {
        let mut input = Vec::new();
        put_bytes(&mut input, content_type.as_bytes());
        input.push(step);
        input.extend(stream.as_bytes());
        input
    };
    let sized = "--b\r\nContent-type: text/xml\r\nContent-length: 5\r\n\r\nhello\r\n--b\r\nContent-length: 2\r\n\r\nyo\r\n";
    let unsized_ = "--b\r\nContent-type: text/xml\r\n\r\nhello\r\n--b\r\n\r\nagain\r\n--b--\r\n";
    vec![
        seed("multipart/x-mixed-replace;boundary=b", 3, sized),
        seed("multipart/x-mixed-replace; boundary=\"b\"", 0, unsized_),
        seed("text/xml", 9, sized),
    ]
}

/// Topics and payloads of an edge node, in some order: nothing is said of a machine before it was born, its time
/// never goes back, and it is remembered as it is.
pub fn sparkplug(input: &[u8]) {
    let config = resolve(toml::from_str(CONFIG).expect("a configuration"), &Overrides::default());
    let machines = config.expect("one that can be used").agents.into_iter().flat_map(|agent| agent.machines);
    let read = machines.filter_map(|machine| match machine.adapter {
        Adapter::Sparkplug(options) => Some(options.machine),
        _ => None,
    });
    let options = read.into_iter().next().expect("a machine that is read by Sparkplug");
    let address = options.address.expect("a device");
    let place = Place::new(0, address.device, options.signals.clone().into_iter().collect());
    let mut node = Node::new(vec![place]);
    let mut watch = SparkplugWatch::new(options.rules, &options.signals, None);
    let (mut born, mut now_ms, mut told_ms) = (false, ARRIVAL_MS, 0);
    let mut parts = Parts(input);
    while !parts.is_over() {
        now_ms += i64::from(parts.byte()) * 100;
        let topic = String::from_utf8_lossy(parts.bytes()).into_owned();
        let (Some(topic), Ok(payload)) = (Topic::parse(&topic), Payload::read(parts.bytes().to_vec().into()))
        else {
            continue;
        };
        for news in node.take(&topic, &payload) {
            let happened: Vec<Happened> = match news.what {
                Said::Born(seen) => {
                    born = true;
                    watch.born(seen, now_ms, Some("fuzz"), Time::Source)
                }
                Said::Said(seen) => {
                    assert!(born, "data of what was not born");
                    watch.tell(seen, now_ms)
                }
                Said::Died(_) | Said::Lacks(_) => {
                    born = false;
                    watch.history_mut().lose()
                }
                Said::Doubted(_) => {
                    born = false;
                    Vec::new()
                }
            };
            let states = happened.iter().filter(|happened| matches!(happened.what, What::StateChanged(_)));
            for state in states {
                assert!((told_ms..=now_ms).contains(&state.at_ms), "{state:?} after {told_ms}, at {now_ms}");
                told_ms = state.at_ms;
            }
        }
    }
    let memory = watch.memory();
    let again = SparkplugWatch::new(options.rules, &options.signals, Some(&memory));
    assert_eq!(again.memory(), memory, "a watch remembers what it remembered");
}

/// A job of a machine's own list.
pub fn job(input: &[u8]) {
    if let Some(job) = jobs::read(input) {
        assert!(job.id.len() <= input.len(), "more than came: {job:?}");
    }
}

/// Jobs in every state, plain and with all that may go with them.
pub fn jobs() -> Vec<Vec<u8>> {
    let (start_ms, end_ms) = (Some(ARRIVAL_MS), Some(ARRIVAL_MS + 3_600_000));
    let full = Order {
        id: "b000042/0".to_owned(),
        description: "a bracket".to_owned(),
        program: "P4711".to_owned(),
        start_ms,
        end_ms,
    };
    let bare = Order {
        id: "x".to_owned(),
        description: String::new(),
        program: String::new(),
        start_ms: None,
        end_ms: None,
    };
    let state = |order: &Order, state: u8| {
        let mut body = order.encode();
        // One state: a path of no elements, an empty text, the number.
        body.extend([1, 0, 0, 0, 255, 255, 255, 255, 0, state, 0, 0, 0]);
        body
    };
    (0..8).flat_map(|number| [state(&full, number), state(&bare, number)]).collect()
}

/// A remote command as it comes: what is understood names a job of its own booking, and a file in no other folder.
pub fn remote(input: &[u8]) {
    let Ok(asked) = RemoteAsked::decode(input) else { return };
    let booking = asked.session.as_ref().map(|session| session.booking_id.clone()).unwrap_or_default();
    let Some(asked) = Asked::read(asked, |_| None) else { return };
    assert!(asked.job().starts_with(&booking), "{asked:?}");
    assert_eq!(asked.deadline(), None, "nobody knows how old it is");
    if let Act::Put(program, _) | Act::Release(program) | Act::Discard(program) = &asked.act {
        let path = std::path::Path::new("/nc").join(&program.name);
        assert_eq!(path.parent(), Some(std::path::Path::new("/nc")), "{asked:?}");
        assert!(!program.name.starts_with('.'), "{asked:?}");
    }
}

/// Every verb, with all that may go with it.
pub fn commands() -> Vec<Vec<u8>> {
    let session = RemoteSession {
        epoch: 7,
        machine_id: "m".to_owned(),
        booking_id: "b000042".to_owned(),
        operation: 1,
        holder: "bo".to_owned(),
        closes_at_s: ARRIVAL_MS / 1000,
    };
    let command = |verb: i32| RemoteCommand {
        nonce: 3,
        verb,
        by: "buyer:bo".to_owned(),
        asked_at_s: ARRIVAL_MS / 1000,
        valid_s: 5,
        program: "bracket.nc".to_owned(),
        program_sha256: "0f".repeat(32),
        program_bytes: 4096,
        consent_s: 600,
        ..RemoteCommand::default()
    };
    let asked =
        |verb| RemoteAsked { session: Some(session.clone()), command: Some(command(verb)), echo_ms: 1 };
    (0..=16).map(|verb| asked(verb).encode_to_vec()).collect()
}

/// An edge node's life: births, data by alias, deaths.
pub fn messages() -> Vec<Vec<u8>> {
    let metric = |name: Option<&str>, alias: u64, content: Content| Metric {
        name: name.map(str::to_owned),
        alias: Some(alias),
        timestamp: Some(ARRIVAL_MS as u64 + 50),
        content: Some(content),
        ..Metric::default()
    };
    let message = |kind: &str, seq: u64, metrics: Vec<Metric>| {
        let mut input = vec![1];
        put_bytes(&mut input, format!("spBv1.0/shop/{kind}").as_bytes());
        let payload = Payload { timestamp_ms: Some(ARRIVAL_MS as u64), seq: Some(seq), metrics };
        put_bytes(&mut input, &payload.write());
        input
    };
    let session = |number| vec![Metric::named("bdSeq", UINT64, Content::Long(number))];
    let birth = vec![metric(Some("State"), 1, Content::Int(1)), metric(Some("Parts"), 2, Content::Long(7))];
    let life = [
        message("NBIRTH/line1", 0, session(1)),
        message("DBIRTH/line1/mill", 1, birth.clone()),
        message("DDATA/line1/mill", 2, vec![metric(None, 1, Content::Int(2))]),
        message("DDATA/line1/mill", 3, vec![metric(None, 2, Content::Double(8.0))]),
        message("DDEATH/line1/mill", 4, Vec::new()),
        message("DBIRTH/line1/mill", 5, birth.clone()),
        message("NDEATH/line1", 0, session(0)),
        message("DDATA/line1/mill", 6, vec![metric(None, 1, Content::Text("2".to_owned()))]),
        message("NDEATH/line1", 0, session(1)),
    ];
    let lossy = [
        message("DDATA/line1/mill", 9, vec![metric(None, 1, Content::Int(2))]),
        message("NBIRTH/line1", 0, session(2)),
        message("DBIRTH/line1/mill", 1, birth),
        message("DDATA/line1/mill", 3, vec![metric(None, 1, Content::Int(2))]),
        message("NBIRTH/line1", 0, session(2)),
    ];
    vec![life.concat(), lossy.concat()]
}

fn events() -> Vec<Entry> {
    let event = |seq: u64| AgentEvent {
        seq,
        machine_id: "m1".to_owned(),
        at_ms: ARRIVAL_MS,
        what: Some(What::StateChanged(StateChanged::default())),
    };
    let mark = Mark { key: "m1".to_owned(), state: Bytes::from_static(b"here") };
    (1..4).map(|seq| Entry { events: vec![event(seq)], mark: Some(mark.clone()) }).collect()
}

/// Segments of an outbox: it is opened, or it is told what is wrong with it; and what was opened takes more.
pub fn outbox(input: &[u8]) {
    let folder = folder();
    let mut parts = Parts(input);
    for number in 1..4 {
        if !parts.is_over() {
            let segment = folder.path().join(format!("segment-{number:010}"));
            std::fs::write(segment, parts.bytes()).expect("a file in a folder of our own");
        }
    }
    let new_id = || "new".to_owned();
    let Ok(mut log) = Log::open(folder.path(), new_id) else { return };
    let before = log.last_seq();
    let read = log.read(log.first_seq(), 1000);
    // What it has read when it was opened it can read again.
    read.expect("what was opened can be read");
    if log.commit(events()).is_ok() {
        let (id, last) = (log.outbox_id().to_owned(), log.last_seq());
        drop(log);
        let again = Log::open(folder.path(), new_id).expect("what was written can be opened");
        assert_eq!((again.outbox_id(), again.last_seq()), (id.as_str(), last));
        assert!(last >= before);
    }
}

/// An outbox with some events, and an empty one.
pub fn segments() -> Vec<Vec<u8>> {
    let folder = folder();
    let mut log = Log::open(folder.path(), || "seed".to_owned()).expect("an empty folder");
    log.commit(events()).expect("some events");
    drop(log);
    let mut input = Vec::new();
    let segment = std::fs::read(folder.path().join("segment-0000000001")).expect("the first segment");
    put_bytes(&mut input, &segment);
    vec![input, Vec::new()]
}

/// A configuration: all that is wrong is told.
pub fn config(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(file) = toml::from_str::<File>(&text) {
        drop(resolve(file, &Overrides::default()));
    }
}

/// A configuration that is good.
pub fn configs() -> Vec<Vec<u8>> {
    vec![CONFIG.into()]
}
