//! What IP headers can look like: options, extensions, lengths that are not there, all protocols, cut captures.

use std::net::IpAddr;

use crate::capture::{Capture, Frame, Story};
use crate::cast::*;
use crate::icmp::{message, ping, pong};
use crate::link::{ETHER_HEADER_BYTES, ethernet, link_type, mac, octets};
use crate::packet::flag::{ACK, PSH, SYN};
use crate::packet::{IPV6_HEADER_BYTES, Packet, Segment, ends, has_ports, ip, length_u32, protocol, tcp, udp};
use crate::pcap::{self, Style};
use crate::story::sample;

/// `ip-options.pcap`, `tso-zero-length.pcap`, `jumbogram.pcap`, `snaplen.pcap`, `protocols.pcap` and `icmp.pcap`
pub fn captures() -> Vec<Capture> {
    let cut = cut_frames();
    let style = Style { snap_bytes: SNAP_BYTES, ..Style::default() };
    let contents = pcap::write(style, link_type::ETHERNET, &cut);
    vec![
        Capture::pcap("ip-options.pcap", link_type::ETHERNET, options()),
        Capture::pcap("tso-zero-length.pcap", link_type::ETHERNET, zero_lengths()),
        Capture::pcap("jumbogram.pcap", link_type::ETHERNET, jumbogram()),
        Capture { name: "snaplen.pcap", contents, frames: cut },
        Capture::pcap("protocols.pcap", link_type::ETHERNET, all_protocols()),
        Capture::pcap("icmp.pcap", link_type::ETHERNET, messages()),
    ]
}

fn options() -> Vec<Frame> {
    let [v4_out, v4_in, v6_out, v6_in] = sample();
    let mut story = Story::begin();
    // Router alert (RFC 2113); record route with nine empty places and an end of options (RFC 791), the longest there
    // is.
    story.send(&v4_out.clone().with_ipv4_options(&[148, 4, 0, 0]), ethernet);
    let record_route = [&[7, 39, 4][..], &[0; 37]].concat();
    story.send(&v4_in.with_ipv4_options(&record_route), ethernet);
    // Each extension alone, then all at once in the order RFC 8200 recommends.
    story.send(&v6_out.clone().with_ipv6_extension(protocol::HOP_BY_HOP, &ROUTER_ALERT), ethernet);
    story.send(&v6_out.clone().with_ipv6_extension(protocol::ROUTING, &segment_routing()), ethernet);
    story.send(&v6_out.clone().with_ipv6_extension(protocol::DESTINATION_OPTIONS, &PADDING), ethernet);
    let all = v6_in
        .with_ipv6_extension(protocol::DESTINATION_OPTIONS, &PADDING)
        .with_ipv6_extension(protocol::ROUTING, &segment_routing())
        .with_ipv6_extension(protocol::DESTINATION_OPTIONS, &PADDING)
        .with_ipv6_extension(protocol::HOP_BY_HOP, &ROUTER_ALERT);
    story.send(&all, ethernet);
    // Authentication ends the walk: the flow is protocol 51, without ports, though TCP or UDP follows.
    story.send(&authenticated(&v4_out), ethernet);
    story.send(&authenticated(&v6_out), ethernet);
    let nothing = ip(HOST_V6, WEB_V6, protocol::NO_NEXT_HEADER, &[]);
    story.send(&nothing.with_ipv6_extension(protocol::DESTINATION_OPTIONS, &PADDING), ethernet);
    story.end()
}

/// Router alert (RFC 2711), padded to eight bytes.
const ROUTER_ALERT: [u8; 8] = [0, 0, 5, 2, 0, 0, 1, 0];
/// Options of padding only.
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

/// A segment routing header (RFC 8754) at its last segment.
fn segment_routing() -> Vec<u8> {
    [&[0, 2, 4, 0, 0, 0, 0, 0][..], &octets(WEB_V6)].concat()
}

/// An authentication header (RFC 4302) of 24 bytes in front of what the packet carried.
fn authenticated(packet: &Packet) -> Packet {
    let Packet { bytes, flow, .. } = packet;
    let header = [&[flow.protocol, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1][..], &[0xaa; 12]].concat();
    ip(flow.src, flow.dst, protocol::AH, &[&header, &bytes[packet.header_bytes()..]].concat())
}

