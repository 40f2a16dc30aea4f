//! One number for both directions of a connection: it chooses the outer source port and the target.
//!
//! Authority: the AWS page on packet formats (the source port is a hash of the inner five-tuple), RFC 7348 section 5 (the
//! range 49152 to 65535), and Community ID version 1 for the ICMP types that answer each other. Other protocols, and every
//! piece of a fragmented datagram (the first included, so that it stays with the others), are told apart by addresses and
//! protocol alone. The arithmetic is [`flowtap_abi::choice`], which the kernel's executor uses too.

use flowtap_abi::choice;

use crate::packet::{Addresses, Fragment, Packet};

/// The hash of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowHash(pub u64);

impl FlowHash {
    /// The hash of the connection that a packet belongs to, the same in both directions and on every sensor.
    #[inline]
    pub fn of(packet: &Packet) -> Self {
        let ports = match (packet.fragment, packet.protocol) {
            (Fragment::None, TCP | UDP | SCTP) => (packet.src_port, packet.dst_port),
            (Fragment::None, ICMP | ICMPV6) => {
                let (icmp_type, code) = packet.icmp.unwrap_or(choice::NO_ICMP.into());
                choice::icmp_ports(packet.protocol, icmp_type, code)
            }
            _ => (0, 0),
        };
        let (src, dst) = match packet.addresses {
            Addresses::V4 { src, dst } => (in_front(src), in_front(dst)),
            Addresses::V6 { src, dst } => (src.to_be_bytes(), dst.to_be_bytes()),
        };
        Self(choice::flow_hash(src, dst, ports, packet.protocol))
    }

    /// The source port of the outer UDP header.
    #[inline]
    pub fn source_port(self) -> u16 {
        choice::source_port(self.0)
    }
}

/// An IPv4 address, and zeros behind it.
#[inline]
pub(super) fn in_front(address: u32) -> [u8; 16] {
    (u128::from(address) << 96).to_be_bytes()
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

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
        FlowHash::of(packet).source_port()
    }

    fn hash(packet: &Packet) -> FlowHash {
        FlowHash::of(packet)
    }

    /// Both expected values are a few lines of Python's, written from the description in `flowtap_abi::choice`.
    #[test]
    fn the_hash_is_the_same_on_every_sensor() {
        assert_eq!(hash(&v4(0x0a00_0001, 0xc000_0207, 6, 1025, 443)).0, 0xe503_2e15_4352_c71e);
        let (src, dst) = (0x2001_0db8 << 96 | 1, 0x2001_0db8 << 96 | 2);
        assert_eq!(hash(&packet(Addresses::V6 { src, dst }, 17, 5353, 53)).0, 0x0c38_2393_2729_9217);
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

    /// The kernel multiplies the hash, its halves put together in the upper one, by the 16 383 ports of the range.
    #[test]
    fn the_port_is_what_the_kernels_tunnel_device_chooses() {
        assert_eq!(FlowHash(0).source_port(), 49_152);
        assert_eq!(FlowHash(u64::MAX).source_port(), 49_152);
        assert_eq!(FlowHash(0xffff_0000).source_port(), 65_534);
        assert_eq!(FlowHash(0x8000_0000).source_port(), 57_343);
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
