//! One output file: encoded, compressed, bounded by size, published atomically.
//!
//! A log segment grows in a file with a temporary name (it begins with a dot) in the directory where it will be
//! published. Publishing writes it to the disk, renames it without replacing anything, and writes the directory to the
//! disk: a reader sees the whole file or none. A segment that is dropped takes its file with it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::format::Format;
use crate::record::Record;
use crate::writer::{Encoding, LineEncoder, RecordWriter};

/// A log segment that is being written.
pub struct Segment {
    writer: RecordWriter<NamedTempFile>,
    directory: PathBuf,
    bytes_max: u64,
}

/// What is to be done when the name of a new file is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Leave the existing file alone and report it.
    Keep,
    /// Replace it, in one step.
    Overwrite,
}

/// A file that is complete, on the disk and under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where it is.
    pub path: PathBuf,
    /// Records in it.
    pub row_count: u64,
    /// Its size.
    pub size_bytes: u64,
}

impl Segment {
    /// Begins a log segment that will be published in `directory`, which is made if need be. It takes no record that
    /// could make the published file larger than `bytes_max`.
    ///
    /// # Errors
    /// [`SegmentError::Io`] naming the directory.
    pub fn create(directory: &Path, format: &Format, encoding: Encoding, bytes_max: u64) -> Result<Self, SegmentError> {
        let begin = || {
            create_directory(directory)?;
            let file = tempfile_in(directory)?;
            RecordWriter::new(file, format, encoding)
        };
        let writer = begin().map_err(|source| failed("create a file in", directory, source))?;
        Ok(Self { writer, directory: directory.into(), bytes_max })
    }

    /// Takes `record`, and says whether it did: a full segment does not, and is to be published.
    ///
    /// # Errors
    /// [`SegmentError::Io`] naming the directory.
    pub fn offer(&mut self, record: &Record) -> Result<bool, SegmentError> {
        self.writer.offer(record, self.bytes_max).map_err(|source| failed("write a file in", &self.directory, source))
    }

    /// An encoder of this segment's lines, for [`Segment::write_lines`]; none for Parquet.
    pub fn line_encoder(&self) -> Option<LineEncoder> {
        self.writer.line_encoder()
    }

    /// Takes `row_count` records that an encoder of this segment has made lines of, whatever the segment's bound.
    ///
    /// # Errors
    /// As for [`Segment::offer`].
    pub fn write_lines(&mut self, lines: &[u8], row_count: u64) -> Result<(), SegmentError> {
        let written = self.writer.write_lines(lines, row_count);
        written.map_err(|source| failed("write a file in", &self.directory, source))
    }

    /// Records taken.
    pub fn row_count(&self) -> u64 {
        self.writer.row_count()
    }

    /// Publishes the segment as `path`, which must lie in the segment's directory.
    ///
    /// # Errors
    /// [`SegmentError::AlreadyExists`] when there is such a file and it is to be kept, else [`SegmentError::Io`].
    pub fn publish(self, path: &Path, existing: Existing) -> Result<Published, SegmentError> {
        let finished = self.finish(path)?;
        finished.publish(path, existing).map_err(|(_, error)| error)
    }

    /// Publishes the segment under the first name that is free: `name(0)`, `name(1)` and so on, in its directory.
    ///
    /// # Errors
    /// [`SegmentError::NoFreeName`] after [`SEQUENCE_MAX`] names, else [`SegmentError::Io`].
    pub fn publish_numbered(self, name: impl Fn(u32) -> String) -> Result<Published, SegmentError> {
        let directory = self.directory.clone();
        let mut finished = self.finish(&directory)?;
        for sequence in 0..SEQUENCE_MAX {
            let path = directory.join(name(sequence));
            // Asking first is cheaper than trying, and trying is what decides.
            if path.exists() {
                continue;
            }
            match finished.publish(&path, Existing::Keep) {
                Ok(published) => return Ok(published),
                Err((Some(again), SegmentError::AlreadyExists { .. })) => finished = again,
                Err((_, error)) => return Err(error),
            }
        }
        Err(SegmentError::NoFreeName { path: directory.join(name(SEQUENCE_MAX)) })
    }

    /// Ends the file and sees it to the disk.
    fn finish(self, path: &Path) -> Result<Finished, SegmentError> {
        let row_count = self.writer.row_count();
        let finish = || {
            let (file, size_bytes) = self.writer.finish()?;
            file.as_file().sync_all()?;
            Ok(Finished { file, row_count, size_bytes })
        };
        finish().map_err(|source| failed("write", path, source))
    }
}

/// A complete file that has no name yet.
struct Finished {
    file: NamedTempFile,
    row_count: u64,
    size_bytes: u64,
}

