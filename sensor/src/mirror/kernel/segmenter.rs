//! The segmenter: a device of our own before which the kernel makes wire frames of copies that have their outer headers
//! already.
//!
//! It is a bridge. A bridge offers nothing for packets that are encapsulated, and this one completes no checksums besides,
//! so the kernel cuts super-packets and completes checksums before it, the inner ones too. What it is given it forwards to
//! its only port, at whose egress a program sends each frame out. So a copy passes none of the kernel's IP stack, whose look
//! for a route takes longer for each frame of a tunnel than all of this.
//!
//! The port belongs to a file that this process holds open, so a crash takes it away. The bridge stays then, until a run
//! makes another one. Opening the file takes a right that a run gives up, and making the devices does not.
//!
//! Authority: ip-link(8), bridge(8), the kernel's Documentation/networking/tuntap.rst.

use super::{
    device::{DeviceState, OwnDevice},
    programs::{self, ProgramsError},
};
use crate::{
    capture::kernel::chain,
    netlink::Netlink,
    sys::{
        interface::{self, OWN_PREFIX},
        tun::{self, Layer},
    },
};
use aya::{
    Ebpf,
    programs::{TcAttachType, tc::SchedClassifierLink},
};
use std::io;

/// The devices, or the way to make them, as far as they can be had.
pub(super) struct Segmenter {
    way: tun::Way,
    port: Option<Port>,
    bridge: Option<OwnDevice>,
    /// Why there is none, though it is wanted.
    pub(super) refusal: Option<String>,
    /// Rounds until it is tried again.
    rests: u32,
}

struct Port {
    device: OwnDevice,
    /// Held so that it stays attached.
    _program: SchedClassifierLink,
}

/// Why there are no such devices.
#[derive(Debug, thiserror::Error)]
enum SegmenterError {
    /// There is no way to make the port.
    #[error("its port can't be made (/dev/net/tun)")]
    Port(#[source] io::Error),
    /// The kernel makes no bridges.
    #[error("this kernel makes no bridges; load its module (`modprobe bridge`)")]
    NotOffered,
    /// A device can't be made, or set up.
    #[error("its devices can't be set up")]
    Device(#[from] io::Error),
    /// A device of the bridge's name is none of ours.
    #[error("there is a device {0} that flowtap did not make; remove it (`ip link delete {0}`)")]
    NameTaken(String),
    /// The program can't be attached.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
}

impl Segmenter {
    /// Opens the way to make it, in the calling thread's network namespace. That it can't be had is told only when it is
    /// wanted.
    pub(super) fn reserve() -> Self {
        Self { way: tun::Way::open(), port: None, bridge: None, refusal: None, rests: 0 }
    }

    /// As where it can't be had.
    #[cfg(test)]
    pub(super) fn none(why: io::ErrorKind) -> Self {
        Self { way: tun::Way::none(why), port: None, bridge: None, refusal: None, rests: 0 }
    }

    /// Index of the device that copies are handed to; 0 while there is none.
    pub(super) fn index(&self) -> u32 {
        self.bridge.as_ref().map_or(0, |bridge| bridge.index)
    }

    /// Sees to it that it is there as it should be; to be called in each round while it is wanted. Its name, if it was there
    /// and had to be made again because somebody changed it.
    pub(super) fn tend(&mut self, netlink: &mut Netlink, object: &mut Ebpf) -> Option<String> {
        if self.rests > 0 {
            self.rests -= 1;
            return None;
        }
        // What can't be told is taken for whole.
        if self.bridge.is_some() && self.is_whole(netlink).unwrap_or(true) {
            return None;
        }
        let before = self.bridge.take();
        if let Some(bridge) = &before {
            bridge.remove(netlink).unwrap_or_default();
        }
        match self.make(netlink, object) {
            Ok(bridge) => {
                (self.bridge, self.refusal) = (Some(bridge), None);
                before.map(|bridge| bridge.name)
            }
            Err(error) => {
                (self.refusal, self.rests) = (Some(chain(&error)), REST_ROUNDS);
                None
            }
        }
    }

    /// Takes it away. What can't be taken away now is known for ours later.
    pub(super) fn remove(&mut self, netlink: &mut Netlink) {
        (self.refusal, self.rests) = (None, 0);
        for device in self.bridge.take().into_iter().chain(self.port.take().map(|port| port.device)) {
            device.remove(netlink).unwrap_or_default();
        }
    }

    fn is_whole(&self, netlink: &mut Netlink) -> io::Result<bool> {
        let (Some(bridge), Some(port)) = (&self.bridge, &self.port) else { return Ok(false) };
        let is_port = |state: DeviceState| {
            state.link.is_up && state.controller == Some(bridge.index) && state.link.mtu == PORT_MTU
        };
        let has_port = port.device.state(netlink)?.is_some_and(is_port);
        Ok(has_port && bridge.state(netlink)?.is_some_and(|state| state.link.is_up))
    }

    fn make(&mut self, netlink: &mut Netlink, object: &mut Ebpf) -> Result<OwnDevice, SegmenterError> {
        // A file has one device at a time, so one that is there is used again.
        let has_port = match &self.port {
            Some(port) => port.device.state(netlink)?.is_some(),
            None => false,
        };
        if !has_port {
            self.port = None;
            self.port = Some(Port::make(&self.way, netlink, object)?);
        }
        let Some(port) = &self.port else { return Err(SegmenterError::Port(io::ErrorKind::NotFound.into())) };
        let number = port.device.name.trim_start_matches(OWN_PREFIX).trim_start_matches(PORT);
        let name = format!("{OWN_PREFIX}{BRIDGE}{number}");
        remove_leftovers(netlink, &name)?;
        if netlink.device_by_name(&name)?.is_some() {
            return Err(SegmenterError::NameTaken(name));
        }
        netlink.create_bridge(&name).map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => SegmenterError::NotOffered,
            _ => SegmenterError::Device(error),
        })?;
        let bridge = OwnDevice::new(netlink, name)?;
        if let Err(error) = finish_bridge(&bridge, netlink, &port.device) {
            // What cannot be finished must not stay.
            bridge.remove(netlink).unwrap_or_default();
            return Err(error.into());
        }
        Ok(bridge)
    }
}

