//! The kernel plane as a source: it turns with the intervals, drains what is quiet, and hands out what was counted.
//!
//! A period is what lies between two turns of the generations, at most [`TURN_SECS`]; it ends where its interval ends. The
//! end of a period is told to the programs before it comes, so they go over by themselves, each packet by its own time,
//! and the drain may come later. Then the next end is told. A drain that took so long that the end of an interval went
//! by untold is noticed and counted ([`TurnCounts::late`]); what was counted meanwhile goes to the interval it began in.
//!
//! The source waits at most [`WAIT_MILLIS`], and brings at most [`COUNTED_MAX`] counts and a batch in a block.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::Receiver;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::clock::{Anchor, Reading, Shift};
use super::drain::{Drain, Drained};
use super::gather::{Devices, Gatherer};
use crate::capture::{Block, CaptureError, Fill, Roster, Source};
use crate::sys::clock;
use crate::time::{NANOS_PER_SEC, Rhythm, Timestamp};

/// What the source is told while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// What is counted at this device belongs to that interface.
    Attach {
        /// The kernel's index of the device.
        device: u32,
        /// Index of the interface here.
        interface: u16,
        /// Its name.
        name: String,
    },
    /// Nothing more is counted at this device.
    Detach {
        /// The kernel's index of the device.
        device: u32,
    },
    /// From its beginning on, intervals are these.
    Rhythm(Rhythm),
    /// Hand out what is left, and end.
    Stop,
}

/// How the turns went: a handle that is shared with whoever tells of them.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    told: Arc<Mutex<TurnCounts>>,
}

/// How the turns went so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TurnCounts {
    /// Turns.
    pub turns: u64,
    /// Of these, turns that came after the interval they should have ended with.
    pub late: u64,
    /// Of these, turns before their time because a map was full.
    pub early: u64,
    /// What all drains took out.
    pub drained: Drained,
    /// How long the last drain took, from the turn to the last count.
    pub last_drain_ns: u64,
    /// How long the longest took.
    pub longest_drain_ns: u64,
    /// Drains that the kernel refused in part.
    pub failed: u64,
    /// Times that the wall clock was set, or the machine slept.
    pub clock_steps: u64,
}

