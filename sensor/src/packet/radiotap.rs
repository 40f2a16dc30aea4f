//! Radiotap: what a Wi-Fi card tells of a frame, ahead of the frame. Little-endian.
//!
//! Authority: radiotap.org. We read the header's length, and of its fields only whether the frame is padded.

use super::cursor::Cursor;
use super::ieee80211::{self, Padding};
use super::link::Link;
use super::{Fault, Refusal};

/// Takes the radiotap header, the 802.11 header behind it, and every tag behind that.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Link, Refusal> {
    let [version, _, length_low, length_high] = cursor.take_array().ok_or(Fault::TruncatedLink)?;
    let length_bytes = usize::from(u16::from_le_bytes([length_low, length_high]));
    if version != 0 || length_bytes < FIXED_BYTES {
        return Err(Fault::LinkHeader.into());
    }
    let fields = cursor.take(length_bytes - BEFORE_FIELDS_BYTES).ok_or(Fault::TruncatedLink)?;
    ieee80211::read(cursor, padding(fields).ok_or(Fault::LinkHeader)?)
}

/// What the flags field says, if there is one; `None` where the header ends before the fields it announces.
fn padding(mut fields: Cursor<'_>) -> Option<Padding> {
    let whole = fields.len();
    let present = fields.take_array().map(u32::from_le_bytes)?;
    let mut last = present;
    while last & MORE_WORDS != 0 {
        last = fields.take_array().map(u32::from_le_bytes)?;
    }
    if present & HAS_TIME != 0 {
        // A field lies on a multiple of its size, counted from the header's start.
        let offset_bytes = BEFORE_FIELDS_BYTES + whole - fields.len();
        fields.skip(offset_bytes.next_multiple_of(TIME_BYTES) - offset_bytes + TIME_BYTES)?;
    }
    if present & HAS_FLAGS != 0 && fields.take_u8()? & FLAG_PADDED != 0 {
        return Some(Padding::FourBytes);
    }
    Some(Padding::None)
}

/// Version, one unused byte, length.
const BEFORE_FIELDS_BYTES: usize = 4;
/// The same and one word of presence bits.
const FIXED_BYTES: usize = 8;
const TIME_BYTES: usize = 8;

// Presence bits.
const HAS_TIME: u32 = 1;
const HAS_FLAGS: u32 = 1 << 1;
const MORE_WORDS: u32 = 1 << 31;

/// Flags field: the 802.11 payload begins on a four byte boundary.
const FLAG_PADDED: u8 = 0x20;

#[cfg(test)]
mod tests {
    use super::super::link::Network;
    use super::*;

    /// A quality of service data frame to the access point: 26 bytes of header.
    const QOS: [u8; 26] =
        [0x88, 0x01, 0, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 3, 0x10, 0x00, 0x00, 0x00];
    const SNAP_IPV6: [u8; 8] = [0xaa, 0xaa, 0x03, 0, 0, 0, 0x86, 0xdd];

    fn read_parts(parts: &[&[u8]]) -> Result<Network, Refusal> {
        read(&mut Cursor::new(&parts.concat())).map(|link| link.network)
    }

    #[test]
    fn the_length_is_little_endian() {
        assert_eq!(read_parts(&[&[0, 0, 8, 0, 0, 0, 0, 0], &QOS, &SNAP_IPV6]), Ok(Network::Ipv6));
    }

    #[test]
    fn padding_is_found_behind_other_fields() {
        // Two presence words, time (bit 0, at offset 16 after four bytes of alignment) and flags (bit 1).
        let header = [&[0, 0, 25, 0][..], &[0x03, 0, 0, 0x80, 0, 0, 0, 0], &[0; 4], &[9; 8], &[0x20]].concat();
        assert_eq!(header.len(), 25);
        assert_eq!(read_parts(&[&header, &QOS, &[0, 0], &SNAP_IPV6]), Ok(Network::Ipv6));
        let mut plain = header;
        plain[24] = 0x10;
        assert_eq!(read_parts(&[&plain, &QOS, &SNAP_IPV6]), Ok(Network::Ipv6));
    }

    #[test]
    fn a_header_that_contradicts_itself() {
        let refused = Err(Fault::LinkHeader.into());
        assert_eq!(read_parts(&[&[1, 0, 8, 0, 0, 0, 0, 0], &QOS, &SNAP_IPV6]), refused);
        assert_eq!(read_parts(&[&[0, 0, 7, 0, 0, 0, 0, 0], &QOS, &SNAP_IPV6]), refused);
        // Presence words without end, and flags announced but not there.
        assert_eq!(read_parts(&[&[0, 0, 8, 0, 0, 0, 0, 0x80], &QOS, &SNAP_IPV6]), refused);
        assert_eq!(read_parts(&[&[0, 0, 8, 0, 2, 0, 0, 0], &QOS, &SNAP_IPV6]), refused);
    }

    #[test]
    fn a_cut_header_is_truncated() {
        assert_eq!(read_parts(&[&[0, 0, 8]]), Err(Fault::TruncatedLink.into()));
        assert_eq!(read_parts(&[&[0, 0, 9, 0, 0, 0, 0, 0]]), Err(Fault::TruncatedLink.into()));
    }
}
