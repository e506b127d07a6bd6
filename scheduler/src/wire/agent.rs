//! What agents report, and what they are told to do.

use super::registry::{machine_state, read_machine_state};
use super::{narrow, remote, required};
use millpool_alliance::command::{Event, Happening};
use millpool_alliance::line::{Phase, Station, Use};
use millpool_alliance::{BookingId, MachineId, PlantId, Refusal, State, price};
use millpool_proto::v1;

/// Reads an event.
pub fn read_event(e: v1::AgentEvent) -> Result<Event, Refusal> {
    use v1::agent_event::What;
    let what = match required("event.what", e.what)? {
        What::StateChanged(s) => Happening::State(read_machine_state(s.state)),
        What::OperationStarted(o) => {
            Happening::Started { booking: BookingId::parse(&o.booking_id)?, operation: o.operation }
        }
        What::OperationProgress(o) => Happening::Progress {
            booking: BookingId::parse(&o.booking_id)?,
            operation: o.operation,
            pieces_good: o.pieces_good,
            expected_end: o.expected_end_s,
        },
        What::OperationFinished(o) => Happening::Finished {
            booking: BookingId::parse(&o.booking_id)?,
            operation: o.operation,
            pieces_good: o.pieces_good,
            pieces_scrapped: o.pieces_scrapped,
            measured_s: o.measured_s.into(),
            energy_wh: o.energy_wh,
            energy_measured: o.energy_measured,
        },
        What::OperationScrapped(o) => Happening::Scrapped {
            booking: BookingId::parse(&o.booking_id)?,
            operation: o.operation,
            pieces_scrapped: o.pieces_scrapped,
            reason: o.reason,
        },
        What::MachineDown(d) => Happening::Down { reason: d.reason, expected_until: d.expected_until_s },
        What::MachineUp(_) => Happening::Up,
        What::RemoteAnswered(a) => {
            let taken_back = a.taken_back;
            let (session, nonce, outcome) = remote::read_answered(a)?;
            Happening::Operated { session, nonce, outcome, taken_back }
        }
        What::EvidenceGap(g) => {
            Happening::Gap { seconds: g.until_ms.saturating_sub(g.from_ms).max(0) / 1000 }
        }
    };
    Ok(Event { seq: e.seq, at: e.at_ms.div_euclid(1000), machine: MachineId::parse(&e.machine_id)?, what })
}

/// An event as the log keeps it.
pub fn event(e: &Event) -> v1::AgentEvent {
    use v1::agent_event::What;
    let what = match &e.what {
        Happening::State(s) => What::StateChanged(v1::StateChanged { state: machine_state(*s).into() }),
        Happening::Started { booking, operation } => What::OperationStarted(v1::OperationStarted {
            booking_id: booking.to_string(),
            operation: *operation,
        }),
        Happening::Progress { booking, operation, pieces_good, expected_end } => {
            What::OperationProgress(v1::OperationProgress {
                booking_id: booking.to_string(),
                operation: *operation,
                pieces_good: *pieces_good,
                expected_end_s: *expected_end,
            })
        }
        Happening::Finished {
            booking,
            operation,
            pieces_good,
            pieces_scrapped,
            measured_s,
            energy_wh,
            energy_measured,
        } => What::OperationFinished(v1::OperationFinished {
            booking_id: booking.to_string(),
            operation: *operation,
            pieces_good: *pieces_good,
            pieces_scrapped: *pieces_scrapped,
            measured_s: narrow(*measured_s),
            energy_wh: *energy_wh,
            energy_measured: *energy_measured,
        }),
        Happening::Scrapped { booking, operation, pieces_scrapped, reason } => {
            What::OperationScrapped(v1::OperationScrapped {
                booking_id: booking.to_string(),
                operation: *operation,
                pieces_scrapped: *pieces_scrapped,
                reason: reason.clone(),
            })
        }
        Happening::Down { reason, expected_until } => {
            What::MachineDown(v1::MachineDown { reason: reason.clone(), expected_until_s: *expected_until })
        }
        Happening::Up => What::MachineUp(v1::MachineUp {}),
        Happening::Operated { session, nonce, outcome, taken_back } => {
            What::RemoteAnswered(v1::RemoteAnswered {
                session_id: session.to_string(),
                nonce: *nonce,
                outcome: Some(remote::outcome(outcome)),
                taken_back: *taken_back,
            })
        }
        // The log keeps its length: times and reason are told to the operator as it comes in.
        Happening::Gap { seconds } => What::EvidenceGap(v1::EvidenceGap {
            from_ms: (e.at - seconds).saturating_mul(1000),
            until_ms: e.at.saturating_mul(1000),
            reason: String::new(),
        }),
    };
    v1::AgentEvent {
        seq: e.seq,
        at_ms: e.at.saturating_mul(1000),
        machine_id: e.machine.to_string(),
        what: Some(what),
    }
}

/// A plant's work: what is planned and in hand on its machines.
pub fn dispatch_list(state: &State, plant: &PlantId) -> v1::DispatchList {
    let stations = state.stations().values().filter(|s| s.machine.plant == *plant);
    v1::DispatchList {
        plant_id: plant.to_string(),
        revision: state.revision(),
        items: stations.flat_map(|s| items(state, s)).collect(),
    }
}

fn items<'a>(state: &'a State, station: &'a Station) -> impl Iterator<Item = v1::DispatchItem> + 'a {
    let frozen_until = state.frozen_until(station);
    station.line.iter().filter(|o| o.phase != Phase::Done).filter_map(move |o| {
        let Use::Work { booking: id, operation } = &o.purpose else { return None };
        let booking = state.bookings().get(id)?;
        let wanted = booking.order.route.get(*operation as usize)?;
        let reckoned = price::reckon(wanted, booking.order.quantity, &station.machine);
        Some(v1::DispatchItem {
            machine_id: station.id().to_string(),
            booking_id: id.to_string(),
            operation: *operation,
            start_s: o.start,
            end_s: o.end,
            setup_family: o.family.to_string(),
            setup_s: narrow(o.changeover_s + wanted.setup_s),
            run_s: narrow(reckoned.run_s),
            quantity: narrow(booking.order.quantity),
            material: booking.order.material.clone(),
            frozen: o.phase == Phase::Running || o.start < frozen_until,
            running: o.phase == Phase::Running,
            splittable: o.splittable,
        })
    })
}
