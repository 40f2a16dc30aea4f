//! Devices and routes, asked of the kernel and changed there, in the calling thread's network namespace.
//!
//! Authority: rtnetlink(7). One request at a time, and its answer.

mod neighbour;

pub(super) use neighbour::Ether;

use flowtap_abi::choice::SOURCE_PORTS;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        InfoData, InfoGeneve, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
        Stats64,
    },
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{io, net::IpAddr, num::NonZeroU16};

use crate::mirror::Encapsulation;

/// A socket to the kernel.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    /// Where there may be IPsec.
    policies: Option<Socket>,
}

/// A device, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) alias: Option<String>,
    pub(super) is_up: bool,
    pub(super) mtu: u32,
    /// Whether it stands for something on a bus: a card.
    pub(super) is_physical: bool,
    /// Its address, if it is an Ethernet device that has a carrier and looks neighbours up.
    pub(super) ether: Option<Ether>,
    /// What it encapsulates in and at which UDP port, if it does that by packet metadata.
    pub(super) tunnel: Option<(Encapsulation, u16)>,
    pub(super) sent: Sent,
}

/// What a device says of what it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sent {
    pub(super) frames: u64,
    pub(super) dropped: u64,
    pub(super) errors: u64,
}

/// Where packets to an address leave the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) device: u32,
    /// What the route itself says, learned or configured.
    pub(super) mtu: Option<u32>,
    /// Whether it leads to one host, elsewhere.
    pub(super) is_unicast: bool,
    /// The address that packets leave with.
    pub(super) source: Option<IpAddr>,
    /// The router, if there is one on the way.
    pub(super) gateway: Option<IpAddr>,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, policies: neighbour::policies()? })
    }

    /// Makes a tunnel device that takes VNI and target from each packet, and learns nothing. A VXLAN device takes its
    /// source ports from the range of RFC 7348; RFC 8926 gives GENEVE all, as the kernel does.
    pub(super) fn create(
        &mut self,
        name: &str,
        alias: &str,
        encapsulation: Encapsulation,
        port: NonZeroU16,
    ) -> io::Result<()> {
        let (kind, data) = match encapsulation {
            Encapsulation::Vxlan => {
                let data = vec![
                    InfoVxlan::CollectMetadata(true),
                    InfoVxlan::Learning(false),
                    InfoVxlan::Port(port.get()),
                    InfoVxlan::PortRange(SOURCE_PORTS),
                ];
                (InfoKind::Vxlan, InfoData::Vxlan(data))
            }
            Encapsulation::Geneve => {
                let data = vec![InfoGeneve::CollectMetadata, InfoGeneve::Port(port.get())];
                (InfoKind::Geneve, InfoData::Geneve(data))
            }
        };
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]),
        ];
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)?;
        // The kernel takes an alias only for a device that is there.
        let index = self.link_by_name(name)?.map(|link| link.index).unwrap_or_default();
        self.set_alias(index, alias)
    }

    /// Writes on a device what people shall know of it.
    pub(super) fn set_alias(&mut self, index: u32, alias: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![LinkAttribute::IfAlias(alias.to_owned())];
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets a device up.
    pub(super) fn up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Takes a device away.
    pub(super) fn remove(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.change(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// The device of that index; `None` if there is none.
    pub(super) fn link(&mut self, index: u32) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.one_link(message)
    }

    /// The device of that name; `None` if there is none.
    pub(super) fn link_by_name(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        self.one_link(message)
    }

    /// All devices of the namespace.
    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(as_link).collect())
    }

    /// Where packets to `address` that carry `mark` leave the host.
    pub(super) fn route(&mut self, address: IpAddr, mark: u32) -> io::Result<Route> {
        let answers = self.ask_route(address, mark, RouteFlags::empty())?;
        let route = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => as_route(route),
            _ => None,
        });
        route.ok_or_else(|| io::Error::from(io::ErrorKind::NetworkUnreachable))
    }

    fn ask_route(&mut self, address: IpAddr, mark: u32, flags: RouteFlags) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut message = RouteMessage::default();
        (message.header.address_family, message.header.destination_prefix_length) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.header.flags = flags;
        message.attributes = vec![RouteAttribute::Destination(address.into()), RouteAttribute::Mark(mark)];
        self.ask(RouteNetlinkMessage::GetRoute(message), 0)
    }

    fn one_link(&mut self, message: LinkMessage) -> io::Result<Option<Link>> {
        match self.ask(RouteNetlinkMessage::GetLink(message), 0) {
            Ok(answers) => Ok(answers.iter().find_map(as_link)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, flags | NLM_F_ACK).map(drop)
    }

    /// Sends a request and gathers what comes for it: up to an acknowledgement, the end of a dump, or the one answer.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let has_end = flags & (NLM_F_ACK | NLM_F_DUMP) != 0;
        let mut answers = Vec::new();
        loop {
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
            if !has_end && !answers.is_empty() {
                return Ok(answers);
            }
        }
    }
}

const NETLINK_HEADER_BYTES: usize = 16;

fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn as_link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let header = &message.header;
    let mut link = Link { index: header.index, is_up: header.flags.contains(LinkFlags::Up), ..Link::default() };
    let resolves = header.link_layer_type == LinkLayerType::Ether
        && header.flags.contains(LinkFlags::LowerUp)
        && !header.flags.contains(LinkFlags::Noarp);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) if resolves => link.ether = Ether::try_from(bytes.as_slice()).ok(),
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::ParentDevName(_) => link.is_physical = true,
            LinkAttribute::Stats64(stats) => link.sent = sent(stats),
            LinkAttribute::LinkInfo(infos) => link.tunnel = infos.iter().find_map(tunnel),
            _ => {}
        }
    }
    Some(link)
}

fn sent(stats: &Stats64) -> Sent {
    Sent { frames: stats.tx_packets, dropped: stats.tx_dropped, errors: stats.tx_errors }
}

fn tunnel(info: &LinkInfo) -> Option<(Encapsulation, u16)> {
    match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => {
            let port =
                data.iter().find_map(|part| if let InfoVxlan::Port(port) = part { Some(*port) } else { None })?;
            data.contains(&InfoVxlan::CollectMetadata(true)).then_some((Encapsulation::Vxlan, port))
        }
        LinkInfo::Data(InfoData::Geneve(data)) => {
            let port =
                data.iter().find_map(|part| if let InfoGeneve::Port(port) = part { Some(*port) } else { None })?;
            data.contains(&InfoGeneve::CollectMetadata).then_some((Encapsulation::Geneve, port))
        }
        _ => None,
    }
}

fn as_route(route: &RouteMessage) -> Option<Route> {
    let device = route.attributes.iter().find_map(|part| match part {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    let mtu = route.attributes.iter().find_map(|part| match part {
        RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|metric| match metric {
            RouteMetric::Mtu(mtu) => Some(*mtu),
            _ => None,
        }),
        _ => None,
    });
    let mut found =
        Route { device, mtu, is_unicast: route.header.kind == RouteType::Unicast, source: None, gateway: None };
    for part in &route.attributes {
        match part {
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => found.source = Some((*address).into()),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => found.gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => found.gateway = Some((*address).into()),
            _ => {}
        }
    }
    Some(found)
}
