//! The same traffic through both planes at once gives the same rows, where neither offloads nor drops make a difference.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use super::daemon::in_both_planes;
use super::net::{FAR_ETHER, NEAR_ETHER, Net, datagrams, has, hear, inside, namespaced, nftables, python, until_ready};
use super::records::{Records, number};

#[test]
fn the_same_traffic_gives_the_same_rows() {
    if !has("ping", &["-V"]) || !has("ethtool", &["--version"]) {
        return;
    }
    let Some(net) = Net::new() else { return };
    net.add_ipv6();
    net.without_offloads();
    let recorded = in_both_planes(&net, &["-i", "near0", "--interval", "60s"], || {
        // Listeners, so that neither end answers with ICMP.
        let _listeners = [hear(&net.near, &[5000]), hear(&net.far, &[5001])];
        for (near, far) in [("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")] {
            datagrams(&net.far, near, 5000, 20, 100);
            datagrams(&net.far, near, 5000, 3, 4000);
            datagrams(&net.near, far, 5001, 2, 4000);
            // Ports that are closed: answers of ICMP in both directions.
            datagrams(&net.far, near, 5002, 2, 100);
            inside(&net.far, "ping", &["-c", "3", "-i", "0.05", "-W", "5", near]);
            converse(&net, near);
        }
        for (namespace, name, to, from, direction) in
            [(&net.far, "far0", NEAR_ETHER, FAR_ETHER, 1), (&net.near, "near0", FAR_ETHER, NEAR_ETHER, 2)]
        {
            let script = FRAMES.replace("DEVICE", name).replace("TO", to).replace("FROM", from);
            python(namespace, &script.replace("SIDE", &direction.to_string()));
        }
    });
    let [kernel, packet] = recorded.each_ref().map(|(_, records)| flows(records));
    let [offered, offered_to_libpcap] = recorded.map(|(_, records)| records.counts["frames"]);
    assert_eq!(offered, offered_to_libpcap, "whatever is no packet is counted too");
    assert!(kernel.len() >= 2 * 50, "{kernel:#?}");
    let differ: Vec<_> = kernel
        .iter()
        .map(|(flow, counts)| (flow, Some(counts), packet.get(flow)))
        .chain(
            packet
                .iter()
                .filter(|(flow, _)| !kernel.contains_key(*flow))
                .map(|(flow, counts)| (flow, None, Some(counts))),
        )
        .filter(|(_, kernel, packet)| kernel != packet)
        .collect();
    assert!(differ.is_empty(), "by the kernel, and by libpcap: {differ:#?}");
}

/// Each flow with packets, bytes and TCP flags: an interval's end may have parted them.
fn flows(records: &Records) -> BTreeMap<String, (u64, u64, u64)> {
    let columns = [
        "interface-id",
        "srcaddr",
        "dstaddr",
        "srcport",
        "dstport",
        "protocol",
        "flow-direction",
        "action",
        "x-icmp-type",
        "x-icmp-code",
        "x-vlan",
    ];
    let mut flows = BTreeMap::<String, (u64, u64, u64)>::new();
    for row in records.rows.iter().filter(|row| row["log-status"] == "OK") {
        let flow = flows.entry(columns.map(|name| row[name].as_str()).join(" ")).or_default();
        flow.0 += number(row, "packets");
        flow.1 += number(row, "bytes");
        flow.2 |= number(row, "tcp-flags");
    }
    flows
}

/// A conversation over TCP, and a connection that is refused.
fn converse(net: &Net, near: &str) {
    let family = if near.contains(':') { "socket.AF_INET6" } else { "socket.AF_INET" };
    let server = format!(
        "import socket\nl = socket.create_server(('{near}', 6000), family={family}); print('ready', flush=True)\n\
         c, _ = l.accept()\nwhile data := c.recv(100000): c.sendall(data)\nc.close()\n"
    );
    let mut server = until_ready(&mut namespaced(&net.near, "python3", &["-c", &server]));
    let client = format!(
        "import socket\ns = socket.create_connection(('{near}', 6000))\n\
         for i in range(30):\n    s.sendall(bytes(5000)); left = 5000\n    while left: left -= len(s.recv(left))\n\
         s.close()\ntry: socket.create_connection(('{near}', 6001))\nexcept ConnectionRefusedError: pass\n"
    );
    python(&net.far, &client);
    server.0.wait().unwrap();
    sleep(Duration::from_millis(100));
}

