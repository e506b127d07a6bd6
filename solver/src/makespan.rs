//! The makespan, by tabu search.
//!
//! A solution is an order of operations on each machine; an operation starts when its predecessors in
//! its job and on its machine are done. A move takes an operation of a critical path out and puts it
//! back, on any of its machines, where Mastrolilli and Gambardella's theorem says that no cycle can
//! arise and no better place exists: behind every operation that is done before it could begin, and
//! before every one whose rest is shorter than its own. It is judged by the longest path through it.

use crate::random::Random;
use crate::{Assignment, Instance, Plan, Tick};

const NONE: u32 = u32::MAX;
/// Moves without a new best until the search returns to it and shakes it.
const PATIENCE: u64 = 4000;
/// Most random moves of a shake.
const SHAKE_MAX: usize = 12;
/// How far tenures vary.
const TENURE_SPREAD: usize = 12;

/// The instance, operations numbered through.
struct Graph {
    /// First operation of each job, and one past the last.
    base: Vec<u32>,
    job_before: Vec<u32>,
    job_after: Vec<u32>,
    /// By operation: machine and duration.
    modes: Vec<Vec<(u32, Tick)>>,
    machines: usize,
}

/// Operations in order on each machine, with heads and tails.
#[derive(Clone)]
struct Schedule {
    machine: Vec<u32>,
    duration: Vec<Tick>,
    before: Vec<u32>,
    after: Vec<u32>,
    first: Vec<u32>,
    head: Vec<Tick>,
    /// Longest path behind the operation, its own duration left out.
    tail: Vec<Tick>,
    /// A topological order, and each operation's place in it.
    order: Vec<u32>,
    place: Vec<u32>,
    makespan: Tick,
}

/// A move: the operation goes to a machine, between two others.
#[derive(Clone, Copy)]
struct Move {
    op: u32,
    machine: u32,
    duration: Tick,
    before: u32,
    after: u32,
}

/// The tabu search.
pub(crate) struct Tabu {
    graph: Graph,
    now: Schedule,
    best: Schedule,
    random: Random,
    /// By operation and machine: until when it may not come back.
    until: Vec<u64>,
    best_at: u64,
    head: Vec<Tick>,
    tail: Vec<Tick>,
    degree: Vec<u8>,
    path: Vec<u32>,
    line: Vec<u32>,
    ties: Vec<Move>,
    pub(crate) moves: u64,
}

impl Graph {
    fn new(instance: &Instance) -> Graph {
        let mut graph = Graph {
            base: vec![0],
            job_before: Vec::new(),
            job_after: Vec::new(),
            modes: Vec::new(),
            machines: instance.shop.machines.len(),
        };
        for job in &instance.jobs {
            for (k, op) in job.ops.iter().enumerate() {
                let here = graph.modes.len() as u32;
                graph.job_before.push(if k == 0 { NONE } else { here - 1 });
                graph.job_after.push(if k + 1 == job.ops.len() { NONE } else { here + 1 });
                graph.modes.push(op.modes.iter().map(|m| (m.machine as u32, m.duration)).collect());
            }
            graph.base.push(graph.modes.len() as u32);
        }
        graph
    }
}

impl Schedule {
    /// Operations one after another by most work remaining, each on the machine where it ends first.
    fn dispatch(graph: &Graph, random: &mut Random) -> Schedule {
        let n = graph.modes.len();
        let mut s = Schedule {
            machine: vec![0; n],
            duration: vec![0; n],
            before: vec![NONE; n],
            after: vec![NONE; n],
            first: vec![NONE; graph.machines],
            head: vec![0; n],
            tail: vec![0; n],
            order: Vec::new(),
            place: vec![0; n],
            makespan: 0,
        };
        let least = |op: u32| graph.modes[op as usize].iter().map(|m| m.1).min().unwrap_or(0);
        let jobs = graph.base.len() - 1;
        let mut next: Vec<u32> = graph.base[..jobs].to_vec();
        let mut rest: Vec<Tick> =
            (0..jobs).map(|j| (graph.base[j]..graph.base[j + 1]).map(least).sum()).collect();
        let mut ready = vec![0; jobs];
        let mut free = vec![0; graph.machines];
        let mut last = vec![NONE; graph.machines];
        for _ in 0..n {
            let open = (0..jobs).filter(|&j| next[j] < graph.base[j + 1]);
            let Some(j) = open.max_by_key(|&j| (rest[j] - ready[j] / 2, random.next())) else { break };
            let op = next[j] as usize;
            let ends = graph.modes[op].iter().map(|&(m, p)| (free[m as usize].max(ready[j]) + p, m, p));
            let Some((end, m, p)) = ends.min_by_key(|e| (e.0, e.2)) else { break };
            (s.machine[op], s.duration[op], s.before[op]) = (m, p, last[m as usize]);
            match last[m as usize] {
                NONE => s.first[m as usize] = op as u32,
                before => s.after[before as usize] = op as u32,
            }
            (last[m as usize], free[m as usize], ready[j]) = (op as u32, end, end);
            rest[j] -= least(op as u32);
            next[j] += 1;
        }
        s
    }

