//! Log entries as bytes: `millpool.state.v1.Entry`.

use super::{agent, booking, narrow, nonzero, read_format, registry, remote, required};
use millpool_alliance::command::{Command, Entry, Move, PlanFigures, PlanKind, Request};
use millpool_alliance::{
    BookingId, Format, MachineId, OfferId, PlantId, PrincipalId, Reason, Refusal, SessionId,
};
use millpool_proto::state::v1::{self as state, entry::Command as Wire};
use millpool_proto::v1;
use prost::Message as _;

/// An entry's bytes.
pub fn encode(entry: &Entry, format: Format) -> Vec<u8> {
    state::Entry {
        version: format.number(),
        at_s: entry.at,
        caller: Some(registry::caller(&entry.caller)),
        request: entry.request.as_ref().map(request),
        command: Some(command(&entry.command)),
    }
    .encode_to_vec()
}

/// Reads an entry of a format up to `newest`. What is not understood is an error, never a guess.
pub fn decode(bytes: &[u8], newest: Format) -> Result<Entry, Refusal> {
    let broken = |e: prost::DecodeError| Refusal::because(Reason::InvalidField, format!("log entry: {e}"));
    let entry = state::Entry::decode(bytes).map_err(broken)?;
    read_format("log entry", entry.version, newest)?;
    Ok(Entry {
        at: entry.at_s,
        caller: registry::read_caller(&required("entry.caller", entry.caller)?)?,
        request: entry.request.map(read_request),
        command: read_command(required("entry.command", entry.command)?)?,
    })
}

pub(super) fn request(r: &Request) -> state::Request {
    state::Request { id: r.id.clone(), method: r.method.clone(), fingerprint: r.fingerprint }
}

pub(super) fn read_request(r: state::Request) -> Request {
    Request { id: r.id, method: r.method, fingerprint: r.fingerprint }
}

pub(super) fn figures(f: &PlanFigures) -> state::PlanFigures {
    state::PlanFigures {
        base_revision: f.base_revision,
        cost_before_fen: f.cost_before_fen,
        cost_fen: f.cost_fen,
        bound_fen: f.bound_fen,
        took_ms: f.took_ms,
    }
}

pub(super) fn read_figures(f: state::PlanFigures) -> PlanFigures {
    PlanFigures {
        base_revision: f.base_revision,
        cost_before_fen: f.cost_before_fen,
        cost_fen: f.cost_fen,
        bound_fen: f.bound_fen,
        took_ms: f.took_ms,
    }
}

fn seat(machine: &MachineId, start: i64) -> state::Seat {
    state::Seat { machine_id: machine.to_string(), start_s: start }
}

fn read_seat(s: &state::Seat) -> Result<(MachineId, i64), Refusal> {
    Ok((MachineId::parse(&s.machine_id)?, s.start_s))
}

fn command(c: &Command) -> Wire {
    let no_id = String::new;
    match c {
        Command::Tick => Wire::Tick(state::Tick {}),
        Command::PutMember { member, expected_revision } => Wire::PutMember(v1::PutMemberRequest {
            request_id: no_id(),
            member: Some(registry::member(member)),
            expected_revision: *expected_revision,
        }),
        Command::PutPlant { plant, expected_revision } => Wire::PutPlant(v1::PutPlantRequest {
            request_id: no_id(),
            plant: Some(registry::plant(plant)),
            expected_revision: *expected_revision,
        }),
        Command::PutMachine { machine, expected_revision } => Wire::PutMachine(v1::PutMachineRequest {
            request_id: no_id(),
            machine: Some(registry::machine(machine)),
            expected_revision: *expected_revision,
        }),
        Command::CreateOffer(offer) => Wire::CreateOffer(registry::offer(offer)),
        Command::WithdrawOffer { offer, accept_disturbance } => {
            Wire::WithdrawOffer(v1::WithdrawOfferRequest {
                request_id: no_id(),
                offer_id: offer.to_string(),
                preview: false,
                accept_disturbance: *accept_disturbance,
            })
        }
        Command::PutPolicy { policy, expected_revision } => Wire::PutPolicy(v1::PutPolicyRequest {
            request_id: no_id(),
            policy: Some(registry::policy(policy)),
            expected_revision: *expected_revision,
        }),
        Command::PutPrincipal(p) => Wire::PutPrincipal(registry::principal_with_token(p)),
        Command::RevokePrincipal { role, id } => Wire::RevokePrincipal(v1::RevokePrincipalRequest {
            request_id: no_id(),
            role: registry::role(*role).into(),
            id: id.to_string(),
        }),
        Command::Book { buyer, order, terms, placement, hold_s } => Wire::Book(state::Book {
            buyer: buyer.to_string(),
            order: Some(booking::order(order)),
            terms: Some(booking::terms(terms)),
            placement: placement.iter().map(|(machine, start)| seat(machine, *start)).collect(),
            hold_s: narrow(*hold_s),
        }),
        Command::Confirm { booking } => {
            Wire::Confirm(v1::ConfirmBookingRequest { request_id: no_id(), booking_id: booking.to_string() })
        }
        Command::Cancel { booking, reason } => Wire::Cancel(v1::CancelBookingRequest {
            request_id: no_id(),
            booking_id: booking.to_string(),
            reason: reason.clone(),
        }),
        Command::CommitPlan { kind, base_revision, moves, figures: f } => {
            Wire::CommitPlan(state::CommitPlan {
                repair: *kind == PlanKind::Repair,
                base_revision: *base_revision,
                moves: moves.iter().map(move_).collect(),
                figures: Some(figures(f)),
            })
        }
        Command::RaiseFormat { to } => Wire::RaiseFormat(state::RaiseFormat { to: to.number() }),
        Command::AttachAgent { plant, agent, outbox } => Wire::AttachAgent(state::AttachAgent {
            plant_id: plant.to_string(),
            agent_id: agent.clone(),
            outbox_id: outbox.clone(),
        }),
        Command::NoteSilence { plant, since } => {
            Wire::NoteSilence(state::NoteSilence { plant_id: plant.to_string(), since_s: *since })
        }
        Command::Report { plant, outbox, events } => Wire::Report(state::Report {
            plant_id: plant.to_string(),
            outbox_id: outbox.clone(),
            events: events.iter().map(agent::event).collect(),
        }),
        Command::OpenSession { booking, operation } => Wire::OpenSession(v1::OpenSessionRequest {
            request_id: no_id(),
            booking_id: booking.to_string(),
            operation: *operation,
        }),
        Command::CloseSession { session, because } => Wire::CloseSession(v1::CloseSessionRequest {
            request_id: no_id(),
            session_id: session.to_string(),
            because: because.clone(),
        }),
        Command::Operate(asked) => Wire::Operate(remote::asked(asked)),
    }
}

