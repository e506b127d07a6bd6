//! What a plan is computed from: plants, machines, jobs.
//!
//! The types mirror the exchange format. All numbers are integers, and [`Instance::check`] bounds
//! their magnitudes once, so that no arithmetic on a checked instance can overflow.

use std::collections::HashSet;
use std::fmt::Display;

use crate::{Calendar, Fen, Need, Objective, Resource, Tick};

/// No time in an instance lies beyond this tick.
pub const TICK_MAX: Tick = 1 << 40;
/// No single cost in an instance is above this.
pub const FEN_MAX: Fen = 1 << 50;
/// Jobs times the dearest imaginable job stays below this.
const TOTAL_MAX: i128 = 1 << 58;

/// Setup times between families on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupMatrix {
    families: usize,
    ticks: Vec<Tick>,
    /// By family: the least that its insertion anywhere adds to a machine's setups. Negative where
    /// the matrix breaks the triangle inequality, so that an insertion can save setup time.
    least_increment: Vec<Tick>,
}

impl SetupMatrix {
    /// Builds a square matrix; the error says which row is wrong.
    pub fn new(rows: &[Vec<Tick>]) -> Result<SetupMatrix, String> {
        let families = rows.len();
        let mut ticks = Vec::with_capacity(families * families);
        for (f, row) in rows.iter().enumerate() {
            if row.len() != families {
                return Err(format!("row {f} has {} entries, there are {families} families", row.len()));
            }
            if let Some(g) = row.iter().position(|t| !(0..=TICK_MAX).contains(t)) {
                return Err(format!("entry [{f}][{g}] is {}, allowed are 0 to {TICK_MAX}", row[g]));
            }
            ticks.extend_from_slice(row);
        }
        let mut matrix = SetupMatrix { families, ticks, least_increment: vec![0; families] };
        matrix.least_increment = (0..families).map(|x| matrix.least_increment_of(x)).collect();
        Ok(matrix)
    }

    /// A matrix in which every changeover is free.
    pub(crate) fn free(families: usize) -> SetupMatrix {
        SetupMatrix::without_memory(vec![0; families])
    }

    /// A matrix in which a changeover depends on the family after it alone.
    pub(crate) fn without_memory(row: Vec<Tick>) -> SetupMatrix {
        SetupMatrix { families: row.len(), ticks: row.repeat(row.len()), least_increment: row }
    }

    /// Whether the family before a changeover makes a difference.
    pub(crate) fn has_memory(&self) -> bool {
        self.ticks.chunks(self.families.max(1)).any(|row| row != &self.ticks[..self.families])
    }

    fn least_increment_of(&self, x: usize) -> Tick {
        let between = |f: usize, g: usize| self.ticks[f * self.families + g];
        let mut least = 0;
        for f in 0..self.families {
            for g in 0..self.families {
                least = least.min(between(f, x) + between(x, g) - between(f, g));
            }
        }
        // A free first setup (no initial family) can only make an insertion dearer.
        least
    }

    /// Number of families.
    pub fn families(&self) -> usize {
        self.families
    }

    /// Ticks to change from `before` (or from nothing, free) to `after`.
    pub fn ticks(&self, before: Option<usize>, after: usize) -> Tick {
        before.map_or(0, |f| self.ticks[f * self.families + after])
    }

    pub(crate) fn least_increment(&self, family: usize) -> Tick {
        self.least_increment[family]
    }
}

/// A machine: where it stands, when it is open, and its setups.
///
/// One that holds several parts at once, on pallets say, is here once a place, under one id: the places do one
/// operation each at a time, change over each by itself, and are alike in all but `place`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its name in plans.
    pub id: String,
    /// Which of its places this is, counted from 0; `None` for a machine that does one operation at a time.
    pub place: Option<u32>,
    /// Its class, for people.
    pub class: String,
    /// Index of its plant.
    pub plant: usize,
    /// Its open windows.
    pub calendar: Calendar,
    /// Which of [`Shop::setups`] holds on it.
    pub setup: usize,
    /// Fen for each tick of setup.
    pub setup_cost_per_tick: Fen,
    /// Grams CO2e for each tick of setup.
    pub setup_carbon_per_tick: i64,
    /// The family it is set up for at the start; `None`: the first setup is free.
    pub initial_family: Option<usize>,
}

