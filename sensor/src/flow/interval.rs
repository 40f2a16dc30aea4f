//! Aggregation intervals: which one a packet belongs to, and when one closes.
//!
//! Intervals tumble and are aligned to the epoch. A packet belongs to the interval that holds its own time stamp. At
//! most [`INTERVALS_OPEN_MAX`] are open at once: when a further one opens, the oldest closes, so a single wild time
//! stamp opens one interval and not all those between. A packet older than every open interval is late: it gets a
//! window of its own interval, whose rows come after those the interval had already. The decision looks at nothing but
//! the order of packets in the capture, so it is the same for any number of workers.

use crate::time::{NANOS_PER_SEC, Timestamp};

/// How many intervals are open at once.
pub const INTERVALS_OPEN_MAX: usize = 4;

/// How many closed intervals may collect late packets at once.
pub const LATE_WINDOWS_MAX: usize = 4;

/// One collection of flows: an interval, or the late packets of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its own number; no two windows of a run share one.
    pub serial: u64,
    /// The interval's first nanosecond.
    pub start_ns: u64,
    /// Whether it holds late packets.
    pub late: bool,
}

/// The windows of a run. Knows times and numbers, no packets.
#[derive(Debug)]
pub struct Windows {
    length_ns: u64,
    next_serial: u64,
    /// In order of time.
    open: Vec<Window>,
    /// In order of opening.
    late: Vec<Window>,
}

impl Windows {
    /// No window is open. `length_secs` is the aggregation interval, at least a second.
    pub fn new(length_secs: u32) -> Self {
        let length_ns = u64::from(length_secs.max(1)) * NANOS_PER_SEC;
        Self { length_ns, next_serial: 0, open: Vec::new(), late: Vec::new() }
    }

    /// The window of a packet captured at `time`. What must close first is added to `closed`.
    pub fn admit(&mut self, time: Timestamp, closed: &mut Vec<Window>) -> Window {
        let start_ns = time.0 - time.0 % self.length_ns;
        if let Some(known) = self.open.iter().find(|window| window.start_ns == start_ns) {
            return *known;
        }
        let full = self.open.len() >= INTERVALS_OPEN_MAX;
        let older_than_all = self.open.first().is_some_and(|oldest| start_ns < oldest.start_ns);
        if full && older_than_all {
            return self.admit_late(start_ns, closed);
        }
        if full {
            closed.append(&mut self.late);
            closed.push(self.open.remove(0));
        }
        let window = self.number(start_ns, false);
        let at = self.open.partition_point(|other| other.start_ns < start_ns);
        self.open.insert(at, window);
        window
    }

    /// Whether a packet captured at `time` belongs to `window`, which is open.
    #[inline]
    pub fn holds(&self, window: &Window, time: Timestamp) -> bool {
        time.0.wrapping_sub(window.start_ns) < self.length_ns
    }

    /// The window that a loss reported at `time` is told in: its own if it is open, else the newest.
    pub fn for_loss(&mut self, time: Timestamp, closed: &mut Vec<Window>) -> Window {
        let own = self.open.iter().find(|window| self.holds(window, time));
        match own.or(self.open.last()) {
            Some(window) => *window,
            None => self.admit(time, closed),
        }
    }

    /// Closes all windows, the oldest first.
    pub fn close_all(&mut self, closed: &mut Vec<Window>) {
        closed.append(&mut self.late);
        closed.append(&mut self.open);
    }

    fn admit_late(&mut self, start_ns: u64, closed: &mut Vec<Window>) -> Window {
        if let Some(known) = self.late.iter().find(|window| window.start_ns == start_ns) {
            return *known;
        }
        if self.late.len() >= LATE_WINDOWS_MAX {
            closed.push(self.late.remove(0));
        }
        let window = self.number(start_ns, true);
        self.late.push(window);
        window
    }

