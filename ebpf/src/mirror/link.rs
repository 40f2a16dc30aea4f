//! An Ethernet header for copies of packets that have none, as on tun and WireGuard devices.
//!
//! The kernel hands no packet without link layer to a device with one, and a header cannot be put before the packet
//! itself, which goes on as it came. So the clone goes to a device of our own without link layer. At its egress the clone
//! gets its header, and goes on to the tunnel device.

use super::tables;
use crate::headers::{ETHERNET_BYTES, IPV4, IPV6};
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_STOLEN},
    helpers::generated::{bpf_clone_redirect, bpf_skb_change_head},
    programs::TcContext,
};
use flowtap_abi::mirror::{COPY_MAGIC, CopyOrigin, MADE_ADDRESSES};

/// Sends a copy on to its tunnel device. Whoever handed it over is told whether it got there: the answer is what becomes of
/// the clone that came here, which goes nowhere else. Anything that is none of ours is dropped.
#[inline(always)]
pub(crate) fn link(context: &TcContext) -> i32 {
    match linked(context) {
        Some(()) => TC_ACT_STOLEN as i32,
        None => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn linked(context: &TcContext) -> Option<()> {
    let skb = context.skb.skb;
    // SAFETY: the context is valid for as long as the program runs.
    let [magic, origin, number, ..] = unsafe { (*skb).cb };
    // SAFETY: as above.
    let ether_type = unsafe { (*skb).protocol } as u16;
    if magic != COPY_MAGIC || !matches!(ether_type, IPV4 | IPV6) {
        return None;
    }
    let target = tables::target(CopyOrigin(origin).slot(), number)?;
    // SAFETY: the context is valid.
    if unsafe { bpf_skb_change_head(skb, ETHERNET_BYTES as u32, 0) } != 0 {
        return None;
    }
    context.store(0, &MADE_ADDRESSES, 0).ok()?;
    context.store(MADE_ADDRESSES.len(), &ether_type, 0).ok()?;
    // SAFETY: as above.
    let answer = unsafe { bpf_clone_redirect(skb, target.device, 0) };
    // Congestion (2) means that it was taken nevertheless.
    matches!(answer, 0 | 2).then_some(())
}
