//! What the background optimisation does while buyers book.

use millpool_cli::client::{Client, WatchEvent};
use millpool_proto::v1::{Optimisation, PlanSummary, WatchPlanRequest};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The plan's figures, and what optimisation has brought.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The newest figures.
    pub(crate) summary: PlanSummary,
    /// Plans that optimisation committed.
    pub(crate) optimisations: u64,
    /// Operations that it moved.
    pub(crate) moved: u64,
    /// What all of them together took off the plan's cost, fen.
    pub(crate) saved_fen: i64,
}

/// Follows the plan until it is dropped.
pub(crate) struct Observer {
    seen: Arc<Mutex<Seen>>,
    following: tokio::task::JoinHandle<()>,
}

impl Observer {
    pub(crate) fn start(client: Client) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let into = seen.clone();
        let following = tokio::spawn(async move {
            let mut watch = client.watch_plan(WatchPlanRequest::default());
            // A refusal ends it: then the closing table shows what was seen until then.
            while let Ok(event) = watch.next().await {
                if let WatchEvent::Changed(answer) = event
                    && let Some(summary) = answer.summary
                {
                    lock(&into).take(summary);
                }
            }
        });
        Self { seen, following }
    }

    pub(crate) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Seen {
    fn take(&mut self, summary: PlanSummary) {
        let committed = |summary: &PlanSummary| {
            summary.last_optimisation.as_ref().map_or(0, |optimisation| optimisation.committed_revision)
        };
        if committed(&summary) > committed(&self.summary)
            && let Some(Optimisation { cost_before_fen, cost_fen, moved, .. }) = &summary.last_optimisation
        {
            self.optimisations += 1;
            self.moved += u64::from(*moved);
            self.saved_fen += cost_before_fen - cost_fen;
        }
        self.summary = summary;
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