/// What programs don't send by themselves: tags, options, extension headers, pieces, and protocols without ports.
const FRAMES: &str = "import socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('DEVICE', 0))
ether = bytes.fromhex('TO'.replace(':', '')) + bytes.fromhex('FROM'.replace(':', ''))
def tags(*ids):
    return b''.join(struct.pack('!HH', kind, number) for kind, number in ids)
def udp(port, size=60):
    return struct.pack('!4H', 4000, port, size + 8, 0) + bytes(size)
def tcp(port, flags, options=b''):
    return struct.pack('!2H2I2B3H', 4000, port, 1, 1, (5 + len(options) // 4) << 4, flags, 1000, 0, 0) + options
def ip4(protocol, data, options=b'', number=1, fragment=0, ends=(1, 2)):
    header = struct.pack('!2B3H2BH', 0x45 + len(options) // 4, 0, 20 + len(options) + len(data), number, fragment, 64,
        protocol, 0) + bytes([10, 7, SIDE, ends[0], 10, 7, SIDE, ends[1]])
    return struct.pack('!H', 0x0800) + header + options + data
def ip6(protocol, data, ends=(1, 2)):
    address = lambda end: bytes.fromhex('fd07') + bytes(12) + bytes([SIDE, end])
    return struct.pack('!HIHBB', 0x86dd, 6 << 28, len(data), protocol, 64) + address(ends[0]) + address(ends[1]) + data
def hop(following): return bytes([following, 0, 1, 4, 0, 0, 0, 0])
def destination(following): return bytes([following, 1, 1, 12]) + bytes(12)
def routing(following): return bytes([following, 0, 4, 0, 0, 0, 0, 0])
def piece(following, offset, more, number): return struct.pack('!BBHI', following, 0, offset | more, number)
frames = []
# One tag, a priority tag, two tags; IPv4 and IPv6.
for packet in [ip4(17, udp(7001)), ip6(17, udp(7002))]:
    frames += [ether + tags((0x8100, 7)) + packet] * 3
for packet in [ip4(17, udp(7003)), ip6(6, tcp(7004, 0x12))]: frames += [ether + tags((0x8100, 0xe009)) + packet]
for packet in [ip4(17, udp(7005)), ip6(6, tcp(7006, 0x12))]:
    frames += [ether + tags((0x88a8, 100), (0x8100, 7)) + packet]
for packet in [ip4(17, udp(7007)), ip6(6, tcp(7008, 0x12))]: frames += [ether + tags((0x8100, 0)) + packet]
frames += [ether + tags((0x8100, 1), (0x8100, 2), (0x8100, 3)) + ip4(17, udp(7009))]
plain = [
    # IPv4: a router alert, a record route that fills the header, TCP with options, and all flags.
    ip4(17, udp(7011), options=bytes([148, 4, 0, 0])), ip4(17, udp(7012), options=bytes([7, 39, 4]) + bytes(37)),
    ip4(6, tcp(7013, 0x02, bytes([2, 4, 5, 180, 1, 1, 4, 2]))), ip4(6, tcp(7014, 0xff)), ip4(6, tcp(7015, 0x00)),
    # Without ports: IGMP, ESP, GRE, SCTP's ports, UDP-Lite's, a protocol that nobody has.
    ip4(2, bytes([0x16, 0, 0, 0, 224, 0, 0, 9])), ip4(50, bytes(40)), ip4(47, bytes(30)), ip4(132, udp(7016)),
    ip4(136, udp(7017)), ip4(253, bytes(10)),
    # ICMP: echo, unreachable with a quoted packet, a redirect.
    ip4(1, bytes([8, 0, 0, 0, 0, 1, 0, 1]) + bytes(20), ends=(3, 4)), ip4(1, bytes([3, 1, 0, 0, 0, 0, 0, 0]) + bytes(28), ends=(5, 6)),
    ip4(1, bytes([5, 1, 0, 0, 10, 0, 0, 1]) + bytes(28), ends=(7, 8)),
    # Pieces: in order; more follow than come.
    ip4(17, udp(7021, 1000)[:1000], number=9, fragment=0x2000), ip4(17, bytes(8), number=9, fragment=125),
    ip4(17, udp(7022, 1000)[:800], number=10, fragment=0x2000), ip4(17, bytes(160), number=10, fragment=0x2000 | 100),
    # IPv6: each extension header, and all of them.
    ip6(0, hop(17) + udp(7031)), ip6(60, destination(17) + udp(7032)), ip6(43, routing(6) + tcp(7033, 0x02)),
    ip6(0, hop(60) + destination(43) + routing(17) + udp(7034)), ip6(51, bytes([17, 4]) + bytes(22) + udp(7035)),
    ip6(44, piece(17, 0, 0, 5) + udp(7036)),
    ip6(44, piece(17, 0, 1, 6) + udp(7037, 1000)[:800]), ip6(44, piece(17, 800, 0, 6) + bytes(208)),
    ip6(0, hop(44) + piece(17, 0, 1, 7) + udp(7038, 1000)[:800]), ip6(0, hop(44) + piece(17, 800, 0, 7) + bytes(208)),
    ip6(59, b''), ip6(50, bytes(40)), ip6(58, bytes([128, 0, 0, 0, 0, 1, 0, 1]) + bytes(20), ends=(3, 4)),
    ip6(58, bytes([1, 3, 0, 0, 0, 0, 0, 0]) + bytes(48), ends=(5, 6)),
    # A datagram in a frame that was padded, and one with an empty payload.
    ip4(17, udp(7041, 1)) + bytes(17), ip4(17, udp(7042, 0)),
    # Headers that end early, and more extension headers than are walked.
    ip4(17, udp(7051)[:5]), ip4(6, tcp(7052, 0)[:13]), ip4(1, b''), ip6(0, hop(17)[:4]),
    ip6(60, destination(60) * 7 + destination(17) + udp(7053)), ip6(60, destination(60) * 9 + destination(17) + udp(7054)),
]
frames += [ether + packet for packet in plain]
# What is no packet: wrong versions, header lengths and total lengths, frames that end early, and what is not IP.
four, six = ip4(17, udp(7061)), ip6(17, udp(7062))
for packet, at, wrong in [(four, 2, 0x65), (four, 2, 0x44), (four, 4, 0), (six, 2, 0x45)]:
    frames += [ether + packet[:at] + bytes([wrong]) + packet[at + 1:]]
frames += [ether + four[:15], ether + six[:30], ether + b'\\x88\\xcc' + bytes(46)]
for frame in frames: s.send(frame)
";

#[test]
fn verdicts_are_the_kernel_planes_alone() {
    let Some(net) = Net::new() else { return };
    let rules = "table inet test { chain input { type filter hook input priority 0; udp dport 5000 drop; }; }";
    if !nftables(&net.near, rules) {
        return;
    }
    let _listener = hear(&net.near, &[5001]);
    let recorded = in_both_planes(&net, &["-i", "near0", "--interval", "60s"], || {
        datagrams(&net.far, "10.9.0.1", 5000, 4, 100);
        datagrams(&net.far, "10.9.0.1", 5001, 3, 100);
    });
    for ((plane, records), dropped) in recorded.into_iter().zip(["REJECT NETFILTER_DROP", "ACCEPT -"]) {
        let rows = records.by("", "dstport action x-drop-reason");
        assert_eq!(rows, [format!("5000 {dropped} 4 512"), "5001 ACCEPT - 3 384".to_owned()], "{plane}");
    }
}

#[test]
fn a_super_packet_is_one_for_libpcap_and_its_segments_for_the_kernel() {
    let Some(net) = Net::new() else { return };
    let _listener = hear(&net.near, &[5000]);
    let recorded = in_both_planes(&net, &["-i", "near0", "--interval", "60s"], || {
        let script = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
            s.setsockopt(socket.IPPROTO_UDP, 103, 1000); s.sendto(bytes(10000), ('10.9.0.1', 5000))\n";
        python(&net.far, script);
    });
    for ((plane, records), counts) in recorded.into_iter().zip(["10 10280", "1 10028"]) {
        assert_eq!(records.by("", "dstport"), [format!("5000 {counts}")], "{plane}");
    }
}
