//! THE loop: one block of frames through every stage. Read this first.
//!
//! A worker pulls a block and its plan from the [`Feed`], reads each frame, counts its packet in the table of its
//! window, and hands a window's table over when the window closes. It shares nothing while it counts: its tables and
//! counters are its own, and are added to the others' only in the [`crate::recorder`].
//!
//! A packet takes one of two ways. The common headers (Ethernet, IP without options or fragments, TCP or UDP) are read
//! at fixed offsets by [`packet::fast`] and counted in batches. Everything else, and every packet when the format asks
//! for details, goes through [`packet::parse`] and is counted one by one. What the kernel has counted by itself
//! ([`Counted`]) is added to the same tables.
//!
//! Bounds: a worker holds at most [`Limits::flows_max`] flows and fragmented datagrams, those on their way to the
//! recorder included; or those of one batch, where the limit is smaller than a batch needs. Before it would hold more it
//! waits for what is on the way, and if that does not help hands out its largest tables early.

use crossbeam_channel::{Receiver, SendError, Sender};

use crate::capture::{Block, Counted, Fill, Frame, LinkType};
use crate::feed::{Closing, Feed, Step};
use crate::flow::interval::Window;
use crate::flow::key::{FlowKey, Key4, Key6, Ports};
use crate::flow::table::{BATCH_PACKETS, Observation, Table};
use crate::flow::{FlowTable, FragmentRule};
use crate::ledger::{FrameCounts, Tally};
use crate::packet::{self, Refusal, fast};

/// What a worker hands to the recorder.
#[derive(Debug)]
pub enum Handover {
    /// Rows of a window that is still open, because the flow table is full.
    Early {
        /// Which window.
        window: Window,
        /// Its flows so far, sorted.
        share: Share,
    },
    /// A worker's share of a closed window.
    Closed {
        /// Which window, and its place in the order of closing.
        closing: Closing,
        /// Its flows, sorted; none if the worker saw none.
        share: Option<Share>,
        /// Interfaces that lost packets in this window.
        losses: Vec<u16>,
    },
    /// A worker has panicked: its shares will never come.
    Panicked,
}

/// One worker's table on its way to the recorder, and home again.
#[derive(Debug)]
pub struct Share {
    /// Whose table it is.
    pub worker: usize,
    /// How many flows it held when it left.
    pub flows: usize,
    /// The flows.
    pub table: FlowTable,
}

/// How a worker counts. A live run may change it between two intervals.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most flows this worker holds at once.
    pub flows_max: usize,
    /// How fragments without ports are counted.
    pub fragments: FragmentRule,
    /// Whether the format asks for what only [`packet::parse`] tells.
    pub keep_detail: bool,
    /// Seed of the tables' hash.
    pub seed: u64,
}

/// One thread's share of the work.
pub struct Worker<'a> {
    number: usize,
    feed: &'a dyn Feed,
    /// Those of the newest generation met.
    limits: Limits,
    recorder: Sender<Handover>,
    /// Tables come home through here.
    home: Receiver<Share>,
    /// How many tables are on their way, and how many flows are in them.
    tables_away: usize,
    flows_away: usize,
    spare: Vec<FlowTable>,
    open: Vec<OpenWindow>,
    counts: FrameCounts,
    batch4: Vec<Observation<Key4>>,
    batch6: Vec<Observation<Key6>>,
}

impl Drop for Worker<'_> {
    /// Without this the recorder would wait for shares that never come, and the other workers for the recorder.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.recorder.send(Handover::Panicked).ok();
        }
    }
}

struct OpenWindow {
    window: Window,
    limits: Limits,
    table: FlowTable,
    losses: Vec<u16>,
}

impl OpenWindow {
    /// Reads and counts a frame of any kind.
    fn observe_any(&mut self, frame: &Frame, captured: &[u8], refused: &mut Tally<Refusal>) {
        match packet::parse(frame.link_type, captured, frame.original_bytes) {
            Ok(packet) => self.table.observe(frame, &packet, self.limits.fragments, self.limits.keep_detail),
            Err(refusal) => {
                refused.count(refusal, 1);
                if refusal.is_loss() {
                    self.note_loss(frame.interface);
                }
            }
        }
    }

    fn note_loss(&mut self, interface: u16) {
        if !self.losses.contains(&interface) {
            self.losses.push(interface);
        }
    }
}

/// The recorder is gone: it has failed, and says why itself.
struct RecorderGone;

impl<T> From<SendError<T>> for RecorderGone {
    fn from(_: SendError<T>) -> Self {
        Self
    }
}

impl<'a> Worker<'a> {
    /// The worker of this number, counted from 0.
    pub fn new(number: usize, feed: &'a dyn Feed, recorder: Sender<Handover>, home: Receiver<Share>) -> Self {
        Self {
            number,
            feed,
            limits: feed.limits(0),
            recorder,
            home,
            tables_away: 0,
            flows_away: 0,
            spare: Vec::new(),
            open: Vec::new(),
            counts: FrameCounts::default(),
            batch4: Vec::with_capacity(BATCH_PACKETS),
            batch6: Vec::with_capacity(BATCH_PACKETS),
        }
    }