    /// Orders the operations topologically and computes heads and tails.
    fn evaluate(&mut self, graph: &Graph, degree: &mut Vec<u8>) {
        let n = self.machine.len();
        degree.clear();
        self.order.clear();
        for op in 0..n {
            let count = u8::from(graph.job_before[op] != NONE) + u8::from(self.before[op] != NONE);
            degree.push(count);
            if count == 0 {
                self.order.push(op as u32);
            }
        }
        let mut at = 0;
        while at < self.order.len() {
            let op = self.order[at] as usize;
            self.place[op] = at as u32;
            self.head[op] = self.ready(graph, op, &self.head);
            for next in [graph.job_after[op], self.after[op]] {
                if next != NONE {
                    degree[next as usize] -= 1;
                    if degree[next as usize] == 0 {
                        self.order.push(next);
                    }
                }
            }
            at += 1;
        }
        assert_eq!(self.order.len(), n, "a schedule has no cycle");
        self.makespan = 0;
        for i in (0..n).rev() {
            let op = self.order[i] as usize;
            self.tail[op] = self.rest(graph, op, &self.tail);
            self.makespan = self.makespan.max(self.head[op] + self.duration[op] + self.tail[op]);
        }
    }

    fn done(&self, op: u32, head: &[Tick]) -> Tick {
        if op == NONE { 0 } else { head[op as usize] + self.duration[op as usize] }
    }

    fn ready(&self, graph: &Graph, op: usize, head: &[Tick]) -> Tick {
        self.done(graph.job_before[op], head).max(self.done(self.before[op], head))
    }

    fn rest(&self, graph: &Graph, op: usize, tail: &[Tick]) -> Tick {
        self.done(graph.job_after[op], tail).max(self.done(self.after[op], tail))
    }

    fn unlink(&mut self, op: u32) {
        let (before, after) = (self.before[op as usize], self.after[op as usize]);
        match before {
            NONE => self.first[self.machine[op as usize] as usize] = after,
            _ => self.after[before as usize] = after,
        }
        if after != NONE {
            self.before[after as usize] = before;
        }
    }

    fn link(&mut self, m: &Move) {
        let op = m.op as usize;
        (self.machine[op], self.duration[op]) = (m.machine, m.duration);
        (self.before[op], self.after[op]) = (m.before, m.after);
        match m.before {
            NONE => self.first[m.machine as usize] = m.op,
            before => self.after[before as usize] = m.op,
        }
        if m.after != NONE {
            self.before[m.after as usize] = m.op;
        }
    }
}

impl Tabu {
    pub(crate) fn new(instance: &Instance, seed: u64) -> Tabu {
        let graph = Graph::new(instance);
        let mut random = Random::new(seed);
        let mut degree = Vec::new();
        let mut now = Schedule::dispatch(&graph, &mut random);
        now.evaluate(&graph, &mut degree);
        let n = graph.modes.len();
        Tabu {
            until: vec![0; n * graph.machines],
            best: now.clone(),
            now,
            random,
            best_at: 0,
            head: vec![0; n],
            tail: vec![0; n],
            degree,
            path: Vec::new(),
            line: Vec::new(),
            ties: Vec::new(),
            moves: 0,
            graph,
        }
    }

    /// The best makespan so far.
    pub(crate) fn best(&self) -> Tick {
        self.best.makespan
    }

    /// One move. True where the best makespan fell.
    pub(crate) fn step(&mut self) -> bool {
        self.moves += 1;
        if self.moves - self.best_at > PATIENCE {
            self.shake();
            return false;
        }
        self.trace_critical_path();
        let Some(m) = self.choose() else {
            self.best_at = self.moves.saturating_sub(PATIENCE);
            return false;
        };
        let op = m.op as usize;
        let tenure = self.path.len() + self.graph.modes[op].len() + self.random.below(TENURE_SPREAD);
        let at = op * self.graph.machines + self.now.machine[op] as usize;
        self.until[at] = self.moves + tenure as u64;
        self.carry_out(&m);
        if self.now.makespan < self.best.makespan {
            self.best.clone_from(&self.now);
            self.best_at = self.moves;
            return true;
        }
        false
    }

    fn carry_out(&mut self, m: &Move) {
        self.now.unlink(m.op);
        self.now.link(m);
        self.now.evaluate(&self.graph, &mut self.degree);
    }

    /// Back to the best schedule, and a few moves at random away from it.
    fn shake(&mut self) {
        self.now.clone_from(&self.best);
        self.until.fill(0);
        self.best_at = self.moves;
        let count = 1 + self.random.below(SHAKE_MAX);
        for _ in 0..count {
            self.trace_critical_path();
            let on_path = self.random.chance(0.7) && !self.path.is_empty();
            let op = match on_path {
                true => self.path[self.random.below(self.path.len())],
                false => self.random.below(self.graph.modes.len()) as u32,
            };
            let modes = self.graph.modes[op as usize].len();
            let mode = self.random.below(modes);
            self.without(op);
            self.ties.clear();
            self.judge(op, mode, &mut 0, true);
            if !self.ties.is_empty() {
                let m = self.ties[self.random.below(self.ties.len())];
                self.carry_out(&m);
            }
        }
    }

