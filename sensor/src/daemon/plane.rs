//! Who counts: the packet plane or the kernel plane, behind what the watcher needs of either.

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::thread::CapabilitySet;

use super::DaemonError;
use super::latencies::Latencies;
use super::mirrors::{Drops, InKernel};
use crate::capture::live::{Command, LiveSource, Tap, TapOptions};
use crate::capture::{DropReasons, Filter, Interfaces, Roster, Source};
use crate::config::{CapturePlane, KernelSettings};
use crate::feed::Clock;
use crate::time::Rhythm;

/// Watches interfaces for the sources of one run.
pub(super) trait Plane {
    /// Watches the interface called `name`, which has the index `interface` here. The answer names this watching.
    ///
    /// # Errors
    /// Why it can't be watched, for the log.
    fn attach(&mut self, name: &str, interface: u16) -> Result<Watching, String>;

    /// Lets go of an interface. What was counted of it is kept.
    fn detach(&mut self, watching: Watching);

    /// The watchings that ended by themselves since the last call.
    fn ended(&mut self) -> Vec<Watching>;

    /// Goes over to other options, and selects by another filter.
    fn change(&mut self, options: &TapOptions, filter: Option<&str>);

    /// Intervals are these from their beginning on.
    fn change_rhythm(&mut self, rhythm: Rhythm);

    /// Tells the sources to hand out what is left, and to end.
    fn stop(&mut self);
}

/// What a plane is made from.
#[cfg_attr(not(feature = "ebpf"), expect(dead_code, reason = "some of it is for the kernel plane alone"))]
pub(super) struct Parts<'a> {
    pub(super) interfaces: &'a Interfaces,
    pub(super) roster: &'a Roster,
    pub(super) drop_reasons: &'a DropReasons,
    /// Learns how long each drain of the kernel took.
    pub(super) drain_time: &'a Latencies,
    pub(super) clock: &'a Clock,
    pub(super) interval_secs: u32,
    /// How many sources the packet plane has.
    pub(super) workers: usize,
    pub(super) tap: TapOptions,
    /// Whether copies of what the kernel drops are asked for.
    pub(super) copies_drops: bool,
}

/// A plane, ready to watch.
pub(super) struct Chosen {
    pub(super) plane: Box<dyn Plane>,
    /// One for each worker.
    pub(super) sources: Vec<Box<dyn Source>>,
    /// What it needs to watch further interfaces.
    pub(super) rights: CapabilitySet,
    pub(super) told: Told,
    /// Whether the kernel shall mirror.
    pub(super) in_kernel: InKernel,
    /// Copies of what the kernel drops.
    pub(super) drops: Drops,
}

/// What is told of the plane in log and status.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// The packet plane, and why not the other, where that is worth a word.
    Packet { why: Option<String> },
    /// The kernel plane.
    #[cfg(feature = "ebpf")]
    Kernel {
        /// How drops are told, or why they are not.
        verdicts: Result<&'static str, String>,
        /// How the turns go.
        turns: crate::capture::kernel::Turns,
        /// How programs are attached to interfaces.
        attachment: &'static str,
        /// About how much kernel memory the maps take.
        memory_bytes: u64,
    },
}

impl Told {
    pub(super) fn is_kernel(&self) -> bool {
        !matches!(self, Self::Packet { .. })
    }
}

/// Makes the plane that the configuration asks for. Where that is left to us, the kernel plane if it can be had.
///
/// # Errors
/// The kernel plane is asked for, and can't be had.
pub(super) fn choose(
    capture: CapturePlane,
    settings: &KernelSettings,
    packets_only: Option<&str>,
    parts: &Parts<'_>,
) -> Result<Chosen, DaemonError> {
    let why = match (capture, packets_only) {
        (CapturePlane::Pcap, _) => None,
        (CapturePlane::Ebpf, Some(why)) => return Err(DaemonError::Kernel(format!("{why}: that it can't do"))),
        (CapturePlane::Auto, Some(why)) => Some(why.to_owned()),
        (CapturePlane::Auto | CapturePlane::Ebpf, None) => match kernel_plane(capture, settings, parts) {
            Ok(chosen) => return Ok(chosen),
            Err(cause) if capture == CapturePlane::Ebpf => return Err(DaemonError::Kernel(cause)),
            Err(cause) => Some(cause),
        },
    };
    match &why {
        Some(why) => tracing::warn!(why, "capture: libpcap. {PACKET_PLANE_SEES}"),
        None => tracing::info!("capture: libpcap. {PACKET_PLANE_SEES}"),
    }
    let drops = if parts.copies_drops {
        let cause = why.as_deref().unwrap_or("`capture = \"pcap\"`");
        Drops::Impossible { why: format!("that needs the kernel plane, and this run has none ({cause})") }
    } else {
        Drops::NotAsked
    };
    let (plane, sources) = PacketPlane::new(parts.workers, parts.tap.clone(), parts.roster, parts.clock);
    Ok(Chosen {
        plane: Box::new(plane),
        sources,
        rights: CapabilitySet::NET_RAW,
        told: Told::Packet { why },
        in_kernel: InKernel::No,
        drops,
    })
}

