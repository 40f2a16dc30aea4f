//! Packets that the kernel turns away are in REJECT rows with its reason, and no longer among those let in.

use std::thread::sleep;
use std::time::Duration;

use flowtap_tests::Dir;

use super::daemon::Daemon;
use super::net::{Beyond, Net, bpf, datagrams, hear, inside, namespaced, nftables, python, until_ready};
use super::records::Records;

/// Both address families: the first digit of their ports here, the networks, and the bytes of an IP header.
const FAMILIES: [(u16, &str, &str, u64); 2] = [(5000, "10.9.0.", "10.8.0.", 20), (6000, "fd09::", "fd08::", 40)];

/// With a UDP header and 100 bytes.
const REST_BYTES: u64 = 8 + 100;

const VERDICT: &str = "dstport flow-direction interface-id action x-drop-reason";

/// All that is told of UDP to the ports of one family.
fn verdicts(records: &Records, first_port: u16) -> Vec<String> {
    let mut lines = records.by("protocol=17", VERDICT);
    lines.retain(|line| line.starts_with(&(first_port / 1000).to_string()));
    lines
}

#[test]
fn nftables_in_every_hook() {
    let Some(net) = Net::new() else { return };
    net.add_ipv6();
    let beyond = Beyond::new(&net);
    let theirs = "table inet test { chain input { type filter hook input priority 0; meta l4proto udp drop; }; }";
    if !nftables(&net.near, NETFILTER) || !nftables(&net.far, theirs) || !nftables(&beyond.namespace, theirs) {
        return;
    }
    let dir = Dir::new();
    let daemon = Daemon::start_wide("ebpf", &net, &dir, &["-i", "near*", "--interval", "60s"]);
    for (ports, link, next_link, _) in FAMILIES {
        send_to_every_hook(&net, &format!("{link}1"), &format!("{link}2"), &format!("{next_link}2"), ports);
    }
    // A socket that is bound to an interface sends to where no route leads.
    let lost = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 4000))\n\
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'near0')\n\
        for i in range(2):\n    try: s.sendto(bytes(100), ('203.0.113.9', 7001))\n    except PermissionError: pass\n";
    python(&net.near, lost);
    let records = daemon.finish();

    for (ports, _, _, ip_bytes) in FAMILIES {
        let one = ip_bytes + REST_BYTES;
        let line =
            |port: u16, place: &str, packets: u64| format!("{} {place} {packets} {}", ports + port, packets * one);
        let (small, segments) = (2 * (ip_bytes + 8 + 50), 10 * (ip_bytes + 8 + 1000));
        let expected = [
            line(1, "ingress near0 REJECT NETFILTER_DROP", 7),
            line(2, "ingress near0 REJECT NETFILTER_DROP", 3),
            line(3, "ingress near0 ACCEPT -", 4),
            format!("{} ingress near0 REJECT NETFILTER_DROP 2 {small}", ports + 3),
            line(4, "ingress near0 REJECT NETFILTER_DROP", 2),
            line(11, "egress near0 REJECT NETFILTER_DROP", 3),
            line(12, "egress near0 REJECT NETFILTER_DROP", 2),
            line(13, "egress near0 REJECT NETFILTER_DROP", 2),
            line(21, "ingress near0 REJECT NETFILTER_DROP", 4),
            line(22, "ingress near0 REJECT NETFILTER_DROP", 2),
            line(23, "egress near1 ACCEPT -", 5),
            line(23, "ingress near0 ACCEPT -", 5),
            // What the far end drops is none of our business.
            line(30, "egress near0 ACCEPT -", 3),
            format!("{} ingress near0 REJECT NETFILTER_DROP 10 {segments}", ports + 41),
            format!("{} egress near0 REJECT NETFILTER_DROP 10 {segments}", ports + 42),
        ];
        assert_eq!(verdicts(&records, ports), expected);
        // Each rejected with an answer has one, which quotes it whole.
        let (protocol, kind, code) = if ip_bytes == 20 { (1, 3, 3) } else { (58, 1, 4) };
        let answers = records.by(
            &format!("protocol={protocol} x-icmp-type={kind} x-icmp-code={code}"),
            "flow-direction interface-id action",
        );
        assert_eq!(answers, [format!("egress near0 ACCEPT 5 {}", 5 * (ip_bytes + 8 + one))]);
    }
    assert_eq!(verdicts(&records, 7000), ["7001 egress - REJECT NETFILTER_DROP 2 256"]);
    // Of each family: 7 + 3 + 2 + 2 + 4 + 2 + 10 came in and were counted, 3 + 2 + 2 + 10 never got out.
    assert_eq!((records.counts["rejected_after_counting"], records.counts["rejected"]), (2 * 30, 2 * (30 + 17) + 2));
}

