//! What the demonstration, load runs and fault runs share: the demo alliance, a cluster of real processes, and
//! the checks that hold its answers against what it did afterwards.
//!
//! - [`alliance`]: 23 members, their plants, machines, offers and orders, drawn from a seed.
//! - [`clock`]: the alliance's clock, which may run faster than the wall's.
//! - [`cluster`]: three coordinators as processes; [`agents`]: the plants' agents as a process.
//! - [`interrupt`]: breaking off.
//! - [`setup`]: the alliance, put through the public API.
//! - [`small`]: small orders, where many are needed.
//! - [`ledger`]: what clients were told; [`checks`]: whether it is so.
//!
//! Only the contract and its client are known here. **Invariant:** no check shares code with the
//! coordinator or the solver: what is held against the plan is written anew, from the contract.

pub mod agents;
pub mod alliance;
pub mod checks;
pub mod clock;
pub mod cluster;
pub mod interrupt;
pub mod ledger;
pub mod setup;
pub mod small;
