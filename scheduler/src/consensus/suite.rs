//! openraft's own storage suite, on both disks.

use super::agreement::Observer;
use super::disk::memory::MemoryDisk;
use super::disk::{Offload, Storage};
use super::log::LogStore;
use super::machine::{Machine, Outlets, View};
use super::snapshot::Snapshots;
use super::stop::Stop;
use super::types::Types;
use super::{Applied, ApplyError, DecodeError, Revision, StateMachine};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::sync::Arc;
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

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bytes = bytes.try_into().map_err(|_| DecodeError("not 8 bytes".into()))?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }

    fn hash(&self) -> u64 {
        self.0
    }
}

fn machine(storage: &Storage) -> Machine<Counter> {
    let (view, _) = watch::channel(Arc::new(View { revision: 0, term: 0, state: Counter(0) }));
    let (changes, _) = broadcast::channel(1);
    let (term, _) = watch::channel(0);
    let (observer, _) = Observer::new(0);
    let outlets = Outlets { view, changes, term, observer, stop: Stop::new() };
    let snapshots = Snapshots::new(storage.snapshots.clone(), storage.offload, "suite", Stop::new());
    // The suite begins its logs where it likes; a cluster's begins at 0.
    Machine::new(Counter(0), outlets, snapshots).beginning_anywhere()
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
