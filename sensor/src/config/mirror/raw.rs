//! The mirror tables as people write them: every value is sound, how they fit together is not yet checked.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;

use crate::config::glob::Glob;
use crate::config::value::{Cidr, ValueError, read_as_text};
use crate::config::{Ports, Protocol, whole_number_u16};
use crate::mirror::{
    BitRate, CheckTime, Encapsulation, HttpPath, Mode, Offload, PacketLength, PacketRate, RuleAction, RuleNumber,
    Service, SessionNumber, Threshold, TooBig, Verdict, Vni, Weight,
};

/// `[[mirror.target]]`, `[[mirror.filter]]` and `[[mirror.session]]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::config) struct RawMirror {
    #[serde(default)]
    pub(super) target: Vec<RawTarget>,
    #[serde(default)]
    pub(super) filter: Vec<RawFilter>,
    #[serde(default)]
    pub(super) session: Vec<RawSession>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawTarget {
    pub(super) name: Spanned<Name>,
    pub(super) address: TargetAddress,
    pub(super) port: Option<Port>,
    pub(super) encapsulation: Option<Encapsulation>,
    pub(super) weight: Option<Weight>,
    pub(super) health_check: Option<RawHealthCheck>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawHealthCheck {
    pub(super) protocol: CheckProtocol,
    pub(super) port: Port,
    pub(super) path: Option<Spanned<HttpPath>>,
    pub(super) interval: Option<CheckTime>,
    pub(super) timeout: Option<Spanned<CheckTime>>,
    pub(super) healthy_threshold: Option<Threshold>,
    pub(super) unhealthy_threshold: Option<Threshold>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawFilter {
    pub(super) name: Spanned<Name>,
    #[serde(default)]
    pub(super) rules: Vec<RawRule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawRule {
    pub(super) direction: Option<RuleDirection>,
    pub(super) number: Spanned<RuleNumber>,
    pub(super) action: RuleAction,
    #[serde(default)]
    pub(super) protocol: Protocol,
    pub(super) source: Option<Cidr>,
    pub(super) destination: Option<Cidr>,
    pub(super) source_ports: Option<Ports>,
    pub(super) destination_ports: Option<Ports>,
    pub(super) service: Option<Spanned<Service>>,
    pub(super) verdict: Option<Verdict>,
    pub(super) description: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawSession {
    pub(super) number: Spanned<SessionNumber>,
    pub(super) interface: Glob,
    pub(super) filter: Spanned<Name>,
    pub(super) target: Option<Spanned<Name>>,
    pub(super) targets: Option<Vec<Spanned<Name>>>,
    pub(super) mode: Option<Mode>,
    pub(super) vni: Option<Vni>,
    pub(super) packet_length: Option<Spanned<PacketLength>>,
    pub(super) too_big: Option<TooBig>,
    pub(super) offload: Option<Offload>,
    pub(super) packets_per_second_max: Option<PacketRate>,
    pub(super) bits_per_second_max: Option<BitRate>,
    pub(super) description: Option<String>,
}

/// What targets and filters are called, here and in counters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name(pub(super) String);

impl FromStr for Name {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::new(text, "a name", "write 1 to 64 letters, digits, `-`, `_` and `.`"))
    }
}

/// An address that a copy can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TargetAddress(pub(super) IpAddr);

impl FromStr for TargetAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refuse = |allowed| ValueError::new(text, "an address of a target", allowed);
        let address = text.parse::<IpAddr>().map_err(|_| refuse("write an IPv4 or IPv6 address"))?.to_canonical();
        match address {
            _ if address.is_unspecified() || address.is_multicast() => Err(refuse("it must be that of one host")),
            IpAddr::V4(v4) if v4.is_broadcast() => Err(refuse("it must be that of one host")),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                Err(refuse("a link-local one does not say by which interface it is reached"))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => Ok(Self(address)),
        }
    }
}

/// A port to send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Port(pub(super) NonZeroU16);

impl FromStr for Port {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let port = whole_number_u16(text).and_then(NonZeroU16::new);
        port.map(Self).ok_or_else(|| ValueError::new(text, "a port", "write a number from 1 to 65535"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckProtocol {
    Tcp,
    Http,
}

impl FromStr for CheckProtocol {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "http" => Ok(Self::Http),
            _ => Err(ValueError::new(text, "a protocol of health checks", "write `tcp` or `http`")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RuleDirection {
    Ingress,
    Egress,
}

impl RuleDirection {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl FromStr for RuleDirection {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "ingress" => Ok(Self::Ingress),
            "egress" => Ok(Self::Egress),
            _ => Err(ValueError::new(text, "a direction", "write `ingress` or `egress`")),
        }
    }
}

read_as_text!(Name, TargetAddress, Port, CheckProtocol, RuleDirection);

/// As long as an account or a region.
const NAME_BYTES_MAX: usize = 64;
