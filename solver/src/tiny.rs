//! Small random shops for the tests: every rule in play, few enough ticks to enumerate.

use crate::random::Random;
use crate::{
    Assignment, Calendar, During, Fen, Instance, Job, Machine, Mode, Need, Objective, Op, Plan, Resource,
    SetupMatrix, Shop, Tick, verify,
};

/// A random instance of `jobs` jobs of up to `ops` operations on up to three machines.
pub(crate) fn instance(seed: u64, jobs: usize, ops: usize, horizon: Tick) -> Instance {
    let mut r = Random::new(seed);
    let plants = 1 + r.below(2);
    let machines = 1 + r.below(3);
    let between = |r: &mut Random, most: usize| -> Vec<Vec<i64>> {
        let entry = |r: &mut Random, a, b| if a == b { 0 } else { r.below(most) as i64 };
        (0..plants).map(|a| (0..plants).map(|b| entry(r, a, b)).collect()).collect()
    };
    let (transport, transport_cost) = (between(&mut r, 4), between(&mut r, 30));
    let families = 3;
    // Not triangular on purpose: an insertion may shorten what follows.
    let mut matrix = || {
        let mut rows = vec![vec![0; families]; families];
        rows.iter_mut().flatten().for_each(|t| *t = [0, 0, 1, 2, 4][r.below(5)]);
        SetupMatrix::new(&rows).unwrap()
    };
    let setups = vec![matrix(), matrix()];
    let machines: Vec<Machine> = (0..machines)
        .map(|i| Machine {
            id: format!("M{i}"),
            class: "mill".into(),
            plant: r.below(plants),
            calendar: calendar(&mut r, horizon),
            setup: r.below(2),
            setup_cost_per_tick: r.below(6) as i64,
            initial_family: r.chance(0.7).then(|| r.below(families)),
            ..Machine::default()
        })
        .collect();
    let shop = Shop {
        plants: (0..plants).map(|p| format!("P{p}")).collect(),
        transport,
        transport_cost,
        setups,
        machines,
        ..Shop::default()
    };
    let jobs = (0..jobs).map(|j| job(&mut r, j, ops, &shop, horizon)).collect();
    let instance = Instance {
        name: format!("tiny-{seed}"),
        tick_seconds: 60,
        horizon,
        objective: Objective::COST,
        shop,
        jobs,
    };
    instance.check().unwrap();
    instance
}

fn calendar(r: &mut Random, horizon: Tick) -> Calendar {
    let mut windows = Vec::new();
    let mut t = r.below(4) as Tick;
    while t + 2 < horizon {
        let close = (t + 3 + r.below(12) as Tick).min(horizon);
        windows.push((t, close));
        t = close + 1 + r.below(4) as Tick;
    }
    Calendar::new(windows).unwrap()
}

fn job(r: &mut Random, j: usize, ops: usize, shop: &Shop, horizon: Tick) -> Job {
    let ops = (0..1 + r.below(ops)).map(|_| op(r, shop)).collect();
    let release = r.below(horizon as usize / 3) as Tick;
    let due = release + r.below(horizon as usize / 2) as Tick;
    Job {
        id: format!("J{j}"),
        release,
        due,
        deadline: r.chance(0.3).then(|| due + 2 + r.below(6) as Tick),
        tardiness_weight: r.below(8) as i64,
        rejection_cost: Some(20 + r.below(150) as i64),
        budget: r.chance(0.3).then(|| 20 + r.below(60) as i64),
        origin: r.chance(0.3).then(|| r.below(shop.plants.len())),
        ops,
        ..Job::default()
    }
}

fn op(r: &mut Random, shop: &Shop) -> Op {
    let mut modes = Vec::new();
    for machine in 0..shop.machines.len() {
        if r.chance(0.7) || (machine + 1 == shop.machines.len() && modes.is_empty()) {
            modes.push(Mode {
                machine,
                duration: 1 + r.below(4) as Tick,
                cost: r.below(30) as i64,
                charge: r.below(30) as i64,
                earliest: if r.chance(0.2) { r.below(8) as Tick } else { 0 },
                ..Mode::default()
            });
        }
    }
    Op { family: r.below(3), splittable: r.chance(0.4), modes, ..Op::default() }
}

