//! The exchange formats: instances and plans as JSON, and the flexible job shop's text format.
//!
//! Readers refuse what is malformed with its place and the reason, and never panic: every file is
//! taken to be hostile. The structs here are the wire's shape; [`crate::Instance`] is the solver's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Assignment, Calendar, During, Fen, Fixed, Instance, Job, Machine, Malformed, Mode, Need, Objective, Op,
    Plan, Resource, SetupMatrix, Shop, TICK_MAX, Tick,
};

/// Most places of a machine in a file.
const PLACES_MAX: u32 = 64;

/// The value of an instance's `format` field.
pub const INSTANCE_FORMAT: &str = "alliance-instance/1";

#[derive(Serialize, Deserialize)]
struct WireInstance {
    format: String,
    name: String,
    tick_seconds: i64,
    horizon: Tick,
    #[serde(default, skip_serializing_if = "is_cost")]
    objective: Objective,
    plants: Vec<String>,
    transport: Vec<Vec<Tick>>,
    transport_cost: Vec<Vec<Fen>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    transport_charge: Vec<Vec<Fen>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    transport_carbon: Vec<Vec<i64>>,
    setup: Vec<Vec<Tick>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    setup_matrices: Vec<Vec<Vec<Tick>>>,
    machines: Vec<WireMachine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    resources: Vec<WireResource>,
    jobs: Vec<WireJob>,
}

