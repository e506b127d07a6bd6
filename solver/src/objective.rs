//! What is minimised: measures, each with an integer weight, and an instance with the weights worked in.
//!
//! Most measures are sums over operations, changeovers, trips and jobs. [`Instance::weighed`] works their weights
//! into the costs there, so that the search, the master and the bound know one cost only. The makespan is no such
//! sum; its weight stays, and whoever prices a plan adds it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Fen, Instance, Malformed, Tick};

/// The weight of each measure. The objective is their weighted sum, and the least is the best.
///
/// What moves against an incumbent weigh is no part of the instance: [`crate::Options::stability`]. Where weights are
/// read, those that are not named are 0, but a rejection costs what the instance says: else the best plan would be
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default = "Objective::none", deny_unknown_fields)]
pub struct Objective {
    /// Of each fen of processing, setups and transport.
    pub cost: i64,
    /// Of each fen for being late.
    pub tardiness: i64,
    /// Of each fen for leaving a job out.
    pub rejection: i64,
    /// Of each tick until the last kept job ends.
    pub makespan: i64,
    /// Of each tick of setup.
    pub setup: i64,
    /// Of each kept job that ends after it is due.
    pub late: i64,
    /// Of each gram CO2e.
    pub carbon: i64,
}

impl Objective {
    /// The cost of the alliance's plan in fen: what an instance asks for that says nothing else.
    pub const COST: Objective =
        Objective { cost: 1, tardiness: 1, rejection: 1, makespan: 0, setup: 0, late: 0, carbon: 0 };
    /// The tick at which the last operation ends: the classical flexible job shop.
    pub const MAKESPAN: Objective = Objective { cost: 0, tardiness: 0, makespan: 1, ..Objective::COST };
    /// No weight is above this.
    pub const WEIGHT_MAX: i64 = 1 << 20;

    /// Nothing but rejections.
    fn none() -> Objective {
        Objective { cost: 0, tardiness: 0, ..Objective::COST }
    }

    /// Whether nothing but the makespan and rejections counts.
    pub fn is_makespan(&self) -> bool {
        self.makespan > 0 && Objective { makespan: 1, rejection: 1, ..*self } == Objective::MAKESPAN
    }

    /// By name, in the order of [`crate::Priced::measures`].
    pub fn weights(&self) -> [(&'static str, i64); 7] {
        [
            ("cost", self.cost),
            ("tardiness", self.tardiness),
            ("rejection", self.rejection),
            ("makespan", self.makespan),
            ("setup", self.setup),
            ("late", self.late),
            ("carbon", self.carbon),
        ]
    }

    pub(crate) fn check(&self) -> Result<(), Malformed> {
        let most = Objective::WEIGHT_MAX;
        match self.weights().into_iter().find(|(_, weight)| !(0..=most).contains(weight)) {
            Some((name, weight)) => {
                let reason = format!("the weight is {weight}, allowed are 0 to {most}");
                Err(Malformed::new(format!("objective.{name}"), reason))
            }
            None => Ok(()),
        }
    }
}

impl Default for Objective {
    fn default() -> Objective {
        Objective::COST
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.weights().into_iter().filter(|w| w.1 != 0);
        let told: Vec<String> = told.map(|(name, weight)| format!("{name}={weight}")).collect();
        f.write_str(&told.join(","))
    }
}

/// Reads `makespan=10,late=500`.
impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Objective, String> {
        let mut read = Objective::none();
        for part in text.split(',') {
            let wrong = || format!("\"{part}\" is no weight; accepted: {}", Objective::accepted());
            let (name, weight) = part.split_once('=').ok_or_else(wrong)?;
            let slot = match name.trim() {
                "cost" => &mut read.cost,
                "tardiness" => &mut read.tardiness,
                "rejection" => &mut read.rejection,
                "makespan" => &mut read.makespan,
                "setup" => &mut read.setup,
                "late" => &mut read.late,
                "carbon" => &mut read.carbon,
                _ => return Err(wrong()),
            };
            let weight: Option<i64> = weight.trim().parse().ok();
            *slot = weight.filter(|w| (0..=Objective::WEIGHT_MAX).contains(w)).ok_or_else(wrong)?;
        }
        Ok(read)
    }
}

impl Objective {
    fn accepted() -> String {
        let names = Objective::COST.weights().map(|(name, _)| name).join(", ");
        format!("NAME=WEIGHT, with a NAME of {names} and a WEIGHT from 0 to {}", Objective::WEIGHT_MAX)
    }
}

