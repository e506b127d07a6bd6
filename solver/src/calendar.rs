//! When a machine is open.
//!
//! A calendar is a list of open windows with the open time that lies before each, so that the end of
//! an occupation is found by bisection however many closed spells it bridges.

use crate::Tick;

/// Sorted, disjoint, non-touching open windows `[open, close)` and the open time before each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    windows: Vec<(Tick, Tick)>,
    /// `open_before[i]`: open ticks before window `i`; one entry more than there are windows.
    open_before: Vec<Tick>,
    /// For every `1 << shift` ticks, the first window that closes after they begin: where to bisect.
    index: Vec<u32>,
    shift: u32,
}

/// Entries of the index for each window.
const INDEX_PER_WINDOW: Tick = 4;

impl Calendar {
    /// Builds a calendar; the error says which window is wrong and why.
    pub fn new(windows: Vec<(Tick, Tick)>) -> Result<Calendar, String> {
        let mut open_before = Vec::with_capacity(windows.len() + 1);
        open_before.push(0);
        let mut total: Tick = 0;
        for (i, &(open, close)) in windows.iter().enumerate() {
            if open < 0 || close > crate::TICK_MAX {
                return Err(format!("window {i} [{open}, {close}) lies outside 0 to {}", crate::TICK_MAX));
            }
            if close <= open {
                return Err(format!("window {i} [{open}, {close}) closes before it opens"));
            }
            if i > 0 && windows[i - 1].1 >= open {
                let (a, b) = windows[i - 1];
                return Err(format!("window {i} [{open}, {close}) overlaps or touches [{a}, {b})"));
            }
            total += close - open;
            open_before.push(total);
        }
        Ok(Calendar::indexed(windows, open_before))
    }

    fn indexed(windows: Vec<(Tick, Tick)>, open_before: Vec<Tick>) -> Calendar {
        let end = windows.last().map_or(0, |w| w.1);
        let wide = end / (INDEX_PER_WINDOW * windows.len().max(1) as Tick);
        let shift = wide.max(1).ilog2();
        let first = |begin| windows.partition_point(|w| w.1 <= begin) as u32;
        let index = (0..=end >> shift).map(|bucket| first(bucket << shift)).collect();
        Calendar { windows, open_before, index, shift }
    }

    /// Open without a pause over `[0, horizon)`.
    pub fn always(horizon: Tick) -> Calendar {
        Calendar::indexed(vec![(0, horizon)], vec![0, horizon])
    }

    /// The open windows, in order.
    pub fn windows(&self) -> &[(Tick, Tick)] {
        &self.windows
    }

    /// Open time over the whole calendar.
    pub fn open_total(&self) -> Tick {
        *self.open_before.last().unwrap_or(&0)
    }

    /// Open time before `t`.
    pub fn open_until(&self, t: Tick) -> Tick {
        let i = self.window_from(t);
        match self.windows.get(i) {
            Some(&(open, _)) => self.open_before[i] + (t - open).max(0),
            None => self.open_total(),
        }
    }

    /// Whether it is open at tick `t`.
    #[cfg(test)]
    pub(crate) fn is_open(&self, t: Tick) -> bool {
        self.windows.iter().any(|w| (w.0..w.1).contains(&t))
    }

    /// Index of the first window that closes after `t` (the one that holds `t`, or the next).
    pub fn window_from(&self, t: Tick) -> usize {
        let bucket = (t.max(0) >> self.shift) as usize;
        let Some(&first) = self.index.get(bucket) else { return self.windows.len() };
        let last = self.index.get(bucket + 1).map_or(self.windows.len(), |&last| last as usize);
        let first = first as usize;
        first + self.windows[first..last].partition_point(|w| w.1 <= t)
    }

    /// Where an occupation of `work` open ticks that begins at `start` ends, `None` if it may not
    /// begin there: the machine is closed, or (non-splittable) closes too early, or the calendar
    /// runs out.
    pub fn finish(&self, start: Tick, work: Tick, splittable: bool) -> Option<Tick> {
        let i = self.window_from(start);
        let &(open, close) = self.windows.get(i)?;
        if start < open {
            return None;
        }
        self.finish_in(i, start, work, splittable, close)
    }

