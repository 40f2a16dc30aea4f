//! From an ethertype to IP, through any stack of VLAN tags, LLC, MPLS and PPPoE.
//!
//! Authority: IEEE 802 Numbers at IANA; IEEE 802.1Q for tags; IEEE 802.3 clause 3.2.6, where a value up to 1500 is a
//! length and LLC follows.

use super::cursor::Cursor;
use super::link::{Link, Network};
use super::{Fault, NotIp, Refusal, llc, mpls, pppoe};

/// How many VLAN tags and SNAP headers one frame may stack. Providers use two; captures with three exist.
pub(super) const TAGS_MAX: usize = 16;

/// Takes every header from behind `type_or_length` up to the IP header.
#[inline]
pub(super) fn walk(cursor: &mut Cursor<'_>, type_or_length: u16) -> Result<Link, Refusal> {
    match type_or_length {
        IPV4 => Ok(Network::Ipv4.into()),
        IPV6 => Ok(Network::Ipv6.into()),
        other => walk_tags(cursor, other),
    }
}

/// Like [`walk`] for link layers whose small numbers are no lengths.
pub(super) fn walk_type(cursor: &mut Cursor<'_>, ethertype: u16) -> Result<Link, Refusal> {
    if ethertype <= LENGTH_MAX { Err(NotIp::Other.into()) } else { walk(cursor, ethertype) }
}

fn walk_tags(cursor: &mut Cursor<'_>, mut type_or_length: u16) -> Result<Link, Refusal> {
    let mut vlan = None;
    for _ in 0..=TAGS_MAX {
        let network = match type_or_length {
            IPV4 => Network::Ipv4,
            IPV6 => Network::Ipv6,
            MPLS_UNICAST | MPLS_MULTICAST => mpls::read(cursor)?,
            PPPOE_SESSION => pppoe::read(cursor)?,
            VLAN | VLAN_SERVICE | VLAN_9100 | VLAN_9200 | VLAN_9300 => {
                let control = cursor.take_u16().ok_or(Fault::TruncatedTag)?;
                // The upper four bits are priority and drop eligibility, and no part of the identifier.
                vlan = vlan.or(Some(control & 0x0fff));
                type_or_length = cursor.take_u16().ok_or(Fault::TruncatedTag)?;
                continue;
            }
            ..=LENGTH_MAX => {
                type_or_length = llc::read(cursor)?;
                continue;
            }
            other => return Err(not_ip(other).into()),
        };
        return Ok(Link { vlan, ..network.into() });
    }
    Err(Fault::TooManyTags.into())
}

fn not_ip(ethertype: u16) -> NotIp {
    match ethertype {
        ARP => NotIp::Arp,
        LLDP => NotIp::Lldp,
        EAPOL => NotIp::Eapol,
        MACSEC => NotIp::Macsec,
        PPPOE_DISCOVERY => NotIp::PppoeDiscovery,
        _ => NotIp::Other,
    }
}

/// The largest value that is a length.
pub(super) const LENGTH_MAX: u16 = 1500;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const IPV6: u16 = 0x86dd;
const MPLS_UNICAST: u16 = 0x8847;
const MPLS_MULTICAST: u16 = 0x8848;
const PPPOE_DISCOVERY: u16 = 0x8863;
const PPPOE_SESSION: u16 = 0x8864;
const EAPOL: u16 = 0x888e;
const VLAN_SERVICE: u16 = 0x88a8;
const LLDP: u16 = 0x88cc;
const MACSEC: u16 = 0x88e5;
// Tags of equipment older than 802.1ad.
const VLAN_9100: u16 = 0x9100;
const VLAN_9200: u16 = 0x9200;
const VLAN_9300: u16 = 0x9300;

#[cfg(test)]
mod tests {
    use super::*;

    fn walk_bytes(type_or_length: u16, bytes: &[u8]) -> Result<(Network, Option<u16>), Refusal> {
        walk(&mut Cursor::new(bytes), type_or_length).map(|link| (link.network, link.vlan))
    }

    #[test]
    fn the_outermost_identifier_wins_and_priority_is_masked() {
        // 802.1ad tag 100 with priority 7 and drop eligible, then 802.1Q tag 200, then IPv6.
        let tags = [0xf0, 0x64, 0x81, 0x00, 0x00, 0xc8, 0x86, 0xdd];
        assert_eq!(walk_bytes(0x88a8, &tags), Ok((Network::Ipv6, Some(100))));
    }

    #[test]
    fn all_five_tag_types_are_known() {
        for tag in [0x8100, 0x88a8, 0x9100, 0x9200, 0x9300] {
            assert_eq!(walk_bytes(tag, &[0x0f, 0xff, 0x08, 0x00]), Ok((Network::Ipv4, Some(4095))), "{tag:04x}");
        }
    }

    #[test]
    fn a_stack_ends_at_its_bound() {
        let stack = |tags: usize| {
            let mut bytes = [0x00, 0x01, 0x81, 0x00].repeat(tags - 1);
            bytes.extend([0x00, 0x01, 0x08, 0x00]);
            walk_bytes(0x8100, &bytes)
        };
        assert_eq!(stack(TAGS_MAX), Ok((Network::Ipv4, Some(1))));
        assert_eq!(stack(TAGS_MAX + 1), Err(Fault::TooManyTags.into()));
    }

    #[test]
    fn a_cut_tag_is_truncated() {
        for length in 0..4 {
            let mut cursor = Cursor::new(&[0x00, 0x01, 0x08, 0x00]);
            cursor.limit(length);
            assert_eq!(walk(&mut cursor, 0x8100), Err(Fault::TruncatedTag.into()));
        }
    }

    #[test]
    fn a_length_brings_llc() {
        assert_eq!(walk_bytes(8, &[0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00]), Ok((Network::Ipv4, None)));
        assert_eq!(walk_bytes(1500, &[0x42, 0x42, 0x03]), Err(NotIp::SpanningTree.into()));
        assert_eq!(walk_bytes(1501, &[0x42, 0x42, 0x03]), Err(NotIp::Other.into()));
    }

    #[test]
    fn what_is_not_ip_is_told_apart() {
        let kinds = [
            (0x0806, NotIp::Arp),
            (0x88cc, NotIp::Lldp),
            (0x888e, NotIp::Eapol),
            (0x88e5, NotIp::Macsec),
            (0x8863, NotIp::PppoeDiscovery),
            (0x8035, NotIp::Other),
            (0xffff, NotIp::Other),
        ];
        for (ethertype, kind) in kinds {
            assert_eq!(walk_bytes(ethertype, &[]), Err(kind.into()), "{ethertype:04x}");
        }
    }

    #[test]
    fn small_numbers_are_lengths_only_where_the_link_says_so() {
        let mut cursor = Cursor::new(&[0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00]);
        assert_eq!(walk_type(&mut cursor, 8), Err(NotIp::Other.into()));
        assert_eq!(walk_type(&mut cursor, 0x0800), Ok(Network::Ipv4.into()));
    }
}
