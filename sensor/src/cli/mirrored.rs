//! What `replay` mirrors: its options, the executor they ask for, and the account of it in the end.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use clap::Args;
use flowtap::capture::{Interfaces, Source};
use flowtap::classify::{Classifier, LocalNetworks};
use flowtap::config::{CapturePlane, Settings};
use flowtap::mirror::counters::SessionCounts;
use flowtap::mirror::executor::{Health, Rates, Tapped, Unasked};
use flowtap::mirror::live::{Describe, Setup};
use flowtap::mirror::path_size::too_small;
use flowtap::mirror::pcap_outlet::PcapOutlet;
use flowtap::mirror::report::Report;
use flowtap::mirror::sender::{NetworkOutlet, Senders, WhenFull};
use flowtap::mirror::socket::TargetSocket;
use flowtap::mirror::{Decider, Executor, Mirror, Mirrored, Outlet, Pace, Vni};

use super::{clock, complain, output};

/// Options about mirroring, of a replay.
#[derive(Debug, Clone, Args)]
pub(super) struct MirroredArgs {
    /// Send what the configuration's mirror sessions take to their targets
    #[arg(long, requires = "config", conflicts_with = "mirror_to", help_heading = MIRRORING)]
    mirror: bool,

    /// Write what mirror sessions take to a pcap file, encapsulated as their targets would get it
    #[arg(long, value_name = "FILE", requires = "config", help_heading = MIRRORING)]
    mirror_to: Option<PathBuf>,

    /// Pace of sending: 1x as captured, 10x, or max [default: 1x]
    #[arg(long, value_name = "SPEED", requires = "mirror", help_heading = MIRRORING)]
    speed: Option<Speed>,

    /// MTU of the captured wire: a longer TCP packet is a super-packet of an offload, and is cut to fit it
    #[arg(long, value_name = "BYTES", default_value_t = WIRE_MTU_DEFAULT, value_parser = clap::value_parser!(u32).range(576..=65_535), help_heading = MIRRORING)]
    wire_mtu: u32,

    /// The longest outer IP packet that --mirror-to writes; longer ones are fragmented, or skipped where the session says so
    /// [default: no limit]
    #[arg(long, value_name = "BYTES", requires = "mirror_to", value_parser = clap::value_parser!(u32).range(576..=65_535), help_heading = MIRRORING)]
    path_mtu: Option<u32>,
}

const MIRRORING: &str = "Mirroring";
const WIRE_MTU_DEFAULT: u32 = 1500;

/// How fast a capture is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speed {
    /// So many times as fast as it was captured.
    Times(u32),
    /// As fast as it can be read and sent.
    Max,
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let times = text.strip_suffix('x').and_then(|times| times.parse().ok()).filter(|times| *times > 0);
        match (text, times) {
            ("max", _) => Ok(Self::Max),
            (_, Some(times)) => Ok(Self::Times(times)),
            (_, None) => Err("write it like `1x`, `10x` or `max`".to_owned()),
        }
    }
}

/// Mirroring that goes on beside a replay.
pub(super) struct Mirroring {
    mirror: Mirror,
    vnis: Vec<Vni>,
    way: Way,
}

enum Way {
    File { executor: Arc<Mutex<Executor<PcapOutlet>>>, file: Whole },
    Network { executor: Arc<Mutex<Executor<NetworkOutlet>>>, senders: Senders },
}

