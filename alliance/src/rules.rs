//! Booking and planning: every placement is a claim, checked here against offers, eligibility, setups,
//! transport, promises and frozen work, whoever computed it.
//!
//! The rule of promises: a booking that keeps its promise before a change keeps it after; one that is late
//! is not made later; one that a disturbance has left without a place may be put anywhere. The same holds
//! for its price.

use crate::booking::{Booking, Place, Progress, Promise, Status, Step};
use crate::command::{Caller, Move, PlanFigures, PlanKind, Reply};
use crate::eligibility;
use crate::id::{BookingId, MachineId, PrincipalId};
use crate::line::{Occupation, Station};
use crate::order::{Order, Terms};
use crate::planted::{Bug, planted};
use crate::price;
use crate::refusal::{Reason, Refusal, text, within};
use crate::registry::Role;
use crate::state::{Optimisation, State};
use crate::window::LATEST;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Longest hold, seconds.
pub const HOLD_MAX_S: i64 = 86_400;
/// Most operations that one plan entry may move, so that it fits a log entry.
pub const MOVES_MAX: usize = 4000;

impl State {
    pub(crate) fn book(
        &mut self,
        buyer: PrincipalId,
        order: Arc<Order>,
        terms: &Terms,
        placement: &[(MachineId, i64)],
        hold_s: i64,
    ) -> Result<Reply, Refusal> {
        order.check(self.now)?;
        within("hold_s", hold_s, 0, HOLD_MAX_S)?;
        if hold_s > 0 {
            self.check_holds(&buyer)?;
        }
        self.check_room()?;
        if placement.len() != order.route.len() {
            return Err(Refusal::because(
                Reason::PlacementConflict,
                "a placement names one machine an operation",
            ));
        }
        let machines: Vec<MachineId> = placement.iter().map(|(machine, _)| machine.clone()).collect();
        let (price, carbon) = self.price(&order, &machines)?;
        let steps = vec![Step::waiting(); placement.len()];
        let promise = Promise { by: i64::MAX, price, carbon };
        let booking = self.new_booking(buyer, order.clone(), steps, promise, hold_s);
        let id = booking.id;
        self.put_booking(booking);
        for (k, (machine, start)) in placement.iter().enumerate() {
            self.seat(&id, k as u32, machine, *start)?;
            let soonest = self.earliest_start(self.station(machine)?);
            if *start < soonest {
                return Err(conflict(format!(
                    "{machine} takes new work from {soonest} on, not from {start}"
                )));
            }
        }
        let touched = self.settle(machines.into_iter().collect())?;
        self.promise(&id, terms)?;
        for touched in touched.iter().chain([&id]) {
            self.check_booking(touched, self.bookings.was(touched), self)?;
        }
        Ok(Reply::Booking(self.booking(&id)?.clone()))
    }

    fn check_holds(&self, buyer: &PrincipalId) -> Result<(), Refusal> {
        // By the holds, which are few, and not by all that the buyer ever booked.
        let of_buyer = |id| self.bookings.get(id).is_some_and(|b: &Arc<Booking>| b.buyer == *buyer);
        let held = self.holds.keys().filter(|(_, id)| of_buyer(id)).count() as i64;
        if held < self.policy.holds_max_per_buyer {
            return Ok(());
        }
        Err(Refusal::invalid(
            Reason::TooManyHolds,
            "hold_s",
            held,
            &format!(
                "at most {} holds at once: confirm or cancel one first",
                self.policy.holds_max_per_buyer
            ),
        ))
    }

    /// Writes the promise of a booking that has just been placed, within its terms.
    fn promise(&mut self, id: &BookingId, terms: &Terms) -> Result<(), Refusal> {
        let mut booking = Booking::clone(self.booking(id)?);
        let order = booking.order.clone();
        let total = booking.promise.price.total_fen();
        if let Some(most) = [order.budget_fen, terms.price_max_fen].into_iter().flatten().min()
            && total > most
        {
            return Err(Refusal::invalid(
                Reason::PriceAboveTerms,
                "price_max_fen",
                most,
                &format!("at least {total}, the price of this placement"),
            ));
        }
        let completes_at = booking.completes_at().unwrap_or(i64::MAX);
        let latest = [order.deadline, terms.promised_by].into_iter().flatten().min().unwrap_or(i64::MAX);
        if completes_at > latest {
            return Err(Refusal::invalid(
                Reason::LaterThanTerms,
                "promised_by_s",
                latest,
                &format!("at least {completes_at}, when this placement completes"),
            ));
        }
        booking.promise.by = self.promise_by(&order, terms, completes_at);
        self.put_booking(booking);
        Ok(())
    }

