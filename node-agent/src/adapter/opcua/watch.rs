//! One machine's history, from the values of its variables. Pure: it is given values and the time, and
//! answers with what happened.
//!
//! When the watching begins, each variable's value is told once, with a time that may be long ago: they
//! are gathered, and taken in together as what is true now. Afterwards values are taken in the order of
//! their times; those of one moment, together, so that no state is seen between two that belong together.

use super::discover::{Capability, Variable};
use super::signals::{Facet, Signal, Signals, Value};
use crate::adapter::history::{History, Rules, moments};
use crate::adapter::job::Told;
use crate::adapter::mapping::SignalTable;
use crate::adapter::shop::Watched;
use crate::adapter::{Happened, Time};
use crate::samples::{Reading, Readings};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A value, as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Which of the watched variables.
    pub variable: usize,
    /// The machine's time, or else the server's, ms since the Unix epoch; none where neither told it.
    pub at_ms: Option<i64>,
    /// The value.
    pub value: Value,
    /// The server had no room for others before it.
    pub overflowed: bool,
}

/// What a watch remembers through a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Memory {
    capability: Option<Capability>,
    #[serde(flatten)]
    history: History,
}

/// One machine's history.
pub struct Watch {
    time: Time,
    variables: Vec<Variable>,
    signals: Signals,
    /// The variables that have not told their first value.
    awaited: BTreeSet<usize>,
    memory: Memory,
    readings: Readings,
}

impl Watch {
    /// A watch as it remembers itself. What is not understood is forgotten: it begins anew.
    pub fn new(rules: Rules, memory: Option<&[u8]>) -> Self {
        let mut memory: Memory =
            memory.and_then(|memory| serde_json::from_slice(memory).ok()).unwrap_or_default();
        memory.history.rules = rules;
        Self {
            time: Time::Source,
            variables: Vec::new(),
            signals: Signals::default(),
            awaited: BTreeSet::new(),
            memory,
            readings: Readings::default(),
        }
    }

    /// What the machine could do when it was found last.
    pub fn capability(&self) -> Option<&Capability> {
        self.memory.capability.as_ref()
    }

    /// The machine was found: from now on these are its variables, and nothing is known of them yet.
    pub fn begin(
        &mut self,
        capability: Capability,
        variables: Vec<Variable>,
        signals: &BTreeMap<Signal, SignalTable>,
        time: Time,
    ) {
        self.time = time;
        let values = |signal| signals.get(&signal).map(|table| table.values.clone());
        let kinds = variables.iter().map(|variable| (variable.signal, variable.facet));
        let doors = values(Signal::Door).unwrap_or_default();
        self.signals = Signals::new(kinds, values(Signal::State)).with_doors(doors);
        self.awaited = (0..variables.len()).collect();
        self.variables = variables;
        self.memory.capability = Some(capability);
    }

    /// The variables that are watched.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// What they say.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// This variable will tell nothing.
    pub fn give_up_on(&mut self, variable: usize) {
        self.awaited.remove(&variable);
    }

