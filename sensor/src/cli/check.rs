//! `flowtap check`: whether a configuration file is right, and what it comes to.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use flowtap::config::{CapturePlane, Settings};
use flowtap::daemon::TAPS_MAX;
use flowtap::daemon::fence::{Fence, refused_calls};
use flowtap::flow::FLOW_BYTES_MAX;

use super::run::{check, packets_only, territory};
use super::{answer, complain, mirror, mirrored};

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
    mirrored::check_plane(&settings)?;
    for warning in settings.mirror.warnings(&settings.live.watch) {
        complain(&format!("warning: {warning}"));
    }
    if let (Some(rule), Some(why)) = (settings.mirror.drop_rule(), packets_only(&settings)) {
        complain(&format!("warning: {rule}, which takes nothing without the kernel plane: {why}"));
    }
    let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
    let flows = settings.flow_table_max.flows().get() as u64;
    let buffers = 2 * u64::from(settings.live.capture_buffer.bytes());
    let by_kernel = kernel_needs(&settings);
    let by_packets = format!(
        "# packet plane: {} MB of capture buffers for each interface (at most {TAPS_MAX}); CAP_NET_RAW",
        megabytes(buffers)
    );
    let planes = match (settings.live.capture, packets_only(&settings)) {
        (CapturePlane::Ebpf, Some(why)) => bail!("capture = \"ebpf\": {why}: that the kernel plane can't do"),
        (CapturePlane::Ebpf, None) => by_kernel,
        (CapturePlane::Auto, None) => {
            format!("{by_kernel}\n# where that can't be had, the {}", by_packets.trim_start_matches("# "))
        }
        (CapturePlane::Auto, Some(why)) => format!("{by_packets}\n# not the kernel plane: {why}"),
        (CapturePlane::Pcap, _) => by_packets,
    };
    let territory = territory(Some(&args.file), &settings);
    let fence = Fence::probe(&territory)?;
    let places = |paths: &[PathBuf]| match paths {
        [] => "nowhere".to_owned(),
        _ => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
    };
    answer(&format!(
        "{}\n\
         # memory: at most {} MB of flows\n\
         {planes}\n\
         # to become another user also CAP_SETUID and CAP_SETGID at the start\n\
         # files: {}; the run writes in {} and reads in {}\n\
         # system calls: {}; {} are refused",
        settings.effective(),
        megabytes(flows * FLOW_BYTES_MAX as u64),
        fence.files.as_str(),
        places(&territory.writable),
        places(&territory.readable),
        fence.calls.as_str(),
        refused_calls().count(),
    ));
    Ok(ExitCode::SUCCESS)
}

/// What the kernel plane needs.
#[cfg(feature = "ebpf")]
fn kernel_needs(settings: &Settings) -> String {
    let copies_drops = settings.mirror.drop_rule().is_some();
    let and_sockets = if copies_drops { "; to send copies of what it drops CAP_NET_RAW, which it keeps" } else { "" };
    format!(
        "# kernel plane: {} MB of kernel memory for maps; CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, of which it keeps the \
         first two{and_sockets}",
        settings.live.kernel.sizes(copies_drops).memory_bytes().div_ceil(1_000_000)
    )
}

/// What the kernel plane needs.
#[cfg(not(feature = "ebpf"))]
fn kernel_needs(_settings: &Settings) -> String {
    "# kernel plane: not in this build (feature `ebpf`)".to_owned()
}
