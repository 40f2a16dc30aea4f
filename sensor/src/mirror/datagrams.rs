//! What was decided for fragmented datagrams, so that later fragments follow their first one: by the rules, and by the
//! guard.
//!
//! The memory is bounded: when half of it is full, what is older than that half is forgotten. A later fragment whose
//! first one is not remembered is decided as it is, without ports.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::Datagram;

/// Remembers decisions.
#[derive(Debug)]
pub(super) struct Datagrams<D> {
    young: Decisions<D>,
    old: Decisions<D>,
}

/// By interface and datagram.
type Decisions<D> = HashMap<(u16, Datagram), D, FixedState>;

impl<D: Copy> Datagrams<D> {
    /// Nothing remembered. `seed` keeps strangers from choosing datagrams that collide.
    pub(super) fn new(seed: u64) -> Self {
        let empty = || HashMap::with_hasher(FixedState::with_seed(seed));
        Self { young: empty(), old: empty() }
    }

    /// Remembers what was decided for a first fragment.
    pub(super) fn remember(&mut self, interface: u16, datagram: Datagram, decision: D) {
        if self.young.len() >= DATAGRAMS_MAX / 2 {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert((interface, datagram), decision);
    }

    /// What was decided for the first fragment of a datagram, if that is remembered.
    pub(super) fn recall(&self, interface: u16, datagram: Datagram) -> Option<D> {
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
    fn a_decision_is_remembered() {
        let mut datagrams = Datagrams::new(1);
        datagrams.remember(0, datagram(7), true);
        assert_eq!(datagrams.recall(0, datagram(7)), Some(true));
        assert_eq!(datagrams.recall(1, datagram(7)), None, "another interface");
        assert_eq!(datagrams.recall(0, datagram(8)), None);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut datagrams = Datagrams::new(1);
        for id in 0..DATAGRAMS_MAX as u32 + 1 {
            datagrams.remember(0, datagram(id), true);
        }
        assert!(datagrams.young.len() + datagrams.old.len() <= DATAGRAMS_MAX);
        assert_eq!(datagrams.recall(0, datagram(0)), None);
        assert_eq!(datagrams.recall(0, datagram(DATAGRAMS_MAX as u32 / 2)), Some(true));
    }
}
