//! `flowtap check`: whether a configuration file is right, and what it comes to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use flowtap::daemon::TAPS_MAX;
use flowtap::flow::FLOW_BYTES_MAX;

use super::run::check;
use super::{answer, complain, mirror};

/// Check a configuration file and print what it comes to
///
/// The file is read as `run` reads it, with its policy, and mirror targets are compared with this host's addresses.
/// Warnings go to standard error. What is printed is a configuration file with every default
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
    settings.mirror.check_host(&mirror::host_addresses()?)?;
    for warning in settings.mirror.warnings(&settings.live.watch) {
        complain(&format!("warning: {warning}"));
    }
    let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
    let flows = settings.flow_table_max.flows().get() as u64;
    let buffers = 2 * u64::from(settings.live.capture_buffer.bytes());
    answer(&format!(
        "{}\n\
         # memory: at most {} MB of flows, and {} MB of capture buffers for each interface (at most {TAPS_MAX})\n\
         # capabilities: CAP_NET_RAW; to become another user also CAP_SETUID and CAP_SETGID at the start",
        settings.effective(),
        megabytes(flows * FLOW_BYTES_MAX as u64),
        megabytes(buffers),
    ));
    Ok(ExitCode::SUCCESS)
}
