//! Every shared capture against an independent oracle: packets, bytes, flags and later pieces of each flow.
//!
//! The oracle is a parser that shares no code with ours or with any library; its rules stand beside its answers. Where
//! we differ on purpose, a list says so and why. Captures are read here in the simplest way that does.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{Addresses, Fault, Fragment, NotIp, Packet, Refusal, parse};
use crate::capture::LinkType;

/// Captures whose flows we count otherwise than the oracle, and why that is right.
const FLOWS_DIFFER: [(&str, &str); 1] = [(
    "sv-ipv6-malformed-fragments-12__frag-12.pcap",
    "175 fragment headers in one packet: the oracle has no bound, and we walk eight",
)];

/// Captures whose frames we refuse for other reasons than the oracle, and why that is right.
const REFUSALS_DIFFER: [(&str, &str); 3] = [
    ("ndpi-someip_sd_sample.pcap", "link type 192 (PPI) is none of ours; the oracle looks for 802.11 in it"),
    ("tcpdump-ieee802.11_tim_ie_oobr.pcap", "a management frame is known by its first byte, even if cut"),
    ("zeek-mpls-6in6-broken.pcap", "the oracle has no bound on labels, and we take sixteen"),
];

#[test]
fn every_flow_is_counted_as_the_oracle_counts_it() {
    let Some(directory) = captures() else { return };
    let mut wrong = Vec::new();
    let mut compared = 0;
    for file in files(&directory) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let expected = oracle(&directory.join(format!("oracle/{name}.tsv")));
        let (ours, _) = count(&std::fs::read(&file).unwrap());
        if FLOWS_DIFFER.iter().any(|(differing, _)| *differing == name) {
            assert_ne!(ours, expected, "{name} no longer differs: take it off the list");
            continue;
        }
        for (flow, counts) in &expected {
            if ours.get(flow) != Some(counts) {
                wrong.push(format!("{name}: {flow:?} is {:?}, not {counts:?}", ours.get(flow)));
            }
        }
        for flow in ours.keys().filter(|flow| !expected.contains_key(*flow)) {
            wrong.push(format!("{name}: {flow:?} is not in the oracle"));
        }
        compared += expected.len();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compared > 10_000, "only {compared} flows were compared");
}

#[test]
fn every_refusal_is_one_of_the_oracles() {
    let Some(directory) = captures() else { return };
    let meta = std::fs::read_to_string(directory.join("oracle/_meta.tsv")).unwrap();
    let mut wrong = Vec::new();
    let mut reasons = 0;
    for line in meta.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let (name, skipped) = (columns[0], columns[9]);
        let Ok(capture) = std::fs::read(directory.join(name)) else { continue };
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for (reason, frames) in skipped.split(' ').filter_map(|item| item.split_once('=')) {
            *expected.entry(oracle_group(reason)).or_default() += frames.parse::<u64>().unwrap();
        }
        let (_, refusals) = count(&capture);
        let mut ours: BTreeMap<&str, u64> = BTreeMap::new();
        for (refusal, frames) in refusals {
            *ours.entry(our_group(refusal)).or_default() += frames;
        }
        if REFUSALS_DIFFER.iter().any(|(differing, _)| *differing == name) {
            assert_ne!(ours, expected, "{name} no longer differs: take it off the list");
        } else if ours != expected {
            wrong.push(format!("{name}: {ours:?}, not {expected:?}"));
        }
        reasons += expected.len();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(reasons > 20, "only {reasons} reasons were compared");
}

/// The coarser names under which both sides' reasons can be compared.
fn oracle_group(reason: &str) -> &str {
    match reason {
        "badip:bad_version" => "version",
        "badip:bad_ihl" => "header length",
        "badip:bad_totlen" => "total length",
        "badip:trunc_ip" | "badip:trunc_ipopt" => "truncated IP",
        "nonip:trunc_l2" => "truncated link",
        "nonip:et0806" => "arp",
        "nonip:et888e" => "eapol",
        "nonip:et88cc" => "lldp",
        "nonip:et88e5" => "macsec",
        "nonip:et8863" => "pppoe",
        "nonip:llc" => "llc",
        "nonip:mpls-nonip" => "mpls",
        "nonip:wlan-nondata" => "wlan",
        link_type if link_type.starts_with("nonip:lt") => "link type",
        ethertype if ethertype.starts_with("nonip:et") => "other",
        control if control.starts_with("nonip:ppp8") || control.starts_with("nonip:pppc") => "ppp",
        ppp if ppp.starts_with("nonip:ppp") => "other",
        other => panic!("the oracle has a new reason: {other}"),
    }
}

