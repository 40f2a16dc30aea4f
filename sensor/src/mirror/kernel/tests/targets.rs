//! Several targets, GENEVE, and frames cut to a length.

use super::{
    super::{CopyOutcome, KernelMirrorError, MirrorSizes, Notice, TunnelError},
    KernelMirror, filter,
    frames::{Outer, Packet, udp},
    frames_of, mirrored,
    net::*,
    outcome, plan, protocol, session, target,
};
use crate::mirror::{Encapsulation, Mode};
use std::{collections::HashMap, net::IpAddr};

const TARGETS: [&str; 3] = ["10.83.0.11", "10.83.0.12", "10.83.0.13"];

/// Which target got each flow, by the client's port; every flow goes there and back.
fn spread(net: &Net, flows: u16) -> HashMap<u16, IpAddr> {
    let both = move |port: u16| {
        let (client, host) = (format!("10.81.0.2:{port}"), "10.81.0.1:443");
        [udp(&client, host, None, &[1; 10]), udp(host, &client, None, &[2; 10])]
    };
    let frames: Vec<Vec<u8>> = (1000..1000 + flows).flat_map(both).collect();
    let ((), received) = net.collector.capture(COLLECTOR, || net.client.run(move || send(CLIENT, &frames)));
    let mut found: HashMap<u16, (IpAddr, u16, usize)> = HashMap::new();
    for copy in received.iter().filter_map(|frame| Outer::read(frame)) {
        let inner = Packet::read(copy.inner).unwrap();
        let port = if inner.dst_port == 443 { inner.src_port } else { inner.dst_port };
        let (target, source_port, count) = found.entry(port).or_insert((copy.dst, copy.src_port, 0));
        assert_eq!((*target, *source_port), (copy.dst, copy.src_port), "both directions of {port} stay together");
        *count += 1;
    }
    assert_eq!(found.len(), usize::from(flows));
    assert!(found.values().all(|(.., count)| *count == 2));
    found.into_iter().map(|(port, (target, ..))| (port, target)).collect()
}

fn with_targets(net: &Net) {
    net.collector.run(|| {
        for address in TARGETS {
            ip(&format!("addr add {address}/24 dev {COLLECTOR}"));
        }
    });
    TARGETS.iter().for_each(|address| ping(address));
}

#[test]
fn flows_are_shared_out_and_only_those_of_a_dead_target_move() {
    let Some(net) = Net::join() else { return };
    with_targets(&net);
    let all = filter(&[protocol("udp")]);
    let mut balanced = session(1, TAP, &all);
    balanced.targets = vec![0, 1, 2];
    let mut targets: Vec<_> = TARGETS.iter().map(|address| target(address, address)).collect();
    targets[2].weight = "2".parse().unwrap();
    let Some(mut mirror) = mirrored(plan(targets, vec![balanced]), TAP) else { return };
    let before = spread(&net, 2000);
    let count = |flows: &HashMap<u16, IpAddr>, at: usize| {
        let address: IpAddr = TARGETS[at].parse().unwrap();
        flows.values().filter(|target| **target == address).count()
    };
    // 500, 500 and 1000 expected; five standard deviations are 97 and 112.
    assert!((400..=600).contains(&count(&before, 0)) && (400..=600).contains(&count(&before, 1)));
    assert!((880..=1120).contains(&count(&before, 2)), "{}", count(&before, 2));

    mirror.set_health(2, false).unwrap();
    let without = spread(&net, 2000);
    let dead: IpAddr = TARGETS[2].parse().unwrap();
    assert!(without.values().all(|target| *target != dead));
    assert!(before.iter().all(|(port, target)| *target == dead || without[port] == *target), "the others stay");
    assert!(count(&without, 0) > 850 && count(&without, 1) > 850, "its flows are shared out too");

    mirror.set_health(2, true).unwrap();
    assert_eq!(spread(&net, 2000), before, "it gets back what it had");
    (0..3).for_each(|target| mirror.set_health(target, false).unwrap());
    let frame = udp("10.81.0.2:5000", "10.81.0.1:6000", None, &[1; 10]);
    net.client.run(move || send(CLIENT, &[frame]));
    assert_eq!(outcome(&mirror, CopyOutcome::NoTarget), 1);
    frames_of(&mirror);
}

