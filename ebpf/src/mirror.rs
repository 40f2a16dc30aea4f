//! Copies of chosen packets, made where they pass.
//!
//! The tap asks the rules of its interface ([`decide`]), keeps to the session's rate ([`rate`]), takes a target
//! ([`target`]) and hands a clone to our tunnel device, at whose egress [`encapsulate`] finishes it. Whatever becomes of
//! the clone, the packet itself goes on as it came. What a session did is counted in wire frames: a super-packet is as
//! many as its segments.

mod decide;
mod encapsulate;
mod facts;
mod rate;
mod tables;
mod target;

pub(crate) use encapsulate::{cut, encapsulate};

use crate::headers::{HEADERS_BYTES_MAX, Layer, UDP};
use aya_ebpf::{bindings::TC_ACT_UNSPEC, helpers::generated::bpf_clone_redirect, programs::TcContext};
use facts::{Facts, Place, READ, SHORT};
use flowtap_abi::{
    Direction,
    mirror::{
        COPY_MAGIC, COPY_MARK, COPY_MARK_MASK, CopyOutcome, MirrorSession, RuleList, TARGETS_OF_SESSION_MAX, Unjudged,
        known,
    },
};
use tables::Scratch;

/// Copies a packet if a rule says so. The answer is always that other programs shall decide.
#[inline(always)]
pub(crate) fn observe(context: &TcContext, direction: Direction, layer: Layer) -> i32 {
    // SAFETY: the context is valid for as long as the program runs.
    let mark = unsafe { (*context.skb.skb).mark };
    if mark & COPY_MARK_MASK == COPY_MARK {
        tables::count_unjudged(Unjudged::OwnCopy);
        return TC_ACT_UNSPEC;
    }
    // SAFETY: as above.
    let interface = unsafe { (*context.skb.skb).ifindex };
    let generation = tables::generation();
    let Some(list) = tables::list(interface, generation, direction) else { return TC_ACT_UNSPEC };
    let place = Place { interface, direction, layer };
    let Some(scratch) = tables::scratch() else { return TC_ACT_UNSPEC };
    let mut answer = facts::read(context, place, &mut scratch.facts);
    if answer == SHORT {
        if context.pull_data(context.len().min(HEADERS_BYTES_MAX)).is_err() {
            tables::count_unjudged(Unjudged::NotGathered);
            return TC_ACT_UNSPEC;
        }
        answer = facts::read(context, place, &mut scratch.facts);
    }
    // A frame that is not IP, or is none at all, matches no rule.
    if answer == READ {
        judge(context, list, scratch, generation, direction, layer);
    }
    TC_ACT_UNSPEC
}

/// Asks the rules about a packet that may be copied at all.
#[inline(always)]
fn judge(
    context: &TcContext,
    list: &RuleList,
    scratch: &mut Scratch,
    generation: u32,
    direction: Direction,
    layer: Layer,
) {
    let Scratch { facts, walk } = scratch;
    if is_of_a_copy(list, facts, generation) {
        tables::count_unjudged(Unjudged::OwnCopy);
        return;
    }
    let Some(slot) = decide::session(list, facts, walk, generation) else { return };
    let Some(session) = tables::session(slot) else { return };
    let flow = target::flow_hash(facts);
    let Facts { frames, bytes, longest_bytes, .. } = *facts;
    Copy { context, frames, bytes, longest_bytes, slot, direction, layer }.mirror(session, flow);
}

/// Whether a packet is a copy, an answer to one, or an error about one, which must never be mirrored. Our own copies carry
/// a mark, but only on this host; those of another sensor on their way to it, and what comes back from a target, are told
/// by address and port.
#[inline(always)]
fn is_of_a_copy(list: &RuleList, facts: &Facts, generation: u32) -> bool {
    let is_tunnel = |port: u16| list.tunnel_ports.contains(&port);
    let is_target = |address| tables::known(address, facts.version.into(), generation) & known::TARGET != 0;
    if facts.quoted_port != 0 {
        return is_tunnel(facts.quoted_port) && is_target(facts.quoted);
    }
    facts.protocol == UDP
        && facts.has_ports != 0
        && (is_tunnel(facts.src_port) || is_tunnel(facts.dst_port))
        && (is_target(facts.src) || is_target(facts.dst))
}

