//! The plan held against the rules of the contract, anew and without the coordinator's code: no overlap,
//! inside what is lent, on machines that can do it, each operation after the one before it and the way
//! between.

use super::Fault;
use crate::alliance::Alliance;
use millpool_proto::v1::{
    Assignment, Booking, BookingStatus, GetPlanResponse, Machine, Operation, OperationState, Order, Plant,
    Policy, Size, Window,
};
use std::collections::BTreeMap;

const OVERLAP: &str = "occupations of a machine do not overlap";
const LENT: &str = "work stands inside what is lent";
const ABLE: &str = "a machine can do its work";
const CHAIN: &str = "an operation follows the one before it";
const SAME: &str = "plan and bookings agree";

/// Holds a plan and its bookings against the rules.
pub fn judge(
    alliance: &Alliance,
    policy: &Policy,
    plan: &GetPlanResponse,
    bookings: &[Booking],
) -> Vec<Fault> {
    let mut faults = overlaps(plan);
    faults.extend(outside(plan, bookings));
    let machines = alliance.machines.iter().map(|machine| (machine.id.as_str(), machine)).collect();
    let plants = alliance.plants.iter().map(|plant| (plant.id.as_str(), plant)).collect();
    let book = Book { machines, plants, policy };
    for booking in bookings.iter().filter(|booking| is_open(booking)) {
        faults.extend(book.unable(booking));
        faults.extend(book.out_of_order(booking));
    }
    faults.extend(differences(plan, bookings));
    faults
}

fn is_open(booking: &Booking) -> bool {
    matches!(booking.status(), BookingStatus::Held | BookingStatus::Confirmed)
}

fn overlaps(plan: &GetPlanResponse) -> Vec<Fault> {
    let mut lines: BTreeMap<&str, Vec<(&Assignment, &str)>> = BTreeMap::new();
    for entry in &plan.entries {
        let Some(assignment) = &entry.assignment else { continue };
        lines.entry(&entry.machine_id).or_default().push((assignment, &entry.booking_id));
    }
    let mut faults = Vec::new();
    for (machine, mut line) in lines {
        line.sort_by_key(|(assignment, _)| (assignment.start_s, assignment.end_s));
        for pair in line.windows(2) {
            let [(one, first), (other, second)] = [pair[0], pair[1]];
            if other.start_s < one.end_s {
                let how = format!(
                    "{machine}: {first}/{} until {} and {second}/{} from {}",
                    one.operation, one.end_s, other.operation, other.start_s
                );
                faults.push(Fault::new(OVERLAP, how));
            }
        }
    }
    faults
}

/// Work to come that does not stand inside one open window; work that may pause has only to begin in one.
fn outside(plan: &GetPlanResponse, bookings: &[Booking]) -> Vec<Fault> {
    let open: BTreeMap<&str, &[Window]> =
        plan.rows.iter().map(|row| (row.machine_id.as_str(), row.open.as_slice())).collect();
    let orders: BTreeMap<&str, &Order> =
        bookings.iter().filter_map(|booking| Some((booking.id.as_str(), booking.order.as_ref()?))).collect();
    let mut faults = Vec::new();
    for entry in &plan.entries {
        let Some(place) = entry.assignment.as_ref().filter(|place| place.state() == OperationState::Planned)
        else {
            continue;
        };
        let order = orders.get(entry.booking_id.as_str());
        let operation = order.and_then(|order| order.route.get(place.operation as usize));
        let pauses = operation.is_some_and(|operation| operation.splittable);
        let windows = open.get(entry.machine_id.as_str()).copied().unwrap_or_default();
        let inside = |window: &Window| {
            window.start_s <= place.start_s
                && place.start_s < window.end_s
                && (pauses || place.end_s <= window.end_s)
        };
        if !windows.iter().any(inside) {
            let how = format!(
                "{}: {}/{} over [{}, {})",
                entry.machine_id, entry.booking_id, place.operation, place.start_s, place.end_s
            );
            faults.push(Fault::new(LENT, how));
        }
    }
    faults
}

/// Who stands where, to look up.
struct Book<'a> {
    machines: BTreeMap<&'a str, &'a Machine>,
    plants: BTreeMap<&'a str, &'a Plant>,
    policy: &'a Policy,
}

impl Book<'_> {
    fn unable(&self, booking: &Booking) -> Vec<Fault> {
        let Some(order) = &booking.order else { return Vec::new() };
        let fault = |place: &Assignment| {
            let machine = self.machines.get(place.machine_id.as_str())?;
            let operation = order.route.get(place.operation as usize)?;
            let lacks = lacks(order, operation, machine)?;
            let how = format!("{} lacks {lacks} for {}/{}", machine.id, booking.id, place.operation);
            Some(Fault::new(ABLE, how))
        };
        booking.assignments.iter().filter_map(fault).collect()
    }

    fn out_of_order(&self, booking: &Booking) -> Vec<Fault> {
        let mut faults = Vec::new();
        let release_s = booking.order.as_ref().map_or(0, |order| order.release_s);
        let to_come = |place: &&Assignment| place.state() == OperationState::Planned;
        for place in booking.assignments.iter().filter(to_come) {
            let before = booking.assignments.iter().find(|other| other.operation + 1 == place.operation);
            let ready_s = before.map_or(release_s, |before| before.end_s + self.trip_s(before, place));
            if place.start_s < ready_s {
                let how = format!(
                    "{}/{} starts at {}, ready at {ready_s}",
                    booking.id, place.operation, place.start_s
                );
                faults.push(Fault::new(CHAIN, how));
            }
        }
        faults
    }

    /// The way between two plants, rounded down, so that no rounding is taken for a fault.
    fn trip_s(&self, from: &Assignment, to: &Assignment) -> i64 {
        let plants = (self.plants.get(from.plant_id.as_str()), self.plants.get(to.plant_id.as_str()));
        let (Some(a), Some(b), Some(tariff)) = (plants.0, plants.1, &self.policy.transport) else { return 0 };
        if a.id == b.id {
            return 0;
        }
        let (east_m, north_m) = ((a.east_m - b.east_m) as f64, (a.north_m - b.north_m) as f64);
        let km = east_m.hypot(north_m) / 1000.0;
        i64::from(tariff.base_s) + (km * f64::from(tariff.s_per_km)).floor() as i64 - 1
    }
}

