//! Cases of the specification: M2 (rules) and M3 (sessions), and what is ours.

use crate::capture::Direction;
use crate::classify::Classifier;
use crate::config::{Flags, RawConfig, Settings};
use crate::mirror::{Decider, Match, Mirror, OwnOutput, Point, Probe};
use crate::packet::{Addresses, Fragment, Packet};

/// Sessions by number, each with an interface and the rules of its filter.
fn mirror(head: &str, sessions: &[(u16, &str, &[&str])]) -> Mirror {
    let mut text = format!("{head}\n[[mirror.target]]\nname = 'ids'\naddress = '192.0.2.1'\n");
    for (number, interface, rules) in sessions {
        text += &format!("[[mirror.filter]]\nname = 'f{number}'\nrules = [\n");
        rules.iter().for_each(|rule| text += &format!("{{ {rule} }},\n"));
        text += &format!("]\n[[mirror.session]]\nnumber = {number}\ninterface = '{interface}'\n");
        text += &format!("filter = 'f{number}'\ntarget = 'ids'\n");
    }
    Settings::new(Some(RawConfig::parse(&text).unwrap()), Flags::default()).unwrap().mirror
}

/// A packet, as `tcp 10.0.0.1:1000 10.0.0.2:80`; ports may be missing.
fn probe(direction: Direction, packet: &str) -> Probe {
    let [protocol, src, dst] = packet.split(' ').collect::<Vec<_>>()[..] else { panic!("{packet}") };
    let end = |text: &str| match text.parse() {
        Ok(address) => (address, None),
        Err(_) => {
            let end: std::net::SocketAddr = text.parse().unwrap();
            (end.ip(), Some(end.port()))
        }
    };
    let ((src, src_port), (dst, dst_port)) = (end(src), end(dst));
    let protocol = match protocol {
        "tcp" => 6,
        "udp" => 17,
        "icmp" => 1,
        other => other.parse().unwrap(),
    };
    use std::net::IpAddr::{V4, V6};
    let addresses = match (src, dst) {
        (V4(src), V4(dst)) => Addresses::V4 { src: src.into(), dst: dst.into() },
        (V6(src), V6(dst)) => Addresses::V6 { src: src.into(), dst: dst.into() },
        _ => panic!("{packet}"),
    };
    let ports = src_port.zip(dst_port);
    let class = ports.and_then(|ports| Classifier::default().class(src, dst, ports.0, ports.1, protocol));
    Probe { direction, addresses, protocol, ports, class, fragment: Fragment::None, point: Point::Tap }
}

/// Session and rule that take a packet on `eth0`.
fn take(mirror: &Mirror, probe: &Probe) -> Option<(u16, u16)> {
    let Match { session, rule } = Decider::new(mirror, "eth0").unwrap().decide(probe)?;
    Some((mirror.sessions()[usize::from(session)].number.number(), rule.number()))
}

#[track_caller]
fn check(mirror: &Mirror, direction: Direction, expected: &[(&str, Option<(u16, u16)>)]) {
    for (packet, expected) in expected {
        assert_eq!(take(mirror, &probe(direction, packet)), *expected, "{packet}");
    }
}

use Direction::{Egress, Ingress, Unknown};

#[test]
fn m2_rules_are_asked_in_ascending_order_whatever_their_order_in_the_file() {
    let mirror = mirror(
        "",
        &[(
            1,
            "eth0",
            &[
                "direction = 'ingress', number = 300, action = 'accept', source = '10.0.0.0/8'",
                "direction = 'ingress', number = 200, action = 'accept', source = '10.1.0.0/16'",
                "direction = 'ingress', number = 100, action = 'reject', source = '10.1.2.0/24'",
            ],
        )],
    );
    check(
        &mirror,
        Ingress,
        &[
            ("tcp 10.1.2.3:1 192.0.2.9:80", None),
            ("tcp 10.1.3.3:1 192.0.2.9:80", Some((1, 200))),
            ("tcp 10.2.3.3:1 192.0.2.9:80", Some((1, 300))),
            ("tcp 11.2.3.3:1 192.0.2.9:80", None),
        ],
    );
}

#[test]
fn m2_each_direction_has_its_own_list_and_an_empty_one_mirrors_nothing() {
    let mirror = mirror("", &[(1, "eth0", &["direction = 'ingress', number = 1, action = 'accept'"])]);
    let packet = "udp 10.1.2.3:1 192.0.2.9:80";
    check(&mirror, Ingress, &[(packet, Some((1, 1)))]);
    check(&mirror, Egress, &[(packet, None)]);
    check(&mirror, Unknown, &[(packet, None)]);
    let decider = Decider::new(&mirror, "eth0").unwrap();
    assert!(!decider.is_idle() && Decider::new(&mirror, "eth1").unwrap().is_idle());
}

