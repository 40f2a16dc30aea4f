//! Readers that are not ours: what they find in our files, and what another dissector counts in the same packets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use flowtap_tests::program::command;
use flowtap_tests::totals::skip;
use flowtap_tests::{Dir, Rows, assert_text, root};

/// Runs one of the scripts beside this folder; `None`, and a word about it, where Python has no such module.
fn python(dir: &Dir, module: &str, script: &str, arguments: &[&str]) -> Option<String> {
    let own = root().join(".venv/bin/python");
    let python = if own.exists() { own } else { PathBuf::from("python3") };
    let probe = format!("'{}' -c 'import {module}'", python.display());
    if dir.shell(&probe).code != Some(0) {
        skip(&format!("Python has no {module}: `make setup` installs it"));
        return None;
    }
    let script = root().join("tests/outsiders").join(script);
    Some(dir.run(command(&python).arg(script).args(arguments)).success())
}

const SECTIONS_AND_MORE: [&str; 4] = ["sections.pcapng", "demo.pcap", "services-v6.pcap", "policy-tcp.pcap"];

/// A directory with all of these captures in it.
fn captures() -> Dir {
    let dir = Dir::new();
    SECTIONS_AND_MORE.iter().for_each(|capture| dir.add_capture(capture));
    dir
}

const IDENTITY: [&str; 6] = ["--account-id", "123456789012", "--region", "eu-dc-1", "--local", "10.0.1.10"];

/// The reader walks our directory as a bucket: it must find the files by their keys and read every row of them.
#[test]
fn flowlogs_reader_finds_and_reads_a_directory() {
    for format in ["v2", "v3", "v4", "v5"] {
        for form in ["text", "parquet"] {
            let dir = captures();
            let settings = [&IDENTITY[..], &["--format", format, "--file-format", form]].concat();
            let expected = dir.replay(&[&SECTIONS_AND_MORE[..], &IDENTITY, &["--format", format]].concat()).success();
            dir.replay(&[&SECTIONS_AND_MORE[..], &settings, &["--output", "bucket/"]].concat()).success();
            let (header, _) = expected.split_once('\n').unwrap();
            let arguments: Vec<&str> = ["bucket"].into_iter().chain(header.split(' ')).collect();
            let Some(read) = python(&dir, "flowlogs_reader", "bucket.py", &arguments) else { return };
            let mut read: Vec<&str> = read.lines().collect();
            // Packets without a time stand at the epoch, a folder that the reader is not asked for.
            let mut expected: Vec<&str> =
                expected.lines().skip(1).filter(|row| !row.contains(" 0 0 ACCEPT OK")).collect();
            read.sort_unstable();
            expected.sort_unstable();
            assert_eq!(read, expected, "{format} as {form}");
        }
    }
}

#[test]
fn pyarrow_reads_the_rows_that_text_has() {
    let dir = captures();
    let settings = [&SECTIONS_AND_MORE[..], &IDENTITY, &["--format", "full"]].concat();
    let log = dir.replay(&settings).success();
    for codec in ["gzip", "zstd", "none"] {
        let file = format!("{codec}.parquet");
        dir.replay(&[&settings[..], &["--output", &file, "--compression", codec]].concat()).success();
        let Some(rows) = python(&dir, "pyarrow", "parquet_rows.py", &[&file]) else { return };
        let (_, expected) = log.split_once('\n').unwrap();
        assert_text(&rows, expected);
    }
}

