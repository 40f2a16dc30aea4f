//! Large transfers with all offloads at the tapped interface: the collector gets whole wire frames, each once.

use flowtap_tests::Dir;

use super::super::daemon::{in_each_plane, status};
use super::super::net::{FAR_ETHER, NEAR_ETHER, Net, inside, namespaced, tool, until_ready};
use super::{ALL, CALM, Capture, Collector, VXLAN_PORT, is_mark, ledger, start, until_quiet};

/// Two million bytes each way in one connection.
pub(super) struct Transfer<'a> {
    /// What the daemon is told.
    pub(super) config: &'a str,
    /// The port of the collector that copies come to.
    pub(super) port: u16,
    /// Who is asked for the connection, at the near end.
    pub(super) server: &'a str,
    /// The tag that each frame bears.
    pub(super) tag: Option<u16>,
    /// What the way to the collector leaves to its card.
    pub(super) underlay: Underlay,
}

/// What `out0` leaves to its card, which a virtual cable hasn't: what it leaves arrives as it was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Underlay {
    /// All that a virtual cable can: checksums, and cutting large packets.
    Offloads,
    /// Nothing: it is like a wire.
    Wire,
    /// A card, which does what is left to it.
    Card,
}

impl Underlay {
    const BOTH: [Self; 2] = [Self::Offloads, Self::Wire];

    fn set(self, net: &Net) {
        if self == Self::Wire {
            let all = ["-K", "out0", "tx", "off", "tso", "off", "gso", "off", "gro", "off", "sg", "off"];
            inside(&net.near, "ethtool", &all);
        }
        let features = namespaced(&net.near, "ethtool", &["-k", "out0"]).output().unwrap().stdout;
        let features = String::from_utf8(features).unwrap();
        for feature in ["tx-checksumming", "tcp-segmentation-offload", "generic-segmentation-offload", "scatter-gather"]
        {
            let is_on = features.contains(&format!("{feature}: on\n"));
            assert_eq!(is_on, self != Self::Wire, "{features}");
        }
    }
}

/// From the near end to the far one, in VXLAN.
pub(super) const PLAIN: Transfer<'_> =
    Transfer { config: ALL, port: VXLAN_PORT, server: "10.9.0.1", tag: None, underlay: Underlay::Offloads };

#[test]
fn a_large_transfer_with_all_offloads_arrives_as_on_a_wire() {
    in_each_plane(|plane| Underlay::BOTH.into_iter().for_each(|underlay| Transfer { underlay, ..PLAIN }.passes(plane)));
}

#[test]
fn a_large_transfer_that_is_left_to_a_card_arrives_as_on_a_wire() {
    let config = format!("{ALL}offload = \"device\"\n");
    Transfer { config: &config, underlay: Underlay::Card, ..PLAIN }.passes("ebpf");
}

#[test]
fn a_large_transfer_arrives_over_ipv6_as_well() {
    in_each_plane(|plane| Transfer { config: &ALL.replace("10.83.0.2", "fd83::2"), ..PLAIN }.passes(plane));
}

#[test]
fn a_large_transfer_of_ipv6_arrives_as_on_a_wire() {
    in_each_plane(|plane| Transfer { server: "fd09::1", ..PLAIN }.passes(plane));
}

/// A device of the kernel's own bears the tag, so that super-packets have one.
#[test]
fn a_large_transfer_over_a_tagged_device_arrives_with_its_tags() {
    in_each_plane(|plane| Transfer { server: "10.7.0.1", tag: Some(7), ..PLAIN }.passes(plane));
}