    fn finish_in(&self, i: usize, start: Tick, work: Tick, splittable: bool, close: Tick) -> Option<Tick> {
        if work <= close - start {
            return Some(start + work);
        }
        if !splittable {
            return None;
        }
        let target = self.open_before[i] + (start - self.windows[i].0) + work;
        let j = self.open_before.partition_point(|&before| before < target);
        // `open_before[j] >= target` for the first time: the work ends in window `j - 1`.
        let window = self.windows.get(j.checked_sub(1)?)?;
        (j < self.open_before.len()).then(|| window.0 + target - self.open_before[j - 1])
    }

    /// The earliest `(start, end)` at or after `not_before` that ends by `end_max`.
    pub fn earliest(
        &self,
        not_before: Tick,
        work: Tick,
        splittable: bool,
        end_max: Tick,
    ) -> Option<(Tick, Tick)> {
        if not_before + work > end_max {
            return None;
        }
        for i in self.window_from(not_before)..self.windows.len() {
            let (open, close) = self.windows[i];
            let start = open.max(not_before);
            if start + work > end_max {
                return None;
            }
            if let Some(end) = self.finish_in(i, start, work, splittable, close) {
                return (end <= end_max).then_some((start, end));
            }
            if splittable {
                return None;
            }
        }
        None
    }

    /// The latest `(start, end)` that ends by `end_max`, by bisection: an end grows with its start.
    pub(crate) fn latest(&self, work: Tick, splittable: bool, end_max: Tick) -> Option<(Tick, Tick)> {
        let mut found = self.earliest(0, work, splittable, end_max)?;
        let mut beyond = end_max + 1;
        while beyond - found.0 > 1 {
            let middle = found.0 + (beyond - found.0) / 2;
            match self.earliest(middle, work, splittable, end_max) {
                Some(later) => found = later,
                None => beyond = middle,
            }
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(windows: &[(Tick, Tick)], start: Tick, work: Tick, splittable: bool) -> Option<Tick> {
        let mut i = windows.iter().position(|w| w.0 <= start && start < w.1)?;
        let (mut t, mut left) = (start, work);
        loop {
            if left <= windows[i].1 - t {
                return Some(t + left);
            }
            if !splittable || i + 1 == windows.len() {
                return None;
            }
            left -= windows[i].1 - t;
            i += 1;
            t = windows[i].0;
        }
    }

    #[test]
    fn finish_agrees_with_walking_tick_by_tick() {
        let windows = vec![(3, 10), (12, 13), (20, 31), (40, 55)];
        let calendar = Calendar::new(windows.clone()).unwrap();
        for splittable in [false, true] {
            for start in 0..60 {
                for work in 1..40 {
                    let want = walk(&windows, start, work, splittable);
                    assert_eq!(calendar.finish(start, work, splittable), want, "{start} {work} {splittable}");
                    let earliest =
                        (start..60).find_map(|s| walk(&windows, s, work, splittable).map(|e| (s, e)));
                    assert_eq!(calendar.earliest(start, work, splittable, 1000), earliest);
                    // Here `start` is the latest end.
                    let ends = |s: Tick| walk(&windows, s, work, splittable).filter(|&e| e <= start);
                    let latest = (0..60).rev().find_map(|s| ends(s).map(|e| (s, e)));
                    assert_eq!(
                        calendar.latest(work, splittable, start),
                        latest,
                        "{start} {work} {splittable}"
                    );
                }
            }
        }
    }

    #[test]
    fn open_time_is_counted_once() {
        let calendar = Calendar::new(vec![(3, 10), (12, 13)]).unwrap();
        let open = |t: Tick| (0..t).filter(|x| (3..10).contains(x) || *x == 12).count() as Tick;
        for t in 0..20 {
            assert_eq!(calendar.open_until(t), open(t));
        }
    }

    #[test]
    fn crooked_windows_are_refused() {
        for windows in [vec![(5, 5)], vec![(5, 4)], vec![(0, 5), (5, 9)], vec![(0, 5), (3, 9)], vec![(-1, 5)]]
        {
            assert!(Calendar::new(windows).is_err());
        }
    }
}
