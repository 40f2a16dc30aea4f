//! What is never mirrored, whatever the rules say: mirrored copies themselves. The one definition that both executors use.
//!
//! A copy carries a mark, but only on the host that made it; and it leaves by an interface that may be tapped, to a target
//! that may mirror to us. So three things are told by what stands in them: a datagram of which one port is a tunnel's and
//! one end a target, in either direction, for a target answers and mirrors as well; an error about such a datagram, which
//! quotes it; and a copy of a copy, whoever made it, which ends every circle of sensors after its second round. Later
//! pieces of such a datagram go with their first one; that is for the executors to remember. One whose first piece nobody
//! saw is judged like any other packet: it may be anybody's, and a copy of it is told again where it passes next.
//!
//! Authority: RFC 7348 section 5 and RFC 8926 section 3.4 for the eight bytes before the inner frame, RFC 792 and RFC 4443
//! section 2.1 for errors and what they quote, RFC 791 and RFC 8200 for the headers of what is quoted or inside.

/// A packet, as far as its headers tell.
#[derive(Debug, Clone, Copy)]
pub struct Suspect<'a> {
    /// 4 or 6.
    pub version: u8,
    /// IANA number of the protocol, behind extension headers.
    pub protocol: u8,
    /// Source; an IPv4 address stands in front and zeros follow.
    pub src: &'a [u8; 16],
    /// Destination, likewise.
    pub dst: &'a [u8; 16],
    /// Source and destination port, where they are known.
    pub ports: Option<(u16, u16)>,
    /// Of a message of ICMP or ICMPv6, where it is known.
    pub icmp_type: Option<u8>,
    /// Where what follows the header of UDP or ICMP begins; none in a later piece.
    pub content_at: Option<usize>,
}

/// The bytes of the frame that a packet came in.
pub trait Bytes {
    /// So many of them; `None` where not all are there.
    fn read<const COUNT: usize>(&self, at: usize) -> Option<[u8; COUNT]>;
}

/// All targets of the mirror.
pub trait Targets {
    /// Whether copies go to this UDP port of some target.
    fn has_port(&self, port: u16) -> bool;

    /// Whether some target has this address.
    fn has_address(&self, version: u8, address: &[u8; 16]) -> bool;
}

/// Whether a packet is a copy, an answer to one, an error about one, or a copy of a copy.
#[inline(always)]
pub fn is_of_a_copy(packet: &Suspect<'_>, bytes: &impl Bytes, targets: &impl Targets) -> bool {
    let is_error = packet.icmp_type.is_some_and(|icmp_type| is_error(packet, icmp_type));
    let datagram = match (is_error, packet.protocol, packet.ports) {
        (true, ..) => packet.content_at.and_then(|at| datagram(bytes, at, packet.version)),
        (false, UDP, Some(ports)) => Some(Datagram { src: *packet.src, dst: *packet.dst, ports }),
        _ => None,
    };
    let Some(Datagram { src, dst, ports: (src_port, dst_port) }) = datagram else { return false };
    if !targets.has_port(src_port) && !targets.has_port(dst_port) {
        return false;
    }
    targets.has_address(packet.version, &src)
        || targets.has_address(packet.version, &dst)
        || (!is_error && targets.has_port(dst_port) && holds_a_copy(packet, bytes, targets).unwrap_or(false))
}

/// Whether an ICMP message is an error, which quotes what it is about.
#[inline(always)]
const fn is_error(packet: &Suspect<'_>, icmp_type: u8) -> bool {
    match (packet.version, packet.protocol) {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        (4, ICMP) => matches!(icmp_type, 3 | 4 | 5 | 11 | 12),
        (6, ICMPV6) => icmp_type < 128,
        _ => false,
    }
}

