//! What a record repeats about its interface: account, VPC, tags and the like.
//!
//! Values are checked once, when they are set. The text format separates columns by spaces and quotes nothing, so a
//! value holds neither whitespace nor control characters, is never empty, and `-` is the word for "not known".

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::field::Field;

/// The values that come from configuration and not from packets, by field.
///
/// Many records share one, behind an `Arc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Indexed by [`slot`]; a value here obeys the rules of [`check`].
    values: [Option<Box<str>>; SLOT_COUNT],
}

impl Metadata {
    /// Nothing known at all, not even that the account is `unknown`. This is where readers of files start.
    pub fn empty() -> Self {
        Self { values: [const { None }; SLOT_COUNT] }
    }

    /// The value of `field`, `None` where it is not known or comes from packets.
    pub fn get(&self, field: Field) -> Option<&str> {
        self.values[slot(field)?].as_deref()
    }

    /// Sets `field` as somebody configured it. Values of tags are percent-encoded on the way in, everything but
    /// letters, digits and `-._~`. The value `-` unsets the field.
    ///
    /// # Errors
    /// [`MetadataError`] when the field is not metadata, or the value cannot stand in a line of text.
    pub fn set(&mut self, field: Field, value: impl Into<String>) -> Result<(), MetadataError> {
        let value = value.into();
        if field.is_tag() && value != ABSENT && !value.is_empty() {
            return self.set_as_written(field, &utf8_percent_encode(&value, TAG_ESCAPED).to_string());
        }
        self.set_as_written(field, &value)
    }

    /// Sets `field` to a value as a file has it, where tags are encoded already.
    ///
    /// # Errors
    /// As for [`Metadata::set`].
    pub(crate) fn set_as_written(&mut self, field: Field, value: &str) -> Result<(), MetadataError> {
        let slot = slot(field).ok_or(MetadataError::NotMetadata { field })?;
        check(field, value)?;
        self.values[slot] = (value != ABSENT).then(|| value.into());
        Ok(())
    }
}

impl Default for Metadata {
    /// Only `account-id` is known, to be `unknown`: AWS's own word for it.
    fn default() -> Self {
        let mut metadata = Self::empty();
        if let Some(slot) = slot(Field::AccountId) {
            metadata.values[slot] = Some(ACCOUNT_ID_DEFAULT.into());
        }
        metadata
    }
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// The field is not configured: its value comes from packets.
    #[error("{field} comes from packets and cannot be set")]
    NotMetadata {
        /// The field that was to be set.
        field: Field,
    },
    /// The value is empty. `-` is how to say "not known".
    #[error("{field} must not be empty; `-` leaves it out")]
    Empty {
        /// The field that was to be set.
        field: Field,
    },
    /// The value holds whitespace or a control character.
    #[error("{field} must not contain {character:?}: columns are separated by spaces")]
    Separator {
        /// The field that was to be set.
        field: Field,
        /// The first character that cannot stand in a line.
        character: char,
    },
    /// The value is longer than [`VALUE_BYTES_MAX`].
    #[error("{field} has {length_bytes} bytes; the limit is {VALUE_BYTES_MAX}")]
    TooLong {
        /// The field that was to be set.
        field: Field,
        /// Length of the value as it would be written.
        length_bytes: usize,
    },
}

fn check(field: Field, value: &str) -> Result<(), MetadataError> {
    if value.is_empty() {
        return Err(MetadataError::Empty { field });
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(MetadataError::TooLong { field, length_bytes: value.len() });
    }
    match value.chars().find(|c| c.is_whitespace() || c.is_control()) {
        Some(character) => Err(MetadataError::Separator { field, character }),
        None => Ok(()),
    }
}

/// Where the value of a metadata field is kept.
fn slot(field: Field) -> Option<usize> {
    SLOTS[field as usize].map(usize::from)
}

/// The longest value in bytes, as written. A tag value has at most 256 characters, which is 3,072 bytes when each is
/// four bytes of UTF-8 and each byte is escaped; an ARN has at most 2,048.
pub const VALUE_BYTES_MAX: usize = 4096;

