//! What must hold for any frame at all, from what was seen to what leaves the host. The fuzz target calls [`fuzz`]; so do
//! our property tests.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::encapsulate::{self, Envelope, INNER_BYTES_MAX, Path, push_datagram, tunnel_header};
use super::guard::Guard;
use super::inner::{Hints, Inner, PartialChecksum, Plan, Seen};
use super::{Encapsulation, Target, Vni, Weight};
use crate::capture::LinkType;
use crate::packet::locate;

/// Mirrors `data`: its first bytes choose link type, hints, MTUs and the way, the rest is the frame.
///
/// # Panics
/// Where a promise of this module is broken.
pub fn fuzz(data: &[u8]) {
    let Some((choices, captured)) = data.split_first_chunk::<CHOICES>() else { return };
    let [link, hints, cut, small, large, size_high, size_low, at] = choices.map(usize::from);
    let link_type = LINK_TYPES[link % LINK_TYPES.len()];
    // Some captures keep less than there was.
    let original_bytes = u32::try_from(captured.len() + cut % 64).unwrap_or(u32::MAX);
    let Ok(layout) = locate(link_type, captured, original_bytes) else { return };
    let checksum = PartialChecksum { start: layout.payload_at, at: layout.payload_at + at };
    let segment_bytes = size_high * 256 + size_low;
    let hints = match hints % 4 {
        0 => Hints::Unknown,
        hints => Hints::Kernel {
            checksum: (hints & 1 != 0).then_some(checksum),
            segment_bytes: (hints & 2 != 0 && segment_bytes > 0).then_some(segment_bytes),
        },
    };
    let seen = Seen { captured, original_bytes, link_type, layout, hints, mtu: 68 + small * 8 };
    let mut inner = Inner::default();
    let plan = inner.plan(&seen);
    let mut frames = Vec::new();
    inner.for_each(&seen, &plan, |frame| frames.push(frame.to_vec()));
    check_frames(&seen, &plan, &frames);
    Guard::new(&[target()], 1).holds_back(0, &layout, captured);
    // As many as a fuzzer has time for.
    for frame in frames.iter().take(4).filter(|frame| frame.len() <= INNER_BYTES_MAX) {
        check_way(frame, 576 + large * 64, size_low % 2 == 0);
    }
}

/// What a super-packet is cut into is what it was made of.
fn check_frames(seen: &Seen<'_>, plan: &Plan, frames: &[Vec<u8>]) {
    assert_eq!(frames.len(), plan.frames, "as many as were planned");
    if !plan.is_whole {
        return;
    }
    let bytes: usize = frames.iter().map(Vec::len).sum();
    // Behind a frame there may be padding, which only it has.
    assert_eq!(bytes as u64, plan.bytes, "as long as was planned");
    if frames.len() < 2 {
        return;
    }
    let original = &seen.layout.packet;
    let mut carried = Vec::new();
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let piece = locate(LinkType::Ethernet, frame, length).expect("a piece is a packet");
        let ends = |packet: &crate::packet::Packet| {
            (packet.addresses, packet.protocol, packet.src_port, packet.dst_port, packet.fragment)
        };
        assert_eq!(ends(&piece.packet), ends(original), "of the same flow");
        assert_eq!(piece.ip_at + piece.packet.ip_bytes as usize, frame.len(), "its length is its own");
        let header_bytes = match piece.packet.protocol {
            TCP => usize::from(frame[piece.payload_at + TCP_LENGTH_AT] >> 4) * 4,
            _ => UDP_HEADER_BYTES,
        };
        carried.extend_from_slice(&frame[piece.payload_at + header_bytes..]);
    }
    let end = seen.layout.ip_at + original.ip_bytes as usize;
    assert!(seen.captured[..end].ends_with(&carried), "nothing is lost, and nothing comes twice");
}

