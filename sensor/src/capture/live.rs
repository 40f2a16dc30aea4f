//! The packet plane: frames from interfaces, as libpcap hands them over.
//!
//! A [`Tap`] opens an interface twice, once for each direction, each with a filter in the kernel: so every frame is
//! copied once and cut short there, its direction is the kernel's own word, and losses are counted apart. Loopback shows
//! every packet in both directions; only what comes in is taken there.
//!
//! That filter is set behind libpcap's back. One set by libpcap is run again over the first buffer by libpcap itself,
//! which does not know a packet's direction there and would drop it all. A filter expression is run over the frames by
//! [`Filter`], as in a replay, and what it leaves out is counted.
//!
//! A [`LiveSource`] reads any number of taps in one thread. It never waits longer than [`WAIT_MILLIS`], and what goes wrong
//! with one interface ends that interface only.
//!
//! What libpcap sees is what the host's stack sees: with segmentation offloads that are super-packets of up to 64 KiB,
//! counted as one packet each.

use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use pcap::{Active, Capture, Precision};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::{
    BLOCK_BYTES, Block, CaptureDrop, CaptureError, Direction, Fill, Filter, Frame, LinkType, Loss, Roster, Source,
    socket_filter,
};
use crate::feed::Clock;
use crate::sys::fanout;
use crate::time::{NANOS_PER_SEC, Timestamp};

/// How an interface is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapOptions {
    /// Memory that the kernel fills while the reader is busy, for each direction.
    pub buffer_bytes: u32,
    /// How many readers share out the packets of one interface, each with buffers of its own.
    pub fanout: NonZeroUsize,
}

/// An interface that is open.
pub struct Tap {
    /// Which opening of which interface; no two taps of a run share one.
    serial: u64,
    interface: u16,
    name: String,
    lanes: Vec<Lane>,
    /// When to let go of it, once it is to be closed.
    closes_at: Option<Timestamp>,
}

/// One direction of an interface.
struct Lane {
    capture: Capture<Active>,
    direction: Direction,
    link_type: LinkType,
    /// The kernel's count of losses when last read. It wraps.
    drops_seen: u32,
}

