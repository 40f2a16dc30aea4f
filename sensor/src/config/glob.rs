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

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,8}", name in "[ab]{0,10}") {
            let (pattern_chars, name_chars): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(matches(&pattern, &name), model(&pattern_chars, &name_chars));
        }
    }
}
