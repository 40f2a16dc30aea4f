//! Real packets over a veth pair, and what the far end's own kernel says of them.

use super::{
    super::{Attachment, Counts, Device, Drain, Flow, Seen, TapError, Taps, VerdictSource},
    SMALL, Sums,
    frames::{IPV4, ethernet, ipv4, tagged, udp},
    namespace::{FAR_V4, FAR_V6, NEAR, NEAR_V4, NEAR_V6, Pair, ip},
    plane,
};
use crate::capture::Direction;
use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const PAYLOAD_BYTES: usize = 20_000_000;

pub(super) fn watched() -> Option<(Pair, Taps, Drain, Device)> {
    let pair = Pair::join()?;
    let (mut taps, drain) = plane(&SMALL)?;
    let device = Device::find(NEAR).unwrap();
    assert!(device.ethernet);
    taps.attach(&device).unwrap();
    taps.attach(&device).unwrap();
    Some((pair, taps, drain, device))
}

pub(super) fn drain(kernel: &mut Drain) -> Sums {
    let mut sums = Sums::default();
    kernel.drain(&mut sums).unwrap();
    sums
}

/// Sends `PAYLOAD_BYTES` from the far end to the near one; the far end's port.
fn transfer(pair: &Pair, near: &str) -> u16 {
    let near: IpAddr = near.parse().unwrap();
    let listener = TcpListener::bind((near, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received.len()
    });
    let port = pair.far(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&vec![7; PAYLOAD_BYTES]).unwrap();
        stream.local_addr().unwrap().port()
    });
    assert_eq!(reader.join().unwrap(), PAYLOAD_BYTES);
    // The last acknowledgements of both closes.
    std::thread::sleep(Duration::from_millis(200));
    port
}

/// Segments that the far end's TCP says it sent, and how many of these it sent again.
fn far_segments(pair: &Pair) -> (u64, u64) {
    pair.far(|| {
        let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let names: Vec<&str> = lines.next().unwrap().split(' ').collect();
        let values: Vec<&str> = lines.next().unwrap().split(' ').collect();
        let value = |wanted: &str| -> u64 {
            let at = names.iter().position(|name| *name == wanted).unwrap();
            values[at].parse().unwrap()
        };
        (value("OutSegs") + value("RetransSegs"), value("RetransSegs"))
    })
}

/// Frames that the near device says it received: a super-packet is one.
fn near_frames() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{NEAR}:"))).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn find(sums: &Sums, wanted: impl Fn(&Flow) -> bool) -> Counts {
    let mut found = sums.flows.iter().filter(|(flow, _)| wanted(flow));
    let (_, counts) = found.next().unwrap_or_else(|| panic!("no such flow: {sums:#?}"));
    assert!(found.next().is_none(), "{sums:#?}");
    *counts
}

#[test]
fn tcp_under_offload_is_counted_as_the_wire_would_carry_it() {
    let Some((pair, _taps, mut kernel, device)) = watched() else { return };
    // IP and TCP header with time stamps.
    for (near, header_bytes) in [(NEAR_V4, 20 + 32), (NEAR_V6, 40 + 32)] {
        let ((sent_before, again_before), frames_before) = (far_segments(&pair), near_frames());
        let port = transfer(&pair, near);
        let (sent_after, again_after) = far_segments(&pair);
        let (sent, again) = (sent_after - sent_before, again_after - again_before);
        let frames = near_frames() - frames_before;
        let sums = drain(&mut kernel);

        let is_ours = |flow: &Flow, direction| flow.direction == direction && flow.protocol == TCP;
        let ingress = find(&sums, |flow| is_ours(flow, Direction::Ingress) && flow.src_port == port);
        let egress = find(&sums, |flow| is_ours(flow, Direction::Egress) && flow.dst_port == port);
        assert_eq!(ingress.packets, sent, "{near}");
        assert!(frames * 4 < sent, "{near}: {frames} frames for {sent} segments are no super-packets");
        // The SYN has eight bytes of options more than the others. A busy machine makes the far end send a segment
        // again, now and then: then its payload, up to a whole segment's, is there twice.
        let least = PAYLOAD_BYTES as u64 + sent * header_bytes + 8;
        let most = least + again * (1500 - header_bytes);
        assert!((least..=most).contains(&ingress.bytes), "{near}: {} is not in {least}..={most}", ingress.bytes);
        // SYN and FIN were seen, never both SYN and ACK: the far end opened the connection.
        assert_eq!((ingress.marks.cloud_tcp_flags(), egress.marks.cloud_tcp_flags()), (0x03, 0x13), "{near}");
        assert!(sums.flows.keys().all(|flow| flow.interface == device.index), "{sums:#?}");
        let is_lost = |reason: &super::Reason| matches!(reason, super::Reason::FlowLost | super::Reason::NotGathered);
        assert!(!sums.apart.keys().any(|(_, reason)| is_lost(reason)), "{:?}", sums.apart);
    }
}

