//! The OPC UA adapter against a server of another make (asyncua, in Python): both generations of the
//! machine-tool model, security, restarts, silence, and what cannot be read.

use crate::support::counterpart::{Counterpart, free_port};
use crate::support::plant::{Plant, states};
use millpool_node_agent::adapter::Time;
use millpool_node_agent::adapter::history::Rules;
use millpool_node_agent::adapter::mapping::{SignalFile, SignalTable};
use millpool_node_agent::adapter::opcua::jobs::{Order, Verb};
use millpool_node_agent::adapter::opcua::pki::Pki;
use millpool_node_agent::adapter::opcua::session::Open;
use millpool_node_agent::adapter::opcua::space::Space;
use millpool_node_agent::adapter::opcua::{
    self, CHANNEL_LIFETIME, Identity, MachineOptions, Password, Security, Server, Signal, discover,
};
use millpool_node_agent::adapter::word::{Word, WordError};
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{AgentEvent, DispatchItem, DispatchList, MachineState as State};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const SCRIPT: &str = "opcua_machine_tool.py";

fn server(port: u16) -> Server {
    Server {
        url: format!("opc.tcp://127.0.0.1:{port}/millpool"),
        security: Security::None,
        identity: Identity::Anonymous,
        interval: Duration::from_millis(50),
        channel_lifetime: CHANNEL_LIFETIME,
    }
}

fn machine() -> MachineOptions {
    MachineOptions { machine: None, time: Time::Source, signals: BTreeMap::new(), rules: Rules::default() }
}

fn plant(dir: &Path, server: Server, machines: Vec<(&str, MachineOptions)>) -> Plant {
    let pki = Pki::open(&dir.join("opcua"), "plant").unwrap();
    let machines = machines.into_iter().map(|(id, options)| (id.to_owned(), options)).collect();
    Plant::start(dir, |shop, stop| opcua::run(server, machines, pki, shop, stop))
}

async fn start(port: u16, arguments: &[&str]) -> Counterpart {
    let port = port.to_string();
    Counterpart::start(SCRIPT, &[&["--port", &port], arguments].concat()).await
}

fn gaps(events: &[AgentEvent]) -> Vec<String> {
    let reason = |event: &AgentEvent| match &event.what {
        Some(What::EvidenceGap(gap)) => Some(gap.reason.clone()),
        _ => None,
    };
    events.iter().filter_map(reason).collect()
}

/// Operations of two pieces, due now.
fn list(bookings: &[&str]) -> DispatchList {
    let now_s = jiff::Timestamp::now().as_second();
    let item = |booking: &&str| DispatchItem {
        machine_id: "m".into(),
        booking_id: (*booking).into(),
        start_s: now_s - 60,
        end_s: now_s + 600,
        run_s: 600,
        quantity: 2,
        ..DispatchItem::default()
    };
    DispatchList { plant_id: "plant".into(), revision: 1, items: bookings.iter().map(item).collect() }
}

fn table(source: &str, scale: f64, unit: Option<&str>) -> SignalTable {
    let table: SignalTable = SignalFile::Source(source.to_owned()).into();
    SignalTable { scale, unit: unit.map(str::to_owned), ..table }
}