impl Instance {
    /// Whether it is one of the classical kind: nothing but operations on machines that are always open, and the
    /// makespan.
    pub(crate) fn is_flexible_job_shop(&self) -> bool {
        let zero = |rows: &[Vec<i64>]| rows.iter().flatten().all(|&x| x == 0);
        let families = |m: &crate::SetupMatrix| {
            (0..m.families()).all(|f| (0..m.families()).all(|g| m.ticks(Some(f), g) == 0))
        };
        let longest = |op: &crate::Op| op.modes.iter().map(|mode| mode.duration).max().unwrap_or(0);
        let work: Tick = self.jobs.iter().flat_map(|job| &job.ops).map(longest).sum();
        let plain = |job: &crate::Job| {
            let free = |op: &crate::Op| {
                op.fixed.is_none() && op.needs == 0 && op.modes.iter().all(|mode| mode.earliest == 0)
            };
            job.release == 0
                && (job.deadline, job.rejection_cost, job.budget, job.origin) == (None, None, None, None)
                && job.ops.iter().all(free)
        };
        self.objective == Objective::MAKESPAN
            && zero(&self.shop.transport)
            && self.shop.setups.iter().all(families)
            && self.shop.machines.iter().all(|m| m.calendar.windows() == [(0, self.horizon)])
            && work <= self.horizon
            && self.jobs.iter().all(plain)
    }

    /// What the makespan costs at least: no promised job ends sooner than it would alone.
    pub(crate) fn makespan_floor(&self) -> Fen {
        let least = |op: &crate::Op| op.modes.iter().map(|mode| mode.duration).min().unwrap_or(0);
        let ends = self.jobs.iter().filter(|job| job.rejection_cost.is_none());
        let ends = ends.map(|job| job.release + job.ops.iter().map(least).sum::<Tick>());
        self.objective.makespan * ends.max().unwrap_or(0).min(self.horizon)
    }

    /// The instance with every weight but the makespan's worked into its costs: there, [`Objective::COST`] and the
    /// makespan's weight give each plan the same objective as here. What counts against budgets stays in fen.
    pub(crate) fn weighed(&self) -> Result<Cow<'_, Instance>, Malformed> {
        let weights = self.objective;
        if (Objective { makespan: 0, ..weights }) == Objective::COST {
            return Ok(Cow::Borrowed(self));
        }
        let mut weighed = self.clone();
        weighed.objective = Objective { makespan: weights.makespan, ..Objective::COST };
        let sum = |terms: &[(i64, i64)]| -> Fen {
            terms
                .iter()
                .fold(0, |sum: Fen, &(weight, value)| sum.saturating_add(weight.saturating_mul(value)))
        };
        let shop = &mut weighed.shop;
        for machine in &mut shop.machines {
            let (fen, grams) = (machine.setup_cost_per_tick, machine.setup_carbon_per_tick);
            machine.setup_cost_per_tick =
                sum(&[(weights.cost, fen), (weights.setup, 1), (weights.carbon, grams)]);
        }
        if shop.transport_charge.is_empty() {
            shop.transport_charge.clone_from(&shop.transport_cost);
        }
        for (a, row) in shop.transport_cost.iter_mut().enumerate() {
            for (b, fen) in row.iter_mut().enumerate() {
                let grams = shop.transport_carbon.get(a).map_or(0, |row| row[b]);
                *fen = sum(&[(weights.cost, *fen), (weights.carbon, grams)]);
            }
        }
        for job in &mut weighed.jobs {
            job.late_cost = sum(&[(weights.tardiness, job.late_cost), (weights.late, 1)]);
            job.tardiness_weight = sum(&[(weights.tardiness, job.tardiness_weight)]);
            job.rejection_cost = job.rejection_cost.map(|fen| sum(&[(weights.rejection, fen)]));
            for mode in job.ops.iter_mut().flat_map(|op| &mut op.modes) {
                mode.cost = sum(&[(weights.cost, mode.cost), (weights.carbon, mode.carbon)]);
            }
        }
        let too_large = |e: Malformed| Malformed::new(e.place, format!("{}, its weight included", e.reason));
        weighed.check().map_err(too_large)?;
        Ok(Cow::Owned(weighed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_read_back_and_what_is_no_weight_is_told() {
        for text in
            ["cost=1,tardiness=1,rejection=1", "rejection=1,makespan=10,late=500", "rejection=2,carbon=3"]
        {
            assert_eq!(text.parse::<Objective>().unwrap().to_string(), text);
        }
        assert_eq!("makespan=1".parse(), Ok(Objective::MAKESPAN));
        for wrong in ["", "cost", "cost=-1", "cost=1048577", "price=1", "cost=1;late=2"] {
            let told = wrong.parse::<Objective>().unwrap_err();
            assert!(told.contains("is no weight; accepted: NAME=WEIGHT, with a NAME of cost,"), "{told}");
        }
    }

    #[test]
    fn a_weighed_instance_is_refused_where_its_costs_leave_the_range() {
        let mut instance = crate::tiny::instance(1, 3, 2, 24);
        instance.jobs[0].tardiness_weight = crate::FEN_MAX;
        instance.objective.tardiness = 2;
        let told = instance.weighed().unwrap_err().to_string();
        assert!(told.contains("tardiness_weight") && told.contains("its weight included"), "{told}");
    }
}
