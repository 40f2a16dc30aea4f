//! Community ID version 1: one identifier for both directions of a flow, the same in every tool that computes it.
//!
//! Authority: the "Community ID Flow Hashing" specification, version 1, and its baseline vectors.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// The identifier of a flow, with seed 0: `1:` and 28 characters of base64.
///
/// `src_port` and `dst_port` are the type and the code for ICMP and ICMPv6, in network terms: of the packet that went
/// from `src` to `dst`. They do not count for protocols that have no ports.
pub fn community_id(src: IpAddr, dst: IpAddr, protocol: u8, src_port: u16, dst_port: u16) -> String {
    community_id_seeded(0, src, dst, protocol, src_port, dst_port)
}

/// As [`community_id`], for sites that agreed on another seed.
pub fn community_id_seeded(seed: u16, src: IpAddr, dst: IpAddr, protocol: u8, src_port: u16, dst_port: u16) -> String {
    let ports = Ports::of(protocol, src_port, dst_port);
    let (mut low, mut high) = ((octets(src), src_port), (octets(dst), dst_port));
    match ports {
        Ports::None => (low.1, high.1) = (0, 0),
        Ports::OneWay => {}
        Ports::TwoWay(src_port, dst_port) => (low.1, high.1) = (src_port, dst_port),
    }
    if !matches!(ports, Ports::OneWay) && high < low {
        std::mem::swap(&mut low, &mut high);
    }
    let mut hash = Sha1::new();
    hash.update(seed.to_be_bytes());
    hash.update(low.0.as_slice());
    hash.update(high.0.as_slice());
    hash.update([protocol, 0]);
    if !matches!(ports, Ports::None) {
        hash.update(low.1.to_be_bytes());
        hash.update(high.1.to_be_bytes());
    }
    let mut id = String::with_capacity(ID_BYTES);
    id.push_str("1:");
    STANDARD.encode_string(hash.finalize(), &mut id);
    id
}

/// What the two port numbers of a protocol mean to the hash.
enum Ports {
    /// The protocol has none, and they are left out.
    None,
    /// An ICMP message that nothing answers: type and code stay in their order.
    OneWay,
    /// Ports, or an ICMP type and the type that answers it.
    TwoWay(u16, u16),
}

impl Ports {
    fn of(protocol: u8, src_port: u16, dst_port: u16) -> Self {
        let pairs: &[(u16, u16)] = match protocol {
            TCP | UDP | SCTP => return Self::TwoWay(src_port, dst_port),
            ICMP => &ICMP_PAIRS,
            ICMPV6 => &ICMPV6_PAIRS,
            _ => return Self::None,
        };
        let answer = pairs.iter().find_map(|&(one, other)| match src_port {
            icmp_type if icmp_type == one => Some(other),
            icmp_type if icmp_type == other => Some(one),
            _ => None,
        });
        answer.map_or(Self::OneWay, |answer| Self::TwoWay(src_port, answer))
    }
}

/// An address as on the wire, without allocation: sixteen octets, of which IPv4 uses four.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Octets {
    octets: [u8; 16],
    length: usize,
}

