//! The same answer for any number of workers: to the byte while the flow table has room, in its sums beyond.

use std::fs;
use std::path::{Path, PathBuf};

use flowtap_tests::totals::{FORMAT, Table, oracle};
use flowtap_tests::{Dir, root};

use crate::made;

#[test]
fn any_number_of_workers_writes_the_same_bytes() {
    let captures = captures();
    for capture in &captures {
        let name = capture.to_str().unwrap();
        let texts = WORKERS.map(|workers| Dir::new().replay(&[name, "--workers", workers]).log);
        assert!(texts.iter().all(|text| *text == texts[0]), "{name}: the default format differs");
        let full = WORKERS.map(|workers| Dir::new().replay(&[name, "--workers", workers, "-f", "full"]).log);
        assert!(full.iter().all(|text| *text == full[0]), "{name}: the full format differs");
        let columns = WORKERS.map(|workers| {
            let dir = Dir::new();
            dir.replay(&[name, "--workers", workers, "-f", "v5", "-o", "log.parquet"]);
            // A capture that can't even be opened gives no file.
            dir.files().contains(&"log.parquet".to_owned()).then(|| dir.read("log.parquet"))
        });
        assert!(columns.iter().all(|file| *file == columns[0]), "{name}: Parquet differs");
    }
    assert!(captures.len() > 30, "only {} captures", captures.len());
}

/// Sixty thousand flows in two intervals, a dozen blocks: every worker has its share of each interval.
#[test]
fn many_flows_are_shared_out_and_come_together_again() {
    let dir = Dir::new();
    dir.add("many.pcap", made::capture(made::at(30, 30_000).chain(made::at(90, 30_000))));
    let logs = WORKERS.map(|workers| dir.replay(&["many.pcap", "--workers", workers]).success());
    assert!(logs.iter().all(|log| *log == logs[0]));
    assert_eq!(logs[0].lines().count(), 60_001);
}

/// A clock that jumps to and fro over twenty intervals makes late rows by the thousand, and still the same ones.
#[test]
fn a_wild_clock_gives_the_same_rows_for_any_number_of_workers() {
    let dir = Dir::new();
    // A full-period sequence: every second of twenty minutes, in an order without order.
    let times = (0..40_000_u32).scan(1_u32, |state, _| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(60 + (*state >> 16) % 1_200)
    });
    dir.add("wild.pcap", made::capture(times));
    let replays = WORKERS.map(|workers| dir.replay(&["wild.pcap", "--workers", workers]));
    for replay in &replays {
        assert!(replay.log == replays[0].log, "{}", replay.ledger);
        assert_eq!(replay.count("/packets"), 40_000);
        assert!(replay.count("/late-packets") > 10_000, "{}", replay.ledger);
    }
}

/// A full table hands rows out early: one flow and interval may then have several rows, and no packet is lost. Pieces
/// of datagrams are kept apart, since a piece that was handed out can't be joined any more.
#[test]
fn a_full_flow_table_splits_rows_and_keeps_sums() {
    let demo = root().join("pcaps/demo.pcap");
    let demo = demo.to_str().unwrap();
    let arguments = [demo, "--fragments", "apart", "--format", FORMAT, "--workers"];
    let roomy = Dir::new().replay(&[&arguments[..], &["1"]].concat());
    let expected = Table::of_log(&roomy.log());
    for workers in WORKERS {
        let tight = Dir::new().replay(&[&arguments[..], &[workers, "--flow-table-max", "16"]].concat());
        assert_eq!(Table::of_log(&tight.log()).differences(&expected), [], "{workers} workers");
        assert!(tight.count("/flow-table/early-drains") > 0, "{}", tight.ledger);
        assert!(tight.count("/rows/written") >= roomy.count("/rows/written"), "{}", tight.ledger);
    }
    assert_eq!(roomy.count("/flow-table/early-drains"), 0);
}

const WORKERS: [&str; 4] = ["1", "2", "3", "8"];

/// Every capture of the project, and the public ones with something to share out.
fn captures() -> Vec<PathBuf> {
    let own = fs::read_dir(root().join("pcaps")).unwrap().map(|entry| entry.unwrap().path());
    let own = own.filter(|path| path.extension().is_some_and(|suffix| suffix == "pcap" || suffix == "pcapng"));
    let public = oracle().into_iter().flatten().map(|(path, _)| path);
    own.chain(public.filter(|path| bytes(path) > SHARED_OUT_BYTES_MIN)).collect()
}

fn bytes(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

/// A block that a worker takes at once may hold more than this; see that several are filled.
const SHARED_OUT_BYTES_MIN: u64 = 200_000;
