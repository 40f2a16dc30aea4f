//! A super-packet back into the packets of the wire: what a card does for TSO and USO, and undoes for LRO.
//!
//! Authority: RFC 9293 for TCP; the kernel's own segmentation (Documentation/networking/segmentation-offloads.rst) for
//! what the pieces share: sequence numbers and IPv4 identifications count up, FIN and PSH are the last piece's, CWR the
//! first's (RFC 3168 section 6.1.2). A hop-by-hop header that only says how long a jumbogram is (RFC 2675) goes.

use super::checksum::Sum;
use crate::packet::{Addresses, Fragment, Layout};

/// Cuts one packet after another; keeps its memory.
#[derive(Debug, Default)]
pub struct Segmenter {
    /// Link layer, IP with options and extensions, TCP or UDP: as for the first piece, with checksums 0.
    headers: Vec<u8>,
    /// Where in `headers` IP and TCP or UDP begin.
    ip_at: usize,
    transport_at: usize,
    protocol: u8,
    /// Without length, which each piece has of its own.
    addresses: Option<Addresses>,
    /// How much payload a piece takes.
    segment_bytes: usize,
    /// Where in the packet its payload begins, and how much there is.
    payload_at: usize,
    payload_bytes: usize,
    has_checksum: bool,
}

/// How large the pieces are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceSize {
    /// As the kernel says (`gso_size`): so much payload.
    Payload(usize),
    /// As fits this MTU: so much from the IP header on.
    Mtu(usize),
}

impl Segmenter {
    /// Takes up a packet: `link` is everything before its IP header, `ip` everything from there on, and `layout` lies in
    /// the frame of both. Says how many pieces there will be, at least one; `None` if the packet is not one that cards
    /// cut: neither TCP nor UDP, a fragment, or its headers contradict each other. Only the headers must be there.
    pub fn take_up(&mut self, link: &[u8], ip: &[u8], layout: &Layout, size: PieceSize) -> Option<usize> {
        let transport_at = layout.payload_at - layout.ip_at;
        let header_bytes = transport_header_bytes(ip, layout, transport_at)?;
        self.payload_at = transport_at + header_bytes;
        let ip_bytes = layout.packet.ip_bytes as usize;
        self.payload_bytes = ip_bytes.checked_sub(self.payload_at)?;
        self.headers.clear();
        self.headers.extend_from_slice(link);
        self.ip_at = link.len();
        let jumbo = jumbo_header(ip, layout);
        let headers = ip.get(..self.payload_at)?;
        match jumbo {
            Some(next_header) => {
                let (fixed, rest) = headers.split_at_checked(IPV6_HEADER_BYTES)?;
                self.headers.extend_from_slice(fixed);
                put(&mut self.headers, self.ip_at + IPV6_NEXT_HEADER_AT, [next_header]);
                self.headers.extend_from_slice(rest.get(JUMBO_HEADER_BYTES..)?);
            }
            None => self.headers.extend_from_slice(headers),
        }
        self.transport_at = self.headers.len() - header_bytes;
        self.protocol = layout.packet.protocol;
        self.addresses = Some(layout.packet.addresses);
        self.segment_bytes = match size {
            PieceSize::Payload(bytes) => bytes,
            PieceSize::Mtu(mtu) => mtu.saturating_sub(self.headers.len() - self.ip_at),
        };
        let headers_bytes = self.headers.len() - self.ip_at;
        let piece_bytes = headers_bytes + self.segment_bytes.min(self.payload_bytes);
        if self.segment_bytes == 0 || piece_bytes > IP_BYTES_MAX {
            return None;
        }
        let checksum = get(&self.headers, self.transport_at + self.checksum_at());
        self.has_checksum = layout.packet.protocol == TCP || checksum != [0, 0];
        let at = self.transport_at + self.checksum_at();
        put(&mut self.headers, at, [0, 0]);
        Some(self.payload_bytes.div_ceil(self.segment_bytes).max(1))
    }

    /// How long all pieces together are, of which there are `pieces`.
    pub fn frames_bytes(&self, pieces: usize) -> u64 {
        pieces as u64 * self.headers.len() as u64 + self.payload_bytes as u64
    }

    /// How long the longest piece is.
    pub fn longest_bytes(&self) -> usize {
        self.headers.len() + self.segment_bytes.min(self.payload_bytes)
    }

    /// Writes the piece of this number, counted from 0, of the packet taken up. `ip` is the same as then.
    pub fn write(&self, ip: &[u8], number: usize, out: &mut Vec<u8>) {
        let Some(addresses) = self.addresses else { return };
        let end = self.payload_at + self.payload_bytes;
        let from = self.payload_at + number * self.segment_bytes;
        // A single piece may take as much as can be said.
        let to = from.saturating_add(self.segment_bytes).min(end);
        let payload = ip.get(from..to).unwrap_or_default();
        let is_last = to == end;

        let frame_at = out.len();
        out.extend_from_slice(&self.headers);
        out.extend_from_slice(payload);
        let Some(frame) = out.get_mut(frame_at..) else { return };
        self.finish_transport(frame, addresses, number, is_last);
        self.finish_ip(frame, addresses, number);
    }

