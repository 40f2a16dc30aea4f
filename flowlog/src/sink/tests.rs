//! Sinks seen from outside: what is on the disk or the stream after each call.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::examples::EXAMPLES;
use crate::format::Format;
use crate::layout::Identity;
use crate::metadata::Metadata;
use crate::parquet::{ParquetCodec, ParquetReader};
use crate::segment::Existing;
use crate::writer::{Compression, Encoding};

const TEXT: Encoding = Encoding::PlainText(Compression::None);

fn record(end_secs: i64) -> Record {
    Record::no_data(Arc::new(Metadata::default()), end_secs - 60, end_secs)
}

fn directory_sink(root: &Path, segment_bytes_max: u64) -> DirectorySink {
    DirectorySink::new(DirectoryOptions {
        root: root.into(),
        identity: Identity::new(Some("123456789012"), Some("us-east-1"), b"test").unwrap(),
        is_hive_compatible: false,
        is_per_hour: false,
        format: Format::default(),
        encoding: TEXT,
        segment_bytes_max,
    })
}

/// The `end` column of every row of a file.
fn ends(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().skip(1).map(|line| line.split(' ').nth(11).unwrap().to_owned()).collect()
}

/// An output whose bytes stay visible, and which breaks when told to.
#[derive(Clone, Default)]
struct Pipe {
    bytes: Arc<std::sync::Mutex<Vec<u8>>>,
    breaks_with: Option<io::ErrorKind>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.breaks_with {
            Some(kind) => Err(kind.into()),
            None => self.bytes.lock().unwrap().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stream_has_its_header_first_and_passes_rows_on_when_time_advances() {
    let pipe = Pipe::default();
    let seen = || String::from_utf8(pipe.bytes.lock().unwrap().clone()).unwrap();
    let mut sink = StreamSink::new(pipe.clone(), "standard output", &Format::default(), TEXT).unwrap();
    sink.write(&EXAMPLES[0].records()[0]).unwrap();
    sink.advance(0).unwrap();
    assert_eq!(seen(), format!("{}\n{}\n", Format::default().header_line(), EXAMPLES[0].lines[0]));
    sink.write(&EXAMPLES[0].records()[1]).unwrap();
    sink.finish().unwrap();
    assert!(seen().ends_with(&format!("{}\n", EXAMPLES[0].lines[1])));
    assert!(matches!(sink.write(&record(60)), Err(SinkError::Finished)));
}

#[test]
fn parquet_goes_onto_a_stream_too() {
    let pipe = Pipe::default();
    let encoding = Encoding::Parquet(ParquetCodec::Zstd);
    let mut sink = StreamSink::new(pipe.clone(), "standard output", &Format::default(), encoding).unwrap();
    for record in EXAMPLES[0].records() {
        sink.write(&record).unwrap();
    }
    sink.finish().unwrap();
    let bytes = bytes::Bytes::from(pipe.bytes.lock().unwrap().clone());
    let read: Vec<Record> = ParquetReader::new(bytes).unwrap().map(Result::unwrap).collect();
    assert_eq!(read, EXAMPLES[0].records());
}

#[test]
fn a_broken_pipe_is_told_apart() {
    for encoding in [TEXT, Encoding::JsonLines(Compression::Gzip), Encoding::Parquet(ParquetCodec::Gzip)] {
        let error_of = |kind| {
            let pipe = Pipe { breaks_with: Some(kind), ..Pipe::default() };
            let mut sink = StreamSink::new(pipe, "standard output", &Format::default(), encoding)?;
            sink.write(&record(60))?;
            sink.finish()
        };
        let broken = error_of(io::ErrorKind::BrokenPipe);
        assert!(matches!(broken, Err(SinkError::BrokenPipe { .. })), "{encoding:?}: {broken:?}");
        let full = error_of(io::ErrorKind::StorageFull).unwrap_err().to_string();
        assert!(full.starts_with("cannot write to standard output: "), "{full}");
    }
}

#[test]
fn a_named_file_appears_at_the_end_and_never_twice() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("flows.log");
    let create = |existing| FileSink::create(&path, existing, &Format::default(), TEXT);
    let mut sink = create(Existing::Keep).unwrap();
    sink.write(&record(60)).unwrap();
    sink.advance(1_000_000).unwrap();
    assert!(!path.exists());
    sink.finish().unwrap();
    assert_eq!(ends(&path), ["60"]);
    assert_eq!(sink.drain_published()[0].row_count, 1);
    assert!(sink.drain_published().is_empty());

    let refused = create(Existing::Keep).err().unwrap();
    assert_eq!(refused.to_string(), format!("{} exists already", path.display()));
    create(Existing::Overwrite).unwrap().finish().unwrap();
    assert!(ends(&path).is_empty());
}

#[test]
fn records_lie_in_the_slot_of_their_end() {
    let root = tempfile::tempdir().unwrap();
    let mut sink = directory_sink(root.path(), u64::MAX);
    for end_secs in [299, 300, 599, 0] {
        sink.write(&record(end_secs)).unwrap();
    }
    sink.finish().unwrap();
    let published = sink.drain_published();
    assert_eq!(published.len(), 2);
    assert_eq!(ends(&published[0].path), ["299", "0"]);
    assert_eq!(ends(&published[1].path), ["300", "599"]);
    let day = root.path().join("AWSLogs/123456789012/vpcflowlogs/us-east-1/1970/01/01");
    for (file, minute) in published.iter().zip(["T0000Z", "T0005Z"]) {
        assert_eq!(file.path.parent(), Some(day.as_path()));
        assert!(file.path.to_str().unwrap().contains(&format!("_19700101{minute}_")));
    }
}

#[test]
fn time_publishes_slots_that_are_over() {
    let root = tempfile::tempdir().unwrap();
    let mut sink = directory_sink(root.path(), u64::MAX);
    for end_secs in [10, 310, 610] {
        sink.write(&record(end_secs)).unwrap();
    }
    sink.advance(599).unwrap();
    assert_eq!(sink.drain_published().len(), 1);
    sink.advance(600).unwrap();
    assert_eq!(ends(&sink.drain_published()[0].path), ["310"]);
    // A late record has a file of its own, beside the slot's first.
    sink.write(&record(11)).unwrap();
    sink.finish().unwrap();
    let rest = sink.drain_published();
    assert_eq!((ends(&rest[0].path), ends(&rest[1].path)), (vec!["11".to_owned()], vec!["610".to_owned()]));
}

#[test]
fn the_number_of_open_slots_is_bounded_and_the_oldest_goes_first() {
    let root = tempfile::tempdir().unwrap();
    let mut sink = directory_sink(root.path(), u64::MAX);
    let slots = [1, 0, 2, 3];
    assert_eq!(slots.len(), OPEN_SLOTS_MAX);
    for slot in slots {
        sink.write(&record(slot * 300)).unwrap();
    }
    assert!(sink.drain_published().is_empty());
    sink.write(&record(4 * 300)).unwrap();
    assert_eq!(ends(&sink.drain_published()[0].path), ["0"]);
}

#[test]
fn a_full_file_is_followed_by_the_next_number() {
    let root = tempfile::tempdir().unwrap();
    let mut sink = directory_sink(root.path(), 1);
    for second in 0..3 {
        sink.write(&record(second)).unwrap();
    }
    sink.finish().unwrap();
    let mut again = directory_sink(root.path(), u64::MAX);
    again.write(&record(3)).unwrap();
    again.finish().unwrap();
    let published: Vec<_> = sink.drain_published().into_iter().chain(again.drain_published()).collect();
    let rows: Vec<_> = published.iter().flat_map(|file| ends(&file.path)).collect();
    assert_eq!(rows, ["0", "1", "2", "3"]);
    assert!(published.iter().all(|file| file.row_count == 1));
}

#[test]
fn what_was_published_outlives_a_sink_that_was_dropped() {
    let root = tempfile::tempdir().unwrap();
    let mut sink = directory_sink(root.path(), u64::MAX);
    sink.write(&record(0)).unwrap();
    sink.advance(300).unwrap();
    sink.write(&record(300)).unwrap();
    let published = sink.drain_published().remove(0);
    drop(sink);
    let left: Vec<_> =
        fs::read_dir(published.path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [published.path]);
}
