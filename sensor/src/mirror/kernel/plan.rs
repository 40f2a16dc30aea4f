//! What is mirrored, and how the programs are told: sessions and targets in the words of their tables.

use super::{
    KernelMirror, KernelMirrorError, Path, direct,
    tables::{Generation, widened},
    taps::is_idle,
    tunnel::{TunnelKind, tunnels_of},
};
use crate::{
    capture::kernel::Device,
    classify::Classifier,
    mirror::{Mirror, Mode, Session, SessionNumber, TooBig, Vni, balance},
};
use flowlog::record::TrafficClass;
use flowtap_abi::{
    choice,
    mirror::{
        Buckets, COST_SHIFT, Cost, DirectPath, MirrorSession, MirrorTarget, TARGETS_OF_SESSION_MAX, TUNNEL_PORTS_MAX,
        known,
    },
};
use std::{net::IpAddr, sync::Arc};

/// What is mirrored, and what the rules need to know of the host.
#[derive(Clone)]
pub struct Plan {
    /// What was configured.
    pub mirror: Mirror,
    /// The VNI of each session, in their order: [`Mirror::vnis`].
    pub vnis: Vec<Vni>,
    /// Knows the addresses of services, by the interface's name.
    pub classifier: Arc<dyn Fn(&str) -> Classifier + Send + Sync>,
}

impl Plan {
    /// The addresses that an interface knows services by, each with its role.
    pub(super) fn services(&self, interface: &str) -> Vec<(IpAddr, u32)> {
        let role = |class| match class {
            TrafficClass::Dns => Some(known::RESOLVER),
            TrafficClass::Metadata => Some(known::METADATA),
            TrafficClass::Time => Some(known::TIME),
            TrafficClass::Activation => Some(known::ACTIVATION),
            _ => None,
        };
        let addresses = (self.classifier)(interface).service_addresses();
        addresses.into_iter().filter_map(|(address, class)| Some((address, role(class)?))).collect()
    }
}

impl KernelMirror {
    /// Writes all of a plan where no program looks yet.
    pub(super) fn write_generation(
        &mut self,
        plan: &Plan,
        paths: &[Option<Path>],
        healthy: &[bool],
    ) -> Result<Generation, KernelMirrorError> {
        let mut ports = plan.mirror.targets().iter().map(|target| target.port.get());
        let first = ports.next().unwrap_or_default();
        let mut tunnel_ports = [first; TUNNEL_PORTS_MAX];
        for (place, (kind, _)) in tunnel_ports.iter_mut().zip(tunnels_of(&plan.mirror, paths)?) {
            *place = kind.port.get();
        }
        let mut next = Generation::new(1 - self.generation.number, tunnel_ports);
        let written = self.write_plan(&mut next, plan, paths, healthy);
        if let Err(error) = written {
            self.tables.clear(&next)?;
            return Err(error);
        }
        Ok(next)
    }

    fn write_plan(
        &mut self,
        next: &mut Generation,
        plan: &Plan,
        paths: &[Option<Path>],
        healthy: &[bool],
    ) -> Result<(), KernelMirrorError> {
        for (index, session) in (0_u16..).zip(plan.mirror.sessions()) {
            let vni = plan.vnis.get(usize::from(index)).map_or(0, |vni| vni.number());
            let slot = next.slot(index);
            let before = (0_u16..).zip(self.plan.mirror.sessions()).find(|(_, old)| identity(old) == identity(session));
            let buckets = match before {
                Some((old, _)) => self.tables.buckets(self.generation.slot(old))?,
                None => Buckets::default(),
            };
            self.tables.write_session(slot, &as_session(session, vni), buckets)?;
        }
        for target in plan.mirror.targets() {
            self.tables.write_known_target(next, target.address)?;
        }
        self.write_targets(next, (&plan.mirror, &plan.vnis), paths, healthy)?;
        for tap in self.taps.values().filter(|tap| !is_idle(&plan.mirror, &tap.device.name)) {
            let Device { name, index, .. } = &tap.device;
            self.tables.write_interface(next, &plan.mirror, name, *index, plan.services(name))?;
        }
        Ok(())
    }

    pub(super) fn write_all_targets(&mut self) -> Result<(), KernelMirrorError> {
        let (generation, mirror) = (std::mem::take(&mut self.generation), self.plan.mirror.clone());
        let (vnis, paths, healthy) = (self.plan.vnis.clone(), self.paths.clone(), self.healthy.clone());
        let written = self.write_targets(&generation, (&mirror, &vnis), &paths, &healthy);
        self.generation = generation;
        written
    }

