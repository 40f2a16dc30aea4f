//! The rule compiler: the sessions of one interface become tables in which a packet is looked up.
//!
//! For each direction the rules of all sessions that apply, in the order in which they would be asked, make one list of
//! at most [`RULES_MAX`]. A rule is the AND of what it says about protocol, class, point, two addresses and two ports.
//! So each of these has a table of its own, from a value to the [`Bits`] of the rules that this value does not rule out,
//! and the AND of what the tables say of a packet holds the rules that match it. The first of them decides: an accept
//! is the answer; a reject takes the rest of its session out, and the next decides.
//!
//! That costs, for a list of n rules, some log2(n) steps in each of four tables and n / 64 words in each AND, where a
//! walk costs n times a comparison of everything.
//!
//! The tables are plain data, for whoever executes them: [`Decider`](super::Decider) in this program, and the kernel,
//! which is given the [`Prefixes`] as entries of longest-prefix-match maps and the others as arrays.

mod bits;
mod ports;
mod prefixes;

pub use bits::Bits;
pub use ports::{PortInterval, PortIntervals};
pub use prefixes::{Address, Prefix, Prefixes};

use flowlog::record::TrafficClass;
use ipnet::IpNet;

use super::{Criteria, Mirror, Point, Rule, RuleAction, RuleNumber, Session};
use crate::capture::Direction;
use crate::config::Ports;

/// How many rules may apply to one direction of one interface, those of all its sessions together (AWS: 10 in a
/// filter). A multiple of 64.
pub const RULES_MAX: usize = 256;

/// The sessions of an interface have more rules for a direction than a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{rules} mirror rules for {direction} apply to it together, at most {RULES_MAX} can")]
pub struct TooManyRules {
    /// How many.
    pub rules: usize,
    /// `ingress` or `egress`.
    pub direction: &'static str,
}

/// The list of one direction of one interface, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTables {
    /// The list itself: what the first bit left means.
    pub rules: Vec<CompiledRule>,
    /// By IANA number.
    pub protocols: Box<[Bits; 256]>,
    /// By [`class_index`].
    pub classes: [Bits; CLASSES],
    /// By [`Point`]: the tap, then the drop.
    pub points: [Bits; 2],
    /// By source port, for packets that have ports.
    pub source_ports: PortIntervals,
    /// By destination port, likewise.
    pub destination_ports: PortIntervals,
    /// For packets that have none.
    pub without_ports: Bits,
    /// By IPv4 source address.
    pub sources_v4: Prefixes<u32>,
    /// By IPv4 destination address.
    pub destinations_v4: Prefixes<u32>,
    /// By IPv6 source address.
    pub sources_v6: Prefixes<u128>,
    /// By IPv6 destination address.
    pub destinations_v6: Prefixes<u128>,
}

/// What a rule does when it is the first that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompiledRule {
    /// Index into [`Mirror::sessions`].
    pub session: u16,
    /// Its number in the session's filter.
    pub number: RuleNumber,
    /// Whether the session mirrors the packet; if not, the next session is asked.
    pub accept: bool,
    /// Index in the list of the first rule of the next session.
    pub session_end: u16,
}

/// Ordinary traffic, and each of [`TrafficClass::ALL`].
pub const CLASSES: usize = TrafficClass::ALL.len() + 1;

/// Where a class stands in [`RuleTables::classes`]: no class first, then in the order of [`TrafficClass::ALL`].
#[inline]
pub fn class_index(class: Option<TrafficClass>) -> usize {
    class.map_or(0, |class| class as usize + 1)
}

