//! Records onto standard output, a socket, or whatever takes bytes.

use std::io::{self, Write};

use crate::format::Format;
use crate::record::Record;
use crate::segment::Published;
use crate::writer::{Encoding, LineEncoder, RecordWriter};

use super::{Sink, SinkError};

/// Writes one endless file onto a stream.
pub struct StreamSink<W: Write + Send> {
    name: String,
    /// `None` once finished.
    writer: Option<RecordWriter<W>>,
}

impl<W: Write + Send> StreamSink<W> {
    /// A sink onto `output`, which messages call `name`.
    ///
    /// # Errors
    /// What the stream says to the first bytes.
    pub fn new(output: W, name: impl Into<String>, format: &Format, encoding: Encoding) -> Result<Self, SinkError> {
        let name = name.into();
        let writer = RecordWriter::new(output, format, encoding).map_err(|source| failed(&name, source))?;
        Ok(Self { name, writer: Some(writer) })
    }
}

impl<W: Write + Send> Sink for StreamSink<W> {
    fn write(&mut self, record: &Record) -> Result<(), SinkError> {
        let writer = self.writer.as_mut().ok_or(SinkError::Finished)?;
        writer.write(record).map_err(|source| failed(&self.name, source))
    }

    fn advance(&mut self, _end_secs: i64) -> Result<(), SinkError> {
        self.publish()
    }

    fn publish(&mut self) -> Result<(), SinkError> {
        match &mut self.writer {
            Some(writer) => writer.flush().map_err(|source| failed(&self.name, source)),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        match self.writer.take() {
            Some(writer) => writer.finish().map(drop).map_err(|source| failed(&self.name, source)),
            None => Ok(()),
        }
    }

    fn drain_published(&mut self) -> Vec<Published> {
        Vec::new()
    }

    fn line_encoder(&self) -> Option<LineEncoder> {
        self.writer.as_ref()?.line_encoder()
    }

    fn write_lines(&mut self, lines: &[u8], row_count: u64) -> Result<(), SinkError> {
        let writer = self.writer.as_mut().ok_or(SinkError::Finished)?;
        writer.write_lines(lines, row_count).map_err(|source| failed(&self.name, source))
    }
}

fn failed(name: &str, source: io::Error) -> SinkError {
    let name = name.to_owned();
    match source.kind() {
        io::ErrorKind::BrokenPipe => SinkError::BrokenPipe { name },
        _ => SinkError::Stream { name, source },
    }
}
