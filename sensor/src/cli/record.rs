//! What every command that makes records shares: its options, and what they mean for the recorder.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use flowlog::field::Field;
use flowlog::format::Format;
use flowlog::metadata::Metadata;
use flowtap::capture::Interface;
use flowtap::classify::{Classifier, LocalNetworks};
use flowtap::config::document::DOCUMENT_BYTES_MAX;
use flowtap::config::value::{Cidr, SubnetCidr, VpcCidr};
use flowtap::config::{
    Compression, Destination, FileFormat, Flags, FlowTableMax, InterfaceId, Interval, Label, RawConfig, Settings,
    SkippedTraffic, TrafficSelection, Workers,
};
use flowtap::flow::FragmentRule;
use flowtap::policy::Policy;
use flowtap::recorder::{InterfaceFacts, Recording, Rules};
use flowtap::worker::Limits;

/// Options about records, for every command that makes them.
#[derive(Debug, Clone, Args)]
pub(super) struct RecordArgs {
    /// Where records go: `-`, a file, or a directory (with a final `/`) arranged as AWS arranges a bucket
    #[arg(short, long, value_name = "PLACE", help_heading = OUTPUT)]
    output: Option<Destination>,

    /// Fields: v2 to v11, all, full, or a template like '${srcaddr} ${dstaddr} ${bytes}' [default: v2]
    #[arg(short, long, value_name = "FORMAT", help_heading = OUTPUT)]
    format: Option<String>,

    /// text, parquet or json [default: what the output's name says, else text]
    #[arg(long, value_name = "FORM", help_heading = OUTPUT)]
    file_format: Option<FileFormat>,

    /// none, gzip or zstd [default: what the output's name says; gzip in directories and in Parquet]
    #[arg(long, value_name = "CODEC", help_heading = OUTPUT)]
    compression: Option<Compression>,

    /// Folders called year=2026, for a directory
    #[arg(long, help_heading = OUTPUT)]
    hive_compatible_partitions: bool,

    /// A folder for each hour, for a directory
    #[arg(long, help_heading = OUTPUT)]
    per_hour_partition: bool,

    /// Replace an output file that exists
    #[arg(long, help_heading = OUTPUT)]
    overwrite: bool,

    /// Aggregation interval, 1s to 600s [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = FLOWS)]
    interval: Option<Interval>,

    /// Count only frames that this libpcap expression selects
    #[arg(long, value_name = "EXPR", help_heading = FLOWS)]
    filter: Option<String>,

    /// Addresses on the interface's own side; tells ingress from egress (repeatable)
    #[arg(long, value_name = "CIDR", help_heading = FLOWS)]
    local: Vec<Cidr>,

    /// join: later fragments belong to their first one's flow; apart: they have ports 0 [default: join]
    #[arg(long, value_name = "RULE", help_heading = FLOWS)]
    fragments: Option<FragmentRule>,

    /// Write rows with this action: all, accept or reject [default: all]
    #[arg(long, value_name = "ACTION", help_heading = FLOWS)]
    traffic: Option<TrafficSelection>,

    /// The traffic that AWS leaves out: log, omit, or by class as in dns=omit,dhcp=omit [default: log]
    #[arg(long, value_name = "WHAT", help_heading = FLOWS)]
    skipped_traffic: Option<SkippedTraffic>,

    /// Security groups and network ACLs that decide ACCEPT and REJECT
    #[arg(long, value_name = "FILE", help_heading = FLOWS)]
    policy: Option<PathBuf>,

    /// Configuration file; flags win over it
    #[arg(long, value_name = "FILE", help_heading = IDENTITY)]
    config: Option<PathBuf>,

    /// `interface-id` of every interface [default: its name, or the capture file's]
    #[arg(long, value_name = "ID", help_heading = IDENTITY)]
    interface_id: Option<InterfaceId>,

    /// `account-id` [default: unknown]
    #[arg(long, value_name = "ID", help_heading = IDENTITY)]
    account_id: Option<Label>,

    /// `region`
    #[arg(long, value_name = "NAME", help_heading = IDENTITY)]
    region: Option<Label>,

    /// Primary IPv4 block of the VPC; its base + 2 is the resolver (repeatable)
    #[arg(long, value_name = "CIDR", help_heading = IDENTITY)]
    vpc_cidr: Vec<VpcCidr>,

    /// Block of the subnet; its base + 1 is the router (repeatable)
    #[arg(long, value_name = "CIDR", help_heading = IDENTITY)]
    subnet_cidr: Vec<SubnetCidr>,

    /// Threads that count [default: one for each processor; `run`: at most 8]
    #[arg(long, value_name = "N", help_heading = RUNNING)]
    workers: Option<Workers>,

    /// Flows held at once, over all workers; beyond it rows are handed out early [default: 4194304]
    #[arg(long, value_name = "N", help_heading = RUNNING)]
    flow_table_max: Option<FlowTableMax>,
}

