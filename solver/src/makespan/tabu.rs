//! Tabu search on one schedule.
//!
//! A move takes an operation of a critical path out and puts it back elsewhere. On another machine it goes where
//! Mastrolilli and Gambardella (2000) show the best place to be: behind every operation that is done before it
//! could begin, and before every one whose rest is shorter than its own. On its own machine it goes before or behind
//! its block of the path, or the block's first and last to any place inside (Zhang, Li, Guan and Rao, 2007: N7);
//! heads and tails of those that change sides are reckoned anew along the machine, as Balas and Vazacopoulos (1998)
//! do, all others' taken as they stand. A move that could close a cycle is not judged. A move's value is the longest
//! path through what it touches, an estimate; what the schedule then is, is evaluated exactly.

use super::schedule::{Graph, NONE, Schedule};
use crate::Tick;
use crate::random::Random;

/// How far tenures vary.
const TENURE_SPREAD: usize = 12;
/// The least for which two operations may not change sides again.
const TENURE_HERE: usize = 10;

/// A move: the operation goes to a place of a machine's line, counted without itself.
#[derive(Clone, Copy, Debug)]
struct Move {
    op: u32,
    machine: u32,
    duration: Tick,
    at: usize,
}

/// A tabu search under way, and the best schedule that it has met since it began anew.
pub(super) struct Tabu {
    pub(super) now: Schedule,
    pub(super) best: Schedule,
    pub(super) random: Random,
    /// By operation and machine: until which move it may not come back.
    until: Vec<u64>,
    /// By two operations: until which move the first may not come before the second on their machine again.
    apart: Vec<u64>,
    path: Vec<u32>,
    ties: Vec<Move>,
    /// Heads of a line's operations after a move.
    heads: Vec<Tick>,
    pub(super) moves: u64,
    /// The move that met `best`.
    pub(super) best_at: u64,
}

impl Tabu {
    pub(super) fn new(graph: &Graph, start: Schedule, random: Random) -> Tabu {
        Tabu {
            until: vec![0; graph.ops() * graph.machines],
            apart: vec![0; graph.ops() * graph.ops()],
            best: start.clone(),
            now: start,
            random,
            path: Vec::new(),
            ties: Vec::new(),
            heads: Vec::new(),
            moves: 0,
            best_at: 0,
        }
    }

    /// Goes on from another schedule, with nothing forbidden.
    pub(super) fn begin(&mut self, start: Schedule) {
        self.best.clone_from(&start);
        self.now = start;
        self.until.fill(0);
        self.apart.fill(0);
        self.best_at = self.moves;
    }

    /// One move. True where the best makespan fell.
    pub(super) fn step(&mut self, graph: &Graph) -> bool {
        self.moves += 1;
        self.trace_critical_path(graph);
        let Some(m) = self.choose(graph) else { return false };
        self.forbid_return(graph, &m);
        self.now.put(m.op, m.machine, m.duration, m.at);
        self.now.evaluate(graph);
        if self.now.makespan < self.best.makespan {
            self.best.clone_from(&self.now);
            self.best_at = self.moves;
            return true;
        }
        false
    }

    /// Forbids what would undo the move: its operation back on the machine, or before those that it went behind.
    fn forbid_return(&mut self, graph: &Graph, m: &Move) {
        let (op, n) = (m.op as usize, graph.ops());
        let here = self.now.machine[op];
        if m.machine != here {
            let tenure =
                self.path.len() * 3 / 10 + graph.modes(m.op).len() + self.random.below(TENURE_SPREAD);
            self.until[op * graph.machines + here as usize] = self.moves + tenure as u64;
            return;
        }
        let tenure = TENURE_HERE + self.path.len() / 10 + self.random.below(TENURE_SPREAD);
        let until = self.moves + tenure as u64;
        let (from, line) = (self.now.at[op] as usize, &self.now.lines[here as usize]);
        match m.at > from {
            true => line[from + 1..=m.at].iter().for_each(|&x| self.apart[op * n + x as usize] = until),
            false => line[m.at..from].iter().for_each(|&x| self.apart[x as usize * n + op] = until),
        }
    }