/// Why an interface can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// libpcap refused.
    #[error(transparent)]
    Pcap(#[from] pcap::Error),
    /// The kernel refused the filter that tells the directions apart.
    #[error("the filter for one direction: {0}")]
    Filter(#[from] io::Error),
    /// The kernel refused to share out the packets among several readers.
    #[error("fanout: {0}")]
    Fanout(#[source] io::Error),
}

/// What a source is told while it runs.
pub enum Command {
    /// Read this interface too.
    Attach(Tap),
    /// Read what is left of the tap of this serial, and close it.
    Detach(u64),
    /// Go over to another filter; `None` selects everything.
    Select(Option<Box<Filter>>),
    /// Read what is left of all, and end.
    Stop,
}

impl Tap {
    /// Opens the interface called `name`, which has the index `interface` here: as many taps as readers share it, all of
    /// one serial.
    ///
    /// # Errors
    /// When it isn't there, isn't up, or the rights to open it are missing.
    pub fn open(serial: u64, interface: u16, name: &str, options: &TapOptions) -> Result<Vec<Self>, TapError> {
        let directions: &[_] =
            if name == LOOPBACK { &[Direction::Ingress] } else { &[Direction::Ingress, Direction::Egress] };
        let readers = options.fanout.get();
        let mut taps: Vec<Self> = Vec::with_capacity(readers);
        // Each direction is shared out by itself.
        let mut groups = vec![None; directions.len()];
        for _ in 0..readers {
            let lanes = directions.iter().map(|direction| Lane::open(name, *direction, options));
            let lanes: Vec<_> = lanes.collect::<Result<_, _>>()?;
            for (lane, group) in lanes.iter().zip(&mut groups).filter(|_| readers > 1) {
                match group {
                    None => *group = Some(fanout::make_group(&lane.capture).map_err(TapError::Fanout)?),
                    Some(group) => fanout::join_group(&lane.capture, *group).map_err(TapError::Fanout)?,
                }
            }
            taps.push(Self { serial, interface, name: name.to_owned(), lanes, closes_at: None });
        }
        Ok(taps)
    }
}

impl Tap {
    /// Lets go of an interface that failed, as soon as what is left of it is read.
    fn close_after(&mut self, outcome: Result<(), pcap::Error>, now: Timestamp, lost: &Sender<u64>) {
        if let Err(cause) = outcome
            && self.closes_at.is_none()
        {
            tracing::debug!(interface = self.name, %cause, "capture ended");
            self.closes_at = Some(later(now));
            lost.send(self.serial).ok();
        }
    }
}

/// Linux calls it so in every network namespace.
const LOOPBACK: &str = "lo";

impl Lane {
    fn open(name: &str, direction: Direction, options: &TapOptions) -> Result<Self, TapError> {
        let capture = Capture::from_device(name)?
            .snaplen(SNAP_BYTES)
            .timeout(RETIRE_MILLIS)
            .buffer_size(i32::try_from(options.buffer_bytes).unwrap_or(i32::MAX))
            .precision(Precision::Nano)
            .promisc(false)
            .open()?;
        let capture = capture.setnonblock()?;
        let link_type = u16::try_from(capture.get_datalink().0).map_or(LinkType::Unsupported, LinkType::from_number);
        // What comes before the kernel's filter is there is sorted out by libpcap.
        let (way, filter) = match direction {
            Direction::Egress => (pcap::Direction::Out, socket_filter::one_direction(true, SNAP_BYTES.cast_unsigned())),
            Direction::Ingress | Direction::Unknown => {
                (pcap::Direction::In, socket_filter::one_direction(false, SNAP_BYTES.cast_unsigned()))
            }
        };
        capture.direction(way)?;
        SockRef::from(&capture).attach_filter(&filter)?;
        Ok(Self { capture, direction, link_type, drops_seen: 0 })
    }

    /// Adds what has come to `block`, as far as it has room.
    fn read(&mut self, interface: u16, block: &mut Block) -> Result<(), pcap::Error> {
        let (direction, link_type) = (self.direction, self.link_type);
        let room = FRAMES_MAX.saturating_sub(block.frames.len());
        let Block { bytes, frames, .. } = block;
        self.capture.dispatch(Some(room), |packet| {
            let offset = bytes.len() as u32;
            bytes.extend_from_slice(packet.data);
            frames.push(Frame {
                time: timestamp(packet.header),
                offset,
                captured_bytes: packet.data.len() as u32,
                original_bytes: packet.header.len,
                interface,
                link_type,
                direction,
            });
        })?;
        Ok(())
    }

    /// How many packets were lost since the last call.
    fn drops(&mut self) -> u64 {
        let Ok(stat) = self.capture.stats() else { return 0 };
        since(&mut self.drops_seen, stat.dropped)
    }
}

/// How far a counter that wraps has come since it was `seen`.
fn since(seen: &mut u32, now: u32) -> u64 {
    now.wrapping_sub(std::mem::replace(seen, now)).into()
}

/// With nanosecond precision libpcap's field for microseconds holds nanoseconds.
fn timestamp(header: &pcap::PacketHeader) -> Timestamp {
    let secs = u64::try_from(header.ts.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(header.ts.tv_usec).unwrap_or_default();
    Timestamp(secs * NANOS_PER_SEC + nanos)
}

/// Reads taps that come and go.
pub struct LiveSource {
    taps: Vec<Tap>,
    commands: Receiver<Command>,
    /// Learns the serials of taps that closed by themselves.
    lost: Sender<u64>,
    roster: Roster,
    clock: Clock,
    /// Which tap is read first: each in its turn, so that none starves while blocks are full.
    turn: usize,
    drops_due: Timestamp,
    filter: Option<Box<Filter>>,
    /// When to end, once told to stop.
    ends_at: Option<Timestamp>,
}

impl LiveSource {
    /// A source without any tap. Those that close by themselves are told to `lost`.
    pub fn new(commands: Receiver<Command>, lost: Sender<u64>, roster: Roster, clock: Clock) -> Self {
        Self {
            taps: Vec::new(),
            commands,
            lost,
            roster,
            clock,
            turn: 0,
            drops_due: Timestamp::default(),
            filter: None,
            ends_at: None,
        }
    }

    fn obey(&mut self, first: Option<Command>, now: Timestamp) {
        for command in first.into_iter().chain(self.commands.try_iter()) {
            match command {
                Command::Attach(tap) => {
                    self.roster.attach(tap.interface, &tap.name, now);
                    self.taps.push(tap);
                }
                Command::Detach(serial) => {
                    let mine = self.taps.iter_mut().filter(|tap| tap.serial == serial);
                    mine.for_each(|tap| tap.closes_at = Some(later(now)));
                }
                Command::Select(filter) => self.filter = filter,
                Command::Stop => self.ends_at = Some(later(now)),
            }
        }
    }

    /// Waits until there is something to read, or for [`WAIT_MILLIS`]. Without a tap it waits for a command: a first tap
    /// fills its buffer from the moment on that it is opened.
    fn wait(&self) -> Option<Command> {
        let closes = self.ends_at.is_some() || self.taps.iter().any(|tap| tap.closes_at.is_some());
        let wait = if closes { RETIRE_MILLIS } else { WAIT_MILLIS };
        if self.taps.is_empty() {
            match self.commands.recv_timeout(Duration::from_millis(u64::from(wait.unsigned_abs()))) {
                // Nobody is left to command; the time passes all the same.
                Err(RecvTimeoutError::Disconnected) => {}
                answer => return answer.ok(),
            }
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait) * 1_000_000 };
        // Taps that are to be closed are read without waiting: what they wait for is an error.
        let lanes = self.taps.iter().filter(|tap| tap.closes_at.is_none()).flat_map(|tap| &tap.lanes);
        let mut waiting: Vec<_> = lanes.map(|lane| PollFd::new(&lane.capture, PollFlags::IN)).collect();
        // A signal that comes between is as good as a frame: the caller looks and comes back.
        poll(&mut waiting, Some(&timeout)).ok();
        None
    }

    fn read(&mut self, now: Timestamp, block: &mut Block) {
        let taps = self.taps.len().max(1);
        self.turn = (self.turn + 1) % taps;
        for at in 0..taps {
            let Some(tap) = self.taps.get_mut((self.turn + at) % taps) else { continue };
            let (before, mut outcome) = (block.frames.len(), Ok(()));
            for lane in &mut tap.lanes {
                if block.frames.len() >= FRAMES_MAX {
                    break;
                }
                outcome = outcome.and(lane.read(tap.interface, block));
            }
            tap.close_after(outcome, now, &self.lost);
            self.roster.count(tap.interface, (block.frames.len() - before) as u64, 0);
        }
    }

    /// Asks the kernel what it lost, now and then and before a tap is closed.
    fn note_drops(&mut self, now: Timestamp, block: &mut Block) {
        // A clock that was set back makes it due as well.
        let due = now >= self.drops_due || self.drops_due.0 > now.0 + DROPS_EVERY_NS;
        if due {
            self.drops_due = Timestamp(now.0 + DROPS_EVERY_NS);
        }
        let is_last = |tap: &Tap| tap.closes_at.or(self.ends_at).is_some();
        for tap in &mut self.taps {
            if !due && !is_last(tap) {
                continue;
            }
            let packets = tap.lanes.iter_mut().map(Lane::drops).sum();
            if packets > 0 {
                block.drops.push(CaptureDrop {
                    interface: tap.interface,
                    time: now,
                    packets,
                    loss: Loss::CaptureBuffer,
                });
                self.roster.count(tap.interface, 0, packets);
            }
        }
    }

    fn close_taps(&mut self, now: Timestamp) {
        let is_over = |tap: &Tap| tap.closes_at.is_some_and(|at| now >= at);
        for tap in self.taps.iter().filter(|tap| is_over(tap)) {
            self.roster.detach(tap.interface, now);
        }
        self.taps.retain(|tap| !is_over(tap));
    }
}

impl Source for LiveSource {
    fn fill(&mut self, block: &mut Block) -> Result<Fill, CaptureError> {
        block.clear();
        block.bytes.clear();
        let command = self.wait();
        let now = (self.clock)();
        self.obey(command, now);
        self.read(now, block);
        self.note_drops(now, block);
        let is_empty = block.frames.is_empty() && block.drops.is_empty();
        if block.frames.len() < FRAMES_MAX {
            self.close_taps(now);
        }
        if let Some(filter) = &mut self.filter {
            block.excluded = filter.apply(block);
        }
        if self.ends_at.is_some_and(|at| now.0 >= at.0 + DRAIN_SECS_MAX * NANOS_PER_SEC) {
            self.taps.clear();
        }
        Ok(match self.ends_at {
            _ if !is_empty => Fill::More,
            Some(at) if now >= at => Fill::End,
            Some(_) | None => Fill::Idle,
        })
    }
}

/// When a tap may be closed that is to be closed at `now`: the kernel keeps a buffer that is not full to itself for up to
/// [`RETIRE_MILLIS`].
fn later(now: Timestamp) -> Timestamp {
    Timestamp(now.0 + 2 * RETIRE_MILLIS as u64 * 1_000_000)
}

/// As much of a frame as is kept: link layer, tags, IP with extension headers, ports.
pub const SNAP_BYTES: i32 = 256;

/// How many frames make a block: as many as fill [`BLOCK_BYTES`].
const FRAMES_MAX: usize = BLOCK_BYTES / SNAP_BYTES as usize;

/// After this the kernel hands over a buffer that is not full.
const RETIRE_MILLIS: i32 = 100;

/// The longest that a source waits for a frame.
pub const WAIT_MILLIS: i32 = 250;

/// How long a source that is to end goes on reading what came before, while more comes.
pub const DRAIN_SECS_MAX: u64 = 3;

/// How often the kernel is asked for what it lost.
const DROPS_EVERY_NS: u64 = NANOS_PER_SEC;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_of_losses_may_wrap() {
        let mut seen = 0;
        assert_eq!(since(&mut seen, 7), 7);
        assert_eq!(since(&mut seen, 7), 0);
        assert_eq!(since(&mut seen, u32::MAX), u64::from(u32::MAX) - 7);
        assert_eq!(since(&mut seen, 4), 5, "4,294,967,295 to 0 is one, to 4 is four more");
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let refusal = Tap::open(0, 0, "no-such-if", &TapOptions { buffer_bytes: 1_000_000, fanout: NonZeroUsize::MIN })
            .err()
            .unwrap();
        assert!(matches!(refusal, TapError::Pcap(_)), "{refusal}");
    }
}
