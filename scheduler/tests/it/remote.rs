//! Remote operation through the shipped coordinators: sessions and commands on record, passed on to the plant's
//! agent once and in time, and what came of them answered to whoever asked.

use crate::agents::{Agent, event, finished, hello, started};
use crate::harness::*;
use millpool_proto::v1::{
    self, RemoteVerb, RemoteVerdict, agent_event::What, agent_message, coordinator_message,
};
use sha2::Digest as _;
use std::time::{Duration, Instant};
use tonic::Code;

/// The next command that an agent is asked, and the echo that comes with it.
async fn asked(agent: &mut Agent) -> v1::RemoteAsked {
    loop {
        if let coordinator_message::Body::RemoteAsked(asked) = agent.next().await.unwrap() {
            return asked;
        }
    }
}

/// The next list of open sessions.
async fn sessions(agent: &mut Agent) -> Vec<v1::RemoteSession> {
    loop {
        if let coordinator_message::Body::RemoteSessions(list) = agent.next().await.unwrap() {
            return list.sessions;
        }
    }
}

/// Whether nothing is asked for a while.
async fn asks_nothing(agent: &mut Agent) -> bool {
    tokio::time::timeout(Duration::from_millis(700), asked(agent)).await.is_err()
}

async fn open(client: &Client, booking_id: &str) -> Result<v1::Session, tonic::Status> {
    let request = v1::OpenSessionRequest { request_id: fresh(), booking_id: booking_id.into(), operation: 0 };
    Ok(client.remote().open_session(request).await?.into_inner().session.unwrap())
}

fn operate(session_id: &str, verb: RemoteVerb, valid_s: u32) -> v1::OperateRequest {
    let session_id = session_id.to_owned();
    v1::OperateRequest { request_id: fresh(), session_id, verb: verb.into(), valid_s, ..Default::default() }
}

fn answered(seq: u64, asked: &v1::RemoteAsked, words: &str) -> v1::AgentEvent {
    let (session, command) = (asked.session.clone().unwrap(), asked.command.clone().unwrap());
    let outcome = v1::RemoteOutcome {
        verdict: RemoteVerdict::Done.into(),
        at_s: now_s(),
        words: words.into(),
        consent: "anna".into(),
        interlocks: vec![v1::Interlock { name: "door".into(), holds: true, seen: "closed".into() }],
        return_status: 1,
    };
    let told = v1::RemoteAnswered {
        session_id: format!("s{:06}", session.epoch),
        nonce: command.nonce,
        outcome: Some(outcome),
        taken_back: false,
    };
    event(seq, &session.machine_id, What::RemoteAnswered(told))
}

/// A booking of one operation, on the machine of a plant.
struct Scene {
    cluster: Cluster,
    leader: usize,
    /// At a follower, where there is one: sessions are the leader's, whoever is asked.
    buyer: Client,
    booking: v1::Booking,
    machine: String,
    plant: &'static str,
    member: &'static str,
    /// A plant that it does not concern.
    other_plant: &'static str,
}

impl Scene {
    async fn open(nodes: usize) -> Self {
        let mut cluster = Cluster::start(nodes).await;
        let leader = cluster.leader().await;
        found_alliance(&cluster.operator(leader)).await;
        let buyer = cluster.client((leader + 1) % nodes, "buyer:bo");
        let booking = buyer.book(order(vec![operation("a", 60)])).await;
        let machine = booking.assignments[0].machine_id.clone();
        let (plant, member, other_plant) = match machine.as_str() {
            "mill-3" => ("p-2", "beta", "p-1"),
            _ => ("p-1", "acme", "p-2"),
        };
        let raised = || async { cluster.status(leader).await.filter(|status| status.format >= 6).map(drop) };
        eventually("the format to rise", raised).await;
        Self { cluster, leader, buyer, booking, machine, plant, member, other_plant }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_goes_to_the_agent_once_and_its_outcome_to_whoever_asked() {
    let Scene { mut cluster, leader, buyer, booking, machine, plant, member, .. } = Scene::open(3).await;
    let refused = said(&open(&buyer, &booking.id).await.unwrap_err());
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::FailedPrecondition, "WRONG_STATUS"),
        "not yet"
    );
    let at = cluster.client(leader, &format!("agent:{plant}"));
    let mut agent = Agent::say(&at, hello(plant, "a-1", "box")).await.unwrap();
    agent.report(vec![started(1, &machine, &booking.id, 0)]).await;
    agent.applied().await;
    let stranger = cluster.client(leader, "buyer:bi");
    assert_eq!(said(&open(&stranger, &booking.id).await.unwrap_err()).code, Code::NotFound);
    let session = open(&buyer, &booking.id).await.unwrap();
    assert_eq!((session.machine_id.as_str(), session.holder.as_str()), (machine.as_str(), "bo"));
    let known = sessions(&mut agent).await;
    assert_eq!((known[0].epoch, known[0].booking_id.as_str()), (1, booking.id.as_str()));
    assert!(known[0].closes_at_s > now_s());