    /// Whether a variable has not told its first value.
    pub fn awaits(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// First values: gathered until each variable has told its own.
    pub fn gather(&mut self, seen: Vec<Seen>) {
        for seen in seen {
            self.awaited.remove(&seen.variable);
            self.take(seen);
        }
    }

    /// Everything is as it was gathered. If the machine was seen before, what lies between is a hole in
    /// the evidence.
    pub fn settle(&mut self, now_ms: i64, why: &str) -> Vec<Happened> {
        let mut happened = Vec::new();
        self.awaited.clear();
        if self.memory.history.begun() {
            happened.extend(self.memory.history.lose());
            self.memory.history.gap(now_ms, why, &mut happened);
        }
        let told: Vec<_> = [Signal::PartCount, Signal::Power, Signal::Energy]
            .into_iter()
            .filter_map(|signal| {
                let number = self.signals.number(signal)?;
                self.signals.take(signal, Facet::Value, Value::Number(number))
            })
            .collect();
        self.memory.history.settle(now_ms, self.signals.state(), &told, "", &mut happened);
        self.note(now_ms);
        if let Some(jobs) = self.signals.jobs() {
            self.memory.history.list(now_ms, &jobs, &mut happened);
        }
        self.memory.history.seen(now_ms);
        happened
    }

    /// Values that came together, and the time.
    pub fn tell(&mut self, mut seen: Vec<Seen>, now_ms: i64) -> Vec<Happened> {
        let mut happened = Vec::new();
        let recovered = self.memory.history.find();
        if recovered {
            let (told_ms, state) = (self.memory.history.told_ms(), self.signals.state());
            self.memory.history.settle(told_ms, state, &[], "", &mut happened);
            self.note(told_ms);
        }
        let overflowed = seen.iter().any(|seen| seen.overflowed);
        let time = self.time;
        for (at_ms, moment) in moments(&mut seen, |seen| time.of(seen.at_ms, now_ms)) {
            let told: Vec<_> = moment.iter().cloned().filter_map(|seen| self.take(seen)).collect();
            self.memory.history.settle(at_ms, self.signals.state(), &told, "", &mut happened);
            self.note(at_ms);
            let listed = moment.iter().any(|seen| matches!(seen.value, Value::Jobs(_)));
            if let Some(jobs) = self.signals.jobs().filter(|_| listed) {
                self.memory.history.list(at_ms, &jobs, &mut happened);
            }
        }
        if overflowed {
            self.memory.history.gap(now_ms, "the server had no room for all values", &mut happened);
        } else if recovered {
            let why = "no line to the server; what it kept was read afterwards";
            self.memory.history.gap(now_ms, why, &mut happened);
        }
        self.memory.history.pass_time(now_ms, "", &mut happened);
        self.readings.pass_time(now_ms);
        self.memory.history.seen(now_ms);
        happened
    }

    fn take(&mut self, seen: Seen) -> Option<Told> {
        let variable = self.variables.get(seen.variable)?;
        let value = match seen.value {
            Value::Number(number) => Value::Number(number * variable.scale),
            other => other,
        };
        self.signals.take(variable.signal, variable.facet, value)
    }
}

impl Watched for Watch {
    fn history(&self) -> &History {
        &self.memory.history
    }

    fn history_mut(&mut self) -> &mut History {
        &mut self.memory.history
    }

    fn memory(&self) -> Vec<u8> {
        serde_json::to_vec(&self.memory).unwrap_or_default()
    }

    fn program(&self) -> Option<String> {
        self.signals.text(Signal::Program).map(str::to_owned)
    }

    fn read(&self) -> Vec<Reading> {
        let signals = &self.signals;
        let (has, number) = (|signal| signals.has(signal), |signal| signals.number(signal));
        Reading::of_machine(self.memory.history.state(), &Signal::NAMED, has, number)
    }

