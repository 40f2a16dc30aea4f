//! From the flows of a window to records: on one thread, or on several where the sink takes lines.
//!
//! Once the flows of a window are merged and the policy is settled, a record depends on nothing but its flow. So the flows
//! are cut into parts that follow each other, each thread makes the lines of a part, and the sink takes the parts in their
//! order: the bytes are those of one thread.

use std::convert::Infallible;
use std::thread;

use flowlog::record::{Action, Record};
use flowlog::sink::Sink;
use flowlog::writer::LineEncoder;

use super::{InterfaceFacts, RecorderError, Rules};
use crate::capture::DropReasonNames;
use crate::flow::merge::{FinishedFlow, Merged, Part};
use crate::ledger::RowCounts;
use crate::policy::Settled;

/// What turns the flows of one window into records; shared by the threads that do it.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) rules: &'a Rules,
    pub(super) facts: &'a [InterfaceFacts],
    pub(super) settled: Option<Settled<'a>>,
    pub(super) drop_reasons: &'a DropReasonNames,
    pub(super) late: bool,
}

impl Pass<'_> {
    /// Writes the flows, and says what became of them.
    pub(super) fn write(self, merged: &Merged<'_>, sink: &mut dyn Sink) -> Result<RowCounts, RecorderError> {
        let threads = self.rules.threads.get();
        if threads > 1
            && let Some(encoder) = sink.line_encoder()
        {
            let parts = merged.parts(PART_FLOWS);
            if parts.len() > 1 {
                return self.write_parts(merged, &parts, threads, &encoder, sink);
            }
        }
        Ok(self.each(merged.flows(), |record| sink.write(record))?)
    }

    /// Makes the lines of several parts at once, and hands them on in their order.
    fn write_parts(
        self,
        merged: &Merged<'_>,
        parts: &[Part],
        threads: usize,
        encoder: &LineEncoder,
        sink: &mut dyn Sink,
    ) -> Result<RowCounts, RecorderError> {
        let mut counts = RowCounts::default();
        let mut desks: Vec<_> = (0..threads).map(|_| (encoder.clone(), Vec::new())).collect();
        for parts in parts.chunks(threads) {
            let done: Vec<_> = thread::scope(|scope| {
                let encode = |(part, (encoder, lines)): (&Part, &mut (LineEncoder, Vec<u8>))| {
                    lines.clear();
                    self.each(merged.flows_of(part), |record| {
                        encoder.encode(record, lines);
                        Ok::<_, Infallible>(())
                    })
                };
                let running: Vec<_> =
                    parts.iter().zip(&mut desks).map(|desk| scope.spawn(move || encode(desk))).collect();
                running.into_iter().map(thread::ScopedJoinHandle::join).collect()
            });
            for (done, (_, lines)) in done.into_iter().zip(&desks) {
                let Ok(done) = done.map_err(|_| RecorderError::WorkerPanicked)?;
                sink.write_lines(lines, done.rows)?;
                counts.add(&done);
            }
        }
        Ok(counts)
    }

    /// Makes a record of each flow that gets one.
    fn each<E>(
        self,
        flows: impl Iterator<Item = FinishedFlow>,
        mut take: impl FnMut(&Record) -> Result<(), E>,
    ) -> Result<RowCounts, E> {
        let mut counts = RowCounts::default();
        let mut current: Option<(u16, &InterfaceFacts, Record)> = None;
        // What the kernel turned away may have been all there was of a flow.
        for flow in flows.filter(|flow| flow.counts.packets > 0) {
            counts.flows += 1;
            let interface = flow.key.interface;
            if current.as_ref().is_none_or(|(known, ..)| *known != interface) {
                let facts = self.facts.get(usize::from(interface));
                current = facts.map(|facts| (interface, facts, facts.blank_record()));
            }
            let Some((_, facts, record)) = &mut current else { continue };
            let view = facts.view(&flow);
            if let Some(omission) = self.rules.fill(record, &flow, &view, self.settled, self.drop_reasons) {
                counts.omitted.count(omission, flow.counts.packets);
                counts.omitted_bytes += flow.counts.bytes;
                continue;
            }
            facts.stand_in(&mut record.flow);
            take(record)?;
            counts.rows += 1;
            counts.rows_rejected += u64::from(record.flow.action == Some(Action::Reject));
            counts.rows_late += u64::from(self.late);
            counts.packets += flow.counts.packets;
            counts.bytes += flow.counts.bytes;
        }
        Ok(counts)
    }
}

/// How many flows a thread makes lines of at a time: some milliseconds of work, some megabytes of lines.
const PART_FLOWS: usize = 16 * 1024;
