//! Every packet is in the interval in which it passed, and records are out soon after their interval closes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use flowtap_tests::Dir;
use serde_json::Value;

use super::daemon::{DELIVERY_SECS_MAX, Daemon, in_each_plane, when_published};
use super::net::{Net, hear, python};
use super::records::{Records, number};

#[test]
fn records_are_out_in_time_and_none_spans_two_intervals() {
    in_each_plane(|plane| while_it_keeps_up(plane, out_in_time));
}

fn out_in_time(plane: &str, net: &Net) -> bool {
    let dir = Dir::new();
    let _listener = hear(&net.near, &[5000]);
    // What comes while a busy machine lets the daemon wait is kept for it.
    let arguments = ["-i", "near0", "--interval", "2s", "--capture-buffer", "64MB"];
    let daemon = Daemon::start_wide(plane, net, &dir, &arguments);
    let before = when_published(&dir);
    // Five hundred flows for seven seconds, to a daemon that also has quiet intervals.
    let load = "import socket, time\nall = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for i in range(500)]\n\
        for i, s in enumerate(all): s.bind(('10.9.0.2', 20000 + i)); s.connect(('10.9.0.1', 5000))\n\
        until = time.monotonic() + 7; sent = 0\nwhile time.monotonic() < until:\n    \
        for s in all: s.send(b'x' * 100); sent += 1\n    time.sleep(0.02)\nprint(sent)\n";
    let sent: u64 = python(&net.far, load).trim().parse().unwrap();
    // The interval with the last of it, and a quiet one.
    when_published(&dir);
    let after = when_published(&dir);
    let mut lags_secs = Vec::new();
    for file in dir.files().into_iter().filter(|file| file.ends_with(".log")) {
        // The change of its name, with which a file is published, is the last thing that happens to it.
        let published = fs::metadata(dir.path(&file)).unwrap().ctime().unsigned_abs();
        let records = Records::read(&dir.path(&file));
        let closed = records.rows.iter().map(|row| number(row, "start") / 2 * 2 + 2).min().unwrap();
        lags_secs.push(published.saturating_sub(closed));
    }
    // A disk or a machine may be busy now and then, but not whenever an interval closes.
    assert!(lags_secs.iter().all(|secs| *secs <= DELIVERY_SECS_MAX), "{plane}: {lags_secs:?}");
    assert!(lags_secs.iter().any(|secs| *secs <= 5), "{plane}: {lags_secs:?}");
    let records = daemon.finish();
    assert_eq!(records.sum("protocol=17 dstport=5000").0, sent, "{plane}");
    if !kept_up(&before, &after) {
        return false;
    }
    assert!(check_intervals(plane, &records), "{plane}: every interval has a row: {after}");
    true
}

/// Runs a test until the daemon kept up meanwhile.
fn while_it_keeps_up(plane: &str, test: fn(&str, &Net) -> bool) {
    let Some(net) = Net::new() else { return };
    assert!((0..RUNS_MAX).any(|_| test(plane, &net)), "{plane}: it did not keep up in any of {RUNS_MAX} runs");
}

/// Whether no machine made the daemon stand still. Programs of the kernel plane are told the end of an interval by the drain
/// of the one before; what comes when it is overdue is in the wrong one. The packet plane closes an interval two seconds
/// after its end, whether or not its packets were read. Both say themselves when that has happened.
fn kept_up(before: &Value, after: &Value) -> bool {
    ["/capture/turns-late", "/packets/late"].iter().all(|count| before.pointer(count) == after.pointer(count))
}

const RUNS_MAX: u32 = 10;

/// Rows of two seconds, with data or without. Says whether they come one after the other, without one left out.
fn check_intervals(plane: &str, records: &Records) -> bool {
    let mut data = BTreeMap::<u64, bool>::new();
    for row in &records.rows {
        let (start, end) = (number(row, "start"), number(row, "end"));
        assert_eq!(start / 2, end / 2, "{plane}: {row:?}");
        let has_data = row["log-status"] == "OK";
        if has_data {
            let (first, last) = (number(row, "x-first-ns"), number(row, "x-last-ns"));
            assert!(first <= last, "{plane}: {row:?}");
            assert_eq!((first / 1_000_000_000, last / 1_000_000_000), (start, end), "{plane}: {row:?}");
        } else {
            assert_eq!(row["log-status"], "NODATA", "{plane}: {row:?}");
        }
        if let Some(before) = data.insert(start / 2, has_data) {
            assert!(has_data && before, "{plane}: an interval with data has no NODATA: {row:?}");
        }
    }
    let (first, last) = (data.first_key_value().unwrap().0, data.last_key_value().unwrap().0);
    assert!(data.values().any(|has_data| !has_data), "{plane}: {data:?}");
    last - first + 1 == data.len() as u64
}

#[test]
fn each_packet_is_in_the_second_in_which_it_was_sent() {
    in_each_plane(|plane| while_it_keeps_up(plane, in_its_second));
}

fn in_its_second(plane: &str, net: &Net) -> bool {
    let dir = Dir::new();
    let _listener = hear(&net.far, &[5001]);
    let daemon = Daemon::start_wide(plane, net, &dir, &["-i", "near0", "--interval", "1s"]);
    let before = when_published(&dir);
    // A packet passes our programs while it is being sent, so the sender knows when, but for how exact its kernel's
    // coarse clock is: what passed between `before` and `after` is stamped not earlier than a tick before `before`.
    let steady = "import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        tick = int(time.clock_getres(6) * 1e9) + 1000000\nfor i in range(5000):\n    \
        before = time.time_ns(); s.sendto(b'x' * 100, ('10.9.0.2', 5001)); after = time.time_ns()\n    \
        print(before - tick, after + 1000000); time.sleep(0.001)\n";
    let sent: Vec<(u64, u64)> = python(&net.near, steady)
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(before, after)| (before.parse::<u64>().unwrap() / NANOS, after.parse::<u64>().unwrap() / NANOS))
        .collect();
    let kept_up = kept_up(&before, &when_published(&dir));
    let records = daemon.finish();
    assert_eq!(records.sum("dstport=5001"), (5000, 5000 * 128), "{plane}");
    if !kept_up {
        return false;
    }
    for second in sent[0].0..=sent[sent.len() - 1].1 {
        let surely = sent.iter().filter(|(from, to)| *from == second && *to == second).count() as u64;
        let maybe = sent.iter().filter(|(from, to)| (*from..=*to).contains(&second)).count() as u64;
        let counted = records.sum(&format!("dstport=5001 start={second}")).0;
        assert!((surely..=maybe).contains(&counted), "{plane}: {counted} in {second}, sent {surely} to {maybe}");
    }
    kept_up
}

const NANOS: u64 = 1_000_000_000;