/// What `account-id` is when nobody configured it.
pub const ACCOUNT_ID_DEFAULT: &str = "unknown";

/// The word for "not known, not applicable".
pub(crate) const ABSENT: &str = "-";

/// What RFC 3986 calls unreserved stays, the rest of ASCII is escaped (as is everything beyond ASCII).
const TAG_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// For every field its place among the metadata fields, in the order of the table.
const SLOTS: [Option<u8>; Field::COUNT] = slots();

const SLOT_COUNT: usize = count(&SLOTS);

const fn slots() -> [Option<u8>; Field::COUNT] {
    let mut slots = [None; Field::COUNT];
    let mut next = 0;
    let mut index = 0;
    while index < Field::COUNT {
        if Field::ALL[index].is_metadata() {
            slots[index] = Some(next);
            next += 1;
        }
        index += 1;
    }
    slots
}

const fn count(slots: &[Option<u8>; Field::COUNT]) -> usize {
    let mut count = 0;
    let mut index = 0;
    while index < Field::COUNT {
        if slots[index].is_some() {
            count += 1;
        }
        index += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_unknown_until_told() {
        let mut metadata = Metadata::default();
        assert_eq!(metadata.get(Field::AccountId), Some("unknown"));
        metadata.set(Field::AccountId, "012345678901").unwrap();
        assert_eq!(metadata.get(Field::AccountId), Some("012345678901"));
        assert_eq!(metadata.get(Field::VpcId), None);
    }

    #[test]
    fn every_metadata_field_has_a_place_of_its_own() {
        let mut metadata = Metadata::empty();
        let fields = || Field::ALL.into_iter().filter(|field| field.is_metadata());
        for field in fields() {
            metadata.set_as_written(field, field.name()).unwrap();
        }
        for field in fields() {
            assert_eq!(metadata.get(field), Some(field.name()));
        }
        assert_eq!(fields().count(), 33);
    }

    #[test]
    fn packets_own_the_other_fields() {
        let refused = Metadata::default().set(Field::Srcaddr, "10.0.0.1");
        assert_eq!(refused, Err(MetadataError::NotMetadata { field: Field::Srcaddr }));
        assert_eq!(Metadata::default().get(Field::Version), None);
    }

    #[test]
    fn tags_are_percent_encoded_utf8() {
        let mut metadata = Metadata::default();
        metadata.set(Field::InstanceTag, "web server/é 100%").unwrap();
        assert_eq!(metadata.get(Field::InstanceTag), Some("web%20server%2F%C3%A9%20100%25"));
        metadata.set_as_written(Field::AsgTag2, "a%20b").unwrap();
        assert_eq!(metadata.get(Field::AsgTag2), Some("a%20b"));
    }

    #[test]
    fn a_hyphen_unsets() {
        let mut metadata = Metadata::default();
        metadata.set(Field::AccountId, "-").unwrap();
        assert_eq!(metadata.get(Field::AccountId), None);
        assert_eq!(metadata, Metadata::empty());
    }

    #[test]
    fn values_that_would_break_a_line_are_refused() {
        let mut metadata = Metadata::default();
        let field = Field::Region;
        assert_eq!(metadata.set(field, ""), Err(MetadataError::Empty { field }));
        assert_eq!(metadata.set(field, "eu dc"), Err(MetadataError::Separator { field, character: ' ' }));
        assert_eq!(metadata.set(field, "eu\n"), Err(MetadataError::Separator { field, character: '\n' }));
        assert_eq!(metadata.set(field, "eu\u{a0}"), Err(MetadataError::Separator { field, character: '\u{a0}' }));
        assert_eq!(metadata.set(field, "\u{7f}"), Err(MetadataError::Separator { field, character: '\u{7f}' }));
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        assert_eq!(metadata.set(field, long), Err(MetadataError::TooLong { field, length_bytes: 4097 }));
        assert_eq!(metadata.get(field), None);
        metadata.set(field, "x".repeat(VALUE_BYTES_MAX)).unwrap();
        assert_eq!(metadata.set(Field::InterfaceTag, ""), Err(MetadataError::Empty { field: Field::InterfaceTag }));
    }
}
