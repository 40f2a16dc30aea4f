//! A session's rate limit: two token buckets, for frames and for bits, with the time as argument.

use super::RateLimit;
use crate::time::{NANOS_PER_SEC, Timestamp};

/// What a session may still copy now.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    frames: Tokens,
    bits: Tokens,
}

/// One bucket. Tokens are counted in billionths, so that every nanosecond brings a whole number of them.
#[derive(Debug, Clone, Copy)]
struct Tokens {
    /// `None` for no limit.
    per_second: Option<u64>,
    burst: u128,
    level: u128,
    at: Timestamp,
}

impl Bucket {
    /// Full buckets.
    pub fn new(limit: RateLimit, now: Timestamp) -> Self {
        let tokens = |rate: Option<std::num::NonZeroU64>, burst: Option<std::num::NonZeroU64>| {
            let burst = u128::from(burst.map_or(0, std::num::NonZero::get)) * u128::from(NANOS_PER_SEC);
            Tokens { per_second: rate.map(std::num::NonZero::get), burst, level: burst, at: now }
        };
        Self {
            frames: tokens(limit.packets.per_second(), limit.packets.burst()),
            bits: tokens(limit.bits.per_second(), limit.bits.burst()),
        }
    }

    /// Takes what copies of so many frames need; `false` if there is not enough, and then nothing is taken.
    #[inline]
    pub fn take(&mut self, frames: u64, bytes: u64, now: Timestamp) -> bool {
        let (frames, bits) = (u128::from(frames) * u128::from(NANOS_PER_SEC), u128::from(bytes) * BITS_SCALED);
        self.frames.fill(now);
        self.bits.fill(now);
        let is_enough = self.frames.holds(frames) && self.bits.holds(bits);
        if is_enough {
            self.frames.level = self.frames.level.saturating_sub(frames);
            self.bits.level = self.bits.level.saturating_sub(bits);
        }
        is_enough
    }
}

impl Tokens {
    /// A clock that was set back brings nothing, and goes on from there.
    fn fill(&mut self, now: Timestamp) {
        let Some(per_second) = self.per_second else { return };
        let elapsed_ns = now.0.saturating_sub(self.at.0);
        self.at = now;
        self.level = (self.level + u128::from(elapsed_ns) * u128::from(per_second)).min(self.burst);
    }

    fn holds(&self, tokens: u128) -> bool {
        self.per_second.is_none() || self.level >= tokens
    }
}

/// The bits of a byte, in billionths of a token.
const BITS_SCALED: u128 = 8 * NANOS_PER_SEC as u128;

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(packets: &str, bits: &str) -> Bucket {
        let limit = RateLimit { packets: packets.parse().unwrap(), bits: bits.parse().unwrap() };
        Bucket::new(limit, Timestamp(0))
    }

    const MILLI: u64 = NANOS_PER_SEC / 1000;

    #[test]
    fn frames_are_limited() {
        // 2000 a second: the bucket holds 200.
        let mut bucket = bucket("2000", "unlimited");
        assert!(bucket.take(200, 1_000_000, Timestamp(0)));
        assert!(!bucket.take(1, 60, Timestamp(0)));
        assert!(!bucket.take(1, 60, Timestamp(MILLI / 2 - 1)));
        assert!(bucket.take(1, 60, Timestamp(MILLI / 2)));
        assert!(!bucket.take(3, 60, Timestamp(MILLI * 3 / 2)), "two came, three are not there");
        assert!(bucket.take(2, 60, Timestamp(MILLI * 3 / 2)), "and nothing was taken");
        assert!(!bucket.take(201, 60, Timestamp(3600 * NANOS_PER_SEC)), "it holds no more than its burst");
        assert!(bucket.take(200, 60, Timestamp(3600 * NANOS_PER_SEC)));
    }

    #[test]
    fn bits_are_limited() {
        // 80 Mbit a second: a million bytes in the bucket, ten in a microsecond.
        let mut bucket = bucket("unlimited", "80Mbit");
        assert!(bucket.take(1, 1_000_000, Timestamp(0)));
        assert!(!bucket.take(1, 60, Timestamp(5999)));
        assert!(bucket.take(1, 60, Timestamp(6000)));
    }

    #[test]
    fn without_a_limit_there_is_none() {
        let mut bucket = bucket("unlimited", "unlimited");
        assert!(bucket.take(u64::MAX, u64::MAX, Timestamp(0)));
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nothing() {
        let mut bucket = bucket("2000", "unlimited");
        assert!(bucket.take(200, 0, Timestamp(10 * NANOS_PER_SEC)));
        assert!(!bucket.take(1, 0, Timestamp(5 * NANOS_PER_SEC)));
        assert!(bucket.take(1, 0, Timestamp(5 * NANOS_PER_SEC + MILLI / 2)));
    }
}
