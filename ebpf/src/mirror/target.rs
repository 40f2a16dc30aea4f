//! Which of a session's targets gets a flow: see [`flowtap_abi::choice`], which the sensor uses too.

use super::{facts::Facts, tables};
use crate::headers::{ICMP, ICMPV6, SCTP, TCP, UDP};
use aya_ebpf::{cty::c_void, helpers::generated::bpf_loop};
use flowtap_abi::{choice, mirror::TARGETS_OF_SESSION_MAX};

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
        let drawn = choice::draw(draws.flow, target.identity, target.inverse_weight);
        if drawn < draws.least {
            draws.least = drawn;
            draws.best = number;
        }
    }
    0
}

/// The hash of a flow, the same in both directions.
#[inline(always)]
pub(crate) fn flow_hash(facts: &Facts) -> u64 {
    let ports = match facts.protocol {
        _ if facts.is_piece != 0 => (0, 0),
        TCP | UDP | SCTP => (facts.src_port, facts.dst_port),
        ICMP | ICMPV6 => {
            let [icmp_type, code] = facts.src_port.to_be_bytes();
            choice::icmp_ports(facts.protocol, icmp_type, code)
        }
        _ => (0, 0),
    };
    choice::flow_hash(facts.src, facts.dst, ports, facts.protocol)
}

/// No target's number.
const NOBODY: u32 = u32::MAX;
