//! Neighbours, and what a route does beyond leading to one.
//!
//! Authority: rtnetlink(7) for both; `linux/xfrm.h` for the number of IPsec policies.

use super::{Netlink, damaged};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteFlags},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_XFRM};
use std::{io, net::IpAddr};

/// An Ethernet address.
pub(in super::super) type Ether = [u8; 6];

impl Netlink {
    /// Where a neighbour is that can be sent to now; `None` if the kernel does not know.
    pub(in super::super) fn neighbour(&mut self, device: u32, address: IpAddr) -> io::Result<Option<Ether>> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = device;
        let (family, address) = match address {
            IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
        };
        message.header.family = family;
        message.attributes = vec![NeighbourAttribute::Destination(address)];
        let answers = match self.ask(RouteNetlinkMessage::GetNeighbour(message), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            answers => answers?,
        };
        Ok(answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(neighbour) => ether(neighbour),
            _ => None,
        }))
    }

    /// Whether all packets to `address` that carry `mark` take one way, as they are: no choice among several, nothing around
    /// them.
    pub(in super::super) fn is_plain_route(&mut self, address: IpAddr, mark: u32) -> io::Result<bool> {
        let answers = self.ask_route(address, mark, RouteFlags::FibMatch)?;
        Ok(answers.iter().any(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => !route.attributes.iter().any(|part| {
                matches!(
                    part,
                    RouteAttribute::MultiPath(_)
                        | RouteAttribute::NhId(_)
                        | RouteAttribute::Encap(_)
                        | RouteAttribute::EncapType(_)
                )
            }),
            _ => false,
        }))
    }

    /// Whether IPsec may have a say in what leaves the host.
    pub(in super::super) fn has_policies(&mut self) -> io::Result<bool> {
        match &self.policies {
            Some(socket) => Ok(outgoing(socket)? != 0),
            None => Ok(false),
        }
    }
}

/// A socket to ask for IPsec policies; `None` where the kernel has none.
pub(super) fn policies() -> io::Result<Option<Socket>> {
    let mut socket = match Socket::new(NETLINK_XFRM) {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(None),
        socket => socket?,
    };
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(Some(socket))
}

fn ether(neighbour: &NeighbourMessage) -> Option<Ether> {
    let is_usable = matches!(
        neighbour.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
    );
    let address = neighbour.attributes.iter().find_map(|part| match part {
        NeighbourAttribute::LinkLayerAddress(bytes) => Ether::try_from(bytes.as_slice()).ok(),
        _ => None,
    })?;
    is_usable.then_some(address)
}

/// How many policies there are for what leaves.
fn outgoing(socket: &Socket) -> io::Result<u32> {
    // A header without process and sequence number, and a word of flags.
    let mut request = Vec::from(20_u32.to_ne_bytes());
    request.extend(GET_POLICY_INFO.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.extend([0; 12]);
    socket.send(&request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    // Header, flags, the header of the first attribute, then incoming and outgoing.
    let word = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    match (kind, word(28)) {
        (Some(POLICY_INFO), Some(outgoing)) => Ok(outgoing),
        _ => Err(damaged(io::Error::from(io::ErrorKind::InvalidData))),
    }
}

// `XFRM_MSG_NEWSPDINFO` and `XFRM_MSG_GETSPDINFO`.
const POLICY_INFO: u16 = 0x24;
const GET_POLICY_INFO: u16 = 0x25;
