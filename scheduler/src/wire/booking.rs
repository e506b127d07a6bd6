//! Orders, terms, bookings, prices and refusals' obstacles.

use super::registry::{class, read_class, read_size, size};
use super::{narrow, nonzero, required, unknown_enum};
use millpool_alliance::order::{Objective, Operation, Order, Terms};
use millpool_alliance::price::{Carbon, Price};
use millpool_alliance::{
    Booking, Disturbance, DisturbanceKind, MachineId, Obstacle, PlantId, Progress, Promise, Refusal, State,
    Status, Step,
};
use millpool_proto::v1;

/// An order on the wire.
pub fn order(o: &Order) -> v1::Order {
    v1::Order {
        reference: o.reference.clone(),
        quantity: narrow(o.quantity),
        material: o.material.clone(),
        size: Some(size(&o.size)),
        mass_g: o.mass_g,
        route: o.route.iter().map(operation).collect(),
        release_s: o.release,
        due_s: o.due,
        deadline_s: o.deadline.unwrap_or(0),
        budget_fen: o.budget_fen.unwrap_or(0),
        excluded_plants: o.excluded_plants.iter().map(ToString::to_string).collect(),
    }
}

fn operation(o: &Operation) -> v1::Operation {
    v1::Operation {
        class: class(o.class).into(),
        axes_min: o.axes_min,
        tolerance_um: o.tolerance_um,
        certificates: o.certificates.iter().cloned().collect(),
        setup_family: o.setup_family.clone(),
        setup_s: narrow(o.setup_s),
        run_s_per_piece: narrow(o.run_s_per_piece),
        splittable: o.splittable,
    }
}

/// Reads an order.
pub fn read_order(o: v1::Order) -> Result<Order, Refusal> {
    let route: Result<Vec<Operation>, Refusal> =
        o.route.into_iter().enumerate().map(|(k, op)| read_operation(k, op)).collect();
    Ok(Order {
        reference: o.reference,
        quantity: o.quantity.into(),
        material: o.material,
        size: read_size(required("order.size", o.size)?),
        mass_g: o.mass_g,
        route: route?,
        release: o.release_s,
        due: o.due_s,
        deadline: nonzero(o.deadline_s),
        budget_fen: nonzero(o.budget_fen),
        excluded_plants: o.excluded_plants.iter().map(|p| PlantId::parse(p)).collect::<Result<_, _>>()?,
    })
}

fn read_operation(index: usize, o: v1::Operation) -> Result<Operation, Refusal> {
    Ok(Operation {
        class: read_class(&format!("order.route[{index}].class"), o.class)?,
        axes_min: o.axes_min,
        tolerance_um: o.tolerance_um,
        certificates: o.certificates.into_iter().collect(),
        setup_family: o.setup_family,
        setup_s: o.setup_s.into(),
        run_s_per_piece: o.run_s_per_piece.into(),
        splittable: o.splittable,
    })
}

/// An objective on the wire.
pub fn objective(o: Objective) -> v1::Objective {
    match o {
        Objective::Cheapest => v1::Objective::Cheapest,
        Objective::Fastest => v1::Objective::Fastest,
        Objective::Greenest => v1::Objective::Greenest,
    }
}

/// Terms on the wire.
pub fn terms(t: &Terms) -> v1::Terms {
    v1::Terms {
        objective: objective(t.objective).into(),
        promised_by_s: t.promised_by.unwrap_or(0),
        price_max_fen: t.price_max_fen.unwrap_or(0),
    }
}

/// Reads terms; none are the cheapest at any price.
pub fn read_terms(t: Option<v1::Terms>) -> Result<Terms, Refusal> {
    let t = t.unwrap_or_default();
    let objective = match v1::Objective::try_from(t.objective) {
        Ok(v1::Objective::Unspecified | v1::Objective::Cheapest) => Objective::Cheapest,
        Ok(v1::Objective::Fastest) => Objective::Fastest,
        Ok(v1::Objective::Greenest) => Objective::Greenest,
        Err(_) => {
            return Err(unknown_enum("terms.objective", t.objective, "cheapest, fastest or greenest"));
        }
    };
    Ok(Terms { objective, promised_by: nonzero(t.promised_by_s), price_max_fen: nonzero(t.price_max_fen) })
}

/// A price on the wire.
pub fn price(p: &Price) -> v1::Price {
    v1::Price {
        processing_fen: p.processing_fen,
        setup_fen: p.setup_fen,
        transport_fen: p.transport_fen,
        total_fen: p.total_fen(),
    }
}

/// Carbon on the wire.
pub fn carbon(c: &Carbon) -> v1::Carbon {
    v1::Carbon {
        machine_g: c.machine_g,
        transport_g: c.transport_g,
        total_g: c.total_g(),
        energy_wh: c.energy_wh,
        grid_factors: c.grid_factors.clone(),
    }
}

/// A promise on the wire.
pub fn promise(p: &Promise) -> v1::Promise {
    v1::Promise { by_s: p.by, price: Some(price(&p.price)), carbon: Some(carbon(&p.carbon)) }
}

pub(super) fn read_promise(p: v1::Promise) -> Result<Promise, Refusal> {
    let price = required("promise.price", p.price)?;
    let carbon = required("promise.carbon", p.carbon)?;
    Ok(Promise {
        by: p.by_s,
        price: Price {
            processing_fen: price.processing_fen,
            setup_fen: price.setup_fen,
            transport_fen: price.transport_fen,
        },
        carbon: Carbon {
            machine_g: carbon.machine_g,
            transport_g: carbon.transport_g,
            energy_wh: carbon.energy_wh,
            grid_factors: carbon.grid_factors,
        },
    })
}

