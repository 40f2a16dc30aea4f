//! What the packets of the stories say: small true messages of the protocols above UDP and TCP.

use std::net::IpAddr;

use crate::link::{mac, octets};
use crate::packet::length_u16;
use crate::random::SplitMix64;

/// A DNS question for the address of `name` (RFC 1035): 12 bytes, the name, 4 bytes.
pub fn dns_query(id: u16, name: &str, kind: DnsKind) -> Vec<u8> {
    dns_message(id, [0x01, 0x00], 0, name, kind)
}

/// The answer to [`dns_query`] with one address: 12 bytes and it more.
pub fn dns_answer(id: u16, name: &str, address: IpAddr) -> Vec<u8> {
    let kind = if address.is_ipv4() { DnsKind::A } else { DnsKind::Aaaa };
    let mut message = dns_message(id, [0x81, 0x80], 1, name, kind);
    let address = octets(address);
    // The name again, as a pointer to byte 12; type, class, an hour to live.
    message.extend_from_slice(&[0xc0, 12, 0, kind as u8, 0, 1, 0, 0, 0x0e, 0x10]);
    message.extend_from_slice(&length_u16(address.len()).to_be_bytes());
    message.extend_from_slice(&address);
    message
}

/// A multicast DNS question (RFC 6762): no id, no recursion.
pub fn mdns_query(name: &str) -> Vec<u8> {
    dns_message(0, [0, 0], 0, name, DnsKind::Ptr)
}

/// A DNS message as TCP carries it: behind its length.
pub fn dns_over_tcp(message: &[u8]) -> Vec<u8> {
    [&length_u16(message.len()).to_be_bytes()[..], message].concat()
}

/// Kind of DNS record asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DnsKind {
    /// IPv4 address.
    A = 1,
    /// Pointer.
    Ptr = 12,
    /// IPv6 address.
    Aaaa = 28,
}

fn dns_message(id: u16, flags: [u8; 2], answers: u8, name: &str, kind: DnsKind) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&flags);
    message.extend_from_slice(&[0, 1, 0, answers, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(length_u16(label.len()).to_be_bytes()[1]);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, kind as u8, 0, 1]);
    message
}

/// A NetBIOS name query for `name` (RFC 1002 section 4.2.12): 50 bytes.
pub fn netbios_query(id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[0x01, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 32]);
    let fixed_width = name.bytes().chain(std::iter::repeat(b' ')).take(15).chain([0]);
    message.extend(fixed_width.flat_map(|byte| [b'A' + (byte >> 4), b'A' + (byte & 0x0f)]));
    message.extend_from_slice(&[0, 0, 0x20, 0, 1]);
    message
}

/// Kind of DHCP message (RFC 2132 section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DhcpKind {
    /// Client looks for servers.
    Discover = 1,
    /// Server offers an address.
    Offer = 2,
    /// Client takes it.
    Request = 3,
    /// Server confirms.
    Ack = 5,
}

/// A DHCP message about `offered` (RFC 2131): 300 bytes.
pub fn dhcp(kind: DhcpKind, offered: IpAddr, server: IpAddr) -> Vec<u8> {
    let from_server = matches!(kind, DhcpKind::Offer | DhcpKind::Ack);
    let mut message = vec![if from_server { 2 } else { 1 }, 1, 6, 0, 0x11, 0x22, 0x33, 0x44];
    message.resize(16, 0);
    if from_server {
        message.extend_from_slice(&octets(offered));
        message.extend_from_slice(&octets(server));
    }
    message.resize(28, 0);
    message.extend_from_slice(&mac(offered));
    message.resize(236, 0);
    message.extend_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, kind as u8]);
    if kind == DhcpKind::Request {
        message.extend_from_slice(&[50, 4]);
        message.extend_from_slice(&octets(offered));
    }
    if kind != DhcpKind::Discover {
        message.extend_from_slice(&[54, 4]);
        message.extend_from_slice(&octets(server));
    }
    if from_server {
        message.extend_from_slice(&[51, 4, 0, 0, 0x0e, 0x10, 1, 4, 255, 255, 255, 0, 3, 4]);
        message.extend_from_slice(&octets(server));
    }
    message.push(255);
    message.resize(300, 0);
    message
}

/// A DHCPv6 message with a client identifier (RFC 8415): type, transaction, one option; 18 bytes.
pub fn dhcpv6(kind: u8) -> Vec<u8> {
    let client_id = [0, 1, 0, 10, 0, 3, 0, 1, 0x02, 0, 10, 0, 1, 10];
    [&[kind, 0x12, 0x34, 0x56][..], &client_id].concat()
}

/// An NTP message (RFC 5905): 48 bytes; mode 3 asks, mode 4 answers.
pub fn ntp(mode: u8) -> Vec<u8> {
    let mut message = vec![4 << 3 | mode, if mode == 4 { 3 } else { 0 }, 6, 0xec];
    message.resize(40, 0);
    message.extend_from_slice(&[0xed, 0x50, 0x8a, 0x90, 0, 0, 0, 0]);
    message
}

/// An HTTP request.
pub fn http_get(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: demo\r\nAccept: */*\r\n\r\n").into_bytes()
}

/// An HTTP response with so many bytes of text.
pub fn http_ok(body_bytes: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {body_bytes}\r\n\r\n");
    [head.as_bytes(), &b"flow logs without blind spots\n".repeat(body_bytes / 30 + 1)[..body_bytes]].concat()
}

/// TLS records of application data, at most 4000 bytes each, filled from `random`.
pub fn tls(data_bytes: usize, random: &mut SplitMix64) -> Vec<u8> {
    let data = random.bytes(data_bytes);
    let record = |piece: &[u8]| [&[23, 3, 3][..], &length_u16(piece.len()).to_be_bytes(), piece].concat();
    data.chunks(4_000).flat_map(record).collect()
}

/// A VXLAN header with this network identifier, then a frame (RFC 7348).
pub fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    [&[0x08, 0, 0, 0][..], &(vni << 8).to_be_bytes(), frame].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cast::{HOST, ROUTER};

    #[test]
    fn messages_have_the_lengths_their_documents_give() {
        // 12 of header, "\x07example\x03com\x00" is 13, 4 of question.
        assert_eq!(dns_query(1, "example.com", DnsKind::A).len(), 12 + 13 + 4);
        assert_eq!(dns_answer(1, "example.com", HOST).len(), 29 + 12 + 4);
        assert_eq!(dhcp(DhcpKind::Ack, HOST, ROUTER).len(), 300);
        assert_eq!(ntp(3).len(), 48);
        assert_eq!(netbios_query(1, "DEMO").len(), 50);
        assert_eq!(tls(5_000, &mut SplitMix64::new(1)).len(), 5_010);
    }
}
