//! Copies past the IP stack: the same frames as by the tunnel device, in the same order, and only while the way is known.

use super::{
    super::{CopyOutcome, Notice, TUNNEL_ALIAS, segmenter::Segmenter},
    KernelMirror, filter,
    frames::{self, Outer, TCP, UDP, udp},
    mirrored,
    net::*,
    plan, protocol, session, target,
};
use crate::capture::kernel::{Attachment, Btf, Device, DropReasons, KERNEL_BTF};
use flowtap_abi::mirror::DirectPath;
use std::net::IpAddr;

/// A mirror of all TCP and UDP at the tap. Its devices say nothing of their own accord: they have no IPv6.
fn of_all(address: &str) -> Option<KernelMirror> {
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let all = filter(&[protocol("tcp"), protocol("udp")]);
    mirrored(plan(vec![target("ids", address)], vec![session(1, TAP, &all)]), TAP)
}

/// What went past the IP stack since this was last asked: frames that were taken, and those that were not.
fn counted(mirror: &mut KernelMirror) -> (u64, u64) {
    let account = mirror.tunnels[0].account.unwrap();
    let counts = mirror.direct.counted(account).unwrap();
    (counts.sent, counts.dropped)
}

/// Wire frames that the segmenter sent since it was made.
fn segmented(mirror: &mut KernelMirror) -> u64 {
    mirror.netlink.device(mirror.segmenter.index()).unwrap().unwrap().sent.frames
}

/// The outer frames of what the client sends.
fn copies(net: &Net, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let frames = frames.to_vec();
    let ((), mut captured) = net.collector.capture(COLLECTOR, || net.client.run(move || send(CLIENT, &frames)));
    // What the client says of its own accord is not asked about.
    captured.retain(|frame| Outer::read(frame).is_some_and(|copy| copy.inner[6..12] == [2, 0, 0, 0, 0, 9]));
    captured
}

/// The next copy goes by the tunnel device whatever it is.
fn use_up_the_question(net: &Net) {
    copies(net, &[datagram(1)]);
}

fn datagram(payload_bytes: usize) -> Vec<u8> {
    udp("10.81.0.2:5000", "10.81.0.1:6000", None, &vec![5; payload_bytes])
}

/// An Ethernet frame of IPv4 or IPv6 around `transport`, whose checksum at `at` is made right.
fn complete(ends: (&str, &str), protocol: u8, at: usize, mut transport: Vec<u8>) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (ends.0.parse().unwrap(), ends.1.parse().unwrap());
    transport[at..at + 2].fill(0);
    let sum = frames::checksum(&[&frames::pseudo_header(src, dst, protocol, transport.len()), &transport]);
    transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    frames::ethernet(None, &frames::ip(src, dst, protocol, &transport))
}

fn segment(ends: (&str, &str), payload: &[u8]) -> Vec<u8> {
    let header = [0x13, 0x88, 0x17, 0x70, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0];
    complete(ends, TCP, 16, [&header[..], payload].concat())
}

/// Sets the traffic class of a frame's IPv4 header.
fn with_class(mut frame: Vec<u8>, class: u8) -> Vec<u8> {
    frame[15] = class;
    frame[24..26].fill(0);
    let sum = frames::checksum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

const V4: (&str, &str) = ("198.51.100.1", "203.0.113.9");
const V6: (&str, &str) = ("2001:db8::1", "2001:db8::9");

/// The way that a copy takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Out of the device as it is.
    Straight,
    Segmenter,
    IpStack,
}

