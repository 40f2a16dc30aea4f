//! The packet plane's executor: a frame is shown to the rules, becomes wire frames, and these go to their targets.
//!
//! It does no I/O itself and reads no clock; an [`Outlet`] takes the copies. One executor serves one stream of frames, in
//! whose order copies leave. Per frame it allocates nothing once its buffers have grown.
//!
//! What the kernel drops is shown once more, where it is dropped ([`Executor::observe_drop`]), to the rules with
//! `verdict = "rejected"`. A session that took a packet at the tap does not get it again: nothing in the packet tells
//! that (the kernel's layers write over whatever a program leaves in it), so the tap's rules are asked again about what
//! had passed the tap, and what they say is what was done. That holds for everyone who taps, as all have the same tables.
//! A packet whose addresses or ports were translated in between is judged as it is where it is dropped, and one that the
//! tap took and skipped, say for the session's rate, is skipped here too. Another session may get a copy of each.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flowtap_abi::choice;

use super::balance::{self, Candidate};
use super::bucket::Bucket;
use super::counters::{SessionCounts, Skip};
use super::datagrams::Datagrams;
use super::encapsulate::{Envelope, INNER_BYTES_MAX, TUNNEL_HEADER_BYTES, tunnel_header};
use super::flow_hash::FlowHash;
use super::guard::Guard;
use super::inner::{Hints, Inner, Seen};
use super::{Decider, Match, Mirror, Mode, Point, Probe, Session, TooBig, Vni};
use crate::capture::{Direction, Frame};
use crate::classify::{Classifier, LocalNetworks};
use crate::packet::{Fragment, Packet, locate};
use crate::time::Timestamp;

/// Takes copies.
pub trait Outlet: Send {
    /// Sends a copy, or queues it to be sent.
    ///
    /// # Errors
    /// Why the copy went nowhere.
    fn take(&mut self, copy: &Copied<'_>) -> Result<Taken, Skip>;

    /// Lets go of copies that are being gathered: nothing may come for a while.
    fn flush(&mut self) {}
}

/// What became of a copy that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is sent.
    Sent {
        /// In more than one piece.
        fragmented: bool,
    },
    /// It waits; the outlet counts what becomes of it.
    Queued,
}

/// A copy on its way.
#[derive(Debug, Clone, Copy)]
pub struct Copied<'a> {
    /// When the frame was seen.
    pub time: Timestamp,
    /// Index into [`Mirror::sessions`].
    pub session: u16,
    /// Of the original.
    pub direction: Direction,
    /// Index into [`Mirror::targets`].
    pub target: u16,
    /// UDP ports and tunnel header.
    pub envelope: Envelope,
    /// The wire frame, as much of it as the session sends.
    pub inner: &'a [u8],
    /// How long the wire frame is.
    pub wire_bytes: u64,
    /// Whether it ends before the frame does because not all could be read.
    pub is_partial: bool,
    /// Whether it may go as fragments if it is too big for the path.
    pub may_fragment: bool,
}

/// What the executor must know of an interface.
#[derive(Debug, Clone)]
pub struct Tapped {
    /// The rules of its sessions.
    pub decider: Decider,
    /// What its network's services are.
    pub classifier: Classifier,
    /// Tells the direction where the capture does not.
    pub local: LocalNetworks,
    /// The longest IP packet of its wire.
    pub mtu: usize,
}

/// Which targets take copies: what health checks have found, for everyone to see.
#[derive(Debug, Clone)]
pub struct Health(Arc<[AtomicBool]>);

impl Health {
    /// So many targets, all healthy.
    pub fn new(targets: usize) -> Self {
        Self((0..targets).map(|_| AtomicBool::new(true)).collect())
    }

    /// Says whether a target takes copies from now on.
    pub fn set(&self, target: u16, is_healthy: bool) {
        if let Some(place) = self.0.get(usize::from(target)) {
            place.store(is_healthy, Ordering::Relaxed);
        }
    }

    /// Whether a target takes copies.
    #[inline]
    pub fn is_healthy(&self, target: u16) -> bool {
        self.0.get(usize::from(target)).is_some_and(|healthy| healthy.load(Ordering::Relaxed))
    }
}

