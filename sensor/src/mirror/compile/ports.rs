//! One port of a packet: which rules are left in the interval that holds it.

use super::Bits;
use crate::config::Ports;

/// All ports, cut where a rule's range begins or ends: between two cuts every port leaves the same rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortIntervals {
    entries: Vec<PortInterval>,
}

/// One interval: up to the port before the next one's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortInterval {
    /// Its lowest port.
    pub first: u16,
    /// The rules whose range holds it, and those that name no range.
    pub bits: Bits,
}

impl PortIntervals {
    /// The intervals of rules' ranges. `any` are the rules that name none.
    pub(super) fn new(any: &Bits, named: &[(usize, Ports)]) -> Self {
        let begins = named.iter().map(|(_, ports)| ports.first());
        let ends = named.iter().filter_map(|(_, ports)| ports.last().checked_add(1));
        let mut cuts: Vec<u16> = begins.chain(ends).chain([0]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let bits = |first: u16| {
            let holding = named.iter().filter(|(_, ports)| ports.contains(first)).map(|(rule, _)| *rule);
            holding.collect::<Bits>().or(any)
        };
        Self { entries: cuts.into_iter().map(|first| PortInterval { first, bits: bits(first) }).collect() }
    }

    /// All of them, in the order of their ports. The first begins at port 0; there are at most two for each rule, and
    /// one.
    pub fn entries(&self) -> &[PortInterval] {
        &self.entries
    }

    /// The rules that a port leaves.
    #[inline]
    pub fn lookup(&self, port: u16) -> Bits {
        let after = self.entries.partition_point(|entry| entry.first <= port);
        self.entries.get(after.saturating_sub(1)).map_or_else(Bits::default, |entry| entry.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(any: &[usize], named: &[(usize, &str)]) -> Vec<(u16, Bits)> {
        let named: Vec<_> = named.iter().map(|(rule, ports)| (*rule, ports.parse().unwrap())).collect();
        let intervals = PortIntervals::new(&any.iter().copied().collect(), &named);
        intervals.entries().iter().map(|entry| (entry.first, entry.bits)).collect()
    }

    fn bits(rules: &[usize]) -> Bits {
        rules.iter().copied().collect()
    }

    #[test]
    fn ranges_are_cut_where_they_begin_and_end() {
        assert_eq!(
            intervals(&[7], &[(0, "80"), (1, "1-100"), (2, "100-65535")]),
            [
                (0, bits(&[7])),
                (1, bits(&[1, 7])),
                (80, bits(&[0, 1, 7])),
                (81, bits(&[1, 7])),
                (100, bits(&[1, 2, 7])),
                (101, bits(&[2, 7])),
            ]
        );
        assert_eq!(intervals(&[7], &[]), [(0, bits(&[7]))]);
        assert_eq!(intervals(&[], &[(3, "0-65535")]), [(0, bits(&[3]))]);
    }
}
