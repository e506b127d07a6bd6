//! What plants report, and what it does to the plan.
//!
//! A report is what has happened, so it is believed, and the plan gives way: whatever it makes impossible
//! loses its place, with the disturbance on record, and waits for a repair. Nothing else moves.

use crate::booking::{Booking, Disturbance, DisturbanceKind, Place, Progress, Status, Step};
use crate::command::{Event, Happening, Reply};
use crate::id::{BookingId, MachineId, PlantId};
use crate::line::{Down, MachineState, Occupation, Phase, Station, Use};
use crate::planted::{Bug, planted};
use crate::price;
use crate::refusal::{Reason, Refusal, text};
use crate::state::{Agent, State};
use crate::window::{TICK_S, ceil_tick, floor_tick};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A machine that is down for nobody knows how long is taken to be down this long, seconds.
pub const DOWN_UNKNOWN_S: i64 = 8 * 3600;
/// An operation may end this much after its time before the plan gives way, seconds.
pub const OVERRUN_GRACE_S: i64 = TICK_S;
/// Most events in one entry.
pub const EVENTS_MAX: usize = 256;

/// Longest that an operation is taken to have occupied a machine, seconds.
pub const MEASURED_MAX_S: i64 = crate::order::AHEAD_MAX_S;
/// Most energy that an operation is taken to have used, Wh.
pub const ENERGY_MAX_WH: u64 = 1_000_000_000_000;
/// Longest reason that is kept, characters.
pub const REASON_LENGTH_MAX: usize = 200;

/// What happened, to be put on record with every booking that it touches.
#[derive(Clone)]
pub(crate) struct Cause<'a> {
    pub(crate) kind: DisturbanceKind,
    pub(crate) machine: MachineId,
    pub(crate) reason: String,
    /// The state before it happened, to tell what has become late by it.
    pub(crate) before: &'a State,
}

impl State {
    pub(crate) fn attach_agent(
        &mut self,
        plant: PlantId,
        agent: String,
        outbox: String,
    ) -> Result<Reply, Refusal> {
        self.plant(&plant)?;
        text("agent_id", &agent, 1, 40)?;
        text("outbox_id", &outbox, 1, 64)?;
        let attached = match self.agents.get(&plant) {
            Some(known) => known.with_outbox(agent, outbox),
            None => Agent { plant: plant.clone(), agent, outbox, applied_seq: 0, earlier: Vec::new() },
        };
        let applied_seq = attached.applied_seq;
        if applied_seq == 0 {
            self.leave_untold(&plant);
        }
        self.agents.put(plant, Arc::new(attached));
        Ok(Reply::Applied(applied_seq, Vec::new()))
    }

    /// Applies the events that follow on what is applied; those before it are repeated and skipped.
    pub(crate) fn report(
        &mut self,
        plant: &PlantId,
        outbox: &str,
        events: &[Event],
    ) -> Result<Reply, Refusal> {
        let known = self.agents.get(plant).ok_or_else(|| Refusal::unknown("plant_id", plant))?;
        if known.outbox != outbox {
            return Err(Refusal::because(
                Reason::AgentAlreadyConnected,
                format!("{plant} is served by {} with another outbox since", known.agent),
            ));
        }
        let mut agent = Agent::clone(known);
        let mut refused = Vec::new();
        let mut in_hand = BTreeSet::new();
        for event in events.iter().take(EVENTS_MAX) {
            if event.seq <= agent.applied_seq && !planted(Bug::EventsRepeated) {
                continue;
            }
            if event.seq > agent.applied_seq + 1 {
                return Err(Refusal::invalid(
                    Reason::EventGap,
                    "seq",
                    event.seq,
                    &format!("{}, the next in the outbox", agent.applied_seq + 1),
                ));
            }
            agent.applied_seq = event.seq;
            match self.happen(plant, event) {
                Ok(()) => in_hand.extend(event.what.in_hand()),
                Err(refusal) => refused.push((event.seq, refusal.message)),
            }
        }
        // Only now: what was delivered late may have ended long ago, and says so further on.
        for (booking, operation) in in_hand {
            self.work_until_now(&booking, operation);
        }
        let applied = agent.applied_seq;
        self.agents.put(plant.clone(), Arc::new(agent));
        Ok(Reply::Applied(applied, refused))
    }

