//! The totals that a capture must give, added up from what the stories put in.
//!
//! One row per (source, destination, ports, protocol) over the whole file, whatever the intervals. Later pieces of a
//! fragmented datagram stand apart, with ports 0.

use std::collections::BTreeMap;

use crate::capture::{Capture, Fate};
use crate::packet::Flow;

/// What one flow adds up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Number of packets.
    pub packets: u64,
    /// Sum of IP total lengths.
    pub ip_bytes: u64,
    /// Earliest packet, whatever its place in the file.
    pub first_ns: u64,
    /// Latest packet.
    pub last_ns: u64,
    /// OR of the TCP flag bytes as on the wire; `None` where it is no TCP.
    pub tcp_flags: Option<u8>,
}

/// The rows of a capture.
pub fn totals(capture: &Capture) -> BTreeMap<Flow, Totals> {
    let mut rows: BTreeMap<Flow, Totals> = BTreeMap::new();
    for frame in &capture.frames {
        let Fate::Counted { flow, ip_bytes, tcp_flags } = frame.fate else { continue };
        let one = Totals {
            packets: 1,
            ip_bytes: u64::from(ip_bytes),
            first_ns: frame.time_ns,
            last_ns: frame.time_ns,
            tcp_flags,
        };
        rows.entry(flow).and_modify(|sum| sum.add(one)).or_insert(one);
    }
    rows
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.ip_bytes += other.ip_bytes;
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.tcp_flags = self.tcp_flags.zip(other.tcp_flags).map(|(own, more)| own | more);
    }
}

/// The file that stands in `expected/`: comments, a line of column names, rows in order.
pub fn table(capture: &Capture) -> String {
    let mut not_ip = Vec::new();
    let mut refused = Vec::new();
    for (index, frame) in capture.frames.iter().enumerate() {
        match frame.fate {
            Fate::Counted { .. } => {}
            Fate::NotIp(what) => not_ip.push((index + 1, what)),
            Fate::Refused(why) => refused.push((index + 1, why)),
        }
    }
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line(&format!("# {}: what it must add up to, written by the generator", capture.name));
    line(&format!("# frames {}", capture.frames.len()));
    for (title, list) in [("not-ip", not_ip), ("refused", refused)] {
        line(&format!("# {title} {}", list.len()));
        for (number, reason) in list {
            line(&format!("#   frame {number}: {reason}"));
        }
    }
    line(COLUMNS);
    for (flow, sum) in totals(capture) {
        line(&row(&flow, &sum));
    }
    text
}

fn row(flow: &Flow, sum: &Totals) -> String {
    let Flow { src, dst, src_port, dst_port, protocol } = flow;
    let Totals { packets, ip_bytes, first_ns, last_ns, tcp_flags } = sum;
    let flags = tcp_flags.map_or_else(|| "-".to_owned(), |flags| format!("0x{flags:02x}"));
    format!("{src}\t{dst}\t{src_port}\t{dst_port}\t{protocol}\t{packets}\t{ip_bytes}\t{first_ns}\t{last_ns}\t{flags}")
}

/// The line of column names.
pub const COLUMNS: &str = "src\tdst\tsport\tdport\tproto\tpackets\tip_bytes\tfirst_ns\tlast_ns\ttcp_flags_or";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Frame, Story};
    use crate::cast::{HOST, OWN_DNS};
    use crate::link::{ethernet, link_type};
    use crate::packet::{ends, udp};

    #[test]
    fn rows_add_up_whatever_the_order_of_the_file() {
        let [client, server] = ends(HOST, 5_000, OWN_DNS, 53);
        let mut story = Story::begin();
        story.at(200).send(&udp(client, server, &[0; 2]), ethernet);
        story.at(100).send(&udp(client, server, &[0; 3]), ethernet);
        story.not_ip("ARP", vec![0; 60]);
        story.push(Frame::new(9, vec![1], Fate::Refused("cut")));
        let capture = Capture::pcap("a.pcap", link_type::ETHERNET, story.end());
        let expected = "# a.pcap: what it must add up to, written by the generator\n# frames 4\n# not-ip 1\n#   frame 3: ARP\n\
                        # refused 1\n#   frame 4: cut\n\
                        src\tdst\tsport\tdport\tproto\tpackets\tip_bytes\tfirst_ns\tlast_ns\ttcp_flags_or\n\
                        10.0.1.10\t192.0.2.53\t5000\t53\t17\t2\t61\t100\t200\t-\n";
        assert_eq!(table(&capture), expected);
    }
}
