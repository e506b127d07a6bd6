//! Remove and reinsert, under annealing.
//!
//! A try takes a few neighbouring jobs out of the plan and puts them, and perhaps some rejected ones,
//! back one by one where each adds least. It is kept if the plan weighs less than a threshold a
//! little above what it weighed before; the threshold's slack cools as the time or the tries run
//! out. A try allocates nothing: its buffers live here.
//!
//! While promises are broken, all tries are about them, and they go back first: whoever then finds no place may be
//! easier to place elsewhere. Where moves weigh, that way out of a narrow place would look too dear, so more and more
//! moves are allowed the longer nothing is mended. Afterwards what has moved tries to get home.

use crate::greedy::{insert_all, insertion_order};
use crate::master::Decision;
use crate::place::Placer;
use crate::random::Random;
use crate::state::State;
use crate::{Fen, Fixed, Instance, Plan, Step, Tick};

/// How hot the annealing begins and ends, as shares of what a job costs on average.
const HOT: f64 = 0.25;
const COLD: f64 = 0.005;
/// Most machines and times at which a try takes something out.
const STRINGS_MAX: usize = 2;
/// Most occupations taken off one machine in a try.
const STRING_MAX: usize = 5;
/// Most jobs taken out to let one go back to where it stood.
const HOMEWARDS_MAX: usize = 12;
/// Jobs looked at to find one that stands elsewhere than before.
const LOOKS_FOR_MOVED: usize = 16;
/// Broken promises have the tries to themselves for so many rounds, if they stay broken; each begins at the best plan.
const RESCUE_ROUNDS: u64 = 5;
/// Tries of a round.
const RESCUE_TRIES: u64 = 20_000;
/// How many moves such a try may come to add, as the annealing allows cost, and after how many tries in vain. At
/// once it would move much that need not move.
const RESCUE_MOVES: f64 = 6.0;
const RESCUE_WARMS: u64 = 4_000;
/// Tries between two pulls of the whole plan to the left.
const TRIES_PER_SHIFT: u64 = 4096;

/// The best plan met: chains, cost and weight.
#[derive(Clone, Debug)]
pub(crate) struct Best {
    weight: Fen,
    cost: Fen,
    missing: i64,
    moved: i64,
    steps: Vec<Step>,
    kept: Vec<bool>,
}

impl Best {
    fn of(state: &State<'_>) -> Best {
        Best {
            weight: state.weight(),
            cost: state.cost(),
            missing: state.missing(),
            moved: state.moved(),
            steps: state.all_steps().to_vec(),
            kept: state.all_kept().to_vec(),
        }
    }
}

/// The search: a plan under change, the best plan met, and buffers.
pub(crate) struct Search<'a> {
    instance: &'a Instance,
    pub(crate) state: State<'a>,
    placer: Placer,
    random: Random,
    best: Best,
    /// Jobs whose chains differ between `state` and `best`.
    dirty: Vec<u32>,
    is_dirty: Vec<bool>,
    /// Promised jobs that `state` leaves out.
    broken: Vec<u32>,
    /// By machine: the jobs that could use it.
    users: Vec<Vec<u32>>,
    /// By job: the least that it could cost in any plan.
    least: Vec<Fen>,
    /// Slack that stands for one on the scale of [`HOT`] and [`COLD`].
    unit: f64,
    removed: Vec<u32>,
    waiting: Vec<(i64, u32)>,
    found_by: &'static str,
    pub(crate) tries: u64,
    /// The try that mended a broken promise last.
    mended_at: u64,
}