#[test]
fn a_tag_that_the_kernel_takes_out_of_the_frame_is_still_the_outermost() {
    let Some((pair, _taps, mut kernel, device)) = watched() else { return };
    // On its way in, the kernel keeps the outer tag beside the frame; an inner one stays in it.
    let packet = ipv4(17, &udp(60));
    let double = ethernet(0x88a8, &tagged(100, 0x8100, &tagged(7, IPV4, &packet)));
    let single = ethernet(0x8100, &tagged(0xe009, IPV4, &packet));
    for (frame, id) in [(double, 100), (single, 9)] {
        drain(&mut kernel);
        pair.far(move || {
            let mut device = pcap::Capture::from_device("far0").unwrap().open().unwrap();
            device.sendpacket(frame).unwrap();
        });
        let counts = find(&drain(&mut kernel), |flow| flow.dst_port == 443);
        assert_eq!((counts.packets, counts.bytes), (1, 88));
        assert_eq!(counts.marks.vlan_id(), Seen::One(Some(id)), "on {}", device.name);
    }
}

#[test]
fn nothing_is_counted_where_nothing_is_attached() {
    let Some((pair, mut taps, mut kernel, device)) = watched() else { return };
    assert_eq!(taps.attached().collect::<Vec<_>>(), [device.index]);
    assert!(taps.detach(device.index));
    assert!(!taps.detach(device.index));
    drain(&mut kernel);
    send(&pair, NEAR_V4, 5000, 3);
    assert!(drain(&mut kernel).flows.is_empty());
    taps.attach(&device).unwrap();
    send(&pair, NEAR_V4, 5000, 3);
    assert_eq!(find(&drain(&mut kernel), |flow| flow.dst_port == 5000).packets, 3);
}

/// Loads rules in the caller's namespace, if that works here.
pub(super) fn nftables(rules: &str) -> bool {
    let succeeds =
        |arguments: &[&str]| Command::new("nft").args(arguments).status().is_ok_and(|status| status.success());
    if succeeds(&[rules]) {
        return true;
    }
    assert!(!succeeds(&["list", "tables"]), "nftables works here, and refuses these rules");
    eprintln!("skipped: nftables does not work here");
    false
}

#[test]
fn two_planes_on_one_interface_count_for_themselves() {
    if Attachment::best() != Attachment::Tcx {
        return eprintln!("skipped: needs TCX (Linux 6.6)");
    }
    let Some((pair, _taps, mut kernel, device)) = watched() else { return };
    let Some((mut other_taps, mut other_kernel)) = plane(&SMALL) else { return };
    other_taps.attach(&device).unwrap();
    send(&pair, NEAR_V4, 5000, 3);
    for kernel in [&mut kernel, &mut other_kernel] {
        assert_eq!(find(&drain(kernel), |flow| flow.dst_port == 5000).packets, 3);
    }
    // One that goes takes nothing with it.
    drop(other_taps);
    // The interface's own packets up to then.
    drain(&mut other_kernel);
    send(&pair, NEAR_V4, 5000, 2);
    assert_eq!(find(&drain(&mut kernel), |flow| flow.dst_port == 5000).packets, 2);
    assert!(drain(&mut other_kernel).flows.is_empty());
}

pub(super) const DATAGRAM_BYTES: usize = 100;

/// Sends datagrams from the far end.
pub(super) fn send(pair: &Pair, to: &str, port: u16, count: usize) {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    pair.far(move || datagrams(to).take(count).for_each(|sent| sent.unwrap()));
}

/// Sending a datagram, again and again. A port without a socket answers with ICMP, which a connected socket would hear.
pub(super) fn datagrams(to: SocketAddr) -> impl Iterator<Item = std::io::Result<()>> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    std::iter::repeat_with(move || socket.send_to(&[1; DATAGRAM_BYTES], to).map(drop))
}

#[test]
fn drops_by_nftables_are_verdicts() {
    check_nftables(|taps| {
        assert_eq!(taps.attach_verdicts()?, VerdictSource::TypedTracepoint);
        Ok(())
    });
}

#[test]
fn drops_are_verdicts_by_the_raw_tracepoint_too() {
    check_nftables(Taps::attach_raw);
}

