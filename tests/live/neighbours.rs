//! The daemon beside others: other daemons, other programs of the kernel, interfaces that it doesn't watch.

use std::io::{BufRead, BufReader, Write};
use std::thread::sleep;
use std::time::Duration;

use flowtap_tests::Dir;

use super::daemon::{DATAGRAM_BYTES, Daemon, PLANES, in_both_planes, udp};
use super::net::{Beyond, Net, bpf, comes_true, datagrams, hear, inside, must, namespaced, nftables, until_ready};

#[test]
fn two_daemons_on_one_interface_count_everything_each() {
    let Some(net) = Net::new() else { return };
    let _listener = net.listener();
    for plane in PLANES {
        let dirs = [Dir::new(), Dir::new()];
        let [first, second] =
            dirs.each_ref().map(|dir| Daemon::start_in(plane, &net, dir, &["-i", "near0", "--interval", "60s"]));
        net.send(500, 0);
        sleep(Duration::from_millis(200));
        let counts = udp(&first.stop());
        // One that goes takes nothing with it.
        net.send(300, 0);
        sleep(Duration::from_millis(200));
        assert_eq!(counts, (500, 500 * DATAGRAM_BYTES), "{plane}");
        assert_eq!(udp(&second.stop()), (800, 800 * DATAGRAM_BYTES), "{plane}");
    }
}

#[test]
fn programs_that_were_there_first_stay_and_run() {
    let Some(net) = Net::new() else { return };
    // A filter of tc whose action counts, by mirroring to a device that throws everything away.
    let ready = "ip link add ifb0 type ifb && ip link set ifb0 up && tc qdisc add dev near0 clsact && \
        for way in ingress egress; do tc filter add dev near0 $way prio 5 protocol ip u32 match u32 0 0 \
        action mirred egress mirror dev ifb0 || exit; done";
    if !namespaced(&net.near, "sh", &["-c", ready]).status().unwrap().success() {
        eprintln!("skipped: needs tc with u32, mirred and ifb");
        return;
    }
    net.introduce();
    let _listener = net.listener();
    let mut counter = until_ready(&mut bpf(&net.near, &["count", "near0"]));
    let received_before = received(&net);
    let filters_before = filters(&net, false);
    net.send(100, 0);
    for (plane, programs) in PLANES.into_iter().zip([["2", "1"], ["1", "0"]]) {
        let dir = Dir::new();
        let daemon = Daemon::start_in(plane, &net, &dir, &["-i", "near0", "--interval", "60s"]);
        assert_eq!(linked(&net), programs, "{plane}");
        net.send(200, 0);
        sleep(Duration::from_millis(200));
        assert_eq!(udp(&daemon.stop()), (200, 200 * DATAGRAM_BYTES), "{plane}");
        assert_eq!(linked(&net), ["1", "0"], "{plane}");
        assert_eq!(filters(&net, false), filters_before, "{plane}");
    }
    net.send(50, 0);
    // The filter saw all that is IPv4.
    let seen = filters(&net, true);
    assert!(seen.contains(&format!("Sent {} bytes 550 pkt", 550 * DATAGRAM_BYTES)), "{seen}");
    writeln!(counter.0.stdin.as_mut().unwrap()).unwrap();
    let mut count = String::new();
    let lines = BufReader::new(counter.0.stdout.as_mut().unwrap()).lines();
    lines.map_while(Result::ok).for_each(|line| count = line);
    assert_eq!(count.parse::<u64>().unwrap(), received(&net) - received_before, "the program counted every frame");
}

/// The filters of tc on the way in, with or without what they counted.
fn filters(net: &Net, with_counts: bool) -> String {
    let counts: &[&str] = if with_counts { &["-s"] } else { &[] };
    let shown = namespaced(&net.near, "tc", &[counts, &["filter", "show", "dev", "near0", "ingress"]].concat());
    String::from_utf8({ shown }.output().unwrap().stdout).unwrap()
}

/// How many programs are linked to the near interface, ingress and egress.
fn linked(net: &Net) -> Vec<String> {
    let output = bpf(&net.near, &["programs", "near0"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn received(net: &Net) -> u64 {
    let output = namespaced(&net.near, "cat", &["/sys/class/net/near0/statistics/rx_packets"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn a_killed_daemon_leaves_no_program_behind() {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let _listener = net.listener();
    let arguments = ["-i", "near0", "--interval", "2s"];
    let mut daemon = Daemon::start_in("ebpf", &net, &dir, &arguments);
    // With the second, how far the first came is noted.
    daemon.until(|log| log.matches("published").count() >= 2);
    assert_eq!(linked(&net), ["1", "1"]);
    // It publishes nothing more, and ends by SIGKILL: those forty are in the open interval.
    must("kill", &["-STOP", &daemon.pid()]);
    net.send(40, 0);
    drop(daemon);
    assert!(comes_true(|| linked(&net) == ["0", "0"]), "{:?}", linked(&net));
    sleep(Duration::from_millis(1100));
    let daemon = Daemon::start_in("ebpf", &net, &dir, &arguments);
    assert_eq!(linked(&net), ["1", "1"]);
    net.send(30, 0);
    sleep(Duration::from_millis(100));
    let rows = daemon.stop();
    assert_eq!(linked(&net), ["0", "0"]);
    assert_eq!(udp(&rows), (30, 30 * DATAGRAM_BYTES), "what was in the kernel is gone, and told");
    let gaps: Vec<_> = rows.iter().filter(|row| row.status == "SKIPDATA").collect();
    let [gap] = gaps[..] else { panic!("{gaps:?}") };
    let last_end = rows.iter().filter(|row| row.end < gap.start).map(|row| row.end).max().unwrap();
    assert!(gap.start <= last_end + 2 && gap.end >= gap.start, "from the last that was published: {last_end} {gap:?}");
}

#[test]
fn what_is_not_watched_is_not_counted() {
    let Some(net) = Net::new() else { return };
    net.add_ipv6();
    let beyond = Beyond::new(&net);
    let rules = "table inet test { chain input { type filter hook input priority 0; udp dport 5001 drop; }; }";
    if !nftables(&net.near, rules) {
        return;
    }
    let _listeners = [hear(&net.near, &[5000]), hear(&beyond.namespace, &[5002])];
    let recorded = in_both_planes(&net, &["-i", "near0", "--interval", "60s"], || {
        // Over the other interface: let in, turned away, sent.
        datagrams(&beyond.namespace, "10.8.0.1", 5000, 5, 100);
        datagrams(&beyond.namespace, "10.8.0.1", 5001, 5, 100);
        datagrams(&net.near, "10.8.0.2", 5002, 5, 100);
        inside(&net.near, "ping", &["-c", "1", "-W", "5", "127.0.0.1"]);
        datagrams(&net.far, "10.9.0.1", 5000, 3, 100);
    });
    for (plane, records) in recorded {
        let rows = records.by("protocol=17", "interface-id srcaddr dstport action");
        assert_eq!(rows, ["near0 10.9.0.2 5000 ACCEPT 3 384"], "{plane}");
        assert_eq!(records.by("protocol=1", "interface-id"), [""; 0], "{plane}");
    }
}
