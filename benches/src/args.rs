//! The command line.

use clap::Parser;
use std::path::PathBuf;

/// Measures a cluster of three coordinators on this machine, or one that is pointed to.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "millpool-load",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  millpool-load                                bookings, quotes and reads at 1, 16 and 64 clients
  millpool-load --clients 16 --machines 300    a larger pool
  millpool-load --clients 16 --rate 300        also 300 arrivals a second, whoever still waits
  millpool-load --beside-etcd 3                three repeats beside etcd, which must be installed
  millpool-load --kills 10                     the leader killed ten times under load
  millpool-load --agents 300                   300 plants' agents, 3,000 changes of state a second
  millpool-load --agents 300 --scale 10000     the same, in an alliance whose days take nine seconds
  millpool-load --failures 200 --machines 300  machines that fail: until every plant and buyer knows
  millpool-load --overload 10                  ten times more than it bears
  millpool-load --soak 30 --machines 300       half an hour of most of what it bears
  millpool-load --year 200000 --machines 300   a year's bookings known: snapshots and starts

Latencies are a client's own, retries included. In the closed loop a client asks again at once (think time
0); with --rate the clock starts when the request was meant to be sent, so that waiting is not left out.

Exit codes: 0 done, 2 it could not be carried out."
)]
pub(crate) struct Args {
    /// Coordinators to measure, in the alliance that they have; without it, three are started
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', conflicts_with = "kills")]
    pub(crate) endpoints: Vec<String>,
    /// Clients at once, one measurement each
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,16,64")]
    pub(crate) clients: Vec<usize>,
    /// Length of a measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 8)]
    pub(crate) seconds: u64,
    /// Before each measurement, unmeasured
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    pub(crate) warm_up: u64,
    /// Arrivals a second in an open loop, after the closed ones
    #[arg(long, value_name = "R")]
    pub(crate) rate: Option<u32>,
    /// Kill the leader this often under load, and measure the time without a write
    #[arg(long, value_name = "N")]
    pub(crate) kills: Option<usize>,
    /// Bookings and puts into three members of etcd in turn, this often; medians are shown
    #[arg(long, value_name = "REPEATS", conflicts_with_all = ["endpoints", "kills"])]
    pub(crate) beside_etcd: Option<usize>,
    /// Agents of so many plants, each of ten machines with a change of state a second
    #[arg(long, value_name = "PLANTS", conflicts_with_all = ["endpoints", "kills", "beside_etcd"])]
    pub(crate) agents: Option<usize>,
    /// Seconds of the alliance in one of the wall, with --agents: in a minute, what a week leaves behind
    #[arg(long, value_name = "FACTOR", default_value_t = 1, requires = "agents", value_parser = clap::value_parser!(i64).range(1..=100_000))]
    pub(crate) scale: i64,
    /// Let so many machines fail, one after the other, and see how soon everybody knows what comes of it
    #[arg(long, value_name = "N", conflicts_with_all = ["endpoints", "kills", "beside_etcd", "agents"])]
    pub(crate) failures: Option<usize>,
    /// Offer so many times what is got done at most, asked once, and see what still is
    #[arg(long, value_name = "FACTOR", conflicts_with_all = ["endpoints", "kills", "beside_etcd"])]
    pub(crate) overload: Option<u32>,
    /// Offer seven tenths of what is got done at most for so long, and look at the nodes every minute
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["endpoints", "kills", "beside_etcd", "overload"])]
    pub(crate) soak: Option<u64>,
    /// Make so many bookings, most of which are over, and measure snapshots and starts beside them
    #[arg(long, value_name = "BOOKINGS", conflicts_with_all = ["endpoints", "kills", "beside_etcd", "overload", "soak"])]
    pub(crate) year: Option<u64>,
    /// Machines of the alliance
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(23..=5000))]
    pub(crate) machines: usize,
    /// Everything that is drawn comes from this number
    #[arg(long, value_name = "K", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Time of a background optimisation, ms; 0 switches them off
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    pub(crate) optimise_for_ms: u64,
    /// Spread clients over all nodes instead of preferring the leader
    #[arg(long)]
    pub(crate) spread: bool,
    /// Log entries between snapshots
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub(crate) snapshot_every: u64,
    /// What coordinators log
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    pub(crate) log: String,
    /// Write the results here too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Folder for storage and logs [default: a new one under the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}
