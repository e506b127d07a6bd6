//! The set-packing master: a plan better than the pieces it is assembled from.
//!
//! The search leaves columns behind: a job's chain, as it stood in some plan; and so does the bound: the chain that a
//! job would have at its prices. The master takes some neighbouring jobs, puts them back in many orders for columns
//! that go with the rest of the plan, and chooses at most one column a job, and at most one occupation on a machine
//! at a time, at the least cost (HiGHS, through good_lp). Setups are taken as they stood in the column's own plan, so
//! what comes out is laid on the lines anew; a job that no longer fits is inserted again. It knows neither resources
//! nor the makespan: what it gives is taken only where it turns out better.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use good_lp::{Expression, ProblemVariables, Solution, SolverModel, Variable, constraint, variable};

use crate::bound::Choice;
use crate::place::Placer;
use crate::random::Random;
use crate::state::State;
use crate::{Fen, Fixed, Instance, Step, Tick};

/// Columns that a pool keeps a job, the newest.
const COLUMNS_MAX: usize = 10;
/// Jobs that one master decides on; the others stay as they are.
const JOBS_MAX: usize = 40;
/// How often these are put back in another order, for columns that go with what stays.
const RECREATIONS: usize = 40;

/// Occupations closer than this have nothing between them.
const CLOSE_TICKS: Tick = 30;

/// A job's chain as it stood in some plan.
#[derive(Clone, Debug, PartialEq)]
struct Column {
    steps: Arc<[Step]>,
    /// Modes, setups, transport and tardiness there.
    cost: Fen,
}

/// The columns met, by job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    columns: Vec<Vec<Column>>,
}

impl Pool {
    pub(crate) fn new(instance: &Instance) -> Pool {
        Pool { columns: vec![Vec::new(); instance.jobs.len()] }
    }

    /// Takes the chains of a plan in.
    pub(crate) fn collect(&mut self, state: &State<'_>) {
        for (j, columns) in self.columns.iter_mut().enumerate() {
            if state.keeps(j) {
                file(columns, COLUMNS_MAX, state.steps_of(j), || state.column_cost(j));
            }
        }
    }

    /// Takes in what a job would have at the bound's prices, if there is such a chain: as early as its starts,
    /// which are rounded down, allow.
    pub(crate) fn price(&mut self, instance: &Instance, j: usize, choice: &Choice) {
        if let Some((steps, cost)) = chain(instance, j, choice) {
            file(&mut self.columns[j], COLUMNS_MAX, &steps, || cost);
        }
    }
}

/// Takes the chosen jobs out, with what cannot stand without them, and puts them back in random orders: where
/// each then stands. `None` where frozen work forbids it, or where it is told to `stop`.
fn recreate(
    best: &State<'_>,
    chosen: &mut BTreeSet<usize>,
    random: &mut Random,
    stop: &dyn Fn() -> bool,
) -> Option<BTreeMap<usize, Vec<Column>>> {
    let mut state = best.clone();
    let mut out = Vec::new();
    for &j in &*chosen {
        if state.keeps(j) && !state.remove(j, &mut out) {
            return None;
        }
    }
    chosen.extend(out.iter().map(|&j| j as usize));
    let mut columns: BTreeMap<usize, Vec<Column>> = chosen.iter().map(|&j| (j, Vec::new())).collect();
    let mut placer = Placer::blinking(random.below(1 << 30) as u64);
    let mut order: Vec<usize> = chosen.iter().copied().collect();
    for _ in 0..RECREATIONS {
        if stop() {
            return None;
        }
        state.mark();
        (1..order.len()).for_each(|i| order.swap(i, random.below(i + 1)));
        for &j in &order {
            state.insert_best(&mut placer, j, state.absence(j));
        }
        for (&j, columns) in columns.iter_mut().filter(|(j, _)| state.keeps(**j)) {
            file(columns, RECREATIONS, state.steps_of(j), || state.column_cost(j));
        }
        state.undo();
    }
    Some(columns)
}

