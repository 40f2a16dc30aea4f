//! What a rule matches: protocol, ports and block.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

use crate::config::value::{ValueError, read_as_text};

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
        self.protocol.0.is_none_or(|number| number == traffic.protocol)
            && self.ports.as_ref().is_none_or(|ports| ports.0.contains(&traffic.dst_port))
            && self.peers.contains(&traffic.peer)
    }
}

/// An IANA protocol number, or all of them. Written as a name, a number or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Protocol(Option<u8>);

impl Protocol {
    /// TCP, UDP, DCCP, SCTP and UDP-Lite.
    fn has_ports(self) -> bool {
        matches!(self.0, Some(6 | 17 | 33 | 132 | 136))
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0, PROTOCOL_NAMES.iter().find(|(_, number)| Some(*number) == self.0)) {
            (_, Some((name, _))) => f.write_str(name),
            (Some(number), None) => number.fmt(f),
            (None, None) => f.write_str("all"),
        }
    }
}

impl FromStr for Protocol {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "all" {
            return Ok(Self(None));
        }
        let named = PROTOCOL_NAMES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
        let number = named.or_else(|| text.parse().ok());
        let allowed = "write `all`, a number from 0 to 255 or one of tcp, udp, icmp, icmpv6, gre, esp, ah, dccp, sctp, \
                       udplite";
        number.map(|number| Self(Some(number))).ok_or_else(|| ValueError::new(text, "a protocol", allowed))
    }
}

/// A port or a range of them, like `443` or `1024-65535`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ports(RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(ValueError::new(text, "a port range", "write `443` or `1024-65535`, the smaller number first")),
        }
    }
}

read_as_text!(Protocol, Ports);

/// IANA, "Assigned Internet Protocol Numbers".
const PROTOCOL_NAMES: [(&str, u8); 10] = [
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmpv6", 58),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("dccp", 33),
    ("sctp", 132),
    ("udplite", 136),
];

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
    fn protocols_by_name_and_number() {
        assert_eq!("icmpv6".parse(), Ok(Protocol(Some(58))));
        assert_eq!("58".parse(), Ok(Protocol(Some(58))));
        assert_eq!("all".parse(), Ok(Protocol(None)));
        let shown = |text: &str| text.parse::<Protocol>().unwrap().to_string();
        assert_eq!([shown("6"), shown("200"), shown("all")], ["tcp", "200", "all"]);
    }

    #[test]
    fn refusals() {
        assert_eq!(
            "tpc".parse::<Protocol>().unwrap_err().to_string(),
            "`tpc` is not a protocol: write `all`, a number from 0 to 255 or one of tcp, udp, icmp, icmpv6, gre, esp, \
             ah, dccp, sctp, udplite"
        );
        let ports = |text: &str| text.parse::<Ports>().unwrap_err().to_string();
        let expected = "`80-79` is not a port range: write `443` or `1024-65535`, the smaller number first";
        assert_eq!(ports("80-79"), expected);
        assert!(!ports("65536").is_empty() && !ports("").is_empty() && !ports("-1").is_empty());
        let (icmp, web) = ("icmp".parse().unwrap(), "80".parse().unwrap());
        assert_eq!(Criteria::new(icmp, Some(web), "0.0.0.0/0".parse().unwrap()), None);
    }
}
