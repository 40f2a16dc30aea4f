//! Interfaces without Ethernet headers: their copies get one.

use super::{
    super::{CopyOutcome, KernelMirror, MirrorSizes, Notice, link::LinkDevice},
    filter,
    frames::{self, Outer, UDP},
    frames_of, mirror,
    net::*,
    outcome, plan, protocol, session, target,
};
use crate::{
    capture::kernel::Device,
    sys::tun::{Layer, Way},
};
use std::{io::Write as _, net::UdpSocket};

const TUN: &str = "tun7";
/// The header of a copy: locally administered addresses.
const MADE: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

/// A device without link layer, and the way by whose file packets come in.
fn tunnel() -> Option<Way> {
    let way = Way::open();
    if let Err(error) = way.file() {
        eprintln!("skipped: no /dev/net/tun ({error})");
        return None;
    }
    assert_eq!(way.make(Layer::Ip, TUN).unwrap(), TUN);
    for command in [
        format!("addr add 10.87.0.1/24 dev {TUN}"),
        format!("addr add fd87::1/64 dev {TUN} nodad"),
        format!("link set {TUN} up"),
    ] {
        ip(&command);
    }
    Some(way)
}

/// A datagram over the version of IP that the addresses have, from its header on.
fn datagram(src: &str, dst: &str, payload: &[u8]) -> Vec<u8> {
    let udp = frames::udp(src, dst, None, payload);
    udp[14..].to_vec()
}

#[test]
fn copies_without_link_layer_get_an_ethernet_header_and_all_else_is_theirs() {
    let Some(net) = Net::join() else { return };
    let Some(tun) = tunnel() else { return };
    let all = filter(&[protocol("udp")]);
    let plan = plan(vec![target("ids", COLLECTOR_V4)], vec![session(1, TUN, &all), session(2, TAP, &all)]);
    let Some(mut mirror) = mirror(plan) else { return };
    // One that has a header beside one that has none.
    mirror.attach(&Device::find(TAP).unwrap()).unwrap();
    mirror.attach(&Device::find(TUN).unwrap()).unwrap();
    assert_eq!(mirror.tend().unwrap(), []);
    let incoming = [
        datagram("10.87.0.2:4000", "10.87.0.1:5000", &[7; 100]),
        datagram("[fd87::2]:4000", "[fd87::1]:5000", &[8; 333]),
        datagram("10.87.0.2:4000", "10.87.0.1:5000", b""),
    ];
    let with_header = frames::udp("10.81.0.2:5000", "10.81.0.1:6000", None, &[1; 10]);
    let ethernet = with_header.clone();
    let (is_segmented, captured) = net.collector.capture(COLLECTOR, || {
        let mut is_segmented = true;
        incoming.iter().for_each(|packet| assert_eq!(tun.file().unwrap().write(packet).unwrap(), packet.len()));
        net.client.run(move || send(CLIENT, &[ethernet]));
        for to in ["10.87.0.9:9", "[fd87::9]:9"] {
            let socket = UdpSocket::bind(if to.starts_with('[') { "[fd87::1]:0" } else { "10.87.0.1:0" }).unwrap();
            socket.send_to(&[3; 55], to).unwrap();
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGsoSegment, &1000).unwrap();
            // Older kernels segment datagrams only for a device that completes checksums.
            match socket.send_to(&[4; 2500], to) {
                Err(error) if error.raw_os_error() == Some(libc::EIO) => is_segmented = false,
                sent => assert_eq!(sent.unwrap(), 2500),
            }
        }
        is_segmented
    });
    if !is_segmented {
        eprintln!("skipped: this kernel segments no datagrams for tun devices");
    }
    let copies: Vec<_> = captured.iter().filter_map(|frame| Outer::read(frame)).collect();
    assert!(copies.iter().all(|copy| copy.tunnel == [8, 0, 0, 0, 0, 0x10, 0x92, 0]));
    // The second session has another VNI only if it is given one.
    let made = |copy: &&Outer<'_>| copy.inner[..12] == MADE;
    let of_tun: Vec<_> = copies.iter().filter(made).collect();
    let from_far: Vec<_> =
        of_tun.iter().filter(|copy| copy.inner.ends_with(&[7; 9]) || copy.inner.ends_with(&[8; 9])).collect();
    assert_eq!(from_far.len(), 2);
    for packet in &incoming {
        let ether_type: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
        let expected = [&MADE[..], &ether_type, packet].concat();
        assert!(of_tun.iter().any(|copy| copy.inner == expected), "{expected:x?}");
    }
    for copy in &of_tun {
        let packet = frames::Packet::read(copy.inner).unwrap();
        assert!(packet.protocol == UDP && packet.is_complete(), "{packet:?}");
    }
    // One datagram, then one of three segments, each over both versions of IP.
    let sizes = |of: u8| {
        let payloads = of_tun.iter().map(|copy| frames::Packet::read(copy.inner).unwrap().payload());
        payloads.filter(|payload| payload.first() == Some(&of)).map(<[u8]>::len).collect::<Vec<_>>()
    };
    let segments = if is_segmented { vec![1000, 1000, 500, 1000, 1000, 500] } else { Vec::new() };
    let count = 6 + segments.len();
    assert_eq!((sizes(3), sizes(4)), (vec![55, 55], segments));
    assert!(copies.iter().any(|copy| copy.inner == with_header), "the header that was there stays");
    assert_eq!((copies.len(), frames_of(&mirror)), (count, (count as u64, count as u64, 0)));
    let [of_tun, of_tap] = &mirror.counters().unwrap().sessions[..] else { panic!() };
    let bytes = |counted: &super::super::SessionCounters| {
        counted.ingress.of(CopyOutcome::Mirrored).1 + counted.egress.of(CopyOutcome::Mirrored).1
    };
    let sent: usize = copies.iter().map(|copy| copy.inner.len()).sum();
    assert_eq!(bytes(of_tun) + bytes(of_tap), sent as u64, "headers that were made count");
}

