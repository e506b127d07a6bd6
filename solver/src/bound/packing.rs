//! What a machine can earn at most by whole operations: its open windows, packed as dearly as they can be.
//!
//! An operation that may not pause lies whole in one open window, its changeover included. It pays a toll there,
//! which the machine earns that packs it into that window, less what changeovers cost. Any plan's line is such a
//! packing: within a window work and changeovers take no longer than it is open, and the family that one window ends
//! with is the one that the next begins with. Where in its window an operation stands is left to the prices of time.
//! The dearest packing is found exactly: in each window a knapsack for every set of families and the last of them
//! (`Knapsack`), then a dearest path over the windows. Only that an operation is packed into one window and not into
//! two is not looked at, as the tolls see to it.
//!
//! Within a window the work of a family stands together, which loses nothing where no changeover is longer than two
//! that lead to the same; they are made so by taking the shortest way. Work that may pause is not packed; where it
//! shares the machine, a changeover may begin from its family as well.

use crate::{Instance, Tick};

/// Families on a machine beyond so many share a group with others, within which there are no changeovers.
const GROUPS_MAX: usize = 6;
const NEVER: f64 = f64::NEG_INFINITY;

/// An operation that may be packed into a window.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// Index of its toll for this window.
    toll: usize,
    group: usize,
    duration: Tick,
}

/// A machine's windows, and what may be packed into them.
#[derive(Debug)]
struct Bins {
    setups: Setups,
    /// By window: how long it is open, and what fits into it.
    windows: Vec<(Tick, Vec<Item>)>,
}

/// Changeovers between the groups of families on a machine.
#[derive(Debug)]
struct Setups {
    /// By family: its group.
    group: Vec<usize>,
    groups: usize,
    /// The shortest ways from group to group.
    ticks: Vec<Tick>,
    cost_per_tick: f64,
    /// The group that it begins with, where that is known.
    initial: Option<usize>,
}

impl Setups {
    fn new(instance: &Instance, m: usize) -> Setups {
        let machine = &instance.shop.machines[m];
        let matrix = &instance.shop.setups[machine.setup];
        let (mut whole, mut pausing): (Vec<usize>, Vec<usize>) =
            (machine.initial_family.into_iter().collect(), vec![]);
        for op in instance.jobs.iter().flat_map(|job| &job.ops).filter(|op| op.mode_on(m).is_some()) {
            if op.splittable { &mut pausing } else { &mut whole }.push(op.family);
        }
        whole.sort_unstable();
        whole.dedup();
        let of = |family| whole.iter().position(|&f| f == family).map_or(0, |i| i % GROUPS_MAX);
        let groups = whole.len().clamp(1, GROUPS_MAX);
        let mut ticks = vec![Tick::MAX / 4; groups * groups];
        (0..groups).for_each(|g| ticks[g * groups + g] = 0);
        let between = |f, g| if f == g { 0 } else { matrix.ticks(Some(f), g) };
        for &g in &whole {
            let from_pausing = pausing.iter().map(|&f| between(f, g)).min().unwrap_or(Tick::MAX);
            for &f in &whole {
                let slot = &mut ticks[of(f) * groups + of(g)];
                *slot = between(f, g).min(from_pausing).min(*slot);
            }
        }
        for via in 0..groups {
            for (f, g) in (0..groups * groups).map(|i| (i / groups, i % groups)) {
                let around = ticks[f * groups + via] + ticks[via * groups + g];
                ticks[f * groups + g] = ticks[f * groups + g].min(around);
            }
        }
        Setups {
            group: (0..matrix.families()).map(of).collect(),
            groups,
            ticks,
            cost_per_tick: machine.setup_cost_per_tick as f64,
            initial: machine.initial_family.map(of),
        }
    }

    fn ticks(&self, from: usize, to: usize) -> Tick {
        self.ticks[from * self.groups + to]
    }
}

/// All machines' windows, and the tolls of all operations.
#[derive(Debug)]
pub(super) struct Packing {
    machines: Vec<Bins>,
    /// By job, operation and mode: the index of the toll for the machine's first window; nothing for work that may
    /// pause.
    first: Vec<Vec<Vec<Option<usize>>>>,
    /// How many tolls there are.
    pub(super) tolls: usize,
    knapsack: Knapsack,
}

