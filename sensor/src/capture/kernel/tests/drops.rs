//! Copies of what the kernel drops: the bytes that were sent, as far as they can be read, and a count of what finds no
//! room.

use super::{
    super::{DropCopies, Sizes, Taps, load},
    SMALL,
    live::{DATAGRAM_BYTES, datagrams, nftables, send, watched},
    namespace::{FAR_V4, FAR_V6, NEAR_V4, NEAR_V6, ip},
};
use crate::capture::{
    Direction, LinkType,
    dropped::{DropSource, Dropped},
};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use std::net::{SocketAddr, UdpSocket};

/// A copy, out of the ring.
struct Taken {
    device: Option<u32>,
    direction: Direction,
    link_type: LinkType,
    was_counted: bool,
    tag: Option<[u8; 4]>,
    original_bytes: u32,
    segment_bytes: Option<usize>,
    open_checksum: Option<(usize, usize)>,
    bytes: Vec<u8>,
}

impl Taken {
    /// From its IP header on.
    fn ip(&self) -> &[u8] {
        let link_bytes = if self.link_type == LinkType::Ethernet { 14 } else { 0 };
        &self.bytes[link_bytes..]
    }
}

fn take(copies: &mut DropCopies) -> Vec<Taken> {
    let mut taken = Vec::new();
    copies.take(usize::MAX, &mut |dropped: &Dropped<'_>| {
        taken.push(Taken {
            device: dropped.device,
            direction: dropped.direction,
            link_type: dropped.link_type,
            was_counted: dropped.was_counted,
            tag: dropped.tag,
            original_bytes: dropped.original_bytes,
            segment_bytes: dropped.segment_bytes,
            open_checksum: dropped.open_checksum,
            bytes: dropped.bytes.to_vec(),
        });
    });
    taken
}

const RULES: &str = "table inet test {
    chain input { type filter hook input priority 0; udp dport { 5001, 5009 } drop; }
    chain output { type filter hook output priority 0; udp dport 5002 drop; }
    chain postrouting { type filter hook postrouting priority 0; udp dport 5003 drop; }
}";

/// Copies of what netfilter drops, once they are wanted.
fn of_netfilter(taps: &mut Taps) -> DropCopies {
    let netfilter = taps.reasons().number("NETFILTER_DROP").unwrap();
    taps.want(&[netfilter]).unwrap();
    taps.attach_verdicts().unwrap();
    taps.take_copies().unwrap()
}

#[test]
fn copies_hold_what_was_sent() {
    let Some((pair, mut taps, _drain, device)) = watched() else { return };
    if !nftables(RULES) {
        return;
    }
    let mut copies = of_netfilter(&mut taps);
    assert!(taps.take_copies().is_err(), "there is one part of it");

    send(&pair, NEAR_V4, 5001, 2);
    assert!(take(&mut copies).is_empty(), "nobody wants any");
    copies.want(true).unwrap();
    for (near, far, ip_bytes) in [(NEAR_V4, FAR_V4, 20), (NEAR_V6, FAR_V6, 40)] {
        send(&pair, near, 5001, 3);
        for port in [5002, 5003] {
            let to = SocketAddr::new(far.parse().unwrap(), port);
            datagrams(to).take(1).for_each(|sent| assert!(sent.is_err()));
        }
        let taken = take(&mut copies);
        let [first, second, third, output, postrouting] = &taken[..] else { panic!("{} copies", taken.len()) };
        for came_in in [first, second, third] {
            assert_eq!((came_in.device, came_in.direction), (Some(device.index), Direction::Ingress), "{near}");
            assert_eq!((came_in.link_type, came_in.was_counted), (LinkType::Ethernet, true));
            assert_eq!(came_in.bytes.len(), 14 + ip_bytes + 8 + DATAGRAM_BYTES);
        }
        // The route tells the device of what has none yet. The header of the wire is not made at either.
        for sent in [output, postrouting] {
            assert_eq!((sent.device, sent.direction), (Some(device.index), Direction::Egress), "{near}");
            assert_eq!((sent.link_type, sent.was_counted), (LinkType::Raw, false));
            // UDP's checksum was left to the card.
            assert_eq!(sent.open_checksum, Some((ip_bytes, ip_bytes + 6)));
        }
        for one in &taken {
            assert_eq!(one.bytes.len(), one.original_bytes as usize, "all of it could be read");
            assert_eq!((one.tag, one.segment_bytes), (None, None));
            let (header, payload) = one.ip()[ip_bytes..].split_at(8);
            assert_eq!(u16::from_be_bytes([header[4], header[5]]) as usize, 8 + DATAGRAM_BYTES);
            assert_eq!(payload, [1; DATAGRAM_BYTES]);
        }
    }
    copies.want(false).unwrap();
    send(&pair, NEAR_V4, 5001, 2);
    assert!(take(&mut copies).is_empty(), "nobody wants any more");
    assert!(copies.missed().is_empty());
}

