//! The IPv6 header and the extension headers before the payload (RFC 8200 sections 3 and 4).
//!
//! Walked are hop-by-hop options, routing, fragment and destination options. Any other header, and one that is cut,
//! ends the walk, and its number is the packet's protocol; so do AH and ESP, whose payload is not ours to read.

use super::cursor::Cursor;
use super::ip::Ip;
use super::{Addresses, Fault, Fragment};

/// How many extension headers are walked. RFC 8200 section 4.1 allows five; beyond eight, the packet is counted under
/// the number of the extension header that was not walked, without ports.
pub(super) const EXTENSIONS_MAX: usize = 8;

/// Reads a header and its extensions.
///
/// A payload length of zero means a jumbogram (RFC 2675) or what the kernel shows of a packet that the card will cut
/// into segments; then the packet is what the frame held, `wire_bytes`, unless the jumbo option says it is shorter.
#[inline]
pub(super) fn read(mut cursor: Cursor<'_>, wire_bytes: u32) -> Result<Ip<'_>, Fault> {
    if cursor.peek().is_some_and(|first| first >> 4 != 6) {
        return Err(Fault::IpVersion);
    }
    let [_, _, _, _, length_0, length_1, next_header, _hop_limit]: [u8; 8] =
        cursor.take_array().ok_or(Fault::TruncatedIp)?;
    let src = cursor.take_array().map(u128::from_be_bytes).ok_or(Fault::TruncatedIp)?;
    let dst = cursor.take_array().map(u128::from_be_bytes).ok_or(Fault::TruncatedIp)?;

    let payload_bytes = match u16::from_be_bytes([length_0, length_1]) {
        0 => open_payload_bytes(cursor, next_header, wire_bytes.saturating_sub(HEADER_BYTES)),
        bytes => bytes.into(),
    };
    cursor.limit(payload_bytes as usize);

    let mut ip = Ip {
        addresses: Addresses::V6 { src, dst },
        protocol: next_header,
        ip_bytes: payload_bytes.saturating_add(HEADER_BYTES),
        fragment: Fragment::None,
        payload: cursor,
    };
    if is_extension(next_header) {
        walk(&mut ip);
    }
    Ok(ip)
}

/// Takes extension headers off the payload.
fn walk(ip: &mut Ip<'_>) {
    for _ in 0..EXTENSIONS_MAX {
        let next = match ip.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => take_options(&mut ip.payload).map(|(next, _)| next),
            FRAGMENT => ip.payload.take_array::<8>().map(|[next, _, offset_0, offset_1, id @ ..]| {
                let id = u32::from_be_bytes(id);
                let offset_and_more = u16::from_be_bytes([offset_0, offset_1]);
                if offset_and_more & OFFSET_MASK != 0 {
                    ip.fragment = Fragment::Later { id };
                } else if offset_and_more & MORE_FRAGMENTS != 0 {
                    ip.fragment = Fragment::First { id };
                }
                next
            }),
            _ => return,
        };
        let Some(next) = next else { return };
        ip.protocol = next;
        // Behind a later piece's fragment header lies the middle of something.
        if matches!(ip.fragment, Fragment::Later { .. }) {
            return;
        }
    }
}

