//! Blocks put together by hand: a block is its type, the bytes of its body, and its length twice.

use super::super::testing::{Drained, PCAPNG, PCAPNG_BORDERS, read, read_with};
use super::super::{CaptureDrop, CaptureError, LinkType, Loss};
use super::*;

/// A little-endian block.
fn block(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&[kind, 0, 0, 0], &length, body, &length].concat()
}

/// A section header, version 1.0, length unknown.
fn section() -> Vec<u8> {
    PCAPNG[..28].to_vec()
}

/// An Ethernet interface without a limit to its frames.
fn interface(options: &[u8]) -> Vec<u8> {
    block(1, &[b"\x01\0\0\0\0\0\0\0", options].concat())
}

/// An enhanced packet: one byte, `x`, of `interface` at `ticks`.
fn packet(interface: u8, ticks: u8, options: &[u8]) -> Vec<u8> {
    let fixed = [interface, 0, 0, 0, 0, 0, 0, 0, ticks, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b'x', 0, 0, 0];
    block(6, &[&fixed, options].concat())
}

/// Statistics of `interface` at `ticks`.
fn statistics(interface: u8, ticks: u8, options: &[u8]) -> Vec<u8> {
    block(5, &[&[interface, 0, 0, 0, 0, 0, 0, 0, ticks, 0, 0, 0], options].concat())
}

fn read_blocks(blocks: &[Vec<u8>]) -> Drained {
    read(&blocks.concat()).unwrap()
}

fn names(interfaces: &Interfaces) -> Vec<String> {
    (0..interfaces.count()).map(|index| interfaces.get(index as u16).unwrap().name).collect()
}

fn interfaces_of(drained: &Drained) -> Vec<u16> {
    drained.frames.iter().map(|(frame, _)| frame.interface).collect()
}

#[test]
fn enhanced_packets() {
    let drained = read(PCAPNG).unwrap();
    let frame = Frame {
        time: Timestamp(1_000_002_000),
        offset: 48 + 28,
        captured_bytes: 3,
        original_bytes: 3,
        interface: 0,
        link_type: LinkType::Ethernet,
        direction: Direction::Unknown,
    };
    let time = Timestamp(4_000_005_000);
    let second = Frame { time, offset: 84 + 28, captured_bytes: 5, original_bytes: 9, ..frame };
    assert_eq!(drained.frames, [(frame, b"abc".to_vec()), (second, b"defgh".to_vec())]);
    assert_eq!(drained.damage(), None);
}

#[test]
fn a_big_endian_section_after_a_little_endian_one() {
    let mut bytes = PCAPNG.to_vec();
    bytes.extend(b"\x0a\x0d\x0d\x0a\0\0\0\x1c\x1a\x2b\x3c\x4d\0\x01\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x1c");
    bytes.extend(b"\0\0\0\x01\0\0\0\x14\0\x71\0\0\0\0\0\0\0\0\0\x14");
    bytes.extend(b"\0\0\0\x06\0\0\0\x2c\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x02\0\0\0\x07ij\0\0");
    bytes.extend(b"\0\x02\0\x04\0\0\0\x02\0\0\0\x2c");
    let drained = read(&bytes).unwrap();
    assert_eq!(drained.damage(), None);
    let (frame, data) = &drained.frames[2];
    // (2^32 + 2) microseconds.
    assert_eq!((frame.time.0, &**data, frame.original_bytes), (4_294_967_298_000, &b"ij"[..], 7));
    assert_eq!((frame.link_type, frame.direction), (LinkType::LinuxSll, Direction::Egress));
}

#[test]
fn directions() {
    let flags = |value| packet(0, 0, &[2, 0, 4, 0, value, 0, 0, 0, 0, 0, 0, 0]);
    let drained = read_blocks(&[section(), interface(b""), flags(0), flags(1), flags(2), flags(3), flags(0x1d)]);
    let directions: Vec<Direction> = drained.frames.iter().map(|(frame, _)| frame.direction).collect();
    use Direction::{Egress, Ingress, Unknown};
    assert_eq!(directions, [Unknown, Ingress, Egress, Unknown, Ingress]);
}

#[test]
fn interfaces_have_clocks_of_their_own() {
    let drained = read_blocks(&[
        section(),
        interface(b"\x09\0\x01\0\x09\0\0\0\0\0\0\0"),
        interface(b"\x09\0\x01\0\x83\0\0\0\x0e\0\x08\0\x0a\0\0\0\0\0\0\0"),
        packet(0, 200, b""),
        packet(1, 12, b""),
    ]);
    // Nanoseconds; eighths of a second, ten seconds on.
    assert_eq!(drained.times_ns(), [200, 11_500_000_000]);
}

