//! How copies leave the host: by which device, and how large a frame may be to fit with its outer headers.
//!
//! Authority: RFC 7348 section 4.3 (the path should take what the tunnel adds); the numbers of `54` and `74` bytes on
//! AWS's page about MTU are these plus an inner VLAN tag.

use crate::{
    mirror::next_hop::{NextHop, WayOut},
    netlink::Netlink,
};
use std::{fmt, io, net::IpAddr};

/// The way to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Index of the device that copies leave by.
    pub device: u32,
    /// Its name.
    pub device_name: String,
    /// Whether that device is a card.
    pub is_physical: bool,
    /// The largest outer packet that need not be fragmented, in bytes from the outer IP header on.
    pub mtu: u32,
    /// The largest inner frame that fits into it.
    pub frame_bytes_max: u32,
    /// The address that packets leave with.
    pub(super) source: Option<IpAddr>,
    /// Whom copies past the IP stack are addressed to; `None` where they may not go past it.
    pub(super) direct: Option<NextHop>,
}

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

impl Path {
    /// Asks the kernel for the way to `address`, which packets with `mark` take.
    pub(super) fn find(netlink: &mut Netlink, address: IpAddr, mark: u32) -> io::Result<Self> {
        let way = WayOut::find(netlink, address, mark)?;
        let device = netlink.device(way.route.device)?.ok_or(io::ErrorKind::NotFound)?;
        let mtu = way.mtu();
        // Whatever is in doubt: the tunnel device always knows a way.
        let direct = if address.is_ipv4() { way.next_hop(netlink, None).unwrap_or(None) } else { None };
        Ok(Self {
            device: device.index,
            device_name: device.name,
            is_physical: device.is_physical,
            source: way.route.source,
            direct,
            mtu,
            frame_bytes_max: mtu.saturating_sub(outer_bytes(address)),
        })
    }

    /// The outer MTU that full frames of an interface need.
    pub(super) fn needed_mtu(address: IpAddr, interface_mtu: u32) -> u32 {
        interface_mtu + ETHERNET_BYTES + outer_bytes(address)
    }
}

/// Outer IP header, UDP header, VXLAN or GENEVE header.
fn outer_bytes(address: IpAddr) -> u32 {
    let ip = if address.is_ipv4() { 20 } else { 40 };
    ip + 8 + 8
}

const ETHERNET_BYTES: u32 = 14;
