//! Records -> the bytes of one file, onto anything that takes bytes.
//!
//! The writer knows how large the file is becoming, so that its owner can end it in time; it knows nothing of names.

use std::io::{self, Write};

use crate::format::Format;
use crate::json::JsonEncoder;
use crate::parquet::{ParquetCodec, ParquetEncoder};
use crate::record::Record;
use crate::text::TextEncoder;

/// What a file is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Lines under a header line: AWS's `plain-text`.
    PlainText(Compression),
    /// One JSON object a line.
    JsonLines(Compression),
    /// AWS's `parquet`, compressed inside.
    Parquet(ParquetCodec),
}

/// How a file of lines is compressed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// As AWS delivers.
    Gzip,
    /// Smaller and faster, for readers that know it.
    Zstd,
}

impl Encoding {
    /// What the name of a file in a directory layout ends with, from its dot.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::PlainText(Compression::None) => ".log",
            Self::PlainText(Compression::Gzip) => ".log.gz",
            Self::PlainText(Compression::Zstd) => ".log.zst",
            Self::JsonLines(Compression::None) => ".log.json",
            Self::JsonLines(Compression::Gzip) => ".log.json.gz",
            Self::JsonLines(Compression::Zstd) => ".log.json.zst",
            Self::Parquet(_) => ".log.parquet",
        }
    }
}

/// Writes one file of records onto `W`.
pub struct RecordWriter<W: Write + Send> {
    body: Body<W>,
    row_count: u64,
}

enum Body<W: Write + Send> {
    Lines(Box<Lines<W>>),
    Parquet(Box<ParquetEncoder<Counted<W>>>),
}

impl<W: Write + Send> RecordWriter<W> {
    /// Begins a file of `format` on `output`; text begins with its header line.
    ///
    /// # Errors
    /// What `output` says.
    pub fn new(output: W, format: &Format, encoding: Encoding) -> io::Result<Self> {
        let output = Counted { inner: output, count_bytes: 0 };
        let body = match encoding {
            Encoding::PlainText(compression) => {
                let encoder = TextEncoder::new(format);
                let mut header = Vec::new();
                encoder.encode_header(&mut header);
                Body::Lines(Box::new(Lines::new(LineEncoder(Encoder::Text(encoder)), header, output, compression)?))
            }
            Encoding::JsonLines(compression) => {
                let encoder = LineEncoder(Encoder::Json(JsonEncoder::new(format)));
                Body::Lines(Box::new(Lines::new(encoder, Vec::new(), output, compression)?))
            }
            Encoding::Parquet(codec) => Body::Parquet(Box::new(ParquetEncoder::new(output, format, codec)?)),
        };
        Ok(Self { body, row_count: 0 })
    }

    /// Writes `record`.
    ///
    /// # Errors
    /// What the output says.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        self.offer(record, u64::MAX).map(drop)
    }

    /// Writes `record` unless the file could then be larger than `bytes_max`; the first record always has room. Says
    /// whether it was written.
    ///
    /// # Errors
    /// What the output says.
    pub fn offer(&mut self, record: &Record, bytes_max: u64) -> io::Result<bool> {
        let bytes_max = if self.row_count == 0 { u64::MAX } else { bytes_max };
        let is_taken = match &mut self.body {
            Body::Lines(lines) => lines.offer(record, bytes_max)?,
            Body::Parquet(encoder) => {
                let has_room = encoder.size_bytes_max() < bytes_max;
                if has_room {
                    encoder.write(record)?;
                }
                has_room
            }
        };
        self.row_count += u64::from(is_taken);
        Ok(is_taken)
    }

    /// An encoder of the lines that this file is made of, for [`RecordWriter::write_lines`]; none for Parquet.
    pub fn line_encoder(&self) -> Option<LineEncoder> {
        match &self.body {
            Body::Lines(lines) => Some(lines.encoder.clone()),
            Body::Parquet(_) => None,
        }
    }

    /// Writes `row_count` records that an encoder of this file has made lines of.
    ///
    /// # Errors
    /// What the output says; [`io::ErrorKind::InvalidInput`] for Parquet, which gives no such encoder.
    pub fn write_lines(&mut self, lines: &[u8], row_count: u64) -> io::Result<()> {
        match &mut self.body {
            Body::Lines(body) => body.write(lines)?,
            Body::Parquet(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "Parquet is not made of lines"));
            }
        }
        self.row_count += row_count;
        Ok(())
    }

    /// Hands on every line so far. What is compressed, or Parquet, stays until the end.
    ///
    /// # Errors
    /// What the output says.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.body {
            Body::Lines(lines) => lines.flush(),
            Body::Parquet(_) => Ok(()),
        }
    }

    /// Records written.
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// Ends the file and returns the output and the size of the file in bytes.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(self) -> io::Result<(W, u64)> {
        let mut output = match self.body {
            Body::Lines(lines) => lines.finish()?,
            Body::Parquet(encoder) => encoder.finish()?,
        };
        output.flush()?;
        Ok((output.inner, output.count_bytes))
    }
}

