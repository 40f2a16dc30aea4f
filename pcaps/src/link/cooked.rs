//! Link layers that the capturing system makes up: Linux cooked capture, BSD loopback, netfilter log.
//!
//! Authority: the pages LINKTYPE_LINUX_SLL, LINKTYPE_LINUX_SLL2, LINKTYPE_NULL, LINKTYPE_LOOP and LINKTYPE_NFLOG of
//! tcpdump.org.

use super::{ether_type_of, mac, tagged};
use crate::packet::{Packet, length_u16};

/// Which way a frame went, as `sll_pkttype` says it (packet(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketType {
    /// To this host.
    Host = 0,
    /// To everybody.
    Broadcast = 1,
    /// To a group.
    Multicast = 2,
    /// To another host, seen in promiscuous mode.
    OtherHost = 3,
    /// From this host.
    Outgoing = 4,
}

/// Linux cooked capture version 1.
pub fn sll(packet_type: PacketType) -> impl Fn(&Packet) -> Vec<u8> {
    move |packet| sll_frame(packet_type, &mac(packet.flow.src), ether_type_of(packet), &packet.bytes)
}

/// Linux cooked capture version 1 with VLAN tags, as the kernel rebuilds them after the header.
pub fn sll_vlan(packet_type: PacketType, tags: &[(u16, u16)]) -> impl Fn(&Packet) -> Vec<u8> {
    move |packet| {
        let (first_type, body) = tagged(tags, ether_type_of(packet), &packet.bytes);
        sll_frame(packet_type, &mac(packet.flow.src), first_type, &body)
    }
}

/// A frame of Linux cooked capture version 1 with any protocol.
pub fn sll_frame(packet_type: PacketType, sender: &[u8; 6], protocol: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, packet_type as u8];
    frame.extend_from_slice(&ARPHRD_ETHER.to_be_bytes());
    frame.extend_from_slice(&[0, 6]);
    frame.extend_from_slice(sender);
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(&protocol.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

/// Linux cooked capture version 2 on the interface with this index.
pub fn sll2(packet_type: PacketType, interface_index: u32) -> impl Fn(&Packet) -> Vec<u8> {
    move |packet| sll2_frame(packet_type, interface_index, &mac(packet.flow.src), ether_type_of(packet), &packet.bytes)
}

/// A frame of Linux cooked capture version 2 with any protocol.
pub fn sll2_frame(
    packet_type: PacketType,
    interface_index: u32,
    sender: &[u8; 6],
    protocol: u16,
    body: &[u8],
) -> Vec<u8> {
    let mut frame = protocol.to_be_bytes().to_vec();
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(&interface_index.to_be_bytes());
    frame.extend_from_slice(&ARPHRD_ETHER.to_be_bytes());
    frame.extend_from_slice(&[packet_type as u8, 6]);
    frame.extend_from_slice(sender);
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(body);
    frame
}

/// BSD loopback: an address family in the byte order of whoever captured, then the packet.
pub fn null(family: [u8; 4]) -> impl Fn(&Packet) -> Vec<u8> {
    move |packet| [&family[..], &packet.bytes].concat()
}

/// Linux netfilter log: family, version, group, then attributes; the payload is the last one. Lengths and types of
/// attributes are in the host's byte order, here little endian.
pub fn nflog(packet: &Packet) -> Vec<u8> {
    let family = if packet.flow.src.is_ipv4() { AF_INET } else { AF_INET6 };
    let [high, low] = ether_type_of(packet).to_be_bytes();
    let mut frame = vec![family, 0, 0, 5];
    // Hook 1 is NF_INET_LOCAL_IN.
    push_attribute(&mut frame, NFULA_PACKET_HDR, &[high, low, 1, 0]);
    push_attribute(&mut frame, NFULA_PREFIX, b"dropped \0");
    push_attribute(&mut frame, NFULA_PAYLOAD, &packet.bytes);
    frame
}

fn push_attribute(frame: &mut Vec<u8>, kind: u16, value: &[u8]) {
    frame.extend_from_slice(&length_u16(4 + value.len()).to_le_bytes());
    frame.extend_from_slice(&kind.to_le_bytes());
    frame.extend_from_slice(value);
    frame.resize(frame.len().next_multiple_of(4), 0);
}

const ARPHRD_ETHER: u16 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const NFULA_PACKET_HDR: u16 = 1;
const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;
