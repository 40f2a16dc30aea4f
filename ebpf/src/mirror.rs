//! Copies of chosen packets, made where they pass.
//!
//! The tap asks the rules of its interface ([`decide`]), keeps to the session's rate ([`rate`]), takes a target
//! ([`target`]) and hands a clone to our tunnel device, at whose egress [`encapsulate`] finishes it. Whatever becomes of
//! the clone, the packet itself goes on as it came. What a session did is counted in wire frames: a super-packet is as
//! many as its segments.

mod decide;
mod encapsulate;
mod guard;
mod rate;
mod tables;
mod target;

pub(crate) use encapsulate::{cut, encapsulate};

use crate::{
    fragments,
    headers::{
        self, ETHERNET_BYTES, Fragment, Frame, HEADERS_BYTES_MAX, Ip, Layer, Network, SCTP, Stop, TCP, Transport, UDP,
        VLAN_TAG_BYTES, Version,
    },
    wire::{self, Frames},
};
use aya_ebpf::{bindings::TC_ACT_UNSPEC, helpers::generated::bpf_clone_redirect, programs::TcContext};
use decide::Probe;
use flowtap_abi::{
    Direction, FragmentKey, FragmentPorts,
    mirror::{
        COPY_MAGIC, COPY_MARK, COPY_MARK_MASK, CopyOutcome, MirrorSession, RuleList, TARGETS_OF_SESSION_MAX, Unjudged,
    },
};
use guard::Quoted;

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
    let tap = Tap { context, interface, generation, list, direction, layer };
    for attempt in 1..=ATTEMPTS {
        // A frame that is not IP, or is none at all, matches no rule.
        let Err(Stop::Short) = tap.judge() else { break };
        if attempt < ATTEMPTS && context.pull_data(context.len().min(HEADERS_BYTES_MAX)).is_err() {
            tables::count_unjudged(Unjudged::NotGathered);
            break;
        }
    }
    TC_ACT_UNSPEC
}

/// One packet at the tap.
struct Tap<'a> {
    context: &'a TcContext,
    interface: u32,
    generation: u32,
    list: &'a RuleList,
    direction: Direction,
    layer: Layer,
}

/// What the copy of a packet is.
struct Copy {
    slot: u32,
    /// Whether frames have no link layer of their own.
    is_bare: bool,
    frames: Frames,
    /// The hash of the flow, the same in both directions.
    flow: u64,
}

