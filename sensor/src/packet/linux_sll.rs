//! Linux cooked captures, versions 1 and 2: what the kernel knows of a frame, in place of its link header.
//!
//! Authority: LINKTYPE_LINUX_SLL and LINKTYPE_LINUX_SLL2 of tcpdump.org; packet types are those of `if_packet.h`.

use super::cursor::Cursor;
use super::link::Link;
use super::{Fault, NotIp, Refusal, ethertype, llc};
use crate::capture::Direction;

/// Takes a header of version 1, and every tag behind it.
pub(super) fn read_v1(cursor: &mut Cursor<'_>) -> Result<Link, Refusal> {
    let packet_type = cursor.take_u16().ok_or(Fault::TruncatedLink)?;
    let device_type = cursor.take_u16().ok_or(Fault::TruncatedLink)?;
    cursor.skip(ADDRESS_LENGTH_BYTES_V1 + ADDRESS_BYTES).ok_or(Fault::TruncatedLink)?;
    let protocol = cursor.take_u16().ok_or(Fault::TruncatedLink)?;
    let link = payload(cursor, device_type, protocol)?;
    Ok(Link { direction: direction(packet_type), ..link })
}

/// Takes a header of version 2, and every tag behind it.
pub(super) fn read_v2(cursor: &mut Cursor<'_>) -> Result<Link, Refusal> {
    let protocol = cursor.take_u16().ok_or(Fault::TruncatedLink)?;
    cursor.skip(RESERVED_BYTES + INTERFACE_INDEX_BYTES).ok_or(Fault::TruncatedLink)?;
    let device_type = cursor.take_u16().ok_or(Fault::TruncatedLink)?;
    let packet_type = cursor.take_u8().ok_or(Fault::TruncatedLink)?;
    cursor.skip(ADDRESS_LENGTH_BYTES_V2 + ADDRESS_BYTES).ok_or(Fault::TruncatedLink)?;
    let link = payload(cursor, device_type, protocol)?;
    Ok(Link { direction: direction(packet_type.into()), ..link })
}

fn payload(cursor: &mut Cursor<'_>, device_type: u16, protocol: u16) -> Result<Link, Refusal> {
    match (device_type, protocol) {
        // On these devices the protocol field is no ethertype: it is ignored, or a netlink family.
        (FRAME_RELAY | WIFI_RADIOTAP | NETLINK, _) => Err(NotIp::Other.into()),
        (_, LLC) => {
            let inner = llc::read(cursor)?;
            ethertype::walk_type(cursor, inner)
        }
        (_, other) => ethertype::walk_type(cursor, other),
    }
}

fn direction(packet_type: u16) -> Direction {
    match packet_type {
        // To us, to all, to many, and to another host but seen by us.
        0..=3 => Direction::Ingress,
        4 => Direction::Egress,
        _ => Direction::Unknown,
    }
}

const ADDRESS_BYTES: usize = 8;
const ADDRESS_LENGTH_BYTES_V1: usize = 2;
const ADDRESS_LENGTH_BYTES_V2: usize = 1;
const RESERVED_BYTES: usize = 2;
const INTERFACE_INDEX_BYTES: usize = 4;

// Device types, `if_arp.h`.
const FRAME_RELAY: u16 = 770;
const WIFI_RADIOTAP: u16 = 803;
const NETLINK: u16 = 824;

/// The kernel's own number for frames that begin with LLC, `ETH_P_802_2`.
const LLC: u16 = 0x0004;

#[cfg(test)]
mod tests {
    use super::super::link::Network;
    use super::*;

    /// Outgoing, Ethernet, a six byte address, IPv4.
    const V1: [u8; 16] = [0, 4, 0, 1, 0, 6, 2, 0, 0, 0, 0, 5, 0, 0, 0x08, 0x00];
    /// IPv6, interface 3, loopback, to us, a six byte address.
    const V2: [u8; 20] = [0x86, 0xdd, 0, 0, 0, 0, 0, 3, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn version_1() {
        let link = read_v1(&mut Cursor::new(&V1)).unwrap();
        assert_eq!((link.network, link.direction), (Network::Ipv4, Direction::Egress));
        assert_eq!((link.ether, link.vlan), (None, None));
    }

    #[test]
    fn version_2() {
        let link = read_v2(&mut Cursor::new(&V2)).unwrap();
        assert_eq!((link.network, link.direction), (Network::Ipv6, Direction::Ingress));
    }

    #[test]
    fn every_packet_type() {
        let mut header = V1;
        for (packet_type, expected) in [
            (0, Direction::Ingress),
            (1, Direction::Ingress),
            (2, Direction::Ingress),
            (3, Direction::Ingress),
            (4, Direction::Egress),
            (5, Direction::Unknown),
        ] {
            header[1] = packet_type;
            assert_eq!(read_v1(&mut Cursor::new(&header)).map(|link| link.direction), Ok(expected));
        }
    }

    #[test]
    fn a_tag_may_follow() {
        let mut frame = V1.to_vec();
        frame[14..].copy_from_slice(&[0x81, 0x00]);
        frame.extend([0x20, 0x2a, 0x08, 0x00]);
        let link = read_v1(&mut Cursor::new(&frame)).unwrap();
        assert_eq!((link.network, link.vlan, link.direction), (Network::Ipv4, Some(42), Direction::Egress));
    }

    #[test]
    fn llc_frames() {
        let mut frame = V2.to_vec();
        frame[..2].copy_from_slice(&[0x00, 0x04]);
        frame.extend([0x42, 0x42, 0x03]);
        assert_eq!(read_v2(&mut Cursor::new(&frame)), Err(NotIp::SpanningTree.into()));
        frame.truncate(20);
        frame.extend([0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00]);
        assert_eq!(read_v2(&mut Cursor::new(&frame)).map(|link| link.network), Ok(Network::Ipv4));
    }

    #[test]
    fn a_netlink_family_is_no_ethertype() {
        let mut header = V1;
        header[2..4].copy_from_slice(&824_u16.to_be_bytes());
        assert_eq!(read_v1(&mut Cursor::new(&header)), Err(NotIp::Other.into()));
    }

    #[test]
    fn every_cut_header_is_truncated() {
        for length in 0..V1.len() {
            let mut cursor = Cursor::new(&V1);
            cursor.limit(length);
            assert_eq!(read_v1(&mut cursor), Err(Fault::TruncatedLink.into()), "{length} bytes");
        }
        for length in 0..V2.len() {
            let mut cursor = Cursor::new(&V2);
            cursor.limit(length);
            assert_eq!(read_v2(&mut cursor), Err(Fault::TruncatedLink.into()), "{length} bytes");
        }
    }
}
