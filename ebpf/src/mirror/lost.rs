//! Copies that the kernel dropped behind [`direct`](super::direct): by a full queue, or a device that is down.
//!
//! Nobody answers a program that redirects a packet. But whoever drops one frees it, and says so at the tracepoint
//! `skb:kfree_skb`, whose first argument is the packet and whose third the reason; the mark tells our copies, and where
//! they are counted. On its way into another network namespace a packet loses its mark, so what becomes of a copy at
//! its target is not told here. Nor is what a card's driver drops without a reason: some free what they have sent in the
//! same way. Should memory end while a super-packet is cut, the frames that were made count besides the whole.

use super::tables;
use crate::{
    maps::atomic_add,
    skb::{
        CONTROL_BUFFER_WORDS, DEVICE_PARENT, SHARED_GSO_SIZE, SKB_CONTROL_BUFFER, SKB_DEVICE, SKB_END, SKB_HEAD,
        SKB_MARK, WATCHED_NAMESPACE, field, global, namespace_of, read,
    },
};
use aya_ebpf::programs::BtfTracePointContext;
use flowtap_abi::mirror::{COPY_DIRECT, COPY_MARK, COPY_MARK_MASK, COPY_SIZE_WORD, CopySize};

/// Number of the reason for what a packet socket has no room for: what it was handed is a clone, and the copy goes on.
#[unsafe(no_mangle)]
static PACKET_SOCKET: u32 = 0;
/// Number of the reason of what is freed without one.
#[unsafe(no_mangle)]
static NO_REASON: u32 = 0;

/// Counts a packet that is freed, if it is such a copy.
#[inline(always)]
pub(crate) fn lost(context: &BtfTracePointContext) -> i32 {
    count(context.arg(0), context.arg(2)).unwrap_or_default();
    0
}

/// `None` means that the packet is none of ours.
#[inline(always)]
fn count(skb: *const u32, reason: u32) -> Option<()> {
    // Nearly every packet that comes here is none of ours, so this is read in place: the verifier knows what the argument is.
    let mark = skb.wrapping_byte_add(global(&SKB_MARK) as usize);
    // SAFETY: the loader has set the offset of that member.
    let mark = unsafe { mark.read() };
    if mark & (COPY_MARK_MASK | COPY_DIRECT) != COPY_MARK | COPY_DIRECT || reason == global(&PACKET_SOCKET) {
        return None;
    }
    let device: u64 = field(skb as u64, &SKB_DEVICE)?;
    let is_a_card = field::<u64>(device, &DEVICE_PARENT)? != 0;
    if namespace_of(device)? != global(&WATCHED_NAMESPACE) || (is_a_card && reason == global(&NO_REASON)) {
        return None;
    }
    let counts = tables::direct_counts(mark & !COPY_MARK_MASK & !COPY_DIRECT)?;
    // SAFETY: a member of the element.
    atomic_add(unsafe { &raw mut (*counts).dropped }, frames(skb as u64)?);
    Some(())
}

/// The wire frames that a copy is: more than one only before it is cut, and then its control block is as it was noted.
#[inline(always)]
fn frames(skb: u64) -> Option<u64> {
    let end: u32 = field(skb, &SKB_END)?;
    let gso_bytes: u16 = field(field::<u64>(skb, &SKB_HEAD)? + u64::from(end), &SHARED_GSO_SIZE)?;
    if gso_bytes == 0 {
        return Some(1);
    }
    let noted = skb + u64::from(global(&SKB_CONTROL_BUFFER)) + u64::from(global(&CONTROL_BUFFER_WORDS));
    let size = CopySize(read(noted + (COPY_SIZE_WORD * size_of::<u32>()) as u64)?);
    Some(u64::from(size.frames()))
}
