//! One pass over a frame: what a flow record needs to know of it.
//!
//! [`parse`] walks from the link layer to the outermost IP header and the ports behind it, and never further. A frame
//! becomes a [`Packet`] or a [`Refusal`]; it is never guessed. Each protocol is one file; `link` chooses the first, `ip`
//! and `transport` follow. [`fast`] answers for the commonest frames without the walk.

use std::net::IpAddr;

use crate::capture::{Direction, LinkType};
use cursor::Cursor;

/// Reads a frame of which `captured` was kept and which was `original_bytes` long on the wire.
///
/// The original length counts only where an IP header leaves its own length open; the captured length never does.
///
/// # Errors
/// A [`Refusal`]: the frame holds no IP, or its IP header cannot be read.
#[inline]
pub fn parse(link_type: LinkType, captured: &[u8], original_bytes: u32) -> Result<Packet, Refusal> {
    let mut cursor = Cursor::new(captured);
    let link = link::read(link_type, &mut cursor)?;
    let wire_bytes = original_bytes.saturating_sub(u32::try_from(captured.len() - cursor.len()).unwrap_or(u32::MAX));
    let ip = ip::read(link.network, cursor, wire_bytes)?;
    Ok(Packet::new(&link, &ip))
}

/// The parsed view of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Source and destination of the outermost IP header.
    pub addresses: Addresses,
    /// IANA number: of the IPv4 header, or the first header of an IPv6 packet that is no extension we walk. An
    /// extension that is cut, or one more than we walk, stands here itself: the packet is counted, without ports.
    pub protocol: u8,
    /// Source port of TCP, UDP, SCTP, DCCP and UDP-Lite, else 0. Also 0 where the capture ends before it.
    pub src_port: u16,
    /// Destination port, likewise.
    pub dst_port: u16,
    /// The TCP flag byte (CWR to FIN), 0 where it is no TCP or the capture ends before it.
    pub tcp_flags: u8,
    /// The IP packet's length: header and payload, no Ethernet.
    pub ip_bytes: u32,
    /// Whether this is a piece of a larger datagram.
    pub fragment: Fragment,
    /// Type and code of ICMP and ICMPv6 (not of a later fragment).
    pub icmp: Option<(u8, u8)>,
    /// Identifier of the outermost 802.1Q or 802.1ad tag.
    pub vlan: Option<u16>,
    /// Source and destination address of an Ethernet header, in this order.
    pub ether: Option<([u8; 6], [u8; 6])>,
    /// What the link layer says of the direction (Linux cooked packet type); `Unknown` otherwise.
    pub direction: Direction,
}

impl Packet {
    /// What the headers say, the transport's read here.
    #[inline]
    fn new(link: &link::Link, ip: &ip::Ip<'_>) -> Self {
        let transport = transport::read(ip);
        Self {
            addresses: ip.addresses,
            protocol: ip.protocol,
            src_port: transport.src_port,
            dst_port: transport.dst_port,
            tcp_flags: transport.tcp_flags,
            ip_bytes: ip.ip_bytes,
            fragment: ip.fragment,
            icmp: transport.icmp,
            vlan: link.vlan,
            ether: link.ether,
            direction: link.direction,
        }
    }
}

/// Source and destination, as big-endian numbers (10.0.0.1 is `0x0a00_0001`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// Internet Protocol version 4.
    V4 {
        /// Source.
        src: u32,
        /// Destination.
        dst: u32,
    },
    /// Internet Protocol version 6.
    V6 {
        /// Source.
        src: u128,
        /// Destination.
        dst: u128,
    },
}

impl Addresses {
    /// Source and destination, as the standard library has them.
    #[inline]
    pub fn ends(self) -> (IpAddr, IpAddr) {
        match self {
            Self::V4 { src, dst } => (IpAddr::V4(src.into()), IpAddr::V4(dst.into())),
            Self::V6 { src, dst } => (IpAddr::V6(src.into()), IpAddr::V6(dst.into())),
        }
    }
}

/// Whether a packet is a piece of a larger one (RFC 791, RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fragment {
    /// Whole, or an IPv6 atomic fragment.
    #[default]
    None,
    /// Offset zero and more to come: it holds the ports.
    First {
        /// Identification, widened to 32 bits for IPv4.
        id: u32,
    },
    /// Offset above zero: it holds no ports.
    Later {
        /// Identification, widened to 32 bits for IPv4.
        id: u32,
    },
}

#[cfg(test)]
mod against_etherparse;
mod bsd_loopback;
mod cisco_hdlc;
#[cfg(test)]
mod conformance;
mod cursor;
mod ethernet;
mod ethertype;
pub mod fast;
mod fuzz;
mod ieee80211;
mod ip;
mod ipv4;
mod ipv6;
mod layout;
mod link;
mod linux_sll;
mod llc;
mod mpls;
mod nflog;
mod ppp;
mod pppoe;
mod radiotap;
mod refusal;
#[cfg(test)]
mod tests;
mod transport;

pub use fuzz::fuzz;
pub use layout::{Layout, locate};
pub use refusal::{Fault, NotIp, Refusal};
