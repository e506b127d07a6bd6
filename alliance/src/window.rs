//! Stretches of time and sets of them. The plan's clock ticks in whole minutes: windows are cut inward
//! to ticks and durations rounded up, so that what is planned always fits what is real.

use std::sync::Arc;

/// The plan's tick, seconds.
pub const TICK_S: i64 = 60;
/// The last second of the year 9999. Nothing in the state lies after it, so that no sum of times overflows.
pub const LATEST: i64 = 253_402_300_799;

/// The first tick at or after `seconds`.
pub fn ceil_tick(seconds: i64) -> i64 {
    seconds.div_euclid(TICK_S) * TICK_S + if seconds.rem_euclid(TICK_S) == 0 { 0 } else { TICK_S }
}

/// The last tick at or before `seconds`.
pub fn floor_tick(seconds: i64) -> i64 {
    seconds.div_euclid(TICK_S) * TICK_S
}

/// A half-open stretch of time [start, end), seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// First second inside.
    pub start: i64,
    /// First second outside.
    pub end: i64,
}

impl Window {
    /// The stretch [start, end).
    pub fn new(start: i64, end: i64) -> Self {
        Window { start, end }
    }

    /// Whether the two share a second.
    pub fn overlaps(&self, other: &Window) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Its length, seconds.
    pub fn length(&self) -> i64 {
        self.end - self.start
    }
}

/// A set of times: sorted, disjoint windows that do not touch, on whole ticks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Windows(Arc<[Window]>);

impl Windows {
    /// The union of `windows`, each cut inward to whole ticks; what is empty after that is left out.
    pub fn union(windows: impl IntoIterator<Item = Window>) -> Self {
        let mut all: Vec<Window> = windows
            .into_iter()
            .map(|w| Window::new(ceil_tick(w.start), floor_tick(w.end)))
            .filter(|w| w.start < w.end)
            .collect();
        all.sort_unstable();
        let mut merged: Vec<Window> = Vec::with_capacity(all.len());
        for window in all {
            match merged.last_mut() {
                Some(last) if window.start <= last.end => last.end = last.end.max(window.end),
                _ => merged.push(window),
            }
        }
        Windows(merged.into())
    }

    /// What is in `self` and not in `taken`. `taken` is widened to whole ticks.
    pub fn without(&self, taken: impl IntoIterator<Item = Window>) -> Self {
        let mut taken: Vec<Window> =
            taken.into_iter().map(|w| Window::new(floor_tick(w.start), ceil_tick(w.end))).collect();
        taken.sort_unstable();
        let mut left = Vec::new();
        for window in self.0.iter() {
            let mut from = window.start;
            for out in taken.iter().filter(|t| t.overlaps(window)) {
                if out.start > from {
                    left.push(Window::new(from, out.start));
                }
                from = from.max(out.end);
            }
            if from < window.end {
                left.push(Window::new(from, window.end));
            }
        }
        Windows(left.into())
    }

    /// The part from `from` up to `until`.
    pub fn between(&self, from: i64, until: i64) -> impl Iterator<Item = Window> + '_ {
        self.0
            .iter()
            .map(move |w| Window::new(w.start.max(from), w.end.min(until)))
            .filter(|w| w.start < w.end)
    }

    /// Where an occupation of `work` open seconds that begins at `start` ends. A splittable one pauses
    /// while the machine is closed; another lies inside one window. None if it cannot. O(log n + windows
    /// crossed).
    pub fn finish(&self, start: i64, work: i64, splittable: bool) -> Option<i64> {
        let first = self.0.partition_point(|w| w.end <= start);
        let mut left = work;
        let mut at = start;
        for (i, window) in self.0[first..].iter().enumerate() {
            match (i, at < window.start) {
                (0, true) => return None,
                (_, true) => at = window.start,
                _ => {}
            }
            let room = window.end - at;
            if left <= room {
                return Some(at + left);
            }
            if !splittable {
                return None;
            }
            left -= room;
            at = window.end;
        }
        None
    }

    /// The windows.
    pub fn iter(&self) -> impl Iterator<Item = &Window> {
        self.0.iter()
    }

    /// How many windows.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Open time in all, seconds.
    pub fn total(&self) -> i64 {
        self.0.iter().map(Window::length).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(i64, i64)]) -> Windows {
        Windows::union(pairs.iter().map(|(a, b)| Window::new(a * 60, b * 60)))
    }

    #[test]
    fn union_merges_what_touches_and_drops_what_is_empty() {
        assert_eq!(set(&[(5, 9), (1, 3), (3, 4), (7, 12), (20, 20)]), set(&[(1, 4), (5, 12)]));
        assert_eq!(Windows::union([Window::new(61, 119)]).len(), 0);
    }

    #[test]
    fn without_cuts_holes() {
        assert_eq!(
            set(&[(0, 10), (20, 30)]).without([Window::new(180, 300), Window::new(500, 1300)]),
            Windows::union([(0, 3), (5, 8), (22, 30)].map(|(a, b)| Window::new(a * 60, b * 60)))
        );
    }

    #[test]
    fn finish_respects_windows() {
        let open = set(&[(0, 10), (20, 30)]);
        assert_eq!(open.finish(0, 600, false), Some(600));
        assert_eq!(open.finish(60, 600, false), None);
        assert_eq!(open.finish(60, 600, true), Some(1260));
        assert_eq!(open.finish(600, 60, true), None, "closed at the start");
        assert_eq!(open.finish(1200, 601, true), None);
        assert_eq!(open.finish(-60, 60, false), None);
    }
}