#[test]
fn simple_packets_are_cut_at_the_snap_length() {
    let drained = read_blocks(&[
        section(),
        block(1, b"\x01\0\0\0\x04\0\0\0"),
        block(3, b"\x06\0\0\0abcd"),
        block(3, b"\x02\0\0\0ab\0\0"),
    ]);
    assert_eq!(drained.payloads(), [&b"abcd"[..], b"ab"]);
    assert_eq!(drained.frames[0].0.original_bytes, 6);
    assert_eq!(drained.times_ns(), [0, 0]);
    assert_eq!(drained.damage(), None);

    let lying = read_blocks(&[section(), interface(b""), block(3, b"\x06\0\0\0abcd")]);
    assert_eq!(lying.damage(), Some((48, Damage::BlockShort { needed_bytes: 8, left_bytes: 4 })));
}

#[test]
fn obsolete_packets_and_their_drop_counts() {
    let old = |drops: [u8; 2]| {
        let fixed = [0, 0, drops[0], drops[1], 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b'y', 0, 0, 0];
        block(2, &[&fixed[..], b"\x02\0\x04\0\x01\0\0\0\0\0\0\0"].concat())
    };
    let drained = read_blocks(&[section(), interface(b""), old([7, 0]), old([0xff, 0xff]), old([0, 0])]);
    assert_eq!(drained.payloads(), [b"y", b"y", b"y"]);
    assert_eq!(drained.times_ns(), [3000, 3000, 3000]);
    assert_eq!(drained.frames[0].0.direction, Direction::Ingress);
    assert_eq!(
        drained.drops,
        [CaptureDrop { interface: 0, time: Timestamp(3000), packets: 7, loss: Loss::CaptureBuffer }]
    );
}

#[test]
fn statistics_are_totals_and_reports_are_what_is_new() {
    let dropped = |number, ticks, total| statistics(number, ticks, &[5, 0, 8, 0, total, 0, 0, 0, 0, 0, 0, 0]);
    let drained = read_blocks(&[
        section(),
        interface(b"\x02\0\x01\0a\0\0\0"),
        interface(b"\x02\0\x01\0b\0\0\0"),
        dropped(0, 1, 5),
        dropped(1, 2, 3),
        dropped(0, 3, 5),
        packet(0, 4, b"\x04\0\x08\0\x06\0\0\0\0\0\0\0"),
        dropped(0, 5, 9),
        statistics(1, 6, b"\x07\0\x08\0\x04\0\0\0\0\0\0\0"),
        section(),
        interface(b"\x02\0\x01\0a\0\0\0"),
        dropped(0, 7, 2),
    ]);
    let drop = |interface, micros: u64, packets| CaptureDrop {
        interface,
        time: Timestamp(micros * 1000),
        packets,
        loss: Loss::CaptureBuffer,
    };
    // Six by the packets' own count are one more than the five known, nine in all three more than that. A new section
    // counts from zero.
    assert_eq!(
        drained.drops,
        [drop(0, 1, 5), drop(1, 2, 3), drop(0, 4, 1), drop(0, 5, 3), drop(1, 6, 1), drop(0, 7, 2)]
    );
    assert_eq!(drained.damage(), None);
}

#[test]
fn an_interface_is_its_name_in_every_section() {
    let interfaces = Interfaces::default();
    let blocks = [
        section(),
        interface(b"\x02\0\x04\0eth0"),
        interface(b""),
        interface(b"\x02\0\0\0"),
        section(),
        interface(b""),
        interface(b"\x02\0\x05\0eth0\0\0\0\0\0\0\0\0"),
        packet(0, 0, b""),
        packet(1, 0, b""),
    ];
    let drained = read_with(&blocks.concat(), &interfaces).unwrap();
    assert_eq!(names(&interfaces), ["eth0", "test", "test-1"]);
    assert_eq!(interfaces_of(&drained), [1, 0]);
    assert_eq!(interfaces.get(0).unwrap().capture, "test.pcap");
}

#[test]
fn what_is_not_known_is_stepped_over() {
    let drained = read_blocks(&[
        section(),
        block(0x99, b"whatever"),
        interface(b"\x99\0\x03\0abc\0\0\0\0\0"),
        block(4, &[0; 300_000]),
        packet(0, 1, b"\x01\0\x02\0hi\0\0"),
        block(0x0b, b""),
        packet(0, 2, b""),
    ]);
    assert_eq!(drained.times_ns(), [1000, 2000]);
    assert_eq!(drained.damage(), None);
}

