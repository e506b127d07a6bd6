//! Draws an alliance's week from a seed, in the exchange format.
//!
//! `cargo run --release -p millpool-solver --example alliance_instance -- --machines 60 --seed 1 > week.json`

mod alliance;

use clap::Parser;
use millpool_solver::{first_come, write_json};
use std::path::PathBuf;

/// Draws an alliance's week.
#[derive(Parser)]
struct Arguments {
    /// How many machines it has.
    #[arg(long, default_value_t = 60)]
    machines: usize,
    /// What it is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many days it spans.
    #[arg(long, default_value_t = 7)]
    days: i64,
    /// Percent of the open time that the work asked for would fill.
    #[arg(long, default_value_t = 60)]
    asked: i64,
    /// Where the plan of somebody goes who serves first come, first served: each order when it arrives, each
    /// operation where it alone is cheapest.
    #[arg(long)]
    first_come: Option<PathBuf>,
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let instance = alliance::alliance(arguments.machines, arguments.seed, arguments.days, arguments.asked);
    println!("{}", write_json(&instance));
    match arguments.first_come {
        Some(path) => std::fs::write(path, first_come(&instance).write_json(&instance)),
        None => Ok(()),
    }
}
