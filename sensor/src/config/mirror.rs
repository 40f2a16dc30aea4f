//! `[[mirror.target]]`, `[[mirror.filter]]` and `[[mirror.session]]`: how they fit together.

mod effective;
mod error;
mod raw;
#[cfg(test)]
mod tests;

pub use error::MirrorError;

pub(super) use effective::effective;
pub(super) use raw::RawMirror;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use toml::Spanned;

use super::document;
use super::glob::Glob;
use crate::capture::Direction;
use crate::mirror::compile::is_never_mirrored_by_aws;
use crate::mirror::{
    CheckTime, Criteria, FILTERS_MAX, Filter, HealthCheck, Mirror, PACKET_LENGTH_MIN_V6, PacketLength, Question,
    RULES_MAX, RateLimit, Rule, RuleNumber, SESSIONS_MAX, Session, TARGETS_MAX, Target,
};
use raw::{CheckProtocol, Name, RawFilter, RawHealthCheck, RawRule, RawSession, RawTarget, RuleDirection};

/// Checks mirror tables that were read from `text`.
///
/// # Errors
/// The first thing that is wrong with them, with its line.
pub(super) fn check(text: &str, raw: RawMirror, aws_parity: bool) -> Result<Mirror, MirrorError> {
    let check = Check { text, aws_parity };
    let targets = check.targets(raw.target)?;
    let filters = check.filters(raw.filter)?;
    let sessions = check.sessions(raw.session, &targets, &filters)?;
    Ok(Mirror::new(targets, filters, sessions, aws_parity))
}

/// Holds the text to find lines in.
struct Check<'a> {
    text: &'a str,
    aws_parity: bool,
}

