//! Starting plans: first come, first served, and insertion job by job.

use crate::place::Placer;
use crate::resource::Span;
use crate::state::State;
use crate::{Fen, Fixed, Instance, Lines, Occupation, Tick};

/// Jobs between two looks at whether to stop.
const JOBS_PER_LOOK: usize = 16;

/// The plain planner's baseline: each job by release, each operation where it alone is cheapest, in
/// gaps whose follower's setup stays as it is. Chains as places, `None` for a rejected job, and for all that
/// come after it is told to `stop`.
pub(crate) fn first_come(instance: &Instance, stop: &dyn Fn() -> bool) -> Vec<Option<Vec<Fixed>>> {
    let mut lines = Lines::new(&instance.shop);
    let mut chains = vec![None; instance.jobs.len()];
    let mut order: Vec<usize> = (0..instance.jobs.len()).collect();
    order.sort_by_key(|&j| (instance.jobs[j].release, instance.jobs[j].due));
    for (i, j) in order.into_iter().enumerate() {
        if i.is_multiple_of(JOBS_PER_LOOK) && stop() {
            break;
        }
        let job = &instance.jobs[j];
        let mut put: Vec<(usize, usize)> = Vec::new();
        let mut chain = Vec::new();
        let (mut ready, mut at, mut total) = (job.release, job.origin, 0);
        for k in 0..job.ops.len() {
            let Some((cost, end, mode, slot)) = cheapest_slot(instance, &lines, j, k, ready, at) else {
                break;
            };
            let machine = job.ops[k].modes[mode].machine;
            lines.put(&instance.shop, machine, slot.at, slot.occupation(job, j, k, mode));
            put.push((machine, slot.at));
            chain.push(Fixed { machine, start: slot.start });
            (ready, at, total) = (end, Some(instance.shop.machines[machine].plant), total + cost);
        }
        let whole = chain.len() == job.ops.len() && job.deadline.is_none_or(|d| ready <= d);
        if whole && job.rejection_cost.is_none_or(|out| 2 * total <= 3 * out) {
            chains[j] = Some(chain);
        } else {
            put.into_iter().rev().for_each(|(machine, at)| {
                lines.take(&instance.shop, machine, at);
            });
        }
    }
    chains
}

struct Slot {
    at: usize,
    start: Tick,
    end: Tick,
    setup: Tick,
}

impl Slot {
    fn occupation(&self, job: &crate::Job, j: usize, k: usize, mode: usize) -> Occupation {
        let op = &job.ops[k];
        Occupation {
            start: self.start,
            end: self.end,
            setup: self.setup,
            work: op.modes[mode].duration,
            family: op.family as u32,
            key: crate::Key { job: j as u32, op: k as u32 },
            splittable: op.splittable,
            fixed: op.fixed.is_some(),
            needs: op.needs as u32,
        }
    }
}

fn cheapest_slot(
    instance: &Instance,
    lines: &Lines,
    j: usize,
    k: usize,
    ready: Tick,
    at: Option<usize>,
) -> Option<(Fen, Tick, usize, Slot)> {
    let (job, shop) = (&instance.jobs[j], &instance.shop);
    let mut best: Option<(Fen, Tick, usize, Slot)> = None;
    for (i, mode) in job.ops[k].modes.iter().enumerate() {
        let machine = &shop.machines[mode.machine];
        let (time, trip) =
            at.map_or((0, 0), |p| (shop.transport[p][machine.plant], shop.transport_cost[p][machine.plant]));
        let from = (ready + time).max(mode.earliest);
        let Some(slot) = first_slot(instance, lines, &job.ops[k], mode, from) else { continue };
        let mut cost = mode.cost + slot.setup * machine.setup_cost_per_tick + trip;
        cost += job.tardiness(slot.end);
        if best.as_ref().is_none_or(|b| (cost, slot.end) < (b.0, b.1)) {
            best = Some((cost, slot.end, i, slot));
        }
    }
    best
}

fn first_slot(
    instance: &Instance,
    lines: &Lines,
    op: &crate::Op,
    mode: &crate::Mode,
    from: Tick,
) -> Option<Slot> {
    let shop = &instance.shop;
    let line = lines.on(mode.machine);
    for at in line.partition_point(|o| o.end <= from)..=line.len() {
        let before = at.checked_sub(1).map(|i| &line[i]);
        let open = before.map_or(from, |o| o.end.max(from));
        let close = line.get(at).map_or(instance.horizon, |o| o.start);
        let setup = shop.setup_ticks(mode.machine, before.map(|o| o.family as usize), op.family);
        let same =
            |o: &Occupation| shop.setup_ticks(mode.machine, Some(op.family), o.family as usize) == o.setup;
        if line.get(at).is_none_or(same) {
            let (machine, work, splittable) = (mode.machine, mode.duration, op.splittable);
            let span = Span { machine, needs: op.needs, setup, work, splittable };
            if let Some((start, end)) = lines.usage().earliest(shop, &span, open, close) {
                return Some(Slot { at, start, end, setup });
            }
        }
    }
    None
}

/// Inserts every absent job in the order given, each where it adds least to the plan, until told to `stop`.
pub(crate) fn insert_all(
    state: &mut State<'_>,
    placer: &mut Placer,
    order: &[usize],
    stop: &dyn Fn() -> bool,
) {
    for (i, &j) in order.iter().enumerate() {
        if i.is_multiple_of(JOBS_PER_LOOK) && stop() {
            return;
        }
        if !state.keeps(j) {
            state.insert_best(placer, j, state.absence(j));
        }
    }
}

/// How many jobs of the insertion order are frozen or promised.
pub(crate) fn must_keep(instance: &Instance, order: &[usize]) -> usize {
    let must = |job: &crate::Job| job.rejection_cost.is_none() || job.ops.iter().any(|op| op.fixed.is_some());
    order.partition_point(|&j| must(&instance.jobs[j]))
}

/// Jobs in the order in which construction takes them: frozen, then promised, then by release.
pub(crate) fn insertion_order(instance: &Instance) -> Vec<usize> {
    let mut order: Vec<usize> = (0..instance.jobs.len()).collect();
    order.sort_by_cached_key(|&j| {
        let job = &instance.jobs[j];
        let frozen = job.ops.iter().filter_map(|op| op.fixed).map(|f| f.start).min();
        (frozen.is_none(), frozen, job.rejection_cost.is_some(), job.release, job.due)
    });
    order
}

/// The places of jobs whose every operation is frozen.
pub(crate) fn frozen_chains(instance: &Instance) -> Vec<Option<Vec<Fixed>>> {
    instance.jobs.iter().map(|job| job.ops.iter().map(|op| op.fixed).collect()).collect()
}
