//! The taps of a mirroring thread: packet sockets at the interfaces that sessions apply to, and what of a frame they tell.

use std::collections::BTreeMap;
use std::io;

use nix::libc;

use super::{Works, index_of};
use crate::capture::{Direction, Frame, LinkType, socket_filter};
use crate::mirror::Executor;
use crate::mirror::inner::{Hints, PartialChecksum};
use crate::mirror::sender::NetworkOutlet;
use crate::sys::interface;
use crate::sys::packet_socket::{Arrival, Inbox, PacketSocket, VirtioNetHeader};
use crate::time::Timestamp;

/// All taps.
pub(super) struct Taps {
    by_name: BTreeMap<String, Tap>,
    inbox: Inbox,
    is_small_told: bool,
    /// Frames that the kernel could not hand over, since this was last asked.
    unreadable: u64,
    is_unreadable_told: bool,
}

/// An interface that is tapped.
struct Tap {
    socket: PacketSocket,
    kernel_index: u32,
    /// Ours.
    interface: u16,
    is_loopback: bool,
}

impl Default for Taps {
    fn default() -> Self {
        Self {
            by_name: BTreeMap::new(),
            inbox: Inbox::new(FRAMES_AT_ONCE),
            is_small_told: false,
            unreadable: 0,
            is_unreadable_told: false,
        }
    }
}

impl Taps {
    /// Opens taps on interfaces that have come, and closes those of interfaces that are gone or wanted no more.
    pub(super) fn scan(&mut self, works: &Works) {
        let Ok(wanted) = interface::present(|name| works.wants(name)) else { return };
        self.by_name.retain(|name, tap| wanted.get(name) == Some(&tap.kernel_index));
        for (name, kernel_index) in wanted {
            if self.by_name.contains_key(&name) || self.by_name.len() >= TAPS_MAX {
                continue;
            }
            match PacketSocket::open(kernel_index, &socket_filter::without_copies(), BUFFER_BYTES) {
                Ok(socket) => {
                    let Some(interface) = index_of(&works.names, &name) else { continue };
                    tracing::info!(interface = name, "mirrored");
                    self.tell_small_buffer(&socket);
                    let is_loopback = name == "lo";
                    self.by_name.insert(name, Tap { socket, kernel_index, interface, is_loopback });
                }
                Err(error) => tracing::debug!(interface = name, %error, "can't be mirrored yet"),
            }
        }
    }

    /// A run without CAP_NET_ADMIN gets no more buffer than the host allows. Told once.
    fn tell_small_buffer(&mut self, socket: &PacketSocket) {
        let bytes = socket.buffer_bytes().unwrap_or(usize::MAX);
        if bytes < BUFFER_BYTES && !self.is_small_told {
            self.is_small_told = true;
            tracing::warn!(
                bytes,
                wanted = BUFFER_BYTES,
                "the buffer of mirrored interfaces is small, and bursts may be lost (`tap-drops`): raise net.core.rmem_max"
            );
        }
    }

    /// Shows the executor what has come, as much as a turn allows.
    pub(super) fn show(&mut self, executor: &mut Executor<NetworkOutlet>, frame_bytes: &mut Vec<u8>) {
        for (name, tap) in &mut self.by_name {
            let unreadable = read(tap, executor, &mut self.inbox, frame_bytes);
            self.unreadable += unreadable;
            if unreadable > 0 && !self.is_unreadable_told {
                self.is_unreadable_told = true;
                tracing::warn!(
                    interface = name,
                    "the kernel doesn't hand over some super-packets, as datagrams before Linux 6.2: they are not mirrored \
                     (`tap-drops`) unless segmentation is switched off (ethtool -K: tx-udp-segmentation, rx-udp-gro-forwarding)"
                );
            }
        }
    }

    /// The name and the kernel's index of each interface that is tapped.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = (&str, u32)> {
        self.by_name.iter().map(|(name, tap)| (name.as_str(), tap.kernel_index))
    }

    /// What can be waited for.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &PacketSocket> {
        self.by_name.values().map(|tap| &tap.socket)
    }

    /// Frames that the kernel lost, or could not hand over, since this was last asked.
    pub(super) fn take_drops(&mut self) -> u64 {
        let lost: u64 = self.by_name.values().filter_map(|tap| tap.socket.take_drops().ok()).sum();
        lost + std::mem::take(&mut self.unreadable)
    }
}

