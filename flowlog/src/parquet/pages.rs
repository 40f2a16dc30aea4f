//! Pages that are checked before they are decoded.
//!
//! The decoders of the `parquet` crate take some damage for a mistake of their caller and panic: a text that ends
//! inside its length, and an index into a dictionary that is not there. This wraps a page reader and turns both into
//! errors. Authority: the Parquet format, "Data pages" and "Plain encoding".

use bytes::Bytes;
use parquet::basic::{Encoding, Type as PhysicalType};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;

/// A page reader that gives out only pages that can be decoded.
pub(super) struct CheckedPages {
    inner: Box<dyn PageReader>,
    is_text: bool,
    is_optional: bool,
    has_dictionary: bool,
}

impl CheckedPages {
    /// Checks what `inner` reads from `chunk`.
    pub(super) fn new(inner: Box<dyn PageReader>, chunk: &ColumnChunkMetaData) -> Self {
        Self {
            inner,
            is_text: chunk.column_type() == PhysicalType::BYTE_ARRAY,
            is_optional: chunk.column_descr().max_def_level() > 0,
            has_dictionary: false,
        }
    }

    fn check(&mut self, page: Page) -> Result<Page> {
        match page {
            Page::DictionaryPage { ref buf, num_values, encoding, .. } => {
                if !matches!(encoding, Encoding::PLAIN | Encoding::PLAIN_DICTIONARY) {
                    return Err(refused("a dictionary in an encoding that is not plain"));
                }
                if self.is_text && count_texts(buf, num_values)? < num_values {
                    return Err(refused("a dictionary with fewer values than it says"));
                }
                self.has_dictionary = true;
                Ok(page)
            }
            Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics } => {
                let levels_bytes = if self.is_optional { levels_of(&buf, def_level_encoding)? } else { 0 };
                let buf = self.check_values(buf, levels_bytes, num_values, encoding)?;
                Ok(Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics })
            }
            Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                num_nulls,
                num_rows,
                def_levels_byte_len,
                rep_levels_byte_len,
                is_compressed,
                statistics,
            } => {
                let levels_bytes = def_levels_byte_len as usize + rep_levels_byte_len as usize;
                let buf = self.check_values(buf, levels_bytes, num_values, encoding)?;
                Ok(Page::DataPageV2 {
                    buf,
                    num_values,
                    encoding,
                    num_nulls,
                    num_rows,
                    def_levels_byte_len,
                    rep_levels_byte_len,
                    is_compressed,
                    statistics,
                })
            }
        }
    }

    /// The data of a page whose values come after `levels_bytes`, such that `num_values` of them can be asked for.
    fn check_values(&self, buf: Bytes, levels_bytes: usize, num_values: u32, encoding: Encoding) -> Result<Bytes> {
        let values = buf.get(levels_bytes..).ok_or_else(|| refused("levels that are longer than their page"))?;
        match encoding {
            Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY if self.has_dictionary => Ok(buf),
            Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => Err(refused("no dictionary before its use")),
            Encoding::PLAIN if self.is_text => {
                if num_values > PLAIN_TEXTS_MAX {
                    return Err(refused("a page with too many texts"));
                }
                let missing = num_values - count_texts(values, num_values)?;
                if missing == 0 {
                    return Ok(buf);
                }
                // Absent values have no text; what the levels promise beyond that reads as empty.
                let mut padded = buf.to_vec();
                padded.resize(buf.len() + missing as usize * size_of::<u32>(), 0);
                Ok(padded.into())
            }
            Encoding::PLAIN => Ok(buf),
            _ => Err(refused("an encoding that is neither plain nor a dictionary")),
        }
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        match self.inner.get_next_page()? {
            Some(page) => self.check(page).map(Some),
            None => Ok(None),
        }
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.inner.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.inner.at_record_boundary()
    }
}

/// Refuses a column chunk whose place in the file is not a place: the crate asserts that it is.
pub(super) fn check_place(chunk: &ColumnChunkMetaData) -> Result<()> {
    let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    if start < 0 || chunk.compressed_size() < 0 {
        return Err(refused("a column chunk at a negative offset or of a negative size"));
    }
    Ok(())
}

/// The bytes of the definition levels at the beginning of a page: a length in four bytes, and as many.
fn levels_of(buf: &[u8], encoding: Encoding) -> Result<usize> {
    match (encoding, buf.first_chunk()) {
        (Encoding::RLE, Some(length)) => Ok(size_of::<u32>() + u32::from_le_bytes(*length) as usize),
        _ => Err(refused("levels in an encoding that is out of use")),
    }
}

/// How many whole texts, `num_values` at most, stand in `values`: each a length in four bytes, and as many.
fn count_texts(mut values: &[u8], num_values: u32) -> Result<u32> {
    for count in 0..num_values {
        let Some((length, rest)) = values.split_first_chunk() else {
            return if values.is_empty() { Ok(count) } else { Err(refused("a text that ends in its length")) };
        };
        let length = u32::from_le_bytes(*length) as usize;
        values = rest.get(length..).ok_or_else(|| refused("a text that is longer than its page"))?;
    }
    Ok(num_values)
}

fn refused(what: &str) -> ParquetError {
    ParquetError::General(format!("the file is damaged: {what}"))
}

/// Texts in one page that has no dictionary. Writers end pages at about a megabyte, or 20,000 rows.
const PLAIN_TEXTS_MAX: u32 = 1 << 22;
