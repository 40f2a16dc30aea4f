//! Aggregation intervals: which one a packet belongs to, and when one closes.
//!
//! Intervals tumble and are aligned to the epoch. A packet belongs to the interval that holds its own time stamp. At
//! most [`INTERVALS_OPEN_MAX`] are open at once: when a further one opens, the oldest closes, so a single wild time
//! stamp opens one interval and not all those between. A packet older than every open interval is late: it gets a
//! window of its own interval, whose rows come after those the interval had already. The decision looks at nothing but
//! the order of packets in the capture, so it is the same for any number of workers.
//!
//! A live capture closes intervals by the clock as well ([`Windows::keep_time`]), [`GRACE_SECS`] after their end where
//! packets of its end may still be on their way; and it may change the length of intervals between two of them
//! ([`Windows::change`]).

use crate::time::{NANOS_PER_SEC, Rhythm, Timestamp};

/// How many intervals are open at once.
pub const INTERVALS_OPEN_MAX: usize = 4;

/// How many closed intervals may collect late packets at once.
pub const LATE_WINDOWS_MAX: usize = 4;

/// How many changes of the configuration are remembered: there is one in an interval at most, and packets of more
/// intervals than this are not on their way at once.
pub const EPOCHS_MAX: usize = 8;

/// How long after its end an interval is closed by the clock. Covers what the kernel and a worker hold back.
pub const GRACE_SECS: u64 = 2;

/// One collection of flows: an interval, or the late packets of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its own number; no two windows of a run share one.
    pub serial: u64,
    /// The interval's first nanosecond.
    pub start_ns: u64,
    /// The next interval's first nanosecond.
    pub end_ns: u64,
    /// Which configuration it is counted and written by: 0, and one more with each change.
    pub generation: u32,
    /// Whether it holds late packets.
    pub late: bool,
}

/// The intervals of one configuration.
#[derive(Debug, Clone, Copy)]
struct Epoch {
    generation: u32,
    rhythm: Rhythm,
}

/// An interval, and what it is counted and written by.
#[derive(Debug, Clone, Copy)]
struct Interval {
    generation: u32,
    start_ns: u64,
    end_ns: u64,
}

/// The windows of a run. Knows times and numbers, no packets.
#[derive(Debug)]
pub struct Windows {
    newest: Epoch,
    /// Those before it, the newest last; at most [`EPOCHS_MAX`].
    former: Vec<Epoch>,
    /// The clock has closed all intervals before this.
    closed_until_ns: u64,
    next_serial: u64,
    /// In order of time.
    open: Vec<Window>,
    /// In order of opening.
    late: Vec<Window>,
}

impl Windows {
    /// No window is open. `length_secs` is the aggregation interval, at least a second.
    pub fn new(length_secs: u32) -> Self {
        let newest = Epoch { generation: 0, rhythm: Rhythm::new(Timestamp(0), length_secs) };
        Self { newest, former: Vec::new(), closed_until_ns: 0, next_serial: 0, open: Vec::new(), late: Vec::new() }
    }

    /// The window of a packet captured at `time`. What must close first is added to `closed`.
    pub fn admit(&mut self, time: Timestamp, closed: &mut Vec<Window>) -> Window {
        let interval = self.interval(time);
        let start_ns = interval.start_ns;
        if let Some(known) = self.open.iter().find(|window| window.start_ns == start_ns) {
            return *known;
        }
        if start_ns < self.closed_until_ns {
            return self.admit_late(interval, closed);
        }
        let full = self.open.len() >= INTERVALS_OPEN_MAX;
        let older_than_all = self.open.first().is_some_and(|oldest| start_ns < oldest.start_ns);
        if full && older_than_all {
            return self.admit_late(interval, closed);
        }
        if full {
            closed.append(&mut self.late);
            closed.push(self.open.remove(0));
        }
        let window = self.number(interval, false);
        let at = self.open.partition_point(|other| other.start_ns < start_ns);
        self.open.insert(at, window);
        window
    }

    /// Whether a packet captured at `time` belongs to `window`, which is open.
    #[inline]
    pub fn holds(&self, window: &Window, time: Timestamp) -> bool {
        time.0.wrapping_sub(window.start_ns) < window.end_ns - window.start_ns
    }

    /// The window that a loss reported at `time` is told in: its own if it is open, else the newest.
    pub fn for_loss(&mut self, time: Timestamp, closed: &mut Vec<Window>) -> Window {
        let own = self.open.iter().find(|window| self.holds(window, time));
        match own.or(self.open.last()) {
            Some(window) => *window,
            None => self.admit(time, closed),
        }
    }

