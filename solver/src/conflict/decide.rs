//! Whether some jobs can be kept together, all others left out: by proof, by a plan, or not known.

use super::Limits;
use super::exact::{Answer, Enumeration};
use super::overload::{self, Overload};
use crate::greedy;
use crate::place::Placer;
use crate::search::Search;
use crate::state::State;
use crate::{Fixed, Instance, Job, SetupMatrix, Shop, Tick};

/// The most operations that are enumerated.
const ENUMERATED_MAX: usize = 64;
/// Search tries for each job, before jobs that have found no plan are taken to clash.
const TRIES_PER_JOB: usize = 200;
/// Tries between two looks at the clock.
const TRIES_PER_LOOK: usize = 8;

/// Whether jobs can be kept together.
pub(super) enum Verdict {
    Kept(Vec<Vec<Fixed>>),
    Impossible(Proof),
    Unknown,
}

impl Verdict {
    pub(super) fn in_any_company(&self) -> bool {
        matches!(self, Verdict::Impossible(Proof::Overload(_) | Proof::Enumerated))
    }
}

/// Why it is certain that jobs clash.
pub(super) enum Proof {
    /// Too much work, in any company.
    Overload(Overload),
    /// Enumeration, with every changeover at its least: in any company.
    Enumerated,
    /// Enumeration of these jobs alone.
    EnumeratedAlone,
}

/// Whether some jobs can be kept together, all others left out.
pub(super) fn decide(instance: &Instance, jobs: &[usize], limits: &Limits<'_>) -> Verdict {
    if jobs.is_empty() {
        return Verdict::Kept(Vec::new());
    }
    if limits.spent() {
        return Verdict::Unknown;
    }
    if let Some(overload) = overloaded(instance, jobs, limits) {
        return Verdict::Impossible(Proof::Overload(overload));
    }
    let (small, machines) = only(instance, jobs);
    let mut kept = inserted(&small, limits);
    if kept.is_none() && small.jobs.iter().map(|job| job.ops.len()).sum::<usize>() <= ENUMERATED_MAX {
        match Enumeration::decide(&small, limits) {
            // The enumeration knows no resources: what clashes without them clashes with them, and no more.
            Answer::Kept(chains) if small.shop.resources.is_empty() => kept = Some(chains),
            Answer::Kept(_) => {}
            Answer::Impossible => return Verdict::Impossible(proof(small, limits)),
            Answer::Open => {}
        }
    }
    match kept.or_else(|| searched(&small, limits)) {
        Some(mut chains) => {
            chains.iter_mut().flatten().for_each(|at| at.machine = machines[at.machine]);
            Verdict::Kept(chains)
        }
        None => Verdict::Unknown,
    }
}

/// An overload among some jobs.
pub(super) fn overloaded(instance: &Instance, jobs: &[usize], limits: &Limits<'_>) -> Option<Overload> {
    let (small, machines) = only(instance, jobs);
    let mut overload = overload::find(&small, limits)?;
    overload.machines.iter_mut().for_each(|m| *m = machines[*m]);
    overload.jobs = overload.jobs.into_iter().map(|j| jobs[j]).collect();
    Some(overload)
}

/// How far it goes that jobs clash alone.
fn proof(mut small: Instance, limits: &Limits<'_>) -> Proof {
    least_changeovers(&mut small.shop);
    match Enumeration::decide(&small, limits) {
        Answer::Impossible => Proof::Enumerated,
        _ => Proof::EnumeratedAlone,
    }
}

/// Every changeover the least that any company could make it: whatever a real plan does can be done so too.
pub(super) fn least_changeovers(shop: &mut Shop) {
    let mut setups = Vec::new();
    for (m, machine) in shop.machines.iter().enumerate() {
        let families = shop.setups[machine.setup].families();
        let row = (0..families).map(|family| shop.least_setup(m, family)).collect();
        setups.push(SetupMatrix::without_memory(row));
    }
    shop.setups = setups;
    for (m, machine) in shop.machines.iter_mut().enumerate() {
        machine.setup = m;
        machine.initial_family = (shop.setups[m].families() > 0).then_some(0);
    }
}

/// The instance with these jobs alone, all promised, and with the machines that they could use; and which
/// machines those are.
fn only(instance: &Instance, jobs: &[usize]) -> (Instance, Vec<usize>) {
    let used = usable(instance.shop.machines.len(), jobs.iter().map(|&j| &instance.jobs[j]));
    let machines: Vec<usize> = (0..used.len()).filter(|&m| used[m]).collect();
    let mut new_index = vec![0; used.len()];
    machines.iter().enumerate().for_each(|(new, &old)| new_index[old] = new);
    let shop = Shop {
        machines: machines.iter().map(|&m| instance.shop.machines[m].clone()).collect(),
        ..instance.shop.clone()
    };
    let job = |&j: &usize| {
        let mut job = Job { rejection_cost: None, ..instance.jobs[j].clone() };
        for op in &mut job.ops {
            op.modes.iter_mut().for_each(|mode| mode.machine = new_index[mode.machine]);
            op.fixed.iter_mut().for_each(|fixed| fixed.machine = new_index[fixed.machine]);
        }
        job
    };
    let (name, tick_seconds) = (instance.name.clone(), instance.tick_seconds);
    let (horizon, objective) = (instance.horizon, instance.objective);
    let jobs = jobs.iter().map(job).collect();
    (Instance { name, tick_seconds, horizon, objective, shop, jobs }, machines)
}

/// A plan by insertion, in the usual order and by deadline, if one keeps all.
fn inserted(small: &Instance, limits: &Limits<'_>) -> Option<Vec<Vec<Fixed>>> {
    let usual = greedy::insertion_order(small);
    let mut by_deadline = usual.clone();
    by_deadline.sort_by_key(|&j| small.jobs[j].deadline.unwrap_or(Tick::MAX));
    [usual, by_deadline].iter().find_map(|order| {
        let mut state = State::load(small, greedy::frozen_chains(small));
        let mut placer = Placer::default();
        for &j in order {
            if !limits.spent() {
                greedy::insert_all(&mut state, &mut placer, &[j], &|| limits.spent());
            }
        }
        chains(&state)
    })
}

/// A plan by search, if one keeps all.
fn searched(small: &Instance, limits: &Limits<'_>) -> Option<Vec<Vec<Fixed>>> {
    let mut search = Search::new(State::load(small, greedy::frozen_chains(small)), 1);
    let tries = TRIES_PER_JOB * small.jobs.len();
    for i in 0..tries {
        if i.is_multiple_of(TRIES_PER_LOOK) && limits.spent() {
            return None;
        }
        if search.attempt(i as f64 / tries as f64) {
            let best = chains(&search.best_state());
            if best.is_some() {
                return best;
            }
        }
    }
    None
}

fn chains(state: &State<'_>) -> Option<Vec<Vec<Fixed>>> {
    let place = |step: &crate::Step| Fixed { machine: step.machine, start: step.start };
    let chain = |j| state.steps_of(j).iter().map(place).collect();
    (state.missing() == 0).then(|| (0..state.instance.jobs.len()).map(chain).collect())
}

/// The machines that some jobs could use.
pub(super) fn usable<'a>(machines: usize, jobs: impl IntoIterator<Item = &'a Job>) -> Vec<bool> {
    let mut usable = vec![false; machines];
    for mode in jobs.into_iter().flat_map(|job| &job.ops).flat_map(|op| &op.modes) {
        usable[mode.machine] = true;
    }
    usable
}
