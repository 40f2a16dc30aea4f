//! The fast way to a target: whole frames to the next hop by a packet socket (packet(7)), past the IP stack.
//!
//! A datagram costs half as much as by a raw socket. Frames pass no netfilter hook; traffic control and whoever taps the
//! device see them as they see all others, with our mark. A queue that is full is told as it is to a raw socket; a socket that
//! is full is waited for a little.
//!
//! What the IP stack does for the way is left to it, by a datagram of each second that goes by the raw socket: it keeps the
//! neighbour in the kernel's table, where the next hop is read ([`super::next_hop`]) once a second and when the kernel says
//! that something has changed. If that datagram is refused, say by a firewall, so are all others until the next look. While
//! there is no next hop, all go by the raw socket. Those may then wait in the kernel until the neighbour answers, so that
//! frames begin a second later than the neighbour is known: nothing overtakes.

use std::io::{self, IoSlice};
use std::net::IpAddr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use socket2::Socket;

use super::counters::Skip;
use super::encapsulate::{Path, whole_header};
use super::next_hop::{Known, NextHop, WayOut};
use super::socket::{COPY_MARK, prepare, reason};
use crate::netlink::{Changes, Netlink};
use crate::sys::packet_socket;

/// The way by frames, as far as there is one.
pub(super) struct Frames {
    netlink: Netlink,
    changes: Changes,
    way: Option<FrameWay>,
    /// Datagrams may wait in the kernel for the neighbour, until so many more looks in their time have found it.
    waits: u8,
}

struct FrameWay {
    hop: NextHop,
    socket: Socket,
    /// Whether the IP stack has sent a datagram since the last look.
    is_proven: bool,
}

/// What the next datagrams go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// All by the raw socket.
    Raw,
    /// One by the raw socket, and then it is asked again.
    Prove,
    /// As frames.
    Frames,
}

impl Frames {
    /// No way yet.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open()?, changes: Changes::open()?, way: None, waits: 0 })
    }

    /// Looks at the next hop, as is done once a second.
    pub(super) fn look(&mut self, address: IpAddr, known: &Known) {
        self.waits = self.waits.saturating_sub(1);
        self.find(address, known);
    }

    /// Looks again if the kernel has told of a change.
    pub(super) fn look_if_changed(&mut self, address: IpAddr, known: &Known) {
        if self.changes.any() {
            self.find(address, known);
        }
    }

    fn find(&mut self, address: IpAddr, known: &Known) {
        // What can't be told is not sure.
        let way = WayOut::find(&mut self.netlink, address, COPY_MARK);
        let hop = way.and_then(|way| way.next_hop(&mut self.netlink, Some(known))).ok().flatten();
        let before = self.way.take();
        let Some(hop) = hop else {
            self.waits = LOOKS_AFTER_WAITING;
            return;
        };
        if self.waits > 0 {
            return;
        }
        let kept = before.filter(|way| way.hop.device == hop.device).map(|way| way.socket);
        // Without the right to open one, the raw sockets do.
        let Some(socket) = kept.or_else(|| packet_socket(hop.device).ok()) else { return };
        self.way = Some(FrameWay { hop, socket, is_proven: false });
    }

    /// What the next datagrams go by.
    pub(super) fn turn(&self) -> Turn {
        match &self.way {
            None => Turn::Raw,
            Some(way) if !way.is_proven => Turn::Prove,
            Some(_) => Turn::Frames,
        }
    }

    /// Takes note of whether the IP stack has sent a datagram.
    pub(super) fn prove(&mut self, is_sent: bool) {
        match &mut self.way {
            Some(way) if is_sent => way.is_proven = true,
            _ => self.way = None,
        }
    }

    /// Sends datagrams as frames, tells what became of them, and returns how many that was. Where it is fewer than all,
    /// frames can't be sent, and there is no way until the next look.
    pub(super) fn send(
        &mut self,
        path: Path,
        datagrams: &[&[u8]],
        mut settle: impl FnMut(usize, Result<(), Skip>),
    ) -> usize {
        let Some(way) = &self.way else { return 0 };
        let headers: Vec<_> =
            datagrams.iter().map(|datagram| FrameHeader::new(&way.hop, path, datagram.len())).collect();
        let parts = headers.iter().zip(datagrams);
        let frames: Vec<_> =
            parts.map(|(header, datagram)| [IoSlice::new(header.as_slice()), IoSlice::new(datagram)]).collect();
        let (mut next, mut waits) = (0, WAITS_MAX);
        while let Some(left) = frames.get(next..).filter(|left| !left.is_empty()) {
            match send_some(&way.socket, left) {
                Ok(sent) => {
                    (next..next + sent).for_each(|at| settle(at, Ok(())));
                    next += sent;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if waits > 0 => waits = if has_room(&way.socket) { waits - 1 } else { 0 },
                Err(error) => match reason(error) {
                    Skip::NoBuffer => {
                        settle(next, Err(Skip::NoBuffer));
                        next += 1;
                    }
                    _ => {
                        self.way = None;
                        break;
                    }
                },
            }
        }
        next
    }
}

