//! One address of a packet: which rules its longest matching prefix leaves.

use super::Bits;

/// An address as a number, most significant byte first: `u32` for IPv4, `u128` for IPv6.
pub trait Address: Copy + Ord {
    /// Its first `length` bits, the others zero.
    #[must_use]
    fn prefix(self, length: u8) -> Self;
    /// The address of all zeros.
    const ZERO: Self;
}

impl Address for u32 {
    fn prefix(self, length: u8) -> Self {
        self & !Self::MAX.checked_shr(length.into()).unwrap_or(0)
    }
    const ZERO: Self = 0;
}

impl Address for u128 {
    fn prefix(self, length: u8) -> Self {
        self & !Self::MAX.checked_shr(length.into()).unwrap_or(0)
    }
    const ZERO: Self = 0;
}

/// Every prefix that a rule of the list names for one end of one version of IP, and the one that holds all addresses,
/// which is the first. They are in the order of network, then length: a prefix comes after all that hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefixes<A> {
    entries: Vec<Prefix<A>>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix<A> {
    /// Its first address.
    pub network: A,
    /// How many of its bits count.
    pub length: u8,
    /// Index of the longest other prefix that holds it; of the first, 0.
    pub parent: u16,
    /// The rules whose prefix is this one or holds it: no other prefix must be looked at.
    pub bits: Bits,
}

impl<A: Address> Prefixes<A> {
    /// The prefixes of rules, given as rule, network and length. `any` are the rules that match every address.
    pub(super) fn new(any: &Bits, named: &[(usize, A, u8)]) -> Self {
        let mut wanted: Vec<(A, u8)> = named.iter().map(|(_, network, length)| (*network, *length)).collect();
        wanted.push((A::ZERO, 0));
        wanted.sort_unstable();
        wanted.dedup();

        let mut entries: Vec<Prefix<A>> = Vec::with_capacity(wanted.len());
        for (network, length) in wanted {
            let own: Bits =
                named.iter().filter(|(_, n, l)| (*n, *l) == (network, length)).map(|(rule, ..)| *rule).collect();
            let parent = entries.iter().rposition(|entry| network.prefix(entry.length) == entry.network);
            let inherited = parent.and_then(|parent| entries.get(parent)).map_or(*any, |parent| parent.bits);
            // There are at most as many prefixes as rules, and one.
            let parent = u16::try_from(parent.unwrap_or(0)).unwrap_or(u16::MAX);
            entries.push(Prefix { network, length, parent, bits: own.or(&inherited) });
        }
        Self { entries }
    }

    /// All of them, for a longest-prefix-match map: each holds what its lookup must give.
    pub fn entries(&self) -> &[Prefix<A>] {
        &self.entries
    }

    /// The rules that the longest prefix of `address` leaves.
    ///
    /// The last prefix that does not begin after the address either holds it, or lies within the longest one that does,
    /// since prefixes nest.
    #[inline]
    pub fn lookup(&self, address: A) -> Bits {
        let mut at = self.entries.partition_point(|entry| entry.network <= address).saturating_sub(1);
        loop {
            let Some(entry) = self.entries.get(at) else { return Bits::default() };
            // The first holds every address.
            if at == 0 || address.prefix(entry.length) == entry.network {
                return entry.bits;
            }
            at = entry.parent.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(rules: &[usize]) -> Bits {
        rules.iter().copied().collect()
    }

    /// What a longest-prefix-match map must be given: each prefix with the rules of all that hold it.
    #[test]
    fn a_prefix_holds_the_rules_of_those_around_it() {
        let named = [
            (0, 0x0a00_0000_u32, 8),
            (1, 0x0a01_0000, 16),
            (2, 0x0a01_0203, 32),
            (3, 0x0a01_0000, 16),
            (4, 0x0b00_0000, 8),
        ];
        let prefixes = Prefixes::new(&bits(&[9]), &named);
        let entry = |network, length, parent, rules: &[usize]| Prefix { network, length, parent, bits: bits(rules) };
        assert_eq!(
            prefixes.entries(),
            [
                entry(0, 0, 0, &[9]),
                entry(0x0a00_0000, 8, 0, &[0, 9]),
                entry(0x0a01_0000, 16, 1, &[0, 1, 3, 9]),
                entry(0x0a01_0203, 32, 2, &[0, 1, 2, 3, 9]),
                entry(0x0b00_0000, 8, 0, &[4, 9]),
            ]
        );
        assert_eq!(prefixes.lookup(0x0a01_0203), bits(&[0, 1, 2, 3, 9]));
        assert_eq!(prefixes.lookup(0x0a01_0204), bits(&[0, 1, 3, 9]), "after a longer one that ended");
        assert_eq!(prefixes.lookup(0x0a02_0000), bits(&[0, 9]));
        assert_eq!(prefixes.lookup(0xffff_ffff), bits(&[9]));
        assert_eq!(prefixes.lookup(0), bits(&[9]));
    }

    #[test]
    fn a_rule_for_all_addresses_of_a_version_is_in_every_prefix() {
        let prefixes = Prefixes::new(&bits(&[]), &[(0, 0_u128, 0), (1, 1 << 127, 1), (2, u128::MAX, 128)]);
        assert_eq!(prefixes.entries().len(), 3);
        assert_eq!(prefixes.lookup(5), bits(&[0]));
        assert_eq!(prefixes.lookup(u128::MAX - 1), bits(&[0, 1]));
        assert_eq!(prefixes.lookup(u128::MAX), bits(&[0, 1, 2]));
    }
}
