//! Copies of user space that go as whole frames, past the IP stack, and those that don't.
//!
//! A chain of nftables counts what the IP stack sends: that is what goes by a raw socket, and no frame.

use flowtap_tests::Dir;
use flowtap_tests::mirror::Receiver;
use serde_json::Value;

use super::super::daemon::status;
use super::super::net::{Net, comes_true, hear, inside, namespaced, nftables, python};
use super::{ALL, Collector, IDS_ETHER, ledger, start};

const COUNT: &str = "table inet stack { chain out { type filter hook output priority 0; udp dport 4789 counter; }; }";

/// There is a look each second, and when something has changed: it takes a copy of the several hundred sent meanwhile, and
/// those that wait for it. So many are a minute's.
const LOOKS_MAX: usize = 100;

/// How many copies the IP stack has sent, or was to send.
fn by_the_stack(net: &Net) -> usize {
    let output = namespaced(&net.near, "nft", &["-j", "list", "chain", "inet", "stack", "out"]).output().unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rules = value["nftables"].as_array().unwrap().iter();
    let mut expressions = rules.filter_map(|object| object["rule"]["expr"].as_array()).flatten();
    let packets = expressions.find_map(|expression| expression["counter"]["packets"].as_u64());
    packets.unwrap() as usize
}

/// Sends datagrams to 10.9.0.1:5000, each with its number from `from` on, a millisecond apart.
fn numbered(net: &Net, from: u32, count: u32) {
    let script = format!(
        "import socket, struct, time\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.9.0.2', 4000))\n\
         for i in range({from}, {from} + {count}):\n    s.sendto(struct.pack('>I', i) * 20, ('10.9.0.1', 5000))\n    \
         time.sleep(0.001)\n"
    );
    python(&net.far, &script);
}

/// Waits until so many copies are sent or skipped.
#[track_caller]
fn until_settled(dir: &Dir, copies: u64) {
    let settled = || {
        let status = status(dir);
        let counts = &status["mirror"]["sessions"][0]["ingress"];
        let skipped = counts["skipped"].as_object().unwrap().values().map(|volume| volume["packets"].as_u64().unwrap());
        counts["mirrored"]["packets"].as_u64().unwrap() + skipped.sum::<u64>() == copies
    };
    assert!(comes_true(settled), "{}", status(dir));
}

/// Sends four hundred, numbered from `first` on, and waits until all so far are done with.
#[track_caller]
fn settled(net: &Net, dir: &Dir, first: u32) {
    numbered(net, first, 400);
    until_settled(dir, u64::from(first) + 400);
}

/// Sends one after another, numbered from `first` on, until one goes past the IP stack, and answers how many that took.
#[track_caller]
fn until_past_the_stack(net: &Net, dir: &Dir, first: u32) -> u32 {
    let mut sent = 0;
    let goes_past = comes_true(|| {
        let before = by_the_stack(net);
        numbered(net, first + sent, 1);
        sent += 1;
        until_settled(dir, u64::from(first + sent));
        by_the_stack(net) == before
    });
    assert!(goes_past, "the IP stack has sent all {sent}");
    sent
}

/// The numbers of those that arrived, in their order.
fn numbers(frames: &[Vec<u8>]) -> Vec<u32> {
    let mut receiver = Receiver::new(1514);
    frames.iter().for_each(|frame| receiver.take(frame, 4789));
    receiver.assert_content();
    // Ethernet, IPv4 and UDP have 42 bytes.
    receiver.copies().iter().map(|copy| u32::from_be_bytes(copy.inner[42..46].try_into().unwrap())).collect()
}

/// Whether a frame is for UDP port 4789.
fn is_copy(frame: &[u8]) -> bool {
    let port_at = if frame[12..14] == [8, 0] { 36 } else { 56 };
    frame.get(port_at..port_at + 2) == Some(&4789_u16.to_be_bytes())
}

#[test]
fn both_ways_give_the_same_bytes() {
    for target in ["10.83.0.2", "fd83::2"] {
        let Some((net, collector)) = Collector::new(1600) else { return };
        collector.add_ipv6(&net);
        if !nftables(&net.near, COUNT) {
            return;
        }
        let dir = Dir::new();
        let daemon = start("pcap", &net, &dir, &ALL.replace("10.83.0.2", target));
        let _listener = hear(&net.near, &[5000]);
        let capture = collector.capture(&dir);
        net.send(1000, 2000);
        until_settled(&dir, 1000);
        let stack = by_the_stack(&net);
        assert!((2..=LOOKS_MAX).contains(&stack), "{stack} by the IP stack");
        // Not what the device says of itself in IPv6.
        let mut frames: Vec<_> = capture.frames().into_iter().filter(|frame| is_copy(frame)).collect();
        assert_eq!(frames.len(), 1000);
        // The datagrams are the same but for the identification and the checksum of their IPv4 headers, of which one
        // makes up for the other in the checksum around them.
        for frame in &mut frames {
            let inner_at = if frame[12..14] == [8, 0] { 50 } else { 70 };
            for at in [4, 5, 10, 11] {
                frame[inner_at + 14 + at] = 0;
            }
        }
        let other = frames.iter().find(|frame| **frame != frames[0]);
        assert_eq!(other, None, "differs from {:?}", frames[0]);
        assert_eq!(ledger(&dir).mirrored.0, 1000);
        assert_eq!(daemon.finish().sum("dstport=4789").0, 0, "copies are not logged");
    }
}

