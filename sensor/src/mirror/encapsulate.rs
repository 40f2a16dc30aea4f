//! What is wrapped around a wire frame: VXLAN or GENEVE, UDP, and IP where nobody else writes it.
//!
//! Authority: RFC 7348 section 5 and RFC 8926 section 3.4 for the eight bytes before the frame, all reserved bits zero
//! (an IDS may refuse others); RFC 768; RFC 791; RFC 8200 sections 4.5 and 8.1. The UDP checksum is 0 over IPv4, as RFC
//! 7348 asks; over IPv6 it is computed, because a receiver may refuse 0 there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;
use super::{Encapsulation, Vni};
use crate::packet::Addresses;

/// The eight bytes before the inner frame.
pub fn tunnel_header(encapsulation: Encapsulation, vni: Vni) -> [u8; TUNNEL_HEADER_BYTES] {
    let [_, a, b, c] = vni.number().to_be_bytes();
    match encapsulation {
        Encapsulation::Vxlan => [VXLAN_FLAGS, 0, 0, 0, a, b, c, 0],
        Encapsulation::Geneve => {
            let [type_0, type_1] = ETHERNET_BRIDGED.to_be_bytes();
            [0, 0, type_0, type_1, a, b, c, 0]
        }
    }
}

/// Who sends to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Over IPv4.
    V4 {
        /// Source.
        src: Ipv4Addr,
        /// Destination.
        dst: Ipv4Addr,
    },
    /// Over IPv6.
    V6 {
        /// Source.
        src: Ipv6Addr,
        /// Destination.
        dst: Ipv6Addr,
    },
}

impl Path {
    /// A path between two addresses; `None` if they are of different versions.
    pub fn new(src: IpAddr, dst: IpAddr) -> Option<Self> {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Some(Self::V4 { src, dst }),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Some(Self::V6 { src, dst }),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    /// Who sends.
    pub fn source(self) -> IpAddr {
        match self {
            Self::V4 { src, .. } => src.into(),
            Self::V6 { src, .. } => src.into(),
        }
    }

    /// How long the outer IP header is.
    pub fn ip_header_bytes(self) -> usize {
        match self {
            Self::V4 { .. } => IPV4_HEADER_BYTES,
            Self::V6 { .. } => IPV6_HEADER_BYTES,
        }
    }

    /// How long the outer IP packet is around an inner frame.
    pub fn packet_bytes(self, inner_bytes: usize) -> usize {
        self.ip_header_bytes() + UDP_HEADER_BYTES + TUNNEL_HEADER_BYTES + inner_bytes
    }

    fn addresses(self) -> Addresses {
        match self {
            Self::V4 { src, dst } => Addresses::V4 { src: src.into(), dst: dst.into() },
            Self::V6 { src, dst } => Addresses::V6 { src: src.into(), dst: dst.into() },
        }
    }
}

/// The UDP ports and the tunnel header of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// From the flow's hash.
    pub src_port: u16,
    /// The target's.
    pub dst_port: u16,
    /// VXLAN or GENEVE.
    pub tunnel: [u8; TUNNEL_HEADER_BYTES],
}

