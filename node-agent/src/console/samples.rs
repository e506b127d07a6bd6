//! `millpool-node-agent samples`: the raw samples of a machine, as a summary for people or as CSV for analysts.
//!
//! The store has one owner, the running agent: it is asked at its console's socket, and answers row by row.

use super::command::{self, ConsoleError, EXIT_DONE, EXIT_REFUSED, EXIT_UNREACHABLE, Terminal};
use super::when::{self, Direction};
use super::{Answer, Question};
use crate::adapter::mapping::state_name;
use crate::samples::{Question as SamplesQuestion, Row, Signal, Tally, Value};
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The first line of a CSV file.
const HEAD: &str = "time,machine,signal,value,unit,quality";
/// What is shown where nothing is said, ms.
const SPAN_MS_DEFAULT: i64 = 86_400_000;

/// The raw samples of a machine, as they were read: a summary, or CSV.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Flags {
    /// The machine.
    #[arg(long, value_name = "MACHINE")]
    machine: String,
    /// One of its signals: state, part_count, load, power or energy; all without.
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    signal: Option<Signal>,
    /// From this time on; without, a day before --to.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// And before this one; without, until now.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Every sample, as CSV with a head.
    #[arg(long)]
    csv: bool,
    /// The plant, where the configuration has several.
    #[arg(long, value_name = "PLANT")]
    plant: Option<String>,
    /// The agent's socket, instead of the one that the configuration names.
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
TIME is a time of day (14:30), a span from now (-90m), or RFC 3339. Times are the plant's.

CSV has time (RFC 3339, UTC), machine, signal, value, unit and quality (measured or modelled, where that is known), by
signal and time. A value stands until the next one, or for ten minutes; an empty one says that there is none.

Exit codes: 0 done; 1 refused, or broken off; 2 the command line cannot be understood; 69 the agent does not run here,
or this user may not write to its socket; 78 the configuration cannot be used.

Examples:
  millpool-node-agent samples --machine lathe-3
  millpool-node-agent samples --machine lathe-3 --signal power --from -8h --csv > power.csv
  millpool-node-agent samples --machine lathe-3 --from 2026-11-23T00:00:00+08:00 --to 2026-11-24T00:00:00+08:00
";

impl Flags {
    /// The socket, where it is named.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }
}

fn signal(name: &str) -> Result<Signal, String> {
    let names: Vec<_> = Signal::NAMED.iter().map(|(_, name)| *name).collect();
    Signal::named(name).ok_or_else(|| format!("accepted is one of {}", names.join(", ")))
}

/// Asks, and shows what comes back. Answers with the exit code.
pub fn run(flags: &Flags, plants: &[(String, PathBuf)]) -> u8 {
    match try_run(flags, plants, &mut std::io::stdout().lock()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("millpool-node-agent samples: {error}");
            match error {
                ConsoleError::Plant { .. } | ConsoleError::Unreachable { .. } => EXIT_UNREACHABLE,
                ConsoleError::Time(_) | ConsoleError::Program { .. } | ConsoleError::Answer(_) => {
                    EXIT_REFUSED
                }
            }
        }
    }
}

fn try_run(flags: &Flags, plants: &[(String, PathBuf)], out: &mut impl Write) -> Result<u8, ConsoleError> {
    let socket = command::find_socket(flags.socket.as_deref(), flags.plant.as_deref(), plants)?;
    let terminal = Terminal::at(socket);
    let question = question(flags, &terminal)?;
    if flags.csv && writeln!(out, "{HEAD}").is_err() {
        return Ok(EXIT_DONE);
    }
    let unreachable = |source| ConsoleError::Unreachable { path: terminal.socket.clone(), source };
    let mut answer =
        command::put(&terminal.socket, &Question::Samples(question.clone())).map_err(unreachable)?;
    loop {
        let line = command::next(&mut answer).map_err(unreachable)?;
        match serde_json::from_slice(&line).map_err(|error| ConsoleError::Answer(error.to_string()))? {
            Answer::Rows { rows } => {
                // Whoever reads it has seen enough.
                if out.write_all(csv(&question.machine, &rows).as_bytes()).is_err() {
                    return Ok(EXIT_DONE);
                }
            }
            Answer::Tallies { .. } if flags.csv => return Ok(EXIT_DONE),
            Answer::Tallies { tallies } => {
                let _ = out.write_all(summary(&question, &tallies, &terminal.zone).as_bytes());
                return Ok(EXIT_DONE);
            }
            Answer::Refused { why } | Answer::Late { why } => {
                eprintln!("{why}");
                return Ok(EXIT_REFUSED);
            }
            other => return Err(ConsoleError::Answer(format!("{other:?}"))),
        }
    }
}

/// What the flags ask. The plant's clock, which may not be this computer's, is asked for now.
fn question(flags: &Flags, terminal: &Terminal) -> Result<SamplesQuestion, ConsoleError> {
    let now_ms = terminal.listing()?.now_ms;
    let time = |text: &Option<String>, otherwise| match text {
        Some(text) => when::read(text, now_ms, &terminal.zone, Direction::Past).map_err(ConsoleError::Time),
        None => Ok(otherwise),
    };
    // What is read this very moment is meant, too.
    let until_ms = time(&flags.to, now_ms.saturating_add(1))?;
    let from_ms = time(&flags.from, until_ms.saturating_sub(SPAN_MS_DEFAULT))?;
    if from_ms >= until_ms {
        let at = |at_ms| instant(at_ms, &terminal.zone);
        let (from, to) = (at(from_ms), at(until_ms));
        return Err(ConsoleError::Time(format!("--from = {from}: accepted is a time before --to, {to}")));
    }
    let (machine, signal) = (flags.machine.clone(), flags.signal);
    Ok(SamplesQuestion { machine, signal, from_ms, until_ms, rows: flags.csv })
}

