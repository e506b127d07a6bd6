//! An adapter with an outbox and a dispatch list, without a coordinator.

use millpool_node_agent::adapter::Shop;
use millpool_node_agent::adapter::shop::Ways;
use millpool_node_agent::adapter::word::{Said, Word, WordError};
use millpool_node_agent::clock::Clock;
use millpool_node_agent::dispatch::Dispatch;
use millpool_node_agent::ground::Ground;
use millpool_node_agent::health::{Health, MachineReport};
use millpool_node_agent::outbox::{self, BYTES_MAX_DEFAULT, Outbox, OutboxError};
use millpool_proto::v1::{AgentEvent, MachineState, agent_event::What};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what is to happen.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Plant {
    dir: PathBuf,
    pub outbox: Outbox,
    pub health: Health,
    pub dispatch: Dispatch,
    pub ways: Ways,
    stop: CancellationToken,
    pub running: JoinHandle<()>,
}

impl Plant {
    /// Starts an adapter on what `dir` holds.
    pub fn start<R>(dir: &Path, adapter: impl FnOnce(Shop, CancellationToken) -> R) -> Self
    where
        R: Future<Output = Result<(), OutboxError>> + Send + 'static,
    {
        let at = outbox::Options { dir: dir.join("outbox"), bytes_max: BYTES_MAX_DEFAULT };
        let outbox = outbox::open(&at, &Ground::Machine).unwrap();
        let health = Health::new("plant", "agent");
        let dispatch = Dispatch::open(dir, "plant", &Ground::Machine).unwrap();
        let (shop, ways) = Shop::open(Clock::default(), outbox.clone(), dispatch.watch(), health.clone());
        let stop = CancellationToken::new();
        let running = adapter(shop, stop.clone());
        let running = tokio::spawn(async move { running.await.unwrap() });
        Self { dir: dir.to_owned(), outbox, health, dispatch, ways, stop, running }
    }

    pub async fn events(&self) -> Vec<AgentEvent> {
        self.outbox.read(1, usize::MAX).await.unwrap()
    }

    /// Says something about a machine, as a person does at the console.
    pub async fn say(&self, machine: &str, word: Word) -> Result<String, WordError> {
        let (answer, answered) = oneshot::channel();
        let said = Said { machine_id: machine.to_owned(), word, answer };
        self.ways.words.send(said).await.unwrap();
        tokio::time::timeout(PATIENCE, answered).await.unwrap().unwrap()
    }

    /// What is said of a machine.
    pub fn report(&self, machine: &str) -> MachineReport {
        self.health.report().machines.get(machine).cloned().unwrap_or_default()
    }

    /// Waits until the events are so.
    pub async fn until(&self, what: &str, is: impl Fn(&[AgentEvent]) -> bool) -> Vec<AgentEvent> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let events = self.events().await;
            if is(&events) {
                return events;
            }
            let report = self.health.report();
            assert!(
                tokio::time::Instant::now() < deadline,
                "not within {PATIENCE:?}: {what}: {report:#?} {events:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a machine is in a state, as the events tell it.
    pub async fn until_state(&self, machine: &str, state: MachineState) -> Vec<AgentEvent> {
        let what = format!("{machine} is {state:?}");
        self.until(&what, |events| states(events, machine).last() == Some(&state)).await
    }

    /// Waits until what is said of a machine is so.
    pub async fn until_report(
        &self,
        machine: &str,
        what: &str,
        is: impl Fn(&MachineReport) -> bool,
    ) -> MachineReport {
        self.until(what, |_| is(&self.report(machine))).await;
        self.report(machine)
    }

    pub async fn stop(self) -> PathBuf {
        self.stop.cancel();
        self.running.await.unwrap();
        self.outbox.close().await;
        self.dir
    }
}

/// The states that a machine was told to be in, in order.
pub fn states(events: &[AgentEvent], machine: &str) -> Vec<MachineState> {
    let of_machine = events.iter().filter(|event| event.machine_id == machine);
    let state = |event: &AgentEvent| match &event.what {
        Some(What::StateChanged(changed)) => Some(changed.state()),
        _ => None,
    };
    of_machine.filter_map(state).collect()
}
