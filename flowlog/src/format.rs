//! Which fields a flow log shows, and in which order: `${version} ${account-id} ...` parsed once.
//!
//! Authority: the AWS pages "Flow log records" and "CreateFlowLogs" (`LogFormat`). The default format is version 2's
//! fourteen fields; a custom one is any fields in any order. Short names stand for whole versions.

use std::fmt;
use std::str::FromStr;

use crate::field::Field;

/// An ordered list of fields, at least one and none twice.
///
/// Parsed from short names (`v2`, `v3`, `v4`, `v5`, `v7` .. `v11`: all fields up to that version in specification
/// order; `all`: everything of AWS's; `full`: `all` and our own), from AWS's template (`${srcaddr} ${dstaddr}`), or
/// from bare names, separated by spaces or commas. The three can be mixed: `v5 x-community-id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    fields: Vec<Field>,
    /// One bit per field, so that asking is cheap.
    members: u128,
}

impl Format {
    /// The fields in the order in which they are shown.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether the format shows `field`.
    pub fn contains(&self, field: Field) -> bool {
        self.members & bit(field) != 0
    }

    /// What the `version` column says: the highest version among the fields. Our own fields never change it.
    pub fn version(&self) -> u8 {
        self.fields.iter().filter_map(|field| field.version()).max().unwrap_or(VERSION_DEFAULT)
    }

    /// The first line of a text file: the bare names, without a line end.
    pub fn header_line(&self) -> String {
        let names: Vec<&str> = self.fields.iter().map(|field| field.name()).collect();
        names.join(" ")
    }

    /// A format of just these fields, in their order.
    ///
    /// # Errors
    /// [`FormatError`] when there are none, or one is there twice.
    pub fn from_fields(fields: impl IntoIterator<Item = Field>) -> Result<Self, FormatError> {
        let mut format = Self::empty();
        fields.into_iter().try_for_each(|field| format.push(field))?;
        if format.fields.is_empty() { Err(FormatError::Empty) } else { Ok(format) }
    }

    /// All fields of AWS's up to `version`, in specification order.
    fn up_to(version: u8) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(move |field| field.version().is_some_and(|v| v <= version))
    }

    fn empty() -> Self {
        Self { fields: Vec::new(), members: 0 }
    }

    fn push(&mut self, field: Field) -> Result<(), FormatError> {
        if self.contains(field) {
            return Err(FormatError::Repeated { field });
        }
        self.members |= bit(field);
        self.fields.push(field);
        Ok(())
    }

    fn push_token(&mut self, token: &str) -> Result<(), FormatError> {
        if let Some(inside) = token.strip_prefix("${") {
            let name = inside.strip_suffix('}').ok_or_else(|| FormatError::Unclosed { token: token.into() })?;
            return self.push(Field::from_name(name).ok_or_else(|| unknown(name))?);
        }
        if let Some(field) = Field::from_name(token) {
            return self.push(field);
        }
        if token == "v6" {
            return Err(FormatError::TransitGateway);
        }
        match SHORT_NAMES.iter().find(|(name, _)| *name == token) {
            Some((_, Extent::Version(version))) => Self::up_to(*version).try_for_each(|field| self.push(field)),
            Some((_, Extent::Everything)) => Field::ALL.into_iter().try_for_each(|field| self.push(field)),
            None => Err(unknown(token)),
        }
    }
}

impl Default for Format {
    /// Version 2: the format AWS uses when none is given.
    fn default() -> Self {
        let mut format = Self::empty();
        for field in Self::up_to(VERSION_DEFAULT) {
            format.members |= bit(field);
            format.fields.push(field);
        }
        format
    }
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(FormatError::TooLong { length_bytes: text.len() });
        }
        let mut format = Self::empty();
        for token in text.split(|c: char| c.is_whitespace() || c == ',').filter(|token| !token.is_empty()) {
            format.push_token(token)?;
        }
        if format.fields.is_empty() {
            return Err(FormatError::Empty);
        }
        Ok(format)
    }
}

