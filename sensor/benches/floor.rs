//! The floors: what one thread needs at the least for each step of a replay.
//!
//! Each walker does only what its name says, for classic pcap in microseconds, Ethernet, IPv4 without fragments, TCP
//! and UDP. It is right about the benchmark's own captures and nothing else; the program is measured against it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::path::Path;

use bytemuck::Zeroable;
use clap::ValueEnum;
use flowtap::sys::prefetch;

use crate::captures::Totals;

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Walker {
    /// Reads the file in blocks and looks at nothing.
    Read,
    /// Goes from record header to record header.
    Walk,
    /// Parses each frame and counts it in a flow table, in batches with prefetch.
    Count,
    /// The same, and writes each interval's flows as v2 text.
    Text,
}

impl Walker {
    /// Every walker, the least first.
    pub(crate) const ALL: [Self; 4] = [Self::Read, Self::Walk, Self::Count, Self::Text];

    /// The short name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Walk => "walk",
            Self::Count => "count",
            Self::Text => "text",
        }
    }

    /// What this walker must see of a capture with these totals.
    pub(crate) fn expected(self, planned: &Totals) -> Totals {
        let Totals { packets, file_bytes, .. } = *planned;
        match self {
            Self::Read => Totals { file_bytes, ..Totals::default() },
            Self::Walk => Totals { file_bytes, packets, ..Totals::default() },
            Self::Count | Self::Text => *planned,
        }
    }
}

/// Sends one walker over `capture` and tells what it saw; only `text` writes to `output`.
///
/// # Errors
///
/// When the capture can't be read or the output not written.
pub(crate) fn run(walker: Walker, capture: &Path, output: &Path) -> io::Result<Totals> {
    let mut file = File::open(capture)?;
    match walker {
        Walker::Read => read(&mut file),
        Walker::Walk => walk(&mut file),
        Walker::Count => count(&mut file, |_| Ok(())),
        Walker::Text => {
            let mut text = TextRows::new(File::create(output)?);
            let seen = count(&mut file, |flow| text.push(flow))?;
            text.finish()?;
            Ok(seen)
        }
    }
}

fn read(file: &mut impl Read) -> io::Result<Totals> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut seen = Totals::default();
    loop {
        let length = file.read(&mut block)?;
        if length == 0 {
            return Ok(seen);
        }
        seen.file_bytes += length as u64;
    }
}

fn walk(file: &mut impl Read) -> io::Result<Totals> {
    let mut seen = Totals::default();
    seen.file_bytes = for_each_record(file, |header, _frame| {
        seen.packets += 1;
        // The length is looked at, so that reading it is not optimised away.
        seen.ip_bytes += u64::from(header.frame_bytes);
        Ok(())
    })?;
    seen.ip_bytes = 0;
    Ok(seen)
}

fn count(file: &mut impl Read, row: impl FnMut(&Flow) -> io::Result<()>) -> io::Result<Totals> {
    let mut counter = Counter::new(row);
    let mut batch = [Observation::zeroed(); BATCH_PACKETS];
    let mut batched = 0;
    let file_bytes = for_each_record(file, |header, frame| {
        let Some(observation) = Observation::parse(&header, frame) else { return Ok(()) };
        counter.table.prefetch(observation.hash);
        batch[batched] = observation;
        batched += 1;
        if batched == BATCH_PACKETS {
            batched = 0;
            return counter.observe(&batch);
        }
        Ok(())
    })?;
    counter.observe(&batch[..batched])?;
    counter.close_interval()?;
    Ok(Totals { file_bytes, ..counter.seen })
}

/// What stands before each frame of a classic pcap file.
struct RecordHeader {
    secs: u32,
    micros: u32,
    frame_bytes: u32,
}