/// States, counters, energy and the operation at hand, behind namespaces in another order; a value that
/// cannot be decoded; a server that is killed and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_tool_of_the_present_generation() {
    let port = free_port();
    let mut control = start(port, &["--extra-namespaces", "3"]).await;
    let dir = tempfile::tempdir().unwrap();
    let signals = [
        (Signal::Load, table("Monitoring/Spindle1/Load", 1.0, None)),
        (Signal::Power, table("Monitoring/AcActivePowerTotal", 1e3, Some("KWT"))),
        (
            Signal::Energy,
            table("nsu=urn:example:shop;s=5AX-01.Monitoring.AcActiveEnergyTotalImportHp", 1e3, None),
        ),
        (Signal::PartCount, table("Production/PartCount", 1.0, None)),
    ];
    let options = MachineOptions { signals: signals.into(), ..machine() };
    let plant = plant(dir.path(), server(port), vec![("m", options)]);
    control.tell(json!({"do": "item", "machine": "5AX-01", "state": "NotExecuting"})).await;
    plant.until_state("m", State::Idle).await;
    assert_eq!(plant.say("m", Word::Up).await, Err(WordError::NotDown), "a word is heard while values come");
    let report = plant.report("m");
    for words in ["item_state", "energy", "job control v2"] {
        assert!(report.capability.contains(words), "{words}: {report:?}");
    }
    let set = |node: &str, value: f64| json!({"do": "set", "node": format!("5AX-01.{node}"), "value": value});
    control.tell(set("Monitoring.AcActiveEnergyTotalImportHp", 100.0)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    plant.dispatch.keep(list(&["b"]), 0).await.unwrap();

    for (item, mode, state) in [
        ("NotExecuting", "Setup", State::Setup),
        ("Executing", "Processing", State::Producing),
        ("OutOfService", "Processing", State::Blocked),
        ("NotAvailable", "None", State::Off),
        ("NotExecuting", "Maintenance", State::Maintenance),
        ("Executing", "Processing", State::Producing),
    ] {
        control.tell(json!({"do": "item", "machine": "5AX-01", "state": item})).await;
        control.tell(json!({"do": "mode", "machine": "5AX-01", "mode": mode})).await;
        plant.until_state("m", state).await;
    }
    control.tell(json!({"do": "program", "machine": "5AX-01", "name": "P4711", "state": "Running"})).await;
    plant
        .until_report("m", "the program is shown", |report| report.program.as_deref() == Some("P4711"))
        .await;
    assert_eq!(plant.report("m").operation.as_deref(), Some("b/0"));

    control.tell(json!({"do": "undecodable", "machine": "5AX-01"})).await;
    control.tell(set("Production.PartCount", 1.0)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    control.tell(set("Monitoring.AcActiveEnergyTotalImportHp", 102.5)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    control.tell(set("Production.PartCount", 2.0)).await;
    control.tell(set("Production.PartCount", 3.0)).await;
    let finished = |event: &AgentEvent| match &event.what {
        Some(What::OperationFinished(finished)) => Some(finished.clone()),
        _ => None,
    };
    let events =
        plant.until("the operation is finished", |events| events.iter().any(|e| finished(e).is_some())).await;
    let finished = events.iter().find_map(finished).unwrap();
    assert_eq!(
        (finished.booking_id.as_str(), finished.pieces_good, finished.energy_measured),
        ("b", 2, true)
    );
    assert_eq!(finished.energy_wh, 2_500, "the meter went from 100 to 102.5 kWh");

    for way in ["", ".Id", ".Number"] {
        let node = format!("5AX-01.MachineryBuildingBlocks.MachineryItemState.CurrentState{way}");
        control.tell(json!({"do": "bad", "node": node, "status": "BadCommunicationError"})).await;
    }
    plant.until_state("m", State::Unknown).await;
    control.tell(json!({"do": "item", "machine": "5AX-01", "state": "Executing"})).await;
    plant.until_state("m", State::Producing).await;

    control.kill().await;
    plant.until_state("m", State::Unknown).await;
    let mut control = start(port, &["--extra-namespaces", "1"]).await;
    control.tell(json!({"do": "item", "machine": "5AX-01", "state": "NotExecuting"})).await;
    let events = plant.until_state("m", State::Idle).await;
    assert!(!gaps(&events).is_empty(), "{events:#?}");
    assert!(!control.said().iter().any(|line| line.starts_with("FORBIDDEN")), "{:?}", control.said());
    plant.stop().await;
}

/// No item state, no jobs: the program and the operation mode tell the state. A newer control in its place
/// is noticed.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_generation_and_the_newer_that_takes_its_place() {
    let port = free_port();
    let mut control = start(port, &["--generation", "1.01", "--item-state", "no"]).await;
    let dir = tempfile::tempdir().unwrap();
    let plant = plant(dir.path(), server(port), vec![("m", machine())]);
    for (mode, program, state) in [
        (1, "Running", State::Producing),
        (1, "Interrupted", State::Held),
        (1, "Ended", State::Idle),
        (2, "Ended", State::Setup),
        (4, "Ended", State::Maintenance),
        (0, "Running", State::Setup),
    ] {
        control.tell(json!({"do": "tool_mode", "machine": "5AX-01", "mode": mode})).await;
        control.tell(json!({"do": "program", "machine": "5AX-01", "name": "P1", "state": program})).await;
        plant.until_state("m", state).await;
    }
    let report = plant.report("m");
    assert!(
        report.capability.contains("no job control") && !report.capability.contains("item_state"),
        "{report:?}"
    );
    control.kill().await;
    let mut control = start(port, &["--jobs", "v1"]).await;
    control.tell(json!({"do": "item", "machine": "5AX-01", "state": "Executing"})).await;
    control.tell(json!({"do": "mode", "machine": "5AX-01", "mode": "Processing"})).await;
    plant.until_state("m", State::Producing).await;
    let report = plant.report("m");
    assert!(
        report.capability.contains("item_state") && report.capability.contains("v1 (read only)"),
        "{report:?}"
    );
    plant.stop().await;
}

/// A server that publishes no more is left and found again. One that allows a single session takes the
/// agent back after its connection was cut, and tells what happened meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn silence_and_a_cut_line_with_a_single_session() {
    let port = free_port();
    let mut control = start(port, &["--max-sessions", "1"]).await;
    let dir = tempfile::tempdir().unwrap();
    let plant = plant(dir.path(), server(port), vec![("m", machine())]);
    control.tell(json!({"do": "item", "machine": "5AX-01", "state": "NotExecuting"})).await;
    plant.until_state("m", State::Idle).await;

    for item in ["Executing", "NotExecuting", "Executing"] {
        control.tell(json!({"do": "drop"})).await;
        control.tell(json!({"do": "item", "machine": "5AX-01", "state": item})).await;
        let state = if item == "Executing" { State::Producing } else { State::Idle };
        plant.until_state("m", state).await;
    }
    assert!(
        !states(&plant.events().await, "m").contains(&State::Unknown),
        "a short cut is not worth mentioning"
    );

    control.tell(json!({"do": "silence", "on": true})).await;
    plant.until_state("m", State::Unknown).await;
    control.tell(json!({"do": "silence", "on": false})).await;
    plant.until_state("m", State::Producing).await;
    assert_eq!(gaps(&plant.events().await).len(), 1);
    plant.stop().await;
}

