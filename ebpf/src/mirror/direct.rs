//! Copies that leave past the IP stack: their outer headers are written here, and they go straight to the device that the
//! route of their target leaves by.
//!
//! Only where the sensor knows that device and the neighbour, and the kernel can put headers before the frame: not where it
//! has a VLAN tag, is encapsulated already, or is a super-packet of something else than TCP.
//!
//! What reaches an IDS must be as on a wire. A small frame whose [`checksum`] is right goes straight out. Any other goes by
//! the segmenter: a bridge of ours that can do nothing for the packets it sends, so the kernel cuts super-packets into wire
//! frames and completes checksums before they get there. At the egress of its only port they come here once more, to
//! [`leave`]. All ways end in the same device on the same processor, so a flow's copies stay in order.
//!
//! The frames are what the kernel's tunnel device would make of them, but for the identification of the outer packet.
//!
//! Authority: RFC 7348 section 5 (VXLAN), RFC 791, RFC 768, RFC 6040 section 4.1 (ECN), RFC 6864 (the identification of a
//! packet that is never fragmented has no meaning).

use super::{
    checksum::{self, ETHER_TYPE, ETHERNET_BYTES, IP, Small, UDP_BYTES, folded},
    tables,
};
use crate::{
    headers::{IPV4, IPV6, TCP},
    maps::atomic_add,
};
use aya_ebpf::{
    bindings::{
        BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{
        bpf_get_prandom_u32, bpf_redirect, bpf_set_hash, bpf_set_hash_invalid, bpf_skb_adjust_room, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use flowtap_abi::{
    choice,
    mirror::{COPY_DIRECT, COPY_MARK, COPY_MARK_MASK, CopySize, DIRECT_HEAD_BYTES, DIRECT_OUTER_BYTES, DirectPath},
};

/// Sends a copy past the IP stack, if it may go that way: what the program shall answer. `None` if nothing was done.
#[inline(always)]
pub(crate) fn send(context: &TcContext, slot: u32, number: u32, flow: u32, size: CopySize) -> Option<i32> {
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
    if size.longest_bytes() > path.frame_bytes_max || has_tag != 0 {
        return None;
    }
    let frame = tables::small()?;
    let class_if_complete = if gso_bytes == 0 { checksum::complete(context, frame, length_bytes) } else { None };
    let (goes_straight, traffic_class) = match class_if_complete {
        Some(traffic_class) => (true, traffic_class),
        None if path.segmenter != 0 => (false, beginning(context, frame, gso_bytes != 0)?),
        None => return None,
    };
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
    // From here on its loss is counted by its mark, and taken from those that were handed on.
    context.skb.set_mark(COPY_MARK | COPY_DIRECT | path.account);
    // SAFETY: a member of the element.
    atomic_add(unsafe { &raw mut (*counts).handed }, u64::from(size.frames()));
    if goes_straight {
        return Some(go_out(context, device));
    }
    // Every frame that comes of it has this hash.
    // SAFETY: the context is valid.
    unsafe { bpf_set_hash(skb, device) };
    // SAFETY: the helper takes numbers alone.
    Some(unsafe { bpf_redirect(path.segmenter, 0) } as i32)
}

/// Sends a wire frame out that the segmenter made; anything else is dropped.
#[inline(always)]
pub(crate) fn leave(context: &TcContext) -> i32 {
    let skb = context.skb.skb;
    // SAFETY: the context is valid for as long as the program runs.
    let mark = unsafe { (*skb).mark };
    if mark & (COPY_MARK_MASK | COPY_DIRECT) != COPY_MARK | COPY_DIRECT {
        return TC_ACT_SHOT;
    }
    // SAFETY: as above.
    go_out(context, unsafe { (*skb).hash })
}

/// Sends a frame out by a device.
#[inline(always)]
fn go_out(context: &TcContext, device: u32) -> i32 {
    let skb = context.skb.skb;
    // As behind the tunnel device: of the queues of the device below that one is chosen which the outer headers say.
    // SAFETY: the context is valid, and lets this word be written.
    unsafe { (*skb).queue_mapping = 0 };
    // SAFETY: the context is valid.
    unsafe { bpf_set_hash_invalid(skb) };
    // SAFETY: the helper takes numbers alone.
    unsafe { bpf_redirect(device, 0) as i32 }
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

/// Reads the beginning of a frame; the traffic class of the packet in it. Of super-packets only those of TCP: the kernel
/// loses where the checksum of others is when it makes room before them (datagrams from a device that completes none). By
/// itself, so that it takes no registers of what goes straight.
#[inline(never)]
fn beginning(context: &TcContext, frame: &mut Small, is_super_packet: bool) -> Option<u8> {
    // SAFETY: the context is valid, and there is room for as many bytes.
    let failed = unsafe { bpf_skb_load_bytes(context.skb.skb.cast(), 0, frame.as_mut_ptr().cast(), BEGINNING_BYTES) };
    if failed != 0 {
        return None;
    }
    let first = u16::from_be(frame[IP]);
    let (traffic_class, protocol) = match frame[ETHER_TYPE] {
        IPV4 => (first as u8, u16::from_be(frame[IP + 4]) as u8),
        IPV6 => ((first >> 4) as u8, (u16::from_be(frame[IP + 3]) >> 8) as u8),
        _ => return None,
    };
    (!is_super_packet || protocol == TCP).then_some(traffic_class)
}

/// The outer headers of a copy, and its own Ethernet header, as on the wire. They are put together in whole words: the
/// helper that copies them from the stack would wait for each smaller part.
struct Head([u64; DIRECT_HEAD_BYTES / 8]);

impl Head {
    /// Of a super-packet each segment gets its own lengths, identification and checksum when it is cut.
    #[inline(always)]
    fn new(path: &DirectPath, frame: &Small, length_bytes: u32, traffic_class: u8, flow: u32) -> Self {
        let ecn = match traffic_class & ECN_MASK {
            ECN_CONGESTED => ECN_CAPABLE,
            ecn => ecn,
        };
        let ecn = u16::from(ecn).to_be();
        let udp_bytes = length_bytes as u16 + UDP_BYTES as u16 + VXLAN_BYTES;
        let ip_bytes = (udp_bytes + IPV4_BYTES).to_be();
        // SAFETY: it takes nothing.
        let identification = if path.identifies == 0 { 0 } else { unsafe { bpf_get_prandom_u32() as u16 } };
        let sum = !folded(path.sum + u32::from(ecn) + u32::from(ip_bytes) + u32::from(identification));
        let mut head = Self(path.head);
        head.put(IP, ecn);
        head.put(IP + 1, ip_bytes);
        head.put(IP + 2, identification);
        head.put(IP + 5, sum);
        head.put(UDP_HEADER, choice::source_port(u64::from(flow)).to_be());
        head.put(UDP_HEADER + 2, udp_bytes.to_be());
        for word in 0..ETHERNET_BYTES as usize / 2 {
            head.put(DIRECT_OUTER_BYTES / 2 + word, frame[word]);
        }
        head
    }

    /// Puts a word of sixteen bits, as on the wire, where there are zeros.
    #[inline(always)]
    fn put(&mut self, at: usize, word: u16) {
        let Self(words) = self;
        words[at / 4] |= (u64::from(u16::from_le(word)) << (at % 4 * 16)).to_le();
    }
}

/// What the kernel is told of the room that it makes: where the outer headers are in it, and that segments stay as they are.
const ROOM: u64 = (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH
    | BPF_F_ADJ_ROOM_FIXED_GSO) as u64
    | (ETHERNET_BYTES as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;

/// An Ethernet header, and an IP header up to where IPv4 has its protocol.
const BEGINNING_BYTES: u32 = ETHERNET_BYTES + 10;
const IPV4_BYTES: u16 = 20;
const VXLAN_BYTES: u16 = 8;

/// A word of a frame, behind an outer IPv4 header.
const UDP_HEADER: usize = IP + 10;

const ECN_MASK: u8 = 3;
const ECN_CONGESTED: u8 = 3;
const ECN_CAPABLE: u8 = 2;
