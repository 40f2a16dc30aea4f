//! Which session takes a packet.
//!
//! Each dimension of the packet names the set of rules that do not mind it. The first rule in all of them decides: an
//! accept is the answer, a reject takes the other rules of its session out, and the search goes on behind them.

use super::{GO_ON, STOP, facts::Facts, tables};
use crate::headers::{TCP, UDP};
use aya_ebpf::{cty::c_void, helpers::generated::bpf_loop};
use flowtap_abi::mirror::{INTERVAL_STEPS, Intervals, NOT_ALIKE, RULE_WORDS, RuleList, RuleSet, SESSIONS_MAX, known};

/// The slot of the session whose rule takes the packet.
#[inline(always)]
pub(crate) fn session(list: &RuleList, facts: &Facts, walk: &mut Walk, generation: u32) -> Option<u32> {
    let protocol = tables::set(tables::protocol(list.protocols + u32::from(facts.protocol))?)?;
    let [src_v4, dst_v4, src_v6, dst_v6] = list.anywhere;
    let (src, dst) = if facts.version == 4 {
        let ([a, b, c, d, ..], [e, f, g, h, ..]) = (facts.src, facts.dst);
        let src = if src_v4 == NOT_ALIKE { tables::block_v4(list.prefixes, [a, b, c, d])? } else { src_v4 };
        (src, if dst_v4 == NOT_ALIKE { tables::block_v4(list.prefixes + 1, [e, f, g, h])? } else { dst_v4 })
    } else {
        let src = if src_v6 == NOT_ALIKE { tables::block_v6(list.prefixes, facts.src)? } else { src_v6 };
        (src, if dst_v6 == NOT_ALIKE { tables::block_v6(list.prefixes + 1, facts.dst)? } else { dst_v6 })
    };
    let (src, dst) = (tables::set(src)?, tables::set(dst)?);
    let (src_port, dst_port) = if facts.has_ports != 0 {
        let src = ports(&list.source_ports, facts.src_port)?;
        (tables::set(src)?, tables::set(ports(&list.destination_ports, facts.dst_port)?)?)
    } else {
        // A packet without ports has one set for both ends.
        (tables::set(list.portless)?, protocol)
    };
    let service = if list.has_services == 0 { protocol } else { tables::set(service_set(list, facts))? };
    first(list, walk, [protocol, src, dst, src_port, dst_port, service])
}

/// The first rule that all sets hold, and what follows from it.
#[inline(always)]
fn first(list: &RuleList, walk: &mut Walk, sets: [&RuleSet; DIMENSIONS]) -> Option<u32> {
    walk.words = list.words;
    walk.rules = list.rules;
    walk.from = 0;
    walk.found = NOBODY;
    for word in 0..RULE_WORDS {
        if word as u32 >= list.words {
            break;
        }
        let [a, b, c, d, e, f] = sets;
        walk.left[word] = a.0[word] & b.0[word] & c.0[word] & d.0[word] & e.0[word] & f.0[word];
    }
    // Nearly every packet is decided by the first rule that takes it, or by none in the first word.
    if walk.step() == GO_ON {
        // The verifier looks at one step of this loop, whatever its length.
        // It wants its state on the stack: a pointer to the search.
        let mut state = core::ptr::from_mut(walk);
        let state = (&raw mut state).cast();
        // SAFETY: the function is what the helper calls, and the state outlives the call.
        unsafe { bpf_loop(STEPS_MAX, walk_on as *const () as *mut c_void, state, 0) };
    }
    (walk.found != NOBODY).then_some(walk.found)
}

/// A search through the rules that match, from the first on.
#[repr(C)]
pub(crate) struct Walk {
    left: [u64; RULE_WORDS],
    words: u32,
    rules: u32,
    /// Rules before this one are done with.
    from: u32,
    /// Slot of the session that takes the packet.
    found: u32,
}

impl Walk {
    #[inline(always)]
    fn step(&mut self) -> i64 {
        let word = self.from / WORD_BITS;
        if word >= self.words {
            return STOP;
        }
        let left = self.left[word as usize % RULE_WORDS] & (u64::MAX << (self.from % WORD_BITS));
        if left == 0 {
            self.from = (word + 1) * WORD_BITS;
            return GO_ON;
        }
        let Some(rule) = tables::rule(self.rules + word * WORD_BITS + left.trailing_zeros()) else { return STOP };
        if rule.accept != 0 {
            self.found = u32::from(rule.session);
            return STOP;
        }
        // On behind the session that rejects.
        self.from = u32::from(rule.session_end);
        GO_ON
    }
}

unsafe extern "C" fn walk_on(_step: u64, walk: *mut c_void) -> i64 {
    // SAFETY: the pointer that stands on the caller's stack.
    let walk = unsafe { *walk.cast::<*mut Walk>() };
    // SAFETY: the caller's search, which nobody else has.
    let walk = unsafe { &mut *walk };
    walk.step()
}

/// The set of the interval that holds a port: the last one that does not begin behind it.
#[inline(always)]
fn ports(intervals: &Intervals, port: u16) -> Option<u32> {
    let (mut first, mut count) = (intervals.first, intervals.count);
    for _ in 0..INTERVAL_STEPS {
        if count <= 1 {
            break;
        }
        let half = count / 2;
        if tables::interval(first + half)?.start <= u32::from(port) {
            first += half;
            count -= half;
        } else {
            count = half;
        }
    }
    Some(tables::interval(first)?.set)
}

/// The set of the packet's service. Authority: as the sensor's own `classify`, whose order this is.
#[inline(always)]
fn service_set(list: &RuleList, facts: &Facts) -> u32 {
    let [none, dns, dhcp, metadata, time, activation] = list.services;
    let (src_port, dst_port) = if facts.has_ports != 0 { (facts.src_port, facts.dst_port) } else { (0, 0) };
    let src = tables::known(facts.src, facts.version.into(), list.known_set);
    let dst = tables::known(facts.dst, facts.version.into(), list.known_set);
    let at = |role: u32, port: u16| (src & role != 0 && src_port == port) || (dst & role != 0 && dst_port == port);
    let dhcp_ports = if facts.version == 4 { DHCP_V4 } else { DHCP_V6 };
    match facts.protocol {
        TCP | UDP if (src | dst) & known::RESOLVER != 0 => dns,
        UDP if dhcp_ports.contains(&src_port) || dhcp_ports.contains(&dst_port) => dhcp,
        TCP if at(known::METADATA, HTTP) => metadata,
        UDP if at(known::TIME, NTP) => time,
        TCP if at(known::ACTIVATION, ACTIVATION) => activation,
        _ => none,
    }
}

/// Protocol, two addresses, two ports, service.
const DIMENSIONS: usize = 6;
const WORD_BITS: u32 = u64::BITS;
/// No session's slot.
const NOBODY: u32 = u32::MAX;
/// Every step leaves a word or a session behind.
const STEPS_MAX: u32 = RULE_WORDS as u32 + SESSIONS_MAX;

const DHCP_V4: [u16; 2] = [67, 68];
const DHCP_V6: [u16; 2] = [546, 547];
const HTTP: u16 = 80;
const NTP: u16 = 123;
const ACTIVATION: u16 = 1688;
