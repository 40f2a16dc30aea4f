//! Frames typed by hand: what must change does, and nothing else.

use super::*;
use crate::packet::locate;

/// 10.0.0.1:1025 to 192.0.2.7:53, UDP, four bytes of payload. Its correct checksum is 0xf52d: the pseudo-header's words
/// 0a00 0001 c000 0207 0011 000c sum to cc25, the datagram's 0401 0035 000c and 6162 6364 to c908 less the carry; see
/// [`sum_by_hand`].
const UDP_FRAME: [u8; 46] = [
    2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, //
    0x45, 0, 0, 32, 0x12, 0x34, 0x40, 0, 64, 17, 0x1c, 0x81, 10, 0, 0, 1, 192, 0, 2, 7, //
    0x04, 0x01, 0x00, 0x35, 0x00, 0x0c, 0x00, 0x00, 0x61, 0x62, 0x63, 0x64,
];

/// The words of pseudo-header and datagram, added without any of the code under test.
fn sum_by_hand() -> u16 {
    let words = [0x0a00_u32, 1, 0xc000, 0x0207, 17, 12, 0x0401, 0x35, 12, 0x6162, 0x6364];
    let sum: u32 = words.iter().sum();
    ((sum & 0xffff) + (sum >> 16)) as u16
}

const PSEUDO: u16 = 0x0a00 + 1 + 0xc000 + 0x0207 + 17 + 12;

fn udp(checksum: u16) -> Vec<u8> {
    let mut frame = UDP_FRAME.to_vec();
    frame[40..42].copy_from_slice(&checksum.to_be_bytes());
    frame
}

fn made(link_type: LinkType, captured: &[u8], original_bytes: usize, hints: Hints) -> (Plan, Vec<Vec<u8>>) {
    let original_bytes = original_bytes as u32;
    let layout = locate(link_type, captured, original_bytes).unwrap();
    let seen = Seen { captured, original_bytes, link_type, layout, hints, mtu: 1500 };
    let mut inner = Inner::default();
    let plan = inner.plan(&seen);
    let mut frames = Vec::new();
    inner.for_each(&seen, &plan, |frame| frames.push(frame.to_vec()));
    assert_eq!(frames.len(), plan.frames);
    if plan.is_whole {
        assert_eq!(frames.iter().map(|frame| frame.len() as u64).sum::<u64>(), plan.bytes);
    }
    (plan, frames)
}

fn from_file(captured: &[u8]) -> Vec<u8> {
    let (plan, mut frames) = made(LinkType::Ethernet, captured, captured.len(), Hints::Unknown);
    assert!(plan.is_whole && frames.len() == 1);
    frames.remove(0)
}

#[test]
fn a_checksum_left_to_the_card_is_completed_and_no_other() {
    assert_eq!(from_file(&udp(PSEUDO)), udp(!sum_by_hand()));
    for checksum in [!sum_by_hand(), 0, 0xdead] {
        assert_eq!(from_file(&udp(checksum)), udp(checksum), "right, absent or wrong on the wire: as it was seen");
    }
    // Padding behind the packet does not count, and stays.
    let padded = |checksum| [udp(checksum), vec![0xee; 14]].concat();
    assert_eq!(from_file(&padded(PSEUDO)), padded(!sum_by_hand()));
}

#[test]
fn what_the_kernel_says_is_believed() {
    let partial = PartialChecksum { start: 34, at: 40 };
    let hints = |checksum| Hints::Kernel { checksum, segment_bytes: None };
    let (_, frames) = made(LinkType::Ethernet, &udp(PSEUDO), 46, hints(Some(partial)));
    assert_eq!(frames, [udp(!sum_by_hand())]);
    let (_, frames) = made(LinkType::Ethernet, &udp(PSEUDO), 46, hints(None));
    assert_eq!(frames, [udp(PSEUDO)]);
}

#[test]
fn a_frame_that_was_cut_short_is_told() {
    let cut = &udp(PSEUDO)[..43];
    let (plan, frames) = made(LinkType::Ethernet, cut, 46, Hints::Unknown);
    assert_eq!((plan.is_whole, plan.frames, plan.bytes), (false, 1, 46));
    assert_eq!(frames, [cut], "as it was seen");
    // Padding that was cut is missed by nobody.
    let (plan, _) = made(LinkType::Ethernet, &udp(0xdead), 60, Hints::Unknown);
    assert!(plan.is_whole);
}

