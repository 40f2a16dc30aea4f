//! Everything that goes through an interface is in the rows, once; what the kernel lost is told.

use std::io::Read;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use flowtap_tests::Dir;

use super::daemon::{DATAGRAM_BYTES, Daemon, in_each_plane, status, sums, udp, when_published};
use super::net::{Net, Process, comes_true, inside, must, namespaced};

#[test]
fn what_goes_through_an_interface_is_counted_exactly() {
    in_each_plane(counted_exactly);
}

fn counted_exactly(plane: &str) {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let daemon = Daemon::start_in(plane, &net, &dir, &["-i", "near*", "--interval", "2s"]);
    let before = net.kernel_packets();
    let _listener = net.listener();
    net.send(1000, 0);
    // Ten echo requests with 56 bytes, each answered by the kernel: 84 bytes with ICMP and IP headers.
    let ping = "import socket, struct\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); s.settimeout(5)\n\
        for i in range(10):\n    head = struct.pack('!BBHHH', 8, 0, 0, 7, i); data = head + bytes(56)\n    \
        total = sum(struct.unpack('!32H', data)); total = (total & 0xffff) + (total >> 16)\n    \
        s.sendto(struct.pack('!BBHHH', 8, 0, ~total & 0xffff, 7, i) + bytes(56), ('10.9.0.1', 0)); s.recv(2000)\n";
    inside(&net.far, "python3", &["-c", ping]);
    // A conversation over TCP in both directions, in steps, so that no segments are put together on the way.
    let server = "import socket\n\
        l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
        l.bind(('10.9.0.1', 6000)); l.listen(); print('ready', flush=True)\n\
        c, _ = l.accept()\nwhile True:\n    d = c.recv(100)\n    if not d: break\n    c.sendall(d)\nc.close()\n";
    let mut child = namespaced(&net.near, "python3", &["-c", server]).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    let mut server = Process(child);
    let client = "import socket\n\
        s = socket.socket(); s.bind(('10.9.0.2', 4001)); s.connect(('10.9.0.1', 6000))\n\
        for i in range(50):\n    s.sendall(b'y' * 10)\n    assert s.recv(100) == b'y' * 10\n\
        s.close()\n";
    inside(&net.far, "python3", &["-c", client]);
    server.0.wait().unwrap();
    net.introduce();
    // The interval with the last of it, and a quiet one.
    when_published(&dir);
    let status = when_published(&dir);
    assert_eq!(status["balances"], true, "{status}");
    assert_eq!(status["interfaces"][0]["name"], "near0");
    assert_eq!(status["interfaces"][0]["drops"], 0);
    let arp = &status["frames"]["not-counted"];
    assert_eq!(status["packets"]["in-open-intervals"], 0, "everything is in records: {status}");
    let in_rows = status["packets"]["in-rows"].as_u64().unwrap();

    let kernel = net.kernel_packets() - before;
    let (rows, log) = daemon.stop_and_tell();
    assert!(
        log.contains(&format!("stopped frames={kernel} packets={in_rows} ")),
        "of {kernel} by the kernel, {arp}:\n{log}"
    );
    let sums = sums(&rows);
    let of = |flow: &str, direction: &str| sums.get(&(flow.to_owned(), direction.to_owned())).copied();
    assert_eq!(udp(&rows), (1000, 1000 * DATAGRAM_BYTES));
    assert_eq!(of("0 0 1", "ingress"), Some((10, 840)));
    assert_eq!(of("0 0 1", "egress"), Some((10, 840)));
    let (there, back) = (of("4001 6000 6", "ingress").unwrap(), of("6000 4001 6", "egress").unwrap());
    assert_eq!(there.0 + back.0 + 1000 + 20, in_rows, "nothing else went through");
    assert!(there.0 >= 52 && back.0 >= 52, "fifty segments, SYN and FIN: {there:?} {back:?}");
    let quiet: Vec<_> = rows.iter().filter(|row| row.status == "NODATA").collect();
    // The stop may cut the last one short.
    assert!(quiet.iter().all(|row| row.interface == "near0" && (row.start..=row.start + 1).contains(&row.end)));
    assert!(quiet.iter().any(|row| row.end == row.start + 1), "{rows:#?}");
    let intervals: Vec<_> = rows.iter().map(|row| row.start / 2).collect();
    let (first, last) = (intervals.iter().min().unwrap(), intervals.iter().max().unwrap());
    assert!((*first..=*last).all(|interval| intervals.contains(&interval)), "every interval has a row: {intervals:?}");
}

#[test]
fn loopback_is_not_counted_twice() {
    in_each_plane(loopback_once);
}

