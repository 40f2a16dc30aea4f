//! From the first byte of a frame to the IP header, whatever the link type.

use super::cursor::Cursor;
use super::{Fault, Refusal, bsd_loopback, cisco_hdlc, ethernet, ieee80211, linux_sll, nflog, ppp, pppoe, radiotap};
use crate::capture::{Direction, LinkType};

/// What the headers below IP say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    /// What comes next.
    pub(super) network: Network,
    /// Identifier of the outermost VLAN tag.
    pub(super) vlan: Option<u16>,
    /// Source and destination address of an Ethernet header.
    pub(super) ether: Option<([u8; 6], [u8; 6])>,
    /// What the link layer knows of the direction.
    pub(super) direction: Direction,
}

impl From<Network> for Link {
    fn from(network: Network) -> Self {
        Self { network, vlan: None, ether: None, direction: Direction::Unknown }
    }
}

/// Which IP header comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// IPv4 was announced.
    Ipv4,
    /// IPv6 was announced.
    Ipv6,
    /// IP was announced; the header's first four bits say which.
    Either,
}

/// Takes everything before the IP header.
#[inline]
pub(super) fn read(link_type: LinkType, cursor: &mut Cursor<'_>) -> Result<Link, Refusal> {
    match link_type {
        LinkType::Ethernet => ethernet::read(cursor),
        LinkType::LinuxSll => linux_sll::read_v1(cursor),
        LinkType::LinuxSll2 => linux_sll::read_v2(cursor),
        LinkType::Raw => Ok(Network::Either.into()),
        LinkType::Null | LinkType::Loop => bsd_loopback::read(cursor).map(Link::from),
        LinkType::Ppp => ppp::read_framed(cursor),
        LinkType::Pppoe => pppoe::read(cursor).map(Link::from),
        LinkType::CiscoHdlc => cisco_hdlc::read(cursor),
        LinkType::Ieee80211 => ieee80211::read(cursor, ieee80211::Padding::None),
        LinkType::Radiotap => radiotap::read(cursor),
        LinkType::Nflog => nflog::read(cursor).map(Link::from),
        LinkType::Unsupported => Err(Fault::UnsupportedLinkType.into()),
    }
}
