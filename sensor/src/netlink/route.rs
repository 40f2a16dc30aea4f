//! Routes.
//!
//! Authority: rtnetlink(7), `RTM_GETROUTE`; linux/rtnetlink.h for `RTM_F_FIB_MATCH`, by which the kernel tells the entry of
//! its table in place of the way it would choose.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;

/// Where packets to an address leave the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) device: u32,
    /// What the route itself says, learned or configured.
    pub(crate) mtu: Option<u32>,
    /// As `mtu`.
    pub(crate) hops: Option<u32>,
    /// Who takes them there, where that is not the address itself.
    pub(crate) gateway: Option<IpAddr>,
    /// The source address that the kernel would choose.
    pub(crate) source: Option<IpAddr>,
    /// Whether they go to one other host, and with nothing more around them.
    pub(crate) is_plain: bool,
}

impl Netlink {
    /// Where packets to `address` that carry `mark` leave the host.
    pub(crate) fn route(&mut self, address: IpAddr, mark: u32) -> io::Result<Route> {
        let message = self.route_message(address, RouteAttribute::Mark(mark), RouteFlags::empty())?;
        message.as_ref().and_then(as_route).ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
    }

    /// The same of packets that come from `source`, which the kernel answers for addresses of its own.
    #[cfg(feature = "ebpf")]
    pub(crate) fn route_from(&mut self, source: IpAddr, address: IpAddr) -> io::Result<Route> {
        let message = self.route_message(address, RouteAttribute::Source(source.into()), RouteFlags::empty())?;
        message.as_ref().and_then(as_route).ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
    }

    /// Whether all packets to `address` that carry `mark` take one way, as they are: no choice among several, nothing
    /// around them.
    pub(crate) fn has_one_way(&mut self, address: IpAddr, mark: u32) -> io::Result<bool> {
        Ok(self
            .route_message(address, RouteAttribute::Mark(mark), RouteFlags::FibMatch)?
            .as_ref()
            .is_some_and(is_one_way))
    }

    fn route_message(
        &mut self,
        address: IpAddr,
        asked: RouteAttribute,
        flags: RouteFlags,
    ) -> io::Result<Option<RouteMessage>> {
        let mut message = RouteMessage::default();
        let (family, bits) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        (message.header.address_family, message.header.destination_prefix_length) = (family, bits);
        if let RouteAttribute::Source(_) = asked {
            message.header.source_prefix_length = bits;
        }
        message.header.flags = flags;
        message.attributes = vec![RouteAttribute::Destination(address.into()), asked];
        let answers = self.ask(RouteNetlinkMessage::GetRoute(message), 0)?;
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        }))
    }
}

fn as_route(message: &RouteMessage) -> Option<Route> {
    let device = message.attributes.iter().find_map(|part| match part {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    let is_plain = message.header.kind == RouteType::Unicast && is_one_way(message);
    let mut route = Route { device, mtu: None, hops: None, gateway: None, source: None, is_plain };
    for part in &message.attributes {
        match part {
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
                        RouteMetric::Hoplimit(hops) => route.hops = Some(*hops),
                        _ => {}
                    }
                }
            }
            RouteAttribute::Gateway(address) => route.gateway = as_address(address),
            // Of the other version of IP.
            RouteAttribute::Via(RouteVia::Inet(address)) => route.gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => route.gateway = Some((*address).into()),
            RouteAttribute::Via(_) => route.is_plain = false,
            RouteAttribute::PrefSource(address) => route.source = as_address(address),
            _ => {}
        }
    }
    Some(route)
}

/// What is a choice among several: routers, or a next hop that stands elsewhere (ip-nexthop(8)) and may be a group.
fn is_one_way(message: &RouteMessage) -> bool {
    !message.attributes.iter().any(|part| {
        matches!(
            part,
            RouteAttribute::MultiPath(_)
                | RouteAttribute::NhId(_)
                | RouteAttribute::Encap(_)
                | RouteAttribute::EncapType(_)
        )
    })
}

