//! Millpool's solver: an instance goes in, a plan with a proven lower bound comes out.
//!
//! The map:
//!
//! - [`Instance`], [`Shop`], [`Job`] and their parts (`model`), read and written by `format`;
//! - [`Objective`]: what is minimised, measures and their weights; [`Resource`]: what operations need besides machines;
//! - [`Calendar`]: when a machine is open; [`Lines`]: what stands on each machine;
//! - [`place`]: Pareto-optimal placements of one job while the rest stands still. Quotes,
//!   construction, repair and search all go through it, and but for quotes what stands may make way (`way`);
//! - [`solve`]: starting plans (`greedy`), search (`state`, `search`), the integer master (`master`), a lower
//!   bound by pricing machine time (`bound`), and how they take turns (`run`);
//! - the makespan's own search and proofs, for flexible job shops (`makespan`);
//! - what machine time is worth by that (`prices`);
//! - where promises cannot be kept: a smallest set of them that clashes (`conflict`);
//! - [`explain`]: why a job is refused or late, and what would help;
//! - [`verify`]: the rules from the format's text alone.
//!
//! Invariants. `verify` shares no code with the search. Nothing here knows members, the wire or
//! consensus: this crate imports no other of the workspace. All times and costs are integers;
//! [`Instance::check`] bounds them so that no sum overflows. For a seed and an iteration limit the
//! result is the same on every run.

#[doc(hidden)]
pub mod bench;
mod bound;
mod calendar;
mod completions;
mod conflict;
mod explain;
mod fjs;
mod format;
mod front;
mod gantt;
mod greedy;
mod lines;
mod makespan;
mod master;
mod model;
mod objective;
mod place;
mod plan;
mod prices;
mod random;
mod resource;
mod run;
mod search;
mod solve;
mod state;
mod stragglers;
#[cfg(test)]
mod tiny;
mod verify;
mod way;
mod windows;

pub use calendar::Calendar;
pub use conflict::{Conflict, Overload, Short, Shortage};
pub use explain::{
    Change, Constraint, Ends, Exclusion, Explanation, ModeFate, OpExplained, Outcome, Overtime, Place,
    Relaxation, Relaxed, Unexplained, Verdict, Wait, explain,
};
pub use fjs::read_fjs;
pub use format::{INSTANCE_FORMAT, read_instance, read_json, write_json};
pub use gantt::gantt;
pub use lines::{Key, Lines, Occupation, Refusal};
pub use model::{FEN_MAX, Fixed, Instance, Job, Machine, Malformed, Mode, Op, SetupMatrix, Shop, TICK_MAX};
pub use objective::Objective;
pub use place::{Aim, Cost, Placement, Step, place, place_best};
pub use plan::{Assignment, Plan, Priced};
pub use prices::{ClassPrices, Prices};
pub use resource::{During, Need, Resource};
pub use solve::{Options, Part, Progress, Solution, SolveError, solve};
pub use stragglers::await_stragglers;
pub use verify::{Violation, verify};

/// First come, first served: what a plain planner would do. A yardstick, and never the plan.
pub fn first_come(instance: &Instance) -> Plan {
    state::State::load(instance, greedy::first_come(instance, &|| false)).plan()
}

/// A point or span of time, in ticks of the instance.
pub type Tick = i64;
/// Money, in fen.
pub type Fen = i64;
