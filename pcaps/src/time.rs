//! When things happen in the captures. No clock is read: every story starts at the same minute.

/// 2026-03-02T09:00:00Z in nanoseconds since the Unix epoch; a whole minute.
pub const START_NS: u64 = 1_772_442_000 * SECOND;
/// A microsecond in nanoseconds.
pub const MICRO: u64 = 1_000;
/// A millisecond in nanoseconds.
pub const MILLI: u64 = 1_000 * MICRO;
/// A second in nanoseconds.
pub const SECOND: u64 = 1_000 * MILLI;
/// A minute in nanoseconds: the aggregation interval the stories have in mind.
pub const MINUTE: u64 = 60 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_a_whole_minute() {
        // 20,514 days from 1970-01-01 to 2026-03-02 (56 years with 14 leap days, then 31 + 28 + 1), and nine hours.
        assert_eq!((20_514 * 86_400 + 9 * 3_600) * SECOND, START_NS);
        assert_eq!(START_NS % MINUTE, 0);
    }
}
