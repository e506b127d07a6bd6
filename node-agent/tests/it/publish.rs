//! The plant as an edge node behind Debian's mosquitto: births, aliases and the sequence as a host needs them, rebirths, deaths
//! and wills, a broker that is killed or frozen, and commands that nobody may give.

use crate::support::mosquitto::{Mosquitto, now_ms, of_user, options, secured};
use crate::support::plant::{Plant, states};
use crate::support::{Coordinator, counterpart::free_port};
use millpool_node_agent::adapter::history::Rules;
use millpool_node_agent::adapter::mapping::{SignalFile, SignalTable};
use millpool_node_agent::adapter::sparkplug::payload::{BOOLEAN, Content, Metric, Payload, STRING};
use millpool_node_agent::adapter::sparkplug::{self, Address, Broker, MachineOptions, Signal};
use millpool_node_agent::adapter::{Identity, Time};
use millpool_node_agent::clock::Clock;
use millpool_node_agent::dispatch::Dispatch;
use millpool_node_agent::ground::Ground;
use millpool_node_agent::health::{Health, Publishing};
use millpool_node_agent::publish::{self, Options};
use millpool_proto::v1::{DispatchItem, DispatchList, MachineState as State};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, PublishOptions, QoS};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than what has changed takes to be told.
const MOMENT: Duration = Duration::from_millis(900);

/// A plant's agent, as far as it is published.
struct Site {
    /// The plant's id, its broker's port among it: meters are the process' own, whichever test asks.
    id: String,
    health: Health,
    dispatch: Dispatch,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

fn broker(port: u16) -> Broker {
    Broker {
        host: "127.0.0.1".into(),
        port,
        tls: None,
        identity: Identity::Anonymous,
        client_id: "millpool-plant-publish".into(),
    }
}

impl Site {
    fn start(dir: &Path, broker: Broker) -> Self {
        let id = format!("plant-{}", broker.port);
        let health = Health::new(&id, "agent");
        let dispatch = Dispatch::open(dir, &id, &Ground::Machine).unwrap();
        let stop = CancellationToken::new();
        let plant = publish::Plant {
            id: id.clone(),
            clock: Clock::default(),
            machines: vec!["mill".into(), "lathe".into()],
            health: health.clone(),
            kept: dispatch.watch(),
            data_dir: dir.to_owned(),
        };
        let options = Options { broker, group: "member".into(), node: "site".into() };
        let running = tokio::spawn(publish::run(options, plant, stop.clone()));
        Self { id, health, dispatch, stop, running }
    }

    fn machine(&self, id: &str, state: &str, operation: Option<&str>) {
        self.health.machine(id, |report| {
            report.there = true;
            report.machine_state = state.to_owned();
            report.operation = operation.map(str::to_owned);
        });
    }

    /// Is not seen any more.
    fn lose(&self, id: &str) {
        self.health.machine(id, |report| {
            report.there = false;
            report.machine_state = "unknown".to_owned();
        });
    }

    async fn keep(&self, revision: u64, items: Vec<DispatchItem>) {
        let list = DispatchList { plant_id: self.id.clone(), revision, items };
        self.dispatch.keep(list, 0).await.unwrap();
    }

