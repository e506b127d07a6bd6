//! How many quotes, and how many bookings with everything that a coordinator does between its network and its log, one
//! core gives a second on the drawn alliance's plan: placement, the log entry's bytes there and back, the live state and
//! a replica's.
//!
//! `cargo run --release -p millpool-scheduler --example book_rate [MACHINES] [BOOKINGS]`

use millpool_alliance::command::{Caller, Request};
use millpool_alliance::registry::Role;
use millpool_alliance::{Command, Entry, Format, PrincipalId, Refusal, State};
use millpool_demo::alliance::{Alliance, Blueprint, TIME_ZONE};
use millpool_demo::small::Orders;
use millpool_proto::v1;
use millpool_scheduler::consensus::StateMachine as _;
use millpool_scheduler::planner::{pool::Pool, quote};
use millpool_scheduler::replica::Replica;
use millpool_scheduler::wire::{booking, command, registry};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A Monday, seconds since the Unix epoch.
const START_S: i64 = 1_767_571_200;

struct Bench {
    live: State,
    pool: Pool,
    replica: Replica,
    /// What each part took in all.
    placing: Duration,
    applying: Duration,
    coding: Duration,
    replicating: Duration,
}

fn apply(state: &mut State, role: Role, command: Command) -> Result<(), Refusal> {
    let caller = Caller { role, id: PrincipalId::trusted("bench") };
    let entry = Entry { at: START_S, caller, request: None, command };
    state.apply(state.revision() + 1, &entry).result.map(drop)
}

/// The drawn alliance with everything lent.
fn found(machines: usize) -> Result<State, Refusal> {
    let drawn = Alliance::new(Blueprint { seed: 1, machines, start_s: START_S, days: 90, own_permille: 0 });
    let mut state = State::default();
    let put = &mut |command| apply(&mut state, Role::Operator, command);
    for member in drawn.members {
        put(Command::PutMember { member: registry::read_member(member)?, expected_revision: 0 })?;
    }
    for plant in drawn.plants {
        put(Command::PutPlant { plant: registry::read_plant(plant)?, expected_revision: 0 })?;
    }
    for machine in drawn.machines {
        put(Command::PutMachine { machine: registry::read_machine(machine)?, expected_revision: 0 })?;
    }
    for offer in drawn.offers {
        let mut offer = registry::read_offer(offer)?;
        offer.expand(TIME_ZONE)?;
        put(Command::CreateOffer(offer))?;
    }
    Ok(state)
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    *total += begun.elapsed();
    done
}

impl Bench {
    fn candidates(
        &self,
        order: v1::Order,
        terms: Option<v1::Terms>,
    ) -> Result<Vec<quote::Candidate>, Refusal> {
        quote::candidates(&self.live, &self.pool, &booking::read_order(order)?, &booking::read_terms(terms)?)
    }

    fn book(&mut self, request: v1::BookRequest) -> Result<(), Refusal> {
        let order = Arc::new(booking::read_order(request.order.unwrap_or_default())?);
        let terms = booking::read_terms(request.terms)?;
        let best = timed(&mut self.placing, || quote::best(&self.live, &self.pool, &order, &terms))?;
        let caller = Caller { role: Role::Buyer, id: PrincipalId::trusted("bench") };
        let id = request.request_id;
        let entry = Entry {
            at: START_S,
            request: Some(Request { id, method: "/millpool.v1.BookingService/Book".into(), fingerprint: 1 }),
            command: Command::Book {
                buyer: caller.id.clone(),
                order,
                terms,
                placement: best.seats,
                hold_s: 0,
            },
            caller,
        };
        let revision = self.live.revision() + 1;
        timed(&mut self.applying, || {
            let outcome = self.live.apply(revision, &entry);
            outcome.changes.machines.iter().for_each(|m| self.pool.refresh(&self.live, m));
            outcome.result
        })?;
        let bytes = timed(&mut self.coding, || command::encode(&entry, Format::FIRST));
        let applied = timed(&mut self.replicating, || self.replica.apply(revision, &bytes));
        assert!(
            applied.is_ok_and(|applied| applied.reply.result.is_ok()),
            "the replica refuses what is placed"
        );
        Ok(())
    }
}

fn main() -> Result<(), Refusal> {
    let number = |at: usize, default: usize| {
        std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (machines, bookings) = (number(1, 300), number(2, 10_000));
    let live = found(machines)?;
    let pool = Pool::build(&live, START_S);
    let none = Duration::ZERO;
    let replica = Replica(live.clone(), Format::NEWEST);
    let mut bench =
        Bench { live, pool, replica, placing: none, applying: none, coding: none, replicating: none };
    let mut orders: Vec<Orders> = (0..64).map(|n| Orders::new(1, n, START_S, "bench")).collect();
    for n in 0..bookings {
        bench.book(orders[n % 64].request())?;
    }
    let longest = bench.live.stations().values().map(|s| s.line.len()).max().unwrap_or(0);
    let each = |total: Duration| total.as_micros() as f64 / bookings as f64;
    println!("{bookings} bookings on {machines} machines; the longest line has {longest} operations");
    println!(
        "microseconds each: placing {:.1}, live state and pool {:.1}, encoding {:.1}, a replica {:.1}",
        each(bench.placing),
        each(bench.applying),
        each(bench.coding),
        each(bench.replicating)
    );
    let begun = Instant::now();
    for n in 0..bookings {
        bench.candidates(orders[n % 64].order(), None)?;
    }
    println!("{:.0} quotes/s", bookings as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}
