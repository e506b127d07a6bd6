//! openraft's own storage suite, on both disks, and what it does not ask.

use super::agreement::Observer;
use super::disk::memory::MemoryDisk;
use super::disk::{Offload, Storage};
use super::log::LogStore;
use super::machine::{Machine, Outlets};
use super::snapshot::Snapshots;
use super::stop::Stop;
use super::types::{Entry, LogId, Types};
use super::view::Shared;
use super::{Applied, ApplyError, DecodeError, Revision, StateMachine};
use openraft::StorageError;
use openraft::storage::{IOFlushed, RaftLogStorage as _};
use openraft::testing::log::{StoreBuilder, Suite};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{broadcast, watch};

/// Counts.
#[derive(Clone, Default)]
struct Counter(u64);

impl StateMachine for Counter {
    type Reply = u64;
    type Event = ();

    fn apply(&mut self, _: Revision, _: &[u8]) -> Result<Applied<u64, ()>, ApplyError> {
        self.0 += 1;
        Ok(Applied { reply: self.0, event: None })
    }

    fn encode(&self) -> Vec<u8> {
        self.0.to_le_bytes().into()
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self, DecodeError> {
        let bytes = bytes.try_into().map_err(|_| DecodeError("not 8 bytes".into()))?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }

    fn hash(&self) -> u64 {
        self.0
    }
}

fn machine(storage: &Storage) -> Machine<Counter> {
    let (revision, _) = watch::channel(0);
    let (changes, _) = broadcast::channel(1);
    let (term, _) = watch::channel(0);
    let (observer, _) = Observer::new(0);
    let shared = Shared::new(Counter(0));
    let outlets = Outlets { shared, revision, changes, term, observer, stop: Stop::new() };
    let snapshots = Snapshots::new(storage.snapshots.clone(), storage.offload, "suite", Stop::new());
    // The suite begins its logs where it likes; a cluster's begins at 0.
    Machine::new(outlets, snapshots).beginning_anywhere()
}

fn open(storage: &Storage) -> (LogStore, Machine<Counter>) {
    let (log, _) = LogStore::open(storage.log.clone(), storage.offload, Stop::new()).unwrap();
    (log, machine(storage))
}

struct InMemory(Offload);

impl StoreBuilder<Types, LogStore, Machine<Counter>> for InMemory {
    async fn build(&self) -> Result<((), LogStore, Machine<Counter>), StorageError<Types>> {
        let (log, machine) = open(&MemoryDisk::new().storage(self.0));
        Ok(((), log, machine))
    }
}

struct InFolder;

impl StoreBuilder<Types, LogStore, Machine<Counter>, TempDir> for InFolder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine<Counter>), StorageError<Types>> {
        let folder = TempDir::new().unwrap();
        let (log, machine) = open(&Storage::open(folder.path()).unwrap());
        Ok((folder, log, machine))
    }
}

/// Each of them sleeps most of its time: they run together.
#[tokio::test]
async fn the_suite_passes_on_every_disk() {
    let (inline, thread, folder) = tokio::join!(
        Suite::test_all(InMemory(Offload::Inline)),
        Suite::test_all(InMemory(Offload::Threads)),
        Suite::test_all(InFolder),
    );
    inline.unwrap();
    thread.unwrap();
    folder.unwrap();
}

/// Others may commit what this disk is only about to get. After a power loss in between the node must start.
#[tokio::test(start_paused = true)]
async fn the_commit_index_on_disk_is_of_an_entry_on_disk() {
    let disk = MemoryDisk::new();
    disk.slow_down(|| Duration::from_millis(10));
    let (mut log, _end) = LogStore::open(Arc::new(disk.clone()), Offload::Inline, Stop::new()).unwrap();
    let entry = |index| Entry { log_id: log_id(1, index), payload: openraft::EntryPayload::Blank };
    log.append([entry(0)], IOFlushed::noop()).await.unwrap();
    // The first write is under way, and the second entry waits for the next.
    tokio::time::sleep(Duration::from_millis(5)).await;
    log.append([entry(1)], IOFlushed::noop()).await.unwrap();
    log.save_committed(Some(log_id(1, 1))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(7)).await;
    let left = disk.after_power_loss();
    let (mut again, _end) = LogStore::open(Arc::new(left), Offload::Inline, Stop::new()).unwrap();
    assert_eq!(again.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 0)));
    assert_eq!(again.read_committed().await.unwrap(), None);
    // With its entry it comes to the disk.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (mut again, _end) =
        LogStore::open(Arc::new(disk.after_power_loss()), Offload::Inline, Stop::new()).unwrap();
    assert_eq!(again.read_committed().await.unwrap(), Some(log_id(1, 1)));
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(openraft::vote::leader_id_std::CommittedLeaderId::new(term), index)
}
