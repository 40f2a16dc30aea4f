//! What the cloud says about this host: it fills what the configuration leaves out, and never wins over it.
//!
//! Values come from outside, so each is checked as if somebody had written it into the configuration file.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::Settings;
use super::interface::{InterfaceSettings, Label, check_metadata};
use super::value::{PrimaryAddress, SubnetCidr, ValueError, VpcCidr};

/// What is known of the host and of its interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceFacts {
    account_id: Option<Label>,
    region: Option<Label>,
    /// Of every interface.
    host: BTreeMap<String, String>,
    /// By name.
    interfaces: BTreeMap<String, InterfaceSettings>,
}

impl InstanceFacts {
    /// Takes `account-id`, `region`, or another field that holds for the whole host.
    ///
    /// # Errors
    /// A value that can't stand in a record.
    pub fn tell(&mut self, key: &str, value: &str) -> Result<(), ValueError> {
        match key {
            "account-id" => self.account_id = Some(value.parse()?),
            "region" => self.region = Some(value.parse()?),
            _ => {
                check_metadata(key, value)?;
                self.host.insert(key.to_owned(), value.to_owned());
            }
        }
        Ok(())
    }

    /// Takes a field of one interface, or its `vpc-cidr`, `subnet-cidr` or `primary-address`. A second block is a further
    /// one; of several addresses the first is the primary one.
    ///
    /// # Errors
    /// A value that can't stand in a record, or is no block or address.
    pub fn tell_of(&mut self, interface: &str, key: &str, value: &str) -> Result<(), ValueError> {
        let known = self.interfaces.entry(interface.to_owned()).or_default();
        match key {
            "vpc-cidr" => known.vpc_cidrs.push(value.parse::<VpcCidr>().map(|block| -> Ipv4Net { block.0 })?),
            "subnet-cidr" => known.subnet_cidrs.push(value.parse::<SubnetCidr>()?.0),
            "primary-address" => {
                known.primary_address.get_or_insert(value.parse::<PrimaryAddress>()?.0);
            }
            _ => {
                check_metadata(key, value)?;
                known.metadata.insert(key.to_owned(), value.to_owned());
            }
        }
        Ok(())
    }

    /// These facts, and what was known before of what they leave out.
    #[must_use]
    pub fn or(self, before: &Self) -> Self {
        let mut merged = before.clone();
        merged.account_id = self.account_id.or(merged.account_id);
        merged.region = self.region.or(merged.region);
        merged.host.extend(self.host);
        for (name, settings) in self.interfaces {
            merged.interfaces.entry(name).or_default().overlay(&settings);
        }
        merged
    }

    pub(super) fn interface(&self, name: &str) -> InterfaceSettings {
        let mut settings = self.interfaces.get(name).cloned().unwrap_or_default();
        settings.metadata.extend(self.host.clone());
        settings
    }
}

impl Settings {
    /// Fills what flags and file leave out.
    pub fn learn(&mut self, facts: &InstanceFacts) {
        let labels =
            [("account-id", &mut self.account_id, &facts.account_id), ("region", &mut self.region, &facts.region)];
        for (key, ours, theirs) in labels {
            if let (None, Some(label)) = (&ours, theirs) {
                self.all_interfaces.metadata.insert(key.to_owned(), label.as_str().to_owned());
                *ours = Some(label.clone());
            }
        }
        self.instance = facts.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, RawConfig};

    fn facts() -> InstanceFacts {
        let mut facts = InstanceFacts::default();
        for (key, value) in [("account-id", "123456789012"), ("region", "eu-west-1"), ("instance-id", "i-1")] {
            facts.tell(key, value).unwrap();
        }
        for (key, value) in [
            ("interface-id", "eni-1"),
            ("vpc-id", "vpc-1"),
            ("vpc-cidr", "10.0.0.0/16"),
            ("subnet-cidr", "10.0.1.0/24"),
            ("subnet-cidr", "2001:db8:1::/64"),
            ("primary-address", "10.0.1.5"),
            ("primary-address", "10.0.1.6"),
        ] {
            facts.tell_of("eth0", key, value).unwrap();
        }
        facts
    }

    fn learned(text: &str) -> Settings {
        let mut settings = Settings::new(Some(RawConfig::parse(text).unwrap()), Flags::default()).unwrap();
        settings.learn(&facts());
        settings
    }

    #[test]
    fn what_is_left_out_is_filled() {
        let settings = learned("");
        assert_eq!(settings.account_id.as_ref().map(Label::as_str), Some("123456789012"));
        let eth0 = settings.interface("eth0");
        let field = |key: &str| eth0.metadata.get(key).map(String::as_str);
        assert_eq!(field("account-id"), Some("123456789012"));
        assert_eq!(field("region"), Some("eu-west-1"));
        assert_eq!((field("instance-id"), field("interface-id")), (Some("i-1"), Some("eni-1")));
        assert_eq!(eth0.vpc_cidrs, ["10.0.0.0/16".parse().unwrap()]);
        assert_eq!(eth0.subnet_cidrs.len(), 2);
        assert_eq!(eth0.primary_address, Some([10, 0, 1, 5].into()));
        let other = settings.interface("docker0").metadata;
        assert_eq!((other["interface-id"].as_str(), other["instance-id"].as_str()), ("docker0", "i-1"));
        assert!(!other.contains_key("vpc-id"));
    }

    #[test]
    fn what_is_configured_wins() {
        let settings = learned(
            "account-id = '42'\n[[interface]]\nname = 'eth*'\nvpc-id = 'vpc-mine'\nvpc-cidr = '172.16.0.0/16'\n",
        );
        let eth0 = settings.interface("eth0");
        assert_eq!((eth0.metadata["account-id"].as_str(), eth0.metadata["vpc-id"].as_str()), ("42", "vpc-mine"));
        assert_eq!(eth0.metadata["interface-id"], "eni-1", "what it leaves out is still filled");
        assert_eq!(eth0.vpc_cidrs, ["172.16.0.0/16".parse().unwrap()]);
        assert_eq!(settings.account_id.as_ref().map(Label::as_str), Some("42"));
    }

    #[test]
    fn what_was_known_before_is_not_forgotten() {
        let mut newer = InstanceFacts::default();
        newer.tell("region", "eu-west-2").unwrap();
        newer.tell_of("eth0", "vpc-id", "vpc-2").unwrap();
        let mut expected = facts();
        expected.tell("region", "eu-west-2").unwrap();
        expected.tell_of("eth0", "vpc-id", "vpc-2").unwrap();
        assert_eq!(newer.or(&facts()), expected);
        assert_eq!(InstanceFacts::default().or(&facts()), facts());
    }

    #[test]
    fn values_that_can_not_stand_in_records_are_refused() {
        let mut facts = InstanceFacts::default();
        assert!(facts.tell("account-id", "../..").is_err());
        assert!(facts.tell("instance-id", "i 1").is_err());
        assert!(facts.tell_of("eth0", "vpc-cidr", "<html>").is_err());
        assert!(facts.tell_of("eth0", "vpc-id", "").is_err());
    }
}
