//! A run that is killed: nobody is left to take its programs away, so the kernel must.

use flowtap_tests::Dir;
use flowtap_tests::mirror::Receiver;

use super::super::net::{Net, comes_true, hear, inside, must, namespaced};
use super::{ALL, Collector, start};

#[test]
fn copies_end_with_a_run_that_is_killed_and_the_next_one_makes_them_again() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    let (killed, next) = (Dir::new(), Dir::new());
    let mut daemon = start("ebpf", &net, &killed, ALL);
    let capture = collector.capture(&killed);
    net.send(10, 0);
    must("kill", &["-KILL", &daemon.pid()]);
    daemon.wait();
    // The kernel takes away what nobody holds in its own time.
    assert!(comes_true(|| !copies_a_ping(&net)), "nobody takes the programs away");
    net.send(20, 0);
    assert_eq!(datagrams(&capture.receiver(1514)), 10);

    let daemon = start("ebpf", &net, &next, ALL);
    let capture = collector.capture(&next);
    net.send(30, 0);
    assert_eq!(capture.receiver(1514).copies().len(), 30);
    assert_eq!(daemon.finish().sum("dstport=5000").0, 30);
    let devices = namespaced(&net.near, "ip", &["link"]).output().unwrap();
    let devices = String::from_utf8(devices.stdout).unwrap();
    assert!(!devices.contains(": flowtap-"), "nothing is left of either: {devices}");
}

/// Whether something is sent to the collector meanwhile. The kernel copies a packet before it takes it.
fn copies_a_ping(net: &Net) -> bool {
    let sent = || {
        let count = "/sys/class/net/out0/statistics/tx_packets";
        namespaced(&net.near, "cat", &[count]).output().unwrap().stdout
    };
    let before = sent();
    inside(&net.far, "ping", &["-c", "1", "-W", "60", "10.9.0.1"]);
    sent() != before
}

/// How many copies are of UDP.
fn datagrams(receiver: &Receiver) -> usize {
    receiver.copies().iter().filter(|copy| copy.inner[23] == 17).count()
}

#[test]
fn what_a_killed_run_cut_is_whole_again() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    let (killed, next) = (Dir::new(), Dir::new());
    let mut daemon = start("ebpf", &net, &killed, &format!("{ALL}packet-length = 100\n"));
    must("kill", &["-KILL", &daemon.pid()]);
    daemon.wait();

    let daemon = start("ebpf", &net, &next, ALL);
    let capture = collector.capture(&next);
    net.send(30, 0);
    // What is cut is refused there: it is shorter than it says.
    assert_eq!(capture.receiver(1514).copies().len(), 30);
    drop(daemon);
}