impl fmt::Display for Format {
    /// AWS's template: `${version} ${account-id} ...`
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.fields.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(out, "{separator}${{{field}}}")?;
        }
        Ok(())
    }
}

/// Why a text is not a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// No field at all.
    #[error("a format needs at least one field")]
    Empty,
    /// Longer than [`TEMPLATE_BYTES_MAX`].
    #[error("the format has {length_bytes} bytes; the limit is {TEMPLATE_BYTES_MAX}")]
    TooLong {
        /// Length of the text.
        length_bytes: usize,
    },
    /// A name that no field has.
    #[error("no field is called `{name}`{}", did_you_mean(*.suggestion))]
    Unknown {
        /// The name as given.
        name: String,
        /// The field or short name that looks most like it.
        suggestion: Option<&'static str>,
    },
    /// A field that stands there already.
    #[error("the field `{field}` appears twice")]
    Repeated {
        /// The field.
        field: Field,
    },
    /// A `${` without its `}`.
    #[error("`{token}` lacks its closing brace")]
    Unclosed {
        /// The piece as given.
        token: String,
    },
    /// Version 6, which AWS gave to another product.
    #[error("version 6 is Transit Gateway Flow Logs; choose v5 or v7")]
    TransitGateway,
}

/// What parsing must hold for any input: no panic, and a format says what it was made of. Fuzz targets call this.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(format) = text.parse::<Format>() {
        assert!(!format.fields().is_empty());
        assert_eq!(format.to_string().parse(), Ok(format));
    }
}