fn our_group(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NotIp(NotIp::Arp) => "arp",
        Refusal::NotIp(NotIp::Eapol) => "eapol",
        Refusal::NotIp(NotIp::Lldp) => "lldp",
        Refusal::NotIp(NotIp::Macsec) => "macsec",
        Refusal::NotIp(NotIp::PppoeDiscovery) => "pppoe",
        Refusal::NotIp(NotIp::PppControl) => "ppp",
        Refusal::NotIp(NotIp::SpanningTree | NotIp::Llc) => "llc",
        Refusal::NotIp(NotIp::MplsPayload) => "mpls",
        Refusal::NotIp(NotIp::WifiManagement | NotIp::WifiControl | NotIp::WifiNoData) => "wlan",
        Refusal::NotIp(NotIp::Other) => "other",
        Refusal::Fault(Fault::IpVersion) => "version",
        Refusal::Fault(Fault::HeaderLength) => "header length",
        Refusal::Fault(Fault::TotalLength) => "total length",
        Refusal::Fault(Fault::TruncatedIp) => "truncated IP",
        Refusal::Fault(Fault::TruncatedLink | Fault::TruncatedTag) => "truncated link",
        Refusal::Fault(Fault::UnsupportedLinkType) => "link type",
        Refusal::Fault(other) => other.name(),
    }
}

fn captures() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps/open");
    if !directory.is_dir() {
        eprintln!("skipped: there are no shared captures at {}", directory.display());
        return None;
    }
    Some(directory)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng" || extension == "cap")
        })
        .collect();
    files.sort();
    files
}

/// Source, destination, source port, destination port, protocol.
type Flow = (IpAddr, IpAddr, u16, u16, u8);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    packets: u64,
    ip_bytes: u64,
    tcp_flags: u8,
    later_fragments: u64,
}

/// The oracle's rows; two that differ only in their link layers are one flow.
fn oracle(file: &Path) -> BTreeMap<Flow, Counts> {
    let mut flows: BTreeMap<Flow, Counts> = BTreeMap::new();
    for line in std::fs::read_to_string(file).unwrap().lines().skip(1) {
        let column: Vec<&str> = line.split('\t').collect();
        let flow = (
            column[0].parse().unwrap(),
            column[1].parse().unwrap(),
            column[2].parse().unwrap(),
            column[3].parse().unwrap(),
            column[4].parse().unwrap(),
        );
        let counts = flows.entry(flow).or_default();
        counts.packets += column[5].parse::<u64>().unwrap();
        counts.ip_bytes += column[6].parse::<u64>().unwrap();
        if let Some(tcp_flags) = column[10].strip_prefix("0x") {
            counts.tcp_flags |= u8::from_str_radix(tcp_flags, 16).unwrap();
        }
        counts.later_fragments += column[11].parse::<u64>().unwrap();
    }
    flows
}

/// Our counts of the same, and how many frames were refused, by why.
fn count(capture: &[u8]) -> (BTreeMap<Flow, Counts>, HashMap<Refusal, u64>) {
    let mut flows: BTreeMap<Flow, Counts> = BTreeMap::new();
    let mut refusals = HashMap::new();
    for_each_frame(capture, |link_type, captured, original_bytes| match parse(link_type, captured, original_bytes) {
        Ok(packet) => {
            let counts = flows.entry(flow(&packet)).or_default();
            counts.packets += 1;
            counts.ip_bytes += u64::from(packet.ip_bytes);
            counts.tcp_flags |= packet.tcp_flags;
            counts.later_fragments += u64::from(matches!(packet.fragment, Fragment::Later { .. }));
        }
        Err(refusal) => *refusals.entry(refusal).or_default() += 1,
    });
    (flows, refusals)
}