#[test]
fn a_session_can_send_a_copy_to_each_target() {
    let Some(net) = Net::join() else { return };
    with_targets(&net);
    let all = filter(&[protocol("udp")]);
    let mut replicated = session(1, TAP, &all);
    (replicated.targets, replicated.mode) = (vec![0, 1, 2], Mode::Replicate);
    let targets = TARGETS.iter().map(|address| target(address, address)).collect();
    let Some(mut mirror) = mirrored(plan(targets, vec![replicated]), TAP) else { return };
    mirror.set_health(1, false).unwrap();
    let frame = udp("10.81.0.2:5000", "10.81.0.1:6000", None, &[1; 10]);
    let ((), received) = net.collector.capture(COLLECTOR, || net.client.run(move || send(CLIENT, &vec![frame; 7])));
    let to = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        received.iter().filter_map(|frame| Outer::read(frame)).filter(|copy| copy.dst == address).count()
    };
    assert_eq!(TARGETS.map(to), [7, 0, 7]);
    assert_eq!((frames_of(&mirror), outcome(&mirror, CopyOutcome::NoTarget)), ((21, 14, 7), 7));
}

#[test]
fn flows_of_a_target_without_route_go_to_the_others() {
    const NOWHERE: &str = "203.0.113.9";
    let Some(net) = Net::join() else { return };
    with_targets(&net);
    let all = filter(&[protocol("udp")]);
    let targets = || vec![target("nowhere", NOWHERE), target("ids", TARGETS[0])];
    let mut balanced = session(1, TAP, &all);
    balanced.targets = vec![0, 1];
    let mut replicated = balanced.clone();
    replicated.mode = Mode::Replicate;
    let Some(mut mirror) = mirrored(plan(targets(), vec![balanced]), TAP) else { return };
    let reached: IpAddr = TARGETS[0].parse().unwrap();
    assert!(spread(&net, 100).values().all(|target| *target == reached));
    assert_eq!(frames_of(&mirror), (200, 200, 0));
    // Whoever gets every copy loses its own alone.
    mirror.replace(plan(targets(), vec![replicated])).unwrap();
    assert!(spread(&net, 100).values().all(|target| *target == reached));
    assert_eq!((frames_of(&mirror), outcome(&mirror, CopyOutcome::NoDevice)), ((600, 400, 200), 200));
}

#[test]
fn geneve_carries_the_same_frames() {
    let Some(net) = Net::join() else { return };
    let all = filter(&[protocol("udp")]);
    let mut geneve = target("ids", COLLECTOR_V4);
    (geneve.encapsulation, geneve.port) = (Encapsulation::Geneve, Encapsulation::Geneve.port_default());
    let plan = plan(vec![geneve], vec![session(1, TAP, &all)]);
    match KernelMirror::new(plan.clone(), &MirrorSizes::default()) {
        Err(KernelMirrorError::Tunnel(error @ TunnelError::NotOffered(_))) => return eprintln!("skipped: {error}"),
        Err(error) => panic!("{error:?}"),
        Ok(mirror) => drop(mirror),
    }
    let Some(mirror) = mirrored(plan, TAP) else { return };
    let frame = udp("10.81.0.2:5000", "10.81.0.1:6000", Some(9), &[1; 333]);
    let sent = frame.clone();
    let ((), received) = net.collector.capture(COLLECTOR, || net.client.run(move || send(CLIENT, &[sent])));
    let copies: Vec<_> = received.iter().filter_map(|frame| Outer::read(frame)).collect();
    let [copy] = &copies[..] else { panic!("{copies:?}") };
    // RFC 8926: version 0, no options, no flags, an Ethernet frame, VNI 4242.
    assert_eq!((copy.dst_port, copy.tunnel), (6081, [0, 0, 0x65, 0x58, 0, 0x10, 0x92, 0]));
    assert_eq!(copy.inner, frame);
    assert_eq!(frames_of(&mirror), (1, 1, 0));
}

