//! Handles by which `benches/kernels.rs` times what is private: one call, one step. No part of the crate's interface.

use crate::bound::Bound;
use crate::greedy;
use crate::place::Placer;
use crate::search::Search;
use crate::state::State;
use crate::{Fen, Instance};

/// How far from hot to cold the tries are made.
const HALF_WAY: f64 = 0.5;
/// Jobs of a bound's pass at a time.
const JOBS: usize = 16;

/// One try of the search, from a plan that was inserted job by job.
pub fn tries(instance: &Instance) -> impl FnMut() + '_ {
    let mut state = State::empty(instance);
    let order = greedy::insertion_order(instance);
    greedy::insert_all(&mut state, &mut Placer::default(), &order, &|| false);
    let mut search = Search::new(state, 1);
    move || {
        search.attempt(HALF_WAY);
    }
}

/// One move of the tabu search, from a dispatched start.
pub fn moves(instance: &Instance) -> impl FnMut() + use<> {
    crate::makespan::moves(instance)
}

/// One pass of the bound over all machines and jobs, towards the cost of a plan.
pub fn passes(instance: &Instance, incumbent: Fen) -> impl FnMut() + '_ {
    let mut bound = Bound::new(instance);
    move || while !bound.work(JOBS, incumbent, HALF_WAY, &mut |_, _| ()) {}
}
