//! Patterns for interface names, as a shell writes them.

use std::convert::Infallible;
use std::str::FromStr;

/// A pattern that a whole name must match: `*` stands for any run of characters, also none, and `?` for exactly one.
/// Every other character stands for itself, so every text is a pattern.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Glob(String);

impl Glob {
    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern matches the whole of `name`.
    ///
    /// Only the last `*` met is ever reconsidered, since an earlier one could not take more than it: so the work is
    /// at most the product of both lengths.
    pub fn matches(&self, name: &str) -> bool {
        let mut pattern = self.0.chars();
        let mut rest = name.chars();
        let mut last_star = None;
        loop {
            let mut pattern_next = pattern.clone();
            let mut rest_next = rest.clone();
            match (pattern_next.next(), rest_next.next()) {
                (None, None) => return true,
                (Some('*'), _) => {
                    last_star = Some((pattern_next.clone(), rest.clone()));
                    pattern = pattern_next;
                }
                (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                    pattern = pattern_next;
                    rest = rest_next;
                }
                (_, _) => {
                    let Some((after_star, mut taken)) = last_star.take() else { return false };
                    if taken.next().is_none() {
                        return false;
                    }
                    pattern = after_star.clone();
                    rest = taken.clone();
                    last_star = Some((after_star, taken));
                }
            }
        }
    }
}

impl Glob {
    /// The one name that it matches, if it has no wildcard.
    pub fn as_literal(&self) -> Option<&str> {
        (!self.0.contains(['*', '?'])).then_some(&self.0)
    }

    /// Whether some name matches both patterns.
    ///
    /// Works through `other` a character at a time, keeping for each place in `self` whether both patterns can have
    /// matched the same text so far: the work is the product of both lengths.
    pub fn overlaps(&self, other: &Self) -> bool {
        let ours: Vec<char> = self.0.chars().collect();
        // Before anything of `other`: every place that is reached by letting stars stand for nothing.
        let mut reached: Vec<bool> = vec![true];
        let all_stars = ours.iter().scan(true, |so_far, wanted| {
            *so_far &= *wanted == '*';
            Some(*so_far)
        });
        reached.extend(all_stars);
        for theirs in other.0.chars() {
            let before = std::mem::take(&mut reached);
            let mut here = theirs == '*' && before.first() == Some(&true);
            reached.push(here);
            // `pair` is what was reached before `theirs`, without and with our character.
            for (pair, wanted) in before.windows(2).zip(&ours) {
                let [without, with] = *pair else { continue };
                here = match (*wanted, theirs) {
                    // A star stands for nothing, or takes what the other pattern has next.
                    ('*', _) | (_, '*') => here || with,
                    ('?', _) | (_, '?') => without,
                    (wanted, theirs) => without && wanted == theirs,
                };
                reached.push(here);
            }
        }
        reached.last() == Some(&true)
    }
}

impl FromStr for Glob {
    type Err = Infallible;

    fn from_str(pattern: &str) -> Result<Self, Infallible> {
        Ok(Self(pattern.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob(pattern.to_owned()).matches(name)
    }

    #[test]
    fn stars_and_question_marks() {
        assert!(matches("eth0", "eth0") && !matches("eth0", "eth01") && !matches("eth0", "eth"));
        assert!(matches("eth*", "eth") && matches("eth*", "eth12") && !matches("eth*", "veth0"));
        assert!(matches("*", "") && matches("*", "anything"));
        assert!(matches("eth?", "eth0") && !matches("eth?", "eth") && !matches("eth?", "eth10"));
        assert!(matches("*.100", "eth0.100.100") && !matches("*.100", "eth0.1000"));
        assert!(matches("a*b*c", "axxbxbxc") && !matches("a*b*c", "axxbxbx"));
        assert!(matches("?", "\u{e9}"), "a character, not a byte");
        assert!(matches("", "") && !matches("", "a"));
    }

    /// The definition, written down without any cleverness.
    fn model(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', pattern_rest @ ..], _) => (0..=name.len()).any(|taken| model(pattern_rest, &name[taken..])),
            (['?', pattern_rest @ ..], [_, name_rest @ ..]) => model(pattern_rest, name_rest),
            ([wanted, pattern_rest @ ..], [found, name_rest @ ..]) => wanted == found && model(pattern_rest, name_rest),
            ([], [_, ..]) | ([_, ..], []) => false,
        }
    }

    #[test]
    fn only_a_pattern_without_wildcards_is_a_name() {
        let literal = |pattern: &str| Glob(pattern.to_owned()).as_literal().map(str::to_owned);
        assert_eq!(literal("eth0.100").as_deref(), Some("eth0.100"));
        assert_eq!((literal("eth*"), literal("eth?")), (None, None));
    }

    fn overlap(one: &str, other: &str) -> bool {
        Glob(one.to_owned()).overlaps(&Glob(other.to_owned()))
    }

    #[test]
    fn patterns_overlap_where_a_name_matches_both() {
        for (one, other) in
            [("eth0", "eth0"), ("eth*", "*0"), ("e*0", "e?0"), ("*", ""), ("a*b*", "*b*a"), ("**", "?"), ("a*", "*b?c")]
        {
            assert!(overlap(one, other) && overlap(other, one), "{one} {other}");
        }
        for (one, other) in [("eth0", "eth1"), ("eth*", "lo"), ("e?", "e"), ("", "?"), ("a*a", "a")] {
            assert!(!overlap(one, other) && !overlap(other, one), "{one} {other}");
        }
    }

    proptest! {
        /// Patterns of so few characters meet in a name as short, if they meet at all: each star need stand for no
        /// more than the other pattern's characters.
        #[test]
        fn overlaps_agree_with_all_short_names(one in "[ab*?]{0,4}", other in "[ab*?]{0,4}") {
            let mut names = vec![String::new()];
            let mut begin = 0;
            for _ in 0..8 {
                let end = names.len();
                for at in begin..end {
                    for c in ['a', 'b'] {
                        let longer = format!("{}{c}", names[at]);
                        names.push(longer);
                    }
                }
                begin = end;
            }
            let expected = names.iter().any(|name| matches(&one, name) && matches(&other, name));
            prop_assert_eq!(overlap(&one, &other), expected);
        }
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,8}", name in "[ab]{0,10}") {
            let (pattern_chars, name_chars): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(matches(&pattern, &name), model(&pattern_chars, &name_chars));
        }
    }
}
