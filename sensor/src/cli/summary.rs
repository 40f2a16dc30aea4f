//! The end of a replay: what became of every frame, for people or for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::time::Duration;

use flowlog::record::{Action, TrafficClass};
use flowlog::segment::Published;
use flowtap::capture::CaptureError;
use flowtap::config::SummaryFormat;
use flowtap::ledger::{FrameCounts, Omission, RowCounts, Tally};
use flowtap::mirror::report::Report;
use flowtap::packet::Refusal;
use serde_json::{Value, json};

/// Everything there is to say about a replay.
pub(super) struct Summary<'a> {
    pub(super) frames: &'a FrameCounts,
    pub(super) rows: &'a RowCounts,
    /// The files that were published.
    pub(super) files: &'a [Published],
    /// Whether the output took no more records, so that rows are missing.
    pub(super) output_failed: bool,
    pub(super) damage: &'a [CaptureError],
    /// Whether a policy judged the flows.
    pub(super) has_policy: bool,
    /// What became of mirrored packets, if any were to be mirrored.
    pub(super) mirror: Option<&'a Report>,
    pub(super) elapsed: Duration,
}

impl Summary<'_> {
    /// Whether every frame and every packet is accounted for. An output that failed took rows with it.
    pub(super) fn balances(&self) -> bool {
        !self.output_failed
            && self.frames.balances()
            && self.rows.balances(self.frames)
            && self.mirror.is_none_or(Report::balances)
    }

    /// Writes the summary to standard error. Nothing can be done if that is closed.
    pub(super) fn print(&self, format: SummaryFormat) {
        let text = match format {
            SummaryFormat::Text => self.to_string(),
            SummaryFormat::Json => format!("{}\n", self.to_json()),
        };
        std::io::stderr().write_all(text.as_bytes()).ok();
    }

    fn packets_per_sec(&self) -> f64 {
        self.frames.offered as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn to_json(&self) -> Value {
        let (frames, rows) = (self.frames, self.rows);
        let (not_ip, refused) = by_nature(&frames.refused);
        json!({
            "frames": {
                "offered": frames.offered,
                "counted": frames.packets,
                "filtered": frames.filtered,
                "unfilterable": frames.unfilterable,
                "not-ip": not_ip,
                "refused": refused,
            },
            "packets": frames.packets,
            "bytes": frames.bytes,
            "late-packets": frames.late,
            "capture-drops": frames.lost.total(),
            "intervals": rows.intervals,
            "flows": rows.flows,
            "flow-table": { "peak": frames.flows_peak, "early-drains": frames.early_drains },
            "rows": {
                "written": rows.rows,
                "rejected": rows.rows_rejected,
                "late": rows.rows_late,
                "skipdata": rows.rows_skipdata,
                "packets": rows.packets,
                "bytes": rows.bytes,
            },
            "omitted-packets": omitted(&rows.omitted),
            "policy": {
                "interfaces-unruled": rows.policy.interfaces_unruled,
                "unjudged": rows.policy.unjudged,
                "untracked": rows.policy.untracked,
                "evicted": rows.policy.evicted,
            },
            "files": self.files.iter().map(|file| json!({
                "path": file.path.to_string_lossy(),
                "rows": file.row_count,
                "bytes": file.size_bytes,
            })).collect::<Vec<_>>(),
            "mirror": self.mirror.map(Report::to_json),
            "damage": self.damage.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "elapsed-secs": self.elapsed.as_secs_f64(),
            "frames-per-sec": self.packets_per_sec(),
            "balances": self.balances(),
        })
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (frames, rows) = (self.frames, self.rows);
        let (not_ip, refused) = by_nature(&frames.refused);
        let sum = |counts: &BTreeMap<_, u64>| counts.values().sum::<u64>();
        writeln!(
            f,
            "frames    {} offered = {} counted + {} filtered + {} not IP + {} refused",
            frames.offered,
            frames.packets,
            frames.filtered + frames.unfilterable,
            sum(&not_ip),
            sum(&refused)
        )?;
        line_of_counts(f, "not IP", &not_ip)?;
        line_of_counts(f, "refused", &refused)?;
        if frames.unfilterable > 0 {
            writeln!(f, "  {} filtered because the expression means nothing on their link type", frames.unfilterable)?;
        }
        if frames.lost.total() > 0 {
            writeln!(f, "drops     {} packets, reported by the capture, never seen here", frames.lost.total())?;
        }
        writeln!(f, "packets   {} counted, {} bytes, {} late", frames.packets, frames.bytes, frames.late)?;
        writeln!(f, "flows     {} in {} intervals, at most {} at once", rows.flows, rows.intervals, frames.flows_peak)?;
        if frames.early_drains > 0 {
            writeln!(f, "  the flow table was full {} times: some flows have several rows", frames.early_drains)?;
            if self.has_policy {
                writeln!(f, "  and rows that were handed out early were judged without what came later")?;
            }
        }
        writeln!(
            f,
            "rows      {} written ({} REJECT, {} late), {} SKIPDATA",
            rows.rows, rows.rows_rejected, rows.rows_late, rows.rows_skipdata
        )?;
        line_of_counts(f, "packets left out", &omitted(&rows.omitted))?;
        if rows.policy.interfaces_unruled > 0 {
            writeln!(
                f,
                "  the policy has no rules for {} interfaces: all their flows pass",
                rows.policy.interfaces_unruled
            )?;
        }
        if rows.policy.unjudged > 0 {
            writeln!(
                f,
                "  {} flows passed the policy unjudged: their direction is not known (see --local)",
                rows.policy.unjudged
            )?;
        }
        if rows.policy.untracked + rows.policy.evicted > 0 {
            writeln!(
                f,
                "  {} flows judged without their connection, {} connections forgotten early: too many at once",
                rows.policy.untracked, rows.policy.evicted
            )?;
        }
        if let Some(mirror) = self.mirror {
            mirror.fmt(f)?;
        }
        for file in self.files {
            writeln!(f, "file      {} ({} rows, {} bytes)", file.path.display(), file.row_count, file.size_bytes)?;
        }
        let (secs, rate) = (self.elapsed.as_secs_f64(), self.packets_per_sec());
        writeln!(f, "elapsed   {secs:.3} s, {rate:.0} frames a second")?;
        let verdict = match (self.output_failed, self.balances(), self.damage.is_empty()) {
            (true, _, _) => "open: the output failed, so rows are missing",
            (false, true, true) => "balances: every frame is accounted for",
            (false, true, false) => "balances for what could be read: the input is not whole, see above",
            (false, false, _) => "DOES NOT BALANCE",
        };
        writeln!(f, "ledger    {verdict}")
    }
}

fn line_of_counts(f: &mut fmt::Formatter<'_>, name: &str, counts: &BTreeMap<&str, u64>) -> fmt::Result {
    if counts.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    writeln!(f, "  {name}: {}", list.join(", "))
}

/// Frames that are not IP and frames that could not be read, each by reason.
fn by_nature(refused: &Tally<Refusal>) -> (BTreeMap<&'static str, u64>, BTreeMap<&'static str, u64>) {
    let of = |not_ip: bool| {
        let mine = refused.iter().filter(move |(refusal, _)| matches!(refusal, Refusal::NotIp(_)) == not_ip);
        mine.map(|(refusal, count)| (refusal.name(), count)).collect()
    };
    (of(true), of(false))
}

fn omitted(omitted: &Tally<Omission>) -> BTreeMap<&'static str, u64> {
    let name = |omission| match omission {
        Omission::Class(class) => TrafficClass::as_str(class),
        Omission::Action(Action::Accept) => "accept",
        Omission::Action(Action::Reject) => "reject",
    };
    omitted.iter().map(|(omission, count)| (name(omission), count)).collect()
}
