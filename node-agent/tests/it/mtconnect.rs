//! The MTConnect adapter against the replay agent over HTTP, with days recorded at NIST; and against
//! servers that misbehave.

use crate::support::plant::Plant;
use flate2::read::GzDecoder;
use millpool_node_agent::adapter::Time;
use millpool_node_agent::adapter::history::Rules;
use millpool_node_agent::adapter::mapping::SignalFile;
use millpool_node_agent::adapter::mtconnect::{self, Options, Signal, document, signals};
use millpool_node_agent::adapter::word::{Word, WordError};
use millpool_node_agent::dispatch::Dispatch;
use millpool_node_agent::ground::Ground;
use millpool_node_agent::replay::{self, Replay};
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{AgentEvent, DispatchItem, DispatchList, MachineState};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const GF: &str = "GFAgie01-20161006-20161007.shdr.txt.gz";
const MAZAK: &str = "Mazak03-20161220-20161221.shdr.txt.gz";

fn data(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/nist").join(name)).unwrap()
}

fn unzipped(name: &str) -> String {
    let mut text = String::new();
    GzDecoder::new(data(name).as_slice()).read_to_string(&mut text).unwrap();
    text
}

fn options(address: SocketAddr, device: &str) -> Options {
    Options {
        url: format!("http://{address}"),
        device: Some(device.to_owned()),
        heartbeat_ms: 250,
        interval_ms: 5,
        time: Time::Source,
        signals: BTreeMap::new(),
        conditions: None,
        rules: Rules::default(),
    }
}

