//! The best schedules met, kept apart from each other, and what lies between them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::schedule::{Graph, Schedule};
use crate::random::Random;
use crate::{Plan, Tick};

/// Schedules kept.
const SIZE: usize = 10;
/// Kept schedules differ by at least this share of the operations.
const APART: f64 = 0.03;
/// Offers in a row that were of no use until the elite begins anew around its best.
const STALE_MAX: usize = 3 * SIZE;
/// By how much chance may rule a dispatched start.
const NOISE: f64 = 0.3;

#[derive(Debug)]
pub(super) struct Elite {
    best: AtomicI64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    best: Option<Schedule>,
    members: Vec<Schedule>,
    stale: usize,
}

impl Default for Elite {
    fn default() -> Elite {
        Elite { best: AtomicI64::new(Tick::MAX), kept: Mutex::default() }
    }
}

impl Elite {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shortest makespan met.
    pub(super) fn best(&self) -> Tick {
        self.best.load(Ordering::Relaxed)
    }

    pub(super) fn best_plan(&self, graph: &Graph) -> Plan {
        self.kept().best.as_ref().map(|best| best.plan(graph)).unwrap_or_default()
    }

    /// Takes note of a schedule if it is the shortest so far.
    pub(super) fn met(&self, schedule: &Schedule) {
        if schedule.makespan < self.best() {
            let mut kept = self.kept();
            if kept.best.as_ref().is_none_or(|best| schedule.makespan < best.makespan) {
                self.best.store(schedule.makespan, Ordering::Relaxed);
                kept.best = Some(schedule.clone());
            }
        }
    }

    /// Where to search next.
    pub(super) fn start(&self, graph: &Graph, random: &mut Random) -> Schedule {
        let kept = self.kept();
        if kept.members.len() < SIZE {
            let noise = if kept.members.is_empty() { 0.0 } else { NOISE };
            drop(kept);
            return Schedule::dispatch(graph, random, noise);
        }
        let one = random.below(SIZE);
        let other = (one + 1 + random.below(SIZE - 1)) % SIZE;
        let share = 0.3 + 0.4 * random.share();
        Schedule::between(graph, &kept.members[one], &kept.members[other], share, random)
    }

    /// Keeps what a search has come to, if it is good or different enough.
    pub(super) fn offer(&self, graph: &Graph, schedule: &Schedule) {
        self.met(schedule);
        let apart = (APART * graph.ops() as f64) as usize;
        let mut kept = self.kept();
        let near = kept.members.iter().position(|member| member.distance(schedule) <= apart);
        let worst = (0..kept.members.len()).max_by_key(|&i| kept.members[i].makespan);
        let at = match (near, worst) {
            (Some(near), _) => Some(near),
            (None, Some(worst)) if kept.members.len() == SIZE => Some(worst),
            _ => None,
        };
        match at {
            None => kept.members.push(schedule.clone()),
            Some(at) if schedule.makespan < kept.members[at].makespan => {
                kept.members[at] = schedule.clone();
                kept.stale = 0;
            }
            Some(_) => kept.stale += 1,
        }
        if kept.stale > STALE_MAX {
            kept.stale = 0;
            kept.members.clear();
            let best = kept.best.clone();
            kept.members.extend(best);
        }
    }
}
