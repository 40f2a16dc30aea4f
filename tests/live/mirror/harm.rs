//! Mirroring must not harm the host: no loops, no way in, and nothing lost by what others do to it.

use flowtap_tests::Dir;
use flowtap_tests::program::flowtap;

use super::super::daemon::{Daemon, in_each_plane, status};
use super::super::net::{comes_true, hear, inside, must, namespaced, python, settles, tool, until_ready};
use super::{ALL, Collector, MIRRORED, ledger, start};

#[test]
fn own_copies_are_neither_mirrored_nor_logged() {
    in_each_plane(watches_its_underlay);
}

fn watches_its_underlay(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let dir = Dir::new();
    let config = ALL.replace("interface = \"near0\"", "interface = \"*\"");
    let daemon = start(plane, &net, &dir, &format!("{config}\n[[interface]]\nname = \"out0\"\n"));
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    let capture = collector.capture(&dir);
    net.send(100, 0);
    assert_eq!(capture.receiver(1514).copies().len(), 100);
    assert_eq!(ledger(&dir).mirrored.0, 100);
    let records = daemon.finish();
    assert_eq!((records.sum("dstport=4789").0, records.sum("dstport=5000").0), (0, 100));
}

#[test]
fn two_that_mirror_to_each_other_make_no_storm() {
    in_each_plane(face_each_other);
}

fn face_each_other(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let (dir, other) = (Dir::new(), Dir::new());
    let config = ALL.replace("interface = \"near0\"", "interface = \"*\"");
    let here = start(plane, &net, &dir, &format!("{config}\n[[interface]]\nname = \"out0\"\n"));
    other.add("m.toml", config.replace("near0", "ids0").replace("10.83.0.2", "10.83.0.1"));
    let command = namespaced(&collector.namespace, flowtap().to_str().unwrap(), &["run"]);
    let arguments = ["--config", "m.toml", "--capture", plane];
    let mut there = Daemon::launch(command, &other, other.path("logs"), &arguments);
    there.until(|log| log.contains(MIRRORED));
    let _listener = net.listener();
    net.send(100, 0);
    let passed = || ["rx_packets", "tx_packets"].map(|what| statistic(&collector.namespace, "ids0", what));
    comes_true(|| passed()[0] >= 100);
    let [received, sent] = settles(passed);
    // Each copy may be answered, and mirrored once by the other.
    assert!((100..=300).contains(&received) && sent <= 300, "{received} in, {sent} out");
    until_balanced(&dir);
    drop((here, there));
}

#[test]
fn three_that_mirror_to_each_other_in_a_ring_make_no_storm() {
    in_each_plane(ring);
}

fn ring(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let (near, ids, third) = (&*net.near, &*collector.namespace, net.near.replace("near", "third"));
    must("ip", &["netns", "add", &third]);
    let _third = Collector { namespace: third.clone() };
    for (from, from_device, to, to_device, network) in
        [(ids, "ids1", &*third, "third0", 84), (&third, "third1", near, "out1", 85)]
    {
        let cable =
            format!("link add {from_device} netns {from} mtu 1600 type veth peer name {to_device} netns {to} mtu 1600");
        must("ip", &cable.split_whitespace().collect::<Vec<_>>());
        for (namespace, device, end) in [(from, from_device, 1), (to, to_device, 2)] {
            let commands = format!("ip addr add 10.{network}.0.{end}/24 dev {device}; ip link set {device} up");
            inside(namespace, "sh", &["-ec", &commands]);
        }
        inside(from, "ping", &["-c", "1", "-w", "5", &format!("10.{network}.0.2")]);
    }
    let dirs = [Dir::new(), Dir::new(), Dir::new()];
    let config = ALL
        .replace("interface = \"near0\"", "interface = \"*\"")
        .replace("\"near0\"", "\"*0\"")
        .replace("[[mirror.target]]", "[[interface]]\nname = \"*1\"\n[[mirror.target]]");
    let hosts = [(near, "10.83.0.2"), (ids, "10.84.0.2"), (&*third, "10.85.0.2")];
    let mut daemons: Vec<_> = hosts
        .iter()
        .zip(&dirs)
        .map(|((namespace, target), dir)| {
            dir.add("m.toml", config.replace("10.83.0.2", target));
            let command = namespaced(namespace, flowtap().to_str().unwrap(), &["run"]);
            Daemon::launch(command, dir, dir.path("logs"), &["--config", "m.toml", "--capture", plane])
        })
        .collect();
    for (daemon, interfaces) in daemons.iter_mut().zip([3, 2, 2]) {
        daemon.until(|log| log.matches(MIRRORED).count() == interfaces);
    }
    let _listener = net.listener();
    let cables = [(ids, "ids0"), (&*third, "third0"), (near, "out1")];
    let passed = || cables.map(|(namespace, device)| statistic(namespace, device, "rx_packets"));
    let before = passed();
    net.send(100, 0);
    comes_true(|| passed()[0] >= before[0] + 100);
    let counts: Vec<_> = settles(passed).iter().zip(before).map(|(after, before)| after - before).collect();
    // Each copy may be answered, and what comes from another host is mirrored once, as traffic that it is.
    assert!((100..=500).contains(&counts[0]) && counts.iter().all(|count| *count <= 500), "{plane}: {counts:?}");
    dirs.iter().for_each(until_balanced);
    drop(daemons);
}

