//! Pieces against the packet they were cut from; checksums as etherparse computes them.

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, NetSlice, SlicedPacket, TcpHeader, TransportSlice, UdpHeader};
use proptest::prelude::*;

use super::*;
use crate::capture::LinkType;
use crate::packet::locate;

const LINK: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// An Ethernet frame with the payload of `protocol` behind the headers; its IPv4 length 0 if that is too long for it.
fn frame(is_v6: bool, protocol: u8, transport: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut frame = LINK.to_vec();
    let ip_payload_bytes = transport.len() + payload.len();
    if is_v6 {
        frame.extend([0x86, 0xdd]);
        let header = Ipv6Header {
            payload_length: u16::try_from(ip_payload_bytes).unwrap_or(0),
            next_header: IpNumber(protocol),
            hop_limit: 64,
            source: [0x20; 16],
            destination: [0x21; 16],
            ..Ipv6Header::default()
        };
        frame.extend(header.to_bytes());
    } else {
        frame.extend([8, 0]);
        let mut header = Ipv4Header::new(0, 64, IpNumber(protocol), [10, 0, 0, 1], [192, 0, 2, 7]).unwrap();
        header.identification = 0xfffe;
        header.total_len = u16::try_from(20 + ip_payload_bytes).unwrap_or(0);
        frame.extend(header.to_bytes().as_slice());
    }
    frame.extend(transport);
    frame.extend(payload);
    frame
}

fn cut(frame: &[u8], size: PieceSize) -> Option<Vec<Vec<u8>>> {
    let layout = locate(LinkType::Ethernet, frame, frame.len() as u32).unwrap();
    let (link, ip) = frame.split_at(layout.ip_at);
    let mut segmenter = Segmenter::default();
    let count = segmenter.take_up(link, ip, &layout, size)?;
    let mut pieces = Vec::new();
    for number in 0..count {
        // Behind something else, as in the sender's buffer.
        let mut out = vec![0xaa; 3];
        segmenter.write(ip, number, &mut out);
        pieces.push(out.split_off(3));
    }
    assert_eq!(segmenter.frames_bytes(count), pieces.iter().map(|piece| piece.len() as u64).sum::<u64>());
    Some(pieces)
}

fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

fn tcp_header(options: bool) -> Vec<u8> {
    let mut tcp = TcpHeader::new(1025, 443, 0xffff_ff00, 1000);
    (tcp.ack, tcp.psh, tcp.fin, tcp.cwr, tcp.ece) = (true, true, true, true, true);
    tcp.acknowledgment_number = 77;
    if options {
        tcp.set_options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]).unwrap();
    }
    tcp.to_bytes().to_vec()
}

fn check_tcp(piece: &[u8]) -> (TcpHeader, Vec<u8>) {
    let sliced = SlicedPacket::from_ethernet(piece).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
    let header = tcp.to_header();
    let expected = match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header().to_header();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(usize::from(ip.total_len), piece.len() - 14);
            header.calc_checksum_ipv4(&ip, tcp.payload()).unwrap()
        }
        NetSlice::Ipv6(ip) => {
            assert_eq!(usize::from(ip.header().payload_length()), piece.len() - 54);
            header.calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()).unwrap()
        }
        NetSlice::Arp(_) => panic!("no IP"),
    };
    assert_eq!(header.checksum, expected);
    (header, tcp.payload().to_vec())
}

/// M5 of the specification.
#[test]
fn a_super_packet_of_64_kib() {
    for is_v6 in [false, true] {
        let stream = payload(65_000);
        let pieces = cut(&frame(is_v6, 6, &tcp_header(true), &stream), PieceSize::Mtu(1500)).unwrap();
        // 1500 less 20 or 40 for IP and 32 for TCP.
        let segment_bytes = if is_v6 { 1428 } else { 1448 };
        assert_eq!(pieces.len(), 65_000_usize.div_ceil(segment_bytes));
        let mut rejoined = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            assert!(piece.len() <= 1514);
            let (header, bytes) = check_tcp(piece);
            assert_eq!(header.sequence_number, 0xffff_ff00_u32.wrapping_add(rejoined.len() as u32));
            let is_last = number + 1 == pieces.len();
            assert_eq!((header.fin, header.psh, header.cwr), (is_last, is_last, number == 0));
            assert!(header.ack && header.ece && header.acknowledgment_number == 77);
            assert_eq!(header.options.as_slice().len(), 12);
            if !is_v6 {
                assert_eq!(u16::from_be_bytes([piece[18], piece[19]]), 0xfffe_u16.wrapping_add(number as u16));
            }
            rejoined.extend(bytes);
        }
        assert_eq!(rejoined, stream);
    }
}

