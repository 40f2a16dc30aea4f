//! Which session takes a packet: the rule tables, asked in this program.

use super::compile::{Bits, RuleTables, TooManyRules, class_index};
use super::{Mirror, Point, Probe, RuleNumber};
use crate::capture::Direction;
use crate::packet::Addresses;

/// The tables of one interface, both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decider {
    ingress: RuleTables,
    egress: RuleTables,
}

/// Who takes a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Index into [`Mirror::sessions`].
    pub session: u16,
    /// The rule that accepts it, in the session's filter and the packet's direction.
    pub rule: RuleNumber,
}

impl Decider {
    /// What `mirror` says of the interface called `name`.
    ///
    /// # Errors
    /// [`TooManyRules`], which the configuration's check has ruled out for every name.
    pub fn new(mirror: &Mirror, name: &str) -> Result<Self, TooManyRules> {
        Ok(Self {
            ingress: RuleTables::compile(mirror, name, Direction::Ingress)?,
            egress: RuleTables::compile(mirror, name, Direction::Egress)?,
        })
    }

    /// The tables of a direction; an unknown one has none.
    #[inline]
    pub fn tables(&self, direction: Direction) -> Option<&RuleTables> {
        match direction {
            Direction::Ingress => Some(&self.ingress),
            Direction::Egress => Some(&self.egress),
            Direction::Unknown => None,
        }
    }

    /// Whether no packet of the interface can be mirrored, so that none need be shown.
    pub fn is_idle(&self) -> bool {
        [Point::Tap, Point::Drop].iter().all(|point| self.is_idle_at(*point))
    }

    /// The same of packets that are seen at one point.
    pub fn is_idle_at(&self, point: Point) -> bool {
        [&self.ingress, &self.egress].iter().all(|tables| {
            let asked = tables.at(point);
            !tables.rules.iter().enumerate().any(|(at, rule)| rule.accept && asked.contains(at))
        })
    }

    /// Who takes a packet; `None` if nobody does.
    #[inline]
    pub fn decide(&self, probe: &Probe) -> Option<Match> {
        let tables = self.tables(probe.direction)?;
        let mut matching = tables.matching(probe);
        loop {
            let rule = tables.rules.get(matching.first()?)?;
            if rule.accept {
                return Some(Match { session: rule.session, rule: rule.number });
            }
            matching.clear_before(rule.session_end.into());
        }
    }
}

impl RuleTables {
    /// The rules that are asked at a point.
    #[inline]
    fn at(&self, point: Point) -> &Bits {
        let [at_tap, at_drop] = &self.points;
        match point {
            Point::Tap => at_tap,
            Point::Drop => at_drop,
        }
    }

    /// The rules that match a packet, those of sessions that rejected it earlier included.
    #[inline]
    pub fn matching(&self, probe: &Probe) -> Bits {
        let at_point = self.at(probe.point);
        let none = Bits::default();
        let of_protocol = self.protocols.get(usize::from(probe.protocol)).unwrap_or(&none);
        let of_class = self.classes.get(class_index(probe.class)).unwrap_or(&none);
        let left = at_point.and(of_protocol).and(of_class);
        let left = match probe.ports {
            Some((source, destination)) => {
                left.and(&self.source_ports.lookup(source)).and(&self.destination_ports.lookup(destination))
            }
            None => left.and(&self.without_ports),
        };
        match probe.addresses {
            Addresses::V4 { src, dst } => left.and(&self.sources_v4.lookup(src)).and(&self.destinations_v4.lookup(dst)),
            Addresses::V6 { src, dst } => left.and(&self.sources_v6.lookup(src)).and(&self.destinations_v6.lookup(dst)),
        }
    }
}
