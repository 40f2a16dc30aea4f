//! Fragments: later pieces of a datagram belong to the flow of its first, which alone holds the ports.
//!
//! Authority: RFC 791 section 3.2 and RFC 8200 section 4.5 for what identifies a datagram. The first fragment may come
//! before or after the later ones, and another worker may have seen it, so later fragments wait here, counted per
//! datagram, until their interval closes. Then they join the flow of the first fragment seen in that interval; without
//! one they are a flow with ports 0. Where one identification was used twice in an interval, the earliest first
//! fragment wins.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::FixedState;

use super::counts::{Counts, Detail};
use super::key::{FlowKey, Ports};

/// What tells one fragmented datagram from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Datagram<K> {
    /// Interface, direction and addresses; ports 0; for IPv4 the protocol, for IPv6 (where it is no part of the
    /// datagram's identity) 0.
    pub key: K,
    /// Identification.
    pub id: u32,
}

/// What is known of the datagrams whose fragments were seen in one interval.
#[derive(Debug)]
pub struct Fragments<K> {
    datagrams: HashMap<Datagram<K>, Pieces, FixedState>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Pieces {
    /// When the earliest first fragment came, and its ports.
    first: Option<(u64, Ports)>,
    later: Option<Later>,
}

#[derive(Debug, Clone, Copy)]
struct Later {
    protocol: u8,
    counts: Counts,
    detail: Option<Detail>,
}

impl<K: FlowKey> Fragments<K> {
    /// Nothing known. `seed` keeps strangers from choosing datagrams that collide.
    pub fn new(seed: u64) -> Self {
        Self { datagrams: HashMap::with_hasher(FixedState::with_seed(seed)) }
    }

    /// How many datagrams are remembered.
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Forgets all and keeps the memory.
    pub fn clear(&mut self) {
        self.datagrams.clear();
    }

    /// Remembers the ports of a first fragment (which itself is counted as any packet).
    pub fn first(&mut self, datagram: Datagram<K>, time_ns: u64, ports: Ports) {
        self.datagrams.entry(datagram).or_default().learn((time_ns, ports));
    }

    /// Counts a later fragment. `protocol` is what its own header says.
    pub fn later(&mut self, datagram: Datagram<K>, protocol: u8, counts: &Counts, detail: Option<&Detail>) {
        let pieces = self.datagrams.entry(datagram).or_default();
        pieces.wait(Later { protocol, counts: *counts, detail: detail.copied() });
    }

    /// Takes over what another worker saw of the same interval, and leaves that one empty.
    pub fn merge(&mut self, other: &mut Self) {
        for (datagram, theirs) in other.datagrams.drain() {
            match self.datagrams.entry(datagram) {
                Entry::Vacant(free) => {
                    free.insert(theirs);
                }
                Entry::Occupied(mut ours) => {
                    let ours = ours.get_mut();
                    theirs.first.into_iter().for_each(|first| ours.learn(first));
                    theirs.later.into_iter().for_each(|later| ours.wait(later));
                }
            }
        }
    }

    /// Hands over the later fragments, each datagram's under the key of the flow it belongs to, and forgets all.
    pub fn drain(&mut self, mut take: impl FnMut(K, &Counts, Option<&Detail>)) {
        for (datagram, pieces) in self.datagrams.drain() {
            let Some(later) = pieces.later else { continue };
            let alone = Ports { src: 0, dst: 0, protocol: later.protocol };
            let ports = pieces.first.map_or(alone, |(_, ports)| ports);
            take(datagram.key.with_ports(ports), &later.counts, later.detail.as_ref());
        }
    }
}

impl Pieces {
    fn learn(&mut self, first: (u64, Ports)) {
        self.first = Some(self.first.map_or(first, |known| known.min(first)));
    }

    fn wait(&mut self, more: Later) {
        match &mut self.later {
            None => self.later = Some(more),
            Some(known) => {
                known.counts.add(&more.counts);
                known.protocol = known.protocol.min(more.protocol);
                if let (Some(known), Some(more)) = (&mut known.detail, &more.detail) {
                    known.add(more);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Direction;
    use crate::flow::key::Key4;

    const UDP: u8 = 17;
    const WHOLE: Ports = Ports { src: 5000, dst: 53, protocol: UDP };

    fn datagram(id: u32) -> Datagram<Key4> {
        let ports = Ports { src: 0, dst: 0, protocol: UDP };
        Datagram { key: Key4::new(0, Direction::Unknown, 1, 2, ports), id }
    }

    fn drained(fragments: &mut Fragments<Key4>) -> Vec<(Ports, u64)> {
        let mut flows = Vec::new();
        fragments.drain(|key, counts, _| flows.push((key.parts().ports, counts.packets)));
        flows.sort_unstable();
        flows
    }

    #[test]
    fn later_fragments_join_their_first_whichever_came_before() {
        for first_comes_last in [false, true] {
            let mut fragments = Fragments::new(1);
            if !first_comes_last {
                fragments.first(datagram(7), 10, WHOLE);
            }
            fragments.later(datagram(7), UDP, &Counts::of_packet(11, 1500, 0), None);
            fragments.later(datagram(7), UDP, &Counts::of_packet(12, 300, 0), None);
            if first_comes_last {
                fragments.first(datagram(7), 10, WHOLE);
            }
            assert_eq!(drained(&mut fragments), [(WHOLE, 2)]);
            assert!(fragments.is_empty());
        }
    }

    #[test]
    fn without_a_first_fragment_the_ports_are_0() {
        let mut fragments = Fragments::new(1);
        fragments.later(datagram(7), UDP, &Counts::of_packet(1, 1500, 0), None);
        assert_eq!(drained(&mut fragments), [(Ports { src: 0, dst: 0, protocol: UDP }, 1)]);
    }

    #[test]
    fn the_first_fragment_may_be_another_workers() {
        let (mut ours, mut theirs) = (Fragments::new(1), Fragments::new(2));
        ours.later(datagram(7), UDP, &Counts::of_packet(1, 1500, 0), None);
        ours.later(datagram(8), UDP, &Counts::of_packet(1, 1500, 0), None);
        theirs.first(datagram(7), 2, WHOLE);
        theirs.later(datagram(7), UDP, &Counts::of_packet(3, 20, 0), None);
        ours.merge(&mut theirs);
        assert!(theirs.is_empty());
        assert_eq!(drained(&mut ours), [(Ports { src: 0, dst: 0, protocol: UDP }, 1), (WHOLE, 2)]);
    }

    #[test]
    fn of_two_first_fragments_the_earlier_wins() {
        let other = Ports { src: 1, ..WHOLE };
        for order in [[(5, WHOLE), (9, other)], [(9, other), (5, WHOLE)]] {
            let mut fragments = Fragments::new(1);
            order.iter().for_each(|(time, ports)| fragments.first(datagram(7), *time, *ports));
            fragments.later(datagram(7), UDP, &Counts::of_packet(6, 20, 0), None);
            assert_eq!(drained(&mut fragments), [(WHOLE, 1)]);
        }
    }
}