    /// Counts until the capture ends or the recorder gives up, and says what became of the frames.
    pub fn run(mut self) -> FrameCounts {
        // A recorder that is gone has an error of its own to report.
        self.count_all().ok();
        std::mem::take(&mut self.counts)
    }

    fn count_all(&mut self) -> Result<(), RecorderGone> {
        let mut block = Block::default();
        let mut plan = Vec::new();
        loop {
            let fill = self.feed.pull(self.number, &mut block, &mut plan);
            self.counts.offer(&block);
            let counting_ends =
                plan.iter().rposition(|step| !matches!(step, Step::Close(_))).map_or(0, |last| last + 1);
            let (counting, closing) = plan.split_at(counting_ends);
            counting.iter().try_for_each(|step| self.take(step, &block))?;
            // Before windows close at the end of a plan, as nearly all do: whoever is told of their rows finds their packets
            // counted.
            self.feed.report(self.number, &self.counts);
            closing.iter().try_for_each(|step| self.take(step, &block))?;
            if fill == Fill::End {
                return Ok(());
            }
        }
    }

    fn take(&mut self, step: &Step, block: &Block) -> Result<(), RecorderGone> {
        match step {
            Step::Observe { frames, window } => {
                let frames = block.frames.get(frames.clone()).unwrap_or_default();
                self.observe(block, frames, *window)
            }
            Step::Add { counted, window } => {
                let counted = block.counted.get(counted.clone()).unwrap_or_default();
                self.add(counted, *window)
            }
            Step::Lost { interface, packets, loss, window } => {
                self.counts.lost.count(*loss, *packets);
                self.note_loss(*interface, *window)
            }
            Step::Close(closing) => self.close(*closing),
        }
    }

    /// Counts frames that all belong to one window.
    fn observe(&mut self, block: &Block, frames: &[Frame], window: Window) -> Result<(), RecorderGone> {
        for frames in frames.chunks(BATCH_PACKETS) {
            let at = self.window(window, frames.len() * FLOWS_PER_FRAME_MAX)?;
            let Some(open) = self.open.get_mut(at) else { continue };
            let (packets_before, bytes_before) = (open.table.packets, open.table.bytes);
            let keep_detail = open.limits.keep_detail;
            for frame in frames {
                let captured = block.data(frame);
                let plain = frame.link_type == LinkType::Ethernet && !keep_detail;
                if plain && let Some(packet) = fast::ethernet_ipv4(captured) {
                    self.batch4.push(observation4(&open.table, frame, &packet));
                } else if plain && let Some(packet) = fast::ethernet_ipv6(captured) {
                    self.batch6.push(observation6(&open.table, frame, &packet));
                } else {
                    open.observe_any(frame, captured, &mut self.counts.refused);
                }
            }
            open.table.observe4(&self.batch4);
            self.batch4.clear();
            open.table.observe6(&self.batch6);
            self.batch6.clear();
            let packets = open.table.packets - packets_before;
            self.counts.packets += packets;
            self.counts.bytes += open.table.bytes - bytes_before;
            self.counts.late += if window.late { packets } else { 0 };
            // After every batch: the next one may hand tables out.
            self.counts.flows_peak = self.counts.flows_peak.max(self.flows_held() as u64);
        }
        Ok(())
    }

    /// Adds counts of the kernel that all belong to one window.
    fn add(&mut self, counted: &[Counted], window: Window) -> Result<(), RecorderGone> {
        for counted in counted.chunks(BATCH_PACKETS) {
            let at = self.window(window, counted.len() * FLOWS_PER_COUNT_MAX)?;
            let Some(open) = self.open.get_mut(at) else { continue };
            for counted in counted {
                let (moved, moved_bytes) = open.table.add(counted, open.limits.keep_detail);
                self.counts.moved += moved;
                self.counts.moved_bytes += moved_bytes;
                if counted.rejection.is_some() {
                    self.counts.rejected += counted.packets;
                    self.counts.rejected_bytes += counted.bytes;
                } else {
                    self.counts.packets += counted.packets;
                    self.counts.bytes += counted.bytes;
                    self.counts.late += if window.late { counted.packets } else { 0 };
                }
            }
            self.counts.flows_peak = self.counts.flows_peak.max(self.flows_held() as u64);
        }
        Ok(())
    }

    fn note_loss(&mut self, interface: u16, window: Window) -> Result<(), RecorderGone> {
        let at = self.window(window, 0)?;
        if let Some(open) = self.open.get_mut(at) {
            open.note_loss(interface);
        }
        Ok(())
    }

