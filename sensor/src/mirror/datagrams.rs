//! What was decided for fragmented datagrams, so that later fragments follow their first one.
//!
//! The memory is bounded: when half of it is full, what is older than that half is forgotten. A later fragment whose
//! first one is not remembered is decided as it is, without ports.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::{Datagram, Match};

/// Remembers decisions.
#[derive(Debug)]
pub(super) struct Datagrams {
    young: Decisions,
    old: Decisions,
}

/// By interface and datagram.
type Decisions = HashMap<(u16, Datagram), Option<Match>, FixedState>;

impl Datagrams {
    /// Nothing remembered. `seed` keeps strangers from choosing datagrams that collide.
    pub(super) fn new(seed: u64) -> Self {
        let empty = || HashMap::with_hasher(FixedState::with_seed(seed));
        Self { young: empty(), old: empty() }
    }

    /// Remembers what was decided for a first fragment.
    pub(super) fn remember(&mut self, interface: u16, datagram: Datagram, decision: Option<Match>) {
        if self.young.len() >= DATAGRAMS_MAX / 2 {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert((interface, datagram), decision);
    }

    /// What was decided for the first fragment of a datagram, if that is remembered.
    pub(super) fn recall(&self, interface: u16, datagram: Datagram) -> Option<Option<Match>> {
        let key = (interface, datagram);
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }
}

/// How many datagrams are remembered: as many as arrive at once even where somebody sends nothing but fragments.
pub(super) const DATAGRAMS_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Addresses;

    fn datagram(id: u32) -> Datagram {
        Datagram { addresses: Addresses::V4 { src: 1, dst: 2 }, protocol: 17, id }
    }

    #[test]
    fn a_decision_is_remembered_also_if_it_is_no() {
        let mut datagrams = Datagrams::new(1);
        datagrams.remember(0, datagram(7), None);
        assert_eq!(datagrams.recall(0, datagram(7)), Some(None));
        assert_eq!(datagrams.recall(1, datagram(7)), None, "another interface");
        assert_eq!(datagrams.recall(0, datagram(8)), None);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut datagrams = Datagrams::new(1);
        for id in 0..DATAGRAMS_MAX as u32 + 1 {
            datagrams.remember(0, datagram(id), None);
        }
        assert!(datagrams.young.len() + datagrams.old.len() <= DATAGRAMS_MAX);
        assert_eq!(datagrams.recall(0, datagram(0)), None);
        assert_eq!(datagrams.recall(0, datagram(DATAGRAMS_MAX as u32 / 2)), Some(None));
    }
}
