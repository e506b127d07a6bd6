//! A small alliance with work in it: what bytes are read against, and what seeds are made of.

use millpool_alliance::command::{Caller, Event, Happening, Request};
use millpool_alliance::line::MachineState;
use millpool_alliance::registry::Role;
use millpool_alliance::{Command, Entry, Format, PlantId, PrincipalId, State};
use millpool_demo::alliance::{Alliance, Blueprint, TIME_ZONE};
use millpool_demo::small::Orders;
use millpool_proto::v1;
use millpool_scheduler::planner::{pool::Pool, quote};
use millpool_scheduler::wire::{booking, registry};
use std::sync::{Arc, OnceLock};

/// A Monday, seconds since the Unix epoch.
pub const START_S: i64 = 1_767_571_200;
/// Plants of it.
const PLANTS: usize = 3;
/// Bookings, every other one by another buyer.
const BOOKINGS: usize = 6;

/// The alliance, and every entry that made it.
pub struct Sample {
    /// The state after them.
    pub state: State,
    /// The entries, oldest first.
    pub entries: Vec<Entry>,
    /// Orders as they are asked for.
    pub requests: Vec<v1::BookRequest>,
}

/// Made once.
pub fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(Sample::make)
}

impl Sample {
    fn make() -> Sample {
        let mut sample = Sample { state: State::default(), entries: Vec::new(), requests: Vec::new() };
        sample.found();
        sample.book();
        sample
    }

    fn put(&mut self, role: Role, id: &str, command: Command) {
        let caller = Caller { role, id: PrincipalId::trusted(id) };
        let number = self.entries.len() + 1;
        let request =
            Request { id: format!("r-{number}"), method: "/sample".into(), fingerprint: number as u64 };
        let entry = Entry { at: START_S, caller, request: Some(request), command };
        let outcome = self.state.apply(number as u64, &entry);
        outcome.result.expect("the sample's own entries are accepted");
        self.entries.push(entry);
    }

    fn found(&mut self) {
        let drawn =
            Alliance::new(Blueprint { seed: 1, machines: 23, start_s: START_S, days: 3, own_permille: 0 });
        let plants: Vec<_> = drawn.plants.into_iter().take(PLANTS).collect();
        let is_of = |plant: &str| plants.iter().any(|p: &v1::Plant| p.id == plant);
        let machines: Vec<_> = drawn.machines.into_iter().filter(|m| is_of(&m.plant_id)).collect();
        let offers: Vec<_> =
            drawn.offers.into_iter().filter(|o| machines.iter().any(|m| m.id == o.machine_id)).collect();
        self.put(Role::Operator, "operator", Command::RaiseFormat { to: Format::NEWEST });
        for member in drawn.members.into_iter().filter(|m| plants.iter().any(|p| p.member_id == m.id)) {
            let member = registry::read_member(member).expect("a member");
            self.put(Role::Operator, "operator", Command::PutMember { member, expected_revision: 0 });
        }
        for plant in plants {
            let plant = registry::read_plant(plant).expect("a plant");
            self.put(Role::Operator, "operator", Command::PutPlant { plant, expected_revision: 0 });
        }
        for machine in machines {
            let machine = registry::read_machine(machine).expect("a machine");
            self.put(Role::Operator, "operator", Command::PutMachine { machine, expected_revision: 0 });
        }
        for offer in offers {
            let mut offer = registry::read_offer(offer).expect("an offer");
            offer.expand(TIME_ZONE).expect("windows");
            self.put(Role::Operator, "operator", Command::CreateOffer(offer));
        }
    }

    fn book(&mut self) {
        let mut orders = Orders::new(1, 0, START_S, "sample");
        let mut booked = 0;
        while booked < BOOKINGS {
            let request = orders.request();
            let order =
                Arc::new(booking::read_order(request.order.clone().unwrap_or_default()).expect("an order"));
            let terms = booking::read_terms(request.terms).expect("terms");
            let pool = Pool::build(&self.state, START_S);
            // Not every order finds a machine in so small an alliance.
            let Ok(best) = quote::best(&self.state, &pool, &order, &terms) else { continue };
            let buyer = PrincipalId::trusted(if booked % 2 == 0 { "ada" } else { "ben" });
            let hold_s = if booked % 3 == 0 { 600 } else { 0 };
            let who = buyer.to_string();
            let placement = best.seats;
            self.put(Role::Buyer, &who, Command::Book { buyer, order, terms, placement, hold_s });
            self.requests.push(request);
            booked += 1;
        }
        let plant = self.state.plants().values().next().expect("a plant").id.clone();
        self.attach(plant);
    }

    fn attach(&mut self, plant: PlantId) {
        let (who, outbox) = (plant.to_string(), "outbox-1".to_owned());
        let attach =
            Command::AttachAgent { plant: plant.clone(), agent: "agent-1".into(), outbox: outbox.clone() };
        self.put(Role::Agent, &who, attach);
        let station = self.state.stations().values().find(|s| s.machine.plant == plant).expect("a machine");
        let machine = station.id().clone();
        let events = vec![Event { seq: 1, at: START_S, machine, what: Happening::State(MachineState::Idle) }];
        self.put(Role::Agent, &who, Command::Report { plant: plant.clone(), outbox, events });
        self.put(Role::Operator, "operator", Command::NoteSilence { plant, since: Some(START_S) });
    }
}
