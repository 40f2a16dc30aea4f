//! Copies of dropped packets, for sessions that mirror what is rejected.
//!
//! Off unless the sensor asks: then a drop costs one more load. A copy is what can be read in place, from the Ethernet
//! header on if there is one of this interface, else from the IP header; what lies in pages beside the packet is not in
//! it. It goes through a ring buffer of its own, in one of three sizes. Where that is full, or the packet can't be read, the
//! drop is counted by its reason, and waits for nobody.

use super::Dropped;
use crate::{
    headers, maps,
    skb::{DEVICE_TYPE, SKB_DATA, SKB_DEVICE, SKB_HEAD, SKB_MAC_HEADER, SKB_NETWORK_HEADER, field, global, read},
};
use aya_ebpf::{
    cty::c_void,
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel},
};
use core::mem::MaybeUninit;
use flowtap_abi::{DROP_COPY_BYTES, Direction, DropCopy, VerdictKey};

// Offsets in bytes: `struct sk_buff`.
#[unsafe(no_mangle)]
static SKB_TAG: u32 = 0;
#[unsafe(no_mangle)]
static SKB_CHECKSUM_START: u32 = 0;
#[unsafe(no_mangle)]
static SKB_CHECKSUM_OFFSET: u32 = 0;
/// The same in bits: two that say how far the transport checksum is.
#[unsafe(no_mangle)]
static SKB_CHECKSUM_STATE: u32 = 0;

/// What of a dropped packet is known already.
pub(super) struct Known {
    skb: u64,
    interface: u32,
    reason: u32,
    packet_bytes: u32,
    readable_bytes: u32,
    gso_bytes: u16,
    direction: u8,
    counted: u8,
}

impl Known {
    #[inline(always)]
    pub(super) fn new(skb: u64, key: &VerdictKey, dropped: &Dropped) -> Self {
        Self {
            skb,
            interface: key.interface,
            reason: key.reason,
            packet_bytes: dropped.bytes,
            readable_bytes: dropped.readable_bytes,
            gso_bytes: dropped.gso_bytes,
            direction: key.direction,
            counted: key.counted,
        }
    }
}

/// A copy as it stands in the ring buffer.
#[repr(C)]
struct Entry<const BYTES: usize> {
    note: DropCopy,
    bytes: [MaybeUninit<u8>; BYTES],
}

/// Makes a copy. By itself, so that the verifier goes through it once.
#[inline(never)]
pub(super) fn make(known: &Known) {
    let Some((note, start)) = note(known) else { return maps::count_missed_copy(known.reason) };
    let [small, medium, _] = DROP_COPY_BYTES;
    let is_made = if usize::from(note.copied_bytes) <= small {
        put::<{ DROP_COPY_BYTES[0] }>(&note, start)
    } else if usize::from(note.copied_bytes) <= medium {
        put::<{ DROP_COPY_BYTES[1] }>(&note, start)
    } else {
        put::<{ DROP_COPY_BYTES[2] }>(&note, start)
    };
    if !is_made {
        maps::count_missed_copy(known.reason);
    }
}

/// What is told of the packet, and where its bytes begin.
#[inline(always)]
fn note(known: &Known) -> Option<(DropCopy, u64)> {
    let skb = known.skb;
    let head: u64 = field(skb, &SKB_HEAD)?;
    let network_header: u16 = field(skb, &SKB_NETWORK_HEADER)?;
    let link_bytes = link_bytes(known, head, network_header)?;
    let first = u32::from(network_header) - link_bytes;
    let packet_bytes = known.packet_bytes + link_bytes;
    let (checksum_start, checksum_offset) = checksum(skb, first)?;
    // A kernel before 6.1 does not say whether there is a tag in one word.
    let tag = if global(&SKB_TAG) == 0 { 0 } else { field(skb, &SKB_TAG)? };
    let note = DropCopy {
        // SAFETY: the helper has no arguments and no precondition.
        time_ns: unsafe { bpf_ktime_get_ns() },
        interface: known.interface,
        packet_bytes,
        tag,
        copied_bytes: packet_bytes.min(known.readable_bytes + link_bytes).min(COPIED_BYTES_MAX) as u16,
        link_bytes: link_bytes as u16,
        gso_bytes: known.gso_bytes,
        checksum_start,
        checksum_offset,
        direction: known.direction,
        counted: known.counted,
    };
    Some((note, head + u64::from(first)))
}