/// A replay agent on a port of its own.
struct Served {
    replay: Replay,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

async fn serve(recording: &[u8], options: replay::Options) -> Served {
    let devices = unzipped("smstestbed_Devices.xml.gz");
    let replay = Replay::new(&devices, recording, options).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = replay.router();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Served { replay, address, serving }
}

fn plant(dir: &Path, options: Options) -> Plant {
    let client = mtconnect::client().unwrap();
    Plant::start(dir, |shop, stop| mtconnect::run("m".to_owned(), options, client, shop, stop))
}

/// (from, state), stretches without length left out.
type Stretches = Vec<(i64, MachineState)>;

fn stretches(changes: impl Iterator<Item = (i64, MachineState)>) -> Stretches {
    let mut stretches: Stretches = Vec::new();
    for (at_ms, state) in changes {
        if stretches.last().is_some_and(|(from_ms, _)| *from_ms == at_ms) {
            stretches.pop();
        }
        if stretches.last().is_none_or(|(_, last)| *last != state) {
            stretches.push((at_ms, state));
        }
    }
    stretches
}

fn told(events: &[AgentEvent]) -> Stretches {
    stretches(events.iter().filter_map(|event| match &event.what {
        Some(What::StateChanged(changed)) => Some((event.at_ms, changed.state())),
        _ => None,
    }))
}

/// The state as shopfloor practice has it, from names as they stand in the recording; written anew here, so
/// that the adapter is not compared with itself.
fn state_of(values: &BTreeMap<String, String>, faults: bool) -> MachineState {
    let value = |name: &str| values.get(name).map_or("UNAVAILABLE", String::as_str);
    let execution = value("execution");
    if value("avail") == "UNAVAILABLE" {
        MachineState::Unknown
    } else if value("power") == "OFF" {
        MachineState::Off
    } else if execution == "UNAVAILABLE" {
        MachineState::Unknown
    } else if value("estop") == "TRIGGERED" || faults {
        MachineState::Blocked
    } else {
        match execution {
            "ACTIVE" if value("mode") == "AUTOMATIC" => MachineState::Producing,
            "ACTIVE" if value("mode") == "UNAVAILABLE" => MachineState::Unknown,
            "ACTIVE" => MachineState::Setup,
            "INTERRUPTED" | "FEED_HOLD" | "PROGRAM_STOPPED" | "OPTIONAL_STOP" => MachineState::Held,
            "READY" | "STOPPED" | "PROGRAM_COMPLETED" => MachineState::Idle,
            other => panic!("{other}"),
        }
    }
}

fn ms(stamp: &str) -> i64 {
    stamp.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// The state changes of a recording, straight from its lines.
fn recorded(shdr: &str, conditions: &[&str]) -> Stretches {
    let mut values = BTreeMap::new();
    let mut standing: BTreeSet<(String, String)> = BTreeSet::new();
    let mut changes = Vec::new();
    let lines: Vec<_> = shdr.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let fields: Vec<_> = line.split('|').collect();
        if conditions.contains(&fields[1]) {
            let (level, code) = (fields[2].to_ascii_lowercase(), fields[3]);
            if level == "fault" {
                standing.insert((fields[1].to_owned(), code.to_owned()));
            } else if code.is_empty() {
                standing.retain(|(item, _)| item != fields[1]);
            } else {
                standing.remove(&(fields[1].to_owned(), code.to_owned()));
            }
        } else {
            for pair in fields[1..].chunks_exact(2) {
                values.insert(pair[0].to_owned(), pair[1].to_owned());
            }
        }
        let instant = ms(fields[0]);
        let more = lines.get(at + 1).is_some_and(|next| ms(next.split('|').next().unwrap()) == instant);
        if !more {
            changes.push((instant, state_of(&values, !standing.is_empty())));
        }
    }
    stretches(changes.into_iter())
}

/// The state changes of a day as NIST's intervals have them, which know no conditions.
fn intervals(name: &str) -> Stretches {
    let text = unzipped(name);
    let rows = text.lines().skip(1).map(|row| {
        let fields: Vec<_> = row.split(',').collect();
        let names = ["avail", "mode", "execution", "estop"];
        let values =
            names.iter().zip(&fields[2..]).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        (ms(fields[0]), state_of(&values.collect(), false))
    });
    stretches(rows)
}

/// Both from the first instant that both know, and the first stretch's beginning left out: the adapter
/// begins with a current document, which is as old as it is.
fn assert_same(told: &Stretches, expected: &Stretches, what: &str) {
    let from_ms = told[1].0;
    let told: Vec<_> = told.iter().filter(|(at_ms, _)| *at_ms >= from_ms).collect();
    let expected: Vec<_> = expected.iter().filter(|(at_ms, _)| *at_ms >= from_ms).collect();
    for (at, (told, expected)) in told.iter().zip(&expected).enumerate() {
        assert_eq!(told, expected, "{what}: change {at}");
    }
    assert_eq!(told.len(), expected.len(), "{what}");
    println!("{what}: {} state changes are the same", told.len());
}

const GF_CONDITIONS: [&str; 9] =
    ["system", "servo", "comms", "pneumatic", "hydraulic", "logic", "motion", "cnc_temp", "none"];

async fn play(recording: &str, device: &str, speed: f64, conditions: Option<Vec<String>>) -> Vec<AgentEvent> {
    let options_replay = replay::Options { speed, ..replay::Options::new(device) };
    let served = serve(&data(recording), options_replay).await;
    let dir = tempfile::tempdir().unwrap();
    let plant = plant(dir.path(), Options { conditions, ..options(served.address, device) });
    plant.until("the first document", |events| !events.is_empty()).await;
    served.replay.feed().await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let events = plant.events().await;
    let report = plant.health.report().machines["m"].clone();
    assert_eq!(report.adapter_state, "streaming", "{report:?}");
    plant.stop().await;
    served.serving.abort();
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_day_gives_the_states_that_its_lines_give() {
    let events = play(GF, "GFAgie01", 20_000.0, None).await;
    let told_states = told(&events);
    assert_same(&told_states, &recorded(&unzipped(GF), &GF_CONDITIONS), "GFAgie01");
    let blocked = told_states.iter().filter(|(_, state)| *state == MachineState::Blocked).count();
    assert!(blocked > 0, "the day has a fault");
    assert!(
        !events.iter().any(|event| matches!(event.what, Some(What::EvidenceGap(_)))),
        "nothing was missed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_days_give_the_states_of_the_intervals_that_nist_derived() {
    let none = || Some(Vec::new());
    let (gf, mazak) =
        tokio::join!(play(GF, "GFAgie01", 20_000.0, none()), play(MAZAK, "Mazak03", 5_000.0, none()));
    assert_same(&told(&gf), &intervals("state_intervals_GFAgie01-day.csv.gz"), "GFAgie01");
    assert_same(&told(&mazak), &intervals("state_intervals_Mazak03-day.csv.gz"), "Mazak03");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn activity_is_bound_to_the_item_at_hand() {
    let served =
        serve(&data(MAZAK), replay::Options { speed: 5_000.0, ..replay::Options::new("Mazak03") }).await;
    let dir = tempfile::tempdir().unwrap();
    let start = ms("2016-12-20T16:20:00Z") / 1000;
    let item = |booking: &str, start_s, run_s| DispatchItem {
        machine_id: "m".into(),
        booking_id: booking.into(),
        start_s,
        end_s: start_s + i64::from(run_s),
        run_s,
        quantity: 1,
        ..DispatchItem::default()
    };
    let items = vec![item("later", start + 36_000, 600), item("now", start, 1800)];
    let list = DispatchList { plant_id: "plant".into(), revision: 1, items };
    Dispatch::open(dir.path(), "plant", &Ground::Machine).unwrap().keep(list, 0).await.unwrap();
    let plant = plant(dir.path(), options(served.address, "Mazak03"));
    plant.until("the first document", |events| !events.is_empty()).await;
    served.replay.feed().await;
    // The recording ends before a quarter of an hour has passed; its clock goes on.
    let is_finished = |event: &AgentEvent| matches!(event.what, Some(What::OperationFinished(_)));
    let events = plant.until("finished", |events| events.iter().any(is_finished)).await;
    let mut seen = Vec::new();
    for event in &events {
        match &event.what {
            Some(What::OperationStarted(started)) => seen.push((event.at_ms, started.booking_id.clone())),
            Some(What::OperationFinished(done)) => {
                assert_eq!((done.pieces_good, done.energy_measured), (1, false));
                assert!((900..1600 * 60).contains(&done.measured_s) && done.energy_wh > 1000, "{done:?}");
                seen.push((event.at_ms, format!("{} done", done.booking_id)));
            }
            _ => {}
        }
    }
    // First ACTIVE at or after 16:20, and the last one; the 40 minutes of INTERRUPTED between, and three
    // drop-outs of the line, do not end the job.
    let expected = [
        (ms("2016-12-20T16:22:36.515Z"), "now".to_owned()),
        (ms("2016-12-20T17:50:35.115Z"), "now done".to_owned()),
    ];
    assert_eq!(seen, expected);
    assert_eq!(plant.dispatch.revision(), 1);
    plant.stop().await;
    served.serving.abort();
}

fn gaps(events: &[AgentEvent]) -> Vec<String> {
    let each = events.iter().filter_map(|event| match &event.what {
        Some(What::EvidenceGap(gap)) => Some(gap.reason.clone()),
        _ => None,
    });
    each.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_instance_is_probed_again_and_leaves_a_gap() {
    let served =
        serve(&data(GF), replay::Options { speed: 2_000.0, ..replay::Options::new("GFAgie01") }).await;
    let dir = tempfile::tempdir().unwrap();
    let plant = plant(dir.path(), options(served.address, "GFAgie01"));
    let feeding = tokio::spawn({
        let replay = served.replay.clone();
        async move { replay.feed().await }
    });
    plant.until("some states", |events| told(events).len() > 5).await;
    served.replay.restart();
    plant.until("a gap", |events| gaps(events).iter().any(|why| why.contains("restarted"))).await;
    let before = plant.events().await.len();
    plant.until("more states", |events| events.len() > before + 3).await;
    feeding.abort();
    plant.stop().await;
    served.serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_too_long_is_out_of_range_and_leaves_a_gap_while_a_short_absence_is_made_up() {
    for (buffer, out_of_range) in [(100_000, false), (500, true)] {
        let day = replay::Options { speed: 6_000.0, buffer, ..replay::Options::new("GFAgie01") };
        let served = serve(&data(GF), day).await;
        let dir = tempfile::tempdir().unwrap();
        let first = plant(dir.path(), options(served.address, "GFAgie01"));
        let replay = served.replay.clone();
        let feeding = tokio::spawn(async move { replay.feed().await });
        first.until("some states", |events| told(events).len() > 20).await;
        first.stop().await;
        // The agent is away while the machine goes on.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let again = plant(dir.path(), options(served.address, "GFAgie01"));
        feeding.await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        let events = again.events().await;
        let reasons = gaps(&events);
        assert!(!reasons.is_empty());
        assert!(reasons.iter().all(|why| why.contains("OUT_OF_RANGE") == out_of_range), "{reasons:?}");
        if !out_of_range {
            assert_eq!(reasons.len(), 1, "{reasons:?}");
            assert_same(&told(&events), &recorded(&unzipped(GF), &GF_CONDITIONS), "with an absence");
        }
        again.stop().await;
        served.serving.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_line_makes_the_state_unknown_and_leaves_a_gap_when_it_is_back() {
    let served = serve(&data(GF), replay::Options { speed: 500.0, ..replay::Options::new("GFAgie01") }).await;
    let dir = tempfile::tempdir().unwrap();
    let plant = plant(dir.path(), Options { heartbeat_ms: 100, ..options(served.address, "GFAgie01") });
    let replay = served.replay.clone();
    let feeding = tokio::spawn(async move { replay.feed().await });
    plant
        .until("a state", |events| told(events).iter().any(|(_, state)| *state != MachineState::Unknown))
        .await;
    assert_eq!(
        plant.say("m", Word::Up).await,
        Err(WordError::NotDown),
        "a word is heard while a stream is read"
    );
    // The server dies, with its connections.
    served.serving.abort();
    let _ = served.serving.await;
    served.replay.restart();
    let is_lost = |plant: &Plant| plant.health.report().machines["m"].adapter_state != "streaming";
    while !is_lost(&plant) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    plant
        .until("unknown", |events| {
            told(events).last().is_some_and(|(_, state)| *state == MachineState::Unknown)
        })
        .await;
    let listener = TcpListener::bind(served.address).await.unwrap();
    let router = served.replay.router();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    plant.until("a gap", |events| !gaps(events).is_empty()).await;
    plant
        .until("a state again", |events| {
            told(events).last().is_some_and(|(_, state)| *state != MachineState::Unknown)
        })
        .await;
    feeding.abort();
    plant.stop().await;
    serving.abort();
}

/// What a server does to whoever connects.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Closes,
    Garbage,
    NotXml,
    HugeHead,
    HugeBody,
    CutsMidway,
    Endless,
    NeverAnswers,
    WrongXml,
    HugePart,
    Drips,
}

/// A server that answers `probe` and `current` well where that is what it takes to get to the stream, and
/// the rest in its manner.
async fn bad_server(manner: Manner) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let devices = unzipped("smstestbed_Devices.xml.gz");
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let devices = devices.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 2000];
                let read = socket.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let _ = misbehave(&mut socket, &request, manner, &devices).await;
            });
        }
    });
    address
}