    /// One critical path, chosen at random where it forks.
    fn trace_critical_path(&mut self, graph: &Graph) {
        let s = &self.now;
        self.path.clear();
        let ends = |op: &u32| s.done(*op) == s.makespan;
        let sinks = s.order.iter().copied().filter(ends);
        let Some(mut op) = sinks.max_by_key(|_| self.random.next()) else { return };
        loop {
            self.path.push(op);
            let head = s.head[op as usize];
            let (by_job, by_machine) = (graph.job_before[op as usize], s.before(op));
            let tight = |before: u32| before != NONE && s.done(before) == head;
            op = match (tight(by_job), tight(by_machine)) {
                (true, true) if self.random.chance(0.5) => by_job,
                (_, true) => by_machine,
                (true, false) => by_job,
                (false, false) => break,
            };
        }
        self.path.reverse();
    }

    /// The best move that is not tabu, or leads to a new best; a random one where all are.
    fn choose(&mut self, graph: &Graph) -> Option<Move> {
        self.ties.clear();
        let mut least = Tick::MAX;
        self.judge_path(graph, &mut least, false);
        if self.ties.is_empty() {
            self.judge_path(graph, &mut least, true);
        }
        match self.ties.len() {
            0 => None,
            n => Some(self.ties[self.random.below(n)]),
        }
    }

    /// Judges the moves along the critical path, block by block: operations that follow each other on a machine.
    fn judge_path(&mut self, graph: &Graph, least: &mut Tick, all: bool) {
        let mut first = 0;
        while first < self.path.len() {
            let machine = self.now.machine[self.path[first] as usize];
            let same = |op: &&u32| self.now.machine[**op as usize] == machine;
            let last = first + self.path[first..].iter().take_while(same).count() - 1;
            for i in first..=last {
                let op = self.path[i];
                for &(machine, duration) in graph.modes(op) {
                    if machine != self.now.machine[op as usize] {
                        let tabu = self.until[op as usize * graph.machines + machine as usize] > self.moves;
                        let below = self.below(tabu && !all);
                        self.judge_there(graph, (op, machine, duration), below, least, all);
                    }
                }
                // Within a block only what changes its first or its last operation can shorten the path, and
                // not even that where the path begins or ends with it.
                let (behind, front) = (last + 1 < self.path.len(), first > 0);
                self.judge_here(graph, op, (first, i, last), (front, behind), least, all);
            }
            first = last + 1;
        }
    }

    /// A tabu move is of use where it leads to a new best only.
    fn below(&self, tabu: bool) -> Tick {
        if tabu { self.best.makespan } else { Tick::MAX }
    }

    /// Keeps a move if it comes out no longer than the least so far.
    fn keep(&mut self, value: Tick, below: Tick, least: &mut Tick, all: bool, m: Move) {
        if value >= below || (value > *least && !all) {
            return;
        }
        if value < *least && !all {
            *least = value;
            self.ties.clear();
        }
        self.ties.push(m);
    }

    /// Whether a path may go from one operation to another, or they are the same. Only where the first is done
    /// before the second begins.
    fn may_lead_to(&self, x: u32, y: u32) -> bool {
        y != NONE && (x == y || self.now.done(x) <= self.now.head[y as usize])
    }

    fn may_follow(&self, x: u32, y: u32) -> bool {
        y != NONE && self.may_lead_to(y, x)
    }

    /// The places on another machine.
    fn judge_there(
        &mut self,
        graph: &Graph,
        (op, machine, duration): (u32, u32, Tick),
        below: Tick,
        least: &mut Tick,
        all: bool,
    ) {
        let s = &self.now;
        let (job_before, job_after) = (graph.job_before[op as usize], graph.job_after[op as usize]);
        let (ready, rest) = (s.done(job_before), s.rest(job_after));
        let line = &s.lines[machine as usize];
        // No cycle: whoever comes behind leads not to the job's predecessor, nor its successor to whoever comes
        // before.
        let safe_from = line.partition_point(|&x| self.may_lead_to(x, job_before));
        let safe_to = line.partition_point(|&x| !self.may_follow(x, job_after));
        // Done before it could begin: a prefix. A rest no longer than its own: a suffix.
        let first = line.partition_point(|&x| s.done(x) <= ready);
        let last = line.partition_point(|&x| s.rest(x) > rest);
        let (from, to) = (first.min(last).max(safe_from), first.max(last).min(safe_to));
        for at in from..=to {
            let s = &self.now;
            let line = &s.lines[machine as usize];
            let before = if at == 0 { 0 } else { s.done(line[at - 1]) };
            let after = line.get(at).map_or(0, |&x| s.rest(x));
            let value = ready.max(before) + duration + rest.max(after);
            self.keep(value, below, least, all, Move { op, machine, duration, at });
        }
    }

