//! One machine's history, from the values of its signals. Pure: it is given values and the time, and answers
//! with what happened.
//!
//! A birth tells how everything is now, whenever it became so; its values are taken in together, at the time
//! at which it comes. Values after it have their own times, and those of one moment belong together.

use super::host::Seen;
use super::signals::{Signal, Signals};
use crate::adapter::history::{History, Rules, moments};
use crate::adapter::job::Told;
use crate::adapter::mapping::SignalTable;
use crate::adapter::shop::Watched;
use crate::adapter::{Happened, Time};
use crate::samples::{Reading, Readings};
use std::collections::BTreeMap;

/// One machine's history.
pub struct Watch {
    time: Time,
    scales: BTreeMap<Signal, f64>,
    signals: Signals,
    /// All that is remembered through a restart.
    history: History,
    readings: Readings,
}

impl Watch {
    /// A watch as it remembers itself. What is not understood is forgotten: it begins anew.
    pub fn new(rules: Rules, signals: &BTreeMap<Signal, SignalTable>, memory: Option<&[u8]>) -> Self {
        let mut history: History =
            memory.and_then(|memory| serde_json::from_slice(memory).ok()).unwrap_or_default();
        history.rules = rules;
        let states = signals.get(&Signal::State).map(|table| table.values.clone()).unwrap_or_default();
        let scales = signals.iter().map(|(signal, table)| (*signal, table.scale)).collect();
        let (signals, readings) = (Signals::new(states), Readings::default());
        Self { time: Time::Arrival, scales, signals, history, readings }
    }

    /// What was known may have changed unseen.
    pub fn forget(&mut self) {
        self.signals.forget();
    }

    /// A value that comes while the machine is not seen: it counts when it is.
    pub fn hold(&mut self, seen: Seen) {
        self.take(seen);
    }

    /// The machine is seen, and so it is now. Where something may have been missed since it was seen last,
    /// with the reason, there is a hole in the evidence.
    pub fn born(&mut self, seen: Vec<Seen>, now_ms: i64, missed: Option<&str>, time: Time) -> Vec<Happened> {
        let mut happened = Vec::new();
        self.time = time;
        let told: Vec<_> = seen.into_iter().filter_map(|seen| self.take(seen)).collect();
        let lost = self.history.find();
        if self.history.begun() && (lost || missed.is_some()) {
            self.history.gap(now_ms, missed.unwrap_or("the machine was not seen"), &mut happened);
        }
        self.history.settle(now_ms, self.signals.state(), &told, "", &mut happened);
        self.note(now_ms);
        self.history.seen(now_ms);
        happened
    }

    /// Values that came together, and the time.
    pub fn tell(&mut self, mut seen: Vec<Seen>, now_ms: i64) -> Vec<Happened> {
        let mut happened = Vec::new();
        let time = self.time;
        for (at_ms, moment) in moments(&mut seen, |seen| time.of(seen.at_ms, now_ms)) {
            let told: Vec<_> = moment.iter().cloned().filter_map(|seen| self.take(seen)).collect();
            self.history.settle(at_ms, self.signals.state(), &told, "", &mut happened);
            self.note(at_ms);
        }
        self.history.pass_time(now_ms, "", &mut happened);
        self.readings.pass_time(now_ms);
        self.history.seen(now_ms);
        happened
    }

    fn take(&mut self, seen: Seen) -> Option<Told> {
        let scale = self.scales.get(&seen.signal).copied().unwrap_or(1.0);
        self.signals.take(seen.signal, seen.value, scale)
    }
}

impl Watched for Watch {
    fn history(&self) -> &History {
        &self.history
    }

    fn history_mut(&mut self) -> &mut History {
        &mut self.history
    }

    fn memory(&self) -> Vec<u8> {
        serde_json::to_vec(&self.history).unwrap_or_default()
    }

    fn program(&self) -> Option<String> {
        self.signals.words(Signal::Program)
    }

    fn read(&self) -> Vec<Reading> {
        let signals = &self.signals;
        let (has, number) = (|signal| signals.has(signal), |signal| signals.number(signal));
        Reading::of_machine(self.history.state(), &Signal::NAMED, has, number)
    }

    fn readings_mut(&mut self) -> &mut Readings {
        &mut self.readings
    }
}

#[cfg(test)]
mod tests {
    use super::super::signals::Value;
    use super::*;
    use crate::adapter::mapping::SignalFile;
    use millpool_proto::v1::MachineState;
    use millpool_proto::v1::agent_event::What;

