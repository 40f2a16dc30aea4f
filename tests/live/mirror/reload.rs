//! Rules and targets that change while packets pass.

use flowtap_tests::Dir;
use flowtap_tests::mirror::{Complaint, Copy};

use super::super::daemon::{Daemon, ask, in_each_plane, status};
use super::super::net::{Net, Stream, comes_true, hear, inside, namespaced, tool};
use super::{ALL, Collector, IDS_ETHER, ledger, read_ledger, start};

#[test]
fn rules_change_under_load_without_a_lost_or_doubled_copy() {
    in_each_plane(reloads);
}

fn reloads(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let dir = Dir::new();
    let all = often(ALL);
    let daemon = start(plane, &net, &dir, &all);
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    let capture = collector.capture(&dir);
    let stream = net.stream(1000);
    until_some_more(&dir);
    // Another session instead, and other rules; the datagrams are accepted by each.
    let others = [
        all.replace("number = 1\n", "number = 2\n"),
        all.replace("\"accept\" }", "\"accept\", protocol = \"udp\", destination-ports = \"5000-5009\" }"),
    ];
    for config in [&others[0], &others[1], &all, &others[0]] {
        reload(&dir, config);
        until_some_more(&dir);
    }
    let sent = stream.end();
    until_all_are_told(&dir, sent);
    let receiver = capture.receiver(1514);
    receiver.assert_content();
    let mut numbers: Vec<_> = receiver.copies().iter().map(|copy| Stream::number(&copy.inner)).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..sent), "{plane}: {} copies of {sent}", numbers.len());
    let counts = ledger(&dir);
    assert_eq!((counts.matched.0, counts.mirrored.0), (sent, sent));
    assert_eq!(daemon.finish().sum("dstport=5000").0, sent);
}

#[test]
fn a_target_changes_under_load_and_each_copy_goes_by_the_old_plan_or_the_new_one() {
    in_each_plane(targets);
}

