//! The log as openraft sees it, on a [`LogDisk`].
//!
//! An append is visible in memory at once and durable later: one writer takes everything that
//! waits, writes it in one go, fsyncs once, and only then calls back. So proposals that arrive
//! while an fsync runs share the next one. Recent entries stay in memory, within a bound, so that
//! replication and apply seldom read the disk.
//!
//! Invariant: jobs reach the disk in the order in which openraft gave them. Invariant: after a
//! failed write nothing is written any more; every later job fails too. Invariant: the commit index
//! on disk is of an entry on disk.

use super::disk::{Durability, LogDisk, Offload, REPLACE, Slot, Write};
use super::error::StopReason;
use super::stop::Stop;
use super::types::{Entry, LogId, Types, Vote};
use super::{format, limits};
use bytes::Bytes;
use metrics::{Counter, Gauge, Histogram};
use millpool_proto::log::v1 as pb;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// The log storage handed to openraft. Clones are readers too.
#[derive(Clone)]
pub(super) struct LogStore {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Job>,
}

/// Waits for the writer to end, after the last [`LogStore`] is gone.
pub(super) struct WriterEnd(oneshot::Receiver<()>);

impl WriterEnd {
    pub(super) async fn wait(self) {
        // An error means that the writer has already gone.
        let _ = self.0.await;
    }
}

struct Shared {
    disk: Arc<dyn LogDisk>,
    offload: Offload,
    stop: Stop,
    tail: Mutex<Tail>,
}

/// The log's end in memory, and what is known of the rest.
#[derive(Default)]
pub(super) struct Tail {
    /// The newest entries, consecutive up to `last`.
    entries: VecDeque<Cached>,
    /// Bytes of their commands.
    bytes: usize,
    /// The number of the last append job handed out.
    job: u64,
    /// The number of the last append job on disk: entries of later ones may not leave memory.
    job_durable: u64,
    pub(super) last: Option<LogId>,
    pub(super) purged: Option<LogId>,
    /// Where the log began: 0, but in openraft's suite.
    first: u64,
    /// The last entry known to be committed. The disk may lag behind.
    pub(super) committed: Option<LogId>,
    /// The append job that has that entry; none if the log did not reach it when it was told.
    committed_job: Option<u64>,
    vote: Option<Vote>,
}

struct Cached {
    entry: Entry,
    job: u64,
}

/// What the writer is asked to do.
enum Job {
    Append { entries: Vec<Entry>, job: u64, flushed: IOFlushed<Types> },
    Vote { vote: Vote, done: oneshot::Sender<io::Result<()>> },
    Truncate { range: Range<u64>, done: oneshot::Sender<io::Result<()>> },
    Purge { range: Range<u64>, upto: LogId, done: oneshot::Sender<io::Result<()>> },
}

fn bytes_of(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.0.len(),
        _ => 64,
    }
}

fn invalid(e: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e.to_string())
}

pub(super) fn next_index(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

impl LogStore {
    /// Reads what the disk has, and starts the writer.
    pub(super) fn open(
        disk: Arc<dyn LogDisk>,
        offload: Offload,
        stop: Stop,
    ) -> io::Result<(Self, WriterEnd)> {
        let tail = recover(disk.as_ref()).map_err(|e| unusable(disk.as_ref(), &e))?;
        let shared = Arc::new(Shared { tail: Mutex::new(tail), disk, offload, stop: stop.clone() });
        let (queue, jobs) = mpsc::channel(limits::LOG_QUEUE_JOBS_MAX);
        let (ended, end) = oneshot::channel();
        let writer = Writer::new(shared.clone(), jobs, stop);
        match offload {
            Offload::Threads => {
                std::thread::Builder::new().name("log-writer".into()).spawn(move || {
                    writer.run_on_thread();
                    let _ = ended.send(());
                })?;
            }
            Offload::Inline => {
                tokio::spawn(async move {
                    writer.run_as_task().await;
                    let _ = ended.send(());
                });
            }
        }
        Ok((Self { shared, queue }, WriterEnd(end)))
    }

    async fn enqueue(&self, job: Job) -> io::Result<()> {
        self.queue.send(job).await.map_err(|_| io::Error::other("the log's writer has stopped"))
    }

    async fn ask(&self, job: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job) -> io::Result<()> {
        let (done, outcome) = oneshot::channel();
        self.enqueue(job(done)).await?;
        outcome.await.map_err(|_| io::Error::other("the log's writer has stopped"))?
    }

    /// Entries of the range in order, from its start; stops early once `bytes_max` is passed.
    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let (older, newer) = {
            let tail = self.shared.tail();
            let end = range.end.min(next_index(tail.last));
            let start = range.start.max(next_index(tail.purged)).max(tail.first);
            if start >= end {
                return Ok(Vec::new());
            }
            let cached_from = tail.cached_from();
            (start..end.min(cached_from), tail.cached(start.max(cached_from)..end, bytes_max))
        };
        if older.is_empty() {
            return Ok(newer);
        }
        let mut entries = self.read_disk(older.clone(), bytes_max).await?;
        if entries.len() as u64 == older.end - older.start {
            let read: usize = entries.iter().map(bytes_of).sum();
            let room = bytes_max.saturating_sub(read);
            let mut left = room;
            entries.extend(newer.into_iter().take_while(|entry| {
                let fits = bytes_of(entry) <= left;
                left = left.saturating_sub(bytes_of(entry));
                fits
            }));
        } else if bytes_max == usize::MAX {
            return Err(unusable(
                self.shared.disk.as_ref(),
                &invalid(format!("it lacks an entry of {older:?}")),
            ));
        }
        Ok(entries)
    }

    async fn read_disk(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let disk = self.shared.disk.clone();
        let read =
            self.shared.offload.run(move || entries_of(disk.as_ref(), range, bytes_max)).await.flatten();
        read.map_err(|e| {
            let e = unusable(self.shared.disk.as_ref(), &e);
            self.shared.stop.set(StopReason::Storage(e.to_string()));
            e
        })
    }

    /// Where the log begins: entries up to this one may be gone.
    pub(super) fn purged(&self) -> Option<LogId> {
        self.shared.tail().purged
    }
}

