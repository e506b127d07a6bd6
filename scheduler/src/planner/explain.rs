//! Why a booking is where it is, why an order finds no place, and what would help: the same search, with
//! one constraint relaxed at a time.

use super::pool::Pool;
use super::quote::{self, Candidate};
use millpool_alliance::{
    Booking, Objective, Obstacle, Order, PlantId, Refusal, State, Terms, eligibility, price,
};
use millpool_solver as solver;
use std::sync::Arc;

/// About what.
#[derive(Clone, Debug)]
pub enum Question {
    /// A booking.
    Booking(Arc<Booking>),
    /// An order that has not been booked.
    Order(Arc<Order>),
}

/// What one relaxation would bring.
#[derive(Clone, Debug)]
pub struct Relaxation {
    /// What would have to give.
    pub what: String,
    /// Planned completion with it, seconds since the Unix epoch.
    pub completes_at: i64,
    /// Price with it, fen.
    pub price_fen: i64,
}

/// Why, and what would help.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    /// In sentences, the most binding first.
    pub reasons: Vec<String>,
    /// Which requirements exclude which machines.
    pub obstacles: Vec<Obstacle>,
    /// What would help, cheapest first.
    pub relaxations: Vec<Relaxation>,
}

/// Explains. Names no other party.
pub fn explain(state: &State, pool: &Pool, question: &Question) -> Result<Explanation, Refusal> {
    let (order, booking) = match question {
        Question::Booking(booking) => (&booking.order, Some(booking)),
        Question::Order(order) => {
            order.check(state.now())?;
            (order, None)
        }
    };
    let mut said = Explanation::default();
    for k in 0..order.route.len() {
        let machines = state.stations().values().map(|s| &*s.machine);
        said.obstacles.extend(eligibility::obstacles(order, k, machines));
    }
    let now_best = match booking {
        Some(booking) => stands(state, booking, &mut said.reasons),
        None => fits(state, pool, order, &mut said.reasons),
    };
    if now_best.is_some() || booking.is_none() {
        bottleneck(state, pool, order, &mut said.reasons);
    }
    relax(state, pool, order, now_best, &mut said.relaxations);
    Ok(said)
}

/// Says where a booking stands; answers with completion and price.
fn stands(state: &State, booking: &Booking, reasons: &mut Vec<String>) -> Option<(i64, i64)> {
    for d in booking.disturbances.iter().rev().take(3) {
        reasons.push(format!("operation {} lost its place: {:?}, {}", d.operation, d.kind, d.reason));
    }
    let completes_at = booking.completes_at()?;
    let late = booking.lateness_s().unwrap_or(0);
    reasons.push(match late {
        0 => format!("it completes {} before its promise", duration(booking.promise.by - completes_at)),
        _ => format!("it completes {} after its promise", duration(late)),
    });
    let waits: Vec<(usize, i64)> = waits(state, booking);
    if let Some((k, wait)) = waits.iter().max_by_key(|(_, wait)| *wait).filter(|(_, wait)| *wait > 0) {
        reasons.push(format!("its longest wait is {}, before operation {k}", duration(*wait)));
    }
    Some((completes_at, booking.promise.price.total_fen()))
}

/// How long each step waits for its machine after its part is there, seconds.
fn waits(state: &State, booking: &Booking) -> Vec<(usize, i64)> {
    let mut ready = booking.order.release.max(booking.created_at);
    let mut found = Vec::new();
    let mut before = None;
    for (k, step) in booking.steps.iter().enumerate() {
        let Some(place) = &step.place else { continue };
        if let Some(from) = before {
            ready += state.trip(from, &place.machine).seconds;
        }
        found.push((k, place.start - ready));
        (ready, before) = (place.end, Some(&place.machine));
    }
    found
}

/// Says whether an order fits now; answers with the soonest completion and its price.
fn fits(state: &State, pool: &Pool, order: &Order, reasons: &mut Vec<String>) -> Option<(i64, i64)> {
    match quote::candidates(state, pool, order, &terms()) {
        Ok(found) => {
            let first = found.first()?;
            let late = first.completes_at - order.due;
            reasons.push(match late > 0 {
                true => format!("the soonest completion is {} after the due date", duration(late)),
                false => format!("it fits, {} before the due date at the soonest", duration(-late)),
            });
            Some((first.completes_at, first.price.total_fen()))
        }
        Err(refusal) => {
            reasons.push(refusal.message);
            None
        }
    }
}

