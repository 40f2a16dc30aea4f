//! Our own tunnel device: copies go in, encapsulated packets come out, and nothing goes the other way.
//!
//! It is made when mirroring starts and goes when it ends; the kernel takes programs away with the process that holds
//! them, but not devices. So one that a crash left behind is known by name and alias, and by having no programs or, where
//! there are no links of TCX, by a name that nobody claims ([`Claims`]); it is replaced by a new one.

use super::{
    KernelMirrorError, Path,
    device::{OwnDevice, Sent},
    programs::{self, ProgramsError},
};
use crate::{
    capture::kernel::Attachment,
    mirror::{Encapsulation, Mirror, Offload},
    netlink::Netlink,
    sys::interface::{self, OWN_PREFIX},
};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType, tc::SchedClassifierLink},
};
use flowtap_abi::mirror::TUNNEL_PORTS_MAX;
use std::{
    collections::HashMap,
    io,
    num::NonZeroU16,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

/// What tells one tunnel device from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TunnelKind {
    pub(super) encapsulation: Encapsulation,
    pub(super) port: NonZeroU16,
}

/// One of our tunnel devices. Dropping it leaves the device, without programs; [`OwnDevice::remove`] takes it away.
pub(super) struct Tunnel {
    pub(super) kind: TunnelKind,
    pub(super) device: OwnDevice,
    /// Where copies are counted that go past it; `None` where they may not.
    pub(super) account: Option<u32>,
    /// What the device had sent and lost when it was last asked.
    before: Sent,
    /// Held so that the programs stay attached.
    _programs: [SchedClassifierLink; 2],
}

/// Why there is no tunnel device.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// Another process of ours has it.
    #[error("{name} is in use by another flowtap in this network namespace; only one can mirror to port {port}")]
    InUse {
        /// Name of the device.
        name: String,
        /// UDP.
        port: NonZeroU16,
    },
    /// A device of that name is none of ours.
    #[error("there is a device {name} that flowtap did not make; remove it (`ip link delete {name}`)")]
    NameTaken {
        /// Its name.
        name: String,
    },
    /// Another tunnel device has the port.
    #[error(
        "UDP port {port} belongs to the tunnel device {name} already; remove it, or give the mirror target another port"
    )]
    Foreign {
        /// Name of the other device.
        name: String,
        /// UDP.
        port: NonZeroU16,
    },
    /// Something else has the port.
    #[error("UDP port {port} is in use by another program; stop it, or give the mirror target another port")]
    PortInUse {
        /// UDP.
        port: NonZeroU16,
    },
    /// The kernel makes no such devices.
    #[error("this kernel makes no {} devices; load its module (`modprobe {}`)", .0.as_str(), .0.as_str())]
    NotOffered(Encapsulation),
    /// The kernel refuses something else.
    #[error("the tunnel device {name} cannot be made")]
    Device {
        /// Its name.
        name: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// A program cannot be attached to it.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
}

impl TunnelKind {
    fn name(self) -> String {
        let letter = match self.encapsulation {
            Encapsulation::Vxlan => 'v',
            Encapsulation::Geneve => 'g',
        };
        // At most fifteen characters, which is all that the kernel takes.
        format!("{OWN_PREFIX}{letter}{}", self.port)
    }
}

impl Tunnel {
    /// Makes the device, so that every copy that leaves it is as a wire would have it: with `completes` the device behind
    /// the route makes wire frames and completes checksums, else the kernel does.
    pub(super) fn make(
        netlink: &mut Netlink,
        object: &mut Ebpf,
        claims: &mut Claims,
        kind: TunnelKind,
        completes: bool,
    ) -> Result<Self, TunnelError> {
        let name = kind.name();
        if Attachment::best() == Attachment::Tcx {
            return Self::make_free(netlink, object, name, kind, completes);
        }
        let was_ours = claims.has(&name);
        let failed = |cause| TunnelError::Device { name: name.clone(), cause };
        if !claims.take(&name).map_err(failed)? {
            return Err(TunnelError::InUse { name, port: kind.port });
        }
        let made = Self::make_free(netlink, object, name.clone(), kind, completes);
        if made.is_err() && !was_ours {
            claims.release(&name);
        }
        made
    }

    /// The same, where no other process claims the name.
    fn make_free(
        netlink: &mut Netlink,
        object: &mut Ebpf,
        name: String,
        kind: TunnelKind,
        completes: bool,
    ) -> Result<Self, TunnelError> {
        let failed = |cause| TunnelError::Device { name: name.clone(), cause };
        if let Some(present) = netlink.device_by_name(&name).map_err(failed)? {
            if !present.is_ours() {
                return Err(TunnelError::NameTaken { name });
            }
            if has_programs(&name) {
                return Err(TunnelError::InUse { name, port: kind.port });
            }
            netlink.remove(present.index).map_err(failed)?;
        }
        if let Err(error) = netlink.create_tunnel(&name, kind.encapsulation, kind.port) {
            return Err(not_made(netlink, name, kind, error));
        }
        let device = OwnDevice::new(netlink, name.clone()).map_err(failed)?;
        let finished = Self::finish(netlink, object, kind, device.clone(), completes);
        if finished.is_err() {
            // What cannot be finished must not stay; the first error says more than one about this would.
            device.remove(netlink).unwrap_or_default();
        }
        finished
    }

