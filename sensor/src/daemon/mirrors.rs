//! Mirroring as a part of a run: begins with it or with a reload, and ends with a reload or with it.
//!
//! Loading programs takes rights that a run gives up, so a reload can begin it in the kernel only if the run was made ready
//! for that ([`Setup::nothing`]); it stays so when a reload ends it. A thread can begin wherever frames come from libpcap.
//!
//! Where the kernel counts, it makes the copies too; elsewhere, and where it can't make those that are asked for, a thread
//! taps the interfaces. Where it counts it also hands out copies of what it drops, and a thread sends what sessions want
//! of these.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DaemonError, ReloadError};
use crate::capture::dropped::DropSource;
#[cfg(feature = "ebpf")]
use crate::capture::kernel::FlowPrograms;
use crate::feed::Clock;
use crate::mirror::live::{LiveMirror, Setup, Sight};
use crate::mirror::report::{AtDrop, Report};

/// What mirrors, if anything does. All clones are one.
#[derive(Clone)]
pub(super) struct Mirrors {
    running: Arc<Mutex<Option<Running>>>,
    drops: Arc<Told>,
    /// Whether a thread may open packet sockets whenever it likes.
    may_tap: bool,
    clock: Clock,
}

/// Whether this run has copies of what the kernel drops.
pub(super) enum Drops {
    /// Nobody asked for them when it began.
    NotAsked,
    /// It has.
    #[cfg_attr(not(feature = "ebpf"), expect(dead_code, reason = "only the kernel plane has them"))]
    Copied(Box<dyn DropSource>),
    /// It can't have them.
    Impossible {
        /// Why not.
        why: String,
    },
}

/// The same once it runs.
enum Told {
    NotAsked,
    Copied,
    Impossible { why: String },
}

/// Whether the kernel makes the copies.
#[derive(Debug, Clone)]
pub(super) enum InKernel {
    /// It doesn't count either.
    No,
    /// If it can, behind the programs that count; else a thread.
    #[cfg(feature = "ebpf")]
    IfPossible(FlowPrograms),
    /// It was asked for.
    #[cfg(feature = "ebpf")]
    Required(FlowPrograms),
}

enum Running {
    Thread(LiveMirror),
    #[cfg(feature = "ebpf")]
    Kernel {
        mirror: Box<kernel::KernelMirrors>,
        /// Sends what sessions want of dropped packets.
        drops: Option<LiveMirror>,
    },
}

/// What is to be mirrored, with what takes more rights than a run keeps done.
pub(super) struct Prepared {
    setup: Option<Setup>,
    #[cfg(feature = "ebpf")]
    kernel: Option<Box<kernel::KernelMirrors>>,
    drops: Drops,
}

impl Prepared {
    /// Whether a thread will send copies, and perhaps tap interfaces: for both it must open raw sockets.
    pub(super) fn needs_sockets(&self) -> bool {
        #[cfg(feature = "ebpf")]
        let in_kernel = self.kernel.is_some();
        #[cfg(not(feature = "ebpf"))]
        let in_kernel = false;
        self.setup.is_some() && (!in_kernel || matches!(self.drops, Drops::Copied(_)))
    }
}

/// Does what takes more rights than a run keeps. Makes no threads.
///
/// # Errors
/// The kernel shall mirror, and can't.
pub(super) fn prepare(setup: Option<Setup>, in_kernel: &InKernel, drops: Drops) -> Result<Prepared, DaemonError> {
    if let Drops::Impossible { why } = &drops {
        complain_of_drops(why);
    }
    #[cfg(feature = "ebpf")]
    {
        let programs = match in_kernel {
            InKernel::No => None,
            InKernel::IfPossible(programs) | InKernel::Required(programs) => Some(programs.clone()),
        };
        let wanted = setup.as_ref().zip(programs);
        let kernel = match wanted.map(|(setup, programs)| kernel::KernelMirrors::new(setup, programs)).transpose() {
            Ok(kernel) => kernel.map(Box::new),
            Err(why) if matches!(in_kernel, InKernel::Required(_)) => return Err(DaemonError::Mirror(why)),
            Err(why) => {
                tracing::warn!(why, "the kernel can't mirror this: a thread taps the interfaces");
                None
            }
        };
        Ok(Prepared { setup, kernel, drops })
    }
    #[cfg(not(feature = "ebpf"))]
    match in_kernel {
        InKernel::No => Ok(Prepared { setup, drops }),
    }
}