fn loopback_once(plane: &str) {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let daemon = Daemon::start_in(plane, &net, &dir, &["-i", "lo", "--interval", "1s"]);
    let _listener = net.listener();
    let script = "import socket\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 4000))\n\
        for i in range(20): s.sendto(b'x' * 100, ('127.0.0.1', 5000))\n";
    inside(&net.near, "python3", &["-c", script]);
    let rows = daemon.stop();
    assert_eq!(sums(&rows).values().copied().collect::<Vec<_>>(), [(20, 20 * DATAGRAM_BYTES)]);
}

#[test]
fn what_the_kernel_lost_is_told_to_the_packet() {
    let Some(net) = Net::new() else { return };
    net.introduce();
    let dir = Dir::new();
    let mut daemon = Daemon::start(&net, &dir, &["-i", "near0", "--interval", "10s", "--capture-buffer", "1MB"]);
    let _listener = net.listener();
    // While the daemon stands still the kernel has a megabyte for some three megabytes of frames.
    must("kill", &["-STOP", &daemon.pid()]);
    net.send(20_000, 0);
    must("kill", &["-CONT", &daemon.pid()]);
    daemon.until(|log| log.contains("packets lost"));
    let told = || {
        let status = status(&dir);
        let numbers = ["/interfaces/0/drops", "/frames/lost/capture-buffer", "/packets/counted"];
        numbers.map(|number| status.pointer(number).unwrap().as_u64().unwrap())
    };
    let agrees = comes_true(|| {
        let [drops, lost, counted] = told();
        drops > 0 && drops == lost && counted + lost == 20_000
    });
    let [drops, lost, counted] = told();
    assert!(agrees, "{drops} at the interface, {lost} of all, {counted} counted");
    assert_eq!(daemon.log().matches("packets lost").count(), 1, "{}", daemon.log());
    let rows = daemon.stop();
    assert_eq!(udp(&rows).0 + drops, 20_000);
    assert!(rows.iter().any(|row| row.status == "SKIPDATA" && row.interface == "near0"), "{rows:?}");
}

#[test]
fn an_interface_that_readers_share_is_counted_once() {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    dir.add("flowtap.toml", "fanout = 2\n[[interface]]\nname = 'near0'\n[flow-log]\ninterval = '1s'\nworkers = 2\n");
    let daemon = Daemon::start(&net, &dir, &["--config", "flowtap.toml"]);
    let _listener = net.listener();
    // A hundred flows, so that both readers get some; each flow's source port is its own.
    let script = "import socket\n\
        for port in range(4100, 4200):\n    \
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.9.0.2', port))\n    \
            for i in range(5): s.sendto(b'x' * 100, ('10.9.0.1', 5000))\n";
    inside(&net.far, "python3", &["-c", script]);
    sleep(Duration::from_millis(500));
    let status = status(&dir);
    assert_eq!(
        (&status["balances"], status["interfaces"].as_array().map(Vec::len)),
        (&true.into(), Some(1)),
        "{status}"
    );
    let (rows, log) = daemon.stop_and_tell();
    let sums = sums(&rows);
    for port in 4100..4200 {
        let flow = (format!("{port} 5000 17"), "ingress".to_owned());
        assert_eq!(sums.get(&flow), Some(&(5, 5 * DATAGRAM_BYTES)), "{flow:?}\n{log}");
    }
}

#[test]
fn as_aws_has_it_an_interface_has_one_address() {
    in_each_plane(has_one_address);
}

fn has_one_address(plane: &str) {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    inside(&net.near, "ip", &["addr", "add", "10.9.0.7/24", "dev", "near0"]);
    let _listener = net.listener();
    dir.add("flowtap.toml", "aws-parity = true\n[[interface]]\nname = 'near0'\n");
    let daemon = Daemon::start_wide(plane, &net, &dir, &["--config", "flowtap.toml", "--interval", "60s"]);
    let exchange = "import socket\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.9.0.2', 4000))\n\
        for i in range(3): s.sendto(b'x', ('10.9.0.7', 5000))\n";
    inside(&net.far, "python3", &["-c", exchange]);
    let answer = "import socket\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.9.0.7', 4001))\n\
        s.sendto(b'x', ('10.9.0.2', 9))\n";
    inside(&net.near, "python3", &["-c", answer]);
    sleep(Duration::from_millis(300));
    let records = daemon.finish();
    assert_eq!(records.sum("protocol=17 srcaddr=10.9.0.2 dstaddr=10.9.0.1 dstport=5000").0, 3, "{plane}: {records:?}");
    assert_eq!(records.sum("protocol=17 srcaddr=10.9.0.1 srcport=4001 dstaddr=10.9.0.2").0, 1, "{plane}: {records:?}");
    assert_eq!((records.sum("srcaddr=10.9.0.7").0, records.sum("dstaddr=10.9.0.7").0), (0, 0), "{plane}");
}