#[test]
fn a_cut_anywhere_keeps_the_frames_before_it() {
    for length in 4..PCAPNG.len() {
        let drained = read(&PCAPNG[..length]).unwrap();
        assert_eq!(drained.frames.len(), usize::from(length >= 84), "cut at {length}");
        let border = *PCAPNG_BORDERS.iter().rfind(|border| **border <= length).unwrap();
        match drained.damage() {
            None => assert_eq!(border, length, "no error"),
            Some((offset, Damage::Cut { part, left_bytes, .. })) => {
                assert_eq!((offset, left_bytes), (border as u64, length - border));
                assert_eq!(part, if left_bytes < 12 { Part::BlockHeader } else { Part::Block });
                assert!(left_bytes > 0);
            }
            Some(other) => panic!("cut at {length}: {other:?}"),
        }
    }
}

/// The damage of a file that is whole up to its third block, at 48.
fn damage_of(third: &[u8]) -> Damage {
    let drained = read_blocks(&[section(), interface(b""), third.to_vec(), packet(0, 1, b"")]);
    assert!(drained.frames.is_empty());
    let (offset, damage) = drained.damage().unwrap();
    assert_eq!(offset, 48);
    damage
}

#[test]
fn block_lengths_that_lie() {
    let max_bytes = 16 * 1024 * 1024;
    for (length, length_bytes) in
        [(b"\0\0\0\0", 0), (b"\x08\0\0\0", 8), (b"\x21\0\0\0", 33), (b"\xfc\xff\xff\xff", 0xffff_fffc)]
    {
        let damage = damage_of(&[b"\x06\0\0\0", &length[..], b"\0\0\0\0"].concat());
        assert_eq!(damage, Damage::BlockLength { length_bytes, max_bytes });
    }
    let damage = damage_of(b"\x06\0\0\0\x10\0\0\0\0\0\0\0\x14\0\0\0");
    assert_eq!(damage, Damage::BlockTrailer { length_bytes: 16, trailer_bytes: 20 });
    let cut = damage_of(b"\x06\0\0\0\0\0\0\x01\0\0\0\0");
    assert_eq!(cut, Damage::Cut { part: Part::Block, needed_bytes: 16 * 1024 * 1024, left_bytes: 12 + 36 });
}

#[test]
fn lengths_inside_a_block_that_lie() {
    let captured = |length: [u8; 4]| block(6, &[&[0; 12], &length[..], b"\x01\0\0\0x\0\0\0"].concat());
    assert_eq!(damage_of(&captured([5, 0, 0, 0])), Damage::BlockShort { needed_bytes: 8, left_bytes: 4 });
    for (length, captured_bytes) in [([0xff, 0xff, 0xff, 0x7f], 0x7fff_ffff), ([0xff; 4], 0xffff_ffff)] {
        assert_eq!(damage_of(&captured(length)), Damage::FrameLength { captured_bytes });
    }
    let option_runs_out = packet(0, 0, b"\x02\0\x08\0\x01\0\0\0");
    assert_eq!(damage_of(&option_runs_out), Damage::BlockShort { needed_bytes: 8, left_bytes: 4 });
    let flags_too_long = packet(0, 0, b"\x02\0\x05\0\x01\0\0\0\0\0\0\0");
    assert_eq!(damage_of(&flags_too_long), Damage::OptionLength { code: 2, length_bytes: 5 });
    assert_eq!(damage_of(&block(6, &[0; 16])), Damage::BlockShort { needed_bytes: 16, left_bytes: 12 });
}

#[test]
fn blocks_that_contradict_their_section() {
    assert_eq!(damage_of(&packet(1, 0, b"")), Damage::UnknownInterface { interface: 1, declared: 1 });
    assert_eq!(damage_of(&statistics(9, 0, b"")), Damage::UnknownInterface { interface: 9, declared: 1 });
    let mut version_2 = section();
    version_2[12] = 2;
    assert_eq!(damage_of(&version_2), Damage::Version { major: 2, minor: 0 });
    let mut no_order = section();
    no_order[8] = 0;
    assert_eq!(damage_of(&no_order), Damage::ByteOrder { magic: [0, 0x3c, 0x2b, 0x1a] });
    let stale = read_blocks(&[section(), interface(b""), section(), packet(0, 0, b"")]);
    assert_eq!(stale.damage(), Some((76, Damage::UnknownInterface { interface: 0, declared: 0 })));
}

#[test]
fn damage_names_the_file_the_place_and_the_cause() {
    let mut drained = read_blocks(&[section(), packet(3, 0, b"")]);
    let (_, error): (usize, CaptureError) = drained.errors.remove(0);
    let text = "test.pcap: damaged at offset 28: a block of interface 3 in a section that declared 0";
    assert_eq!(error.to_string(), text);
}
