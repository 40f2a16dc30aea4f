//! The daemon while it runs, and what it has recorded.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::{scope, sleep};
use std::time::Duration;

use flowtap_tests::program::{command, flowtap};
use flowtap_tests::{Dir, Run};
use serde_json::Value;

use super::net::{Net, Process, comes_true, must, namespaced};
use super::records::Records;

/// A running daemon in the near namespace. Its records are in `logs/` of the directory, its own words in `log.txt`.
pub(super) struct Daemon<'a> {
    dir: &'a Dir,
    process: Process,
    logs: PathBuf,
    /// Packets in the rows of those that ran before.
    packets_before: u64,
}

/// Interface, source port, destination port, protocol, packets, bytes, start, end, direction, status.
pub(super) const FORMAT: &str = "${interface-id} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} ${start} ${end} \
                      ${flow-direction} ${log-status}";

/// What tells flows, their verdicts and their class apart.
pub(super) const WIDE: &str = "${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} \
                    ${bytes} ${start} ${end} ${action} ${tcp-flags} ${flow-direction} ${x-drop-reason} \
                    ${x-icmp-type} ${x-icmp-code} ${x-vlan} ${x-traffic-class} ${x-first-ns} ${x-last-ns} \
                    ${log-status}";

pub(super) const OPTIONS: [&str; 8] =
    ["--output", "logs/", "--compression", "none", "--control-socket", "control.sock", "--log-level", "debug"];

/// Both ways of counting.
pub(super) const PLANES: [&str; 2] = ["ebpf", "pcap"];

/// Does the same in both planes at the same time.
pub(super) fn in_each_plane(test: fn(&str)) {
    scope(|scope| {
        for plane in PLANES {
            scope.spawn(move || test(plane));
        }
    });
}

impl<'a> Daemon<'a> {
    /// Starts the daemon in the packet plane and waits until it runs.
    pub(super) fn start(net: &Net, dir: &'a Dir, arguments: &[&str]) -> Self {
        Self::start_in("pcap", net, dir, arguments)
    }

    /// Starts the daemon in one plane and waits until it runs.
    pub(super) fn start_in(plane: &str, net: &Net, dir: &'a Dir, arguments: &[&str]) -> Self {
        let arguments = [&["--format", FORMAT, "--capture", plane], arguments].concat();
        Self::launch(namespaced(&net.near, flowtap().to_str().unwrap(), &["run"]), dir, dir.path("logs"), &arguments)
    }

    /// Starts a daemon that writes [`WIDE`] records.
    pub(super) fn start_wide(plane: &str, net: &Net, dir: &'a Dir, arguments: &[&str]) -> Self {
        let arguments = [&["--format", WIDE, "--capture", plane], arguments].concat();
        Self::launch(namespaced(&net.near, flowtap().to_str().unwrap(), &["run"]), dir, dir.path("logs"), &arguments)
    }

    /// Starts the daemon in the packet plane with something in its environment.
    pub(super) fn start_with(net: &Net, dir: &'a Dir, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = namespaced(&net.near, flowtap().to_str().unwrap(), &["run"]);
        command.envs(environment.iter().copied());
        Self::launch(command, dir, dir.path("logs"), &[&["--format", FORMAT, "--capture", "pcap"], arguments].concat())
    }

    /// Starts it with nothing but these arguments.
    pub(super) fn start_alone(net: &Net, dir: &'a Dir, arguments: &[&str]) -> Self {
        Self::spawn(namespaced(&net.near, flowtap().to_str().unwrap(), &["run"]), dir, dir.path("logs"), arguments)
    }

    /// Starts the daemon by this command, with the usual options, and waits until it runs. Its records are seen in `logs`.
    pub(super) fn launch(command: Command, dir: &'a Dir, logs: PathBuf, arguments: &[&str]) -> Self {
        Self::spawn(command, dir, logs, &[&OPTIONS, arguments].concat())
    }

