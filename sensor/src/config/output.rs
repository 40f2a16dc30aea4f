//! Where records go and in what form: `[[output]]` in the file, flags of the same names.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use flowlog::segment::SEGMENT_BYTES_MAX_DEFAULT;

use super::flow_log::whole_number;
use super::value::{ValueError, read_as_text};

/// Where records go, complete and consistent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The place.
    pub destination: Destination,
    /// The form of the records.
    pub file_format: FileFormat,
    /// Of the whole file, or of the columns within Parquet.
    pub compression: Compression,
    /// The size from which on a new file is begun; counted as written, after compression.
    pub segment_max: SegmentMax,
    /// Folders called `year=2018` and not `2018`; directories only.
    pub hive_compatible_partitions: bool,
    /// A folder for each hour; directories only.
    pub per_hour_partition: bool,
    /// Whether a file that exists may be replaced.
    pub overwrite: bool,
}

/// A place for records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Destination {
    /// Standard output.
    #[default]
    Stdout,
    /// One file.
    File(PathBuf),
    /// A directory that is arranged like AWS's bucket.
    Directory(PathBuf),
}

impl Destination {
    /// Takes a path that was written without its final slash for what it is: `is_directory` looks at the disk.
    #[must_use]
    pub fn resolve(self, is_directory: impl FnOnce(&Path) -> bool) -> Self {
        match self {
            Self::File(path) if is_directory(&path) => Self::Directory(path),
            other => other,
        }
    }
}

impl FromStr for Destination {
    type Err = ValueError;

    /// `-` is standard output, a final slash means a directory, everything else is a file.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "" => {
                Err(ValueError::new(text, "a place for records", "write `-`, a file, or a directory with a final `/`"))
            }
            "-" => Ok(Self::Stdout),
            _ if text.ends_with('/') => Ok(Self::Directory(text.into())),
            _ => Ok(Self::File(text.into())),
        }
    }
}

/// The form of records in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileFormat {
    /// A line of text for each record, and a header.
    #[default]
    Text,
    /// Columns, in AWS's schema.
    Parquet,
    /// An object on a line of its own for each record.
    Json,
}

impl FileFormat {
    /// What the name of `destination` promises.
    pub(super) fn default_for(destination: &Destination) -> Self {
        let Destination::File(path) = destination else { return Self::default() };
        let uncompressed =
            if Compression::of_extension(path).is_some() { path.with_extension("") } else { path.clone() };
        match extension(&uncompressed).as_deref() {
            Some("parquet") => Self::Parquet,
            Some("json" | "jsonl" | "ndjson") => Self::Json,
            _ => Self::Text,
        }
    }
}

impl FromStr for FileFormat {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            // `plain-text` is what AWS calls it.
            "text" | "plain-text" => Ok(Self::Text),
            "parquet" => Ok(Self::Parquet),
            "json" => Ok(Self::Json),
            _ => Err(ValueError::new(text, "a file format", "write `text`, `parquet` or `json`")),
        }
    }
}

/// How bytes are made fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, as AWS does.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// As AWS for directories and Parquet, else what the name promises.
    pub(super) fn default_for(destination: &Destination, file_format: FileFormat) -> Self {
        match (file_format, destination) {
            (FileFormat::Parquet, _) | (_, Destination::Directory(_)) => Self::Gzip,
            (_, Destination::File(path)) => Self::of_extension(path).unwrap_or(Self::None),
            (_, Destination::Stdout) => Self::None,
        }
    }

    fn of_extension(path: &Path) -> Option<Self> {
        match extension(path)?.as_str() {
            "gz" => Some(Self::Gzip),
            "zst" => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl FromStr for Compression {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "none" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(ValueError::new(text, "a compression", "write `gzip`, `zstd` or `none`")),
        }
    }
}

/// What a file's name ends with, in lower case: `FLOWS.PARQUET` promises what `flows.parquet` does.
fn extension(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

/// The size from which on a new file is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentMax {
    bytes: u64,
}

