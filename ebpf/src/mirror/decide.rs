//! Which session takes a packet.
//!
//! Each dimension of the packet names the set of rules that do not mind it. The first rule in all of them decides: an
//! accept is the answer, a reject takes the other rules of its session out, and the search goes on behind them.

use super::tables;
use crate::headers::{TCP, UDP};
use flowtap_abi::mirror::{INTERVAL_STEPS, Intervals, RULE_WORDS, RuleList, RuleSet, SESSIONS_MAX, known};

/// What the rules look at.
pub(crate) struct Probe<A> {
    pub(crate) src: A,
    pub(crate) dst: A,
    pub(crate) protocol: u8,
    /// Source and destination, of TCP and UDP.
    pub(crate) ports: Option<(u16, u16)>,
}

/// An address of one of the two versions.
pub(crate) trait Address: Copy {
    const VERSION: u32;
    /// The set of the longest block that holds it.
    fn block(self, list: u32) -> Option<u32>;
    /// Sixteen bytes, zeros behind an IPv4 address.
    fn widened(self) -> [u8; 16];
}

impl Address for [u8; 4] {
    const VERSION: u32 = 4;

    #[inline(always)]
    fn block(self, list: u32) -> Option<u32> {
        tables::block_v4(list, self)
    }

    #[inline(always)]
    fn widened(self) -> [u8; 16] {
        crate::fragments::widened(self)
    }
}

impl Address for [u8; 16] {
    const VERSION: u32 = 6;

    #[inline(always)]
    fn block(self, list: u32) -> Option<u32> {
        tables::block_v6(list, self)
    }

    #[inline(always)]
    fn widened(self) -> [u8; 16] {
        self
    }
}

/// The slot of the session whose rule takes the packet.
#[inline(always)]
pub(crate) fn session<A: Address>(list: &RuleList, probe: &Probe<A>, generation: u32) -> Option<u32> {
    let protocol = tables::set(tables::protocol(list.protocols + u32::from(probe.protocol))?)?;
    let src = tables::set(probe.src.block(list.prefixes)?)?;
    let dst = tables::set(probe.dst.block(list.prefixes + 1)?)?;
    let (src_port, dst_port) = match probe.ports {
        Some((src, dst)) => (tables::set(ports(&list.source_ports, src)?)?, tables::set(ports(&list.destination_ports, dst)?)?),
        // A packet without ports has one set for both ends.
        None => (tables::set(list.portless)?, protocol),
    };
    let service = if list.has_services == 0 { protocol } else { tables::set(service_set(list, probe, generation))? };
    first(list, [protocol, src, dst, src_port, dst_port, service])
}

/// The first rule that all sets hold, and what follows from it.
#[inline(always)]
fn first(list: &RuleList, sets: [&RuleSet; DIMENSIONS]) -> Option<u32> {
    let mut word = 0;
    let mut left = met(sets, 0);
    for _ in 0..STEPS_MAX {
        if left == 0 {
            word += 1;
            if word >= list.words || word >= RULE_WORDS as u32 {
                return None;
            }
            left = met(sets, word);
            continue;
        }
        let number = word * WORD_BITS + left.trailing_zeros();
        let rule = tables::rule(list.rules + number)?;
        if rule.accept != 0 {
            return Some(u32::from(rule.session));
        }
        // On behind the session that rejects: here, or in a later word.
        let end = u32::from(rule.session_end);
        word = end / WORD_BITS;
        if word >= RULE_WORDS as u32 {
            return None;
        }
        left = met(sets, word) & (u64::MAX << (end % WORD_BITS));
    }
    None
}

/// One word of what all sets hold.
#[inline(always)]
fn met(sets: [&RuleSet; DIMENSIONS], word: u32) -> u64 {
    let word = word as usize % RULE_WORDS;
    let [a, b, c, d, e, f] = sets;
    a.0[word] & b.0[word] & c.0[word] & d.0[word] & e.0[word] & f.0[word]
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
fn service_set<A: Address>(list: &RuleList, probe: &Probe<A>, generation: u32) -> u32 {
    let [none, dns, dhcp, metadata, time, activation] = list.services;
    let (src_port, dst_port) = probe.ports.unwrap_or((0, 0));
    let src = tables::known(probe.src.widened(), A::VERSION, generation);
    let dst = tables::known(probe.dst.widened(), A::VERSION, generation);
    let at = |role: u32, port: u16| (src & role != 0 && src_port == port) || (dst & role != 0 && dst_port == port);
    let dhcp_ports = if A::VERSION == 4 { DHCP_V4 } else { DHCP_V6 };
    match probe.protocol {
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
/// Every step leaves a word or a session behind.
const STEPS_MAX: u32 = RULE_WORDS as u32 + SESSIONS_MAX;

const DHCP_V4: [u16; 2] = [67, 68];
const DHCP_V6: [u16; 2] = [546, 547];
const HTTP: u16 = 80;
const NTP: u16 = 123;
const ACTIVATION: u16 = 1688;