impl MirroredArgs {
    /// Puts mirroring, if it was asked for, between `source` and whoever reads it.
    ///
    /// # Errors
    /// When there is no session, the file is there already, or a target can't be reached.
    pub(super) fn wrap(
        &self,
        settings: &Settings,
        interfaces: &Interfaces,
        source: Box<dyn Source>,
    ) -> anyhow::Result<(Box<dyn Source>, Option<Mirroring>)> {
        if !self.mirror && self.mirror_to.is_none() {
            return Ok((source, None));
        }
        let mirror = settings.mirror.clone();
        if mirror.sessions().is_empty() {
            bail!("nothing to mirror: the configuration has no [[mirror.session]]");
        }
        if let Some(rule) = mirror.drop_rule() {
            bail!("{rule}, and a capture doesn't show what the kernel drops: a replay can't mirror that");
        }
        // A replay gives the same answer on every host, so no host's identity is in it.
        let vnis = mirror.vnis("replay");
        let of_session = mirror.sessions().iter().zip(&vnis);
        for (session, vni) in of_session.filter(|(session, _)| session.vni.is_none()) {
            let number = session.number;
            complain(&format!(
                "mirror session {number}: replays on every host have VNI {vni}, a run derives another; `vni` sets both"
            ));
        }
        let describe = self.describe(settings, interfaces);
        let health = Health::new(mirror.targets().len());
        let (source, way): (Box<dyn Source>, _) = if let Some(path) = &self.mirror_to {
            let (file, writer) = Whole::create(path, settings.output.overwrite)?;
            let path_mtu = self.path_mtu.map_or(usize::MAX, |mtu| mtu as usize);
            let outlet = PcapOutlet::new(writer, mirror.targets(), path_mtu)?;
            let executor = Executor::new(&mirror, &vnis, Rates::Ignored, health, describe, outlet);
            let executor = Arc::new(Mutex::new(executor));
            (Box::new(Mirrored::new(source, Arc::clone(&executor), None)), Way::File { executor, file })
        } else {
            mirror.check_host(&super::mirror::host_addresses()?)?;
            let sockets = open_targets(&mirror, self.wire_mtu)?;
            let senders = Senders::start(mirror.targets(), sockets, mirror.sessions().len())?;
            let outlet = senders.outlet(WhenFull::Wait);
            let executor = Executor::new(&mirror, &vnis, Rates::Ignored, health, describe, outlet);
            let executor = Arc::new(Mutex::new(executor));
            let pace = match self.speed.unwrap_or(Speed::Times(1)) {
                Speed::Times(times) => Some(Pace::new(Arc::new(clock::wall), times)),
                Speed::Max => None,
            };
            (Box::new(Mirrored::new(source, Arc::clone(&executor), pace)), Way::Network { executor, senders })
        };
        Ok((source, Some(Mirroring { mirror, vnis, way })))
    }

    fn describe(&self, settings: &Settings, interfaces: &Interfaces) -> Box<dyn FnMut(u16) -> Option<Tapped> + Send> {
        let (settings, interfaces, mtu) = (settings.clone(), interfaces.clone(), self.wire_mtu as usize);
        Box::new(move |index| tapped(&settings, &interfaces.get(index)?.name, mtu))
    }
}

/// What the rules must know of an interface; `None` where no session applies.
fn tapped(settings: &Settings, name: &str, mtu: usize) -> Option<Tapped> {
    // The configuration's check has seen to it that every name has its tables.
    let decider = Decider::new(&settings.mirror, name).ok().filter(|decider| !decider.is_idle())?;
    let known = settings.interface(name);
    let classifier = Classifier::new(&known.vpc_cidrs, &known.subnet_cidrs);
    Some(Tapped { decider, classifier, local: LocalNetworks::new(&known.local), mtu })
}

/// What a live run mirrors; `None` if it is nothing. With a target but without sessions it is made ready, so that a reload
/// can begin.
///
/// # Errors
/// When a target is this host.
pub(super) fn live(settings: &Settings) -> anyhow::Result<Option<Setup>> {
    let mirror = settings.mirror.clone();
    if mirror.sessions().is_empty() {
        return Ok((!mirror.targets().is_empty()).then(Setup::nothing));
    }
    mirror.check_host(&super::mirror::host_addresses()?)?;
    check_plane(settings)?;
    let vnis = mirror.vnis(&HostIdentity::read().text);
    let (watch, settings) = (settings.live.watch.clone(), settings.clone());
    let describe: Describe = Arc::new(move |name: &str, mtu| tapped(&settings, name, mtu));
    Ok(Some(Setup { mirror, vnis, watch, describe }))
}

/// Refuses rules for what the kernel drops where the kernel plane, or every reason for a drop, is not wanted.
///
/// # Errors
/// The first such rule.
pub(super) fn check_plane(settings: &Settings) -> anyhow::Result<()> {
    match settings.mirror.drop_rule() {
        Some(rule) if settings.live.capture == CapturePlane::Pcap => {
            bail!("{rule}, which needs the kernel plane: `capture = \"pcap\"` doesn't see what the kernel drops")
        }
        Some(rule) if settings.live.kernel.drop_reasons().is_empty() => {
            bail!("{rule}, and `drop-reasons` names no reason: it would take nothing")
        }
        _ => Ok(()),
    }
}

/// What tells this host from others, after every start the same.
pub(super) struct HostIdentity {
    pub(super) text: String,
    /// Where it was found.
    pub(super) from: &'static str,
}

impl HostIdentity {
    /// The machine id, else the host's name.
    pub(super) fn read() -> Self {
        let read = |from| {
            let text = fs::read_to_string(from).ok()?.trim().to_owned();
            (!text.is_empty()).then_some(Self { text, from })
        };
        let name = || read(HOST_NAME).unwrap_or(Self { text: String::new(), from: HOST_NAME });
        read(MACHINE_ID).unwrap_or_else(name)
    }
}