impl Packing {
    pub(super) fn new(instance: &Instance) -> Packing {
        let calendar = |m: usize| &instance.shop.machines[m].calendar;
        let machines = (0..instance.shop.machines.len()).map(|m| Bins {
            setups: Setups::new(instance, m),
            windows: calendar(m).windows().iter().map(|w| (w.1 - w.0, Vec::new())).collect(),
        });
        let (machines, knapsack) = (machines.collect(), Knapsack::default());
        let mut packing = Packing { machines, first: Vec::new(), tolls: 0, knapsack };
        for job in &instance.jobs {
            let last = super::job::latest_end(instance, job);
            let shortest = |ops: &[crate::Op]| -> Tick {
                ops.iter().map(|op| op.modes.iter().map(|mode| mode.duration).min().unwrap_or(0)).sum()
            };
            let of_op = |(k, op): (usize, &crate::Op)| {
                let from = job.release + shortest(&job.ops[..k]);
                let until = last - shortest(&job.ops[k + 1..]);
                let of_mode = |mode: &crate::Mode| {
                    let windows = calendar(mode.machine).windows();
                    (!op.splittable).then(|| packing.charge(op.family, mode, windows, (from, until)))
                };
                op.modes.iter().map(of_mode).collect()
            };
            let of_job = job.ops.iter().enumerate().map(of_op).collect();
            packing.first.push(of_job);
        }
        packing
    }

    /// Has an operation pay a toll in each window that it fits into within a span; gives the first one's index.
    fn charge(
        &mut self,
        family: usize,
        mode: &crate::Mode,
        windows: &[(Tick, Tick)],
        span: (Tick, Tick),
    ) -> usize {
        let first = self.tolls;
        self.tolls += windows.len();
        let Bins { setups, windows: bins } = &mut self.machines[mode.machine];
        for (w, &(open, close)) in windows.iter().enumerate() {
            if open.max(span.0).max(mode.earliest) + mode.duration <= close.min(span.1) {
                bins[w].1.push(Item {
                    toll: first + w,
                    group: setups.group[family],
                    duration: mode.duration,
                });
            }
        }
        first
    }

    /// The index of an operation's toll for the first window of the machine of a mode.
    pub(super) fn first(&self, job: usize, op: usize, mode: usize) -> Option<usize> {
        self.first[job][op][mode]
    }

    /// The most that a machine can earn by tolls, which are by tick of the operation, in cells of `grain` ticks. The
    /// ticks of what it packs are added to `packed`, by toll.
    pub(super) fn dearest(&mut self, m: usize, grain: Tick, tolls: &[f64], packed: &mut [f64]) -> f64 {
        let Bins { setups, windows } = &self.machines[m];
        let knapsack = &mut self.knapsack;
        // By group that the machine is set up for: the most earned so far, and by window the group before it.
        let begins = |g: usize| if setups.initial.is_none_or(|i| i == g) { 0.0 } else { NEVER };
        let mut most: Vec<f64> = (0..setups.groups).map(begins).collect();
        let mut ways: Vec<(usize, Vec<Option<usize>>)> = Vec::new();
        for (w, window) in windows.iter().enumerate() {
            if !knapsack.load(window, grain, tolls) {
                continue;
            }
            let (mut next, mut way) = (most.clone(), vec![None; setups.groups]);
            for (from, &before) in most.iter().enumerate().filter(|m| *m.1 > NEVER) {
                knapsack.fill(setups, from);
                for to in 0..setups.groups {
                    let value = before + knapsack.earned(to);
                    if value > next[to] {
                        (next[to], way[to]) = (value, Some(from));
                    }
                }
            }
            ways.push((w, way));
            most = next;
        }
        let Some(mut to) = (0..setups.groups).max_by(|&f, &g| most[f].total_cmp(&most[g])) else {
            return 0.0;
        };
        let earned = most[to];
        for (w, way) in ways.into_iter().rev() {
            let Some(from) = way[to] else { continue };
            knapsack.load(&windows[w], grain, tolls);
            knapsack.fill(setups, from);
            knapsack.read_off(setups, from, to, packed);
            to = from;
        }
        earned
    }
}

/// An operation that pays.
#[derive(Clone, Copy, Debug)]
struct Paying {
    cells: usize,
    earned: f64,
    toll: usize,
    ticks: Tick,
}