/// Shows what has come by one tap; how many frames the kernel could not hand over.
fn read(tap: &mut Tap, executor: &mut Executor<NetworkOutlet>, inbox: &mut Inbox, frame_bytes: &mut Vec<u8>) -> u64 {
    let mut unreadable = 0;
    for _ in 0..READS_PER_TURN {
        let received = match tap.socket.receive(inbox) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                unreadable += 1;
                continue;
            }
            // What is wrong with an interface shows in the next scan.
            Err(_) => break,
        };
        for (arrival, captured) in (0..received).filter_map(|number| inbox.arrival(number)) {
            if let Some(frame) = frame(tap, &arrival) {
                show(executor, &frame, &arrival, captured, frame_bytes);
            }
        }
    }
    unreadable
}

/// A frame as the executor wants it; loopback shows everything twice, and once is enough.
fn frame(tap: &Tap, arrival: &Arrival) -> Option<Frame> {
    let direction = match (arrival.packet_type, tap.is_loopback) {
        (libc::PACKET_OUTGOING, true) => return None,
        (libc::PACKET_OUTGOING, false) => Direction::Egress,
        _ => Direction::Ingress,
    };
    Some(Frame {
        time: Timestamp(arrival.time_ns),
        offset: 0,
        captured_bytes: arrival.captured_bytes as u32,
        original_bytes: arrival.original_bytes as u32,
        interface: tap.interface,
        link_type: link_type(arrival.hardware_type),
        direction,
    })
}

fn show(
    executor: &mut Executor<NetworkOutlet>,
    frame: &Frame,
    arrival: &Arrival,
    captured: &[u8],
    frame_bytes: &mut Vec<u8>,
) {
    let offload = &arrival.offload;
    match arrival.tag.and_then(|tag| tagged(frame, captured, tag, frame_bytes)) {
        Some(longer) => executor.observe(&longer, frame_bytes, hints(offload, TAG_BYTES)),
        None => executor.observe(frame, captured, hints(offload, 0)),
    }
}

/// Puts a tag back into an Ethernet frame, which then is in `frame_bytes`.
pub(super) fn tagged(frame: &Frame, captured: &[u8], tag: [u8; 4], frame_bytes: &mut Vec<u8>) -> Option<Frame> {
    let addresses = captured.split_at_checked(ETHERNET_ADDRESSES_BYTES);
    let (addresses, rest) = addresses.filter(|_| frame.link_type == LinkType::Ethernet)?;
    frame_bytes.clear();
    frame_bytes.extend_from_slice(addresses);
    frame_bytes.extend_from_slice(&tag);
    frame_bytes.extend_from_slice(rest);
    Some(Frame {
        captured_bytes: frame.captured_bytes + TAG_BYTES as u32,
        original_bytes: frame.original_bytes + TAG_BYTES as u32,
        ..*frame
    })
}

/// What the kernel says was left to the card, in a frame into which a tag of `tag_bytes` was put back. Where it puts the
/// tag in the header's account itself, the checksum is found all the same: see [`inner`](crate::mirror::inner).
fn hints(offload: &VirtioNetHeader, tag_bytes: usize) -> Hints {
    let needs_checksum = offload.flags & VirtioNetHeader::NEEDS_CSUM != 0;
    let start = usize::from(offload.csum_start) + tag_bytes;
    Hints::Kernel {
        checksum: needs_checksum.then_some(PartialChecksum { start, at: start + usize::from(offload.csum_offset) }),
        segment_bytes: (offload.gso_type != 0 && offload.gso_size > 0).then_some(offload.gso_size.into()),
    }
}

/// What a device's frames begin with (linux/if_arp.h).
fn link_type(hardware_type: u16) -> LinkType {
    match hardware_type {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => LinkType::Ethernet,
        libc::ARPHRD_NONE | libc::ARPHRD_TUNNEL | libc::ARPHRD_TUNNEL6 | libc::ARPHRD_SIT | libc::ARPHRD_IPGRE => {
            LinkType::Raw
        }
        _ => LinkType::Unsupported,
    }
}

/// How many interfaces are tapped at once.
pub const TAPS_MAX: usize = 256;
/// The kernel's buffer of a tap, as it is asked for.
pub const BUFFER_BYTES: usize = 32 * 1024 * 1024;
/// How many frames are taken from a tap at once, and how often before it is another's turn.
pub(super) const FRAMES_AT_ONCE: usize = 32;
pub(super) const READS_PER_TURN: usize = 16;
const ETHERNET_ADDRESSES_BYTES: usize = 12;
pub(super) const TAG_BYTES: usize = 4;