/// Certificates both ways, a name and a password, keys that are renewed.
#[tokio::test(flavor = "multi_thread")]
async fn a_secured_line() {
    let port = free_port();
    let dir = tempfile::tempdir().unwrap();
    let theirs = Pki::open(&dir.path().join("server"), "control").unwrap();
    let (certificate, key) = (theirs.certificate(), theirs.key());
    let certificate = certificate.to_str().unwrap();
    let mut control = start(
        port,
        &[
            "--security",
            "basic256sha256",
            "--certificate",
            certificate,
            "--private-key",
            key.to_str().unwrap(),
            "--user",
            "millpool:right",
        ],
    )
    .await;
    let identity =
        |password: &str| Identity::User { name: "millpool".into(), password: Password::new(password) };
    let secured = |identity: Identity| Server {
        security: Security::Basic256Sha256 { pinned: true },
        identity,
        channel_lifetime: Duration::from_secs(4),
        ..server(port)
    };

    let plain = plant(&dir.path().join("plain"), server(port), vec![("m", machine())]);
    plain
        .until_report("m", "no such endpoint", |report| {
            report.trouble.as_deref().is_some_and(|why| why.contains("offers Basic256Sha256 SignAndEncrypt"))
        })
        .await;
    plain.stop().await;

    let home = dir.path().join("plant");
    let wrong = plant(&home, secured(identity("wrong")), vec![("m", machine())]);
    let report = wrong.until_report("m", "not trusted", |report| report.trouble.is_some()).await;
    let trouble = report.trouble.unwrap();
    assert!(trouble.contains("opcua/rejected") && trouble.contains("opcua/trusted"), "{trouble}");
    wrong.stop().await;
    for entry in std::fs::read_dir(home.join("opcua/rejected")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::rename(&path, home.join("opcua/trusted").join(path.file_name().unwrap())).unwrap();
    }
    let strict =
        Server { security: Security::Basic256Sha256 { pinned: false }, ..secured(identity("right")) };
    let strict = plant(&home, strict, vec![("m", machine())]);
    strict
        .until_report("m", "a certificate without the address", |report| {
            let trouble = report.trouble.as_deref();
            trouble.is_some_and(|why| {
                why.contains("does not name the address") && why.contains("pinned_certificate")
            })
        })
        .await;
    strict.stop().await;
    let wrong = plant(&home, secured(identity("wrong")), vec![("m", machine())]);
    wrong
        .until_report("m", "a wrong password", |report| {
            report
                .trouble
                .as_deref()
                .is_some_and(|why| why.contains("BadUserAccessDenied") || why.contains("BadIdentityToken"))
        })
        .await;
    wrong.stop().await;

    let right = plant(&home, secured(identity("right")), vec![("m", machine())]);
    for _ in 0..4 {
        for (item, state) in [("Executing", State::Producing), ("NotExecuting", State::Idle)] {
            control.tell(json!({"do": "item", "machine": "5AX-01", "state": item})).await;
            right.until_state("m", state).await;
            // Four seconds is how long the keys last.
            tokio::time::sleep(Duration::from_millis(1_500)).await;
        }
    }
    let events = right.events().await;
    assert!(gaps(&events).is_empty() && !states(&events, "m").contains(&State::Unknown), "{events:#?}");
    right.stop().await;
}

