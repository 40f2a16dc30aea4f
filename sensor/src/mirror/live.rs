//! Mirroring beside a live run by a thread of its own: it taps the interfaces of sessions where the kernel does not make
//! the copies, and takes copies of what the kernel drops where there are any (`live/drops.rs`).
//!
//! Its packet sockets are not those that count flows: whatever happens here, flows are counted as without it. They see
//! whole frames in the order of the kernel, both directions in one, with what was left to the card. Our own copies, which
//! bear a mark, are turned away by a filter before anything is copied.

mod drops;
mod taps;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use nix::net::if_::if_indextoname;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::executor::{Health, Rates, Tapped};
use super::health::HealthChecks;
use super::report::Report;
use super::sender::{NetworkOutlet, Senders, WhenFull};
use super::socket::TargetSocket;
use super::{Executor, Mirror, Vni};
use crate::capture::dropped::DropSource;
use crate::config::glob::Glob;
use crate::feed::Clock;
use crate::time::{NANOS_PER_SEC, Timestamp};
use drops::Drops;
use taps::Taps;
pub use taps::{BUFFER_BYTES as TAP_BUFFER_BYTES, TAPS_MAX};

/// What to mirror, and how interfaces are known.
#[derive(Clone)]
pub struct Setup {
    /// The sessions.
    pub mirror: Mirror,
    /// Their network identifiers.
    pub vnis: Vec<Vni>,
    /// Which interfaces are watched: no others are tapped.
    pub watch: Vec<Glob>,
    /// What the rules must know of an interface, by its name and its MTU; `None` where no session applies.
    pub describe: Describe,
}

impl Setup {
    /// No session: nothing is mirrored, and a reload may begin it.
    pub fn nothing() -> Self {
        Self { mirror: Mirror::default(), vnis: Vec::new(), watch: Vec::new(), describe: Arc::new(|_, _| None) }
    }
}

/// See [`Setup::describe`].
pub type Describe = Arc<dyn Fn(&str, usize) -> Option<Tapped> + Send + Sync>;

/// What the thread sees.
pub struct Sight {
    /// Whether it taps interfaces; if not, the kernel makes copies of what passes.
    pub taps: bool,
    /// Where copies of what the kernel drops come from.
    pub drops: Option<Box<dyn DropSource>>,
}

/// A configuration that is ready to be gone over to.
pub struct Ready(Box<Works>);

/// Mirroring that goes on.
pub struct LiveMirror {
    commands: Sender<Command>,
    report: Arc<Mutex<Report>>,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    Replace(Box<Works>),
    Stop,
}

impl LiveMirror {
    /// Opens the ways to the targets and the interfaces that are there, and begins. Call it with the right to open raw
    /// and packet sockets; the thread keeps what rights the caller has. Targets are checked here, if nobody else has their
    /// `health`.
    ///
    /// # Errors
    /// When the rights are missing, or there is no route to a target.
    pub fn start(setup: Setup, sight: Sight, health: Option<Health>, clock: Clock) -> io::Result<Self> {
        let Ready(works) = Self::prepare(setup, health, clock())?;
        let (commands, received) = unbounded();
        let report = Arc::new(Mutex::new(works.report()));
        let shared = Arc::clone(&report);
        let thread = thread::Builder::new()
            .name("mirror".to_owned())
            .spawn(move || run(works, sight, &clock, &received, &shared))?;
        Ok(Self { commands, report, thread: Some(thread) })
    }

    /// Makes ready for another configuration; nothing changes yet.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn prepare(setup: Setup, health: Option<Health>, now: Timestamp) -> io::Result<Ready> {
        Works::new(setup, health, now).map(Box::new).map(Ready)
    }

    /// Goes over to another configuration, between two frames. What does not change goes on being tapped; what the
    /// earlier sessions have queued is sent.
    pub fn go_over(&self, ready: Ready) {
        // The thread is gone only if it has panicked, which its report shows.
        self.commands.send(Command::Replace(ready.0)).ok();
    }

    /// What became of everything so far.
    pub fn report(&self) -> Report {
        lock(&self.report).clone()
    }

    /// Sends what is queued, and ends.
    pub fn stop(mut self) -> Report {
        self.commands.send(Command::Stop).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        self.report()
    }
}

/// The parts of a running configuration.
struct Works {
    executor: Executor<NetworkOutlet>,
    senders: Senders,
    _checks: Option<HealthChecks>,
    mirror: Mirror,
    vnis: Vec<Vni>,
    watch: Vec<Glob>,
    describe: Describe,
    names: Names,
}

/// The names of interfaces by our index of them, shared with the executor's question for what it must know of them.
type Names = Arc<Mutex<Vec<String>>>;

impl Works {
    fn new(setup: Setup, health: Option<Health>, now: Timestamp) -> io::Result<Self> {
        let Setup { mirror, vnis, watch, describe, .. } = setup;
        let sockets = mirror.targets().iter().map(TargetSocket::open).collect::<io::Result<Vec<_>>>()?;
        for (target, socket) in mirror.targets().iter().zip(&sockets) {
            if let Some(warning) = socket.path_warning(MTU_DEFAULT) {
                tracing::warn!(target = target.name, "{warning}");
            }
        }
        let senders = Senders::start(mirror.targets(), sockets, mirror.sessions().len())?;
        let (health, checks) = match health {
            Some(health) => (health, None),
            None => {
                let health = Health::new(mirror.targets().len());
                let checks = HealthChecks::start(mirror.targets(), &health)?;
                (health, Some(checks))
            }
        };
        let names = Names::default();
        let (known, by_index) = (Arc::clone(&describe), Arc::clone(&names));
        let describe_index = Box::new(move |index: u16| {
            let name = lock(&by_index).get(usize::from(index)).cloned()?;
            known(&name, mtu(&name))
        });
        let outlet = senders.outlet(WhenFull::Skip);
        let rates = Rates::Hold(now);
        let executor = Executor::new(&mirror, &vnis, rates, health, describe_index, outlet);
        Ok(Self { executor, senders, _checks: checks, mirror, vnis, watch, describe, names })
    }

