//! The session against a coordinator that misbehaves, over a cable that is cut.

use crate::support::{Cable, Coordinator, booking, numbered, session};
use millpool_node_agent::chance::Chance;
use millpool_node_agent::ground::Ground;
use millpool_node_agent::health::Line;
use millpool_node_agent::outbox::{self, BYTES_MAX_LEAST, Outbox};
use millpool_proto::v1::{DispatchItem, DispatchList};
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::Code;

fn open(dir: &Path) -> Outbox {
    let options = outbox::Options { dir: dir.join("outbox"), bytes_max: BYTES_MAX_LEAST };
    outbox::open(&options, &Ground::Machine).unwrap()
}

/// Whether the events are those with the numbers from 0, in order and once.
fn assert_complete(coordinator: &Coordinator, count: u64) {
    let names: Vec<_> = coordinator.events().iter().filter_map(booking).collect();
    let expected: Vec<_> = (0..count).map(|number| number.to_string()).collect();
    assert_eq!(names.len(), expected.len());
    assert_eq!(names, expected);
    let durable = coordinator.durable.lock().unwrap();
    assert_eq!(durable.wrongs, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_once_and_in_order_through_cuts_and_restarts_of_either_side() {
    let seed = 42;
    let mut chance = Chance::from_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let mut coordinator_stop = CancellationToken::new();
    let address = coordinator.serve(&coordinator_stop).await;
    let cable = Cable::to(address).await;
    let mut given = 0;
    for round in 0..12 {
        let outbox = open(dir.path());
        let stop = CancellationToken::new();
        let (session, _, _) = session(dir.path(), &outbox, &[cable.address]);
        let running = tokio::spawn(session.run(stop.clone()));
        coordinator.manner(|manner| {
            manner.stutters = round % 3 == 0;
            manner.hangs_up_after = (round % 2 == 0).then_some(1 + round % 5);
        });
        for _ in 0..chance.between(1, 6) {
            for _ in 0..chance.between(1, 150) {
                outbox.append(numbered(given)).await.unwrap();
                given += 1;
            }
            tokio::time::sleep(Duration::from_millis(chance.between(0, 25))).await;
            match chance.between(0, 3) {
                0 => cable.cut(),
                1 => {
                    coordinator_stop.cancel();
                    cable.cut();
                    coordinator_stop = CancellationToken::new();
                    coordinator.serve_at(address, &coordinator_stop).await;
                }
                _ => {}
            }
        }
        // The agent dies: the session at once, the outbox without a word.
        running.abort();
        let _ = running.await;
        outbox.close().await;
    }
    coordinator.manner(|manner| manner.hangs_up_after = None);
    let outbox = open(dir.path());
    assert_eq!(outbox.status().borrow().last_seq, given, "seed {seed}");
    let (session, _, _) = session(dir.path(), &outbox, &[cable.address]);
    let stop = CancellationToken::new();
    let running = tokio::spawn(session.run(stop.clone()));
    outbox.status().wait_for(|status| status.acked_seq == given).await.unwrap();
    assert_complete(&coordinator, given);
    let repeated = coordinator.durable.lock().unwrap().repeated;
    println!("{given} events, {repeated} of them sent again");
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_followers_refusal_leads_to_the_leader() {
    let dir = tempfile::tempdir().unwrap();
    let (leader, follower) = (Coordinator::new(), Coordinator::new());
    let stop = CancellationToken::new();
    let leader_address = leader.serve(&stop).await;
    follower.manner(|manner| manner.leader = Some(leader_address.to_string()));
    let follower_address = follower.serve(&stop).await;
    let outbox = open(dir.path());
    outbox.append(numbered(0)).await.unwrap();
    let (session, health, _) = session(dir.path(), &outbox, &[follower_address]);
    tokio::spawn(session.run(stop.clone()));
    leader
        .until("the event is applied", |durable| durable.applied.values().any(|events| events.len() == 1))
        .await;
    let Line::Connected { to, cluster_id, .. } = health.report().line else {
        panic!("{:?}", health.report().line)
    };
    assert_eq!((to, cluster_id), (leader_address.to_string(), "test".to_owned()));
    let durable = leader.durable.lock().unwrap();
    assert_eq!(durable.tokens, ["Bearer secret"]);
    let hello = &durable.hellos[0];
    assert_eq!((hello.plant_id.as_str(), hello.agent_id.as_str(), hello.last_seq), ("plant", "agent", 1));
    stop.cancel();
}

#[tokio::test]
async fn a_dead_coordinator_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let stop = CancellationToken::new();
    let address = coordinator.serve(&stop).await;
    let outbox = open(dir.path());
    outbox.append(numbered(0)).await.unwrap();
    let (session, _, _) = session(dir.path(), &outbox, &["127.0.0.1:1".parse().unwrap(), address]);
    tokio::spawn(session.run(stop.clone()));
    coordinator.until("attached", |durable| durable.hellos.len() == 1).await;
    stop.cancel();
}

#[tokio::test]
async fn a_refusal_that_retrying_does_not_cure_is_shown_and_retried_slowly() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let stop = CancellationToken::new();
    let address = coordinator.serve(&stop).await;
    coordinator.manner(|manner| manner.refuses = Some((Code::AlreadyExists, "AGENT_ALREADY_CONNECTED")));
    let outbox = open(dir.path());
    let (session, health, _) = session(dir.path(), &outbox, &[address]);
    tokio::spawn(session.run(stop.clone()));
    coordinator.until("refused", |durable| !durable.wrongs.is_empty()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let Line::Refused { reason, .. } = health.report().line else { panic!("{:?}", health.report().line) };
    assert_eq!(reason, "AGENT_ALREADY_CONNECTED");
    assert_eq!(coordinator.durable.lock().unwrap().wrongs.len(), 1, "it has not tried again at once");
    coordinator.manner(|manner| manner.refuses = None);
    coordinator.until("attached", |durable| durable.hellos.len() == 1).await;
    stop.cancel();
}

#[tokio::test]
async fn a_silent_coordinator_is_left_and_heartbeats_keep_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let stop = CancellationToken::new();
    let address = coordinator.serve(&stop).await;
    let outbox = open(dir.path());
    let (session, health, _) = session(dir.path(), &outbox, &[address]);
    tokio::spawn(session.run(stop.clone()));
    coordinator.until("heartbeats", |durable| durable.heartbeats >= 10).await;
    assert_eq!(coordinator.durable.lock().unwrap().hellos.len(), 1, "one line, kept by heartbeats");
    coordinator.manner(|manner| manner.silent = true);
    coordinator.until("left and attached again", |durable| durable.hellos.len() >= 2).await;
    assert!(!matches!(health.report().line, Line::Refused { .. }));
    stop.cancel();
}

#[tokio::test]
async fn a_wrong_acknowledgement_ends_the_line_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let stop = CancellationToken::new();
    let address = coordinator.serve(&stop).await;
    coordinator.manner(|manner| {
        manner.overshoots = true;
        manner.dislikes = Some("2".to_owned());
    });
    let outbox = open(dir.path());
    let (session, health, _) = session(dir.path(), &outbox, &[address]);
    tokio::spawn(session.run(stop.clone()));
    for number in 0..5 {
        outbox.append(numbered(number)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    outbox.status().wait_for(|status| status.acked_seq == 5).await.unwrap();
    assert_complete(&coordinator, 5);
    assert_eq!(coordinator.durable.lock().unwrap().hellos.len(), 2);
    assert_eq!(health.report().refused_events, ["3: not booked here"]);
    stop.cancel();
}

#[tokio::test]
async fn a_coordinator_that_knows_more_than_the_outbox_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let stop = CancellationToken::new();
    let address = coordinator.serve(&stop).await;
    let outbox = open(dir.path());
    let outbox_id = outbox.status().borrow().outbox_id.clone();
    coordinator.durable.lock().unwrap().applied.insert(outbox_id, vec![Default::default(); 3]);
    let (session, health, _) = session(dir.path(), &outbox, &[address]);
    tokio::spawn(session.run(stop.clone()));
    coordinator.until("attached", |durable| !durable.hellos.is_empty()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let Line::Refused { reason, .. } = health.report().line else { panic!("{:?}", health.report().line) };
    assert_eq!(reason, "OUTBOX_BEHIND");
    stop.cancel();
}

#[tokio::test]
async fn a_coordinator_that_forgot_gets_a_new_outbox() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let stop = CancellationToken::new();
    let address = coordinator.serve(&stop).await;
    let outbox = open(dir.path());
    let mut many = numbered(0);
    many.events[0].machine_id = "9".repeat(2000);
    many.events = vec![many.events[0].clone(); 600];
    outbox.append(many).await.unwrap();
    outbox.append(numbered(1)).await.unwrap();
    outbox.trim(600).await.unwrap();
    let (session, _, _) = session(dir.path(), &outbox, &[address]);
    tokio::spawn(session.run(stop.clone()));
    let mut status = outbox.status();
    // What is in hand on the one machine, and what was not acknowledged.
    let refounded = status.wait_for(|status| status.last_seq == 2 && status.acked_seq == 2);
    tokio::time::timeout(Duration::from_secs(5), refounded).await.unwrap().unwrap();
    assert_eq!(coordinator.durable.lock().unwrap().wrongs, Vec::<String>::new());
    assert_eq!(coordinator.events().len(), 2);
    stop.cancel();
}

#[tokio::test]
async fn what_was_acknowledged_is_not_sent_again_to_a_coordinator_that_forgot_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    for number in 0..5 {
        outbox.append(numbered(number)).await.unwrap();
    }
    outbox.trim(3).await.unwrap();
    outbox.close().await;
    let outbox = open(dir.path());
    assert_eq!(outbox.read(1, 10).await.unwrap().len(), 5, "they are still on disk");
    let coordinator = Coordinator::new();
    let stop = CancellationToken::new();
    let address = coordinator.serve(&stop).await;
    let (session, _, _) = session(dir.path(), &outbox, &[address]);
    tokio::spawn(session.run(stop.clone()));
    let mut status = outbox.status();
    let sent = status.wait_for(|status| status.last_seq == 2 && status.acked_seq == 2);
    tokio::time::timeout(Duration::from_secs(5), sent).await.unwrap().unwrap();
    let names: Vec<_> = coordinator.events().iter().filter_map(booking).collect();
    assert_eq!(names, ["3", "4"]);
    assert_eq!(coordinator.durable.lock().unwrap().wrongs, Vec::<String>::new());
    stop.cancel();
}

#[tokio::test]
async fn a_list_is_on_disk_before_it_is_said_to_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let stop = CancellationToken::new();
    let address = coordinator.serve(&stop).await;
    let item =
        DispatchItem { machine_id: "m".into(), booking_id: "b".into(), end_s: 9, ..Default::default() };
    let list = DispatchList { plant_id: "plant".into(), revision: 77, items: vec![item] };
    coordinator.manner(|manner| manner.list = Some(list.clone()));
    let outbox = open(dir.path());
    let (session, health, _) = session(dir.path(), &outbox, &[address]);
    tokio::spawn(session.run(stop.clone()));
    coordinator.until("kept", |durable| durable.kept == [77]).await;
    let on_disk =
        millpool_node_agent::dispatch::Dispatch::open(dir.path(), "plant", &Ground::Machine).unwrap();
    assert_eq!(on_disk.watch().borrow().list.as_ref(), Some(&list));
    assert_eq!(health.report().dispatch_revision, 77);
    stop.cancel();
}
