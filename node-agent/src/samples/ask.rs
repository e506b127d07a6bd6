//! What was kept, as rows and as a summary.
//!
//! A question is answered by a thread that reads the store from end to end, and sends rows in bundles through a channel
//! of a few: so it takes little memory whatever is asked, and waits while the terminal does.

use super::Samples;
use super::reading::{Quality, REPEAT_MS, Signal, Unit, Value};
use super::run::Run;
use super::shelf::{Days, ShelfError};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use tokio::sync::mpsc;

/// Rows in a bundle.
const ROWS_MAX: usize = 1_000;
/// Bundles that wait for the terminal.
const BUNDLES_MAX: usize = 2;
/// Where rows are not wanted, a sign of life is sent after so many.
const QUIET_MAX: usize = 200_000;
/// A value counts for so long, ms, if no other follows: it would have been repeated.
const HOLDS_MS: i64 = REPEAT_MS + 60_000;

/// What is asked. Times are ms since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The machine's id.
    pub machine: String,
    /// One of its signals; all without.
    pub signal: Option<Signal>,
    /// From this time on,
    pub from_ms: i64,
    /// and before this one.
    pub until_ms: i64,
    /// Each sample, beside the summary.
    pub rows: bool,
}

/// One sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// When, ms since the Unix epoch.
    pub at_ms: i64,
    /// The signal.
    pub signal: Signal,
    /// Its value.
    pub value: Value,
    /// The value's unit.
    pub unit: Unit,
    /// Where it comes from, where that is known.
    pub quality: Option<Quality>,
}

/// A signal in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// The signal.
    pub signal: Signal,
    /// The values' unit.
    pub unit: Unit,
    /// Where the last one comes from, where that is known.
    pub quality: Option<Quality>,
    /// Samples.
    pub count: u64,
    /// The least number.
    pub min: Option<f64>,
    /// The mean over the time in which there was a number.
    pub mean: Option<f64>,
    /// The greatest number.
    pub max: Option<f64>,
    /// The last value, and when.
    pub last: (i64, Value),
}

/// What comes back, one after the other; the last is a summary, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Rows, by signal and time; none as a sign of life.
    Rows(Vec<Row>),
    /// Every signal that has samples, in short.
    Summary(Vec<Tally>),
    /// It cannot be answered, or not to its end.
    Broken(String),
}

impl Samples {
    /// Asks. What was put before the question is taken into account.
    pub async fn ask(&self, question: Question) -> Result<mpsc::Receiver<Part>, String> {
        let place = self.place().await.ok_or_else(|| match self.keep_days() {
            None => "samples are not kept here: keep_days = 0, or the store could not be begun".to_owned(),
            Some(_) => "others are asking; try again in a moment".to_owned(),
        })?;
        self.settle().await;
        let closed = || "the samples' store is closed; /health and the agent's log say why".to_owned();
        let days = self.days().ok_or_else(closed)?;
        let (sender, parts) = mpsc::channel(BUNDLES_MAX);
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let last = match answer(&days, &question, &sender) {
                Ok(Some(tallies)) => Part::Summary(tallies),
                // Nobody listens any more.
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(machine = question.machine, %error, "samples cannot be read");
                    Part::Broken(format!("the samples cannot be read to the end: {error}"))
                }
            };
            // Whoever asked may have gone.
            let _ = sender.blocking_send(last);
        });
        Ok(parts)
    }
}

/// Sends the rows, and answers with the summary; with nothing, where nobody listens.
fn answer(
    days: &Days,
    question: &Question,
    sender: &mpsc::Sender<Part>,
) -> Result<Option<Vec<Tally>>, ShelfError> {
    let Question { machine, from_ms, until_ms, .. } = question;
    let mut tallies = Vec::new();
    let mut out = Out { sender, wanted: question.rows, rows: Vec::new(), quiet: 0 };
    for (signal, _) in Signal::NAMED {
        if question.signal.is_some_and(|own| own != signal) {
            continue;
        }
        let mut sum = None;
        let flow = days.read(machine, signal, *from_ms, *until_ms, &mut |run, at_ms, value| {
            sum.get_or_insert_with(|| Sum::new(signal)).add(run, at_ms, value);
            out.add(|| Row { at_ms, signal, value, unit: run.unit, quality: run.quality })
        })?;
        if flow.is_break() || out.flush().is_break() {
            return Ok(None);
        }
        tallies.extend(sum.map(|sum| sum.end(*until_ms)));
    }
    Ok(Some(tallies))
}

