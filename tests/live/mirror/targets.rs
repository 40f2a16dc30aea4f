//! Targets that come and go.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flowtap_tests::Dir;
use serde_json::Value;

use super::super::daemon::{in_each_plane, status};
use super::super::net::{Net, Stream, comes_true, hear, inside, must, namespaced, python, until_ready};
use super::{ALL, Capture, Collector, Ledger, ledger, read_ledger, read_session, start};

#[test]
fn flows_of_a_dead_target_move_and_return() {
    in_each_plane(moves);
}

fn moves(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    add_other(&net, &collector);
    let check = "health-check = { protocol = \"tcp\", port = 7000, interval = \"1s\", timeout = \"1s\", \
                 healthy-threshold = 1, unhealthy-threshold = 1 }";
    let config = to_two(check, "10.83.0.3", check);
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
    let mut rounds = 0;
    let mut flows = || {
        rounds += 1;
        let flows = flows(&net, &collector, &dir);
        assert_eq!(flows.len(), 64, "one copy of each");
        flows
    };
    let before = flows();
    let of_other = before.values().filter(|(target, _)| target == "10.83.0.3").count();
    assert!((16..=48).contains(&of_other), "{of_other} of 64");
    drop(second);
    daemon.until(|log| log.contains("mirror target is dead"));
    // The kernel is told a moment later.
    assert!(comes_true(|| flows().values().all(|(target, _)| target == "10.83.0.2")));
    let _second = serve("10.83.0.3");
    daemon.until(|log| log.contains("mirror target is back"));
    assert!(comes_true(|| flows() == before));
    let (counts, sent) = (ledger(&dir), 64 * rounds);
    assert_eq!((counts.matched.0, counts.mirrored.0), (sent, sent));
    assert_eq!(daemon.finish().sum("dstport=5000").0, sent);
}

/// The other address of the collector.
fn add_other(net: &Net, collector: &Collector) {
    inside(&collector.namespace, "ip", &["addr", "add", "10.83.0.3/24", "dev", "ids0"]);
    let known = ["neigh", "replace", "10.83.0.3", "lladdr", super::IDS_ETHER, "dev", "out0", "nud", "permanent"];
    inside(&net.near, "ip", &known);
}

/// [`ALL`] with two targets, of which more is said: the collector, and another.
fn to_two(more: &str, other: &str, more_of_other: &str) -> String {
    let other = format!("{more}\n[[mirror.target]]\nname = \"other\"\naddress = \"{other}\"\n{more_of_other}\n");
    ALL.replace("address = \"10.83.0.2\"\n", &format!("address = \"10.83.0.2\"\n{other}"))
        .replace("target = \"ids\"", "targets = [\"ids\", \"other\"]")
}

/// Where the copies of 64 flows go, by the port of each, and with which network identifier.
fn flows(net: &Net, collector: &Collector, dir: &Dir) -> BTreeMap<u16, (String, u32)> {
    let capture = collector.capture(dir);
    python(&net.far, MANY);
    let receiver = capture.receiver(1514);
    let port = |inner: &[u8]| u16::from_be_bytes(inner[34..36].try_into().unwrap());
    let went = receiver.copies().iter().map(|copy| (port(&copy.inner), (copy.outer.1.to_string(), copy.vni)));
    let flows: BTreeMap<_, _> = went.collect();
    assert_eq!(flows.len(), receiver.copies().len(), "no copy comes twice");
    flows
}

/// Waits until flows go where they should. Each look takes a second or two.
#[track_caller]
fn until_flows(is_so: impl Fn(&BTreeMap<u16, (String, u32)>) -> bool, look: impl Fn() -> BTreeMap<u16, (String, u32)>) {
    let mut seen = BTreeMap::new();
    let is_soon = (0..LOOKS_MAX).any(|_| {
        seen = look();
        seen.len() == 64 && is_so(&seen)
    });
    assert!(is_soon, "{seen:?}");
}

/// What changes by itself is seen once a second.
const LOOKS_MAX: u32 = 20;

/// The kernel and the thread alike.
#[test]
fn flows_of_a_target_without_a_route_move_and_return() {
    in_each_plane(loses_its_route);
}

fn loses_its_route(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    inside(&collector.namespace, "ip", &["addr", "add", "10.85.0.2/32", "dev", "ids0"]);
    let route = |what: &str| inside(&net.near, "ip", &["route", what, "10.85.0.2", "via", "10.83.0.2"]);
    route("add");
    let dir = Dir::new();
    let daemon = start(plane, &net, &dir, &to_two("", "10.85.0.2", ""));
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    let look = || flows(&net, &collector, &dir);
    let before = look();
    let stay = before.values().filter(|(target, _)| target == "10.83.0.2").count();
    assert!(before.len() == 64 && (16..=48).contains(&stay), "{plane}: {before:?}");
    route("del");
    until_flows(|flows| flows.values().all(|(target, _)| target == "10.83.0.2"), look);
    route("add");
    until_flows(|flows| *flows == before, look);
    ledger(&dir);
    daemon.finish();
}

