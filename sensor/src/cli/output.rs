//! From the checked settings to a sink.

use std::fs::OpenOptions;
use std::path::Path;

use anyhow::Context;
use flowlog::format::Format;
use flowlog::layout::Identity;
use flowlog::parquet::ParquetCodec;
use flowlog::segment::Existing;
use flowlog::sink::{DirectoryOptions, DirectorySink, FileSink, Sink, StreamSink};
use flowlog::writer::{self, Encoding};
use flowtap::config::{Compression, Destination, FileFormat, Label, Settings};

/// The sink that the settings ask for, ready to take records.
///
/// # Errors
/// An output that exists, or can't be made.
pub(super) fn open(settings: &Settings, format: &Format) -> anyhow::Result<Box<dyn Sink>> {
    let output = &settings.output;
    let encoding = encoding(output.file_format, output.compression);
    Ok(match &output.destination {
        Destination::Stdout => Box::new(StreamSink::new(std::io::stdout(), "standard output", format, encoding)?),
        Destination::File(path) if is_stream(path) => {
            let name = path.display().to_string();
            let stream = OpenOptions::new().write(true).open(path).with_context(|| name.clone())?;
            Box::new(StreamSink::new(stream, name, format, encoding)?)
        }
        Destination::File(path) => {
            let existing = if output.overwrite { Existing::Overwrite } else { Existing::Keep };
            Box::new(FileSink::create(path, existing, format, encoding)?)
        }
        Destination::Directory(root) => Box::new(DirectorySink::new(DirectoryOptions {
            root: root.clone(),
            identity: identity(settings, format)?,
            is_hive_compatible: output.hive_compatible_partitions,
            is_per_hour: output.per_hour_partition,
            format: format.clone(),
            encoding,
            segment_bytes_max: output.segment_max.bytes(),
        })),
    })
}

/// Whether `path` is a device or a pipe: something to write into, never to replace.
pub(super) fn is_stream(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

fn encoding(file_format: FileFormat, compression: Compression) -> Encoding {
    let whole_file = match compression {
        Compression::None => writer::Compression::None,
        Compression::Gzip => writer::Compression::Gzip,
        Compression::Zstd => writer::Compression::Zstd,
    };
    match file_format {
        FileFormat::Text => Encoding::PlainText(whole_file),
        FileFormat::Json => Encoding::JsonLines(whole_file),
        FileFormat::Parquet => Encoding::Parquet(match compression {
            Compression::None => ParquetCodec::None,
            Compression::Gzip => ParquetCodec::Gzip,
            Compression::Zstd => ParquetCodec::Zstd,
        }),
    }
}

/// Whose flow log it is. Its id tells apart what AWS would call different flow logs: other fields, interval or choice of
/// traffic. It says nothing of filters, policies and networks.
///
/// # Errors
/// A part that can't stand in a path.
pub(super) fn identity(settings: &Settings, format: &Format) -> anyhow::Result<Identity> {
    let configuration = format!(
        "{format}|{}|{:?}|{:?}|{:?}",
        settings.interval.secs(),
        settings.traffic,
        settings.skipped_traffic,
        settings.fragments
    );
    let account_id = settings.account_id.as_ref().map(Label::as_str);
    let region = settings.region.as_ref().map(Label::as_str);
    Ok(Identity::new(account_id, region, configuration.as_bytes())?)
}
