//! What the agent says about itself: one report a plant, shown as JSON under `/health`.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Refused events that the report remembers.
const REFUSED_KEPT: usize = 20;

/// The line to the coordinator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Line {
    /// Nothing was tried yet.
    #[default]
    Starting,
    /// Trying.
    Connecting {
        /// Whom.
        to: String,
    },
    /// Attached.
    Connected {
        /// To whom.
        to: String,
        /// The coordinator's cluster.
        cluster_id: String,
        /// Since when, plant time, ms since the Unix epoch.
        since_ms: i64,
    },
    /// Cut or refused; tried again soon.
    Waiting {
        /// Who was tried.
        tried: String,
        /// What happened.
        why: String,
    },
    /// Refused for a reason that a retry does not cure soon: somebody has to look.
    Refused {
        /// By whom.
        by: String,
        /// The machine-readable reason.
        reason: String,
        /// In words.
        why: String,
    },
}

/// One machine's adapter.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MachineReport {
    /// Its name in the config, e.g. "mtconnect".
    pub adapter: &'static str,
    /// How the adapter stands, e.g. "streaming" or "lost".
    pub adapter_state: String,
    /// The machine's state.
    pub machine_state: String,
    /// The operation at hand, `booking/operation`.
    pub operation: Option<String>,
    /// The program that is active, if the machine says.
    pub program: Option<String>,
    /// What went wrong last.
    pub trouble: Option<String>,
    /// What was found on the machine.
    pub capability: String,
}

/// The report of one plant's agent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The plant.
    pub plant_id: String,
    /// The agent.
    pub agent_id: String,
    /// The line to the coordinator.
    pub line: Line,
    /// Revision of the dispatch list on disk.
    pub dispatch_revision: u64,
    /// Why the last dispatch list could not be kept, if so.
    pub dispatch_trouble: Option<String>,
    /// The last events that the coordinator understood but refused, with its reasons.
    pub refused_events: VecDeque<String>,
    /// The machines.
    pub machines: BTreeMap<String, MachineReport>,
}

/// A plant's report, shared by its parts. Cheap to clone.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Report>>);

impl Health {
    /// An empty report.
    pub fn new(plant_id: &str, agent_id: &str) -> Self {
        let report = Report { plant_id: plant_id.into(), agent_id: agent_id.into(), ..Report::default() };
        Self(Arc::new(Mutex::new(report)))
    }

    /// The report as it is.
    pub fn report(&self) -> Report {
        self.lock().clone()
    }

    /// The line to the coordinator is like this now.
    pub fn set_line(&self, line: Line) {
        self.lock().line = line;
    }

    /// A list was kept, or not.
    pub fn set_dispatch(&self, revision: u64, trouble: Option<String>) {
        let mut report = self.lock();
        report.dispatch_revision = revision;
        report.dispatch_trouble = trouble;
    }

    /// The coordinator refused an event.
    pub fn add_refused(&self, what: String) {
        let mut report = self.lock();
        report.refused_events.push_back(what);
        if report.refused_events.len() > REFUSED_KEPT {
            report.refused_events.pop_front();
        }
    }

    /// Changes what is said of a machine.
    pub fn machine(&self, machine_id: &str, change: impl FnOnce(&mut MachineReport)) {
        change(self.lock().machines.entry(machine_id.to_owned()).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