impl Check<'_> {
    fn line_of<T>(&self, value: &Spanned<T>) -> usize {
        document::line_of(self.text, value.span().start)
    }

    fn targets(&self, raw: Vec<RawTarget>) -> Result<Vec<Target>, MirrorError> {
        if let Some(extra) = raw.get(TARGETS_MAX) {
            return Err(MirrorError::TooManyTargets { line: self.line_of(&extra.name) });
        }
        self.names("target", raw.iter().map(|target| &target.name))?;
        raw.into_iter().map(|target| self.target(target)).collect()
    }

    fn target(&self, raw: RawTarget) -> Result<Target, MirrorError> {
        let encapsulation = raw.encapsulation.unwrap_or_default();
        Ok(Target {
            name: raw.name.into_inner().0,
            address: raw.address.0,
            port: raw.port.map_or_else(|| encapsulation.port_default(), |port| port.0),
            encapsulation,
            weight: raw.weight.unwrap_or_default(),
            health_check: raw.health_check.map(|raw| self.health_check(raw)).transpose()?,
        })
    }

    fn health_check(&self, raw: RawHealthCheck) -> Result<HealthCheck, MirrorError> {
        let interval = raw.interval.unwrap_or(CheckTime::INTERVAL_DEFAULT).duration();
        let timeout = match &raw.timeout {
            Some(timeout) if timeout.as_ref().duration() > interval => {
                return Err(MirrorError::TimeoutBeyondInterval { line: self.line_of(timeout) });
            }
            Some(timeout) => timeout.as_ref().duration(),
            None => CheckTime::TIMEOUT_DEFAULT.duration().min(interval),
        };
        let question = match (raw.protocol, raw.path) {
            (CheckProtocol::Http, path) => Question::Http(path.map(Spanned::into_inner).unwrap_or_default()),
            (CheckProtocol::Tcp, None) => Question::Tcp,
            (CheckProtocol::Tcp, Some(path)) => {
                return Err(MirrorError::PathWithoutHttp { line: self.line_of(&path) });
            }
        };
        Ok(HealthCheck {
            question,
            port: raw.port.0,
            interval,
            timeout,
            healthy_threshold: raw.healthy_threshold.unwrap_or_default(),
            unhealthy_threshold: raw.unhealthy_threshold.unwrap_or_default(),
        })
    }

    fn filters(&self, raw: Vec<RawFilter>) -> Result<Vec<Arc<Filter>>, MirrorError> {
        if let Some(extra) = raw.get(FILTERS_MAX) {
            return Err(MirrorError::TooManyFilters { line: self.line_of(&extra.name) });
        }
        self.names("filter", raw.iter().map(|filter| &filter.name))?;
        raw.into_iter().map(|filter| self.filter(filter).map(Arc::new)).collect()
    }

    fn filter(&self, raw: RawFilter) -> Result<Filter, MirrorError> {
        let name = raw.name.into_inner().0;
        let (mut ingress, mut egress) = (BTreeMap::new(), BTreeMap::new());
        for rule in raw.rules {
            let line = self.line_of(&rule.number);
            let number = *rule.number.as_ref();
            let directions: &[RuleDirection] = match (rule.direction, &rule.service) {
                (Some(RuleDirection::Ingress), _) => &[RuleDirection::Ingress],
                (Some(RuleDirection::Egress), _) => &[RuleDirection::Egress],
                // As AWS's list of services is.
                (None, Some(_)) => &[RuleDirection::Ingress, RuleDirection::Egress],
                (None, None) => return Err(MirrorError::NoDirection { line, number }),
            };
            let rule = self.rule(rule, line, number)?;
            for direction in directions {
                let list = match direction {
                    RuleDirection::Ingress => &mut ingress,
                    RuleDirection::Egress => &mut egress,
                };
                if list.insert(number, rule.clone()).is_some() {
                    let direction = direction.as_str();
                    return Err(MirrorError::RuleNumberTaken { line, filter: name, number, direction });
                }
            }
        }
        Ok(Filter::new(name, ingress, egress))
    }

    fn rule(&self, raw: RawRule, line: usize, number: RuleNumber) -> Result<Rule, MirrorError> {
        if let Some(service) = &raw.service
            && self.aws_parity
            && is_never_mirrored_by_aws(service.as_ref().class())
        {
            let (line, service) = (self.line_of(service), service.as_ref().as_str());
            return Err(MirrorError::NeverMirrored { line, service });
        }
        if raw.verdict.is_some() && self.aws_parity {
            return Err(MirrorError::RejectedUnderParity { line });
        }
        let criteria = Criteria {
            protocol: raw.protocol,
            source: raw.source.map(|block| block.0),
            destination: raw.destination.map(|block| block.0),
            source_ports: raw.source_ports,
            destination_ports: raw.destination_ports,
            service: raw.service.map(Spanned::into_inner),
            verdict: raw.verdict,
        };
        let rule = Rule::new(number, raw.action, criteria, raw.description);
        rule.map_err(|error| MirrorError::Criteria { line, number, error })
    }

    fn sessions(
        &self,
        raw: Vec<RawSession>,
        targets: &[Target],
        filters: &[Arc<Filter>],
    ) -> Result<Vec<Session>, MirrorError> {
        if let Some(extra) = raw.get(SESSIONS_MAX) {
            return Err(MirrorError::TooManySessions { line: self.line_of(&extra.number) });
        }
        let mut sessions: Vec<Session> = Vec::with_capacity(raw.len());
        let mut lines = Vec::with_capacity(raw.len());
        for raw in raw {
            let line = self.line_of(&raw.number);
            let session = self.session(raw, line, targets, filters)?;
            let same_number = sessions.iter().filter(|earlier| earlier.number == session.number);
            if let Some(earlier) =
                same_number.into_iter().find(|earlier| earlier.interface.overlaps(&session.interface))
            {
                let (interface, other) = (session.interface.as_str().to_owned(), earlier.interface.as_str().to_owned());
                return Err(MirrorError::SessionNumberTaken { line, number: session.number, interface, other });
            }
            sessions.push(session);
            lines.push(line);
        }
        check_lists(&sessions, &lines)?;
        Ok(sessions)
    }

    fn session(
        &self,
        raw: RawSession,
        line: usize,
        targets: &[Target],
        filters: &[Arc<Filter>],
    ) -> Result<Session, MirrorError> {
        let number = raw.number.into_inner();
        let named = match (raw.target, raw.targets) {
            (Some(target), None) => vec![target],
            (None, Some(targets)) if !targets.is_empty() => targets,
            _ => return Err(MirrorError::TargetOrTargets { line, number }),
        };
        let mut indexes = Vec::with_capacity(named.len());
        for target in &named {
            let index = self.find("target", target, targets.iter().map(|target| target.name.as_str()))?;
            // At most TARGETS_MAX.
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            if indexes.contains(&index) {
                let name = target.as_ref().0.clone();
                return Err(MirrorError::TargetTwice { line: self.line_of(target), name, number });
            }
            indexes.push(index);
        }
        let filter_index = self.find("filter", &raw.filter, filters.iter().map(|filter| filter.name()))?;
        let Some(filter) = filters.get(filter_index).map(Arc::clone) else {
            return Err(self.unknown("filter", &raw.filter, &[]));
        };
        if let Some(length) = &raw.packet_length {
            let of_session = indexes.iter().filter_map(|index| targets.get(usize::from(*index)));
            self.packet_length(length, &filter, of_session)?;
        }
        Ok(Session {
            number,
            interface: raw.interface,
            filter,
            targets: indexes,
            mode: raw.mode.unwrap_or_default(),
            vni: raw.vni,
            packet_length: raw.packet_length.map(Spanned::into_inner),
            too_big: raw.too_big.unwrap_or_default(),
            offload: raw.offload.unwrap_or_default(),
            rate: RateLimit {
                packets: raw.packets_per_second_max.unwrap_or_default(),
                bits: raw.bits_per_second_max.unwrap_or_default(),
            },
            description: raw.description,
        })
    }

    fn packet_length<'t>(
        &self,
        length: &Spanned<PacketLength>,
        filter: &Filter,
        mut targets: impl Iterator<Item = &'t Target>,
    ) -> Result<(), MirrorError> {
        let line = self.line_of(length);
        let takes_v6 = DIRECTIONS.iter().any(|direction| filter.rules(*direction).iter().any(Rule::accepts_v6));
        if takes_v6 && length.as_ref().bytes() < PACKET_LENGTH_MIN_V6 {
            let filter = filter.name().to_owned();
            return Err(MirrorError::PacketLengthForV6 { line, length: *length.as_ref(), filter });
        }
        match targets.find(|target| matches!(target.address, IpAddr::V6(_))) {
            Some(target) => Err(MirrorError::PacketLengthOverV6 { line, target: target.name.clone() }),
            None => Ok(()),
        }
    }

    fn names<'r>(&self, what: &'static str, names: impl Iterator<Item = &'r Spanned<Name>>) -> Result<(), MirrorError> {
        let mut taken = HashSet::new();
        for name in names {
            if !taken.insert(name.as_ref()) {
                return Err(MirrorError::NameTaken { line: self.line_of(name), what, name: name.as_ref().0.clone() });
            }
        }
        Ok(())
    }

    fn find<'n>(
        &self,
        what: &'static str,
        name: &Spanned<Name>,
        known: impl Iterator<Item = &'n str>,
    ) -> Result<usize, MirrorError> {
        let known: Vec<&str> = known.collect();
        let found = known.iter().position(|known| *known == name.as_ref().0);
        found.ok_or_else(|| self.unknown(what, name, &known))
    }

    fn unknown(&self, what: &'static str, name: &Spanned<Name>, known: &[&str]) -> MirrorError {
        let (line, name) = (self.line_of(name), name.as_ref().0.clone());
        let known: Vec<String> = known.iter().map(|known| (*known).to_owned()).collect();
        let hint = (!known.is_empty()).then(|| document::hint(&name, known));
        MirrorError::UnknownName { line, what, name, hint }
    }
}

