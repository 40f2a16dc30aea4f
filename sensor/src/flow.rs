//! Flows: what is counted, under which key, in which interval.
//!
//! A [`FlowTable`] holds the flows of one window as one worker saw them. When the window closes, the tables of all
//! workers are merged by [`merge::Merged`]; counting is a sum, so neither the number of workers nor the order of
//! packets changes a row.

pub mod counts;
pub mod fragments;
pub mod interval;
pub mod key;
pub mod merge;
pub mod table;

use crate::capture::{Counted, Direction, Frame};
use crate::packet::{Addresses, Fragment, Packet};
use counts::{Counts, Detail, Same};
use flowtap_abi::{Marks, Seen as Marked};
use fragments::{Datagram, Fragments};
use key::{FlowKey, Key4, Key6, Ports};
use table::{Observation, Table};

/// How fragments that hold no ports are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FragmentRule {
    /// With the flow of their first fragment, where it was seen in the interval.
    #[default]
    Join,
    /// As a flow with ports 0.
    Apart,
}

/// The most memory that a flow takes in a table: its entry, and two slots of an index that is at least half full, both
/// doubled because a table grows by doubling. Details that formats of our own ask for come on top.
pub const FLOW_BYTES_MAX: usize = 2 * (size_of::<table::Entry<Key6>>() + 2 * size_of::<u64>());

/// The flows of one window, as one worker saw them.
#[derive(Debug)]
pub struct FlowTable {
    /// IPv4 flows.
    pub v4: Table<Key4>,
    /// IPv6 flows.
    pub v6: Table<Key6>,
    /// IPv4 fragments that wait for their first.
    pub fragments4: Fragments<Key4>,
    /// IPv6 fragments that wait for their first.
    pub fragments6: Fragments<Key6>,
    /// Packets that were put in: what the rows must sum to.
    pub packets: u64,
    /// Bytes that were put in.
    pub bytes: u64,
}

impl FlowTable {
    /// An empty table. `seed` keeps strangers from choosing keys that collide.
    pub fn new(seed: u64) -> Self {
        Self {
            v4: Table::new(seed),
            v6: Table::new(seed),
            fragments4: Fragments::new(seed),
            fragments6: Fragments::new(seed),
            packets: 0,
            bytes: 0,
        }
    }

    /// How many flows and fragmented datagrams it holds.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len() + self.fragments4.len() + self.fragments6.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.v4.clear();
        self.v6.clear();
        self.fragments4.clear();
        self.fragments6.clear();
        self.packets = 0;
        self.bytes = 0;
    }

    /// Puts the flows in the order of their keys.
    pub fn sort(&mut self) {
        self.v4.sort();
        self.v6.sort();
    }

    /// Counts one packet of any kind; the fast path of [`crate::worker`] takes the common ones in batches instead.
    pub fn observe(&mut self, frame: &Frame, packet: &Packet, rule: FragmentRule, keep_detail: bool) {
        let direction = match frame.direction {
            Direction::Unknown => packet.direction,
            known => known,
        };
        let counts = Counts::of_packet(frame.time.0, packet.ip_bytes, packet.tcp_flags);
        let detail = keep_detail.then(|| detail(packet));
        let seen = Seen { packet, counts, detail, rule };
        self.packets += 1;
        self.bytes += u64::from(packet.ip_bytes);
        match packet.addresses {
            Addresses::V4 { src, dst } => {
                let key = |ports| Key4::new(frame.interface, direction, src, dst, ports);
                seen.count(key, packet.protocol, &mut self.v4, &mut self.fragments4);
            }
            Addresses::V6 { src, dst } => {
                let key = |ports| Key6::new(frame.interface, direction, src, dst, ports);
                seen.count(key, 0, &mut self.v6, &mut self.fragments6);
            }
        }
    }

    /// Counts a batch of whole IPv4 packets.
    #[inline]
    pub fn observe4(&mut self, batch: &[Observation<Key4>]) {
        self.packets += batch.len() as u64;
        self.bytes += batch.iter().map(|packet| u64::from(packet.ip_bytes)).sum::<u64>();
        self.v4.observe(batch);
    }

    /// Counts a batch of whole IPv6 packets.
    #[inline]
    pub fn observe6(&mut self, batch: &[Observation<Key6>]) {
        self.packets += batch.len() as u64;
        self.bytes += batch.iter().map(|packet| u64::from(packet.ip_bytes)).sum::<u64>();
        self.v6.observe(batch);
    }
}

