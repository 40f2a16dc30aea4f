//! Interfaces without Ethernet headers.

use flowtap_tests::Dir;

use super::super::daemon::in_each_plane;
use super::super::net::{hear, inside, python};
use super::{ALL, Collector, ledger, start};

#[test]
fn packets_of_a_tun_device_arrive_with_an_ethernet_header() {
    in_each_plane(tunnelled);
}

fn tunnelled(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let device = "test -c /dev/net/tun && ip tuntap add mode tun name tun5 && ip addr add 10.87.0.1/24 dev tun5 && \
                  ip link set tun5 up || echo skipped: needs /dev/net/tun";
    inside(&net.near, "sh", &["-c", device]);
    let dir = Dir::new();
    let daemon = start(plane, &net, &dir, &ALL.replace("near0", "tun5"));
    let _listeners = (hear(&net.near, &[5000]), hear(&collector.namespace, &[4789]));
    let capture = collector.capture(&dir);
    let sent = python(&net.near, TALK);
    let receiver = capture.receiver(1514);
    receiver.assert_content();
    let expected: Vec<Vec<u8>> = sent.lines().map(unhex).collect();
    assert_eq!(expected.len(), 40);
    let mut arrived: Vec<_> = receiver.copies().iter().map(|copy| copy.inner.clone()).collect();
    assert_eq!(arrived.len(), 40);
    // Both directions, whichever came first.
    arrived.sort();
    let mut expected: Vec<_> = expected.iter().map(|packet| [&HEADER[..], packet].concat()).collect();
    expected.sort();
    assert!(arrived == expected);
    let counts = ledger(&dir);
    let bytes: usize = expected.iter().map(Vec::len).sum();
    assert_eq!((counts.mirrored, counts.skipped), ((40, bytes as u64), (0, 0)));
    assert_eq!(daemon.finish().sum("dstport=5000").0, 20);
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Locally administered addresses, and IPv4.
const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];

/// Twenty datagrams come in by the device, and twenty go out; all are told in hexadecimal digits.
const TALK: &str = "import fcntl, os, signal, socket, struct, subprocess, time
signal.alarm(60)
tun = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH22x', b'tun5', 0x1001))
# Until the kernel knows that somebody holds the device it drops what goes out.
while open('/sys/class/net/tun5/operstate').read() != 'up\\n': time.sleep(0.01)
# It says so a moment before, and lets nobody else at its devices meanwhile.
subprocess.run(['ip', 'link', 'set', 'tun5', 'up'], check=True)
def checked(parts):
    data = b''.join(parts); data += bytes(len(data) % 2)
    words = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while words >> 16: words = (words & 0xffff) + (words >> 16)
    return words ^ 0xffff
for i in range(20):
    src, dst = bytes([10, 87, 0, 2]), bytes([10, 87, 0, 1])
    data = bytes([i]) * (20 * i + 1)
    udp = struct.pack('!3H', 4000, 5000, 8 + len(data))
    sum_ = checked([src, dst, struct.pack('!HH', 17, 8 + len(data)), udp, bytes(2), data])
    ip = struct.pack('!2B3H2B', 0x45, 0, 28 + len(data), i, 0, 64, 17)
    ip += struct.pack('!H', checked([ip, bytes(2), src, dst])) + src + dst
    packet = ip + udp + struct.pack('!H', sum_) + data
    os.write(tun, packet); print(packet.hex())
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.87.0.1', 4001))
for i in range(20):
    s.sendto(bytes([i]) * 100, ('10.87.0.9', 7000))
    print(os.read(tun, 2000).hex())
";
