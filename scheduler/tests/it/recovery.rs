//! Backups, and clusters that begin again.

use crate::harness::*;
use millpool_proto::v1::{self, backup_response::Part};
use std::path::Path;
use std::process::{Command, Output};
use tonic::Code;

/// A backup's bytes, checked as a client does.
async fn back_up(client: &Client) -> Vec<u8> {
    let mut stream = client.admin().backup(v1::BackupRequest::default()).await.unwrap().into_inner();
    let Some(Part::Start(start)) = stream.message().await.unwrap().unwrap().part else { panic!("no start") };
    let mut file = Vec::new();
    loop {
        match stream.message().await.unwrap().unwrap().part {
            Some(Part::Body(bytes)) => file.extend_from_slice(&bytes),
            Some(Part::End(end)) => {
                assert_eq!((file.len() as u64, crc32c::crc32c(&file)), (start.bytes, end.crc32c));
                assert!(stream.message().await.unwrap().is_none());
                return file;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The binary, on a folder, for a cluster of one.
fn scheduler(data: &Path, cluster_id: &str, ports: &[u16], act: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpool-scheduler"));
    command.args(act).args([
        "--single",
        "--insecure-dev",
        "--optimise-for-ms",
        "0",
        "--cluster-id",
        cluster_id,
    ]);
    command.arg("--data-dir").arg(data);
    command.args(["--public-listen", &format!("127.0.0.1:{}", ports[0])]);
    command.args(["--metrics-listen", &format!("127.0.0.1:{}", ports[1])]);
    command
}

fn told(output: &Output) -> String {
    [output.stdout.as_slice(), b"\n", output.stderr.as_slice()].concat().iter().map(|b| *b as char).collect()
}

/// A process that dies with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn restored(port: u16) -> v1::GetStatusResponse {
    let client = Client::of(port, "operator:op");
    let led = || async {
        let status = client.admin().get_status(v1::GetStatusRequest {}).await.ok()?.into_inner();
        (status.leader_id > 0).then_some(status)
    };
    eventually("the restored node leads", led).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alliance_goes_on_from_a_backup_in_another_cluster() {
    let mut cluster = Cluster::start(1).await;
    cluster.leader().await;
    found_alliance(&cluster.operator(0)).await;
    let bo = cluster.client(0, "buyer:bo");
    let kept = bo.book(order(vec![operation("a", 60)])).await;
    let backup = back_up(&cluster.operator(0)).await;
    let lost = bo.book(order(vec![operation("b", 30)])).await;
    let revision = cluster.status(0).await.unwrap().header.unwrap().revision;
    let refused = bo.admin().backup(v1::BackupRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "a buyer takes no backup");
    cluster.kill(0);

    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("a.backup"), folder.path().join("data"));
    std::fs::write(&file, &backup).unwrap();
    let ports = free_ports(2);
    let restore = |from: &Path, to: &Path, cluster_id: &str, reason: &str| {
        let act = ["restore", from.to_str().unwrap(), "--reason", reason];
        scheduler(to, cluster_id, &ports, &act).output().unwrap()
    };
    // What cannot be is told, and nothing is done.
    let damaged = folder.path().join("damaged.backup");
    let mut bytes = backup.clone();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let nowhere = folder.path().join("nothing-here");
    for (from, cluster_id, reason, says) in [
        (&file, "test", "a drill", "another name"),
        (&file, "again", " ", "--reason"),
        (&damaged, "again", "a drill", "checksum"),
        (&nowhere, "again", "a drill", "nothing-here"),
    ] {
        let output = restore(from, &data, cluster_id, reason);
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        assert!(told(&output).contains(says), "{says}: {}", told(&output));
        assert!(!data.exists(), "{says}");
    }

    let act = ["restore", file.to_str().unwrap(), "--reason", "a drill", "--format-max", "1"];
    let held_back = scheduler(&data, "again", &ports, &act).output().unwrap();
    assert_eq!(held_back.status.code(), Some(2), "{}", told(&held_back));
    assert!(told(&held_back).contains("format_max") && !data.exists(), "{}", told(&held_back));

    let done = restore(&file, &data, "again", "the hall burnt down");
    assert_eq!(done.status.code(), Some(0), "{}", told(&done));
    assert!(told(&done).contains("with 1 bookings"), "{}", told(&done));
    let twice = restore(&file, &data, "again", "once more");
    assert_eq!(twice.status.code(), Some(3), "{}", told(&twice));
    assert!(told(&twice).contains("in use already"), "{}", told(&twice));

    let _node = Running(scheduler(&data, "again", &ports, &[]).spawn().unwrap());
    let status = restored(ports[0]).await;
    let restoration = &status.restorations[0];
    assert_eq!(
        (restoration.cluster_id.as_str(), restoration.reason.as_str()),
        ("test", "the hall burnt down")
    );
    assert!(restoration.revision < revision && status.header.unwrap().revision > revision + 1_000_000);
    let bo = Client::of(ports[0], "buyer:bo");
    assert_eq!(bo.get(&kept.id).await.unwrap(), kept);
    assert_eq!(bo.get(&lost.id).await.unwrap_err().code(), Code::NotFound);
    let next = bo.book(order(vec![operation("b", 30)])).await;
    assert!(next.id > lost.id, "{} was given before", next.id);
    assert_eq!(next.id.len(), 8, "{}", next.id);
    // A watcher who knows revisions of the lost time is told so.
    let request = v1::WatchBookingsRequest { start_revision: revision, ..Default::default() };
    assert_eq!(bo.booking().watch_bookings(request).await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_of_three_has_is_salvaged() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    found_alliance(&cluster.operator(leader)).await;
    let booking = cluster.client(leader, "buyer:bo").book(order(vec![operation("a", 60)])).await;
    cluster.agree().await;
    let left = (leader + 1) % 3;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("left.backup");
    let salvage = |cluster: &Cluster| cluster.command(left).arg("salvage").arg(&file).output().unwrap();
    // A folder that is nobody's is told, and left alone.
    let empty = tempfile::tempdir().unwrap();
    let nobodys =
        scheduler(empty.path(), "test", &free_ports(2), &["salvage", file.to_str().unwrap()]).output();
    let nobodys = nobodys.unwrap();
    assert_eq!(nobodys.status.code(), Some(3), "{}", told(&nobodys));
    assert!(told(&nobodys).contains("has no log"), "{}", told(&nobodys));
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
    let running = salvage(&cluster);
    assert_eq!(running.status.code(), Some(3), "a node that runs is left alone: {}", told(&running));
    (0..3).for_each(|index| cluster.kill(index));
    let done = salvage(&cluster);
    assert_eq!(done.status.code(), Some(0), "{}", told(&done));
    assert!(told(&done).contains("with 1 bookings"), "{}", told(&done));
    let again = salvage(&cluster);
    assert_eq!(again.status.code(), Some(2), "a backup is not overwritten: {}", told(&again));

    let (data, ports) = (folder.path().join("data"), free_ports(2));
    let act = ["restore", file.to_str().unwrap(), "--reason", "two halls burnt down"];
    let restore = scheduler(&data, "again", &ports, &act).output().unwrap();
    assert_eq!(restore.status.code(), Some(0), "{}", told(&restore));
    let _node = Running(scheduler(&data, "again", &ports, &[]).spawn().unwrap());
    restored(ports[0]).await;
    assert_eq!(Client::of(ports[0], "buyer:bo").get(&booking.id).await.unwrap(), booking);
    // The node that was salvaged is as it was.
    (0..3).for_each(|index| cluster.start_node(index));
    let leader = cluster.leader().await;
    assert_eq!(cluster.client(leader, "buyer:bo").get(&booking.id).await.unwrap(), booking);
}
