//! The wall clock is set while the daemon runs. Nobody sets the machine's: the daemon is shown another one by
//! libfaketime, which takes it from a file. The kernel's monotonic clock stays as it is, as with a real step.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use flowtap_tests::Dir;
use flowtap_tests::program::flowtap;

use super::daemon::{Daemon, WIDE, status};
use super::net::{Net, comes_true, namespaced};

#[test]
fn a_clock_that_is_set_moves_and_loses_nothing() {
    let Some(library) = LIBRARIES.iter().find(|library| Path::new(library).exists()) else {
        eprintln!("skipped: needs libfaketime");
        return;
    };
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    // The fence lets the daemon read the folder of its configuration, and so this file.
    dir.add("flowtap.toml", "[[interface]]\nname = 'near0'\n[flow-log]\ninterval = '1s'\n");
    dir.add("clock", "+0");
    let mut command = namespaced(&net.near, flowtap().to_str().unwrap(), &["run"]);
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", dir.path("clock"));
    command.envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1")]);
    let arguments = ["--config", "flowtap.toml", "--format", WIDE, "--capture", "ebpf"];
    let daemon = Daemon::launch(command, &dir, dir.path("logs"), &arguments);
    let _listener = net.listener();

    let began: i64 = status(&dir)["now"].as_i64().unwrap();
    for (steps, (packets, offset)) in SENT.into_iter().enumerate() {
        fs::write(dir.path("clock"), format!("{offset:+}")).unwrap();
        let seen = || status(&dir)["capture"]["clock-steps"] == steps;
        assert!(comes_true(seen), "step {steps} was not seen: {}", status(&dir));
        net.send(u32::try_from(packets).unwrap(), 100);
        // Longer than the source waits, so that the next step comes after these.
        sleep(Duration::from_millis(1500));
    }
    let status = status(&dir);
    assert_eq!(status["balances"], true, "{status}");
    let records = daemon.finish();
    let sent: u64 = SENT.iter().map(|(packets, _)| packets).sum();
    assert_eq!(records.sum("dstport=5000").0, sent);
    // The second of each row, its packets and bytes.
    let seconds = records.by("dstport=5000", "start");
    let counted = |offset: i64| -> u64 {
        let parsed = seconds.iter().map(|line| line.split(' ').map(|word| word.parse::<i64>().unwrap()).collect());
        let around = parsed.filter(|row: &Vec<i64>| (row[0] - began - offset).abs() < TEST_SECS_MAX);
        around.map(|row| row[1].unsigned_abs()).sum()
    };
    for (packets, offset) in SENT {
        assert_eq!(counted(offset), packets, "at {offset:+} s: {seconds:?} after {began}");
    }
}

/// Packets, and by how many seconds the clock that the daemon sees is then ahead.
const SENT: [(u64, i64); 3] = [(300, 0), (200, 3600), (100, -1800)];

/// How long the test may take.
const TEST_SECS_MAX: i64 = 900;

/// Where Debian has it.
const LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"];
