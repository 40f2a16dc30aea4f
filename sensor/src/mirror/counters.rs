//! What became of the packets that sessions matched, in wire frames at the tap.
//!
//! Authority: CloudWatch's metrics of traffic mirroring, whose eight names [`SessionCounts::aws`] gives. One equation
//! holds for each session and direction: matched = mirrored + skipped, each by reason, in packets and in bytes. A
//! session that replicates matches a packet once for each target. A super-packet that was dropped and of which not all can
//! be read is one frame, as is its copy. Bytes are those of the frame on the wire, Ethernet
//! header included, whatever is cut off or wrapped around the copy.

use super::executor::{Copied, Taken};
#[cfg(feature = "ebpf")]
use super::kernel::{CopyOutcome, CopyTotals};
use crate::capture::Direction;

/// Packets and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Volume {
    /// How many wire frames.
    pub packets: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

impl Volume {
    /// Adds more of the same.
    #[inline]
    pub fn add(&mut self, packets: u64, bytes: u64) {
        self.packets += packets;
        self.bytes += bytes;
    }

    fn merge(&mut self, other: Self) {
        self.add(other.packets, other.bytes);
    }
}

/// Why a copy that a rule asked for was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Skip {
    /// The session's rate was used up.
    RateLimit,
    /// The target's queue was full: it takes copies slower than they come.
    QueueFull,
    /// No target of the session is healthy.
    NoTarget,
    /// Encapsulated, it does not fit the path, and the session wants no fragments; or no IP packet can hold it.
    TooBig,
    /// The capture kept too little of the frame.
    Partial,
    /// The kernel had no memory for it.
    NoBuffer,
    /// There is no way to the target.
    Unreachable,
    /// The kernel refused to send it for another reason.
    Refused,
    /// The kernel mirrors, the interface has no Ethernet headers, and no device can be had that gives its copies some.
    NoLinkLayer,
    /// The kernel dropped it after the same session had taken it at the interface.
    AlreadyTaken,
}

impl Skip {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::RateLimit,
        Self::QueueFull,
        Self::NoTarget,
        Self::TooBig,
        Self::Partial,
        Self::NoBuffer,
        Self::Unreachable,
        Self::Refused,
        Self::NoLinkLayer,
        Self::AlreadyTaken,
    ];

    /// For people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimit => "rate-limit",
            Self::QueueFull => "queue-full",
            Self::NoTarget => "no-target",
            Self::TooBig => "too-big",
            Self::Partial => "partial",
            Self::NoBuffer => "no-buffer",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::NoLinkLayer => "no-link-layer",
            Self::AlreadyTaken => "already-taken",
        }
    }
}

/// What became of one direction of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// What rules asked for.
    pub matched: Volume,
    /// What was sent.
    pub mirrored: Volume,
    skipped: [Volume; Skip::ALL.len()],
    /// Of what was sent: frames that were cut to the packet length, and the bytes cut off.
    pub cut: Volume,
    /// Of what was sent: copies that went as fragments, and their bytes.
    pub fragmented: Volume,
    /// Of what was sent: copies of dropped packets that end before the packet does, as not all of it could be read, and
    /// the bytes missing.
    pub partial: Volume,
}

impl Counts {
    /// What the kernel counted for one direction of a session.
    #[cfg(feature = "ebpf")]
    pub fn of_kernel(totals: &CopyTotals) -> Self {
        let volume = |outcome| {
            let (packets, bytes) = totals.of(outcome);
            Volume { packets, bytes }
        };
        let mut counts = Self {
            matched: volume(CopyOutcome::Matched),
            mirrored: volume(CopyOutcome::Mirrored),
            cut: volume(CopyOutcome::Cut),
            fragmented: volume(CopyOutcome::Fragmented),
            ..Self::default()
        };
        for (outcome, reason) in [
            (CopyOutcome::RateLimited, Skip::RateLimit),
            (CopyOutcome::TooBig, Skip::TooBig),
            (CopyOutcome::NoTarget, Skip::NoTarget),
            (CopyOutcome::NoDevice, Skip::Unreachable),
            (CopyOutcome::NoMemory, Skip::NoBuffer),
            (CopyOutcome::Refused, Skip::Refused),
            (CopyOutcome::NoLinkLayer, Skip::NoLinkLayer),
        ] {
            let (packets, bytes) = totals.of(outcome);
            counts.skip(reason, packets, bytes);
        }
        counts
    }

    /// Takes note of copies that were not sent.
    #[inline]
    pub fn skip(&mut self, reason: Skip, packets: u64, bytes: u64) {
        if let Some(skipped) = self.skipped.get_mut(reason as usize) {
            skipped.add(packets, bytes);
        }
    }

    /// Takes note of what became of one copy; of one that is queued later, by whoever has the queue.
    #[inline]
    pub fn settle(&mut self, copy: &Copied<'_>, taken: Result<Taken, Skip>) {
        match taken {
            Ok(Taken::Sent { fragmented }) => {
                self.sent(copy.wire_bytes, copy.inner.len() as u64, copy.is_partial, fragmented);
            }
            Ok(Taken::Queued) => {}
            Err(reason) => self.skip(reason, 1, copy.wire_bytes),
        }
    }

