//! The counts of all flows of one address family in one interval.
//!
//! A flow costs one cache miss or two, and nothing else matters once there are many. So the table is two arrays: dense
//! entries in the order in which flows were first seen, and an index of eight-byte slots (open addressing, linear
//! probing) that hold an entry's number and 32 bits of its hash. The index alone is rehashed when the table grows; the
//! entries stay where they are. Packets come in batches: each is announced while the batch gathers, so that the memory
//! has its slot ready, and the entries of a whole batch are asked for before the first is needed. This halves the cost of
//! many flows.
//!
//! The table knows no bound: whoever fills it asks [`Table::len`] first (see [`crate::worker`]).

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::counts::{Counts, Detail};
use super::key::FlowKey;
use crate::sys::{memory, prefetch};

/// One packet, reduced to what the table counts.
#[derive(Debug, Clone, Copy)]
pub struct Observation<K> {
    /// The flow it belongs to.
    pub key: K,
    /// What [`Table::announce`] answered for the key.
    pub hash: u64,
    /// When it was captured, nanoseconds since the epoch.
    pub time_ns: u64,
    /// Its IP length.
    pub ip_bytes: u32,
    /// Its TCP flag byte, 0 for what is not TCP.
    pub tcp_flags: u8,
}

/// How many packets make a batch: more than memory can fetch at once, and few enough to stay in the nearest cache.
pub const BATCH_PACKETS: usize = 32;

/// A flow and its counts.
#[derive(Debug, Clone, Copy)]
pub struct Entry<K> {
    /// Which flow.
    pub key: K,
    /// What was counted.
    pub counts: Counts,
}

/// The counts of many flows, by key.
#[derive(Debug)]
pub struct Table<K> {
    entries: Vec<Entry<K>>,
    /// Beside each entry, where details are kept; else empty.
    details: Vec<Detail>,
    /// A power of two of slots, or none before the first flow.
    index: Vec<Slot>,
    /// The numbers of the entries in key order, once sorted.
    order: Vec<(u64, u32)>,
    hasher: FixedState,
}

