//! Devices, routes and neighbours, asked of the kernel in the calling thread's network namespace, and what it tells of
//! their changes.
//!
//! Authority: rtnetlink(7), linux/neighbour.h. One request at a time, and its answer.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;

/// A socket to the kernel.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// A device, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Link {
    pub(super) is_up: bool,
    pub(super) mtu: u32,
    /// Its own address, if its link layer is Ethernet and there is a carrier.
    pub(super) ethernet: Option<EthernetAddress>,
}

/// Where packets to an address leave the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) device: u32,
    /// What the route itself says, learned or configured.
    pub(super) mtu: Option<u32>,
    /// As `mtu`.
    pub(super) hops: Option<u32>,
    /// Who takes them there, where that is not the address itself.
    pub(super) gateway: Option<IpAddr>,
    /// The source address that the kernel would choose.
    pub(super) source: Option<IpAddr>,
    /// Whether they go to one other host, and with nothing more around them.
    pub(super) is_plain: bool,
}

/// Of a card, real or not.
pub(super) type EthernetAddress = [u8; 6];

/// Tells that something about links, addresses, routes, rules or neighbours has changed.
#[derive(Debug)]
pub(super) struct Changes {
    socket: Socket,
    /// Of what is told only that it was told matters.
    told: Vec<u8>,
}

impl Changes {
    /// Hears what changes from now on.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in CHANGES {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket, told: Vec::with_capacity(TOLD_BYTES) })
    }

    /// Whether something has changed since the last call. Where too much has changed to be told, it has.
    pub(super) fn any(&mut self) -> bool {
        let mut any = false;
        for _ in 0..TOLD_MAX {
            self.told.clear();
            match self.socket.recv(&mut self.told, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => any = true,
            }
        }
        any
    }
}

const CHANGES: [u32; 8] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
];
/// linux/rtnetlink.h.
const RTNLGRP_IPV6_RULE: u32 = 19;
/// A message may be longer; what does not fit is thrown away.
const TOLD_BYTES: usize = 64;
/// How much is heard at once; what is left is heard the next time.
const TOLD_MAX: usize = 256;

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The device of that index; `None` if there is none.
    pub(super) fn link(&mut self, index: u32) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.ask(RouteNetlinkMessage::GetLink(message)) {
            Ok(answers) => Ok(answers.iter().find_map(as_link)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where packets to `address` that carry `mark` leave the host.
    pub(super) fn route(&mut self, address: IpAddr, mark: u32) -> io::Result<Route> {
        let mut message = RouteMessage::default();
        (message.header.address_family, message.header.destination_prefix_length) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.attributes = vec![RouteAttribute::Destination(address.into()), RouteAttribute::Mark(mark)];
        let answers = self.ask(RouteNetlinkMessage::GetRoute(message))?;
        let route = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => as_route(route),
            _ => None,
        });
        route.ok_or_else(|| io::Error::from(io::ErrorKind::NetworkUnreachable))
    }

    /// The Ethernet address of a neighbour on a device, as long as the kernel sends there without asking who has it, or
    /// has reason to ask soon. `None` if there is none, or the kernel is asking.
    pub(super) fn neighbour(&mut self, device: u32, address: IpAddr) -> io::Result<Option<EthernetAddress>> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = device;
        let (family, destination) = match address {
            IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
        };
        message.header.family = family;
        message.attributes = vec![NeighbourAttribute::Destination(destination)];
        match self.ask(RouteNetlinkMessage::GetNeighbour(message)) {
            Ok(answers) => Ok(answers.iter().find_map(as_neighbour)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request and takes the one answer.
    fn ask(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        packet.header.flags = NLM_F_REQUEST;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        while answers.is_empty() {
            let (received, _) = self.socket.recv_from_full()?;
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(damaged)?;
                let length = (answer.header.length as usize).next_multiple_of(4).max(NETLINK_HEADER_BYTES);
                rest = rest.get(length..).unwrap_or_default();
                // An answer to a request that was given up.
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(io::Error::from_raw_os_error(-error.raw_code()));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => {}
                }
            }
        }
        Ok(answers)
    }
}

const NETLINK_HEADER_BYTES: usize = 16;

fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn as_link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let header = &message.header;
    let mut link = Link { is_up: header.flags.contains(LinkFlags::Up), ..Link::default() };
    let is_ethernet = header.link_layer_type == LinkLayerType::Ether && header.flags.contains(LinkFlags::LowerUp);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(address) if is_ethernet => link.ethernet = address.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    Some(link)
}

fn as_route(route: &RouteMessage) -> Option<Route> {
    let device = route.attributes.iter().find_map(|part| match part {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    let mut found = Route {
        device,
        mtu: None,
        hops: None,
        gateway: None,
        source: None,
        is_plain: route.header.kind == RouteType::Unicast,
    };
    for part in &route.attributes {
        match part {
            RouteAttribute::Metrics(metrics) => {
                found.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
                found.hops = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Hoplimit(hops) => Some(*hops),
                    _ => None,
                });
            }
            RouteAttribute::Gateway(address) => found.gateway = as_address(address),
            RouteAttribute::PrefSource(address) => found.source = as_address(address),
            RouteAttribute::Via(_) | RouteAttribute::Encap(_) | RouteAttribute::MultiPath(_) => found.is_plain = false,
            _ => {}
        }
    }
    Some(found)
}

fn as_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn as_neighbour(message: &RouteNetlinkMessage) -> Option<EthernetAddress> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let is_known = matches!(
        message.header.state,
        NeighbourState::Permanent
            | NeighbourState::Noarp
            | NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
    );
    message.attributes.iter().filter(|_| is_known).find_map(|part| match part {
        NeighbourAttribute::LinkLayerAddress(address) => address.as_slice().try_into().ok(),
        _ => None,
    })
}
