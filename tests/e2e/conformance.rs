//! Public captures against an independent oracle: what each flow adds up to over the whole file.
//!
//! Where we rightly differ, `tests/conformance.tsv` says so and why. A case that no longer differs fails as well.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use flowtap_tests::totals::{FORMAT, Flow, Table, Totals, oracle};
use flowtap_tests::{Dir, Replay, root};

#[test]
fn every_flow_adds_up_to_what_the_oracle_counted() {
    let Some(captures) = oracle() else { return };
    let listed = Exceptions::read();
    let (mut wrong, mut met) = (Vec::new(), BTreeSet::new());
    for (path, expected) in &captures {
        let replay = replay(path, "apart");
        for (flow, ours, theirs) in Table::of_log(&replay.log()).differences(expected) {
            let case = (file_name(path), name(&flow));
            if listed.holds(&case) {
                met.insert(case);
            } else {
                wrong.push(format!("{case:?}: {ours:?}, the oracle has {theirs:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(listed.without(&met), BTreeSet::new(), "no longer differ: take them off the list");
    assert_eq!(captures.len(), 120);
}

/// Joined, a later piece may move to the flow of its first piece, which has the same addresses and protocol, and to no
/// other. Which piece belongs to which flow the oracle doesn't say; our own `fragments.pcap` proves that to the packet.
#[test]
fn joining_fragments_moves_packets_between_ports_only() {
    let Some(captures) = oracle() else { return };
    let listed = Exceptions::read();
    let mut moved_packets = 0;
    for (path, expected) in &captures {
        let file = file_name(path);
        let exempt = |flow: &Flow| listed.holds(&(file.clone(), name(flow)));
        let mut expected = expected.clone();
        let mut ours = Table::of_log(&replay(path, "join").log());
        ours.rows.retain(|flow, _| !exempt(flow));
        expected.rows.retain(|flow, _| !exempt(flow));
        assert_eq!(by_addresses(&ours), by_addresses(&expected), "{file}");

        for (flow, apart) in &expected.rows {
            let joined = ours.rows.get(flow).map_or(0, |totals| totals.packets);
            if (flow.src_port, flow.dst_port) == (0, 0) {
                assert!(joined <= apart.packets, "{file}: {flow:?} has {joined} packets joined, {apart:?} apart");
                moved_packets += apart.packets - joined;
            } else {
                assert!(joined >= apart.packets, "{file}: {flow:?} has {joined} packets joined, {apart:?} apart");
            }
        }
    }
    assert!(moved_packets > 100, "only {moved_packets} later pieces found their first");
}

#[test]
fn every_frame_of_every_file_is_accounted_for_and_damage_is_told() {
    let Some(captures) = oracle() else { return };
    let meta = std::fs::read_to_string(root().join("../shared/pcaps/open/oracle/_meta.tsv")).unwrap();
    let meta: BTreeMap<&str, Vec<&str>> =
        meta.lines().filter_map(|line| Some((line.split('\t').next()?, line.split('\t').collect()))).collect();
    let mut damaged = 0;
    for (path, _) in &captures {
        let file = file_name(path);
        let [_, frames, packets, bytes, .., file_error] = meta[file.as_str()][..] else { panic!("{file}: no totals") };
        let replay = replay(path, "join");
        let ours = ["/frames/offered", "/packets", "/bytes"].map(|count| replay.count(count).to_string());
        assert_eq!(ours, [frames, packets, bytes], "{file}");
        let is_damaged = file_error != "-";
        assert_eq!(replay.code, Some(i32::from(is_damaged)), "{file}: {:?}", replay.complaints);
        assert_eq!(replay.complaints.len(), usize::from(is_damaged), "{file}: {:?}", replay.complaints);
        damaged += usize::from(is_damaged);
    }
    assert!(damaged > 0, "no capture of the collection is damaged");
}

fn replay(capture: &Path, fragments: &str) -> Replay {
    let capture = capture.to_str().unwrap();
    Dir::new().replay(&[capture, "--fragments", fragments, "--format", FORMAT])
}

/// A file and a flow.
type Case = (String, String);

/// The list of where we rightly differ.
struct Exceptions(BTreeSet<Case>);

impl Exceptions {
    fn read() -> Self {
        let path = root().join("tests/conformance.tsv");
        let text = std::fs::read_to_string(&path).unwrap();
        let case = |line: &str| match line.split('\t').collect::<Vec<_>>()[..] {
            [file, flow, reason] if !reason.is_empty() => (file.to_owned(), flow.to_owned()),
            _ => panic!("{}: {line:?} is no file, flow and reason", path.display()),
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).skip(1).map(case).collect())
    }

    fn holds(&self, (file, flow): &Case) -> bool {
        self.0.contains(&(file.clone(), flow.clone())) || self.0.contains(&(file.clone(), "*".to_owned()))
    }

    /// Those of the list that none of `met` is an instance of.
    fn without(&self, met: &BTreeSet<Case>) -> BTreeSet<Case> {
        let is_met = |(file, flow): &&Case| met.iter().any(|case| case.0 == *file && (flow == "*" || case.1 == *flow));
        self.0.iter().filter(|case| !is_met(case)).cloned().collect()
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn name(flow: &Flow) -> String {
    let Flow { src, dst, src_port, dst_port, protocol } = flow;
    format!("{src} {dst} {src_port} {dst_port} {protocol}")
}

/// The totals without regard to ports.
fn by_addresses(table: &Table) -> BTreeMap<(IpAddr, IpAddr, u8), Totals> {
    let mut sums: BTreeMap<_, Totals> = BTreeMap::new();
    for (flow, totals) in &table.rows {
        let more = Totals { odd_packets: 0, ..totals.clone() };
        sums.entry((flow.src, flow.dst, flow.protocol)).and_modify(|sum| sum.add(&more)).or_insert(more);
    }
    sums
}