/// Rows on their way.
struct Out<'a> {
    sender: &'a mpsc::Sender<Part>,
    wanted: bool,
    rows: Vec<Row>,
    quiet: usize,
}

impl Out<'_> {
    fn add(&mut self, row: impl FnOnce() -> Row) -> ControlFlow<()> {
        if self.wanted {
            self.rows.push(row());
        } else {
            self.quiet += 1;
        }
        if self.rows.len() >= ROWS_MAX || self.quiet >= QUIET_MAX {
            return self.send();
        }
        ControlFlow::Continue(())
    }

    fn flush(&mut self) -> ControlFlow<()> {
        if self.rows.is_empty() { ControlFlow::Continue(()) } else { self.send() }
    }

    fn send(&mut self) -> ControlFlow<()> {
        self.quiet = 0;
        match self.sender.blocking_send(Part::Rows(std::mem::take(&mut self.rows))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// A tally in the making.
struct Sum {
    tally: Tally,
    /// Numbers, each times how long it held, ms.
    weighed: f64,
    held_ms: i64,
}

impl Sum {
    fn new(signal: Signal) -> Self {
        let (unit, last) = (signal.unit(), (i64::MIN, Value::Gap));
        let tally = Tally { signal, unit, quality: None, count: 0, min: None, mean: None, max: None, last };
        Self { tally, weighed: 0.0, held_ms: 0 }
    }

    fn add(&mut self, run: &Run, at_ms: i64, value: Value) {
        self.hold_until(at_ms);
        let tally = &mut self.tally;
        (tally.unit, tally.quality, tally.last) = (run.unit, run.quality, (at_ms, value));
        tally.count += 1;
        if let Some(number) = value.as_number() {
            tally.min = Some(tally.min.map_or(number, |min| min.min(number)));
            tally.max = Some(tally.max.map_or(number, |max| max.max(number)));
        }
    }

    /// The last value holds until now, if it is not too long ago.
    fn hold_until(&mut self, at_ms: i64) {
        let (since_ms, value) = self.tally.last;
        if let Some(number) = value.as_number() {
            let held_ms = at_ms.saturating_sub(since_ms).clamp(0, HOLDS_MS);
            self.weighed += number * held_ms as f64;
            self.held_ms += held_ms;
        }
    }

    fn end(mut self, until_ms: i64) -> Tally {
        self.hold_until(until_ms);
        let mean = self.weighed / self.held_ms as f64;
        // Of a single sample at the very end nothing has lasted.
        let mean = if self.held_ms > 0 { Some(mean) } else { self.tally.last.1.as_number() };
        Tally { mean: mean.filter(|mean| mean.is_finite()), ..self.tally }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(samples: &[(i64, Value)], until_ms: i64) -> Tally {
        let run = Run { unit: Unit::Watt, quality: Some(Quality::Measured), samples: Vec::new() };
        let mut sum = Sum::new(Signal::Power);
        samples.iter().for_each(|(at_ms, value)| sum.add(&run, *at_ms, *value));
        sum.end(until_ms)
    }

    use Value::{Gap, Number as N};

    #[test]
    fn the_mean_is_over_time_and_not_over_samples() {
        // A minute at 6 kW in one sample, then a second each at other powers.
        let tally = tally(&[(0, N(6_000.0)), (60_000, N(0.0)), (61_000, N(100.0))], 62_000);
        assert_eq!((tally.count, tally.min, tally.max), (3, Some(0.0), Some(6_000.0)));
        let mean = (6_000.0 * 60.0 + 100.0) / 62.0;
        assert!((tally.mean.unwrap() - mean).abs() < 1e-9, "{tally:?}");
        assert_eq!(tally.last, (61_000, N(100.0)));
        assert_eq!((tally.unit, tally.quality), (Unit::Watt, Some(Quality::Measured)));
    }

    #[test]
    fn nothing_is_known_of_a_gap_nor_of_what_a_silence_hides() {
        let tally_ = tally(&[(0, N(10.0)), (1_000, Gap), (100_000, N(20.0))], 101_000);
        assert_eq!(tally_.mean, Some(15.0), "a second each; nothing between them");
        let silent = tally(&[(0, N(10.0)), (HOLDS_MS * 9, N(0.0))], HOLDS_MS * 10);
        assert_eq!(silent.mean, Some(5.0), "each holds for eleven minutes at most");
        assert_eq!(tally(&[(0, Gap)], 1_000).mean, None);
        assert_eq!(tally(&[(1_000, N(3.0))], 1_000).mean, Some(3.0));
    }
}
