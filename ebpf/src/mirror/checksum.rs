//! Whether a small frame has its checksum, or leaves it to a card.
//!
//! The kernel does not tell a program that. So the checksum is worked out, which for a small frame takes less time than the
//! kernel's way of completing it. One that is right as it stands was not left to anybody.
//!
//! Authority: RFC 1071 (checksums), RFC 9293 section 3.1, RFC 768 and RFC 8200 section 8.1 for what they cover.

use crate::headers::{IPV4, IPV6, TCP, UDP};
use aya_ebpf::{
    helpers::generated::{bpf_csum_diff, bpf_skb_load_bytes},
    programs::TcContext,
};
use core::{hint::black_box, ptr::null_mut};
use flowtap_abi::mirror::SMALL_FRAME_BYTES_MAX;

/// A frame in words of sixteen bits, as on the wire, and room behind it for zeros.
pub(crate) type Small = [u16; SMALL_FRAME_BYTES_MAX as usize / 2 + 16];

/// Reads a frame; its traffic class if it holds TCP or UDP, not in pieces, with a checksum that is right.
#[inline(always)]
pub(super) fn complete(context: &TcContext, frame: &mut Small, length_bytes: u32) -> Option<u8> {
    if !(FRAME_BYTES_MIN..=SMALL_FRAME_BYTES_MAX).contains(&length_bytes) {
        return None;
    }
    let count = shown(length_bytes);
    // SAFETY: the context is valid, and there is room for as many bytes.
    let failed = unsafe { bpf_skb_load_bytes(context.skb.skb.cast(), 0, frame.as_mut_ptr().cast(), count) };
    if failed != 0 {
        return None;
    }
    let first = u16::from_be(frame[IP]);
    match frame[ETHER_TYPE] {
        IPV4 => {
            let is_piece = u16::from_be(frame[IP + 3]) & PIECE_MASK != 0;
            if first >> 8 != 0x45 || is_piece {
                return None;
            }
            let end = ETHERNET_BYTES + u32::from(u16::from_be(frame[IP + 1]));
            let protocol = u16::from_be(frame[IP + 4]) as u8;
            is_right::<{ IP + 6 }, { IP + 10 }>(frame, protocol, end, length_bytes).then_some(first as u8)
        }
        IPV6 => {
            let end = ETHERNET_BYTES + IPV6_BYTES + u32::from(u16::from_be(frame[IP + 2]));
            let protocol = (u16::from_be(frame[IP + 3]) >> 8) as u8;
            is_right::<{ IP + 4 }, { IP + 20 }>(frame, protocol, end, length_bytes).then_some((first >> 4) as u8)
        }
        _ => None,
    }
}

/// Whether what stands from word `START` on, both addresses, and from word `TRANSPORT` on a segment or datagram that ends
/// at byte `end`, has a checksum that is right, or as a datagram none.
#[inline(always)]
fn is_right<const START: usize, const TRANSPORT: usize>(
    frame: &mut Small,
    protocol: u8,
    end: u32,
    length_bytes: u32,
) -> bool {
    let least = match protocol {
        TCP => TCP_BYTES_MIN,
        UDP => UDP_BYTES,
        _ => return false,
    };
    if end > length_bytes || end < 2 * TRANSPORT as u32 + least {
        return false;
    }
    let transport_bytes = end - 2 * TRANSPORT as u32;
    if protocol == UDP {
        if u32::from(u16::from_be(frame[TRANSPORT + 2])) != transport_bytes {
            return false;
        }
        if frame[TRANSPORT + 3] == 0 {
            return true;
        }
    }
    let bytes: *mut u8 = frame.as_mut_ptr().cast();
    // What fills a frame up to its least length is not covered.
    for beyond in 0..3 {
        // SAFETY: behind the longest frame there is still room.
        unsafe { bytes.add(shown(end) as usize + beyond).write(0) };
    }
    let covered = black_box(end - 2 * START as u32 + 3) & COVERED_MASK;
    let pseudo_header = u32::from(u16::from(protocol).to_be()) + u32::from((transport_bytes as u16).to_be());
    // SAFETY: the room ends behind `end`, and behind all that the mask lets through.
    let sum = unsafe { bpf_csum_diff(null_mut(), 0, bytes.add(2 * START).cast(), covered, pseudo_header) };
    sum >= 0 && folded(sum as u32) == u16::MAX
}

/// The same number, of 1 to the longest frame's length, so that the verifier sees these bounds: the compiler, which knows
/// them too, would leave them out.
#[inline(always)]
fn shown(count: u32) -> u32 {
    (black_box(count - 1) & (SMALL_FRAME_BYTES_MAX - 1)) + 1
}

/// RFC 1071: a sum of words as one.
#[inline(always)]
pub(super) fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Whole words of 32 bits of what a checksum covers, for the verifier: addresses and what is behind them are less than a frame.
const COVERED_MASK: u32 = (SMALL_FRAME_BYTES_MAX - 1) & !3;
const _: () = assert!(SMALL_FRAME_BYTES_MAX.is_power_of_two());

pub(super) const ETHERNET_BYTES: u32 = 14;
const IPV6_BYTES: u32 = 40;
const TCP_BYTES_MIN: u32 = 20;
pub(super) const UDP_BYTES: u32 = 8;
/// An Ethernet, an IPv4 and a UDP header; what an IPv6 packet lacks shows in its length.
const FRAME_BYTES_MIN: u32 = 14 + 20 + 8;

// Words of a frame.
pub(super) const ETHER_TYPE: usize = 6;
pub(super) const IP: usize = 7;

/// Offset and "more fragments" of an IPv4 header.
const PIECE_MASK: u16 = 0x3fff;