/// What leaves the host can be put together again.
fn check_way(inner: &[u8], mtu: usize, is_v4: bool) {
    let path = if is_v4 {
        Path::V4 { src: Ipv4Addr::new(192, 0, 2, 1), dst: Ipv4Addr::new(192, 0, 2, 2) }
    } else {
        Path::V6 { src: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), dst: Ipv6Addr::LOCALHOST }
    };
    let vni = Vni::new(0x0012_3456).expect("it has 24 bits");
    let envelope = Envelope { src_port: 50_000, dst_port: 4789, tunnel: tunnel_header(Encapsulation::Vxlan, vni) };
    let mut datagram = Vec::new();
    push_datagram(path, &envelope, inner, &mut datagram);
    assert!(datagram.ends_with(inner) && datagram.len() == inner.len() + OUTER_BYTES);
    assert_eq!(usize::from(u16::from_be_bytes([datagram[4], datagram[5]])), datagram.len(), "its length is its own");
    let mut joined = Vec::new();
    encapsulate::for_each_packet(path, &datagram, mtu, 7, |piece| {
        let packet = [piece.header.as_slice(), piece.payload].concat();
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        assert!(packet.len() - ETHERTYPE_BYTES <= mtu, "it fits the path");
        let read = locate(LinkType::Raw, &packet[ETHERTYPE_BYTES..], length).expect("it is a packet");
        assert_eq!(read.packet.protocol, UDP);
        assert_eq!(read.packet.ip_bytes as usize, packet.len() - ETHERTYPE_BYTES, "its length is its own");
        joined.extend_from_slice(piece.payload);
    });
    assert!(joined == datagram, "all of it, in order");
}

fn target() -> Target {
    Target {
        name: String::new(),
        address: Ipv4Addr::new(192, 0, 2, 2).into(),
        port: Encapsulation::Vxlan.port_default(),
        encapsulation: Encapsulation::Vxlan,
        weight: Weight::default(),
        health_check: None,
    }
}

/// Bytes of input before the frame.
const CHOICES: usize = 8;
/// Those that executors meet, and those of captures.
const LINK_TYPES: [LinkType; 6] =
    [LinkType::Ethernet, LinkType::Raw, LinkType::LinuxSll, LinkType::LinuxSll2, LinkType::Null, LinkType::Ppp];
const ETHERTYPE_BYTES: usize = 2;
/// UDP and VXLAN.
const OUTER_BYTES: usize = 16;
const TCP: u8 = 6;
const TCP_LENGTH_AT: usize = 12;
const UDP: u8 = 17;
const UDP_HEADER_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A segment of TCP over IPv4 with the checksums that a card would have to complete.
    fn frame(payload_bytes: u16) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
        frame.extend((40 + payload_bytes).to_be_bytes());
        frame.extend([0, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([4, 1, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        frame.extend((0..payload_bytes).map(|at| at as u8));
        frame
    }

    proptest! {
        #[test]
        fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz(&data);
        }

        #[test]
        fn segments_that_are_damaged(
            choices: [u8; CHOICES], payload_bytes in 0_u16..3000, damage: Vec<(prop::sample::Index, u8)>,
        ) {
            let mut data = [&choices[..], &frame(payload_bytes)].concat();
            data[0] = 0;
            for (at, byte) in damage {
                let at = at.index(HEADERS_BYTES);
                data[CHOICES + at] = byte;
            }
            fuzz(&data);
        }
    }

    /// Found by the fuzzer: behind a cooked header a packet that says it is longer than the frame, of which more bytes were
    /// planned than sent.
    #[test]
    fn a_packet_that_is_shorter_than_it_says() {
        let cooked = [0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0];
        let whole = frame(8);
        fuzz(&[&[2, 0, 0, 0, 0, 0, 0, 0], &cooked[..], &whole[14..whole.len() - 3]].concat());
    }

    /// Found by the fuzzer: a datagram whose IP header leaves its length open went without its payload.
    #[test]
    fn a_datagram_of_open_length() {
        let mut datagram = frame(30);
        (datagram[16], datagram[17], datagram[23]) = (0, 0, 17);
        datagram[34..42].copy_from_slice(&[4, 1, 1, 0xbb, 0, 0, 0, 0]);
        fuzz(&[&[0, 3, 0, 0xf9, 0, 0, 0, 16], &datagram[..]].concat());
    }

    /// Ethernet, IPv4, TCP.
    const HEADERS_BYTES: usize = 54;
}
