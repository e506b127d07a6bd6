//! What is asked of a search: for which job, on which lines, by which measures, within which limits.

use super::{Aim, Cost};
use crate::way::Standing;
use crate::{Fen, Fixed, Job, Lines, Op, Shop, Tick};

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

    /// A weight of a gram by which what emits less costs less, whatever else it costs; if the numbers allow it.
    pub(super) fn gram_above_any_cost(&self) -> Option<Fen> {
        let (shop, ops) = (self.shop, &self.job.ops);
        let most = |of: &dyn Fn(&crate::Mode) -> i64| -> i64 {
            ops.iter().map(|op| op.modes.iter().map(of).max().unwrap_or(0)).fold(0, i64::saturating_add)
        };
        let plants = 0..shop.transport.len();
        let trips = |of: &dyn Fn(usize, usize) -> i64| -> i64 {
            let all = plants.clone().flat_map(|from| plants.clone().map(move |to| (from, to)));
            all.map(|(from, to)| of(from, to)).max().unwrap_or(0).saturating_mul(ops.len() as i64)
        };
        if self.criterion == Cost::Plan {
            return None;
        }
        let charge = most(&|mode| mode.charge).saturating_add(trips(&|a, b| shop.trip_charge(a, b)));
        let carbon = most(&|mode| mode.carbon).saturating_add(trips(&|a, b| shop.trip_carbon(a, b)));
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
