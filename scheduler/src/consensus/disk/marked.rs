//! A log's disk that knows if it has lost what it had.
//!
//! A log store may take a journal whose rest it cannot read for one that ends there. After a crash in the middle of
//! a write that is right. Where a byte has changed on the disk it is not: everything after it is gone without a
//! word, entries and votes that others count on. So a small file beside the store notes how far it has got, and a
//! store that has less is refused.
//!
//! The mark is written soon after each sync, by a thread of its own, so that nobody waits for it, and is not synced
//! itself. So it may be older than the log, by a moment where a process is killed and by more where the power fails,
//! and then expects less. It is never ahead: before entries are taken back, it is, synced.
//!
//! The file: 8 bytes of magic, the index after the last entry, the term and the node of the vote (u64 each, little
//! endian), the CRC-32C of all that (u32, little endian).

use super::{Durability, LogDisk, Slot, Write};
use bytes::Bytes;
use millpool_proto::log::v1 as pb;
use prost::Message as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const MAGIC: &[u8; 8] = b"MPMARK\x00\x01";
const BYTES: usize = 36;

/// How far a log has got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mark {
    /// The index after the last entry, purged ones included; 0 for none.
    end: u64,
    /// The term of the vote; 0 for none.
    vote_term: u64,
    /// Whom it was for.
    vote_node: u64,
}

