//! Whether full frames of the interfaces that are tapped fit the paths to their targets: said when it is not so, again when
//! the numbers change, and once more when they fit.

use std::io;

use super::Works;
use crate::mirror::path_size::{PathTooSmall, needed_mtu};
use crate::mirror::{Mirror, TooBig};
use crate::netlink::Netlink;

/// What was said.
#[derive(Default)]
pub(super) struct Paths {
    /// As soon as it is needed.
    netlink: Option<Netlink>,
    told: Vec<PathTooSmall>,
}

impl Paths {
    /// Says what has changed. To be called about once a second, with the name and the kernel's index of each interface that
    /// is tapped.
    pub(super) fn tell<'a>(&mut self, works: &Works, tapped: impl Iterator<Item = (&'a str, u32)>) {
        // Without an answer nothing is known that could be said.
        let Ok(mtus) = self.mtus(tapped) else { return self.netlink = None };
        let paths: Vec<_> = works.senders.paths().into_iter().map(|path| path.map(|path| path.mtu as u32)).collect();
        let now = too_small(&works.mirror, &mtus, &paths);
        for path in now.iter().filter(|path| !self.told.contains(path)) {
            tracing::warn!("{path}");
        }
        for (path, path_mtu) in fit_again(&self.told, &now, &works.mirror, &mtus, &paths) {
            let PathTooSmall { target, interface, .. } = path;
            tracing::info!(
                "the path to mirror target `{target}` has an MTU of {path_mtu} bytes: copies of full frames of {interface} \
                 fit again"
            );
        }
        self.told = now;
    }

    fn mtus<'a>(&mut self, tapped: impl Iterator<Item = (&'a str, u32)>) -> io::Result<Vec<(String, u32)>> {
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            none => none.insert(Netlink::open()?),
        };
        let mut mtus = Vec::new();
        for (name, index) in tapped {
            mtus.extend(netlink.link(index)?.map(|link| (name.to_owned(), link.mtu)));
        }
        Ok(mtus)
    }
}

