//! The four bytes before IP on BSD loopbacks and many tunnels: an address family.
//!
//! LINKTYPE_NULL stores it in the byte order of the machine that captured, LINKTYPE_LOOP in network byte order. No
//! family we know is ambiguous, so both orders are read for both.

use super::cursor::Cursor;
use super::link::Network;
use super::{Fault, NotIp, Refusal};

/// Takes the address family.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Network, Refusal> {
    let bytes: [u8; 4] = cursor.take_array().ok_or(Fault::TruncatedLink)?;
    network(u32::from_le_bytes(bytes)).or_else(|| network(u32::from_be_bytes(bytes))).ok_or_else(|| NotIp::Other.into())
}

fn network(family: u32) -> Option<Network> {
    match family {
        2 => Some(Network::Ipv4),
        // AF_INET6 of Linux, of NetBSD, OpenBSD and BSD/OS, of FreeBSD, of Darwin.
        10 | 24 | 28 | 30 => Some(Network::Ipv6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_in_both_byte_orders() {
        for (family, network) in
            [(2, Network::Ipv4), (10, Network::Ipv6), (24, Network::Ipv6), (28, Network::Ipv6), (30, Network::Ipv6)]
        {
            assert_eq!(read(&mut Cursor::new(&[family, 0, 0, 0])), Ok(network));
            assert_eq!(read(&mut Cursor::new(&[0, 0, 0, family])), Ok(network));
        }
    }

    #[test]
    fn other_families_are_not_ip() {
        // AppleTalk on Darwin, and a two that is no family in either order.
        assert_eq!(read(&mut Cursor::new(&[16, 0, 0, 0])), Err(NotIp::Other.into()));
        assert_eq!(read(&mut Cursor::new(&[0, 2, 0, 0])), Err(NotIp::Other.into()));
    }

    #[test]
    fn a_cut_header_is_truncated() {
        assert_eq!(read(&mut Cursor::new(&[2, 0, 0])), Err(Fault::TruncatedLink.into()));
    }
}
