//! The whole ledger as metrics, in Prometheus's text format 0.0.4, and under names as its "Metric and label naming" page
//! wants them.
//!
//! Every reason has its line from the start, also at 0: what is not there can't be told from what never happens. What
//! is known of each interface counts from its attaching; a counter that starts anew is as good as one that goes on.

mod server;

use flowlog::record::{Action, TrafficClass};
use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary};

use super::latencies::{Quantiles, secs};
use super::status::{Status, omission_name};
use crate::capture::{Loss, Portless};
use crate::ledger::Omission;
use crate::mirror::counters::{Counts, Skip, Volume};
use crate::mirror::fragmentation::Fragmentation;
use crate::mirror::report::{AtDrop, Behind, Report, SessionReport};
use crate::packet::Refusal;

pub use server::MetricsError;
pub(super) use server::{Door, Server};

/// What is answered to whoever asks for metrics.
pub(super) fn text(status: &Status) -> String {
    let mut families = ledger(status);
    families.extend(run(status));
    families.extend(status.mirror.as_ref().map(mirror).unwrap_or_default());
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new().encode_to_string(&families).expect("every metric has a name and a line")
}

/// What became of every frame, every packet and every row.
fn ledger(status: &Status) -> Vec<MetricFamily> {
    let Status { interfaces, frames, rows, .. } = status;
    let unselected =
        [("filtered", frames.filtered), ("unfilterable", frames.unfilterable), ("own-copies", frames.own_copies)];
    let refused = Refusal::all().map(|refusal| (refusal.name(), frames.refused.of(refusal)));
    let classes = TrafficClass::ALL.iter().map(|class| Omission::Class(*class));
    let omissions = classes.chain([Action::Accept, Action::Reject].map(Omission::Action));
    vec![
        counter(
            "flowtap_frames_offered_total",
            "Frames that the capture handed out. Offered = flowtap_packets_counted_total + flowtap_frames_not_counted_total.",
            frames.offered,
        ),
        counters(
            "flowtap_frames_not_counted_total",
            "Frames offered that gave no packet: left out by the filter, not IP, or not to be read.",
            "reason",
            unselected.into_iter().chain(refused),
        ),
        counters(
            "flowtap_packets_lost_total",
            "Packets that went by and were never offered. Every interval that lost some has a SKIPDATA row.",
            "reason",
            Loss::ALL.map(|loss| (loss.name(), frames.lost.of(loss))),
        ),
        counter(
            "flowtap_packets_counted_total",
            "Packets counted in flows. Counted + flowtap_packets_rejected_total - flowtap_packets_moved_total = \
             flowtap_packets_in_rows_total + flowtap_packets_left_out_total + flowtap_packets_in_open_intervals.",
            frames.packets,
        ),
        counter(
            "flowtap_packets_rejected_total",
            "Packets that the kernel turned away for a reason that is somebody's policy. They have REJECT rows.",
            frames.rejected,
        ),
        counter(
            "flowtap_packets_moved_total",
            "Of the packets rejected, those that had been counted before: they are no longer in ACCEPT rows.",
            frames.moved,
        ),
        counters(
            "flowtap_packets_without_ports_total",
            "Of the packets counted, those that have ports and are counted under ports 0.",
            "reason",
            Portless::ALL.map(|reason| (reason.name(), frames.portless.of(reason))),
        ),
        counter("flowtap_bytes_counted_total", "IP bytes of the packets counted.", frames.bytes),
        counter(
            "flowtap_packets_late_total",
            "Of the packets counted, those that came after their interval had closed. They have late rows.",
            frames.late,
        ),
        counter(
            "flowtap_packets_in_rows_total",
            "Of the packets counted, those in rows that are written.",
            rows.packets,
        ),
        counter("flowtap_bytes_in_rows_total", "IP bytes of the packets in rows.", rows.bytes),
        counters(
            "flowtap_packets_left_out_total",
            "Of the packets counted, those whose flows have no row, as skipped-traffic or traffic asks.",
            "reason",
            omissions.map(|omission| (omission_name(omission), rows.omitted.of(omission))),
        ),
        counter("flowtap_bytes_left_out_total", "IP bytes of the packets left out.", rows.omitted_bytes),
        gauge(
            "flowtap_packets_in_open_intervals",
            "Of the packets counted, those whose interval is not written yet.",
            as_float(status.open_packets().unwrap_or_default()),
        ),
        counters(
            "flowtap_rows_total",
            "Rows written: of flows by their action, and NODATA and SKIPDATA rows.",
            "kind",
            [
                ("accept", rows.rows.saturating_sub(rows.rows_rejected)),
                ("reject", rows.rows_rejected),
                ("nodata", rows.rows_nodata),
                ("skipdata", rows.rows_skipdata),
            ],
        ),
        counter("flowtap_rows_late_total", "Of the rows of flows, those of late packets.", rows.rows_late),
        counter(
            "flowtap_flows_total",
            "Flows, summed over the intervals; one that was handed out early and came again counts again.",
            rows.flows,
        ),
        counter("flowtap_intervals_total", "Intervals that closed.", rows.intervals),
        counter(
            "flowtap_intervals_unbalanced_total",
            "Intervals whose rows did not sum to the packets counted. Anything but 0 is a fault of flowtap.",
            rows.unbalanced,
        ),
        gauge(
            "flowtap_ledger_balances",
            "1 while every frame and every packet is accounted for. Anything else is a fault of flowtap.",
            if status.balances() { 1.0 } else { 0.0 },
        ),
        counters(
            "flowtap_interface_frames_total",
            "Frames that an interface handed out since it was attached.",
            "interface",
            interfaces.iter().map(|stay| (stay.name.as_str(), stay.frames)),
        ),
        counters(
            "flowtap_interface_packets_lost_total",
            "Packets that an interface lost since it was attached. Those of interfaces that are gone are in \
             flowtap_packets_lost_total alone.",
            "interface",
            interfaces.iter().map(|stay| (stay.name.as_str(), stay.drops)),
        ),
    ]
}

