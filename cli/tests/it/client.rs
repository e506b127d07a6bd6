//! The client against a fake cluster: one request id through all attempts, failover, and watches that
//! miss nothing.

use crate::fake::{Cluster, FakeNode, Fault, State, sample};
use millpool_cli::client::watch::Follow;
use millpool_cli::client::{Client, ClientError, ClientOptions, ErrorKind, TlsOptions, Watch, WatchEvent};
use millpool_proto::v1::*;
use std::time::{Duration, Instant};

fn options(nodes: &[&FakeNode]) -> ClientOptions {
    ClientOptions {
        endpoints: nodes.iter().map(|node| node.address.clone()).collect(),
        attempt_timeout: Duration::from_millis(400),
        deadline: Duration::from_secs(5),
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(50),
        seed: Some(1),
        ..ClientOptions::default()
    }
}

fn client(nodes: &[&FakeNode]) -> Client {
    Client::new(options(nodes)).unwrap()
}

fn order() -> BookRequest {
    BookRequest { order: Some(sample::order()), ..BookRequest::default() }
}

fn heard(cluster: &Cluster) -> Vec<String> {
    cluster.state.lock().unwrap().request_ids_heard.clone()
}

#[tokio::test]
async fn a_node_that_cannot_serve_is_left_for_the_next() {
    let cluster = Cluster::new(State::default());
    let (one, two) = (cluster.start(1), cluster.start(2));
    one.fail_next([Fault::Unavailable]);
    let client = client(&[&one, &two]);
    let booked = client.book(order()).await.unwrap();
    assert_eq!(booked.booking.unwrap().id, "B000001");
    assert_eq!((one.calls(), two.calls()), (vec!["Book"], vec!["Book"]));
    assert_eq!(client.preferred_endpoint(), two.address, "the next call goes where the last was served");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_request_id() {
    for fault in [Fault::AnswerLost, Fault::Silence] {
        let cluster = Cluster::new(State::default());
        let (one, two) = (cluster.start(1), cluster.start(2));
        one.fail_next([fault.clone()]);
        let booked = client(&[&one, &two]).book(order()).await.unwrap();
        assert_eq!(booked.booking.unwrap().id, "B000001", "{fault:?}");
        let ids = heard(&cluster);
        assert_eq!(ids.len(), 2, "{fault:?}");
        assert_eq!(ids[0], ids[1], "{fault:?}");
        assert_eq!(ids[0].len(), 32, "{fault:?}");
        assert_eq!(cluster.state.lock().unwrap().bookings.len(), 1, "{fault:?}: booked once");
    }
}

#[tokio::test]
async fn each_intent_has_its_own_request_id_and_a_given_one_is_kept() {
    let cluster = Cluster::new(State::default());
    let node = cluster.start(1);
    let client = client(&[&node]);
    client.book(order()).await.unwrap();
    client.book(order()).await.unwrap();
    client.book(BookRequest { request_id: "mine".to_owned(), ..order() }).await.unwrap();
    let ids = heard(&cluster);
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[2], "mine");
}