impl Finished {
    /// Gives the file its name. A taken name gives the file back.
    fn publish(self, path: &Path, existing: Existing) -> Result<Published, (Option<Self>, SegmentError)> {
        let Self { file, row_count, size_bytes } = self;
        let renamed = match existing {
            Existing::Keep => file.persist_noclobber(path),
            Existing::Overwrite => file.persist(path),
        };
        match renamed {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                let again = Self { file: error.file, row_count, size_bytes };
                return Err((Some(again), SegmentError::AlreadyExists { path: path.into() }));
            }
            Err(error) => return Err((None, failed("publish", path, error.error))),
        }
        let directory = parent(path);
        sync_directory(directory).map_err(|source| (None, failed("publish in", directory, source)))?;
        Ok(Published { path: path.into(), row_count, size_bytes })
    }
}

/// Why a log segment could not be written or published.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// There is a file of that name, and it was not to be replaced.
    #[error("{} exists already", path.display())]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// Every name for the segment is taken.
    #[error("{} and all names before it are taken", path.display())]
    NoFreeName {
        /// The last name that was tried.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done: words that go before a path.
        doing: &'static str,
        /// The file, or the directory of a file without a name.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> SegmentError {
    SegmentError::Io { doing, path: path.into(), source }
}

fn tempfile_in(directory: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX).suffix(TEMPORARY_SUFFIX);
    // As any program's output: the umask has the last word. (A temporary file is otherwise its owner's alone.)
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(directory)
}

/// Makes `directory` and those above it, so that they outlive a power cut.
fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = parent(directory);
    create_directory(above)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_directory(above),
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The largest file AWS publishes.
pub const SEGMENT_BYTES_MAX_DEFAULT: u64 = 75 * 1000 * 1000;

/// Names tried for one segment of a slot.
pub const SEQUENCE_MAX: u32 = 1_000_000;

const TEMPORARY_PREFIX: &str = ".flowlog-";
const TEMPORARY_SUFFIX: &str = ".tmp";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::EXAMPLES;
    use crate::writer::Compression;

    fn segment(directory: &Path, bytes_max: u64) -> Segment {
        let encoding = Encoding::PlainText(Compression::None);
        Segment::create(directory, &EXAMPLES[0].format(), encoding, bytes_max).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_segment_is_seen_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a/b");
        let mut segment = segment(&directory, u64::MAX);
        for record in EXAMPLES[0].records() {
            assert!(segment.offer(&record).unwrap());
        }
        let growing = names(&directory);
        assert_eq!(growing.len(), 1);
        assert!(growing[0].starts_with('.'), "{growing:?}");

        let path = directory.join("flows.log");
        let published = segment.publish(&path, Existing::Keep).unwrap();
        assert_eq!(names(&directory), ["flows.log"]);
        let expected = format!("{}\n{}\n", EXAMPLES[0].format().header_line(), EXAMPLES[0].lines.join("\n"));
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(published, Published { path, row_count: 10, size_bytes: expected.len() as u64 });
    }

    #[test]
    fn an_existing_file_is_kept_unless_it_is_to_go() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("flows.log");
        fs::write(&path, "precious").unwrap();
        let refused = segment(root.path(), u64::MAX).publish(&path, Existing::Keep).unwrap_err();
        assert!(matches!(refused, SegmentError::AlreadyExists { path: named } if named == path));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        assert_eq!(names(root.path()), ["flows.log"]);
        segment(root.path(), u64::MAX).publish(&path, Existing::Overwrite).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), EXAMPLES[0].format().header_line() + "\n");
    }

    #[test]
    fn numbers_go_on_where_a_name_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let name = |sequence| format!("{sequence}.log");
        for expected in ["0.log", "1.log", "2.log"] {
            let published = segment(root.path(), u64::MAX).publish_numbered(name).unwrap();
            assert_eq!(published.path, root.path().join(expected));
        }
    }

    #[test]
    fn a_full_segment_takes_no_more() {
        let root = tempfile::tempdir().unwrap();
        let record = &EXAMPLES[0].records()[0];
        let mut tiny = segment(root.path(), 1);
        assert!(tiny.offer(record).unwrap());
        assert!(!tiny.offer(record).unwrap());
        assert_eq!(tiny.row_count(), 1);
    }

    #[test]
    fn a_dropped_segment_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let mut dropped = segment(root.path(), u64::MAX);
        dropped.offer(&EXAMPLES[0].records()[0]).unwrap();
        drop(dropped);
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn errors_name_the_place() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let encoding = Encoding::PlainText(Compression::None);
        let refused = Segment::create(&file.join("below"), &Format::default(), encoding, 1).err().unwrap();
        assert!(refused.to_string().starts_with(&format!("cannot create a file in {}", file.display())), "{refused}");
    }
}