/// Whether there is a tunnel datagram in a tunnel datagram. What a tunnel device writes has no more headers than are looked
/// through here.
#[inline(always)]
fn holds_a_copy(packet: &Suspect<'_>, bytes: &impl Bytes, targets: &impl Targets) -> Option<bool> {
    let tunnel_at = packet.content_at?;
    let tunnel: [u8; TUNNEL_BYTES] = bytes.read(tunnel_at)?;
    if !matches!(tunnel, [VXLAN_FLAGS, ..] | [GENEVE_WITHOUT_OPTIONS, _, 0x65, 0x58, ..]) {
        return None;
    }
    let mut ip_at = tunnel_at + TUNNEL_BYTES + ETHERNET_BYTES;
    let mut ether_type: [u8; 2] = bytes.read(ip_at - 2)?;
    for _ in 0..VLAN_TAGS_MAX {
        if matches!(ether_type, [0x81, 0x00] | [0x88, 0xa8]) {
            ip_at += VLAN_TAG_BYTES;
            ether_type = bytes.read(ip_at - 2)?;
        }
    }
    let inner = match ether_type {
        [0x08, 0x00] => datagram(bytes, ip_at, 4)?,
        [0x86, 0xdd] => datagram(bytes, ip_at, 6)?,
        _ => return None,
    };
    let (_, dst_port) = inner.ports;
    Some(targets.has_port(dst_port))
}

/// A datagram inside a packet.
struct Datagram {
    src: [u8; 16],
    dst: [u8; 16],
    /// Source and destination.
    ports: (u16, u16),
}

/// The UDP datagram whose IP header begins there, whole or the first piece of one.
#[inline(always)]
fn datagram(bytes: &impl Bytes, ip_at: usize, version: u8) -> Option<Datagram> {
    if version == 4 { datagram_v4(bytes, ip_at) } else { datagram_v6(bytes, ip_at) }
}

#[inline(always)]
fn datagram_v4(bytes: &impl Bytes, ip_at: usize) -> Option<Datagram> {
    let header: [u8; 20] = bytes.read(ip_at)?;
    let [first, _, _, _, _, _, offset_high, offset_low, _, protocol, _, _, a, b, c, d, e, f, g, h] = header;
    let header_bytes = (first & 0xf) as usize * 4;
    let is_first = offset_high & 0x1f == 0 && offset_low == 0;
    if first >> 4 != 4 || header_bytes < header.len() || !is_first || protocol != UDP {
        return None;
    }
    let src = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let dst = [e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Some(Datagram { src, dst, ports: ports(bytes, ip_at + header_bytes)? })
}

/// Of the extension headers a tunnel datagram has the fragment's at most.
#[inline(always)]
fn datagram_v6(bytes: &impl Bytes, ip_at: usize) -> Option<Datagram> {
    let [first, _, _, _, _, _, mut next_header, _]: [u8; 8] = bytes.read(ip_at)?;
    let mut udp_at = ip_at + IPV6_BYTES;
    if next_header == FRAGMENT {
        let [behind, _, offset_high, offset_low, ..]: [u8; FRAGMENT_BYTES] = bytes.read(udp_at)?;
        if offset_high != 0 || offset_low & 0xf8 != 0 {
            return None;
        }
        next_header = behind;
        udp_at += FRAGMENT_BYTES;
    }
    if first >> 4 != 6 || next_header != UDP {
        return None;
    }
    let (src, dst) = (bytes.read(ip_at + 8)?, bytes.read(ip_at + 24)?);
    Some(Datagram { src, dst, ports: ports(bytes, udp_at)? })
}

#[inline(always)]
fn ports(bytes: &impl Bytes, udp_at: usize) -> Option<(u16, u16)> {
    let [a, b, c, d] = bytes.read(udp_at)?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// Length of a tunnel header without options, VXLAN's and GENEVE's.
const TUNNEL_BYTES: usize = 8;
/// The network identifier is valid, and nothing else.
const VXLAN_FLAGS: u8 = 0x08;
const GENEVE_WITHOUT_OPTIONS: u8 = 0;
const ETHERNET_BYTES: usize = 14;
const VLAN_TAG_BYTES: usize = 4;
/// A service tag and a customer tag.
const VLAN_TAGS_MAX: usize = 2;
const IPV6_BYTES: usize = 40;
const FRAGMENT_BYTES: usize = 8;

// IANA's numbers.
const ICMP: u8 = 1;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;

#[cfg(test)]
mod tests;