#[tokio::test]
async fn a_refusal_is_an_answer_with_all_its_details() {
    let cluster = Cluster::new(State::default());
    let (one, two) = (cluster.start(1), cluster.start(2));
    one.fail_next([Fault::Refused]);
    let error = client(&[&one, &two]).book(order()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert_eq!(error.reason(), "BUDGET_EXCEEDED");
    assert_eq!(error.metadata("accepted"), Some("at least 61200"));
    assert_eq!(error.details.fields, [("order.due_s".to_owned(), "lies in the past".to_owned())]);
    assert_eq!(error.details.conditions[0].subject, "machine dmu50-1");
    assert!(two.calls().is_empty(), "a refusal is not tried elsewhere");
    expect_test::expect![[
        "Book was refused by NODE: no option costs at most 500.00 CNY [BUDGET_EXCEEDED]; \
         field: order.budget_fen; value: 50000; accepted: at least 61200; order.due_s: lies in the past; \
         machine dmu50-1: taken by another booking"
    ]]
    .assert_eq(&error.to_string().replace(&one.address, "NODE"));
}

#[tokio::test]
async fn an_overloaded_node_is_asked_again_when_it_wishes() {
    let cluster = Cluster::new(State::default());
    let (one, two) = (cluster.start(1), cluster.start(2));
    one.fail_next([Fault::Overloaded(150)]);
    let began = Instant::now();
    client(&[&one, &two]).book(order()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(150));
    assert_eq!((one.calls().len(), two.calls().len()), (2, 0));
}

#[tokio::test]
async fn a_pause_beyond_the_deadline_is_not_begun() {
    let cluster = Cluster::new(State::default());
    let node = cluster.start(1);
    node.fail_next([Fault::Overloaded(60_000)]);
    let began = Instant::now();
    let error = client(&[&node]).book(order()).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!((error.kind, error.reason()), (ErrorKind::Unavailable, "OVERLOADED"));
}

#[tokio::test]
async fn a_dead_node_is_passed_over() {
    let cluster = Cluster::new(State::default());
    let (mut one, two) = (cluster.start(1), cluster.start(2));
    let client = client(&[&one, &two]);
    client.book(order()).await.unwrap();
    one.kill();
    for _ in 0..5 {
        client.book(order()).await.unwrap();
    }
    assert_eq!(two.calls().len(), 5);
    assert_eq!(cluster.state.lock().unwrap().bookings.len(), 6);
}

#[tokio::test]
async fn without_any_node_it_ends_in_time_and_says_so() {
    let cluster = Cluster::new(State::default());
    let mut node = cluster.start(1);
    node.kill();
    let options = ClientOptions { deadline: Duration::from_millis(300), ..options(&[&node]) };
    let began = Instant::now();
    let error = Client::new(options).unwrap().book(order()).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.details.attempts > 1);
}

