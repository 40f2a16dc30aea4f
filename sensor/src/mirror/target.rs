//! A target: where copies go, and how it is told that nobody is there.
//!
//! A target's health is asked as a Network Load Balancer asks it: over TCP or HTTP, since nothing answers to VXLAN.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use crate::config::value::{ValueError, read_as_text};
use crate::config::{whole_number, whole_number_u16};

/// One checked target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What sessions call it.
    pub name: String,
    /// Of one host: no group, no broadcast.
    pub address: IpAddr,
    /// UDP.
    pub port: NonZeroU16,
    /// What copies are wrapped in.
    pub encapsulation: Encapsulation,
    /// Its share among the targets of a session.
    pub weight: Weight,
    /// How it is told whether it takes copies; `None`: it always does.
    pub health_check: Option<HealthCheck>,
}

/// What copies are wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encapsulation {
    /// RFC 7348, as AWS does.
    #[default]
    Vxlan,
    /// RFC 8926, with the inner Ethernet header (protocol type 0x6558) and no options.
    Geneve,
}

impl Encapsulation {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
        }
    }

    /// IANA's UDP port.
    pub fn port_default(self) -> NonZeroU16 {
        match self {
            Self::Vxlan => VXLAN_PORT,
            Self::Geneve => GENEVE_PORT,
        }
    }
}

impl FromStr for Encapsulation {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "vxlan" => Ok(Self::Vxlan),
            "geneve" => Ok(Self::Geneve),
            _ => Err(ValueError::new(text, "an encapsulation", "write `vxlan` or `geneve`")),
        }
    }
}

/// A share, 1 to 1000, compared with those of the other targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight(NonZeroU16);

impl Weight {
    /// The number.
    pub fn number(self) -> NonZeroU16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(NonZeroU16::MIN)
    }
}

impl FromStr for Weight {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = whole_number_u16(text).filter(|number| *number <= WEIGHT_MAX).and_then(NonZeroU16::new);
        number.map(Self).ok_or_else(|| ValueError::new(text, "a weight", "write a number from 1 to 1000"))
    }
}

/// How a target is asked whether it takes copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub question: Question,
    /// TCP, at the target's address.
    pub port: NonZeroU16,
    /// From one question to the next.
    pub interval: Duration,
    /// Without an answer for so long it has failed; never more than the interval.
    pub timeout: Duration,
    /// So many good answers on end make a target healthy again.
    pub healthy_threshold: Threshold,
    /// So many failures on end make it unhealthy.
    pub unhealthy_threshold: Threshold,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Whether it accepts a connection.
    Tcp,
    /// Whether a GET of this path is answered with a status of 200 to 399.
    Http(HttpPath),
}

/// The path of an HTTP request: printable ASCII that begins with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpPath(String);

impl HttpPath {
    /// As it stands in the request.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for HttpPath {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl FromStr for HttpPath {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let fits = text.starts_with('/') && text.len() <= HTTP_PATH_BYTES_MAX;
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::new(text, "a path", "write it like `/health`, without spaces, at most 1024 bytes"))
    }
}

/// A number of answers on end, 1 to 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold(u8);

impl Threshold {
    /// The number.
    pub fn count(self) -> u8 {
        self.0
    }
}

impl Default for Threshold {
    /// One lost packet changes nothing.
    fn default() -> Self {
        Self(3)
    }
}

impl FromStr for Threshold {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let count = whole_number(text).and_then(|count| u8::try_from(count).ok());
        let count = count.filter(|count| (1..=THRESHOLD_MAX).contains(count));
        count.map(Self).ok_or_else(|| ValueError::new(text, "a number of answers", "write a number from 1 to 10"))
    }
}

/// A time of a health check, 1 to 300 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckTime(u16);

impl CheckTime {
    /// From one question to the next, where nothing else is said.
    pub const INTERVAL_DEFAULT: Self = Self(10);
    /// For an answer, where nothing else is said.
    pub const TIMEOUT_DEFAULT: Self = Self(2);

    /// As a time.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl FromStr for CheckTime {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let secs = text.strip_suffix('s').and_then(whole_number_u16);
        let secs = secs.filter(|secs| (1..=CHECK_SECS_MAX).contains(secs));
        secs.map(Self).ok_or_else(|| ValueError::new(text, "a time of a health check", "write `1s` to `300s`"))
    }
}

read_as_text!(Encapsulation, Weight, HttpPath, Threshold, CheckTime);

const VXLAN_PORT: NonZeroU16 = NonZeroU16::new(4789).expect("not zero");
const GENEVE_PORT: NonZeroU16 = NonZeroU16::new(6081).expect("not zero");
/// Enough for any proportion of real machines.
const WEIGHT_MAX: u16 = 1000;
/// The Network Load Balancer's.
const HTTP_PATH_BYTES_MAX: usize = 1024;
/// The Network Load Balancer's.
const THRESHOLD_MAX: u8 = 10;
/// The Network Load Balancer's.
const CHECK_SECS_MAX: u16 = 300;
