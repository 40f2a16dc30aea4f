//! `flowtap check`: whether a configuration file is right, and what it comes to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use flowtap::daemon::TAPS_MAX;
use flowtap::daemon::fence::{Fence, refused_calls};
use flowtap::flow::FLOW_BYTES_MAX;

use super::answer;
use super::run::{check, territory};

/// Check a configuration file and print what it comes to
///
/// The file is read as `run` reads it, with its policy. What is printed is a configuration file with every default
/// written out, and what the run will need.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Checks a configuration file.
///
/// # Errors
/// The first thing that is wrong with it.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let settings = check(&args.file)?;
    let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
    let flows = settings.flow_table_max.flows().get() as u64;
    let buffers = 2 * u64::from(settings.live.capture_buffer.bytes());
    let territory = territory(Some(&args.file), &settings);
    let fence = Fence::probe(&territory)?;
    let places = |paths: &[PathBuf]| match paths {
        [] => "nowhere".to_owned(),
        _ => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
    };
    answer(&format!(
        "{}\n\
         # memory: at most {} MB of flows, and {} MB of capture buffers for each interface (at most {TAPS_MAX})\n\
         # capabilities: CAP_NET_RAW; to become another user also CAP_SETUID and CAP_SETGID at the start\n\
         # files: {}; the run writes in {} and reads in {}\n\
         # system calls: {}; {} are refused",
        settings.effective(),
        megabytes(flows * FLOW_BYTES_MAX as u64),
        megabytes(buffers),
        fence.files.as_str(),
        places(&territory.writable),
        places(&territory.readable),
        fence.calls.as_str(),
        refused_calls().count(),
    ));
    Ok(ExitCode::SUCCESS)
}
