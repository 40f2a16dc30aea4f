//! IP packets together with what a flow record must say of them.
//!
//! The builder of a packet knows its addresses, ports and length before any byte is written, so the expected totals of
//! a capture never come from reading it back. Headers and checksums are etherparse's (RFC 791, 8200, 768, 9293).

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader};

/// An IP packet, from its first header byte on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Header and payload.
    pub bytes: Vec<u8>,
    /// The row it belongs to.
    pub flow: Flow,
    /// IP total length: header and payload.
    pub ip_bytes: u32,
    /// The TCP flag byte; `None` where it is no TCP.
    pub tcp_flags: Option<u8>,
}

/// The address part of a flow key. Its order is the order of the rows in the expected totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port, 0 where there is none.
    pub src_port: u16,
    /// Destination port, 0 where there is none.
    pub dst_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
}

/// One TCP segment, without the ports.
#[derive(Debug, Clone, Copy, Default)]
pub struct Segment<'a> {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Flag byte, see [`flag`].
    pub flags: u8,
    /// Data.
    pub payload: &'a [u8],
}

/// The bits of the TCP flag byte (RFC 9293, RFC 3168).
#[expect(missing_docs, reason = "the names are the RFC's own")]
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
    pub const ECE: u8 = 0x40;
    pub const CWR: u8 = 0x80;
}

/// IANA protocol numbers that the stories use.
#[expect(missing_docs, reason = "the names are the registry's own")]
pub mod protocol {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const DCCP: u8 = 33;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AH: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const NO_NEXT_HEADER: u8 = 59;
    pub const DESTINATION_OPTIONS: u8 = 60;
    pub const SCTP: u8 = 132;
    pub const UDP_LITE: u8 = 136;
}

/// Hop limit and time to live of every packet.
const TIME_TO_LIVE: u8 = 64;
/// Length of an IPv6 header (RFC 8200).
pub const IPV6_HEADER_BYTES: usize = 40;
/// Length of an IPv4 header without options (RFC 791).
pub const IPV4_HEADER_BYTES: usize = 20;

/// A packet of any protocol, without ports.
///
/// # Panics
/// If the addresses are of two families, or the payload does not fit a packet: a mistake of the story.
pub fn ip(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Packet {
    let mut bytes = Vec::new();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let header = Ipv4Header::new(
                length_u16(payload.len()),
                TIME_TO_LIVE,
                IpNumber(protocol),
                src.octets(),
                dst.octets(),
            );
            let mut header = header.expect("the story keeps packets below 64 KiB");
            header.dont_fragment = true;
            header.header_checksum = header.calc_header_checksum();
            bytes.extend_from_slice(&header.to_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: length_u16(payload.len()),
                next_header: IpNumber(protocol),
                hop_limit: TIME_TO_LIVE,
                source: src.octets(),
                destination: dst.octets(),
            };
            bytes.extend_from_slice(&header.to_bytes());
        }
        _ => panic!("{src} and {dst} are of two families"),
    }
    bytes.extend_from_slice(payload);
    let ip_bytes = length_u32(bytes.len());
    let flow = Flow { src, dst, src_port: 0, dst_port: 0, protocol };
    Packet { bytes, flow, ip_bytes, tcp_flags: None }
}

/// A UDP datagram.
///
/// # Panics
/// As [`ip`].
pub fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Packet {
    let (src_port, dst_port) = (src.port(), dst.port());
    let length = length_u16(UdpHeader::LEN + payload.len());
    let mut header = UdpHeader { source_port: src_port, destination_port: dst_port, length, checksum: 0 };
    header.checksum = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), payload),
        (IpAddr::V6(src), IpAddr::V6(dst)) => header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), payload),
        (src, dst) => panic!("{src} and {dst} are of two families"),
    }
    .expect("the length was checked above");
    ip(src.ip(), dst.ip(), protocol::UDP, &[&header.to_bytes(), payload].concat()).with_ports(src_port, dst_port)
}

/// A TCP segment. A SYN carries a maximum segment size option (4 bytes), nothing else carries options.
///
/// # Panics
/// As [`ip`].
pub fn tcp(src: SocketAddr, dst: SocketAddr, segment: Segment<'_>) -> Packet {
    let set = |bit: u8| segment.flags & bit != 0;
    let mut header = TcpHeader::new(src.port(), dst.port(), segment.seq, TCP_WINDOW);
    header.acknowledgment_number = segment.ack;
    (header.fin, header.syn, header.rst) = (set(flag::FIN), set(flag::SYN), set(flag::RST));
    (header.psh, header.ack, header.urg) = (set(flag::PSH), set(flag::ACK), set(flag::URG));
    (header.ece, header.cwr) = (set(flag::ECE), set(flag::CWR));
    if set(flag::SYN) {
        let [high, low] = mss(src.ip()).to_be_bytes();
        header.set_options_raw(&[2, 4, high, low]).expect("four bytes of options fit a TCP header");
    }
    header.checksum = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), segment.payload)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), segment.payload)
        }
        (src, dst) => panic!("{src} and {dst} are of two families"),
    }
    .expect("the story keeps packets below 64 KiB");
    let mut packet = ip(src.ip(), dst.ip(), protocol::TCP, &[&header.to_bytes(), segment.payload].concat());
    packet.tcp_flags = Some(segment.flags);
    packet.with_ports(src.port(), dst.port())
}

/// The largest TCP payload on a link of 1500 bytes.
pub fn mss(address: IpAddr) -> u16 {
    if address.is_ipv4() { 1460 } else { 1440 }
}

