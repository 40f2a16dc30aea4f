//! The three captures of the replay benchmark: the same bytes on every machine, written once.
//!
//! Classic pcap in microseconds (draft-ietf-opsawg-pcap), Ethernet, IPv4 (RFC 791), TCP (RFC 9293) and UDP (RFC 768)
//! with right checksums. Packets are spread evenly over whole minutes, so that the number of rows is known too.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a capture is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A thousand flows with mixed sizes: everything stays in the cache.
    Few,
    /// A million flows by Zipf's law, each visited once in ten packets: nearly every packet misses the cache.
    Many,
    /// Nothing but distinct SYNs: every packet is a new flow.
    Syn,
}

impl Kind {
    /// Every capture, in the order of the report.
    pub(crate) const ALL: [Self; 3] = [Self::Few, Self::Many, Self::Syn];

    /// The short name, also in the file's.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Few => "few",
            Self::Many => "many",
            Self::Syn => "syn",
        }
    }

    fn duration_secs(self) -> u64 {
        match self {
            Self::Few | Self::Many => 120,
            Self::Syn => 60,
        }
    }
}

/// What a capture holds: as planned, or as a floor saw it. A number that a floor does not look for stays zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Packets, each of them a frame of its own.
    pub(crate) packets: u64,
    /// Sum of the IP total lengths.
    pub(crate) ip_bytes: u64,
    /// Flows of the first minute plus flows of the second, and so on.
    pub(crate) rows: u64,
    /// Length of the file.
    pub(crate) file_bytes: u64,
}

/// Where the capture of this kind and size lies in `directory`.
pub(crate) fn path(directory: &Path, kind: Kind, packets: u64) -> PathBuf {
    directory.join(format!("{}-{packets}.pcap", kind.name()))
}

/// Makes sure that `path` holds the capture and tells what is in it. A file of the right length is left as it is.
///
/// # Errors
///
/// When the file can't be written.
pub(crate) fn prepare(kind: Kind, packets: u64, path: &Path) -> io::Result<Totals> {
    let totals = count(kind, packets);
    let is_there = fs::metadata(path).is_ok_and(|found| found.len() == totals.file_bytes);
    if !is_there {
        let unfinished = path.with_extension("part");
        write(kind, packets, &unfinished)?;
        fs::rename(&unfinished, path)?;
    }
    Ok(totals)
}

/// Plans the whole capture without writing it.
fn count(kind: Kind, packets: u64) -> Totals {
    let mut totals = Totals { file_bytes: FILE_HEADER_BYTES, ..Totals::default() };
    let mut minute = 0;
    let mut seen = vec![false; usize::try_from(flow_count(kind, packets)).unwrap_or(usize::MAX)];
    for planned in Plan::new(kind, packets) {
        let minute_now = planned.offset_micros / 60_000_000;
        if minute_now != minute {
            minute = minute_now;
            seen.fill(false);
        }
        totals.packets += 1;
        totals.ip_bytes += u64::from(planned.ip_bytes());
        totals.rows += u64::from(!std::mem::replace(&mut seen[planned.flow], true));
        totals.file_bytes += RECORD_HEADER_BYTES + u64::from(planned.captured_bytes());
    }
    totals
}

fn write(kind: Kind, packets: u64, path: &Path) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(WRITE_BUFFER_BYTES, File::create(path)?);
    write_file_header(&mut file)?;
    let mut frame = Vec::with_capacity(SNAP_LENGTH as usize);
    for (number, planned) in (0_u32..).zip(Plan::new(kind, packets)) {
        build_frame(&planned, number, &mut frame);
        write_record_header(&mut file, &planned)?;
        file.write_all(&frame)?;
    }
    file.into_inner()?.sync_all()
}

fn write_file_header(file: &mut impl Write) -> io::Result<()> {
    const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
    const VERSION_2_4: u32 = 0x0004_0002;
    const LINKTYPE_ETHERNET: u32 = 1;
    for field in [MAGIC_MICROSECONDS, VERSION_2_4, 0, 0, SNAP_LENGTH, LINKTYPE_ETHERNET] {
        file.write_all(&field.to_le_bytes())?;
    }
    Ok(())
}

fn write_record_header(file: &mut impl Write, planned: &Planned) -> io::Result<()> {
    let secs = START_SECS + planned.offset_micros / 1_000_000;
    let secs = u32::try_from(secs).expect("the captures lie in 2025, long before 32 bits of seconds end");
    let micros = u32::try_from(planned.offset_micros % 1_000_000).expect("a remainder below a million");
    for field in [secs, micros, planned.captured_bytes(), u32::from(planned.frame_bytes)] {
        file.write_all(&field.to_le_bytes())?;
    }
    Ok(())
}