impl<'a> Search<'a> {
    pub(crate) fn new(state: State<'a>, seed: u64) -> Search<'a> {
        let instance = state.instance;
        let mut users = vec![Vec::new(); instance.shop.machines.len()];
        for (j, job) in instance.jobs.iter().enumerate() {
            for mode in job.ops.iter().flat_map(|op| &op.modes) {
                if users[mode.machine].last() != Some(&(j as u32)) {
                    users[mode.machine].push(j as u32);
                }
            }
        }
        let least: Vec<Fen> = instance.jobs.iter().map(least_cost).collect();
        let mean = least.iter().map(|&c| c as f64).sum::<f64>() / least.len().max(1) as f64;
        let jobs = instance.jobs.len();
        let best = Best::of(&state);
        let mut search = Search {
            instance,
            state,
            placer: Placer::blinking(seed),
            random: Random::new(seed),
            best,
            dirty: Vec::new(),
            is_dirty: vec![false; jobs],
            broken: Vec::new(),
            users,
            least,
            unit: mean.max(1.0),
            removed: Vec::new(),
            waiting: Vec::new(),
            found_by: "search",
            tries: 0,
            mended_at: 0,
        };
        search.look_for_broken();
        search
    }

    fn look_for_broken(&mut self) {
        if self.state.missing() == 0 && self.broken.is_empty() {
            return;
        }
        let (state, jobs) = (&self.state, &self.instance.jobs);
        let is_broken = |j: &u32| jobs[*j as usize].rejection_cost.is_none() && !state.keeps(*j as usize);
        self.broken.clear();
        self.broken.extend((0..jobs.len() as u32).filter(is_broken));
    }

    /// One try; `progress` runs from 0 to 1 over the whole search. True where the best plan improved.
    pub(crate) fn attempt(&mut self, progress: f64) -> bool {
        if self.instance.jobs.is_empty() {
            return false;
        }
        self.tries += 1;
        if !self.broken.is_empty() && (self.tries - self.mended_at).is_multiple_of(RESCUE_TRIES) {
            self.return_to_best();
        }
        self.state.mark();
        if self.tries.is_multiple_of(TRIES_PER_SHIFT) && !self.state.is_anchored() {
            self.state.shift_left();
            return self.accept();
        }
        let before = self.state.weight();
        let heat = self.unit * HOT * (COLD / HOT).powf(progress.clamp(0.0, 1.0));
        let mut slack = -heat * self.random.share().max(1e-12).ln();
        if let Some(moves) = self.rescue() {
            slack -= moves * self.state.stay_weight() as f64 * self.random.share().max(1e-12).ln();
        }
        let threshold = before + slack as Fen;
        self.removed.clear();
        let done = self.ruin() && self.recreate(threshold, heat);
        if !done || self.state.weight() >= threshold.max(before + 1) {
            self.state.undo();
            return false;
        }
        self.accept()
    }

    fn accept(&mut self) -> bool {
        self.look_for_broken();
        for job in self.state.touched() {
            if !std::mem::replace(&mut self.is_dirty[job as usize], true) {
                self.dirty.push(job);
            }
        }
        if self.state.weight() >= self.best.weight {
            return false;
        }
        if self.state.missing() < self.best.missing {
            self.mended_at = self.tries;
        }
        self.best.weight = self.state.weight();
        self.best.cost = self.state.cost();
        self.best.missing = self.state.missing();
        self.best.moved = self.state.moved();
        for &job in &self.dirty {
            let j = job as usize;
            self.is_dirty[j] = false;
            self.best.kept[j] = self.state.keeps(j);
            let (from, to) = self.state.flat_range(j);
            self.best.steps[from..to].copy_from_slice(self.state.steps_of(j));
        }
        self.dirty.clear();
        self.found_by = "search";
        true
    }

    /// Goes on from the best plan.
    pub(crate) fn return_to_best(&mut self) {
        self.state = self.best_state();
        self.dirty.clear();
        self.is_dirty.fill(false);
        self.look_for_broken();
    }

    /// What the best plan costs.
    pub(crate) fn best_cost(&self) -> Fen {
        self.best.cost
    }

    /// Promised jobs that the best plan leaves out.
    pub(crate) fn best_missing(&self) -> usize {
        self.best.missing as usize
    }

    /// Operations that the best plan has elsewhere than the incumbent.
    pub(crate) fn best_moved(&self) -> usize {
        self.best.moved as usize
    }

    /// The best plan itself.
    pub(crate) fn best_plan(&self) -> Plan {
        self.state.plan_of(&self.best.steps, &self.best.kept)
    }

    /// What found the best plan.
    pub(crate) fn found_by(&self) -> &'static str {
        self.found_by
    }

    pub(crate) fn best_weight(&self) -> Fen {
        self.best.weight
    }

    /// The best plan's chains.
    pub(crate) fn best_chains(&self) -> Vec<Option<Vec<Fixed>>> {
        let chain = |j: usize| {
            let (from, to) = self.state.flat_range(j);
            let place = |s: &Step| Fixed { machine: s.machine, start: s.start };
            self.best.kept[j].then(|| self.best.steps[from..to].iter().map(place).collect())
        };
        (0..self.instance.jobs.len()).map(chain).collect()
    }

