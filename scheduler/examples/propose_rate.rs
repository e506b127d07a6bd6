//! How fast the consensus room commits, and how fast it gets over the loss of its leader: three
//! nodes over loopback in one process, each with a runtime and a folder of its own, every fsync
//! real. Clients call the leader's handle directly: the public API's share is measured elsewhere.
//!
//! `cargo run --release -p millpool-scheduler --example propose_rate -- [seconds] [stops] [folder]`

use bytes::Bytes;
use hdrhistogram::Histogram;
use millpool_proto::v1::{ForwardRequest, ForwardResponse};
use millpool_scheduler::consensus::{
    Addresses, Applied, ApplyError, DecodeError, Forward, Handle, NodeId, Options, Revision, StateMachine,
    Storage, Transport, start,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// What one client proposes.
const ENTRY_BYTES: usize = 256;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Counts entries and bytes, so that applying costs nothing.
#[derive(Clone, Default)]
struct Sum {
    entries: u64,
    bytes: u64,
}

impl StateMachine for Sum {
    type Reply = u64;
    type Event = ();

    fn apply(&mut self, _: Revision, entry: &[u8]) -> Result<Applied<u64, ()>, ApplyError> {
        self.entries += 1;
        self.bytes += entry.len() as u64;
        Ok(Applied { reply: self.entries, event: None })
    }

    fn encode(&self) -> Vec<u8> {
        [self.entries.to_le_bytes(), self.bytes.to_le_bytes()].concat()
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self, DecodeError> {
        let number = |range| bytes.get(range).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        match (number(0..8), number(8..16)) {
            (Some(entries), Some(bytes)) => {
                Ok(Self { entries: u64::from_le_bytes(entries), bytes: u64::from_le_bytes(bytes) })
            }
            _ => Err(DecodeError("not 16 bytes".into())),
        }
    }

    fn hash(&self) -> u64 {
        self.entries.rotate_left(32) ^ self.bytes
    }
}

struct NoForward;

#[tonic::async_trait]
impl Forward for NoForward {
    async fn forward(&self, _: NodeId, _: ForwardRequest) -> ForwardResponse {
        ForwardResponse::default()
    }
}

struct Node {
    handle: Handle<Sum>,
    runtime: Runtime,
}

async fn node(id: NodeId, folder: PathBuf, listen: String) -> Result<Node, Failed> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let up = runtime.spawn(async move {
        let storage = loop {
            match Storage::open(&folder) {
                // The threads of the node that was killed take a moment to let go of it.
                Err(e) if e.to_string().contains("Locked") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                opened => break opened?,
            }
        };
        let options = Options::new("propose-rate", id, 1000 + id);
        let handle = start(options, Sum::default(), storage, Transport::plain(), Arc::new(NoForward)).await?;
        let listener = loop {
            match TcpListener::bind(&listen).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = Server::builder().tcp_nodelay(true).add_service(handle.peer_service());
        tokio::spawn(server.serve_with_incoming(incoming));
        Ok::<_, Failed>(handle)
    });
    match up.await? {
        Ok(handle) => Ok(Node { handle, runtime }),
        Err(e) => {
            runtime.shutdown_background();
            Err(e)
        }
    }
}

async fn leader(nodes: &BTreeMap<NodeId, Node>) -> NodeId {
    loop {
        if let Some((id, _)) = nodes.iter().find(|(_, node)| node.handle.leadership().is_ready) {
            return *id;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Clients that each wait for their answer before they propose again.
async fn rate(handle: &Handle<Sum>, clients: usize, time: Duration) -> Result<Histogram<u64>, Failed> {
    let end = Instant::now() + time;
    let tasks = (0..clients).map(|_| {
        let handle = handle.clone();
        tokio::spawn(async move {
            let entry = Bytes::from(vec![7; ENTRY_BYTES]);
            let mut latencies = Histogram::<u64>::new(3)?;
            while Instant::now() < end {
                let begun = Instant::now();
                handle.propose(entry.clone(), None).await?;
                latencies.record(begun.elapsed().as_micros() as u64)?;
            }
            Ok::<_, Failed>(latencies)
        })
    });
    let mut all = Histogram::<u64>::new(3)?;
    for task in tasks.collect::<Vec<_>>() {
        all.add(task.await??)?;
    }
    Ok(all)
}

/// The same for linearizable reads.
async fn reads(handle: &Handle<Sum>, clients: usize, time: Duration) -> Result<Histogram<u64>, Failed> {
    let end = Instant::now() + time;
    let tasks = (0..clients).map(|_| {
        let handle = handle.clone();
        tokio::spawn(async move {
            let mut latencies = Histogram::<u64>::new(3)?;
            while Instant::now() < end {
                let begun = Instant::now();
                handle.linearize().await?;
                latencies.record(begun.elapsed().as_micros() as u64)?;
            }
            Ok::<_, Failed>(latencies)
        })
    });
    let mut all = Histogram::<u64>::new(3)?;
    for task in tasks.collect::<Vec<_>>() {
        all.add(task.await??)?;
    }
    Ok(all)
}

fn print(what: &str, clients: usize, time: Duration, latencies: &Histogram<u64>) {
    let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "{what:10} {clients:4} clients  {:8.0}/s  p50 {:6.2} ms  p99 {:6.2} ms  max {:6.1} ms",
        latencies.len() as f64 / time.as_secs_f64(),
        ms(0.5),
        ms(0.99),
        latencies.max() as f64 / 1000.0
    );
}

async fn measure(folder: &Path, time: Duration, stops: u32) -> Result<(), Failed> {
    let listen: BTreeMap<NodeId, String> = (1..=3)
        .map(|id| Ok((id, std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())))
        .collect::<Result<_, Failed>>()?;
    let at = |id: NodeId| folder.join(format!("node-{id}"));
    let mut nodes = BTreeMap::new();
    for (id, listen) in &listen {
        nodes.insert(*id, node(*id, at(*id), listen.clone()).await?);
    }
    let address = |listen: &String| Addresses { peers: listen.clone(), public: String::new() };
    let members = listen.iter().map(|(id, listen)| (*id, address(listen))).collect();
    nodes[&1].handle.initialize(members).await?;

    let handle = nodes[&leader(&nodes).await].handle.clone();
    rate(&handle, 16, Duration::from_millis(500)).await?;
    for clients in [1, 16, 64, 256] {
        print("propose", clients, time, &rate(&handle, clients, time).await?);
    }
    for clients in [1, 64] {
        print("linearize", clients, time, &reads(&handle, clients, time).await?);
    }
    let follower = nodes.values().map(|node| &node.handle).find(|node| node.node_id() != handle.node_id());
    print("  follower", 64, time, &reads(follower.ok_or("no follower")?, 64, time).await?);

    println!("all in term {}, which began as 1", handle.leadership().term);

    let mut handed_on = Histogram::<u64>::new(3)?;
    let mut failovers = Histogram::<u64>::new(3)?;
    for _ in 0..stops {
        let old = leader(&nodes).await;
        let begun = Instant::now();
        nodes[&old].handle.transfer_leader(None).await?;
        let new = leader(&nodes).await;
        nodes[&new].handle.propose(Bytes::from_static(b"on"), None).await?;
        handed_on.record(begun.elapsed().as_micros() as u64)?;

        let dead = nodes.remove(&new).ok_or("no leader")?;
        let begun = Instant::now();
        dead.runtime.shutdown_background();
        let next = leader(&nodes).await;
        nodes[&next].handle.propose(Bytes::from_static(b"again"), None).await?;
        failovers.record(begun.elapsed().as_micros() as u64)?;
        nodes.insert(new, node(new, at(new), listen[&new].clone()).await?);
        let revision = nodes[&next].handle.state().revision;
        nodes[&new].handle.wait_applied(revision, Duration::from_secs(30)).await?;
    }
    for (what, times) in [("handed on", handed_on), ("killed", failovers)].iter().filter(|_| stops > 0) {
        println!(
            "{what:10} {stops:4} leaders: until the next proposal is committed: least {:.0} ms, p50 {:.0} ms, most {:.0} ms",
            times.min() as f64 / 1000.0,
            times.value_at_quantile(0.5) as f64 / 1000.0,
            times.max() as f64 / 1000.0
        );
    }
    for node in nodes.into_values() {
        node.runtime.shutdown_background();
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().map_or(Ok(5), |arg| arg.parse())?;
    let stops: u32 = args.next().map_or(Ok(10), |arg| arg.parse())?;
    let folder = match args.next() {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    measure(folder.path(), Duration::from_secs(seconds), stops).await
}
