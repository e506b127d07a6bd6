//! What is read of a machine, and which of it is worth keeping. Pure.
//!
//! [`Readings`] is told what all signals of a machine read at one time, and keeps what tells something:
//!
//! - a value that is another than the last; of measured load, power and energy one in a second at most. What falls into
//!   such a second is not lost for good: the last of it is kept when the second is over, with its own time;
//! - every change of the state and of the part count;
//! - an unchanged value again after ten minutes. So a silence that is longer is a hole, and a value counts until the next
//!   one, or for ten minutes;
//! - that there is no value any more: the signal has none, or the machine is not seen.

use crate::adapter::mapping::{state_name, state_named};
use millpool_proto::v1::MachineState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of signals that are thinned one value is kept in so long, ms.
pub const EVERY_MS: i64 = 1_000;
/// An unchanged value is kept again after so long, ms.
pub const REPEAT_MS: i64 = 600_000;
/// What is read may come behind its time by so much, ms. What is kept again is never as young, so that it does not
/// contradict what is still on its way.
const LATE_MS: i64 = 10_000;
/// Readings that wait to be taken: the rest is missed, and counted.
const READY_MAX: usize = 16_384;

/// A signal that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// The machine's state.
    State,
    /// Parts finished, as the machine counts.
    PartCount,
    /// Load of the spindle.
    Load,
    /// What it draws.
    Power,
    /// Its energy meter.
    Energy,
}

impl Signal {
    /// Every signal with its name, as in the adapters' mappings.
    pub const NAMED: [(Self, &'static str); 5] = [
        (Self::State, "state"),
        (Self::PartCount, "part_count"),
        (Self::Load, "load"),
        (Self::Power, "power"),
        (Self::Energy, "energy"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(signal, _)| *signal == self).map_or("", |(_, name)| name)
    }

    /// The signal of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(_, own)| *own == name).map(|(signal, _)| *signal)
    }

    /// The unit of its values, after the mapping's scale.
    pub fn unit(self) -> Unit {
        match self {
            Self::State => Unit::None,
            Self::PartCount => Unit::Pieces,
            Self::Load => Unit::Percent,
            Self::Power => Unit::Watt,
            Self::Energy => Unit::WattHour,
        }
    }
}

/// The unit of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unit {
    /// It has none.
    #[serde(rename = "")]
    None,
    /// Percent.
    #[serde(rename = "%")]
    Percent,
    /// W
    #[serde(rename = "W")]
    Watt,
    /// Wh
    #[serde(rename = "Wh")]
    WattHour,
    /// Pieces.
    #[serde(rename = "pcs")]
    Pieces,
}

impl Unit {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Percent => "%",
            Self::Watt => "W",
            Self::WattHour => "Wh",
            Self::Pieces => "pcs",
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// The machine measures it.
    Measured,
    /// A model says so.
    Modelled,
}

impl Quality {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Modelled => "modelled",
        }
    }
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// None: the signal has none, or the machine is not seen.
    Gap,
    /// A finite number.
    Number(f64),
    /// A state.
    #[serde(with = "by_name")]
    State(MachineState),
}

/// A state by its name.
mod by_name {
    use super::{MachineState, state_name, state_named};
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(state: &MachineState, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(state_name(*state))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<MachineState, D::Error> {
        let name = String::deserialize(from)?;
        state_named(&name).ok_or_else(|| serde::de::Error::custom(format!("{name:?} is no state")))
    }
}

impl Value {
    /// A number; a gap, where there is none or it is not finite.
    pub fn number(number: Option<f64>) -> Self {
        number.filter(|number| number.is_finite()).map_or(Self::Gap, Self::Number)
    }

    /// As a number.
    pub fn as_number(self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Gap | Self::State(_) => None,
        }
    }
}

/// What one signal reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The signal.
    pub signal: Signal,
    /// Its value.
    pub value: Value,
    /// The value's unit.
    pub unit: Unit,
    /// Where the value comes from, where that is known.
    pub quality: Option<Quality>,
}

impl Reading {
    /// The machine's state.
    pub fn state(state: MachineState, quality: Option<Quality>) -> Self {
        Self { signal: Signal::State, value: Value::State(state), unit: Unit::None, quality }
    }

    /// A signal that the machine measures, with its value, if it has one.
    pub fn measured(signal: Signal, number: Option<f64>) -> Self {
        let quality = Some(Quality::Measured);
        Self { signal, value: Value::number(number), unit: signal.unit(), quality }
    }

    /// What an adapter reads: the state, and the signals that the machine has, by their names in the adapter's mapping.
    pub fn of_machine<S: Copy>(
        state: MachineState,
        named: &[(S, &str)],
        has: impl Fn(S) -> bool,
        number: impl Fn(S) -> Option<f64>,
    ) -> Vec<Self> {
        let mut readings = vec![Self::state(state, None)];
        for (signal, name) in named {
            // A state that is mapped is a number on the machine only.
            let kept = Signal::named(name).filter(|kept| *kept != Signal::State && has(*signal));
            readings.extend(kept.map(|kept| Self::measured(kept, number(*signal))));
        }
        readings
    }

