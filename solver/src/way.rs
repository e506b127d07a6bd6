//! Making way: what stands on a machine moves to the right of something new, as far as nothing else minds.
//!
//! A search may delay what is planned; a quote may not. An occupation yields as long as it ends before its
//! job's next operation has to leave and by its job's deadline, all other machines standing still, and
//! whatever it runs into yields in its turn, a few occupations deep. Only ever to the right, so that the
//! ways made for several operations of one job never contradict each other.

use crate::{Fen, Fixed, Instance, Lines, Occupation, Step, Tick};

/// Occupations that make way for one operation at most.
const DEPTH_MAX: usize = 4;

/// A plan as it stands.
#[derive(Clone, Copy)]
pub(crate) struct Standing<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) lines: &'a Lines,
    /// First index of each job's steps.
    pub(crate) base: &'a [u32],
    pub(crate) steps: &'a [Step],
    /// Where the operations stood before, if that matters, and what moving each weighs.
    pub(crate) stay: Option<(&'a [Option<Fixed>], Fen)>,
}

impl Standing<'_> {
    /// What the plan's cost grows by where the occupations from position `at` on stand behind one of `family`
    /// that ends at `end`, `None` where they cannot. `moved` is told of each that changes, in order.
    #[inline]
    pub(crate) fn make_way(
        &self,
        machine: usize,
        at: usize,
        family: usize,
        end: Tick,
        mut moved: impl FnMut(Occupation),
    ) -> Option<Fen> {
        let shop = &self.instance.shop;
        let calendar = &shop.machines[machine].calendar;
        let rate = shop.machines[machine].setup_cost_per_tick;
        let (mut family, mut free, mut cost) = (family, end, 0);
        for (depth, o) in self.lines.on(machine)[at..].iter().enumerate() {
            let setup = shop.setup_ticks(machine, Some(family), o.family as usize);
            if free <= o.start && setup == o.setup {
                break;
            }
            let work = setup + o.work;
            let (start, end) = if free <= o.start && setup < o.setup {
                (o.start, calendar.finish(o.start, work, o.splittable)?)
            } else if depth == DEPTH_MAX || o.fixed || o.needs != 0 {
                return None;
            } else {
                calendar.earliest(free.max(o.start), work, o.splittable, self.latest_end(machine, o))?
            };
            let job = &self.instance.jobs[o.key.job as usize];
            cost += (setup - o.setup) * rate + self.move_cost(machine, o, start);
            if o.key.op as usize + 1 == job.ops.len() {
                cost += job.tardiness(end) - job.tardiness(o.end);
            }
            moved(Occupation { start, end, setup, ..*o });
            (family, free) = (o.family as usize, end);
        }
        Some(cost)
    }

    /// What beginning at `start` instead of where it stands weighs more.
    fn move_cost(&self, machine: usize, o: &Occupation, start: Tick) -> Fen {
        let stay = self.stay.and_then(|(stays, weight)| {
            let stay = stays[(self.base[o.key.job as usize] + o.key.op) as usize];
            stay.filter(|stay| stay.machine == machine).map(|stay| (stay.start, weight))
        });
        let Some((stay, weight)) = stay else { return 0 };
        weight * (i64::from(start != stay) - i64::from(o.start != stay))
    }

    /// The least that it costs to have an occupation begin at `free` or later, `None` where it must not.
    pub(crate) fn least_way(&self, machine: usize, o: &Occupation, free: Tick) -> Option<Fen> {
        let end = free + o.work;
        if o.fixed || o.needs != 0 || end > self.latest_end(machine, o) {
            return None;
        }
        let job = &self.instance.jobs[o.key.job as usize];
        let ends_it = o.key.op as usize + 1 == job.ops.len();
        Some(if ends_it { job.tardiness(end) - job.tardiness(o.end) } else { 0 })
    }

    /// The latest that an occupation may end for its job's sake.
    pub(crate) fn latest_end(&self, machine: usize, o: &Occupation) -> Tick {
        let (job, shop) = (&self.instance.jobs[o.key.job as usize], &self.instance.shop);
        if o.key.op as usize + 1 == job.ops.len() {
            return job.deadline.unwrap_or(Tick::MAX);
        }
        let next = &self.steps[(self.base[o.key.job as usize] + o.key.op + 1) as usize];
        next.start - shop.transport[shop.machines[machine].plant][shop.machines[next.machine].plant]
    }
}

#[cfg(test)]
mod tests {
    use crate::place::Placer;
    use crate::state::State;
    use crate::{Cost, Fen, Fixed, Plan, greedy, place, tiny, verify};

    /// A plan of all jobs but one: what each way of putting that one in was said to cost, and what it costs.
    #[test]
    fn what_makes_way_is_priced_before_it_moves() {
        let (mut ways, mut cheaper, mut exact) = (0, 0, 0);
        for seed in 0..1500 {
            let mut instance = match seed % 2 {
                0 => tiny::instance(seed, 10, 3, 60),
                _ => tiny::rich(seed, 10, 3, 60),
            };
            instance.objective.makespan = 0;
            let mut instance = instance.weighed().unwrap().into_owned();
            let order: Vec<usize> = (0..9).collect();
            if seed % 5 < 2 {
                // Two that come early are frozen where they stand.
                let mut state = State::load(&instance, greedy::frozen_chains(&instance));
                greedy::insert_all(&mut state, &mut Placer::default(), &order, &|| false);
                for a in state.plan().assignments.iter().filter(|a| a.job < 2) {
                    instance.jobs[a.job].ops[a.op].fixed = Some(Fixed { machine: a.machine, start: a.start });
                }
            }
            let mut state = State::load(&instance, greedy::frozen_chains(&instance));
            greedy::insert_all(&mut state, &mut Placer::default(), &order, &|| false);
            if seed % 3 == 0 {
                let plan: Plan = state.plan();
                state.anchor(&plan, 7);
            }
            if state.keeps(9) {
                continue;
            }
            let mut placer = Placer::default();
            state.find(&mut placer, 9, Fen::MAX / 4);
            let said: Vec<Fen> = placer.finals.iter().map(|&label| placer.placement(label).cost).collect();
            for (&label, said) in placer.finals.iter().zip(&said) {
                let before = (state.weight(), state.plan());
                state.mark();
                state.insert(&placer, 9, label);
                let costs = state.weight() - before.0 + state.absence(9);
                assert!(costs <= *said, "seed {seed}: {costs} where {said} was said");
                exact += usize::from(costs == *said);
                ways += 1;
                let mut plan = state.plan();
                plan.rejected.retain(|&j| instance.jobs[j].rejection_cost.is_some());
                if state.missing() == 0 {
                    verify(&instance, &plan).unwrap();
                }
                state.undo();
                assert_eq!((state.weight(), state.plan()), before, "seed {seed}");
            }
            let still = place(&instance.shop, &state.lines, &instance.jobs[9], Cost::Plan);
            let still = still.iter().map(|placement| placement.cost).min();
            if !state.is_anchored() {
                let least = said.iter().copied().min();
                assert!(still.is_none_or(|still| least.is_some_and(|least| least <= still)), "seed {seed}");
                cheaper += usize::from(least < still || still.is_none() && least.is_some());
            }
        }
        assert!(
            ways > 500 && cheaper > 60 && 10 * exact > 9 * ways,
            "{ways} ways, {exact} exact, {cheaper} cheaper"
        );
    }
}
