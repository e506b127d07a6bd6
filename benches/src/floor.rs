//! The shop floor of a measurement: the shipped agents in this process, of machines that report nothing by themselves, so
//! that it is the measurement that says what happens to them.
//!
//! In reality every agent has a disk of its own: here what they keep is in memory (`/dev/shm`, where there is one).

use crate::stage::Stage;
use anyhow::{Context as _, ensure};
use millpool_demo::clock::AllianceClock;
use millpool_node_agent::adapter::{Power, manual};
use millpool_node_agent::agent::{Adapter, Agent, AgentError, Machine, Options};
use millpool_node_agent::clock::Clock;
use millpool_node_agent::dispatch::Kept;
use millpool_node_agent::ground::Ground;
use millpool_node_agent::health::{Health, Line};
use millpool_node_agent::outbox::{BYTES_MAX_LEAST, Entry, Outbox};
use millpool_node_agent::session::{Timing, Token};
use millpool_proto::v1::AgentEvent;
use millpool_proto::v1::agent_event::What;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long all agents may take to be connected.
const PATIENCE: Duration = Duration::from_secs(120);

/// Running agents.
pub(crate) struct Floor {
    /// One each.
    pub(crate) plants: Vec<Plant>,
    running: JoinSet<Result<(), AgentError>>,
    stop: CancellationToken,
    dir: PathBuf,
}

/// One plant's agent.
pub(crate) struct Plant {
    /// Its machines' ids.
    pub(crate) machines: Vec<String>,
    /// Where what happens on them is told.
    pub(crate) voice: Voice,
    /// Its list.
    pub(crate) kept: watch::Receiver<Arc<Kept>>,
    health: Health,
}

/// Tells what happens in a plant.
#[derive(Clone)]
pub(crate) struct Voice {
    pub(crate) outbox: Outbox,
    clock: Clock,
}

impl Voice {
    /// Puts what happened on a machine into the outbox, as its adapter does.
    pub(crate) async fn tell(&self, machine_id: &str, what: What) -> anyhow::Result<()> {
        let at_ms = self.clock.now_ms();
        let event = AgentEvent { seq: 0, at_ms, machine_id: machine_id.to_owned(), what: Some(what) };
        Ok(self.outbox.append(Entry { events: vec![event], mark: None }).await?)
    }
}

impl Floor {
    /// Starts an agent for each plant and its machines, and waits until all are connected.
    pub(crate) async fn open(
        stage: &Stage,
        plants: impl Iterator<Item = (String, Vec<String>)>,
    ) -> anyhow::Result<Self> {
        let (stop, dir) = (CancellationToken::new(), folder()?);
        let AllianceClock { epoch_ms, scale } = stage.clock;
        let clock = Clock::new(epoch_ms, epoch_ms, scale as f64);
        let mut floor = Self { plants: Vec::new(), running: JoinSet::new(), stop, dir };
        for (plant_id, machines) in plants {
            let options = options(stage, &plant_id, &machines, &floor.dir);
            let agent = Agent::open(options, clock, Ground::Machine)?;
            let (outbox, kept, health) = (agent.outbox(), agent.kept(), agent.health());
            floor.plants.push(Plant { machines, voice: Voice { outbox, clock }, kept, health });
            floor.running.spawn(agent.run(floor.stop.clone()));
        }
        floor.connected().await?;
        Ok(floor)
    }

    async fn connected(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let up = |plant: &&Plant| matches!(plant.health.report().line, Line::Connected { .. });
        loop {
            let count = self.plants.iter().filter(up).count();
            if count == self.plants.len() {
                eprintln!("{count} agents connected after {:.1} s", begun.elapsed().as_secs_f64());
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{count} of {} agents are connected", self.plants.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops all.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended??;
        }
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("removing {}", self.dir.display()))
    }
}

/// A new folder, in memory where there is one.
fn folder() -> anyhow::Result<PathBuf> {
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let dir = root.join(format!("millpool-agents-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

fn options(stage: &Stage, plant_id: &str, machines: &[String], dir: &Path) -> Options {
    let adapter = || Adapter::Manual(manual::Options { progress_s: 900, power: Power::default() });
    Options {
        plant_id: plant_id.to_owned(),
        agent_id: "agent".to_owned(),
        data_dir: dir.join(plant_id),
        outbox_bytes_max: BYTES_MAX_LEAST,
        coordinators: stage.endpoints().to_vec(),
        token: Token::Given(format!("agent:{plant_id}")),
        tls: None,
        timing: Timing::default(),
        machines: machines
            .iter()
            .map(|id| Machine { id: id.clone(), adapter: adapter(), remote: None })
            .collect(),
    }
}
