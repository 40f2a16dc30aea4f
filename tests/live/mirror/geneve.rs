//! Copies in GENEVE (RFC 8926), and the kernel's own device at the other end.
//!
//! The kernel plane needs a kernel that has the device.

use flowtap_tests::Dir;

use super::super::daemon::in_each_plane;
use super::super::net::{Net, hear, inside, namespaced};
use super::content::SENDER;
use super::transfer::{PLAIN, Transfer};
use super::{ALL, Capture, Collector, GENEVE_PORT, ledger, start, until_quiet};

#[test]
fn geneve_carries_the_frame_as_it_is() {
    in_each_plane(frames);
}

fn frames(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    if is_missing(plane, &net) {
        return;
    }
    net.add_ipv6();
    net.without_offloads();
    let dir = Dir::new();
    let daemon = start(plane, &net, &dir, &geneve());
    let _listeners = (hear(&net.near, &[5000]), hear(&collector.namespace, &[GENEVE_PORT]));
    until_quiet(&net);
    let originals = Capture::start(&net.near, "near0", &[], &dir);
    let copies = collector.capture(&dir);
    send(&net);
    let (originals, receiver) = (originals.frames(), copies.receiver_at(GENEVE_PORT, 1518));
    receiver.assert_content();
    let copies = receiver.copies();
    assert!(copies.iter().all(|copy| copy.vni == 4242));
    assert_eq!(copies.iter().filter(|copy| copy.inner[12..16] == [0x81, 0, 0, 7]).count(), 20, "tags are kept");
    let copies: Vec<_> = copies.iter().map(|copy| copy.inner.clone()).collect();
    assert_each_way(&originals, &copies);
    assert_eq!(ledger(&dir).mirrored.0, copies.len() as u64);
    assert_eq!(daemon.finish().sum("dstport=6081"), (0, 0));
}

#[test]
fn the_kernels_own_geneve_device_receives_the_originals() {
    in_each_plane(decapsulated);
}

fn decapsulated(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    // This time the other end needs it as well.
    if is_missing("ebpf", &net) {
        return;
    }
    net.add_ipv6();
    net.without_offloads();
    let device = "ip link add gnv0 type geneve id 4242 remote 10.83.0.1 dstport 6081; ip link set gnv0 up";
    inside(&collector.namespace, "sh", &["-ec", device]);
    let dir = Dir::new();
    let daemon = start(plane, &net, &dir, &geneve());
    let _listener = hear(&net.near, &[5000]);
    until_quiet(&net);
    let originals = Capture::start(&net.near, "near0", &[], &dir);
    let copies = Capture::start(&collector.namespace, "gnv0", &["-Q", "in"], &dir);
    send(&net);
    assert_each_way(&originals.frames(), &copies.frames());
    ledger(&dir);
    assert_eq!(daemon.finish().sum("dstport=6081"), (0, 0));
}

#[test]
fn a_large_transfer_arrives_in_geneve() {
    in_each_plane(|plane| transfer_in_geneve(plane, &geneve()));
}

#[test]
fn a_large_transfer_arrives_in_geneve_over_ipv6() {
    in_each_plane(|plane| transfer_in_geneve(plane, &geneve().replace("10.83.0.2", "fd83::2")));
}

fn transfer_in_geneve(plane: &str, config: &str) {
    let Some(net) = Net::new() else { return };
    if !is_missing(plane, &net) {
        Transfer { config, port: GENEVE_PORT, ..PLAIN }.passes(plane);
    }
}

/// Mirrors everything at `near0`, in GENEVE.
fn geneve() -> String {
    ALL.replace("address = \"10.83.0.2\"", "address = \"10.83.0.2\"\nencapsulation = \"geneve\"")
}

/// Datagrams of all sizes, tagged frames, and pings with their answers. One processor, so that order can be judged.
#[track_caller]
fn send(net: &Net) {
    inside(&net.far, "taskset", &["-c", "0", "python3", "-c", SENDER]);
    for address in ["10.9.0.1", "fd09::1"] {
        inside(&net.far, "taskset", &["-c", "0", "ping", "-c", "5", "-i", "0.01", "-s", "200", address]);
    }
}

/// The same frames in the same order, each way on its own.
#[track_caller]
fn assert_each_way(originals: &[Vec<u8>], copies: &[Vec<u8>]) {
    for ether in [[2, 0, 0, 0, 9, 1], [2, 0, 0, 0, 9, 2]] {
        let from = |frames: &[Vec<u8>]| -> Vec<Vec<u8>> {
            frames.iter().filter(|frame| frame[6..12] == ether).cloned().collect()
        };
        let (sent, received) = (from(originals), from(copies));
        assert!(sent.len() >= 10, "{}", sent.len());
        assert_eq!(sent.len(), received.len(), "from {ether:?}");
        assert!(sent == received, "from {ether:?}");
    }
}

/// Whether that plane lacks the device; says so aloud.
fn is_missing(plane: &str, net: &Net) -> bool {
    if plane != "ebpf" {
        return false;
    }
    let made = ["link", "add", "gnv1", "type", "geneve", "external", "dstport", "6082"];
    let is_missing = !namespaced(&net.near, "ip", &made).output().is_ok_and(|output| output.status.success());
    if is_missing {
        eprintln!("skipped: needs a kernel that has geneve devices");
    } else {
        inside(&net.near, "ip", &["link", "del", "gnv1"]);
    }
    is_missing
}
