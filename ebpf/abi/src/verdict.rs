//! Packets that the kernel dropped, by flow and reason.

/// Key of dropped packets: a flow and why. What is counted for it are [`Counts`](crate::Counts).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct VerdictKey {
    /// Kernel's index of the interface; zero where the kernel names none (a drop on the way out, before routing
    /// finished).
    pub interface: u32,
    /// The running kernel's number of the reason.
    pub reason: u32,
    /// Source address; an IPv4 address stands in front and zeros follow.
    pub src: [u8; 16],
    /// Destination address, likewise.
    pub dst: [u8; 16],
    /// Source and destination port as they stand on the wire; zero where the protocol has none.
    pub ports: [u8; 4],
    /// IANA number of the protocol.
    pub protocol: u8,
    /// A [`Direction`](crate::Direction).
    pub direction: u8,
    /// 4 or 6.
    pub version: u8,
    /// Always zero: there is no padding.
    pub zero: u8,
}