/// Says which class of machine is the scarcest on the route, and what part of it is booked.
fn bottleneck(state: &State, pool: &Pool, order: &Order, reasons: &mut Vec<String>) {
    let until = order.deadline.unwrap_or(order.due).max(state.now() + 1);
    let scarcest = order
        .route
        .iter()
        .enumerate()
        .filter_map(|(k, operation)| {
            let eligible =
                state.stations().values().filter(|s| eligibility::eligible(order, operation, &s.machine));
            let (mut open, mut booked) = (0, 0);
            for station in eligible {
                let windows: Vec<_> = station.open.between(state.now(), until).collect();
                open += windows.iter().map(|w| w.length()).sum::<i64>();
                booked += station
                    .line
                    .iter()
                    .flat_map(|o| station.open.between(o.start.max(state.now()), o.end.min(until)))
                    .map(|w| w.length())
                    .sum::<i64>();
            }
            (open > 0).then(|| (booked * 100 / open, k, operation.class))
        })
        .max();
    if let Some((percent, k, class)) = scarcest {
        reasons.push(format!(
            "operation {k} ({}) is the tightest: {percent} % of the open time of the machines that could do it is booked until then",
            class.name()
        ));
    }
    let alone = ideal_s(pool, state, order);
    if let Some(seconds) = alone {
        reasons.push(format!("on an empty pool it would take {} from its release", duration(seconds)));
    }
}

/// How long the order takes from its release if it had the pool to itself, seconds.
fn ideal_s(pool: &Pool, state: &State, order: &Order) -> Option<i64> {
    let order = Order { deadline: None, budget_fen: None, ..order.clone() };
    let job = pool.job_of_order(state, &order, &terms()).ok()?;
    let empty = solver::Lines::new(&pool.shop);
    let first = solver::place(&pool.shop, &empty, &job, solver::Cost::Charge).into_iter().next()?;
    Some(pool.second(first.completion) - order.release.max(state.now()))
}

fn terms() -> Terms {
    Terms { objective: Objective::Fastest, promised_by: None, price_max_fen: None }
}

/// Tries one relaxation at a time, and keeps those that bring an earlier or a cheaper option.
fn relax(
    state: &State,
    pool: &Pool,
    order: &Order,
    now_best: Option<(i64, i64)>,
    found: &mut Vec<Relaxation>,
) {
    let mut attempts: Vec<(String, Order)> = Vec::new();
    if order.deadline.is_some() {
        attempts.push(("deadline_s".into(), Order { deadline: None, ..order.clone() }));
    }
    if order.budget_fen.is_some() {
        attempts.push(("budget_fen".into(), Order { budget_fen: None, ..order.clone() }));
    }
    if !order.excluded_plants.is_empty() {
        let none: std::collections::BTreeSet<PlantId> = Default::default();
        attempts.push(("excluded_plants".into(), Order { excluded_plants: none, ..order.clone() }));
    }
    for k in 0..order.route.len() {
        let mut with = |name: &str, edit: fn(&mut millpool_alliance::Operation)| {
            let mut relaxed = order.clone();
            edit(&mut relaxed.route[k]);
            if relaxed.route[k] != order.route[k] {
                attempts.push((format!("{name} of operation {k}"), relaxed));
            }
        };
        with("tolerance_um", |op| op.tolerance_um = 0);
        with("axes_min", |op| op.axes_min = 0);
        with("certificates", |op| op.certificates.clear());
        with("splittable", |op| op.splittable = true);
    }
    for (what, relaxed) in attempts {
        let Ok(options) = quote::candidates(state, pool, &relaxed, &terms()) else { continue };
        if let Some(better) = options.iter().find(|c| improves(c, now_best)) {
            found.push(Relaxation {
                what,
                completes_at: better.completes_at,
                price_fen: better.price.total_fen(),
            });
        }
    }
    found.sort_by_key(|r| (r.price_fen, r.completes_at));
}

fn improves(candidate: &Candidate, now_best: Option<(i64, i64)>) -> bool {
    now_best.is_none_or(|(completes_at, fen)| {
        candidate.completes_at < completes_at || candidate.price.total_fen() < fen
    })
}

fn duration(seconds: i64) -> String {
    let minutes = price::div_up(seconds.max(0), 60);
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, m) => format!("{m} min"),
        (0, h, m) => format!("{h} h {m} min"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}