#[test]
fn m2_a_block_of_one_version_never_matches_the_other() {
    let all = |block: &str| format!("direction = 'egress', number = 1, action = 'accept', source = '{block}'");
    let (v4, v6) = ("icmp 10.0.0.1 10.0.0.2", "58 2001:db8::1 2001:db8::2");
    let of = |rule: &str| mirror("", &[(1, "eth0", &[rule])]);
    check(&of(&all("0.0.0.0/0")), Egress, &[(v4, Some((1, 1))), (v6, None)]);
    check(&of(&all("::/0")), Egress, &[(v4, None), (v6, Some((1, 1)))]);
    let neither = "direction = 'egress', number = 1, action = 'accept'";
    check(&of(neither), Egress, &[(v4, Some((1, 1))), (v6, Some((1, 1)))]);
}

#[test]
fn m2_ports_are_those_of_tcp_and_udp_and_include_both_ends() {
    let mirror = mirror(
        "",
        &[(
            1,
            "eth0",
            &[
                "direction = 'egress', number = 1, action = 'accept', protocol = 'tcp', destination-ports = '80-443'",
                "direction = 'egress', number = 2, action = 'accept', protocol = 'udp', source-ports = '65535'",
                "direction = 'egress', number = 3, action = 'accept', protocol = 'udp', source-ports = '0-1'",
            ],
        )],
    );
    check(
        &mirror,
        Egress,
        &[
            ("tcp 10.0.0.1:9 10.0.0.2:79", None),
            ("tcp 10.0.0.1:9 10.0.0.2:80", Some((1, 1))),
            ("tcp 10.0.0.1:9 10.0.0.2:443", Some((1, 1))),
            ("tcp 10.0.0.1:9 10.0.0.2:444", None),
            ("tcp 10.0.0.1:80 10.0.0.2:9", None),
            ("udp 10.0.0.1:9 10.0.0.2:80", None),
            ("udp 10.0.0.1:65535 10.0.0.2:80", Some((1, 2))),
            ("udp 10.0.0.1:65534 10.0.0.2:80", None),
            ("udp 10.0.0.1:0 10.0.0.2:80", Some((1, 3))),
            ("udp 10.0.0.1:2 10.0.0.2:80", None),
            // A later fragment has none; SCTP's are not asked.
            ("tcp 10.0.0.1 10.0.0.2", None),
            ("132 10.0.0.1:9 10.0.0.2:80", None),
        ],
    );
}

#[test]
fn m3_the_lowest_number_that_accepts_takes_the_packet_and_a_reject_leaves_it_to_the_next() {
    let accept = "direction = 'ingress', number = 7, action = 'accept', protocol = 'tcp'";
    let mirror = mirror(
        "",
        &[
            (30, "*", &["direction = 'ingress', number = 1, action = 'accept'"]),
            (
                10,
                "eth0",
                &[
                    "direction = 'ingress', number = 5, action = 'reject', protocol = 'tcp', destination-ports = 22",
                    accept,
                ],
            ),
            (20, "eth0", &[accept]),
            (5, "eth1", &["direction = 'ingress', number = 1, action = 'accept'"]),
        ],
    );
    check(
        &mirror,
        Ingress,
        &[
            ("tcp 10.0.0.1:9 10.0.0.2:80", Some((10, 7))),
            ("tcp 10.0.0.1:9 10.0.0.2:22", Some((20, 7))),
            ("udp 10.0.0.1:9 10.0.0.2:22", Some((30, 1))),
        ],
    );
}

const DNS: &str = "udp 10.0.0.9:4000 169.254.169.253:53";
const METADATA: &str = "tcp 10.0.0.9:4000 169.254.169.254:80";
const DHCP: &str = "udp 0.0.0.0:68 255.255.255.255:67";

#[test]
fn services_are_rules_like_the_others() {
    let mirror = mirror(
        "",
        &[
            (
                1,
                "eth0",
                &[
                    "number = 10, action = 'reject', service = 'dhcp'",
                    "number = 20, action = 'accept', service = 'dns', source = '10.0.0.0/8'",
                ],
            ),
            (2, "eth0", &["direction = 'egress', number = 1, action = 'accept', protocol = 'tcp'"]),
        ],
    );
    check(&mirror, Egress, &[(DNS, Some((1, 20))), (METADATA, Some((2, 1))), (DHCP, None)]);
    let reply = "udp 169.254.169.253:53 10.0.0.9:4000";
    check(&mirror, Ingress, &[(reply, None), (DNS, Some((1, 20)))]);
}

