//! How later fragments find the ports that only their first fragment holds.

/// What the fragments of one datagram have in common (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct FragmentKey {
    /// Kernel's index of the interface.
    pub interface: u32,
    /// Source address; an IPv4 address stands in front and zeros follow.
    pub src: [u8; 16],
    /// Destination address, likewise.
    pub dst: [u8; 16],
    /// Identification as it stands on the wire, widened to 32 bits for IPv4.
    pub id: u32,
    /// IANA number of the protocol; zero for IPv6, whose fragments need not name the same one.
    pub protocol: u8,
    /// A [`Direction`](crate::Direction).
    pub direction: u8,
    /// 4 or 6.
    pub version: u8,
    /// Always zero: there is no padding.
    pub zero: u8,
}

/// What a first fragment says for those that follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct FragmentPorts {
    /// Source and destination port as they stand on the wire.
    pub ports: [u8; 4],
    /// IANA number of the protocol behind all extension headers.
    pub protocol: u8,
    /// 1: it is of a mirrored copy, and so are those that follow. Only the mirror says so.
    pub is_of_a_copy: u8,
    /// Always zero: there is no padding.
    pub zero: [u8; 2],
}
