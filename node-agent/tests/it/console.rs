//! The operator's console: a person's word reaches the coordinator through a cut line and a restart, and
//! every kind of adapter takes it in, also while it has no line to its machine.

use crate::support::plant::Plant;
use crate::support::{Cable, Coordinator};
use millpool_node_agent::adapter::history::Rules;
use millpool_node_agent::adapter::opcua::{self, CHANNEL_LIFETIME, Security, Server, pki::Pki};
use millpool_node_agent::adapter::word::{Word, WordError};
use millpool_node_agent::adapter::{Identity, Time, mtconnect, simulated, sparkplug};
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{DispatchItem, DispatchList};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const BINARY: &str = env!("CARGO_BIN_EXE_millpool-node-agent");

/// A running agent, and the console before it.
struct Shift {
    config: PathBuf,
    agent: Option<Child>,
}

impl Shift {
    fn new(dir: &Path, coordinator: std::net::SocketAddr) -> Self {
        let config = dir.join("agent.toml");
        let text = format!(
            "data_dir = {dir:?}\n[coordinator]\naddresses = [\"{coordinator}\"]\ninsecure_dev = true\n\
             [[agent]]\nplant = \"plant\"\nid = \"agent\"\nsimulated_machines = [\"sim-1\"]\n\
             [[agent.machine]]\nid = \"lathe-3\"\nadapter = \"manual\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut shift = Self { config, agent: None };
        shift.start();
        shift
    }

    fn start(&mut self) {
        let mut command = Command::new(BINARY);
        command.arg("--config").arg(&self.config).args(["--log", "error"]);
        self.agent = Some(command.spawn().unwrap());
        let asked = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            self.say(&["list"]).0 == 0
        });
        assert!(asked, "no console within ten seconds: {:?}", self.say(&["list"]));
    }

    /// Kills it, as a power cut does.
    fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// One command; its exit code, and what it said.
    fn say(&self, words: &[&str]) -> (i32, String) {
        self.type_in(words, "")
    }

    fn type_in(&self, words: &[&str], typed: &str) -> (i32, String) {
        let mut command = Command::new(BINARY);
        command.arg("console").arg("--config").arg(&self.config).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut console = command.spawn().unwrap();
        // Whoever reads nothing may have gone already.
        let _ = console.stdin.take().unwrap().write_all(typed.as_bytes());
        let output = console.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }
}

impl Drop for Shift {
    fn drop(&mut self) {
        if self.agent.is_some() {
            self.kill();
        }
    }
}