#[test]
fn parity_leaves_out_what_aws_leaves_out() {
    let everything = "direction = 'egress', number = 50, action = 'accept'";
    let parity = "aws-parity = true";
    let plain = mirror(parity, &[(1, "eth0", &[everything])]);
    let ordinary = "udp 10.0.0.9:4000 192.0.2.53:53";
    check(&plain, Egress, &[(ordinary, Some((1, 50))), (DNS, None), (METADATA, None), (DHCP, None)]);
    let with_dns = mirror(parity, &[(1, "eth0", &[everything, "number = 60, action = 'accept', service = 'dns'"])]);
    check(&with_dns, Egress, &[(ordinary, Some((1, 50))), (DNS, Some((1, 60))), (METADATA, None)]);
    let without = mirror("", &[(1, "eth0", &[everything])]);
    check(&without, Egress, &[(DNS, Some((1, 50))), (METADATA, Some((1, 50))), (DHCP, Some((1, 50)))]);
}

#[test]
fn rejected_packets_are_taken_where_they_are_dropped_and_only_by_rules_for_them() {
    let mirror = mirror(
        "",
        &[(
            1,
            "eth0",
            &[
                "direction = 'ingress', number = 1, action = 'reject', source = '10.0.0.0/8'",
                "direction = 'ingress', number = 2, action = 'accept', protocol = 'tcp'",
                "direction = 'ingress', number = 3, action = 'accept', verdict = 'rejected', source = '0.0.0.0/0'",
            ],
        )],
    );
    let at = |point, packet| take(&mirror, &Probe { point, ..probe(Ingress, packet) });
    let (tcp, private) = ("tcp 192.0.2.9:1 192.0.2.8:80", "tcp 10.0.0.1:1 192.0.2.8:80");
    assert_eq!(at(Point::Tap, tcp), Some((1, 2)));
    assert_eq!(at(Point::Drop, tcp), Some((1, 3)));
    assert_eq!(at(Point::Tap, "udp 192.0.2.9:1 192.0.2.8:80"), None);
    assert_eq!(at(Point::Drop, "udp 192.0.2.9:1 192.0.2.8:80"), Some((1, 3)));
    // What is kept from the targets is kept from them everywhere.
    assert_eq!((at(Point::Tap, private), at(Point::Drop, private)), (None, None));
}

/// As both executors do it: see `flowtap_abi::guard`.
#[test]
fn our_own_copies_are_told_by_their_ends() {
    use OwnOutput::{IfItHoldsACopy, IfItQuotesACopy, No, Yes};
    let mirror = mirror("", &[(1, "eth0", &["direction = 'egress', number = 1, action = 'accept'"])]);
    for (packet, expected) in [
        ("udp 10.0.0.1:50000 192.0.2.1:4789", Yes),
        // A target that mirrors to us, and what it answers.
        ("udp 192.0.2.1:50000 10.0.0.1:4789", Yes),
        ("udp 192.0.2.1:4789 10.0.0.1:50000", Yes),
        ("udp 10.0.0.1:4789 192.0.2.1:50000", Yes),
        ("tcp 10.0.0.1:50000 192.0.2.1:4789", No),
        ("udp 10.0.0.1:50000 192.0.2.1:4790", No),
        ("udp 10.0.0.1 192.0.2.1", No),
        ("udp 10.0.0.1:4789 192.0.2.2:50000", No),
        ("udp 10.0.0.1:50000 192.0.2.2:4789", IfItHoldsACopy),
        ("icmp 192.0.2.1 10.0.0.1", IfItQuotesACopy),
    ] {
        assert_eq!(mirror.own_output(&probe(Egress, packet)), expected, "{packet}");
    }
}

#[test]
fn a_probe_says_what_its_packet_does() {
    let packet = Packet {
        addresses: Addresses::V4 { src: 1, dst: 2 },
        protocol: 17,
        src_port: 3,
        dst_port: 4,
        tcp_flags: 0,
        ip_bytes: 100,
        fragment: Fragment::First { id: 9 },
        icmp: None,
        vlan: None,
        ether: None,
        direction: Unknown,
    };
    let first = Probe::at_tap(&packet, Egress, None);
    assert_eq!((first.ports, first.direction, first.point), (Some((3, 4)), Egress, Point::Tap));
    let later = Packet { fragment: Fragment::Later { id: 9 }, src_port: 0, dst_port: 0, ..packet };
    let later = Probe::at_tap(&later, Egress, None);
    assert_eq!((later.ports, later.datagram()), (None, first.datagram()));
    assert!(first.datagram().is_some());
    let cut = Packet { fragment: Fragment::None, src_port: 0, dst_port: 0, ..packet };
    let cut = Probe::at_tap(&cut, Egress, None);
    assert_eq!((cut.ports, cut.datagram()), (None, None));
}
