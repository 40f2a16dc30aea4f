//! Mirroring by the built program: `near0` is tapped, and copies go over a cable of their own to a collector.
//!
//! Needs what the other live tests need, and `tcpdump`.

mod bare;
mod content;
mod drops;
mod frames;
mod geneve;
mod harm;
mod killed;
mod path;
mod reload;
mod sessions;
mod tagged;
mod targets;
mod transfer;

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;
use std::{env, fs};

use flowtap_tests::Dir;
use flowtap_tests::mirror::{Receiver, read_pcap};
use serde_json::Value;

use super::daemon::{Daemon, status};
use super::net::{Net, Process, comes_true, has, inside, must, namespaced, settles, tool};

/// The namespace of the collector: `out0` (10.83.0.1) in the near one leads to `ids0` (10.83.0.2) here.
struct Collector {
    namespace: String,
}

impl Collector {
    /// The tapped cable, and the way to a collector with that MTU; `None` where there can be none.
    fn new(mtu: u32) -> Option<(Net, Self)> {
        Self::behind(|near, namespace| {
            let cable = format!(
                "link add out0 netns {near} address {OUT_ETHER} mtu {mtu} type veth \
                 peer name ids0 netns {namespace} address {IDS_ETHER} mtu {mtu}"
            );
            must("ip", &cable.split_whitespace().collect::<Vec<_>>());
        })
    }

    /// The same with two cards and what joins them; `None`, aloud, where `FLOWTAP_CARDS` doesn't name them. They are used
    /// up by this: they come back under other names.
    fn with_cards(mtu: u32) -> Option<(Net, Self)> {
        let Ok(cards) = env::var("FLOWTAP_CARDS") else {
            eprintln!("skipped: needs two cards that a cable joins, named in FLOWTAP_CARDS");
            return None;
        };
        Self::behind(|near, namespace| {
            let ends = [(near, "out0", OUT_ETHER), (namespace, "ids0", IDS_ETHER)];
            for (card, (namespace, name, ether)) in cards.split(' ').zip(ends) {
                must("ip", &["link", "set", card, "netns", namespace, "name", name]);
                inside(namespace, "ip", &["link", "set", name, "address", ether, "mtu", &mtu.to_string()]);
            }
        })
    }

    /// With the way to the collector that `joins` the two namespaces makes.
    fn behind(joins: impl FnOnce(&str, &str)) -> Option<(Net, Self)> {
        let net = Net::new()?;
        if !has("tcpdump", &["--version"]) {
            return None;
        }
        let collector = Self { namespace: net.near.replace("near", "ids") };
        let (near, namespace) = (&*net.near, &*collector.namespace);
        must("ip", &["netns", "add", namespace]);
        inside(namespace, "sh", &["-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"]);
        joins(near, namespace);
        for (namespace, name, end, other, ether) in
            [(near, "out0", 1, 2, IDS_ETHER), (namespace, "ids0", 2, 1, OUT_ETHER)]
        {
            let commands = format!(
                "ip addr add 10.83.0.{end}/24 dev {name}; ip link set lo up; ip link set {name} up; \
                 ip neigh replace 10.83.0.{other} lladdr {ether} dev {name} nud permanent"
            );
            inside(namespace, "sh", &["-ec", &commands]);
        }
        // Nobody asks who has an address, so that every frame is one that a test has sent.
        for (namespace, name, other, ether) in [
            (near, "near0", "10.9.0.2", super::net::FAR_ETHER),
            (&*net.far, "far0", "10.9.0.1", super::net::NEAR_ETHER),
        ] {
            inside(namespace, "ip", &["neigh", "replace", other, "lladdr", ether, "dev", name, "nud", "permanent"]);
        }
        Some((net, collector))
    }

    /// Gives the way to the collector IPv6 addresses: fd83::1 and fd83::2. Its ends know each other, and the sending one
    /// leaves no checksum to the other.
    fn add_ipv6(&self, net: &Net) {
        for (namespace, name, end, other, ether) in
            [(&net.near, "out0", 1, 2, IDS_ETHER), (&self.namespace, "ids0", 2, 1, OUT_ETHER)]
        {
            let commands = format!(
                "cd /proc/sys/net/ipv6/conf/{name}; echo 1 > addr_gen_mode; echo 0 > accept_ra; \
                 echo 0 > router_solicitations; echo 0 > disable_ipv6; ip addr add fd83::{end}/64 dev {name} nodad; \
                 ip neigh replace fd83::{other} lladdr {ether} dev {name} nud permanent"
            );
            inside(namespace, "sh", &["-ec", &commands]);
        }
        inside(&net.near, "ethtool", &["-K", "out0", "tx", "off"]);
    }

