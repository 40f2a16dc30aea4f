//! What becomes of a copy behind the tap: its tunnel key, at the egress of our own tunnel device, and its length, at the
//! egress of the device that it leaves the host by.
//!
//! Authority: RFC 7348 (VXLAN) and RFC 8926 (GENEVE), whose headers the kernel's own device writes; RFC 791 and RFC 768
//! for the outer lengths.

use super::{direct, tables};
use crate::headers::{Bytes, Frame, Layer, UDP};
use aya_ebpf::{
    bindings::{
        BPF_F_DONT_FRAGMENT, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_tunnel_key,
    },
    helpers::generated::{bpf_set_hash, bpf_skb_change_tail, bpf_skb_set_tunnel_key},
    programs::TcContext,
};
use flowtap_abi::mirror::{COPY_MAGIC, COPY_MARK, COPY_MARK_MASK, CopyOrigin, CopyOutcome, CopySize, MirrorTarget};

/// Gives a copy its tunnel key, unless it can go without ([`direct`]). Anything that is none of ours is dropped: nothing else
/// has a way out of this device.
#[inline(always)]
pub(crate) fn encapsulate(context: &TcContext) -> i32 {
    encapsulated(context).unwrap_or(TC_ACT_SHOT)
}

#[inline(always)]
fn encapsulated(context: &TcContext) -> Option<i32> {
    let skb = context.skb.skb;
    // SAFETY: the context is valid for as long as the program runs.
    let [magic, origin, number, flow, size] = unsafe { (*skb).cb };
    if magic != COPY_MAGIC {
        return None;
    }
    let slot = CopyOrigin(origin).slot();
    if let Some(answer) = direct::send(context, slot, number, flow, CopySize(size)) {
        return Some(answer);
    }
    let session = tables::session(slot)?;
    let target = tables::target(slot, number)?;
    let (mut key, flags) = tunnel_key(session.vni, target);
    // SAFETY: the context is valid, and the key as long as is said.
    let failed = unsafe { bpf_skb_set_tunnel_key(skb, &raw mut key, size_of::<bpf_tunnel_key>() as u32, flags) };
    if failed != 0 {
        return None;
    }
    // The outer source port comes of this hash, and both directions must have one. The kernel's own will not do: a local
    // socket has one that answers do not share, and that of the inner headers stops at an IPv6 flow label.
    // SAFETY: the context is valid.
    unsafe { bpf_set_hash(skb, flow) };
    context.skb.set_mark(COPY_MARK | origin);
    Some(TC_ACT_UNSPEC)
}

#[inline(always)]
fn tunnel_key(vni: u32, target: &MirrorTarget) -> (bpf_tunnel_key, u64) {
    // SAFETY: integers and unions of integers only.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    key.tunnel_id = vni;
    key.tunnel_ttl = TTL;
    if target.version == 4 {
        let [a, b, c, d, ..] = target.address;
        // The one address that the kernel wants in its own byte order.
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be_bytes([a, b, c, d]);
        let dont_fragment = if target.dont_fragment == 0 { 0 } else { BPF_F_DONT_FRAGMENT };
        return (key, u64::from(BPF_F_ZERO_CSUM_TX | dont_fragment));
    }
    // SAFETY: both are sixteen bytes, and any bytes are valid for both.
    key.__bindgen_anon_1.remote_ipv6 = unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(target.address) };
    (key, u64::from(BPF_F_TUNINFO_IPV6))
}

/// Cuts a copy whose session sends no more than so many bytes of each frame, where it leaves the host: only there a
/// super-packet has become wire frames. Nothing else is touched.
#[inline(always)]
pub(crate) fn cut(context: &TcContext, layer: Layer) -> i32 {
    // SAFETY: the context is valid for as long as the program runs.
    let mark = unsafe { (*context.skb.skb).mark };
    if mark & COPY_MARK_MASK != COPY_MARK {
        return TC_ACT_UNSPEC;
    }
    let origin = CopyOrigin(mark & !COPY_MARK_MASK);
    let Some(session) = tables::session(origin.slot()) else { return TC_ACT_UNSPEC };
    if session.length_bytes == 0 {
        return TC_ACT_UNSPEC;
    }
    cut_to(context, layer, origin, session.length_bytes + TUNNEL_HEADERS_BYTES).unwrap_or(TC_ACT_UNSPEC)
}

