//! The plant's clock.
//!
//! In production it is the machine's own clock. A demonstration runs the alliance faster than the wall:
//! `plant time = epoch_plant + (wall time - epoch_wall) * scale`. The coordinator has the same three
//! numbers, so that both sides agree on what time it is. Everything that leaves the agent, and every
//! start on a dispatch list, is in plant time; only deadlines on sockets are in wall time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Slowest and fastest that a plant's clock may run.
pub const SCALE_MIN: f64 = 0.001;
/// See [`SCALE_MIN`].
pub const SCALE_MAX: f64 = 100_000.0;

/// Longest nap that [`Clock::until`] answers with, so that a wall clock that is set does not leave anyone
/// asleep.
const NAP_MAX: Duration = Duration::from_secs(30);

/// Plant time from wall time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Reads the wall clock, ms since the Unix epoch.
    wall_ms: fn() -> i64,
    epoch_wall_ms: i64,
    epoch_plant_ms: i64,
    scale: f64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { wall_ms, epoch_wall_ms: 0, epoch_plant_ms: 0, scale: 1.0 }
    }
}

impl Clock {
    /// A clock that reads `epoch_plant_ms` when the wall reads `epoch_wall_ms`, and runs `scale` times as
    /// fast. The scale is clamped to [`SCALE_MIN`]..=[`SCALE_MAX`]; the config refuses others by name.
    pub fn new(epoch_wall_ms: i64, epoch_plant_ms: i64, scale: f64) -> Self {
        Self { wall_ms, epoch_wall_ms, epoch_plant_ms, scale: scale.clamp(SCALE_MIN, SCALE_MAX) }
    }

    /// The same by another wall clock, ms since the Unix epoch: for simulated time.
    pub fn read_by(self, wall_ms: fn() -> i64) -> Self {
        Self { wall_ms, ..self }
    }

    /// Plant milliseconds for each wall millisecond.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Plant time now, ms since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        self.at_wall_ms((self.wall_ms)())
    }

    /// Plant time at a wall time, both ms since the Unix epoch.
    pub fn at_wall_ms(&self, wall_ms: i64) -> i64 {
        if self.scale == 1.0 {
            return self.epoch_plant_ms.saturating_add(wall_ms.saturating_sub(self.epoch_wall_ms));
        }
        let gone = wall_ms.saturating_sub(self.epoch_wall_ms) as f64 * self.scale;
        self.epoch_plant_ms.saturating_add(gone as i64)
    }

    /// Wall time to wait until the plant's clock reads `plant_ms`: at least a millisecond, at most 30 s,
    /// after which the caller looks again.
    pub fn until(&self, plant_ms: i64) -> Duration {
        let plant_left = plant_ms.saturating_sub(self.now_ms()).max(0) as f64;
        let wall_left = (plant_left / self.scale).ceil().max(1.0);
        Duration::from_millis(wall_left as u64).min(NAP_MAX)
    }
}

/// The wall's clock, ms since the Unix epoch; before the epoch counts as the epoch.
fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_clock_is_the_wall_clock() {
        assert_eq!(Clock::default().at_wall_ms(1_700_000_000_123), 1_700_000_000_123);
    }

    #[test]
    fn a_scaled_clock_counts_from_its_epoch() {
        let clock = Clock::new(1_000, 50_000, 60.0);
        assert_eq!(clock.at_wall_ms(1_000), 50_000);
        assert_eq!(clock.at_wall_ms(2_000), 110_000);
        assert_eq!(clock.at_wall_ms(500), 20_000);
    }
}
