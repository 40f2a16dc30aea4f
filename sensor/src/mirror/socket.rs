//! The way to one target: raw sockets, so that every copy has the source port of its flow, and whole frames where the next
//! hop is sure (`frames.rs`).
//!
//! A raw socket (raw(7)) takes UDP datagrams with the header that we write; the kernel writes the IP header, routes, and
//! fragments where it is let. There are two, since that is a property of the socket: one whose packets must not be
//! fragmented and one whose packets may. Neither is ever read; a filter keeps everything out of them.
//!
//! UDP segmentation (`UDP_SEGMENT`, udp(7)) is not for raw sockets. On ordinary ones forty equal copies of one flow in a row
//! took 700 ns each and four in a row 1250, where raw ones took 2800 (1522 bytes, `sendmmsg` of 128, a veth that leaves the
//! cutting to the kernel). It is not worth what it would need: a socket bound to the port of each flow, 16 383 for each
//! target, which other programs of the host could then not have.
//!
//! A third socket, an ordinary one that sends nothing, is connected to the target: the kernel tells through it the source
//! address and the path's MTU, as it learns them.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt as nix_option};
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::Target;
use super::counters::Skip;
use super::encapsulate::Path;
use super::frames::{Frames, Turn};
use super::next_hop::Known;
use super::sender::KnownPath;
use crate::sys::socket_option::no_flow_labels;

/// The way to a target.
pub struct TargetSocket {
    address: SocketAddr,
    /// As the kernel's calls want it.
    destination: SocketAddrAny,
    whole: Socket,
    fragmenting: Socket,
    /// `None` if the kernel can't be asked for the next hop.
    frames: Option<Frames>,
    probe: UdpSocket,
    path: Path,
    path_mtu: usize,
}

/// Why there is no way to a target.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no route, which may change.
    #[error(transparent)]
    NoRoute(io::Error),
    /// The socket can't be had, as for want of the right to open it.
    #[error(transparent)]
    NoSocket(io::Error),
}

impl TargetSocket {
    /// Opens the way. Needs the right to open raw sockets; needs no answer from the target.
    ///
    /// # Errors
    /// When the right is missing, or there is no route.
    pub fn open(target: &Target) -> Result<Self, OpenError> {
        let address = SocketAddr::new(target.address, target.port.get());
        let (probe, path, path_mtu) = probe(address).map_err(OpenError::NoRoute)?;
        let open = |may_fragment| raw_socket(address, path, may_fragment).map_err(OpenError::NoSocket);
        let mut way = Self {
            address,
            destination: SocketAddr::new(target.address, 0).as_any(),
            whole: open(false)?,
            fragmenting: open(true)?,
            frames: Frames::open().ok(),
            probe,
            path,
            path_mtu,
        };
        way.look();
        Ok(way)
    }

    /// From us to the target.
    pub fn path(&self) -> Path {
        self.path
    }

    /// The longest outer packet that gets there whole.
    pub fn path_mtu(&self) -> usize {
        self.path_mtu
    }

    /// Both.
    pub fn known_path(&self) -> KnownPath {
        KnownPath { path: self.path, mtu: self.path_mtu }
    }

    /// Looks again at route, source address and path MTU.
    ///
    /// # Errors
    /// When there is no route now; what was known stays.
    pub fn refresh(&mut self) -> Result<(), OpenError> {
        // A new socket: one that is connected keeps the source address it was given.
        let found = probe(self.address);
        if found.is_err() {
            self.look();
        }
        let (probe, path, path_mtu) = found.map_err(OpenError::NoRoute)?;
        if path != self.path {
            let open = |may_fragment| raw_socket(self.address, path, may_fragment).map_err(OpenError::NoSocket);
            (self.whole, self.fragmenting) = (open(false)?, open(true)?);
        }
        (self.probe, self.path, self.path_mtu) = (probe, path, path_mtu);
        self.look();
        Ok(())
    }

    /// Looks again at the next hop.
    fn look(&mut self) {
        let known = self.known();
        if let Some(frames) = &mut self.frames {
            frames.look(self.address.ip(), &known);
        }
    }

    fn known(&self) -> Known {
        let hops = match self.path {
            Path::V4 { .. } => sockopt::ip_ttl(&self.probe),
            Path::V6 { .. } => sockopt::ipv6_unicast_hops(&self.probe).map(u32::from),
        };
        Known { source: self.path.source(), mtu: self.path_mtu, hops: hops.unwrap_or_default() }
    }

