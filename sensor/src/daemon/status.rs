//! The state of a run for programs: what every frame and packet became so far.

use std::collections::BTreeMap;

use flowlog::record::{Action, TrafficClass};
use serde_json::{Value, json};

use super::fence::Fence;
use crate::capture::Stay;
use crate::ledger::{FrameCounts, Omission, RowCounts};
use crate::time::Timestamp;

/// What a run knows of itself at one moment.
pub(super) struct Status<'a> {
    pub(super) now: Timestamp,
    pub(super) started: Timestamp,
    pub(super) interval_secs: u32,
    /// Unix seconds: every interval that ended by then is published.
    pub(super) published_until: u64,
    pub(super) reloads: u64,
    pub(super) fence: &'a Fence,
    pub(super) interfaces: Vec<Stay>,
    pub(super) frames: &'a FrameCounts,
    pub(super) rows: &'a RowCounts,
}

impl Status<'_> {
    /// Packets that are counted, and whose interval is not written yet.
    fn open_packets(&self) -> Option<u64> {
        self.frames.packets.checked_sub(self.rows.packets + self.rows.omitted.total())
    }

    fn balances(&self) -> bool {
        self.frames.balances() && self.rows.unbalanced == 0 && self.open_packets().is_some()
    }

    pub(super) fn to_json(&self) -> Value {
        let (frames, rows) = (self.frames, self.rows);
        let refused: BTreeMap<_, _> = frames.refused.iter().map(|(refusal, count)| (refusal.name(), count)).collect();
        let left_out: BTreeMap<_, _> =
            rows.omitted.iter().map(|(omission, count)| (omission_name(omission), count)).collect();
        json!({
            "ok": true,
            "version": env!("CARGO_PKG_VERSION"),
            "capture": "pcap",
            "now": self.now.secs(),
            "started": self.started.secs(),
            "interval-secs": self.interval_secs,
            "published-until": self.published_until,
            "reloads": self.reloads,
            "fence": {
                "files": self.fence.files.as_str(),
                "system-calls": self.fence.calls.as_str(),
            },
            "interfaces": self.interfaces.iter().map(|stay| json!({
                "name": stay.name,
                "since": stay.from.secs(),
                "frames": stay.frames,
                "drops": stay.drops,
            })).collect::<Vec<_>>(),
            "frames": {
                "offered": frames.offered,
                "counted": frames.packets,
                "not-counted": refused,
                "capture-drops": frames.capture_drops,
            },
            "packets": {
                "counted": frames.packets,
                "in-rows": rows.packets,
                "left-out": left_out,
                "in-open-intervals": self.open_packets().unwrap_or_default(),
                "late": frames.late,
            },
            "rows": {
                "written": rows.rows,
                "rejected": rows.rows_rejected,
                "late": rows.rows_late,
                "nodata": rows.rows_nodata,
                "skipdata": rows.rows_skipdata,
            },
            "flow-table": { "peak": frames.flows_peak, "early-drains": frames.early_drains },
            "policy": {
                "unjudged": rows.policy.unjudged,
                "untracked": rows.policy.untracked,
                "evicted": rows.policy.evicted,
            },
            "balances": self.balances(),
        })
    }
}

fn omission_name(omission: Omission) -> &'static str {
    match omission {
        Omission::Class(class) => TrafficClass::as_str(class),
        Omission::Action(Action::Accept) => "accept",
        Omission::Action(Action::Reject) => "reject",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Refusal;

    fn balances(frames: &FrameCounts, rows: &RowCounts) -> (bool, u64) {
        let at = Timestamp(0);
        let fence = Fence::default();
        let status = Status {
            now: at,
            started: at,
            interval_secs: 60,
            published_until: 0,
            reloads: 0,
            fence: &fence,
            interfaces: Vec::new(),
            frames,
            rows,
        };
        let json = status.to_json();
        (json["balances"] == true, json["packets"]["in-open-intervals"].as_u64().unwrap())
    }

    #[test]
    fn what_is_not_in_rows_yet_is_in_open_intervals() {
        let mut frames = FrameCounts { offered: 12, packets: 10, ..FrameCounts::default() };
        frames.refused.count(Refusal::NotIp(crate::packet::NotIp::Arp), 2);
        let mut rows = RowCounts { packets: 6, ..RowCounts::default() };
        rows.omitted.count(Omission::Action(Action::Accept), 1);
        assert_eq!(balances(&frames, &rows), (true, 3));
        rows.packets = 10;
        assert_eq!(balances(&frames, &rows), (false, 0), "more in rows than was counted");
        frames.packets = 11;
        assert_eq!(balances(&frames, &rows), (false, 0), "more counted than was offered");
    }
}