/// Files a column as the newest of its job's.
fn file(columns: &mut Vec<Column>, most: usize, steps: &[Step], cost: impl FnOnce() -> Fen) {
    if let Some(at) = columns.iter().position(|c| *c.steps == *steps) {
        columns[at..].rotate_left(1);
        return;
    }
    if columns.len() == most {
        columns.remove(0);
    }
    columns.push(Column { steps: steps.into(), cost: cost() });
}

/// The steps of a choice and what they cost, without setups; `None` where they break one of the job's own rules.
fn chain(instance: &Instance, j: usize, choice: &Choice) -> Option<(Vec<Step>, Fen)> {
    let (job, shop) = (&instance.jobs[j], &instance.shop);
    let (mut at, mut ready, mut cost) = (job.origin, job.release, 0);
    let mut steps = Vec::new();
    for (op, &(mode, start)) in job.ops.iter().zip(choice) {
        let mode = &op.modes[mode];
        let there = shop.machines[mode.machine].plant;
        if let Some(here) = at {
            ready += shop.transport[here][there];
            cost += shop.transport_cost[here][there];
        }
        let from = ready.max(start).max(mode.earliest);
        let calendar = &shop.machines[mode.machine].calendar;
        let (start, end) = calendar.earliest(from, mode.duration, op.splittable, instance.horizon)?;
        if op.fixed.is_some_and(|fixed| (fixed.machine, fixed.start) != (mode.machine, start)) {
            return None;
        }
        steps.push(Step { machine: mode.machine, start, end, setup: 0 });
        cost += mode.cost;
        (at, ready) = (Some(there), end);
    }
    let holds = steps.len() == job.ops.len() && job.deadline.is_none_or(|deadline| ready <= deadline);
    holds.then_some((steps, cost + job.tardiness(ready)))
}

/// A job and the chain that the master gives it; `None`: it is left out.
pub(crate) type Decision = (usize, Option<Vec<Fixed>>);

/// One master problem, ready to be solved on any thread.
pub(crate) struct Master {
    /// Job, what is saved against rejecting it, and whether it stands in the plan to improve.
    columns: Vec<(usize, Arc<[Step]>, Fen, bool)>,
    promised: BTreeSet<usize>,
    /// By machine: what stands on it in some column.
    lines: BTreeMap<usize, Vec<Stay>>,
    /// Pairs that would stand one behind the other without time for the setup between them.
    clashes: Vec<(usize, usize)>,
}

/// An occupation of a column.
struct Stay {
    start: Tick,
    end: Tick,
    column: usize,
    family: usize,
    /// As it was in the column's own plan.
    setup: Tick,
}

impl Master {
    /// The master of the jobs around a random machine and time; every other job of `best` stays.
    /// Given up where it is told to `stop`.
    pub(crate) fn around(
        pools: [&Pool; 2],
        best: &State<'_>,
        random: &mut Random,
        stop: &dyn Fn() -> bool,
    ) -> Option<Master> {
        let instance = best.instance;
        let mut chosen = neighbourhood(best, random);
        let recreated = recreate(best, &mut chosen, random, stop)?;
        let mut blocked: Vec<Vec<(Tick, Tick)>> = vec![Vec::new(); instance.shop.machines.len()];
        for j in (0..instance.jobs.len()).filter(|j| best.keeps(*j) && !chosen.contains(j)) {
            best.steps_of(j).iter().for_each(|s| blocked[s.machine].push((s.start, s.end)));
        }
        blocked.iter_mut().for_each(|line| line.sort_unstable());
        let free = |s: &Step| {
            let line = &blocked[s.machine];
            let at = line.partition_point(|b| b.1 <= s.start);
            line.get(at).is_none_or(|b| b.0 >= s.end)
        };
        let mut columns: Vec<(usize, Arc<[Step]>, Fen, bool)> = Vec::new();
        let mut promised = BTreeSet::new();
        for &j in &chosen {
            let out = instance.jobs[j].rejection_cost;
            let here = best.keeps(j).then(|| best.steps_of(j));
            if out.is_none() && here.is_some() {
                promised.insert(j);
            }
            let first = columns.len();
            let mut seen_here = false;
            let met = pools.iter().flat_map(|pool| &pool.columns[j]);
            for column in met.chain(&recreated[&j]) {
                let stands = here == Some(&*column.steps);
                let is_new = !columns[first..].iter().any(|(_, steps, ..)| *steps == column.steps);
                seen_here |= stands;
                if is_new && (stands || column.steps.iter().all(free)) {
                    columns.push((j, column.steps.clone(), column.cost - best.absence(j), stands));
                }
            }
            if let Some(steps) = here.filter(|_| !seen_here) {
                columns.push((j, steps.into(), best.column_cost(j) - best.absence(j), true));
            }
        }
        let lines = lines_of(instance, &columns);
        let shop = &instance.shop;
        let clashes = lines.iter().flat_map(|(&m, line)| clashes_on(shop, m, line));
        // Two that stand together may have something short between them.
        let clashes = clashes.filter(|&(c, d)| !(columns[c].3 && columns[d].3)).collect();
        (columns.len() > chosen.len()).then_some(Master { columns, promised, lines, clashes })
    }