/// Large sends as a capture on the sending host sees them: the length field of the header is still 0, the frame tells.
/// 3000 bytes of data make 3040 bytes of IPv4 and 3060 of IPv6.
fn zero_lengths() -> Vec<Frame> {
    let mut story = Story::begin();
    for (host, peer) in [(HOST, WEB), (HOST_V6, WEB_V6)] {
        let [client, server] = ends(host, 40_100, peer, 443);
        let mut large = tcp(client, server, Segment { seq: 1, ack: 1, flags: PSH | ACK, payload: &[0x55; 3_000] });
        let length_field = if host.is_ipv4() { 2..4 } else { 4..6 };
        large.bytes[length_field].fill(0);
        story.send(&large, ethernet);
        let acknowledgment = Segment { seq: 1, ack: 3_001, flags: ACK, payload: &[] };
        story.send(&tcp(server, client, acknowledgment), ethernet);
    }
    story.end()
}

/// A packet of more than 64 KiB (RFC 2675), of which the capture kept the beginning. The jumbo payload option and the
/// length on the wire say the same: 40 + 70,000 bytes.
fn jumbogram() -> Vec<Frame> {
    let jumbo_payload = [&[0, 0, 0xc2, 4][..], &JUMBO_PAYLOAD_BYTES.to_be_bytes()].concat();
    let [src, dst] = ends(HOST_V6, 40_200, WEB_V6, 9_000);
    let mut packet = udp(src, dst, &[0x4a; 100]).with_ipv6_extension(protocol::HOP_BY_HOP, &jumbo_payload);
    packet.bytes[4..6].fill(0);
    // The UDP length of a jumbogram is 0 as well; its field stands 4 bytes into UDP, behind 8 of options.
    let udp_length = IPV6_HEADER_BYTES + 8 + 4;
    packet.bytes[udp_length..udp_length + 2].fill(0);
    packet.ip_bytes = length_u32(IPV6_HEADER_BYTES) + JUMBO_PAYLOAD_BYTES;
    let mut story = Story::begin();
    let mut frame = Frame::around(story.now_ns(), &packet, ethernet);
    frame.original_bytes = length_u32(ETHER_HEADER_BYTES) + packet.ip_bytes;
    story.push(frame);
    story.end()
}

const JUMBO_PAYLOAD_BYTES: u32 = 70_000;

/// The snap length in the file's header.
const SNAP_BYTES: u32 = 60;

/// Frames of which 60 bytes were kept, then 40. Lengths still come from the IP header. Of IPv6, 60 bytes leave six for
/// the upper layer: ports, no flags; 40 bytes leave 26, which is no header.
fn cut_frames() -> Vec<Frame> {
    let mut story = Story::begin();
    let talk = |host: IpAddr, peer: IpAddr| {
        let [client, server] = ends(host, 40_300, peer, 443);
        let segment = Segment { seq: 1, ack: 1, flags: PSH | ACK, payload: &[0x33; 1_000] };
        [tcp(client, server, segment), udp(client, server, &[0x44; 1_000]), ping(host, peer, 1, 1)]
    };
    for snap_bytes in [60, 40] {
        for packet in talk(HOST, WEB).iter().chain(&talk(HOST_V6, WEB_V6)) {
            let frame = Frame::around(story.now_ns(), packet, ethernet);
            story.push(frame.cut_at(snap_bytes, ETHER_HEADER_BYTES));
        }
    }
    story.end()
}

/// One packet of each protocol number, 28 bytes: eight bytes of payload whose first four would be the ports 4660 and
/// 22136. TCP is a SYN of 44 bytes, for eight bytes are no TCP header.
fn all_protocols() -> Vec<Frame> {
    let mut story = Story::begin();
    let [src, dst] = ends(HOST, 0x1234, WEB, 0x5678);
    for number in 0..=u8::MAX {
        let other = || ip(HOST, WEB, number, &[0x12, 0x34, 0x56, 0x78, 0, 8, 0, 0]);
        let packet = match number {
            protocol::TCP => tcp(src, dst, Segment { seq: 1, flags: SYN, ..Segment::default() }),
            protocol::UDP => udp(src, dst, &[]),
            _ if has_ports(number) => other().with_ports(src.port(), dst.port()),
            _ => other(),
        };
        story.send(&packet, ethernet);
    }
    story.end()
}