fn flow(packet: &Packet) -> Flow {
    let (src, dst) = match packet.addresses {
        Addresses::V4 { src, dst } => (IpAddr::V4(src.into()), IpAddr::V4(dst.into())),
        Addresses::V6 { src, dst } => (IpAddr::V6(src.into()), IpAddr::V6(dst.into())),
    };
    (src, dst, packet.src_port, packet.dst_port, packet.protocol)
}

fn for_each_frame(capture: &[u8], visit: impl FnMut(LinkType, &[u8], u32)) {
    match capture {
        [0x0a, 0x0d, 0x0d, 0x0a, ..] => for_each_block(capture, visit),
        [0xa1, 0xb2, rest @ ..] => for_each_record(capture, true, rest[..2] == [0xcd, 0x34], visit),
        [0x34, 0xcd, 0xb2, 0xa1, ..] => for_each_record(capture, false, true, visit),
        _ => for_each_record(capture, false, false, visit),
    }
}

/// The records of a pcap file; `modified` ones have eight bytes more of header.
fn for_each_record(capture: &[u8], big: bool, modified: bool, mut visit: impl FnMut(LinkType, &[u8], u32)) {
    let link_type = link_type(number(big, &capture[20..24]) as u16);
    let mut rest = &capture[24..];
    while rest.len() >= 16 {
        let (captured, original) = (number(big, &rest[8..12]) as usize, number(big, &rest[12..16]));
        let start = if modified { 24 } else { 16 };
        let Some(frame) = rest.get(start..start + captured) else { return };
        visit(link_type, frame, original);
        rest = &rest[start + captured..];
    }
}

/// The packet blocks of a pcapng file.
fn for_each_block(capture: &[u8], mut visit: impl FnMut(LinkType, &[u8], u32)) {
    let mut rest = capture;
    let mut interfaces = Vec::new();
    let mut big = false;
    while rest.len() >= 12 {
        if rest[..4] == [0x0a, 0x0d, 0x0d, 0x0a] {
            big = rest[8..12] == [0x1a, 0x2b, 0x3c, 0x4d];
            interfaces.clear();
        }
        let (kind, length) = (number(big, &rest[..4]), number(big, &rest[4..8]) as usize);
        let Some(body) = rest.get(8..length - 4) else { return };
        match kind {
            1 => interfaces.push(link_type(half(big, number(big, &body[..4])))),
            3 => {
                let original = number(big, &body[..4]);
                visit(interfaces[0], &body[4..(4 + original as usize).min(body.len())], original);
            }
            2 | 6 => {
                let captured = number(big, &body[12..16]) as usize;
                // The older of the two blocks has a count of drops behind a shorter number.
                let interface = number(big, &body[..4]);
                let interface = if kind == 6 { interface } else { half(big, interface).into() };
                visit(interfaces[interface as usize], &body[20..20 + captured], number(big, &body[16..20]));
            }
            _ => {}
        }
        rest = &rest[length..];
    }
}

fn number(big: bool, bytes: &[u8]) -> u32 {
    let bytes: [u8; 4] = bytes.try_into().unwrap();
    if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}

/// The first two of four bytes that were read as one number.
fn half(big: bool, number: u32) -> u16 {
    (if big { number >> 16 } else { number }) as u16
}

fn link_type(number: u16) -> LinkType {
    match number {
        0 => LinkType::Null,
        1 => LinkType::Ethernet,
        9 | 50 => LinkType::Ppp,
        12 | 14 | 101 | 228 | 229 => LinkType::Raw,
        51 => LinkType::Pppoe,
        104 => LinkType::CiscoHdlc,
        105 => LinkType::Ieee80211,
        108 => LinkType::Loop,
        113 => LinkType::LinuxSll,
        127 => LinkType::Radiotap,
        239 => LinkType::Nflog,
        276 => LinkType::LinuxSll2,
        _ => LinkType::Unsupported,
    }
}
