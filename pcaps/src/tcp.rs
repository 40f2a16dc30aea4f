//! A TCP conversation as a story: who opens it, what is asked, what is answered (RFC 9293).

use std::net::SocketAddr;

use crate::packet::flag::{ACK, FIN, PSH, SYN};
use crate::packet::{Packet, Segment, length_u32, mss, tcp};

/// A connection that is opened, used once and closed by its client.
#[derive(Debug, Clone)]
pub struct TcpConversation {
    /// Who opens it.
    pub client: SocketAddr,
    /// Who answers.
    pub server: SocketAddr,
    /// What the client sends.
    pub request: Vec<u8>,
    /// What the server answers.
    pub response: Vec<u8>,
    /// When the SYN is sent.
    pub start_ns: u64,
    /// Time from one segment to the next.
    pub step_ns: u64,
}

impl TcpConversation {
    /// All segments in order, with their times: handshake, request, its acknowledgment, response with an
    /// acknowledgment after every second segment and after the last, FIN from the client, FIN back, last ACK.
    pub fn packets(&self) -> Vec<(u64, Packet)> {
        let mut exchange = Exchange::new(self);
        exchange.send(Side::Client, SYN, &[]);
        exchange.send(Side::Server, SYN | ACK, &[]);
        exchange.send(Side::Client, ACK, &[]);
        exchange.send_data(Side::Client, &self.request);
        exchange.send_data(Side::Server, &self.response);
        exchange.send(Side::Client, FIN | ACK, &[]);
        exchange.send(Side::Server, FIN | ACK, &[]);
        exchange.send(Side::Client, ACK, &[]);
        exchange.packets
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// The state of both ends while the segments are written down.
struct Exchange<'a> {
    story: &'a TcpConversation,
    /// Next sequence number of the client and of the server.
    next: [u32; 2],
    packets: Vec<(u64, Packet)>,
}

impl<'a> Exchange<'a> {
    fn new(story: &'a TcpConversation) -> Self {
        // Initial sequence numbers that differ from one connection to the next without being random.
        let client = u32::from(story.client.port()).wrapping_mul(0x0001_0003);
        let server = u32::from(story.server.port()).wrapping_mul(0x0101_0101) ^ client;
        Self { story, next: [client, server], packets: Vec::new() }
    }

    fn send_data(&mut self, from: Side, data: &[u8]) {
        let pieces: Vec<&[u8]> = data.chunks(usize::from(mss(self.story.client.ip()))).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let last = index + 1 == pieces.len();
            self.send(from, if last { PSH | ACK } else { ACK }, piece);
            if last || index % 2 == 1 {
                self.send(from.other(), ACK, &[]);
            }
        }
    }

    fn send(&mut self, from: Side, flags: u8, payload: &[u8]) {
        let (src, dst) = match from {
            Side::Client => (self.story.client, self.story.server),
            Side::Server => (self.story.server, self.story.client),
        };
        let ack = if flags & ACK == 0 { 0 } else { self.next[from.other() as usize] };
        let segment = Segment { seq: self.next[from as usize], ack, flags, payload };
        let time_ns = self.story.start_ns + self.packets.len() as u64 * self.story.step_ns;
        self.packets.push((time_ns, tcp(src, dst, segment)));
        // SYN and FIN each take one sequence number.
        let taken = length_u32(payload.len()) + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.next[from as usize] = self.next[from as usize].wrapping_add(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cast::{HOST, WEB};

    #[test]
    fn a_small_exchange_has_the_totals_of_its_arithmetic() {
        let story = TcpConversation {
            client: SocketAddr::from((HOST, 40_000)),
            server: SocketAddr::from((WEB, 80)),
            request: vec![b'a'; 100],
            response: vec![b'b'; 1_560],
            start_ns: 0,
            step_ns: 10,
        };
        let packets = story.packets();
        let total = |src| {
            let own = packets.iter().filter(|(_, packet)| packet.flow.src == src);
            own.fold((0, 0), |(count, bytes), (_, packet)| (count + 1, bytes + packet.ip_bytes))
        };
        // SYN 44, ACK 40, request 140, ACK of the response 40, FIN 40, ACK 40.
        assert_eq!(total(HOST), (6, 344));
        // SYN-ACK 44, ACK 40, response 1500 and 140, FIN 40.
        assert_eq!(total(WEB), (5, 1_764));
        assert_eq!(packets.last().unwrap().0, 100);
    }
}