fn is_extension(number: u8) -> bool {
    matches!(number, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// Takes an extension header that tells its own length: the next header's number, and what lies within. Takes nothing
/// where it is cut.
fn take_options<'a>(cursor: &mut Cursor<'a>) -> Option<(u8, Cursor<'a>)> {
    let mut ahead = *cursor;
    let [next, eights] = ahead.take_array()?;
    let within = ahead.take(usize::from(eights) * 8 + 6)?;
    *cursor = ahead;
    Some((next, within))
}

/// How much follows the header when its length field is zero.
fn open_payload_bytes(payload: Cursor<'_>, next_header: u8, wire_bytes: u32) -> u32 {
    match next_header {
        // Says so itself, and what the frame still holds is padding.
        NO_NEXT_HEADER => 0,
        HOP_BY_HOP => jumbo_bytes(payload).filter(|&bytes| bytes <= wire_bytes).unwrap_or(wire_bytes),
        _ => wire_bytes,
    }
}

/// What the jumbo payload option says, if it is there and valid (RFC 2675 section 2).
fn jumbo_bytes(mut payload: Cursor<'_>) -> Option<u32> {
    let (_, mut options) = take_options(&mut payload)?;
    loop {
        match options.take_u8()? {
            OPTION_PAD1 => {}
            OPTION_JUMBO => {
                let [4, length @ ..] = options.take_array::<5>()? else { return None };
                return Some(u32::from_be_bytes(length)).filter(|&bytes| bytes > JUMBO_ABOVE_BYTES);
            }
            _ => {
                let length_bytes = options.take_u8()?;
                options.skip(length_bytes.into())?;
            }
        }
    }
}

const HEADER_BYTES: u32 = 40;

// Protocol numbers, IANA.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION: u8 = 60;

const OFFSET_MASK: u16 = 0xfff8;
const MORE_FRAGMENTS: u16 = 0x0001;

const OPTION_PAD1: u8 = 0x00;
const OPTION_JUMBO: u8 = 0xc2;
/// A jumbogram is longer than the length field could say.
const JUMBO_ABOVE_BYTES: u32 = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    const SRC: u128 = 0x2001_0db8_0000_0000_0000_0000_0000_0001;
    const DST: u128 = 0x2001_0db8_0000_0000_0000_0000_0000_0002;

    fn header(payload_bytes: u16, next_header: u8) -> Vec<u8> {
        let mut bytes = vec![0x60, 0x01, 0x23, 0x45];
        bytes.extend(payload_bytes.to_be_bytes());
        bytes.extend([next_header, 64]);
        bytes.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        bytes
    }

    /// Protocol, length, piece, and the bytes left, of a header with `payload`.
    fn walked(next_header: u8, payload: &[u8]) -> (u8, u32, Fragment, usize) {
        let bytes = [header(payload.len() as u16, next_header), payload.to_vec()].concat();
        let ip = read(Cursor::new(&bytes), bytes.len() as u32).unwrap();
        assert_eq!(ip.addresses, Addresses::V6 { src: SRC, dst: DST });
        (ip.protocol, ip.ip_bytes, ip.fragment, ip.payload.len())
    }

    #[test]
    fn the_fields() {
        assert_eq!(walked(17, &[0; 8]), (17, 48, Fragment::None, 8));
    }

    #[test]
    fn all_four_extensions_are_walked() {
        // Hop-by-hop (16 bytes), routing (8), atomic fragment (8), destination options (8), then 2 bytes of TCP.
        let payload = [
            43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
            44, 0, 0, 0, 0, 0, 0, 0, //
            60, 0, 0, 0, 0, 0, 0, 9, //
            6, 0, 1, 4, 0, 0, 0, 0, //
            0xab, 0xcd,
        ];
        assert_eq!(walked(0, &payload), (6, 82, Fragment::None, 2));
    }

    #[test]
    fn other_headers_end_the_walk() {
        for number in [50, 51, 59, 135, 139, 140, 253, 58] {
            let payload = [number, 0, 1, 4, 0, 0, 0, 0, 1, 2, 3];
            assert_eq!(walked(60, &payload), (number, 51, Fragment::None, 3), "{number}");
            assert_eq!(walked(number, &payload), (number, 51, Fragment::None, 11), "{number}");
        }
    }

    #[test]
    fn pieces() {
        let id = 0x0102_0304;
        assert_eq!(walked(44, &[17, 0, 0x00, 0x01, 1, 2, 3, 4, 9]), (17, 49, Fragment::First { id }, 1));
        assert_eq!(walked(44, &[17, 0, 0x00, 0x08, 1, 2, 3, 4, 9]), (17, 49, Fragment::Later { id }, 1));
        assert_eq!(walked(44, &[17, 0, 0xff, 0xf9, 1, 2, 3, 4, 9]), (17, 49, Fragment::Later { id }, 1));
        // The two reserved bits mean nothing.
        assert_eq!(walked(44, &[17, 0, 0x00, 0x06, 1, 2, 3, 4, 9]), (17, 49, Fragment::None, 1));
    }

    #[test]
    fn a_first_piece_is_walked_on_and_a_later_is_not() {
        let options = [17, 0, 1, 4, 0, 0, 0, 0];
        let first = [&[60, 0, 0x00, 0x01, 0, 0, 0, 7][..], &options].concat();
        assert_eq!(walked(44, &first), (17, 56, Fragment::First { id: 7 }, 0));
        let later = [&[60, 0, 0x00, 0x09, 0, 0, 0, 7][..], &options].concat();
        assert_eq!(walked(44, &later), (60, 56, Fragment::Later { id: 7 }, 8));
    }

    #[test]
    fn a_cut_extension_is_the_protocol() {
        assert_eq!(walked(60, &[6, 1, 1, 4, 0, 0, 0, 0, 0, 0]), (60, 50, Fragment::None, 10));
        assert_eq!(walked(44, &[6, 0, 0, 1, 0, 0, 0]), (44, 47, Fragment::None, 7));
        assert_eq!(walked(0, &[]), (0, 40, Fragment::None, 0));
    }

    #[test]
    fn the_walk_ends_at_its_bound() {
        let walk_many = |extensions: usize| {
            let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(extensions - 1);
            payload.extend([6, 0, 1, 4, 0, 0, 0, 0]);
            walked(60, &payload).0
        };
        assert_eq!(walk_many(EXTENSIONS_MAX), 6);
        assert_eq!(walk_many(EXTENSIONS_MAX + 1), 60);
    }

    #[test]
    fn padding_of_the_frame_is_no_payload() {
        let bytes = [header(4, 17), vec![0; 20]].concat();
        let ip = read(Cursor::new(&bytes), 60).unwrap();
        assert_eq!((ip.ip_bytes, ip.payload.len()), (44, 4));
    }

    fn ip_bytes(next_header: u8, payload: &[u8], wire_bytes: u32) -> u32 {
        read(Cursor::new(&[header(0, next_header), payload.to_vec()].concat()), wire_bytes).unwrap().ip_bytes
    }

    #[test]
    fn a_length_of_zero_is_the_frames() {
        assert_eq!(ip_bytes(6, &[0; 20], 70_000), 70_000);
        assert_eq!(ip_bytes(59, &[0; 6], 46), 40);
        assert_eq!(ip_bytes(6, &[], 3), 40);
    }

    #[test]
    fn a_jumbogram_tells_its_length() {
        // 70 000 bytes of payload, behind a pad byte and an unknown option.
        let jumbo = [6, 1, 0, 0x1e, 1, 0, 0xc2, 4, 0x00, 0x01, 0x11, 0x70, 1, 2, 0, 0];
        assert_eq!(ip_bytes(0, &jumbo, 80_000), 70_040);
        // The frame is shorter than that: the option is not believed.
        assert_eq!(ip_bytes(0, &jumbo, 70_039), 70_039);
        assert_eq!(ip_bytes(0, &jumbo, 70_040), 70_040);
        // Not long enough for a jumbogram, a wrong option length, no option.
        assert_eq!(ip_bytes(0, &[6, 0, 0xc2, 4, 0, 0, 0xff, 0xff], 80_000), 80_000);
        assert_eq!(ip_bytes(0, &[6, 0, 0xc2, 3, 0, 2, 0, 0], 80_000), 80_000);
        assert_eq!(ip_bytes(0, &[6, 0, 1, 4, 0, 0, 0, 0], 80_000), 80_000);
    }

    #[test]
    fn what_is_refused() {
        let bytes = header(0, 17);
        assert_eq!(read(Cursor::new(&bytes[..39]), 40).unwrap_err(), Fault::TruncatedIp);
        assert_eq!(read(Cursor::new(&[]), 40).unwrap_err(), Fault::TruncatedIp);
        let mut other = bytes;
        other[0] = 0x45;
        assert_eq!(read(Cursor::new(&other), 40).unwrap_err(), Fault::IpVersion);
    }
}
