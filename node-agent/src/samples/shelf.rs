//! The samples' store on disk: one fjall database, with a keyspace a day, so that what is old goes by whole days.
//!
//! Nothing is fsynced for a sample: a write is with the system when it returns, and on disk after the next
//! [`Shelf::sync`].

use super::Sample;
use super::reading::{Signal, Value};
use super::run::{DAY_MS, Run, SPAN_MAX_MS, Unreadable, begins_ms, day_of, key};
use fjall::compaction::Leveled;
use fjall::config::{FilterPolicy, PartitioningPolicy, PinningPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Samples in memory before they go to a table of their own.
const MEMTABLE_BYTES_MAX: u64 = 2 << 20;
/// A table. To write one its index is gathered in memory, so that large ones take much of it.
const TABLE_BYTES_MAX: u64 = 4 << 20;
/// Of what the tables' worker has not written yet, more than this means that there is none any more.
const UNWRITTEN_BYTES_MAX: u64 = 16 << 20;
/// Blocks cached: reads are rare, and go from end to end.
const CACHE_BYTES: u64 = 1 << 20;
/// Files that are kept open.
const FILES_MAX: usize = 64;
/// Journals; the least that fjall takes.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The disk, or the right to it: what is in the store may be whole.
    #[error("{0}")]
    Disk(io::Error),
    /// Somebody has it open: most likely a question that is still being answered.
    #[error("it is in use")]
    InUse,
    /// It has given up, and does not say why.
    #[error("{0}")]
    Ended(String),
    /// What is in it cannot be understood.
    #[error("{0}")]
    Damaged(String),
}

impl From<fjall::Error> for ShelfError {
    fn from(error: fjall::Error) -> Self {
        use io::ErrorKind::{AlreadyExists, InvalidData, NotFound, UnexpectedEof};
        let io = match error {
            fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => io,
            fjall::Error::Locked => return Self::InUse,
            fjall::Error::Poisoned => return Self::Ended("an earlier write has failed".to_owned()),
            other => return Self::Damaged(other.to_string()),
        };
        match io.kind() {
            // What it has lost count of is in its way, too.
            NotFound | AlreadyExists | UnexpectedEof | InvalidData => Self::Damaged(io.to_string()),
            _ => Self::Disk(io),
        }
    }
}

impl From<Unreadable> for ShelfError {
    fn from(unreadable: Unreadable) -> Self {
        Self::Damaged(unreadable.to_string())
    }
}

/// The store, open.
pub struct Shelf {
    db: Database,
    days: Days,
    folder: PathBuf,
}

/// The days of a store, to be read. Cheap to clone; the store stays open while there is one.
#[derive(Clone, Default)]
pub struct Days(Arc<BTreeMap<i64, Keyspace>>);

impl Shelf {
    /// Opens the store in a folder, which is made where there is none.
    pub fn open(folder: &Path) -> Result<Self, ShelfError> {
        if folder.exists() && !folder.is_dir() {
            return Err(ShelfError::Disk(io::ErrorKind::NotADirectory.into()));
        }
        guarded(|| Self::try_open(folder))
    }