    fn number(&mut self, start_ns: u64, late: bool) -> Window {
        let serial = self.next_serial;
        self.next_serial += 1;
        Window { serial, start_ns, late }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEC: u64 = NANOS_PER_SEC;

    /// Starts in seconds: of the packet's window, and of what it closed.
    fn admit(windows: &mut Windows, time_ns: u64) -> (u64, bool, Vec<u64>) {
        let mut closed = Vec::new();
        let window = windows.admit(Timestamp(time_ns), &mut closed);
        (window.start_ns / SEC, window.late, closed.iter().map(|window| window.start_ns / SEC).collect())
    }

    #[test]
    fn intervals_are_aligned_to_the_epoch() {
        let mut windows = Windows::new(60);
        assert_eq!(admit(&mut windows, 120 * SEC), (120, false, vec![]));
        assert_eq!(admit(&mut windows, 180 * SEC - 1), (120, false, vec![]));
        assert_eq!(admit(&mut windows, 180 * SEC), (180, false, vec![]));
    }

    #[test]
    fn a_fifth_interval_closes_the_oldest_and_what_comes_for_it_is_late() {
        let mut windows = Windows::new(60);
        for start in [600, 660, 720, 780] {
            admit(&mut windows, start * SEC);
        }
        assert_eq!(admit(&mut windows, 840 * SEC), (840, false, vec![600]));
        assert_eq!(admit(&mut windows, 601 * SEC), (600, true, vec![]));
        assert_eq!(admit(&mut windows, 602 * SEC), (600, true, vec![]));
        // The late window closes with the next interval, and before it.
        assert_eq!(admit(&mut windows, 900 * SEC), (900, false, vec![600, 660]));
        assert_eq!(admit(&mut windows, 601 * SEC), (600, true, vec![]), "a second late window of the same interval");
    }

    #[test]
    fn one_wild_time_stamp_opens_one_interval() {
        let mut windows = Windows::new(60);
        admit(&mut windows, 600 * SEC);
        assert_eq!(admit(&mut windows, 4_000_000_020 * SEC), (4_000_000_020, false, vec![]));
        assert_eq!(admit(&mut windows, 660 * SEC), (660, false, vec![]));
        assert_eq!(admit(&mut windows, 720 * SEC), (720, false, vec![]));
        assert_eq!(admit(&mut windows, 780 * SEC), (780, false, vec![600]));
        let mut closed = Vec::new();
        windows.close_all(&mut closed);
        let starts: Vec<_> = closed.iter().map(|window| window.start_ns / SEC).collect();
        assert_eq!(starts, [660, 720, 780, 4_000_000_020]);
    }

    #[test]
    fn a_loss_is_told_in_its_own_interval_or_the_newest() {
        let mut windows = Windows::new(60);
        let mut closed = Vec::new();
        assert_eq!(windows.for_loss(Timestamp(600 * SEC), &mut closed).start_ns, 600 * SEC);
        admit(&mut windows, 660 * SEC);
        assert_eq!(windows.for_loss(Timestamp(601 * SEC), &mut closed).start_ns, 600 * SEC);
        assert_eq!(windows.for_loss(Timestamp(9_999 * SEC), &mut closed).start_ns, 660 * SEC);
        assert_eq!(closed, []);
    }

    proptest! {
        #[test]
        fn every_packet_gets_its_own_interval_and_every_window_closes_once(times in proptest::collection::vec(0..3_000_u64, 1..300)) {
            let mut windows = Windows::new(60);
            let mut closed = Vec::new();
            let mut opened = std::collections::BTreeMap::new();
            for time in times {
                let window = windows.admit(Timestamp(time * SEC), &mut closed);
                prop_assert_eq!(window.start_ns, time / 60 * 60 * SEC);
                prop_assert!(!closed.contains(&window), "a closed window got a packet");
                prop_assert!(windows.open.len() <= INTERVALS_OPEN_MAX && windows.late.len() <= LATE_WINDOWS_MAX);
                opened.insert(window.serial, window);
            }
            windows.close_all(&mut closed);
            closed.sort_by_key(|window| window.serial);
            prop_assert_eq!(closed, opened.into_values().collect::<Vec<_>>());
        }
    }
}
