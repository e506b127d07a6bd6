//! Whether a few jobs can be kept together, by enumeration.
//!
//! Operations are appended one by one, each as early as the last one on its machine and its part allow.
//! Ends grow with starts, so whatever can be kept can be kept that way. Of two partial plans with the same
//! operations done, the same families on the machines and the parts at the same plants, one that is in
//! nothing better than the other is dropped, and so are the many orders that lead to one partial plan.

use std::collections::BTreeMap;

use super::Limits;
use crate::windows::{Window, earliest_span, windows};
use crate::{Fen, Fixed, Instance, Mode, Tick};

/// Partial plans looked at for one answer.
const NODES_MAX: usize = 60_000;
/// Partial plans between two looks at the clock.
const NODES_PER_LOOK: usize = 64;
/// Partial plans kept for comparison with others of the same kind.
const PEERS_MAX: usize = 200;

/// What the enumeration found out.
pub(super) enum Answer {
    /// The jobs can be kept: this way.
    Kept(Vec<Vec<Fixed>>),
    /// No plan of these jobs alone keeps them all.
    Impossible,
    /// Neither within the limits.
    Open,
}

/// Where a job stands in a partial plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    done: usize,
    ready: Tick,
    plant: Option<usize>,
    charge: Fen,
}

/// Where a machine stands in a partial plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    free: Tick,
    family: Option<usize>,
}

/// What has to be equal for two partial plans to be compared: operations done and plants by job, families by
/// machine.
type Kind = (Vec<(usize, Option<usize>)>, Vec<Option<usize>>);

pub(super) struct Enumeration<'a> {
    instance: &'a Instance,
    limits: &'a Limits<'a>,
    windows: Vec<Vec<Vec<Option<Window>>>>,
    /// By job: one just like it that comes before it.
    twins: Vec<Option<usize>>,
    parts: Vec<Part>,
    lines: Vec<Line>,
    places: Vec<Vec<Fixed>>,
    peers: BTreeMap<Kind, Vec<Vec<Tick>>>,
    nodes: usize,
    spent: bool,
}

impl<'a> Enumeration<'a> {
    /// Decides whether all jobs of the instance can be kept.
    pub(super) fn decide(instance: &'a Instance, limits: &'a Limits<'a>) -> Answer {
        let of_job = |job: &crate::Job| {
            let latest = job.deadline.unwrap_or(instance.horizon).min(instance.horizon);
            windows(&instance.shop, job, latest)
        };
        let part = |job: &crate::Job| Part { done: 0, ready: job.release, plant: job.origin, charge: 0 };
        let line = |m: &crate::Machine| Line { free: 0, family: m.initial_family };
        let mut all = Enumeration {
            instance,
            limits,
            windows: instance.jobs.iter().map(of_job).collect(),
            twins: (0..instance.jobs.len()).map(|j| twin(instance, j)).collect(),
            parts: instance.jobs.iter().map(part).collect(),
            lines: instance.shop.machines.iter().map(line).collect(),
            places: vec![Vec::new(); instance.jobs.len()],
            peers: BTreeMap::new(),
            nodes: 0,
            spent: false,
        };
        match all.append() {
            true => Answer::Kept(all.places),
            false if all.spent => Answer::Open,
            false => Answer::Impossible,
        }
    }

    /// Whether the partial plan can be completed.
    fn append(&mut self) -> bool {
        self.nodes += 1;
        self.spent |=
            self.nodes > NODES_MAX || (self.nodes.is_multiple_of(NODES_PER_LOOK) && self.limits.spent());
        let open = |j: &usize| self.parts[*j].done < self.instance.jobs[*j].ops.len();
        let open: Vec<usize> = (0..self.parts.len()).filter(open).collect();
        if open.is_empty() {
            return true;
        }
        if self.spent || !open.iter().all(|&j| self.has_hope(j)) || self.is_dominated() {
            return false;
        }
        // Of jobs that are alike it is all the same which begins first.
        let begun = |j: &usize| self.twins[*j].is_none_or(|twin| self.parts[twin].done > 0);
        let mut ways: Vec<Way> = open.into_iter().filter(begun).flat_map(|j| self.ways(j)).collect();
        // Who ends first leaves most behind.
        ways.sort_by_key(|way| (way.end, way.job));
        for way in ways {
            let before = (self.parts[way.job], self.lines[way.machine]);
            self.take(&way);
            if self.append() {
                return true;
            }
            (self.parts[way.job], self.lines[way.machine]) = before;
            self.places[way.job].pop();
        }
        false
    }

