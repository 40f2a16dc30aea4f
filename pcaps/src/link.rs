//! What is wrapped around a packet to make a frame: Ethernet and what rides on it.
//!
//! Each wrapper is a function from a packet to the bytes of a frame, or makes one. Authorities: IEEE 802.3, 802.1Q,
//! 802.1ad, 802.2; RFC 1042 (SNAP), RFC 3032 (MPLS), RFC 2516 (PPPoE). Other link types are in [`cooked`], [`serial`]
//! and [`wireless`].

pub mod cooked;
pub mod serial;
pub mod wireless;

use std::net::IpAddr;

use crate::cast::ROUTER;
use crate::packet::{Packet, length_u16};

/// Link types of the tcpdump.org registry that the captures use.
#[expect(missing_docs, reason = "the names are the registry's own")]
pub mod link_type {
    pub const NULL: u16 = 0;
    pub const ETHERNET: u16 = 1;
    pub const PPP: u16 = 9;
    pub const PPP_HDLC: u16 = 50;
    pub const PPPOE: u16 = 51;
    pub const RAW: u16 = 101;
    pub const C_HDLC: u16 = 104;
    pub const IEEE802_11: u16 = 105;
    pub const LOOP: u16 = 108;
    pub const LINUX_SLL: u16 = 113;
    pub const RADIOTAP: u16 = 127;
    pub const BLUETOOTH_HCI_H4: u16 = 187;
    pub const IPV4: u16 = 228;
    pub const IPV6: u16 = 229;
    pub const NFLOG: u16 = 239;
    pub const LINUX_SLL2: u16 = 276;
}

/// Ethernet types of the IEEE registry.
#[expect(missing_docs, reason = "the names are the registry's own")]
pub mod ether_type {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const VLAN: u16 = 0x8100;
    pub const IPV6: u16 = 0x86dd;
    pub const MPLS: u16 = 0x8847;
    pub const MPLS_MULTICAST: u16 = 0x8848;
    pub const PPPOE_DISCOVERY: u16 = 0x8863;
    pub const PPPOE_SESSION: u16 = 0x8864;
    pub const EAPOL: u16 = 0x888e;
    pub const QINQ: u16 = 0x88a8;
    pub const LLDP: u16 = 0x88cc;
    pub const MACSEC: u16 = 0x88e5;
    pub const QINQ_OLD: u16 = 0x9100;
}

/// PPP protocol number of IPv4 (RFC 1332).
pub const PPP_IPV4: u16 = 0x0021;
/// PPP protocol number of IPv6 (RFC 5072).
pub const PPP_IPV6: u16 = 0x0057;
/// PPP protocol number of the link control protocol (RFC 1661).
pub const PPP_LCP: u16 = 0xc021;

/// The shortest Ethernet frame without its check sequence; what is shorter is padded with zeros.
pub const ETHER_FRAME_BYTES_MIN: usize = 60;
/// Length of an Ethernet header without tags.
pub const ETHER_HEADER_BYTES: usize = 14;

/// The packet's bytes and nothing before them.
pub fn raw(packet: &Packet) -> Vec<u8> {
    packet.bytes.clone()
}

/// Ethernet II, without padding, as a host sees its own frames.
pub fn ethernet(packet: &Packet) -> Vec<u8> {
    ether(packet, ether_type_of(packet), &packet.bytes)
}

/// Ethernet II, padded to [`ETHER_FRAME_BYTES_MIN`] as on the wire.
pub fn ethernet_padded(packet: &Packet) -> Vec<u8> {
    padded(ethernet(packet))
}

/// Ethernet with VLAN tags, outermost first: the tag's Ethernet type and its control information (priority and
/// identifier).
pub fn vlan(tags: &[(u16, u16)]) -> impl Fn(&Packet) -> Vec<u8> {
    move |packet| {
        let (first_type, body) = tagged(tags, ether_type_of(packet), &packet.bytes);
        ether(packet, first_type, &body)
    }
}

/// Ethernet with a stack of MPLS labels, outermost first.
pub fn mpls(ether_type: u16, labels: &[u32]) -> impl Fn(&Packet) -> Vec<u8> {
    move |packet| ether(packet, ether_type, &[label_stack(labels), packet.bytes.clone()].concat())
}

/// The bytes of a stack of MPLS labels: label, no traffic class, bottom of stack at the last, time to live 64.
pub fn label_stack(labels: &[u32]) -> Vec<u8> {
    let entry = |(index, label): (usize, &u32)| {
        let bottom = u32::from(index + 1 == labels.len());
        (label << 12 | bottom << 8 | 64).to_be_bytes()
    };
    labels.iter().enumerate().flat_map(entry).collect()
}

/// Ethernet with a PPPoE session.
pub fn pppoe(session: u16) -> impl Fn(&Packet) -> Vec<u8> {
    move |packet| ether(packet, ether_type::PPPOE_SESSION, &pppoe_body(session, packet))
}

/// A PPPoE session frame without Ethernet.
pub fn pppoe_body(session: u16, packet: &Packet) -> Vec<u8> {
    pppoe_session(session, ppp_protocol_of(packet), &packet.bytes)
}

/// A PPPoE session frame that carries any PPP protocol, without Ethernet.
pub fn pppoe_session(session: u16, ppp_protocol: u16, body: &[u8]) -> Vec<u8> {
    let length = length_u16(body.len() + 2);
    [&[0x11, 0x00][..], &session.to_be_bytes(), &length.to_be_bytes(), &ppp_protocol.to_be_bytes(), body].concat()
}

/// IEEE 802.3 with LLC and SNAP (RFC 1042).
pub fn snap(packet: &Packet) -> Vec<u8> {
    let body = [&llc_snap(ether_type_of(packet))[..], &packet.bytes].concat();
    ether(packet, length_u16(body.len()), &body)
}