pub(super) const OUTPUT: &str = "Output";
pub(super) const FLOWS: &str = "Flows";
pub(super) const IDENTITY: &str = "Identity";
pub(super) const RUNNING: &str = "Running";

impl RecordArgs {
    /// The configuration file, if one is named.
    ///
    /// # Errors
    /// When it can't be read or is wrong.
    pub(super) fn read_config(&self) -> anyhow::Result<Option<RawConfig>> {
        self.config.as_deref().map(read_config).transpose()
    }

    /// Where the configuration file is, if one is named.
    pub(super) fn config_path(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// What was typed.
    pub(super) fn into_flags(self) -> Flags {
        Flags {
            output: self.output.map(|place| place.resolve(Path::is_dir)),
            format: self.format,
            file_format: self.file_format,
            compression: self.compression,
            hive_compatible_partitions: self.hive_compatible_partitions.then_some(true),
            per_hour_partition: self.per_hour_partition.then_some(true),
            overwrite: self.overwrite,
            interval: self.interval,
            filter: self.filter,
            local: self.local,
            fragments: self.fragments,
            traffic: self.traffic,
            skipped_traffic: self.skipped_traffic,
            policy: self.policy,
            interface_id: self.interface_id,
            account_id: self.account_id,
            region: self.region,
            vpc_cidr: self.vpc_cidr,
            subnet_cidr: self.subnet_cidr,
            workers: self.workers,
            flow_table_max: self.flow_table_max,
            ..Flags::default()
        }
    }
}

/// Reads a configuration file.
///
/// # Errors
/// When it can't be read or is wrong, with its name.
pub(super) fn read_config(path: &Path) -> anyhow::Result<RawConfig> {
    RawConfig::parse(&read_text(path)?).with_context(|| path.display().to_string())
}

/// How flows become records, on so many threads. `primary_address` says what an interface has for one if the
/// configuration does not.
///
/// # Errors
/// When the policy can't be read or is wrong, or a value of the configuration can't stand in a record.
pub(super) fn recording(
    settings: &Settings,
    format: &Format,
    threads: NonZeroUsize,
    primary_address: fn(&str) -> Option<Ipv4Addr>,
) -> anyhow::Result<Recording> {
    let policy = settings.policy.as_deref().map(read_policy).transpose()?;
    metadata(settings, "any")?;
    let settings_of = settings.clone();
    Ok(Recording {
        rules: Rules {
            skipped_traffic: settings.skipped_traffic,
            traffic: settings.traffic,
            interval_secs: settings.interval.secs(),
            threads,
            with_community_id: format.contains(Field::XCommunityId),
            seed: RandomState::new().hash_one(0),
        },
        policy,
        describe: Box::new(move |interface| describe(&settings_of, interface, primary_address)),
    })
}

/// How each of so many workers counts.
pub(super) fn limits(settings: &Settings, format: &Format, workers: NonZeroUsize, seed: u64) -> Limits {
    Limits {
        flows_max: settings.flow_table_max.flows().get().div_ceil(workers.get()),
        fragments: settings.fragments,
        keep_detail: DETAIL_FIELDS.iter().any(|field| format.contains(*field)),
        seed,
    }
}

fn read_policy(path: &Path) -> anyhow::Result<Policy> {
    Policy::parse(&read_text(path)?).with_context(|| path.display().to_string())
}

/// A text that people write. One byte more than the bound is enough for the parser to refuse what is larger.
fn read_text(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_string(&mut text));
    read.with_context(|| path.display().to_string())?;
    Ok(text)
}

/// Fields that need more of a packet than its flow key and its counts.
const DETAIL_FIELDS: [Field; 6] =
    [Field::XCommunityId, Field::XIcmpType, Field::XIcmpCode, Field::XVlan, Field::XEtherSrc, Field::XEtherDst];

fn describe(
    settings: &Settings,
    interface: &Interface,
    primary_address: fn(&str) -> Option<Ipv4Addr>,
) -> InterfaceFacts {
    let known = settings.interface(&interface.name);
    let primary = || known.primary_address.or_else(|| primary_address(&interface.name));
    InterfaceFacts {
        // The reader of the configuration has checked every value by the rules of records.
        metadata: Arc::new(metadata(settings, &interface.name).unwrap_or_default()),
        classifier: Classifier::new(&known.vpc_cidrs, &known.subnet_cidrs),
        local: LocalNetworks::new(&known.local),
        stand_in: settings.mirror.aws_parity().then(primary).flatten(),
    }
}

/// What the records of an interface repeat.
fn metadata(settings: &Settings, interface: &str) -> anyhow::Result<Metadata> {
    let mut metadata = Metadata::default();
    for (key, value) in settings.interface(interface).metadata {
        let field = Field::from_name(&key).with_context(|| format!("`{key}` is no field"))?;
        metadata.set(field, value)?;
    }
    Ok(metadata)
}
