//! The receiver against copies that are right, and wrong in one thing each.

use etherparse::PacketBuilder;

use super::*;

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [192, 0, 2, 7];

fn inner(sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(CLIENT, SERVER, 64).tcp(1025, 80, sequence, 1000);
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn reply() -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [1; 6]).ipv4(SERVER, CLIENT, 64).tcp(80, 1025, 9, 1000);
    builder.write(&mut frame, b"ok").unwrap();
    frame
}

fn outer(src_port: u16, header: [u8; 8], inner: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([3; 6], [4; 6]).ipv4([192, 0, 2, 1], [10, 83, 0, 2], 64).udp(src_port, 4789);
    builder.write(&mut frame, &[&header[..], inner].concat()).unwrap();
    frame
}

const HEADER: [u8; 8] = [8, 0, 0, 0, 0x12, 0x34, 0x56, 0];

fn received(frames: &[Vec<u8>]) -> Receiver {
    let mut receiver = Receiver::new(1514);
    frames.iter().for_each(|frame| receiver.take(frame, 4789));
    receiver
}

#[test]
fn right_copies_are_taken_and_streams_put_together() {
    let frames = [
        outer(50_000, HEADER, &inner(7, b"hello ")),
        outer(50_000, HEADER, &inner(13, b"world")),
        outer(50_000, HEADER, &reply()),
    ];
    let receiver = received(&frames);
    receiver.assert_content();
    assert_eq!(receiver.copies().len(), 3);
    assert_eq!((receiver.copies()[0].vni, receiver.copies()[0].src_port), (0x12_3456, 50_000));
    assert_eq!(receiver.copies()[0].inner, inner(7, b"hello "));
    let key = StreamKey { src: CLIENT.into(), dst: SERVER.into(), src_port: 1025, dst_port: 80 };
    assert_eq!(receiver.streams()[&key].bytes(), b"hello world");
    assert_eq!(receiver.streams()[&key.reversed()].bytes(), b"ok");
}

#[test]
fn what_an_ids_refuses_is_refused() {
    let complaint = |frames: &[Vec<u8>]| received(frames).complaints().to_vec();
    let good = inner(7, b"hello");
    for (at, value) in [(1, 1), (2, 1), (3, 1), (7, 1), (0, 0x88)] {
        let mut header = HEADER;
        header[at] = value;
        assert_eq!(complaint(&[outer(1, header, &good)]), [Complaint::Reserved(header)]);
    }
    let mut header = HEADER;
    header[0] = 0;
    assert_eq!(complaint(&[outer(1, header, &good)]), [Complaint::Flags(header)]);
    for (at, name) in [(24, "ip"), (50, "tcp"), (55, "tcp")] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(complaint(&[outer(1, HEADER, &bad)]), [Complaint::Checksum(name)], "byte {at}");
    }
    assert_eq!(complaint(&[outer(1, HEADER, &good[..good.len() - 1])]), [Complaint::Truncated]);
    assert_eq!(complaint(&[outer(1, HEADER, &inner(7, &[0; 1461]))]), [Complaint::Oversize(1515)]);
    let two = complaint(&[outer(1, HEADER, &good), outer(2, HEADER, &reply())]);
    assert!(matches!(two.as_slice(), [Complaint::TwoPorts(_)]), "{two:?}");
    let mut outer_wrong = outer(1, HEADER, &good);
    outer_wrong[40] ^= 1;
    assert_eq!(complaint(&[outer_wrong]), [Complaint::Outer("UDP checksum".to_owned())]);
}

#[test]
fn a_gap_is_a_gap_until_it_is_filled() {
    let (first, third, second) = (inner(0, b"ab"), inner(4, b"ef"), inner(2, b"cd"));
    let mut receiver = received(&[outer(1, HEADER, &first), outer(1, HEADER, &third)]);
    let stream = |receiver: &Receiver| receiver.streams().values().next().unwrap().clone();
    assert!(stream(&receiver).has_gap());
    receiver.take(&outer(1, HEADER, &second), 4789);
    assert!(!stream(&receiver).has_gap());
    assert_eq!((stream(&receiver).bytes(), stream(&receiver).out_of_order()), (&b"abcdef"[..], 1));
}