    /// One thing that happened: all that follows from it, or nothing.
    fn happen(&mut self, plant: &PlantId, event: &Event) -> Result<(), Refusal> {
        let station = self.station(&event.machine)?;
        if station.machine.plant != *plant {
            return Err(Refusal::unknown("machine_id", &event.machine));
        }
        // Most of what is reported. It disturbs nothing, and is spared a copy of the state to compare with.
        if let Happening::State(state) = event.what {
            self.turn(&event.machine, event.at, state);
            return Ok(());
        }
        let before = self.clone();
        let outcome = self.befall(&before, plant, event);
        match &outcome {
            Ok(()) => self.count(&before, event),
            Err(_) => *self = before,
        }
        outcome
    }

    /// A machine's state is another since then.
    pub(crate) fn turn(&mut self, machine: &MachineId, at: i64, state: MachineState) {
        let Some(station) = self.stations.get(machine) else { return };
        let (was, since) = (station.state, self.plausible(at, station.state_since));
        self.count_until(was, machine, since, |in_hand| in_hand);
        self.edit_report(machine, |s| (s.state, s.state_since) = (state, since));
    }

    fn befall(&mut self, before: &State, plant: &PlantId, event: &Event) -> Result<(), Refusal> {
        let at = event.at;
        let machine = &event.machine;
        let cause =
            |kind, reason: &str| Cause { kind, machine: machine.clone(), reason: told(reason), before };
        match &event.what {
            Happening::State(_) | Happening::Gap { .. } => Ok(()),
            Happening::Operated { session, nonce, outcome, taken_back } => {
                self.operated(plant, session, *nonce, outcome, *taken_back)
            }
            Happening::Started { booking, operation } => {
                let cause = cause(DisturbanceKind::LatePart, "work began later than planned, or elsewhere");
                self.started(booking, *operation, at, &cause)
            }
            Happening::Progress { booking, operation, pieces_good, expected_end } => {
                let cause = cause(DisturbanceKind::Overrun, "the operation takes longer than planned");
                self.goes_on(booking, *operation, *pieces_good, *expected_end, &cause)
            }
            Happening::Finished {
                booking,
                operation,
                pieces_good,
                pieces_scrapped,
                measured_s,
                energy_wh,
                energy_measured,
            } => {
                let done = Progress::Finished {
                    started_at: at,
                    finished_at: at,
                    pieces_good: *pieces_good,
                    measured_s: (*measured_s).clamp(0, MEASURED_MAX_S),
                    energy_wh: (*energy_wh).min(ENERGY_MAX_WH),
                    energy_measured: *energy_measured,
                };
                let cause = cause(DisturbanceKind::Overrun, "the operation ended later than planned");
                self.finished(booking, *operation, *pieces_scrapped, done, at, &cause)
            }
            Happening::Scrapped { booking, operation, pieces_scrapped, reason } => {
                let cause = cause(DisturbanceKind::Scrap, reason);
                self.scrapped(booking, *operation, *pieces_scrapped, &cause)
            }
            Happening::Down { reason, expected_until } => {
                self.goes_down(*expected_until, &cause(DisturbanceKind::Breakdown, reason));
                Ok(())
            }
            Happening::Up => {
                self.comes_up(&cause(DisturbanceKind::Breakdown, "the machine came back"));
                Ok(())
            }
        }
    }

    /// When something happened that cannot have happened before `earliest`, nor later than now. A time that
    /// cannot be tells nothing, so it happened when it was heard of: an old date must not show a machine
    /// free that works, nor a late booking in time.
    pub(crate) fn plausible(&self, at: i64, earliest: i64) -> i64 {
        if (earliest..=self.now).contains(&at) { at } else { self.now }
    }

    /// Changes what is reported of a machine, and not its line.
    fn edit_report(&mut self, machine: &MachineId, edit: impl FnOnce(&mut Station)) {
        if let Some(station) = self.stations.get(machine) {
            let mut station = Station::clone(station);
            edit(&mut station);
            self.stations.put(machine.clone(), Arc::new(station));
            self.changes.machines.insert(machine.clone());
        }
    }

