//! Plants whose agents are not heard.
//!
//! What the machines of such a plant do meanwhile nobody knows, and so it is shown. An agent that comes back with the
//! outbox that it had tells what happened, late and in order, and it counts where it belongs. One that begins a new outbox
//! tells nothing of the time before it: then that stays unknown for good.
//!
//! The leader notes both, silence and its end. From format 7 on.

use crate::command::Reply;
use crate::format::Format;
use crate::id::{MachineId, PlantId};
use crate::line::{MachineState, Station};
use crate::refusal::Refusal;
use crate::state::State;
use crate::table::Table;

impl State {
    /// Plants whose agents are not heard, and since when, seconds since the Unix epoch.
    pub fn silences(&self) -> &Table<PlantId, i64> {
        &self.silences
    }

    /// What a machine does as far as anybody knows, and since when, seconds since the Unix epoch.
    pub fn known_state(&self, station: &Station) -> (MachineState, i64) {
        match self.silences.get(&station.machine.plant) {
            Some(since) if station.state != MachineState::Unknown => {
                (MachineState::Unknown, (*since).max(station.state_since))
            }
            _ => (station.state, station.state_since),
        }
    }

    /// A plant's agent is not heard since then, or is heard again.
    pub(crate) fn note_silence(&mut self, plant: PlantId, since: Option<i64>) -> Result<Reply, Refusal> {
        self.must_write(Format::SILENCES)?;
        self.agents.get(&plant).ok_or_else(|| Refusal::unknown("plant_id", &plant))?;
        match since {
            // Who leads since then may not know when it began.
            Some(_) if self.silences.get(&plant).is_some() => {}
            Some(since) => self.silences.put(plant, since.clamp(0, self.now)),
            None => drop(self.silences.take(&plant)),
        }
        Ok(Reply::Done)
    }

    /// Nobody will tell what a plant's machines did since it fell silent.
    pub(crate) fn leave_untold(&mut self, plant: &PlantId) {
        let Some(since) = self.silences.get(plant).copied() else { return };
        let of_plant = self.stations.values().filter(|station| station.machine.plant == *plant);
        let told = of_plant.filter(|station| station.state != MachineState::Unknown);
        let machines: Vec<MachineId> = told.map(|station| station.id().clone()).collect();
        for machine in machines {
            self.turn(&machine, since, MachineState::Unknown);
        }
    }

    /// A restored alliance has heard of nobody since the moment that it was taken back to.
    pub(crate) fn fall_silent(&mut self) {
        let heard =
            self.agents.iter().map(|(plant, _)| plant).filter(|plant| self.silences.get(*plant).is_none());
        for plant in heard.cloned().collect::<Vec<_>>() {
            self.silences.put(plant, self.now);
        }
    }
}
