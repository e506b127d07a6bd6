//! Whether everything that was said is so, once a run has ended.
//!
//! - [`evidence`]: the bookings and the plan as the coordinators now show them, read at one revision.
//! - [`said`]: every acknowledged booking is there, once, with the promise it was given or a better one.
//! - [`plan`]: no two occupations of a machine overlap, and no rule of the contract is broken.
//! - [`promises`]: kept, at risk by a recorded disturbance, or broken without cause.
//! - [`agreement`]: the coordinators' states have the same hash at the same revision.
//! - [`logs`]: no process panicked.
//!
//! The judging functions are pure, and each has a test that plants a fault and sees it found.

pub mod agreement;
pub mod evidence;
pub mod logs;
pub mod plan;
pub mod promises;
pub mod said;

use std::fmt;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule that is broken, in a few words.
    pub rule: &'static str,
    /// Where and how.
    pub how: String,
}

impl Fault {
    /// A broken rule.
    pub fn new(rule: &'static str, how: impl Into<String>) -> Self {
        Self { rule, how: how.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.how)
    }
}

#[cfg(test)]
pub(crate) mod examples {
    //! A booking of two operations, well placed.

    use crate::alliance::{Alliance, Blueprint};
    use millpool_proto::v1::{
        Assignment, Booking, BookingStatus, GetPlanResponse, MachineClass, Operation, Order, PlanEntry,
        PlanRow, Price, Promise, Size, Window,
    };

    pub(crate) const START_S: i64 = 1_764_540_000;

    pub(crate) fn alliance() -> Alliance {
        Alliance::new(Blueprint::demo(1, START_S))
    }

    pub(crate) fn booking(alliance: &Alliance) -> Booking {
        let machine = |class: MachineClass| {
            alliance.machines.iter().find(|m| m.class == i32::from(class)).expect("a machine of each class")
        };
        let classes = [MachineClass::Mill, MachineClass::Cmm];
        let place = |k: usize| {
            let (machine, start_s) = (machine(classes[k]), START_S + 86_400 * (1 + k as i64));
            Assignment {
                operation: k as u32,
                machine_id: machine.id.clone(),
                plant_id: machine.plant_id.clone(),
                start_s,
                end_s: start_s + 3600,
                ..Assignment::default()
            }
        };
        let operation = |class: MachineClass| Operation {
            class: class.into(),
            setup_family: "F1".into(),
            run_s_per_piece: 60,
            ..Operation::default()
        };
        let size = Some(Size { x_mm: 100, y_mm: 50, z_mm: 20 });
        let order = Order {
            reference: "r1".into(),
            quantity: 10,
            material: "steel".into(),
            size,
            mass_g: 800,
            route: classes.map(operation).into(),
            due_s: START_S + 9 * 86_400,
            ..Order::default()
        };
        let assignments = vec![place(0), place(1)];
        let completes_at_s = assignments[1].end_s;
        let price = Some(Price { total_fen: 5000, ..Price::default() });
        Booking {
            id: "B000001".into(),
            buyer: "avocet".into(),
            order: Some(order),
            status: BookingStatus::Confirmed.into(),
            promise: Some(Promise { by_s: completes_at_s + 60, price, carbon: None }),
            completes_at_s,
            assignments,
            ..Booking::default()
        }
    }

    pub(crate) fn plan(booking: &Booking) -> GetPlanResponse {
        let entries = booking.assignments.iter().map(|assignment| PlanEntry {
            machine_id: assignment.machine_id.clone(),
            booking_id: booking.id.clone(),
            assignment: Some(assignment.clone()),
            setup_family: "F1".into(),
            frozen: false,
        });
        let open = vec![Window { start_s: START_S, end_s: START_S + 14 * 86_400 }];
        let rows = booking.assignments.iter().map(|assignment| PlanRow {
            machine_id: assignment.machine_id.clone(),
            plant_id: assignment.plant_id.clone(),
            open: open.clone(),
            ..PlanRow::default()
        });
        GetPlanResponse { rows: rows.collect(), entries: entries.collect(), ..GetPlanResponse::default() }
    }
}
