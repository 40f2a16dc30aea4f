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

mod outlet;
mod running;

pub use outlet::{Copied, Outlet, Taken};

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::counters::SessionCounts;
use super::datagrams::Datagrams;
use super::guard::Guard;
use super::inner::{Hints, Inner, Seen};
use super::{Decider, Match, Mirror, Point, Probe, Vni};
use crate::capture::{Direction, Frame};
use crate::classify::{Classifier, LocalNetworks};
use crate::packet::{Fragment, Layout, Packet, locate};
use crate::time::Timestamp;
use running::{Readable, Running, Sending};

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

impl Tapped {
    fn seen<'a>(&self, frame: &Frame, captured: &'a [u8], layout: Layout, hints: Hints) -> Seen<'a> {
        let Frame { original_bytes, link_type, .. } = *frame;
        Seen { captured, original_bytes, link_type, layout, hints, mtu: self.mtu }
    }
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
            sessions: (0..)
                .zip(sessions)
                .map(|(index, (session, vni))| Running::new(mirror, (index, session), *vni, rates))
                .collect(),
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
        let seen = tapped.seen(frame, captured, layout, hints);
        self.mirror(found, &Sending { time: frame.time, direction, seen, readable: Readable::Enough });
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
        let readable = if is_taken { Readable::Taken } else { Readable::Some };
        let seen = tapped.seen(frame, captured, layout, hints);
        self.mirror(found, &Sending { time: frame.time, direction: frame.direction, seen, readable });
    }

    fn mirror(&mut self, found: Match, sending: &Sending<'_>) {
        if let Some(session) = self.sessions.get_mut(usize::from(found.session)) {
            session.send(sending, &mut self.inner, &self.health, &mut self.outlet);
        }
    }

    /// Lets copies go that the outlet is gathering.
    pub fn flush(&mut self) {
        self.outlet.flush();
    }

    /// What became of each session's packets, in the order of [`Mirror::sessions`]; without what the outlet has queued.
    pub fn counts(&self) -> Vec<SessionCounts> {
        self.sessions.iter().map(Running::counts).collect()
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