fn item(machine: &str, booking: &str) -> DispatchItem {
    let now_s = jiff::Timestamp::now().as_second();
    DispatchItem {
        machine_id: machine.into(),
        booking_id: booking.into(),
        start_s: now_s - 600,
        end_s: now_s + 3_000,
        run_s: 3_600,
        quantity: 12,
        ..DispatchItem::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shift_at_a_machine_that_reports_nothing_is_told_once_through_a_cut_line_and_a_power_cut() {
    let coordinator = Coordinator::new();
    let stop = CancellationToken::new();
    let cable = Cable::to(coordinator.serve(&stop).await).await;
    let items = vec![item("lathe-3", "a"), item("lathe-3", "b")];
    let list = DispatchList { plant_id: "plant".into(), revision: 5, items };
    coordinator.manner(|manner| manner.list = Some(list));
    let dir = tempfile::tempdir().unwrap();
    let mut shift = Shift::new(dir.path(), cable.address);
    coordinator.until("the list is kept", |durable| durable.kept == [5]).await;

    let (code, listed) = shift.say(&["list", "lathe-3"]);
    assert_eq!(code, 0, "{listed}");
    for words in ["plant: it is", "list 5 came", "connected to", "lathe-3  unknown  (manual", "12 pcs"] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    let socket = dir.path().join("plant/console.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);

    cable.unplug(true);
    let told = [
        (&["start", "lathe-3", "a", "--setup", "--at", "-5m"][..], 0, "a/0 is started"),
        (&["start", "lathe-3"], 0, "a/0 is set up, and cuts"),
        (&["start", "lathe-3", "b"], 1, "a/0 is at hand; finish or scrap it first"),
        (&["start", "sim-1"], 1, "this machine is simulated"),
        (&["up", "lathe-4"], 1, "machine = \"lathe-4\": accepted is one of lathe-3, sim-1"),
        (&["count", "lathe-3", "13"], 1, "good = 13: accepted is at most 12"),
        (&["consent", "lathe-3", "--for", "5m"], 1, "the machine is not remotely operated"),
        (&["consent", "lathe-3", "--for", "soon"], 1, "accepted is a span, such as 10m"),
        (&["consent", "lathe-3", "a"], 1, "operation = a: accepted is BOOKING/OPERATION"),
        (&["withdraw", "lathe-3"], 1, "nobody had agreed to anything"),
        (&["finish", "lathe-3", "--at", "+5m"], 1, "at = "),
        (&["finish", "lathe-3", "--at", "late"], 1, "accepted is a time of day (14:30)"),
        (&["count", "lathe-3", "4"], 0, "4 good so far"),
    ];
    for (words, code, answer) in told {
        let said = shift.say(words);
        assert!(said.0 == code && said.1.contains(answer), "{words:?}: {said:?}");
    }
    shift.kill();
    let (code, said) = shift.say(&["list"]);
    assert_eq!(code, 69, "{said}");
    shift.start();
    let typed = "finish lathe-3 --good 11 --scrapped 1 --energy-wh 4200\n\
                 down lathe-3 \"the pump's seal\" --until +90m\n\nfly lathe-3\nup lathe-3\nquit\nup lathe-3\n";
    let (code, said) = shift.type_in(&[], typed);
    assert_eq!(code, 0, "{said}");
    for words in ["a/0 is finished", "the machine is down", "unrecognized", "takes work again"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    cable.unplug(false);
    let up = |durable: &crate::support::Durable| {
        durable.applied.values().flatten().any(|event| matches!(event.what, Some(What::MachineUp(_))))
    };
    coordinator.until("the shift is told", up).await;

    let events: Vec<_> =
        coordinator.events().into_iter().filter(|event| event.machine_id == "lathe-3").collect();
    let words = events.iter().filter_map(|event| match event.what.as_ref()? {
        What::OperationStarted(started) => Some(format!("started {}", started.booking_id)),
        What::OperationProgress(progress) => Some(format!("progress {}", progress.pieces_good)),
        What::OperationFinished(done) => Some(format!(
            "finished {} and {} in {} min with {} Wh {}",
            done.pieces_good,
            done.pieces_scrapped,
            done.measured_s / 60,
            done.energy_wh,
            done.energy_measured
        )),
        What::MachineDown(down) => Some(format!("down: {}", down.reason)),
        What::MachineUp(_) => Some("up".to_owned()),
        What::StateChanged(changed) => Some(format!("{:?}", changed.state())),
        _ => None,
    });
    let expected = [
        "started a",
        "Setup",
        "Producing",
        "progress 4",
        "finished 11 and 1 in 5 min with 4200 Wh true",
        "Idle",
        "down: the pump's seal",
        "Blocked",
        "up",
        "Idle",
    ];
    assert_eq!(words.collect::<Vec<_>>(), expected, "{events:#?}");
    assert_eq!(coordinator.durable.lock().unwrap().wrongs, Vec::<String>::new());
}

fn start(operation: &str) -> Word {
    Word::Start { operation: operation.parse().ok(), setup: false, at_ms: None }
}

const FINISH: Word = Word::Finish { good: None, scrapped: 0, energy_wh: None, at_ms: None };

/// Says to an adapter what happens at its machine, and looks whether it is told.
async fn shift_at(plant: Plant, what: &str) {
    let list = DispatchList { plant_id: "plant".into(), revision: 1, items: vec![item("m", "a")] };
    plant.dispatch.keep(list, 0).await.unwrap();
    assert_eq!(plant.say("m", FINISH).await, Err(WordError::NothingAtHand), "{what}");
    assert_eq!(plant.say("m", start("a/0")).await.unwrap(), "a/0 is started", "{what}");
    assert_eq!(plant.report("m").operation.as_deref(), Some("a/0"), "{what}");
    let down = Word::Down { reason: "crash".to_owned(), until_ms: None };
    assert_eq!(plant.say("m", down).await.unwrap(), "the machine is down", "{what}");
    assert_eq!(plant.say("m", Word::Up).await.unwrap(), "the machine takes work again", "{what}");
    assert_eq!(plant.say("m", FINISH).await.unwrap(), "a/0 is finished", "{what}");
    let events = plant.events().await;
    let finished = |event: &&millpool_proto::v1::AgentEvent| matches!(&event.what, Some(What::OperationFinished(done)) if done.pieces_good == 12);
    assert_eq!(events.iter().filter(finished).count(), 1, "{what}: {events:#?}");
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_adapter_takes_a_word_while_it_has_no_line_to_its_machine() {
    let dir = |name: &str| tempfile::Builder::new().prefix(name).tempdir().unwrap();
    let (rules, time) = (Rules::default(), Time::Source);
    let mtconnect_dir = dir("mtconnect");
    let options = mtconnect::Options {
        url: "http://127.0.0.1:1".to_owned(),
        device: None,
        heartbeat_ms: 1_000,
        interval_ms: 50,
        time,
        signals: BTreeMap::new(),
        conditions: None,
        rules,
    };
    let client = mtconnect::client().unwrap();
    let plant = Plant::start(mtconnect_dir.path(), |shop, stop| {
        mtconnect::run("m".to_owned(), options, client, shop, stop)
    });
    shift_at(plant, "mtconnect").await;

    let opcua_dir = dir("opcua");
    let pki = Pki::open(&opcua_dir.path().join("opcua"), "plant").unwrap();
    let server = Server {
        url: "opc.tcp://127.0.0.1:1".to_owned(),
        security: Security::None,
        identity: Identity::Anonymous,
        interval: Duration::from_millis(50),
        channel_lifetime: CHANNEL_LIFETIME,
    };
    let options = opcua::MachineOptions { machine: None, time, signals: BTreeMap::new(), rules };
    let machines = vec![("m".to_owned(), options)];
    let plant = Plant::start(opcua_dir.path(), |shop, stop| opcua::run(server, machines, pki, shop, stop));
    shift_at(plant, "opcua").await;

    let sparkplug_dir = dir("sparkplug");
    let broker = sparkplug::Broker {
        host: "127.0.0.1".into(),
        port: 1,
        tls: None,
        identity: Identity::Anonymous,
        client_id: "millpool-plant".into(),
    };
    let options = sparkplug::MachineOptions { address: None, time, signals: BTreeMap::new(), rules };
    let machines = vec![("m".to_owned(), options)];
    let plant = Plant::start(sparkplug_dir.path(), |shop, stop| sparkplug::run(broker, machines, shop, stop));
    shift_at(plant, "sparkplug").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_machine_says_that_it_heeds_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let plant = Plant::start(dir.path(), |shop, stop| {
        simulated::run("m".to_owned(), simulated::Options::default(), shop, stop)
    });
    assert_eq!(plant.say("m", Word::Up).await, Err(WordError::Simulated));
    plant.stop().await;
}