/// Waits until the books balance: hosts may still ask for each other's addresses, and such a frame may be matched while its
/// copy is on its way.
#[track_caller]
fn until_balanced(dir: &Dir) {
    let balances = || {
        let status = status(dir);
        status["balances"] == true && status["mirror"]["balances"] == true
    };
    assert!(comes_true(balances), "{}", status(dir));
}

/// What the kernel counts of a device.
#[track_caller]
fn statistic(namespace: &str, device: &str, what: &str) -> u64 {
    let output =
        namespaced(namespace, "cat", &[&format!("/sys/class/net/{device}/statistics/{what}")]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn nothing_comes_in_through_the_tunnel_device() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let dir = Dir::new();
    let count = "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.9.0.1', 5000))\n\
                 print('ready', flush=True); n = 0\n\
                 while s.recv(100) != b'end': n += 1\nsys.exit(10 + n)\n";
    let end = "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'end', ('10.9.0.1', 5000))\n";
    // Counts until it is told that no more come; those that are `let_in` must have come before.
    let received = |device: &str, let_in: u64| {
        let show = ["-c", &format!("cat /sys/class/net/{device}/address")];
        let output = namespaced(&net.near, "sh", &show).output().unwrap();
        let ether = String::from_utf8(output.stdout).unwrap().trim().replace(':', "");
        assert_eq!(ether.len(), 12, "{device} is there");
        let mut counter = until_ready(&mut namespaced(&net.near, "python3", &["-c", count]));
        let before = received_by_host(&net.near);
        python(&collector.namespace, &INJECTION.replace("ETHER", &ether));
        let have_come = comes_true(|| {
            let [packets, datagrams] = received_by_host(&net.near);
            packets >= before[0] + 10 && datagrams >= before[1] + let_in
        });
        assert!(have_come, "{before:?} before, {:?} after", received_by_host(&net.near));
        python(&net.far, end);
        counter.0.wait().unwrap().code().unwrap() - 10
    };
    // A device of the kernel's own lets it in.
    inside(&net.near, "sh", &["-ec", "ip link add open0 type vxlan id 4242 dstport 4789; ip link set open0 up"]);
    assert_eq!(received("open0", 10), 10);
    inside(&net.near, "ip", &["link", "del", "open0"]);
    let daemon = start("ebpf", &net, &dir, ALL);
    assert_eq!(received("flowtap-v4789", 0), 0);
    daemon.finish();
}

/// Packets that came to a host, and datagrams that were read there: `InReceives` and `InDatagrams` of IP and UDP.
#[track_caller]
fn received_by_host(namespace: &str) -> [u64; 2] {
    let output = namespaced(namespace, "cat", &["/proc/net/snmp"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    [("Ip:", "InReceives"), ("Udp:", "InDatagrams")].map(|(protocol, name)| {
        let mut lines = text.lines().filter(|line| line.starts_with(protocol)).map(|line| line.split(' '));
        let (mut names, mut counts) = (lines.next().unwrap(), lines.next().unwrap());
        counts.nth(names.position(|found| found == name).unwrap()).unwrap().parse().unwrap()
    })
}

/// Ten datagrams to 10.9.0.1:5000, each in a VXLAN packet to the tapped host.
const INJECTION: &str = "import socket, struct
data = struct.pack('!4H', 4000, 5000, 12, 0) + b'evil'
ip = struct.pack('!2B3H2BH', 0x45, 0, 32, 1, 0, 64, 17, 0) + bytes([10, 9, 0, 2, 10, 9, 0, 1])
words = sum(struct.unpack('!10H', ip)); words = (words & 0xffff) + (words >> 16); words = (words & 0xffff) + (words >> 16)
ip = ip[:10] + struct.pack('!H', words ^ 0xffff) + ip[12:]
frame = bytes.fromhex('ETHER020000000902') + struct.pack('!H', 0x0800) + ip + data
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(10): s.sendto(struct.pack('!II', 0x08000000, 4242 << 8) + frame, ('10.83.0.1', 4789))
";

#[test]
fn a_tunnel_device_that_is_taken_away_is_made_again_and_goes_in_the_end() {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let dir = Dir::new();
    let mut daemon = start("ebpf", &net, &dir, ALL);
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    let capture = collector.capture(&dir);
    net.send(50, 0);
    inside(&net.near, "ip", &["link", "del", DEVICE]);
    net.send(50, 0);
    daemon.until(|log| log.contains("it has been made again"));
    net.send(50, 0);
    let copies = capture.receiver(1514).copies().len() as u64;
    let counts = ledger(&dir);
    assert_eq!((counts.matched.0, counts.mirrored.0), (150, copies));
    assert!((100..=150).contains(&copies), "{copies}");
    assert_eq!(daemon.finish().sum("dstport=5000").0, 150);
    assert!(!tool("ip", &["-n", &net.near, "link", "show", DEVICE]), "the device stays");

    let mut daemon = start("ebpf", &net, &dir, ALL);
    must("kill", &["-KILL", &daemon.pid()]);
    daemon.wait();
    assert!(tool("ip", &["-n", &net.near, "link", "show", DEVICE]), "a crash leaves the device");
    let daemon = start("ebpf", &net, &dir, ALL);
    let capture = collector.capture(&dir);
    net.send(20, 0);
    assert_eq!(capture.receiver(1514).copies().len(), 20);
    ledger(&dir);
    daemon.finish();
    assert!(!tool("ip", &["-n", &net.near, "link", "show", DEVICE]), "the device stays");
}

const DEVICE: &str = "flowtap-v4789";
