//! The text of a ledger that is known.

use std::time::Duration;

use super::*;
use crate::capture::Stay;
use crate::ledger::{FrameCounts, RowCounts};
use crate::mirror::counters::SessionCounts;
use crate::mirror::fragmentation::Fragmentation;
use crate::mirror::report::DropCounts;
use crate::packet::{Fault, NotIp};
use crate::policy::PolicyCounters;
use crate::time::{NANOS_PER_SEC, Timestamp};

/// A run in which everything has happened, and every drain is still to come.
pub(super) fn known() -> Status {
    let mut frames = FrameCounts {
        offered: 1000,
        filtered: 20,
        unfilterable: 3,
        packets: 900,
        bytes: 123_456,
        late: 5,
        rejected: 10,
        moved: 6,
        early_drains: 2,
        flows_peak: 44,
        ..FrameCounts::default()
    };
    frames.lost.count(Loss::CaptureBuffer, 11);
    frames.lost.count(Loss::FlowMap, 2);
    frames.portless.count(Portless::FragmentUnknown, 8);
    frames.refused.count(Refusal::NotIp(NotIp::Arp), 70);
    frames.refused.count(Refusal::Fault(Fault::TruncatedIp), 7);
    let mut rows = RowCounts {
        intervals: 3,
        flows: 60,
        rows: 50,
        rows_rejected: 8,
        rows_late: 4,
        rows_skipdata: 1,
        rows_nodata: 2,
        packets: 800,
        bytes: 100_000,
        omitted_bytes: 9_000,
        policy: PolicyCounters { interfaces_unruled: 0, unjudged: 6, untracked: 12, evicted: 13 },
        ..RowCounts::default()
    };
    rows.omitted.count(Omission::Class(TrafficClass::Dns), 40);
    rows.omitted.count(Omission::Action(Action::Reject), 30);
    let started = Timestamp(1_772_442_000 * NANOS_PER_SEC);
    let stay = |interface, name: &str, frames, drops| Stay {
        interface,
        name: name.to_owned(),
        from: started,
        until: None,
        frames,
        drops,
        readers: 1,
    };
    let half = Duration::from_millis(1250);
    Status {
        now: Timestamp(1_772_442_070 * NANOS_PER_SEC),
        started,
        interval_secs: 60,
        published_until: 1_772_442_060,
        reloads: 1,
        interfaces: vec![stay(0, "eth0", 990, 11), stay(1, "od\"d\\", 10, 0)],
        delivery_lag: Quantiles {
            count: 2,
            sum: half * 3,
            max: half * 2,
            quantiles: [(0.5, half), (0.9, half * 2), (0.99, half * 2)],
        },
        ..crate::daemon::status::tests::status(frames, rows)
    }
}

#[test]
fn a_known_ledger_has_this_text() {
    let features = if cfg!(feature = "ebpf") { "ebpf" } else { "" };
    let expected = include_str!("known.prom").replace("FEATURES", features);
    let expected = expected.replace("VERSION", env!("CARGO_PKG_VERSION"));
    let found = text(&known());
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn a_run_that_watches_nothing_has_a_text_and_a_fault_is_told() {
    let mut status = crate::daemon::status::tests::status(FrameCounts::default(), RowCounts::default());
    let has = |text: &str, line: &str| text.lines().any(|found| found == line);
    let quiet = text(&status);
    assert!(has(&quiet, "flowtap_ledger_balances 1") && has(&quiet, "flowtap_interfaces_watched 0"), "{quiet}");
    assert!(!quiet.contains("flowtap_interface_"), "{quiet}");
    status.frames.offered = 1;
    assert!(has(&text(&status), "flowtap_ledger_balances 0"));
}

#[test]
fn sessions_have_lines_of_their_own() {
    let mut counts = SessionCounts::default();
    counts.ingress.matched.add(10, 1000);
    counts.ingress.mirrored.add(7, 700);
    counts.ingress.skip(Skip::RateLimit, 3, 300);
    counts.ingress.partial.add(2, 50);
    let session =
        SessionReport { number: 12, interface: "eth*".to_owned(), vni: crate::mirror::Vni::new(7).unwrap(), counts };
    let behind = vec![Behind { device: "tunnel0".to_owned(), sent: 7, dropped: 1, errors: 0 }];
    let missed = [("NETFILTER_DROP".to_owned(), 4)].into();
    let at_drop = AtDrop::Copied(DropCounts { copied: 9, without_interface: 1, missed });
    let fragmentation = Some(Fragmentation { failed: 2, fragments: 9 });
    let report = Report { sessions: vec![session], behind, at_drop, fragmentation, ..Report::default() };
    let text = text(&Status { mirror: Some(report), ..known() });
    for line in [
        "flowtap_mirror_matched_packets_total{direction=\"ingress\",interface=\"eth*\",session=\"12\"} 10",
        "flowtap_mirror_mirrored_bytes_total{direction=\"ingress\",interface=\"eth*\",session=\"12\"} 700",
        "flowtap_mirror_mirrored_bytes_total{direction=\"egress\",interface=\"eth*\",session=\"12\"} 0",
        "flowtap_mirror_skipped_packets_total{direction=\"ingress\",interface=\"eth*\",reason=\"rate-limit\",session=\"12\"} 3",
        "flowtap_mirror_device_dropped_total{device=\"tunnel0\"} 1",
        "flowtap_mirror_partial_packets_total{direction=\"ingress\",interface=\"eth*\",session=\"12\"} 2",
        "flowtap_mirror_drop_copies_total 9",
        "flowtap_mirror_drop_copies_without_interface_total 1",
        "flowtap_mirror_drop_copies_missed_total{reason=\"NETFILTER_DROP\"} 4",
        "flowtap_mirror_ip_fragmentation_failures_total 2",
        "flowtap_mirror_ip_fragments_total 9",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
}
