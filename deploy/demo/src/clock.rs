//! The alliance's clock: `alliance = epoch + (wall - epoch) * scale`, the same on coordinators, agents and
//! here.
//!
//! A demonstration should look the same at any hour of any day, so a scaled clock is set such that the
//! alliance begins at six on a Monday morning, local time: the epoch, at which both clocks agree, is put
//! that far into the past.

use crate::alliance::{DAY_S, ZONE_OFFSET_S};
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads the alliance's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllianceClock {
    /// Wall clock at which both clocks agree, ms since the Unix epoch.
    pub epoch_ms: i64,
    /// Seconds of the alliance in one of the wall; 1 is the wall clock itself.
    pub scale: i64,
}

impl AllianceClock {
    /// The wall clock.
    pub fn wall() -> Self {
        Self { epoch_ms: 0, scale: 1 }
    }

    /// A clock that reads the coming Monday, 06:00 in the alliance's zone, when the wall reads `wall_ms`,
    /// and runs `scale` times as fast. With scale 1 it is the wall clock.
    pub fn from_monday(wall_ms: i64, scale: i64) -> Self {
        if scale <= 1 {
            return Self::wall();
        }
        let monday_ms = next_monday_s(wall_ms.div_euclid(1000)) * 1000;
        // From monday = epoch + (wall - epoch) * scale.
        let epoch_ms = (wall_ms * scale - monday_ms).div_euclid(scale - 1);
        Self { epoch_ms, scale }
    }

    /// The alliance's time when the wall reads `wall_ms`, ms since the Unix epoch.
    pub fn at_ms(&self, wall_ms: i64) -> i64 {
        self.epoch_ms + (wall_ms - self.epoch_ms) * self.scale
    }

    /// The alliance's time now, seconds since the Unix epoch.
    pub fn now_s(&self) -> i64 {
        self.at_ms(wall_ms()).div_euclid(1000)
    }

    /// How much of the alliance's time passes in `wall_s` seconds, seconds.
    pub fn stretch_s(&self, wall_s: i64) -> i64 {
        wall_s * self.scale
    }
}

/// The wall clock, ms since the Unix epoch.
pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// The first Monday, 06:00 local time, after `now_s`.
fn next_monday_s(now_s: i64) -> i64 {
    const WEEK_S: i64 = 7 * DAY_S;
    // 1970-01-05 was a Monday.
    let anchor_s = 4 * DAY_S + 6 * 3600 - ZONE_OFFSET_S;
    anchor_s + ((now_s - anchor_s).div_euclid(WEEK_S) + 1) * WEEK_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scaled_clock_begins_on_monday_at_six() {
        // Saturday 2026-11-21 12:00 UTC; Monday 2026-11-23 06:00 in Shanghai is Sunday 22:00 UTC.
        let clock = AllianceClock::from_monday(1_795_262_400_000, 600);
        let begun_ms = clock.at_ms(1_795_262_400_000);
        assert!((begun_ms - 1_795_384_800_000).abs() < 1000, "{begun_ms}");
        let minute_later_ms = clock.at_ms(1_795_262_460_000);
        assert_eq!(minute_later_ms - begun_ms, 600 * 60_000);
    }

    #[test]
    fn scale_one_is_the_wall_clock() {
        assert_eq!(AllianceClock::from_monday(123_456_789, 1).at_ms(5_000), 5_000);
    }
}
