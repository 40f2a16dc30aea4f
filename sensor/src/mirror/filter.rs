//! A filter: numbered rules for each direction that choose which packets a session mirrors.
//!
//! Authority: EC2's `CreateTrafficMirrorFilterRule`. Rules of a direction are asked in the order of their numbers, the
//! first that matches decides, and what none matches is not mirrored. Services are rules like the others here, where
//! AWS has a list of them beside the rules. `verdict` is ours.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use flowlog::record::TrafficClass;
use ipnet::IpNet;

use super::Point;
use crate::capture::Direction;
use crate::config::value::{ValueError, read_as_text};
use crate::config::{Ports, Protocol, whole_number_u16};

/// One checked filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    name: String,
    /// Ingress and egress, in the order of their numbers.
    rules: [Vec<Rule>; 2],
}

impl Filter {
    /// A filter of these rules; their numbers are the keys.
    pub fn new(name: String, ingress: BTreeMap<RuleNumber, Rule>, egress: BTreeMap<RuleNumber, Rule>) -> Self {
        let in_order = |rules: BTreeMap<RuleNumber, Rule>| {
            rules.into_iter().map(|(number, rule)| Rule { number, ..rule }).collect()
        };
        Self { name, rules: [in_order(ingress), in_order(egress)] }
    }

    /// What sessions call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rules of a direction, in the order in which they are asked. An unknown direction has none.
    pub fn rules(&self, direction: Direction) -> &[Rule] {
        let [ingress, egress] = &self.rules;
        match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
            Direction::Unknown => &[],
        }
    }
}

/// One checked rule of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    number: RuleNumber,
    action: RuleAction,
    criteria: Criteria,
    description: Option<String>,
}

/// Why criteria make no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CriteriaError {
    /// Ports where the protocol is neither TCP nor UDP: EC2 has them for no other.
    #[error("ports need `protocol = \"tcp\"` or \"udp\", not {0}")]
    PortsWithoutProtocol(Protocol),
    /// Blocks of both versions of IP: no packet has both.
    #[error("source {0} and destination {1} are of different versions of IP")]
    MixedVersions(IpNet, IpNet),
}

impl Rule {
    /// A rule that can match.
    ///
    /// # Errors
    /// If the criteria contradict each other.
    pub fn new(
        number: RuleNumber,
        action: RuleAction,
        criteria: Criteria,
        description: Option<String>,
    ) -> Result<Self, CriteriaError> {
        let has_ports = criteria.source_ports.is_some() || criteria.destination_ports.is_some();
        if has_ports && !matches!(criteria.protocol.number(), Some(TCP | UDP)) {
            return Err(CriteriaError::PortsWithoutProtocol(criteria.protocol));
        }
        match (criteria.source, criteria.destination) {
            (Some(source @ IpNet::V4(_)), Some(destination @ IpNet::V6(_)))
            | (Some(source @ IpNet::V6(_)), Some(destination @ IpNet::V4(_))) => {
                Err(CriteriaError::MixedVersions(source, destination))
            }
            _ => Ok(Self { number, action, criteria, description }),
        }
    }

    /// Its place among the rules of its direction.
    pub fn number(&self) -> RuleNumber {
        self.number
    }

    /// What becomes of a packet that it matches.
    pub fn action(&self) -> RuleAction {
        self.action
    }

    /// What a packet must be.
    pub fn criteria(&self) -> &Criteria {
        &self.criteria
    }

    /// For people.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Whether it is asked about packets that are seen at `point`. A reject without a verdict holds everywhere, so that
    /// what is kept from the targets is kept from them also when the firewall drops it.
    pub fn applies_at(&self, point: Point) -> bool {
        match (point, self.criteria.verdict) {
            (Point::Tap, verdict) => verdict.is_none(),
            (Point::Drop, Some(Verdict::Rejected)) => true,
            (Point::Drop, None) => self.action == RuleAction::Reject,
        }
    }

    /// Whether it can accept a packet of IPv6.
    pub fn accepts_v6(&self) -> bool {
        let no_v4 = |block: Option<IpNet>| !matches!(block, Some(IpNet::V4(_)));
        self.action == RuleAction::Accept && no_v4(self.criteria.source) && no_v4(self.criteria.destination)
    }
}