    /// Takes note that the kernel knows of a smaller MTU: some router has said so.
    pub fn learn_mtu(&mut self) {
        if let Ok(mtu) = mtu_of(&self.probe, self.address) {
            self.path_mtu = mtu;
        }
    }

    /// Sends datagrams that begin with their UDP headers, and tells of each what became of it. Those that may be
    /// fragmented are those that must. Once somebody `gives_up`, what would have to wait is skipped.
    pub fn send(
        &mut self,
        datagrams: &[&[u8]],
        may_fragment: bool,
        gives_up: &AtomicBool,
        mut settle: impl FnMut(usize, Result<(), Skip>),
    ) {
        let settled = if may_fragment { 0 } else { self.send_frames(datagrams, gives_up, &mut settle) };
        let left = datagrams.get(settled..).unwrap_or_default();
        self.send_raw(left, may_fragment, gives_up, |at, outcome| settle(settled + at, outcome));
    }

    /// Sends as many as go by frames, with the one before them that proves the way, and returns how many that was. What was
    /// sent by one socket is with the device before the other is used.
    fn send_frames(
        &mut self,
        datagrams: &[&[u8]],
        gives_up: &AtomicBool,
        settle: &mut impl FnMut(usize, Result<(), Skip>),
    ) -> usize {
        let known = self.known();
        let Some(frames) = &mut self.frames else { return 0 };
        frames.look_if_changed(self.address.ip(), &known);
        let mut settled = 0;
        if let (Turn::Prove, Some((first, _))) = (frames.turn(), datagrams.split_first()) {
            let mut is_sent = false;
            self.send_raw(&[first], false, gives_up, |at, outcome| {
                is_sent = outcome.is_ok();
                settle(at, outcome);
            });
            settled = 1;
            self.frames.iter_mut().for_each(|frames| frames.prove(is_sent));
        }
        let (path, left) = (self.path, datagrams.get(settled..).unwrap_or_default());
        match &mut self.frames {
            Some(frames) if frames.turn() == Turn::Frames => {
                settled + frames.send(path, left, |at, outcome| settle(settled + at, outcome))
            }
            _ => settled,
        }
    }

    /// Sends by a raw socket.
    fn send_raw(
        &mut self,
        datagrams: &[&[u8]],
        may_fragment: bool,
        gives_up: &AtomicBool,
        mut settle: impl FnMut(usize, Result<(), Skip>),
    ) {
        let slices: Vec<_> = datagrams.iter().map(|datagram| [IoSlice::new(datagram)]).collect();
        let mut next = 0;
        let mut has_retried = false;
        while next < slices.len() {
            let left = slices.get(next..).unwrap_or_default();
            if gives_up.load(Ordering::Relaxed) {
                return (next..slices.len()).for_each(|at| settle(at, Err(Skip::QueueFull)));
            }
            let socket = if may_fragment { &self.fragmenting } else { &self.whole };
            match send_some(socket, &self.destination, left) {
                Ok(sent) => {
                    (next..next + sent).for_each(|at| settle(at, Ok(())));
                    next += sent;
                    has_retried = false;
                }
                // What an earlier datagram has met is told when the next is sent, which then was not.
                Err(Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::PROTO | Errno::INTR) if !has_retried => {
                    has_retried = true;
                }
                Err(error) => {
                    settle(next, Err(reason(error)));
                    if error == Errno::MSGSIZE {
                        self.learn_mtu();
                    }
                    next += 1;
                    has_retried = false;
                }
            }
        }
    }
}

