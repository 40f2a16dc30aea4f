//! Record <-> line: the plain-text format.
//!
//! Authority: the AWS page "Flow log records": one line a record, columns separated by one space, no quoting, `-` for
//! what is not known. Files begin with a header line, the bare names of the fields ("Flow log files"). IPv6 addresses
//! are written as RFC 5952 says.

mod reader;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;

use crate::field::Field;
use crate::format::Format;
use crate::metadata::{ABSENT, Metadata};
use crate::record::Record;
use crate::value::{Value, value};

pub use reader::{LINE_BYTES_MAX, SHOWN_CHARS_MAX, TextError, TextReader, fuzz};

/// Writes records as lines of one format.
///
/// Writing is on the path that a flood of short flows takes, so nothing is allocated per record, and what records of
/// one interface have in common is encoded once: neighbouring columns of metadata are one copy of finished bytes.
#[derive(Debug, Clone)]
pub struct TextEncoder {
    format: Format,
    steps: Vec<Step>,
    /// The finished bytes of all [`Step::Fixed`], for the metadata in `fixed_for`.
    fixed: Vec<u8>,
    fixed_for: Option<Arc<Metadata>>,
}

#[derive(Debug, Clone)]
enum Step {
    /// Columns (by their position in the format) that do not change while the metadata is the same, and their bytes.
    Fixed { columns: Range<usize>, bytes: Range<usize> },
    /// A column of its own.
    Single(Field),
}

impl TextEncoder {
    /// An encoder for `format`.
    pub fn new(format: &Format) -> Self {
        let mut steps = Vec::new();
        for (column, &field) in format.fields().iter().enumerate() {
            let is_fixed = field.is_metadata() || field == Field::Version;
            match steps.last_mut() {
                Some(Step::Fixed { columns, .. }) if is_fixed => columns.end = column + 1,
                _ if is_fixed => steps.push(Step::Fixed { columns: column..column + 1, bytes: 0..0 }),
                _ => steps.push(Step::Single(field)),
            }
        }
        Self { format: format.clone(), steps, fixed: Vec::new(), fixed_for: None }
    }

    /// Appends the line of `record`, with its line end, to `out`.
    pub fn encode(&mut self, record: &Record, out: &mut Vec<u8>) {
        if !self.fixed_for.as_ref().is_some_and(|known| Arc::ptr_eq(known, &record.metadata)) {
            self.fix(&record.metadata);
        }
        for step in &self.steps {
            match step {
                Step::Fixed { bytes, .. } => out.extend_from_slice(&self.fixed[bytes.clone()]),
                Step::Single(field) => push_value(value(record, *field), out),
            }
        }
        // Every column ended with a space; the last one ends the line.
        if let Some(last) = out.last_mut() {
            *last = b'\n';
        }
    }

    /// Appends the header line, with its line end, to `out`.
    pub fn encode_header(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.format.header_line().as_bytes());
        out.push(b'\n');
    }

    /// Encodes the columns that depend on metadata alone.
    fn fix(&mut self, metadata: &Arc<Metadata>) {
        self.fixed.clear();
        for step in &mut self.steps {
            let Step::Fixed { columns, bytes } = step else { continue };
            bytes.start = self.fixed.len();
            for &field in &self.format.fields()[columns.clone()] {
                if field == Field::Version {
                    push_value(Value::Int(self.format.version().into()), &mut self.fixed);
                } else {
                    push_value(metadata.get(field).map_or(Value::Absent, Value::Word), &mut self.fixed);
                }
            }
            bytes.end = self.fixed.len();
        }
        self.fixed_for = Some(Arc::clone(metadata));
    }
}

/// Appends a value and the space after it.
fn push_value(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Addr(IpAddr::V4(addr)) => return push_dotted_quad(addr, out),
        Value::Int(number) => return push_integer(number, out),
        Value::Word(word) => out.extend_from_slice(word.as_bytes()),
        Value::Absent => out.extend_from_slice(ABSENT.as_bytes()),
        Value::Open(text) => push_open(text, out),
        Value::Addr(IpAddr::V6(addr)) => push_display(addr, out),
        Value::Ether(addr) => push_display(addr, out),
    }
    out.push(b' ');
}

