//! The Sparkplug adapter behind Debian's mosquitto: who joins late, deaths and births out of order, lost
//! messages, a broker that is killed, TLS and passwords, and messages that nobody meant.

use crate::support::mosquitto::{Edge, Mosquitto, now_ms, of_user, options, secured};
use crate::support::plant::{Plant, states};
use millpool_node_agent::adapter::history::Rules;
use millpool_node_agent::adapter::mapping::{SignalFile, SignalTable};
use millpool_node_agent::adapter::sparkplug::payload::{Content, Metric};
use millpool_node_agent::adapter::sparkplug::{self, Address, Broker, MachineOptions, Signal};
use millpool_node_agent::adapter::word::{Word, WordError};
use millpool_node_agent::adapter::{Identity, Time};
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{AgentEvent, DispatchItem, DispatchList, MachineState as State};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

const INT32: u32 = 3;
/// Longer than a message takes, and shorter than the agent's patience.
const MOMENT: Duration = Duration::from_millis(400);

fn broker(port: u16) -> Broker {
    Broker {
        host: "127.0.0.1".into(),
        port,
        tls: None,
        identity: Identity::Anonymous,
        client_id: "millpool-plant".into(),
    }
}

fn table(source: &str) -> SignalTable {
    let table: SignalTable = SignalFile::Source(source.to_owned()).into();
    let values = [("1", "idle"), ("2", "producing"), ("3", "setup"), ("-1", "blocked")];
    let values = values.map(|(value, state)| (value.to_owned(), state.to_owned())).into();
    SignalTable { values: if source.contains("tate") { values } else { table.values.clone() }, ..table }
}

/// A device of an edge node, or the node itself.
fn machine(node: &str, device: Option<&str>) -> MachineOptions {
    MachineOptions {
        address: Some(Address {
            group: "plant".into(),
            node: node.into(),
            device: device.map(str::to_owned),
        }),
        time: Time::Source,
        signals: [(Signal::State, table("State"))].into(),
        rules: Rules::default(),
    }
}

fn plant(dir: &Path, broker: Broker, machines: Vec<(&str, MachineOptions)>) -> Plant {
    let machines = machines.into_iter().map(|(id, options)| (id.to_owned(), options)).collect();
    Plant::start(dir, |shop, stop| sparkplug::run(broker, machines, shop, stop))
}

/// A birth's state, with an alias.
fn born(state: i32, alias: u64) -> Vec<Metric> {
    vec![Metric { alias: Some(alias), ..Metric::named("State", INT32, Content::Int(state as u32)) }]
}

/// Data under an alias only.
fn data(state: i32, alias: u64) -> Vec<Metric> {
    vec![Metric { alias: Some(alias), content: Some(Content::Int(state as u32)), ..Metric::default() }]
}

fn gaps(events: &[AgentEvent], machine: &str) -> Vec<String> {
    let reason = |event: &AgentEvent| match &event.what {
        Some(What::EvidenceGap(gap)) if event.machine_id == machine => Some(gap.reason.clone()),
        _ => None,
    };
    events.iter().filter_map(reason).collect()
}

