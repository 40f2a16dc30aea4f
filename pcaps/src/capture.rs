//! Frames on their way into a capture file, and the file itself.

use crate::packet::{Flow, IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, Packet, length_u32};
use crate::pcap::{self, Style};
use crate::tcp::TcpConversation;
use crate::time::{MILLI, START_NS};

/// One capture file with its frames.
#[derive(Debug)]
pub struct Capture {
    /// File name, with its ending.
    pub name: &'static str,
    /// The whole file.
    pub contents: Vec<u8>,
    /// Every frame that a reader of the file gets, in its order.
    pub frames: Vec<Frame>,
}

impl Capture {
    /// A classic pcap file, microseconds, little endian: what tcpdump writes on most machines.
    pub fn pcap(name: &'static str, link_type: u16, frames: Vec<Frame>) -> Self {
        let contents = pcap::write(Style::default(), link_type, &frames);
        Self { name, contents, frames }
    }

    /// Name without its ending: the name of its expected totals.
    pub fn stem(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(stem, _)| stem)
    }
}

/// One frame and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When it was captured.
    pub time_ns: u64,
    /// The captured bytes.
    pub bytes: Vec<u8>,
    /// How long it was on the wire.
    pub original_bytes: u32,
    /// How a flow log accounts for it.
    pub fate: Fate,
}

/// How a flow log accounts for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Counted in a row.
    Counted {
        /// The row.
        flow: Flow,
        /// What it adds to the row's bytes.
        ip_bytes: u32,
        /// The TCP flag byte, `None` where it is no TCP, 0 where it can't be seen.
        tcp_flags: Option<u8>,
    },
    /// Carries something other than IP, or nothing that can be read. The text says what.
    NotIp(&'static str),
    /// Damaged: what it says of itself is not true, or too little of it is there. The text says why.
    Refused(&'static str),
}

impl Frame {
    /// A whole frame.
    pub fn new(time_ns: u64, bytes: Vec<u8>, fate: Fate) -> Self {
        let original_bytes = length_u32(bytes.len());
        Self { time_ns, bytes, original_bytes, fate }
    }

    /// A whole frame around a packet.
    pub fn around(time_ns: u64, packet: &Packet, wrap: impl Fn(&Packet) -> Vec<u8>) -> Self {
        Self::new(time_ns, wrap(packet), Fate::from(packet))
    }

    /// The frame as it is when the capture keeps only the first `snap_bytes`: shorter, as long on the wire as before.
    /// `link_bytes` is where the IP header starts. What lies behind the cut can't be seen: a port pair needs four bytes
    /// of the upper layer, TCP flags fourteen, and less than the fixed IP header is no packet.
    pub fn cut_at(mut self, snap_bytes: usize, link_bytes: usize) -> Self {
        self.bytes.truncate(snap_bytes);
        let Fate::Counted { flow, tcp_flags, .. } = &mut self.fate else { return self };
        let ip_bytes_seen = self.bytes.len().saturating_sub(link_bytes);
        let header_bytes = if flow.src.is_ipv4() { IPV4_HEADER_BYTES } else { IPV6_HEADER_BYTES };
        let Some(upper_bytes_seen) = ip_bytes_seen.checked_sub(header_bytes) else {
            self.fate = Fate::Refused("IP header cut");
            return self;
        };
        if upper_bytes_seen < 4 {
            (flow.src_port, flow.dst_port) = (0, 0);
        }
        if upper_bytes_seen < 14 {
            *tcp_flags = tcp_flags.map(|_| 0);
        }
        self
    }
}

impl From<&Packet> for Fate {
    fn from(packet: &Packet) -> Self {
        Self::Counted { flow: packet.flow, ip_bytes: packet.ip_bytes, tcp_flags: packet.tcp_flags }
    }
}

/// A story being written down: frames in the order of the file, and the time of the next one.
#[derive(Debug)]
pub struct Story {
    frames: Vec<Frame>,
    now_ns: u64,
}

impl Story {
    /// Nothing has happened; the next frame comes at [`START_NS`].
    pub fn begin() -> Self {
        Self { frames: Vec::new(), now_ns: START_NS }
    }

    /// The next frame comes then.
    pub fn at(&mut self, time_ns: u64) -> &mut Self {
        self.now_ns = time_ns;
        self
    }

    /// A frame around a packet; the next one comes [`STEP_NS`] later.
    pub fn send(&mut self, packet: &Packet, wrap: impl Fn(&Packet) -> Vec<u8>) -> &mut Self {
        let frame = Frame::around(self.now_ns, packet, wrap);
        self.push(frame)
    }

    /// Several packets, one after the other.
    pub fn send_all(&mut self, packets: &[Packet], wrap: impl Fn(&Packet) -> Vec<u8>) -> &mut Self {
        for packet in packets {
            self.send(packet, &wrap);
        }
        self
    }

    /// A whole conversation at its own times. The next frame comes after it.
    pub fn converse(&mut self, conversation: &TcpConversation, wrap: impl Fn(&Packet) -> Vec<u8>) -> &mut Self {
        for (time_ns, packet) in conversation.packets() {
            self.at(time_ns).send(&packet, &wrap);
        }
        self
    }

    /// A frame that holds no IP.
    pub fn not_ip(&mut self, what: &'static str, bytes: Vec<u8>) -> &mut Self {
        let frame = Frame::new(self.now_ns, bytes, Fate::NotIp(what));
        self.push(frame)
    }

    /// A damaged frame.
    pub fn refused(&mut self, why: &'static str, bytes: Vec<u8>) -> &mut Self {
        let frame = Frame::new(self.now_ns, bytes, Fate::Refused(why));
        self.push(frame)
    }

    /// A frame as it is, at its own time; the next one comes [`STEP_NS`] later.
    pub fn push(&mut self, frame: Frame) -> &mut Self {
        self.now_ns = frame.time_ns + STEP_NS;
        self.frames.push(frame);
        self
    }

    /// The time of the next frame.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The frames in the order in which they were told.
    pub fn end(self) -> Vec<Frame> {
        self.frames
    }

    /// The frames in the order of their times, as an interface would have seen them.
    pub fn end_in_time_order(mut self) -> Vec<Frame> {
        self.frames.sort_by_key(|frame| frame.time_ns);
        self.frames
    }
}

/// Time from one frame of a story to the next where the story says nothing else.
pub const STEP_NS: u64 = 10 * MILLI;
