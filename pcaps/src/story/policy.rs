//! Traffic for policies to judge: AWS's documented ping, and connections opened from both sides.

use crate::capture::{Capture, Frame, Story};
use crate::cast::*;
use crate::icmp::{ping, pong};
use crate::link::{ethernet, link_type};
use crate::packet::flag::{ACK, SYN};
use crate::packet::{Segment, ends, tcp, udp};
use crate::tcp::TcpConversation;
use crate::time::{MILLI, MINUTE, SECOND, START_NS};

/// `ping-matrix.pcap` and `policy-tcp.pcap`
pub fn captures() -> Vec<Capture> {
    vec![
        Capture::pcap("ping-matrix.pcap", link_type::ETHERNET, documented_ping()),
        Capture::pcap("policy-tcp.pcap", link_type::ETHERNET, connections()),
    ]
}

/// The ping of AWS's page "Flow log record examples": 4 packets and 336 bytes each way.
fn documented_ping() -> Vec<Frame> {
    let (home, instance) = (v4(203, 0, 113, 12), v4(172, 31, 16, 139));
    let mut story = Story::begin();
    for seq in 1..=4 {
        story.at(START_NS + u64::from(seq) * SECOND);
        story.send(&ping(home, instance, 12, seq), ethernet).send(&pong(instance, home, 12, seq), ethernet);
    }
    story.end()
}

fn connections() -> Vec<Frame> {
    let mut story = Story::begin();
    let conversation = |client, server, start_ns| {
        let (request, response) = (vec![b'q'; 60], vec![b'r'; 80]);
        TcpConversation { client, server, request, response, start_ns, step_ns: 5 * MILLI }
    };
    // Opened from outside, then opened from here.
    let [client, server] = ends(ADMIN, 51_001, HOST, 443);
    story.converse(&conversation(client, server, START_NS + SECOND), ethernet);
    let [client, server] = ends(HOST, 51_002, WEB, 443);
    story.converse(&conversation(client, server, START_NS + 2 * SECOND), ethernet);
    // Tried three times from outside, never answered; and so from here.
    for (client, server) in [(SCANNER, HOST), (HOST, WEB)] {
        let [client, server] = ends(client, 51_003, server, 23);
        for wait_secs in [3, 4, 6] {
            let syn = Segment { seq: 1, flags: SYN, ..Segment::default() };
            story.at(START_NS + wait_secs * SECOND).send(&tcp(client, server, syn), ethernet);
        }
    }
    // Opened in one minute, answered only in the next.
    for (client, server, port) in [(ADMIN, HOST, 51_004), (HOST, WEB, 51_005)] {
        let [client, server] = ends(client, port, server, 443);
        let syn_ack = Segment { seq: 9, ack: 2, flags: SYN | ACK, payload: &[] };
        let ack = Segment { seq: 2, ack: 10, flags: ACK, payload: &[] };
        story.at(START_NS + MINUTE - 20 * MILLI - u64::from(port - 51_004) * MILLI);
        story.send(&tcp(client, server, Segment { seq: 1, flags: SYN, ..Segment::default() }), ethernet);
        story.at(START_NS + MINUTE + 20 * MILLI + u64::from(port - 51_004) * MILLI);
        story.send(&tcp(server, client, syn_ack), ethernet).send(&tcp(client, server, ack), ethernet);
    }
    // The same with UDP, which has no flags to tell who began.
    for (client, server, port) in [(ADMIN, HOST, 51_006), (HOST, WEB, 51_007)] {
        let [client, server] = ends(client, port, server, 4_433);
        story.at(START_NS + 2 * MINUTE - 30 * MILLI + u64::from(port - 51_006) * MILLI);
        story.send(&udp(client, server, &[b'q'; 32]), ethernet);
        story.at(START_NS + 2 * MINUTE + 30 * MILLI + u64::from(port - 51_006) * MILLI);
        story.send(&udp(server, client, &[b'r'; 64]), ethernet);
    }
    story.end_in_time_order()
}