fn is_cost(objective: &Objective) -> bool {
    *objective == Objective::COST
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[derive(Serialize, Deserialize)]
struct WireResource {
    id: String,
    #[serde(default = "one_unit")]
    units: u32,
    open: Vec<(Tick, Tick)>,
}

fn one_unit() -> u32 {
    1
}

#[derive(Serialize, Deserialize)]
struct WireNeed {
    resource: usize,
    during: WireDuring,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireDuring {
    Setup,
    Occupation,
}

#[derive(Serialize, Deserialize)]
struct WireMachine {
    id: String,
    #[serde(default)]
    class: String,
    plant: usize,
    open: Vec<(Tick, Tick)>,
    setup_cost_per_tick: Fen,
    #[serde(default, skip_serializing_if = "is_zero")]
    setup_carbon_per_tick: i64,
    /// How many parts it holds at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    places: Option<u32>,
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
    #[serde(default, skip_serializing_if = "is_zero")]
    late_cost: Fen,
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    needs: Vec<WireNeed>,
}

#[derive(Serialize, Deserialize)]
struct WireMode {
    machine: usize,
    duration: Tick,
    cost: Fen,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    charge: Option<Fen>,
    #[serde(default, skip_serializing_if = "is_zero")]
    carbon: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    earliest: Option<Tick>,
}

#[derive(Serialize, Deserialize)]
struct WireFixed {
    machine: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<u32>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<u32>,
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
        false => crate::read_fjs(name, text),
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
    let (machines, places) = machines_from_wire(wire.machines)?;
    let resources = wire.resources.into_iter().enumerate().map(|(i, r)| {
        let calendar = Calendar::new(r.open);
        let calendar = calendar.map_err(|e| Malformed::new(format!("resources[{i}].open"), e))?;
        Ok(Resource { id: r.id, units: r.units, calendar })
    });
    let mut shop = Shop {
        plants: wire.plants,
        transport: wire.transport,
        transport_cost: wire.transport_cost,
        transport_charge: wire.transport_charge,
        transport_carbon: wire.transport_carbon,
        setups,
        machines,
        resources: resources.collect::<Result<_, Malformed>>()?,
        ..Shop::default()
    };
    let jobs = wire.jobs.into_iter().enumerate().map(|(j, job)| {
        job_from_wire(job, &mut shop, &places)
            .map_err(|e| Malformed::new(format!("jobs[{j}].ops{}", e.place), e.reason))
    });
    let instance = Instance {
        name: wire.name,
        tick_seconds: wire.tick_seconds,
        horizon: wire.horizon,
        objective: wire.objective,
        jobs: jobs.collect::<Result<_, Malformed>>()?,
        shop,
    };
    instance.check()?;
    instance.check_fits()?;
    Ok(instance)
}

/// Where the machines of a file stand in the instance, which has each place of a machine apart: by machine, the
/// first of its places, and how many it has.
struct Places(Vec<(usize, usize)>);

impl Places {
    /// The instance's machines for the file's one.
    fn of(&self, machine: usize) -> Result<std::ops::Range<usize>, Malformed> {
        let known = self.0.get(machine).map(|&(first, count)| first..first + count);
        known.ok_or_else(|| {
            let reason = format!("machine {machine} does not exist, there are {}", self.0.len());
            Malformed::new("", reason)
        })
    }
}

fn machines_from_wire(wire: Vec<WireMachine>) -> Result<(Vec<Machine>, Places), Malformed> {
    let (mut machines, mut places) = (Vec::with_capacity(wire.len()), Vec::with_capacity(wire.len()));
    for (i, m) in wire.into_iter().enumerate() {
        let calendar = Calendar::new(m.open).map_err(|e| Malformed::new(format!("machines[{i}].open"), e))?;
        let count = m.places.unwrap_or(1);
        if !(1..=PLACES_MAX).contains(&count) {
            let reason = format!("there are {count}, allowed are 1 to {PLACES_MAX}");
            return Err(Malformed::new(format!("machines[{i}].places"), reason));
        }
        let machine = Machine {
            id: m.id,
            place: m.places.map(|_| 0),
            class: m.class,
            plant: m.plant,
            calendar,
            setup: m.setup_matrix.unwrap_or(0),
            setup_cost_per_tick: m.setup_cost_per_tick,
            setup_carbon_per_tick: m.setup_carbon_per_tick,
            initial_family: m.initial_family,
        };
        places.push((machines.len(), count as usize));
        machines.extend((1..count).map(|place| Machine { place: Some(place), ..machine.clone() }));
        machines.insert(places[i].0, machine);
    }
    Ok((machines, Places(places)))
}

fn job_from_wire(job: WireJob, shop: &mut Shop, places: &Places) -> Result<Job, Malformed> {
    let ops = job.ops.into_iter().enumerate().map(|(k, op)| {
        op_from_wire(op, shop, places).map_err(|e| Malformed::new(format!("[{k}]{}", e.place), e.reason))
    });
    Ok(Job {
        ops: ops.collect::<Result<_, Malformed>>()?,
        id: job.id,
        release: job.release,
        due: job.due,
        deadline: job.deadline,
        tardiness_weight: job.tardiness_weight,
        late_cost: job.late_cost,
        rejection_cost: job.rejection_cost,
        budget: job.budget,
        origin: job.origin,
    })
}

fn op_from_wire(op: WireOp, shop: &mut Shop, places: &Places) -> Result<Op, Malformed> {
    let mut modes = Vec::with_capacity(op.modes.len());
    for (i, mode) in op.modes.into_iter().enumerate() {
        let machines = places.of(mode.machine);
        let machines = machines.map_err(|e| Malformed::new(format!(".modes[{i}]"), e.reason))?;
        modes.extend(machines.map(|machine| Mode {
            machine,
            duration: mode.duration,
            cost: mode.cost,
            charge: mode.charge.unwrap_or(mode.cost),
            carbon: mode.carbon,
            earliest: mode.earliest.unwrap_or(0),
        }));
    }
    let fixed = op.fixed.map(|f| {
        let machines = places.of(f.machine).map_err(|e| Malformed::new(".fixed", e.reason))?;
        let place = f.place.unwrap_or(0) as usize;
        if place >= machines.len() {
            let reason = format!("place {place} does not exist, the machine has {}", machines.len());
            return Err(Malformed::new(".fixed", reason));
        }
        Ok(Fixed { machine: machines.start + place, start: f.start })
    });
    let during = |during| match during {
        WireDuring::Setup => During::Setup,
        WireDuring::Occupation => During::Occupation,
    };
    let needs: Vec<Need> =
        op.needs.iter().map(|n| Need { resource: n.resource, during: during(n.during) }).collect();
    let needs = if needs.is_empty() { 0 } else { shop.need_set(needs) };
    Ok(Op { family: op.family, splittable: op.splittable, modes, fixed: fixed.transpose()?, needs })
}

/// Writes an alliance instance; [`read_json`] gives it back.
pub fn write_json(instance: &Instance) -> String {
    let rows = |matrix: &SetupMatrix| -> Vec<Vec<Tick>> {
        let n = matrix.families();
        (0..n).map(|f| (0..n).map(|g| matrix.ticks(Some(f), g)).collect()).collect()
    };
    let shop = &instance.shop;
    let is_first = |m: &Machine| m.place.unwrap_or(0) == 0;
    let machine = |(i, m): (usize, &Machine)| WireMachine {
        id: m.id.clone(),
        class: m.class.clone(),
        plant: m.plant,
        open: m.calendar.windows().to_vec(),
        setup_cost_per_tick: m.setup_cost_per_tick,
        setup_carbon_per_tick: m.setup_carbon_per_tick,
        places: m
            .place
            .map(|_| 1 + shop.machines[i + 1..].iter().take_while(|m| !is_first(m)).count() as u32),
        initial_family: m.initial_family,
        setup_matrix: (m.setup != 0).then_some(m.setup),
    };
    let resource =
        |r: &Resource| WireResource { id: r.id.clone(), units: r.units, open: r.calendar.windows().to_vec() };
    let mut index: Vec<usize> = Vec::with_capacity(shop.machines.len());
    for m in &shop.machines {
        index.push(index.last().map_or(0, |last| last + usize::from(is_first(m))));
    }
    let wire = WireInstance {
        format: INSTANCE_FORMAT.to_owned(),
        name: instance.name.clone(),
        tick_seconds: instance.tick_seconds,
        horizon: instance.horizon,
        objective: instance.objective,
        plants: shop.plants.clone(),
        transport: shop.transport.clone(),
        transport_cost: shop.transport_cost.clone(),
        transport_charge: shop.transport_charge.clone(),
        transport_carbon: shop.transport_carbon.clone(),
        setup: shop.setups.first().map(rows).unwrap_or_default(),
        setup_matrices: shop.setups.iter().skip(1).map(rows).collect(),
        machines: shop.machines.iter().enumerate().filter(|(_, m)| is_first(m)).map(machine).collect(),
        resources: shop.resources.iter().map(resource).collect(),
        jobs: instance.jobs.iter().map(|job| job_to_wire(job, shop, &index)).collect(),
    };
    serde_json::to_string(&wire).unwrap_or_default()
}

fn job_to_wire(job: &Job, shop: &Shop, index: &[usize]) -> WireJob {
    let mode = |mode: &Mode| WireMode {
        machine: index[mode.machine],
        duration: mode.duration,
        cost: mode.cost,
        charge: (mode.charge != mode.cost).then_some(mode.charge),
        carbon: mode.carbon,
        earliest: (mode.earliest != 0).then_some(mode.earliest),
    };
    let during = |during| match during {
        During::Setup => WireDuring::Setup,
        During::Occupation => WireDuring::Occupation,
    };
    let need = |need: &Need| WireNeed { resource: need.resource, during: during(need.during) };
    let one_a_machine = |mode: &&Mode| shop.machines[mode.machine].place.unwrap_or(0) == 0;
    let op = |op: &Op| WireOp {
        family: op.family,
        splittable: op.splittable,
        modes: op.modes.iter().filter(one_a_machine).map(mode).collect(),
        fixed: op.fixed.map(|f| WireFixed {
            machine: index[f.machine],
            place: shop.machines[f.machine].place,
            start: f.start,
        }),
        needs: shop.needs_of(op.needs).iter().map(need).collect(),
    };
    WireJob {
        id: job.id.clone(),
        release: job.release,
        due: job.due,
        deadline: job.deadline,
        tardiness_weight: job.tardiness_weight,
        late_cost: job.late_cost,
        rejection_cost: job.rejection_cost,
        budget: job.budget,
        origin: job.origin,
        ops: job.ops.iter().map(op).collect(),
    }
}

impl Plan {
    /// Writes the plan in the exchange format.
    pub fn write_json(&self, instance: &Instance) -> String {
        let assignment = |a: &Assignment| WireAssignment {
            job: instance.jobs[a.job].id.clone(),
            op: a.op,
            machine: instance.shop.machines[a.machine].id.clone(),
            place: instance.shop.machines[a.machine].place,
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
        let machines: BTreeMap<(&str, u32), usize> = instance
            .shop
            .machines
            .iter()
            .enumerate()
            .map(|(i, m)| ((m.id.as_str(), m.place.unwrap_or(0)), i))
            .collect();
        let find = |names: &BTreeMap<&str, usize>, name: &str, place: String| {
            names.get(name).copied().ok_or_else(|| Malformed::new(place, format!("\"{name}\" is unknown")))
        };
        let mut plan = Plan { objective: wire.objective, bound: wire.bound, ..Plan::default() };
        for (i, a) in wire.assignments.iter().enumerate() {
            let job = find(&jobs, &a.job, format!("assignments[{i}].job"))?;
            let machine = machines.get(&(a.machine.as_str(), a.place.unwrap_or(0))).copied();
            let machine = machine.ok_or_else(|| {
                let place = a.place.map_or(String::new(), |place| format!(", place {place},"));
                let reason = format!("\"{}\"{place} is unknown", a.machine);
                Malformed::new(format!("assignments[{i}].machine"), reason)
            })?;
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
