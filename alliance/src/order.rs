//! What a buyer asks for: an order with its route, and the terms of a booking.

use crate::id::PlantId;
use crate::refusal::{Reason, Refusal, text, within};
use crate::registry::{MachineClass, Size};
use std::collections::BTreeSet;

/// Most operations of a route.
pub const ROUTE_MAX: usize = 16;
/// Most pieces of an order.
pub const QUANTITY_MAX: i64 = 1_000_000;
/// Longest that one operation may take at speed 1000, seconds.
pub const OPERATION_MAX_S: i64 = 30 * 86_400;
/// How far ahead anything may lie, seconds.
pub const AHEAD_MAX_S: i64 = 366 * 86_400;

/// One step of a route, and what it requires of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// Class of machine.
    pub class: MachineClass,
    /// Fewest axes; 0 is any.
    pub axes_min: u32,
    /// The machine's tolerance must be at most this, µm; 0 is any.
    pub tolerance_um: u32,
    /// Certificates that the machine must hold.
    pub certificates: BTreeSet<String>,
    /// Setup family.
    pub setup_family: String,
    /// Own setup besides the changeover, seconds.
    pub setup_s: i64,
    /// Run time of one piece at speed 1000, seconds.
    pub run_s_per_piece: i64,
    /// May pause while the machine is closed.
    pub splittable: bool,
}

/// What a buyer wants made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    /// The buyer's own reference.
    pub reference: String,
    /// Pieces.
    pub quantity: i64,
    /// Material.
    pub material: String,
    /// Outer size of the raw workpiece.
    pub size: Size,
    /// Mass of the raw workpiece, g.
    pub mass_g: u64,
    /// Operations in sequence.
    pub route: Vec<Operation>,
    /// Earliest start, seconds since the Unix epoch; 0 is now.
    pub release: i64,
    /// Wanted by, seconds since the Unix epoch.
    pub due: i64,
    /// No use later than this.
    pub deadline: Option<i64>,
    /// Most that it may cost, fen.
    pub budget_fen: Option<i64>,
    /// Plants that shall not make it.
    pub excluded_plants: BTreeSet<PlantId>,
}

impl Order {
    /// Refuses an order that nobody could make at `now`, naming field, value and what is accepted.
    pub fn check(&self, now: i64) -> Result<(), Refusal> {
        text("order.reference", &self.reference, 0, 100)?;
        text("order.material", &self.material, 1, 40)?;
        within("order.quantity", self.quantity, 1, QUANTITY_MAX)?;
        within("order.mass_g", i64::try_from(self.mass_g).unwrap_or(i64::MAX), 1, 1_000_000_000)?;
        for (field, edge) in [
            ("order.size.x_mm", self.size.x_mm),
            ("order.size.y_mm", self.size.y_mm),
            ("order.size.z_mm", self.size.z_mm),
        ] {
            within(field, edge.into(), 1, 100_000)?;
        }
        within("order.route (count)", self.route.len() as i64, 1, ROUTE_MAX as i64)?;
        within("order.excluded_plants (count)", self.excluded_plants.len() as i64, 0, 1000)?;
        for (k, operation) in self.route.iter().enumerate() {
            operation.check(k, self.quantity)?;
        }
        self.check_times(now)?;
        self.budget_fen.map_or(Ok(()), |fen| within("order.budget_fen", fen, 1, i64::MAX / 4))
    }

    fn check_times(&self, now: i64) -> Result<(), Refusal> {
        let ahead = now.saturating_add(AHEAD_MAX_S);
        if self.release != 0 {
            within("order.release_s", self.release, 0, ahead)?;
        }
        let begin = self.release.max(now);
        if self.due <= begin || self.due > ahead {
            return Err(Refusal::invalid(
                Reason::InvalidField,
                "order.due_s",
                self.due,
                &format!("after {begin} (now, or the release) and at most {ahead}"),
            ));
        }
        match self.deadline {
            Some(deadline) if deadline < self.due || deadline > ahead => Err(Refusal::invalid(
                Reason::InvalidField,
                "order.deadline_s",
                deadline,
                &format!("from {} (due_s) to {ahead}, or 0 for none", self.due),
            )),
            _ => Ok(()),
        }
    }
}

impl Operation {
    fn check(&self, index: usize, quantity: i64) -> Result<(), Refusal> {
        let field = |name: &str| format!("order.route[{index}].{name}");
        text(&field("setup_family"), &self.setup_family, 1, 40)?;
        within(&field("axes_min"), self.axes_min.into(), 0, 9)?;
        within(&field("tolerance_um"), self.tolerance_um.into(), 0, 100_000)?;
        within(&field("certificates (count)"), self.certificates.len() as i64, 0, 32)?;
        self.certificates.iter().try_for_each(|name| text(&field("certificates"), name, 1, 40))?;
        within(&field("setup_s"), self.setup_s, 0, OPERATION_MAX_S)?;
        within(&field("run_s_per_piece"), self.run_s_per_piece, 1, OPERATION_MAX_S)?;
        let total = self.run_s_per_piece.saturating_mul(quantity).saturating_add(self.setup_s);
        within(&field("run_s_per_piece times quantity plus setup_s"), total, 1, OPERATION_MAX_S)
    }
}

/// By which measure an option is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Objective {
    /// Lowest price.
    Cheapest,
    /// Earliest completion.
    Fastest,
    /// Least carbon.
    Greenest,
}

/// The terms of a booking.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Which option is wanted.
    pub objective: Objective,
    /// Promise it by this, seconds since the Unix epoch.
    pub promised_by: Option<i64>,
    /// At no more than this, fen.
    pub price_max_fen: Option<i64>,
}
