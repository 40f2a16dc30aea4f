//! Rules that change while packets pass.

use std::thread::{scope, sleep};
use std::time::Duration;

use flowtap_tests::Dir;

use super::super::daemon::{Daemon, in_each_plane};
use super::super::net::{Net, hear, must, python, tool};
use super::{ALL, Collector, ledger, start};

#[test]
fn rules_change_under_load_without_a_lost_or_doubled_copy() {
    in_each_plane(reloads);
}

fn reloads(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let dir = Dir::new();
    let all = format!("{ALL}[flow-log]\ninterval = \"1s\"\n");
    let mut daemon = start(plane, &net, &dir, &all);
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    let capture = collector.capture(&dir);
    // Another session instead, and other rules; the datagrams are accepted by each.
    let others = [
        all.replace("number = 1\n", "number = 2\n"),
        all.replace("\"accept\" }", "\"accept\", protocol = \"udp\", destination-ports = \"5000-5009\" }"),
    ];
    scope(|scope| {
        let stream = scope.spawn(|| python(&net.far, NUMBERED));
        for (done, config) in (1..).zip([&others[0], &others[1], &all, &others[0]]) {
            // A change comes with the next interval, and only then another can be asked for.
            sleep(Duration::from_millis(1200));
            dir.add("m.toml", config);
            must("kill", &["-HUP", &daemon.pid()]);
            daemon.until(|log| log.matches("configuration read again").count() == done);
            assert!(!stream.is_finished(), "it changes under load");
        }
        stream.join().unwrap();
    });
    let receiver = capture.receiver(1514);
    receiver.assert_content();
    let number = |inner: &[u8]| u32::from_be_bytes(inner[42..46].try_into().unwrap());
    let mut numbers: Vec<_> = receiver.copies().iter().map(|copy| number(&copy.inner)).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..DATAGRAMS), "{} copies", numbers.len());
    let counts = ledger(&dir);
    assert_eq!((counts.matched.0, counts.mirrored.0), (DATAGRAMS.into(), DATAGRAMS.into()));
    assert_eq!(daemon.finish().sum("dstport=5000").0, u64::from(DATAGRAMS));
}

/// Takes more than six seconds.
const NUMBERED: &str = "import socket, struct, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.9.0.2', 4000))
for i in range(6000): s.sendto(struct.pack('>I', i) + bytes(96), ('10.9.0.1', 5000)); time.sleep(0.001)
";
const DATAGRAMS: u32 = 6000;

#[test]
fn a_reload_begins_and_ends_mirroring() {
    in_each_plane(begins_and_ends);
}

fn begins_and_ends(plane: &str) {
    let Some((net, collector)) = Collector::new(1600) else { return };
    let dir = Dir::new();
    let all = format!("{ALL}[flow-log]\ninterval = \"1s\"\n");
    let (before, session) = all.split_once("[[mirror.session]]").unwrap();
    let (_, interval) = session.split_once("[flow-log]").unwrap();
    let ready = format!("{before}[flow-log]{interval}");
    let nothing = format!("[[interface]]\nname = \"near0\"\n[flow-log]{interval}");
    let _listeners = (net.listener(), hear(&collector.namespace, &[4789]));
    let change = |daemon: &mut Daemon<'_>, config: &str, answer: &str| {
        // A change comes with the next interval, and only then another can be asked for.
        sleep(Duration::from_millis(1200));
        dir.add("m.toml", config);
        let said = daemon.log().matches(answer).count();
        must("kill", &["-HUP", &daemon.pid()]);
        daemon.until(|log| log.matches(answer).count() > said);
        sleep(Duration::from_millis(1500));
    };
    let copies = || {
        let capture = collector.capture(&dir);
        net.send(50, 0);
        capture.receiver(1514).copies().len()
    };
    let mut daemon = start_with(plane, &net, &dir, &nothing);
    match plane {
        // The kernel's programs can't be loaded any more.
        "ebpf" => {
            change(&mut daemon, &all, "is ready for sessions that come with a reload");
            assert_eq!(copies(), 0);
            daemon.finish();
            daemon = start_with(plane, &net, &dir, &ready);
            change(&mut daemon, &all, "configuration read again");
        }
        _ => change(&mut daemon, &all, "configuration read again"),
    }
    assert_eq!(copies(), 50);
    for end in [&ready, &nothing] {
        change(&mut daemon, end, "configuration read again");
        assert_eq!(copies(), 0);
        let device = tool("ip", &["-n", &net.near, "link", "show", "flowtap-v4789"]);
        assert!(!device, "the tunnel device goes with the last session");
        change(&mut daemon, &all, "configuration read again");
        assert_eq!(copies(), 50);
    }
    let counts = ledger(&dir);
    assert_eq!((counts.matched.0, counts.mirrored.0), (150, 150));
    daemon.finish();
}

#[track_caller]
fn start_with<'a>(plane: &str, net: &Net, dir: &'a Dir, config: &str) -> Daemon<'a> {
    dir.add("m.toml", config);
    Daemon::start_wide(plane, net, dir, &["--config", "m.toml"])
}
