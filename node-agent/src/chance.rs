//! Chance: a small generator that gives the same numbers for the same seed, on every version and machine.
//!
//! SplitMix64 (Steele, Lea, Flood 2014). The simulated machine draws its fate from it, and retries their
//! jitter. Nothing secret comes from here.

use std::time::Duration;

/// A stream of numbers from a seed.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// From a number.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// From a number and names: other names, other stream.
    pub fn from_names(seed: u64, names: &[&str]) -> Self {
        // FNV-1a over the names, each ended by a byte that no name holds.
        let bytes = names.iter().flat_map(|name| name.bytes().chain([0xff]));
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut mixed = Self(seed ^ hash);
        mixed.next();
        mixed
    }

    /// From the operating system's randomness, for jitter.
    pub fn from_system() -> Self {
        let fallback = || std::process::id().into();
        Self(getrandom::u64().unwrap_or_else(|_| fallback()))
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `low..=high`; `low` where they are the wrong way round.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low).saturating_add(1);
        let wide = u128::from(self.next()) * u128::from(span);
        low + (wide >> 64) as u64
    }

    /// True in `permille` of a thousand cases.
    pub fn happens(&mut self, permille: u64) -> bool {
        self.between(0, 999) < permille
    }
}

/// Delays between retries: doubling, with jitter, up to a limit.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
    chance: Chance,
}

impl Backoff {
    /// Delays from `first` to `max`.
    pub fn new(first: Duration, max: Duration, chance: Chance) -> Self {
        Self { first, max, next: first, chance }
    }

    /// The next delay: somewhere between half of it and all of it.
    pub fn delay(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.max);
        self.jittered(whole)
    }

    /// A delay between half of `whole` and all of it, without doubling.
    pub fn jittered(&mut self, whole: Duration) -> Duration {
        let whole_ms = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.chance.between(whole_ms / 2, whole_ms))
    }

    /// It worked: begin again with the first delay.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // First outputs of SplitMix64 for seed 1234567, from the reference implementation.
        let mut chance = Chance::from_seed(1_234_567);
        assert_eq!(chance.next(), 6_457_827_717_110_365_317);
        assert_eq!(chance.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn delays_double_up_to_the_limit_and_begin_again() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 3, Chance::from_seed(1));
        for whole in [1, 2, 3, 3] {
            let delay = backoff.delay();
            assert!(delay >= second * whole / 2 && delay <= second * whole, "{delay:?} of {whole} s");
        }
        backoff.reset();
        assert!(backoff.delay() <= second);
    }
}
