//! The results, as a table and as JSON.

use crate::args::Args;
use crate::sample::Sample;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;

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
    /// One a number of clients and repeat: etcd's puts, and bookings.
    pairs: Vec<Pair>,
    /// Times without an acknowledged booking, s.
    pub(crate) failovers: Vec<f64>,
    /// What else was seen, in words.
    notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Measurement {
    what: String,
    clients: usize,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Clone, Debug, Serialize)]
struct Pair {
    clients: usize,
    puts: Measured,
    booked: Measured,
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
            pairs: Vec::new(),
            failovers: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Takes a measurement, and says it.
    pub(crate) fn add(&mut self, what: &str, clients: usize, measured: Measured) {
        eprintln!("{what} at {clients}: {:.0} a second", measured.per_second);
        self.measurements.push(Measurement { what: what.to_owned(), clients, measured });
    }

    /// Takes what is worth telling, and says it.
    pub(crate) fn note(&mut self, note: String) {
        eprintln!("{note}");
        self.notes.push(note);
    }

    /// Takes what was measured side by side, and says it.
    pub(crate) fn add_pair(&mut self, clients: usize, puts: Measured, booked: Measured) {
        eprintln!("at {clients}: {:.0} puts and {:.0} bookings a second", puts.per_second, booked.per_second);
        self.pairs.push(Pair { clients, puts, booked });
    }
}

/// The results, for people.
pub(crate) fn table(results: &Results) -> String {
    let mut text = Vec::new();
    if !results.measurements.is_empty() {
        text.push(measurements(results));
    }
    if !results.pairs.is_empty() {
        text.push(side_by_side(results));
    }
    if !results.failovers.is_empty() {
        text.push(failovers(&results.failovers));
    }
    text.extend(results.notes.iter().cloned());
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

fn side_by_side(results: &Results) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "clients",
        "puts/s",
        "p50 ms",
        "p99 ms",
        "bookings/s",
        "p50 ms",
        "p99 ms",
        "of the puts",
        "not answered well",
    ]);
    let counts: std::collections::BTreeSet<usize> = results.pairs.iter().map(|p| p.clients).collect();
    for clients in counts {
        let pairs: Vec<&Pair> = results.pairs.iter().filter(|p| p.clients == clients).collect();
        let of = |figure: &dyn Fn(&Pair) -> f64| median(pairs.iter().map(|p| figure(p)).collect());
        let failed = |m: &Measured| m.refused.values().chain(m.unanswered.values()).sum::<u64>();
        table.add_row([
            clients.to_string(),
            format!("{:.0}", of(&|p| p.puts.per_second)),
            format!("{:.2}", of(&|p| p.puts.p50_ms)),
            format!("{:.2}", of(&|p| p.puts.p99_ms)),
            format!("{:.0}", of(&|p| p.booked.per_second)),
            format!("{:.2}", of(&|p| p.booked.p50_ms)),
            format!("{:.2}", of(&|p| p.booked.p99_ms)),
            format!("{:.2}", of(&|p| p.booked.per_second / p.puts.per_second)),
            pairs.iter().map(|p| failed(&p.puts) + failed(&p.booked)).sum::<u64>().to_string(),
        ]);
    }
    format!(
        "{table}\n{} machines; medians; three members each and the clients on {} cores, every write on their disks",
        results.machines, results.cores
    )
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn failovers(gaps: &[f64]) -> String {
    let mut sorted = gaps.to_vec();
    sorted.sort_by(f64::total_cmp);
    format!(
        "{} leaders killed: {:.2} s without a booking in the middle, {:.2} s in 99 of 100, {:.2} s at best, {:.2} s at worst",
        sorted.len(),
        sorted[sorted.len() / 2],
        sorted[(sorted.len() * 99).div_ceil(100) - 1],
        sorted[0],
        sorted[sorted.len() - 1]
    )
}
