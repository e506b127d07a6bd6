//! What the plan costs the pool: what the optimisation lowers. Buyers pay by [`crate::price`].

use crate::booking::Booking;
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
            total += place.changeover_s * machine.setup_rate_fen_per_hour / 3600;
            if let Some(before) = k.checked_sub(1).and_then(|p| booking.steps[p].place.as_ref()) {
                total += self.trip(&before.machine, &place.machine).fen;
            }
        }
        let late_s = booking.completes_at().map_or(0, |end| end - floor_tick(booking.order.due)).max(0);
        total + late_s / TICK_S * self.policy.tardiness_fen_per_minute
    }

    /// Cost of all work to come, fen. O(open operations).
    pub fn cost_fen(&self) -> i64 {
        self.open_bookings()
            .map(|b| {
                let first = b.steps.iter().rposition(|s| !s.is_planned()).map_or(0, |last| last + 1);
                if first == b.steps.len() { 0 } else { self.cost_of(b, first) }
            })
            .sum()
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
