//! `flowtap replay`: from the command line to a [`Job`], and from its [`Outcome`] to a summary and an exit code.

use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use clap::Args;
use flowlog::field::Field;
use flowlog::format::Format;
use flowlog::metadata::Metadata;
use flowtap::capture::{CaptureError, Filter, Filtered, Input, Interface, Interfaces, Merge, Source, open};
use flowtap::classify::{Classifier, LocalNetworks};
use flowtap::config::value::{Cidr, SubnetCidr, VpcCidr};
use flowtap::config::{
    Compression, Destination, FileFormat, FlowTableMax, Fragments, InterfaceId, Interval, Label, RawConfig,
    ReplayOptions, Settings, SkippedTraffic, SummaryFormat, TrafficSelection, Workers,
};
use flowtap::flow::FragmentRule;
use flowtap::policy::Policy;
use flowtap::recorder::{InterfaceFacts, RecorderError, Rules};
use flowtap::replay::{Job, replay};
use flowtap::worker::Limits;

use super::progress::Progress;
use super::summary::Summary;
use super::{INCOMPLETE, USAGE, clock, complain, output};

/// Turn capture files into flow log records.
///
/// Reads pcap and pcapng, plain or compressed with gzip or zstd, and writes one record for each flow, direction and
/// interval. Records go to standard output unless --output says otherwise; errors, progress and the summary go to
/// standard error. Exit code 1 means that an input could not be read whole or the output could not be written; 2 that
/// the command line, the configuration or the policy is wrong.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Capture files; `-` is standard input
    #[arg(required = true, value_name = "CAPTURE")]
    captures: Vec<OsString>,

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
    fragments: Option<Fragments>,

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

    /// `interface-id` of every interface [default: its name in the capture, else the file's]
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

    /// Threads that count [default: one for each processor]
    #[arg(long, value_name = "N", help_heading = RUNNING)]
    workers: Option<Workers>,

    /// Flows held at once, over all workers; beyond it rows are handed out early [default: 4194304]
    #[arg(long, value_name = "N", help_heading = RUNNING)]
    flow_table_max: Option<FlowTableMax>,

    /// No summary and no progress bar
    #[arg(short, long, help_heading = RUNNING)]
    quiet: bool,

    /// Form of the summary: text or json [default: text]
    #[arg(long, value_name = "FORM", help_heading = RUNNING)]
    summary: Option<SummaryFormat>,
}

const OUTPUT: &str = "Output";
const FLOWS: &str = "Flows";
const IDENTITY: &str = "Identity";
const RUNNING: &str = "Running";

/// A replay that was done, well or not.
pub(super) struct Done {
    complete: bool,
    usage_is_wrong: bool,
}

impl Done {
    /// What the shell is told.
    pub(super) fn exit_code(&self) -> ExitCode {
        match (self.usage_is_wrong, self.complete) {
            (true, _) => ExitCode::from(USAGE),
            (false, false) => ExitCode::from(INCOMPLETE),
            (false, true) => ExitCode::SUCCESS,
        }
    }
}

/// Replays captures.
///
/// # Errors
/// When the command line, the configuration or the policy is wrong: nothing was read or written then.
pub(super) fn run(args: ReplayArgs) -> anyhow::Result<Done> {
    let started = clock::now();
    let (settings, inputs) = settings(args)?;
    let format: Format = settings.format.parse()?;
    let filter = settings.filter.as_deref().map(Filter::new).transpose()?;
    let policy = settings.policy.as_deref().map(read_policy).transpose()?;
    metadata(&settings, "any")?;
    let sink = match output::open(&settings, &format) {
        Ok(sink) => sink,
        Err(error) => {
            complain(&error.to_string());
            // What the system refuses is no fault of the command line; a file that is to be kept is.
            let usage_is_wrong = !error.root_cause().is::<std::io::Error>();
            return Ok(Done { complete: false, usage_is_wrong });
        }
    };

    let interfaces = Interfaces::default();
    let (source, mut damage) = open_all(&inputs, &interfaces);
    let source: Box<dyn Source> = match filter {
        Some(filter) => Box::new(Filtered::new(source, filter)),
        None => source,
    };
    let progress = Progress::new(&inputs, settings.quiet);
    let mut outcome = replay(job(&settings, &format, policy, sink, source, interfaces, progress.callback()));
    progress.finish();
    damage.append(&mut outcome.damage);
    for error in &damage {
        complain(&error.to_string());
    }
    let failure = outcome.failure.or_else(|| outcome.sink.finish().err().map(RecorderError::Sink));
    let mut done = Done { complete: damage.is_empty() && failure.is_none(), usage_is_wrong: false };
    if let Some(error) = &failure {
        complain(&error.to_string());
        done.usage_is_wrong = matches!(error, RecorderError::Policy(_));
    }
    let summary = Summary {
        frames: &outcome.frames,
        rows: &outcome.rows,
        files: &outcome.sink.drain_published(),
        output_failed: failure.is_some(),
        damage: &damage,
        elapsed: clock::now().duration_since(started),
    };
    if failure.is_none() && !summary.balances() {
        complain("the ledger does not balance: this is a fault in flowtap, please report it with the summary");
        done.complete = false;
    }
    if !settings.quiet {
        summary.print(settings.summary);
    }
    Ok(done)
}

