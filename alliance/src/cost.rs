//! What the plan costs the pool: what the optimisation lowers. Buyers pay by [`crate::price`].

use crate::booking::Booking;
use crate::line::{Occupation, Phase, Station, Use};
use crate::price;
use crate::state::State;
use crate::window::{TICK_S, floor_tick};

impl State {
    /// Cost of a booking's placed steps from `first` on, fen: processing, own setups, changeovers as they
    /// stand, transport to each of these steps, tardiness against the due date.
    pub fn cost_of(&self, booking: &Booking, first: usize) -> i64 {
        let mut total = 0;
        for (k, step) in booking.steps.iter().enumerate().skip(first) {
            let Some(place) = &step.place else { continue };
            let Some(station) = self.stations.get(&place.machine) else { continue };
            let machine = &station.machine;
            let operation = &booking.order.route[k];
            total += price::reckon(operation, booking.order.quantity, machine).cost_fen;
            total += station.changeover_fen(place.changeover_s);
            if let Some(before) = k.checked_sub(1).and_then(|p| booking.steps[p].place.as_ref()) {
                total += self.trip(&before.machine, &place.machine).fen;
            }
        }
        let late_s = booking.completes_at().map_or(0, |end| end - floor_tick(booking.order.due)).max(0);
        total + late_s / TICK_S * self.policy.tardiness_fen_per_minute
    }

    /// Cost of all work to come, fen, with the changeovers of what is planned besides: steps that a plant
    /// has passed over for later ones, and tooling. O(occupations).
    pub fn cost_fen(&self) -> i64 {
        let to_come = |b: &Booking| match first_to_come(b) {
            first if first == b.steps.len() => 0,
            first => self.cost_of(b, first),
        };
        let bookings: i64 = self.open_bookings().map(|b| to_come(b)).sum();
        let besides: i64 = self.stations.values().map(|s| self.changeovers_besides(s)).sum();
        bookings + besides
    }

    /// The changeovers on a line that no booking's cost has in it, fen.
    fn changeovers_besides(&self, station: &Station) -> i64 {
        let besides = |o: &&Occupation| match &o.purpose {
            _ if o.phase != Phase::Planned => false,
            Use::Tooling => true,
            Use::Work { booking, operation } => {
                self.bookings.get(booking).is_some_and(|b| (*operation as usize) < first_to_come(b))
            }
        };
        let changeovers = station.line.iter().filter(besides).map(|o| o.changeover_s);
        changeovers.map(|s| station.changeover_fen(s)).sum()
    }

    /// The same state, said to stand at `revision`: entries of the log that are not the state machine's
    /// change nothing but this.
    pub fn seen_at(&self, revision: u64) -> State {
        State { revision: self.revision.max(revision), ..self.clone() }
    }

    /// The same state with a later clock, nothing expired: for planning ahead.
    pub fn as_of(&self, now: i64) -> State {
        State { now: self.now.max(now), ..self.clone() }
    }
}

/// The index of the first step behind all that have begun.
fn first_to_come(booking: &Booking) -> usize {
    booking.steps.iter().rposition(|s| !s.is_planned()).map_or(0, |last| last + 1)
}
