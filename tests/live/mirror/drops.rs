//! Copies of what the kernel drops, for rules with `verdict = "rejected"`.

use std::fs;

use flowtap_tests::Dir;
use flowtap_tests::mirror::{Complaint, Copy};
use serde_json::json;

use super::super::daemon::{Daemon, status, when_published};
use super::super::net::{Beyond, FAR_ETHER, NEAR_ETHER, bpf, comes_true, must, nftables, python, until_ready};
use super::super::records::Records;
use super::{Capture, Collector, MIRRORED, ledger, read_ledger, start};

/// Port 5001 is taken at the interface, and everything once more where it is dropped.
const REJECTED: &str = r#"
[[interface]]
name = "near*"

[flow-log]
interval = "1s"

[[mirror.target]]
name = "ids"
address = "10.83.0.2"

[[mirror.filter]]
name = "rejected"
rules = [
  { direction = "ingress", number = 10, action = "accept", protocol = "udp", destination-ports = "5001" },
  { direction = "ingress", number = 20, action = "accept", verdict = "rejected" },
  { direction = "egress", number = 20, action = "accept", verdict = "rejected" },
]

[[mirror.session]]
number = 1
interface = "near*"
target = "ids"
filter = "rejected"
vni = 4242
packets-per-second-max = "unlimited"
bits-per-second-max = "unlimited"
"#;

const NETFILTER: &str = "table inet test {
    chain input { type filter hook input priority 0; udp dport { 5001, 5002, 6002 } drop; }
    chain forward { type filter hook forward priority 0; udp dport { 5021, 6021 } drop; }
    chain output { type filter hook output priority 0; udp dport { 5011, 6011 } drop; }
    chain late { type filter hook postrouting priority 0; udp dport { 5013, 6013 } drop; }
}";

/// Sends numbered datagrams of `bytes` from port 4000, be they let out or not.
fn numbered(namespace: &str, to: &str, port: u16, count: u32, bytes: u32) {
    let script = format!(
        "import socket, struct\n\
         s = socket.socket(socket.AF_INET6 if ':' in '{to}' else socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.bind(('', 4000))\n\
         for i in range({count}):\n    try: s.sendto(struct.pack('>I', i) + b'{port}' * ({bytes} // 4 - 1), ('{to}', {port}))\n    \
         except PermissionError: pass\n"
    );
    python(namespace, &script);
}

fn payload(port: u16, number: u32, bytes: usize) -> Vec<u8> {
    [number.to_be_bytes().as_slice(), port.to_string().repeat(bytes / 4 - 1).as_bytes()].concat()
}

/// The copies of what went to a port.
fn to_port(copies: &[Copy], port: u16) -> Vec<&Copy> {
    let is_to = |copy: &&Copy| {
        let header_bytes = if copy.inner[12..14] == [0x86, 0xdd] { 40 } else { 20 };
        copy.inner[14 + header_bytes + 2..14 + header_bytes + 4] == port.to_be_bytes()
    };
    copies.iter().filter(is_to).collect()
}

