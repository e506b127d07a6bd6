//! Raw samples of the machines, kept in the plant for its analysts: states, loads, power, meters and part counts, day by
//! day, until their time is up.
//!
//! ```text
//!  adapters ─ readings ─► a bounded queue ─► the keeper's thread ─► one store, a keyspace a day
//!                                                                          │
//!                     `samples` at the terminal ◄─ console.sock ◄─ ask ────┘
//! ```
//!
//! - [`reading`]: what is read of a machine, and which of it is worth keeping. Pure.
//! - [`run`]: some seconds of one signal as bytes. Pure.
//! - `shelf`: the store on disk; nothing else knows fjall.
//! - `keeper`: the thread that owns the store: it writes, drops what is old, and goes on when a disk fails.
//! - [`ask`]: what was kept, as rows and as a summary.
//!
//! **Invariant:** nobody waits for the samples. What the queue or the disk cannot take is dropped and counted; a store
//! that fails is closed and tried again, while the machines are watched and their events told as ever.
//!
//! **Invariant:** what matters to the alliance is in the outbox. Samples never leave the plant, and nothing of the agent
//! follows from them.

pub mod ask;
mod keeper;
pub mod reading;
pub mod run;
mod shelf;

pub use ask::{Question, Row, Tally};
pub use reading::{Quality, Reading, Readings, Signal, Unit, Value};

use crate::clock::Clock;
use crate::health::Health;
use keeper::{Keeper, Request};
use shelf::Days;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The store's folder in the agent's.
pub const FOLDER: &str = "samples";
/// Where a store goes that is damaged, beside [`FOLDER`]; the one that was there before is removed.
pub const DAMAGED: &str = "samples.damaged";
/// Samples are kept for so many days, where nothing is said.
pub const KEEP_DAYS_DEFAULT: u32 = 30;
/// For so many at most.
pub const KEEP_DAYS_MAX: u32 = 400;
/// They take so much on disk, bytes, where nothing is said.
pub const BYTES_MAX_DEFAULT: u64 = 4 << 30;
/// With less the store's journals leave no room for samples.
pub const BYTES_MAX_LEAST: u64 = 256 << 20;
/// Samples that wait to be written.
const QUEUE_MAX: usize = 16_384;
/// Questions that are answered at one time.
const ASKED_MAX: usize = 2;
/// A question waits so long for its turn, and for what is still in the queue; a stopping agent for all of it.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// How long samples are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// So many days, and today.
    pub keep_days: u32,
    /// On so much disk: beyond it the oldest day goes.
    pub bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { keep_days: KEEP_DAYS_DEFAULT, bytes_max: BYTES_MAX_DEFAULT }
    }
}

/// A value of one signal of one machine at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The machine.
    pub machine: Arc<str>,
    /// When, ms since the Unix epoch.
    pub at_ms: i64,
    /// What was read.
    pub reading: Reading,
}

/// A plant's samples: where adapters put them, and where terminals ask. Without a store it takes and has nothing. Cheap
/// to clone.
#[derive(Clone, Default)]
pub struct Samples(Option<Arc<Inner>>);

struct Inner {
    plant_id: String,
    clock: Clock,
    keep_days: u32,
    requests: SyncSender<Request>,
    /// The store's days, while it is open.
    days: Shared,
    asked: Arc<Semaphore>,
}

type Shared = Arc<RwLock<Option<Days>>>;

impl Samples {
    /// Starts to keep samples in an agent's folder. The store is opened by the thread that owns it: one that cannot be
    /// opened is shown, and tried again.
    pub fn open(
        dir: &Path,
        plant_id: &str,
        options: Options,
        clock: Clock,
        health: Health,
    ) -> std::io::Result<Self> {
        let (requests, waiting) = sync_channel(QUEUE_MAX);
        let days = Shared::default();
        let keeper = Keeper::new(dir, plant_id, options, clock, health, days.clone());
        std::thread::Builder::new().name("samples".to_owned()).spawn(move || keeper.run(&waiting))?;
        let (plant_id, keep_days) = (plant_id.to_owned(), options.keep_days);
        let asked = Arc::new(Semaphore::new(ASKED_MAX));
        Ok(Self(Some(Arc::new(Inner { plant_id, clock, keep_days, requests, days, asked }))))
    }

    /// Takes what an adapter has read of a machine, and waits for nothing.
    pub fn put(&self, machine: &Arc<str>, readings: &mut Readings) {
        let Some(inner) = &self.0 else { return readings.clear() };
        let now_ms = inner.clock.now_ms();
        let mut full = readings.take_missed();
        for (at_ms, reading) in readings.take() {
            // A machine's clock that is ahead would begin days that never end.
            let sample = Sample { machine: machine.clone(), at_ms: at_ms.min(now_ms), reading };
            match inner.requests.try_send(Request::Keep(sample)) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => full += 1,
            }
        }
        keeper::dropped(&inner.plant_id, "full", full);
    }

    /// For how many days samples are kept, and what there is of them; nothing where they are not kept.
    pub fn keep_days(&self) -> Option<u32> {
        self.0.as_ref().map(|inner| inner.keep_days)
    }

    /// Waits until what was put before is in the store, for a moment at most.
    pub async fn settle(&self) {
        let Some(inner) = &self.0 else { return };
        let (done, settled) = oneshot::channel();
        if inner.requests.try_send(Request::Settle(done)).is_ok() {
            // Too late, or the thread has gone: what is there is there.
            let _ = tokio::time::timeout(SETTLE_MAX, settled).await;
        }
    }

    /// Writes what was put before, and closes the store.
    pub async fn close(&self) {
        let Some(inner) = &self.0 else { return };
        let (done, closed) = oneshot::channel();
        if inner.requests.try_send(Request::Close(done)).is_ok() {
            let _ = tokio::time::timeout(SETTLE_MAX, closed).await;
        }
    }

    /// The store's days as they are, if it is open.
    fn days(&self) -> Option<Days> {
        let inner = self.0.as_ref()?;
        inner.days.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A place among those whose questions are answered, if there is one within a moment.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.0.as_ref()?.asked.clone().acquire_owned();
        tokio::time::timeout(SETTLE_MAX, place).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Receiver;

    /// Samples whose keeper is stuck.
    fn stuck(room: usize) -> (Samples, Receiver<Request>) {
        let (requests, waiting) = sync_channel(room);
        let inner = Inner {
            plant_id: "plant".to_owned(),
            clock: Clock::default().read_by(|| 1_000_000),
            keep_days: 1,
            requests,
            days: Shared::default(),
            asked: Arc::new(Semaphore::new(ASKED_MAX)),
        };
        (Samples(Some(Arc::new(inner))), waiting)
    }

    #[test]
    fn a_keeper_that_is_stuck_keeps_no_adapter_waiting_and_a_time_to_come_is_now() {
        let (samples, waiting) = stuck(3);
        let mut readings = Readings::default();
        for at in 0..10 {
            let at_ms = 999_999 + at * 2_000;
            readings.note(at_ms, &[Reading::measured(Signal::Power, Some(at as f64))]);
        }
        samples.put(&"m".into(), &mut readings);
        assert_eq!(readings.take(), [], "nothing is left for the next turn");
        let times = waiting.try_iter().map(|request| match request {
            Request::Keep(sample) => sample.at_ms,
            Request::Settle(_) | Request::Close(_) => 0,
        });
        assert_eq!(times.collect::<Vec<_>>(), [999_999, 1_000_000, 1_000_000]);
    }
}
