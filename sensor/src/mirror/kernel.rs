//! Mirroring in the kernel: programs at each mirrored interface make the copies, and no packet reaches user space.
//!
//! [`KernelMirror`] makes our tunnel devices, writes the compiled rules into the kernel's maps, and attaches programs to
//! interfaces as they come. It is asked now and then what was counted ([`KernelMirror::counters`]) and to look after what
//! may have changed under it ([`KernelMirror::tend`]). Other rules are a new generation beside the old one, swapped by
//! one word: a packet is judged by the one or the other, so none is lost or copied twice. Needs what the kernel plane
//! needs.
//!
//! What copies cost the path they are made on, and why the tunnel device completes checksums in software, was measured;
//! so were the rest of the choices here.

mod counters;
mod netlink;
mod path;
mod programs;
mod tables;
mod tunnel;

pub use counters::{CopyTotals, Fragmentation, MirrorCounters, SessionCounters, TunnelLosses, is_skip, outcome_name};
pub use flowtap_abi::mirror::{COPY_MARK, COPY_MARK_MASK, CopyOutcome};
pub use path::{Path, PathTooSmall};
pub use programs::{MirrorSizes, ProgramsError};
pub use tables::TablesError;
pub use tunnel::{TUNNEL_ALIAS, TunnelError};

use super::{Mirror, Mode, Offload, Point, Session, SessionNumber, Target, TooBig, Vni};
use crate::{
    capture::kernel::{Device, TapError},
    classify::Classifier,
    sys::barrier,
};
use aya::{
    Ebpf,
    programs::{TcAttachType, tc::SchedClassifierLink},
};
use flowlog::record::TrafficClass;
use flowtap_abi::mirror::{
    Buckets, COST_SHIFT, CopyCounts, Cost, MirrorSession, MirrorTarget, TARGETS_OF_SESSION_MAX, TUNNEL_PORTS_MAX,
    Unjudged, known,
};
use netlink::{Netlink, Sent};
use sha2::{Digest as _, Sha256};
use std::{collections::HashMap, fmt, io, net::IpAddr};
use tables::{Generation, Tables, add, widened};
use tunnel::{Tunnel, TunnelKind};

/// What is mirrored, and what the rules need to know of the host.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What was configured.
    pub mirror: Mirror,
    /// The VNI of each session, in their order: [`Mirror::vnis`].
    pub vnis: Vec<Vni>,
    /// Knows the addresses of services.
    pub classifier: Classifier,
}

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

/// Something that people should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Full frames do not fit the path to a target.
    PathTooSmall(PathTooSmall),
    /// There is no route to a target, so its copies are lost behind the tunnel device.
    NoRoute {
        /// Its name.
        target: String,
        /// Its address.
        address: IpAddr,
    },
    /// A tunnel device was taken away by somebody, and has been made again.
    TunnelMadeAgain {
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

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PathTooSmall(path) => path.fmt(f),
            Self::NoRoute { target, address } => {
                write!(f, "there is no route to mirror target `{target}` ({address}): its copies are lost")
            }
            Self::TunnelMadeAgain { device } => {
                write!(f, "the mirror's tunnel device {device} was removed by somebody; it has been made again")
            }
            Self::TunnelGone { device, cause } => write!(
                f,
                "the mirror's tunnel device {device} was removed by somebody and cannot be made again: {cause}; copies are \
                 skipped until it can"
            ),
        }
    }
}

/// The mirror in the kernel. Dropping it stops mirroring and takes its tunnel devices away.
pub struct KernelMirror {
    object: Ebpf,
    tables: Tables,
    netlink: Netlink,
    plan: Plan,
    generation: Generation,
    /// Interfaces that were asked for, by index, and the programs at them while some rule can accept something.
    taps: HashMap<u32, Tap>,
    tunnels: Vec<Tunnel>,
    losses: Vec<TunnelLosses>,
    /// By index into the plan's targets; `None` where there is no route.
    paths: Vec<Option<Path>>,
    healthy: Vec<bool>,
    /// The programs that cut, by the device they are at.
    cuts: HashMap<u32, SchedClassifierLink>,
    /// What earlier generations counted, by session.
    totals: HashMap<(SessionNumber, String), [CopyCounts; 2]>,
    /// What was said already, so that it is not said again.
    noticed: Vec<Notice>,
    /// The same of tunnel devices that can't be made again.
    gone: Vec<Notice>,
}

