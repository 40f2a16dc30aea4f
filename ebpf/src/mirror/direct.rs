//! Small copies that leave past the IP stack: their outer headers are written here, and they go straight to the device that
//! the route of their target leaves by.
//!
//! Only where all is sure: the sensor knows that device and the neighbour, the frame is short, no super-packet and no
//! fragment, has no VLAN tag, and carries TCP or UDP whose checksum is right as it stands. A checksum that was left to a
//! card is not, so such frames go by the tunnel device, which completes them. Both ways end in the same device on the same
//! processor, so a flow's copies stay in order.
//!
//! The frames are what the kernel's tunnel device would make of them, but for the identification of the outer packet.
//!
//! Authority: RFC 7348 section 5 (VXLAN), RFC 791, RFC 768, RFC 1071 (checksums), RFC 6040 section 4.1 (ECN), RFC 6864 (the
//! identification of a packet that is never fragmented has no meaning).

use super::tables;
use crate::{
    headers::{IPV4, IPV6, TCP, UDP},
    maps::atomic_add,
};
use aya_ebpf::{
    bindings::{
        BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{
        bpf_csum_diff, bpf_get_prandom_u32, bpf_redirect, bpf_set_hash_invalid, bpf_skb_adjust_room,
        bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use core::{hint::black_box, mem::transmute, ptr::null_mut};
use flowtap_abi::{
    choice,
    mirror::{COPY_DIRECT, COPY_MARK, DIRECT_FRAME_BYTES_MAX, DIRECT_HEAD_BYTES, DIRECT_OUTER_BYTES, DirectPath},
};

/// A frame in words of sixteen bits, as on the wire, and room behind it for zeros.
pub(crate) type Small = [u16; DIRECT_FRAME_BYTES_MAX as usize / 2 + 16];

/// Sends a copy past the IP stack, if it may go that way: what the program shall answer. `None` if nothing was done.
#[inline(always)]
pub(crate) fn send(context: &TcContext, slot: u32, number: u32, flow: u32) -> Option<i32> {
    let skb = context.skb.skb;
    let path = tables::direct(slot, number)?;
    let device = usable(path)?;
    // SAFETY: the element exists for as long as the program is loaded, and is changed only while it has no device.
    let path = unsafe { &*path };
    let length_bytes = context.len();
    // SAFETY: the context is valid for as long as the program runs.
    let gso_bytes = unsafe { (*skb).gso_size };
    // SAFETY: as above.
    let has_tag = unsafe { (*skb).vlan_present };
    if length_bytes > path.frame_bytes_max || gso_bytes != 0 || has_tag != 0 {
        return None;
    }
    let frame = tables::small()?;
    let traffic_class = complete(context, frame, length_bytes)?;
    let counts = tables::direct_counts(path.account)?;
    let head = Head::new(path, frame, length_bytes, traffic_class, flow);

    // The frame's own header moves to the front; the outer ones come over it, and it once more behind them.
    // SAFETY: the context is valid.
    let refused = unsafe { bpf_skb_adjust_room(skb, DIRECT_OUTER_BYTES as i32, BPF_ADJ_ROOM_MAC, ROOM) };
    if refused != 0 {
        return None;
    }
    let (bytes, count) = ((&raw const head).cast(), DIRECT_HEAD_BYTES as u32);
    // SAFETY: the context is valid, and the bytes are as many as is said.
    let failed = unsafe { bpf_skb_store_bytes(skb, 0, bytes, count, u64::from(BPF_F_RECOMPUTE_CSUM)) };
    if failed != 0 {
        return Some(TC_ACT_SHOT);
    }
    // As behind the tunnel device: of the queues of the device below that one is chosen which the outer headers say.
    // SAFETY: the context is valid, and lets this word be written.
    unsafe { (*skb).queue_mapping = 0 };
    // SAFETY: the context is valid.
    unsafe { bpf_set_hash_invalid(skb) };
    // From here on its loss is counted by its mark, and taken from those that were handed on.
    context.skb.set_mark(COPY_MARK | COPY_DIRECT | path.account);
    // SAFETY: a member of the element.
    atomic_add(unsafe { &raw mut (*counts).handed }, 1);
    // SAFETY: the helper takes numbers alone.
    Some(unsafe { bpf_redirect(device, 0) } as i32)
}

/// The device, if this copy shall go there.
#[inline(always)]
fn usable(path: *mut DirectPath) -> Option<u32> {
    // SAFETY: a member of the element.
    let device = unsafe { &raw const (*path).device };
    // SAFETY: it is one aligned word.
    let device = unsafe { device.read_volatile() };
    if device == 0 {
        return None;
    }
    // SAFETY: a member of the element.
    let ask = unsafe { &raw mut (*path).ask };
    // SAFETY: it is one aligned word.
    if unsafe { ask.read_volatile() } != 0 {
        // SAFETY: as above. Of two processors at the same time both may ask.
        unsafe { ask.write_volatile(0) };
        return None;
    }
    Some(device)
}

/// Reads a frame; its traffic class if it holds TCP or UDP, not in pieces, with a checksum that is right.
#[inline(always)]
fn complete(context: &TcContext, frame: &mut Small, length_bytes: u32) -> Option<u8> {
    if !(FRAME_BYTES_MIN..=DIRECT_FRAME_BYTES_MAX).contains(&length_bytes) {
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

/// The outer headers of a copy, and its own Ethernet header, in words as on the wire.
#[repr(C, align(8))]
struct Head([u16; DIRECT_HEAD_BYTES / 2]);

impl Head {
    #[inline(always)]
    fn new(path: &DirectPath, frame: &Small, length_bytes: u32, traffic_class: u8, flow: u32) -> Self {
        // SAFETY: both are as many bytes, and any bytes are valid for both.
        let Self(mut words) = unsafe { transmute::<[u64; DIRECT_HEAD_BYTES / 8], Self>(path.head) };
        for word in 0..ETHERNET_BYTES as usize / 2 {
            words[DIRECT_OUTER_BYTES / 2 + word] = frame[word];
        }
        let ecn = match traffic_class & ECN_MASK {
            ECN_CONGESTED => ECN_CAPABLE,
            ecn => ecn,
        };
        let ecn = u16::from(ecn).to_be();
        let udp_bytes = length_bytes as u16 + UDP_BYTES as u16 + VXLAN_BYTES;
        let ip_bytes = (udp_bytes + IPV4_BYTES).to_be();
        // SAFETY: it takes nothing.
        let identification = if path.identifies == 0 { 0 } else { unsafe { bpf_get_prandom_u32() as u16 } };
        words[IP] |= ecn;
        words[IP + 1] = ip_bytes;
        words[IP + 2] = identification;
        words[IP + 5] = !folded(path.sum + u32::from(ecn) + u32::from(ip_bytes) + u32::from(identification));
        words[UDP_HEADER] = choice::source_port(u64::from(flow)).to_be();
        words[UDP_HEADER + 2] = udp_bytes.to_be();
        Self(words)
    }
}

/// The same number, of 1 to the longest frame's length, so that the verifier sees these bounds: the compiler, which knows
/// them too, would leave them out.
#[inline(always)]
fn shown(count: u32) -> u32 {
    (black_box(count - 1) & (DIRECT_FRAME_BYTES_MAX - 1)) + 1
}

/// RFC 1071: a sum of words as one.
#[inline(always)]
fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Whole words of 32 bits of what a checksum covers, for the verifier: addresses and what is behind them are less than a frame.
const COVERED_MASK: u32 = (DIRECT_FRAME_BYTES_MAX - 1) & !3;
const _: () = assert!(DIRECT_FRAME_BYTES_MAX.is_power_of_two());

/// What the kernel is told of the room that it makes: where the outer headers are in it.
const ROOM: u64 = (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2_ETH) as u64
    | (ETHERNET_BYTES as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;

const ETHERNET_BYTES: u32 = 14;
const IPV4_BYTES: u16 = 20;
const IPV6_BYTES: u32 = 40;
const TCP_BYTES_MIN: u32 = 20;
const UDP_BYTES: u32 = 8;
const VXLAN_BYTES: u16 = 8;
/// An Ethernet, an IPv4 and a UDP header; what an IPv6 packet lacks shows in its length.
const FRAME_BYTES_MIN: u32 = 14 + 20 + 8;

// Words of a frame.
const ETHER_TYPE: usize = 6;
const IP: usize = 7;
/// Behind an outer IPv4 header.
const UDP_HEADER: usize = IP + 10;

/// Offset and "more fragments" of an IPv4 header.
const PIECE_MASK: u16 = 0x3fff;
const ECN_MASK: u8 = 3;
const ECN_CONGESTED: u8 = 3;
const ECN_CAPABLE: u8 = 2;
