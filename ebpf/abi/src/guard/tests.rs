//! Frames put together by hand from the RFCs' figures. The mirror has targets 10.83.0.2 and fd83::2 and the ports 4789 and
//! 6081.

extern crate std;

use super::*;
use std::{vec, vec::Vec};

const TARGET: [u8; 4] = [10, 83, 0, 2];
const US: [u8; 4] = [192, 0, 2, 1];
const OTHER: [u8; 4] = [192, 0, 2, 2];
const TARGET_V6: [u8; 16] = [0xfd, 0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const US_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

struct Mirror;

impl Targets for Mirror {
    fn has_port(&self, port: u16) -> bool {
        port == 4789 || port == 6081
    }

    fn has_address(&self, version: u8, address: &[u8; 16]) -> bool {
        match version {
            4 => *address == widened(TARGET),
            _ => *address == TARGET_V6,
        }
    }
}

struct Slice<'a>(&'a [u8]);

impl Bytes for Slice<'_> {
    fn read<const COUNT: usize>(&self, at: usize) -> Option<[u8; COUNT]> {
        self.0.get(at..)?.first_chunk().copied()
    }
}

fn widened([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

fn udp(src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    [&src_port.to_be_bytes(), &dst_port.to_be_bytes(), &length.to_be_bytes(), &[0, 0][..], payload].concat()
}

/// `fragment` is the field of flags and offset.
fn ipv4(src: [u8; 4], dst: [u8; 4], fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [fragment_0, fragment_1] = fragment.to_be_bytes();
    let [length_0, length_1] = (20 + payload.len() as u16).to_be_bytes();
    let header = [0x45, 0, length_0, length_1, 0, 7, fragment_0, fragment_1, 64, protocol, 0, 0];
    [&header, &src[..], &dst[..], payload].concat()
}

fn ipv6(src: [u8; 16], dst: [u8; 16], next_header: u8, payload: &[u8]) -> Vec<u8> {
    let [length_0, length_1] = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, length_0, length_1, next_header, 64], &src[..], &dst[..], payload].concat()
}

