//! What configuration knows of an interface: `[[interface]]` in the file, and the flags that speak for all of them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::glob::Glob;
use super::value::{Cidr, List, PrimaryAddress, SubnetCidr, ValueError, VpcCidr, read_as_text};

/// What is known of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InterfaceSettings {
    /// Values of flow-log fields by their names, tags not yet percent-encoded. A field that is missing is not known.
    pub metadata: BTreeMap<String, String>,
    /// Primary blocks of its VPC.
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// Blocks of its subnet.
    pub subnet_cidrs: Vec<IpNet>,
    /// What is on its own side of the wire.
    pub local: Vec<IpNet>,
    /// Its primary private address, which AWS writes in place of its others.
    pub primary_address: Option<Ipv4Addr>,
}

impl InterfaceSettings {
    /// Lays what `upper` knows over what is known here. A list replaces a list.
    pub(super) fn overlay(&mut self, upper: &Self) {
        self.metadata.extend(upper.metadata.clone());
        replace_if_given(&mut self.vpc_cidrs, &upper.vpc_cidrs);
        replace_if_given(&mut self.subnet_cidrs, &upper.subnet_cidrs);
        replace_if_given(&mut self.local, &upper.local);
        self.primary_address = upper.primary_address.or(self.primary_address);
    }
}

fn replace_if_given<T: Clone>(lower: &mut Vec<T>, upper: &[T]) {
    if !upper.is_empty() {
        lower.clear();
        lower.extend_from_slice(upper);
    }
}

/// An account or a region: part of paths and of every row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label(String);

impl Label {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let fits = (1..=LABEL_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::new(text, "a name for paths", "write 1 to 64 letters, digits and hyphens"))
    }
}

/// Keeps a path of several of them well below what a bucket takes.
const LABEL_BYTES_MAX: usize = 64;

/// An `interface-id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceId(pub(super) String);

impl FromStr for InterfaceId {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        check_metadata(INTERFACE_ID, text)?;
        Ok(Self(text.to_owned()))
    }
}

/// One `[[interface]]` table.
#[derive(Debug, Clone)]
pub(super) struct RawInterface {
    /// The names it speaks for.
    pub(super) name: Glob,
    /// What it says; its metadata holds what [`check_metadata`] passed.
    pub(super) settings: InterfaceSettings,
}

impl<'de> Deserialize<'de> for RawInterface {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawInterfaceVisitor)
    }
}

struct RawInterfaceVisitor;

impl<'de> Visitor<'de> for RawInterfaceVisitor {
    type Value = RawInterface;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a table about an interface")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawInterface, A::Error> {
        let (mut name, mut settings) = (None, InterfaceSettings::default());
        while let Some(InterfaceKey(key)) = map.next_key()? {
            match key.as_str() {
                "name" => name = Some(map.next_value()?),
                "vpc-cidr" => {
                    let List(blocks): List<VpcCidr> = map.next_value()?;
                    settings.vpc_cidrs = blocks.into_iter().map(|block| block.0).collect();
                }
                "subnet-cidr" => {
                    let List(blocks): List<SubnetCidr> = map.next_value()?;
                    settings.subnet_cidrs = blocks.into_iter().map(|block| block.0).collect();
                }
                "primary-address" => {
                    let PrimaryAddress(address) = map.next_value()?;
                    settings.primary_address = Some(address);
                }
                "local" => {
                    let List(blocks): List<Cidr> = map.next_value()?;
                    settings.local = blocks.into_iter().map(|block| block.0).collect();
                }
                _ => {
                    let value = map.next_value_seed(MetadataValue { key: &key })?;
                    settings.metadata.insert(key, value);
                }
            }
        }
        let name = name.ok_or_else(|| A::Error::missing_field("name"))?;
        Ok(RawInterface { name, settings })
    }
}

/// A key that an `[[interface]]` table may hold.
struct InterfaceKey(String);

impl<'de> Deserialize<'de> for InterfaceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = String::deserialize(deserializer)?;
        if KEYS.contains(&key.as_str()) { Ok(Self(key)) } else { Err(D::Error::unknown_field(&key, &KEYS)) }
    }
}

/// Reads the value of a metadata key.
struct MetadataValue<'a> {
    key: &'a str,
}

impl<'de> DeserializeSeed<'de> for MetadataValue<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        let value = String::deserialize(deserializer)?;
        check_metadata(self.key, &value).map_err(D::Error::custom)?;
        Ok(value)
    }
}

