//! What the command line says, after its texts have become values.

use std::path::PathBuf;
use std::str::FromStr;

use super::flow_log::{FlowTableMax, Interval, SkippedTraffic, TrafficSelection, Workers};
use super::interface::{InterfaceId, Label};
use super::live::LiveFlags;
use super::output::{Compression, Destination, FileFormat};
use super::value::{Cidr, SubnetCidr, ValueError, VpcCidr};
use crate::flow::FragmentRule;

/// The flags of `flowtap replay` and `flowtap run`, by their long names. What is `None` or empty was not given; the file, then the
/// default decides.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--output`: replaces the file's `[[output]]` as a whole.
    pub output: Option<Destination>,
    /// `--format`: not looked at here.
    pub format: Option<String>,
    /// `--file-format`
    pub file_format: Option<FileFormat>,
    /// `--compression`
    pub compression: Option<Compression>,
    /// `--hive-compatible-partitions`
    pub hive_compatible_partitions: Option<bool>,
    /// `--per-hour-partition`
    pub per_hour_partition: Option<bool>,
    /// `--overwrite`
    pub overwrite: bool,
    /// `--interval`
    pub interval: Option<Interval>,
    /// `--traffic`
    pub traffic: Option<TrafficSelection>,
    /// `--skipped-traffic`
    pub skipped_traffic: Option<SkippedTraffic>,
    /// `--fragments`
    pub fragments: Option<FragmentRule>,
    /// `--workers`
    pub workers: Option<Workers>,
    /// `--flow-table-max`
    pub flow_table_max: Option<FlowTableMax>,
    /// `--account-id`
    pub account_id: Option<Label>,
    /// `--region`
    pub region: Option<Label>,
    /// `--interface-id`: of every interface.
    pub interface_id: Option<InterfaceId>,
    /// `--local`: of every interface.
    pub local: Vec<Cidr>,
    /// `--vpc-cidr`: of every interface.
    pub vpc_cidr: Vec<VpcCidr>,
    /// `--subnet-cidr`: of every interface.
    pub subnet_cidr: Vec<SubnetCidr>,
    /// `--filter`: not looked at here.
    pub filter: Option<String>,
    /// `--policy`
    pub policy: Option<PathBuf>,
    /// `--quiet`
    pub quiet: bool,
    /// `--summary`
    pub summary: SummaryFormat,
    /// Those of `flowtap run` alone.
    pub live: LiveFlags,
}

/// How a replay tells what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SummaryFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl FromStr for SummaryFormat {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(ValueError::new(text, "a form of summary", "write `text` or `json`")),
        }
    }
}
