//! The guard against copies of copies: see [`flowtap_abi::guard`], which the sensor uses too.

use super::{facts::Facts, tables};
use aya_ebpf::programs::TcContext;
use flowtap_abi::{
    guard::{self, Bytes, Suspect, Targets},
    mirror::{RuleList, known},
};

/// Whether a packet must not be mirrored. Of a datagram in pieces the first one decides for all. By itself, so that what it
/// reads takes nothing of the tap's stack.
#[inline(never)]
pub(super) fn holds_back(context: &TcContext, list: &RuleList, facts: &Facts, generation: u32) -> bool {
    if facts.is_of_a_copy != 0 {
        return true;
    }
    let suspect = Suspect {
        version: facts.version,
        protocol: facts.protocol,
        src: &facts.src,
        dst: &facts.dst,
        ports: (facts.has_ports != 0).then_some((facts.src_port, facts.dst_port)),
        // Type and code stand where others have their source port.
        icmp_type: Some((facts.src_port >> 8) as u8),
        content_at: (facts.content_at != 0).then_some(facts.content_at as usize),
    };
    let is_of_a_copy = guard::is_of_a_copy(&suspect, &Frame(context), &Known { list, generation });
    if is_of_a_copy && facts.is_first_piece != 0 {
        tables::hold_back(&facts.datagram);
    }
    is_of_a_copy
}

struct Frame<'a>(&'a TcContext);

impl Bytes for Frame<'_> {
    /// The helper reads also what does not lie in one piece.
    #[inline(always)]
    fn read<const COUNT: usize>(&self, at: usize) -> Option<[u8; COUNT]> {
        self.0.load(at).ok()
    }
}

/// The targets of the generation that the packet is judged by.
struct Known<'a> {
    list: &'a RuleList,
    generation: u32,
}

impl Targets for Known<'_> {
    #[inline(always)]
    fn has_port(&self, port: u16) -> bool {
        self.list.tunnel_ports.contains(&port)
    }

    #[inline(always)]
    fn has_address(&self, version: u8, address: &[u8; 16]) -> bool {
        tables::known(*address, version.into(), self.generation) & known::TARGET != 0
    }
}
