//! The commonest headers, read with two comparisons of length and no walk.
//!
//! Untagged Ethernet II, IPv4 without options or IPv6 without extensions, no piece of a datagram, TCP with its flags or
//! UDP with its ports. `None` means that the frame is anything else and [`parse`](super::parse) decides; where there
//! is an answer, it is what `parse` would say.

use super::transport::{TCP, TCP_FLAGS_END_BYTES, UDP};

/// What a flow key and its counts need of a packet. `Address` is `u32` for IPv4 and `u128` for IPv6, as in
/// [`Addresses`](super::Addresses).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FastPacket<Address> {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// TCP or UDP.
    pub protocol: u8,
    /// The TCP flag byte, 0 for UDP.
    pub tcp_flags: u8,
    /// The IP packet's length: header and payload.
    pub ip_bytes: u32,
}

/// Reads an Ethernet frame that holds plain TCP or UDP over IPv4.
#[inline]
pub fn ethernet_ipv4(captured: &[u8]) -> Option<FastPacket<u32>> {
    // The array's length is known, so that none of the indexes below is checked again.
    let header: &[u8; IPV4_PORTS_END] = captured.first_chunk()?;
    let plain = header[12] == 0x08
        && header[13] == 0x00
        && header[14] == IPV4_WITHOUT_OPTIONS
        && header[20] & IPV4_PIECE_MASK == 0
        && header[21] == 0;
    if !plain {
        return None;
    }
    let total_bytes = u16::from_be_bytes([header[16], header[17]]);
    let protocol = header[23];
    let tcp_flags = flags(captured, protocol, usize::from(total_bytes).checked_sub(IPV4_HEADER_BYTES)?, IPV4_FLAGS_AT)?;
    Some(FastPacket {
        src: u32::from_be_bytes([header[26], header[27], header[28], header[29]]),
        dst: u32::from_be_bytes([header[30], header[31], header[32], header[33]]),
        src_port: u16::from_be_bytes([header[34], header[35]]),
        dst_port: u16::from_be_bytes([header[36], header[37]]),
        protocol,
        tcp_flags,
        ip_bytes: total_bytes.into(),
    })
}

/// Reads an Ethernet frame that holds plain TCP or UDP over IPv6.
#[inline]
pub fn ethernet_ipv6(captured: &[u8]) -> Option<FastPacket<u128>> {
    let header: &[u8; IPV6_PORTS_END] = captured.first_chunk()?;
    if header[12] != 0x86 || header[13] != 0xdd || header[14] >> 4 != 6 {
        return None;
    }
    let payload_bytes = u16::from_be_bytes([header[18], header[19]]);
    let protocol = header[20];
    let tcp_flags = flags(captured, protocol, payload_bytes.into(), IPV6_FLAGS_AT)?;
    let (_, from_addresses) = header.split_first_chunk::<IPV6_ADDRESSES_AT>()?;
    let (src, from_destination) = from_addresses.split_first_chunk()?;
    let dst = from_destination.first_chunk()?;
    Some(FastPacket {
        src: u128::from_be_bytes(*src),
        dst: u128::from_be_bytes(*dst),
        src_port: u16::from_be_bytes([header[54], header[55]]),
        dst_port: u16::from_be_bytes([header[56], header[57]]),
        protocol,
        tcp_flags,
        ip_bytes: u32::from(payload_bytes) + IPV6_HEADER_BYTES,
    })
}

/// The TCP flags at `at`, or 0 for UDP; `None` where the protocol is another or its header does not fit the payload.
#[inline]
fn flags(captured: &[u8], protocol: u8, payload_bytes: usize, at: usize) -> Option<u8> {
    match protocol {
        TCP if payload_bytes >= TCP_FLAGS_END_BYTES => captured.get(at).copied(),
        UDP if payload_bytes >= PORTS_BYTES => Some(0),
        _ => None,
    }
}

const PORTS_BYTES: usize = 4;

const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
const IPV4_HEADER_BYTES: usize = 20;
/// Of the first byte of flags and offset: more fragments, and the offset's upper bits.
const IPV4_PIECE_MASK: u8 = 0x3f;
const IPV4_PORTS_END: usize = 38;
const IPV4_FLAGS_AT: usize = 47;

