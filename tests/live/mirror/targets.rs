//! Targets that come and go.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use flowtap_tests::Dir;
use serde_json::Value;

use super::super::daemon::{in_each_plane, status};
use super::super::net::{comes_true, hear, inside, namespaced, python, until_ready};
use super::{ALL, Collector, ledger, start};

#[test]
fn flows_of_a_dead_target_move_and_return() {
    in_each_plane(moves);
}

fn moves(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let commands = "ip addr add 10.83.0.3/24 dev ids0";
    inside(&collector.namespace, "sh", &["-ec", commands]);
    let known = ["neigh", "replace", "10.83.0.3", "lladdr", super::IDS_ETHER, "dev", "out0", "nud", "permanent"];
    inside(&net.near, "ip", &known);
    let check = "health-check = { protocol = \"tcp\", port = 7000, interval = \"1s\", timeout = \"1s\", \
                 healthy-threshold = 1, unhealthy-threshold = 1 }";
    let two = format!("{check}\n[[mirror.target]]\nname = \"other\"\naddress = \"10.83.0.3\"\n{check}\n");
    let config = ALL
        .replace("address = \"10.83.0.2\"\n", &format!("address = \"10.83.0.2\"\n{two}"))
        .replace("target = \"ids\"", "targets = [\"ids\", \"other\"]");
    let dir = Dir::new();
    let serve = |address: &str| {
        let script = format!(
            "import socket, sys\ns = socket.create_server(('{address}', 7000)); print('ready', flush=True)\n\
             while True: s.accept()\n"
        );
        until_ready(&mut namespaced(&collector.namespace, "python3", &["-c", &script]))
    };
    let (_first, second) = (serve("10.83.0.2"), serve("10.83.0.3"));
    let mut daemon = start(plane, &net, &dir, &config);
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    let flows = || -> BTreeMap<u16, String> {
        let capture = collector.capture(&dir);
        python(&net.far, MANY);
        let receiver = capture.receiver(1514);
        let port = |inner: &[u8]| u16::from_be_bytes(inner[34..36].try_into().unwrap());
        let copies = receiver.copies();
        assert_eq!(copies.len(), 64, "one copy of each");
        copies.iter().map(|copy| (port(&copy.inner), copy.outer.1.to_string())).collect()
    };
    let before = flows();
    let of_other = before.values().filter(|target| *target == "10.83.0.3").count();
    assert!((16..=48).contains(&of_other), "{of_other} of 64");
    drop(second);
    daemon.until(|log| log.contains("mirror target is dead"));
    sleep(Duration::from_millis(1500));
    assert!(flows().values().all(|target| target == "10.83.0.2"));
    let _second = serve("10.83.0.3");
    daemon.until(|log| log.contains("mirror target is back"));
    sleep(Duration::from_millis(1500));
    assert_eq!(flows(), before);
    let counts = ledger(&dir);
    assert_eq!((counts.matched.0, counts.mirrored.0), (192, 192));
    assert_eq!(daemon.finish().sum("dstport=5000").0, 192);
}

/// A datagram of each of 64 flows.
const MANY: &str = "import socket
for port in range(4000, 4064):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.9.0.2', port)); s.sendto(bytes(100), ('10.9.0.1', 5000))
";

#[test]
fn a_target_that_cannot_be_reached_costs_no_counts() {
    in_each_plane(unreachable);
}

fn unreachable(plane: &str) {
    let Some((net, _collector)) = Collector::new(1600) else { return };
    let dir = Dir::new();
    // Nobody has that address, so every copy waits for an answer that never comes.
    let daemon = start(plane, &net, &dir, &ALL.replace("10.83.0.2", "10.83.0.9"));
    let _listener = net.listener();
    net.send(5000, 0);
    assert_eq!(ledger(&dir).matched.0, 5000);
    let before = net.kernel_packets();
    let records = daemon.finish();
    assert_eq!((records.sum("dstport=5000").0, records.sum("").0), (5000, before));
}

#[test]
fn a_target_where_nobody_listens_gets_every_copy_and_its_answers_are_let_go() {
    in_each_plane(closed_port);
}

