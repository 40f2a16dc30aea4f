//! A session's rate limit: two token buckets, for frames and for bits, with the time as argument.
//!
//! The rule is that of the kernel's executor: while both buckets hold anything, a packet's copy to one target is let
//! through whole, and what it takes beyond is owed and comes back first. So a copy of any size goes where nothing went
//! before it, and over time no more goes than the rate allows.

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
    burst: i128,
    /// Negative while something is owed.
    level: i128,
    at: Timestamp,
}

impl Bucket {
    /// Full buckets.
    pub fn new(limit: RateLimit, now: Timestamp) -> Self {
        let tokens = |rate: Option<std::num::NonZeroU64>, burst: Option<std::num::NonZeroU64>| {
            let burst = i128::from(burst.map_or(0, std::num::NonZero::get)) * i128::from(NANOS_PER_SEC);
            Tokens { per_second: rate.map(std::num::NonZero::get), burst, level: burst, at: now }
        };
        Self {
            frames: tokens(limit.packets.per_second(), limit.packets.burst()),
            bits: tokens(limit.bits.per_second(), limit.bits.burst()),
        }
    }

    /// Takes what the copy of a packet needs, so many frames; `false` if a bucket is empty, and then nothing is taken.
    #[inline]
    pub fn take(&mut self, frames: u64, bytes: u64, now: Timestamp) -> bool {
        self.frames.fill(now);
        self.bits.fill(now);
        let is_let_through = self.frames.holds_any() && self.bits.holds_any();
        if is_let_through {
            self.frames.spend(i128::from(frames) * i128::from(NANOS_PER_SEC));
            self.bits.spend(i128::from(bytes) * BITS_SCALED);
        }
        is_let_through
    }
}

impl Tokens {
    /// A clock that was set back brings nothing, and goes on from there.
    fn fill(&mut self, now: Timestamp) {
        let Some(per_second) = self.per_second else { return };
        let elapsed_ns = now.0.saturating_sub(self.at.0);
        self.at = now;
        self.level = (self.level + i128::from(elapsed_ns) * i128::from(per_second)).min(self.burst);
    }

    fn holds_any(&self) -> bool {
        self.per_second.is_none() || self.level > 0
    }

    fn spend(&mut self, tokens: i128) {
        if self.per_second.is_some() {
            self.level = self.level.saturating_sub(tokens);
        }
    }
}

/// The bits of a byte, in billionths of a token.
const BITS_SCALED: i128 = 8 * NANOS_PER_SEC as i128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert!(bucket.take(3, 60, Timestamp(MILLI)), "two have come, and the third is owed");
        assert!(!bucket.take(1, 60, Timestamp(MILLI * 3 / 2)), "it is paid back, and nothing is left");
        assert!(bucket.take(1, 60, Timestamp(MILLI * 3 / 2 + 1)), "something has come");
        assert!(bucket.take(201, 60, Timestamp(3600 * NANOS_PER_SEC)), "it holds no more than its burst");
        assert!(!bucket.take(1, 60, Timestamp(3600 * NANOS_PER_SEC + MILLI / 2)));
        assert!(bucket.take(1, 60, Timestamp(3600 * NANOS_PER_SEC + MILLI / 2 + 1)));
    }

    #[test]
    fn bits_are_limited() {
        // 80 Mbit a second: a million bytes in the bucket, ten in a microsecond.
        let mut bucket = bucket("unlimited", "80Mbit");
        assert!(bucket.take(1, 1_000_060, Timestamp(0)));
        assert!(!bucket.take(1, 60, Timestamp(6000)));
        assert!(bucket.take(1, 60, Timestamp(6001)));
    }

    #[test]
    fn one_bucket_that_is_empty_is_enough() {
        let mut bucket = bucket("2000", "80Mbit");
        assert!(bucket.take(1, 1_000_000, Timestamp(0)));
        // Were a frame taken each time, the 200th would find nothing.
        (0..500).for_each(|_| assert!(!bucket.take(1, 60, Timestamp(0))));
        assert!(bucket.take(199, 60, Timestamp(1)));
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

    /// The kernel's rule, which keeps a bucket as the time until which it is spoken for: a virtual schedule (ITU-T I.371).
    struct Schedule {
        unit_ns: u64,
        burst_ns: u64,
        until_ns: u64,
    }

    impl Schedule {
        fn new(units_per_second: u64, burst_units: u64) -> Self {
            let unit_ns = NANOS_PER_SEC / units_per_second;
            assert_eq!(unit_ns * units_per_second, NANOS_PER_SEC, "nothing is to be rounded");
            Self { unit_ns, burst_ns: burst_units * unit_ns, until_ns: 0 }
        }

        fn has_room(&mut self, now_ns: u64) -> bool {
            self.until_ns = self.until_ns.max(now_ns);
            self.until_ns - now_ns < self.burst_ns
        }
    }

    proptest! {
        /// Packets of one frame up to those of 64 KiB, at gaps from none to those in which a bucket fills.
        #[test]
        fn the_kernels_rule_and_ours_let_the_same_through(
            frames_per_second in prop::sample::select(vec![1_u64, 500, 1000, 2000, 25_000]),
            // Of bits; a byte takes a whole number of nanoseconds.
            bits_per_second in prop::sample::select(vec![1_000_000_u64, 8_000_000, 40_000_000, 500_000_000]),
            packets in prop::collection::vec((1_u64..124, 60_u64..1514, 0_u64..40 * MILLI, 0_u8..4), 1..200),
        ) {
            let mut ours = bucket(&frames_per_second.to_string(), &format!("{bits_per_second}bit"));
            let limit = RateLimit {
                packets: frames_per_second.to_string().parse().unwrap(),
                bits: format!("{bits_per_second}bit").parse().unwrap(),
            };
            let mut frames = Schedule::new(frames_per_second, limit.packets.burst().unwrap().get());
            let mut bits = Schedule::new(bits_per_second, limit.bits.burst().unwrap().get());
            // The first finds full buckets, as the kernel's first packet does.
            let mut now_ns = 1000 * NANOS_PER_SEC;
            for (count, frame_bytes, gap_ns, targets) in packets {
                now_ns += gap_ns;
                // One copy for each target, as a session that replicates makes them.
                for _ in 0..=targets {
                    let is_let_through = frames.has_room(now_ns) & bits.has_room(now_ns);
                    if is_let_through {
                        frames.until_ns += count * frames.unit_ns;
                        bits.until_ns += count * frame_bytes * 8 * bits.unit_ns;
                    }
                    prop_assert_eq!(ours.take(count, count * frame_bytes, Timestamp(now_ns)), is_let_through);
                }
            }
        }
    }
}
