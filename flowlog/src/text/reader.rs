//! Lines -> records.

use std::io::{self, BufRead, Read};
use std::str::FromStr;

use crate::field::Field;
use crate::format::{Format, FormatError};
use crate::record::Record;
use crate::value::Draft;

use super::TextEncoder;

/// Reads records from lines.
///
/// Files of AWS's begin with a header line that names the fields; other sources of lines have none. Columns may be
/// separated by more than one space (an example in AWS's own documentation is), lines may end with CR LF, and empty
/// lines are passed over. The value of `version` is checked to be a number and otherwise ignored.
///
/// A line that cannot be read is an error, after which the next line can be asked for; after an error of the input
/// itself, or a line over [`LINE_BYTES_MAX`], nothing follows.
#[derive(Debug)]
pub struct TextReader<R> {
    lines: Lines<R>,
    format: Format,
    draft: Draft,
    /// The first line, when it was looked at and turned out to be a record.
    first: Option<Vec<u8>>,
}

impl<R: BufRead> TextReader<R> {
    /// Reads from `input`, whose fields are those of its header line or, where it has none, those of `format` (the
    /// default format when `None`).
    ///
    /// # Errors
    /// [`TextError`] when the first line cannot be had, or is a header that names a field we do not know.
    pub fn new(input: R, format: Option<Format>) -> Result<Self, TextError> {
        let mut lines = Lines { input, buffer: Vec::new(), number: 0, is_over: false };
        let mut first = None;
        let mut header = None;
        if lines.advance()? {
            match header_of(&lines.buffer, lines.number, format.is_some())? {
                Some(found) => header = Some(found),
                None => first = Some(lines.buffer.clone()),
            }
        }
        let format = header.or(format).unwrap_or_default();
        Ok(Self { lines, format, draft: Draft::new(), first })
    }

    /// The fields of the lines: the header's, or those that were given.
    pub fn format(&self) -> &Format {
        &self.format
    }

    fn parse(&mut self, line: &[u8]) -> Result<Record, TextError> {
        let parsed = parse_line(line, self.lines.number, &self.format, &mut self.draft);
        // Taken in any case, so that half a bad line cannot become part of the next record.
        let record = self.draft.take();
        parsed.map(|()| record)
    }
}

impl<R: BufRead> Iterator for TextReader<R> {
    type Item = Result<Record, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(line) = self.first.take() {
            return Some(self.parse(&line));
        }
        match self.lines.advance() {
            Ok(true) => {
                let line = std::mem::take(&mut self.lines.buffer);
                let record = self.parse(&line);
                self.lines.buffer = line;
                Some(record)
            }
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// Why text could not be read as records.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The input failed.
    #[error("line {line}: {source}")]
    Io {
        /// Number of the line, from 1.
        line: u64,
        /// What the input said.
        source: io::Error,
    },
    /// A line over [`LINE_BYTES_MAX`].
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong {
        /// Number of the line, from 1.
        line: u64,
    },
    /// A line that is not UTF-8.
    #[error("line {line} is not text")]
    NotText {
        /// Number of the line, from 1.
        line: u64,
    },
    /// The header names something that is not a field.
    #[error("line {line}, the header: {source}")]
    Header {
        /// Number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A line with too few or too many columns.
    #[error("line {line} has {found} columns; the format has {expected}")]
    ColumnCount {
        /// Number of the line, from 1.
        line: u64,
        /// Number of fields in the format.
        expected: usize,
        /// Number of columns in the line.
        found: usize,
    },
    /// A value that its field cannot have.
    #[error("line {line}: `{value}` is not a value of {field}")]
    Value {
        /// Number of the line, from 1.
        line: u64,
        /// The field.
        field: Field,
        /// What stands there, cut to [`SHOWN_CHARS_MAX`] characters.
        value: String,
    },
}

/// The longest line that is read: every metadata field at its own limit, and room for the rest.
pub const LINE_BYTES_MAX: usize = 256 * 1024;

/// How much of a wrong value an error shows.
pub const SHOWN_CHARS_MAX: usize = 64;

/// What the reader must hold for any input: no panic, and what was read is written and read again unchanged. Fuzz
/// targets call this.
pub fn fuzz(data: &[u8]) {
    let Ok(reader) = TextReader::new(data, None) else { return };
    let format = reader.format().clone();
    let mut encoder = TextEncoder::new(&format);
    for record in reader.flatten() {
        let mut line = Vec::new();
        encoder.encode(&record, &mut line);
        let mut draft = Draft::new();
        let again = parse_line(&line, 1, &format, &mut draft);
        assert!(again.is_ok(), "{}: {again:?}", String::from_utf8_lossy(&line));
        assert_eq!(draft.take(), record);
    }
}

/// Lines of bounded length.
#[derive(Debug)]
struct Lines<R> {
    input: R,
    /// The line just read, without its end.
    buffer: Vec<u8>,
    /// Number of the line in `buffer`, from 1.
    number: u64,
    /// After an error of the input there is no telling where the next line begins.
    is_over: bool,
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line that is not empty. False at the end of the input.
    fn advance(&mut self) -> Result<bool, TextError> {
        while !self.is_over {
            self.number += 1;
            self.buffer.clear();
            let mut bounded = self.input.by_ref().take(LINE_BYTES_MAX as u64 + 1);
            match bounded.read_until(b'\n', &mut self.buffer) {
                Ok(0) => self.is_over = true,
                Ok(length_bytes) if length_bytes > LINE_BYTES_MAX => {
                    self.is_over = true;
                    return Err(TextError::LineTooLong { line: self.number });
                }
                Ok(_) if !self.buffer.trim_ascii().is_empty() => return Ok(true),
                Ok(_) => {}
                Err(source) => {
                    self.is_over = true;
                    return Err(TextError::Io { line: self.number, source });
                }
            }
        }
        Ok(false)
    }
}

/// The format that `line` states, if it is a header. A line is one when all its columns are names of fields; one that
/// begins with such a name is taken for a header from another product unless a format was given.
fn header_of(line: &[u8], number: u64, format_given: bool) -> Result<Option<Format>, TextError> {
    let text = text_of(line, number)?;
    let mut columns = columns_of(text);
    let names_a_field = |column: &str| Field::from_name(column).is_some();
    if !columns.next().is_some_and(names_a_field) || (format_given && !columns.all(names_a_field)) {
        return Ok(None);
    }
    Format::from_str(text).map(Some).map_err(|source| TextError::Header { line: number, source })
}

fn parse_line(line: &[u8], number: u64, format: &Format, draft: &mut Draft) -> Result<(), TextError> {
    let text = text_of(line, number)?;
    let fields = format.fields();
    let mut columns = columns_of(text);
    for (found, &field) in fields.iter().enumerate() {
        let wrong_count = || TextError::ColumnCount { line: number, expected: fields.len(), found };
        let column = columns.next().ok_or_else(wrong_count)?;
        draft.put_text(field, column).ok_or_else(|| wrong_value(number, field, column))?;
    }
    match columns.count() {
        0 => Ok(()),
        extra => Err(TextError::ColumnCount { line: number, expected: fields.len(), found: fields.len() + extra }),
    }
}

fn text_of(line: &[u8], number: u64) -> Result<&str, TextError> {
    std::str::from_utf8(line.trim_ascii_end()).map_err(|_| TextError::NotText { line: number })
}

fn columns_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|column| !column.is_empty())
}

fn wrong_value(line: u64, field: Field, value: &str) -> TextError {
    TextError::Value { line, field, value: value.chars().take(SHOWN_CHARS_MAX).collect() }
}
