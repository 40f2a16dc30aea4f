//! A stand-in for an IDS: takes outer frames as a capture at the target shows them, and refuses what Suricata, Zeek and
//! Snort refuse (see the notes: most of it silently).
//!
//! Refused are a tunnel header with a reserved bit set or without its flag, a wrong outer checksum, an inner frame of
//! no known type, one whose IP packet is longer than it, and a wrong inner checksum. Once for each connection it is
//! noticed if its copies come from two outer ports, or two senders. TCP streams are put together; see [`Stream`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use etherparse::{EtherType, IpNumber, NetSlice, SlicedPacket, TransportSlice};

use super::stream::{Stream, StreamKey};

/// Takes outer frames.
#[derive(Debug, Default)]
pub struct Receiver {
    /// The longest inner frame that a wire carries, 0 for any.
    inner_bytes_max: usize,
    /// Outer fragments that wait for the others.
    pieces: BTreeMap<(IpAddr, IpAddr, u32), Vec<OuterFragment>>,
    copies: Vec<Copy>,
    complaints: Vec<Complaint>,
    outer_fragments: usize,
    streams: BTreeMap<StreamKey, Stream>,
    /// Outer source and port of each connection, whichever direction came first.
    connections: BTreeMap<(StreamKey, StreamKey, u8), (IpAddr, u16)>,
}

/// Offset, whether more follow, and the bytes.
type OuterFragment = (usize, bool, Vec<u8>);

/// What came in one tunnel datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Outer addresses, source first.
    pub outer: (IpAddr, IpAddr),
    /// Outer source port.
    pub src_port: u16,
    /// Outer destination port.
    pub dst_port: u16,
    /// Network identifier.
    pub vni: u32,
    /// The inner frame.
    pub inner: Vec<u8>,
    /// What is wrong with the inner frame.
    pub complaint: Option<Complaint>,
}

/// Why an IDS would not see what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Complaint {
    /// The outer frame is not IP and UDP, or its headers are cut or wrong.
    Outer(String),
    /// VXLAN without the I flag, or GENEVE of another version or protocol.
    Flags([u8; 8]),
    /// A reserved bit is set.
    Reserved([u8; 8]),
    /// The inner frame is of no type that an IDS knows, or its headers are wrong.
    Inner(String),
    /// The inner IP packet is longer than its frame.
    Truncated,
    /// An inner checksum is wrong: `ip`, `tcp`, `udp` or `icmp`.
    Checksum(&'static str),
    /// The inner frame is longer than any on the wire.
    Oversize(usize),
    /// A connection came from two outer ports, or two senders.
    TwoPorts(StreamKey),
}

impl Receiver {
    /// A receiver that wants inner frames of at most so many bytes, 0 for any.
    pub fn new(inner_bytes_max: usize) -> Self {
        Self { inner_bytes_max, ..Self::default() }
    }

    /// Takes an outer Ethernet frame. What is not UDP to `port` is left alone.
    pub fn take(&mut self, frame: &[u8], port: u16) {
        match self.unwrap(frame, port) {
            Ok(Some(mut copy)) => {
                copy.complaint = self.judge(&copy).err();
                self.complaints.extend(copy.complaint.clone());
                self.copies.push(copy);
            }
            Ok(None) => {}
            Err(complaint) => self.complaints.push(complaint),
        }
    }

    /// Everything that came in a tunnel, in order; also what was complained of inside.
    pub fn copies(&self) -> &[Copy] {
        &self.copies
    }

    /// Everything that is wrong.
    pub fn complaints(&self) -> &[Complaint] {
        &self.complaints
    }

    /// How many outer packets were fragments.
    pub fn outer_fragments(&self) -> usize {
        self.outer_fragments
    }

    /// The streams of TCP, each direction on its own.
    pub fn streams(&self) -> &BTreeMap<StreamKey, Stream> {
        &self.streams
    }

    /// Asserts that nothing is wrong: no complaint, no stream with a hole, no outer fragment left alone.
    ///
    /// # Panics
    /// If something is.
    #[track_caller]
    pub fn assert_content(&self) {
        assert!(
            self.complaints.is_empty(),
            "{} complaints: {:?}",
            self.complaints.len(),
            &self.complaints[..8.min(self.complaints.len())]
        );
        assert!(self.pieces.is_empty(), "outer fragments without the rest");
        for (key, stream) in &self.streams {
            assert!(!stream.has_gap(), "{key:?} has a gap");
        }
    }

