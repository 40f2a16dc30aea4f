//! The capture file of blocks: sections, interfaces, packets with options (draft-ietf-opsawg-pcapng).

use crate::capture::Frame;
use crate::packet::{length_u16, length_u32};
use crate::pcap::Endian;
use crate::time::SECOND;

/// One section in the making: its own byte order and its own interfaces.
#[derive(Debug)]
pub struct Section {
    endian: Endian,
    interfaces: Vec<Interface>,
    bytes: Vec<u8>,
}

/// An interface as its description block tells it.
#[derive(Debug, Clone, Copy)]
pub struct Interface {
    /// `if_name`, if it has one.
    pub name: Option<&'static str>,
    /// Link type of the registry.
    pub link_type: u16,
    /// Longest part of a frame that was kept; 0 for no bound.
    pub snap_bytes: u32,
    /// `if_tsresol`
    pub resolution: Resolution,
    /// `if_tsoffset`: seconds to add to every time stamp.
    pub offset_secs: u32,
}

/// The unit of an interface's time stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// No option: microseconds.
    Default,
    /// Ten to the minus so many seconds.
    Decimal(u8),
    /// Two to the minus so many seconds.
    Binary(u8),
}

/// What `epb_flags` says of a frame's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Way {
    /// The option is there and says nothing.
    Unknown = 0,
    /// Received.
    Inbound = 1,
    /// Sent.
    Outbound = 2,
}

impl Section {
    /// A section of unknown length, as a capturing program writes it.
    pub fn new(endian: Endian) -> Self {
        let mut section = Self { endian, interfaces: Vec::new(), bytes: Vec::new() };
        let length_unknown = [0xff; 8];
        let body = [&endian.four(0x1a2b_3c4d)[..], &endian.two(1), &endian.two(0), &length_unknown].concat();
        section.push_block(SECTION_HEADER, &body);
        section
    }

    /// Describes the next interface.
    pub fn interface(&mut self, interface: Interface) -> &mut Self {
        let mut body = self.endian.two(interface.link_type).to_vec();
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&self.endian.four(interface.snap_bytes));
        let mut options = Vec::new();
        if let Some(name) = interface.name {
            options.push((IF_NAME, name.as_bytes().to_vec()));
        }
        match interface.resolution {
            Resolution::Default => {}
            Resolution::Decimal(exponent) => options.push((IF_TSRESOL, vec![exponent])),
            Resolution::Binary(exponent) => options.push((IF_TSRESOL, vec![0x80 | exponent])),
        }
        if interface.offset_secs != 0 {
            options.push((IF_TSOFFSET, self.eight(u64::from(interface.offset_secs)).to_vec()));
        }
        self.push_options(&mut body, &options);
        self.interfaces.push(interface);
        self.push_block(INTERFACE_DESCRIPTION, &body)
    }

    /// An enhanced packet block.
    pub fn enhanced(&mut self, interface: usize, frame: &Frame, way: Option<Way>) -> &mut Self {
        let mut body = self.endian.four(length_u32(interface)).to_vec();
        self.push_time_and_data(&mut body, interface, frame);
        let flags = way.map(|way| (EPB_FLAGS, self.endian.four(way as u32).to_vec()));
        self.push_options(&mut body, flags.as_slice());
        self.push_block(ENHANCED_PACKET, &body)
    }

    /// A simple packet block: interface 0, no time, and the length on the wire only.
    pub fn simple(&mut self, frame: &Frame) -> &mut Self {
        let mut body = self.endian.four(frame.original_bytes).to_vec();
        push_padded(&mut body, &frame.bytes);
        self.push_block(SIMPLE_PACKET, &body)
    }

    /// The obsolete packet block, with its count of drops.
    pub fn obsolete(&mut self, interface: usize, frame: &Frame, drops: u16) -> &mut Self {
        let mut body = self.endian.two(length_u16(interface)).to_vec();
        body.extend_from_slice(&self.endian.two(drops));
        self.push_time_and_data(&mut body, interface, frame);
        self.push_block(OBSOLETE_PACKET, &body)
    }

    /// Interface statistics that report packets lost by the interface.
    pub fn statistics(&mut self, interface: usize, time_ns: u64, dropped: u64) -> &mut Self {
        let mut body = self.endian.four(length_u32(interface)).to_vec();
        self.push_time(&mut body, interface, time_ns);
        let options = [(ISB_IFDROP, self.eight(dropped).to_vec())];
        self.push_options(&mut body, &options);
        self.push_block(INTERFACE_STATISTICS, &body)
    }

    /// A block of a type that nobody knows: readers must step over it.
    pub fn unknown(&mut self, body: &[u8]) -> &mut Self {
        self.push_block(0x0bad_cafe, body)
    }

    /// The section's bytes.
    pub fn end(self) -> Vec<u8> {
        self.bytes
    }

    fn push_time_and_data(&self, body: &mut Vec<u8>, interface: usize, frame: &Frame) {
        self.push_time(body, interface, frame.time_ns);
        body.extend_from_slice(&self.endian.four(length_u32(frame.bytes.len())));
        body.extend_from_slice(&self.endian.four(frame.original_bytes));
        push_padded(body, &frame.bytes);
    }

    fn push_time(&self, body: &mut Vec<u8>, interface: usize, time_ns: u64) {
        let ticks = self.interfaces[interface].ticks(time_ns);
        let (high, low) = (ticks >> 32, ticks & 0xffff_ffff);
        for half in [high, low] {
            body.extend_from_slice(&self.endian.four(u32::try_from(half).expect("half of 64 bits")));
        }
    }

    fn push_options(&self, body: &mut Vec<u8>, options: &[(u16, Vec<u8>)]) {
        for (code, value) in options {
            body.extend_from_slice(&self.endian.two(*code));
            body.extend_from_slice(&self.endian.two(length_u16(value.len())));
            push_padded(body, value);
        }
        if !options.is_empty() {
            body.extend_from_slice(&[0; 4]);
        }
    }

    fn push_block(&mut self, kind: u32, body: &[u8]) -> &mut Self {
        let padded_bytes = body.len().next_multiple_of(4);
        let total = self.endian.four(length_u32(padded_bytes + 12));
        self.bytes.extend_from_slice(&self.endian.four(kind));
        self.bytes.extend_from_slice(&total);
        push_padded(&mut self.bytes, body);
        self.bytes.extend_from_slice(&total);
        self
    }

    fn eight(&self, number: u64) -> [u8; 8] {
        match self.endian {
            Endian::Little => number.to_le_bytes(),
            Endian::Big => number.to_be_bytes(),
        }
    }
}