/// Whether sessions' rates hold: they protect a host that is tapped, so a replay has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rates {
    /// As configured, from this time on.
    Hold(Timestamp),
    /// No limits.
    Ignored,
}

/// Frames that no session was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unasked {
    /// Without IP, or with an IP header that can't be read.
    pub not_ip: u64,
    /// Of unknown direction, so that no rule applies.
    pub undirected: u64,
    /// The mirror's own copies, and what is said about them.
    pub own: u64,
}

/// Executes sessions.
pub struct Executor<O> {
    outlet: O,
    describe: Box<dyn FnMut(u16) -> Option<Tapped> + Send>,
    /// By index of the interface; the outer `None` until it is first met, the inner where no session applies.
    interfaces: Vec<Option<Option<Tapped>>>,
    sessions: Vec<Running>,
    guard: Guard,
    health: Health,
    datagrams: Datagrams<Option<Match>>,
    /// Of datagrams that were dropped: what the tap's rules say, and what those for drops do.
    datagrams_seen: Datagrams<Option<Match>>,
    datagrams_dropped: Datagrams<Option<Match>>,
    inner: Inner,
    unasked: Unasked,
}

/// A session at work.
struct Running {
    mode: Mode,
    packet_length: usize,
    may_fragment: bool,
    bucket: Option<Bucket>,
    counts: SessionCounts,
    /// In step with each other.
    candidates: Vec<Candidate>,
    ways: Vec<Way>,
}

/// How a frame is treated of which not all is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readable {
    /// It is sent if all is there that the session sends.
    Enough,
    /// It is sent as far as it is there.
    Some,
    /// It was taken by the same session before, and is not sent again.
    Taken,
}

/// How copies get to one target of a session.
#[derive(Debug, Clone, Copy)]
struct Way {
    target: u16,
    dst_port: u16,
    tunnel: [u8; TUNNEL_HEADER_BYTES],
}

impl<O: Outlet> Executor<O> {
    /// An executor of `mirror`'s sessions, which have these `vnis`. `describe` tells of an interface by its index, and
    /// answers `None` where no session applies.
    pub fn new(
        mirror: &Mirror,
        vnis: &[Vni],
        rates: Rates,
        health: Health,
        describe: Box<dyn FnMut(u16) -> Option<Tapped> + Send>,
        outlet: O,
    ) -> Self {
        let sessions = mirror.sessions().iter().zip(vnis);
        Self {
            outlet,
            describe,
            interfaces: Vec::new(),
            sessions: sessions.map(|(session, vni)| Running::new(mirror, session, *vni, rates)).collect(),
            guard: Guard::new(mirror.targets(), RandomState::new().hash_one(0)),
            health,
            datagrams: Datagrams::new(RandomState::new().hash_one(0)),
            datagrams_seen: Datagrams::new(RandomState::new().hash_one(0)),
            datagrams_dropped: Datagrams::new(RandomState::new().hash_one(0)),
            inner: Inner::default(),
            unasked: Unasked::default(),
        }
    }

    /// Shows a frame to the sessions of its interface, and sends what they want of it.
    #[inline]
    pub fn observe(&mut self, frame: &Frame, captured: &[u8], hints: Hints) {
        let Some(tapped) = tapped(&mut self.interfaces, &mut self.describe, frame.interface) else { return };
        let Ok(layout) = locate(frame.link_type, captured, frame.original_bytes) else {
            self.unasked.not_ip += 1;
            return;
        };
        let direction = direction(frame, &layout.packet, &tapped.local);
        if direction == Direction::Unknown {
            self.unasked.undirected += 1;
            return;
        }
        if self.guard.holds_back(frame.interface, &layout, captured) {
            self.unasked.own += 1;
            return;
        }
        let probe = probe(tapped, &layout.packet, direction);
        let Some(found) = decide(&mut self.datagrams, tapped, frame.interface, &probe) else { return };
        let seen = Seen {
            captured,
            original_bytes: frame.original_bytes,
            link_type: frame.link_type,
            layout,
            hints,
            mtu: tapped.mtu,
        };
        self.mirror(found, frame.time, direction, &seen, Readable::Enough);
    }

