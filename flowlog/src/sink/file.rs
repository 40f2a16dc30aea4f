//! Records into one file with a name of its own.

use std::path::{Path, PathBuf};

use crate::format::Format;
use crate::record::Record;
use crate::segment::{Existing, Published, Segment, SegmentError, parent};
use crate::writer::{Encoding, LineEncoder};

use super::{PublishedFiles, Sink, SinkError};

/// Writes one file, which appears under its name when the sink is finished. Its size is not bounded: whoever names a
/// file wants one.
pub struct FileSink {
    path: PathBuf,
    existing: Existing,
    /// `None` once finished.
    segment: Option<Segment>,
    published: PublishedFiles,
}

impl FileSink {
    /// A sink into the file `path`, whatever its name promises.
    ///
    /// # Errors
    /// [`SegmentError::AlreadyExists`] at once where the file exists and is to be kept, so that no work is done in
    /// vain; and what the file system says.
    pub fn create(path: &Path, existing: Existing, format: &Format, encoding: Encoding) -> Result<Self, SinkError> {
        if existing == Existing::Keep && path.symlink_metadata().is_ok() {
            return Err(SegmentError::AlreadyExists { path: path.into() }.into());
        }
        let segment = Segment::create(parent(path), format, encoding, u64::MAX)?;
        Ok(Self { path: path.into(), existing, segment: Some(segment), published: PublishedFiles::default() })
    }
}

impl Sink for FileSink {
    fn write(&mut self, record: &Record) -> Result<(), SinkError> {
        self.segment.as_mut().ok_or(SinkError::Finished)?.offer(record)?;
        Ok(())
    }

    fn advance(&mut self, _end_secs: i64) -> Result<(), SinkError> {
        Ok(())
    }

    fn publish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        if let Some(segment) = self.segment.take() {
            self.published.push(segment.publish(&self.path, self.existing)?);
        }
        Ok(())
    }

    fn drain_published(&mut self) -> Vec<Published> {
        self.published.drain()
    }

    fn line_encoder(&self) -> Option<LineEncoder> {
        self.segment.as_ref()?.line_encoder()
    }

    fn write_lines(&mut self, lines: &[u8], row_count: u64) -> Result<(), SinkError> {
        self.segment.as_mut().ok_or(SinkError::Finished)?.write_lines(lines, row_count)?;
        Ok(())
    }
}