    fn watch(memory: Option<&[u8]>) -> Watch {
        let table: SignalTable = SignalFile::Source("State".to_owned()).into();
        let values = [("1", "idle"), ("2", "producing"), ("3", "setup")];
        let values = values.map(|(value, state)| (value.to_owned(), state.to_owned())).into();
        let signals = [(Signal::State, SignalTable { values, ..table })].into();
        Watch::new(Rules::default(), &signals, memory)
    }

    fn seen(at_ms: i64, state: f64) -> Seen {
        Seen { signal: Signal::State, at_ms: Some(at_ms), value: Value::Number(state) }
    }

    /// States, and gaps as (from, until).
    fn told(happened: &[Happened]) -> Vec<(i64, String)> {
        let words = |happened: &Happened| match &happened.what {
            What::StateChanged(changed) => Some((happened.at_ms, format!("{:?}", changed.state()))),
            What::EvidenceGap(gap) => {
                Some((happened.at_ms, format!("gap {} to {}: {}", gap.from_ms, gap.until_ms, gap.reason)))
            }
            _ => None,
        };
        happened.iter().filter_map(words).collect()
    }

    #[test]
    fn a_birth_is_what_is_true_now_and_later_values_have_their_own_time() {
        let mut watch = watch(None);
        let happened = watch.born(vec![seen(5, 1.0)], 10_000, None, Time::Source);
        assert_eq!(told(&happened), [(10_000, "Idle".to_owned())]);
        let happened = watch.tell(vec![seen(12_000, 3.0), seen(11_000, 2.0)], 12_100);
        assert_eq!(told(&happened), [(11_000, "Producing".to_owned()), (12_000, "Setup".to_owned())]);
        // A clock that is ahead does not hold back what comes after.
        let happened = watch.tell(vec![seen(99_000, 1.0)], 13_000);
        assert_eq!(told(&happened), [(13_000, "Idle".to_owned())]);
        let happened = watch.tell(vec![seen(13_500, 2.0)], 13_600);
        assert_eq!(told(&happened), [(13_500, "Producing".to_owned())]);
    }

    #[test]
    fn what_is_read_is_sampled_with_its_own_time_and_its_unit() {
        use crate::samples::{Signal as Sampled, Value as Kept};
        let mut watch = watch(None);
        let count = |at_ms, number| Seen {
            signal: Signal::PartCount,
            at_ms: Some(at_ms),
            value: Value::Number(number),
        };
        watch.born(vec![seen(5, 2.0), count(5, 7.0)], 10_000, None, Time::Source);
        watch.tell(vec![count(11_000, 8.0), count(11_300, 9.0)], 11_500);
        let kept = watch.readings_mut().take();
        let kept: Vec<_> = kept
            .into_iter()
            .map(|(at_ms, reading)| (at_ms, reading.signal, reading.value, reading.unit.name()))
            .collect();
        let expected = [
            (10_000, Sampled::State, Kept::State(MachineState::Producing), ""),
            (10_000, Sampled::PartCount, Kept::Number(7.0), "pcs"),
            (11_000, Sampled::PartCount, Kept::Number(8.0), "pcs"),
            (11_300, Sampled::PartCount, Kept::Number(9.0), "pcs"),
        ];
        assert_eq!(kept, expected, "a count is never thinned");
    }

    #[test]
    fn a_rebirth_is_no_hole_and_what_was_missed_is_one_without_an_unknown_state() {
        let mut watch = watch(None);
        watch.born(vec![seen(0, 2.0)], 1_000, None, Time::Source);
        watch.tell(Vec::new(), 5_000);
        assert_eq!(told(&watch.born(vec![seen(0, 2.0)], 6_000, None, Time::Source)), []);
        let happened = watch.born(vec![seen(0, 1.0)], 8_000, Some("lost"), Time::Source);
        let gap = (8_000, "gap 6000 to 8000: lost".to_owned());
        assert_eq!(told(&happened), [gap, (8_000, "Idle".to_owned())]);
    }

    #[test]
    fn what_was_lost_is_unknown_from_when_it_was_seen_last_through_a_restart_too() {
        let mut first = watch(None);
        first.born(vec![seen(0, 2.0)], 1_000, None, Time::Source);
        first.tell(Vec::new(), 5_000);
        let mut again = watch(Some(&first.memory()));
        assert_eq!(again.history().state(), MachineState::Producing);
        assert_eq!(told(&again.history_mut().lose()), [(5_000, "Unknown".to_owned())]);
        assert_eq!(told(&again.history_mut().lose()), []);
        let happened = again.born(vec![seen(0, 2.0)], 9_000, None, Time::Source);
        let gap = (9_000, "gap 5000 to 9000: the machine was not seen".to_owned());
        assert_eq!(told(&happened), [gap, (9_000, "Producing".to_owned())]);
    }
}