    /// Goes on from other chains, mended where they do not hold, if they make a better plan than the
    /// best so far. Given up where it is told to `stop`.
    pub(crate) fn adopt(
        &mut self,
        chains: Vec<Option<Vec<Fixed>>>,
        found_by: &'static str,
        stop: &dyn Fn() -> bool,
    ) -> bool {
        let timed = State::retimed(self.instance, chains);
        if stop() {
            return false;
        }
        let mut state = State::load(self.instance, timed);
        state.anchor_like(&self.state);
        insert_all(&mut state, &mut Placer::default(), &insertion_order(self.instance), stop);
        if stop() {
            return false;
        }
        if !state.is_anchored() {
            state.shift_left();
        }
        if state.weight() >= self.best.weight {
            return false;
        }
        self.best = Best::of(&state);
        self.state = state;
        self.dirty.clear();
        self.is_dirty.fill(false);
        self.look_for_broken();
        self.found_by = found_by;
        true
    }

    /// Takes the master's chains into the best plan: the jobs it decided on stand as it says, all
    /// others as they stood, and what then does not hold is mended.
    pub(crate) fn merge(&mut self, decided: Vec<Decision>, stop: &dyn Fn() -> bool) -> bool {
        let mut chains = self.best_chains();
        for (j, chain) in decided {
            chains[j] = chain;
        }
        self.adopt(chains, "master", stop)
    }