/// The last two digits of the ports say what becomes of them.
const NETFILTER: &str = "table inet test {
    chain early { type filter hook prerouting priority -300; udp dport { 5004, 6004 } drop; }
    chain input {
        type filter hook input priority 0;
        udp dport { 5001, 6001, 5041, 6041 } drop; udp dport { 5002, 6002 } reject;
        udp dport { 5003, 6003 } udp length 58 drop;
    }
    chain forward { type filter hook forward priority 0; udp dport { 5021, 6021 } drop; udp dport { 5022, 6022 } reject; }
    chain output {
        type filter hook output priority 0;
        udp dport { 5011, 6011, 5042, 6042, 7001 } drop; udp dport { 5012, 6012 } reject;
    }
    chain late { type filter hook postrouting priority 0; udp dport { 5013, 6013 } drop; }
}";

fn send_to_every_hook(net: &Net, near: &str, far: &str, beyond: &str, ports: u16) {
    // What is let in has a listener, or it would be answered.
    let _listener = hear(&net.near, &[ports + 3]);
    for (port, count, bytes) in [(1, 7, 100), (2, 3, 100), (3, 4, 100), (3, 2, 50), (4, 2, 100)] {
        datagrams(&net.far, near, ports + port, count, bytes);
    }
    for (port, count) in [(11, 3), (12, 2), (13, 2), (30, 3)] {
        datagrams(&net.near, far, ports + port, count, 100);
    }
    for (port, count) in [(21, 4), (22, 2), (23, 5)] {
        datagrams(&net.far, beyond, ports + port, count, 100);
    }
    let family = if near.contains(':') { "socket.AF_INET6" } else { "socket.AF_INET" };
    // Ten datagrams in one super-packet, which the wire would carry one by one.
    for (namespace, to, port) in [(&net.far, near, ports + 41), (&net.near, far, ports + 42)] {
        let script = format!(
            "import socket\ns = socket.socket({family}, socket.SOCK_DGRAM); s.bind(('', 4000))\n\
             s.setsockopt(socket.IPPROTO_UDP, 103, 1000)\n\
             try: s.sendto(bytes(10000), ('{to}', {port}))\nexcept PermissionError: pass\n"
        );
        python(namespace, &script);
    }
}

#[test]
fn programs_of_tc_before_and_behind_the_counting_point() {
    let Some(net) = Net::new() else { return };
    net.add_ipv6();
    let theirs = "table inet test { chain input { type filter hook input priority 0; meta l4proto udp drop; }; }";
    if !nftables(&net.far, theirs) {
        return;
    }
    let dir = Dir::new();
    let daemon = Daemon::start_wide("ebpf", &net, &dir, &["-i", "near0", "--interval", "60s"]);
    let mut places = vec!["drop".to_owned()];
    for (ports, ..) in FAMILIES {
        for (place, port) in TC_PLACES {
            places.extend([place.to_owned(), "near0".to_owned(), (ports + port).to_string()]);
        }
    }
    let _droppers = until_ready(&mut bpf(&net.near, &places.iter().map(String::as_str).collect::<Vec<_>>()));
    for (ports, link, ..) in FAMILIES {
        for (place, port) in TC_PLACES {
            if place.starts_with("ingress") {
                datagrams(&net.far, &format!("{link}1"), ports + port, 4, 100);
            } else {
                datagrams(&net.near, &format!("{link}2"), ports + port, 4, 100);
            }
        }
        datagrams(&net.near, &format!("{link}2"), ports + 17, 4, 100);
    }
    let records = daemon.finish();
    for (ports, _, _, ip_bytes) in FAMILIES {
        let mut expected: Vec<_> = TC_PLACES
            .into_iter()
            .map(|(place, port)| {
                let (direction, _) = place.split_once('-').unwrap();
                let reason = format!("TC_{}", direction.to_uppercase());
                format!("{} {direction} near0 REJECT {reason} 4 {}", ports + port, 4 * (ip_bytes + REST_BYTES))
            })
            .collect();
        expected.push(format!("{} egress near0 ACCEPT - 4 {}", ports + 17, 4 * (ip_bytes + REST_BYTES)));
        assert_eq!(verdicts(&records, ports), expected);
    }
    // Only what was dropped behind our programs had been counted: two places of three, both ways, both families.
    assert_eq!((records.counts["rejected_after_counting"], records.counts["rejected"]), (2 * 2 * 2 * 4, 2 * 6 * 4));
}

/// Where programs drop, and the end of the port that each drops.
const TC_PLACES: [(&str, u16); 6] = [
    ("ingress-first", 1),
    ("ingress-last", 2),
    ("ingress-filter", 3),
    ("egress-first", 11),
    ("egress-last", 12),
    ("egress-filter", 13),
];