fn unknown(name: &str) -> FormatError {
    let known = Field::ALL.into_iter().map(Field::name).chain(SHORT_NAMES.iter().map(|(name, _)| *name));
    let typed = name.to_ascii_lowercase();
    let best = known
        .map(|known| (strsim::damerau_levenshtein(&typed, known), known))
        .filter(|(distance, known)| *distance <= SUGGESTION_EDITS_MAX.min(known.len() / 3))
        .min_by_key(|(distance, _)| *distance);
    FormatError::Unknown { name: name.into(), suggestion: best.map(|(_, known)| known) }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn bit(field: Field) -> u128 {
    1 << field as u8
}

/// What a short name stands for.
enum Extent {
    /// AWS's fields up to a version.
    Version(u8),
    /// Every field, ours included.
    Everything,
}

const SHORT_NAMES: [(&str, Extent); 11] = [
    ("v2", Extent::Version(2)),
    ("v3", Extent::Version(3)),
    ("v4", Extent::Version(4)),
    ("v5", Extent::Version(5)),
    ("v7", Extent::Version(7)),
    ("v8", Extent::Version(8)),
    ("v9", Extent::Version(9)),
    ("v10", Extent::Version(10)),
    ("v11", Extent::Version(11)),
    ("all", Extent::Version(11)),
    ("full", Extent::Everything),
];

/// The version of the default format, and of one that shows only fields of our own.
const VERSION_DEFAULT: u8 = 2;

/// The longest text that is looked at as a format. All fields as a template are half of this.
pub const TEMPLATE_BYTES_MAX: usize = 4096;

/// How many letters a name may be off to be suggested.
const SUGGESTION_EDITS_MAX: usize = 4;

const _: () = assert!(Field::COUNT <= u128::BITS as usize, "a format holds one bit per field");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn format(text: &str) -> Format {
        text.parse().unwrap()
    }

    #[test]
    fn the_default_is_version_two() {
        let line = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end \
                    action log-status";
        assert_eq!(Format::default().header_line(), line);
        assert_eq!(format("v2"), Format::default());
        assert_eq!(Format::default().version(), 2);
    }

    #[test]
    fn short_names_reach_up_to_their_version() {
        for (name, count, version) in [("v3", 21, 3), ("v4", 25, 4), ("v5", 29, 5), ("v7", 39, 7), ("v8", 40, 8)] {
            assert_eq!(format(name).fields().len(), count, "{name}");
            assert_eq!(format(name).version(), version, "{name}");
        }
        assert_eq!(format("v9").fields().last(), Some(&Field::ResourceId));
        assert_eq!(format("v10").fields().last(), Some(&Field::EncryptionStatus));
        assert_eq!(format("v11"), format("all"));
        assert_eq!(format("full").fields(), Field::ALL);
        assert_eq!(format("full").version(), 11);
    }

    #[test]
    fn version_six_is_somebody_elses() {
        assert_eq!("v6".parse::<Format>(), Err(FormatError::TransitGateway));
        assert_eq!(FormatError::TransitGateway.to_string(), "version 6 is Transit Gateway Flow Logs; choose v5 or v7");
    }

    #[test]
    fn templates_bare_names_and_commas_mean_the_same() {
        let expected = [Field::Srcaddr, Field::Dstaddr, Field::Bytes];
        for text in ["${srcaddr} ${dstaddr} ${bytes}", "srcaddr dstaddr bytes", "srcaddr,dstaddr, bytes", " v2 "] {
            let parsed = format(text);
            if text == " v2 " {
                assert_eq!(parsed, Format::default());
            } else {
                assert_eq!(parsed.fields(), expected, "{text}");
                assert_eq!(parsed.to_string(), "${srcaddr} ${dstaddr} ${bytes}");
            }
        }
        assert_eq!(format("v5 x-community-id").fields().len(), 30);
    }

    #[test]
    fn version_follows_the_highest_field_and_never_ours() {
        assert_eq!(format("srcaddr instance-tag").version(), 11);
        assert_eq!(format("srcaddr flow-direction vpc-id").version(), 5);
        assert_eq!(format("srcaddr x-vlan").version(), 2);
        assert_eq!(format("x-vlan").version(), 2);
    }

    #[test]
    fn unknown_fields_are_named_with_a_suggestion() {
        let told = |text: &str| text.parse::<Format>().unwrap_err().to_string();
        assert_eq!(told("srcadr"), "no field is called `srcadr`; did you mean `srcaddr`?");
        assert_eq!(told("${pkt_srcaddr}"), "no field is called `pkt_srcaddr`; did you mean `pkt-srcaddr`?");
        assert_eq!(told("Version"), "no field is called `Version`; did you mean `version`?");
        assert_eq!(told("quetzalcoatlus"), "no field is called `quetzalcoatlus`");
        assert_eq!(told("srcaddr, srcaddr"), "the field `srcaddr` appears twice");
        assert_eq!(told("v2 bytes"), "the field `bytes` appears twice");
        assert_eq!(told("${bytes"), "`${bytes` lacks its closing brace");
        assert_eq!(told(" , "), "a format needs at least one field");
        assert_eq!(told(&"x".repeat(4097)), "the format has 4097 bytes; the limit is 4096");
        assert!(told("${version}${bytes}").starts_with("no field is called `version}${bytes`"));
        // A template names fields; a version is not one.
        assert!(told("${v2}").starts_with("no field is called `v2`"));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "\\PC*|[v0-9${} a-z,-]*") {
            fuzz(text.as_bytes());
        }

        #[test]
        fn display_and_header_lead_back(
            fields in proptest::sample::subsequence(Field::ALL.to_vec(), 1..=Field::COUNT).prop_shuffle(),
        ) {
            let text: Vec<&str> = fields.iter().map(|field| field.name()).collect();
            let parsed = format(&text.join(" "));
            prop_assert_eq!(parsed.fields(), &fields);
            prop_assert_eq!(&format(&parsed.to_string()), &parsed);
            prop_assert_eq!(&format(&parsed.header_line()), &parsed);
            for field in Field::ALL {
                prop_assert_eq!(parsed.contains(field), fields.contains(&field));
            }
        }
    }
}