/// A job is stored, allowed to start, and done: the machine's own list tells what becomes of the operation. What
/// the machine will not do, it says, and nothing is ever stored and started at once.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_stored_started_and_followed() {
    let port = free_port();
    let mut control = start(port, &["--without-methods", "Abort"]).await;
    let dir = tempfile::tempdir().unwrap();
    let plant = plant(dir.path(), server(port), vec![("m", machine())]);
    control.tell(json!({"do": "item", "machine": "5AX-01", "state": "NotExecuting"})).await;
    plant.until_state("m", State::Idle).await;
    plant.dispatch.keep(list(&["a", "b"]), 0).await.unwrap();

    let pki = Pki::open(&dir.path().join("opcua"), "plant").unwrap();
    let open = Open::connect(&server(port), &pki).await.unwrap();
    let mut space = Space::open(&open.session).await.unwrap();
    let found = discover::find(&mut space, &machine()).await.unwrap();
    let jobs = found.job_control.unwrap();
    let ask = |verb: Verb, job: &'static str| jobs.ask(&open.session, verb, job);
    let order = Order {
        id: "b/0".into(),
        description: "Two brackets".into(),
        program: "P4711".into(),
        start_ms: Some(1_700_000_000_000),
        end_ms: Some(1_700_000_600_000),
    };
    assert!(jobs.store(&open.session, Verb::Store, &order).await.unwrap().is_done());
    let again = jobs.store(&open.session, Verb::Store, &order).await.unwrap();
    assert!(!again.is_done(), "{again}");
    assert_eq!(ask(Verb::Start, "c/0").await.unwrap().to_string(), "no such job (return status 2)");
    assert!(!ask(Verb::Pause, "b/0").await.unwrap().is_done(), "it does not run");
    let why = ask(Verb::Abort, "b/0").await.unwrap_err().to_string();
    assert_eq!(why, "the machine has no Abort");

    assert!(ask(Verb::Start, "b/0").await.unwrap().is_done());
    plant.until_report("m", "the job is at hand", |report| report.operation.as_deref() == Some("b/0")).await;
    plant.until_report("m", "its program", |report| report.program.as_deref() == Some("P4711")).await;
    assert!(ask(Verb::Pause, "b/0").await.unwrap().is_done());
    plant.until_state("m", State::Held).await;
    assert!(ask(Verb::Resume, "b/0").await.unwrap().is_done());
    plant.until_state("m", State::Producing).await;
    control.tell(json!({"do": "finish_job", "machine": "5AX-01", "id": "b/0"})).await;
    let finished = |event: &AgentEvent| match &event.what {
        Some(What::OperationFinished(finished)) => Some(finished.booking_id.clone()),
        _ => None,
    };
    let events = plant.until("it is finished", |events| events.iter().any(|e| finished(e).is_some())).await;
    assert_eq!(events.iter().find_map(finished).as_deref(), Some("b"));
    assert!(ask(Verb::Clear, "b/0").await.unwrap().is_done());
    open.close().await;
    assert!(!control.said().iter().any(|line| line.starts_with("FORBIDDEN")), "{:?}", control.said());
    plant.stop().await;
}

