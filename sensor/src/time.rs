//! Points in time as captures give them: nanoseconds since the Unix epoch; and the intervals they fall into.

/// Nanoseconds since 1970-01-01T00:00:00Z. Holds every time stamp until the year 2554.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

/// Nanoseconds in a second.
pub const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Intervals of one length, aligned to the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// Before this, intervals had another length.
    pub from: Timestamp,
    length_ns: u64,
}

impl Rhythm {
    /// Intervals of so many seconds, at least one, from then on.
    pub fn new(from: Timestamp, length_secs: u32) -> Self {
        Self { from, length_ns: u64::from(length_secs.max(1)) * NANOS_PER_SEC }
    }

    /// The length of an interval.
    pub fn length_ns(&self) -> u64 {
        self.length_ns
    }

    /// First nanosecond of the interval that holds `time`, and of the next. The first interval is shorter where the
    /// length does not divide the time it begins with; so is the last before it, of a time before all.
    pub fn interval(&self, time: Timestamp) -> (u64, u64) {
        let start_ns = time.0 - time.0 % self.length_ns;
        let end_ns = start_ns + self.length_ns;
        if time.0 < self.from.0 { (start_ns, end_ns.min(self.from.0)) } else { (start_ns.max(self.from.0), end_ns) }
    }
}

impl Timestamp {
    /// The whole seconds since the epoch.
    pub fn secs(self) -> u64 {
        self.0 / NANOS_PER_SEC
    }
}
