//! What must hold for any bytes at all. The fuzz target calls [`fuzz`]; so do our property tests.

use super::{Addresses, Fragment, Packet, Refusal, fast, parse};
use crate::capture::LinkType;

/// Parses `data` as a frame: its first byte chooses the link type.
///
/// # Panics
/// Where a promise of this module is broken.
pub fn fuzz(data: &[u8]) {
    let Some((&choice, captured)) = data.split_first() else { return };
    let link_type = LINK_TYPES[usize::from(choice) % LINK_TYPES.len()];
    let original_bytes = u32::try_from(captured.len()).unwrap_or(u32::MAX);
    let parsed = parse(link_type, captured, original_bytes);

    if let Err(refusal) = parsed {
        assert!(Refusal::all().any(|known| known == refusal), "{refusal:?} is not among those that are told");
    }
    if let Ok(packet) = parsed {
        check_packet(&packet);
    }
    if link_type == LinkType::Ethernet {
        check_fast_paths(captured, parsed);
    }
}

fn check_packet(packet: &Packet) {
    let header_bytes = match packet.addresses {
        Addresses::V4 { .. } => 20,
        Addresses::V6 { .. } => 40,
    };
    assert!(packet.ip_bytes >= header_bytes, "shorter than its header");
    if matches!(packet.fragment, Fragment::Later { .. }) {
        assert_eq!((packet.src_port, packet.dst_port, packet.tcp_flags), (0, 0, 0), "a later piece has no header");
        assert_eq!(packet.icmp, None, "a later piece has no header");
    }
    assert!(packet.tcp_flags == 0 || packet.protocol == 6, "flags without TCP");
    assert!(packet.icmp.is_none() || matches!(packet.protocol, 1 | 58), "type and code without ICMP");
    assert!(packet.vlan.is_none_or(|id| id < 4096), "an identifier has twelve bits");
}

fn check_fast_paths(captured: &[u8], parsed: Result<Packet, Refusal>) {
    if let Some(fast) = fast::ethernet_ipv4(captured) {
        let addresses = Addresses::V4 { src: fast.src, dst: fast.dst };
        check_fast_path(addresses, fast, parsed);
    }
    if let Some(fast) = fast::ethernet_ipv6(captured) {
        let addresses = Addresses::V6 { src: fast.src, dst: fast.dst };
        check_fast_path(addresses, fast, parsed);
    }
}

fn check_fast_path<A: Copy>(addresses: Addresses, fast: fast::FastPacket<A>, parsed: Result<Packet, Refusal>) {
    let expected = parsed.map(|packet| Packet {
        addresses,
        protocol: fast.protocol,
        src_port: fast.src_port,
        dst_port: fast.dst_port,
        tcp_flags: fast.tcp_flags,
        ip_bytes: fast.ip_bytes,
        fragment: Fragment::None,
        icmp: None,
        vlan: None,
        ..packet
    });
    assert!(parsed.is_ok(), "the fast path accepts what parse refuses");
    assert_eq!(parsed, expected, "the fast path differs from parse");
}

const LINK_TYPES: [LinkType; 13] = [
    LinkType::Ethernet,
    LinkType::LinuxSll,
    LinkType::LinuxSll2,
    LinkType::Raw,
    LinkType::Null,
    LinkType::Loop,
    LinkType::Ppp,
    LinkType::Pppoe,
    LinkType::CiscoHdlc,
    LinkType::Ieee80211,
    LinkType::Radiotap,
    LinkType::Nflog,
    LinkType::Unsupported,
];
