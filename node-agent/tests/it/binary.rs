//! The binary: exit codes, health, metrics, a stop on a signal, work through a cut line; and, by hand, its
//! footprint.

use crate::collector::Collector;
use crate::support::{Cable, Coordinator};
use millpool_node_agent::clock::Clock;
use millpool_node_agent::replay::{self, Replay};
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{DispatchItem, DispatchList};
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn agent(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpool-node-agent"));
    command.arg("--config").arg(config).env_remove("MILLPOOL_AGENT_TOKEN").stderr(Stdio::piped());
    command
}

fn check(text: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    agent(&path).arg("--check-config").output().unwrap()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// A running agent that is not left behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    async fn stopped(mut self) -> i32 {
        signal(&self.0, "-TERM");
        for _ in 0..500 {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not stop");
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

async fn get(port: u16, path: &str) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for _ in 0..200 {
        if let Ok(response) = client.get(format!("http://127.0.0.1:{port}/{path}")).send().await {
            return (response.status().as_u16(), response.text().await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nobody answers on port {port}");
}

fn config(
    dir: &Path,
    coordinator: SocketAddr,
    port: u16,
    clock: &str,
    machines: &[String],
) -> std::path::PathBuf {
    let path = dir.join("agent.toml");
    let text = format!(
        "data_dir = {dir:?}\n[http]\nlisten = \"127.0.0.1:{port}\"\n[log]\nformat = \"json\"\n[clock]\n{clock}\n\
         [coordinator]\naddresses = [\"{coordinator}\"]\ninsecure_dev = true\n\
         [[agent]]\nplant = \"plant\"\nid = \"agent\"\nsimulated_machines = {machines:?}\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn item(machine: &str, booking: &str, start_s: i64, run_s: u32) -> DispatchItem {
    DispatchItem {
        machine_id: machine.into(),
        booking_id: booking.into(),
        start_s,
        end_s: start_s + i64::from(run_s),
        run_s,
        quantity: 3,
        ..DispatchItem::default()
    }
}

#[test]
fn exit_codes_are_as_documented() {
    let good = "data_dir = \"x\"\n[coordinator]\naddresses = [\"127.0.0.1:1\"]\ninsecure_dev = true\n[[agent]]\nplant = \"p\"\nsimulated_machines = [\"m\"]\n";
    let checked = check(good);
    assert_eq!(checked.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("1 plants, 1 machines"));
    let bad = check(&good.replace("plant = \"p\"", "plant = \"P\""));
    assert_eq!(bad.status.code(), Some(78));
    let words = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(words.contains("agent[0].plant = \"P\": accepted is"), "{words}");
    assert_eq!(check("not toml").status.code(), Some(78));
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "127.0.0.1:1".parse().unwrap(), free_port(), "", &["m".to_owned()]);
    let outbox = dir.path().join("plant/outbox");
    std::fs::create_dir_all(&outbox).unwrap();
    std::fs::write(outbox.join("segment-0000000001"), b"rubbish").unwrap();
    std::fs::write(outbox.join("segment-0000000002"), b"rubbish").unwrap();
    let damaged = agent(&path).output().unwrap();
    assert_eq!(damaged.status.code(), Some(74), "{}", String::from_utf8_lossy(&damaged.stderr));
}

#[test]
fn the_manual_and_the_help_say_the_same_of_exit_codes() {
    let help = Command::new(env!("CARGO_BIN_EXE_millpool-node-agent")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let manual = include_str!("../../README.md");
    let rows = manual.lines().skip_while(|line| *line != "| code | means |").skip(2);
    let rows: Vec<_> = rows.take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 6);
    for row in rows {
        let [_, code, means, _] = row.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        assert!(help.contains(&format!("  {code:<3} {means}\n")), "{row} is not in {help}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plant_works_on_through_a_cut_line_and_a_restart_and_tells_it_later() {
    let coordinator = Coordinator::new();
    let stop = CancellationToken::new();
    let cable = Cable::to(coordinator.serve(&stop).await).await;
    let now_ms = Clock::default().now_ms();
    let now_s = now_ms / 1000;
    // Ten plant minutes a wall second.
    let clock = format!("scale = 600.0\nepoch = \"{now_ms}\"");
    let items = (0..6).map(|at| item("m1", &format!("b{at}"), now_s + 600 * (2 + at), 500)).collect();
    let list = DispatchList { plant_id: "plant".into(), revision: 5, items };
    coordinator.manner(|manner| manner.list = Some(list));
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let path = config(dir.path(), cable.address, port, &clock, &["m1".to_owned()]);
    let running = Running(agent(&path).spawn().unwrap());
    coordinator.until("the list is kept", |durable| durable.kept == [5]).await;
    cable.unplug(true);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let (status, health) = get(port, "health").await;
    assert_eq!(status, 503, "{health}");
    assert!(health.contains("\"waiting\""), "{health}");
    assert_eq!(running.stopped().await, 0);
    let running = Running(agent(&path).spawn().unwrap());
    tokio::time::sleep(Duration::from_millis(2500)).await;
    cable.unplug(false);
    let finished = |durable: &crate::support::Durable| {
        let events = durable.applied.values().flatten();
        events.filter(|event| matches!(event.what, Some(What::OperationFinished(_)))).count()
    };
    coordinator.until("everything is told", |durable| finished(durable) == 6).await;
    let mut told = Vec::new();
    for event in coordinator.events() {
        match event.what {
            Some(What::OperationStarted(started)) => told.push(format!("{} started", started.booking_id)),
            Some(What::OperationFinished(done)) => told.push(format!("{} finished", done.booking_id)),
            _ => {}
        }
    }
    let expected: Vec<_> =
        (0..6).flat_map(|at| [format!("b{at} started"), format!("b{at} finished")]).collect();
    assert_eq!(told, expected);
    let (status, health) = get(port, "health").await;
    assert_eq!(status, 200, "{health}");
    assert!(health.contains("\"connected\"") && health.contains("\"dispatch_revision\": 5"), "{health}");
    let (_, metrics) = get(port, "metrics").await;
    assert!(metrics.contains("millpool_agent_events_sent_total{plant=\"plant\"}"), "{metrics}");
    assert_eq!(running.stopped().await, 0);
    assert_eq!(coordinator.durable.lock().unwrap().wrongs, Vec::<String>::new());
}

/// What an agent counts reaches a collector that is named, also one that comes late and goes again, and without a
/// listener for who scrapes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_is_told_what_an_agent_counts() {
    let coordinator = Coordinator::new();
    let stop = CancellationToken::new();
    let cable = Cable::to(coordinator.serve(&stop).await).await;
    let list = |revision| DispatchList { plant_id: "plant".into(), revision, ..DispatchList::default() };
    coordinator.manner(|manner| manner.list = Some(list(5)));
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), cable.address, free_port(), "", &["m1".to_owned()]);
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let text = std::fs::read_to_string(&path).unwrap().replace("[http]\nlisten = ", "[otlp]\nevery_s = 1\n#");
    std::fs::write(&path, text).unwrap();
    let running = Running(agent(&path).args(["--otlp-endpoint", &format!("http://{at}")]).spawn().unwrap());
    coordinator.until("the list is kept", |durable| durable.kept == [5]).await;

    let collector = Collector::default();
    let (_, listening) = collector.listen(at, None).await;
    let plant = ("plant", "plant");
    let connected = |value: f64| {
        move |c: &Collector| {
            c.gauge("millpool_agent_connected", plant).filter(|connected| *connected == value)
        }
    };
    collector.until("the line", connected(1.0)).await;
    // A gauge that is set when somebody looks, though nobody scrapes.
    assert_eq!(collector.gauge("millpool_agent_dispatch_revision", plant), Some(5.0));
    let sent = collector.counter("millpool_agent_events_sent_total", plant).unwrap();
    let (counts, bounds, _) = collector.histogram("millpool_agent_append_to_send_seconds", plant).unwrap();
    assert!(sent > 0 && counts.iter().sum::<u64>() > 0 && bounds.len() == 18, "{sent}: {counts:?}");
    assert_eq!(collector.described("millpool_agent_append_to_send_seconds").0, "s");
    let named = [
        ("service.name", "millpool-node-agent"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", "plant/agent"),
    ];
    let source = named.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(collector.sources().into_iter().collect::<Vec<_>>(), [source.into()]);

    listening.stop().await;
    cable.unplug(true);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let _listening = collector.listen(at, None).await;
    collector.until("the cut line", connected(0.0)).await;
    assert!(collector.counter("millpool_agent_disconnects_total", plant).unwrap() > 0);
    assert!(collector.counter("millpool_agent_events_sent_total", plant).unwrap() >= sent);
    assert_eq!(running.stopped().await, 0);
    assert_eq!(collector.wrongs(), Vec::<String>::new());
    let strange: Vec<_> =
        collector.names().into_iter().filter(|n| collector.described(n).1.is_empty()).collect();
    assert_eq!(strange, Vec::<String>::new(), "without a meaning");
}

fn quantiles(mut latencies_ms: Vec<f64>) -> String {
    latencies_ms.sort_by(f64::total_cmp);
    let at = |share: f64| latencies_ms[((latencies_ms.len() - 1) as f64 * share) as usize];
    format!(
        "{} events, p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        latencies_ms.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    )
}

/// `cargo nextest run --release -p millpool-node-agent --run-ignored only --no-capture figures`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures, by hand"]
async fn figures_of_simulated_machines() {
    for (count, samples) in [(1, ""), (60, ""), (100, ""), (100, "samples = { keep_days = 0 }")] {
        let coordinator = Coordinator::new();
        let stop = CancellationToken::new();
        let address = coordinator.serve(&stop).await;
        let machines: Vec<_> = (0..count).map(|at| format!("m{at}")).collect();
        let now_s = Clock::default().now_ms() / 1000;
        let of = |machine: &String| {
            let machine = machine.clone();
            (0..10).map(move |at| item(&machine, &format!("{machine}-b{at}"), now_s + 3 + at * 2, 1))
        };
        let items = machines.iter().flat_map(of).collect();
        let list = DispatchList { plant_id: "plant".into(), revision: 5, items };
        coordinator.manner(|manner| manner.list = Some(list));
        let dir = tempfile::tempdir().unwrap();
        let path = config(dir.path(), address, free_port(), "", &machines);
        let text = std::fs::read_to_string(&path).unwrap() + samples;
        std::fs::write(&path, text).unwrap();
        let running = Running(agent(&path).spawn().unwrap());
        tokio::time::sleep(Duration::from_secs(24)).await;
        let late: Vec<_> = {
            let durable = coordinator.durable.lock().unwrap();
            durable.arrivals.iter().filter(|(at_ms, _)| *at_ms >= (now_s + 3) * 1000).copied().collect()
        };
        let latencies = late.iter().map(|(at_ms, seen_ms)| (seen_ms - at_ms) as f64).collect();
        println!(
            "{count} simulated machines {samples}: {} KiB resident; {}",
            running.resident_kib(),
            quantiles(latencies)
        );
        assert_eq!(running.stopped().await, 0);
    }
}

/// See above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures, by hand"]
async fn figures_of_an_mtconnect_machine() {
    let coordinator = Coordinator::new();
    let stop = CancellationToken::new();
    let address = coordinator.serve(&stop).await;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/nist");
    let mut devices = String::new();
    let zipped = std::fs::read(data.join("smstestbed_Devices.xml.gz")).unwrap();
    flate2::read::GzDecoder::new(zipped.as_slice()).read_to_string(&mut devices).unwrap();
    let recording = std::fs::read(data.join("GFAgie01-20161006-20161007.shdr.txt.gz")).unwrap();
    let now_ms = Clock::default().now_ms();
    let scale = 600.0;
    let day = replay::Options { speed: scale, start_at_ms: Some(now_ms), ..replay::Options::new("GFAgie01") };
    let replay = Replay::new(&devices, &recording, day).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = listener.local_addr().unwrap();
    let router = replay.router();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let clock = Clock::new(now_ms, now_ms, scale);
    tokio::spawn(async move { replay.feed().await });
    let dir = tempfile::tempdir().unwrap();
    let path =
        config(dir.path(), address, free_port(), &format!("scale = {scale:?}\nepoch = \"{now_ms}\""), &[]);
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str(&format!(
        "[[agent.machine]]\nid = \"m\"\nadapter = \"mtconnect\"\nmtconnect = {{ url = \"http://{source}\", device = \"GFAgie01\" }}\n"
    ));
    std::fs::write(&path, text).unwrap();
    let running = Running(agent(&path).spawn().unwrap());
    tokio::time::sleep(Duration::from_secs(40)).await;
    let arrivals = coordinator.durable.lock().unwrap().arrivals.clone();
    let late =
        arrivals.iter().skip(5).map(|(at_ms, seen_ms)| (clock.at_wall_ms(*seen_ms) - at_ms) as f64 / scale);
    println!("1 MTConnect machine: {} KiB resident; {}", running.resident_kib(), quantiles(late.collect()));
    assert_eq!(running.stopped().await, 0);
}