/// `kept_bytes` is what an outer packet may hold behind its IP header. A packet in pieces is cut as a whole: the piece
/// that reaches beyond becomes the last, and those behind it are dropped. `None` for what is no IPv4 copy.
#[inline(always)]
fn cut_to(context: &TcContext, layer: Layer, origin: CopyOrigin, kept_bytes: u32) -> Option<i32> {
    let start = if let Layer::Ethernet = layer { crate::headers::ETHERNET_BYTES } else { 0 };
    let frame = Frame::new(context);
    let [version_and_length, _]: [u8; 2] = frame.need(start).ok()?;
    let total: u16 = frame.need(start + TOTAL_BYTES_AT).ok()?;
    let fragment: u16 = frame.need(start + FRAGMENT_AT).ok()?;
    let [_, protocol]: [u8; 2] = frame.need(start + TTL_AT).ok()?;
    if version_and_length >> 4 != 4 || protocol != UDP {
        return None;
    }
    let header_bytes = u32::from(version_and_length & 0xf) * 4;
    let offset_bytes = u32::from(u16::from_be(fragment) & OFFSET_MASK) * 8;
    let payload_bytes = u32::from(u16::from_be(total)).checked_sub(header_bytes)?;
    if offset_bytes >= kept_bytes {
        return Some(TC_ACT_SHOT);
    }
    let left_bytes = kept_bytes - offset_bytes;
    let udp = start + header_bytes as usize;
    if offset_bytes == 0 {
        let [_, _, length, _]: [u16; 4] = frame.need(udp).ok()?;
        let length_bytes = u32::from(u16::from_be(length));
        if length_bytes > kept_bytes {
            let cut_bytes = u64::from(length_bytes - kept_bytes);
            tables::count(origin.slot(), origin.direction(), CopyOutcome::Cut, 1, cut_bytes);
            context.store(udp + UDP_LENGTH_AT, &(kept_bytes as u16).to_be(), 0).ok()?;
        }
    }
    if payload_bytes <= left_bytes {
        return Some(TC_ACT_UNSPEC);
    }
    let new_total = ((header_bytes + left_bytes) as u16).to_be();
    let last = fragment & !MORE_FRAGMENTS;
    let checksum_at = start + CHECKSUM_AT;
    context.l3_csum_replace(checksum_at, u64::from(total), u64::from(new_total), 2).ok()?;
    context.l3_csum_replace(checksum_at, u64::from(fragment), u64::from(last), 2).ok()?;
    context.store(start + TOTAL_BYTES_AT, &new_total, 0).ok()?;
    context.store(start + FRAGMENT_AT, &last, 0).ok()?;
    let whole_bytes = start as u32 + header_bytes + left_bytes;
    // SAFETY: the context is valid.
    let failed = unsafe { bpf_skb_change_tail(context.skb.skb, whole_bytes, 0) };
    // A packet whose header says less than it holds would still be right.
    Some(if failed == 0 { TC_ACT_UNSPEC } else { TC_ACT_SHOT })
}

/// Hops that a copy may take.
const TTL: u8 = 64;
/// UDP header and VXLAN or GENEVE header.
const TUNNEL_HEADERS_BYTES: u32 = 8 + 8;

// Offsets in an IPv4 header (RFC 791) and a UDP header (RFC 768).
const TOTAL_BYTES_AT: usize = 2;
const FRAGMENT_AT: usize = 6;
const TTL_AT: usize = 8;
const CHECKSUM_AT: usize = 10;
const UDP_LENGTH_AT: usize = 4;
const OFFSET_MASK: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000_u16.to_be();