impl<K: FlowKey> Table<K> {
    /// An empty table. `seed` keeps strangers from choosing keys that collide.
    pub fn new(seed: u64) -> Self {
        Self {
            entries: Vec::new(),
            details: Vec::new(),
            index: Vec::new(),
            order: Vec::new(),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// How many flows it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds no flow.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets all flows and keeps the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.details.clear();
        self.order.clear();
        self.index.fill(Slot::EMPTY);
    }

    /// Tells the table that a packet with this key will come in the next batch, and answers the key's hash.
    #[inline]
    pub fn announce(&self, key: K) -> u64 {
        let hash = self.hasher.hash_one(key);
        if self.entries.len() >= FLOWS_IN_CACHE {
            prefetch::for_write(&self.index, self.home(hash));
        }
        hash
    }

    /// Counts a batch of packets, each announced to this table.
    pub fn observe(&mut self, batch: &[Observation<K>]) {
        self.reserve(batch.len());
        if self.entries.len() >= FLOWS_IN_CACHE {
            for packet in batch {
                if let Some(slot) = self.index.get(self.home(packet.hash)) {
                    prefetch::for_write(&self.entries, slot.entry());
                }
            }
        }
        for packet in batch {
            self.observe_one(packet);
        }
    }

    /// Adds counts, and the detail where details are kept. One table keeps details for all its flows or for none.
    pub fn add(&mut self, key: K, counts: &Counts, detail: Option<&Detail>) {
        self.reserve(1);
        let hash = self.hasher.hash_one(key);
        match self.find(key, hash) {
            Ok(entry) => {
                if let Some(found) = self.entries.get_mut(entry) {
                    // What is there may all have been taken away again; its times are nobody's then.
                    match found.counts.packets {
                        0 => found.counts = *counts,
                        _ => found.counts.add(counts),
                    }
                }
                if let (Some(found), Some(detail)) = (self.details.get_mut(entry), detail) {
                    found.add(detail);
                }
            }
            Err(slot) => {
                self.insert(slot, hash, Entry { key, counts: *counts });
                self.details.extend(detail);
            }
        }
    }

    /// Takes so much of a flow's packets and bytes away again, as far as they are there; says how much that was. The
    /// flow stays, if only with nothing.
    pub fn take(&mut self, key: K, packets: u64, bytes: u64) -> (u64, u64) {
        if self.index.is_empty() {
            return (0, 0);
        }
        let Ok(entry) = self.find(key, self.hasher.hash_one(key)) else { return (0, 0) };
        self.entries.get_mut(entry).map_or((0, 0), |entry| entry.counts.take(packets, bytes))
    }

    /// Puts the flows in the order of their keys, for [`Table::sorted`].
    pub fn sort(&mut self) {
        let Self { entries, order, .. } = self;
        order.clear();
        order.extend(entries.iter().zip(0_u32..).map(|(entry, number)| (entry.key.prefix(), number)));
        order.sort_unstable_by_key(|(prefix, _)| *prefix);
        for tied in order.chunk_by_mut(|a, b| a.0 == b.0).filter(|tied| tied.len() > 1) {
            tied.sort_unstable_by_key(|(_, number)| entries.get(*number as usize).map(|entry| entry.key));
        }
    }

    /// How many flows [`Table::sort`] has put in order.
    pub fn sorted_len(&self) -> usize {
        self.order.len()
    }

    /// The flow at `rank` in key order, as of the last [`Table::sort`].
    pub fn sorted(&self, rank: usize) -> Option<&Entry<K>> {
        if let Some((_, ahead)) = self.order.get(rank + RANKS_AHEAD) {
            prefetch::for_write(&self.entries, *ahead as usize);
        }
        let (_, number) = self.order.get(rank)?;
        self.entries.get(*number as usize)
    }

    /// How many flows come before the first whose key is not `before`, which must be true for the smaller keys.
    pub fn rank_where(&self, before: impl Fn(K) -> bool) -> usize {
        let key = |number: u32| self.entries.get(number as usize).map(|entry| entry.key);
        self.order.partition_point(|(_, number)| key(*number).is_some_and(&before))
    }

    /// The detail of the flow at `rank`, where details are kept.
    pub fn sorted_detail(&self, rank: usize) -> Option<&Detail> {
        let (_, number) = self.order.get(rank)?;
        self.details.get(*number as usize)
    }

    #[inline]
    fn observe_one(&mut self, packet: &Observation<K>) {
        match self.find(packet.key, packet.hash) {
            Ok(entry) => {
                if let Some(entry) = self.entries.get_mut(entry) {
                    entry.counts.observe(packet.time_ns, packet.ip_bytes, packet.tcp_flags);
                }
            }
            Err(slot) => {
                let counts = Counts::of_packet(packet.time_ns, packet.ip_bytes, packet.tcp_flags);
                self.insert(slot, packet.hash, Entry { key: packet.key, counts });
            }
        }
    }

    /// The number of the key's entry, or the free slot where it would go.
    #[inline]
    fn find(&self, key: K, hash: u64) -> Result<usize, usize> {
        let mut at = self.home(hash);
        loop {
            // `at` is masked, so the slot exists; an empty table never gets here, `reserve` comes first.
            let slot = self.index.get(at).copied().unwrap_or(Slot::EMPTY);
            if slot.is_empty() {
                return Err(at);
            }
            if slot.tag() == tag(hash) && self.entries.get(slot.entry()).is_some_and(|entry| entry.key == key) {
                return Ok(slot.entry());
            }
            at = (at + 1) & (self.index.len() - 1);
        }
    }

    #[inline]
    fn insert(&mut self, slot: usize, hash: u64, entry: Entry<K>) {
        if let Some(slot) = self.index.get_mut(slot) {
            *slot = Slot::new(self.entries.len(), hash);
        }
        self.entries.push(entry);
    }

    /// The slot at which the search for a hash begins.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        hash as usize & self.index.len().wrapping_sub(1)
    }

    /// Makes sure that `more` flows find a free slot each, and at most three slots in four are taken.
    #[inline]
    fn reserve(&mut self, more: usize) {
        while (self.entries.len() + more) * 4 > self.index.len() * 3 {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let slots = (self.index.len() * 2).max(SLOTS_MIN);
        self.index = Vec::new();
        self.index.reserve_exact(slots);
        memory::prefer_huge_pages(self.index.spare_capacity_mut());
        self.index.resize(slots, Slot::EMPTY);
        let wanted = slots / 4 * 3;
        self.entries.reserve_exact(wanted - self.entries.len());
        memory::prefer_huge_pages(self.entries.spare_capacity_mut());
        for number in 0..self.entries.len() {
            let Some(entry) = self.entries.get(number) else { continue };
            let hash = self.hasher.hash_one(entry.key);
            let mut at = self.home(hash);
            while self.index.get(at).is_some_and(|slot| !slot.is_empty()) {
                at = (at + 1) & (slots - 1);
            }
            if let Some(slot) = self.index.get_mut(at) {
                *slot = Slot::new(number, hash);
            }
        }
    }
}

/// An index slot: the upper half of the flow's hash, and one more than its entry's number; all zero is free.
#[derive(Debug, Clone, Copy)]
struct Slot(u64);

impl Slot {
    const EMPTY: Self = Self(0);

    #[inline]
    fn new(entry: usize, hash: u64) -> Self {
        Self(tag(hash) << 32 | (entry as u64 + 1))
    }

    #[inline]
    fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    fn tag(self) -> u64 {
        self.0 >> 32
    }

