//! Super-packets with a tag in their Ethernet header. They are made by hand, for kernels without tagged devices.

use std::net::IpAddr;

use flowtap_tests::Dir;
use flowtap_tests::mirror::Copy;

use super::super::daemon::{in_each_plane, status};
use super::super::net::inside;
use super::{ALL, CALM, Capture, Collector, is_mark, ledger, start, until_quiet};

#[test]
fn super_packets_with_a_tag_arrive_as_on_a_wire() {
    in_each_plane(super_packets);
}

fn super_packets(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    net.add_ipv6();
    until_quiet(&net);
    let dir = Dir::new();
    let daemon = start(plane, &net, &dir, ALL);
    let originals = Capture::start(&net.near, "near0", &["vlan"], &dir);
    let capture = collector.capture(&dir);
    let send = format!("{CALM}{SEND}");
    // Neither end knows the tag, so nobody answers.
    for (namespace, device, from, to) in [(&net.far, "far0", 2, 1), (&net.near, "near0", 1, 2)] {
        let numbers = [from, to, PACKETS, DATA_BYTES, SEGMENT_BYTES].map(|number| number.to_string());
        let arguments = ["-c", "0", "python3", "-c", &send, device];
        inside(
            namespace,
            "taskset",
            &[&arguments[..], &numbers.each_ref().map(String::as_str), &[&daemon.pid()]].concat(),
        );
    }
    capture.until_marked(&net);
    assert_eq!(status(&dir)["mirror"]["tap-drops"], 0, "{plane}: this machine is too slow for what is sent");
    let largest: Vec<_> = originals.frames().iter().map(Vec::len).collect();
    assert_eq!(largest.len(), 4 * PACKETS, "{plane}: two families, each way");
    assert!(largest.iter().all(|bytes| *bytes > 9000), "{plane}: super-packets pass the interface whole");

    let receiver = capture.receiver(1518);
    receiver.assert_content();
    let copies: Vec<_> = receiver.copies().iter().filter(|copy| !is_mark(&copy.inner)).collect();
    assert!(copies.iter().all(|copy| copy.vni == 4242 && copy.inner[12..16] == [0x81, 0, 0xe0, 7]), "{plane}");
    assert_eq!(receiver.streams().len(), 4);
    let sent: Vec<u8> = (0..(PACKETS * DATA_BYTES / 4) as u32).flat_map(u32::to_be_bytes).collect();
    for (key, stream) in receiver.streams() {
        assert!(stream.bytes() == sent, "{plane}: {key:?} has {} bytes of {}", stream.bytes().len(), sent.len());
        let mut segments: Vec<_> =
            copies.iter().filter(|copy| source(copy) == key.src).map(|copy| segment(copy)).collect();
        segments.sort_unstable();
        let in_packet = DATA_BYTES.div_ceil(SEGMENT_BYTES);
        assert_eq!(segments.len(), PACKETS * in_packet, "{plane}: {key:?}");
        // Who cuts a super-packet keeps the flag for its last segment.
        let is_last = |of: &[(u32, bool)]| of.iter().position(|(_, pushed)| *pushed) == Some(in_packet - 1);
        assert!(segments.chunks(in_packet).all(is_last), "{plane}: {key:?}");
    }
    let counts = ledger(&dir);
    let bytes: usize = receiver.copies().iter().map(|copy| copy.inner.len()).sum();
    assert_eq!(counts.mirrored, (receiver.copies().len() as u64, bytes as u64), "{plane}");
    assert_eq!(counts.skipped, (0, 0), "{plane}");
    daemon.finish();
}

fn source(copy: &Copy) -> IpAddr {
    match copy.inner[16] {
        0x08 => <[u8; 4]>::try_from(&copy.inner[30..34]).unwrap().into(),
        _ => <[u8; 16]>::try_from(&copy.inner[26..42]).unwrap().into(),
    }
}

/// The sequence number, and whether it is pushed.
fn segment(copy: &Copy) -> (u32, bool) {
    let tcp = &copy.inner[if copy.inner[16] == 0x08 { 38 } else { 58 }..];
    (u32::from_be_bytes(tcp[4..8].try_into().unwrap()), tcp[13] & 0x08 != 0)
}

/// How many super-packets each way has of each family, what each holds, and how much of it is a segment's.
const PACKETS: usize = 20;
const DATA_BYTES: usize = 42_124;
const SEGMENT_BYTES: usize = 1400;

/// DEVICE FROM TO PACKETS DATA-BYTES SEGMENT-BYTES PROCESS: TCP packets of both families, with priority 7 and VLAN 7 in their tags.
/// The checksums, and cutting them into segments, are left to others.
const SEND: &str = "import socket, struct, sys
device, (end, to, packets, data_bytes, segment_bytes, process) = sys.argv[1], map(int, sys.argv[2:])
def folded(data):
    words = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while words >> 16: words = (words & 0xffff) + (words >> 16)
    return words
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((device, 0))
s.setsockopt(263, 15, 1)
ether = bytes.fromhex(f'02000000090{to}02000000090{end}') + struct.pack('!HH', 0x8100, 0xe007)
content = b''.join(struct.pack('!I', i) for i in range(packets * data_bytes // 4))
for v6 in (False, True):
    family = socket.AF_INET6 if v6 else socket.AF_INET
    addresses = b''.join(socket.inet_pton(family, f'fd09::{i}' if v6 else f'10.9.0.{i}') for i in (end, to))
    for i in range(packets):
        data = content[i * data_bytes:][:data_bytes]
        tcp_bytes = 20 + len(data)
        partial = folded(addresses + struct.pack('!IHH', tcp_bytes, 0, 6))
        tcp = struct.pack('!HHIIBBHHH', 4000 + end, 4000 + to, 1000 + i * data_bytes, 1, 0x50, 0x18, 1000, partial, 0)
        if v6:
            ip = struct.pack('!IHBB', 6 << 28, tcp_bytes, 6, 64) + addresses
        else:
            ip = struct.pack('!BBHHHBBH', 0x45, 0, 20 + tcp_bytes, 100 * i, 0x4000, 64, 6, 0) + addresses
            ip = ip[:10] + struct.pack('!H', folded(ip) ^ 0xffff) + ip[12:]
        head = ether + struct.pack('!H', 0x86dd if v6 else 0x0800) + ip
        s.send(struct.pack('=BBHHHH', 1, 4 if v6 else 1, len(head) + 20, segment_bytes, len(head), 16) + head + tcp + data)
        time.sleep(0.002); calm(process)
";
