//! The command line.

use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// Breaks a cluster of three real coordinators in many ways, and checks what must hold.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "millpool-faults",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  millpool-faults                                  every scenario
  millpool-faults --list                           what they are
  millpool-faults --only kill-one --rounds 100     a hundred deaths under load
  millpool-faults --only kill-one --plant lose     a check that must fail

Some scenarios need root, and the commands that the message names where one is missing: they make network
namespaces and small filesystems, and remove them again.

Exit codes: 0 all held, 1 something broke, 2 a scenario could not be carried out."
)]
pub(crate) struct Args {
    /// Only the scenarios whose names begin like this
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Option<String>,
    /// How often each fault strikes [default: as --list says]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) rounds: Option<usize>,
    /// What is drawn comes from this number; what the processes make of it does not
    #[arg(long, value_name = "K", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Keep storage and logs of the scenarios that held, too
    #[arg(long)]
    pub(crate) keep: bool,
    /// Say what the scenarios are, and run none
    #[arg(long)]
    pub(crate) list: bool,
    /// Plant something that must be found: the run must then end with exit code 1
    #[arg(long, value_name = "BUG")]
    pub(crate) plant: Option<Plant>,
    /// A former version's millpool-scheduler, for rolling-upgrade [default: this one, held at the former format]
    #[arg(long, value_name = "FILE")]
    pub(crate) former: Option<PathBuf>,
    /// Folder for storage and logs [default: a new one under the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// What can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plant {
    /// A booking is taken for acknowledged that nobody has made
    Lose,
    /// A node dies that nobody has killed
    Die,
    /// After the fault no majority comes back
    Deaf,
    /// A damaged log is cut before the damage, and the node is kept from knowing (scenario `damage`)
    Swallow,
}
