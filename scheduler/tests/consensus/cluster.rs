//! Nodes over loopback in one process. Each has a runtime of its own, so that it can die at once,
//! between any two of its steps.

use crate::ledger::{Ledger, number};
use millpool_proto::v1::{ForwardRequest, ForwardResponse};
use millpool_scheduler::consensus::disk::memory::MemoryDisk;
use millpool_scheduler::consensus::{
    Addresses, Forward, Handle, LinearizeError, NodeId, Offload, Options, ProposeError, StartError, Storage,
    Transport, start,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// How long anything that should happen may take, on a machine that has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A node's disk, which outlives it.
#[derive(Clone)]
pub enum Disk {
    Memory(MemoryDisk),
    Folder(PathBuf),
    /// Any other.
    Given(Storage),
}

impl Disk {
    fn open(&self) -> Result<Storage, StartError> {
        match self {
            Disk::Memory(disk) => Ok(disk.storage(Offload::Threads)),
            Disk::Given(storage) => Ok(storage.clone()),
            Disk::Folder(path) => {
                // A dead node's threads take a moment to let go of the folder.
                let begun = Instant::now();
                loop {
                    match Storage::open(path) {
                        Err(e) if e.to_string().contains("Locked") && begun.elapsed() < PATIENCE => {
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        opened => return Ok(opened?),
                    }
                }
            }
        }
    }
}

struct NoForward;

#[tonic::async_trait]
impl Forward for NoForward {
    async fn forward(&self, _: NodeId, _: ForwardRequest) -> ForwardResponse {
        ForwardResponse::default()
    }
}

/// A running node.
pub struct Node {
    pub handle: Handle<Ledger>,
    runtime: Option<Runtime>,
}

impl Node {
    /// Starts a node that listens where its address says.
    pub async fn start(options: Options, disk: &Disk, listen: &str) -> Result<Self, StartError> {
        Self::start_with(options, disk, listen, Ledger::default()).await
    }

    pub async fn start_with(
        options: Options,
        disk: &Disk,
        listen: &str,
        initial: Ledger,
    ) -> Result<Self, StartError> {
        let storage = disk.open()?;
        let listener = bind(listen).await;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let up = runtime.spawn(async move {
            let handle = start(options, initial, storage, Transport::plain(), Arc::new(NoForward)).await?;
            let incoming = TcpIncoming::from(TcpListener::from_std(listener)?).with_nodelay(Some(true));
            let server = Server::builder().tcp_nodelay(true).add_service(handle.peer_service());
            tokio::spawn(server.serve_with_incoming(incoming));
            Ok(handle)
        });
        match up.await.expect("the start does not panic") {
            Ok(handle) => Ok(Self { handle, runtime: Some(runtime) }),
            Err(e) => {
                runtime.shutdown_background();
                Err(e)
            }
        }
    }

    /// Ends the node between two of its steps: nothing is said, finished or handed on.
    pub fn kill(mut self) {
        self.runtime.take().expect("it runs").shutdown_background();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A dead node's runtime takes a moment to close its listener.
async fn bind(listen: &str) -> std::net::TcpListener {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(listen).await.and_then(TcpListener::into_std) {
            Ok(listener) => return listener,
            Err(e) => assert!(begun.elapsed() < PATIENCE, "{listen}: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A few nodes, up or down.
pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    pub disks: BTreeMap<NodeId, Disk>,
    pub listen: BTreeMap<NodeId, String>,
    tune: fn(&mut Options),
}

/// An address on loopback that nobody listens on.
pub fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").to_string()
}

pub fn addresses(listen: &str) -> Addresses {
    Addresses { peers: listen.to_owned(), public: format!("http://{listen}") }
}

/// Fast enough for tests, slow enough for a machine that also compiles.
pub fn options(node: NodeId) -> Options {
    let mut options = Options::new("test", node, 1000 + node);
    options.heartbeat_interval = Duration::from_millis(100);
    options.election_timeout_min = Duration::from_millis(300);
    options.election_timeout_max = Duration::from_millis(600);
    options
}

impl Cluster {
    /// A cluster of nodes 1 to `size` with disks in memory, formed, and with a leader.
    pub async fn new(size: u64, tune: fn(&mut Options)) -> Self {
        let disks = (1..=size).map(|node| (node, Disk::Memory(MemoryDisk::new()))).collect();
        Self::on(disks, tune).await
    }

    pub async fn on(disks: BTreeMap<NodeId, Disk>, tune: fn(&mut Options)) -> Self {
        let listen: BTreeMap<NodeId, String> = disks.keys().map(|node| (*node, free_address())).collect();
        let mut cluster = Self { nodes: BTreeMap::new(), disks, listen, tune };
        cluster.start_all().await;
        let members = cluster.listen.iter().map(|(node, listen)| (*node, addresses(listen))).collect();
        let first = cluster.nodes.values().next().expect("a node");
        first.handle.initialize(members).await.expect("the cluster forms");
        cluster.leader().await;
        cluster
    }

    /// A cluster of one node whose disk has what it needs.
    pub async fn started(node: NodeId, disk: Disk, listen: String, tune: fn(&mut Options)) -> Self {
        let (disks, listen) = (BTreeMap::from([(node, disk)]), BTreeMap::from([(node, listen)]));
        let mut cluster = Self { nodes: BTreeMap::new(), disks, listen, tune };
        cluster.start_all().await;
        cluster.leader().await;
        cluster
    }

    /// A node's options.
    pub fn options(&self, node: NodeId) -> Options {
        let mut options = options(node);
        (self.tune)(&mut options);
        options
    }

    /// Starts a node that is down.
    pub async fn start(&mut self, node: NodeId) {
        let started = Node::start(self.options(node), &self.disks[&node], &self.listen[&node]).await;
        self.nodes.insert(node, started.unwrap_or_else(|e| panic!("node {node} starts: {e}")));
    }

    /// Starts every node that is down.
    pub async fn start_all(&mut self) {
        let down: Vec<NodeId> =
            self.disks.keys().copied().filter(|node| !self.nodes.contains_key(node)).collect();
        for node in down {
            self.start(node).await;
        }
    }

    /// Kills a node.
    pub fn kill(&mut self, node: NodeId) {
        self.nodes.remove(&node).expect("it runs").kill();
    }

    /// Kills a node and takes its power: its disk has only what was synced.
    pub fn cut_power(&mut self, node: NodeId) {
        let Disk::Memory(disk) = &self.disks[&node] else { panic!("node {node} has no disk in memory") };
        let left = disk.after_power_loss();
        self.kill(node);
        self.disks.insert(node, Disk::Memory(left));
    }

    pub fn handle(&self, node: NodeId) -> Handle<Ledger> {
        self.nodes[&node].handle.clone()
    }

    /// Waits for a leader that is ready, and gives its id.
    pub async fn leader(&self) -> NodeId {
        self.leader_other_than(0).await
    }

    pub async fn leader_other_than(&self, not: NodeId) -> NodeId {
        let begun = Instant::now();
        loop {
            let ready = |node: &&NodeId| **node != not && self.nodes[*node].handle.leadership().is_ready;
            if let Some(leader) = self.nodes.keys().find(ready) {
                return *leader;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody leads: {}", self.describe());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A node that is up and does not lead.
    pub async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        *self.nodes.keys().find(|node| **node != leader).expect("a follower")
    }

    /// Has a number accepted by whoever leads; gives its revision. Nothing is tried again once its
    /// outcome is unknown.
    pub async fn propose(&self, n: u64) -> Result<u64, ProposeError> {
        let begun = Instant::now();
        loop {
            let leader = self.leader().await;
            match self.handle(leader).propose(number(n), None).await {
                Ok(committed) => return Ok(committed.revision),
                Err(ProposeError::NotLeader { .. }) if begun.elapsed() < PATIENCE => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Has many numbers accepted, in order, by whoever leads now.
    pub async fn propose_all(&self, numbers: impl IntoIterator<Item = u64>) -> u64 {
        let leader = self.handle(self.leader().await);
        let mut pending = Vec::new();
        for n in numbers {
            pending.push(leader.submit(number(n), None).await.expect("it is taken"));
        }
        let mut last = 0;
        for outcome in pending {
            last = outcome.await.expect("it is committed").revision;
        }
        last
    }

    /// Waits until every node that is up has applied what its leader has, and checks that all agree.
    pub async fn agree(&self) -> Ledger {
        let target = self.linearize_on(self.leader().await).await;
        let mut states = BTreeMap::new();
        for (node, up) in &self.nodes {
            up.handle.wait_applied(target, PATIENCE).await.unwrap_or_else(|e| {
                panic!("node {node} catches up: {e}; {}", self.describe());
            });
            let view = up.handle.state();
            states.insert(*node, view.state.clone());
        }
        let first = states.values().next().expect("a node").clone();
        for (node, state) in &states {
            assert_eq!(state.lines, first.lines, "node {node} has another state");
        }
        first
    }

    /// A linearizable read, tried again while leadership moves.
    pub async fn linearize_on(&self, node: NodeId) -> u64 {
        let begun = Instant::now();
        loop {
            match self.handle(node).linearize().await {
                Ok(revision) => return revision,
                Err(e @ LinearizeError::Wait(_)) => panic!("node {node}: {e}; {}", self.describe()),
                Err(e) => assert!(begun.elapsed() < PATIENCE, "node {node}: {e}; {}", self.describe()),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What a failed test shows.
    pub fn describe(&self) -> String {
        let lines = self.nodes.iter().map(|(node, up)| format!("node {node}: {:?}", up.handle.status()));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Waits until something holds.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
