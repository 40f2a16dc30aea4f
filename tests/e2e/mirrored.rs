//! What a replay mirrors into a file, judged by a receiver as strict as an IDS, by tshark and against the original.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use flowtap_tests::mirror::{Complaint, Copy, Receiver, read_pcap};
use flowtap_tests::program::command;
use flowtap_tests::totals::{oracle, skip};
use flowtap_tests::{Dir, Replay, capture, root};

/// One session that takes everything in both directions, VNI 4242; with more of the session's keys.
fn config(target: &str, session: &str) -> String {
    format!(
        r#"
        [[mirror.target]]
        name = "ids"
        {target}
        [[mirror.filter]]
        name = "all"
        rules = [
          {{ direction = "ingress", number = 1, action = "accept" }},
          {{ direction = "egress", number = 1, action = "accept" }},
        ]
        [[mirror.session]]
        number = 1
        interface = "*"
        target = "ids"
        filter = "all"
        vni = 4242
        {session}
    "#
    )
}

const V4_TARGET: &str = "address = '10.83.0.2'";

/// Enough for most packets of most captures to have a direction.
const LOCAL: [&str; 14] = [
    "--local",
    "10.0.0.0/8",
    "--local",
    "172.16.0.0/12",
    "--local",
    "192.168.0.0/16",
    "--local",
    "169.254.0.0/16",
    "--local",
    "fe80::/10",
    "--local",
    "127.0.0.1",
    "--local",
    "::/1",
];

struct Mirrored {
    replay: Replay,
    dir: Dir,
}

impl Mirrored {
    fn new(input: &Path, config: &str, more: &[&str]) -> Self {
        let dir = Dir::new();
        dir.add("mirror.toml", config);
        let input = input.to_str().unwrap();
        let arguments = [&[input, "--config", "mirror.toml", "--mirror-to", "out.pcap"], &LOCAL[..], more].concat();
        let replay = dir.replay(&arguments);
        Self { replay, dir }
    }

    fn received(&self, port: u16) -> Receiver {
        let mut receiver = Receiver::new(0);
        read_pcap(&self.dir.read("out.pcap")).iter().for_each(|record| receiver.take(&record.bytes, port));
        receiver
    }

    /// Packets of the session, in both directions, by the path of a count.
    fn packets(&self, of: &str) -> u64 {
        ["ingress", "egress"]
            .map(|way| self.replay.count(&format!("/mirror/sessions/0/{way}/{of}/packets")))
            .iter()
            .sum()
    }

    fn skipped(&self, reason: &str) -> u64 {
        let volume = |way| {
            let path = format!("/mirror/sessions/0/{way}/skipped/{reason}/packets");
            self.replay.ledger.pointer(&path).and_then(serde_json::Value::as_u64).unwrap_or(0)
        };
        volume("ingress") + volume("egress")
    }
}