/// Who joins late knows nothing, asks for a rebirth, and then reads data by alias: states, counters, energy,
/// the operation at hand. A device dies and comes back while the node and another device live on.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_join_and_a_device_that_dies_alone() {
    let mosquitto = Mosquitto::open().await;
    let mut edge = Edge::start("late", options("late", mosquitto.port), None).await;
    let mill = || {
        let number =
            |name: &str, alias, content| Metric { alias: Some(alias), ..Metric::named(name, INT32, content) };
        let mut metrics = born(1, 1);
        metrics.push(number("Parts", 2, Content::Int(7)));
        metrics.push(number("Meter", 3, Content::Double(100.0)));
        metrics.push(number("Program", 4, Content::Text("P1".into())));
        metrics.push(number("Spindle/Load", 5, Content::Float(12.5)));
        metrics
    };
    edge.birth(1, &[("mill", mill()), ("lathe", born(1, 11))]).await;
    tokio::time::sleep(MOMENT).await;

    let dir = tempfile::tempdir().unwrap();
    let more = [
        (Signal::PartCount, table("Parts")),
        (Signal::Energy, SignalTable { scale: 1e3, ..table("Meter") }),
        (Signal::Program, table("Program")),
        (Signal::Load, table("Spindle/Load")),
    ];
    let mut options = machine("late", Some("mill"));
    options.signals.extend(more);
    let plant = plant(
        dir.path(),
        broker(mosquitto.port),
        vec![("m", options), ("n", machine("late", Some("lathe")))],
    );
    edge.until_asked(1).await;
    edge.say("DDATA", Some("mill"), data(2, 1)).await;
    tokio::time::sleep(MOMENT).await;
    assert!(
        plant.events().await.is_empty(),
        "nothing is told of what was not born: {:#?}",
        plant.events().await
    );
    edge.birth(1, &[("mill", mill()), ("lathe", born(2, 11))]).await;
    plant.until_state("m", State::Idle).await;
    plant.until_state("n", State::Producing).await;
    assert_eq!(plant.say("n", Word::Up).await, Err(WordError::NotDown), "a word is heard while data come");

    let now_s = now_ms() as i64 / 1_000;
    let item = DispatchItem {
        machine_id: "m".into(),
        booking_id: "b".into(),
        start_s: now_s - 60,
        end_s: now_s + 600,
        run_s: 600,
        quantity: 2,
        ..DispatchItem::default()
    };
    let list = DispatchList { plant_id: "plant".into(), revision: 1, items: vec![item] };
    plant.dispatch.keep(list, 0).await.unwrap();
    for (value, state) in
        [(3, State::Setup), (99, State::Unknown), (-1, State::Blocked), (2, State::Producing)]
    {
        edge.say("DDATA", Some("mill"), data(value, 1)).await;
        plant.until_state("m", state).await;
    }
    let by_alias =
        |alias, content| vec![Metric { alias: Some(alias), content: Some(content), ..Metric::default() }];
    edge.say("DDATA", Some("mill"), by_alias(4, Content::Text("P2".into()))).await;
    plant.until_report("m", "the program", |report| report.program.as_deref() == Some("P2")).await;
    assert_eq!(plant.report("m").operation.as_deref(), Some("b/0"));
    edge.say("DDATA", Some("mill"), by_alias(3, Content::Double(102.5))).await;
    // What was counted once, and is told late, is not counted now.
    let late = Metric { is_historical: Some(true), ..by_alias(2, Content::Int(3)).remove(0) };
    edge.say("DDATA", Some("mill"), vec![late]).await;
    edge.say("DDATA", Some("mill"), by_alias(2, Content::Int(9))).await;
    let finished = |event: &AgentEvent| match &event.what {
        Some(What::OperationFinished(finished)) => Some((
            finished.booking_id.clone(),
            finished.pieces_good,
            finished.energy_wh,
            finished.energy_measured,
        )),
        _ => None,
    };
    let events = plant.until("the operation is finished", |e| e.iter().any(|e| finished(e).is_some())).await;
    assert_eq!(events.iter().find_map(finished), Some(("b".to_owned(), 2, 2_500, true)));

    edge.say("DDEATH", Some("mill"), Vec::new()).await;
    plant.until_state("m", State::Unknown).await;
    assert!(plant.report("m").trouble.is_some_and(|why| why.contains("the device is gone")));
    edge.say("DDATA", Some("lathe"), data(3, 11)).await;
    plant.until_state("n", State::Setup).await;
    edge.say("DBIRTH", Some("mill"), mill()).await;
    let events = plant.until_state("m", State::Idle).await;
    assert_eq!(gaps(&events, "m"), ["the edge node says that the device is gone"]);
    assert_eq!(states(&events, "n"), [State::Producing, State::Setup]);
    assert_eq!((gaps(&events, "n").len(), edge.asked()), (0, 1));
    plant.stop().await;
}

