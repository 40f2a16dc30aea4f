//! Direction from addresses, for captures that do not tell it.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::capture::Direction;

/// The networks on the interface's own side of the wire (`--local`).
#[derive(Debug, Clone, Default)]
pub struct LocalNetworks {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl LocalNetworks {
    /// Takes an address as local if any of `cidrs` holds it.
    pub fn new(cidrs: &[IpNet]) -> Self {
        let mut local = Self::default();
        for cidr in cidrs {
            match cidr {
                IpNet::V4(cidr) => local.v4.push(*cidr),
                IpNet::V6(cidr) => local.v6.push(*cidr),
            }
        }
        local
    }

    /// Egress where only the source is local, ingress where only the destination is; unknown where both are or neither.
    pub fn direction(&self, src: IpAddr, dst: IpAddr) -> Direction {
        match (self.contains(src), self.contains(dst)) {
            (true, false) => Direction::Egress,
            (false, true) => Direction::Ingress,
            (true, true) | (false, false) => Direction::Unknown,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.iter().any(|cidr| cidr.contains(&address)),
            IpAddr::V6(address) => self.v6.iter().any(|cidr| cidr.contains(&address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direction(local: &[&str], src: &str, dst: &str) -> Direction {
        let cidrs: Vec<IpNet> = local.iter().map(|cidr| cidr.parse().unwrap()).collect();
        LocalNetworks::new(&cidrs).direction(src.parse().unwrap(), dst.parse().unwrap())
    }

    #[test]
    fn exactly_one_local_end_decides() {
        let local = ["10.0.0.0/8", "2001:db8::/32"];
        assert_eq!(direction(&local, "10.1.2.3", "8.8.8.8"), Direction::Egress);
        assert_eq!(direction(&local, "8.8.8.8", "10.1.2.3"), Direction::Ingress);
        assert_eq!(direction(&local, "2001:db8::1", "2600::1"), Direction::Egress);
        assert_eq!(direction(&local, "2600::1", "2001:db8::1"), Direction::Ingress);
    }

    #[test]
    fn both_or_neither_decide_nothing() {
        assert_eq!(direction(&["10.0.0.0/8"], "10.1.2.3", "10.3.2.1"), Direction::Unknown);
        assert_eq!(direction(&["10.0.0.0/8"], "8.8.8.8", "9.9.9.9"), Direction::Unknown);
        assert_eq!(direction(&[], "10.1.2.3", "8.8.8.8"), Direction::Unknown);
        assert_eq!(direction(&["0.0.0.0/0"], "2600::1", "2001:db8::1"), Direction::Unknown, "IPv4 never matches IPv6");
    }
}
