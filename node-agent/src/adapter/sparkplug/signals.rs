//! What a machine's metrics say. Pure: it knows no brokers.
//!
//! Sparkplug names no metric that every machine has, so every signal is found by the mapping, and the state
//! is what the mapping says of the state's value: unknown for any other value, for none, and for one whose
//! quality is not good.

use super::payload::{Content, Metric};
use crate::adapter::cut;
use crate::adapter::job::Told;
use crate::adapter::mapping::state_named;
use millpool_proto::v1::MachineState;
use std::collections::BTreeMap;

/// Longest text that is taken from a value, bytes.
pub const TEXT_BYTES_MAX: usize = 4_096;
/// The quality of a good value, in a metric's property `Quality`; bad is 0, stale is 500.
const GOOD: u32 = 192;

/// What the agent wants to know of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// The machine's state, by the mapping's table.
    State,
    /// The active program's name.
    Program,
    /// Parts finished.
    PartCount,
    /// Load of the spindle, percent.
    Load,
    /// W after scaling.
    Power,
    /// Wh after scaling.
    Energy,
}

impl Signal {
    /// Every signal, with its name in the config.
    pub const NAMED: [(Self, &'static str); 6] = [
        (Self::State, "state"),
        (Self::Program, "program"),
        (Self::PartCount, "part_count"),
        (Self::Load, "load"),
        (Self::Power, "power"),
        (Self::Energy, "energy"),
    ];

    /// Its name in the config.
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(signal, _)| *signal == self).map_or("", |(_, name)| name)
    }
}

/// A value, as far as anything follows from it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// None, or not a good one.
    Bad,
    /// A number; a boolean is 0 or 1.
    Number(f64),
    /// Words; of a flat topic also a number, as it was written.
    Text(String),
}

impl Value {
    /// A metric's value, by the data type that its birth gave.
    pub fn of(metric: &Metric, datatype: Option<u32>) -> Self {
        let good = metric.property("Quality").and_then(|quality| quality.int).is_none_or(|code| code == GOOD);
        let content = metric.content.as_ref().filter(|_| good && !metric.is_null.unwrap_or(false));
        match content {
            None => Self::Bad,
            Some(Content::Int(bits)) => Self::Number(whole((*bits).into(), datatype)),
            Some(Content::Long(bits)) => Self::Number(whole(*bits, datatype)),
            Some(Content::Float(number)) => Self::Number((*number).into()),
            Some(Content::Double(number)) => Self::Number(*number),
            Some(Content::Boolean(yes)) => Self::Number(f64::from(u8::from(*yes))),
            Some(Content::Text(text)) => Self::Text(cut(text, TEXT_BYTES_MAX).to_owned()),
        }
    }

    /// The value of a topic that is not Sparkplug's: words or a number, as text.
    pub fn flat(payload: &[u8]) -> Self {
        match std::str::from_utf8(payload).map(str::trim) {
            Ok(text) if !text.is_empty() && text.len() <= TEXT_BYTES_MAX => Self::Text(text.to_owned()),
            _ => Self::Bad,
        }
    }

    fn number(&self) -> Option<f64> {
        let number = match self {
            Self::Bad => return None,
            Self::Number(number) => *number,
            Self::Text(text) => text.trim().parse().ok()?,
        };
        number.is_finite().then_some(number)
    }
}

/// A whole number from its bits: two's complement in as many bits as the data type has.
fn whole(bits: u64, datatype: Option<u32>) -> f64 {
    match datatype {
        Some(1) => f64::from(bits as i8),
        Some(2) => f64::from(bits as i16),
        Some(3) => f64::from(bits as i32),
        Some(4) => bits as i64 as f64,
        _ => bits as f64,
    }
}

/// What is known of a machine.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    values: BTreeMap<Signal, Value>,
    /// The states by the state's value.
    states: BTreeMap<String, String>,
}

impl Signals {
    /// Nothing is known yet.
    pub fn new(states: BTreeMap<String, String>) -> Self {
        Self { values: BTreeMap::new(), states }
    }

    /// Nothing is known any more.
    pub fn forget(&mut self) {
        self.values.clear();
    }

