//! Real programs talk over the interface; what they, and the far end's kernel, say of it is what the rows say.

use std::collections::HashMap;
use std::fs::{self, File};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use flowtap_tests::Dir;

use super::daemon::{Daemon, in_both_planes};
use super::net::{
    FAR_ETHER, NEAR_ETHER, Net, Process, datagrams, has, hear, inside, namespaced, python, until_bound, until_ready,
};
use super::records::Records;

const LONG: [&str; 4] = ["-i", "near0", "--interval", "60s"];

#[test]
fn iperf_without_offloads_is_what_both_kernels_say() {
    if !has("iperf3", &["--version"]) || !has("ethtool", &["--version"]) {
        return;
    }
    let Some(net) = Net::new() else { return };
    net.without_offloads();
    let before = [Sent::of(&net.far), Sent::of(&net.near)];
    let recorded = in_both_planes(&net, &LONG, || iperf(&net));
    for (plane, records) in recorded {
        check_iperf(plane, &records, &net, before);
    }
}

#[test]
fn iperf_with_offloads_is_what_the_wire_would_carry() {
    if !has("iperf3", &["--version"]) {
        return;
    }
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let before = [Sent::of(&net.far), Sent::of(&net.near)];
    let frames_before = net.kernel_packets();
    let daemon = Daemon::start_wide("ebpf", &net, &dir, &LONG);
    iperf(&net);
    let frames = net.kernel_packets() - frames_before;
    let records = daemon.finish();
    let packets = records.sum("").0;
    assert!(frames * 2 < packets, "{frames} frames for {packets} packets are no super-packets");
    check_iperf("ebpf", &records, &net, before);
}

/// Fifty megabytes from the far end to the near one.
fn iperf(net: &Net) {
    let mut server = namespaced(&net.near, "iperf3", &["-s", "-1"]);
    let mut server = Process(server.stdout(Stdio::null()).spawn().unwrap());
    until_bound(&net.near, "-t", 5201);
    inside(&net.far, "iperf3", &["-c", "10.9.0.1", "-n", "50M"]);
    server.0.wait().unwrap();
    // The last acknowledgements of the closes.
    sleep(Duration::from_millis(300));
}

fn check_iperf(plane: &str, records: &Records, net: &Net, before: [Sent; 2]) {
    let [far, near] = [Sent::of(&net.far), Sent::of(&net.near)];
    let [far_before, near_before] = before;
    assert_eq!(records.sum("protocol=6 flow-direction=ingress"), far.on_the_wire_since(far_before), "{plane}");
    assert_eq!(records.sum("protocol=6 flow-direction=egress"), near.on_the_wire_since(near_before), "{plane}");
    let bulk = records.sum("protocol=6 dstport=5201 flow-direction=ingress");
    // iperf3 ends its stream without waiting for what is still on the way.
    assert!(bulk.1 > 40 << 20, "{plane}: {bulk:?}");
    assert_eq!(records.by("", "protocol action").len(), 1, "{plane}: nothing else went through: {records:?}");
}

#[test]
fn tcp_over_ipv6_with_offloads_is_what_the_wire_would_carry() {
    let Some(net) = Net::new() else { return };
    net.add_ipv6();
    let dir = Dir::new();
    let before = Sent::of(&net.far);
    let daemon = Daemon::start_wide("ebpf", &net, &dir, &LONG);
    let server = "import socket\nl = socket.create_server(('fd09::1', 6000), family=socket.AF_INET6)\n\
        print('ready', flush=True); c, _ = l.accept(); total = 0\n\
        while data := c.recv(1 << 20): total += len(data)\nc.close(); print(total)\n";
    let mut server = until_ready(&mut namespaced(&net.near, "python3", &["-c", server]));
    let client = "import socket\ns = socket.create_connection(('fd09::1', 6000))\n\
        s.sendall(bytes(5000000)); s.shutdown(socket.SHUT_WR); s.recv(1)\n";
    python(&net.far, client);
    server.0.wait().unwrap();
    sleep(Duration::from_millis(300));
    let sent = Sent::of(&net.far);
    let (segments, again) = (sent.segments - before.segments, sent.again - before.again);
    let (packets, bytes) = daemon.finish().sum("protocol=6 flow-direction=ingress dstport=6000");
    assert_eq!(packets, segments);
    // A header is 40 bytes and 32 of TCP; the SYN has eight more. A segment that was sent again is there twice.
    let least = 5_000_000 + segments * 72 + 8;
    assert!((least..=least + again * 1428).contains(&bytes), "{bytes} bytes, {least} and {again} segments again");
}

/// What a kernel says that its TCP has sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    segments: u64,
    /// Of these, those that it had sent before.
    again: u64,
    /// Packets at the level of IP: a super-packet is one, and has one header.
    packets: u64,
    bytes: u64,
}

