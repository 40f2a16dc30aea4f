//! A set of rules of one list: one bit for each, the first rule's lowest.

use super::RULES_MAX;

/// Rule `i` is bit `i % 64` of word `i / 64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Bits(pub [u64; WORDS]);

const WORDS: usize = RULES_MAX / 64;

impl Bits {
    /// Adds a rule. There is none from [`RULES_MAX`] on.
    pub fn insert(&mut self, rule: usize) {
        if let Some(word) = self.0.get_mut(rule / 64) {
            *word |= 1 << (rule % 64);
        }
    }

    /// Whether it holds a rule.
    pub fn contains(&self, rule: usize) -> bool {
        self.0.get(rule / 64).is_some_and(|word| word >> (rule % 64) & 1 == 1)
    }

    /// The rules that both hold.
    #[inline]
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
        self
    }

    /// The rules that either holds.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
        self
    }

    /// The first rule, if any.
    #[inline]
    pub fn first(&self) -> Option<usize> {
        let (at, word) = self.0.iter().enumerate().find(|(_, word)| **word != 0)?;
        Some(at * 64 + word.trailing_zeros() as usize)
    }

    /// Takes out every rule before `end`.
    #[inline]
    pub fn clear_before(&mut self, end: usize) {
        for (at, word) in self.0.iter_mut().enumerate() {
            match end.saturating_sub(at * 64) {
                64.. => *word = 0,
                part => *word &= u64::MAX << part,
            }
        }
    }
}

impl FromIterator<usize> for Bits {
    fn from_iter<I: IntoIterator<Item = usize>>(rules: I) -> Self {
        let mut bits = Self::default();
        rules.into_iter().for_each(|rule| bits.insert(rule));
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_is_found_and_those_before_an_end_cleared() {
        let all: Bits = [0, 5, 63, 64, 127, 128, 200, 255].into_iter().collect();
        for (end, first) in [
            (0, Some(0)),
            (1, Some(5)),
            (6, Some(63)),
            (64, Some(64)),
            (65, Some(127)),
            (128, Some(128)),
            (129, Some(200)),
            (201, Some(255)),
            (255, Some(255)),
            (256, None),
        ] {
            let mut bits = all;
            bits.clear_before(end);
            assert_eq!(bits.first(), first, "{end}");
        }
        assert!(all.contains(63) && !all.contains(62) && !all.contains(256));
    }

    #[test]
    fn sets_meet_and_join() {
        let (one, other): (Bits, Bits) = ([1, 70].into_iter().collect(), [70, 130].into_iter().collect());
        assert_eq!(one.and(&other), [70].into_iter().collect());
        assert_eq!(one.or(&other), [1, 70, 130].into_iter().collect());
        let mut none = Bits::default();
        none.insert(256);
        assert_eq!(none, Bits::default(), "there is no rule 256");
    }
}