/// Questions, answers and errors of both families. All have ports 0, also where an error quotes a packet with ports.
fn messages() -> Vec<Frame> {
    let mut story = Story::begin();
    story.send(&ping(HOST, WEB, 1, 1), ethernet).send(&pong(WEB, HOST, 1, 1), ethernet);
    story.send(&ping(HOST_V6, WEB_V6, 1, 1), ethernet).send(&pong(WEB_V6, HOST_V6, 1, 1), ethernet);
    let [question, _, syn, _] = sample();
    // Port unreachable, fragmentation needed with a link of 1400, time exceeded, redirect: each quotes 28 bytes.
    let quote = &question.bytes[..28];
    story.send(&message(WEB, HOST, 3, 3, [0; 4], quote), ethernet);
    story.send(&message(ROUTER, HOST, 3, 4, [0, 0, 0x05, 0x78], quote), ethernet);
    story.send(&message(ROUTER, HOST, 11, 0, [0; 4], quote), ethernet);
    story.send(&message(ROUTER, HOST, 5, 1, [10, 0, 1, 2], quote), ethernet);
    // Timestamp request and reply (RFC 792): three times of four bytes.
    story.send(&message(HOST, NEIGHBOUR, 13, 0, [0, 9, 0, 1], &[0; 12]), ethernet);
    story.send(&message(NEIGHBOUR, HOST, 14, 0, [0, 9, 0, 1], &[0; 12]), ethernet);
    // No route, packet too big with a link of 1280, hop limit exceeded: each quotes the SYN.
    story.send(&message(ROUTER_V6, HOST_V6, 1, 0, [0; 4], &syn.bytes), ethernet);
    story.send(&message(ROUTER_V6, HOST_V6, 2, 0, [0, 0, 0x05, 0x00], &syn.bytes), ethernet);
    story.send(&message(ROUTER_V6, HOST_V6, 3, 0, [0; 4], &syn.bytes), ethernet);
    // Neighbour solicitation and advertisement.
    let ask = [octets(HOST_V6), vec![1, 1], mac(ROUTER_V6).to_vec()].concat();
    story.send(&message(ROUTER_V6, HOST_V6, 135, 0, [0; 4], &ask), ethernet);
    let answer = [octets(HOST_V6), vec![2, 1], mac(HOST_V6).to_vec()].concat();
    story.send(&message(HOST_V6, ROUTER_V6, 136, 0, [0x60, 0, 0, 0], &answer), ethernet);
    // A multicast listener report (RFC 3810) behind a router alert: joins ff02::fb.
    let record = [&[4, 0, 0, 0][..], &octets(v6(0xff02 << 112 | 0xfb))].concat();
    let report = message(HOST_LINK_LOCAL, v6(0xff02 << 112 | 0x16), 143, 0, [0, 0, 0, 1], &record);
    story.send(&report.with_ipv6_extension(protocol::HOP_BY_HOP, &ROUTER_ALERT), ethernet);
    story.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Fate;

    #[test]
    fn a_cut_frame_shows_what_its_bytes_show() {
        let fates: Vec<Fate> = cut_frames().iter().map(|frame| frame.fate).collect();
        let seen = |fate: &Fate| match fate {
            Fate::Counted { flow, ip_bytes, tcp_flags } => Some((flow.src_port, *ip_bytes, *tcp_flags)),
            _ => None,
        };
        let v4 = [Some((40_300, 1_040, Some(0x18))), Some((40_300, 1_028, None)), Some((0, 84, None))];
        let v6 = [Some((40_300, 1_060, Some(0))), Some((40_300, 1_048, None)), Some((0, 104, None))];
        let v4_at_40 = [Some((40_300, 1_040, Some(0))), v4[1], v4[2]];
        let expected = [&v4[..], &v6, &v4_at_40, &[None; 3]].concat();
        assert_eq!(fates.iter().map(seen).collect::<Vec<_>>(), expected);
    }
}