    /// Takes a copy out of its outer frame; `None` if it is none, or waits for other fragments.
    fn unwrap(&mut self, frame: &[u8], port: u16) -> Result<Option<Copy>, Complaint> {
        let outer = |error: &dyn std::fmt::Display| Complaint::Outer(error.to_string());
        let sliced = SlicedPacket::from_ethernet(frame).map_err(|error| outer(&error))?;
        let Some(net) = &sliced.net else { return Ok(None) };
        let (src, dst): (IpAddr, IpAddr) = match net {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Arp(_) => return Ok(None),
        };
        if let NetSlice::Ipv4(ip) = net {
            let header = ip.header().to_header();
            if header.header_checksum != header.calc_header_checksum() {
                return Err(Complaint::Outer("IP checksum".to_owned()));
            }
        }
        let payload = net.ip_payload_ref().map(|payload| payload.payload).unwrap_or_default();
        let number = net.ip_payload_ref().map(|payload| payload.ip_number);
        if number != Some(IpNumber::UDP) {
            return Ok(None);
        }
        let datagram = match fragment(net) {
            None => payload.to_vec(),
            Some((id, offset, more)) => {
                self.outer_fragments += 1;
                let pieces = self.pieces.entry((src, dst, id)).or_default();
                pieces.push((offset, more, payload.to_vec()));
                match rejoin(pieces) {
                    Some(whole) => {
                        self.pieces.remove(&(src, dst, id));
                        whole
                    }
                    None => return Ok(None),
                }
            }
        };
        let [src_0, src_1, dst_0, dst_1, length_0, length_1, check_0, check_1, tunnel @ ..] = datagram.as_slice()
        else {
            return Err(Complaint::Outer("no UDP header".to_owned()));
        };
        let dst_port = u16::from_be_bytes([*dst_0, *dst_1]);
        if dst_port != port {
            return Ok(None);
        }
        if usize::from(u16::from_be_bytes([*length_0, *length_1])) != datagram.len() {
            return Err(Complaint::Outer("UDP length".to_owned()));
        }
        match (u16::from_be_bytes([*check_0, *check_1]), src.is_ipv6()) {
            (0, true) => return Err(Complaint::Outer("no UDP checksum over IPv6".to_owned())),
            (0, false) => {}
            (_, _) if sum(src, dst, 17, &datagram) == 0xffff => {}
            (_, _) => return Err(Complaint::Outer("UDP checksum".to_owned())),
        }
        let Some((header, inner)) = tunnel.split_first_chunk::<8>() else {
            return Err(Complaint::Outer("no tunnel header".to_owned()));
        };
        let [first, second, third, fourth, a, b, c, last] = *header;
        if port == GENEVE_PORT {
            if first & 0xc0 != 0 || [third, fourth] != [0x65, 0x58] {
                return Err(Complaint::Flags(*header));
            }
            if first != 0 || second != 0 || last != 0 {
                return Err(Complaint::Reserved(*header));
            }
        } else {
            if first & 0x08 == 0 {
                return Err(Complaint::Flags(*header));
            }
            if first != 0x08 || [second, third, fourth, last] != [0; 4] {
                return Err(Complaint::Reserved(*header));
            }
        }
        let src_port = u16::from_be_bytes([*src_0, *src_1]);
        let vni = u32::from_be_bytes([0, a, b, c]);
        Ok(Some(Copy { outer: (src, dst), src_port, dst_port, vni, inner: inner.to_vec(), complaint: None }))
    }

    fn judge(&mut self, copy: &Copy) -> Result<(), Complaint> {
        if self.inner_bytes_max > 0 && copy.inner.len() > self.inner_bytes_max {
            return Err(Complaint::Oversize(copy.inner.len()));
        }
        self.read(copy)
    }

