//! The faults: what breaks next, and when it is well again, from the seed.

use crate::plant::PLANTS;
use crate::world::{Shared, clock, name};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::time::Duration;
use turmoil::Sim;

/// Pause between two faults, at most.
const PAUSE_MAX_MS: u64 = 3000;
/// How long a fault lasts, at most.
const LASTS_MAX_MS: u64 = 4000;
/// Furthest that a clock jumps.
const JUMP_MAX_S: i64 = 600;
/// Slowest that a message travels on a slow line.
const SLOW_LINE: Duration = Duration::from_millis(250);
/// Slowest that a message travels on any other.
pub const LINE: Duration = Duration::from_millis(4);
/// Longest write of a disk, and of a slow one.
const WRITE_MAX_US: u64 = 3000;
const SLOW_WRITE_MAX_US: u64 = 400_000;

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A node loses power, and comes back.
    Crash(usize),
    /// All of them do.
    CrashAll,
    /// No other node reaches a node, nor it them; clients do.
    CutOff(usize),
    /// A node is heard, and hears nothing.
    Deaf(usize),
    /// A node hears, and is not heard.
    Mute(usize),
    /// Two nodes do not reach each other.
    Split(usize, usize),
    /// A node's lines are slow.
    SlowLines(usize),
    /// A node's disk is slow.
    SlowDisk(usize),
    /// A node's disk is full: it stops, and is started again once there is room.
    FullDisk(usize),
    /// A node's clock is off, ms of the simulation.
    ClockOff(usize, i64),
    /// A plant's agent dies, and comes back.
    AgentDies(usize),
    /// A plant is cut off.
    PlantCutOff(usize),
}

/// Faults that have begun.
pub struct Storm {
    world: Shared,
    random: StdRng,
    next: Duration,
    going_on: Vec<(Duration, Fault)>,
    /// When nodes that are down come back.
    back: Vec<Option<Duration>>,
    /// When plants' agents that are down come back.
    back_plants: Vec<Option<Duration>>,
}

impl Storm {
    /// A storm that begins now; all disks have their everyday pace.
    pub fn new(world: Shared, seed: u64) -> Storm {
        let mut random = StdRng::seed_from_u64(seed);
        let (nodes, plants) = (world.borrow().nodes.len(), world.borrow().plants.len());
        (0..nodes).for_each(|index| pace(&world, index, random.random(), WRITE_MAX_US));
        let (back, back_plants) = (vec![None; nodes], vec![None; plants]);
        Storm { world, random, next: Duration::ZERO, going_on: Vec::new(), back, back_plants }
    }

    /// What is due at this moment: faults end, nodes come back, and, if it still storms, something breaks.
    pub fn step(&mut self, sim: &mut Sim<'_>, storms: bool) {
        let now = sim.elapsed();
        while let Some(at) = self.going_on.iter().position(|(until, _)| *until <= now || !storms) {
            let (_, fault) = self.going_on.remove(at);
            self.end(sim, fault);
        }
        for index in 0..self.back.len() {
            let stopped = self.world.borrow().nodes[index].stopped.is_some();
            if stopped && self.back[index].is_none() {
                let reason = self.world.borrow().nodes[index].stopped.clone().unwrap_or_default();
                self.tell(now, format!("{} has stopped: {reason}", name(index)));
                self.back[index] = Some(now + self.a_while());
            }
            if self.back[index].is_some_and(|at| at <= now || !storms) {
                self.back[index] = None;
                self.start(sim, index);
            }
        }
        for (plant, id) in PLANTS.into_iter().enumerate().take(self.back_plants.len()) {
            if self.back_plants[plant].is_some_and(|at| at <= now || !storms) {
                self.back_plants[plant] = None;
                self.tell(now, format!("the agent of {id} starts"));
                sim.bounce(id);
            }
        }
        if storms && now >= self.next {
            self.next = now + Duration::from_millis(self.random.random_range(0..PAUSE_MAX_MS));
            let fault = self.draw();
            self.begin(sim, fault);
            let until = now + self.a_while();
            self.going_on.push((until, fault));
        }
    }

