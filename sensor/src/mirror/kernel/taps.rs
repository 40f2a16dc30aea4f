//! Programs at devices: those that make copies at the mirrored interfaces, and those that cut copies where they leave.

use super::{
    KernelMirror, KernelMirrorError, Path,
    programs::{self, Bare, ProgramsError},
};
use crate::{
    capture::kernel::Device,
    mirror::{Decider, Mirror, Point},
};
use aya::{
    Ebpf,
    programs::{TcAttachType, tc::SchedClassifierLink},
};

/// An interface that was asked for.
pub(super) struct Tap {
    pub(super) device: Device,
    pub(super) mtu: u32,
    /// Held so that the programs stay attached.
    pub(super) programs: Option<[SchedClassifierLink; 2]>,
}

impl KernelMirror {
    /// Whether no packet that passes an interface of that name can be mirrored.
    pub(super) fn is_idle(&self, name: &str) -> bool {
        is_idle(&self.plan.mirror, name)
    }

    pub(super) fn tap_programs(&mut self, device: &Device) -> Result<[SchedClassifierLink; 2], ProgramsError> {
        let (ingress, egress) = if device.ethernet {
            (("flow_ingress", "mirror_ingress"), ("flow_egress", "mirror_egress"))
        } else {
            (("flow_ingress_l3", "mirror_ingress_l3"), ("flow_egress_l3", "mirror_egress_l3"))
        };
        // What was counted has been mirrored as well, also where somebody else's program drops it: none is in between.
        let mut attach = |(counts, mirrors), at| {
            let behind = self.flow_programs.behind(counts);
            programs::attach_behind(behind, &mut self.object, mirrors, &device.name, at)
        };
        Ok([attach(ingress, TcAttachType::Ingress)?, attach(egress, TcAttachType::Egress)?])
    }

    /// Attaches what a plan needs at interfaces beyond what is there. Without lists the programs do nothing yet.
    pub(super) fn attach_for(&mut self, mirror: &Mirror) -> Result<(), KernelMirrorError> {
        let bare = self.taps.values().filter(|tap| tap.programs.is_none() && !is_idle(mirror, &tap.device.name));
        for device in bare.map(|tap| tap.device.clone()).collect::<Vec<_>>() {
            let programs = self.tap_programs(&device)?;
            if let Some(tap) = self.taps.get_mut(&device.index) {
                tap.programs = Some(programs);
            }
            if !device.ethernet {
                self.give_link_layer();
            }
        }
        Ok(())
    }

    /// Attaches the program that cuts to the devices that cut sessions leave by: to all that it can be.
    ///
    /// # Errors
    /// The last that the kernel refused.
    pub(super) fn cut(&mut self, mirror: &Mirror, paths: &[Option<Path>]) -> Result<(), KernelMirrorError> {
        let mut done = Ok(());
        for path in cut_paths(mirror, paths) {
            if !self.cuts.contains_key(&path.device) {
                match cut_at(&mut self.object, path) {
                    Ok(link) => drop(self.cuts.insert(path.device, link)),
                    Err(error) => done = Err(error),
                }
            }
        }
        done
    }

    /// Takes that program away from devices that no session which cuts leaves by.
    pub(super) fn cut_no_others(&mut self) {
        let Self { cuts, plan, paths, .. } = self;
        cuts.retain(|index, _| cut_paths(&plan.mirror, paths).any(|path| path.device == *index));
    }
}

fn cut_at(object: &mut Ebpf, path: &Path) -> Result<SchedClassifierLink, KernelMirrorError> {
    let device = Device::find(&path.device_name).map_err(KernelMirrorError::Cut)?;
    let program = if device.ethernet { "mirror_cut" } else { "mirror_cut_l3" };
    Ok(programs::attach(object, program, &device.name, TcAttachType::Egress)?)
}

/// The paths of sessions that cut.
fn cut_paths<'a>(mirror: &'a Mirror, paths: &'a [Option<Path>]) -> impl Iterator<Item = &'a Path> {
    let sessions = mirror.sessions().iter().filter(|session| session.packet_length.is_some());
    let targets = sessions.flat_map(|session| session.targets.iter());
    targets.filter_map(|target| paths.get(usize::from(*target)).and_then(Option::as_ref))
}

/// Whether nothing at an interface of that name can be mirrored.
pub(super) fn is_idle(mirror: &Mirror, name: &str) -> bool {
    Decider::new(mirror, name).is_ok_and(|decider| decider.is_idle_at(Point::Tap))
}

/// Whether a session may be one of interfaces without link layer. None at all may become any.
pub(super) fn bare(mirror: &Mirror) -> Bare {
    let has_link_layer = |name: &str| Device::find(name).is_ok_and(|device| device.ethernet);
    let sessions = mirror.sessions();
    let is_never = !sessions.is_empty() && sessions.iter().all(|session| has_link_layer(session.interface.as_str()));
    if is_never { Bare::Never } else { Bare::Possible }
}