/// An Ethernet header and an IP header.
struct FrameHeader {
    bytes: [u8; ETHERNET_ADDRESSES_BYTES + ETHERTYPE_AND_IP_BYTES_MAX],
    length: usize,
}

impl FrameHeader {
    fn new(hop: &NextHop, path: Path, datagram_bytes: usize) -> Self {
        let behind = whole_header(path, datagram_bytes);
        let mut header = Self { bytes: [0; _], length: 0 };
        for part in [&hop.to, &hop.from, behind.as_slice()] {
            if let Some(free) = header.bytes.get_mut(header.length..header.length + part.len()) {
                free.copy_from_slice(part);
                header.length += part.len();
            }
        }
        header
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Sends as many as the kernel takes at once, at least one.
fn send_some(socket: &Socket, frames: &[[IoSlice<'_>; 2]]) -> Result<usize, Errno> {
    let mut nothing: Vec<_> = frames.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let messages = frames.iter().zip(&mut nothing);
    let mut messages: Vec<_> = messages.map(|(frame, nothing)| MMsgHdr::new(frame, nothing)).collect();
    sendmmsg(socket, &mut messages, SendFlags::DONTWAIT)
}

/// Waits until the device has taken half of what the socket holds, and tells whether it has.
fn has_room(socket: &Socket) -> bool {
    let mut waiting = [PollFd::new(socket, PollFlags::OUT)];
    poll(&mut waiting, Some(&WAIT)).is_ok_and(|ready| ready > 0)
}

fn packet_socket(device: u32) -> io::Result<Socket> {
    let socket = packet_socket::outgoing(device)?;
    prepare(&socket)?;
    Ok(socket)
}

/// A device that sends a gigabit a second takes so much in two milliseconds; one that stands still must not hold up the end
/// of a run, with a full queue of batches.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// A batch is not much more than a socket holds.
const WAITS_MAX: u32 = 8;
/// The first may come right after the neighbour.
const LOOKS_AFTER_WAITING: u8 = 2;
const ETHERNET_ADDRESSES_BYTES: usize = 12;
/// With IPv6.
const ETHERTYPE_AND_IP_BYTES_MAX: usize = 42;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const HOP: NextHop = NextHop { device: 1, from: [2, 0, 0, 0, 0, 1], to: [2, 0, 0, 0, 0, 2] };

    /// The IPv4 header is that of the specification's M1: see `encapsulate`.
    #[test]
    fn a_frame_begins_with_the_neighbour() {
        let v4 = Path::V4 { src: Ipv4Addr::new(192, 0, 2, 1), dst: Ipv4Addr::new(10, 83, 0, 2) };
        #[rustfmt::skip]
        let expected = [
            2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00,
            0x45, 0x00, 0x00, 0x32, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x6e, 0x65, 192, 0, 2, 1, 10, 83, 0, 2,
        ];
        assert_eq!(FrameHeader::new(&HOP, v4, 30).as_slice(), expected);
        let v6 = Path::V6 { src: Ipv6Addr::LOCALHOST, dst: Ipv6Addr::LOCALHOST };
        let header = FrameHeader::new(&HOP, v6, 30);
        assert_eq!(header.as_slice()[12..20], [0x86, 0xdd, 0x60, 0, 0, 0, 0, 30]);
        assert_eq!(header.as_slice().len(), 14 + 40);
    }
}
