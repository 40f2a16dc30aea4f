//! Which session takes a packet: the kernel's answer against the decider's, and plans replaced under load.

use super::{
    super::{CopyOutcome, KernelMirror, KernelMirrorError, MirrorSizes, Plan, programs},
    filter,
    frames::{Outer, TCP, UDP, ethernet, ip as ip_packet, udp},
    frames_of, mirrored,
    net::*,
    plan, protocol, session, target,
};
use crate::{
    capture::{Direction, kernel::Device},
    classify::Classifier,
    mirror::{Criteria, Decider, Point, Probe, RuleAction, Session, Vni},
    packet::{Addresses, Fragment},
};
use aya::programs::{TestRun as _, TestRunOptions};
use std::{net::IpAddr, sync::Arc};

/// Numbers without a pattern: xorshift.
fn numbers() -> impl FnMut(u64) -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    }
}

const ADDRESSES_V4: [&str; 8] = [
    "10.0.0.1",
    "10.0.0.9",
    "10.1.2.3",
    "192.0.2.1",
    "169.254.169.253",
    "169.254.169.254",
    "169.254.169.123",
    "8.8.8.8",
];
const ADDRESSES_V6: [&str; 5] = ["fd00::1", "fd00:0:0:1::2", "2001:db8::7", "fd00:ec2::253", "fd00:ec2::254"];
const BLOCKS: [&str; 8] =
    ["10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32", "0.0.0.0/0", "192.0.2.0/25", "fd00::/16", "::/0", "2001:db8::/32"];
const PORTS: [u16; 9] = [0, 53, 67, 80, 123, 443, 1688, 8080, 65535];

fn random_criteria(next: &mut impl FnMut(u64) -> u64) -> Option<Criteria> {
    let mut criteria = Criteria::default();
    let mut pick = |from: &[&'static str]| from[next(from.len() as u64) as usize];
    criteria.protocol = pick(&["all", "tcp", "udp", "udp", "icmp", "47"]).parse().unwrap();
    let blocks: Vec<&str> = std::iter::repeat_n("", 8).chain(BLOCKS).collect();
    criteria.source = pick(&blocks).parse().ok();
    criteria.destination = pick(&blocks).parse().ok();
    criteria.source_ports = pick(&["", "", "", "53", "0-1023", "1024-65535"]).parse().ok();
    criteria.destination_ports = pick(&["", "", "80", "443", "0-443", "65535"]).parse().ok();
    criteria.service = pick(&["", "", "", "", "dns", "dhcp", "metadata", "time", "activation"]).parse().ok();
    crate::mirror::Rule::new("1".parse().unwrap(), RuleAction::Accept, criteria.clone(), None)
        .is_ok()
        .then_some(criteria)
}

/// The loopback device is what the kernel gives a test run.
const INTERFACE: &str = "lo";

#[test]
fn the_kernel_decides_as_the_decider_does() {
    let Some(_net) = Net::join() else { return };
    let mut next = numbers();
    for round in 0..8 {
        let sessions: Vec<Session> = (1..=4 + round % 3)
            .map(|number| {
                let mut rules = Vec::new();
                while rules.len() < 2 + 7 * round as usize {
                    let action = if next(3) == 0 { RuleAction::Reject } else { RuleAction::Accept };
                    rules.extend(random_criteria(&mut next).map(|criteria| (action, criteria)));
                }
                let mut session = session(number, INTERFACE, &filter(&rules));
                session.vni = Vni::new(number.into());
                session
            })
            .collect();
        // Nothing leaves: all that counts is which session was matched.
        let plan = plan(vec![target("ids", "203.0.113.9")], sessions);
        let decider = Decider::new(&plan.mirror, INTERFACE).unwrap();
        let sessions = plan.mirror.sessions().len();
        let Some(mut mirror) = mirrored(plan, INTERFACE) else { return };
        let mut expected = vec![0_u64; sessions];
        for _ in 0..400 {
            let (frame, probe) = random_packet(&mut next);
            if let Some(found) = decider.decide(&probe) {
                expected[usize::from(found.session)] += 1;
            }
            let program = programs::classifier(&mut mirror.object, "mirror_ingress").unwrap();
            let answer = program.test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() }).unwrap();
            assert_eq!(answer.return_value.cast_signed(), -1, "the packet goes on");
            let matched = matched(&mirror);
            assert_eq!(matched, expected, "round {round}: {probe:?}");
        }
        assert!(expected.iter().filter(|count| **count > 0).count() > 1, "{expected:?}");
    }
}

fn matched(mirror: &KernelMirror) -> Vec<u64> {
    let counters = mirror.counters().unwrap();
    counters.sessions.iter().map(|session| session.ingress.of(CopyOutcome::Matched).0).collect()
}