    fn a_while(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(20..LASTS_MAX_MS))
    }

    fn tell(&self, at: Duration, what: String) {
        self.world.borrow_mut().tell(at, what);
    }

    /// A fault at a node that has been started; half of the time at the leader.
    fn draw(&mut self) -> Fault {
        let leader = self.world.borrow().leader().filter(|_| self.random.random_bool(0.5));
        let started: Vec<usize> = {
            let world = self.world.borrow();
            (0..world.nodes.len())
                .filter(|index| *index < world.first || world.nodes[*index].starts > 0)
                .collect()
        };
        let any = |random: &mut StdRng| started[random.random_range(0..started.len())];
        let node = leader.unwrap_or_else(|| any(&mut self.random));
        let (plants, scale) = (self.back_plants.len(), self.world.borrow().scale);
        if plants > 0 && self.random.random_bool(0.2) {
            let plant = self.random.random_range(0..plants);
            return match self.random.random_bool(0.5) {
                true => Fault::AgentDies(plant),
                false => Fault::PlantCutOff(plant),
            };
        }
        match self.random.random_range(0..20) {
            0..=4 => Fault::Crash(node),
            5 => Fault::CrashAll,
            6 | 7 => Fault::CutOff(node),
            8 | 9 => Fault::Deaf(node),
            10 | 11 => Fault::Mute(node),
            12 | 13 => Fault::Split(node, any(&mut self.random)),
            14 | 15 => Fault::SlowLines(node),
            16 | 17 => Fault::SlowDisk(node),
            18 => Fault::FullDisk(node),
            _ => Fault::ClockOff(node, self.random.random_range(-JUMP_MAX_S..=JUMP_MAX_S) * 1000 / scale),
        }
    }

    /// All other coordinators.
    fn others(&self, node: usize) -> impl Iterator<Item = String> + use<> {
        (0..self.back.len()).filter(move |other| *other != node).map(name)
    }

    fn begin(&mut self, sim: &mut Sim<'_>, fault: Fault) {
        self.tell(sim.elapsed(), format!("{fault:?} begins"));
        match fault {
            Fault::Crash(node) => self.crash(sim, node),
            Fault::CrashAll => (0..self.back.len()).for_each(|node| self.crash(sim, node)),
            Fault::CutOff(node) => self.others(node).for_each(|other| sim.partition(name(node), other)),
            Fault::Deaf(node) => self.others(node).for_each(|other| sim.partition_oneway(other, name(node))),
            Fault::Mute(node) => self.others(node).for_each(|other| sim.partition_oneway(name(node), other)),
            Fault::Split(one, other) if one != other => sim.partition(name(one), name(other)),
            Fault::Split(..) => {}
            Fault::SlowLines(node) => self
                .others(node)
                .for_each(|other| sim.set_link_max_message_latency(name(node), other, SLOW_LINE)),
            Fault::SlowDisk(node) => pace(&self.world, node, self.random.random(), SLOW_WRITE_MAX_US),
            Fault::FullDisk(node) => self.world.borrow().nodes[node].disk.fail_writes("no space left"),
            Fault::ClockOff(node, off_ms) => clock::set_off(node, off_ms),
            Fault::AgentDies(plant) => {
                if self.back_plants[plant].is_none() && sim.is_host_running(PLANTS[plant]) {
                    sim.crash(PLANTS[plant]);
                    self.back_plants[plant] = Some(sim.elapsed() + self.a_while());
                }
            }
            Fault::PlantCutOff(plant) => {
                (0..self.back.len()).for_each(|node| sim.partition(PLANTS[plant], name(node)));
            }
        }
    }

    fn end(&mut self, sim: &mut Sim<'_>, fault: Fault) {
        self.tell(sim.elapsed(), format!("{fault:?} ends"));
        match fault {
            // Each comes back at a moment of its own.
            Fault::Crash(_) | Fault::CrashAll | Fault::AgentDies(_) => {}
            Fault::CutOff(node) => self.others(node).for_each(|other| sim.repair(name(node), other)),
            Fault::Deaf(node) => self.others(node).for_each(|other| sim.repair_oneway(other, name(node))),
            Fault::Mute(node) => self.others(node).for_each(|other| sim.repair_oneway(name(node), other)),
            Fault::Split(one, other) if one != other => sim.repair(name(one), name(other)),
            Fault::Split(..) => {}
            Fault::SlowLines(node) => {
                self.others(node).for_each(|other| sim.set_link_max_message_latency(name(node), other, LINE));
            }
            Fault::SlowDisk(node) => pace(&self.world, node, self.random.random(), WRITE_MAX_US),
            // If nothing was written meanwhile, it has not noticed.
            Fault::FullDisk(node) => self.crash(sim, node),
            Fault::ClockOff(node, _) => clock::set_off(node, 0),
            Fault::PlantCutOff(plant) => {
                (0..self.back.len()).for_each(|node| sim.repair(PLANTS[plant], name(node)));
            }
        }
    }

    /// Whatever is not on the disk is lost; the node that dies cannot reach it any more.
    fn crash(&mut self, sim: &mut Sim<'_>, index: usize) {
        if self.back[index].is_some() || !sim.is_host_running(name(index)) {
            return;
        }
        {
            let node = &mut self.world.borrow_mut().nodes[index];
            node.disk = node.disk.after_power_loss();
            node.handle = None;
        }
        sim.crash(name(index));
        self.back[index] = Some(sim.elapsed() + self.a_while());
    }

    fn start(&mut self, sim: &mut Sim<'_>, index: usize) {
        {
            let node = &mut self.world.borrow_mut().nodes[index];
            node.disk = node.disk.after_power_loss();
            node.stopped = None;
        }
        self.tell(sim.elapsed(), format!("{} starts", name(index)));
        sim.bounce(name(index));
    }
}

/// Lets each write of a node's log take up to so many microseconds.
fn pace(world: &Shared, node: usize, seed: u64, most_us: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let pause = move || Duration::from_micros(random.random_range(0..most_us));
    world.borrow().nodes[node].disk.slow_down(pause);
}
