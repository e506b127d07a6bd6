//! Plants' agents: one stream each, events once and in order, disturbances repaired.

use crate::harness::*;
use millpool_proto::v1::{self, agent_event::What, agent_message, coordinator_message};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// An agent's end of the stream.
pub struct Agent {
    pub welcome: v1::Welcome,
    to: mpsc::Sender<v1::AgentMessage>,
    from: Streaming<v1::CoordinatorMessage>,
    lists: Vec<v1::DispatchList>,
}

/// What an agent of `plant` says first.
pub fn hello(plant: &str, agent: &str, outbox: &str) -> v1::Hello {
    v1::Hello {
        plant_id: plant.into(),
        agent_id: agent.into(),
        outbox_id: outbox.into(),
        clock_ms: now_s() * 1000,
        ..Default::default()
    }
}

impl Agent {
    pub async fn attach(client: &Client, plant: &str, agent: &str, outbox: &str) -> Result<Agent, Status> {
        Agent::say(client, hello(plant, agent, outbox)).await
    }

    pub async fn say(client: &Client, hello: v1::Hello) -> Result<Agent, Status> {
        let (to, outgoing) = mpsc::channel(16);
        let first = v1::AgentMessage { body: Some(agent_message::Body::Hello(hello)) };
        to.send(first).await.unwrap();
        let mut from = client.agent().attach(ReceiverStream::new(outgoing)).await?.into_inner();
        match from.message().await?.and_then(|m| m.body) {
            Some(coordinator_message::Body::Welcome(welcome)) => {
                Ok(Agent { welcome, to, from, lists: vec![] })
            }
            other => panic!("Welcome comes first, not {other:?}"),
        }
    }

    pub async fn report(&self, events: Vec<v1::AgentEvent>) {
        let body = Some(agent_message::Body::Events(v1::AgentEvents { events }));
        self.to.send(v1::AgentMessage { body }).await.unwrap();
    }

    /// Says something.
    pub async fn send(&self, body: agent_message::Body) {
        self.to.send(v1::AgentMessage { body: Some(body) }).await.unwrap();
    }

    /// A sign of life from a plant whose clock shows this.
    async fn beat(&self, clock_ms: i64) {
        self.send(agent_message::Body::Heartbeat(v1::Heartbeat { clock_ms, echo_ms: 0 })).await;
    }

    pub async fn next(&mut self) -> Result<coordinator_message::Body, Status> {
        let message =
            tokio::time::timeout(PATIENCE, self.from.message()).await.expect("a message in time")?;
        message.and_then(|m| m.body).ok_or_else(|| Status::cancelled("the stream ended"))
    }

    /// The next acknowledgement, or how the stream ended.
    pub async fn acknowledged(&mut self) -> Result<v1::EventsApplied, Status> {
        loop {
            match self.next().await? {
                coordinator_message::Body::EventsApplied(applied) => return Ok(applied),
                coordinator_message::Body::DispatchList(list) => self.lists.push(list),
                _ => {}
            }
        }
    }

    pub async fn applied(&mut self) -> v1::EventsApplied {
        self.acknowledged().await.unwrap()
    }

    /// The next dispatch list.
    pub async fn dispatch(&mut self) -> v1::DispatchList {
        loop {
            if !self.lists.is_empty() {
                return self.lists.remove(0);
            }
            if let coordinator_message::Body::DispatchList(list) = self.next().await.unwrap() {
                self.lists.push(list);
            }
        }
    }
}

pub fn event(seq: u64, machine: &str, what: What) -> v1::AgentEvent {
    v1::AgentEvent { seq, at_ms: now_s() * 1000, machine_id: machine.into(), what: Some(what) }
}

pub fn started(seq: u64, machine: &str, booking: &str, operation: u32) -> v1::AgentEvent {
    let what = v1::OperationStarted { booking_id: booking.into(), operation };
    event(seq, machine, What::OperationStarted(what))
}

pub fn finished(seq: u64, machine: &str, booking: &str, operation: u32) -> v1::AgentEvent {
    let what = v1::OperationFinished {
        booking_id: booking.into(),
        operation,
        pieces_good: 1,
        measured_s: 60,
        energy_wh: 777,
        energy_measured: true,
        ..Default::default()
    };
    event(seq, machine, What::OperationFinished(what))
}

