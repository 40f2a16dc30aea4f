//! Which of a session's targets gets a flow: weighted rendezvous by a hash that both directions share.
//!
//! Each target draws a number from the flow's hash and its own identity; the best draw wins. So a target that goes takes
//! only its own flows with it, and gets them back when it returns. With weights the draw is `-ln(u) / weight`, of which
//! the least wins (Schindelhauer and Schomaker, 2005); the kernel has no logarithm, so one in fixed point stands here.

use super::{facts::Facts, tables};
use crate::headers::{SCTP, TCP, UDP};
use aya_ebpf::{cty::c_void, helpers::generated::bpf_loop};
use flowtap_abi::mirror::{MirrorTarget, TARGETS_OF_SESSION_MAX};

/// The number of the healthy target that gets the flow.
#[inline(always)]
pub(crate) fn choose(slot: u32, targets: u32, flow: u64) -> Option<u32> {
    if targets == 1 {
        return tables::target(slot, 0).filter(|target| target.healthy != 0).map(|_| 0);
    }
    let mut draws = Draws { flow, least: u64::MAX, slot, best: NOBODY };
    let state = (&raw mut draws).cast();
    // The verifier looks at one round of this loop, whatever its length.
    // SAFETY: the function is what the helper calls, and the state outlives the call.
    unsafe { bpf_loop(targets, compare as *const () as *mut c_void, state, 0) };
    (draws.best != NOBODY).then_some(draws.best)
}

/// What the targets drew so far.
#[repr(C)]
struct Draws {
    flow: u64,
    least: u64,
    slot: u32,
    best: u32,
}

unsafe extern "C" fn compare(number: u64, draws: *mut c_void) -> i64 {
    // SAFETY: the caller's state, which nobody else has.
    let draws = unsafe { &mut *draws.cast::<Draws>() };
    let number = number as u32;
    if number >= TARGETS_OF_SESSION_MAX {
        return 1;
    }
    if let Some(target) = tables::target(draws.slot, number)
        && target.healthy != 0
    {
        let drawn = draw(draws.flow, target);
        if drawn < draws.least {
            draws.least = drawn;
            draws.best = number;
        }
    }
    0
}

/// The hash of a flow, the same in both directions. Pieces of a datagram have no ports here, the first included, so that
/// all of them stay together.
#[inline(always)]
pub(crate) fn flow_hash(facts: &Facts) -> u64 {
    let has_ports = facts.is_piece == 0 && matches!(facts.protocol, TCP | UDP | SCTP);
    let (src_port, dst_port) = if has_ports { (facts.src_port, facts.dst_port) } else { (0, 0) };
    // Each end is mixed by itself and the two are added, which does not care for their order.
    let ends = end(facts.src, src_port).wrapping_add(end(facts.dst, dst_port));
    mix(ends ^ u64::from(facts.protocol))
}

#[inline(always)]
fn end(address: [u8; 16], port: u16) -> u64 {
    // SAFETY: both are sixteen bytes, and any bytes are valid for both.
    let [high, low]: [u64; 2] = unsafe { core::mem::transmute(address) };
    mix(mix(high ^ u64::from(port)) ^ low)
}

#[inline(always)]
fn draw(flow: u64, target: &MirrorTarget) -> u64 {
    let minus_log = ZERO_LOG - log2(mix(flow ^ target.identity) | 1);
    // Weights are at most 1000 and the logarithm is below 2^(6 + FRACTION_BITS): no overflow.
    (minus_log + 1) * target.inverse_weight
}

/// The logarithm of a number to base 2, in fixed point: its whole part is the place of the highest bit, and each squaring
/// of what is left brings one bit more.
#[inline(always)]
fn log2(number: u64) -> u64 {
    let whole = 63 - u64::from(number.leading_zeros());
    // 1 <= fraction < 2, as a fixed point number with 31 bits behind the point.
    let mut fraction = (number << (63 - whole)) >> 32;
    let mut log = whole;
    for _ in 0..FRACTION_BITS {
        fraction = (fraction * fraction) >> 31;
        let carry = fraction >> 32;
        fraction >>= carry;
        log = log << 1 | carry;
    }
    log
}

/// SplitMix64's finalizer: every bit of the answer depends on every bit of the number.
#[inline(always)]
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// No target's number.
const NOBODY: u32 = u32::MAX;
const FRACTION_BITS: u32 = 16;
/// The logarithm of 2^64.
const ZERO_LOG: u64 = 64 << FRACTION_BITS;