    fn report(&self) -> Report {
        let mut counts = self.executor.counts();
        let sent = self.senders.counts();
        counts.iter_mut().zip(lock(&sent).iter()).for_each(|(ours, theirs)| ours.merge(theirs));
        Report::new(&self.mirror, &self.vnis, &counts, self.executor.unasked())
    }

    /// Sends what is queued, and tells what became of everything.
    fn finish(self) -> Report {
        let (mut counts, unasked) = (self.executor.counts(), self.executor.unasked());
        drop(self.executor.into_outlet());
        let sent = self.senders.finish();
        counts.iter_mut().zip(lock(&sent).iter()).for_each(|(ours, theirs)| ours.merge(theirs));
        Report::new(&self.mirror, &self.vnis, &counts, unasked)
    }

    /// Our index of a device, if a session applies to it. An error means that it is gone.
    fn interface(&self, device: u32) -> nix::Result<Option<u16>> {
        let name = if_indextoname(device)?.to_string_lossy().into_owned();
        Ok(if self.wants(&name) { index_of(&self.names, &name) } else { None })
    }

    /// Whether a session applies to an interface that is watched.
    fn wants(&self, name: &str) -> bool {
        self.watch.iter().any(|pattern| pattern.matches(name)) && (self.describe)(name, MTU_DEFAULT).is_some()
    }
}

fn run(mut works: Box<Works>, sight: Sight, clock: &Clock, commands: &Receiver<Command>, shared: &Mutex<Report>) {
    let Sight { taps: makes_taps, drops } = sight;
    let mut taps = Taps::default();
    let mut drops = drops.map(|source| Drops::new(source, makes_taps));
    let mut frame_bytes = Vec::new();
    let mut earlier = Report::default();
    let mut scan_due = Timestamp::default();
    if let Some(drops) = &mut drops {
        drops.want(&works.mirror);
    }
    // Before the first wait: who asks at once is told, too.
    *lock(shared) = report(&works, &earlier, drops.as_ref());
    loop {
        match commands.try_recv() {
            Ok(Command::Replace(next)) => {
                // Frames wait in the taps' buffers meanwhile. Taps that are wanted no more are closed by the scan.
                *lock(&next.names) = lock(&works.names).clone();
                earlier.merge(&std::mem::replace(&mut works, next).finish());
                scan_due = Timestamp::default();
                if let Some(drops) = &mut drops {
                    drops.want(&works.mirror);
                }
            }
            Ok(Command::Stop) | Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {}
        }
        let now = clock();
        if now >= scan_due || scan_due.0 > now.0 + 2 * NANOS_PER_SEC {
            if makes_taps {
                taps.scan(&works);
            }
            if let Some(drops) = &mut drops {
                drops.look_again();
            }
            scan_due = Timestamp(now.0 + NANOS_PER_SEC);
        }
        wait(&taps, drops.as_ref());
        see(&mut taps, drops.as_mut(), &mut works, &mut frame_bytes);
        works.executor.flush();
        earlier.tap_drops += taps.take_drops();
        *lock(shared) = report(&works, &earlier, drops.as_ref());
    }
    see(&mut taps, drops.as_mut(), &mut works, &mut frame_bytes);
    if let Some(drops) = &mut drops {
        drops.finish(&mut works, &mut frame_bytes);
    }
    earlier.tap_drops += taps.take_drops();
    let mut report = works.finish();
    report.merge(&earlier);
    report.at_drop = drops.as_ref().map(Drops::told).unwrap_or_default();
    *lock(shared) = report;
}

/// What became of everything until now.
fn report(works: &Works, earlier: &Report, drops: Option<&Drops>) -> Report {
    let mut report = works.report();
    report.merge(earlier);
    report.at_drop = drops.map(Drops::told).unwrap_or_default();
    report
}

/// Shows the executor what has come by every way, as much as a turn allows.
fn see(taps: &mut Taps, drops: Option<&mut Drops>, works: &mut Works, frame_bytes: &mut Vec<u8>) {
    taps.show(&mut works.executor, frame_bytes);
    if let Some(drops) = drops {
        drops.show(works, frame_bytes);
    }
}

fn index_of(names: &Names, name: &str) -> Option<u16> {
    let mut names = lock(names);
    let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    });
    u16::try_from(at).ok()
}

fn wait(taps: &Taps, drops: Option<&Drops>) {
    let readiness = drops.map(Drops::readiness);
    let of_drops = readiness.iter().map(|fd| PollFd::new(fd, PollFlags::IN));
    let mut waiting: Vec<_> = taps.sockets().map(|socket| PollFd::new(socket, PollFlags::IN)).chain(of_drops).collect();
    // A signal that comes between is as good as a frame: the caller looks and comes back.
    poll(&mut waiting, Some(&WAIT)).ok();
}

/// The interface's MTU; that of Ethernet if it does not say.
fn mtu(name: &str) -> usize {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/mtu"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(MTU_DEFAULT)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const MTU_DEFAULT: usize = 1500;
