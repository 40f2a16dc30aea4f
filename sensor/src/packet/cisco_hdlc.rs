//! Cisco HDLC (RFC 1547 section 4.3.1): an address, a control byte, an ethertype.

use super::cursor::Cursor;
use super::link::Link;
use super::{Fault, Refusal, ethertype};

/// The address byte of a unicast frame.
pub(super) const UNICAST: u8 = 0x0f;
/// The address byte of a multicast frame.
pub(super) const MULTICAST: u8 = 0x8f;

/// Takes the header and every tag behind it.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Link, Refusal> {
    let [_address, _control] = cursor.take_array().ok_or(Fault::TruncatedLink)?;
    let ethertype = cursor.take_u16().ok_or(Fault::TruncatedLink)?;
    ethertype::walk_type(cursor, ethertype)
}

#[cfg(test)]
mod tests {
    use super::super::link::Network;
    use super::*;
    use crate::packet::NotIp;

    #[test]
    fn reads_the_ethertype() {
        assert_eq!(read(&mut Cursor::new(&[0x0f, 0x00, 0x08, 0x00])), Ok(Network::Ipv4.into()));
        assert_eq!(read(&mut Cursor::new(&[0x8f, 0x00, 0x86, 0xdd])), Ok(Network::Ipv6.into()));
    }

    #[test]
    fn keepalives_are_not_ip() {
        assert_eq!(read(&mut Cursor::new(&[0x8f, 0x00, 0x80, 0x35, 0, 0])), Err(NotIp::Other.into()));
    }

    #[test]
    fn a_cut_header_is_truncated() {
        for header in [&[][..], &[0x0f], &[0x0f, 0x00], &[0x0f, 0x00, 0x08]] {
            assert_eq!(read(&mut Cursor::new(header)), Err(Fault::TruncatedLink.into()));
        }
    }
}