/// Everything that stands still: plants, ways between them, machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shop {
    /// Names of the plants; every matrix is in this order.
    pub plants: Vec<String>,
    /// Ticks to bring a part from one plant to another.
    pub transport: Vec<Vec<Tick>>,
    /// Fen for that trip.
    pub transport_cost: Vec<Vec<Fen>>,
    /// Grams CO2e for that trip; none where it has no rows.
    pub transport_carbon: Vec<Vec<i64>>,
    /// What that trip counts against a budget, fen; its cost where it has no rows.
    pub transport_charge: Vec<Vec<Fen>>,
    /// Setup matrices; machines say which is theirs.
    pub setups: Vec<SetupMatrix>,
    /// The machines.
    pub machines: Vec<Machine>,
    /// What operations may need besides a machine.
    pub resources: Vec<Resource>,
    /// Sets of needs; operations say which is theirs. The first one, if there is any, is empty.
    pub needs: Vec<Vec<Need>>,
}

impl Shop {
    /// Setup ticks on `machine` from the family before (its initial one where `before` is `None`).
    pub fn setup_ticks(&self, machine: usize, before: Option<usize>, family: usize) -> Tick {
        let m = &self.machines[machine];
        self.setups[m.setup].ticks(before.or(m.initial_family), family)
    }

    /// A set of needs.
    pub fn needs_of(&self, set: usize) -> &[Need] {
        self.needs.get(set).map_or(&[], Vec::as_slice)
    }

    /// The number of a set of needs, which is added where it is new.
    pub fn need_set(&mut self, mut needs: Vec<Need>) -> usize {
        needs.sort_unstable();
        if self.needs.is_empty() {
            self.needs.push(Vec::new());
        }
        self.needs.iter().position(|set| *set == needs).unwrap_or_else(|| {
            self.needs.push(needs);
            self.needs.len() - 1
        })
    }

    /// What a trip counts against a budget, fen.
    pub fn trip_charge(&self, from: usize, to: usize) -> Fen {
        self.transport_charge.get(from).map_or(self.transport_cost[from][to], |row| row[to])
    }

    /// Grams CO2e of a trip.
    pub fn trip_carbon(&self, from: usize, to: usize) -> i64 {
        self.transport_carbon.get(from).map_or(0, |row| row[to])
    }

    /// The least setup ticks that `family` ever needs on `machine`, whatever is done before.
    pub(crate) fn least_setup(&self, machine: usize, family: usize) -> Tick {
        let families = self.setups[self.machines[machine].setup].families();
        let before = (0..families).map(Some).chain([None]);
        before.map(|before| self.setup_ticks(machine, before, family)).min().unwrap_or(0)
    }
}

/// One way to do an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Index of the machine.
    pub machine: usize,
    /// Open ticks of work, without setup.
    pub duration: Tick,
    /// What it adds to the plan's cost.
    pub cost: Fen,
    /// What it counts against the job's budget.
    pub charge: Fen,
    /// Grams CO2e.
    pub carbon: i64,
    /// It may not start before this tick.
    pub earliest: Tick,
}

/// A frozen operation stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Index of the machine.
    pub machine: usize,
    /// Its start.
    pub start: Tick,
}

/// One operation of a job's route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Op {
    /// Its setup family.
    pub family: usize,
    /// Whether it may pause while its machine is closed.
    pub splittable: bool,
    /// The ways to do it, at most one a machine.
    pub modes: Vec<Mode>,
    /// Where it is frozen, if it is.
    pub fixed: Option<Fixed>,
    /// Which of [`Shop::needs`] it has.
    pub needs: usize,
}

impl Op {
    /// The mode on `machine`, if there is one.
    pub fn mode_on(&self, machine: usize) -> Option<&Mode> {
        self.modes.iter().find(|mode| mode.machine == machine)
    }
}

/// A job: operations in sequence, kept whole or rejected whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Its name in plans.
    pub id: String,
    /// No operation begins before this tick.
    pub release: Tick,
    /// Lateness counts from here.
    pub due: Tick,
    /// It must end by this tick, if it is kept.
    pub deadline: Option<Tick>,
    /// Fen for each tick late.
    pub tardiness_weight: Fen,
    /// Fen for being late at all.
    pub late_cost: Fen,
    /// Fen for leaving it out; `None`: it is promised and must be kept.
    pub rejection_cost: Option<Fen>,
    /// The most that modes' charges and transport may come to.
    pub budget: Option<Fen>,
    /// The plant where the part lies at release.
    pub origin: Option<usize>,
    /// Its operations in sequence.
    pub ops: Vec<Op>,
}