/// Refuses sessions whose rules would not fit into one list.
///
/// Which sessions an interface has depends on its name, and most names are not known here. Those that patterns spell
/// out are looked at as they are. Any other name is matched by patterns with wildcards alone, of which each overlaps
/// each other: so a session's list is never longer than the rules of all that overlap with it.
fn check_lists(sessions: &[Session], lines: &[usize]) -> Result<(), MirrorError> {
    let literal: BTreeSet<&str> = sessions.iter().filter_map(|session| session.interface.as_literal()).collect();
    let of_name = literal.iter().map(|name| sessions_where(sessions, lines, |glob| glob.matches(name)));
    let wild = sessions.iter().filter(|session| session.interface.as_literal().is_none());
    let of_pattern = wild.map(|session| {
        let may_meet = |glob: &Glob| glob.as_literal().is_none() && glob.overlaps(&session.interface);
        sessions_where(sessions, lines, may_meet)
    });
    for together in of_name.chain(of_pattern) {
        for (direction, word) in DIRECTIONS.into_iter().zip(["ingress", "egress"]) {
            let rules = together.iter().map(|(session, _)| session.filter.rules(direction).len()).sum();
            if let Some((last, line)) = together.last()
                && rules > RULES_MAX
            {
                return Err(MirrorError::RulesTogether { line: *line, number: last.number, rules, direction: word });
            }
        }
    }
    Ok(())
}

fn sessions_where<'s>(
    sessions: &'s [Session],
    lines: &[usize],
    apply: impl Fn(&Glob) -> bool,
) -> Vec<(&'s Session, usize)> {
    let with_line = sessions.iter().zip(lines.iter().copied());
    with_line.filter(|(session, _)| apply(&session.interface)).collect()
}

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];
