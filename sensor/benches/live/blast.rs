//! Frames of 64 bytes at full speed: IPv4 UDP, one of each flow in turn, by a packet socket and `sendmmsg`.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockType, bind, socket};
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

/// Sends on one device.
pub(crate) struct Blaster {
    socket: OwnedFd,
    frames: Vec<Vec<u8>>,
    /// The number of the next packet.
    next: u32,
    flows: u32,
}

impl Blaster {
    /// Opens a socket on a device of the calling thread's namespace. `flows` is a power of two, so that each flow is met
    /// once before one comes again. Frames go to `to`.
    ///
    /// # Errors
    ///
    /// When the right is missing, or the device.
    pub(crate) fn new(device: &str, to: [u8; 6], flows: u32) -> Result<Self> {
        let mut addresses = getifaddrs()?.filter(|found| found.interface_name == device);
        let address: LinkAddr = addresses
            .find_map(|found| found.address.and_then(|address| address.as_link_addr().copied()))
            .with_context(|| format!("no device {device}"))?;
        // Of no protocol: nothing is received.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Self { socket, frames: vec![frame(to, FRAME_BYTES); BATCH], next: 0, flows })
    }

    /// Sends packets until that many are sent, or `is_enough` after a batch; answers how many were.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn send(&mut self, packets_max: u64, mut is_enough: impl FnMut() -> bool) -> Result<u64> {
        let mut sent = 0;
        while sent < packets_max && !is_enough() {
            let count = (BATCH as u64).min(packets_max - sent) as usize;
            for frame in &mut self.frames[..count] {
                // Not in the order of their numbers, which a processor would foresee.
                set_flow(frame, self.next.wrapping_mul(ORDER) % self.flows);
                self.next = self.next.wrapping_add(1);
            }
            self.send_batch(count)?;
            sent += count as u64;
        }
        Ok(sent)
    }

    fn send_batch(&self, count: usize) -> Result<()> {
        let slices: Vec<[IoSlice<'_>; 1]> = self.frames[..count].iter().map(|frame| [IoSlice::new(frame)]).collect();
        let mut notes: Vec<SendAncillaryBuffer<'_, '_, '_>> = slices.iter().map(|_| Default::default()).collect();
        let messages = slices.iter().zip(&mut notes).map(|(slice, note)| MMsgHdr::new(slice, note));
        let mut messages: Vec<MMsgHdr<'_>> = messages.collect();
        let mut begin = 0;
        while begin < count {
            match sendmmsg(&self.socket, &mut messages[begin..], SendFlags::empty()) {
                Ok(sent) => begin += sent,
                // The way is full for a moment.
                Err(Errno::NOBUFS | Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A datagram from 10.0.0.0 to 192.0.2.1 in a frame of so many bytes; checksums follow with the flow.
pub(crate) fn frame(to: [u8; 6], frame_bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; frame_bytes];
    frame[..6].copy_from_slice(&to);
    frame[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 8, 0]);
    let [ip, udp] = [14, 34].map(|headers| ((frame_bytes - headers) as u16).to_be_bytes());
    let header = [0x45, 0, ip[0], ip[1], 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 0, 192, 0, 2, 1];
    frame[14..34].copy_from_slice(&header);
    frame[34..42].copy_from_slice(&[0x9c, 0x40, 0x13, 0x88, udp[0], udp[1], 0, 0]);
    frame
}

/// The flow's number is the rest of its source address; both checksums (RFC 1071, RFC 768) are right for it.
pub(crate) fn set_flow(frame: &mut [u8], flow: u32) {
    let [_, rest @ ..] = flow.to_be_bytes();
    frame[27..30].copy_from_slice(&rest);
    frame[24..26].copy_from_slice(&[0; 2]);
    let of_header = !folded(sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&of_header.to_be_bytes());
    frame[40..42].copy_from_slice(&[0; 2]);
    // Addresses, protocol and length stand before the datagram; its payload is zero.
    let of_datagram = !folded(sum(&frame[26..42]) + 17 + (frame.len() as u32 - 34));
    frame[40..42].copy_from_slice(&if of_datagram == 0 { 0xffff } else { of_datagram }.to_be_bytes());
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.as_chunks().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum()
}

fn folded(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// The least frame of Ethernet, with the four bytes that a card adds.
const FRAME_BYTES: usize = 64;
/// Frames that go to the kernel at once.
const BATCH: usize = 64;
/// Odd, so that flows of a power of two are each met once.
const ORDER: u32 = 0x9e37_79b1;