const IPV6_HEADER_BYTES: u32 = 40;
const IPV6_ADDRESSES_AT: usize = 22;
const IPV6_PORTS_END: usize = 58;
const IPV6_FLAGS_AT: usize = 67;

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.0.1 port 1025 to 192.0.2.7 port 443, TCP SYN and ACK, 40 bytes.
    const V4: [u8; 54] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, //
        0x45, 0, 0, 40, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 192, 0, 2, 7, //
        0x04, 0x01, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x12, 0xff, 0xff, 0, 0, 0, 0,
    ];

    fn v4(at: usize, byte: u8) -> Option<FastPacket<u32>> {
        let mut frame = V4;
        frame[at] = byte;
        ethernet_ipv4(&frame)
    }

    fn v6_frame(payload_bytes: u8, next_header: u8) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
        frame.extend([0x60, 0, 0, 0, 0, payload_bytes, next_header, 64]);
        frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        frame.extend(&V4[34..]);
        frame
    }

    #[test]
    fn tcp_over_ipv4() {
        let expected = FastPacket {
            src: 0x0a00_0001,
            dst: 0xc000_0207,
            src_port: 1025,
            dst_port: 443,
            protocol: 6,
            tcp_flags: 0x12,
            ip_bytes: 40,
        };
        assert_eq!(ethernet_ipv4(&V4), Some(expected));
        assert_eq!(ethernet_ipv4(&V4[..48]), Some(expected));
        assert_eq!(ethernet_ipv4(&V4[..47]), None);
    }

    #[test]
    fn udp_over_ipv4_needs_only_ports() {
        let packet = v4(23, 17).unwrap();
        assert_eq!((packet.protocol, packet.src_port, packet.dst_port, packet.tcp_flags), (17, 1025, 443, 0));
        let mut frame = V4;
        frame[23] = 17;
        assert!(ethernet_ipv4(&frame[..38]).is_some());
        assert_eq!(ethernet_ipv4(&frame[..37]), None);
    }

    #[test]
    fn anything_else_is_for_the_walk() {
        for (at, byte, why) in [
            (12, 0x81, "a tag"),
            (13, 0x06, "ARP"),
            (14, 0x46, "options"),
            (14, 0x65, "another version"),
            (17, 0, "an open length"),
            (17, 19, "shorter than its header"),
            (17, 33, "no room for flags"),
            (20, 0x20, "a first piece"),
            (20, 0x01, "a later piece"),
            (21, 0x01, "a later piece"),
            (23, 1, "ICMP"),
            (23, 132, "SCTP"),
        ] {
            assert_eq!(v4(at, byte), None, "{why}");
        }
        assert!(v4(20, 0xc0).is_some(), "don't fragment and the reserved bit say nothing");
    }

    #[test]
    fn tcp_over_ipv6() {
        let expected = FastPacket {
            src: 0x2001_0db8_0000_0000_0000_0000_0000_0001,
            dst: 0x2001_0db8_0000_0000_0000_0000_0000_0002,
            src_port: 1025,
            dst_port: 443,
            protocol: 6,
            tcp_flags: 0x12,
            ip_bytes: 60,
        };
        let frame = v6_frame(20, 6);
        assert_eq!(ethernet_ipv6(&frame), Some(expected));
        assert_eq!(ethernet_ipv6(&frame[..68]), Some(expected));
        assert_eq!(ethernet_ipv6(&frame[..67]), None);
        assert_eq!(ethernet_ipv6(&V4), None);
    }

    #[test]
    fn ipv6_with_anything_else_is_for_the_walk() {
        assert!(ethernet_ipv6(&v6_frame(4, 17)).is_some());
        assert_eq!(ethernet_ipv6(&v6_frame(3, 17)), None);
        assert_eq!(ethernet_ipv6(&v6_frame(0, 17)), None);
        assert_eq!(ethernet_ipv6(&v6_frame(13, 6)), None);
        assert_eq!(ethernet_ipv6(&v6_frame(20, 44)), None);
        let mut frame = v6_frame(20, 6);
        frame[14] = 0x45;
        assert_eq!(ethernet_ipv6(&frame), None);
    }
}
