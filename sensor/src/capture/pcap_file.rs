//! The pcap file format, in all its dialects.
//!
//! Authority: draft-ietf-opsawg-pcap; for files older than 2.4 and for Alexey Kuznetzov's modified records, libpcap's
//! `sf-pcap.c`. This is the fast path of a replay: one walk over the record headers, no copy, and byte order and
//! record layout are settled before the loop.

use super::order::ByteOrder;
use super::stream::{Stop, Walk, Walked};
use super::{CaptureDrop, Damage, Direction, FRAME_BYTES_MAX, Frame, LinkType, Part};
use crate::time::{NANOS_PER_SEC, Timestamp};

/// The length of the file header.
pub(super) const FILE_HEADER_BYTES: usize = 24;

/// The length of a record header; those of modified files are 8 bytes longer.
pub(super) const RECORD_HEADER_BYTES: usize = 16;

/// A pcap file whose header is read.
pub(super) struct PcapFile {
    dialect: Dialect,
    lengths: Lengths,
    link_type: LinkType,
    interface: u16,
}

/// What the magic number tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    order: ByteOrder,
    /// Each record header also holds interface index, protocol and packet type.
    modified: bool,
    /// What one unit of a time stamp's second word is: 1000 or 1.
    fraction_nanos: u64,
}

impl Dialect {
    /// The dialect of a file that starts with `magic`; `None` if that isn't pcap.
    pub(super) fn of(magic: [u8; 4]) -> Option<Self> {
        [ByteOrder::Little, ByteOrder::Big].into_iter().find_map(|order| match order.u32(magic) {
            0xa1b2_c3d4 => Some(Self { order, modified: false, fraction_nanos: 1000 }),
            0xa1b2_3c4d => Some(Self { order, modified: false, fraction_nanos: 1 }),
            0xa1b2_cd34 => Some(Self { order, modified: true, fraction_nanos: 1000 }),
            _ => None,
        })
    }
}

/// Which of a record's two lengths comes first, a matter in which old writers disagreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lengths {
    /// Version 2.4.
    CapturedFirst,
    /// Before 2.3.
    OriginalFirst,
    /// 2.3, written both ways: the smaller is the captured one.
    SmallerCaptured,
}

impl PcapFile {
    /// The file of `dialect` whose header is `header`, its frames being those of `interface`.
    ///
    /// # Errors
    /// [`Damage::Version`] for a version other than 2.
    pub(super) fn new(dialect: Dialect, header: &[u8; FILE_HEADER_BYTES], interface: u16) -> Result<Self, Damage> {
        let [_magic, [v0, v1, v2, v3], _zone, _accuracy, _snap_length, link_type]: [[u8; 4]; 6] =
            bytemuck::cast(*header);
        let order = dialect.order;
        let (major, minor) = (order.u16([v0, v1]), order.u16([v2, v3]));
        let lengths = match (major, minor) {
            (2, ..3) => Lengths::OriginalFirst,
            (2, 3) => Lengths::SmallerCaptured,
            (2, _) => Lengths::CapturedFirst,
            _ => return Err(Damage::Version { major, minor }),
        };
        // The upper half tells of a frame check sequence, which counts for nothing here.
        let link_type = LinkType::from_number((order.u32(link_type) & 0xffff) as u16);
        Ok(Self { dialect, lengths, link_type, interface })
    }

    /// The loop over the records. The constants make it one loop for each layout, without a branch on it inside.
    fn walk_as<const BIG: bool, const MODIFIED: bool>(&self, bytes: &[u8], frames: &mut Vec<Frame>) -> Walked {
        let order = if BIG { ByteOrder::Big } else { ByteOrder::Little };
        let mut rest = bytes;
        loop {
            let stopped = |stop| Walked { consumed_bytes: bytes.len() - rest.len(), stop };
            let header_bytes = RECORD_HEADER_BYTES + if MODIFIED { 8 } else { 0 };
            let incomplete = Stop::Incomplete { part: Part::RecordHeader, needed_bytes: header_bytes };
            let Some((header, mut body)) = rest.split_first_chunk::<RECORD_HEADER_BYTES>() else {
                return stopped(incomplete);
            };
            let mut direction = Direction::Unknown;
            if MODIFIED {
                let Some((extra, after)) = body.split_first_chunk::<8>() else { return stopped(incomplete) };
                body = after;
                let [_, _, _, _, _, _, packet_type, _] = *extra;
                direction = if packet_type == PACKET_OUTGOING { Direction::Egress } else { Direction::Ingress };
            }
            let [secs, fraction, first, second]: [[u8; 4]; 4] = bytemuck::cast(*header);
            let (first, second) = (order.u32(first), order.u32(second));
            let (captured_bytes, original_bytes) = match self.lengths {
                Lengths::CapturedFirst => (first, second),
                Lengths::OriginalFirst => (second, first),
                Lengths::SmallerCaptured => (first.min(second), first.max(second)),
            };
            if captured_bytes as usize > FRAME_BYTES_MAX {
                return stopped(Stop::Damaged(Damage::FrameLength { captured_bytes }));
            }
            let Some((_, next)) = body.split_at_checked(captured_bytes as usize) else {
                let needed_bytes = header_bytes + captured_bytes as usize;
                return stopped(Stop::Incomplete { part: Part::Record, needed_bytes });
            };
            // Seconds are unsigned, and a fraction of a second or more carries: neither can overflow 64 bits.
            let nanos = u64::from(order.u32(secs)) * NANOS_PER_SEC
                + u64::from(order.u32(fraction)) * self.dialect.fraction_nanos;
            frames.push(Frame {
                time: Timestamp(nanos),
                // A block is a few MiB at most, so its offsets fit.
                offset: (bytes.len() - body.len()) as u32,
                captured_bytes,
                original_bytes,
                interface: self.interface,
                link_type: self.link_type,
                direction,
            });
            rest = next;
        }
    }
}

impl Walk for PcapFile {
    fn walk(&mut self, bytes: &[u8], frames: &mut Vec<Frame>, _drops: &mut Vec<CaptureDrop>) -> Walked {
        match (self.dialect.order, self.dialect.modified) {
            (ByteOrder::Little, false) => self.walk_as::<false, false>(bytes, frames),
            (ByteOrder::Little, true) => self.walk_as::<false, true>(bytes, frames),
            (ByteOrder::Big, false) => self.walk_as::<true, false>(bytes, frames),
            (ByteOrder::Big, true) => self.walk_as::<true, true>(bytes, frames),
        }
    }
}

/// `PACKET_OUTGOING` of Linux's `if_packet.h`.
const PACKET_OUTGOING: u8 = 4;