fn check_nftables(attach: fn(&mut Taps) -> Result<(), TapError>) {
    let Some((pair, mut taps, mut kernel, device)) = watched() else { return };
    let rules = "table inet test {
        chain input { type filter hook input priority 0; udp dport 5001 drop; }
        chain output { type filter hook output priority 0; udp dport 5002 drop; }
        chain postrouting { type filter hook postrouting priority 0; udp dport 5003 drop; }
        chain answer { type filter hook input priority 1; tcp dport 5005 reject with tcp reset; }
    }";
    if !nftables(rules) {
        return;
    }
    let netfilter = taps.reasons().number("NETFILTER_DROP").unwrap();
    assert_eq!(taps.reasons().name(netfilter), Some("NETFILTER_DROP"));
    taps.want(&[netfilter]).unwrap();
    attach(&mut taps).unwrap();

    for (near, far, ip_bytes) in [(NEAR_V4, FAR_V4, 20), (NEAR_V6, FAR_V6, 40)] {
        drain(&mut kernel);
        send(&pair, near, 5001, 7);
        // A rejected connection is a drop too; what tells it apart is the reset that goes out.
        let rejected = SocketAddr::new(near.parse().unwrap(), 5005);
        pair.far(move || assert!(TcpStream::connect(rejected).is_err()));
        // A port that is merely closed is no verdict that was asked for.
        send(&pair, near, 5004, 2);
        for (port, count) in [(5002, 3), (5003, 2)] {
            let to = SocketAddr::new(far.parse().unwrap(), port);
            datagrams(to).take(count).for_each(|sent| assert!(sent.is_err(), "the kernel says so at once"));
        }
        let sums = drain(&mut kernel);
        let bytes = (ip_bytes + 8 + DATAGRAM_BYTES) as u64;
        let mut rows: Vec<_> = sums
            .verdicts
            .iter()
            .inspect(|(verdict, _)| assert_eq!(verdict.reason, netfilter))
            .map(|(verdict, counts)| {
                let flow = verdict.flow;
                (flow.dst_port, flow.protocol, flow.direction, flow.interface, counts.packets, counts.bytes)
            })
            .collect();
        rows.sort_unstable_by_key(|&(port, ..)| port);
        let expected = [
            (5001, UDP, Direction::Ingress, device.index, 7, 7 * bytes),
            // Routing is not finished in the output hook: no interface.
            (5002, UDP, Direction::Egress, 0, 3, 3 * bytes),
            (5003, UDP, Direction::Egress, device.index, 2, 2 * bytes),
            // A SYN has 20 bytes of options.
            (5005, TCP, Direction::Ingress, device.index, 1, ip_bytes as u64 + 40),
        ];
        assert_eq!(rows, expected, "{near}: {sums:#?}");
        // What was dropped on its way in had been counted at the interface; on its way out it never got there.
        assert_eq!(find(&sums, |flow| flow.dst_port == 5001).packets, 7);
        let reset = find(&sums, |flow| flow.direction == Direction::Egress && flow.src_port == 5005);
        assert_eq!((reset.packets, reset.marks.cloud_tcp_flags()), (1, 0x04));
        assert!(!sums.flows.keys().any(|flow| [5002, 5003].contains(&flow.dst_port)));
    }
}

#[test]
fn a_forwarded_packet_is_dropped_where_it_came_in_and_only_in_our_namespace() {
    let Some((pair, mut taps, mut kernel, device)) = watched() else { return };
    let ours = "table inet test { chain forward { type filter hook forward priority 0; udp dport 5006 drop; }; }";
    let theirs = "table inet test { chain input { type filter hook input priority 0; udp dport 5007 drop; }; }";
    if !nftables(ours) || !pair.far(|| nftables(theirs)) {
        return;
    }
    // The far end sends to a network that we would send back to it.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    ip(&format!("route add 192.0.2.0/24 via {FAR_V4}"));
    pair.far(|| ip(&format!("route add 192.0.2.0/24 via {NEAR_V4}")));
    let netfilter = taps.reasons().number("NETFILTER_DROP").unwrap();
    taps.want(&[netfilter]).unwrap();
    taps.attach_verdicts().unwrap();

    send(&pair, "192.0.2.9", 5006, 4);
    // The far end drops this one, which is none of our business.
    let to = SocketAddr::new(FAR_V4.parse().unwrap(), 5007);
    datagrams(to).take(3).for_each(|sent| sent.unwrap());
    let sums = drain(&mut kernel);
    let [(verdict, counts)] = sums.verdicts.iter().collect::<Vec<_>>()[..] else { panic!("{sums:#?}") };
    let flow = verdict.flow;
    assert_eq!((flow.dst_port, flow.direction, flow.interface), (5006, Direction::Ingress, device.index));
    assert_eq!((counts.packets, counts.bytes), (4, 4 * 128));
    assert_eq!(find(&sums, |flow| flow.dst_port == 5007).packets, 3);
}
