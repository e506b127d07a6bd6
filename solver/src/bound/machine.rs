//! What a machine can earn at most at given prices: a dearest path through the families that it may be set up for.
//!
//! In every open tick the machine is set up for one family, and earns that family's price, or changes over, and
//! earns nothing and pays. Any plan's line is such a path: it is set up for an operation's family while it works
//! on it, and changes over in between: in one open window with the work that follows, unless that may pause. The
//! dearest path over all ticks is found exactly, O(open ticks x families squared).

use super::{BUCKET, Line};
use crate::{Shop, Tick};

/// Nothing was entered here: the family stayed as it was.
const STAYED: u8 = u8::MAX;

/// Buffers of one machine's dynamic program.
#[derive(Default)]
pub(super) struct Path {
    /// By family: the most earned so far by being set up for it.
    most: Vec<f64>,
    before: Vec<f64>,
    /// Changeovers under way, by the open tick that they end at, in a ring: value and family left.
    coming: Vec<(f64, u8)>,
    /// By open tick and family: which family was left for it to be entered here.
    entered: Vec<u8>,
    /// Buckets of the open ticks.
    bucket: Vec<u32>,
}

impl Path {
    /// The most that the machine can earn, and what it then offers, added to `offered`: both tables by family,
    /// then by bucket.
    pub(super) fn dearest(
        &mut self,
        shop: &Shop,
        machine: usize,
        line: &Line,
        prices: &[f64],
        offered: &mut [f64],
    ) -> f64 {
        let families = &line.families;
        let (count, buckets) = (families.len(), prices.len() / families.len());
        let spec = &shop.machines[machine];
        if count == 1 {
            let mut earned = 0.0;
            for b in 0..buckets {
                let (from, to) = (b as Tick * BUCKET, (b as Tick + 1) * BUCKET);
                let open = (spec.calendar.open_until(to) - spec.calendar.open_until(from)) as f64;
                offered[b] += open;
                earned += open * prices[b];
            }
            return earned;
        }
        let ticks = |f: usize, g: usize| shop.setups[spec.setup].ticks(Some(families[f]), families[g]);
        let setup: Vec<Tick> = (0..count * count).map(|i| ticks(i / count, i % count)).collect();
        let rate = spec.setup_cost_per_tick as f64;
        // Longer than the machine is open is never.
        let longest = spec.calendar.open_total();
        let ring = setup.iter().copied().filter(|&t| t <= longest).max().unwrap_or(0) as usize + 1;
        self.most.clear();
        let initial = spec.initial_family.and_then(|family| families.iter().position(|&f| f == family));
        let start = |f: usize| if initial.is_none_or(|i| i == f) { 0.0 } else { f64::NEG_INFINITY };
        self.most.extend((0..count).map(start));
        self.coming.clear();
        self.coming.resize(ring * count, (f64::NEG_INFINITY, STAYED));
        self.entered.clear();
        self.entered.resize(spec.calendar.open_total() as usize * count, STAYED);
        self.bucket.clear();
        for &(open, close) in spec.calendar.windows() {
            for t in open..close {
                let i = self.bucket.len();
                self.bucket.push((t / BUCKET) as u32);
                self.enter(i, count, ring, &setup);
                for f in 0..count {
                    for g in (0..count).filter(|&g| g != f) {
                        let takes = setup[f * count + g];
                        let fits = line.shortest[g].is_none_or(|work| t + takes + work <= close);
                        if takes == 0 || takes > longest || !fits {
                            continue;
                        }
                        let value = self.most[f] - takes as f64 * rate;
                        let slot = &mut self.coming[((i + takes as usize) % ring) * count + g];
                        if value > slot.0 {
                            *slot = (value, f as u8);
                        }
                    }
                    self.most[f] += prices[f * buckets + (t / BUCKET) as usize];
                }
            }
        }
        self.read_off(count, buckets, &setup, offered)
    }

    /// Changeovers that end before open tick `i`, and those that take no time.
    fn enter(&mut self, i: usize, count: usize, ring: usize, setup: &[Tick]) {
        for g in 0..count {
            let slot = &mut self.coming[(i % ring) * count + g];
            let (value, from) = std::mem::replace(slot, (f64::NEG_INFINITY, STAYED));
            if value > self.most[g] {
                self.most[g] = value;
                self.entered[i * count + g] = from;
            }
        }
        self.before.clone_from(&self.most);
        for f in 0..count {
            for g in (0..count).filter(|&g| g != f && setup[f * count + g] == 0) {
                if self.before[f] > self.most[g] {
                    self.most[g] = self.before[f];
                    self.entered[i * count + g] = f as u8;
                }
            }
        }
    }

