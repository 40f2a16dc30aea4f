//! Paths that full frames of a mirrored interface don't fit, in the words of both planes.
//!
//! Authority: RFC 7348 section 4.3 (the path should take what the tunnel adds).

use std::fmt;
use std::net::IpAddr;

use super::{Mirror, TooBig};

/// What becomes of frames that do not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTooSmall {
    /// The target.
    pub target: String,
    /// The largest outer packet of the path.
    pub path_mtu: u32,
    /// A mirrored interface whose frames may be larger than fits.
    pub interface: String,
    /// Its MTU.
    pub interface_mtu: u32,
    /// What the path would have to take.
    pub needed_mtu: u32,
    /// Whether such frames are skipped; else their outer packets are fragmented.
    pub skips: bool,
}

impl fmt::Display for PathTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, path_mtu, interface, interface_mtu, needed_mtu, skips } = self;
        let fate = if *skips { "are skipped" } else { "are sent in outer fragments" };
        write!(
            f,
            "the path to mirror target `{target}` has an MTU of {path_mtu} bytes, and copies of full frames of {interface} \
             (MTU {interface_mtu}) need {needed_mtu}: they {fate}; raise the MTU of the path to {needed_mtu}"
        )
    }
}

/// The paths that are too small for the largest interface of a session. What is cut to a packet length is not full.
/// `tapped` are the interfaces by name, with their MTUs; `paths` the MTUs of those to all targets, as far as there are such.
pub fn too_small(mirror: &Mirror, tapped: &[(String, u32)], paths: &[Option<u32>]) -> Vec<PathTooSmall> {
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

/// The outer MTU that full frames of an interface need.
pub(super) fn needed_mtu(address: IpAddr, interface_mtu: u32) -> u32 {
    interface_mtu + ETHERNET_BYTES + outer_bytes(address)
}

/// Outer IP header, UDP header, VXLAN or GENEVE header.
pub(super) fn outer_bytes(address: IpAddr) -> u32 {
    let ip = if address.is_ipv4() { 20 } else { 40 };
    ip + 8 + 8
}

const ETHERNET_BYTES: u32 = 14;

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mirror::{Filter, Mode, PacketLength, Session, Target};

    /// A session for each of these patterns, all to `ids` (10.83.0.2) and `six` (fd83::2).
    pub(in crate::mirror) fn mirror(sessions: &[(&str, TooBig, Option<PacketLength>)]) -> Mirror {
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

    pub(in crate::mirror) fn tapped(mtus: &[(&str, u32)]) -> Vec<(String, u32)> {
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

    /// As a replay asks, which does not know yet which interfaces there are.
    #[test]
    fn a_pattern_stands_for_the_interfaces_that_it_matches() {
        let mirror = mirror(&[("eth?", TooBig::Fragment, None), ("*", TooBig::Fragment, None)]);
        let found = too_small(&mirror, &tapped(&[("eth?", 1500), ("*", 1500)]), &[Some(1500), Some(1570)]);
        let said: Vec<_> = found.iter().map(ToString::to_string).collect();
        let expected = "the path to mirror target `ids` has an MTU of 1500 bytes, and copies of full frames of eth? (MTU \
                        1500) need 1550: they are sent in outer fragments; raise the MTU of the path to 1550";
        assert_eq!(said, [expected], "once, of both sessions");
    }
}