    /// The best plan as a state of its own.
    pub(crate) fn best_state(&self) -> State<'a> {
        let mut best = State::load(self.instance, self.best_chains());
        best.anchor_like(&self.state);
        best
    }

    /// While promises are broken and have the tries to themselves: the moves that a try may add.
    fn rescue(&self) -> Option<f64> {
        let vain = self.tries - self.mended_at;
        let rescues = !self.broken.is_empty() && vain < RESCUE_ROUNDS * RESCUE_TRIES;
        rescues.then(|| RESCUE_MOVES * ((vain % RESCUE_TRIES) as f64 / RESCUE_WARMS as f64).min(1.0))
    }

    /// Whom a try is about: a promise that is broken, while there is one, but not for ever; else anybody,
    /// and where moves weigh, somebody who has moved rather.
    fn focus(&mut self) -> usize {
        if !self.broken.is_empty() && (self.rescue().is_some() || self.random.chance(0.5)) {
            return self.broken[self.random.below(self.broken.len())] as usize;
        }
        let looks = if self.state.is_anchored() { LOOKS_FOR_MOVED } else { 1 };
        let mut job = 0;
        for _ in 0..looks {
            job = self.random.below(self.instance.jobs.len());
            if self.state.has_moved(job) {
                break;
            }
        }
        job
    }

    /// Takes out a string of jobs around a random one. False where frozen work forbids it.
    fn ruin(&mut self) -> bool {
        let focus = self.focus();
        self.waiting.clear();
        let ops = self.instance.jobs[focus].ops.len();
        if self.state.has_moved(focus) && self.random.chance(0.3) {
            return self.ruin_homewards(focus);
        }
        let mut at = [None; STRINGS_MAX];
        let strings = if self.random.chance(0.3) { STRINGS_MAX } else { 1 };
        for at in &mut at[..strings] {
            *at = Some(if self.state.keeps(focus) {
                let step = self.state.steps_of(focus)[self.random.below(ops)];
                (step.machine, step.start)
            } else {
                self.wish(focus)
            });
        }
        if self.state.keeps(focus) && !self.state.remove(focus, &mut self.removed) {
            return false;
        }
        for (machine, start) in at.into_iter().flatten() {
            if !self.ruin_string(machine, start) {
                return false;
            }
            self.invite(machine);
        }
        if self.removed.first() != Some(&(focus as u32)) {
            self.removed.push(focus as u32);
        }
        true
    }

    /// Takes out a job that stands elsewhere than before, and who stands where it stood, and so on.
    fn ruin_homewards(&mut self, focus: usize) -> bool {
        if !self.state.remove(focus, &mut self.removed) {
            return false;
        }
        let (mut next, most) = (0, 1 + self.random.below(HOMEWARDS_MAX));
        while next < self.removed.len() && self.removed.len() < most {
            let job = self.removed[next] as usize;
            for op in 0..self.instance.jobs[job].ops.len() {
                let Some(home) = self.state.home(job, op) else { continue };
                while let Some(other) = self.state.lines.first_within(home)
                    && self.removed.len() < most
                {
                    if !self.state.remove(other.key.job as usize, &mut self.removed) {
                        return false;
                    }
                }
            }
            next += 1;
        }
        true
    }

    /// A machine and a time that a rejected job would like.
    fn wish(&mut self, job: usize) -> (usize, Tick) {
        let spec = &self.instance.jobs[job];
        let op = &spec.ops[self.random.below(spec.ops.len())];
        let mode = &op.modes[self.random.below(op.modes.len())];
        // A promise is kept late rather than not at all.
        let until = match spec.rejection_cost {
            None => spec.deadline.unwrap_or(self.instance.horizon),
            Some(_) => spec.due,
        };
        let span = (until - spec.release).max(1) as usize;
        (mode.machine, spec.release + self.random.below(span) as Tick)
    }

    fn ruin_string(&mut self, machine: usize, start: Tick) -> bool {
        let line = self.state.lines.on(machine);
        if line.is_empty() {
            return true;
        }
        let length = self.random.below(STRING_MAX) + 1;
        let at = line.partition_point(|o| o.start < start);
        let first = at.saturating_sub(self.random.below(length + 1));
        let last = (first + length).min(line.len());
        let mut jobs = [u32::MAX; STRING_MAX];
        for (slot, o) in jobs.iter_mut().zip(&line[first.min(last)..last]) {
            *slot = o.key.job;
        }
        for job in jobs.into_iter().filter(|&job| job != u32::MAX) {
            let j = job as usize;
            if self.state.keeps(j) && !self.state.is_frozen(j) && !self.state.remove(j, &mut self.removed) {
                return false;
            }
        }
        true
    }

    /// Lets a rejected job or two that could use the machine try for the room.
    fn invite(&mut self, machine: usize) {
        for _ in 0..2 {
            let users = &self.users[machine];
            if users.is_empty() {
                return;
            }
            let job = users[self.random.below(users.len())];
            if !self.state.keeps(job as usize) && !self.removed.contains(&job) {
                self.removed.push(job);
            }
        }
    }

    /// Puts what is out back in, in one of a few orders. False as soon as the plan cannot come in
    /// under the threshold any more.
    fn recreate(&mut self, threshold: Fen, heat: f64) -> bool {
        let order = self.random.below(5);
        let promises_first = self.rescue().is_some();
        for i in 0..self.removed.len() {
            let job = self.removed[i];
            let spec = &self.instance.jobs[job as usize];
            let rank = match order {
                _ if promises_first && self.broken.contains(&job) => i64::MIN,
                0 => spec.due,
                1 => spec.release,
                2 => -(spec.tardiness_weight),
                3 => self.least[job as usize] - self.state.absence(job as usize),
                _ => self.random.below(1 << 30) as i64,
            };
            self.waiting.push((rank, job));
        }
        self.waiting.sort_unstable();
        self.waiting.dedup_by_key(|w| w.1);
        let mut hope: Fen = self.waiting.iter().map(|w| self.gain(w.1)).sum();
        for i in 0..self.waiting.len() {
            let job = self.waiting[i].1;
            hope -= self.gain(job);
            if self.state.keeps(job as usize) {
                continue;
            }
            let absence = self.state.absence(job as usize);
            let allowed = threshold - self.state.weight() + absence + hope;
            let noise = (-heat * self.random.share().max(1e-12).ln()) as Fen;
            let limit = allowed.min(absence.saturating_add(noise));
            if limit > 0 {
                self.state.insert_best(&mut self.placer, job as usize, limit);
            }
            if self.state.weight() - hope >= threshold {
                return false;
            }
        }
        true
    }

    /// The most that putting a job in could gain.
    fn gain(&self, job: u32) -> Fen {
        (self.state.absence(job as usize) - self.least[job as usize]).max(0)
    }
}

/// The least a job costs in any plan: its cheapest modes.
fn least_cost(job: &crate::Job) -> Fen {
    job.ops.iter().map(|op| op.modes.iter().map(|mode| mode.cost).min().unwrap_or(0)).sum()
}