    /// Shows a frame that the kernel dropped to the sessions that mirror what is rejected, and sends what they want of it,
    /// also where not all of it is there. `was_tapped` says that it had passed the tap before: then what the tap's rules
    /// say of it is what has become of it there.
    #[inline]
    pub fn observe_drop(&mut self, frame: &Frame, captured: &[u8], hints: Hints, was_tapped: bool) {
        let Some(tapped) = tapped(&mut self.interfaces, &mut self.describe, frame.interface) else { return };
        let Ok(layout) = locate(frame.link_type, captured, frame.original_bytes) else {
            self.unasked.not_ip += 1;
            return;
        };
        if self.guard.holds_back(frame.interface, &layout, captured) {
            self.unasked.own += 1;
            return;
        }
        let at_tap = probe(tapped, &layout.packet, frame.direction);
        let at_drop = Probe { point: Point::Drop, ..at_tap };
        let datagrams = &mut self.datagrams_seen;
        let taken = was_tapped.then(|| decide(datagrams, tapped, frame.interface, &at_tap)).flatten();
        let Some(found) = decide(&mut self.datagrams_dropped, tapped, frame.interface, &at_drop) else { return };
        let is_taken = taken.is_some_and(|taken| taken.session == found.session);
        let seen = Seen {
            captured,
            original_bytes: frame.original_bytes,
            link_type: frame.link_type,
            layout,
            hints,
            mtu: tapped.mtu,
        };
        let readable = if is_taken { Readable::Taken } else { Readable::Some };
        self.mirror(found, frame.time, frame.direction, &seen, readable);
    }

    /// Sends what a session wants of a frame.
    fn mirror(&mut self, found: Match, time: Timestamp, direction: Direction, seen: &Seen<'_>, readable: Readable) {
        let Some(session) = self.sessions.get_mut(usize::from(found.session)) else { return };
        let mut plan = self.inner.plan(seen);
        if !plan.is_whole && readable != Readable::Enough {
            plan = self.inner.plan_as_seen(seen);
        }
        let frames = plan.frames as u64;
        for (way, candidate) in session.ways.iter().zip(&mut session.candidates) {
            candidate.is_healthy = self.health.is_healthy(way.target);
        }
        let copies = match session.mode {
            Mode::Balance => 1,
            Mode::Replicate => session.ways.len() as u64,
        };
        let counts = session.counts.of(direction);
        counts.matched.add(frames * copies, plan.bytes * copies);

        // Cut short by the capture is only what nobody would have sent anyhow.
        let is_enough = plan.is_whole || (frames == 1 && session.packet_length <= seen.captured.len());
        if readable == Readable::Taken {
            return counts.skip(Skip::AlreadyTaken, frames * copies, plan.bytes * copies);
        }
        if !is_enough && readable == Readable::Enough {
            return counts.skip(Skip::Partial, frames * copies, plan.bytes * copies);
        }
        if let Some(bucket) = &mut session.bucket
            && !bucket.take(frames * copies, plan.bytes * copies, time)
        {
            return counts.skip(Skip::RateLimit, frames * copies, plan.bytes * copies);
        }
        let hash = FlowHash::of(&seen.layout.packet);
        let chosen = match session.mode {
            Mode::Balance => match balance::choose(hash, &session.candidates) {
                Some(at) => at..at + 1,
                None => return counts.skip(Skip::NoTarget, frames, plan.bytes),
            },
            Mode::Replicate => 0..session.ways.len(),
        };
        for at in chosen {
            let (Some(way), Some(candidate)) = (session.ways.get(at), session.candidates.get(at)) else { continue };
            if !candidate.is_healthy {
                counts.skip(Skip::NoTarget, frames, plan.bytes);
                continue;
            }
            let envelope = Envelope { src_port: hash.source_port(), dst_port: way.dst_port, tunnel: way.tunnel };
            let (packet_length, may_fragment, outlet) = (session.packet_length, session.may_fragment, &mut self.outlet);
            self.inner.for_each(seen, &plan, |wire| {
                let inner = wire.get(..packet_length).unwrap_or(wire);
                // What was not kept is on the wire all the same.
                let wire_bytes = if plan.is_whole { wire.len() as u64 } else { plan.bytes };
                let copy = Copied {
                    time,
                    session: found.session,
                    direction,
                    target: way.target,
                    envelope,
                    inner,
                    wire_bytes,
                    is_partial: !is_enough,
                    may_fragment,
                };
                let taken = if inner.len() > INNER_BYTES_MAX { Err(Skip::TooBig) } else { outlet.take(&copy) };
                counts.settle(&copy, taken);
            });
        }
    }