    // Asked, answered; asked again under the same id, which asks nobody.
    let request = operate(&session.id, RemoteVerb::Pause, 0);
    let asking = tokio::spawn({
        let (buyer, request) = (buyer.clone(), request.clone());
        async move { buyer.remote().operate(request).await.map(|answer| answer.into_inner()) }
    });
    let first = asked(&mut agent).await;
    let command = first.command.clone().unwrap();
    assert_eq!((command.nonce, command.verb(), command.valid_s), (1, RemoteVerb::Pause, 5));
    assert_eq!(command.by, "buyer:bo");
    assert!(first.echo_ms > 0, "it says how old it is at most");
    agent.report(vec![answered(2, &first, "paused")]).await;
    let answer = asking.await.unwrap().unwrap().command.unwrap();
    let outcome = answer.outcome.clone().unwrap();
    assert_eq!((outcome.verdict(), outcome.words.as_str()), (RemoteVerdict::Done, "paused"));
    assert_eq!((outcome.consent.as_str(), outcome.interlocks.len(), outcome.return_status), ("anna", 1, 1));
    let again = buyer.remote().operate(request).await.unwrap().into_inner().command.unwrap();
    assert_eq!(again, answer);
    assert!(asks_nothing(&mut agent).await);

    // Nobody else may ask, and each side only what its row allows.
    let member = cluster.client(leader, &format!("member:{member}"));
    for (who, verb, code) in [
        (&stranger, RemoteVerb::Pause, Code::NotFound),
        (&member, RemoteVerb::Start, Code::PermissionDenied),
        (&buyer, RemoteVerb::Abort, Code::PermissionDenied),
        (&buyer, RemoteVerb::Unspecified, Code::InvalidArgument),
    ] {
        let refused = who.remote().operate(operate(&session.id, verb, 1)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{verb:?}: {refused}");
    }
    let too_long =
        said(&buyer.remote().operate(operate(&session.id, RemoteVerb::Pause, 31)).await.unwrap_err());
    assert_eq!((too_long.field.as_str(), too_long.accepted.as_str()), ("valid_s", "1 to 30"));

    // Both sides read the record, from any node.
    let read = |client: &Client| {
        let client = client.clone();
        let request = v1::GetSessionRequest { session_id: session.id.clone(), consistency: None };
        async move { client.remote().get_session(request).await.map(|a| a.into_inner().session.unwrap()) }
    };
    let view_request = v1::GetSessionRequest { session_id: session.id.clone(), consistency: None };
    let view = member.remote().get_session(view_request).await.unwrap().into_inner().view.unwrap();
    assert!(view.started && view.pieces_good == 0 && view.expected_end_s > now_s(), "{view:?}");
    let record = read(&member).await.unwrap();
    assert_eq!(record.commands, [answer]);
    assert_eq!(read(&buyer).await.unwrap(), record);
    assert_eq!(read(&stranger).await.unwrap_err().code(), Code::NotFound);

    // The operation ends, and the session with it.
    agent.report(vec![finished(3, &machine, &booking.id, 0)]).await;
    assert!(sessions(&mut agent).await.is_empty());
    let over = buyer.remote().operate(operate(&session.id, RemoteVerb::Pause, 1)).await.unwrap_err();
    assert_eq!(said(&over).reason, "WRONG_STATUS");
    let list = |open_only| {
        let (buyer, request) = (buyer.clone(), v1::ListSessionsRequest { open_only, ..Default::default() });
        async move { buyer.remote().list_sessions(request).await.unwrap().into_inner().sessions }
    };
    let listed = list(false).await;
    assert_eq!((listed.len(), listed[0].commands.len()), (1, 0));
    assert!(listed[0].closed_because.contains("Completed"), "{listed:?}");
    assert!(list(true).await.is_empty());
    cluster.agree().await;
}

fn sha256(content: &[u8]) -> String {
    sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hands the program of a PUT over in parts; answers with what has been received, or what was said to the last.
async fn upload(client: &Client, put: &v1::OperateRequest, content: &[u8]) -> Result<u64, tonic::Status> {
    let mut received = 0;
    for (at, part) in content.chunks(100_000).enumerate() {
        let request = v1::UploadProgramRequest {
            session_id: put.session_id.clone(),
            program: put.program.clone(),
            program_sha256: put.program_sha256.clone(),
            program_bytes: put.program_bytes,
            offset: at as u64 * 100_000,
            part: part.to_vec().into(),
        };
        received = client.remote().upload_program(request).await?.into_inner().received_bytes;
    }
    Ok(received)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_goes_to_the_plants_agent_and_to_nobody_else() {
    let Scene { mut cluster, leader, buyer, booking, machine, plant, member, other_plant } =
        Scene::open(3).await;
    let at = cluster.client(leader, &format!("agent:{plant}"));
    let mut agent = Agent::say(&at, hello(plant, "a-1", "box")).await.unwrap();
    agent.report(vec![started(1, &machine, &booking.id, 0)]).await;
    agent.applied().await;
    let session = open(&buyer, &booking.id).await.unwrap();

    // Handed over through a follower, in parts; what is not what it is said to be is not kept.
    let content: Vec<u8> = (0..250_000_u32).map(|n| (n % 251) as u8).collect();
    let named = sha256(&content);
    let put = v1::OperateRequest {
        program: "part.nc".into(),
        program_sha256: named.clone(),
        program_bytes: content.len() as u64,
        ..operate(&session.id, RemoteVerb::Put, 20)
    };
    let early = said(&buyer.remote().operate(put.clone()).await.unwrap_err());
    assert_eq!((early.reason.as_str(), early.field.as_str()), ("WRONG_STATUS", "program_sha256"));
    let another = v1::OperateRequest { program_sha256: sha256(b"another"), ..put.clone() };
    let wrong = said(&upload(&buyer, &another, &content).await.unwrap_err());
    assert_eq!(wrong.field, "program_sha256");
    assert!(wrong.accepted.contains(&named), "{wrong:?}");
    let misnamed = v1::OperateRequest { program: "../part.nc".into(), ..put.clone() };
    let first_part = &content[..100_000];
    assert_eq!(said(&upload(&buyer, &misnamed, first_part).await.unwrap_err()).field, "program");
    for (client, code) in [
        (cluster.client(leader, "buyer:bi"), Code::NotFound),
        (cluster.client(leader, &format!("member:{member}")), Code::PermissionDenied),
    ] {
        assert_eq!(upload(&client, &put, &content).await.unwrap_err().code(), code);
    }
    assert_eq!(upload(&buyer, &put, &content).await.unwrap(), 250_000);

    // The command is on record, and the content is fetched by the plant's own agent.
    let asking = tokio::spawn({
        let (buyer, put) = (buyer.clone(), put.clone());
        async move { buyer.remote().operate(put).await.map(|answer| answer.into_inner()) }
    });
    let told = asked(&mut agent).await;
    let command = told.command.clone().unwrap();
    assert_eq!((command.verb(), command.program.as_str()), (RemoteVerb::Put, "part.nc"));
    assert_eq!((command.program_sha256.as_str(), command.program_bytes), (named.as_str(), 250_000));
    let fetch = |client: &Client, offset: u64| {
        let (client, program_sha256) = (client.clone(), command.program_sha256.clone());
        let request = v1::FetchProgramRequest { session_id: session.id.clone(), program_sha256, offset };
        async move { client.agent().fetch_program(request).await.map(|answer| answer.into_inner().part) }
    };
    assert_eq!(fetch(&at, 0).await.unwrap(), content);
    assert_eq!(fetch(&at, 249_999).await.unwrap(), content[249_999..]);
    assert!(fetch(&at, 250_000).await.unwrap().is_empty());
    let stranger = cluster.client(leader, &format!("agent:{other_plant}"));
    assert_eq!(fetch(&stranger, 0).await.unwrap_err().code(), Code::NotFound);
    let follower = cluster.client((leader + 1) % 3, &format!("agent:{plant}"));
    assert_eq!(said(&fetch(&follower, 0).await.unwrap_err()).reason, "NOT_LEADER");
    agent.report(vec![answered(2, &told, "in quarantine")]).await;
    assert_eq!(asking.await.unwrap().unwrap().command.unwrap().outcome.unwrap().words, "in quarantine");

    // The plant agrees over the same way, and what the agent takes back is on the same record.
    let member = cluster.client(leader, &format!("member:{member}"));
    let consent = v1::OperateRequest { consent_s: 600, ..operate(&session.id, RemoteVerb::Consent, 20) };
    let agreeing = tokio::spawn(async move { member.remote().operate(consent).await.map(drop) });
    let told = asked(&mut agent).await;
    assert_eq!(told.command.as_ref().map(|command| command.consent_s), Some(600));
    agent.report(vec![answered(3, &told, "agreed")]).await;
    agreeing.await.unwrap().unwrap();
    let starting = tokio::spawn({
        let (buyer, request) = (buyer.clone(), operate(&session.id, RemoteVerb::Start, 20));
        async move { buyer.remote().operate(request).await.map(drop) }
    });
    let told = asked(&mut agent).await;
    let mut back = answered(5, &told, "the line was lost");
    if let Some(What::RemoteAnswered(answered)) = &mut back.what {
        answered.taken_back = true;
    }
    agent.report(vec![answered(4, &told, "allowed"), back]).await;
    starting.await.unwrap().unwrap();
    let request = v1::GetSessionRequest { session_id: session.id.clone(), consistency: None };
    let taken_back = || async {
        let known = buyer.remote().get_session(request.clone()).await.unwrap().into_inner().session.unwrap();
        known.commands.last().unwrap().taken_back.clone()
    };
    assert_eq!(eventually("the taking back", taken_back).await.words, "the line was lost");

    // With the session its content is gone.
    agent.report(vec![finished(6, &machine, &booking.id, 0)]).await;
    agent.applied().await;
    let gone = || async { fetch(&at, 0).await.err() };
    assert_eq!(eventually("the session's end", gone).await.code(), Code::NotFound);
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_passed_on_in_time_is_passed_on_to_nobody() {
    let Scene { cluster, leader, buyer, booking, machine, plant, .. } = Scene::open(1).await;
    let at = cluster.client(leader, &format!("agent:{plant}"));
    let mut agent = Agent::attach(&at, plant, "a-1", "box").await.unwrap();
    agent.report(vec![started(1, &machine, &booking.id, 0)]).await;
    agent.applied().await;
    let session = eventually("a session", || async { open(&buyer, &booking.id).await.ok() }).await;
    drop(agent);
    eventually("the agent to be gone", || async {
        cluster.status(leader).await.filter(|status| status.agents_connected == 0).map(drop)
    })
    .await;
    let begun = Instant::now();
    let unheard = buyer.remote().operate(operate(&session.id, RemoteVerb::Start, 1)).await.unwrap();
    let unheard = unheard.into_inner().command.unwrap();
    assert_eq!((unheard.nonce, unheard.outcome), (1, None));
    assert!(begun.elapsed() >= Duration::from_secs(3), "it waits for the agent: {:?}", begun.elapsed());
    let mut agent = Agent::attach(&at, plant, "a-1", "box").await.unwrap();
    assert_eq!(sessions(&mut agent).await.len(), 1);
    assert!(asks_nothing(&mut agent).await, "its time is up");

    // One that is still good when the agent comes is asked; and again on another line, if nothing is known of it.
    let later = tokio::spawn({
        let (buyer, request) = (buyer.clone(), operate(&session.id, RemoteVerb::Pause, 20));
        async move { buyer.remote().operate(request).await.unwrap().into_inner().command.unwrap() }
    });
    assert_eq!(asked(&mut agent).await.command.unwrap().nonce, 2);
    drop(agent);
    let mut agent =
        eventually("a place", || async { Agent::attach(&at, plant, "a-1", "box").await.ok() }).await;
    let again = asked(&mut agent).await;
    assert_eq!(again.command.as_ref().unwrap().nonce, 2, "the agent knows that it has seen it");
    agent.report(vec![answered(2, &again, "paused")]).await;
    assert_eq!(later.await.unwrap().outcome.unwrap().words, "paused");

    // The echo follows the agent's own clock.
    let clock_ms = now_s() * 1000 + 1_234;
    let beat = agent_message::Body::Heartbeat(v1::Heartbeat { clock_ms, echo_ms: 0 });
    agent.send(beat).await;
    let echo = async {
        loop {
            if let coordinator_message::Body::Heartbeat(beat) = agent.next().await.unwrap()
                && beat.echo_ms == clock_ms
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, echo).await.unwrap();
}
