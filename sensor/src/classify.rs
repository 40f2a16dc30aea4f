//! What a flow is, beyond its key: the class of traffic it belongs to, and its direction where the capture is silent.
//!
//! Authority: the AWS pages "Flow log limitations" (what flow logs leave out), "Amazon DNS server", "Subnet CIDR
//! reservations" (the reserved addresses of a subnet), "Amazon Time Sync Service", "Instance metadata" and the EC2
//! pages on Windows activation. Everything here is asked once per row of a flow log, so the common answer (no class)
//! costs a few integer comparisons.

mod local;

pub use local::LocalNetworks;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowlog::record::TrafficClass;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Tells the traffic that AWS's flow logs leave out. Needs the network's own blocks for the addresses that AWS derives
/// from them; without blocks it still knows the fixed ones.
#[derive(Debug, Clone, Default)]
pub struct Classifier {
    resolvers_v4: Vec<u32>,
    routers_v4: Vec<u32>,
    routers_v6: Vec<u128>,
}

impl Classifier {
    /// `vpc_cidrs` are primary blocks of VPCs, whose third address (base + 2) is the resolver. `subnet_cidrs` are
    /// subnets, whose second address (base + 1, so `::1`) is the default router. A block too small to hold the address
    /// has none.
    pub fn new(vpc_cidrs: &[Ipv4Net], subnet_cidrs: &[IpNet]) -> Self {
        let mut classifier = Self::default();
        classifier.resolvers_v4.extend(vpc_cidrs.iter().filter_map(|vpc| nth_address_v4(vpc, 2)));
        for subnet in subnet_cidrs {
            match subnet {
                IpNet::V4(subnet) => classifier.routers_v4.extend(nth_address_v4(subnet, 1)),
                IpNet::V6(subnet) => classifier.routers_v6.extend(nth_address_v6(subnet, 1)),
            }
        }
        classifier
    }

