//! A state on its way from one cluster to another.
//!
//! - [`Handle::backup`] gives a running cluster's state as a file, which is a snapshot's file, byte for byte;
//! - [`salvage`] reads what is left in the store of a node that has lost its cluster, and changes nothing there;
//! - [`restore`] makes the store of a new cluster's first node. All others join it as they always do, so that
//!   nobody begins from another state.
//!
//! Invariant: an old store is never made into a new cluster's. Its nodes might come back, and two logs would go by one
//! name.

use super::disk::{Durability, Slot, Storage, Write};
use super::error::{DecodeError, StartError};
use super::handle::Handle;
use super::snapshot::{self, Body, Snapshots};
use super::stop::Stop;
use super::types::{
    Addresses, CommittedLeaderId, Entry, LogId, Member, Membership, Revision, SnapshotMeta, StoredMembership,
    Term, Vote,
};
use super::{Options, StateMachine, format, limits, log, start};
use bytes::Bytes;
use millpool_proto::log::v1 as pb;
use openraft::EntryPayload;
use openraft::impls::leader_id_std::LeaderId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A state as it was taken from a cluster.
#[derive(Debug, Clone)]
pub struct Taken<S> {
    /// From which.
    pub cluster_id: String,
    /// The last entry that it has applied.
    pub revision: Revision,
    /// That entry's term.
    pub term: Term,
    /// The state.
    pub state: S,
}

/// What was left in a store.
#[derive(Debug, Clone)]
pub struct Salvaged<S> {
    /// The state after all entries that the store has.
    pub taken: Taken<S>,
    /// How many of these, the last ones, the store does not know to be committed: they may have been acknowledged,
    /// or not.
    pub in_doubt: u64,
}

impl<S: StateMachine> Handle<S> {
    /// The applied state as the bytes of a backup's file.
    pub async fn backup(&self) -> io::Result<(Revision, Vec<Bytes>)> {
        let view = self.state();
        let cluster_id = self.cluster_id().to_owned();
        let (revision, term) = (view.revision, view.term);
        let written = self.0.offload.run(move || {
            let state = view.state.clone();
            backup_file(&Taken { cluster_id, revision, term, state }).to_vec()
        });
        Ok((revision, written.await?))
    }
}

fn log_id(revision: Revision, term: Term) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index: revision }
}

/// A backup's file.
pub fn backup_file<S: StateMachine>(taken: &Taken<S>) -> [Bytes; 2] {
    let state: Bytes = taken.state.encode().into();
    // Who belonged to the cluster does not matter to another one.
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(taken.revision, taken.term)),
        last_membership: StoredMembership::default(),
    };
    let header = snapshot::header(&taken.cluster_id, &meta, &state);
    snapshot::file(&Body { header, state })
}

/// Reads a backup's file. `reader` is any state of the machine.
pub fn read_backup<S: StateMachine>(file: Bytes, reader: &S) -> Result<Taken<S>, DecodeError> {
    let body = snapshot::parse(file)?;
    let header = &body.header;
    body.verify(&header.cluster_id)?;
    let last = header.last_log_id.ok_or_else(|| format::bad("it has the state of no entry"))?;
    Ok(Taken {
        cluster_id: header.cluster_id.clone(),
        revision: last.index,
        term: last.term,
        state: reader.decode(&body.state)?,
    })
}

/// Puts together what a stopped node's store has: its newest snapshot, and all entries after it, committed or not.
pub async fn salvage<S: StateMachine>(storage: &Storage, initial: S) -> Result<Salvaged<S>, StartError> {
    let disk = storage.log.as_ref();
    let identity = disk.slot(Slot::Identity)?.ok_or_else(|| {
        StartError::Storage(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} is empty: nothing was ever kept there", disk.place()),
        ))
    })?;
    let identity: pb::StoreIdentity = format::decode("the store's identity", identity)
        .map_err(|e| start::damaged(format!("{} cannot be used: {e}", disk.place())))?;
    let kept = log::recover(disk).map_err(|e| log::unusable(disk, &e))?;
    let snapshots =
        Snapshots::new(storage.snapshots.clone(), storage.offload, &identity.cluster_id, Stop::new());
    let newest = snapshots.newest().await?;
    start::meets(newest.as_ref(), kept.purged, &snapshots)?;
    let (mut state, mut applied) = match newest {
        None => (initial, None),
        Some(body) => {
            let state = initial.decode(&body.state);
            let state = state.map_err(|e| start::damaged(format!("{}: {e}", snapshots.place())))?;
            (state, body.header.last_log_id.as_ref().map(format::read_log_id))
        }
    };
    let certain = kept.committed.max(applied).map_or(0, |id| id.index + 1);
    let end = log::next_index(kept.last);
    while log::next_index(applied) < end {
        let range = log::next_index(applied)..end;
        let entries =
            log::entries_of(disk, range, limits::GROUP_BYTES_MAX).map_err(|e| log::unusable(disk, &e))?;
        for Entry { log_id, payload } in entries {
            if let EntryPayload::Normal(command) = payload {
                let done = state.apply(log_id.index, &command.0);
                done.map_err(|e| start::damaged(format!("{}, entry {}: {e}", disk.place(), log_id.index)))?;
            }
            applied = Some(log_id);
        }
    }
    let last = applied.ok_or_else(|| start::damaged(format!("{} has no entry", disk.place())))?;
    let taken =
        Taken { cluster_id: identity.cluster_id, revision: last.index, term: last.leader_id.term, state };
    Ok(Salvaged { taken, in_doubt: end.saturating_sub(certain) })
}

/// Makes the store of a new cluster's first and only node, which goes on from `taken` under its own cluster's name.
pub async fn restore<S: StateMachine>(
    storage: &Storage,
    options: &Options,
    addresses: Addresses,
    taken: &Taken<S>,
) -> Result<(), StartError> {
    start::check(options)?;
    let disk = storage.log.as_ref();
    let used =
        [Slot::Identity, Slot::Vote].into_iter().try_fold(disk.last_index()?.is_some(), |used, slot| {
            io::Result::Ok(used || disk.slot(slot)?.is_some())
        })?;
    if used || !storage.snapshots.list()?.is_empty() {
        return Err(StartError::NotEmpty(disk.place()));
    }
    let at = log_id(taken.revision, taken.term);
    let member = Member { addresses, store_id: options.fresh_store_id };
    let membership =
        Membership::new(vec![BTreeSet::from([options.node_id])], BTreeMap::from([(options.node_id, member)]))
            .map_err(|e| StartError::Core(e.to_string()))?;
    let meta =
        SnapshotMeta { last_log_id: Some(at), last_membership: StoredMembership::new(Some(at), membership) };
    let state: Bytes = taken.state.encode().into();
    let header = snapshot::header(&options.cluster_id, &meta, &state);
    let snapshots =
        Snapshots::new(storage.snapshots.clone(), storage.offload, &options.cluster_id, Stop::new());
    snapshots.save(Body { header, state }).await?;
    // The next term is above every one that the state has seen.
    let vote =
        Vote { leader_id: LeaderId { term: taken.term, voted_for: options.node_id }, committed: false };
    let place = format::encode(&format::log_id(&at));
    disk.write(
        vec![
            Write::Slot(Slot::Identity, start::identity(options)),
            Write::Slot(Slot::Vote, format::encode(&format::vote(&vote))),
            Write::Slot(Slot::Purged, place.clone()),
            Write::Slot(Slot::Committed, place),
        ],
        Durability::Synced,
    )?;
    Ok(())
}