impl SegmentMax {
    /// In bytes, from a megabyte to five gigabytes (what one upload to a bucket may hold).
    pub fn bytes(self) -> u64 {
        self.bytes
    }
}

impl Default for SegmentMax {
    /// AWS's 75 MB.
    fn default() -> Self {
        Self { bytes: SEGMENT_BYTES_MAX_DEFAULT }
    }
}

impl FromStr for SegmentMax {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let unit_bytes = match unit.trim_start() {
            "MB" => Some(MEGABYTE_BYTES),
            "GB" => Some(1000 * MEGABYTE_BYTES),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let bytes = unit_bytes.and_then(|unit_bytes| whole_number(number)?.checked_mul(unit_bytes));
        match bytes {
            Some(bytes @ MEGABYTE_BYTES..=SEGMENT_BYTES_MAX) => Ok(Self { bytes }),
            _ => Err(ValueError::new(text, "a size", "write `1MB` to `5GB`, like `75MB` or `64MiB`")),
        }
    }
}

const MEGABYTE_BYTES: u64 = 1_000_000;
const SEGMENT_BYTES_MAX: u64 = 5_000 * MEGABYTE_BYTES;

read_as_text!(FileFormat, Compression, SegmentMax);

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: FromStr<Err = ValueError> + std::fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err().to_string()
    }

    #[test]
    fn destinations() {
        assert_eq!("-".parse(), Ok(Destination::Stdout));
        assert_eq!("out/".parse(), Ok(Destination::Directory("out/".into())));
        assert_eq!("out".parse(), Ok(Destination::File("out".into())));
        assert!("".parse::<Destination>().is_err());
        let file = Destination::File("out".into());
        assert_eq!(file.clone().resolve(|_| true), Destination::Directory("out".into()));
        assert_eq!(file.clone().resolve(|_| false), file);
        assert_eq!(Destination::Stdout.resolve(|_| true), Destination::Stdout);
    }

    #[test]
    fn names_promise_their_content() {
        let of = |text: &str| {
            let destination: Destination = text.parse().unwrap();
            let file_format = FileFormat::default_for(&destination);
            (file_format, Compression::default_for(&destination, file_format))
        };
        assert_eq!(of("-"), (FileFormat::Text, Compression::None));
        assert_eq!(of("logs/"), (FileFormat::Text, Compression::Gzip));
        assert_eq!(of("flows.log"), (FileFormat::Text, Compression::None));
        assert_eq!(of("flows.log.gz"), (FileFormat::Text, Compression::Gzip));
        assert_eq!(of("flows.json.zst"), (FileFormat::Json, Compression::Zstd));
        assert_eq!(of("flows.parquet"), (FileFormat::Parquet, Compression::Gzip));
        assert_eq!(of("FLOWS.JSONL.GZ"), (FileFormat::Json, Compression::Gzip));
        assert_eq!(of("gz"), (FileFormat::Text, Compression::None));
    }

    #[test]
    fn words() {
        assert_eq!("plain-text".parse(), Ok(FileFormat::Text));
        assert_eq!(refusal::<FileFormat>("csv"), "`csv` is not a file format: write `text`, `parquet` or `json`");
        assert_eq!(refusal::<Compression>("xz"), "`xz` is not a compression: write `gzip`, `zstd` or `none`");
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("75MB", 75_000_000),
            ("1MB", 1_000_000),
            ("5GB", 5_000_000_000),
            ("64MiB", 67_108_864),
            ("2 GiB", 2_147_483_648),
        ] {
            assert_eq!(text.parse::<SegmentMax>().unwrap().bytes(), bytes);
        }
        assert_eq!(SegmentMax::default(), "75MB".parse().unwrap());
        for text in ["", "MB", "75", "0MB", "5001MB", "75mb", "-1MB", "99999999999999999999GB"] {
            let expected = format!("`{text}` is not a size: write `1MB` to `5GB`, like `75MB` or `64MiB`");
            assert_eq!(refusal::<SegmentMax>(text), expected);
        }
    }
}