#[test]
fn a_reload_keeps_what_is_known_of_targets() {
    in_each_plane(stays_dead);
}

fn stays_dead(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    add_other(&net, &collector);
    let dir = Dir::new();
    // Nobody listens there.
    let check = |often: &str, failures: u32| {
        format!(
            "health-check = {{ protocol = \"tcp\", port = 7000, interval = \"{often}\", timeout = \"1s\", \
             unhealthy-threshold = {failures} }}"
        )
    };
    let config = |check: &str| super::reload::often(&to_two("", "10.83.0.3", check));
    let mut daemon = start(plane, &net, &dir, &config(&check("1s", 1)));
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    daemon.until(|log| log.contains("mirror target is dead"));
    let look = || flows(&net, &collector, &dir);
    // It would take it three quarters of an hour to find that out anew.
    super::reload::reload(&dir, &config(&check("300s", 10)).replace("vni = 4242", "vni = 4343"));
    until_flows(|flows| flows.values().all(|at| *at == ("10.83.0.2".to_owned(), 4343)), look);
    // Who is not checked is healthy.
    super::reload::reload(&dir, &config(""));
    until_flows(|flows| flows.values().any(|at| *at == ("10.83.0.3".to_owned(), 4242)), look);
    ledger(&dir);
    daemon.finish();
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
    comes_true(|| read_ledger(&status(&dir)).matched.0 >= 2000);
    assert_eq!((ledger(&dir).matched.0, ledger(&dir).mirrored.0), (2000, 2000), "{plane}: {}", status(&dir));
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
    let Some((net, collector)) = stalled() else { return };
    let dir = Dir::new();
    let daemon = start("pcap", &net, &dir, ALL);
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    overwhelm(&net, &dir);
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

/// A way to the collector that takes eight kilobytes a second, and queues no end of them; `None`, aloud, where that can't be
/// had.
fn stalled() -> Option<(Net, Collector)> {
    let (net, collector) = Collector::new(1600)?;
    let slow = "qdisc replace dev out0 root tbf rate 64kbit burst 3000 limit 50000000";
    let slow: Vec<_> = slow.split(' ').collect();
    let is_stalled = namespaced(&net.near, "tc", &slow).status().is_ok_and(|status| status.success());
    if !is_stalled {
        eprintln!("skipped: needs `tc` and tbf");
    }
    is_stalled.then_some((net, collector))
}

/// Sends more than queue and socket of a stalled way take together, and waits until the tap has shown all of it.
fn overwhelm(net: &Net, dir: &Dir) {
    net.send(60_000, 0);
    assert!(comes_true(|| read_ledger(&status(dir)).matched.0 == 60_000), "{}", status(dir));
}

/// The queue and the socket are full, and would be for minutes.
#[test]
fn a_run_ends_in_time_though_a_target_takes_nothing() {
    let Some((net, collector)) = stalled() else { return };
    let dir = Dir::new();
    let daemon = start("pcap", &net, &dir, ALL);
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    overwhelm(&net, &dir);
    let (before, began) = (net.kernel_packets(), now());
    // It checks that the end is a good one, and that all rows are there.
    let records = daemon.finish();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!((records.sum("dstport=5000").0, records.sum("").0), (60_000, before));
    let log = String::from_utf8(dir.read("log.txt")).unwrap();
    let summary = log.split("mirror    session 1 (VNI 4242): ").nth(1).unwrap_or_else(|| panic!("{log}"));
    let words: Vec<_> = summary.split_whitespace().collect();
    let ["60000", "matched", "=", sent, "sent", "+", skipped, "skipped;", ..] = words[..] else { panic!("{summary}") };
    let [sent, skipped] = [sent, skipped].map(|number| number.parse::<u64>().unwrap());
    assert!(sent + skipped == 60_000 && skipped > 10_000, "{summary}");
    assert!(!log.contains("does not balance"), "{log}");
}

#[expect(clippy::disallowed_methods, reason = "how long a run takes to end is told by a clock that really runs")]
fn now() -> Instant {
    Instant::now()
}

/// A session with two targets: one takes nothing, the other everything, in order, whatever the first does to a reload.
#[test]
fn a_target_that_takes_nothing_does_not_hold_up_a_reload_and_the_others() {
    let Some((net, collector)) = stalled() else { return };
    let (near, namespace) = (&*net.near, &*collector.namespace);
    let cable = format!("link add out1 netns {near} mtu 1600 type veth peer name ids1 netns {namespace} mtu 1600");
    must("ip", &cable.split(' ').collect::<Vec<_>>());
    for (namespace, name, end) in [(near, "out1", 1), (namespace, "ids1", 2)] {
        inside(namespace, "sh", &["-ec", &format!("ip addr add 10.84.0.{end}/24 dev {name}; ip link set {name} up")]);
    }
    let config = ALL
        .replace("[[mirror.filter]]", "[[mirror.target]]\nname = \"other\"\naddress = \"10.84.0.2\"\n[[mirror.filter]]")
        .replace("target = \"ids\"", "targets = [\"ids\", \"other\"]\nmode = \"replicate\"");
    let config = format!("{config}[flow-log]\ninterval = \"1s\"\n");
    let dir = Dir::new();
    let mut daemon = start("pcap", &net, &dir, &config);
    let _listeners = (net.listener(), hear(namespace, &[4789]));
    net.send(60_000, 0);
    assert!(comes_true(|| read_ledger(&status(&dir)).matched.0 == 120_000));
    sleep(Duration::from_secs(1));
    let captures = (collector.capture(&dir), Capture::start(namespace, "ids1", &["-Q", "in"], &dir));
    let stream = net.stream(1000);
    for (done, number) in [(1, "2"), (2, "1")] {
        sleep(Duration::from_millis(1200));
        dir.add("m.toml", config.replace("number = 1\n", &format!("number = {number}\n")));
        must("kill", &["-HUP", &daemon.pid()]);
        daemon.until(|log| log.matches("configuration read again").count() == done);
    }
    // What the second sessions have left behind is sent or given up: nothing of it waits any more.
    let is_settled = || {
        let Ledger { matched, mirrored, skipped, .. } = read_session(&status(&dir), 2);
        matched.0 > 0 && matched.0 == mirrored.0 + skipped.0
    };
    assert!(comes_true(is_settled), "{}", status(&dir));
    let sent = stream.end();
    // What the socket holds goes soon.
    let change = "qdisc change dev out0 root tbf rate 20mbit burst 3000 limit 50000000";
    inside(near, "tc", &change.split(' ').collect::<Vec<_>>());
    let counts = ledger(&dir);
    assert_eq!(counts.matched.0, 2 * (60_000 + sent));
    let numbers = |capture: Capture<'_>| -> Vec<u64> {
        capture.receiver(1514).copies().iter().map(|copy| Stream::number(&copy.inner)).collect()
    };
    let (of_stalled, of_other) = (numbers(captures.0), numbers(captures.1));
    assert!(of_other.iter().copied().eq(0..sent), "{} copies of {sent}", of_other.len());
    // Among what was sent before the stream, and bears no number.
    let of_stalled: Vec<_> = of_stalled.into_iter().filter(|number| *number < sent).collect();
    assert!(!of_stalled.is_empty() && of_stalled.is_sorted_by(|one, next| one < next), "{of_stalled:?}");
    let told = status(&dir);
    assert_eq!(told["mirror"]["tap-drops"], 0, "{told}");
    let before = net.kernel_packets();
    let records = daemon.finish();
    assert_eq!((records.sum("dstport=5000").0, records.sum("").0), (60_000 + sent, before));
}

