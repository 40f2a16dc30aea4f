//! The stories that the captures tell, by subject.

pub mod damaged;
pub mod demo;
pub mod encapsulated;
pub mod files;
pub mod flows;
pub mod headers;
pub mod link_types;
pub mod policy;
pub mod services;

use crate::cast::{HOST, HOST_V6, WEB, WEB_V6};
use crate::packet::flag::{ACK, SYN};
use crate::packet::{Packet, Segment, ends, tcp, udp};

/// Four packets that show that a link layer is read in both families and directions: a UDP question (128 bytes) and its
/// answer (228) over IPv4, then SYN and SYN-ACK (64 each) over IPv6.
pub(crate) fn sample() -> [Packet; 4] {
    let [client, server] = ends(HOST, 40_001, WEB, 9_001);
    let [client_v6, server_v6] = ends(HOST_V6, 40_002, WEB_V6, 9_002);
    let syn = Segment { seq: 100, flags: SYN, ..Segment::default() };
    let syn_ack = Segment { seq: 900, ack: 101, flags: SYN | ACK, payload: &[] };
    [
        udp(client, server, &[b'q'; 100]),
        udp(server, client, &[b'a'; 200]),
        tcp(client_v6, server_v6, syn),
        tcp(server_v6, client_v6, syn_ack),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_sample_has_the_lengths_that_its_comment_gives() {
        assert_eq!(super::sample().map(|packet| packet.ip_bytes), [128, 228, 64, 64]);
    }
}