#[test]
fn a_copy_ends_where_the_readable_part_does_and_tells_the_whole_length() {
    let Some((pair, mut taps, _drain, _)) = watched() else { return };
    if !nftables(RULES) {
        return;
    }
    // One that is longer than the largest copy, in one piece; and a super-packet, whose payload lies in pages.
    ip(&format!("link set {} mtu 20000", super::namespace::NEAR));
    pair.far(|| ip("link set far0 mtu 20000"));
    let mut copies = of_netfilter(&mut taps);
    copies.want(true).unwrap();
    let payload: Vec<u8> = (0..9000_u32).map(|number| number.to_be_bytes()[3]).collect();
    let sent = payload.clone();
    pair.far(move || {
        let socket = UdpSocket::bind((FAR_V4, 4000)).unwrap();
        for bytes in [100, 1000, 9000] {
            socket.send_to(&sent[..bytes], (NEAR_V4, 5001)).unwrap();
        }
        setsockopt(&socket, UdpGsoSegment, &1000).unwrap();
        socket.send_to(&sent, (NEAR_V4, 5009)).unwrap();
    });
    let taken = take(&mut copies);
    let [small, medium, large, segmented] = &taken[..] else { panic!("{} copies", taken.len()) };
    for (one, bytes) in [(small, 100), (medium, 1000), (large, 9000)] {
        assert_eq!(one.original_bytes, 14 + 28 + bytes);
        assert_eq!(one.ip()[28..], payload[..bytes as usize]);
    }
    assert_eq!((segmented.original_bytes, segmented.segment_bytes), (14 + 28 + 9000, Some(1000)));
    assert!(segmented.bytes.len() >= 14 + 28 && segmented.bytes.len() < 9000, "{}", segmented.bytes.len());
    assert_eq!(segmented.ip()[28..], payload[..segmented.ip().len() - 28]);
}

#[test]
fn what_finds_no_room_is_counted_by_its_reason() {
    let sizes = Sizes { copies_bytes: 4096, ..SMALL };
    let Some((pair, ..)) = watched() else { return };
    let (mut taps, _drain) = load(&sizes).unwrap();
    if !nftables(RULES) {
        return;
    }
    let mut copies = of_netfilter(&mut taps);
    copies.want(true).unwrap();
    send(&pair, NEAR_V4, 5001, 50);
    let taken = take(&mut copies).len();
    // Each takes eight bytes of the ring's own, the note and 256 bytes; the ring is never filled to its last byte.
    assert_eq!(taken, 4095 / (8 + 40 + 256));
    let missed = copies.missed();
    assert_eq!(missed.into_iter().collect::<Vec<_>>(), [("NETFILTER_DROP".to_owned(), 50 - taken as u64)]);
    // There is room again.
    send(&pair, NEAR_V4, 5001, 1);
    assert_eq!(take(&mut copies).len(), 1);
}
