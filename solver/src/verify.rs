//! The rules, from the exchange format's text alone.
//!
//! Nothing here is shared with the search, not even the calendar's bisection: a mistake there must
//! not be able to hide here. Slow and plain on purpose.

use std::fmt;

use crate::{Assignment, During, Instance, Plan, Priced, Tick};

/// A rule that a plan breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Index of the job concerned, if it is one job.
    pub job: Option<usize>,
    /// Which operation of it, if it is one.
    pub op: Option<usize>,
    /// What is wrong, with names.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Where an occupation of `work` open ticks from `start` ends, walking the windows one by one.
fn end_by_walking(windows: &[(Tick, Tick)], start: Tick, work: Tick, splittable: bool) -> Option<Tick> {
    let mut left = work;
    let mut at = start;
    let mut begun = false;
    let first = windows.partition_point(|w| w.1 <= start);
    for &(open, close) in &windows[first..] {
        if !begun {
            if start < open {
                return None;
            }
            begun = true;
        } else {
            if !splittable {
                return None;
            }
            at = open;
        }
        if left <= close - at {
            return Some(at + left);
        }
        left -= close - at;
    }
    None
}

/// Open ticks in `[from, until)` that both lists of windows have.
fn open_in_both(one: &[(Tick, Tick)], other: &[(Tick, Tick)], from: Tick, until: Tick) -> Tick {
    let mut ticks = 0;
    for a in one.iter().filter(|w| w.1 > from && w.0 < until) {
        for b in other.iter().filter(|w| w.1 > a.0 && w.0 < a.1) {
            ticks += (a.1.min(b.1).min(until) - a.0.max(b.0).max(from)).max(0);
        }
    }
    ticks
}

struct Checker<'a> {
    instance: &'a Instance,
    violations: Vec<Violation>,
    priced: Priced,
    /// By job and operation: the assignment and the setup it begins with.
    placed: Vec<Vec<Option<(Assignment, Tick)>>>,
    rejected: Vec<bool>,
}

/// Checks every rule of the format and prices the plan. A plan that claims a wrong `objective`, or a
/// `bound` above its cost, is refused too.
pub fn verify(instance: &Instance, plan: &Plan) -> Result<Priced, Vec<Violation>> {
    let mut checker = Checker {
        instance,
        violations: Vec::new(),
        priced: Priced::default(),
        placed: instance.jobs.iter().map(|job| vec![None; job.ops.len()]).collect(),
        rejected: vec![false; instance.jobs.len()],
    };
    checker.take_rejections(plan);
    checker.take_lines(plan);
    for r in 0..instance.shop.resources.len() {
        checker.check_resource(r);
    }
    for j in 0..instance.jobs.len() {
        checker.check_job(j);
    }
    checker.check_claims(plan);
    match checker.violations.is_empty() {
        true => Ok(checker.priced),
        false => Err(checker.violations),
    }
}

