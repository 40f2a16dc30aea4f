//! One closed interval out of the tables of all workers: each flow once, in the order of keys.

use super::FlowTable;
use super::counts::{Counts, Detail};
use super::key::{FlowKey, KeyParts};
use super::table::{Entry, Table};

/// One flow of a closed interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinishedFlow {
    /// Which flow.
    pub key: KeyParts,
    /// What was counted.
    pub counts: Counts,
    /// What our own fields ask for, where the tables keep it.
    pub detail: Option<Detail>,
}

/// The tables of one interval, sorted, each fragment in its flow.
#[derive(Debug)]
pub struct Merged<'a> {
    tables: &'a [FlowTable],
}

impl<'a> Merged<'a> {
    /// Joins `tables`, which their workers have sorted. Later fragments find their first ones across all tables here;
    /// `joined`, an empty table, takes them and must live as long.
    pub fn join_fragments(tables: &mut Vec<FlowTable>, mut joined: FlowTable) {
        if tables.iter().all(|table| table.fragments4.is_empty() && table.fragments6.is_empty()) {
            return;
        }
        for table in tables.iter_mut() {
            joined.fragments4.merge(&mut table.fragments4);
            joined.fragments6.merge(&mut table.fragments6);
        }
        let FlowTable { v4, v6, fragments4, fragments6, .. } = &mut joined;
        fragments4.drain(|key, counts, detail| v4.add(key, counts, detail));
        fragments6.drain(|key, counts, detail| v6.add(key, counts, detail));
        joined.sort();
        tables.push(joined);
    }

    /// The flows of `tables`, which are sorted and hold no waiting fragments.
    pub fn new(tables: &'a [FlowTable]) -> Self {
        Self { tables }
    }

    /// Each flow once, by interface, IPv4 before IPv6, then in the order of keys. Can be walked more than once.
    pub fn flows(&self) -> impl Iterator<Item = FinishedFlow> + use<'a> {
        let mut v4 = Cursor::new(self.tables.iter().map(|table| &table.v4));
        let mut v6 = Cursor::new(self.tables.iter().map(|table| &table.v6));
        std::iter::from_fn(move || match (v4.interface(), v6.interface()) {
            (Some(a), Some(b)) if a > b => v6.next(),
            (None, _) => v6.next(),
            (Some(_), _) => v4.next(),
        })
    }
}

/// A walk over several sorted tables at once.
struct Cursor<'a, K> {
    heads: Vec<Head<'a, K>>,
    /// The smallest key that is still ahead, and its interface.
    smallest: Option<(K, u16)>,
}

/// How far one table has been walked.
struct Head<'a, K> {
    table: &'a Table<K>,
    rank: usize,
    entry: Option<&'a Entry<K>>,
}

impl<'a, K: FlowKey> Cursor<'a, K> {
    fn new(tables: impl Iterator<Item = &'a Table<K>>) -> Self {
        let heads = tables.map(|table| Head { table, rank: 0, entry: table.sorted(0) }).collect();
        let mut cursor = Self { heads, smallest: None };
        cursor.look_ahead();
        cursor
    }

    fn interface(&self) -> Option<u16> {
        self.smallest.map(|(_, interface)| interface)
    }

    fn look_ahead(&mut self) {
        let keys = self.heads.iter().filter_map(|head| head.entry).map(|entry| entry.key);
        self.smallest = keys.min().map(|key| (key, key.parts().interface));
    }

    fn next(&mut self) -> Option<FinishedFlow> {
        let (key, _) = self.smallest?;
        let mut sum: Option<(Counts, Option<Detail>)> = None;
        for head in &mut self.heads {
            let Some(entry) = head.entry.filter(|entry| entry.key == key) else { continue };
            let detail = head.table.sorted_detail(head.rank);
            match &mut sum {
                None => sum = Some((entry.counts, detail.copied())),
                Some((counts, known)) => {
                    counts.add(&entry.counts);
                    if let (Some(known), Some(detail)) = (known, detail) {
                        known.add(detail);
                    }
                }
            }
            head.rank += 1;
            head.entry = head.table.sorted(head.rank);
        }
        self.look_ahead();
        sum.map(|(counts, detail)| FinishedFlow { key: key.parts(), counts, detail })
    }
}
