//! Who appears in the captures: one small VPC and the world around it.
//!
//! The VPC is 10.0.0.0/16 with 2001:db8:1::/56, our host's subnet is 10.0.1.0/24 with 2001:db8:1:1::/64. Addresses of
//! the cloud's own services are AWS's documented ones; the outside world lives in the documentation ranges (RFC 5737,
//! RFC 3849).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The host whose interface the captures are taken on.
pub const HOST: IpAddr = v4(10, 0, 1, 10);
/// The same host's IPv6 address.
pub const HOST_V6: IpAddr = v6(0x2001_0db8_0001_0001_0000_0000_0000_0010);
/// The same host's link-local address.
pub const HOST_LINK_LOCAL: IpAddr = v6(0xfe80_0000_0000_0000_0000_0aff_fe00_010a);
/// A second host on the subnet.
pub const NEIGHBOUR: IpAddr = v4(10, 0, 1, 20);
/// Its IPv6 address.
pub const NEIGHBOUR_V6: IpAddr = v6(0x2001_0db8_0001_0001_0000_0000_0000_0020);
/// The VPC router: subnet base plus one.
pub const ROUTER: IpAddr = v4(10, 0, 1, 1);
/// The VPC router's IPv6 address in the subnet.
pub const ROUTER_V6: IpAddr = v6(0x2001_0db8_0001_0001_0000_0000_0000_0001);
/// The VPC router's well-known link-local address.
pub const ROUTER_LINK_LOCAL: IpAddr = v6(0xfe80_0ec2_0000_0000_0000_0000_0000_0001);

/// The resolver at VPC base plus two.
pub const RESOLVER: IpAddr = v4(10, 0, 0, 2);
/// The resolver's link-local address.
pub const RESOLVER_LOCAL: IpAddr = v4(169, 254, 169, 253);
/// The resolver's IPv6 address.
pub const RESOLVER_V6: IpAddr = v6(0xfd00_0ec2_0000_0000_0000_0000_0000_0253);
/// Instance metadata.
pub const METADATA: IpAddr = v4(169, 254, 169, 254);
/// Instance metadata over IPv6.
pub const METADATA_V6: IpAddr = v6(0xfd00_0ec2_0000_0000_0000_0000_0000_0254);
/// Amazon Time Sync.
pub const TIME: IpAddr = v4(169, 254, 169, 123);
/// Amazon Time Sync over IPv6.
pub const TIME_V6: IpAddr = v6(0xfd00_0ec2_0000_0000_0000_0000_0000_0123);
/// Windows licence activation.
pub const ACTIVATION: IpAddr = v4(169, 254, 169, 250);
/// The second activation server.
pub const ACTIVATION_2: IpAddr = v4(169, 254, 169, 251);
/// Windows licence activation over IPv6.
pub const ACTIVATION_V6: IpAddr = v6(0xfd00_0ec2_0000_0000_0000_0000_0000_0250);

/// A DNS server that is not the cloud's.
pub const OWN_DNS: IpAddr = v4(192, 0, 2, 53);
/// A time server that is not the cloud's.
pub const OWN_TIME: IpAddr = v4(192, 0, 2, 123);
/// A web site outside.
pub const WEB: IpAddr = v4(198, 51, 100, 80);
/// A web site outside, reached over IPv6.
pub const WEB_V6: IpAddr = v6(0x2001_0db8_00ff_0000_0000_0000_0000_0080);
/// An administrator outside.
pub const ADMIN: IpAddr = v4(203, 0, 113, 7);
/// Somebody outside who tries all doors.
pub const SCANNER: IpAddr = v4(203, 0, 113, 66);

/// No address yet (a DHCP client's).
pub const UNSPECIFIED: IpAddr = v4(0, 0, 0, 0);
/// Everybody on the link.
pub const BROADCAST: IpAddr = v4(255, 255, 255, 255);

/// An IPv4 address from its four numbers.
pub const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// An IPv6 address from its 128 bits.
pub const fn v6(bits: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(bits))
}
