//! A plan under change: the lines, each job's steps, and the exact cost, kept by increments.
//!
//! Every change is journalled, so that a try that does not please is undone by walking back. The
//! placer judges a chain with everything else standing still; here the change is carried out, with
//! what it does to followers, and priced to the fen.

use crate::completions::Completions;
use crate::place::{Placer, Query};
use crate::resource::{Span, Usage};
use crate::way::Standing;
use crate::{Assignment, Cost, Fen, Fixed, Instance, Lines, Occupation, Plan, Step, Tick};

/// Moves that a promise is worth: more than a try makes.
const PROMISE_IN_MOVES: i64 = 1 << 10;
/// The most that a move may weigh; with this many and as many broken promises as there may be, no sum overflows.
const STAY_WEIGHT_MAX: Fen = 1 << 30;

#[derive(Clone, Copy, Debug)]
enum Undo {
    Inserted { machine: u32, at: u32 },
    Removed { machine: u32, at: u32, was: Occupation },
    Changed { machine: u32, at: u32, was: Occupation },
    Step { job: u32, flat: u32, was: Step },
    Kept { job: u32, was: bool },
}

/// A job's places, one an operation; `None` for a job that is left out.
pub(crate) type Chain = Option<Vec<Fixed>>;

/// A job that does not go where it is laid: a machine is closed for it, or another's work is in its way.
struct Clash {
    machine: usize,
    late: Laid,
    early: Option<Laid>,
}

#[derive(Clone, Copy)]
struct Laid {
    job: usize,
    fixed: bool,
}

impl Laid {
    fn of(o: &Occupation) -> Laid {
        Laid { job: o.key.job as usize, fixed: o.fixed }
    }
}

/// A plan under change.
#[derive(Clone, Debug)]
pub(crate) struct State<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) lines: Lines,
    /// First flat index of each job's operations.
    base: Vec<u32>,
    steps: Vec<Step>,
    kept: Vec<bool>,
    /// Modes, setups, transport, tardiness and rejections, as the format prices them.
    cost: Fen,
    /// When the kept jobs end, where the makespan counts.
    ends: Completions,
    /// Promised jobs that are not in the plan.
    missing: i64,
    /// What a missing promised job weighs in a comparison: more than anything it could cost.
    missing_weight: Fen,
    stays: Vec<Option<Fixed>>,
    stay_weight: Fen,
    moved: i64,
    journal: Vec<Undo>,
    at_mark: (Fen, i64, i64),
    cascade: Vec<u32>,
    /// What makes way, while it does.
    moving: Vec<Occupation>,
}

