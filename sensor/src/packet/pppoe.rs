//! PPP over Ethernet (RFC 2516 section 4).

use super::cursor::Cursor;
use super::link::Network;
use super::{Fault, NotIp, Refusal, ppp};

/// Takes a PPPoE session header and the PPP protocol behind it. The IP header has its own length, so ours is not read.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Network, Refusal> {
    let [version_and_type, code, _session_id @ .., _, _]: [u8; 6] = cursor.take_array().ok_or(Fault::TruncatedTag)?;
    if version_and_type != VERSION_AND_TYPE {
        return Err(Fault::LinkHeader.into());
    }
    if code != SESSION {
        return Err(NotIp::PppoeDiscovery.into());
    }
    ppp::read(cursor)
}

/// Both are 1 in RFC 2516.
const VERSION_AND_TYPE: u8 = 0x11;
const SESSION: u8 = 0x00;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_carries_ppp() {
        let header = [0x11, 0x00, 0x00, 0x07, 0x00, 0x16, 0x00, 0x57];
        assert_eq!(read(&mut Cursor::new(&header)), Ok(Network::Ipv6));
    }

    #[test]
    fn the_rest_is_not_ip() {
        // An active discovery initiation, and link control within a session.
        assert_eq!(read(&mut Cursor::new(&[0x11, 0x09, 0, 0, 0, 4, 1, 1])), Err(NotIp::PppoeDiscovery.into()));
        assert_eq!(read(&mut Cursor::new(&[0x11, 0x00, 0, 7, 0, 2, 0xc0, 0x21])), Err(NotIp::PppControl.into()));
    }

    #[test]
    fn an_unknown_version_is_refused() {
        assert_eq!(read(&mut Cursor::new(&[0x21, 0x00, 0, 7, 0, 2, 0, 0x21])), Err(Fault::LinkHeader.into()));
    }

    #[test]
    fn every_cut_header_is_truncated() {
        let header = [0x11, 0x00, 0x00, 0x07, 0x00, 0x16, 0x00, 0x21];
        for length in 0..header.len() {
            let mut cursor = Cursor::new(&header);
            cursor.limit(length);
            assert_eq!(read(&mut cursor), Err(Fault::TruncatedTag.into()), "{length} bytes");
        }
    }
}