    async fn until_publishing(&self, what: &str, is: impl Fn(&Publishing) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let publishing = self.health.report().publishing;
            if publishing.as_ref().is_some_and(&is) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{what}: {publishing:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

fn item(machine: &str, booking: &str, start_s: i64) -> DispatchItem {
    DispatchItem {
        machine_id: machine.into(),
        booking_id: booking.into(),
        operation: 1,
        start_s,
        end_s: start_s + 3_600,
        setup_family: "vice".into(),
        setup_s: 600,
        run_s: 3_000,
        quantity: 12,
        material: "6082".into(),
        frozen: booking == "b0",
        ..DispatchItem::default()
    }
}

/// A message of the edge node, as a host reads it.
#[derive(Clone, Debug)]
struct Said {
    /// Kind and device, e.g. `DDATA mill`.
    what: String,
    payload: Payload,
}

impl Said {
    fn session(&self) -> u64 {
        self.payload.metric("bdSeq").and_then(Metric::whole).unwrap()
    }
}

/// A host that keeps what the edge node says.
struct Host {
    client: AsyncClient,
    said: Arc<Mutex<Vec<Said>>>,
    running: JoinHandle<()>,
}

impl Host {
    async fn start(mut options: MqttOptions) -> Self {
        options.set_keep_alive(5);
        let (client, mut events) = AsyncClient::builder(options).capacity(100).build();
        let said: Arc<Mutex<Vec<Said>>> = Arc::default();
        let (heard, (ready, is_ready)) = (said.clone(), tokio::sync::oneshot::channel());
        let (subscriber, mut ready) = (client.clone(), Some(ready));
        let running = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        subscriber.try_subscribe("spBv1.0/member/+/site/#", QoS::AtLeastOnce).unwrap();
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        ready.take().map(|ready| ready.send(()));
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                        let parts: Vec<_> = topic.split('/').collect();
                        assert!(!publish.retain, "nothing is kept by the broker: {topic}");
                        if !parts[2].ends_with("CMD") {
                            let what = format!("{} {}", parts[2], parts.get(4).unwrap_or(&""));
                            let payload = Payload::read(publish.payload).unwrap();
                            heard.lock().unwrap().push(Said { what: what.trim().to_owned(), payload });
                        }
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        is_ready.await.unwrap();
        Self { client, said, running }
    }

    async fn open(port: u16) -> Self {
        Self::start(options(&format!("host-{}", now_ms()), port)).await
    }

    fn said(&self) -> Vec<Said> {
        self.said.lock().unwrap().clone()
    }

    /// Waits until all that was said is so, and takes it.
    async fn until(&self, what: &str, is: impl Fn(&[Said]) -> bool) -> Vec<Said> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !is(&self.said()) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "not within {PATIENCE:?}: {what}: {:#?}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        std::mem::take(&mut self.said.lock().unwrap())
    }

    async fn until_said(&self, what: &str) -> Vec<Said> {
        self.until(what, |said| said.iter().any(|said| said.what == what)).await
    }

    async fn command(&self, topic: &str, name: &str, datatype: u32, content: Content) {
        let metrics = vec![Metric::named(name, datatype, content)];
        let payload = Payload { timestamp_ms: Some(now_ms()), seq: None, metrics }.write();
        self.client
            .publish(format!("spBv1.0/member/{topic}"), payload, PublishOptions::at_most_once())
            .await
            .unwrap();
    }

    async fn ask_rebirth(&self) {
        self.command("NCMD/site", "Node Control/Rebirth", BOOLEAN, Content::Boolean(true)).await;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn whats(said: &[Said]) -> Vec<&str> {
    said.iter().map(|said| said.what.as_str()).collect()
}

/// What a host knows of the edge node: the values under each device and name, from births and data by alias, and the
/// sequence, which has to be whole.
#[derive(Default)]
struct Picture {
    next_seq: Option<u64>,
    aliases: BTreeMap<u64, String>,
    values: BTreeMap<String, Option<Content>>,
}

impl Picture {
    fn take(&mut self, said: &[Said]) {
        for Said { what, payload } in said.iter().filter(|said| said.what != "NDEATH") {
            let seq = payload.seq.unwrap();
            let (kind, device) = what.split_once(' ').unwrap_or((what, ""));
            match kind {
                "NBIRTH" => {
                    assert_eq!(seq, 0);
                    *self = Self::default();
                }
                _ => assert_eq!(Some(seq), self.next_seq, "{what}"),
            }
            self.next_seq = Some((seq + 1) % 256);
            if kind == "DDEATH" {
                self.values.retain(|name, _| !name.starts_with(&format!("{device}:")));
            }
            for metric in &payload.metrics {
                let name = match (&metric.name, metric.alias) {
                    (Some(name), alias) => {
                        assert!(kind.ends_with("BIRTH"), "{what} has names: {metric:?}");
                        let name = format!("{device}:{name}");
                        let taken = alias.and_then(|alias| self.aliases.insert(alias, name.clone()));
                        assert_eq!(taken.filter(|taken| *taken != name), None, "an alias of two metrics");
                        name
                    }
                    (None, alias) => self.aliases[&alias.unwrap()].clone(),
                };
                assert_eq!(metric.content.is_none(), metric.is_null == Some(true), "{name}");
                self.values.insert(name, metric.content.clone());
            }
        }
    }

    fn of(&self, name: &str) -> &Option<Content> {
        self.values.get(name).unwrap_or_else(|| panic!("{name} is not in {:#?}", self.values))
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.of(name) {
            None => None,
            Some(Content::Text(text)) => Some(text),
            other => panic!("{name} = {other:?}"),
        }
    }
}

/// From the first birth to a late host that gets everything by a rebirth, and a stop that says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_plant_is_born_tells_what_changes_and_says_when_it_goes() {
    let meters = &*crate::support::METERS;
    let mosquitto = Mosquitto::open().await;
    let host = Host::open(mosquitto.port).await;
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), broker(mosquitto.port));
    let born = host.until_said("NBIRTH").await;
    assert_eq!((whats(&born), born[0].session()), (vec!["NBIRTH"], 0));
    let mut picture = Picture::default();
    picture.take(&born);
    assert_eq!(picture.of(":Node Control/Rebirth"), &Some(Content::Boolean(false)));

    // Ten items: at hand, over, and eight that are next.
    let mut items: Vec<_> =
        (0..10).rev().map(|at| item("mill", &format!("b{at}"), 1_000 + at * 4_000)).collect();
    items.push(item("lathe", "c0", 500));
    site.keep(41, items.clone()).await;
    site.health.machine("mill", |report| {
        report.over = vec![millpool_node_agent::health::Over::done("b1", 1)];
    });
    site.machine("mill", "producing", Some("b0/1"));
    picture.take(&host.until_said("DBIRTH mill").await);
    assert_eq!(picture.text("mill:State"), Some("producing"));
    assert_eq!(picture.text("mill:Operation/Booking"), Some("b0"));
    assert_eq!(picture.of("mill:Operation/Number"), &Some(Content::Int(1)));
    assert_eq!(picture.of("mill:Operation/Quantity"), &Some(Content::Int(12)));
    assert_eq!(picture.of("mill:Operation/Pieces Good"), &None, "nobody has counted yet");
    assert_eq!(picture.of("mill:Dispatch/Revision"), &Some(Content::Long(41)));
    let slots: Vec<_> = (1..=8).map(|slot| picture.text(&format!("mill:Dispatch/{slot}/Booking"))).collect();
    assert_eq!(slots, ["b2", "b3", "b4", "b5", "b6", "b7", "b8", "b9"].map(Some));
    assert_eq!(picture.of("mill:Dispatch/1/Start"), &Some(Content::Long(9_000_000)));
    assert_eq!(picture.of("mill:Dispatch/1/End"), &Some(Content::Long(12_600_000)));
    assert_eq!(picture.text("mill:Dispatch/1/Setup Family"), Some("vice"));
    assert_eq!(picture.of("mill:Dispatch/1/Frozen"), &Some(Content::Boolean(false)));
    assert!(
        !picture.values.keys().any(|name| name.starts_with("lathe:")),
        "a machine that is not seen is not born"
    );

    // Data has the aliases of what changed, and nothing else.
    site.machine("mill", "held", Some("b0/1"));
    let data = host.until_said("DDATA mill").await;
    assert_eq!(data[0].payload.metrics.len(), 1, "{data:?}");
    picture.take(&data);
    assert_eq!(picture.text("mill:State"), Some("held"));
    site.health.machine("mill", |report| {
        report.work = Some(millpool_node_agent::health::Work { pieces_good: 5, expected_end_s: 7_000 });
    });
    picture.take(&host.until_said("DDATA mill").await);
    assert_eq!(picture.of("mill:Operation/Pieces Good"), &Some(Content::Int(5)));
    assert_eq!(picture.of("mill:Operation/Expected End"), &Some(Content::Long(7_000_000)));
    site.keep(42, items.split_off(8)).await;
    picture.take(
        &host
            .until("the new list", |said| said.iter().any(|said| said.what == "NDATA") && said.len() == 2)
            .await,
    );
    assert_eq!(picture.of(":Dispatch/Revision"), &Some(Content::Long(42)));
    assert_eq!(picture.text("mill:Dispatch/1/Booking"), None, "an empty slot is null");

    // One machine comes, another goes.
    site.machine("lathe", "idle", None);
    picture.take(&host.until_said("DBIRTH lathe").await);
    assert_eq!(picture.text("lathe:Dispatch/1/Booking"), Some("c0"));
    site.lose("mill");
    picture.take(&host.until_said("DDEATH mill").await);
    site.machine("mill", "unknown", None);
    picture.take(&host.until_said("DBIRTH mill").await);
    assert_eq!(
        picture.text("mill:State"),
        Some("unknown"),
        "a machine that is there may say that nothing is known"
    );

    // Who comes late understands nothing, and asks.
    let late = Host::open(mosquitto.port).await;
    for _ in 0..20 {
        late.ask_rebirth().await;
    }
    let born = late.until_said("DBIRTH lathe").await;
    assert_eq!(whats(&born), ["NBIRTH", "DBIRTH mill", "DBIRTH lathe"]);
    let mut late_picture = Picture::default();
    late_picture.take(&born);
    picture.take(&host.until_said("DBIRTH lathe").await);
    assert_eq!(late_picture.values, picture.values);
    assert_eq!(born[0].session(), 0, "a rebirth is no new session");
    tokio::time::sleep(publish::BIRTHS_EVERY + MOMENT).await;
    let again = late.said();
    assert!(whats(&again).iter().filter(|what| **what == "NBIRTH").count() <= 1, "twenty ask: {again:#?}");

    // It is no way to operate a machine.
    late.until("no more births", |_| true).await;
    late.command("NCMD/site", "Node Control/Reboot", BOOLEAN, Content::Boolean(true)).await;
    late.command("NCMD/site", "Node Control/Rebirth", BOOLEAN, Content::Boolean(false)).await;
    late.command("DCMD/site/mill", "State", STRING, Content::Text("producing".into())).await;
    late.command("DCMD/site/mill", "Node Control/Rebirth", BOOLEAN, Content::Boolean(true)).await;
    late.client
        .publish("spBv1.0/member/NCMD/site", vec![0xff; 9], PublishOptions::at_most_once())
        .await
        .unwrap();
    tokio::time::sleep(MOMENT).await;
    assert!(late.said().is_empty(), "a command had an effect: {:#?}", late.said());
    let plant = site.id.clone();
    let ignored = format!("millpool_agent_publish_commands_ignored_total{{plant=\"{plant}\"}} 5");
    assert!(meters.render().contains(&ignored), "{}", meters.render());
    let publishing = |is: u8| format!("millpool_agent_publishing{{plant=\"{plant}\"}} {is}");
    assert!(meters.render().contains(&publishing(1)), "{}", meters.render());

    site.stop().await;
    tokio::time::sleep(MOMENT).await;
    let gone = late.said();
    assert_eq!(
        (whats(&gone), gone[0].session(), gone[0].payload.seq),
        (vec!["NDEATH"], 0, None),
        "{gone:#?}"
    );
    assert!(meters.render().contains(&publishing(0)), "{}", meters.render());
}

/// A broker that is killed: after it is back all is born anew, in a session of its own, with the latest. An agent that is killed
/// leaves its will, and begins a session of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_an_agent_that_is_killed() {
    let mut mosquitto = Mosquitto::open().await;
    let host = Host::open(mosquitto.port).await;
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), broker(mosquitto.port));
    site.machine("mill", "idle", None);
    let mut picture = Picture::default();
    picture.take(&host.until_said("DBIRTH mill").await);
    site.until_publishing("connected", |publishing| publishing.connected).await;

    mosquitto.kill();
    site.until_publishing("the line is gone", |publishing| {
        !publishing.connected && publishing.trouble.is_some()
    })
    .await;
    for at in 0..10_000 {
        site.machine("mill", if at % 2 == 0 { "producing" } else { "held" }, Some("b/0"));
    }
    mosquitto.restart().await;
    let born = host.until_said("DBIRTH mill").await;
    assert_eq!((whats(&born), born[0].session()), (vec!["NBIRTH", "DBIRTH mill"], 1));
    picture.take(&born);
    assert_eq!(picture.text("mill:State"), Some("held"), "the latest, and nothing of what was before");
    site.until_publishing("connected", |publishing| publishing.connected && publishing.trouble.is_none())
        .await;

    site.running.abort();
    let gone = host.until_said("NDEATH").await;
    assert_eq!((gone.len(), gone[0].session(), gone[0].payload.seq), (1, 1, None), "{gone:#?}");
    let site = Site::start(dir.path(), broker(mosquitto.port));
    let born = host.until_said("NBIRTH").await;
    assert_eq!(born[0].session(), 2, "a restarted agent's session is not the last one's");
    site.stop().await;
    let gone = host.until_said("NDEATH").await;
    assert_eq!(gone[0].session(), 2);
}