fn ethernet(tags: &[[u8; 2]], packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    for tag in tags {
        frame.extend([&tag[..], &[0, 7]].concat());
    }
    frame.extend(if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    frame.extend(packet);
    frame
}

/// In VXLAN, from a port of the upper range to the tunnel's.
fn tunnelled(frame: &[u8]) -> Vec<u8> {
    udp(50_000, 4789, &[&[8, 0, 0, 0, 0, 0, 1, 0], frame].concat())
}

/// A packet of IPv4 with a header of twenty bytes or of IPv6 without extension headers, as an executor reads it.
fn holds_back(packet: &[u8]) -> bool {
    let is_v4 = packet[0] >> 4 == 4;
    let payload_at = if is_v4 { 20 } else { 40 };
    let protocol = packet[if is_v4 { 9 } else { 6 }];
    let payload = &packet[payload_at..];
    let word = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
    let (src, dst) = if is_v4 {
        (widened(packet[12..16].try_into().unwrap()), widened(packet[16..20].try_into().unwrap()))
    } else {
        (packet[8..24].try_into().unwrap(), packet[24..40].try_into().unwrap())
    };
    let is_icmp = matches!((is_v4, protocol), (true, 1) | (false, 58));
    let suspect = Suspect {
        version: if is_v4 { 4 } else { 6 },
        protocol,
        src: &src,
        dst: &dst,
        ports: (!is_icmp).then(|| (word(0), word(2))),
        icmp_type: is_icmp.then(|| payload[0]),
        content_at: Some(payload_at + 8),
    };
    is_of_a_copy(&suspect, &Slice(packet), &Mirror)
}

#[test]
fn datagrams_of_a_tunnels_port_and_a_target_are_copies_or_answers() {
    let between = |src, dst, ports: (u16, u16)| holds_back(&ipv4(src, dst, 0, 17, &udp(ports.0, ports.1, &[0; 20])));
    assert!(between(US, TARGET, (50_000, 4789)), "a copy");
    assert!(between(US, TARGET, (50_000, 6081)), "another one");
    assert!(between(TARGET, US, (4789, 50_000)), "an answer");
    assert!(between(TARGET, US, (50_000, 4789)), "the target mirrors to us");
    assert!(between(US, TARGET, (4789, 50_000)), "what we answer to that");
    assert!(!between(US, TARGET, (50_000, 53)) && !between(TARGET, US, (53, 50_000)), "other traffic of the target");
    assert!(!between(US, OTHER, (50_000, 4789)), "an overlay network");
    let tcp = ipv4(US, TARGET, 0, 6, &udp(50_000, 4789, &[0; 20]));
    assert!(!holds_back(&tcp), "no UDP");
    let copy = udp(50_000, 4789, &[0; 20]);
    assert!(holds_back(&ipv6(US_V6, TARGET_V6, 17, &copy)) && holds_back(&ipv6(TARGET_V6, US_V6, 17, &copy)));
    assert!(!holds_back(&ipv6(US_V6, US_V6, 17, &copy)));
    let other_version = ipv6(US_V6, widened(TARGET), 17, &copy);
    assert!(!holds_back(&other_version), "an IPv6 address that begins like a target's");
}

#[test]
fn without_ports_nothing_is_told() {
    let (src, dst) = (widened(US), widened(TARGET));
    let later =
        Suspect { version: 4, protocol: 17, src: &src, dst: &dst, ports: None, icmp_type: None, content_at: None };
    assert!(!is_of_a_copy(&later, &Slice(&[0; 100]), &Mirror));
    assert!(is_of_a_copy(&Suspect { ports: Some((50_000, 4789)), ..later }, &Slice(&[0; 100]), &Mirror));
}

#[test]
fn errors_are_told_by_the_datagram_that_they_quote() {
    let error = |icmp_type: u8, quoted: &[u8]| {
        holds_back(&ipv4(TARGET, US, 0, 1, &[&[icmp_type, 3, 0, 0, 0, 0, 0, 0], quoted].concat()))
    };
    // Eight bytes behind the header are all that RFC 792 promises.
    let of_copy = |src, dst, fragment| ipv4(src, dst, fragment, 17, &udp(50_000, 4789, &[]));
    let copy = of_copy(US, TARGET, 0);
    for icmp_type in 0..=255 {
        assert_eq!(error(icmp_type, &copy), [3, 4, 5, 11, 12].contains(&icmp_type), "type {icmp_type}");
    }
    assert!(error(3, &of_copy(TARGET, US, 0)), "about what the target mirrors to us");
    assert!(error(3, &ipv4(TARGET, US, 0, 17, &udp(4789, 50_000, &[]))), "about an answer");
    assert!(!error(3, &of_copy(US, OTHER, 0)), "about an overlay network");
    assert!(!error(3, &ipv4(US, TARGET, 0, 17, &udp(50_000, 53, &[]))), "about other traffic");
    assert!(!error(3, &ipv4(US, TARGET, 0, 6, &udp(50_000, 4789, &[]))), "about TCP");
    assert!(error(11, &of_copy(US, TARGET, 0x2000)), "about the first piece of a copy");
    assert!(!error(3, &of_copy(US, TARGET, 0x2001)), "a later piece has no ports");
    assert!(!error(3, &copy[..23]) && !error(3, &[]), "what is cut says nothing");
    // Options of the length that the header says: four bytes.
    let mut with_options = copy.clone();
    with_options[0] = 0x46;
    with_options.splice(20..20, [1, 1, 1, 1]);
    assert!(error(3, &with_options));
    assert!(!error(3, &ipv6(US_V6, TARGET_V6, 17, &udp(50_000, 4789, &[]))), "another version");
}

#[test]
fn errors_of_ipv6_quote_behind_a_fragment_header_too() {
    let error = |icmp_type: u8, quoted: &[u8]| {
        holds_back(&ipv6(TARGET_V6, US_V6, 58, &[&[icmp_type, 4, 0, 0, 0, 0, 0, 0], quoted].concat()))
    };
    let copy = udp(50_000, 4789, &[]);
    let whole = ipv6(US_V6, TARGET_V6, 17, &copy);
    for icmp_type in 0..=255 {
        assert_eq!(error(icmp_type, &whole), icmp_type < 128, "type {icmp_type}");
    }
    let piece = |offset_and_more: u16, next_header| {
        let [high, low] = offset_and_more.to_be_bytes();
        ipv6(US_V6, TARGET_V6, 44, &[&[next_header, 0, high, low, 0, 0, 0, 9], &copy[..]].concat())
    };
    assert!(error(2, &piece(1, 17)) && error(2, &piece(0, 17)));
    assert!(!error(2, &piece(8, 17)) && !error(2, &piece(0x100, 17)), "later pieces");
    assert!(!error(2, &piece(1, 6)));
    assert!(!error(1, &ipv6(US_V6, US_V6, 17, &copy)));
}

#[test]
fn a_copy_of_a_copy_is_told_whoever_made_it() {
    let outer = |inner: &[u8]| ipv4(US, OTHER, 0, 17, &tunnelled(inner));
    let once = outer(&ethernet(&[], &ipv4(US, OTHER, 0, 17, &udp(50_000, 53, &[0; 20]))));
    assert!(!holds_back(&once), "the first round of a circle, or an overlay network");
    const TAG: [u8; 2] = [0x81, 0x00];
    const SERVICE_TAG: [u8; 2] = [0x88, 0xa8];
    for tags in [&[][..], &[TAG], &[SERVICE_TAG], &[SERVICE_TAG, TAG]] {
        assert!(holds_back(&outer(&ethernet(tags, &once))), "{tags:?}");
    }
    let inner = |packet: &[u8]| holds_back(&outer(&ethernet(&[], packet)));
    assert!(inner(&ipv6(US_V6, US_V6, 17, &udp(1, 6081, &[]))), "GENEVE in VXLAN");
    assert!(!inner(&ipv4(US, OTHER, 0, 17, &udp(4789, 50_000, &[]))), "what comes from such a port is no copy");
    assert!(!inner(&ipv4(US, OTHER, 0, 6, &udp(1, 4789, &[]))), "TCP");
    assert!(inner(&ipv4(US, OTHER, 0x2000, 17, &udp(1, 4789, &[]))), "its first piece");
    assert!(!inner(&ipv4(US, OTHER, 0x2001, 17, &udp(1, 4789, &[]))), "a later piece has no ports");
    assert!(!holds_back(&outer(&ethernet(&[], &once)[..30])), "what is cut says nothing");

    let in_tunnel = |tunnel: [u8; 8], dst_port| {
        let payload = [&tunnel[..], &ethernet(&[], &once)].concat();
        holds_back(&ipv6(US_V6, US_V6, 17, &udp(50_000, dst_port, &payload)))
    };
    assert!(in_tunnel([8, 0, 0, 0, 0, 0, 66, 0], 4789) && in_tunnel([0, 0, 0x65, 0x58, 0, 0, 66, 0], 6081));
    assert!(!in_tunnel([0, 0, 0x08, 0x00, 0, 0, 66, 0], 6081), "GENEVE that carries something else");
    assert!(!in_tunnel([0; 8], 4789), "no tunnel header");
    assert!(!in_tunnel([8, 0, 0, 0, 0, 0, 66, 0], 8472), "not one of our ports");
}