    /// The class of a flow, the first that matches in the order of [`TrafficClass`]; `None` for ordinary traffic.
    ///
    /// Services are recognised in both directions: by their address and port as destination of a request or source of
    /// a reply. `protocol` is the IANA number; ports are 0 where there are none.
    pub fn class(&self, src: IpAddr, dst: IpAddr, src_port: u16, dst_port: u16, protocol: u8) -> Option<TrafficClass> {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                self.class_v4((src.into(), src_port), (dst.into(), dst_port), protocol)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                self.class_v6((src.into(), src_port), (dst.into(), dst_port), protocol)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    /// The addresses of the services that can be mirrored by name, each with its class. DHCP has none of its own.
    pub fn service_addresses(&self) -> Vec<(IpAddr, TrafficClass)> {
        let v4 = |address: u32| IpAddr::V4(address.into());
        let v6 = |address: u128| IpAddr::V6(address.into());
        let resolvers = self.resolvers_v4.iter().chain([&RESOLVER_V4]).map(|address| (v4(*address), TrafficClass::Dns));
        let activation = ACTIVATION_V4.map(|address| (v4(address), TrafficClass::Activation));
        let others = [
            (v6(RESOLVER_V6), TrafficClass::Dns),
            (v4(METADATA_V4), TrafficClass::Metadata),
            (v6(METADATA_V6), TrafficClass::Metadata),
            (v4(TIME_V4), TrafficClass::Time),
            (v6(TIME_V6), TrafficClass::Time),
            (v6(ACTIVATION_V6), TrafficClass::Activation),
        ];
        resolvers.chain(activation).chain(others).collect()
    }

    fn class_v4(&self, src: (u32, u16), dst: (u32, u16), protocol: u8) -> Option<TrafficClass> {
        let ends = [src, dst];
        let any_address = |list: &[u32]| list.contains(&src.0) || list.contains(&dst.0);
        let link_local = ends.iter().any(|(address, _)| address >> 16 == LINK_LOCAL_PREFIX_V4);
        let service = |address: u32, port: u16| link_local && ends.contains(&(address, port));

        if matches!(protocol, TCP | UDP) && (any_address(&[RESOLVER_V4]) || any_address(&self.resolvers_v4)) {
            Some(TrafficClass::Dns)
        } else if protocol == UDP && (is_dhcp_port(src.1) || is_dhcp_port(dst.1)) {
            Some(TrafficClass::Dhcp)
        } else if protocol == TCP && service(METADATA_V4, HTTP_PORT) {
            Some(TrafficClass::Metadata)
        } else if protocol == UDP && service(TIME_V4, NTP_PORT) {
            Some(TrafficClass::Time)
        } else if protocol == TCP && ACTIVATION_V4.iter().any(|address| service(*address, ACTIVATION_PORT)) {
            Some(TrafficClass::Activation)
        } else if any_address(&self.routers_v4) {
            Some(TrafficClass::Router)
        } else {
            mirror_class(dst.1, protocol)
        }
    }

    fn class_v6(&self, src: (u128, u16), dst: (u128, u16), protocol: u8) -> Option<TrafficClass> {
        let ends = [src, dst];
        let any_address = |list: &[u128]| list.contains(&src.0) || list.contains(&dst.0);
        let service = |address: u128, port: u16| ends.contains(&(address, port));

        if matches!(protocol, TCP | UDP) && any_address(&[RESOLVER_V6]) {
            Some(TrafficClass::Dns)
        } else if protocol == UDP && (is_dhcpv6_port(src.1) || is_dhcpv6_port(dst.1)) {
            Some(TrafficClass::Dhcp)
        } else if protocol == TCP && service(METADATA_V6, HTTP_PORT) {
            Some(TrafficClass::Metadata)
        } else if protocol == UDP && service(TIME_V6, NTP_PORT) {
            Some(TrafficClass::Time)
        } else if protocol == TCP && service(ACTIVATION_V6, ACTIVATION_PORT) {
            Some(TrafficClass::Activation)
        } else if any_address(&[ROUTER_V6]) || any_address(&self.routers_v6) {
            Some(TrafficClass::Router)
        } else {
            mirror_class(dst.1, protocol)
        }
    }
}

/// VXLAN's port is the destination's (RFC 7348, section 5); the source port is a hash and says nothing.
fn mirror_class(dst_port: u16, protocol: u8) -> Option<TrafficClass> {
    (protocol == UDP && dst_port == VXLAN_PORT).then_some(TrafficClass::Mirror)
}

fn is_dhcp_port(port: u16) -> bool {
    matches!(port, 67 | 68)
}

fn is_dhcpv6_port(port: u16) -> bool {
    matches!(port, 546 | 547)
}

fn nth_address_v4(block: &Ipv4Net, n: u32) -> Option<u32> {
    let address = u32::from(block.network()).checked_add(n)?;
    block.contains(&Ipv4Addr::from(address)).then_some(address)
}

fn nth_address_v6(block: &Ipv6Net, n: u128) -> Option<u128> {
    let address = u128::from(block.network()).checked_add(n)?;
    block.contains(&Ipv6Addr::from(address)).then_some(address)
}

const TCP: u8 = 6;
const UDP: u8 = 17;

const HTTP_PORT: u16 = 80;
const NTP_PORT: u16 = 123;
const ACTIVATION_PORT: u16 = 1688;
const VXLAN_PORT: u16 = 4789;

/// 169.254.0.0/16, which holds every fixed IPv4 address below.
const LINK_LOCAL_PREFIX_V4: u32 = 0xa9fe;
/// 169.254.169.253
const RESOLVER_V4: u32 = 0xa9fe_a9fd;
/// 169.254.169.254
const METADATA_V4: u32 = 0xa9fe_a9fe;
/// 169.254.169.123
const TIME_V4: u32 = 0xa9fe_a97b;
/// 169.254.169.250 and 169.254.169.251
const ACTIVATION_V4: [u32; 2] = [0xa9fe_a9fa, 0xa9fe_a9fb];

/// `fd00:ec2::/32`, with the service's number in the last group.
const fn service_v6(number: u16) -> u128 {
    0xfd00_0ec2_u128 << 96 | number as u128
}
const RESOLVER_V6: u128 = service_v6(0x253);
const METADATA_V6: u128 = service_v6(0x254);
const TIME_V6: u128 = service_v6(0x123);
/// Stands for both IPv4 addresses.
const ACTIVATION_V6: u128 = service_v6(0x250);
/// `fe80:ec2::1`
const ROUTER_V6: u128 = (0xfe80_0ec2_u128 << 96) | 1;

#[cfg(test)]
mod tests {
    use flowlog::record::TrafficClass::{Activation, Dhcp, Dns, Metadata, Mirror, Router, Time};

    use super::*;

    /// The class of the flow and of its reply, which must be the same.
    fn class(src: &str, dst: &str, src_port: u16, dst_port: u16, protocol: u8) -> Option<TrafficClass> {
        let classifier = Classifier::new(
            &["10.0.0.0/16".parse().unwrap()],
            &["10.0.1.0/24".parse().unwrap(), "2001:db8:0:1::/64".parse().unwrap()],
        );
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        let there = classifier.class(src, dst, src_port, dst_port, protocol);
        let back = classifier.class(dst, src, dst_port, src_port, protocol);
        if dst_port != VXLAN_PORT {
            assert_eq!(there, back, "{src} {src_port} <-> {dst} {dst_port} protocol {protocol}");
        }
        there
    }

