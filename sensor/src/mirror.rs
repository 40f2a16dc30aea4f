//! Traffic mirroring: which packets of which interface are copied, and where to.
//!
//! Authority: the AWS pages on traffic mirroring and EC2's API, in whose words this speaks. A [`Session`] joins the
//! interfaces it mirrors, a [`Filter`] that chooses packets by numbered [`Rule`]s, and the [`Target`]s that get copies.
//! The sessions of an interface are asked in the order of their numbers. The first whose filter accepts a packet
//! mirrors it, and no other; a filter that rejects it, or has no rule for it, leaves it to the next session; what none
//! accepts is not mirrored.
//!
//! [`Mirror`] holds what was configured, checked. [`compile`] turns it into tables for one interface, in which a packet
//! is looked up instead of being shown to each rule; [`Decider`] asks them, and the kernel is given the same ones.
//! [`explain`] tells people what the tables say, and why.
//!
//! The executor of the packet plane is [`Executor`]: it takes frames, decides, makes wire frames of them ([`inner`]),
//! chooses a target ([`balance`]) and hands copies to an [`Outlet`], a file or the network. What became of them is in
//! [`counters`].
//!
//! Differences from AWS: any number of sessions and rules up to the bounds below (AWS: 3 and 10); a session may have
//! several targets; a rule may leave out its blocks, and then matches both versions of IP; services are numbered rules
//! like the others; and unless `aws-parity` is on, what AWS never mirrors is mirrored if a rule accepts it. With it,
//! DHCP, instance metadata, time sync and licence activation are never mirrored, and DNS to the resolver only by
//! the rule for that service. Packets are copied before the host's firewall sees them (ingress), so copies of what it
//! then drops are sent all the same and can't be called back. ARP and other frames without IP are never mirrored.
//!
//! What AWS can't: a rule with `verdict = "rejected"` takes packets where the kernel drops them by a policy, for the drop
//! reasons of REJECT rows, at the interface of those rows. Such a copy is made of what can be read there. It has the
//! Ethernet header of the wire where the packet came in by one, else one of our making. It may end before the packet
//! does (payload in pages of its own, and what is beyond 16 KiB, can't be read); then nothing is put in the place of what
//! is missing: the lengths in its headers are the packet's, and it is counted as partial. Copies go from the kernel
//! through a ring buffer to [`live`], whose thread sends them, also where the kernel makes all others; there the
//! session's rate holds for both apart.

pub mod balance;
pub mod bucket;
pub mod checksum;
pub mod compile;
pub mod counters;
mod datagrams;
mod decide;
pub mod encapsulate;
pub mod executor;
pub mod explain;
mod filter;
pub mod flow_hash;
pub mod fragmentation;
mod frames;
mod fuzz;
mod guard;
pub mod health;
pub mod inner;
#[cfg(feature = "ebpf")]
pub mod kernel;
pub mod live;
pub mod memory;
mod mirrored;
mod next_hop;
pub mod path_size;
pub mod pcap_outlet;
mod probe;
mod rate;
pub mod report;
pub mod segment;
pub mod sender;
mod session;
pub mod socket;
mod target;
#[cfg(test)]
mod tests;
mod vni;
mod warning;

pub use compile::RULES_MAX;
pub use decide::{Decider, Match};
pub use executor::{Executor, Outlet};
pub use filter::{Criteria, CriteriaError, Filter, Rule, RuleAction, RuleNumber, Service, Verdict};
pub use fuzz::fuzz;
pub use guard::OwnOutput;
pub use mirrored::{Mirrored, Pace};
pub use probe::{Datagram, Point, Probe};
pub use rate::{BitRate, PacketRate, RateLimit};
pub use session::{
    Mode, Offload, PACKET_LENGTH_MIN_V4, PACKET_LENGTH_MIN_V6, PacketLength, Session, SessionNumber, TooBig,
};
pub use target::{CheckTime, Encapsulation, HealthCheck, HttpPath, Question, Target, Threshold, Weight};
pub use vni::Vni;
pub use warning::Warning;

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::capture::Direction;

/// How many targets there may be.
pub const TARGETS_MAX: usize = 64;
/// How many filters there may be.
pub const FILTERS_MAX: usize = 64;
/// How many sessions there may be (AWS: 3 an interface).
pub const SESSIONS_MAX: usize = 64;

/// All that is configured about mirroring, complete and consistent. Empty by default: nothing is mirrored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirror {
    targets: Vec<Target>,
    filters: Vec<Arc<Filter>>,
    sessions: Vec<Session>,
    aws_parity: bool,
}