impl Checker<'_> {
    fn breach(&mut self, job: Option<usize>, op: Option<usize>, what: impl Into<String>) {
        let name = job.and_then(|j| self.instance.jobs.get(j)).map(|job| job.id.as_str()).unwrap_or("");
        let what = match (job, op) {
            (Some(_), Some(k)) => format!("{name}/{k}: {}", what.into()),
            (Some(_), None) => format!("{name}: {}", what.into()),
            _ => what.into(),
        };
        self.violations.push(Violation { job, op, what });
    }

    fn take_rejections(&mut self, plan: &Plan) {
        for &j in &plan.rejected {
            let Some(job) = self.instance.jobs.get(j) else {
                self.breach(None, None, format!("unknown rejected job {j}"));
                continue;
            };
            if self.rejected[j] {
                self.breach(Some(j), None, "rejected twice");
                continue;
            }
            self.rejected[j] = true;
            match job.rejection_cost {
                Some(cost) => self.priced.rejection += cost,
                None => self.breach(Some(j), None, "promised, and may not be rejected"),
            }
        }
    }

    fn take_lines(&mut self, plan: &Plan) {
        // Each with its family, as fetching that in the order of the lines would take longer than all the rest.
        let mut lines: Vec<Vec<(Assignment, usize)>> = vec![Vec::new(); self.instance.shop.machines.len()];
        for a in &plan.assignments {
            let known = self.instance.jobs.get(a.job).is_some_and(|job| a.op < job.ops.len());
            let in_time = (0..=crate::TICK_MAX).contains(&a.start) && (0..=crate::TICK_MAX).contains(&a.end);
            if !in_time {
                self.breach(None, None, format!("{}/{} stands outside of time", a.job, a.op));
            } else if !known || a.machine >= lines.len() {
                let machine = self.instance.shop.machines.get(a.machine);
                let job = self.instance.jobs.get(a.job).map_or(a.job.to_string(), |job| job.id.clone());
                let machine = machine.map_or(a.machine.to_string(), |machine| machine.id.clone());
                let what = format!("unknown operation or machine: {job}/{} on {machine}", a.op);
                self.breach(None, None, what);
            } else if self.placed[a.job][a.op].is_some() {
                self.breach(Some(a.job), Some(a.op), "assigned twice");
            } else {
                self.placed[a.job][a.op] = Some((*a, 0));
                lines[a.machine].push((*a, self.instance.jobs[a.job].ops[a.op].family));
            }
        }
        for (m, mut line) in lines.into_iter().enumerate() {
            line.sort_by_key(|(a, _)| (a.start, a.end));
            self.check_line(m, &line);
        }
    }

    fn check_line(&mut self, m: usize, line: &[(Assignment, usize)]) {
        let machine = &self.instance.shop.machines[m];
        let matrix = &self.instance.shop.setups[machine.setup];
        let mut family = machine.initial_family;
        let mut free_from = None;
        for &(a, next) in line {
            if free_from.is_some_and(|free| a.start < free) {
                let what = format!("overlaps its predecessor on {}", machine.id);
                self.breach(Some(a.job), Some(a.op), what);
            }
            if next >= matrix.families() {
                self.breach(Some(a.job), Some(a.op), format!("{} does not know its family", machine.id));
                continue;
            }
            let setup = matrix.ticks(family, next);
            self.priced.setup += setup * machine.setup_cost_per_tick;
            self.priced.setup_ticks += setup;
            self.priced.carbon += setup * machine.setup_carbon_per_tick;
            self.placed[a.job][a.op] = Some((a, setup));
            (family, free_from) = (Some(next), Some(a.end));
        }
    }

    /// Every operation that needs a resource has a unit, and it is there while the machine works.
    fn check_resource(&mut self, r: usize) {
        let (instance, resource) = (self.instance, &self.instance.shop.resources[r]);
        let mut held: Vec<(Tick, Tick, usize, usize)> = Vec::new();
        for &(a, setup) in self.placed.iter().flatten().flatten() {
            let op = &instance.jobs[a.job].ops[a.op];
            let windows = instance.shop.machines[a.machine].calendar.windows();
            for need in instance.shop.needs_of(op.needs).iter().filter(|need| need.resource == r) {
                let until = match need.during {
                    During::Occupation => a.end,
                    During::Setup => end_by_walking(windows, a.start, setup, op.splittable).unwrap_or(a.end),
                };
                if until > a.start {
                    held.push((a.start, until, a.job, a.op));
                }
            }
        }
        held.sort_unstable();
        for &(from, until, j, k) in &held {
            let at_once = held.iter().take_while(|h| h.0 <= from).filter(|h| h.1 > from).count();
            if at_once > resource.units as usize {
                let what = format!("is one of {at_once} that hold {} at {from}", resource.id);
                self.breach(Some(j), Some(k), what);
            }
            let Some((a, _)) = self.placed[j][k] else { continue };
            let windows = instance.shop.machines[a.machine].calendar.windows();
            let worked = open_in_both(windows, windows, from, until);
            if open_in_both(windows, resource.calendar.windows(), from, until) < worked {
                let what = format!("needs {} over [{from}, {until}), which is not there", resource.id);
                self.breach(Some(j), Some(k), what);
            }
        }
    }

    fn check_job(&mut self, j: usize) {
        let job = &self.instance.jobs[j];
        let placed = std::mem::take(&mut self.placed[j]);
        if self.rejected[j] {
            if placed.iter().any(Option::is_some) {
                self.breach(Some(j), None, "both rejected and assigned");
            }
            return;
        }
        if placed.iter().any(Option::is_none) {
            self.breach(Some(j), None, "neither whole nor rejected");
            return;
        }
        let mut at = job.origin;
        let mut ready = job.release;
        let mut charge = 0;
        for (k, &(a, setup)) in placed.iter().flatten().enumerate() {
            let there = self.instance.shop.machines[a.machine].plant;
            if let Some(here) = at {
                ready += self.instance.shop.transport[here][there];
                let trip = self.instance.shop.transport_cost[here][there];
                self.priced.transport += trip;
                self.priced.carbon +=
                    self.instance.shop.transport_carbon.get(here).map_or(0, |row| row[there]);
                charge += self.instance.shop.transport_charge.get(here).map_or(trip, |row| row[there]);
            }
            if a.start < ready {
                let what = format!("starts at {}, its part arrives at {ready}", a.start);
                self.breach(Some(j), Some(k), what);
            }
            charge += self.check_assignment(&a, setup);
            (at, ready) = (Some(there), a.end);
        }
        self.priced.accepted += 1;
        self.priced.makespan = self.priced.makespan.max(ready);
        if let Some(deadline) = job.deadline.filter(|&d| ready > d) {
            self.breach(Some(j), None, format!("ends at {ready}, after its deadline {deadline}"));
        }
        if let Some(budget) = job.budget.filter(|&b| charge > b) {
            self.breach(Some(j), None, format!("is charged {charge}, its budget is {budget}"));
        }
        if ready > job.due {
            self.priced.late += 1;
            self.priced.tardiness += job.late_cost + job.tardiness_weight * (ready - job.due);
        }
    }

    /// Checks one operation by itself; returns what it is charged.
    fn check_assignment(&mut self, a: &Assignment, setup: Tick) -> i64 {
        let op = &self.instance.jobs[a.job].ops[a.op];
        let machine = &self.instance.shop.machines[a.machine];
        let Some(mode) = op.modes.iter().find(|mode| mode.machine == a.machine) else {
            self.breach(Some(a.job), Some(a.op), format!("may not run on {}", machine.id));
            return 0;
        };
        if op.fixed.is_some_and(|f| f.machine != a.machine || f.start != a.start) {
            self.breach(Some(a.job), Some(a.op), "is frozen and was moved");
        }
        if a.start < mode.earliest {
            let what = format!("starts at {}, before {} on {}", a.start, mode.earliest, machine.id);
            self.breach(Some(a.job), Some(a.op), what);
        }
        let want = end_by_walking(machine.calendar.windows(), a.start, setup + mode.duration, op.splittable);
        if want != Some(a.end) {
            let what = format!("ends at {}, its work from {} ends at {want:?}", a.end, a.start);
            self.breach(Some(a.job), Some(a.op), what);
        }
        if a.end > self.instance.horizon {
            let what = format!("ends at {}, after the horizon {}", a.end, self.instance.horizon);
            self.breach(Some(a.job), Some(a.op), what);
        }
        self.priced.processing += mode.cost;
        self.priced.carbon += mode.carbon;
        mode.charge
    }

    fn check_claims(&mut self, plan: &Plan) {
        if !self.violations.is_empty() {
            return;
        }
        let objective = self.priced.objective(self.instance.objective);
        if let Some(claimed) = plan.objective.filter(|&claimed| claimed != objective) {
            self.breach(None, None, format!("the claimed objective {claimed} is not {objective}"));
        }
        if let Some(bound) = plan.bound.filter(|&bound| bound > objective) {
            self.breach(None, None, format!("the claimed bound {bound} is above the cost {objective}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::place::Placer;
    use crate::random::Random;
    use crate::state::State;
    use crate::{Fixed, greedy, tiny, write_json};

    fn planned(seed: u64) -> (Instance, Plan) {
        let mut instance = match seed % 2 {
            0 => tiny::instance(seed, 8, 3, 60),
            _ => tiny::rich(seed, 8, 3, 60),
        };
        let mut state = State::empty(&instance);
        greedy::insert_all(&mut state, &mut Placer::default(), &greedy::insertion_order(&instance), &|| {
            false
        });
        let plan = state.plan();
        if let Some(a) = plan.assignments.first() {
            let fixed = Fixed { machine: a.machine, start: a.start };
            instance.jobs[a.job].ops[a.op].fixed = Some(fixed);
        }
        (instance, plan)
    }

    /// Something small, and often wrong, done to a plan.
    fn spoil(plan: &mut Plan, r: &mut Random, machines: usize) {
        if plan.assignments.is_empty() {
            return;
        }
        let i = r.below(plan.assignments.len());
        let a = &mut plan.assignments[i];
        match r.below(8) {
            0 => a.start += 1,
            1 => (a.start, a.end) = (a.start + 1, a.end + 1),
            2 => a.end += 1,
            3 => a.machine = r.below(machines),
            4 => (a.start, a.end) = (a.start - 1, a.end - 1),
            5 => {
                plan.assignments.remove(i);
            }
            6 => plan.rejected.push(a.job),
            _ => {
                let j = a.job;
                plan.assignments.retain(|a| a.job != j);
                plan.rejected.push(j);
            }
        }
    }

    #[test]
    fn a_recount_in_python_agrees_on_every_verdict_and_every_fen() {
        let (mut input, mut verdicts) = (String::new(), Vec::new());
        for seed in 0..1500 {
            let (instance, mut plan) = planned(seed);
            let mut r = Random::new(seed);
            for _ in 0..seed % 3 {
                spoil(&mut plan, &mut r, instance.shop.machines.len());
            }
            if plan.assignments.iter().any(|a| a.start < 0) {
                continue;
            }
            let (instance_json, plan_json) = (write_json(&instance), plan.write_json(&instance));
            input += &format!("{{\"instance\":{instance_json},\"plan\":{plan_json}}}\n");
            verdicts.push((
                seed,
                verify(&instance, &plan).ok().map(|priced| priced.objective(instance.objective)),
            ));
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recount.py");
        let mut python = Command::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is part of the test set-up");
        let mut stdin = python.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
        let output = python.wait_with_output().unwrap();
        writer.join().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let recounted: Vec<Option<i64>> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(recounted.len(), verdicts.len());
        for ((seed, ours), theirs) in verdicts.iter().zip(&recounted) {
            assert_eq!(ours, theirs, "seed {seed}");
        }
        let broken = recounted.iter().filter(|v| v.is_none()).count();
        assert!(broken > 300 && recounted.len() - broken > 500, "{broken} of {} broken", recounted.len());
    }

    #[test]
    fn each_planted_breach_is_named() {
        let (instance, plan) = (0..).map(planned).find(|(_, plan)| plan.assignments.len() > 8).unwrap();
        verify(&instance, &plan).unwrap();
        let told = |spoil: &dyn Fn(&mut Instance, &mut Plan)| {
            let (mut instance, mut plan) = (instance.clone(), plan.clone());
            spoil(&mut instance, &mut plan);
            let violations = verify(&instance, &plan).expect_err("the breach is seen");
            violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let last = |plan: &Plan| *plan.assignments.last().unwrap();
        type Breach<'a> = (&'a str, &'a dyn Fn(&mut Instance, &mut Plan));
        let breaches: [Breach<'_>; 11] = [
            ("assigned twice", &|_, p| p.assignments.push(last(p))),
            ("neither whole", &|_, p| p.assignments.truncate(p.assignments.len() - 1)),
            ("both rejected", &|_, p| p.rejected.push(last(p).job)),
            ("may not be rejected", &|i, p| i.jobs[p.rejected[0]].rejection_cost = None),
            ("unknown", &|_, p| p.assignments[0].machine = 99),
            ("outside of time", &|_, p| p.assignments[0].end = i64::MAX),
            ("its part arrives", &|i, p| i.jobs[last(p).job].release = 59),
            ("deadline", &|i, p| i.jobs[last(p).job].deadline = Some(0)),
            ("budget", &|i, p| {
                let a = last(p);
                i.jobs[a.job].budget = Some(0);
                i.jobs[a.job].ops[a.op].modes.iter_mut().for_each(|m| m.charge = 1);
            }),
            ("frozen", &|i, p| {
                let a = last(p);
                i.jobs[a.job].ops[a.op].fixed = Some(Fixed { machine: a.machine, start: a.start + 1 });
            }),
            ("claimed bound", &|_, p| p.bound = Some(1 << 40)),
        ];
        for (word, breach) in breaches {
            let what = told(breach);
            assert!(what.contains(word), "{word}: {what}");
        }
    }
}
