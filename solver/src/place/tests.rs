//! Held against every chain at every tick, on small instances.

use super::*;
use crate::Occupation;
use crate::greedy;
use crate::random::Random;
use crate::state::State;
use crate::tiny;

/// Every chain at every tick, one operation after another, judged from the rules alone.
struct Exhaustive<'a> {
    shop: &'a Shop,
    lines: &'a Lines,
    job: &'a Job,
    criterion: Cost,
    horizon: Tick,
    found: Vec<(Tick, Fen, i64)>,
}

impl Exhaustive<'_> {
    fn extend(&mut self, chain: &mut Vec<(usize, Tick)>) {
        let k = chain.len();
        if k == self.job.ops.len() {
            self.found.extend(self.price(chain));
            return;
        }
        let from = chain.last().map_or(0, |c| c.1 + 1);
        for mode in &self.job.ops[k].modes {
            for start in from..self.horizon {
                chain.push((mode.machine, start));
                self.extend(chain);
                chain.pop();
            }
        }
    }

    fn price(&self, chain: &[(usize, Tick)]) -> Option<(Tick, Fen, i64)> {
        let (mut cost, mut charge, mut carbon, mut carbons) = (0, 0, 0, 0);
        let (mut at, mut ready) = (self.job.origin, self.job.release);
        let mut setups = vec![0; chain.len()];
        let mut ends = vec![0; chain.len()];
        for m in 0..self.lines.machines() {
            let growth = self.price_line(m, chain, &mut ends, &mut setups)?;
            cost += growth * self.shop.machines[m].setup_cost_per_tick;
            carbon += growth * self.shop.machines[m].setup_carbon_per_tick;
        }
        for (k, &(m, start)) in chain.iter().enumerate() {
            let (there, mode) = (self.shop.machines[m].plant, self.job.ops[k].mode_on(m)?);
            let trip = |rows: &[Vec<i64>]| at.map_or(0, |p| rows[p][there]);
            let (time, fare) = (trip(&self.shop.transport), trip(&self.shop.transport_cost));
            if start < (ready + time).max(mode.earliest) {
                return None;
            }
            cost += mode.cost + fare;
            charge += mode.charge + fare;
            carbons += mode.carbon + at.map_or(0, |p| self.shop.trip_carbon(p, there));
            if !self.is_free(chain, k, ends[k], setups[k]) {
                return None;
            }
            (at, ready) = (Some(there), ends[k]);
        }
        let kept =
            self.job.deadline.is_none_or(|d| ready <= d) && self.job.budget.is_none_or(|b| charge <= b);
        let late = self.job.tardiness(ready);
        kept.then_some(match self.criterion {
            Cost::Plan => (ready, cost + late, carbons + carbon),
            Cost::Charge => (ready, charge, carbons),
        })
    }

    /// Whether every resource has a unit for the operation, tick by tick.
    fn is_free(&self, chain: &[(usize, Tick)], k: usize, end: Tick, setup: Tick) -> bool {
        let (m, start) = chain[k];
        let open = |t: Tick| self.shop.machines[m].calendar.is_open(t);
        let op = &self.job.ops[k];
        self.shop.needs_of(op.needs).iter().all(|need| {
            let mut left = setup;
            let resource = &self.shop.resources[need.resource];
            (start..end).all(|t| {
                let held = need.during == crate::During::Occupation || left > 0;
                left -= i64::from(open(t));
                !held
                    || (self.taken(need.resource, t) < resource.units as usize
                        && (!open(t) || resource.calendar.is_open(t)))
            })
        })
    }

    /// Units of a resource that the lines take at a tick.
    fn taken(&self, resource: usize, t: Tick) -> usize {
        let holds = |m: usize, o: &Occupation| {
            let open = |t: &Tick| self.shop.machines[m].calendar.is_open(*t);
            let worked = (o.start..=t).filter(open).count() as Tick;
            let in_setup = worked < o.setup || (worked == o.setup && open(&t));
            self.shop.needs_of(o.needs as usize).iter().any(|need| {
                need.resource == resource && (need.during == crate::During::Occupation || in_setup)
            })
        };
        let on = |m: usize| self.lines.on(m).iter().filter(move |o| (o.start..o.end).contains(&t));
        (0..self.lines.machines()).map(|m| on(m).filter(|o| holds(m, o)).count()).sum()
    }

    /// What the machine's setups grow by in ticks, if nothing overlaps and no follower ends later.
    fn price_line(
        &self,
        m: usize,
        chain: &[(usize, Tick)],
        ends: &mut [Tick],
        setups: &mut [Tick],
    ) -> Option<Tick> {
        let line = self.lines.on(m);
        let own = chain.iter().enumerate().filter(|(_, c)| c.0 == m).map(|(k, c)| (c.1, Some(k), None));
        let old = line.iter().map(|o| (o.start, None, Some(*o)));
        let mut all: Vec<(Tick, Option<usize>, Option<Occupation>)> = own.chain(old).collect();
        all.sort_by_key(|x| x.0);
        let (mut family, mut free, mut growth) = (None, 0, 0);
        for (start, own, old) in all {
            let (next, work, splittable, was) = match (own, old) {
                (Some(k), _) => {
                    let op = &self.job.ops[k];
                    (op.family, op.mode_on(m)?.duration, op.splittable, 0)
                }
                (_, Some(o)) => (o.family as usize, o.work, o.splittable, o.setup),
                _ => return None,
            };
            let setup = self.shop.setup_ticks(m, family, next);
            let end = self.shop.machines[m].calendar.finish(start, setup + work, splittable)?;
            if start < free || old.is_some_and(|o| end > o.end) {
                return None;
            }
            // What a follower gives back is not taken within the same placement.
            free = old.map_or(end, |o| o.end);
            if let Some(k) = own {
                (ends[k], setups[k]) = (end, setup);
            }
            growth += setup - was;
            family = Some(next);
        }
        Some(growth)
    }
}

