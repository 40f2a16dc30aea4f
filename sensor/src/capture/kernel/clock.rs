//! From the kernel's monotonic clock to wall time, in one place.
//!
//! Kernel programs stamp counts with CLOCK_MONOTONIC, which nobody can set. [`Anchor`] holds what must be added to it.
//! A small difference between readings is the wall clock being slewed, and is followed. A large one is a step, or the
//! machine was suspended (the monotonic clock stands still then): the anchor moves, yet counts from before the reading
//! that showed it keep the old one, so what was already seen does not move with the clock.

use crate::time::{NANOS_PER_SEC, Timestamp};

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// What the wall clock said.
    pub wall: Timestamp,
}

/// How monotonic and wall time belong together.
#[derive(Debug, Clone, Copy)]
pub struct Anchor {
    offset_ns: i128,
    /// The offset that holds for times up to `moved_at_ns`.
    offset_before_ns: i128,
    moved_at_ns: u64,
}

/// What a reading showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    /// The clocks run together.
    Steady,
    /// The wall clock was set, or the machine slept, by this many nanoseconds (negative: set back).
    Stepped {
        /// Wall time gained.
        by_ns: i128,
    },
}

/// A difference from here on is a step. Slewing, at 500 parts per million, stays below it for a minute and a half.
pub const STEP_NS: u64 = 50_000_000;

impl Anchor {
    /// The first anchor.
    pub fn new(reading: Reading) -> Self {
        let offset_ns = offset_of(reading);
        Self { offset_ns, offset_before_ns: offset_ns, moved_at_ns: 0 }
    }

    /// Follows the wall clock. To be called for every drain.
    pub fn follow(&mut self, reading: Reading) -> Shift {
        let by_ns = offset_of(reading) - self.offset_ns;
        let shift = if by_ns.unsigned_abs() < u128::from(STEP_NS) { Shift::Steady } else { Shift::Stepped { by_ns } };
        if let Shift::Stepped { .. } = shift {
            self.offset_before_ns = self.offset_ns;
            self.moved_at_ns = reading.monotonic_ns;
        }
        self.offset_ns += by_ns;
        shift
    }

    /// Wall time of a moment on the monotonic clock.
    pub fn wall(&self, monotonic_ns: u64) -> Timestamp {
        let offset_ns = if monotonic_ns < self.moved_at_ns { self.offset_before_ns } else { self.offset_ns };
        let wall_ns = i128::from(monotonic_ns) + offset_ns;
        Timestamp(u64::try_from(wall_ns.max(0)).unwrap_or(u64::MAX))
    }

    /// When, on the monotonic clock, the wall clock shows `wall`, should nobody set it meanwhile. For timers.
    pub fn monotonic_ns(&self, wall: Timestamp) -> u64 {
        u64::try_from((i128::from(wall.0) - self.offset_ns).max(0)).unwrap_or(u64::MAX)
    }
}

fn offset_of(reading: Reading) -> i128 {
    i128::from(reading.wall.0) - i128::from(reading.monotonic_ns)
}

const _: () = assert!(STEP_NS < NANOS_PER_SEC);

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: u64 = NANOS_PER_SEC;
    const EPOCH: u64 = 1_700_000_000 * SEC;

    fn reading(monotonic_secs: u64, wall_ns: u64) -> Reading {
        Reading { monotonic_ns: monotonic_secs * SEC, wall: Timestamp(wall_ns) }
    }

    #[test]
    fn slewing_is_followed_without_a_word() {
        let mut anchor = Anchor::new(reading(100, EPOCH));
        assert_eq!(anchor.wall(101 * SEC), Timestamp(EPOCH + SEC));
        assert_eq!(anchor.follow(reading(160, EPOCH + 60 * SEC + 1_000_000)), Shift::Steady);
        assert_eq!(anchor.wall(160 * SEC), Timestamp(EPOCH + 60 * SEC + 1_000_000));
        assert_eq!(anchor.monotonic_ns(Timestamp(EPOCH + 61 * SEC + 1_000_000)), 161 * SEC);
    }

    #[test]
    fn a_step_does_not_move_what_was_counted_before_it() {
        let mut anchor = Anchor::new(reading(100, EPOCH));
        let back = -i128::from(3600 * SEC);
        assert_eq!(anchor.follow(reading(110, EPOCH + 10 * SEC - 3600 * SEC)), Shift::Stepped { by_ns: back });
        assert_eq!(anchor.wall(109 * SEC), Timestamp(EPOCH + 9 * SEC));
        assert_eq!(anchor.wall(111 * SEC), Timestamp(EPOCH + 11 * SEC - 3600 * SEC));
    }

    #[test]
    fn each_step_is_told_by_itself_and_a_clock_that_stays_is_steady() {
        let mut anchor = Anchor::new(reading(100, EPOCH));
        let hour = i128::from(3600 * SEC);
        assert_eq!(anchor.follow(reading(101, EPOCH + SEC + 3600 * SEC)), Shift::Stepped { by_ns: hour });
        assert_eq!(anchor.follow(reading(102, EPOCH + 2 * SEC + 3600 * SEC)), Shift::Steady);
        assert_eq!(anchor.follow(reading(103, EPOCH + 3 * SEC)), Shift::Stepped { by_ns: -hour });
        // Between the steps the clock was ahead, and what was counted then keeps that time.
        assert_eq!(anchor.wall(102 * SEC), Timestamp(EPOCH + 2 * SEC + 3600 * SEC));
        assert_eq!(anchor.wall(103 * SEC), Timestamp(EPOCH + 3 * SEC));
        assert_eq!(anchor.monotonic_ns(Timestamp(EPOCH + 5 * SEC)), 105 * SEC);
    }

    #[test]
    fn what_is_just_below_a_step_is_slewing_in_both_directions() {
        for (by_ns, is_step) in [(STEP_NS - 1, false), (STEP_NS, true)] {
            let ahead = Anchor::new(reading(100, EPOCH)).follow(reading(110, EPOCH + 10 * SEC + by_ns));
            let behind = Anchor::new(reading(100, EPOCH)).follow(reading(110, EPOCH + 10 * SEC - by_ns));
            assert_eq!((ahead != Shift::Steady, behind != Shift::Steady), (is_step, is_step), "{by_ns}");
        }
    }

    #[test]
    fn a_suspended_machine_loses_no_order() {
        // The monotonic clock stood still for eight hours: wall time jumps, and what came before stays before.
        let mut anchor = Anchor::new(reading(100, EPOCH));
        let slept = 8 * 3600 * SEC;
        assert_eq!(anchor.follow(reading(101, EPOCH + SEC + slept)), Shift::Stepped { by_ns: slept.into() });
        let walls: Vec<_> = [99, 100, 101, 102].map(|secs| anchor.wall(secs * SEC)).into();
        assert!(walls.is_sorted(), "{walls:?}");
        assert_eq!(walls[1..3], [Timestamp(EPOCH), Timestamp(EPOCH + SEC + slept)]);
    }

    #[test]
    fn a_clock_before_its_epoch_saturates() {
        let anchor = Anchor::new(Reading { monotonic_ns: 100, wall: Timestamp(5) });
        assert_eq!(anchor.wall(10), Timestamp(0));
        assert_eq!(anchor.monotonic_ns(Timestamp(0)), 95);
    }
}