    pub(crate) fn confirm(&mut self, caller: &Caller, id: &BookingId) -> Result<Reply, Refusal> {
        let mut booking = Booking::clone(self.owned(caller, id)?);
        match booking.status {
            // To confirm it would be to acknowledge a promise that is broken already.
            Status::Held if booking.at_risk() => {
                return Err(Refusal::because(
                    Reason::WrongStatus,
                    format!(
                        "a disturbance has taken the place in time that {id} held; it is being placed anew, \
                         and can be confirmed once it stands in time again"
                    ),
                ));
            }
            Status::Held if booking.steps.iter().flat_map(|s| &s.place).any(|p| p.start < self.now) => {
                return Err(Refusal::invalid(
                    Reason::HoldExpired,
                    "booking_id",
                    id,
                    "a hold whose first operation has not been due to start; book again",
                ));
            }
            Status::Held => {}
            Status::Expired => {
                return Err(Refusal::invalid(
                    Reason::HoldExpired,
                    "booking_id",
                    id,
                    "a hold that has not expired; book again",
                ));
            }
            status => {
                return Err(Refusal::invalid(
                    Reason::WrongStatus,
                    "booking_id",
                    id,
                    &format!("a held booking; this one is {status:?}"),
                ));
            }
        }
        booking.status = Status::Confirmed;
        booking.hold_expires_at = 0;
        self.put_booking(booking);
        Ok(Reply::Booking(self.booking(id)?.clone()))
    }

    pub(crate) fn cancel(&mut self, caller: &Caller, id: &BookingId, reason: &str) -> Result<Reply, Refusal> {
        text("reason", reason, 0, 200)?;
        let booking = self.owned(caller, id)?;
        let running = booking.steps.iter().any(|s| matches!(s.progress, Progress::Running { .. }));
        if !booking.is_open() || running {
            let status = if running { "in work".to_owned() } else { format!("{:?}", booking.status) };
            return Err(Refusal::invalid(
                Reason::WrongStatus,
                "booking_id",
                id,
                &format!("a held or confirmed booking of which nothing is in work; this one is {status}"),
            ));
        }
        self.release(id, Status::Cancelled);
        Ok(Reply::Booking(self.booking(id)?.clone()))
    }

    /// The booking, if the caller may touch it. Another's does not exist.
    fn owned(&self, caller: &Caller, id: &BookingId) -> Result<&Arc<Booking>, Refusal> {
        let booking = self.booking(id)?;
        match caller.role {
            Role::Operator => Ok(booking),
            Role::Buyer if caller.id == booking.buyer => Ok(booking),
            _ => Err(Refusal::unknown_booking(id)),
        }
    }

    pub(crate) fn commit_plan(
        &mut self,
        kind: PlanKind,
        base_revision: u64,
        moves: &[Move],
        figures: PlanFigures,
    ) -> Result<Reply, Refusal> {
        within("moves (count)", moves.len() as i64, 0, MOVES_MAX as i64)?;
        let before = self.clone();
        let mut machines = BTreeSet::new();
        let mut moved = BTreeSet::new();
        for m in moves {
            if !moved.insert((&m.booking, m.operation)) {
                return Err(conflict(format!("operation {} of {} moves twice", m.operation, m.booking)));
            }
            machines.extend(self.unseat(kind, base_revision, m)?);
        }
        // A changeover that was left for a follower which moves as well is in nobody's way.
        let mut touched = match kind {
            PlanKind::Repair => self.settle(machines.clone())?,
            PlanKind::Optimisation => BTreeSet::new(),
        };
        for m in moves {
            self.seat(&m.booking, m.operation, &m.machine, m.start)?;
            let station = self.station(&m.machine)?;
            let soonest = match kind {
                PlanKind::Optimisation => self.frozen_until(station).max(self.earliest_start(station)),
                PlanKind::Repair => self.now,
            };
            if m.start < soonest {
                return Err(Refusal::because(
                    Reason::FrozenMoved,
                    format!(
                        "{} would get work at {}, inside its frozen stretch until {soonest}",
                        m.machine, m.start
                    ),
                ));
            }
            unchanged(station.id(), before.station(&m.machine)?.revision, base_revision)?;
            machines.insert(m.machine.clone());
        }
        touched.extend(self.settle(machines)?);
        let moved = moves.iter().map(|m| m.booking);
        self.check_bookings(&before, touched.into_iter().chain(moved).collect())?;
        self.plan_revision = self.revision;
        self.changes.plan = true;
        if kind == PlanKind::Optimisation {
            self.optimisation = Some(Optimisation {
                committed_revision: self.revision,
                figures,
                moved: moves.len() as u32,
                at: self.now,
            });
        }
        Ok(Reply::Plan(moves.len() as u32))
    }