    /// A signal that a model knows.
    pub fn modelled(signal: Signal, number: f64) -> Self {
        let quality = Some(Quality::Modelled);
        Self { signal, value: Value::number(Some(number)), unit: signal.unit(), quality }
    }

    /// Whether some of its changes may be left out: what a model says changes with the state only.
    fn may_be_thinned(&self) -> bool {
        matches!(self.signal, Signal::Load | Signal::Power | Signal::Energy)
            && self.quality != Some(Quality::Modelled)
    }

    /// The same signal, of which nothing is known.
    fn lost(self) -> Self {
        let value = match self.signal {
            Signal::State => Value::State(MachineState::Unknown),
            _ => Value::Gap,
        };
        Self { value, ..self }
    }
}

/// What is kept of a machine's readings, until it is taken.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    tracks: BTreeMap<Signal, Track>,
    ready: Vec<(i64, Reading)>,
    missed: u64,
}

/// One signal.
#[derive(Clone, Debug)]
struct Track {
    /// What was kept last, and when.
    last: (i64, Reading),
    /// What differs from it is kept from then on.
    free_ms: i64,
    /// What was read meanwhile, and is another.
    held: Option<(i64, Reading)>,
}

impl Readings {
    /// So it reads at a time.
    pub fn note(&mut self, at_ms: i64, readings: &[Reading]) {
        for reading in readings {
            self.note_one(at_ms, *reading);
        }
    }

    /// Nothing but time has passed, by the same clock.
    pub fn pass_time(&mut self, now_ms: i64) {
        for track in self.tracks.values_mut() {
            track.release(now_ms, &mut self.ready);
            let (last_ms, last) = track.last;
            let sure_ms = now_ms.saturating_sub(LATE_MS);
            if sure_ms.saturating_sub(last_ms) >= REPEAT_MS {
                track.keep(sure_ms, last, &mut self.ready);
            }
        }
        self.limit();
    }

    /// The machine is not seen any more, from a time on.
    pub fn lose(&mut self, at_ms: i64) {
        self.tracks
            .entry(Signal::State)
            .or_insert_with(|| Track::new(i64::MIN, Reading::state(MachineState::Off, None)));
        for track in self.tracks.values_mut() {
            track.release(i64::MAX, &mut self.ready);
            let lost = track.last.1.lost();
            if track.last.1.value != lost.value {
                track.keep(at_ms, lost, &mut self.ready);
            }
        }
        self.limit();
    }

    /// What is to be kept, in the order in which it came; afterwards nothing is left.
    pub fn take(&mut self) -> Vec<(i64, Reading)> {
        std::mem::take(&mut self.ready)
    }

    /// How many there was no room for, since this was asked last.
    pub fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    /// Nobody wants them.
    pub fn clear(&mut self) {
        self.ready.clear();
        self.missed = 0;
    }

    fn note_one(&mut self, at_ms: i64, reading: Reading) {
        match self.tracks.get_mut(&reading.signal) {
            None => {
                self.tracks.insert(reading.signal, Track::new(at_ms, reading));
                self.ready.push((at_ms, reading));
            }
            Some(track) => track.note(at_ms, reading, &mut self.ready),
        }
        self.limit();
    }

    fn limit(&mut self) {
        self.missed += self.ready.len().saturating_sub(READY_MAX) as u64;
        self.ready.truncate(READY_MAX);
    }
}

impl Track {
    fn new(at_ms: i64, reading: Reading) -> Self {
        Self { last: (at_ms, reading), free_ms: at_ms.saturating_add(EVERY_MS), held: None }
    }

    fn note(&mut self, at_ms: i64, reading: Reading, ready: &mut Vec<(i64, Reading)>) {
        self.release(at_ms, ready);
        let (last_ms, last) = self.last;
        if reading == last {
            // It is back where it was: what it was meanwhile is what thinning leaves out.
            self.held = None;
            if at_ms.saturating_sub(last_ms) >= REPEAT_MS {
                self.keep(at_ms, reading, ready);
            }
            return;
        }
        let gap = last.value == Value::Gap || reading.value == Value::Gap;
        // A clock that was put back would hold a signal until it has caught up.
        let free = at_ms >= self.free_ms || at_ms < last_ms;
        if free || gap || !reading.may_be_thinned() {
            self.keep(at_ms, reading, ready);
        } else {
            self.held = Some((at_ms, reading));
        }
    }

    /// The second is over: what is held is kept, and another second begins.
    fn release(&mut self, now_ms: i64, ready: &mut Vec<(i64, Reading)>) {
        if now_ms < self.free_ms {
            return;
        }
        if let Some((at_ms, reading)) = self.held.take() {
            let free_ms = self.free_ms.saturating_add(EVERY_MS);
            self.keep(at_ms, reading, ready);
            self.free_ms = free_ms;
        }
    }

