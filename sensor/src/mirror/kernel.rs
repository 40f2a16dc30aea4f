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
mod device;
mod direct;
mod link;
mod losses;
mod path;
mod plan;
mod programs;
mod refusal;
mod segmenter;
mod tables;
mod taps;
mod tend;
mod tunnel;

pub use counters::{CopyTotals, MirrorCounters, SessionCounters, TunnelLosses, is_skip, outcome_name};
pub use device::TUNNEL_ALIAS;
pub use flowtap_abi::mirror::{COPY_MARK, COPY_MARK_MASK, CopyOutcome};
pub use path::Path;
pub use plan::Plan;
pub use programs::{MirrorSizes, ProgramsError};
pub use refusal::{KernelMirrorError, check_host};
pub use tables::TablesError;
pub use tend::Notice;
pub use tunnel::TunnelError;

use super::{Mirror, SessionNumber, Target, fragmentation::Fragmentation};
use crate::{
    capture::kernel::{Device, FlowPrograms, chain},
    classify::Classifier,
    netlink::Netlink,
    sys::barrier,
};
use aya::{Ebpf, programs::tc::SchedClassifierLink};
use direct::Direct;
use flowtap_abi::mirror::{CopyCounts, Unjudged};
use link::LinkDevice;
use plan::identity;
use segmenter::Segmenter;
use std::{collections::HashMap, sync::Arc};
use tables::{Generation, Tables, add};
use taps::{Tap, is_idle};
use tunnel::{Claims, Tunnel, TunnelKind, tunnels_of};

/// The mirror in the kernel. Dropping it stops mirroring and takes its tunnel devices away.
pub struct KernelMirror {
    object: Ebpf,
    flow_programs: FlowPrograms,
    tables: Tables,
    direct: Direct,
    netlink: Netlink,
    plan: Plan,
    generation: Generation,
    /// Interfaces that were asked for, by index, and the programs at them while some rule can accept something.
    taps: HashMap<u32, Tap>,
    tunnels: Vec<Tunnel>,
    claims: Claims,
    losses: Vec<TunnelLosses>,
    /// By index into the plan's targets; `None` where there is no route.
    paths: Vec<Option<Path>>,
    healthy: Vec<bool>,
    /// The programs that cut, by the device they are at.
    cuts: HashMap<u32, SchedClassifierLink>,
    link: LinkDevice,
    /// The program at that device while it is there, and why it is not.
    link_program: Option<SchedClassifierLink>,
    no_link: Option<String>,
    /// The last generation and its plan, until its tables are clear.
    retiring: Option<(Generation, Plan)>,
    /// Why something of the last plan is still there.
    unsettled: Option<String>,
    /// Why some copies can't be cut that should be.
    no_cut: Option<String>,
    segmenter: Segmenter,
    /// Why no copy goes past the IP stack.
    no_losses: Option<String>,
    /// What earlier generations counted, by session.
    totals: HashMap<(SessionNumber, String), [CopyCounts; 2]>,
    /// As it was before the first copy.
    fragmentation: Option<Fragmentation>,
    /// What was said already, so that it is not said again.
    noticed: Vec<Notice>,
    /// The same of tunnel devices that can't be made again.
    gone: Vec<Notice>,
}

impl KernelMirror {
    /// Loads programs and tables and makes the tunnel devices, in the calling thread's network namespace. Nothing is
    /// mirrored before an interface is attached.
    ///
    /// # Errors
    /// What the kernel or the caller lacks, or what stands in the way; then nothing is left behind.
    pub fn new(plan: Plan, sizes: &MirrorSizes) -> Result<Self, KernelMirrorError> {
        let bare = taps::bare(&plan.mirror);
        let (mut object, counts_losses) = programs::load(sizes, bare)?;
        let tables = Tables::new(&mut object)?;
        let direct = Direct::new(&mut object, counts_losses.is_ok())?;
        let mut this = Self {
            object,
            flow_programs: FlowPrograms::default(),
            tables,
            direct,
            netlink: Netlink::open().map_err(KernelMirrorError::Netlink)?,
            plan: Plan {
                mirror: Mirror::default(),
                vnis: Vec::new(),
                classifier: Arc::new(|_: &str| Classifier::default()),
            },
            generation: Generation::default(),
            taps: HashMap::new(),
            tunnels: Vec::new(),
            claims: Claims::default(),
            losses: Vec::new(),
            paths: Vec::new(),
            healthy: Vec::new(),
            cuts: HashMap::new(),
            link: LinkDevice::reserve(bare),
            link_program: None,
            no_link: None,
            retiring: None,
            unsettled: None,
            no_cut: None,
            segmenter: Segmenter::reserve(),
            no_losses: counts_losses.err().map(|error| chain(&error)),
            totals: HashMap::new(),
            fragmentation: Fragmentation::read().ok(),
            noticed: Vec::new(),
            gone: Vec::new(),
        };
        this.replace(plan)?;
        Ok(this)
    }

