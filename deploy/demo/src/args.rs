//! The command line.

use clap::Parser;
use std::path::PathBuf;

/// An alliance of 23 members on this machine: three coordinators, the plants' agents with simulated
/// machines, and buyers; the leader is killed once; at the end everything that was promised is checked.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "millpool-demo",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  millpool-demo                 runs until Ctrl-C, and prints commands to try meanwhile
  millpool-demo --seconds 90    ends by itself

Exit codes: 0 every promise and invariant held, 1 one did not and is named, 2 it could not be carried out."
)]
pub(crate) struct Args {
    /// End after this many seconds, checks included; without it, run until Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(20..=86_400))]
    pub(crate) seconds: Option<u64>,
    /// Orders that the buyers place
    #[arg(long, value_name = "N", default_value_t = 720)]
    pub(crate) orders: usize,
    /// Everything that is drawn comes from this number
    #[arg(long, value_name = "K", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Seconds of the alliance in one second
    #[arg(long, value_name = "X", default_value_t = 600, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    pub(crate) scale: i64,
    /// Keep the coordinators' and the agents' storage after the end; logs and plan.svg are always kept
    #[arg(long)]
    pub(crate) keep: bool,
    /// Folder for storage, logs and plan.svg; made anew
    #[arg(long, value_name = "DIR", default_value = ".demo")]
    pub(crate) data: PathBuf,
}
