//! Where records go in the end: a stream, a named file, or a directory laid out as AWS lays out a bucket.

mod directory;
mod file;
mod stream;

use std::io;

use crate::record::Record;
use crate::segment::{Published, SegmentError};
use crate::writer::LineEncoder;

pub use directory::{DirectoryOptions, DirectorySink, OPEN_SLOTS_MAX};
pub use file::FileSink;
pub use stream::StreamSink;

/// Takes records, one after the other.
///
/// After an error a sink is of no more use: what it has published stays, what it was writing is removed when it is
/// dropped.
pub trait Sink: Send {
    /// Takes one record.
    ///
    /// # Errors
    /// [`SinkError`] naming the file and the cause.
    fn write(&mut self, record: &Record) -> Result<(), SinkError>;

    /// Learns that no record with an `end` before `end_secs` will come: files that can be complete are published,
    /// streams pass on what they hold. Files that the caller wants listed are in [`Sink::drain_published`].
    ///
    /// # Errors
    /// As for [`Sink::write`].
    fn advance(&mut self, end_secs: i64) -> Result<(), SinkError>;

    /// Publishes what can be published without ending the log: directories everything they hold, streams what is in
    /// their buffers. A single file appears when it is finished.
    ///
    /// # Errors
    /// As for [`Sink::write`].
    fn publish(&mut self) -> Result<(), SinkError>;

    /// Publishes everything. Nothing may be written afterwards.
    ///
    /// # Errors
    /// As for [`Sink::write`].
    fn finish(&mut self) -> Result<(), SinkError>;

    /// The files published since the last call, in the order of their publication. A sink keeps no more than
    /// [`PUBLISHED_MAX`] of them; the oldest are forgotten first.
    fn drain_published(&mut self) -> Vec<Published>;

    /// An encoder whose lines, in the order of their records, are all that this sink needs: then
    /// [`Sink::write_lines`] may take the place of [`Sink::write`], and several threads may encode. `None` where the
    /// sink has to see each record.
    fn line_encoder(&self) -> Option<LineEncoder> {
        None
    }

    /// Takes `row_count` records as lines from an encoder of this sink.
    ///
    /// # Errors
    /// As for [`Sink::write`]; [`SinkError::NotLines`] from a sink that gives no encoder.
    fn write_lines(&mut self, _lines: &[u8], _row_count: u64) -> Result<(), SinkError> {
        Err(SinkError::NotLines)
    }
}

/// Why a sink failed.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The reader at the other end of a pipe went away. For a program that is an ordinary end.
    #[error("{name}: nobody reads it any more")]
    BrokenPipe {
        /// What the stream is called.
        name: String,
    },
    /// A stream refused.
    #[error("cannot write to {name}: {source}")]
    Stream {
        /// What the stream is called.
        name: String,
        /// What it said.
        source: io::Error,
    },
    /// A file could not be written or published.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Lines came to a sink that has to see each record.
    #[error("the output takes records, not lines")]
    NotLines,
    /// A record came after [`Sink::finish`].
    #[error("the output is finished already")]
    Finished,
}

/// The published files a sink remembers for [`Sink::drain_published`].
pub const PUBLISHED_MAX: usize = 4096;

/// Published files waiting to be asked for.
#[derive(Debug, Default)]
struct PublishedFiles {
    files: std::collections::VecDeque<Published>,
}

impl PublishedFiles {
    fn push(&mut self, published: Published) {
        if self.files.len() == PUBLISHED_MAX {
            self.files.pop_front();
        }
        self.files.push_back(published);
    }

    fn drain(&mut self) -> Vec<Published> {
        self.files.drain(..).collect()
    }
}

#[cfg(test)]
mod tests;