impl Job {
    /// What ending at `end` costs for being late.
    pub fn tardiness(&self, end: Tick) -> Fen {
        let late = end - self.due;
        if late > 0 { self.late_cost + self.tardiness_weight * late } else { 0 }
    }
}

/// A shop, the jobs asked of it, and the tick by which everything ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Length of a tick in seconds.
    pub tick_seconds: i64,
    /// The last tick anything may end at.
    pub horizon: Tick,
    /// What is minimised.
    pub objective: Objective,
    /// The machines and what lies between them.
    pub shop: Shop,
    /// The jobs.
    pub jobs: Vec<Job>,
}

/// What is wrong with an instance, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Malformed {
    /// Where, as a path into the instance (`jobs[3].ops[0]`) or a line of the file.
    pub place: String,
    /// Why.
    pub reason: String,
}

impl Malformed {
    pub(crate) fn new(place: impl Into<String>, reason: impl Into<String>) -> Malformed {
        Malformed { place: place.into(), reason: reason.into() }
    }
}

/// `place` is written out only where it is wrong: a large instance has some hundred thousand of them.
#[inline]
fn within(place: impl Display, name: &str, value: i64, least: i64, most: i64) -> Result<(), Malformed> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    refuse(place, format_args!("{name} is {value}, allowed are {least} to {most}"))
}

#[inline]
fn index(place: impl Display, name: &str, value: usize, len: usize) -> Result<(), Malformed> {
    if value < len {
        return Ok(());
    }
    refuse(place, format_args!("{name} {value} does not exist, there are {len}"))
}

/// Apart from what asks for it a million times, which then is small enough to stand inline.
#[cold]
fn refuse(place: impl Display, reason: std::fmt::Arguments) -> Result<(), Malformed> {
    Err(Malformed::new(place.to_string(), reason.to_string()))
}

/// A machine that has two modes, and where the second stands.
fn twice(modes: &[Mode]) -> Option<(usize, usize)> {
    // In order, as they mostly are, none has.
    if modes.is_sorted_by(|a, b| a.machine < b.machine) {
        return None;
    }
    let mut machines: Vec<(usize, usize)> =
        modes.iter().enumerate().map(|(i, mode)| (mode.machine, i)).collect();
    machines.sort_unstable();
    machines.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1])
}

impl Instance {
    /// Checks every index, size and magnitude; [`crate::solve`] refuses what fails here.
    pub fn check(&self) -> Result<(), Malformed> {
        within("tick_seconds", "it", self.tick_seconds, 1, 1 << 20)?;
        within("horizon", "it", self.horizon, 0, TICK_MAX)?;
        self.objective.check()?;
        self.check_ways()?;
        self.check_machines()?;
        self.check_resources()?;
        let mut ids = HashSet::new();
        for (j, job) in self.jobs.iter().enumerate() {
            self.check_job(job).map_err(|e| Malformed::new(format!("jobs[{j}]{}", e.place), e.reason))?;
            if !ids.insert(job.id.as_str()) {
                return Err(Malformed::new(format!("jobs[{j}].id"), format!("\"{}\" is taken", job.id)));
            }
        }
        if self.dearest_job() * (self.jobs.len() as i128) >= TOTAL_MAX
            || u32::try_from(self.jobs.len()).is_err()
        {
            return Err(Malformed::new("jobs", "their costs together are beyond 64-bit arithmetic"));
        }
        Ok(())
    }

    /// The most any one job could cost, kept or rejected, with room for a follower's setups.
    pub(crate) fn dearest_job(&self) -> i128 {
        let trips = self.shop.transport_cost.iter().chain(&self.shop.transport_carbon);
        let trip = trips.flatten().copied().max().unwrap_or(0);
        let longest = |matrix: &SetupMatrix| matrix.ticks.iter().copied().max().unwrap_or(0);
        let setups: Vec<Tick> = self.shop.setups.iter().map(longest).collect();
        self.jobs.iter().map(|job| self.dearest(job, trip, &setups)).max().unwrap_or(0)
    }