    #[test]
    fn classes_of_ipv4() {
        assert_eq!(class("10.0.1.9", "169.254.169.253", 40000, 53, UDP), Some(Dns));
        assert_eq!(class("10.0.1.9", "169.254.169.253", 40000, 53, TCP), Some(Dns));
        assert_eq!(class("10.0.1.9", "169.254.169.253", 40000, 853, TCP), Some(Dns), "any port");
        assert_eq!(class("10.0.1.9", "10.0.0.2", 40000, 53, UDP), Some(Dns), "the VPC's base + 2");
        assert_eq!(class("0.0.0.0", "255.255.255.255", 68, 67, UDP), Some(Dhcp));
        assert_eq!(class("10.0.1.9", "169.254.169.254", 40000, 80, TCP), Some(Metadata));
        assert_eq!(class("10.0.1.9", "169.254.169.123", 40000, 123, UDP), Some(Time));
        assert_eq!(class("10.0.1.9", "169.254.169.250", 40000, 1688, TCP), Some(Activation));
        assert_eq!(class("10.0.1.9", "169.254.169.251", 40000, 1688, TCP), Some(Activation));
        assert_eq!(class("10.0.1.9", "10.0.1.1", 0, 0, 1), Some(Router), "any protocol");
        assert_eq!(class("10.0.1.9", "10.0.1.1", 40000, 22, TCP), Some(Router));
        assert_eq!(class("10.0.1.9", "10.0.2.9", 40000, 4789, UDP), Some(Mirror));
    }

    #[test]
    fn classes_of_ipv6() {
        let host = "2001:db8:0:1::9";
        assert_eq!(class(host, "fd00:ec2::253", 40000, 53, UDP), Some(Dns));
        assert_eq!(class("fe80::1", "ff02::1:2", 546, 547, UDP), Some(Dhcp));
        assert_eq!(class(host, "fd00:ec2::254", 40000, 80, TCP), Some(Metadata));
        assert_eq!(class(host, "fd00:ec2::123", 40000, 123, UDP), Some(Time));
        assert_eq!(class(host, "fd00:ec2::250", 40000, 1688, TCP), Some(Activation));
        assert_eq!(class(host, "fe80:ec2::1", 0, 0, 58), Some(Router));
        assert_eq!(class(host, "2001:db8:0:1::1", 40000, 22, TCP), Some(Router));
        assert_eq!(class(host, "2001:db8:0:2::9", 40000, 4789, UDP), Some(Mirror));
    }

    #[test]
    fn near_misses_are_ordinary_traffic() {
        let ordinary = [
            ("10.0.1.9", "8.8.8.8", 40000, 53, UDP),            // somebody else's resolver
            ("10.0.1.9", "10.0.1.2", 40000, 53, UDP),           // base + 2 of a subnet is not the resolver
            ("10.0.1.9", "169.254.169.253", 0, 0, 1),           // a ping is not DNS
            ("10.0.1.9", "169.254.169.254", 80, 40000, TCP),    // port 80 is at the wrong end
            ("10.0.1.9", "169.254.169.254", 40000, 80, UDP),    // metadata is TCP
            ("10.0.1.9", "169.254.169.123", 40000, 123, TCP),   // time is UDP
            ("10.0.1.9", "169.254.169.250", 40000, 443, TCP),   // activation is port 1688
            ("10.0.1.9", "169.254.169.249", 40000, 1688, TCP),  // a neighbouring service that is logged
            ("10.0.1.9", "10.0.1.10", 68, 67, TCP),             // DHCP is UDP
            ("10.0.1.9", "10.0.1.10", 546, 547, UDP),           // DHCPv6 is IPv6
            ("fe80::1", "fe80::2", 68, 67, UDP),                // DHCP is IPv4
            ("10.0.1.9", "10.0.0.1", 40000, 22, TCP),           // base + 1 of the VPC is no router
            ("10.0.1.9", "10.0.2.9", 40000, 4789, TCP),         // VXLAN is UDP
            ("10.0.1.9", "10.0.2.9", 40000, 6081, UDP),         // GENEVE is no mirror's copy
            ("2001:db8::9", "fd00:ec2::240", 40000, 1688, TCP), // quoted here and there, documented nowhere
        ];
        for (src, dst, src_port, dst_port, protocol) in ordinary {
            assert_eq!(class(src, dst, src_port, dst_port, protocol), None, "{src} > {dst} {dst_port} {protocol}");
        }
    }

    #[test]
    fn vxlan_is_told_by_its_destination_port_only() {
        let classifier = Classifier::default();
        let (a, b) = ("10.0.1.9".parse().unwrap(), "10.0.2.9".parse().unwrap());
        assert_eq!(classifier.class(a, b, 4789, 40000, UDP), None);
    }

    #[test]
    fn first_match_wins() {
        assert_eq!(class("10.0.0.2", "10.0.1.1", 67, 68, UDP), Some(Dns), "before dhcp and router");
        assert_eq!(class("10.0.1.9", "10.0.1.1", 68, 67, UDP), Some(Dhcp), "before router");
        assert_eq!(class("10.0.1.1", "10.0.1.9", 40000, 4789, UDP), Some(Router), "before mirror");
    }

    #[test]
    fn blocks_too_small_reserve_nothing() {
        let classifier = Classifier::new(&["255.255.255.255/32".parse().unwrap()], &["10.9.9.9/32".parse().unwrap()]);
        assert_eq!((classifier.resolvers_v4.len(), classifier.routers_v4.len()), (0, 0));
    }
}
