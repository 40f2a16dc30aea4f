//! What the rules, the guard and the counters want to know of a packet, read in one pass.
//!
//! The pass is made by programs of their own that the tap calls: what they found is then plain numbers, for which the
//! verifier need not remember how they were come by.

use super::{GO_ON, STOP, tables};
use crate::{
    fragments,
    headers::{
        self, Bytes, ETHERNET_BYTES, Extensions, Fragment, Frame, ICMP, ICMPV6, Ip, Layer, Network, Stop, TCP,
        Transport, UDP, VLAN_TAG_BYTES, Version,
    },
    wire,
};
use aya_ebpf::{bindings::__sk_buff, cty::c_void, helpers::generated::bpf_loop, programs::TcContext};
use flowtap_abi::{Direction, FragmentKey, FragmentPorts, choice};

/// One packet.
#[repr(C)]
pub(crate) struct Facts {
    /// Source; an IPv4 address stands in front and zeros follow.
    pub(crate) src: [u8; 16],
    pub(crate) dst: [u8; 16],
    /// What the pieces of a datagram share, in the first one; in others it says nothing.
    pub(crate) datagram: FragmentKey,
    /// Wire frames that the copy is.
    pub(crate) frames: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Length of the longest.
    pub(crate) longest_bytes: u32,
    /// Where the IP header begins in the frame. It stands here so that the verifier forgets how many tags are before it:
    /// else it would go through all that follows once for each number.
    start: u32,
    /// Where what follows the header of UDP or ICMP begins in the frame; zero in a later piece.
    pub(crate) content_at: u32,
    /// Zero where they are not known; of TCP and UDP, and of SCTP for the choice of a target.
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) protocol: u8,
    /// 4 or 6.
    pub(crate) version: u8,
    /// Whether it is TCP or UDP whose ports are known.
    pub(crate) has_ports: u8,
    /// Whether it is a piece of a datagram, the first included.
    pub(crate) is_piece: u8,
    /// Whether it is the first one.
    pub(crate) is_first_piece: u8,
    /// Whether it is a later one of a mirrored copy.
    pub(crate) is_of_a_copy: u8,
}

/// How a pass went.
pub(crate) const READ: u32 = 0;
/// A header lies beyond what can be read in place.
pub(crate) const SHORT: u32 = 1;
/// The frame is no IP packet, or a broken one.
pub(crate) const NOTHING: u32 = 2;

/// A walk over extension headers, and how it went. Its loop shares nothing else with the pass.
#[repr(C)]
pub(crate) struct Walking {
    walk: Extensions,
    /// Where the IP header begins in the frame.
    start: u32,
    answer: u32,
}

/// Where a packet passes.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) interface: u32,
    pub(crate) direction: Direction,
    pub(crate) layer: Layer,
}

/// Reads the packet of `context` into `facts`.
#[inline(always)]
pub(crate) fn read(context: &TcContext, place: Place, facts: &mut Facts) -> u32 {
    let frame = Frame::new(context);
    let network = match headers::network(&frame, place.layer) {
        Ok(network) => network,
        Err(stop) => return code(&stop),
    };
    facts.start = network.start as u32;
    // The direction and what the link layer takes fit into one word, as programs take five arguments.
    let link_bytes = link_bytes(&frame, &network, place.layer);
    let place_word = u64::from(place.interface) << 32 | u64::from(link_bytes) << 8 | place.direction as u64;
    match network.version {
        Version::V4 => read_v4(context, place_word, facts),
        Version::V6 => read_v6(context, place_word, facts),
    }
}

#[inline(never)]
fn read_v4(context: &TcContext, place: u64, facts: &mut Facts) -> u32 {
    let frame = Frame::new(context);
    let start = facts.start as usize & START_MASK;
    let ip = match headers::ipv4(&frame, start) {
        Ok(ip) => ip,
        Err(stop) => return code(&stop),
    };
    facts.version = 4;
    facts.src = fragments::widened(ip.src);
    facts.dst = fragments::widened(ip.dst);
    let (interface, direction, link_bytes) = split(place);
    let pieces = fragments::key_v4(interface, direction, &ip);
    if let Err(stop) = read_rest(&frame, start, &ip, pieces, link_bytes, facts) {
        return code(&stop);
    }
    READ
}

#[inline(never)]
fn read_v6(context: &TcContext, place: u64, facts: &mut Facts) -> u32 {
    let frame = Frame::new(context);
    let start = facts.start as usize & START_MASK;
    let (mut ip, walk) = match headers::ipv6_alone(&frame, start) {
        Ok(read) => read,
        Err(stop) => return code(&stop),
    };
    if !walk.walked {
        let Some(walking) = tables::walking() else { return NOTHING };
        *walking = Walking { walk, start: start as u32, answer: READ };
        let mut skb = context.skb.skb;
        let state = (&raw mut skb).cast();
        // A loop of the kernel's, so that the verifier looks at one header, and not at all ways through eight of them.
        // SAFETY: the function is what the helper calls, and the state outlives the call.
        unsafe { bpf_loop(headers::EXTENSIONS_MAX as u32, step as *const () as *mut c_void, state, 0) };
        let Some(Walking { walk, answer, .. }) = tables::walking() else { return NOTHING };
        if *answer != READ {
            return *answer;
        }
        walk.header_bytes &= WALKED_MASK;
        ip.arrive(walk);
    }
    facts.version = 6;
    facts.src = ip.src;
    facts.dst = ip.dst;
    let (interface, direction, link_bytes) = split(place);
    let pieces = fragments::key_v6(interface, direction, &ip);
    if let Err(stop) = read_rest(&frame, start, &ip, pieces, link_bytes, facts) {
        return code(&stop);
    }
    READ
}

