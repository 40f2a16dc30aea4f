//! What changes by itself under the mirror, and what people should know of it: routes, MTUs, and devices of ours that
//! somebody removes.

use super::{
    KernelMirror, KernelMirrorError, TunnelLosses,
    device::Sent,
    taps::Tap,
    tunnel::{Tunnel, tunnels_of},
};
use crate::{
    capture::kernel::chain,
    mirror::{
        TooBig,
        path_size::{PathTooSmall, needed_mtu},
    },
};
use std::{fmt, net::IpAddr};

/// Something that people should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Full frames do not fit the path to a target.
    PathTooSmall(PathTooSmall),
    /// There is no route to a target: its flows go to other targets of their session, or their copies are skipped.
    NoRoute {
        /// Its name.
        target: String,
        /// Its address.
        address: IpAddr,
    },
    /// A new configuration is in force, and something of the one before can't be taken away.
    Unsettled {
        /// Why.
        cause: String,
    },
    /// Copies can't be cut to their session's packet length where they leave the host: they are skipped.
    NotCut {
        /// Why.
        cause: String,
    },
    /// There is a route to a target again.
    Route {
        /// Its name.
        target: String,
        /// Its address.
        address: IpAddr,
    },
    /// An interface has no link layer, and no device can be had that gives its copies one: they are skipped.
    NoLinkLayer {
        /// Its name.
        interface: String,
        /// Why.
        cause: String,
    },
    /// What is lost past the IP stack can't be counted, so no copy goes there.
    LossesNotCounted {
        /// Why.
        cause: String,
    },
    /// The device can't be had before which the kernel makes wire frames of copies past the IP stack.
    NoSegmenter {
        /// Why.
        cause: String,
    },
    /// A device of ours was taken away or changed by somebody, and has been made again.
    DeviceMadeAgain {
        /// Its name.
        device: String,
    },
    /// A tunnel device was taken away by somebody, and cannot be made again: its copies are skipped.
    TunnelGone {
        /// Its name.
        device: String,
        /// Why.
        cause: String,
    },
}

impl Notice {
    /// Whether it says that all is well again.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Route { .. })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PathTooSmall(path) => path.fmt(f),
            Self::NoRoute { target, address } => {
                write!(f, "there is no route to mirror target `{target}` ({address}): no copies go there")
            }
            Self::Route { target, address } => {
                write!(f, "there is a route to mirror target `{target}` ({address}): it gets its copies")
            }
            Self::Unsettled { cause } => write!(
                f,
                "the mirror's new configuration is in force, but not all of the one before can be taken away: {cause}"
            ),
            Self::NotCut { cause } => {
                write!(f, "copies can't be cut to their packet length: {cause}; those of such sessions are skipped")
            }
            Self::NoLinkLayer { interface, cause } => write!(
                f,
                "{interface} has no Ethernet headers, and there is no device to give its copies some: {cause}; they are \
                 skipped"
            ),
            Self::LossesNotCounted { cause } => write!(
                f,
                "the kernel's drops of copies past its IP stack can't be counted: {cause}; they take the slower way through it"
            ),
            Self::NoSegmenter { cause } => write!(
                f,
                "there is no device that makes wire frames of large copies: {cause}; they take the slower way through the \
                 IP stack"
            ),
            Self::DeviceMadeAgain { device } => {
                write!(f, "the mirror's device {device} was removed or changed by somebody; it has been made again")
            }
            Self::TunnelGone { device, cause } => write!(
                f,
                "the mirror's tunnel device {device} was removed by somebody and cannot be made again: {cause}; copies are \
                 skipped until it can"
            ),
        }
    }
}

