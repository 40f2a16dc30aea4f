//! Which connections a stateful layer has let in, told from flows and their times.
//!
//! Authority for how long a connection is remembered: the AWS page "Security group connection tracking".

use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;

use foldhash::fast::RandomState;

use super::FlowView;
use super::matching::Traffic;
use crate::capture::Direction;
use crate::time::{NANOS_PER_SEC, Timestamp};

/// How many connections are remembered between intervals, and how many of one interval are told apart.
pub const CONNECTIONS_MAX: usize = 1 << 20;

/// AWS's default for established TCP connections: five days.
const TCP_IDLE_SECS: u64 = 432_000;
/// AWS's default for UDP that went both ways; taken for every other protocol too.
const OTHER_IDLE_SECS: u64 = 180;

/// The connections of the interval at hand, and those let in so far. Bounded, and the same for any order of flows.
#[derive(Debug)]
pub(super) struct Connections {
    /// Let in, with the time of the last packet.
    open: HashMap<ConnectionKey, Timestamp, RandomState>,
    /// Of this interval.
    seen: HashMap<ConnectionKey, Sighting, RandomState>,
    /// The keys of `seen`, largest first; filled only while `seen` is full.
    largest: BinaryHeap<ConnectionKey>,
    limit: usize,
    /// Flows shown in this interval.
    observed: u64,
    untracked: u64,
    evicted: u64,
}

/// A connection as an interface sees it: the far end and the near end, whoever speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ConnectionKey {
    pub(super) interface: u16,
    protocol: u8,
    remote: (IpAddr, u16),
    local: (IpAddr, u16),
}

/// What an interval showed of a connection.
#[derive(Debug, Clone, Copy, Default)]
struct Sighting {
    first_ingress: Option<Timestamp>,
    first_egress: Option<Timestamp>,
    last: Timestamp,
    flows: u64,
    /// Both directions pass. Known when the interval is settled.
    open: bool,
}

impl Default for Connections {
    fn default() -> Self {
        Self::with_limit(CONNECTIONS_MAX)
    }
}

impl Connections {
    /// Remembers at most `limit` connections.
    pub(super) fn with_limit(limit: usize) -> Self {
        Self {
            open: HashMap::default(),
            seen: HashMap::default(),
            largest: BinaryHeap::new(),
            limit,
            observed: 0,
            untracked: 0,
            evicted: 0,
        }
    }

    /// Flows that found no room in their interval.
    pub(super) fn untracked(&self) -> u64 {
        self.untracked
    }

