//! A booking: what was ordered, what was promised, where its steps stand, and what disturbed it.

use crate::id::{BookingId, MachineId, PlantId, PrincipalId};
use crate::order::Order;
use crate::price::{Carbon, Price};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Most disturbances that are kept of one booking; the oldest go first.
pub const DISTURBANCES_MAX: usize = 32;

/// Most plants that an operation is remembered to have left; the one that it left first goes first.
pub const PLANTS_LEFT_MAX: usize = 8;

/// Where a booking stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Capacity is kept until the hold expires.
    Held,
    /// Promised.
    Confirmed,
    /// Every operation is finished.
    Completed,
    /// Cancelled by the buyer.
    Cancelled,
    /// The hold ran out.
    Expired,
}

/// What a confirmed booking is owed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Promise {
    /// Done by this, seconds since the Unix epoch.
    pub by: i64,
    /// At no more than this.
    pub price: Price,
    /// As quoted, with the grid factors of that time.
    pub carbon: Carbon,
}

/// An operation's place in the plan. Times in seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The machine.
    pub machine: MachineId,
    /// Start of the setup.
    pub start: i64,
    /// End of the work.
    pub end: i64,
    /// Changeover at the beginning, seconds.
    pub changeover_s: i64,
}

/// How far an operation is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Progress {
    /// Waits for its turn.
    Planned,
    /// Begun.
    Running {
        /// When, seconds since the Unix epoch.
        started_at: i64,
        /// Pieces finished well so far.
        pieces_good: u32,
    },
    /// Done.
    Finished {
        /// When it began, seconds since the Unix epoch.
        started_at: i64,
        /// When it was done, seconds since the Unix epoch.
        finished_at: i64,
        /// Pieces finished well.
        pieces_good: u32,
        /// Time that the machine was occupied, seconds.
        measured_s: i64,
        /// Energy, Wh.
        energy_wh: u64,
        /// Measured, not modelled.
        energy_measured: bool,
    },
}

/// One operation of a booking's route: its place and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// Where and when; None while a disturbance has left it without.
    pub place: Option<Place>,
    /// How far.
    pub progress: Progress,
    /// Pieces scrapped, over all attempts.
    pub pieces_scrapped: u32,
    /// Plants where it had a place before, and which may not have heard that it has moved.
    pub left: Vec<PlantId>,
}

impl Step {
    /// Nothing done, and no place yet.
    pub fn waiting() -> Self {
        Step { place: None, progress: Progress::Planned, pieces_scrapped: 0, left: Vec::new() }
    }

    /// When it began, seconds since the Unix epoch, if it has.
    pub fn started_at(&self) -> Option<i64> {
        match self.progress {
            Progress::Planned => None,
            Progress::Running { started_at, .. } | Progress::Finished { started_at, .. } => Some(started_at),
        }
    }

    /// Remembers that it had a place in `plant`.
    pub(crate) fn leave(&mut self, plant: &PlantId) {
        self.left.retain(|known| known != plant);
        if self.left.len() == PLANTS_LEFT_MAX {
            self.left.remove(0);
        }
        self.left.push(plant.clone());
    }

    /// Neither begun nor done.
    pub fn is_planned(&self) -> bool {
        self.progress == Progress::Planned
    }

    /// Done.
    pub fn is_finished(&self) -> bool {
        matches!(self.progress, Progress::Finished { .. })
    }
}

/// What happened to the plan from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisturbanceKind {
    /// A machine failed.
    Breakdown,
    /// An operation took longer.
    Overrun,
    /// Pieces were scrapped.
    Scrap,
    /// A member took back an offer.
    OfferWithdrawn,
    /// The part was not there in time.
    LatePart,
}

/// A disturbance that took an operation's place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disturbance {
    /// What kind.
    pub kind: DisturbanceKind,
    /// When it was recorded, seconds since the Unix epoch.
    pub at: i64,
    /// The machine.
    pub machine: MachineId,
    /// The operation, index in the route.
    pub operation: u32,
    /// In words.
    pub reason: String,
}

/// A part order by a buyer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booking {
    /// Its id.
    pub id: BookingId,
    /// The buyer.
    pub buyer: PrincipalId,
    /// What shall be made.
    pub order: Arc<Order>,
    /// Where it stands.
    pub status: Status,
    /// One an operation.
    pub steps: Vec<Step>,
    /// What it is owed, or would be once the hold is confirmed.
    pub promise: Promise,
    /// When the hold runs out, seconds since the Unix epoch; 0 unless held.
    pub hold_expires_at: i64,
    /// Oldest first.
    pub disturbances: Vec<Disturbance>,
    /// When it was booked, seconds since the Unix epoch.
    pub created_at: i64,
    /// Revision of the last change.
    pub revision: u64,
    /// When it was over, seconds since the Unix epoch; 0 while it is open, and if it was over before format 3.
    pub over_at: i64,
}

/// What former formats did not have adds nothing to the hash where it is not set, so that versions agree.
impl Hash for Booking {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Booking {
            id,
            buyer,
            order,
            status,
            steps,
            promise,
            hold_expires_at,
            disturbances,
            created_at,
            revision,
            over_at,
        } = self;
        (id, buyer, order, status, steps, promise).hash(hasher);
        (hold_expires_at, disturbances, created_at, revision).hash(hasher);
        if *over_at != 0 {
            over_at.hash(hasher);
        }
    }
}

impl Booking {
    /// Has work to come or in hand.
    pub fn is_open(&self) -> bool {
        matches!(self.status, Status::Held | Status::Confirmed)
    }

    /// Planned or real completion, seconds since the Unix epoch; None while a step has no place. The last
    /// step to end need not be the last of the route: a plant may report them out of order.
    pub fn completes_at(&self) -> Option<i64> {
        let ends = self.steps.iter().map(|step| match step.progress {
            Progress::Finished { finished_at, .. } => step.place.as_ref().map(|_| finished_at),
            _ => step.place.as_ref().map(|place| place.end),
        });
        ends.collect::<Option<Vec<i64>>>()?.into_iter().max()
    }

    /// How late against the promise, seconds; 0 in time; None while a step has no place.
    pub fn lateness_s(&self) -> Option<i64> {
        self.completes_at().map(|end| (end - self.promise.by).max(0))
    }

    /// A disturbance has made the promise unkeepable, or has left a step without a place.
    pub fn at_risk(&self) -> bool {
        self.is_open() && self.lateness_s() != Some(0)
    }

    /// Puts a disturbance on record.
    pub fn record(&mut self, disturbance: Disturbance) {
        if self.disturbances.len() == DISTURBANCES_MAX {
            self.disturbances.remove(0);
        }
        self.disturbances.push(disturbance);
    }
}
