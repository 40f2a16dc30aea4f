//! Time stamps of pcapng: ticks of a declared length, from a declared second on.
//!
//! Authority: draft-ietf-opsawg-pcapng, options `if_tsresol` and `if_tsoffset`.

use crate::time::{NANOS_PER_SEC, Timestamp};

/// How an interface tells time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    pub(super) resolution: Resolution,
    /// Added to every time stamp.
    pub(super) offset_secs: i64,
}

impl Clock {
    /// When `ticks` is, rounded down to a nanosecond. Before 1970 is 1970, and what is later than a [`Timestamp`] can
    /// tell is the latest it can.
    pub(super) fn time(self, ticks: u64) -> Timestamp {
        let nanos = self.resolution.nanos(ticks) + i128::from(self.offset_secs) * i128::from(NANOS_PER_SEC);
        Timestamp(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

/// The length of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolution {
    /// A tick is this many nanoseconds.
    Nanos(u64),
    /// This many ticks are a nanosecond.
    PerNano(u128),
    /// Two to this power ticks are a second.
    Binary(u8),
}

impl Default for Resolution {
    /// Microseconds, where nothing is declared.
    fn default() -> Self {
        Self::Nanos(1000)
    }
}

impl Resolution {
    /// What the one byte of `if_tsresol` means: a negative power of two if its highest bit is set, else of ten.
    pub(super) fn new(if_tsresol: u8) -> Self {
        let power = if_tsresol & 0x7f;
        match (if_tsresol & 0x80, power) {
            (0, 0..=9) => Self::Nanos(10_u64.pow(9 - u32::from(power))),
            // From 10^-29 seconds on, all that 64 bits can count is less than a nanosecond.
            (0, _) => Self::PerNano(10_u128.saturating_pow(u32::from(power) - 9)),
            _ => Self::Binary(power),
        }
    }

    /// Cannot overflow: both factors of a product have at most 64 bits, and the result keeps a bit for the sign.
    fn nanos(self, ticks: u64) -> i128 {
        match self {
            Self::Nanos(length) => i128::from(ticks) * i128::from(length),
            Self::PerNano(count) => (u128::from(ticks) / count).cast_signed(),
            Self::Binary(power) => (i128::from(ticks) * i128::from(NANOS_PER_SEC)) >> power,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(if_tsresol: u8, offset_secs: i64, ticks: u64) -> u64 {
        Clock { resolution: Resolution::new(if_tsresol), offset_secs }.time(ticks).0
    }

    #[test]
    fn powers_of_ten() {
        assert_eq!(Clock::default().time(1_700_000_000_000_001).0, 1_700_000_000_000_001_000);
        assert_eq!(time(0, 0, 3), 3_000_000_000);
        assert_eq!(time(3, 0, 5), 5_000_000);
        assert_eq!(time(6, 0, 5), 5_000);
        assert_eq!(time(9, 0, 5), 5);
        assert_eq!(time(12, 0, 5_999), 5);
        assert_eq!(time(28, 0, u64::MAX), 1, "18.4 * 10^18 ticks of 10^-28 s are 1.8 ns");
        assert_eq!(time(29, 0, u64::MAX), 0);
        assert_eq!(time(127, 0, u64::MAX), 0);
    }

    #[test]
    fn powers_of_two() {
        assert_eq!(time(0x80, 0, 3), 3_000_000_000);
        assert_eq!(time(0x81, 0, 3), 1_500_000_000);
        assert_eq!(time(0x80 | 10, 0, 1), 976_562, "1/1024 s is 976 562.5 ns");
        assert_eq!(time(0x80 | 32, 0, (7 << 32) | 0x8000_0000), 7_500_000_000);
        assert_eq!(time(0xff, 0, u64::MAX), 0);
    }

    #[test]
    fn offsets_are_seconds() {
        assert_eq!(time(6, 1_700_000_000, 5), 1_700_000_000_000_005_000);
        assert_eq!(time(6, -1, 3_000_000), 2_000_000_000);
    }

    #[test]
    fn time_out_of_range_is_the_nearest_in_range() {
        assert_eq!(time(6, -4, 3_000_000), 0);
        assert_eq!(time(6, i64::MIN, 0), 0);
        assert_eq!(time(6, i64::MAX, u64::MAX), u64::MAX);
        assert_eq!(time(0, 0, u64::MAX), u64::MAX);
        assert_eq!(time(6, 0, u64::MAX / 1000), 18_446_744_073_709_551_000, "the last whole microsecond");
        assert_eq!(time(6, 0, u64::MAX / 1000 + 1), u64::MAX);
    }
}
