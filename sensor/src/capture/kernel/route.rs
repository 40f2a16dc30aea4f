//! Which interface a packet would have left by, asked of the kernel.
//!
//! A packet that is dropped before its routing is done has no interface yet.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::{netlink::Netlink, packet::Addresses};

/// Routes that were asked for, remembered until it is time to ask again.
#[derive(Default)]
pub(super) struct Ways {
    netlink: Option<Netlink>,
    known: HashMap<(IpAddr, IpAddr), Option<u32>>,
}

impl Ways {
    /// Makes ready to ask, if that was not done.
    pub(super) fn open(&mut self) {
        if self.netlink.is_none() {
            let opened = Netlink::open().inspect_err(|error| {
                tracing::warn!(%error, "routes can't be looked up: drops before routing get `-` for an interface");
            });
            self.netlink = opened.ok();
        }
    }

    /// The index of the device that the route between two addresses leads to, if there is one; only so many are asked
    /// for before all is forgotten.
    pub(super) fn device(&mut self, addresses: Addresses) -> Option<u32> {
        let ends = addresses.ends();
        if let Some(known) = self.known.get(&ends) {
            return *known;
        }
        if self.known.len() >= ROUTES_MAX {
            return None;
        }
        let device = self.netlink.as_mut().and_then(|netlink| {
            // The kernel routes from addresses of its own only; a packet that was made up may have another.
            let route = netlink.route_from(ends.0, ends.1).or_else(|_| netlink.route(ends.1, 0));
            route.ok().map(|route| route.device)
        });
        self.known.insert(ends, device);
        device
    }

    /// Routes may have changed: they are asked for anew.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

/// How many routes are asked for until they are forgotten: each is a request to the kernel.
const ROUTES_MAX: usize = 4096;

/// The kernel gives this index to every namespace's loopback. It names it for a rejection's answer where it knows no
/// device yet; what really goes out by loopback has a route that leads there.
pub(super) const LOOPBACK: u32 = 1;
