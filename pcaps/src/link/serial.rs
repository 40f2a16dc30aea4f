//! Serial lines: PPP (RFC 1661), PPP in HDLC-like framing (RFC 1662) and Cisco HDLC.

use super::{ether_type_of, ppp_protocol_of};
use crate::packet::Packet;

/// PPP without address and control bytes.
pub fn ppp(packet: &Packet) -> Vec<u8> {
    ppp_frame(ppp_protocol_of(packet), &packet.bytes)
}

/// PPP behind the address and control bytes of HDLC-like framing.
pub fn ppp_hdlc(packet: &Packet) -> Vec<u8> {
    [&[0xff, 0x03][..], &ppp(packet)].concat()
}

/// PPP with any protocol.
pub fn ppp_frame(protocol: u16, body: &[u8]) -> Vec<u8> {
    [&protocol.to_be_bytes()[..], body].concat()
}

/// Cisco HDLC to one station.
pub fn cisco_hdlc(packet: &Packet) -> Vec<u8> {
    cisco_hdlc_frame(UNICAST, ether_type_of(packet), &packet.bytes)
}

/// Cisco HDLC to all stations.
pub fn cisco_hdlc_multicast(packet: &Packet) -> Vec<u8> {
    cisco_hdlc_frame(MULTICAST, ether_type_of(packet), &packet.bytes)
}

/// Cisco HDLC with any protocol: address, control, Ethernet type.
pub fn cisco_hdlc_frame(address: u8, ether_type: u16, body: &[u8]) -> Vec<u8> {
    [&[address, 0][..], &ether_type.to_be_bytes(), body].concat()
}

/// Address byte of Cisco HDLC for one station.
pub const UNICAST: u8 = 0x0f;
/// Address byte of Cisco HDLC for all stations.
pub const MULTICAST: u8 = 0x8f;
/// Cisco's serial line address resolution protocol, which also keeps the line alive.
pub const SLARP: u16 = 0x8035;