impl<'a> State<'a> {
    /// Every job rejected.
    pub(crate) fn empty(instance: &'a Instance) -> State<'a> {
        let mut base = Vec::with_capacity(instance.jobs.len() + 1);
        let mut flat = 0u32;
        for job in &instance.jobs {
            base.push(flat);
            flat += job.ops.len() as u32;
        }
        base.push(flat);
        let missing = instance.jobs.iter().filter(|job| job.rejection_cost.is_none()).count() as i64;
        State {
            instance,
            lines: Lines::new(&instance.shop),
            base,
            steps: vec![Step::default(); flat as usize],
            kept: vec![false; instance.jobs.len()],
            cost: instance.jobs.iter().filter_map(|job| job.rejection_cost).sum(),
            ends: Completions::new(if instance.objective.makespan > 0 { instance.jobs.len() } else { 0 }),
            missing,
            // Looking for the dearest job takes long in a large instance, and is of no use where none is promised.
            missing_weight: if missing > 0 { 2 * instance.dearest_job() as Fen + 1 } else { 0 },
            stays: Vec::new(),
            stay_weight: 0,
            moved: 0,
            journal: Vec::new(),
            at_mark: (0, 0, 0),
            cascade: Vec::new(),
            moving: Vec::new(),
        }
    }

    /// What holds of the chains given, each operation where it says: setups and ends are computed
    /// anew, and a job that breaks a rule, or stands in the way of frozen work, is left out.
    pub(crate) fn load(instance: &'a Instance, mut chains: Vec<Chain>) -> State<'a> {
        loop {
            let mut state = State::empty(instance);
            let clashes = state.lay(&chains);
            let mut offenders: Vec<usize> = clashes
                .iter()
                .map(|clash| match clash.early {
                    Some(early) if clash.late.fixed && !early.fixed => early.job,
                    _ => clash.late.job,
                })
                .collect();
            offenders.extend(state.broken_chains(&chains));
            if offenders.is_empty() {
                state.admit_all(&chains);
                return state;
            }
            offenders.into_iter().for_each(|j| chains[j] = None);
        }
    }

    /// As much of the chains `wanted` as goes with what else `stands`, which holds as a whole: what is in the
    /// way, or breaks a rule, stays where it stands.
    pub(crate) fn fitted(instance: &'a Instance, stands: &[Chain], mut wanted: Vec<Chain>) -> State<'a> {
        let mut moved: Vec<usize> = (0..stands.len()).filter(|&j| wanted[j] != stands[j]).collect();
        while !moved.is_empty() {
            let mut state = State::empty(instance);
            let clashes = state.lay(&wanted);
            let broken: Vec<usize> = state.broken_chains(&wanted).collect();
            if clashes.is_empty() && broken.is_empty() {
                state.admit_all(&wanted);
                return state;
            }
            let is_moved = |j: &usize| moved.binary_search(j).is_ok();
            let in_the_way = clashes.iter().filter_map(|clash| {
                [Some(clash.late), clash.early].into_iter().flatten().map(|laid| laid.job).find(is_moved)
            });
            let mut back: Vec<usize> = in_the_way.chain(broken.iter().copied().filter(is_moved)).collect();
            if back.is_empty() {
                // A changeover hurts what stands: it has another neighbour now, or lacks the one it had.
                let hurt = clashes
                    .iter()
                    .map(|clash| clash.machine)
                    .chain(broken.iter().flat_map(|&j| stands[j].iter().flatten().map(|at| at.machine)));
                let hurt: Vec<usize> = hurt.collect();
                let touches = |chain: &Chain| chain.iter().flatten().any(|at| hurt.contains(&at.machine));
                back.extend(moved.iter().copied().filter(|&j| touches(&wanted[j]) || touches(&stands[j])));
            }
            if back.is_empty() {
                break;
            }
            back.iter().for_each(|&j| wanted[j].clone_from(&stands[j]));
            moved.retain(|j| !back.contains(j));
        }
        State::load(instance, stands.to_vec())
    }

    /// The jobs whose steps, as they lie, break their own rules.
    fn broken_chains<'c>(&'c self, chains: &'c [Chain]) -> impl Iterator<Item = usize> + 'c {
        (0..chains.len()).filter(|&j| chains[j].is_some() && !self.chain_holds(j))
    }

    fn admit_all(&mut self, chains: &[Chain]) {
        (0..chains.len()).filter(|&j| chains[j].is_some()).for_each(|j| self.admit(j));
        self.journal.clear();
    }

    /// The chains in the order of their starts on each machine, every operation as early as that order
    /// allows. Jobs that then miss a deadline or run out of open time are left out.
    pub(crate) fn retimed(instance: &Instance, mut chains: Vec<Chain>) -> Vec<Chain> {
        loop {
            let mut order: Vec<(Tick, usize, usize)> = Vec::new();
            for (j, chain) in chains.iter().enumerate() {
                order.extend(chain.iter().flatten().enumerate().map(|(k, at)| (at.start, j, k)));
            }
            order.sort_unstable();
            let mut timed = chains.clone();
            let mut ends: Vec<(Tick, usize)> = vec![(0, 0); instance.jobs.len()];
            let mut lasts: Vec<(Tick, Option<usize>)> = vec![(0, None); instance.shop.machines.len()];
            let mut usage = Usage::new(&instance.shop);
            let mut offenders = Vec::new();
            for (was, j, k) in order {
                let Some(at) = timed[j].as_mut().map(|chain| &mut chain[k]) else { continue };
                let before = (k > 0).then_some(ends[j]);
                let last = lasts[at.machine];
                match first_span(instance, &mut usage, (j, k), at.machine, before, last, was) {
                    Some((start, end)) => {
                        at.start = start;
                        ends[j] = (end, instance.shop.machines[at.machine].plant);
                        lasts[at.machine] = (end, Some(instance.jobs[j].ops[k].family));
                    }
                    None => offenders.push(j),
                }
            }
            if offenders.is_empty() {
                return timed;
            }
            offenders.into_iter().for_each(|j| chains[j] = None);
        }
    }

    /// Puts raw occupations on the lines and computes their setups and ends. Returns those that overlap
    /// another, or for which a machine is closed.
    fn lay(&mut self, chains: &[Chain]) -> Vec<Clash> {
        let mut clashes = Vec::new();
        for (j, chain) in chains.iter().enumerate() {
            for (k, at) in chain.iter().flatten().enumerate() {
                let a = Assignment { job: j, op: k, machine: at.machine, start: at.start, end: at.start };
                let occupation = crate::lines::raw_occupation(&self.instance.jobs[j], &a);
                self.lines.unheld_mut(at.machine).push(occupation);
            }
        }
        for m in 0..self.lines.machines() {
            self.lines.unheld_mut(m).sort_by_key(|o| (o.start, !o.fixed, o.key));
            for at in 0..self.lines.on(m).len() {
                let Ok(o) = self.lines.refreshed(&self.instance.shop, m, at) else {
                    let late = Laid::of(&self.lines.on(m)[at]);
                    clashes.push(Clash { machine: m, late, early: None });
                    continue;
                };
                self.lines.unheld_mut(m)[at] = o;
                let flat = self.base[o.key.job as usize] + o.key.op;
                self.steps[flat as usize] = Step { machine: m, start: o.start, end: o.end, setup: o.setup };
                let before = at.checked_sub(1).map(|i| self.lines.on(m)[i]);
                if let Some(before) = before.filter(|before| before.end > o.start) {
                    let (late, early) = (Laid::of(&o), Some(Laid::of(&before)));
                    clashes.push(Clash { machine: m, late, early });
                }
            }
        }
        self.lay_needs(&mut clashes);
        clashes
    }

    /// Has what is laid take its resources, frozen work first, then by start; tells of what finds none.
    fn lay_needs(&mut self, clashes: &mut Vec<Clash>) {
        if self.instance.shop.resources.is_empty() {
            return;
        }
        let mut order: Vec<(bool, Tick, usize, usize)> = Vec::new();
        for m in 0..self.lines.machines() {
            let line = self.lines.on(m).iter().enumerate().filter(|(_, o)| o.needs != 0);
            order.extend(line.map(|(at, o)| (!o.fixed, o.start, m, at)));
        }
        order.sort_unstable();
        for (_, _, m, at) in order {
            if self.lines.hold_if_free(&self.instance.shop, m, at).is_err() {
                let late = Laid::of(&self.lines.on(m)[at]);
                clashes.push(Clash { machine: m, late, early: None });
            }
        }
    }

    /// Whether a job's steps keep the job's own rules.
    fn chain_holds(&self, j: usize) -> bool {
        let (job, shop) = (&self.instance.jobs[j], &self.instance.shop);
        let (mut at, mut ready, mut charge) = (job.origin, job.release, 0);
        for (op, step) in job.ops.iter().zip(self.steps_of(j)) {
            let there = shop.machines[step.machine].plant;
            if let Some(here) = at {
                ready += shop.transport[here][there];
                charge += shop.trip_charge(here, there);
            }
            let Some(mode) = op.mode_on(step.machine) else { return false };
            let moved = op.fixed.is_some_and(|f| (f.machine, f.start) != (step.machine, step.start));
            if moved || step.start < ready.max(mode.earliest) {
                return false;
            }
            charge += mode.charge;
            (at, ready) = (Some(there), step.end);
        }
        job.deadline.is_none_or(|d| ready <= d) && job.budget.is_none_or(|budget| charge <= budget)
    }

    /// Counts a job in whose steps are on the lines already.
    fn admit(&mut self, job: usize) {
        for k in 0..self.instance.jobs[job].ops.len() {
            let step = self.steps_of(job)[k];
            let mode = self.instance.jobs[job].ops[k].mode_on(step.machine).map_or(0, |mode| mode.cost);
            self.cost += mode + step.setup * self.instance.shop.machines[step.machine].setup_cost_per_tick;
        }
        self.keep(job);
    }

    /// Sets where operations stood, and what moving each weighs in [`State::weight`].
    pub(crate) fn anchor(&mut self, incumbent: &Plan, weight: Fen) {
        self.stays = vec![None; self.steps.len()];
        self.weigh_moves(weight);
        for a in &incumbent.assignments {
            let known = self.instance.jobs.get(a.job).is_some_and(|job| a.op < job.ops.len());
            if !known {
                continue;
            }
            let flat = self.base[a.job] as usize + a.op;
            self.stays[flat] = Some(Fixed { machine: a.machine, start: a.start });
        }
        self.count_all_moves();
    }

    /// Weighs moves as another state of the same instance does.
    pub(crate) fn anchor_like(&mut self, other: &State<'_>) {
        self.stays.clone_from(&other.stays);
        self.weigh_moves(other.stay_weight);
        self.count_all_moves();
    }

    /// A broken promise weighs more than whatever a try may move, so that none is broken for the sake of stability.
    fn weigh_moves(&mut self, weight: Fen) {
        let weight = weight.clamp(0, STAY_WEIGHT_MAX);
        if self.missing_weight > 0 {
            self.missing_weight += PROMISE_IN_MOVES * (weight - self.stay_weight);
        }
        self.stay_weight = weight;
    }

    fn count_all_moves(&mut self) {
        self.moved = 0;
        for j in 0..self.kept.len() {
            for flat in self.base[j]..self.base[j + 1] {
                let had_place = self.stays.get(flat as usize).is_some_and(Option::is_some);
                self.moved += if self.kept[j] { self.is_moved(flat) } else { i64::from(had_place) };
            }
        }
    }

    pub(crate) fn cost(&self) -> Fen {
        self.cost + self.instance.objective.makespan * self.ends.latest()
    }

    pub(crate) fn missing(&self) -> i64 {
        self.missing
    }

    /// Whether an operation of a job stands elsewhere than before, where that matters.
    pub(crate) fn has_moved(&self, job: usize) -> bool {
        let is_moved = |flat| self.is_moved(flat) != 0;
        self.is_anchored() && self.kept[job] && (self.base[job]..self.base[job + 1]).any(is_moved)
    }

    /// Machine, start and end of where an operation stood before, but for its changeover.
    pub(crate) fn home(&self, job: usize, op: usize) -> Option<(usize, Tick, Tick)> {
        let stay = self.stays.get(self.base[job] as usize + op).copied().flatten()?;
        let op = &self.instance.jobs[job].ops[op];
        let calendar = &self.instance.shop.machines[stay.machine].calendar;
        let end = calendar.finish(stay.start, op.mode_on(stay.machine)?.duration, op.splittable)?;
        Some((stay.machine, stay.start, end))
    }

    /// What a moved operation weighs.
    pub(crate) fn stay_weight(&self) -> Fen {
        self.stay_weight
    }

    pub(crate) fn moved(&self) -> i64 {
        self.moved
    }

    /// What the search minimises: cost, broken promises far above it, and moves.
    pub(crate) fn weight(&self) -> Fen {
        self.cost() + self.missing * self.missing_weight + self.moved * self.stay_weight
    }

    pub(crate) fn keeps(&self, job: usize) -> bool {
        self.kept[job]
    }

    pub(crate) fn steps_of(&self, job: usize) -> &[Step] {
        &self.steps[self.base[job] as usize..self.base[job + 1] as usize]
    }

    pub(crate) fn plan(&self) -> Plan {
        self.plan_of(&self.steps, &self.kept)
    }

    /// The plan that has these steps of the jobs kept.
    pub(crate) fn plan_of(&self, steps: &[Step], kept: &[bool]) -> Plan {
        let mut plan = Plan::default();
        for (j, &kept) in kept.iter().enumerate() {
            if !kept {
                plan.rejected.push(j);
                continue;
            }
            let assignment = |(op, s): (usize, &Step)| Assignment {
                job: j,
                op,
                machine: s.machine,
                start: s.start,
                end: s.end,
            };
            let (from, to) = self.flat_range(j);
            plan.assignments.extend(steps[from..to].iter().enumerate().map(assignment));
        }
        plan
    }

    /// From here on changes can be undone.
    pub(crate) fn mark(&mut self) {
        self.journal.clear();
        self.at_mark = (self.cost, self.missing, self.moved);
    }

    /// Back to the mark.
    pub(crate) fn undo(&mut self) {
        while let Some(entry) = self.journal.pop() {
            match entry {
                Undo::Inserted { machine, at } => {
                    self.lines.take(&self.instance.shop, machine as usize, at as usize);
                }
                Undo::Removed { machine, at, was } => {
                    self.lines.put(&self.instance.shop, machine as usize, at as usize, was);
                }
                Undo::Changed { machine, at, was } => {
                    self.lines.write(&self.instance.shop, machine as usize, at as usize, was);
                }
                Undo::Step { job, flat, was } => {
                    self.steps[flat as usize] = was;
                    self.note_end(job as usize);
                }
                Undo::Kept { job, was } => {
                    self.kept[job as usize] = was;
                    self.note_end(job as usize);
                }
            }
        }
        (self.cost, self.missing, self.moved) = self.at_mark;
    }

    /// The jobs changed since the mark, some more than once.
    pub(crate) fn touched(&self) -> impl Iterator<Item = u32> + '_ {
        self.journal.iter().filter_map(|entry| match entry {
            Undo::Step { job, .. } | Undo::Kept { job, .. } => Some(*job),
            _ => None,
        })
    }

    pub(crate) fn all_steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn all_kept(&self) -> &[bool] {
        &self.kept
    }

    /// Where a job's operations stand among all.
    pub(crate) fn flat_range(&self, job: usize) -> (usize, usize) {
        (self.base[job] as usize, self.base[job + 1] as usize)
    }

    /// Whether moves against an incumbent are weighed.
    pub(crate) fn is_anchored(&self) -> bool {
        self.stay_weight > 0 && !self.stays.is_empty()
    }

    /// What leaving the job out weighs.
    pub(crate) fn absence(&self, job: usize) -> Fen {
        self.instance.jobs[job].rejection_cost.unwrap_or(self.missing_weight)
    }

    /// Puts a job where it adds least, if that is less than `limit`. Returns whether the job is in.
    pub(crate) fn insert_best(&mut self, placer: &mut Placer, job: usize, limit: Fen) -> bool {
        self.find(placer, job, limit);
        let label = placer.cheapest();
        if let Some(label) = label {
            self.insert(placer, job, label);
        }
        label.is_some()
    }

    /// Runs the placer for a job, for placements that weigh less than `limit`.
    pub(crate) fn find(&self, placer: &mut Placer, job: usize, limit: Fen) {
        let (from, to) = (self.base[job] as usize, self.base[job + 1] as usize);
        let stay = self.is_anchored().then(|| (&self.stays[from..to], self.stay_weight));
        let instance = &self.instance;
        placer.search(&Query {
            limit,
            stay,
            makespan: (instance.objective.makespan, self.ends.latest()),
            standing: (instance.objective.makespan == 0).then(|| self.standing()),
            ..Query::new(&instance.shop, &self.lines, &instance.jobs[job], Cost::Plan)
        });
    }

    /// Carries out a placement that the placer has just found.
    pub(crate) fn insert(&mut self, placer: &Placer, job: usize, label: u32) {
        let mut k = self.instance.jobs[job].ops.len();
        for step in placer.steps_reversed(label) {
            k -= 1;
            self.insert_step(job, k, step);
        }
        self.keep(job);
        // The job's own operations first have their final neighbours now; then whoever follows them.
        for k in 0..self.instance.jobs[job].ops.len() {
            let step = self.steps[self.base[job] as usize + k];
            let at = self.position(step.machine, step.start, job, k);
            let next = self.lines.on(step.machine).get(at + 1).copied();
            if next.is_some_and(|next| next.key.job != job as u32) {
                let family = self.instance.jobs[job].ops[k].family;
                self.make_way(step.machine, at + 1, family, step.end);
            }
        }
    }

    /// Moves the occupations from a position on to stand behind one of `family` that ends at `end`.
    fn make_way(&mut self, machine: usize, at: usize, family: usize, end: Tick) {
        let mut moved = std::mem::take(&mut self.moving);
        let way = self.standing().make_way(machine, at, family, end, |o| moved.push(o));
        debug_assert!(way.is_some(), "the placer has seen to it");
        let rate = self.instance.shop.machines[machine].setup_cost_per_tick;
        for (at, o) in (at..).zip(moved.drain(..)) {
            self.cost += (o.setup - self.lines.on(machine)[at].setup) * rate;
            self.change(machine, at, o);
        }
        self.moving = moved;
    }

    fn standing(&self) -> Standing<'_> {
        let stay = self.is_anchored().then_some((&*self.stays, self.stay_weight));
        Standing { instance: self.instance, lines: &self.lines, base: &self.base, steps: &self.steps, stay }
    }

    fn insert_step(&mut self, job: usize, k: usize, step: Step) {
        let op = &self.instance.jobs[job].ops[k];
        let mode = op.mode_on(step.machine).map_or((0, 0), |mode| (mode.duration, mode.cost));
        let occupation = Occupation {
            start: step.start,
            end: step.end,
            setup: step.setup,
            work: mode.0,
            family: op.family as u32,
            key: crate::Key { job: job as u32, op: k as u32 },
            splittable: op.splittable,
            fixed: op.fixed.is_some(),
            needs: op.needs as u32,
        };
        let at = self.lines.on(step.machine).partition_point(|o| o.start < step.start);
        self.lines.put(&self.instance.shop, step.machine, at, occupation);
        self.journal.push(Undo::Inserted { machine: step.machine as u32, at: at as u32 });
        self.set_step(job, self.base[job] + k as u32, step);
        self.cost += mode.1 + step.setup * self.instance.shop.machines[step.machine].setup_cost_per_tick;
    }

    fn keep(&mut self, job: usize) {
        self.journal.push(Undo::Kept { job: job as u32, was: false });
        self.kept[job] = true;
        self.note_end(job);
        self.count_absence(job, -1);
        self.cost += self.chain_cost(job);
        self.count_moves(job, 1);
    }

    /// Brings a job's end up to date, where ends count.
    fn note_end(&mut self, job: usize) {
        if self.instance.objective.makespan > 0 {
            let end = self.steps_of(job).last().map_or(0, |step| step.end);
            self.ends.set(job, if self.kept[job] { end } else { 0 });
        }
    }

    fn count_absence(&mut self, job: usize, sign: i64) {
        match self.instance.jobs[job].rejection_cost {
            Some(cost) => self.cost += sign * cost,
            None => self.missing += sign,
        }
    }

    fn count_moves(&mut self, job: usize, sign: i64) {
        if !self.stays.is_empty() {
            // An absent job's operations count as moved already.
            let stayed: i64 = (self.base[job]..self.base[job + 1])
                .map(|flat| i64::from(self.stays[flat as usize].is_some()) - self.is_moved(flat))
                .sum();
            self.moved -= sign * stayed;
        }
    }

    fn is_moved(&self, flat: u32) -> i64 {
        let step = &self.steps[flat as usize];
        let stay = self.stays.get(flat as usize).copied().flatten();
        i64::from(stay.is_some_and(|s| (s.machine, s.start) != (step.machine, step.start)))
    }

    /// A kept job's transport and tardiness.
    fn chain_cost(&self, job: usize) -> Fen {
        let spec = &self.instance.jobs[job];
        let shop = &self.instance.shop;
        let mut at = spec.origin;
        let mut cost = 0;
        let mut end = 0;
        for step in self.steps_of(job) {
            let there = shop.machines[step.machine].plant;
            cost += at.map_or(0, |here| shop.transport_cost[here][there]);
            (at, end) = (Some(there), step.end);
        }
        cost + spec.tardiness(end)
    }

    /// What a kept job's chain costs where it stands, its setups included.
    pub(crate) fn column_cost(&self, job: usize) -> Fen {
        let ops = self.instance.jobs[job].ops.iter().zip(self.steps_of(job));
        let step = |(op, step): (&crate::Op, &Step)| {
            let mode = op.mode_on(step.machine).map_or(0, |mode| mode.cost);
            mode + step.setup * self.instance.shop.machines[step.machine].setup_cost_per_tick
        };
        self.chain_cost(job) + ops.map(step).sum::<Fen>()
    }

    fn set_step(&mut self, job: usize, flat: u32, step: Step) {
        self.journal.push(Undo::Step { job: job as u32, flat, was: self.steps[flat as usize] });
        self.steps[flat as usize] = step;
    }

    fn position(&self, machine: usize, start: Tick, job: usize, op: usize) -> usize {
        let line = self.lines.on(machine);
        let at = line.partition_point(|o| o.start < start);
        debug_assert!(line[at].key == crate::Key { job: job as u32, op: op as u32 }, "steps and lines agree");
        at
    }

    /// Takes a job out, and with it whatever cannot stand without it. False where frozen work stands
    /// in the way: the caller must undo.
    pub(crate) fn remove(&mut self, job: usize, removed: &mut Vec<u32>) -> bool {
        !(self.keeps(job) && self.is_frozen(job)) && self.lift(job, removed)
    }

    /// The same for a job that may itself be frozen: whoever lifts it knows that it comes back.
    pub(crate) fn lift(&mut self, job: usize, removed: &mut Vec<u32>) -> bool {
        self.cascade.clear();
        self.cascade.push(job as u32);
        while let Some(next) = self.cascade.pop() {
            if self.kept[next as usize] {
                if next as usize != job && self.is_frozen(next as usize) {
                    return false;
                }
                removed.push(next);
                self.take_out(next as usize);
            }
        }
        true
    }

    /// Whether an operation of the job is fixed.
    pub(crate) fn is_frozen(&self, job: usize) -> bool {
        self.instance.jobs[job].ops.iter().any(|op| op.fixed.is_some())
    }

    fn take_out(&mut self, job: usize) {
        self.count_moves(job, -1);
        self.cost -= self.chain_cost(job);
        self.count_absence(job, 1);
        self.journal.push(Undo::Kept { job: job as u32, was: true });
        self.kept[job] = false;
        self.note_end(job);
        for k in (0..self.instance.jobs[job].ops.len()).rev() {
            let step = self.steps[self.base[job] as usize + k];
            let at = self.position(step.machine, step.start, job, k);
            let was = self.lines.take(&self.instance.shop, step.machine, at);
            self.journal.push(Undo::Removed { machine: step.machine as u32, at: at as u32, was });
            let mode = self.instance.jobs[job].ops[k]
                .mode_on(step.machine)
                .map_or((0, 0), |mode| (mode.duration, mode.cost));
            self.cost -= mode.1 + was.setup * self.instance.shop.machines[step.machine].setup_cost_per_tick;
            if at < self.lines.on(step.machine).len() && !self.settle_follower(step.machine, at) {
                let follower = self.lines.on(step.machine)[at].key.job;
                self.cascade.push(follower);
            }
        }
    }

    /// Gives the occupation at a position the setup that its predecessor now asks for. Where that is
    /// longer, it begins earlier if it can, or ends later if nothing behind it minds. False where
    /// neither goes: its job must be taken out.
    fn settle_follower(&mut self, machine: usize, at: usize) -> bool {
        let o = self.lines.on(machine)[at];
        let before = at.checked_sub(1).map(|i| self.lines.on(machine)[i]);
        let family = before.map(|b| b.family as usize);
        let setup = self.instance.shop.setup_ticks(machine, family, o.family as usize);
        if setup == o.setup {
            return true;
        }
        if !self.kept[o.key.job as usize] {
            return true;
        }
        // What it holds itself is not in its way.
        self.lines.release(&self.instance.shop, machine, at);
        let span = self.new_span(machine, at, &o, setup);
        self.lines.hold(&self.instance.shop, machine, at);
        let Some((start, end)) = span else { return false };
        let rate = self.instance.shop.machines[machine].setup_cost_per_tick;
        self.cost += (setup - o.setup) * rate;
        self.change(machine, at, Occupation { start, end, setup, ..o });
        true
    }

    /// When the occupation would begin and end with another setup.
    fn new_span(&self, machine: usize, at: usize, o: &Occupation, setup: Tick) -> Option<(Tick, Tick)> {
        let (shop, usage) = (&self.instance.shop, self.lines.usage());
        let span = Occupation { setup, ..*o }.span(machine);
        if !o.fixed && setup > o.setup {
            let earlier = usage.earliest(shop, &span, self.may_start(machine, at), o.end);
            if earlier.is_some() {
                return earlier;
            }
        }
        let end = usage.end_at(shop, &span, o.start)?;
        (end <= self.must_end(machine, at)).then_some((o.start, end))
    }

    /// The earliest that the occupation at a position may begin, its neighbours standing still.
    fn may_start(&self, machine: usize, at: usize) -> Tick {
        let line = self.lines.on(machine);
        let (o, shop) = (&line[at], &self.instance.shop);
        let (j, k) = (o.key.job as usize, o.key.op as usize);
        let job = &self.instance.jobs[j];
        let there = shop.machines[machine].plant;
        let arrival = match k.checked_sub(1) {
            Some(before) => {
                let step = self.steps_of(j)[before];
                step.end + shop.transport[shop.machines[step.machine].plant][there]
            }
            None => job.release + job.origin.map_or(0, |here| shop.transport[here][there]),
        };
        let free = at.checked_sub(1).map_or(0, |i| line[i].end);
        let earliest = job.ops[k].mode_on(machine).map_or(0, |mode| mode.earliest);
        arrival.max(free).max(earliest)
    }

    /// The latest that the occupation at a position may end, its neighbours standing still.
    fn must_end(&self, machine: usize, at: usize) -> Tick {
        let line = self.lines.on(machine);
        let free_until = line.get(at + 1).map_or(Tick::MAX, |o| o.start);
        free_until.min(self.standing().latest_end(machine, &line[at]))
    }

    /// Writes an occupation of a kept job anew, in the same place of the order.
    fn change(&mut self, machine: usize, at: usize, new: Occupation) {
        let was = self.lines.on(machine)[at];
        let (j, k) = (was.key.job as usize, was.key.op as usize);
        self.journal.push(Undo::Changed { machine: machine as u32, at: at as u32, was });
        self.lines.write(&self.instance.shop, machine, at, new);
        let flat = self.base[j] + k as u32;
        let moved = self.is_moved(flat);
        self.set_step(j, flat, Step { machine, start: new.start, end: new.end, setup: new.setup });
        self.moved += self.is_moved(flat) - moved;
        self.note_end(j);
        let job = &self.instance.jobs[j];
        if k + 1 == job.ops.len() {
            self.cost += job.tardiness(new.end) - job.tardiness(was.end);
        }
    }

    /// Moves every occupation to the earliest start its neighbours allow, in order of time. The cost
    /// can only fall.
    pub(crate) fn shift_left(&mut self) {
        let mut order: Vec<(Tick, u32, u32)> = Vec::new();
        for m in 0..self.lines.machines() {
            let starts = self.lines.on(m).iter().enumerate().map(|(at, o)| (o.start, m as u32, at as u32));
            order.extend(starts);
        }
        order.sort_unstable();
        for (_, m, at) in order {
            let (m, at) = (m as usize, at as usize);
            let o = self.lines.on(m)[at];
            let from = self.may_start(m, at);
            if o.fixed || from >= o.start {
                continue;
            }
            let shop = &self.instance.shop;
            self.lines.release(shop, m, at);
            let span = self.lines.usage().earliest(shop, &o.span(m), from, o.end);
            self.lines.hold(shop, m, at);
            if let Some((start, end)) = span.filter(|s| s.0 < o.start) {
                self.change(m, at, Occupation { start, end, ..o });
            }
        }
    }
}

/// The earliest that an operation can run behind the last one on its machine; `was`, where it is
/// frozen. `None` where that is too late. It takes its resources.
fn first_span(
    instance: &Instance,
    usage: &mut Usage,
    (j, k): (usize, usize),
    machine: usize,
    before: Option<(Tick, usize)>,
    last: (Tick, Option<usize>),
    was: Tick,
) -> Option<(Tick, Tick)> {
    let (job, shop) = (&instance.jobs[j], &instance.shop);
    let (op, there) = (&job.ops[k], shop.machines[machine].plant);
    let mode = op.mode_on(machine)?;
    let arrival = match before {
        Some((end, here)) => end + shop.transport[here][there],
        None => job.release + job.origin.map_or(0, |here| shop.transport[here][there]),
    };
    let from = arrival.max(last.0).max(mode.earliest);
    let setup = shop.setup_ticks(machine, last.1, op.family);
    let span = Span { machine, needs: op.needs, setup, work: mode.duration, splittable: op.splittable };
    let latest = if k + 1 == job.ops.len() { job.deadline.unwrap_or(Tick::MAX) } else { Tick::MAX };
    let found = match op.fixed {
        Some(_) => (was, usage.end_at(shop, &span, was).filter(|_| from <= was)?),
        None => usage.earliest(shop, &span, from, latest)?,
    };
    usage.take(shop, &span, found);
    Some(found)
}