    /// Solves it on a thread of its own, so that the caller never waits for HiGHS longer than it
    /// wants: the answer comes through the channel, or is never asked for.
    pub(crate) fn start(self, limit: Duration) -> mpsc::Receiver<Vec<Decision>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        crate::stragglers::leave(std::thread::spawn(move || {
            if let Some(chains) = self.solve(limit) {
                // Whoever asked may have gone.
                let _ = sender.send(chains);
            }
        }));
        receiver
    }

    fn solve(&self, limit: Duration) -> Option<Vec<Decision>> {
        let mut variables = ProblemVariables::new();
        let columns: Vec<Variable> = self
            .columns
            .iter()
            .map(|column| variables.add(variable().binary().initial(if column.3 { 1.0 } else { 0.0 })))
            .collect();
        let saved: Expression = self.columns.iter().zip(&columns).map(|(c, &x)| c.2 as f64 * x).sum();
        let mut model = variables
            .minimise(saved)
            .using(good_lp::highs)
            .set_threads(1)
            .set_time_limit(limit.as_secs_f64())
            .set_mip_rel_gap(1e-4)
            .ok()?;
        model.set_verbose(false);
        for (job, members) in self.by_job() {
            let sum: Expression = members.iter().map(|&c| Expression::from(columns[c])).sum();
            model.add_constraint(match self.promised.contains(&job) {
                true => constraint!(sum == 1),
                false => constraint!(sum <= 1),
            });
        }
        for clique in self.cliques() {
            let sum: Expression = clique.iter().map(|&c| Expression::from(columns[c])).sum();
            model.add_constraint(constraint!(sum <= 1));
        }
        for &(c, d) in &self.clashes {
            model.add_constraint(constraint!(columns[c] + columns[d] <= 1));
        }
        let solution = model.solve().ok()?;
        let places = |steps: &[Step]| -> Vec<Fixed> {
            steps.iter().map(|s| Fixed { machine: s.machine, start: s.start }).collect()
        };
        let decide = |(job, members): (usize, Vec<usize>)| {
            let chosen = members.into_iter().find(|&c| solution.value(columns[c]) > 0.5);
            (job, chosen.map(|c| places(&self.columns[c].1)))
        };
        Some(self.by_job().into_iter().map(decide).collect())
    }

    fn by_job(&self) -> BTreeMap<usize, Vec<usize>> {
        let mut jobs: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (c, column) in self.columns.iter().enumerate() {
            jobs.entry(column.0).or_default().push(c);
        }
        jobs
    }

    /// The columns that would be on one machine at one time, wherever that set is a largest one.
    fn cliques(&self) -> Vec<Vec<usize>> {
        let events = self.lines.values().map(|line| {
            // Ends sort before starts of the same tick.
            let events = line.iter().flat_map(|s| [(s.start, true, s.column), (s.end, false, s.column)]);
            events.collect::<BTreeSet<(Tick, bool, usize)>>()
        });
        let mut cliques = Vec::new();
        for line in events {
            let mut open: Vec<usize> = Vec::new();
            let mut grown = false;
            for (_, starts, c) in line {
                if starts {
                    open.push(c);
                    grown = true;
                    continue;
                }
                if std::mem::take(&mut grown) && open.len() > 1 {
                    cliques.push(open.clone());
                }
                open.retain(|&x| x != c);
            }
        }
        cliques
    }
}