struct Tap {
    device: Device,
    mtu: u32,
    /// Held so that the programs stay attached.
    programs: Option<[SchedClassifierLink; 2]>,
}

impl KernelMirror {
    /// Loads programs and tables and makes the tunnel devices, in the calling thread's network namespace. Nothing is
    /// mirrored before an interface is attached.
    ///
    /// # Errors
    /// What the kernel or the caller lacks, or what stands in the way; then nothing is left behind.
    pub fn new(plan: Plan, sizes: &MirrorSizes) -> Result<Self, KernelMirrorError> {
        let mut object = programs::load(sizes)?;
        let tables = Tables::new(&mut object)?;
        let mut this = Self {
            object,
            tables,
            netlink: Netlink::open().map_err(KernelMirrorError::Netlink)?,
            plan: Plan { mirror: Mirror::default(), vnis: Vec::new(), classifier: Classifier::default() },
            generation: Generation::default(),
            taps: HashMap::new(),
            tunnels: Vec::new(),
            losses: Vec::new(),
            paths: Vec::new(),
            healthy: Vec::new(),
            cuts: HashMap::new(),
            totals: HashMap::new(),
            noticed: Vec::new(),
            gone: Vec::new(),
        };
        this.replace(plan)?;
        Ok(this)
    }

    /// Mirrors what passes `device` from now on, as far as a session applies to it; once, however often it is called.
    ///
    /// # Errors
    /// The kernel refuses, or the tables are full.
    pub fn attach(&mut self, device: &Device) -> Result<(), KernelMirrorError> {
        if self.taps.contains_key(&device.index) {
            return Ok(());
        }
        let link = self.netlink.link(device.index).map_err(KernelMirrorError::Netlink)?;
        let mut tap = Tap { device: device.clone(), mtu: link.map_or(0, |link| link.mtu), programs: None };
        if !self.is_idle(&device.name) {
            let (tables, generation) = (&mut self.tables, &mut self.generation);
            tables.write_interface(generation, &self.plan.mirror, &device.name, device.index)?;
            tap.programs = Some(self.tap_programs(device)?);
        }
        self.taps.insert(device.index, tap);
        // Its frames may be larger than others'.
        self.write_all_targets()?;
        Ok(())
    }