/// One window, packed from one group on.
#[derive(Debug, Default)]
struct Knapsack {
    cells: usize,
    grain: Tick,
    /// The groups with something that pays, and what.
    groups: Vec<(usize, Vec<Paying>)>,
    /// By set of these, and which is the last: the most earned in at most so many cells, with something of each;
    /// empty where they do not fit together.
    most: Vec<Vec<f64>>,
    /// The same before anything of the last one is packed.
    entry: Vec<f64>,
}

impl Knapsack {
    /// Takes a window in; false where nothing pays there.
    fn load(&mut self, (open, items): &(Tick, Vec<Item>), grain: Tick, tolls: &[f64]) -> bool {
        (self.cells, self.grain) = ((open / grain) as usize, grain);
        self.groups.clear();
        for item in items.iter().filter(|item| tolls[item.toll] > 0.0) {
            let known = self.groups.iter().position(|(group, _)| *group == item.group);
            let at = known.unwrap_or_else(|| {
                self.groups.push((item.group, Vec::new()));
                self.groups.len() - 1
            });
            let (cells, earned) = ((item.duration / grain) as usize, tolls[item.toll] * item.duration as f64);
            self.groups[at].1.push(Paying { cells, earned, toll: item.toll, ticks: item.duration });
        }
        self.most.resize_with(self.groups.len() << self.groups.len(), Vec::new);
        !self.groups.is_empty()
    }

    fn at(&self, set: usize, last: usize) -> usize {
        set * self.groups.len() + last
    }

    /// The sets that the `last` of these groups is in.
    fn sets_with(&self, last: usize) -> impl Iterator<Item = usize> + use<> {
        (1..1usize << self.groups.len()).filter(move |set| set & (1 << last) != 0)
    }

    /// Packs everything from a group on.
    fn fill(&mut self, setups: &Setups, from: usize) {
        for set in 1..1usize << self.groups.len() {
            for last in (0..self.groups.len()).filter(|last| set & (1 << last) != 0) {
                let at = self.at(set, last);
                let mut most = std::mem::take(&mut self.most[at]);
                most.clear();
                self.enter(setups, from, set & !(1 << last), last);
                if self.entry[self.cells] > NEVER {
                    most.resize(self.cells + 1, NEVER);
                    self.groups[last].1.iter().for_each(|item| pack(&mut most, &self.entry, item));
                    if most[self.cells] == NEVER {
                        most.clear();
                    }
                }
                self.most[at] = most;
            }
        }
    }

    /// What is left of what has been earned when a group is entered behind those of `set`.
    fn enter(&mut self, setups: &Setups, from: usize, set: usize, group: usize) {
        let mut entry = std::mem::take(&mut self.entry);
        entry.clear();
        entry.resize(self.cells + 1, NEVER);
        let to = self.groups[group].0;
        if set == 0 {
            let (cells, cost) = self.changeover(setups, from, to);
            entry.iter_mut().skip(cells).for_each(|e| *e = -cost);
        }
        for last in (0..self.groups.len()).filter(|last| set & (1 << last) != 0) {
            let (cells, cost) = self.changeover(setups, self.groups[last].0, to);
            let before = &self.most[self.at(set, last)];
            entry.iter_mut().skip(cells).zip(before).for_each(|(e, b)| *e = e.max(b - cost));
        }
        self.entry = entry;
    }

    fn changeover(&self, setups: &Setups, from: usize, to: usize) -> (usize, f64) {
        let ticks = setups.ticks(from, to);
        ((ticks / self.grain) as usize, ticks as f64 * setups.cost_per_tick)
    }

    /// The most earned with a group last.
    fn earned(&self, group: usize) -> f64 {
        let Some(last) = self.groups.iter().position(|(g, _)| *g == group) else { return NEVER };
        let most = |set| self.most[self.at(set, last)].last().copied();
        self.sets_with(last).filter_map(most).fold(NEVER, f64::max)
    }

