//! The report: one Markdown table for each capture, as it stands in `README.md`.

use std::io::Write;
use std::time::Duration;

use crate::captures::Kind;
use crate::floor::Walker;
use crate::measure::Run;
use crate::rounds::{Capture, Program};

/// The runs of one program over one capture; at least one where it is reported.
pub(crate) struct Series {
    /// What was run.
    pub(crate) program: Program,
    /// What it read.
    pub(crate) capture: Capture,
    /// Every verified run.
    pub(crate) runs: Vec<Run>,
}

/// Writes a table for each capture. What was measured on fewer packets is scaled to `packets`.
///
/// # Errors
///
/// When `out` can't be written.
pub(crate) fn write(series: &[Series], packets: u64, out: &mut impl Write) -> anyhow::Result<()> {
    for kind in Kind::ALL {
        let of_kind: Vec<&Series> = series.iter().filter(|series| series.capture.kind == kind).collect();
        let Some(first) = of_kind.first() else { continue };
        let floor = of_kind.iter().find(|series| series.program == Program::Floor(Walker::Text));
        writeln!(out, "\n### {}: {packets} packets, {} rows\n", kind.name(), first.capture.totals.rows)?;
        writeln!(out, "| program | CPU s, median | least | Mpps | ratio to `text` | peak MB | runs |")?;
        writeln!(out, "|---|---:|---:|---:|---:|---:|---:|")?;
        for series in &of_kind {
            let secs = series.median_cpu_secs_per_packet();
            let ratio = floor.map_or(f64::NAN, |floor| secs / floor.median_cpu_secs_per_packet());
            writeln!(
                out,
                "| {}{} | {:.2} | {:.2} | {:.2} | {ratio:.2} | {:.0} | {} |",
                series.program,
                if series.capture.totals.packets == packets { "" } else { " (scaled)" },
                secs * packets as f64,
                series.least_cpu_secs_per_packet() * packets as f64,
                1e-6 / secs,
                series.peak_megabytes(),
                series.runs.len(),
            )?;
        }
    }
    Ok(())
}

/// Writes how much faster two workers are than one by the clock, beside `loop_gain`, the most that this machine gives.
///
/// # Errors
///
/// When `out` can't be written.
pub(crate) fn write_gain(series: &[Series], loop_gain: f64, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "\nThroughput of two workers over one: ")?;
    for kind in Kind::ALL {
        let least_wall = |wanted: u32| {
            let of_kind = series.iter().filter(|series| series.capture.kind == kind);
            let mut ours =
                of_kind.filter(|series| matches!(series.program, Program::Ours { workers, .. } if workers == wanted));
            ours.next()?.runs.iter().map(|run| run.wall).min()
        };
        if let (Some(one), Some(two)) = (least_wall(1), least_wall(2)) {
            writeln!(out, "- {}: {:.2}", kind.name(), one.as_secs_f64() / two.as_secs_f64())?;
        }
    }
    writeln!(out, "- a loop that needs only the processor: {loop_gain:.2}")?;
    Ok(())
}

impl Series {
    fn median_cpu_secs_per_packet(&self) -> f64 {
        let mut all: Vec<Duration> = self.runs.iter().map(|run| run.cpu).collect();
        all.sort_unstable();
        let median = (all[(all.len() - 1) / 2] + all[all.len() / 2]) / 2;
        self.per_packet(median)
    }

    fn least_cpu_secs_per_packet(&self) -> f64 {
        self.per_packet(self.runs.iter().map(|run| run.cpu).min().unwrap_or_default())
    }

    fn per_packet(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() / self.capture.totals.packets as f64
    }

    /// Of a run on fewer packets this is the peak on fewer packets.
    fn peak_megabytes(&self) -> f64 {
        self.runs.iter().map(|run| run.peak_bytes).max().unwrap_or_default() as f64 / 1e6
    }
}