    fn readings_mut(&mut self) -> &mut Readings {
        &mut self.readings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpool_proto::v1::MachineState;
    use millpool_proto::v1::agent_event::What;
    use opcua_types::NodeId;

    fn watch() -> Watch {
        let variable = |signal, facet, scale| Variable { node: NodeId::null(), signal, facet, scale };
        let mut watch = Watch::new(Rules::default(), None);
        let variables = vec![
            variable(Signal::ItemState, Facet::Text, 1.0),
            variable(Signal::OperationMode, Facet::Text, 1.0),
            variable(Signal::Power, Facet::Value, 1000.0),
        ];
        watch.begin(Capability::default(), variables, &BTreeMap::new(), Time::Source);
        watch
    }

    fn seen(variable: usize, at_ms: i64, value: Value) -> Seen {
        Seen { variable, at_ms: Some(at_ms), value, overflowed: false }
    }

    fn text(value: &str) -> Value {
        Value::Text(value.to_owned())
    }

    fn states(happened: &[Happened]) -> Vec<(i64, MachineState)> {
        let state = |happened: &Happened| match &happened.what {
            What::StateChanged(changed) => Some((happened.at_ms, changed.state())),
            _ => None,
        };
        happened.iter().filter_map(state).collect()
    }

    #[test]
    fn first_values_are_what_is_true_now_and_later_ones_have_their_own_time() {
        let mut watch = watch();
        watch.gather(vec![seen(0, 5, text("NotExecuting")), seen(2, 7, Value::Number(3.4))]);
        assert!(watch.awaits());
        watch.gather(vec![seen(1, 6, text("None"))]);
        assert!(!watch.awaits());
        assert_eq!(states(&watch.settle(10_000, "")), [(10_000, MachineState::Idle)]);
        assert_eq!(watch.signals.number(Signal::Power), Some(3_400.0));
        let happened = watch.tell(
            vec![
                seen(0, 12_000, text("NotExecuting")),
                seen(0, 11_000, text("Executing")),
                seen(1, 11_010, text("Setup")),
            ],
            12_100,
        );
        assert_eq!(states(&happened), [(11_010, MachineState::Setup)]);
    }

    #[test]
    fn a_state_that_comes_behind_its_time_is_kept_as_it_is_told() {
        use crate::samples::Signal as Sampled;
        let mut watch = watch();
        watch.gather(vec![seen(0, 5, text("Executing")), seen(1, 5, text("None"))]);
        watch.gather(vec![seen(2, 7, Value::Number(3.4))]);
        watch.settle(10_000, "");
        watch.readings_mut().take();
        watch.tell(vec![seen(2, 15_000, Value::Number(3.5))], 15_100);
        let told = watch.tell(vec![seen(0, 14_000, text("NotExecuting"))], 15_200);
        assert_eq!(states(&told), [(15_000, MachineState::Idle)]);
        let kept = watch.readings_mut().take().into_iter();
        let kept: Vec<_> =
            kept.filter(|(_, reading)| reading.signal == Sampled::State).map(|(at_ms, _)| at_ms).collect();
        assert_eq!(kept, [15_000]);
    }

    #[test]
    fn what_is_read_is_sampled_with_its_own_time_and_scale_and_a_bad_value_is_none() {
        use crate::samples::{Signal as Sampled, Value as Kept};
        let mut watch = watch();
        watch.gather(vec![seen(0, 5, text("Executing")), seen(1, 5, text("None"))]);
        watch.gather(vec![seen(2, 7, Value::Number(3.4))]);
        watch.settle(10_000, "");
        watch.tell(
            vec![
                seen(2, 11_000, Value::Number(3.5)),
                seen(2, 13_000, Value::Number(3.5)),
                seen(2, 14_000, Value::Bad),
                seen(0, 15_000, text("NotExecuting")),
            ],
            15_100,
        );
        let kept: Vec<_> = watch
            .readings_mut()
            .take()
            .into_iter()
            .map(|(at_ms, reading)| (at_ms, reading.signal, reading.value, reading.unit.name()))
            .collect();
        let expected = [
            (10_000, Sampled::State, Kept::State(MachineState::Producing), ""),
            (10_000, Sampled::Power, Kept::Number(3_400.0), "W"),
            (11_000, Sampled::Power, Kept::Number(3_500.0), "W"),
            (14_000, Sampled::Power, Kept::Gap, "W"),
            (15_000, Sampled::State, Kept::State(MachineState::Idle), ""),
        ];
        assert_eq!(kept, expected);
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_hold_back_what_comes_after() {
        let mut watch = watch();
        watch.settle(1_000, "");
        let happened = watch.tell(vec![seen(0, 3_600_000, text("Executing"))], 2_000);
        assert_eq!(states(&happened), [(2_000, MachineState::Producing)]);
        let happened = watch.tell(vec![seen(0, 3_000, text("NotExecuting"))], 3_010);
        assert_eq!(states(&happened), [(3_000, MachineState::Idle)]);
    }

    #[test]
    fn what_was_not_seen_is_a_gap_and_unknown() {
        let mut watch = watch();
        watch.gather(vec![seen(0, 5, text("Executing"))]);
        watch.settle(1_000, "");
        watch.tell(Vec::new(), 5_000);
        assert_eq!(states(&watch.history_mut().lose()), [(5_000, MachineState::Unknown)]);
        watch.begin(Capability::default(), watch.variables.clone(), &BTreeMap::new(), Time::Source);
        watch.gather(vec![seen(0, 6_000, text("Executing"))]);
        let happened = watch.settle(9_000, "the server restarted");
        let gap = happened.iter().find_map(|happened| match &happened.what {
            What::EvidenceGap(gap) => Some((gap.from_ms, gap.until_ms, gap.reason.as_str())),
            _ => None,
        });
        assert_eq!(gap, Some((5_000, 9_000, "the server restarted")));
        assert_eq!(states(&happened), [(9_000, MachineState::Producing)]);
    }

    #[test]
    fn memory_comes_back_with_the_capability() {
        let mut watch = watch();
        watch.gather(vec![seen(0, 5, text("Executing"))]);
        watch.settle(1_000, "");
        let again = Watch::new(Rules::default(), Some(&watch.memory()));
        assert_eq!(again.history().state(), MachineState::Producing);
        assert_eq!(again.capability(), Some(&Capability::default()));
    }
}
