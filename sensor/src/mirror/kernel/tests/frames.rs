//! Frames put together by hand, and what a receiver reads from an encapsulated one. Nothing is taken from the code under
//! test.

use std::net::{IpAddr, SocketAddr};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// A UDP datagram in an Ethernet frame with complete checksums; `tag` is a VLAN.
pub(super) fn udp(src: &str, dst: &str, tag: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let mut datagram = src.port().to_be_bytes().to_vec();
    datagram.extend(dst.port().to_be_bytes());
    datagram.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let sum = checksum(&[&pseudo_header(src.ip(), dst.ip(), UDP, datagram.len()), &datagram]);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    ethernet(tag, &ip(src.ip(), dst.ip(), UDP, &datagram))
}

/// An IP packet without options or fragments.
pub(super) fn ip(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
            let mut packet = vec![0x45, 0, total[0], total[1], 0, 7, 0, 0, 64, protocol, 0, 0];
            packet.extend(src.octets());
            packet.extend(dst.octets());
            let sum = checksum(&[&packet]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.extend(payload);
            packet
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
            let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], protocol, 64];
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(payload);
            packet
        }
        _ => panic!("{src} {dst}"),
    }
}

/// A piece of an IPv4 UDP datagram with that identification; `place` is its field of flags and offset.
pub(super) fn piece(src: IpAddr, dst: IpAddr, id: u16, place: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = ip(src, dst, UDP, payload);
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&place.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

pub(super) fn ethernet(tag: Option<u16>, packet: &[u8]) -> Vec<u8> {
    // To everyone, so that the host takes it whatever its address.
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9]);
    if let Some(tag) = tag {
        frame.extend([0x81, 0]);
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
    frame.extend(packet);
    frame
}

/// An encapsulated frame, as a strict receiver reads it.
#[derive(Debug)]
pub(super) struct Outer<'a> {
    pub(super) dst: IpAddr,
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) may_fragment: bool,
    pub(super) has_checksum: bool,
    /// VXLAN or GENEVE, eight bytes.
    pub(super) tunnel: [u8; 8],
    pub(super) inner: &'a [u8],
}

impl<'a> Outer<'a> {
    /// `None` for what is no UDP packet to a tunnel port. Lengths must agree with each other.
    pub(super) fn read(frame: &'a [u8]) -> Option<Self> {
        let packet = Packet::read(frame)?;
        if packet.protocol != UDP || packet.is_piece || ![4789, 4790, 6081].contains(&packet.dst_port) {
            return None;
        }
        let udp = packet.transport;
        assert_eq!(usize::from(u16::from_be_bytes([udp[4], udp[5]])), udp.len(), "the outer lengths agree");
        let tunnel: [u8; 8] = udp[8..16].try_into().unwrap();
        Some(Self {
            dst: packet.dst,
            src_port: packet.src_port,
            dst_port: packet.dst_port,
            may_fragment: packet.may_fragment,
            has_checksum: udp[6..8] != [0, 0],
            tunnel,
            inner: &udp[16..],
        })
    }
}

/// A packet in an Ethernet frame. Only its IP length counts, not the frame's.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: u8,
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) is_piece: bool,
    pub(super) may_fragment: bool,
    pub(super) transport: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None` for what is not TCP or UDP over IP. A frame shorter than its packet is an error of the test.
    pub(super) fn read(frame: &'a [u8]) -> Option<Self> {
        let (ether_type, packet) = match frame[12..14] {
            [0x81, 0] => (&frame[16..18], &frame[18..]),
            _ => (&frame[12..14], &frame[14..]),
        };
        let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let (src, dst, protocol, is_piece, may_fragment, transport): (IpAddr, IpAddr, _, _, _, _) = match ether_type {
            [8, 0] => {
                let header = usize::from(packet[0] & 15) * 4;
                assert_eq!(checksum(&[&packet[..header]]), 0, "IP checksum");
                let [src, dst] = [12, 16].map(|at| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
                let is_piece = word(6) & 0x3fff != 0;
                let transport = &packet[header..usize::from(word(2))];
                (src.into(), dst.into(), packet[9], is_piece, word(6) & 0x4000 == 0, transport)
            }
            [0x86, 0xdd] => {
                let [src, dst] = [8, 24].map(|at| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
                let transport = &packet[40..40 + usize::from(word(4))];
                (src.into(), dst.into(), packet[6], packet[6] == 44, true, transport)
            }
            _ => return None,
        };
        if !is_piece && !matches!(protocol, TCP | UDP) {
            return None;
        }
        let port = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
        let (src_port, dst_port) = (port(0), port(2));
        Some(Self { src, dst, protocol, src_port, dst_port, is_piece, may_fragment, transport })
    }

    /// Whether its transport checksum is right.
    pub(super) fn is_complete(&self) -> bool {
        let header = pseudo_header(self.src, self.dst, self.protocol, self.transport.len());
        checksum(&[&header, self.transport]) == 0
    }

    /// What TCP or UDP carries.
    pub(super) fn payload(&self) -> &'a [u8] {
        let header = if self.protocol == TCP { usize::from(self.transport[12] >> 4) * 4 } else { 8 };
        &self.transport[header..]
    }

    pub(super) fn sequence(&self) -> u32 {
        u32::from_be_bytes(self.transport[4..8].try_into().unwrap())
    }
}

pub(super) fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => [src.octets(), dst.octets()].concat(),
        (IpAddr::V6(src), IpAddr::V6(dst)) => [src.octets(), dst.octets()].concat(),
        _ => panic!("{src} {dst}"),
    };
    bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// RFC 1071.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