/// The same with all else that an instance may have: measures, carbon, machines of two places, and resources that
/// operations share.
pub(crate) fn rich(seed: u64, jobs: usize, ops: usize, horizon: Tick) -> Instance {
    let mut instance = instance(seed, jobs, ops, horizon);
    let r = &mut Random::new(!seed);
    add_resources(&mut instance, r);
    add_carbon(&mut instance, r);
    if r.chance(0.4) {
        double(&mut instance);
    }
    if r.chance(0.6) {
        instance.objective = Objective {
            cost: r.below(3) as i64,
            tardiness: r.below(3) as i64,
            rejection: 1 + r.below(2) as i64,
            makespan: [0, 1, 7][r.below(3)],
            setup: [0, 5][r.below(2)],
            late: [0, 20][r.below(2)],
            carbon: r.below(3) as i64,
        };
    }
    instance.check().unwrap();
    instance
}

fn add_resources(instance: &mut Instance, r: &mut Random) {
    let shop = &mut instance.shop;
    for i in 0..1 + r.below(2) {
        let (units, calendar) = (1 + r.below(2) as u32, calendar(r, instance.horizon));
        shop.resources.push(Resource { id: format!("R{i}"), units, calendar });
    }
    for op in instance.jobs.iter_mut().flat_map(|job| &mut job.ops) {
        let mut needs = Vec::new();
        for resource in 0..shop.resources.len() {
            if r.chance(0.4) {
                let during = if r.chance(0.5) { During::Setup } else { During::Occupation };
                needs.push(Need { resource, during });
            }
        }
        op.needs = shop.need_set(needs);
    }
}

fn add_carbon(instance: &mut Instance, r: &mut Random) {
    let plants = instance.shop.plants.len();
    instance.shop.transport_carbon =
        (0..plants).map(|_| (0..plants).map(|_| r.below(9) as i64).collect()).collect();
    instance.shop.machines.iter_mut().for_each(|m| m.setup_carbon_per_tick = r.below(4) as i64);
    for job in &mut instance.jobs {
        job.late_cost = [0, 0, 15][r.below(3)];
        job.ops.iter_mut().flat_map(|op| &mut op.modes).for_each(|mode| mode.carbon = r.below(30) as i64);
    }
}

/// Gives the last machine a second place.
fn double(instance: &mut Instance) {
    let Some(last) = instance.shop.machines.last_mut() else { return };
    last.place = Some(0);
    let second = Machine { place: Some(1), ..last.clone() };
    instance.shop.machines.push(second);
    let (first, second) = (instance.shop.machines.len() - 2, instance.shop.machines.len() - 1);
    for op in instance.jobs.iter_mut().flat_map(|job| &mut job.ops) {
        // Modes come machine by machine, so the last one's is the last.
        let mode = op.modes.last().filter(|mode| mode.machine == first).cloned();
        op.modes.extend(mode.map(|mode| Mode { machine: second, ..mode }));
    }
}

/// The least objective, by enumeration: every choice of jobs and machines, every order in which operations can be
/// appended.
pub(crate) fn optimum(instance: &Instance) -> Fen {
    let mut best = Fen::MAX;
    for kept in 0..1u32 << instance.jobs.len() {
        let kept: Vec<usize> = (0..instance.jobs.len()).filter(|j| kept & (1 << j) != 0).collect();
        Appended::each(instance, &kept, &mut |plan| {
            if let Ok(priced) = verify(instance, plan) {
                best = best.min(priced.objective(instance.objective));
            }
            false
        });
    }
    best
}

/// A plan under construction: operations appended one by one, each as early as the last one on its machine, its part
/// and its resources allow, without a thought saved. For a regular objective no other plan is better, and whatever
/// can be kept can be kept that way: in a plan's own order of starts no operation comes later than it does there.
pub(crate) struct Appended<'a> {
    instance: &'a Instance,
    assignments: Vec<Assignment>,
}