/// The paths that are too small for the largest interface of a session. What is cut to a packet length is not full.
fn too_small(mirror: &Mirror, tapped: &[(String, u32)], paths: &[Option<u32>]) -> Vec<PathTooSmall> {
    let mut found = Vec::new();
    for session in mirror.sessions().iter().filter(|session| session.packet_length.is_none()) {
        let taps = tapped.iter().filter(|(name, _)| session.interface.matches(name));
        let Some((interface, interface_mtu)) = taps.max_by_key(|(name, mtu)| (mtu, name)) else { continue };
        for (index, target) in mirror.targets_of(session) {
            let Some(path_mtu) = paths.get(usize::from(index)).copied().flatten() else { continue };
            let needed_mtu = needed_mtu(target.address, *interface_mtu);
            let path = PathTooSmall {
                target: target.name.clone(),
                path_mtu,
                interface: interface.clone(),
                interface_mtu: *interface_mtu,
                needed_mtu,
                skips: session.too_big == TooBig::Skip,
            };
            if needed_mtu > path_mtu && !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found
}

/// Those that were too small and are large enough now, with the MTU that they have; not those that nobody uses any more.
fn fit_again<'a>(
    told: &'a [PathTooSmall],
    now: &[PathTooSmall],
    mirror: &Mirror,
    tapped: &[(String, u32)],
    paths: &[Option<u32>],
) -> Vec<(&'a PathTooSmall, u32)> {
    let mut fitting: Vec<(&PathTooSmall, u32)> = Vec::new();
    for path in told {
        let is_same = |other: &PathTooSmall| (&other.target, &other.interface) == (&path.target, &path.interface);
        if now.iter().any(is_same) || fitting.iter().any(|(other, _)| is_same(other)) {
            continue;
        }
        let mut targets = mirror.targets().iter().zip(paths);
        let target = targets.find(|(target, _)| target.name == path.target);
        let interface = tapped.iter().find(|(name, _)| *name == path.interface);
        if let (Some((target, Some(path_mtu))), Some((_, interface_mtu))) = (target, interface)
            && needed_mtu(target.address, *interface_mtu) <= *path_mtu
        {
            fitting.push((path, *path_mtu));
        }
    }
    fitting
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mirror::{Filter, Mode, PacketLength, Session, Target};

    /// A session for each of these patterns, all to `ids` (10.83.0.2) and `six` (fd83::2).
    fn mirror(sessions: &[(&str, TooBig, Option<PacketLength>)]) -> Mirror {
        let filter = Arc::new(Filter::new("f".to_owned(), Default::default(), Default::default()));
        let session =
            |(number, (interface, too_big, packet_length)): (usize, &(&str, TooBig, Option<PacketLength>))| Session {
                number: number.to_string().parse().unwrap(),
                interface: interface.parse().unwrap(),
                filter: Arc::clone(&filter),
                targets: vec![0, 1],
                mode: Mode::Replicate,
                vni: None,
                packet_length: *packet_length,
                too_big: *too_big,
                offload: Default::default(),
                rate: Default::default(),
                description: None,
            };
        let target = |(name, address): (&str, &str)| Target {
            name: name.to_owned(),
            address: address.parse().unwrap(),
            port: std::num::NonZeroU16::new(4789).unwrap(),
            encapsulation: Default::default(),
            weight: Default::default(),
            health_check: None,
        };
        let targets = [("ids", "10.83.0.2"), ("six", "fd83::2")].map(target);
        let sessions = (1..).zip(sessions).map(session).collect();
        Mirror::new(targets.into(), vec![Arc::clone(&filter)], sessions, false)
    }

    fn tapped(mtus: &[(&str, u32)]) -> Vec<(String, u32)> {
        mtus.iter().map(|(name, mtu)| ((*name).to_owned(), *mtu)).collect()
    }

    /// RFC 7348: an outer packet is 50 bytes longer than the inner one over IPv4, 70 over IPv6.
    #[test]
    fn the_largest_interface_that_is_tapped_counts() {
        let mirror = mirror(&[("eth*", TooBig::Fragment, None)]);
        let found = |mtus: &[(&str, u32)], paths: [Option<u32>; 2]| -> Vec<(String, String, u32)> {
            let found = too_small(&mirror, &tapped(mtus), &paths);
            found.into_iter().map(|path| (path.target, path.interface, path.needed_mtu)).collect()
        };
        let told = |target: &str, interface: &str, needed| (target.to_owned(), interface.to_owned(), needed);
        assert_eq!(found(&[("eth0", 9000), ("eth1", 1500)], [Some(1600), None]), [told("ids", "eth0", 9050)]);
        assert_eq!(found(&[("eth0", 1280)], [Some(1500), Some(1500)]), [], "1330 and 1350 fit");
        assert_eq!(found(&[("eth0", 1430)], [Some(1480), Some(1480)]), [told("six", "eth0", 1500)]);
        assert_eq!(found(&[("veth0", 9000)], [Some(1500), Some(1500)]), [], "not mirrored");
        assert_eq!(found(&[("eth0", 9000)], [None, None]), [], "no path is known");
    }

    #[test]
    fn what_is_cut_is_not_full_and_what_is_skipped_is_said_so() {
        let cut = Some("128".parse().unwrap());
        let mirror = mirror(&[("eth0", TooBig::Fragment, cut), ("eth1", TooBig::Skip, None)]);
        let found = too_small(&mirror, &tapped(&[("eth0", 9000), ("eth1", 1500)]), &[Some(1500), None]);
        let said: Vec<_> = found.iter().map(ToString::to_string).collect();
        let expected = "the path to mirror target `ids` has an MTU of 1500 bytes, and copies of full frames of eth1 (MTU \
                        1500) need 1550: they are skipped; raise the MTU of the path to 1550";
        assert_eq!(said, [expected]);
    }

    #[test]
    fn frames_fit_again_when_path_or_interface_say_so() {
        let mirror = mirror(&[("eth*", TooBig::Fragment, None)]);
        let (small, mtus) = ([Some(1500), None], tapped(&[("eth0", 1500)]));
        let told = too_small(&mirror, &mtus, &small);
        assert_eq!(told.len(), 1);
        let fit = |mtus: &[(String, u32)], paths: [Option<u32>; 2]| -> Vec<u32> {
            let now = too_small(&mirror, mtus, &paths);
            fit_again(&told, &now, &mirror, mtus, &paths).into_iter().map(|(_, path_mtu)| path_mtu).collect()
        };
        assert_eq!(fit(&mtus, small), [0_u32; 0]);
        assert_eq!(fit(&mtus, [Some(1540), None]), [0_u32; 0], "larger and not large enough");
        assert_eq!(fit(&mtus, [Some(1550), None]), [1550]);
        assert_eq!(fit(&tapped(&[("eth0", 1400)]), small), [1500]);
        assert_eq!(fit(&[], [Some(1550), None]), [0_u32; 0], "nobody wants it any more");
        assert_eq!(fit(&mtus, [None, None]), [0_u32; 0], "no path is known");
    }
}
