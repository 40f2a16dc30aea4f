//! Small copies past the IP stack: the same frames as by the tunnel device, in the same order, and only while the way is
//! known.

use super::{
    KernelMirror, filter,
    frames::{self, Outer, TCP, UDP, udp},
    mirrored,
    net::*,
    plan, protocol, session, target,
};
use crate::capture::kernel::{Btf, DropReasons, KERNEL_BTF};
use flowtap_abi::mirror::DirectPath;
use std::net::IpAddr;

/// A mirror of all TCP and UDP at the tap.
fn of_all(address: &str) -> Option<KernelMirror> {
    let all = filter(&[protocol("tcp"), protocol("udp")]);
    mirrored(plan(vec![target("ids", address)], vec![session(1, TAP, &all)]), TAP)
}

/// What went past the IP stack since this was last asked: frames that were taken, and those that were not.
fn counted(mirror: &mut KernelMirror) -> (u64, u64) {
    let account = mirror.tunnels[0].account.unwrap();
    let counts = mirror.direct.counted(account).unwrap();
    (counts.sent, counts.dropped)
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

/// Frames, and whether each may go past the IP stack.
fn all_kinds() -> Vec<(Vec<u8>, bool)> {
    let payload: Vec<u8> = (0..=255).collect();
    let mut all = Vec::new();
    for bytes in [0, 1, 2, 3, 17, 100, 181] {
        all.push((segment(V4, &payload[..bytes]), true));
        all.push((segment(V6, &payload[..bytes]), true));
        all.push((udp("198.51.100.1:7", "203.0.113.9:9", None, &payload[..bytes]), true));
        all.push((udp("[2001:db8::1]:7", "[2001:db8::9]:9", None, &payload[..bytes]), true));
    }
    // The longest, and one byte more: 256 less Ethernet, IP and UDP or TCP header.
    all.push((udp("198.51.100.1:7", "203.0.113.9:9", None, &payload[..214]), true));
    all.push((udp("198.51.100.1:7", "203.0.113.9:9", None, &payload[..215]), false));
    all.push((segment(V6, &payload[..182]), true));
    all.push((segment(V6, &payload[..183]), false));
    // RFC 6040: what the routers may mark.
    all.extend([0, 1, 2, 3, 0xb8, 0xbb].map(|class| (with_class(segment(V4, &payload[..9]), class), true)));
    let mut class_of_v6 = segment(V6, &payload[..9]);
    (class_of_v6[14], class_of_v6[15]) = (0x6b, 0xb0);
    all.push((class_of_v6, true));
    // A short frame, filled up with what is no part of the packet.
    all.push(([datagram(1), vec![0xaa; 17]].concat(), true));
    let mut without = datagram(33);
    without[40..42].fill(0);
    all.push((without, true));
    let mut wrong = segment(V4, &payload[..20]);
    wrong[60] ^= 1;
    all.push((wrong, false));
    // As it is left to a card: the sum of the pseudo-header alone.
    let mut partial = segment(V4, &payload[..20]);
    let [src, dst]: [IpAddr; 2] = [V4.0.parse().unwrap(), V4.1.parse().unwrap()];
    let sum = !frames::checksum(&[&frames::pseudo_header(src, dst, TCP, 40)]);
    partial[50..52].copy_from_slice(&sum.to_be_bytes());
    all.push((partial, false));
    all.push((udp("198.51.100.1:7", "203.0.113.9:9", Some(7), &payload[..9]), false));
    let mut piece = datagram(16);
    piece[20] = 0x20;
    let piece = with_class(piece, 0);
    all.push((piece, false));
    let [src, dst]: [IpAddr; 2] = [V4.0.parse().unwrap(), V4.1.parse().unwrap()];
    all.push((frames::ethernet(None, &frames::ip(src, dst, UDP, &[0, 7, 0, 9, 0, 99, 0, 0, 1, 2])), false));
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
fn small_copies_are_as_the_tunnel_device_makes_them() {
    let Some(net) = Net::join() else { return };
    let kinds = all_kinds();
    let frames: Vec<_> = kinds.iter().map(|(frame, _)| frame.clone()).collect();
    // Where full frames do not fit the path, the outer packets may be fragmented, and say so.
    for mtu in [1600, 1500] {
        net.mtu(mtu);
        let Some(mut mirror) = of_all(COLLECTOR_V4) else { return };
        use_up_the_question(&net);
        assert_eq!(counted(&mut mirror), (0, 0), "one by the tunnel device");
        for (frame, is_small) in &kinds {
            assert_eq!(copies(&net, std::slice::from_ref(frame)).len(), 1);
            assert_eq!(counted(&mut mirror), (u64::from(*is_small), 0), "{frame:02x?}");
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
        assert!(inner == frames, "both ways mixed, in order and unchanged");
    }
}

/// One flow whose datagrams are small and large by turns, so that they go the one way and the other.
#[test]
fn a_flow_stays_in_order_over_both_ways() {
    let Some(net) = Net::join() else { return };
    let Some(mut mirror) = of_all(COLLECTOR_V4) else { return };
    let frame = |number: u32| {
        let bytes = [20, 1400, 100, 300, 7][number as usize % 5];
        let payload = [&number.to_be_bytes()[..], &vec![9; bytes]].concat();
        udp("10.81.0.2:5000", "10.81.0.1:6000", None, &payload)
    };
    let frames: Vec<_> = (0..20_000).map(frame).collect();
    let received = copies(&net, &frames);
    let numbers: Vec<_> = received
        .iter()
        .map(|copy| u32::from_be_bytes(Outer::read(copy).unwrap().inner[42..46].try_into().unwrap()))
        .collect();
    assert!(numbers.iter().copied().eq(0..20_000), "{} came", numbers.len());
    // Three of five are small; the first of all went by the tunnel device.
    assert_eq!(counted(&mut mirror), (11_999, 0));
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
