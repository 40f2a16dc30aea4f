//! The flow key: what makes two packets one flow.
//!
//! Authority: AWS "Flow log records" (a record is one five-tuple on one interface in one interval). Direction takes
//! part where it is known; VLAN tags do not. A key is packed so that it compares as a few machine words, in the order in
//! which a replay sorts its rows: interface, source, destination, ports, protocol, direction.

use std::cmp::Ordering;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::capture::{Direction, DropReason};

/// What both families of key can do.
pub trait FlowKey: Copy + Eq + Ord + Hash + Send + 'static {
    /// The first 64 bits of the key's order: keys with different prefixes order as these do.
    fn prefix(self) -> u64;
    /// Index of the interface: the first thing keys are ordered by.
    fn interface(self) -> u16;
    /// The key's parts.
    fn parts(self) -> KeyParts;
    /// The same key with other ports and protocol: a later fragment's, once its first fragment is known.
    fn with_ports(self, ports: Ports) -> Self;
    /// The key of the same flow's packets that the kernel turned away for this reason.
    fn rejected(self, reason: DropReason) -> Self;
}

/// The part of a key that only a datagram's first fragment knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
    /// IANA protocol number.
    pub protocol: u8,
}

/// A key taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyParts {
    /// Index of the interface.
    pub interface: u16,
    /// What the capture says of the direction.
    pub direction: Direction,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Ports and protocol.
    pub ports: Ports,
    /// Why the kernel turned the packets away, if it did.
    pub rejection: Option<DropReason>,
}

/// The key of an IPv4 flow: 128 bits, most significant first: interface 16, source 32, destination 32, source port 16,
/// destination port 16, protocol 8, direction 2, drop reason 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key4 {
    high: u64,
    low: u64,
}

impl Key4 {
    /// Packs a key. Addresses are numbers: 10.0.0.1 is `0x0a00_0001`.
    #[inline]
    pub fn new(interface: u16, direction: Direction, src: u32, dst: u32, ports: Ports) -> Self {
        Self {
            high: u64::from(interface) << 48 | u64::from(src) << 16 | u64::from(dst) >> 16,
            low: u64::from(dst & 0xffff) << 48 | pack_ports(ports, direction),
        }
    }
}

impl FlowKey for Key4 {
    #[inline]
    fn prefix(self) -> u64 {
        self.high
    }

    fn interface(self) -> u16 {
        (self.high >> 48) as u16
    }

    fn parts(self) -> KeyParts {
        let src = (self.high >> 16) as u32;
        let dst = (self.high as u32) << 16 | (self.low >> 48) as u32;
        let (ports, direction, rejection) = unpack_ports(self.low);
        KeyParts {
            interface: self.interface(),
            direction,
            src: IpAddr::V4(Ipv4Addr::from_bits(src)),
            dst: IpAddr::V4(Ipv4Addr::from_bits(dst)),
            ports,
            rejection,
        }
    }

    fn rejected(self, reason: DropReason) -> Self {
        Self { low: with_reason(self.low, reason), ..self }
    }

    fn with_ports(self, ports: Ports) -> Self {
        let (_, direction, _) = unpack_ports(self.low);
        Self { low: self.low & !PORTS_MASK | pack_ports(ports, direction), ..self }
    }
}

/// The key of an IPv6 flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key6 {
    // Halves, not u128, keep the alignment at eight bytes.
    src: [u64; 2],
    dst: [u64; 2],
    /// Interface 16 bits, then ports, protocol and direction as in the low word of [`Key4`].
    interface_ports: u64,
}

impl Key6 {
    /// Packs a key.
    #[inline]
    pub fn new(interface: u16, direction: Direction, src: u128, dst: u128, ports: Ports) -> Self {
        Self {
            src: halves(src),
            dst: halves(dst),
            interface_ports: u64::from(interface) << 48 | pack_ports(ports, direction),
        }
    }

    fn in_order(self) -> (u64, [u64; 2], [u64; 2], u64) {
        (self.interface_ports >> 48, self.src, self.dst, self.interface_ports)
    }
}

impl Ord for Key6 {
    fn cmp(&self, other: &Self) -> Ordering {
        self.in_order().cmp(&other.in_order())
    }
}

impl PartialOrd for Key6 {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FlowKey for Key6 {
    #[inline]
    fn prefix(self) -> u64 {
        self.interface_ports & !PORTS_MASK | self.src[0] >> 16
    }

    fn interface(self) -> u16 {
        (self.interface_ports >> 48) as u16
    }

    fn parts(self) -> KeyParts {
        let (ports, direction, rejection) = unpack_ports(self.interface_ports);
        KeyParts {
            interface: self.interface(),
            direction,
            src: IpAddr::V6(Ipv6Addr::from_bits(whole(self.src))),
            dst: IpAddr::V6(Ipv6Addr::from_bits(whole(self.dst))),
            ports,
            rejection,
        }
    }

    fn rejected(self, reason: DropReason) -> Self {
        Self { interface_ports: with_reason(self.interface_ports, reason), ..self }
    }

