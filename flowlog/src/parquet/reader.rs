//! Columns -> records.

use bytes::Bytes;
use parquet::basic::Type as PhysicalType;
use parquet::column::page::PageReader;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};

use crate::field::{ColumnType, Field};
use crate::format::{Format, FormatError};
use crate::record::Record;
use crate::value::Draft;

use super::pages::{CheckedPages, check_place};

/// Reads records from a Parquet file, ours or AWS's.
///
/// Columns are matched by name. An integer may be stored in 32 or 64 bits, whatever we would use; a column may be
/// REQUIRED; an absent string may be null or `-`. A row with a value its field cannot have is an error, after which
/// the next row can be asked for; after an error of the file itself nothing follows. Pages are plain or dictionary
/// encoded, which is what every common writer makes unless told otherwise; other encodings are refused.
pub struct ParquetReader<R: ChunkReader + 'static> {
    file: SerializedFileReader<R>,
    format: Format,
    /// Index of the row group after the one that `columns` are reading.
    next_row_group: usize,
    columns: Vec<Column>,
    /// Rows in the buffers of `columns`, and the next one of them.
    row_count: usize,
    next_row: usize,
    rows_read: u64,
    draft: Draft,
}

impl<R: ChunkReader + 'static> ParquetReader<R> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`ParquetReadError`] when it is not Parquet, or has columns that are not ours.
    pub fn new(input: R) -> Result<Self, ParquetReadError> {
        let file = SerializedFileReader::new(input)?;
        let schema = file.metadata().file_metadata().schema_descr();
        let fields: Result<Vec<Field>, ParquetReadError> =
            schema.columns().iter().map(|column| field_of(column)).collect();
        let format = Format::from_fields(fields?)?;
        let draft = Draft::new();
        Ok(Self {
            file,
            format,
            next_row_group: 0,
            columns: Vec::new(),
            row_count: 0,
            next_row: 0,
            rows_read: 0,
            draft,
        })
    }

    /// The columns of the file.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Fills the buffers with rows. False when there are no more.
    fn advance(&mut self) -> Result<bool, ParquetReadError> {
        loop {
            self.next_row = 0;
            self.row_count = 0;
            for (index, column) in self.columns.iter_mut().enumerate() {
                let row_count = column.fill()?;
                if index > 0 && row_count != self.row_count {
                    return Err(ParquetReadError::Ragged { field: column.field });
                }
                self.row_count = row_count;
            }
            if self.row_count > 0 {
                return Ok(true);
            }
            if self.next_row_group >= self.file.num_row_groups() {
                return Ok(false);
            }
            let row_group = self.file.get_row_group(self.next_row_group)?;
            self.next_row_group += 1;
            if row_group.num_columns() != self.format.fields().len() {
                return Err(ParquetReadError::ColumnCount);
            }
            self.columns.clear();
            for (index, &field) in self.format.fields().iter().enumerate() {
                let chunk = row_group.metadata().column(index);
                check_place(chunk)?;
                let pages = CheckedPages::new(row_group.get_column_page_reader(index)?, chunk);
                self.columns.push(Column::new(field, chunk, Box::new(pages))?);
            }
        }
    }

    fn read_row(&mut self) -> Result<Record, ParquetReadError> {
        let row = self.next_row;
        self.next_row += 1;
        self.rows_read += 1;
        let mut wrong = None;
        // Every column is asked, also after a wrong value: each must move on by one.
        for column in &mut self.columns {
            if column.put(row, &mut self.draft).is_none() {
                wrong = wrong.or(Some(column.field));
            }
        }
        let record = self.draft.take();
        match wrong {
            Some(field) => Err(ParquetReadError::Value { row: self.rows_read, field }),
            None => Ok(record),
        }
    }

    fn stop(&mut self) {
        self.columns.clear();
        self.next_row_group = self.file.num_row_groups();
        (self.next_row, self.row_count) = (0, 0);
    }
}

impl<R: ChunkReader + 'static> Iterator for ParquetReader<R> {
    type Item = Result<Record, ParquetReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next_row == self.row_count {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.stop();
                    return Some(Err(error));
                }
            }
        }
        Some(self.read_row())
    }
}

