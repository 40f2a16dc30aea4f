//! Devices, routes, neighbours and IPsec policies, asked of the kernel in the calling thread's network namespace, and what
//! it tells of their changes.
//!
//! Authority: rtnetlink(7), linux/neighbour.h, linux/xfrm.h. One request at a time, and its answer.

#[cfg(test)]
mod bytes;
mod changes;
mod link;
mod neighbour;
mod policy;
mod questions;
mod route;

pub(crate) use changes::Changes;
pub(crate) use link::Link;
pub(crate) use route::Route;

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::{NETLINK_ROUTE, NETLINK_XFRM};

use questions::Questions;

/// Of a card, real or not.
pub(crate) type EthernetAddress = [u8; 6];

/// Whom the kernel's answers are had of.
#[derive(Debug)]
pub(crate) struct Netlink {
    routes: Questions,
    /// As far as it can be had.
    policies: io::Result<Questions>,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { routes: Questions::open(NETLINK_ROUTE)?, policies: Questions::open(NETLINK_XFRM) })
    }

    /// Sends a request about devices, routes or neighbours, and gathers what comes for it.
    pub(crate) fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.routes.ask(message, flags)
    }
}
