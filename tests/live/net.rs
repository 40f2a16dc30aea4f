//! Namespaces, and who sends what through them.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

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
        let cable = format!(
            "link add near0 netns {near} address {NEAR_ETHER} type veth \
             peer name far0 netns {far} address {FAR_ETHER}"
        );
        must("ip", &cable.split_whitespace().collect::<Vec<_>>());
        for (namespace, name, address) in [(near, "near0", "10.9.0.1/24"), (far, "far0", "10.9.0.2/24")] {
            inside(namespace, "ip", &["addr", "add", address, "dev", name]);
            inside(namespace, "ip", &["link", "set", name, "up"]);
        }
    }

    /// Gives both ends IPv6 addresses: fd09::1 and fd09::2, and the same of the link alone. They know each other, and
    /// don't ask.
    pub(super) fn add_ipv6(&self) {
        let ends = [
            (&self.near, "near0", "fd09::1/64", ["10.9.0.2", "fd09::2"], FAR_ETHER),
            (&self.far, "far0", "fd09::2/64", ["10.9.0.1", "fd09::1"], NEAR_ETHER),
        ];
        for (namespace, name, address, neighbours, ether) in ends {
            let settings = format!(
                "cd /proc/sys/net/ipv6/conf/{name}; echo 1 > addr_gen_mode; echo 0 > accept_ra; \
                 echo 0 > router_solicitations; echo 1 > mldv2_unsolicited_report_interval; echo 0 > disable_ipv6"
            );
            inside(namespace, "sh", &["-c", &settings]);
            for address in [address, &address.replace("fd09", "fe80")] {
                inside(namespace, "ip", &["addr", "add", address, "dev", name, "nodad"]);
            }
            for neighbour in neighbours {
                let known = ["neigh", "replace", neighbour, "lladdr", ether, "dev", name, "nud", "permanent"];
                inside(namespace, "ip", &known);
            }
        }
    }

    /// Has both ends know each other for good: from now on neither asks for the other's address.
    pub(super) fn introduce(&self) {
        for (namespace, name, other, ether) in
            [(&self.near, "near0", "10.9.0.2", FAR_ETHER), (&self.far, "far0", "10.9.0.1", NEAR_ETHER)]
        {
            inside(namespace, "ip", &["neigh", "replace", other, "lladdr", ether, "dev", name, "nud", "permanent"]);
        }
    }

    /// Has both ends send and receive frames as the wire would carry them.
    pub(super) fn without_offloads(&self) {
        for (namespace, name) in [(&self.near, "near0"), (&self.far, "far0")] {
            inside(namespace, "ethtool", &["-K", name, "tso", "off", "gso", "off", "gro", "off", "tx", "off"]);
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

    /// Sends such datagrams from now on, until it is ended, which begin with their [`Stream::number`].
    pub(super) fn stream(&self, pause_micros: u32) -> Stream {
        let script = format!(
            "import select, socket, struct, sys\n\
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.9.0.2', 4000))\n\
             print('ready', flush=True); sent = 0\n\
             while not select.select([sys.stdin], [], [], {pause_micros} / 1e6)[0]:\n    \
             s.sendto(struct.pack('>I', sent) + bytes(96), ('10.9.0.1', 5000)); sent += 1\n\
             print(sent)\n"
        );
        // One processor, so that order can be judged.
        Stream(until_ready(&mut namespaced(&self.far, "taskset", &["-c", "0", "python3", "-c", &script])))
    }

    /// Somebody who listens on 10.9.0.1:5000, so that no answers are sent.
    pub(super) fn listener(&self) -> Process {
        let script = "import socket, sys\n\
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 5000))\n\
             print('ready', flush=True); sys.stdin.read()\n";
        until_ready(&mut namespaced(&self.near, "python3", &["-c", script]))
    }

    /// What the kernel counted on the near interface in both directions.
    pub(super) fn kernel_packets(&self) -> u64 {
        let script = "cat /sys/class/net/near0/statistics/rx_packets /sys/class/net/near0/statistics/tx_packets";
        let output = namespaced(&self.near, "sh", &["-c", script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(|count| count.parse::<u64>().unwrap()).sum()
    }
}

/// The Ethernet addresses of both ends.
pub(super) const NEAR_ETHER: &str = "02:00:00:00:09:01";
pub(super) const FAR_ETHER: &str = "02:00:00:00:09:02";

/// A third namespace behind the near one, which forwards: `near1` (10.8.0.1, fd08::1) to `beyond0` (10.8.0.2, fd08::2).
pub(super) struct Beyond {
    pub(super) namespace: String,
}

impl Beyond {
    /// Makes it. Both ends need IPv6 addresses before.
    pub(super) fn new(net: &Net) -> Self {
        let namespace = net.near.replace("near", "beyond");
        must("ip", &["netns", "add", &namespace]);
        let beyond = Self { namespace };
        let (near, namespace) = (&*net.near, &*beyond.namespace);
        must(
            "ip",
            &["link", "add", "near1", "netns", near, "type", "veth", "peer", "name", "beyond0", "netns", namespace],
        );
        for (namespace, name, end) in [(near, "near1", 1), (namespace, "beyond0", 2)] {
            let addresses = format!(
                "ip addr add 10.8.0.{end}/24 dev {name}; cd /proc/sys/net/ipv6/conf/{name}; echo 1 > addr_gen_mode; \
                 echo 0 > disable_ipv6; ip addr add fd08::{end}/64 dev {name} nodad; \
                 ip addr add fe80::{end}/64 dev {name} nodad; ip link set {name} up"
            );
            inside(namespace, "sh", &["-ec", &addresses]);
        }
        for (namespace, end) in [(&*net.far, 9), (namespace, 8)] {
            let routes = format!("ip route add default via 10.{end}.0.1; ip -6 route add default via fd0{end}::1");
            inside(namespace, "sh", &["-ec", &routes]);
        }
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
        inside(near, "sh", &["-ec", forward]);
        beyond
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        tool("ip", &["netns", "del", &self.namespace]);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.far] {
            tool("ip", &["netns", "del", namespace]);
        }
    }
}

/// Somebody who goes on sending.
pub(super) struct Stream(Process);

impl Stream {
    /// The number of the datagram in a frame: they are numbered from 0 on.
    pub(super) fn number(frame: &[u8]) -> u64 {
        u32::from_be_bytes(frame[42..46].try_into().unwrap()).into()
    }

    /// Ends it, and says how many datagrams it has sent.
    #[track_caller]
    pub(super) fn end(mut self) -> u64 {
        drop(self.0.0.stdin.take());
        let mut sent = String::new();
        self.0.0.stdout.as_mut().unwrap().read_to_string(&mut sent).unwrap();
        sent.trim().parse().unwrap_or_else(|_| panic!("it said {sent:?}"))
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

/// Starts a process that says `ready` when it is.
#[track_caller]
pub(super) fn until_ready(command: &mut Command) -> Process {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert_eq!(&ready, b"ready", "{command:?}");
    Process(child)
}

/// Somebody who hears datagrams of both address families on these ports, so that none is answered.
#[track_caller]
pub(super) fn hear(namespace: &str, ports: &[u16]) -> Process {
    let script = format!(
        "import socket, sys\nall = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for port in {ports:?}]\n\
         for s, port in zip(all, {ports:?}): s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0); \
         s.bind(('::', port))\nprint('ready', flush=True); sys.stdin.read()\n"
    );
    until_ready(&mut namespaced(namespace, "python3", &["-c", &script]))
}

/// Waits until somebody listens on a port: `-u` for UDP, `-t` for TCP.
#[track_caller]
pub(super) fn until_bound(namespace: &str, protocol: &str, port: u16) {
    let arguments = ["-Hln", protocol, "sport", "=", &format!(":{port}")];
    let listens = || !namespaced(namespace, "ss", &arguments).output().unwrap().stdout.is_empty();
    assert!(comes_true(listens), "nobody listens on {port}");
}

/// Waits until something is so; `false` if it does not come within [`PATIENCE`].
pub(super) fn comes_true(mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..PATIENCE.as_millis() / BETWEEN_LOOKS.as_millis() {
        if is_so() {
            return true;
        }
        sleep(BETWEEN_LOOKS);
    }
    false
}

/// Waits until something stays as it is for [`QUIET`], and answers what it is then, or after [`PATIENCE`].
pub(super) fn settles<T: PartialEq>(mut look: impl FnMut() -> T) -> T {
    let mut before = look();
    for _ in 0..PATIENCE.as_millis() / QUIET.as_millis() {
        sleep(QUIET);
        let now = look();
        if now == before {
            break;
        }
        before = now;
    }
    before
}

/// How long nothing happens any more where something went on.
const QUIET: Duration = Duration::from_millis(500);

/// How long a busy machine may take to do the next thing: the kernel's verifier alone may take seconds there.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// Runs a script, and answers what it wrote.
#[track_caller]
pub(super) fn python(namespace: &str, script: &str) -> String {
    let output = namespaced(namespace, "python3", &["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Loads rules of nftables into a namespace; `false`, aloud, where there is no nftables.
#[track_caller]
pub(super) fn nftables(namespace: &str, rules: &str) -> bool {
    if !namespaced(namespace, "nft", &["list", "tables"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: needs nftables");
        return false;
    }
    inside(namespace, "nft", &[rules]);
    true
}

/// Whether a program is there; says aloud what is skipped where it isn't.
pub(super) fn has(program: &str, arguments: &[&str]) -> bool {
    let is_there = Command::new(program).args(arguments).output().is_ok();
    if !is_there {
        eprintln!("skipped: needs `{program}`");
    }
    is_there
}

/// Sends so many datagrams of so many bytes from port 4000 to an address and port, be they let out or not.
#[track_caller]
pub(super) fn datagrams(namespace: &str, to: &str, port: u16, count: u32, bytes: u32) {
    let script = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET6 if ':' in '{to}' else socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.bind(('', 4000))\n\
         for i in range({count}):\n    try: s.sendto(bytes({bytes}), ('{to}', {port}))\n    \
         except PermissionError: pass\n"
    );
    python(namespace, &script);
}

/// Kernel programs of somebody else: see `bpf.py`.
pub(super) fn bpf(namespace: &str, arguments: &[&str]) -> Command {
    namespaced(namespace, "python3", &[&["-c", include_str!("bpf.py")], arguments].concat())
}
