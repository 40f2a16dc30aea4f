//! One closed interval out of the tables of all workers: each flow once, in the order of keys.

use super::FlowTable;
use super::counts::{Counts, Detail};
use super::key::{FlowKey, Key4, Key6, KeyParts};
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
        let everything =
            Part { start: self.ranks_at(|_| 0, |_| 0), end: self.ranks_at(Table::sorted_len, Table::sorted_len) };
        self.flows_of(&everything)
    }

    /// The flows of one part, as in [`Merged::flows`].
    pub fn flows_of(&self, part: &Part) -> impl Iterator<Item = FinishedFlow> + use<'a> {
        let ranges =
            |start: &[usize], end: &[usize]| start.iter().copied().zip(end.iter().copied()).collect::<Vec<_>>();
        let (v4, v6) = (ranges(&part.start.v4, &part.end.v4), ranges(&part.start.v6, &part.end.v6));
        let mut v4 = Cursor::new(self.tables.iter().map(|table| &table.v4).zip(v4));
        let mut v6 = Cursor::new(self.tables.iter().map(|table| &table.v6).zip(v6));
        std::iter::from_fn(move || match (v4.interface(), v6.interface()) {
            (Some(a), Some(b)) if a > b => v6.next(),
            (None, _) => v6.next(),
            (Some(_), _) => v4.next(),
        })
    }

    /// Cuts the flows into parts that follow each other, of about `part_flows` flows in each table.
    pub fn parts(&self, part_flows: usize) -> Vec<Part> {
        let mut borders: Vec<_> = cuts(self.tables.iter().map(|table| &table.v4), part_flows).map(Border::V4).collect();
        borders.extend(cuts(self.tables.iter().map(|table| &table.v6), part_flows).map(Border::V6));
        borders.sort_by_key(Border::place);
        let mut parts = Vec::with_capacity(borders.len() + 1);
        let mut start = self.ranks_at(|_| 0, |_| 0);
        for border in borders {
            let end = match border {
                Border::V4(key) => self.ranks_at(
                    |table| table.rank_where(|other| other < key),
                    |table| table.rank_where(|other| other.interface() < key.interface()),
                ),
                Border::V6(key) => self.ranks_at(
                    |table| table.rank_where(|other| other.interface() <= key.interface()),
                    |table| table.rank_where(|other| other < key),
                ),
            };
            parts.push(Part { start, end: end.clone() });
            start = end;
        }
        parts.push(Part { start, end: self.ranks_at(Table::sorted_len, Table::sorted_len) });
        parts
    }

    fn ranks_at(&self, v4: impl Fn(&Table<Key4>) -> usize, v6: impl Fn(&Table<Key6>) -> usize) -> Ranks {
        Ranks {
            v4: self.tables.iter().map(|table| v4(&table.v4)).collect(),
            v6: self.tables.iter().map(|table| v6(&table.v6)).collect(),
        }
    }
}

/// A run of flows in the order of [`Merged::flows`].
#[derive(Debug)]
pub struct Part {
    start: Ranks,
    end: Ranks,
}

/// A place in the order of flows: how many flows of each table come before it.
#[derive(Debug, Clone)]
struct Ranks {
    v4: Vec<usize>,
    v6: Vec<usize>,
}

/// The first key of a part.
enum Border {
    V4(Key4),
    V6(Key6),
}

impl Border {
    /// Where it stands, as far as borders of both families are concerned; those of one family are in order already.
    fn place(&self) -> (u16, u8) {
        match self {
            Self::V4(key) => (key.interface(), 4),
            Self::V6(key) => (key.interface(), 6),
        }
    }
}

/// Every `part_flows`-th key of the largest table, without the first.
fn cuts<'a, K: FlowKey>(tables: impl Iterator<Item = &'a Table<K>>, part_flows: usize) -> impl Iterator<Item = K> {
    let largest = tables.max_by_key(|table| table.sorted_len());
    largest.into_iter().flat_map(move |table| {
        let ranks = (part_flows..table.sorted_len()).step_by(part_flows);
        ranks.filter_map(|rank| table.sorted(rank)).map(|entry| entry.key)
    })
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
    end: usize,
    entry: Option<&'a Entry<K>>,
}