/// Length of the Ethernet header. What is on its way out has one only once the packet begins with it; until then there
/// may be one left of the interface that it came in by.
#[inline(always)]
fn link_bytes(known: &Known, head: u64, network_header: u16) -> Option<u32> {
    let device: u64 = field(known.skb, &SKB_DEVICE)?;
    if device == 0 {
        return Some(0);
    }
    let mac_header: u16 = field(known.skb, &SKB_MAC_HEADER)?;
    let data: u64 = field(known.skb, &SKB_DATA)?;
    let hardware_type: u16 = field(device, &DEVICE_TYPE)?;
    let is_ethernet = matches!(hardware_type, ARPHRD_ETHER | ARPHRD_LOOPBACK);
    let is_of_this_interface = known.direction == Direction::Ingress as u8 || data == head + u64::from(mac_header);
    let bytes = u32::from(network_header).saturating_sub(u32::from(mac_header));
    let is_header = (headers::ETHERNET_BYTES as u32..=LINK_BYTES_MAX).contains(&bytes);
    Some(if is_ethernet && is_of_this_interface && is_header { bytes } else { 0 })
}

/// Where the transport checksum is still to be computed from, and where it stands from there on; zeros where it is
/// complete.
#[inline(always)]
fn checksum(skb: u64, first: u32) -> Option<(u16, u16)> {
    let state: u8 = read(skb + u64::from(global(&SKB_CHECKSUM_STATE) / u8::BITS))?;
    if state >> (global(&SKB_CHECKSUM_STATE) % u8::BITS) & CHECKSUM_STATE_MASK != CHECKSUM_PARTIAL {
        return Some((0, 0));
    }
    let start: u16 = field(skb, &SKB_CHECKSUM_START)?;
    Some((u32::from(start).saturating_sub(first) as u16, field(skb, &SKB_CHECKSUM_OFFSET)?))
}

/// Puts a copy into the ring buffer; whether there was room, and it could be read.
#[inline(always)]
fn put<const BYTES: usize>(note: &DropCopy, start: u64) -> bool {
    let Some(mut entry) = maps::DROP_COPIES.reserve::<Entry<BYTES>>(0) else { return false };
    let place = entry.as_mut_ptr();
    // SAFETY: a member of the entry.
    let bytes = unsafe { &raw mut (*place).bytes };
    let copied_bytes = u64::from(note.copied_bytes);
    // The caller has chosen the size, but the verifier wants to see it at the call.
    // SAFETY: a reference is valid to read.
    let copied_bytes = unsafe { (&raw const copied_bytes).read_volatile() }.min(BYTES as u64);
    // SAFETY: the helper checks the address, and writes no more than the entry holds.
    let failed = unsafe { bpf_probe_read_kernel(bytes.cast(), copied_bytes as u32, start as *const c_void) };
    if failed != 0 {
        entry.discard(0);
        return false;
    }
    // SAFETY: a member of the entry.
    let head = unsafe { &raw mut (*place).note };
    // SAFETY: the entry is as aligned as the note.
    unsafe { head.write(*note) };
    entry.submit(0);
    true
}

/// The largest size.
const COPIED_BYTES_MAX: u32 = DROP_COPY_BYTES[2] as u32;
/// An Ethernet header with two tags in it.
const LINK_BYTES_MAX: u32 = 14 + 2 * 4;
// Hardware types of linux/if_arp.h.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
// `ip_summed` (linux/skbuff.h).
const CHECKSUM_STATE_MASK: u8 = 3;
const CHECKSUM_PARTIAL: u8 = 3;
