//! Whom whole frames to a target are addressed to: the next hop, where that is sure.
//!
//! Authority: rtnetlink(7). Sure means that the IP stack would do nothing to a datagram but put headers before it that we
//! know: the route is to one host, without an encapsulation of its own; the device is Ethernet, up and has a carrier; the
//! source address, the hops and the MTU are those that the kernel has for this path (with IPsec on it, it has a smaller
//! one); and the kernel knows the neighbour and is not asking for it.

use std::io;
use std::net::IpAddr;

use super::encapsulate::{HOPS, Path};
use super::netlink::{EthernetAddress, Netlink};

/// The next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NextHop {
    /// Index of the device.
    pub(super) device: u32,
    /// Of the device.
    pub(super) from: EthernetAddress,
    /// Of the neighbour.
    pub(super) to: EthernetAddress,
}

/// What the kernel has for datagrams over a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) path: Path,
    /// The longest packet.
    pub(super) mtu: usize,
    /// What stands in a new packet.
    pub(super) hops: u32,
}

impl NextHop {
    /// The one of packets over a path that carry `mark`; `None` where it is not sure.
    pub(super) fn find(netlink: &mut Netlink, known: &Known, mark: u32) -> io::Result<Option<Self>> {
        let (source, address): (IpAddr, IpAddr) = match known.path {
            Path::V4 { src, dst } => (src.into(), dst.into()),
            Path::V6 { src, dst } => (src.into(), dst.into()),
        };
        let route = netlink.route(address, mark)?;
        let Some(link) = netlink.link(route.device)? else { return Ok(None) };
        let hops = route.hops.filter(|hops| *hops != 0).unwrap_or(known.hops);
        let mtu = route.mtu.filter(|mtu| *mtu != 0).unwrap_or(link.mtu).min(link.mtu);
        let is_known = route.source == Some(source) && hops == u32::from(HOPS) && mtu as usize == known.mtu;
        let Some(from) = link.ethernet.filter(|_| route.is_plain && link.is_up && is_known) else { return Ok(None) };
        let neighbour = netlink.neighbour(route.device, route.gateway.unwrap_or(address))?;
        Ok(neighbour.map(|to| Self { device: route.device, from, to }))
    }
}
