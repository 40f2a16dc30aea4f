//! What must never be mirrored: copies, and what comes back because of them.
//!
//! Our own copies carry a mark that says so, but only on this host. Those of another sensor on their way to it, answers
//! of a target, and ICMP errors about copies are told by address and port: a UDP packet from or to a target with a
//! tunnel's port at either end.

use super::{
    decide::{Address, Probe},
    tables,
};
use crate::headers::{self, Frame, ICMP, ICMPV6, Ip, Stop, UDP};
use flowtap_abi::mirror::{RuleList, known};

/// An address as an IP header has it, and how to read the header that holds it.
pub(crate) trait Quoted: Address {
    fn quoted(frame: &Frame<'_>, start: usize) -> Result<Ip<Self>, Stop>;
    /// The protocol of ICMP, and whether a type of it is an error.
    fn is_icmp_error(protocol: u8, icmp_type: u8) -> bool;
}

impl Quoted for [u8; 4] {
    #[inline(always)]
    fn quoted(frame: &Frame<'_>, start: usize) -> Result<Ip<Self>, Stop> {
        headers::ipv4(frame, start)
    }

    /// RFC 792: unreachable, source quench, redirect, time exceeded, parameter problem.
    #[inline(always)]
    fn is_icmp_error(protocol: u8, icmp_type: u8) -> bool {
        protocol == ICMP && matches!(icmp_type, 3 | 4 | 5 | 11 | 12)
    }
}

impl Quoted for [u8; 16] {
    #[inline(always)]
    fn quoted(frame: &Frame<'_>, start: usize) -> Result<Ip<Self>, Stop> {
        headers::ipv6(frame, start)
    }

    /// RFC 4443 section 2.1: errors are below 128.
    #[inline(always)]
    fn is_icmp_error(protocol: u8, icmp_type: u8) -> bool {
        protocol == ICMPV6 && icmp_type < 128
    }
}

/// Whether a packet is a copy, an answer to one, or an error about one.
#[inline(always)]
pub(crate) fn is_of_a_copy<A: Quoted>(
    frame: &Frame<'_>,
    start: usize,
    header_bytes: u32,
    probe: &Probe<A>,
    list: &RuleList,
    generation: u32,
) -> bool {
    if probe.protocol == UDP {
        let Some((src_port, dst_port)) = probe.ports else { return false };
        return (is_tunnel(list, src_port) || is_tunnel(list, dst_port))
            && (is_target(probe.src, generation) || is_target(probe.dst, generation));
    }
    if probe.protocol == ICMP || probe.protocol == ICMPV6 {
        return is_error_about_a_copy::<A>(frame, start + header_bytes as usize, probe.protocol, list, generation)
            .unwrap_or(false);
    }
    false
}

/// An error quotes the packet that it is about, from its IP header on. One that cannot be read is none of ours.
#[inline(always)]
fn is_error_about_a_copy<A: Quoted>(
    frame: &Frame<'_>,
    icmp: usize,
    protocol: u8,
    list: &RuleList,
    generation: u32,
) -> Option<bool> {
    use crate::headers::Bytes as _;
    let [icmp_type, _]: [u8; 2] = frame.need(icmp).ok()?;
    if !A::is_icmp_error(protocol, icmp_type) {
        return None;
    }
    let quoted_at = icmp + ICMP_BYTES;
    let quoted = A::quoted(frame, quoted_at).ok()?;
    let [_, dst_port]: [u16; 2] = frame.need(quoted_at + quoted.header_bytes as usize).ok()?;
    Some(quoted.protocol == UDP && is_tunnel(list, u16::from_be(dst_port)) && is_target(quoted.dst, generation))
}

#[inline(always)]
fn is_tunnel(list: &RuleList, port: u16) -> bool {
    list.tunnel_ports.contains(&port)
}

#[inline(always)]
fn is_target<A: Address>(address: A, generation: u32) -> bool {
    tables::known(address.widened(), A::VERSION, generation) & known::TARGET != 0
}

const ICMP_BYTES: usize = 8;
