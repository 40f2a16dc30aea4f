//! What the daemon takes while nothing happens.

use std::fs;
use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Options;
use crate::measure::now;
use crate::watchers::{Watch, Watcher};
use crate::wire::{NEAR, cable};

/// The kernel counts on a quiet interface, with the defaults of everything.
///
/// # Errors
///
/// When the kernel does not tell.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let (near, _far) = cable()?;
    let watch = near.run(|| Watch::start(Watcher::Flowtap("ebpf"), &options.flowtap, NEAR, ""))?;
    // What belongs to the start is over.
    sleep(Duration::from_secs(1));
    let (before_ns, begin) = (on_cpu_ns(watch.id())?, now());
    sleep(Duration::from_secs_f64(options.idle_secs));
    let took = begin.elapsed();
    let used_ns = on_cpu_ns(watch.id())? - before_ns;
    let resident = resident_bytes(watch.id())?;
    let told = watch.end(0)?;
    writeln!(out, "\n### Idle\n")?;
    writeln!(
        out,
        "- `flowtap run --capture ebpf` on a quiet interface takes {:.3} % of a core over {:.0} s; {:.0} MB resident, {} \
         MB of maps.",
        used_ns as f64 / took.as_nanos() as f64 * 100.0,
        took.as_secs_f64(),
        resident as f64 / 1e6,
        told.maps_megabytes,
    )?;
    Ok(())
}

/// Time that the threads of a process have been on a processor: the first column of `/proc/PID/task/TID/schedstat`, as
/// Documentation/scheduler/sched-stats.rst has it.
fn on_cpu_ns(process: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += text.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(sum)
}

fn resident_bytes(process: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let (_, rest) = text.split_once("VmRSS:").context("no VmRSS")?;
    let kilobytes = rest.trim_start().split(' ').next().context("an empty VmRSS")?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}
