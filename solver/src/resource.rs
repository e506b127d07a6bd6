//! Resources beside the machines: fixtures, operators, gauges; and how many units of one are taken when.

use crate::{Calendar, Shop, Tick};

/// Something that operations need besides their machine, in some alike units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub id: String,
    /// How many operations may hold one at a time.
    pub units: u32,
    /// When it is there.
    pub calendar: Calendar,
}

/// For how long an operation holds a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum During {
    /// Its setup: somebody who sets machines up.
    Setup,
    /// Its whole occupation: a fixture.
    Occupation,
}

/// One unit of a resource that an operation holds.
///
/// It is held without a pause, and must be there whenever the machine is open in the meantime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Index of the resource.
    pub resource: usize,
    /// For how long.
    pub during: During,
}

/// An occupation to be, or one that is: where, with what needs, and of what length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) machine: usize,
    /// Which of [`Shop::needs`].
    pub(crate) needs: usize,
    pub(crate) setup: Tick,
    pub(crate) work: Tick,
    pub(crate) splittable: bool,
}

impl Span {
    /// What it holds when it occupies its machine over `[start, end)`: resource, from, until.
    fn held<'s>(
        &self,
        shop: &'s Shop,
        start: Tick,
        end: Tick,
    ) -> impl Iterator<Item = (usize, Tick, Tick)> + 's {
        let (setup, splittable) = (self.setup, self.splittable);
        let calendar = &shop.machines[self.machine].calendar;
        let until = move |during| match during {
            During::Occupation => end,
            During::Setup if setup == 0 => start,
            During::Setup => calendar.finish(start, setup, splittable).unwrap_or(end),
        };
        let held =
            shop.needs_of(self.needs).iter().map(move |need| (need.resource, start, until(need.during)));
        held.filter(|(_, from, until)| from < until)
    }
}

/// How many units of each resource are taken when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// By resource: sorted times, and the units taken from each on until the next.
    levels: Vec<Vec<(Tick, u32)>>,
}

impl Usage {
    pub(crate) fn new(shop: &Shop) -> Usage {
        Usage { levels: vec![Vec::new(); shop.resources.len()] }
    }

    /// Takes what a span holds.
    pub(crate) fn take(&mut self, shop: &Shop, span: &Span, (start, end): (Tick, Tick)) {
        for (resource, from, until) in span.held(shop, start, end) {
            change(&mut self.levels[resource], from, until, |level| level + 1);
        }
    }

    /// Gives back what a span holds.
    pub(crate) fn give_back(&mut self, shop: &Shop, span: &Span, (start, end): (Tick, Tick)) {
        for (resource, from, until) in span.held(shop, start, end) {
            change(&mut self.levels[resource], from, until, |level| level.saturating_sub(1));
        }
    }

    /// The earliest `(start, end)` at or after `from` that ends by `latest`, the machine being open and every
    /// resource there with a unit to spare. Later starts never end sooner.
    pub(crate) fn earliest(
        &self,
        shop: &Shop,
        span: &Span,
        mut from: Tick,
        latest: Tick,
    ) -> Option<(Tick, Tick)> {
        let calendar = &shop.machines[span.machine].calendar;
        loop {
            let found = calendar.earliest(from, span.setup + span.work, span.splittable, latest)?;
            if span.needs == 0 {
                return Some(found);
            }
            match self.obstacle(shop, span, found) {
                None => return Some(found),
                Some(next) => from = next,
            }
        }
    }

    /// The end of an occupation that begins at `start`, if it may.
    pub(crate) fn end_at(&self, shop: &Shop, span: &Span, start: Tick) -> Option<Tick> {
        let calendar = &shop.machines[span.machine].calendar;
        let end = calendar.finish(start, span.setup + span.work, span.splittable)?;
        (span.needs == 0 || self.obstacle(shop, span, (start, end)).is_none()).then_some(end)
    }

    /// Where a resource is away or taken, the next start at which that obstacle may be gone.
    pub(crate) fn obstacle(&self, shop: &Shop, span: &Span, (start, end): (Tick, Tick)) -> Option<Tick> {
        let machine = &shop.machines[span.machine].calendar;
        span.held(shop, start, end).find_map(|(r, from, until)| {
            let resource = &shop.resources[r];
            let away = back_from(machine, &resource.calendar, from, until);
            away.or_else(|| free_from(&self.levels[r], resource.units, from, until))
        })
    }
}