    fn dearest(&self, job: &Job, trip: Fen, setups: &[Tick]) -> i128 {
        let mut total = job.rejection_cost.unwrap_or(0) as i128;
        total += self.objective.makespan as i128 * self.horizon as i128 + job.late_cost as i128;
        total += job.tardiness_weight as i128 * (self.horizon - job.due).max(0) as i128;
        for op in &job.ops {
            let mode = |mode: &Mode| {
                let machine = &self.shop.machines[mode.machine];
                let setup = setups[machine.setup];
                let rate = machine.setup_cost_per_tick.max(machine.setup_carbon_per_tick);
                mode.cost.max(mode.charge).max(mode.carbon) as i128 + 2 * setup as i128 * rate as i128
            };
            total += trip as i128 + op.modes.iter().map(mode).max().unwrap_or(0);
        }
        total
    }

    fn check_ways(&self) -> Result<(), Malformed> {
        let n = self.shop.plants.len();
        let ways = [
            ("transport", &self.shop.transport, TICK_MAX),
            ("transport_cost", &self.shop.transport_cost, FEN_MAX),
            ("transport_charge", &self.shop.transport_charge, FEN_MAX),
            ("transport_carbon", &self.shop.transport_carbon, FEN_MAX),
        ];
        for (name, rows, most) in ways {
            let is_optional = ["transport_charge", "transport_carbon"].contains(&name);
            if is_optional && rows.is_empty() {
                continue;
            }
            if rows.len() != n {
                return Err(Malformed::new(
                    name,
                    format!("it has {} rows, there are {n} plants", rows.len()),
                ));
            }
            for (a, row) in rows.iter().enumerate() {
                let place = format!("{name}[{a}]");
                if row.len() != n {
                    return Err(Malformed::new(place, format!("{} entries for {n} plants", row.len())));
                }
                row.iter().try_for_each(|&x| within(&place, "an entry", x, 0, most))?;
                if name == "transport" {
                    within(&place, "the diagonal", row[a], 0, 0)?;
                }
            }
        }
        Ok(())
    }

    fn check_machines(&self) -> Result<(), Malformed> {
        let mut ids = HashSet::new();
        for (i, m) in self.shop.machines.iter().enumerate() {
            let place = format!("machines[{i}]");
            let before = i.checked_sub(1).map(|before| &self.shop.machines[before]);
            let next_place = before.is_some_and(|before| {
                before.place.is_some()
                    && *m == Machine { place: before.place.map(|p| p + 1), ..before.clone() }
            });
            if !next_place && (!ids.insert(m.id.as_str()) || m.place.is_some_and(|p| p > 0)) {
                return Err(Malformed::new(format!("{place}.id"), format!("\"{}\" is taken", m.id)));
            }
            index(&place, "plant", m.plant, self.shop.plants.len())?;
            index(&place, "setup matrix", m.setup, self.shop.setups.len())?;
            within(&place, "setup_cost_per_tick", m.setup_cost_per_tick, 0, FEN_MAX)?;
            within(&place, "setup_carbon_per_tick", m.setup_carbon_per_tick, 0, FEN_MAX)?;
            let families = self.shop.setups[m.setup].families();
            if let Some(f) = m.initial_family {
                index(&place, "initial_family", f, families)?;
            }
            if let Some(last) = m.calendar.windows().last() {
                within(format_args!("{place}.open"), "the last window's end", last.1, 0, self.horizon)?;
            }
        }
        Ok(())
    }

    fn check_resources(&self) -> Result<(), Malformed> {
        let mut ids = HashSet::new();
        for (i, resource) in self.shop.resources.iter().enumerate() {
            if !ids.insert(resource.id.as_str()) {
                let reason = format!("\"{}\" is taken", resource.id);
                return Err(Malformed::new(format!("resources[{i}].id"), reason));
            }
            within(format_args!("resources[{i}]"), "units", resource.units.into(), 1, u32::MAX.into())?;
        }
        if self.shop.needs.first().is_some_and(|first| !first.is_empty()) {
            return Err(Malformed::new("needs[0]", "the first set of needs is not empty"));
        }
        for (i, needs) in self.shop.needs.iter().enumerate() {
            let mut seen = HashSet::new();
            for need in needs {
                index(format_args!("needs[{i}]"), "resource", need.resource, self.shop.resources.len())?;
                if !seen.insert(need.resource) {
                    let reason = format!("resource {} is needed twice", need.resource);
                    return Err(Malformed::new(format!("needs[{i}]"), reason));
                }
            }
        }
        Ok(())
    }