/// What the disk has. All of it is read, so that damage is known before somebody counts on this node.
pub(super) fn recover(disk: &dyn LogDisk) -> io::Result<Tail> {
    let vote = read_slot::<pb::Vote>(disk, Slot::Vote)?.map(|vote| format::read_vote(&vote));
    let purged = read_slot::<pb::LogId>(disk, Slot::Purged)?.map(|id| format::read_log_id(&id));
    let committed = read_slot::<pb::LogId>(disk, Slot::Committed)?.map(|id| format::read_log_id(&id));
    let mut last = purged;
    let end = disk.last_index()?.map_or(0, |index| index + 1);
    while next_index(last) < end {
        let entries = entries_of(disk, next_index(last)..end, limits::GROUP_BYTES_MAX)?;
        for entry in &entries {
            if last.is_some_and(|last| entry.log_id.leader_id < last.leader_id) {
                return Err(invalid(format!(
                    "entry {} is of an earlier term than the one before it",
                    entry.log_id
                )));
            }
            last = Some(entry.log_id);
        }
    }
    if committed > last {
        return Err(invalid("it ends before the entry that it says is committed"));
    }
    Ok(Tail { vote, purged, committed, last, ..Tail::default() })
}

/// Entries of a range that the disk has, in order from its start; stops early once `bytes_max` is passed.
pub(super) fn entries_of(disk: &dyn LogDisk, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
    let found = disk.entries(range.clone(), bytes_max)?;
    if found.is_empty() && !range.is_empty() {
        return Err(invalid(format!("it lacks entry {}", range.start)));
    }
    let mut entries = Vec::with_capacity(found.len());
    for (expected, (index, bytes)) in (range.start..).zip(found) {
        if index != expected {
            return Err(invalid(format!("it lacks entry {expected}")));
        }
        entries.push(read_entry(index, bytes)?);
    }
    Ok(entries)
}

/// What whoever runs the node is told of a log that cannot be read.
pub(super) fn unusable(disk: &dyn LogDisk, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{} cannot be used: {e}. {REPLACE}", disk.place()))
}

fn read_slot<M: prost::Message + Default>(disk: &dyn LogDisk, slot: Slot) -> io::Result<Option<M>> {
    let bytes = disk.slot(slot)?;
    bytes.map(|bytes| format::decode(&format!("the store's {slot:?}"), bytes).map_err(invalid)).transpose()
}

fn read_entry(index: u64, bytes: Bytes) -> io::Result<Entry> {
    let what = format!("log entry {index}");
    let entry = format::decode::<pb::Entry>(&what, bytes).and_then(format::read_entry).map_err(invalid)?;
    if entry.log_id.index != index {
        return Err(invalid(format!("{what} says that it is entry {}", entry.log_id.index)));
    }
    Ok(entry)
}

impl Shared {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        // The tail is changed in steps that do not panic.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    /// The append job of an entry that the log has; 0 for one that has left memory, since the disk has it.
    fn job_of(&self, index: u64) -> Option<u64> {
        let place = index.checked_sub(self.cached_from());
        let job = || place.map_or(0, |place| self.entries.get(place as usize).map_or(0, |cached| cached.job));
        (index < next_index(self.last)).then(job)
    }

    fn cached_from(&self) -> u64 {
        self.entries.front().map_or(next_index(self.last), |cached| cached.entry.log_id.index)
    }

