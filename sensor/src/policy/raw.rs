//! The policy file as people write it, and what can be wrong with it.

use std::collections::HashSet;

use serde::Deserialize;
use toml::Spanned;

use super::matching::Criteria;
use super::rules::{AclRule, NetworkAcl, Permission, RuleAction, SecurityGroup};
use crate::config::document::{self, DocumentError};
use crate::config::glob::Glob;
use crate::config::value::Cidr;
use crate::config::{Ports, Protocol};

/// Why a policy was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The text has the wrong shape.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Two groups, or two ACLs, have one name.
    #[error("line {line}: there is already a {what} `{name}`")]
    NameTaken {
        /// Of the second one.
        line: usize,
        /// `security group` or `network ACL`.
        what: &'static str,
        /// The name they share.
        name: String,
    },
    /// A group or ACL that applies nowhere.
    #[error("line {line}: `{name}` names no interface")]
    NoInterfaces {
        /// Of the group or ACL.
        line: usize,
        /// Its name.
        name: String,
    },
    /// Two rules of one direction of an ACL have one number, so their order is open.
    #[error("line {line}: network ACL `{acl}` has a rule {number} for {direction} already")]
    RuleNumberTaken {
        /// Of the second rule.
        line: usize,
        /// The ACL's name.
        acl: String,
        /// The number they share.
        number: u16,
        /// `ingress` or `egress`.
        direction: &'static str,
    },
    /// A rule number outside AWS's range.
    #[error("line {line}: rule number {number} is not between 1 and {RULE_NUMBER_MAX}")]
    RuleNumber {
        /// Of the rule.
        line: usize,
        /// As written.
        number: i64,
    },
    /// Ports on a protocol that has none, or on all protocols.
    #[error("line {line}: protocol {protocol} has no ports")]
    PortsWithoutProtocol {
        /// Of the ports.
        line: usize,
        /// The rule's protocol.
        protocol: String,
    },
    /// Two network ACLs apply to one interface.
    #[error("network ACLs `{first}` and `{second}` both apply to interface `{interface}`, which can have only one")]
    TwoAcls {
        /// The interface's name.
        interface: String,
        /// The ACL that comes first in the file.
        first: String,
        /// The next that applies.
        second: String,
    },
}

/// The highest number that AWS gives to a rule of its users; 32767 is its own, the implicit deny.
const RULE_NUMBER_MAX: u16 = 32_766;