fn down(seq: u64, machine: &str, expected_until_s: i64) -> v1::AgentEvent {
    event(seq, machine, What::MachineDown(v1::MachineDown { reason: "spindle".into(), expected_until_s }))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_a_plant_with_a_clock_that_is_right_and_its_own_machines() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    found_alliance(&cluster.operator(leader)).await;
    let at = cluster.client(leader, "agent:p-1");

    let follower = (leader + 1) % 3;
    let elsewhere = Agent::attach(&cluster.client(follower, "agent:p-1"), "p-1", "a-1", "box").await;
    let elsewhere = said(&elsewhere.err().unwrap());
    assert_eq!((elsewhere.code, elsewhere.reason.as_str()), (Code::Unavailable, "NOT_LEADER"));
    assert_eq!(elsewhere.metadata["leader"], format!("127.0.0.1:{}", cluster.ports(leader).0));

    let machine = |id: &str| v1::AgentMachine { machine_id: id.into() };
    let good = hello("p-1", "a-1", "box");
    for (what, hello, code, reason, field) in [
        (
            "fast",
            v1::Hello { clock_ms: good.clock_ms + 120_000, ..good.clone() },
            Code::FailedPrecondition,
            "CLOCK_SKEW",
            "clock_ms",
        ),
        (
            "slow",
            v1::Hello { clock_ms: good.clock_ms - 120_000, ..good.clone() },
            Code::FailedPrecondition,
            "CLOCK_SKEW",
            "clock_ms",
        ),
        (
            "at the beginning of time",
            v1::Hello { clock_ms: i64::MIN, ..good.clone() },
            Code::FailedPrecondition,
            "CLOCK_SKEW",
            "clock_ms",
        ),
        (
            "at the end of time",
            v1::Hello { clock_ms: i64::MAX, ..good.clone() },
            Code::FailedPrecondition,
            "CLOCK_SKEW",
            "clock_ms",
        ),
        (
            "another plant's machine",
            v1::Hello { machines: vec![machine("mill-3")], ..good.clone() },
            Code::NotFound,
            "UNKNOWN_ID",
            "machines.machine_id",
        ),
        (
            "no machine",
            v1::Hello { machines: vec![machine("mill-9")], ..good.clone() },
            Code::NotFound,
            "UNKNOWN_ID",
            "machines.machine_id",
        ),
        ("another plant", hello("p-2", "a-1", "box"), Code::NotFound, "UNKNOWN_ID", "plant_id"),
        ("no plant", hello("p-9", "a-1", "box"), Code::NotFound, "UNKNOWN_ID", "plant_id"),
        ("no name", hello("p-1", "", "box"), Code::InvalidArgument, "INVALID_FIELD", "agent_id"),
        ("no outbox", hello("p-1", "a-1", ""), Code::InvalidArgument, "INVALID_FIELD", "outbox_id"),
    ] {
        let refused =
            said(&Agent::say(&at, hello).await.err().unwrap_or_else(|| panic!("{what} is refused")));
        let says = (refused.code, refused.reason.as_str(), refused.field.as_str());
        assert_eq!(says, (code, reason, field), "{what}: {refused:?}");
    }

    let first = Agent::attach(&at, "p-1", "a-1", "box").await.unwrap();
    assert_eq!((first.welcome.cluster_id.as_str(), first.welcome.applied_seq), ("test", 0));
    assert_eq!(cluster.status(leader).await.unwrap().agents_connected, 1);
    let second = said(&Agent::attach(&at, "p-1", "a-2", "box-2").await.err().unwrap());
    assert_eq!((second.code, second.reason.as_str()), (Code::AlreadyExists, "AGENT_ALREADY_CONNECTED"));
    Agent::attach(&cluster.client(leader, "agent:p-2"), "p-2", "a-1", "box").await.unwrap();
    drop(first);
    eventually("the place to be free", || async { Agent::attach(&at, "p-1", "a-2", "box-2").await.ok() })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_clock_goes_wrong_is_sent_away_and_goes_on_after_a_spare_where_it_was() {
    let cluster = Cluster::start(1).await;
    found_alliance(&cluster.operator(0)).await;
    let at = cluster.client(0, "agent:p-1");
    let mut agent = Agent::attach(&at, "p-1", "a-1", "box").await.unwrap();
    agent.report(vec![down(1, "mill-1", 0), event(2, "mill-1", What::MachineUp(v1::MachineUp {}))]).await;
    assert_eq!(agent.applied().await.seq, 2);
    agent.beat(now_s() * 1000).await;
    agent.beat((now_s() - 120) * 1000).await;
    let sent_away = said(&agent.acknowledged().await.unwrap_err());
    assert_eq!((sent_away.reason.as_str(), sent_away.field.as_str()), ("CLOCK_SKEW", "clock_ms"));

    let attach = |outbox| Agent::attach(&at, "p-1", "a-1", outbox);
    let spare = eventually("the place to be free", || async { attach("box-2").await.ok() }).await;
    assert_eq!(spare.welcome.applied_seq, 0);
    drop(spare);
    let again = eventually("the place to be free", || async { attach("box").await.ok() }).await;
    assert_eq!(again.welcome.applied_seq, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_applied_once_and_in_order() {
    let cluster = Cluster::start(1).await;
    found_alliance(&cluster.operator(0)).await;
    let bo = cluster.client(0, "buyer:bo");
    let mut wanted = order(vec![operation("a", 60)]);
    wanted.excluded_plants = vec!["p-2".into()];
    let one = bo.book(wanted.clone()).await;
    let two = bo.book(wanted).await;
    let on = |b: &v1::Booking| b.assignments[0].machine_id.clone();
    let at = cluster.client(0, "agent:p-1");
    let mut agent = Agent::attach(&at, "p-1", "a-1", "box").await.unwrap();
    let batch = vec![started(1, &on(&one), &one.id, 0), finished(2, &on(&one), &one.id, 0)];
    agent.report(batch.clone()).await;
    assert_eq!(agent.applied().await, v1::EventsApplied { seq: 2, refused: vec![] });
    let done = bo.get(&one.id).await.unwrap();

    // Delivered again, alone and with more behind: nothing happens twice.
    agent.report(batch.clone()).await;
    assert_eq!(agent.applied().await, v1::EventsApplied { seq: 2, refused: vec![] });
    assert_eq!(bo.get(&one.id).await.unwrap(), done);
    let more = [batch, vec![started(3, &on(&two), &two.id, 0)]].concat();
    agent.report(more).await;
    assert_eq!(agent.applied().await.seq, 3);

    // What cannot be is told, and does not hold up what follows.
    agent
        .report(vec![
            started(4, &on(&two), &two.id, 0),
            started(5, "mill-3", &two.id, 0),
            started(6, &on(&two), "b999999", 0),
            started(7, &on(&two), &two.id, 9),
            finished(8, &on(&two), &two.id, 0),
        ])
        .await;
    let told = agent.applied().await;
    assert_eq!(told.seq, 8);
    assert_eq!(told.refused.iter().map(|r| r.seq).collect::<Vec<_>>(), [4, 5, 6, 7]);
    assert!(told.refused.iter().all(|r| !r.reason.is_empty()));
    assert_eq!(bo.get(&two.id).await.unwrap().status(), v1::BookingStatus::Completed);

    // The outbox goes on where it was, also over another stream; a gap ends the stream.
    drop(agent);
    let again = || Agent::attach(&at, "p-1", "a-1", "box");
    let mut agent = eventually("the place to be free", || async { again().await.ok() }).await;
    assert_eq!(agent.welcome.applied_seq, 8);
    agent.report(vec![event(10, "mill-1", What::MachineUp(v1::MachineUp {}))]).await;
    let gap = said(&agent.acknowledged().await.unwrap_err());
    assert_eq!((gap.code, gap.reason.as_str(), gap.field.as_str()), (Code::OutOfRange, "EVENT_GAP", "seq"));
    assert!(gap.accepted.starts_with('9'), "{gap:?}");

    // A malformed event ends the stream with the field at fault, and changes nothing.
    let mut agent = eventually("the place to be free", || async { again().await.ok() }).await;
    agent.report(vec![v1::AgentEvent { seq: 9, machine_id: "mill-1".into(), ..Default::default() }]).await;
    let empty = said(&agent.acknowledged().await.unwrap_err());
    assert_eq!((empty.reason.as_str(), empty.field.as_str()), ("INVALID_FIELD", "event.what"));
    let mut agent = eventually("the place to be free", || async { again().await.ok() }).await;
    assert_eq!(agent.welcome.applied_seq, 8);
    let many = (9..9 + 257).map(|seq| event(seq, "mill-1", What::MachineUp(v1::MachineUp {}))).collect();
    agent.report(many).await;
    let many = said(&agent.acknowledged().await.unwrap_err());
    assert_eq!((many.field.as_str(), many.value.as_str()), ("events (count)", "257"));

    // Times and numbers at both ends are believed as far as they can be, and harm nobody.
    let mut agent = eventually("the place to be free", || async { again().await.ok() }).await;
    let gap =
        |from_ms, until_ms| What::EvidenceGap(v1::EvidenceGap { from_ms, until_ms, reason: "x".into() });
    let mut extreme = vec![
        event(9, "mill-1", gap(i64::MIN, i64::MAX)),
        event(10, "mill-1", gap(i64::MAX, i64::MIN)),
        down(11, "mill-1", i64::MAX),
        down(12, "mill-1", i64::MIN),
        event(13, "mill-1", What::MachineUp(v1::MachineUp {})),
        event(14, "mill-1", What::StateChanged(v1::StateChanged { state: 4711 })),
    ];
    for (i, event) in extreme.iter_mut().enumerate() {
        event.at_ms = if i % 2 == 0 { i64::MIN } else { i64::MAX };
    }
    agent.report(extreme).await;
    assert_eq!(agent.applied().await.seq, 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_that_pile_up_go_to_the_log_together_and_what_comes_between_them_is_heard() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    found_alliance(&cluster.operator(leader)).await;
    let mut agent = Agent::attach(&cluster.client(leader, "agent:p-1"), "p-1", "a-1", "box").await.unwrap();
    let state = |seq| {
        let state = if seq % 2 == 0 { v1::MachineState::Idle } else { v1::MachineState::Producing };
        event(seq, "mill-1", What::StateChanged(v1::StateChanged { state: state.into() }))
    };
    let before = cluster.status(leader).await.unwrap().header.unwrap().revision;
    for seq in 1..=200 {
        agent.report(vec![state(seq)]).await;
    }
    while agent.applied().await.seq < 200 {}
    let entries = cluster.status(leader).await.unwrap().header.unwrap().revision - before;
    assert!((1..50).contains(&entries), "{entries} entries for 200 reports");
    let listed = cluster.operator(leader).capacity().list_machines(v1::ListMachinesRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().machines[0].state(), v1::MachineState::Idle);

    // A clock that is an hour off, said among reports: what was said before it counts, and what comes after it does not.
    for seq in 201..=220 {
        agent.report(vec![state(seq)]).await;
    }
    agent.beat((now_s() - 3600) * 1000).await;
    for seq in 221..=240 {
        agent.report(vec![state(seq)]).await;
    }
    let mut applied = 200;
    let ended = loop {
        match agent.acknowledged().await {
            Ok(acknowledged) => applied = acknowledged.seq,
            Err(status) => break said(&status),
        }
    };
    assert_eq!((applied, ended.reason.as_str()), (220, "CLOCK_SKEW"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plant_hears_of_its_work_at_once() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    found_alliance(&cluster.operator(leader)).await;
    let bo = cluster.client(leader, "buyer:bo");
    let mut agents = Vec::new();
    for plant in ["p-1", "p-2"] {
        let client = cluster.client(leader, &format!("agent:{plant}"));
        let mut agent = Agent::attach(&client, plant, "a-1", "box").await.unwrap();
        assert_eq!(agent.dispatch().await.items, []);
        agents.push(agent);
    }
    // Well before the next sign of life, with which every list is looked at again.
    for _ in 0..4 {
        for (agent, elsewhere) in agents.iter_mut().zip(["p-2", "p-1"]) {
            let mut wanted = order(vec![operation("a", 120)]);
            wanted.excluded_plants = vec![elsewhere.into()];
            let booking = bo.book(wanted).await;
            let list = tokio::time::timeout(Duration::from_secs(1), agent.dispatch()).await;
            let items = list.expect("a list at once").items;
            assert!(items.iter().any(|item| item.booking_id == booking.id), "{items:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_breakdown_displaced_work_is_placed_anew_and_the_buyer_is_told() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    found_alliance(&cluster.operator(leader)).await;
    let bo = cluster.client((leader + 1) % 3, "buyer:bo");
    let mut booked = Vec::new();
    for _ in 0..6 {
        let mut wanted = order(vec![operation("a", 120)]);
        wanted.excluded_plants = vec!["p-2".into()];
        booked.push(bo.book(wanted).await);
    }
    let request = v1::WatchBookingsRequest::default();
    let mut watching = bo.booking().watch_bookings(request).await.unwrap().into_inner();
    watching.message().await.unwrap().unwrap();
    let mut agent = Agent::attach(&cluster.client(leader, "agent:p-1"), "p-1", "a-1", "box").await.unwrap();
    let back = minutes(3 * 24 * 60);
    agent.report(vec![down(1, "mill-1", back)]).await;
    assert!(agent.applied().await.refused.is_empty());
    let hit: Vec<&v1::Booking> = booked.iter().filter(|b| b.assignments[0].machine_id == "mill-1").collect();
    assert!(!hit.is_empty());

    for booking in &booked {
        let now = eventually("a place for all", || async {
            bo.get(&booking.id).await.ok().filter(|b| b.assignments.len() == 1)
        })
        .await;
        let place = &now.assignments[0];
        assert!(place.machine_id != "mill-1" || place.start_s >= back, "{place:?}");
        let disturbed = hit.iter().any(|b| b.id == booking.id);
        assert_eq!(now.disturbances.len(), usize::from(disturbed), "{now:?}");
        assert!(!now.at_risk, "there is time enough");
        assert_eq!(now.promise, booking.promise);
        if disturbed {
            assert_eq!(now.disturbances[0].kind(), v1::DisturbanceKind::Breakdown);
            assert_eq!(now.disturbances[0].reason, "spindle");
        } else {
            assert_eq!(now.assignments, booking.assignments, "what was not hit stays");
        }
    }
    // The watch told of each: first without a place and at risk, then with one.
    let mut lost = Vec::new();
    let mut found = Vec::new();
    while found.len() < hit.len() {
        for booking in watching.message().await.unwrap().unwrap().bookings {
            match booking.assignments.is_empty() {
                true => {
                    assert!(booking.at_risk);
                    lost.push(booking.id);
                }
                false => found.push(booking.id),
            }
        }
    }
    lost.sort();
    found.sort();
    assert_eq!(lost, found);

    // With the plant's other machine gone, too, nothing can be made where the buyer allows it before the
    // promise: at risk, and it stays told; when a machine comes back, each gets a place.
    agent
        .report(vec![down(2, "mill-1", minutes(25 * 24 * 60)), down(3, "mill-2", minutes(25 * 24 * 60))])
        .await;
    assert_eq!(agent.applied().await.seq, 3);
    for booking in &booked {
        let now = bo.get(&booking.id).await.unwrap();
        assert!(now.at_risk && now.assignments.is_empty(), "{now:?}");
    }
    agent.report(vec![event(4, "mill-2", What::MachineUp(v1::MachineUp {}))]).await;
    assert_eq!(agent.applied().await.seq, 4);
    for booking in &booked {
        let placed = eventually("a place on the machine that came back", || async {
            bo.get(&booking.id).await.ok().filter(|b| b.assignments.len() == 1)
        });
        assert_eq!(placed.await.assignments[0].machine_id, "mill-2");
    }
    // The agent has the list of what is to be done now.
    let all = eventually("the list", || async {
        let client = cluster.client(leader, "member:acme");
        let plan = client.plan().get_plan(v1::GetPlanRequest::default()).await.ok()?.into_inner();
        (plan.entries.len() == 6).then_some(plan)
    });
    assert!(all.await.entries.iter().all(|e| e.machine_id == "mill-2"));
    let mut list = agent.dispatch().await;
    while list.items.len() < 6 {
        list = tokio::time::timeout(Duration::from_secs(5), agent.dispatch()).await.unwrap();
    }
}
