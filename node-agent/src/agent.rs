//! One plant's agent: opens what is on disk, starts the adapters and the session, and stops them in order.
//!
//! Stopping: first the adapters, so that nothing new happens; then the session is given a moment to send
//! what is in the outbox; then the outbox is closed. What was not sent is on disk, and is sent next time.

use crate::adapter::opcua::pki::{Pki, PkiError};
use crate::adapter::word::Said;
use crate::adapter::{Shop, manual, mtconnect, opcua, simulated, sparkplug};
use crate::clock::Clock;
use crate::dispatch::{Dispatch, DispatchError, Kept};
use crate::ground::Ground;
use crate::health::{Health, Line};
use crate::outbox::{self, LogError, Outbox, OutboxError};
use crate::remote::consent::Rule;
use crate::remote::quarantine::{Quarantine, Supply};
use crate::remote::run::{Hand, Told};
use crate::remote::{self, Bid};
use crate::samples::Samples;
use crate::session::{self, Session, Timing, Tls, Token};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a stopping agent tries to get its last events applied.
pub const FLUSH_MAX: Duration = Duration::from_secs(3);

/// What an agent is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The plant.
    pub plant_id: String,
    /// The agent's name.
    pub agent_id: String,
    /// Its folder.
    pub data_dir: PathBuf,
    /// Size limit of the outbox.
    pub outbox_bytes_max: u64,
    /// `host:port` of each coordinator.
    pub coordinators: Vec<String>,
    /// The bearer token.
    pub token: Token,
    /// Certificates; plain text without.
    pub tls: Option<Tls>,
    /// The session's deadlines and delays.
    pub timing: Timing,
    /// The machines.
    pub machines: Vec<Machine>,
}

/// One machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its id in the registry.
    pub id: String,
    /// What stands before it.
    pub adapter: Adapter,
    /// What the plant allows of remote operation; none where it allows nothing.
    pub remote: Option<Rule>,
}

/// What stands before a machine.
#[derive(Clone, Debug)]
pub enum Adapter {
    /// It follows its dispatch list.
    Simulated(simulated::Options),
    /// It is read through MTConnect.
    Mtconnect(Box<mtconnect::Options>),
    /// It is read through OPC UA.
    Opcua(Box<opcua::Options>),
    /// It is read through MQTT.
    Sparkplug(Box<sparkplug::Options>),
    /// It reports nothing; people tell what it does.
    Manual(manual::Options),
}

impl Adapter {
    /// Its name in the config.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Simulated(_) => "simulated",
            Self::Mtconnect(_) => "mtconnect",
            Self::Opcua(_) => "opcua",
            Self::Sparkplug(_) => "sparkplug",
            Self::Manual(_) => "manual",
        }
    }
}

/// Why an agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its outbox cannot be opened.
    #[error("plant {plant}: {source}")]
    Log {
        /// Which.
        plant: String,
        /// Why.
        source: LogError,
    },
    /// Its dispatch list cannot be read.
    #[error("plant {plant}: {source}")]
    Dispatch {
        /// Which.
        plant: String,
        /// Why.
        source: DispatchError,
    },
    /// Its outbox has stopped.
    #[error("plant {plant}: {source}")]
    Outbox {
        /// Which.
        plant: String,
        /// Why.
        source: OutboxError,
    },
    /// There are no certificates for OPC UA.
    #[error("plant {plant}: {source}")]
    Pki {
        /// Which.
        plant: String,
        /// Why.
        source: PkiError,
    },
    /// An HTTP client for MTConnect cannot be made.
    #[error("plant {plant}: no HTTP client: {why}")]
    Http {
        /// Which.
        plant: String,
        /// Why.
        why: String,
    },
}

/// An agent, opened and not yet running.
pub struct Agent {
    options: Options,
    clock: Clock,
    ground: Ground,
    outbox: Outbox,
    dispatch: Dispatch,
    health: Health,
    ears: Ears,
    /// The way to remote operation, and its end.
    remote: (mpsc::Sender<Told>, mpsc::Receiver<Told>),
    /// Programs from afar that the plant has not looked at.
    quarantine: Quarantine,
    /// Certificates for OPC UA, where a machine needs them.
    pki: Option<Pki>,
    /// Where raw samples go.
    samples: Samples,
}

/// What runs beside the session.
type Adapters = JoinSet<Result<(), OutboxError>>;

/// The way to each machine's adapter, for what people say. Cheap to clone; a machine whose adapter does not run
/// has none.
#[derive(Clone, Default)]
pub struct Ears(Arc<Mutex<BTreeMap<String, mpsc::Sender<Said>>>>);

impl Ears {
    /// These machines' adapter hears through this.
    pub fn add(&self, machines: &[&str], words: &mpsc::Sender<Said>) {
        let mut ears = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ears.extend(machines.iter().map(|id| ((*id).to_owned(), words.clone())));
    }

    /// The way to a machine's adapter.
    pub fn of(&self, machine_id: &str) -> Option<mpsc::Sender<Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(machine_id).cloned()
    }
}