impl Mirrors {
    /// Begins, if there is something to mirror. `may_tap` says that the right to open packet sockets is kept.
    pub(super) fn start(prepared: Prepared, may_tap: bool, clock: &Clock) -> Result<Self, DaemonError> {
        #[cfg_attr(not(feature = "ebpf"), expect(unused_mut, reason = "only the kernel plane changes it"))]
        let (source, mut told) = match prepared.drops {
            Drops::NotAsked => (None, Told::NotAsked),
            Drops::Copied(source) => (Some(source), Told::Copied),
            Drops::Impossible { why } => (None, Told::Impossible { why }),
        };
        #[cfg(feature = "ebpf")]
        let kernel = prepared.kernel;
        #[cfg(not(feature = "ebpf"))]
        let kernel: Option<std::convert::Infallible> = None;
        let start = |setup, taps, drops, health| {
            let mirror = LiveMirror::start(setup, Sight { taps, drops }, health, Arc::clone(clock));
            mirror.map_err(|error| DaemonError::Mirror(error.to_string()))
        };
        let running = match (prepared.setup, kernel) {
            (None, _) => None,
            #[cfg(feature = "ebpf")]
            (Some(setup), Some(mut mirror)) => {
                mirror.check(&setup).map_err(DaemonError::Mirror)?;
                let health = mirror.health();
                // The kernel mirrors all else, and flows are counted.
                let drops = match source.map(|source| start(setup, false, Some(source), Some(health))).transpose() {
                    Ok(drops) => drops,
                    Err(error) => {
                        let why = error.to_string();
                        complain_of_drops(&why);
                        told = Told::Impossible { why };
                        None
                    }
                };
                Some(Running::Kernel { mirror, drops })
            }
            #[cfg(not(feature = "ebpf"))]
            (Some(_), Some(never)) => match never {},
            (Some(setup), None) => Some(Running::Thread(start(setup, true, source, None)?)),
        };
        let running = Arc::new(Mutex::new(running));
        Ok(Self { running, drops: Arc::new(told), may_tap, clock: Arc::clone(clock) })
    }

    /// Goes over to another configuration; if that can't be had, what was goes on.
    pub(super) fn change(&self, setup: Option<Setup>) -> Result<(), ReloadError> {
        let mut running = self.lock();
        if setup.as_ref().is_some_and(|setup| setup.mirror.drop_rule().is_some()) {
            match &*self.drops {
                Told::Copied => {}
                Told::NotAsked => {
                    return Err("mirroring what is rejected begins with a run: start again".into());
                }
                Told::Impossible { why } => complain_of_drops(why),
            }
        }
        // What ends stays ready to begin again.
        let setup = setup.or_else(|| running.is_some().then(Setup::nothing));
        match (setup, running.as_mut()) {
            (Some(setup), Some(Running::Thread(mirror))) => {
                mirror.go_over(mirror.prepare(setup, None, (self.clock)())?);
            }
            #[cfg(feature = "ebpf")]
            (Some(setup), Some(Running::Kernel { mirror, drops })) => {
                let health = mirror.health_of(&setup);
                let prepare = |drops: &LiveMirror| drops.prepare(setup.clone(), Some(health.clone()), (self.clock)());
                let ready = drops.as_ref().map(prepare).transpose()?;
                mirror.replace(setup, health)?;
                if let (Some(drops), Some(ready)) = (drops, ready) {
                    drops.go_over(ready);
                }
            }
            (Some(setup), None) if setup.mirror.sessions().is_empty() => {}
            (Some(setup), None) if self.may_tap => {
                let sight = Sight { taps: true, drops: None };
                *running = Some(Running::Thread(LiveMirror::start(setup, sight, None, Arc::clone(&self.clock))?));
            }
            (Some(_), None) => return Err(NOT_READY.into()),
            (None, _) => {}
        }
        Ok(())
    }

    /// Looks after what may have changed by itself. To be called about once a second.
    pub(super) fn tend(&self) {
        #[cfg(feature = "ebpf")]
        if let Some(Running::Kernel { mirror, .. }) = self.lock().as_mut() {
            mirror.tend();
        }
    }

