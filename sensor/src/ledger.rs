//! Every counter and every reason for loss, each with one owner, and the sums that must come out.
//!
//! Two equations hold at any time: frames offered = packets counted + frames filtered, not IP, refused with a reason, or
//! copies of our own;
//! and packets counted, and those rejected by the kernel, less those of the rejected that were counted before = packets in
//! written rows and in rows that were left out on request. Each worker owns a
//! [`FrameCounts`] and the recorder a [`RowCounts`]; they are added up when the run ends.

use crate::capture::{Block, Excluded, Loss, Portless};
use crate::packet::Refusal;
use crate::policy::PolicyCounters;

/// What one worker did with the frames it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Frames that the capture handed out.
    pub offered: u64,
    /// Frames that the filter expression left out.
    pub filtered: u64,
    /// Frames left out because the filter expression means nothing on their link type.
    pub unfilterable: u64,
    /// Frames that are copies which our own mirror made: they are no traffic of the host's.
    pub own_copies: u64,
    /// Packets counted in a flow.
    pub packets: u64,
    /// Their IP bytes.
    pub bytes: u64,
    /// Of the packets counted, those that came after their interval had closed.
    pub late: u64,
    /// Frames that gave no packet, by reason.
    pub refused: Tally<Refusal>,
    /// Packets that the kernel turned away, as its drops tell; only the kernel plane knows of them.
    pub rejected: u64,
    /// Their IP bytes.
    pub rejected_bytes: u64,
    /// Of the packets rejected, those that had been counted and stand no longer among those let in.
    pub moved: u64,
    /// Their IP bytes.
    pub moved_bytes: u64,
    /// Packets that were lost before anyone could count them, by place. They were never offered.
    pub lost: Tally<Loss>,
    /// Packets counted under ports 0 although they have ports, by reason; only the kernel plane has bounds for that.
    pub portless: Tally<Portless>,
    /// Times that rows were handed out before their interval closed, because the flow table was full.
    pub early_drains: u64,
    /// The most flows this worker held at once, fragmented datagrams included.
    pub flows_peak: u64,
}

impl FrameCounts {
    /// Takes note of what a block brings.
    pub fn offer(&mut self, block: &Block) {
        let Excluded { unselected_frames, unfilterable_frames } = block.excluded;
        self.offered += block.frames.len() as u64 + unselected_frames + unfilterable_frames;
        let let_in = block.counted.iter().filter(|counted| counted.rejection.is_none());
        self.offered += let_in.map(|counted| counted.packets).sum::<u64>();
        for refused in &block.refused {
            self.offered += refused.frames;
            self.refused.count(refused.refusal, refused.frames);
        }
        self.offered += block.own_copies;
        self.own_copies += block.own_copies;
        for (reason, packets) in &block.portless {
            self.portless.count(*reason, *packets);
        }
        self.filtered += unselected_frames;
        self.unfilterable += unfilterable_frames;
    }

    /// What the rows of this and their bytes must come to: packets counted and rejected, each once.
    pub fn in_flows(&self) -> (u64, u64) {
        (self.packets + self.rejected - self.moved, self.bytes + self.rejected_bytes - self.moved_bytes)
    }

    /// Adds what another worker did.
    pub fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.filtered += other.filtered;
        self.unfilterable += other.unfilterable;
        self.own_copies += other.own_copies;
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.late += other.late;
        self.refused.add(&other.refused);
        self.rejected += other.rejected;
        self.rejected_bytes += other.rejected_bytes;
        self.moved += other.moved;
        self.moved_bytes += other.moved_bytes;
        self.lost.add(&other.lost);
        self.portless.add(&other.portless);
        self.early_drains += other.early_drains;
        self.flows_peak += other.flows_peak;
    }

    /// Whether offered = counted + filtered + refused.
    pub fn balances(&self) -> bool {
        self.offered == self.packets + self.filtered + self.unfilterable + self.own_copies + self.refused.total()
    }
}