    /// Attaches its programs directly behind these, at interfaces where they count, and not behind all that are there.
    pub fn set_flow_programs(&mut self, programs: FlowPrograms) {
        self.flow_programs = programs;
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
            let services = self.plan.services(&device.name);
            tables.write_interface(generation, &self.plan.mirror, &device.name, device.index, services)?;
            tap.programs = Some(self.tap_programs(device)?);
            if !device.ethernet {
                self.give_link_layer();
            }
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
        // What the new generation is written over must be gone.
        self.retire()?;
        let paths = self.paths_of(&plan.mirror);
        refusal::check(&plan.mirror, &paths)?;
        let healthy = self.health_of(&plan.mirror);
        let next = match self.prepare(&plan, &paths, &healthy) {
            Ok(next) => next,
            Err(error) => {
                // What stood in the way says more than what is left of it.
                self.settle().unwrap_or_default();
                return Err(error);
            }
        };
        let before = std::mem::replace(&mut self.generation, next);
        let plan_before = std::mem::replace(&mut self.plan, plan);
        (self.paths, self.healthy) = (paths, healthy);
        self.retiring = Some((before, plan_before));
        // The new plan is in force, so this is no error of it.
        self.settle_all();
        Ok(())
    }

    /// Leaves nothing of the last plan that the one in force does not need; what can't be done now is tried again.
    fn settle_all(&mut self) {
        let settled = self.retire().and_then(|()| self.settle());
        self.unsettled = settled.err().map(|error| chain(&error));
    }

    /// Takes over what the last generation counted, and its tables away, if that was not done.
    fn retire(&mut self) -> Result<(), KernelMirrorError> {
        let Some((before, plan_before)) = self.retiring.take() else { return Ok(()) };
        let counts = self.retired(&before, &plan_before);
        let Ok(counts) = counts else {
            self.retiring = Some((before, plan_before));
            return counts.map(drop);
        };
        for (session, counts) in plan_before.mirror.sessions().iter().zip(counts) {
            let totals = self.totals.entry(identity(session)).or_default();
            totals.iter_mut().zip(&counts).for_each(|(sum, more)| add(sum, more));
        }
        Ok(())
    }

    /// What a generation counted, when nobody counts for it any more and its tables are clear.
    fn retired(&mut self, before: &Generation, plan: &Plan) -> Result<Vec<[CopyCounts; 2]>, KernelMirrorError> {
        barrier::wait().map_err(KernelMirrorError::Barrier)?;
        let slots = (0..).zip(plan.mirror.sessions()).map(|(index, _)| before.slot(index));
        let counts = slots.map(|slot| self.tables.counts(slot)).collect::<Result<_, _>>()?;
        self.tables.clear(before)?;
        Ok(counts)
    }

    /// Makes all that a plan needs beyond what is there, and puts it in force. Up to then the old one has all it needs.
    fn prepare(
        &mut self,
        plan: &Plan,
        paths: &[Option<Path>],
        healthy: &[bool],
    ) -> Result<Generation, KernelMirrorError> {
        for (kind, completes) in tunnels_of(&plan.mirror, paths)? {
            match self.tunnels.iter().find(|tunnel| tunnel.kind == kind) {
                // What the kernel completes is right for the old plan too.
                Some(tunnel) if !completes => tunnel.leave_to_card(&mut self.netlink, false)?,
                Some(_) => {}
                None => self.make_tunnel(kind, completes)?,
            }
        }
        if self.direct.has_use(&plan.mirror, paths) {
            self.segmenter.tend(&mut self.netlink, &mut self.object);
        }
        self.cut(&plan.mirror, paths)?;
        let next = self.write_generation(plan, paths, healthy)?;
        let ready = self.attach_for(&plan.mirror).and_then(|()| Ok(self.tables.switch(&next)?));
        match ready {
            Ok(()) => Ok(next),
            Err(error) => {
                self.tables.clear(&next)?;
                Err(error)
            }
        }
    }