impl FlowTable {
    /// Adds what the kernel counted, and answers the packets and bytes that it took out of those let in, because the
    /// kernel turned them away later.
    pub fn add(&mut self, counted: &Counted, keep_detail: bool) -> (u64, u64) {
        let ports = Ports { src: counted.src_port, dst: counted.dst_port, protocol: counted.protocol };
        let (interface, direction) = (counted.interface, counted.direction);
        let detail = keep_detail.then(|| detail_of(counted.marks, counted.protocol));
        let taken = match counted.addresses {
            Addresses::V4 { src, dst } => {
                add(&mut self.v4, Key4::new(interface, direction, src, dst, ports), counted, detail.as_ref())
            }
            Addresses::V6 { src, dst } => {
                add(&mut self.v6, Key6::new(interface, direction, src, dst, ports), counted, detail.as_ref())
            }
        };
        self.packets = self.packets + counted.packets - taken.0;
        self.bytes = self.bytes + counted.bytes - taken.1;
        taken
    }
}

fn add<K: FlowKey>(table: &mut Table<K>, key: K, counted: &Counted, detail: Option<&Detail>) -> (u64, u64) {
    let counts = counts_of(counted);
    let Some(rejection) = counted.rejection else {
        table.add(key, &counts, detail);
        return (0, 0);
    };
    table.add(key.rejected(rejection.reason), &counts, detail);
    if rejection.was_counted { table.take(key, counted.packets, counted.bytes) } else { (0, 0) }
}

fn counts_of(counted: &Counted) -> Counts {
    let is_tcp = counted.protocol == TCP;
    Counts {
        packets: counted.packets,
        bytes: counted.bytes,
        first_ns: counted.first.0,
        last_ns: counted.last.0,
        flags_aws: if is_tcp { counted.marks.cloud_tcp_flags() } else { 0 },
        flags_raw: if is_tcp { counted.marks.tcp_flags() } else { 0 },
    }
}

/// The kernel does not keep Ethernet addresses.
fn detail_of(marks: Marks, protocol: u8) -> Detail {
    let (icmp_type, icmp_code) = match marks.icmp_type_and_code() {
        Marked::One((icmp_type, code)) if matches!(protocol, ICMP | ICMPV6) => {
            (Same::One(Some(icmp_type)), Same::One(Some(code)))
        }
        Marked::Several if matches!(protocol, ICMP | ICMPV6) => (Same::Mixed, Same::Mixed),
        Marked::Never | Marked::One(_) | Marked::Several => (Same::One(None), Same::One(None)),
    };
    let vlan = match marks.vlan_id() {
        Marked::Never => Same::Unset,
        Marked::One(id) => Same::One(id),
        Marked::Several => Same::Mixed,
    };
    Detail { vlan, ether_src: Same::One(None), ether_dst: Same::One(None), icmp_type, icmp_code }
}

/// IANA's numbers.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;

/// One packet on its way into the table of its family.
struct Seen<'a> {
    packet: &'a Packet,
    counts: Counts,
    detail: Option<Detail>,
    rule: FragmentRule,
}

impl Seen<'_> {
    fn count<K: FlowKey>(
        &self,
        key: impl Fn(Ports) -> K,
        datagram_protocol: u8,
        flows: &mut Table<K>,
        fragments: &mut Fragments<K>,
    ) {
        let Packet { src_port, dst_port, protocol, fragment, .. } = *self.packet;
        let ports = Ports { src: src_port, dst: dst_port, protocol };
        let datagram = |id| Datagram { key: key(Ports { src: 0, dst: 0, protocol: datagram_protocol }), id };
        match (self.rule, fragment) {
            (FragmentRule::Join, Fragment::Later { id }) => {
                fragments.later(datagram(id), protocol, &self.counts, self.detail.as_ref());
                return;
            }
            (FragmentRule::Join, Fragment::First { id }) => {
                fragments.first(datagram(id), self.counts.first_ns, ports);
            }
            (FragmentRule::Apart, _) | (FragmentRule::Join, Fragment::None) => {}
        }
        flows.add(key(ports), &self.counts, self.detail.as_ref());
    }
}