/// A death that comes after the next session's birth is the old session's; one that is the session's own
/// counts, whether said or left behind as a will.
#[tokio::test(flavor = "multi_thread")]
async fn deaths_out_of_order() {
    let mosquitto = Mosquitto::open().await;
    let mut edge = Edge::start("dying", options("dying", mosquitto.port), Some(6)).await;
    let dir = tempfile::tempdir().unwrap();
    let plant = plant(dir.path(), broker(mosquitto.port), vec![("m", machine("dying", Some("mill")))]);
    edge.until_asked(1).await;
    edge.birth(5, &[("mill", born(1, 1))]).await;
    plant.until_state("m", State::Idle).await;
    edge.birth(6, &[("mill", born(2, 1))]).await;
    plant.until_state("m", State::Producing).await;
    edge.death(5).await;
    edge.say("DDATA", Some("mill"), data(3, 1)).await;
    let events = plant.until_state("m", State::Setup).await;
    assert!(!states(&events, "m").contains(&State::Unknown), "an older session's death was believed");
    assert_eq!(gaps(&events, "m"), ["the edge node began anew"]);

    edge.death(6).await;
    plant.until_state("m", State::Unknown).await;
    edge.birth(6, &[("mill", born(1, 1))]).await;
    edge.until_asked(2).await;
    assert_eq!(
        plant.report("m").machine_state,
        "unknown",
        "a birth that its death has overtaken is no birth"
    );
    edge.birth(6, &[("mill", born(1, 1))]).await;
    plant.until_state("m", State::Idle).await;

    edge.vanish();
    let events = plant.until_state("m", State::Unknown).await;
    let telling = [State::Idle, State::Producing, State::Setup, State::Unknown, State::Idle, State::Unknown];
    assert_eq!(states(&events, "m"), telling);
    plant.stop().await;
}

/// A lost message, and an alias that nobody knows: until the rebirth nothing is believed, one is asked, and
/// not a storm of them. When none comes, the state is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn lost_messages_are_noticed_and_a_rebirth_is_asked_once() {
    let mosquitto = Mosquitto::open().await;
    let mut edge = Edge::start("gaps", options("gaps", mosquitto.port), None).await;
    let dir = tempfile::tempdir().unwrap();
    let machines = vec![("m", machine("gaps", Some("mill"))), ("n", machine("gaps", Some("lathe")))];
    let plant = plant(dir.path(), broker(mosquitto.port), machines);
    edge.until_asked(1).await;
    let devices = |state| [("mill", born(state, 1)), ("lathe", born(state, 11))];
    edge.birth(1, &devices(1)).await;
    plant.until_state("n", State::Idle).await;

    edge.seq += 1;
    for _ in 0..200 {
        edge.say("DDATA", Some("mill"), data(2, 1)).await;
    }
    edge.until_asked(2).await;
    assert_eq!(
        states(&plant.events().await, "m"),
        [State::Idle],
        "data after a lost message is not believed"
    );
    edge.birth(1, &devices(2)).await;
    let events = plant.until_state("m", State::Producing).await;
    assert_eq!(gaps(&events, "m"), ["messages of the edge node were lost"]);
    assert!(!states(&events, "m").contains(&State::Unknown), "a moment's doubt is not worth mentioning");
    assert_eq!(edge.asked(), 2, "two hundred messages, one request");

    edge.say("DDATA", Some("mill"), data(1, 77)).await;
    edge.say("DDATA", Some("lathe"), data(3, 11)).await;
    plant.until_state("n", State::Setup).await;
    edge.until_asked(3).await;
    let events = plant.until_state("m", State::Unknown).await;
    assert!(!states(&events, "n").contains(&State::Unknown), "its neighbour is not in doubt");
    plant
        .until_report("m", "what is awaited", |report| {
            report.trouble.as_deref() == Some("no birth of mill has come from the edge node plant/gaps")
        })
        .await;
    edge.birth(1, &devices(1)).await;
    let events = plant.until_state("m", State::Idle).await;
    assert_eq!(gaps(&events, "m")[1..], ["data under an alias that no birth gave"]);
    assert_eq!(gaps(&events, "n").len(), 1, "a rebirth of the same session misses nothing");
    plant.stop().await;
}