impl Agent {
    /// Opens what is on disk.
    pub fn open(options: Options, clock: Clock, ground: Ground) -> Result<Self, AgentError> {
        let plant = options.plant_id.clone();
        let health = Health::new(&options.plant_id, &options.agent_id);
        let at =
            outbox::Options { dir: options.data_dir.join("outbox"), bytes_max: options.outbox_bytes_max };
        let outbox =
            outbox::open(&at, &ground).map_err(|source| AgentError::Log { plant: plant.clone(), source })?;
        let dispatch = Dispatch::open(&options.data_dir, &plant, &ground);
        let dispatch = dispatch.map_err(|source| AgentError::Dispatch { plant: plant.clone(), source })?;
        let opcua = options.machines.iter().any(|machine| matches!(machine.adapter, Adapter::Opcua(_)));
        let pki = opcua.then(|| Pki::open(&options.data_dir.join("opcua"), &options.plant_id)).transpose();
        let pki = pki.map_err(|source| AgentError::Pki { plant, source })?;
        health.set_dispatch(dispatch.revision(), None);
        for machine in &options.machines {
            health.machine(&machine.id, |report| {
                report.adapter = machine.adapter.name();
                report.adapter_state = "starting".to_owned();
                report.machine_state = "unknown".to_owned();
            });
        }
        let (ears, remote) = (Ears::default(), mpsc::channel(remote::run::WAITING_MAX));
        let quarantine = Quarantine::open(&options.data_dir, &ground);
        Ok(Self {
            options,
            clock,
            ground,
            outbox,
            dispatch,
            health,
            ears,
            remote,
            quarantine,
            pki,
            samples: Samples::default(),
        })
    }

    /// Keeps its machines' raw samples there.
    pub fn keep_samples(&mut self, samples: Samples) {
        self.samples = samples;
    }

    /// Its machines' raw samples.
    pub fn samples(&self) -> Samples {
        self.samples.clone()
    }

    /// What it says about itself.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Its dispatch list as it is on disk, and a wake-up when another is.
    pub fn kept(&self) -> watch::Receiver<Arc<Kept>> {
        self.dispatch.watch()
    }

    /// Its folder.
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// The way to its machines' adapters.
    pub fn ears(&self) -> Ears {
        self.ears.clone()
    }

    /// The way to remote operation.
    pub fn remote(&self) -> mpsc::Sender<Told> {
        self.remote.0.clone()
    }

    /// Programs from afar that wait for the plant.
    pub fn quarantine(&self) -> Quarantine {
        self.quarantine.clone()
    }