    /// Sees to it that programs and devices are those that the plan in force needs, and takes the others away.
    fn settle(&mut self) -> Result<(), KernelMirrorError> {
        let mirror = &self.plan.mirror;
        for tap in self.taps.values_mut().filter(|tap| is_idle(mirror, &tap.device.name)) {
            tap.programs = None;
        }
        self.settle_ways()
    }

    /// The same of those on the ways to targets.
    fn settle_ways(&mut self) -> Result<(), KernelMirrorError> {
        self.cut_no_others();
        let wanted = tunnels_of(&self.plan.mirror, &self.paths)?;
        for at in (0..self.tunnels.len()).rev() {
            let Some(tunnel) = self.tunnels.get(at) else { continue };
            if let Some((_, completes)) = wanted.iter().find(|(kind, _)| *kind == tunnel.kind) {
                tunnel.leave_to_card(&mut self.netlink, *completes)?;
                continue;
            }
            self.count_losses(at)?;
            let tunnel = self.tunnels.remove(at);
            self.claims.release(&tunnel.device.name);
            tunnel.device.remove(&mut self.netlink).map_err(KernelMirrorError::Netlink)?;
        }
        if !self.direct.has_use(&self.plan.mirror, &self.paths) {
            self.segmenter.remove(&mut self.netlink);
        }
        Ok(())
    }

    fn make_tunnel(&mut self, kind: TunnelKind, completes: bool) -> Result<(), KernelMirrorError> {
        let Self { netlink, object, claims, .. } = self;
        let mut tunnel = Tunnel::make(netlink, object, claims, kind, completes)?;
        // One that was there before, and comes back, has its losses already.
        if !self.losses.iter().any(|losses| losses.device == tunnel.device.name) {
            self.losses.push(TunnelLosses { device: tunnel.device.name.clone(), ..TunnelLosses::default() });
        }
        let taken: Vec<u32> = self.tunnels.iter().filter_map(|tunnel| tunnel.account).collect();
        let account = self.direct.open(tunnel.device.index, &taken);
        tunnel.account = account.as_ref().ok().copied().flatten();
        self.tunnels.push(tunnel);
        account.map(drop).map_err(KernelMirrorError::from)
    }

    /// Ends, and says what became of everything. What the programs had begun is finished first.
    ///
    /// # Errors
    /// The kernel refuses; it ends all the same.
    pub fn finish(mut self) -> Result<MirrorCounters, KernelMirrorError> {
        self.taps.clear();
        barrier::wait().map_err(KernelMirrorError::Barrier)?;
        for at in 0..self.tunnels.len() {
            self.count_losses(at)?;
        }
        self.counters()
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
            fragmentation: self.fragmentation.and_then(|before| Some(Fragmentation::read().ok()?.since(before))),
        })
    }

    fn paths_of(&mut self, mirror: &Mirror) -> Vec<Option<Path>> {
        // Without a route there is no path now; there may be one later.
        mirror.targets().iter().map(|target| Path::find(&mut self.netlink, target.address, COPY_MARK).ok()).collect()
    }

    /// The health of another configuration's targets: that of a target that stays is kept, others are healthy.
    pub fn health_of(&self, mirror: &Mirror) -> Vec<bool> {
        let before = self.plan.mirror.targets();
        let health = |target: &Target| {
            let at = before.iter().position(|known| known.name == target.name && known.address == target.address);
            at.and_then(|at| self.healthy.get(at).copied()).unwrap_or(true)
        };
        mirror.targets().iter().map(health).collect()
    }
}

impl Drop for KernelMirror {
    fn drop(&mut self) {
        // First nothing makes copies any more, then their way out goes.
        self.taps.clear();
        self.cuts.clear();
        self.segmenter.remove(&mut self.netlink);
        for tunnel in self.tunnels.drain(..) {
            // Nobody is left to be told; a device that stays is known as ours next time.
            tunnel.device.remove(&mut self.netlink).unwrap_or_default();
        }
    }
}

fn session_counters(
    (number, interface): (SessionNumber, String),
    [ingress, egress]: [CopyCounts; 2],
) -> SessionCounters {
    SessionCounters { number, interface, ingress: CopyTotals(ingress), egress: CopyTotals(egress) }
}

#[cfg(test)]
mod tests;
