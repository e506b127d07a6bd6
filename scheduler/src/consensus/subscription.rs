//! What the applied entries changed, for whoever watches.

use super::types::Revision;
use tokio::sync::broadcast;

/// One step of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<E> {
    /// An entry was applied.
    Applied {
        /// The entry's revision.
        revision: Revision,
        /// What it changed.
        event: E,
    },
    /// The state was replaced by a snapshot from the leader: the events up to this revision are
    /// missing, and whatever was derived from them must be derived again from the state.
    Replaced {
        /// The snapshot's revision.
        revision: Revision,
    },
}

impl<E> Change<E> {
    /// The revision that the change led to.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Applied { revision, .. } | Self::Replaced { revision } => *revision,
        }
    }
}

/// The subscriber was too slow, and changes were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the subscriber fell behind, {missed} changes were dropped; the last seen was {last}")]
pub struct Lagged {
    /// How many changes were dropped.
    pub missed: u64,
    /// The revision of the last change that was delivered, or of the state subscribed from.
    pub last: Revision,
}

/// Changes in order, each once, from the revision of the snapshot that came with it.
#[derive(Debug)]
pub struct Subscription<E> {
    changes: broadcast::Receiver<Change<E>>,
    last: Revision,
    over: bool,
}

impl<E: Clone> Subscription<E> {
    pub(super) fn new(changes: broadcast::Receiver<Change<E>>, from: Revision) -> Self {
        Self { changes, last: from, over: false }
    }

    /// The next change. `None` once the node has stopped, or after [`Lagged`]: then subscribe
    /// again and start from the new state. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Change<E>, Lagged>> {
        while !self.over {
            match self.changes.recv().await {
                // Older changes are in the state that the subscriber began with.
                Ok(change) if change.revision() <= self.last => {}
                Ok(change) => {
                    self.last = change.revision();
                    return Some(Ok(change));
                }
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    self.over = true;
                    return Some(Err(Lagged { missed, last: self.last }));
                }
                Err(broadcast::error::RecvError::Closed) => self.over = true,
            }
        }
        None
    }
}