#[test]
fn another_neighbour_is_addressed_at_once_and_nothing_overtakes() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    if !nftables(&net.near, COUNT) {
        return;
    }
    let dir = Dir::new();
    let daemon = start("pcap", &net, &dir, ALL);
    let _listener = hear(&net.near, &[5000]);
    let capture = collector.capture(&dir);
    let others = ["02:00:00:00:83:03", "02:00:00:00:83:04"];
    settled(&net, &dir, 0);
    for (turn, other) in (1..).zip(others) {
        inside(&net.near, "ip", &["neigh", "replace", "10.83.0.2", "lladdr", other, "dev", "out0", "nud", "permanent"]);
        settled(&net, &dir, turn * 400);
    }
    let stack = by_the_stack(&net);
    assert!((3..=LOOKS_MAX).contains(&stack), "{stack} by the IP stack");
    let frames = capture.frames();
    assert_eq!(numbers(&frames), (0..1200).collect::<Vec<_>>());
    for (part, ether) in frames.chunks(400).zip([IDS_ETHER].into_iter().chain(others)) {
        let ether: Vec<_> = ether.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        assert!(part.iter().all(|frame| frame[..6] == ether[..]), "not to {ether:?}");
    }
    assert_eq!(ledger(&dir).skipped.0, 0);
    drop(daemon);
}

#[test]
fn no_frame_is_sent_to_a_neighbour_that_does_not_answer() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    if !nftables(&net.near, COUNT) {
        return;
    }
    let neighbour = |state: &[&str]| {
        let known = ["neigh", "replace", "10.83.0.2", "dev", "out0"];
        inside(&net.near, "ip", &[&known[..], state].concat());
    };
    neighbour(&["lladdr", IDS_ETHER, "nud", "reachable"]);
    let dir = Dir::new();
    let daemon = start("pcap", &net, &dir, ALL);
    let _listener = hear(&net.near, &[5000]);
    let capture = collector.capture(&dir);
    settled(&net, &dir, 0);
    let before = by_the_stack(&net);
    assert!((1..=LOOKS_MAX).contains(&before), "{before} by the IP stack");

    // The collector does not say any more that it is there.
    inside(&collector.namespace, "ip", &["link", "set", "ids0", "arp", "off"]);
    neighbour(&["nud", "failed"]);
    settled(&net, &dir, 400);
    assert_eq!(by_the_stack(&net) - before, 400, "all go by the IP stack, which tells what becomes of them");

    // It says so again, and some seconds later frames go there.
    inside(&collector.namespace, "ip", &["link", "set", "ids0", "arp", "on"]);
    inside(&net.near, "ping", &["-c", "1", "-W", "60", "10.83.0.2"]);
    let probes = until_past_the_stack(&net, &dir, 800);
    let before = by_the_stack(&net);
    settled(&net, &dir, 800 + probes);
    assert!(by_the_stack(&net) - before <= LOOKS_MAX, "frames again");
    let frames = capture.frames();
    let arrived: Vec<_> = frames.into_iter().filter(|frame| is_copy(frame)).collect();
    let numbers = numbers(&arrived);
    assert!(numbers.is_sorted(), "nothing overtakes");
    assert_eq!(numbers.iter().filter(|number| **number < 400).count(), 400);
    assert_eq!(numbers.iter().filter(|number| **number >= 800).count(), 400 + probes as usize);
    ledger(&dir);
    drop(daemon);
}

#[test]
fn a_choice_of_routers_is_left_to_the_ip_stack() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    if !nftables(&net.near, COUNT) {
        return;
    }
    for router in ["10.83.0.7", "10.83.0.8"] {
        let known = ["neigh", "replace", router, "lladdr", IDS_ETHER, "dev", "out0", "nud", "permanent"];
        inside(&net.near, "ip", &known);
    }
    let route = |ways: &str| {
        let words = format!("route replace 10.83.0.2/32 {ways}");
        inside(&net.near, "ip", &words.split(' ').collect::<Vec<_>>());
    };
    route("nexthop via 10.83.0.7 dev out0 nexthop via 10.83.0.8 dev out0");
    let dir = Dir::new();
    let daemon = start("pcap", &net, &dir, ALL);
    let _listener = hear(&net.near, &[5000]);
    let capture = collector.capture(&dir);
    settled(&net, &dir, 0);
    assert_eq!(by_the_stack(&net), 400, "all by the IP stack, which chooses");

    // One router is no choice: some seconds later frames go there, until there is a choice again.
    route("via 10.83.0.7 dev out0");
    let first = 400 + until_past_the_stack(&net, &dir, 400);
    let before = by_the_stack(&net);
    settled(&net, &dir, first);
    let looks = by_the_stack(&net) - before;
    assert!(looks <= LOOKS_MAX, "{looks} by the IP stack");
    route("nexthop via 10.83.0.7 dev out0 nexthop via 10.83.0.8 dev out0");
    let before = by_the_stack(&net);
    settled(&net, &dir, first + 400);
    assert_eq!(by_the_stack(&net) - before, 400, "all by the IP stack again, at once");
    assert_eq!(numbers(&capture.frames()), (0..first + 800).collect::<Vec<_>>());
    assert_eq!(ledger(&dir).skipped.0, 0);
    drop(daemon);
}

#[test]
fn what_a_firewall_refuses_is_not_sent_past_it() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    if !nftables(&net.near, &COUNT.replace("counter", "counter drop")) {
        return;
    }
    let dir = Dir::new();
    let daemon = start("pcap", &net, &dir, ALL);
    let _listener = hear(&net.near, &[5000]);
    let capture = collector.capture(&dir);
    numbered(&net, 0, 1000);
    until_settled(&dir, 1000);
    assert_eq!(capture.frames().len(), 0);
    let refused = status(&dir)["mirror"]["sessions"][0]["ingress"]["skipped"]["refused"]["packets"].as_u64();
    assert_eq!(refused, Some(1000));
    drop(daemon);
}
