//! Checked configuration: a file, the flags that win over it, and the defaults beneath.
//!
//! The words are those of AWS's API and of its flow-log fields. A file is read into a [`RawConfig`], a command line
//! into [`Flags`]; together they make [`Settings`], after which nothing is checked again. Nothing here looks
//! at the disk: the caller reads the file and passes its text.
//!
//! `[[interface]]` tables are asked in the order of the file, and the first whose `name` matches speaks for an
//! interface. Flags about interfaces speak for all of them.

pub mod document;
mod effective;
mod flow_log;
pub mod glob;
mod instance;
mod interface;
mod kernel;
mod live;
mod metrics;
mod mirror;
mod options;
mod output;
mod protocol;
mod raw;
#[cfg(test)]
mod tests;
pub mod value;

pub use flow_log::{FlowTableMax, Interval, SkippedTraffic, TrafficSelection, Workers};
pub(crate) use flow_log::{whole_number, whole_number_u16};
pub use instance::InstanceFacts;
pub use interface::{InterfaceId, InterfaceSettings, Label};
pub use kernel::{KernelSettings, POLICY_REASONS};
pub use live::{CaptureBuffer, CapturePlane, Fanout, LiveFlags, LiveSettings, MetadataSource};
pub use metrics::MetricsAddress;
pub use mirror::MirrorError;
pub use options::{Flags, SummaryFormat};
pub use output::{Compression, Destination, FileFormat, Output, SegmentMax};
pub use protocol::{Ports, Protocol};
pub use raw::RawConfig;

use std::path::PathBuf;

use flowlog::metadata::ACCOUNT_ID_DEFAULT;

use crate::flow::FragmentRule;
use crate::mirror::{Decider, Mirror};
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
    pub fragments: FragmentRule,
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
    /// What only a live run asks for.
    pub live: LiveSettings,
    /// What is mirrored, and where to.
    pub mirror: Mirror,
    interfaces: Vec<RawInterface>,
    /// What flags and the head of the file say about every interface.
    all_interfaces: InterfaceSettings,
    /// What the cloud says, beneath all of that.
    instance: InstanceFacts,
}

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text has the wrong shape, or a value means nothing.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The mirror tables don't fit together.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
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
    /// Several files or folders are wanted, but the records go to one file or to standard output.
    #[error("`{option}` needs a directory to write to")]
    NeedsDirectory {
        /// The key or flag.
        option: &'static str,
    },
}

impl Settings {
    /// Lays the flags over the file over the defaults.
    ///
    /// # Errors
    /// [`ConfigError::NeedsDirectory`].
    pub fn new(file: Option<RawConfig>, flags: Flags) -> Result<Self, ConfigError> {
        let mut file = file.unwrap_or_default();
        let output = output(file.take_output(), &flags)?;
        let account_id = flags.account_id.or(file.account_id);
        let region = flags.region.or(file.region);
        let account = account_id.as_ref().map_or(ACCOUNT_ID_DEFAULT, Label::as_str).to_owned();
        let common = [
            ("account-id", Some(account)),
            ("region", region.as_ref().map(|region| region.as_str().to_owned())),
            (INTERFACE_ID, flags.interface_id.map(|id| id.0)),
        ];
        let known = common.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let all_interfaces = InterfaceSettings {
            metadata: known.collect(),
            vpc_cidrs: flags.vpc_cidr.iter().map(|cidr| cidr.0).collect(),
            subnet_cidrs: flags.subnet_cidr.iter().map(|cidr| cidr.0).collect(),
            local: flags.local.iter().map(|cidr| cidr.0).collect(),
            primary_address: None,
        };
        let live = LiveSettings {
            watch: match flags.live.watch {
                given if given.is_empty() => file.interface.iter().map(|interface| interface.name.clone()).collect(),
                given => given,
            },
            metadata: file.metadata.unwrap_or_default(),
            capture: flags.live.capture.or(file.capture).unwrap_or_default(),
            kernel: file.kernel.complete(),
            capture_buffer: flags.live.capture_buffer.or(file.capture_buffer).unwrap_or_default(),
            fanout: file.fanout.unwrap_or_default(),
            user: flags.live.user.or(file.user),
            control_socket: flags.live.control_socket.or(file.control_socket),
            state_directory: flags.live.state_directory.or(file.state_directory),
            metrics: flags.live.metrics.or(file.metrics).unwrap_or_default(),
        };
        let flow_log = file.flow_log;
        Ok(Self {
            account_id,
            region,
            format: flags.format.or(flow_log.format).unwrap_or_else(|| FORMAT_DEFAULT.to_owned()),
            interval: flags.interval.or(flow_log.interval).unwrap_or_default(),
            traffic: flags.traffic.or(flow_log.traffic).unwrap_or_default(),
            skipped_traffic: flags.skipped_traffic.or(flow_log.skipped_traffic).unwrap_or(match file.aws_parity {
                Some(true) => SkippedTraffic::OMIT,
                Some(false) | None => SkippedTraffic::LOG,
            }),
            fragments: flags.fragments.or(flow_log.fragments).unwrap_or_default(),
            workers: flags.workers.or(flow_log.workers),
            flow_table_max: flags.flow_table_max.or(flow_log.flow_table_max).unwrap_or_default(),
            output,
            filter: flags.filter.or(file.filter),
            policy: flags.policy.or(file.policy),
            live,
            quiet: flags.quiet,
            summary: flags.summary,
            mirror: file.checked_mirror,
            interfaces: file.interface,
            all_interfaces,
            instance: InstanceFacts::default(),
        })
    }

    /// What is known of the interface called `name`. Its metadata always holds `account-id` and `interface-id`, which
    /// is the name where nothing else is said, with `_` for what cannot stand in a column.
    pub fn interface(&self, name: &str) -> InterfaceSettings {
        let mut settings = self.instance.interface(name);
        if let Some(file) = self.interfaces.iter().find(|interface| interface.name.matches(name)) {
            settings.overlay(&file.settings);
        }
        settings.overlay(&self.all_interfaces);
        settings.metadata.entry(INTERFACE_ID.to_owned()).or_insert_with(|| interface::id_from_name(name));
        settings.metadata.insert(X_INTERFACE.to_owned(), interface::id_from_name(name));
        settings
    }
}

fn output(file: Option<RawOutput>, flags: &Flags) -> Result<Output, ConfigError> {
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
    let wanted = [
        ("hive-compatible-partitions", hive_compatible_partitions == Some(true)),
        ("per-hour-partition", per_hour_partition == Some(true)),
        ("segment-max", file.segment_max.is_some()),
    ];
    if let Some((option, _)) = wanted.into_iter().find(|(_, wanted)| *wanted && !is_directory) {
        return Err(ConfigError::NeedsDirectory { option });
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

/// The interface's own name, whatever its id.
const X_INTERFACE: &str = "x-interface";
/// AWS's default format.
const FORMAT_DEFAULT: &str = "v2";

/// A fuzz target: no text may make the reader of configuration files panic, what it takes becomes settings, and mirror
/// rules that it takes can be compiled for every interface.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(file) = RawConfig::parse(text)
        && let Ok(settings) = Settings::new(Some(file), Flags::default())
    {
        settings.interface("eth0");
        let patterns =
            settings.mirror.sessions().iter().map(|session| session.interface.as_str().replace(['*', '?'], "0"));
        for name in patterns.chain(["eth0".to_owned()]) {
            assert!(Decider::new(&settings.mirror, &name).is_ok(), "too many rules for {name}");
        }
    }
}
