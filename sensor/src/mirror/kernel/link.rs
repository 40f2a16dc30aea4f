//! A device of our own without link layer, on the way of copies that have none: at its egress they get an Ethernet header.
//!
//! It belongs to a file that this process holds open, so a crash leaves nothing. Opening the file takes a right that a run
//! gives up, and making the device does not; so the file is opened early, and the device made when the first such
//! interface is mirrored; it stays as long as the mirror.

use super::{
    KernelMirror,
    device::OwnDevice,
    programs::{self, Bare, ProgramsError},
};
use crate::{
    netlink::Netlink,
    sys::{
        interface::OWN_PREFIX,
        tun::{self, Layer},
    },
};
use aya::programs::TcAttachType;
use std::io;

/// The device, or the way to make it, as far as it can be had.
#[derive(Debug)]
pub(super) struct LinkDevice {
    way: tun::Way,
    made: Option<OwnDevice>,
}

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// It can't be made, or set up.
    #[error("{0} (/dev/net/tun)")]
    Device(#[from] io::Error),
    /// The program can't be attached to it.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
}

impl LinkDevice {
    /// Opens the way to make it, if it may be needed, in the calling thread's network namespace. That it can't be had is
    /// told only when it is.
    pub(super) fn reserve(bare: Bare) -> Self {
        let way = match bare {
            Bare::Possible => tun::Way::open(),
            Bare::Never => tun::Way::none(io::ErrorKind::Unsupported),
        };
        Self { way, made: None }
    }

    /// As where it can't be had.
    #[cfg(test)]
    pub(super) fn none(why: io::ErrorKind) -> Self {
        Self { way: tun::Way::none(why), made: None }
    }

    /// The device, which is made if it is not there.
    fn make(&mut self, netlink: &mut Netlink) -> io::Result<OwnDevice> {
        if let Some(made) = &self.made
            && made.state(netlink)?.is_some()
        {
            return Ok(made.clone());
        }
        let made = OwnDevice::new(netlink, self.way.make(Layer::Ip, &format!("{OWN_PREFIX}l%d"))?)?;
        self.made = Some(made.clone());
        Ok(made)
    }
}

impl KernelMirror {
    /// Sees to it that copies without link layer get one. Where that can't be had they are skipped and counted, and why is
    /// told; other copies have nothing to do with it.
    pub(super) fn give_link_layer(&mut self) {
        if self.link_program.is_none() {
            let outcome = self.try_link();
            if outcome.is_err() {
                // Copies are told to have no header, not to be lost on a device that was there once.
                self.tables.set_link_device(0).unwrap_or_default();
            }
            self.no_link = outcome.err().map(|error| error.to_string());
        }
    }

    /// Whether the device was there and is gone.
    pub(super) fn has_lost_link_layer(&mut self) -> io::Result<bool> {
        let Some(made) = self.link_program.as_ref().and(self.link.made.as_ref()) else { return Ok(false) };
        Ok(!made.state(&mut self.netlink)?.is_some_and(|state| state.link.is_up))
    }

    /// The device's name while it does its work.
    pub(super) fn link_device(&self) -> Option<String> {
        self.link_program.as_ref().and(self.link.made.as_ref()).map(|made| made.name.clone())
    }

    fn try_link(&mut self) -> Result<(), LinkError> {
        let OwnDevice { name, index } = self.link.make(&mut self.netlink)?;
        // It is there before the device is up: nothing but copies goes through it.
        let program = programs::attach(&mut self.object, "mirror_link", &name, TcAttachType::Egress)?;
        self.netlink.up(index)?;
        self.tables.set_link_device(index)?;
        self.link_program = Some(program);
        Ok(())
    }
}
