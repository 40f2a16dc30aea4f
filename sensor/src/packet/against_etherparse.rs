//! Frames that etherparse builds are read as they were meant, and damaged ones as etherparse reads them.
//!
//! The two differ on purpose here and there: we do not walk through AH, etherparse knows fewer tags and no MPLS, and it
//! wants whole transport headers. Only what both accept is compared.

use etherparse::{
    IpFragOffset, IpHeaders, Ipv4Header, Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader,
    Ipv6RoutingExtensions, LaxLinkExtSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice, PacketBuilder, TcpHeader,
    TransportSlice, VlanId, ip_number,
};
use proptest::prelude::*;

use super::fuzz::fuzz;
use super::{Addresses, Fault, Fragment, Packet, Refusal, parse};
use crate::capture::{Direction, LinkType};

const SRC_MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
const DST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 13];

#[derive(Debug, Clone)]
struct Meant {
    vlans: Vec<u16>,
    ip: MeantIp,
    transport: MeantTransport,
    payload: Vec<u8>,
}

#[derive(Debug, Clone)]
enum MeantIp {
    V4 { src: u32, dst: u32, option_words: usize, piece: Piece },
    V6 { src: u128, dst: u128, options: [bool; 4], piece: Option<Piece> },
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    id: u32,
    offset_eights: u16,
    more: bool,
}

#[derive(Debug, Clone, Copy)]
enum MeantTransport {
    Tcp { ports: (u16, u16), flags: u8 },
    Udp { ports: (u16, u16) },
    Icmp { kind: u8, code: u8 },
}

fn piece() -> impl Strategy<Value = Piece> {
    (any::<u32>(), prop_oneof![3 => Just(0), 1 => 0_u16..0x2000], any::<bool>())
        .prop_map(|(id, offset_eights, more)| Piece { id, offset_eights, more })
}

fn meant() -> impl Strategy<Value = Meant> {
    let v4 = (any::<u32>(), any::<u32>(), 0_usize..=10, piece())
        .prop_map(|(src, dst, option_words, piece)| MeantIp::V4 { src, dst, option_words, piece });
    let v6 = (any::<u128>(), any::<u128>(), any::<[bool; 4]>(), prop::option::of(piece()))
        .prop_map(|(src, dst, options, piece)| MeantIp::V6 { src, dst, options, piece });
    let transport = prop_oneof![
        (any::<(u16, u16)>(), any::<u8>()).prop_map(|(ports, flags)| MeantTransport::Tcp { ports, flags }),
        any::<(u16, u16)>().prop_map(|ports| MeantTransport::Udp { ports }),
        any::<(u8, u8)>().prop_map(|(kind, code)| MeantTransport::Icmp { kind, code }),
    ];
    let vlans = prop::collection::vec(0_u16..4096, 0..=2);
    (vlans, prop_oneof![v4, v6], transport, prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(vlans, ip, transport, payload)| Meant { vlans, ip, transport, payload })
}

impl Meant {
    /// The frame, as etherparse writes it.
    fn frame(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(SRC_MAC, DST_MAC);
        let id = |number: u16| VlanId::try_new(number).unwrap();
        let ip = match self.vlans[..] {
            [] => ethernet.ip(self.ip.headers()),
            [only] => ethernet.single_vlan(id(only)).ip(self.ip.headers()),
            [outer, inner, ..] => ethernet.double_vlan(id(outer), id(inner)).ip(self.ip.headers()),
        };
        let mut frame = Vec::new();
        match (self.transport, &self.ip) {
            (MeantTransport::Tcp { ports, flags }, _) => {
                ip.tcp_header(tcp_header(ports, flags)).write(&mut frame, &self.payload)
            }
            (MeantTransport::Udp { ports }, _) => ip.udp(ports.0, ports.1).write(&mut frame, &self.payload),
            (MeantTransport::Icmp { kind, code }, MeantIp::V4 { .. }) => {
                ip.icmpv4_raw(kind, code, [0; 4]).write(&mut frame, &self.payload)
            }
            (MeantTransport::Icmp { kind, code }, MeantIp::V6 { .. }) => {
                ip.icmpv6_raw(kind, code, [0; 4]).write(&mut frame, &self.payload)
            }
        }
        .unwrap();
        frame
    }

