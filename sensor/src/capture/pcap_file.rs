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

#[cfg(test)]
mod tests {
    use super::super::testing::{PCAP, read};
    use super::super::{BLOCK_BYTES, CaptureError};
    use super::*;

    /// A file header: `magic` and `version` as they lie in the file, then time zone and accuracy 0, snap length 65535
    /// and Ethernet in the byte order of `big`.
    fn file(magic: [u8; 4], version: [u8; 4], big: bool) -> Vec<u8> {
        let last: &[u8] = if big { b"\0\0\xff\xff\0\0\0\x01" } else { b"\xff\xff\0\0\x01\0\0\0" };
        [&magic[..], &version, &[0; 8], last].concat()
    }

    const VERSION_2_4: [u8; 4] = [2, 0, 4, 0];

    #[test]
    fn little_endian_microseconds() {
        let drained = read(PCAP).unwrap();
        let frame = Frame {
            time: Timestamp(1_000_002_000),
            offset: 16,
            captured_bytes: 3,
            original_bytes: 3,
            interface: 0,
            link_type: LinkType::Ethernet,
            direction: Direction::Unknown,
        };
        let second =
            Frame { time: Timestamp(4_000_005_000), offset: 35, captured_bytes: 5, original_bytes: 9, ..frame };
        assert_eq!(drained.frames, [(frame, b"abc".to_vec()), (second, b"defgh".to_vec())]);
        assert_eq!(drained.damage(), None);
    }

    #[test]
    fn big_endian_microseconds() {
        let mut bytes = file([0xa1, 0xb2, 0xc3, 0xd4], [0, 2, 0, 4], true);
        bytes.extend(b"\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x07abc");
        let drained = read(&bytes).unwrap();
        assert_eq!(drained.times_ns(), [1_000_002_000]);
        assert_eq!(drained.payloads(), [b"abc"]);
        assert_eq!(drained.frames[0].0.original_bytes, 7);
        assert_eq!(drained.frames[0].0.link_type, LinkType::Ethernet);
    }

    #[test]
    fn nanoseconds_in_both_orders() {
        let mut bytes = file([0x4d, 0x3c, 0xb2, 0xa1], VERSION_2_4, false);
        bytes.extend(b"\x01\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\0\0a");
        assert_eq!(read(&bytes).unwrap().times_ns(), [1_000_000_002]);
        let mut bytes = file([0xa1, 0xb2, 0x3c, 0x4d], [0, 2, 0, 4], true);
        bytes.extend(b"\0\0\0\x01\0\0\0\x02\0\0\0\x01\0\0\0\x01a");
        assert_eq!(read(&bytes).unwrap().times_ns(), [1_000_000_002]);
    }

    #[test]
    fn modified_records_tell_their_direction() {
        let mut bytes = file([0x34, 0xcd, 0xb2, 0xa1], VERSION_2_4, false);
        bytes.extend(b"\x01\0\0\0\x02\0\0\0\x03\0\0\0\x03\0\0\0\x02\0\0\0\x08\0\x04\0abc");
        bytes.extend(b"\x01\0\0\0\x02\0\0\0\x02\0\0\0\x02\0\0\0\x02\0\0\0\x08\0\0\0de");
        let drained = read(&bytes).unwrap();
        assert_eq!(drained.payloads(), [&b"abc"[..], b"de"]);
        let directions: Vec<Direction> = drained.frames.iter().map(|(frame, _)| frame.direction).collect();
        assert_eq!(directions, [Direction::Egress, Direction::Ingress]);

        let mut bytes = file([0xa1, 0xb2, 0xcd, 0x34], [0, 2, 0, 4], true);
        bytes.extend(b"\0\0\0\x01\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\0\0\x02\0\x08\x04\0a");
        assert_eq!(read(&bytes).unwrap().frames[0].0.direction, Direction::Egress);

        let cut = read(&bytes[..bytes.len() - 3]).unwrap();
        let damage = Damage::Cut { part: Part::RecordHeader, needed_bytes: 24, left_bytes: 22 };
        assert_eq!(cut.damage(), Some((24, damage)));
    }

    #[test]
    fn old_versions_put_the_original_length_first() {
        let record = b"\x01\0\0\0\x02\0\0\0\x09\0\0\0\x03\0\0\0abc";
        for version in [[2, 0, 2, 0], [2, 0, 3, 0]] {
            let mut bytes = file([0xd4, 0xc3, 0xb2, 0xa1], version, false);
            bytes.extend(record);
            let (frame, data) = read(&bytes).unwrap().frames.remove(0);
            assert_eq!((frame.captured_bytes, frame.original_bytes, &*data), (3, 9, &b"abc"[..]));
        }
        let mut bytes = file([0xd4, 0xc3, 0xb2, 0xa1], [2, 0, 3, 0], false);
        bytes.extend(b"\x01\0\0\0\x02\0\0\0\x03\0\0\0\x09\0\0\0abc");
        assert_eq!(read(&bytes).unwrap().frames[0].0.original_bytes, 9);
    }

