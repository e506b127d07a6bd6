//! Versions side by side, and data of a former one.

use crate::harness::*;
use millpool_alliance::Format;
use millpool_proto::v1;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The newest format, as a status says it.
fn newest() -> u32 {
    Format::NEWEST.number()
}

async fn format(cluster: &Cluster, index: usize) -> Option<u32> {
    cluster.status(index).await.map(|status| status.format)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_writes_the_former_format_until_its_last_node_is_upgraded() {
    let mut cluster = Cluster::with(3, &[("optimise-for-ms", "0"), ("format-max", "1")]).await;
    let leader = cluster.leader().await;
    found_alliance(&cluster.operator(leader)).await;
    let booking = cluster.client(leader, "buyer:bo").book(order(vec![operation("a", 60)])).await;
    cluster.set("format-max", &newest().to_string());
    for index in 0..3 {
        assert_eq!(cluster.terminate(index).await.code(), Some(0), "{}", cluster.log(index));
        cluster.start_node(index);
        cluster.agree().await;
        // It leads the others, which do not understand what it does.
        let request = v1::TransferLeaderRequest { node_id: index as u64 + 1 };
        cluster.operator(index).admin().transfer_leader(request).await.unwrap();
        if index < 2 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            assert_eq!(format(&cluster, index).await, Some(1), "node {} is not upgraded yet", index + 2);
        }
        cluster.client(index, "buyer:bo").book(order(vec![operation("b", 5)])).await;
    }
    let raised = || async { format(&cluster, 2).await.filter(|format| *format == newest()) };
    eventually("the format to rise", raised).await;
    cluster.agree().await;
    assert_eq!(cluster.client(0, "buyer:bo").get(&booking.id).await.unwrap(), booking);

    // From here on a former version has no part in it, and says so.
    cluster.set("format-max", "1");
    cluster.terminate(1).await;
    cluster.start_node(1);
    let begun = Instant::now();
    while cluster.is_up(1) {
        assert!(begun.elapsed() < PATIENCE, "the former version goes on: {}", cluster.log(1));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(cluster.log(1).contains("this node reads formats up to 1"), "{}", cluster.log(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_former_version_is_not_added_to_a_cluster_that_has_gone_on() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let raised = || async { format(&cluster, leader).await.filter(|format| *format == newest()) };
    eventually("the format to rise", raised).await;
    let (folder, ports) = (tempfile::tempdir().unwrap(), free_ports(3));
    let local = |port: u16| format!("127.0.0.1:{port}");
    let mut former = Command::new(env!("CARGO_BIN_EXE_millpool-scheduler"))
        .args(["--insecure-dev", "--cluster-id", "test", "--node-id", "4", "--format-max", "1"])
        .arg("--data-dir")
        .arg(folder.path())
        .args(["--public-listen", &local(ports[0]), "--peer-listen", &local(ports[1])])
        .args(["--metrics-listen", &local(ports[2])])
        .spawn()
        .unwrap();
    let node = v1::Node {
        id: 4,
        peer_address: local(ports[1]),
        public_address: local(ports[0]),
        ..Default::default()
    };
    let request = v1::AddNodeRequest { node: Some(node) };
    let mut admin = cluster.operator(leader).admin();
    let mut refusal = String::new();
    for _ in 0..100 {
        refusal = admin.add_node(request.clone()).await.unwrap_err().message().to_owned();
        if !refusal.contains("does not answer") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let _ = former.kill().and_then(|()| former.wait().map(drop));
    assert!(refusal.contains("upgrade it first"), "{refusal}");
}

/// What coordinators of former formats left: a data folder with log and snapshot, and what it said of itself.
const FORMER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

#[tokio::test(flavor = "multi_thread")]
async fn the_data_of_format_1_is_read_and_gone_on_with() {
    is_gone_on_with(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_of_format_2_is_read_and_gone_on_with() {
    is_gone_on_with(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_of_format_6_is_read_and_gone_on_with() {
    is_gone_on_with(6).await;
}

async fn is_gone_on_with(format: u32) {
    let fixture = Path::new(FORMER).join(format!("format-{format}"));
    let folder = tempfile::tempdir().unwrap();
    let archive = fixture.join("data.tar.gz");
    let unpacked = Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(folder.path()).status();
    assert!(unpacked.unwrap().success());
    let said = std::fs::read_to_string(fixture.join("status.json")).unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let number = |value: &serde_json::Value| value.as_str().unwrap().parse::<u64>().unwrap();
    let (revision, hash) = (number(&said["revision"]), number(&said["state_hash"]));

    // Held at the former format, the state is what it was, to the hash.
    let ports = free_ports(2);
    let start = |format_max: &str| {
        Command::new(env!("CARGO_BIN_EXE_millpool-scheduler"))
            .args(["--single", "--insecure-dev", "--optimise-for-ms", "0", "--format-max", format_max])
            .args(["--cluster-id", "fixture", "--data-dir"])
            .arg(folder.path().join("data"))
            .args(["--public-listen", &format!("127.0.0.1:{}", ports[0])])
            .args(["--metrics-listen", &format!("127.0.0.1:{}", ports[1])])
            .spawn()
            .unwrap()
    };
    let operator = Client::of(ports[0], "operator:op");
    let status = |format: u32| {
        let operator = operator.clone();
        async move {
            let status = operator.admin().get_status(v1::GetStatusRequest {}).await.ok()?.into_inner();
            (status.leader_id > 0 && status.format == format).then_some(status)
        }
    };
    let mut former = start(&format.to_string());
    let before = eventually("the former data to be served", || status(format)).await;
    let _ = former.kill().and_then(|()| former.wait().map(drop));
    // A new term's first entry says nothing.
    let (seen, counts) = (before.header.unwrap().revision, before.counts.unwrap());
    assert!(seen >= revision, "{seen} of {revision}");
    assert_eq!(before.state_hash, hash);
    assert_eq!(u64::from(counts.bookings), number(&said["bookings"]));

    let mut present = start(&newest().to_string());
    let after = eventually("the format to rise", || status(newest())).await;
    assert_eq!(u64::from(after.counts.unwrap().bookings), number(&said["bookings"]));
    let bookings = operator.booking().list_bookings(v1::ListBookingsRequest::default()).await.unwrap();
    assert!(bookings.into_inner().bookings.iter().any(|b| b.promise.is_some()));
    let _ = present.kill().and_then(|()| present.wait().map(drop));
}
