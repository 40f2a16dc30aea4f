//! One number for both directions of a connection: it chooses the outer source port and the target.
//!
//! Authority: the AWS page on packet formats (the source port is a hash of the inner five-tuple), RFC 7348 section 5 (the
//! range 49152 to 65535), and Community ID version 1 for the order of the two ends and for the ICMP types that answer
//! each other. Other protocols, and every piece of a fragmented datagram (the first included, so that it stays with the
//! others), are told apart by addresses and protocol alone.

use siphasher::sip::SipHasher13;

use crate::packet::{Addresses, Fragment, Packet};

/// The key of the hash. Sensors with one key give the same connection the same port, whoever of them sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowSeed(pub u64);

/// The hash of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowHash(pub u64);

impl FlowHash {
    /// The hash of the connection that a packet belongs to, the same in both directions.
    #[inline]
    pub fn of(seed: FlowSeed, packet: &Packet) -> Self {
        let ports = if packet.fragment == Fragment::None { Ports::of(packet) } else { Ports::None };
        let mut key = Key { bytes: [0; KEY_BYTES_MAX], length: 0 };
        match packet.addresses {
            Addresses::V4 { src, dst } => key.push_ends(src.to_be_bytes(), dst.to_be_bytes(), ports),
            Addresses::V6 { src, dst } => key.push_ends(src.to_be_bytes(), dst.to_be_bytes(), ports),
        }
        key.push([packet.protocol]);
        Self(SipHasher13::new_with_keys(seed.0, HASH_KEY).hash(key.as_slice()))
    }

    /// The source port of the outer UDP header: 49152 to 65535.
    #[inline]
    pub fn source_port(self) -> u16 {
        SOURCE_PORT_MIN + ((self.0 >> 48) as u16) % SOURCE_PORTS
    }
}

/// The first outer source port.
pub const SOURCE_PORT_MIN: u16 = 49_152;

/// How many outer source ports there are.
pub const SOURCE_PORTS: u16 = 16_384;

/// The second half of the hash's key, a constant: "flowtap" in ASCII.
const HASH_KEY: u64 = 0x0066_6c6f_7774_6170;

/// What the two port numbers mean to the hash.
#[derive(Clone, Copy)]
enum Ports {
    /// There are none.
    None,
    /// An ICMP message that nothing answers: type and code stay in their order.
    OneWay(u16, u16),
    /// Ports, or an ICMP type and the type that answers it.
    TwoWay(u16, u16),
}

impl Ports {
    #[inline]
    fn of(packet: &Packet) -> Self {
        let pairs: &[(u8, u8)] = match (packet.protocol, packet.icmp) {
            (TCP | UDP | SCTP, _) => return Self::TwoWay(packet.src_port, packet.dst_port),
            (ICMP, Some(_)) => &ICMP_PAIRS,
            (ICMPV6, Some(_)) => &ICMPV6_PAIRS,
            _ => return Self::None,
        };
        let (kind, code) = packet.icmp.unwrap_or_default();
        let answer = pairs.iter().find_map(|&(one, other)| match kind {
            kind if kind == one => Some(other),
            kind if kind == other => Some(one),
            _ => None,
        });
        match answer {
            Some(answer) => Self::TwoWay(kind.into(), answer.into()),
            None => Self::OneWay(kind.into(), code.into()),
        }
    }
}

/// The bytes that are hashed: lower end, higher end, protocol.
struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    length: usize,
}

impl Key {
    #[inline]
    fn push_ends<const N: usize>(&mut self, src: [u8; N], dst: [u8; N], ports: Ports) {
        let (mut low, mut high) = match ports {
            Ports::None => ((src, 0), (dst, 0)),
            Ports::OneWay(src_port, dst_port) | Ports::TwoWay(src_port, dst_port) => ((src, src_port), (dst, dst_port)),
        };
        if !matches!(ports, Ports::OneWay(..)) && high < low {
            std::mem::swap(&mut low, &mut high);
        }
        self.push(low.0);
        self.push(high.0);
        self.push(low.1.to_be_bytes());
        self.push(high.1.to_be_bytes());
    }

