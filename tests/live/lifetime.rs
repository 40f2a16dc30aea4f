//! Interfaces that come and go, crashes, reloads, and the rights of the daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::Duration;

use flowtap_tests::Dir;
use flowtap_tests::program::flowtap;
use serde_json::Value;

use super::daemon::{DATAGRAM_BYTES, Daemon, Row, ask, in_each_plane, rows, status, udp};
use super::net::{Net, comes_true, must, namespaced};

#[test]
fn an_interface_that_vanishes_keeps_its_counts_and_is_watched_when_it_returns() {
    in_each_plane(vanishes_and_returns);
}

fn vanishes_and_returns(plane: &str) {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let mut daemon = Daemon::start_in(plane, &net, &dir, &["-i", "near0", "--interval", "60s"]);
    let listener = net.listener();
    net.send(50, 0);
    net.unplug();
    daemon.until(|log| log.contains("no longer there"));
    net.plug();
    daemon.until(|log| log.matches("INFO watched").count() == 2);
    net.send(30, 0);
    drop(listener);
    assert_eq!(daemon.log().matches("no longer there").count(), 1, "one warning:\n{}", daemon.log());
    assert_eq!(udp(&daemon.stop()), (80, 80 * DATAGRAM_BYTES));
}

#[test]
fn an_interface_may_come_and_go_ten_times() {
    in_each_plane(comes_and_goes);
}

fn comes_and_goes(plane: &str) {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let mut daemon = Daemon::start_in(plane, &net, &dir, &["-i", "near*", "--interval", "60s"]);
    let _listener = net.listener();
    for time in 1..=10 {
        daemon.until(|log| log.matches("INFO watched").count() == time);
        net.send(10, 0);
        net.unplug();
        daemon.until(|log| log.matches("no longer there").count() == time);
        net.plug();
    }
    daemon.until(|log| log.matches("INFO watched").count() == 11);
    assert_eq!(udp(&daemon.stop()), (100, 100 * DATAGRAM_BYTES), "{plane}");
}

#[test]
fn a_crash_costs_the_open_interval_and_the_next_start_says_so() {
    in_each_plane(crashes);
}

fn crashes(plane: &str) {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let mut daemon = Daemon::start_in(plane, &net, &dir, &["-i", "near0", "--interval", "2s"]);
    let _listener = net.listener();
    net.send(40, 0);
    daemon.until(|log| log.matches("published").count() >= 3 && udp(&rows(&dir)).0 == 40);
    drop(daemon);
    let state: Value = serde_json::from_slice(&dir.read("logs/.flowtap.json")).unwrap();
    let noted = state["published-until"].as_u64().unwrap();
    let published = rows(&dir);
    let last_end = published.iter().map(|row| row.end).max().unwrap();
    // An interval is noted behind its publication: a crash in between calls one too many lost, never one too few.
    assert!(noted <= last_end + 2 && last_end < noted + 2, "{state}, published to {last_end}");
    assert_eq!(udp(&published).0, 40, "what was published is there");
    sleep(Duration::from_secs(2));

    let daemon = Daemon::start_in(plane, &net, &dir, &["-i", "near0", "--interval", "2s"]);
    let rows = daemon.stop();
    let gaps: Vec<_> = rows.iter().filter(|row| row.status == "SKIPDATA").collect();
    let [gap] = gaps[..] else { panic!("{gaps:?}") };
    assert_eq!(gap.interface, "near0");
    assert!(gap.start == noted && gap.end > last_end, "{state}, published to {last_end}: {gap:?}");

    let rows = Daemon::start_in(plane, &net, &dir, &["-i", "near0", "--interval", "2s"]).stop();
    let gaps = rows.iter().filter(|row| row.status == "SKIPDATA").count();
    assert_eq!(gaps, 1, "after an orderly stop there is nothing to tell");
}

#[test]
fn a_reload_under_load_loses_nothing_and_a_bad_one_changes_nothing() {
    in_each_plane(reloads);
}