#[test]
fn reverse_path_sockets_and_control_groups_and_no_socket_at_all() {
    let Some(net) = Net::new() else { return };
    net.add_ipv6();
    let dir = Dir::new();
    inside(&net.near, "sh", &["-c", "echo 1 > /proc/sys/net/ipv4/conf/near0/rp_filter"]);
    let daemon = Daemon::start_wide("ebpf", &net, &dir, &["-i", "near0", "--interval", "60s"]);
    // A source that is not there: our own header around eight bytes of UDP and 100 more.
    let spoofer = "import socket, struct\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)\n\
        ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 128, 1, 0, 64, 17, 0, socket.inet_aton('192.0.2.1'), \
        socket.inet_aton('10.9.0.1'))\n\
        for i in range(6): s.sendto(ip + struct.pack('!HHHH', 4000, 5001, 108, 0) + bytes(100), ('10.9.0.1', 0))\n";
    python(&net.far, spoofer);
    for (ports, link, ..) in FAMILIES {
        // A socket whose filter lets nothing in (`ret 0`).
        let (near, far) = (format!("{link}1"), format!("{link}2"));
        let family = if ports == 5000 { "socket.AF_INET" } else { "socket.AF_INET6" };
        let deaf = format!(
            "import socket, struct, sys, ctypes\ns = socket.socket({family}, socket.SOCK_DGRAM)\n\
             s.bind(('{near}', {}))\ncode = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0))\n\
             s.setsockopt(socket.SOL_SOCKET, 26, struct.pack('HL', 1, ctypes.addressof(code)))\n\
             print('ready', flush=True); sys.stdin.read()\n",
            ports + 2
        );
        let _deaf = until_ready(&mut namespaced(&net.near, "python3", &["-c", &deaf]));
        datagrams(&net.far, &near, ports + 2, 3, 100);
        // A port without a socket is no policy.
        datagrams(&net.far, &near, ports + 3, 2, 100);
        let connect = format!(
            "import socket\ns = socket.socket({family}, socket.SOCK_STREAM); s.bind(('', 4001))\n\
             try: s.connect(('{near}', {}))\nexcept ConnectionRefusedError: pass\nelse: raise SystemExit('open')\n",
            ports + 4
        );
        python(&net.far, &connect);
        let (folder, port) = (dir.path(&format!("groups{ports}")), (ports + 5).to_string());
        drop(until_ready(&mut bpf(&net.near, &["cgroup", folder.to_str().unwrap(), &port, &far, "5"])));
    }
    sleep(Duration::from_millis(100));
    let records = daemon.finish();
    for (ports, _, _, ip_bytes) in FAMILIES {
        let one = ip_bytes + REST_BYTES;
        let mut expected = vec![
            format!("{} ingress near0 REJECT SOCKET_FILTER 3 {}", ports + 2, 3 * one),
            format!("{} ingress near0 ACCEPT - 2 {}", ports + 3, 2 * one),
            format!("{} egress near0 REJECT BPF_CGROUP_EGRESS 5 {}", ports + 5, 5 * one),
        ];
        if ports == 5000 {
            expected.insert(0, "5001 ingress near0 REJECT IP_RPFILTER 6 768".to_owned());
        }
        assert_eq!(verdicts(&records, ports), expected);
        let syn = records.by(&format!("protocol=6 dstport={}", ports + 4), "flow-direction action tcp-flags");
        assert_eq!(syn, [format!("ingress ACCEPT 2 1 {}", ip_bytes + 40)]);
        let reset = records.by(&format!("protocol=6 srcport={}", ports + 4), "flow-direction action tcp-flags");
        assert_eq!(reset, [format!("egress ACCEPT 4 1 {}", ip_bytes + 20)]);
        let (protocol, kind) = if ip_bytes == 20 { (1, 3) } else { (58, 1) };
        let unreachable = records.by(&format!("protocol={protocol} x-icmp-type={kind}"), "flow-direction action");
        assert_eq!(unreachable, [format!("egress ACCEPT 2 {}", 2 * (ip_bytes + 8 + one))]);
    }
    assert_eq!((records.counts["rejected_after_counting"], records.counts["rejected"]), (6 + 6, 6 + 6 + 10));
}

/// A packet is counted and turned away at one moment, whichever of two intervals it is near the end of.
#[test]
fn a_packet_is_counted_and_turned_away_in_the_same_interval() {
    let Some(net) = Net::new() else { return };
    let rules = "table inet test { chain input { type filter hook input priority 0; udp dport 5000 drop; }; }";
    if !nftables(&net.near, rules) {
        return;
    }
    let dir = Dir::new();
    let daemon = Daemon::start_wide("ebpf", &net, &dir, &["-i", "near0", "--interval", "1s"]);
    // As fast as it goes, while the ends of several intervals pass.
    let flood = "import socket, time\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.9.0.2', 4000))\n\
        sent = 0; end = time.monotonic() + 4.5\n\
        while time.monotonic() < end: s.sendto(b'x' * 100, ('10.9.0.1', 5000)); sent += 1\n\
        print(sent)\n";
    let sent: u64 = python(&net.far, flood).trim().parse().unwrap();
    sleep(Duration::from_millis(300));
    let records = daemon.finish();
    let packets = |action: &str| records.sum(&format!("dstport=5000 action={action}")).0;
    assert!(records.by("dstport=5000", "start").len() > 2, "no interval ended meanwhile");
    assert_eq!((packets("ACCEPT"), packets("REJECT")), (0, sent));
}
