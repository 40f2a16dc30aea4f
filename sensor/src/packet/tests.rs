//! What holds for all protocols together.

use proptest::prelude::*;

use super::{Addresses, Fault, Fragment, NotIp, Packet, Refusal, fuzz, parse};
use crate::capture::{Direction, LinkType};

/// 10.0.0.1 port 1025 to 192.0.2.7 port 443, TCP SYN and ACK, 40 bytes.
const IPV4: [u8; 40] = [
    0x45, 0, 0, 40, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 192, 0, 2, 7, //
    0x04, 0x01, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x12, 0xff, 0xff, 0, 0, 0, 0,
];

const PACKET: Packet = Packet {
    addresses: Addresses::V4 { src: 0x0a00_0001, dst: 0xc000_0207 },
    protocol: 6,
    src_port: 1025,
    dst_port: 443,
    tcp_flags: 0x12,
    ip_bytes: 40,
    fragment: Fragment::None,
    icmp: None,
    vlan: None,
    ether: None,
    direction: Direction::Unknown,
};

const ETHER: Option<([u8; 6], [u8; 6])> = Some(([2, 0, 0, 0, 0, 5], [2, 0, 0, 0, 0, 13]));

const ETHERNET: [u8; 12] = [2, 0, 0, 0, 0, 13, 2, 0, 0, 0, 0, 5];

