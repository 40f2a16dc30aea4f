//! Why a packet is mirrored by the session that mirrors it, or by none.
//!
//! The answers are read from the tables that decide, so they can't say anything else.

use super::{Decider, Mirror, Probe, RuleNumber, Session};

/// What one session does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is not a session of this interface.
    OtherInterface,
    /// This rule rejects the packet, so the next session is asked.
    Rejected(RuleNumber),
    /// No rule matches, so the next session is asked.
    NoRule,
    /// This rule accepts the packet: the session mirrors it.
    Accepted(RuleNumber),
    /// A session before it mirrors the packet.
    NotAsked,
}

/// What every session does with a packet on the interface called `name`, in the order in which they are asked. `decider`
/// must be that interface's.
pub fn explain<'m>(mirror: &'m Mirror, decider: &Decider, name: &str, probe: &Probe) -> Vec<(&'m Session, Answer)> {
    let mut sessions: Vec<(u16, &Session)> = (0..).zip(mirror.sessions()).collect();
    sessions.sort_by_key(|(_, session)| session.number);
    let mut is_taken = false;
    let mut answers = Vec::with_capacity(sessions.len());
    for (index, session) in sessions {
        let answer = if !session.interface.matches(name) {
            Answer::OtherInterface
        } else if is_taken {
            Answer::NotAsked
        } else {
            ask(decider, index, probe)
        };
        is_taken |= matches!(answer, Answer::Accepted(_));
        answers.push((session, answer));
    }
    answers
}

fn ask(decider: &Decider, session: u16, probe: &Probe) -> Answer {
    let Some(tables) = decider.tables(probe.direction) else { return Answer::NoRule };
    let matching = tables.matching(probe);
    let listed = tables.rules.iter().enumerate();
    let decisive = listed.filter(|(_, rule)| rule.session == session).find(|(at, _)| matching.contains(*at));
    match decisive {
        Some((_, rule)) if rule.accept => Answer::Accepted(rule.number),
        Some((_, rule)) => Answer::Rejected(rule.number),
        None => Answer::NoRule,
    }
}