fn csv(machine: &str, rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let (at, signal) = (utc(row.at_ms), row.signal.name());
        let (value, unit) = (value(row.value), row.unit.name());
        let quality = row.quality.map_or("", |quality| quality.name());
        // Writing to a string does not fail.
        let _ = writeln!(text, "{at},{machine},{signal},{value},{unit},{quality}");
    }
    text
}

fn value(value: Value) -> String {
    match value {
        Value::Gap => String::new(),
        Value::Number(number) => number.to_string(),
        Value::State(state) => state_name(state).to_owned(),
    }
}

fn utc(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).unwrap_or_default().strftime("%FT%T.%3fZ").to_string()
}

/// A time as the reader's clocks have it.
fn instant(at_ms: i64, zone: &TimeZone) -> String {
    let at = Timestamp::from_millisecond(at_ms).unwrap_or_default();
    at.to_zoned_datetime(zone.clone()).strftime("%FT%T%:z").to_string()
}

fn summary(question: &SamplesQuestion, tallies: &[Tally], zone: &TimeZone) -> String {
    let (from, to) = (instant(question.from_ms, zone), instant(question.until_ms, zone));
    let mut words = format!("{} from {from} to {to}\n", question.machine);
    if tallies.is_empty() {
        words.push_str("  no samples\n");
        return words;
    }
    let head = ["signal", "samples", "min", "mean", "max", "last"];
    let _ = writeln!(
        words,
        "  {:<14} {:>9} {:>12} {:>12} {:>12}   {}",
        head[0], head[1], head[2], head[3], head[4], head[5]
    );
    for tally in tallies {
        let number = |number: Option<f64>| number.map(rounded).unwrap_or_default();
        let (at_ms, last) = tally.last;
        let last = match last {
            Value::Gap => "nothing".to_owned(),
            Value::Number(number) => rounded(number),
            Value::State(state) => state_name(state).to_owned(),
        };
        let name = format!("{} {}", tally.signal.name(), tally.unit.name());
        let (min, mean, max) = (number(tally.min), number(tally.mean), number(tally.max));
        let quality = tally.quality.map_or("", |quality| quality.name());
        let (at, count) = (instant(at_ms, zone), tally.count);
        let row =
            format!("  {name:<14} {count:>9} {min:>12} {mean:>12} {max:>12}   {last} at {at}  {quality}");
        let _ = writeln!(words, "{}", row.trim_end());
    }
    words
}

fn rounded(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Quality, Unit};
    use millpool_proto::v1::MachineState;

    #[test]
    fn a_summary_is_one_look() {
        let question = SamplesQuestion {
            machine: "lathe-3".to_owned(),
            signal: None,
            from_ms: 0,
            until_ms: 86_400_000,
            rows: false,
        };
        let tally = |signal: Signal, count, numbers: [Option<f64>; 3], last, quality| {
            let ([min, mean, max], unit) = (numbers, signal.unit());
            Tally { signal, unit, quality, count, min, mean, max, last: (3_600_000, last) }
        };
        let state = Value::State(MachineState::Producing);
        let tallies = [
            tally(Signal::State, 41, [None; 3], state, None),
            tally(Signal::Load, 2, [None; 3], Value::Gap, Some(Quality::Measured)),
            tally(
                Signal::Power,
                84_213,
                [Some(812.0), Some(3456.2189), Some(7423.5)],
                Value::Number(900.0),
                Some(Quality::Modelled),
            ),
        ];
        let expected = "\
lathe-3 from 1970-01-01T08:00:00+08:00 to 1970-01-02T08:00:00+08:00
  signal           samples          min         mean          max   last
  state                 41                                          producing at 1970-01-01T09:00:00+08:00
  load %                 2                                          nothing at 1970-01-01T09:00:00+08:00  measured
  power W            84213          812     3456.219       7423.5   900 at 1970-01-01T09:00:00+08:00  modelled
";
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        assert_eq!(summary(&question, &tallies, &zone), expected);
        assert!(summary(&question, &[], &zone).ends_with("no samples\n"));
    }

    #[test]
    fn csv_has_every_column_and_an_empty_value_where_there_is_none() {
        let row = |signal: Signal, value, unit, quality| Row { at_ms: 1_500, signal, value, unit, quality };
        let rows = [
            row(Signal::State, Value::State(MachineState::Held), Unit::None, None),
            row(Signal::Energy, Value::Number(1234.25), Unit::WattHour, Some(Quality::Measured)),
            row(Signal::Load, Value::Gap, Unit::Percent, Some(Quality::Measured)),
        ];
        let expected = "\
1970-01-01T00:00:01.500Z,m-1,state,held,,
1970-01-01T00:00:01.500Z,m-1,energy,1234.25,Wh,measured
1970-01-01T00:00:01.500Z,m-1,load,,%,measured
";
        assert_eq!(csv("m-1", &rows), expected);
        assert_eq!(HEAD.split(',').count(), 6);
    }
}