    #[inline]
    fn push<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(free) = self.bytes.get_mut(self.length..self.length + N) {
            free.copy_from_slice(&bytes);
            self.length += N;
        }
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Two IPv6 addresses, two ports, a protocol.
const KEY_BYTES_MAX: usize = 2 * 16 + 2 * 2 + 1;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Echo, timestamp, information, router solicitation and address mask, each with its answer.
const ICMP_PAIRS: [(u8, u8); 5] = [(8, 0), (13, 14), (15, 16), (10, 9), (17, 18)];

/// Echo, listener query, router and neighbour solicitation, node information and home agent discovery.
const ICMPV6_PAIRS: [(u8, u8); 6] = [(128, 129), (130, 131), (133, 134), (135, 136), (139, 140), (144, 145)];

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::capture::Direction;

    pub(crate) fn packet(addresses: Addresses, protocol: u8, src_port: u16, dst_port: u16) -> Packet {
        Packet {
            addresses,
            protocol,
            src_port,
            dst_port,
            tcp_flags: 0,
            ip_bytes: 40,
            fragment: Fragment::None,
            icmp: None,
            vlan: None,
            ether: None,
            direction: Direction::Unknown,
        }
    }

    fn v4(src: u32, dst: u32, protocol: u8, src_port: u16, dst_port: u16) -> Packet {
        packet(Addresses::V4 { src, dst }, protocol, src_port, dst_port)
    }

    fn port(packet: &Packet) -> u16 {
        FlowHash::of(FlowSeed(7), packet).source_port()
    }

    fn hash(packet: &Packet) -> FlowHash {
        FlowHash::of(FlowSeed(7), packet)
    }

    #[test]
    fn the_hash_is_siphash_1_3_over_ends_and_protocol() {
        // The same bytes, laid out by hand, through the crate's other way of hashing.
        use std::hash::Hasher as _;
        let mut sip = SipHasher13::new_with_keys(7, 0x66_6c6f_7774_6170);
        sip.write(&[10, 0, 0, 1, 192, 0, 2, 7, 0x04, 0x01, 0x01, 0xbb, 6]);
        assert_eq!(hash(&v4(0x0a00_0001, 0xc000_0207, 6, 1025, 443)).0, sip.finish());
    }

    #[test]
    fn an_echo_and_its_reply_are_one_flow_and_a_message_without_answer_is_its_own() {
        let icmp = |src, dst, icmp| Packet { icmp: Some(icmp), ..v4(src, dst, 1, 0, 0) };
        assert_eq!(hash(&icmp(1, 2, (8, 0))), hash(&icmp(2, 1, (0, 0))));
        assert_ne!(hash(&icmp(1, 2, (3, 1))), hash(&icmp(1, 2, (3, 3))));
        let icmp6 = |src, dst, kind| Packet { icmp: Some((kind, 0)), ..packet(Addresses::V6 { src, dst }, 58, 0, 0) };
        assert_eq!(hash(&icmp6(1, 2, 128)), hash(&icmp6(2, 1, 129)));
    }

    #[test]
    fn all_pieces_of_a_datagram_are_together() {
        let first = Packet { fragment: Fragment::First { id: 3 }, ..v4(1, 2, 17, 1000, 53) };
        let later = Packet { fragment: Fragment::Later { id: 3 }, ..v4(1, 2, 17, 0, 0) };
        assert_eq!(hash(&first), hash(&later));
        assert_eq!(hash(&first), hash(&Packet { fragment: Fragment::First { id: 9 }, ..v4(2, 1, 17, 53, 1000) }));
    }

    #[test]
    fn the_port_comes_from_the_upper_bits() {
        assert_eq!(FlowHash(0).source_port(), 49_152);
        assert_eq!(FlowHash(u64::MAX).source_port(), 65_535);
        assert_eq!(FlowHash(0x0001_ffff_ffff_ffff).source_port(), 49_153);
        assert_eq!(FlowHash(0x4000_0000_0000_0000).source_port(), 49_152);
    }

    proptest! {
        #[test]
        fn both_directions_have_one_hash(src: u128, dst: u128, ports: (u16, u16), protocol: u8) {
            let there = packet(Addresses::V6 { src, dst }, protocol, ports.0, ports.1);
            let back = packet(Addresses::V6 { src: dst, dst: src }, protocol, ports.1, ports.0);
            prop_assert_eq!(hash(&there), hash(&back));
            let (src, dst) = (src as u32, dst as u32);
            prop_assert_eq!(hash(&v4(src, dst, protocol, ports.0, ports.1)), hash(&v4(dst, src, protocol, ports.1, ports.0)));
            prop_assert!((49_152..=65_535).contains(&port(&there)));
        }
    }
}
