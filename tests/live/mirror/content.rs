//! What the collector's own kernel takes out of the copies: the originals.

use flowtap_tests::Dir;

use super::super::daemon::in_each_plane;
use super::super::net::{hear, inside};
use super::{ALL, Capture, Collector, ledger, start, until_quiet};

#[test]
fn the_kernels_own_device_receives_the_originals() {
    in_each_plane(decapsulated);
}

fn decapsulated(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    net.add_ipv6();
    net.without_offloads();
    let device = "ip link add vx0 type vxlan id 4242 local 10.83.0.2 dev ids0 dstport 4789 nolearning; \
                  ip link set vx0 up";
    inside(&collector.namespace, "sh", &["-ec", device]);
    let dir = Dir::new();
    let daemon = start(plane, &net, &dir, ALL);
    let _listener = hear(&net.near, &[5000]);
    until_quiet(&net);
    let originals = Capture::start(&net.near, "near0", &[], &dir);
    let copies = Capture::start(&collector.namespace, "vx0", &["-Q", "in"], &dir);
    // One processor, so that order can be judged.
    inside(&net.far, "taskset", &["-c", "0", "python3", "-c", SENDER]);
    for address in ["10.9.0.1", "fd09::1"] {
        inside(&net.far, "taskset", &["-c", "0", "ping", "-c", "5", "-i", "0.01", "-s", "200", address]);
    }
    let (originals, copies) = (originals.frames(), copies.frames());
    // Each way on its own, in order; the receiving device does not say how both were mixed.
    for ether in [[2, 0, 0, 0, 9, 1], [2, 0, 0, 0, 9, 2]] {
        let from = |frames: &[Vec<u8>]| -> Vec<Vec<u8>> {
            frames.iter().filter(|frame| frame[6..12] == ether).cloned().collect()
        };
        let (sent, received) = (from(&originals), from(&copies));
        assert!(sent.len() >= 10, "{}", sent.len());
        assert_eq!(sent.len(), received.len(), "from {ether:?}");
        assert!(sent == received, "from {ether:?}");
    }
    assert_eq!(copies.iter().filter(|frame| frame[12..16] == [0x81, 0, 0, 7]).count(), 20, "tags are kept");
    ledger(&dir);
    assert_eq!(daemon.finish().sum("dstport=4789"), (0, 0));
}

/// Numbered datagrams over both address families, and tagged frames.
pub(super) const SENDER: &str = "import socket, struct
for family, to in ((socket.AF_INET, '10.9.0.1'), (socket.AF_INET6, 'fd09::1')):
    s = socket.socket(family, socket.SOCK_DGRAM); s.bind(('', 4000))
    for i in range(50): s.sendto(struct.pack('>I', i) + bytes(20 * i), (to, 5000))
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('far0', 0))
for i in range(20):
    data = struct.pack('!4H', 4000, 5000, 28, 0) + bytes([i]) * 20
    ip = struct.pack('!2B3H2BH', 0x45, 0, 48, i, 0, 64, 17, 0) + bytes([10, 9, 0, 2, 10, 9, 0, 1])
    words = sum(struct.unpack('!10H', ip)); words = (words & 0xffff) + (words >> 16); words = (words & 0xffff) + (words >> 16)
    ip = ip[:10] + struct.pack('!H', words ^ 0xffff) + ip[12:]
    s.send(bytes.fromhex('020000000901020000000902') + struct.pack('!HHH', 0x8100, 7, 0x0800) + ip + data)
";