/// Where a copy goes, with which network identifier, and how long it is.
type Plan = (&'static str, u32, usize);

fn targets(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    inside(&collector.namespace, "ip", &["addr", "add", "10.83.0.3/24", "dev", "ids0"]);
    let known = ["neigh", "replace", "10.83.0.3", "lladdr", IDS_ETHER, "dev", "out0", "nud", "permanent"];
    inside(&net.near, "ip", &known);
    let dir = Dir::new();
    let first = often(ALL);
    let elsewhere = first.replace("10.83.0.2", "10.83.0.3");
    let renumbered = elsewhere.replace("vni = 4242", "vni = 4343");
    let cut = renumbered.replace("vni = 4343\n", "vni = 4343\npacket-length = 90\n");
    let plans: [(&str, Plan); 6] = [
        (&first, ("10.83.0.2", 4242, FRAME_BYTES)),
        (&elsewhere, ("10.83.0.3", 4242, FRAME_BYTES)),
        (&renumbered, ("10.83.0.3", 4343, FRAME_BYTES)),
        (&cut, ("10.83.0.3", 4343, 90)),
        (&renumbered, ("10.83.0.3", 4343, FRAME_BYTES)),
        (&first, ("10.83.0.2", 4242, FRAME_BYTES)),
    ];
    let daemon = start(plane, &net, &dir, &first);
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    let capture = collector.capture(&dir);
    let stream = net.stream(1000);
    until_some_more(&dir);
    for (config, _) in &plans[1..] {
        reload(&dir, config);
        until_some_more(&dir);
    }
    let sent = stream.end();
    until_all_are_told(&dir, sent);
    let receiver = capture.receiver(1514);
    // What is cut is refused, and nothing else is.
    assert!(receiver.complaints().iter().all(|complaint| *complaint == Complaint::Truncated), "{plane}");
    let mut copies: Vec<&Copy> = receiver.copies().iter().collect();
    copies.sort_by_key(|copy| Stream::number(&copy.inner));
    assert!(
        copies.iter().map(|copy| Stream::number(&copy.inner)).eq(0..sent),
        "{plane}: {} copies of {sent}",
        copies.len()
    );
    // In the order in which they were sent, one plan follows the other, and none comes back.
    let went = |copy: &&Copy| (copy.outer.1.to_string(), copy.vni, copy.inner.len());
    let mut went: Vec<_> = copies.iter().map(went).collect();
    went.dedup();
    let expected = plans.map(|(_, (target, vni, bytes))| (target.to_owned(), vni, bytes));
    assert_eq!(went, expected, "{plane}");
    let counts = ledger(&dir);
    assert_eq!((counts.matched.0, counts.mirrored.0), (sent, sent), "{plane}");
    assert_eq!(daemon.finish().sum("dstport=5000").0, sent);
}

/// A datagram of the stream, with its headers.
const FRAME_BYTES: usize = 14 + 20 + 8 + 100;

/// The same with short intervals: a change comes with the next one, and only then another can be asked for.
pub(super) fn often(config: &str) -> String {
    format!("{config}[flow-log]\ninterval = \"1s\"\n")
}

/// Goes over to another configuration, and waits until the records begin that go by it: only then another can be asked for.
#[track_caller]
pub(super) fn reload(dir: &Dir, config: &str) {
    dir.add("m.toml", config);
    let answer = ask(dir, &["reload"]).success();
    let from = answer.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    assert!(from.is_some(), "{answer}");
    assert!(comes_true(|| status(dir)["published-until"].as_u64() >= from), "{}", status(dir));
}

/// How many copies are sent.
fn mirrored(dir: &Dir) -> u64 {
    let status = status(dir);
    if status["mirror"].is_null() { 0 } else { read_ledger(&status).mirrored.0 }
}

/// Waits until some more copies are sent by the plan that holds now.
#[track_caller]
fn until_some_more(dir: &Dir) {
    let enough = mirrored(dir) + 300;
    assert!(comes_true(|| mirrored(dir) >= enough), "{}", status(dir));
}

/// Waits until it is told of so many copies that they are sent.
#[track_caller]
fn until_all_are_told(dir: &Dir, sent: u64) {
    assert!(comes_true(|| mirrored(dir) >= sent), "{sent} are sent; {}", status(dir));
}

#[test]
fn a_reload_begins_and_ends_mirroring() {
    in_each_plane(begins_and_ends);
}

fn begins_and_ends(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let dir = Dir::new();
    let all = often(ALL);
    let (before, session) = all.split_once("[[mirror.session]]").unwrap();
    let (_, interval) = session.split_once("[flow-log]").unwrap();
    let ready = format!("{before}[flow-log]{interval}");
    let nothing = format!("[[interface]]\nname = \"near0\"\n[flow-log]{interval}");
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    let assert_copies = |expected: u64| {
        let before = mirrored(&dir);
        let capture = collector.capture(&dir);
        net.send(50, 0);
        assert!(comes_true(|| mirrored(&dir) >= before + expected), "{plane}: {}", status(&dir));
        assert_eq!(capture.receiver(1514).copies().len() as u64, expected, "{plane}");
    };
    let mut daemon = start_with(plane, &net, &dir, &nothing);
    // Those of who counts.
    let sockets = tapping(&net);
    let change = |config: &str, taps: usize| {
        reload(&dir, config);
        // The kernel plane says so when it has changed, and has no sockets.
        let taps = if plane == "ebpf" { 0 } else { taps };
        assert!(comes_true(|| tapping(&net) == sockets + taps), "{plane}: {taps} taps");
    };
    if plane == "ebpf" {
        // The kernel's programs can't be loaded any more.
        dir.add("m.toml", &all);
        let refused = ask(&dir, &["reload"]);
        assert!(refused.failure(2).contains("is ready for sessions that come with a reload"));
        assert_copies(0);
        daemon.finish();
        daemon = start_with(plane, &net, &dir, &ready);
    }
    change(&all, 1);
    assert_copies(50);
    for end in [&ready, &nothing] {
        change(end, 0);
        assert_copies(0);
        let device = tool("ip", &["-n", &net.near, "link", "show", "flowtap-v4789"]);
        assert!(!device, "the tunnel device goes with the last session");
        change(&all, 1);
        assert_copies(50);
    }
    let counts = ledger(&dir);
    assert_eq!((counts.matched.0, counts.mirrored.0), (150, 150));
    daemon.finish();
}

/// How many packet sockets are at the near interface.
fn tapping(net: &Net) -> usize {
    let script = "index=$(cat /sys/class/net/near0/ifindex); awk -v index_=$index '$5 == index_' /proc/net/packet";
    let output = namespaced(&net.near, "sh", &["-ec", script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().count()
}

#[track_caller]
fn start_with<'a>(plane: &str, net: &Net, dir: &'a Dir, config: &str) -> Daemon<'a> {
    dir.add("m.toml", config);
    Daemon::start_wide(plane, net, dir, &["--config", "m.toml"])
}
