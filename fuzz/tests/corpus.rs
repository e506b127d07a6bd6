//! Every target is given its seeds, its corpus, and changed copies of both; the same ones on every run.

#![allow(clippy::unwrap_used)]

use millpool_fuzz::{TARGETS, Target};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// Changed copies for each target at most.
const CHANGED: usize = 4000;
/// How long a target may take: some inputs are a whole node's life.
const LONG_ENOUGH: Duration = Duration::from_secs(4);

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().map(|f| f.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Bytes flipped, cut out, doubled, or from somewhere else.
fn changed(random: &mut StdRng, all: &[Vec<u8>]) -> Vec<u8> {
    let mut input = all[random.random_range(0..all.len())].clone();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..5) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => input[at] = random.random(),
            2 => drop(input.splice(at.., [])),
            3 => input.insert(at, random.random()),
            _ => {
                let other = &all[random.random_range(0..all.len())];
                let from = random.random_range(0..=other.len());
                let to = (from + random.random_range(0..64)).min(other.len());
                drop(input.splice(at..at, other[from..to].iter().copied()));
            }
        }
    }
    input
}

fn holds(name: &str) {
    let target = Target::named(name).unwrap();
    let mut all = (target.seeds)();
    assert!(!all.is_empty(), "{name} has no seeds");
    all.extend(corpus(target));
    let mut random = StdRng::seed_from_u64(7);
    let began = Instant::now();
    let given = all.clone();
    let mut count = 0;
    let more = std::iter::repeat_with(|| changed(&mut random, &given)).take(CHANGED);
    for input in all.into_iter().chain(more) {
        if count > given.len() && began.elapsed() > LONG_ENOUGH {
            break;
        }
        count += 1;
        if let Err(wrong) = target.give(&input) {
            let file = std::env::temp_dir().join(format!("millpool-fuzz-{name}"));
            std::fs::write(&file, &input).unwrap();
            panic!("{name}: {wrong}\nthe input is in {}", file.display());
        }
    }
    println!("{name}: {count} inputs in {:?}", began.elapsed());
}

macro_rules! targets {
    ($($test:ident $name:literal)*) => {
        $(#[test] fn $test() { holds($name); })*

        #[test]
        fn all_targets_are_here() {
            let here = [$($name),*];
            assert!(TARGETS.iter().map(|target| target.name).eq(here), "a target has no test, or is in another order");
        }
    };
}

targets! {
    entry "entry"
    backup "backup"
    state "state"
    salvage "salvage"
    services "services"
    mtconnect "mtconnect"
    multipart "multipart"
    sparkplug "sparkplug"
    jobs "jobs"
    remote "remote"
    outbox "outbox"
    agent_config "agent-config"
    scheduler_config "scheduler-config"
    written "written"
    message "message"
    instance "instance"
    fjs "fjs"
}
