//! What coordinators keep on disk and send each other: log entries, states, backups, whole stores.

use crate::sample::{Sample, sample};
use crate::{Parts, put_bytes};
use bytes::Bytes;
use millpool_alliance::{Format, State, invariants};
use millpool_proto::log::v1 as log;
use millpool_scheduler::consensus::disk::memory::MemoryDisk;
use millpool_scheduler::consensus::disk::{Durability, LogDisk, Slot, SnapshotDisk, Write};
use millpool_scheduler::consensus::{self, Offload, StateMachine as _, Taken};
use millpool_scheduler::replica::Replica;
use millpool_scheduler::wire;
use prost::Message as _;

/// The cluster that the seeds' stores belong to.
const CLUSTER: &str = "fuzz";
/// The term of their entries.
const TERM: u64 = 3;
/// What a store's parts are told apart by: the four slots, an entry, a snapshot.
const SLOTS: [Slot; 4] = [Slot::Identity, Slot::Vote, Slot::Committed, Slot::Purged];
const ENTRY: u8 = 4;
const SNAPSHOT: u8 = 5;

/// Entry after entry: what can be read is written the same again, and whatever it asks for, the state keeps its rules.
pub fn entry(input: &[u8]) {
    let mut state = sample().state.clone();
    let mut parts = Parts(input);
    while !parts.is_over() {
        let Ok(entry) = wire::command::decode(parts.bytes(), Format::NEWEST) else { continue };
        let again = wire::command::decode(&wire::command::encode(&entry, state.format()), Format::NEWEST);
        assert_eq!(again.as_ref(), Ok(&entry), "an entry is another one after it was written and read");
        let revision = state.revision() + 1;
        state.apply(revision, &entry);
        let broken = invariants::violations(&state);
        assert!(broken.is_empty(), "after {entry:?}: {broken:?}");
    }
}

/// The sample's entries: each alone, some together.
pub fn entries() -> Vec<Vec<u8>> {
    let Sample { entries, .. } = sample();
    let written = |entry| {
        let mut input = Vec::new();
        put_bytes(&mut input, &wire::command::encode(entry, Format::NEWEST));
        input
    };
    let mut seeds: Vec<Vec<u8>> = entries.iter().map(written).collect();
    let last = &seeds[seeds.len().saturating_sub(8)..];
    seeds.push(last.concat());
    seeds
}

/// A snapshot's state: what can be read is the same state after it was written and read again.
pub fn state(input: &[u8]) {
    let Ok(read) = Replica::default().decode(input) else { return };
    let again =
        Replica::default().decode(&read.encode()).expect("what was read is written so that it can be read");
    assert_eq!(again.hash(), read.hash(), "a state is another one after it was written and read");
}

/// The sample's state, and an empty one.
pub fn states() -> Vec<Vec<u8>> {
    [State::default(), sample().state.clone()].map(|state| Replica(state, Format::NEWEST).encode()).into()
}

fn taken() -> Taken<Replica> {
    let state = sample().state.clone();
    let revision = state.revision();
    Taken { cluster_id: CLUSTER.to_owned(), revision, term: TERM, state: Replica(state, Format::NEWEST) }
}

/// A backup's file.
pub fn backup(input: &[u8]) {
    let Ok(read) = consensus::read_backup(Bytes::copy_from_slice(input), &Replica::default()) else { return };
    let again = consensus::backup_file(&read).concat();
    let again =
        consensus::read_backup(again.into(), &Replica::default()).expect("what was read can be written");
    assert_eq!((again.revision, again.term), (read.revision, read.term));
    assert_eq!(again.state.hash(), read.state.hash());
}

/// The sample's backup.
pub fn backups() -> Vec<Vec<u8>> {
    vec![consensus::backup_file(&taken()).concat()]
}

/// A store whose every part is taken from the input: it is put together, or it is told what is wrong with it.
pub fn salvage(input: &[u8]) {
    let disk = MemoryDisk::new();
    let mut parts = Parts(input);
    while !parts.is_over() {
        let (kind, number, bytes) = (parts.byte(), parts.byte(), Bytes::copy_from_slice(parts.bytes()));
        let write = match kind {
            SNAPSHOT => {
                let name = format!("{number:020}-{TERM:020}.snapshot");
                drop(SnapshotDisk::write(&disk, &name, &[bytes]));
                continue;
            }
            ENTRY => Write::Entry(number.into(), bytes),
            kind => Write::Slot(SLOTS[usize::from(kind) % SLOTS.len()], bytes),
        };
        drop(LogDisk::write(&disk, vec![write], Durability::Synced));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let found = runtime.block_on(consensus::salvage(&disk.storage(Offload::Inline), Replica::default()));
    if let Ok(found) = found {
        assert!(found.taken.state.0.revision() <= found.taken.revision, "it knows of more than it was given");
    }
}

/// A store as a node leaves it that had the sample's entries: all of them, and the last ones with a snapshot before.
pub fn disks() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let Sample { entries, .. } = sample();
    let identity = log::StoreIdentity { format: 1, cluster_id: CLUSTER.to_owned(), node_id: 1, store_id: 7 };
    let vote = log::Vote { term: TERM, node_id: 1, committed: true };
    for snapshot_at in [0, entries.len() as u64 / 2] {
        let mut input = Vec::new();
        let mut part = |kind: u8, number: u64, bytes: &[u8]| {
            input.extend([kind, number as u8]);
            put_bytes(&mut input, bytes);
        };
        let place = |index: u64| log::LogId { term: TERM, index }.encode_to_vec();
        part(0, 0, &identity.encode_to_vec());
        part(1, 0, &vote.encode_to_vec());
        part(2, 0, &place(entries.len() as u64));
        let mut state = Replica(State::default(), Format::NEWEST);
        for (index, entry) in (1..).zip(entries) {
            let command = Bytes::from(wire::command::encode(entry, Format::NEWEST));
            state.apply(index, &command).expect("the sample's entries apply");
            if index == snapshot_at {
                let (cluster_id, state) = (CLUSTER.to_owned(), state.clone());
                let taken = Taken { cluster_id, revision: index, term: TERM, state };
                part(3, 0, &place(index));
                part(SNAPSHOT, index, &consensus::backup_file(&taken).concat());
            }
            if index > snapshot_at {
                let log_id = Some(log::LogId { term: TERM, index });
                let entry =
                    log::Entry { format: 1, log_id, payload: Some(log::entry::Payload::Command(command)) };
                part(ENTRY, index, &entry.encode_to_vec());
            }
        }
        seeds.push(input);
    }
    seeds
}