fn random_packet(next: &mut impl FnMut(u64) -> u64) -> (Vec<u8>, Probe) {
    let is_v4 = next(3) > 0;
    let mut address = || -> IpAddr {
        let from: &[&str] = if is_v4 { &ADDRESSES_V4 } else { &ADDRESSES_V6 };
        from[next(from.len() as u64) as usize].parse().unwrap()
    };
    let (src, dst) = (address(), address());
    let protocol = [TCP, UDP, UDP, if is_v4 { 1 } else { 58 }, 47][next(5) as usize];
    let mut port = || PORTS[next(PORTS.len() as u64) as usize];
    let has_ports = matches!(protocol, TCP | UDP);
    let ports = if has_ports { (port(), port()) } else { (0, 0) };
    let mut transport = vec![0; 20];
    transport[12] = 0x50;
    if has_ports {
        transport[..2].copy_from_slice(&ports.0.to_be_bytes());
        transport[2..4].copy_from_slice(&ports.1.to_be_bytes());
    }
    let addresses = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Addresses::V4 { src: src.to_bits(), dst: dst.to_bits() },
        (IpAddr::V6(src), IpAddr::V6(dst)) => Addresses::V6 { src: src.to_bits(), dst: dst.to_bits() },
        _ => panic!(),
    };
    let probe = Probe {
        direction: Direction::Ingress,
        addresses,
        protocol,
        ports: has_ports.then_some(ports),
        class: Classifier::default().class(src, dst, ports.0, ports.1, protocol),
        fragment: Fragment::None,
        point: Point::Tap,
    };
    (ethernet(None, &ip_packet(src, dst, protocol, &transport)), probe)
}

#[test]
fn plans_replaced_under_load_lose_and_double_nothing() {
    let Some(net) = Net::join() else { return };
    let udp_only = filter(&[protocol("udp")]);
    let all = filter(&[protocol("tcp"), protocol("all")]);
    let targets = || vec![target("ids", COLLECTOR_V4)];
    let plans: [Plan; 2] = [
        plan(targets(), vec![session(1, TAP, &udp_only)]),
        plan(targets(), vec![session(7, "tap*", &all), session(9, TAP, &udp_only)]),
    ];
    let Some(mut mirror) = mirrored(plans[0].clone(), TAP) else { return };
    let numbered: Vec<Vec<u8>> =
        (0..20_000_u32).map(|number| udp("10.81.0.2:5000", "10.81.0.1:6000", None, &number.to_be_bytes())).collect();
    let (replaced, received) = net.collector.capture(COLLECTOR, || {
        let sent = net.client.begin(move || send(CLIENT, &numbered));
        let mut replaced = 0;
        while sent.try_recv().is_err() {
            replaced += 1;
            mirror.replace(plans[replaced % 2].clone()).unwrap();
        }
        replaced
    });
    assert!(replaced > 3, "{replaced}");
    let copies = received.iter().filter_map(|frame| Outer::read(frame));
    let numbers: Vec<u32> = copies
        .filter(|copy| copy.inner.len() == 14 + 28 + 4)
        .map(|copy| u32::from_be_bytes(copy.inner[42..46].try_into().unwrap()))
        .collect();
    assert!(numbers.iter().copied().eq(0..20_000), "{} of 20000 copies, in order and once", numbers.len());
    let (matched, mirrored, skipped) = frames_of(&mirror);
    assert!(matched >= 20_000 && skipped == 0 && mirrored == matched, "{matched} {mirrored} {skipped}");
}

#[test]
fn a_plan_that_does_not_fit_leaves_the_old_one_and_its_devices_alone() {
    const LENGTH: usize = 128;
    let Some(net) = Net::join() else { return };
    let all = filter(&[protocol("tcp")]);
    let mut cuts = session(1, TAP, &all);
    cuts.packet_length = Some(LENGTH.to_string().parse().unwrap());
    let sizes = MirrorSizes { known_max: 256, ..MirrorSizes::default() };
    let Ok(mut mirror) = KernelMirror::new(plan(vec![target("ids", COLLECTOR_V4)], vec![cuts]), &sizes) else { return };
    mirror.attach(&Device::find(TAP).unwrap()).unwrap();

    // At another port, uncut, and more targets than there is room for.
    let mut other = target("other", COLLECTOR_V4);
    other.port = 4790.try_into().unwrap();
    let many =
        (0..1000).map(|number| target(&format!("ids{number}"), &format!("10.85.{}.{}", number / 250, number % 250)));
    let too_large = plan(std::iter::once(other).chain(many).collect(), vec![session(2, "*", &all)]);
    let refused = mirror.replace(too_large).unwrap_err();
    assert!(matches!(refused, KernelMirrorError::Tables(_)), "{refused:?}");
    for device in ["flowtap-v4790", "flowtap-s0", "flowtap-p0"] {
        assert!(Device::find(device).is_err(), "{device} is left");
    }
    let ((), received) = net.collector.capture(COLLECTOR, || download(&net));
    let copies: Vec<_> = received.iter().filter_map(|frame| Outer::read(frame)).collect();
    assert!(copies.iter().all(|copy| copy.dst_port == 4789 && copy.inner.len() <= LENGTH));
    assert_eq!(frames_of(&mirror), (copies.len() as u64, copies.len() as u64, 0));
    assert!(copies.len() >= DOWNLOAD_BYTES / 1448);
}