/// Why a Parquet file could not be read as records.
#[derive(Debug, thiserror::Error)]
pub enum ParquetReadError {
    /// The file is damaged, or not Parquet.
    #[error("{0}")]
    File(#[from] ParquetError),
    /// A column whose name is no field's.
    #[error("no field has the column `{column}`")]
    Unknown {
        /// The path of the column.
        column: String,
    },
    /// A column that stands there twice, or none at all.
    #[error("{0}")]
    Columns(#[from] FormatError),
    /// A column stored as something its field cannot be.
    #[error("the column of {field} has the type {found}, or is nested")]
    Type {
        /// The field.
        field: Field,
        /// The physical type in the file.
        found: PhysicalType,
    },
    /// Columns of one row group with different numbers of rows.
    #[error("the column of {field} has another number of rows than those before it")]
    Ragged {
        /// The field.
        field: Field,
    },
    /// A row group with another number of columns than the file.
    #[error("a row group has another number of columns than the file")]
    ColumnCount,
    /// A value that its field cannot have.
    #[error("row {row} has a value that is not one of {field}")]
    Value {
        /// Number of the row, from 1.
        row: u64,
        /// The field.
        field: Field,
    },
}

/// What the reader must hold for any input: no panic. Fuzz targets call this.
pub fn fuzz(data: &[u8]) {
    let Ok(reader) = ParquetReader::new(Bytes::copy_from_slice(data)) else { return };
    // A few bytes can claim any number of equal rows.
    reader.take(FUZZ_ROWS_MAX).for_each(drop);
}

/// A column of the row group at hand and the rows of it in memory.
struct Column {
    field: Field,
    source: Source,
    /// For every row whether it has a value (1) or not (0); empty when all have.
    levels: Vec<i16>,
    /// The next of the values there are.
    next_value: usize,
}

enum Source {
    Str(Buffered<ByteArrayType>),
    Int32(Buffered<Int32Type>),
    Int64(Buffered<Int64Type>),
}

struct Buffered<T: DataType> {
    reader: ColumnReaderImpl<T>,
    values: Vec<T::T>,
}

impl<T: DataType> Buffered<T> {
    fn new(descriptor: ColumnDescPtr, pages: Box<dyn PageReader>) -> Self {
        Self { reader: ColumnReaderImpl::new(descriptor, pages), values: Vec::new() }
    }

    fn fill(&mut self, levels: &mut Vec<i16>) -> Result<usize, ParquetError> {
        self.values.clear();
        let (row_count, ..) = self.reader.read_records(READ_ROWS, Some(levels), None, &mut self.values)?;
        Ok(row_count)
    }
}

impl Column {
    fn new(field: Field, chunk: &ColumnChunkMetaData, pages: Box<dyn PageReader>) -> Result<Self, ParquetReadError> {
        let descriptor = chunk.column_descr_ptr();
        let source = match descriptor.physical_type() {
            PhysicalType::BYTE_ARRAY => Source::Str(Buffered::new(descriptor, pages)),
            PhysicalType::INT32 => Source::Int32(Buffered::new(descriptor, pages)),
            PhysicalType::INT64 => Source::Int64(Buffered::new(descriptor, pages)),
            found => return Err(ParquetReadError::Type { field, found }),
        };
        Ok(Self { field, source, levels: Vec::new(), next_value: 0 })
    }

    /// Reads the next rows and says how many.
    fn fill(&mut self) -> Result<usize, ParquetError> {
        self.levels.clear();
        self.next_value = 0;
        match &mut self.source {
            Source::Str(buffered) => buffered.fill(&mut self.levels),
            Source::Int32(buffered) => buffered.fill(&mut self.levels),
            Source::Int64(buffered) => buffered.fill(&mut self.levels),
        }
    }

    /// Puts the value of `row` into `draft`. Rows are asked for in order, each once.
    fn put(&mut self, row: usize, draft: &mut Draft) -> Option<()> {
        if self.levels.get(row).is_some_and(|level| *level == 0) {
            return draft.put_absent(self.field);
        }
        let index = self.next_value;
        self.next_value += 1;
        match &self.source {
            Source::Str(buffered) => draft.put_text(self.field, text(buffered.values.get(index)?)?),
            Source::Int32(buffered) => draft.put_int(self.field, (*buffered.values.get(index)?).into()),
            Source::Int64(buffered) => draft.put_int(self.field, *buffered.values.get(index)?),
        }
    }
}

fn text(value: &ByteArray) -> Option<&str> {
    std::str::from_utf8(value.data()).ok()
}

fn field_of(column: &ColumnDescriptor) -> Result<Field, ParquetReadError> {
    let unknown = || ParquetReadError::Unknown { column: column.path().string() };
    let field = Field::from_column_name(column.name()).ok_or_else(unknown)?;
    let found = column.physical_type();
    let fits = match field.column_type() {
        ColumnType::Str => found == PhysicalType::BYTE_ARRAY,
        ColumnType::Int32 | ColumnType::Int64 => matches!(found, PhysicalType::INT32 | PhysicalType::INT64),
    };
    if !fits || column.max_rep_level() > 0 || column.max_def_level() > 1 || column.path().parts().len() > 1 {
        return Err(ParquetReadError::Type { field, found });
    }
    Ok(field)
}

/// Rows in memory at a time.
const READ_ROWS: usize = 1024;

/// Rows a fuzz run reads of one file.
const FUZZ_ROWS_MAX: usize = 4096;
