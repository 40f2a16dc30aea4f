//! Where records go: standard output, one file, a directory arranged as AWS arranges a bucket; and what happens when
//! they can't go there.
//!
//! Authority for names and folders: the AWS page "Flow log files".

use std::io::Read;

use flate2::read::GzDecoder;
use flowtap_tests::totals::skip;
use flowtap_tests::{Dir, assert_text};
use serde_json::{Value, json};

use crate::made;

fn demo() -> Dir {
    let dir = Dir::new();
    dir.add_capture("demo.pcap");
    dir
}

fn gunzip(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

fn unzstd(bytes: &[u8]) -> String {
    String::from_utf8(zstd::decode_all(bytes).unwrap()).unwrap()
}

#[test]
fn the_name_of_a_file_says_what_it_holds() {
    let dir = demo();
    let text = dir.replay(&["demo.pcap"]).success();
    assert_eq!(dir.replay(&["demo.pcap", "-o", "-"]).success(), text);
    for name in ["log.txt", "log", "log.gz", "log.zst", "log.json", "log.json.gz", "log.parquet"] {
        let replay = dir.replay(&["demo.pcap", "--output", name]);
        assert_eq!((replay.count("/files/0/rows"), replay.count("/rows/written")), (215, 215), "{name}");
        assert_eq!(replay.count("/files/0/bytes"), dir.read(name).len() as u64);
        assert_text(&replay.success(), "");
    }
    assert_text(&String::from_utf8(dir.read("log.txt")).unwrap(), &text);
    assert_eq!(dir.read("log"), text.as_bytes());
    assert_text(&gunzip(&dir.read("log.gz")), &text);
    assert_text(&unzstd(&dir.read("log.zst")), &text);
    assert_eq!(gunzip(&dir.read("log.json.gz")).as_bytes(), dir.read("log.json"));
    let parquet = dir.read("log.parquet");
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
}

/// Hyphenated names, numbers as numbers, and absent what is absent in JSON.
#[test]
fn json_has_an_object_a_row() {
    let dir = Dir::new();
    dir.add_capture("sections.pcapng");
    let log = dir.replay(&["sections.pcapng", "--file-format", "json"]).success();
    let rows: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 11);
    let row = json!({
        "version": 2, "account-id": "unknown", "interface-id": "eth0", "srcaddr": "10.0.1.10",
        "dstaddr": "198.51.100.80", "srcport": 4001, "dstport": 9000, "protocol": 17, "packets": 1, "bytes": 78,
        "start": 1772442000, "end": 1772442000, "action": "ACCEPT", "log-status": "OK",
    });
    assert_eq!(rows[2], row);
    let skipped = rows[9].as_object().unwrap();
    let present: Vec<_> = skipped.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(present, ["account-id", "end", "interface-id", "log-status", "start", "version"]);
}

#[test]
fn form_and_compression_win_over_the_name() {
    let dir = demo();
    let text = dir.replay(&["demo.pcap"]).success();
    dir.replay(&["demo.pcap", "-o", "a.parquet", "--file-format", "text", "--compression", "zstd"]).success();
    assert_text(&unzstd(&dir.read("a.parquet")), &text);
    let json = dir.replay(&["demo.pcap", "--file-format", "json"]).success();
    assert_eq!(json.lines().count() + 1, text.lines().count());
    let sizes = ["none", "gzip", "zstd"].map(|codec| {
        dir.replay(&["demo.pcap", "-f", "full", "-o", codec, "--file-format", "parquet", "--compression", codec])
            .success();
        dir.read(codec).len()
    });
    assert!(sizes[0] > sizes[1] && sizes[0] > sizes[2], "{sizes:?}");
}

/// The five-minute slot by `end` in every name: packets at 09:04:59, at 09:05:00 and ten years later.
#[test]
fn a_directory_is_arranged_as_a_bucket() {
    let arrangements: [(&[&str], &str); 4] = [
        (&[], "AWSLogs/123456789012/vpcflowlogs/eu-dc-1/2026/03/02/"),
        (&["--per-hour-partition"], "AWSLogs/123456789012/vpcflowlogs/eu-dc-1/2026/03/02/09/"),
        (
            &["--hive-compatible-partitions"],
            "AWSLogs/aws-account-id=123456789012/aws-service=vpcflowlogs/aws-region=eu-dc-1/year=2026/month=03/day=02/",
        ),
        (
            &["--hive-compatible-partitions", "--per-hour-partition"],
            "AWSLogs/aws-account-id=123456789012/aws-service=vpcflowlogs/aws-region=eu-dc-1/\
             year=2026/month=03/day=02/hour=09/",
        ),
    ];
    for (options, folder) in arrangements {
        let dir = Dir::new();
        dir.add("in.pcap", made::capture([NINE, NINE + 299, NINE + 300, NINE + 301]));
        let identity = ["in.pcap", "-o", "out/", "--account-id", "123456789012", "--region", "eu-dc-1"];
        let replay = dir.replay(&[&identity, options].concat());
        assert_eq!(replay.ledger["files"].as_array().unwrap().len(), 2);
        replay.success();
        let files: Vec<String> = dir.files().into_iter().filter(|file| file != "in.pcap").collect();
        for (file, slot) in files.iter().zip(["20260302T0900Z", "20260302T0905Z"]) {
            let name = file.strip_prefix("out/").and_then(|key| key.strip_prefix(folder));
            assert_name(name.unwrap_or_else(|| panic!("{file} is not in {folder}")), slot, ".log.gz");
            let log = gunzip(&dir.read(file));
            assert!(log.starts_with("version account-id interface-id "), "{log}");
            assert_eq!(log.lines().count(), 3, "{log}");
        }
        assert_eq!(files.len(), 2);
    }
}

