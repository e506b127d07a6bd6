//! Options for an order on the live plan: none dominated in completion, price and carbon.

use super::pool::Pool;
use millpool_alliance::price::{Carbon, Price};
use millpool_alliance::{MachineId, Objective, Order, Reason, Refusal, State, Terms};
use millpool_solver as solver;

/// Most options of a quote.
pub const OPTIONS_MAX: usize = 6;

/// One way to make an order.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Machine and start of each operation.
    pub seats: Vec<(MachineId, i64)>,
    /// End of each operation, seconds since the Unix epoch.
    pub ends: Vec<i64>,
    /// Changeover of each operation, seconds.
    pub changeovers_s: Vec<i64>,
    /// When the last operation ends, seconds since the Unix epoch.
    pub completes_at: i64,
    /// What the buyer pays.
    pub price: Price,
    /// What it emits.
    pub carbon: Carbon,
    /// The measures by which it is the best.
    pub best_for: Vec<Objective>,
}

/// Options with what would be promised, as of a moment.
pub struct Quoted {
    /// The alliance's clock, seconds since the Unix epoch.
    pub now: i64,
    /// The options, soonest first, each with what would be promised, seconds since the Unix epoch.
    pub options: Vec<(Candidate, i64)>,
}

/// What is offered for `order` at `now`, seconds since the Unix epoch: at most [`OPTIONS_MAX`].
pub fn quoted(state: &State, pool: &Pool, order: &Order, now: i64) -> Result<Quoted, Refusal> {
    let now = state.now().max(now);
    order.check(now)?;
    let any = Terms { objective: Objective::Cheapest, promised_by: None, price_max_fen: None };
    // New work begins after now as the log entry will say it, not as the last one said it.
    let found = shortlist(candidates(&state.as_of(now), pool, order, &any)?);
    let promised = |c: Candidate| {
        let fastest = c.best_for.contains(&Objective::Fastest);
        let objective = if fastest { Objective::Fastest } else { Objective::Cheapest };
        let by = state.promise_by(order, &Terms { objective, ..any.clone() }, c.completes_at);
        (c, by)
    };
    Ok(Quoted { now, options: found.into_iter().map(promised).collect() })
}

/// Every undominated way to make `order` within `terms`, soonest first; refused with the reason if there
/// is none.
pub fn candidates(
    state: &State,
    pool: &Pool,
    order: &Order,
    terms: &Terms,
) -> Result<Vec<Candidate>, Refusal> {
    let placements = placements(state, pool, order, terms)?;
    let mut found: Vec<Candidate> =
        placements.iter().map(|p| candidate(state, pool, order, p)).collect::<Result<_, _>>()?;
    mark(&mut found, Objective::Fastest, |c| (c.completes_at, c.price.total_fen()));
    mark(&mut found, Objective::Cheapest, |c| (c.price.total_fen(), c.completes_at));
    mark(&mut found, Objective::Greenest, |c| (c.carbon.total_g(), c.price.total_fen()));
    Ok(found)
}

/// The way to make `order` that is best by the objective of `terms`, without the others: that is faster.
pub fn best(state: &State, pool: &Pool, order: &Order, terms: &Terms) -> Result<Candidate, Refusal> {
    let aim = match terms.objective {
        Objective::Fastest => solver::Aim::Soonest,
        Objective::Cheapest => solver::Aim::Cheapest,
        Objective::Greenest => solver::Aim::Greenest,
    };
    let job = pool.job_of_order(state, order, terms)?;
    match solver::place_best(&pool.shop, &pool.lines, &job, aim) {
        Some(placement) => candidate(state, pool, order, &placement),
        None => Err(nothing_fits(state, pool, order, terms, &job)),
    }
}

/// Every undominated placement of `order` within `terms`: at least one, else the refusal says why.
fn placements(
    state: &State,
    pool: &Pool,
    order: &Order,
    terms: &Terms,
) -> Result<Vec<solver::Placement>, Refusal> {
    let job = pool.job_of_order(state, order, terms)?;
    let found = solver::place(&pool.shop, &pool.lines, &job, solver::Cost::Charge);
    if found.is_empty() {
        return Err(nothing_fits(state, pool, order, terms, &job));
    }
    Ok(found)
}

/// At most [`OPTIONS_MAX`]: those that are best by some measure, and others between them.
pub fn shortlist(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    while candidates.len() > OPTIONS_MAX {
        // The option that lies closest in price to the one before it tells the buyer the least.
        let plain = (1..candidates.len()).filter(|&i| candidates[i].best_for.is_empty());
        let step =
            |i: &usize| (candidates[*i].price.total_fen() - candidates[*i - 1].price.total_fen()).abs();
        let Some(least) = plain.min_by_key(step) else { break };
        candidates.remove(least);
    }
    candidates
}

fn candidate(
    state: &State,
    pool: &Pool,
    order: &Order,
    placement: &solver::Placement,
) -> Result<Candidate, Refusal> {
    let seats = pool.seats(placement);
    let machines: Vec<MachineId> = seats.iter().map(|(machine, _)| machine.clone()).collect();
    let (price, carbon) = state.price(order, &machines)?;
    Ok(Candidate {
        seats,
        ends: placement.steps.iter().map(|s| pool.second(s.end)).collect(),
        changeovers_s: placement.steps.iter().map(|s| s.setup * millpool_alliance::TICK_S).collect(),
        completes_at: pool.second(placement.completion),
        price,
        carbon,
        best_for: Vec::new(),
    })
}

fn mark(candidates: &mut [Candidate], objective: Objective, by: impl Fn(&Candidate) -> (i64, i64)) {
    if let Some(best) = candidates.iter_mut().min_by_key(|c| by(c)) {
        best.best_for.push(objective);
    }
}

/// Why machines could make it and yet nothing fits: the deadline, the budget, or the open time.
fn nothing_fits(state: &State, pool: &Pool, order: &Order, terms: &Terms, job: &solver::Job) -> Refusal {
    let relaxed = |deadline, budget| {
        let job = solver::Job { deadline, budget, ..job.clone() };
        solver::place(&pool.shop, &pool.lines, &job, solver::Cost::Charge)
    };
    let soonest = relaxed(None, job.budget).first().map(|p| pool.second(p.completion));
    if let (Some(soonest), Some((field, latest))) =
        (soonest, tighter(("order.deadline_s", order.deadline), ("terms.promised_by_s", terms.promised_by)))
    {
        let accepted = format!("at least {soonest}, the soonest completion on the live plan");
        return Refusal::invalid(Reason::LaterThanTerms, field, latest, &accepted);
    }
    let cheapest = relaxed(job.deadline, None).iter().map(|p| p.cost).min();
    if let (Some(cheapest), Some((field, most))) = (
        cheapest,
        tighter(("order.budget_fen", order.budget_fen), ("terms.price_max_fen", terms.price_max_fen)),
    ) {
        let accepted = format!("at least {cheapest}, the lowest price on the live plan");
        return Refusal::invalid(Reason::PriceAboveTerms, field, most, &accepted);
    }
    let latest = pool.second(pool.horizon());
    Refusal::because(
        Reason::NoCapacity,
        format!(
            "no free time fits between now ({}) and {latest}, when the last offer ends, within the terms",
            state.now()
        ),
    )
}

/// The field that says the lower limit, and the limit.
fn tighter<'a>(a: (&'a str, Option<i64>), b: (&'a str, Option<i64>)) -> Option<(&'a str, i64)> {
    [a, b].into_iter().filter_map(|(field, limit)| limit.map(|l| (field, l))).min_by_key(|(_, limit)| *limit)
}
