//! What is asked of a search: for which job, on which lines, by which measures, within which limits.

use super::{Aim, Cost};
use crate::way::Standing;
use crate::{Fen, Fixed, Job, Lines, Op, Shop, Tick};
use std::collections::BTreeSet;

/// One call's givens.
pub(crate) struct Query<'a> {
    pub(crate) shop: &'a Shop,
    pub(crate) lines: &'a Lines,
    pub(crate) job: &'a Job,
    pub(crate) criterion: Cost,
    /// Only placements cheaper than this are of interest.
    pub(crate) limit: Fen,
    /// Only placements that are done by then are of interest.
    pub(crate) done_by: Tick,
    /// Whether each operation only goes on from where the one before is placed best.
    pub(crate) narrow: Option<Aim>,
    /// What a gram of what is emitted adds to the cost.
    pub(crate) fen_per_gram: Fen,
    /// Where the operations stood before, and what moving each costs.
    pub(crate) stay: Option<(&'a [Option<Fixed>], Fen)>,
    /// What each tick of the makespan weighs, and the makespan without the job.
    pub(crate) makespan: (Fen, Tick),
    /// Whether a greener placement is of interest that is neither sooner nor cheaper.
    pub(crate) by_carbon: bool,
    /// The plan on the lines, where what stands may make way.
    pub(crate) standing: Option<Standing<'a>>,
}

impl<'a> Query<'a> {
    /// Every placement that is sooner or cheaper.
    pub(crate) fn new(shop: &'a Shop, lines: &'a Lines, job: &'a Job, criterion: Cost) -> Query<'a> {
        Query {
            shop,
            lines,
            job,
            criterion,
            limit: Fen::MAX,
            done_by: Tick::MAX,
            narrow: None,
            fen_per_gram: 0,
            stay: None,
            makespan: (0, 0),
            by_carbon: false,
            standing: None,
        }
    }

    /// Whether labels are told apart by what they are charged, besides time and cost.
    pub(super) fn by_charge(&self) -> bool {
        self.job.budget.is_some() && (self.criterion == Cost::Plan || self.fen_per_gram > 0)
    }

    /// Whether what a step costs depends on its machine alone, so that on each the soonest is the best.
    pub(super) fn pays_by_machine(&self) -> bool {
        self.criterion == Cost::Charge && self.stay.is_none()
    }

    /// Whether labels are told apart by time and cost alone.
    pub(super) fn is_plain(&self) -> bool {
        !self.by_charge() && !self.by_carbon
    }

    /// A weight of a gram by which of two chains the one that emits less costs less, whatever they are charged; if the
    /// numbers allow it. It looks at every pair of plants between which a part may travel, as the search does.
    pub(super) fn gram_above_any_charge(&self) -> Option<Fen> {
        let plant = |mode: &crate::Mode| self.shop.machines[mode.machine].plant;
        let mut from: BTreeSet<usize> = self.job.origin.into_iter().collect();
        let (mut charge, mut carbon): (Fen, i64) = (0, 0);
        for op in &self.job.ops {
            let to: BTreeSet<usize> = op.modes.iter().map(plant).collect();
            let trips = || from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
            let most = |of: fn(&crate::Mode) -> i64| op.modes.iter().map(of).max().unwrap_or(0);
            let fare = trips().map(|(from, to)| self.shop.trip_charge(from, to)).max().unwrap_or(0);
            let fumes = trips().map(|(from, to)| self.shop.trip_carbon(from, to)).max().unwrap_or(0);
            charge = charge.checked_add(most(|mode| mode.charge))?.checked_add(fare)?;
            carbon = carbon.checked_add(most(|mode| mode.carbon))?.checked_add(fumes)?;
            from = to;
        }
        let weight = charge.checked_add(1)?;
        carbon.checked_add(1)?.checked_mul(weight).filter(|most| *most < Fen::MAX / 4).map(|_| weight)
    }

    pub(super) fn mode_cost(&self, mode: &crate::Mode) -> Fen {
        let cost = match self.criterion {
            Cost::Plan => mode.cost,
            Cost::Charge => mode.charge,
        };
        cost + self.fen_per_gram * mode.carbon
    }

    pub(super) fn tardiness(&self, end: Tick) -> Fen {
        match self.criterion {
            Cost::Plan => self.job.tardiness(end) + self.makespan.0 * (end - self.makespan.1).max(0),
            Cost::Charge => 0,
        }
    }

    pub(super) fn trip_cost(&self, from: usize, to: usize) -> Fen {
        let cost = match self.criterion {
            Cost::Plan => self.shop.transport_cost[from][to],
            Cost::Charge => self.shop.trip_charge(from, to),
        };
        cost + self.fen_per_gram * self.shop.trip_carbon(from, to)
    }

    pub(super) fn setup_carbon(&self, machine: usize) -> i64 {
        match self.criterion {
            Cost::Plan => self.shop.machines[machine].setup_carbon_per_tick,
            Cost::Charge => 0,
        }
    }

    pub(super) fn setup_rate(&self, machine: usize) -> Fen {
        match self.criterion {
            Cost::Plan => self.shop.machines[machine].setup_cost_per_tick,
            Cost::Charge => 0,
        }
    }

    /// The least that doing `op` adds, anywhere.
    pub(super) fn least(&self, op: &Op, mode: &crate::Mode) -> Fen {
        let machine = &self.shop.machines[mode.machine];
        let saved = self.shop.setups[machine.setup].least_increment(op.family);
        self.mode_cost(mode) + saved * self.setup_rate(mode.machine)
    }
}
