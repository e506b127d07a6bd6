//! When each operation of a job can run, whatever stands on the lines and whatever the others choose.
//!
//! Bounds on empty lines without changeovers: nothing that a plan can do lies outside of them. Calendars,
//! travel, release, deadline, budget, notice and frozen operations all count; resources do not.

use crate::{Fen, Job, Mode, Op, Shop, Tick};

/// What the operations behind one ask of it, on one of its machines.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rest {
    /// The latest that it may begin for the rest to be done; `None`: never.
    pub(crate) latest_start: Option<Tick>,
    /// The latest that it may end.
    pub(crate) latest_end: Tick,
    /// The least that it and all that follows is charged.
    pub(crate) charge: Fen,
}

/// When an operation can run on one of its machines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// It begins no earlier.
    pub(crate) start: Tick,
    /// It ends no earlier.
    pub(crate) end: Tick,
    /// It ends no later.
    pub(crate) latest_end: Tick,
    /// What is charged at least, up to its end.
    charge: Fen,
}

/// Backwards over the operations, by operation and mode; the job has to end by `latest`.
pub(crate) fn rests(shop: &Shop, job: &Job, latest: Tick) -> Vec<Vec<Rest>> {
    let mut all: Vec<Vec<Rest>> = vec![Vec::new(); job.ops.len()];
    for (k, op) in job.ops.iter().enumerate().rev() {
        let of_mode = |mode: &Mode| {
            let here = shop.machines[mode.machine].plant;
            let mut rest = Rest { latest_end: latest, charge: mode.charge, ..Rest::default() };
            if let Some(next) = job.ops.get(k + 1) {
                let there = |i: usize| shop.machines[next.modes[i].machine].plant;
                let starts = all[k + 1].iter().enumerate();
                let starts =
                    starts.filter_map(|(i, r)| Some(r.latest_start? - shop.transport[here][there(i)]));
                rest.latest_end = starts.max().unwrap_or(-1);
                let charges = all[k + 1].iter().enumerate();
                let charges = charges.map(|(i, r)| r.charge + shop.trip_charge(here, there(i)));
                rest.charge += charges.min().unwrap_or(0);
            }
            rest.latest_start = latest_start(shop, op, mode, rest.latest_end);
            rest
        };
        all[k] = op.modes.iter().map(of_mode).collect();
    }
    all
}

fn latest_start(shop: &Shop, op: &Op, mode: &Mode, end_max: Tick) -> Option<Tick> {
    let calendar = &shop.machines[mode.machine].calendar;
    if let Some(fixed) = op.fixed {
        let end = calendar.finish(fixed.start, mode.duration, op.splittable)?;
        return (fixed.machine == mode.machine && end <= end_max).then_some(fixed.start);
    }
    calendar.latest(mode.duration, op.splittable, end_max).map(|(start, _)| start)
}

/// The earliest that an operation can run on a machine for whoever is there from a tick on, and that ends by
/// another.
pub(crate) fn earliest_span(
    shop: &Shop,
    op: &Op,
    mode: &Mode,
    from: Tick,
    end_max: Tick,
) -> Option<(Tick, Tick)> {
    let calendar = &shop.machines[mode.machine].calendar;
    let Some(fixed) = op.fixed else {
        return calendar.earliest(from, mode.duration, op.splittable, end_max);
    };
    let end = calendar.finish(fixed.start, mode.duration, op.splittable)?;
    let goes = fixed.machine == mode.machine && from <= fixed.start && end <= end_max;
    goes.then_some((fixed.start, end))
}

/// When the part can be at a machine for operation `k`, and what that is charged at least, given the ends
/// and charges of the operation before by mode. `None`: never.
pub(crate) fn arrival(
    shop: &Shop,
    job: &Job,
    k: usize,
    machine: usize,
    before: &[Option<(Tick, Fen)>],
) -> Option<(Tick, Fen)> {
    let there = shop.machines[machine].plant;
    if k == 0 {
        let (time, trip) =
            job.origin.map_or((0, 0), |o| (shop.transport[o][there], shop.trip_charge(o, there)));
        return Some((job.release + time, trip));
    }
    let ways = job.ops[k - 1].modes.iter().zip(before).filter_map(|(mode, reached)| {
        let (end, charge) = (*reached)?;
        let here = shop.machines[mode.machine].plant;
        Some((end + shop.transport[here][there], charge + shop.trip_charge(here, there)))
    });
    // The earliest and the cheapest may be different ways: both are bounds.
    ways.reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)))
}

/// By operation and mode; `None`: the mode cannot be part of any plan that keeps the job.
pub(crate) fn windows(shop: &Shop, job: &Job, latest: Tick) -> Vec<Vec<Option<Window>>> {
    let rests = rests(shop, job, latest);
    let mut all: Vec<Vec<Option<Window>>> = Vec::with_capacity(job.ops.len());
    for (k, op) in job.ops.iter().enumerate() {
        let before: Vec<_> = all.last().into_iter().flatten().map(|w| w.map(|w| (w.end, w.charge))).collect();
        let of_mode = |(mode, rest): (&Mode, &Rest)| {
            let (arrives, charge) = arrival(shop, job, k, mode.machine, &before)?;
            if job.budget.is_some_and(|budget| charge + rest.charge > budget) {
                return None;
            }
            let from = arrives.max(mode.earliest);
            let (start, end) = earliest_span(shop, op, mode, from, rest.latest_end)?;
            Some(Window { start, end, latest_end: rest.latest_end, charge: charge + mode.charge })
        };
        all.push(op.modes.iter().zip(&rests[k]).map(of_mode).collect());
    }
    all
}