impl Turns {
    /// How the turns went so far.
    pub fn counts(&self) -> TurnCounts {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, TurnCounts> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands out what the kernel counts.
pub struct KernelSource {
    drain: Drain,
    orders: Receiver<Order>,
    roster: Roster,
    devices: Devices,
    rhythm: Rhythm,
    /// What comes after it, once told, in its order.
    rhythms_next: VecDeque<Rhythm>,
    anchor: Anchor,
    period: Period,
    draining: Option<Draining>,
    complete_until: Timestamp,
    stops: bool,
    ended: bool,
    turns: Turns,
    drained: Box<dyn FnMut(Duration) + Send>,
}

/// What is watched, as far as the source must know.
pub struct Watched {
    /// Which interface a device is.
    pub devices: Devices,
    /// Learns of interfaces that come and go.
    pub roster: Roster,
}

/// Who is told how it goes.
pub struct Telling {
    /// Counts.
    pub turns: Turns,
    /// Is told how long each drain took.
    pub drained: Box<dyn FnMut(Duration) + Send>,
}

/// What lies between two turns.
#[derive(Debug, Clone, Copy)]
struct Period {
    from: Timestamp,
    until: Timestamp,
    /// The turn that ends it, on the monotonic clock.
    turn_ns: u64,
}

/// A period that is over, and is being taken out.
#[derive(Debug, Clone, Copy)]
struct Draining {
    period: Period,
    /// Where the next one begins in wall time: elsewhere only if the clock was set.
    next_from: Timestamp,
}

impl KernelSource {
    /// A source that counts from now on. Times are told by the kernel's own clocks, since it stamps by them.
    ///
    /// # Errors
    /// The kernel refuses a clock, or the first turn.
    pub fn new(
        drain: Drain,
        watched: Watched,
        orders: Receiver<Order>,
        interval_secs: u32,
        telling: Telling,
    ) -> io::Result<Self> {
        let Watched { devices, roster } = watched;
        let Telling { turns, drained } = telling;
        let now = clock::read()?;
        let anchor = Anchor::new(now);
        let mut source = Self {
            drain,
            orders,
            roster,
            devices,
            rhythm: Rhythm::new(Timestamp(0), interval_secs),
            rhythms_next: VecDeque::new(),
            anchor,
            period: Period { from: now.wall, until: now.wall, turn_ns: 0 },
            draining: None,
            complete_until: now.wall,
            stops: false,
            ended: false,
            turns,
            drained,
        };
        source.begin_period(now.wall).map_err(io::Error::other)?;
        Ok(source)
    }

    fn obey(&mut self, now: Timestamp) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Attach { device, interface, name } => {
                    self.roster.attach(interface, &name, now);
                    self.devices.attach(device, interface);
                }
                Order::Detach { device } => {
                    if let Some(interface) = self.devices.detach(device) {
                        self.roster.detach(interface, now);
                    }
                }
                Order::Rhythm(rhythm) => self.rhythms_next.push_back(rhythm),
                Order::Stop => self.stops = true,
            }
        }
    }

    /// Waits for the turn, for something in the ring buffer, or for [`WAIT_MILLIS`].
    fn wait(&self, coarse_ns: u64) {
        let millis = self.period.turn_ns.saturating_sub(coarse_ns).div_ceil(NANOS_PER_MILLI).clamp(1, WAIT_MILLIS);
        let timeout = Timespec { tv_sec: 0, tv_nsec: (millis * NANOS_PER_MILLI).cast_signed() };
        let overflow = self.drain.overflow_fd();
        // What interrupts the wait is looked at right after.
        poll(&mut [PollFd::new(&overflow, PollFlags::IN)], Some(&timeout)).ok();
    }

    /// Follows the wall clock. After a step the present period ends at once, and the next begins where the clock is now.
    fn follow(&mut self, now: Reading) -> io::Result<()> {
        let before = self.anchor;
        if let Shift::Stepped { by_ns } = self.anchor.follow(now) {
            let by_millis = i64::try_from(by_ns / i128::from(NANOS_PER_MILLI)).unwrap_or(i64::MAX);
            tracing::warn!(by_millis, "the wall clock was set, or the machine slept: times are anchored anew");
            self.turns.lock().clock_steps += 1;
            if self.draining.is_none() {
                self.turn_now(before.wall(now.monotonic_ns))?;
            }
        }
        Ok(())
    }

    /// Ends the present period now, which is `wall` in its own time.
    fn turn_now(&mut self, wall: Timestamp) -> io::Result<()> {
        let coarse_ns = clock::coarse_ns()?;
        if coarse_ns < self.period.turn_ns {
            self.period.turn_ns = coarse_ns;
            self.period.until = wall.clamp(self.period.from, self.period.until);
            self.drain.turn_at(coarse_ns).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Tells the programs when the period that begins at `from` ends.
    fn begin_period(&mut self, from: Timestamp) -> Result<(), super::DrainError> {
        while let Some(next) = self.rhythms_next.pop_front_if(|next| holds_at(next, &self.rhythm, from)) {
            self.rhythm = next;
        }
        let (_, interval_end_ns) = self.rhythm.interval(from);
        let turn_end_ns = from.0 + TURN_SECS * NANOS_PER_SEC;
        // No sliver at the end of an interval: its last period may be half as long again.
        let until = if turn_end_ns + TURN_SECS * NANOS_PER_SEC / 2 >= interval_end_ns {
            Timestamp(interval_end_ns)
        } else {
            Timestamp(turn_end_ns)
        };
        let coarse_ns = clock::coarse_ns().map_err(super::DrainError::Clock)?;
        let mut turn_ns = self.anchor.monotonic_ns(until);
        if turn_ns <= coarse_ns && until.0 == interval_end_ns {
            self.turns.lock().late += 1;
            turn_ns = coarse_ns;
        }
        self.drain.turn_at(turn_ns)?;
        self.period = Period { from, until, turn_ns };
        Ok(())
    }

    /// One batch of what is quiet; goes over to the next period behind the last.
    fn take(&mut self, draining: Draining, now: Reading, block: &mut Block) -> Result<(), super::DrainError> {
        let mut gatherer = Gatherer::new(block, &mut self.devices, &self.anchor, &self.rhythm, draining.period.from);
        let taken = self.drain.take_some(&mut gatherer);
        let mut counts = self.turns.lock();
        match taken {
            Ok(Some(drained)) => counts.drained.add(&drained),
            Ok(None) => {
                let took_ns = now.monotonic_ns.saturating_sub(draining.period.turn_ns);
                counts.turns += 1;
                counts.last_drain_ns = took_ns;
                counts.longest_drain_ns = counts.longest_drain_ns.max(took_ns);
                drop(counts);
                (self.drained)(Duration::from_nanos(took_ns));
                self.draining = None;
                self.complete_until = draining.period.until;
                for device in self.devices.turned() {
                    self.drain.forget(device)?;
                }
                if self.stops {
                    self.ended = true;
                } else {
                    self.begin_period(draining.next_from)?;
                }
            }
            Err(error) => {
                counts.failed += 1;
                tracing::error!(%error, "a drain failed in part");
            }
        }
        Ok(())
    }

    /// What came through the ring buffer. It means that a map is full, so the other generation takes over at once.
    fn take_overflow(&mut self, now: Reading, block: &mut Block) -> io::Result<()> {
        let mut gatherer = Gatherer::new(block, &mut self.devices, &self.anchor, &self.rhythm, self.period.from);
        let drained = self.drain.drain_overflow(&mut gatherer);
        self.turns.lock().drained.add(&drained);
        if drained.overflowed > 0 && self.draining.is_none() && clock::coarse_ns()? < self.period.turn_ns {
            self.turns.lock().early += 1;
            self.turn_now(now.wall)?;
        }
        Ok(())
    }

    fn step(&mut self, block: &mut Block) -> io::Result<()> {
        if self.draining.is_none() {
            self.wait(clock::coarse_ns()?);
        }
        let now = clock::read()?;
        self.obey(now.wall);
        self.follow(now)?;
        self.take_overflow(now, block)?;
        if self.draining.is_none() {
            if self.stops {
                self.turn_now(now.wall)?;
            }
            if clock::coarse_ns()? >= self.period.turn_ns {
                self.drain.settle().map_err(io::Error::other)?;
                let next_from = self.anchor.wall(self.period.turn_ns);
                // Where nobody set the clock, the next period begins where this one ends, to the nanosecond.
                let is_steady = next_from.0.abs_diff(self.period.until.0) < super::STEP_NS;
                let next_from = if is_steady { self.period.until } else { next_from };
                self.draining = Some(Draining { period: self.period, next_from });
            }
        }
        while let Some(draining) = self.draining.filter(|_| block.counted.len() < COUNTED_MAX) {
            self.take(draining, clock::read()?, block).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// Whether a rhythm that comes after another holds at a time already. A change is told in the interval before it or soon
/// after that began, so one that is further ahead was told before the clock was set back: what is counted from then on is
/// counted by it ([`Windows::keep_time`](crate::flow::interval::Windows::keep_time)).
fn holds_at(next: &Rhythm, before: &Rhythm, time: Timestamp) -> bool {
    time >= next.from || next.from.0 - time.0 > 3 * before.length_ns()
}

impl Source for KernelSource {
    fn fill(&mut self, block: &mut Block) -> Result<Fill, CaptureError> {
        block.clear();
        if self.ended {
            return Ok(Fill::End);
        }
        if let Err(cause) = self.step(block) {
            tracing::error!(%cause, "the kernel plane has failed: nothing more is counted");
            self.ended = true;
            return Err(CaptureError::Io { input: "the kernel plane".to_owned(), cause });
        }
        block.complete_until = Some(self.complete_until);
        let mut packets: HashMap<u16, u64> = HashMap::new();
        for counted in block.counted.iter().filter(|counted| counted.rejection.is_none()) {
            *packets.entry(counted.interface).or_default() += counted.packets;
        }
        packets.into_iter().for_each(|(interface, packets)| self.roster.count(interface, packets, 0));
        block.drops.iter().for_each(|drop| self.roster.count(drop.interface, 0, drop.packets));
        let is_empty = block.counted.is_empty() && block.drops.is_empty() && block.refused.is_empty();
        Ok(if is_empty { Fill::Idle } else { Fill::More })
    }
}

/// The longest that counts stay in the kernel.
pub const TURN_SECS: u64 = 5;

/// How many counts make a block; a batch more may be in it.
pub const COUNTED_MAX: usize = 32 * 1024;

/// The longest that the source waits.
const WAIT_MILLIS: u64 = 250;

const NANOS_PER_MILLI: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_holds_from_its_time_on_and_at_once_after_the_clock_was_set_back() {
        let at = |secs: u64| Timestamp(secs * NANOS_PER_SEC);
        let (before, next) = (Rhythm::new(at(0), 60), Rhythm::new(at(7_200), 10));
        for (secs, holds) in [(7_199, false), (7_200, true), (7_080, false), (3_600, true)] {
            assert_eq!(holds_at(&next, &before, at(secs)), holds, "{secs}");
        }
    }
}
