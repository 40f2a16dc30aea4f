//! How copies leave the host: by which device, and how large a frame may be to fit with its outer headers.
//!
//! Authority: RFC 7348 section 4.3 (the path should take what the tunnel adds); the numbers of `54` and `74` bytes on
//! AWS's page about MTU are these plus an inner VLAN tag.

use crate::{
    mirror::{
        next_hop::{NextHop, WayOut},
        path_size::outer_bytes,
    },
    netlink::Netlink,
};
use std::{io, net::IpAddr};

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
}
