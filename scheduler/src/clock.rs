//! The alliance's clock. It is the wall clock, unless a demonstration lets it run faster.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads the time. With a scale above 1, an hour of the alliance passes in less than an hour.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Reads the wall clock, ms since the Unix epoch.
    wall_ms: fn() -> i64,
    /// Wall clock at which both clocks agree, ms since the Unix epoch.
    epoch_wall_ms: i64,
    /// What the alliance's clock shows then, ms since the Unix epoch.
    epoch_ms: i64,
    /// How many ms of the alliance pass in one of the wall.
    scale: i64,
}

impl Clock {
    /// The wall clock itself.
    pub fn wall() -> Self {
        Clock { wall_ms, epoch_wall_ms: 0, epoch_ms: 0, scale: 1 }
    }

    /// The same by another wall clock, ms since the Unix epoch: for simulated time.
    pub fn read_by(self, wall_ms: fn() -> i64) -> Self {
        Clock { wall_ms, ..self }
    }

    /// A clock that runs `scale` times as fast as the wall clock and shows the same at `epoch_wall_ms`.
    pub fn scaled(epoch_wall_ms: i64, scale: i64) -> Self {
        Clock { wall_ms, epoch_wall_ms, epoch_ms: epoch_wall_ms, scale: scale.max(1) }
    }

    /// Now, ms since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        self.epoch_ms + ((self.wall_ms)() - self.epoch_wall_ms).saturating_mul(self.scale)
    }

    /// Now, seconds since the Unix epoch.
    pub fn now_s(&self) -> i64 {
        self.now_ms().div_euclid(1000)
    }

    /// How much of the alliance's time passes in `wall` of the wall clock, seconds, rounded up.
    pub fn stretch_s(&self, wall: Duration) -> i64 {
        (wall.as_millis() as i64).saturating_mul(self.scale).saturating_add(999).div_euclid(1000)
    }
}

/// The wall clock, ms since the Unix epoch.
fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