impl Mark {
    fn encode(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for number in [self.end, self.vote_term, self.vote_node] {
            bytes.extend(number.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend(checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let mark = Self { end: number(8)?, vote_term: number(16)?, vote_node: number(24)? };
        (bytes == mark.encode()).then_some(mark)
    }

    /// What a store has.
    fn of(disk: &dyn LogDisk) -> io::Result<Self> {
        let mut mark = Self::default();
        for slot in [Slot::Vote, Slot::Purged] {
            if let Some(bytes) = disk.slot(slot)? {
                mark.set(slot, &bytes);
            }
        }
        mark.end = mark.end.max(disk.last_index()?.map_or(0, |last| last + 1));
        Ok(mark)
    }

    /// What it is after some changes.
    fn after(mut self, changes: &[Write]) -> Self {
        let mut purged = 0;
        for change in changes {
            match change {
                Write::Entry(index, _) => self.end = index + 1,
                Write::Remove(range) if range.contains(&(self.end.saturating_sub(1))) => {
                    self.end = range.start
                }
                Write::Remove(_) => {}
                Write::Slot(Slot::Purged, bytes) => {
                    let mut only = Self::default();
                    only.set(Slot::Purged, bytes);
                    purged = only.end;
                }
                Write::Slot(slot, bytes) => self.set(*slot, bytes),
            }
        }
        self.end = self.end.max(purged);
        self
    }

    /// Takes in a slot. What cannot be read is found where it is read in earnest.
    fn set(&mut self, slot: Slot, bytes: &Bytes) {
        match slot {
            Slot::Vote => {
                let vote = pb::Vote::decode(bytes.clone()).unwrap_or_default();
                (self.vote_term, self.vote_node) = (vote.term, vote.node_id);
            }
            Slot::Purged => {
                let purged = pb::LogId::decode(bytes.clone()).ok();
                self.end = self.end.max(purged.map_or(0, |id| id.index + 1));
            }
            Slot::Identity | Slot::Committed => {}
        }
    }

    /// What a store lacks that had got so far.
    fn lacking(self, found: Self) -> Option<String> {
        if found.end < self.end {
            return Some(match found.end {
                0 => format!("it had entries up to {}, and has none", self.end - 1),
                end => format!("it had entries up to {}, and ends with {}", self.end - 1, end - 1),
            });
        }
        let is_older = found.vote_term < self.vote_term
            || found.vote_term == self.vote_term && found.vote_node != self.vote_node;
        let (term, found) = (self.vote_term, found.vote_term);
        is_older.then(|| format!("it had a vote of term {term}, and has one of term {found}"))
    }
}

/// A log's disk, and the mark beside it.
pub(super) struct Marked<D> {
    disk: D,
    notes: Arc<Notes>,
    noter: Option<JoinHandle<()>>,
}

/// What the disk and the thread that notes share.
struct Notes {
    marks: Mutex<Marks>,
    changed: Condvar,
    /// Whoever has it may write what `marks` say. Taken before them.
    file: Mutex<File>,
}

#[derive(Clone, Copy)]
struct Marks {
    /// What the store has, synced or not.
    seen: Mark,
    /// What it has synced: what is to be noted.
    synced: Mark,
    /// The store is closed.
    closed: bool,
}

impl Notes {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        // The marks are changed in steps that do not panic.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what is synced. What has been taken back meanwhile is not: the file is taken first.
    fn note(&self) -> io::Result<Mark> {
        let file = self.file();
        let mark = self.marks().synced;
        file.write_all_at(&mark.encode(), 0)?;
        Ok(mark)
    }

    /// Notes whatever is new, until the store is closed.
    fn keep(&self, mut noted: Mark) {
        loop {
            let marks = self.changed.wait_while(self.marks(), |marks| marks.synced == noted && !marks.closed);
            let marks = *marks.unwrap_or_else(PoisonError::into_inner);
            if marks.synced == noted {
                return;
            }
            match self.note() {
                Ok(mark) => noted = mark,
                Err(e) => return tracing::error!("how far the log has got is no longer noted: {e}"),
            }
        }
    }

    /// Notes, durably, that entries are about to be taken back.
    fn take_back(&self, end: u64) -> io::Result<()> {
        let file = self.file();
        let mark = {
            let mut marks = self.marks();
            marks.synced.end = end;
            marks.synced
        };
        file.write_all_at(&mark.encode(), 0)?;
        file.sync_data()
    }
}

impl<D: LogDisk> Marked<D> {
    /// Holds a store against its mark, which is made where there is none.
    pub(super) fn open(disk: D, path: &Path) -> io::Result<Self> {
        let seen = Mark::of(&disk)?;
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        match Mark::decode(&bytes) {
            Some(mark) => {
                if let Some(lacking) = mark.lacking(seen) {
                    let what = format!("{} is damaged: {lacking}. {}", disk.place(), super::REPLACE);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
            // An earlier version has kept none. Without one the store is as good as it looks.
            None if bytes.is_empty() => {}
            None => tracing::warn!("{} cannot be read and is made anew", path.display()),
        }
        file.set_len(BYTES as u64)?;
        file.write_all_at(&seen.encode(), 0)?;
        file.sync_all()?;
        let marks = Mutex::new(Marks { seen, synced: seen, closed: false });
        let notes = Arc::new(Notes { marks, changed: Condvar::new(), file: Mutex::new(file) });
        let noter = {
            let notes = notes.clone();
            std::thread::Builder::new().name("log-mark".into()).spawn(move || notes.keep(seen))?
        };
        Ok(Self { disk, notes, noter: Some(noter) })
    }
}

impl<D> Drop for Marked<D> {
    fn drop(&mut self) {
        self.notes.marks().closed = true;
        self.notes.changed.notify_one();
        if let Some(noter) = self.noter.take() {
            // It has said what went wrong, if anything did.
            let _ = noter.join();
        }
    }
}

impl<D: LogDisk> LogDisk for Marked<D> {
    fn write(&self, changes: Vec<Write>, durability: Durability) -> io::Result<()> {
        let (seen, synced) = {
            let marks = self.notes.marks();
            (marks.seen, marks.synced)
        };
        let after = seen.after(&changes);
        if after.end < synced.end {
            self.notes.take_back(after.end)?;
        }
        self.disk.write(changes, durability)?;
        let mut marks = self.notes.marks();
        marks.seen = after;
        if durability == Durability::Synced {
            marks.synced = after;
            self.notes.changed.notify_one();
        }
        Ok(())
    }

    fn slot(&self, slot: Slot) -> io::Result<Option<Bytes>> {
        self.disk.slot(slot)
    }

    fn entries(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>> {
        self.disk.entries(range, bytes_max)
    }

    fn last_index(&self) -> io::Result<Option<u64>> {
        self.disk.last_index()
    }

    fn place(&self) -> String {
        self.disk.place()
    }

    fn pause(&self) -> Duration {
        self.disk.pause()
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryDisk;
    use super::*;

    fn entry(index: u64) -> Write {
        Write::Entry(index, Bytes::from_static(b"x"))
    }

    fn vote(term: u64, node_id: u64) -> Write {
        let vote = pb::Vote { term, node_id, ..pb::Vote::default() };
        Write::Slot(Slot::Vote, vote.encode_to_vec().into())
    }

    fn purged(index: u64) -> Write {
        Write::Slot(Slot::Purged, pb::LogId { term: 1, index }.encode_to_vec().into())
    }

    /// A store that is written to so, and what another with the same mark has and is told.
    fn told(written: Vec<Vec<Write>>, found: Vec<Write>) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.mark");
        let disk = Marked::open(MemoryDisk::new(), &path).unwrap();
        for changes in written {
            disk.write(changes, Durability::Synced).unwrap();
        }
        drop(disk);
        let other = MemoryDisk::new();
        LogDisk::write(&other, found, Durability::Synced).unwrap();
        Marked::open(other, &path).map(drop).map_err(|e| e.to_string())
    }

    #[test]
    fn a_store_that_has_what_it_had_or_more_is_taken() {
        let written = || vec![vec![vote(3, 1), entry(0), entry(1)], vec![entry(2)]];
        assert_eq!(told(written(), vec![vote(3, 1), entry(0), entry(1), entry(2)]), Ok(()));
        assert_eq!(told(written(), vec![vote(4, 2), entry(2), entry(3)]), Ok(()));
        assert_eq!(told(vec![], vec![]), Ok(()));
    }

    #[test]
    fn a_store_that_has_less_is_refused_with_advice() {
        let written = || vec![vec![vote(3, 1)], vec![entry(0), entry(1)]];
        let shorter = told(written(), vec![vote(3, 1), entry(0)]).unwrap_err();
        assert!(
            shorter.contains("up to 1, and ends with 0") && shorter.contains("under a new id"),
            "{shorter}"
        );
        let empty = told(written(), vec![]).unwrap_err();
        assert!(empty.contains("and has none"), "{empty}");
        for older in [vote(2, 1), vote(3, 2)] {
            let refused = told(written(), vec![older, entry(0), entry(1)]).unwrap_err();
            assert!(refused.contains("a vote of term 3"), "{refused}");
        }
    }

    #[test]
    fn entries_that_were_taken_back_are_not_missed_and_purged_ones_neither() {
        let all = |range: Range<u64>| range.map(entry).collect::<Vec<_>>();
        let taken_back = vec![all(0..9), vec![Write::Remove(4..9)]];
        assert_eq!(told(taken_back.clone(), all(0..4)), Ok(()));
        assert!(told(taken_back, all(0..3)).is_err());
        // A snapshot takes the place of a log that ended before it.
        let replaced = vec![all(0..9), vec![purged(20), Write::Remove(0..21)]];
        assert_eq!(told(replaced.clone(), vec![purged(20)]), Ok(()));
        assert!(told(replaced, all(0..9)).is_err());
        assert_eq!(told(vec![all(0..9), vec![purged(8), Write::Remove(0..9)]], vec![purged(8)]), Ok(()));
    }

    #[test]
    fn every_flipped_bit_of_a_mark_is_found() {
        let bytes = Mark { end: 7, vote_term: 3, vote_node: 1 }.encode();
        assert_eq!(bytes.len(), BYTES);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::decode(&damaged), None, "bit {bit} was flipped unnoticed");
        }
        assert_eq!(Mark::decode(&bytes[..BYTES - 1]), None);
    }
}