    /// Meaningless for a free slot.
    #[inline]
    fn entry(self) -> usize {
        (self.0 as u32).wrapping_sub(1) as usize
    }
}

#[inline]
fn tag(hash: u64) -> u64 {
    hash >> 32
}

/// The most flows a table can number.
pub const FLOWS_MAX: usize = u32::MAX as usize - 1;

/// With fewer flows than this the table lies in the processor's cache, and asking ahead costs more than it saves.
const FLOWS_IN_CACHE: usize = 4096;

const SLOTS_MIN: usize = 1024;

/// How far ahead of the reader the entries in key order are fetched.
const RANKS_AHEAD: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::capture::Direction;
    use crate::flow::key::{Key4, Key6, Ports};

    fn key(n: u32) -> Key4 {
        Key4::new(0, Direction::Unknown, n, !n, Ports { src: n as u16, dst: 443, protocol: 6 })
    }

    fn rows<K: FlowKey>(table: &mut Table<K>) -> Vec<(K, Counts)> {
        table.sort();
        (0..table.sorted_len()).filter_map(|rank| table.sorted(rank)).map(|entry| (entry.key, entry.counts)).collect()
    }

    #[test]
    fn many_flows_survive_growth() {
        let mut table = Table::new(1);
        let packets: Vec<_> = (0..200_000_u32)
            .chain(0..100_000)
            .map(|n| Observation {
                key: key(n),
                hash: table.announce(key(n)),
                time_ns: u64::from(n),
                ip_bytes: 40,
                tcp_flags: 2,
            })
            .collect();
        packets.chunks(BATCH_PACKETS).for_each(|batch| table.observe(batch));
        assert_eq!(table.len(), 200_000);
        let rows = rows(&mut table);
        assert!(rows.is_sorted_by_key(|(key, _)| *key));
        assert_eq!(rows.iter().map(|(_, counts)| counts.packets).sum::<u64>(), 300_000);
        let twice = rows.iter().filter(|(_, counts)| counts.packets == 2 && counts.bytes == 80).count();
        assert_eq!(twice, 100_000);
    }

    #[test]
    fn clearing_forgets_the_flows() {
        let mut table = Table::new(1);
        table.add(key(1), &Counts::of_packet(1, 40, 0), None);
        table.clear();
        assert!(table.is_empty());
        table.add(key(1), &Counts::of_packet(9, 40, 0), None);
        assert_eq!(rows(&mut table), [(key(1), Counts::of_packet(9, 40, 0))]);
    }

    #[test]
    fn details_stay_beside_their_flow() {
        let mut table = Table::new(1);
        let tagged = |vlan| Detail { vlan: crate::flow::counts::Same::One(Some(vlan)), ..Detail::default() };
        for (n, vlan) in [(2, 7), (1, 8), (2, 7)] {
            table.add(key(n), &Counts::of_packet(1, 40, 0), Some(&tagged(vlan)));
        }
        table.sort();
        let vlans: Vec<_> = (0..2).map(|rank| table.sorted_detail(rank).and_then(|d| d.vlan.shared())).collect();
        assert_eq!(vlans, [Some(8), Some(7)]);
    }

    proptest! {
        #[test]
        fn counts_what_a_plain_map_counts(
            packets in proptest::collection::vec((0..40_u32, 0..9_u128, any::<u16>(), any::<u8>(), any::<u32>()), 0..500),
            seed: u64,
        ) {
            let mut table4 = Table::new(seed);
            let mut table6 = Table::new(seed);
            let mut plain4: BTreeMap<Key4, Counts> = BTreeMap::new();
            let mut plain6: BTreeMap<Key6, Counts> = BTreeMap::new();
            let mut batch4 = Vec::new();
            let mut batch6 = Vec::new();
            for (a, b, bytes, tcp_flags, time) in packets {
                let ports = Ports { src: a as u16, dst: b as u16, protocol: 6 };
                let (time_ns, ip_bytes) = (u64::from(time), u32::from(bytes));
                let counts = Counts::of_packet(time_ns, ip_bytes, tcp_flags);
                let key4 = Key4::new(0, Direction::Unknown, a, b as u32, ports);
                let key6 = Key6::new(0, Direction::Unknown, u128::from(a), b, ports);
                batch4.push(Observation { key: key4, hash: table4.announce(key4), time_ns, ip_bytes, tcp_flags });
                batch6.push(Observation { key: key6, hash: table6.announce(key6), time_ns, ip_bytes, tcp_flags });
                plain4.entry(key4).and_modify(|known| known.add(&counts)).or_insert(counts);
                plain6.entry(key6).and_modify(|known| known.add(&counts)).or_insert(counts);
            }
            table4.observe(&batch4);
            table6.observe(&batch6);
            prop_assert_eq!(rows(&mut table4), plain4.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(rows(&mut table6), plain6.into_iter().collect::<Vec<_>>());
        }
    }
}
