//! What the observations mean: a machine's history, from Streams documents.
//!
//! [`Watch`] is pure: it is given documents and the time, and answers with what happened. It knows no
//! sockets; [`super::run`] knows no states. It keeps its own place in the stream, so that after a restart
//! it goes on reading where it stopped, and nothing is counted twice.
//!
//! Observations of one instant are taken in together before a state is derived, so that a controller
//! which reports execution and mode in one line never shows a state between the two. What happens is
//! told in the time of the observations, and that time never goes back.

use super::document::{Header, Observation};
use super::job::{self, Downtime, Follower, Told};
use super::signals::{Mapping, Signal, Signals};
use super::{Options, Time};
use crate::adapter::Happened;
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{DispatchItem, EvidenceGap, MachineState, StateChanged};
use serde::{Deserialize, Serialize};

/// What a watch remembers through a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Memory {
    instance_id: u64,
    /// Where to go on reading; 0 before the first document.
    next_seq: u64,
    signals: Signals,
    /// The state that was told last.
    state: i32,
    /// When the last thing told happened.
    told_ms: i64,
    /// Until when the machine was seen.
    seen_ms: i64,
    /// It is not seen now.
    lost: bool,
    follower: Follower,
    downtime: Downtime,
}

/// One machine's history.
pub struct Watch {
    options: Options,
    mapping: Mapping,
    memory: Memory,
}

impl Watch {
    /// A watch as it remembers itself. What is not understood is forgotten: it begins anew.
    pub fn new(options: Options, memory: Option<&[u8]>) -> Self {
        let memory = memory.and_then(|memory| serde_json::from_slice(memory).ok()).unwrap_or_default();
        Self { options, mapping: Mapping::default(), memory }
    }

    /// What it would remember.
    pub fn memory(&self) -> Vec<u8> {
        serde_json::to_vec(&self.memory).unwrap_or_default()
    }

    /// The data items that the machine has.
    pub fn set_mapping(&mut self, mapping: Mapping) {
        self.mapping = mapping;
    }

    /// The machine's items on the dispatch list.
    pub fn set_items(&mut self, items: Vec<DispatchItem>) {
        if self.options.follow_dispatch {
            self.memory.follower.set_items(items);
        }
    }

    /// Whether anything is to be learnt from a data item.
    pub fn wants(&self, item_id: &str) -> bool {
        self.mapping.wants(item_id)
    }

    /// The instance and the number to read on from, if there is one.
    pub fn place(&self) -> Option<(u64, u64)> {
        (self.memory.next_seq > 0).then_some((self.memory.instance_id, self.memory.next_seq))
    }

    /// The machine's state, as it was told last.
    pub fn state(&self) -> MachineState {
        MachineState::try_from(self.memory.state).unwrap_or(MachineState::Unknown)
    }

    /// The operation at hand.
    pub fn operation(&self) -> Option<(&str, u32)> {
        self.memory.follower.operation()
    }

    /// The program that is active, if the machine says.
    pub fn program(&self) -> Option<&str> {
        self.memory.signals.value(Signal::Program)
    }

    /// A signal's value as a number.
    pub fn number(&self, signal: Signal) -> Option<f64> {
        self.memory.signals.number(signal)
    }

    /// The machine is not seen any more: its state is unknown from when it was seen last.
    pub fn lost(&mut self) -> Vec<Happened> {
        if self.memory.lost || self.memory.next_seq == 0 {
            return Vec::new();
        }
        self.memory.lost = true;
        let mut happened = Vec::new();
        self.turn(self.memory.seen_ms, MachineState::Unknown, &mut happened);
        happened
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
            happened.extend(self.lost());
            self.gap(now_ms, why, &mut happened);
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
        let recovered = std::mem::take(&mut self.memory.lost);
        if recovered {
            // The buffer tells what went on meanwhile; the state before it is the one that was seen last.
            self.settle(self.memory.told_ms, &[], &mut happened);
        }
        if header.first_seq > self.memory.next_seq {
            self.gap(now_ms, "observations left the MTConnect agent's buffer unread", &mut happened);
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
            self.gap(now_ms, "no line to the MTConnect agent; its buffer was read afterwards", &mut happened);
        }
        self.pass_time(now_ms, &mut happened);
        self.read_up_to(header, now_ms);
        happened
    }

    /// Nothing but time has passed. It does not count as told: an observation that is on its way may be a
    /// little older, and keeps its own time.
    fn pass_time(&mut self, now_ms: i64, happened: &mut Vec<Happened>) {
        self.tell(now_ms, Told::Time, happened);
        let faults = self.memory.signals.faults();
        happened.extend(self.memory.downtime.tell(now_ms, self.state(), &faults, self.options.down_after_s));
    }

    /// Everything of one instant is taken in: what state is it, and what follows?
    fn settle(&mut self, at_ms: i64, changed: &[Signal], happened: &mut Vec<Happened>) {
        let at_ms = at_ms.max(self.memory.told_ms);
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
        self.turn(at_ms, state, happened);
        for told in told {
            self.tell(at_ms, told, happened);
        }
        self.memory.told_ms = at_ms;
        self.pass_time(at_ms, happened);
    }

    fn turn(&mut self, at_ms: i64, state: MachineState, happened: &mut Vec<Happened>) {
        if self.state() == state && self.memory.next_seq > 0 {
            return;
        }
        let at_ms = at_ms.max(self.memory.told_ms);
        self.memory.told_ms = at_ms;
        self.memory.state = state.into();
        happened.push(Happened { at_ms, what: What::StateChanged(StateChanged { state: state.into() }) });
        self.tell(at_ms, Told::State(state), happened);
    }

    fn tell(&mut self, at_ms: i64, told: Told, happened: &mut Vec<Happened>) {
        if self.options.follow_dispatch {
            let options = job::Options { progress_s: self.options.progress_s, power: self.options.power };
            happened.extend(self.memory.follower.tell(at_ms, told, &options));
        }
    }

    fn gap(&mut self, now_ms: i64, why: &str, happened: &mut Vec<Happened>) {
        let from_ms = self.memory.seen_ms;
        if now_ms <= from_ms {
            return;
        }
        let gap = EvidenceGap { from_ms, until_ms: now_ms, reason: why.chars().take(200).collect() };
        happened.push(Happened { at_ms: now_ms, what: What::EvidenceGap(gap) });
    }

    fn read_up_to(&mut self, header: Header, now_ms: i64) {
        self.memory.instance_id = header.instance_id;
        self.memory.next_seq = header.next_seq.max(1);
        self.memory.seen_ms = now_ms.max(self.memory.seen_ms);
        self.memory.lost = false;
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