    fn check_job(&self, job: &Job) -> Result<(), Malformed> {
        within(".release", "it", job.release, 0, TICK_MAX)?;
        within(".due", "it", job.due, 0, TICK_MAX)?;
        within(".deadline", "it", job.deadline.unwrap_or(0), 0, TICK_MAX)?;
        within(".tardiness_weight", "it", job.tardiness_weight, 0, FEN_MAX)?;
        within(".late_cost", "it", job.late_cost, 0, FEN_MAX)?;
        within(".rejection_cost", "it", job.rejection_cost.unwrap_or(0), 0, FEN_MAX)?;
        within(".budget", "it", job.budget.unwrap_or(0), 0, FEN_MAX)?;
        if let Some(origin) = job.origin {
            index(".origin", "plant", origin, self.shop.plants.len())?;
        }
        if job.ops.is_empty() {
            return Err(Malformed::new(".ops", "the job has no operation"));
        }
        if job.ops.len() > usize::from(u16::MAX) {
            return Err(Malformed::new(".ops", "more than 65,535 operations"));
        }
        for (k, op) in job.ops.iter().enumerate() {
            self.check_op(op).map_err(|e| Malformed::new(format!(".ops[{k}]{}", e.place), e.reason))?;
        }
        Ok(())
    }

    fn check_op(&self, op: &Op) -> Result<(), Malformed> {
        if op.modes.is_empty() {
            return Err(Malformed::new(".modes", "there is no machine to do it on"));
        }
        for (i, mode) in op.modes.iter().enumerate() {
            let place = format_args!(".modes[{i}]");
            index(place, "machine", mode.machine, self.shop.machines.len())?;
            let families = self.shop.setups[self.shop.machines[mode.machine].setup].families();
            index(format_args!("{place}: family on its machine"), "family", op.family, families)?;
            within(place, "duration", mode.duration, 1, TICK_MAX)?;
            within(place, "cost", mode.cost, 0, FEN_MAX)?;
            within(place, "charge", mode.charge, 0, FEN_MAX)?;
            within(place, "carbon", mode.carbon, 0, FEN_MAX)?;
            within(place, "earliest", mode.earliest, 0, TICK_MAX)?;
        }
        if let Some((machine, i)) = twice(&op.modes) {
            return Err(Malformed::new(format!(".modes[{i}]"), format!("machine {machine} has two modes")));
        }
        self.check_places(op)?;
        index(".needs", "set of needs", op.needs, self.shop.needs.len().max(1))?;
        if let Some(fixed) = op.fixed {
            within(".fixed", "start", fixed.start, 0, TICK_MAX)?;
            if op.mode_on(fixed.machine).is_none() {
                let reason = format!("it is fixed on machine {}, where it has no mode", fixed.machine);
                return Err(Malformed::new(".fixed", reason));
            }
        }
        Ok(())
    }

    /// An operation that one place of a machine may do, every place of it may do alike.
    fn check_places(&self, op: &Op) -> Result<(), Malformed> {
        let machines = &self.shop.machines;
        for (i, mode) in op.modes.iter().enumerate() {
            let Some(place) = machines[mode.machine].place else { continue };
            let next = machines.get(mode.machine + 1).filter(|m| m.place == Some(place + 1));
            let first = mode.machine - place as usize;
            let others = [(place > 0).then_some(first), next.map(|_| mode.machine + 1)];
            for other in others.into_iter().flatten() {
                if op.mode_on(other) != Some(&Mode { machine: other, ..mode.clone() }) {
                    let reason = format!("the places of \"{}\" do not do it alike", machines[other].id);
                    return Err(Malformed::new(format!(".modes[{i}]"), reason));
                }
            }
        }
        Ok(())
    }

    /// Refuses an operation that fits no window of any of its machines, even without setup. The
    /// readers ask this of a file; a live plan may hold such an operation after a breakdown.
    pub fn check_fits(&self) -> Result<(), Malformed> {
        for (j, job) in self.jobs.iter().enumerate() {
            for (k, op) in job.ops.iter().enumerate() {
                let fits = |mode: &Mode| {
                    let calendar = &self.shop.machines[mode.machine].calendar;
                    calendar.earliest(0, mode.duration, op.splittable, TICK_MAX).is_some()
                };
                if !op.modes.iter().any(fits) {
                    let place = format!("jobs[{j}].ops[{k}]");
                    return Err(Malformed::new(place, "it fits no open window of any of its machines"));
                }
            }
        }
        Ok(())
    }
}
