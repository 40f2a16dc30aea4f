//! What mirroring did, for whoever tells people.

use crate::mirror::{SessionNumber, fragmentation::Fragmentation};
use flowtap_abi::mirror::{CopyCounts, CopyOutcome};

/// Everything counted since mirroring began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MirrorCounters {
    /// By session, in the order of the configuration; those of sessions that were taken out of it stand behind.
    pub sessions: Vec<SessionCounters>,
    /// Packets that no rule was asked about: our own copies, and answers to them.
    pub own_copies: u64,
    /// Frames whose headers the kernel had no memory to bring together.
    pub not_gathered: u64,
    /// What was lost behind each tunnel device.
    pub devices: Vec<TunnelLosses>,
    /// What IP did with packets too large for their path; `None` where the kernel does not tell.
    pub fragmentation: Option<Fragmentation>,
}

/// Copies of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCounters {
    /// The session.
    pub number: SessionNumber,
    /// The interfaces it mirrors, as configured.
    pub interface: String,
    /// Copies of what came in.
    pub ingress: CopyTotals,
    /// Copies of what went out.
    pub egress: CopyTotals,
}

/// Copies of one direction, in wire frames as they passed the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyTotals(pub(super) CopyCounts);

impl CopyTotals {
    /// Wire frames of that outcome, and their bytes with the Ethernet header.
    pub fn of(&self, outcome: CopyOutcome) -> (u64, u64) {
        let at = outcome as usize;
        let Self(counts) = self;
        (counts.frames.get(at).copied().unwrap_or(0), counts.bytes.get(at).copied().unwrap_or(0))
    }

    /// What a rule asked for and was not handed to the tunnel device: frames and bytes, over all reasons.
    pub fn skipped(&self) -> (u64, u64) {
        let reasons = CopyOutcome::ALL.into_iter().filter(|outcome| is_skip(*outcome));
        reasons.map(|outcome| self.of(outcome)).fold((0, 0), |(frames, bytes), (f, b)| (frames + f, bytes + b))
    }

    /// Whether every copy that was asked for was either handed on or skipped for a reason.
    pub fn balances(&self) -> bool {
        let (skipped, mirrored) = (self.skipped(), self.of(CopyOutcome::Mirrored));
        self.of(CopyOutcome::Matched) == (skipped.0 + mirrored.0, skipped.1 + mirrored.1)
    }
}

/// Whether copies of that outcome were skipped.
pub fn is_skip(outcome: CopyOutcome) -> bool {
    !matches!(outcome, CopyOutcome::Matched | CopyOutcome::Mirrored | CopyOutcome::Fragmented | CopyOutcome::Cut)
}

/// The word for an outcome in metrics and summaries.
pub fn outcome_name(outcome: CopyOutcome) -> &'static str {
    match outcome {
        CopyOutcome::Matched => "matched",
        CopyOutcome::Mirrored => "mirrored",
        CopyOutcome::RateLimited => "rate-limited",
        CopyOutcome::TooBig => "too-big",
        CopyOutcome::NoTarget => "no-target",
        CopyOutcome::NoDevice => "no-device",
        CopyOutcome::NoMemory => "no-memory",
        CopyOutcome::Refused => "refused",
        CopyOutcome::NoLinkLayer => "no-link-layer",
        CopyOutcome::Fragmented => "fragmented",
        CopyOutcome::Cut => "cut",
    }
}

/// What became of copies behind the tap: after they were handed over, so they are among the mirrored ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TunnelLosses {
    /// Name of the tunnel device.
    pub device: String,
    /// Wire frames that it sent on.
    pub sent: u64,
    /// Frames that it dropped, as for want of memory.
    pub dropped: u64,
    /// Frames that it could not send on, as for want of a route.
    pub errors: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_balances_or_does_not() {
        let mut counts = CopyCounts::default();
        counts.frames[CopyOutcome::Matched as usize] = 10;
        counts.frames[CopyOutcome::Mirrored as usize] = 6;
        counts.frames[CopyOutcome::RateLimited as usize] = 3;
        counts.frames[CopyOutcome::Refused as usize] = 1;
        counts.frames[CopyOutcome::Fragmented as usize] = 2;
        counts.frames[CopyOutcome::Cut as usize] = 5;
        assert!(CopyTotals(counts).balances());
        assert_eq!(CopyTotals(counts).skipped(), (4, 0));
        counts.bytes[CopyOutcome::Mirrored as usize] = 1;
        assert!(!CopyTotals(counts).balances());
    }
}
