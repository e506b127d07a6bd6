//! Small random shops for the tests: every rule in play, few enough ticks to enumerate.

use crate::random::Random;
use crate::{
    Calendar, During, Instance, Job, Machine, Mode, Need, Objective, Op, Resource, SetupMatrix, Shop, Tick,
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