    /// What is packed where the most is earned from one group to another. Sums are exact, so that equal ones are the
    /// same.
    fn read_off(&mut self, setups: &Setups, from: usize, to: usize, packed: &mut [f64]) {
        let mut value = self.earned(to);
        let Some(mut last) = self.groups.iter().position(|(g, _)| *g == to) else { return };
        let earns = |set: &usize| self.most[self.at(*set, last)].last() == Some(&value);
        let Some(mut set) = self.sets_with(last).find(earns) else { return };
        let mut t = self.cells;
        loop {
            set &= !(1 << last);
            self.enter(setups, from, set, last);
            let mut tables = vec![vec![NEVER; self.cells + 1]];
            for (i, item) in self.groups[last].1.iter().enumerate() {
                let mut table = tables[i].clone();
                pack(&mut table, &self.entry, item);
                tables.push(table);
            }
            // The last table is the one that `value` stands in.
            for (i, item) in self.groups[last].1.iter().enumerate().rev() {
                let table = &tables[i];
                if table[t] == value {
                    continue;
                }
                packed[item.toll] += item.ticks as f64;
                (t, value) = (t - item.cells, value - item.earned);
                if table[t] != value {
                    break;
                }
            }
            let before = (0..self.groups.len()).filter(|b| set & (1 << b) != 0).find_map(|b| {
                let (cells, cost) = self.changeover(setups, self.groups[b].0, self.groups[last].0);
                let t = t.checked_sub(cells)?;
                (self.most[self.at(set, b)].get(t) == Some(&(value + cost))).then_some((b, t, value + cost))
            });
            let Some(before) = before else { return };
            (last, t, value) = before;
        }
    }
}

/// One item more, alone in its group or beside others.
fn pack(most: &mut [f64], entry: &[f64], item: &Paying) {
    for t in (item.cells..most.len()).rev() {
        let with = most[t - item.cells].max(entry[t - item.cells]) + item.earned;
        most[t] = most[t].max(with);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::tiny;

    /// The most that operations earn in one order after another, each in this window or a later one.
    fn enumerated(bins: &Bins, tolls: &[f64], at: (usize, Tick, usize), done: &mut Vec<usize>) -> f64 {
        let (w, left, group) = at;
        let Some((_, items)) = bins.windows.get(w) else { return 0.0 };
        let next = bins.windows.get(w + 1).map_or(0, |next| next.0);
        let mut most = enumerated(bins, tolls, (w + 1, next, group), done);
        for item in items.iter().filter(|item| tolls[item.toll] > 0.0) {
            let setup = bins.setups.ticks(group, item.group);
            if setup + item.duration > left || done.contains(&item.toll) {
                continue;
            }
            done.push(item.toll);
            let rest = enumerated(bins, tolls, (w, left - setup - item.duration, item.group), done);
            let cost = setup as f64 * bins.setups.cost_per_tick;
            most = most.max(tolls[item.toll] * item.duration as f64 - cost + rest);
            done.pop();
        }
        most
    }

    #[test]
    fn the_dearest_packing_is_the_best_of_all_orders() {
        let (mut earning, mut changing) = (0, 0);
        for seed in 0..400 {
            let instance = tiny::instance(seed, 5, 2, 30);
            let mut random = Random::new(seed);
            let mut packing = Packing::new(&instance);
            let tolls: Vec<f64> =
                (0..packing.tolls).map(|_| [0.0, 2.5, 7.0, 40.0][random.below(4)]).collect();
            for m in 0..instance.shop.machines.len() {
                let bins = &packing.machines[m];
                if bins.windows.iter().map(|w| w.1.len()).sum::<usize>() > 9 {
                    continue;
                }
                let first = bins.windows.first().map_or(0, |w| w.0);
                let begins = (0..bins.setups.groups).filter(|&g| bins.setups.initial.is_none_or(|i| i == g));
                let all = begins.map(|g| enumerated(bins, &tolls, (0, first, g), &mut Vec::new()));
                let all = all.fold(0.0, f64::max);
                let mut packed = vec![0.0; packing.tolls];
                let most = packing.dearest(m, 1, &tolls, &mut packed);
                assert_eq!(most, all, "seed {seed}, machine {m}");
                let gross: f64 = tolls.iter().zip(&packed).map(|(toll, ticks)| toll * ticks).sum();
                assert!(gross >= most, "seed {seed}, machine {m}: {most} out of {gross}");
                let coarse = packing.dearest(m, 3, &tolls, &mut packed);
                assert!(
                    coarse >= most,
                    "seed {seed}, machine {m}: {coarse} in coarse cells, {most} in fine ones"
                );
                earning += usize::from(most > 0.0);
                changing += usize::from(most > 0.0 && gross > most);
            }
        }
        assert!(earning > 200 && changing > 50, "{earning} earn, {changing} of them by changing over");
    }
}