/// A broker that takes nothing more: nobody waits for it, and when it lives again it is told the latest.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_frozen_holds_up_nobody() {
    let mosquitto = Mosquitto::open().await;
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), broker(mosquitto.port));
    site.machine("mill", "idle", None);
    let host = Host::open(mosquitto.port).await;
    host.ask_rebirth().await;
    host.until_said("DBIRTH mill").await;

    mosquitto.freeze();
    let begun = std::time::Instant::now();
    let mut slowest = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(20) {
        let before = std::time::Instant::now();
        site.machine("mill", "producing", Some(&format!("b{}/0", begun.elapsed().as_millis())));
        site.keep(1, vec![item("mill", "b", 1)]).await;
        slowest = slowest.max(before.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(slowest < Duration::from_secs(1), "a machine has waited {slowest:?}");
    let trouble = site.health.report().publishing.unwrap();
    assert!(!trouble.connected && trouble.trouble.is_some(), "{trouble:?}");
    site.machine("mill", "blocked", None);
    mosquitto.thaw();
    let latest = |said: &[Said]| {
        let mut picture = Picture::default();
        let births = said.iter().rposition(|said| said.what == "NBIRTH").map_or(&[][..], |at| &said[at..]);
        picture.take(births);
        picture.values.get("mill:State") == Some(&Some(Content::Text("blocked".into())))
    };
    // The host was cut off, too: it may come back between two births, and asks like any host.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !latest(&host.said()) {
        assert!(tokio::time::Instant::now() < deadline, "it is not told the latest: {:#?}", host.said());
        host.ask_rebirth().await;
        tokio::time::sleep(MOMENT).await;
    }
    let (said, mut picture) = (host.said(), Picture::default());
    picture.take(&said[said.iter().rposition(|said| said.what == "NBIRTH").unwrap()..]);
    assert_eq!(picture.text("mill:Operation/Booking"), None);
    site.stop().await;
}

