//! What can be wrong with mirror tables whose values are sound.

use crate::config::document::KeyHint;
use crate::mirror::{
    CriteriaError, FILTERS_MAX, PACKET_LENGTH_MIN_V6, PacketLength, RULES_MAX, RuleNumber, SESSIONS_MAX, SessionNumber,
    TARGETS_MAX,
};

/// Why mirror tables were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// More targets than there may be.
    #[error("line {line}: there can be at most {TARGETS_MAX} mirror targets")]
    TooManyTargets {
        /// Of the first that is one too many.
        line: usize,
    },
    /// More filters than there may be.
    #[error("line {line}: there can be at most {FILTERS_MAX} mirror filters")]
    TooManyFilters {
        /// Of the first that is one too many.
        line: usize,
    },
    /// More sessions than there may be.
    #[error("line {line}: there can be at most {SESSIONS_MAX} mirror sessions")]
    TooManySessions {
        /// Of the first that is one too many.
        line: usize,
    },
    /// Two targets, or two filters, have one name.
    #[error("line {line}: there is already a mirror {what} `{name}`")]
    NameTaken {
        /// Of the second one.
        line: usize,
        /// `target` or `filter`.
        what: &'static str,
        /// The name they share.
        name: String,
    },
    /// A session names a target or a filter that there is not.
    #[error("line {line}: there is no mirror {what} `{name}`{}", suggestion(.hint))]
    UnknownName {
        /// Of the name.
        line: usize,
        /// `target` or `filter`.
        what: &'static str,
        /// As written.
        name: String,
        /// What could be there instead; `None` if there is none at all.
        hint: Option<KeyHint>,
    },
    /// Two rules of one direction of a filter have one number, so their order is open.
    #[error("line {line}: mirror filter `{filter}` has a rule {number} for {direction} already")]
    RuleNumberTaken {
        /// Of the second rule.
        line: usize,
        /// The filter's name.
        filter: String,
        /// The number they share.
        number: RuleNumber,
        /// `ingress` or `egress`.
        direction: &'static str,
    },
    /// A rule that says of no direction, and of no service.
    #[error("line {line}: rule {number} needs `direction`: only a rule with `service` may be for both")]
    NoDirection {
        /// Of the rule.
        line: usize,
        /// Its number.
        number: RuleNumber,
    },
    /// Criteria that contradict each other.
    #[error("line {line}: rule {number}: {error}")]
    Criteria {
        /// Of the rule.
        line: usize,
        /// Its number.
        number: RuleNumber,
        /// What is wrong with them.
        error: CriteriaError,
    },
    /// A rule for a service that AWS never mirrors, where nothing else shall be.
    #[error("line {line}: with `aws-parity`, `{service}` is never mirrored")]
    NeverMirrored {
        /// Of the service.
        line: usize,
        /// Its name.
        service: &'static str,
    },
    /// A rule for what the kernel rejects, which AWS never mirrors, likewise.
    #[error("line {line}: with `aws-parity`, packets that are rejected are never mirrored")]
    RejectedUnderParity {
        /// Of the rule.
        line: usize,
    },
    /// Two sessions that an interface can have both have one number, so their order is open.
    #[error(
        "line {line}: there is already a session {number} for interfaces that match both `{interface}` and `{other}`"
    )]
    SessionNumberTaken {
        /// Of the second one.
        line: usize,
        /// The number they share.
        number: SessionNumber,
        /// The second one's pattern.
        interface: String,
        /// The first one's.
        other: String,
    },
    /// A session without targets, or with both keys for them.
    #[error("line {line}: session {number} needs either `target` or a list of `targets`")]
    TargetOrTargets {
        /// Of the session's number.
        line: usize,
        /// The number.
        number: SessionNumber,
    },
    /// A session names a target twice.
    #[error("line {line}: `{name}` is a target of session {number} already")]
    TargetTwice {
        /// Of the second time.
        line: usize,
        /// The target.
        name: String,
        /// The session.
        number: SessionNumber,
    },
    /// A packet length at which nothing is left of an IPv6 packet that a rule takes.
    #[error(
        "line {line}: a packet length of {length} leaves nothing of IPv6, which filter `{filter}` takes: write \
         {PACKET_LENGTH_MIN_V6} or more"
    )]
    PacketLengthForV6 {
        /// Of the packet length.
        line: usize,
        /// As written.
        length: PacketLength,
        /// The session's filter.
        filter: String,
    },
    /// A packet length on the way to an IPv6 target: the outer UDP checksum, which IPv6 wants, would be wrong.
    #[error(
        "line {line}: frames can't be cut on their way to `{target}`, which has an IPv6 address: leave out `packet-length`"
    )]
    PacketLengthOverV6 {
        /// Of the packet length.
        line: usize,
        /// The target.
        target: String,
    },
    /// Sessions that one interface may have together have more rules than fit.
    #[error(
        "line {line}: with session {number}, {rules} {direction} rules may apply to one interface together, at most \
         {RULES_MAX} can"
    )]
    RulesTogether {
        /// Of the session's number.
        line: usize,
        /// One of the sessions.
        number: SessionNumber,
        /// How many.
        rules: usize,
        /// `ingress` or `egress`.
        direction: &'static str,
    },
    /// A path on a health check that asks for none.
    #[error("line {line}: only a health check with `protocol = \"http\"` has a path")]
    PathWithoutHttp {
        /// Of the path.
        line: usize,
    },
    /// A health check that asks again before it has given up.
    #[error("line {line}: a health check's timeout can't be longer than its interval")]
    TimeoutBeyondInterval {
        /// Of the timeout.
        line: usize,
    },
}

fn suggestion(hint: &Option<KeyHint>) -> String {
    hint.as_ref().map_or_else(String::new, |hint| format!(", {hint}"))
}