    fn checksum_at(&self) -> usize {
        if self.protocol == TCP { TCP_CHECKSUM_AT } else { UDP_CHECKSUM_AT }
    }

    fn finish_transport(&self, frame: &mut [u8], addresses: Addresses, number: usize, is_last: bool) {
        let transport_bytes = frame.len() - self.transport_at;
        let Some(transport) = frame.get_mut(self.transport_at..) else { return };
        if self.protocol == TCP {
            let sequence = u32::from_be_bytes(get(transport, TCP_SEQUENCE_AT));
            let advance = (number * self.segment_bytes) as u32;
            put(transport, TCP_SEQUENCE_AT, sequence.wrapping_add(advance).to_be_bytes());
            let [mut flags] = get(transport, TCP_FLAGS_AT);
            if !is_last {
                flags &= !(FIN | PSH);
            }
            if number > 0 {
                flags &= !CWR;
            }
            put(transport, TCP_FLAGS_AT, [flags]);
        } else {
            put(transport, UDP_LENGTH_AT, (transport_bytes as u16).to_be_bytes());
        }
        if self.has_checksum {
            let sum = Sum::of_pseudo_header(addresses, self.protocol, transport_bytes as u32).over(transport);
            let checksum = if self.protocol == TCP { sum.checksum() } else { sum.udp_checksum() };
            put(transport, self.checksum_at(), checksum.to_be_bytes());
        }
    }

    fn finish_ip(&self, frame: &mut [u8], addresses: Addresses, number: usize) {
        let header_bytes = self.transport_at - self.ip_at;
        let Some(ip) = frame.get_mut(self.ip_at..) else { return };
        match addresses {
            Addresses::V4 { .. } => {
                put(ip, IPV4_LENGTH_AT, (ip.len() as u16).to_be_bytes());
                let id = u16::from_be_bytes(get(ip, IPV4_ID_AT));
                put(ip, IPV4_ID_AT, id.wrapping_add(number as u16).to_be_bytes());
                put(ip, IPV4_CHECKSUM_AT, [0, 0]);
                let checksum = Sum::default().over(ip.get(..header_bytes).unwrap_or_default()).checksum();
                put(ip, IPV4_CHECKSUM_AT, checksum.to_be_bytes());
            }
            Addresses::V6 { .. } => {
                put(ip, IPV6_LENGTH_AT, (ip.len().saturating_sub(IPV6_HEADER_BYTES) as u16).to_be_bytes());
            }
        }
    }
}

/// How long the TCP or UDP header is that begins at `transport_at`, if it is one and all of it is there.
fn transport_header_bytes(ip: &[u8], layout: &Layout, transport_at: usize) -> Option<usize> {
    if layout.packet.fragment != Fragment::None {
        return None;
    }
    let header_bytes = match layout.packet.protocol {
        TCP => usize::from(ip.get(transport_at + TCP_DATA_OFFSET_AT)? >> 4) * 4,
        UDP => UDP_HEADER_BYTES,
        _ => return None,
    };
    let is_whole = ip.len() >= transport_at + header_bytes;
    (is_whole && header_bytes >= if layout.packet.protocol == TCP { TCP_HEADER_BYTES_MIN } else { UDP_HEADER_BYTES })
        .then_some(header_bytes)
}

/// What follows a hop-by-hop header that holds a jumbo payload option and nothing else, if the packet has one: the
/// kernel puts it before BIG TCP.
fn jumbo_header(ip: &[u8], layout: &Layout) -> Option<u8> {
    let is_first =
        matches!(layout.packet.addresses, Addresses::V6 { .. }) && ip.get(IPV6_NEXT_HEADER_AT) == Some(&HOP_BY_HOP);
    match ip.get(IPV6_HEADER_BYTES..IPV6_HEADER_BYTES + JUMBO_HEADER_BYTES) {
        Some(&[next_header, 0, JUMBO_OPTION, 4, ..]) if is_first => Some(next_header),
        _ => None,
    }
}

/// The bytes at `at`, or zeros where there are none.
fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

/// Writes over what is at `at`, if it is there.
fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = value;
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;

/// What a length field holds.
const IP_BYTES_MAX: usize = 65_535;

const IPV4_LENGTH_AT: usize = 2;
const IPV4_ID_AT: usize = 4;
const IPV4_CHECKSUM_AT: usize = 10;

const IPV6_HEADER_BYTES: usize = 40;
const IPV6_LENGTH_AT: usize = 4;
const IPV6_NEXT_HEADER_AT: usize = 6;
/// Next header, length, option, option length and a payload length of four bytes.
const JUMBO_HEADER_BYTES: usize = 8;
const JUMBO_OPTION: u8 = 0xc2;

const TCP_HEADER_BYTES_MIN: usize = 20;
const TCP_SEQUENCE_AT: usize = 4;
const TCP_DATA_OFFSET_AT: usize = 12;
const TCP_FLAGS_AT: usize = 13;
const TCP_CHECKSUM_AT: usize = 16;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

const UDP_HEADER_BYTES: usize = 8;
const UDP_LENGTH_AT: usize = 4;
const UDP_CHECKSUM_AT: usize = 6;

#[cfg(test)]
mod tests;