impl<K: FlowKey> Head<'_, K> {
    fn at(&self, rank: usize) -> Self {
        let entry = if rank < self.end { self.table.sorted(rank) } else { None };
        Self { rank, entry, ..*self }
    }
}

impl<'a, K: FlowKey> Cursor<'a, K> {
    /// A walk over these tables, each from one rank to before another.
    fn new(tables: impl Iterator<Item = (&'a Table<K>, (usize, usize))>) -> Self {
        let head = |(table, (rank, end))| Head { table, rank, end, entry: None }.at(rank);
        let heads = tables.map(head).collect();
        let mut cursor = Self { heads, smallest: None };
        cursor.look_ahead();
        cursor
    }

    fn interface(&self) -> Option<u16> {
        self.smallest.map(|(_, interface)| interface)
    }

    fn look_ahead(&mut self) {
        let keys = self.heads.iter().filter_map(|head| head.entry).map(|entry| entry.key);
        self.smallest = keys.min().map(|key| (key, key.interface()));
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
            *head = head.at(head.rank + 1);
        }
        self.look_ahead();
        sum.map(|(counts, detail)| FinishedFlow { key: key.parts(), counts, detail })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::capture::Direction;
    use crate::flow::key::Ports;

    /// Interface, whether IPv6, and a number that makes the rest of the key.
    type Given = (u16, bool, u8);

    fn table(flows: &[Given]) -> FlowTable {
        let mut table = FlowTable::new(1);
        let ports = Ports { src: 1, dst: 2, protocol: 17 };
        for &(interface, is_v6, number) in flows {
            let counts = Counts::of_packet(u64::from(number), 100, 0);
            if is_v6 {
                let key = Key6::new(interface, Direction::Unknown, number.into(), 9, ports);
                table.v6.add(key, &counts, None);
            } else {
                let key = Key4::new(interface, Direction::Unknown, number.into(), 9, ports);
                table.v4.add(key, &counts, None);
            }
        }
        table.sort();
        table
    }

    fn given() -> impl Strategy<Value = Vec<Vec<Given>>> {
        proptest::collection::vec(proptest::collection::vec((0..3_u16, any::<bool>(), any::<u8>()), 0..200), 0..4)
    }

    proptest! {
        #[test]
        fn flows_come_once_and_in_order(given in given()) {
            let tables: Vec<_> = given.iter().map(|flows| table(flows)).collect();
            let mut expected: BTreeMap<Given, u64> = BTreeMap::new();
            given.iter().flatten().for_each(|flow| *expected.entry(*flow).or_default() += 1);
            let number = |flow: &FinishedFlow| match flow.key.src {
                std::net::IpAddr::V4(src) => src.octets()[3],
                std::net::IpAddr::V6(src) => src.octets()[15],
            };
            let flows = Merged::new(&tables).flows();
            let seen: Vec<_> = flows
                .map(|flow| ((flow.key.interface, flow.key.src.is_ipv6(), number(&flow)), flow.counts.packets))
                .collect();
            prop_assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn parts_are_the_flows_in_their_order(given in given(), part_flows in 1..50_usize) {
            let tables: Vec<_> = given.iter().map(|flows| table(flows)).collect();
            let merged = Merged::new(&tables);
            let parts = merged.parts(part_flows);
            let joined: Vec<_> = parts.iter().flat_map(|part| merged.flows_of(part)).collect();
            prop_assert_eq!(joined, merged.flows().collect::<Vec<_>>());
            let largest = tables.iter().map(|table| table.v4.len().max(table.v6.len())).max().unwrap_or(0);
            prop_assert!(parts.len() >= largest.div_ceil(part_flows));
        }
    }
}
