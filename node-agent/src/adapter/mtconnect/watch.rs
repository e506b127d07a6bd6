//! What the observations mean: a machine's history, from Streams documents.
//!
//! [`Watch`] is pure: it is given documents and the time, and answers with what happened. It knows no
//! sockets; [`super::run`] knows no states. It keeps its own place in the stream, so that after a restart
//! it goes on reading where it stopped, and nothing is counted twice.
//!
//! Observations of one instant are taken in together before a state is derived, so that a controller
//! which reports execution and mode in one line never shows a state between the two. What happens is
//! told in the time of the observations, and that time never goes back.

use super::Options;
use super::document::{Header, Observation};
use super::signals::{Mapping, Signal, Signals};
use crate::adapter::history::History;
use crate::adapter::job::Told;
use crate::adapter::shop::Watched;
use crate::adapter::{Happened, Time};
use crate::samples::{Reading, Readings};
use serde::{Deserialize, Serialize};

/// What a watch remembers through a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Memory {
    instance_id: u64,
    /// Where to go on reading; 0 before the first document.
    next_seq: u64,
    signals: Signals,
    #[serde(flatten)]
    history: History,
}

/// One machine's history.
pub struct Watch {
    options: Options,
    mapping: Mapping,
    memory: Memory,
    readings: Readings,
}

impl Watch {
    /// A watch as it remembers itself. What is not understood is forgotten: it begins anew.
    pub fn new(options: Options, memory: Option<&[u8]>) -> Self {
        let mut memory: Memory =
            memory.and_then(|memory| serde_json::from_slice(memory).ok()).unwrap_or_default();
        memory.history.rules = options.rules;
        Self { options, mapping: Mapping::default(), memory, readings: Readings::default() }
    }

    /// The data items that the machine has.
    pub fn set_mapping(&mut self, mapping: Mapping) {
        self.mapping = mapping;
    }

    /// Whether anything is to be learnt from a data item.
    pub fn wants(&self, item_id: &str) -> bool {
        self.mapping.wants(item_id)
    }

    /// The instance and the number to read on from, if there is one.
    pub fn place(&self) -> Option<(u64, u64)> {
        (self.memory.next_seq > 0).then_some((self.memory.instance_id, self.memory.next_seq))
    }

    /// A current document: everything as it is now. If the machine was seen before, what lies between is a
    /// gap in the evidence.
    pub fn current(
        &mut self,
        header: Header,
        seen: &[Observation],
        arrival_ms: i64,
        why: &str,
    ) -> Vec<Happened> {
        let now_ms = self.now_ms(&header, seen, arrival_ms);
        let mut happened = Vec::new();
        if self.memory.next_seq > 0 {
            happened.extend(self.memory.history.lose());
            self.memory.history.gap(now_ms, why, &mut happened);
        }
        self.memory.signals = Signals::new(&self.mapping);
        let mut changed = Vec::new();
        for observation in seen {
            changed.extend(self.memory.signals.take(&self.mapping, observation));
        }
        // A completed program may have been completed long ago.
        changed.retain(|signal| *signal != Signal::Execution);
        self.settle(now_ms, &changed, &mut happened);
        self.read_up_to(header, now_ms);
        happened
    }

    /// A sample document, of the instance and from the number that [`Watch::place`] names.
    pub fn sample(&mut self, header: Header, seen: &[Observation], arrival_ms: i64) -> Vec<Happened> {
        let mut happened = Vec::new();
        let now_ms = self.now_ms(&header, seen, arrival_ms);
        let recovered = self.memory.history.find();
        if recovered {
            // The buffer tells what went on meanwhile; the state before it is the one that was seen last.
            self.settle(self.memory.history.told_ms(), &[], &mut happened);
        }
        if header.first_seq > self.memory.next_seq {
            self.memory.history.gap(
                now_ms,
                "observations left the MTConnect agent's buffer unread",
                &mut happened,
            );
        }
        let unread = seen.partition_point(|observation| observation.seq < self.memory.next_seq);
        let mut rest = &seen[unread..];
        while let Some(first) = rest.first() {
            let at_ms = self.stamp(first, arrival_ms);
            let together = rest.partition_point(|observation| self.stamp(observation, arrival_ms) <= at_ms);
            let (instant, later) = rest.split_at(together.max(1));
            let signals =
                instant.iter().filter_map(|observation| self.memory.signals.take(&self.mapping, observation));
            let changed: Vec<_> = signals.collect();
            self.settle(at_ms, &changed, &mut happened);
            rest = later;
        }
        if recovered {
            self.memory.history.gap(
                now_ms,
                "no line to the MTConnect agent; its buffer was read afterwards",
                &mut happened,
            );
        }
        let faults = self.memory.signals.faults();
        self.memory.history.pass_time(now_ms, &faults, &mut happened);
        self.readings.pass_time(now_ms);
        self.read_up_to(header, now_ms);
        happened
    }

    /// Everything of one instant is taken in: what state is it, and what follows?
    fn settle(&mut self, at_ms: i64, changed: &[Signal], happened: &mut Vec<Happened>) {
        let state = self.memory.signals.state();
        let completed = self.memory.signals.value(Signal::Execution) == Some("PROGRAM_COMPLETED");
        let told = changed.iter().filter_map(|signal| {
            let number = self.memory.signals.number(*signal);
            match signal {
                Signal::PartCount => number.map(Told::Count),
                Signal::Power => number.map(Told::Power),
                Signal::Energy => number.map(Told::Meter),
                Signal::Execution if completed => Some(Told::Completed),
                _ => None,
            }
        });
        let told: Vec<_> = told.collect();
        let faults = self.memory.signals.faults();
        self.memory.history.settle(at_ms, state, &told, &faults, happened);
        self.note(at_ms);
    }

    fn read_up_to(&mut self, header: Header, now_ms: i64) {
        self.memory.instance_id = header.instance_id;
        self.memory.next_seq = header.next_seq.max(1);
        self.memory.history.seen(now_ms);
    }

    fn stamp(&self, observation: &Observation, arrival_ms: i64) -> i64 {
        match self.options.time {
            Time::Source => observation.at_ms,
            Time::Arrival => arrival_ms,
        }
    }

    /// The time of a document: the MTConnect agent's clock, which has seconds only, so an observation in
    /// the document may be later.
    fn now_ms(&self, header: &Header, seen: &[Observation], arrival_ms: i64) -> i64 {
        match (self.options.time, header.created_ms) {
            (Time::Source, Some(created_ms)) => {
                let last_ms = seen.iter().map(|observation| observation.at_ms).max();
                last_ms.map_or(created_ms, |last_ms| last_ms.max(created_ms))
            }
            _ => arrival_ms,
        }
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
        self.memory.signals.value(Signal::Program).map(str::to_owned)
    }

    fn read(&self) -> Vec<Reading> {
        let signals = &self.memory.signals;
        let (has, number) = (|signal| signals.has(signal), |signal| signals.number(signal));
        Reading::of_machine(self.memory.history.state(), &Signal::NAMED, has, number)
    }

    fn readings_mut(&mut self) -> &mut Readings {
        &mut self.readings
    }
}
