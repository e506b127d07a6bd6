//! Quotes from any node: on the plan as this node has applied it, which the leader's may be ahead of.
//!
//! A quote is not a reservation, so one that is some milliseconds old is as good as one that was read a moment ago. With
//! these, followers take quotes off the leader.

use super::pool::Pool;
use super::quote::{self, Quoted};
use millpool_alliance::{Order, Refusal, State};
use std::sync::{Arc, Mutex, PoisonError};

/// The pool beside the applied state. Cheap to clone.
#[derive(Clone, Default)]
pub struct Quotes(Arc<Mutex<Option<Pool>>>);

impl Quotes {
    /// Options for an order on `state`. The machines that have changed since the last quote are taken over first.
    pub fn quote(&self, state: &State, order: &Order, now: i64) -> Result<Quoted, Refusal> {
        // One that stumbled has left no pool behind.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = match kept.take().filter(|pool| pool.same_registry(state)) {
            Some(mut pool) => {
                pool.catch_up(state);
                pool
            }
            None => Pool::build(state, state.now()),
        };
        quote::quoted(state, kept.insert(pool), order, now)
    }
}