/// Goes over one extension header of the packet that is read.
unsafe extern "C" fn step(_round: u64, skb: *mut c_void) -> i64 {
    // SAFETY: the pointer that stands on the caller's stack.
    let skb = unsafe { *skb.cast::<*mut __sk_buff>() };
    let context = TcContext::new(skb);
    let frame = Frame::new(&context);
    let Some(Walking { walk, start, answer }) = tables::walking() else { return STOP };
    walk.header_bytes &= WALKED_MASK;
    match walk.step(&frame, *start as usize & START_MASK) {
        Ok(false) => GO_ON,
        Ok(true) => STOP,
        Err(stop) => {
            *answer = code(&stop);
            STOP
        }
    }
}

#[inline(always)]
fn read_rest<A>(
    frame: &Frame<'_>,
    start: usize,
    ip: &Ip<A>,
    pieces: FragmentKey,
    link_bytes: u32,
    facts: &mut Facts,
) -> Result<(), Stop> {
    facts.is_first_piece = 0;
    facts.is_of_a_copy = 0;
    let (transport, protocol, are_known) = transport(frame, start, ip, pieces, facts)?;
    let [a, b, c, d] = transport.ports;
    facts.src_port = u16::from_be_bytes([a, b]);
    facts.dst_port = u16::from_be_bytes([c, d]);
    facts.protocol = protocol;
    facts.has_ports = u8::from(are_known && matches!(protocol, TCP | UDP));
    facts.is_piece = u8::from(!matches!(ip.fragment, Fragment::None));
    if matches!(protocol, ICMP | ICMPV6) {
        // Type and code, where others have their source port.
        facts.src_port = match transport.marks.icmp_type_and_code() {
            flowtap_abi::Seen::One((icmp_type, code)) => u16::from_be_bytes([icmp_type, code]),
            _ => NO_ICMP,
        };
    }
    let is_later = matches!(ip.fragment, Fragment::Later);
    facts.content_at = if is_later { 0 } else { start as u32 + ip.header_bytes + UDP_BYTES };
    let wire = wire::frames(frame, start, link_bytes, ip, &transport);
    facts.frames = wire.count;
    facts.bytes = wire.bytes;
    facts.longest_bytes = wire.longest_bytes;
    Ok(())
}

/// Transport header, protocol, and whether ports are known. A first fragment leaves them for those that follow.
#[inline(always)]
fn transport<A>(
    frame: &Frame<'_>,
    start: usize,
    ip: &Ip<A>,
    pieces: FragmentKey,
    facts: &mut Facts,
) -> Result<(Transport, u8, bool), Stop> {
    if !ip.walked {
        return Ok((Transport::NONE, ip.protocol, false));
    }
    let pieces = FragmentKey { id: ip.fragment_id, ..pieces };
    if let Fragment::Later = ip.fragment {
        return Ok(match tables::recall(&pieces) {
            Some(known) => {
                facts.is_of_a_copy = known.is_of_a_copy;
                (Transport { ports: known.ports, ..Transport::NONE }, known.protocol, true)
            }
            None => (Transport::NONE, ip.protocol, false),
        });
    }
    let transport = headers::transport(frame, start, ip)?;
    if let Fragment::First = ip.fragment {
        let ports = FragmentPorts { ports: transport.ports, protocol: ip.protocol, is_of_a_copy: 0, zero: [0; 2] };
        facts.datagram = pieces;
        facts.is_first_piece = 1;
        tables::remember(&facts.datagram, &ports);
    }
    Ok((transport, ip.protocol, true))
}

/// What the link layer takes of each frame of the copy: a tag that stands beside the frame is put into it, and a frame
/// without link layer gets an Ethernet header.
#[inline(always)]
fn link_bytes(frame: &Frame<'_>, network: &Network, layer: Layer) -> u32 {
    let in_frame = if let Layer::Ip = layer { ETHERNET_BYTES } else { network.start };
    let beside = if frame.vlan_beside_frame().is_some() { VLAN_TAG_BYTES } else { 0 };
    (in_frame + beside) as u32
}

#[inline(always)]
fn split(place: u64) -> (u32, Direction, u32) {
    let direction = if place & 0xff == Direction::Egress as u64 { Direction::Egress } else { Direction::Ingress };
    ((place >> 32) as u32, direction, (place >> 8) as u32 & 0xff)
}

#[inline(always)]
fn code(stop: &Stop) -> u32 {
    match stop {
        Stop::Short => SHORT,
        Stop::Refused(_) => NOTHING,
    }
}

/// An IP header begins behind an Ethernet header and four tags at most.
const START_MASK: usize = 63;
/// An IPv6 header and eight extension headers of the greatest length are shorter.
const WALKED_MASK: u32 = 0x7fff;
/// Type and code of a message of which neither is there, the same for both directions.
const NO_ICMP: u16 = u16::from_be_bytes(choice::NO_ICMP);
/// ICMP has as many.
const UDP_BYTES: u32 = 8;