    fn write_targets(
        &mut self,
        generation: &Generation,
        (mirror, vnis): (&Mirror, &[Vni]),
        paths: &[Option<Path>],
        healthy: &[bool],
    ) -> Result<(), KernelMirrorError> {
        let mut direct = Vec::new();
        for (index, session) in (0..).zip(mirror.sessions()) {
            let taps = self.taps.values().filter(|tap| session.interface.matches(&tap.device.name));
            // A tag may come on top of what the interface's MTU says.
            let largest = taps.map(|tap| tap.mtu + FRAME_HEADER_BYTES_MAX).max().unwrap_or(0);
            let path_to = |at: u16| {
                let path = paths.get(usize::from(at)).and_then(Option::as_ref);
                path.filter(|path| session.packet_length.is_none() || self.cuts.contains_key(&path.device))
            };
            // Flows of a target that can't be reached go to the others, if there are such.
            let may_move =
                session.mode == Mode::Balance && mirror.targets_of(session).any(|(at, _)| path_to(at).is_some());
            for (number, (at, target)) in (0..).zip(mirror.targets_of(session)) {
                let path = path_to(at);
                let kind = TunnelKind { encapsulation: target.encapsulation, port: target.port };
                let tunnel = self.tunnels.iter().find(|tunnel| tunnel.kind == kind);
                let device = tunnel.filter(|_| path.is_some()).map_or(0, |tunnel| tunnel.device.index);
                let is_healthy = healthy.get(usize::from(at)).copied().unwrap_or(true);
                let frame_bytes_max = match (session.packet_length, path) {
                    // What is cut fits, or is cut where it is fragmented.
                    (Some(_), _) | (None, None) => u32::MAX,
                    (None, Some(path)) => path.frame_bytes_max,
                };
                let fits = path.is_some_and(|path| largest <= path.frame_bytes_max);
                let dont_fragment = fits || (session.too_big == TooBig::Skip && session.packet_length.is_none());
                let (address, version) = widened(target.address);
                let written = MirrorTarget {
                    identity: balance::identity(target.address, target.port.get()),
                    inverse_weight: choice::inverse_weight(target.weight.number().get()),
                    address,
                    version,
                    device,
                    healthy: (is_healthy && (path.is_some() || !may_move)).into(),
                    frame_bytes_max,
                    dont_fragment: dont_fragment.into(),
                    zero: 0,
                };
                self.tables.write_target(generation.slot(index), number, &written)?;
                let way = direct::way(session, vnis.get(usize::from(index)), target, path, dont_fragment);
                let way = tunnel.and_then(|tunnel| {
                    Some(DirectPath { account: tunnel.account?, segmenter: self.segmenter.index(), ..way? })
                });
                direct.push((generation.slot(index) * TARGETS_OF_SESSION_MAX + number, way.unwrap_or_default()));
            }
        }
        self.direct.write(&direct)
    }
}

/// What makes a session the same one after a change of the configuration.
pub(super) fn identity(session: &Session) -> (SessionNumber, String) {
    (session.number, session.interface.as_str().to_owned())
}

fn as_session(session: &Session, vni: u32) -> MirrorSession {
    let cost = |rate: Option<std::num::NonZeroU64>, burst: Option<std::num::NonZeroU64>, unit: u64| match (rate, burst)
    {
        (Some(rate), Some(burst)) => {
            let ns = |units: u64, shift: u32| {
                let ns = ((u128::from(units) * NS_PER_SEC) << shift).div_ceil(u128::from(rate.get()));
                u64::try_from(ns).unwrap_or(u64::MAX)
            };
            Cost { ns_shifted: ns(unit, COST_SHIFT), burst_ns: ns(burst.get(), 0) }
        }
        _ => Cost::default(),
    };
    MirrorSession {
        packets: cost(session.rate.packets.per_second(), session.rate.packets.burst(), 1),
        bytes: cost(session.rate.bits.per_second(), session.rate.bits.burst(), 8),
        vni,
        targets: u32::try_from(session.targets.len()).unwrap_or(u32::MAX),
        replicate: u32::from(session.mode == Mode::Replicate),
        length_bytes: session.packet_length.map_or(0, |length| length.bytes().into()),
        skip_too_big: u32::from(session.too_big == TooBig::Skip),
        zero: 0,
    }
}

const NS_PER_SEC: u128 = 1_000_000_000;
/// An Ethernet header and a tag.
const FRAME_HEADER_BYTES_MAX: u32 = 14 + 4;
