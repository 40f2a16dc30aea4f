//! What a service manager hears of the daemon: the test is the manager, with a socket of its own.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use flowtap_tests::Dir;
use flowtap_tests::program::flowtap;

use super::daemon::{Daemon, ask};
use super::net::{Net, PATIENCE, Process, must, namespaced};

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    path: String,
    /// What the daemon says for itself.
    log: PathBuf,
}

impl Manager {
    fn new(dir: &Dir) -> Self {
        let path = dir.path("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        // The daemon becomes another user, who must get to it.
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(dir.path("."), Permissions::from_mode(0o755)).unwrap();
        Self { socket, path: path.to_str().unwrap().to_owned(), log: dir.path("log.txt") }
    }

    /// The next message, by lines; `None` if there is none for so long.
    fn hear(&self, patience: Duration) -> Option<Vec<String>> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut message = [0; 4096];
        let length = loop {
            match self.socket.recv(&mut message) {
                Ok(length) => break length,
                // A wait with an end is not taken up again after what interrupted it, be it only that others stood still.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{}: {error}", self.path),
            }
        };
        Some(std::str::from_utf8(&message[..length]).unwrap().lines().map(str::to_owned).collect())
    }

    /// Waits for a message with a line that begins so, and gives that message.
    #[track_caller]
    fn until(&self, beginning: &str) -> Vec<String> {
        for _ in 0..100 {
            let message = self.hear(PATIENCE);
            let Some(message) = message else { panic!("nothing is said any more; {}", self.told()) };
            if message.iter().any(|line| line.starts_with(beginning)) {
                return message;
            }
        }
        panic!("{beginning} was never said; {}", self.told());
    }

    fn told(&self) -> String {
        format!("the log says:\n{}", fs::read_to_string(&self.log).unwrap_or_default())
    }
}

#[test]
fn the_manager_hears_of_start_reload_life_and_stop() {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let manager = Manager::new(&dir);
    let environment = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "4000000")];
    dir.add("flowtap.toml", "[[interface]]\nname = 'near0'\n[flow-log]\ninterval = '1s'\n");
    let daemon = Daemon::start_with(&net, &dir, &["--config", "flowtap.toml"], &environment);
    assert_eq!(manager.hear(PATIENCE).unwrap(), ["READY=1"], "the first word");
    // The first records may be there before the first status.
    let first = manager.until("STATUS=watching near0; ");
    if first != ["STATUS=watching near0; nothing is published yet"] {
        assert!(first[0].starts_with("STATUS=watching near0; records up to 20"), "{first:?}");
    }
    manager.until("STATUS=watching near0; records up to 20");
    for _ in 0..3 {
        assert_eq!(manager.until("WATCHDOG="), ["WATCHDOG=1"]);
    }

    for (configuration, is_good) in
        [("[[interface]]\nname = 'near*'\n[flow-log]\ninterval = '1s'\n", true), ("intervall = 1", false)]
    {
        dir.add("flowtap.toml", configuration);
        assert_eq!(ask(&dir, &["reload"]).code == Some(0), is_good);
        let message = manager.until("RELOADING=");
        let [reloading, since] = &message[..] else { panic!("{message:?}") };
        assert_eq!(reloading, "RELOADING=1");
        let since_micros: u64 = since.strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let uptime_secs: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((uptime_secs - since_micros as f64 / 1e6).abs() < 60.0, "{since_micros} at {uptime_secs}");
        assert_eq!(manager.until("READY="), ["READY=1"], "ready again, also after a refusal");
    }

    daemon.stop();
    assert_eq!(manager.until("STOPPING=")[0], "STOPPING=1");
}

#[test]
fn a_run_whose_records_go_nowhere_feeds_no_watchdog() {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let manager = Manager::new(&dir);
    must("mkfifo", &[dir.path("pipe").to_str().unwrap()]);
    // Somebody who opened the pipe and doesn't read.
    let pipe = fs::File::options().read(true).write(true).open(dir.path("pipe")).unwrap();
    let program = flowtap();
    let mut command = namespaced(&net.near, program.to_str().unwrap(), &["run", "-i", "near0", "--interval", "1s"]);
    command.args(["--output", "pipe", "--control-socket", "control.sock", "--state-directory", "state"]);
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "4000000").current_dir(dir.path("."));
    let log = fs::File::create(&manager.log).unwrap();
    let mut daemon = Process(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    manager.until("WATCHDOG=1");

    let mut filler = Command::new("sh");
    filler.args(["-c", "exec cat /dev/zero > pipe"]).current_dir(dir.path("."));
    let _filler = Process(filler.spawn().unwrap());
    // The recorder stops with the next interval, the worker when its hand-overs have no more room.
    let mut meals = 0;
    while manager.hear(Duration::from_secs(7)).is_some_and(|message| message != ["STOPPING=1"]) {
        meals += 1;
        assert!(meals < 20, "it is fed for ever");
    }
    assert!(daemon.0.try_wait().unwrap().is_none(), "it runs all the while");
    drop(pipe);
}