/// Reads a policy file into its groups and ACLs, in the order of the text.
pub(super) fn parse(text: &str) -> Result<(Vec<SecurityGroup>, Vec<NetworkAcl>), PolicyError> {
    let raw: RawPolicy = document::read(text)?;
    let check = Check { text };
    check.names("security group", raw.security_group.iter().map(|group| (&group.name, &group.interfaces)))?;
    check.names("network ACL", raw.network_acl.iter().map(|acl| (&acl.name, &acl.interfaces)))?;
    let groups = raw.security_group.into_iter().map(|group| check.group(group)).collect::<Result<_, _>>()?;
    let acls = raw.network_acl.into_iter().map(|acl| check.acl(acl)).collect::<Result<_, _>>()?;
    Ok((groups, acls))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawPolicy {
    #[serde(default)]
    security_group: Vec<RawGroup>,
    #[serde(default)]
    network_acl: Vec<RawAcl>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawGroup {
    name: Spanned<String>,
    interfaces: Vec<Glob>,
    #[serde(default)]
    ingress: Vec<RawPermission>,
    #[serde(default)]
    egress: Vec<RawPermission>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawPermission {
    protocol: Protocol,
    ports: Option<Spanned<Ports>>,
    cidr: Cidr,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawAcl {
    name: Spanned<String>,
    interfaces: Vec<Glob>,
    #[serde(default)]
    ingress: Vec<RawAclRule>,
    #[serde(default)]
    egress: Vec<RawAclRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawAclRule {
    rule: Spanned<i64>,
    action: RuleAction,
    protocol: Protocol,
    ports: Option<Spanned<Ports>>,
    cidr: Cidr,
}

/// What the shape of a file cannot say. Holds the text to find lines in.
struct Check<'a> {
    text: &'a str,
}

impl Check<'_> {
    fn line_of<T>(&self, value: &Spanned<T>) -> usize {
        document::line_of(self.text, value.span().start)
    }

    fn names<'r>(
        &self,
        what: &'static str,
        named: impl Iterator<Item = (&'r Spanned<String>, &'r Vec<Glob>)>,
    ) -> Result<(), PolicyError> {
        let mut taken = HashSet::new();
        for (name, interfaces) in named {
            let line = self.line_of(name);
            if !taken.insert(name.as_ref()) {
                return Err(PolicyError::NameTaken { line, what, name: name.as_ref().clone() });
            }
            if interfaces.is_empty() {
                return Err(PolicyError::NoInterfaces { line, name: name.as_ref().clone() });
            }
        }
        Ok(())
    }

    fn group(&self, raw: RawGroup) -> Result<SecurityGroup, PolicyError> {
        Ok(SecurityGroup {
            interfaces: raw.interfaces,
            ingress: self.permissions(raw.ingress)?,
            egress: self.permissions(raw.egress)?,
        })
    }

    fn permissions(&self, raw: Vec<RawPermission>) -> Result<Vec<Permission>, PolicyError> {
        raw.into_iter().map(|rule| self.criteria(rule.protocol, rule.ports, rule.cidr)).collect()
    }

    fn acl(&self, raw: RawAcl) -> Result<NetworkAcl, PolicyError> {
        let name = raw.name.into_inner();
        let ingress = self.acl_rules(&name, "ingress", raw.ingress)?;
        let egress = self.acl_rules(&name, "egress", raw.egress)?;
        Ok(NetworkAcl { name, interfaces: raw.interfaces, ingress, egress })
    }

    fn acl_rules(&self, acl: &str, direction: &'static str, raw: Vec<RawAclRule>) -> Result<Vec<AclRule>, PolicyError> {
        let mut numbered = std::collections::BTreeMap::new();
        for rule in raw {
            let line = self.line_of(&rule.rule);
            let number = *rule.rule.as_ref();
            let number = u16::try_from(number)
                .ok()
                .filter(|number| (1..=RULE_NUMBER_MAX).contains(number))
                .ok_or(PolicyError::RuleNumber { line, number })?;
            let criteria = self.criteria(rule.protocol, rule.ports, rule.cidr)?;
            if numbered.insert(number, AclRule { action: rule.action, criteria }).is_some() {
                return Err(PolicyError::RuleNumberTaken { line, acl: acl.to_owned(), number, direction });
            }
        }
        Ok(numbered.into_values().collect())
    }

    fn criteria(&self, protocol: Protocol, ports: Option<Spanned<Ports>>, cidr: Cidr) -> Result<Criteria, PolicyError> {
        let line = ports.as_ref().map_or(0, |ports| self.line_of(ports));
        Criteria::new(protocol, ports.map(Spanned::into_inner), cidr.0)
            .ok_or_else(|| PolicyError::PortsWithoutProtocol { line, protocol: protocol.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn rules_are_asked_in_the_order_of_their_numbers() {
        let text = r#"
            [[network-acl]]
            name = "edge"
            interfaces = ["eth0"]
            ingress = [
              { rule = 200, action = "deny", protocol = "all", cidr = "0.0.0.0/0" },
              { rule = 100, action = "allow", protocol = 1, cidr = "0.0.0.0/0" },
            ]
        "#;
        let (groups, acls) = parse(text).unwrap();
        assert_eq!((groups.len(), acls.len()), (0, 1));
        let actions: Vec<_> = acls[0].ingress.iter().map(|rule| rule.action).collect();
        assert_eq!(actions, [RuleAction::Allow, RuleAction::Deny]);
        assert!(acls[0].egress.is_empty());
    }

    #[test]
    fn unknown_keys() {
        assert_eq!(
            refusal("[[security-group]]\nname = 'web'\ninterface = ['eth0']\n"),
            "line 3: unknown key `interface`, did you mean `interfaces`?"
        );
        assert_eq!(
            refusal("[[security-groups]]\nname = 'web'\n"),
            "line 1: unknown key `security-groups`, did you mean `security-group`?"
        );
        assert_eq!(
            refusal(
                "[[security-group]]\nname = 'web'\ninterfaces = ['*']\ningress = [\n  \
                 { protocol = 'all', cidr = '::/0', action = 'deny' },\n]\n"
            ),
            "line 5: unknown key `action`, known here: `protocol`, `ports`, `cidr`"
        );
    }

    #[test]
    fn values_that_mean_nothing() {
        let group =
            |rule: &str| format!("[[security-group]]\nname = 'web'\ninterfaces = ['*']\negress = [\n  {rule},\n]\n");
        assert_eq!(
            refusal(&group("{ protocol = 'tcp', ports = '99-1', cidr = '::/0' }")),
            "line 5: `99-1` is not a port range: write `443` or `1024-65535`, the smaller number first"
        );
        assert_eq!(
            refusal(&group("{ protocol = true, cidr = '::/0' }")),
            "line 5: invalid type: boolean `true`, expected a string or a number"
        );
        assert_eq!(
            refusal(&group("{ protocol = 'tcp', cidr = 'any' }")),
            "line 5: `any` is not an address block: write `10.0.0.0/16`, `2001:db8::/32` or an address"
        );
        assert_eq!(refusal(&group("{ protocol = 'tcp' }")), "line 5: missing field `cidr`");
        assert_eq!(
            refusal(&group("{ protocol = 'icmp', ports = 8, cidr = '::/0' }")),
            "line 5: protocol icmp has no ports"
        );
        assert_eq!(
            refusal(&group("{ protocol = 'all', ports = '80', cidr = '::/0' }")),
            "line 5: protocol all has no ports"
        );
    }

    #[test]
    fn acls_that_leave_the_order_open() {
        let acl = |rules: &str| format!("[[network-acl]]\nname = 'edge'\ninterfaces = ['*']\negress = [\n{rules}]\n");
        let rule = |number: i64| format!("{{ rule = {number}, action = 'deny', protocol = 'all', cidr = '::/0' }},\n");
        assert_eq!(
            refusal(&acl(&(rule(7) + &rule(8) + &rule(7)))),
            "line 7: network ACL `edge` has a rule 7 for egress already"
        );
        assert_eq!(refusal(&acl(&rule(0))), "line 5: rule number 0 is not between 1 and 32766");
        assert_eq!(refusal(&acl(&rule(32_767))), "line 5: rule number 32767 is not between 1 and 32766");
        assert!(parse(&acl(&(rule(1) + &rule(32_766)))).is_ok());
        assert_eq!(
            refusal(&acl("{ rule = 1, action = 'reject', protocol = 'all', cidr = '::/0' },\n")),
            "line 5: unknown variant `reject`, expected `allow` or `deny`"
        );
    }

    #[test]
    fn names_are_taken_once_and_apply_somewhere() {
        let group = "[[security-group]]\nname = 'web'\ninterfaces = ['*']\n";
        assert_eq!(refusal(&group.repeat(2)), "line 5: there is already a security group `web`");
        assert_eq!(refusal("[[network-acl]]\nname = 'edge'\ninterfaces = []\n"), "line 2: `edge` names no interface");
    }
}
