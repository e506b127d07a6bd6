//! A plan: where and when each operation runs, and which jobs are left out.

use crate::{Fen, Objective, Tick};

/// One operation on one machine over `[start, end)`, its setup included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assignment {
    /// Index of the job.
    pub job: usize,
    /// Index of the operation in its job.
    pub op: usize,
    /// Index of the machine.
    pub machine: usize,
    /// When its setup, or its work where there is none, begins.
    pub start: Tick,
    /// When it is done.
    pub end: Tick,
}

/// All assignments, sorted by job and operation, and the jobs rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The assignments.
    pub assignments: Vec<Assignment>,
    /// Indices of the rejected jobs.
    pub rejected: Vec<usize>,
    /// What it is said to cost.
    pub objective: Option<Fen>,
    /// A lower bound on what any plan costs.
    pub bound: Option<Fen>,
}

/// The cost of a plan in its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Priced {
    /// Modes.
    pub processing: Fen,
    /// Setups.
    pub setup: Fen,
    /// Trips between plants.
    pub transport: Fen,
    /// Being late.
    pub tardiness: Fen,
    /// Jobs left out.
    pub rejection: Fen,
    /// Ticks of setup.
    pub setup_ticks: Tick,
    /// Grams CO2e.
    pub carbon: i64,
    /// The last end.
    pub makespan: Tick,
    /// Jobs kept.
    pub accepted: usize,
    /// Jobs that end after they are due.
    pub late: usize,
}

impl Priced {
    /// All parts together.
    pub fn total(&self) -> Fen {
        self.processing + self.setup + self.transport + self.tardiness + self.rejection
    }

    /// The measures that an [`Objective`] weighs, in the order of its weights.
    pub fn measures(&self) -> [i64; 7] {
        [
            self.processing + self.setup + self.transport,
            self.tardiness,
            self.rejection,
            self.makespan,
            self.setup_ticks,
            self.late as i64,
            self.carbon,
        ]
    }

    /// What the instance asks to minimise.
    pub fn objective(&self, objective: Objective) -> Fen {
        objective.weights().iter().zip(self.measures()).map(|((_, weight), measure)| weight * measure).sum()
    }
}