impl Transfer<'_> {
    /// Makes the transfer, and judges what arrives.
    #[track_caller]
    pub(super) fn passes(&self, plane: &str) {
        let is_card = self.underlay == Underlay::Card;
        let Some((net, collector)) = (if is_card { Collector::with_cards(1600) } else { Collector::new(1600) }) else {
            return;
        };
        net.add_ipv6();
        // Over IPv6 a copy has an outer checksum, which isn't left to a card there.
        if self.config.contains("fd83::2") {
            collector.add_ipv6(&net);
        } else {
            self.underlay.set(&net);
        }
        if self.tag.is_some_and(|tag| !add_tagged(&net, tag)) {
            return;
        }
        until_quiet(&net);
        let dir = Dir::new();
        let daemon = start(plane, &net, &dir, self.config);
        if is_card {
            let features = namespaced(&net.near, "ethtool", &["-k", "flowtap-v4789"]).output().unwrap().stdout;
            let features = String::from_utf8(features).unwrap();
            assert!(features.contains("tx-checksumming: on\n"), "the tunnel device leaves checksums: {features}");
        }
        let originals = Capture::start(&net.near, "near0", &["tcp or vlan"], &dir);
        let capture = collector.capture(&dir);
        self.transfer(&net);
        capture.until_marked(&net);
        assert_eq!(status(&dir)["mirror"]["tap-drops"], 0, "{plane}: this machine is too slow for what is sent");

        let wire_bytes = 1514 + if self.tag.is_some() { 4 } else { 0 };
        let largest = originals.frames().iter().map(Vec::len).max().unwrap_or_default();
        assert!(largest > wire_bytes, "{plane}: no super-packet is left to the card, but {largest} bytes");
        let receiver = capture.receiver_at(self.port, wire_bytes);
        let ledger = ledger(&dir);
        assert_eq!(ledger.skipped, (0, 0), "{plane}, {:?}", self.underlay);
        let copies = receiver.copies();
        let bytes: usize = copies.iter().map(|copy| copy.inner.len()).sum();
        let all = (copies.len() as u64, bytes as u64);
        assert_eq!(ledger.mirrored, all, "{plane}, {:?}: sent, and arrived", self.underlay);
        receiver.assert_content();
        let (mark, segments): (Vec<_>, Vec<_>) = copies.iter().partition(|copy| is_mark(&copy.inner));
        assert_eq!(mark.len(), 1);
        assert!(segments.iter().all(|copy| copy.vni == 4242 && copy.src_port == segments[0].src_port));
        if let Some(tag) = self.tag {
            let [high, low] = tag.to_be_bytes();
            assert!(segments.iter().all(|copy| copy.inner[12..16] == [0x81, 0, high, low]), "{plane}: tags are kept");
        }
        assert_eq!(receiver.streams().len(), 2);
        for (key, stream) in receiver.streams() {
            let sent = content(if key.src_port == 6000 { 0 } else { u32::MAX });
            assert!(stream.bytes() == sent, "{plane}: {key:?} has {} bytes of {}", stream.bytes().len(), sent.len());
        }
        let records = daemon.finish();
        assert_eq!(records.sum(&format!("dstport={}", self.port)), (0, 0));
        assert!(records.sum("srcport=6000").0 > 0);
    }

    /// One processor, so that a stream's order is that of its copies.
    #[track_caller]
    fn transfer(&self, net: &Net) {
        let words = format!("b''.join(struct.pack('>I', i ^ mask) for i in range({WORDS}))");
        let both = |mask: u32| {
            format!(
                "import threading\nmask = {mask}\nown = {words}\n\
                 def read():\n    left = len(own)\n    while left: calm(); taken = len(s.recv(32768)); left -= taken; sent_on(taken)\n\
                 t = threading.Thread(target=read); t.start()\n\
                 for at in range(0, len(own), 32768): calm(); s.sendall(own[at:at + 32768]); sent_on(32768)\n\
                 t.join(); s.close()\n"
            )
        };
        let at = format!("('{}', 6000)", self.server);
        // Who sends to it can't be further ahead than it lets them.
        let server = format!(
            "{CALM}{SENT_ON}import socket, struct\n\
             l = socket.create_server({at}, family=socket.AF_INET6 if ':' in {at}[0] else socket.AF_INET)\n\
             for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF): l.setsockopt(socket.SOL_SOCKET, buffer, 65536)\n\
             print('ready', flush=True)\ns, _ = l.accept()\n{}",
            both(0)
        );
        let mut server = until_ready(&mut namespaced(&net.near, "taskset", &["-c", "0", "python3", "-c", &server]));
        let client = format!(
            "def calm(): pass\ndef sent_on(taken): pass\nimport socket, struct\ns = socket.create_connection({at})\n{}",
            both(u32::MAX)
        );
        inside(&net.far, "taskset", &["-c", "0", "python3", "-c", &client]);
        assert!(server.0.wait().unwrap().success());
    }
}

/// Waits until copies of nearly all that was transferred have left: the queue of who sends them has an end too. Of a full
/// frame's copy 92 % is what is transferred.
const SENT_ON: &str = "
def left(): return int(open('/sys/class/net/out0/statistics/tx_bytes').read())
begin, moved = left(), 0
def sent_on(taken):
    global moved
    moved += taken
    for _ in range(60000):
        if (left() - begin) * 0.92 > moved - 200000: break
        time.sleep(0.001)
";

/// What goes one way.
fn content(mask: u32) -> Vec<u8> {
    (0..WORDS).flat_map(|word| (word ^ mask).to_be_bytes()).collect()
}

/// Two million bytes.
const WORDS: u32 = 500_000;

/// Gives both ends a tagged device above the cable, 10.7.0.1 and 10.7.0.2; `false`, aloud, where the kernel has none.
fn add_tagged(net: &Net, tag: u16) -> bool {
    for (namespace, device, end) in [(&net.near, "near0", 1), (&net.far, "far0", 2)] {
        let (name, tag) = (format!("{device}.{tag}"), tag.to_string());
        let link = ["-n", namespace, "link", "add", "link", device, "name", &name, "type", "vlan", "id", &tag];
        if !tool("ip", &link) {
            eprintln!("skipped: needs a kernel that has tagged devices (8021q)");
            return false;
        }
        let commands = format!(
            "echo 1 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6; ip addr add 10.7.0.{end}/24 dev {name}; \
             ip link set {name} up"
        );
        inside(namespace, "sh", &["-ec", &commands]);
    }
    for (namespace, name, other, ether) in
        [(&net.near, "near0", "10.7.0.2", FAR_ETHER), (&net.far, "far0", "10.7.0.1", NEAR_ETHER)]
    {
        let name = format!("{name}.{tag}");
        inside(namespace, "ip", &["neigh", "replace", other, "lladdr", ether, "dev", &name, "nud", "permanent"]);
    }
    true
}
