//! Watches: what each revision changed, kept for a while in memory, so that a watcher that was cut off can
//! go on where it was.

use crate::consensus::{self, Change};
use crate::planted::{Bug, planted};
use crate::replica::Replica;
use millpool_alliance::command::Changes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Revisions that are kept for watchers who come back.
pub const REVISIONS_KEPT: usize = 20_000;
/// Revisions that one poll of a watcher takes at most.
pub const REVISIONS_PER_POLL: usize = 256;

/// One revision and what it changed.
pub type Revised = (u64, Arc<Changes>);

/// The changes of the last revisions. Cheap to clone.
#[derive(Clone)]
pub struct History {
    kept: Arc<Mutex<Kept>>,
    newest: watch::Receiver<u64>,
}

struct Kept {
    changes: VecDeque<Revised>,
    /// Changes after this revision are complete.
    complete_after: u64,
}

/// The changes asked for are no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("changes are kept after revision {complete_after}")]
pub struct Compacted {
    /// Changes after this revision are kept.
    pub complete_after: u64,
}

impl History {
    /// Begins to keep what the log applies.
    pub fn start(consensus: &consensus::Handle<Replica>) -> History {
        let (subscribed, mut changes) = consensus.subscribe();
        let (newest_in, newest) = watch::channel(subscribed.revision);
        let kept = Kept { changes: VecDeque::new(), complete_after: subscribed.revision };
        let history = History { kept: Arc::new(Mutex::new(kept)), newest };
        let (writer, consensus) = (history.clone(), consensus.clone());
        tokio::spawn(async move {
            loop {
                let revision = match changes.next().await {
                    Some(Ok(Change::Applied { revision, event })) => writer.keep(revision, event),
                    Some(Ok(Change::Replaced { revision })) => writer.begin_again(revision),
                    Some(Err(_)) => {
                        let (subscribed, again) = consensus.subscribe();
                        changes = again;
                        writer.begin_again(subscribed.revision)
                    }
                    None => return,
                };
                newest_in.send_replace(revision);
            }
        });
        history
    }

    fn keep(&self, revision: u64, changes: Arc<Changes>) -> u64 {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.changes.push_back((revision, changes));
        if kept.changes.len() > REVISIONS_KEPT
            && let Some((gone, _)) = kept.changes.pop_front()
        {
            kept.complete_after = gone;
        }
        revision
    }

    fn begin_again(&self, revision: u64) -> u64 {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if planted(Bug::WatchGapHidden) {
            return kept.changes.back().map_or(kept.complete_after, |(at, _)| *at);
        }
        kept.changes.clear();
        kept.complete_after = revision;
        revision
    }

    /// What changed after `revision`, in order, at most [`REVISIONS_PER_POLL`].
    pub fn after(&self, revision: u64) -> Result<Vec<Revised>, Compacted> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if revision < kept.complete_after {
            return Err(Compacted { complete_after: kept.complete_after });
        }
        let from = kept.changes.partition_point(|(at, _)| *at <= revision);
        Ok(kept.changes.iter().skip(from).take(REVISIONS_PER_POLL).cloned().collect())
    }

    /// Waits for the first change after `revision`; false when the node has stopped.
    pub async fn wait_after(&self, revision: u64) -> bool {
        let mut newest = self.newest.clone();
        newest.wait_for(|at| *at > revision).await.is_ok()
    }

    /// How many revisions are kept.
    pub fn kept(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).changes.len()
    }

    /// The newest revision that is kept.
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }
}