fn every_capture() -> Vec<PathBuf> {
    let own = fs::read_dir(root().join("pcaps")).unwrap().map(|entry| entry.unwrap().path());
    let own = own.filter(|path| path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng"));
    let shared = oracle().unwrap_or_default().into_iter().map(|(path, _)| path);
    own.chain(shared).collect()
}

/// What is wrong inside may only be what was wrong on the wire, or what a card would have mended.
#[test]
fn every_capture_arrives_as_it_was() {
    let (mut sent, mut changed) = (0, 0);
    for path in every_capture() {
        let mirrored = Mirrored::new(&path, &config(V4_TARGET, ""), &[]);
        if !mirrored.dir.path("out.pcap").exists() {
            continue;
        }
        let name = path.display();
        let receiver = mirrored.received(4789);
        assert_eq!(receiver.copies().len() as u64, mirrored.packets("mirrored"), "{name}");
        assert!(receiver.copies().iter().all(|copy| copy.vni == 4242), "{name}");
        sent += receiver.copies().len();
        let outside = |complaint: &Complaint| {
            matches!(
                complaint,
                Complaint::Outer(_) | Complaint::Flags(_) | Complaint::Reserved(_) | Complaint::TwoPorts(_)
            )
        };
        assert!(!receiver.complaints().iter().any(outside), "{name}: {:?}", receiver.complaints());
        let Some(originals) = ethernet_frames(&path) else { continue };
        for copy in receiver.copies() {
            if originals.contains_key(&copy.inner) {
                continue;
            }
            // What was changed must be right now.
            assert_eq!(copy.complaint, None, "{name}");
            changed += 1;
        }
    }
    let least = if oracle().is_some() { 2000 } else { 500 };
    assert!(sent > least, "only {sent} copies");
    assert!(changed > 0, "no frame had a checksum to complete or was a super-packet");
}

/// The frames of a capture file that our plain reader reads.
fn ethernet_frames(path: &Path) -> Option<HashMap<Vec<u8>, usize>> {
    let file = fs::read(path).unwrap();
    let is_plain = file.starts_with(&0xa1b2_c3d4_u32.to_le_bytes()) || file.starts_with(&0xa1b2_3c4d_u32.to_le_bytes());
    if !is_plain || file.get(20..24) != Some(&[1, 0, 0, 0]) {
        return None;
    }
    let mut frames = HashMap::new();
    let cut = file.len();
    // A file that ends in the middle of a frame is read up to there.
    let whole = (24..=cut).rev().find(|end| ends_with_a_record(&file[..*end])).unwrap_or(24);
    read_pcap(&file[..whole]).into_iter().for_each(|record| *frames.entry(record.bytes).or_default() += 1);
    Some(frames)
}

fn ends_with_a_record(file: &[u8]) -> bool {
    let mut at = 24;
    while at + 16 <= file.len() {
        at += 16 + u32::from_le_bytes(file[at + 8..at + 12].try_into().unwrap()) as usize;
    }
    at == file.len()
}

fn tshark(dir: &Dir, arguments: &[&str]) -> Option<String> {
    if dir.shell("tshark --version").code != Some(0) {
        skip("no tshark: `make setup` installs it");
        return None;
    }
    Some(dir.run(command(Path::new("tshark")).args(arguments)).success())
}

/// M7 of the specification.
#[test]
fn tshark_reads_every_copy() {
    for name in ["demo.pcap", "services-v6.pcap", "fragments.pcap", "vlan-qinq.pcap", "cooked-v2.pcap", "raw-ip.pcap"] {
        let mirrored = Mirrored::new(&capture(name), &config(V4_TARGET, ""), &[]);
        let read = tshark(
            &mirrored.dir,
            &[
                "-r",
                "out.pcap",
                "-Y",
                "vxlan.vni == 4242 && vxlan.flag_i == 1 && vxlan.flags_reserved == 0 && vxlan.reserved8 == 0",
            ],
        );
        let Some(read) = read else { return };
        assert_eq!(read.lines().count() as u64, mirrored.packets("mirrored"), "{name}");
        assert!(mirrored.packets("mirrored") > 0, "{name}");
    }
}

/// M5: super-packets of a real host, in a file.
#[test]
fn super_packets_are_wire_frames_with_right_checksums() {
    let mirrored = Mirrored::new(&capture("tso-zero-length.pcap"), &config(V4_TARGET, ""), &[]);
    let receiver = mirrored.received(4789);
    assert!(receiver.copies().len() > 1);
    assert!(receiver.copies().iter().all(|copy| copy.inner.len() <= 1514));
    let clean = |copy: &Copy| copy.complaint.is_none();
    assert!(receiver.copies().iter().all(clean), "{:?}", receiver.complaints());
    let bad = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-r", "out.pcap", "-Y"];
    let filter = "tcp.checksum.status == 0 || ip.checksum.status == 0";
    if let Some(bad) = tshark(&mirrored.dir, &[&bad[..], &[filter]].concat()) {
        assert_eq!(bad, "");
    }
}

/// M10, in a file.
#[test]
fn a_path_that_is_too_small_fragments_or_skips() {
    let whole = Mirrored::new(&capture("demo.pcap"), &config(V4_TARGET, ""), &[]);
    for (target, port, overhead) in [(V4_TARGET, 4789, 36), ("address = '2001:db8::2'", 4789, 56)] {
        let fragmented = Mirrored::new(&capture("demo.pcap"), &config(target, ""), &["--path-mtu", "600"]);
        let records = read_pcap(&fragmented.dir.read("out.pcap"));
        assert!(records.iter().all(|record| record.bytes.len() <= 614));
        let receiver = fragmented.received(port);
        let inner = |receiver: &Receiver| receiver.copies().iter().map(|copy| copy.inner.clone()).collect::<Vec<_>>();
        assert_eq!(inner(&receiver), inner(&whole.received(4789)));
        assert!(receiver.outer_fragments() > 0);
        let too_big = receiver.copies().iter().filter(|copy| copy.inner.len() + overhead > 600).count() as u64;
        assert_eq!(fragmented.packets("fragmented"), too_big);

        let skipping = config(target, "too-big = 'skip'");
        let skipped = Mirrored::new(&capture("demo.pcap"), &skipping, &["--path-mtu", "600"]);
        assert_eq!(skipped.skipped("too-big"), too_big);
        assert_eq!(skipped.packets("mirrored") + too_big, skipped.packets("matched"));
        assert_eq!(skipped.received(port).outer_fragments(), 0);
    }
}

#[test]
fn geneve_and_packet_length() {
    let target = format!("{V4_TARGET}\nencapsulation = 'geneve'");
    let mirrored = Mirrored::new(&capture("demo.pcap"), &config(&target, "packet-length = 100"), &[]);
    let receiver = mirrored.received(6081);
    assert_eq!(receiver.copies().len() as u64, mirrored.packets("mirrored"));
    assert!(receiver.copies().iter().all(|copy| copy.inner.len() <= 100));
    let cut = receiver.copies().iter().filter(|copy| copy.complaint == Some(Complaint::Truncated)).count() as u64;
    assert!(cut > 0);
    assert!(mirrored.packets("cut") >= cut);
}

#[test]
fn what_a_capture_kept_too_little_of_is_skipped() {
    let mirrored = Mirrored::new(&capture("snaplen.pcap"), &config(V4_TARGET, ""), &[]);
    assert!(mirrored.skipped("partial") > 0);
    assert!(mirrored.received(4789).copies().iter().all(|copy| copy.complaint != Some(Complaint::Truncated)));
}

#[test]
fn the_same_file_for_any_number_of_workers() {
    let file = |workers| {
        let mirrored = Mirrored::new(&capture("demo.pcap"), &config(V4_TARGET, ""), &["--workers", workers]);
        mirrored.dir.read("out.pcap")
    };
    assert!(file("1") == file("4"));
}

#[test]
fn a_file_is_not_overwritten_unasked_and_a_session_is_needed() {
    let dir = Dir::new();
    dir.add_capture("demo.pcap");
    dir.add("mirror.toml", config(V4_TARGET, ""));
    dir.add("empty.toml", "");
    dir.add("out.pcap", "precious");
    let arguments = ["replay", "demo.pcap", "--mirror-to", "out.pcap", "--config"];
    let said = dir.flowtap(&[&arguments[..], &["mirror.toml"]].concat()).failure(2);
    assert!(said.contains("out.pcap: exists"), "{said}");
    assert_eq!(dir.read("out.pcap"), b"precious");
    let said = dir.flowtap(&[&arguments[..], &["empty.toml"]].concat()).failure(2);
    assert!(said.contains("no [[mirror.session]]"), "{said}");
    dir.flowtap(&[&arguments[..], &["mirror.toml", "--overwrite"]].concat()).success();
    assert!(dir.read("out.pcap").starts_with(&0xa1b2_3c4d_u32.to_le_bytes()));
    assert_eq!(dir.files().len(), 4, "nothing is left beside it: {:?}", dir.files());
}