    /// Takes an operation that is to move from where it is. Answers with the machine that it leaves.
    fn unseat(&mut self, kind: PlanKind, base: u64, m: &Move) -> Result<Option<MachineId>, Refusal> {
        let booking = self.booking(&m.booking)?;
        unchanged(&booking.id, booking.revision, base)?;
        let step = booking.steps.get(m.operation as usize).filter(|s| s.is_planned() && booking.is_open());
        let step = step.ok_or_else(|| {
            conflict(format!("operation {} of {} is not waiting for its turn", m.operation, m.booking))
        })?;
        let Some(place) = step.place.clone() else { return Ok(None) };
        let station = self.station(&place.machine)?;
        unchanged(station.id(), station.revision, base)?;
        let frozen = kind == PlanKind::Optimisation && place.start < self.frozen_until(station);
        if frozen && !planted(Bug::FrozenUnchecked) {
            return Err(Refusal::because(
                Reason::FrozenMoved,
                format!("operation {} of {} is frozen", m.operation, m.booking),
            ));
        }
        // Unlike a repeated edit, this keeps the machine's revision, so that the next move of the same plan
        // is still compared with the state that the plan was computed from.
        let station = self.stations.get_mut(&place.machine).map(Arc::make_mut);
        match kind {
            PlanKind::Optimisation => station.and_then(|s| s.take(&m.booking, m.operation)),
            // A repair moves nothing else: what follows keeps the changeover that it counts on.
            PlanKind::Repair => station.and_then(|s| s.vacate(&m.booking, m.operation)),
        };
        Ok(Some(place.machine))
    }

    /// Puts an operation on a machine that may do it. The rule is checked by [`State::settle`].
    pub(crate) fn seat(
        &mut self,
        id: &BookingId,
        operation: u32,
        machine: &MachineId,
        start: i64,
    ) -> Result<(), Refusal> {
        within("start_s", start, 0, LATEST)?;
        let booking = self.booking(id)?;
        let wanted = booking
            .order
            .route
            .get(operation as usize)
            .ok_or_else(|| Refusal::unknown("operation", operation))?;
        let stood = booking.steps[operation as usize].place.is_some();
        let station = self.station(machine)?;
        if let Some(unmet) = eligibility::unmet(&booking.order, wanted, &station.machine)
            && !planted(Bug::EligibilityUnchecked)
        {
            return Err(conflict(format!("{machine} does not meet {unmet} of operation {operation}")));
        }
        // Only what has stood somewhere can be there already.
        if stood && station.find(id, operation).is_some() {
            return Err(conflict(format!("operation {operation} of {id} stands twice")));
        }
        let work_s = price::reckon(wanted, booking.order.quantity, &station.machine).work_s;
        let planned = Station::planned(id, operation, &wanted.setup_family, start, work_s, wanted.splittable);
        if let Some(station) = self.stations.get_mut(machine) {
            Arc::make_mut(station).put(planned);
        }
        Ok(())
    }

    /// Settles the lines of `machines`; refuses if one breaks the rule. Answers with the bookings whose
    /// places changed.
    pub(crate) fn settle(&mut self, machines: BTreeSet<MachineId>) -> Result<BTreeSet<BookingId>, Refusal> {
        let mut touched = BTreeSet::new();
        for machine in machines {
            let settled = self.edit_station(&machine, Station::settle).unwrap_or_default();
            if let Some(first) = settled.broken.first() {
                return Err(conflict(format!("{machine}: {}", first.how)));
            }
            touched.extend(self.sync(&machine, settled.changed));
        }
        Ok(touched)
    }

