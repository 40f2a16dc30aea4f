//! Flow keys, what is counted for one, and the record of a flow that found no room.

use crate::Marks;

/// Which way a packet went, from the interface's point of view. The numbers are those of the sensor's own direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// Towards the host.
    Ingress = 1,
    /// Away from the host.
    Egress = 2,
}

/// Flow key of an IPv4 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct FlowKeyV4 {
    /// Kernel's index of the interface.
    pub interface: u32,
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
    /// Source and destination port as they stand on the wire; zero where the protocol has none.
    pub ports: [u8; 4],
    /// IANA number of the protocol.
    pub protocol: u8,
    /// A [`Direction`].
    pub direction: u8,
    /// Always zero: there is no padding.
    pub zero: [u8; 2],
}

/// Flow key of an IPv6 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct FlowKeyV6 {
    /// Kernel's index of the interface.
    pub interface: u32,
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
    /// Source and destination port as they stand on the wire; zero where the protocol has none.
    pub ports: [u8; 4],
    /// IANA number of the first header that is no extension.
    pub protocol: u8,
    /// A [`Direction`].
    pub direction: u8,
    /// Always zero: there is no padding.
    pub zero: [u8; 2],
}

/// What is counted for a key, since the generation began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Counts {
    /// Packets on the wire: a super-packet counts as its segments.
    pub packets: u64,
    /// Length of their IP packets on the wire, in bytes: headers and payload, no link layer.
    pub bytes: u64,
    /// When the first one was counted, in nanoseconds of the kernel's coarse monotonic clock.
    pub first_ns: u64,
    /// When the last one was counted, on the same clock.
    pub last_ns: u64,
    /// TCP flags or ICMP type and code, and the VLAN.
    pub marks: Marks,
}

/// A count that found no room in its map, on its way through the ring buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Overflow {
    /// An [`OverflowKind`]: which key this is.
    pub kind: u32,
    /// Why it was not counted in the map: a positive error number of the kernel (7, `E2BIG`: the map is full).
    pub error: u32,
    /// The key, in as many words as it has; zero behind them.
    pub key: [u32; 12],
    /// What was to be counted.
    pub counts: Counts,
}

/// Which key an [`Overflow`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum OverflowKind {
    /// A [`FlowKeyV4`].
    FlowV4 = 4,
    /// A [`FlowKeyV6`].
    FlowV6 = 6,
    /// A [`VerdictKey`](crate::VerdictKey).
    Verdict = 9,
}