/// Certificates, a name and a password; what does not fit is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_secured_broker() {
    let (mosquitto, ca_pem) = Mosquitto::secured().await;
    let with = |password: &str, ca_pem: &str, client_id: &str| {
        of_user(broker(mosquitto.port), password, ca_pem, client_id)
    };
    let host = Host::start(secured("host", mosquitto.port, &ca_pem)).await;
    let stranger = rcgen::generate_simple_self_signed(vec!["stranger".to_owned()]).unwrap().cert.pem();
    let dir = tempfile::tempdir().unwrap();
    for (name, broker, expected) in [
        ("wrong", with("wrong", &ca_pem, "wrong"), "the broker refuses the user \"millpool\": "),
        ("other", with("right", &stranger, "other"), "the certificates do not fit: "),
        ("plain", broker(mosquitto.port), ""),
    ] {
        let site = Site::start(&dir.path().join(name), broker);
        let named = |publishing: &Publishing| {
            publishing.trouble.as_ref().is_some_and(|why| why.starts_with(expected))
        };
        site.until_publishing(expected, |publishing| !publishing.connected && named(publishing)).await;
        site.stop().await;
    }
    assert!(host.said().is_empty(), "{:#?}", host.said());
    let site = Site::start(&dir.path().join("right"), with("right", &ca_pem, "right"));
    site.machine("mill", "idle", None);
    host.until_said("DBIRTH mill").await;
    site.stop().await;
    host.until_said("NDEATH").await;
}

