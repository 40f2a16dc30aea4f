//! IEEE 802.2 logical link control, and the SNAP header above it (RFC 1042, IEEE 802 clause 9.2).

use super::cursor::Cursor;
use super::{Fault, NotIp, Refusal};

/// Takes an LLC and SNAP header; the answer is the ethertype within.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<u16, Refusal> {
    let access_points: [u8; 2] = cursor.take_array().ok_or(Fault::TruncatedTag)?;
    match access_points {
        SNAP => {}
        SPANNING_TREE => return Err(NotIp::SpanningTree.into()),
        _ => return Err(NotIp::Llc.into()),
    }
    if cursor.take_u8().ok_or(Fault::TruncatedTag)? != UNNUMBERED {
        return Err(NotIp::Llc.into());
    }
    let organization: [u8; 3] = cursor.take_array().ok_or(Fault::TruncatedTag)?;
    let protocol = cursor.take_u16().ok_or(Fault::TruncatedTag)?;
    // Only these two say that an ethertype follows; with others the number is the organization's own.
    match organization {
        RFC_1042 | BRIDGE_TUNNEL => Ok(protocol),
        _ => Err(NotIp::Llc.into()),
    }
}

/// Destination and source access point of SNAP.
const SNAP: [u8; 2] = [0xaa, 0xaa];
/// Destination and source access point of bridges.
const SPANNING_TREE: [u8; 2] = [0x42, 0x42];
/// Control field: an unnumbered information frame.
const UNNUMBERED: u8 = 0x03;
const RFC_1042: [u8; 3] = [0, 0, 0];
const BRIDGE_TUNNEL: [u8; 3] = [0, 0, 0xf8];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snap_holds_an_ethertype() {
        assert_eq!(read(&mut Cursor::new(&[0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd])), Ok(0x86dd));
        assert_eq!(read(&mut Cursor::new(&[0xaa, 0xaa, 3, 0, 0, 0xf8, 0x08, 0x00])), Ok(0x0800));
    }

    #[test]
    fn others_are_not_ip() {
        // Cisco discovery: an organization's own numbering.
        assert_eq!(read(&mut Cursor::new(&[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0x00])), Err(NotIp::Llc.into()));
        assert_eq!(read(&mut Cursor::new(&[0xe0, 0xe0, 3])), Err(NotIp::Llc.into()));
        assert_eq!(read(&mut Cursor::new(&[0x42, 0x42, 3])), Err(NotIp::SpanningTree.into()));
        assert_eq!(read(&mut Cursor::new(&[0xaa, 0xaa, 0xbf, 0, 0, 0, 8, 0])), Err(NotIp::Llc.into()));
    }

    #[test]
    fn every_cut_snap_header_is_truncated() {
        let header = [0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
        for length in 0..header.len() {
            let mut cursor = Cursor::new(&header);
            cursor.limit(length);
            assert_eq!(read(&mut cursor), Err(Fault::TruncatedTag.into()), "{length} bytes");
        }
    }
}