    /// Carries what has changed on a machine's line over into the places of the bookings. Answers with those
    /// that changed.
    pub(crate) fn sync(
        &mut self,
        machine: &MachineId,
        changed: impl IntoIterator<Item = (BookingId, u32)>,
    ) -> BTreeSet<BookingId> {
        let mut touched = BTreeSet::new();
        let Some(station) = self.stations.get(machine).cloned() else { return touched };
        for (id, operation) in changed {
            let Some(at) = station.find(&id, operation) else { continue };
            let place = place_of(machine, &station.line[at]);
            let stale =
                self.bookings.get(&id).filter(|b| b.steps[operation as usize].place.as_ref() != Some(&place));
            if let Some(mut booking) = stale.map(|b| Booking::clone(b)) {
                booking.steps[operation as usize].place = Some(place);
                self.put_booking(booking);
                touched.insert(id);
            }
        }
        touched
    }

    /// Holds the bookings against the rule of promises and the rule of the chain.
    pub(crate) fn check_bookings(&self, before: &State, ids: BTreeSet<BookingId>) -> Result<(), Refusal> {
        ids.iter().try_for_each(|id| self.check_booking(id, before.bookings.get(id), before))
    }

    /// Holds a booking against what it `was`, at the prices of `before`.
    fn check_booking(
        &self,
        id: &BookingId,
        was: Option<&Arc<Booking>>,
        before: &State,
    ) -> Result<(), Refusal> {
        let booking = self.booking(id)?;
        if let Some((operation, how)) = self.chain_fault(booking) {
            return Err(conflict(format!("operation {operation} of {id} {how}")));
        }
        let late_allowed = was.map_or(Some(0), |b| b.lateness_s());
        let worse = match (late_allowed, booking.lateness_s()) {
            (Some(allowed), Some(late)) => late > allowed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if worse && !planted(Bug::PromiseUnchecked) {
            return Err(Refusal::because(
                Reason::PromiseWorsened,
                format!("{id} is promised by {} and would not be done by then", booking.promise.by),
            ));
        }
        let price_allowed = match was {
            None => Some(booking.promise.price.total_fen()),
            Some(was) => before.price_as_placed(was).map(|price| price.max(was.promise.price.total_fen())),
        };
        if let (Some(allowed), Some(price)) = (price_allowed, self.price_as_placed(booking))
            && price > allowed
        {
            return Err(Refusal::because(
                Reason::PromiseWorsened,
                format!("{id} is promised at {allowed} fen and would cost {price}"),
            ));
        }
        Ok(())
    }

    /// The price of a booking on the machines where it stands, fen; None while a step has no place.
    pub(crate) fn price_as_placed(&self, booking: &Booking) -> Option<i64> {
        let machines: Option<Vec<MachineId>> =
            booking.steps.iter().map(|s| s.place.as_ref().map(|p| p.machine.clone())).collect();
        self.price(&booking.order, &machines?).ok().map(|(price, _)| price.total_fen())
    }

    /// The first planned operation that starts before its release or before its part can be there.
    pub(crate) fn chain_fault(&self, booking: &Booking) -> Option<(u32, String)> {
        for (k, step) in booking.steps.iter().enumerate() {
            let (true, Some(place)) = (step.is_planned(), &step.place) else { continue };
            if place.start < booking.order.release {
                return Some((k as u32, "starts before its release".into()));
            }
            let Some(previous) = k.checked_sub(1).and_then(|p| booking.steps[p].place.as_ref()) else {
                continue;
            };
            let arrives = previous.end + self.trip(&previous.machine, &place.machine).seconds;
            if place.start < arrives && !planted(Bug::TransportIgnored) {
                return Some((k as u32, format!("starts at {}, its part arrives at {arrives}", place.start)));
            }
        }
        None
    }
}

pub(crate) fn place_of(machine: &MachineId, occupation: &Occupation) -> Place {
    Place {
        machine: machine.clone(),
        start: occupation.start,
        end: occupation.end,
        changeover_s: occupation.changeover_s,
    }
}

fn conflict(message: String) -> Refusal {
    Refusal::because(Reason::PlacementConflict, message)
}

fn unchanged(what: &impl std::fmt::Display, revision: u64, base: u64) -> Result<(), Refusal> {
    if revision <= base {
        return Ok(());
    }
    Err(Refusal::because(
        Reason::PlanOutdated,
        format!("{what} has changed at revision {revision}; the plan was computed from {base}"),
    ))
}