/// What an operator should know of the packet plane.
const PACKET_PLANE_SEES: &str =
    "It sees super-packets of segmentation offloads as one packet each, and nothing of the kernel's verdicts";

#[cfg(not(feature = "ebpf"))]
fn kernel_plane(_capture: CapturePlane, _settings: &KernelSettings, _parts: &Parts<'_>) -> Result<Chosen, String> {
    Err("this build has no kernel plane (feature `ebpf`)".to_owned())
}

#[cfg(feature = "ebpf")]
fn kernel_plane(capture: CapturePlane, settings: &KernelSettings, parts: &Parts<'_>) -> Result<Chosen, String> {
    let (mut plane, sources) = KernelPlane::new(settings, parts).map_err(|error| chain(&error))?;
    let drops = if parts.copies_drops { plane.drops() } else { Drops::NotAsked };
    let (told, in_kernel) = (plane.told(), plane.mirrors(capture));
    if let Told::Kernel { verdicts, memory_bytes, attachment, .. } = &told {
        let megabytes = memory_bytes.div_ceil(1_000_000);
        match verdicts {
            Ok(verdicts) => {
                tracing::info!(
                    attachment,
                    verdicts,
                    megabytes,
                    "capture: the kernel counts; its maps take this memory"
                );
            }
            Err(why) => {
                tracing::warn!(
                    attachment,
                    why,
                    megabytes,
                    "capture: the kernel counts, but doesn't tell its drops: no REJECT"
                );
            }
        }
    }
    Ok(Chosen { plane: Box::new(plane), sources, rights: kernel::RIGHTS, told, in_kernel, drops })
}

/// One watching of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watching(pub(super) u64);

/// The packet plane: taps of libpcap, shared out among the workers' sources.
pub(super) struct PacketPlane {
    options: TapOptions,
    /// One for each worker's source, with how many taps it has.
    sources: Vec<(Sender<Command>, usize)>,
    /// Serials of taps that closed by themselves.
    lost: Receiver<u64>,
    /// Which source has which tap.
    taps: Vec<(Watching, usize)>,
    next_serial: u64,
}

impl PacketPlane {
    /// The plane, and a source for each of so many workers.
    pub(super) fn new(
        workers: usize,
        options: TapOptions,
        roster: &Roster,
        clock: &Clock,
    ) -> (Self, Vec<Box<dyn Source>>) {
        let (lost_sender, lost) = unbounded();
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        let mut senders = Vec::new();
        for _ in 0..workers {
            let (sender, receiver) = unbounded();
            sources.push(Box::new(LiveSource::new(receiver, lost_sender.clone(), roster.clone(), clock.clone())));
            senders.push((sender, 0));
        }
        (Self { options, sources: senders, lost, taps: Vec::new(), next_serial: 0 }, sources)
    }
}

impl Plane for PacketPlane {
    fn attach(&mut self, name: &str, interface: u16) -> Result<Watching, String> {
        let serial = self.next_serial;
        let opened = Tap::open(serial, interface, name, &self.options).map_err(|error| error.to_string())?;
        self.next_serial += 1;
        for tap in opened {
            // The source that has the fewest.
            let fewest = self.sources.iter_mut().enumerate().min_by_key(|(_, (_, taps))| *taps);
            if let Some((number, (source, taps))) = fewest {
                source.send(Command::Attach(tap)).ok();
                *taps += 1;
                self.taps.push((Watching(serial), number));
            }
        }
        Ok(Watching(serial))
    }