/// As at a boot before the target's network is up; then the same at a reload.
#[test]
fn a_target_without_a_route_costs_its_copies_until_there_is_one() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let route = |is_there: bool| {
        let commands = if is_there {
            format!(
                "ip addr add 10.83.0.1/24 dev out0; \
                 ip neigh replace 10.83.0.2 lladdr {} dev out0 nud permanent",
                super::IDS_ETHER
            )
        } else {
            "ip addr del 10.83.0.1/24 dev out0".to_owned()
        };
        inside(&net.near, "sh", &["-ec", &commands]);
    };
    let missing = "WARN there is no route to mirror target `ids` (10.83.0.2): Network is unreachable";
    let found = "INFO there is a route to mirror target `ids` (10.83.0.2)";
    route(false);
    let dir = Dir::new();
    let config = format!("{ALL}[flow-log]\ninterval = \"1s\"\n");
    let mut daemon = start("pcap", &net, &dir, &config);
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    for (at, number) in [(1, "1"), (2, "2")] {
        if number != "1" {
            route(false);
            daemon.until(|log| log.matches(missing).count() == at);
            sleep(Duration::from_millis(1200));
            dir.add("m.toml", config.replace("number = 1\n", &format!("number = {number}\n")));
            must("kill", &["-HUP", &daemon.pid()]);
            daemon.until(|log| log.contains("configuration read again"));
        }
        // The new configuration says so as well.
        let times = if number == "1" { 1 } else { 3 };
        daemon.until(|log| log.matches(missing).count() == times);
        net.send(50, 0);
        let counts = ledger(&dir);
        assert_eq!(
            (counts.mirrored.0, counts.skipped.0, counts.unreachable),
            (50 * (at as u64 - 1), 50 * at as u64, 50 * at as u64)
        );
        assert_eq!(daemon.log().matches(missing).count(), times, "it is told once");
        route(true);
        daemon.until(|log| log.matches(found).count() == at);
        let capture = collector.capture(&dir);
        net.send(50, 0);
        let receiver = capture.receiver(1514);
        receiver.assert_content();
        assert_eq!((receiver.copies().len(), ledger(&dir).mirrored.0), (50, 50 * at as u64));
    }
    assert_eq!(daemon.finish().sum("dstport=5000").0, 200);
}
