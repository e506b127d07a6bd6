//! Claims are checked by doing what they say: the change is made to the instance by other means than the
//! explanation's own, the job is placed again, and the rules are asked.

use super::*;
use crate::place::{Cost, place};
use crate::random::Random;
use crate::{Assignment, Calendar, Fixed, Objective, Shop, greedy, tiny, verify};

/// A tiny shop with promised, frozen, rejected and late jobs, and a plan for it.
fn planned(seed: u64) -> (Instance, Plan) {
    let mut instance = match seed % 4 {
        3 => Instance { objective: Objective::COST, ..tiny::rich(seed, 7, 3, 34) },
        _ => tiny::instance(seed, 7, 3, 34),
    };
    let mut r = Random::new(seed ^ 0xE0);
    for (j, job) in instance.jobs.iter_mut().enumerate() {
        job.id = format!("order-{j}-of-{seed}");
        job.rejection_cost = job.rejection_cost.filter(|_| r.chance(0.7));
        if let Some(cost) = job.rejection_cost.as_mut().filter(|_| r.chance(0.3)) {
            *cost /= 4;
        }
    }
    if r.chance(0.15) {
        let windows = (0..11).map(|i| (3 * i, 3 * i + 2)).collect();
        let calendar = Calendar::new(windows).unwrap();
        // The places of one machine are open alike.
        let first = instance.shop.machines[0].id.clone();
        let places = instance.shop.machines.iter_mut().filter(|m| m.id == first);
        places.for_each(|m| m.calendar.clone_from(&calendar));
    }
    let mut state = State::empty(&instance);
    greedy::insert_all(&mut state, &mut Placer::default(), &greedy::insertion_order(&instance), &|| false);
    let plan = state.plan();
    for a in plan.assignments.iter().filter(|_| r.chance(0.1)) {
        instance.jobs[a.job].ops[a.op].fixed = Some(Fixed { machine: a.machine, start: a.start });
    }
    (instance, plan)
}

/// The lines as the explanation has them, and the shop and the job to change.
struct Bench {
    instance: Instance,
    shop: Shop,
    lines: Lines,
    job: Job,
    goal: Goal,
    leant_on: bool,
    place: Option<Placement>,
}

impl Bench {
    fn new(instance: &Instance, plan: &Plan, job: usize, verdict: Verdict) -> Bench {
        let state = State::load(instance, chains_of(instance, plan));
        let Taken { lines, leant_on, place, .. } = take_off(state, job);
        Bench {
            instance: instance.clone(),
            shop: instance.shop.clone(),
            lines,
            job: instance.jobs[job].clone(),
            goal: Goal::of(verdict),
            leant_on,
            place,
        }
    }

    fn placements(&self) -> Vec<Placement> {
        place(&self.shop, &self.lines, &self.job, Cost::Plan)
    }

    fn meets(&self) -> bool {
        self.placements().iter().any(|p| self.goal.is_met(p))
    }

    /// Makes a change, less `short` of its amount where it has one. False where it has none.
    fn apply(&mut self, change: &Change, short: i64) -> bool {
        let job = &mut self.job;
        match change {
            Change::DeadlineLater(by) => job.deadline = job.deadline.map(|d| d + by - short),
            Change::BudgetMore(by) => job.budget = job.budget.map(|b| b + by - short),
            Change::ReleaseEarlier(by) => job.release -= by - short,
            Change::MachinesEarlier(by) => {
                let modes = job.ops.iter_mut().flat_map(|op| &mut op.modes);
                modes.for_each(|mode| mode.earliest = 0.max(mode.earliest - (by - short)));
            }
            Change::WorthMore(by) => {
                job.rejection_cost = job.rejection_cost.map(|c| c + by - short);
                self.goal.cost_below = job.rejection_cost.unwrap();
            }
            Change::MayPause(ops) => ops.iter().for_each(|&k| job.ops[k].splittable = true),
            Change::Thaw => job.ops.iter_mut().for_each(|op| op.fixed = None),
            Change::Overtime(spans) => {
                for span in spans {
                    let calendar = &mut self.shop.machines[span.machine].calendar;
                    let is_open =
                        |t: Tick| calendar.windows().iter().any(|&(from, until)| from <= t && t < until);
                    let ticks: Vec<bool> = (0..self.instance.horizon)
                        .map(|t| is_open(t) || (span.from <= t && t < span.until))
                        .collect();
                    assert!((span.from..span.until).all(|t| !is_open(t)), "overtime is in closed time");
                    *calendar = from_ticks(&ticks);
                }
            }
            Change::OthersGiveWay { .. } => unreachable!("asked of the lines"),
        }
        !matches!(change, Change::MayPause(_) | Change::Thaw | Change::Overtime(_))
    }

