//! Ethernet II and IEEE 802.3, clause 3.2: two addresses, then a type or a length.

use super::cursor::Cursor;
use super::link::Link;
use super::{Fault, Refusal, ethertype};

/// Takes the Ethernet header and every tag behind it.
#[inline]
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Link, Refusal> {
    let destination: [u8; 6] = cursor.take_array().ok_or(Fault::TruncatedLink)?;
    let source: [u8; 6] = cursor.take_array().ok_or(Fault::TruncatedLink)?;
    let type_or_length = cursor.take_u16().ok_or(Fault::TruncatedLink)?;
    let link = ethertype::walk(cursor, type_or_length)?;
    Ok(Link { ether: Some((source, destination)), ..link })
}

#[cfg(test)]
mod tests {
    use super::super::link::Network;
    use super::*;
    use crate::packet::NotIp;

    const IPV4: [u8; 14] = [0x02, 0, 0, 0, 0, 0x0d, 0x02, 0, 0, 0, 0, 0x05, 0x08, 0x00];

    #[test]
    fn source_comes_first_in_ours_and_second_on_the_wire() {
        let link = read(&mut Cursor::new(&IPV4)).unwrap();
        assert_eq!(link.network, Network::Ipv4);
        assert_eq!(link.ether, Some(([0x02, 0, 0, 0, 0, 0x05], [0x02, 0, 0, 0, 0, 0x0d])));
        assert_eq!(link.vlan, None);
    }

    #[test]
    fn every_shorter_frame_is_truncated() {
        for length in 0..IPV4.len() {
            let mut cursor = Cursor::new(&IPV4);
            cursor.limit(length);
            assert_eq!(read(&mut cursor), Err(Fault::TruncatedLink.into()), "{length} bytes");
        }
    }

    #[test]
    fn arp_is_not_ip() {
        let mut frame = IPV4;
        frame[13] = 0x06;
        assert_eq!(read(&mut Cursor::new(&frame)), Err(NotIp::Arp.into()));
    }
}