    fn try_open(folder: &Path) -> Result<Self, ShelfError> {
        let db = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(FILES_MAX))
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(1)
            .open()?;
        let mut days = BTreeMap::new();
        for name in db.list_keyspace_names() {
            let day = name.parse().map_err(|_| ShelfError::Damaged(format!("{name:?} is no day")))?;
            days.insert(day, db.keyspace(&name, options)?);
        }
        Ok(Self { db, days: Days(Arc::new(days)), folder: folder.to_owned() })
    }

    /// Its days.
    pub fn days(&self) -> &Days {
        &self.days
    }

    /// Writes samples, in any order.
    pub fn write(&mut self, samples: &mut [Sample]) -> Result<(), ShelfError> {
        guarded(|| {
            samples.sort_by(|one, other| place(one).cmp(&place(other)));
            let mut batch = self.db.batch().durability(Some(PersistMode::Buffer));
            let mut rest = &*samples;
            while let Some(first) = rest.first() {
                let (run, later) = run_of(first, rest);
                let day = self.day(day_of(first.at_ms))?;
                let key = free_key(&day, first)?;
                batch.insert(&day, key, run.encode());
                rest = later;
            }
            Ok(batch.commit()?)
        })
    }

    /// From now on what was written survives a power cut.
    pub fn sync(&self) -> Result<(), ShelfError> {
        guarded(|| {
            // Experimental by its own account, and all that tells of a worker that has died: without one, what is
            // written would stay in memory.
            let unwritten = self.db.write_buffer_size();
            if unwritten > UNWRITTEN_BYTES_MAX {
                return Err(ShelfError::Ended(format!("{unwritten} bytes wait to be written")));
            }
            Ok(self.db.persist(PersistMode::SyncData)?)
        })
    }

    /// Drops a day.
    pub fn drop_day(&mut self, day: i64) -> Result<(), ShelfError> {
        guarded(|| {
            let mut days = (*self.days.0).clone();
            if let Some(keyspace) = days.remove(&day) {
                self.days = Days(Arc::new(days));
                // Its files go with the last question that reads them.
                self.db.delete_keyspace(keyspace)?;
            }
            Ok(())
        })
    }

    /// What it takes on disk, bytes. A day that is dropped counts no more, though a question may still read it.
    pub fn bytes(&self) -> io::Result<u64> {
        let tables: u64 = self.days.0.values().map(Keyspace::disk_space).sum();
        Ok(tables + bytes_in(&self.folder)?)
    }

    /// A day's keyspace; with a new one, what is in memory of the others goes to disk: it does not grow any more.
    fn day(&mut self, day: i64) -> Result<Keyspace, ShelfError> {
        if let Some(keyspace) = self.days.0.get(&day) {
            return Ok(keyspace.clone());
        }
        let keyspace = self.db.keyspace(&day.to_string(), options)?;
        for other in self.days.0.values() {
            other.rotate_memtable()?;
        }
        let mut days = (*self.days.0).clone();
        days.insert(day, keyspace.clone());
        self.days = Days(Arc::new(days));
        Ok(keyspace)
    }
}

