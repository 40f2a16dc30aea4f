//! Records into a directory that is laid out as AWS lays out a bucket: by the slot of their `end`.

use std::path::PathBuf;

use crate::format::Format;
use crate::layout::{Identity, Layout, Slot};
use crate::record::Record;
use crate::segment::{Published, Segment};
use crate::writer::Encoding;

use super::{PublishedFiles, Sink, SinkError};

/// What a [`DirectorySink`] needs to know.
#[derive(Debug, Clone)]
pub struct DirectoryOptions {
    /// The directory that stands for the bucket and its prefix.
    pub root: PathBuf,
    /// Whose flow log it is.
    pub identity: Identity,
    /// `HiveCompatiblePartitions`
    pub is_hive_compatible: bool,
    /// `PerHourPartition`
    pub is_per_hour: bool,
    /// The fields.
    pub format: Format,
    /// What the files are made of.
    pub encoding: Encoding,
    /// The largest file: [`crate::segment::SEGMENT_BYTES_MAX_DEFAULT`] as a rule.
    pub segment_bytes_max: u64,
}

/// Writes every record into the file of its slot. Up to [`OPEN_SLOTS_MAX`] slots are open at once; a record of yet
/// another slot publishes the oldest first. A slot may have several files: when one is full, when a late record finds
/// its slot published, or when an earlier run left one.
pub struct DirectorySink {
    root: PathBuf,
    layout: Layout,
    format: Format,
    encoding: Encoding,
    segment_bytes_max: u64,
    /// At most [`OPEN_SLOTS_MAX`].
    open: Vec<(Slot, Segment)>,
    published: PublishedFiles,
    is_finished: bool,
}

impl DirectorySink {
    /// A sink that makes nothing before its first record.
    pub fn new(options: DirectoryOptions) -> Self {
        let DirectoryOptions { root, identity, is_hive_compatible, is_per_hour, format, encoding, segment_bytes_max } =
            options;
        let layout = Layout { identity, is_hive_compatible, is_per_hour, suffix: encoding.suffix() };
        let (open, published) = (Vec::with_capacity(OPEN_SLOTS_MAX), PublishedFiles::default());
        Self { root, layout, format, encoding, segment_bytes_max, open, published, is_finished: false }
    }

    /// The index of the open segment of `slot`.
    fn segment_of(&mut self, slot: Slot) -> Result<usize, SinkError> {
        if let Some(index) = self.open.iter().position(|(open, _)| *open == slot) {
            return Ok(index);
        }
        if self.open.len() == OPEN_SLOTS_MAX {
            self.publish_oldest()?;
        }
        let directory = self.root.join(self.layout.directory(slot));
        let segment = Segment::create(&directory, &self.format, self.encoding, self.segment_bytes_max)?;
        self.open.push((slot, segment));
        Ok(self.open.len() - 1)
    }

    fn publish_all(&mut self) -> Result<(), SinkError> {
        while !self.open.is_empty() {
            self.publish_oldest()?;
        }
        Ok(())
    }

    fn publish_oldest(&mut self) -> Result<(), SinkError> {
        match (0..self.open.len()).min_by_key(|index| self.open[*index].0) {
            Some(oldest) => self.publish_at(oldest),
            None => Ok(()),
        }
    }

    fn publish_at(&mut self, index: usize) -> Result<(), SinkError> {
        let (slot, segment) = self.open.swap_remove(index);
        let published = segment.publish_numbered(|sequence| self.layout.file_name(slot, sequence))?;
        self.published.push(published);
        Ok(())
    }
}

impl Sink for DirectorySink {
    fn write(&mut self, record: &Record) -> Result<(), SinkError> {
        if self.is_finished {
            return Err(SinkError::Finished);
        }
        let slot = Slot::of(record);
        let index = self.segment_of(slot)?;
        if !self.open[index].1.offer(record)? {
            self.publish_at(index)?;
            // The first record of a segment always has room.
            let index = self.segment_of(slot)?;
            self.open[index].1.offer(record)?;
        }
        Ok(())
    }

    fn advance(&mut self, end_secs: i64) -> Result<(), SinkError> {
        while self.open.iter().any(|(slot, _)| slot.end_secs() <= end_secs) {
            self.publish_oldest()?;
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<(), SinkError> {
        self.publish_all()
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.is_finished = true;
        self.publish_all()
    }

    fn drain_published(&mut self) -> Vec<Published> {
        self.published.drain()
    }
}

/// Slots that are written at once: the current one, the one before it for rows of an interval that ended late, and as
/// many again.
pub const OPEN_SLOTS_MAX: usize = 4;
