//! A lower bound on the makespan, by assigning operations to machines.
//!
//! The relaxation forgets the order on a machine and keeps the assignment: each operation runs on one
//! machine, and the makespan is at least every job's length and every machine's load. Loads are
//! sharpened by heads and tails: among operations on one machine that cannot begin before `r` and
//! leave at least `q` to do behind them, the work done fits between `r` and the makespan less `q`.
//! Those rows are separated exactly on the linear relaxation, a few rounds, and then the assignment
//! is solved in integers. HiGHS may stop early: its dual bound is still a bound.

use std::time::{Duration, Instant};

use highs::{Col, HighsModelStatus, Model, RowProblem, Sense};

use crate::{Instance, Tick};

/// Rounds of cuts on the linear relaxation.
const ROUNDS_MAX: usize = 20;
/// The first slice of time for the program in integers; each further one is twice as long. A proof
/// that nobody wants any more then ends soon, measured by what it has taken already.
const FIRST_SLICE: Duration = Duration::from_secs(1);
/// Slack for HiGHS's tolerances before a value is rounded up.
const TOLERANCE: f64 = 1e-6;

/// An operation, with the least that comes before and behind it in its job.
pub(super) struct Operation {
    pub(super) head: Tick,
    pub(super) tail: Tick,
    pub(super) job: usize,
    /// Machine and duration.
    pub(super) modes: Vec<(usize, Tick)>,
}

/// A cut: on `machine`, the operations with head at least `head` and tail at least `tail`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Cut {
    machine: usize,
    head: Tick,
    tail: Tick,
}

pub(super) fn operations(instance: &Instance) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (j, job) in instance.jobs.iter().enumerate() {
        let least: Vec<Tick> =
            job.ops.iter().map(|op| op.modes.iter().map(|m| m.duration).min().unwrap_or(0)).collect();
        for (k, op) in job.ops.iter().enumerate() {
            operations.push(Operation {
                head: least[..k].iter().sum(),
                tail: least[k + 1..].iter().sum(),
                job: j,
                modes: op.modes.iter().map(|m| (m.machine, m.duration)).collect(),
            });
        }
    }
    operations
}

/// What holds without any solver: the longest job, and all work spread evenly.
pub(super) fn plain(instance: &Instance) -> Tick {
    let operations = operations(instance);
    let longest = operations.iter().map(|o| o.head + least(o) + o.tail).max().unwrap_or(0);
    let work: Tick = operations.iter().map(least).sum();
    let machines = instance.shop.machines.len().max(1) as Tick;
    longest.max((work + machines - 1) / machines)
}

fn least(o: &Operation) -> Tick {
    o.modes.iter().map(|m| m.1).min().unwrap_or(0)
}

struct Program {
    model: RowProblem,
    makespan: Col,
    columns: Vec<Vec<Col>>,
}

fn program(operations: &[Operation], least: Tick, most: Tick, integer: bool, cuts: &[Cut]) -> Program {
    let mut model = RowProblem::default();
    let makespan = model.add_column_with_integrality(1.0, least as f64..=most as f64, integer);
    let columns: Vec<Vec<Col>> = operations
        .iter()
        .map(|o| o.modes.iter().map(|_| model.add_column_with_integrality(0.0, 0.0..=1.0, integer)).collect())
        .collect();
    for columns in &columns {
        model.add_row(1.0..=1.0, columns.iter().map(|&c| (c, 1.0)));
    }
    let jobs = operations.last().map_or(0, |o| o.job + 1);
    let mut lengths: Vec<Vec<(Col, f64)>> = vec![vec![(makespan, -1.0)]; jobs];
    for (o, columns) in operations.iter().zip(&columns) {
        lengths[o.job].extend(columns.iter().zip(&o.modes).map(|(&c, m)| (c, m.1 as f64)));
    }
    lengths.into_iter().for_each(|row| {
        model.add_row(..=0.0, row);
    });
    let program = Program { model, makespan, columns };
    cuts.iter().fold(program, |mut program, cut| {
        let (bounds, row) = program.row(operations, cut);
        program.model.add_row(bounds, row);
        program
    })
}

impl Program {
    fn row(&self, operations: &[Operation], cut: &Cut) -> (std::ops::RangeToInclusive<f64>, Vec<(Col, f64)>) {
        let mut row = vec![(self.makespan, -1.0)];
        for (o, columns) in operations.iter().zip(&self.columns) {
            if o.head >= cut.head && o.tail >= cut.tail {
                let here = columns.iter().zip(&o.modes).filter(|(_, m)| m.0 == cut.machine);
                row.extend(here.map(|(&c, m)| (c, m.1 as f64)));
            }
        }
        (..=-((cut.head + cut.tail) as f64), row)
    }
}

