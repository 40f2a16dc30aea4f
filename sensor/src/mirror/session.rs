//! A session: which interfaces are mirrored, by which filter, to which targets, and at what cost at most.
//!
//! Authority: EC2's `CreateTrafficMirrorSession` for number, VNI and packet length; `too-big`, `offload`, `mode` and the
//! rates are ours.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Filter, RateLimit, Vni};
use crate::config::glob::Glob;
use crate::config::value::{ValueError, read_as_text};
use crate::config::whole_number_u16;

/// One checked session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Sessions of one interface are asked in the order of their numbers.
    pub number: SessionNumber,
    /// The interfaces it mirrors.
    pub interface: Glob,
    /// What it mirrors of them.
    pub filter: Arc<Filter>,
    /// Where copies go: indexes into [`Mirror::targets`](super::Mirror::targets), at least one, none twice.
    pub targets: Vec<u16>,
    /// What several targets are for.
    pub mode: Mode,
    /// As configured; [`Mirror::vnis`](super::Mirror::vnis) gives each session one.
    pub vni: Option<Vni>,
    /// How much of each frame is sent; `None` for all of it.
    pub packet_length: Option<PacketLength>,
    /// What becomes of a copy that does not fit the path.
    pub too_big: TooBig,
    /// Who makes wire frames of super-packets.
    pub offload: Offload,
    /// How much may be copied.
    pub rate: RateLimit,
    /// For people.
    pub description: Option<String>,
}

/// 1 to 32766; a lower number is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber(u16);

impl SessionNumber {
    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for SessionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SessionNumber {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = whole_number_u16(text).filter(|number| (1..=SESSION_NUMBER_MAX).contains(number));
        number.map(Self).ok_or_else(|| ValueError::new(text, "a session number", "write a number from 1 to 32766"))
    }
}

/// EC2's.
const SESSION_NUMBER_MAX: u16 = 32_766;

/// How many bytes of each frame are sent, from the inner Ethernet header on. Never less than
/// [`PACKET_LENGTH_MIN_V4`], and [`PACKET_LENGTH_MIN_V6`] where a rule takes IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PacketLength(u16);

/// AWS's smallest for IPv4: Ethernet, IP header, one byte.
pub const PACKET_LENGTH_MIN_V4: u16 = 35;
/// Likewise for IPv6.
pub const PACKET_LENGTH_MIN_V6: u16 = 55;

impl PacketLength {
    /// Bytes after the VXLAN or GENEVE header.
    pub fn bytes(self) -> u16 {
        self.0
    }
}

impl fmt::Display for PacketLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PacketLength {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bytes = whole_number_u16(text).filter(|bytes| *bytes >= PACKET_LENGTH_MIN_V4);
        bytes.map(Self).ok_or_else(|| ValueError::new(text, "a packet length", "write a number of bytes from 35 on"))
    }
}

/// What several targets of a session are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// One copy: both directions of a connection go to one target, by weight.
    #[default]
    Balance,
    /// A copy to each.
    Replicate,
}

impl Mode {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Balance => "balance",
            Self::Replicate => "replicate",
        }
    }
}

impl FromStr for Mode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "balance" => Ok(Self::Balance),
            "replicate" => Ok(Self::Replicate),
            _ => Err(ValueError::new(text, "a mode of a session", "write `balance` or `replicate`")),
        }
    }
}

/// What becomes of a copy that with its outer headers is larger than the path to the target takes. It is never cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TooBig {
    /// The outer packet is fragmented.
    #[default]
    Fragment,
    /// It is skipped and counted.
    Skip,
}

impl TooBig {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fragment => "fragment",
            Self::Skip => "skip",
        }
    }
}

impl FromStr for TooBig {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "fragment" => Ok(Self::Fragment),
            "skip" => Ok(Self::Skip),
            _ => Err(ValueError::new(text, "a treatment of what is too big", "write `fragment` or `skip`")),
        }
    }
}

/// Who cuts the copies of super-packets into wire frames and completes their checksums, in the kernel plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offload {
    /// The kernel, on our own tunnel device: always right.
    #[default]
    Software,
    /// The physical card behind the route; refused where the route leaves by none.
    Device,
    /// The card if there is one, else the kernel.
    Auto,
}

impl Offload {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Device => "device",
            Self::Auto => "auto",
        }
    }
}

impl FromStr for Offload {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "software" => Ok(Self::Software),
            "device" => Ok(Self::Device),
            "auto" => Ok(Self::Auto),
            _ => Err(ValueError::new(text, "an offload", "write `software`, `device` or `auto`")),
        }
    }
}

read_as_text!(SessionNumber, PacketLength, Mode, TooBig, Offload);