    /// A booking and the index of an operation that is to be done, or is in hand, as far as the plant of
    /// `machine` may know. What it may not know of does not exist, before anything else is looked at: what
    /// is refused must tell a competitor nothing.
    fn step(&self, machine: &MachineId, id: &BookingId, operation: u32) -> Result<(Booking, usize), Refusal> {
        let booking = self.booking(id)?;
        let k = operation as usize;
        if !booking.steps.get(k).is_some_and(|step| self.may_report(machine, step)) {
            return Err(Refusal::unknown_booking(id));
        }
        if booking.status != Status::Confirmed {
            return Err(Refusal::because(
                Reason::WrongStatus,
                format!("operation {operation} of {id} ({:?}) is not to be done", booking.status),
            ));
        }
        Ok((Booking::clone(booking), k))
    }

    /// Whether the plant of `machine` may report on an operation: the plant where it is; and while it has
    /// not begun, also one where it was before, which may be cut off with an older dispatch list and make
    /// it. What has happened is believed.
    fn may_report(&self, machine: &MachineId, step: &Step) -> bool {
        let plant = |id: &MachineId| self.stations.get(id).map(|s| &s.machine.plant);
        let Some(reporter) = plant(machine) else { return false };
        let here = step.place.as_ref().and_then(|p| plant(&p.machine)) == Some(reporter);
        here || (step.is_planned() && step.left.contains(reporter))
    }

    fn started(&mut self, id: &BookingId, operation: u32, at: i64, cause: &Cause) -> Result<(), Refusal> {
        let machines = self.begin(&cause.machine, id, operation, at)?;
        self.give_way(machines, [*id].into(), cause);
        Ok(())
    }

    /// Puts an operation in hand. Answers with the machines whose lines change by it.
    fn begin(
        &mut self,
        machine: &MachineId,
        id: &BookingId,
        operation: u32,
        at: i64,
    ) -> Result<BTreeSet<MachineId>, Refusal> {
        let (mut booking, k) = self.step(machine, id, operation)?;
        if !booking.steps[k].is_planned() {
            return Err(Refusal::because(
                Reason::WrongStatus,
                format!("operation {operation} of {id} has begun before"),
            ));
        }
        let at = self.plausible(at, booking.created_at);
        let mut machines = BTreeSet::from([machine.clone()]);
        let occupation = self.occupation_as_begun(&booking, k, machine, at)?;
        if let Some(place) = booking.steps[k].place.take() {
            self.edit_station(&place.machine, |s| match place.machine == *machine {
                true => s.take(id, operation),
                false => s.vacate(id, operation),
            });
            machines.insert(place.machine);
        }
        booking.steps[k].progress = Progress::Running { started_at: at, pieces_good: 0 };
        booking.steps[k].place = Some(crate::rules::place_of(machine, &occupation));
        self.put_booking(booking);
        self.occupy(machine, occupation);
        Ok(machines)
    }

    /// The occupation of an operation that begins at `at`: as planned if it begins in time, sooner over if
    /// it begins much sooner, else as long as it takes.
    fn occupation_as_begun(
        &self,
        booking: &Booking,
        k: usize,
        machine: &MachineId,
        at: i64,
    ) -> Result<Occupation, Refusal> {
        let station = self.station(machine)?;
        let wanted = &booking.order.route[k];
        let work_s = price::reckon(wanted, booking.order.quantity, &station.machine).work_s;
        let planned = booking.steps[k].place.as_ref().filter(|p| p.machine == *machine);
        let changeover_s = planned.map_or(0, |p| p.changeover_s);
        let start = floor_tick(at);
        let reckoned = station.reported_end(start, changeover_s + work_s, wanted.splittable);
        let end = match planned {
            Some(place) if start <= place.start => place.end.min(reckoned),
            _ => reckoned,
        };
        let fresh =
            Station::planned(&booking.id, k as u32, &wanted.setup_family, start, work_s, wanted.splittable);
        Ok(Occupation { end: end.max(start + TICK_S), changeover_s, phase: Phase::Running, ..fresh })
    }