/// What the kernel shows of BIG TCP: IPv4 with length 0, IPv6 with length 0, or with a jumbo header.
#[test]
fn big_tcp() {
    let stream = payload(150_000);
    let mut jumbo = frame(true, 0, &[6, 0, 0xc2, 4, 0, 0, 0, 0], &[]);
    jumbo.extend(tcp_header(false));
    jumbo.extend(&stream);
    jumbo[18..20].copy_from_slice(&[0, 0]);
    jumbo[58..62].copy_from_slice(&(150_000_u32 + 20 + 8).to_be_bytes());
    let frames = [frame(false, 6, &tcp_header(false), &stream), frame(true, 6, &tcp_header(false), &stream), jumbo];
    for frame in frames {
        let pieces = cut(&frame, PieceSize::Payload(1440)).unwrap();
        assert_eq!(pieces.len(), 150_000_usize.div_ceil(1440));
        let rejoined: Vec<u8> = pieces.iter().flat_map(|piece| check_tcp(piece).1).collect();
        assert!(rejoined == stream);
    }
}

#[test]
fn datagrams_of_one_send() {
    for is_v6 in [false, true] {
        for checksum in [0, 0x1234] {
            let data = payload(3000);
            let udp = UdpHeader { source_port: 1000, destination_port: 443, length: 3008, checksum };
            let pieces = cut(&frame(is_v6, 17, &udp.to_bytes(), &data), PieceSize::Payload(1200)).unwrap();
            assert_eq!(pieces.len(), 3);
            let mut rejoined: Vec<u8> = Vec::new();
            for piece in &pieces {
                let sliced = SlicedPacket::from_ethernet(piece).unwrap();
                let Some(TransportSlice::Udp(datagram)) = sliced.transport else { panic!("no UDP") };
                let header = datagram.to_header();
                assert_eq!(usize::from(header.length), 8 + datagram.payload().len());
                let expected = match sliced.net.unwrap() {
                    NetSlice::Ipv4(ip) => {
                        header.calc_checksum_ipv4(&ip.header().to_header(), datagram.payload()).unwrap()
                    }
                    NetSlice::Ipv6(ip) => {
                        header.calc_checksum_ipv6(&ip.header().to_header(), datagram.payload()).unwrap()
                    }
                    NetSlice::Arp(_) => panic!("no IP"),
                };
                assert_eq!(header.checksum, if checksum == 0 { 0 } else { expected }, "none stays none");
                rejoined.extend(datagram.payload());
            }
            assert_eq!(rejoined, data);
        }
    }
}

#[test]
fn what_no_card_cuts() {
    let icmp = frame(false, 1, &[8, 0, 0, 0, 0, 0, 0, 0], &payload(3000));
    assert_eq!(cut(&icmp, PieceSize::Mtu(1500)), None);
    let mut fragment = frame(false, 6, &tcp_header(false), &payload(3000));
    fragment[20] = 0x20;
    assert_eq!(cut(&fragment, PieceSize::Mtu(1500)), None);
    let mut short_header = frame(false, 6, &tcp_header(false), &payload(3000));
    short_header[46] = 0x40;
    assert_eq!(cut(&short_header, PieceSize::Mtu(1500)), None);
    let mut long_header = frame(false, 6, &tcp_header(false), &[]);
    long_header[46] = 0xf0;
    assert_eq!(cut(&long_header, PieceSize::Mtu(1500)), None);
    let whole = frame(false, 6, &tcp_header(false), &payload(3000));
    assert_eq!(cut(&whole, PieceSize::Mtu(40)), None, "no room for payload");
    assert_eq!(cut(&whole, PieceSize::Payload(0)), None);
    let open = frame(false, 6, &tcp_header(false), &payload(70_000));
    assert_eq!(cut(&open, PieceSize::Payload(66_000)), None, "pieces longer than a length field can say");
}

proptest! {
    #[test]
    fn pieces_are_the_stream(
        is_v6: bool, options: bool, bytes in 0_usize..9000, size in prop_oneof![
            (1_usize..3000).prop_map(PieceSize::Payload),
            (100_usize..9100).prop_map(PieceSize::Mtu),
        ],
        padding in 0_usize..20,
    ) {
        let stream = payload(bytes);
        let mut frame = frame(is_v6, 6, &tcp_header(options), &stream);
        frame.resize(frame.len() + padding, 0xee);
        let pieces = cut(&frame, size).unwrap();
        let mut rejoined = Vec::new();
        for piece in &pieces {
            let (header, bytes) = check_tcp(piece);
            prop_assert_eq!(header.sequence_number, 0xffff_ff00_u32.wrapping_add(rejoined.len() as u32));
            match size {
                PieceSize::Payload(most) => prop_assert!(bytes.len() <= most),
                PieceSize::Mtu(most) => prop_assert!(piece.len() <= most + 14),
            }
            rejoined.extend(bytes);
        }
        prop_assert_eq!(rejoined, stream);
    }
}