/// The `interface-id` of an interface that has only a name. Names come from captures and may hold anything.
pub(super) fn id_from_name(name: &str) -> String {
    let in_column = |c: char| if c.is_whitespace() || c.is_control() { '_' } else { c };
    let id: String = name.chars().take(NAME_CHARACTERS_MAX).map(in_column).collect();
    if id.is_empty() { "-".to_owned() } else { id }
}

/// Columns of text are separated by spaces, so only what is percent-encoded later may hold them: the tags.
pub(super) fn check_metadata(key: &str, value: &str) -> Result<(), ValueError> {
    if TAG_KEYS.contains(&key) {
        let fits = (1..=TAG_CHARACTERS_MAX).contains(&value.chars().count());
        return fits.then_some(()).ok_or_else(|| ValueError::new(value, "a tag's value", "write 1 to 256 characters"));
    }
    let fits = (1..=VALUE_BYTES_MAX).contains(&value.len());
    let is_word = !value.contains(|c: char| c.is_whitespace() || c.is_control());
    let allowed = "write 1 to 2048 bytes without spaces";
    (fits && is_word).then_some(()).ok_or_else(|| ValueError::new(value, "a value for a flow log", allowed))
}

/// As much of an interface's name as becomes its id; no file name and no Linux interface name is longer.
const NAME_CHARACTERS_MAX: usize = 255;
/// AWS, "Tag your resources": the longest value of a tag.
const TAG_CHARACTERS_MAX: usize = 256;
/// AWS, IAM quotas: the longest ARN, and nothing else is longer.
const VALUE_BYTES_MAX: usize = 2048;

read_as_text!(Label);

pub(super) const INTERFACE_ID: &str = "interface-id";

const TAG_KEYS: [&str; 6] =
    ["instance-tag", "instance-tag-2", "interface-tag", "interface-tag-2", "asg-tag", "asg-tag-2"];

/// Our own keys, then the flow-log fields that come from configuration, in the order of the specification.
const KEYS: [&str; 35] = [
    "name",
    "vpc-cidr",
    "subnet-cidr",
    "local",
    "primary-address",
    INTERFACE_ID,
    "vpc-id",
    "subnet-id",
    "instance-id",
    "az-id",
    "sublocation-type",
    "sublocation-id",
    "ecs-cluster-arn",
    "ecs-cluster-name",
    "ecs-container-instance-arn",
    "ecs-container-instance-id",
    "ecs-container-id",
    "ecs-second-container-id",
    "ecs-service-name",
    "ecs-task-definition-arn",
    "ecs-task-arn",
    "ecs-task-id",
    "resource-id",
    "instance-tag",
    "instance-tag-2",
    "interface-tag",
    "interface-tag-2",
    "asg-tag",
    "asg-tag-2",
    "interface-type",
    "next-hop-interface-id",
    "next-hop-subnet-id",
    "next-hop-az-id",
    "next-hop-vpc-id",
    "next-hop-interface-type",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_can_stand_in_paths() {
        assert_eq!("123456789012".parse::<Label>().unwrap().as_str(), "123456789012");
        assert_eq!("eu-dc-1".parse::<Label>().unwrap().as_str(), "eu-dc-1");
        for text in ["", "a/b", "..", "a b", &"x".repeat(65)] {
            let expected = format!("`{text}` is not a name for paths: write 1 to 64 letters, digits and hyphens");
            assert_eq!(text.parse::<Label>().unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn only_tags_may_hold_spaces() {
        assert!(check_metadata("interface-tag", "web server").is_ok());
        assert!(check_metadata("interface-tag", &"\u{e9}".repeat(256)).is_ok());
        assert!(check_metadata("interface-tag", &"\u{e9}".repeat(257)).is_err());
        assert_eq!(
            check_metadata("vpc-id", "vpc 1").unwrap_err().to_string(),
            "`vpc 1` is not a value for a flow log: write 1 to 2048 bytes without spaces"
        );
        assert!("eni-1\n".parse::<InterfaceId>().is_err() && "".parse::<InterfaceId>().is_err());
    }

    #[test]
    fn ids_from_names_can_stand_in_columns() {
        assert_eq!(id_from_name("eth0"), "eth0");
        assert_eq!(id_from_name("my first\tcapture"), "my_first_capture");
        assert_eq!(id_from_name(""), "-");
        let long = id_from_name(&"\u{1f980}".repeat(10_000));
        assert_eq!(long.chars().count(), 255);
        assert!(check_metadata(INTERFACE_ID, &long).is_ok());
    }

    #[test]
    fn every_tag_is_a_key() {
        assert!(TAG_KEYS.iter().all(|tag| KEYS.contains(tag)));
    }
}
