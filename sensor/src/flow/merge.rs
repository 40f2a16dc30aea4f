//! One closed interval out of the tables of all workers: each flow once, in the order of keys.

use super::FlowTable;
use super::counts::{Counts, Detail};
use super::key::{FlowKey, KeyParts};
use super::table::Table;

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
        let mut v4 = Cursor::new(self.tables.iter().map(|table| &table.v4).collect());
        let mut v6 = Cursor::new(self.tables.iter().map(|table| &table.v6).collect());
        std::iter::from_fn(move || match (v4.interface(), v6.interface()) {
            (Some(a), Some(b)) if a > b => v6.next(),
            (None, _) => v6.next(),
            (Some(_), _) => v4.next(),
        })
    }
}

/// A walk over several sorted tables at once.
struct Cursor<'a, K> {
    tables: Vec<&'a Table<K>>,
    /// How many flows of each table are behind us.
    ranks: Vec<usize>,
}

impl<'a, K: FlowKey> Cursor<'a, K> {
    fn new(tables: Vec<&'a Table<K>>) -> Self {
        let ranks = vec![0; tables.len()];
        Self { tables, ranks }
    }

    fn smallest(&self) -> Option<K> {
        let heads = self.tables.iter().zip(&self.ranks).filter_map(|(table, rank)| table.sorted(*rank));
        heads.map(|entry| entry.key).min()
    }

    fn interface(&self) -> Option<u16> {
        self.smallest().map(|key| key.parts().interface)
    }

    fn next(&mut self) -> Option<FinishedFlow> {
        let key = self.smallest()?;
        let mut sum: Option<(Counts, Option<Detail>)> = None;
        for (table, rank) in self.tables.iter().zip(&mut self.ranks) {
            let Some(entry) = table.sorted(*rank).filter(|entry| entry.key == key) else { continue };
            let detail = table.sorted_detail(*rank);
            match &mut sum {
                None => sum = Some((entry.counts, detail.copied())),
                Some((counts, known)) => {
                    counts.add(&entry.counts);
                    if let (Some(known), Some(detail)) = (known, detail) {
                        known.add(detail);
                    }
                }
            }
            *rank += 1;
        }
        sum.map(|(counts, detail)| FinishedFlow { key: key.parts(), counts, detail })
    }
}
