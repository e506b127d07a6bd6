//! The agents connected to this node, one a plant. Each is woken when something of its plant changes, and only then:
//! with hundreds of agents that report every second, looking at every list after every entry would be most of the work.

use super::Core;
use crate::consensus;
use crate::replica::Replica;
use crate::watch::{History, Revised};
use millpool_alliance::{PlantId, Reason, Refusal, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The agents connected to this node, by plant.
#[derive(Default)]
pub struct Seats {
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    taken: BTreeMap<PlantId, Taken>,
    /// When the agent left of each plant that had one here, and has none.
    left: BTreeMap<PlantId, Instant>,
}

struct Taken {
    agent: String,
    bell: watch::Sender<()>,
}

/// Whose bell is to be rung.
enum Whose {
    Everyone,
    Of(BTreeSet<PlantId>),
}

impl Seats {
    /// Rings for what this node applies, until it stops; then nobody is to wait for the bell any more.
    pub async fn attend(self: Arc<Self>, history: History, consensus: consensus::Handle<Replica>) {
        let mut seen = history.newest();
        while history.wait_after(seen).await {
            let whose = match history.after(seen) {
                Ok(revised) => {
                    seen = revised.last().map_or(seen, |(revision, _)| *revision);
                    Whose::Of(consensus.look(|view| plants(&view.state.0, &revised)))
                }
                Err(gap) => {
                    seen = gap.complete_after;
                    Whose::Everyone
                }
            };
            self.ring(&whose);
        }
        self.lock().taken.clear();
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.lock().taken.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A place for the plant's agent, unless another is there.
    pub(super) fn enter(self: &Arc<Self>, plant: &PlantId, agent: &str) -> Result<Seat, Refusal> {
        let mut places = self.lock();
        if let Some(present) = places.taken.get(plant) {
            return Err(Refusal::invalid(
                Reason::AgentAlreadyConnected,
                "agent_id",
                agent,
                &format!("one agent a plant; {} is connected for {plant}: stop it first", present.agent),
            ));
        }
        let (bell, rung) = watch::channel(());
        places.left.remove(plant);
        places.taken.insert(plant.clone(), Taken { agent: agent.to_owned(), bell });
        metrics::gauge!("millpool_agents_connected").set(places.taken.len() as f64);
        Ok(Seat { seats: self.clone(), plant: plant.clone(), rung })
    }

    /// Since when the plant's agent is away from here, as far as this node may know: not before `earliest`. None while it is
    /// here.
    pub(super) fn away_since(&self, plant: &PlantId, earliest: Instant) -> Option<Instant> {
        let places = self.lock();
        let left = places.left.get(plant).map_or(earliest, |left| earliest.max(*left));
        (!places.taken.contains_key(plant)).then_some(left)
    }

    fn ring(&self, whose: &Whose) {
        let places = self.lock();
        let taken = &places.taken;
        match whose {
            Whose::Everyone => taken.values().for_each(|seat| seat.bell.send_replace(())),
            Whose::Of(plants) => {
                let seats = plants.iter().filter_map(|plant| taken.get(plant));
                seats.for_each(|seat| seat.bell.send_replace(()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The plants whose dispatch list or remote sessions may have changed. A report that leaves the plan as it is changes
/// neither.
fn plants(state: &State, revised: &[Revised]) -> BTreeSet<PlantId> {
    let planned =
        revised.iter().filter(|(_, changes)| changes.plan).flat_map(|(_, changes)| &changes.machines);
    let of_lists = planned.filter_map(|id| Some(&state.stations().get(id)?.machine.plant));
    let operated = revised.iter().flat_map(|(_, changes)| &changes.sessions);
    let of_sessions = operated.filter_map(|id| Some(&state.sessions().get(id)?.plant));
    of_lists.chain(of_sessions).cloned().collect()
}

/// A connected agent's place; given up when dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    plant: PlantId,
    rung: watch::Receiver<()>,
}

impl Seat {
    /// Waits until something of the plant may have changed; false when the node has stopped.
    pub(super) async fn rung(&mut self) -> bool {
        self.rung.changed().await.is_ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut places = self.seats.lock();
        places.taken.remove(&self.plant);
        places.left.insert(self.plant.clone(), Instant::now());
        metrics::gauge!("millpool_agents_connected").set(places.taken.len() as f64);
    }
}

impl Core {
    /// Begins to wake agents, and to look for those that are silent, as long as this node runs.
    pub(super) fn attend_agents(&self, silent_after: Duration) {
        tokio::spawn(self.seats.clone().attend(self.history.clone(), self.consensus.clone()));
        tokio::spawn(self.clone().watch_for_silence(silent_after));
    }
}
