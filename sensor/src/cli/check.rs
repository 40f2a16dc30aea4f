//! `flowtap check`: whether a configuration file is right, and what it comes to.

use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(feature = "ebpf")]
use anyhow::anyhow;
use anyhow::bail;
use clap::Args;
use flowtap::config::{CapturePlane, Settings};
use flowtap::daemon::TAPS_MAX;
use flowtap::daemon::fence::{Fence, refused_calls};
use flowtap::flow::FLOW_BYTES_MAX;
#[cfg(feature = "ebpf")]
use flowtap::mirror::kernel::{MirrorSizes, check_host};
use flowtap::mirror::{Mirror, Session, memory};

use super::mirrored::HostIdentity;
use super::run::{check, packets_only, territory};
use super::{answer, complain, mirror, mirrored};

/// Check a configuration file and print what it comes to
///
/// The file is read as `run` reads it, with its policy, and mirror targets are compared with this host's addresses and
/// routes. Warnings go to standard error. What is printed is a configuration file with every default
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
    if let Some(why) = not_mirrored_by_kernel(&settings) {
        match settings.live.capture {
            CapturePlane::Ebpf => bail!("{why}"),
            CapturePlane::Auto | CapturePlane::Pcap => {
                complain(&format!("warning: {why}; as it is, a thread mirrors it instead of the kernel"));
            }
        }
    }
    let host = HostIdentity::read();
    let flows = settings.flow_table_max.flows().get() as u64;
    let buffers = 2 * u64::from(settings.live.capture_buffer.bytes());
    let by_kernel = kernel_needs(&settings)?;
    let by_packets = format!(
        "# packet plane: {} MB of capture buffers for each interface (at most {TAPS_MAX}){}; CAP_NET_RAW",
        megabytes(buffers),
        mirror_by_packets(&settings.mirror),
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
         {}\
         # memory: at most {} MB of flows\n\
         {planes}\n\
         # to become another user also CAP_SETUID and CAP_SETGID at the start\n\
         # files: {}; the run writes in {} and reads in {}\n\
         # system calls: {}; {} are refused",
        settings.effective(&host.text),
        derived_vnis(&settings.mirror, &host),
        megabytes(flows * FLOW_BYTES_MAX as u64),
        fence.files.as_str(),
        places(&territory.writable),
        places(&territory.readable),
        fence.calls.as_str(),
        refused_calls().count(),
    ));
    Ok(ExitCode::SUCCESS)
}

/// Where the VNIs come from that the file does not say, a line for each.
fn derived_vnis(mirror: &Mirror, host: &HostIdentity) -> String {
    let sessions = mirror.sessions().iter().zip(mirror.vnis(&host.text));
    let derived = sessions.filter(|(session, _)| session.vni.is_none()).map(|(Session { number, interface, .. }, vni)| {
        let (interface, from) = (interface.as_str(), host.from);
        format!(
            "# VNI {vni} of mirror session {number} is derived from {from}, this number and `{interface}`: the same after \
             every start, another in replays; write `vni` to choose it\n"
        )
    });
    derived.collect()
}

/// What mirroring needs where a thread makes the copies.
fn mirror_by_packets(mirror: &Mirror) -> String {
    if mirror.sessions().is_empty() {
        return String::new();
    }
    format!(
        ", {} MB more for each that is mirrored (at most {}), {} MB of copies that wait for targets",
        megabytes(memory::tap_bytes()),
        memory::TAPS_MAX,
        megabytes(memory::queue_bytes(mirror.targets().len()))
    )
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

/// What the kernel plane needs.
#[cfg(feature = "ebpf")]
fn kernel_needs(settings: &Settings) -> anyhow::Result<String> {
    let mirror = &settings.mirror;
    let copies_drops = mirror.drop_rule().is_some();
    let and_mirror = if mirror.targets().is_empty() {
        String::new()
    } else {
        let processors = aya::util::nr_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))?;
        let bytes = memory::map_bytes(&MirrorSizes::default(), processors as u64)?;
        format!(", at most {} MB for those of mirroring", megabytes(bytes))
    };
    let and_sockets = if copies_drops {
        format!(
            "; to send copies of what it drops {} MB of memory, and CAP_NET_RAW, which it keeps",
            megabytes(memory::queue_bytes(mirror.targets().len()))
        )
    } else {
        String::new()
    };
    Ok(format!(
        "# kernel plane: {} MB of kernel memory for maps{and_mirror}; CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, of which it \
         keeps the first two{and_sockets}",
        megabytes(settings.live.kernel.sizes(copies_drops).memory_bytes())
    ))
}

/// What the kernel plane needs.
#[cfg(not(feature = "ebpf"))]
fn kernel_needs(_settings: &Settings) -> anyhow::Result<String> {
    Ok("# kernel plane: not in this build (feature `ebpf`)".to_owned())
}

/// Why the kernel would not mirror this here, if it counts.
#[cfg(feature = "ebpf")]
fn not_mirrored_by_kernel(settings: &Settings) -> Option<String> {
    let may_count = settings.live.capture != CapturePlane::Pcap && packets_only(settings).is_none();
    let refusal = may_count.then(|| check_host(&settings.mirror).err()).flatten()?;
    Some(format!("{:#}", anyhow::Error::new(refusal)))
}

/// Why the kernel would not mirror this here, if it counts.
#[cfg(not(feature = "ebpf"))]
fn not_mirrored_by_kernel(_settings: &Settings) -> Option<String> {
    None
}
