//! Datagrams in pieces (RFC 791 section 3.2, RFC 8200 section 4.5).

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader};

use crate::packet::{IPV6_HEADER_BYTES, Packet, length_u16, length_u32, protocol};

/// Cuts `whole` after each `piece_bytes` of IP payload. Only the first piece shows ports and TCP flags; the others are
/// counted apart, under ports 0.
///
/// # Panics
/// If `piece_bytes` is no positive multiple of eight.
pub fn fragments(whole: &Packet, id: u32, piece_bytes: usize) -> Vec<Packet> {
    assert!(piece_bytes > 0 && piece_bytes.is_multiple_of(8), "offsets count units of eight bytes");
    let payload = &whole.bytes[whole.header_bytes()..];
    let pieces: Vec<&[u8]> = payload.chunks(piece_bytes).collect();
    let cut = |(index, piece): (usize, &&[u8])| {
        let offset =
            IpFragOffset::try_new(length_u16(index * piece_bytes / 8)).expect("offsets below 64 KiB fit 13 bits");
        let place = Place { id, offset, more: index + 1 < pieces.len() };
        let bytes = if whole.flow.src.is_ipv4() { v4(whole, piece, place) } else { v6(whole, piece, place) };
        let ip_bytes = length_u32(bytes.len());
        let first = Packet { bytes, flow: whole.flow, ip_bytes, tcp_flags: whole.tcp_flags };
        if index == 0 { first } else { Packet { tcp_flags: first.tcp_flags.map(|_| 0), ..first.without_ports() } }
    };
    pieces.iter().enumerate().map(cut).collect()
}

#[derive(Clone, Copy)]
struct Place {
    id: u32,
    offset: IpFragOffset,
    more: bool,
}

fn v4(whole: &Packet, piece: &[u8], place: Place) -> Vec<u8> {
    let (mut header, _) = Ipv4Header::from_slice(&whole.bytes).expect("the caller looked at the address");
    header.identification = u16::try_from(place.id).expect("the story gives IPv4 identifications 16 bits");
    header.dont_fragment = false;
    header.more_fragments = place.more;
    header.fragment_offset = place.offset;
    header.total_len = length_u16(header.header_len() + piece.len());
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes(), piece].concat()
}

fn v6(whole: &Packet, piece: &[u8], place: Place) -> Vec<u8> {
    let mut bytes = whole.bytes[..IPV6_HEADER_BYTES].to_vec();
    let next_header = IpNumber(bytes[6]);
    bytes[6] = protocol::FRAGMENT;
    let header = Ipv6FragmentHeader::new(next_header, place.offset, place.more, place.id).to_bytes();
    bytes[4..6].copy_from_slice(&length_u16(header.len() + piece.len()).to_be_bytes());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(piece);
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::cast::{HOST, HOST_V6, WEB, WEB_V6};
    use crate::packet::udp;

    #[test]
    fn four_kilobytes_become_three_pieces() {
        let whole = udp(SocketAddr::from((HOST, 5)), SocketAddr::from((WEB, 6)), &[0; 4_000]);
        let pieces = fragments(&whole, 7, 1_480);
        // 4008 bytes of UDP: 1480 + 1480 + 1048, each behind 20 bytes of header.
        assert_eq!(pieces.iter().map(|piece| piece.ip_bytes).collect::<Vec<_>>(), [1_500, 1_500, 1_068]);
        assert_eq!(pieces.iter().map(|piece| piece.flow.dst_port).collect::<Vec<_>>(), [6, 0, 0]);
        // Flags and offset: more from 0, more from 1480/8 = 185, last from 370.
        let words: Vec<[u8; 2]> = pieces.iter().map(|piece| [piece.bytes[6], piece.bytes[7]]).collect();
        assert_eq!(words, [[0x20, 0x00], [0x20, 0xb9], [0x01, 0x72]]);
    }

    #[test]
    fn an_ipv6_piece_carries_a_fragment_header() {
        let whole = udp(SocketAddr::from((HOST_V6, 5)), SocketAddr::from((WEB_V6, 6)), &[0; 24]);
        let pieces = fragments(&whole, 0x0102_0304, 16);
        assert_eq!(pieces.iter().map(|piece| piece.ip_bytes).collect::<Vec<_>>(), [64, 64]);
        // Next header UDP, reserved, offset 2 units and no more, identification.
        assert_eq!(pieces[1].bytes[40..48], [17, 0, 0x00, 0x10, 1, 2, 3, 4]);
        assert_eq!((pieces[1].bytes[6], pieces[1].bytes[5]), (44, 24));
    }
}