    #[test]
    fn other_versions_are_refused() {
        let error = read(&file([0xd4, 0xc3, 0xb2, 0xa1], [3, 0, 0, 0], false)).unwrap_err();
        assert!(matches!(error, CaptureError::Damaged { damage: Damage::Version { major: 3, minor: 0 }, .. }));
        assert_eq!(error.to_string(), "test.pcap: damaged at offset 0: version 3.0 is not supported");
    }

    #[test]
    fn time_is_unsigned_and_fractions_carry() {
        let mut bytes = file([0xd4, 0xc3, 0xb2, 0xa1], VERSION_2_4, false);
        bytes.extend(b"\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0");
        // 4 294 967 295 s and as many microseconds.
        assert_eq!(read(&bytes).unwrap().times_ns(), [4_294_967_295_000_000_000 + 4_294_967_295_000]);
    }

    #[test]
    fn the_upper_half_of_the_link_type_is_not_part_of_it() {
        let mut bytes = PCAP.to_vec();
        bytes[20..24].copy_from_slice(&[0x71, 0, 0, 0x14]);
        assert_eq!(read(&bytes).unwrap().frames[0].0.link_type, LinkType::LinuxSll);
    }

    #[test]
    fn a_cut_anywhere_keeps_the_frames_before_it() {
        for length in FILE_HEADER_BYTES..PCAP.len() {
            let drained = read(&PCAP[..length]).unwrap();
            let (frames, border, body_bytes) = match length {
                24..43 => (0, 24, 3),
                _ => (1, 43, 5),
            };
            assert_eq!(drained.frames.len(), frames, "cut at {length}");
            let left_bytes = length - border;
            let cut = if left_bytes < 16 {
                Damage::Cut { part: Part::RecordHeader, needed_bytes: 16, left_bytes }
            } else {
                Damage::Cut { part: Part::Record, needed_bytes: 16 + body_bytes, left_bytes }
            };
            assert_eq!(drained.damage(), (left_bytes > 0).then_some((border as u64, cut)), "cut at {length}");
        }
    }

    #[test]
    fn a_cut_in_the_file_header_is_refused() {
        for length in 4..FILE_HEADER_BYTES {
            let error = read(&PCAP[..length]).unwrap_err();
            let needed_bytes = FILE_HEADER_BYTES;
            let cut = Damage::Cut { part: Part::FileHeader, needed_bytes, left_bytes: length };
            assert!(matches!(error, CaptureError::Damaged { offset: 0, damage, .. } if damage == cut), "{error}");
        }
    }

    #[test]
    fn a_length_that_lies_is_damage() {
        for (length, captured_bytes) in
            [(b"\xff\xff\xff\x7f", 0x7fff_ffff), (b"\xff\xff\xff\xff", 0xffff_ffff), (b"\x01\0\x10\0", 0x10_0001)]
        {
            let mut bytes = PCAP.to_vec();
            bytes[51..55].copy_from_slice(length);
            let drained = read(&bytes).unwrap();
            assert_eq!(drained.payloads(), [b"abc"]);
            assert_eq!(drained.damage(), Some((43, Damage::FrameLength { captured_bytes })));
        }
    }

    #[test]
    fn the_largest_frame_is_larger_than_a_block() {
        let mut bytes = PCAP.to_vec();
        bytes.extend(b"\x06\0\0\0\0\0\0\0\0\0\x10\0\0\0\x10\0");
        bytes.resize(bytes.len() + FRAME_BYTES_MAX, 0x5a);
        bytes.extend(&PCAP[24..]);
        let drained = read(&bytes).unwrap();
        let lengths: Vec<usize> = drained.frames.iter().map(|(_, data)| data.len()).collect();
        assert_eq!(lengths, [3, 5, FRAME_BYTES_MAX, 3, 5]);
        assert!(drained.frames[2].1.iter().all(|byte| *byte == 0x5a));
        assert_eq!(drained.payloads()[4], b"defgh");
    }

    #[test]
    fn records_cross_from_block_to_block() {
        let mut bytes = PCAP[..24].to_vec();
        let mut expected = Vec::new();
        for number in 0..3 * BLOCK_BYTES as u32 / 100 {
            let length = 40 + number % 61;
            bytes.extend(number.to_le_bytes());
            bytes.extend(0_u32.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(vec![number as u8; length as usize]);
            expected.push(vec![number as u8; length as usize]);
        }
        let drained = read(&bytes).unwrap();
        assert_eq!(drained.payloads(), expected);
        assert_eq!(drained.times_ns().last(), Some(&((expected.len() as u64 - 1) * NANOS_PER_SEC)));
    }
}