/// Hands out each record of a little-endian capture, block by block, and returns the length of the file. A record that
/// a block cuts is moved to the front and completed by the next one.
fn for_each_record(
    file: &mut impl Read,
    mut visit: impl FnMut(RecordHeader, &[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut file_header = [0; FILE_HEADER_BYTES];
    file.read_exact(&mut file_header)?;
    let mut file_bytes = FILE_HEADER_BYTES as u64;
    let mut buffer = vec![0; BLOCK_BYTES + CARRY_BYTES_MAX];
    let mut carried = 0;
    loop {
        let length = file.read(&mut buffer[carried..carried + BLOCK_BYTES])?;
        if length == 0 {
            return Ok(file_bytes);
        }
        file_bytes += length as u64;
        let end = carried + length;
        let mut rest = &buffer[..end];
        while let Some((header, frame, after)) = split_record(rest) {
            visit(header, frame)?;
            rest = after;
        }
        carried = rest.len();
        if carried > CARRY_BYTES_MAX {
            return Err(io::Error::other("a record longer than any of the benchmark's"));
        }
        buffer.copy_within(end - carried..end, 0);
    }
}

#[inline]
fn split_record(bytes: &[u8]) -> Option<(RecordHeader, &[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<16>()?;
    let [secs, micros, captured_bytes, frame_bytes] = bytemuck::cast::<[u8; 16], [u32; 4]>(*header).map(u32::from_le);
    let (frame, after) = rest.split_at_checked(captured_bytes as usize)?;
    Some((RecordHeader { secs, micros, frame_bytes }, frame, after))
}

/// The two ends of a flow, their bytes as they came.
#[derive(Clone, Copy, PartialEq, Eq, Zeroable)]
struct Ends {
    src: u32,
    dst: u32,
    src_port: u16,
    dst_port: u16,
}

impl Ends {
    /// One wide multiplication of the addresses with the ports and the protocol, folded.
    #[inline]
    fn hash(self, protocol: u8) -> u64 {
        let addresses = (u64::from(self.src) << 32 | u64::from(self.dst)) ^ 0x9e37_79b9_7f4a_7c15;
        let ports = u64::from(self.src_port) << 16 | u64::from(self.dst_port);
        let service = (ports << 8 | u64::from(protocol)) ^ 0xd134_2543_de82_ef95;
        let product = u128::from(addresses) * u128::from(service);
        product as u64 ^ (product >> 64) as u64
    }
}

/// A packet on its way into the table.
#[derive(Clone, Copy, Zeroable)]
struct Observation {
    ends: Ends,
    protocol: u8,
    tcp_flags: u8,
    ip_bytes: u16,
    time_micros: u64,
    hash: u64,
}

impl Observation {
    #[inline]
    fn parse(header: &RecordHeader, frame: &[u8]) -> Option<Self> {
        let head = frame.first_chunk::<34>()?;
        if head[12] != 0x08 || head[13] != 0x00 || head[14] >> 4 != 4 {
            return None;
        }
        let protocol = head[23];
        let mut ends = Ends {
            src: u32::from_ne_bytes([head[26], head[27], head[28], head[29]]),
            dst: u32::from_ne_bytes([head[30], head[31], head[32], head[33]]),
            src_port: 0,
            dst_port: 0,
        };
        let mut tcp_flags = 0;
        let fragment_offset = u16::from_be_bytes([head[20], head[21]]) & 0x1fff;
        if fragment_offset == 0 && (protocol == TCP || protocol == UDP) {
            let payload = frame.get(14 + usize::from(head[14] & 0x0f) * 4..).unwrap_or_default();
            if let Some(ports) = payload.first_chunk::<4>() {
                ends.src_port = u16::from_ne_bytes([ports[0], ports[1]]);
                ends.dst_port = u16::from_ne_bytes([ports[2], ports[3]]);
            }
            if protocol == TCP {
                tcp_flags = payload.get(13).copied().unwrap_or_default();
            }
        }
        Some(Self {
            ends,
            protocol,
            tcp_flags,
            ip_bytes: u16::from_be_bytes([head[16], head[17]]),
            time_micros: u64::from(header.secs) * 1_000_000 + u64::from(header.micros),
            hash: ends.hash(protocol),
        })
    }
}

/// A slot of the table: 48 bytes, free while it has no packets.
#[derive(Clone, Copy, Zeroable)]
struct Flow {
    ends: Ends,
    protocol: u8,
    tcp_flags: u8,
    packets: u64,
    ip_bytes: u64,
    first_micros: u64,
    last_micros: u64,
}

const _: () = assert!(size_of::<Flow>() == 48, "the floor's table has slots of 48 bytes");

/// Open addressing with linear probing; doubles at three quarters.
struct Table {
    slots: Vec<Flow>,
    flows: usize,
}

impl Table {
    fn new() -> Self {
        Self { slots: bytemuck::zeroed_vec(SLOTS_AT_FIRST), flows: 0 }
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    #[inline]
    fn prefetch(&self, hash: u64) {
        prefetch::for_write(&self.slots, self.home(hash));
    }

    #[inline]
    fn observe(&mut self, packet: &Observation) {
        if self.flows * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut index = self.home(packet.hash);
        loop {
            let slot = &mut self.slots[index & mask];
            if slot.packets == 0 {
                self.flows += 1;
                *slot = Flow {
                    ends: packet.ends,
                    protocol: packet.protocol,
                    tcp_flags: packet.tcp_flags,
                    packets: 1,
                    ip_bytes: u64::from(packet.ip_bytes),
                    first_micros: packet.time_micros,
                    last_micros: packet.time_micros,
                };
                return;
            }
            if slot.ends == packet.ends && slot.protocol == packet.protocol {
                slot.tcp_flags |= packet.tcp_flags;
                slot.packets += 1;
                slot.ip_bytes += u64::from(packet.ip_bytes);
                slot.last_micros = packet.time_micros;
                return;
            }
            index += 1;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let doubled = bytemuck::zeroed_vec(self.slots.len() * 2);
        let smaller = std::mem::replace(&mut self.slots, doubled);
        let mask = self.slots.len() - 1;
        for flow in smaller.iter().filter(|flow| flow.packets != 0) {
            let mut index = self.home(flow.ends.hash(flow.protocol));
            while self.slots[index].packets != 0 {
                index = (index + 1) & mask;
            }
            self.slots[index] = *flow;
        }
    }
}

/// The table with the interval it stands in, and where its flows go.
struct Counter<Row> {
    table: Table,
    interval: u64,
    row: Row,
    seen: Totals,
}

impl<Row: FnMut(&Flow) -> io::Result<()>> Counter<Row> {
    fn new(row: Row) -> Self {
        Self { table: Table::new(), interval: 0, row, seen: Totals::default() }
    }

    fn observe(&mut self, batch: &[Observation]) -> io::Result<()> {
        for packet in batch {
            let interval = packet.time_micros / INTERVAL_MICROS;
            if interval != self.interval {
                self.close_interval()?;
                self.interval = interval;
            }
            self.table.observe(packet);
        }
        Ok(())
    }

    fn close_interval(&mut self) -> io::Result<()> {
        for flow in self.table.slots.iter().filter(|flow| flow.packets != 0) {
            self.seen.packets += flow.packets;
            self.seen.ip_bytes += flow.ip_bytes;
            (self.row)(flow)?;
        }
        self.seen.rows += self.table.flows as u64;
        self.table.slots.fill(Flow::zeroed());
        self.table.flows = 0;
        Ok(())
    }
}

/// Rows of the default format, `v2`, in blocks.
struct TextRows {
    output: File,
    block: Vec<u8>,
}

impl TextRows {
    fn new(output: File) -> Self {
        Self { output, block: Vec::with_capacity(BLOCK_BYTES + ROW_BYTES_MAX) }
    }

    fn push(&mut self, flow: &Flow) -> io::Result<()> {
        let Flow { ends, protocol, packets, ip_bytes, first_micros, last_micros, .. } = flow;
        self.block.extend_from_slice(b"2 123456789012 eni-0123456789abcdef0 ");
        self.push_address(ends.src);
        self.push_address(ends.dst);
        self.push_number(u64::from(u16::from_be(ends.src_port)));
        self.push_number(u64::from(u16::from_be(ends.dst_port)));
        self.push_number(u64::from(*protocol));
        self.push_number(*packets);
        self.push_number(*ip_bytes);
        self.push_number(first_micros / 1_000_000);
        self.push_number(last_micros / 1_000_000);
        self.block.extend_from_slice(b"ACCEPT OK\n");
        if self.block.len() >= BLOCK_BYTES {
            self.output.write_all(&self.block)?;
            self.block.clear();
        }
        Ok(())
    }

    fn push_number(&mut self, number: u64) {
        self.block.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self.block.push(b' ');
    }

    fn push_address(&mut self, address: u32) {
        for (octet, separator) in Ipv4Addr::from(u32::from_be(address)).octets().into_iter().zip(*b"... ") {
            self.block.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            self.block.push(separator);
        }
    }

    fn finish(mut self) -> io::Result<()> {
        self.output.write_all(&self.block)
    }
}

/// One read.
const BLOCK_BYTES: usize = 256 * 1024;
/// A cut record: its header and a frame of the greatest snap length in use.
const CARRY_BYTES_MAX: usize = 64 * 1024 + 16;
const FILE_HEADER_BYTES: usize = 24;
/// Packets whose slots are asked for together.
const BATCH_PACKETS: usize = 32;
const SLOTS_AT_FIRST: usize = 1 << 16;
const INTERVAL_MICROS: u64 = 60_000_000;
/// Longer than any v2 row.
const ROW_BYTES_MAX: usize = 256;
const TCP: u8 = 6;
const UDP: u8 = 17;