    /// Takes a value in, and says what of it is to be told beside the state.
    pub fn take(&mut self, signal: Signal, value: Value, scale: f64) -> Option<Told> {
        let value = match (signal, value.number()) {
            (Signal::PartCount | Signal::Load | Signal::Power | Signal::Energy, Some(number)) => {
                Value::Number(number * scale)
            }
            _ => value,
        };
        self.values.insert(signal, value);
        let number = self.number(signal)?;
        match signal {
            Signal::PartCount => Some(Told::Count(number)),
            Signal::Power => Some(Told::Power(number)),
            Signal::Energy => Some(Told::Meter(number)),
            Signal::State | Signal::Program | Signal::Load => None,
        }
    }

    /// Whether a signal was ever seen, if only to have no value.
    pub fn has(&self, signal: Signal) -> bool {
        self.values.contains_key(&signal)
    }

    /// A signal's value as a number.
    pub fn number(&self, signal: Signal) -> Option<f64> {
        self.values.get(&signal)?.number()
    }

    /// A signal's value in words.
    pub fn words(&self, signal: Signal) -> Option<String> {
        match self.values.get(&signal)? {
            Value::Bad => None,
            Value::Number(number) => Some(number.to_string()),
            Value::Text(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        }
    }

    /// The state that the state's value amounts to.
    pub fn state(&self) -> MachineState {
        let name = self.words(Signal::State).and_then(|words| self.states.get(&words));
        name.and_then(|name| state_named(name)).unwrap_or(MachineState::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::{Properties, Property};
    use super::*;
    use MachineState as State;

    fn metric(content: Content) -> Metric {
        Metric { content: Some(content), ..Metric::default() }
    }

    #[test]
    fn whole_numbers_have_the_sign_of_their_data_type() {
        for (datatype, content, number) in [
            (1, Content::Int(0xff), -1.0),
            (1, Content::Int(0xffff_ffff), -1.0),
            (2, Content::Int(0x8000), -32_768.0),
            (3, Content::Int(0xffff_fffe), -2.0),
            (4, Content::Long(u64::MAX), -1.0),
            (5, Content::Int(0xff), 255.0),
            (7, Content::Int(0xffff_fffe), 4_294_967_294.0),
            (8, Content::Long(1 << 63), 9_223_372_036_854_775_808.0),
            (11, Content::Boolean(true), 1.0),
            (9, Content::Float(0.5), 0.5),
        ] {
            assert_eq!(
                Value::of(&metric(content.clone()), Some(datatype)),
                Value::Number(number),
                "{content:?}"
            );
        }
    }

    #[test]
    fn the_state_is_what_the_table_says_and_unknown_for_anything_else() {
        let states = [("2", "producing"), ("AUS", "off")].map(|(value, state)| (value.into(), state.into()));
        let mut signals = Signals::new(states.into());
        assert_eq!(signals.state(), State::Unknown);
        let stale = Properties {
            keys: vec!["engUnit".into(), "Quality".into()],
            values: vec![Property::default(), Property { int: Some(500), text: None }],
        };
        let good = metric(Content::Int(2));
        for (value, state) in [
            (Value::of(&good, None), State::Producing),
            (Value::of(&Metric { properties: Some(stale), ..good.clone() }, None), State::Unknown),
            (Value::of(&metric(Content::Text("AUS".into())), None), State::Off),
            (Value::of(&Metric { is_null: Some(true), ..good.clone() }, None), State::Unknown),
            (Value::flat(b" 2\n"), State::Producing),
            (Value::flat(b"\xff"), State::Unknown),
            (Value::of(&metric(Content::Int(3)), None), State::Unknown),
        ] {
            signals.take(Signal::State, value.clone(), 1.0);
            assert_eq!(signals.state(), state, "{value:?}");
        }
    }

    #[test]
    fn numbers_are_scaled_and_names_stay_as_they_are_written() {
        let mut signals = Signals::default();
        assert_eq!(signals.take(Signal::Power, Value::flat(b"1.5"), 1e3), Some(Told::Power(1_500.0)));
        assert_eq!(signals.take(Signal::Power, Value::Number(f64::NAN), 1e3), None);
        assert_eq!(signals.number(Signal::Power), None);
        signals.take(Signal::Program, Value::flat(b"0815"), 1.0);
        assert_eq!(signals.words(Signal::Program).as_deref(), Some("0815"));
    }
}
