//! When the programs go over from one generation of maps to the other.

/// A moment, and the generation that is counted into from then on; before it, the other one.
///
/// Each packet is put where its own time says, so everything in a generation lies between two turns, on every processor,
/// and no entry spans two intervals. The lowest bit is the generation, the others the moment in nanoseconds of the
/// monotonic clock: one word, which is stored and loaded whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Turn(pub u64);

impl Turn {
    /// At `at_ns` (an odd number counts as the even one below) to the second generation, or to the first.
    pub const fn new(at_ns: u64, to_second: bool) -> Self {
        Self(at_ns & !1 | to_second as u64)
    }

    /// The moment.
    pub const fn at_ns(self) -> u64 {
        self.0 & !1
    }

    /// Whether what happens at `now_ns` belongs to the second generation.
    #[inline(always)]
    pub const fn is_second(self, now_ns: u64) -> bool {
        (now_ns >= self.at_ns()) == (self.0 & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_separates_before_from_after() {
        let there = Turn::new(1001, true);
        assert_eq!((there.is_second(999), there.is_second(1000), there.is_second(1001)), (false, true, true));
        let back = Turn::new(2000, false);
        assert_eq!((back.is_second(1999), back.is_second(2000)), (true, false));
        assert!(!Turn(0).is_second(0), "a map of zeros is in its first generation");
    }
}
