//! Devices.
//!
//! Authority: rtnetlink(7), `RTM_GETLINK`; netdevice(7) for the flags.

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};

use super::{EthernetAddress, Netlink};

/// A device, as far as it matters to who sends by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub(crate) is_up: bool,
    pub(crate) mtu: u32,
    /// Its own address, if it is an Ethernet device that has a carrier and looks neighbours up.
    pub(crate) ethernet: Option<EthernetAddress>,
}

impl Netlink {
    /// The device of that index; `None` if there is none.
    pub(crate) fn link(&mut self, index: u32) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        Ok(self.link_message(message)?.as_ref().map(Link::from))
    }

    /// What the kernel says of one device; `None` if there is none.
    pub(crate) fn link_message(&mut self, asked: LinkMessage) -> io::Result<Option<LinkMessage>> {
        match self.ask(RouteNetlinkMessage::GetLink(asked), 0) {
            Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(message),
                _ => None,
            })),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let resolves = message.header.link_layer_type == LinkLayerType::Ether
            && flags.contains(LinkFlags::LowerUp)
            && !flags.contains(LinkFlags::Noarp);
        let mut link = Self { is_up: flags.contains(LinkFlags::Up), ..Self::default() };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Address(address) if resolves => link.ethernet = address.as_slice().try_into().ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                _ => {}
            }
        }
        link
    }
}

#[cfg(test)]
mod tests {
    use super::super::bytes::{attribute, read};
    use super::*;

    const OURS: EthernetAddress = [2, 0, 0, 0, 0, 1];

    /// `ifinfomsg` (family, type, index, flags, mask), `IFLA_ADDRESS` and `IFLA_MTU`.
    fn link(kind: u16, flags: u32, address: &[u8]) -> Link {
        let mut body = vec![0, 0];
        body.extend(kind.to_ne_bytes());
        body.extend(3_i32.to_ne_bytes());
        body.extend(flags.to_ne_bytes());
        body.extend([0; 4]);
        body.extend(attribute(1, address));
        body.extend(attribute(4, &1500_u32.to_ne_bytes()));
        let RouteNetlinkMessage::NewLink(message) = read(16, &body) else { panic!("no RTM_NEWLINK") };
        Link::from(&message)
    }

    /// `ARPHRD_ETHER` is 1 and `ARPHRD_NONE` 65534; `IFF_UP` is 1, `IFF_NOARP` 0x80, `IFF_LOWER_UP` 0x10000.
    #[test]
    fn an_address_is_one_that_neighbours_can_send_to() {
        let usable = Link { is_up: true, mtu: 1500, ethernet: Some(OURS) };
        assert_eq!(link(1, 0x10001, &OURS), usable);
        assert_eq!(link(1, 0x10000, &OURS), Link { is_up: false, ..usable });
        let none = Link { ethernet: None, ..usable };
        assert_eq!(link(1, 0x00001, &OURS), none, "no carrier");
        assert_eq!(link(1, 0x10081, &OURS), none, "no ARP");
        assert_eq!(link(65534, 0x10001, &OURS), none, "no Ethernet");
        assert_eq!(link(1, 0x10001, &[10, 0, 0, 1]), none, "no Ethernet address");
    }
}