const MACHINE_ID: &str = "/etc/machine-id";
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Opens the ways to all targets, and says loudly where full frames will not fit.
fn open_targets(mirror: &Mirror, wire_mtu: u32) -> anyhow::Result<Vec<TargetSocket>> {
    let open = |target: &flowtap::mirror::Target| {
        TargetSocket::open(target).with_context(|| format!("mirror target `{}`", target.name))
    };
    let sockets = mirror.targets().iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    // Which interfaces a capture has is known when it is read: sessions say which they mean.
    let interfaces = mirror.sessions().iter().map(|session| (session.interface.as_str().to_owned(), wire_mtu));
    let paths: Vec<_> = sockets.iter().map(|socket| u32::try_from(socket.path_mtu()).ok()).collect();
    for path in too_small(mirror, &interfaces.collect::<Vec<_>>(), &paths) {
        complain(&path.to_string());
    }
    Ok(sockets)
}

impl Mirroring {
    /// Sends or writes what is left, and tells what became of everything. The source must be gone.
    ///
    /// # Errors
    /// When the file can't be written whole.
    pub(super) fn finish(self) -> anyhow::Result<Report> {
        let (counts, unasked) = match self.way {
            Way::File { executor, file } => {
                let (counts, unasked, outlet) = take_apart(executor)?;
                outlet.finish().with_context(|| file.path.display().to_string())?;
                file.publish()?;
                (counts, unasked)
            }
            Way::Network { executor, senders } => {
                let (mut counts, unasked, outlet) = take_apart(executor)?;
                drop(outlet);
                let sent = senders.finish();
                let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
                counts.iter_mut().zip(sent.iter()).for_each(|(ours, theirs)| ours.merge(theirs));
                (counts, unasked)
            }
        };
        Ok(Report::new(&self.mirror, &self.vnis, &counts, unasked))
    }
}

/// Says loudly that nothing was mirrored for want of directions, and what to do.
pub(super) fn complain_if_undirected(report: &Report) {
    let undirected = report.unasked.undirected;
    let matched = report.sessions.iter().any(|session| session.counts.total().matched.packets > 0);
    if undirected > 0 && !matched {
        complain(&format!(
            "nothing was mirrored: rules are for a direction, and that of {undirected} packets is not known. Say what is on \
             the interface's own side with --local, as in `--local 10.0.1.0/24`, or with `local` in [[interface]]"
        ));
    }
}

fn take_apart<O: Outlet>(executor: Arc<Mutex<Executor<O>>>) -> anyhow::Result<(Vec<SessionCounts>, Unasked, O)> {
    let executor = Arc::into_inner(executor).context("the capture is still being read")?;
    let executor = executor.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((executor.counts(), executor.unasked(), executor.into_outlet()))
}

/// A file that appears under its name only when it is whole; a pipe or a device is written as it is.
struct Whole {
    path: PathBuf,
    /// Where it is until then.
    partial: Option<PathBuf>,
    overwrite: bool,
}

impl Whole {
    fn create(path: &Path, overwrite: bool) -> anyhow::Result<(Self, Box<dyn Write + Send>)> {
        let named = || path.display().to_string();
        if output::is_stream(path) {
            let stream = OpenOptions::new().write(true).open(path).with_context(named)?;
            let file = Self { path: path.to_owned(), partial: None, overwrite };
            return Ok((file, Box::new(BufWriter::with_capacity(WRITE_BYTES, stream))));
        }
        if path.exists() && !overwrite {
            bail!("{}: exists; --overwrite replaces it", path.display());
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".{}.part", std::process::id()));
        let partial = PathBuf::from(partial);
        let writer = File::create_new(&partial).with_context(named)?;
        let file = Self { path: path.to_owned(), partial: Some(partial), overwrite };
        Ok((file, Box::new(BufWriter::with_capacity(WRITE_BYTES, writer))))
    }

    fn publish(mut self) -> anyhow::Result<()> {
        if let Some(partial) = self.partial.take() {
            let named = || self.path.display().to_string();
            if self.overwrite {
                return fs::rename(partial, &self.path).with_context(named);
            }
            // A link, unlike a renaming, never replaces what has come meanwhile.
            let linked = fs::hard_link(&partial, &self.path).with_context(named);
            fs::remove_file(&partial).ok();
            linked?;
        }
        Ok(())
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            fs::remove_file(partial).ok();
        }
    }
}

/// How much is written at once.
const WRITE_BYTES: usize = 256 * 1024;
