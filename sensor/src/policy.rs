//! Security groups and network ACLs: which flows a policy lets pass.
//!
//! Authority: the AWS pages "Security groups", "Security group connection tracking" and "Network ACLs", and the ping
//! examples of "Flow log record examples". Where AWS decides about packets, this decides about flows, after the fact:
//! once an interval is complete, each of its flows gets one [`Action`].
//!
//! - Security groups are stateful. A connection belongs to the side whose packet came first; if its groups allow that
//!   side's direction, both directions pass, in this interval and in later ones until the connection is idle for too
//!   long: five days for TCP, three minutes for the rest. If not, the other side is judged as if it had opened the
//!   connection itself. Several groups on one interface allow what any of them allows. An interface without a group is
//!   not filtered by this layer.
//! - Network ACLs are stateless. Every flow is judged alone, in its own direction, by the lowest-numbered rule that
//!   matches it; what no rule matches is denied. An interface without an ACL is not filtered by this layer.
//! - A flow is ACCEPT if both layers let it pass. The services that neither layer filters (resolver, DHCP, metadata,
//!   time, activation, router) always pass. So does a flow without a direction, which is counted as unjudged.
//!
//! In a rule the block is the other side's (source of ingress, destination of egress) and the ports are the
//! destination's, as in AWS. ICMP messages pair by their addresses alone, since a flow's ICMP ports are 0.

mod connections;
mod matching;
mod raw;
mod rules;
#[cfg(test)]
mod tests;

pub use connections::CONNECTIONS_MAX;
pub use raw::PolicyError;

use std::net::IpAddr;

use flowlog::record::{Action, TrafficClass};

use crate::capture::Direction;
use crate::time::Timestamp;
use connections::{ConnectionKey, Connections};
use matching::Traffic;
use rules::{AclRule, NetworkAcl, Permission, SecurityGroup};

/// What a policy looks at in a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowView {
    /// Index of the interface.
    pub interface: u16,
    /// From the interface's point of view.
    pub direction: Direction,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port, 0 where there is none.
    pub src_port: u16,
    /// Destination port, 0 where there is none.
    pub dst_port: u16,
    /// IANA number.
    pub protocol: u8,
    /// What [`crate::classify::Classifier`] says of the flow.
    pub class: Option<TrafficClass>,
    /// The flow's first packet in the interval.
    pub first: Timestamp,
    /// The flow's last packet in the interval.
    pub last: Timestamp,
}

/// What a policy could not do as it should. All zero when every verdict is sound; but rows that a full flow table hands
/// out early are judged without what other tables still hold, which shows in
/// [`FrameCounts::early_drains`](crate::ledger::FrameCounts::early_drains).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicyCounters {
    /// Flows that rules apply to, and that passed because their direction is not known.
    pub unjudged: u64,
    /// Flows judged without regard to their connection, because an interval had more than [`CONNECTIONS_MAX`].
    pub untracked: u64,
    /// Connections forgotten before their time, because more than [`CONNECTIONS_MAX`] were alive.
    pub evicted: u64,
}

impl PolicyCounters {
    /// Adds what another policy could not do.
    pub fn add(&mut self, other: &Self) {
        self.unjudged += other.unjudged;
        self.untracked += other.untracked;
        self.evicted += other.evicted;
    }
}

/// A policy at work: what was written, which interfaces it applies to, and the connections it has let in.
#[derive(Debug, Default)]
pub struct Policy {
    groups: Vec<SecurityGroup>,
    acls: Vec<NetworkAcl>,
    /// By interface index.
    bound: Vec<BoundRules>,
    connections: Connections,
    unjudged: u64,
}

/// The rules that apply to one interface.
#[derive(Debug, Clone, Default)]
struct BoundRules {
    /// Ingress and egress of all its groups together; `None` without a group.
    groups: Option<[Vec<Permission>; 2]>,
    /// Ingress and egress, in the order of their numbers; `None` without an ACL.
    acl: Option<[Vec<AclRule>; 2]>,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// The first thing that is wrong with the text, with its line.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let (groups, acls) = raw::parse(text)?;
        Ok(Self { groups, acls, ..Self::default() })
    }

    /// Tells the policy the name of an interface, so that it finds the groups and the ACL that apply to it. An
    /// interface that was never bound is not filtered.
    ///
    /// # Errors
    /// [`PolicyError::TwoAcls`] if two network ACLs apply: a subnet has one, in AWS as here.
    pub fn bind(&mut self, interface: u16, name: &str) -> Result<(), PolicyError> {
        let mut rules = BoundRules::default();
        for group in self.groups.iter().filter(|group| group.interfaces.iter().any(|glob| glob.matches(name))) {
            let [ingress, egress] = rules.groups.get_or_insert_default();
            ingress.extend_from_slice(&group.ingress);
            egress.extend_from_slice(&group.egress);
        }
        let mut acls = self.acls.iter().filter(|acl| acl.interfaces.iter().any(|glob| glob.matches(name)));
        let acl = acls.next();
        if let (Some(first), Some(second)) = (acl, acls.next()) {
            let (first, second) = (first.name.clone(), second.name.clone());
            return Err(PolicyError::TwoAcls { interface: name.to_owned(), first, second });
        }
        rules.acl = acl.map(|acl| [acl.ingress.clone(), acl.egress.clone()]);

        let index = usize::from(interface);
        if self.bound.len() <= index {
            self.bound.resize(index + 1, BoundRules::default());
        }
        if let Some(slot) = self.bound.get_mut(index) {
            *slot = rules;
        }
        Ok(())
    }

    /// Starts the judgement of an interval: show it every flow, settle, then ask about every flow.
    pub fn begin_interval(&mut self) -> Observing<'_> {
        self.connections.begin_interval();
        Observing { policy: self }
    }

    /// What went wrong so far.
    pub fn counters(&self) -> PolicyCounters {
        PolicyCounters {
            unjudged: self.unjudged,
            untracked: self.connections.untracked(),
            evicted: self.connections.evicted(),
        }
    }

    fn rules(&self, interface: u16) -> Option<&BoundRules> {
        self.bound.get(usize::from(interface))
    }
}