/// A link type, the bytes before IP, and what they add to [`PACKET`].
fn links() -> Vec<(LinkType, Vec<u8>, Packet)> {
    let ethernet = |rest: &[u8]| [&ETHERNET[..], rest].concat();
    let ether = Packet { ether: ETHER, ..PACKET };
    let wifi = [&[0x88, 0x01, 0, 0][..], &[2; 18], &[0x10, 0x00, 0x00, 0x00], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat();
    vec![
        (LinkType::Ethernet, ethernet(&[0x08, 0x00]), ether),
        (LinkType::Ethernet, ethernet(&[0x81, 0x00, 0xe0, 0x2a, 0x08, 0x00]), Packet { vlan: Some(42), ..ether }),
        (
            LinkType::Ethernet,
            ethernet(&[0x88, 0xa8, 0x00, 0x64, 0x81, 0x00, 0x00, 0xc8, 0x08, 0x00]),
            Packet { vlan: Some(100), ..ether },
        ),
        (LinkType::Ethernet, ethernet(&[0x88, 0x47, 0x00, 0x01, 0x01, 0x40]), ether),
        (LinkType::Ethernet, ethernet(&[0x88, 0x64, 0x11, 0x00, 0x00, 0x07, 0x00, 0x2a, 0x00, 0x21]), ether),
        (LinkType::Ethernet, ethernet(&[0x00, 0x30, 0xaa, 0xaa, 3, 0, 0, 0, 0x08, 0x00]), ether),
        (
            LinkType::LinuxSll,
            vec![0, 4, 0, 1, 0, 6, 2, 0, 0, 0, 0, 5, 0, 0, 0x08, 0x00],
            Packet { direction: Direction::Egress, ..PACKET },
        ),
        (
            LinkType::LinuxSll2,
            vec![0x08, 0x00, 0, 0, 0, 0, 0, 3, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0],
            Packet { direction: Direction::Ingress, ..PACKET },
        ),
        (LinkType::Raw, vec![], PACKET),
        (LinkType::Null, vec![2, 0, 0, 0], PACKET),
        (LinkType::Loop, vec![0, 0, 0, 2], PACKET),
        (LinkType::Ppp, vec![0xff, 0x03, 0x00, 0x21], PACKET),
        (LinkType::Pppoe, vec![0x11, 0x00, 0x00, 0x07, 0x00, 0x2a, 0x00, 0x21], PACKET),
        (LinkType::CiscoHdlc, vec![0x0f, 0x00, 0x08, 0x00], PACKET),
        (LinkType::Ieee80211, wifi.clone(), PACKET),
        (LinkType::Radiotap, [&[0, 0, 8, 0, 0, 0, 0, 0][..], &wifi].concat(), PACKET),
        (LinkType::Nflog, vec![2, 0, 0, 0, 44, 0, 9, 0], PACKET),
    ]
}

#[test]
fn every_link_layer_leads_to_the_same_packet() {
    for (link_type, header, expected) in links() {
        let frame = [&header[..], &IPV4].concat();
        assert_eq!(parse(link_type, &frame, frame.len() as u32), Ok(expected), "{link_type:?} {header:02x?}");
    }
}

#[test]
fn a_snap_length_costs_ports_but_no_bytes() {
    for (link_type, header, expected) in links() {
        let frame = [&header[..], &IPV4].concat();
        let original_bytes = frame.len() as u32;
        let parse_first = |kept: usize| parse(link_type, &frame[..header.len() + kept], original_bytes);
        for kept in 0..20 {
            assert_eq!(parse_first(kept), Err(Fault::TruncatedIp.into()), "{link_type:?}, {kept} bytes");
        }
        for kept in 20..24 {
            let cut = Packet { src_port: 0, dst_port: 0, tcp_flags: 0, ..expected };
            assert_eq!(parse_first(kept), Ok(cut), "{link_type:?}, {kept} bytes");
        }
        for kept in 24..34 {
            assert_eq!(parse_first(kept), Ok(Packet { tcp_flags: 0, ..expected }), "{link_type:?}, {kept} bytes");
        }
        assert_eq!(parse_first(34), Ok(expected), "{link_type:?}");
    }
}

#[test]
fn a_cut_link_header_is_named() {
    for (link_type, header, _) in links() {
        for kept in 0..header.len() {
            let refusal = parse(link_type, &header[..kept], 100).unwrap_err();
            let named = [Fault::TruncatedLink, Fault::TruncatedTag].map(Refusal::Fault).contains(&refusal);
            assert!(named, "{link_type:?}, {kept} of {header:02x?}: {refusal:?}");
        }
    }
}

#[test]
fn an_open_length_is_counted_from_the_ip_header() {
    for (link_type, header, expected) in links() {
        let mut frame = [&header[..], &IPV4].concat();
        frame[header.len() + 3] = 0;
        let original_bytes = header.len() as u32 + 66_000;
        let open = Packet { ip_bytes: 66_000, ..expected };
        assert_eq!(parse(link_type, &frame, original_bytes), Ok(open), "{link_type:?} {header:02x?}");
    }
}

#[test]
fn an_announced_version_is_held_to() {
    let frame = [&ETHERNET[..], &[0x86, 0xdd], &IPV4].concat();
    assert_eq!(parse(LinkType::Ethernet, &frame, 54), Err(Fault::IpVersion.into()));
    assert_eq!(parse(LinkType::Raw, &[0x55; 40], 40), Err(Fault::IpVersion.into()));
}

#[test]
fn an_unknown_link_type_is_refused() {
    assert_eq!(parse(LinkType::Unsupported, &IPV4, 40), Err(Fault::UnsupportedLinkType.into()));
}

#[test]
fn inner_packets_stay_unread() {
    // The packet again, within GRE (47), IPv4 (4) and IPv6 (41).
    for protocol in [4, 41, 47] {
        let mut frame = [&IPV4[..20], &IPV4].concat();
        (frame[3], frame[9]) = (60, protocol);
        let outer = Packet { protocol, ip_bytes: 60, src_port: 0, dst_port: 0, tcp_flags: 0, ..PACKET };
        assert_eq!(parse(LinkType::Raw, &frame, 60), Ok(outer));
    }
}

#[test]
fn arp_is_counted_by_type() {
    let frame = [&ETHERNET[..], &[0x08, 0x06], &[0; 28]].concat();
    assert_eq!(parse(LinkType::Ethernet, &frame, 42), Err(NotIp::Arp.into()));
}

proptest! {
    #[test]
    fn any_bytes_at_all(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz(&data);
    }

    /// Random bytes under the few that the fast path looks at, which are nearly always as it wants them.
    #[test]
    fn frames_of_the_fast_path(
        mut data in any::<[u8; 85]>(),
        version in prop::sample::select(vec![(0x0800_u16, 0x45, 23_usize), (0x86dd, 0x60, 20)]),
        protocol in prop::sample::select(vec![6, 17, 1, 132]),
        length in 0_u8..80,
        piece in prop_oneof![9 => Just([0x40, 0x00]), 1 => any::<[u8; 2]>()],
        kept in 38_usize..=84,
    ) {
        let (ethertype, first, protocol_at) = version;
        let frame = &mut data[1..];
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        frame[14] = first;
        if first == 0x45 {
            frame[16..18].copy_from_slice(&[0, length]);
            frame[20..22].copy_from_slice(&piece);
        } else {
            frame[18..20].copy_from_slice(&[0, length]);
        }
        frame[protocol_at] = protocol;
        data[0] = 0;
        fuzz(&data[..=kept]);
    }

    #[test]
    fn nearly_good_frames(
        choice in 0_u8..13,
        link in prop::sample::select(links()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        kept in any::<prop::sample::Index>(),
    ) {
        let mut data = [&[choice][..], &link.1, &IPV4, &[0; 20]].concat();
        for (at, byte) in changes {
            let at = at.index(data.len());
            data[at] = byte;
        }
        data.truncate(kept.index(data.len()) + 1);
        fuzz(&data);
    }
}