    fn spawn(mut command: Command, dir: &'a Dir, logs: PathBuf, arguments: &[&str]) -> Self {
        // The daemon becomes another user, who must get to its files.
        fs::set_permissions(dir.path("."), Permissions::from_mode(0o755)).unwrap();
        let log = File::options().create(true).append(true).open(dir.path("log.txt")).unwrap();
        let before = fs::read_to_string(dir.path("log.txt")).unwrap().matches(" running ").count();
        let packets_before = Records::read(&logs).sum("").0;
        command.args(arguments).current_dir(dir.path(".")).stdout(Stdio::null()).stderr(log);
        let mut daemon = Self { dir, process: Process(command.spawn().unwrap()), logs, packets_before };
        daemon.until(|log| log.matches(" running ").count() > before);
        daemon
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.dir.path("log.txt")).unwrap()
    }

    /// Waits for something in the log.
    #[track_caller]
    pub(super) fn until(&mut self, wanted: impl Fn(&str) -> bool) {
        let came = comes_true(|| {
            let has_ended = self.process.0.try_wait().unwrap().is_some();
            let is_so = wanted(&self.log());
            assert!(is_so || !has_ended, "it ended and said:\n{}", self.log());
            is_so
        });
        assert!(came, "it never came; the log says:\n{}", self.log());
    }

    pub(super) fn pid(&self) -> String {
        self.process.0.id().to_string()
    }

    /// Sends SIGTERM, and takes the records when it has ended well.
    #[track_caller]
    pub(super) fn stop(self) -> Vec<Row> {
        self.stop_and_tell().0
    }

    /// The same, and all that it said.
    #[track_caller]
    pub(super) fn stop_and_tell(self) -> (Vec<Row>, String) {
        let dir = self.dir;
        let log = self.end();
        (rows(dir), log)
    }

    /// Sends SIGTERM, and takes [`WIDE`] records when it has ended well.
    #[track_caller]
    pub(super) fn finish(self) -> Records {
        let logs = self.logs.clone();
        let log = self.end();
        Records { counts: last_counts(&log), ..Records::read(&logs) }
    }

    /// Sends SIGTERM, waits for a good end, and holds what the daemon says of its counts against the rows.
    #[track_caller]
    fn end(mut self) -> String {
        let status = status(self.dir);
        assert_eq!(status["balances"], true, "{status}");
        must("kill", &["-TERM", &self.pid()]);
        let (ended, log) = (self.wait(), self.log());
        assert!(ended.success(), "{ended}: it said:\n{log}");
        let counts = last_counts(&log);
        let in_rows = Records::read(&self.logs).sum("").0 - self.packets_before;
        let [packets, rejected, moved] = ["packets", "rejected", "rejected_after_counting"]
            .map(|name| counts.get(name).copied().unwrap_or(u64::MAX));
        assert_eq!(in_rows, packets + rejected - moved, "packets in rows, and what was counted:\n{log}");
        log
    }

    /// Waits for its end.
    #[track_caller]
    pub(super) fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        comes_true(|| {
            ended = self.process.0.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap_or_else(|| panic!("it did not stop in time; it said:\n{}", self.log()))
    }
}

/// The numbers in the last line of the log.
#[track_caller]
pub(super) fn last_counts(log: &str) -> BTreeMap<String, u64> {
    let line = log.lines().rfind(|line| line.contains(" stopped ")).unwrap_or_else(|| panic!("not stopped:\n{log}"));
    let pairs = line.split(' ').filter_map(|word| word.split_once('='));
    pairs.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect()
}