    /// What became of mirrored packets so far, if any session was there.
    pub(super) fn report(&self) -> Option<Report> {
        let running = self.lock();
        let report = running.as_ref().map(|running| match running {
            Running::Thread(mirror) => mirror.report(),
            #[cfg(feature = "ebpf")]
            Running::Kernel { mirror, drops } => with(mirror.report(), drops.as_ref().map(LiveMirror::report)),
        });
        report.map(|report| self.complete(report)).filter(has_sessions)
    }

    /// Sends what is queued and ends.
    pub(super) fn stop(&self) -> Option<Report> {
        let running = self.lock().take();
        running.map(|running| self.complete(running.stop())).filter(has_sessions)
    }

    /// Says of what is asked for, and can't be had, why.
    fn complete(&self, mut report: Report) -> Report {
        if let Told::Impossible { why } = &*self.drops {
            report.at_drop = AtDrop::Impossible { why: why.clone() };
        }
        report
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_sessions(report: &Report) -> bool {
    !report.sessions.is_empty()
}

/// Why a reload can't begin it.
const NOT_READY: &str = "this run has given up the rights that mirroring in the kernel begins with: start again. One that \
                         begins with a [[mirror.target]] is ready for sessions that come with a reload";

impl Running {
    fn stop(self) -> Report {
        match self {
            Self::Thread(mirror) => mirror.stop(),
            #[cfg(feature = "ebpf")]
            Self::Kernel { mirror, drops } => {
                // What was dropped at last is sent while the health of targets is known.
                let drops = drops.map(LiveMirror::stop);
                with(mirror.finish(), drops)
            }
        }
    }
}

/// What the kernel has mirrored, and what was sent of what it dropped.
#[cfg(feature = "ebpf")]
fn with(mut kernel: Report, drops: Option<Report>) -> Report {
    if let Some(drops) = drops {
        kernel.merge(&drops);
    }
    kernel
}

fn complain_of_drops(why: &str) {
    tracing::warn!(
        why,
        "mirror rules with `verdict = \"rejected\"` take nothing in this run: packets can't be copied \
        where the kernel drops them"
    );
}

#[cfg(feature = "ebpf")]
mod kernel {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::plane::chain;
    use crate::capture::kernel::{Device, FlowPrograms};
    use crate::config::glob::Glob;
    use crate::mirror::executor::Health;
    use crate::mirror::health::{HealthChecks, carried_over};
    use crate::mirror::kernel::{KernelMirror, KernelMirrorError, MirrorSizes, Plan};
    use crate::mirror::live::Setup;
    use crate::mirror::report::Report;
    use crate::mirror::{Target, Vni};
    use crate::sys::interface;

    /// Mirroring in the kernel, with what user space does for it: interfaces that come and go, and the health of targets.
    pub(super) struct KernelMirrors {
        mirror: KernelMirror,
        watch: Vec<Glob>,
        targets: Vec<Target>,
        health: Health,
        /// What was told to the kernel of each target.
        told: Vec<bool>,
        checks: Option<HealthChecks>,
        /// The kernel's index, by name.
        attached: BTreeMap<String, u32>,
        /// The network identifier of each session that there is or was, by its number and interface.
        vnis: BTreeMap<(u16, String), Vni>,
    }

    impl KernelMirrors {
        /// Begins at the interfaces that are there; no target is checked yet.
        ///
        /// # Errors
        /// What the kernel lacks, or what it can't mirror.
        pub(super) fn new(setup: &Setup, programs: FlowPrograms) -> Result<Self, String> {
            let mut mirror = KernelMirror::new(plan(setup), &MirrorSizes::default()).map_err(|error| chain(&error))?;
            mirror.set_flow_programs(programs);
            let mut this = Self {
                mirror,
                watch: setup.watch.clone(),
                targets: setup.mirror.targets().to_vec(),
                health: Health::new(setup.mirror.targets().len()),
                told: vec![true; setup.mirror.targets().len()],
                checks: None,
                attached: BTreeMap::new(),
                vnis: BTreeMap::new(),
            };
            this.know_vnis(setup);
            this.tend();
            Ok(this)
        }

        /// Begins to check targets, by threads of this one's rights.
        ///
        /// # Errors
        /// When a thread can't be had.
        pub(super) fn check(&mut self, setup: &Setup) -> Result<(), String> {
            let checks = HealthChecks::start(setup.mirror.targets(), &self.health);
            self.checks = Some(checks.map_err(|error| error.to_string())?);
            Ok(())
        }

        /// The health of targets, as it is found out.
        pub(super) fn health(&self) -> Health {
            self.health.clone()
        }

        /// The health of another configuration's targets, as far as it is known: of those that stay.
        pub(super) fn health_of(&self, setup: &Setup) -> Health {
            carried_over(&self.targets, &self.health, setup.mirror.targets())
        }

        /// Goes over to another configuration, whose targets have this `health`: see [`Self::health_of`].
        ///
        /// # Errors
        /// As for [`Self::new`]; then what was goes on.
        pub(super) fn replace(&mut self, setup: Setup, health: Health) -> Result<(), String> {
            let checks = HealthChecks::start(setup.mirror.targets(), &health).map_err(|error| error.to_string())?;
            // The kernel keeps what it was told of targets that stay. What is not so now, it is told next.
            let told = self.mirror.health_of(&setup.mirror);
            self.mirror.replace(plan(&setup)).map_err(|error| chain(&error))?;
            self.know_vnis(&setup);
            (self.targets, self.told) = (setup.mirror.targets().to_vec(), told);
            (self.health, self.checks, self.watch) = (health, Some(checks), setup.watch);
            self.tend();
            Ok(())
        }

        /// Follows interfaces, health, routes and tunnel devices.
        pub(super) fn tend(&mut self) {
            self.scan();
            for (target, told) in (0..).zip(&mut self.told) {
                let is_healthy = self.health.is_healthy(target);
                if *told != is_healthy {
                    *told = is_healthy;
                    complain(self.mirror.set_health(target, is_healthy));
                }
            }
            match self.mirror.tend() {
                Ok(notices) => notices.iter().for_each(|notice| {
                    if notice.is_good() {
                        tracing::info!("{notice}");
                    } else {
                        tracing::warn!("{notice}");
                    }
                }),
                Err(error) => complain(Err(error)),
            }
        }

        /// What became of mirrored packets so far.
        pub(super) fn report(&self) -> Report {
            let counters = self.mirror.counters().unwrap_or_else(|error| {
                complain(Err(error));
                Default::default()
            });
            Report::of_kernel(&counters, &self.vnis)
        }

        /// Ends, and says what became of all mirrored packets.
        pub(super) fn finish(self) -> Report {
            let Self { mirror, vnis, .. } = self;
            let counters = mirror.finish().unwrap_or_else(|error| {
                complain(Err(error));
                Default::default()
            });
            Report::of_kernel(&counters, &vnis)
        }

        fn know_vnis(&mut self, setup: &Setup) {
            let sessions = setup.mirror.sessions().iter();
            let names = sessions.map(|session| (session.number.number(), session.interface.as_str().to_owned()));
            self.vnis.extend(names.zip(setup.vnis.iter().copied()));
        }

        fn scan(&mut self) {
            let is_wanted = |name: &str| self.watch.iter().any(|pattern| pattern.matches(name));
            let Ok(wanted) = interface::present(is_wanted) else { return };
            let Self { mirror, attached, .. } = self;
            attached.retain(|name, index| {
                let stays = wanted.get(name) == Some(index);
                if !stays {
                    complain(mirror.detach(*index).map(drop));
                }
                stays
            });
            for (name, index) in wanted {
                if attached.contains_key(&name) {
                    continue;
                }
                let device = match Device::find(&name) {
                    Ok(device) => device,
                    Err(error) => {
                        tracing::debug!(interface = name, %error, "can't be mirrored");
                        continue;
                    }
                };
                match mirror.attach(&device) {
                    Ok(()) => {
                        tracing::info!(interface = name, "mirrored, as far as sessions say");
                        attached.insert(name, index);
                    }
                    Err(error) => complain(Err(error)),
                }
            }
        }
    }

    fn plan(setup: &Setup) -> Plan {
        let describe = Arc::clone(&setup.describe);
        // The addresses of services have nothing to do with the MTU.
        let classifier = move |name: &str| describe(name, 0).map(|tapped| tapped.classifier).unwrap_or_default();
        Plan { mirror: setup.mirror.clone(), vnis: setup.vnis.clone(), classifier: Arc::new(classifier) }
    }

    fn complain(outcome: Result<(), KernelMirrorError>) {
        if let Err(error) = outcome {
            tracing::warn!(error = chain(&error), "mirroring in the kernel");
        }
    }
}
