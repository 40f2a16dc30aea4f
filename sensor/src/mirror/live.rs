//! Mirroring beside a live run by a thread of its own: it taps the interfaces of sessions where the kernel does not make
//! the copies, and takes copies of what the kernel drops where there are any (`live/drops.rs`).
//!
//! Its packet sockets are not those that count flows: whatever happens here, flows are counted as without it. They see
//! whole frames in the order of the kernel, both directions in one, with what was left to the card. Our own copies, which
//! bear a mark, are turned away by a filter before anything is copied.

mod drops;
mod leaving;
mod paths;
mod taps;
mod works;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, after, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::executor::{Health, Tapped};
use super::report::Report;
use super::sender::Senders;
use super::{Mirror, Vni};
use crate::capture::dropped::DropSource;
use crate::config::glob::Glob;
use crate::feed::Clock;
use crate::time::{NANOS_PER_SEC, Timestamp};
use drops::Drops;
use leaving::Leaving;
use paths::Paths;
use taps::Taps;
pub use taps::{BUFFER_BYTES as TAP_BUFFER_BYTES, TAPS_MAX};
use works::{Known, Names, Works};

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
    /// The targets of the configuration that was gone over to last.
    known: Mutex<Known>,
}

enum Command {
    Replace(Box<Works>),
    Stop,
}

impl LiveMirror {
    /// Opens the ways to the targets and the interfaces that are there, and begins. Call it with the right to open raw
    /// and packet sockets; the thread keeps what rights the caller has. Targets are checked here, if nobody else has their
    /// `health`. Copies to a target without a route are skipped until there is one.
    ///
    /// # Errors
    /// When the rights are missing, or threads can't be had.
    pub fn start(setup: Setup, sight: Sight, health: Option<Health>, clock: Clock) -> io::Result<Self> {
        let works = Box::new(Works::new(setup, health, &Known::nothing(), clock())?);
        let (commands, received) = unbounded();
        let (report, known) = (Arc::new(Mutex::new(works.report())), Mutex::new(works.known()));
        let shared = Arc::clone(&report);
        let thread = thread::Builder::new()
            .name("mirror".to_owned())
            .spawn(move || run(works, sight, &clock, &received, &shared))?;
        Ok(Self { commands, report, thread: Some(thread), known })
    }

    /// Makes ready for another configuration; nothing changes yet. Targets that stay begin as they stand now.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn prepare(&self, setup: Setup, health: Option<Health>, now: Timestamp) -> io::Result<Ready> {
        Works::new(setup, health, &lock(&self.known), now).map(Box::new).map(Ready)
    }

    /// Goes over to another configuration, between two frames. What does not change goes on being tapped; what the
    /// earlier sessions have queued is sent, or given up after [`FINISH_WITHIN`]; later copies to the same target wait for
    /// that, all others don't.
    pub fn go_over(&self, ready: Ready) {
        *lock(&self.known) = ready.0.known();
        // The thread is gone only if it has panicked, which its report shows.
        self.commands.send(Command::Replace(ready.0)).ok();
    }

    /// What became of everything so far.
    pub fn report(&self) -> Report {
        lock(&self.report).clone()
    }

    /// Sends what is queued, or gives it up after [`FINISH_WITHIN`], and ends.
    pub fn stop(mut self) -> Report {
        self.commands.send(Command::Stop).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        self.report()
    }
}

fn run(mut works: Box<Works>, sight: Sight, clock: &Clock, commands: &Receiver<Command>, shared: &Mutex<Report>) {
    let Sight { taps: makes_taps, drops } = sight;
    let mut taps = Taps::default();
    let mut drops = drops.map(|source| Drops::new(source, makes_taps));
    let mut paths = Paths::default();
    let mut frame_bytes = Vec::new();
    let mut past = Past::default();
    let mut scan_due = Timestamp::default();
    if let Some(drops) = &mut drops {
        drops.want(&works.mirror);
    }
    // Before the first wait: who asks at once is told, too.
    *lock(shared) = report(works.report(), &past, drops.as_ref());
    loop {
        match commands.try_recv() {
            Ok(Command::Replace(next)) => {
                // Frames wait in the taps' buffers meanwhile. Taps that are wanted no more are closed by the scan.
                *lock(&next.names) = lock(&works.names).clone();
                past.leaving.push(std::mem::replace(&mut works, next).leave(after(FINISH_WITHIN)));
                past.precede(&works.senders);
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
                paths.tell(&works, taps.interfaces());
            }
            if let Some(drops) = &mut drops {
                drops.look_again();
            }
            scan_due = Timestamp(now.0 + NANOS_PER_SEC);
        }
        wait(&taps, drops.as_ref());
        see(&mut taps, drops.as_mut(), &mut works, &mut frame_bytes);
        works.executor.flush();
        past.tend();
        past.earlier.tap_drops += taps.take_drops();
        *lock(shared) = report(works.report(), &past, drops.as_ref());
    }
    see(&mut taps, drops.as_mut(), &mut works, &mut frame_bytes);
    if let Some(drops) = &mut drops {
        drops.finish(&mut works, &mut frame_bytes);
    }
    past.earlier.tap_drops += taps.take_drops();
    let last = works.leave(after(FINISH_WITHIN));
    past.leaving.iter().chain([&last]).for_each(Leaving::end);
    let leaving = std::mem::take(&mut past.leaving);
    leaving.into_iter().for_each(|leaving| past.earlier.merge(&leaving.finish()));
    *lock(shared) = report(last.finish(), &past, drops.as_ref());
}

/// What earlier configurations have done.
#[derive(Default)]
struct Past {
    earlier: Report,
    /// Those that have still to send.
    leaving: Vec<Leaving>,
}

impl Past {
    /// Has senders that have nothing to send yet wait for all that have, so that copies keep their order.
    fn precede(&self, next: &Senders) {
        next.follow(self.leaving.iter().map(Leaving::senders));
    }

    /// Takes leave of those that have sent everything, and has those give up whose time is over.
    fn tend(&mut self) {
        let over: Vec<_> = self.leaving.extract_if(.., |leaving| leaving.is_over()).collect();
        over.into_iter().for_each(|leaving| self.earlier.merge(&leaving.finish()));
    }
}

/// What became of everything until now.
fn report(mut report: Report, past: &Past, drops: Option<&Drops>) -> Report {
    past.leaving.iter().for_each(|leaving| report.merge(&leaving.report()));
    report.merge(&past.earlier);
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

/// How long a run that stops, and a configuration that is replaced, go on to send what is queued. What is left then is
/// skipped and counted, within half a second more: a target that takes nothing must hold up neither.
pub const FINISH_WITHIN: Duration = Duration::from_secs(2);

const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const MTU_DEFAULT: usize = 1500;

#[cfg(test)]
mod tests {
    use crossbeam_channel::never;

    use super::*;
    use crate::mirror::sender::tests::{senders_to, stalled, waits};

    /// Two changes in a row, the first of which leaves the target out.
    #[test]
    fn a_configuration_waits_for_all_that_have_still_to_send() {
        let ((first, stall), second, mut third) = (stalled(), senders_to(&[2]), senders_to(&[1]));
        // Nothing is really sent.
        first.give_up();
        let leaving = [first, second].map(|senders| Leaving::new(senders, Report::default(), never()));
        let past = Past { leaving: leaving.into(), ..Past::default() };
        past.precede(&third);
        third.close();
        assert!(waits(&third, 0));
        drop(stall);
        third.finish();
    }
}