    /// Puts what is in hand on the machine's line; what was in hand before it has ended by then.
    fn occupy(&mut self, machine: &MachineId, occupation: Occupation) {
        self.edit_station(machine, |station| {
            for other in &mut station.line {
                if other.phase != Phase::Planned && other.start < occupation.start {
                    other.end = other.end.min(occupation.start);
                }
            }
            station.put(occupation);
        });
    }

    /// The booking and the place of an operation in work.
    fn in_work(
        &self,
        machine: &MachineId,
        id: &BookingId,
        operation: u32,
    ) -> Result<(Booking, Place), Refusal> {
        let (booking, k) = self.step(machine, id, operation)?;
        match (&booking.steps[k].progress, booking.steps[k].place.clone()) {
            (Progress::Running { .. }, Some(place)) => Ok((booking, place)),
            _ => Err(Refusal::because(
                Reason::WrongStatus,
                format!("operation {operation} of {id} is not in work"),
            )),
        }
    }

    fn goes_on(
        &mut self,
        id: &BookingId,
        operation: u32,
        pieces: u32,
        expected_end: i64,
        cause: &Cause,
    ) -> Result<(), Refusal> {
        let (mut booking, place) = self.in_work(&cause.machine, id, operation)?;
        if let Progress::Running { pieces_good, .. } = &mut booking.steps[operation as usize].progress {
            *pieces_good = pieces;
        }
        self.put_booking(booking);
        let expected_end = ceil_tick(expected_end.clamp(0, self.now + crate::order::OPERATION_MAX_S));
        if expected_end > place.end + OVERRUN_GRACE_S {
            self.prolong(id, operation, place, expected_end, cause);
        }
        Ok(())
    }

    /// Work in hand at `place` ends later, and what stands behind it gives way.
    fn prolong(&mut self, id: &BookingId, operation: u32, place: Place, end: i64, cause: &Cause) {
        let Some(mut booking) = self.bookings.get(id).map(|b| Booking::clone(b)) else { return };
        let machine = place.machine.clone();
        booking.steps[operation as usize].place = Some(Place { end, ..place });
        self.put_booking(booking);
        self.edit_occupation(&machine, id, operation, |o| o.end = end);
        self.give_way([machine].into(), [*id].into(), cause);
    }

    /// Work that is reported to be in hand, and not to have ended, ends no sooner than now: its machine is
    /// not free before.
    fn work_until_now(&mut self, id: &BookingId, operation: u32) {
        let Some(place) = self.last_in_hand(id, operation) else { return };
        let until = ceil_tick(self.now);
        if until > place.end + OVERRUN_GRACE_S {
            let cause = Cause {
                kind: DisturbanceKind::Overrun,
                machine: place.machine.clone(),
                reason: "the operation takes longer than planned".into(),
                before: &self.clone(),
            };
            self.prolong(id, operation, place, until, &cause);
        }
    }

    /// The place of an operation in hand, unless other work was begun after it on its machine: then it has
    /// ended, and its end was never reported.
    fn last_in_hand(&self, id: &BookingId, operation: u32) -> Option<Place> {
        let step = self.bookings.get(id)?.steps.get(operation as usize)?;
        let (Progress::Running { .. }, Some(place)) = (&step.progress, &step.place) else { return None };
        let line = &self.stations.get(&place.machine)?.line;
        let at = line.iter().position(|o| o.is_of(id, operation))?;
        line[at + 1..].iter().all(|o| o.phase == Phase::Planned).then(|| place.clone())
    }