    /// The best end, and what the path to it offers.
    fn read_off(&self, count: usize, buckets: usize, setup: &[Tick], offered: &mut [f64]) -> f64 {
        let best = (0..count).max_by(|&f, &g| self.most[f].total_cmp(&self.most[g]));
        let Some(mut family) = best else { return 0.0 };
        let mut end = self.bucket.len();
        while end > 0 {
            let i = end - 1;
            offered[family * buckets + self.bucket[i] as usize] += 1.0;
            end = i;
            // Steps back through what was entered here, whole changeovers at once.
            for _ in 0..count {
                let from = self.entered.get(end * count + family).copied().unwrap_or(STAYED);
                if from == STAYED {
                    break;
                }
                end -= (setup[usize::from(from) * count + family] as usize).min(end);
                family = usize::from(from);
            }
        }
        best.map_or(0.0, |best| self.most[best])
    }
}

#[cfg(test)]
mod tests {
    use crate::bound::Bound;
    use crate::place::Placer;
    use crate::random::Random;
    use crate::state::State;
    use crate::{Calendar, Instance, SetupMatrix, greedy, tiny};

    /// The same instance with every tick a bucket long.
    fn stretched(mut instance: Instance) -> Instance {
        let by = super::BUCKET;
        instance.horizon *= by;
        instance.shop.transport.iter_mut().flatten().for_each(|t| *t *= by);
        for setup in &mut instance.shop.setups {
            let row = |f| (0..setup.families()).map(|g| setup.ticks(Some(f), g) * by).collect();
            *setup = SetupMatrix::new(&(0..setup.families()).map(row).collect::<Vec<_>>()).unwrap();
        }
        for machine in &mut instance.shop.machines {
            let windows = machine.calendar.windows().iter().map(|w| (w.0 * by, w.1 * by)).collect();
            machine.calendar = Calendar::new(windows).unwrap();
        }
        for job in &mut instance.jobs {
            (job.release, job.due) = (job.release * by, job.due * by);
            job.deadline = job.deadline.map(|t| t * by);
            for mode in job.ops.iter_mut().flat_map(|op| &mut op.modes) {
                (mode.duration, mode.earliest) = (mode.duration * by, mode.earliest * by);
            }
        }
        instance
    }

    /// No line of any plan earns more than the dearest path, and the path earns what it offers.
    #[test]
    fn no_plan_earns_more_than_the_dearest_path() {
        let (mut tight, mut lines) = (0, 0);
        for seed in 0..500 {
            let instance = stretched(tiny::instance(seed, 12, 3, 60));
            let mut random = Random::new(seed);
            let mut state = State::empty(&instance);
            let mut order: Vec<usize> = (0..instance.jobs.len()).collect();
            random.shuffle(&mut order);
            greedy::insert_all(&mut state, &mut Placer::default(), &order, &|| false);
            let mut bound = Bound::new(&instance);
            assert!(bound.tell_families_apart() || instance.shop.machines.is_empty());
            // Prices that reward this very plan.
            for m in 0..instance.shop.machines.len() {
                for o in state.lines.on(m) {
                    let line = &bound.lines[m];
                    let class = usize::from(line.class[o.family as usize]);
                    let from = line.first + class * bound.buckets;
                    for b in o.start / super::BUCKET..o.end / super::BUCKET {
                        bound.prices[from + b as usize] =
                            [0.0, 5.0, 1000.0][random.below(3).max(seed as usize % 3)];
                    }
                }
            }
            while !bound.begin() {}
            for m in 0..instance.shop.machines.len() {
                let (line, calendar) = (&bound.lines[m], &instance.shop.machines[m].calendar);
                let rate = instance.shop.machines[m].setup_cost_per_tick as f64;
                let mut earned = 0.0;
                for o in state.lines.on(m) {
                    let class = usize::from(line.class[o.family as usize]);
                    let open: Vec<i64> = (o.start..o.end)
                        .filter(|&t| calendar.open_until(t + 1) > calendar.open_until(t))
                        .collect();
                    for t in &open[o.setup as usize..] {
                        let at = line.first + class * bound.buckets + (t / super::BUCKET) as usize;
                        earned += bound.prices[at];
                    }
                    earned -= o.setup as f64 * rate;
                }
                let size = line.families.len() * bound.buckets;
                let prices = bound.prices[line.first..line.first + size].to_vec();
                let mut offered = vec![0.0; size];
                let mut path = super::Path::default();
                let most = path.dearest(&instance.shop, m, line, &prices, &mut offered);
                assert!(earned <= most, "seed {seed}, machine {m}: a plan earns {earned}, the path {most}");
                let gross: f64 = prices.iter().zip(&offered).map(|(p, o)| p * o).sum();
                assert!(gross >= most, "seed {seed}, machine {m}: {most} out of {gross}");
                tight += usize::from(earned == most);
                lines += usize::from(earned > 0.0);
            }
        }
        assert!(lines > 300 && tight > 100, "{tight} of {lines} lines are dearest paths themselves");
    }
}