/// One frame of the plan: all that is random about it.
struct Planned {
    flow: usize,
    tuple: Tuple,
    tcp_flags: u8,
    frame_bytes: u16,
    /// Since the start of the capture.
    offset_micros: u64,
}

impl Planned {
    fn ip_bytes(&self) -> u16 {
        self.frame_bytes - ETHERNET_BYTES
    }

    fn captured_bytes(&self) -> u32 {
        u32::from(self.frame_bytes).min(SNAP_LENGTH)
    }
}

/// The frames of one capture, in order.
struct Plan {
    kind: Kind,
    packets: u64,
    flows: u64,
    next: u64,
    random: SplitMix64,
    /// Share of the packets that the flows up to this rank have; empty but for `many`.
    zipf: Vec<f64>,
    /// Whether the flow has had its first packet; empty for `syn`.
    begun: Vec<bool>,
}

impl Plan {
    fn new(kind: Kind, packets: u64) -> Self {
        let flows = flow_count(kind, packets);
        let (zipf, begun) = match kind {
            Kind::Few => (Vec::new(), vec![false; flows as usize]),
            Kind::Many => (zipf_shares(flows), vec![false; flows as usize]),
            Kind::Syn => (Vec::new(), Vec::new()),
        };
        Self { kind, packets, flows, next: 0, random: SplitMix64(SEED), zipf, begun }
    }

    fn syn(&self, number: u64) -> (usize, Tuple, u8, u16) {
        let tuple = Tuple {
            src: 0x2000_0000 | (number as u32 & 0x00ff_ffff),
            dst: 0xac10_0005,
            src_port: 1024 + (mix(number ^ 0x00ab_cdef) % 64_000) as u16,
            dst_port: 80,
            protocol: TCP,
        };
        (number as usize, tuple, SYN, SMALL_FRAME_BYTES)
    }

    fn conversation(&mut self, number: u64) -> (usize, Tuple, u8, u16) {
        let flow = match self.kind {
            Kind::Many if number.is_multiple_of(VISIT_EVERY) => self.scatter(number / VISIT_EVERY),
            Kind::Many => {
                let share = self.random.next_fraction();
                let rank = self.zipf.partition_point(|&upto| upto < share).min(self.zipf.len() - 1);
                self.scatter(rank as u64)
            }
            Kind::Few | Kind::Syn => self.random.next() % self.flows,
        };
        let index = flow as usize;
        let tuple = Tuple::of_flow(flow);
        let size = self.random.next() % 12;
        let is_first = !std::mem::replace(&mut self.begun[index], true);
        let frame_bytes = match size {
            _ if is_first && tuple.protocol == TCP => SMALL_FRAME_BYTES,
            0..7 => SMALL_FRAME_BYTES,
            7..11 => 590,
            _ => 1514,
        };
        let tcp_flags = match (is_first, flow & 1) {
            (true, 0) => SYN,
            (true, _) => SYN | ACK,
            (false, _) if frame_bytes > SMALL_FRAME_BYTES => PSH | ACK,
            (false, _) => ACK,
        };
        (index, tuple, tcp_flags, frame_bytes)
    }

    /// Spreads ranks over the flow numbers: a popular flow is not near another popular one.
    fn scatter(&self, rank: u64) -> u64 {
        const PRIME: u64 = 611_953;
        rank.wrapping_mul(PRIME) % self.flows
    }
}

impl Iterator for Plan {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        let number = self.next;
        if number == self.packets {
            return None;
        }
        self.next += 1;
        let (flow, tuple, tcp_flags, frame_bytes) = match self.kind {
            Kind::Few | Kind::Many => self.conversation(number),
            Kind::Syn => self.syn(number),
        };
        let offset_micros = number * self.kind.duration_secs() * 1_000_000 / self.packets;
        Some(Planned { flow, tuple, tcp_flags, frame_bytes, offset_micros })
    }
}

fn flow_count(kind: Kind, packets: u64) -> u64 {
    match kind {
        Kind::Few => 1_000,
        Kind::Many => 1_000_000,
        Kind::Syn => packets,
    }
}

/// Cumulated shares of Zipf's law with exponent one.
fn zipf_shares(flows: u64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut shares: Vec<f64> = (1..=flows)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    for share in &mut shares {
        *share /= sum;
    }
    shares
}

/// The five-tuple, in host order.
#[derive(Clone, Copy)]
struct Tuple {
    src: u32,
    dst: u32,
    src_port: u16,
    dst_port: u16,
    protocol: u8,
}