/// Frames, and the way of each.
fn all_kinds() -> Vec<(Vec<u8>, Way)> {
    let payload: Vec<u8> = (0..=255).collect();
    let mut all = Vec::new();
    for bytes in [0, 1, 2, 3, 17, 100, 181] {
        all.push((segment(V4, &payload[..bytes]), Way::Straight));
        all.push((segment(V6, &payload[..bytes]), Way::Straight));
        all.push((udp("198.51.100.1:7", "203.0.113.9:9", None, &payload[..bytes]), Way::Straight));
        all.push((udp("[2001:db8::1]:7", "[2001:db8::9]:9", None, &payload[..bytes]), Way::Straight));
    }
    // The longest, and one byte more: 256 less Ethernet, IP and UDP or TCP header.
    all.push((udp("198.51.100.1:7", "203.0.113.9:9", None, &payload[..214]), Way::Straight));
    all.push((udp("198.51.100.1:7", "203.0.113.9:9", None, &payload[..215]), Way::Segmenter));
    all.push((segment(V6, &payload[..182]), Way::Straight));
    all.push((segment(V6, &payload[..183]), Way::Segmenter));
    // RFC 6040: what the routers may mark.
    all.extend([0, 1, 2, 3, 0xb8, 0xbb].map(|class| (with_class(segment(V4, &payload[..9]), class), Way::Straight)));
    let mut class_of_v6 = segment(V6, &payload[..9]);
    (class_of_v6[14], class_of_v6[15]) = (0x6b, 0xb0);
    all.push((class_of_v6, Way::Straight));
    // A short frame, filled up with what is no part of the packet.
    all.push(([datagram(1), vec![0xaa; 17]].concat(), Way::Straight));
    let mut without = datagram(33);
    without[40..42].fill(0);
    all.push((without, Way::Straight));
    let mut wrong = segment(V4, &payload[..20]);
    wrong[60] ^= 1;
    all.push((wrong, Way::Segmenter));
    // As it is left to a card: the sum of the pseudo-header alone.
    let mut partial = segment(V4, &payload[..20]);
    let [src, dst]: [IpAddr; 2] = [V4.0.parse().unwrap(), V4.1.parse().unwrap()];
    let sum = !frames::checksum(&[&frames::pseudo_header(src, dst, TCP, 40)]);
    partial[50..52].copy_from_slice(&sum.to_be_bytes());
    all.push((partial, Way::Segmenter));
    all.push((udp("198.51.100.1:7", "203.0.113.9:9", Some(7), &payload[..9]), Way::IpStack));
    let mut piece = datagram(16);
    piece[20] = 0x20;
    let piece = with_class(piece, 0);
    all.push((piece, Way::Segmenter));
    let [src, dst]: [IpAddr; 2] = [V4.0.parse().unwrap(), V4.1.parse().unwrap()];
    all.push((frames::ethernet(None, &frames::ip(src, dst, UDP, &[0, 7, 0, 9, 0, 99, 0, 0, 1, 2])), Way::Segmenter));
    all
}

/// Without what may differ: the identification of the outer packet, and the checksum over it.
fn without_identification(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let without = |frame: &Vec<u8>| {
        let mut frame = frame.clone();
        frame[18..20].fill(0);
        frame[24..26].fill(0);
        frame
    };
    frames.iter().map(without).collect()
}

#[test]
fn copies_are_as_the_tunnel_device_makes_them() {
    let Some(net) = Net::join() else { return };
    let kinds = all_kinds();
    let frames: Vec<_> = kinds.iter().map(|(frame, _)| frame.clone()).collect();
    // Where full frames do not fit the path, the outer packets may be fragmented, and say so.
    for mtu in [1600, 1500] {
        net.mtu(mtu);
        let Some(mut mirror) = of_all(COLLECTOR_V4) else { return };
        use_up_the_question(&net);
        assert_eq!(counted(&mut mirror), (0, 0), "one by the tunnel device");
        for (frame, way) in &kinds {
            let before = segmented(&mut mirror);
            assert_eq!(copies(&net, std::slice::from_ref(frame)).len(), 1);
            let took = match (counted(&mut mirror), segmented(&mut mirror) - before) {
                ((0, 0), 0) => Way::IpStack,
                ((1, 0), 0) => Way::Straight,
                ((1, 0), 1) => Way::Segmenter,
                other => panic!("{other:?}"),
            };
            assert_eq!(took, *way, "{frame:02x?}");
        }
        let direct = copies(&net, &frames);
        mirror.direct.write(&[(mirror.generation.slot(0) * 16, DirectPath::default())]).unwrap();
        counted(&mut mirror);
        let by_device = copies(&net, &frames);
        assert_eq!(counted(&mut mirror), (0, 0));
        assert_eq!(direct.len(), frames.len());
        for ((ours, theirs), sent) in
            without_identification(&direct).iter().zip(&without_identification(&by_device)).zip(&frames)
        {
            assert_eq!(ours, theirs, "MTU {mtu}, {sent:02x?}");
        }
        let inner: Vec<_> = direct.iter().map(|copy| Outer::read(copy).unwrap().inner.to_vec()).collect();
        assert!(inner == frames, "all ways mixed, in order and unchanged");
    }
}

