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

use crate::capture::{Direction, Frame};
use crate::packet::{Addresses, Fragment, Packet};
use counts::{Counts, Detail, Same};
use fragments::{Datagram, Fragments};
use key::{Key4, Key6, Ports};
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

/// One packet on its way into the table of its family.
struct Seen<'a> {
    packet: &'a Packet,
    counts: Counts,
    detail: Option<Detail>,
    rule: FragmentRule,
}

impl Seen<'_> {
    fn count<K: key::FlowKey>(
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