    /// Whether some jobs of the number said, with the number of promised ones said, are enough.
    fn enough_give_way(&self, jobs: usize, promised: usize, outcome: Outcome) -> bool {
        let is_promised = |j: usize| {
            let job = &self.instance.jobs[j];
            job.rejection_cost.is_none() || job.ops.iter().any(|op| op.fixed.is_some())
        };
        (0u32..1 << self.instance.jobs.len()).any(|others| {
            let others: Vec<usize> =
                (0..self.instance.jobs.len()).filter(|j| others & (1 << j) != 0).collect();
            if others.len() != jobs || others.iter().filter(|&&j| is_promised(j)).count() != promised {
                return false;
            }
            let mut lines = self.lines.clone();
            for m in 0..lines.machines() {
                lines.edit(&self.shop, m, |line| line.retain(|o| !others.contains(&(o.key.job as usize))));
            }
            let front = place(&self.shop, &lines, &self.job, Cost::Plan);
            front.iter().any(|p| self.goal.is_met(p) && Outcome::of(p) == outcome)
        })
    }

    /// The plan with the job where a placement has it keeps every rule of the changed instance.
    fn holds(&self, job: usize, p: &Placement) {
        let mut instance = Instance { shop: self.shop.clone(), ..self.instance.clone() };
        instance.jobs[job] = self.job.clone();
        let mut lines = self.lines.clone();
        lines.insert(&self.shop, job as u32, &self.job, p).expect("a placement can be carried out");
        let mut plan = Plan::default();
        for m in 0..lines.machines() {
            plan.assignments.extend(lines.on(m).iter().map(|o| Assignment {
                job: o.key.job as usize,
                op: o.key.op as usize,
                machine: m,
                start: o.start,
                end: o.end,
            }));
        }
        plan.rejected =
            (0..instance.jobs.len()).filter(|&j| plan.assignments.iter().all(|a| a.job != j)).collect();
        plan.rejected.iter().for_each(|&j| instance.jobs[j].rejection_cost = Some(0));
        verify(&instance, &plan).expect("the changed plan keeps the rules");
    }
}

fn from_ticks(open: &[bool]) -> Calendar {
    let mut windows: Vec<(Tick, Tick)> = Vec::new();
    for t in (0..open.len()).filter(|&t| open[t]) {
        match windows.last_mut() {
            Some(last) if last.1 == t as Tick => last.1 += 1,
            _ => windows.push((t as Tick, t as Tick + 1)),
        }
    }
    Calendar::new(windows).unwrap()
}

fn each(seeds: std::ops::Range<u64>, mut check: impl FnMut(&Instance, &Plan, usize, Explanation)) {
    for seed in seeds {
        let (instance, plan) = planned(seed);
        for job in 0..instance.jobs.len() {
            check(&instance, &plan, job, explain(&instance, &plan, job).unwrap());
        }
    }
}

