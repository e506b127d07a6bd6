//! The outbox: every event gets a number and is on disk before it is sent.
//!
//! Adapters append [`Entry`]s: events, together with a *mark* that says where their machine stands after
//! them, so that after a crash neither is there without the other. One thread owns the files; it takes
//! what is waiting, writes it as one frame, syncs once, and only then answers the appenders and lets the
//! session read. The session trims what the coordinator has applied.
//!
//! - [`log`]: the files. [`record`]: the bytes in them.
//!
//! **Pressure.** The outbox has a size limit. When it is full, whoever appends waits until the coordinator
//! has taken some; nothing is thinned, and nothing is answered that is not on disk. An adapter that waits
//! reads on later from its machine's own buffer, and what that has lost by then is a recorded gap.

pub mod log;
pub mod record;
mod standing;

pub use log::LogError;
pub use record::{Entry, Mark};

use crate::ground::Ground;
use bytes::Bytes;
use log::Log;
use millpool_proto::v1::AgentEvent;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};

/// Requests that may wait for the outbox's thread.
const REQUESTS_MAX: usize = 1024;
/// Requests taken together into one sync.
const GROUP_REQUESTS_MAX: usize = 512;
/// Least size limit that is accepted.
pub const BYTES_MAX_LEAST: u64 = 4 << 20;
/// Size limit where the config names none.
pub const BYTES_MAX_DEFAULT: u64 = 64 << 20;
/// Appends whose time is remembered, to measure how long sending takes.
const TIMED_MAX: usize = 4096;

/// What an outbox is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its folder.
    pub dir: PathBuf,
    /// Size limit on disk.
    pub bytes_max: u64,
}

/// How the outbox stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Its random identity.
    pub outbox_id: String,
    /// Lowest number that can still be read.
    pub first_seq: u64,
    /// Highest number that is durable.
    pub last_seq: u64,
    /// Highest number that the coordinator has applied.
    pub acked_seq: u64,
    /// Size on disk.
    pub bytes: u64,
    /// Appends that wait because it is full.
    pub waiting: u64,
    /// Why it has stopped, if it has.
    pub failed: Option<String>,
}

/// Why an append or a read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OutboxError {
    /// It was shut down, or it failed; the status says why.
    #[error("the outbox has stopped: {0}")]
    Stopped(String),
}

enum Request {
    Append { entry: Entry, done: oneshot::Sender<()>, since: Instant },
    Read { from_seq: u64, max: usize, found: oneshot::Sender<Vec<AgentEvent>> },
    Trim { seq: u64 },
    Refound { done: oneshot::Sender<()> },
    Close { done: oneshot::Sender<()> },
}

/// What adapters and the session hold.
#[derive(Clone)]
pub struct Outbox {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
    marks: Arc<BTreeMap<String, Bytes>>,
    timed: Arc<Mutex<VecDeque<(u64, Instant)>>>,
}

/// Opens the outbox and starts its writer.
pub fn open(options: &Options, ground: &Ground) -> Result<Outbox, LogError> {
    let log = Log::open(&options.dir, || ground.new_id(""))?;
    let marks = Arc::new(log.marks().clone());
    let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
    let timed = Arc::new(Mutex::new(VecDeque::new()));
    let (status_sender, status) = watch::channel(Status::default());
    let writer = Writer {
        log,
        ground: ground.clone(),
        bytes_max: options.bytes_max.max(BYTES_MAX_LEAST),
        status: status_sender,
        timed: timed.clone(),
        blocked: VecDeque::new(),
    };
    writer.publish(None);
    if ground.has_threads() {
        let named = std::thread::Builder::new().name("outbox".to_owned());
        named.spawn(move || writer.run_on_thread(waiting)).map_err(|source| LogError::Io {
            doing: "start a thread for",
            path: options.dir.clone(),
            source,
        })?;
    } else {
        tokio::spawn(writer.run_as_task(waiting));
    }
    Ok(Outbox { requests, status, marks, timed })
}

impl Outbox {
    /// Puts events and a mark on disk; answers when they are durable. Waits while the outbox is full.
    pub async fn append(&self, entry: Entry) -> Result<(), OutboxError> {
        let (done, answer) = oneshot::channel();
        self.ask(Request::Append { entry, done, since: Instant::now() }).await?;
        answer.await.map_err(|_| self.stopped())
    }

    /// Events from `from_seq` on that are durable, at most `max`.
    pub async fn read(&self, from_seq: u64, max: usize) -> Result<Vec<AgentEvent>, OutboxError> {
        let (found, answer) = oneshot::channel();
        self.ask(Request::Read { from_seq, max, found }).await?;
        answer.await.map_err(|_| self.stopped())
    }

    /// Everything up to `seq` is applied by the coordinator.
    pub async fn trim(&self, seq: u64) -> Result<(), OutboxError> {
        self.ask(Request::Trim { seq }).await
    }

    /// Begins a new outbox, with what is not acknowledged renumbered from 1: for a coordinator that knows
    /// nothing of this one any more.
    pub async fn refound(&self) -> Result<(), OutboxError> {
        let (done, answer) = oneshot::channel();
        self.ask(Request::Refound { done }).await?;
        answer.await.map_err(|_| self.stopped())
    }

    /// Writes what was asked before, and stops.
    pub async fn close(&self) {
        let (done, answer) = oneshot::channel();
        if self.ask(Request::Close { done }).await.is_ok() {
            // An error here means that the thread is gone, which is what was asked for.
            let _ = answer.await;
        }
    }

    /// The mark that stood under this key when the outbox was opened.
    pub fn mark(&self, key: &str) -> Option<Bytes> {
        self.marks.get(key).cloned()
    }