/// A booking's status on the wire.
pub fn status(s: Status) -> v1::BookingStatus {
    match s {
        Status::Held => v1::BookingStatus::Held,
        Status::Confirmed => v1::BookingStatus::Confirmed,
        Status::Completed => v1::BookingStatus::Completed,
        Status::Cancelled => v1::BookingStatus::Cancelled,
        Status::Expired => v1::BookingStatus::Expired,
    }
}

/// Reads a status that must be one.
pub fn read_status(value: i32) -> Result<Status, Refusal> {
    Ok(match v1::BookingStatus::try_from(value) {
        Ok(v1::BookingStatus::Held) => Status::Held,
        Ok(v1::BookingStatus::Confirmed) => Status::Confirmed,
        Ok(v1::BookingStatus::Completed) => Status::Completed,
        Ok(v1::BookingStatus::Cancelled) => Status::Cancelled,
        Ok(v1::BookingStatus::Expired) => Status::Expired,
        _ => {
            return Err(unknown_enum("status", value, "held, confirmed, completed, cancelled or expired"));
        }
    })
}

/// How far a step is, on the wire.
pub fn operation_state(p: &Progress) -> v1::OperationState {
    match p {
        Progress::Planned => v1::OperationState::Planned,
        Progress::Running { .. } => v1::OperationState::Running,
        Progress::Finished { .. } => v1::OperationState::Finished,
    }
}

/// A step with its place; None while it has none.
pub fn assignment(state: &State, index: usize, step: &Step) -> Option<v1::Assignment> {
    let place = step.place.as_ref()?;
    let mut shown = v1::Assignment {
        operation: index as u32,
        machine_id: place.machine.to_string(),
        plant_id: plant_of(state, &place.machine),
        start_s: place.start,
        end_s: place.end,
        changeover_s: narrow(place.changeover_s),
        state: operation_state(&step.progress).into(),
        pieces_scrapped: step.pieces_scrapped,
        ..v1::Assignment::default()
    };
    match &step.progress {
        Progress::Planned => {}
        Progress::Running { started_at, pieces_good } => {
            shown.started_at_s = *started_at;
            shown.pieces_good = *pieces_good;
        }
        Progress::Finished { started_at, finished_at, pieces_good, energy_wh, energy_measured, .. } => {
            shown.started_at_s = *started_at;
            shown.finished_at_s = *finished_at;
            shown.pieces_good = *pieces_good;
            shown.energy_wh = *energy_wh;
            shown.energy_measured = *energy_measured;
        }
    }
    Some(shown)
}

/// The plant that a machine stands in.
pub fn plant_of(state: &State, machine: &MachineId) -> String {
    state.stations().get(machine).map(|s| s.machine.plant.to_string()).unwrap_or_default()
}

/// A booking as its buyer sees it.
pub fn booking(state: &State, b: &Booking) -> v1::Booking {
    v1::Booking {
        id: b.id.to_string(),
        buyer: b.buyer.to_string(),
        order: Some(order(&b.order)),
        status: status(b.status).into(),
        assignments: b.steps.iter().enumerate().filter_map(|(k, s)| assignment(state, k, s)).collect(),
        promise: Some(promise(&b.promise)),
        hold_expires_at_s: b.hold_expires_at,
        completes_at_s: b.completes_at().unwrap_or(0),
        disturbances: b.disturbances.iter().map(disturbance).collect(),
        at_risk: b.at_risk(),
        created_at_s: b.created_at,
        revision: b.revision,
    }
}

pub(super) fn disturbance(d: &Disturbance) -> v1::Disturbance {
    let kind = match d.kind {
        DisturbanceKind::Breakdown => v1::DisturbanceKind::Breakdown,
        DisturbanceKind::Overrun => v1::DisturbanceKind::Overrun,
        DisturbanceKind::Scrap => v1::DisturbanceKind::Scrap,
        DisturbanceKind::OfferWithdrawn => v1::DisturbanceKind::OfferWithdrawn,
        DisturbanceKind::LatePart => v1::DisturbanceKind::LatePart,
    };
    v1::Disturbance {
        kind: kind.into(),
        at_s: d.at,
        machine_id: d.machine.to_string(),
        operation: d.operation,
        reason: d.reason.clone(),
    }
}

pub(super) fn read_disturbance(d: v1::Disturbance) -> Result<Disturbance, Refusal> {
    let kind = match v1::DisturbanceKind::try_from(d.kind) {
        Ok(v1::DisturbanceKind::Breakdown) => DisturbanceKind::Breakdown,
        Ok(v1::DisturbanceKind::Overrun) => DisturbanceKind::Overrun,
        Ok(v1::DisturbanceKind::Scrap) => DisturbanceKind::Scrap,
        Ok(v1::DisturbanceKind::OfferWithdrawn) => DisturbanceKind::OfferWithdrawn,
        Ok(v1::DisturbanceKind::LatePart) => DisturbanceKind::LatePart,
        _ => return Err(unknown_enum("disturbance.kind", d.kind, "a known kind")),
    };
    Ok(Disturbance {
        kind,
        at: d.at_s,
        machine: MachineId::trusted(&d.machine_id),
        operation: d.operation,
        reason: d.reason,
    })
}

/// An obstacle on the wire.
pub fn obstacle(o: &Obstacle) -> v1::Obstacle {
    v1::Obstacle {
        operation: o.operation,
        requirement: o.requirement.to_owned(),
        asked: o.asked.clone(),
        available: o.available.clone(),
        machines_excluded: o.excluded,
        machines_of_class: o.of_class,
    }
}
