//! The compiled tables against a walk that asks each rule in turn, written from the specification and sharing nothing
//! with them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use flowlog::record::TrafficClass;
use ipnet::IpNet;
use proptest::collection::SizeRange;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::capture::Direction;
use crate::mirror::explain::{Answer, explain};
use crate::mirror::{
    Criteria, Decider, Filter, Mirror, Mode, Offload, Point, Probe, RateLimit, Rule, RuleAction, RuleNumber, Service,
    Session, TooBig, Verdict,
};
use crate::packet::{Addresses, Fragment};

/// A rule as the specification tells it: part 2, table of fields, and our service and verdict.
#[derive(Debug, Clone)]
struct Plain {
    egress: bool,
    accept: bool,
    protocol: Option<u8>,
    source: Option<(IpAddr, u8)>,
    destination: Option<(IpAddr, u8)>,
    source_ports: Option<(u16, u16)>,
    destination_ports: Option<(u16, u16)>,
    service: Option<usize>,
    rejected: bool,
}

/// Sessions by their place: number, interface and rules by number.
type Sessions = Vec<(u16, String, BTreeMap<u16, Plain>)>;

/// What one session says: the rule that decides, and whether it accepts.
type Said = Option<(u16, bool)>;

/// Asks each session of the interface in the order of numbers, up to the one that accepts.
fn walk(sessions: &Sessions, parity: bool, interface: &str, probe: &Probe) -> Vec<(u16, Said)> {
    let mut in_order: Vec<_> = sessions.iter().filter(|(_, name, _)| name == "*" || name == interface).collect();
    in_order.sort_by_key(|(number, ..)| *number);
    let mut said = Vec::new();
    for (number, _, rules) in in_order {
        let decisive = rules.iter().find(|(_, rule)| applies(rule, parity, probe));
        said.push((*number, decisive.map(|(number, rule)| (*number, rule.accept))));
        if matches!(said.last(), Some((_, Some((_, true))))) {
            break;
        }
    }
    said
}

fn applies(rule: &Plain, parity: bool, probe: &Probe) -> bool {
    let in_direction = match probe.direction {
        Direction::Ingress => !rule.egress,
        Direction::Egress => rule.egress,
        Direction::Unknown => false,
    };
    let at_point = match probe.point {
        Point::Tap => !rule.rejected,
        Point::Drop => rule.rejected || !rule.accept,
    };
    let (src, dst) = match probe.addresses {
        Addresses::V4 { src, dst } => (IpAddr::V4(Ipv4Addr::from(src)), IpAddr::V4(Ipv4Addr::from(dst))),
        Addresses::V6 { src, dst } => (IpAddr::V6(Ipv6Addr::from(src)), IpAddr::V6(Ipv6Addr::from(dst))),
    };
    let port_is_in = |range: Option<(u16, u16)>, port: Option<u16>| match (range, port) {
        (None, _) => true,
        (Some((first, last)), Some(port)) => first <= port && port <= last,
        (Some(_), None) => false,
    };
    let services =
        [TrafficClass::Dns, TrafficClass::Dhcp, TrafficClass::Metadata, TrafficClass::Time, TrafficClass::Activation];
    let service_of_packet = services.iter().position(|class| Some(*class) == probe.class);
    // AWS: four services never, and DNS by its name alone.
    let excluded = parity
        && match service_of_packet {
            Some(0) => rule.service.is_none(),
            Some(_) => true,
            None => false,
        };
    let of_service = !excluded && rule.service.is_none_or(|wanted| Some(wanted) == service_of_packet);
    in_direction
        && at_point
        && of_service
        && rule.protocol.is_none_or(|protocol| protocol == probe.protocol)
        && rule.source.is_none_or(|block| holds(block, src))
        && rule.destination.is_none_or(|block| holds(block, dst))
        && port_is_in(rule.source_ports, probe.ports.map(|ports| ports.0))
        && port_is_in(rule.destination_ports, probe.ports.map(|ports| ports.1))
}

/// Whether the first `length` bits of both addresses are the same.
fn holds((network, length): (IpAddr, u8), address: IpAddr) -> bool {
    let bits = |bytes: &[u8]| -> Vec<bool> {
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect()
    };
    let (network, address) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (bits(&network.octets()), bits(&address.octets())),
        (IpAddr::V6(network), IpAddr::V6(address)) => (bits(&network.octets()), bits(&address.octets())),
        _ => return false,
    };
    network[..usize::from(length)] == address[..usize::from(length)]
}