/// The first thing that a machine lacks for an operation.
fn lacks(order: &Order, operation: &Operation, machine: &Machine) -> Option<&'static str> {
    let edges = |size: Option<Size>| {
        let size = size.unwrap_or_default();
        let mut edges = [size.x_mm, size.y_mm, size.z_mm];
        edges.sort_unstable();
        edges
    };
    let room = edges(machine.envelope);
    let checks = [
        ("the class", machine.class == operation.class),
        ("axes", machine.axes >= operation.axes_min),
        ("room", edges(order.size).iter().zip(room).all(|(edge, room)| *edge <= room)),
        ("strength", order.mass_g <= machine.mass_max_g),
        ("precision", operation.tolerance_um == 0 || machine.tolerance_um <= operation.tolerance_um),
        ("the material", machine.materials.contains(&order.material)),
        ("a certificate", operation.certificates.iter().all(|name| machine.certificates.contains(name))),
        ("the setup family", machine.setup_families.contains(&operation.setup_family)),
        ("the buyer's leave", !order.excluded_plants.contains(&machine.plant_id)),
    ];
    checks.into_iter().find(|(_, met)| !met).map(|(lacks, _)| lacks)
}

/// What bookings say of their work to come stands in the plan, and nothing else does.
fn differences(plan: &GetPlanResponse, bookings: &[Booking]) -> Vec<Fault> {
    type Place<'a> = (&'a str, u32, &'a str, i64, i64);
    fn place<'a>(booking_id: &'a str, a: &'a Assignment) -> Place<'a> {
        (booking_id, a.operation, &a.machine_id, a.start_s, a.end_s)
    }
    let to_come = |a: &&Assignment| a.state() == OperationState::Planned;
    let mut planned: Vec<Place> = plan
        .entries
        .iter()
        .filter_map(|entry| Some(place(&entry.booking_id, entry.assignment.as_ref().filter(to_come)?)))
        .collect();
    let mut told: Vec<Place> = bookings
        .iter()
        .filter(|booking| is_open(booking))
        .flat_map(|booking| booking.assignments.iter().filter(to_come).map(|a| place(&booking.id, a)))
        .collect();
    planned.sort_unstable();
    told.sort_unstable();
    let only = |these: &[Place], those: &[Place], whose: &str| -> Vec<Fault> {
        let missing = these.iter().filter(|place| those.binary_search(place).is_err());
        missing.map(|place| Fault::new(SAME, format!("only {whose} knows {place:?}"))).collect()
    };
    let mut faults = only(&planned, &told, "the plan");
    faults.extend(only(&told, &planned, "the booking"));
    faults
}

#[cfg(test)]
mod tests {
    use super::super::examples;
    use super::*;

    fn rules(change: impl Fn(&mut Booking, &mut GetPlanResponse)) -> Vec<&'static str> {
        let alliance = examples::alliance();
        let mut booking = examples::booking(&alliance);
        let mut plan = examples::plan(&booking);
        change(&mut booking, &mut plan);
        let policy = Policy {
            transport: Some(millpool_proto::v1::TransportTariff {
                base_s: 1800,
                s_per_km: 90,
                ..Default::default()
            }),
            ..Policy::default()
        };
        judge(&alliance, &policy, &plan, &[booking]).into_iter().map(|fault| fault.rule).collect()
    }

    #[test]
    fn a_good_plan_has_no_fault() {
        assert!(rules(|_, _| ()).is_empty());
    }

    #[test]
    fn an_overlap_is_found() {
        let found = rules(|_, plan| {
            let mut twin = plan.entries[0].clone();
            twin.booking_id = "B000009".into();
            plan.entries.push(twin);
        });
        assert_eq!(found, [OVERLAP, SAME]);
    }

    #[test]
    fn work_outside_what_is_lent_is_found() {
        let found = rules(|_, plan| plan.rows[0].open[0].start_s += 86_401);
        assert_eq!(found, [LENT]);
    }

    #[test]
    fn a_machine_that_cannot_do_it_is_found() {
        let found = rules(|booking, _| booking.order.as_mut().expect("an order").route[0].tolerance_um = 1);
        assert_eq!(found, [ABLE]);
    }

    #[test]
    fn an_operation_before_its_part_is_there_is_found() {
        let found = rules(|booking, plan| {
            let start_s = booking.assignments[0].end_s;
            for place in [Some(&mut booking.assignments[1]), plan.entries[1].assignment.as_mut()] {
                place.expect("a place").start_s = start_s;
            }
        });
        assert_eq!(found, [CHAIN]);
    }
}
