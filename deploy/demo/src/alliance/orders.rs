//! What buyers want made: short routes over the classes of machine, most of them possible.

use super::{Alliance, BUYERS, DAY_S, FAMILIES, happens, pick};
use millpool_proto::v1::{MachineClass, Objective, Operation, Order, Size};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use MachineClass::{Cmm, FiveAxis, Grinder, Lathe, Mill};

/// The routes and their weights.
const ROUTES: [(u32, &[MachineClass]); 6] = [
    (30, &[FiveAxis]),
    (22, &[Lathe, FiveAxis, Cmm]),
    (16, &[Mill, FiveAxis]),
    (12, &[Lathe, Mill, Grinder, Cmm]),
    (12, &[Mill, Cmm]),
    (8, &[Lathe, Grinder]),
];

/// How a buyer goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Asks for options and books the one that is best by a measure.
    Quoted(Objective),
    /// Books in one step, within the order's terms.
    Direct(Objective),
    /// Holds capacity and confirms it after a while.
    HeldAndConfirmed,
    /// Holds capacity and lets it run out.
    HeldAndForgotten,
    /// Books, and cancels after a while.
    Cancelled,
}

/// One order of one buyer, with its times counted from the alliance's start.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The buyer.
    pub buyer: &'static str,
    /// How it is booked.
    pub intent: Intent,
    /// The order, but for its times.
    order: Order,
    /// Earliest start, seconds from the alliance's first second.
    release_s: i64,
    /// From the earliest start to the time wanted, seconds.
    slack_s: i64,
    /// From the time wanted to the deadline, seconds; none without.
    deadline_s: Option<i64>,
}

impl Wish {
    /// The order as it is asked for at `now_s` of an alliance that began at `start_s`.
    pub fn order(&self, start_s: i64, now_s: i64) -> Order {
        let release_s = start_s + self.release_s;
        let begin_s = release_s.max(now_s);
        let due_s = begin_s + self.slack_s;
        Order {
            release_s: if release_s > now_s { release_s } else { 0 },
            due_s,
            deadline_s: self.deadline_s.map_or(0, |later_s| due_s + later_s),
            ..self.order.clone()
        }
    }
}

/// The first `count` wishes for an alliance. About one of thirty cannot be met by anybody.
pub fn wishes(alliance: &Alliance, count: usize) -> Vec<Wish> {
    // Another stream than the alliance's own, so that more orders do not change it.
    let mut random = StdRng::seed_from_u64(alliance.blueprint.seed ^ 0x6f72_6465_7273);
    (0..count).map(|index| wish(&mut random, alliance, index)).collect()
}

fn wish(random: &mut StdRng, alliance: &Alliance, index: usize) -> Wish {
    let urgent = happens(random, 250);
    let classes = pick(random, &ROUTES);
    let quantity = pick(random, &[(15, 1), (15, 2), (20, 5), (20, 10), (15, 20), (10, 50), (5, 100)]);
    let material = pick(random, &[(35, 0), (30, 1), (15, 2), (8, 3), (12, 4)]);
    let certificate =
        pick(random, &[(70, ""), (14, "ISO9001"), (6, "IATF16949"), (7, "AS9100"), (3, "ISO13485")]);
    let family = random.random_range(0..FAMILIES.len());
    let mut work_s = 0;
    let operation = |(k, class): (usize, &MachineClass)| {
        let minutes = minutes(random, urgent);
        let (setup_s, run_s) = (60 * random.random_range(10..=30), (60 * minutes / quantity).max(1));
        work_s += i64::from(setup_s + run_s * quantity);
        Operation {
            class: (*class).into(),
            axes_min: if *class == FiveAxis { 5 } else { 0 },
            tolerance_um: tolerance_um(random, *class),
            certificates: (!certificate.is_empty()).then(|| certificate.to_owned()).into_iter().collect(),
            setup_family: FAMILIES[(family + k) % FAMILIES.len()].to_owned(),
            setup_s,
            run_s_per_piece: run_s,
            splittable: minutes > 300 || happens(random, 100),
        }
    };
    let route: Vec<Operation> = classes.iter().enumerate().map(operation).collect();
    let size = Size {
        x_mm: random.random_range(40..=450),
        y_mm: random.random_range(30..=300),
        z_mm: random.random_range(10..=200),
    };
    let order = Order {
        reference: format!("order {:04}", index + 1),
        quantity,
        material: super::MATERIALS[material].to_owned(),
        mass_g: (u64::from(size.x_mm) * u64::from(size.y_mm) * u64::from(size.z_mm) * 3 / 1_000_000 + 1)
            * 1000,
        size: Some(size),
        route,
        ..Order::default()
    };
    let release_s = if urgent { 0 } else { release_s(random, alliance.blueprint.days) };
    let leisure_permille = random.random_range(2400..=5600);
    let operations = classes.len() as i64;
    let slack_s = 6 * 3600 + (work_s + 3600 * operations) * leisure_permille / 1000;
    let wish = Wish {
        buyer: BUYERS[index % BUYERS.len()],
        intent: intent(random),
        order,
        release_s,
        slack_s,
        deadline_s: happens(random, 250).then_some(3 * DAY_S),
    };
    finish(random, alliance, wish, work_s)
}