/// Appends the UDP datagram around `inner`. It must fit: see [`INNER_BYTES_MAX`].
pub fn push_datagram(path: Path, envelope: &Envelope, inner: &[u8], out: &mut Vec<u8>) {
    let at = out.len();
    let datagram_bytes = UDP_HEADER_BYTES + TUNNEL_HEADER_BYTES + inner.len();
    out.extend_from_slice(&envelope.src_port.to_be_bytes());
    out.extend_from_slice(&envelope.dst_port.to_be_bytes());
    out.extend_from_slice(&(datagram_bytes as u16).to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&envelope.tunnel);
    out.extend_from_slice(inner);
    if let Path::V6 { .. } = path {
        let sum = Sum::of_pseudo_header(path.addresses(), UDP, datagram_bytes as u32);
        let checksum = sum.over(out.get(at..).unwrap_or_default()).udp_checksum();
        if let Some(place) = out.get_mut(at + UDP_CHECKSUM_AT..at + UDP_CHECKSUM_AT + 2) {
            place.copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

/// Writes the IP packets that carry `datagram` over `path`: one if it fits `mtu`, else fragments that share `id`. Each is
/// handed to `take` with the link type's ethertype. Where one is enough it must not be fragmented on the way.
pub fn for_each_packet(path: Path, datagram: &[u8], mtu: usize, id: u32, mut take: impl FnMut(Piece<'_>)) {
    let header_bytes = path.ip_header_bytes();
    if header_bytes + datagram.len() <= mtu {
        return take(Piece { header: ip_header(path, datagram.len(), None), payload: datagram });
    }
    let fragment_header_bytes = match path {
        Path::V4 { .. } => 0,
        Path::V6 { .. } => IPV6_FRAGMENT_HEADER_BYTES,
    };
    // Every fragment but the last holds a multiple of eight bytes.
    let room = (mtu.saturating_sub(header_bytes + fragment_header_bytes) / 8 * 8).max(8);
    let mut offset = 0;
    for payload in datagram.chunks(room) {
        let more = offset + payload.len() < datagram.len();
        let fragment = Fragmentation { id, offset, more };
        take(Piece { header: ip_header(path, payload.len(), Some(&fragment)), payload });
        offset += payload.len();
    }
}

/// What stands before a datagram that goes whole: ethertype and IP header.
pub fn whole_header(path: Path, datagram_bytes: usize) -> IpHeader {
    ip_header(path, datagram_bytes, None)
}

/// One outer IP packet.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Ethertype and IP header.
    pub header: IpHeader,
    /// What follows.
    pub payload: &'a [u8],
}

/// An ethertype and an IP header.
#[derive(Debug, Clone, Copy)]
pub struct IpHeader {
    bytes: [u8; 2 + IPV6_HEADER_BYTES + IPV6_FRAGMENT_HEADER_BYTES],
    length: usize,
}

impl IpHeader {
    /// As they stand behind the addresses of an Ethernet header.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn push<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(free) = self.bytes.get_mut(self.length..self.length + N) {
            free.copy_from_slice(&bytes);
            self.length += N;
        }
    }
}

struct Fragmentation {
    id: u32,
    /// In bytes.
    offset: usize,
    more: bool,
}

fn ip_header(path: Path, payload_bytes: usize, fragment: Option<&Fragmentation>) -> IpHeader {
    let mut header = IpHeader { bytes: [0; _], length: 0 };
    match path {
        Path::V4 { src, dst } => {
            header.push([0x08, 0x00]);
            let total_bytes = ((IPV4_HEADER_BYTES + payload_bytes) as u16).to_be_bytes();
            let (id, flags_and_offset) = match fragment {
                // RFC 6864: without fragments the identification means nothing.
                None => (0, DONT_FRAGMENT),
                Some(&Fragmentation { id, offset, more }) => {
                    (id as u16, (offset / 8) as u16 | if more { MORE_FRAGMENTS } else { 0 })
                }
            };
            let (id, flags): ([u8; 2], [u8; 2]) = (id.to_be_bytes(), flags_and_offset.to_be_bytes());
            let ([length_0, length_1], [id_0, id_1], [flags_0, flags_1]) = (total_bytes, id, flags);
            header.push([0x45, 0, length_0, length_1, id_0, id_1, flags_0, flags_1, HOPS, UDP]);
            let sum = Sum::default().over(header.as_slice().get(2..).unwrap_or_default());
            let checksum = sum.over(&[0, 0]).over(&src.octets()).over(&dst.octets()).checksum();
            header.push(checksum.to_be_bytes());
            header.push(src.octets());
            header.push(dst.octets());
        }
        Path::V6 { src, dst } => {
            header.push([0x86, 0xdd]);
            let (extension_bytes, next_header) =
                if fragment.is_some() { (IPV6_FRAGMENT_HEADER_BYTES, FRAGMENT_HEADER) } else { (0, UDP) };
            let [length_0, length_1] = ((extension_bytes + payload_bytes) as u16).to_be_bytes();
            header.push([0x60, 0, 0, 0, length_0, length_1, next_header, HOPS]);
            header.push(src.octets());
            header.push(dst.octets());
            if let Some(&Fragmentation { id, offset, more }) = fragment {
                let [offset_0, offset_1] = (offset as u16 | u16::from(more)).to_be_bytes();
                header.push([UDP, 0, offset_0, offset_1]);
                header.push(id.to_be_bytes());
            }
        }
    }
    header
}

/// VXLAN or GENEVE without options.
pub const TUNNEL_HEADER_BYTES: usize = 8;
/// Source port, destination port, length, checksum.
pub const UDP_HEADER_BYTES: usize = 8;
/// The longest inner frame that an IPv4 packet of 65535 bytes holds. IPv6 holds 20 more; they are left.
pub const INNER_BYTES_MAX: usize = 65_535 - IPV4_HEADER_BYTES - UDP_HEADER_BYTES - TUNNEL_HEADER_BYTES;

/// The I flag: the VNI is valid.
const VXLAN_FLAGS: u8 = 0x08;
/// Transparent Ethernet bridging, the protocol type of GENEVE.
const ETHERNET_BRIDGED: u16 = 0x6558;
const UDP: u8 = 17;
const UDP_CHECKSUM_AT: usize = 6;
/// How many routers a packet of ours may pass.
pub const HOPS: u8 = 64;
const IPV4_HEADER_BYTES: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const IPV6_HEADER_BYTES: usize = 40;
const IPV6_FRAGMENT_HEADER_BYTES: usize = 8;
const FRAGMENT_HEADER: u8 = 44;

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Path = Path::V4 { src: Ipv4Addr::new(192, 0, 2, 1), dst: Ipv4Addr::new(10, 83, 0, 2) };
    const V6: Path = Path::V6 {
        src: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        dst: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    };

    /// An ARP request's worth of nothing: fourteen bytes.
    const INNER: [u8; 14] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];

    fn envelope(encapsulation: Encapsulation) -> Envelope {
        let vni = Vni::new(0x0012_3456).unwrap();
        Envelope { src_port: 0xc001, dst_port: 4789, tunnel: tunnel_header(encapsulation, vni) }
    }

    fn packets(path: Path, inner: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let mut datagram = Vec::new();
        push_datagram(path, &envelope(Encapsulation::Vxlan), inner, &mut datagram);
        let mut packets = Vec::new();
        for_each_packet(path, &datagram, mtu, 0x0001_0203, |piece| {
            packets.push([piece.header.as_slice(), piece.payload].concat());
        });
        packets
    }

    /// The vector of the specification, part 5.
    #[test]
    fn headers_have_no_reserved_bit() {
        let vni = Vni::new(0x0012_3456).unwrap();
        assert_eq!(tunnel_header(Encapsulation::Vxlan, vni), [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        assert_eq!(tunnel_header(Encapsulation::Geneve, vni), [0, 0, 0x65, 0x58, 0x12, 0x34, 0x56, 0]);
    }

    /// M1 of the specification. The IPv4 header's words 4500 0032 0000 4000 4011 c000 0201 0a53 0002 sum to 19199, so
    /// 919a, and the checksum is 6e65.
    #[test]
    fn the_golden_frame_over_ipv4() {
        #[rustfmt::skip]
        let expected = [
            0x08, 0x00,
            0x45, 0x00, 0x00, 0x32, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x6e, 0x65, 192, 0, 2, 1, 10, 83, 0, 2,
            0xc0, 0x01, 0x12, 0xb5, 0x00, 0x1e, 0x00, 0x00,
            0x08, 0x00, 0x00, 0x00, 0x12, 0x34, 0x56, 0x00,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5,
        ];
        assert_eq!(packets(V4, &INNER, 1500), [expected]);
    }

    /// The pseudo-header's words 2001 0db8 0001 2001 0db8 0002 001e 0011 sum to 5ba4; the datagram's c001 12b5 001e,
    /// 0800 1234 5600 and ffff ffff ffff 0200 0001 88b5 to 4cdbb. Both together are 5295f, 2964 folded, and the checksum
    /// is d69b.
    #[test]
    fn the_golden_frame_over_ipv6() {
        #[rustfmt::skip]
        let expected = [
            0x86, 0xdd,
            0x60, 0x00, 0x00, 0x00, 0x00, 0x1e, 0x11, 0x40,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
            0xc0, 0x01, 0x12, 0xb5, 0x00, 0x1e, 0xd6, 0x9b,
            0x08, 0x00, 0x00, 0x00, 0x12, 0x34, 0x56, 0x00,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5,
        ];
        assert_eq!(packets(V6, &INNER, 1500), [expected]);
    }

    #[test]
    fn what_does_not_fit_goes_in_fragments() {
        let inner: Vec<u8> = (0..100).collect();
        // 116 bytes of UDP; 60 - 20 leaves 40, a multiple of eight.
        let v4 = packets(V4, &inner, 60);
        let fields: Vec<_> = v4.iter().map(|packet| (packet.len() - 2, [packet[8], packet[9]])).collect();
        assert_eq!(fields, [(60, [0x20, 0]), (60, [0x20, 5]), (56, [0, 10])]);
        assert!(v4.iter().all(|packet| packet[6..8] == [2, 3]), "one identification");
        let rejoined: Vec<u8> = v4.iter().flat_map(|packet| packet[22..].to_vec()).collect();
        let mut whole = Vec::new();
        push_datagram(V4, &envelope(Encapsulation::Vxlan), &inner, &mut whole);
        assert_eq!(rejoined, whole);

        // 116 - 48 leaves 68, of which 64 are a multiple of eight.
        let v6 = packets(V6, &inner, 116);
        assert_eq!(v6.len(), 2);
        assert_eq!(v6[0][2 + 40..2 + 48], [17, 0, 0, 1, 0, 1, 2, 3]);
        assert_eq!(v6[1][2 + 40..2 + 48], [17, 0, 0, 64, 0, 1, 2, 3]);
        assert_eq!(v6[0].len(), 2 + 48 + 64);
        assert_eq!(packets(V4, &inner, 136).len(), 1, "20 + 116 fit exactly");
    }

    #[test]
    fn the_longest_inner_frame_fits() {
        let inner = vec![0; INNER_BYTES_MAX];
        assert_eq!(V4.packet_bytes(inner.len()), 65_535);
        assert_eq!(packets(V4, &inner, 65_535)[0][4..6], [0xff, 0xff]);
    }
}
