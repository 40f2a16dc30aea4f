//! ICMP and ICMPv6 messages (RFC 792, 4443, 4861).

use std::net::IpAddr;

use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type};

use crate::packet::{Packet, ip, protocol};

/// Echo request type of ICMP.
pub const ECHO_REQUEST: u8 = 8;
/// Echo reply type of ICMP.
pub const ECHO_REPLY: u8 = 0;
/// Echo request type of ICMPv6.
pub const ECHO_REQUEST_V6: u8 = 128;
/// Echo reply type of ICMPv6.
pub const ECHO_REPLY_V6: u8 = 129;

/// A message of ICMP or ICMPv6, as the addresses say. `rest` is the second half of its header.
///
/// # Panics
/// If the addresses are of two families.
pub fn message(src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Packet {
    match (src, dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let kind = Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
            let header = Icmpv4Header::with_checksum(kind, payload);
            ip(src, dst, protocol::ICMP, &[&header.to_bytes(), payload].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let kind = Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
            let header = Icmpv6Header::with_checksum(kind, from.octets(), to.octets(), payload);
            let header = header.expect("the story keeps packets below 64 KiB");
            let mut packet = ip(src, dst, protocol::ICMPV6, &[&header.to_bytes(), payload].concat());
            // Neighbour discovery is only believed with a hop limit of 255 (RFC 4861 section 7.1).
            packet.bytes[7] = 255;
            packet
        }
        _ => panic!("{src} and {dst} are of two families"),
    }
}

/// An echo request as Linux's ping sends it: 56 bytes of data, 84 bytes of IPv4 or 104 of IPv6 in all.
pub fn ping(src: IpAddr, dst: IpAddr, id: u16, seq: u16) -> Packet {
    let kind = if src.is_ipv4() { ECHO_REQUEST } else { ECHO_REQUEST_V6 };
    message(src, dst, kind, 0, echo_rest(id, seq), &[0x2a; 56])
}

/// The reply to [`ping`]; `src` is who answers.
pub fn pong(src: IpAddr, dst: IpAddr, id: u16, seq: u16) -> Packet {
    let kind = if src.is_ipv4() { ECHO_REPLY } else { ECHO_REPLY_V6 };
    message(src, dst, kind, 0, echo_rest(id, seq), &[0x2a; 56])
}

fn echo_rest(id: u16, seq: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (id.to_be_bytes(), seq.to_be_bytes());
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cast::{HOST, HOST_V6, WEB, WEB_V6};

    #[test]
    fn ping_has_the_length_of_linux() {
        assert_eq!(ping(HOST, WEB, 1, 1).ip_bytes, 84);
        assert_eq!(pong(HOST_V6, WEB_V6, 1, 1).ip_bytes, 104);
    }

    #[test]
    fn an_echo_request_has_the_checksum_of_rfc_1071() {
        // 0800 + 0001 + 0001 + 28 words of 2a2a: 0x802 + 28 * 0x2a2a = 0x4_a49a, folded 0xa49e, inverted 0x5b61.
        assert_eq!(ping(HOST, WEB, 1, 1).bytes[20..24], [8, 0, 0x5b, 0x61]);
    }
}