/// AWS's INT_32, INT_64 and STRING, all of them optional, with gzip inside.
#[test]
fn pyarrow_sees_the_schema_of_aws() {
    let dir = captures();
    dir.replay(&["demo.pcap", "--format", "v5", "--output", "log.parquet"]).success();
    let Some(schema) = python(&dir, "pyarrow", "parquet_schema.py", &["log.parquet"]) else { return };
    let columns: Vec<String> = schema
        .lines()
        .map(|line| {
            let [name, physical, logical, "1", "GZIP", "statistics", "dictionary"] =
                line.split(' ').collect::<Vec<_>>()[..]
            else {
                panic!("{line}")
            };
            format!("{name} {physical} {logical}")
        })
        .collect();
    let expected = [
        "version INT32 NONE",
        "account_id BYTE_ARRAY STRING",
        "interface_id BYTE_ARRAY STRING",
        "srcaddr BYTE_ARRAY STRING",
        "dstaddr BYTE_ARRAY STRING",
        "srcport INT32 NONE",
        "dstport INT32 NONE",
        "protocol INT32 NONE",
        "packets INT64 NONE",
        "bytes INT64 NONE",
        "start INT64 NONE",
        "end INT64 NONE",
        "action BYTE_ARRAY STRING",
        "log_status BYTE_ARRAY STRING",
        "vpc_id BYTE_ARRAY STRING",
        "subnet_id BYTE_ARRAY STRING",
        "instance_id BYTE_ARRAY STRING",
        "tcp_flags INT32 NONE",
        "type BYTE_ARRAY STRING",
        "pkt_srcaddr BYTE_ARRAY STRING",
        "pkt_dstaddr BYTE_ARRAY STRING",
        "region BYTE_ARRAY STRING",
        "az_id BYTE_ARRAY STRING",
        "sublocation_type BYTE_ARRAY STRING",
        "sublocation_id BYTE_ARRAY STRING",
        "pkt_src_aws_service BYTE_ARRAY STRING",
        "pkt_dst_aws_service BYTE_ARRAY STRING",
        "flow_direction BYTE_ARRAY STRING",
        "traffic_path INT32 NONE",
    ];
    assert_eq!(columns, expected);
}

#[test]
fn duckdb_adds_up_to_the_ledger() {
    let dir = captures();
    for file in ["log.parquet", "log.gz", "log.csv"] {
        let replay = dir.replay(&[&SECTIONS_AND_MORE[..], &["--output", file]].concat());
        let Some(sums) = python(&dir, "duckdb", "duckdb_sums.py", &[file]) else { return };
        let [written, skipdata, packets, bytes] =
            ["written", "skipdata", "packets", "bytes"].map(|count| replay.count(&format!("/rows/{count}")));
        // The last to end is either a row of the last packets or a SKIPDATA row.
        let log = dir.replay(&SECTIONS_AND_MORE).success();
        let ends =
            Rows::parse(&log).column("end").unwrap().iter().map(|end| end.parse::<u64>().unwrap()).max().unwrap();
        assert_text(&sums, &format!("{} {written} {packets} {bytes} {ends}\n", written + skipdata));
    }
}

/// Packets and IP bytes from each address to each other one.
#[test]
fn tshark_counts_the_same_packets_and_bytes() {
    let dir = Dir::new();
    dir.add_capture("demo.pcap");
    // The outermost header only (`occurrence=f`), and fragments as they are on the wire.
    let fields = "-e ip.src -e ip.dst -e ip.len -e ipv6.src -e ipv6.dst -e ipv6.plen -e frame.number";
    let options = "-o ip.defragment:FALSE -o ipv6.defragment:FALSE -T fields -E occurrence=f";
    let run = dir.shell(&format!("HOME=$PWD exec tshark -r demo.pcap {options} {fields}"));
    if run.code == Some(127) {
        skip("there is no tshark: `make setup` installs it");
        return;
    }
    let mut theirs: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    let mut add = |src: &str, dst: &str, bytes: u64| {
        let sums = theirs.entry((src.to_owned(), dst.to_owned())).or_default();
        *sums = (sums.0 + 1, sums.1 + bytes);
    };
    for line in run.success().lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            [src, dst, length, "", "", "", _] if !src.is_empty() => add(src, dst, length.parse().unwrap()),
            // The length field of IPv6 leaves out the header's 40 bytes.
            ["", "", "", src, dst, length, _] if !src.is_empty() => add(src, dst, length.parse::<u64>().unwrap() + 40),
            ["", "", "", "", "", "", _] => {}
            _ => panic!("{line}"),
        }
    }
    let log = dir.replay(&["demo.pcap", "-f", "${srcaddr} ${dstaddr} ${packets} ${bytes}"]).success();
    let mut ours: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for row in log.lines().skip(1) {
        let [src, dst, packets, bytes] = row.split(' ').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let sums = ours.entry((src.to_owned(), dst.to_owned())).or_default();
        *sums = (sums.0 + packets.parse::<u64>().unwrap(), sums.1 + bytes.parse::<u64>().unwrap());
    }
    assert_eq!(ours, theirs);
    assert!(theirs.len() > 20, "{theirs:?}");
}