    /// Its outbox.
    pub fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// Runs until `stop`, or until the outbox fails.
    pub fn run(mut self, stop: CancellationToken) -> BoxFuture<'static, Result<(), AgentError>> {
        Box::pin(async move {
            let plant = self.options.plant_id.clone();
            let failed = |source| AgentError::Outbox { plant: plant.clone(), source };
            let adapters_stop = stop.child_token();
            let session_stop = CancellationToken::new();
            let (mut adapters, hands) = self.start_adapters(&adapters_stop)?;
            let (line_sender, line) = watch::channel(remote::Line::default());
            let (supply_sender, supply) = watch::channel(None);
            let mut session =
                tokio::spawn(self.session(line_sender, supply_sender).run(session_stop.clone()));
            let told = std::mem::replace(&mut self.remote.1, mpsc::channel(1).1);
            let options = self.remote_options(line, supply, hands);
            adapters.spawn(remote::run::run(options, told, adapters_stop.clone()));
            let outcome = loop {
                tokio::select! {
                    () = stop.cancelled() => break Ok(()),
                    ended = &mut session => break ended.unwrap_or_else(|died| Err(died_of("the session", &died))),
                    Some(ended) = adapters.join_next() => match ended {
                        Ok(Ok(())) => {}
                        Ok(Err(stopped)) => break Err(stopped),
                        Err(died) => break Err(died_of("an adapter", &died)),
                    }
                }
            };
            adapters_stop.cancel();
            while adapters.join_next().await.is_some() {}
            if !session.is_finished() {
                self.flush().await;
                session_stop.cancel();
                // Asked to stop; how it ends tells nothing more.
                let _ = session.await;
            }
            self.samples.close().await;
            self.outbox.close().await;
            outcome.map_err(failed)
        })
    }

    fn remote_options(
        &self,
        line: watch::Receiver<remote::Line>,
        supply: watch::Receiver<Option<Arc<dyn Supply>>>,
        hands: BTreeMap<String, Hand>,
    ) -> remote::run::Options {
        remote::run::Options {
            plant_id: self.options.plant_id.clone(),
            clock: self.clock,
            outbox: self.outbox.clone(),
            kept: self.dispatch.watch(),
            line,
            hands,
            quarantine: self.quarantine.clone(),
            supply,
            health: self.health.clone(),
            ground: self.ground.clone(),
            #[cfg(test)]
            omitted: None,
        }
    }

    fn session(
        &self,
        line: watch::Sender<remote::Line>,
        supply: watch::Sender<Option<Arc<dyn Supply>>>,
    ) -> Session {
        let options = session::Options {
            plant_id: self.options.plant_id.clone(),
            agent_id: self.options.agent_id.clone(),
            coordinators: self.options.coordinators.clone(),
            token: self.options.token.clone(),
            tls: self.options.tls.clone(),
            timing: self.options.timing.clone(),
        };
        let (outbox, dispatch) = (self.outbox.clone(), self.dispatch.clone());
        let (clock, ground, health) = (self.clock, self.ground.clone(), self.health.clone());
        let remote = self.remote.0.clone();
        Session { options, clock, ground, outbox, dispatch, health, line, supply, remote }
    }

    fn start_adapters(
        &self,
        stop: &CancellationToken,
    ) -> Result<(Adapters, BTreeMap<String, Hand>), AgentError> {
        let mut adapters = JoinSet::new();
        let mut hands = BTreeMap::new();
        let client = mtconnect::client().map_err(|error| AgentError::Http {
            plant: self.options.plant_id.clone(),
            why: error.to_string(),
        })?;
        let shop = |machines: &[&str]| {
            let (mut shop, ways) =
                Shop::open(self.clock, self.outbox.clone(), self.dispatch.watch(), self.health.clone());
            shop.samples = self.samples.clone();
            self.ears.add(machines, &ways.words);
            (shop, ways.bids)
        };
        // Machines behind one server, or one broker, share a line.
        let mut servers = Vec::new();
        let mut brokers = Vec::new();
        for machine in &self.options.machines {
            let (id, stop) = (machine.id.clone(), stop.clone());
            match &machine.adapter {
                Adapter::Simulated(options) => {
                    let (shop, _) = shop(&[&id]);
                    adapters.spawn(simulated::run(id, options.clone(), shop, stop));
                }
                Adapter::Mtconnect(options) => {
                    let (shop, _) = shop(&[&id]);
                    adapters.spawn(mtconnect::run(id, *options.clone(), client.clone(), shop, stop));
                }
                Adapter::Opcua(options) => {
                    let opcua::Options { server, machine } = *options.clone();
                    join(&mut servers, server, (id, machine));
                }
                Adapter::Sparkplug(options) => {
                    let sparkplug::Options { broker, machine } = *options.clone();
                    join(&mut brokers, broker, (id, machine));
                }
                Adapter::Manual(options) => {
                    let (shop, _) = shop(&[&id]);
                    adapters.spawn(manual::run(id, options.clone(), shop, stop));
                }
            }
        }
        for (server, machines) in servers {
            if let Some(pki) = self.pki.clone() {
                let (shop, bids) = shop(&ids(&machines));
                hands.extend(self.hands(&ids(&machines), &bids));
                adapters.spawn(opcua::run(server, machines, pki, shop, stop.clone()));
            }
        }
        for (broker, machines) in brokers {
            let (shop, _) = shop(&ids(&machines));
            adapters.spawn(sparkplug::run(broker, machines, shop, stop.clone()));
        }
        Ok((adapters, hands))
    }

    /// The machines of a line that the plant allows to be operated from afar.
    fn hands(&self, ids: &[&str], bids: &mpsc::Sender<Bid>) -> Vec<(String, Hand)> {
        let allowed = self.options.machines.iter().filter(|machine| ids.contains(&machine.id.as_str()));
        let hand = |machine: &Machine| {
            let rule = machine.remote.clone()?;
            Some((machine.id.clone(), Hand { bids: bids.clone(), rule }))
        };
        allowed.filter_map(hand).collect()
    }

    /// Waits a moment for the coordinator to apply what is left, if there is a line to it.
    async fn flush(&self) {
        if !matches!(self.health.report().line, Line::Connected { .. }) {
            return;
        }
        let mut status = self.outbox.status();
        let applied =
            status.wait_for(|status| status.acked_seq >= status.last_seq || status.failed.is_some());
        if tokio::time::timeout(FLUSH_MAX, applied).await.is_err() {
            let status = self.outbox.status().borrow().clone();
            tracing::info!(
                plant = self.options.plant_id,
                unsent = status.last_seq - status.acked_seq,
                "stopping with events that are on disk and not yet applied"
            );
        }
    }
}

fn ids<Options>(machines: &[(String, Options)]) -> Vec<&str> {
    machines.iter().map(|(id, _)| id.as_str()).collect()
}

/// Puts a machine to the others on its line.
fn join<Line: PartialEq, Machine>(lines: &mut Vec<(Line, Vec<Machine>)>, line: Line, machine: Machine) {
    match lines.iter_mut().find(|(known, _)| *known == line) {
        Some((_, machines)) => machines.push(machine),
        None => lines.push((line, vec![machine])),
    }
}

fn died_of(who: &str, died: &tokio::task::JoinError) -> OutboxError {
    OutboxError::Stopped(format!("{who} died: {died}"))
}