#[test]
fn later_fragments_follow_their_first_one() {
    let Some(net) = Net::join() else { return };
    let to_6000 =
        Criteria { protocol: "udp".parse().unwrap(), destination_ports: "6000".parse().ok(), ..Criteria::default() };
    let one_port = filter(&[(RuleAction::Accept, to_6000)]);
    let plan = plan(vec![target("ids", COLLECTOR_V4)], vec![session(1, TAP, &one_port)]);
    // Else the first of a family waits for an answer.
    [CLIENT_V4, CLIENT_V6].into_iter().for_each(ping);
    let Some(mirror) = mirrored(plan, TAP) else { return };
    net.client.run(|| {
        for (host, client) in [(HOST_V4, CLIENT_V4), (HOST_V6, CLIENT_V6)] {
            let socket = std::net::UdpSocket::bind((client, 0)).unwrap();
            // Three pieces each: 4000 bytes and a header.
            for port in [6000, 6001] {
                socket.send_to(&[1; 4000], (host, port)).unwrap();
            }
        }
    });
    let counters = mirror.counters().unwrap();
    assert_eq!(counters.sessions[0].ingress.of(CopyOutcome::Mirrored).0, 2 * 3, "{counters:?}");
}

/// The third address of its VPC's block is an interface's resolver.
#[test]
fn each_interface_knows_its_own_services() {
    let Some(net) = Net::join() else { return };
    let dns = Criteria { service: "dns".parse().ok(), ..Criteria::default() };
    assert!(dns.service.is_some());
    let dns = filter(&[(RuleAction::Accept, dns)]);
    let sessions = vec![session(1, TAP, &dns), session(2, OUT, &dns)];
    let mut plan = plan(vec![target("ids", COLLECTOR_V4)], sessions);
    plan.classifier = Arc::new(|interface| {
        let block = if interface == TAP { "10.1.0.0/16" } else { "10.2.0.0/16" };
        Classifier::new(&[block.parse().unwrap()], &[])
    });
    let Some(mut mirror) = mirrored(plan, TAP) else { return };
    mirror.attach(&Device::find(OUT).unwrap()).unwrap();
    let frames: Vec<_> = [("10.1.0.2:53", 3), ("10.2.0.2:53", 5), ("10.3.0.2:53", 7)]
        .into_iter()
        .flat_map(|(to, count)| vec![udp("10.81.0.2:5000", to, None, &[1; 20]); count])
        .collect();
    let sent = frames.clone();
    net.client.run(move || send(CLIENT, &sent));
    net.collector.run(move || send(COLLECTOR, &frames));
    assert_eq!(matched(&mirror), [3, 5]);
}

#[test]
fn an_interface_of_no_session_gets_no_program_and_a_detached_one_no_copies() {
    let Some(net) = Net::join() else { return };
    let udp_only = filter(&[protocol("udp")]);
    let plan = plan(vec![target("ids", COLLECTOR_V4)], vec![session(1, TAP, &udp_only)]);
    let Ok(mut mirror) = KernelMirror::new(plan, &MirrorSizes::default()) else { return };
    let (tap, out) = (Device::find(TAP).unwrap(), Device::find(OUT).unwrap());
    mirror.attach(&tap).unwrap();
    mirror.attach(&out).unwrap();
    assert!(mirror.taps[&tap.index].programs.is_some() && mirror.taps[&out.index].programs.is_none());
    let frame = udp("10.81.0.2:5000", "10.81.0.1:6000", None, &[1; 20]);
    let sent = frame.clone();
    net.client.run(move || send(CLIENT, &[sent]));
    assert!(mirror.detach(tap.index).unwrap() && !mirror.detach(tap.index).unwrap());
    net.client.run(move || send(CLIENT, &[frame]));
    assert_eq!(frames_of(&mirror).0, 1);
}

#[test]
fn the_verifier_needs_less_than_a_tenth_of_its_bound() {
    let Some(_net) = Net::join() else { return };
    let plan = plan(vec![target("ids", COLLECTOR_V4)], vec![session(1, TAP, &filter(&[protocol("udp")]))]);
    let Ok(mut mirror) = KernelMirror::new(plan, &MirrorSizes::default()) else { return };
    for name in ["mirror_ingress", "mirror_egress_l3", "mirror_encapsulate", "mirror_cut"] {
        let program = programs::classifier(&mut mirror.object, name).unwrap();
        let verified = program.info().unwrap().verified_instruction_count().unwrap();
        // Of a million.
        assert!(verified < 100_000, "{name}: {verified}");
    }
}
