//! Do the nodes agree? At every n-th revision each node hashes its state, off the apply path; a
//! follower asks the leader for its hash at the same revision, and stops if it differs.

use super::StateMachine;
use super::disk::Offload;
use super::error::StopReason;
use super::limits;
use super::network::Peers;
use super::stop::Stop;
use super::types::{NodeId, Revision};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How often a leader that has no hash yet is asked again.
const ASK_TIMES_MAX: u32 = 20;
/// How long to wait before asking again.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// The hashes of the last few revisions that were compared.
#[derive(Debug, Clone, Default)]
pub(super) struct Hashes(Arc<Mutex<VecDeque<(Revision, u64)>>>);

impl Hashes {
    fn remember(&self, revision: Revision, hash: u64) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == limits::HASHES_KEPT {
            kept.pop_front();
        }
        kept.push_back((revision, hash));
    }

    pub(super) fn at(&self, revision: Revision) -> Option<u64> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(at, _)| *at == revision).map(|(_, hash)| *hash)
    }

    /// The newest hash taken.
    pub(super) fn newest(&self) -> Option<(Revision, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).back().copied()
    }
}

/// Sets states aside for hashing, from the apply path: it never waits.
pub(super) struct Observer<S> {
    every: u64,
    states: mpsc::Sender<(Revision, S)>,
}

impl<S: StateMachine> Observer<S> {
    /// An observer, and the states that it sets aside. `every` 0 sets none aside.
    pub(super) fn new(every: u64) -> (Self, mpsc::Receiver<(Revision, S)>) {
        let (states, set_aside) = mpsc::channel(1);
        (Self { every, states }, set_aside)
    }

    pub(super) fn observe(&self, revision: Revision, state: &S) {
        if self.every == 0 || !revision.is_multiple_of(self.every) {
            return;
        }
        // If the last one is still being hashed, this one is skipped: the next will do.
        if let Ok(room) = self.states.try_reserve() {
            room.send((revision, state.clone()));
        }
    }
}

/// What the comparison needs to know.
pub(super) struct Agreement {
    pub(super) peers: Peers,
    pub(super) leader: watch::Receiver<Option<NodeId>>,
    pub(super) hashes: Hashes,
    pub(super) offload: Offload,
    pub(super) stop: Stop,
}

impl Agreement {
    /// Hashes and compares until the machine is gone.
    pub(super) async fn run<S: StateMachine>(self, mut set_aside: mpsc::Receiver<(Revision, S)>) {
        while let Some((revision, state)) = set_aside.recv().await {
            let Ok(hash) = self.offload.run(move || state.hash()).await else { return };
            self.hashes.remember(revision, hash);
            let compared = tokio::select! {
                compared = self.compare(revision, hash) => compared,
                _ = self.stop.wait() => return,
            };
            if !compared {
                // What was set aside meanwhile is as old, and the leader has forgotten it by now: it would cost as long, and so
                // would the next.
                let _old = set_aside.try_recv();
            }
        }
    }

    /// Says whether there was something to compare with.
    async fn compare(&self, revision: Revision, ours: u64) -> bool {
        for _ in 0..ASK_TIMES_MAX {
            let Some(leader) = *self.leader.borrow() else {
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            };
            if leader == self.peers.node_id() {
                return true;
            }
            match self.peers.state_hash(leader, revision).await {
                Ok(Some(theirs)) if theirs == ours => {
                    metrics::counter!("millpool_consensus_hashes_equal_total").increment(1);
                    return true;
                }
                Ok(Some(theirs)) => {
                    self.stop.set(StopReason::Diverged { revision, ours, theirs, leader });
                    return true;
                }
                Ok(None) => {}
                Err(e) => tracing::debug!("state hash of node {leader} at {revision}: {e}"),
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        tracing::info!(revision, "no leader had a state hash to compare with");
        false
    }
}
