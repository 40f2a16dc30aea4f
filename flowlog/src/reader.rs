//! Opens any file of records by what is in it, not by what it is called.
//!
//! Text and Parquet are told apart by their first bytes, and so is text that is compressed by gzip (also several
//! members one after the other) or zstd.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::format::Format;
use crate::parquet::{ParquetReadError, ParquetReader};
use crate::record::Record;
use crate::text::{TextError, TextReader};

/// Iterates over the records of one file.
pub struct RecordReader {
    path: PathBuf,
    body: Body,
}

enum Body {
    Text(Box<TextReader<Box<dyn BufRead + Send>>>),
    Parquet(Box<ParquetReader<File>>),
}

impl RecordReader {
    /// Opens `path`. `format` is for text without a header line; the default format when `None`.
    ///
    /// # Errors
    /// [`ReadError`] naming the file.
    pub fn open(path: &Path, format: Option<Format>) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Io { path: path.into(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = Vec::new();
        file.by_ref().take(MAGIC_BYTES).read_to_end(&mut magic).map_err(failed)?;
        file.rewind().map_err(failed)?;
        if magic == PARQUET_MAGIC {
            let reader = ParquetReader::new(file).map_err(|source| ReadError::Parquet { path: path.into(), source })?;
            return Ok(Self { path: path.into(), body: Body::Parquet(Box::new(reader)) });
        }
        let mut text: Box<dyn BufRead + Send> = if magic.starts_with(&GZIP_MAGIC) {
            Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file))))
        } else if magic == ZSTD_MAGIC {
            Box::new(BufReader::new(zstd::Decoder::new(file).map_err(failed)?))
        } else {
            Box::new(BufReader::new(file))
        };
        if text.fill_buf().map_err(failed)?.starts_with(b"{") {
            return Err(ReadError::Json { path: path.into() });
        }
        let reader = TextReader::new(text, format).map_err(|source| ReadError::Text { path: path.into(), source })?;
        Ok(Self { path: path.into(), body: Body::Text(Box::new(reader)) })
    }

    /// The fields of the file.
    pub fn format(&self) -> &Format {
        match &self.body {
            Body::Text(reader) => reader.format(),
            Body::Parquet(reader) => reader.format(),
        }
    }
}

impl Iterator for RecordReader {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let path = &self.path;
        match &mut self.body {
            Body::Text(reader) => {
                let record = reader.next()?;
                Some(record.map_err(|source| ReadError::Text { path: path.clone(), source }))
            }
            Body::Parquet(reader) => {
                let record = reader.next()?;
                Some(record.map_err(|source| ReadError::Parquet { path: path.clone(), source }))
            }
        }
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened, or not be unpacked.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text is not one of records.
    #[error("{}: {source}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: TextError,
    },
    /// The Parquet file is not one of records.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: ParquetReadError,
    },
    /// JSON lines are written for others and not read back.
    #[error("{}: JSON is written but not read; use text or Parquet", path.display())]
    Json {
        /// The file.
        path: PathBuf,
    },
}

const MAGIC_BYTES: u64 = 4;
const PARQUET_MAGIC: [u8; 4] = *b"PAR1";
/// RFC 1952, section 2.3.1.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// RFC 8878, section 3.1.1.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::EXAMPLES;
    use crate::parquet::ParquetCodec;
    use crate::segment::Existing;
    use crate::sink::{FileSink, Sink as _};
    use crate::writer::{Compression, Encoding};

    fn written(directory: &Path, encoding: Encoding) -> PathBuf {
        // The name says nothing about the content.
        let path = directory.join("flows");
        let mut sink = FileSink::create(&path, Existing::Overwrite, &EXAMPLES[3].format(), encoding).unwrap();
        EXAMPLES[3].records().iter().for_each(|record| sink.write(record).unwrap());
        sink.finish().unwrap();
        path
    }

    #[test]
    fn every_kind_of_file_is_known_by_its_content() {
        let directory = tempfile::tempdir().unwrap();
        for encoding in [
            Encoding::PlainText(Compression::None),
            Encoding::PlainText(Compression::Gzip),
            Encoding::PlainText(Compression::Zstd),
            Encoding::Parquet(ParquetCodec::Gzip),
            Encoding::Parquet(ParquetCodec::Zstd),
        ] {
            let reader = RecordReader::open(&written(directory.path(), encoding), None).unwrap();
            assert_eq!(reader.format(), &EXAMPLES[3].format());
            assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), EXAMPLES[3].records());
        }
    }

    #[test]
    fn errors_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let complaint = |path: &Path| RecordReader::open(path, None).err().unwrap().to_string();
        let json = written(directory.path(), Encoding::JsonLines(Compression::Gzip));
        assert_eq!(complaint(&json), format!("{}: JSON is written but not read; use text or Parquet", json.display()));
        let missing = directory.path().join("missing");
        assert!(complaint(&missing).starts_with(&format!("{}: ", missing.display())));
        std::fs::write(&missing, "2 3").unwrap();
        let mut short = RecordReader::open(&missing, None).unwrap();
        let expected = format!("{}: line 1 has 2 columns; the format has 14", missing.display());
        assert_eq!(short.next().unwrap().unwrap_err().to_string(), expected);
        std::fs::write(&missing, "").unwrap();
        assert_eq!(RecordReader::open(&missing, None).unwrap().count(), 0);
    }
}
