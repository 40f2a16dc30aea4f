//! IEEE 802.11 data frames (IEEE 802.11-2020 clause 9.3.2), little-endian where it matters.
//!
//! IP lies behind LLC and SNAP. Encrypted frames, aggregates (A-MSDU) and later fragments are refused by name.

use super::cursor::Cursor;
use super::link::Link;
use super::{Fault, NotIp, Refusal, ethertype, llc};

/// Whether the capturing card put the payload on a four byte boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Padding {
    /// The payload follows the header.
    None,
    /// Zero to three bytes lie between header and payload.
    FourBytes,
}

/// Takes the 802.11 header, LLC, and every tag behind it.
pub(super) fn read(cursor: &mut Cursor<'_>, padding: Padding) -> Result<Link, Refusal> {
    let before = cursor.len();
    let [kind, flags] = cursor.take_array().ok_or(Fault::TruncatedLink)?;
    if kind & VERSION_MASK != 0 {
        return Err(Fault::LinkHeader.into());
    }
    match kind & TYPE_MASK {
        TYPE_DATA => {}
        TYPE_MANAGEMENT => return Err(NotIp::WifiManagement.into()),
        TYPE_CONTROL => return Err(NotIp::WifiControl.into()),
        _ => return Err(NotIp::Other.into()),
    }
    if kind & SUBTYPE_NO_DATA != 0 {
        return Err(NotIp::WifiNoData.into());
    }
    if flags & PROTECTED != 0 {
        return Err(Fault::WifiProtected.into());
    }

    cursor.skip(DURATION_BYTES + 3 * ADDRESS_BYTES).ok_or(Fault::TruncatedLink)?;
    let [fragment_and_sequence, _] = cursor.take_array().ok_or(Fault::TruncatedLink)?;
    if fragment_and_sequence & FRAGMENT_MASK != 0 {
        return Err(Fault::WifiFragment.into());
    }
    if flags & BOTH_WAYS == BOTH_WAYS {
        cursor.skip(ADDRESS_BYTES).ok_or(Fault::TruncatedLink)?;
    }
    if kind & SUBTYPE_QOS != 0 {
        let [control, _] = cursor.take_array().ok_or(Fault::TruncatedLink)?;
        if control & AGGREGATE != 0 {
            return Err(Fault::WifiAggregate.into());
        }
        if flags & HIGH_THROUGHPUT != 0 {
            cursor.skip(HIGH_THROUGHPUT_BYTES).ok_or(Fault::TruncatedLink)?;
        }
    }
    if padding == Padding::FourBytes {
        let header_bytes = before - cursor.len();
        cursor.skip(header_bytes.next_multiple_of(4) - header_bytes).ok_or(Fault::TruncatedLink)?;
    }

    let inner = llc::read(cursor)?;
    ethertype::walk_type(cursor, inner)
}

const DURATION_BYTES: usize = 2;
const ADDRESS_BYTES: usize = 6;
const HIGH_THROUGHPUT_BYTES: usize = 4;

// First byte of the frame control field.
const VERSION_MASK: u8 = 0x03;
const TYPE_MASK: u8 = 0x0c;
const TYPE_MANAGEMENT: u8 = 0x00;
const TYPE_CONTROL: u8 = 0x04;
const TYPE_DATA: u8 = 0x08;
const SUBTYPE_NO_DATA: u8 = 0x40;
const SUBTYPE_QOS: u8 = 0x80;

// Second byte.
const BOTH_WAYS: u8 = 0x03;
const PROTECTED: u8 = 0x40;
const HIGH_THROUGHPUT: u8 = 0x80;

/// In the first byte of the sequence control field.
const FRAGMENT_MASK: u8 = 0x0f;
/// In the first byte of the quality of service field.
const AGGREGATE: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::super::link::Network;
    use super::*;

    const SNAP_IPV4: [u8; 8] = [0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00];

    /// A frame with this frame control field and these bytes between the sequence control and LLC.
    fn frame(control: [u8; 2], extra: &[u8]) -> Vec<u8> {
        [&control[..], &[0; 2], &[2; 18], &[0x10, 0x00], extra, &SNAP_IPV4].concat()
    }

    fn network(frame: &[u8]) -> Result<Network, Refusal> {
        read(&mut Cursor::new(frame), Padding::None).map(|link| link.network)
    }

    #[test]
    fn every_length_of_header() {
        assert_eq!(network(&frame([0x08, 0x01], &[])), Ok(Network::Ipv4));
        assert_eq!(network(&frame([0x08, 0x03], &[2; 6])), Ok(Network::Ipv4));
        assert_eq!(network(&frame([0x88, 0x02], &[0; 2])), Ok(Network::Ipv4));
        assert_eq!(network(&frame([0x88, 0x82], &[0; 6])), Ok(Network::Ipv4));
        assert_eq!(network(&frame([0x88, 0x83], &[0; 12])), Ok(Network::Ipv4));
    }

    #[test]
    fn a_card_may_pad() {
        let padded = frame([0x88, 0x02], &[0; 4]);
        assert_eq!(read(&mut Cursor::new(&padded), Padding::FourBytes), Ok(Network::Ipv4.into()));
        let even = frame([0x08, 0x02], &[]);
        assert_eq!(read(&mut Cursor::new(&even), Padding::FourBytes), Ok(Network::Ipv4.into()));
    }

    #[test]
    fn what_holds_no_ip() {
        assert_eq!(network(&frame([0x80, 0x00], &[])), Err(NotIp::WifiManagement.into()));
        assert_eq!(network(&frame([0xd4, 0x00], &[])), Err(NotIp::WifiControl.into()));
        assert_eq!(network(&frame([0x48, 0x01], &[])), Err(NotIp::WifiNoData.into()));
        assert_eq!(network(&frame([0xc8, 0x01], &[0; 2])), Err(NotIp::WifiNoData.into()));
        assert_eq!(network(&frame([0x0c, 0x00], &[])), Err(NotIp::Other.into()));
    }

    #[test]
    fn what_cannot_be_read() {
        assert_eq!(network(&frame([0x08, 0x41], &[])), Err(Fault::WifiProtected.into()));
        assert_eq!(network(&frame([0x88, 0x01], &[0x80, 0])), Err(Fault::WifiAggregate.into()));
        assert_eq!(network(&frame([0x09, 0x01], &[])), Err(Fault::LinkHeader.into()));
        let mut later = frame([0x08, 0x01], &[]);
        later[22] = 0x11;
        assert_eq!(network(&later), Err(Fault::WifiFragment.into()));
    }

    #[test]
    fn every_cut_header_is_truncated() {
        let whole = frame([0x88, 0x83], &[0; 12]);
        for length in 0..36 {
            assert_eq!(network(&whole[..length]), Err(Fault::TruncatedLink.into()), "{length} bytes");
        }
        for length in 36..44 {
            assert_eq!(network(&whole[..length]), Err(Fault::TruncatedTag.into()), "{length} bytes");
        }
    }
}