/// Machine time of an operation, minutes: two to three hours in the middle, with a long tail.
fn minutes(random: &mut StdRng, urgent: bool) -> u32 {
    // The sum of four is close enough to a bell for a demonstration.
    let bell: f64 = (0..4).map(|_| random.random::<f64>()).sum::<f64>() - 2.0;
    let long = 165.0 * (bell * 0.95).exp();
    let minutes = (long as u32).clamp(20, 480);
    if urgent { (minutes / 3).max(15) } else { minutes }
}

fn tolerance_um(random: &mut StdRng, class: MachineClass) -> u32 {
    match class {
        Lathe => pick(random, &[(50, 0), (30, 25), (20, 16)]),
        Mill => pick(random, &[(50, 0), (30, 30), (20, 20)]),
        FiveAxis => pick(random, &[(40, 0), (30, 20), (20, 12), (10, 9)]),
        Grinder => pick(random, &[(50, 0), (50, 5)]),
        _ => pick(random, &[(60, 0), (30, 3), (10, 2)]),
    }
}

/// Earliest start: sooner rather than later, within the first three fifths of the time lent.
fn release_s(random: &mut StdRng, days: i64) -> i64 {
    let share = random.random::<f64>().powf(1.4);
    (share * (days * DAY_S) as f64 * 0.6) as i64 / 900 * 900
}

fn intent(random: &mut StdRng) -> Intent {
    let measure =
        pick(random, &[(50, Objective::Cheapest), (35, Objective::Fastest), (15, Objective::Greenest)]);
    pick(
        random,
        &[
            (45, Intent::Quoted(measure)),
            (40, Intent::Direct(measure)),
            (8, Intent::HeldAndConfirmed),
            (3, Intent::HeldAndForgotten),
            (4, Intent::Cancelled),
        ],
    )
}

/// Adds what only some orders have: a budget, plants that shall not make it, and now and then something
/// that nobody can do.
fn finish(random: &mut StdRng, alliance: &Alliance, mut wish: Wish, work_s: i64) -> Wish {
    if happens(random, 100) {
        let count = random.random_range(1..=3);
        let any = |_| alliance.plants[random.random_range(0..alliance.plants.len())].id.clone();
        wish.order.excluded_plants = (0..count).map(any).collect();
    }
    if happens(random, 150) {
        // At the dearest rate, with something for setups and transport.
        wish.order.budget_fen = work_s * 50_000 / 3600 + 150_000;
    }
    if happens(random, 33) {
        impossible(random, &mut wish);
    }
    wish
}

fn impossible(random: &mut StdRng, wish: &mut Wish) {
    match random.random_range(0..5) {
        0 => wish.order.material = "tungsten".to_owned(),
        1 => wish.order.size = Some(Size { x_mm: 4200, y_mm: 1800, z_mm: 900 }),
        2 => wish.order.route[0].certificates = vec!["NADCAP".to_owned()],
        3 => wish.order.budget_fen = 500,
        _ => (wish.release_s, wish.slack_s, wish.deadline_s) = (0, 1200, Some(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Blueprint;
    use super::*;

    #[test]
    fn wishes_repeat_and_the_first_ones_do_not_depend_on_how_many_there_are() {
        let alliance = Alliance::new(Blueprint::demo(1, 1_764_540_000));
        let (few, many) = (wishes(&alliance, 10), wishes(&alliance, 100));
        for (one, other) in few.iter().zip(&many) {
            assert_eq!(one.order(0, 0), other.order(0, 0));
        }
    }

    #[test]
    fn most_orders_can_be_made_by_some_machine_and_a_few_cannot() {
        let alliance = Alliance::new(Blueprint::demo(1, 1_764_540_000));
        let able = |order: &Order, operation: &Operation| {
            alliance.machines.iter().any(|machine| {
                machine.class == operation.class
                    && machine.materials.contains(&order.material)
                    && (operation.tolerance_um == 0 || machine.tolerance_um <= operation.tolerance_um)
                    && operation.certificates.iter().all(|name| machine.certificates.contains(name))
            })
        };
        let wishes = wishes(&alliance, 1000);
        let orders = wishes.iter().map(|wish| wish.order(alliance.blueprint.start_s, 0));
        let possible =
            orders.filter(|order| order.route.iter().all(|operation| able(order, operation))).count();
        assert!((900..1000).contains(&possible), "{possible} of 1000");
    }

    #[test]
    fn an_order_is_wanted_after_its_release_and_after_now() {
        let alliance = Alliance::new(Blueprint::demo(1, 1_764_540_000));
        for wish in wishes(&alliance, 200) {
            for now_s in [alliance.blueprint.start_s, alliance.blueprint.start_s + 8 * DAY_S] {
                let order = wish.order(alliance.blueprint.start_s, now_s);
                assert!(order.due_s > now_s.max(order.release_s));
                assert!(order.deadline_s == 0 || order.deadline_s >= order.due_s);
            }
        }
    }
}
