//! How the process begins and ends.

use crate::collector::Collector;
use crate::harness::*;
use millpool_proto::v1;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

/// Runs a node that is expected to end by itself.
fn ends(mut command: Command) -> Output {
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("it goes on: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// A cluster of one on a folder, with ports that nobody has; the public one is told.
fn alone(data: &Path, flags: &[&str]) -> (Command, u16) {
    let ports = free_ports(2);
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpool-scheduler"));
    command.arg("--single").arg("--data-dir").arg(data).args(flags);
    command.args(["--public-listen", &format!("127.0.0.1:{}", ports[0])]);
    command.args(["--metrics-listen", &format!("127.0.0.1:{}", ports[1])]);
    (command, ports[0])
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_asked_to_stop_stops_in_good_order_and_comes_back() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    found_alliance(&cluster.operator(leader)).await;
    let other = (leader + 1) % 3;
    let bo = cluster.client(other, "buyer:bo");
    let booking = bo.book(order(vec![operation("a", 60)])).await;
    // With open streams: a watch and an agent.
    let watcher = cluster.client(leader, "buyer:bo");
    let request = v1::WatchBookingsRequest::default();
    let mut watching = watcher.booking().watch_bookings(request).await.unwrap().into_inner();
    watching.message().await.unwrap().unwrap();
    let _agent =
        crate::agents::Agent::attach(&cluster.client(leader, "agent:p-1"), "p-1", "a", "box").await.unwrap();
    let begun = Instant::now();
    let status = cluster.terminate(leader).await;
    assert_eq!(status.code(), Some(0), "{}", cluster.log(leader));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(bo.get(&booking.id).await.unwrap(), booking);
    bo.book(order(vec![operation("a", 60)])).await;
    cluster.start_node(leader);
    eventually("the node to be back", || async { cluster.status(leader).await }).await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_damaged_or_anothers_and_a_port_that_is_taken_are_told() {
    let mut cluster = Cluster::start(1).await;
    found_alliance(&cluster.operator(0)).await;
    let (public, ..) = cluster.ports(0);

    // A second process for the same ports.
    let taken = ends(cluster.command(0));
    assert_eq!(taken.status.code(), Some(4), "{}", told(&taken));
    assert!(told(&taken).contains(&public.to_string()), "{}", told(&taken));
    // A second process on the same folder, with ports of its own.
    let data = cluster.data(0);
    let same = ends(alone(&data, &["--insecure-dev", "--cluster-id", "test"]).0);
    assert_eq!(same.status.code(), Some(3), "{}", told(&same));
    assert!(told(&same).contains(&data.display().to_string()), "{}", told(&same));
    assert_eq!(cluster.terminate(0).await.code(), Some(0));

    // A folder of another node, and of another cluster.
    for others in [["--cluster-id", "test", "--node-id", "7"], ["--cluster-id", "other", "--node-id", "1"]] {
        let (mut command, _) = alone(&data, &["--insecure-dev"]);
        command.args(others);
        let another = ends(command);
        assert_eq!(another.status.code(), Some(3), "{}", told(&another));
        assert!(told(&another).contains(&data.display().to_string()), "{}", told(&another));
    }

    // Every file cut in half.
    let mut cut = 0;
    let mut folders = vec![data.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            if meta.is_dir() {
                folders.push(path);
            } else if meta.len() > 1 {
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
                cut += 1;
            }
        }
    }
    assert!(cut > 0);
    let damaged = ends(cluster.command(0));
    assert_eq!(damaged.status.code(), Some(3), "{}", told(&damaged));
    assert!(told(&damaged).contains(&data.display().to_string()), "{}", told(&damaged));

    // A setting that is wrong.
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpool-scheduler"));
    command.args(["--single", "--public-listen", "0.0.0.0:1", "--insecure-dev"]);
    let wrong = ends(command);
    assert_eq!(wrong.status.code(), Some(2), "{}", told(&wrong));
    assert!(told(&wrong).contains("public_listen"), "{}", told(&wrong));
}

/// `--single` alone: tokens are asked for, and the first operator's is made.
#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_needs_no_setting_and_lets_nobody_in_without_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (mut command, port) = alone(&data, &[]);
    let mut node = command.spawn().unwrap();
    let token = eventually("the operator's token", || async {
        std::fs::read_to_string(data.join("operator.token")).ok().filter(|t| t.len() > 32)
    })
    .await;
    let list = |token: String| async move {
        Client::of(port, token.trim()).capacity().list_members(v1::ListMembersRequest::default()).await
    };
    eventually("the operator to be let in", || async { list(token.clone()).await.ok() }).await;
    for other in ["operator:op", "0123456789abcdef0123456789abcdef"] {
        let refused = list(other.into()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
    }
    node.kill().unwrap();
    node.wait().unwrap();
}

/// What a node counts reaches a collector that is named, also one that comes late and goes again, to the last request.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_told_what_a_node_counts() {
    let folder = tempfile::tempdir().unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], free_ports(1)[0]));
    let endpoint = format!("http://{at}");
    let flags =
        ["--insecure-dev", "--cluster-id", "told", "--otlp-endpoint", &endpoint, "--otlp-every-s", "1"];
    let (mut command, port) = alone(&folder.path().join("data"), &flags);
    let mut node = Node(command.spawn().unwrap());
    let client = Client::of(port, "operator:op");
    let list = async || client.capacity().list_members(v1::ListMembersRequest::default()).await.ok();
    eventually("the node to answer", list).await;
    found_alliance(&client).await;

    let collector = Collector::default();
    let (_, listening) = collector.listen(at, None).await;
    let of_list = ("path", "/millpool.v1.CapacityService/ListMembers");
    let before = collector.until("what was asked", |c| c.counter("millpool_rpc_total", of_list)).await;
    // Gauges that are set when somebody looks, though nobody scrapes.
    let machines =
        collector.until("machines", |c| c.gauge("millpool_machines", ("service.instance.id", "1"))).await;
    assert!(machines > 0.0);
    let (counts, bounds, sum) = collector.histogram("millpool_rpc_seconds", of_list).unwrap();
    assert!(
        counts.iter().sum::<u64>() >= before as u64 && sum > 0.0 && bounds.len() == 18,
        "{counts:?}, {sum}"
    );
    let (unit, meaning) = collector.described("millpool_rpc_seconds");
    assert_eq!(
        (unit.as_str(), meaning.as_str()),
        ("s", "Time to answer a request, by path; of a stream, to open it")
    );
    let named = [
        ("service.name", "millpool-scheduler"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", "1"),
        ("service.namespace", "told"),
    ];
    let source = named.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(collector.sources().into_iter().collect::<Vec<_>>(), [source.into()]);

    listening.stop().await;
    for _ in 0..20 {
        list().await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let _listening = collector.listen(at, None).await;
    let told =
        |least: i64| move |c: &Collector| c.counter("millpool_rpc_total", of_list).filter(|n| *n >= least);
    assert_eq!(collector.until("what was missed", told(before + 20)).await, before + 20);

    list().await.unwrap();
    assert_eq!(node.terminated().await, Some(0));
    assert_eq!(collector.counter("millpool_rpc_total", of_list), Some(before + 21));
    assert_eq!(collector.wrongs(), Vec::<String>::new());
    let strange: Vec<_> =
        collector.names().into_iter().filter(|n| collector.described(n).1.is_empty()).collect();
    assert_eq!(strange, Vec::<String>::new(), "without a meaning");
}

/// A node that is not left behind.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Node {
    async fn terminated(&mut self) -> Option<i32> {
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().unwrap().success());
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it goes on")
    }
}

#[test]
fn a_collector_that_cannot_be_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    for (flags, said) in [
        (
            vec!["--otlp-endpoint", "collector:4317"],
            "otlp_endpoint is \"collector:4317\"; accepted: http://host:port",
        ),
        // This one is found on the disk.
        (
            vec!["--otlp-endpoint", "https://c:4317", "--otlp-ca", file.to_str().unwrap()],
            "ca.pem\"; accepted: a file that can be read (No such file",
        ),
    ] {
        let (command, _) = alone(&folder.path().join("data"), &flags);
        let refused = ends(command);
        assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
        assert!(told(&refused).contains(said), "{}", told(&refused));
    }
}