impl Days {
    /// The days that have samples, in order.
    pub fn numbers(&self) -> impl DoubleEndedIterator<Item = i64> + '_ {
        self.0.keys().copied()
    }

    /// Every sample of a signal of a machine from a time on, and before another, in the order of time, until it is
    /// enough. What is told twice, because an adapter read it again after a restart, comes once.
    pub fn read(
        &self,
        machine: &str,
        signal: Signal,
        from_ms: i64,
        until_ms: i64,
        each: &mut dyn FnMut(&Run, i64, Value) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ShelfError> {
        guarded(|| {
            let span = from_ms..until_ms;
            if span.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            let mut last = None;
            for (day, keyspace) in self.0.range(day_of(from_ms)..=day_of(until_ms - 1)) {
                // A run that begins before may reach into the span.
                let begin_ms = from_ms.saturating_sub(SPAN_MAX_MS).max(day.saturating_mul(DAY_MS));
                let keys = key(machine, signal, begin_ms, 0)..key(machine, signal, until_ms, 0);
                let mut waiting = Waiting::default();
                let mut tell = |run: &Run, at_ms, value| {
                    let again = last.replace((at_ms, value)) == Some((at_ms, value));
                    if again || !span.contains(&at_ms) {
                        return ControlFlow::Continue(());
                    }
                    each(run, at_ms, value)
                };
                for entry in keyspace.range(keys) {
                    let (key, bytes) = entry.into_inner()?;
                    let begins_ms = begins_ms(&key)?;
                    let flow = waiting.tell_before(begins_ms, &mut tell);
                    if flow.is_break() {
                        return Ok(flow);
                    }
                    waiting.add(Run::decode(begins_ms, &bytes)?);
                }
                let flow = waiting.tell_before(i64::MAX, &mut tell);
                if flow.is_break() {
                    return Ok(flow);
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// Runs whose samples may lie among those of a later one: of two that were written one after the other the second may
/// begin before the first ends.
#[derive(Default)]
struct Waiting(Vec<(Run, usize)>);

impl Waiting {
    fn add(&mut self, run: Run) {
        self.0.push((run, 0));
    }

    /// Tells the samples before a time, in the order of time.
    fn tell_before(
        &mut self,
        before_ms: i64,
        tell: &mut dyn FnMut(&Run, i64, Value) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let next = |(run, told): &(Run, usize)| run.samples.get(*told).map_or(i64::MAX, |(at_ms, _)| *at_ms);
        loop {
            self.0.retain(|(run, told)| *told < run.samples.len());
            let Some(first) = self.0.iter_mut().min_by_key(|run| next(run)) else { break };
            if next(first) >= before_ms {
                break;
            }
            let (run, told) = first;
            let (at_ms, value) = run.samples[*told];
            *told += 1;
            tell(run, at_ms, value)?;
        }
        ControlFlow::Continue(())
    }
}

fn place(sample: &Sample) -> (&str, Signal, i64) {
    (&sample.machine, sample.reading.signal, sample.at_ms)
}

/// The run that begins with a sample, and the samples after it.
fn run_of<'a>(first: &Sample, samples: &'a [Sample]) -> (Run, &'a [Sample]) {
    let (unit, quality) = (first.reading.unit, first.reading.quality);
    let mut run = Run { unit, quality, samples: Vec::new() };
    let same =
        |sample: &Sample| (&sample.machine, sample.reading.signal) == (&first.machine, first.reading.signal);
    for sample in samples {
        let reading = sample.reading;
        if !same(sample) || !run.takes(sample.at_ms, reading.unit, reading.quality) {
            break;
        }
        run.samples.push((sample.at_ms, reading.value));
    }
    let later = &samples[run.samples.len()..];
    (run, later)
}

/// A key for a run that no other has: one that begins at the same time would be replaced.
fn free_key(day: &Keyspace, first: &Sample) -> Result<Vec<u8>, ShelfError> {
    for more in 0..u8::MAX {
        let key = key(&first.machine, first.reading.signal, first.at_ms, more);
        if !day.contains_key(&key)? {
            return Ok(key);
        }
    }
    // So many runs that begin at one millisecond are one clock that stands still; the last of them stays.
    Ok(key(&first.machine, first.reading.signal, first.at_ms, u8::MAX))
}

fn options() -> KeyspaceCreateOptions {
    // Ranges are read, and filters are of use with single keys only. Nothing of a table stays in memory: with what is
    // kept for a month there would be no end to it.
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES_MAX)
        .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES_MAX)))
        .filter_policy(FilterPolicy::disabled())
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_pinning_policy(PinningPolicy::disabled())
}

/// Of some damage the store makes an assertion that fails. It is closed then, so that nothing half-done is seen.
fn guarded<T>(work: impl FnOnce() -> Result<T, ShelfError>) -> Result<T, ShelfError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panicked| {
        let what = panicked.downcast_ref::<String>().map(String::as_str);
        let what = what.or_else(|| panicked.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
        Err(ShelfError::Ended(what.replace('\n', ", ")))
    })
}