#[tokio::test]
async fn a_write_that_nobody_answers_is_unknown_and_a_read_is_not() {
    let cluster = Cluster::new(State::default());
    let node = cluster.start(1);
    let patient = ClientOptions { deadline: Duration::from_millis(600), ..options(&[&node]) };
    let client = Client::new(patient).unwrap();
    node.fail_next([Fault::Silence, Fault::Silence, Fault::Silence]);
    let error = client.book(order()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(error.details.request_id, Some(heard(&cluster)[0].clone()));
    node.fail_next([Fault::Silence, Fault::Silence, Fault::Silence]);
    let error = client.list_bookings(ListBookingsRequest::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn what_has_no_request_id_is_not_repeated_when_its_outcome_is_unknown() {
    let cluster = Cluster::new(State::default());
    let (one, two) = (cluster.start(1), cluster.start(2));
    let client = client(&[&one, &two]);
    let add = AddNodeRequest { node: Some(Node { id: 9, ..Node::default() }) };
    one.fail_next([Fault::AnswerLost]);
    let error = client.add_node(add.clone()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutcomeUnknown);
    assert_eq!(cluster.state.lock().unwrap().nodes_added, 1);
    two.fail_next([Fault::Unavailable]);
    client.add_node(add).await.unwrap();
    assert_eq!(cluster.state.lock().unwrap().nodes_added, 2, "what did not happen is repeated");
}

#[tokio::test]
async fn one_attempt_means_one_attempt() {
    let cluster = Cluster::new(State::default());
    let node = cluster.start(1);
    node.fail_next([Fault::Unavailable]);
    let once = ClientOptions { attempts_max: 1, ..options(&[&node]) };
    let error = Client::new(once).unwrap().book(order()).await.unwrap_err();
    assert_eq!((error.kind, error.details.attempts), (ErrorKind::Unavailable, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_one_client() {
    let cluster = Cluster::new(State::default());
    let (mut one, two) = (cluster.start(1), cluster.start(2));
    let client = client(&[&one, &two]);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..300 {
        if number == 150 {
            one.kill();
        }
        let client = client.clone();
        tasks.spawn(async move { client.book(order()).await.map(|answer| answer.booking.unwrap().id) });
    }
    let mut ids: Vec<String> = tasks.join_all().await.into_iter().map(Result::unwrap).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 300, "every intent has a booking of its own");
    assert_eq!(cluster.state.lock().unwrap().bookings.len(), 300, "and none has two");
}

/// Reads a watch until `count` changes have come: their revisions, and what else it told.
async fn read<Q: Follow>(watch: &mut Watch<Q>, count: usize) -> (Vec<u64>, Vec<String>) {
    let (mut revisions, mut told) = (Vec::new(), Vec::new());
    while revisions.len() < count {
        match tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap().unwrap() {
            WatchEvent::Changed(answer) => revisions.push(Q::revision(&answer)),
            WatchEvent::Cut(_) => told.push("cut".to_owned()),
            WatchEvent::Resumed { start_revision, .. } => told.push(format!("resumed from {start_revision}")),
            WatchEvent::Compacted { start_revision, compacted_revision } => {
                told.push(format!("asked {start_revision}, oldest {compacted_revision}"));
            }
        }
    }
    (revisions, told)
}

#[tokio::test]
async fn a_watch_goes_on_at_the_next_revision_on_another_node() {
    let cluster = Cluster::new(State { revision: 100, ..State::default() });
    let (mut one, two) = (cluster.start(1), cluster.start(2));
    let mut watch = client(&[&one, &two]).watch_bookings(WatchBookingsRequest::default());
    assert_eq!(read(&mut watch, 1).await.0, [100], "first the present");
    cluster.change(sample::booking("B000001"));
    assert_eq!(read(&mut watch, 1).await.0, [101]);
    one.kill();
    cluster.change(sample::booking("B000001"));
    cluster.change(sample::booking("B000002"));
    let (revisions, told) = read(&mut watch, 2).await;
    assert_eq!(revisions, [102, 103], "nothing is missed and nothing comes twice");
    assert_eq!(told, ["cut", "resumed from 102"]);
    assert_eq!(two.calls(), ["WatchBookings"]);
}

#[tokio::test]
async fn a_watch_that_is_cut_within_the_present_begins_with_it_again() {
    let cluster = Cluster::new(State { revision: 100, cut_present: true, ..State::default() });
    cluster.change(sample::booking("B000001"));
    cluster.change(sample::booking("B000002"));
    let node = cluster.start(1);
    let mut watch = client(&[&node]).watch_bookings(WatchBookingsRequest::default());
    let (revisions, told) = read(&mut watch, 2).await;
    assert_eq!((revisions, told), (vec![102, 102], vec!["cut".to_owned(), "resumed from 0".to_owned()]));
    cluster.change(sample::booking("B000001"));
    assert_eq!(read(&mut watch, 1).await.0, [103]);
}

#[tokio::test]
async fn a_watch_from_a_revision_that_is_gone_begins_anew_and_says_so() {
    let state = State { revision: 100, compacted_revision: 60, ..State::default() };
    let cluster = Cluster::new(state);
    let node = cluster.start(1);
    let request = WatchBookingsRequest { start_revision: 50, booking_id: String::new() };
    let mut watch = client(&[&node]).watch_bookings(request);
    let (revisions, told) = read(&mut watch, 1).await;
    assert_eq!(told, ["asked 50, oldest 61"]);
    assert_eq!(revisions, [100], "the present");
    cluster.change(sample::booking("B000001"));
    assert_eq!(read(&mut watch, 1).await.0, [101]);
}

#[tokio::test]
async fn a_watch_that_was_open_once_does_not_give_up() {
    let cluster = Cluster::new(State { revision: 100, ..State::default() });
    let mut one = cluster.start(1);
    let patience = ClientOptions { deadline: Duration::from_millis(100), ..options(&[&one]) };
    let mut watch = Client::new(patience).unwrap().watch_bookings(WatchBookingsRequest::default());
    read(&mut watch, 1).await;
    one.kill();
    for _ in 0..4 {
        assert!(matches!(watch.next().await, Ok(WatchEvent::Cut(_))));
    }
}

#[tokio::test]
async fn a_watch_that_finds_nobody_or_is_refused_says_so() {
    let cluster = Cluster::new(State::default());
    let mut node = cluster.start(1);
    let patience = ClientOptions { deadline: Duration::from_millis(100), ..options(&[&node]) };
    let client = Client::new(patience).unwrap();
    node.fail_next([Fault::Refused]);
    let refused: ClientError = client.watch_plan(WatchPlanRequest::default()).next().await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Refused);
    node.kill();
    let nobody = client.watch_plan(WatchPlanRequest::default()).next().await.unwrap_err();
    assert_eq!(nobody.kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_silent_watch_is_cut_and_taken_up_again() {
    let cluster = Cluster::new(State { revision: 100, ..State::default() });
    let (one, two) = (cluster.start(1), cluster.start(2));
    let impatient = ClientOptions { watch_silence_max: Duration::from_millis(200), ..options(&[&one, &two]) };
    let mut watch = Client::new(impatient).unwrap().watch_bookings(WatchBookingsRequest::default());
    read(&mut watch, 1).await;
    assert!(matches!(watch.next().await, Ok(WatchEvent::Cut(_))));
    assert!(matches!(watch.next().await, Ok(WatchEvent::Resumed { start_revision: 101, .. })));
    cluster.change(sample::booking("B000001"));
    assert_eq!(read(&mut watch, 1).await.0, [101]);
}

#[tokio::test]
async fn a_token_is_shown_and_a_wrong_one_refused() {
    let cluster = Cluster::new(State { token: Some("mp_right".to_owned()), ..State::default() });
    let node = cluster.start(1);
    let with = |token: &str| ClientOptions { token: Some(token.to_owned()), ..options(&[&node]) };
    Client::new(with("mp_right")).unwrap().book(order()).await.unwrap();
    let error = Client::new(with("mp_wrong")).unwrap().book(order()).await.unwrap_err();
    assert_eq!((error.kind, error.reason()), (ErrorKind::Refused, "TOKEN_UNKNOWN"));
    assert!(!format!("{error:?}").contains("mp_wrong"), "tokens are in no message");
}

#[tokio::test]
async fn tls_trusts_the_ca_that_was_named_and_no_other() {
    let issue = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["coordinator.test".to_owned()];
        (rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let ((certificate, key), (other, _)) = (issue(), issue());
    let cluster = Cluster::new(State::default());
    let identity = tonic::transport::Identity::from_pem(&certificate, key);
    let tls = tonic::transport::ServerTlsConfig::new().identity(identity);
    let node = cluster.start_secured(1, Some(tls));
    let trusting = |ca: &str| {
        let server_name = Some("coordinator.test".to_owned());
        let tls = Some(TlsOptions { ca_pem: ca.as_bytes().to_vec(), server_name });
        let deadline = Duration::from_millis(500);
        Client::new(ClientOptions { tls, deadline, ..options(&[&node]) }).unwrap()
    };
    trusting(&certificate).book(order()).await.unwrap();
    let error = trusting(&other).book(order()).await.unwrap_err();
    assert_ne!(error.kind, ErrorKind::Refused);
    assert!(error.to_string().contains("certificate"), "{error}");
    let plain = ClientOptions { deadline: Duration::from_millis(300), ..options(&[&node]) };
    assert!(Client::new(plain).unwrap().book(order()).await.is_err());
    assert_eq!(cluster.state.lock().unwrap().bookings.len(), 1);
}