/// An interval whose flows are being shown. The order in which they come makes no difference.
#[derive(Debug)]
pub struct Observing<'a> {
    policy: &'a mut Policy,
}

impl<'a> Observing<'a> {
    /// Takes note of a flow. Show each flow of the interval once.
    pub fn observe(&mut self, flow: &FlowView) {
        let Some(rules) = self.policy.rules(flow.interface) else { return };
        let (stateful, filtered) = (rules.groups.is_some(), rules.groups.is_some() || rules.acl.is_some());
        if !filtered || is_never_filtered(flow.class) {
            return;
        }
        if flow.direction == Direction::Unknown {
            self.policy.unjudged += 1;
        } else if stateful {
            self.policy.connections.observe(flow);
        }
    }

    /// Decides who opened each connection, and remembers the connections that are let in.
    pub fn settle(self) -> Settled<'a> {
        let Policy { connections, bound, .. } = self.policy;
        connections.settle(|key, direction| {
            bound
                .get(usize::from(key.interface))
                .is_none_or(|rules| rules.groups_allow(direction, &key.traffic(direction)))
        });
        Settled { policy: self.policy }
    }
}

/// An interval that is ready to be asked.
#[derive(Debug, Clone, Copy)]
pub struct Settled<'a> {
    policy: &'a Policy,
}

impl Settled<'_> {
    /// Whether a flow of this interval passes.
    pub fn verdict(&self, flow: &FlowView) -> Action {
        let Some(rules) = self.policy.rules(flow.interface) else { return Action::Accept };
        if is_never_filtered(flow.class) {
            return Action::Accept;
        }
        let Some(key) = ConnectionKey::of(flow) else { return Action::Accept };
        let traffic = key.traffic(flow.direction);
        let pass = rules.acl_allows(flow.direction, &traffic)
            && (rules.groups_allow(flow.direction, &traffic) || self.policy.connections.is_open(&key));
        if pass { Action::Accept } else { Action::Reject }
    }
}

impl BoundRules {
    fn groups_allow(&self, direction: Direction, traffic: &Traffic) -> bool {
        let Some(permissions) = self.groups.as_ref() else { return true };
        of_direction(permissions, direction).iter().any(|permission| permission.matches(traffic))
    }

    fn acl_allows(&self, direction: Direction, traffic: &Traffic) -> bool {
        let Some(rules) = self.acl.as_ref() else { return true };
        let decisive = of_direction(rules, direction).iter().find(|rule| rule.criteria.matches(traffic));
        decisive.is_some_and(|rule| rule.action == rules::RuleAction::Allow)
    }
}

/// The rules of a direction; flows without one never get here.
fn of_direction<T>([ingress, egress]: &[Vec<T>; 2], direction: Direction) -> &[T] {
    match direction {
        Direction::Ingress => ingress,
        Direction::Egress => egress,
        Direction::Unknown => &[],
    }
}

/// AWS, "Control traffic to your resources using security groups": neither layer filters these.
fn is_never_filtered(class: Option<TrafficClass>) -> bool {
    use TrafficClass::{Activation, Dhcp, Dns, Metadata, Mirror, Router, Time};
    match class {
        Some(Dns | Dhcp | Metadata | Time | Activation | Router) => true,
        Some(Mirror) | None => false,
    }
}

/// A fuzz target: no text may make the reader of policy files panic, and what it takes can be bound and asked.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(mut policy) = Policy::parse(text) {
        // Two ACLs on one interface are a refusal, not a fault.
        drop(policy.bind(0, "eth0"));
        let flow = FlowView {
            interface: 0,
            direction: Direction::Ingress,
            src: IpAddr::from([10, 0, 0, 1]),
            dst: IpAddr::from([10, 0, 0, 2]),
            src_port: 40_000,
            dst_port: 443,
            protocol: 6,
            class: None,
            first: Timestamp(0),
            last: Timestamp(0),
        };
        let mut observing = policy.begin_interval();
        observing.observe(&flow);
        observing.settle().verdict(&flow);
    }
}