/// Lines on their way through a compressor.
struct Lines<W: Write> {
    encoder: LineEncoder,
    /// Finished lines that the compressor has not seen.
    pending: Vec<u8>,
    output: Compressor<Counted<W>>,
    /// What the compressor may hold back: what it has taken, up to [`HELD_BYTES_MAX`].
    held_bytes: u64,
}

impl<W: Write> Lines<W> {
    fn new(encoder: LineEncoder, header: Vec<u8>, output: Counted<W>, compression: Compression) -> io::Result<Self> {
        let output = match compression {
            Compression::None => Compressor::None(output),
            Compression::Gzip => Compressor::Gzip(flate2::write::GzEncoder::new(output, GZIP_LEVEL)),
            Compression::Zstd => Compressor::Zstd(zstd::Encoder::new(output, zstd::DEFAULT_COMPRESSION_LEVEL)?),
        };
        Ok(Self { encoder, pending: header, output, held_bytes: 0 })
    }

    fn offer(&mut self, record: &Record, bytes_max: u64) -> io::Result<bool> {
        let before = self.pending.len();
        self.encoder.encode(record, &mut self.pending);
        if self.size_bytes_max() > bytes_max {
            self.pending.truncate(before);
            return Ok(false);
        }
        if self.pending.len() >= PENDING_BYTES_MAX {
            self.hand_over()?;
        }
        Ok(true)
    }

    /// No more than this many bytes would be in the output if the file ended now.
    fn size_bytes_max(&self) -> u64 {
        let overhead = match self.output {
            Compressor::None(_) => 0,
            Compressor::Gzip(_) | Compressor::Zstd(_) => FRAME_BYTES,
        };
        self.output.counted().count_bytes + self.held_bytes + self.pending.len() as u64 + overhead
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.compress(&pending)?;
        self.pending = pending;
        self.pending.clear();
        Ok(())
    }