#[test]
fn each_change_suffices_and_less_of_it_does_not() {
    let mut seen = std::collections::BTreeMap::new();
    each(0..400, |instance, plan, job, said| {
        let name = &said.job;
        let wanting = !said.as_is_suffices && !matches!(said.verdict, Verdict::InTime { .. });
        assert!(wanting || said.relaxations.is_empty(), "{name}: nothing is wanting");
        for relaxation in &said.relaxations {
            let (changes, outcome) = (&relaxation.changes, relaxation.outcome);
            let mut bench = Bench::new(instance, plan, job, said.verdict);
            assert!(!bench.meets(), "{name}: something is wanting");
            let kind = format!("{:?}", changes[0]).split(['(', ' ']).next().unwrap().to_owned();
            *seen.entry(if changes.len() > 1 { "Several".into() } else { kind }).or_insert(0) += 1;
            if let Change::OthersGiveWay { jobs, promised } = changes[0] {
                assert!(bench.enough_give_way(jobs, promised, outcome), "{name}: {changes:?}");
                continue;
            }
            changes.iter().for_each(|change| {
                bench.apply(change, 0);
            });
            let front = bench.placements();
            let got = front.iter().find(|p| Outcome::of(p) == outcome);
            let got = got.unwrap_or_else(|| panic!("{name}: {changes:?} brings {front:?}, not {outcome:?}"));
            assert!(bench.goal.is_met(got), "{name}: {changes:?} is not enough");
            if !bench.leant_on && !matches!(changes[0], Change::Overtime(_)) {
                bench.holds(job, got);
            }
            let mut less = Bench::new(instance, plan, job, said.verdict);
            if changes.len() == 1 && less.apply(&changes[0], 1) {
                assert!(!less.meets(), "{name}: less than {changes:?} is enough");
            }
        }
        assert!(said.relaxations.is_sorted_by_key(|r| r.outcome.cost), "{name}: the cheapest is first");
    });
    let kinds = ["DeadlineLater", "BudgetMore", "ReleaseEarlier", "MachinesEarlier", "MayPause"];
    let more = ["Thaw", "Overtime", "OthersGiveWay", "WorthMore", "Several"];
    for kind in kinds.into_iter().chain(more) {
        assert!(seen.get(kind).is_some_and(|&n| n >= 3), "{kind} is not covered: {seen:?}");
    }
}

#[test]
fn each_constraint_left_out_brings_what_is_said() {
    let mut helping = 0;
    each(0..150, |instance, plan, job, said| {
        for relaxed in &said.relaxed {
            let mut bench = Bench::new(instance, plan, job, said.verdict);
            let stands = with_place(bench.placements(), bench.place.as_ref());
            assert_eq!(Ends::of(&stands), said.as_is, "{}", said.job);
            let promised = |j: usize| instance.jobs[j].rejection_cost.is_none();
            let ops = &mut bench.job.ops;
            match relaxed.constraint {
                Constraint::Freeze => ops.iter_mut().for_each(|op| op.fixed = None),
                Constraint::Deadline => bench.job.deadline = Some(instance.horizon),
                Constraint::Budget => bench.job.budget = Some(1 << 40),
                Constraint::Release => bench.job.release = 0,
                Constraint::Earliest => {
                    ops.iter_mut().flat_map(|op| &mut op.modes).for_each(|mode| mode.earliest = 0);
                }
                Constraint::Pausing => ops.iter_mut().for_each(|op| op.splittable = true),
                Constraint::Calendar => {
                    let all = from_ticks(&vec![true; instance.horizon as usize]);
                    bench.shop.machines.iter_mut().for_each(|m| m.calendar.clone_from(&all));
                }
                Constraint::Transport => {
                    let plants = bench.shop.plants.len();
                    bench.shop.transport = vec![vec![0; plants]; plants];
                }
                Constraint::Resources => ops.iter_mut().for_each(|op| op.needs = 0),
                Constraint::Capacity => bench.lines = Lines::new(&instance.shop),
                Constraint::OptionalWork => {
                    for m in 0..bench.lines.machines() {
                        let line = bench.lines.on(m).iter();
                        let rest = line.filter(|o| o.fixed || promised(o.key.job as usize)).copied();
                        let rest = rest.collect();
                        bench.lines.set(&instance.shop, m, rest);
                    }
                }
                // Only this job's changeovers: not a change that the instance can express.
                Constraint::Setup => continue,
            }
            assert_eq!(Ends::of(&bench.placements()), relaxed.ends, "{}: {relaxed:?}", said.job);
            helping += usize::from(relaxed.helps);
            let better = bench
                .placements()
                .iter()
                .any(|p| stands.iter().all(|q| q.completion > p.completion || q.cost > p.cost));
            assert!(better || !relaxed.helps, "{}: {relaxed:?}", said.job);
        }
    });
    assert!(helping > 500, "the cases are of interest: {helping}");
}

#[test]
fn a_machine_that_is_ruled_out_has_no_place_for_it() {
    let mut seen = std::collections::BTreeMap::new();
    each(0..400, |instance, plan, job, said| {
        for (k, op) in said.ops.iter().enumerate() {
            for mode in &op.modes {
                let Some(why) = mode.excluded else { continue };
                *seen.entry(why).or_insert(0) += 1;
                let mut bench = Bench::new(instance, plan, job, said.verdict);
                bench.job.ops[k].modes.retain(|m| m.machine == mode.machine);
                if bench.job.ops[k].fixed.is_some_and(|fixed| fixed.machine != mode.machine) {
                    continue;
                }
                let left = bench.placements().into_iter().filter(|p| bench.goal.end_max >= p.completion);
                let left: Vec<_> = left.collect();
                assert!(left.is_empty(), "{}/{k}: {why:?} on {}: {left:?}", said.job, mode.machine);
            }
        }
    });
    assert!(seen.len() == 8 && seen.values().all(|&n| n >= 5), "every reason is covered: {seen:?}");
}