    /// Captures what comes in by `ids0`.
    fn capture<'a>(&self, dir: &'a Dir) -> Capture<'a> {
        Capture::start(&self.namespace, "ids0", &["-Q", "in"], dir)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        tool("ip", &["netns", "del", &self.namespace]);
    }
}

/// A capture of whole frames that goes on.
struct Capture<'a> {
    process: Process,
    namespace: String,
    dir: &'a Dir,
    name: String,
}

impl<'a> Capture<'a> {
    #[track_caller]
    fn start(namespace: &str, device: &str, arguments: &[&str], dir: &'a Dir) -> Self {
        let (file, words) = (dir.path(&format!("{device}.pcap")), dir.path(&format!("{device}.txt")));
        let options = [
            "-i",
            device,
            "-Z",
            "root",
            "-U",
            "--immediate-mode",
            "-B",
            "65536",
            // A slot of the kernel's buffer is as long as this: frames of 256 KB would leave room for a few hundred.
            "-s",
            "9216",
            "-w",
            file.to_str().unwrap(),
        ];
        let mut command = namespaced(namespace, "tcpdump", &[&options, arguments].concat());
        let process = Process(command.stderr(fs::File::create(&words).unwrap()).spawn().unwrap());
        let listens = comes_true(|| fs::read_to_string(&words).unwrap().contains("listening on"));
        assert!(listens, "tcpdump said: {}", fs::read_to_string(&words).unwrap());
        Self { process, namespace: namespace.to_owned(), dir, name: device.to_owned() }
    }

    /// Waits until a copy has come of what is sent through the cable now: until then others may be on their way.
    #[track_caller]
    fn until_marked(&self, net: &Net) {
        inside(&net.far, "taskset", &["-c", "0", "python3", "-c", SEND_MARK]);
        let file = self.dir.path(&format!("{}.pcap", self.name));
        let is_there = || {
            let file = fs::read(&file).unwrap();
            file[file.len().saturating_sub(MARK_BYTES_MAX)..].windows(MARK.len()).any(|bytes| bytes == MARK)
        };
        assert!(comes_true(is_there), "no copy of what was sent last has come");
    }

    /// Ends when nothing more comes, and gives all frames.
    #[track_caller]
    fn frames(self) -> Vec<Vec<u8>> {
        let file = fs::read(self.file()).unwrap();
        read_pcap(&file).into_iter().map(|record| record.bytes).collect()
    }

    /// Ends when nothing more comes, and gives the file that holds it.
    #[track_caller]
    fn file(mut self) -> PathBuf {
        let file = self.dir.path(&format!("{}.pcap", self.name));
        settles(|| fs::metadata(&file).map_or(0, |file| file.len()));
        must("kill", &["-INT", &self.process.0.id().to_string()]);
        self.process.0.wait().unwrap();
        let words = fs::read_to_string(self.dir.path(&format!("{}.txt", self.name))).unwrap();
        assert!(words.contains("\n0 packets dropped by kernel"), "{words}");
        if self.name == "ids0" {
            let lost = "/sys/class/net/ids0/statistics/rx_dropped";
            let lost = namespaced(&self.namespace, "cat", &[lost]).output().unwrap().stdout;
            assert_eq!(lost, b"0\n", "this machine is too slow: its queue of what comes in was full");
        }
        file
    }

    /// The same, as a receiver sees them that wants frames of at most so many bytes.
    #[track_caller]
    fn receiver(self, inner_bytes_max: usize) -> Receiver {
        self.receiver_at(VXLAN_PORT, inner_bytes_max)
    }

    /// The same at another port.
    #[track_caller]
    fn receiver_at(self, port: u16, inner_bytes_max: usize) -> Receiver {
        let mut receiver = Receiver::new(inner_bytes_max);
        self.frames().iter().for_each(|frame| receiver.take(frame, port));
        receiver
    }
}

/// Whether a frame is what [`Capture::until_marked`] sends.
fn is_mark(frame: &[u8]) -> bool {
    frame.ends_with(MARK)
}

const MARK: &[u8] = b"nothing follows.";

/// Where it is looked for, from the end of the file: little comes behind it.
const MARK_BYTES_MAX: usize = 65_536;

/// An answer to a ping that nobody has sent: nobody says anything to it.
const SEND_MARK: &str = "import socket, struct
data = b'nothing follows.'
words = sum(struct.unpack('!8H', data)); words = (words & 0xffff) + (words >> 16); words = (words & 0xffff) + (words >> 16)
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.sendto(struct.pack('!2B3H', 0, 0, words ^ 0xffff, 0, 0) + data, ('10.9.0.1', 0))
";