/// Sends as many as the kernel takes at once, at least one.
fn send_some(socket: &Socket, destination: &SocketAddrAny, datagrams: &[[IoSlice<'_>; 1]]) -> Result<usize, Errno> {
    let mut nothing: Vec<_> = datagrams.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let messages = datagrams.iter().zip(&mut nothing);
    let mut messages: Vec<_> =
        messages.map(|(datagram, nothing)| MMsgHdr::new_with_addr(destination, datagram, nothing)).collect();
    sendmmsg(socket, &mut messages, SendFlags::empty())
}

/// What an error of sending comes to.
pub(super) fn reason(error: Errno) -> Skip {
    match error {
        Errno::MSGSIZE => Skip::TooBig,
        Errno::NOBUFS | Errno::AGAIN | Errno::NOMEM => Skip::NoBuffer,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::CONNREFUSED | Errno::NETDOWN | Errno::HOSTDOWN => {
            Skip::Unreachable
        }
        _ => Skip::Refused,
    }
}

/// A socket that sends UDP datagrams with headers of our own, and takes in nothing.
fn raw_socket(address: SocketAddr, path: Path, may_fragment: bool) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::UDP))?;
    // Before anything can arrive.
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
    prepare(&socket)?;
    // Without it the kernel keeps to itself that a queue behind it was full.
    match path {
        Path::V4 { .. } => {
            setsockopt(&socket, nix_option::Ipv4RecvErr, &true)?;
            let discovery = if may_fragment { Ipv4PathMtuDiscovery::DONT } else { Ipv4PathMtuDiscovery::DO };
            sockopt::set_ip_mtu_discover(&socket, discovery)?;
        }
        Path::V6 { src, .. } => {
            setsockopt(&socket, nix_option::Ipv6RecvErr, &true)?;
            let discovery = if may_fragment { Ipv6PathMtuDiscovery::DONT } else { Ipv6PathMtuDiscovery::DO };
            sockopt::set_ipv6_mtu_discover(&socket, discovery)?;
            // As in frames; flows differ by their source ports.
            no_flow_labels(&socket)?;
            // The checksum that we write is over this address.
            socket.bind(&SocketAddr::new(src.into(), 0).into())?;
        }
    }
    Ok(socket)
}

/// What all sockets have that copies are sent by.
pub(super) fn prepare(socket: &Socket) -> io::Result<()> {
    if let Mark::NotAllowed = marked(socket.set_mark(COPY_MARK))? {
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            tracing::warn!(
                "this kernel lets a run without CAP_NET_ADMIN put no mark on copies (Linux before 5.17): they are told from \
                 other traffic by the addresses and ports of targets alone"
            );
        });
    }
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))
}

/// Whether copies bear our mark.
#[derive(Debug, PartialEq, Eq)]
enum Mark {
    Set,
    NotAllowed,
}

/// What the kernel's answer to setting the mark comes to. Before Linux 5.17 it took CAP_NET_ADMIN, which a run has given
/// up; then copies go without: whoever meets them tells them by the target's address and port as well.
fn marked(answer: io::Result<()>) -> io::Result<Mark> {
    match answer {
        Ok(()) => Ok(Mark::Set),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => Ok(Mark::NotAllowed),
        Err(error) => Err(error),
    }
}

/// Asks the kernel for the way to `address`.
fn probe(address: SocketAddr) -> io::Result<(UdpSocket, Path, usize)> {
    let unspecified = match address.ip() {
        IpAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        IpAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    };
    let probe = UdpSocket::bind(unspecified)?;
    probe.connect(address)?;
    let path = Path::new(probe.local_addr()?.ip(), address.ip()).ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mtu = mtu_of(&probe, address)?;
    Ok((probe, path, mtu))
}

fn mtu_of(probe: &UdpSocket, address: SocketAddr) -> io::Result<usize> {
    let mtu = match address {
        SocketAddr::V4(_) => sockopt::ip_mtu(probe)?,
        SocketAddr::V6(_) => sockopt::ipv6_mtu(probe)?,
    };
    // Loopback has more than a packet's length can say.
    Ok((mtu as usize).min(65_535))
}

/// Tells our copies from everything else on this host; the kernel plane's marks begin with the same twenty bits.
pub const COPY_MARK: u32 = 0xf10a_7fff;

/// `BPF_RET | BPF_K`: keep so much of what comes, here nothing.
const RETURN: u16 = 0x06;
/// A batch, and the next.
const SEND_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// The longest that a full socket could be waited for. Linux tells a raw one at once that it is full (`ENOBUFS`).
const SEND_TIMEOUT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    /// socket(7): `SO_MARK` takes CAP_NET_ADMIN, or since Linux 5.17 CAP_NET_RAW.
    #[test]
    fn a_mark_that_the_kernel_refuses_is_done_without() {
        let refused = |error: Errno| marked(Err(error.into()));
        assert_eq!(marked(Ok(())).unwrap(), Mark::Set);
        assert_eq!(refused(Errno::PERM).unwrap(), Mark::NotAllowed);
        for other in [Errno::ACCESS, Errno::NOPROTOOPT, Errno::INVAL, Errno::BADF] {
            assert_eq!(refused(other).unwrap_err().raw_os_error(), Some(other.raw_os_error()), "a fault");
        }
    }
}
