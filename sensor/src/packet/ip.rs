//! What both IP versions tell, before the ports.

use super::cursor::Cursor;
use super::link::Network;
use super::{Addresses, Fault, Fragment, ipv4, ipv6};

/// An IP header and what it carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ip<'a> {
    /// Source and destination.
    pub(super) addresses: Addresses,
    /// Protocol of the payload.
    pub(super) protocol: u8,
    /// Length of header and payload.
    pub(super) ip_bytes: u32,
    /// Whether the payload is a piece.
    pub(super) fragment: Fragment,
    /// The payload, as far as it was captured and belongs to this packet.
    pub(super) payload: Cursor<'a>,
}

/// Reads the IP header that `network` announces. `wire_bytes` is what the frame held from here on, and is needed only
/// where the header leaves its length open.
#[inline]
pub(super) fn read(network: Network, cursor: Cursor<'_>, wire_bytes: u32) -> Result<Ip<'_>, Fault> {
    let version = match network {
        Network::Ipv4 => 4,
        Network::Ipv6 => 6,
        Network::Either => cursor.peek().ok_or(Fault::TruncatedIp)? >> 4,
    };
    match version {
        4 => ipv4::read(cursor, wire_bytes),
        6 => ipv6::read(cursor, wire_bytes),
        _ => Err(Fault::IpVersion),
    }
}
