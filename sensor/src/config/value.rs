//! What every value type of the command line and of the files shares: one error, and one way out of TOML.

use std::fmt::Display;
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A text that is no value of its kind. Flags and files give the same one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {kind}: {allowed}")]
pub struct ValueError {
    /// As written.
    pub value: String,
    /// What it should have been, with its article.
    pub kind: &'static str,
    /// What may be written.
    pub allowed: &'static str,
}

impl ValueError {
    pub(crate) fn new(value: &str, kind: &'static str, allowed: &'static str) -> Self {
        Self { value: value.to_owned(), kind, allowed }
    }
}

/// An address block. A bare address is the block that holds only it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(pub IpNet);

impl FromStr for Cidr {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let block: IpNet =
            text.parse().or_else(|_| text.parse().map(|address: std::net::IpAddr| address.into())).map_err(|_| {
                ValueError::new(text, "an address block", "write `10.0.0.0/16`, `2001:db8::/32` or an address")
            })?;
        if block.trunc() != block {
            // A host's address with the subnet's length is as likely a wrong length as a wrong address.
            return Err(ValueError::new(text, "an address block", "bits are set beyond its prefix length"));
        }
        Ok(Self(block))
    }
}

/// The primary block of a VPC: IPv4, with room for the resolver at base + 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VpcCidr(pub Ipv4Net);

impl FromStr for VpcCidr {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse::<Cidr>()?.0 {
            IpNet::V4(block) if block.prefix_len() <= 30 => Ok(Self(block)),
            IpNet::V4(_) | IpNet::V6(_) => {
                Err(ValueError::new(text, "a VPC's primary block", "it is IPv4 and /30 or larger, like `10.0.0.0/16`"))
            }
        }
    }
}

/// The primary private address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrimaryAddress(pub Ipv4Addr);

impl FromStr for PrimaryAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let address =
            text.parse().map_err(|_| ValueError::new(text, "a primary address", "it is IPv4, like `10.0.1.5`"));
        address.map(Self)
    }
}

/// The block of a subnet: with room for the router at base + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubnetCidr(pub IpNet);

impl FromStr for SubnetCidr {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let block = text.parse::<Cidr>()?.0;
        if block.prefix_len() + 2 > block.max_prefix_len() {
            return Err(ValueError::new(text, "a subnet", "it is /30 (IPv6: /126) or larger, like `10.0.1.0/24`"));
        }
        Ok(Self(block))
    }
}

/// Lets types be read from a file as they are read from the command line: through `FromStr`. People write `443` as
/// often as `"443"`, so a number is as good as its text.
macro_rules! read_as_text {
    ($($value:ty),+ $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $value {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::config::value::parse_scalar(deserializer)
            }
        }
    )+};
}
pub(crate) use read_as_text;

read_as_text!(Cidr, VpcCidr, SubnetCidr, PrimaryAddress);

/// What [`read_as_text`] stands on.
pub(crate) fn parse_scalar<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    deserializer.deserialize_any(ScalarVisitor(PhantomData))
}

/// Parses inside the visitor, where the TOML reader still knows the line of what it refuses.
struct ScalarVisitor<T>(PhantomData<T>);

impl<T> Visitor<'_> for ScalarVisitor<T>
where
    T: FromStr,
    T::Err: Display,
{
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string or a number")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// One value or a list of them, as people like it better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T> Deserialize<'de> for List<T>
where
    T: FromStr + Deserialize<'de>,
    T::Err: Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T> Visitor<'de> for ListVisitor<T>
where
    T: FromStr + Deserialize<'de>,
    T::Err: Display,
{
    type Value = List<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<List<T>, E> {
        Ok(List(vec![text.parse().map_err(E::custom)?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<List<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(List(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: FromStr<Err = ValueError> + std::fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err().to_string()
    }

    #[test]
    fn blocks_and_bare_addresses() {
        assert_eq!("10.0.0.0/8".parse(), Ok(Cidr("10.0.0.0/8".parse().unwrap())));
        assert_eq!("10.1.2.3".parse(), Ok(Cidr("10.1.2.3/32".parse().unwrap())));
        assert_eq!("2001:db8::1".parse(), Ok(Cidr("2001:db8::1/128".parse().unwrap())));
        assert_eq!(
            refusal::<Cidr>("10.0.0.0/33"),
            "`10.0.0.0/33` is not an address block: write `10.0.0.0/16`, `2001:db8::/32` or an address"
        );
        assert_eq!(
            refusal::<Cidr>("10.0.0.9/8"),
            "`10.0.0.9/8` is not an address block: bits are set beyond its prefix length"
        );
    }

    #[test]
    fn reserved_addresses_need_room() {
        assert!("10.0.0.0/30".parse::<VpcCidr>().is_ok());
        assert!("10.0.0.0/31".parse::<VpcCidr>().is_err());
        assert_eq!(
            refusal::<VpcCidr>("2001:db8::/56"),
            "`2001:db8::/56` is not a VPC's primary block: it is IPv4 and /30 or larger, like `10.0.0.0/16`"
        );
        assert!("10.0.0.0/30".parse::<SubnetCidr>().is_ok() && "2001:db8::/126".parse::<SubnetCidr>().is_ok());
        assert_eq!(
            refusal::<SubnetCidr>("2001:db8::/127"),
            "`2001:db8::/127` is not a subnet: it is /30 (IPv6: /126) or larger, like `10.0.1.0/24`"
        );
    }
}
