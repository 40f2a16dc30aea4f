//! PPP (RFC 1661) and its HDLC-like framing (RFC 1662).

use super::cursor::Cursor;
use super::link::{Link, Network};
use super::{Fault, NotIp, Refusal, cisco_hdlc, mpls};

/// Takes a PPP header of a capture, with or without its address and control bytes (RFC 1661 section 6.6).
///
/// Captures of link type 50 may hold Cisco HDLC instead, told by its first byte, which is no PPP protocol.
pub(super) fn read_framed(cursor: &mut Cursor<'_>) -> Result<Link, Refusal> {
    match cursor.peek().ok_or(Fault::TruncatedLink)? {
        cisco_hdlc::UNICAST | cisco_hdlc::MULTICAST => return cisco_hdlc::read(cursor),
        ALL_STATIONS => cursor.skip(ADDRESS_AND_CONTROL_BYTES).ok_or(Fault::TruncatedLink)?,
        _ => {}
    }
    read(cursor).map(Link::from)
}

/// Takes the protocol field, which is one byte where the peers agreed to compress it (RFC 1661 section 6.5).
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Network, Refusal> {
    let first = cursor.peek().ok_or(Fault::TruncatedTag)?;
    // A protocol's first byte is even and its last is odd, so an odd first byte is also the last.
    let protocol = if first & 1 == 1 { cursor.take_u8().map(u16::from) } else { cursor.take_u16() };
    match protocol.ok_or(Fault::TruncatedTag)? {
        IPV4 => Ok(Network::Ipv4),
        IPV6 => Ok(Network::Ipv6),
        MPLS_UNICAST | MPLS_MULTICAST => mpls::read(cursor),
        CONTROL_MIN.. => Err(NotIp::PppControl.into()),
        _ => Err(NotIp::Other.into()),
    }
}

const ALL_STATIONS: u8 = 0xff;
const ADDRESS_AND_CONTROL_BYTES: usize = 2;

const IPV4: u16 = 0x0021;
const IPV6: u16 = 0x0057;
const MPLS_UNICAST: u16 = 0x0281;
const MPLS_MULTICAST: u16 = 0x0283;
/// From here on: network control, link control, authentication.
const CONTROL_MIN: u16 = 0x8000;

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(bytes: &[u8]) -> Result<Network, Refusal> {
        read_framed(&mut Cursor::new(bytes)).map(|link| link.network)
    }

    #[test]
    fn all_four_forms_of_the_header() {
        for header in [&[0xff, 0x03, 0x00, 0x21][..], &[0x00, 0x21], &[0xff, 0x03, 0x21], &[0x21]] {
            assert_eq!(framed(header), Ok(Network::Ipv4), "{header:02x?}");
        }
        for header in [&[0xff, 0x03, 0x00, 0x57][..], &[0x00, 0x57], &[0xff, 0x03, 0x57], &[0x57]] {
            assert_eq!(framed(header), Ok(Network::Ipv6), "{header:02x?}");
        }
    }

    #[test]
    fn labels_may_follow() {
        assert_eq!(framed(&[0xff, 0x03, 0x02, 0x81, 0x00, 0x01, 0x01, 0x40, 0x45]), Ok(Network::Ipv4));
    }

    #[test]
    fn cisco_hdlc_is_told_by_its_first_byte() {
        assert_eq!(framed(&[0x0f, 0x00, 0x08, 0x00]), Ok(Network::Ipv4));
        assert_eq!(framed(&[0x8f, 0x00, 0x86, 0xdd]), Ok(Network::Ipv6));
    }

    #[test]
    fn control_is_not_ip() {
        assert_eq!(framed(&[0xff, 0x03, 0xc0, 0x21]), Err(NotIp::PppControl.into()));
        assert_eq!(framed(&[0x80, 0x21]), Err(NotIp::PppControl.into()));
        // Van Jacobson compressed TCP.
        assert_eq!(framed(&[0x00, 0x2d]), Err(NotIp::Other.into()));
    }

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(framed(&[]), Err(Fault::TruncatedLink.into()));
        assert_eq!(framed(&[0xff]), Err(Fault::TruncatedLink.into()));
        assert_eq!(framed(&[0xff, 0x03]), Err(Fault::TruncatedTag.into()));
        assert_eq!(framed(&[0xff, 0x03, 0x00]), Err(Fault::TruncatedTag.into()));
    }
}