    fn detach(&mut self, watching: Watching) {
        let mut told = Vec::new();
        for (_, number) in self.taps.extract_if(.., |(tap, _)| *tap == watching) {
            let Some((source, taps)) = self.sources.get_mut(number) else { continue };
            *taps -= 1;
            // One that has several of them lets go of all.
            if !told.contains(&number) {
                source.send(Command::Detach(watching.0)).ok();
                told.push(number);
            }
        }
    }

    fn ended(&mut self) -> Vec<Watching> {
        self.lost.try_iter().map(Watching).collect()
    }

    /// Each source has a filter of its own: it remembers what it has compiled.
    fn change(&mut self, options: &TapOptions, filter: Option<&str>) {
        self.options = options.clone();
        for (source, _) in &self.sources {
            let filter = filter.and_then(|expression| Filter::new(expression).ok());
            source.send(Command::Select(filter.map(Box::new))).ok();
        }
    }

    /// Packets bring their own time.
    fn change_rhythm(&mut self, _rhythm: Rhythm) {}

    fn stop(&mut self) {
        for (source, _) in &self.sources {
            source.send(Command::Stop).ok();
        }
    }
}

#[cfg(feature = "ebpf")]
use kernel::KernelPlane;
#[cfg(feature = "ebpf")]
pub(super) use kernel::chain;

#[cfg(feature = "ebpf")]
mod kernel {
    use std::collections::{BTreeMap, HashMap};
    use std::io;

    use crossbeam_channel::{Sender, unbounded};

    use rustix::thread::CapabilitySet;

    use super::{CapturePlane, Drops, InKernel, Parts, Plane, Told, Watching};
    use crate::capture::Source;
    use crate::capture::kernel::{
        Attachment, Device, Devices, FlowPrograms, KernelSource, LoadError, Order, TapError, Taps, Telling, Turns,
        VerdictSource, Watched, load,
    };
    use crate::capture::live::TapOptions;
    use crate::config::KernelSettings;
    use crate::time::Rhythm;

    /// The kernel plane: programs at the interfaces, and one source that takes out what they count.
    pub(in crate::daemon) struct KernelPlane {
        taps: Taps,
        programs: FlowPrograms,
        source: Sender<Order>,
        /// How drops are told, or why they are not.
        verdicts: Result<VerdictSource, TapError>,
        turns: Turns,
        memory_bytes: u64,
    }

