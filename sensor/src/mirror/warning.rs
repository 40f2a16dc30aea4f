//! What is allowed and seldom meant.

use super::{Mirror, PacketLength, Rule, RuleAction, Session, SessionNumber};
use crate::capture::Direction;
use crate::config::glob::Glob;

/// Something about a session that its owner should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Its frames are cut.
    #[error(
        "mirror session {session}: `packet-length = {length}` cuts every longer frame, and Suricata, Zeek and Snort \
         throw cut packets away without a word: they will see nothing in them. Leave it out unless the receiver wants \
         headers only"
    )]
    CutFrames {
        /// Its number.
        session: SessionNumber,
        /// What is left.
        length: PacketLength,
    },
    /// No rule of its filter accepts anything.
    #[error("mirror session {session}: filter `{filter}` accepts nothing, so nothing is mirrored")]
    AcceptsNothing {
        /// Its number.
        session: SessionNumber,
        /// Its filter.
        filter: String,
    },
    /// Nothing that is watched can have it.
    #[error("mirror session {session}: no interface that is watched matches `{interface}`, so nothing is mirrored")]
    NotWatched {
        /// Its number.
        session: SessionNumber,
        /// Its pattern.
        interface: String,
    },
}

impl Mirror {
    /// What should be said about each session. `watched` are the patterns of the interfaces that are watched.
    pub fn warnings(&self, watched: &[Glob]) -> Vec<Warning> {
        self.sessions().iter().flat_map(|session| warnings(session, watched)).collect()
    }
}

fn warnings(session: &Session, watched: &[Glob]) -> impl Iterator<Item = Warning> {
    let number = session.number;
    let accepts = |rule: &Rule| rule.action() == RuleAction::Accept;
    let mut rules = [Direction::Ingress, Direction::Egress].into_iter().flat_map(|each| session.filter.rules(each));
    let is_watched = watched.iter().any(|glob| glob.overlaps(&session.interface));
    [
        session.packet_length.map(|length| Warning::CutFrames { session: number, length }),
        (!rules.any(accepts))
            .then(|| Warning::AcceptsNothing { session: number, filter: session.filter.name().to_owned() }),
        (!is_watched)
            .then(|| Warning::NotWatched { session: number, interface: session.interface.as_str().to_owned() }),
    ]
    .into_iter()
    .flatten()
}
