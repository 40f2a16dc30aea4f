//! The classic capture file: a header of 24 bytes, then records (draft-ietf-opsawg-pcap).

use crate::capture::Frame;
use crate::link::cooked::PacketType;
use crate::packet::length_u32;
use crate::time::{MICRO, SECOND};

/// How numbers and times are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Byte order of the machine that captured.
    pub endian: Endian,
    /// Unit of the fraction of a second.
    pub precision: Precision,
    /// Longest part of a frame that was kept, as the header says it; 0 stands for [`SNAP_BYTES`].
    pub snap_bytes: u32,
}

/// Byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Endian {
    /// Least significant byte first.
    #[default]
    Little,
    /// Most significant byte first.
    Big,
}

/// Unit of the fraction of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Millionths.
    #[default]
    Micros,
    /// Thousand millionths.
    Nanos,
}

/// The snap length that tcpdump writes.
pub const SNAP_BYTES: u32 = 262_144;
/// Length of the file header.
pub const HEADER_BYTES: usize = 24;
/// Length of a record header.
pub const RECORD_HEADER_BYTES: usize = 16;

/// A whole file.
pub fn write(style: Style, link_type: u16, frames: &[Frame]) -> Vec<u8> {
    let magic = match style.precision {
        Precision::Micros => 0xa1b2_c3d4,
        Precision::Nanos => 0xa1b2_3c4d,
    };
    let mut file = header(style, magic, link_type);
    for frame in frames {
        push_record_header(&mut file, style, frame);
        file.extend_from_slice(&frame.bytes);
    }
    file
}

/// A whole file in Alexey Kuznetzov's modified format, whose records name the interface, the protocol and the packet
/// type.
pub fn write_modified(link_type: u16, records: &[(PacketType, Frame)]) -> Vec<u8> {
    let style = Style::default();
    let mut file = header(style, 0xa1b2_cd34, link_type);
    for (packet_type, frame) in records {
        push_record_header(&mut file, style, frame);
        file.extend_from_slice(&style.endian.four(2));
        // The Ethernet type as it stands in the frame, a packet type, padding.
        file.extend_from_slice(&[frame.bytes[12], frame.bytes[13], *packet_type as u8, 0]);
        file.extend_from_slice(&frame.bytes);
    }
    file
}

fn header(style: Style, magic: u32, link_type: u16) -> Vec<u8> {
    let snap_bytes = if style.snap_bytes == 0 { SNAP_BYTES } else { style.snap_bytes };
    let mut file = style.endian.four(magic).to_vec();
    file.extend_from_slice(&style.endian.two(2));
    file.extend_from_slice(&style.endian.two(4));
    file.extend_from_slice(&[0; 8]);
    file.extend_from_slice(&style.endian.four(snap_bytes));
    file.extend_from_slice(&style.endian.four(u32::from(link_type)));
    file
}

fn push_record_header(file: &mut Vec<u8>, style: Style, frame: &Frame) {
    let fraction = match style.precision {
        Precision::Micros => frame.time_ns % SECOND / MICRO,
        Precision::Nanos => frame.time_ns % SECOND,
    };
    let secs = u32::try_from(frame.time_ns / SECOND).expect("the stories end before the year 2106");
    let fraction = u32::try_from(fraction).expect("a fraction of a second is less than a thousand million");
    for number in [secs, fraction, length_u32(frame.bytes.len()), frame.original_bytes] {
        file.extend_from_slice(&style.endian.four(number));
    }
}

impl Endian {
    /// A number of two bytes.
    pub fn two(self, number: u16) -> [u8; 2] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }

    /// A number of four bytes.
    pub fn four(self, number: u32) -> [u8; 4] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Fate;

    #[test]
    fn a_record_stands_as_the_draft_says() {
        let frame = Frame::new(0x0102 * SECOND + 3 * MICRO, vec![0xee; 2], Fate::NotIp("test"));
        let file = write(Style::default(), 1, std::slice::from_ref(&frame));
        let expected = [
            &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0][..],
            &[2, 1, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0xee, 0xee],
        ];
        assert_eq!(file, expected.concat());
        let style = Style { endian: Endian::Big, precision: Precision::Nanos, snap_bytes: 96 };
        let file = write(style, 113, &[frame]);
        assert_eq!(file[..4], [0xa1, 0xb2, 0x3c, 0x4d]);
        assert_eq!(file[16..32], [0, 0, 0, 96, 0, 0, 0, 113, 0, 0, 1, 2, 0, 0, 0x0b, 0xb8]);
    }
}