#[test]
fn every_wire_frame_of_a_super_packet_is_cut_to_the_packet_length() {
    const LENGTH: usize = 128;
    let Some(net) = Net::join() else { return };
    let all = filter(&[protocol("tcp")]);
    for mtu in [1600, 1500] {
        net.mtu(mtu);
        let mut cut = session(1, TAP, &all);
        cut.packet_length = Some(LENGTH.to_string().parse().unwrap());
        let Some(mirror) = mirrored(plan(vec![target("ids", COLLECTOR_V4)], vec![cut]), TAP) else { return };
        let ((), received) = net.collector.capture(COLLECTOR, || download(&net));
        let copies: Vec<_> = received.iter().filter_map(|frame| Outer::read(frame)).collect();
        assert!(received.iter().all(|frame| frame.len() <= 50 + LENGTH), "nothing longer, no piece left over");
        assert!(copies.iter().all(|copy| copy.inner.len() <= LENGTH));
        let full = copies.iter().filter(|copy| copy.inner.len() == LENGTH).count();
        assert!(full >= DOWNLOAD_BYTES / 1448, "{full}");
        assert_eq!(frames_of(&mirror), (copies.len() as u64, copies.len() as u64, 0), "MTU {mtu}");
        // What was cut is counted where it was taken: the host sends, and gets nothing that is so long.
        let counted = &mirror.counters().unwrap().sessions[0];
        assert_eq!(counted.ingress.of(CopyOutcome::Cut), (0, 0));
        let (frames, bytes) = counted.egress.of(CopyOutcome::Cut);
        let sent: u64 = copies.iter().map(|copy| copy.inner.len() as u64).sum();
        let mirrored_bytes = counted.ingress.of(CopyOutcome::Mirrored).1 + counted.egress.of(CopyOutcome::Mirrored).1;
        assert_eq!((frames <= full as u64, bytes), (true, mirrored_bytes - sent));
        assert!(frames >= DOWNLOAD_BYTES as u64 / 1448);
    }
    // Over IPv6 the outer checksum covers what would be cut.
    let mut cut = session(1, TAP, &all);
    cut.packet_length = Some("128".parse().unwrap());
    let refused = KernelMirror::new(plan(vec![target("ids", COLLECTOR_V6)], vec![cut]), &MirrorSizes::default());
    assert!(matches!(refused, Err(KernelMirrorError::CutOverV6 { .. })));
}

/// As where the route moves to a device of PPP, whose frames nobody here knows to cut.
#[test]
fn copies_that_cannot_be_cut_are_skipped_until_they_can() {
    // `TUNSETIFF` with `IFF_TUN | IFF_NO_PI`, and `TUNSETLINK` with `ARPHRD_PPP` (linux/if_tun.h, linux/if_arp.h).
    const MAKE_PPP: &str = "import fcntl, struct\nf = open('/dev/net/tun', 'rb+', buffering=0)\n\
        fcntl.ioctl(f, 0x400454ca, struct.pack('16sH22x', b'ppp9', 0x1001)); fcntl.ioctl(f, 0x400454cd, 512)\n";
    let Some(net) = Net::join() else { return };
    if !std::path::Path::new("/dev/net/tun").exists() {
        eprintln!("skipped: no /dev/net/tun");
        return;
    }
    let mut cut = session(1, TAP, &filter(&[protocol("udp")]));
    cut.packet_length = Some("64".parse().unwrap());
    let Some(mut mirror) = mirrored(plan(vec![target("ids", COLLECTOR_V4)], vec![cut]), TAP) else { return };
    assert_eq!(mirror.tend().unwrap(), []);
    ip("tuntap add mode tun name ppp9");
    let made = std::process::Command::new("python3").args(["-c", MAKE_PPP]).status().unwrap();
    assert!(made.success());
    for command in ["addr add 10.88.0.1/24 dev ppp9", "link set ppp9 up", "route add 10.83.0.2/32 dev ppp9"] {
        ip(command);
    }
    let notices = mirror.tend().unwrap();
    assert!(matches!(&notices[..], [Notice::NotCut { cause }] if cause.contains("ppp9")), "{notices:?}");
    assert_eq!(mirror.tend().unwrap(), [], "it is told once");
    let sent = || {
        let frame = udp("10.81.0.2:5000", "10.81.0.1:6000", None, &[1; 100]);
        net.client.run(move || send(CLIENT, &vec![frame; 10]));
    };
    sent();
    assert_eq!((frames_of(&mirror), outcome(&mirror, CopyOutcome::NoDevice)), ((10, 0, 10), 10));
    ip("route del 10.83.0.2/32 dev ppp9");
    assert_eq!(mirror.tend().unwrap(), []);
    let ((), received) = net.collector.capture(COLLECTOR, sent);
    assert_eq!(
        received.iter().filter_map(|frame| Outer::read(frame)).filter(|copy| copy.inner.len() == 64).count(),
        10
    );
    assert_eq!((frames_of(&mirror), outcome(&mirror, CopyOutcome::Cut)), ((20, 10, 10), 10));
}