fn detail(packet: &Packet) -> Detail {
    Detail {
        vlan: Same::One(packet.vlan),
        ether_src: Same::One(packet.ether.map(|(src, _)| src)),
        ether_dst: Same::One(packet.ether.map(|(_, dst)| dst)),
        icmp_type: Same::One(packet.icmp.map(|(kind, _)| kind)),
        icmp_code: Same::One(packet.icmp.map(|(_, code)| code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{DropReason, Rejection};
    use crate::time::Timestamp;

    fn counted(packets: u64, bytes: u64, at: u64, rejection: Option<Rejection>) -> Counted {
        Counted {
            interface: 3,
            direction: Direction::Ingress,
            addresses: Addresses::V4 { src: 1, dst: 2 },
            protocol: 6,
            src_port: 4000,
            dst_port: 22,
            packets,
            bytes,
            first: Timestamp(at),
            last: Timestamp(at + 1),
            marks: Marks::tcp(0x12).and(Marks::vlan(Some(7))),
            rejection,
        }
    }

    fn rejection(was_counted: bool) -> Option<Rejection> {
        DropReason::from_number(5).map(|reason| Rejection { reason, was_counted })
    }

    /// Packets, bytes and first time of what was let in, and of what was turned away.
    fn sums(table: &mut FlowTable) -> Vec<(Option<u8>, u64, u64, u64)> {
        table.sort();
        let entries = (0..table.v4.sorted_len()).filter_map(|rank| table.v4.sorted(rank));
        let sums = entries.map(|entry| {
            let reason = entry.key.parts().rejection.map(DropReason::number);
            (reason, entry.counts.packets, entry.counts.bytes, entry.counts.first_ns)
        });
        sums.collect()
    }

    #[test]
    fn what_is_turned_away_leaves_those_let_in_only_if_it_was_among_them() {
        let mut table = FlowTable::new(1);
        assert_eq!(table.add(&counted(10, 1000, 50, None), true), (0, 0));
        assert_eq!(table.add(&counted(3, 180, 60, rejection(false)), true), (0, 0), "dropped before it was counted");
        assert_eq!(table.add(&counted(4, 240, 70, rejection(true)), true), (4, 240));
        assert_eq!(sums(&mut table), [(None, 6, 760, 50), (Some(5), 7, 420, 60)]);
        assert_eq!((table.packets, table.bytes), (13, 1180));
        assert_eq!(table.add(&counted(9, 900, 80, rejection(true)), true), (6, 760), "never below zero");
        assert_eq!(table.add(&counted(1, 60, 90, None), true), (0, 0));
        assert_eq!(sums(&mut table), [(None, 1, 60, 90), (Some(5), 16, 1320, 60)], "times begin anew");
        assert_eq!((table.packets, table.bytes), (17, 1380));
        assert_eq!(FlowTable::new(1).add(&counted(2, 100, 1, rejection(true)), false), (0, 0), "an empty table");
    }

    #[test]
    fn flags_and_tags_come_out_of_the_marks() {
        let mut table = FlowTable::new(1);
        table.add(&counted(1, 60, 1, None), true);
        table.sort();
        let entry = table.v4.sorted(0).unwrap();
        assert_eq!((entry.counts.flags_raw, entry.counts.flags_aws), (0x12, 0x12));
        let detail = table.v4.sorted_detail(0).unwrap();
        assert_eq!((detail.vlan, detail.icmp_type), (Same::One(Some(7)), Same::One(None)));
        let ping = Marks::icmp(8, 0).and(Marks::vlan(None));
        let detail = detail_of(ping, 1);
        assert_eq!(
            (detail.vlan.shared(), detail.icmp_type.shared(), detail.icmp_code.shared()),
            (None, Some(8), Some(0))
        );
        assert_eq!(detail_of(ping.and(Marks::icmp(0, 0)), 1).icmp_type, Same::Mixed);
    }
}
