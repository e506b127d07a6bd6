//! Three coordinators as real processes on loopback, with their logs and durable storage in a folder.
//!
//! Processes are started in a group of their own, so that Ctrl-C in a terminal reaches the caller alone,
//! and die with the [`Cluster`].

use crate::clock::AllianceClock;
use anyhow::{Context as _, bail, ensure};
use millpool_cli::client::{Client, ClientOptions};
use millpool_proto::v1::{GetStatusRequest, GetStatusResponse};
use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Coordinators of a cluster.
pub const NODES: usize = 3;
/// How long a process may take to stop in good order.
const STOP_WAIT: Duration = Duration::from_secs(6);
/// How long a node may take to say what it knows.
const STATUS_WAIT: Duration = Duration::from_millis(500);

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
}

impl Options {
    /// Coordinators as they come, in `data_dir`.
    pub fn new(bin_dir: PathBuf, data_dir: PathBuf) -> Self {
        Self {
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
    nodes: Vec<Node>,
}

struct Node {
    id: usize,
    public: String,
    peer: String,
    metrics: String,
    /// None while it is killed.
    process: Option<Child>,
}

impl Cluster {
    /// Starts three nodes on free ports, with empty storage.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let mut ports = free_ports(3 * NODES)?.into_iter().map(|port| format!("127.0.0.1:{port}"));
        let mut nodes = Vec::new();
        for id in 1..=NODES {
            let mut port = || ports.next().context("a free port");
            nodes.push(Node { id, public: port()?, peer: port()?, metrics: port()?, process: None });
        }
        let mut cluster = Self { options, nodes };
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
        let member = |node: &Node| format!("{}={}/{}", node.id, node.peer, node.public);
        let members: Vec<String> = self.nodes.iter().map(member).collect();
        let storage = options.data_dir.join(format!("node-{}", node.id));
        let mut command = Command::new(options.bin_dir.join("millpool-scheduler"));
        let mut set = |flag: &str, value: String| {
            command.arg(format!("--{flag}")).arg(value);
        };
        set("insecure-dev", "true".to_owned());
        set("cluster-id", "demo".to_owned());
        set("node-id", node.id.to_string());
        set("data-dir", storage.display().to_string());
        set("initial-cluster", members.join(","));
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
                bail!("coordinator {} has ended ({status}):\n{}", index + 1, tail(&file));
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
            attempt_timeout: Duration::from_secs(5),
            ..ClientOptions::default()
        };
        Ok(Client::new(options)?)
    }

    /// What one node knows; None while it does not answer.
    pub async fn status(&self, index: usize) -> Option<GetStatusResponse> {
        self.nodes[index].process.as_ref()?;
        let options = ClientOptions {
            endpoints: vec![self.nodes[index].public.clone()],
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
        best.map(|(_, id)| id as usize - 1).filter(|index| *index < NODES && self.is_up(*index))
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

/// Starts a process that logs to a file, in a group of its own, to die with its handle.
pub(crate) fn spawn(command: &mut Command, log_file: &Path) -> anyhow::Result<Child> {
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
    let pid = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    match pid {
        Some(pid) => Ok(kill_process(pid, Signal::TERM)?),
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
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(listeners
        .iter()
        .map(|listener| listener.local_addr().map(|at| at.port()))
        .collect::<Result<_, _>>()?)
}
