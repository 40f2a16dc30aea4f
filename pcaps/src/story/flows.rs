//! What a flow table must get right: pieces of datagrams, borders of intervals, TCP flags.

use crate::capture::{Capture, Frame, Story};
use crate::cast::*;
use crate::fragment::fragments;
use crate::link::{ethernet, link_type};
use crate::packet::flag::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
use crate::packet::{Packet, Segment, ends, protocol, tcp, udp};
use crate::time::{MICRO, MILLI, MINUTE, SECOND, START_NS};

/// `fragments.pcap`, `intervals.pcap` and `tcp-flags.pcap`
pub fn captures() -> Vec<Capture> {
    vec![
        Capture::pcap("fragments.pcap", link_type::ETHERNET, pieces()),
        Capture::pcap("intervals.pcap", link_type::ETHERNET, intervals()),
        Capture::pcap("tcp-flags.pcap", link_type::ETHERNET, tcp_flags()),
    ]
}

/// Each datagram has a source port of its own, 6001 and up. 600 bytes of UDP payload in pieces of 304 are 20 + 304 and
/// 20 + 304 bytes.
fn pieces() -> Vec<Frame> {
    let mut story = Story::begin();
    let datagram = |host, port, peer| {
        let [src, dst] = ends(host, port, peer, 7_000);
        udp(src, dst, &[0x66; 600])
    };
    let v4 = |port, id| fragments(&datagram(HOST, port, WEB), id, 304);
    let v6 = |port, id| fragments(&datagram(HOST_V6, port, WEB_V6), id, 304);
    let backwards = |mut pieces: Vec<Packet>| {
        pieces.reverse();
        pieces
    };
    // In order; the later piece first; a later piece whose first never comes.
    story.send_all(&v4(6_001, 1), ethernet);
    story.send_all(&backwards(v4(6_002, 2)), ethernet);
    story.send_all(&v4(6_003, 3)[1..], ethernet);
    // Across a border: the first piece in the last millisecond of a minute, the later one in the next.
    story.at(START_NS + MINUTE - MILLI).send(&v4(6_004, 4)[0], ethernet);
    story.at(START_NS + MINUTE).send(&v4(6_004, 4)[1], ethernet);
    // One identification, two pairs of addresses; mixed.
    let (ours, theirs) = (v4(6_005, 5), fragments(&datagram(NEIGHBOUR, 6_006, WEB), 5, 304));
    story.send_all(&[ours[0].clone(), theirs[1].clone(), theirs[0].clone(), ours[1].clone()], ethernet);
    // A TCP segment in pieces: its flags are in the first.
    let [client, server] = ends(HOST, 6_007, WEB, 443);
    let segment = Segment { seq: 1, ack: 1, flags: PSH | ACK, payload: &[0x77; 500] };
    story.send_all(&fragments(&tcp(client, server, segment), 7, 256), ethernet);
    // IPv6: in order, backwards, first missing, atomic, and behind a hop-by-hop header (router alert).
    story.send_all(&v6(6_011, 0x0001_0011), ethernet);
    story.send_all(&backwards(v6(6_012, 0x0001_0012)), ethernet);
    story.send_all(&v6(6_013, 0x0001_0013)[1..], ethernet);
    story.send_all(&fragments(&datagram(HOST_V6, 6_014, WEB_V6), 0x0001_0014, 1_024), ethernet);
    for piece in v6(6_015, 0x0001_0015) {
        story.send(&piece.with_ipv6_extension(protocol::HOP_BY_HOP, &[0, 0, 5, 2, 0, 0, 1, 0]), ethernet);
    }
    // One identification twice, a minute apart: two datagrams, not one.
    story.at(START_NS + 2 * MINUTE).send_all(&v4(6_021, 21), ethernet);
    story.at(START_NS + 3 * MINUTE).send_all(&v4(6_022, 21), ethernet);
    story.end()
}

/// One flow, seen at times that an interval of 60 s finds hard. Lengths are 28 + the packet's number, so that a row
/// tells which packets are in it.
fn intervals() -> Vec<Frame> {
    let [src, dst] = ends(HOST, 40_400, WEB, 33_000);
    let times = [
        // 1 to 3: first and last microsecond of minute 0, first of minute 1.
        0,
        MINUTE - MICRO,
        MINUTE,
        // 4: back in minute 0, which is still open.
        30 * SECOND,
        // 5 to 7: minute 3, back to minute 2, back to minute 0: four intervals are open.
        3 * MINUTE + 5 * SECOND,
        2 * MINUTE + 59 * SECOND,
        SECOND,
        // 8 and 9: minute 4 is the fifth, so minute 0 has closed; then one that is older than all that is open.
        4 * MINUTE,
        2 * SECOND,
        // 10: a clock gone wild, ten years ahead. 11 and 12: business as usual.
        TEN_YEARS_NS,
        4 * MINUTE + 10 * SECOND,
        4 * MINUTE + 20 * SECOND,
    ];
    let mut story = Story::begin();
    for (index, after_ns) in times.into_iter().enumerate() {
        story.at(START_NS + after_ns).send(&udp(src, dst, &vec![b'i'; index + 1]), ethernet);
    }
    story.end()
}

const TEN_YEARS_NS: u64 = 3_650 * 86_400 * SECOND;

/// One flow for each rule of the flag mask, by source port from 1001 up: the flags of its packets, one after the other.
pub const FLAG_STORIES: &[(u16, &[u8])] = &[
    (1_001, &[SYN]),
    (1_002, &[SYN | ACK]),
    (1_003, &[FIN | ACK]),
    (1_004, &[RST | ACK]),
    (1_005, &[RST]),
    (1_006, &[ACK]),
    (1_007, &[PSH | ACK]),
    (1_008, &[URG | ACK]),
    (1_009, &[SYN | ECE | CWR]),
    (1_010, &[SYN | ACK | ECE]),
    (1_011, &[SYN, ACK, FIN | ACK]),
    (1_012, &[SYN | ACK, ACK, FIN | ACK]),
    (1_013, &[SYN, ACK, FIN | ACK, RST]),
    (1_014, &[SYN | ACK, RST | ACK]),
    (1_015, &[SYN | ACK, FIN | ACK, RST]),
    (1_016, &[SYN, ACK]),
    (1_017, &[0]),
    (1_018, &[FIN | PSH | URG]),
    (1_019, &[FIN | SYN | RST | PSH | ACK | URG | ECE | CWR]),
    (1_020, &[SYN | FIN]),
];

fn tcp_flags() -> Vec<Frame> {
    let mut story = Story::begin();
    for (port, packets) in FLAG_STORIES {
        let [client, server] = ends(HOST, *port, WEB, 443);
        for flags in *packets {
            story.send(&tcp(client, server, Segment { seq: 1, ack: 1, flags: *flags, payload: &[] }), ethernet);
        }
    }
    story.end()
}