/// What the files in a folder take: the journals, which are longer than what is in them.
fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        // A file that the store removes meanwhile takes nothing.
        let metadata = entry?.metadata().ok().filter(std::fs::Metadata::is_file);
        bytes += metadata.map_or(0, |metadata| metadata.blocks() * 512);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::reading::{Quality, Reading, Unit};
    use super::*;

    const DAY: i64 = 20_000;

    fn sample(machine: &str, at_ms: i64, number: f64) -> Sample {
        Sample { machine: machine.into(), at_ms, reading: Reading::measured(Signal::Power, Some(number)) }
    }

    fn read(shelf: &Shelf, machine: &str, from_ms: i64, until_ms: i64) -> Vec<(i64, f64)> {
        let mut told = Vec::new();
        let mut each = |run: &Run, at_ms, value: Value| {
            assert_eq!((run.unit, run.quality), (Unit::Watt, Some(Quality::Measured)));
            told.push((at_ms, value.as_number().unwrap()));
            ControlFlow::Continue(())
        };
        assert!(
            shelf.days().read(machine, Signal::Power, from_ms, until_ms, &mut each).unwrap().is_continue()
        );
        told
    }

    #[test]
    fn a_span_of_time_has_what_is_in_it_and_nothing_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::open(&dir.path().join("samples")).unwrap();
        let begin_ms = DAY * DAY_MS;
        // Ten samples a second apart from each of three machines whose names begin alike, an hour before midnight.
        let mut samples: Vec<_> = (0..30).map(|at| (["m", "m-1", "m-10"][at % 3], at as i64 / 3)).collect();
        samples.reverse();
        let at = |second: i64| begin_ms + DAY_MS - 3_600_000 + second * 1_000;
        let mut samples: Vec<_> =
            samples.iter().map(|(machine, second)| sample(machine, at(*second), *second as f64)).collect();
        shelf.write(&mut samples).unwrap();
        // A load of the same machine is another signal.
        let load = Reading::measured(Signal::Load, Some(77.0));
        shelf.write(&mut [Sample { machine: "m-1".into(), at_ms: at(3), reading: load }]).unwrap();
        let told = read(&shelf, "m-1", at(3), at(6));
        assert_eq!(told, [(at(3), 3.0), (at(4), 4.0), (at(5), 5.0)], "from the first on, before the last");
        assert_eq!(read(&shelf, "m-1", at(3), at(3)), []);
        assert_eq!(read(&shelf, "m-1", at(9), i64::MAX - 1), [(at(9), 9.0)]);
        assert_eq!(read(&shelf, "m-1", i64::MIN, at(1)), [(at(0), 0.0)]);
        assert_eq!(read(&shelf, "m", at(0), at(60)).len(), 10);
    }

    #[test]
    fn what_is_written_in_several_turns_is_told_in_order_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("samples");
        let begin_ms = DAY * DAY_MS;
        let write = |shelf: &mut Shelf, times: &[i64]| {
            let mut samples: Vec<_> =
                times.iter().map(|at_ms| sample("m", begin_ms + at_ms, *at_ms as f64)).collect();
            shelf.write(&mut samples).unwrap();
        };
        let mut shelf = Shelf::open(&folder).unwrap();
        write(&mut shelf, &[0, 1_000, 2_000, 50_000]);
        // After a restart some are read again, and one that begins like the first run has more to tell.
        write(&mut shelf, &[0, 1_500]);
        write(&mut shelf, &[1_000, 2_000, 3_000]);
        let expected = [0, 1_000, 1_500, 2_000, 3_000, 50_000].map(|at_ms| (begin_ms + at_ms, at_ms as f64));
        assert_eq!(read(&shelf, "m", begin_ms, begin_ms + DAY_MS), expected);
        drop(shelf);
        let shelf = Shelf::open(&folder).unwrap();
        assert_eq!(read(&shelf, "m", begin_ms, begin_ms + DAY_MS), expected, "after a restart, too");
    }

    #[test]
    fn a_day_that_is_dropped_is_gone_from_the_disk_and_its_neighbours_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("samples");
        let mut shelf = Shelf::open(&folder).unwrap();
        let midnight_ms = DAY * DAY_MS;
        let mut samples: Vec<_> = [-1, 0, DAY_MS - 1, DAY_MS]
            .into_iter()
            .map(|at_ms| sample("m", midnight_ms + at_ms, at_ms as f64))
            .collect();
        shelf.write(&mut samples).unwrap();
        assert_eq!(shelf.days().numbers().collect::<Vec<_>>(), [DAY - 1, DAY, DAY + 1]);
        assert_eq!(read(&shelf, "m", i64::MIN, i64::MAX).len(), 4);
        shelf.drop_day(DAY).unwrap();
        let left = [-1, DAY_MS].map(|at_ms| (midnight_ms + at_ms, at_ms as f64));
        assert_eq!(read(&shelf, "m", i64::MIN, i64::MAX), left);
        drop(shelf);
        let shelf = Shelf::open(&folder).unwrap();
        assert_eq!(read(&shelf, "m", i64::MIN, i64::MAX), left, "after a restart, too");
        assert_eq!(shelf.days().numbers().collect::<Vec<_>>(), [DAY - 1, DAY + 1]);
    }
}
