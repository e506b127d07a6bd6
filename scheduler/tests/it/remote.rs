//! Remote operation through the shipped coordinators: sessions and commands on record, passed on to the plant's
//! agent once and in time, and what came of them answered to whoever asked.

use crate::agents::{Agent, event, finished, hello, started};
use crate::harness::*;
use millpool_proto::v1::{
    self, RemoteVerb, RemoteVerdict, agent_event::What, agent_message, coordinator_message,
};
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
    };
    event(seq, &session.machine_id, What::RemoteAnswered(told))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_goes_to_the_agent_once_and_its_outcome_to_whoever_asked() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    found_alliance(&cluster.operator(leader)).await;
    // What asks is a follower's client: sessions are the leader's, whoever is asked.
    let buyer = cluster.client((leader + 1) % 3, "buyer:bo");
    let booking = buyer.book(order(vec![operation("a", 60)])).await;
    let machine = booking.assignments[0].machine_id.clone();
    let (plant, member) = if machine == "mill-3" { ("p-2", "beta") } else { ("p-1", "acme") };
    let raised = || async { cluster.status(leader).await.filter(|s| s.format >= 4).map(drop) };
    eventually("the format to rise", raised).await;

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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_passed_on_in_time_is_passed_on_to_nobody() {
    let mut cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;
    found_alliance(&cluster.operator(leader)).await;
    let buyer = cluster.client(leader, "buyer:bo");
    let booking = buyer.book(order(vec![operation("a", 60)])).await;
    let machine = booking.assignments[0].machine_id.clone();
    let plant = if machine == "mill-3" { "p-2" } else { "p-1" };
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