    fn cached(&self, range: Range<u64>, bytes_max: usize) -> Vec<Entry> {
        let from = self.cached_from();
        let mut bytes = 0;
        let skip = range.start.saturating_sub(from) as usize;
        let take = range.end.saturating_sub(range.start) as usize;
        let fits = |cached: &&Cached| {
            let first = bytes == 0;
            bytes += bytes_of(&cached.entry).max(1);
            first || bytes <= bytes_max
        };
        self.entries
            .iter()
            .skip(skip)
            .take(take)
            .take_while(fits)
            .map(|cached| cached.entry.clone())
            .collect()
    }

    fn push(&mut self, entries: &[Entry]) -> u64 {
        self.job += 1;
        if cfg!(test) && self.last.is_none() {
            self.first = entries.first().map_or(0, |entry| entry.log_id.index);
        }
        for entry in entries {
            let expected = next_index(self.last).max(self.first);
            assert_eq!(entry.log_id.index, expected, "the log has no holes");
            self.last = Some(entry.log_id);
            self.bytes += bytes_of(entry);
            self.entries.push_back(Cached { entry: entry.clone(), job: self.job });
        }
        self.job
    }

    /// Lets the oldest entries go while there are too many, if the disk has them.
    fn shrink(&mut self) {
        while self.bytes > limits::LOG_CACHE_BYTES_MAX
            && self.entries.front().is_some_and(|cached| cached.job <= self.job_durable)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(cached) = self.entries.pop_front() {
            self.bytes -= bytes_of(&cached.entry);
        }
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start..end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let entries = self.read(start..end, limits::APPEND_BYTES_MAX).await?;
        // openraft purges nothing that is being sent. Should it ever, a follower must not be sent a log with a hole;
        // of nothing it makes a sign of life.
        let from_the_start = entries.first().is_some_and(|first| first.log_id.index == start);
        Ok(if from_the_start { entries } else { Vec::new() })
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.tail().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let tail = self.shared.tail();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        self.ask(|done| Job::Vote { vote, done }).await?;
        self.shared.tail().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Not worth a write of its own: it rides along with the next one. A lost one is learned again
        // from the cluster.
        let mut tail = self.shared.tail();
        tail.committed = committed;
        tail.committed_job = committed.and_then(|id| tail.job_of(id.index));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.tail().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let job = self.shared.tail().push(&entries);
        self.enqueue(Job::Append { entries, job, flushed }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let range = {
            let mut tail = self.shared.tail();
            let range = next_index(last)..next_index(tail.last);
            while tail.entries.back().is_some_and(|cached| cached.entry.log_id.index >= range.start) {
                if let Some(cached) = tail.entries.pop_back() {
                    tail.bytes -= bytes_of(&cached.entry);
                }
            }
            tail.last = tail.last.min(last);
            range
        };
        self.ask(|done| Job::Truncate { range, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let range = {
            let mut tail = self.shared.tail();
            let range = next_index(tail.purged)..upto.index + 1;
            while tail.entries.front().is_some_and(|cached| cached.entry.log_id.index <= upto.index) {
                tail.pop_front();
            }
            tail.purged = tail.purged.max(Some(upto));
            tail.last = tail.last.max(Some(upto));
            range
        };
        self.ask(|done| Job::Purge { range, upto, done }).await
    }
}

/// The one place that writes to the log's disk.
struct Writer {
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
    stop: Stop,
    failed: Option<String>,
    /// The commit index that the disk has.
    committed_written: Option<LogId>,
    /// The last append job taken.
    job: u64,
    meters: Meters,
}

struct Meters {
    sync_seconds: Histogram,
    group_entries: Histogram,
    bytes: Counter,
    last_index: Gauge,
    cache_bytes: Gauge,
}

/// What waits for one write to be done.
#[derive(Default)]
struct Waiting {
    flushed: Vec<IOFlushed<Types>>,
    done: Vec<oneshot::Sender<io::Result<()>>>,
    job: Option<u64>,
    entries: usize,
    bytes: usize,
    last_index: Option<u64>,
}

impl Writer {
    fn new(shared: Arc<Shared>, jobs: mpsc::Receiver<Job>, stop: Stop) -> Self {
        let meters = Meters {
            sync_seconds: metrics::histogram!("millpool_log_sync_seconds"),
            group_entries: metrics::histogram!("millpool_log_group_entries"),
            bytes: metrics::counter!("millpool_log_bytes_total"),
            last_index: metrics::gauge!("millpool_log_last_index"),
            cache_bytes: metrics::gauge!("millpool_log_cache_bytes"),
        };
        let committed_written = shared.tail().committed;
        Self { shared, jobs, stop, failed: None, committed_written, job: 0, meters }
    }

    fn run_on_thread(mut self) {
        let mut group = Vec::new();
        while let Some(job) = self.jobs.blocking_recv() {
            group.push(job);
            self.gather(&mut group);
            self.write_group(&mut group);
        }
        self.finish();
    }

    async fn run_as_task(mut self) {
        let mut group = Vec::new();
        while let Some(job) = self.jobs.recv().await {
            group.push(job);
            self.gather(&mut group);
            // Others see that the write is under way, and a node may die before it has come to pass.
            tokio::time::sleep(self.shared.disk.pause()).await;
            self.write_group(&mut group);
        }
        self.finish();
    }

    /// Takes what else waits.
    fn gather(&mut self, group: &mut Vec<Job>) {
        let mut bytes = 0;
        while group.len() < limits::GROUP_JOBS_MAX && bytes < limits::GROUP_BYTES_MAX {
            let Ok(job) = self.jobs.try_recv() else { break };
            if let Job::Append { entries, .. } = &job {
                bytes += entries.iter().map(bytes_of).sum::<usize>();
            }
            group.push(job);
        }
    }

    /// Writes all of it with one fsync.
    fn write_group(&mut self, group: &mut Vec<Job>) {
        let mut waiting = Waiting::default();
        let mut writes = Vec::new();
        for job in group.drain(..) {
            waiting.admit(job, &mut writes);
        }
        self.job = waiting.job.unwrap_or(self.job);
        writes.extend(self.committed());
        let outcome = self.write(writes);
        self.settle(waiting, outcome);
    }

    /// The commit index, if the disk does not have it yet. Others may have committed what this disk is only about to
    /// get: an index before its entries would keep the node from ever starting again.
    fn committed(&mut self) -> Option<Write> {
        let committed = {
            let tail = self.shared.tail();
            let is_covered = tail.committed_job.is_some_and(|job| job <= self.job);
            tail.committed.filter(|id| is_covered && self.committed_written < Some(*id))?
        };
        self.committed_written = Some(committed);
        Some(Write::Slot(Slot::Committed, format::encode(&format::log_id(&committed))))
    }

    fn write(&mut self, writes: Vec<Write>) -> Result<(), String> {
        if let Some(failed) = &self.failed {
            return Err(format!("not written after an earlier failure: {failed}"));
        }
        let begun = Instant::now();
        let outcome = self.shared.disk.write(writes, Durability::Synced);
        self.meters.sync_seconds.record(begun.elapsed().as_secs_f64());
        outcome.map_err(|e| {
            let reason = e.to_string();
            self.failed = Some(reason.clone());
            self.stop.set(StopReason::Storage(reason.clone()));
            reason
        })
    }

    fn settle(&mut self, waiting: Waiting, outcome: Result<(), String>) {
        if outcome.is_ok() {
            if let Some(job) = waiting.job {
                let mut tail = self.shared.tail();
                tail.job_durable = tail.job_durable.max(job);
                tail.shrink();
                self.meters.cache_bytes.set(tail.bytes as f64);
            }
            if waiting.entries > 0 {
                self.meters.group_entries.record(waiting.entries as f64);
                self.meters.bytes.increment(waiting.bytes as u64);
            }
            if let Some(index) = waiting.last_index {
                self.meters.last_index.set(index as f64);
            }
        }
        for flushed in waiting.flushed {
            flushed.io_completed(outcome.clone().map_err(io::Error::other));
        }
        for done in waiting.done {
            // The asker may have been dropped with its node.
            let _ = done.send(outcome.clone().map_err(io::Error::other));
        }
    }

    /// Leaves nothing in the operating system's hands only.
    fn finish(mut self) {
        let writes = self.committed().into_iter().collect();
        if let Err(reason) = self.write(writes) {
            tracing::warn!("the log's last sync failed: {reason}");
        }
    }
}

impl Waiting {
    fn admit(&mut self, job: Job, writes: &mut Vec<Write>) {
        match job {
            Job::Append { entries, job, flushed } => {
                for entry in entries {
                    let bytes = format::encode(&format::entry(&entry));
                    self.bytes += bytes.len();
                    self.entries += 1;
                    self.last_index = Some(entry.log_id.index);
                    writes.push(Write::Entry(entry.log_id.index, bytes));
                }
                self.job = Some(job);
                self.flushed.push(flushed);
            }
            Job::Vote { vote, done } => {
                writes.push(Write::Slot(Slot::Vote, format::encode(&format::vote(&vote))));
                self.done.push(done);
            }
            Job::Truncate { range, done } => {
                writes.push(Write::Remove(range));
                self.done.push(done);
            }
            Job::Purge { range, upto, done } => {
                writes.push(Write::Slot(Slot::Purged, format::encode(&format::log_id(&upto))));
                writes.push(Write::Remove(range));
                self.done.push(done);
            }
        }
    }
}
