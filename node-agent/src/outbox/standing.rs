//! What was told of machines and still holds: the state that each is in, that it is down, the operation in its hands, and
//! the last that were finished.
//!
//! A coordinator that has forgotten what it acknowledged, as one does that was restored from a backup, is told it again;
//! what it knows after all it refuses. It is known as far as it was told since the start or is on disk: an adapter that
//! starts tells its machine's state anyway.

use millpool_proto::v1::AgentEvent;
use millpool_proto::v1::agent_event::What;
use std::collections::{BTreeMap, VecDeque};

/// Finished operations that are remembered.
const FINISHED_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    State,
    Outage,
    Work,
}

/// What holds, as the events that told it.
#[derive(Debug, Default)]
pub struct Standing {
    of_machines: BTreeMap<(String, Kind), AgentEvent>,
    finished: VecDeque<AgentEvent>,
}

impl Standing {
    /// Something was told.
    pub fn take(&mut self, event: &AgentEvent) {
        match &event.what {
            Some(What::StateChanged(_)) => self.put(Kind::State, event),
            Some(What::MachineDown(_)) => self.put(Kind::Outage, event),
            Some(What::MachineUp(_)) => self.end(Kind::Outage, event),
            Some(What::OperationStarted(_)) => self.put(Kind::Work, event),
            Some(What::OperationScrapped(_)) => self.end(Kind::Work, event),
            Some(What::OperationFinished(_)) => {
                self.end(Kind::Work, event);
                self.finished.push_back(event.clone());
                self.finished.drain(..self.finished.len().saturating_sub(FINISHED_MAX));
            }
            _ => {}
        }
    }

    /// What was told up to a number and holds, in the order in which it was told.
    pub fn up_to(&self, seq: u64) -> Vec<AgentEvent> {
        let all = self.of_machines.values().chain(&self.finished);
        let mut events: Vec<_> = all.filter(|event| event.seq <= seq).cloned().collect();
        events.sort_by_key(|event| event.seq);
        events
    }

    fn put(&mut self, kind: Kind, event: &AgentEvent) {
        self.of_machines.insert((event.machine_id.clone(), kind), event.clone());
    }

    /// What is over is what was in hand, unless another operation is meant.
    fn end(&mut self, kind: Kind, event: &AgentEvent) {
        let key = (event.machine_id.clone(), kind);
        if self.of_machines.get(&key).is_some_and(|begun| operation(begun) == operation(event)) {
            self.of_machines.remove(&key);
        }
    }
}

/// The operation that an event is about.
fn operation(event: &AgentEvent) -> Option<(&str, u32)> {
    match event.what.as_ref()? {
        What::OperationStarted(what) => Some((&what.booking_id, what.operation)),
        What::OperationScrapped(what) => Some((&what.booking_id, what.operation)),
        What::OperationFinished(what) => Some((&what.booking_id, what.operation)),
        _ => None,
    }
}