impl Appended<'_> {
    /// Shows every plan that keeps just these jobs, until one is what was looked for.
    pub(crate) fn each(instance: &Instance, jobs: &[usize], found: &mut dyn FnMut(&Plan) -> bool) -> bool {
        let mut all = Appended { instance, assignments: Vec::new() };
        all.append(jobs, &mut vec![0; instance.jobs.len()], found)
    }

    fn append(
        &mut self,
        jobs: &[usize],
        next: &mut Vec<usize>,
        found: &mut dyn FnMut(&Plan) -> bool,
    ) -> bool {
        let open: Vec<usize> =
            jobs.iter().copied().filter(|&j| next[j] < self.instance.jobs[j].ops.len()).collect();
        if open.is_empty() {
            let rejected = (0..next.len()).filter(|j| !jobs.contains(j)).collect();
            return found(&Plan { assignments: self.assignments.clone(), rejected, ..Plan::default() });
        }
        open.into_iter().any(|j| {
            (0..self.instance.jobs[j].ops[next[j]].modes.len()).any(|mode| {
                let Some(a) = self.earliest(j, next[j], mode) else { return false };
                self.assignments.push(a);
                next[j] += 1;
                let over = self.append(jobs, next, found);
                next[j] -= 1;
                self.assignments.pop();
                over
            })
        })
    }

    fn earliest(&self, j: usize, k: usize, mode: usize) -> Option<Assignment> {
        let (job, shop) = (&self.instance.jobs[j], &self.instance.shop);
        let (op, mode) = (&job.ops[k], &job.ops[k].modes[mode]);
        let last = self.assignments.iter().rfind(|a| a.machine == mode.machine);
        let before = self.assignments.iter().find(|a| k > 0 && (a.job, a.op) == (j, k - 1));
        let there = shop.machines[mode.machine].plant;
        let ready: Tick = match before {
            Some(a) => a.end + shop.transport[shop.machines[a.machine].plant][there],
            None => job.release + job.origin.map_or(0, |p| shop.transport[p][there]),
        };
        let family = last.map(|a| self.instance.jobs[a.job].ops[a.op].family);
        let work = shop.setup_ticks(mode.machine, family, op.family) + mode.duration;
        let from = ready.max(mode.earliest).max(last.map_or(0, |a| a.end));
        let calendar = &shop.machines[mode.machine].calendar;
        let latest = job.deadline.unwrap_or(self.instance.horizon).min(self.instance.horizon);
        let at = |(start, end)| Assignment { job: j, op: k, machine: mode.machine, start, end };
        if let Some(fixed) = op.fixed {
            let end = calendar.finish(fixed.start, work, op.splittable)?;
            let goes = fixed.machine == mode.machine && from <= fixed.start && end <= latest;
            return Some(at((fixed.start, end))).filter(|a| goes && self.has_resources(a));
        }
        let span = |from| calendar.earliest(from, work, op.splittable, latest);
        let mut next = at(span(from)?);
        while !self.has_resources(&next) {
            next = at(span(next.start + 1)?);
        }
        Some(next)
    }

    /// Whether there is a unit of all that the next assignment needs, besides what the others hold.
    fn has_resources(&self, next: &Assignment) -> bool {
        let shop = &self.instance.shop;
        let others: Vec<(usize, Tick)> =
            (0..self.assignments.len()).flat_map(|i| self.held(i, &self.assignments[i])).collect();
        let open = |t: Tick| shop.machines[next.machine].calendar.is_open(t);
        self.held(self.assignments.len(), next).into_iter().all(|held| {
            let resource = &shop.resources[held.0];
            let taken = others.iter().filter(|other| **other == held).count();
            taken < resource.units as usize && (!open(held.1) || resource.calendar.is_open(held.1))
        })
    }

    /// The resources that an assignment behind the first `count` holds, tick by tick.
    fn held(&self, count: usize, a: &Assignment) -> Vec<(usize, Tick)> {
        let (shop, op) = (&self.instance.shop, &self.instance.jobs[a.job].ops[a.op]);
        let before = self.assignments[..count].iter().rfind(|b| b.machine == a.machine);
        let family = before.map(|b| self.instance.jobs[b.job].ops[b.op].family);
        let mut setup = shop.setup_ticks(a.machine, family, op.family);
        let mut held = Vec::new();
        for t in a.start..a.end {
            let needs = shop.needs_of(op.needs).iter();
            let now = needs.filter(|need| setup > 0 || need.during == During::Occupation);
            held.extend(now.map(|need| (need.resource, t)));
            setup -= i64::from(shop.machines[a.machine].calendar.is_open(t));
        }
        held
    }
}