fn lines_of(instance: &Instance, columns: &[(usize, Arc<[Step]>, Fen, bool)]) -> BTreeMap<usize, Vec<Stay>> {
    let mut lines: BTreeMap<usize, Vec<Stay>> = BTreeMap::new();
    for (column, (job, steps, ..)) in columns.iter().enumerate() {
        for (op, s) in instance.jobs[*job].ops.iter().zip(steps.iter()) {
            let stay = Stay { start: s.start, end: s.end, column, family: op.family, setup: s.setup };
            lines.entry(s.machine).or_default().push(stay);
        }
    }
    lines.values_mut().for_each(|line| line.sort_unstable_by_key(|s| (s.start, s.end)));
    lines
}

/// Pairs on one machine that stand so close that nothing comes between them, with less time than the
/// setup between their families takes.
fn clashes_on(shop: &crate::Shop, machine: usize, line: &[Stay]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for (i, after) in line.iter().enumerate() {
        let near = |s: &&Stay| s.end <= after.start && s.end + CLOSE_TICKS > after.start;
        for before in line[..i].iter().filter(near).filter(|s| s.column != after.column) {
            let setup = shop.setup_ticks(machine, Some(before.family), after.family);
            if setup > after.setup + (after.start - before.end) {
                pairs.push((before.column, after.column));
            }
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// Jobs around a random machine and time: those that could use it and are due about then, then such of the machines
/// that these could use, and so on.
fn neighbourhood(best: &State<'_>, random: &mut Random) -> BTreeSet<usize> {
    let instance = best.instance;
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); instance.shop.machines.len()];
    for (j, job) in instance.jobs.iter().enumerate().filter(|(j, _)| !best.is_frozen(*j)) {
        job.ops.iter().flat_map(|op| &op.modes).for_each(|mode| users[mode.machine].push(j));
    }
    let about = random.below(instance.horizon as usize + 1) as Tick;
    let mut chosen = BTreeSet::new();
    let mut queue = std::collections::VecDeque::from([random.below(users.len())]);
    while let Some(machine) = queue.pop_front() {
        let mut here = std::mem::take(&mut users[machine]);
        here.sort_by_key(|&j| (instance.jobs[j].due - about).abs());
        for j in here.into_iter().take(JOBS_MAX / 2) {
            if chosen.len() < JOBS_MAX && chosen.insert(j) {
                queue.extend(instance.jobs[j].ops.iter().flat_map(|op| &op.modes).map(|mode| mode.machine));
            }
        }
        if chosen.len() >= JOBS_MAX {
            break;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Search;
    use crate::tiny;

    /// HiGHS starts from what stands, so that has to be a solution, with each job in it once.
    #[test]
    fn what_stands_solves_its_own_master() {
        let (mut stood, mut chosen) = (0, 0);
        for seed in 0..60 {
            let instance = tiny::instance(seed, 30, 3, 300);
            let mut search = Search::new(State::empty(&instance), seed);
            let (mut pool, priced) = (Pool::new(&instance), Pool::new(&instance));
            for i in 0..2000 {
                search.attempt(f64::from(i) / 2000.0);
                if i % 100 == 0 {
                    pool.collect(&search.state);
                }
            }
            let best = search.best_state();
            pool.collect(&best);
            let mut random = Random::new(seed);
            let Some(master) = Master::around([&pool, &priced], &best, &mut random, &|| false) else {
                continue;
            };
            let stands = |c: &usize| master.columns[*c].3;
            for members in master.by_job().into_values() {
                let here = best.keeps(master.columns[members[0]].0);
                let count = members.iter().filter(|c| stands(c)).count();
                assert_eq!(count, usize::from(here), "seed {seed}");
                stood += count;
            }
            assert!(!master.clashes.iter().any(|(c, d)| stands(c) && stands(d)), "seed {seed}");
            for clique in master.cliques() {
                assert!(clique.iter().filter(|c| stands(c)).count() <= 1, "seed {seed}");
            }
            chosen += master.columns.len();
        }
        assert!(stood > 300 && chosen > 3 * stood, "{chosen} columns, {stood} stand");
    }
}