impl KernelMirror {
    /// Looks after what changes by itself: routes and MTUs, and devices of ours that somebody removes. To be called every
    /// few seconds. What it finds is told once, and again when it changes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn tend(&mut self) -> Result<Vec<Notice>, KernelMirrorError> {
        let mut notices = self.tend_tunnels()?;
        let has_lost_link = self.has_lost_link_layer().map_err(KernelMirrorError::Netlink)?;
        if has_lost_link {
            self.link_program = None;
        }
        if has_lost_link || self.no_link.is_some() {
            self.give_link_layer();
            notices.extend(self.link_device().map(|device| Notice::DeviceMadeAgain { device }));
        }
        for tap in self.taps.values_mut() {
            let link = self.netlink.link(tap.device.index).map_err(KernelMirrorError::Netlink)?;
            tap.mtu = link.map_or(tap.mtu, |link| link.mtu);
        }
        let mirror = self.plan.mirror.clone();
        let paths = self.paths_of(&mirror);
        self.no_cut = self.cut(&mirror, &paths).err().map(|error| chain(&error));
        self.paths = paths;
        if self.direct.has_use(&mirror, &self.paths) {
            let segmenter = self.segmenter.tend(&mut self.netlink, &mut self.object);
            notices.extend(segmenter.map(|device| Notice::DeviceMadeAgain { device }));
        }
        self.write_all_targets()?;
        if self.unsettled.is_some() {
            self.settle_all();
        } else {
            self.settle_ways()?;
        }
        let state = self.path_notices();
        notices.extend(self.noticed.iter().filter(|notice| !state.contains(notice)).filter_map(
            |notice| match notice {
                Notice::NoRoute { target, address } if self.has_target(target, *address) => {
                    Some(Notice::Route { target: target.clone(), address: *address })
                }
                _ => None,
            },
        ));
        notices.extend(state.iter().filter(|notice| !self.noticed.contains(notice)).cloned());
        self.noticed = state;
        Ok(notices)
    }

    fn has_target(&self, name: &str, address: IpAddr) -> bool {
        self.plan.mirror.targets().iter().any(|target| target.name == name && target.address == address)
    }

    /// Counts what a tunnel device lost since it was asked last; whether it is there.
    pub(super) fn count_losses(&mut self, at: usize) -> Result<bool, KernelMirrorError> {
        let Some(tunnel) = self.tunnels.get_mut(at) else { return Ok(false) };
        let direct = tunnel.account.map(|account| self.direct.counted(account)).transpose()?.unwrap_or_default();
        let lost = tunnel.lost(&mut self.netlink).map_err(KernelMirrorError::Netlink)?;
        if let Some(losses) = self.losses.iter_mut().find(|losses| losses.device == tunnel.device.name) {
            // To the session those past the device are as those that it had.
            losses.sent += direct.sent;
            losses.dropped += direct.dropped;
            add_lost(losses, lost.unwrap_or_default());
        }
        Ok(lost.is_some())
    }

    /// Counts what the tunnel devices lost, and makes those again that are gone.
    fn tend_tunnels(&mut self) -> Result<Vec<Notice>, KernelMirrorError> {
        let mut notices = Vec::new();
        for at in 0..self.tunnels.len() {
            if self.count_losses(at)? {
                continue;
            }
            let Some(tunnel) = self.tunnels.get_mut(at) else { break };
            let (kind, device) = (tunnel.kind, tunnel.device.name.clone());
            let wanted = tunnels_of(&self.plan.mirror, &self.paths)?;
            let completes = wanted.iter().any(|(wanted, completes)| *wanted == kind && *completes);
            match Tunnel::make(&mut self.netlink, &mut self.object, &mut self.claims, kind, completes) {
                Ok(mut again) => {
                    again.account = tunnel.account;
                    *tunnel = again;
                    self.gone.clear();
                    notices.push(Notice::DeviceMadeAgain { device });
                }
                Err(error) => {
                    let gone = Notice::TunnelGone { device, cause: error.to_string() };
                    if !self.gone.contains(&gone) {
                        notices.push(gone.clone());
                        self.gone.push(gone);
                    }
                }
            }
        }
        Ok(notices)
    }

    /// What is to be said of interfaces without link layer.
    fn link_notices(&self) -> impl Iterator<Item = Notice> {
        let bare = self.taps.values().filter(|tap| tap.programs.is_some() && !tap.device.ethernet);
        self.no_link.iter().flat_map(move |cause| {
            let notice = |tap: &Tap| Notice::NoLinkLayer { interface: tap.device.name.clone(), cause: cause.clone() };
            bare.clone().map(notice)
        })
    }

    /// What is to be said of the paths as they are.
    fn path_notices(&self) -> Vec<Notice> {
        let mut notices: Vec<_> = self.link_notices().collect();
        notices.extend(self.unsettled.iter().map(|cause| Notice::Unsettled { cause: cause.clone() }));
        notices.extend(self.no_cut.iter().map(|cause| Notice::NotCut { cause: cause.clone() }));
        notices.extend(self.no_losses.iter().map(|cause| Notice::LossesNotCounted { cause: cause.clone() }));
        notices.extend(self.segmenter.refusal.iter().map(|cause| Notice::NoSegmenter { cause: cause.clone() }));
        for session in self.plan.mirror.sessions() {
            let taps = self.taps.values().filter(|tap| session.interface.matches(&tap.device.name));
            let Some(largest) = taps.max_by_key(|tap| (tap.mtu, &tap.device.name)) else { continue };
            for (index, target) in self.plan.mirror.targets_of(session) {
                let notice = match self.paths.get(usize::from(index)).and_then(Option::as_ref) {
                    None => Notice::NoRoute { target: target.name.clone(), address: target.address },
                    Some(path) => {
                        let needed_mtu = needed_mtu(target.address, largest.mtu);
                        if needed_mtu <= path.mtu || session.packet_length.is_some() {
                            continue;
                        }
                        Notice::PathTooSmall(PathTooSmall {
                            target: target.name.clone(),
                            path_mtu: path.mtu,
                            interface: largest.device.name.clone(),
                            interface_mtu: largest.mtu,
                            needed_mtu,
                            skips: session.too_big == TooBig::Skip,
                        })
                    }
                };
                if !notices.contains(&notice) {
                    notices.push(notice);
                }
            }
        }
        notices
    }
}

fn add_lost(losses: &mut TunnelLosses, lost: Sent) {
    losses.sent += lost.frames;
    losses.dropped += lost.dropped;
    losses.errors += lost.errors;
}