/// What cannot be read is named with what is there; the other machines of the server are read on.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_named_and_the_rest_works_on() {
    let port = free_port();
    let mut control = start(port, &["--machines", "5AX-01,LATHE-02"]).await;
    let dir = tempfile::tempdir().unwrap();
    let named = |name: &str| MachineOptions { machine: Some(name.into()), ..machine() };
    let with = |signal: Signal, table: SignalTable| MachineOptions {
        signals: [(signal, table)].into(),
        ..named("5AX-01")
    };
    let machines = vec![
        ("good", named("LATHE-02")),
        ("nobody", named("5AX-99")),
        ("any", machine()),
        ("no-node", with(Signal::Load, table("Monitoring/Spindle9/Load", 1.0, None))),
        ("no-space", with(Signal::Load, table("nsu=urn:elsewhere;s=Load", 1.0, None))),
        ("index", with(Signal::Load, table("ns=7;s=Load", 1.0, None))),
        ("unit", with(Signal::Power, table("Monitoring/AcActivePowerTotal", 1.0, Some("WTT")))),
    ];
    let plant = plant(dir.path(), server(port), machines);
    control.tell(json!({"do": "item", "machine": "LATHE-02", "state": "Executing"})).await;
    plant.until_state("good", State::Producing).await;
    for (id, expected) in [
        ("nobody", "machine \"5AX-99\" is not there; the server has 5AX-01, LATHE-02"),
        ("any", "machine \"(none named)\" is not there; the server has 5AX-01, LATHE-02"),
        (
            "no-node",
            "load is mapped to \"Monitoring/Spindle9/Load\", which the server does not have; Monitoring has",
        ),
        (
            "no-space",
            "load is mapped to \"nsu=urn:elsewhere;s=Load\", which the server does not have; its namespaces are",
        ),
        ("index", "\"ns=7;s=Load\" names a namespace by its index, which changes; write nsu=URI;..."),
        (
            "unit",
            "power is mapped to \"Monitoring/AcActivePowerTotal\", which is in kW or KWT; the mapping says \"WTT\"",
        ),
    ] {
        let trouble = plant.report(id).trouble.unwrap_or_default();
        assert!(trouble.contains(expected), "{id}: {trouble}");
        assert!(states(&plant.events().await, id).is_empty(), "nothing is told of what is not read");
    }
    // A machine that is gone when the line comes back is not what it was, though others are there.
    control.kill().await;
    let _control = start(port, &["--machines", "5AX-01"]).await;
    plant.until_state("good", State::Unknown).await;
    plant.until_report("good", "it is named", |report| report.trouble.is_some()).await;
    plant.stop().await;
}