    /// What a flow record should know of it.
    fn packet(&self) -> Packet {
        let (addresses, before_transport, fragment) = match self.ip {
            MeantIp::V4 { src, dst, option_words, piece } => {
                (Addresses::V4 { src, dst }, 20 + 4 * option_words, piece.fragment(u32::from(piece.id as u16)))
            }
            MeantIp::V6 { src, dst, options, piece } => {
                let [hop_by_hop, destination, routing, last] = options;
                let extensions = [hop_by_hop, destination, routing, routing && last, piece.is_some()];
                let extension_bytes = 8 * extensions.into_iter().filter(|&there| there).count();
                let fragment = piece.map_or(Fragment::None, |piece| piece.fragment(piece.id));
                (Addresses::V6 { src, dst }, 40 + extension_bytes, fragment)
            }
        };
        let (protocol, transport_bytes) = match (self.transport, addresses) {
            (MeantTransport::Tcp { .. }, _) => (6, 20),
            (MeantTransport::Udp { .. }, _) => (17, 8),
            (MeantTransport::Icmp { .. }, Addresses::V4 { .. }) => (1, 8),
            (MeantTransport::Icmp { .. }, Addresses::V6 { .. }) => (58, 8),
        };
        let mut packet = Packet {
            addresses,
            protocol,
            src_port: 0,
            dst_port: 0,
            tcp_flags: 0,
            ip_bytes: (before_transport + transport_bytes + self.payload.len()) as u32,
            fragment,
            icmp: None,
            vlan: self.vlans.first().copied(),
            ether: Some((SRC_MAC, DST_MAC)),
            direction: Direction::Unknown,
        };
        if matches!(fragment, Fragment::Later { .. }) {
            // A later piece that has destination options behind its fragment header shows their number.
            if matches!(self.ip, MeantIp::V6 { options: [_, _, true, true], .. }) {
                packet.protocol = 60;
            }
            return packet;
        }
        match self.transport {
            MeantTransport::Tcp { ports, flags } => {
                (packet.src_port, packet.dst_port) = ports;
                packet.tcp_flags = flags;
            }
            MeantTransport::Udp { ports } => (packet.src_port, packet.dst_port) = ports,
            MeantTransport::Icmp { kind, code } => packet.icmp = Some((kind, code)),
        }
        packet
    }
}

impl Piece {
    fn fragment(self, id: u32) -> Fragment {
        match (self.offset_eights, self.more) {
            (0, false) => Fragment::None,
            (0, true) => Fragment::First { id },
            _ => Fragment::Later { id },
        }
    }
}

impl MeantIp {
    fn headers(&self) -> IpHeaders {
        match *self {
            Self::V4 { src, dst, option_words, piece } => {
                let mut header = Ipv4Header::new(0, 64, ip_number::UDP, src.to_be_bytes(), dst.to_be_bytes()).unwrap();
                header.identification = piece.id as u16;
                header.more_fragments = piece.more;
                header.fragment_offset = IpFragOffset::try_new(piece.offset_eights).unwrap();
                header.options = vec![1; 4 * option_words].as_slice().try_into().unwrap();
                IpHeaders::Ipv4(header, Default::default())
            }
            Self::V6 { src, dst, options: [hop_by_hop, destination, routing, last], piece } => {
                let header = Ipv6Header {
                    hop_limit: 64,
                    source: src.to_be_bytes(),
                    destination: dst.to_be_bytes(),
                    ..Default::default()
                };
                let options = || Ipv6RawExtHeader::new_raw(ip_number::UDP, &[1, 4, 0, 0, 0, 0]).unwrap();
                let extensions = Ipv6Extensions {
                    hop_by_hop_options: hop_by_hop.then(options),
                    destination_options: destination.then(options),
                    routing: routing.then(|| Ipv6RoutingExtensions {
                        routing: options(),
                        final_destination_options: last.then(options),
                    }),
                    fragment: piece.map(|piece| {
                        let offset = IpFragOffset::try_new(piece.offset_eights).unwrap();
                        Ipv6FragmentHeader::new(ip_number::UDP, offset, piece.more, piece.id)
                    }),
                    auth: None,
                };
                IpHeaders::Ipv6(header, extensions)
            }
        }
    }
}

fn tcp_header(ports: (u16, u16), flags: u8) -> TcpHeader {
    let mut header = TcpHeader::new(ports.0, ports.1, 1, 1024);
    let bit = |number: u8| flags & (1 << number) != 0;
    (header.fin, header.syn, header.rst, header.psh) = (bit(0), bit(1), bit(2), bit(3));
    (header.ack, header.urg, header.ece, header.cwr) = (bit(4), bit(5), bit(6), bit(7));
    header
}