/// One flow whose datagrams are small and large by turns, and now and then have a tag, so that they go all ways.
#[test]
fn a_flow_stays_in_order_over_all_ways() {
    let Some(net) = Net::join() else { return };
    let Some(mut mirror) = of_all(COLLECTOR_V4) else { return };
    let frame = |number: u32| {
        let bytes = [20, 1400, 100, 300, 7][number as usize % 5];
        let payload = [&number.to_be_bytes()[..], &vec![9; bytes]].concat();
        udp("10.81.0.2:5000", "10.81.0.1:6000", (number % 7 == 6).then_some(5), &payload)
    };
    let frames: Vec<_> = (0..20_000).map(frame).collect();
    let received = copies(&net, &frames);
    let number = |copy: &Vec<u8>| {
        let inner = Outer::read(copy).unwrap().inner;
        let at = if inner[12..14] == [0x81, 0] { 46 } else { 42 };
        u32::from_be_bytes(inner[at..at + 4].try_into().unwrap())
    };
    let numbers: Vec<_> = received.iter().map(number).collect();
    assert!(numbers.iter().copied().eq(0..20_000), "{} came", numbers.len());
    // One of seven has a tag, and the first of all went by the tunnel device. Two of five are large.
    assert_eq!(counted(&mut mirror), (20_000 - 20_000 / 7 - 1, 0));
    let is_large = |number: &u32| number % 7 != 6 && matches!(number % 5, 1 | 3);
    assert_eq!(segmented(&mut mirror), (0..20_000).filter(is_large).count() as u64);
}

#[test]
fn a_way_is_taken_only_while_it_is_known() {
    let Some(net) = Net::join() else { return };
    let Some(mut mirror) = of_all(COLLECTOR_V4) else { return };
    let mut goes = |what: &str| -> u64 {
        assert!(mirror.tend().unwrap().iter().all(|notice| notice.to_string().contains("no route")), "{what}");
        net.client.run(|| send(CLIENT, &vec![datagram(50); 10]));
        counted(&mut mirror).0
    };
    assert_eq!(goes("as it is"), 9, "each round one goes by the tunnel device");
    assert_eq!(goes("a second round"), 9);
    ip(&format!("neigh replace {COLLECTOR_V4} lladdr 02:00:00:00:00:77 dev {OUT} nud permanent"));
    assert_eq!(goes("another neighbour"), 9);
    ip(&format!("neigh del {COLLECTOR_V4} dev {OUT}"));
    assert_eq!(goes("no neighbour"), 0);
    ip(&format!("neigh replace {COLLECTOR_V4} lladdr 02:00:00:00:00:77 dev {OUT} nud permanent"));
    assert_eq!(goes("a neighbour again"), 9);
    ip("xfrm policy add src 192.0.2.0/24 dst 192.0.2.0/24 dir out action block");
    assert_eq!(goes("IPsec"), 0);
    ip("xfrm policy flush");
    assert_eq!(goes("no IPsec"), 9);
    ip(&format!("route add {COLLECTOR_V4}/32 nexthop via 10.83.0.7 dev {OUT} nexthop via 10.83.0.8 dev {OUT}"));
    ip(&format!("neigh replace 10.83.0.7 lladdr 02:00:00:00:00:77 dev {OUT} nud permanent"));
    ip(&format!("neigh replace 10.83.0.8 lladdr 02:00:00:00:00:78 dev {OUT} nud permanent"));
    assert_eq!(goes("a choice of routers"), 0);
    ip(&format!("route replace {COLLECTOR_V4}/32 via 10.83.0.7 dev {OUT}"));
    assert_eq!(goes("a router"), 9);
    ip(&format!("link set {OUT} down"));
    assert_eq!(goes("no device"), 0);
}

