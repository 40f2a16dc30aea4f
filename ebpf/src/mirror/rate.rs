//! How much a session may copy: two token buckets, of frames and of bytes.
//!
//! A bucket is kept as the time until which it is spoken for (the generic cell rate algorithm of ITU-T I.371, as a
//! virtual schedule): a copy adds what it costs, and is let through while that time lies less than a full bucket ahead.
//! All processors share a bucket without a lock. Two that ask in the same instant may both be let through, so at most
//! one packet for each processor is over the rate at a time, and it is paid back: the time is added in one instruction.
//! Where a bucket was full and is touched again, one such addition can be overwritten. A super-packet is let through or
//! skipped whole. Time moves in steps of the kernel's coarse clock, some milliseconds, far below what a bucket holds.

use super::tables;
use crate::maps::atomic_add;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use flowtap_abi::mirror::{Buckets, COST_SHIFT, Cost, MirrorSession};

/// Takes the cost of a packet out of its session's buckets; whether it may be copied.
#[inline(always)]
pub(crate) fn admit(slot: u32, session: &MirrorSession, frames: u64, bytes: u64) -> bool {
    if session.packets.ns_shifted == 0 && session.bytes.ns_shifted == 0 {
        return true;
    }
    let Some(buckets) = tables::buckets(slot) else { return false };
    // SAFETY: the helper has no arguments and no precondition.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    let (packets, of_bytes) = parts(buckets);
    if !has_room(packets, &session.packets, now_ns) || !has_room(of_bytes, &session.bytes, now_ns) {
        return false;
    }
    take(packets, &session.packets, frames);
    take(of_bytes, &session.bytes, bytes);
    true
}

#[inline(always)]
fn parts(buckets: *mut Buckets) -> (*mut u64, *mut u64) {
    // SAFETY: a member of the map's element.
    let packets = unsafe { &raw mut (*buckets).packets_until_ns };
    // SAFETY: as above.
    let bytes = unsafe { &raw mut (*buckets).bytes_until_ns };
    (packets, bytes)
}

/// Whether a bucket holds anything. One that has been full for a while is set to full now.
#[inline(always)]
fn has_room(until_ns: *mut u64, cost: &Cost, now_ns: u64) -> bool {
    if cost.ns_shifted == 0 {
        return true;
    }
    // SAFETY: an aligned word of the map's element.
    let spoken_for = unsafe { until_ns.read_volatile() };
    if spoken_for < now_ns {
        // SAFETY: as above.
        unsafe { until_ns.write_volatile(now_ns) };
        return cost.burst_ns != 0;
    }
    spoken_for - now_ns < cost.burst_ns
}

#[inline(always)]
fn take(until_ns: *mut u64, cost: &Cost, units: u64) {
    if cost.ns_shifted != 0 {
        atomic_add(until_ns, (units * cost.ns_shifted) >> COST_SHIFT);
    }
}
