//! One simulation: the alliance is registered, it storms, all is healed, clients are served again, and then every
//! answer that was given is held against the log.

use crate::bug::Bug;
use crate::buyer::{WATCHERS, watcher};
use crate::check::{self, Ending, NotEnded};
use crate::node::{self, Setting};
use crate::plant::{self, PLANTS};
use crate::storm::{self, Storm};
use crate::world::{Cast, Shared, World, clock, name};
use crate::{buyer, operator};
use millpool_scheduler::consensus::seed_this_thread;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;
use turmoil::Sim;

/// How long it storms.
const STORM: Duration = Duration::from_secs(20);
/// Until the alliance must be registered.
const FOUNDED_BY: Duration = Duration::from_secs(30);
/// After the storm, until every client must have been served again.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// After that, until nodes, agents and watchers must know the same.
const AGREED_WITHIN: Duration = Duration::from_secs(30);

/// What a run came to.
pub struct Summary {
    /// Calls that clients made, and how many of them were done.
    pub calls: usize,
    /// See `calls`.
    pub done: usize,
    /// Entries of the log.
    pub revision: u64,
    /// The final state's hash.
    pub hash: u64,
    /// What happened in plants.
    pub events: usize,
    /// How often a plant fell silent.
    pub silences: usize,
}

/// Runs a seed; what is wrong, in words, if something is, and the tale of it.
pub fn run(seed: u64, bug: Option<Bug>, tells: bool) -> Result<Summary, (Vec<String>, Shared)> {
    bug.iter().for_each(|bug| bug.plant());
    let mut random = StdRng::seed_from_u64(seed);
    seed_this_thread(random.random());
    let first = if random.random_bool(0.7) { 3 } else { 5 };
    let setting = Setting {
        snapshot_every: if random.random_bool(0.5) { 40 } else { 10_000 },
        log_keep: random.random_range(0..30),
        tries: if random.random_bool(0.7) { 60 } else { 0 },
        begins_old: seed.is_multiple_of(2),
    };
    let buyers = random.random_range(2..=5);
    let changes_members = random.random_bool(0.4);
    let nodes = if changes_members { first + 2 } else { first };
    let has_plants = random.random_bool(0.5);
    let (plants, scale) = if has_plants { (PLANTS.len(), 600) } else { (0, 1) };
    let cast = Cast { first, nodes, buyers, plants, scale };
    let folder = folder().expect("the plants need a folder for their disks");
    let world = World::new(cast, folder.path(), bug.and_then(Bug::of_the_disk), tells);
    let world: Shared = Rc::new(RefCell::new(world));
    world.borrow_mut().tell(Duration::ZERO, format!("{cast:?}, {setting:?}"));
    let mut sim = turmoil::Builder::new()
        .rng_seed(random.random())
        .epoch(UNIX_EPOCH + Duration::from_millis(clock::EPOCH_MS as u64))
        .tick_duration(Duration::from_millis(1))
        .simulation_duration(Duration::from_secs(3600))
        .max_message_latency(storm::LINE)
        .tcp_capacity(4096)
        .enable_random_order()
        .build();
    people(&mut sim, &world, &mut random, setting, cast);
    let mut storm = Storm::new(world.clone(), random.random());
    let ending = weather(&mut sim, &world, &mut storm);
    // The plants let go of their disks, which are looked at next.
    drop(sim);
    let wrong = std::mem::take(&mut world.borrow_mut().wrong);
    if !wrong.is_empty() {
        return Err((wrong, world));
    }
    // What is replayed is replayed by a sound state machine, unless it is for the rules to find the bug.
    if bug != Some(Bug::ForgetTooSoon) {
        millpool_alliance::planted::plant(&[]);
    }
    ending
        .and_then(|ending| check::everything(&world.borrow(), &ending))
        .map_err(|wrong| (wrong, world.clone()))
}

/// All hosts: coordinators, the operator, buyers, plants, and who watches.
fn people(sim: &mut Sim<'_>, world: &Shared, random: &mut StdRng, setting: Setting, cast: Cast) {
    for index in 0..cast.nodes {
        let world = world.clone();
        sim.host(name(index), move || node::run(world.clone(), index, setting));
    }
    sim.client("operator", operator::run(world.clone(), random.random()));
    for buyer in 0..cast.buyers {
        let who = format!("b{buyer}");
        sim.client(who.clone(), buyer::run(world.clone(), who, random.random()));
    }
    for (plant, id) in PLANTS.into_iter().enumerate().take(cast.plants) {
        let seed: u64 = random.random();
        let world = world.clone();
        sim.host(id, move || plant::run(world.clone(), plant, seed));
    }
    for at in 0..WATCHERS {
        let seed: u64 = random.random();
        let world = world.clone();
        let who = watcher(at);
        sim.host(who.clone(), move || buyer::watch(world.clone(), who.clone(), seed));
    }
}

/// A folder in memory, where there is one: fsync is not what a simulation should wait for.
fn folder() -> io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let builder = || tempfile::Builder::new();
    match memory.is_dir() {
        true => builder().prefix("millpool-sim-").tempdir_in(memory),
        false => builder().prefix("millpool-sim-").tempdir(),
    }
}

/// From the first moment to the last.
fn weather(sim: &mut Sim<'_>, world: &Shared, storm: &mut Storm) -> Result<Ending, Vec<String>> {
    let wrong = |what: String| vec![what];
    while !world.borrow().founded {
        step(sim)?;
        if sim.elapsed() > FOUNDED_BY {
            return Err(wrong("the alliance could not be registered, though nothing was broken".into()));
        }
    }
    let until = sim.elapsed() + STORM;
    while sim.elapsed() < until {
        storm.step(sim, true);
        step(sim)?;
    }
    storm.step(sim, false);
    world.borrow_mut().healed = true;
    world.borrow_mut().tell(sim.elapsed(), "all is healed");
    let healed = sim.elapsed();
    // A node that stops by itself even now is an answer, too: it is started again, and told of.
    while !step(sim)? {
        storm.step(sim, false);
        if sim.elapsed() > healed + SERVED_WITHIN {
            let waited = SERVED_WITHIN.as_secs();
            return Err(wrong(format!("{waited} s after all was healed, not every client has been served")));
        }
    }
    world.borrow_mut().tell(sim.elapsed(), "all clients have been served");
    let newest = world.borrow().newest_change();
    world.borrow_mut().newest_change = newest;
    let served = sim.elapsed();
    loop {
        storm.step(sim, false);
        step(sim)?;
        let missing = match Ending::of(&world.borrow()) {
            Ok(ending) => return Ok(ending),
            Err(NotEnded::Wrong(what)) => return Err(wrong(what)),
            Err(NotEnded::Yet(missing)) => missing,
        };
        if sim.elapsed() > served + AGREED_WITHIN {
            let waited = AGREED_WITHIN.as_secs();
            return Err(wrong(format!(
                "{waited} s after all were served they do not know the same: {missing}"
            )));
        }
    }
}

/// One tick. True once all clients are done.
fn step(sim: &mut Sim<'_>) -> Result<bool, Vec<String>> {
    sim.step().map_err(|error| vec![format!("a host failed: {error}")])
}
