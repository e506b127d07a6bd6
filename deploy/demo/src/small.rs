//! Small orders: a quarter of an hour on one machine, or on two, so that a pool of ninety days does not
//! fill up within a measurement.

use crate::alliance::{DAY_S, FAMILIES};
use millpool_proto::v1::{BookRequest, MachineClass, Objective, Operation, Order, Size, Terms};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Classes in the shares of the fleet, in percent.
const CLASSES: [(u32, MachineClass); 5] = [
    (19, MachineClass::Lathe),
    (19, MachineClass::Mill),
    (31, MachineClass::FiveAxis),
    (9, MachineClass::Grinder),
    (22, MachineClass::Cmm),
];

/// A source of orders, one for each client.
pub struct Orders {
    random: StdRng,
    start_s: i64,
    name: String,
    count: u64,
}

impl Orders {
    /// Orders of a buyer. `run` tells the request ids of this measurement from others'.
    pub fn new(seed: u64, number: usize, start_s: i64, run: &str) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        Self { random, start_s, name: format!("{run}-{number}"), count: 0 }
    }

    /// The next order.
    pub fn order(&mut self) -> Order {
        self.count += 1;
        let operations = if self.random.random_range(0..10) < 3 { 2 } else { 1 };
        let route = (0..operations).map(|_| self.operation()).collect();
        Order {
            reference: format!("{}-{}", self.name, self.count),
            quantity: self.random.random_range(1..=5),
            material: if self.random.random_range(0..2) == 0 { "aluminium" } else { "steel" }.to_owned(),
            size: Some(Size { x_mm: 120, y_mm: 80, z_mm: 40 }),
            mass_g: 2_000,
            route,
            due_s: self.start_s + 40 * DAY_S,
            ..Order::default()
        }
    }

    fn operation(&mut self) -> Operation {
        let mut at = self.random.random_range(0..100);
        let class = CLASSES.iter().find(|(share, _)| {
            let here = at < *share;
            at = at.saturating_sub(*share);
            here
        });
        Operation {
            class: class.map_or(MachineClass::FiveAxis, |(_, class)| *class).into(),
            setup_family: FAMILIES[self.random.random_range(0..FAMILIES.len())].to_owned(),
            setup_s: 300,
            run_s_per_piece: self.random.random_range(60..=180),
            ..Operation::default()
        }
    }

    /// The next order as a request to book it: the soonest, the cheapest or the greenest way, in turn at random.
    pub fn request(&mut self) -> BookRequest {
        let order = self.order();
        let objective =
            [Objective::Fastest, Objective::Cheapest, Objective::Greenest][self.random.random_range(0..3)];
        BookRequest {
            request_id: order.reference.clone(),
            order: Some(order),
            terms: Some(Terms { objective: objective.into(), ..Terms::default() }),
            ..BookRequest::default()
        }
    }
}