/// Removes bridges of ours that nobody holds a port for: their run ended without taking them away. A live run makes its port
/// first, and nobody else's has its number; so a bridge of the name that is wanted here is one of them.
fn remove_leftovers(netlink: &mut Netlink, wanted: &str) -> io::Result<()> {
    let bridges = format!("{OWN_PREFIX}{BRIDGE}");
    let all = netlink.devices()?;
    let has_port = |number: &str| all.iter().any(|link| link.name == format!("{OWN_PREFIX}{PORT}{number}"));
    let is_left = |link: &&DeviceState| {
        let number = link.name.strip_prefix(&bridges);
        link.is_ours() && number.is_some_and(|number| link.name == wanted || !has_port(number))
    };
    all.iter().filter(is_left).try_for_each(|link| netlink.remove(link.index))
}

impl Port {
    fn make(way: &tun::Way, netlink: &mut Netlink, object: &mut Ebpf) -> Result<Self, SegmenterError> {
        let pattern = format!("{OWN_PREFIX}{PORT}%d");
        let name = way.make(Layer::Ethernet, &pattern).map_err(SegmenterError::Port)?;
        let device = OwnDevice::new(netlink, name)?;
        // It is there before the device is up: nothing but copies goes through it.
        match programs::attach(object, "mirror_leave", &device.name, TcAttachType::Egress) {
            Ok(program) => Ok(Self { device, _program: program }),
            Err(error) => {
                // The file is for one device.
                device.remove(netlink).unwrap_or_default();
                Err(error.into())
            }
        }
    }
}

fn finish_bridge(bridge: &OwnDevice, netlink: &mut Netlink, port: &OwnDevice) -> io::Result<()> {
    interface::set_transmit_checksums(&bridge.name, false)?;
    // A bridge forwards nothing that is longer than its port says.
    netlink.set_mtu(port.index, PORT_MTU)?;
    netlink.put_under(port.index, bridge.index)?;
    netlink.up(port.index)?;
    netlink.up(bridge.index)
}

// What the names have behind what all of ours begin with; the number that follows is the same, and the kernel's.
const BRIDGE: &str = "s";
const PORT: &str = "p";
/// The most that a tap device has, and more than any frame needs.
const PORT_MTU: u32 = 65_521;
/// After a refusal: one is nearly always lasting, and asking for a module that is not there starts a program each time.
const REST_ROUNDS: u32 = 60;
