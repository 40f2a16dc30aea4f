//! `flowtap replay`: from the command line to a [`Job`], and from its [`Outcome`] to a summary and an exit code.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread;

use clap::Args;
use flowlog::format::Format;
use flowtap::capture::{CaptureError, Filter, Filtered, Input, Interfaces, Merge, Source, open};
use flowtap::config::{Flags, Settings, SummaryFormat, Workers};
use flowtap::recorder::RecorderError;
use flowtap::replay::{Job, replay};

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
    let (settings, inputs) = settings(args)?;
    let format: Format = settings.format.parse()?;
    let filter = settings.filter.as_deref().map(Filter::new).transpose()?;
    let workers = settings.workers.map_or_else(one_a_processor, Workers::count);
    let recording = record::recording(&settings, &format, workers)?;
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
    let limits = record::limits(&settings, &format, workers, recording.rules.seed);
    let mut outcome =
        replay(Job { source, interfaces, workers, limits, recording, sink, progress: progress.callback() });
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
    let inputs: Vec<_> = args.captures.iter().map(|argument| Input::from_argument(argument)).collect();
    if inputs.iter().filter(|input| **input == Input::Stdin).count() > 1 {
        anyhow::bail!("standard input can be read only once");
    }
    let file = args.record.read_config()?;
    let flags = Flags { quiet: args.quiet, summary: args.summary.unwrap_or_default(), ..args.record.into_flags() };
    Ok((Settings::new(file, flags)?, inputs))
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

fn one_a_processor() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
