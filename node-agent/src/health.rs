//! What the agent says about itself: one report a plant, shown as JSON under `/health`, and published where the plant
//! wants it.

use crate::adapter::Happened;
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{DispatchItem, RemoteSession};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

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
    /// The open session of remote operation, in words.
    pub session: Option<String>,
    /// What went wrong last.
    pub trouble: Option<String>,
    /// What was found on the machine.
    pub capability: String,
    /// The agent sees it, or is told of it.
    #[serde(skip)]
    pub there: bool,
    /// How the operation at hand goes, as it was told last.
    #[serde(skip)]
    pub work: Option<Work>,
    /// Operations of its list that are over.
    #[serde(skip)]
    pub over: Vec<Over>,
}

/// How an operation goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Pieces finished well so far.
    pub pieces_good: u32,
    /// When it is expected to end, seconds since the Unix epoch; 0 before anybody has said.
    pub expected_end_s: i64,
}

/// An operation that is over, though it may still be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    booking_id: String,
    operation: u32,
    /// One that was lost is listed again, to begin after this, ms since the Unix epoch.
    lost_ms: Option<i64>,
}

impl Over {
    /// It is done.
    pub fn done(booking_id: &str, operation: u32) -> Self {
        Self { booking_id: booking_id.to_owned(), operation, lost_ms: None }
    }

    /// Its pieces were lost at a time.
    pub fn lost(booking_id: &str, operation: u32, at_ms: i64) -> Self {
        Self { lost_ms: Some(at_ms), ..Self::done(booking_id, operation) }
    }

    /// Whether it is this item.
    pub fn is(&self, item: &DispatchItem) -> bool {
        let later = |lost_ms: i64| item.start_s.saturating_mul(1000) > lost_ms;
        self.booking_id == item.booking_id
            && self.operation == item.operation
            && !self.lost_ms.is_some_and(later)
    }
}

impl MachineReport {
    /// The operation at hand: booking and number.
    pub fn at_hand(&self) -> Option<(&str, u32)> {
        let (booking_id, operation) = self.operation.as_deref()?.rsplit_once('/')?;
        Some((booking_id, operation.parse().ok()?))
    }

    /// Takes in how the work goes, from what has happened.
    pub fn learn(&mut self, happened: &[Happened]) {
        for happened in happened {
            match &happened.what {
                What::OperationStarted(_) => self.work = Some(Work::default()),
                What::OperationProgress(progress) => {
                    let (pieces_good, expected_end_s) = (progress.pieces_good, progress.expected_end_s);
                    self.work = Some(Work { pieces_good, expected_end_s });
                }
                What::OperationFinished(_) | What::OperationScrapped(_) => self.work = None,
                _ => {}
            }
        }
    }
}

/// The plant's own broker, where its list and states are published.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Publishing {
    /// The broker.
    pub broker: String,
    /// Whether there is a line to it.
    pub connected: bool,
    /// What went wrong last.
    pub trouble: Option<String>,
}

/// The plant's raw samples, where they are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SamplesReport {
    /// Days that have samples.
    pub days: u64,
    /// The first of them.
    pub oldest_day: Option<String>,
    /// What they take on disk.
    pub bytes: u64,
    /// Why none are kept, or what else went wrong.
    pub trouble: Option<String>,
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
    /// The plant's own broker, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publishing: Option<Publishing>,
    /// Its raw samples, where they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<SamplesReport>,
}

/// A plant's report, shared by its parts. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    report: Arc<Mutex<Report>>,
    /// Whoever waits for another report is woken.
    changed: watch::Sender<()>,
}

impl Health {
    /// An empty report.
    pub fn new(plant_id: &str, agent_id: &str) -> Self {
        let report = Report { plant_id: plant_id.into(), agent_id: agent_id.into(), ..Report::default() };
        Self { report: Arc::new(Mutex::new(report)), changed: watch::Sender::new(()) }
    }

    /// A wake-up when something about the machines or the line may be other than before.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The report as it is.
    pub fn report(&self) -> Report {
        self.lock().clone()
    }

    /// The line to the coordinator is like this now.
    pub fn set_line(&self, line: Line) {
        self.lock().line = line;
        self.changed.send_replace(());
    }

    /// The line to the plant's own broker is like this now.
    pub fn set_publishing(&self, publishing: Publishing) {
        self.lock().publishing = Some(publishing);
    }

    /// The plant's samples are like this now.
    pub fn set_samples(&self, samples: SamplesReport) {
        self.lock().samples = Some(samples);
    }

    /// These sessions of remote operation are open, and no others.
    pub fn set_sessions(&self, sessions: &[RemoteSession]) {
        let mut report = self.lock();
        for (id, machine) in &mut report.machines {
            let own = sessions.iter().find(|session| session.machine_id == *id);
            machine.session = own.map(|RemoteSession { epoch, holder, booking_id, operation, .. }| {
                format!("s{epoch:06} of {holder}, for {booking_id}/{operation}")
            });
        }
        drop(report);
        self.changed.send_replace(());
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
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
