//! The IPv4 header (RFC 791 section 3.1). Its checksum is not verified: cards often fill it in after the capture.

use super::cursor::Cursor;
use super::ip::Ip;
use super::{Addresses, Fault, Fragment};

/// Reads a header and its options.
///
/// A total length of zero is what the kernel shows of a packet that the card will cut into segments; then the packet is
/// what the frame held, `wire_bytes`. A total length beyond the frame is believed: more may be lost than captured.
#[inline]
pub(super) fn read(mut cursor: Cursor<'_>, wire_bytes: u32) -> Result<Ip<'_>, Fault> {
    // One check for the whole fixed part; then the fields, by position.
    let Some(header) = cursor.take_array::<HEADER_BYTES_MIN>() else {
        let version = cursor.peek().map(|first| first >> 4);
        return Err(if version.is_none_or(|version| version == 4) { Fault::TruncatedIp } else { Fault::IpVersion });
    };
    let [version_and_length, _tos, length_0, length_1, id_0, id_1, fragment_0, fragment_1, ..] = header;
    let [.., _ttl, protocol, _, _, src_0, src_1, src_2, src_3, dst_0, dst_1, dst_2, dst_3] = header;

    if version_and_length >> 4 != 4 {
        return Err(Fault::IpVersion);
    }
    let header_bytes = usize::from(version_and_length & 0x0f) * 4;
    let options_bytes = header_bytes.checked_sub(HEADER_BYTES_MIN).ok_or(Fault::HeaderLength)?;
    cursor.skip(options_bytes).ok_or(Fault::TruncatedIp)?;

    let total_bytes = usize::from(u16::from_be_bytes([length_0, length_1]));
    let ip_bytes = match total_bytes {
        0 => wire_bytes.max(header_bytes as u32),
        bytes if bytes < header_bytes => return Err(Fault::TotalLength),
        bytes => bytes as u32,
    };
    cursor.limit(ip_bytes as usize - header_bytes);

    Ok(Ip {
        addresses: Addresses::V4 {
            src: u32::from_be_bytes([src_0, src_1, src_2, src_3]),
            dst: u32::from_be_bytes([dst_0, dst_1, dst_2, dst_3]),
        },
        protocol,
        ip_bytes,
        fragment: fragment(u16::from_be_bytes([id_0, id_1]), u16::from_be_bytes([fragment_0, fragment_1])),
        payload: cursor,
    })
}

fn fragment(id: u16, flags_and_offset: u16) -> Fragment {
    let id = id.into();
    match (flags_and_offset & OFFSET_MASK, flags_and_offset & MORE_FRAGMENTS) {
        (0, 0) => Fragment::None,
        (0, _) => Fragment::First { id },
        _ => Fragment::Later { id },
    }
}

const HEADER_BYTES_MIN: usize = 20;
const OFFSET_MASK: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000;

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.0.1 to 192.0.2.7, UDP, 32 bytes in all, don't fragment, identification 0x1234.
    const HEADER: [u8; 20] =
        [0x45, 0x00, 0x00, 0x20, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 10, 0, 0, 1, 192, 0, 2, 7];

    fn packet(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        bytes.extend([0xaa; 12]);
        change(&mut bytes);
        bytes
    }

    #[test]
    fn the_fields() {
        let bytes = packet(|_| ());
        let ip = read(Cursor::new(&bytes), 46).unwrap();
        assert_eq!(ip.addresses, Addresses::V4 { src: 0x0a00_0001, dst: 0xc000_0207 });
        assert_eq!((ip.protocol, ip.ip_bytes, ip.fragment), (17, 32, Fragment::None));
        assert_eq!(ip.payload.len(), 12);
    }

    #[test]
    fn options_are_no_payload() {
        let bytes = packet(|bytes| bytes[0] = 0x47);
        let ip = read(Cursor::new(&bytes), 32).unwrap();
        assert_eq!((ip.ip_bytes, ip.payload.len()), (32, 4));
    }

    #[test]
    fn padding_of_the_frame_is_no_payload() {
        let bytes = packet(|bytes| bytes[3] = 22);
        let ip = read(Cursor::new(&bytes), 32).unwrap();
        assert_eq!((ip.ip_bytes, ip.payload.len()), (22, 2));
    }

    #[test]
    fn a_length_beyond_the_frame_is_believed() {
        let bytes = packet(|bytes| bytes[2] = 0x05);
        assert_eq!(read(Cursor::new(&bytes), 32).map(|ip| ip.ip_bytes), Ok(0x0520));
    }

    #[test]
    fn a_length_of_zero_is_the_frames() {
        let bytes = packet(|bytes| bytes[3] = 0);
        let ip = read(Cursor::new(&bytes), 65_800).unwrap();
        assert_eq!((ip.ip_bytes, ip.payload.len()), (65_800, 12));
        // A frame that claims to be shorter than its own header.
        assert_eq!(read(Cursor::new(&bytes), 3).map(|ip| ip.ip_bytes), Ok(20));
    }

    #[test]
    fn pieces() {
        let id = 0x1234;
        for (flags_and_offset, expected) in [
            ([0x00, 0x00], Fragment::None),
            ([0xc0, 0x00], Fragment::None),
            ([0x20, 0x00], Fragment::First { id }),
            ([0x20, 0x01], Fragment::Later { id }),
            ([0x00, 0x01], Fragment::Later { id }),
            ([0x10, 0x00], Fragment::Later { id }),
            ([0x1f, 0xff], Fragment::Later { id }),
        ] {
            let bytes = packet(|bytes| bytes[6..8].copy_from_slice(&flags_and_offset));
            assert_eq!(read(Cursor::new(&bytes), 32).map(|ip| ip.fragment), Ok(expected), "{flags_and_offset:02x?}");
        }
    }

    #[test]
    fn what_is_refused() {
        let refused = |change: fn(&mut Vec<u8>)| read(Cursor::new(&packet(change)), 32).unwrap_err();
        assert_eq!(refused(|bytes| bytes[0] = 0x65), Fault::IpVersion);
        assert_eq!(refused(|bytes| bytes[0] = 0x44), Fault::HeaderLength);
        assert_eq!(refused(|bytes| bytes[3] = 19), Fault::TotalLength);
        assert_eq!(refused(|bytes| bytes.truncate(19)), Fault::TruncatedIp);
        assert_eq!(refused(|bytes| bytes[0] = 0x4f), Fault::TruncatedIp);
        assert_eq!(refused(Vec::clear), Fault::TruncatedIp);
        assert_eq!(refused(|bytes| *bytes = vec![0x60]), Fault::IpVersion);
    }
}