/// The same as the types of the program.
fn checked(sessions: &Sessions, parity: bool) -> Mirror {
    let number = |number: u16| -> RuleNumber { number.to_string().parse().unwrap() };
    let session = |(session, interface, rules): &(u16, String, BTreeMap<u16, Plain>)| {
        let list = |egress: bool| {
            let own = rules.iter().filter(|(_, rule)| rule.egress == egress);
            own.map(|(at, rule)| (number(*at), checked_rule(number(*at), rule))).collect()
        };
        Session {
            number: session.to_string().parse().unwrap(),
            interface: interface.parse().unwrap(),
            filter: Arc::new(Filter::new("f".to_owned(), list(false), list(true))),
            targets: vec![0],
            mode: Mode::default(),
            vni: None,
            packet_length: None,
            too_big: TooBig::default(),
            offload: Offload::default(),
            rate: RateLimit::default(),
            description: None,
        }
    };
    Mirror::new(Vec::new(), Vec::new(), sessions.iter().map(session).collect(), parity)
}

fn checked_rule(number: RuleNumber, rule: &Plain) -> Rule {
    let block = |(address, length): (IpAddr, u8)| IpNet::new(address, length).unwrap().trunc();
    let ports = |(first, last): (u16, u16)| format!("{first}-{last}").parse().unwrap();
    let criteria = Criteria {
        protocol: rule.protocol.map_or_else(|| "all".to_owned(), |number| number.to_string()).parse().unwrap(),
        source: rule.source.map(block),
        destination: rule.destination.map(block),
        source_ports: rule.source_ports.map(ports),
        destination_ports: rule.destination_ports.map(ports),
        service: rule.service.map(|at| Service::ALL[at]),
        verdict: rule.rejected.then_some(Verdict::Rejected),
    };
    Rule::new(number, if rule.accept { RuleAction::Accept } else { RuleAction::Reject }, criteria, None).unwrap()
}

/// Few values in each place, so that rules and packets meet, and neighbours of each.
fn address(v6: bool) -> impl Strategy<Value = IpAddr> {
    let byte = prop_oneof![Just(0_u8), Just(1), Just(127), Just(128), Just(255)];
    [byte.clone(), byte.clone(), byte].prop_map(move |[a, b, c]| match v6 {
        false => IpAddr::from([10, a, b, c]),
        true => IpAddr::from([0x20, 1, a, 0, 0, 0, 0, b, 0, 0, 0, 0, 0, 0, 0, c]),
    })
}

fn block(v6: bool) -> impl Strategy<Value = Option<(IpAddr, u8)>> {
    let lengths: &[u8] =
        if v6 { &[0, 16, 17, 24, 63, 64, 65, 120, 127, 128] } else { &[0, 8, 9, 16, 17, 24, 25, 31, 32] };
    prop::option::of((address(v6), prop::sample::select(lengths)))
}

fn port() -> impl Strategy<Value = u16> {
    prop::sample::select(&[0_u16, 1, 52, 53, 54, 80, 443, 1023, 1024, 65_534, 65_535][..])
}

fn range() -> impl Strategy<Value = Option<(u16, u16)>> {
    prop::option::of((port(), port()).prop_map(|(one, other)| (one.min(other), one.max(other))))
}

fn plain() -> impl Strategy<Value = Plain> {
    let protocol = prop_oneof![Just(None), Just(Some(1)), Just(Some(6)), Just(Some(6)), Just(Some(17))];
    let blocks = any::<bool>().prop_flat_map(|v6| (block(v6), block(v6)));
    let service = prop_oneof![6 => Just(None), 1 => (0..5_usize).prop_map(Some)];
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.2));
    (flags, protocol, blocks, range(), range(), service).prop_map(
        |(flags, protocol, blocks, source_ports, destination_ports, service)| {
            let has_ports = matches!(protocol, Some(6 | 17));
            Plain {
                egress: flags.0,
                accept: flags.1,
                rejected: flags.2,
                protocol,
                source: blocks.0,
                destination: blocks.1,
                source_ports: source_ports.filter(|_| has_ports),
                destination_ports: destination_ports.filter(|_| has_ports),
                service,
            }
        },
    )
}

/// The order of the file is not that of the numbers.
fn sessions(count: SizeRange, rules: SizeRange) -> impl Strategy<Value = Sessions> {
    let name = prop::sample::select(&["eth0", "eth0", "*", "eth1"][..]);
    let rules = prop::collection::btree_map(1..=32_766_u16, plain(), rules);
    let by_number = prop::collection::btree_map(1..=32_766_u16, (name, rules), count);
    let listed = by_number.prop_map(|sessions| {
        sessions.into_iter().map(|(number, (name, rules))| (number, name.to_owned(), rules)).collect::<Sessions>()
    });
    listed.prop_shuffle()
}

