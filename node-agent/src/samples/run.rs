//! A run: some seconds of one signal of one machine, as one entry of the store. Pure.
//!
//! An entry a sample would be mostly key. A run's key is machine, signal and the time of its first sample, so that a
//! span of time is a range of keys; its value begins with a byte each for format, unit and quality, and then has each
//! sample as the milliseconds since the one before and its value: decimals of up to three places as the difference to the
//! value before, in thousandths, which is exact; any other number as its eight bytes. All numbers are varints.

use super::reading::{Quality, Signal, Unit, Value};
use millpool_proto::v1::MachineState;

/// The format of values that this version writes, and the only one that it reads.
const FORMAT: u8 = 1;
/// From a run's first sample to its last are at most so many ms.
pub const SPAN_MAX_MS: i64 = 60_000;
/// Samples in a run.
const SAMPLES_MAX: usize = 1_024;
/// Milliseconds in a day. Days are UTC, and no run lies in two.
pub const DAY_MS: i64 = 86_400_000;

/// Between the parts of a key; no machine's name has it.
const END: u8 = 0;
/// Codes of a value, in its lowest two bits.
const GAP: u64 = 0;
const BYTES: u64 = 1;
const THOUSANDTHS: u64 = 2;
const STATE: u64 = 3;
/// Beyond this a double is no exact number of thousandths any more.
const THOUSANDTHS_MAX: f64 = 9.0e15;

/// Bytes that are no run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry of the samples' store cannot be read: {0}")]
pub struct Unreadable(&'static str);

/// Samples of one signal of one machine, in the order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The unit of the values.
    pub unit: Unit,
    /// Where they come from.
    pub quality: Option<Quality>,
    /// Times, ms since the Unix epoch, and values.
    pub samples: Vec<(i64, Value)>,
}

/// The day of a time, in days since the Unix epoch.
pub fn day_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(DAY_MS)
}

/// The key of the run that begins at a time; `more` tells those apart that begin at the same one.
pub fn key(machine: &str, signal: Signal, at_ms: i64, more: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(machine.len() + signal.name().len() + 11);
    key.extend_from_slice(machine.as_bytes());
    key.push(END);
    key.extend_from_slice(signal.name().as_bytes());
    key.push(END);
    // With the sign turned over, bytes are in the order of time.
    key.extend_from_slice(&(at_ms as u64 ^ 1 << 63).to_be_bytes());
    key.push(more);
    key
}

/// When the run of a key begins.
pub fn begins_ms(key: &[u8]) -> Result<i64, Unreadable> {
    let bytes = key.len().checked_sub(9).and_then(|from| key[from..].first_chunk::<8>());
    let bytes = bytes.ok_or(Unreadable("its key is too short"))?;
    Ok((u64::from_be_bytes(*bytes) ^ 1 << 63) as i64)
}

impl Run {
    /// Whether a sample belongs to this run, too.
    pub fn takes(&self, at_ms: i64, unit: Unit, quality: Option<Quality>) -> bool {
        let first_ms = self.samples.first().map_or(at_ms, |(first_ms, _)| *first_ms);
        (unit, quality) == (self.unit, self.quality)
            && self.samples.len() < SAMPLES_MAX
            && at_ms - first_ms <= SPAN_MAX_MS
            && day_of(at_ms) == day_of(first_ms)
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + 5 * self.samples.len());
        bytes.extend([FORMAT, unit_code(self.unit), quality_code(self.quality)]);
        let mut before_ms = self.samples.first().map_or(0, |(at_ms, _)| *at_ms);
        let mut before = 0;
        for (at_ms, value) in &self.samples {
            put(&mut bytes, at_ms.saturating_sub(before_ms).max(0) as u64);
            before_ms = *at_ms;
            match value {
                Value::Gap => put(&mut bytes, GAP),
                Value::State(state) => put(&mut bytes, (*state as u64) << 2 | STATE),
                Value::Number(number) => match thousandths(*number) {
                    Some(own) => {
                        put(&mut bytes, zigzag(own - before) << 2 | THOUSANDTHS);
                        before = own;
                    }
                    None => {
                        put(&mut bytes, BYTES);
                        bytes.extend_from_slice(&number.to_le_bytes());
                    }
                },
            }
        }
        bytes
    }

    /// From bytes, and the time that stands in the key.
    pub fn decode(begins_ms: i64, bytes: &[u8]) -> Result<Self, Unreadable> {
        let [FORMAT, unit, quality, rest @ ..] = bytes else {
            return Err(Unreadable("its format is not known"));
        };
        let (unit, quality) = (unit_of(*unit)?, quality_of(*quality)?);
        let (mut samples, mut rest, mut at_ms, mut before) = (Vec::new(), rest, begins_ms, 0_i64);
        while !rest.is_empty() {
            if samples.len() == SAMPLES_MAX {
                return Err(Unreadable("it has too many samples"));
            }
            let gone_ms = i64::try_from(get(&mut rest)?).map_err(|_| Unreadable("its time is too long"))?;
            at_ms = at_ms.checked_add(gone_ms).ok_or(Unreadable("its time is too long"))?;
            let word = get(&mut rest)?;
            let value = match word & 3 {
                THOUSANDTHS => {
                    let own = before.checked_add(unzigzag(word >> 2));
                    before = own.ok_or(Unreadable("a value is too large"))?;
                    Value::Number(before as f64 / 1e3)
                }
                BYTES => {
                    let (number, after) =
                        rest.split_first_chunk::<8>().ok_or(Unreadable("its end is missing"))?;
                    rest = after;
                    Value::number(Some(f64::from_le_bytes(*number)))
                }
                STATE => {
                    let code = i32::try_from(word >> 2).ok();
                    let state = code.and_then(|code| MachineState::try_from(code).ok());
                    Value::State(state.ok_or(Unreadable("a state is not known"))?)
                }
                _ => Value::Gap,
            };
            samples.push((at_ms, value));
        }
        Ok(Self { unit, quality, samples })
    }
}