    /// Writes lines that are encoded already, after those that are pending.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.hand_over()?;
        self.compress(lines)
    }

    fn compress(&mut self, lines: &[u8]) -> io::Result<()> {
        self.output.write_all(lines)?;
        if !matches!(self.output, Compressor::None(_)) {
            self.held_bytes = HELD_BYTES_MAX.min(self.held_bytes + lines.len() as u64);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()?;
        match &mut self.output {
            Compressor::None(output) => output.flush(),
            Compressor::Gzip(_) | Compressor::Zstd(_) => Ok(()),
        }
    }

    fn finish(mut self) -> io::Result<Counted<W>> {
        self.hand_over()?;
        match self.output {
            Compressor::None(output) => Ok(output),
            Compressor::Gzip(encoder) => encoder.finish(),
            Compressor::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// Makes lines of records. Encoders of one file may work side by side.
#[derive(Debug, Clone)]
pub struct LineEncoder(Encoder);

#[derive(Debug, Clone)]
enum Encoder {
    Text(TextEncoder),
    Json(JsonEncoder),
}

impl LineEncoder {
    /// Appends the line of `record`, with its line end, to `out`.
    pub fn encode(&mut self, record: &Record, out: &mut Vec<u8>) {
        match &mut self.0 {
            Encoder::Text(encoder) => encoder.encode(record, out),
            Encoder::Json(encoder) => encoder.encode(record, out),
        }
    }
}

enum Compressor<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    fn counted(&self) -> &W {
        match self {
            Self::None(output) => output,
            Self::Gzip(encoder) => encoder.get_ref(),
            Self::Zstd(encoder) => encoder.get_ref(),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::None(output) => output.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }
}

/// An output that counts what it took.
struct Counted<W> {
    inner: W,
    count_bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.inner.write(bytes)?;
        self.count_bytes += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Lines gathered before they are compressed or written.
const PENDING_BYTES_MAX: usize = 64 * 1024;

/// What a compressor holds back at most, in compressed bytes: zstd gathers blocks of 128 KiB, deflate half of that.
const HELD_BYTES_MAX: u64 = 128 * 1024;

/// The header and trailer that a compressor puts around everything.
const FRAME_BYTES: u64 = 64;

/// Logs compress well at any level, and a flood must not wait for the compressor.
const GZIP_LEVEL: flate2::Compression = flate2::Compression::new(3);

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::examples::EXAMPLES;

    const ALL: [Encoding; 7] = [
        Encoding::PlainText(Compression::None),
        Encoding::PlainText(Compression::Gzip),
        Encoding::PlainText(Compression::Zstd),
        Encoding::JsonLines(Compression::None),
        Encoding::JsonLines(Compression::Gzip),
        Encoding::JsonLines(Compression::Zstd),
        Encoding::Parquet(ParquetCodec::Gzip),
    ];

    #[test]
    fn lines_encoded_elsewhere_make_the_same_file() {
        let example = &EXAMPLES[0];
        let format = example.format();
        for encoding in ALL {
            let mut direct = RecordWriter::new(Vec::new(), &format, encoding).unwrap();
            let mut apart = RecordWriter::new(Vec::new(), &format, encoding).unwrap();
            let Some(mut encoder) = apart.line_encoder() else {
                assert!(matches!(encoding, Encoding::Parquet(_)));
                assert_eq!(apart.write_lines(b"x\n", 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
                continue;
            };
            let mut lines = Vec::new();
            for record in example.records() {
                direct.write(&record).unwrap();
                encoder.encode(&record, &mut lines);
            }
            apart.write_lines(&lines, direct.row_count()).unwrap();
            assert_eq!(apart.row_count(), direct.row_count());
            assert_eq!(unpacked(encoding, apart), unpacked(encoding, direct));
        }
    }

    fn unpacked(encoding: Encoding, writer: RecordWriter<Vec<u8>>) -> Vec<u8> {
        let (bytes, _) = writer.finish().unwrap();
        let mut plain = Vec::new();
        match encoding {
            Encoding::PlainText(Compression::Gzip) | Encoding::JsonLines(Compression::Gzip) => {
                flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
            }
            Encoding::PlainText(Compression::Zstd) | Encoding::JsonLines(Compression::Zstd) => {
                plain = zstd::decode_all(&bytes[..]).unwrap();
            }
            _ => plain = bytes,
        }
        plain
    }

    fn written(encoding: Encoding) -> Vec<u8> {
        let mut writer = RecordWriter::new(Vec::new(), &EXAMPLES[0].format(), encoding).unwrap();
        EXAMPLES[0].records().iter().for_each(|record| writer.write(record).unwrap());
        let (bytes, size) = writer.finish().unwrap();
        assert_eq!(bytes.len() as u64, size);
        bytes
    }

    #[test]
    fn compressed_files_hold_what_plain_ones_do() {
        let plain = written(Encoding::PlainText(Compression::None));
        let expected = format!("{}\n{}\n", EXAMPLES[0].format().header_line(), EXAMPLES[0].lines.join("\n"));
        assert_eq!(String::from_utf8(plain.clone()).unwrap(), expected);
        let mut unpacked = Vec::new();
        let gzip = written(Encoding::PlainText(Compression::Gzip));
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain);
        assert_eq!(zstd::decode_all(&written(Encoding::PlainText(Compression::Zstd))[..]).unwrap(), plain);
        let json = written(Encoding::JsonLines(Compression::None));
        assert_eq!(zstd::decode_all(&written(Encoding::JsonLines(Compression::Zstd))[..]).unwrap(), json);
        assert_eq!(json.iter().filter(|byte| **byte == b'\n').count(), EXAMPLES[0].lines.len());
    }

    #[test]
    fn no_file_outgrows_its_bound() {
        let records = EXAMPLES[0].records();
        let format = EXAMPLES[0].format();
        for encoding in ALL {
            for bytes_max in [3_000, 30_000, 300_000] {
                let mut writer = RecordWriter::new(Vec::new(), &format, encoding).unwrap();
                let taken = records.iter().cycle().take_while(|record| writer.offer(record, bytes_max).unwrap());
                let count = taken.take(100_000).count() as u64;
                assert_eq!(writer.row_count(), count);
                assert!(count > 0);
                let (_, size) = writer.finish().unwrap();
                let is_alone = count == 1;
                assert!(size <= bytes_max || is_alone, "{encoding:?}: {count} rows, {size} > {bytes_max}");
            }
        }
    }

    #[test]
    fn plain_text_fills_its_bound_to_the_last_row() {
        let record = &EXAMPLES[0].records()[0];
        let header = EXAMPLES[0].format().header_line().len() as u64 + 1;
        let line = EXAMPLES[0].lines[0].len() as u64 + 1;
        let encoding = Encoding::PlainText(Compression::None);
        let mut writer = RecordWriter::new(Vec::new(), &EXAMPLES[0].format(), encoding).unwrap();
        let bytes_max = header + 3 * line;
        assert!((0..3).all(|_| writer.offer(record, bytes_max).unwrap()));
        assert!(!writer.offer(record, bytes_max).unwrap());
        assert_eq!(writer.finish().unwrap().1, bytes_max);
    }
}
