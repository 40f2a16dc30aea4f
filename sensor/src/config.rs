//! Checked configuration: a file, the flags that win over it, and the defaults beneath.
//!
//! The words are those of AWS's API and of its flow-log fields. A file is read into a [`RawConfig`], a command line
//! into [`ReplayOptions`]; together they make [`Settings`], after which nothing is checked again. Nothing here looks
//! at the disk: the caller reads the file and passes its text.
//!
//! `[[interface]]` tables are asked in the order of the file, and the first whose `name` matches speaks for an
//! interface. Flags about interfaces speak for all of them.

pub mod document;
mod flow_log;
pub mod glob;
mod interface;
mod options;
mod output;
mod raw;
#[cfg(test)]
mod tests;
pub mod value;

pub use flow_log::{FlowTableMax, Fragments, Interval, SkippedTraffic, TrafficSelection, Workers};
pub use interface::{InterfaceId, InterfaceSettings, Label};
pub use options::{ReplayOptions, SummaryFormat};
pub use output::{Compression, Destination, FileFormat, Output, SegmentMax};
pub use raw::RawConfig;

use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use document::DocumentError;
use interface::{INTERFACE_ID, RawInterface};
use raw::RawOutput;

/// Everything that a replay needs to know, complete and consistent.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `account-id`, where it is configured.
    pub account_id: Option<Label>,
    /// `region`, where it is configured.
    pub region: Option<Label>,
    /// The columns, as written: `v5`, or `${version} ${srcaddr} ...`.
    pub format: String,
    /// The aggregation interval.
    pub interval: Interval,
    /// Which rows are written.
    pub traffic: TrafficSelection,
    /// Which classes are left out.
    pub skipped_traffic: SkippedTraffic,
    /// What becomes of fragments.
    pub fragments: Fragments,
    /// How many threads count packets; `None` leaves it to the machine.
    pub workers: Option<Workers>,
    /// The flow table's bound.
    pub flow_table_max: FlowTableMax,
    /// Where records go.
    pub output: Output,
    /// A filter expression in libpcap's language, as written.
    pub filter: Option<String>,
    /// The policy file.
    pub policy: Option<PathBuf>,
    /// Whether to say nothing but errors.
    pub quiet: bool,
    /// How to tell what was done.
    pub summary: SummaryFormat,
    interfaces: Vec<RawInterface>,
    all_interfaces: InterfaceFlags,
}

/// What flags say about every interface.
#[derive(Debug, Clone)]
struct InterfaceFlags {
    id: Option<InterfaceId>,
    vpc_cidrs: Vec<Ipv4Net>,
    subnet_cidrs: Vec<IpNet>,
    local: Vec<IpNet>,
}

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text has the wrong shape, or a value means nothing.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A second `[[output]]`.
    #[error("line {line}: there can be only one [[output]]")]
    SeveralOutputs {
        /// Of the second one.
        line: usize,
    },
    /// An `[[output]]` with two places.
    #[error("line {line}: [[output]] has a `directory` and a `file`, it can have one of them")]
    DirectoryAndFile {
        /// Of the table.
        line: usize,
    },
    /// Folders are wanted, but the records go to one file or to standard output.
    #[error("`{option}` needs a directory to write to")]
    PartitionsWithoutDirectory {
        /// The key or flag.
        option: &'static str,
    },
}

impl Settings {
    /// Lays the flags over the file over the defaults.
    ///
    /// # Errors
    /// [`ConfigError::PartitionsWithoutDirectory`].
    pub fn new(file: Option<RawConfig>, flags: ReplayOptions) -> Result<Self, ConfigError> {
        let mut file = file.unwrap_or_default();
        let output = output(file.take_output(), &flags)?;
        let flow_log = file.flow_log;
        Ok(Self {
            account_id: flags.account_id.or(file.account_id),
            region: flags.region.or(file.region),
            format: flags.format.or(flow_log.format).unwrap_or_else(|| FORMAT_DEFAULT.to_owned()),
            interval: flags.interval.or(flow_log.interval).unwrap_or_default(),
            traffic: flags.traffic.or(flow_log.traffic).unwrap_or_default(),
            skipped_traffic: flags.skipped_traffic.or(flow_log.skipped_traffic).unwrap_or_default(),
            fragments: flags.fragments.or(flow_log.fragments).unwrap_or_default(),
            workers: flags.workers.or(flow_log.workers),
            flow_table_max: flags.flow_table_max.or(flow_log.flow_table_max).unwrap_or_default(),
            output,
            filter: flags.filter,
            policy: flags.policy,
            quiet: flags.quiet,
            summary: flags.summary,
            interfaces: file.interface,
            all_interfaces: InterfaceFlags {
                id: flags.interface_id,
                vpc_cidrs: flags.vpc_cidr.iter().map(|cidr| cidr.0).collect(),
                subnet_cidrs: flags.subnet_cidr.iter().map(|cidr| cidr.0).collect(),
                local: flags.local.iter().map(|cidr| cidr.0).collect(),
            },
        })
    }