/// A packet that a rule takes.
struct Copy<'a> {
    context: &'a TcContext,
    /// Wire frames that it is.
    frames: u64,
    /// Their bytes.
    bytes: u64,
    longest_bytes: u32,
    slot: u32,
    direction: Direction,
    layer: Layer,
}

impl Copy<'_> {
    /// Sends a copy to the target of the flow, or to each.
    #[inline(always)]
    fn mirror(&self, session: &MirrorSession, flow: u64) {
        let (first, end) = if session.replicate != 0 {
            (0, session.targets)
        } else {
            match target::choose(self.slot, session.targets, flow) {
                Some(number) => (number, number + 1),
                None => {
                    self.count(CopyOutcome::Matched);
                    self.count(CopyOutcome::NoTarget);
                    return;
                }
            }
        };
        for step in 0..TARGETS_OF_SESSION_MAX {
            let number = first + step;
            if number >= end {
                break;
            }
            self.count(CopyOutcome::Matched);
            self.count(self.sent(session, number));
        }
    }

    #[inline(always)]
    fn sent(&self, session: &MirrorSession, number: u32) -> CopyOutcome {
        let Some(target) = tables::target(self.slot, number) else { return CopyOutcome::NoTarget };
        if target.healthy == 0 {
            return CopyOutcome::NoTarget;
        }
        let is_too_big = self.longest_bytes > target.frame_bytes_max;
        if is_too_big && session.skip_too_big != 0 {
            return CopyOutcome::TooBig;
        }
        if let Layer::Ip = self.layer {
            return CopyOutcome::NoLinkLayer;
        }
        if !rate::admit(self.slot, session, self.frames, self.bytes) {
            return CopyOutcome::RateLimited;
        }
        let outcome = cloned(self.context, self.slot, number, target.device);
        if is_too_big && matches!(outcome, CopyOutcome::Mirrored) {
            self.count(CopyOutcome::Fragmented);
        }
        outcome
    }

    #[inline(always)]
    fn count(&self, outcome: CopyOutcome) {
        tables::count(self.slot, self.direction, outcome, self.frames, self.bytes);
    }
}

/// Hands a clone to the tunnel device, with a note in its control block that survives the way there. Other programs at
/// this hook find the block as they left it.
#[inline(always)]
fn cloned(context: &TcContext, slot: u32, number: u32, device: u32) -> CopyOutcome {
    let skb = context.skb.skb;
    // SAFETY: the context is valid for as long as the program runs.
    let [first, second, third, ..] = unsafe { (*skb).cb };
    note(context, COPY_MAGIC, slot, number);
    // SAFETY: as above.
    let answer = unsafe { bpf_clone_redirect(skb, device, 0) };
    note(context, first, second, third);
    match answer as i32 {
        // Congestion (2) means that it was taken nevertheless.
        0 | 2 => CopyOutcome::Mirrored,
        MINUS_EINVAL | MINUS_ENETDOWN | MINUS_ENODEV => CopyOutcome::NoDevice,
        MINUS_ENOMEM => CopyOutcome::NoMemory,
        MINUS_ERANGE => CopyOutcome::NoLinkLayer,
        _ => CopyOutcome::Refused,
    }
}

#[inline(always)]
fn note(context: &TcContext, first: u32, second: u32, third: u32) {
    let skb = context.skb.skb;
    // SAFETY: the context is valid for as long as the program runs, and lets its control block be written.
    unsafe { (*skb).cb[0] = first };
    // SAFETY: as above.
    unsafe { (*skb).cb[1] = second };
    // SAFETY: as above.
    unsafe { (*skb).cb[2] = third };
}

// The kernel's error numbers.
const MINUS_ENOMEM: i32 = -12;
const MINUS_ENODEV: i32 = -19;
const MINUS_EINVAL: i32 = -22;
const MINUS_ERANGE: i32 = -34;
const MINUS_ENETDOWN: i32 = -100;