    /// How it stands, and a wake-up whenever that changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// How long ago the events up to `seq` were handed in, for those not asked about before. For the
    /// latency metric.
    pub fn take_ages(&self, seq: u64) -> Vec<std::time::Duration> {
        let mut timed = self.timed.lock().unwrap_or_else(PoisonError::into_inner);
        let due = timed.partition_point(|(timed_seq, _)| *timed_seq <= seq);
        timed.drain(..due).map(|(_, since)| since.elapsed()).collect()
    }

    async fn ask(&self, request: Request) -> Result<(), OutboxError> {
        self.requests.send(request).await.map_err(|_| self.stopped())
    }

    fn stopped(&self) -> OutboxError {
        let why = self.status.borrow().failed.clone();
        OutboxError::Stopped(why.unwrap_or_else(|| "it was shut down".to_owned()))
    }
}

type Append = (Entry, oneshot::Sender<()>, Instant);

/// Owns the files, on a thread of its own where there are threads.
struct Writer {
    log: Log,
    ground: Ground,
    bytes_max: u64,
    status: watch::Sender<Status>,
    timed: Arc<Mutex<VecDeque<(u64, Instant)>>>,
    /// Appends that wait for room. One for each appender at most, for an appender awaits its answer.
    blocked: VecDeque<Append>,
}

impl Writer {
    fn run_on_thread(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            match self.serve(first, &mut requests) {
                Ok(None) => {}
                ended => return self.end(ended),
            }
        }
    }

    async fn run_as_task(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.recv().await {
            match self.serve(first, &mut requests) {
                Ok(None) => {}
                ended => return self.end(ended),
            }
        }
    }

    fn end(self, ended: Result<Option<oneshot::Sender<()>>, LogError>) {
        match ended {
            Ok(closed) => {
                // The files are let go of first, so that they can be opened again.
                drop(self);
                let _ = closed.map(|closed| closed.send(()));
            }
            Err(error) => {
                tracing::error!(%error, "the outbox stops");
                self.publish(Some(error.to_string()));
            }
        }
    }

    /// Serves what is waiting; answers with whom to tell when it is closed.
    fn serve(
        &mut self,
        first: Request,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<Option<oneshot::Sender<()>>, LogError> {
        let mut appends = Vec::new();
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(request) = next {
            match request {
                Request::Append { entry, done, since } => appends.push((entry, done, since)),
                other => {
                    self.commit(std::mem::take(&mut appends))?;
                    if let Some(closed) = self.serve_other(other)? {
                        return Ok(Some(closed));
                    }
                }
            }
            taken += 1;
            next = if taken < GROUP_REQUESTS_MAX { requests.try_recv().ok() } else { None };
        }
        self.commit(appends)?;
        self.log.note_acked()?;
        Ok(None)
    }

    fn serve_other(&mut self, request: Request) -> Result<Option<oneshot::Sender<()>>, LogError> {
        match request {
            Request::Append { .. } => {}
            Request::Read { from_seq, max, found } => {
                // An asker that has gone away needs no answer.
                let _ = found.send(self.log.read(from_seq, max)?);
            }
            Request::Trim { seq } => {
                self.log.trim(seq)?;
                self.relieve()?;
                self.publish(None);
            }
            Request::Refound { done } => {
                let id = self.ground.new_id(self.log.outbox_id());
                self.log.refound(id)?;
                self.timed.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.publish(None);
                let _ = done.send(());
            }
            Request::Close { done } => {
                self.log.note_acked()?;
                return Ok(Some(done));
            }
        }
        Ok(None)
    }

    /// Room again: write what waited, as far as it goes.
    fn relieve(&mut self) -> Result<(), LogError> {
        let room = self.bytes_max.saturating_sub(self.log.bytes()) / 1024;
        let freed = self.blocked.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let appends = self.blocked.drain(..freed).collect();
        self.commit(appends)
    }

    /// Writes appends as one group, syncs, and then answers.
    fn commit(&mut self, appends: Vec<Append>) -> Result<(), LogError> {
        if appends.is_empty() {
            return Ok(());
        }
        let mut entries = Vec::with_capacity(appends.len());
        let mut answers = Vec::with_capacity(appends.len());
        let mut timed = Vec::new();
        let mut next_seq = self.log.last_seq() + 1;
        for (entry, done, since) in appends {
            if self.log.bytes() >= self.bytes_max && !entry.events.is_empty() {
                self.blocked.push_back((entry, done, since));
                continue;
            }
            next_seq += entry.events.len() as u64;
            if !entry.events.is_empty() {
                timed.push((next_seq - 1, since));
            }
            entries.push(entry);
            answers.push(done);
        }
        self.log.commit(entries)?;
        self.remember_times(timed);
        self.publish(None);
        for done in answers {
            // An appender that has gone away needs no answer.
            let _ = done.send(());
        }
        Ok(())
    }

    fn remember_times(&self, new: Vec<(u64, Instant)>) {
        let mut timed = self.timed.lock().unwrap_or_else(PoisonError::into_inner);
        timed.extend(new);
        let excess = timed.len().saturating_sub(TIMED_MAX);
        timed.drain(..excess);
    }

    fn publish(&self, failed: Option<String>) {
        let status = Status {
            outbox_id: self.log.outbox_id().to_owned(),
            first_seq: self.log.first_seq(),
            last_seq: self.log.last_seq(),
            acked_seq: self.log.acked_seq(),
            bytes: self.log.bytes(),
            waiting: self.blocked.len() as u64,
            failed,
        };
        self.status.send_replace(status);
    }
}