    fn finished(
        &mut self,
        id: &BookingId,
        operation: u32,
        scrapped: u32,
        mut done: Progress,
        at: i64,
        cause: &Cause,
    ) -> Result<(), Refusal> {
        let (booking, k) = self.step(&cause.machine, id, operation)?;
        if booking.steps[k].is_finished() {
            return Err(Refusal::because(
                Reason::WrongStatus,
                format!("operation {operation} of {id} is finished already"),
            ));
        }
        let at = self.plausible(at, booking.steps[k].started_at().unwrap_or(booking.created_at));
        let mut machines = BTreeSet::new();
        if booking.steps[k].is_planned() {
            // The start was never seen: it began as planned, and at the latest when it ended.
            let planned = booking.steps[k].place.as_ref().filter(|p| p.machine == cause.machine);
            let began = planned.map_or(at, |p| p.start.min(at));
            machines = self.begin(&cause.machine, id, operation, began)?;
        }
        let (mut booking, mut place) = self.in_work(&cause.machine, id, operation)?;
        let step = &mut booking.steps[k];
        if let (
            Progress::Running { started_at: began, .. },
            Progress::Finished { started_at, finished_at, .. },
        ) = (&step.progress, &mut done)
        {
            *started_at = *began;
            *finished_at = at.max(*began);
        }
        let end = ceil_tick(at).max(place.start);
        place.end = end;
        step.progress = done;
        step.pieces_scrapped = step.pieces_scrapped.saturating_add(scrapped);
        step.place = Some(place.clone());
        if booking.steps.iter().all(|s| s.is_finished()) {
            booking.status = Status::Completed;
        }
        self.put_booking(booking);
        self.edit_occupation(&place.machine, id, operation, |o| {
            o.end = end.max(o.start);
            o.phase = Phase::Done;
        });
        machines.insert(place.machine);
        self.give_way(machines, [*id].into(), cause);
        Ok(())
    }

    fn edit_occupation(
        &mut self,
        machine: &MachineId,
        id: &BookingId,
        operation: u32,
        edit: impl FnOnce(&mut Occupation),
    ) {
        self.edit_station(machine, |s| {
            if let Some(at) = s.find(id, operation) {
                edit(&mut s.line[at]);
            }
        });
    }

    fn scrapped(
        &mut self,
        id: &BookingId,
        operation: u32,
        pieces: u32,
        cause: &Cause,
    ) -> Result<(), Refusal> {
        let (mut booking, place) = self.in_work(&cause.machine, id, operation)?;
        let step = &mut booking.steps[operation as usize];
        step.progress = Progress::Planned;
        step.pieces_scrapped = step.pieces_scrapped.saturating_add(pieces);
        step.place = None;
        booking.record(self.disturbance(cause, operation));
        self.put_booking(booking);
        let until = ceil_tick(self.now);
        self.edit_occupation(&place.machine, id, operation, |spent| {
            // The time is spent, and the machine stays set up for this family.
            spent.end = spent.end.min(until).max(spent.start);
            spent.phase = Phase::Done;
            spent.purpose = Use::Tooling;
        });
        self.give_way([place.machine].into(), [*id].into(), cause);
        Ok(())
    }

    fn goes_down(&mut self, until: i64, cause: &Cause) {
        let latest = self.now + crate::order::OPERATION_MAX_S;
        let until = if until > self.now { until.min(latest) } else { self.now + DOWN_UNKNOWN_S };
        let down = Down { since: self.now, until, reason: cause.reason.clone() };
        self.wait_until(until, Some(down), cause);
    }

    fn comes_up(&mut self, cause: &Cause) {
        self.wait_until(self.now, None, cause);
    }

    /// The machine of `cause` works again from `until` on: what is in hand waits till then, and goes on.
    /// It may have been waiting already, for another time.
    fn wait_until(&mut self, until: i64, down: Option<Down>, cause: &Cause) {
        let (machine, now) = (&cause.machine, self.now);
        let mut waiting = Vec::new();
        self.edit_station(machine, |s| {
            let expected = s.down.as_ref().map_or(now, |d| d.until.max(now));
            for o in s.line.iter_mut().filter(|o| o.phase == Phase::Running && o.end > now) {
                let left = if o.end > expected { o.end - expected } else { o.end - now };
                o.end = ceil_tick(until + left);
                if let Use::Work { booking, operation } = &o.purpose {
                    waiting.push((*booking, *operation, o.end));
                }
            }
            s.down = down;
        });
        self.recompute_open(machine);
        for (id, operation, end) in &waiting {
            let Some(mut booking) = self.bookings.get(id).map(|b| Booking::clone(b)) else { continue };
            if let Some(place) = booking.steps.get_mut(*operation as usize).and_then(|s| s.place.as_mut()) {
                place.end = *end;
            }
            self.put_booking(booking);
        }
        let bookings = waiting.into_iter().map(|(id, ..)| id).collect();
        self.give_way([machine.clone()].into(), bookings, cause);
    }