    /// Whether a job's next operation could still end in time on some machine. Without a changeover: another
    /// job that comes between may bring the machine to its family, long before.
    fn has_hope(&self, j: usize) -> bool {
        let (job, part) = (&self.instance.jobs[j], self.parts[j]);
        let op = &job.ops[part.done];
        op.modes.iter().zip(&self.windows[j][part.done]).any(|(mode, window)| {
            let from = self.from(j, mode);
            window.is_some_and(|w| earliest_span(&self.instance.shop, op, mode, from, w.latest_end).is_some())
        })
    }

    /// When both a mode's machine and the part are there.
    fn from(&self, j: usize, mode: &Mode) -> Tick {
        let (shop, part) = (&self.instance.shop, self.parts[j]);
        let there = shop.machines[mode.machine].plant;
        let travel = part.plant.map_or(0, |p| shop.transport[p][there]);
        (part.ready + travel).max(mode.earliest).max(self.lines[mode.machine].free)
    }

    fn take(&mut self, way: &Way) {
        let op = &self.instance.jobs[way.job].ops[self.parts[way.job].done];
        let plant = Some(self.instance.shop.machines[way.machine].plant);
        let line = &mut self.lines[way.machine];
        line.free = way.end;
        if self.instance.shop.setups[self.instance.shop.machines[way.machine].setup].has_memory() {
            line.family = Some(op.family);
        }
        let done = self.parts[way.job].done + 1;
        self.parts[way.job] = Part { done, ready: way.end, plant, charge: way.charge };
        self.places[way.job].push(Fixed { machine: way.machine, start: way.start });
    }

    /// The ways to append a job's next operation that leave it a chance.
    fn ways(&self, j: usize) -> impl Iterator<Item = Way> + '_ {
        let modes = &self.instance.jobs[j].ops[self.parts[j].done].modes;
        (0..modes.len()).filter_map(move |i| self.way(j, &modes[i], self.windows[j][self.parts[j].done][i]?))
    }

    fn way(&self, j: usize, mode: &Mode, window: Window) -> Option<Way> {
        let (job, shop, part) = (&self.instance.jobs[j], &self.instance.shop, self.parts[j]);
        let (op, line) = (&job.ops[part.done], self.lines[mode.machine]);
        let there = shop.machines[mode.machine].plant;
        let trip = part.plant.map_or(0, |p| shop.transport_cost[p][there]);
        let charge = part.charge + trip + mode.charge;
        if job.budget.is_some_and(|budget| charge > budget) {
            return None;
        }
        let from = self.from(j, mode);
        let work = shop.setup_ticks(mode.machine, line.family, op.family) + mode.duration;
        let calendar = &shop.machines[mode.machine].calendar;
        let (start, end) = match op.fixed {
            None => calendar.earliest(from, work, op.splittable, window.latest_end)?,
            Some(fixed) if from > fixed.start => return None,
            Some(fixed) => (fixed.start, calendar.finish(fixed.start, work, op.splittable)?),
        };
        (end <= window.latest_end).then_some(Way { job: j, machine: mode.machine, start, end, charge })
    }

    /// Whether another partial plan of the same kind was in nothing worse, and failed; remembers this one.
    fn is_dominated(&mut self) -> bool {
        let done = self.parts.iter().map(|part| (part.done, part.plant)).collect();
        let kind = (done, self.lines.iter().map(|line| line.family).collect());
        let mut here: Vec<Tick> = self.parts.iter().flat_map(|part| [part.ready, part.charge]).collect();
        here.extend(self.lines.iter().map(|line| line.free));
        let peers = self.peers.entry(kind).or_default();
        let beats = |a: &[Tick], b: &[Tick]| a.iter().zip(b).all(|(a, b)| a <= b);
        if peers.iter().any(|peer| beats(peer, &here)) {
            return true;
        }
        peers.retain(|peer| !beats(&here, peer));
        if peers.len() < PEERS_MAX {
            peers.push(here);
        }
        false
    }
}

/// The last job before this one that differs from it in nothing but its name.
fn twin(instance: &Instance, j: usize) -> Option<usize> {
    let job = &instance.jobs[j];
    let alike = |other: &crate::Job| crate::Job { id: job.id.clone(), ..other.clone() } == *job;
    (0..j).rev().find(|&i| alike(&instance.jobs[i]))
}

/// One way to append an operation.
struct Way {
    job: usize,
    machine: usize,
    start: Tick,
    end: Tick,
    charge: Fen,
}
