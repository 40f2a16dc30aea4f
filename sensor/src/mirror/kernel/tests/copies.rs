//! What a collector gets: the frames themselves, whatever the host offloads.

use super::{
    super::{CopyOutcome, MirrorCounters},
    filter,
    frames::{Outer, Packet, TCP, udp},
    mirrored,
    net::*,
    plan, protocol, session, target,
};
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
};

/// One session's totals: matched and mirrored frames, ingress and egress.
#[track_caller]
fn frames_of(counters: &MirrorCounters) -> [(u64, u64); 2] {
    let [session] = &counters.sessions[..] else { panic!("{counters:?}") };
    [session.ingress, session.egress].map(|totals| {
        assert!(totals.balances(), "{counters:?}");
        (totals.of(CopyOutcome::Matched).0, totals.of(CopyOutcome::Mirrored).0)
    })
}

#[test]
fn a_copy_is_the_frame_byte_for_byte_and_in_order() {
    let Some(net) = Net::join() else { return };
    for collector in [COLLECTOR_V4, COLLECTOR_V6] {
        net.collector.run(move || {
            ip(&format!("link add vx0 type vxlan id 4242 dstport 4789 nolearning local {collector}"));
            ip("link set vx0 up");
        });
        let udp_only = filter(&[protocol("udp")]);
        let plan = plan(vec![target("ids", collector)], vec![session(1, TAP, &udp_only)]);
        let Some(mirror) = mirrored(plan, TAP) else { return };
        let mut sent = Vec::new();
        for number in 0..300_u16 {
            let payload = number.to_be_bytes().repeat(usize::from(number) + 9);
            sent.push(match number % 4 {
                0 => udp("10.81.0.2:5000", "10.81.0.1:6000", None, &payload),
                1 => udp("[fd81::2]:5000", "[fd81::1]:6000", None, &payload),
                2 => udp("10.81.0.2:5000", "10.81.0.1:6000", Some(0x6007), &payload),
                _ => udp("198.51.100.1:5000", "203.0.113.1:6000", None, &payload),
            });
        }
        let frames = sent.clone();
        let ((), received) = net.collector.capture("vx0", || net.client.run(move || send(CLIENT, &frames)));
        let counters = mirror.counters().unwrap();
        assert_eq!(received.len(), sent.len(), "{collector}: {counters:?}");
        assert!(received == sent, "in order and unchanged");
        let [ingress, _] = frames_of(&counters);
        assert_eq!(ingress, (300, 300), "{counters:?}");
        let bytes: usize = sent.iter().map(Vec::len).sum();
        assert_eq!(counters.sessions[0].ingress.of(CopyOutcome::Mirrored).1, bytes as u64);
        net.collector.run(|| ip("link delete vx0"));
    }
}

#[test]
fn bulk_tcp_under_all_offloads_is_wire_frames_with_complete_checksums() {
    let Some(net) = Net::join() else { return };
    for (near, collector) in [(HOST_V4, COLLECTOR_V4), (HOST_V6, COLLECTOR_V4), (HOST_V4, COLLECTOR_V6)] {
        let tcp_only = filter(&[protocol("tcp")]);
        let plan = plan(vec![target("ids", collector)], vec![session(1, TAP, &tcp_only)]);
        let Some(mirror) = mirrored(plan, TAP) else { return };
        let (port, received) = net.collector.capture(COLLECTOR, || exchange(&net, near));
        let copies: Vec<_> = received.iter().filter_map(|frame| Some((frame, Outer::read(frame)?))).collect();
        let source_port = copies[0].1.src_port;
        let mut streams = [const { Vec::new() }; 2];
        for (frame, outer) in &copies {
            let outer_bytes = if outer.dst.is_ipv4() { 50 } else { 70 };
            assert!(frame.len() <= 1514 + outer_bytes, "{} bytes are no wire frame", frame.len());
            assert_eq!(outer.tunnel, [8, 0, 0, 0, 0, 0x10, 0x92, 0], "flags, reserved bits, VNI 4242");
            assert_eq!((outer.src_port, outer.dst_port), (source_port, 4789), "one port for both directions");
            assert_eq!(outer.dst, collector.parse::<IpAddr>().unwrap());
            assert!(!outer.may_fragment || outer.dst.is_ipv6());
            assert_eq!(outer.has_checksum, outer.dst.is_ipv6());
            let inner = Packet::read(outer.inner).unwrap();
            assert!(inner.protocol == TCP && inner.is_complete(), "{near} {inner:?}");
            assert_eq!(14 + if near == HOST_V4 { 20 } else { 40 } + inner.transport.len(), outer.inner.len());
            streams[usize::from(inner.dst_port == port)].push(inner);
        }
        for stream in &streams {
            assert_eq!(carried(stream), PAYLOAD_BYTES, "{near} to {collector}");
        }
        let counters = mirror.counters().unwrap();
        let [ingress, egress] = frames_of(&counters);
        let count = |of: usize| streams[of].len() as u64;
        // The host's port is the listener's, and packets to it are ingress.
        assert_eq!((ingress, egress), ((count(1), count(1)), (count(0), count(0))), "{counters:?}");
        let bytes = |of: usize| {
            streams[of]
                .iter()
                .map(|p| (p.transport.len() + 14 + if near == HOST_V4 { 20 } else { 40 }) as u64)
                .sum::<u64>()
        };
        let mirrored = |totals: super::super::CopyTotals| totals.of(CopyOutcome::Mirrored).1;
        let session = &counters.sessions[0];
        assert_eq!((mirrored(session.ingress), mirrored(session.egress)), (bytes(1), bytes(0)));
    }
}

const PAYLOAD_BYTES: usize = 2_000_000;

/// Sends as much each way over one connection; the host's port.
fn exchange(net: &Net, near: &str) -> u16 {
    let near: IpAddr = near.parse().unwrap();
    let listener = TcpListener::bind((near, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let client = net.client.begin(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&vec![7; PAYLOAD_BYTES]).unwrap();
        let mut received = vec![0; PAYLOAD_BYTES];
        stream.read_exact(&mut received).unwrap();
    });
    let (mut stream, _) = listener.accept().unwrap();
    let mut received = vec![0; PAYLOAD_BYTES];
    stream.read_exact(&mut received).unwrap();
    stream.write_all(&received).unwrap();
    client.recv().unwrap();
    address.port()
}

/// Bytes of a stream that were seen without a gap, whatever came twice.
fn carried(stream: &[Packet<'_>]) -> usize {
    let syn = stream.iter().find(|packet| packet.transport[13] & 2 != 0).unwrap();
    let first = syn.sequence().wrapping_add(1);
    let mut pieces: Vec<(usize, usize)> = stream
        .iter()
        .filter(|packet| !packet.payload().is_empty())
        .map(|packet| (packet.sequence().wrapping_sub(first) as usize, packet.payload().len()))
        .collect();
    pieces.sort_unstable();
    pieces.iter().fold(0, |end, (at, length)| if *at <= end { end.max(at + length) } else { end })
}