impl Sent {
    fn of(namespace: &str) -> Self {
        let output = namespaced(namespace, "cat", &["/proc/net/snmp", "/proc/net/netstat"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
        let mut counters = HashMap::new();
        for pair in lines.chunks_exact(2) {
            let (names, values) = (&pair[0], &pair[1]);
            counters
                .extend(names.iter().zip(values).skip(1).map(|(name, value)| (format!("{}{name}", names[0]), *value)));
        }
        let count = |name: &str| counters[name].parse::<u64>().unwrap();
        Self {
            segments: count("Tcp:OutSegs") + count("Tcp:RetransSegs"),
            again: count("Tcp:RetransSegs"),
            packets: count("Ip:OutRequests"),
            bytes: count("IpExt:OutOctets"),
        }
    }

    /// Segments, and their bytes with a header each: 20 of IP, 32 of TCP with time stamps.
    fn on_the_wire_since(self, before: Self) -> (u64, u64) {
        let segments = self.segments - before.segments;
        let packets = self.packets - before.packets;
        (segments, self.bytes - before.bytes + (segments - packets) * 52)
    }
}

#[test]
fn ping_and_datagrams_in_pieces() {
    if !has("ping", &["-V"]) {
        return;
    }
    let Some(net) = Net::new() else { return };
    net.add_ipv6();
    let _listeners = [hear(&net.near, &[5000]), hear(&net.far, &[5001])];
    let recorded = in_both_planes(&net, &LONG, || {
        for address in ["10.9.0.1", "fd09::1"] {
            inside(&net.far, "ping", &["-c", "5", "-i", "0.05", "-W", "5", address]);
        }
        for (near, far) in [("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")] {
            datagrams(&net.far, near, 5000, 3, 4000);
            datagrams(&net.near, far, 5001, 2, 4000);
        }
    });
    for (plane, records) in recorded {
        // Eight bytes of ICMP and 56 more, behind 20 or 40 bytes of IP.
        let echo =
            |protocol, kind| records.by(&format!("protocol={protocol} x-icmp-type={kind}"), "flow-direction action");
        assert_eq!(echo(1, 8), ["ingress ACCEPT 5 420"], "{plane}");
        assert_eq!(echo(1, 0), ["egress ACCEPT 5 420"], "{plane}");
        assert_eq!(echo(58, 128), ["ingress ACCEPT 5 520"], "{plane}");
        assert_eq!(echo(58, 129), ["egress ACCEPT 5 520"], "{plane}");
        // 4008 bytes are three pieces of at most 1480 with 20 bytes of header, or of at most 1448 with 40 and 8.
        let pieces = records.by("protocol=17", "dstaddr srcport dstport flow-direction");
        let expected = [
            format!("10.9.0.1 4000 5000 ingress 9 {}", 3 * (4008 + 3 * 20)),
            format!("10.9.0.2 4000 5001 egress 6 {}", 2 * (4008 + 3 * 20)),
            format!("fd09::1 4000 5000 ingress 9 {}", 3 * (4008 + 3 * 48)),
            format!("fd09::2 4000 5001 egress 6 {}", 2 * (4008 + 3 * 48)),
        ];
        assert_eq!(pieces, expected, "{plane}: no piece is without ports");
    }
}

#[test]
fn names_from_a_resolver_and_an_address_by_lease() {
    if !has("dnsmasq", &["--version"]) || !has("busybox", &["true"]) {
        return;
    }
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let mut said = Vec::new();
    // The resolver has the address that the cloud's would have: base + 2. Leases come from another.
    inside(&net.far, "ip", &["addr", "add", "10.9.0.66/24", "dev", "far0"]);
    let arguments = [&LONG[..], &["--vpc-cidr", "10.9.0.64/28"]].concat();
    let (mut asked, mut answered) = (0, 0);
    let recorded = in_both_planes(&net, &arguments, || {
        let log = File::create(dir.path("dnsmasq.txt")).unwrap();
        let leases = format!("--dhcp-leasefile={}", dir.path("leases").display());
        let mut resolver = namespaced(&net.far, "dnsmasq", &DNSMASQ);
        let _resolver = Process(resolver.arg(leases).stderr(log).spawn().unwrap());
        until_bound(&net.far, "-u", 53);
        until_bound(&net.far, "-u", 67);
        for line in python(&net.near, QUERIES).lines() {
            let (question, answer) = line.split_once(' ').unwrap();
            asked += 28 + question.parse::<u64>().unwrap();
            answered += 28 + answer.parse::<u64>().unwrap();
        }
        let client = ["udhcpc", "-f", "-q", "-n", "-i", "near0", "-s", "/bin/true", "-t", "5"];
        let output = namespaced(&net.near, "busybox", &client).output().unwrap();
        said = output.stderr;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    });
    let (client, server) = (String::from_utf8(said).unwrap(), fs::read_to_string(dir.path("dnsmasq.txt")).unwrap());
    assert!(client.contains("lease of 10.9.0.50 obtained"), "{client}");
    let requests = client.matches("broadcasting ").count();
    let replies = server.matches("DHCPOFFER(").count() + server.matches("DHCPACK(").count();
    for (plane, records) in recorded {
        let dns = records.by("x-traffic-class=dns", "flow-direction srcport dstport");
        assert_eq!(dns, [format!("egress 4000 53 3 {asked}"), format!("ingress 53 4000 3 {answered}")], "{plane}");
        let dhcp = records.by("x-traffic-class=dhcp protocol=17", "flow-direction srcaddr dstaddr srcport dstport");
        let mut counts: Vec<_> = dhcp.iter().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect();
        counts.sort();
        let expected = [
            format!("egress 0.0.0.0 255.255.255.255 68 67 {requests}"),
            format!("ingress 10.9.0.2 10.9.0.50 67 68 {replies}"),
        ];
        assert_eq!(counts, expected, "{plane}:\n{client}{server}");
    }
}

const DNSMASQ: [&str; 11] = [
    "--keep-in-foreground",
    "--conf-file=/dev/null",
    "--user=root",
    "--pid-file=",
    "--log-facility=-",
    "--no-resolv",
    "--no-hosts",
    "--no-ping",
    "--interface=far0",
    "--address=/example.test/192.0.2.1",
    "--dhcp-range=10.9.0.50,10.9.0.50,255.255.255.0,1h",
];

/// Asks three times for addresses, and writes how many bytes question and answer have.
const QUERIES: &str = "import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.9.0.1', 4000)); s.settimeout(5)
for number, host in enumerate(['a', 'bb', 'ccc']):
    labels = [host, 'example', 'test', '']
    name = b''.join(bytes([len(label)]) + label.encode() for label in labels)
    question = struct.pack('!6H', number, 0x0100, 1, 0, 0, 0) + name + struct.pack('!2H', 1, 1)
    s.sendto(question, ('10.9.0.66', 53))
    answer = s.recv(2000)
    assert answer[:2] == question[:2] and answer.endswith(socket.inet_aton('192.0.2.1')), answer
    print(len(question), len(answer))
";

#[test]
fn frames_with_tags() {
    let Some(net) = Net::new() else { return };
    let recorded = in_both_planes(&net, &LONG, || {
        for (namespace, name, to, from) in
            [(&net.far, "far0", NEAR_ETHER, FAR_ETHER), (&net.near, "near0", FAR_ETHER, NEAR_ETHER)]
        {
            let script = TAGGED.replace("DEVICE", name).replace("TO", to).replace("FROM", from);
            python(namespace, &script);
        }
    });
    for (plane, records) in recorded {
        let tagged = records.by("protocol=17", "flow-direction dstport x-vlan interface-id");
        // 20 bytes of IP, 8 of UDP and 60 more; tags are no part of it. The outermost of two tags is told.
        let expected = [
            "egress 443 7 near0 5 440",
            "egress 444 100 near0 3 264",
            "ingress 443 7 near0 5 440",
            "ingress 444 100 near0 3 264",
        ];
        assert_eq!(tagged, expected, "{plane}");
    }
}

/// Five datagrams with one tag, three with two.
const TAGGED: &str = "import socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('DEVICE', 0))
ether = bytes.fromhex('TO'.replace(':', '')) + bytes.fromhex('FROM'.replace(':', ''))
def ip(port):
    header = struct.pack('!BBHHHBBH4B4B', 0x45, 0, 88, 1, 0, 64, 17, 0, 10, 7, 0, 1, 10, 7, 0, 2)
    return header + struct.pack('!4H', 4000, port, 68, 0) + bytes(60)
for i in range(5): s.send(ether + struct.pack('!3H', 0x8100, 7, 0x0800) + ip(443))
for i in range(3): s.send(ether + struct.pack('!5H', 0x88a8, 100, 0x8100, 7, 0x0800) + ip(444))
";

#[test]
fn a_scan_is_a_flow_for_every_port() {
    let Some(net) = Net::new() else { return };
    let recorded = in_both_planes(&net, &LONG, || {
        let scan = "import socket\nfor port in range(10000, 12000):\n    s = socket.socket()\n    \
            try: s.connect(('10.9.0.1', port))\n    except ConnectionRefusedError: pass\n    \
            else: raise SystemExit('open')\n";
        python(&net.far, scan);
    });
    for (plane, records) in recorded {
        // A SYN with 20 bytes of options, and a reset without.
        let probes = records.by("flow-direction=ingress", "dstport tcp-flags action");
        let expected: Vec<_> = (10_000..12_000).map(|port| format!("{port} 2 ACCEPT 1 60")).collect();
        assert_eq!(probes, expected, "{plane}");
        let resets = records.by("flow-direction=egress", "srcport tcp-flags action");
        let expected: Vec<_> = (10_000..12_000).map(|port| format!("{port} 4 ACCEPT 1 40")).collect();
        assert_eq!(resets, expected, "{plane}");
    }
}
