//! Disks in memory that can lose power.
//!
//! What was written but not synced is gone after [`MemoryDisk::lose_power`]. They can be slow, and full, and can
//! put away what a purge takes from the log, so that a simulation has the whole log in the end. A planted [`Bug`]
//! makes them worse than any disk may be: a harness that checks durability must find it.

use super::{Durability, LogDisk, Offload, Slot, SnapshotDisk, Storage, Write};
use bytes::Bytes;
use millpool_proto::log::v1 as pb;
use prost::Message as _;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A defect that a harness should find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A sync returns at once, and keeps nothing.
    SkipSync,
    /// A vote is gone after a power loss.
    ForgetVote,
}

/// Entries that were purged, by index. Clones share them.
pub type Archive = Arc<Mutex<BTreeMap<u64, Purged>>>;

/// An entry that was purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purged {
    /// The entry, as it is encoded.
    pub bytes: Bytes,
    /// The entry is known to have been committed. One that was purged in favour of a snapshot may have been another
    /// leader's; of those the one of the highest term is kept, because no leader writes another entry over a
    /// committed one.
    pub certain: bool,
}

impl Purged {
    fn term(&self) -> Option<u64> {
        Some(pb::Entry::decode(self.bytes.clone()).ok()?.log_id?.term)
    }
}

type Pauses = Box<dyn FnMut() -> Duration + Send>;

#[derive(Debug, Clone, Default)]
struct Content {
    slots: BTreeMap<Slot, Bytes>,
    entries: BTreeMap<u64, Bytes>,
    snapshots: BTreeMap<String, Bytes>,
}

impl Content {
    fn apply(&mut self, change: Write) {
        match change {
            Write::Slot(slot, bytes) => {
                self.slots.insert(slot, bytes);
            }
            Write::Entry(index, bytes) => {
                self.entries.insert(index, bytes);
            }
            Write::Remove(range) => self.entries.retain(|index, _| !range.contains(index)),
        }
    }
}

#[derive(Default)]
struct Inner {
    /// What reads see.
    seen: Content,
    /// What survives a power loss.
    kept: Content,
    /// Written, not yet synced.
    unsynced: VecDeque<Write>,
    /// Every write fails with this, once set.
    failing: Option<String>,
    /// How long each write takes.
    pauses: Option<Pauses>,
    archive: Archive,
    bug: Option<Bug>,
}

/// A node's disks in memory. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Inner>>);

impl MemoryDisk {
    /// Empty disks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Empty disks that put purged entries away.
    pub fn archiving(archive: Archive) -> Self {
        Self(Arc::new(Mutex::new(Inner { archive, ..Inner::default() })))
    }

    /// Lets each write of the log take as long as `pauses` says, from one to the next.
    pub fn slow_down(&self, pauses: impl FnMut() -> Duration + Send + 'static) {
        self.inner().pauses = Some(Box::new(pauses));
    }

    /// Entries that a power loss at this instant would leave, by index, as they are encoded.
    pub fn kept_entries(&self) -> BTreeMap<u64, Bytes> {
        self.inner().kept.entries.clone()
    }

    /// Plants a defect.
    pub fn plant(&self, bug: Bug) {
        self.inner().bug = Some(bug);
    }

    /// Forgets everything that was not synced. To be called between two runs of a node.
    pub fn lose_power(&self) {
        let mut inner = self.inner();
        inner.unsynced.clear();
        inner.seen = inner.kept.clone();
    }

    /// What a power loss at this instant would leave, as disks of their own: the node that still
    /// runs on these cannot reach them any more. Planted defects and slowness stay.
    pub fn after_power_loss(&self) -> Self {
        let mut inner = self.inner();
        let (kept, archive) = (inner.kept.clone(), inner.archive.clone());
        let pauses = inner.pauses.take();
        let after = Inner { seen: kept.clone(), kept, pauses, archive, bug: inner.bug, ..Inner::default() };
        Self(Arc::new(Mutex::new(after)))
    }

    /// Makes every later write fail.
    pub fn fail_writes(&self, reason: &str) {
        self.inner().failing = Some(reason.to_owned());
    }