/// The resource's next opening behind a tick in `[from, until)` at which the machine is open and the resource is
/// not; `Tick::MAX / 2` where there is none.
fn back_from(machine: &Calendar, resource: &Calendar, from: Tick, until: Tick) -> Option<Tick> {
    let mut at = from;
    for i in resource.window_from(from)..=resource.windows().len() {
        let (open, close) = resource.windows().get(i).copied().unwrap_or((Tick::MAX / 2, Tick::MAX / 2));
        let missed = at.min(until)..open.min(until);
        if machine.open_until(missed.end) > machine.open_until(missed.start) {
            return Some(open);
        }
        if close >= until {
            return None;
        }
        at = close;
    }
    None
}

/// The end of the first stretch in `[from, until)` in which all units are taken.
fn free_from(levels: &[(Tick, u32)], units: u32, from: Tick, until: Tick) -> Option<Tick> {
    let first = levels.partition_point(|l| l.0 <= from).saturating_sub(1);
    let within = levels[first..].iter().take_while(|l| l.0 < until);
    let full = first + within.take_while(|l| l.1 < units).count();
    if levels.get(full).is_none_or(|l| l.0 >= until) {
        return None;
    }
    let free = levels[full..].iter().find(|l| l.1 < units);
    Some(free.map_or(Tick::MAX / 2, |l| l.0))
}

/// Changes the level over `[from, until)`. Equal neighbours are one, so that equal usage is equal.
fn change(levels: &mut Vec<(Tick, u32)>, from: Tick, until: Tick, to: impl Fn(u32) -> u32) {
    let first = cut(levels, from);
    let last = cut(levels, until);
    levels[first..last].iter_mut().for_each(|l| l.1 = to(l.1));
    for i in [last, first] {
        let before = i.checked_sub(1).map_or(0, |i| levels[i].1);
        if levels[i].1 == before {
            levels.remove(i);
        }
    }
}

/// Index of the entry at a time, which is made where there is none.
fn cut(levels: &mut Vec<(Tick, u32)>, at: Tick) -> usize {
    let i = levels.partition_point(|l| l.0 < at);
    if levels.get(i).is_none_or(|l| l.0 != at) {
        let level = i.checked_sub(1).map_or(0, |i| levels[i].1);
        levels.insert(i, (at, level));
    }
    i
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn levels_agree_with_counting_tick_by_tick() {
        for seed in 0..200 {
            let mut r = Random::new(seed);
            let (mut levels, mut taken) = (Vec::new(), Vec::new());
            for _ in 0..40 {
                if !taken.is_empty() && r.chance(0.4) {
                    let (from, until) = taken.swap_remove(r.below(taken.len()));
                    change(&mut levels, from, until, |level| level - 1);
                } else {
                    let from = r.below(30) as Tick;
                    let until = from + 1 + r.below(8) as Tick;
                    taken.push((from, until));
                    change(&mut levels, from, until, |level| level + 1);
                }
                let count = |t: Tick| taken.iter().filter(|x| (x.0..x.1).contains(&t)).count() as u32;
                let steps = (0..50).filter(|&t| count(t) != if t == 0 { 0 } else { count(t - 1) });
                let want: Vec<(Tick, u32)> = steps.map(|t| (t, count(t))).collect();
                assert_eq!(levels, want, "seed {seed}");
                for from in 0..32 {
                    let full = (from..from + 4).find(|&t| count(t) >= 2);
                    let free = full.and_then(|full| (full..60).find(|&t| count(t) < 2));
                    assert_eq!(free_from(&levels, 2, from, from + 4), free, "seed {seed}, from {from}");
                }
            }
        }
    }

    #[test]
    fn a_resource_must_be_there_while_the_machine_is_open() {
        let calendar = |windows: &[(Tick, Tick)]| Calendar::new(windows.to_vec()).unwrap();
        let machine = calendar(&[(0, 10), (20, 40)]);
        let told =
            |windows: &[(Tick, Tick)], from, until| back_from(&machine, &calendar(windows), from, until);
        assert_eq!(told(&[(0, 50)], 5, 30), None);
        assert_eq!(told(&[(0, 10), (20, 50)], 5, 30), None, "away while the machine is closed");
        assert_eq!(told(&[(0, 9), (20, 50)], 5, 30), Some(20));
        assert_eq!(told(&[(0, 10), (22, 50)], 5, 30), Some(22));
        assert_eq!(told(&[(6, 50)], 5, 30), Some(6));
        assert_eq!(told(&[(0, 25)], 5, 30), Some(Tick::MAX / 2));
        assert_eq!(told(&[(0, 25)], 5, 25), None);
        assert_eq!(told(&[], 5, 25), Some(Tick::MAX / 2));
    }
}
