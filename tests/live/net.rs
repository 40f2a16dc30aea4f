//! Namespaces, and who sends what through them.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Two namespaces: `near`, where the daemon runs, with the interface `near0` (10.9.0.1), and `far` with `far0`
/// (10.9.0.2). Both go away with the test, however it ends.
pub(super) struct Net {
    pub(super) near: String,
    pub(super) far: String,
}

impl Net {
    /// `None` where there can be none.
    pub(super) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("flowtap-{}-{number}-{end}", std::process::id());
        let net = Self { near: name("near"), far: name("far") };
        let can = tool("ip", &["netns", "add", &net.near]) && tool("ip", &["netns", "add", &net.far]);
        if !can || !tool("python3", &["--version"]) {
            eprintln!("skipped: needs root, `ip` and `python3`");
            return None;
        }
        // Without IPv6 the interfaces say nothing on their own.
        for namespace in [&net.near, &net.far] {
            inside(namespace, "sh", &["-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"]);
            inside(namespace, "ip", &["link", "set", "lo", "up"]);
        }
        net.plug();
        Some(net)
    }

    /// Makes the cable.
    pub(super) fn plug(&self) {
        let (near, far) = (&*self.near, &*self.far);
        must("ip", &["link", "add", "near0", "netns", near, "type", "veth", "peer", "name", "far0", "netns", far]);
        for (namespace, name, address) in [(near, "near0", "10.9.0.1/24"), (far, "far0", "10.9.0.2/24")] {
            inside(namespace, "ip", &["addr", "add", address, "dev", name]);
            inside(namespace, "ip", &["link", "set", name, "up"]);
        }
    }

    /// Takes the cable away.
    pub(super) fn unplug(&self) {
        inside(&self.near, "ip", &["link", "del", "near0"]);
    }

    /// Sends datagrams of 100 bytes from 10.9.0.2:4000 to 10.9.0.1:5000, one every `pause_micros`, and waits until they
    /// are sent.
    pub(super) fn send(&self, datagrams: u32, pause_micros: u32) {
        let script = format!(
            "import socket, time\n\
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.9.0.2', 4000))\n\
             for i in range({datagrams}):\n    s.sendto(b'x' * 100, ('10.9.0.1', 5000))\n    \
             time.sleep({pause_micros} / 1e6)\n"
        );
        inside(&self.far, "python3", &["-c", &script]);
    }

    /// Somebody who listens on 10.9.0.1:5000, so that no answers are sent.
    pub(super) fn listener(&self) -> Process {
        let script = "import socket, time\n\
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 5000))\n\
             print('ready', flush=True)\ntime.sleep(120)\n";
        let mut child = namespaced(&self.near, "python3", &["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        Process(child)
    }

    /// What the kernel counted on the near interface in both directions.
    pub(super) fn kernel_packets(&self) -> u64 {
        let script = "cat /sys/class/net/near0/statistics/rx_packets /sys/class/net/near0/statistics/tx_packets";
        let output = namespaced(&self.near, "sh", &["-c", script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(|count| count.parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.far] {
            tool("ip", &["netns", "del", namespace]);
        }
    }
}

/// A process that ends with the test.
pub(super) struct Process(pub(super) Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub(super) fn tool(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

#[track_caller]
pub(super) fn must(program: &str, arguments: &[&str]) {
    assert!(tool(program, arguments), "{program} {arguments:?}");
}

pub(super) fn namespaced(namespace: &str, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]).args(arguments);
    command
}

#[track_caller]
pub(super) fn inside(namespace: &str, program: &str, arguments: &[&str]) {
    let output = namespaced(namespace, program, arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