/// A number in thousandths, if that is exactly what it is.
fn thousandths(number: f64) -> Option<i64> {
    let own = (number * 1e3).round();
    let negative_zero = number == 0.0 && number.is_sign_negative();
    (own.abs() <= THOUSANDTHS_MAX && own / 1e3 == number && !negative_zero).then_some(own as i64)
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn get(bytes: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Unreadable("its end is missing"))?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Unreadable("a number has no end"))
}

const UNITS: [Unit; 5] = [Unit::None, Unit::Percent, Unit::Watt, Unit::WattHour, Unit::Pieces];

fn unit_code(unit: Unit) -> u8 {
    UNITS.iter().position(|own| *own == unit).unwrap_or_default() as u8
}

fn unit_of(code: u8) -> Result<Unit, Unreadable> {
    UNITS.get(usize::from(code)).copied().ok_or(Unreadable("its unit is not known"))
}

fn quality_code(quality: Option<Quality>) -> u8 {
    match quality {
        None => 0,
        Some(Quality::Measured) => 1,
        Some(Quality::Modelled) => 2,
    }
}

fn quality_of(code: u8) -> Result<Option<Quality>, Unreadable> {
    match code {
        0 => Ok(None),
        1 => Ok(Some(Quality::Measured)),
        2 => Ok(Some(Quality::Modelled)),
        _ => Err(Unreadable("its quality is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Gap),
            any::<f64>().prop_map(|number| Value::number(Some(number))),
            (-10_000_000_i64..10_000_000).prop_map(|number| Value::Number(number as f64 / 100.0)),
            (-1e16..1e16).prop_map(Value::Number),
            (0..8_i32).prop_map(|code| Value::State(MachineState::try_from(code).unwrap())),
        ]
    }

    fn runs() -> impl Strategy<Value = Run> {
        let samples = proptest::collection::vec((0..SPAN_MAX_MS, values()), 1..50);
        let quality = prop_oneof![Just(None), Just(Some(Quality::Measured)), Just(Some(Quality::Modelled))];
        (proptest::sample::select(&UNITS[..]), quality, samples, -(1_i64 << 50)..1_i64 << 50).prop_map(
            |(unit, quality, mut samples, begins_ms)| {
                samples.sort_by_key(|(at_ms, _)| *at_ms);
                let first_ms = samples[0].0;
                let samples = samples.into_iter().map(|(at_ms, value)| (begins_ms + at_ms - first_ms, value));
                Run { unit, quality, samples: samples.collect() }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(run in runs()) {
            let key = key("m-1", Signal::Power, run.samples[0].0, 3);
            let read = Run::decode(begins_ms(&key).unwrap(), &run.encode()).unwrap();
            prop_assert_eq!(read, run);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Run::decode(0, &bytes);
            let _ = begins_ms(&bytes);
        }

        #[test]
        fn keys_are_in_the_order_of_time(one in any::<i64>(), other in any::<i64>()) {
            let key = |at_ms| key("m", Signal::Load, at_ms, 0);
            prop_assert_eq!(key(one).cmp(&key(other)), one.cmp(&other));
        }
    }

    #[test]
    fn a_second_of_a_slow_signal_takes_some_five_bytes() {
        let samples = (0..10).map(|at| (1_700_000_000_000 + at * 1_000, Value::Number(41.5 + at as f64)));
        let run = Run { unit: Unit::Percent, quality: Some(Quality::Measured), samples: samples.collect() };
        let bytes = run.encode().len();
        assert!((3 + 9 * 4..=3 + 10 * 5).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_run_ends_with_its_minute_and_with_its_day() {
        let run = |at_ms| Run { unit: Unit::Watt, quality: None, samples: vec![(at_ms, Value::Gap)] };
        assert!(run(0).takes(SPAN_MAX_MS, Unit::Watt, None));
        assert!(!run(0).takes(SPAN_MAX_MS + 1, Unit::Watt, None));
        assert!(!run(DAY_MS - 1).takes(DAY_MS, Unit::Watt, None));
        assert!(!run(0).takes(1, Unit::WattHour, None));
        assert!(!run(0).takes(1, Unit::Watt, Some(Quality::Measured)));
        assert_eq!((day_of(-1), day_of(0), day_of(DAY_MS)), (-1, 0, 1));
    }
}
