//! Copies of chosen packets, made where they pass.
//!
//! The tap asks the rules of its interface ([`decide`]), keeps to the session's rate ([`rate`]), takes a target
//! ([`target`]) and hands a clone to our tunnel device, at whose egress [`encapsulate`] finishes it; on the way there
//! [`link`] gives one without Ethernet header its own. Where the way is known it goes past the IP stack ([`direct`]), and
//! where it is lost then, [`lost`] counts it. Copies themselves are held back ([`guard`]). Whatever becomes of the clone,
//! the packet itself goes on as it came. What a session did is counted in wire frames: a super-packet is as many as its
//! segments.

mod checksum;
mod decide;
mod direct;
mod encapsulate;
mod facts;
mod guard;
mod held;
mod link;
mod lost;
mod rate;
mod tables;
mod target;

pub(crate) use direct::leave;
pub(crate) use encapsulate::{cut, encapsulate};
pub(crate) use held::held;
pub(crate) use link::link;
pub(crate) use lost::lost;

use crate::headers::{HEADERS_BYTES_MAX, Layer};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    cty::c_void,
    helpers::generated::{bpf_clone_redirect, bpf_loop},
    programs::TcContext,
};
use facts::{Facts, Place, READ, SHORT};
use flowtap_abi::{
    Direction, choice,
    mirror::{
        COPY_MAGIC, COPY_MARK, COPY_MARK_MASK, CopyOrigin, CopyOutcome, CopySize, RuleList, TARGETS_OF_SESSION_MAX,
        Unjudged,
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
    let mut reading = Reading { skb: context.skb.skb, place };
    let state = (&raw mut reading).cast();
    // A loop of the kernel's, so that the verifier goes through the pass once for both attempts.
    // SAFETY: the function is what the helper calls, and the state outlives the call.
    unsafe { bpf_loop(ATTEMPTS, attempt as *const () as *mut c_void, state, 0) };
    let Some(scratch) = tables::scratch() else { return TC_ACT_UNSPEC };
    let answer = scratch.answer;
    // A frame that is not IP, or is none at all, matches no rule.
    if answer == READ {
        judge(context, list, scratch, generation, direction, layer);
    }
    TC_ACT_UNSPEC
}

/// What is read, and where it passes.
#[repr(C)]
struct Reading {
    skb: *mut __sk_buff,
    place: Place,
}

/// Reads a packet: as it lies there, and in a second round after the kernel was asked to gather its headers.
unsafe extern "C" fn attempt(round: u64, reading: *mut c_void) -> i64 {
    // SAFETY: the caller's state, which nobody else has.
    let reading = unsafe { &*reading.cast::<Reading>() };
    let context = TcContext::new(reading.skb);
    let Some(scratch) = tables::scratch() else { return STOP };
    if round != 0 && context.pull_data(context.len().min(HEADERS_BYTES_MAX)).is_err() {
        tables::count_unjudged(Unjudged::NotGathered);
        return STOP;
    }
    scratch.answer = facts::read(&context, reading.place, &mut scratch.facts);
    if scratch.answer == SHORT { GO_ON } else { STOP }
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
    let Scratch { facts, walk, copy, .. } = scratch;
    if guard::holds_back(context, list, facts, generation) {
        tables::count_unjudged(Unjudged::OwnCopy);
        return;
    }
    let Some(slot) = decide::session(list, facts, walk, generation) else { return };
    let Some(session) = tables::session(slot) else { return };
    *copy = Copy {
        frames: facts.frames,
        bytes: facts.bytes,
        flow: target::flow_hash(facts),
        longest_bytes: facts.longest_bytes,
        slot,
        first: 0,
        direction: direction as u32,
        is_bare: u32::from(matches!(layer, Layer::Ip)),
    };
    let mut targets = session.targets;
    if session.replicate == 0 {
        let Some(number) = target::choose(slot, targets, copy.flow) else {
            copy.count(CopyOutcome::Matched);
            copy.count(CopyOutcome::NoTarget);
            return;
        };
        copy.first = number;
        targets = 1;
    }
    let mut skb = context.skb.skb;
    let state = (&raw mut skb).cast();
    // The verifier looks at one round of this loop, whatever its length.
    // SAFETY: the function is what the helper calls, and the state outlives the call.
    unsafe { bpf_loop(targets, send as *const () as *mut c_void, state, 0) };
}

/// Sends a packet's copy to one target: the first that is meant, and as many behind it as the loop has rounds.
unsafe extern "C" fn send(round: u64, skb: *mut c_void) -> i64 {
    // SAFETY: the pointer that stands on the caller's stack.
    let skb = unsafe { *skb.cast::<*mut __sk_buff>() };
    let Some(Scratch { copy, .. }) = tables::scratch() else { return STOP };
    let number = copy.first + round as u32;
    if number >= TARGETS_OF_SESSION_MAX {
        return STOP;
    }
    copy.count(CopyOutcome::Matched);
    let outcome = copy.sent(skb, number);
    copy.count(outcome);
    GO_ON
}

/// The copy of a packet that a rule takes.
#[repr(C)]
pub(crate) struct Copy {
    /// Wire frames that it is.
    frames: u64,
    /// Their bytes.
    bytes: u64,
    /// The hash of the flow, the same in both directions.
    flow: u64,
    longest_bytes: u32,
    slot: u32,
    /// Number of the first target.
    first: u32,
    /// A [`Direction`].
    direction: u32,
    /// Whether it has no link layer.
    is_bare: u32,
}

impl Copy {
    #[inline(always)]
    fn sent(&self, skb: *mut __sk_buff, number: u32) -> CopyOutcome {
        let Some(session) = tables::session(self.slot) else { return CopyOutcome::NoTarget };
        let Some(target) = tables::target(self.slot, number) else { return CopyOutcome::NoTarget };
        if target.healthy == 0 {
            return CopyOutcome::NoTarget;
        }
        let is_too_big = self.longest_bytes > target.frame_bytes_max;
        if is_too_big && session.skip_too_big != 0 {
            return CopyOutcome::TooBig;
        }
        if target.device == 0 {
            return CopyOutcome::NoDevice;
        }
        let device = if self.is_bare == 0 { Some(target.device) } else { tables::link_device() };
        let Some(device) = device else { return CopyOutcome::NoLinkLayer };
        if !rate::admit(self.slot, session, self.frames, self.bytes) {
            return CopyOutcome::RateLimited;
        }
        let CopyOrigin(origin) = CopyOrigin::new(self.slot, self.direction);
        let CopySize(size) = CopySize::new(self.frames, self.longest_bytes);
        let outcome = cloned(skb, [COPY_MAGIC, origin, number, choice::port_hash(self.flow), size], device);
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
fn cloned(skb: *mut __sk_buff, noted: [u32; 5], device: u32) -> CopyOutcome {
    // SAFETY: the context is valid for as long as the program runs.
    let before = unsafe { (*skb).cb };
    note(skb, noted);
    // SAFETY: as above.
    let answer = unsafe { bpf_clone_redirect(skb, device, 0) };
    note(skb, before);
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
fn note(skb: *mut __sk_buff, [first, second, third, fourth, fifth]: [u32; 5]) {
    // SAFETY: the context is valid for as long as the program runs, and lets its control block be written.
    unsafe { (*skb).cb[0] = first };
    // SAFETY: as above.
    unsafe { (*skb).cb[1] = second };
    // SAFETY: as above.
    unsafe { (*skb).cb[2] = third };
    // SAFETY: as above.
    unsafe { (*skb).cb[3] = fourth };
    // SAFETY: as above.
    unsafe { (*skb).cb[4] = fifth };
}

/// As a frame lies there, and once more with its headers gathered.
const ATTEMPTS: u32 = 2;

// What a round says to the loop.
const GO_ON: i64 = 0;
const STOP: i64 = 1;

// The kernel's error numbers.
const MINUS_ENOMEM: i32 = -12;
const MINUS_ENODEV: i32 = -19;
const MINUS_EINVAL: i32 = -22;
const MINUS_ERANGE: i32 = -34;
const MINUS_ENETDOWN: i32 = -100;