impl Octets {
    fn as_slice(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

fn octets(addr: IpAddr) -> Octets {
    match addr {
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            Octets { octets, length: 4 }
        }
        IpAddr::V6(v6) => Octets { octets: v6.octets(), length: 16 },
    }
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Echo, timestamp, information, router solicitation and address mask, each with its answer.
const ICMP_PAIRS: [(u16, u16); 5] = [(8, 0), (13, 14), (15, 16), (10, 9), (17, 18)];

/// Echo, listener query, router and neighbour solicitation, node information and home agent discovery.
const ICMPV6_PAIRS: [(u16, u16); 6] = [(128, 129), (130, 131), (133, 134), (135, 136), (139, 140), (144, 145)];

/// `1:` and twenty bytes as base64.
const ID_BYTES: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    /// The baseline vectors: protocol, source, destination, port or type, port or code, with seed 0 and seed 1.
    const TWO_WAY: [(u8, &str, &str, u16, u16, &str, &str); 8] = [
        (
            6,
            "128.232.110.120",
            "66.35.250.204",
            34855,
            80,
            "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
            "1:3V71V58M3Ksw/yuFALMcW0LAHvc=",
        ),
        (17, "192.168.1.52", "8.8.8.8", 54585, 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ=", "1:Q9We8WO3piVF8yEQBNJF4uiSVrI="),
        (
            132,
            "192.168.170.8",
            "192.168.170.56",
            7,
            7,
            "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs=",
            "1:5w3ZRjeKBzqT3zsaEECDGjUbYeg=",
        ),
        (
            6,
            "2001:470:e5bf:dead:4957:2174:e82c:4887",
            "2607:f8b0:400c:c03::1a",
            63943,
            25,
            "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
            "1:eJYTW6AOzFLlSUoESovMjnu7rMw=",
        ),
        (1, "192.168.0.89", "192.168.0.1", 8, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=", "1:03g6IloqVBdcZlPyX8r0hgoE7kA="),
        (
            58,
            "fe80::200:86ff:fe05:80da",
            "fe80::260:97ff:fe07:69ea",
            135,
            136,
            "1:dGHyGvjMfljg6Bppwm3bg0LO8TY=",
            "1:kHa1FhMYIT6Ym2Vm2AOtoOARDzY=",
        ),
        (
            58,
            "fe80::200:86ff:fe05:80da",
            "ff02::2",
            133,
            134,
            "1:hO+sN4H+MG5MY/8hIrXPqc4ZQz0=",
            "1:L7Ka0ZMYu+J3bL4ulW2PrqyXNo8=",
        ),
        (46, "10.1.12.1", "10.1.12.2", 0, 0, "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw=", "1:rYir8gphR31noO9iDRQmF/BteEI="),
    ];
    const ONE_WAY: [(u8, &str, &str, u16, u16, &str, &str); 3] = [
        (1, "10.0.0.1", "10.0.0.2", 11, 0, "1:YHxtAirCG//0OzkcVAukqKQN9xM=", "1:XjUibYHaafLQ3pxQeiMI8g25q20="),
        (
            58,
            "3ffe:501:1800:2345::2",
            "3ffe:507:0:1:200:86ff:fe05:80da",
            3,
            0,
            "1:2ObVBgIn28oZvibYZhZMBgh7WdQ=",
            "1:lVEtCZpYu84Xqaa++3lXFyuu2n4=",
        ),
        (
            58,
            "3ffe:501:410:0:2c0:dfff:fe47:33e",
            "3ffe:507:0:1:200:86ff:fe05:80da",
            1,
            4,
            "1:hLZd0XGWojozrvxqE0dWB1iM6R0=",
            "1:W8MHwXpWzpoSTD+cGcaJr4u0ys8=",
        ),
    ];

    fn both_seeds(protocol: u8, src: &str, dst: &str, sport: u16, dport: u16) -> (String, String) {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        let seeded = |seed| community_id_seeded(seed, src, dst, protocol, sport, dport);
        assert_eq!(community_id(src, dst, protocol, sport, dport), seeded(0));
        (seeded(0), seeded(1))
    }

    #[test]
    fn the_baseline_vectors_come_out() {
        for (protocol, src, dst, sport, dport, zero, one) in TWO_WAY.into_iter().chain(ONE_WAY) {
            let expected = (zero.to_owned(), one.to_owned());
            assert_eq!(both_seeds(protocol, src, dst, sport, dport), expected, "{protocol} {src} {dst}");
        }
    }

    #[test]
    fn the_answer_has_the_identifier_of_the_question() {
        for (protocol, src, dst, sport, dport, zero, one) in TWO_WAY {
            // An answer to an ICMP question carries the other type of the pair, and a code of its own.
            let (back_sport, back_dport) = match (protocol, sport) {
                (1, 8) => (0, 0),
                (58, asked) => (asked + 1, 0),
                _ => (dport, sport),
            };
            let expected = (zero.to_owned(), one.to_owned());
            assert_eq!(both_seeds(protocol, dst, src, back_sport, back_dport), expected, "{protocol} {src} {dst}");
        }
    }

    #[test]
    fn an_icmp_code_does_not_count_where_an_answer_exists() {
        let (src, dst) = ("192.168.0.89", "192.168.0.1");
        assert_eq!(both_seeds(1, src, dst, 8, 0), both_seeds(1, src, dst, 8, 7));
        assert_ne!(both_seeds(1, src, dst, 11, 0), both_seeds(1, src, dst, 11, 1));
    }

    #[test]
    fn one_way_messages_keep_their_direction() {
        for (protocol, src, dst, sport, dport, zero, _) in ONE_WAY {
            assert_ne!(both_seeds(protocol, dst, src, sport, dport).0, zero);
        }
    }
}