    /// Reads an inner frame as an IDS does.
    fn read(&mut self, copy: &Copy) -> Result<(), Complaint> {
        let inner = |error: &dyn std::fmt::Display| Complaint::Inner(error.to_string());
        if ip_bytes(&copy.inner).is_some_and(|(needed, had)| needed > had) {
            return Err(Complaint::Truncated);
        }
        let sliced = SlicedPacket::from_ethernet(&copy.inner).map_err(|error| inner(&error))?;
        let (src, dst): (IpAddr, IpAddr) = match &sliced.net {
            Some(NetSlice::Ipv4(ip)) => {
                let header = ip.header().to_header();
                if header.header_checksum != header.calc_header_checksum() {
                    return Err(Complaint::Checksum("ip"));
                }
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            Some(NetSlice::Ipv6(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            Some(NetSlice::Arp(_)) | None => return Ok(()),
        };
        let Some(payload) = sliced.net.as_ref().and_then(NetSlice::ip_payload_ref) else { return Ok(()) };
        if payload.fragmented {
            return Ok(());
        }
        // Behind an authentication header the ports are not for everyone to read.
        let is_plain = match &sliced.net {
            Some(NetSlice::Ipv4(ip)) => ip.header().protocol() == payload.ip_number,
            Some(NetSlice::Ipv6(_) | NetSlice::Arp(_)) | None => true,
        };
        let is_right = sum(src, dst, payload.ip_number.0, payload.payload) == 0xffff;
        match &sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                if !is_right {
                    return Err(Complaint::Checksum("tcp"));
                }
                let there = StreamKey { src, dst, src_port: tcp.source_port(), dst_port: tcp.destination_port() };
                if is_plain {
                    self.connection(copy, there, payload.ip_number.0)?;
                }
                self.streams.entry(there).or_default().take(tcp.sequence_number(), tcp.syn(), tcp.payload());
            }
            Some(TransportSlice::Udp(udp)) => {
                if udp.checksum() == 0 && dst.is_ipv6() || udp.checksum() != 0 && !is_right {
                    return Err(Complaint::Checksum("udp"));
                }
                let there = StreamKey { src, dst, src_port: udp.source_port(), dst_port: udp.destination_port() };
                if is_plain {
                    self.connection(copy, there, payload.ip_number.0)?;
                }
            }
            Some(TransportSlice::Icmpv4(_)) if sum_of(payload.payload) != 0xffff => {
                return Err(Complaint::Checksum("icmp"));
            }
            Some(TransportSlice::Icmpv6(_)) if !is_right => return Err(Complaint::Checksum("icmp")),
            Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None => {}
        }
        Ok(())
    }

    /// Notices copies of one connection from two places.
    fn connection(&mut self, copy: &Copy, there: StreamKey, protocol: u8) -> Result<(), Complaint> {
        let back = there.reversed();
        let from = (copy.outer.0, copy.src_port);
        let known = *self.connections.entry((there.min(back), there.max(back), protocol)).or_insert(from);
        if known == from { Ok(()) } else { Err(Complaint::TwoPorts(there)) }
    }
}

/// Identification, offset in bytes, and whether more come, of a fragment.
fn fragment(net: &NetSlice<'_>) -> Option<(u32, usize, bool)> {
    match net {
        NetSlice::Ipv4(ip) if ip.header().is_fragmenting_payload() => {
            let header = ip.header();
            let offset = usize::from(header.fragments_offset().value()) * 8;
            Some((header.identification().into(), offset, header.more_fragments()))
        }
        NetSlice::Ipv6(ip) => ip.extensions().clone().into_iter().find_map(|extension| match extension {
            etherparse::Ipv6ExtensionSlice::Fragment(fragment) if fragment.is_fragmenting_payload() => {
                let header = fragment.to_header();
                Some((header.identification, usize::from(header.fragment_offset.value()) * 8, header.more_fragments))
            }
            _ => None,
        }),
        _ => None,
    }
}

fn rejoin(pieces: &mut [(usize, bool, Vec<u8>)]) -> Option<Vec<u8>> {
    pieces.sort();
    let mut whole = Vec::new();
    for (offset, more, bytes) in pieces {
        if *offset != whole.len() {
            return None;
        }
        whole.extend_from_slice(bytes);
        if !*more {
            return Some(whole);
        }
    }
    None
}

/// How long the IP packet of an Ethernet frame says it is, and how much of it is there; behind up to two tags.
fn ip_bytes(frame: &[u8]) -> Option<(usize, usize)> {
    let mut at = 12;
    let mut ethertype = u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?);
    while [0x8100, 0x88a8].contains(&ethertype) && at < 20 {
        at += 4;
        ethertype = u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?);
    }
    let ip = frame.get(at + 2..)?;
    let length = |at: usize| Some(usize::from(u16::from_be_bytes(ip.get(at..at + 2)?.try_into().ok()?)));
    match EtherType(ethertype) {
        EtherType::IPV4 => Some((length(2)?, ip.len())),
        EtherType::IPV6 => Some((length(4)? + 40, ip.len())),
        _ => None,
    }
}

/// The folded sum over pseudo-header and payload, 0xffff if the checksum in it is right.
fn sum(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    for address in [src, dst] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend([0, protocol]);
    bytes.extend(payload);
    sum_of(&bytes)
}

fn sum_of(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

const GENEVE_PORT: u16 = 6081;

#[cfg(test)]
mod tests;
