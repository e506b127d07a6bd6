//! What a measurement saw.

use anyhow::Context as _;
use hdrhistogram::Histogram;
use millpool_cli::client::{ClientError, ErrorKind};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest latency that is told apart, µs.
const LATENCY_MAX_US: u64 = 120_000_000;

/// How an operation ended.
pub(crate) enum Done {
    /// Well.
    Well,
    /// Refused, for a reason.
    Refused(String),
    /// Without an answer.
    Unanswered(String),
}

impl Done {
    /// From a client's error.
    pub(crate) fn from_error(error: &ClientError) -> Self {
        match error.kind {
            ErrorKind::Refused => Self::Refused(error.reason().to_owned()),
            kind => Self::Unanswered(format!("{kind:?} {}", error.reason()).trim_end().to_owned()),
        }
    }
}

/// Latencies and endings.
#[derive(Clone)]
pub(crate) struct Sample {
    /// Of what ended well, µs.
    pub(crate) latency_us: Histogram<u64>,
    /// What was refused, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// What got no answer.
    pub(crate) unanswered: BTreeMap<String, u64>,
    /// How long it was measured.
    pub(crate) elapsed: Duration,
}

impl Sample {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).context("a histogram")?;
        Ok(Self {
            latency_us,
            refused: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            elapsed: Duration::ZERO,
        })
    }

    /// Counts an operation.
    pub(crate) fn count(&mut self, took: Duration, done: Done) {
        match done {
            Done::Well => self.latency_us.saturating_record(took.as_micros() as u64),
            Done::Refused(reason) => *self.refused.entry(reason).or_default() += 1,
            Done::Unanswered(kind) => *self.unanswered.entry(kind).or_default() += 1,
        }
    }

    /// Adds another's.
    pub(crate) fn add(&mut self, other: &Sample) {
        // The bounds are the same, so that nothing is lost.
        let _ = self.latency_us.add(&other.latency_us);
        for (mine, its) in [(&mut self.refused, &other.refused), (&mut self.unanswered, &other.unanswered)] {
            for (name, count) in its {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
    }

    /// What did not end well: how, and how often.
    pub(crate) fn told(&self) -> impl Iterator<Item = (&str, u64)> {
        self.refused.iter().chain(&self.unanswered).map(|(how, count)| (how.as_str(), *count))
    }

    /// What ended well in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latency_us.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// A quantile of the latency, ms.
    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1000.0
    }
}
