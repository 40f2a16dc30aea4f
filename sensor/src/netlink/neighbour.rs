//! Neighbours.
//!
//! Authority: rtnetlink(7), `RTM_GETNEIGH`; linux/neighbour.h for their states.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{EthernetAddress, Netlink};

impl Netlink {
    /// The Ethernet address of a neighbour on a device, as long as the kernel sends there without asking who has it, or
    /// has reason to ask soon. `None` if there is none, or the kernel is asking.
    pub(crate) fn neighbour(&mut self, device: u32, address: IpAddr) -> io::Result<Option<EthernetAddress>> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = device;
        let (family, destination) = match address {
            IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
        };
        message.header.family = family;
        message.attributes = vec![NeighbourAttribute::Destination(destination)];
        match self.ask(RouteNetlinkMessage::GetNeighbour(message), 0) {
            Ok(answers) => Ok(answers.iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(neighbour) => known_address(neighbour),
                _ => None,
            })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn known_address(message: &NeighbourMessage) -> Option<EthernetAddress> {
    let is_known = matches!(
        message.header.state,
        NeighbourState::Permanent | NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay
    );
    message.attributes.iter().filter(|_| is_known).find_map(|part| match part {
        NeighbourAttribute::LinkLayerAddress(address) => address.as_slice().try_into().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::bytes::{attribute, read};
    use super::*;

    const THEIRS: EthernetAddress = [2, 0, 0, 0, 0, 2];

    /// `ndmsg` (family, device, state, flags, type), `NDA_DST` and `NDA_LLADDR`.
    fn address(state: u16, link_layer: &[u8]) -> Option<EthernetAddress> {
        let mut body = vec![libc::AF_INET as u8, 0, 0, 0];
        body.extend(9_i32.to_ne_bytes());
        body.extend(state.to_ne_bytes());
        body.extend([0, 1]);
        body.extend(attribute(1, &[10, 83, 0, 2]));
        body.extend(attribute(2, link_layer));
        let RouteNetlinkMessage::NewNeighbour(message) = read(28, &body) else { panic!("no RTM_NEWNEIGH") };
        known_address(&message)
    }

    #[test]
    fn a_neighbour_is_one_that_the_kernel_is_not_asking_for() {
        // NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PERMANENT.
        for state in [2, 4, 8, 0x80] {
            assert_eq!(address(state, &THEIRS), Some(THEIRS), "{state}");
        }
        // None, NUD_INCOMPLETE, NUD_PROBE, NUD_FAILED; NUD_NOARP is of what is no neighbour.
        for state in [0, 1, 0x10, 0x20, 0x40] {
            assert_eq!(address(state, &THEIRS), None, "{state}");
        }
        assert_eq!(address(2, &[10, 0, 0, 1]), None, "no Ethernet address");
    }
}
