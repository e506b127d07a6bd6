//! Whatever reads bytes from outside, given bytes that nobody meant.
//!
//! A [`Target`] takes any bytes at all, and must neither panic nor break a promise of its own: what is read and written
//! again is the same, a state keeps its rules, damage is told as damage. Each has *seeds*, inputs as they are meant,
//! made by the code that writes them; `corpus/` has some of what the search has found beyond them.
//!
//! - [`store`]: what coordinators keep and send each other; [`services`]: the public API of a node;
//! - [`plant`]: what an agent reads; [`people`]: what people write; [`sample`]: the alliance that all of it is about.
//!
//! `tests/corpus.rs` gives every target its seeds, its corpus and some thousands of changed copies, on every run of the
//! tests. `make fuzz` searches on with libFuzzer.

pub mod people;
pub mod plant;
pub mod sample;
pub mod services;
pub mod store;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use tempfile::TempDir;

/// Something that reads bytes.
pub struct Target {
    /// By which it is chosen, and the name of its corpus' folder.
    pub name: &'static str,
    /// Reads the bytes; panics where something is wrong.
    run: fn(&[u8]),
    /// Inputs as they are meant.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 17] = [
    Target { name: "entry", run: store::entry, seeds: store::entries },
    Target { name: "backup", run: store::backup, seeds: store::backups },
    Target { name: "state", run: store::state, seeds: store::states },
    Target { name: "salvage", run: store::salvage, seeds: store::disks },
    Target { name: "services", run: services::call, seeds: services::calls },
    Target { name: "mtconnect", run: plant::mtconnect, seeds: plant::documents },
    Target { name: "multipart", run: plant::multipart, seeds: plant::streams },
    Target { name: "sparkplug", run: plant::sparkplug, seeds: plant::messages },
    Target { name: "jobs", run: plant::job, seeds: plant::jobs },
    Target { name: "remote", run: plant::remote, seeds: plant::commands },
    Target { name: "outbox", run: plant::outbox, seeds: plant::segments },
    Target { name: "agent-config", run: plant::config, seeds: plant::configs },
    Target { name: "scheduler-config", run: people::config, seeds: people::configs },
    Target { name: "written", run: people::written, seeds: people::words },
    Target { name: "message", run: people::message, seeds: people::messages },
    Target { name: "instance", run: people::instance, seeds: people::instances },
    Target { name: "fjs", run: people::fjs, seeds: people::shops },
];

thread_local! {
    /// The first panic of this thread since it was last taken, and where.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics that somebody catches count, too: the planner goes on after one, and a task's dies with it.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            PANIC.with(|panic| panic.borrow_mut().get_or_insert_with(|| info.to_string()).push(' '));
        }));
    });
}

impl Target {
    /// The target of that name.
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Gives it an input. The error says what went wrong.
    pub fn give(&self, input: &[u8]) -> Result<(), String> {
        note_panics();
        let done = catch_unwind(AssertUnwindSafe(|| (self.run)(input)));
        let panic = PANIC.with(RefCell::take);
        match (done, panic) {
            (Ok(()), None) => Ok(()),
            (_, panic) => Err(panic.unwrap_or_else(|| "it panicked".to_owned())),
        }
    }
}

/// A folder that goes when it is dropped, in memory where there is such a place: disks are not what is asked about here.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder")
}

/// Bytes that are taken apart from the front. What is not there is empty, or 0.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().map_or((0, self.0), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    /// What is preceded by its length, two bytes, little-endian.
    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        let (part, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        part
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// What [`Parts::bytes`] takes apart.
fn put_bytes(into: &mut Vec<u8>, part: &[u8]) {
    let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
    into.extend(length.to_le_bytes());
    into.extend(&part[..usize::from(length)]);
}