    /// Connections forgotten while they were alive.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn begin_interval(&mut self) {
        self.seen.clear();
        self.largest.clear();
        self.observed = 0;
    }

    /// Takes note of a flow that has a direction.
    pub(super) fn observe(&mut self, flow: &FlowView) {
        let Some(key) = ConnectionKey::of(flow) else { return };
        self.observed += 1;
        if !self.seen.contains_key(&key) && !self.make_room(key) {
            return;
        }
        let sighting = self.seen.entry(key).or_default();
        let first = match flow.direction {
            Direction::Egress => &mut sighting.first_egress,
            Direction::Ingress | Direction::Unknown => &mut sighting.first_ingress,
        };
        *first = Some(first.map_or(flow.first, |first| first.min(flow.first)));
        sighting.last = sighting.last.max(flow.last);
        sighting.flows += 1;
    }

    /// Whether a new key may enter `seen`. Beyond the limit the smallest keys stay, whatever came first: a key that
    /// was turned away stays away, as there are always `limit` smaller ones.
    fn make_room(&mut self, key: ConnectionKey) -> bool {
        if self.seen.len() < self.limit {
            return true;
        }
        if self.largest.is_empty() {
            self.largest.extend(self.seen.keys().copied());
        }
        let Some(mut largest) = self.largest.peek_mut() else { return false };
        if key > *largest {
            return false;
        }
        self.seen.remove(&*largest);
        *largest = key;
        true
    }

    /// Decides for each connection of the interval whether it is let in. `allows` says what the rules say of a
    /// direction, without state.
    pub(super) fn settle(&mut self, allows: impl Fn(&ConnectionKey, Direction) -> bool) {
        let mut tracked = 0;
        let mut latest = Timestamp::default();
        for (key, sighting) in &mut self.seen {
            tracked += sighting.flows;
            latest = latest.max(sighting.last);
            let known = self.open.get(key).filter(|last| !is_idle(key.protocol, **last, sighting.first()));
            let last = known.copied().unwrap_or_default().max(sighting.last);
            sighting.open = known.is_some() || allows(key, sighting.opener(key));
            // An opener that is turned away leaves the other side to speak first.
            let answer = sighting.answer(key).is_some_and(|answer| allows(key, answer));
            if sighting.open || answer {
                self.open.insert(*key, last);
            } else {
                self.open.remove(key);
            }
        }
        self.untracked += self.observed - tracked;
        self.evict(latest);
    }

    /// Whether a connection of the settled interval passes in both directions.
    pub(super) fn is_open(&self, key: &ConnectionKey) -> bool {
        self.seen.get(key).is_some_and(|sighting| sighting.open)
    }

    /// Brings `open` back to its limit: first what is idle anyway, then what is oldest.
    fn evict(&mut self, now: Timestamp) {
        if self.open.len() <= self.limit {
            return;
        }
        self.open.retain(|key, last| !is_idle(key.protocol, *last, now));
        let excess = self.open.len().saturating_sub(self.limit);
        if excess == 0 {
            return;
        }
        let mut by_age: Vec<_> = self.open.iter().map(|(key, last)| (*last, *key)).collect();
        let (oldest, last_of_oldest, _) = by_age.select_nth_unstable(excess - 1);
        for (_, key) in oldest.iter().chain([&*last_of_oldest]) {
            self.open.remove(key);
        }
        self.evicted += excess as u64;
    }
}

impl ConnectionKey {
    /// `None` for a flow without direction.
    pub(super) fn of(flow: &FlowView) -> Option<Self> {
        let (src, dst) = ((flow.src, flow.src_port), (flow.dst, flow.dst_port));
        let (remote, local) = match flow.direction {
            Direction::Ingress => (src, dst),
            Direction::Egress => (dst, src),
            Direction::Unknown => return None,
        };
        Some(Self { interface: flow.interface, protocol: flow.protocol, remote, local })
    }

    /// What a rule sees of the connection's packets in `direction`.
    pub(super) fn traffic(&self, direction: Direction) -> Traffic {
        let (_, dst_port) = if direction == Direction::Egress { self.remote } else { self.local };
        Traffic { protocol: self.protocol, peer: self.remote.0, dst_port }
    }
}

impl Sighting {
    fn first(&self) -> Timestamp {
        self.first_ingress.into_iter().chain(self.first_egress).min().unwrap_or(self.last)
    }

    /// The direction of the connection's first packet. Captures with coarse clocks show both sides at one time: then
    /// the side with the greater port is taken for the client, and the far end if the ports tell nothing.
    fn opener(&self, key: &ConnectionKey) -> Direction {
        let egress_first = match (self.first_ingress, self.first_egress) {
            (Some(ingress), Some(egress)) if ingress == egress => key.local.1 > key.remote.1,
            (Some(ingress), Some(egress)) => egress < ingress,
            (None, _) => true,
            (Some(_), None) => false,
        };
        if egress_first { Direction::Egress } else { Direction::Ingress }
    }

    /// The other direction, if it was seen.
    fn answer(&self, key: &ConnectionKey) -> Option<Direction> {
        match self.opener(key) {
            Direction::Egress => self.first_ingress.and(Some(Direction::Ingress)),
            Direction::Ingress | Direction::Unknown => self.first_egress.and(Some(Direction::Egress)),
        }
    }
}

/// Whether a connection last seen at `last` is forgotten at `now`.
fn is_idle(protocol: u8, last: Timestamp, now: Timestamp) -> bool {
    let idle_secs = if protocol == TCP { TCP_IDLE_SECS } else { OTHER_IDLE_SECS };
    now.0.saturating_sub(last.0) > idle_secs * NANOS_PER_SEC
}

const TCP: u8 = 6;