fn front(mut found: Vec<(Tick, Fen, i64)>) -> Vec<(Tick, Fen, i64)> {
    found.sort_unstable();
    found.dedup();
    let beats = |a: &(Tick, Fen, i64), b: &(Tick, Fen, i64)| a != b && a.0 <= b.0 && a.1 <= b.1 && a.2 <= b.2;
    let all = found.clone();
    found.retain(|f| !all.iter().any(|other| beats(other, f)));
    found
}

#[test]
fn placements_are_the_exhaustive_pareto_front() {
    let (mut fronts, mut revisits, mut greener) = (0, 0, 0);
    for seed in 0..600 {
        let instance = match seed % 2 {
            0 => tiny::instance(seed, 6, 3, 26),
            _ => tiny::rich(seed, 6, 3, 26),
        };
        let mut state = State::empty(&instance);
        let mut order: Vec<usize> = (1..instance.jobs.len()).collect();
        Random::new(seed).shuffle(&mut order);
        greedy::insert_all(&mut state, &mut Placer::default(), &order, &|| false);
        let (shop, lines, job) = (&instance.shop, &state.lines, &instance.jobs[0]);
        for criterion in [Cost::Plan, Cost::Charge] {
            let mut all = Exhaustive { shop, lines, job, criterion, horizon: 26, found: Vec::new() };
            all.extend(&mut Vec::new());
            let want = front(all.found);
            let placements = place(shop, lines, job, criterion);
            let got: Vec<_> = placements.iter().map(|p| (p.completion, p.cost, p.carbon)).collect();
            assert_eq!(got, want, "seed {seed}, {criterion:?}");
            if criterion == Cost::Charge {
                best_is_of_the_front(shop, lines, job, &want);
            }
            fronts += usize::from(want.len() > 1);
            greener += usize::from(want.windows(2).any(|w| w[1].1 >= w[0].1));
            for p in &placements {
                revisits +=
                    usize::from((1..p.steps.len()).any(|k| p.steps[k].machine == p.steps[k - 1].machine));
                lines.clone().insert(shop, 99, job, p).expect("a placement can be carried out");
            }
        }
    }
    assert!(fronts > 100 && revisits > 100 && greener > 50, "{fronts} {revisits} {greener}");
}

/// Whether the best placement by each aim is the best of the whole front.
fn best_is_of_the_front(shop: &Shop, lines: &Lines, job: &Job, front: &[(Tick, Fen, i64)]) {
    for aim in [Aim::Soonest, Aim::Cheapest, Aim::Greenest] {
        let by = |(end, cost, carbon): (Tick, Fen, i64)| match aim {
            Aim::Soonest => (end, cost, 0),
            Aim::Cheapest => (cost, end, 0),
            Aim::Greenest => (carbon, cost, end),
        };
        let best = place_best(shop, lines, job, aim);
        let best = best.map(|p| by((p.completion, p.cost, p.carbon)));
        assert_eq!(best, front.iter().copied().map(by).min(), "{aim:?}");
    }
}
