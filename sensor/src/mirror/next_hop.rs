//! Where packets to a target leave the host, and whom frames past the IP stack are addressed to: the next hop, where that is
//! sure.
//!
//! Authority: rtnetlink(7). Sure means that the IP stack would do nothing to a packet but put headers before it that we
//! know. The route is to one host, is the only one, and has no encapsulation of its own; the device is Ethernet, up, has a
//! carrier and looks neighbours up; the kernel knows the neighbour and is not asking for it; and IPsec has no say.
//!
//! Whether there are IPsec policies is asked of the kernel, which answers who has CAP_NET_ADMIN: the kernel plane, and root
//! at a replay. To the packet plane, which has given that up, and wherever else the answer can't be had, the path's MTU
//! tells: with IPsec on a path the kernel has a smaller one for its sockets than route and device say. The MTU is looked
//! at in any case where there is a socket to ask, as are the source address and the hops that it gives its packets.

use std::io;
use std::net::IpAddr;

use super::encapsulate::HOPS;
use crate::netlink::{EthernetAddress, Link, Netlink, Route};

/// How packets to an address leave the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WayOut {
    address: IpAddr,
    /// What they carry.
    mark: u32,
    pub(super) route: Route,
    link: Link,
}

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

/// What the kernel has for the packets of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// Where they come from.
    pub(super) source: IpAddr,
    /// The longest.
    pub(super) mtu: usize,
    /// What stands in a new one.
    pub(super) hops: u32,
}