/// For scripts that send much: waits until what taps the namespace of a process has been read, so that however long a
/// machine stands still, and however little room a tap has, nothing is lost.
const CALM: &str = "import time
def calm(process='self'):
    while any(int(line.split()[6]) > 20000 for line in open(f'/proc/{process}/net/packet').readlines()[1:]): time.sleep(0.001)
";

/// Waits until the interfaces say nothing of themselves any more, as they do for a while once they have IPv6 addresses.
fn until_quiet(net: &Net) {
    settles(|| net.kernel_packets());
}

/// A session that mirrors everything at `near0` to the collector. More of the session may follow.
const ALL: &str = r#"
[[interface]]
name = "near0"

[[mirror.target]]
name = "ids"
address = "10.83.0.2"

[[mirror.filter]]
name = "all"
rules = [
  { direction = "ingress", number = 100, action = "accept" },
  { direction = "egress", number = 100, action = "accept" },
]

[[mirror.session]]
number = 1
interface = "near0"
target = "ids"
filter = "all"
vni = 4242
packets-per-second-max = "unlimited"
bits-per-second-max = "unlimited"
"#;

/// What the daemon says of each interface that it mirrors from then on, whoever makes the copies.
const MIRRORED: &str = "INFO mirrored";

/// Starts the daemon with a configuration, and waits until it mirrors an interface.
#[track_caller]
fn start<'a>(plane: &str, net: &Net, dir: &'a Dir, config: &str) -> Daemon<'a> {
    dir.add("m.toml", config);
    let before = fs::read_to_string(dir.path("log.txt")).unwrap_or_default().matches(MIRRORED).count();
    let mut daemon = Daemon::start_wide(plane, net, dir, &["--config", "m.toml"]);
    daemon.until(|log| log.matches(MIRRORED).count() > before);
    daemon
}

/// What became of the frames that all sessions matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ledger {
    matched: (u64, u64),
    mirrored: (u64, u64),
    skipped: (u64, u64),
    too_big: u64,
    unreachable: u64,
    fragmented: u64,
    own: u64,
}

impl Ledger {
    fn add(&mut self, session: &Value) {
        let add = |sum: &mut (u64, u64), volume: &Value| {
            sum.0 += volume["packets"].as_u64().unwrap();
            sum.1 += volume["bytes"].as_u64().unwrap();
        };
        for counts in [&session["ingress"], &session["egress"]] {
            add(&mut self.matched, &counts["matched"]);
            add(&mut self.mirrored, &counts["mirrored"]);
            counts["skipped"].as_object().unwrap().values().for_each(|volume| add(&mut self.skipped, volume));
            self.too_big += counts["skipped"]["too-big"]["packets"].as_u64().unwrap_or(0);
            self.unreachable += counts["skipped"]["unreachable"]["packets"].as_u64().unwrap_or(0);
            self.fragmented += counts["fragmented"]["packets"].as_u64().unwrap();
        }
    }
}

/// The ledger when nothing waits any more: it balances, as the daemon says too, and stays as it is.
#[track_caller]
fn ledger(dir: &Dir) -> Ledger {
    let mut told = status(dir);
    let balances = |told: &Value| {
        let Ledger { matched, mirrored, skipped, .. } = read_ledger(told);
        let says_so = told["balances"] == true && told["mirror"]["balances"] == true;
        says_so && matched == (mirrored.0 + skipped.0, mirrored.1 + skipped.1)
    };
    let settled = comes_true(|| {
        sleep(Duration::from_millis(250));
        let before = std::mem::replace(&mut told, status(dir));
        balances(&told) && read_ledger(&before) == read_ledger(&told)
    });
    assert!(settled, "{told}");
    read_ledger(&told)
}

fn read_ledger(status: &Value) -> Ledger {
    let mirror = &status["mirror"];
    let mut ledger = Ledger { own: mirror["not-asked"]["own-copies"].as_u64().unwrap(), ..Ledger::default() };
    mirror["sessions"].as_array().unwrap().iter().for_each(|session| ledger.add(session));
    ledger
}

/// What became of the frames that the sessions of one number matched.
fn read_session(status: &Value, number: u64) -> Ledger {
    let mut ledger = Ledger::default();
    let sessions = status["mirror"]["sessions"].as_array().unwrap().iter();
    sessions.filter(|session| session["number"] == number).for_each(|session| ledger.add(session));
    ledger
}

/// RFC 7348, RFC 8926.
const VXLAN_PORT: u16 = 4789;
const GENEVE_PORT: u16 = 6081;

const OUT_ETHER: &str = "02:00:00:00:83:01";
const IDS_ETHER: &str = "02:00:00:00:83:02";