fn ether(text: &str) -> Vec<u8> {
    text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn rejected(records: &Records) -> Vec<String> {
    let mut lines = records.by("protocol=17 action=REJECT", "dstport flow-direction interface-id x-drop-reason");
    lines.retain(|line| !line.contains("4789"));
    lines
}

#[test]
fn every_hooks_drops_arrive_once_and_as_they_were() {
    in_kernel_and_thread("");
    in_kernel_and_thread("offload = \"device\"\n");
}

/// The kernel makes no copies for a card that isn't there, so with that a thread does.
fn in_kernel_and_thread(offload: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    net.add_ipv6();
    net.without_offloads();
    let beyond = Beyond::new(&net);
    if !nftables(&net.near, NETFILTER) {
        return;
    }
    let dir = Dir::new();
    dir.add("m.toml", format!("{REJECTED}{offload}"));
    let mut daemon = Daemon::start_wide("auto", &net, &dir, &["--config", "m.toml"]);
    // Both ends of the router.
    daemon.until(|log| log.matches(MIRRORED).count() == 2);
    let is_thread = daemon.log().contains("a thread taps the interfaces");
    assert_eq!(is_thread, !offload.is_empty());
    let sent = Capture::start(&net.far, "far0", &["-Q", "out", "udp"], &dir);
    let copies = collector.capture(&dir);
    numbered(&net.far, "10.9.0.1", 5001, 3, 100);
    for (first, near, far, beyond) in
        [(5000, "10.9.0.1", "10.9.0.2", "10.8.0.2"), (6000, "fd09::1", "fd09::2", "fd08::2")]
    {
        numbered(&net.far, near, first + 2, 4, 1400);
        numbered(&net.far, beyond, first + 21, 2, 100);
        numbered(&net.near, far, first + 11, 3, 100);
        numbered(&net.near, far, first + 13, 2, 100);
    }
    let (sent, receiver) = (sent.frames(), copies.receiver(1514));
    receiver.assert_content();
    let copies = receiver.copies();
    assert!(copies.iter().all(|copy| copy.vni == 4242));

    // What came in by the wire is what came by the wire; only a router has counted its hop.
    let sent_to = |port: u16| -> Vec<Vec<u8>> {
        let is_to = |frame: &&Vec<u8>| {
            let header_bytes = if frame[12..14] == [0x86, 0xdd] { 40 } else { 20 };
            frame[14 + header_bytes + 2..14 + header_bytes + 4] == port.to_be_bytes()
        };
        sent.iter().filter(is_to).cloned().collect()
    };
    let received = |port| to_port(copies, port).into_iter().map(|copy| copy.inner.clone()).collect::<Vec<_>>();
    for (port, count) in [(5001, 3), (5002, 4), (6002, 4)] {
        assert_eq!(received(port).len(), count, "to {port}");
        assert!(received(port) == sent_to(port), "to {port}");
    }
    for (port, hops_at) in [(5021, 14 + 8), (6021, 14 + 7)] {
        let routed: Vec<_> = sent_to(port).into_iter().map(|frame| one_hop_on(frame, hops_at)).collect();
        assert_eq!(routed.len(), 2);
        assert!(received(port) == routed, "to {port}");
    }
    // What never got a header of the wire has one that says so.
    for (port, count, header_bytes) in [(5011, 3, 20), (5013, 2, 20), (6011, 3, 40), (6013, 2, 40)] {
        let frames = received(port);
        assert_eq!(frames.len(), count, "to {port}");
        for (number, frame) in (0..).zip(&frames) {
            assert_eq!(frame[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
            assert_eq!(frame.len(), 14 + header_bytes + 8 + 100);
            assert_eq!(frame[14 + header_bytes + 8..], payload(port, number, 100));
        }
    }
    let of_wire = [ether(NEAR_ETHER), ether(FAR_ETHER)].concat();
    assert!(received(5002).iter().all(|frame| frame[..12] == of_wire));

    let dropped = 2 * (4 + 2 + 3 + 2);
    let counts = ledger(&dir);
    // Port 5001: taken at the interface, and not again.
    assert_eq!((counts.matched.0, counts.mirrored.0, counts.skipped.0), (3 + 3 + dropped, 3 + dropped, 3));
    let mirror = &status(&dir)["mirror"];
    let ingress = &mirror["sessions"][0]["ingress"];
    assert_eq!(ingress["skipped"], json!({ "already-taken": { "packets": 3, "bytes": 3 * 142 } }));
    assert_eq!(ingress["partial"]["packets"], 0);
    assert_eq!(mirror["at-drop"], json!({ "copied": 3 + dropped, "without-interface": 0, "missed": {} }));
    let (v4, v6) = (28, 48);
    let mut expected = vec![format!("5001 ingress near0 NETFILTER_DROP 3 {}", 3 * (v4 + 100))];
    for (first, headers) in [(5000, v4), (6000, v6)] {
        let line = |port: u16, place: &str, packets: u64, bytes: u64| {
            format!("{} {place} near0 NETFILTER_DROP {packets} {}", first + port, packets * (headers + bytes))
        };
        expected.extend([
            line(2, "ingress", 4, 1400),
            line(11, "egress", 3, 100),
            line(13, "egress", 2, 100),
            line(21, "ingress", 2, 100),
        ]);
    }
    assert_eq!(rejected(&daemon.finish()), expected);
    drop(beyond);
}

/// A frame after a router: a hop less, and an IPv4 header's checksum over that (RFC 1141).
fn one_hop_on(mut frame: Vec<u8>, hops_at: usize) -> Vec<u8> {
    frame[hops_at] -= 1;
    if hops_at == 14 + 8 {
        frame[24..26].fill(0);
        let words = frame[14..34].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum = words.sum::<u32>();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        frame[24..26].copy_from_slice(&(!sum as u16).to_be_bytes());
    }
    frame
}

/// Programs of somebody else drop packets before our own see them, and behind.
#[test]
fn what_tc_drops_arrives_once_wherever_that_is() {
    around_the_tap("", 16);
    // The thread's sockets have seen all that comes in, and nothing that goes out no further.
    around_the_tap("offload = \"device\"\n", 12);
}

fn around_the_tap(offload: &str, already_taken: u64) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    net.without_offloads();
    let dir = Dir::new();
    let all = "{ direction = \"egress\", number = 10, action = \"accept\", protocol = \"udp\" },\n  \
               { direction = \"ingress\", number = 10, action = \"accept\", protocol = \"udp\"";
    let config =
        REJECTED.replace("{ direction = \"ingress\", number = 10, action = \"accept\", protocol = \"udp\"", all);
    dir.add("m.toml", format!("{}{offload}", config.replace("5001", "5001-5013")));
    let mut daemon = Daemon::start_wide("auto", &net, &dir, &["--config", "m.toml"]);
    daemon.until(|log| log.contains(if offload.is_empty() { "as far as sessions say" } else { "INFO mirrored" }));
    if !has_tcx(&daemon) {
        return;
    }
    let places = TC_PLACES.iter().flat_map(|(place, port)| [(*place).to_owned(), "near0".to_owned(), port.to_string()]);
    let places: Vec<_> = ["drop".to_owned()].into_iter().chain(places).collect();
    let _droppers = until_ready(&mut bpf(&net.near, &places.iter().map(String::as_str).collect::<Vec<_>>()));
    let copies = collector.capture(&dir);
    for (place, port) in TC_PLACES {
        if place.starts_with("ingress") {
            numbered(&net.far, "10.9.0.1", port, 4, 100);
        } else {
            numbered(&net.near, "10.9.0.2", port, 4, 100);
        }
    }
    let receiver = copies.receiver(1514);
    receiver.assert_content();
    for (place, port) in TC_PLACES {
        let frames = to_port(receiver.copies(), port);
        let payloads: Vec<_> = frames.iter().map(|copy| copy.inner[42..].to_vec()).collect();
        assert_eq!(payloads, (0..4).map(|number| payload(port, number, 100)).collect::<Vec<_>>(), "{place} {offload}");
        let ends = if place.starts_with("ingress") { [NEAR_ETHER, FAR_ETHER] } else { [FAR_ETHER, NEAR_ETHER] };
        let header = ends.map(ether).concat();
        assert!(frames.iter().all(|copy| copy.inner[..12] == header), "{place} {offload}");
    }
    let counts = ledger(&dir);
    assert_eq!((counts.mirrored.0, counts.skipped.0), (24, already_taken), "{offload}");
    let reasons = [("egress", "EGRESS", TC_PLACES[3..].iter()), ("ingress", "INGRESS", TC_PLACES[..3].iter())];
    let line = |direction: &str, reason: &str, port: u16| format!("{port} {direction} near0 TC_{reason} 4 512");
    let mut expected: Vec<_> = reasons
        .into_iter()
        .flat_map(|(direction, reason, places)| places.map(move |(_, port)| line(direction, reason, *port)))
        .collect();
    expected.sort();
    assert_eq!(rejected(&daemon.finish()), expected);
}

/// A reload begins to mirror behind a program of somebody else, which drops what was counted before it: between counting and
/// mirroring there is none.
#[test]
fn what_a_program_drops_that_was_there_before_is_taken_before_it() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    net.without_offloads();
    let rule = |direction: &str| {
        format!("  {{ direction = \"{direction}\", number = 10, action = \"accept\", protocol = \"udp\" }},\n")
    };
    let with = |rules: &str| -> String {
        let lines = REJECTED.lines().map(|line| format!("{line}\n"));
        lines.map(|line| if line.contains("5001") { rules.to_owned() } else { line }).collect()
    };
    let dir = Dir::new();
    let mut daemon = start("ebpf", &net, &dir, &with(""));
    if !has_tcx(&daemon) {
        return;
    }
    let places = ["drop", "ingress-last", "near0", "5002", "egress-last", "near0", "5012"];
    let _droppers = until_ready(&mut bpf(&net.near, &places));
    dir.add("m.toml", with(&[rule("ingress"), rule("egress")].concat()));
    must("kill", &["-HUP", &daemon.pid()]);
    daemon.until(|log| log.contains("configuration read again"));
    until_gone_over(&daemon);
    let copies = collector.capture(&dir);
    numbered(&net.far, "10.9.0.1", 5002, 4, 100);
    numbered(&net.near, "10.9.0.2", 5012, 4, 100);
    let receiver = copies.receiver(1514);
    receiver.assert_content();
    for port in [5002, 5012] {
        let payloads: Vec<_> = to_port(receiver.copies(), port).iter().map(|copy| copy.inner[42..].to_vec()).collect();
        assert_eq!(payloads, (0..4).map(|number| payload(port, number, 100)).collect::<Vec<_>>());
    }
    let counts = ledger(&dir);
    assert_eq!((counts.mirrored.0, counts.skipped.0), (8, 8));
    let expected = ["5002 ingress near0 TC_INGRESS 4 512", "5012 egress near0 TC_EGRESS 4 512"];
    assert_eq!(rejected(&daemon.finish()), expected);
}

/// Waits until the thread that sends copies of what is dropped goes by the configuration that was read last. It looks for a
/// new one in each turn, and sleeps once in a turn that brings nothing; to go over makes it wait a few times more.
#[track_caller]
fn until_gone_over(daemon: &Daemon<'_>) {
    let sleeps = || -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
        let of_mirror = tasks.map(|task| task.unwrap().path()).find(|task| {
            // Another thread may have ended.
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "mirror\n")
        });
        let text = fs::read_to_string(of_mirror.unwrap().join("status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    };
    let before = sleeps();
    assert!(comes_true(|| sleeps() >= before + SLEEPS), "the thread stands still");
}

/// Two whole turns, and what it takes to go over.
const SLEEPS: u64 = 12;

/// Whether programs can stand before and behind each other, as those of somebody else do here.
fn has_tcx(daemon: &Daemon) -> bool {
    let has = daemon.log().contains("attachment=\"tcx\"");
    if !has {
        eprintln!("skipped: this kernel has no links of TCX");
    }
    has
}

/// Where programs drop, and what goes to which port.
const TC_PLACES: [(&str, u16); 6] = [
    ("ingress-first", 5001),
    ("ingress-last", 5002),
    ("ingress-filter", 5003),
    ("egress-first", 5011),
    ("egress-last", 5012),
    ("egress-filter", 5013),
];

#[test]
fn what_can_not_be_read_is_not_there_and_is_told() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    if !nftables(&net.near, NETFILTER) {
        return;
    }
    let dir = Dir::new();
    let daemon = start("ebpf", &net, &dir, REJECTED);
    let copies = collector.capture(&dir);
    // Ten datagrams in one super-packet, whose payload lies in pages.
    let script = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 4000))\n\
        s.setsockopt(socket.IPPROTO_UDP, 103, 1000)\n\
        try: s.sendto(bytes(range(250)) * 40, ('10.9.0.2', 5011))\nexcept PermissionError: pass\n";
    python(&net.near, script);
    let receiver = copies.receiver(0);
    let [copy] = receiver.copies() else { panic!("{} copies", receiver.copies().len()) };
    assert_eq!(receiver.complaints(), [Complaint::Truncated]);
    let (ip, readable) = copy.inner[14..].split_at(28);
    assert_eq!(ip[2..4], 10_028_u16.to_be_bytes(), "the packet's own length");
    assert!(readable.len() < 10_000);
    let sent: Vec<u8> = (0..10_000_u32).map(|at| (at % 250) as u8).collect();
    assert_eq!(readable, &sent[..readable.len()]);
    let counts = ledger(&dir);
    assert_eq!((counts.matched, counts.mirrored), ((1, 14 + 10_028), (1, 14 + 10_028)));
    let egress = &status(&dir)["mirror"]["sessions"][0]["egress"];
    assert_eq!(egress["partial"], json!({ "packets": 1, "bytes": 10_000 - readable.len() }));
    assert_eq!(rejected(&daemon.finish()), [format!("5011 egress near0 NETFILTER_DROP 10 {}", 10 * 1028)]);
}