    /// Attaching programs that are loaded, and nothing else.
    pub(in crate::daemon) const RIGHTS: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::BPF);

    /// Why there is no kernel plane.
    #[derive(Debug, thiserror::Error)]
    pub(in crate::daemon) enum KernelPlaneError {
        /// The kernel lacks something, or the rights are missing.
        #[error(transparent)]
        Load(#[from] LoadError),
        /// The kernel refuses a program.
        #[error(transparent)]
        Tap(#[from] TapError),
        /// A drop reason that the running kernel doesn't have.
        #[error("the running kernel has no drop reason `{name}`")]
        DropReason {
            /// As configured.
            name: String,
        },
        /// The kernel refuses a clock or a map.
        #[error("the kernel plane can't begin: {0}")]
        Begin(#[from] io::Error),
    }

    impl KernelPlane {
        /// Loads everything, so that attaching needs as few rights as can be, and begins to count drops.
        ///
        /// # Errors
        /// What the kernel lacks, or the rights, or the configuration.
        pub(in crate::daemon) fn new(
            settings: &KernelSettings,
            parts: &Parts<'_>,
        ) -> Result<(Self, Vec<Box<dyn Source>>), KernelPlaneError> {
            let sizes = settings.sizes(parts.copies_drops);
            let (mut taps, drain) = load(&sizes)?;
            let wanted = wanted(&taps, settings)?;
            taps.want(&wanted.keys().copied().collect::<Vec<_>>())?;
            let programs = taps.load_programs()?;
            let verdicts = taps.attach_verdicts();
            let reasons: HashMap<_, _> =
                wanted.iter().map(|(number, name)| (*number, parts.drop_reasons.intern(name))).collect();
            let (source, orders) = unbounded();
            let turns = Turns::default();
            let drain_time = parts.drain_time.clone();
            let watched =
                Watched { devices: Devices::new(parts.interfaces.clone(), reasons), roster: parts.roster.clone() };
            let telling = Telling { turns: turns.clone(), drained: Box::new(move |took| drain_time.record(took)) };
            let kernel = KernelSource::new(drain, watched, orders, parts.interval_secs, telling)?;
            let memory_bytes = sizes.memory_bytes();
            Ok((Self { taps, programs, source, verdicts, turns, memory_bytes }, vec![Box::new(kernel)]))
        }

        /// Copies of what the kernel drops, once.
        pub(in crate::daemon) fn drops(&mut self) -> Drops {
            let copies = match &self.verdicts {
                Ok(_) => self.taps.take_copies().map_err(|error| chain(&error)),
                Err(error) => Err(chain(error)),
            };
            match copies {
                Ok(copies) => Drops::Copied(Box::new(copies)),
                Err(why) => Drops::Impossible { why: format!("the kernel doesn't tell its drops: {why}") },
            }
        }

        /// How the kernel mirrors, where this capture was asked for.
        pub(in crate::daemon) fn mirrors(&self, capture: CapturePlane) -> InKernel {
            match capture {
                CapturePlane::Ebpf => InKernel::Required(self.programs.clone()),
                CapturePlane::Auto | CapturePlane::Pcap => InKernel::IfPossible(self.programs.clone()),
            }
        }

        pub(in crate::daemon) fn told(&self) -> Told {
            let verdicts = match &self.verdicts {
                Ok(VerdictSource::TypedTracepoint) => Ok("tp_btf/kfree_skb"),
                Ok(VerdictSource::RawTracepoint) => Ok("raw_tp/kfree_skb"),
                Err(error) => Err(chain(error)),
            };
            let attachment = match self.taps.attachment() {
                Attachment::Tcx => "tcx",
                Attachment::Clsact => "clsact",
            };
            Told::Kernel { verdicts, turns: self.turns.clone(), attachment, memory_bytes: self.memory_bytes }
        }

        /// Sends an order to the source. One that has ended needs no orders.
        fn order(&self, order: Order) {
            self.source.send(order).ok();
        }
    }

    /// The drop reasons that make REJECT rows, by their number in the running kernel. Of those that are ours by default
    /// the kernel may lack some.
    fn wanted(taps: &Taps, settings: &KernelSettings) -> Result<BTreeMap<u32, String>, KernelPlaneError> {
        let mut wanted = BTreeMap::new();
        for name in settings.drop_reasons() {
            match taps.reasons().number(name) {
                Some(number) => {
                    wanted.insert(number, name.to_owned());
                }
                None if settings.names_drop_reasons() => {
                    return Err(KernelPlaneError::DropReason { name: name.to_owned() });
                }
                None => {}
            }
        }
        Ok(wanted)
    }

    impl Plane for KernelPlane {
        fn attach(&mut self, name: &str, interface: u16) -> Result<Watching, String> {
            let device = Device::find(name).map_err(|error| error.to_string())?;
            // Before anything is counted, so that the source knows whose it is.
            self.order(Order::Attach { device: device.index, interface, name: name.to_owned() });
            match self.taps.attach(&device) {
                Ok(()) => Ok(Watching(device.index.into())),
                Err(error) => {
                    self.order(Order::Detach { device: device.index });
                    Err(chain(&error))
                }
            }
        }

        fn detach(&mut self, watching: Watching) {
            if let Ok(device) = u32::try_from(watching.0) {
                self.taps.detach(device);
                self.order(Order::Detach { device });
            }
        }

        /// Programs stay until their device goes, which the list of interfaces shows.
        fn ended(&mut self) -> Vec<Watching> {
            Vec::new()
        }

        /// There are no buffers, and no filter: a configuration with one is not for this plane.
        fn change(&mut self, _options: &TapOptions, _filter: Option<&str>) {}

        fn change_rhythm(&mut self, rhythm: Rhythm) {
            self.order(Order::Rhythm(rhythm));
        }

        fn stop(&mut self) {
            self.order(Order::Stop);
        }
    }

    pub(in crate::daemon) use crate::capture::kernel::chain;
}