    /// Closes what has been over for `grace_secs` at `now`, and opens the interval of `now`, so that an interval
    /// without any packet closes too; before it those since the last, if they are few: this was called late then, and if
    /// they are many the machine slept. What is late closes with the next interval. A clock that was set back by more
    /// than two intervals closes everything, and the past is open again.
    pub fn keep_time(&mut self, now: Timestamp, grace_secs: u64, closed: &mut Vec<Window>) {
        let length_ns = self.epoch_at(now).rhythm.length_ns();
        if now.0 + 2 * length_ns < self.closed_until_ns {
            self.close_all(closed);
            self.closed_until_ns = 0;
            // Nothing is open that began before a change, so the past is counted by the newest configuration too.
            self.former.clear();
            self.newest.rhythm.from = Timestamp(0);
        }
        let due = self.open.partition_point(|window| window.end_ns + grace_secs * NANOS_PER_SEC <= now.0);
        if let Some(last) = due.checked_sub(1).and_then(|at| self.open.get(at)) {
            self.closed_until_ns = self.closed_until_ns.max(last.end_ns);
            closed.append(&mut self.late);
            closed.extend(self.open.drain(..due));
        }
        let mut next_ns = self.open.last().map_or(0, |newest| newest.end_ns).max(self.closed_until_ns);
        if now.0.saturating_sub(next_ns) < INTERVALS_OPEN_MAX as u64 * length_ns {
            while next_ns <= now.0 {
                next_ns = self.admit(Timestamp(next_ns), closed).end_ns;
            }
        }
        if self.interval(now).start_ns >= self.closed_until_ns {
            self.admit(now, closed);
        }
    }

    /// Changes the length of the intervals, and with it the configuration, at the end of the interval of `now`; says
    /// when that is. `None` while an earlier change is still to come.
    pub fn change(&mut self, now: Timestamp, length_secs: u32) -> Option<Timestamp> {
        if !self.may_change(now) {
            return None;
        }
        let before = self.newest;
        let (_, from_ns) = before.rhythm.interval(now);
        // A packet may be ahead of the clock that reads `now`, and its interval open already.
        let from_ns = self.open.last().map_or(from_ns, |newest| newest.end_ns.max(from_ns));
        let generation = before.generation + 1;
        if self.former.len() >= EPOCHS_MAX {
            self.former.remove(0);
        }
        self.former.push(before);
        self.newest = Epoch { generation, rhythm: Rhythm::new(Timestamp(from_ns), length_secs) };
        Some(Timestamp(from_ns))
    }

    /// Whether no earlier change is still to come.
    pub fn may_change(&self, now: Timestamp) -> bool {
        now.0 >= self.newest.rhythm.from.0
    }

    /// The configuration of the newest intervals.
    pub fn generation(&self) -> u32 {
        self.newest.generation
    }

    /// The epoch of a time; before all that are known, the oldest of them.
    fn epoch_at(&self, time: Timestamp) -> Epoch {
        let mut newest_first = std::iter::once(&self.newest).chain(self.former.iter().rev());
        let of_time = newest_first.find(|epoch| epoch.rhythm.from.0 <= time.0);
        *of_time.or(self.former.first()).unwrap_or(&self.newest)
    }

    /// The interval that holds a time.
    fn interval(&self, time: Timestamp) -> Interval {
        let Epoch { generation, rhythm } = self.epoch_at(time);
        let (start_ns, end_ns) = rhythm.interval(time);
        Interval { generation, start_ns, end_ns }
    }

    /// Closes all windows, the oldest first.
    pub fn close_all(&mut self, closed: &mut Vec<Window>) {
        closed.append(&mut self.late);
        closed.append(&mut self.open);
    }

    fn admit_late(&mut self, interval: Interval, closed: &mut Vec<Window>) -> Window {
        if let Some(known) = self.late.iter().find(|window| window.start_ns == interval.start_ns) {
            return *known;
        }
        if self.late.len() >= LATE_WINDOWS_MAX {
            closed.push(self.late.remove(0));
        }
        let window = self.number(interval, true);
        self.late.push(window);
        window
    }

