//! What happened to frames that have no flow of their own, or not quite the one they should have.

/// Why something was counted apart. One counter each, for each interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Reason {
    /// The frame is ARP (in frames).
    Arp = 0,
    /// The frame holds neither IP nor ARP (in frames).
    NonIp = 1,
    /// The frame ends inside its IP header or an extension header (in frames).
    Truncated = 2,
    /// The IP version is not the one that the link layer says (in frames).
    IpVersion = 3,
    /// The length of the IPv4 header cannot be (in frames).
    HeaderLength = 4,
    /// The total length is less than the header's (in frames).
    TotalLength = 5,
    /// Counted with ports 0: more IPv6 extension headers than are walked (in packets).
    ExtensionBound = 6,
    /// Counted with ports 0: a later fragment whose first one is not known (in packets).
    FragmentUnknown = 7,
    /// Lost: neither map nor ring buffer had room for the flow (in packets on the wire).
    FlowLost = 8,
    /// Lost: neither map nor ring buffer had room for the dropped packet (in packets on the wire).
    VerdictLost = 9,
    /// Lost: the kernel had no memory to bring a frame's headers together (in frames).
    NotGathered = 10,
    /// The frame is a copy that our own mirror made (in frames; a super-packet is one).
    OwnCopy = 11,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Arp,
        Self::NonIp,
        Self::Truncated,
        Self::IpVersion,
        Self::HeaderLength,
        Self::TotalLength,
        Self::ExtensionBound,
        Self::FragmentUnknown,
        Self::FlowLost,
        Self::VerdictLost,
        Self::NotGathered,
        Self::OwnCopy,
    ];
}

/// The key of a counter: interface in the upper half, number of the reason in the lower.
pub const fn reason_key(interface: u32, reason: Reason) -> u64 {
    ((interface as u64) << 32) | reason as u64
}

/// The interface of a counter's key, and the reason; `None` for a number that is no reason's.
pub fn split_reason_key(key: u64) -> (u32, Option<Reason>) {
    let number = (key & u64::from(u32::MAX)) as usize;
    ((key >> 32) as u32, Reason::ALL.get(number).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counters_key_comes_back() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
            assert_eq!(split_reason_key(reason_key(u32::MAX, reason)), (u32::MAX, Some(reason)));
        }
        assert_eq!(split_reason_key(5 << 32 | 12), (5, None));
    }
}
