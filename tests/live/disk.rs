//! A disk that is full ends the run with one clear message, and nothing that was published is lost.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use flowtap_tests::Dir;
use flowtap_tests::program::flowtap;

use super::daemon::{Daemon, WIDE, in_each_plane};
use super::net::{Net, Process, namespaced, until_ready};
use super::records::Records;

#[test]
fn a_full_disk_is_told_and_costs_nothing_that_was_published() {
    in_each_plane(fills);
}

fn fills(plane: &str) {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let disk = Disk::new(&net, &dir);
    let _listener = net.listener();
    let arguments = ["-i", "near0", "--interval", "1s", "--capture", plane, "--format", WIDE];
    let mut daemon = Daemon::launch(disk.inside(flowtap().to_str().unwrap(), &["run"]), &dir, disk.logs(), &arguments);
    net.send(40, 0);
    let are_published = || Records::read(&disk.logs()).sum("dstport=5000").0 == 40;
    daemon.until(|log| log.matches("published").count() >= 3 && are_published());
    let full = disk.inside("sh", &["-c", "head -c 10000000 /dev/zero > logs/other"]).status();
    assert!(!full.unwrap().success(), "it is not full");
    net.send(20, 0);
    let ended = daemon.wait();
    let log = daemon.log();
    assert_eq!(ended.code(), Some(1), "it said:\n{log}");
    let errors: Vec<_> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
    let [error] = errors[..] else { panic!("one message:\n{log}") };
    assert!(error.contains("records can't be written") && error.contains("No space left"), "{error}");
    assert!(error.contains("logs/"), "it names the file: {error}");
    let published = Records::read(&disk.logs());
    assert_eq!(published.sum("dstport=5000").0, 40, "what was published is there");
    drop(daemon);

    disk.inside("rm", &["logs/other"]).status().unwrap();
    sleep(Duration::from_millis(1100));
    let mut daemon = Daemon::launch(disk.inside(flowtap().to_str().unwrap(), &["run"]), &dir, disk.logs(), &arguments);
    let published_before = daemon.log().matches("published").count();
    net.send(10, 0);
    daemon.until(|log| log.matches("published").count() > published_before);
    let records = daemon.finish();
    assert_eq!(records.sum("dstport=5000").0, 50, "and what came after the disk had room again");
    let gaps: Vec<_> = records.rows.iter().filter(|row| row["log-status"] == "SKIPDATA").collect();
    let [gap] = gaps[..] else { panic!("{gaps:?}") };
    assert_eq!(gap["interface-id"], "near0");
}

/// A small disk on `logs/`, which only those see that are inside.
struct Disk {
    keeper: Process,
    logs: PathBuf,
}

impl Disk {
    fn new(net: &Net, dir: &Dir) -> Self {
        let logs = fs::canonicalize(dir.path(".")).unwrap().join("logs");
        fs::create_dir(&logs).unwrap();
        let mount = "mount -t tmpfs -o size=256k,mode=777 none \"$0\" && echo ready && cat";
        let keeper = until_ready(&mut namespaced(&net.near, "sh", &["-c", mount, logs.to_str().unwrap()]));
        Self { keeper, logs }
    }

    fn inside(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.keeper.0.id().to_string(), "--mount", "--net"]);
        command.arg(format!("--wdns={}", self.logs.parent().unwrap().display()));
        command.arg(program).args(arguments);
        command
    }

    /// What lies on it.
    fn logs(&self) -> PathBuf {
        let logs = self.logs.strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", self.keeper.0.id())).join(logs)
    }
}