    /// The other places in its block: behind the last where the path goes on from there, before the first where it
    /// comes from before; and for these two themselves, every place inside.
    fn judge_here(
        &mut self,
        graph: &Graph,
        op: u32,
        (first, i, last): (usize, usize, usize),
        (front, behind): (bool, bool),
        least: &mut Tick,
        all: bool,
    ) {
        let n = graph.ops();
        let (machine, duration) = (self.now.machine[op as usize], self.now.duration[op as usize]);
        let (job_before, job_after) = (graph.job_before[op as usize], graph.job_after[op as usize]);
        let from = self.now.at[op as usize] as usize;
        let mut tabu = false;
        for to in from + 1..=from + (last - i) {
            let x = self.now.lines[machine as usize][to];
            if self.may_follow(x, job_after) {
                break;
            }
            tabu |= self.apart[x as usize * n + op as usize] > self.moves;
            if (behind && to == from + (last - i)) || (front && i == first) {
                let value = self.later(graph, op, from, to);
                self.keep(
                    value,
                    self.below(tabu && !all),
                    least,
                    all,
                    Move { op, machine, duration, at: to },
                );
            }
        }
        tabu = false;
        for to in (from - (i - first)..from).rev() {
            let x = self.now.lines[machine as usize][to];
            if self.may_lead_to(x, job_before) {
                break;
            }
            tabu |= self.apart[op as usize * n + x as usize] > self.moves;
            if (front && to == from - (i - first)) || (behind && i == last) {
                let value = self.sooner(graph, op, from, to);
                self.keep(
                    value,
                    self.below(tabu && !all),
                    least,
                    all,
                    Move { op, machine, duration, at: to },
                );
            }
        }
    }

    /// The longest path through what changes when the operation goes from one place of its line to a later one.
    fn later(&mut self, graph: &Graph, op: u32, from: usize, to: usize) -> Tick {
        let s = &self.now;
        let line = &s.lines[s.machine[op as usize] as usize];
        self.heads.clear();
        let mut free = if from == 0 { 0 } else { s.done(line[from - 1]) };
        for &x in &line[from + 1..=to] {
            let head = free.max(s.done(graph.job_before[x as usize]));
            self.heads.push(head);
            free = head + s.duration[x as usize];
        }
        let head = free.max(s.done(graph.job_before[op as usize]));
        let mut rest = line.get(to + 1).map_or(0, |&x| s.rest(x)).max(s.rest(graph.job_after[op as usize]));
        rest += s.duration[op as usize];
        let mut longest = head + rest;
        for (&x, head) in line[from + 1..=to].iter().zip(&self.heads).rev() {
            rest = rest.max(s.rest(graph.job_after[x as usize])) + s.duration[x as usize];
            longest = longest.max(head + rest);
        }
        longest
    }

    /// The same for a sooner place.
    fn sooner(&mut self, graph: &Graph, op: u32, from: usize, to: usize) -> Tick {
        let s = &self.now;
        let line = &s.lines[s.machine[op as usize] as usize];
        self.heads.clear();
        let before = if to == 0 { 0 } else { s.done(line[to - 1]) };
        let head = before.max(s.done(graph.job_before[op as usize]));
        let mut free = head + s.duration[op as usize];
        for &x in &line[to..from] {
            let head = free.max(s.done(graph.job_before[x as usize]));
            self.heads.push(head);
            free = head + s.duration[x as usize];
        }
        let mut rest = line.get(from + 1).map_or(0, |&x| s.rest(x));
        let mut longest = 0;
        for (&x, head) in line[to..from].iter().zip(&self.heads).rev() {
            rest = rest.max(s.rest(graph.job_after[x as usize])) + s.duration[x as usize];
            longest = longest.max(head + rest);
        }
        let rest = rest.max(s.rest(graph.job_after[op as usize])) + s.duration[op as usize];
        longest.max(head + rest)
    }
}
