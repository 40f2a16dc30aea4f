//! Paths that full frames of a mirrored interface don't fit, in the words of both planes.
//!
//! Authority: RFC 7348 section 4.3 (the path should take what the tunnel adds).

use std::fmt;
use std::net::IpAddr;

/// What becomes of frames that do not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTooSmall {
    /// The target.
    pub target: String,
    /// The largest outer packet of the path.
    pub path_mtu: u32,
    /// A mirrored interface whose frames may be larger than fits.
    pub interface: String,
    /// Its MTU.
    pub interface_mtu: u32,
    /// What the path would have to take.
    pub needed_mtu: u32,
    /// Whether such frames are skipped; else their outer packets are fragmented.
    pub skips: bool,
}

impl fmt::Display for PathTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, path_mtu, interface, interface_mtu, needed_mtu, skips } = self;
        let fate = if *skips { "are skipped" } else { "are sent in outer fragments" };
        write!(
            f,
            "the path to mirror target `{target}` has an MTU of {path_mtu} bytes, and copies of full frames of {interface} \
             (MTU {interface_mtu}) need {needed_mtu}: they {fate}; raise the MTU of the path to {needed_mtu}"
        )
    }
}

/// The outer MTU that full frames of an interface need.
pub(super) fn needed_mtu(address: IpAddr, interface_mtu: u32) -> u32 {
    interface_mtu + ETHERNET_BYTES + outer_bytes(address)
}

/// Outer IP header, UDP header, VXLAN or GENEVE header.
pub(super) fn outer_bytes(address: IpAddr) -> u32 {
    let ip = if address.is_ipv4() { 20 } else { 40 };
    ip + 8 + 8
}

const ETHERNET_BYTES: u32 = 14;