/// The agent's own reading side reads what the publishing side says: two agents of one plant, by way of a broker.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_can_be_read_as_any_edge_node() {
    let mosquitto = Mosquitto::open().await;
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(&dir.path().join("site"), broker(mosquitto.port));
    site.machine("mill", "idle", None);
    let table: SignalTable = SignalFile::Source("State".to_owned()).into();
    let values = ["idle", "producing", "held"].map(|state| (state.to_owned(), state.to_owned())).into();
    let options = MachineOptions {
        address: Some(Address { group: "member".into(), node: "site".into(), device: Some("mill".into()) }),
        time: Time::Source,
        signals: [(Signal::State, SignalTable { values, ..table })].into(),
        rules: Rules::default(),
    };
    let reader = Broker { client_id: "reader".into(), ..broker(mosquitto.port) };
    let machines = vec![("copy".to_owned(), options)];
    let plant =
        Plant::start(&dir.path().join("plant"), |shop, stop| sparkplug::run(reader, machines, shop, stop));
    plant.until_state("copy", State::Idle).await;
    for (state, read) in [("producing", State::Producing), ("held", State::Held), ("unknown", State::Unknown)]
    {
        site.machine("mill", state, None);
        plant.until_state("copy", read).await;
    }
    site.machine("mill", "producing", None);
    plant.until_state("copy", State::Producing).await;
    site.lose("mill");
    plant.until_state("copy", State::Unknown).await;
    site.machine("mill", "idle", None);
    plant.until_state("copy", State::Idle).await;
    site.stop().await;
    let events = plant.until_state("copy", State::Unknown).await;
    assert_eq!(states(&events, "copy").len(), 8, "{events:#?}");
    plant.stop().await;
}