#[test]
fn a_ring_that_nobody_empties_costs_copies_and_no_counts() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    if !nftables(&net.near, NETFILTER) {
        return;
    }
    let dir = Dir::new();
    let daemon = start("ebpf", &net, &dir, REJECTED);
    // Beyond what the ring holds of them: see `COPIES_BYTES`.
    const DATAGRAMS: u32 = 20_000;
    must("kill", &["-STOP", &daemon.pid()]);
    numbered(&net.far, "10.9.0.1", 5002, DATAGRAMS, 100);
    must("kill", &["-CONT", &daemon.pid()]);
    let told = || {
        let told = &status(&dir)["mirror"]["at-drop"];
        (told["copied"].as_u64().unwrap_or(0), told["missed"]["NETFILTER_DROP"].as_u64().unwrap_or(0))
    };
    let is_all_told = comes_true(|| {
        let (copied, missed) = told();
        copied + missed == u64::from(DATAGRAMS)
    });
    let (copied, missed) = told();
    assert!(is_all_told, "{copied} {missed}");
    assert_eq!(ledger(&dir).matched.0, copied);
    assert_eq!(copied, (1 << 22) / (8 + 32 + 256), "what the ring holds");
    let rows = rejected(&daemon.finish());
    assert_eq!(rows, [format!("5002 ingress near0 NETFILTER_DROP {DATAGRAMS} {}", DATAGRAMS * 128)]);
    let log = String::from_utf8(dir.read("log.txt")).unwrap();
    assert!(log.contains(&format!("{missed} dropped packets were lost before a session could be asked")), "{log}");
    drop(collector);
}