#[test]
fn a_device_that_is_taken_away_is_made_again_and_one_that_cannot_be_had_is_told() {
    let Some(net) = Net::join() else { return };
    let Some(tun) = tunnel() else { return };
    let all = filter(&[protocol("udp")]);
    let plan = plan(vec![target("ids", COLLECTOR_V4)], vec![session(1, TUN, &all)]);
    let Some(mut mirror) = mirror(plan.clone()) else { return };
    mirror.attach(&Device::find(TUN).unwrap()).unwrap();
    let packet = datagram("10.87.0.2:4000", "10.87.0.1:5000", &[7; 100]);
    let arrive = || {
        let ((), captured) =
            net.collector.capture(COLLECTOR, || assert_eq!(tun.file().unwrap().write(&packet).unwrap(), packet.len()));
        captured.iter().filter_map(|frame| Outer::read(frame)).count()
    };
    assert_eq!(arrive(), 1);
    ip("link delete flowtap-l0");
    assert_eq!((arrive(), outcome(&mirror, CopyOutcome::NoDevice)), (0, 1));
    assert_eq!(mirror.tend().unwrap(), [Notice::DeviceMadeAgain { device: "flowtap-l0".to_owned() }]);
    assert_eq!(arrive(), 1);
    // The way on is gone: what the clone met there is told to the tap.
    ip("link delete flowtap-v4789");
    assert_eq!((arrive(), outcome(&mirror, CopyOutcome::Refused)), (0, 1));
    assert_eq!(frames_of(&mirror), (4, 2, 2));
    drop(mirror);

    let mut without = KernelMirror::new(plan, &MirrorSizes::default()).unwrap();
    without.link = LinkDevice::none(std::io::ErrorKind::NotFound);
    without.attach(&Device::find(TUN).unwrap()).unwrap();
    let notices = without.tend().unwrap();
    assert!(matches!(&notices[..], [Notice::NoLinkLayer { interface, .. }] if interface == TUN), "{notices:?}");
    assert_eq!((arrive(), outcome(&without, CopyOutcome::NoLinkLayer)), (0, 1));
    assert_eq!(frames_of(&without), (1, 0, 1));
    assert_eq!(without.tend().unwrap(), [], "said once");
}