    fn finish(
        netlink: &mut Netlink,
        object: &mut Ebpf,
        kind: TunnelKind,
        device: OwnDevice,
        completes: bool,
    ) -> Result<Self, TunnelError> {
        let name = &device.name;
        let failed = |cause| TunnelError::Device { name: name.clone(), cause };
        interface::set_transmit_checksums(name, completes).map_err(failed)?;
        // Both are there before the device is up: nothing comes in, nothing goes out unfinished.
        let programs = [
            programs::attach(object, "mirror_refuse", name, TcAttachType::Ingress)?,
            programs::attach(object, "mirror_encapsulate", name, TcAttachType::Egress)?,
        ];
        netlink.up(device.index).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) => TunnelError::PortInUse { port: kind.port },
            _ => failed(error),
        })?;
        Ok(Self { kind, device, account: None, before: Sent::default(), _programs: programs })
    }

    /// Whether the device behind the route makes wire frames and completes checksums, from now on. A tunnel device that is
    /// gone is made again in time.
    pub(super) fn leave_to_card(&self, netlink: &mut Netlink, completes: bool) -> Result<(), TunnelError> {
        let state = self.device.state(netlink);
        let done = state.and_then(|state| match state {
            Some(state) => interface::set_transmit_checksums(&state.name, completes),
            None => Ok(()),
        });
        match done {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            done => done.map_err(|cause| TunnelError::Device { name: self.device.name.clone(), cause }),
        }
    }

    /// What was lost behind the device since this was last asked; `None` if the device is gone.
    pub(super) fn lost(&mut self, netlink: &mut Netlink) -> io::Result<Option<Sent>> {
        let Some(state) = self.device.state(netlink)?.filter(|state| state.link.is_up) else { return Ok(None) };
        let since = |now: u64, before: u64| now.saturating_sub(before);
        let (now, before) = (state.sent, self.before);
        self.before = now;
        Ok(Some(Sent {
            frames: since(now.frames, before.frames),
            dropped: since(now.dropped, before.dropped),
            errors: since(now.errors, before.errors),
        }))
    }
}

/// The tunnel devices of this process, where the kernel does not say whether programs at one are those of a live process: a
/// socket that listens in vain under the device's name is there for as long as its process.
#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<String, UnixListener>);

impl Claims {
    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether the name is ours now; `false` if another process has it.
    fn take(&mut self, name: &str) -> io::Result<bool> {
        if self.has(name) {
            return Ok(true);
        }
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?) {
            Ok(socket) => {
                self.0.insert(name.to_owned(), socket);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Leaves the name to others.
    pub(super) fn release(&mut self, name: &str) {
        self.0.remove(name);
    }
}

/// The tunnel devices that a plan needs, and whether a card completes what each sends. One that several sessions use is
/// finished in software as soon as one of them wants that: it is always right.
pub(super) fn tunnels_of(
    mirror: &Mirror,
    paths: &[Option<Path>],
) -> Result<Vec<(TunnelKind, bool)>, KernelMirrorError> {
    let mut wanted: Vec<(TunnelKind, bool)> = Vec::new();
    for session in mirror.sessions() {
        for (index, target) in mirror.targets_of(session) {
            let kind = TunnelKind { encapsulation: target.encapsulation, port: target.port };
            let has_card = paths.get(usize::from(index)).and_then(Option::as_ref).is_some_and(|path| path.is_physical);
            let completes = has_card && session.offload != Offload::Software;
            match wanted.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, all)) => *all &= completes,
                None => wanted.push((kind, completes)),
            }
        }
    }
    if wanted.len() > TUNNEL_PORTS_MAX {
        return Err(KernelMirrorError::TooManyPorts);
    }
    Ok(wanted)
}

/// Whether a live process has programs at the device, by links of TCX.
fn has_programs(name: &str) -> bool {
    let attached = |at| SchedClassifier::query_tcx(name, at).is_ok_and(|(_, programs)| !programs.is_empty());
    attached(TcAttachType::Ingress) || attached(TcAttachType::Egress)
}

/// Why the kernel did not make a device, in words that help.
fn not_made(netlink: &mut Netlink, name: String, kind: TunnelKind, error: io::Error) -> TunnelError {
    match error.raw_os_error() {
        Some(libc::EEXIST | libc::EBUSY) => {
            let links = netlink.devices().unwrap_or_default();
            let wanted = Some((kind.encapsulation, kind.port.get()));
            match links.into_iter().find(|link| link.tunnel == wanted) {
                Some(link) => TunnelError::Foreign { name: link.name, port: kind.port },
                None => TunnelError::PortInUse { port: kind.port },
            }
        }
        Some(libc::EADDRINUSE) => TunnelError::PortInUse { port: kind.port },
        Some(libc::EOPNOTSUPP) => TunnelError::NotOffered(kind.encapsulation),
        _ => TunnelError::Device { name, cause: error },
    }
}
