//! What the hosts of a simulation and the one who runs it share: each node's disk, and what it says of itself; the
//! clocks; what clients have asked and been answered; and a tale of what happened.

use crate::history::History;
use crate::plant::PLANTS;
use millpool_alliance::Format;
use millpool_node_agent::dispatch::Kept;
use millpool_node_agent::outbox;
use millpool_scheduler::consensus::Handle;
use millpool_scheduler::consensus::disk::memory::{Archive, Bug as DiskBug, MemoryDisk};
use millpool_scheduler::replica::Replica;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Coordinators that a simulation has at most, those included that join later.
pub const NODES_MAX: usize = 7;

/// Shared among the hosts, which all run on one thread.
pub type Shared = Rc<RefCell<World>>;

/// A coordinator's part that outlives its crashes, and what it has last said.
pub struct Node {
    /// Its disks.
    pub disk: MemoryDisk,
    /// Its consensus room while it runs.
    pub handle: Option<Handle<Replica>>,
    /// That it stopped by itself, and why.
    pub stopped: Option<String>,
    /// How often it was started.
    pub starts: u64,
    /// The newest format that its version reads.
    pub reads: Format,
}

/// A plant's part that outlives its crashes, and what its agent last knew.
pub struct Plant {
    /// Its disk: a folder on a real one.
    pub data_dir: PathBuf,
    /// How often its agent was started.
    pub starts: u64,
    /// How its outbox stands.
    pub outbox: Option<watch::Receiver<outbox::Status>>,
    /// Its dispatch list.
    pub kept: Option<watch::Receiver<Arc<Kept>>>,
}

/// What a simulation is made of.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    /// Coordinators that form the cluster.
    pub first: usize,
    /// Coordinators with those that may join later, if members change.
    pub nodes: usize,
    /// Buyers.
    pub buyers: usize,
    /// Plants with an agent.
    pub plants: usize,
    /// Seconds of the alliance in a simulated second.
    pub scale: i64,
}

/// See the module.
pub struct World {
    /// The coordinators, `n1` first.
    pub nodes: Vec<Node>,
    /// How many of them form the cluster at first.
    pub first: usize,
    /// The plants with an agent.
    pub plants: Vec<Plant>,
    /// Seconds of the alliance in a simulated second.
    pub scale: i64,
    /// What purges have taken from the logs.
    pub archive: Archive,
    /// What clients did.
    pub history: History,
    /// The alliance is registered.
    pub founded: bool,
    /// The faults are over.
    pub healed: bool,
    /// What must not happen, and has.
    pub wrong: Vec<String>,
    /// The newest change of a booking when all clients had been served: watchers must come to know of it.
    pub newest_change: u64,
    /// What has happened, for whom a seed fails.
    pub tale: Vec<(Duration, String)>,
    told: bool,
}

impl World {
    /// A world in which nothing has happened; plants have their folders below one.
    pub fn new(cast: Cast, folder: &Path, bug: Option<DiskBug>, told: bool) -> World {
        let archive = Archive::default();
        let node = |_| {
            let disk = MemoryDisk::archiving(archive.clone());
            bug.iter().for_each(|bug| disk.plant(*bug));
            Node { disk, handle: None, stopped: None, starts: 0, reads: Format::NEWEST }
        };
        let nodes = (0..cast.nodes).map(node).collect();
        let plant =
            |at: usize| Plant { data_dir: folder.join(PLANTS[at]), starts: 0, outbox: None, kept: None };
        let plants = (0..cast.plants).map(plant).collect();
        World {
            nodes,
            first: cast.first,
            plants,
            scale: cast.scale,
            archive: archive.clone(),
            history: History::default(),
            founded: false,
            healed: false,
            wrong: Vec::new(),
            newest_change: 0,
            tale: Vec::new(),
            told,
        }
    }

    /// Adds to the tale.
    pub fn tell(&mut self, at: Duration, what: impl Into<String>) {
        let what = what.into();
        if self.told {
            eprintln!("{:9.3} s  {what}", at.as_secs_f64());
        }
        self.tale.push((at, what));
    }

    /// The newest change of a booking that a leader knows of.
    pub fn newest_change(&self) -> u64 {
        let handle = self.leader().and_then(|leader| self.nodes[leader].handle.as_ref());
        let state = handle.map(|handle| handle.state());
        let bookings = state.iter().flat_map(|view| view.state.0.bookings().values());
        bookings.map(|booking| booking.revision).max().unwrap_or(0)
    }

    /// The first node that takes itself for the leader, by index.
    pub fn leader(&self) -> Option<usize> {
        let leads = |node: &Node| node.handle.as_ref().is_some_and(|handle| handle.leadership().is_ready);
        self.nodes.iter().position(leads)
    }
}

/// The host name of a coordinator.
pub fn name(index: usize) -> String {
    format!("n{}", index + 1)
}

pub mod clock {
    //! Each node's clock: the simulation's, and how far it is off.

    use super::NODES_MAX;
    use millpool_scheduler::clock::Clock;
    use std::cell::Cell;

    /// When all simulations begin: a Monday, ms since the Unix epoch.
    pub const EPOCH_MS: i64 = 1_767_571_200_000;

    thread_local! {
        static OFF_MS: [Cell<i64>; NODES_MAX] = const { [const { Cell::new(0) }; NODES_MAX] };
    }

    fn read<const NODE: usize>() -> i64 {
        wall_ms() + OFF_MS.with(|off| off[NODE].get())
    }

    /// The simulation's time, ms since the Unix epoch.
    pub fn wall_ms() -> i64 {
        turmoil::since_epoch().map_or(0, |since| since.as_millis() as i64)
    }

    /// The alliance's time, seconds since the Unix epoch.
    pub fn now_s(scale: i64) -> i64 {
        Clock::scaled(EPOCH_MS, scale).read_by(wall_ms).now_s()
    }

    /// A node's clock.
    pub fn of(index: usize, scale: i64) -> Clock {
        const CLOCKS: [fn() -> i64; NODES_MAX] =
            [read::<0>, read::<1>, read::<2>, read::<3>, read::<4>, read::<5>, read::<6>];
        Clock::scaled(EPOCH_MS, scale).read_by(CLOCKS[index])
    }

    /// Sets a node's clock off.
    pub fn set_off(index: usize, off_ms: i64) {
        OFF_MS.with(|off| off[index].set(off_ms));
    }
}