#[test]
fn devices_without_ethernet_get_a_header() {
    let ip = &udp(PSEUDO)[14..];
    let expected = |link: &[u8]| [&MADE_ADDRESSES[..], link, &udp(!sum_by_hand())[14..]].concat();
    let of = |link_type, header: &[u8]| {
        let frame = [header, ip].concat();
        made(link_type, &frame, frame.len(), Hints::Unknown).1.remove(0)
    };
    assert_eq!(of(LinkType::Raw, &[]), expected(&[8, 0]));
    assert_eq!(of(LinkType::Null, &[2, 0, 0, 0]), expected(&[8, 0]));
    assert_eq!(of(LinkType::Ppp, &[0xff, 0x03, 0x00, 0x21]), expected(&[8, 0]));
    let sll = [0, 4, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];
    assert_eq!(of(LinkType::LinuxSll, &[&sll[..], &[8, 0]].concat()), expected(&[8, 0]));
    // A tag behind a cooked header stays.
    let tag = [0x81, 0, 0, 7, 8, 0];
    assert_eq!(of(LinkType::LinuxSll, &[&sll[..], &tag].concat()), expected(&tag));
    let sll2 = [0; 18];
    assert_eq!(of(LinkType::LinuxSll2, &[&[8, 0], &sll2[..]].concat()), expected(&[8, 0]));
    assert_eq!(of(LinkType::LinuxSll2, &[&[0x81, 0], &sll2[..], &[0, 7, 8, 0]].concat()), expected(&tag));
    // What another link layer ends with goes with its header.
    let trailed = [&[0xff, 0x03, 0x00, 0x21], ip, &[0xee; 2]].concat();
    assert_eq!(made(LinkType::Ppp, &trailed, trailed.len(), Hints::Unknown).1.remove(0), expected(&[8, 0]));
}

/// 10.0.0.1 to 192.0.2.7, TCP, with a payload of zeros.
fn tcp(payload_bytes: usize, length: u16) -> Vec<u8> {
    let mut frame = UDP_FRAME[..34].to_vec();
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame[23] = 6;
    frame.extend([0x04, 0x01, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(frame.len() + payload_bytes, 0);
    frame
}

#[test]
fn super_packets_become_wire_frames() {
    let (plan, frames) = made(LinkType::Ethernet, &tcp(4000, 4040), 4054, Hints::Unknown);
    assert_eq!(plan.frames, 3);
    assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [1514, 1514, 1080 + 54]);
    let hints = Hints::Kernel { checksum: None, segment_bytes: Some(1000) };
    assert_eq!(made(LinkType::Ethernet, &tcp(4000, 4040), 4054, hints).0.frames, 4);
    // The kernel says that it is none: a card with a larger MTU than we know of.
    let hints = Hints::Kernel { checksum: None, segment_bytes: None };
    assert_eq!(made(LinkType::Ethernet, &tcp(4000, 4040), 4054, hints).1, [tcp(4000, 4040)]);
    // Without its end it still counts as what it was.
    let (plan, _) = made(LinkType::Ethernet, &tcp(4000, 4040)[..100], 4054, Hints::Unknown);
    assert_eq!((plan.frames, plan.is_whole), (3, false));
}

#[test]
fn an_open_length_is_filled_in() {
    let (plan, frames) = made(LinkType::Ethernet, &tcp(100, 0), 154, Hints::Unknown);
    assert_eq!((plan.frames, plan.is_whole), (1, true));
    assert_eq!(frames[0][16..18], 140_u16.to_be_bytes());
}

#[test]
fn super_packets_of_devices_without_ethernet() {
    let ip = &tcp(4000, 4040)[14..];
    let (plan, frames) = made(LinkType::Raw, ip, 4040, Hints::Unknown);
    assert_eq!(plan.frames, 3);
    assert!(frames.iter().all(|frame| frame[..14] == [&MADE_ADDRESSES[..], &[8, 0]].concat()));
}
