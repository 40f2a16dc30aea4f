//! The configuration file as people write it: every key may be missing, every value that is there is sound.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::ConfigError;
use super::document;
use super::flow_log::{FlowTableMax, Interval, SkippedTraffic, TrafficSelection, Workers};
use super::interface::{Label, RawInterface};
use super::kernel::RawKernel;
use super::live::{CaptureBuffer, CapturePlane, Fanout, MetadataSource};
use super::metrics::MetricsAddress;
use super::mirror::{self, RawMirror};
use super::output::{Compression, Destination, FileFormat, SegmentMax};
use crate::flow::FragmentRule;
use crate::mirror::Mirror;

/// A configuration file that was read, and not yet completed by flags and defaults.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RawConfig {
    pub(super) account_id: Option<Label>,
    pub(super) region: Option<Label>,
    pub(super) aws_parity: Option<bool>,
    pub(super) filter: Option<String>,
    pub(super) policy: Option<PathBuf>,
    pub(super) metadata: Option<MetadataSource>,
    pub(super) capture: Option<CapturePlane>,
    pub(super) capture_buffer: Option<CaptureBuffer>,
    pub(super) fanout: Option<Fanout>,
    pub(super) user: Option<String>,
    pub(super) control_socket: Option<PathBuf>,
    pub(super) state_directory: Option<PathBuf>,
    pub(super) metrics: Option<MetricsAddress>,
    #[serde(default)]
    pub(super) interface: Vec<RawInterface>,
    #[serde(default)]
    pub(super) kernel: RawKernel,
    #[serde(default)]
    pub(super) flow_log: RawFlowLog,
    #[serde(default)]
    output: Vec<Spanned<RawOutput>>,
    #[serde(default)]
    mirror: RawMirror,
    /// What `mirror` comes to, once it is checked.
    #[serde(skip)]
    pub(super) checked_mirror: Mirror,
}

/// The `[flow-log]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawFlowLog {
    pub(super) format: Option<String>,
    pub(super) interval: Option<Interval>,
    pub(super) traffic: Option<TrafficSelection>,
    pub(super) skipped_traffic: Option<SkippedTraffic>,
    pub(super) fragments: Option<FragmentRule>,
    pub(super) workers: Option<Workers>,
    pub(super) flow_table_max: Option<FlowTableMax>,
}

/// The `[[output]]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawOutput {
    directory: Option<PathBuf>,
    file: Option<PathBuf>,
    pub(super) file_format: Option<FileFormat>,
    pub(super) compression: Option<Compression>,
    pub(super) segment_max: Option<SegmentMax>,
    pub(super) hive_compatible_partitions: Option<bool>,
    pub(super) per_hour_partition: Option<bool>,
}

impl RawConfig {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// The first thing that is wrong with the text, with its line.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut raw: Self = document::read(text)?;
        let line_of = |output: &Spanned<RawOutput>| document::line_of(text, output.span().start);
        if let Some(second) = raw.output.get(1) {
            return Err(ConfigError::SeveralOutputs { line: line_of(second) });
        }
        let torn =
            raw.output.iter().find(|output| output.as_ref().directory.is_some() && output.as_ref().file.is_some());
        if let Some(torn) = torn {
            return Err(ConfigError::DirectoryAndFile { line: line_of(torn) });
        }
        let tables = std::mem::take(&mut raw.mirror);
        raw.checked_mirror = mirror::check(text, tables, raw.aws_parity.unwrap_or_default())?;
        Ok(raw)
    }

    pub(super) fn take_output(&mut self) -> Option<RawOutput> {
        self.output.pop().map(Spanned::into_inner)
    }
}

impl RawOutput {
    /// Standard output where no place is named.
    pub(super) fn destination(&self) -> Destination {
        let directory = self.directory.clone().map(Destination::Directory);
        directory.or_else(|| self.file.clone().map(Destination::File)).unwrap_or_default()
    }
}
