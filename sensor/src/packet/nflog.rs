//! Linux netfilter log: a family, then attributes, one of which is the IP packet.
//!
//! Authority: LINKTYPE_NFLOG of tcpdump.org and `nfnetlink_log.h`. Attribute lengths and types are in the byte order of
//! the machine that captured. Types are small, so the first attribute's zero byte tells which order that is.

use super::cursor::Cursor;
use super::link::Network;
use super::{Fault, NotIp, Refusal};

/// How many attributes are read in search of the payload; the kernel writes fewer than 25.
pub(super) const ATTRIBUTES_MAX: usize = 64;

/// Takes everything before the payload, and forgets what lies behind it.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Network, Refusal> {
    let [family, version, _, _] = cursor.take_array().ok_or(Fault::TruncatedLink)?;
    if version != 0 {
        return Err(Fault::LinkHeader.into());
    }
    let network = match family {
        2 => Network::Ipv4,
        10 => Network::Ipv6,
        _ => return Err(NotIp::Other.into()),
    };

    let mut number = None;
    for _ in 0..ATTRIBUTES_MAX {
        let length: [u8; 2] = cursor.take_array().ok_or(Fault::TruncatedLink)?;
        let kind: [u8; 2] = cursor.take_array().ok_or(Fault::TruncatedLink)?;
        let number = *number.get_or_insert(if kind[0] == 0 { u16::from_be_bytes } else { u16::from_le_bytes });
        let length_bytes = usize::from(number(length)).checked_sub(HEADER_BYTES).ok_or(Fault::LinkHeader)?;
        if number(kind) & TYPE_MASK == PAYLOAD {
            cursor.limit(length_bytes);
            return Ok(network);
        }
        cursor.skip(length_bytes.next_multiple_of(ALIGNMENT_BYTES)).ok_or(Fault::TruncatedLink)?;
    }
    Err(Fault::TooManyTags.into())
}

/// Length and type, which the length includes.
const HEADER_BYTES: usize = 4;
const ALIGNMENT_BYTES: usize = 4;
/// The two upper bits of a type are flags of netlink's.
const TYPE_MASK: u16 = 0x3fff;
/// `NFULA_PAYLOAD`.
const PAYLOAD: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(frame: &[u8]) -> Result<(Network, usize), Refusal> {
        let mut cursor = Cursor::new(frame);
        read(&mut cursor).map(|network| (network, cursor.len()))
    }

    #[test]
    fn little_endian() {
        // Packet header (8 bytes), prefix "a" (5 bytes, padded to 8), payload of 3 bytes and its padding.
        let frame = [
            2, 0, 0, 5, //
            8, 0, 1, 0, 0x08, 0x00, 1, 0, //
            6, 0, 10, 0, b'a', 0, 0, 0, //
            7, 0, 9, 0, 0x45, 0, 0, 0,
        ];
        assert_eq!(read_all(&frame), Ok((Network::Ipv4, 3)));
    }

    #[test]
    fn big_endian() {
        let frame = [10, 0, 0, 5, 0, 8, 0, 1, 0x86, 0xdd, 1, 0, 0, 6, 0, 9, 0x60, 0, 0, 0];
        assert_eq!(read_all(&frame), Ok((Network::Ipv6, 2)));
    }

    #[test]
    fn a_payload_cut_by_the_snap_length_is_still_a_payload() {
        assert_eq!(read_all(&[2, 0, 0, 0, 84, 0, 9, 0, 0x45, 0]), Ok((Network::Ipv4, 2)));
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(read_all(&[7, 0, 0, 0, 4, 0, 9, 0]), Err(NotIp::Other.into()));
        assert_eq!(read_all(&[2, 1, 0, 0, 4, 0, 9, 0]), Err(Fault::LinkHeader.into()));
        assert_eq!(read_all(&[2, 0, 0, 0, 3, 0, 9, 0]), Err(Fault::LinkHeader.into()));
        assert_eq!(read_all(&[2, 0, 0]), Err(Fault::TruncatedLink.into()));
        assert_eq!(read_all(&[2, 0, 0, 0, 8, 0, 1, 0, 8]), Err(Fault::TruncatedLink.into()));
        assert_eq!(read_all(&[2, 0, 0, 0]), Err(Fault::TruncatedLink.into()));
    }

    #[test]
    fn the_search_ends_at_its_bound() {
        let search = |others: usize| {
            let mut frame = vec![2, 0, 0, 0];
            frame.extend([4, 0, 2, 0].repeat(others));
            frame.extend([5, 0, 9, 0, 0x45]);
            read_all(&frame)
        };
        assert_eq!(search(ATTRIBUTES_MAX - 1), Ok((Network::Ipv4, 1)));
        assert_eq!(search(ATTRIBUTES_MAX), Err(Fault::TooManyTags.into()));
    }
}