/// The broker is killed: what it would have told is missed, and said to be; when it is back, all goes on.
/// So it is when the agent is restarted.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_an_agent_that_is_restarted() {
    let mut mosquitto = Mosquitto::open().await;
    let mut edge = Edge::start("home", options("home", mosquitto.port), None).await;
    let dir = tempfile::tempdir().unwrap();
    let machines = || vec![("m", machine("home", None))];
    let own = |state| {
        let session = Metric::named("bdSeq", 8, Content::Long(1));
        born(state, 1).into_iter().chain([session]).collect::<Vec<_>>()
    };
    let first = plant(dir.path(), broker(mosquitto.port), machines());
    edge.until_asked(1).await;
    edge.say("NBIRTH", None, own(2)).await;
    first.until_state("m", State::Producing).await;

    mosquitto.kill();
    first.until_report("m", "the line is gone", |report| report.trouble.is_some()).await;
    mosquitto.restart().await;
    edge.until_asked(2).await;
    edge.seq = 0;
    edge.say("NBIRTH", None, own(1)).await;
    let events = first.until_state("m", State::Idle).await;
    assert_eq!(gaps(&events, "m"), ["no line to the MQTT broker"]);
    assert!(!states(&events, "m").contains(&State::Unknown), "it came back within the agent's patience");

    mosquitto.kill();
    first.until_state("m", State::Unknown).await;
    mosquitto.restart().await;
    edge.until_asked(3).await;
    edge.seq = 0;
    edge.say("NBIRTH", None, own(2)).await;
    let events = first.until_state("m", State::Producing).await;
    assert_eq!(gaps(&events, "m").len(), 2);
    edge.say("NDATA", None, data(1, 1)).await;
    first.until_state("m", State::Idle).await;
    first.stop().await;

    let again = plant(dir.path(), broker(mosquitto.port), machines());
    again.until_state("m", State::Unknown).await;
    edge.until_asked(4).await;
    edge.seq = 0;
    edge.say("NBIRTH", None, own(2)).await;
    let events = again.until_state("m", State::Producing).await;
    assert_eq!(gaps(&events, "m").len(), 3);
    again.stop().await;
}

/// Certificates, a name and a password; what does not fit is named, and another broker's machines go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_secured_line() {
    let (mosquitto, ca_pem) = Mosquitto::secured().await;
    let with = |password: &str, ca_pem: &str, client_id: &str| {
        of_user(broker(mosquitto.port), password, ca_pem, client_id)
    };
    let mut edge = Edge::start("safe", secured("safe", mosquitto.port, &ca_pem), None).await;
    let dir = tempfile::tempdir().unwrap();
    let start = |name: &str, broker: Broker| {
        plant(&dir.path().join(name), broker, vec![("m", machine("safe", Some("mill")))])
    };
    let stranger = rcgen::generate_simple_self_signed(vec!["stranger".to_owned()]).unwrap().cert.pem();
    let plain = start("plain", broker(mosquitto.port));
    let wrong = start("wrong", with("wrong", &ca_pem, "wrong"));
    let nobody = start("nobody", Broker { identity: Identity::Anonymous, ..with("", &ca_pem, "nobody") });
    let other = start("other", with("right", &stranger, "other"));
    let right = start("right", with("right", &ca_pem, "right"));
    edge.until_asked(1).await;
    edge.birth(1, &[("mill", born(1, 1))]).await;
    right.until_state("m", State::Idle).await;
    for (plant, expected) in [
        (&wrong, "the broker refuses the user \"millpool\": "),
        (&nobody, "the broker refuses anybody without a name: NotAuthorized"),
        (&other, "the certificates do not fit: "),
        (&plain, ""),
    ] {
        let is = |trouble: &str| trouble.starts_with(expected);
        plant.until_report("m", expected, |report| report.trouble.as_deref().is_some_and(is)).await;
        assert!(plant.events().await.is_empty(), "nothing is told of what is not read");
    }
    edge.say("DDATA", Some("mill"), data(2, 1)).await;
    right.until_state("m", State::Producing).await;
    for plant in [plain, wrong, nobody, other, right] {
        plant.stop().await;
    }
}

/// What the agent logs, in this process.
static LOG: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(|| {
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log: Arc<Mutex<Vec<u8>>> = Arc::default();
    let lines = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || Lines(lines.clone())).init();
    log
});