impl Tap<'_> {
    #[inline(always)]
    fn judge(&self) -> Result<(), Stop> {
        let frame = Frame::new(self.context);
        let network = headers::network(&frame, self.layer)?;
        match network.version {
            Version::V4 => {
                let ip = headers::ipv4(&frame, network.start)?;
                let pieces = fragments::key_v4(self.interface, self.direction, &ip);
                self.judge_ip(&frame, &network, &ip, pieces)
            }
            Version::V6 => {
                let ip = headers::ipv6(&frame, network.start)?;
                let pieces = fragments::key_v6(self.interface, self.direction, &ip);
                self.judge_ip(&frame, &network, &ip, pieces)
            }
        }
    }

    #[inline(always)]
    fn judge_ip<A: Quoted>(
        &self,
        frame: &Frame<'_>,
        network: &Network,
        ip: &Ip<A>,
        pieces: FragmentKey,
    ) -> Result<(), Stop> {
        let (transport, protocol, has_ports) = read_transport(frame, network.start, ip, pieces)?;
        let [a, b, c, d] = transport.ports;
        let ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let has_ports = has_ports && matches!(protocol, TCP | UDP);
        let probe = Probe { src: ip.src, dst: ip.dst, protocol, ports: has_ports.then_some(ports) };
        if guard::is_of_a_copy(frame, network.start, ip.header_bytes, &probe, self.list, self.generation) {
            tables::count_unjudged(Unjudged::OwnCopy);
            return Ok(());
        }
        let Some(slot) = decide::session(self.list, &probe, self.generation) else { return Ok(()) };
        let Some(session) = tables::session(slot) else { return Ok(()) };
        let is_whole = matches!(ip.fragment, Fragment::None);
        let of_flow = (is_whole && matches!(protocol, TCP | UDP | SCTP)).then_some(ports);
        let copy = Copy {
            slot,
            is_bare: matches!(self.layer, Layer::Ip),
            frames: wire::frames(frame, network.start, link_bytes(frame, network, self.layer), ip, &transport),
            flow: target::flow_hash(ip.src, ip.dst, of_flow, protocol),
        };
        self.mirror(session, &copy);
        Ok(())
    }

    /// Sends a copy to the target of the flow, or to each.
    #[inline(always)]
    fn mirror(&self, session: &MirrorSession, copy: &Copy) {
        if session.replicate == 0 {
            self.count(copy, CopyOutcome::Matched);
            match target::choose(copy.slot, session.targets, copy.flow) {
                Some(number) => self.send(session, copy, number),
                None => self.count(copy, CopyOutcome::NoTarget),
            }
            return;
        }
        for number in 0..TARGETS_OF_SESSION_MAX {
            if number >= session.targets {
                break;
            }
            self.count(copy, CopyOutcome::Matched);
            self.send(session, copy, number);
        }
    }

    #[inline(always)]
    fn send(&self, session: &MirrorSession, copy: &Copy, number: u32) {
        let outcome = self.sent(session, copy, number);
        self.count(copy, outcome);
    }

    #[inline(always)]
    fn sent(&self, session: &MirrorSession, copy: &Copy, number: u32) -> CopyOutcome {
        let Some(target) = tables::target(copy.slot, number) else { return CopyOutcome::NoTarget };
        if target.healthy == 0 {
            return CopyOutcome::NoTarget;
        }
        let is_too_big = copy.frames.longest_bytes > target.frame_bytes_max;
        if is_too_big && session.skip_too_big != 0 {
            return CopyOutcome::TooBig;
        }
        if !rate::admit(copy.slot, session, copy.frames.count, copy.frames.bytes) {
            return CopyOutcome::RateLimited;
        }
        if copy.is_bare {
            return CopyOutcome::NoLinkLayer;
        }
        let outcome = cloned(self.context, copy.slot, number, target.device);
        if is_too_big && matches!(outcome, CopyOutcome::Mirrored) {
            self.count(copy, CopyOutcome::Fragmented);
        }
        outcome
    }

    #[inline(always)]
    fn count(&self, copy: &Copy, outcome: CopyOutcome) {
        tables::count(copy.slot, self.direction, outcome, copy.frames.count, copy.frames.bytes);
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

/// Transport header, protocol, and whether ports are known. A first fragment leaves them for those that follow.
#[inline(always)]
fn read_transport<A>(
    frame: &Frame<'_>,
    start: usize,
    ip: &Ip<A>,
    pieces: FragmentKey,
) -> Result<(Transport, u8, bool), Stop> {
    if !ip.walked {
        return Ok((Transport::NONE, ip.protocol, false));
    }
    if let Fragment::Later(id) = ip.fragment {
        return Ok(match tables::recall(&FragmentKey { id, ..pieces }) {
            Some(known) => (Transport { ports: known.ports, ..Transport::NONE }, known.protocol, true),
            None => (Transport::NONE, ip.protocol, false),
        });
    }
    let transport = headers::transport(frame, start, ip)?;
    if let Fragment::First(id) = ip.fragment {
        let ports = FragmentPorts { ports: transport.ports, protocol: ip.protocol, zero: [0; 3] };
        tables::remember(&FragmentKey { id, ..pieces }, &ports);
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

/// Once as the frame lies there, and once more after the kernel was asked to gather its headers.
const ATTEMPTS: u32 = 2;

// The kernel's error numbers.
const MINUS_ENOMEM: i32 = -12;
const MINUS_ENODEV: i32 = -19;
const MINUS_EINVAL: i32 = -22;
const MINUS_ERANGE: i32 = -34;
const MINUS_ENETDOWN: i32 = -100;