/// Whether a flow log reads ports behind an IP header of this protocol.
pub fn has_ports(number: u8) -> bool {
    [protocol::TCP, protocol::UDP, protocol::DCCP, protocol::SCTP, protocol::UDP_LITE].contains(&number)
}

/// Both ends of a conversation.
pub fn ends(client: IpAddr, client_port: u16, server: IpAddr, server_port: u16) -> [SocketAddr; 2] {
    [(client, client_port).into(), (server, server_port).into()]
}

const TCP_WINDOW: u16 = 64_240;

impl Packet {
    /// The same bytes, known to hold these ports.
    pub fn with_ports(mut self, src_port: u16, dst_port: u16) -> Self {
        (self.flow.src_port, self.flow.dst_port) = (src_port, dst_port);
        self
    }

    /// The same bytes, of which nobody can know the ports: a later piece of a datagram.
    pub fn without_ports(self) -> Self {
        self.with_ports(0, 0)
    }

    /// Length of the IP header proper: with options, without extension headers.
    pub fn header_bytes(&self) -> usize {
        if self.flow.src.is_ipv4() { usize::from(self.bytes[0] & 0x0f) * 4 } else { IPV6_HEADER_BYTES }
    }

    /// Puts options into an IPv4 header.
    ///
    /// # Panics
    /// If it is no IPv4 packet, or the options are no multiple of four bytes or more than forty.
    pub fn with_ipv4_options(mut self, options: &[u8]) -> Self {
        let (mut header, payload) = Ipv4Header::from_slice(&self.bytes).expect("the story asks this of IPv4 only");
        header.options = options.try_into().expect("the story's options fit");
        header.total_len = length_u16(header.header_len() + payload.len());
        header.header_checksum = header.calc_header_checksum();
        self.bytes = [&header.to_bytes(), payload].concat();
        self.ip_bytes = length_u32(self.bytes.len());
        self
    }

    /// Puts an extension header between the IPv6 header and what follows it. `extension` is the whole extension header;
    /// its first byte becomes the number of what followed until now. The flow stays that of the upper layer.
    ///
    /// # Panics
    /// If it is no IPv6 packet or the extension is empty.
    pub fn with_ipv6_extension(mut self, number: u8, extension: &[u8]) -> Self {
        let (mut header, payload) = Ipv6Header::from_slice(&self.bytes).expect("the story asks this of IPv6 only");
        let mut extension = extension.to_vec();
        extension[0] = header.next_header.0;
        header.next_header = IpNumber(number);
        header.payload_length = length_u16(extension.len() + payload.len());
        self.bytes = [&header.to_bytes()[..], &extension, payload].concat();
        self.ip_bytes = length_u32(self.bytes.len());
        self
    }
}

/// A length as the 16 bits that headers have for it.
///
/// # Panics
/// If it is more than 65,535: a mistake of the story.
pub(crate) fn length_u16(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("the story keeps packets below 64 KiB")
}

/// A length as the 32 bits that captures have for it.
///
/// # Panics
/// If it is 4 GiB or more: a mistake of the story.
pub(crate) fn length_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the story keeps frames below 4 GiB")
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;
    use crate::cast::{HOST, HOST_V6, WEB, WEB_V6};

    #[test]
    fn lengths_are_header_plus_payload() {
        let syn = Segment { flags: flag::SYN, ..Segment::default() };
        let data = Segment { flags: flag::ACK, payload: &[0; 100], ..Segment::default() };
        let end = |ip: IpAddr| SocketAddr::from((ip, 1000));
        assert_eq!(tcp(end(HOST), end(WEB), syn).ip_bytes, 20 + 20 + 4);
        assert_eq!(tcp(end(HOST), end(WEB), data).ip_bytes, 20 + 20 + 100);
        assert_eq!(tcp(end(HOST_V6), end(WEB_V6), data).ip_bytes, 40 + 20 + 100);
        assert_eq!(udp(end(HOST), end(WEB), &[0; 7]).ip_bytes, 20 + 8 + 7);
        assert_eq!(udp(end(HOST), end(WEB), &[]).with_ipv4_options(&[1; 8]).ip_bytes, 20 + 8 + 8);
        assert_eq!(
            udp(end(HOST_V6), end(WEB_V6), &[]).with_ipv6_extension(protocol::DESTINATION_OPTIONS, &[0; 16]).ip_bytes,
            40 + 16 + 8
        );
    }

    #[test]
    fn etherparse_reads_back_what_was_built_with_the_right_checksum() {
        let (client, server) = (SocketAddr::from((HOST_V6, 40_000)), SocketAddr::from((WEB_V6, 443)));
        let packet = tcp(client, server, Segment { seq: 7, ack: 9, flags: 0xc2, payload: b"abc" });
        let sliced = SlicedPacket::from_ip(&packet.bytes).unwrap();
        let Some(TransportSlice::Tcp(segment)) = sliced.transport else { panic!("no TCP") };
        let IpAddr::V6(src) = HOST_V6 else { panic!() };
        let IpAddr::V6(dst) = WEB_V6 else { panic!() };
        assert_eq!(segment.checksum(), segment.calc_checksum_ipv6(src.octets(), dst.octets()).unwrap());
        assert_eq!((segment.sequence_number(), segment.acknowledgment_number()), (7, 9));
        assert!(segment.syn() && segment.ece() && segment.cwr() && !segment.ack());
        assert_eq!(segment.payload(), b"abc");
    }
}
