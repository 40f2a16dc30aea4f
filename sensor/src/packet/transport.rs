//! What a flow record needs of the header behind IP: ports, TCP flags, ICMP type and code.
//!
//! Ports lie in the same four bytes of TCP (RFC 9293), UDP (RFC 768), SCTP (RFC 9260), DCCP (RFC 4340) and UDP-Lite
//! (RFC 3828). Nothing else of these headers is checked: a flow log records what was sent, sane or not.

use super::cursor::Cursor;
use super::ip::Ip;
use super::{Addresses, Fragment};

/// Ports, flags, type and code; each zero or absent where the protocol has none or the bytes end before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Transport {
    /// Source port.
    pub(super) src_port: u16,
    /// Destination port.
    pub(super) dst_port: u16,
    /// TCP flags, CWR to FIN.
    pub(super) tcp_flags: u8,
    /// ICMP or ICMPv6 type and code.
    pub(super) icmp: Option<(u8, u8)>,
}

/// Reads the first bytes of an IP payload. A later piece of a datagram has no header to read.
#[inline]
pub(super) fn read(ip: &Ip<'_>) -> Transport {
    if matches!(ip.fragment, Fragment::Later { .. }) {
        return Transport::default();
    }
    match (ip.protocol, ip.addresses) {
        (TCP, _) => tcp(ip.payload),
        (UDP | DCCP | SCTP | UDP_LITE, _) => ports(ip.payload),
        (ICMP, Addresses::V4 { .. }) | (ICMPV6, Addresses::V6 { .. }) => icmp(ip.payload),
        _ => Transport::default(),
    }
}

#[inline]
fn tcp(mut payload: Cursor<'_>) -> Transport {
    let transport = ports(payload);
    match payload.take_array() {
        Some::<[u8; TCP_FLAGS_END_BYTES]>([.., tcp_flags]) => Transport { tcp_flags, ..transport },
        None => transport,
    }
}

#[inline]
fn ports(mut payload: Cursor<'_>) -> Transport {
    match payload.take_array() {
        Some([src_0, src_1, dst_0, dst_1]) => Transport {
            src_port: u16::from_be_bytes([src_0, src_1]),
            dst_port: u16::from_be_bytes([dst_0, dst_1]),
            ..Transport::default()
        },
        None => Transport::default(),
    }
}

fn icmp(mut payload: Cursor<'_>) -> Transport {
    Transport { icmp: payload.take_array().map(|[kind, code]| (kind, code)), ..Transport::default() }
}

/// How many bytes of a TCP header there are up to and with the flags.
pub(super) const TCP_FLAGS_END_BYTES: usize = 14;

// Protocol numbers, IANA.
const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const DCCP: u8 = 33;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Addresses = Addresses::V4 { src: 1, dst: 2 };
    const V6: Addresses = Addresses::V6 { src: 1, dst: 2 };

    /// Ports 1025 and 443, and 0xd7 where TCP has its flags.
    const PAYLOAD: [u8; 14] = [0x04, 0x01, 0x01, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0xd7];

    fn read_payload(addresses: Addresses, protocol: u8, fragment: Fragment, payload: &[u8]) -> Transport {
        read(&Ip { addresses, protocol, ip_bytes: 0, fragment, payload: Cursor::new(payload) })
    }

    #[test]
    fn every_protocol() {
        for protocol in 0..=255 {
            for addresses in [V4, V6] {
                let transport = read_payload(addresses, protocol, Fragment::None, &PAYLOAD);
                let with_ports = [6, 17, 33, 132, 136].contains(&protocol);
                let with_icmp = (protocol, addresses) == (1, V4) || (protocol, addresses) == (58, V6);
                let expected = Transport {
                    src_port: if with_ports { 1025 } else { 0 },
                    dst_port: if with_ports { 443 } else { 0 },
                    tcp_flags: if protocol == 6 { 0xd7 } else { 0 },
                    icmp: with_icmp.then_some((4, 1)),
                };
                assert_eq!(transport, expected, "protocol {protocol}, {addresses:?}");
            }
        }
    }

    #[test]
    fn only_the_first_piece_has_a_header() {
        for protocol in [1, 6, 17, 33, 132, 136] {
            let first = read_payload(V4, protocol, Fragment::First { id: 1 }, &PAYLOAD);
            assert_eq!(first, read_payload(V4, protocol, Fragment::None, &PAYLOAD));
            assert_eq!(read_payload(V4, protocol, Fragment::Later { id: 1 }, &PAYLOAD), Transport::default());
        }
    }

    #[test]
    fn a_cut_header_gives_what_it_holds() {
        for length in 0..4 {
            assert_eq!(read_payload(V4, 6, Fragment::None, &PAYLOAD[..length]), Transport::default());
        }
        for length in 4..14 {
            let transport = read_payload(V4, 6, Fragment::None, &PAYLOAD[..length]);
            assert_eq!((transport.src_port, transport.dst_port, transport.tcp_flags), (1025, 443, 0));
        }
        assert_eq!(read_payload(V4, 1, Fragment::None, &PAYLOAD[..1]).icmp, None);
    }
}
