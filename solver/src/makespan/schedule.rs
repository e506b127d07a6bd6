//! An order of operations on each machine, and what follows from it: heads, tails, the makespan.

use crate::random::Random;
use crate::{Assignment, Instance, Plan, Tick};

pub(super) const NONE: u32 = u32::MAX;

/// The instance, operations numbered through.
#[derive(Debug)]
pub(super) struct Graph {
    /// First operation of each job, and one past the last.
    pub(super) base: Vec<u32>,
    pub(super) job_before: Vec<u32>,
    pub(super) job_after: Vec<u32>,
    /// Machine and duration, and where each operation's begin.
    modes: Vec<(u32, Tick)>,
    first_mode: Vec<u32>,
    pub(super) machines: usize,
}

impl Graph {
    pub(super) fn new(instance: &Instance) -> Graph {
        let mut graph = Graph {
            base: vec![0],
            job_before: Vec::new(),
            job_after: Vec::new(),
            modes: Vec::new(),
            first_mode: vec![0],
            machines: instance.shop.machines.len(),
        };
        for job in &instance.jobs {
            for (k, op) in job.ops.iter().enumerate() {
                let here = graph.job_before.len() as u32;
                graph.job_before.push(if k == 0 { NONE } else { here - 1 });
                graph.job_after.push(if k + 1 == job.ops.len() { NONE } else { here + 1 });
                graph.modes.extend(op.modes.iter().map(|m| (m.machine as u32, m.duration)));
                graph.first_mode.push(graph.modes.len() as u32);
            }
            graph.base.push(graph.job_before.len() as u32);
        }
        graph
    }

    /// How many operations there are.
    pub(super) fn ops(&self) -> usize {
        self.job_before.len()
    }

    /// An operation's machines, with its duration on each.
    pub(super) fn modes(&self, op: u32) -> &[(u32, Tick)] {
        let op = op as usize;
        &self.modes[self.first_mode[op] as usize..self.first_mode[op + 1] as usize]
    }

    /// The mode by which an operation ends first.
    fn first_done(&self, op: u32, fronts: &Fronts, job: usize) -> (u32, Tick) {
        let end =
            |mode: &&(u32, Tick)| (fronts.free[mode.0 as usize].max(fronts.ready[job]) + mode.1, mode.1);
        self.modes(op).iter().min_by_key(end).copied().unwrap_or((0, 0))
    }

    fn duration_on(&self, op: u32, machine: u32) -> Tick {
        self.modes(op).iter().find(|mode| mode.0 == machine).map_or(0, |mode| mode.1)
    }
}

/// Operations in order on each machine, with heads and tails.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    /// By machine: its operations in order.
    pub(super) lines: Vec<Vec<u32>>,
    /// By operation: its machine, its place in that line, its duration there.
    pub(super) machine: Vec<u32>,
    pub(super) at: Vec<u32>,
    pub(super) duration: Vec<Tick>,
    /// When it starts.
    pub(super) head: Vec<Tick>,
    /// The longest path behind it, its own duration left out.
    pub(super) tail: Vec<Tick>,
    /// A topological order.
    pub(super) order: Vec<u32>,
    degree: Vec<u8>,
    pub(super) makespan: Tick,
}

impl Schedule {
    /// Operations one after another in the order of `rank` as far as the jobs allow, each on the machine that
    /// `choose` says, given when its job is ready and when each machine is free.
    fn build(
        graph: &Graph,
        mut next: impl FnMut(&Fronts) -> Option<usize>,
        mut choose: impl FnMut(u32, &Fronts, usize) -> (u32, Tick),
    ) -> Schedule {
        let (n, jobs) = (graph.ops(), graph.base.len() - 1);
        let mut schedule = Schedule {
            lines: vec![Vec::new(); graph.machines],
            machine: vec![0; n],
            at: vec![0; n],
            duration: vec![0; n],
            head: vec![0; n],
            tail: vec![0; n],
            order: Vec::with_capacity(n),
            degree: vec![0; n],
            makespan: 0,
        };
        let mut fronts =
            Fronts { next: graph.base[..jobs].to_vec(), ready: vec![0; jobs], free: vec![0; graph.machines] };
        while let Some(job) = next(&fronts) {
            let op = fronts.next[job];
            let (machine, duration) = choose(op, &fronts, job);
            let line = &mut schedule.lines[machine as usize];
            schedule.machine[op as usize] = machine;
            schedule.at[op as usize] = line.len() as u32;
            schedule.duration[op as usize] = duration;
            line.push(op);
            let end = fronts.free[machine as usize].max(fronts.ready[job]) + duration;
            fronts.free[machine as usize] = end;
            fronts.ready[job] = end;
            fronts.next[job] += 1;
        }
        schedule.evaluate(graph);
        schedule
    }

