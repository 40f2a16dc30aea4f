//! The project's own captures: against the tables that their generator wrote, and against lines typed by hand from the
//! stories in `pcaps/README.md`.

use std::collections::BTreeMap;
use std::fs;

use flowtap_tests::totals::{FORMAT, Table, expected};
use flowtap_tests::{Dir, assert_text, root};

#[test]
fn every_capture_adds_up_to_what_its_generator_put_in() {
    let captures = names();
    for capture in &captures {
        let dir = Dir::new();
        dir.add_capture(capture);
        let replay = dir.replay(&[capture, "--fragments", "apart", "--format", FORMAT]);
        let expected = expected(capture);
        assert_eq!(Table::of_log(&replay.log()).differences(&expected), [], "{capture}");
        let counts = ["/frames/not-ip", "/frames/refused"].map(|reasons| replay.sum(reasons));
        assert_eq!(counts, ["not-ip", "refused"].map(|count| expected.counts[count]), "{capture}");
        assert_eq!(replay.count("/frames/offered"), expected.counts["frames"], "{capture}");
        let is_damaged = DAMAGED.contains(&capture.as_str());
        assert_eq!(replay.code, Some(i32::from(is_damaged)), "{capture}: {:?}", replay.complaints);
        assert_eq!(replay.complaints.len(), usize::from(is_damaged), "{capture}: {:?}", replay.complaints);
    }
    assert!(captures.len() > 30, "only {} captures", captures.len());
}

/// The captures that can't be read whole.
const DAMAGED: [&str; 4] = ["bad-magic.bin", "cut-record.pcap", "empty.pcap", "lying-length.pcap"];