impl WayOut {
    /// The one that packets to `address` with `mark` take.
    ///
    /// # Errors
    /// There is none, or the kernel can't be asked.
    pub(super) fn find(netlink: &mut Netlink, address: IpAddr, mark: u32) -> io::Result<Self> {
        let route = netlink.route(address, mark)?;
        let link = netlink.link(route.device)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { address, mark, route, link })
    }

    /// The longest packet that need not be fragmented, as far as route and device say.
    pub(super) fn mtu(&self) -> u32 {
        self.route.mtu.filter(|mtu| *mtu != 0).unwrap_or(self.link.mtu).min(self.link.mtu)
    }

    /// Whether and where a frame can go past the IP stack. `None` where that is not sure. Whoever sends by a socket otherwise
    /// says what the kernel has for it.
    pub(super) fn next_hop(&self, netlink: &mut Netlink, known: Option<&Known>) -> io::Result<Option<NextHop>> {
        let Self { address, mark, route, link } = *self;
        let (Some(source), Some(from)) = (route.source, link.ethernet) else { return Ok(None) };
        if !route.is_plain || !link.is_up || known.is_some_and(|known| !self.agrees(source, known)) {
            return Ok(None);
        }
        if !netlink.has_one_way(address, mark)? || netlink.has_policies().unwrap_or(known.is_none()) {
            return Ok(None);
        }
        let neighbour = netlink.neighbour(route.device, route.gateway.unwrap_or(address))?;
        Ok(neighbour.map(|to| NextHop { device: route.device, from, to }))
    }

    /// Whether frames would be as the packets of the socket.
    fn agrees(&self, source: IpAddr, known: &Known) -> bool {
        let hops = self.route.hops.filter(|hops| *hops != 0).unwrap_or(known.hops);
        source == known.source && hops == u32::from(HOPS) && self.mtu() as usize == known.mtu
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    use std::process::Command;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 83, 0, 1));

    fn ip(arguments: &str) {
        let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Whether the next hop of `address` is sure to who sends by a socket otherwise, and to who does not.
    fn is_sure(netlink: &mut Netlink, address: &str, known: &Known) -> [bool; 2] {
        let way = WayOut::find(netlink, address.parse().unwrap(), 0).unwrap();
        [Some(known), None].map(|known| {
            let hop = way.next_hop(netlink, known).unwrap();
            assert!(hop.is_none_or(|hop| (hop.device, hop.to) == (way.route.device, [2, 0, 0, 0, 0, 0x77])));
            hop.is_some()
        })
    }

    /// Needs root; elsewhere it says that it was skipped.
    #[test]
    fn what_is_not_sure_is_left_to_the_ip_stack() {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: no network namespace of our own ({error})");
            return;
        }
        ip("link add out0 type veth peer name ids0");
        ip("link set ids0 up");
        ip("link set out0 up");
        for (version, net, length) in [("-4", "10.83.0.", 24), ("-6", "fd83::", 64)] {
            // An address of IPv6 is of use when nobody else can have it.
            let at_once = if version == "-6" { " nodad" } else { "" };
            ip(&format!("addr add {net}1/{length} dev out0{at_once}"));
            for neighbour in [2, 7, 8] {
                ip(&format!("neigh add {net}{neighbour} lladdr 02:00:00:00:00:77 dev out0 nud permanent"));
            }
            let netlink = &mut Netlink::open().unwrap();
            let target = format!("{net}2");
            let known = Known { source: format!("{net}1").parse().unwrap(), mtu: 1500, hops: 64 };
            assert_eq!(is_sure(netlink, &target, &known), [true, true], "as it is");
            assert_eq!(is_sure(netlink, &target, &Known { mtu: 1438, ..known }), [false, true], "a smaller MTU");
            let route = format!("{version} route replace {target}/{}", if version == "-6" { 128 } else { 32 });
            ip(&format!("{route} nexthop via {net}7 dev out0 nexthop via {net}8 dev out0"));
            assert_eq!(is_sure(netlink, &target, &known), [false, false], "a choice of routers");
            ip(&route.replace("replace", "del"));
            ip(&format!("{route} via {net}7 dev out0"));
            assert_eq!(is_sure(netlink, &target, &known), [true, true], "a router");
            ip(&route.replace("replace", "del"));
            ip("xfrm policy add src 192.0.2.0/24 dst 192.0.2.0/24 dir out action block");
            assert_eq!(is_sure(netlink, &target, &known), [false, false], "IPsec");
            ip("xfrm policy flush");
            assert_eq!(is_sure(netlink, &target, &known), [true, true], "no IPsec");
        }

        let known = Known { source: SOURCE, mtu: 1500, hops: 64 };
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
        let netlink = &mut Netlink::open().unwrap();
        assert_eq!(netlink.has_policies().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(is_sure(netlink, "10.83.0.2", &known), [true, false], "the path's MTU tells");
        assert_eq!(is_sure(netlink, "10.83.0.2", &Known { mtu: 1438, ..known }), [false, false]);
    }

    #[test]
    fn frames_are_as_the_packets_of_the_socket() {
        let route = Route { device: 1, mtu: None, hops: None, gateway: None, source: Some(SOURCE), is_plain: true };
        let link = Link { is_up: true, mtu: 1500, ethernet: Some([2, 0, 0, 0, 0, 1]) };
        let way = |route| WayOut { address: [10, 83, 0, 2].into(), mark: 0, route, link };
        let agrees = |route, known: Known| way(route).agrees(SOURCE, &known);
        let known = Known { source: SOURCE, mtu: 1500, hops: 64 };
        assert!(agrees(route, known));
        assert!(!agrees(route, Known { source: [10, 83, 0, 9].into(), ..known }), "another source");
        assert!(!agrees(route, Known { hops: 63, ..known }));
        assert!(agrees(Route { hops: Some(64), ..route }, Known { hops: 63, ..known }), "the route has its own");
        assert!(!agrees(Route { hops: Some(9), ..route }, known));
        // ESP takes some.
        assert!(!agrees(route, Known { mtu: 1438, ..known }), "something is put around packets");
        assert!(agrees(Route { mtu: Some(1400), ..route }, Known { mtu: 1400, ..known }), "so the route says");
        for (mtu, expected) in [(None, 1500), (Some(0), 1500), (Some(1400), 1400), (Some(9000), 1500)] {
            assert_eq!(way(Route { mtu, ..route }).mtu(), expected, "{mtu:?}");
        }
    }
}