#[test]
fn copies_that_are_dropped_on_the_way_out_are_counted_each() {
    let Some(net) = Net::join() else { return };
    let Some(mut mirror) = of_all(COLLECTOR_V4) else { return };
    // The queue holds two hundred at most, and lets out some eighty a second.
    run("tc", &format!("qdisc replace dev {OUT} root tbf rate 64kbit burst 3000 limit 20000"));
    let (at_once, received) = net.collector.capture(COLLECTOR, || {
        net.client.run(|| send(CLIENT, &vec![datagram(50); 1000]));
        let at_once = counted(&mut mirror);
        // What waits in it goes with it: lost after it was taken.
        run("tc", &format!("qdisc del dev {OUT} root"));
        at_once
    });
    let later = counted(&mut mirror);
    assert_eq!(at_once.0 + at_once.1, 999, "one went by the tunnel device");
    assert!(at_once.1 > 600, "{at_once:?}");
    assert!(later.1 > 0, "{later:?}");
    assert_eq!(later.0, 0);
    // The first one filled a place in the queue too, at most.
    let came = received.iter().filter(|frame| Outer::read(frame).is_some()).count() as u64;
    let left = 999 - at_once.1 - later.1;
    assert!([left, left + 1].contains(&came), "{at_once:?} {later:?} {came}");
}

#[test]
fn what_a_full_packet_socket_drops_is_no_copy() {
    let btf = Btf::from_file(std::path::Path::new(KERNEL_BTF)).unwrap();
    if DropReasons::read(&btf).is_ok_and(|reasons| reasons.number("PACKET_SOCK_ERROR").is_none()) {
        eprintln!("skipped: this kernel has no reason of its own for it");
        return;
    }
    let Some(net) = Net::join() else { return };
    let Some(mut mirror) = of_all(COLLECTOR_V4) else { return };
    // Nobody reads from it.
    let mut full = pcap::Capture::from_device(OUT).unwrap().buffer_size(1 << 16).immediate_mode(true).open().unwrap();
    net.client.run(|| send(CLIENT, &vec![datagram(50); 5000]));
    assert!(full.stats().unwrap().dropped > 1000);
    assert_eq!(counted(&mut mirror), (4999, 0));
}

#[test]
fn where_losses_cannot_be_counted_nothing_goes_past_the_ip_stack_and_it_is_told_once() {
    let Some(net) = Net::join() else { return };
    let Some(mut mirror) = of_all(COLLECTOR_V4) else { return };
    (mirror.direct.counts_losses, mirror.no_losses) = (false, Some("no tracepoint".to_owned()));
    // The device goes, and comes again.
    let all = filter(&[protocol("tcp"), protocol("udp")]);
    mirror.replace(plan(Vec::new(), Vec::new())).unwrap();
    assert!(mirror.tunnels.is_empty());
    mirror.replace(plan(vec![target("ids", COLLECTOR_V4)], vec![session(1, TAP, &all)])).unwrap();
    let told = mirror.tend().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(told.iter().any(|notice| notice.contains("can't be counted: no tracepoint")), "{told:?}");
    assert_eq!(mirror.tend().unwrap(), []);
    assert_eq!(mirror.tunnels[0].account, None);
    assert_eq!(copies(&net, &vec![datagram(50); 10]).len(), 10);
}

