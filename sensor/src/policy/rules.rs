//! Groups and ACLs as they apply: checked, and in the order in which they are asked.

use super::matching::Criteria;
use crate::config::glob::Glob;

/// A rule of a security group: it can only allow.
pub(super) type Permission = Criteria;

/// A stateful set of permissions.
#[derive(Debug, Clone)]
pub(super) struct SecurityGroup {
    /// The interfaces it applies to.
    pub(super) interfaces: Vec<Glob>,
    pub(super) ingress: Vec<Permission>,
    pub(super) egress: Vec<Permission>,
}

/// A stateless list of rules.
#[derive(Debug, Clone)]
pub(super) struct NetworkAcl {
    pub(super) name: String,
    /// The interfaces it applies to.
    pub(super) interfaces: Vec<Glob>,
    /// In the order of the rules' numbers, which are not needed any more.
    pub(super) ingress: Vec<AclRule>,
    /// Likewise.
    pub(super) egress: Vec<AclRule>,
}

/// One rule of a network ACL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AclRule {
    pub(super) action: RuleAction,
    pub(super) criteria: Criteria,
}

/// What becomes of traffic that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RuleAction {
    Allow,
    Deny,
}