fn ignored(port: u16, why: &str) -> u64 {
    let text = crate::support::METERS.render();
    let line = format!("millpool_agent_mqtt_ignored_total{{broker=\"127.0.0.1:{port}\",why=\"{why}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

/// Noise, giants, topics that are none, and what a broker has kept: counted, named once, and the rest is read.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_meant_is_counted_and_the_rest_is_read() {
    LazyLock::force(&LOG);
    LazyLock::force(&crate::support::METERS);
    let mosquitto = Mosquitto::open().await;
    let port = mosquitto.port;
    let mut edge = Edge::start("noisy", options("noisy", port), None).await;
    // Births that are kept are not to be taken for life.
    let kept = rumqttc::PublishOptions::at_least_once().retained();
    let birth = |session| {
        let session = Metric::named("bdSeq", 8, Content::Long(session));
        let metrics = [born(2, 1), vec![session]].concat();
        sparkplug::payload::Payload { timestamp_ms: None, seq: Some(0), metrics }.write()
    };
    edge.client.publish("spBv1.0/plant/NBIRTH/noisy", birth(9), kept).await.unwrap();
    tokio::time::sleep(MOMENT).await;
    let dir = tempfile::tempdir().unwrap();
    let flat = MachineOptions {
        address: None,
        signals: [
            (Signal::State, table("topic:shop/old press/state")),
            (Signal::PartCount, table("topic:shop/old press/count")),
            (Signal::Program, table("topic:shop/old press/program")),
        ]
        .into(),
        ..machine("noisy", None)
    };
    let missing =
        MachineOptions { signals: [(Signal::State, table("State/Wrong"))].into(), ..machine("noisy", None) };
    let unit = SignalTable { unit: Some("kW".into()), ..table("State") };
    let unit = MachineOptions { signals: [(Signal::State, unit)].into(), ..machine("noisy", None) };
    let machines = vec![("m", machine("noisy", None)), ("flat", flat), ("missing", missing), ("unit", unit)];
    let plant = plant(dir.path(), broker(port), machines);
    edge.until_asked(1).await;
    tokio::time::sleep(MOMENT).await;
    assert!(plant.events().await.is_empty(), "a birth that the broker has kept was believed");

    edge.send("spBv1.0/plant/NBIRTH/noisy", birth(1)).await;
    edge.seq = 1;
    plant.until_state("m", State::Producing).await;
    for at in 0..50_u8 {
        edge.send("spBv1.0/plant/NDATA/noisy", vec![at | 0x80, 0xff, at]).await;
        edge.send("spBv1.0/plant/NDATA/noisy/none", vec![]).await;
        edge.send("spBv1.0/plant/NSONG/noisy", vec![at]).await;
    }
    edge.send("spBv1.0/plant/NDATA/noisy", [0x12, 0].repeat(20_000)).await;
    // The broker knows that the agent takes none of this size.
    edge.send("spBv1.0/plant/NDATA/noisy", vec![0x0a; 2 << 20]).await;
    edge.say("NDATA", None, data(1, 1)).await;
    plant.until_state("m", State::Idle).await;
    assert_eq!((ignored(port, "payload"), ignored(port, "topic")), (51, 100));
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    for topic in ["spBv1.0/plant/NDATA/noisy/none", "spBv1.0/plant/NSONG/noisy", "spBv1.0/plant/NDATA/noisy"]
    {
        let named = log.lines().filter(|line| line.contains(&format!("topic=\"{topic}\""))).count();
        assert_eq!(named, 1, "{topic} is named once: {log}");
    }
    let trouble = |id: &str| plant.report(id).trouble.unwrap_or_default();
    assert_eq!(
        trouble("missing"),
        "state is mapped to \"State/Wrong\", which the birth does not have; it has State, bdSeq"
    );
    assert_eq!(trouble("unit"), "state is mapped to \"State\", which is in no unit; the mapping says \"kW\"");

    edge.send("shop/old press/count", b"41".to_vec()).await;
    edge.send("shop/old press/state", b" 2\n".to_vec()).await;
    edge.send("shop/old press/program", b"0815".to_vec()).await;
    plant.until_state("flat", State::Producing).await;
    plant.until_report("flat", "the program", |report| report.program.as_deref() == Some("0815")).await;
    edge.send("shop/old press/state", vec![b'2'; 100_000]).await;
    plant.until_state("flat", State::Unknown).await;
    edge.send("shop/old press/state", b"1".to_vec()).await;
    plant.until_state("flat", State::Idle).await;
    for id in ["missing", "unit"] {
        assert!(states(&plant.events().await, id).is_empty(), "nothing is told of what is not read");
    }
    plant.stop().await;
}
