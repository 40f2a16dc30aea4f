//! The whole open corpus against an independent reader's totals.

use std::fs;
use std::path::Path;

use super::{Block, CaptureError, Fill, Input, Interfaces, open};

#[derive(Debug, PartialEq, Eq)]
struct Totals {
    records: u64,
    original_bytes: u64,
    captured_bytes: u64,
    first_ns: Option<u64>,
    last_ns: Option<u64>,
    damaged: bool,
}

#[test]
fn every_file_has_the_totals_of_the_oracle() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps/open");
    let Ok(table) = fs::read_to_string(folder.join("oracle/_meta.tsv")) else {
        eprintln!("skipped: {} is not here", folder.display());
        return;
    };
    let mut lines = table.lines();
    let columns: Vec<&str> = lines.next().unwrap().split('\t').collect();
    let mut files = 0;
    for line in lines {
        let values: Vec<&str> = line.split('\t').collect();
        let value = |column: &str| values[columns.iter().position(|name| *name == column).unwrap()];
        let expected = Totals {
            records: value("records").parse().unwrap(),
            original_bytes: value("frame_bytes_orig").parse().unwrap(),
            captured_bytes: value("captured_bytes").parse().unwrap(),
            first_ns: value("t_min_ns").parse().ok(),
            last_ns: value("t_max_ns").parse().ok(),
            damaged: value("file_error") != "-",
        };
        assert_eq!(totals(&folder.join(value("file"))), expected, "{}", value("file"));
        files += 1;
    }
    assert_eq!(files, 120);
}

fn totals(path: &Path) -> Totals {
    let mut totals =
        Totals { records: 0, original_bytes: 0, captured_bytes: 0, first_ns: None, last_ns: None, damaged: false };
    let mut source = open(&Input::File(path.into()), &Interfaces::default(), None).unwrap();
    let mut block = Block::default();
    loop {
        match source.fill(&mut block) {
            Ok(Fill::More | Fill::Idle) => {}
            Ok(Fill::End) => return totals,
            Err(CaptureError::Damaged { .. }) => totals.damaged = true,
            Err(error) => panic!("{error}"),
        }
        for frame in &block.frames {
            totals.records += 1;
            totals.original_bytes += u64::from(frame.original_bytes);
            totals.captured_bytes += block.data(frame).len() as u64;
            totals.first_ns = Some(totals.first_ns.map_or(frame.time.0, |first| first.min(frame.time.0)));
            totals.last_ns = totals.last_ns.max(Some(frame.time.0));
        }
    }
}
