//! What rules say of a protocol and of ports, in a policy and in a mirror filter alike.

use std::str::FromStr;

use super::value::{ValueError, read_as_text};

/// An IANA protocol number, or all of them. Written as a name, a number or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protocol(Option<u8>);

impl Protocol {
    /// IANA's number; `None` for all protocols.
    pub fn number(self) -> Option<u8> {
        self.0
    }

    /// TCP, UDP, DCCP, SCTP and UDP-Lite.
    pub fn has_ports(self) -> bool {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// The lowest of them.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest of them, never below the lowest.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether `port` is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl FromStr for Ports {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self { first, last }),
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

    #[test]
    fn protocols_by_name_and_number() {
        assert_eq!("icmpv6".parse(), Ok(Protocol(Some(58))));
        assert_eq!("58".parse(), Ok(Protocol(Some(58))));
        assert_eq!("all".parse(), Ok(Protocol(None)));
        let shown = |text: &str| text.parse::<Protocol>().unwrap().to_string();
        assert_eq!([shown("6"), shown("200"), shown("all")], ["tcp", "200", "all"]);
    }

    #[test]
    fn ranges_are_written_as_they_are_read() {
        for text in ["0", "443", "1024-65535"] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
        }
        assert_eq!("80-80".parse::<Ports>().unwrap().to_string(), "80");
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
    }
}
