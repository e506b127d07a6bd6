//! Three processes under load, of which one after another is killed without warning. `MILLPOOL_KILLS` is how
//! often (5 by default).

use crate::harness::*;
use crate::world::Rng;
use millpool_proto::v1;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::Code;

/// Between two bookings of a buyer, so that the machines have room for all the kills there are.
const PAUSE: Duration = Duration::from_millis(20);

/// Books with retries under the same request id, whichever node answers, until it is told to stop.
async fn buyer(
    nodes: Vec<Client>,
    number: usize,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeMap<String, v1::Booking>>>,
    retries: Arc<AtomicUsize>,
) {
    let mut at = number;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(PAUSE).await;
        count += 1;
        let mut wanted = order(vec![operation(["a", "b", "c"][count % 3], 1)]);
        wanted.reference = format!("{number}/{count}");
        wanted.due_s = minutes(19 * 24 * 60);
        let request =
            v1::BookRequest { request_id: fresh(), order: Some(wanted.clone()), ..Default::default() };
        let begun = Instant::now();
        loop {
            let mut client = nodes[at % nodes.len()].booking();
            let asked = tokio::time::timeout(Duration::from_secs(3), client.book(request.clone())).await;
            let status = match asked {
                Ok(Ok(answer)) => {
                    let booking = answer.into_inner().booking.unwrap();
                    acknowledged.lock().unwrap().insert(wanted.reference.clone(), booking);
                    break;
                }
                Ok(Err(status)) => Some(status),
                Err(_) => None,
            };
            // A node that goes away under a call may say so in several ways; each is safe to repeat.
            let retried = status.as_ref().is_none_or(|s| {
                matches!(
                    s.code(),
                    Code::Unavailable
                        | Code::DeadlineExceeded
                        | Code::ResourceExhausted
                        | Code::Cancelled
                        | Code::Unknown
                        | Code::Internal
                )
            });
            assert!(retried, "a booking was refused: {status:?}");
            assert!(begun.elapsed() < Duration::from_secs(60), "no answer: {status:?}");
            retries.fetch_add(1, Ordering::Relaxed);
            at += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_booking_is_lost_or_doubled_when_nodes_are_killed() {
    let rounds = std::env::var("MILLPOOL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    // Snapshots often, so that some are cut short, too.
    let mut cluster = Cluster::with(3, &[("optimise-for-ms", "0"), ("snapshot-every", "300")]).await;
    let leader = cluster.leader().await;
    found_alliance(&cluster.operator(leader)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    let retries = Arc::new(AtomicUsize::new(0));
    let nodes: Vec<Client> = (0..3).map(|i| cluster.client(i, "buyer:bo")).collect();
    let buyers: Vec<_> = (0..4)
        .map(|n| tokio::spawn(buyer(nodes.clone(), n, stop.clone(), acknowledged.clone(), retries.clone())))
        .collect();
    let seed = std::process::id().into();
    let mut rng = Rng(seed);
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(rng.within(300, 1200) as u64)).await;
        let victim = match rng.chance(60) {
            true => cluster.leader().await,
            false => rng.within(0, 2) as usize,
        };
        cluster.kill(victim);
        tokio::time::sleep(Duration::from_millis(rng.within(0, 2000) as u64)).await;
        cluster.start_node(victim);
        cluster.leader().await;
        assert!(cluster.is_up(victim), "round {round}, seed {seed}: {}", cluster.log(victim));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    for buyer in buyers {
        buyer.await.unwrap();
    }
    cluster.agree().await;

    let acknowledged = std::mem::take(&mut *acknowledged.lock().unwrap());
    println!("{} acknowledged, {} retries, seed {seed}", acknowledged.len(), retries.load(Ordering::Relaxed));
    assert!(acknowledged.len() > 20 * rounds as usize, "{} were acknowledged", acknowledged.len());
    let mut stored: BTreeMap<String, Vec<v1::Booking>> = BTreeMap::new();
    let mut token = String::new();
    loop {
        let page = Some(v1::Page { size: 500, token });
        let request = v1::ListBookingsRequest { page, ..Default::default() };
        let answer = nodes[0].booking().list_bookings(request).await.unwrap().into_inner();
        for booking in answer.bookings {
            stored.entry(booking.order.clone().unwrap().reference).or_default().push(booking);
        }
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    for (reference, told) in &acknowledged {
        let found = stored.get(reference).map_or(&[][..], Vec::as_slice);
        assert_eq!(found.len(), 1, "{reference} was acknowledged as {}: {found:?}", told.id);
        assert_eq!(found[0].id, told.id);
        assert_eq!((&found[0].promise, &found[0].assignments), (&told.promise, &told.assignments));
    }
    let doubled: Vec<_> = stored.iter().filter(|(_, all)| all.len() > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
}
