//! `millpool-fuzz`: libFuzzer on one of the targets, which `MILLPOOL_FUZZ` names. See `make fuzz`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millpool_fuzz::{TARGETS, Target};
use std::path::PathBuf;
use std::sync::OnceLock;

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

/// Chooses the target, and writes its seeds into the folder that `MILLPOOL_FUZZ_SEEDS` names, before libFuzzer reads it.
fn choose() {
    let name = std::env::var("MILLPOOL_FUZZ").unwrap_or_default();
    let Some(target) = Target::named(&name) else {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("MILLPOOL_FUZZ is {name:?}; accepted: {}", names.join(", "));
        std::process::exit(2);
    };
    if let Some(folder) = std::env::var_os("MILLPOOL_FUZZ_SEEDS").map(PathBuf::from) {
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            let file = folder.join(format!("seed-{number:03}"));
            if let Err(error) = std::fs::write(&file, seed) {
                eprintln!("{}: {error}", file.display());
                std::process::exit(2);
            }
        }
    }
    CHOSEN.get_or_init(|| target);
}

fuzz_target!(
    init: choose(),
    |input: &[u8]| {
        if let Some(target) = CHOSEN.get()
            && let Err(wrong) = target.give(input)
        {
            eprintln!("{}: {wrong}", target.name);
            std::process::abort();
        }
    }
);