    /// Stops mirroring at the interface of that index; whether it was asked for.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach(&mut self, index: u32) -> Result<bool, KernelMirrorError> {
        let is_known = self.taps.remove(&index).is_some();
        self.tables.forget_interface(&self.generation, index)?;
        Ok(is_known)
    }

    /// Mirrors by another plan from now on. Every packet is judged by the old one or the new one.
    ///
    /// # Errors
    /// What stands in the way of the new plan; then the old one goes on.
    pub fn replace(&mut self, plan: Plan) -> Result<(), KernelMirrorError> {
        let paths = self.paths_of(&plan.mirror);
        self.check(&plan.mirror, &paths)?;
        let wanted = tunnels_of(&plan.mirror, &paths)?;
        for (kind, completes) in &wanted {
            if !self.tunnels.iter().any(|tunnel| tunnel.kind == *kind) {
                let tunnel = Tunnel::make(&mut self.netlink, &mut self.object, *kind, *completes)?;
                self.losses.push(TunnelLosses { device: tunnel.name.clone(), ..TunnelLosses::default() });
                self.tunnels.push(tunnel);
            }
        }
        let healthy = self.health_of(&plan.mirror);
        let next = self.write_generation(&plan, &paths, &healthy)?;
        let ready = self.attach_for(&plan.mirror, &paths).and_then(|()| Ok(self.tables.switch(&next)?));
        if let Err(error) = ready {
            self.tables.clear(&next)?;
            return Err(error);
        }
        let before = std::mem::replace(&mut self.generation, next);
        let plan_before = std::mem::replace(&mut self.plan, plan);
        (self.paths, self.healthy) = (paths, healthy);
        barrier::wait().map_err(KernelMirrorError::Barrier)?;

        for (index, session) in (0..).zip(plan_before.mirror.sessions()) {
            let counts = self.tables.counts(before.slot(index))?;
            let totals = self.totals.entry(identity(session)).or_default();
            totals.iter_mut().zip(&counts).for_each(|(sum, more)| add(sum, more));
        }
        self.tables.clear(&before)?;
        // Programs that nothing needs any more go only now: until the switch they worked by the old plan.
        let mirror = &self.plan.mirror;
        for tap in self.taps.values_mut().filter(|tap| is_idle(mirror, &tap.device.name)) {
            tap.programs = None;
        }
        for at in (0..self.tunnels.len()).rev() {
            let is_wanted =
                self.tunnels.get(at).is_some_and(|tunnel| wanted.iter().any(|(kind, _)| *kind == tunnel.kind));
            if !is_wanted {
                self.tunnels.remove(at).remove(&mut self.netlink).map_err(KernelMirrorError::Netlink)?;
            }
        }
        Ok(())
    }

    /// Says of a target, by its index in [`Mirror::targets`], whether it takes copies. Flows of one that does not go to
    /// the others of their session; those of the others stay.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_health(&mut self, target: u16, is_healthy: bool) -> Result<(), KernelMirrorError> {
        if let Some(healthy) = self.healthy.get_mut(usize::from(target)) {
            *healthy = is_healthy;
        }
        self.write_all_targets()
    }

    /// What was counted since the start.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn counters(&self) -> Result<MirrorCounters, KernelMirrorError> {
        let mut totals = self.totals.clone();
        let mut sessions = Vec::new();
        for (index, session) in (0..).zip(self.plan.mirror.sessions()) {
            let key = identity(session);
            let mut sums = totals.remove(&key).unwrap_or_default();
            let counts = self.tables.counts(self.generation.slot(index))?;
            sums.iter_mut().zip(&counts).for_each(|(sum, more)| add(sum, more));
            sessions.push(session_counters(key, sums));
        }
        let mut gone: Vec<_> = totals.into_iter().map(|(key, sums)| session_counters(key, sums)).collect();
        gone.sort_by(|a, b| (a.number, &a.interface).cmp(&(b.number, &b.interface)));
        sessions.append(&mut gone);
        Ok(MirrorCounters {
            sessions,
            own_copies: self.tables.unjudged(Unjudged::OwnCopy)?,
            not_gathered: self.tables.unjudged(Unjudged::NotGathered)?,
            devices: self.losses.clone(),
        })
    }

    /// Looks after what changes by itself: routes and MTUs, and tunnel devices that somebody removes. To be called every
    /// few seconds. What it finds is told once, and again when it changes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn tend(&mut self) -> Result<Vec<Notice>, KernelMirrorError> {
        let mut notices = self.tend_tunnels()?;
        for tap in self.taps.values_mut() {
            let link = self.netlink.link(tap.device.index).map_err(KernelMirrorError::Netlink)?;
            tap.mtu = link.map_or(tap.mtu, |link| link.mtu);
        }
        let mirror = self.plan.mirror.clone();
        let paths = self.paths_of(&mirror);
        if paths != self.paths {
            self.cut(&mirror, &paths)?;
            self.paths = paths;
        }
        self.write_all_targets()?;
        let state = self.path_notices();
        notices.extend(state.iter().filter(|notice| !self.noticed.contains(notice)).cloned());
        self.noticed = state;
        Ok(notices)
    }

    /// Counts what the tunnel devices lost, and makes those again that are gone.
    fn tend_tunnels(&mut self) -> Result<Vec<Notice>, KernelMirrorError> {
        let mut notices = Vec::new();
        for at in 0..self.tunnels.len() {
            let Some(tunnel) = self.tunnels.get_mut(at) else { break };
            match tunnel.lost(&mut self.netlink).map_err(KernelMirrorError::Netlink)? {
                Some(lost) => {
                    let name = &tunnel.name;
                    if let Some(losses) = self.losses.iter_mut().find(|losses| losses.device == *name) {
                        add_lost(losses, lost);
                    }
                }
                None => {
                    let (kind, device) = (tunnel.kind, tunnel.name.clone());
                    let wanted = tunnels_of(&self.plan.mirror, &self.paths)?;
                    let completes = wanted.iter().any(|(wanted, completes)| *wanted == kind && *completes);
                    match Tunnel::make(&mut self.netlink, &mut self.object, kind, completes) {
                        Ok(again) => {
                            *tunnel = again;
                            self.gone.clear();
                            notices.push(Notice::TunnelMadeAgain { device });
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
            }
        }
        Ok(notices)
    }

    /// What is to be said of the paths as they are.
    fn path_notices(&self) -> Vec<Notice> {
        let mut notices = Vec::new();
        for session in self.plan.mirror.sessions() {
            let taps = self.taps.values().filter(|tap| session.interface.matches(&tap.device.name));
            let Some(largest) = taps.max_by_key(|tap| (tap.mtu, &tap.device.name)) else { continue };
            for (index, target) in self.plan.mirror.targets_of(session) {
                let notice = match self.paths.get(usize::from(index)).and_then(Option::as_ref) {
                    None => Notice::NoRoute { target: target.name.clone(), address: target.address },
                    Some(path) => {
                        let needed_mtu = Path::needed_mtu(target.address, largest.mtu);
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

    fn paths_of(&mut self, mirror: &Mirror) -> Vec<Option<Path>> {
        // Without a route there is no path now; there may be one later.
        mirror.targets().iter().map(|target| Path::find(&mut self.netlink, target.address, COPY_MARK).ok()).collect()
    }

    /// A target keeps its health where the new plan still has it.
    fn health_of(&self, mirror: &Mirror) -> Vec<bool> {
        let before = self.plan.mirror.targets();
        let health = |target: &Target| {
            let at = before.iter().position(|known| known.name == target.name && known.address == target.address);
            at.and_then(|at| self.healthy.get(at).copied()).unwrap_or(true)
        };
        mirror.targets().iter().map(health).collect()
    }

    fn check(&self, mirror: &Mirror, paths: &[Option<Path>]) -> Result<(), KernelMirrorError> {
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

    /// Whether no packet that passes an interface of that name can be mirrored.
    fn is_idle(&self, name: &str) -> bool {
        is_idle(&self.plan.mirror, name)
    }

    fn tap_programs(&mut self, device: &Device) -> Result<[SchedClassifierLink; 2], ProgramsError> {
        let (ingress, egress) = if device.ethernet {
            ("mirror_ingress", "mirror_egress")
        } else {
            ("mirror_ingress_l3", "mirror_egress_l3")
        };
        Ok([
            programs::attach(&mut self.object, ingress, &device.name, TcAttachType::Ingress)?,
            programs::attach(&mut self.object, egress, &device.name, TcAttachType::Egress)?,
        ])
    }

    /// Attaches what a plan needs beyond what is there. Without lists the programs do nothing yet.
    fn attach_for(&mut self, mirror: &Mirror, paths: &[Option<Path>]) -> Result<(), KernelMirrorError> {
        let bare = self.taps.values().filter(|tap| tap.programs.is_none() && !is_idle(mirror, &tap.device.name));
        for device in bare.map(|tap| tap.device.clone()).collect::<Vec<_>>() {
            let programs = self.tap_programs(&device)?;
            if let Some(tap) = self.taps.get_mut(&device.index) {
                tap.programs = Some(programs);
            }
        }
        self.cut(mirror, paths)
    }

    /// Attaches the program that cuts to the devices that cut sessions leave by, and to no others.
    fn cut(&mut self, mirror: &Mirror, paths: &[Option<Path>]) -> Result<(), KernelMirrorError> {
        let sessions = mirror.sessions().iter().filter(|session| session.packet_length.is_some());
        let targets = sessions.flat_map(|session| session.targets.iter());
        let wanted: Vec<&Path> =
            targets.filter_map(|target| paths.get(usize::from(*target)).and_then(Option::as_ref)).collect();
        self.cuts.retain(|index, _| wanted.iter().any(|path| path.device == *index));
        for path in wanted {
            if self.cuts.contains_key(&path.device) {
                continue;
            }
            let device = Device::find(&path.device_name).map_err(KernelMirrorError::Cut)?;
            let program = if device.ethernet { "mirror_cut" } else { "mirror_cut_l3" };
            let link = programs::attach(&mut self.object, program, &device.name, TcAttachType::Egress)?;
            self.cuts.insert(path.device, link);
        }
        Ok(())
    }

    /// Writes all of a plan where no program looks yet.
    fn write_generation(
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
        for (address, class) in plan.classifier.service_addresses() {
            let role = match class {
                TrafficClass::Dns => known::RESOLVER,
                TrafficClass::Metadata => known::METADATA,
                TrafficClass::Time => known::TIME,
                TrafficClass::Activation => known::ACTIVATION,
                _ => continue,
            };
            self.tables.write_known(next, address, role)?;
        }
        for target in plan.mirror.targets() {
            self.tables.write_known(next, target.address, known::TARGET)?;
        }
        self.write_targets(next, &plan.mirror, paths, healthy)?;
        for tap in self.taps.values().filter(|tap| !is_idle(&plan.mirror, &tap.device.name)) {
            self.tables.write_interface(next, &plan.mirror, &tap.device.name, tap.device.index)?;
        }
        Ok(())
    }

    fn write_all_targets(&mut self) -> Result<(), KernelMirrorError> {
        let (generation, mirror) = (std::mem::take(&mut self.generation), self.plan.mirror.clone());
        let (paths, healthy) = (self.paths.clone(), self.healthy.clone());
        let written = self.write_targets(&generation, &mirror, &paths, &healthy);
        self.generation = generation;
        written
    }

    fn write_targets(
        &mut self,
        generation: &Generation,
        mirror: &Mirror,
        paths: &[Option<Path>],
        healthy: &[bool],
    ) -> Result<(), KernelMirrorError> {
        for (index, session) in (0..).zip(mirror.sessions()) {
            let taps = self.taps.values().filter(|tap| session.interface.matches(&tap.device.name));
            // A tag may come on top of what the interface's MTU says.
            let largest = taps.map(|tap| tap.mtu + FRAME_HEADER_BYTES_MAX).max().unwrap_or(0);
            for (number, (at, target)) in (0..).zip(mirror.targets_of(session)) {
                let path = paths.get(usize::from(at)).and_then(Option::as_ref);
                let kind = TunnelKind { encapsulation: target.encapsulation, port: target.port };
                let device = self.tunnels.iter().find(|tunnel| tunnel.kind == kind).map_or(0, |tunnel| tunnel.index);
                let frame_bytes_max = match (session.packet_length, path) {
                    // What is cut fits, or is cut where it is fragmented.
                    (Some(_), _) | (None, None) => u32::MAX,
                    (None, Some(path)) => path.frame_bytes_max,
                };
                let fits = path.is_some_and(|path| largest <= path.frame_bytes_max);
                let (address, version) = widened(target.address);
                let written = MirrorTarget {
                    identity: identity_of(target),
                    inverse_weight: (1 << 32) / u64::from(target.weight.number().get()),
                    address,
                    version,
                    device,
                    healthy: healthy.get(usize::from(at)).copied().unwrap_or(true).into(),
                    frame_bytes_max,
                    dont_fragment: u32::from(
                        fits || (session.too_big == TooBig::Skip && session.packet_length.is_none()),
                    ),
                    zero: 0,
                };
                self.tables.write_target(generation.slot(index), number, &written)?;
            }
        }
        Ok(())
    }
}

impl Drop for KernelMirror {
    fn drop(&mut self) {
        // First nothing makes copies any more, then their way out goes.
        self.taps.clear();
        self.cuts.clear();
        for tunnel in self.tunnels.drain(..) {
            // Nobody is left to be told; a device that stays is known as ours next time.
            tunnel.remove(&mut self.netlink).unwrap_or_default();
        }
    }
}

/// The tunnel devices that a plan needs, and whether a card completes what each sends. One that several sessions use is
/// finished in software as soon as one of them wants that: it is always right.
fn tunnels_of(mirror: &Mirror, paths: &[Option<Path>]) -> Result<Vec<(TunnelKind, bool)>, KernelMirrorError> {
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

fn is_idle(mirror: &Mirror, name: &str) -> bool {
    super::Decider::new(mirror, name).is_ok_and(|decider| decider.is_idle_at(Point::Tap))
}

/// What makes a session the same one after a change of the configuration.
fn identity(session: &Session) -> (SessionNumber, String) {
    (session.number, session.interface.as_str().to_owned())
}

/// Distinguishes targets in the choice by flow: the same after every start, whatever else is configured.
fn identity_of(target: &Target) -> u64 {
    let mut hash = Sha256::new();
    let (address, _) = widened(target.address);
    hash.update(address);
    hash.update(target.port.get().to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
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

fn session_counters(
    (number, interface): (SessionNumber, String),
    [ingress, egress]: [CopyCounts; 2],
) -> SessionCounters {
    SessionCounters { number, interface, ingress: CopyTotals(ingress), egress: CopyTotals(egress) }
}

fn add_lost(losses: &mut TunnelLosses, lost: Sent) {
    losses.sent += lost.frames;
    losses.dropped += lost.dropped;
    losses.errors += lost.errors;
}

const NS_PER_SEC: u128 = 1_000_000_000;
/// An Ethernet header and a tag.
const FRAME_HEADER_BYTES_MAX: u32 = 14 + 4;

#[cfg(test)]
mod tests;