    fn with_ports(self, ports: Ports) -> Self {
        let (_, direction, _) = unpack_ports(self.interface_ports);
        Self { interface_ports: self.interface_ports & !PORTS_MASK | pack_ports(ports, direction), ..self }
    }
}

/// The low 48 bits of a packed word hold ports, protocol, direction and drop reason.
const PORTS_MASK: u64 = 0xffff_ffff_ffff;
const REASON_MASK: u64 = 0x3f;
const DIRECTION_SHIFT: u32 = 6;

#[inline]
fn pack_ports(ports: Ports, direction: Direction) -> u64 {
    let ports_and_protocol = u64::from(ports.src) << 32 | u64::from(ports.dst) << 16 | u64::from(ports.protocol) << 8;
    ports_and_protocol | (direction as u64) << DIRECTION_SHIFT
}

fn with_reason(word: u64, reason: DropReason) -> u64 {
    word & !REASON_MASK | u64::from(reason.number())
}

fn unpack_ports(word: u64) -> (Ports, Direction, Option<DropReason>) {
    let direction = match (word as u8) >> DIRECTION_SHIFT {
        1 => Direction::Ingress,
        2 => Direction::Egress,
        _ => Direction::Unknown,
    };
    let ports = Ports { src: (word >> 32) as u16, dst: (word >> 16) as u16, protocol: (word >> 8) as u8 };
    (ports, direction, DropReason::from_number((word & REASON_MASK) as u8))
}

const _: () = assert!(REASON_MASK == crate::capture::DROP_REASONS_MAX as u64);

#[inline]
fn halves(address: u128) -> [u64; 2] {
    [(address >> 64) as u64, address as u64]
}

fn whole(halves: [u64; 2]) -> u128 {
    u128::from(halves[0]) << 64 | u128::from(halves[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn direction() -> impl Strategy<Value = Direction> {
        prop_oneof![Just(Direction::Unknown), Just(Direction::Ingress), Just(Direction::Egress)]
    }

    /// The order of rows, spelled out field by field.
    fn order(parts: &KeyParts) -> (u16, IpAddr, IpAddr, u16, u16, u8, Direction) {
        (parts.interface, parts.src, parts.dst, parts.ports.src, parts.ports.dst, parts.ports.protocol, parts.direction)
    }

    type Tuple = (u16, Direction, u128, u128, (u16, u16, u8));

    fn tuple() -> impl Strategy<Value = Tuple> {
        // A small range now and then, so that fields tie and the later ones decide.
        let address = prop_oneof![0..3_u128, any::<u128>()];
        let port = prop_oneof![0..3_u16, any::<u16>()];
        (0..3_u16, direction(), address.clone(), address, (port.clone(), port, any::<u8>()))
    }

    fn key4(t: &Tuple) -> Key4 {
        Key4::new(t.0, t.1, t.2 as u32, t.3 as u32, Ports { src: t.4.0, dst: t.4.1, protocol: t.4.2 })
    }

    fn key6(t: &Tuple) -> Key6 {
        Key6::new(t.0, t.1, t.2, t.3, Ports { src: t.4.0, dst: t.4.1, protocol: t.4.2 })
    }

    proptest! {
        #[test]
        fn a_reason_comes_back_and_changes_nothing_else(t in tuple(), number in 1..=crate::capture::DROP_REASONS_MAX) {
            let reason = DropReason::from_number(number).unwrap();
            let accepted4 = key4(&t);
            let accepted6 = key6(&t);
            prop_assert_eq!(accepted4.rejected(reason).parts(), KeyParts { rejection: Some(reason), ..accepted4.parts() });
            prop_assert_eq!(accepted6.rejected(reason).parts(), KeyParts { rejection: Some(reason), ..accepted6.parts() });
            prop_assert!(accepted4.rejected(reason) > accepted4 && accepted6.rejected(reason) > accepted6);
            prop_assert_eq!(accepted4.parts().rejection, None);
        }

        #[test]
        fn parts_give_back_what_was_packed(t in tuple()) {
            let parts = key4(&t).parts();
            prop_assert_eq!((parts.interface, parts.direction), (t.0, t.1));
            prop_assert_eq!(parts.src, IpAddr::V4(Ipv4Addr::from_bits(t.2 as u32)));
            prop_assert_eq!(parts.dst, IpAddr::V4(Ipv4Addr::from_bits(t.3 as u32)));
            prop_assert_eq!((parts.ports.src, parts.ports.dst, parts.ports.protocol), t.4);
            let parts = key6(&t).parts();
            prop_assert_eq!((parts.interface, parts.direction), (t.0, t.1));
            prop_assert_eq!(parts.src, IpAddr::V6(Ipv6Addr::from_bits(t.2)));
            prop_assert_eq!(parts.dst, IpAddr::V6(Ipv6Addr::from_bits(t.3)));
            prop_assert_eq!((parts.ports.src, parts.ports.dst, parts.ports.protocol), t.4);
        }

        #[test]
        fn keys_order_as_their_parts_do(a in tuple(), b in tuple()) {
            prop_assert_eq!(key4(&a).cmp(&key4(&b)), order(&key4(&a).parts()).cmp(&order(&key4(&b).parts())));
            prop_assert_eq!(key6(&a).cmp(&key6(&b)), order(&key6(&a).parts()).cmp(&order(&key6(&b).parts())));
        }

        #[test]
        fn a_prefix_never_contradicts_the_order(a in tuple(), b in tuple()) {
            if key4(&a).prefix() < key4(&b).prefix() { prop_assert!(key4(&a) < key4(&b)); }
            if key6(&a).prefix() < key6(&b).prefix() { prop_assert!(key6(&a) < key6(&b)); }
        }

        #[test]
        fn other_ports_change_nothing_else(t in tuple(), src: u16, dst: u16, protocol: u8) {
            let ports = Ports { src, dst, protocol };
            prop_assert_eq!(key4(&t).with_ports(ports), key4(&(t.0, t.1, t.2, t.3, (src, dst, protocol))));
            prop_assert_eq!(key6(&t).with_ports(ports), key6(&(t.0, t.1, t.2, t.3, (src, dst, protocol))));
        }
    }
}
