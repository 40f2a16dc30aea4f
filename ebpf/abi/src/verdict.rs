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
    /// 1 if the packet had passed the counting point of its interface and direction before it was dropped, else 0.
    pub counted: u8,
}

/// What the counting point leaves in the packet's control buffer, so that a drop further on at the same hook is known to
/// come after it. The buffer is scratch memory that the kernel gives to programs; every layer writes over it.
pub const fn counted_mark(interface: u32, direction: u8) -> u32 {
    COUNTED ^ (interface << 2) ^ direction as u32
}

/// Which word of the control buffer that programs share it is left in: the last, as those before it are the most used.
pub const MARK_WORD: usize = 4;

/// "flow", so that other users of the buffer will hardly leave the same.
const COUNTED: u32 = 0x666c_6f77;

/// What stands before the bytes of a dropped packet, a copy of which was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct DropCopy {
    /// When it was dropped, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// Kernel's index of the interface; zero where the kernel names none.
    pub interface: u32,
    /// How long the packet is, the Ethernet header included where there is one.
    pub packet_bytes: u32,
    /// The tag that the kernel keeps beside the packet, as `vlan_all` holds it: first the protocol as it stands on the
    /// wire, then the tag in the machine's order. Zero where there is none.
    pub tag: u32,
    /// How many of its bytes follow.
    pub copied_bytes: u16,
    /// Of these, the Ethernet header; zero where it begins with its IP header.
    pub link_bytes: u16,
    /// Payload of each segment of a super-packet, else zero.
    pub gso_bytes: u16,
    /// From where on the transport checksum is still to be computed, from the first byte copied; zero where it is
    /// complete.
    pub checksum_start: u16,
    /// Where it stands, from there on.
    pub checksum_offset: u16,
    /// A [`Direction`](crate::Direction).
    pub direction: u8,
    /// 1 if the packet had passed the counting point of its interface and direction before it was dropped, else 0.
    pub counted: u8,
}

/// Sizes of what can follow a [`DropCopy`]: of each packet as much as fits the smallest in which its readable part does,
/// or the largest.
pub const DROP_COPY_BYTES: [usize; 3] = [256, 2048, 16_384];
