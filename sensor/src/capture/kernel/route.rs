//! Which interface a packet would have left by, asked of the kernel.
//!
//! Authority: rtnetlink(7), `RTM_GETROUTE`. A packet that is dropped before its routing is done has no interface yet.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::packet::Addresses;

/// Routes that were asked for, remembered until it is time to ask again.
#[derive(Default)]
pub(super) struct Ways {
    routes: Option<Routes>,
    known: HashMap<(IpAddr, IpAddr), Option<u32>>,
}

impl Ways {
    /// Makes ready to ask, if that was not done.
    pub(super) fn open(&mut self) {
        if self.routes.is_none() {
            let opened = Routes::open().inspect_err(|error| {
                tracing::warn!(%error, "routes can't be looked up: drops before routing get `-` for an interface");
            });
            self.routes = opened.ok();
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
        let device = self.routes.as_mut().and_then(|routes| routes.device(ends.0, ends.1));
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

/// Asks for routes in the network namespace it was opened in.
struct Routes {
    socket: Socket,
    answer: Vec<u8>,
}

impl Routes {
    /// Ready to be asked.
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, answer: Vec::with_capacity(ANSWER_BYTES_MAX) })
    }

    /// The index of the device by which a packet from `src` to `dst` leaves; `None` where there is no route.
    fn device(&mut self, src: IpAddr, dst: IpAddr) -> Option<u32> {
        // The kernel routes from addresses of its own only; a packet that was made up may have another.
        self.ask(Some(src), dst).or_else(|| self.ask(None, dst))
    }

    fn ask(&mut self, src: Option<IpAddr>, dst: IpAddr) -> Option<u32> {
        let mut route = RouteMessage::default();
        let bits = if dst.is_ipv4() { 32 } else { 128 };
        route.header.address_family = if dst.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        route.header.destination_prefix_length = bits;
        route.attributes.push(RouteAttribute::Destination(address(dst)));
        if let Some(src) = src {
            route.header.source_prefix_length = bits;
            route.attributes.push(RouteAttribute::Source(address(src)));
        }
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(route));
        request.header.flags = NLM_F_REQUEST;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).ok()?;
        self.answer.clear();
        self.socket.recv(&mut self.answer, 0).ok()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&self.answer).ok()?;
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) = answer.payload else { return None };
        route.attributes.into_iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(device) => Some(device),
            _ => None,
        })
    }
}

fn address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

/// An answer is one route, a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 8192;