/// Every capture of the project.
fn names() -> Vec<String> {
    let entries = fs::read_dir(root().join("pcaps")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_capture = |name: &String| [".pcap", ".pcapng", ".bin"].iter().any(|suffix| name.ends_with(suffix));
    let mut names: Vec<_> = names.filter(is_capture).collect();
    names.sort();
    names
}

/// The same four packets behind every link layer: a question, its answer, a SYN and a SYN-ACK.
#[test]
fn every_link_type_gives_the_same_flows() {
    let captures = [
        "chdlc.pcap",
        "cooked-v1.pcap",
        "cooked-v2.pcap",
        "loop.pcap",
        "mpls.pcap",
        "nflog.pcap",
        "null.pcap",
        "ppp.pcap",
        "ppp-hdlc.pcap",
        "pppoe.pcap",
        "pppoe-bare.pcap",
        "radiotap.pcap",
        "raw-ip.pcap",
        "snap.pcap",
        "vlan-qinq.pcap",
        "wifi.pcap",
    ];
    for capture in captures {
        let dir = Dir::new();
        dir.add_capture(capture);
        let log = dir.replay(&[capture, "-f", "${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol}"]).success();
        // Wireless frames that can't be read make a SKIPDATA row.
        let mut rows: Vec<&str> = log.lines().skip(1).filter(|row| !row.starts_with('-')).collect();
        rows.sort_unstable();
        rows.dedup();
        let expected = [
            "10.0.1.10 198.51.100.80 40001 9001 17",
            "198.51.100.80 10.0.1.10 9001 40001 17",
            "2001:db8:1:1::10 2001:db8:ff::80 40002 9002 6",
            "2001:db8:ff::80 2001:db8:1:1::10 9002 40002 6",
        ];
        assert_eq!(rows, expected, "{capture}");
    }
}

/// AWS has an interface's primary address for its own side, and the packet's own address beside it.
#[test]
fn with_parity_an_interface_has_one_address() {
    let dir = Dir::new();
    dir.add_capture("raw-ip.pcap");
    let known =
        "[[interface]]\nname = '*'\nlocal = ['10.0.1.0/24', '2001:db8:1:1::/64']\nprimary-address = '10.0.1.5'\n";
    dir.add("plain.toml", known);
    dir.add("parity.toml", format!("aws-parity = true\n{known}"));
    let rows = |configuration| {
        let format = "${srcaddr} ${dstaddr} ${pkt-srcaddr} ${pkt-dstaddr}";
        let log = dir.replay(&["raw-ip.pcap", "--config", configuration, "-f", format]).success();
        let mut rows: Vec<String> = log.lines().skip(1).map(str::to_owned).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    };
    let (own, peer) = ("2001:db8:1:1::10", "2001:db8:ff::80");
    let ipv6 = [format!("{own} {peer} {own} {peer}"), format!("{peer} {own} {peer} {own}")];
    let expected = |shown: &str| {
        let ipv4 = [
            format!("{shown} 198.51.100.80 10.0.1.10 198.51.100.80"),
            format!("198.51.100.80 {shown} 198.51.100.80 10.0.1.10"),
        ];
        [ipv4, ipv6.clone()].concat()
    };
    assert_eq!(rows("plain.toml"), expected("10.0.1.10"));
    assert_eq!(rows("parity.toml"), expected("10.0.1.5"));
}

/// Nothing is known of the host: the account is `unknown`, the interface is called after the file.
#[test]
fn fragments_belong_to_their_first_one() {
    let dir = Dir::new();
    dir.add_capture("fragments.pcap");
    assert_text(
        &dir.replay(&["fragments.pcap"]).success(),
        "\
version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status
2 unknown fragments 10.0.1.10 198.51.100.80 0 0 17 1 324 1772442000 1772442000 ACCEPT OK
2 unknown fragments 10.0.1.10 198.51.100.80 6001 7000 17 2 648 1772442000 1772442000 ACCEPT OK
2 unknown fragments 10.0.1.10 198.51.100.80 6002 7000 17 2 648 1772442000 1772442000 ACCEPT OK
2 unknown fragments 10.0.1.10 198.51.100.80 6004 7000 17 1 324 1772442059 1772442059 ACCEPT OK
2 unknown fragments 10.0.1.10 198.51.100.80 0 0 17 1 324 1772442060 1772442060 ACCEPT OK
2 unknown fragments 10.0.1.10 198.51.100.80 6005 7000 17 2 648 1772442060 1772442060 ACCEPT OK
2 unknown fragments 10.0.1.10 198.51.100.80 6007 443 6 3 580 1772442060 1772442060 ACCEPT OK
2 unknown fragments 10.0.1.20 198.51.100.80 6006 7000 17 2 648 1772442060 1772442060 ACCEPT OK
2 unknown fragments 2001:db8:1:1::10 2001:db8:ff::80 0 0 17 1 352 1772442060 1772442060 ACCEPT OK
2 unknown fragments 2001:db8:1:1::10 2001:db8:ff::80 6011 7000 17 2 704 1772442060 1772442060 ACCEPT OK
2 unknown fragments 2001:db8:1:1::10 2001:db8:ff::80 6012 7000 17 2 704 1772442060 1772442060 ACCEPT OK
2 unknown fragments 2001:db8:1:1::10 2001:db8:ff::80 6014 7000 17 1 656 1772442060 1772442060 ACCEPT OK
2 unknown fragments 2001:db8:1:1::10 2001:db8:ff::80 6015 7000 17 2 720 1772442060 1772442060 ACCEPT OK
2 unknown fragments 10.0.1.10 198.51.100.80 6021 7000 17 2 648 1772442120 1772442120 ACCEPT OK
2 unknown fragments 10.0.1.10 198.51.100.80 6022 7000 17 2 648 1772442180 1772442180 ACCEPT OK
",
    );
}

#[test]
fn fragments_apart_have_no_ports() {
    let dir = Dir::new();
    dir.add_capture("fragments.pcap");
    let format = "${srcaddr} ${srcport} ${protocol} ${packets} ${bytes} ${start}";
    assert_text(
        &dir.replay(&["fragments.pcap", "--fragments", "apart", "-f", format]).success(),
        "\
srcaddr srcport protocol packets bytes start
10.0.1.10 0 17 3 972 1772442000
10.0.1.10 6001 17 1 324 1772442000
10.0.1.10 6002 17 1 324 1772442000
10.0.1.10 6004 17 1 324 1772442059
10.0.1.10 0 6 2 304 1772442060
10.0.1.10 0 17 2 648 1772442060
10.0.1.10 6005 17 1 324 1772442060
10.0.1.10 6007 6 1 276 1772442060
10.0.1.20 0 17 1 324 1772442060
10.0.1.20 6006 17 1 324 1772442060
2001:db8:1:1::10 0 17 4 1416 1772442060
2001:db8:1:1::10 6011 17 1 352 1772442060
2001:db8:1:1::10 6012 17 1 352 1772442060
2001:db8:1:1::10 6014 17 1 656 1772442060
2001:db8:1:1::10 6015 17 1 360 1772442060
10.0.1.10 0 17 1 324 1772442120
10.0.1.10 6021 17 1 324 1772442120
10.0.1.10 0 17 1 324 1772442180
10.0.1.10 6022 17 1 324 1772442180
",
    );
}

/// Packet n has 28 + n bytes, so that sums tell which packets are in a row. Packet 9 makes a late row, packet 10 is ten
/// years ahead.
#[test]
fn packets_belong_to_the_interval_of_their_own_time() {
    let dir = Dir::new();
    dir.add_capture("intervals.pcap");
    let replay = dir.replay(&["intervals.pcap", "-f", "${packets} ${bytes} ${start} ${end}"]);
    assert_eq!((replay.count("/late-packets"), replay.count("/rows/late"), replay.count("/intervals")), (1, 1, 6));
    assert_text(
        &replay.success(),
        "\
packets bytes start end
4 126 1772442000 1772442059
1 37 1772442002 1772442002
1 31 1772442060 1772442060
1 34 1772442179 1772442179
1 33 1772442185 1772442185
3 115 1772442240 1772442260
1 38 2087802000 2087802000
",
    );
}

/// The table of `pcaps/README.md`.
#[test]
fn tcp_flags_follow_the_rule_of_aws() {
    let dir = Dir::new();
    dir.add_capture("tcp-flags.pcap");
    let format = "${srcport} ${packets} ${tcp-flags} ${x-tcp-flags-raw}";
    assert_text(
        &dir.replay(&["tcp-flags.pcap", "-f", format]).success(),
        "\
srcport packets tcp-flags x-tcp-flags-raw
1001 1 2 2
1002 1 18 18
1003 1 1 17
1004 1 4 20
1005 1 4 4
1006 1 0 16
1007 1 0 24
1008 1 0 48
1009 1 2 194
1010 1 18 82
1011 3 3 19
1012 3 19 19
1013 4 7 23
1014 2 22 22
1015 3 23 23
1016 2 2 18
1017 1 0 0
1018 1 1 41
1019 1 23 255
1020 1 3 3
",
    );
}

/// Bytes by class, from the sums in `pcaps/README.md`: what looks alike and is ordinary has `-`.
#[test]
fn services_have_their_class() {
    let v4 = [
        ("-", 130 + 486 + 152 + 2 * 548 + 2 * 84),
        ("activation", 2 * 548),
        ("dhcp", 5 * 328),
        ("dns", 2 * 130 + 486),
        ("metadata", 548),
        ("mirror", 2 * 134),
        ("router", 2 * 84),
        ("time", 152),
    ];
    let v6 = [
        ("-", 170 + 2 * 748 + 192 + 2 * 104),
        ("activation", 748),
        ("dhcp", 2 * 66),
        ("dns", 170 + 686),
        ("metadata", 748),
        ("mirror", 2 * 154),
        ("router", 4 * 104),
        ("time", 192),
    ];
    for (capture, subnet, expected) in
        [("services-v4.pcap", "10.0.1.0/24", v4), ("services-v6.pcap", "2001:db8:1:1::/64", v6)]
    {
        let dir = Dir::new();
        dir.add_capture(capture);
        let networks = ["--vpc-cidr", "10.0.0.0/16", "--subnet-cidr", subnet];
        let log = dir.replay(&[&[capture, "-f", "${x-traffic-class} ${bytes}"], &networks[..]].concat()).success();
        let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
        for row in log.lines().skip(1) {
            let (class, more) = row.split_once(' ').unwrap();
            *bytes.entry(class.to_owned()).or_default() += more.parse::<u64>().unwrap();
        }
        assert_eq!(bytes, expected.map(|(class, bytes)| (class.to_owned(), bytes)).into(), "{capture}");
    }
}

/// Sent, received, sent, for another host: what is not sent came in.
#[test]
fn the_modified_header_tells_directions() {
    let dir = Dir::new();
    dir.add_capture("kuznetzov.pcap");
    assert_text(
        &dir.replay(&["kuznetzov.pcap", "-f", "${srcaddr} ${flow-direction}"]).success(),
        "\
srcaddr flow-direction
10.0.1.10 egress
198.51.100.80 ingress
2001:db8:1:1::10 egress
2001:db8:ff::80 ingress
",
    );
}

/// Interfaces by their own names; a nameless one has the file's. `eth0` reports 3 drops and `tun1` 7: each has a
/// SKIPDATA row. A simple block has no time, so its packet stands at the epoch.
#[test]
fn sections_have_interfaces_of_their_own() {
    let dir = Dir::new();
    dir.add_capture("sections.pcapng");
    let format = "${interface-id} ${srcport} ${bytes} ${start} ${end} ${flow-direction} ${log-status}";
    let replay = dir.replay(&["sections.pcapng", "-f", format]);
    assert_eq!((replay.count("/capture-drops"), replay.count("/rows/skipdata")), (10, 2));
    assert_text(
        &replay.success(),
        "\
interface-id srcport bytes start end flow-direction log-status
eth0 4006 78 0 0 - OK
sections 4013 78 0 0 - OK
eth0 4001 78 1772442000 1772442000 ingress OK
eth0 4002 78 1772442000 1772442000 egress OK
tun0 4003 78 1772442000 1772442000 - OK
eth1 4004 78 1772442000 1772442000 - OK
eth1 4005 78 1772442000 1772442000 egress OK
tun1 4011 78 1772442002 1772442002 ingress OK
tun1 4012 78 1772442003 1772442003 - OK
eth0 - - 1772442000 1772442059 - SKIPDATA
tun1 - - 1772442000 1772442059 - SKIPDATA
",
    );
}
