//! The coordinator, `millpool-scheduler`.
//!
//! A write's way: [`api`] reads it and makes out who asks, [`planner`] places it on the live plan,
//! [`consensus`] replicates it, [`replica`] applies it on every node, [`watch`] tells whoever follows.
//! [`wire`] maps messages to the alliance's types and back; [`config`] and [`serve`] start and stop it all;
//! [`upgrade`] goes on to a newer format, [`recovery`] begins again from a backup;
//! [`meters`] tells how it fares, [`today`] what the plants did, and [`planted`] has bugs that the simulation must find.

pub mod api;
pub mod clock;
pub mod config;
pub mod consensus;
pub mod meters;
pub mod planner;
pub mod planted;
pub mod recovery;
pub mod replica;
pub mod serve;
pub mod today;
pub mod upgrade;
pub mod watch;
pub mod wire;