/// Everything typed or written in files, checked.
fn settings(args: ReplayArgs) -> anyhow::Result<(Settings, Vec<Input>)> {
    let file = match &args.config {
        Some(path) => {
            let text = read_text(path)?;
            Some(RawConfig::parse(&text).with_context(|| path.display().to_string())?)
        }
        None => None,
    };
    let inputs: Vec<_> = args.captures.iter().map(|argument| Input::from_argument(argument)).collect();
    if inputs.iter().filter(|input| **input == Input::Stdin).count() > 1 {
        anyhow::bail!("standard input can be read only once");
    }
    let options = ReplayOptions {
        output: args.output.map(|place| place.resolve(Path::is_dir)),
        format: args.format,
        file_format: args.file_format,
        compression: args.compression,
        hive_compatible_partitions: args.hive_compatible_partitions.then_some(true),
        per_hour_partition: args.per_hour_partition.then_some(true),
        overwrite: args.overwrite,
        interval: args.interval,
        traffic: args.traffic,
        skipped_traffic: args.skipped_traffic,
        fragments: args.fragments,
        workers: args.workers,
        flow_table_max: args.flow_table_max,
        account_id: args.account_id,
        region: args.region,
        interface_id: args.interface_id,
        local: args.local,
        vpc_cidr: args.vpc_cidr,
        subnet_cidr: args.subnet_cidr,
        filter: args.filter,
        policy: args.policy,
        quiet: args.quiet,
        summary: args.summary.unwrap_or_default(),
    };
    Ok((Settings::new(file, options)?, inputs))
}

fn read_policy(path: &Path) -> anyhow::Result<Policy> {
    Policy::parse(&read_text(path)?).with_context(|| path.display().to_string())
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Opens what can be opened; several captures become one, in the order of time.
fn open_all(inputs: &[Input], interfaces: &Interfaces) -> (Box<dyn Source>, Vec<CaptureError>) {
    let mut sources = Vec::new();
    let mut damage = Vec::new();
    for input in inputs {
        match open(input, interfaces, None) {
            Ok(source) => sources.push(source),
            Err(error) => damage.push(error),
        }
    }
    let source = match sources.pop() {
        Some(only) if sources.is_empty() => only,
        last => {
            sources.extend(last);
            Box::new(Merge::new(sources))
        }
    };
    (source, damage)
}

fn job(
    settings: &Settings,
    format: &Format,
    policy: Option<Policy>,
    sink: Box<dyn flowlog::sink::Sink>,
    source: Box<dyn Source>,
    interfaces: Interfaces,
    progress: Box<dyn FnMut(u64) + Send>,
) -> Job {
    let one_a_processor = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let workers = settings.workers.map_or_else(one_a_processor, Workers::count);
    let seed = RandomState::new().hash_one(0);
    let settings_of = settings.clone();
    Job {
        source,
        interfaces,
        workers,
        limits: Limits {
            flows_max: settings.flow_table_max.flows().get().div_ceil(workers.get()),
            fragments: match settings.fragments {
                Fragments::Join => FragmentRule::Join,
                Fragments::Apart => FragmentRule::Apart,
            },
            keep_detail: DETAIL_FIELDS.iter().any(|field| format.contains(*field)),
            seed,
        },
        rules: Rules {
            interval_secs: settings.interval.secs(),
            skipped_traffic: settings.skipped_traffic,
            traffic: settings.traffic,
            threads: workers,
            with_community_id: format.contains(Field::XCommunityId),
            seed,
        },
        policy,
        describe: Box::new(move |interface| describe(&settings_of, interface)),
        sink,
        progress,
    }
}

/// Fields that need more of a packet than its flow key and its counts.
const DETAIL_FIELDS: [Field; 6] =
    [Field::XCommunityId, Field::XIcmpType, Field::XIcmpCode, Field::XVlan, Field::XEtherSrc, Field::XEtherDst];

fn describe(settings: &Settings, interface: &Interface) -> InterfaceFacts {
    let known = settings.interface(&interface.name);
    InterfaceFacts {
        // Every configured value was tried before the capture was opened.
        metadata: Arc::new(metadata(settings, &interface.name).unwrap_or_default()),
        classifier: Classifier::new(&known.vpc_cidrs, &known.subnet_cidrs),
        local: LocalNetworks::new(&known.local),
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