fn closed_port(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let dir = Dir::new();
    let daemon = start(
        plane,
        &net,
        &dir,
        &format!("{ALL}\n[[interface]]\nname = \"out0\"\n").replace("interface = \"near0\"", "interface = \"*\""),
    );
    let _listener = net.listener();
    let refusals = || {
        let script = "import re\nnames, values = re.findall(r'^Icmp: (.*)$', open('/proc/net/snmp').read(), re.M)\n\
                      print(dict(zip(names.split(), values.split()))['OutDestUnreachs'])";
        python(&collector.namespace, script).trim().parse::<u32>().unwrap()
    };
    let capture = collector.capture(&dir);
    for _ in 0..10 {
        net.send(200, 0);
        sleep(Duration::from_millis(200));
    }
    let is_all_told = comes_true(|| ledger(&dir).mirrored.0 == 2000);
    assert!(is_all_told, "{plane}: {:?}", ledger(&dir));
    let receiver = capture.receiver(1514);
    receiver.assert_content();
    assert!(refusals() > 0, "the collector refuses them");
    assert_eq!(receiver.copies().len(), 2000, "{plane}");
    assert_eq!(ledger(&dir).matched.0, 2000);
    let records = daemon.finish();
    assert_eq!((records.sum("dstport=5000").0, records.sum("dstport=4789").0), (2000, 0));
}

#[test]
fn what_a_full_queue_behind_the_tunnel_device_drops_is_told() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let slow = "qdisc replace dev out0 root tbf rate 64kbit burst 3000 limit 20000";
    let slow: Vec<_> = slow.split(' ').collect();
    if !namespaced(&net.near, "tc", &slow).status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: needs `tc` and tbf");
    }
    let dir = Dir::new();
    let daemon = start("ebpf", &net, &dir, ALL);
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    net.send(5000, 0);
    let device = || status(&dir)["mirror"]["tunnel-devices"][0].clone();
    let of = |device: &Value, what: &str| device[what].as_u64().unwrap();
    // It is asked once a second.
    let is_told = comes_true(|| {
        let device = device();
        of(&device, "sent") + of(&device, "dropped") + of(&device, "errors") == 5000
    });
    let device = device();
    assert!(is_told && device["device"] == "flowtap-v4789", "{device}");
    let counts = ledger(&dir);
    assert_eq!((counts.matched.0, counts.mirrored.0), (5000, 5000));
    // The queue holds about a hundred, and forty go each second.
    assert!(of(&device, "dropped") + of(&device, "errors") > 4000, "{device}");
    assert_eq!(daemon.finish().sum("dstport=5000").0, 5000);
}

/// M9: the way out takes eight kilobytes a second, so the socket is full, then the queue.
#[test]
fn a_target_that_takes_nothing_costs_copies_and_no_counts() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let slow =
        ["qdisc", "replace", "dev", "out0", "root", "tbf", "rate", "64kbit", "burst", "3000", "limit", "50000000"];
    if !namespaced(&net.near, "tc", &slow).status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: needs `tc` and tbf");
    }
    let dir = Dir::new();
    let daemon = start("pcap", &net, &dir, ALL);
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    // More than the queue and the socket take together.
    net.send(60_000, 0);
    let status = status(&dir);
    let skipped = &status["mirror"]["sessions"][0]["ingress"]["skipped"];
    // Which of both is full first is the kernel's affair.
    let full: u64 =
        ["queue-full", "no-buffer"].map(|reason| skipped[reason]["packets"].as_u64().unwrap_or(0)).iter().sum();
    assert!(full > 10_000 && status["mirror"]["tap-drops"] == 0, "{status}");
    inside(&net.near, "tc", &["qdisc", "del", "dev", "out0", "root"]);
    let counts = ledger(&dir);
    assert_eq!(counts.matched.0, 60_000);
    assert!(counts.mirrored.0 > 0, "what was queued goes");
    let (before, records) = (net.kernel_packets(), daemon.finish());
    assert_eq!((records.sum("dstport=5000").0, records.sum("").0), (60_000, before));
}
