//! The state machine as openraft sees it: applies, publishes, answers, and takes snapshots.
//!
//! Invariant: an entry is in the shared state before its event is sent, and its event is sent before its
//! proposer is answered. So who has an answer, or an event, finds it in the state.

use super::StateMachine;
use super::agreement::Observer;
use super::error::{ApplyError, StopReason};
use super::limits;
use super::snapshot::{self, Body, Snapshots};
use super::stop::Stop;
use super::subscription::Change;
use super::types::{Answer, LogId, Revision, SnapshotMeta, StoredMembership, Term, Types};
use super::view::{Shared, Snapshot as Kept};
use futures::{Stream, StreamExt as _};
use metrics::{Counter, Gauge, Histogram};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, Snapshot};
use std::io;
use std::time::Instant;
use tokio::sync::{broadcast, watch};

/// Where the machine tells what it did.
pub(super) struct Outlets<S: StateMachine> {
    pub(super) shared: Shared<S>,
    /// The last entry applied.
    pub(super) revision: watch::Sender<Revision>,
    pub(super) changes: broadcast::Sender<Change<S::Event>>,
    /// The term of the last entry applied: changes seldom, unlike its revision.
    pub(super) term: watch::Sender<Term>,
    pub(super) observer: Observer<S>,
    pub(super) stop: Stop,
}

/// The adapter around a [`StateMachine`].
pub(super) struct Machine<S: StateMachine> {
    applied: Option<LogId>,
    membership: StoredMembership,
    outlets: Outlets<S>,
    snapshots: Snapshots,
    meters: Meters,
    /// Entries are checked to come one after the other from 0 on; always, but in openraft's suite.
    in_sequence: bool,
}

struct Meters {
    applied_index: Gauge,
    applied_total: Counter,
    apply_seconds: Histogram,
}

fn invalid(e: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e.to_string())
}

impl<S: StateMachine> Machine<S> {
    pub(super) fn new(outlets: Outlets<S>, snapshots: Snapshots) -> Self {
        let meters = Meters {
            applied_index: metrics::gauge!("millpool_consensus_applied_index"),
            applied_total: metrics::counter!("millpool_consensus_applied_total"),
            apply_seconds: metrics::histogram!("millpool_consensus_apply_seconds"),
        };
        let membership = StoredMembership::default();
        Self { applied: None, membership, outlets, snapshots, meters, in_sequence: true }
    }

    /// Takes any revision at any time, for openraft's suite, whose logs have holes.
    #[cfg(test)]
    pub(super) fn beginning_anywhere(mut self) -> Self {
        self.in_sequence = false;
        self
    }

    fn apply_batch(&mut self, batch: Vec<Result<EntryResponder<Types>, io::Error>>) -> io::Result<()> {
        let begun = Instant::now();
        let mut answers: Vec<(ApplyResponder<Types>, Answer)> = Vec::new();
        let mut changes = Vec::new();
        let count = batch.len() as u64;
        let mut outcome = Ok(());
        for item in batch {
            let applied = item.and_then(|(entry, responder)| {
                let answer = self.apply_entry(entry.log_id, entry.payload, &mut changes)?;
                answers.extend(responder.map(|responder| (responder, answer)));
                Ok(())
            });
            if applied.is_err() {
                outcome = applied;
                break;
            }
        }
        self.publish();
        for change in changes {
            // An error means that nobody subscribes.
            let _ = self.outlets.changes.send(change);
        }
        for (responder, answer) in answers {
            responder.send(answer);
        }
        self.meters.applied_total.increment(count);
        self.meters.apply_seconds.record(begun.elapsed().as_secs_f64());
        outcome
    }

