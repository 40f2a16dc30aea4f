//! Where the headers of a frame lie, for those who copy or rewrite frames: the mirror.

use super::cursor::Cursor;
use super::ip;
use super::{Addresses, Packet, Refusal, link};
use crate::capture::LinkType;

/// A frame's packet, and where its parts begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// What [`super::parse`] says of the frame.
    pub packet: Packet,
    /// Where the outermost IP header begins.
    pub ip_at: usize,
    /// Where its payload begins, behind options and extension headers.
    pub payload_at: usize,
    /// Whether the IP header leaves its length open: 0 in its length field, as in super-packets.
    pub has_open_length: bool,
}

/// Finds the parts of a frame of which `captured` was kept and which was `original_bytes` long on the wire.
///
/// # Errors
/// As those of [`super::parse`].
pub fn locate(link_type: LinkType, captured: &[u8], original_bytes: u32) -> Result<Layout, Refusal> {
    let mut cursor = Cursor::new(captured);
    let link = link::read(link_type, &mut cursor)?;
    let ip_at = captured.len() - cursor.len();
    let wire_bytes = original_bytes.saturating_sub(u32::try_from(ip_at).unwrap_or(u32::MAX));
    let ip = ip::read(link.network, cursor, wire_bytes)?;
    let ip_end = captured.len().min(ip_at.saturating_add(ip.ip_bytes as usize));
    let length_field = match ip.addresses {
        Addresses::V4 { .. } => captured.get(ip_at + 2..ip_at + 4),
        Addresses::V6 { .. } => captured.get(ip_at + 4..ip_at + 6),
    };
    Ok(Layout {
        packet: Packet::new(&link, &ip),
        ip_at,
        // The payload ends where the packet or the capture does, so its length tells its beginning.
        payload_at: ip_end - ip.payload.len(),
        has_open_length: length_field == Some(&[0, 0]),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 10.0.0.1 to 192.0.2.7, TCP from 1025 to 443, IPv4 with four bytes of options, behind a VLAN tag.
    const FRAME: [u8; 62] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0x00, 0x00, 0x07, 0x08, 0x00, //
        0x46, 0, 0, 44, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 192, 0, 2, 7, 1, 1, 1, 1, //
        0x04, 0x01, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x12, 0xff, 0xff, 0, 0, 0, 0,
    ];

    #[test]
    fn the_parts_of_a_frame() {
        let layout = locate(LinkType::Ethernet, &FRAME, 62).unwrap();
        assert_eq!((layout.ip_at, layout.payload_at, layout.packet.ip_bytes), (18, 42, 44));
        let packet = layout.packet;
        assert_eq!((packet.src_port, packet.dst_port, packet.protocol), (1025, 443, 6));
        assert!(!layout.has_open_length);
    }

    #[test]
    fn extension_headers_lie_before_the_payload() {
        let mut frame = vec![0x60, 0, 0, 0, 0, 16, 0, 64];
        frame.extend([0; 32]);
        frame.extend([17, 0, 1, 4, 0, 0, 0, 0]);
        frame.extend([0x04, 0x01, 0x01, 0xbb, 0, 8, 0, 0]);
        // Whether the frame is longer than its packet, or was cut, or neither.
        for (padding, cut) in [(0, 0), (6, 0), (0, 3)] {
            let mut frame = frame.clone();
            frame.resize(frame.len() + padding - cut, 0xee);
            let layout = locate(LinkType::Raw, &frame, 56 + padding as u32).unwrap();
            assert_eq!((layout.ip_at, layout.payload_at, layout.packet.ip_bytes), (0, 48, 56));
        }
    }

    #[test]
    fn an_open_length_is_told() {
        let mut frame = FRAME;
        frame[20..22].copy_from_slice(&[0, 0]);
        let layout = locate(LinkType::Ethernet, &frame, 62).unwrap();
        assert!(layout.has_open_length);
        assert_eq!(layout.packet.ip_bytes, 44);
    }

    proptest! {
        #[test]
        fn it_agrees_with_parse(frame in proptest::collection::vec(any::<u8>(), 0..120), more in 0_u32..9) {
            let original_bytes = frame.len() as u32 + more;
            for link_type in [LinkType::Ethernet, LinkType::Raw, LinkType::LinuxSll, LinkType::Null] {
                let located = locate(link_type, &frame, original_bytes);
                let parsed = super::super::parse(link_type, &frame, original_bytes);
                prop_assert_eq!(located.map(|layout| layout.packet), parsed);
                if let Ok(layout) = located {
                    prop_assert!(layout.ip_at <= layout.payload_at && layout.payload_at <= frame.len());
                }
            }
        }
    }
}