    /// What is known of the interface called `name`, which is also its `interface-id` where nothing else is said.
    pub fn interface(&self, name: &str) -> InterfaceSettings {
        let file = self.interfaces.iter().find(|interface| interface.name.matches(name));
        let flags = &self.all_interfaces;

        let account_id = self.account_id.as_ref().map_or(ACCOUNT_ID_DEFAULT, Label::as_str);
        let mut metadata = vec![("account-id".to_owned(), account_id.to_owned())];
        metadata.extend(self.region.iter().map(|region| ("region".to_owned(), region.as_str().to_owned())));
        let mut of_file = file.map(|file| file.metadata.clone()).unwrap_or_default();
        let id_of_file = of_file.iter().position(|(key, _)| key == INTERFACE_ID).map(|at| of_file.swap_remove(at).1);
        let id_of_flags = flags.id.as_ref().map(|id| id.0.clone());
        let id = id_of_flags.or(id_of_file).unwrap_or_else(|| name.to_owned());
        metadata.push((INTERFACE_ID.to_owned(), id));
        metadata.append(&mut of_file);

        let blocks_of_file = |blocks: fn(&RawInterface) -> Vec<IpNet>| file.map(blocks).unwrap_or_default();
        let vpc_cidrs_of_file = file.iter().flat_map(|file| &file.vpc_cidr.0).map(|cidr| cidr.0).collect();
        InterfaceSettings {
            metadata,
            vpc_cidrs: first_given(&flags.vpc_cidrs, vpc_cidrs_of_file),
            subnet_cidrs: first_given(
                &flags.subnet_cidrs,
                blocks_of_file(|file| file.subnet_cidr.0.iter().map(|cidr| cidr.0).collect()),
            ),
            local: first_given(&flags.local, blocks_of_file(|file| file.local.0.iter().map(|cidr| cidr.0).collect())),
        }
    }
}

fn first_given<T: Clone>(flags: &[T], file: Vec<T>) -> Vec<T> {
    if flags.is_empty() { file } else { flags.to_vec() }
}

fn output(file: Option<RawOutput>, flags: &ReplayOptions) -> Result<Output, ConfigError> {
    let (destination, file) = match &flags.output {
        Some(destination) => (destination.clone(), RawOutput::default()),
        None => {
            let file = file.unwrap_or_default();
            (file.destination(), file)
        }
    };
    let file_format = flags.file_format.or(file.file_format).unwrap_or_else(|| FileFormat::default_for(&destination));
    let compression = flags.compression.or(file.compression);
    let hive_compatible_partitions = flags.hive_compatible_partitions.or(file.hive_compatible_partitions);
    let per_hour_partition = flags.per_hour_partition.or(file.per_hour_partition);

    let is_directory = matches!(destination, Destination::Directory(_));
    let wanted =
        [("hive-compatible-partitions", hive_compatible_partitions), ("per-hour-partition", per_hour_partition)];
    if let Some((option, _)) = wanted.into_iter().find(|(_, wanted)| *wanted == Some(true) && !is_directory) {
        return Err(ConfigError::PartitionsWithoutDirectory { option });
    }
    Ok(Output {
        compression: compression.unwrap_or_else(|| Compression::default_for(&destination, file_format)),
        destination,
        file_format,
        segment_max: file.segment_max.unwrap_or_default(),
        hive_compatible_partitions: hive_compatible_partitions.unwrap_or_default(),
        per_hour_partition: per_hour_partition.unwrap_or_default(),
        overwrite: flags.overwrite,
    })
}

/// AWS's default format.
const FORMAT_DEFAULT: &str = "v2";
/// AWS's word for an account that it does not know.
const ACCOUNT_ID_DEFAULT: &str = "unknown";

/// A fuzz target: no text may make the reader of configuration files panic, and what it takes becomes settings.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(file) = RawConfig::parse(text)
        && let Ok(settings) = Settings::new(Some(file), ReplayOptions::default())
    {
        settings.interface("eth0");
    }
}