/// Appends an IPv4 address and a space. Whole groups of four bytes are written and the surplus is overwritten by the
/// next group: copies of a known size cost a fraction of copies of a size found out at run time. They go to their final
/// place at once, because reading back what was just written in smaller pieces stalls the processor.
fn push_dotted_quad(addr: Ipv4Addr, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; DOTTED_QUAD_BYTES_MAX]);
    let text = &mut out[start..];
    let mut end = 0;
    for octet in addr.octets() {
        let (digits, length) = OCTETS[usize::from(octet)];
        text[end..end + digits.len()].copy_from_slice(&digits);
        end += usize::from(length);
    }
    text[end - 1] = b' ';
    out.truncate(start + end);
}

/// Appends an integer and a space, in groups of three digits written in place like those of [`push_dotted_quad`]. That
/// saves a quarter of a whole row against formatting into a buffer and copying what came out.
fn push_integer(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    let mut leading = number.unsigned_abs();
    let mut groups = [0; INTEGER_GROUPS_MAX];
    let mut count = 0;
    while leading >= 1000 {
        groups[count] = (leading % 1000) as usize;
        leading /= 1000;
        count += 1;
    }
    let start = out.len();
    out.extend_from_slice(&[0; INTEGER_BYTES_MAX]);
    let text = &mut out[start..];
    let zeros = usize::from(leading < 100) + usize::from(leading < 10);
    let digits = u32::from_le_bytes(TRIPLES[leading as usize]) >> (8 * zeros);
    text[..TRIPLE_BYTES].copy_from_slice(&digits.to_le_bytes());
    let mut end = 3 - zeros;
    for group in groups[..count].iter().rev() {
        text[end..end + TRIPLE_BYTES].copy_from_slice(&TRIPLES[*group]);
        end += 3;
    }
    text[end] = b' ';
    out.truncate(start + end + 1);
}

fn push_display(shown: impl std::fmt::Display, out: &mut Vec<u8>) {
    write!(out, "{shown}").expect("writing to a vector cannot fail");
}

/// Appends a value that nobody checked: what would break the line is percent-encoded, as AWS does in tags.
fn push_open(text: &str, out: &mut Vec<u8>) {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return out.extend_from_slice(text.as_bytes());
    }
    let mut utf8 = [0; 4];
    for character in text.chars() {
        let bytes = character.encode_utf8(&mut utf8).as_bytes();
        if character.is_whitespace() || character.is_control() {
            for &byte in bytes {
                out.extend_from_slice(percent_encoding::percent_encode_byte(byte).as_bytes());
            }
        } else {
            out.extend_from_slice(bytes);
        }
    }
}

/// `255.255.255.255` and the space after it.
const DOTTED_QUAD_BYTES_MAX: usize = 16;

/// Every octet as text with a dot after it, padded to four bytes, and the length of both.
static OCTETS: [([u8; 4], u8); 256] = octets();

const fn octets() -> [([u8; 4], u8); 256] {
    let mut octets = [([0; 4], 0); 256];
    let mut octet = 0;
    while octet < octets.len() {
        let (hundreds, tens, ones) =
            (b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8);
        octets[octet] = match octet {
            0..10 => ([ones, b'.', 0, 0], 2),
            10..100 => ([tens, ones, b'.', 0], 3),
            _ => ([hundreds, tens, ones, b'.'], 4),
        };
        octet += 1;
    }
    octets
}

/// The groups of three digits after the first one of `u64::MAX`.
const INTEGER_GROUPS_MAX: usize = 6;

/// Seven groups of three digits, and the padding of the last one, which becomes the space.
const INTEGER_BYTES_MAX: usize = 22;

/// A group of three digits and a byte of padding, so that it is copied as one word.
const TRIPLE_BYTES: usize = 4;

/// `000` to `999`, each padded to four bytes.
static TRIPLES: [[u8; TRIPLE_BYTES]; 1000] = triples();

const fn triples() -> [[u8; TRIPLE_BYTES]; 1000] {
    let mut triples = [[0; TRIPLE_BYTES]; 1000];
    let mut number = 0;
    while number < triples.len() {
        triples[number] = [b'0' + (number / 100) as u8, b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8, 0];
        number += 1;
    }
    triples
}

#[cfg(test)]
mod tests;