/// What became of mirrored packets, in wire frames at the tap.
fn mirror(report: &Report) -> Vec<MetricFamily> {
    let mut families = of_report(report);
    if let AtDrop::Copied(counts) = &report.at_drop {
        families.extend([
            counter(
                "flowtap_mirror_drop_copies_total",
                "Copies of packets that the kernel dropped, before a session is asked.",
                counts.copied,
            ),
            counter(
                "flowtap_mirror_drop_copies_without_interface_total",
                "Of these, copies that no session is asked about, as their interface can't be told.",
                counts.without_interface,
            ),
            counters(
                "flowtap_mirror_drop_copies_missed_total",
                "Packets that the kernel dropped and that could not be copied, unreadable or for want of room, by drop reason.",
                "reason",
                counts.missed.iter().map(|(reason, packets)| (reason.as_str(), *packets)),
            ),
        ]);
    }
    families
}

fn of_report(report: &Report) -> Vec<MetricFamily> {
    let of_sessions = |name: &str, help: &str, value: fn(&Counts) -> u64| {
        let lines = report.sessions.iter().flat_map(|session| {
            let number = session.number.to_string();
            directions(session).map(|(direction, counts)| {
                let labels = [("direction", direction), ("interface", &*session.interface), ("session", &*number)];
                with_counter(&labels, value(counts))
            })
        });
        family(name, help, MetricType::COUNTER, lines.collect())
    };
    let skipped = |name: &str, help: &str, value: fn(Volume) -> u64| {
        let lines = report.sessions.iter().flat_map(|session| {
            let number = session.number.to_string();
            let of_direction = |(direction, counts): (&'static str, &Counts)| {
                let line = |(reason, volume): (Skip, Volume)| {
                    let labels = [
                        ("direction", direction),
                        ("interface", &*session.interface),
                        ("reason", reason.as_str()),
                        ("session", &*number),
                    ];
                    with_counter(&labels, value(volume))
                };
                counts.skipped().map(line).collect::<Vec<_>>()
            };
            directions(session).into_iter().flat_map(of_direction).collect::<Vec<_>>()
        });
        family(name, help, MetricType::COUNTER, lines.collect())
    };
    let behind = |name: &str, help: &str, value: fn(&Behind) -> u64| {
        let lines = report.behind.iter().map(|behind| with_counter(&[("device", &behind.device)], value(behind)));
        family(name, help, MetricType::COUNTER, lines.collect())
    };
    // All traffic of the network namespace: the kernel does not tell copies from others.
    let by_ip = |name: &str, help: &str, value: fn(&Fragmentation) -> u64| {
        let lines = report.fragmentation.iter().map(|fragmentation| with_counter(&[], value(fragmentation)));
        family(name, help, MetricType::COUNTER, lines.collect())
    };
    vec![
        of_sessions(
            "flowtap_mirror_matched_packets_total",
            "Packets that a session takes. Matched = flowtap_mirror_mirrored_packets_total + \
             flowtap_mirror_skipped_packets_total, but for those that wait to be sent.",
            |counts| counts.matched.packets,
        ),
        of_sessions("flowtap_mirror_matched_bytes_total", "Bytes of the packets matched.", |counts| {
            counts.matched.bytes
        }),
        of_sessions("flowtap_mirror_mirrored_packets_total", "Packets whose copies were sent.", |counts| {
            counts.mirrored.packets
        }),
        of_sessions("flowtap_mirror_mirrored_bytes_total", "Bytes of the packets mirrored.", |counts| {
            counts.mirrored.bytes
        }),
        of_sessions(
            "flowtap_mirror_cut_packets_total",
            "Of the packets mirrored, those cut to the packet length.",
            |counts| counts.cut.packets,
        ),
        of_sessions("flowtap_mirror_cut_bytes_total", "Bytes cut off.", |counts| counts.cut.bytes),
        of_sessions(
            "flowtap_mirror_fragmented_packets_total",
            "Of the packets mirrored, those sent in fragments.",
            |counts| counts.fragmented.packets,
        ),
        of_sessions(
            "flowtap_mirror_partial_packets_total",
            "Of the packets mirrored, dropped ones of which not all could be read.",
            |counts| counts.partial.packets,
        ),
        skipped("flowtap_mirror_skipped_packets_total", "Packets matched and not mirrored, by reason.", |volume| {
            volume.packets
        }),
        skipped("flowtap_mirror_skipped_bytes_total", "Bytes of the packets skipped.", |volume| volume.bytes),
        behind(
            "flowtap_mirror_device_dropped_total",
            "Copies that a tunnel device dropped after they were sent.",
            |behind| behind.dropped,
        ),
        behind("flowtap_mirror_device_errors_total", "Copies that a tunnel device could not send on.", |behind| {
            behind.errors
        }),
        by_ip(
            "flowtap_mirror_ip_fragmentation_failures_total",
            "Packets lost since mirroring began because they were too large for their path and must not be fragmented: \
             copies, and all other traffic of the host.",
            |fragmentation| fragmentation.failed,
        ),
        by_ip(
            "flowtap_mirror_ip_fragments_total",
            "Fragments that IP made since mirroring began: of copies, and of all other traffic of the host.",
            |fragmentation| fragmentation.fragments,
        ),
        counter(
            "flowtap_mirror_tap_lost_total",
            "Frames that were lost before a session could be asked.",
            report.tap_drops,
        ),
    ]
}

