//! The exchange formats: instances and plans as JSON, and the flexible job shop's text format.
//!
//! Readers refuse what is malformed with its place and the reason, and never panic: every file is
//! taken to be hostile. The structs here are the wire's shape; [`crate::Instance`] is the solver's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Assignment, Calendar, Fen, Fixed, Instance, Job, Machine, Malformed, Mode, Objective, Op, Plan,
    SetupMatrix, Shop, TICK_MAX, Tick,
};

/// The value of an instance's `format` field.
pub const INSTANCE_FORMAT: &str = "alliance-instance/1";

#[derive(Serialize, Deserialize)]
struct WireInstance {
    format: String,
    name: String,
    tick_seconds: i64,
    horizon: Tick,
    plants: Vec<String>,
    transport: Vec<Vec<Tick>>,
    transport_cost: Vec<Vec<Fen>>,
    setup: Vec<Vec<Tick>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    setup_matrices: Vec<Vec<Vec<Tick>>>,
    machines: Vec<WireMachine>,
    jobs: Vec<WireJob>,
}

#[derive(Serialize, Deserialize)]
struct WireMachine {
    id: String,
    #[serde(default)]
    class: String,
    plant: usize,
    open: Vec<(Tick, Tick)>,
    setup_cost_per_tick: Fen,
    #[serde(default)]
    initial_family: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    setup_matrix: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct WireJob {
    id: String,
    release: Tick,
    due: Tick,
    #[serde(default)]
    deadline: Option<Tick>,
    tardiness_weight: Fen,
    #[serde(default)]
    rejection_cost: Option<Fen>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    budget: Option<Fen>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<usize>,
    ops: Vec<WireOp>,
}

#[derive(Serialize, Deserialize)]
struct WireOp {
    family: usize,
    #[serde(default)]
    splittable: bool,
    modes: Vec<WireMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fixed: Option<WireFixed>,
}

#[derive(Serialize, Deserialize)]
struct WireMode {
    machine: usize,
    duration: Tick,
    cost: Fen,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    charge: Option<Fen>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    earliest: Option<Tick>,
}

#[derive(Serialize, Deserialize)]
struct WireFixed {
    machine: usize,
    start: Tick,
}

#[derive(Serialize, Deserialize)]
struct WirePlan {
    instance: String,
    assignments: Vec<WireAssignment>,
    #[serde(default)]
    rejected: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    objective: Option<Fen>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bound: Option<Fen>,
}

#[derive(Serialize, Deserialize)]
struct WireAssignment {
    job: String,
    op: usize,
    machine: String,
    start: Tick,
    end: Tick,
}

fn unreadable(error: &serde_json::Error) -> Malformed {
    let place = format!("line {} column {}", error.line(), error.column());
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    Malformed::new(place, reason)
}

/// Reads an instance in either format: JSON where the text begins with a brace, else `.fjs`.
pub fn read_instance(name: &str, text: &str) -> Result<Instance, Malformed> {
    match text.trim_start().starts_with('{') {
        true => read_json(text),
        false => read_fjs(name, text),
    }
}

/// Reads an alliance instance.
pub fn read_json(text: &str) -> Result<Instance, Malformed> {
    let wire: WireInstance = serde_json::from_str(text).map_err(|e| unreadable(&e))?;
    if wire.format != INSTANCE_FORMAT {
        let reason = format!("\"{}\" is not \"{INSTANCE_FORMAT}\"", wire.format);
        return Err(Malformed::new("format", reason));
    }
    let mut setups = Vec::with_capacity(1 + wire.setup_matrices.len());
    setups.push(SetupMatrix::new(&wire.setup).map_err(|e| Malformed::new("setup", e))?);
    for (i, rows) in wire.setup_matrices.iter().enumerate() {
        let place = format!("setup_matrices[{i}]");
        setups.push(SetupMatrix::new(rows).map_err(|e| Malformed::new(place, e))?);
    }
    let mut machines = Vec::with_capacity(wire.machines.len());
    for (i, m) in wire.machines.into_iter().enumerate() {
        let calendar = Calendar::new(m.open).map_err(|e| Malformed::new(format!("machines[{i}].open"), e))?;
        machines.push(Machine {
            id: m.id,
            class: m.class,
            plant: m.plant,
            calendar,
            setup: m.setup_matrix.unwrap_or(0),
            setup_cost_per_tick: m.setup_cost_per_tick,
            initial_family: m.initial_family,
        });
    }
    let shop = Shop {
        plants: wire.plants,
        transport: wire.transport,
        transport_cost: wire.transport_cost,
        setups,
        machines,
    };
    let jobs = wire.jobs.into_iter().map(job_from_wire).collect();
    let instance = Instance {
        name: wire.name,
        tick_seconds: wire.tick_seconds,
        horizon: wire.horizon,
        objective: Objective::Cost,
        shop,
        jobs,
    };
    instance.check()?;
    instance.check_fits()?;
    Ok(instance)
}

fn job_from_wire(job: WireJob) -> Job {
    let mode = |mode: WireMode| Mode {
        machine: mode.machine,
        duration: mode.duration,
        cost: mode.cost,
        charge: mode.charge.unwrap_or(mode.cost),
        earliest: mode.earliest.unwrap_or(0),
    };
    let op = |op: WireOp| Op {
        family: op.family,
        splittable: op.splittable,
        modes: op.modes.into_iter().map(mode).collect(),
        fixed: op.fixed.map(|f| Fixed { machine: f.machine, start: f.start }),
    };
    Job {
        id: job.id,
        release: job.release,
        due: job.due,
        deadline: job.deadline,
        tardiness_weight: job.tardiness_weight,
        rejection_cost: job.rejection_cost,
        budget: job.budget,
        origin: job.origin,
        ops: job.ops.into_iter().map(op).collect(),
    }
}

/// Writes an alliance instance; [`read_json`] gives it back.
pub fn write_json(instance: &Instance) -> String {
    let rows = |matrix: &SetupMatrix| -> Vec<Vec<Tick>> {
        let n = matrix.families();
        (0..n).map(|f| (0..n).map(|g| matrix.ticks(Some(f), g)).collect()).collect()
    };
    let shop = &instance.shop;
    let machine = |m: &Machine| WireMachine {
        id: m.id.clone(),
        class: m.class.clone(),
        plant: m.plant,
        open: m.calendar.windows().to_vec(),
        setup_cost_per_tick: m.setup_cost_per_tick,
        initial_family: m.initial_family,
        setup_matrix: (m.setup != 0).then_some(m.setup),
    };
    let wire = WireInstance {
        format: INSTANCE_FORMAT.to_owned(),
        name: instance.name.clone(),
        tick_seconds: instance.tick_seconds,
        horizon: instance.horizon,
        plants: shop.plants.clone(),
        transport: shop.transport.clone(),
        transport_cost: shop.transport_cost.clone(),
        setup: shop.setups.first().map(rows).unwrap_or_default(),
        setup_matrices: shop.setups.iter().skip(1).map(rows).collect(),
        machines: shop.machines.iter().map(machine).collect(),
        jobs: instance.jobs.iter().map(job_to_wire).collect(),
    };
    serde_json::to_string(&wire).unwrap_or_default()
}

fn job_to_wire(job: &Job) -> WireJob {
    let mode = |mode: &Mode| WireMode {
        machine: mode.machine,
        duration: mode.duration,
        cost: mode.cost,
        charge: (mode.charge != mode.cost).then_some(mode.charge),
        earliest: (mode.earliest != 0).then_some(mode.earliest),
    };
    let op = |op: &Op| WireOp {
        family: op.family,
        splittable: op.splittable,
        modes: op.modes.iter().map(mode).collect(),
        fixed: op.fixed.map(|f| WireFixed { machine: f.machine, start: f.start }),
    };
    WireJob {
        id: job.id.clone(),
        release: job.release,
        due: job.due,
        deadline: job.deadline,
        tardiness_weight: job.tardiness_weight,
        rejection_cost: job.rejection_cost,
        budget: job.budget,
        origin: job.origin,
        ops: job.ops.iter().map(op).collect(),
    }
}

/// The numbers of an `.fjs` file, each with its line.
struct Numbers<'a> {
    tokens: Vec<(usize, &'a str)>,
    at: usize,
}

impl<'a> Numbers<'a> {
    fn of(text: &'a str) -> Numbers<'a> {
        let lines = text.lines().enumerate();
        let tokens = lines.flat_map(|(i, line)| line.split_whitespace().map(move |t| (i + 1, t))).collect();
        Numbers { tokens, at: 0 }
    }

    fn token(&mut self, what: &str) -> Result<(usize, &'a str), Malformed> {
        let Some(&token) = self.tokens.get(self.at) else {
            let line = self.tokens.last().map_or(1, |t| t.0);
            return Err(Malformed::new(
                format!("line {line}"),
                format!("the file ends where {what} should be"),
            ));
        };
        self.at += 1;
        Ok(token)
    }

    fn next(&mut self, what: &str, least: i64, most: i64) -> Result<i64, Malformed> {
        let (line, text) = self.token(what)?;
        match text.parse::<i64>() {
            Ok(x) if (least..=most).contains(&x) => Ok(x),
            Ok(x) => {
                let reason = format!("{what} is {x}, allowed are {least} to {most}");
                Err(Malformed::new(format!("line {line}"), reason))
            }
            Err(_) => {
                Err(Malformed::new(format!("line {line}"), format!("{what} is \"{text}\", not a number")))
            }
        }
    }
}

/// Reads the flexible job shop's text format: jobs, machines and average flexibility, then a line a
/// job. The makespan is the objective; jobs and machines are named by the file's numbers, from 1.
pub fn read_fjs(name: &str, text: &str) -> Result<Instance, Malformed> {
    let mut numbers = Numbers::of(text);
    let job_count = numbers.next("the number of jobs", 1, 1 << 20)?;
    let machine_count = numbers.next("the number of machines", 1, 1 << 20)? as usize;
    let first_line = numbers.tokens[0].0;
    if numbers.tokens.get(numbers.at).is_some_and(|t| t.0 == first_line) {
        numbers.token("the average flexibility")?;
    }
    let mut jobs = Vec::new();
    for j in 1..=job_count {
        let ops = read_fjs_job(&mut numbers, j, machine_count)?;
        jobs.push(Job {
            id: j.to_string(),
            release: 0,
            due: 0,
            deadline: None,
            tardiness_weight: 0,
            rejection_cost: None,
            budget: None,
            origin: None,
            ops,
        });
    }
    if let Some(&(line, text)) = numbers.tokens.get(numbers.at) {
        return Err(Malformed::new(format!("line {line}"), format!("\"{text}\" stands after the last job")));
    }
    let longest = |op: &Op| op.modes.iter().map(|m| m.duration).max().unwrap_or(0);
    let horizon: Tick = jobs.iter().flat_map(|job| &job.ops).map(longest).sum();
    let machine = |i: usize| Machine {
        id: (i + 1).to_string(),
        class: String::new(),
        plant: 0,
        calendar: Calendar::always(horizon),
        setup: 0,
        setup_cost_per_tick: 0,
        initial_family: None,
    };
    let instance = Instance {
        name: name.to_owned(),
        tick_seconds: 60,
        horizon,
        objective: Objective::Makespan,
        shop: Shop {
            plants: vec!["shop".to_owned()],
            transport: vec![vec![0]],
            transport_cost: vec![vec![0]],
            setups: vec![SetupMatrix::new(&[vec![0]]).map_err(|e| Malformed::new("setup", e))?],
            machines: (0..machine_count).map(machine).collect(),
        },
        jobs,
    };
    instance.check()?;
    Ok(instance)
}

fn read_fjs_job(numbers: &mut Numbers<'_>, job: i64, machine_count: usize) -> Result<Vec<Op>, Malformed> {
    let op_count = numbers.next(&format!("job {job}'s number of operations"), 1, 65_535)?;
    let mut ops = Vec::new();
    for k in 1..=op_count {
        let what = format!("operation {k} of job {job}");
        let mode_count = numbers.next(&format!("{what}: the number of machines"), 1, machine_count as i64)?;
        let mut modes = Vec::new();
        for _ in 0..mode_count {
            let machine = numbers.next(&format!("{what}: a machine"), 1, machine_count as i64)? as usize - 1;
            let duration = numbers.next(&format!("{what}: a duration"), 1, TICK_MAX >> 20)?;
            modes.push(Mode { machine, duration, cost: 0, charge: 0, earliest: 0 });
        }
        ops.push(Op { family: 0, splittable: false, modes, fixed: None });
    }
    Ok(ops)
}

impl Plan {
    /// Writes the plan in the exchange format.
    pub fn write_json(&self, instance: &Instance) -> String {
        let assignment = |a: &Assignment| WireAssignment {
            job: instance.jobs[a.job].id.clone(),
            op: a.op,
            machine: instance.shop.machines[a.machine].id.clone(),
            start: a.start,
            end: a.end,
        };
        let wire = WirePlan {
            instance: instance.name.clone(),
            assignments: self.assignments.iter().map(assignment).collect(),
            rejected: self.rejected.iter().map(|&j| instance.jobs[j].id.clone()).collect(),
            objective: self.objective,
            bound: self.bound,
        };
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// Reads a plan for `instance`; names that the instance does not know are refused.
    pub fn read_json(instance: &Instance, text: &str) -> Result<Plan, Malformed> {
        let wire: WirePlan = serde_json::from_str(text).map_err(|e| unreadable(&e))?;
        let jobs: BTreeMap<&str, usize> =
            instance.jobs.iter().enumerate().map(|(j, job)| (job.id.as_str(), j)).collect();
        let machines: BTreeMap<&str, usize> =
            instance.shop.machines.iter().enumerate().map(|(i, m)| (m.id.as_str(), i)).collect();
        let find = |names: &BTreeMap<&str, usize>, name: &str, place: String| {
            names.get(name).copied().ok_or_else(|| Malformed::new(place, format!("\"{name}\" is unknown")))
        };
        let mut plan = Plan { objective: wire.objective, bound: wire.bound, ..Plan::default() };
        for (i, a) in wire.assignments.iter().enumerate() {
            let job = find(&jobs, &a.job, format!("assignments[{i}].job"))?;
            let machine = find(&machines, &a.machine, format!("assignments[{i}].machine"))?;
            if [a.start, a.end].iter().any(|t| !(0..=TICK_MAX).contains(t)) {
                let reason = format!("[{}, {}) lies outside 0 to {TICK_MAX}", a.start, a.end);
                return Err(Malformed::new(format!("assignments[{i}]"), reason));
            }
            plan.assignments.push(Assignment { job, op: a.op, machine, start: a.start, end: a.end });
        }
        for (i, name) in wire.rejected.iter().enumerate() {
            plan.rejected.push(find(&jobs, name, format!("rejected[{i}]"))?);
        }
        Ok(plan)
    }
}
