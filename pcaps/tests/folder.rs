//! The committed folder against its generator and its README.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use flowtap_pcaps::capture::{Capture, Fate};
use flowtap_pcaps::{captures, differences, expected, outputs};

const KIB: usize = 1024;

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_generator_writes_the_same_twice() {
    assert!(outputs() == outputs());
}

#[test]
fn the_committed_files_are_what_the_generator_writes() {
    assert_eq!(differences(folder()), Vec::<std::path::PathBuf>::new(), "run: cargo run -p flowtap-pcaps -- pcaps");
}

#[test]
fn no_file_is_there_that_the_generator_does_not_write() {
    let written: Vec<_> = outputs().into_iter().map(|(path, _)| folder().join(path)).collect();
    let is_ours =
        |path: &Path| ["src", "tests", "expected", "Cargo.toml", "README.md"].iter().any(|own| path.ends_with(own));
    for place in [folder().to_path_buf(), folder().join("expected")] {
        for entry in fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            assert!(is_ours(&path) || written.contains(&path), "{} has no generator", path.display());
        }
    }
}

#[test]
fn captures_stay_small() {
    for capture in captures() {
        let damaged = ["cut-record.pcap", "lying-length.pcap", "empty.pcap", "bad-magic.bin", "garbage-frames.pcap"];
        let bound = match capture.name {
            "demo.pcap" => 200_000,
            name if damaged.contains(&name) => 2 * KIB,
            _ => 20 * KIB,
        };
        assert!(capture.contents.len() <= bound, "{} has {} bytes", capture.name, capture.contents.len());
    }
}

#[test]
fn the_demo_is_five_minutes_of_a_few_hundred_frames() {
    let demo = captures().into_iter().find(|capture| capture.name == "demo.pcap").unwrap();
    assert!((300..=800).contains(&demo.frames.len()));
    assert!(demo.frames.is_sorted_by_key(|frame| frame.time_ns));
    let minute = |ns: u64| ns / 60_000_000_000;
    let minutes = demo.frames.iter().map(|frame| minute(frame.time_ns));
    let minutes = minutes.collect::<std::collections::BTreeSet<_>>();
    assert_eq!(minutes.len(), 5);
}

/// The totals that the README states were worked out from the stories by hand or are sums of the rows; either way they
/// must be the generator's.
#[test]
fn the_readme_lists_every_capture_with_its_totals() {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let listed: BTreeMap<&str, &str> = readme.lines().filter_map(row).collect();
    let generated: BTreeMap<&str, String> = captures().iter().map(|capture| (capture.name, stated(capture))).collect();
    let generated: BTreeMap<&str, &str> = generated.iter().map(|(name, totals)| (*name, totals.as_str())).collect();
    assert_eq!(listed, generated);
}

/// Name, and frames, not IP, refused, flows, packets and bytes, of a line of the README's tables.
fn row(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("| `")?;
    let (name, rest) = rest.split_once("` | ")?;
    let (totals, _story) = rest.rsplit_once(" | ").filter(|(totals, _)| totals.matches('|').count() == 5)?;
    Some((name, totals))
}

fn stated(capture: &Capture) -> String {
    let count = |wanted: fn(&Fate) -> bool| capture.frames.iter().filter(|frame| wanted(&frame.fate)).count();
    let not_ip = count(|fate| matches!(fate, Fate::NotIp(_)));
    let refused = count(|fate| matches!(fate, Fate::Refused(_)));
    let rows = expected::totals(capture);
    let packets: u64 = rows.values().map(|totals| totals.packets).sum();
    let bytes: u64 = rows.values().map(|totals| totals.ip_bytes).sum();
    format!("{} | {not_ip} | {refused} | {} | {packets} | {bytes}", capture.frames.len(), rows.len())
}

#[test]
fn checksums_of_whole_packets_are_right() {
    let ethernet_only =
        ["demo.pcap", "services-v4.pcap", "services-v6.pcap", "policy-tcp.pcap", "tcp-flags.pcap", "icmp.pcap"];
    let mut checked = 0;
    for capture in captures().iter().filter(|capture| ethernet_only.contains(&capture.name)) {
        for frame in capture.frames.iter().filter(|frame| matches!(frame.fate, Fate::Counted { .. })) {
            let sliced = SlicedPacket::from_ethernet(&frame.bytes).unwrap();
            checked += 1;
            assert!(checksums_hold(&sliced), "{}: {frame:?}", capture.name);
        }
    }
    assert!(checked > 500);
}

fn checksums_hold(packet: &SlicedPacket<'_>) -> bool {
    match (&packet.net, &packet.transport) {
        (Some(NetSlice::Ipv4(ip)), transport) => {
            let header = ip.header();
            let (src, dst) = (header.source(), header.destination());
            let own = header.to_header().calc_header_checksum() == header.header_checksum();
            own && match transport {
                Some(TransportSlice::Tcp(tcp)) => tcp.calc_checksum_ipv4(src, dst).ok() == Some(tcp.checksum()),
                Some(TransportSlice::Udp(udp)) => {
                    udp.to_header().calc_checksum_ipv4_raw(src, dst, udp.payload()).ok() == Some(udp.checksum())
                }
                Some(TransportSlice::Icmpv4(icmp)) => icmp.icmp_type().calc_checksum(icmp.payload()) == icmp.checksum(),
                _ => ip.is_payload_fragmented(),
            }
        }
        (Some(NetSlice::Ipv6(ip)), transport) => {
            let (src, dst) = (ip.header().source(), ip.header().destination());
            match transport {
                Some(TransportSlice::Tcp(tcp)) => tcp.calc_checksum_ipv6(src, dst).ok() == Some(tcp.checksum()),
                Some(TransportSlice::Udp(udp)) => {
                    udp.to_header().calc_checksum_ipv6_raw(src, dst, udp.payload()).ok() == Some(udp.checksum())
                }
                Some(TransportSlice::Icmpv6(icmp)) => icmp.is_checksum_valid(src, dst),
                _ => false,
            }
        }
        _ => false,
    }
}