/// Asserts that etherparse reads of `frame` what we read, as far as both accept it.
fn compare(frame: &[u8]) {
    let ours = parse(LinkType::Ethernet, frame, frame.len() as u32);
    let Ok(theirs) = LaxSlicedPacket::from_ethernet(frame) else { return assert!(ours.is_err()) };
    let plain_tags = theirs.link_exts.iter().all(|tag| matches!(tag, LaxLinkExtSlice::Vlan(_)));
    let (Some(net), true) = (&theirs.net, plain_tags) else { return };

    let packet = match (ours, net) {
        (Ok(packet), LaxNetSlice::Ipv4(_) | LaxNetSlice::Ipv6(_)) => packet,
        (Ok(packet), LaxNetSlice::Arp(_)) => panic!("ARP became {packet:?}"),
        // Etherparse believes the first four bits whatever the ethertype announced.
        (Err(Refusal::Fault(Fault::IpVersion)), _) | (Err(_), LaxNetSlice::Arp(_)) => return,
        (Err(refusal), LaxNetSlice::Ipv4(ipv4)) => {
            // A packet shorter than its own header is the one thing only we refuse.
            let header = ipv4.header();
            let too_short = header.total_len() != 0 && usize::from(header.total_len()) < header.slice().len();
            return assert!(too_short, "{refusal:?}, but etherparse has {header:?}");
        }
        (Err(refusal), LaxNetSlice::Ipv6(ipv6)) => panic!("{refusal:?}, but etherparse has {ipv6:?}"),
    };

    if let Some(LinkSlice::Ethernet2(ethernet)) = &theirs.link {
        assert_eq!(packet.ether, Some((ethernet.source(), ethernet.destination())));
    }
    let vlan = theirs.link_exts.first().map(|tag| match tag {
        LaxLinkExtSlice::Vlan(vlan) => vlan.vlan_identifier().value(),
        LaxLinkExtSlice::Macsec(_) => unreachable!("only plain tags come here"),
    });
    assert_eq!(packet.vlan, vlan);
    compare_ip(&packet, net, theirs.stop_err.is_none());
    if let Some(transport) = &theirs.transport
        && packet.protocol != ip_number::AUTH.0
    {
        compare_transport(&packet, transport);
    }
}

fn compare_ip(packet: &Packet, net: &LaxNetSlice<'_>, to_the_end: bool) {
    match net {
        LaxNetSlice::Ipv4(ipv4) => {
            let header = ipv4.header();
            let (src, dst) = (u32::from_be_bytes(header.source()), u32::from_be_bytes(header.destination()));
            assert_eq!(packet.addresses, Addresses::V4 { src, dst });
            assert_eq!(packet.protocol, header.protocol().0);
            if header.total_len() != 0 {
                assert_eq!(packet.ip_bytes, u32::from(header.total_len()));
            }
            let piece = Piece {
                id: header.identification().into(),
                offset_eights: header.fragments_offset().value(),
                more: header.more_fragments(),
            };
            assert_eq!(packet.fragment, piece.fragment(piece.id));
        }
        LaxNetSlice::Ipv6(ipv6) => {
            let header = ipv6.header();
            let (src, dst) = (u128::from_be_bytes(header.source()), u128::from_be_bytes(header.destination()));
            assert_eq!(packet.addresses, Addresses::V6 { src, dst });
            if header.payload_length() != 0 {
                assert_eq!(packet.ip_bytes, u32::from(header.payload_length()) + 40);
            }
            // Etherparse walks through AH, and on behind the fragment header of a later piece.
            let same_walk = packet.protocol != ip_number::AUTH.0 && !matches!(packet.fragment, Fragment::Later { .. });
            if same_walk && to_the_end {
                assert_eq!(packet.protocol, ipv6.payload().ip_number.0);
                assert_eq!(packet.fragment != Fragment::None, ipv6.payload().fragmented);
            }
        }
        LaxNetSlice::Arp(_) => panic!("ARP became {packet:?}"),
    }
}

fn compare_transport(packet: &Packet, transport: &TransportSlice<'_>) {
    let ports = (packet.src_port, packet.dst_port);
    match (transport, packet.addresses) {
        (TransportSlice::Tcp(tcp), _) => {
            assert_eq!(ports, (tcp.source_port(), tcp.destination_port()));
            assert_eq!(packet.tcp_flags, tcp.header_slice()[13]);
        }
        (TransportSlice::Udp(udp), _) => assert_eq!(ports, (udp.source_port(), udp.destination_port())),
        (TransportSlice::Icmpv4(icmp), Addresses::V4 { .. }) => {
            assert_eq!(packet.icmp, Some((icmp.type_u8(), icmp.code_u8())));
        }
        (TransportSlice::Icmpv6(icmp), Addresses::V6 { .. }) => {
            assert_eq!(packet.icmp, Some((icmp.type_u8(), icmp.code_u8())));
        }
        _ => assert_eq!((ports, packet.icmp), ((0, 0), None)),
    }
}

proptest! {
    #[test]
    fn frames_are_read_as_they_were_meant(meant in meant()) {
        let frame = meant.frame();
        prop_assert_eq!(parse(LinkType::Ethernet, &frame, frame.len() as u32), Ok(meant.packet()));
    }

    #[test]
    fn damaged_frames_are_read_alike(
        meant in meant(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        kept in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut frame = meant.frame();
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if cut {
            frame.truncate(kept.index(frame.len() + 1));
        }
        compare(&frame);
        fuzz(&[&[0], &frame[..]].concat());
    }
}
