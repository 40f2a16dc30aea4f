//! Records -> columns.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, GzipLevel, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

use crate::field::{ColumnType, Field};
use crate::format::Format;
use crate::metadata::ABSENT;
use crate::record::Record;
use crate::value::{Value, value};

/// How pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParquetCodec {
    /// Not at all.
    None,
    /// As AWS delivers.
    Gzip,
    /// Smaller and faster, for readers that know it.
    Zstd,
}

/// Writes records as one Parquet file onto any `W`.
///
/// Rows are gathered in columns until [`ROW_GROUP_ROWS_MAX`] or [`ROW_GROUP_BYTES_MAX`] is reached; then they leave as
/// one row group.
pub struct ParquetEncoder<W: Write + Send> {
    file: SerializedFileWriter<W>,
    version: i64,
    columns: Vec<Column>,
    row_count: usize,
    buffered_bytes: usize,
}

impl<W: Write + Send> ParquetEncoder<W> {
    /// Begins a file of `format` on `output`.
    ///
    /// # Errors
    /// What `output` says to the first bytes.
    pub fn new(output: W, format: &Format, codec: ParquetCodec) -> io::Result<Self> {
        let columns: Vec<Column> = format.fields().iter().map(|&field| Column::new(field)).collect();
        let schema = schema(format).map_err(into_io)?;
        let file = SerializedFileWriter::new(output, schema, Arc::new(properties(codec))).map_err(into_io)?;
        Ok(Self { file, version: format.version().into(), columns, row_count: 0, buffered_bytes: 0 })
    }

    /// Takes `record` in, and writes a row group when enough have gathered.
    ///
    /// # Errors
    /// What the output says.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        for column in &mut self.columns {
            let value = match column.field {
                Field::Version => Value::Int(self.version),
                field => value(record, field),
            };
            self.buffered_bytes += column.push(value);
        }
        self.row_count += 1;
        if self.row_count >= ROW_GROUP_ROWS_MAX || self.buffered_bytes >= ROW_GROUP_BYTES_MAX {
            self.write_row_group()?;
        }
        Ok(())
    }

    /// Writes what has gathered and the footer, and returns the output.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_row_group()?;
        self.file.into_inner().map_err(into_io)
    }

    /// No more than this many bytes would be in the output if the file ended now.
    pub fn size_bytes_max(&self) -> u64 {
        let columns = self.columns.len() * (self.file.flushed_row_groups().len() + 1);
        (self.file.bytes_written() + self.buffered_bytes + columns * CHUNK_METADATA_BYTES) as u64
    }

    fn write_row_group(&mut self) -> io::Result<()> {
        if self.row_count == 0 {
            return Ok(());
        }
        let mut row_group = self.file.next_row_group().map_err(into_io)?;
        for column in &mut self.columns {
            if let Some(mut chunk) = row_group.next_column().map_err(into_io)? {
                column.write(&mut chunk).and_then(|()| chunk.close()).map_err(into_io)?;
            }
        }
        row_group.close().map_err(into_io)?;
        (self.row_count, self.buffered_bytes) = (0, 0);
        Ok(())
    }
}

/// The values of one field for the rows of the row group at hand.
struct Column {
    field: Field,
    values: Values,
}

enum Values {
    Str(Strings),
    Int32(Integers<i32>),
    Int64(Integers<i64>),
}

/// Texts one after the other, and where each row's lies. A row that repeats the row before shares its text, which is
/// what most columns of metadata do.
#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
    spans: Vec<(usize, usize)>,
}

/// The numbers there are, and for every row whether it has one (1) or not (0).
#[derive(Default)]
struct Integers<T> {
    numbers: Vec<T>,
    levels: Vec<i16>,
}

impl Column {
    fn new(field: Field) -> Self {
        let values = match field.column_type() {
            ColumnType::Str => Values::Str(Strings::default()),
            ColumnType::Int32 => Values::Int32(Integers::default()),
            ColumnType::Int64 => Values::Int64(Integers::default()),
        };
        Self { field, values }
    }

    /// Takes the value of one more row in and says how many bytes that took.
    fn push(&mut self, value: Value<'_>) -> usize {
        match &mut self.values {
            Values::Str(strings) => match value {
                Value::Absent => strings.push(ABSENT),
                Value::Word(text) | Value::Open(text) => strings.push(text),
                Value::Int(number) => strings.push_shown(number),
                Value::Addr(addr) => strings.push_shown(addr),
                Value::Ether(addr) => strings.push_shown(addr),
            },
            Values::Int32(integers) => {
                // The fields of this width are at most sixteen bits.
                integers.push(number(value).map(|number| i32::try_from(number).unwrap_or(i32::MAX)))
            }
            Values::Int64(integers) => integers.push(number(value)),
        }
    }