/// What came of a transfer to the client: wire frames that a session copied, and those that arrived.
fn transferred(net: &Net, mirror: &mut KernelMirror) -> (u64, u64) {
    let mirrored = |mirror: &KernelMirror| {
        let counters = mirror.counters().unwrap();
        let [session] = &counters.sessions[..] else { panic!("{counters:?}") };
        assert!(session.ingress.balances() && session.egress.balances(), "{counters:?}");
        session.ingress.of(CopyOutcome::Mirrored).0 + session.egress.of(CopyOutcome::Mirrored).0
    };
    let before = mirrored(mirror);
    let ((), received) = net.collector.capture(COLLECTOR, || download(net));
    assert!(received.iter().all(|frame| frame.len() <= 1514 + 50), "wire frames");
    let arrived = received.iter().filter(|frame| Outer::read(frame).is_some()).count();
    (mirrored(mirror) - before, arrived as u64)
}

#[test]
fn super_packets_are_counted_in_wire_frames_also_where_they_are_lost() {
    let Some(net) = Net::join() else { return };
    let Some(mut mirror) = of_all(COLLECTOR_V4) else { return };
    use_up_the_question(&net);
    let (copied, arrived) = transferred(&net, &mut mirror);
    assert_eq!((copied, counted(&mut mirror)), (arrived, (arrived, 0)));
    assert!(segmented(&mut mirror) >= DOWNLOAD_BYTES as u64 / 1448);
    // Frames are lost behind the segmenter: the queue holds a dozen of them.
    run("tc", &format!("qdisc replace dev {OUT} root tbf rate 64kbit burst 3000 limit 20000"));
    let (copied, _) = transferred(&net, &mut mirror);
    run("tc", &format!("qdisc del dev {OUT} root"));
    let (sent, dropped) = counted(&mut mirror);
    assert!(sent + dropped == copied && dropped > copied / 2, "{copied} {sent} {dropped}");
    // Super-packets are lost before it.
    ip("link set flowtap-s0 down");
    let (copied, arrived) = transferred(&net, &mut mirror);
    let (sent, dropped) = counted(&mut mirror);
    assert!(sent + dropped == copied && sent == arrived, "{copied} {sent} {dropped} {arrived}");
    assert!(dropped >= DOWNLOAD_BYTES as u64 / 1448);
}

#[test]
fn a_segmenter_that_somebody_changes_is_made_again() {
    let Some(net) = Net::join() else { return };
    let Some(mut mirror) = of_all(COLLECTOR_V4) else { return };
    let told = |mirror: &mut KernelMirror| mirror.tend().unwrap();
    assert_eq!(told(&mut mirror), []);
    for change in
        ["link delete flowtap-s0", "link delete flowtap-p0", "link set flowtap-p0 nomaster", "link set flowtap-s0 down"]
    {
        ip(change);
        assert_eq!(told(&mut mirror), [Notice::DeviceMadeAgain { device: "flowtap-s0".to_owned() }], "{change}");
        assert_eq!(told(&mut mirror), [], "{change}");
        use_up_the_question(&net);
        counted(&mut mirror);
        let (copied, arrived) = transferred(&net, &mut mirror);
        assert_eq!((copied, counted(&mut mirror)), (arrived, (arrived, 0)), "{change}");
        assert!(segmented(&mut mirror) >= DOWNLOAD_BYTES as u64 / 1448, "{change}");
    }
    // It goes with the last session that has use for it, and comes with the first.
    mirror.replace(plan(Vec::new(), Vec::new())).unwrap();
    assert!(Device::find("flowtap-s0").is_err() && Device::find("flowtap-p0").is_err());
    mirror
        .replace(plan(vec![target("ids", COLLECTOR_V4)], vec![session(1, TAP, &filter(&[protocol("tcp")]))]))
        .unwrap();
    let (copied, arrived) = transferred(&net, &mut mirror);
    assert!(copied == arrived && segmented(&mut mirror) >= DOWNLOAD_BYTES as u64 / 1448);
    drop(mirror);
    assert!(Device::find("flowtap-s0").is_err() && Device::find("flowtap-p0").is_err());
}

