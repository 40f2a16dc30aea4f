//! The state of a run for programs: what every frame and packet became so far.

use std::collections::BTreeMap;
use std::time::Duration;

use flowlog::record::{Action, TrafficClass};
use serde_json::{Value, json};

use super::fence::Fence;
use super::latencies::{Quantiles, secs};
use super::plane::Told;
use crate::capture::{Loss, Portless, Stay};
use crate::ledger::{FrameCounts, Omission, RowCounts};
use crate::mirror::report::Report;
use crate::time::Timestamp;

/// What a run knows of itself at one moment.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) now: Timestamp,
    pub(super) started: Timestamp,
    pub(super) interval_secs: u32,
    /// Unix seconds: every interval that ended by then is published.
    pub(super) published_until: u64,
    pub(super) reloads: u64,
    pub(super) told: Told,
    pub(super) fence: Fence,
    pub(super) interfaces: Vec<Stay>,
    pub(super) frames: FrameCounts,
    pub(super) rows: RowCounts,
    /// What became of mirrored packets, if any are mirrored.
    pub(super) mirror: Option<Report>,
    /// From the end of each interval to its publication.
    pub(super) delivery_lag: Quantiles,
    /// Of each interval, from where it is counted.
    pub(super) drain_time: Quantiles,
}

impl Status {
    /// Packets that are counted, and whose interval is not written yet.
    pub(super) fn open_packets(&self) -> Option<u64> {
        let (packets, _) = self.frames.in_flows();
        packets.checked_sub(self.rows.packets + self.rows.omitted.total())
    }

    /// Whether every frame and every packet counted is accounted for.
    pub(super) fn balances(&self) -> bool {
        self.frames.balances() && self.rows.unbalanced == 0 && self.open_packets().is_some()
    }

    pub(super) fn to_json(&self) -> Value {
        let (frames, rows) = (&self.frames, &self.rows);
        let refused: BTreeMap<_, _> = frames.refused.iter().map(|(refusal, count)| (refusal.name(), count)).collect();
        let left_out: BTreeMap<_, _> =
            rows.omitted.iter().map(|(omission, count)| (omission_name(omission), count)).collect();
        json!({
            "ok": true,
            "version": env!("CARGO_PKG_VERSION"),
            "capture": capture(&self.told),
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
                "own-copies": frames.own_copies,
                "lost": Loss::ALL.map(|loss| (loss.name(), frames.lost.of(loss))).into_iter().collect::<BTreeMap<_, _>>(),
            },
            "packets": {
                "counted": frames.packets,
                "rejected": frames.rejected,
                "rejected-after-counting": frames.moved,
                "without-ports":
                    Portless::ALL.map(|reason| (reason.name(), frames.portless.of(reason))).into_iter().collect::<BTreeMap<_, _>>(),
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
            "delivery-lag-secs": quantiles(&self.delivery_lag),
            "drain-time-secs": quantiles(&self.drain_time),
            "mirror": self.mirror.as_ref().map(Report::to_json),
            "balances": self.balances(),
        })
    }
}

/// Who counts, why, and how that goes.
fn capture(told: &Told) -> Value {
    match told {
        Told::Packet { why } => json!({ "plane": "pcap", "why": why }),
        #[cfg(feature = "ebpf")]
        Told::Kernel { verdicts, turns, attachment, memory_bytes } => {
            let counts = turns.counts();
            let verdicts = match verdicts {
                Ok(source) => source,
                Err(why) => why.as_str(),
            };
            json!({
                "plane": "ebpf",
                "verdicts": verdicts,
                "attachment": attachment,
                "map-memory-bytes": memory_bytes,
                "turns": counts.turns,
                "turns-late": counts.late,
                "turns-early": counts.early,
                "drains-failed": counts.failed,
                "drained-flows": counts.drained.flows,
                "drained-verdicts": counts.drained.verdicts,
                "overflowed": counts.drained.overflowed,
                "last-drain-micros": counts.last_drain_ns / 1000,
                "longest-drain-micros": counts.longest_drain_ns / 1000,
                "clock-steps": counts.clock_steps,
            })
        }
    }
}

/// Seconds. Of nothing there are no quantiles.
fn quantiles(of: &Quantiles) -> Value {
    let told = |time: Duration| (of.count > 0).then_some(secs(time));
    let [p50, p90, p99] = of.quantiles.map(|(_, time)| told(time));
    json!({ "count": of.count, "sum": secs(of.sum), "p50": p50, "p90": p90, "p99": p99, "max": told(of.max) })
}

pub(super) fn omission_name(omission: Omission) -> &'static str {
    match omission {
        Omission::Class(class) => TrafficClass::as_str(class),
        Omission::Action(Action::Accept) => "accept",
        Omission::Action(Action::Reject) => "reject",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::latencies::Latencies;
    use super::*;
    use crate::packet::{NotIp, Refusal};

    /// A run of which nothing else is known.
    pub(in crate::daemon) fn status(frames: FrameCounts, rows: RowCounts) -> Status {
        let at = Timestamp(0);
        Status {
            now: at,
            started: at,
            interval_secs: 60,
            published_until: 0,
            reloads: 0,
            told: Told::Packet { why: None },
            fence: Fence::default(),
            interfaces: Vec::new(),
            frames,
            rows,
            mirror: None,
            delivery_lag: Latencies::new().quantiles(),
            drain_time: Latencies::new().quantiles(),
        }
    }

    fn balances(frames: &FrameCounts, rows: &RowCounts) -> (bool, u64) {
        let json = status(frames.clone(), rows.clone()).to_json();
        (json["balances"] == true, json["packets"]["in-open-intervals"].as_u64().unwrap())
    }

    #[test]
    fn what_is_not_in_rows_yet_is_in_open_intervals() {
        let mut frames = FrameCounts { offered: 12, packets: 10, ..FrameCounts::default() };
        frames.refused.count(Refusal::NotIp(NotIp::Arp), 2);
        let mut rows = RowCounts { packets: 6, ..RowCounts::default() };
        rows.omitted.count(Omission::Action(Action::Accept), 1);
        assert_eq!(balances(&frames, &rows), (true, 3));
        rows.packets = 10;
        assert_eq!(balances(&frames, &rows), (false, 0), "more in rows than was counted");
        frames.packets = 11;
        assert_eq!(balances(&frames, &rows), (false, 0), "more counted than was offered");
    }

    #[test]
    fn times_are_in_seconds_and_there_are_none_of_nothing() {
        let mut status = status(FrameCounts::default(), RowCounts::default());
        let json = status.to_json();
        let nothing = json!({ "count": 0, "sum": 0.0, "p50": null, "p90": null, "p99": null, "max": null });
        assert_eq!((&json["delivery-lag-secs"], &json["drain-time-secs"]), (&nothing, &nothing));
        let lag = Latencies::new();
        lag.record(Duration::from_millis(1250));
        status.delivery_lag = lag.quantiles();
        let once = json!({ "count": 1, "sum": 1.25, "p50": 1.25, "p90": 1.25, "p99": 1.25, "max": 1.25 });
        assert_eq!(status.to_json()["delivery-lag-secs"], once);
    }
}