/// What both planes record of the same traffic.
#[track_caller]
pub(super) fn in_both_planes(net: &Net, arguments: &[&str], traffic: impl FnOnce()) -> [(&'static str, Records); 2] {
    let dirs = [Dir::new(), Dir::new()];
    let [kernel, packet] = &dirs;
    let daemons =
        [Daemon::start_wide("ebpf", net, kernel, arguments), Daemon::start_wide("pcap", net, packet, arguments)];
    traffic();
    // What the kernel has still to hand to the packet plane.
    sleep(Duration::from_millis(300));
    let [kernel, packet] = daemons.map(Daemon::finish);
    [("ebpf", kernel), ("pcap", packet)]
}

pub(super) fn ask(dir: &Dir, what: &[&str]) -> Run {
    dir.run(command(&flowtap()).args(what).args(["--control-socket", "control.sock"]))
}

/// How it is going. Whoever lets the daemon wait for half a second is cut off, and a busy machine may make us do so: then we
/// ask again.
#[track_caller]
pub(super) fn status(dir: &Dir) -> Value {
    let mut answer = ask(dir, &["status", "--json"]);
    for _ in 1..QUESTIONS_MAX {
        if answer.code == Some(0) {
            break;
        }
        answer = ask(dir, &["status", "--json"]);
    }
    serde_json::from_str(&answer.success()).unwrap()
}

/// Waits until the interval that is open now is published, and says how it is going then.
#[track_caller]
pub(super) fn when_published(dir: &Dir) -> Value {
    let mut status_then = status(dir);
    let now_secs = status_then["now"].as_u64().unwrap();
    let came = comes_true(|| {
        let is_published = status_then["published-until"].as_u64().unwrap() > now_secs;
        if !is_published {
            status_then = status(dir);
        }
        is_published
    });
    assert!(came, "nothing up to {now_secs} is published: {status_then}");
    status_then
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) interface: String,
    /// Source port, destination port, protocol; empty without data.
    pub(super) flow: String,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) direction: String,
    pub(super) status: String,
}

/// All records that are published.
pub(super) fn rows(dir: &Dir) -> Vec<Row> {
    let files = dir.files().into_iter().filter(|file| file.ends_with(".log"));
    let texts = files.map(|file| String::from_utf8(dir.read(&file)).unwrap());
    let lines = texts.flat_map(|text| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>());
    lines.map(|line| row(&line.split(' ').collect::<Vec<_>>())).collect()
}

pub(super) fn row(columns: &[&str]) -> Row {
    let &[interface, from, to, protocol, packets, bytes, start, end, direction, status] = columns else {
        panic!("{columns:?}")
    };
    let has_data = status == "OK";
    Row {
        interface: interface.to_owned(),
        flow: if has_data { format!("{from} {to} {protocol}") } else { String::new() },
        packets: if has_data { packets.parse().unwrap() } else { 0 },
        bytes: if has_data { bytes.parse().unwrap() } else { 0 },
        start: start.parse().unwrap(),
        end: end.parse().unwrap(),
        direction: direction.to_owned(),
        status: status.to_owned(),
    }
}

/// Packets and bytes of each flow and direction.
pub(super) fn sums(rows: &[Row]) -> BTreeMap<(String, String), (u64, u64)> {
    let mut sums = BTreeMap::new();
    for row in rows.iter().filter(|row| row.status == "OK") {
        let sum: &mut (u64, u64) = sums.entry((row.flow.clone(), row.direction.clone())).or_default();
        sum.0 += row.packets;
        sum.1 += row.bytes;
    }
    sums
}

pub(super) fn udp(rows: &[Row]) -> (u64, u64) {
    sums(rows).get(&("4000 5000 17".to_owned(), "ingress".to_owned())).copied().unwrap_or_default()
}

/// How long after the end of an interval its records may come on a busy machine: the packet plane waits a good two seconds
/// for packets that are late, and a disk may take its time.
pub(super) const DELIVERY_SECS_MAX: u64 = 32;

/// How often a question is put.
const QUESTIONS_MAX: u32 = 10;

/// A datagram of 100 bytes with its UDP and IP headers.
pub(super) const DATAGRAM_BYTES: u64 = 128;