    /// Lets copies go that the outlet is gathering.
    pub fn flush(&mut self) {
        self.outlet.flush();
    }

    /// What became of each session's packets, in the order of [`Mirror::sessions`]; without what the outlet has queued.
    pub fn counts(&self) -> Vec<SessionCounts> {
        self.sessions.iter().map(|session| session.counts).collect()
    }

    /// Frames that no session was asked about.
    pub fn unasked(&self) -> Unasked {
        self.unasked
    }

    /// The outlet, to be finished.
    pub fn into_outlet(self) -> O {
        self.outlet
    }
}

impl Running {
    fn new(mirror: &Mirror, session: &Session, vni: Vni, rates: Rates) -> Self {
        let targets: Vec<_> = mirror.targets_of(session).collect();
        Self {
            mode: session.mode,
            packet_length: session.packet_length.map_or(usize::MAX, |length| length.bytes().into()),
            may_fragment: session.too_big == TooBig::Fragment,
            bucket: match rates {
                Rates::Hold(from) => Some(Bucket::new(session.rate, from)),
                Rates::Ignored => None,
            },
            counts: SessionCounts::default(),
            candidates: targets
                .iter()
                .map(|(_, target)| Candidate {
                    identity: balance::identity(target.address, target.port.get()),
                    inverse_weight: choice::inverse_weight(target.weight.number().get()),
                    is_healthy: true,
                })
                .collect(),
            ways: targets
                .iter()
                .map(|(index, target)| Way {
                    target: *index,
                    dst_port: target.port.get(),
                    tunnel: tunnel_header(target.encapsulation, vni),
                })
                .collect(),
        }
    }
}

fn tapped<'a>(
    interfaces: &'a mut Vec<Option<Option<Tapped>>>,
    describe: &mut (dyn FnMut(u16) -> Option<Tapped> + Send),
    interface: u16,
) -> Option<&'a Tapped> {
    let at = usize::from(interface);
    if interfaces.len() <= at {
        interfaces.resize(at + 1, None);
    }
    interfaces.get_mut(at)?.get_or_insert_with(|| describe(interface)).as_ref()
}

/// What the capture says of the direction, or the link layer, or else the addresses.
fn direction(frame: &Frame, packet: &Packet, local: &LocalNetworks) -> Direction {
    if frame.direction != Direction::Unknown {
        return frame.direction;
    }
    if packet.direction != Direction::Unknown {
        return packet.direction;
    }
    let (src, dst) = packet.addresses.ends();
    local.direction(src, dst)
}

/// A packet at the tap, as the rules see it.
fn probe(tapped: &Tapped, packet: &Packet, direction: Direction) -> Probe {
    let (src, dst) = packet.addresses.ends();
    let class = tapped.classifier.class(src, dst, packet.src_port, packet.dst_port, packet.protocol);
    Probe::at_tap(packet, direction, class)
}

/// Who takes a packet. Fragments follow their first one.
fn decide(datagrams: &mut Datagrams<Option<Match>>, tapped: &Tapped, interface: u16, probe: &Probe) -> Option<Match> {
    match (probe.fragment, probe.datagram()) {
        (Fragment::First { .. }, Some(datagram)) => {
            let found = tapped.decider.decide(probe);
            datagrams.remember(interface, datagram, found);
            found
        }
        (Fragment::Later { .. }, Some(datagram)) => {
            datagrams.recall(interface, datagram).unwrap_or_else(|| tapped.decider.decide(probe))
        }
        _ => tapped.decider.decide(probe),
    }
}

#[cfg(test)]
mod tests;
