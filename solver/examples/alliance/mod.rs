//! An alliance's plan to be made, drawn from a seed: 23 plants on a plain, machines of five classes that are lent in the windows
//! which their owners' shifts and own work (two fifths) leave, and routes of one to four operations.

use millpool_solver::{Calendar, Instance, Job, Machine, Mode, Objective, Op, SetupMatrix, Shop, Tick};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

const PLANTS: usize = 23;
const FAMILIES: usize = 6;
const DAY: Tick = 1440;
/// Class, its share of the fleet in thousandths, fen a minute of work and of setup.
const CLASSES: [(&str, u32, i64, i64); 5] = [
    ("lathe", 194, 180, 120),
    ("mill", 185, 220, 140),
    ("five-axis", 315, 600, 260),
    ("grinder", 93, 260, 150),
    ("cmm", 213, 240, 90),
];
/// Weight and classes of a route.
const ROUTES: [(u32, &[usize]); 6] =
    [(30, &[2]), (22, &[0, 2, 4]), (16, &[1, 2]), (12, &[0, 1, 3, 4]), (12, &[1, 4]), (8, &[0, 3])];

/// An alliance's days, and work asked for that would fill so many percent of its open time. With more of it the shop
/// and the first jobs are the same, and more jobs follow.
pub fn alliance(machines: usize, seed: u64, days: i64, asked_percent: i64) -> Instance {
    let mut rng = StdRng::seed_from_u64(seed);
    let shop = shop(&mut rng, machines, days);
    let speeds: Vec<f64> = shop.machines.iter().map(|_| rng.random_range(0.8..1.3)).collect();
    let open: Tick =
        shop.machines.iter().flat_map(|m| m.calendar.windows()).map(|(from, until)| until - from).sum();
    let (mut jobs, mut asked) = (Vec::new(), 0);
    while 100 * asked < asked_percent * open {
        let job = job(&mut rng, &shop, &speeds, (jobs.len(), days));
        asked += job.ops.iter().filter_map(|op| op.modes.iter().map(|m| m.duration).min()).sum::<Tick>();
        jobs.push(job);
    }
    let name = format!("alliance of {machines} machines, seed {seed}");
    let horizon = days * DAY;
    Instance { name, tick_seconds: 60, horizon, objective: Objective::COST, shop, jobs }
}

fn shop(rng: &mut StdRng, machines: usize, days: i64) -> Shop {
    let spots: Vec<(f64, f64)> =
        (0..PLANTS).map(|_| (rng.random_range(0.0..80.0), rng.random_range(0.0..60.0))).collect();
    let table = |fixed: f64, a_km: f64| -> Vec<Vec<i64>> {
        let way = |a: &(f64, f64), b: &(f64, f64)| {
            if a == b { 0.0 } else { fixed + a_km * (a.0 - b.0).hypot(a.1 - b.1) }
        };
        spots.iter().map(|a| spots.iter().map(|b| way(a, b) as i64).collect()).collect()
    };
    let (transport, transport_cost) = (table(30.0, 1.5), table(3000.0, 350.0));
    let mut changeover = |a, b| if a == b { 0 } else { 10 + 5 * rng.random_range(1..=8) };
    let rows: Vec<Vec<Tick>> =
        (0..FAMILIES).map(|a| (0..FAMILIES).map(|b| changeover(a, b)).collect()).collect();
    let setups = vec![SetupMatrix::new(&rows).expect("a square")];
    let machines = (0..machines).map(|number| machine(rng, number, days)).collect();
    let plants = (0..PLANTS).map(|p| format!("P{p:02}")).collect();
    Shop { plants, transport, transport_cost, setups, machines, ..Shop::default() }
}

fn machine(rng: &mut StdRng, number: usize, days: i64) -> Machine {
    let class = match CLASSES.get(number) {
        Some(class) => class,
        None => CLASSES.choose_weighted(rng, |class| class.1).expect("classes"),
    };
    let mut windows: Vec<(Tick, Tick)> = Vec::new();
    for day in (0..days).filter(|day| day % 7 != 6) {
        let (mut at, last) = if rng.random_bool(0.25) { (0, DAY) } else { (480, 1320) };
        while at < last {
            let until = last.min(at + 15 * rng.random_range(8..=24));
            if rng.random_bool(0.59) && until - at >= 60 {
                match windows.last_mut() {
                    Some(before) if before.1 == day * DAY + at => before.1 = day * DAY + until,
                    _ => windows.push((day * DAY + at, day * DAY + until)),
                }
            }
            at = until;
        }
    }
    Machine {
        id: format!("M{number:04}"),
        class: class.0.into(),
        plant: rng.random_range(0..PLANTS),
        calendar: Calendar::new(windows).expect("windows in order"),
        setup: 0,
        setup_cost_per_tick: class.3,
        initial_family: Some(rng.random_range(0..FAMILIES)),
        ..Machine::default()
    }
}

fn job(rng: &mut StdRng, shop: &Shop, speeds: &[f64], (number, days): (usize, i64)) -> Job {
    let route = ROUTES.choose_weighted(rng, |route| route.0).expect("routes").1;
    let release = 15 * (rng.random::<f64>().powf(1.4) * 0.7 * (days * DAY) as f64 / 15.0) as Tick;
    let mut work = 0.0;
    let ops: Vec<Op> = route
        .iter()
        .map(|&class| {
            let minutes = (120.0 * rng.random_range(-0.9..0.9_f64).exp()).clamp(20.0, 420.0);
            work += minutes + 60.0;
            op(rng, shop, speeds, class, minutes)
        })
        .collect();
    let due = release + 360 + (rng.random_range(2.4..5.6) * work) as Tick;
    let cheapest: i64 = ops.iter().filter_map(|op| op.modes.iter().map(|mode| mode.cost).min()).sum();
    Job {
        id: format!("J{number:05}"),
        release,
        due,
        deadline: rng.random_bool(0.25).then_some(due + 3 * DAY),
        tardiness_weight: *[20, 50, 50, 120, 300].choose(rng).expect("weights"),
        rejection_cost: Some((cheapest as f64 * rng.random_range(2.0..4.0)) as i64 + 40_000),
        ops,
        ..Job::default()
    }
}

fn op(rng: &mut StdRng, shop: &Shop, speeds: &[f64], class: usize, minutes: f64) -> Op {
    let (name, _, rate, _) = CLASSES[class];
    let able: Vec<usize> = (0..shop.machines.len()).filter(|&m| shop.machines[m].class == name).collect();
    let count = rng.random_range(2..=6).min(able.len());
    let mode = |&machine: &usize| {
        let duration = ((minutes / speeds[machine]) as Tick).max(5);
        let cost = (duration as f64 * rate as f64 * (0.75 + 0.12 * (machine % 6) as f64)) as i64;
        Mode { machine, duration, cost, charge: cost, ..Mode::default() }
    };
    let mut modes: Vec<Mode> = able.sample(rng, count).map(mode).collect();
    modes.sort_by_key(|mode| mode.machine);
    Op { family: rng.random_range(0..FAMILIES), splittable: false, modes, ..Op::default() }
}