    /// Writes all rows as one column chunk and forgets them.
    fn write(&mut self, chunk: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        match &mut self.values {
            Values::Str(strings) => strings.write(chunk),
            Values::Int32(integers) => {
                let writer = chunk.typed::<Int32Type>();
                writer.write_batch(&integers.numbers, Some(&integers.levels), None)?;
                integers.clear();
                Ok(())
            }
            Values::Int64(integers) => {
                let writer = chunk.typed::<Int64Type>();
                writer.write_batch(&integers.numbers, Some(&integers.levels), None)?;
                integers.clear();
                Ok(())
            }
        }
    }
}

impl Strings {
    fn push(&mut self, text: &str) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text.as_bytes());
        self.end_row(start)
    }

    fn push_shown(&mut self, shown: impl Display) -> usize {
        let start = self.bytes.len();
        write!(self.bytes, "{shown}").expect("writing to a vector cannot fail");
        self.end_row(start)
    }

    /// Ends a row whose text is all bytes from `start`.
    fn end_row(&mut self, start: usize) -> usize {
        let length = self.bytes.len() - start;
        match self.spans.last() {
            Some(&(last, last_length)) if self.bytes[last..last + last_length] == self.bytes[start..] => {
                self.bytes.truncate(start);
                self.spans.push((last, last_length));
                size_of::<(usize, usize)>()
            }
            _ => {
                self.spans.push((start, length));
                length + size_of::<(usize, usize)>()
            }
        }
    }

    fn write(&mut self, chunk: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let capacity = self.bytes.len();
        let bytes = Bytes::from(std::mem::replace(&mut self.bytes, Vec::with_capacity(capacity)));
        let writer = chunk.typed::<ByteArrayType>();
        let mut texts: Vec<ByteArray> = Vec::with_capacity(WRITE_ROWS);
        for spans in self.spans.chunks(WRITE_ROWS) {
            texts.clear();
            texts.extend(spans.iter().map(|&(start, length)| ByteArray::from(bytes.slice(start..start + length))));
            writer.write_batch(&texts, Some(&[1; WRITE_ROWS][..spans.len()]), None)?;
        }
        self.spans.clear();
        Ok(())
    }
}

impl<T> Integers<T> {
    fn push(&mut self, number: Option<T>) -> usize {
        self.levels.push(number.is_some().into());
        self.numbers.extend(number);
        size_of::<T>() + size_of::<i16>()
    }

    fn clear(&mut self) {
        self.numbers.clear();
        self.levels.clear();
    }
}

fn number(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Int(number) => Some(number),
        _ => None,
    }
}

fn schema(format: &Format) -> Result<Arc<Type>, ParquetError> {
    let columns: Result<Vec<Arc<Type>>, ParquetError> = format
        .fields()
        .iter()
        .map(|field| {
            let (physical, logical) = match field.column_type() {
                ColumnType::Str => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
                ColumnType::Int32 => (PhysicalType::INT32, None),
                ColumnType::Int64 => (PhysicalType::INT64, None),
            };
            let column = Type::primitive_type_builder(field.column_name(), physical);
            column.with_repetition(Repetition::OPTIONAL).with_logical_type(logical).build().map(Arc::new)
        })
        .collect();
    Type::group_type_builder("flow_log").with_fields(columns?).build().map(Arc::new)
}

fn properties(codec: ParquetCodec) -> WriterProperties {
    let compression = match codec {
        ParquetCodec::None => Compression::UNCOMPRESSED,
        ParquetCodec::Gzip => Compression::GZIP(GzipLevel::default()),
        ParquetCodec::Zstd => Compression::ZSTD(ZstdLevel::default()),
    };
    WriterProperties::builder()
        .set_created_by(CREATED_BY.into())
        .set_compression(compression)
        .set_dictionary_enabled(true)
        .set_statistics_enabled(EnabledStatistics::Page)
        .build()
}

/// The output's own error where there is one, so that a broken pipe is known for what it is.
fn into_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => *source,
            Err(source) => io::Error::other(source),
        },
        error => io::Error::other(error),
    }
}

/// Rows in a row group: what one worker of a query engine takes at a time.
pub const ROW_GROUP_ROWS_MAX: usize = 65_536;

/// Bytes gathered before a row group leaves, whatever its rows.
pub const ROW_GROUP_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Rows handed to the column writer at a time.
const WRITE_ROWS: usize = 1024;

/// What a column chunk takes beyond its values: page headers, statistics, indexes and its entry in the footer.
const CHUNK_METADATA_BYTES: usize = 512;

const CREATED_BY: &str = concat!("flowtap version ", env!("CARGO_PKG_VERSION"));
