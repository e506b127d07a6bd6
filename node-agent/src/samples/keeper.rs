//! The thread that owns the samples' store.
//!
//! It gathers what comes for ten seconds and writes it at once; every minute it syncs, drops the days whose time is up,
//! and says how it stands. So a crash of the agent loses ten seconds, and a power cut a little over a minute.
//!
//! A store that fails is closed. If it is the disk (full, read-only, taken away), it is tried again every half minute,
//! and meanwhile as much is gathered as there is room for. If it is the store itself, which cannot be understood, it is
//! moved aside and a new one begun: raw samples are worth keeping, and not worth a plant that does not start.

use super::run::{DAY_MS, day_of};
use super::shelf::{Shelf, ShelfError};
use super::{DAMAGED, FOLDER, Options, Sample, Shared};
use crate::clock::Clock;
use crate::health::{Health, SamplesReport};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Samples are written this often,
const WRITE_EVERY: Duration = Duration::from_secs(10);
/// or when so many are gathered.
const GATHERED_MAX: usize = 8_192;
/// While the store is closed so many are gathered; the rest is dropped.
const HELD_MAX: usize = 32_768;
/// Old days are looked for, and what was written is synced, this often.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// A store that is closed is tried again after so long.
const RETRY: Duration = Duration::from_secs(30);
/// A store that gives up so often in a row, on a disk that takes writes, is damaged.
const ENDS_MAX: u32 = 3;
/// Written to see whether the disk takes anything, bytes.
const PROBE_BYTES: usize = 8 << 20;

/// What the thread is asked.
pub enum Request {
    /// Keep this.
    Keep(Sample),
    /// Write what came before.
    Settle(oneshot::Sender<()>),
    /// Write what came before, and stop.
    Close(oneshot::Sender<()>),
}

/// Samples were dropped.
pub fn dropped(plant_id: &str, why: &'static str, samples: u64) {
    if samples > 0 {
        metrics::counter!(
            "millpool_agent_samples_dropped_total", "plant" => plant_id.to_owned(), "why" => why
        )
        .increment(samples);
    }
}

/// See the module.
pub struct Keeper {
    dir: PathBuf,
    plant_id: String,
    options: Options,
    clock: Clock,
    health: Health,
    days: Shared,
    shelf: Option<Shelf>,
    gathered: Vec<Sample>,
    /// The store has failed so often since it last took something.
    ends: u32,
    /// Today alone takes more than there may be: nothing more is kept until it is over.
    full: bool,
    report: SamplesReport,
}

