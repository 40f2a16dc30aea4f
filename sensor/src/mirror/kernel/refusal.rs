//! Why something is not mirrored by the kernel.

use super::{Path, ProgramsError, TablesError, TunnelError, tunnel::tunnels_of};
use crate::{
    capture::kernel::TapError,
    mirror::{Mirror, Offload, SessionNumber, Target},
    netlink::Netlink,
};
use flowtap_abi::mirror::{COPY_MARK, TARGETS_OF_SESSION_MAX, TUNNEL_PORTS_MAX};
use std::io;

/// Why something is not mirrored.
#[derive(Debug, thiserror::Error)]
pub enum KernelMirrorError {
    /// Programs or maps.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// Rules.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// A tunnel device.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// Devices and routes cannot be asked for.
    #[error("devices and routes cannot be asked for over netlink")]
    Netlink(#[source] io::Error),
    /// The kernel cannot wait for running programs.
    #[error("the kernel refuses to wait for its programs")]
    Barrier(#[source] io::Error),
    /// Our programs have fewer places for targets than the session has targets.
    #[error(
        "mirror session {number} has more than {TARGETS_OF_SESSION_MAX} targets, the most that the kernel plane takes"
    )]
    TooManyTargets {
        /// The session.
        number: SessionNumber,
    },
    /// Each port needs a tunnel device of its own.
    #[error("mirror targets have more than {TUNNEL_PORTS_MAX} different ports; let them share some")]
    TooManyPorts,
    /// The configuration leaves the checksums to a card, and there is none.
    #[error(
        "mirror session {number} has `offload = \"device\"`, but copies for {target} leave by {device}, which is no card; \
         use `offload = \"software\"`"
    )]
    NoCard {
        /// The session.
        number: SessionNumber,
        /// Name of the target.
        target: String,
        /// What they leave by.
        device: String,
    },
    /// Frames are cut where they leave the host, which needs an outer header without checksum.
    #[error("mirror session {number} has a packet length, which needs targets with IPv4 addresses; {target} has none")]
    CutOverV6 {
        /// The session.
        number: SessionNumber,
        /// Name of the target.
        target: String,
    },
    /// The device that copies leave by is of a kind that they cannot be cut at.
    #[error("copies cannot be cut to a packet length at the device they leave by")]
    Cut(#[source] TapError),
}

/// Refuses what this host's kernel plane would not mirror, by the routes of the moment. Takes no rights, and changes nothing.
///
/// # Errors
/// What stands in the way.
pub fn check_host(mirror: &Mirror) -> Result<(), KernelMirrorError> {
    let mut netlink = Netlink::open().map_err(KernelMirrorError::Netlink)?;
    let find = |target: &Target| Path::find(&mut netlink, target.address, COPY_MARK).ok();
    let paths: Vec<_> = mirror.targets().iter().map(find).collect();
    check(mirror, &paths)?;
    tunnels_of(mirror, &paths).map(drop)
}

/// Refuses what the programs can't do, whichever interfaces there are.
pub(super) fn check(mirror: &Mirror, paths: &[Option<Path>]) -> Result<(), KernelMirrorError> {
    for session in mirror.sessions() {
        let number = session.number;
        if session.targets.len() > TARGETS_OF_SESSION_MAX as usize {
            return Err(KernelMirrorError::TooManyTargets { number });
        }
        for (index, target) in mirror.targets_of(session) {
            let name = || target.name.clone();
            if session.packet_length.is_some() && target.address.is_ipv6() {
                return Err(KernelMirrorError::CutOverV6 { number, target: name() });
            }
            if let Some(path) = paths.get(usize::from(index)).and_then(Option::as_ref)
                && session.offload == Offload::Device
                && !path.is_physical
            {
                return Err(KernelMirrorError::NoCard { number, target: name(), device: path.device_name.clone() });
            }
        }
    }
    Ok(())
}