#[test]
fn the_wait_before_each_operation_is_accounted_for_to_the_tick() {
    let mut causes = Wait::default();
    each(0..200, |instance, plan, job, said| {
        let spec = &instance.jobs[job];
        let mut ready = spec.release;
        for op in &said.ops {
            let Some(place) = &op.place else { return };
            let w = place.wait;
            let all = [
                w.travel,
                w.not_before,
                w.occupied,
                w.closed,
                w.too_short,
                w.lacking,
                w.unused,
                w.changeover,
            ];
            assert!(all.iter().all(|&t| t >= 0), "{}: {w:?}", said.job);
            assert_eq!(ready + w.total() - w.changeover, place.start, "{}: {w:?}", said.job);
            ready = place.end;
            causes.travel += w.travel;
            causes.occupied += w.occupied;
            causes.closed += w.closed;
            causes.too_short += w.too_short;
            causes.lacking += w.lacking;
            causes.not_before += w.not_before;
            causes.changeover += w.changeover;
        }
        if let (Some(op), false) = (said.ops.last(), matches!(said.verdict, Verdict::LeftOut { .. })) {
            let stands = plan.assignments.iter().rfind(|a| a.job == job).unwrap();
            assert_eq!(op.place.as_ref().unwrap().end, stands.end, "{}", said.job);
        }
    });
    let Wait { travel, not_before, occupied, closed, too_short, lacking, changeover, .. } = causes;
    assert!(
        [travel, not_before, occupied, closed, too_short, lacking, changeover].iter().all(|&t| t > 50),
        "{causes:?}"
    );
}

#[test]
fn no_other_job_is_named() {
    let mut told = 0;
    each(0..200, |instance, _, job, said| {
        let text = format!("{said}\n{said:?}");
        told += text.len();
        assert!(text.contains(&instance.jobs[job].id));
        for (j, other) in instance.jobs.iter().enumerate().filter(|(j, _)| *j != job) {
            assert!(!text.contains(&other.id), "{} names {j}: {text}", said.job);
        }
    });
    assert!(told > 500_000, "much is told: {told}");
}

#[test]
fn a_job_that_does_not_exist_is_told() {
    let (instance, plan) = planned(1);
    let error = explain(&instance, &plan, 7).unwrap_err();
    assert_eq!(error.to_string(), "job 7 does not exist, there are 7");
}

#[test]
fn a_job_taken_off_leaves_a_plan_that_holds_and_put_back_costs_what_it_did() {
    let (mut taken, mut found) = (0, 0);
    each(0..200, |instance, plan, job, said| {
        let state = State::load(instance, chains_of(instance, plan));
        let whole = state.cost();
        if !state.keeps(job) {
            return;
        }
        let Taken { lines, leant_on, place, stood } = take_off(state, job);
        let place = place.unwrap();
        if leant_on {
            return;
        }
        taken += 1;
        let chains = |lines: &Lines| {
            let mut plan = Plan::default();
            for m in 0..lines.machines() {
                let assignment = |o: &Occupation| Assignment {
                    job: o.key.job as usize,
                    op: o.key.op as usize,
                    machine: m,
                    start: o.start,
                    end: o.end,
                };
                plan.assignments.extend(lines.on(m).iter().map(assignment));
            }
            chains_of(instance, &plan)
        };
        assert_eq!(State::load(instance, chains(&stood)).cost(), whole);
        let mut without = chains(&lines);
        without[job] = None;
        let rest = State::load(instance, without);
        assert_eq!(rest.lines, lines, "{}: the rest stands", said.job);
        // Where the search comes on the same place, it has the same price.
        let again = self::place(&instance.shop, &lines, &instance.jobs[job], Cost::Plan);
        if let Some(again) = again.iter().find(|p| p.steps == place.steps) {
            assert_eq!(*again, place, "{}", said.job);
            found += 1;
        }
    });
    assert!(taken > 300 && found > 200, "{taken} taken, {found} found");
}
