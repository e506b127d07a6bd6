//! The first reason for which the node stopped, and the news of it.

use super::error::StopReason;
use std::sync::Arc;
use tokio::sync::watch;

/// Shared by everything that can bring the node down. The first reason stays.
#[derive(Debug, Clone)]
pub(super) struct Stop(Arc<watch::Sender<Option<StopReason>>>);

impl Stop {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Stops the node, unless it has stopped already.
    pub(super) fn set(&self, reason: StopReason) {
        let first = self.0.send_if_modified(|now| {
            let first = now.is_none();
            if first {
                *now = Some(reason.clone());
            }
            first
        });
        match (first, &reason) {
            (true, StopReason::Shutdown) => tracing::info!("consensus: {reason}"),
            (true, _) => tracing::error!("consensus: {reason}"),
            (false, _) => tracing::debug!("consensus stopped before: {reason}"),
        }
    }

    /// Why the node stopped, if it has.
    pub(super) fn get(&self) -> Option<StopReason> {
        self.0.borrow().clone()
    }

    /// Waits until the node stops.
    pub(super) async fn wait(&self) -> StopReason {
        let mut watch = self.0.subscribe();
        let reason = watch.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or(StopReason::Shutdown)
    }
}
