//! Paths that full frames do not fit, and frames that are cut.

use std::thread::sleep;
use std::time::Duration;

use flowtap_tests::Dir;

use super::super::daemon::in_each_plane;
use super::super::net::{Net, datagrams, hear, inside};
use super::{ALL, Collector, ledger, start};

#[test]
fn a_path_too_small_is_told_and_frames_arrive_whole_or_not_at_all() {
    in_each_plane(too_small);
}

fn too_small(plane: &str) {
    for (mtu, too_big) in [(1400, "fragment"), (1500, "fragment"), (1400, "skip"), (1500, "skip")] {
        let Some((net, collector)) = Collector::new(mtu) else { return };
        let dir = Dir::new();
        let daemon = start(plane, &net, &dir, &format!("{ALL}too-big = \"{too_big}\"\n"));
        let _listener = hear(&net.near, &[5000]);
        let capture = collector.capture(&dir);
        // Full frames of 1514 bytes, then small ones of 142.
        datagrams(&net.far, "10.9.0.1", 5000, 20, 1472);
        datagrams(&net.far, "10.9.0.1", 5000, 30, 100);
        let receiver = capture.receiver(1514);
        receiver.assert_content();
        let of = |bytes| receiver.copies().iter().filter(|copy| copy.inner.len() == bytes).count();
        let ledger = ledger(&dir);
        assert_eq!(ledger.matched.0, 50);
        match too_big {
            "fragment" => {
                assert_eq!((of(1514), of(142), receiver.outer_fragments()), (20, 30, 40));
                assert_eq!((ledger.mirrored.0, ledger.fragmented), (50, 20));
            }
            _ => {
                assert_eq!((of(1514), of(142), receiver.outer_fragments()), (0, 30, 0));
                assert_eq!((ledger.mirrored.0, ledger.too_big), (30, 20));
            }
        }
        // 1500 bytes, an Ethernet header, and 36 bytes of outer headers.
        let log = daemon.log();
        let told = log.lines().any(|line| line.contains(&mtu.to_string()) && line.contains("1550"));
        assert!(told, "{log}");
        assert_eq!(daemon.finish().sum("dstport=5000").0, 50);
    }
}

/// The interface that is tapped says what full frames are, and not what is usual.
#[test]
fn a_path_is_held_against_the_interface_that_is_tapped() {
    in_each_plane(held_against_the_tap);
}

fn held_against_the_tap(plane: &str) {
    let begin = |tap_mtu: &str, path_mtu: u32| -> Option<(Net, Collector)> {
        let (net, collector) = Collector::new(path_mtu)?;
        inside(&net.near, "ip", &["link", "set", "near0", "mtu", tap_mtu]);
        Some((net, collector))
    };
    let words = "the path to mirror target `ids` has an MTU of ";
    let Some((net, collector)) = begin("9000", 1600) else { return };
    let dir = Dir::new();
    let mut daemon = start(plane, &net, &dir, ALL);
    let told = "has an MTU of 1600 bytes, and copies of full frames of near0 (MTU 9000) need 9050: they are sent in outer \
                fragments";
    daemon.until(|log| log.contains(told));
    let resize = |mtu: &str| {
        inside(&collector.namespace, "ip", &["link", "set", "ids0", "mtu", mtu]);
        inside(&net.near, "ip", &["link", "set", "out0", "mtu", mtu]);
    };
    resize("9049");
    daemon
        .until(|log| log.contains("has an MTU of 9049 bytes, and copies of full frames of near0 (MTU 9000) need 9050"));
    resize("9050");
    // Only the thread says that all is well.
    if plane == "pcap" {
        daemon.until(|log| log.contains("has an MTU of 9050 bytes: copies of full frames of near0 fit again"));
        resize("9100");
        sleep(Duration::from_millis(2500));
        assert_eq!(daemon.log().matches(words).count(), 3, "{}", daemon.log());
    }
    daemon.finish();

    let Some((net, _collector)) = begin("1280", 1500) else { return };
    let dir = Dir::new();
    let daemon = start(plane, &net, &dir, ALL);
    sleep(Duration::from_millis(2500));
    assert!(!daemon.log().contains(words), "{}", daemon.log());
    daemon.finish();
}

#[test]
fn a_path_with_room_takes_the_largest_frames_whole() {
    in_each_plane(with_room);
}

fn with_room(plane: &str) {
    for (to, address) in [("10.83.0.2", "10.9.0.1"), ("fd83::2", "fd09::1")] {
        let Some((net, collector)) = Collector::new(9000) else { return };
        net.add_ipv6();
        collector.add_ipv6(&net);
        // As much as fits: an Ethernet header of 14 bytes, and outer headers of 56 over IPv6, of 36 over IPv4.
        for (namespace, device) in [(&net.near, "near0"), (&net.far, "far0")] {
            inside(namespace, "ip", &["link", "set", device, "mtu", "8930"]);
        }
        let dir = Dir::new();
        let daemon = start(plane, &net, &dir, &ALL.replace("10.83.0.2", to));
        let _listener = hear(&net.near, &[5000]);
        let capture = collector.capture(&dir);
        let header_bytes = if address == "fd09::1" { 48 } else { 28 };
        datagrams(&net.far, address, 5000, 20, 8930 - header_bytes);
        let receiver = capture.receiver(14 + 8930);
        receiver.assert_content();
        let full = receiver.copies().iter().filter(|copy| copy.inner.len() == 14 + 8930).count();
        assert_eq!((full, receiver.outer_fragments()), (20, 0));
        let ledger = ledger(&dir);
        assert_eq!((ledger.fragmented, ledger.skipped.0), (0, 0));
        assert_eq!(daemon.finish().sum("dstport=5000").0, 20);
    }
}

#[test]
fn a_packet_length_cuts_every_frame_to_it() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let dir = Dir::new();
    let daemon = start("ebpf", &net, &dir, &format!("{ALL}packet-length = 100\n"));
    let check = dir.flowtap(&["check", "m.toml"]);
    let words = format!("{}{}", String::from_utf8_lossy(&check.stdout), check.stderr);
    assert!(words.contains("`packet-length = 100` cuts every longer frame"), "{words}");
    let _listener = hear(&net.near, &[5000]);
    let capture = collector.capture(&dir);
    datagrams(&net.far, "10.9.0.1", 5000, 20, 1472);
    let receiver = capture.receiver(0);
    let lengths: Vec<_> = receiver.copies().iter().map(|copy| copy.inner.len()).collect();
    assert_eq!(lengths, [100; 20]);
    ledger(&dir);
    assert_eq!(daemon.finish().sum("dstport=5000").0, 20);
}
