//! What a rule matches: protocol, ports and block.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Ports, Protocol};

/// What of a packet a rule can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) protocol: u8,
    /// The other side: source of ingress, destination of egress.
    pub(super) peer: IpAddr,
    pub(super) dst_port: u16,
}

/// What traffic must be for a rule to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Criteria {
    protocol: Protocol,
    ports: Option<Ports>,
    peers: IpNet,
}

impl Criteria {
    /// `None` if `ports` are given for a protocol that has none.
    pub(super) fn new(protocol: Protocol, ports: Option<Ports>, peers: IpNet) -> Option<Self> {
        (ports.is_none() || protocol.has_ports()).then_some(Self { protocol, ports, peers })
    }

    /// A block of one IP version never matches an address of the other.
    pub(super) fn matches(&self, traffic: &Traffic) -> bool {
        self.protocol.number().is_none_or(|number| number == traffic.protocol)
            && self.ports.is_none_or(|ports| ports.contains(traffic.dst_port))
            && self.peers.contains(&traffic.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(protocol: &str, ports: Option<&str>, peers: &str, traffic: (u8, &str, u16)) -> bool {
        let ports = ports.map(|ports| ports.parse().unwrap());
        let criteria = Criteria::new(protocol.parse().unwrap(), ports, peers.parse().unwrap()).unwrap();
        criteria.matches(&Traffic { protocol: traffic.0, peer: traffic.1.parse().unwrap(), dst_port: traffic.2 })
    }

    #[test]
    fn all_three_criteria_must_hold() {
        assert!(matches("tcp", Some("443"), "10.0.0.0/8", (6, "10.1.1.1", 443)));
        assert!(!matches("tcp", Some("443"), "10.0.0.0/8", (17, "10.1.1.1", 443)));
        assert!(!matches("tcp", Some("443"), "10.0.0.0/8", (6, "10.1.1.1", 444)));
        assert!(!matches("tcp", Some("443"), "10.0.0.0/8", (6, "11.1.1.1", 443)));
    }

    #[test]
    fn what_is_left_out_matches_everything() {
        assert!(matches("all", None, "0.0.0.0/0", (47, "203.0.113.1", 0)));
        assert!(matches("tcp", None, "0.0.0.0/0", (6, "203.0.113.1", 65535)));
    }

    #[test]
    fn versions_do_not_mix() {
        assert!(!matches("all", None, "0.0.0.0/0", (6, "2001:db8::1", 80)));
        assert!(!matches("all", None, "::/0", (6, "203.0.113.1", 80)));
        assert!(matches("all", None, "::/0", (6, "2001:db8::1", 80)));
    }

    #[test]
    fn port_ranges_include_both_ends() {
        for (port, expected) in [(1023, false), (1024, true), (2048, true), (2049, false)] {
            assert_eq!(matches("udp", Some("1024-2048"), "::/0", (17, "2001:db8::1", port)), expected, "{port}");
        }
    }

    #[test]
    fn ports_need_a_protocol_that_has_them() {
        let (icmp, web) = ("icmp".parse().unwrap(), "80".parse().unwrap());
        assert_eq!(Criteria::new(icmp, Some(web), "0.0.0.0/0".parse().unwrap()), None);
    }
}