    fn keep(&mut self, at_ms: i64, reading: Reading, ready: &mut Vec<(i64, Reading)>) {
        *self = Self::new(at_ms, reading);
        ready.push((at_ms, reading));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(number: f64) -> [Reading; 1] {
        [Reading::measured(Signal::Load, Some(number))]
    }

    fn kept(readings: &mut Readings) -> Vec<(i64, Value)> {
        readings.take().into_iter().map(|(at_ms, reading)| (at_ms, reading.value)).collect()
    }

    use Value::Number as N;

    #[test]
    fn a_value_is_kept_when_it_changes_and_again_after_ten_minutes() {
        let mut readings = Readings::default();
        for (at_ms, number) in [(0, 5.0), (2_000, 5.0), (599_999, 5.0), (600_000, 5.0), (700_000, 6.0)] {
            readings.note(at_ms, &load(number));
        }
        assert_eq!(kept(&mut readings), [(0, N(5.0)), (600_000, N(5.0)), (700_000, N(6.0))]);
        readings.pass_time(1_309_999);
        assert_eq!(kept(&mut readings), []);
        readings.pass_time(1_310_000);
        assert_eq!(kept(&mut readings), [(1_300_000, N(6.0))]);
    }

    #[test]
    fn what_comes_a_little_late_stands_behind_what_was_kept_again() {
        let state = |state| [Reading::state(state, None)];
        let mut readings = Readings::default();
        let (idle, off) = (Value::State(MachineState::Idle), Value::State(MachineState::Off));
        readings.note(0, &state(MachineState::Idle));
        readings.pass_time(599_000);
        readings.pass_time(607_000);
        readings.note(605_500, &state(MachineState::Off));
        assert_eq!(kept(&mut readings), [(0, idle), (605_500, off)]);
    }

    #[test]
    fn a_load_is_kept_once_a_second_and_where_it_comes_to_rest() {
        let mut readings = Readings::default();
        readings.note(0, &load(50.0));
        readings.note(300, &load(20.0));
        readings.note(500, &load(0.0));
        assert_eq!(kept(&mut readings), [(0, N(50.0))]);
        readings.pass_time(999);
        assert_eq!(kept(&mut readings), []);
        readings.pass_time(1_000);
        assert_eq!(kept(&mut readings), [(500, N(0.0))], "the last of the second, with its own time");
        readings.note(1_200, &load(9.0));
        assert_eq!(kept(&mut readings), [], "the next second is not over");
        readings.note(2_300, &load(8.0));
        assert_eq!(kept(&mut readings), [(1_200, N(9.0))]);
        readings.note(2_400, &load(9.0));
        readings.pass_time(9_000);
        assert_eq!(kept(&mut readings), [], "a peak within a second that is over again is left out");
    }

    #[test]
    fn a_fast_signal_is_one_sample_a_second_in_the_long_run() {
        let mut readings = Readings::default();
        for at in 0..6_000 {
            readings.note(at * 10, &load(at as f64));
        }
        readings.pass_time(60_000);
        let kept = kept(&mut readings);
        assert!((59..=62).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept.last(), Some(&(59_990, N(5_999.0))));
    }

    #[test]
    fn states_counts_and_what_a_model_says_are_never_thinned() {
        let mut readings = Readings::default();
        for at_ms in 0..100 {
            let state = if at_ms % 2 == 0 { MachineState::Producing } else { MachineState::Held };
            let count = Reading::measured(Signal::PartCount, Some(at_ms as f64));
            let power = Reading::modelled(Signal::Power, at_ms as f64);
            readings.note(at_ms, &[Reading::state(state, None), count, power]);
        }
        assert_eq!(kept(&mut readings).len(), 300);
    }

    #[test]
    fn a_machine_that_is_lost_leaves_a_gap_in_every_signal_once() {
        let mut readings = Readings::default();
        readings.note(0, &[Reading::state(MachineState::Producing, None), load(7.0)[0]]);
        readings.note(200, &load(8.0));
        readings.take();
        readings.lose(900);
        let unknown = Value::State(MachineState::Unknown);
        assert_eq!(kept(&mut readings), [(900, unknown), (200, N(8.0)), (900, Value::Gap)]);
        readings.lose(950);
        assert_eq!(kept(&mut readings), []);
        readings.note(1_000, &load(8.0));
        assert_eq!(kept(&mut readings), [(1_000, N(8.0))], "what comes after a gap is kept at once");
        let mut after_a_restart = Readings::default();
        after_a_restart.lose(5);
        assert_eq!(kept(&mut after_a_restart), [(5, unknown)]);
    }

    #[test]
    fn a_clock_that_was_put_back_holds_nothing_up() {
        let mut readings = Readings::default();
        readings.note(3_600_000, &load(1.0));
        readings.note(0, &load(2.0));
        readings.note(1_000, &load(3.0));
        assert_eq!(kept(&mut readings), [(3_600_000, N(1.0)), (0, N(2.0)), (1_000, N(3.0))]);
    }

    #[test]
    fn what_nobody_takes_has_a_limit_and_is_counted() {
        let mut readings = Readings::default();
        for at in 0..READY_MAX as i64 + 10 {
            readings.note(at * 1_000, &load(at as f64));
        }
        assert_eq!((readings.take().len(), readings.take_missed()), (READY_MAX, 10));
        assert_eq!((readings.take().len(), readings.take_missed()), (0, 0));
    }
}
