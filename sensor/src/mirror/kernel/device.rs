//! Devices as the mirror makes, watches and removes them, in the calling thread's network namespace.
//!
//! Authority: rtnetlink(7), ip-link(8) for what the kinds of tunnels are given.

use flowtap_abi::choice::SOURCE_PORTS;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoBridge, InfoData, InfoGeneve, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Stats64,
    },
};
use std::{io, num::NonZeroU16};

use crate::{
    mirror::Encapsulation,
    netlink::{Link, Netlink},
};

/// What the alias of every device of ours is.
pub const TUNNEL_ALIAS: &str = "flowtap: copies of mirrored packets";

/// A device that we made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnDevice {
    pub(super) name: String,
    pub(super) index: u32,
}

impl OwnDevice {
    /// One that was just made; from now on it is known for ours.
    pub(super) fn new(netlink: &mut Netlink, name: String) -> io::Result<Self> {
        let index = netlink.device_by_name(&name)?.ok_or(io::ErrorKind::NotFound)?.index;
        // The kernel takes an alias only for a device that is there.
        if let Err(error) = netlink.set(index, LinkAttribute::IfAlias(TUNNEL_ALIAS.to_owned())) {
            netlink.remove(index).unwrap_or_default();
            return Err(error);
        }
        Ok(Self { name, index })
    }

    /// What it is now, also where somebody has given it another name or alias; `None` if it is gone.
    pub(super) fn state(&self, netlink: &mut Netlink) -> io::Result<Option<DeviceState>> {
        Ok(netlink.device(self.index)?.filter(|state| state.name == self.name || state.is_ours()))
    }

    /// Takes it away, if it is there.
    pub(super) fn remove(&self, netlink: &mut Netlink) -> io::Result<()> {
        match self.state(netlink)? {
            Some(_) => netlink.remove(self.index),
            None => Ok(()),
        }
    }
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct DeviceState {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) alias: Option<String>,
    pub(super) link: Link,
    /// Index of the bridge whose port it is.
    pub(super) controller: Option<u32>,
    /// Whether it stands for something on a bus: a card.
    pub(super) is_physical: bool,
    /// What it encapsulates in and at which UDP port, if it does that by packet metadata.
    pub(super) tunnel: Option<(Encapsulation, u16)>,
    pub(super) sent: Sent,
}

impl DeviceState {
    /// Whether it was made by us, in this run or another.
    pub(super) fn is_ours(&self) -> bool {
        self.alias.as_deref() == Some(TUNNEL_ALIAS)
    }
}

/// What a device says of what it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sent {
    pub(super) frames: u64,
    pub(super) dropped: u64,
    pub(super) errors: u64,
}

impl Netlink {
    /// Makes a tunnel device that takes VNI and target from each packet, and learns nothing. A VXLAN device takes its
    /// source ports from the range of RFC 7348; RFC 8926 gives GENEVE all, as the kernel does.
    pub(in crate::mirror::kernel) fn create_tunnel(
        &mut self,
        name: &str,
        encapsulation: Encapsulation,
        port: NonZeroU16,
    ) -> io::Result<()> {
        let (kind, data) = match encapsulation {
            Encapsulation::Vxlan => {
                let data = vec![
                    InfoVxlan::CollectMetadata(true),
                    InfoVxlan::Learning(false),
                    InfoVxlan::Port(port.get()),
                    InfoVxlan::PortRange(SOURCE_PORTS),
                ];
                (InfoKind::Vxlan, InfoData::Vxlan(data))
            }
            Encapsulation::Geneve => {
                let data = vec![InfoGeneve::CollectMetadata, InfoGeneve::Port(port.get())];
                (InfoKind::Geneve, InfoData::Geneve(data))
            }
        };
        self.create(name, vec![LinkInfo::Kind(kind), LinkInfo::Data(data)])
    }

    /// Makes a bridge that asks nobody about groups, and tells nobody.
    pub(in crate::mirror::kernel) fn create_bridge(&mut self, name: &str) -> io::Result<()> {
        self.create(
            name,
            vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
            ],
        )
    }

    fn create(&mut self, name: &str, info: Vec<LinkInfo>) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::LinkInfo(info)];
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Sets the longest packet that a device takes, in bytes behind its link layer.
    pub(in crate::mirror::kernel) fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        self.set(index, LinkAttribute::Mtu(mtu))
    }

    /// Makes a device a port of a bridge.
    pub(in crate::mirror::kernel) fn put_under(&mut self, port: u32, bridge: u32) -> io::Result<()> {
        self.set(port, LinkAttribute::Controller(bridge))
    }

    fn set(&mut self, index: u32, attribute: LinkAttribute) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![attribute];
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets a device up.
    pub(in crate::mirror::kernel) fn up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Takes a device away.
    pub(in crate::mirror::kernel) fn remove(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.change(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// The device of that index; `None` if there is none.
    pub(in crate::mirror::kernel) fn device(&mut self, index: u32) -> io::Result<Option<DeviceState>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        Ok(self.link_message(message)?.as_ref().map(DeviceState::from))
    }

    /// The device of that name; `None` if there is none.
    pub(in crate::mirror::kernel) fn device_by_name(&mut self, name: &str) -> io::Result<Option<DeviceState>> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        Ok(self.link_message(message)?.as_ref().map(DeviceState::from))
    }

    /// All devices of the namespace.
    pub(in crate::mirror::kernel) fn devices(&mut self) -> io::Result<Vec<DeviceState>> {
        let answers = self.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(DeviceState::from(message)),
                _ => None,
            })
            .collect())
    }

    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, flags | NLM_F_ACK).map(drop)
    }
}

impl From<&LinkMessage> for DeviceState {
    fn from(message: &LinkMessage) -> Self {
        let mut device = Self { index: message.header.index, link: Link::from(message), ..Self::default() };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => device.alias = Some(alias.clone()),
                LinkAttribute::Controller(index) => device.controller = Some(*index),
                LinkAttribute::ParentDevName(_) => device.is_physical = true,
                LinkAttribute::Stats64(stats) => device.sent = sent(stats),
                LinkAttribute::LinkInfo(infos) => device.tunnel = infos.iter().find_map(tunnel),
                _ => {}
            }
        }
        device
    }
}

fn sent(stats: &Stats64) -> Sent {
    Sent { frames: stats.tx_packets, dropped: stats.tx_dropped, errors: stats.tx_errors }
}

fn tunnel(info: &LinkInfo) -> Option<(Encapsulation, u16)> {
    match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => {
            let port =
                data.iter().find_map(|part| if let InfoVxlan::Port(port) = part { Some(*port) } else { None })?;
            data.contains(&InfoVxlan::CollectMetadata(true)).then_some((Encapsulation::Vxlan, port))
        }
        LinkInfo::Data(InfoData::Geneve(data)) => {
            let port =
                data.iter().find_map(|part| if let InfoGeneve::Port(port) = part { Some(*port) } else { None })?;
            data.contains(&InfoGeneve::CollectMetadata).then_some((Encapsulation::Geneve, port))
        }
        _ => None,
    }
}
