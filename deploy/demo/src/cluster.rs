//! Three coordinators as real processes, on loopback or each where its [`Site`] says, with their logs and durable
//! storage in a folder.
//!
//! Processes are started in a group of their own, so that Ctrl-C in a terminal reaches the caller alone,
//! and die with the [`Cluster`].

use crate::clock::AllianceClock;
use anyhow::{Context as _, bail, ensure};
use millpool_cli::client::{Client, ClientOptions, TlsOptions};
use millpool_proto::v1::{self, GetStatusRequest, GetStatusResponse};
use rustix::process::{Pid, Signal, kill_process};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Coordinators of a cluster.
pub const NODES: usize = 3;
/// How long a process may take to stop in good order: a coordinator has 5 s to hand over leadership, which takes all of
/// them where its successor is stopping too, 5 s for what is open, and 2 s for its threads.
const STOP_WAIT: Duration = Duration::from_secs(15);
/// How long a node may take to say what it knows.
const STATUS_WAIT: Duration = Duration::from_millis(500);
/// The format of log and snapshots before the newest one.
const FORMER_FORMAT: u32 = 1;
/// Entries within which nodes are level while work goes on.
const LEVEL_ENTRIES: u64 = 1000;

/// Where a node stands.
#[derive(Clone, Debug)]
pub struct Site {
    /// The address of its listeners.
    pub host: IpAddr,
    /// The folder of its storage.
    pub folder: PathBuf,
    /// The network namespace that it runs in; the caller's without one.
    pub namespace: Option<String>,
}

/// What nodes and clients need to speak TLS.
#[derive(Clone, Debug)]
pub struct Security {
    /// A folder with the authority's certificate (`ca.pem`), each node's certificate and key (`node-1.pem`,
    /// `node-1.key`, ...) and the operator's token (`operator.token`).
    pub folder: PathBuf,
    /// The authority's certificate, PEM.
    pub ca_pem: String,
    /// The operator's token.
    pub operator_token: String,
}

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder with the built binaries.
    pub bin_dir: PathBuf,
    /// The folder for storage and logs.
    pub data_dir: PathBuf,
    /// The alliance's clock.
    pub clock: AllianceClock,
    /// Pause between optimisations, ms.
    pub optimise_every_ms: u64,
    /// Time for one optimisation, ms; 0 for none.
    pub optimise_for_ms: u64,
    /// Log entries between snapshots.
    pub snapshot_every: u64,
    /// What coordinators log.
    pub log: String,
    /// Where the nodes stand.
    pub sites: [Site; NODES],
    /// TLS and tokens; without them, on loopback, a caller is who it says it is.
    pub security: Option<Security>,
    /// In which version the nodes begin, until they are [upgraded](Cluster::upgrade_node).
    pub begins: Version,
}

/// A version of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// The one that was built.
    Present,
    /// The one that was built, held at the former format of log and snapshots.
    HeldBack,
    /// Another binary.
    Binary(PathBuf),
}

impl Options {
    /// Coordinators as they come, on loopback, in `data_dir`.
    pub fn new(bin_dir: PathBuf, data_dir: PathBuf) -> Self {
        let site = |index: usize| Site {
            host: Ipv4Addr::LOCALHOST.into(),
            folder: data_dir.join(format!("node-{}", index + 1)),
            namespace: None,
        };
        Self {
            sites: std::array::from_fn(site),
            security: None,
            begins: Version::Present,
            bin_dir,
            data_dir,
            clock: AllianceClock::wall(),
            optimise_every_ms: 5000,
            optimise_for_ms: 5000,
            snapshot_every: 20_000,
            log: "info".to_owned(),
        }
    }
}

/// A running cluster.
pub struct Cluster {
    options: Options,
    cluster_id: String,
    nodes: Vec<Node>,
}

struct Node {
    id: u64,
    folder: PathBuf,
    version: Version,
    /// It is not of the first nodes, which form the cluster, and waits to be added.
    joins: bool,
    public: String,
    peer: String,
    metrics: String,
    /// None while it is killed.
    process: Option<Child>,
}