    /// The storage of a node whose slow work runs as `offload` says.
    pub fn storage(&self, offload: Offload) -> Storage {
        Storage { log: Arc::new(self.clone()), snapshots: Arc::new(self.clone()), offload }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No code panics while it holds the lock; if one ever did, the content is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn check(&self) -> io::Result<()> {
        match &self.failing {
            Some(reason) => Err(io::Error::other(reason.clone())),
            None => Ok(()),
        }
    }

    fn sync(&mut self) {
        if self.bug == Some(Bug::SkipSync) {
            return;
        }
        while let Some(change) = self.unsynced.pop_front() {
            match &change {
                Write::Slot(Slot::Vote, _) if self.bug == Some(Bug::ForgetVote) => continue,
                Write::Remove(range) => self.put_away(range.clone()),
                _ => {}
            }
            self.kept.apply(change);
        }
    }

    /// Keeps what a purge is about to remove. Where the last entry is the one that the purge names, all before it are
    /// committed, too; where it is not, a snapshot has overtaken this log.
    fn put_away(&self, range: Range<u64>) {
        let purged =
            self.kept.slots.get(&Slot::Purged).and_then(|bytes| pb::LogId::decode(bytes.clone()).ok());
        let Some(purged) = purged else { return };
        let last = self.kept.entries.get(&purged.index).filter(|_| range.contains(&purged.index));
        let last = last.and_then(|bytes| pb::Entry::decode(bytes.clone()).ok()?.log_id);
        let certain = last == Some(purged);
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, bytes) in self.kept.entries.range(range).filter(|(index, _)| **index <= purged.index) {
            let new = Purged { bytes: bytes.clone(), certain };
            match archive.get_mut(index) {
                None => {
                    archive.insert(*index, new);
                }
                Some(known) if known.bytes == new.bytes => known.certain |= certain,
                Some(known) => {
                    assert!(!(known.certain && certain), "two nodes have purged different entries {index}");
                    if certain || (!known.certain && new.term() > known.term()) {
                        *known = new;
                    }
                }
            }
        }
    }
}

impl LogDisk for MemoryDisk {
    fn write(&self, changes: Vec<Write>, durability: Durability) -> io::Result<()> {
        let mut inner = self.inner();
        inner.check()?;
        for change in changes {
            inner.seen.apply(change.clone());
            inner.unsynced.push_back(change);
        }
        if durability == Durability::Synced {
            inner.sync();
        }
        Ok(())
    }

    fn slot(&self, slot: Slot) -> io::Result<Option<Bytes>> {
        Ok(self.inner().seen.slots.get(&slot).cloned())
    }

    fn entries(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>> {
        let inner = self.inner();
        let mut entries = Vec::new();
        let mut bytes = 0;
        if range.is_empty() {
            return Ok(entries);
        }
        for (index, entry) in inner.seen.entries.range(range) {
            bytes += entry.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push((*index, entry.clone()));
        }
        Ok(entries)
    }

    fn last_index(&self) -> io::Result<Option<u64>> {
        Ok(self.inner().seen.entries.keys().next_back().copied())
    }

    fn pause(&self) -> Duration {
        self.inner().pauses.as_mut().map_or(Duration::ZERO, |pauses| pauses())
    }
}

impl SnapshotDisk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner().seen.snapshots.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        self.inner().seen.snapshots.get(name).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn write(&self, name: &str, parts: &[Bytes]) -> io::Result<()> {
        let mut inner = self.inner();
        inner.check()?;
        let whole = Bytes::from(parts.concat());
        inner.seen.snapshots.insert(name.to_owned(), whole.clone());
        if inner.bug != Some(Bug::SkipSync) {
            inner.kept.snapshots.insert(name.to_owned(), whole);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.check()?;
        inner.seen.snapshots.remove(name);
        inner.kept.snapshots.remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Write {
        let entry = pb::Entry { log_id: Some(pb::LogId { term, index }), ..pb::Entry::default() };
        Write::Entry(index, entry.encode_to_vec().into())
    }

    fn purge(index: u64, term: u64) -> [Write; 2] {
        let purged = pb::LogId { term, index }.encode_to_vec();
        [Write::Slot(Slot::Purged, purged.into()), Write::Remove(0..index + 1)]
    }

    #[test]
    fn what_a_snapshot_has_overtaken_is_put_away_until_something_better_is_known() {
        let archive = Archive::default();
        let term_of = |index: u64| {
            let archive = archive.lock().expect("nobody panics");
            archive.get(&index).map(|purged| (purged.term().unwrap_or_default(), purged.certain))
        };
        let disk = |writes: &[&[Write]]| {
            let disk = MemoryDisk::archiving(archive.clone());
            LogDisk::write(&disk, writes.concat(), Durability::Synced).expect("a disk that works");
        };
        disk(&[&[entry(1, 1), entry(2, 1), entry(9, 1)], &purge(7, 3)]);
        assert_eq!((term_of(1), term_of(2), term_of(9)), (Some((1, false)), Some((1, false)), None));
        disk(&[&[entry(1, 1), entry(2, 2)], &purge(7, 3)]);
        disk(&[&[entry(2, 1)], &purge(7, 3)]);
        assert_eq!((term_of(1), term_of(2)), (Some((1, false)), Some((2, false))), "the highest term");
        disk(&[&[entry(1, 1), entry(2, 1)], &purge(2, 1)]);
        assert_eq!(
            (term_of(1), term_of(2)),
            (Some((1, true)), Some((1, true))),
            "what is known to be committed"
        );
    }
}