fn probe() -> impl Strategy<Value = Probe> {
    let addresses = any::<bool>().prop_flat_map(|v6| (address(v6), address(v6)));
    let protocol = prop::sample::select(&[1_u8, 6, 6, 6, 17, 17, 47][..]);
    let ports = prop::option::weighted(0.9, (port(), port()));
    let direction =
        prop_oneof![4 => Just(Direction::Ingress), 4 => Just(Direction::Egress), 1 => Just(Direction::Unknown)];
    let class = prop_oneof![3 => Just(None), 1 => prop::sample::select(&TrafficClass::ALL[..]).prop_map(Some)];
    let point = prop_oneof![3 => Just(Point::Tap), 1 => Just(Point::Drop)];
    (addresses, protocol, ports, direction, class, point).prop_map(
        |((src, dst), protocol, ports, direction, class, point)| {
            let addresses = match (src, dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => Addresses::V4 { src: src.into(), dst: dst.into() },
                (IpAddr::V6(src), IpAddr::V6(dst)) => Addresses::V6 { src: src.into(), dst: dst.into() },
                _ => unreachable!("both ends are of one version"),
            };
            let ports = ports.filter(|_| matches!(protocol, 6 | 17));
            Probe { direction, addresses, protocol, ports, class, fragment: Fragment::None, point }
        },
    )
}

fn agree(sessions: &Sessions, parity: bool, probes: &[Probe]) -> Result<usize, TestCaseError> {
    let mirror = checked(sessions, parity);
    let decider = Decider::new(&mirror, "eth0").unwrap();
    let mut taken = 0;
    for probe in probes {
        let walked = walk(sessions, parity, "eth0", probe);
        let expected = walked.last().and_then(|(session, said)| Some((*session, said.filter(|said| said.1)?.0)));
        let decided = decider
            .decide(probe)
            .map(|decided| (mirror.sessions()[usize::from(decided.session)].number.number(), decided.rule.number()));
        prop_assert_eq!(decided, expected, "{:?}", probe);
        taken += usize::from(decided.is_some());

        let explained = explain(&mirror, &decider, "eth0", probe);
        prop_assert!(explained.is_sorted_by_key(|(session, _)| session.number));
        let asked = explained.iter().filter_map(|(session, answer)| {
            let said = match answer {
                Answer::OtherInterface | Answer::NotAsked => return None,
                Answer::NoRule => None,
                Answer::Rejected(rule) => Some((rule.number(), false)),
                Answer::Accepted(rule) => Some((rule.number(), true)),
            };
            Some((session.number.number(), said))
        });
        prop_assert_eq!(asked.collect::<Vec<_>>(), walked, "{:?}", probe);
    }
    Ok(taken)
}

/// Were every answer the same, agreement would prove nothing.
#[test]
fn the_cases_are_worth_their_time() {
    let mut runner = TestRunner::deterministic();
    let strategy = (sessions((1..=5).into(), (0..=8).into()), prop::collection::vec(probe(), 60));
    let (mut taken, mut rejections, mut asked) = (0, 0, 0);
    for _ in 0..100 {
        let (sessions, probes) = strategy.new_tree(&mut runner).unwrap().current();
        taken += agree(&sessions, false, &probes).unwrap();
        asked += probes.len();
        let said = probes.iter().flat_map(|probe| walk(&sessions, false, "eth0", probe));
        rejections += said.filter(|(_, said)| matches!(said, Some((_, false)))).count();
    }
    assert!(taken > asked / 20 && taken < asked * 19 / 20, "{taken} of {asked} packets were taken");
    assert!(rejections > asked / 20, "{rejections} rejections of {asked} packets");
}

proptest! {
    #[test]
    fn tables_decide_as_a_walk_does(
        sessions in sessions((1..=5).into(), (0..=8).into()), parity: bool, probes in prop::collection::vec(probe(), 60)
    ) {
        agree(&sessions, parity, &probes)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Lists of some two hundred rules, where every word of the bits is in use.
    #[test]
    fn long_lists_too(sessions in sessions(4.into(), (50..=100).into()), parity: bool, probes in prop::collection::vec(probe(), 200)) {
        agree(&sessions, parity, &probes)?;
    }
}