    /// By most work remaining, each operation on the machine where it ends first; ties at random, and `noise`
    /// as the share of the work remaining that chance may add.
    pub(super) fn dispatch(graph: &Graph, random: &mut Random, noise: f64) -> Schedule {
        let least = |op: u32| graph.modes(op).iter().map(|mode| mode.1).min().unwrap_or(0);
        let mut behind = vec![0; graph.ops()];
        for op in (0..graph.ops()).rev() {
            let after = graph.job_after[op];
            behind[op] = least(op as u32) + if after == NONE { 0 } else { behind[after as usize] };
        }
        let jobs = graph.base.len() - 1;
        let mut rank = |fronts: &Fronts, job: usize| {
            let rest = behind[fronts.next[job] as usize];
            let spread = (noise * rest as f64 * random.share()) as Tick;
            (rest + spread - fronts.ready[job] / 2, random.next())
        };
        let next = |fronts: &Fronts| {
            let open = (0..jobs).filter(|&job| fronts.next[job] < graph.base[job + 1]);
            open.max_by_key(|&job| rank(fronts, job))
        };
        Schedule::build(graph, next, |op, fronts, job| graph.first_done(op, fronts, job))
    }

    /// Somewhere between two schedules: each operation on its machine in one of the two, all in the order of a
    /// weighted mean of their starts. Starts rise along jobs in both, so the mean's order has no cycle, and
    /// what comes first in both comes first.
    pub(super) fn between(
        graph: &Graph,
        a: &Schedule,
        b: &Schedule,
        share: f64,
        random: &mut Random,
    ) -> Schedule {
        let mean = |op: usize| (1.0 - share) * a.head[op] as f64 + share * b.head[op] as f64;
        let mut order: Vec<(f64, u32)> = (0..graph.ops()).map(|op| (mean(op), op as u32)).collect();
        order.sort_by(|x, y| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1)));
        let mut job_of = vec![0; graph.ops()];
        for job in 0..graph.base.len() - 1 {
            job_of[graph.base[job] as usize..graph.base[job + 1] as usize].fill(job);
        }
        let mut jobs = order.into_iter().map(|(_, op)| job_of[op as usize]);
        let choose = |op: u32, _: &Fronts, _: usize| {
            let from = if random.chance(share) { b } else { a };
            let machine = from.machine[op as usize];
            (machine, graph.duration_on(op, machine))
        };
        Schedule::build(graph, |_| jobs.next(), choose)
    }

    /// In the order of a plan's starts, each operation on its machine there. What the plan has not, or has where it
    /// cannot be done, comes right behind its job's operation before, where it ends first.
    pub(super) fn like(graph: &Graph, plan: &Plan) -> Schedule {
        let mut places: Vec<Option<(Tick, u32)>> = vec![None; graph.ops()];
        for a in &plan.assignments {
            let Some(&[first, end]) = graph.base.get(a.job..a.job + 2) else { continue };
            let op = first as usize + a.op;
            if op < end as usize && graph.duration_on(op as u32, a.machine as u32) > 0 {
                places[op] = Some((a.start, a.machine as u32));
            }
        }
        let mut order: Vec<(Tick, usize)> = Vec::with_capacity(graph.ops());
        for job in 0..graph.base.len() - 1 {
            let mut at = 0;
            for op in graph.base[job]..graph.base[job + 1] {
                at = places[op as usize].map_or(at, |place| place.0.max(at));
                order.push((at, job));
            }
        }
        order.sort_by_key(|place| place.0);
        let mut jobs = order.into_iter().map(|place| place.1);
        let choose = |op: u32, fronts: &Fronts, job: usize| match places[op as usize] {
            Some((_, machine)) => (machine, graph.duration_on(op, machine)),
            None => graph.first_done(op, fronts, job),
        };
        Schedule::build(graph, |_| jobs.next(), choose)
    }

    /// Operations that stand on another machine, and neighbours that stand the other way round.
    pub(super) fn distance(&self, other: &Schedule) -> usize {
        let moved = self.machine.iter().zip(&other.machine).filter(|(a, b)| a != b).count();
        let turned = self.lines.iter().flat_map(|line| line.windows(2)).filter(|pair| {
            let (x, y) = (pair[0] as usize, pair[1] as usize);
            other.machine[x] == other.machine[y] && other.at[x] > other.at[y]
        });
        moved + turned.count()
    }

    /// The operation before on the same machine.
    pub(super) fn before(&self, op: u32) -> u32 {
        match self.at[op as usize] {
            0 => NONE,
            at => self.lines[self.machine[op as usize] as usize][at as usize - 1],
        }
    }

    /// The operation after on the same machine.
    pub(super) fn after(&self, op: u32) -> u32 {
        let line = &self.lines[self.machine[op as usize] as usize];
        line.get(self.at[op as usize] as usize + 1).copied().unwrap_or(NONE)
    }

    /// When it is done; 0 for none.
    pub(super) fn done(&self, op: u32) -> Tick {
        if op == NONE { 0 } else { self.head[op as usize] + self.duration[op as usize] }
    }

    /// The longest path from its start to the end; 0 for none.
    pub(super) fn rest(&self, op: u32) -> Tick {
        if op == NONE { 0 } else { self.tail[op as usize] + self.duration[op as usize] }
    }

    /// Puts an operation at a place of a machine's line, counted without the operation itself.
    pub(super) fn put(&mut self, op: u32, machine: u32, duration: Tick, at: usize) {
        let here = self.machine[op as usize] as usize;
        let from = self.at[op as usize] as usize;
        self.lines[here].remove(from);
        self.lines[machine as usize].insert(at, op);
        self.machine[op as usize] = machine;
        self.duration[op as usize] = duration;
        let first = if here == machine as usize { from.min(at) } else { from };
        for (line, first) in [(here, first), (machine as usize, at.min(first))] {
            for i in first.min(self.lines[line].len())..self.lines[line].len() {
                self.at[self.lines[line][i] as usize] = i as u32;
            }
        }
    }

    /// Orders the operations topologically, and computes heads, tails and the makespan. O(operations).
    pub(super) fn evaluate(&mut self, graph: &Graph) {
        let n = graph.ops();
        self.order.clear();
        for op in 0..n {
            let count = u8::from(graph.job_before[op] != NONE) + u8::from(self.at[op] > 0);
            self.degree[op] = count;
            if count == 0 {
                self.order.push(op as u32);
            }
        }
        let mut next = 0;
        while next < self.order.len() {
            let op = self.order[next];
            self.head[op as usize] = self.done(graph.job_before[op as usize]).max(self.done(self.before(op)));
            for after in [graph.job_after[op as usize], self.after(op)] {
                if after != NONE {
                    self.degree[after as usize] -= 1;
                    if self.degree[after as usize] == 0 {
                        self.order.push(after);
                    }
                }
            }
            next += 1;
        }
        assert_eq!(self.order.len(), n, "a schedule has no cycle");
        self.makespan = 0;
        for i in (0..n).rev() {
            let op = self.order[i];
            self.tail[op as usize] = self.rest(graph.job_after[op as usize]).max(self.rest(self.after(op)));
            self.makespan = self.makespan.max(self.head[op as usize] + self.rest(op));
        }
    }

    pub(super) fn plan(&self, graph: &Graph) -> Plan {
        let mut plan = Plan { objective: Some(self.makespan), ..Plan::default() };
        for job in 0..graph.base.len() - 1 {
            let first = graph.base[job];
            for op in first..graph.base[job + 1] {
                let start = self.head[op as usize];
                plan.assignments.push(Assignment {
                    job,
                    op: (op - first) as usize,
                    machine: self.machine[op as usize] as usize,
                    start,
                    end: self.done(op),
                });
            }
        }
        plan
    }
}

/// How far a schedule under construction is.
pub(super) struct Fronts {
    /// By job: its next operation.
    next: Vec<u32>,
    /// By job: when its last one is done.
    ready: Vec<Tick>,
    /// By machine: when it is free.
    free: Vec<Tick>,
}
