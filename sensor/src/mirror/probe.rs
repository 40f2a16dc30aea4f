//! What of a packet the rules look at.

use std::net::IpAddr;

use flowlog::record::TrafficClass;

use crate::capture::Direction;
use crate::packet::{Addresses, Fragment, Packet};

/// A packet as the rules see it. Only IP packets are seen: ARP and other frames are never mirrored, as in AWS.
///
/// Fragments follow their datagram's first one. Who executes decisions remembers, in a bounded map, what was decided
/// for each [`Fragment::First`] under its [`Probe::datagram`] (also that nothing took it), and does the same with each
/// [`Fragment::Later`] of that datagram. A later fragment whose first one is not remembered is decided as it is: without
/// ports, by the rules that ask for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// From the interface's point of view. Without one, no rule applies.
    pub direction: Direction,
    /// Of the outermost IP header.
    pub addresses: Addresses,
    /// IANA number.
    pub protocol: u8,
    /// Source and destination port; `None` where there are none: later fragments, and protocols without ports.
    pub ports: Option<(u16, u16)>,
    /// What [`crate::classify::Classifier`] says of it.
    pub class: Option<TrafficClass>,
    /// Whether it is a piece of a larger datagram.
    pub fragment: Fragment,
    /// Where it is seen.
    pub point: Point,
}

/// Where a packet is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Point {
    /// At the interface, on its way.
    #[default]
    Tap,
    /// Where the kernel drops it, by a policy.
    Drop,
}

/// What the fragments of one datagram share (RFC 791; RFC 8200, section 4.5; IPv6 has no protocol there, but one
/// datagram has one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Datagram {
    /// Source and destination.
    pub addresses: Addresses,
    /// Of IPv4 the protocol, of IPv6 0: its later fragments may name another than the first.
    pub protocol: u8,
    /// Identification.
    pub id: u32,
}

impl Datagram {
    /// The datagram that a fragment belongs to; `None` for whole packets.
    pub fn of(fragment: Fragment, addresses: Addresses, protocol: u8) -> Option<Self> {
        let (Fragment::First { id } | Fragment::Later { id }) = fragment else { return None };
        let protocol = match addresses {
            Addresses::V4 { .. } => protocol,
            Addresses::V6 { .. } => 0,
        };
        Some(Self { addresses, protocol, id })
    }
}

impl Probe {
    /// A packet at the tap. `direction` and `class` are what the capture and the classifier say.
    pub fn at_tap(packet: &Packet, direction: Direction, class: Option<TrafficClass>) -> Self {
        // A packet that is cut before its ports says 0 for both, as no real one does.
        let ports = (packet.src_port, packet.dst_port);
        let has_ports = ports != (0, 0) && !matches!(packet.fragment, Fragment::Later { .. });
        Self {
            direction,
            addresses: packet.addresses,
            protocol: packet.protocol,
            ports: has_ports.then_some(ports),
            class,
            fragment: packet.fragment,
            point: Point::Tap,
        }
    }

    /// The datagram that a fragment belongs to; `None` for whole packets.
    pub fn datagram(&self) -> Option<Datagram> {
        Datagram::of(self.fragment, self.addresses, self.protocol)
    }

    /// Source and destination.
    pub fn ends(&self) -> (IpAddr, IpAddr) {
        match self.addresses {
            Addresses::V4 { src, dst } => (IpAddr::V4(src.into()), IpAddr::V4(dst.into())),
            Addresses::V6 { src, dst } => (IpAddr::V6(src.into()), IpAddr::V6(dst.into())),
        }
    }
}
