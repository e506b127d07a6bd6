//! What plants report, and what it does to the plan.
//!
//! A report is what has happened, so it is believed, and the plan gives way: whatever it makes impossible
//! loses its place, with the disturbance on record, and waits for a repair. Nothing else moves.

use crate::booking::{Booking, Disturbance, DisturbanceKind, Place, Progress, Status};
use crate::command::{Event, Happening, Reply};
use crate::id::{BookingId, MachineId, PlantId};
use crate::line::{Down, Occupation, Phase, Station, Use};
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

/// What happened, to be put on record with every booking that it touches.
#[derive(Clone)]
pub(crate) struct Cause {
    kind: DisturbanceKind,
    machine: MachineId,
    reason: String,
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
        let applied_seq = match self.agents.get(&plant) {
            Some(known) if known.outbox == outbox => known.applied_seq,
            _ => 0,
        };
        self.agents.put(plant.clone(), Arc::new(Agent { plant, agent, outbox, applied_seq }));
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
        for event in events.iter().take(EVENTS_MAX) {
            if event.seq <= agent.applied_seq {
                continue;
            }
            if event.seq != agent.applied_seq + 1 {
                return Err(Refusal::invalid(
                    Reason::EventGap,
                    "seq",
                    event.seq,
                    &format!("{}, the next in the outbox", agent.applied_seq + 1),
                ));
            }
            agent.applied_seq = event.seq;
            let before = self.clone();
            if let Err(refusal) = self.happen(plant, event) {
                *self = before;
                refused.push((event.seq, refusal.message));
            }
        }
        let applied = agent.applied_seq;
        self.agents.put(plant.clone(), Arc::new(agent));
        Ok(Reply::Applied(applied, refused))
    }

    fn happen(&mut self, plant: &PlantId, event: &Event) -> Result<(), Refusal> {
        let station = self.station(&event.machine)?;
        if station.machine.plant != *plant {
            return Err(Refusal::unknown("machine_id", &event.machine));
        }
        let at = event.at.clamp(0, self.now.max(0));
        let machine = &event.machine;
        match &event.what {
            Happening::State(state) => {
                self.edit_report(machine, |s| (s.state, s.state_since) = (*state, at));
                Ok(())
            }
            Happening::Gap { .. } => Ok(()),
            Happening::Started { booking, operation } => self.started(machine, booking, *operation, at),
            Happening::Progress { booking, operation, pieces_good, expected_end } => {
                self.goes_on(machine, booking, *operation, *pieces_good, *expected_end)
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
                let started_at = self.running_since(booking, *operation)?.unwrap_or(at);
                let done = Progress::Finished {
                    started_at,
                    finished_at: at,
                    pieces_good: *pieces_good,
                    measured_s: *measured_s,
                    energy_wh: *energy_wh,
                    energy_measured: *energy_measured,
                };
                self.finished(machine, booking, *operation, *pieces_scrapped, done, at)
            }
            Happening::Scrapped { booking, operation, pieces_scrapped, reason } => {
                self.scrapped(machine, booking, *operation, *pieces_scrapped, reason)
            }
            Happening::Down { reason, expected_until } => self.goes_down(machine, reason, *expected_until),
            Happening::Up => self.comes_up(machine),
        }
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

    fn step(&self, id: &BookingId, operation: u32) -> Result<(Booking, usize), Refusal> {
        let booking = self.booking(id)?;
        let k = operation as usize;
        if booking.status != Status::Confirmed || k >= booking.steps.len() {
            return Err(Refusal::because(
                Reason::WrongStatus,
                format!("operation {operation} of {id} ({:?}) is not to be done", booking.status),
            ));
        }
        Ok((Booking::clone(booking), k))
    }

    fn running_since(&self, id: &BookingId, operation: u32) -> Result<Option<i64>, Refusal> {
        let (booking, k) = self.step(id, operation)?;
        Ok(match booking.steps[k].progress {
            Progress::Running { started_at, .. } => Some(started_at),
            _ => None,
        })
    }

    fn started(
        &mut self,
        machine: &MachineId,
        id: &BookingId,
        operation: u32,
        at: i64,
    ) -> Result<(), Refusal> {
        let (mut booking, k) = self.step(id, operation)?;
        if !booking.steps[k].is_planned() {
            return Err(Refusal::because(
                Reason::WrongStatus,
                format!("operation {operation} of {id} has begun before"),
            ));
        }
        let occupation = self.occupation_as_begun(&booking, k, machine, at)?;
        if let Some(place) = booking.steps[k].place.take() {
            self.edit_station(&place.machine, |s| match place.machine == *machine {
                true => s.take(id, operation),
                false => s.vacate(id, operation),
            });
        }
        booking.steps[k].progress = Progress::Running { started_at: at, pieces_good: 0 };
        booking.steps[k].place = Some(crate::rules::place_of(machine, &occupation));
        self.put_booking(booking);
        self.occupy(machine, occupation);
        self.give_way(machine, id, DisturbanceKind::LatePart, "work began later than planned, or elsewhere")
    }

    /// The occupation of an operation that begins at `at`: as planned if it begins in time, else as long.
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
        let end = match planned {
            Some(place) if start <= place.start => place.end,
            _ => station.reported_end(start, changeover_s + work_s, wanted.splittable),
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

    fn goes_on(
        &mut self,
        machine: &MachineId,
        id: &BookingId,
        operation: u32,
        pieces: u32,
        expected_end: i64,
    ) -> Result<(), Refusal> {
        let (mut booking, k) = self.step(id, operation)?;
        let Progress::Running { pieces_good, .. } = &mut booking.steps[k].progress else {
            return Err(Refusal::because(
                Reason::WrongStatus,
                format!("operation {operation} of {id} is not in work"),
            ));
        };
        *pieces_good = pieces;
        let latest = self.now + crate::order::OPERATION_MAX_S;
        let expected_end = ceil_tick(expected_end.clamp(0, latest));
        let place = booking.steps[k].place.as_mut().filter(|p| p.machine == *machine);
        let overrun = place.is_some_and(|p| {
            let over = expected_end > p.end + OVERRUN_GRACE_S;
            p.end = if over { expected_end } else { p.end };
            over
        });
        self.put_booking(booking);
        if !overrun {
            return Ok(());
        }
        self.edit_station(machine, |s| {
            if let Some(at) = s.find(id, operation) {
                s.line[at].end = expected_end;
            }
        });
        self.give_way(machine, id, DisturbanceKind::Overrun, "the operation takes longer than planned")
    }

    fn finished(
        &mut self,
        machine: &MachineId,
        id: &BookingId,
        operation: u32,
        scrapped: u32,
        done: Progress,
        at: i64,
    ) -> Result<(), Refusal> {
        let (booking, k) = self.step(id, operation)?;
        if booking.steps[k].is_finished() {
            return Err(Refusal::because(
                Reason::WrongStatus,
                format!("operation {operation} of {id} is finished already"),
            ));
        }
        if booking.steps[k].is_planned() {
            // The start was never seen: it began at the latest when it ended.
            self.started(machine, id, operation, at)?;
        }
        let (mut booking, k) = self.step(id, operation)?;
        let end = ceil_tick(at);
        let step = &mut booking.steps[k];
        step.progress = done;
        step.pieces_scrapped = step.pieces_scrapped.saturating_add(scrapped);
        let seat = step.place.as_mut().map(|p: &mut Place| {
            p.end = end.max(p.start);
            p.machine.clone()
        });
        if booking.steps.iter().all(|s| s.is_finished()) {
            booking.status = Status::Completed;
        }
        self.put_booking(booking);
        if let Some(seat) = seat {
            self.edit_station(&seat, |s| {
                if let Some(at) = s.find(id, operation) {
                    s.line[at].end = end.max(s.line[at].start);
                    s.line[at].phase = Phase::Done;
                }
            });
        }
        self.give_way(machine, id, DisturbanceKind::Overrun, "the operation ended later than planned")
    }

    fn scrapped(
        &mut self,
        machine: &MachineId,
        id: &BookingId,
        operation: u32,
        pieces: u32,
        reason: &str,
    ) -> Result<(), Refusal> {
        text("reason", reason, 0, 200)?;
        let (mut booking, k) = self.step(id, operation)?;
        let step = &mut booking.steps[k];
        if !matches!(step.progress, Progress::Running { .. }) {
            return Err(Refusal::because(
                Reason::WrongStatus,
                format!("operation {operation} of {id} is not in work"),
            ));
        }
        step.progress = Progress::Planned;
        step.pieces_scrapped = step.pieces_scrapped.saturating_add(pieces);
        let seat = step.place.take();
        booking.record(Disturbance {
            kind: DisturbanceKind::Scrap,
            at: self.now,
            machine: machine.clone(),
            operation,
            reason: reason.to_owned(),
        });
        self.put_booking(booking);
        if let Some(place) = seat {
            self.edit_station(&place.machine, |s| {
                if let Some(at) = s.find(id, operation) {
                    // The time is spent, and the machine stays set up for this family.
                    let spent = &mut s.line[at];
                    spent.phase = Phase::Done;
                    spent.purpose = Use::Tooling;
                }
            });
            self.trim_done(&place.machine);
        }
        self.give_way(machine, id, DisturbanceKind::Scrap, "pieces were scrapped")
    }

    /// What is over occupies nothing after now.
    fn trim_done(&mut self, machine: &MachineId) {
        let until = ceil_tick(self.now);
        self.edit_station(machine, |s| {
            for o in s.line.iter_mut().filter(|o| o.phase == Phase::Done) {
                o.end = o.end.min(until).max(o.start);
            }
        });
    }

    fn goes_down(&mut self, machine: &MachineId, reason: &str, until: i64) -> Result<(), Refusal> {
        text("reason", reason, 0, 200)?;
        let latest = self.now + crate::order::OPERATION_MAX_S;
        let until = if until > self.now { until.min(latest) } else { self.now + DOWN_UNKNOWN_S };
        let now = self.now;
        let mut in_hand = Vec::new();
        self.edit_station(machine, |s| {
            s.down = Some(Down { since: now, until, reason: reason.to_owned() });
            for o in s.line.iter_mut().filter(|o| o.phase == Phase::Running && o.end > now) {
                // What is in hand waits, and goes on when the machine is back.
                o.end = ceil_tick(until + (o.end - now));
                in_hand.push((o.purpose.clone(), o.end));
            }
        });
        self.recompute_open(machine);
        let mut first = None;
        for (purpose, end) in in_hand {
            let Use::Work { booking: id, operation } = purpose else { continue };
            let (mut booking, k) = self.step(&id, operation)?;
            if let Some(place) = &mut booking.steps[k].place {
                place.end = end;
            }
            self.put_booking(booking);
            first.get_or_insert(id);
        }
        let id = first.unwrap_or_else(|| BookingId::trusted(""));
        self.give_way(machine, &id, DisturbanceKind::Breakdown, reason)
    }

    fn comes_up(&mut self, machine: &MachineId) -> Result<(), Refusal> {
        self.edit_station(machine, |s| s.down = None);
        self.recompute_open(machine);
        self.give_way(machine, &BookingId::trusted(""), DisturbanceKind::Breakdown, "the machine came back")
    }

    /// Makes the plan whole again after something happened on `machine` (and to `id`): what can no longer
    /// stand where it is loses its place, and no more than that.
    pub(crate) fn give_way(
        &mut self,
        machine: &MachineId,
        id: &BookingId,
        kind: DisturbanceKind,
        reason: &str,
    ) -> Result<(), Refusal> {
        let cause = Cause { kind, machine: machine.clone(), reason: reason.to_owned() };
        let mut machines = BTreeSet::from([machine.clone()]);
        let mut bookings = BTreeSet::from([id.clone()]);
        while !machines.is_empty() || !bookings.is_empty() {
            while let Some(next) = machines.pop_first() {
                bookings.extend(self.clear_line(&next, &cause));
            }
            while let Some(next) = bookings.pop_first() {
                machines.extend(self.clear_chain(&next, &cause));
            }
        }
        Ok(())
    }

    /// Displaces what breaks the rule on a line. Answers with the bookings whose places changed.
    fn clear_line(&mut self, machine: &MachineId, cause: &Cause) -> BTreeSet<BookingId> {
        let mut touched = BTreeSet::new();
        loop {
            let broken = self.edit_station(machine, Station::settle).unwrap_or_default();
            let Some(first) = broken.first() else { break };
            let Some(purpose) = self.stations.get(machine).map(|s| s.line[first.index].purpose.clone())
            else {
                break;
            };
            match purpose {
                Use::Work { booking, operation } => {
                    self.displace(&booking, operation, cause);
                    touched.insert(booking);
                }
                Use::Tooling => {
                    let index = first.index;
                    self.edit_station(machine, |s| s.line.remove(index));
                }
            }
        }
        touched.extend(self.sync(machine));
        touched
    }

    /// Displaces what its part cannot reach in time. Answers with the machines that lose work. What has
    /// become late by it, or worse, has the cause on record.
    fn clear_chain(&mut self, id: &BookingId, cause: &Cause) -> BTreeSet<MachineId> {
        let mut machines = BTreeSet::new();
        while let Some(booking) = self.bookings.get(id) {
            let Some((operation, _)) = self.chain_fault(booking) else { break };
            let late = Cause { kind: DisturbanceKind::LatePart, ..cause.clone() };
            machines.extend(self.displace(id, operation, &late));
        }
        if let Some(booking) = self.bookings.get(id)
            && booking.at_risk()
            && booking.disturbances.last().is_none_or(|d| d.at != self.now)
        {
            let mut booking = Booking::clone(booking);
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
