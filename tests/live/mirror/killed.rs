//! A run that is killed: nobody is left to take its programs away, so the kernel must.

use std::thread::sleep;
use std::time::Duration;

use flowtap_tests::Dir;

use super::super::net::{hear, must, namespaced};
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
    sleep(Duration::from_secs(1));
    net.send(20, 0);
    assert_eq!(capture.receiver(1514).copies().len(), 10);

    let daemon = start("ebpf", &net, &next, ALL);
    let capture = collector.capture(&next);
    net.send(30, 0);
    assert_eq!(capture.receiver(1514).copies().len(), 30);
    assert_eq!(daemon.finish().sum("dstport=5000").0, 30);
    let devices = namespaced(&net.near, "ip", &["link"]).output().unwrap();
    let devices = String::from_utf8(devices.stdout).unwrap();
    assert!(!devices.contains(": flowtap-"), "nothing is left of either: {devices}");
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
