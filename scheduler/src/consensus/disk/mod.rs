//! The two disks of a node, behind small traits: the log's, and the snapshots'.
//!
//! [`Storage::open`] gives the real ones, a folder with a fjall database, a mark of how far it has got, and snapshot
//! files.
//! [`memory`] gives ones that forget at a power loss what was not synced, for simulations: the
//! rest of the room runs on either without knowing.

mod files;
mod fjall;
mod marked;
pub mod memory;

use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The log's folder in a data folder.
const LOG: &str = "log";
/// What to do with a node whose disk has lost something.
pub(super) const REPLACE: &str = "This node must not start: what it has lost may have been acknowledged. Keep its data \
                                  folder, remove the node from its cluster, and add a new one under a new id";

/// What is stored once, next to the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// Whose store this is.
    Identity,
    /// The node's vote.
    Vote,
    /// The last entry known to be committed.
    Committed,
    /// The last entry dropped from the log's front.
    Purged,
}

/// One change of the log's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a slot.
    Slot(Slot, Bytes),
    /// Sets the entry at an index.
    Entry(u64, Bytes),
    /// Removes the entries of a range.
    Remove(Range<u64>),
}

/// Whether a write may be lost at a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It may: the operating system has it.
    Buffered,
    /// It may not, nor may any write before it: the disk has it.
    Synced,
}

/// Where log entries, the vote and the rest of consensus' own state live.
pub trait LogDisk: Send + Sync + 'static {
    /// Makes the changes, all or none, in order. When this returns they are visible to reads; if
    /// `Synced`, they and everything before them survive a power failure. After an error the
    /// store is not written to again.
    fn write(&self, changes: Vec<Write>, durability: Durability) -> io::Result<()>;
    /// Reads a slot.
    fn slot(&self, slot: Slot) -> io::Result<Option<Bytes>>;
    /// Reads entries in order from the start of the range, until its end or until `bytes_max`
    /// is passed. The first is returned whatever its size.
    fn entries(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>>;
    /// The index of the last entry stored.
    fn last_index(&self) -> io::Result<Option<u64>>;
    /// What and where it is, for those who have to see to it.
    fn place(&self) -> String {
        "the log".to_owned()
    }
    /// How long the next write is to take where the disk is a simulated one, whose writes take no time by
    /// themselves. Only with [`Offload::Inline`].
    fn pause(&self) -> Duration {
        Duration::ZERO
    }
}

/// Where snapshots live, each a file with a name.
pub trait SnapshotDisk: Send + Sync + 'static {
    /// The names of all complete files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Reads a file.
    fn read(&self, name: &str) -> io::Result<Bytes>;
    /// Writes a file, durably: afterwards it is there whole; before, not at all.
    fn write(&self, name: &str, parts: &[Bytes]) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Where a file is, for those who have to see to it.
    fn place(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// Where slow work runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// On threads of its own: the log's writer, and the blocking pool.
    Threads,
    /// On the calling runtime, so that a simulation stays deterministic.
    Inline,
}

impl Offload {
    /// Runs blocking or long work where it disturbs nobody.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work)
                .await
                .map_err(|e| io::Error::other(format!("background work: {e}"))),
            Self::Inline => Ok(work()),
        }
    }
}

/// A node's storage.
#[derive(Clone)]
pub struct Storage {
    /// The log's disk.
    pub log: Arc<dyn LogDisk>,
    /// The snapshots' disk.
    pub snapshots: Arc<dyn SnapshotDisk>,
    /// Where slow work runs.
    pub offload: Offload,
}

impl Storage {
    /// Whether a folder is a node's data folder.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(LOG).is_dir()
    }

    /// Opens a node's data folder, and creates it if it is not there. A folder serves one process
    /// at a time.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let log = fjall::FjallDisk::open(&folder.join(LOG))?;
        let log = marked::Marked::open(log, &folder.join("log.mark"))?;
        let snapshots = files::Folder::open(&folder.join("snapshots"))?;
        Ok(Self { log: Arc::new(log), snapshots: Arc::new(snapshots), offload: Offload::Threads })
    }
}
