//! What the kernel counted, beside frames: the other thing that a block can bring.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flowtap_abi::Marks;

use super::Direction;
use crate::packet::{Addresses, Refusal};
use crate::time::Timestamp;

/// Packets of one flow, all within one interval. A flow may come more than once; counts add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Index of its interface in [`super::Interfaces`].
    pub interface: u16,
    /// Which way, as the hook tells.
    pub direction: Direction,
    /// Source and destination.
    pub addresses: Addresses,
    /// IANA number.
    pub protocol: u8,
    /// Source port, 0 where the protocol has none.
    pub src_port: u16,
    /// Destination port, likewise.
    pub dst_port: u16,
    /// Packets on the wire.
    pub packets: u64,
    /// The length of their IP packets on the wire.
    pub bytes: u64,
    /// When the first one was seen.
    pub first: Timestamp,
    /// When the last one was seen, in the same interval.
    pub last: Timestamp,
    /// TCP flags or ICMP type and code, and the VLAN.
    pub marks: Marks,
    /// Set where the kernel turned the packets away.
    pub rejection: Option<Rejection>,
}

/// That the kernel turned packets away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub reason: DropReason,
    /// Whether they had been counted before, as packets of the same flow: then they are no longer among those let in.
    pub was_counted: bool,
}

/// A drop reason of this run: its place in [`DropReasons`]. Six bits wide, as it takes part in the flow key; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DropReason(u8);

impl DropReason {
    /// The number, 1 to [`DROP_REASONS_MAX`].
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The reason of that number; `None` for 0, and for what is no number of a reason.
    pub const fn from_number(number: u8) -> Option<Self> {
        if number >= 1 && number <= DROP_REASONS_MAX { Some(Self(number)) } else { None }
    }
}

/// How many drop reasons one run can tell apart; any further one is told as `OTHER`.
pub const DROP_REASONS_MAX: u8 = 63;

/// The name under which reasons beyond the bound are told.
const OTHER: &str = "OTHER";

/// The names of the drop reasons met so far. Cheap to clone; all clones are one list. Touched once a reason and once an
/// interval.
#[derive(Debug, Clone, Default)]
pub struct DropReasons {
    names: Arc<Mutex<Vec<Arc<str>>>>,
}

impl DropReasons {
    /// The reason of that name, which is added if it is new.
    pub fn intern(&self, name: &str) -> DropReason {
        let mut names = self.lock();
        let wanted = if names.len() + 1 < usize::from(DROP_REASONS_MAX) { name } else { OTHER };
        let known = names.iter().position(|known| **known == *name);
        let at = known.or_else(|| names.iter().position(|known| **known == *wanted)).unwrap_or_else(|| {
            names.push(wanted.into());
            names.len() - 1
        });
        DropReason(u8::try_from(at + 1).unwrap_or(DROP_REASONS_MAX))
    }

    /// All names so far.
    pub fn names(&self) -> DropReasonNames {
        DropReasonNames(self.lock().clone())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<str>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names of [`DropReasons`] at one moment.
#[derive(Debug, Clone, Default)]
pub struct DropReasonNames(Vec<Arc<str>>);

impl DropReasonNames {
    /// What a reason is called.
    pub fn get(&self, reason: DropReason) -> Option<Arc<str>> {
        self.0.get(usize::from(reason.number()) - 1).cloned()
    }
}

/// Frames that the kernel saw and that gave no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// How many.
    pub frames: u64,
}

/// Why packets are counted under ports 0 although they have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Portless {
    /// More IPv6 extension headers than are walked.
    ExtensionBound,
    /// A later fragment whose first one is not known.
    FragmentUnknown,
}

impl Portless {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::ExtensionBound, Self::FragmentUnknown];

    /// The name that its counter carries.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExtensionBound => "extension-bound",
            Self::FragmentUnknown => "fragment-unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_beyond_the_bound_are_told_together() {
        let reasons = DropReasons::default();
        let first = reasons.intern("NETFILTER_DROP");
        assert_eq!(first.number(), 1);
        for number in 0..100 {
            reasons.intern(&format!("REASON_{number}"));
        }
        let names = reasons.names();
        let last = DropReason::from_number(DROP_REASONS_MAX).unwrap();
        assert_eq!((names.get(last).as_deref(), names.get(first).as_deref()), (Some(OTHER), Some("NETFILTER_DROP")));
        assert_eq!(reasons.intern("NETFILTER_DROP"), first);
        assert_eq!(reasons.intern("YET_ANOTHER").number(), DROP_REASONS_MAX);
        assert_eq!(DropReason::from_number(0), None);
        assert_eq!(DropReason::from_number(64), None);
    }
}