/// A running program that is not left behind.
struct Program(std::process::Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program itself, with simulated machines and a list from a coordinator: what its adapters and its disk say is published,
/// and at SIGTERM it says that it goes.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_publishes_its_plant() {
    let mosquitto = Mosquitto::open().await;
    let host = Host::open(mosquitto.port).await;
    let coordinator = Coordinator::new();
    let now_s = now_ms() as i64 / 1_000;
    let items = vec![item("mill", "b0", now_s - 60), item("mill", "b1", now_s + 86_400)];
    coordinator.manner(|manner| {
        manner.list = Some(DispatchList { plant_id: "plant".into(), revision: 7, items });
    });
    let address = coordinator.serve(&CancellationToken::new()).await;
    let dir = tempfile::tempdir().unwrap();
    let (config, http) = (dir.path().join("agent.toml"), free_port());
    let text = format!(
        "data_dir = {:?}\n[http]\nlisten = \"127.0.0.1:{http}\"\n[coordinator]\naddresses = [\"{address}\"]\n\
         insecure_dev = true\n[[agent]]\nplant = \"plant\"\nsimulated_machines = [\"mill\", \"lathe\"]\n\
         [agent.publish]\nbroker = \"mqtt://127.0.0.1:{}\"\ngroup = \"member\"\nnode = \"site\"\n",
        dir.path(),
        mosquitto.port
    );
    std::fs::write(&config, text).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_millpool-node-agent"));
    let mut program = Program(command.arg("--config").arg(&config).spawn().unwrap());
    let mut picture = Picture::default();
    let set_up = |said: &[Said]| {
        let mut picture = Picture::default();
        picture.take(said);
        let state = picture.values.get("mill:State");
        state == Some(&Some(Content::Text("setup".into()))) && picture.values.contains_key("lathe:State")
    };
    picture.take(&host.until("the mill is being set up", set_up).await);
    assert_eq!(picture.text("mill:Operation/Booking"), Some("b0"));
    assert_eq!(picture.text("mill:Dispatch/1/Booking"), Some("b1"), "what is at hand is not next");
    assert_eq!(picture.of("mill:Dispatch/Revision"), &Some(Content::Long(7)));
    assert_eq!(picture.of(":Coordinator/Connected"), &Some(Content::Boolean(true)));
    assert_eq!(picture.text("lathe:State"), Some("idle"));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let page =
        client.get(format!("http://127.0.0.1:{http}/health")).send().await.unwrap().text().await.unwrap();
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["plants"][0]["publishing"]["connected"], true, "{page}");
    assert!(
        std::process::Command::new("kill")
            .args(["-TERM", &program.0.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    host.until_said("NDEATH").await;
    assert_eq!(program.0.wait().unwrap().code(), Some(0));
}
