//! Refuting a makespan: is there any schedule that short?
//!
//! For a makespan that is asked for, each operation can begin only between its head and what its tail leaves. One
//! binary variable for each operation, machine and tick in there, so that the program is small where the question
//! is tight; an operation is begun once, a machine does one at a time, and an operation is not under way when its
//! successor has begun (row by tick, the disaggregated form of Christofides, Alvarez-Valdes and Tamarit, 1987).
//! Where already the linear relaxation has no solution, or HiGHS finds none in integers, no schedule is that
//! short.

use std::time::{Duration, Instant};

use highs::{Col, HighsModelStatus, Model, RowProblem, Sense};

use super::bound::{Operation, quiet};
use crate::Tick;

/// Programs with more variables, or more places in the machines' rows, than this are not asked.
const COLUMNS_MAX: i64 = 40_000;
const PLACES_MAX: i64 = 4_000_000;
/// The least time that a question is worth asking for.
const LEAST: Duration = Duration::from_millis(50);

/// What HiGHS says of a makespan.
enum Answer {
    Impossible,
    /// There is a solution, of the relaxation or in integers.
    Possible,
    Unknown,
}

/// The best bound by refuting one makespan after another, from `bound` up. `stop` is told each new bound and says
/// whether to go on.
pub(super) fn refute(
    operations: &[Operation],
    machines: usize,
    mut bound: Tick,
    incumbent: Tick,
    until: Instant,
    mut stop: impl FnMut(Tick) -> bool,
) -> Tick {
    // The relaxation first, by bisection: what is possible there at one makespan is so at every longer one.
    let mut possible = incumbent;
    while bound < possible {
        let middle = bound + (possible - bound) / 2;
        match ask(operations, machines, middle, false, until) {
            Answer::Impossible => bound = middle + 1,
            Answer::Possible => possible = middle,
            Answer::Unknown => return bound,
        }
        if stop(bound) {
            return bound;
        }
    }
    while bound < incumbent {
        match ask(operations, machines, bound, true, until) {
            Answer::Impossible => bound += 1,
            Answer::Possible | Answer::Unknown => return bound,
        }
        if stop(bound) {
            return bound;
        }
    }
    bound
}

/// A start: its tick, the tick that it would be done at, its variable.
type Begun = (Tick, Tick, Col);

/// The ticks at which an operation may begin on a machine where it takes `duration`.
fn starts(o: &Operation, duration: Tick, makespan: Tick) -> std::ops::RangeInclusive<Tick> {
    o.head..=makespan - o.tail - duration
}

fn ask(operations: &[Operation], machines: usize, makespan: Tick, integer: bool, until: Instant) -> Answer {
    let left = until.saturating_duration_since(Instant::now());
    let modes = || operations.iter().flat_map(|o| o.modes.iter().map(move |mode| (o, mode)));
    let count = |(o, mode): (&Operation, &(usize, Tick))| (makespan - o.tail - mode.1 - o.head + 1).max(0);
    let columns: i64 = modes().map(count).sum();
    let places =
        modes().map(|(o, mode)| count((o, mode)).saturating_mul(mode.1)).fold(0, i64::saturating_add);
    let ticks = makespan.saturating_mul(machines as i64);
    if left < LEAST || columns > COLUMNS_MAX || places.max(ticks) > PLACES_MAX {
        return Answer::Unknown;
    }
    let mut model = Model::new(program(operations, machines, makespan, integer));
    model.set_sense(Sense::Minimise);
    quiet(&mut model, left);
    match model.try_solve().map(|solved| solved.status()) {
        Ok(HighsModelStatus::Infeasible) => Answer::Impossible,
        Ok(HighsModelStatus::Optimal) => Answer::Possible,
        _ => Answer::Unknown,
    }
}

fn program(operations: &[Operation], machines: usize, makespan: Tick, integer: bool) -> RowProblem {
    let mut model = RowProblem::default();
    let ticks = makespan as usize;
    let mut busy: Vec<Vec<Vec<(Col, f64)>>> = vec![vec![Vec::new(); ticks]; machines];
    let mut before: Option<(usize, Vec<Begun>)> = None;
    for o in operations {
        let mut begun: Vec<Begun> = Vec::new();
        for &(machine, duration) in &o.modes {
            for start in starts(o, duration, makespan) {
                let column = model.add_column_with_integrality(0.0, 0.0..=1.0, integer);
                begun.push((start, start + duration, column));
                busy[machine][start as usize..(start + duration) as usize]
                    .iter_mut()
                    .for_each(|row| row.push((column, 1.0)));
            }
        }
        model.add_row(1.0..=1.0, begun.iter().map(|b| (b.2, 1.0)));
        if let Some((_, before)) = before.filter(|(job, _)| *job == o.job) {
            let last = before.iter().map(|b| b.1).max().unwrap_or(0);
            for tick in o.head..last {
                let under_way = before.iter().filter(|b| b.1 > tick);
                let follows = begun.iter().filter(|b| b.0 <= tick);
                model.add_row(..=1.0, under_way.chain(follows).map(|b| (b.2, 1.0)));
            }
        }
        before = Some((o.job, begun));
    }
    for row in busy.into_iter().flatten().filter(|row| row.len() > 1) {
        model.add_row(..=1.0, row);
    }
    model
}