impl Tuple {
    /// Flows 2i and 2i+1 are the two directions of one connection; three of four are TCP.
    fn of_flow(flow: u64) -> Self {
        const SALT: u64 = 7;
        const SERVICES: [u16; 10] = [443, 80, 53, 22, 3306, 5432, 6379, 8080, 9092, 123];
        let ends = mix((flow >> 1) ^ SALT);
        let rest = mix(ends);
        let client = 0x0a00_0000 | (ends as u32 & 0x00ff_ffff);
        let server = 0xac10_0000 | ((ends >> 24) as u32 & 0x000f_ffff);
        let client_port = 1024 + ((rest >> 16) % 60_000) as u16;
        let server_port = SERVICES[((rest >> 40) % 10) as usize];
        let protocol = if rest >> 60 < 12 { TCP } else { UDP };
        if flow & 1 == 0 {
            Self { src: client, dst: server, src_port: client_port, dst_port: server_port, protocol }
        } else {
            Self { src: server, dst: client, src_port: server_port, dst_port: client_port, protocol }
        }
    }
}

/// Fills `frame` with what the capture keeps. `number` serves as IP identification and TCP sequence number.
fn build_frame(planned: &Planned, number: u32, frame: &mut Vec<u8>) {
    frame.clear();
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00]);
    let tuple = &planned.tuple;
    frame.extend_from_slice(&ipv4_header(tuple, planned.ip_bytes(), number as u16));
    let payload_bytes = planned.ip_bytes() - IPV4_BYTES;
    if tuple.protocol == TCP {
        frame.extend_from_slice(&tcp_header(tuple, payload_bytes, planned.tcp_flags, number));
    } else {
        frame.extend_from_slice(&udp_header(tuple, payload_bytes));
    }
    frame.resize(planned.captured_bytes() as usize, 0);
}

fn ipv4_header(tuple: &Tuple, total_bytes: u16, identification: u16) -> [u8; 20] {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&total_bytes.to_be_bytes());
    header[4..6].copy_from_slice(&identification.to_be_bytes());
    header[6] = 0x40; // don't fragment
    header[8] = 64;
    header[9] = tuple.protocol;
    header[12..16].copy_from_slice(&tuple.src.to_be_bytes());
    header[16..20].copy_from_slice(&tuple.dst.to_be_bytes());
    let checksum = internet_checksum(&header, 0);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

fn tcp_header(tuple: &Tuple, segment_bytes: u16, flags: u8, sequence: u32) -> [u8; 20] {
    let mut header = [0; 20];
    header[0..2].copy_from_slice(&tuple.src_port.to_be_bytes());
    header[2..4].copy_from_slice(&tuple.dst_port.to_be_bytes());
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    if flags & ACK != 0 {
        header[8..12].copy_from_slice(&(sequence ^ 0x5555).to_be_bytes());
    }
    header[12] = 0x50;
    header[13] = flags;
    header[14] = 0x20;
    let checksum = internet_checksum(&header, pseudo_header_sum(tuple, segment_bytes));
    header[16..18].copy_from_slice(&checksum.to_be_bytes());
    header
}

fn udp_header(tuple: &Tuple, datagram_bytes: u16) -> [u8; 8] {
    let mut header = [0; 8];
    header[0..2].copy_from_slice(&tuple.src_port.to_be_bytes());
    header[2..4].copy_from_slice(&tuple.dst_port.to_be_bytes());
    header[4..6].copy_from_slice(&datagram_bytes.to_be_bytes());
    let checksum = match internet_checksum(&header, pseudo_header_sum(tuple, datagram_bytes)) {
        0 => 0xffff,
        sum => sum,
    };
    header[6..8].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// The addresses, the protocol and the length, as RFC 9293 section 3.1 adds them. Payloads are zero and add nothing.
fn pseudo_header_sum(tuple: &Tuple, length_bytes: u16) -> u32 {
    let addresses = [tuple.src >> 16, tuple.src & 0xffff, tuple.dst >> 16, tuple.dst & 0xffff];
    addresses.iter().sum::<u32>() + u32::from(tuple.protocol) + u32::from(length_bytes)
}

/// RFC 1071, over an even number of bytes.
fn internet_checksum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.as_chunks::<2>().0;
    let mut sum = words.iter().fold(start, |sum, &word| sum + u32::from(u16::from_be_bytes(word)));
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Sebastiano Vigna's SplitMix64.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// From zero up to, not including, one.
    fn next_fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A number's random but fixed companion.
fn mix(number: u64) -> u64 {
    SplitMix64(number.wrapping_mul(0xd134_2543_de82_ef95)).next()
}

const SEED: u64 = 42;
/// A whole minute: 2025-06-15 15:07:00 UTC.
const START_SECS: u64 = 1_750_000_020;
const SNAP_LENGTH: u32 = 96;
/// `many` visits one flow after the other with one of so many packets.
const VISIT_EVERY: u64 = 10;
const FILE_HEADER_BYTES: u64 = 24;
const RECORD_HEADER_BYTES: u64 = 16;
const ETHERNET_BYTES: u16 = 14;
const IPV4_BYTES: u16 = 20;
const SMALL_FRAME_BYTES: u16 = 60;
const WRITE_BUFFER_BYTES: usize = 1 << 20;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