impl RuleTables {
    /// Compiles what `mirror` says of one direction of the interface called `name`.
    ///
    /// # Errors
    /// [`TooManyRules`], which the configuration's check has ruled out for every name.
    pub fn compile(mirror: &Mirror, name: &str, direction: Direction) -> Result<Self, TooManyRules> {
        let sessions = mirror.sessions_of(name);
        let count = sessions.iter().map(|(_, session)| session.filter.rules(direction).len()).sum();
        if count > RULES_MAX {
            let direction = if direction == Direction::Egress { "egress" } else { "ingress" };
            return Err(TooManyRules { rules: count, direction });
        }
        let list: Vec<&Rule> = sessions.iter().flat_map(|(_, session)| session.filter.rules(direction)).collect();
        let select = |matches: &dyn Fn(&Rule) -> bool| -> Bits {
            list.iter().enumerate().filter(|(_, rule)| matches(rule)).map(|(at, _)| at).collect()
        };
        let of_criteria = |matches: &dyn Fn(&Criteria) -> bool| select(&|rule| matches(rule.criteria()));

        let mut protocols = Box::new([Bits::default(); 256]);
        for (number, bits) in (0..=u8::MAX).zip(protocols.iter_mut()) {
            *bits = of_criteria(&|criteria| criteria.protocol.number().is_none_or(|wanted| wanted == number));
        }
        let mut classes = [Bits::default(); CLASSES];
        for class in TrafficClass::ALL.iter().map(|class| Some(*class)).chain([None]) {
            if let Some(bits) = classes.get_mut(class_index(class)) {
                *bits = of_criteria(&|criteria| takes_class(criteria, class, mirror.aws_parity()));
            }
        }
        let ports = |port: &dyn Fn(&Criteria) -> Option<Ports>| {
            let named = list.iter().enumerate().filter_map(|(at, rule)| Some((at, port(rule.criteria())?)));
            PortIntervals::new(&of_criteria(&|criteria| port(criteria).is_none()), &named.collect::<Vec<_>>())
        };
        let [sources_v4, destinations_v4] = ENDS.map(|end| {
            let named = list.iter().enumerate().filter_map(|(at, rule)| match end(rule.criteria())? {
                IpNet::V4(block) => Some((at, block.network().to_bits(), block.prefix_len())),
                IpNet::V6(_) => None,
            });
            Prefixes::new(&of_criteria(&|criteria| end(criteria).is_none()), &named.collect::<Vec<_>>())
        });
        let [sources_v6, destinations_v6] = ENDS.map(|end| {
            let named = list.iter().enumerate().filter_map(|(at, rule)| match end(rule.criteria())? {
                IpNet::V6(block) => Some((at, block.network().to_bits(), block.prefix_len())),
                IpNet::V4(_) => None,
            });
            Prefixes::new(&of_criteria(&|criteria| end(criteria).is_none()), &named.collect::<Vec<_>>())
        });
        Ok(Self {
            rules: compiled(&sessions, direction),
            protocols,
            classes,
            points: [Point::Tap, Point::Drop].map(|point| select(&|rule| rule.applies_at(point))),
            source_ports: ports(&|criteria| criteria.source_ports),
            destination_ports: ports(&|criteria| criteria.destination_ports),
            without_ports: of_criteria(&|criteria| {
                criteria.source_ports.is_none() && criteria.destination_ports.is_none()
            }),
            sources_v4,
            destinations_v4,
            sources_v6,
            destinations_v6,
        })
    }
}

/// What a rule says of its two ends.
const ENDS: [fn(&Criteria) -> Option<IpNet>; 2] = [|criteria| criteria.source, |criteria| criteria.destination];

/// Whether criteria let packets of a class through. A rule with a service takes that class alone, one without takes
/// all; but under `aws-parity` the services that AWS leaves out are taken by no rule, and its resolver's DNS only by name.
pub(super) fn takes_class(criteria: &Criteria, class: Option<TrafficClass>, aws_parity: bool) -> bool {
    let excluded = aws_parity && class.is_some_and(is_never_mirrored_by_aws);
    let by_name_only = aws_parity && class == Some(TrafficClass::Dns);
    match criteria.service {
        _ if excluded => false,
        Some(service) => class == Some(service.class()),
        None => !by_name_only,
    }
}

/// AWS, "Traffic Mirroring considerations": what it does not mirror, whatever the rules say.
pub(crate) fn is_never_mirrored_by_aws(class: TrafficClass) -> bool {
    use TrafficClass::{Activation, Dhcp, Dns, Metadata, Mirror, Router, Time};
    match class {
        Dhcp | Metadata | Time | Activation => true,
        Dns | Router | Mirror => false,
    }
}

fn compiled(sessions: &[(u16, &Session)], direction: Direction) -> Vec<CompiledRule> {
    let mut rules = Vec::new();
    for (session, of_session) in sessions {
        let own = of_session.filter.rules(direction);
        // At most RULES_MAX, which was checked.
        let session_end = u16::try_from(rules.len() + own.len()).unwrap_or(u16::MAX);
        rules.extend(own.iter().map(|rule| CompiledRule {
            session: *session,
            number: rule.number(),
            accept: rule.action() == RuleAction::Accept,
            session_end,
        }));
    }
    rules
}