impl Cluster {
    /// Starts three nodes on free ports, with empty storage.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let mut ports = free_ports(3 * NODES)?.into_iter();
        let mut nodes = Vec::new();
        for (index, site) in options.sites.iter().enumerate() {
            let mut at =
                |host: IpAddr| anyhow::Ok(format!("{host}:{}", ports.next().context("a free port")?));
            let (public, peer) = (at(site.host)?, at(site.host)?);
            let metrics = at(Ipv4Addr::LOCALHOST.into())?;
            nodes.push(Node {
                id: index as u64 + 1,
                folder: site.folder.clone(),
                version: options.begins.clone(),
                joins: false,
                public,
                peer,
                metrics,
                process: None,
            });
        }
        let mut cluster = Self { options, cluster_id: "demo".to_owned(), nodes };
        for index in 0..NODES {
            cluster.start_node(index)?;
        }
        Ok(cluster)
    }

    /// The public addresses, by node.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.public.clone()).collect()
    }

    /// The address of a node's metrics.
    pub fn metrics_address(&self, index: usize) -> &str {
        &self.nodes[index].metrics
    }

    /// A node's process id, while it runs.
    pub fn process_id(&self, index: usize) -> Option<u32> {
        self.nodes[index].process.as_ref().and_then(Child::id)
    }

    /// The folder of a node's storage.
    pub fn folder(&self, index: usize) -> &Path {
        &self.nodes[index].folder
    }

    /// The folder of the logs.
    pub fn logs(&self) -> PathBuf {
        self.options.data_dir.join("logs")
    }

    /// The file that a node logs to.
    pub fn log_file(&self, index: usize) -> PathBuf {
        self.logs().join(format!("scheduler-{}.log", self.nodes[index].id))
    }

    /// Starts a node on what its storage holds.
    pub fn start_node(&mut self, index: usize) -> anyhow::Result<()> {
        let process = spawn(&mut self.command(index), &self.log_file(index))?;
        self.nodes[index].process = Some(process);
        Ok(())
    }

    fn command(&self, index: usize) -> Command {
        let (options, node) = (&self.options, &self.nodes[index]);
        // The first nodes know each other as they were, whoever has been replaced since.
        let member = |(at, node): (usize, &Node)| format!("{}={}/{}", at + 1, node.peer, node.public);
        let members: Vec<String> = self.nodes.iter().enumerate().map(member).collect();
        let site = &options.sites[index];
        let built = options.bin_dir.join("millpool-scheduler");
        let program = if let Version::Binary(other) = &node.version { other } else { &built };
        let mut command = inside(site.namespace.as_deref(), program);
        let mut set = |flag: &str, value: String| {
            command.arg(format!("--{flag}")).arg(value);
        };
        match &options.security {
            None => set("insecure-dev", "true".to_owned()),
            Some(security) => {
                let file = |name: String| security.folder.join(name).display().to_string();
                set("tls-cert", file(format!("node-{}.pem", node.id)));
                set("tls-key", file(format!("node-{}.key", node.id)));
                set("peer-ca", file("ca.pem".to_owned()));
                set("operator-token-file", file("operator.token".to_owned()));
            }
        }
        if node.version == Version::HeldBack {
            set("format-max", FORMER_FORMAT.to_string());
        }
        if !node.joins {
            set("initial-cluster", members.join(","));
        }
        set("cluster-id", self.cluster_id.clone());
        set("node-id", node.id.to_string());
        set("data-dir", node.folder.display().to_string());
        set("public-listen", node.public.clone());
        set("peer-listen", node.peer.clone());
        set("metrics-listen", node.metrics.clone());
        set("optimise-every-ms", options.optimise_every_ms.to_string());
        set("optimise-for-ms", options.optimise_for_ms.to_string());
        set("snapshot-every", options.snapshot_every.to_string());
        set("clock-scale", options.clock.scale.to_string());
        set("clock-epoch-ms", options.clock.epoch_ms.to_string());
        set("log", options.log.clone());
        command
    }

    /// Kills a node with SIGKILL and waits until it is gone.
    pub async fn kill_node(&mut self, index: usize) -> anyhow::Result<()> {
        let mut process = self.nodes[index].process.take().context("the node is dead already")?;
        Ok(process.kill().await?)
    }

    /// Asks a node to stop, and waits until it has.
    pub async fn terminate_node(&mut self, index: usize) -> anyhow::Result<()> {
        self.signal_node(index, Signal::TERM)?;
        let id = self.nodes[index].id;
        let ended = self.wait_for_end(index, STOP_WAIT).await?;
        let status = ended.with_context(|| format!("coordinator {id} did not stop within {STOP_WAIT:?}"))?;
        ensure!(status.success(), "coordinator {id} stopped badly ({status}); see {}", self.logs().display());
        Ok(())
    }

    /// From its next start on, a node is of the version that was built.
    pub fn upgrade_node(&mut self, index: usize) {
        self.nodes[index].version = Version::Present;
    }

    /// A node that is dead and gone for good makes room for a new one under a new id, with an empty folder, which has
    /// to be added to the cluster. Answers with the old id.
    pub fn replace_node(&mut self, index: usize) -> anyhow::Result<u64> {
        let newest = self.nodes.iter().map(|node| node.id).max().unwrap_or_default();
        self.give_up(index, newest + 1, "")
    }

    /// All nodes, which are dead, make room for those of another cluster: with empty folders, to be added to one that
    /// is restored.
    pub fn begin_again(&mut self, cluster_id: &str) -> anyhow::Result<()> {
        cluster_id.clone_into(&mut self.cluster_id);
        for index in 0..NODES {
            self.give_up(index, index as u64 + 1, cluster_id)?;
        }
        Ok(())
    }

    fn give_up(&mut self, index: usize, id: u64, within: &str) -> anyhow::Result<u64> {
        let folder = self.options.data_dir.join(within).join(format!("node-{id}"));
        let node = &mut self.nodes[index];
        ensure!(node.process.is_none(), "node {} is alive", node.id);
        (node.folder, node.joins) = (folder, true);
        Ok(std::mem::replace(&mut node.id, id))
    }

    /// How a node is added to a cluster.
    pub fn as_member(&self, index: usize) -> v1::Node {
        let node = &self.nodes[index];
        let (peer_address, public_address) = (node.peer.clone(), node.public.clone());
        v1::Node { id: node.id, peer_address, public_address, ..v1::Node::default() }
    }

    /// Has a node's binary do something with its data folder, with the node's settings.
    pub async fn perform(&self, index: usize, act: &[&str]) -> anyhow::Result<Output> {
        Ok(self.command(index).args(act).output().await?)
    }

    /// Sends a node a signal.
    pub fn signal_node(&self, index: usize, signal: Signal) -> anyhow::Result<()> {
        let process = self.nodes[index].process.as_ref().context("the node is dead")?;
        send(process, signal)
    }

    /// Waits for a node that is to end by itself; None where it goes on.
    pub async fn wait_for_end(
        &mut self,
        index: usize,
        patience: Duration,
    ) -> anyhow::Result<Option<ExitStatus>> {
        let process = self.nodes[index].process.as_mut().context("the node is dead already")?;
        let Ok(ended) = tokio::time::timeout(patience, process.wait()).await else { return Ok(None) };
        self.nodes[index].process = None;
        Ok(Some(ended?))
    }

    /// Whether a node is running, as far as it was meant to.
    pub fn is_up(&self, index: usize) -> bool {
        self.nodes[index].process.is_some()
    }

    /// Fails if a node has ended that nobody has killed, with the end of its log.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        for index in 0..NODES {
            let Some(process) = &mut self.nodes[index].process else { continue };
            if let Some(status) = process.try_wait()? {
                let file = self.log_file(index);
                bail!("coordinator {} has ended ({status}):\n{}", self.nodes[index].id, tail(&file));
            }
        }
        Ok(())
    }

    /// A client of all nodes, preferring the one of that number.
    pub fn client(&self, token: &str, prefer: usize) -> anyhow::Result<Client> {
        let mut endpoints = self.endpoints();
        endpoints.rotate_left(prefer % NODES);
        let options = ClientOptions {
            endpoints,
            token: Some(token.to_owned()),
            tls: self.tls(),
            attempt_timeout: Duration::from_secs(5),
            ..ClientOptions::default()
        };
        Ok(Client::new(options)?)
    }

    fn tls(&self) -> Option<TlsOptions> {
        let ca = &self.options.security.as_ref()?.ca_pem;
        Some(TlsOptions { ca_pem: ca.clone().into_bytes(), server_name: None })
    }

    /// What one node knows; None while it does not answer.
    pub async fn status(&self, index: usize) -> Option<GetStatusResponse> {
        self.nodes[index].process.as_ref()?;
        let options = ClientOptions {
            endpoints: vec![self.nodes[index].public.clone()],
            token: self.options.security.as_ref().map(|security| security.operator_token.clone()),
            tls: self.tls(),
            attempt_timeout: STATUS_WAIT,
            deadline: STATUS_WAIT,
            attempts_max: 1,
            ..ClientOptions::default()
        };
        Client::new(options).ok()?.get_status(GetStatusRequest {}).await.ok()
    }

    /// The leader's index, by the node of the highest term that knows one.
    pub async fn leader(&self) -> Option<usize> {
        let mut best: Option<(u64, u64)> = None;
        for index in 0..NODES {
            let Some(status) = self.status(index).await else { continue };
            let term = status.header.map_or(0, |header| header.term);
            if status.leader_id > 0 && best.is_none_or(|(known, _)| term > known) {
                best = Some((term, status.leader_id));
            }
        }
        let index = self.nodes.iter().position(|node| best.is_some_and(|(_, id)| node.id == id));
        index.filter(|index| self.is_up(*index))
    }

    /// Waits for a leader.
    pub async fn wait_for_leader(&mut self, patience: Duration) -> anyhow::Result<usize> {
        let began = Instant::now();
        loop {
            self.check_alive()?;
            if let Some(leader) = self.leader().await {
                return Ok(leader);
            }
            let waiting = began.elapsed() < patience;
            ensure!(waiting, "no leader within {patience:?}; see {}", self.logs().display());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every node runs and says that it has applied about what the furthest one has.
    pub async fn wait_until_level(&mut self, patience: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            self.check_alive()?;
            let mut applied = Vec::new();
            for index in 0..NODES {
                applied.extend(self.status(index).await.map(|status| status.applied_index));
            }
            let (least, most) = (applied.iter().min(), applied.iter().max());
            let near = least.zip(most).is_some_and(|(least, most)| most - least < LEVEL_ENTRIES);
            if applied.len() == NODES && near {
                return Ok(());
            }
            ensure!(began.elapsed() < patience, "the nodes are not level after {patience:?}: {applied:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops every node in good order; those that do not stop in time are killed, and named.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let mut slow = Vec::new();
        let processes: Vec<_> = self.nodes.iter_mut().map(|node| (node.id, node.process.take())).collect();
        for (_, process) in &processes {
            process.as_ref().map_or(Ok(()), terminate)?;
        }
        for (id, process) in processes {
            let Some(mut process) = process else { continue };
            if tokio::time::timeout(STOP_WAIT, process.wait()).await.is_err() {
                process.kill().await?;
                slow.push(id);
            }
        }
        ensure!(slow.is_empty(), "coordinators {slow:?} did not stop within {STOP_WAIT:?} of SIGTERM");
        Ok(())
    }
}

/// A program, in a network namespace where one is named. It keeps the process id.
fn inside(namespace: Option<&str>, program: &Path) -> Command {
    let Some(namespace) = namespace else { return Command::new(program) };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// Starts a process that logs to a file, in a group of its own, to die with its handle.
pub fn spawn(command: &mut Command, log_file: &Path) -> anyhow::Result<Child> {
    if let Some(folder) = log_file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let log = std::fs::File::options().create(true).append(true).open(log_file);
    let log = log.with_context(|| format!("opening {}", log_file.display()))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.process_group(0).kill_on_drop(true);
    let program = command.as_std().get_program().display().to_string();
    command.spawn().with_context(|| format!("starting {program}"))
}

/// Asks a process to stop.
pub(crate) fn terminate(process: &Child) -> anyhow::Result<()> {
    send(process, Signal::TERM)
}

fn send(process: &Child, signal: Signal) -> anyhow::Result<()> {
    let pid = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    match pid {
        Some(pid) => Ok(kill_process(pid, signal)?),
        None => Ok(()),
    }
}

/// The last lines of a log.
pub(crate) fn tail(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// Ports that nobody listens on now, all different.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(listeners
        .iter()
        .map(|listener| listener.local_addr().map(|at| at.port()))
        .collect::<Result<_, _>>()?)
}
