//! Remote operation, from the coordinator's stream to a control of another make: what is asked, what is refused, and
//! what is told of it.

use crate::support::counterpart::{Counterpart, free_port};
use crate::support::{Cable, Coordinator, timing};
use millpool_node_agent::adapter::history::Rules;
use millpool_node_agent::adapter::mapping::{SignalFile, SignalTable};
use millpool_node_agent::adapter::opcua::{self, CHANNEL_LIFETIME, Identity, Security, Server, Signal};
use millpool_node_agent::adapter::{Power, Time, manual};
use millpool_node_agent::agent::{self, Adapter, Agent, Machine};
use millpool_node_agent::clock::Clock;
use millpool_node_agent::ground::Ground;
use millpool_node_agent::health::Health;
use millpool_node_agent::outbox::BYTES_MAX_DEFAULT;
use millpool_node_agent::remote::consent::Rule;
use millpool_node_agent::remote::program::{Program, Sha256};
use millpool_node_agent::remote::quarantine::Quarantine;
use millpool_node_agent::remote::run::Told;
use millpool_node_agent::session::Token;
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{
    DispatchItem, DispatchList, RemoteAsked, RemoteCommand, RemoteOutcome, RemoteSession, RemoteVerb,
    RemoteVerdict,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A plant with a machine tool that may be operated from afar, and a lathe that reports nothing.
struct Plant {
    coordinator: Coordinator,
    cable: Cable,
    told: mpsc::Sender<Told>,
    quarantine: Quarantine,
    health: Health,
    stop: CancellationToken,
    running: JoinHandle<()>,
    nonce: u32,
}

fn machine_tool(port: u16, rule: Rule) -> Machine {
    let door: SignalTable = SignalFile::Source("Production/PartCount".to_owned()).into();
    let means = [("1", "closed"), ("0", "open")].map(|(value, meant)| (value.to_owned(), meant.to_owned()));
    let options = opcua::MachineOptions {
        machine: None,
        time: Time::Source,
        signals: [(Signal::Door, SignalTable { values: means.into(), ..door })].into(),
        rules: Rules::default(),
    };
    let server = Server {
        url: format!("opc.tcp://127.0.0.1:{port}/millpool"),
        security: Security::None,
        identity: Identity::Anonymous,
        interval: Duration::from_millis(50),
        channel_lifetime: CHANNEL_LIFETIME,
    };
    let adapter = Adapter::Opcua(Box::new(opcua::Options { server, machine: options }));
    Machine { id: "m".to_owned(), adapter, remote: Some(rule) }
}

fn lathe() -> Machine {
    let options = manual::Options { progress_s: 900, power: Power::default() };
    Machine { id: "lathe".to_owned(), adapter: Adapter::Manual(options), remote: None }
}

fn now_s() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn session(epoch: u64, machine: &str) -> RemoteSession {
    RemoteSession {
        epoch,
        machine_id: machine.into(),
        booking_id: "b000007".into(),
        operation: 0,
        holder: "bo".into(),
        closes_at_s: now_s() + 600,
    }
}

impl Plant {
    async fn start(dir: &Path, coordinator: Coordinator, at: SocketAddr, machines: Vec<Machine>) -> Self {
        let items = machines.iter().map(|machine| DispatchItem {
            machine_id: machine.id.clone(),
            booking_id: "b000007".into(),
            start_s: now_s() - 60,
            end_s: now_s() + 600,
            run_s: 600,
            quantity: 2,
            ..DispatchItem::default()
        });
        let list = DispatchList { plant_id: "plant".into(), revision: 1, items: items.collect() };
        coordinator.manner(|manner| manner.list = Some(list));
        let cable = Cable::to(at).await;
        let options = agent::Options {
            plant_id: "plant".into(),
            agent_id: "agent".into(),
            data_dir: dir.to_owned(),
            outbox_bytes_max: BYTES_MAX_DEFAULT,
            coordinators: vec![cable.address.to_string()],
            token: Token::Given("secret".into()),
            tls: None,
            timing: timing(),
            machines,
        };
        let agent = Agent::open(options, Clock::default(), Ground::Machine).unwrap();
        let (told, health, stop) = (agent.remote(), agent.health(), CancellationToken::new());
        let quarantine = agent.quarantine();
        let running = agent.run(stop.clone());
        let running = tokio::spawn(async move { running.await.unwrap() });
        coordinator.until("the list is kept", |durable| !durable.kept.is_empty()).await;
        Self { coordinator, cable, told, quarantine, health, stop, running, nonce: 0 }
    }

    async fn until_state(&self, state: &str) {
        for _ in 0..1500 {
            if self.health.report().machines["m"].machine_state == state {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the machine is not {state}: {:#?}", self.health.report());
    }

    fn send(&mut self, session: &RemoteSession, verb: RemoteVerb, by: &str) -> u32 {
        let program = if verb == RemoteVerb::Store { "P4711" } else { "" };
        let command = RemoteCommand { program: program.into(), ..command(verb, by) };
        self.send_command(session, command)
    }

    fn send_command(&mut self, session: &RemoteSession, command: RemoteCommand) -> u32 {
        self.nonce += 1;
        let command = RemoteCommand { nonce: self.nonce, ..command };
        let asked = RemoteAsked { session: Some(session.clone()), command: Some(command), echo_ms: 0 };
        self.coordinator.manner(|manner| manner.asks.push(asked));
        self.nonce
    }

    async fn outcome(&self, epoch: u64, nonce: u32) -> RemoteOutcome {
        self.told(epoch, nonce, false).await
    }

    /// What came of a command, or that what it gave was taken back.
    async fn told(&self, epoch: u64, nonce: u32, back: bool) -> RemoteOutcome {
        let id = format!("s{epoch:06}");
        let find = |durable: &crate::support::Durable| {
            durable.applied.values().flatten().find_map(|event| match &event.what {
                Some(What::RemoteAnswered(told))
                    if told.session_id == id && told.nonce == nonce && told.taken_back == back =>
                {
                    told.outcome.clone()
                }
                _ => None,
            })
        };
        self.coordinator.until("an outcome", |durable| find(durable).is_some()).await;
        find(&self.coordinator.durable.lock().unwrap()).unwrap()
    }

    /// Asks something as the session's holder, and waits for what came of it.
    async fn ask(&mut self, session: &RemoteSession, verb: RemoteVerb) -> RemoteOutcome {
        let nonce = self.send(session, verb, "buyer:bo");
        self.outcome(session.epoch, nonce).await
    }

    /// Asks this, and waits for what came of it.
    async fn ask_command(&mut self, session: &RemoteSession, command: RemoteCommand) -> RemoteOutcome {
        let nonce = self.send_command(session, command);
        self.outcome(session.epoch, nonce).await
    }

    async fn consent(&self, machine_id: &str, job: Option<&str>, within: Duration) -> Result<String, String> {
        let (answer, answered) = oneshot::channel();
        let (machine_id, job, by) = (machine_id.to_owned(), job.map(str::to_owned), "anna".to_owned());
        self.told.send(Told::Consent { machine_id, job, within, by, answer }).await.unwrap();
        answered.await.unwrap()
    }

    /// A person lets a program out of quarantine, or throws it out.
    async fn program(&self, machine_id: &str, program: &Program, release: bool) -> Result<String, String> {
        let (answer, answered) = oneshot::channel();
        let (machine_id, program, by) = (machine_id.to_owned(), program.clone(), "anna".to_owned());
        self.told.send(Told::Program { machine_id, program, release, by, answer }).await.unwrap();
        answered.await.unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

fn command(verb: RemoteVerb, by: &str) -> RemoteCommand {
    RemoteCommand {
        verb: verb.into(),
        by: by.into(),
        asked_at_s: now_s(),
        valid_s: 10,
        ..RemoteCommand::default()
    }
}

fn words(outcome: &RemoteOutcome) -> (RemoteVerdict, &str) {
    (outcome.verdict(), outcome.words.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_stored_started_paused_and_resumed_from_afar_within_the_limits() {
    let port = free_port();
    let mut control = Counterpart::start("opcua_machine_tool.py", &["--port", &port.to_string()]).await;
    let (coordinator, stop) = (Coordinator::new(), CancellationToken::new());
    let at = coordinator.serve(&stop).await;
    let dir = tempfile::tempdir().unwrap();
    let machines = vec![machine_tool(port, Rule::default()), lathe()];
    let mut plant = Plant::start(dir.path(), coordinator, at, machines).await;
    let door = |closed: u8| json!({"do": "set", "node": "5AX-01.Production.PartCount", "value": closed});
    control.tell(json!({"do": "item", "machine": "5AX-01", "state": "NotExecuting"})).await;
    control.tell(door(1)).await;
    plant.until_state("idle").await;
    let open = session(3, "m");
    let sessions = vec![open.clone(), session(4, "lathe")];
    plant.coordinator.manner(|manner| manner.sessions = sessions);

    // What puts a job on the list needs nobody's consent; what makes the machine move does.
    let stored = plant.ask(&open, RemoteVerb::Store).await;
    assert_eq!(words(&stored), (RemoteVerdict::Done, "done (return status 1)"));
    let shown = plant.health.report().machines["m"].session.clone();
    assert_eq!(shown.as_deref(), Some("s000003 of bo, for b000007/0"));
    let refused = plant.ask(&open, RemoteVerb::Start).await;
    assert_eq!(words(&refused), (RemoteVerdict::Refused, "the plant has not agreed that the machine moves"));
    // Nor is it enough that somebody far away agrees, where the plant does not say that it is.
    let afar = RemoteCommand { consent_s: 600, ..command(RemoteVerb::Consent, "member:ya") };
    let afar = plant.ask_command(&open, afar).await;
    let console = "this plant agrees, and lets programs out, at its own console only";
    assert_eq!(words(&afar), (RemoteVerdict::Refused, console));
    let hour = Duration::from_secs(3600);
    assert!(plant.consent("lathe", None, hour).await.unwrap_err().contains("not remotely operated"));
    assert!(plant.consent("m", None, 9 * hour).await.unwrap_err().contains("accepted is 1 s to 8 h"));
    plant.consent("m", Some("b000009/0"), hour).await.unwrap();
    assert_eq!(plant.ask(&open, RemoteVerb::Start).await.verdict(), RemoteVerdict::Refused, "another's job");
    plant.consent("m", Some("b000007/0"), hour).await.unwrap();
    control.tell(door(0)).await;
    let open_door = plant.ask(&open, RemoteVerb::Start).await;
    assert_eq!(words(&open_door), (RemoteVerdict::Refused, "interlock \"door\" is open: open"));
    assert_eq!(open_door.consent, "anna");
    assert!(open_door.interlocks.iter().any(|lock| lock.name == "door" && !lock.holds), "{open_door:#?}");
    control
        .tell(json!({"do": "bad", "node": "5AX-01.Production.PartCount", "status": "BadCommunicationError"}))
        .await;
    let unreadable = plant.ask(&open, RemoteVerb::Start).await;
    assert!(unreadable.words.contains("cannot be read"), "{unreadable:#?}");
    control.tell(door(1)).await;
    let started = plant.ask(&open, RemoteVerb::Start).await;
    assert_eq!((started.verdict(), started.return_status), (RemoteVerdict::Done, 1), "{started:#?}");
    assert_eq!(started.interlocks.len(), 8);
    let program = started.interlocks.iter().find(|lock| lock.name == "program").unwrap();
    assert_eq!(program.seen, "the plant's own");
    assert!(started.interlocks.iter().all(|lock| lock.holds));
    plant.until_state("producing").await;
    assert_eq!(plant.health.report().machines["m"].operation.as_deref(), Some("b000007/0"));
    let again = plant.ask(&open, RemoteVerb::Start).await;
    assert!(again.words.contains("interlock \"at rest\" is open: producing"), "{again:#?}");

    assert_eq!(plant.ask(&open, RemoteVerb::Pause).await.verdict(), RemoteVerdict::Done);
    plant.until_state("held").await;
    let nonce = plant.send(&open, RemoteVerb::Abort, "buyer:bo");
    let abort = plant.outcome(3, nonce).await;
    assert_eq!(words(&abort), (RemoteVerdict::Refused, "only the plant may ask that"));
    assert_eq!(plant.ask(&open, RemoteVerb::Resume).await.verdict(), RemoteVerdict::Done);
    plant.until_state("producing").await;
    let cancel = plant.ask(&open, RemoteVerb::Cancel).await;
    assert_eq!((cancel.verdict(), cancel.return_status), (RemoteVerdict::Rejected, 8), "{cancel:#?}");

    // A machine that only people tell of; a session that was never opened; an earlier one.
    let lathe = plant.ask(&session(4, "lathe"), RemoteVerb::Pause).await;
    assert!(lathe.words.contains("its protocol cannot command it"), "{lathe:#?}");
    for epoch in [2, 9] {
        let outcome = plant.ask(&session(epoch, "m"), RemoteVerb::Pause).await;
        assert!(outcome.words.contains("the session is over"), "{outcome:#?}");
    }
    assert!(!control.said().iter().any(|line| line.starts_with("FORBIDDEN")), "{:?}", control.said());
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_the_machine_has_not_used_is_taken_back_when_the_line_or_the_session_is_lost() {
    let port = free_port();
    let mut control = Counterpart::start("opcua_machine_tool.py", &["--port", &port.to_string()]).await;
    control.tell(json!({"do": "run_jobs", "on": false})).await;
    control.tell(json!({"do": "item", "machine": "5AX-01", "state": "NotExecuting"})).await;
    control.tell(json!({"do": "set", "node": "5AX-01.Production.PartCount", "value": 1})).await;
    let (coordinator, stop) = (Coordinator::new(), CancellationToken::new());
    let at = coordinator.serve(&stop).await;
    let dir = tempfile::tempdir().unwrap();
    let rule = Rule { standing: vec!["bo".to_owned()], ..Rule::default() };
    let mut plant = Plant::start(dir.path(), coordinator, at, vec![machine_tool(port, rule)]).await;
    plant.until_state("idle").await;
    let first = session(1, "m");
    plant.coordinator.manner(|manner| manner.sessions = vec![first.clone()]);
    assert_eq!(plant.ask(&first, RemoteVerb::Store).await.verdict(), RemoteVerdict::Done);
    let started = plant.ask(&first, RemoteVerb::Start).await;
    assert_eq!((started.verdict(), started.consent.as_str()), (RemoteVerdict::Done, "standing rule for bo"));
    assert_eq!(standing(&mut control).await, "AllowedToStart");

    // The line is cut: what was not used is taken back, within the lease and a moment.
    plant.cable.unplug(true);
    until(&mut control, "NotAllowedToStart").await;
    plant.cable.unplug(false);
    // It is on record, beside the command that gave it.
    let back = plant.told(1, 2, true).await;
    assert_eq!(back.words, "the line to the coordinator was lost; the machine: done (return status 1)");
    let started = plant.ask(&first, RemoteVerb::Start).await;
    assert_eq!(started.verdict(), RemoteVerdict::Done, "{started:#?}");
    assert_eq!(standing(&mut control).await, "AllowedToStart");

    // The session is over.
    plant.coordinator.manner(|manner| manner.sessions = Vec::new());
    until(&mut control, "NotAllowedToStart").await;

    // A running job is left alone.
    let second = session(2, "m");
    plant.coordinator.manner(|manner| manner.sessions = vec![second.clone()]);
    control.tell(json!({"do": "run_jobs", "on": true})).await;
    plant.nonce = 0;
    assert_eq!(plant.ask(&second, RemoteVerb::Start).await.verdict(), RemoteVerdict::Done);
    plant.until_state("producing").await;
    plant.coordinator.manner(|manner| manner.sessions = Vec::new());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(standing(&mut control).await, "Running");
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_quarantined_released_and_started_only_while_it_is_what_it_was() {
    let port = free_port();
    let mut control = Counterpart::start("opcua_machine_tool.py", &["--port", &port.to_string()]).await;
    control.tell(json!({"do": "item", "machine": "5AX-01", "state": "NotExecuting"})).await;
    control.tell(json!({"do": "set", "node": "5AX-01.Production.PartCount", "value": 1})).await;
    let (coordinator, stop) = (Coordinator::new(), CancellationToken::new());
    let at = coordinator.serve(&stop).await;
    let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("own.nc"), "M30").unwrap();
    let rule = Rule { from_afar: true, programs: Some(folder.path().to_owned()), ..Rule::default() };
    let machines = vec![machine_tool(port, rule), lathe()];
    let mut plant = Plant::start(dir.path(), coordinator, at, machines).await;
    plant.until_state("idle").await;
    let open = session(1, "m");
    plant.coordinator.manner(|manner| manner.sessions = vec![open.clone()]);
    let (first, second) = ("G0 X1 Y1 Z1 (the first)", "G0 X2 Y2 Z2 (the second)");
    let hash = |content: &str| Sha256::of(content.as_bytes()).to_string();
    let about = |verb, by: &str, name: &str, content: &str| RemoteCommand {
        program: name.into(),
        program_sha256: hash(content),
        program_bytes: if verb == RemoteVerb::Put { content.len() as u64 } else { 0 },
        ..command(verb, by)
    };
    let given =
        BTreeMap::from([(hash(first), first.into()), (hash(second), b"G0 X2 Y2 Z2 (a stranger)".to_vec())]);
    plant.coordinator.manner(|manner| manner.programs = given);

    // It waits in quarantine; what is not what was named does not get there.
    let put = plant.ask_command(&open, about(RemoteVerb::Put, "buyer:bo", "part.nc", first)).await;
    assert_eq!(put.verdict(), RemoteVerdict::Done, "{put:#?}");
    assert!(put.words.contains(&format!("in quarantine: part.nc (SHA-256 {})", hash(first))), "{put:#?}");
    let other = plant.ask_command(&open, about(RemoteVerb::Put, "buyer:bo", "part.nc", second)).await;
    assert_eq!(other.verdict(), RemoteVerdict::Refused);
    assert!(
        other.words.contains("part.nc has SHA-256 ") && other.words.contains(&hash(second)),
        "{other:#?}"
    );
    let gone = plant.ask_command(&open, about(RemoteVerb::Put, "buyer:bo", "x.nc", "G1")).await;
    assert!(gone.words.contains("the content is not here"), "{gone:#?}");
    assert!(!folder.path().join("part.nc").exists());
    let waiting: Vec<_> =
        plant.quarantine.list().into_iter().map(|one| (one.program.name, one.holder)).collect();
    assert_eq!(waiting, [("part.nc".to_owned(), "bo".to_owned())]);

    // The plant lets it out, by its hash, and nobody else; never over a program of its own.
    let buyer = plant.ask_command(&open, about(RemoteVerb::Release, "buyer:bo", "part.nc", first)).await;
    assert_eq!(words(&buyer), (RemoteVerdict::Refused, "only the plant may ask that"));
    let stored = about(RemoteVerb::Store, "buyer:bo", "part.nc", first);
    let early = plant.ask_command(&open, stored.clone()).await;
    assert!(early.words.contains("part.nc was not released here"), "{early:#?}");
    let another = plant.ask_command(&open, about(RemoteVerb::Release, "member:ya", "part.nc", second)).await;
    assert!(another.words.contains("is not in quarantine for m"), "{another:#?}");
    let released = plant.ask_command(&open, about(RemoteVerb::Release, "member:ya", "part.nc", first)).await;
    assert_eq!(released.verdict(), RemoteVerdict::Done, "{released:#?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("part.nc")).unwrap(), first);
    assert_eq!(
        plant.ask_command(&open, about(RemoteVerb::Put, "buyer:bo", "own.nc", first)).await.verdict(),
        RemoteVerdict::Done
    );
    let own = Program::read("own.nc", &hash(first)).unwrap();
    let refused = plant.program("m", &own, true).await.unwrap_err();
    assert!(refused.contains("is the plant's own and is not replaced"), "{refused}");
    assert_eq!(std::fs::read_to_string(folder.path().join("own.nc")).unwrap(), "M30");
    plant.program("m", &own, false).await.unwrap();
    assert!(plant.quarantine.list().is_empty());

    // A job rests on it, and starts only while it is what it was.
    assert_eq!(plant.ask_command(&open, stored).await.verdict(), RemoteVerdict::Done);
    let wrong = plant.ask_command(&open, about(RemoteVerb::Update, "buyer:bo", "part.nc", second)).await;
    assert!(wrong.words.contains("was released with SHA-256"), "{wrong:#?}");
    let agreed = RemoteCommand { consent_s: 600, ..command(RemoteVerb::Consent, "member:ya") };
    let agreed = plant.ask_command(&open, agreed).await;
    assert_eq!(
        (agreed.verdict(), agreed.consent.as_str()),
        (RemoteVerdict::Done, "member:ya"),
        "{agreed:#?}"
    );
    std::fs::write(folder.path().join("part.nc"), "G0 X9 (somebody's)").unwrap();
    let changed = plant.ask(&open, RemoteVerb::Start).await;
    assert!(changed.words.contains("interlock \"program\" is open: part.nc has SHA-256"), "{changed:#?}");
    std::fs::write(folder.path().join("part.nc"), first).unwrap();
    let withdrawn = plant.ask_command(&open, command(RemoteVerb::Withdraw, "member:ya")).await;
    assert_eq!(withdrawn.verdict(), RemoteVerdict::Done);
    let start = plant.ask(&open, RemoteVerb::Start).await;
    assert_eq!(words(&start), (RemoteVerdict::Refused, "the plant has not agreed that the machine moves"));
    let agreed = RemoteCommand { consent_s: 600, ..command(RemoteVerb::Consent, "member:ya") };
    plant.ask_command(&open, agreed).await;
    let started = plant.ask(&open, RemoteVerb::Start).await;
    assert_eq!(
        (started.verdict(), started.consent.as_str()),
        (RemoteVerdict::Done, "member:ya"),
        "{started:#?}"
    );
    let program = started.interlocks.iter().find(|lock| lock.name == "program").unwrap();
    assert_eq!(program.seen, format!("part.nc (SHA-256 {})", hash(first)));

    // Another content of the same name stays out while the job rests on this one.
    plant.until_state("producing").await;
    let third = "G0 X3";
    plant.coordinator.manner(|manner| drop(manner.programs.insert(hash(third), third.into())));
    let put = plant.ask_command(&open, about(RemoteVerb::Put, "buyer:bo", "part.nc", third)).await;
    assert_eq!(put.verdict(), RemoteVerdict::Done, "{put:#?}");
    let in_use = plant.ask_command(&open, about(RemoteVerb::Release, "member:ya", "part.nc", third)).await;
    assert!(in_use.words.contains("part.nc is in use and is not replaced"), "{in_use:#?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("part.nc")).unwrap(), first);

    // Where the plant names no folder it takes no programs.
    let lathe = session(2, "lathe");
    plant.coordinator.manner(|manner| manner.sessions.push(lathe.clone()));
    let none = plant.ask_command(&lathe, about(RemoteVerb::Put, "buyer:bo", "part.nc", first)).await;
    assert_eq!(none.verdict(), RemoteVerdict::Refused);
    plant.stop().await;
}

/// How the job stands on the machine's own list.
async fn standing(control: &mut Counterpart) -> String {
    control.tell(json!({"do": "jobs", "machine": "5AX-01"})).await;
    let said = control.said();
    let jobs = said.iter().rev().find_map(|line| line.strip_prefix("JOBS ")).unwrap();
    let jobs: serde_json::Value = serde_json::from_str(jobs).unwrap();
    jobs[0]["state"].as_str().unwrap_or_default().to_owned()
}

async fn until(control: &mut Counterpart, state: &str) {
    for _ in 0..150 {
        if standing(control).await == state {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the job is not {state}: {:?}", control.said());
}