    fn number(&mut self, Interval { generation, start_ns, end_ns }: Interval, late: bool) -> Window {
        let serial = self.next_serial;
        self.next_serial += 1;
        Window { serial, start_ns, end_ns, generation, late }
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

    const NONE: [u64; 0] = [];

    fn starts(closed: &[Window]) -> Vec<u64> {
        closed.iter().map(|window| window.start_ns / SEC).collect()
    }

    fn keep_time(windows: &mut Windows, now_secs: u64) -> Vec<u64> {
        let mut closed = Vec::new();
        windows.keep_time(Timestamp(now_secs * SEC), GRACE_SECS, &mut closed);
        starts(&closed)
    }

    #[test]
    fn the_clock_closes_intervals_also_those_without_packets() {
        let mut windows = Windows::new(60);
        assert_eq!(keep_time(&mut windows, 610), NONE);
        assert_eq!(keep_time(&mut windows, 661), NONE);
        assert_eq!(admit(&mut windows, 659 * SEC), (600, false, vec![]), "within the grace a packet is in time");
        assert_eq!(keep_time(&mut windows, 662), [600]);
        assert_eq!(keep_time(&mut windows, 663), NONE);
        assert_eq!(admit(&mut windows, 659 * SEC), (600, true, vec![]), "after it, late");
        assert_eq!(keep_time(&mut windows, 722), [600, 660], "what is late closes with the next interval, before it");
        // Nobody asked in time: those between close as well, each in its turn.
        assert_eq!(keep_time(&mut windows, 955), [720]);
        assert_eq!(keep_time(&mut windows, 955), [780, 840]);
        assert_eq!(keep_time(&mut windows, 962), [900]);
        // The machine slept: the interval it fell asleep in closes, none of those between is made up.
        assert_eq!(keep_time(&mut windows, 9_000), [960]);
        assert_eq!(keep_time(&mut windows, 9_062), [9_000]);
    }

    #[test]
    fn a_clock_set_back_opens_the_past_again() {
        let mut windows = Windows::new(60);
        keep_time(&mut windows, 7_200);
        assert_eq!(keep_time(&mut windows, 7_262), [7_200]);
        assert_eq!(keep_time(&mut windows, 3_600), [7_260]);
        assert_eq!(admit(&mut windows, 3_601 * SEC), (3_600, false, vec![]));
        assert_eq!(keep_time(&mut windows, 3_662), [3_600]);
        // A little correction across the border is no step.
        assert_eq!(keep_time(&mut windows, 3_658), NONE);
        assert_eq!(admit(&mut windows, 3_659 * SEC), (3_600, true, vec![]));
    }

    #[test]
    fn a_change_comes_between_two_intervals() {
        let mut windows = Windows::new(60);
        keep_time(&mut windows, 610);
        assert_eq!(windows.change(Timestamp(610 * SEC), 90), Some(Timestamp(660 * SEC)));
        assert_eq!(windows.change(Timestamp(620 * SEC), 60), None);
        let mut closed = Vec::new();
        let mut parts = |secs: u64| {
            let window = windows.admit(Timestamp(secs * SEC), &mut closed);
            (window.start_ns / SEC, window.end_ns / SEC, window.generation)
        };
        assert_eq!(parts(659), (600, 660, 0));
        assert_eq!(parts(660), (660, 720, 1), "shorter, for 90 s intervals begin at 630 and 720");
        assert_eq!(parts(720), (720, 810, 1));
        assert_eq!(parts(650), (600, 660, 0));
    }

    #[test]
    fn a_change_waits_for_intervals_that_are_open_already() {
        let mut windows = Windows::new(60);
        admit(&mut windows, 661 * SEC);
        assert_eq!(windows.change(Timestamp(659 * SEC), 60), Some(Timestamp(720 * SEC)));
    }

    /// As after two reloads, the second at the beginning of an interval.
    #[test]
    fn packets_that_come_after_two_changes_belong_to_the_intervals_before_them() {
        let mut windows = Windows::new(10);
        keep_time(&mut windows, 615);
        assert_eq!(windows.change(Timestamp(615 * SEC), 7), Some(Timestamp(620 * SEC)));
        assert_eq!(windows.change(Timestamp(620 * SEC), 5), Some(Timestamp(623 * SEC)), "7 divides 623");
        let mut closed = Vec::new();
        let mut parts = |secs: u64| {
            let window = windows.admit(Timestamp(secs * SEC), &mut closed);
            (window.start_ns / SEC, window.end_ns / SEC, window.generation)
        };
        let before = [(619, (610, 620, 0)), (620, (620, 623, 1)), (622, (620, 623, 1)), (623, (623, 625, 2))];
        for (secs, expected) in before {
            assert_eq!(parts(secs), expected);
        }
    }

    #[test]
    fn a_clock_set_back_before_a_change_lets_another_one_come() {
        let mut windows = Windows::new(60);
        keep_time(&mut windows, 7_200);
        windows.change(Timestamp(7_200 * SEC), 30);
        keep_time(&mut windows, 7_262);
        keep_time(&mut windows, 7_322);
        keep_time(&mut windows, 3_600);
        assert_eq!(
            windows.change(Timestamp(3_601 * SEC), 10),
            Some(Timestamp(3_630 * SEC)),
            "30 s since the first change"
        );
    }

    proptest! {
        /// However often intervals change, and whatever clock or packets say.
        #[test]
        fn every_window_holds_what_it_is_given_for(
            steps in proptest::collection::vec((0..4_u8, 0..1_000_u64, 1..20_u32), 1..300)
        ) {
            let mut windows = Windows::new(10);
            let mut closed = Vec::new();
            let mut clock_secs = 500;
            for (step, secs, length_secs) in steps {
                match step {
                    0 => {
                        windows.change(Timestamp(clock_secs * SEC), length_secs);
                    }
                    1 => {
                        clock_secs += secs % 12;
                        windows.keep_time(Timestamp(clock_secs * SEC), GRACE_SECS, &mut closed);
                    }
                    2 if secs < 10 => clock_secs = 500 + secs,
                    _ => {
                        let time = Timestamp(secs * SEC);
                        let window = windows.admit(time, &mut closed);
                        prop_assert!(windows.holds(&window, time), "{time:?}: {window:?}");
                    }
                }
                prop_assert!(windows.former.len() <= EPOCHS_MAX);
            }
        }

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