/// A target that is this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mirror target `{target}`: {address} is an address of this host, which would mirror to itself")]
pub struct OwnTarget {
    /// Its name.
    pub target: String,
    /// Its address.
    pub address: IpAddr,
}

impl Mirror {
    /// What was checked: every session's targets are in `targets`.
    pub(crate) fn new(
        targets: Vec<Target>,
        filters: Vec<Arc<Filter>>,
        sessions: Vec<Session>,
        aws_parity: bool,
    ) -> Self {
        Self { targets, filters, sessions, aws_parity }
    }

    /// Every target, in the order of the file.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Every filter, in the order of the file.
    pub fn filters(&self) -> &[Arc<Filter>] {
        &self.filters
    }

    /// Every session, in the order of the file.
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// Whether AWS's exclusions hold.
    pub fn aws_parity(&self) -> bool {
        self.aws_parity
    }

    /// The targets of a session, with their indexes in [`Self::targets`].
    pub fn targets_of<'a>(&'a self, session: &'a Session) -> impl Iterator<Item = (u16, &'a Target)> {
        session.targets.iter().filter_map(|index| Some((*index, self.targets.get(usize::from(*index))?)))
    }

    /// The sessions that apply to the interface called `name`, with their indexes in [`Self::sessions`], in the order in
    /// which they are asked.
    pub fn sessions_of(&self, name: &str) -> Vec<(u16, &Session)> {
        let indexed = (0..).zip(&self.sessions);
        let mut sessions: Vec<_> = indexed.filter(|(_, session)| session.interface.matches(name)).collect();
        sessions.sort_by_key(|(_, session)| session.number);
        sessions
    }

    /// The VNI of each session, in their order: the configured one, else [`Vni::derived`] from `identity`, which must
    /// be this host's alone and the same after every start. A derived one is no other session's.
    pub fn vnis(&self, identity: &str) -> Vec<Vni> {
        let mut taken: HashSet<Vni> = self.sessions.iter().filter_map(|session| session.vni).collect();
        let mut derived = |session: &Session| {
            let attempt = |attempt| Vni::derived(identity, session.number, session.interface.as_str(), attempt);
            // There are far more identifiers than sessions, so one of the first is free.
            let free = (0..=u32::MAX).map(attempt).find(|vni| taken.insert(*vni));
            free.unwrap_or_else(|| attempt(0))
        };
        self.sessions.iter().map(|session| session.vni.unwrap_or_else(|| derived(session))).collect()
    }

    /// Whether a packet is a mirrored copy, or an answer to one, as far as its addresses and ports tell: such are never
    /// mirrored, whatever the rules say. [`Decider`] does not ask this; who executes decisions does, of whole packets.
    pub fn own_output(&self, probe: &Probe) -> OwnOutput {
        guard::own_output(&self.targets, probe)
    }

    /// The first rule by which a session wants packets from where the kernel drops them, if there is one. Only a run with
    /// the kernel plane can have them.
    pub fn drop_rule(&self) -> Option<DropRule> {
        let rules = self.sessions.iter().flat_map(|session| {
            let filter = &session.filter;
            let both = [Direction::Ingress, Direction::Egress].map(|direction| filter.rules(direction));
            both.into_iter().flatten().map(move |rule| (filter, rule))
        });
        let mut at_drop = rules.filter(|(_, rule)| {
            rule.action() == RuleAction::Accept && rule.criteria().verdict == Some(Verdict::Rejected)
        });
        at_drop
            .next()
            .map(|(filter, rule)| DropRule { filter: filter.name().to_owned(), number: rule.number().number() })
    }

    /// Refuses a target that is this host, as far as that can be seen: its address is one of the host's, which are
    /// given, or a loopback address. Only targets that a session uses are looked at.
    ///
    /// # Errors
    /// The first such target.
    pub fn check_host(&self, addresses: &[IpAddr]) -> Result<(), OwnTarget> {
        let used = self.sessions.iter().flat_map(|session| self.targets_of(session));
        let is_own = |address: IpAddr| address.is_loopback() || addresses.contains(&address);
        let own = used.map(|(_, target)| target).find(|target| is_own(target.address));
        own.map_or(Ok(()), |target| Err(OwnTarget { target: target.name.clone(), address: target.address }))
    }
}

/// A rule that takes packets where the kernel drops them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropRule {
    /// Name of the filter.
    pub filter: String,
    /// Number of the rule.
    pub number: u16,
}

impl fmt::Display for DropRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mirror filter `{}`: rule {} has `verdict = \"rejected\"`", self.filter, self.number)
    }
}