    /// Takes note of a copy that was sent, of a frame of `wire_bytes` of which it holds `inner_bytes`: fewer where it was
    /// cut to the packet length, or could be read in part alone.
    #[inline]
    pub fn sent(&mut self, wire_bytes: u64, inner_bytes: u64, is_partial: bool, fragmented: bool) {
        self.mirrored.add(1, wire_bytes);
        if inner_bytes < wire_bytes {
            let shortened = if is_partial { &mut self.partial } else { &mut self.cut };
            shortened.add(1, wire_bytes - inner_bytes);
        }
        if fragmented {
            self.fragmented.add(1, wire_bytes);
        }
    }

    /// What was skipped, by reason; reasons that never were are left out.
    pub fn skipped(&self) -> impl Iterator<Item = (Skip, Volume)> + '_ {
        let counted = Skip::ALL.into_iter().zip(self.skipped);
        counted.filter(|(_, volume)| *volume != Volume::default())
    }

    /// What was skipped for any reason.
    pub fn skipped_total(&self) -> Volume {
        let mut total = Volume::default();
        self.skipped.iter().for_each(|volume| total.merge(*volume));
        total
    }

    /// Whether matched = mirrored + skipped.
    pub fn balances(&self) -> bool {
        let mut accounted = self.skipped_total();
        accounted.merge(self.mirrored);
        accounted == self.matched
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.matched.merge(other.matched);
        self.mirrored.merge(other.mirrored);
        self.skipped.iter_mut().zip(other.skipped).for_each(|(ours, theirs)| ours.merge(theirs));
        self.cut.merge(other.cut);
        self.fragmented.merge(other.fragmented);
        self.partial.merge(other.partial);
    }
}

/// What became of a session's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionCounts {
    /// Towards the host.
    pub ingress: Counts,
    /// Away from it.
    pub egress: Counts,
}

impl SessionCounts {
    /// Those of a direction. A packet of unknown direction is matched by nothing, so there is no third.
    #[inline]
    pub fn of(&mut self, direction: Direction) -> &mut Counts {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress | Direction::Unknown => &mut self.ingress,
        }
    }

    /// Both directions.
    pub fn total(&self) -> Counts {
        let mut total = self.ingress;
        total.merge(&self.egress);
        total
    }

    /// Whether both directions balance.
    pub fn balances(&self) -> bool {
        self.ingress.balances() && self.egress.balances()
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.ingress.merge(&other.ingress);
        self.egress.merge(&other.egress);
    }

    /// The counters under CloudWatch's names.
    pub fn aws(&self) -> [(&'static str, u64); 8] {
        let (skip_in, skip_out) = (self.ingress.skipped_total(), self.egress.skipped_total());
        [
            ("NetworkMirrorIn", self.ingress.mirrored.bytes),
            ("NetworkMirrorOut", self.egress.mirrored.bytes),
            ("NetworkPacketsMirrorIn", self.ingress.mirrored.packets),
            ("NetworkPacketsMirrorOut", self.egress.mirrored.packets),
            ("NetworkSkipMirrorIn", skip_in.bytes),
            ("NetworkSkipMirrorOut", skip_out.bytes),
            ("NetworkPacketsSkipMirrorIn", skip_in.packets),
            ("NetworkPacketsSkipMirrorOut", skip_out.packets),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place() {
        let mut counts = Counts::default();
        for (at, reason) in Skip::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            counts.skip(reason, 1 << at, 10 << at);
        }
        assert_eq!(counts.skipped_total(), Volume { packets: 0x3ff, bytes: 0x3ff * 10 });
        assert!(counts.skipped().all(|(reason, volume)| volume.packets == 1 << reason as usize));
    }

    #[test]
    fn what_is_missing_of_a_copy_is_either_cut_or_could_not_be_read() {
        let mut counts = Counts::default();
        counts.sent(100, 60, false, false);
        counts.sent(100, 30, true, true);
        counts.sent(100, 100, true, false);
        let volume = |packets, bytes| Volume { packets, bytes };
        assert_eq!((counts.mirrored, counts.cut), (volume(3, 300), volume(1, 40)));
        assert_eq!((counts.partial, counts.fragmented), (volume(1, 70), volume(1, 100)));
    }

    #[test]
    fn a_copy_that_is_nowhere_unbalances_the_ledger() {
        let mut session = SessionCounts::default();
        session.of(Direction::Egress).matched.add(3, 300);
        assert!(!session.balances());
        session.of(Direction::Egress).mirrored.add(2, 200);
        session.of(Direction::Egress).skip(Skip::NoTarget, 1, 99);
        assert!(!session.balances(), "a byte is missing");
        session.of(Direction::Egress).skip(Skip::RateLimit, 0, 1);
        assert!(session.balances());
        let aws: std::collections::BTreeMap<_, _> = session.aws().into();
        assert_eq!((aws["NetworkMirrorOut"], aws["NetworkPacketsSkipMirrorOut"]), (200, 1));
        assert_eq!((aws["NetworkMirrorIn"], aws["NetworkSkipMirrorOut"]), (0, 100));
    }
}
