//! Whether full frames of the interfaces that are tapped fit the paths to their targets: said when it is not so, again when
//! the numbers change, and once more when they fit.

use std::io;

use super::Works;
use crate::mirror::Mirror;
use crate::mirror::path_size::{PathTooSmall, needed_mtu, too_small};
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
    use super::*;
    use crate::mirror::TooBig;
    use crate::mirror::path_size::tests::{mirror, tapped};

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