fn directions(session: &SessionReport) -> [(&'static str, &Counts); 2] {
    [("ingress", &session.counts.ingress), ("egress", &session.counts.egress)]
}

/// How the run fares.
fn run(status: &Status) -> Vec<MetricFamily> {
    let Status { interfaces, frames, rows, .. } = status;
    let features = if cfg!(feature = "ebpf") { "ebpf" } else { "" };
    vec![
        gauge("flowtap_interfaces_watched", "Interfaces that are watched.", as_float(interfaces.len() as u64)),
        gauge(
            "flowtap_flow_table_flows_peak",
            "The most flows held at once: the sum of each worker's own most.",
            as_float(frames.flows_peak),
        ),
        counter(
            "flowtap_flow_table_early_drains_total",
            "Times that rows were handed out before their interval closed, because the flow table was full.",
            frames.early_drains,
        ),
        counter(
            "flowtap_policy_flows_unjudged_total",
            "Flows that rules apply to, and that passed because their direction is not known.",
            rows.policy.unjudged,
        ),
        counter(
            "flowtap_policy_flows_untracked_total",
            "Flows judged without regard to their connection, because an interval had too many.",
            rows.policy.untracked,
        ),
        counter(
            "flowtap_policy_connections_evicted_total",
            "Connections forgotten before their time, because too many were alive.",
            rows.policy.evicted,
        ),
        summary(
            "flowtap_delivery_lag_seconds",
            "From the end of an interval to its publication, over the whole run.",
            &status.delivery_lag,
        ),
        gauge(
            "flowtap_delivery_lag_max_seconds",
            "The longest delivery lag of the run.",
            secs(status.delivery_lag.max),
        ),
        summary(
            "flowtap_drain_time_seconds",
            "How long it took to take an interval's flows from where they are counted, over the whole run.",
            &status.drain_time,
        ),
        gauge("flowtap_drain_time_max_seconds", "The longest drain of the run.", secs(status.drain_time.max)),
        gauge(
            "flowtap_published_until_timestamp_seconds",
            "Every interval that ended by then is published; 0 before the first.",
            as_float(status.published_until),
        ),
        gauge("flowtap_interval_seconds", "The aggregation interval.", f64::from(status.interval_secs)),
        counter("flowtap_reloads_total", "Times that the configuration was read again and adopted.", status.reloads),
        gauge("flowtap_start_time_seconds", "When the run began.", as_float(status.started.secs())),
        family(
            "flowtap_build_info",
            "Always 1: the version of this program and what it was built with.",
            MetricType::GAUGE,
            vec![with_gauge(&[("features", features), ("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        ),
    ]
}

/// Prometheus knows no whole numbers: beyond 2^53 it rounds.
fn as_float(value: u64) -> f64 {
    value as f64
}

fn counter(name: &str, help: &str, value: u64) -> MetricFamily {
    family(name, help, MetricType::COUNTER, vec![with_counter(&[], value)])
}

/// A counter with one line for each value of a label.
fn counters<'a>(name: &str, help: &str, label: &str, values: impl IntoIterator<Item = (&'a str, u64)>) -> MetricFamily {
    let lines = values.into_iter().map(|(of, value)| with_counter(&[(label, of)], value));
    family(name, help, MetricType::COUNTER, lines.collect())
}

fn gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    family(name, help, MetricType::GAUGE, vec![with_gauge(&[], value)])
}

/// Of nothing the quantiles are not numbers.
fn summary(name: &str, help: &str, of: &Quantiles) -> MetricFamily {
    let quantiles = of.quantiles.map(|(quantile, time)| {
        let mut line = Quantile::default();
        line.set_quantile(quantile);
        line.set_value(if of.count > 0 { secs(time) } else { f64::NAN });
        line
    });
    let mut summary = Summary::default();
    summary.set_quantile(quantiles.to_vec());
    summary.set_sample_count(of.count);
    summary.set_sample_sum(secs(of.sum));
    let mut metric = Metric::default();
    metric.set_summary(summary);
    family(name, help, MetricType::SUMMARY, vec![metric])
}

fn with_counter(labels: &[(&str, &str)], value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(as_float(value));
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_counter(counter);
    metric
}

fn with_gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_gauge(gauge);
    metric
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

fn family(name: &str, help: &str, kind: MetricType, lines: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(lines);
    family
}

#[cfg(test)]
mod packaged;
#[cfg(test)]
mod tests;