#[test]
fn a_bridge_that_a_crash_left_is_replaced_and_a_foreign_one_stays() {
    let Some(net) = Net::join() else { return };
    ip("link add flowtap-s0 type bridge");
    let Some(mut mirror) = of_all(COLLECTOR_V4) else { return };
    let notices = mirror.tend().unwrap();
    let [notice @ Notice::NoSegmenter { .. }] = &notices[..] else { panic!("{notices:?}") };
    assert!(notice.to_string().contains("a device flowtap-s0 that flowtap did not make"), "{notice}");
    // Without it large copies go by the tunnel device, and small ones past it as ever.
    let frames = [datagram(1000), datagram(50)];
    assert_eq!(copies(&net, &frames).len(), 2);
    assert_eq!(counted(&mut mirror), (1, 0));

    // That it was a crash's shows by the alias. It is tried again after a minute; nothing is said twice.
    let is_ours = |name: &str| {
        let alias = ["link", "set", name, "alias", TUNNEL_ALIAS];
        assert!(std::process::Command::new("ip").args(alias).status().unwrap().success());
    };
    is_ours("flowtap-s0");
    ip("link add flowtap-s7 type bridge");
    is_ours("flowtap-s7");
    ip("link add flowtap-s8 type bridge");
    for _ in 0..=60 {
        assert_eq!(mirror.tend().unwrap(), []);
    }
    use_up_the_question(&net);
    assert_eq!(copies(&net, &frames).len(), 2);
    assert_eq!((counted(&mut mirror), segmented(&mut mirror)), ((2, 0), 1));
    assert!(Device::find("flowtap-s7").is_err() && Device::find("flowtap-s8").is_ok());
}

#[test]
fn where_no_port_can_be_had_large_copies_go_by_the_ip_stack_and_it_is_told_once() {
    let Some(net) = Net::join() else { return };
    let Some(mut mirror) = of_all(COLLECTOR_V4) else { return };
    mirror.segmenter.remove(&mut mirror.netlink);
    mirror.segmenter = Segmenter::none(std::io::ErrorKind::NotFound);
    let notices = mirror.tend().unwrap();
    assert!(matches!(&notices[..], [Notice::NoSegmenter { cause }] if cause.contains("/dev/net/tun")), "{notices:?}");
    assert_eq!(mirror.tend().unwrap(), []);
    use_up_the_question(&net);
    assert_eq!(copies(&net, &[datagram(1000), datagram(50)]).len(), 2);
    assert_eq!(counted(&mut mirror), (1, 0));
}

/// Each with devices of its own.
#[test]
fn two_mirrors_in_one_namespace_keep_their_copies_apart() {
    let Some(net) = Net::join() else { return };
    if Attachment::best() != Attachment::Tcx {
        eprintln!("skipped: two at one interface need TCX");
        return;
    }
    let Some(mut first) = of_all(COLLECTOR_V4) else { return };
    let mut other = target("other", COLLECTOR_V4);
    other.port = 4790.try_into().unwrap();
    let all = filter(&[protocol("tcp"), protocol("udp")]);
    let Some(mut second) = mirrored(plan(vec![other], vec![session(1, TAP, &all)]), TAP) else { return };
    use_up_the_question(&net);
    let frames: Vec<_> = (0..10).flat_map(|_| [datagram(1000), datagram(50)]).collect();
    let received = copies(&net, &frames);
    for (mirror, port) in [(&mut first, 4789), (&mut second, 4790)] {
        let to = received.iter().filter(|frame| Outer::read(frame).unwrap().dst_port == port).count();
        assert_eq!((to, counted(mirror), segmented(mirror)), (20, (20, 0), 10), "{port}");
    }
    assert_eq!((first.segmenter.index() == second.segmenter.index(), received.len()), (false, 40));
    drop(first);
    assert_eq!(second.tend().unwrap(), []);
    use_up_the_question(&net);
    assert_eq!((copies(&net, &frames).len(), segmented(&mut second)), (20, 20));
}
