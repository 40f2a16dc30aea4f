//! What is read: captures from files and pipes, plain and compressed, several at once; and what is wrong with them.
//! Each damage is one message with file, offset and cause, the exit code says so, and everything before it is counted.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use flate2::Compression;
use flate2::write::GzEncoder;
use flowtap_tests::totals::{FORMAT, Table, expected, skip};
use flowtap_tests::{Dir, Rows, assert_text, capture};

use crate::made;

fn demo_bytes() -> Vec<u8> {
    fs::read(capture("demo.pcap")).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Replays `bytes` as the file `in.pcap`, which must give this one complaint, and answers how many frames were offered.
#[track_caller]
fn damaged(bytes: &[u8], complaint: &str) -> u64 {
    let dir = Dir::new();
    dir.add("in.pcap", bytes);
    let replay = dir.replay(&["in.pcap"]);
    assert_eq!((replay.code, replay.complaints.as_slice()), (Some(1), [complaint.to_owned()].as_slice()));
    replay.count("/frames/offered")
}

#[test]
fn what_is_no_capture_is_told() {
    assert_eq!(damaged(b"", "in.pcap: is empty, there is not even a file header"), 0);
    let not_a_capture = "in.pcap: is not a capture: its first bytes [47, 45, 54, 20] are neither those of pcap nor of \
                         pcapng, plain or inside gzip or zstd";
    assert_eq!(damaged(b"GET / HTTP/1.1\r\n\r\n", not_a_capture), 0);
    let header = &demo_bytes()[..10];
    let cut = "in.pcap: damaged at offset 0: the input ends inside the file header: 24 bytes needed, 10 left";
    assert_eq!(damaged(header, cut), 0);
}

#[test]
fn a_capture_without_records_is_sound() {
    let dir = Dir::new();
    dir.add_capture("header-only.pcap");
    assert_eq!(dir.replay(&["header-only.pcap"]).success().lines().count(), 1);
}

#[test]
fn a_cut_capture_is_counted_up_to_the_cut() {
    let demo = demo_bytes();
    let offsets = made::record_offsets(&demo);
    assert_eq!(offsets.len(), 543);
    for record in [0, 1, 17, 300, 541] {
        let (start, end) = (offsets[record], offsets[record + 1]);
        for cut in [start + 1, start + 15] {
            let left = cut - start;
            let complaint = format!(
                "in.pcap: damaged at offset {start}: the input ends inside a record header: \
                 16 bytes needed, {left} left"
            );
            assert_eq!(damaged(&demo[..cut], &complaint), record as u64);
        }
        for cut in [start + 16, end - 1] {
            let (needed, left) = (end - start, cut - start);
            let complaint = format!(
                "in.pcap: damaged at offset {start}: the input ends inside a record: {needed} bytes needed, {left} left"
            );
            assert_eq!(damaged(&demo[..cut], &complaint), record as u64);
        }
        let dir = Dir::new();
        dir.add("in.pcap", &demo[..end]);
        let replay = dir.replay(&["in.pcap"]);
        assert_eq!((replay.code, replay.count("/frames/offered")), (Some(0), record as u64 + 1));
    }
}

/// Wherever a pcapng file is cut: an end between two blocks is an end like any other, every other one is told.
#[test]
fn a_cut_pcapng_file_is_told_wherever_it_is_cut() {
    let sections = fs::read(capture("sections.pcapng")).unwrap();
    let (mut ends, mut frames) = (0, 0);
    for cut in (4..sections.len()).step_by(4) {
        let dir = Dir::new();
        dir.add("in.pcap", &sections[..cut]);
        let replay = dir.replay(&["in.pcap"]);
        match &replay.complaints[..] {
            [] => ends += 1,
            [complaint] => {
                let offset =
                    complaint.strip_prefix("in.pcap: damaged at offset ").and_then(|rest| rest.split_once(": "));
                let (offset, cause) = offset.unwrap_or_else(|| panic!("{complaint}"));
                assert!(offset.parse::<usize>().unwrap() < cut, "{complaint}");
                assert!(cause.starts_with("the input ends inside a block"), "{complaint}");
            }
            complaints => panic!("{complaints:#?}"),
        }
        assert_eq!(replay.code, Some(i32::from(!replay.complaints.is_empty())));
        assert!(replay.count("/frames/offered") >= frames, "fewer frames in more bytes");
        frames = replay.count("/frames/offered");
    }
    // Every block but the last, of which there are 9 packets, 7 other blocks and 2 section headers.
    assert_eq!((ends, frames), (blocks(&sections) - 1, 8));
}

/// How many blocks a pcapng file of both byte orders has.
fn blocks(mut file: &[u8]) -> usize {
    let mut count = 0;
    let mut number: fn([u8; 4]) -> u32 = u32::from_le_bytes;
    while !file.is_empty() {
        if file[..4] == [0x0a, 0x0d, 0x0d, 0x0a] {
            number = if file[8] == 0x1a { u32::from_be_bytes } else { u32::from_le_bytes };
        }
        file = &file[number(file[4..8].try_into().unwrap()) as usize..];
        count += 1;
    }
    count
}

/// More than a frame can have, or a negative number in the eyes of other programs.
#[test]
fn lengths_that_lie_are_told() {
    let demo = demo_bytes();
    let offset = made::record_offsets(&demo)[2];
    for length in [1_048_577, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        let mut lying = demo.clone();
        lying[offset + 8..offset + 12].copy_from_slice(&length.to_le_bytes());
        let complaint = format!("in.pcap: damaged at offset {offset}: a frame of {length} bytes, of at most 1048576");
        assert_eq!(damaged(&lying, &complaint), 2);
    }
    let mut sections = fs::read(capture("sections.pcapng")).unwrap();
    let second = u32::from_le_bytes(sections[4..8].try_into().unwrap()) as usize;
    sections[second + 4..second + 8].copy_from_slice(&[0xff; 4]);
    let dir = Dir::new();
    dir.add("in.pcap", &sections);
    let replay = dir.replay(&["in.pcap"]);
    let complaint = format!("in.pcap: damaged at offset {second}: a block of 4294967295 bytes, ");
    assert!(replay.complaints.len() == 1 && replay.complaints[0].starts_with(&complaint), "{:?}", replay.complaints);
}

#[test]
fn what_cannot_be_opened_or_read_is_named() {
    let dir = Dir::new();
    dir.add("folder/file", "");
    for (input, complaint) in [
        ("missing.pcap", "missing.pcap: No such file or directory (os error 2)"),
        ("folder", "folder: Is a directory (os error 21)"),
        ("/proc/self/mem", "/proc/self/mem: Input/output error (os error 5)"),
    ] {
        let replay = dir.replay(&[input]);
        assert_eq!((replay.code, replay.complaints), (Some(1), vec![complaint.to_owned()]));
    }
}

/// Root may read everything, so it takes somebody else to be refused.
#[test]
fn a_file_without_permission_is_named() {
    let dir = Dir::new();
    dir.add_capture("demo.pcap");
    fs::set_permissions(dir.path("demo.pcap"), fs::Permissions::from_mode(0o000)).unwrap();
    let is_root = dir.shell("id -u").success() == "0\n";
    let somebody = if is_root { "setpriv --reuid=65534 --clear-groups " } else { "" };
    if dir.shell(&format!("{somebody}$FLOWTAP --version")).code != Some(0) {
        skip("the program can't be run as somebody without rights");
        return;
    }
    let replay = dir.replay_in_shell(&format!("{somebody}$FLOWTAP replay --summary json demo.pcap"));
    assert_eq!(replay.complaints, ["demo.pcap: Permission denied (os error 13)"]);
    assert_eq!(replay.code, Some(1));
}

#[test]
fn compressed_captures_are_read_as_plain_ones() {
    let demo = demo_bytes();
    let dir = Dir::new();
    let half = demo.len() / 2;
    dir.add("demo.pcap", &demo);
    dir.add("gz/demo.pcap.gz", gzip(&demo));
    dir.add("zst/demo.pcap.zst", zstd::encode_all(&demo[..], 0).unwrap());
    dir.add("members/demo.pcap", [gzip(&demo[..half]), gzip(&demo[half..])].concat());
    let expected = dir.replay(&["demo.pcap"]).success();
    for input in ["gz/demo.pcap.gz", "zst/demo.pcap.zst", "members/demo.pcap"] {
        assert_text(&dir.replay(&[input]).success(), &expected);
    }
}

/// What could be unpacked is counted. Offsets count unpacked bytes.
#[test]
fn cut_compression_is_told_and_what_came_before_is_counted() {
    // Port numbers, so that a few kilobytes hold many packets.
    let plain = made::capture(made::at(60, 50_000));
    for (packed, cause) in
        [(gzip(&plain), "incomplete deflate stream"), (zstd::encode_all(&plain[..], 0).unwrap(), "incomplete frame")]
    {
        let dir = Dir::new();
        dir.add("in.pcap", &packed[..packed.len() * 3 / 4]);
        let replay = dir.replay(&["in.pcap"]);
        let [complaint] = &replay.complaints[..] else { panic!("{:#?}", replay.complaints) };
        let offset =
            complaint.strip_prefix("in.pcap: after ").and_then(|rest| rest.split_once(" bytes (uncompressed): "));
        let (offset, told) = offset.unwrap_or_else(|| panic!("{complaint}"));
        assert_eq!(told, cause);
        let whole_records = (offset.parse::<u64>().unwrap() - 24) / 44;
        assert_eq!((replay.code, replay.count("/packets")), (Some(1), whole_records));
        assert!(whole_records > 10_000, "{complaint}");
    }
    let dir = Dir::new();
    dir.add("in.pcap", &zstd::encode_all(&demo_bytes()[..], 0).unwrap()[..1_000]);
    assert_eq!(dir.replay(&["in.pcap"]).complaints, ["in.pcap: after 0 bytes (uncompressed): incomplete frame"]);
}

#[test]
fn standard_input_is_a_capture_like_any_other() {
    let dir = Dir::new();
    dir.add_capture("demo.pcap");
    let from_file = dir.replay(&["demo.pcap", "--interface-id", "eni-1"]).success();
    let from_pipe = dir.replay_in_shell("cat demo.pcap | $FLOWTAP replay --summary json - --interface-id eni-1");
    assert_text(&from_pipe.success(), &from_file);
    let named = dir.replay_in_shell("$FLOWTAP replay --summary json - -f '${interface-id}' < demo.pcap").success();
    assert!(named.lines().skip(1).all(|row| row == "stdin"));
    let twice = dir.flowtap(&["replay", "-", "-"]);
    assert!(twice.stdout.is_empty());
    assert_text(&twice.failure(2), "flowtap: standard input can be read only once\n");
}

#[test]
fn a_pipe_that_closes_early_is_a_cut_capture() {
    let dir = Dir::new();
    dir.add_capture("demo.pcap");
    let offsets = made::record_offsets(&demo_bytes());
    let (start, cut) = (offsets[38], offsets[38] + 100);
    let replay = dir.replay_in_shell(&format!("head -c {cut} demo.pcap | $FLOWTAP replay --summary json -"));
    let needed = offsets[39] - start;
    let complaint = format!(
        "standard input: damaged at offset {start}: the input ends inside a record: {needed} bytes needed, 100 left"
    );
    assert_eq!((replay.code, replay.count("/frames/offered")), (Some(1), 38));
    assert_eq!(replay.complaints, [complaint]);
}

/// One clock, interfaces apart: a capture dealt out to two files, every other record to each, is one capture again.
#[test]
fn several_files_are_one_capture_with_several_interfaces() {
    let demo = demo_bytes();
    let dir = Dir::new();
    let mut files = [demo[..24].to_vec(), demo[..24].to_vec()];
    for (number, record) in made::record_offsets(&demo).windows(2).enumerate() {
        files[number % 2].extend(&demo[record[0]..record[1]]);
    }
    dir.add("eth0.pcap", &files[0]);
    dir.add("eth1.pcap.gz", gzip(&files[1]));
    let replay = dir.replay(&["eth0.pcap", "eth1.pcap.gz", "--fragments", "apart", "--format", FORMAT]);
    assert_eq!((replay.count("/late-packets"), replay.count("/intervals")), (0, 5));
    assert_eq!(Table::of_log(&replay.success()).differences(&expected("demo.pcap")), []);

    let rows = Rows::parse(&dir.replay(&["eth0.pcap", "eth1.pcap.gz"]).success());
    let starts = rows.column("start").unwrap().into_iter().map(|start| start.parse::<u64>().unwrap() / 60);
    let interfaces = rows.column("interface-id").unwrap();
    let order: Vec<_> = starts.zip(interfaces).collect();
    assert!(order.is_sorted(), "rows are not in the order of time and interface: {order:?}");
    assert!(["eth0", "eth1"].iter().all(|name| order.iter().any(|(_, interface)| interface == name)));
}

/// Damage in one file is no reason not to read the others.
#[test]
fn a_damaged_file_does_not_end_the_run() {
    let dir = Dir::new();
    for capture in ["cut-record.pcap", "ping-matrix.pcap", "bad-magic.bin"] {
        dir.add_capture(capture);
    }
    let replay = dir.replay(&["bad-magic.bin", "cut-record.pcap", "missing.pcap", "ping-matrix.pcap"]);
    assert_eq!((replay.code, replay.count("/packets")), (Some(1), 3 + 8));
    let named: Vec<_> = replay.complaints.iter().map(|complaint| complaint.split(':').next().unwrap()).collect();
    assert_eq!(named, ["bad-magic.bin", "missing.pcap", "cut-record.pcap"]);
    assert_eq!(replay.ledger["damage"].as_array().unwrap().len(), 3);
}