    /// Makes the plan whole again after something happened to `machines` and `bookings`: what can no longer
    /// stand where it is loses its place, and no more than that.
    pub(crate) fn give_way(
        &mut self,
        mut machines: BTreeSet<MachineId>,
        mut bookings: BTreeSet<BookingId>,
        cause: &Cause,
    ) {
        while !machines.is_empty() || !bookings.is_empty() {
            while let Some(next) = machines.pop_first() {
                bookings.extend(self.clear_line(&next, cause));
            }
            while let Some(next) = bookings.pop_first() {
                machines.extend(self.clear_chain(&next, cause));
            }
        }
    }

    /// Displaces what breaks the rule on a line. Answers with the bookings whose places changed.
    fn clear_line(&mut self, machine: &MachineId, cause: &Cause) -> BTreeSet<BookingId> {
        let mut touched = BTreeSet::new();
        let mut changed = Vec::new();
        loop {
            let broken = self.edit_station(machine, |s| {
                let settled = s.settle();
                changed.extend(settled.changed);
                let first = settled.broken.into_iter().next()?;
                match &s.line[first.index].purpose {
                    Use::Work { booking, operation } => Some(Some((*booking, *operation))),
                    Use::Tooling => {
                        s.remove_tooling(first.index);
                        Some(None)
                    }
                }
            });
            match broken.flatten() {
                None => break,
                Some(None) => {}
                Some(Some((booking, operation))) => {
                    if self.displace(&booking, operation, cause).as_ref() != Some(machine) {
                        self.edit_station(machine, |s| s.take(&booking, operation));
                    }
                    touched.insert(booking);
                }
            }
        }
        touched.extend(self.sync(machine, changed));
        touched
    }

    /// Displaces what its part cannot reach in time. Answers with the machines that lose work. What has
    /// become late by it, or later, has the cause on record.
    fn clear_chain(&mut self, id: &BookingId, cause: &Cause) -> BTreeSet<MachineId> {
        let mut machines = BTreeSet::new();
        while let Some(booking) = self.bookings.get(id) {
            let Some((operation, _)) = self.chain_fault(booking) else { break };
            let late = Cause { kind: DisturbanceKind::LatePart, ..cause.clone() };
            machines.extend(self.displace(id, operation, &late));
        }
        if let (Some(was), Some(is)) = (cause.before.bookings.get(id), self.bookings.get(id))
            && is.lateness_s() > was.lateness_s().or(is.lateness_s())
            && is.disturbances == was.disturbances
        {
            let mut booking = Booking::clone(is);
            let operation = booking.steps.iter().position(|s| !s.is_finished()).unwrap_or(0) as u32;
            booking.record(self.disturbance(cause, operation));
            self.put_booking(booking);
        }
        machines
    }

    fn disturbance(&self, cause: &Cause, operation: u32) -> Disturbance {
        Disturbance {
            kind: cause.kind,
            at: self.now,
            machine: cause.machine.clone(),
            operation,
            reason: cause.reason.clone(),
        }
    }

    /// Takes an operation's place and puts the cause on record. Answers with the machine that it leaves.
    fn displace(&mut self, id: &BookingId, operation: u32, cause: &Cause) -> Option<MachineId> {
        let mut booking = Booking::clone(self.bookings.get(id)?);
        let place = booking.steps.get_mut(operation as usize)?.place.take()?;
        booking.record(self.disturbance(cause, operation));
        self.put_booking(booking);
        self.edit_station(&place.machine, |s| s.vacate(id, operation));
        Some(place.machine)
    }
}

/// What a plant gives as a reason, fit to be kept: a report is not refused for its wording.
fn told(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_LENGTH_MAX).collect()
}