    /// One critical path, chosen at random where it forks.
    fn trace_critical_path(&mut self) {
        let s = &self.now;
        self.path.clear();
        let ends = |op: &u32| s.head[*op as usize] + s.duration[*op as usize] == s.makespan;
        let sinks = s.order.iter().copied().filter(ends);
        let Some(mut op) = sinks.max_by_key(|_| self.random.next()) else { return };
        loop {
            self.path.push(op);
            let head = s.head[op as usize];
            let (by_job, by_machine) = (self.graph.job_before[op as usize], s.before[op as usize]);
            let tight = |before: u32| before != NONE && s.done(before, &s.head) == head;
            op = match (tight(by_job), tight(by_machine)) {
                (true, true) if self.random.chance(0.5) => by_job,
                (_, true) => by_machine,
                (true, false) => by_job,
                (false, false) => return,
            };
        }
    }

    /// Heads and tails as they were if the operation were not on its machine.
    fn without(&mut self, op: u32) {
        let s = &mut self.now;
        let (before, after) = (s.before[op as usize], s.after[op as usize]);
        s.unlink(op);
        (s.before[op as usize], s.after[op as usize]) = (NONE, NONE);
        let at = s.place[op as usize] as usize;
        for &x in &s.order[..at] {
            self.head[x as usize] = s.head[x as usize];
        }
        for &x in &s.order[at..] {
            self.head[x as usize] = s.ready(&self.graph, x as usize, &self.head);
        }
        for &x in &s.order[at + 1..] {
            self.tail[x as usize] = s.tail[x as usize];
        }
        for &x in s.order[..=at].iter().rev() {
            self.tail[x as usize] = s.rest(&self.graph, x as usize, &self.tail);
        }
        let m =
            Move { op, machine: s.machine[op as usize], duration: s.duration[op as usize], before, after };
        s.link(&m);
    }

    /// The best move that is not tabu, or leads to a new best; a random one where all are.
    fn choose(&mut self) -> Option<Move> {
        self.ties.clear();
        let mut least = Tick::MAX;
        for i in 0..self.path.len() {
            let op = self.path[i];
            self.without(op);
            for mode in 0..self.graph.modes[op as usize].len() {
                self.judge(op, mode, &mut least, false);
            }
        }
        if self.ties.is_empty() && !self.path.is_empty() {
            let op = self.path[self.random.below(self.path.len())];
            self.without(op);
            let mode = self.random.below(self.graph.modes[op as usize].len());
            self.judge(op, mode, &mut 0, true);
        }
        match self.ties.len() {
            0 => None,
            n => Some(self.ties[self.random.below(n)]),
        }
    }

    /// Judges an operation's places on one machine, keeping those that come out shortest.
    fn judge(&mut self, op: u32, mode: usize, least: &mut Tick, even_tabu: bool) {
        let (machine, duration) = self.graph.modes[op as usize][mode];
        let (head, tail) = (&self.head, &self.tail);
        let s = &self.now;
        let tabu =
            !even_tabu && self.until[op as usize * self.graph.machines + machine as usize] > self.moves;
        let ready = s.done(self.graph.job_before[op as usize], head);
        let rest = s.done(self.graph.job_after[op as usize], tail);
        self.line.clear();
        let mut x = s.first[machine as usize];
        while x != NONE {
            if x != op {
                self.line.push(x);
            }
            x = s.after[x as usize];
        }
        // Done before it could begin: a prefix. A rest no longer than its own: a suffix.
        let first = self.line.partition_point(|&x| s.done(x, head) <= ready);
        let last = self.line.partition_point(|&x| s.done(x, tail) > rest);
        for at in first.min(last)..=first.max(last) {
            let before = if at == 0 { NONE } else { self.line[at - 1] };
            let after = self.line.get(at).copied().unwrap_or(NONE);
            if machine == s.machine[op as usize] && before == s.before[op as usize] {
                continue;
            }
            let value = ready.max(s.done(before, head)) + duration + rest.max(s.done(after, tail));
            if tabu && value >= self.best.makespan {
                continue;
            }
            if !even_tabu && value < *least {
                *least = value;
                self.ties.clear();
            }
            if even_tabu || value == *least {
                self.ties.push(Move { op, machine, duration, before, after });
            }
        }
    }

    /// The best schedule as a plan.
    pub(crate) fn plan(&self) -> Plan {
        let s = &self.best;
        let mut plan = Plan { objective: Some(s.makespan), ..Plan::default() };
        for job in 0..self.graph.base.len() - 1 {
            let first = self.graph.base[job];
            for op in first..self.graph.base[job + 1] {
                let (i, start) = (op as usize, s.head[op as usize]);
                plan.assignments.push(Assignment {
                    job,
                    op: (op - first) as usize,
                    machine: s.machine[i] as usize,
                    start,
                    end: start + s.duration[i],
                });
            }
        }
        plan
    }
}