impl fmt::Display for Rule {
    /// As a sentence without its number: `accept tcp from 10.0.0.0/8 to any ports 80-443`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Criteria { protocol, source, destination, source_ports, destination_ports, service, verdict } =
            &self.criteria;
        f.write_str(self.action.as_str())?;
        if let Some(verdict) = verdict {
            write!(f, " {}", verdict.as_str())?;
        }
        if let Some(service) = service {
            write!(f, " {}", service.as_str())?;
        }
        write!(f, " {protocol}")?;
        for (word, block, ports) in [("from", source, source_ports), ("to", destination, destination_ports)] {
            match block {
                Some(block) => write!(f, " {word} {block}")?,
                None => write!(f, " {word} any")?,
            }
            if let Some(ports) = ports {
                write!(f, " ports {ports}")?;
            }
        }
        Ok(())
    }
}

/// What a packet must be for a rule to match: all of this. What is left out matches every IP packet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Criteria {
    /// IANA number, or all.
    pub protocol: Protocol,
    /// Block of the source; `None` for every address of both versions. A block of one version never matches the other.
    pub source: Option<IpNet>,
    /// Block of the destination, likewise.
    pub destination: Option<IpNet>,
    /// Source ports, of TCP and UDP alone. A packet without ports (a later fragment) matches no ports.
    pub source_ports: Option<Ports>,
    /// Destination ports, likewise.
    pub destination_ports: Option<Ports>,
    /// The network service that it belongs to.
    pub service: Option<Service>,
    /// What the kernel did with it.
    pub verdict: Option<Verdict>,
}

/// What becomes of a packet that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// The session mirrors it.
    Accept,
    /// The session does not; the next is asked. AWS leaves this open: it is our reading of "the first session with a
    /// matching filter".
    Reject,
}

impl RuleAction {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
        }
    }
}

impl FromStr for RuleAction {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "accept" => Ok(Self::Accept),
            "reject" => Ok(Self::Reject),
            _ => Err(ValueError::new(text, "an action of a rule", "write `accept` or `reject`")),
        }
    }
}

/// A network service, one for each class of traffic that AWS does not mirror or mirrors only by name: see
/// [`crate::classify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// The cloud's resolver (AWS: `amazon-dns`).
    Dns,
    /// DHCP.
    Dhcp,
    /// Instance metadata.
    Metadata,
    /// Time sync.
    Time,
    /// Licence activation.
    Activation,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Dns, Self::Dhcp, Self::Metadata, Self::Time, Self::Activation];

    /// The class of its traffic.
    pub fn class(self) -> TrafficClass {
        match self {
            Self::Dns => TrafficClass::Dns,
            Self::Dhcp => TrafficClass::Dhcp,
            Self::Metadata => TrafficClass::Metadata,
            Self::Time => TrafficClass::Time,
            Self::Activation => TrafficClass::Activation,
        }
    }

    /// As written.
    pub fn as_str(self) -> &'static str {
        self.class().as_str()
    }
}

impl FromStr for Service {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let allowed = "write `dns`, `dhcp`, `metadata`, `time` or `activation`";
        let service = Self::ALL.into_iter().find(|service| service.as_str() == text);
        service.ok_or_else(|| ValueError::new(text, "a network service", allowed))
    }
}

/// What the kernel did with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was dropped by a policy: the copy is made where it is dropped, of what can be read there.
    Rejected,
}

impl Verdict {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
        }
    }
}

impl FromStr for Verdict {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "rejected" => Ok(Self::Rejected),
            _ => Err(ValueError::new(text, "a verdict", "write `rejected`, or leave the key out")),
        }
    }
}

/// 1 to 32766, as a network ACL's; a lower number is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleNumber(u16);

impl RuleNumber {
    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for RuleNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RuleNumber {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = whole_number_u16(text).filter(|number| (1..=RULE_NUMBER_MAX).contains(number));
        number.map(Self).ok_or_else(|| ValueError::new(text, "a rule number", "write a number from 1 to 32766"))
    }
}

read_as_text!(RuleAction, Service, Verdict, RuleNumber);

/// AWS names no range for a filter's rules; this is its range for a network ACL's.
const RULE_NUMBER_MAX: u16 = 32_766;
const TCP: u8 = 6;
const UDP: u8 = 17;
