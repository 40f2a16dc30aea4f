//! A second opinion: Wireshark's dissector on the committed captures, where it is installed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use flowtap_pcaps::capture::Capture;
use flowtap_pcaps::packet::{Flow, has_ports};
use flowtap_pcaps::{captures, expected};

/// What tshark says of a capture with these arguments, line by line; `None` where there is no tshark.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn tshark(capture: &Capture, arguments: &[&str]) -> Option<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(capture.name);
    let output = Command::new("tshark").arg("-n").arg("-r").arg(path).args(arguments).output();
    let Ok(output) = output else {
        eprintln!("skipped: no tshark");
        return None;
    };
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn captures_except(left_out: &[&str]) -> Vec<Capture> {
    captures().into_iter().filter(|capture| !left_out.contains(&capture.name)).collect()
}

/// These are meant to be wrong, or hold protocols that their payload does not obey.
const NOT_CLEAN: [&str; 5] =
    ["bad-magic.bin", "garbage-frames.pcap", "unsupported-link.pcap", "protocols.pcap", "tso-zero-length.pcap"];

#[test]
fn tshark_finds_nothing_malformed_and_no_wrong_checksum() {
    let wrong = "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0 \
                 || icmp.checksum.status == 0 || icmpv6.checksum.status == 0";
    let check = ["ip.check_checksum:TRUE", "tcp.check_checksum:TRUE", "udp.check_checksum:TRUE"];
    let options = check.iter().flat_map(|option| ["-o", option]).chain(["-Y", wrong]);
    let options: Vec<&str> = options.collect();
    for capture in captures_except(&NOT_CLEAN) {
        let Some(lines) = tshark(&capture, &options) else { return };
        assert_eq!(lines, Vec::<String>::new(), "{}", capture.name);
    }
}

/// Of some only the frames: left out is what tshark counts differently: extension headers and pieces as protocols of
/// their own, lengths of zero, cut headers, quoted packets, a pseudowire and an aggregate taken apart, and the number
/// that Linux gives the family of IPv6.
#[test]
fn tshark_counts_the_same_frames_and_flows() {
    let left_out = [
        &NOT_CLEAN[..],
        &[
            "ip-options.pcap",
            "fragments.pcap",
            "jumbogram.pcap",
            "snaplen.pcap",
            "icmp.pcap",
            "mpls.pcap",
            "null.pcap",
            "wifi.pcap",
        ],
    ];
    let left_out = left_out.concat();
    for capture in captures_except(&["bad-magic.bin"]) {
        let Some(lines) = tshark(&capture, &FLOW_FIELDS) else { return };
        assert_eq!(lines.len(), capture.frames.len(), "{}", capture.name);
        if left_out.contains(&capture.name) {
            continue;
        }
        let mut found: BTreeMap<Flow, (u64, u64)> = BTreeMap::new();
        for (flow, bytes) in lines.iter().filter_map(|line| flow(line)) {
            let sum = found.entry(flow).or_default();
            *sum = (sum.0 + 1, sum.1 + bytes);
        }
        let stated = expected::totals(&capture);
        let stated: BTreeMap<_, _> =
            stated.into_iter().map(|(flow, totals)| (flow, (totals.packets, totals.ip_bytes))).collect();
        assert_eq!(found, stated, "{}", capture.name);
    }
}

/// The first occurrence of each field, so the outermost header.
const FLOW_FIELDS: [&str; 36] = [
    "--disable-protocol",
    "vxlan",
    "-o",
    "ip.defragment:FALSE",
    "-o",
    "ipv6.defragment:FALSE",
    "-E",
    "occurrence=f",
    "-E",
    "separator=|",
    "-T",
    "fields",
    "-e",
    "ip.src",
    "-e",
    "ip.dst",
    "-e",
    "ip.proto",
    "-e",
    "ip.len",
    "-e",
    "ipv6.src",
    "-e",
    "ipv6.dst",
    "-e",
    "ipv6.nxt",
    "-e",
    "ipv6.plen",
    "-e",
    "tcp.srcport",
    "-e",
    "tcp.dstport",
    "-e",
    "udp.srcport",
    "-e",
    "udp.dstport",
];

/// Flow and IP bytes of one line of [`FLOW_FIELDS`]; `None` where there is no IP.
fn flow(line: &str) -> Option<(Flow, u64)> {
    let fields: Vec<&str> = line.split('|').collect();
    let (ip, ports) = fields.split_at(8);
    let (ip, header_bytes) = if ip[0].is_empty() { (&ip[4..], 40) } else { (&ip[..4], 0) };
    let src = ip[0].parse().ok()?;
    let protocol = ip[2].parse().ok()?;
    let port = |index: usize| match has_ports(protocol) {
        true => [ports[index], ports[index + 2]].concat().parse().unwrap_or(0),
        false => 0,
    };
    let flow = Flow { src, dst: ip[1].parse().ok()?, src_port: port(0), dst_port: port(1), protocol };
    Some((flow, ip[3].parse::<u64>().ok()? + header_bytes))
}