fn move_(m: &Move) -> state::Move {
    state::Move {
        booking_id: m.booking.to_string(),
        operation: m.operation,
        seat: Some(seat(&m.machine, m.start)),
    }
}

fn read_command(c: Wire) -> Result<Command, Refusal> {
    Ok(match c {
        Wire::Tick(_) => Command::Tick,
        Wire::PutMember(r) => Command::PutMember {
            member: registry::read_member(required("member", r.member)?)?,
            expected_revision: r.expected_revision,
        },
        Wire::PutPlant(r) => Command::PutPlant {
            plant: registry::read_plant(required("plant", r.plant)?)?,
            expected_revision: r.expected_revision,
        },
        Wire::PutMachine(r) => Command::PutMachine {
            machine: registry::read_machine(required("machine", r.machine)?)?,
            expected_revision: r.expected_revision,
        },
        Wire::CreateOffer(o) => Command::CreateOffer(registry::read_offer(o)?),
        Wire::WithdrawOffer(r) => Command::WithdrawOffer {
            offer: OfferId::parse(&r.offer_id)?,
            accept_disturbance: r.accept_disturbance,
        },
        Wire::PutPolicy(r) => Command::PutPolicy {
            policy: registry::read_policy(required("policy", r.policy)?)?,
            expected_revision: r.expected_revision,
        },
        Wire::PutPrincipal(p) => Command::PutPrincipal(registry::read_principal_with_token(p)?),
        Wire::RevokePrincipal(r) => {
            Command::RevokePrincipal { role: registry::read_role(r.role)?, id: PrincipalId::parse(&r.id)? }
        }
        Wire::Book(b) => Command::Book {
            buyer: PrincipalId::parse(&b.buyer)?,
            order: booking::read_order(required("order", b.order)?)?.into(),
            terms: booking::read_terms(b.terms)?,
            placement: b.placement.iter().map(read_seat).collect::<Result<_, _>>()?,
            hold_s: nonzero(b.hold_s.into()).unwrap_or(0),
        },
        Wire::Confirm(r) => Command::Confirm { booking: BookingId::parse(&r.booking_id)? },
        Wire::Cancel(r) => Command::Cancel { booking: BookingId::parse(&r.booking_id)?, reason: r.reason },
        Wire::CommitPlan(p) => Command::CommitPlan {
            kind: if p.repair { PlanKind::Repair } else { PlanKind::Optimisation },
            base_revision: p.base_revision,
            moves: p.moves.into_iter().map(read_move).collect::<Result<_, _>>()?,
            figures: read_figures(p.figures.unwrap_or_default()),
        },
        Wire::RaiseFormat(r) => {
            Command::RaiseFormat { to: read_format("raise_format", r.to, Format::NEWEST)? }
        }
        Wire::AttachAgent(a) => Command::AttachAgent {
            plant: PlantId::parse(&a.plant_id)?,
            agent: a.agent_id,
            outbox: a.outbox_id,
        },
        Wire::NoteSilence(s) => {
            Command::NoteSilence { plant: PlantId::parse(&s.plant_id)?, since: s.since_s }
        }
        Wire::Report(r) => Command::Report {
            plant: PlantId::parse(&r.plant_id)?,
            outbox: r.outbox_id,
            events: r.events.into_iter().map(agent::read_event).collect::<Result<_, _>>()?,
        },
        Wire::OpenSession(r) => {
            Command::OpenSession { booking: BookingId::parse(&r.booking_id)?, operation: r.operation }
        }
        Wire::CloseSession(r) => {
            Command::CloseSession { session: SessionId::parse(&r.session_id)?, because: r.because }
        }
        Wire::Operate(r) => Command::Operate(remote::read_asked(r)?),
    })
}

fn read_move(m: state::Move) -> Result<Move, Refusal> {
    let (machine, start) = read_seat(&required("move.seat", m.seat)?)?;
    Ok(Move { booking: BookingId::parse(&m.booking_id)?, operation: m.operation, machine, start })
}