impl Keeper {
    /// A keeper, with its store not open yet.
    pub fn new(
        dir: &Path,
        plant_id: &str,
        options: Options,
        clock: Clock,
        health: Health,
        days: Shared,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            plant_id: plant_id.to_owned(),
            options,
            clock,
            health,
            days,
            shelf: None,
            gathered: Vec::new(),
            ends: 0,
            full: false,
            report: SamplesReport::default(),
        }
    }

    /// Serves until it is closed, or nobody is left to ask.
    pub fn run(mut self, requests: &Receiver<Request>) {
        self.open();
        let (mut tried, mut written, mut tidied) = (Instant::now(), Instant::now(), Instant::now());
        loop {
            let wait = WRITE_EVERY.saturating_sub(written.elapsed());
            match requests.recv_timeout(wait) {
                Ok(Request::Keep(sample)) => self.gather(sample),
                Ok(Request::Settle(done)) => {
                    self.write();
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
                Ok(Request::Close(done)) => {
                    self.end();
                    let _ = done.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
            if written.elapsed() >= WRITE_EVERY || self.gathered.len() >= GATHERED_MAX && self.shelf.is_some()
            {
                self.write();
                written = Instant::now();
            }
            if self.shelf.is_none() && tried.elapsed() >= RETRY {
                self.open();
                tried = Instant::now();
            }
            if tidied.elapsed() >= TIDY_EVERY {
                self.tidy();
                tidied = Instant::now();
            }
        }
    }

    fn gather(&mut self, sample: Sample) {
        let day = day_of(sample.at_ms);
        if day < self.first_day() {
            dropped(&self.plant_id, "old", 1);
        } else if self.full {
            dropped(&self.plant_id, "no room", 1);
        } else if self.gathered.len() >= HELD_MAX {
            dropped(&self.plant_id, "disk", 1);
        } else {
            self.gathered.push(sample);
        }
    }

    fn write(&mut self) {
        let Some(shelf) = &mut self.shelf else { return };
        if self.gathered.is_empty() {
            return;
        }
        match shelf.write(&mut self.gathered) {
            Ok(()) => {
                metrics::counter!("millpool_agent_samples_kept_total", "plant" => self.plant_id.clone())
                    .increment(self.gathered.len() as u64);
                // What a burst took is given back.
                self.gathered = Vec::new();
                self.ends = 0;
                self.show_days();
                self.show();
            }
            Err(error) => self.fail("write to", &error),
        }
    }

    /// Opens the store; what is damaged is moved aside, and a new one begun.
    fn open(&mut self) {
        let folder = self.dir.join(FOLDER);
        match Shelf::open(&folder) {
            Ok(shelf) => {
                self.report.trouble = None;
                self.shelf = Some(shelf);
                self.tidy();
            }
            Err(error) => self.fail("open", &error),
        }
    }

    /// The store is closed, and why is shown.
    fn fail(&mut self, doing: &str, error: &ShelfError) {
        self.shelf = None;
        self.show_days();
        let damaged = match error {
            ShelfError::Disk(_) | ShelfError::InUse => false,
            ShelfError::Damaged(_) => true,
            ShelfError::Ended(_) => {
                self.ends += 1;
                self.ends >= ENDS_MAX && self.disk_takes_writes()
            }
        };
        let folder = self.dir.join(FOLDER);
        let trouble = format!("cannot {doing} {}: {error}", folder.display());
        tracing::error!(plant = self.plant_id, trouble, "samples are not kept; the machines are watched");
        metrics::counter!("millpool_agent_samples_troubles_total", "plant" => self.plant_id.clone())
            .increment(1);
        self.report.trouble = Some(trouble);
        if damaged {
            self.begin_anew(&folder);
        }
        self.show();
    }

    fn begin_anew(&mut self, folder: &Path) {
        let aside = self.dir.join(DAMAGED);
        // There may be none; and where it cannot be removed, the next step says so.
        let _ = std::fs::remove_dir_all(&aside);
        let begun = std::fs::rename(folder, &aside).map_err(ShelfError::Disk);
        let opened = begun.and_then(|()| Shelf::open(folder));
        match opened {
            Ok(shelf) => {
                let aside = aside.display().to_string();
                tracing::error!(plant = self.plant_id, aside, "the samples' store was damaged: it is moved");
                self.report.trouble =
                    Some(format!("the store was damaged: it is in {aside}, and a new one was begun"));
                self.ends = 0;
                self.shelf = Some(shelf);
                self.show_days();
            }
            Err(error) => {
                self.report.trouble = Some(format!("{} is damaged, and stays: {error}", folder.display()));
            }
        }
    }

    /// Whether it is the store, and not the disk, that fails.
    fn disk_takes_writes(&self) -> bool {
        let path = self.dir.join("samples.probe");
        let probe = || {
            let mut file = std::fs::File::create(&path)?;
            file.write_all(&vec![1; PROBE_BYTES])?;
            file.sync_all()
        };
        let takes = probe().is_ok();
        // What is left of it is written over the next time.
        let _ = std::fs::remove_file(&path);
        takes
    }

    /// Syncs, and drops what is old or too much.
    fn tidy(&mut self) {
        if let Err(error) = self.try_tidy() {
            self.fail("tidy", &error);
        }
        self.show();
    }

    fn try_tidy(&mut self) -> Result<(), ShelfError> {
        let (first, today) = (self.first_day(), day_of(self.clock.now_ms()));
        let Some(shelf) = &mut self.shelf else { return Ok(()) };
        shelf.sync()?;
        let old: Vec<_> = shelf.days().numbers().take_while(|day| *day < first).collect();
        for day in old {
            shelf.drop_day(day)?;
            tracing::info!(plant = self.plant_id, day = date(day), "samples are dropped: their time is up");
        }
        self.full = false;
        loop {
            self.report.bytes = shelf.bytes().map_err(ShelfError::Disk)?;
            if self.report.bytes <= self.options.bytes_max {
                break;
            }
            let Some(oldest) = shelf.days().numbers().next().filter(|day| *day < today) else {
                self.full = true;
                break;
            };
            shelf.drop_day(oldest)?;
            let (day, bytes) = (date(oldest), self.report.bytes);
            tracing::warn!(plant = self.plant_id, day, bytes, "samples are dropped: they take too much");
        }
        let full = "today's samples alone take more than bytes_max: no more are kept today";
        match self.full {
            true => self.report.trouble = Some(full.to_owned()),
            false if self.report.trouble.as_deref() == Some(full) => self.report.trouble = None,
            false => {}
        }
        self.show_days();
        Ok(())
    }

    /// The first day that is kept.
    fn first_day(&self) -> i64 {
        day_of(self.clock.now_ms()) - i64::from(self.options.keep_days)
    }

    fn end(&mut self) {
        self.write();
        if let Some(shelf) = self.shelf.take()
            && let Err(error) = shelf.sync()
        {
            tracing::warn!(plant = self.plant_id, %error, "the last samples may not be on disk");
        }
        dropped(&self.plant_id, "disk", self.gathered.len() as u64);
        self.show_days();
    }

    /// Questions are answered from the store as it is now.
    fn show_days(&mut self) {
        let days = self.shelf.as_ref().map(|shelf| shelf.days().clone());
        self.report.days = days.iter().flat_map(|days| days.numbers()).count() as u64;
        self.report.oldest_day = days.as_ref().and_then(|days| days.numbers().next()).map(date);
        *self.days.write().unwrap_or_else(PoisonError::into_inner) = days;
    }

    fn show(&self) {
        let plant = || self.plant_id.clone();
        metrics::gauge!("millpool_agent_samples_bytes", "plant" => plant()).set(self.report.bytes as f64);
        metrics::gauge!("millpool_agent_samples_days", "plant" => plant()).set(self.report.days as f64);
        let open = if self.shelf.is_some() && !self.full { 1.0 } else { 0.0 };
        metrics::gauge!("millpool_agent_samples_working", "plant" => plant()).set(open);
        self.health.set_samples(self.report.clone());
    }
}

/// A day as people write it.
fn date(day: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(day.saturating_mul(DAY_MS)).unwrap_or_default();
    at.strftime("%F").to_string()
}
