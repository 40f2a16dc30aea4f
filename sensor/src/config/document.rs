//! Reading a TOML document that a person wrote: every refusal names the line, and an unknown key what was meant.
//!
//! The shape of a document is a serde type with `deny_unknown_fields`; this file turns what serde and the TOML parser
//! say about a text into one kind of error.

use serde::de::DeserializeOwned;

/// A longer document is a mistake (somebody named the wrong file), not a configuration.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why a document was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// A key that has no meaning here.
    #[error("line {line}: unknown key `{key}`, {hint}")]
    UnknownKey {
        /// Counted from 1.
        line: usize,
        /// As written.
        key: String,
        /// What could be there instead.
        hint: KeyHint,
    },
    /// Not TOML, or a value that means nothing.
    #[error("line {line}: {reason}")]
    Invalid {
        /// Counted from 1.
        line: usize,
        /// One sentence, lower case.
        reason: String,
    },
    /// Longer than [`DOCUMENT_BYTES_MAX`].
    #[error("{bytes} bytes are too many for a configuration, at most {DOCUMENT_BYTES_MAX} are read")]
    TooLarge {
        /// The text's length.
        bytes: usize,
    },
}

/// What to write instead of an unknown key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyHint {
    /// The known key that looks most like it.
    DidYouMean(String),
    /// All known keys, where none looks like it.
    OneOf(Vec<String>),
}

impl std::fmt::Display for KeyHint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DidYouMean(key) => write!(f, "did you mean `{key}`?"),
            Self::OneOf(keys) => write!(f, "known here: `{}`", keys.join("`, `")),
        }
    }
}

/// Reads `text` as a `T`.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, DocumentError> {
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(DocumentError::TooLarge { bytes: text.len() });
    }
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        let line = line_of(text, span.start);
        match known_keys(error.message()) {
            Some(known) => {
                let key = text.get(span).unwrap_or_default().trim_matches(['"', '\'']).to_owned();
                let hint = hint(&key, known);
                DocumentError::UnknownKey { line, key, hint }
            }
            None => DocumentError::Invalid { line, reason: error.message().trim_end().replace('\n', ", ") },
        }
    })
}

/// The line, counted from 1, that holds the byte at `offset`.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The keys that serde would have taken, if its message is about an unknown one. The wording is that of
/// `serde::de::Error::unknown_field`: every name stands in backquotes, the offending one first.
fn known_keys(message: &str) -> Option<Vec<String>> {
    let names = message.strip_prefix("unknown field ")?;
    Some(names.split('`').skip(3).step_by(2).map(str::to_owned).collect())
}

/// What to say of a key or name that is none of `known`.
pub(super) fn hint(key: &str, known: Vec<String>) -> KeyHint {
    let likeness = |candidate: &String| strsim::jaro_winkler(key, candidate);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        Some(nearest) if likeness(nearest) >= LIKENESS_MIN => KeyHint::DidYouMean(nearest.clone()),
        Some(_) | None => KeyHint::OneOf(known),
    }
}

/// Jaro-Winkler likeness below which a suggestion would puzzle more than help; clap uses nearly the same.
const LIKENESS_MIN: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        flow_log: u8,
        #[serde(default)]
        region: String,
    }

    fn refusal(text: &str) -> String {
        read::<Sample>(text).unwrap_err().to_string()
    }

    #[test]
    fn unknown_keys_are_named_with_line_and_suggestion() {
        assert_eq!(refusal("flow-log = 1\n\nregoin = 'x'\n"), "line 3: unknown key `regoin`, did you mean `region`?");
        assert_eq!(refusal("\"flow_log\" = 1"), "line 1: unknown key `flow_log`, did you mean `flow-log`?");
        assert_eq!(refusal("capture = 'auto'"), "line 1: unknown key `capture`, known here: `flow-log`, `region`");
    }

    #[test]
    fn wrong_values_and_broken_toml_are_named_with_line() {
        assert_eq!(refusal("region = 'x'\nflow-log = 'y'"), "line 2: invalid type: string \"y\", expected u8");
        assert!(refusal("region = 'x'\nflow-log = ").starts_with("line 2: "));
        assert!(refusal("region = 'x'\nregion = 'y'").starts_with("line 2: duplicate key"));
    }

    #[test]
    fn lines_are_counted_from_one_and_end_at_the_text() {
        assert_eq!((line_of("a\nb", 0), line_of("a\nb", 2), line_of("a\nb", 99)), (1, 2, 2));
    }

    #[test]
    fn documents_have_a_bound() {
        let long = "#".repeat(DOCUMENT_BYTES_MAX + 1);
        assert_eq!(read::<Sample>(&long), Err(DocumentError::TooLarge { bytes: DOCUMENT_BYTES_MAX + 1 }));
    }
}
