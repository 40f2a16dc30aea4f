//! What is never mirrored, whatever the rules say: mirrored copies themselves. What they are is said by
//! [`flowtap_abi::guard`], which the kernel's executor uses too; here is what it asks for.

use std::net::IpAddr;

use flowtap_abi::guard::{self, Bytes, Suspect, Targets};

use super::datagrams::Datagrams;
use super::flow_hash::in_front;
use super::{Datagram, Probe, Target};
use crate::packet::{Addresses, Fragment, Layout};

/// What a packet's addresses and ports tell of whether it is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnOutput {
    /// It is not.
    No,
    /// It is: a copy, or an answer to one.
    Yes,
    /// It is if it holds a tunnel datagram itself: a copy of a copy.
    IfItHoldsACopy,
    /// It is if it is an error that quotes a copy.
    IfItQuotesACopy,
}

/// The guard of one stream of frames.
#[derive(Debug)]
pub(super) struct Guard {
    known: Known,
    /// Whether the first piece of a datagram was held back.
    datagrams: Datagrams<bool>,
}

/// The addresses and ports of all targets.
#[derive(Debug)]
struct Known {
    ports: Vec<u16>,
    /// With the version of IP.
    addresses: Vec<(u8, [u8; 16])>,
}

impl Guard {
    /// A guard for these targets. `seed` keeps strangers from choosing datagrams that collide.
    pub(super) fn new(targets: &[Target], seed: u64) -> Self {
        Self { known: Known::new(targets), datagrams: Datagrams::new(seed) }
    }

    /// Whether a packet must not be mirrored. Of a datagram in pieces the first one decides for all.
    #[inline]
    pub(super) fn holds_back(&mut self, interface: u16, layout: &Layout, frame: &[u8]) -> bool {
        let packet = &layout.packet;
        let datagram = Datagram::of(packet.fragment, packet.addresses, packet.protocol);
        match (packet.fragment, datagram) {
            (Fragment::First { .. }, Some(datagram)) => {
                let is_of_a_copy = self.known.is_of_a_copy(layout, frame);
                self.datagrams.remember(interface, datagram, is_of_a_copy);
                is_of_a_copy
            }
            (Fragment::Later { .. }, Some(datagram)) => self.datagrams.recall(interface, datagram).unwrap_or(false),
            _ => self.known.is_of_a_copy(layout, frame),
        }
    }
}

/// Whether a packet of which no more is known than a probe says would be held back on its way to, or from, `targets`. A
/// later piece of a datagram is taken for one whose first piece nobody saw.
pub(super) fn own_output(targets: &[Target], probe: &Probe) -> OwnOutput {
    let known = Known::new(targets);
    let (version, src, dst) = octets(probe.addresses);
    let suspect = Suspect {
        version,
        protocol: probe.protocol,
        src: &src,
        dst: &dst,
        ports: probe.ports,
        icmp_type: None,
        content_at: None,
    };
    if guard::is_of_a_copy(&suspect, &Captured(&[]), &known) {
        return OwnOutput::Yes;
    }
    match (probe.protocol, probe.ports) {
        (UDP, Some((_, dst_port))) if known.has_port(dst_port) => OwnOutput::IfItHoldsACopy,
        (ICMP | ICMPV6, _) => OwnOutput::IfItQuotesACopy,
        _ => OwnOutput::No,
    }
}

impl Known {
    fn new(targets: &[Target]) -> Self {
        let address = |target: &Target| match target.address {
            IpAddr::V4(address) => (4, in_front(address.to_bits())),
            IpAddr::V6(address) => (6, address.octets()),
        };
        let mut ports: Vec<u16> = targets.iter().map(|target| target.port.get()).collect();
        ports.sort_unstable();
        ports.dedup();
        Self { ports, addresses: targets.iter().map(address).collect() }
    }

    #[inline]
    fn is_of_a_copy(&self, layout: &Layout, frame: &[u8]) -> bool {
        let packet = &layout.packet;
        let (version, src, dst) = octets(packet.addresses);
        let suspect = Suspect {
            version,
            protocol: packet.protocol,
            src: &src,
            dst: &dst,
            ports: Some((packet.src_port, packet.dst_port)),
            icmp_type: packet.icmp.map(|(icmp_type, _)| icmp_type),
            content_at: Some(layout.payload_at + HEADER_BYTES),
        };
        guard::is_of_a_copy(&suspect, &Captured(frame), self)
    }
}

/// The version of IP, source and destination.
#[inline]
fn octets(addresses: Addresses) -> (u8, [u8; 16], [u8; 16]) {
    match addresses {
        Addresses::V4 { src, dst } => (4, in_front(src), in_front(dst)),
        Addresses::V6 { src, dst } => (6, src.to_be_bytes(), dst.to_be_bytes()),
    }
}

