//! What is never mirrored, whatever the rules say: mirrored copies themselves.
//!
//! A copy leaves by an interface that may be tapped itself, and a target may be a host that mirrors to us. So three things
//! are left alone: a datagram between us and a target on the target's port, in either direction; a target's complaint
//! that nobody listens there, which quotes the copy; and a copy of a copy, whoever made it, which ends every circle of
//! sensors after its second round.

use std::net::IpAddr;

use super::Target;
use crate::capture::LinkType;
use crate::packet::{Addresses, Fragment, Layout, locate};

/// The addresses and ports of all targets.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    targets: Vec<(IpAddr, u16)>,
}

impl Guard {
    pub(super) fn new(targets: &[Target]) -> Self {
        Self { targets: targets.iter().map(|target| (target.address, target.port.get())).collect() }
    }

    /// Whether the packet is of the mirror's own making. `ip` is the frame from its IP header on.
    #[inline]
    pub(super) fn holds_back(&self, layout: &Layout, frame: &[u8]) -> bool {
        let packet = &layout.packet;
        match (packet.protocol, packet.icmp) {
            (UDP, _) => {
                let is_later = matches!(packet.fragment, Fragment::Later { .. });
                let is_port = |port: u16| self.targets.iter().any(|(_, known)| *known == port);
                // Later fragments of a copy have no port: those between us and a target are taken for copies.
                (is_later || is_port(packet.dst_port))
                    && (self.is_ours(packet.addresses, packet.dst_port, is_later) || self.is_twice(layout, frame))
            }
            (ICMP, Some((ICMP_UNREACHABLE, _))) | (ICMPV6, Some((ICMPV6_UNREACHABLE, _))) => {
                self.is_complaint(layout, frame)
            }
            _ => false,
        }
    }

    /// Whether a target is at either end.
    fn is_ours(&self, addresses: Addresses, dst_port: u16, any_port: bool) -> bool {
        let (src, dst) = addresses.ends();
        self.targets
            .iter()
            .any(|(address, port)| (any_port || *port == dst_port) && (*address == src || *address == dst))
    }

    /// Whether a copy holds a copy.
    fn is_twice(&self, layout: &Layout, frame: &[u8]) -> bool {
        let inner = frame.get(layout.payload_at + OUTER_HEADERS_BYTES..).unwrap_or_default();
        let tunnel = frame.get(layout.payload_at + 8..).and_then(<[u8]>::first_chunk::<4>);
        let is_tunnel = matches!(tunnel, Some([0x08, ..] | [0x00, _, 0x65, 0x58]));
        let within = locate(LinkType::Ethernet, inner, u32::try_from(inner.len()).unwrap_or(u32::MAX));
        is_tunnel
            && within.is_ok_and(|within| {
                within.packet.protocol == UDP && self.targets.iter().any(|(_, port)| *port == within.packet.dst_port)
            })
    }

    /// Whether an ICMP error quotes a copy that was sent to a target.
    fn is_complaint(&self, layout: &Layout, frame: &[u8]) -> bool {
        let quoted = frame.get(layout.payload_at + ICMP_HEADER_BYTES..).unwrap_or_default();
        let quoted = locate(LinkType::Raw, quoted, u32::try_from(quoted.len()).unwrap_or(u32::MAX));
        quoted.is_ok_and(|quoted| {
            let (_, dst) = quoted.packet.addresses.ends();
            quoted.packet.protocol == UDP && self.targets.contains(&(dst, quoted.packet.dst_port))
        })
    }
}

/// UDP and tunnel header.
const OUTER_HEADERS_BYTES: usize = 16;
const ICMP_HEADER_BYTES: usize = 8;
const ICMP: u8 = 1;
const ICMP_UNREACHABLE: u8 = 3;
const ICMPV6: u8 = 58;
const ICMPV6_UNREACHABLE: u8 = 1;
const UDP: u8 = 17;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::encapsulate::{Envelope, Path, for_each_packet, push_datagram, tunnel_header};
    use crate::mirror::{Encapsulation, Vni};

    fn guard() -> Guard {
        Guard { targets: vec![("10.83.0.2".parse().unwrap(), 4789)] }
    }

    /// A copy of `inner`, as an Ethernet frame.
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

    fn is_held(frame: &[u8]) -> bool {
        guard().holds_back(&locate(LinkType::Ethernet, frame, frame.len() as u32).unwrap(), frame)
    }

    #[test]
    fn copies_to_and_from_a_target_are_held_back() {
        assert!(is_held(&copy("192.0.2.1", "10.83.0.2", 4789, 1500, &[0; 60])[0]));
        assert!(is_held(&copy("10.83.0.2", "192.0.2.1", 4789, 1500, &[0; 60])[0]), "it mirrors to us");
        assert!(copy("192.0.2.1", "10.83.0.2", 4789, 60, &[0; 60]).iter().all(|fragment| is_held(fragment)));
        assert!(!is_held(&copy("192.0.2.1", "10.83.0.2", 53, 1500, &[0; 60])[0]), "other traffic of the target");
        assert!(!is_held(&copy("192.0.2.1", "192.0.2.2", 4789, 1500, &[0; 60])[0]), "an overlay network");
    }

    #[test]
    fn a_copy_of_a_copy_ends_every_circle() {
        let once = copy("192.0.2.1", "192.0.2.2", 4789, 1500, &[0; 60]).remove(0);
        let twice = copy("192.0.2.2", "192.0.2.3", 4789, 1500, &once).remove(0);
        assert!(!is_held(&once));
        assert!(is_held(&twice));
    }

    #[test]
    fn complaints_about_copies_are_held_back() {
        let error = |dst: &str, port| {
            let sent = copy("192.0.2.1", dst, port, 1500, &[0; 60]).remove(0);
            let mut frame = vec![0; 12];
            frame.extend([8, 0, 0x45, 0, 0, 128, 0, 0, 0, 0, 64, 1, 0, 0, 10, 83, 0, 2, 192, 0, 2, 1]);
            frame.extend([3, 3, 0, 0, 0, 0, 0, 0]);
            frame.extend(&sent[14..]);
            frame
        };
        assert!(is_held(&error("10.83.0.2", 4789)));
        assert!(!is_held(&error("10.83.0.2", 53)));
        assert!(!is_held(&error("192.0.2.2", 4789)));
    }
}
