//! A session at work: what it takes becomes wire frames, as its rate allows, and these go to its targets.

use flowtap_abi::choice;

use super::{Copied, Health, Outlet, Rates};
use crate::capture::Direction;
use crate::mirror::balance::{self, Candidate};
use crate::mirror::bucket::Bucket;
use crate::mirror::counters::{SessionCounts, Skip};
use crate::mirror::encapsulate::{Envelope, INNER_BYTES_MAX, TUNNEL_HEADER_BYTES, tunnel_header};
use crate::mirror::flow_hash::FlowHash;
use crate::mirror::inner::{Inner, Seen};
use crate::mirror::{Mirror, Mode, Session, TooBig, Vni};
use crate::time::Timestamp;

/// A session at work.
pub(super) struct Running {
    /// Into [`Mirror::sessions`].
    index: u16,
    mode: Mode,
    packet_length: usize,
    may_fragment: bool,
    bucket: Option<Bucket>,
    counts: SessionCounts,
    /// In step with each other.
    candidates: Vec<Candidate>,
    ways: Vec<Way>,
}

/// A frame that it takes.
pub(super) struct Sending<'a> {
    pub(super) time: Timestamp,
    pub(super) direction: Direction,
    pub(super) seen: Seen<'a>,
    pub(super) readable: Readable,
}

/// How a frame is treated of which not all is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readable {
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

impl Running {
    /// The session of that index, which has these targets in `mirror`.
    pub(super) fn new(mirror: &Mirror, (index, session): (u16, &Session), vni: Vni, rates: Rates) -> Self {
        let targets: Vec<_> = mirror.targets_of(session).collect();
        Self {
            index,
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

    /// What became of its packets; without what the outlet has queued.
    pub(super) fn counts(&self) -> SessionCounts {
        self.counts
    }

    /// Looks which targets may get flows now. As in the kernel, those of one without a way go to the others of the session;
    /// where no target has one, they stay.
    fn look(&mut self, health: &Health, outlet: &impl Outlet) {
        let has_way = |way: &Way| outlet.room_bytes(way.target).is_some();
        let may_move = self.mode == Mode::Balance && self.ways.iter().any(has_way);
        for (way, candidate) in self.ways.iter().zip(&mut self.candidates) {
            candidate.is_healthy = health.is_healthy(way.target) && (!may_move || has_way(way));
        }
    }

    /// Sends what it wants of a frame.
    pub(super) fn send<O: Outlet>(
        &mut self,
        sending: &Sending<'_>,
        inner: &mut Inner,
        health: &Health,
        outlet: &mut O,
    ) {
        let Sending { time, direction, ref seen, readable } = *sending;
        let mut plan = inner.plan(seen);
        if !plan.is_whole && readable != Readable::Enough {
            plan = inner.plan_as_seen(seen);
        }
        let frames = plan.frames as u64;
        self.look(health, outlet);
        let copies = match self.mode {
            Mode::Balance => 1,
            Mode::Replicate => self.ways.len() as u64,
        };
        let counts = self.counts.of(direction);
        counts.matched.add(frames * copies, plan.bytes * copies);

        // Cut short by the capture is only what nobody would have sent anyhow.
        let is_enough = plan.is_whole || (frames == 1 && self.packet_length <= seen.captured.len());
        if readable == Readable::Taken {
            return counts.skip(Skip::AlreadyTaken, frames * copies, plan.bytes * copies);
        }
        if !is_enough && readable == Readable::Enough {
            return counts.skip(Skip::Partial, frames * copies, plan.bytes * copies);
        }
        let hash = FlowHash::of(&seen.layout.packet);
        let chosen = match self.mode {
            Mode::Balance => match balance::choose(hash, &self.candidates) {
                Some(at) => at..at + 1,
                None => return counts.skip(Skip::NoTarget, frames, plan.bytes),
            },
            Mode::Replicate => 0..self.ways.len(),
        };
        for at in chosen {
            let (Some(way), Some(candidate)) = (self.ways.get(at), self.candidates.get(at)) else { continue };
            if !candidate.is_healthy {
                counts.skip(Skip::NoTarget, frames, plan.bytes);
                continue;
            }
            // In the kernel's order and by its measure, also of a super-packet as a whole: nothing is paid for what can't go.
            let longest_bytes = plan.longest_bytes.min(self.packet_length);
            let refusal = match (outlet.room_bytes(way.target), &mut self.bucket) {
                (None, _) => Some(Skip::Unreachable),
                (Some(_), None) => None,
                (Some(_), Some(_)) if longest_bytes > INNER_BYTES_MAX => Some(Skip::TooBig),
                (Some(room), Some(_)) if !self.may_fragment && longest_bytes > room => Some(Skip::TooBig),
                (Some(_), Some(bucket)) => (!bucket.take(frames, plan.bytes, time)).then_some(Skip::RateLimit),
            };
            if let Some(reason) = refusal {
                counts.skip(reason, frames, plan.bytes);
                continue;
            }
            let envelope = Envelope { src_port: hash.source_port(), dst_port: way.dst_port, tunnel: way.tunnel };
            inner.for_each(seen, &plan, |wire| {
                let inner = wire.get(..self.packet_length).unwrap_or(wire);
                // What was not kept is on the wire all the same.
                let wire_bytes = if plan.is_whole { wire.len() as u64 } else { plan.bytes };
                let copy = Copied {
                    time,
                    session: self.index,
                    direction,
                    target: way.target,
                    envelope,
                    inner,
                    wire_bytes,
                    is_partial: !is_enough,
                    may_fragment: self.may_fragment,
                };
                let taken = if inner.len() > INNER_BYTES_MAX { Err(Skip::TooBig) } else { outlet.take(&copy) };
                counts.settle(&copy, taken);
            });
        }
    }
}
