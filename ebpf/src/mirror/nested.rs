//! Copies of copies: a tunnel datagram in which there is a tunnel datagram.
//!
//! Authority: RFC 7348 section 5 and RFC 8926 section 3.4 for the eight bytes before the inner frame.

use super::facts::Facts;
use crate::headers::{ETHERNET_BYTES, IPV4, IPV6, UDP, VLAN_TAG_BYTES};
use aya_ebpf::programs::TcContext;
use flowtap_abi::mirror::RuleList;

/// Whether a datagram to a tunnel's port holds another one. What is written by a tunnel device has no more headers than are
/// looked through here.
#[inline(always)]
pub(super) fn is_twice(context: &TcContext, list: &RuleList, facts: &Facts) -> Option<bool> {
    if facts.payload_at == 0 || !list.tunnel_ports.contains(&facts.dst_port) {
        return None;
    }
    let tunnel_at = facts.payload_at as usize;
    let tunnel: [u8; TUNNEL_BYTES] = context.load(tunnel_at).ok()?;
    if !matches!(tunnel, [VXLAN_FLAGS, ..] | [0, _, 0x65, 0x58, ..]) {
        return None;
    }
    let mut ip_at = tunnel_at + TUNNEL_BYTES + ETHERNET_BYTES;
    let mut ether_type: u16 = context.load(ip_at - 2).ok()?;
    if matches!(u16::from_be(ether_type), 0x8100 | 0x88a8) {
        ip_at += VLAN_TAG_BYTES;
        ether_type = context.load(ip_at - 2).ok()?;
    }
    let (protocol_at, header_bytes) = match ether_type {
        IPV4 => {
            let first: u8 = context.load(ip_at).ok()?;
            (9, usize::from(first & 0xf) * 4)
        }
        IPV6 => (6, 40),
        _ => return None,
    };
    let protocol: u8 = context.load(ip_at + protocol_at).ok()?;
    let port: u16 = context.load(ip_at + header_bytes + 2).ok()?;
    Some(protocol == UDP && list.tunnel_ports.contains(&u16::from_be(port)))
}

const TUNNEL_BYTES: usize = 8;
const VXLAN_FLAGS: u8 = 0x08;