fn as_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::bytes::{attribute, read};
    use super::*;

    /// linux/rtnetlink.h.
    const RTN_UNICAST: u8 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    const RTA_PREFSRC: u16 = 7;
    const RTA_METRICS: u16 = 8;
    const RTA_MULTIPATH: u16 = 9;
    const RTA_VIA: u16 = 18;
    const RTA_ENCAP_TYPE: u16 = 21;
    const RTA_ENCAP: u16 = 22;
    const RTA_NH_ID: u16 = 30;

    /// `rtmsg` (family, lengths of destination and source, type of service, table, protocol, scope, type, flags).
    fn message(family: i32, kind: u8, attributes: &[Vec<u8>]) -> RouteMessage {
        let mut body = vec![family as u8, 32, 0, 0, 254, 0, 0, kind, 0, 0, 0, 0];
        attributes.iter().for_each(|attribute| body.extend(attribute));
        let RouteNetlinkMessage::NewRoute(message) = read(24, &body) else { panic!("no RTM_NEWROUTE") };
        message
    }

    fn device() -> Vec<u8> {
        attribute(RTA_OIF, &9_u32.to_ne_bytes())
    }

    const PLAIN: Route = Route { device: 9, mtu: None, hops: None, gateway: None, source: None, is_plain: true };

    #[test]
    fn a_route_is_what_the_kernel_says_of_it() {
        let gateway = attribute(RTA_GATEWAY, &[10, 83, 0, 7]);
        let source = attribute(RTA_PREFSRC, &[10, 83, 0, 1]);
        // `RTAX_MTU` and `RTAX_HOPLIMIT`.
        let metrics = [attribute(2, &1400_u32.to_ne_bytes()), attribute(10, &9_u32.to_ne_bytes())].concat();
        let metrics = attribute(RTA_METRICS, &metrics);
        let expected = Route {
            mtu: Some(1400),
            hops: Some(9),
            gateway: Some([10, 83, 0, 7].into()),
            source: Some([10, 83, 0, 1].into()),
            ..PLAIN
        };
        let all = message(libc::AF_INET, RTN_UNICAST, &[device(), gateway, source, metrics]);
        assert_eq!(as_route(&all), Some(expected));
        let router: [u16; 8] = [0xfe80, 0, 0, 0, 0, 0, 0, 7];
        let bytes = router.map(u16::to_be_bytes).concat();
        let of_v6 = message(libc::AF_INET6, RTN_UNICAST, &[device(), attribute(RTA_GATEWAY, &bytes)]);
        assert_eq!(as_route(&of_v6), Some(Route { gateway: Some(router.into()), ..PLAIN }));
        let via = [&(libc::AF_INET6 as u16).to_ne_bytes()[..], &bytes].concat();
        let by_v6 = message(libc::AF_INET, RTN_UNICAST, &[device(), attribute(RTA_VIA, &via)]);
        assert_eq!(as_route(&by_v6), Some(Route { gateway: Some(router.into()), ..PLAIN }));
        assert_eq!(as_route(&message(libc::AF_INET, RTN_UNICAST, &[])), None, "to no device");
    }

    #[test]
    fn a_route_that_is_not_to_one_host_is_not_plain() {
        // RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST, RTN_BLACKHOLE, RTN_UNREACHABLE.
        for kind in [2, 3, 5, 6, 7] {
            let route = as_route(&message(libc::AF_INET, kind, &[device()]));
            assert_eq!(route, Some(Route { is_plain: false, ..PLAIN }), "{kind}");
        }
    }

    #[test]
    fn a_choice_or_something_around_is_not_one_way() {
        assert!(is_one_way(&message(libc::AF_INET, RTN_UNICAST, &[device()])));
        // Two of `rtnexthop` (length, flags, weight less one, device), each with its router.
        let next_hop = |device: u32, router: u8| {
            let mut bytes = Vec::from(16_u16.to_ne_bytes());
            bytes.extend([0, 0]);
            bytes.extend(device.to_ne_bytes());
            bytes.extend(attribute(RTA_GATEWAY, &[10, 83, 0, router]));
            bytes
        };
        let several = attribute(RTA_MULTIPATH, &[next_hop(9, 7), next_hop(9, 8)].concat());
        let elsewhere = attribute(RTA_NH_ID, &5_u32.to_ne_bytes());
        // `LWTUNNEL_ENCAP_MPLS` with `MPLS_IPTUNNEL_DST`: label 16, which is the last.
        let kind = attribute(RTA_ENCAP_TYPE, &1_u16.to_ne_bytes());
        let around = attribute(RTA_ENCAP, &attribute(1, &[0, 1, 1, 0]));
        for attributes in [vec![several], vec![elsewhere, device()], vec![device(), kind, around]] {
            let message = message(libc::AF_INET, RTN_UNICAST, &attributes);
            assert!(!is_one_way(&message), "{message:?}");
        }
    }
}