impl Targets for Known {
    fn has_port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    fn has_address(&self, version: u8, address: &[u8; 16]) -> bool {
        self.addresses.contains(&(version, *address))
    }
}

/// As much of a frame as was kept.
struct Captured<'a>(&'a [u8]);

impl Bytes for Captured<'_> {
    fn read<const COUNT: usize>(&self, at: usize) -> Option<[u8; COUNT]> {
        self.0.get(at..)?.first_chunk().copied()
    }
}

/// Of UDP and of ICMP.
const HEADER_BYTES: usize = 8;

// IANA's numbers.
const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::LinkType;
    use crate::mirror::encapsulate::{Envelope, Path, for_each_packet, push_datagram, tunnel_header};
    use crate::mirror::{Encapsulation, Vni, Weight};
    use crate::packet::locate;

    fn guard() -> Guard {
        let target = |address: &str| Target {
            name: address.to_owned(),
            address: address.parse().unwrap(),
            port: Encapsulation::Vxlan.port_default(),
            encapsulation: Encapsulation::Vxlan,
            weight: Weight::default(),
            health_check: None,
        };
        Guard::new(&[target("10.83.0.2"), target("fd83::2")], 1)
    }

    /// A copy of `inner`, as Ethernet frames.
    fn copy(src: &str, dst: &str, dst_port: u16, mtu: usize, inner: &[u8]) -> Vec<Vec<u8>> {
        let path = Path::new(src.parse().unwrap(), dst.parse().unwrap()).unwrap();
        let tunnel = tunnel_header(Encapsulation::Vxlan, Vni::new(1).unwrap());
        let mut datagram = Vec::new();
        push_datagram(path, &Envelope { src_port: 50_000, dst_port, tunnel }, inner, &mut datagram);
        let mut frames = Vec::new();
        for_each_packet(path, &datagram, mtu, 1, |piece| {
            frames.push([&[0; 12], piece.header.as_slice(), piece.payload].concat());
        });
        frames
    }

    fn holds_back(guard: &mut Guard, interface: u16, frame: &[u8]) -> bool {
        guard.holds_back(interface, &locate(LinkType::Ethernet, frame, frame.len() as u32).unwrap(), frame)
    }

    #[test]
    fn what_we_send_is_held_back() {
        let mut guard = guard();
        let mut is_held = |frame: &[u8]| holds_back(&mut guard, 0, frame);
        assert!(is_held(&copy("192.0.2.1", "10.83.0.2", 4789, 1500, &[0; 60])[0]));
        assert!(is_held(&copy("2001:db8::1", "fd83::2", 4789, 1500, &[0; 60])[0]));
        assert!(is_held(&copy("10.83.0.2", "192.0.2.1", 4789, 1500, &[0; 60])[0]), "it mirrors to us");
        assert!(!is_held(&copy("192.0.2.1", "10.83.0.2", 53, 1500, &[0; 60])[0]), "other traffic of the target");
        assert!(!is_held(&copy("192.0.2.1", "192.0.2.2", 4789, 1500, &[0; 60])[0]), "an overlay network");
        let once = copy("192.0.2.1", "192.0.2.2", 4789, 1500, &[0; 60]).remove(0);
        assert!(is_held(&copy("192.0.2.2", "192.0.2.3", 4789, 1500, &once)[0]), "a circle of sensors");
        // Port unreachable.
        let sent = copy("192.0.2.1", "10.83.0.2", 4789, 1500, &[0; 60]).remove(0);
        let mut error = vec![0; 12];
        error.extend([
            8, 0, 0x45, 0, 0, 128, 0, 0, 0, 0, 64, 1, 0, 0, 10, 83, 0, 2, 192, 0, 2, 1, 3, 3, 0, 0, 0, 0, 0, 0,
        ]);
        error.extend(&sent[14..]);
        assert!(is_held(&error));
    }

    #[test]
    fn later_pieces_follow_their_first_one() {
        for (src, dst) in [("192.0.2.1", "10.83.0.2"), ("2001:db8::1", "fd83::2")] {
            let mut guard = guard();
            let mut is_held = |interface, frame: &[u8]| holds_back(&mut guard, interface, frame);
            // The length of the smallest IPv6 path.
            let pieces = copy(src, dst, 4789, 1280, &[0; 4000]);
            let others = copy(src, dst, 53, 1280, &[0; 4000]);
            assert_eq!(pieces.len(), 4);
            assert!(!is_held(0, &pieces[1]), "nobody knows yet what it is of");
            assert!(pieces.iter().all(|piece| is_held(0, piece)));
            assert!(!is_held(1, &pieces[1]), "another interface");
            assert!(!others.iter().any(|piece| is_held(0, piece)), "the identification is in use again");
        }
    }
}