#[test]
fn a_reload_ends_and_begins_it_and_refuses_what_did_not_begin_with_the_run() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    if !nftables(&net.near, NETFILTER) {
        return;
    }
    let dir = Dir::new();
    let mut daemon = start("ebpf", &net, &dir, REJECTED);
    let copies = collector.capture(&dir);
    let tap_only = REJECTED.replace("verdict = \"rejected\"", "protocol = \"tcp\"");
    let again = |daemon: &mut Daemon<'_>, config: &str, times: usize| {
        // A change comes with the next interval, and only then another can be asked for.
        when_published(&dir);
        dir.add("m.toml", config);
        must("kill", &["-HUP", &daemon.pid()]);
        daemon.until(|log| log.matches("configuration read again").count() == times);
        until_gone_over(daemon);
    };
    numbered(&net.far, "10.9.0.1", 5002, 2, 100);
    assert!(comes_true(|| read_ledger(&status(&dir)).mirrored.0 == 2));
    again(&mut daemon, &tap_only, 1);
    numbered(&net.far, "10.9.0.1", 5002, 3, 200);
    again(&mut daemon, REJECTED, 2);
    numbered(&net.far, "10.9.0.1", 5002, 4, 300);
    let receiver = copies.receiver(1514);
    receiver.assert_content();
    let lengths: Vec<_> = receiver.copies().iter().map(|copy| copy.inner.len() - 42).collect();
    assert_eq!(lengths, [100, 100, 300, 300, 300, 300]);
    assert_eq!(ledger(&dir).mirrored.0, 6);
    daemon.finish();

    let dir = Dir::new();
    let mut daemon = start("ebpf", &net, &dir, &tap_only);
    dir.add("m.toml", REJECTED);
    must("kill", &["-HUP", &daemon.pid()]);
    daemon.until(|log| log.contains("configuration not changed"));
    assert!(daemon.log().contains("mirroring what is rejected begins with a run: start again"), "{}", daemon.log());
    daemon.finish();
}

#[test]
fn without_the_kernel_plane_it_is_said_that_nothing_is_taken() {
    let Some((net, _collector)) = Collector::new(1600) else { return };
    let dir = Dir::new();
    dir.add("m.toml", REJECTED);
    let daemon = Daemon::start_wide("auto", &net, &dir, &["--config", "m.toml", "--filter", "udp"]);
    let why = "that needs the kernel plane, and this run has none (a filter expression is run over frames)";
    assert_eq!(status(&dir)["mirror"]["at-drop"], json!({ "impossible": why }));
    daemon.finish();
    let log = String::from_utf8(dir.read("log.txt")).unwrap();
    let warned = "WARN mirror rules with `verdict = \"rejected\"` take nothing in this run";
    assert!(log.lines().any(|line| line.contains(warned) && line.contains(why)), "{log}");
    assert!(log.contains(&format!("nothing was mirrored where the kernel drops packets: {why}")), "{log}");
}