    /// Where the window's table is, with room for `more` flows.
    fn window(&mut self, window: Window, more: usize) -> Result<usize, RecorderGone> {
        if self.flows_held() + self.flows_away + more > self.limits.flows_max {
            self.make_room(more)?;
        }
        if let Some(at) = self.open.iter().position(|open| open.window.serial == window.serial) {
            return Ok(at);
        }
        let table = self.empty_table()?;
        self.limits = self.feed.limits(window.generation);
        self.open.push(OpenWindow { window, limits: self.limits, table, losses: Vec::new() });
        Ok(self.open.len() - 1)
    }

    /// Waits for the tables on their way; while the flows held are still too many, hands out the largest table early.
    #[cold]
    fn make_room(&mut self, more: usize) -> Result<(), RecorderGone> {
        self.wait_for_all()?;
        while self.flows_held() > 0 && self.flows_held() + more > self.limits.flows_max {
            self.drain_largest()?;
        }
        Ok(())
    }

    /// Hands the largest table to the recorder before its window closes, and goes on with the same memory: the bound is
    /// one of memory, so a second table must not grow beside it.
    fn drain_largest(&mut self) -> Result<(), RecorderGone> {
        let placeholder = FlowTable::new(self.limits.seed);
        let Some(open) = self.open.iter_mut().max_by_key(|open| open.table.len()) else { return Ok(()) };
        let table = std::mem::replace(&mut open.table, placeholder);
        let window = open.window;
        self.counts.early_drains += 1;
        let share = self.send_off(table);
        self.recorder.send(Handover::Early { window, share })?;
        self.wait_for_all()?;
        let emptied = self.spare.pop();
        if let (Some(open), Some(emptied)) = (self.open.iter_mut().find(|open| open.window == window), emptied) {
            open.table = emptied;
        }
        Ok(())
    }

    fn close(&mut self, closing: Closing) -> Result<(), RecorderGone> {
        let at = self.open.iter().position(|open| open.window.serial == closing.window.serial);
        let (share, losses) = match at.map(|at| self.open.swap_remove(at)) {
            Some(open) => (Some(self.send_off(open.table)), open.losses),
            None => (None, Vec::new()),
        };
        Ok(self.recorder.send(Handover::Closed { closing, share, losses })?)
    }

    fn flows_held(&self) -> usize {
        self.open.iter().map(|open| open.table.len()).sum()
    }

    /// Sorts a table for the recorder.
    fn send_off(&mut self, mut table: FlowTable) -> Share {
        let flows = table.len();
        table.sort();
        self.tables_away += 1;
        self.flows_away += flows;
        Share { worker: self.number, flows, table }
    }

    /// An empty table: a spare one, or a new one while few are on their way.
    fn empty_table(&mut self) -> Result<FlowTable, RecorderGone> {
        while let Ok(share) = self.home.try_recv() {
            self.take_home(share);
        }
        if self.spare.is_empty() && self.tables_away >= TABLES_AWAY_MAX {
            self.wait_for_one()?;
        }
        Ok(self.spare.pop().unwrap_or_else(|| FlowTable::new(self.limits.seed)))
    }

    fn wait_for_all(&mut self) -> Result<(), RecorderGone> {
        while self.tables_away > 0 {
            self.wait_for_one()?;
        }
        Ok(())
    }

    fn wait_for_one(&mut self) -> Result<(), RecorderGone> {
        let share = self.home.recv().map_err(|_| RecorderGone)?;
        self.take_home(share);
        Ok(())
    }

    fn take_home(&mut self, mut share: Share) {
        self.tables_away -= 1;
        self.flows_away -= share.flows;
        share.table.clear();
        self.spare.push(share.table);
    }
}

/// A first fragment takes the most room: a flow, and its datagram.
const FLOWS_PER_FRAME_MAX: usize = 2;

/// What the kernel counted is of one flow.
const FLOWS_PER_COUNT_MAX: usize = 1;

/// How many tables of one worker may be on their way to the recorder before the worker waits.
pub const TABLES_AWAY_MAX: usize = 2;

fn observation4(table: &FlowTable, frame: &Frame, packet: &fast::FastPacket<u32>) -> Observation<Key4> {
    let ports = Ports { src: packet.src_port, dst: packet.dst_port, protocol: packet.protocol };
    let key = Key4::new(frame.interface, frame.direction, packet.src, packet.dst, ports);
    observation(&table.v4, key, frame, packet.ip_bytes, packet.tcp_flags)
}

fn observation6(table: &FlowTable, frame: &Frame, packet: &fast::FastPacket<u128>) -> Observation<Key6> {
    let ports = Ports { src: packet.src_port, dst: packet.dst_port, protocol: packet.protocol };
    let key = Key6::new(frame.interface, frame.direction, packet.src, packet.dst, ports);
    observation(&table.v6, key, frame, packet.ip_bytes, packet.tcp_flags)
}

fn observation<K: FlowKey>(table: &Table<K>, key: K, frame: &Frame, ip_bytes: u32, tcp_flags: u8) -> Observation<K> {
    Observation { key, hash: table.announce(key), time_ns: frame.time.0, ip_bytes, tcp_flags }
}
