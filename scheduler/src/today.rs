//! What each plant did with its machines' time since the alliance's day began, as meters: for who watches by Prometheus.

use millpool_alliance::tally::{Grain, Tally};
use millpool_alliance::{PlantId, State};
use std::collections::BTreeMap;

/// Sets the meters. O(machines).
pub fn meter(state: &State) {
    let (since, until) = state.policy().span(Grain::Day, state.now());
    let mut plants: BTreeMap<&PlantId, Tally> = BTreeMap::new();
    for station in state.stations().values() {
        let tally = plants.entry(&station.machine.plant).or_default();
        let day = state.tallies_of(station.id(), Grain::Day, since, until);
        day.values().for_each(|counted| *tally += &counted.tally);
    }
    for (plant, tally) in plants {
        let member = state.plants().get(plant).map_or("", |plant| plant.member.as_str());
        for (name, of, value) in [
            ("millpool_day_seconds", "planned_busy", tally.planned_busy_s()),
            ("millpool_day_seconds", "busy", tally.busy_s()),
            ("millpool_day_seconds", "production", tally.production_s()),
            ("millpool_day_seconds", "setup", tally.setup_s()),
            ("millpool_day_seconds", "unknown", tally.unknown_s()),
            ("millpool_day_run_seconds", "made", tally.run_planned_s),
            ("millpool_day_run_seconds", "good", tally.run_planned_good_s),
            ("millpool_day_pieces", "good", tally.pieces_good),
            ("millpool_day_pieces", "scrapped", tally.pieces_scrapped),
            ("millpool_day_energy_wh", "measured", tally.energy_measured_wh),
            ("millpool_day_energy_wh", "modelled", tally.energy_modelled_wh),
            ("millpool_day_carbon_g", "machines", tally.carbon_g),
        ] {
            let labels = [("member", member.to_owned()), ("plant", plant.to_string()), ("of", of.to_owned())];
            metrics::gauge!(name, &labels).set(value as f64);
        }
    }
}