/// `{account}_vpcflowlogs_{region}_fl-{hexadecimal}_{slot}_{8 hexadecimal digits}{suffix}`
fn assert_name(name: &str, slot: &str, suffix: &str) {
    let is_hexadecimal = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let stem = name.strip_suffix(suffix).unwrap_or_else(|| panic!("{name}"));
    let [account, "vpcflowlogs", region, flow_log, time, hash] = stem.split('_').collect::<Vec<_>>()[..] else {
        panic!("{name}")
    };
    assert_eq!((account, region, time), ("123456789012", "eu-dc-1", slot), "{name}");
    let flow_log = flow_log.strip_prefix("fl-").unwrap_or_else(|| panic!("{name}"));
    assert!(flow_log.len() == 17 && is_hexadecimal(flow_log) && hash.len() == 8 && is_hexadecimal(hash), "{name}");
}

#[test]
fn a_directory_of_parquet_says_so_in_its_names() {
    let dir = Dir::new();
    dir.add("in.pcap", made::capture([NINE]));
    let identity = ["in.pcap", "-o", "out/", "--account-id", "123456789012", "--region", "eu-dc-1"];
    dir.replay(&[&identity[..], &["--file-format", "parquet"]].concat()).success();
    let files = dir.files();
    let (_, name) = files[1].rsplit_once('/').unwrap();
    assert_name(name, "20260302T0900Z", ".log.parquet");
}

/// A second replay into the same directory adds files; a directory that exists needs no final slash.
#[test]
fn what_is_published_is_never_replaced() {
    let dir = Dir::new();
    dir.add("in.pcap", made::capture([NINE]));
    dir.add("out/kept", "kept");
    dir.replay(&["in.pcap", "-o", "out"]).success();
    let first = dir.files();
    assert_eq!(first.len(), 3);
    dir.replay(&["in.pcap", "-o", "out/"]).success();
    let both = dir.files();
    assert_eq!(both.len(), 4);
    assert!(first.iter().all(|file| both.contains(file)));
}

#[test]
fn a_file_that_exists_is_kept_until_told_otherwise() {
    let dir = demo();
    dir.add("log", "precious");
    let run = dir.flowtap(&["replay", "demo.pcap", "-o", "log"]);
    assert_text(&run.failure(2), "flowtap: log exists already\n");
    assert_eq!(dir.read("log"), b"precious");
    dir.replay(&["demo.pcap", "-o", "log", "--overwrite"]).success();
    assert!(dir.read("log").starts_with(b"version "));
    assert_eq!(dir.files(), ["demo.pcap", "log"]);
}

/// The one message of a run whose output failed. Where rows went missing, the ledger says that it stays open.
#[track_caller]
fn failure(said: &str) -> &str {
    let mut lines = said.lines();
    let complaint = lines.next().and_then(|line| line.strip_prefix("flowtap: ")).unwrap_or_else(|| panic!("{said}"));
    assert!(lines.clone().all(|line| !line.starts_with("flowtap: ")), "{said}");
    let ledger = lines.last().unwrap_or("ledger    open: the output failed, so rows are missing");
    assert_eq!(ledger, "ledger    open: the output failed, so rows are missing");
    complaint
}

/// What can't be written is told once, with its name, and is no fault of the command line.
#[test]
fn an_output_that_cannot_be_written_is_named() {
    let dir = demo();
    dir.add("file", "");
    for (output, name) in
        [("/dev/full", "/dev/full"), ("/proc/nowhere/", "/proc/nowhere/"), ("/proc/log", "/proc"), ("file/log", "file")]
    {
        let said = dir.flowtap(&["replay", "demo.pcap", "-o", output]).failure(1);
        assert!(failure(&said).contains(name), "{said}");
    }
    assert_eq!(dir.files(), ["demo.pcap", "file"]);
}

/// A pipe whose reader goes away, as with `| head`.
#[test]
fn a_reader_that_goes_away_ends_the_run() {
    let dir = Dir::new();
    dir.add("many.pcap", made::capture(made::at(NINE, 20_000)));
    let run = dir.shell("{ $FLOWTAP replay many.pcap; echo $? > code; } | head -n 1");
    assert_eq!(dir.read("code"), b"1\n");
    assert_text(failure(&run.stderr), "standard output: nobody reads it any more");
    assert_eq!(run.success().lines().count(), 1);
}

/// The first slot fits and is published while the second grows; then the disk is full. What was published stays, and of
/// the other nothing is left.
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let dir = Dir::new();
    let small_disk = "mount -t tmpfs -o size=256k none disk";
    dir.add("disk/under", "");
    if dir.shell(&format!("unshare --mount sh -c '{small_disk}'")).code != Some(0) {
        skip("no private mounts, so no small disk to fill");
        return;
    }
    let times = [NINE, NINE + 310].into_iter().chain(made::at(NINE + 370, 30_000));
    dir.add("many.pcap", made::capture(times));
    let replay = "$FLOWTAP replay many.pcap -o disk/ --compression none; echo $? > code";
    let run = dir.shell(&format!("unshare --mount sh -c '{small_disk}; {replay}; cd disk; find . -type f'"));
    assert_eq!(dir.read("code"), b"1\n");
    let complaint = failure(&run.stderr);
    assert!(complaint.contains("disk/AWSLogs/") && complaint.contains("No space left"), "{complaint}");
    let said = run.stderr.clone();
    let files = run.success();
    assert_eq!(files.lines().count(), 1, "{files}");
    assert!(files.contains("_20260302T0900Z_") && files.ends_with(".log\n"), "{files}");
    let published = files.trim().trim_start_matches("./");
    assert!(said.contains(&format!("file      disk/{published} (")), "{said}");
}

/// 2026-03-02T09:00:00Z
const NINE: u32 = 1_772_442_000;
