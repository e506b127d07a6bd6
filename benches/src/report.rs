//! The results, as a table and as JSON.

use crate::args::Args;
use crate::sample::Sample;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;

/// Faults that the table tells one by one.
const FAULTS_SHOWN: usize = 12;

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    /// Cores that everything shared: coordinators, clients and solver.
    cores: usize,
    /// Machines of the alliance.
    machines: usize,
    /// Time of a background optimisation, ms; 0 for none.
    optimise_for_ms: u64,
    /// Whether clients preferred the leader.
    leader_preferred: bool,
    /// One a measurement.
    measurements: Vec<Measurement>,
    /// Times without an acknowledged booking, s.
    pub(crate) failovers: Vec<f64>,
    /// The kill loop.
    pub(crate) kill_loop: Option<KillLoop>,
}

#[derive(Clone, Debug, Serialize)]
struct Measurement {
    what: String,
    clients: usize,
    #[serde(flatten)]
    measured: Measured,
}

/// A measurement's figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    /// True where arrivals came at a rate.
    open_loop: bool,
    seconds: f64,
    count: u64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    refused: BTreeMap<String, u64>,
    unanswered: BTreeMap<String, u64>,
}

/// What the kill loop came to.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct KillLoop {
    /// Rounds.
    pub(crate) rounds: usize,
    /// Nodes that were killed.
    pub(crate) nodes_killed: usize,
    /// Bookings that were acknowledged.
    pub(crate) acknowledged: usize,
    /// Bookings that were refused.
    pub(crate) refused: u64,
    /// Requests that got no answer within their deadline, before they were repeated.
    pub(crate) in_doubt_at_first: usize,
    /// Acknowledged requests that were repeated in the end.
    pub(crate) repeated: usize,
    /// Bookings that were there in the end.
    pub(crate) bookings: usize,
    /// What is not as it should be.
    pub(crate) faults: Vec<String>,
}

impl Measured {
    /// Of clients that ask again as soon as they are answered.
    pub(crate) fn closed(sample: &Sample) -> Self {
        Self::of(sample, false)
    }

    /// Of arrivals at a rate.
    pub(crate) fn open(sample: &Sample) -> Self {
        Self::of(sample, true)
    }

    fn of(sample: &Sample, open_loop: bool) -> Self {
        Self {
            open_loop,
            seconds: sample.elapsed.as_secs_f64(),
            count: sample.latency_us.len(),
            per_second: sample.rate(),
            p50_ms: sample.ms(0.5),
            p99_ms: sample.ms(0.99),
            p999_ms: sample.ms(0.999),
            max_ms: sample.ms(1.0),
            refused: sample.refused.clone(),
            unanswered: sample.unanswered.clone(),
        }
    }
}

impl Results {
    pub(crate) fn new(args: &Args) -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            machines: args.machines,
            optimise_for_ms: args.optimise_for_ms,
            leader_preferred: !args.spread,
            measurements: Vec::new(),
            failovers: Vec::new(),
            kill_loop: None,
        }
    }

    /// Takes a measurement, and says it.
    pub(crate) fn add(&mut self, what: &str, clients: usize, measured: Measured) {
        eprintln!("{what} at {clients}: {:.0} a second", measured.per_second);
        self.measurements.push(Measurement { what: what.to_owned(), clients, measured });
    }

    /// Whether nothing was lost, doubled or otherwise broken.
    pub(crate) fn holds(&self) -> bool {
        self.kill_loop.as_ref().is_none_or(|kill_loop| kill_loop.faults.is_empty())
    }
}

/// The results, for people.
pub(crate) fn table(results: &Results) -> String {
    let mut text = Vec::new();
    if !results.measurements.is_empty() {
        text.push(measurements(results));
    }
    if !results.failovers.is_empty() {
        text.push(failovers(&results.failovers));
    }
    text.extend(results.kill_loop.as_ref().map(kill_loop));
    text.join("\n")
}

fn measurements(results: &Results) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "what",
        "clients",
        "a second",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "refused",
        "unanswered",
    ]);
    for Measurement { what, clients, measured: m } in &results.measurements {
        let counts = |counts: &BTreeMap<String, u64>| {
            let each: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
            if each.is_empty() { "0".to_owned() } else { each.join(", ") }
        };
        table.add_row([
            what.clone(),
            clients.to_string(),
            format!("{:.0}", m.per_second),
            format!("{:.2}", m.p50_ms),
            format!("{:.2}", m.p99_ms),
            format!("{:.2}", m.p999_ms),
            format!("{:.2}", m.max_ms),
            counts(&m.refused),
            counts(&m.unanswered),
        ]);
    }
    let led = if results.leader_preferred { "the leader" } else { "all nodes" };
    format!(
        "{table}\n{} machines, three coordinators and the clients on {} cores, every write on their disks, \
         clients at {led}",
        results.machines, results.cores
    )
}

fn failovers(gaps: &[f64]) -> String {
    let mut sorted = gaps.to_vec();
    sorted.sort_by(f64::total_cmp);
    format!(
        "{} leaders killed: {:.2} s without a booking in the middle, {:.2} s at best, {:.2} s at worst",
        sorted.len(),
        sorted[sorted.len() / 2],
        sorted[0],
        sorted[sorted.len() - 1]
    )
}

fn kill_loop(result: &KillLoop) -> String {
    let mut lines = vec![format!(
        "{} rounds, {} nodes killed: {} bookings acknowledged ({} refused, {} without an answer at first), {} \
         repeated, {} there in the end: {}",
        result.rounds,
        result.nodes_killed,
        result.acknowledged,
        result.refused,
        result.in_doubt_at_first,
        result.repeated,
        result.bookings,
        if result.faults.is_empty() { "none lost, none doubled, none worsened" } else { "FAULTS" }
    )];
    lines.extend(result.faults.iter().take(FAULTS_SHOWN).map(|fault| format!("BROKEN  {fault}")));
    if result.faults.len() > FAULTS_SHOWN {
        lines.push(format!("{} faults, of which {FAULTS_SHOWN} are shown", result.faults.len()));
    }
    lines.join("\n")
}