/// LLC and SNAP header with OUI zero.
pub(crate) fn llc_snap(ether_type: u16) -> [u8; 8] {
    let [high, low] = ether_type.to_be_bytes();
    [0xaa, 0xaa, 0x03, 0, 0, 0, high, low]
}

/// An Ethernet header between the packet's two ends, then `body`.
pub fn ether(packet: &Packet, ether_type: u16, body: &[u8]) -> Vec<u8> {
    ether_frame(mac(packet.flow.src), mac(packet.flow.dst), ether_type, body)
}

/// An Ethernet frame of any kind.
pub fn ether_frame(src: [u8; 6], dst: [u8; 6], ether_type: u16, body: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &ether_type.to_be_bytes(), body].concat()
}

/// The tags and then `body`, and the Ethernet type that announces the first tag.
pub fn tagged(tags: &[(u16, u16)], ether_type: u16, body: &[u8]) -> (u16, Vec<u8>) {
    tags.iter().rev().fold((ether_type, body.to_vec()), |(inner_type, inner), (tag_type, control)| {
        (*tag_type, [&control.to_be_bytes()[..], &inner_type.to_be_bytes(), &inner].concat())
    })
}

/// Fills a frame with zeros up to [`ETHER_FRAME_BYTES_MIN`].
pub fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(ETHER_FRAME_BYTES_MIN), 0);
    frame
}

/// An ARP request for `wanted`, or where `answer` is set the reply that `wanted` sends (RFC 826).
pub fn arp(asker: IpAddr, wanted: IpAddr, answer: bool) -> Vec<u8> {
    let (src, dst) = if answer { (wanted, asker) } else { (asker, wanted) };
    let dst_mac = if answer { mac(dst) } else { [0; 6] };
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, if answer { 2 } else { 1 }];
    body.extend_from_slice(&mac(src));
    body.extend_from_slice(&octets(src));
    body.extend_from_slice(&dst_mac);
    body.extend_from_slice(&octets(dst));
    ether_frame(mac(src), if answer { dst_mac } else { [0xff; 6] }, ether_type::ARP, &body)
}

/// The Ethernet address of an IP address: its own on the subnet, a group address for groups, else the router's.
pub fn mac(address: IpAddr) -> [u8; 6] {
    let octets = octets(address);
    match (address, octets.as_slice()) {
        (_, [255, 255, 255, 255] | [10, 0, 1, 255]) => [0xff; 6],
        (IpAddr::V4(group), [_, b, c, d]) if group.is_multicast() => [0x01, 0x00, 0x5e, b & 0x7f, *c, *d],
        (_, [10, 0, 1, d]) => [0x02, 0, 10, 0, 1, *d],
        (_, [0, 0, 0, 0]) => [0x02, 0, 10, 0, 1, 10],
        (IpAddr::V6(group), [.., a, b, c, d]) if group.is_multicast() => [0x33, 0x33, *a, *b, *c, *d],
        (_, [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 1, .., d]) => [0x02, 0, 10, 0, 1, hex_as_decimal(*d)],
        (_, [0xfe, 0x80, 0, 0, .., d]) => [0x02, 0, 10, 0, 1, *d],
        _ => mac(ROUTER),
    }
}

/// The hosts of the subnet end in the same digits in both families: `::10` is 10.0.1.10.
fn hex_as_decimal(digits: u8) -> u8 {
    digits / 16 * 10 + digits % 16
}

/// The bytes of an address of either family.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The Ethernet type of the packet's family.
pub(crate) fn ether_type_of(packet: &Packet) -> u16 {
    if packet.flow.src.is_ipv4() { ether_type::IPV4 } else { ether_type::IPV6 }
}

/// The PPP protocol of the packet's family.
pub(crate) fn ppp_protocol_of(packet: &Packet) -> u16 {
    if packet.flow.src.is_ipv4() { PPP_IPV4 } else { PPP_IPV6 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cast::{BROADCAST, HOST, HOST_LINK_LOCAL, HOST_V6, WEB, v4, v6};
    use crate::packet::ip;

    #[test]
    fn one_host_has_one_ethernet_address() {
        let own = [0x02, 0, 10, 0, 1, 10];
        assert_eq!([mac(HOST), mac(HOST_V6), mac(HOST_LINK_LOCAL)], [own; 3]);
        assert_eq!(mac(WEB), [0x02, 0, 10, 0, 1, 1]);
        assert_eq!(mac(BROADCAST), [0xff; 6]);
        assert_eq!(mac(v4(224, 0, 0, 251)), [0x01, 0x00, 0x5e, 0, 0, 0xfb]);
        assert_eq!(mac(v6(0xff02 << 112 | 0xfb)), [0x33, 0x33, 0, 0, 0, 0xfb]);
    }

    #[test]
    fn tags_and_labels_stand_in_wire_order() {
        let packet = ip(HOST, WEB, 200, &[]);
        let frame = vlan(&[(ether_type::QINQ, 0x2064), (ether_type::VLAN, 0x000a)])(&packet);
        assert_eq!(frame[12..22], [0x88, 0xa8, 0x20, 0x64, 0x81, 0x00, 0x00, 0x0a, 0x08, 0x00]);
        // Label 16 with more below, label 17 at the bottom (RFC 3032 section 2.1).
        assert_eq!(label_stack(&[16, 17]), [0x00, 0x01, 0x00, 0x40, 0x00, 0x01, 0x11, 0x40]);
        let frame = pppoe(5)(&packet);
        assert_eq!(frame[12..22], [0x88, 0x64, 0x11, 0x00, 0x00, 0x05, 0x00, 22, 0x00, 0x21]);
    }
}
