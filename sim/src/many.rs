//! One seed after another, each in a process of its own, and some at once.

use crate::Arguments;
use crate::bug::Bug;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Lines shown of what a seed says on standard error.
const ERROR_LINES: usize = 6;

/// How a seed ended.
enum Ended {
    /// Everything held; what it came to, in a line.
    Well(String),
    /// Something did not hold: in the end, or the code itself has noticed and panicked.
    Violated(String),
    /// It did not end, or not begin.
    Otherwise(String),
}

#[derive(Default)]
struct Tally {
    ran: AtomicU64,
    calls: AtomicU64,
    silences: AtomicU64,
    violated: AtomicU64,
    otherwise: AtomicU64,
    /// What the first seed came to.
    first: Mutex<Option<String>>,
    /// The first thing that did not hold.
    found: Mutex<Option<String>>,
}

/// Runs as many seeds as are asked for; with a bug, until it is found.
pub fn run(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let (next, tally) = (AtomicU64::new(arguments.from), Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.at_once.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let found = arguments.bug.is_some() && tally.violated.load(Ordering::Relaxed) > 0;
                    if found || seed >= arguments.from.saturating_add(arguments.seeds) {
                        return;
                    }
                    tally.note(seed, simulate(seed, arguments.bug), arguments);
                }
            });
        }
    });
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let (ran, otherwise, violated) = (count(&tally.ran), count(&tally.otherwise), count(&tally.violated));
    let Some(bug) = arguments.bug else {
        let is_same = tally.is_same_again(arguments.from);
        let (took, calls, failed) = (began.elapsed().as_secs(), count(&tally.calls), violated + otherwise);
        let silences = count(&tally.silences);
        println!("{ran} seeds in {took} s, {calls} calls done, {silences} silences, {failed} seeds failed");
        return ExitCode::from(u8::from(failed > 0 || !is_same));
    };
    let stuck = if otherwise > 0 { format!(" ({otherwise} did not end)") } else { String::new() };
    match &*tally.found.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(what) => println!("{} was found within {ran} seeds{stuck}: {what}", bug.name()),
        None => println!("{} was not found in {ran} seeds{stuck}", bug.name()),
    }
    ExitCode::from(u8::from(violated == 0))
}

impl Tally {
    fn note(&self, seed: u64, ended: Ended, arguments: &Arguments) {
        self.ran.fetch_add(1, Ordering::Relaxed);
        let bug = arguments.bug.map_or_else(String::new, |bug| format!(" --bug {}", bug.name()));
        let tell = |said: &str| {
            if !arguments.quiet || arguments.bug.is_none() {
                println!("{said}\n  again: millpool-sim --seed {seed}{bug}");
            }
        };
        match ended {
            Ended::Well(line) => {
                let words: Vec<_> = line.split_whitespace().collect();
                for (count, what) in [(&self.calls, "of"), (&self.silences, "silences,")] {
                    let number = words
                        .iter()
                        .position(|word| *word == what)
                        .and_then(|at| words.get(at.checked_sub(1)?));
                    let number = number.and_then(|word| word.parse().ok()).unwrap_or(0);
                    count.fetch_add(number, Ordering::Relaxed);
                }
                if seed == arguments.from {
                    *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
                }
            }
            Ended::Violated(said) => {
                tell(&said);
                self.violated.fetch_add(1, Ordering::Relaxed);
                let what = said.lines().nth(1).unwrap_or_default().trim();
                let what = what.chars().take(100).collect();
                self.found.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
            }
            Ended::Otherwise(said) => {
                tell(&said);
                self.otherwise.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether the first seed comes to the same a second time.
    fn is_same_again(&self, from: u64) -> bool {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(first) = &*first else { return true };
        match simulate(from, None) {
            Ended::Well(again) if again == *first => true,
            Ended::Well(again) | Ended::Violated(again) | Ended::Otherwise(again) => {
                println!("seed {from} is not the same twice:\n  {first}\n  {again}");
                false
            }
        }
    }
}

/// A seed in its own process.
fn simulate(seed: u64, bug: Option<Bug>) -> Ended {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            return Ended::Otherwise(format!("seed {seed}: this program is not to be found: {error}"));
        }
    };
    let mut command = Command::new(program);
    command.args(["--quiet", "--seed", &seed.to_string()]).env("RUST_BACKTRACE", "0");
    bug.iter().for_each(|bug| _ = command.args(["--bug", &bug.name()]));
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return Ended::Otherwise(format!("seed {seed} cannot be started: {error}")),
    };
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.code() {
        Some(0) => Ended::Well(said),
        Some(1) => Ended::Violated(said),
        _ => {
            let errors = String::from_utf8_lossy(&output.stderr);
            // One panic brings many more.
            let lines = errors.lines().filter(|line| !line.is_empty() && !line.starts_with("thread "));
            let first: Vec<&str> = lines.take(ERROR_LINES).collect();
            let said = format!("seed {seed} ended with {}:\n  {}", output.status, first.join("\n  "));
            match errors.contains(" panicked at ") {
                true => Ended::Violated(said),
                false => Ended::Otherwise(said),
            }
        }
    }
}