/// What became of the flows of closed intervals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Intervals that closed: those in which the capture had a frame of any kind, or told of a loss.
    pub intervals: u64,
    /// Flows, summed over the intervals; one that was handed out early and came again counts again.
    pub flows: u64,
    /// Rows written for flows.
    pub rows: u64,
    /// Of these, rows whose action is REJECT.
    pub rows_rejected: u64,
    /// Rows of packets that came after their interval had closed.
    pub rows_late: u64,
    /// SKIPDATA rows.
    pub rows_skipdata: u64,
    /// NODATA rows, of live runs only.
    pub rows_nodata: u64,
    /// Packets in the rows written.
    pub packets: u64,
    /// Bytes in the rows written.
    pub bytes: u64,
    /// Packets of flows left out on request, by what was asked for.
    pub omitted: Tally<Omission>,
    /// Bytes of flows left out on request.
    pub omitted_bytes: u64,
    /// What the policy could not judge or remember.
    pub policy: PolicyCounters,
    /// Intervals whose rows did not sum to the packets put in. Anything but 0 is a fault of ours.
    pub unbalanced: u64,
}

impl RowCounts {
    /// Packets and bytes of all flows, written or left out.
    pub fn of_all_flows(&self) -> (u64, u64) {
        (self.packets + self.omitted.total(), self.bytes + self.omitted_bytes)
    }

    /// Adds what became of other flows of the same run.
    pub fn add(&mut self, other: &Self) {
        self.intervals += other.intervals;
        self.flows += other.flows;
        self.rows += other.rows;
        self.rows_rejected += other.rows_rejected;
        self.rows_late += other.rows_late;
        self.rows_skipdata += other.rows_skipdata;
        self.rows_nodata += other.rows_nodata;
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.omitted.add(&other.omitted);
        self.omitted_bytes += other.omitted_bytes;
        self.policy.add(&other.policy);
        self.unbalanced += other.unbalanced;
    }

    /// Whether every packet counted is in a row, or in a flow left out on request.
    pub fn balances(&self, counted: &FrameCounts) -> bool {
        self.unbalanced == 0 && self.of_all_flows() == counted.in_flows()
    }
}

/// Why a flow that was counted has no row: the user asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Omission {
    /// A class that `skipped-traffic` omits.
    Class(flowlog::record::TrafficClass),
    /// An action that `traffic` does not select.
    Action(flowlog::record::Action),
}

/// Counts by reason: a handful of reasons, so a short list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally<R> {
    counts: Vec<(R, u64)>,
}

impl<R> Default for Tally<R> {
    fn default() -> Self {
        Self { counts: Vec::new() }
    }
}

impl<R: Copy + PartialEq> Tally<R> {
    /// Adds `more` for one reason. It may be a capture's own claim and anything, so a sum stops at the largest number.
    pub fn count(&mut self, reason: R, more: u64) {
        match self.counts.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count = count.saturating_add(more),
            None => self.counts.push((reason, more)),
        }
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        other.counts.iter().for_each(|(reason, count)| self.count(*reason, *count));
    }

    /// The sum over all reasons.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// How much was counted for one reason.
    pub fn of(&self, reason: R) -> u64 {
        self.counts.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count)
    }

    /// Each reason with its count, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (R, u64)> + '_ {
        self.counts.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use flowlog::record::{Action, TrafficClass};

    use super::*;

    #[test]
    fn a_tally_adds_up_by_reason() {
        let mut tally = Tally::default();
        tally.count(Omission::Class(TrafficClass::Dns), 2);
        tally.count(Omission::Action(Action::Reject), 3);
        let mut more = Tally::default();
        more.count(Omission::Class(TrafficClass::Dns), 5);
        tally.add(&more);
        assert_eq!(tally.total(), 10);
        assert_eq!(tally.of(Omission::Action(Action::Reject)), 3);
        assert_eq!(tally.of(Omission::Action(Action::Accept)), 0);
        assert!(tally.iter().any(|count| count == (Omission::Class(TrafficClass::Dns), 7)));
    }

    #[test]
    fn a_capture_may_claim_any_loss() {
        let mut frames = FrameCounts::default();
        frames.lost.count(Loss::CaptureBuffer, u64::MAX);
        frames.lost.count(Loss::FlowMap, 1);
        let other = frames.clone();
        frames.add(&other);
        assert_eq!(frames.lost.total(), u64::MAX);
    }

    #[test]
    fn a_lost_packet_unbalances_the_ledger() {
        let mut frames = FrameCounts { offered: 10, filtered: 3, packets: 7, ..FrameCounts::default() };
        assert!(frames.balances());
        let mut rows = RowCounts { packets: 5, ..RowCounts::default() };
        rows.omitted.count(Omission::Action(Action::Accept), 2);
        assert!(rows.balances(&frames));
        rows.packets = 4;
        assert!(!rows.balances(&frames));
        frames.offered = 11;
        assert!(!frames.balances());
    }
}
