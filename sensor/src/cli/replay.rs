//! `flowtap replay`: from the command line to a [`Job`], and from its [`Outcome`] to a summary and an exit code.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread;

use clap::Args;
use flowlog::format::Format;
use flowtap::capture::{CaptureError, Filter, Filtered, Input, Interfaces, Merge, Source, open};
use flowtap::config::{Destination, Flags, Settings, SummaryFormat, Workers};
use flowtap::recorder::RecorderError;
use flowtap::replay::{Job, replay};

use super::mirrored::{MirroredArgs, Mirroring, complain_if_undirected};
use super::progress::Progress;
use super::record::{self, RUNNING, RecordArgs};
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

    #[command(flatten)]
    record: RecordArgs,

    #[command(flatten)]
    mirrored: MirroredArgs,

    /// No summary and no progress bar
    #[arg(short, long, help_heading = RUNNING)]
    quiet: bool,

    /// Form of the summary: text or json [default: text]
    #[arg(long, value_name = "FORM", help_heading = RUNNING)]
    summary: Option<SummaryFormat>,
}

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
    let mirrored = args.mirrored.clone();
    let (settings, inputs) = settings(args)?;
    let format: Format = settings.format.parse()?;
    let filter = settings.filter.as_deref().map(Filter::new).transpose()?;
    let workers = settings.workers.map_or_else(one_a_processor, Workers::count);
    let recording = record::recording(&settings, &format, workers, |_| None)?;
    let interfaces = Interfaces::default();
    let (sources, mut damage) = open_all(&inputs, &interfaces);
    let opened = !sources.is_empty();
    let source: Box<dyn Source> = match filter {
        Some(filter) => Box::new(Filtered::new(joined(sources), filter)),
        None => joined(sources),
    };
    let (source, mirroring) = mirrored.wrap(&settings, &interfaces, source)?;
    let sink = match output::open(&settings, &format) {
        Ok(sink) => sink,
        Err(error) => {
            complain(&error.to_string());
            // What the system refuses is no fault of the command line; a file that is to be kept is.
            let usage_is_wrong = !error.root_cause().is::<std::io::Error>();
            return Ok(Done { complete: false, usage_is_wrong });
        }
    };

    let progress = Progress::new(&inputs, settings.quiet);
    let limits = record::limits(&settings, &format, workers, recording.rules.seed);
    let mut outcome =
        replay(Job { source, interfaces, workers, limits, recording, sink, progress: progress.callback() });
    progress.finish();
    damage.append(&mut outcome.damage);
    for error in &damage {
        complain(&error.to_string());
    }
    // Without a capture there is nothing to write, not even a file.
    let is_wanted = opened || settings.output.destination == Destination::Stdout;
    let mut finish = || if is_wanted { outcome.sink.finish() } else { Ok(()) };
    let failure = outcome.failure.or_else(|| finish().err().map(RecorderError::Sink));
    let mut done = Done { complete: damage.is_empty() && failure.is_none(), usage_is_wrong: false };
    if let Some(error) = &failure {
        complain(&error.to_string());
        done.usage_is_wrong = matches!(error, RecorderError::Policy(_));
    }
    let mirror = mirroring.map(Mirroring::finish).transpose().unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        done.complete = false;
        None
    });
    if let Some(report) = &mirror {
        complain_if_undirected(report);
    }
    let summary = Summary {
        frames: &outcome.frames,
        rows: &outcome.rows,
        files: &outcome.sink.drain_published(),
        output_failed: failure.is_some(),
        damage: &damage,
        has_policy: settings.policy.is_some(),
        mirror: mirror.as_ref(),
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
    let inputs: Vec<_> = args.captures.iter().map(|argument| Input::from_argument(argument)).collect();
    if inputs.iter().filter(|input| **input == Input::Stdin).count() > 1 {
        anyhow::bail!("standard input can be read only once");
    }
    let file = args.record.read_config()?;
    let flags = Flags { quiet: args.quiet, summary: args.summary.unwrap_or_default(), ..args.record.into_flags() };
    Ok((Settings::new(file, flags)?, inputs))
}

/// Opens what can be opened.
fn open_all(inputs: &[Input], interfaces: &Interfaces) -> (Vec<Box<dyn Source>>, Vec<CaptureError>) {
    let mut sources = Vec::new();
    let mut damage = Vec::new();
    for input in inputs {
        match open(input, interfaces, None) {
            Ok(source) => sources.push(source),
            Err(error) => damage.push(error),
        }
    }
    (sources, damage)
}

/// Several captures as one, in the order of time.
fn joined(mut sources: Vec<Box<dyn Source>>) -> Box<dyn Source> {
    match sources.pop() {
        Some(only) if sources.is_empty() => only,
        last => {
            sources.extend(last);
            Box::new(Merge::new(sources))
        }
    }
}

fn one_a_processor() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
