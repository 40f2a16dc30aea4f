//! Published records of any format, by the names of their columns.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// All records below a directory, or of one file.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) rows: Vec<BTreeMap<String, String>>,
    /// What the daemon said when it stopped.
    pub(super) counts: BTreeMap<String, u64>,
}

impl Records {
    /// Reads what is published there. Each file begins with the names of its columns.
    pub(super) fn read(place: &Path) -> Self {
        let mut texts = Vec::new();
        read_logs(place, &mut texts);
        let rows = texts.iter().flat_map(|text| {
            let mut lines = text.lines().map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
            let names = lines.next().unwrap_or_default();
            lines.map(move |values| names.iter().cloned().zip(values).collect()).collect::<Vec<_>>()
        });
        Self { rows: rows.collect(), counts: BTreeMap::new() }
    }

    /// The rows with data in which all these columns are so: `dstport=53 flow-direction=ingress`.
    fn chosen(&self, wanted: &str) -> impl Iterator<Item = &BTreeMap<String, String>> {
        let wanted: Vec<_> = wanted.split_whitespace().map(|pair| pair.split_once('=').unwrap()).collect();
        let has_data = |row: &&BTreeMap<String, String>| row["log-status"] == "OK";
        self.rows.iter().filter(has_data).filter(move |row| wanted.iter().all(|(name, value)| row[*name] == *value))
    }

    /// Packets and bytes of the chosen rows.
    pub(super) fn sum(&self, wanted: &str) -> (u64, u64) {
        self.chosen(wanted).fold((0, 0), |sum, row| (sum.0 + number(row, "packets"), sum.1 + number(row, "bytes")))
    }

    /// The chosen rows by the values of some columns, sorted: each with the packets and bytes of all its rows.
    pub(super) fn by(&self, wanted: &str, columns: &str) -> Vec<String> {
        let mut sums = BTreeMap::<String, (u64, u64)>::new();
        for row in self.chosen(wanted) {
            let values: Vec<_> = columns.split_whitespace().map(|name| row[name].as_str()).collect();
            let sum = sums.entry(values.join(" ")).or_default();
            *sum = (sum.0 + number(row, "packets"), sum.1 + number(row, "bytes"));
        }
        sums.into_iter().map(|(values, (packets, bytes))| format!("{values} {packets} {bytes}")).collect()
    }
}

/// A column as a number.
pub(super) fn number(row: &BTreeMap<String, String>, name: &str) -> u64 {
    row[name].parse().unwrap_or_else(|_| panic!("{name} of {row:?}"))
}

fn read_logs(place: &Path, texts: &mut Vec<String>) {
    if place.is_file() {
        return texts.push(fs::read_to_string(place).unwrap());
    }
    // One that is not there has no records.
    for entry in fs::read_dir(place).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "log") {
            read_logs(&path, texts);
        }
    }
}