/// The most violated cut of each machine at a fractional assignment.
fn separate(instance: &Instance, operations: &[Operation], x: &[Vec<f64>], makespan: f64) -> Vec<Cut> {
    let mut cuts = Vec::new();
    for machine in 0..instance.shop.machines.len() {
        let mut here: Vec<(Tick, Tick, f64)> = Vec::new();
        for (o, x) in operations.iter().zip(x) {
            let share = o.modes.iter().zip(x).find(|(m, x)| m.0 == machine && **x > 1e-9);
            here.extend(share.map(|(m, x)| (o.head, o.tail, m.1 as f64 * x)));
        }
        // By falling tail, so that the loads of all thresholds fall out of one sweep a head.
        here.sort_unstable_by_key(|h| std::cmp::Reverse(h.1));
        let mut heads: Vec<Tick> = here.iter().map(|h| h.0).collect();
        heads.sort_unstable();
        heads.dedup();
        let mut worst = (makespan + 1e-4, None);
        for head in heads {
            let mut load = 0.0;
            for (_, tail, work) in here.iter().filter(|h| h.0 >= head) {
                load += work;
                let value = (head + tail) as f64 + load;
                if value > worst.0 {
                    worst = (value, Some(Cut { machine, head, tail: *tail }));
                }
            }
        }
        cuts.extend(worst.1);
    }
    cuts
}

pub(super) fn quiet(model: &mut Model, left: Duration) {
    model.make_quiet();
    model.set_option("threads", 1);
    model.set_option("time_limit", left.as_secs_f64().max(0.01));
}

/// The best bound that the time allows; `incumbent` is a makespan that can be had. `stop` is looked
/// at between calls of HiGHS, each of which ends by `until`.
pub(super) fn assignment(
    instance: &Instance,
    incumbent: Tick,
    until: Instant,
    mut report: impl FnMut(Tick) -> bool,
) -> Tick {
    let operations = operations(instance);
    let mut bound = plain(instance);
    let mut cuts: Vec<Cut> =
        (0..instance.shop.machines.len()).map(|machine| Cut { machine, head: 0, tail: 0 }).collect();
    if bound >= incumbent || operations.is_empty() {
        return bound;
    }
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    let relaxed = program(&operations, bound, incumbent, false, &cuts);
    let mut model = Model::new(relaxed.model.clone());
    model.set_sense(Sense::Minimise);
    for _ in 0..ROUNDS_MAX {
        quiet(&mut model, left(until));
        let Ok(solved) = model.try_solve() else { return bound };
        if solved.status() != HighsModelStatus::Optimal {
            return bound;
        }
        bound = bound.max((solved.objective_value() - TOLERANCE).ceil() as Tick);
        if report(bound) || bound >= incumbent || left(until).is_zero() {
            return bound;
        }
        let solution = solved.get_solution();
        let value = |c: &Col| solution.columns()[c.index()];
        let x: Vec<Vec<f64>> =
            relaxed.columns.iter().map(|columns| columns.iter().map(value).collect()).collect();
        let fresh = separate(instance, &operations, &x, value(&relaxed.makespan));
        if fresh.is_empty() {
            break;
        }
        model = Model::from(solved);
        for cut in &fresh {
            let (bounds, row) = relaxed.row(&operations, cut);
            model.add_row(bounds, row);
        }
        cuts.extend(fresh);
    }
    let mut slice = FIRST_SLICE;
    loop {
        let end = until.min(Instant::now() + slice);
        let (proven, done) = in_integers(&operations, bound, incumbent, end, &cuts);
        bound = bound.max(proven);
        if done || report(bound) || bound >= incumbent || left(until) < FIRST_SLICE / 4 {
            return bound;
        }
        slice *= 2;
    }
}

/// What HiGHS proves until then, and whether it need not be asked again.
fn in_integers(
    operations: &[Operation],
    bound: Tick,
    incumbent: Tick,
    until: Instant,
    cuts: &[Cut],
) -> (Tick, bool) {
    let program = program(operations, bound, incumbent, true, cuts);
    let mut model = Model::new(program.model);
    model.set_sense(Sense::Minimise);
    quiet(&mut model, until.saturating_duration_since(Instant::now()));
    model.set_option("mip_rel_gap", 0.0);
    model.set_option("mip_abs_gap", 0.999);
    let Ok(solved) = model.try_solve() else { return (bound, true) };
    let done = solved.status() != HighsModelStatus::ReachedTimeLimit;
    match solved.double_info_value(c"mip_dual_bound") {
        Ok(dual) if dual.is_finite() => (bound.max((dual - TOLERANCE).ceil() as Tick).min(incumbent), done),
        _ => (bound, done),
    }
}
