//! The log's disk on fjall.
//!
//! One keyspace holds everything: keys `e` + index (big endian) for entries, `m` + one byte for
//! the slots. A second keyspace with few writes would keep old journals alive.

use super::{Durability, LogDisk, REPLACE, Slot, Write};
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::io;
use std::ops::Range;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// Journals kept before memtables are flushed to let them go.
const JOURNAL_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Entries in memory before they go to a table of their own.
const MEMTABLE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Blocks cached: reads are rare, recent entries are cached above.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

pub(super) struct FjallDisk {
    folder: PathBuf,
    db: Database,
    keys: Keyspace,
}

fn entry_key(index: u64) -> [u8; 9] {
    let mut key = [b'e'; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

fn entry_index(key: &[u8]) -> io::Result<u64> {
    let index = key.get(1..9).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    index.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "the log store has a key of a strange length")
    })
}

fn slot_key(slot: Slot) -> [u8; 2] {
    let id = match slot {
        Slot::Identity => b'i',
        Slot::Vote => b'v',
        Slot::Committed => b'c',
        Slot::Purged => b'p',
    };
    [b'm', id]
}

fn failed(e: fjall::Error) -> io::Error {
    match e {
        fjall::Error::Io(e) => e,
        other => io::Error::other(format!("log store: {other:?}")),
    }
}

impl FjallDisk {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let told = |what: String, kind| {
            let place = folder.display();
            let what = format!(
                "the log in {place} cannot be opened: {what}. If no other process uses it, and the disk is neither full \
                 nor read-only, it is damaged. {REPLACE}"
            );
            io::Error::new(kind, what)
        };
        // Of some damage it makes an assertion that fails.
        match catch_unwind(|| Self::try_open(folder)) {
            Ok(opened) => opened.map_err(|e| told(e.to_string(), e.kind())),
            Err(panicked) => {
                let what = panicked.downcast_ref::<String>().map_or("the log store panicked", String::as_str);
                Err(told(what.replace('\n', ","), io::ErrorKind::InvalidData))
            }
        }
    }

    fn try_open(folder: &Path) -> io::Result<Self> {
        let db = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        let keys = db
            .keyspace("log", || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX))
            .map_err(failed)?;
        Ok(Self { folder: folder.to_owned(), db, keys })
    }
}

impl LogDisk for FjallDisk {
    fn write(&self, changes: Vec<Write>, durability: Durability) -> io::Result<()> {
        let mut batch = self.db.batch().durability(Some(match durability {
            Durability::Buffered => PersistMode::Buffer,
            Durability::Synced => PersistMode::SyncData,
        }));
        // A node that takes a snapshot for its whole log drops entries that it never had: they may be a great many.
        let mut beyond = None;
        for change in changes {
            match change {
                Write::Slot(slot, bytes) => batch.insert(&self.keys, slot_key(slot), bytes.as_ref()),
                Write::Entry(index, bytes) => {
                    beyond = beyond.max(Some(index + 1));
                    batch.insert(&self.keys, entry_key(index), bytes.as_ref());
                }
                Write::Remove(range) => {
                    let stored = self.last_index()?.map(|last| last + 1);
                    for index in range.start..range.end.min(stored.max(beyond).unwrap_or(0)) {
                        batch.remove(&self.keys, entry_key(index));
                    }
                }
            }
        }
        if batch.is_empty() {
            return match durability {
                Durability::Buffered => Ok(()),
                Durability::Synced => self.db.persist(PersistMode::SyncData).map_err(failed),
            };
        }
        batch.commit().map_err(failed)
    }

    fn slot(&self, slot: Slot) -> io::Result<Option<Bytes>> {
        let value = self.keys.get(slot_key(slot)).map_err(failed)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn entries(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for guard in self.keys.range(entry_key(range.start)..entry_key(range.end)) {
            let (key, value) = guard.into_inner().map_err(failed)?;
            bytes += value.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push((entry_index(&key)?, Bytes::copy_from_slice(&value)));
        }
        Ok(entries)
    }

    fn last_index(&self) -> io::Result<Option<u64>> {
        let last = self.keys.prefix(b"e").next_back();
        last.map(|guard| entry_index(&guard.key().map_err(failed)?)).transpose()
    }

    fn place(&self) -> String {
        format!("the log in {}", self.folder.display())
    }
}
