//! Placements: the best chains for one job while everything else stands still.
//!
//! Whoever asks for quotes is given all that are worth telling ([`place`]), whoever books the one that is best for him
//! ([`place_best`]). [`search`] finds them, for what a [`query`] asks.

mod query;
mod search;
#[cfg(test)]
mod tests;

pub(crate) use query::Query;
pub(crate) use search::Placer;

use crate::{Fen, Job, Lines, Shop, Tick};

/// What a placement's cost counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// What the plan's cost grows by: modes, setups with the change of the follower's, transport,
    /// tardiness.
    Plan,
    /// What the buyer is charged: the modes' charges and transport.
    Charge,
}

/// One operation's part of a placement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The machine.
    pub machine: usize,
    /// Start of its setup.
    pub start: Tick,
    /// End of its work.
    pub end: Tick,
    /// Its setup.
    pub setup: Tick,
}

/// A job's whole chain: none ends sooner, costs less and emits less.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// When the last operation ends.
    pub completion: Tick,
    /// The cost under the criterion asked for.
    pub cost: Fen,
    /// What the job is charged.
    pub charge: Fen,
    /// What it emits, grams CO2e; setups under [`Cost::Plan`] only, as the cost has them.
    pub carbon: i64,
    /// One step an operation.
    pub steps: Vec<Step>,
}

/// The Pareto-optimal (completion, cost, carbon) placements of one job, earliest first.
pub fn place(shop: &Shop, lines: &Lines, job: &Job, criterion: Cost) -> Vec<Placement> {
    let emits = |mode: &crate::Mode| {
        mode.carbon > 0 || (criterion == Cost::Plan && shop.machines[mode.machine].setup_carbon_per_tick > 0)
    };
    let by_carbon = !shop.transport_carbon.is_empty() || job.ops.iter().flat_map(|op| &op.modes).any(emits);
    placements(&Query { by_carbon, ..Query::new(shop, lines, job, criterion) })
}

/// What a single placement is to be first of all; what else it is decides among equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Done as soon as can be, then cheap.
    Soonest,
    /// As cheap as can be, then soon.
    Cheapest,
    /// As green as can be, then cheap, then soon.
    Greenest,
}

impl Aim {
    /// By what placements compare, where the cost has what they emit in it if that is to count.
    fn of(self, end: Tick, cost: Fen) -> (i64, i64) {
        match self {
            Aim::Soonest => (end, cost),
            Aim::Cheapest | Aim::Greenest => (cost, end),
        }
    }
}

/// The placement of one job that is best for whoever is charged for it, by its aim: as [`place`] has it among others, but
/// sooner found. What a first chain comes to that looks one operation ahead bounds the search of all.
pub fn place_best(shop: &Shop, lines: &Lines, job: &Job, aim: Aim) -> Option<Placement> {
    let mut all = Query::new(shop, lines, job, Cost::Charge);
    if aim == Aim::Greenest {
        match all.gram_above_any_charge() {
            Some(weight) => all.fen_per_gram = weight,
            // Numbers so large that they cannot be added up: the front has the greenest, too.
            None => {
                let front = place(shop, lines, job, Cost::Charge);
                return front.into_iter().min_by_key(|p| (p.carbon, p.cost));
            }
        }
    }
    let mut placer = Placer::with_room();
    let first = match job.ops.len() {
        0 | 1 => None,
        _ => placer.best(&Query { narrow: Some(aim), ..all }, aim),
    };
    let bounded = match (aim, first.map(|at| placer.placement(at))) {
        (_, None) => all,
        (Aim::Soonest, Some(first)) => Query { done_by: first.completion, ..all },
        (Aim::Cheapest | Aim::Greenest, Some(first)) => Query { limit: first.cost + 1, ..all },
    };
    let best = placer.best(&bounded, aim).map(|at| placer.placement(at));
    best.map(|p| Placement { cost: p.charge, ..p })
}

fn placements(query: &Query<'_>) -> Vec<Placement> {
    let mut placer = Placer::with_room();
    placer.search(query);
    placer.finals.iter().map(|&label| placer.placement(label)).collect()
}