fn reloads(plane: &str) {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    dir.add("flowtap.toml", "[[interface]]\nname = 'near0'\n[flow-log]\ninterval = '2s'\n");
    let mut daemon = Daemon::start_in(plane, &net, &dir, &["--config", "flowtap.toml"]);
    let _listener = net.listener();
    let has_row = |rows: &[Row], id: &str| rows.iter().any(|row| row.interface == id && row.status == "OK");
    let before = net.kernel_packets();
    let load = net.stream(250);
    assert!(comes_true(|| net.kernel_packets() > before + 100));
    dir.add("flowtap.toml", "[[interface]]\nname = 'near0'\ninterface-id = 'eni-1'\n[flow-log]\ninterval = '1s'\n");
    ask(&dir, &["reload"]).success();
    daemon.until(|_| has_row(&rows(&dir), "eni-1"));
    dir.add("flowtap.toml", "[[interface]]\nname = 'near0'\n[flow-log]\nintervall = '1s'\n");
    let refusal = ask(&dir, &["reload"]).failure(2);
    assert!(refusal.contains("line 4: unknown key `intervall`, did you mean `interval`?"), "{refusal}");
    dir.add("flowtap.toml", "[[interface]]\nname = 'near0'\ninterface-id = 'eni-2'\n[flow-log]\ninterval = '3s'\n");
    must("kill", &["-HUP", &daemon.pid()]);
    daemon.until(|_| has_row(&rows(&dir), "eni-2"));
    let sent = load.end();
    assert_eq!(daemon.log().matches("configuration read again").count(), 2, "{}", daemon.log());
    let status = status(&dir);
    assert_eq!((&status["balances"], &status["interfaces"][0]["drops"]), (&true.into(), &0.into()), "{status}");
    let rows = daemon.stop();
    assert_eq!(udp(&rows), (sent, sent * DATAGRAM_BYTES), "no packet was lost or counted twice");
    for id in ["near0", "eni-1", "eni-2"] {
        assert!(has_row(&rows, id), "no row of {id}");
    }
}

/// The next one is taken as soon as an interval begins by the last, when packets of the one before may still be on their way.
#[test]
fn reloads_in_a_row_lose_nothing() {
    in_each_plane(reloads_in_a_row);
}

fn reloads_in_a_row(plane: &str) {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    dir.add("flowtap.toml", "[[interface]]\nname = 'near0'\n[flow-log]\ninterval = '1s'\n");
    let daemon = Daemon::start_in(plane, &net, &dir, &["--config", "flowtap.toml"]);
    let _listener = net.listener();
    let load = net.stream(250);
    let mut taken = 0;
    assert!(comes_true(|| {
        taken += u32::from(ask(&dir, &["reload"]).code == Some(0));
        taken == 5
    }));
    let sent = load.end();
    assert_eq!(udp(&daemon.stop()), (sent, sent * DATAGRAM_BYTES), "no packet was lost or counted twice");
}

#[test]
fn rights_are_given_up() {
    // Bits of capability.h: 13 is CAP_NET_RAW, 12 CAP_NET_ADMIN, 39 CAP_BPF.
    rights_kept("pcap", "0000000000002000");
    rights_kept("ebpf", "0000008000001000");
}

fn rights_kept(plane: &str, capabilities: &str) {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let daemon = Daemon::start_in(plane, &net, &dir, &["-i", "near0", "--interval", "1s"]);
    let text = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(field("Uid:").iter().all(|uid| uid != "0"), "{text}");
    assert_eq!((field("CapEff:"), field("CapPrm:")), (vec![capabilities.into()], vec![capabilities.into()]));
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    assert_eq!(fs::metadata(dir.path("control.sock")).unwrap().permissions().mode() & 0o777, 0o600);
    daemon.stop();
}

#[test]
fn a_directory_that_is_not_writable_is_told() {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    fs::set_permissions(dir.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(dir.path("roots")).unwrap();
    let mut run = namespaced(&net.near, flowtap().to_str().unwrap(), &["run", "-i", "near0", "-o", "roots/"]);
    let refusal = dir.run(run.args(["--control-socket", "other.sock"])).failure(2);
    assert!(refusal.contains("roots/: nobody can't write there"), "{refusal}");
}

#[test]
fn a_configuration_is_checked_and_written_out() {
    let dir = Dir::new();
    dir.add("good.toml", "[[interface]]\nname = 'eth*'\nvpc-id = 'vpc-1'\n[flow-log]\nformat = 'v5'\n");
    let effective = dir.flowtap(&["check", "good.toml"]).success();
    for line in ["capture-buffer = \"16MB\"", "vpc-id = \"vpc-1\"", "interval = \"60s\""] {
        assert!(effective.lines().any(|found| found == line), "no {line} in\n{effective}");
    }
    assert!(effective.contains("# kernel plane: 84 MB of kernel memory"), "{effective}");
    assert!(effective.contains("; CAP_NET_RAW"), "{effective}");
    dir.add("again.toml", &effective);
    assert_eq!(dir.flowtap(&["check", "again.toml"]).success(), effective);

    dir.add("bad.toml", "[[interface]]\nname = 'eth*'\n[flow-log]\nformat = 'v5'\ninterval = '1h'\n");
    let refusal = dir.flowtap(&["check", "bad.toml"]).failure(2);
    assert!(refusal.contains("bad.toml: line 5: `1h` is not an interval"), "{refusal}");
    dir.add("empty.toml", "");
    assert!(dir.flowtap(&["check", "empty.toml"]).failure(2).contains("nothing to watch"));
    let silent = dir.flowtap(&["status", "--control-socket", "nobody.sock"]).failure(2);
    assert!(silent.contains("nobody.sock"), "{silent}");
}