impl Interface {
    fn ticks(&self, time_ns: u64) -> u64 {
        let since_offset_ns = u128::from(time_ns - u64::from(self.offset_secs) * SECOND);
        let per_sec = match self.resolution {
            Resolution::Default => 1_000_000,
            Resolution::Decimal(exponent) => 10_u128.pow(u32::from(exponent)),
            Resolution::Binary(exponent) => 1 << exponent,
        };
        let ticks = since_offset_ns * per_sec;
        assert!(ticks.is_multiple_of(u128::from(SECOND)), "the story tells a time that the interface can't");
        u64::try_from(ticks / u128::from(SECOND)).expect("the stories are not that long")
    }
}

/// Appends `value` and zeros up to the next multiple of four of its own length.
fn push_padded(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len() + value.len().next_multiple_of(4) - value.len(), 0);
}

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const IF_TSOFFSET: u16 = 14;
const EPB_FLAGS: u16 = 2;
const ISB_IFDROP: u16 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Fate;

    #[test]
    fn an_enhanced_packet_stands_as_the_draft_says() {
        let mut section = Section::new(Endian::Big);
        let interface = Interface {
            name: Some("e0"),
            link_type: 1,
            snap_bytes: 0,
            resolution: Resolution::Binary(10),
            offset_secs: 5,
        };
        // 6.5 seconds are 1.5 after the offset: 1536 units of 1/1024.
        section.interface(interface).enhanced(
            0,
            &Frame::new(13 * SECOND / 2, vec![7; 5], Fate::NotIp("test")),
            Some(Way::Inbound),
        );
        let bytes = section.end();
        let description = [
            &[0, 0, 0, 1, 0, 0, 0, 52, 0, 1, 0, 0, 0, 0, 0, 0][..],
            &[0, 2, 0, 2, b'e', b'0', 0, 0, 0, 9, 0, 1, 0x8a, 0, 0, 0, 0, 14, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0],
            &[0, 0, 0, 52],
        ];
        assert_eq!(bytes[28..80], description.concat());
        let packet = [
            &[0, 0, 0, 6, 0, 0, 0, 52, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 5, 0, 0, 0, 5][..],
            &[7, 7, 7, 7, 7, 0, 0, 0, 0, 2, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 52],
        ];
        assert_eq!(bytes[80..], packet.concat());
    }
}
