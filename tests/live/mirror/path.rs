//! Paths that full frames do not fit, and frames that are cut.

use flowtap_tests::Dir;

use super::super::daemon::in_each_plane;
use super::super::net::{datagrams, hear, inside};
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