async fn misbehave(
    socket: &mut tokio::net::TcpStream,
    request: &str,
    manner: Manner,
    devices: &str,
) -> std::io::Result<()> {
    let xml = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let stream_head =
        "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=b\r\nConnection: close\r\n\r\n";
    let header =
        r#"<MTConnectStreams><Header instanceId="1" firstSequence="1" nextSequence="1"/></MTConnectStreams>"#;
    let in_stream = matches!(manner, Manner::HugePart | Manner::Drips | Manner::CutsMidway);
    if in_stream && request.contains("/probe") {
        return socket.write_all(xml(devices).as_bytes()).await;
    }
    if in_stream && request.contains("/current") {
        return socket.write_all(xml(header).as_bytes()).await;
    }
    match manner {
        Manner::Closes => Ok(()),
        Manner::Garbage => socket.write_all(&[0xff, 0x00, 0x13, 0x37, b'\n', b'\n']).await,
        Manner::NotXml => socket.write_all(xml("<<<>>>&&&").as_bytes()).await,
        Manner::WrongXml => socket.write_all(xml("<html><body/></html>").as_bytes()).await,
        Manner::HugeHead => {
            socket.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                socket.write_all(format!("X-Long: {}\r\n", "x".repeat(60_000)).as_bytes()).await?;
            }
        }
        Manner::HugeBody => {
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n<a>").await
        }
        Manner::Endless => {
            socket.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
            loop {
                socket.write_all(&[b'x'; 65_536]).await?;
            }
        }
        Manner::NeverAnswers => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(())
        }
        Manner::CutsMidway => {
            socket.write_all(stream_head.as_bytes()).await?;
            socket.write_all(b"--b\r\nContent-length: 500\r\n\r\n<MTConnectStr").await
        }
        Manner::HugePart => {
            socket.write_all(stream_head.as_bytes()).await?;
            socket.write_all(b"--b\r\nContent-length: 4000000000\r\n\r\n").await
        }
        Manner::Drips => {
            socket.write_all(stream_head.as_bytes()).await?;
            loop {
                socket.write_all(b"-").await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_misbehave_are_refused_and_tried_again() {
    let manners = [
        Manner::Closes,
        Manner::Garbage,
        Manner::NotXml,
        Manner::HugeHead,
        Manner::HugeBody,
        Manner::CutsMidway,
        Manner::Endless,
        Manner::WrongXml,
        Manner::HugePart,
        Manner::Drips,
        Manner::NeverAnswers,
    ];
    let mut plants = Vec::new();
    for manner in manners {
        let dir = tempfile::tempdir().unwrap();
        let address = bad_server(manner).await;
        plants.push((manner, plant(dir.path(), options(address, "GFAgie01")), dir));
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(8);
    for (manner, plant, _dir) in plants {
        loop {
            assert!(!plant.running.is_finished(), "{manner:?}");
            let report = plant.health.report().machines.get("m").cloned().unwrap_or_default();
            if let Some(trouble) = report.trouble {
                println!("{manner:?}: {trouble}");
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{manner:?}: no trouble: {report:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        plant.stop().await;
    }
}

#[tokio::test]
async fn a_device_or_item_that_is_not_there_is_named_with_what_is() {
    let served = serve(&data(GF), replay::Options::new("GFAgie01")).await;
    let wrong_device = options(served.address, "GFAgie99");
    let table = SignalFile::Source("counter".to_owned()).into();
    let wrong_item =
        Options { signals: [(Signal::PartCount, table)].into(), ..options(served.address, "GFAgie01") };
    for (options, expected) in [
        (wrong_device, "device \"GFAgie99\" is not there; the MTConnect agent has GFAgie01, Mazak01"),
        (
            wrong_item,
            "part_count is mapped to \"counter\", which the device does not have; it has avail, estop",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let plant = plant(dir.path(), options);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        let trouble = loop {
            let report = plant.health.report().machines.get("m").cloned().unwrap_or_default();
            if let Some(trouble) = report.trouble {
                break trouble;
            }
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(trouble.starts_with(expected), "{trouble}");
        plant.stop().await;
    }
    served.serving.abort();
}

/// Which data items stand for which signals, on the models of many makers, as somebody who reads the models would
/// say. A model without an execution is refused with what it has.
#[test]
fn each_model_is_read_with_its_own_signals() {
    let models = |file: &str| {
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(file)).unwrap();
        let mut text = String::new();
        GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
        document::devices(&text).unwrap()
    };
    let described = |file: &str, name: &str| {
        let device = models(file).into_iter().find(|device| device.name == name).unwrap();
        match signals::resolve(&device, &BTreeMap::new(), None) {
            Ok(mapping) => mapping.describe(),
            Err(refused) => refused.to_string(),
        }
    };
    let expected = [
        (
            "haas",
            "Haas_1",
            "part_count=PartCount availability=avail mode=c1 program=c2 execution=c3 emergency_stop=estop 2 conditions",
        ),
        (
            "fanuc",
            "Fanuc-4Axis",
            "availability=avail load=c4 mode=cn3 program=cn5 execution=cn6 emergency_stop=estop 18 conditions",
        ),
        (
            "SimpleDevice",
            "SimpleCnc",
            "execution=a01c7f30 part_count=d2e9e4a0 availability=d5b078a0 mode=if36ff60 program=k8dd9030 load=r1841b70 emergency_stop=x7ca94e0 6 conditions",
        ),
        (
            "SimpleDevice",
            "SampleDevice2",
            "the device has no data item of type EXECUTION; map `execution` to one of avail, yef53bc0, p5c01a20",
        ),
        (
            "data_set",
            "LinuxCNC",
            "the device has no data item of type EXECUTION; map `execution` to one of alarm, d_asset_chg, d_asset_rem, Sspeed, Smode, vars, coils, vars2, mode, line, program, wpo, power",
        ),
    ];
    let nist = "smstestbed_Devices";
    let of_nist = [
        (
            "GFAgie01",
            "availability=dtop_1 emergency_stop=dtop_2 execution=path_basic_2 mode=path_basic_3 program=path_basic_4 8 conditions",
        ),
        // Its B axis tilts; the spindle is on C.
        (
            "Mazak01",
            "load=C_1 emergency_stop=controller_4 availability=dtop_1 power_state=electric_1 program=path_1 execution=path_13 mode=path_14 part_count=path_6 21 conditions",
        ),
        (
            "Mazak03",
            "load=S_3 availability=dtop_1 power_state=electric_2 execution=path_10 mode=path_11 program=path_3 part_count=path_96 25 conditions",
        ),
        (
            "Hurco04",
            "emergency_stop=controller_1 availability=dtop_1 program=path_2 part_count=path_4 execution=path_5 0 conditions",
        ),
    ];
    for (file, name, words) in expected {
        assert_eq!(described(&format!("cppagent/{file}.xml.gz"), name), words);
    }
    for (name, words) in of_nist {
        let described = described(&format!("nist/{nist}.xml.gz"), name);
        assert_eq!(described.replace(&format!("{name}-"), ""), words);
    }
}
