//! The segmenter: a device of our own before which the kernel makes wire frames of copies that have their outer headers
//! already.
//!
//! It is a bridge. A bridge offers nothing for packets that are encapsulated, and this one completes no checksums besides,
//! so the kernel cuts super-packets and completes checksums before it, the inner ones too. What it is given it forwards to
//! its only port, at whose egress a program sends each frame out. So a copy passes none of the kernel's IP stack, whose look
//! for a route takes longer for each frame of a tunnel than all of this.
//!
//! The port belongs to a file that this process holds open, so a crash takes it away; the bridge stays then, and the next
//! run removes it. Opening the file takes a right that a run gives up, and making the devices does not.
//!
//! Authority: ip-link(8), bridge(8), the kernel's Documentation/networking/tuntap.rst.

use super::{
    TUNNEL_ALIAS,
    netlink::Device,
    programs::{self, ProgramsError},
};
use crate::{
    capture::kernel::chain,
    mirror::netlink::Netlink,
    sys::{
        interface,
        tun::{self, Layer},
    },
};
use aya::{
    Ebpf,
    programs::{TcAttachType, tc::SchedClassifierLink},
};
use std::{fs::File, io};

/// The devices, or the way to make them, as far as they can be had.
pub(super) struct Segmenter {
    file: io::Result<File>,
    port: Option<Port>,
    bridge: Option<Named>,
    /// Why there is none, though it is wanted.
    pub(super) refusal: Option<String>,
}

struct Port {
    device: Named,
    /// Held so that it stays attached.
    _program: SchedClassifierLink,
}

struct Named {
    name: String,
    index: u32,
}

/// Why there are no such devices.
#[derive(Debug, thiserror::Error)]
enum SegmenterError {
    /// There is no way to make the port.
    #[error("{0} (/dev/net/tun)")]
    Port(#[source] io::Error),
    /// A device can't be made, or set up.
    #[error(transparent)]
    Device(#[from] io::Error),
    /// A device of the bridge's name is none of ours.
    #[error("there is a device {0} that flowtap did not make")]
    NameTaken(String),
    /// The program can't be attached.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
}

impl Segmenter {
    /// Opens the way to make it, in the calling thread's network namespace. That it can't be had is told only when it is
    /// wanted.
    pub(super) fn reserve() -> Self {
        Self { file: tun::open(), port: None, bridge: None, refusal: None }
    }

    /// Index of the device that copies are handed to; 0 while there is none.
    pub(super) fn index(&self) -> u32 {
        self.bridge.as_ref().map_or(0, |bridge| bridge.index)
    }

    /// Makes it, unless it is there or was refused.
    pub(super) fn make(&mut self, netlink: &mut Netlink, object: &mut Ebpf) {
        if self.bridge.is_none() && self.refusal.is_none() {
            match self.try_make(netlink, object) {
                Ok(bridge) => self.bridge = Some(bridge),
                Err(error) => self.refusal = Some(chain(&error)),
            }
        }
    }

    /// Makes it again if somebody changed it; its name if so.
    pub(super) fn tend(&mut self, netlink: &mut Netlink, object: &mut Ebpf) -> io::Result<Option<String>> {
        if self.bridge.is_none() || self.is_whole(netlink)? {
            return Ok(None);
        }
        self.remove_bridge(netlink)?;
        self.make(netlink, object);
        Ok(self.bridge.as_ref().map(|bridge| bridge.name.clone()))
    }

    /// Takes it away.
    pub(super) fn remove(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        self.refusal = None;
        self.remove_bridge(netlink)?;
        match self.port.take() {
            Some(port) => port.device.remove(netlink),
            None => Ok(()),
        }
    }

    fn remove_bridge(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        self.bridge.take().map_or(Ok(()), |bridge| bridge.remove(netlink))
    }

    fn is_whole(&self, netlink: &mut Netlink) -> io::Result<bool> {
        let (Some(bridge), Some(port)) = (&self.bridge, &self.port) else { return Ok(false) };
        let is_port =
            port.device.find(netlink)?.is_some_and(|link| link.is_up && link.controller == Some(bridge.index));
        Ok(is_port && bridge.find(netlink)?.is_some_and(|link| link.is_up))
    }

    fn try_make(&mut self, netlink: &mut Netlink, object: &mut Ebpf) -> Result<Named, SegmenterError> {
        let is_there = match &self.port {
            Some(port) => port.device.find(netlink)?.is_some(),
            None => false,
        };
        if !is_there {
            self.port = None;
            let file = self.file.as_ref();
            let file = file.map_err(|error| SegmenterError::Port(io::Error::new(error.kind(), error.to_string())))?;
            self.port = Some(Port::make(file, netlink, object)?);
        }
        let Some(Port { device: port, .. }) = &self.port else {
            return Err(SegmenterError::Port(io::ErrorKind::NotFound.into()));
        };
        // The port's number is nobody else's, so a bridge of that number is of a run that ended without taking it away.
        let name = port.name.replacen(PORT, BRIDGE, 1);
        if let Some(present) = netlink.device_by_name(&name)? {
            if present.alias.as_deref() != Some(TUNNEL_ALIAS) {
                return Err(SegmenterError::NameTaken(name));
            }
            netlink.remove(present.index)?;
        }
        netlink.create_bridge(&name, TUNNEL_ALIAS)?;
        let bridge = Named::of(netlink, name)?;
        let finished = bridge.finish(netlink, port);
        if finished.is_err() {
            // What cannot be finished must not stay; the first error says more than one about this would.
            bridge.remove(netlink).unwrap_or_default();
        }
        finished?;
        Ok(bridge)
    }
}

impl Port {
    fn make(file: &File, netlink: &mut Netlink, object: &mut Ebpf) -> Result<Self, SegmenterError> {
        let name = tun::make(file, Layer::Ethernet, &format!("{PORT}%d")).map_err(SegmenterError::Port)?;
        let device = Named::of(netlink, name)?;
        netlink.set_alias(device.index, TUNNEL_ALIAS)?;
        // A bridge forwards nothing that is longer than its port says.
        netlink.set_mtu(device.index, PORT_MTU)?;
        // It is there before the device is up: nothing but copies goes through it.
        let program = programs::attach(object, "mirror_leave", &device.name, TcAttachType::Egress)?;
        Ok(Self { device, _program: program })
    }
}

impl Named {
    /// A device that was just made.
    fn of(netlink: &mut Netlink, name: String) -> io::Result<Self> {
        let index = netlink.device_by_name(&name)?.ok_or(io::ErrorKind::NotFound)?.index;
        Ok(Self { name, index })
    }

    fn finish(&self, netlink: &mut Netlink, port: &Self) -> io::Result<()> {
        interface::set_transmit_checksums(&self.name, false)?;
        netlink.put_under(port.index, self.index)?;
        netlink.up(port.index)?;
        netlink.up(self.index)
    }

    fn find(&self, netlink: &mut Netlink) -> io::Result<Option<Device>> {
        Ok(netlink.device(self.index)?.filter(|link| link.name == self.name))
    }

    fn remove(&self, netlink: &mut Netlink) -> io::Result<()> {
        match self.find(netlink)? {
            Some(_) => netlink.remove(self.index),
            None => Ok(()),
        }
    }
}

// What the names begin with; the number behind is the same, and the kernel's.
const BRIDGE: &str = "flowtap-s";
const PORT: &str = "flowtap-p";
/// The most that a tap device has, and more than any frame needs.
const PORT_MTU: u32 = 65_521;