    fn apply_entry(
        &mut self,
        log_id: LogId,
        payload: super::types::Payload,
        changes: &mut Vec<Change<S::Event>>,
    ) -> io::Result<Answer> {
        let revision = log_id.index;
        let expected = self.applied.map_or(0, |id| id.index + 1);
        assert!(!self.in_sequence || revision == expected, "entries are applied in order, each once");
        let Outlets { shared, observer, stop, .. } = &self.outlets;
        let entry = match &payload {
            EntryPayload::Normal(command) => &command.0[..],
            EntryPayload::Blank | EntryPayload::Membership(_) => &[],
        };
        let applied = shared.advance(log_id, entry.len(), |state: &mut S| {
            let applied = match payload {
                EntryPayload::Normal(_) => Some(state.apply(revision, entry)?),
                EntryPayload::Blank | EntryPayload::Membership(_) => None,
            };
            observer.observe(revision, state);
            Ok(applied)
        });
        let applied = applied.map_err(|e: ApplyError| {
            stop.set(StopReason::Apply { revision, reason: e.0.clone() });
            invalid(format!("entry {revision} cannot be applied: {e}"))
        })?;
        if let EntryPayload::Membership(membership) = payload {
            self.membership = StoredMembership::new(Some(log_id), membership);
        }
        self.applied = Some(log_id);
        Ok(Answer(applied.map(|applied| {
            changes.extend(applied.event.map(|event| Change::Applied { revision, event }));
            Box::new(applied.reply) as Box<_>
        })))
    }

    /// Tells who waits how far the state has come.
    fn publish(&self) {
        let Some(applied) = self.applied else { return };
        let term = applied.leader_id.term;
        self.outlets.revision.send_replace(applied.index);
        self.outlets.term.send_if_modified(|now| std::mem::replace(now, term) != term);
        self.meters.applied_index.set(applied.index as f64);
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}

impl<S: StateMachine> RaftStateMachine<Types> for Machine<S> {
    type SnapshotData = Body;
    type SnapshotBuilder = Builder<S>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        let mut batches = entries.ready_chunks(limits::APPLY_BATCH_ENTRIES_MAX);
        while let Some(batch) = batches.next().await {
            self.apply_batch(batch)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<S> {
        let view = self.outlets.shared.snapshot();
        Builder { view, meta: self.meta(), snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, body: Body) -> Result<(), io::Error> {
        let (bytes, reader) = (body.state.clone(), self.outlets.shared.snapshot());
        let state = self.snapshots.offload(move || reader.state.decode(&bytes)).await?.map_err(|e| {
            let revision = meta.last_log_id.map_or(0, |id| id.index);
            self.outlets.stop.set(StopReason::Apply { revision, reason: format!("the snapshot: {e}") });
            invalid(format!("the snapshot at {revision} cannot be read: {e}"))
        })?;
        self.snapshots.save(body).await?;
        if let Some(at) = meta.last_log_id {
            self.outlets.shared.replace(at, state);
        }
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
        let revision = self.applied.map_or(0, |id| id.index);
        let _ = self.outlets.changes.send(Change::Replaced { revision });
        tracing::info!(revision, "state replaced by a snapshot");
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::type_config::alias::SnapshotOf<Types, Body>>, io::Error> {
        let Some(body) = self.snapshots.newest().await? else { return Ok(None) };
        let meta = snapshot::meta(&body.header).map_err(invalid)?;
        Ok(Some(Snapshot { meta, snapshot: body }))
    }
}

/// A state set aside, to be written out while the machine goes on.
pub(super) struct Builder<S> {
    view: Kept<S>,
    meta: SnapshotMeta,
    snapshots: Snapshots,
}

impl<S: StateMachine> RaftSnapshotBuilder<Types> for Builder<S> {
    type SnapshotData = Body;

    async fn build_snapshot(
        &mut self,
    ) -> Result<openraft::type_config::alias::SnapshotOf<Types, Body>, io::Error> {
        let begun = Instant::now();
        let (view, meta) = (self.view.clone(), self.meta.clone());
        let cluster_id = self.snapshots.cluster_id().to_owned();
        let body = self
            .snapshots
            .offload(move || {
                let state: bytes::Bytes = view.state.encode().into();
                Body { header: snapshot::header(&cluster_id, &meta, &state), state }
            })
            .await?;
        self.snapshots.save(body.clone()).await?;
        metrics::histogram!("millpool_snapshot_build_seconds").record(begun.elapsed().as_secs_f64());
        Ok(Snapshot { meta: self.meta.clone(), snapshot: body })
    }
}
