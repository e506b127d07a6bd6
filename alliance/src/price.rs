//! What an option costs and emits: integers only, from the machines and the route alone.
//!
//! The buyer pays machine hours, setups and transport. Each setup counts the longest changeover into its
//! family on that machine, so that the price depends on the machines chosen and not on what the
//! neighbours do: moving other work never raises it. What is measured later is at most that.

use crate::order::{Operation, Order};
use crate::registry::{Machine, Plant, Policy, TransportTariff};
use crate::window::ceil_tick;

/// What the buyer pays, fen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Price {
    /// Machine hours.
    pub processing_fen: i64,
    /// Setups.
    pub setup_fen: i64,
    /// Transport between plants.
    pub transport_fen: i64,
}

impl Price {
    /// The sum, fen.
    pub fn total_fen(&self) -> i64 {
        self.processing_fen + self.setup_fen + self.transport_fen
    }
}

/// What it emits, g CO2e, modelled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Carbon {
    /// Machines.
    pub machine_g: i64,
    /// Transport.
    pub transport_g: i64,
    /// Energy of the machines, Wh.
    pub energy_wh: i64,
    /// Grid factor records used, `region/year`, sorted.
    pub grid_factors: Vec<String>,
}

impl Carbon {
    /// The sum, g CO2e.
    pub fn total_g(&self) -> i64 {
        self.machine_g + self.transport_g
    }
}

/// An operation on a machine, reckoned: times in seconds, money in fen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reckoned {
    /// Run time on this machine.
    pub run_s: i64,
    /// Occupation without changeover: own setup and run, rounded up to the tick.
    pub work_s: i64,
    /// Cost of the occupation without changeover: what the plan counts.
    pub cost_fen: i64,
    /// Machine hours that the buyer pays.
    pub processing_fen: i64,
    /// Setup that the buyer pays, at the longest changeover.
    pub setup_fen: i64,
    /// Energy at the longest changeover, Wh.
    pub energy_wh: i64,
}

/// Reckons `operation` of `quantity` pieces on `machine`.
pub fn reckon(operation: &Operation, quantity: i64, machine: &Machine) -> Reckoned {
    reckon_given(operation, quantity, machine, machine.longest_changeover_s(&operation.setup_family))
}

/// [`reckon`] for who knows the machine's longest changeover into the operation's family, seconds.
pub fn reckon_given(
    operation: &Operation,
    quantity: i64,
    machine: &Machine,
    longest_changeover_s: i64,
) -> Reckoned {
    let run_s = div_up(operation.run_s_per_piece * quantity * 1000, machine.speed_permille);
    let longest_s = operation.setup_s + longest_changeover_s;
    let processing_fen = div_up(run_s * machine.rate_fen_per_hour, 3600);
    let setup_of = |seconds: i64| div_up(seconds * machine.setup_rate_fen_per_hour, 3600);
    let (setup_w, cutting_w) = (i64::from(machine.power.setup_w), i64::from(machine.power.cutting_w));
    Reckoned {
        run_s,
        work_s: ceil_tick(operation.setup_s + run_s),
        cost_fen: processing_fen + setup_of(operation.setup_s),
        processing_fen,
        setup_fen: setup_of(longest_s),
        energy_wh: div_up(run_s * cutting_w + longest_s * setup_w, 3600),
    }
}

/// A trip between two plants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Trip {
    /// Time, seconds, whole ticks.
    pub seconds: i64,
    /// Cost, fen.
    pub fen: i64,
    /// Emissions, g CO2e.
    pub grams: i64,
}

/// The trip from `a` to `b`; nothing within a plant.
pub fn trip(tariff: &TransportTariff, a: &Plant, b: &Plant) -> Trip {
    if a.id == b.id {
        return Trip::default();
    }
    let (dx, dy) = (a.east_m.abs_diff(b.east_m), a.north_m.abs_diff(b.north_m));
    let metres = (dx * dx + dy * dy).isqrt() as i64;
    let per_km = |rate: i64| div_up(metres * rate, 1000);
    Trip {
        seconds: ceil_tick(tariff.base_s + per_km(tariff.s_per_km)),
        fen: tariff.base_fen + per_km(tariff.fen_per_km),
        grams: per_km(tariff.g_per_km),
    }
}

/// Price and carbon of making `order` on `chain`, one machine with its plant an operation.
pub fn of_chain(policy: &Policy, order: &Order, chain: &[(&Machine, &Plant)]) -> (Price, Carbon) {
    let mut price = Price::default();
    let mut carbon = Carbon::default();
    let mut factors: Vec<(&str, u32)> = Vec::new();
    for (operation, (machine, plant)) in order.route.iter().zip(chain) {
        let reckoned = reckon(operation, order.quantity, machine);
        price.processing_fen += reckoned.processing_fen;
        price.setup_fen += reckoned.setup_fen;
        carbon.energy_wh += reckoned.energy_wh;
        if let Some(factor) = policy.grid_factor(&plant.grid_region) {
            carbon.machine_g += machine_grams(reckoned.energy_wh, factor.mg_per_kwh);
            if !factors.contains(&(factor.region.as_str(), factor.year)) {
                factors.push((&factor.region, factor.year));
            }
        }
    }
    for pair in chain.windows(2) {
        let trip = trip(&policy.transport, pair[0].1, pair[1].1);
        price.transport_fen += trip.fen;
        carbon.transport_g += trip.grams;
    }
    carbon.grid_factors = factors.into_iter().map(|(region, year)| format!("{region}/{year}")).collect();
    carbon.grid_factors.sort();
    (price, carbon)
}

/// Emissions of `energy_wh`, g CO2e.
pub fn machine_grams(energy_wh: i64, mg_per_kwh: u32) -> i64 {
    div_up(energy_wh * i64::from(mg_per_kwh), 1_000_000)
}

/// `a / b`, rounded up, for a non-negative `a` and positive `b`.
pub fn div_up(a: i64, b: i64) -> i64 {
    a / b + i64::from(a % b != 0)
}
