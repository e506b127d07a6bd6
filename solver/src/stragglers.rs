//! Threads that outlive the solve that began them.
//!
//! HiGHS cannot be interrupted, so a solve that is cancelled, or is done early, leaves its HiGHS
//! threads to their own time limits. A process that ends while one still runs may crash in HiGHS's
//! own clean-up; whoever is about to end the process waits here first.

use std::sync::Mutex;
use std::thread::JoinHandle;

static THREADS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Remembers a thread that nobody waits for.
pub(crate) fn leave(thread: JoinHandle<()>) {
    if let Ok(mut threads) = THREADS.lock() {
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }
}

/// Waits for every thread that finished solves have left behind. Call it before the process ends.
pub fn await_stragglers() {
    let threads = THREADS.lock().map(|mut threads| std::mem::take(&mut *threads)).unwrap_or_default();
    for thread in threads {
        // One that panicked has ended too.
        let _ = thread.join();
    }
}
